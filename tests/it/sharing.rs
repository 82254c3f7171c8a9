//! Quick reads of several clients on one server connection: who waits too long behind another, whose
//! connection dies and who cancels gets the answer that is right for it, and nobody another's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, ServerError, cancel};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message;
use crate::random::Random;
use crate::shared::Databases;

/// Rows of each table.
const ROWS: usize = 100;
/// Backends of the test's database that wait for a lock.
const WAITING: &str = "FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

struct Shared {
    databases: Databases,
    herd: Herd,
}

impl Shared {
    fn start(shards: usize, settings: &[&str]) -> Shared {
        let databases = Databases::create(shards);
        databases.run_everywhere(
            "CREATE TABLE kept (id int PRIMARY KEY, v text);
             CREATE TABLE other (id int PRIMARY KEY, v text)",
        );
        let mut options = Options::new("transaction");
        options.set("engines: 1").set("shared_read_wait: 1s");
        for setting in settings {
            options.set(setting);
        }
        if shards > 1 {
            options
                .sharded("kept", "id", "int4", "{jump: all}")
                .on("other", "kept", "id");
        }
        let herd = Herd::start(&databases, &options);
        let mut client = herd.connect();
        for table in ["kept", "other"] {
            for id in 0..ROWS {
                client.run(&format!(
                    "INSERT INTO {table} VALUES ({id}, '{table} {id}')"
                ));
            }
        }
        Shared { databases, herd }
    }

    fn count(&self, outcome: &str) -> u64 {
        let sum: f64 = (0..self.databases.shard_ports.len())
            .filter_map(|shard| {
                let labels = format!("shard=\"shard_{shard}\",outcome=\"{outcome}\"");
                self.herd.metric("pgherd_shared_reads_total", &labels)
            })
            .sum();
        format!("{sum:.0}").parse().expect("a count")
    }

    /// A client whose reads of both tables are known to be quick.
    fn warm(&self, way: Way) -> Client {
        let mut client = self.herd.connect();
        for table in ["kept", "other"] {
            way.prepare(&mut client, table);
            for id in 0..60 {
                way.ask(&mut client, table, id % ROWS);
                assert_eq!(value(client.answer()), format!("{table} {id}"));
            }
        }
        client
    }
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Simple,
    Unnamed,
    Named,
}

const WAYS: [Way; 3] = [Way::Simple, Way::Unnamed, Way::Named];

impl Way {
    fn prepare(self, client: &mut Client, table: &str) {
        if self == Way::Named {
            let sql = format!("SELECT v FROM {table} WHERE id = $1");
            client.send(&[message::parse(table, &sql, &[]), message::sync()].concat());
            client.answer().expect("prepared");
        }
    }

    fn ask(self, client: &mut Client, table: &str, id: usize) {
        let group = |parse: Vec<u8>, name: &str| {
            let id = [Some(id.to_string().into_bytes())];
            [
                parse,
                message::bind("", name, &[], &id, &[]),
                message::describe(b'P', ""),
                message::execute("", 0),
                message::sync(),
            ]
            .concat()
        };
        let sql = format!("SELECT v FROM {table} WHERE id = $1");
        let bytes = match self {
            Way::Simple => message::query(&format!("SELECT v FROM {table} WHERE id = {id}")),
            Way::Unnamed => group(message::parse("", &sql, &[]), ""),
            Way::Named => group(Vec::new(), table),
        };
        client.send(&bytes);
    }
}

fn value(answer: Result<Answer, ServerError>) -> String {
    answer.expect("a row").rows[0][0].clone().expect("a value")
}

/// A read of `kept` that waits for a lock, and one of `other` that was sent while it waits.
struct Stuck {
    locker: Client,
    first: Client,
    second: Client,
}

impl Stuck {
    fn start(shared: &Shared, way: Way) -> Stuck {
        let mut locker = shared.databases.shard(0);
        let (mut first, mut second) = (shared.warm(way), shared.warm(way));
        locker.run("BEGIN");
        locker.run("LOCK TABLE kept");
        let before = shared.count("joined");
        way.ask(&mut first, "kept", 1);
        eventually("it waits for the lock", || {
            let mut other = shared.databases.shard(0);
            other.value(&format!("SELECT count(*) {WAITING}")) == "1"
        });
        way.ask(&mut second, "other", 2);
        eventually("it is sent behind", || shared.count("joined") > before);
        Stuck {
            locker,
            first,
            second,
        }
    }
}

