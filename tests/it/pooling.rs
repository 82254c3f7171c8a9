//! Limits and timeouts of the pools, with PgBouncer's meanings.

use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::load::{Load, eventually, waiting};
use crate::shared::Databases;

/// One shard with the table `t`, and settings.
fn start(pool_mode: &str, settings: &[&str]) -> (Databases, Herd) {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (id serial, v text)");
    let mut options = Options::new(pool_mode);
    for setting in settings {
        options.set(setting);
    }
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

/// Server processes of the proxy in the database of a shard.
fn servers(databases: &Databases, shard: usize) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name <> 'pgherd' AND state IS NOT NULL";
    databases.shard(shard).value(sql).parse().expect("a count")
}

fn pid(client: &mut Client) -> String {
    client.value("SELECT pg_backend_pid()")
}

#[test]
fn many_clients_share_few_servers() {
    let mut options = Fixture::options("transaction");
    options.set("default_pool_size: 3");
    let fixture = Fixture::with(&mut options);
    let load = Load::on(&fixture, 40);
    for _ in 0..10 {
        load.wait(200);
        for shard in 0..4 {
            // A server that was closed is seen for a moment longer beside the one in its place.
            eventually("no more servers than the pool's size", || {
                servers(&fixture.databases, shard) <= 3
            });
        }
    }
    load.stop().check_flawless();
}

#[test]
fn waiting_clients_are_served_in_their_order() {
    let (databases, herd) = start("transaction", &["default_pool_size: 1", "engines: 1"]);
    let mut holder = herd.connect();
    holder.run("BEGIN; SELECT * FROM t");
    let mut threads = Vec::new();
    for number in 0..8 {
        let mut client = herd.connect();
        threads.push(spawn(move || {
            client.run(&format!("INSERT INTO t (v) VALUES ('{number}')"))
        }));
        eventually("the client waits", || waiting(&herd) == number + 1);
    }
    holder.run("COMMIT");
    for thread in threads {
        thread.join().expect("a client does not panic");
    }
    assert_eq!(
        databases
            .shard(0)
            .value("SELECT string_agg(v, '' ORDER BY id) FROM t"),
        "01234567"
    );
}

#[test]
fn the_reserve_helps_who_waits_too_long() {
    let settings = [
        "default_pool_size: 1",
        "reserve_pool_size: 1",
        "reserve_pool_timeout: 200ms",
    ];
    let (databases, herd) = start("transaction", &settings);
    let mut holder = herd.connect();
    holder.run("BEGIN; SELECT * FROM t");
    herd.connect()
        .run("INSERT INTO t (v) VALUES ('by the reserve')");
    assert_eq!(servers(&databases, 0), 2);
    holder.run("COMMIT");
}

#[test]
fn waiting_ends_with_an_error() {
    let (_databases, herd) = start(
        "transaction",
        &["default_pool_size: 1", "query_wait_timeout: 300ms"],
    );
    let mut holder = herd.connect();
    holder.run("BEGIN; SELECT * FROM t");
    let error = herd.connect().fails("SELECT * FROM t");
    assert_eq!(error.code, "53300", "{error:?}");
    assert!(!error.hint.is_empty(), "{error:?}");
    holder.run("COMMIT");
    herd.connect().run("SELECT * FROM t");
}

