//! Quick reads of several clients on one server connection: who waits too long behind another, whose
//! connection dies and who cancels gets the answer that is right for it, and nobody another's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep, spawn};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, ServerError, cancel};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message;
use crate::postgres::Cluster;
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
        Shared::over(Databases::create(shards), shards, settings)
    }

    fn over(databases: Databases, shards: usize, settings: &[&str]) -> Shared {
        databases.run_everywhere(
            "CREATE TABLE IF NOT EXISTS kept (id int PRIMARY KEY, v text);
             CREATE TABLE IF NOT EXISTS other (id int PRIMARY KEY, v text)",
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
        let mut stuck = Stuck::alone(shared, way);
        let before = shared.count("joined");
        way.ask(&mut stuck.second, "other", 2);
        eventually("it is sent behind", || shared.count("joined") > before);
        stuck
    }

    /// The second has not asked yet.
    fn alone(shared: &Shared, way: Way) -> Stuck {
        let mut locker = shared.databases.shard(0);
        let (mut first, second) = (shared.warm(way), shared.warm(way));
        locker.run("BEGIN");
        locker.run("LOCK TABLE kept");
        way.ask(&mut first, "kept", 1);
        eventually("it waits for the lock", || {
            let mut other = shared.databases.shard(0);
            other.value(&format!("SELECT count(*) {WAITING}")) == "1"
        });
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
        // A cancel request that comes first is for nothing.
        eventually("both are under way", || {
            let clients = shared.herd.console().run("SHOW CLIENTS");
            let states = clients.column("state");
            states.iter().filter(|state| *state == "active").count() == 2
        });
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
    assert!(shared.count("joined") > 1000);
    assert!(shared.count("turned_away") > 0);
}

fn read_until(shared: &Shared, mut random: Random, end: Instant) {
    let mut client = None;
    while Instant::now() < end {
        let client = client.get_or_insert_with(|| prepared(shared));
        let way = WAYS[random.below(3)];
        let table = ["kept", "other"][random.below(2)];
        let id = random.below(ROWS);
        let chance = random.below(200);
        if chance == 0 {
            way.ask(client, table, id);
            std::mem::replace(client, prepared(shared)).hang_up();
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

fn prepared(shared: &Shared) -> Client {
    let mut client = shared.herd.connect();
    for table in ["kept", "other"] {
        Way::Named.prepare(&mut client, table);
    }
    client
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

/// How often a function of `with_counting` ran, by its sequence.
fn calls(shared: &Shared) -> i64 {
    let mut shard = shared.databases.shard(0);
    let value = shard.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM s");
    value.parse().expect("a count")
}

/// What several clients read at once, over and over.
fn read_together(shared: &Shared, sql: &str) {
    let mut clients: Vec<Client> = (0..4).map(|_| shared.herd.connect()).collect();
    for _ in 0..40 {
        for client in &mut clients {
            client.send(&message::query(sql));
        }
        for client in &mut clients {
            client.answer().expect(sql);
        }
    }
}

const COUNTING: &str = "CREATE SEQUENCE s;
     CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s') $$;";

#[test]
fn a_long_message_goes_alone() {
    let shared = Shared::start(1, &[]);
    let way = Way::Named;
    let mut long = shared.warm(way);
    let mut stuck = Stuck::start(&shared, way);
    let before = shared.count("joined");
    let id = "0".repeat(900_000) + "7";
    let group = [
        message::bind("", "other", &[], &[Some(id.into_bytes())], &[]),
        message::describe(b'P', ""),
        message::execute("", 0),
        message::sync(),
    ];
    long.send(&group.concat());
    assert_eq!(value(long.answer()), "other 7");
    assert_eq!(shared.count("joined"), before);
    stuck.locker.run("COMMIT");
    assert_eq!(value(stuck.first.answer()), "kept 1");
    assert_eq!(value(stuck.second.answer()), "other 2");
}

#[test]
fn a_table_whose_policy_calls_a_function_is_read_alone() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(&format!(
        "{COUNTING}
         ALTER TABLE kept ENABLE ROW LEVEL SECURITY;
         ALTER TABLE kept FORCE ROW LEVEL SECURITY;
         CREATE POLICY seen ON kept USING (counted() > 0);"
    ));
    shared.herd.console().run("RELOAD");
    let before = calls(&shared);
    read_together(&shared, "SELECT v FROM kept WHERE id = 1");
    assert!(calls(&shared) > before, "the policy calls it");
    assert_eq!(shared.count("joined"), 0);
}

#[test]
fn a_policy_is_called_once_for_one_read() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(&format!(
        "{COUNTING}
         ALTER TABLE other ENABLE ROW LEVEL SECURITY;
         ALTER TABLE other FORCE ROW LEVEL SECURITY;
         CREATE POLICY seen ON other USING (counted() > 0);"
    ));
    shared.herd.console().run("RELOAD");
    let way = Way::Named;
    let mut stuck = Stuck::alone(&shared, way);
    let before = calls(&shared);
    way.ask(&mut stuck.second, "other", 2);
    assert_eq!(value(stuck.second.answer()), "other 2");
    stuck.locker.run("COMMIT");
    assert_eq!(value(stuck.first.answer()), "kept 1");
    sleep(Duration::from_millis(500));
    assert_eq!(calls(&shared) - before, 1);
}

#[test]
fn calls_that_do_not_look_like_calls_go_alone() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(&format!(
        "{COUNTING}
         CREATE DOMAIN odd AS int CHECK (counted() > 0);
         CREATE FUNCTION noted(kept) RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s') $$;
         CREATE FUNCTION length(int) RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('s') $$;"
    ));
    shared.herd.console().run("RELOAD");
    let mut wrong = Vec::new();
    for sql in [
        "SELECT id::odd FROM kept WHERE id = 1",
        "SELECT kept.noted FROM kept WHERE id = 1",
        "SELECT length(id) FROM kept WHERE id = 1",
    ] {
        let (before, joined) = (calls(&shared), shared.count("joined"));
        read_together(&shared, sql);
        let (ran, joined) = (calls(&shared) - before, shared.count("joined") - joined);
        println!("{sql}: {ran} calls, {joined} joined");
        if ran > 0 && joined > 0 {
            wrong.push(sql);
        }
    }
    assert_eq!(wrong, Vec::<&str>::new());
}

#[test]
fn an_operator_that_counts_keeps_reads_alone() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(&format!(
        "{COUNTING}
         CREATE FUNCTION same(int, bigint) RETURNS boolean LANGUAGE sql VOLATILE
             AS $$ SELECT counted() > 0 $$;
         CREATE OPERATOR === (FUNCTION = same, LEFTARG = int, RIGHTARG = bigint);"
    ));
    shared.herd.console().run("RELOAD");
    for sql in [
        "SELECT v FROM kept WHERE id === 1::bigint AND id = 1",
        "SELECT v FROM kept WHERE id = 1",
    ] {
        read_together(&shared, sql);
        assert_eq!(shared.count("joined"), 0, "{sql}");
    }
}

#[test]
fn a_table_that_became_a_view_in_a_long_transaction_is_read_alone() {
    let shared = Shared::start(1, &[]);
    shared.databases.run_everywhere(COUNTING);
    let mut owner = shared.herd.connect();
    owner.run("BEGIN");
    owner.run("ALTER TABLE kept RENAME TO kept_before");
    owner.run("CREATE VIEW kept AS SELECT id, v, counted() FROM kept_before");
    // The catalog is read again after DDL.
    sleep(Duration::from_secs(2));
    owner.run("COMMIT");
    sleep(Duration::from_secs(2));
    let before = calls(&shared);
    read_together(&shared, "SELECT * FROM kept WHERE id = 1");
    assert_eq!(calls(&shared) - before, 160, "each ran once");
    assert_eq!(shared.count("joined"), 0);
}

#[test]
fn what_is_sent_again_counts_once() {
    let shared = Shared::start(1, &[]);
    for way in WAYS {
        let statements = || {
            shared
                .herd
                .metric("pgherd_statements_total", "route=\"single\"")
                .unwrap_or_default()
        };
        let mut stuck = Stuck::start(&shared, way);
        let before = statements();
        assert_eq!(value(stuck.second.answer()), "other 2");
        let more = statements() - before;
        stuck.locker.run("COMMIT");
        assert_eq!(value(stuck.first.answer()), "kept 1");
        assert_eq!(format!("{more:.0}"), "1", "{way:?}");
    }
}

#[test]
fn a_read_that_is_nobodys_does_not_go_on_when_it_is_given_up() {
    let shared = Shared::start(1, &[]);
    let mut stuck = Stuck::start(&shared, Way::Named);
    stuck.second.hang_up();
    let mut other = shared.databases.shard(0);
    other.run("BEGIN");
    other.run("LOCK TABLE other");
    stuck.locker.run("COMMIT");
    assert_eq!(value(stuck.first.answer()), "kept 1");
    // More than a connection may take to come back to rest.
    sleep(Duration::from_secs(7));
    let mut admin = shared.databases.shard(0);
    let waits = admin.value(&format!("SELECT count(*) {WAITING}"));
    let servers = shared.herd.console().run("SHOW SERVERS").rows.len();
    println!("{servers} servers");
    other.run("COMMIT");
    assert_eq!(waits, "0", "backends that run what nobody waits for");
}

/// Servers that are reached by TLS.
fn with_tls(settings: &[&str]) -> (Cluster, Shared) {
    let (cluster, _) = Cluster::with_tls();
    cluster
        .connect("postgres")
        .run("CREATE DATABASE tls OWNER app");
    let databases = Databases {
        name: "tls".to_owned(),
        shard_ports: vec![cluster.port],
        reference_port: cluster.port,
    };
    let shared = Shared::over(
        databases,
        1,
        &[settings, &["server_tls: {mode: require}"]].concat(),
    );
    (cluster, shared)
}

/// Bytes on their way to a port, or from it, that their readers have not taken.
fn on_their_way(port: u16, towards: bool) -> usize {
    let text = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    let port = format!(":{port:04X}");
    text.lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (sent, received) = fields[4].split_once(':').expect("queues");
            let count = |hex: &str| usize::from_str_radix(hex, 16).expect("hex");
            let is_open = fields[3] == "01";
            let here = fields[1].ends_with(&port);
            if !is_open || here == fields[2].ends_with(&port) {
                return 0;
            }
            count(if here == towards { received } else { sent })
        })
        .sum()
}