#[test]
fn nobody_waits_for_anothers_lock() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let before = shared.count("turned_away");
        let mut stuck = Stuck::start(&shared, way);
        assert_eq!(value(stuck.second.answer()), "other 2");
        assert_eq!(shared.count("turned_away") - before, 1);
        way.ask(&mut stuck.second, "other", 3);
        assert_eq!(value(stuck.second.answer()), "other 3");
        stuck.locker.run("COMMIT");
        assert_eq!(value(stuck.first.answer()), "kept 1");
        way.ask(&mut stuck.first, "other", 4);
        assert_eq!(value(stuck.first.answer()), "other 4");
    }
    assert_eq!(
        shared.herd.metric("pgherd_out_of_sync_total", ""),
        Some(0.0)
    );
}

#[test]
fn a_cancel_hits_its_own_client_only() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let mut stuck = Stuck::start(&shared, way);
        cancel(shared.herd.port, stuck.first.key);
        let error = stuck.first.answer().expect_err("canceled");
        assert_eq!(error.code, "57014", "{error:?}");
        assert_eq!(value(stuck.second.answer()), "other 2");
        way.ask(&mut stuck.first, "kept", 5);
        way.ask(&mut stuck.second, "kept", 6);
        cancel(shared.herd.port, stuck.second.key);
        let error = stuck.second.answer().expect_err("canceled");
        assert_eq!(error.code, "57014", "{error:?}");
        assert_eq!(stuck.second.status, 'I');
        stuck.locker.run("COMMIT");
        assert_eq!(value(stuck.first.answer()), "kept 5");
        way.ask(&mut stuck.second, "kept", 7);
        assert_eq!(value(stuck.second.answer()), "kept 7");
    }
}

#[test]
fn who_follows_outlives_the_connection() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let mut stuck = Stuck::start(&shared, way);
        stuck
            .locker
            .run(&format!("SELECT pg_terminate_backend(pid) {WAITING}"));
        let error = stuck.first.answer().expect_err("its connection is gone");
        assert_eq!(error.code, "08006", "{error:?}");
        assert_eq!(value(stuck.second.answer()), "other 2");
        stuck.locker.run("COMMIT");
        way.ask(&mut stuck.first, "kept", 1);
        assert_eq!(value(stuck.first.answer()), "kept 1");
    }
}

#[test]
fn the_answer_of_who_left_is_nobodys() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let mut stuck = Stuck::start(&shared, way);
        stuck.second.hang_up();
        let mut third = shared.herd.connect();
        way.prepare(&mut third, "kept");
        way.ask(&mut third, "kept", 8);
        stuck.locker.run("COMMIT");
        assert_eq!(value(stuck.first.answer()), "kept 1");
        assert_eq!(value(third.answer()), "kept 8");
        for id in 0..ROWS {
            way.ask(&mut stuck.first, "other", id);
            way.ask(&mut third, "kept", id);
            assert_eq!(value(stuck.first.answer()), format!("other {id}"));
            assert_eq!(value(third.answer()), format!("kept {id}"));
        }
    }
    assert_eq!(
        shared.herd.metric("pgherd_out_of_sync_total", ""),
        Some(0.0)
    );
}

#[test]
fn what_is_sent_behind_waits() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let mut stuck = Stuck::start(&shared, way);
        // Both go on without awaiting an answer.
        way.ask(&mut stuck.first, "other", 10);
        way.ask(&mut stuck.second, "kept", 11);
        stuck.first.send(&message::query(
            "BEGIN; SELECT v FROM other WHERE id = 12; ROLLBACK",
        ));
        stuck.locker.run("COMMIT");
        assert_eq!(value(stuck.first.answer()), "kept 1");
        assert_eq!(value(stuck.first.answer()), "other 10");
        assert_eq!(value(stuck.first.answer()), "other 12");
        assert_eq!(value(stuck.second.answer()), "other 2");
        assert_eq!(value(stuck.second.answer()), "kept 11");
    }
}

#[test]
fn one_read_a_connection_where_that_is_wanted() {
    let shared = Shared::start(1, &["reads_per_connection: 1"]);
    let (mut first, mut second) = (shared.warm(Way::Named), shared.warm(Way::Named));
    for id in 0..ROWS {
        Way::Named.ask(&mut first, "kept", id);
        Way::Named.ask(&mut second, "other", id);
        assert_eq!(value(first.answer()), format!("kept {id}"));
        assert_eq!(value(second.answer()), format!("other {id}"));
    }
    assert_eq!(shared.count("joined"), 0);
}

