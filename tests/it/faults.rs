//! Servers that crash, freeze, refuse and come back: no wrong answer, no hang, nothing lost.
//!
//! `FAULT_SECONDS` sets how long the crashing goes on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::{Client, cancel};
use crate::herd::{Herd, Options};
use crate::load::{Load, eventually};
use crate::message::query;
use crate::postgres::Cluster;
use crate::shared::Databases;

const SHARDS: usize = 2;

struct Faulty {
    herd: Herd,
    clusters: Vec<Cluster>,
}

/// Two shards of the test's own with the table `t`, by `k` modulo 2.
fn start(settings: &[&str]) -> Faulty {
    let clusters: Vec<Cluster> = (0..SHARDS).map(|_| Cluster::start("")).collect();
    for cluster in &clusters {
        cluster
            .connect("postgres")
            .run("CREATE DATABASE faulty OWNER app");
        Client::connect(cluster.port, "app", "faulty")
            .run("CREATE TABLE t (k bigint, n int, v text, PRIMARY KEY (k, n))");
    }
    let mut options = Options::new("transaction");
    options.sharded("t", "k", "bigint", "{modulo: all}");
    for setting in settings {
        options.set(setting);
    }
    let ports: Vec<u16> = clusters.iter().map(|cluster| cluster.port).collect();
    Faulty {
        herd: Herd::start_over("faulty", &ports, &options),
        clusters,
    }
}

impl Faulty {
    fn keys(&self) -> Vec<i64> {
        let mut keys = Vec::new();
        for (shard, cluster) in self.clusters.iter().enumerate() {
            for row in cluster.connect("faulty").rows("SELECT k FROM t") {
                let key: i64 = row[0]
                    .as_deref()
                    .and_then(|key| key.parse().ok())
                    .expect("a number");
                assert_eq!(usize::try_from(key.rem_euclid(2)), Ok(shard), "key {key}");
                keys.push(key);
            }
        }
        keys.sort_unstable();
        keys
    }
}

#[test]
fn a_crashing_shard_loses_nothing_that_was_acknowledged() {
    let seconds = std::env::var("FAULT_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let mut faulty = start(&[
        "default_pool_size: 5",
        "query_wait_timeout: 5s",
        "server_connect_timeout: 2s",
    ]);
    let load = Load::start(faulty.herd.port, "faulty", "t", 12);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut crashes = 0;
    while Instant::now() < end {
        sleep(Duration::from_secs(2));
        let victim = &mut faulty.clusters[crashes % SHARDS];
        victim.crash();
        sleep(Duration::from_millis(200));
        victim.restart();
        crashes += 1;
    }
    let before = Instant::now();
    for key in [-1, -2] {
        eventually("the shard serves again", || {
            let client = Client::try_connect(faulty.herd.port, "app", "faulty");
            client.is_ok_and(|mut client| {
                client
                    .query(&format!("SELECT * FROM t WHERE k = {key}"))
                    .is_ok()
            })
        });
    }
    println!(
        "{crashes} crashes; both shards served {:?} after the last",
        before.elapsed()
    );
    load.wait(200);
    let told = load.stop();
    println!(
        "{} acknowledged, {} unknown, errors {:?}",
        told.acknowledged.len(),
        told.unknown.len(),
        told.errors
    );
    told.check_rows(&faulty.keys());
    for code in told.errors.keys() {
        assert_ne!(code, "XX000", "our bug");
        assert_ne!(code, "", "a client's connection ended without a word");
    }
}

#[test]
fn a_refusing_shard_costs_only_its_own_statements() {
    let mut faulty = start(&["query_wait_timeout: 2s", "server_connect_timeout: 1s"]);
    let mut client = faulty.herd.connect_to("faulty");
    client.run("INSERT INTO t VALUES (0, 1, 'x')");
    client.run("INSERT INTO t VALUES (1, 1, 'x')");
    faulty.clusters[1].stop("INT");
    for _ in 0..3 {
        let error = client.fails("SELECT v FROM t WHERE k = 1");
        assert!(
            ["08001", "08006", "57P03", "57P01"].contains(&error.code.as_str()),
            "{error:?}"
        );
        assert_eq!(error.severity, "ERROR", "the client can go on");
        assert_eq!(client.value("SELECT v FROM t WHERE k = 0"), "x");
    }
    client.run("BEGIN");
    client.fails("SELECT v FROM t WHERE k = 1");
    assert_eq!(client.status, 'E');
    client.run("ROLLBACK");
    faulty.clusters[1].restart();
    eventually("the shard is back", || {
        client.query("SELECT v FROM t WHERE k = 1").is_ok()
    });
    client.run("UPDATE t SET v = 'y' WHERE k = 1");
}

#[test]
fn a_server_that_dies_in_a_block_ends_the_block() {
    let mut faulty = start(&["query_wait_timeout: 5s"]);
    let mut client = faulty.herd.connect_to("faulty");
    client.run("BEGIN; INSERT INTO t VALUES (1, 1, 'never')");
    faulty.clusters[1].crash();
    faulty.clusters[1].restart();
    let error = client.fails("INSERT INTO t VALUES (3, 1, 'never')");
    assert!(
        ["08006", "57P01", "57P02", "08003"].contains(&error.code.as_str()),
        "{error:?}"
    );
    let mut client = if error.severity == "ERROR" {
        assert_eq!(client.status, 'E', "the block has failed");
        assert_eq!(client.fails("SELECT 1").code, "25P02");
        client.run("ROLLBACK");
        client
    } else {
        faulty.herd.connect_to("faulty")
    };
    eventually("the shard is back", || {
        client.query("SELECT v FROM t WHERE k = 1").is_ok()
    });
    assert_eq!(faulty.keys(), Vec::<i64>::new());
}