#[test]
fn rows_that_are_there_do_not_wait_for_the_next_reads_turn() {
    let shared = Shared::start(1, &["shared_read_wait: 12s"]);
    let way = Way::Simple;
    let mut slow = shared.warm(way);
    let mut stuck = Stuck::start(&shared, way);
    // A client that does not read, until the end of a row must wait in the proxy.
    let (mut queued, mut rows, mut length) = (0, 0, 3_900_000);
    loop {
        slow.send(&message::query(&format!("SELECT repeat('x', {length})")));
        rows += 1;
        sleep(Duration::from_millis(if rows == 1 { 500 } else { 25 }));
        let now = on_their_way(shared.herd.port, false);
        if now < queued + length {
            break;
        }
        assert!(rows < 300, "the sockets hold {now} bytes");
        (queued, length) = (now, 7_000);
    }
    way.ask(&mut slow, "other", 3);
    let since = Instant::now();
    for _ in 0..rows {
        slow.answer().expect("a long row");
    }
    let took = since.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    stuck.locker.run("COMMIT");
    assert_eq!(value(stuck.first.answer()), "kept 1");
    assert_eq!(value(slow.answer()), "other 3");
}

#[test]
fn a_foreign_table_is_read_alone() {
    let shared = Shared::start(1, &[]);
    let mut admin = Client::connect(
        shared.databases.shard_ports[0],
        "postgres",
        &shared.databases.name,
    );
    admin.run("CREATE EXTENSION file_fdw");
    admin.run("CREATE SERVER files FOREIGN DATA WRAPPER file_fdw");
    let path = std::env::temp_dir().join(format!("pgherd-it-{}", shared.databases.name));
    admin.run(&format!(
        "CREATE FOREIGN TABLE far (id int) SERVER files
        OPTIONS (program 'echo 1 >>{}; echo 1')",
        path.display()
    ));
    admin.run("GRANT SELECT ON far TO app");
    shared.herd.console().run("RELOAD");
    sleep(Duration::from_secs(1));
    read_together(&shared, "SELECT id FROM far");
    let ran = std::fs::metadata(&path).map_or(0, |it| it.len() / 2);
    drop(std::fs::remove_file(&path));
    println!("ran {ran}");
    assert_eq!(shared.count("joined"), 0);
}