#[test]
fn clients_beyond_the_limit_are_told() {
    let (databases, herd) = start("transaction", &["max_client_conn: 3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| herd.connect()).collect();
    let error =
        Client::try_connect(herd.port, "app", &databases.name).expect_err("a fourth client");
    assert_eq!(error.code, "53300", "{error:?}");
    clients
        .pop()
        .expect("three")
        .terminate()
        .expect("no more messages");
    eventually("a place is free", || {
        Client::try_connect(herd.port, "app", &databases.name).is_ok()
    });
    clients[0].run("SELECT 1");
}

#[test]
fn an_idle_block_is_ended() {
    let (databases, herd) = start(
        "transaction",
        &["idle_transaction_timeout: 300ms", "default_pool_size: 1"],
    );
    let mut client = herd.connect();
    client.run("BEGIN; INSERT INTO t (v) VALUES ('never')");
    // The only server comes free.
    assert_eq!(herd.connect().value("SELECT count(*) FROM t"), "0");
    let error = client.fails("COMMIT");
    assert_eq!(error.code, "25P03", "{error:?}");
    assert_eq!(databases.shard(0).value("SELECT count(*) FROM t"), "0");
    let mut idle = herd.connect();
    idle.run("SELECT 1");
    sleep(Duration::from_millis(600));
    idle.run("SELECT 'idle outside a block is no fault'");
}

#[test]
fn a_long_statement_is_ended() {
    let (databases, herd) = start(
        "transaction",
        &["query_timeout: 400ms", "default_pool_size: 1"],
    );
    let mut client = herd.connect();
    let error = client.fails("SELECT pg_sleep(60)");
    assert_eq!(error.code, "57014", "{error:?}");
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
    eventually("the server has stopped as well", || {
        databases.shard(0).value(sleeping) == "0"
    });
    herd.connect().run("SELECT * FROM t");
}

#[test]
fn an_idle_client_is_ended() {
    let (_databases, herd) = start("transaction", &["client_idle_timeout: 300ms"]);
    let mut client = herd.connect();
    client.run("SELECT 1");
    sleep(Duration::from_millis(900));
    let error = client.fails("SELECT 1");
    assert_eq!(error.code, "57P05", "{error:?}");
}

#[test]
fn old_and_idle_servers_are_replaced() {
    let (_databases, herd) = start("transaction", &["server_lifetime: 1s"]);
    let mut client = herd.connect();
    let before = pid(&mut client);
    eventually("a new server", || pid(&mut client) != before);
    drop(client);
    drop(herd);
    let (databases, herd) = start("transaction", &["server_idle_timeout: 1s"]);
    herd.connect().run("SELECT * FROM t");
    assert_eq!(servers(&databases, 0), 1);
    eventually("the idle server is closed", || servers(&databases, 0) == 0);
    herd.connect().run("SELECT * FROM t");
}

#[test]
fn a_minimum_of_servers_is_kept() {
    let (databases, herd) = start("transaction", &["min_pool_size: 2"]);
    herd.connect().run("SELECT * FROM t");
    eventually("two servers", || servers(&databases, 0) >= 2);
}

#[test]
fn a_session_keeps_its_server() {
    let (databases, herd) = start("session", &["default_pool_size: 2"]);
    let (mut one, mut two) = (herd.connect(), herd.connect());
    let (first, second) = (pid(&mut one), pid(&mut two));
    assert_ne!(first, second);
    for _ in 0..5 {
        assert_eq!(pid(&mut one), first);
        assert_eq!(pid(&mut two), second);
    }
    one.run("CREATE TEMP TABLE mine (id int)");
    one.terminate().expect("no more messages");
    let mut three = herd.connect();
    pid(&mut three);
    assert_eq!(three.fails("SELECT * FROM mine").code, "42P01");
    eventually("the first client's server is gone", || {
        servers(&databases, 0) <= 2
    });
}

#[test]
fn a_user_may_have_a_mode_and_size_of_its_own() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.users[0] =
        "{name: app, password: app-secret, pool_mode: session, default_pool_size: 1}".to_owned();
    options.set("query_wait_timeout: 300ms");
    let herd = Herd::start(&databases, &options);
    let mut one = herd.connect();
    one.run("SELECT * FROM pg_class LIMIT 1");
    assert_eq!(
        herd.connect().fails("SELECT * FROM pg_class LIMIT 1").code,
        "53300"
    );
    one.terminate().expect("no more messages");
    herd.connect().run("SELECT * FROM pg_class LIMIT 1");
}

#[test]
fn statement_mode_refuses_blocks() {
    let (_databases, herd) = start("statement", &[]);
    for begin in [
        "BEGIN",
        "START TRANSACTION",
        "begin; select 1",
        "SELECT 1; BEGIN",
    ] {
        let mut client = herd.connect();
        let error = client.fails(begin);
        assert!(
            ["0A000", "08P01"].contains(&error.code.as_str()),
            "{begin}: {error:?}"
        );
        assert!(!error.hint.is_empty(), "{begin}: {error:?}");
    }
    let mut client = herd.connect();
    client.run("INSERT INTO t (v) VALUES ('a'); INSERT INTO t (v) VALUES ('b')");
    assert_eq!(
        client
            .query_with("SELECT count(*) FROM t WHERE v <> $1", &[Some("a")])
            .expect("read")
            .rows,
        [[Some("1".to_owned())]]
    );
}

#[test]
fn transactions_of_many_clients_do_not_mix() {
    let (databases, herd) = start("transaction", &["default_pool_size: 3"]);
    databases.shard(0).run("CREATE TABLE accounts (id int PRIMARY KEY, balance int); INSERT INTO accounts SELECT g, 100 FROM generate_series(0, 9) g");
    let threads: Vec<_> = (0..12)
        .map(|number| {
            let mut client = herd.connect();
            spawn(move || {
                for round in 0..40 {
                    let (from, to) = ((number + round) % 10, (number * 3 + round + 1) % 10);
                    let (low, high) = (from.min(to), from.max(to));
                    client.run("BEGIN");
                    client.run(&format!(
                        "SELECT * FROM accounts WHERE id IN ({low}, {high}) ORDER BY id FOR UPDATE"
                    ));
                    client.run(&format!(
                        "UPDATE accounts SET balance = balance - 1 WHERE id = {from}"
                    ));
                    client
                        .query_with(
                            "UPDATE accounts SET balance = balance + 1 WHERE id = $1",
                            &[Some(&to.to_string())],
                        )
                        .expect("written");
                    client.run(if round % 5 == 4 { "ROLLBACK" } else { "COMMIT" });
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client does not panic");
    }
    assert_eq!(
        databases
            .shard(0)
            .value("SELECT sum(balance) FROM accounts"),
        "1000"
    );
}

#[test]
fn settings_around_the_end_of_a_block_follow_the_client() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.set("engines: 1");
    let herd = Herd::start(&databases, &options);
    let texts = [
        (
            "begin; set work_mem = '5MB'",
            "commit; set maintenance_work_mem = '50MB'; select 1/0",
        ),
        (
            "begin; set work_mem = '6MB'",
            "rollback; set maintenance_work_mem = '60MB'; select 1/0",
        ),
        (
            "begin; set work_mem = '7MB'",
            "rollback; set maintenance_work_mem = '70MB'",
        ),
        (
            "begin; set work_mem = '8MB'",
            "commit; set maintenance_work_mem = '80MB'",
        ),
        (
            "select 1",
            "begin; set work_mem = '9MB'; rollback; set maintenance_work_mem = '90MB'; select 1/0",
        ),
        (
            "begin; set work_mem = '10MB'",
            "commit; begin; set maintenance_work_mem = '100MB'; rollback; select 1/0",
        ),
        (
            "begin; set work_mem = '11MB'",
            "commit; begin; set maintenance_work_mem = '110MB'; commit; select 1/0",
        ),
        (
            "begin; set work_mem = '12MB'; savepoint s",
            "set work_mem = '13MB'; rollback to s; commit; select 1/0",
        ),
    ];
    for (first, second) in texts {
        let (mut client, mut reference) = (herd.connect(), databases.reference());
        for sql in [first, second] {
            let (found, wanted) = (client.query(sql), reference.query(sql));
            assert_eq!(found.is_ok(), wanted.is_ok(), "{sql}: {found:?}");
        }
        // The connection that it used is another's now.
        let mut other = herd.connect();
        other.run("BEGIN; SELECT 1");
        for name in ["work_mem", "maintenance_work_mem"] {
            let show = format!("SHOW {name}");
            assert_eq!(
                client.value(&show),
                reference.value(&show),
                "{first}; {second}: {name}"
            );
        }
        other.run("COMMIT");
    }
}