#[test]
fn a_terminated_backend_is_replaced() {
    let faulty = start(&[]);
    let mut client = faulty.herd.connect_to("faulty");
    let mut admin = faulty.clusters[1].connect("faulty");
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
    for _ in 0..5 {
        client.run("SELECT v FROM t WHERE k = 1");
        admin.run(terminate);
        // An idle server that is gone is noticed or costs one statement, never more.
        if client.query("SELECT v FROM t WHERE k = 1").is_err() {
            client.run("SELECT v FROM t WHERE k = 1");
        }
    }
}

#[test]
fn a_frozen_server_does_not_freeze_the_others() {
    let faulty = start(&[
        "query_timeout: 1s",
        "query_wait_timeout: 2s",
        "server_connect_timeout: 1s",
        "default_pool_size: 2",
    ]);
    let mut client = faulty.herd.connect_to("faulty");
    client.run("INSERT INTO t VALUES (0, 1, 'x')");
    client.run("INSERT INTO t VALUES (1, 1, 'x')");
    faulty.clusters[1].signal_all("STOP");
    for _ in 0..4 {
        let mut victim = faulty.herd.connect_to("faulty");
        let error = victim.fails("SELECT v FROM t WHERE k = 1");
        assert!(!error.code.is_empty() && error.code != "XX000", "{error:?}");
        assert_eq!(client.value("SELECT v FROM t WHERE k = 0"), "x");
    }
    faulty.clusters[1].signal_all("CONT");
    eventually("the shard is back", || {
        client.query("SELECT v FROM t WHERE k = 1").is_ok()
    });
}

#[test]
fn listening_on_a_frozen_home_shard_ends() {
    let faulty = start(&["query_wait_timeout: 30s", "server_connect_timeout: 2s"]);
    let mut early = faulty.herd.connect_to("faulty");
    early.run("LISTEN known");
    let mut late = faulty.herd.connect_to("faulty");
    let mut canceled = faulty.herd.connect_to("faulty");
    faulty.clusters[0].signal_all("STOP");
    let begun = Instant::now();
    canceled.send(&query("LISTEN c"));
    sleep(Duration::from_millis(200));
    cancel(faulty.herd.port, canceled.key);
    assert_eq!(canceled.answer().expect_err("canceled").code, "57014");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(late.fails("LISTEN d").code, "08006");
    let took = begun.elapsed();
    faulty.clusters[0].signal_all("CONT");
    assert!(took < Duration::from_secs(10), "{took:?}");
    eventually("the shard is back", || late.query("LISTEN d").is_ok());
    late.run("NOTIFY known");
    let heard = early.receive(Duration::from_secs(5));
    assert_eq!(heard.expect("a notification").tag, b'A');
}

#[test]
fn a_server_without_free_connections_is_waited_for() {
    let mut small = Cluster::start(
        "max_connections = 5\nsuperuser_reserved_connections = 2\nmax_wal_senders = 0\nwal_level = replica\n",
    );
    small
        .connect("postgres")
        .run("CREATE DATABASE faulty OWNER app");
    let mut options = Options::new("transaction");
    options
        .set("default_pool_size: 20")
        .set("query_wait_timeout: 15s")
        .set("server_connect_timeout: 2s");
    let herd = Herd::start_over("faulty", &[small.port], &options);
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let mut client = herd.connect_to("faulty");
            std::thread::spawn(move || {
                let mut failed = Vec::new();
                for _ in 0..20 {
                    if let Err(error) = client.query("SELECT count(*) FROM pg_class") {
                        failed.push(error);
                    }
                }
                failed
            })
        })
        .collect();
    for thread in threads {
        for error in thread.join().expect("a client does not panic") {
            assert!(
                ["53300", "08001", "08006"].contains(&error.code.as_str()),
                "{error:?}"
            );
        }
    }
    herd.connect_to("faulty")
        .run("SELECT count(*) FROM pg_class");
    drop(herd);
    small.stop("QUIT");
}

#[test]
fn a_commit_that_fails_on_one_shard_is_undone_on_all() {
    let databases = Databases::create(2);
    let at_commit = |shard: usize, body: &str| {
        databases.shard(shard).run(&format!(
            "CREATE TABLE copies (id int PRIMARY KEY);
             CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF NEW.id > 0 THEN {body}; END IF; RETURN NEW; END $$;
             CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON copies
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()"
        ));
    };
    at_commit(0, "RAISE EXCEPTION 'refused'");
    at_commit(
        1,
        "IF NEW.id = 1 THEN RAISE EXCEPTION 'refused'; END IF;
         IF NEW.id = 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF",
    );
    let mut options = Options::new("transaction");
    options.table("copies", "reference");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    client.run("INSERT INTO copies VALUES (0)");
    // What is lost before the decision is rolled back on every shard.
    for (id, code) in [(1, "P0001"), (2, "08006"), (3, "P0001")] {
        let error = client.fails(&format!("INSERT INTO copies VALUES ({id})"));
        assert_eq!(error.code, code, "{id}: {error:?}");
    }
    for shard in 0..2 {
        let count = databases.shard(shard).value("SELECT count(*) FROM copies");
        assert_eq!(count, "1");
    }
}