/// No sharing: the same gap for one client alone.
#[test]
fn the_end_of_what_one_client_sends_by_tls_is_sent() {
    let (cluster, shared) = with_tls(&["reads_per_connection: 1"]);
    let way = Way::Named;
    let mut client = shared.warm(way);
    let ask = |client: &mut Client, length: usize| {
        let id = "0".repeat(length) + "7";
        client.send(
            &[
                message::bind("", "other", &[], &[Some(id.into_bytes())], &[]),
                message::describe(b'P', ""),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        );
    };
    let mut fits = 0;
    for round in 0..4 {
        let mut locker = shared.databases.shard(0);
        locker.run("BEGIN");
        locker.run("LOCK TABLE kept");
        way.ask(&mut client, "kept", 1);
        sleep(Duration::from_millis(200));
        let (base, mut sent, mut asked) = (on_their_way(cluster.port, true), 0, 0);
        for _ in 0..60 {
            let length = match fits {
                0 => 900_000,
                fits if sent + 200_000 < fits => (fits - 150_000 - sent).min(900_000),
                _ => 30_000,
            };
            ask(&mut client, length);
            asked += 1;
            sent += length;
            sleep(Duration::from_millis(100));
            let waits = on_their_way(cluster.port, true) - base;
            println!("round {round}, sent {sent}, queued {waits}");
            if waits + 1000 < sent {
                break;
            }
        }
        fits = on_their_way(cluster.port, true) - base;
        locker.run("COMMIT");
        assert_eq!(value(client.answer()), "kept 1");
        for number in 0..asked {
            println!("round {round}, answer {number}");
            assert_eq!(value(client.answer()), "other 7");
        }
    }
}