#[test]
fn what_may_not_run_twice_goes_alone() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(
        "CREATE SEQUENCE s;
         CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s') $$;
         CREATE VIEW seen AS SELECT id, v, counted() FROM kept",
    );
    shared.herd.console().run("RELOAD");
    for sql in [
        "SELECT nextval('s'), v FROM kept WHERE id = 1",
        "SELECT counted(), v FROM kept WHERE id = 1",
        "SELECT * FROM seen WHERE id = 1",
        "SELECT v FROM kept WHERE id = 1 FOR UPDATE",
        "UPDATE kept SET v = v WHERE id = 1",
        "INSERT INTO other VALUES (1, '') ON CONFLICT DO NOTHING",
    ] {
        let mut clients: Vec<Client> = (0..4).map(|_| shared.herd.connect()).collect();
        for _ in 0..40 {
            for client in &mut clients {
                client.send(&message::query(sql));
            }
            for client in &mut clients {
                client.answer().expect(sql);
            }
        }
        assert_eq!(shared.count("joined"), 0, "{sql}");
    }
}

/// Clients that read, fail, cancel and leave, under locks and killed backends.
#[test]
fn everybody_gets_its_own_answer() {
    let seed = Random::from_environment().seed;
    println!("SEED={seed}");
    let shared = Shared::start(2, &["default_pool_size: 4", "shared_read_wait: 50ms"]);
    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(6);
    scope(|threads| {
        let workers: Vec<_> = (0..24)
            .map(|number| {
                let (shared, random) = (&shared, Random::new(seed ^ number));
                threads.spawn(move || read_until(shared, random, end))
            })
            .collect();
        let trouble = threads.spawn(|| make_trouble(&shared, Random::new(seed), &over));
        for worker in workers {
            worker.join().expect("a client");
        }
        over.store(true, Ordering::Relaxed);
        trouble.join().expect("trouble");
    });
    println!(
        "{} joined, {} turned away",
        shared.count("joined"),
        shared.count("turned_away")
    );
    assert!(shared.count("joined") > 100);
    assert!(shared.count("turned_away") > 0);
    assert_eq!(
        shared.herd.metric("pgherd_out_of_sync_total", ""),
        Some(0.0)
    );
}

fn read_until(shared: &Shared, mut random: Random, end: Instant) {
    let mut client = None;
    while Instant::now() < end {
        let client = client.get_or_insert_with(|| shared.herd.connect());
        let way = WAYS[random.below(2)];
        let table = ["kept", "other"][random.below(2)];
        let id = random.below(ROWS);
        let chance = random.below(200);
        if chance == 0 {
            way.ask(client, table, id);
            shared.herd.connect().hang_up();
            continue_without(client, shared);
            continue;
        }
        if chance < 10 {
            client.send(&message::query(&format!(
                "SELECT 1 / (id - id) FROM {table} WHERE id = {id}"
            )));
            let error = client.answer().expect_err("division by zero");
            assert!(
                ["22012", "08006"].contains(&error.code.as_str()),
                "{error:?}"
            );
            continue;
        }
        way.ask(client, table, id);
        let cancels = chance < 14;
        if cancels {
            let (port, key) = (shared.herd.port, client.key);
            spawn(move || cancel(port, key)).join().expect("canceled");
        }
        match client.answer() {
            Ok(answer) => assert_eq!(answer.rows[0][0], Some(format!("{table} {id}"))),
            Err(error) if cancels && error.code == "57014" => {}
            Err(error) => assert_eq!(error.code, "08006", "{error:?}"),
        }
    }
}

/// The client leaves in the middle; another takes its place.
fn continue_without(client: &mut Client, shared: &Shared) {
    std::mem::replace(client, shared.herd.connect()).hang_up();
}

fn make_trouble(shared: &Shared, mut random: Random, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut admin = shared.databases.shard(random.below(2));
        if random.below(2) == 0 {
            admin.run("BEGIN");
            admin.run("LOCK TABLE kept");
            sleep(Duration::from_millis(60));
            admin.run("COMMIT");
        } else {
            admin.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()
                 ORDER BY random() LIMIT 1",
            );
        }
        sleep(Duration::from_millis(200));
    }
}
