//! Races that have made other caches give what was not so, each by its name: none does here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::postgres::Cluster;
use crate::redis::Redis;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE cr_rows (id bigint PRIMARY KEY, v int, pad text);
CREATE TABLE cr_private (id bigint PRIMARY KEY, v int);
";

/// Rows of what takes long to send, and bytes of each: more than all buffers on the way hold.
const WIDE: (usize, usize) = (300, 64 * 1024);

fn options(policy: &str, more: &str) -> Options {
    let mut options = Options::new("transaction");
    options.distribution("cr_ids", "{key: bigint, place: {modulo: all}}");
    for table in ["cr_rows", "cr_private"] {
        let rule = format!("distribution: cr_ids, key: id, cache: {{{policy}}}");
        options.described(table, &rule);
    }
    if !more.is_empty() {
        options.set(more);
    }
    options
}

const KEPT: &str = "mode: cached, ttl: 10m, swr: 1h";
const LARGE: &str = "cache: {memory: 512MB, max_entry: 128MB}";

fn fill(herd: &Herd) -> Client {
    let mut client = herd.connect();
    for id in 0..4 {
        client.run(&format!("INSERT INTO cr_rows VALUES ({id}, 0)"));
        client.run(&format!("INSERT INTO cr_private VALUES ({id}, 0)"));
    }
    client
}

fn start(shards: usize, more: &str) -> (Databases, Herd, Client) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let herd = Herd::start(&databases, &options(KEPT, more));
    let client = fill(&herd);
    (databases, herd, client)
}

/// With Redis, or with what the process keeps alone.
fn start_one(shards: usize, shared: bool) -> (Databases, Option<Redis>, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let redis = shared.then(Redis::start);
    let line = redis
        .as_ref()
        .map(|redis| redis.line(", redis_timeout: 1s"));
    let herd = Herd::start(&databases, &options(KEPT, &line.unwrap_or_default()));
    (databases, redis, herd)
}

fn start_two(shards: usize) -> (Databases, Redis, Herd, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let mut options = options(KEPT, &redis.line(", redis_timeout: 1s"));
    options.set("name: races");
    let (one, other) = (
        Herd::start(&databases, &options),
        Herd::start(&databases, &options),
    );
    drop(fill(&one));
    (databases, redis, one, other)
}

fn query_message(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap();
    [b"Q", length.to_be_bytes().as_slice(), sql.as_bytes(), b"\0"].concat()
}

/// Waits until this is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits until somebody waits for a lock in the database of a shard.
fn wait_locked(databases: &Databases, shard: usize) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND datname = current_database()";
    let mut past = databases.shard(shard);
    wait_for("nobody waits for the lock", || past.value(waiting) != "0");
}

fn counted(herd: &Herd, table: &str, column: &str) -> u64 {
    let shown = herd.console().query("SHOW CACHE").unwrap();
    let tables = shown.column("table");
    let at = tables.iter().position(|known| known == table);
    at.map_or(0, |at| shown.column(column)[at].parse().unwrap())
}

/// Begins a read whose answer does not fit on the way, and is not taken: its rows are those of now.
fn begin_wide(herd: &Herd, databases: &Databases) -> (Client, &'static str) {
    let sql = "SELECT id, v, pad FROM cr_rows WHERE id >= 1000 ORDER BY id";
    let mut client = herd.connect();
    client.send(&query_message(sql));
    let sending = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite' \
                   AND datname = current_database()";
    let mut past = databases.shard(0);
    wait_for("the answer is sent", || past.value(sending) != "0");
    (client, sql)
}

fn widen(databases: &Databases) {
    let (rows, bytes) = WIDE;
    databases.shard(0).run(&format!(
        "INSERT INTO cr_rows SELECT 1000 + i, 0, (SELECT string_agg(md5(i::text || j::text), '') \
         FROM generate_series(1, {}) j) FROM generate_series(1, {rows}) i",
        bytes / 32
    ));
}

#[test]
fn a_fill_that_a_write_overtook_is_not_given() {
    let (databases, herd, _client) = start(1, LARGE);
    widen(&databases);
    let (mut reader, sql) = begin_wide(&herd, &databases);
    let mut writer = herd.connect();
    writer.run("UPDATE cr_rows SET v = 1 WHERE id = 1005");
    let old = reader.answer().unwrap();
    assert_eq!(
        (old.rows.len(), old.rows[4][1].as_deref()),
        (WIDE.0, Some("0"))
    );
    assert_eq!(counted(&herd, "cr_rows", "unfilled"), 1);
    for _ in 0..2 {
        assert_eq!(writer.rows(sql)[4][1].as_deref(), Some("1"));
    }
}

#[test]
fn a_refresh_that_a_write_overtook_is_not_given() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let herd = Herd::start(
        &databases,
        &options("mode: cached, ttl: 100ms, swr: 1h", LARGE),
    );
    drop(fill(&herd));
    widen(&databases);
    let sql = "SELECT id, v, pad FROM cr_rows WHERE id >= 1000 ORDER BY id";
    let mut writer = herd.connect();
    assert_eq!(writer.rows(sql)[4][1].as_deref(), Some("0"));
    sleep(Duration::from_millis(200));
    // It is old by now: this client reads it anew.
    let (mut reader, sql) = begin_wide(&herd, &databases);
    assert_eq!(writer.rows(sql)[4][1].as_deref(), Some("0"));
    writer.run("UPDATE cr_rows SET v = 1 WHERE id = 1005");
    assert_eq!(reader.answer().unwrap().rows[4][1].as_deref(), Some("0"));
    for _ in 0..2 {
        assert_eq!(writer.rows(sql)[4][1].as_deref(), Some("1"));
    }
}

#[test]
fn what_is_read_before_a_commit_is_not_given_after_it() {
    let (_databases, herd, mut reader) = start(2, "");
    let reads = [
        "SELECT v FROM cr_rows WHERE id = 1",
        "SELECT sum(v) FROM cr_rows",
    ];
    let mut writer = herd.connect();
    for n in 1..5 {
        let before = reads.map(|sql| reader.value(sql));
        writer.run("BEGIN");
        writer.run(&format!("UPDATE cr_rows SET v = {n} WHERE id = 1"));
        // Kept while the write is under way.
        assert_eq!(reads.map(|sql| reader.value(sql)), before);
        assert_eq!(reads.map(|sql| reader.value(sql)), before);
        writer.run("COMMIT");
        assert_eq!(
            reads.map(|sql| reader.value(sql)),
            [n.to_string(), n.to_string()]
        );
    }
}

#[test]
fn a_commit_that_redis_is_told_of_late_is_seen_at_once() {
    let (databases, redis, one, other) = start_two(1);
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    let (mut first, mut second) = (one.connect(), other.connect());
    assert_eq!(
        (first.value(read), second.value(read)),
        ("0".into(), "0".into())
    );
    let mut past = databases.shard(0);
    past.run("BEGIN");
    past.run("SELECT FROM cr_rows WHERE id = 1 FOR UPDATE");
    let mut writer = one.connect();
    let writing = thread::spawn(move || writer.run("UPDATE cr_rows SET v = 1 WHERE id = 1"));
    wait_locked(&databases, 0);
    // Marked, and Redis hears of no end.
    redis.pause();
    past.run("COMMIT");
    let mut direct = databases.shard(0);
    wait_for("the write is committed", || direct.value(read) == "1");
    assert_eq!(
        (first.value(read), second.value(read)),
        ("1".into(), "1".into())
    );
    redis.go_on();
    for _ in 0..20 {
        assert_eq!(
            (first.value(read), second.value(read)),
            ("1".into(), "1".into())
        );
        sleep(Duration::from_millis(20));
    }
    writing.join().unwrap();
    assert_eq!(
        (first.value(read), second.value(read)),
        ("1".into(), "1".into())
    );
}

#[test]
fn a_commit_that_is_decoded_before_it_is_seen_is_dropped_for_once_it_is() {
    let cluster =
        Cluster::start("synchronous_standby_names = 'nobody'\nsynchronous_commit = local\n");
    let mut admin = cluster.connect("postgres");
    admin.run("CREATE DATABASE races OWNER app");
    let mut past = cluster.connect("races");
    past.run(TABLES);
    past.run("INSERT INTO cr_rows VALUES (1, 0)");
    past.run("GRANT ALL ON ALL TABLES IN SCHEMA public TO app");
    let mut options = options(KEPT, "");
    options.database.push("control_user: postgres".to_owned());
    let herd = Herd::start_over("races", &[cluster.port], &options);
    wait_for("the feed begins", || {
        herd.log().contains("is told of changes past the proxy")
    });
    sleep(Duration::from_millis(300));
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    let mut reader = herd.connect();
    assert_eq!(reader.value(read), "0");
    let mut writer = cluster.connect("races");
    let writing = thread::spawn(move || {
        writer.run("SET synchronous_commit = on");
        // It waits for a standby that is not there.
        drop(writer.query("UPDATE cr_rows SET v = 1 WHERE id = 1"));
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    wait_for("the commit waits", || admin.value(waiting) == "1");
    // Decoded long ago, and not seen.
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        assert_eq!(reader.value(read), "0");
        sleep(Duration::from_millis(20));
    }
    admin.run("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    writing.join().unwrap();
    wait_for("what was written is given", || reader.value(read) == "1");
}

#[test]
fn what_is_rolled_back_is_never_given() {
    let (_databases, herd, mut reader) = start(2, "");
    let reads = [
        "SELECT v FROM cr_rows WHERE id = 1",
        "SELECT sum(v) FROM cr_rows",
    ];
    let zeros = [String::from("0"), String::from("0")];
    let mut writer = herd.connect();
    for _ in 0..3 {
        writer.run("BEGIN");
        writer.run("UPDATE cr_rows SET v = 7 WHERE id = 1");
        assert_eq!(reads.map(|sql| reader.value(sql)), zeros);
        assert_eq!(
            reads.map(|sql| writer.value(sql)),
            ["7", "7"].map(String::from)
        );
        writer.run("ROLLBACK");
        assert_eq!(reads.map(|sql| writer.value(sql)), zeros);
        writer.fails("UPDATE cr_rows SET v = 7 / id WHERE id = 0");
        assert_eq!(reads.map(|sql| reader.value(sql)), zeros);
    }
}

#[test]
fn an_old_snapshot_fills_nothing() {
    let (_databases, herd, mut reader) = start(1, "");
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    let mut old = herd.connect();
    old.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(old.value(read), "0");
    let mut writer = herd.connect();
    writer.run("UPDATE cr_rows SET v = 1 WHERE id = 1");
    assert_eq!(old.value(read), "0");
    assert_eq!(reader.value(read), "1");
    old.run("COMMIT");
    assert_eq!(old.value(read), "1");
}

#[test]
fn a_proxy_that_dies_behind_a_commit_leaves_nothing_old() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let mut options = options(KEPT, &redis.line(", redis_timeout: 1s"));
    options.set("name: races");
    let other = Herd::start(&databases, &options);
    drop(fill(&other));
    options.failpoint = Some("written:1".to_owned());
    let mortal = Herd::start(&databases, &options);
    let reads = [
        "SELECT v FROM cr_rows WHERE id = 1",
        "SELECT sum(v) FROM cr_rows",
    ];
    let mut reader = other.connect();
    assert_eq!(
        reads.map(|sql| reader.value(sql)),
        ["0", "0"].map(String::from)
    );
    let mut writer = mortal.connect();
    assert!(
        writer
            .query("UPDATE cr_rows SET v = 1 WHERE id = 1")
            .is_err()
    );
    // Committed, and nobody was told.
    assert_eq!(databases.shard(0).value(reads[0]), "1");
    for _ in 0..5 {
        assert_eq!(
            reads.map(|sql| reader.value(sql)),
            ["1", "1"].map(String::from)
        );
    }
}

#[test]
fn a_read_between_two_commits_of_one_transaction_is_not_kept() {
    let (_databases, herd, _client) = start(2, "");
    let sum = "SELECT sum(v) FROM cr_rows WHERE id IN (1, 2)";
    let each = "SELECT v FROM cr_rows WHERE id < 3 ORDER BY id";
    let is_over = Arc::new(AtomicBool::new(false));
    let readers = (0..2).map(|_| {
        let (mut client, is_over) = (herd.connect(), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                client.run(sum);
                client.run(each);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut writer = herd.connect();
    for n in 1..=60 {
        writer.run("BEGIN");
        writer.run("UPDATE cr_rows SET v = v - 1 WHERE id = 1");
        writer.run("UPDATE cr_rows SET v = v + 1 WHERE id = 2");
        writer.run("COMMIT");
        assert_eq!(writer.value(sum), "0", "{n}");
        let rows = writer.rows(each);
        assert_eq!(rows[1][0].as_deref(), Some(format!("-{n}").as_str()));
        assert_eq!(rows[2][0].as_deref(), Some(n.to_string().as_str()));
    }
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

/// The keys of Redis that match.
fn keys(redis: &Redis, pattern: &str) -> Vec<String> {
    let keys = redis.run(&["KEYS", pattern]);
    let keys = keys.lines().filter(|line| line.starts_with("races:"));
    keys.map(|key| key.trim().to_owned()).collect()
}

#[test]
fn tags_that_redis_evicts_revive_nothing() {
    let (databases, redis, one, other) = start_two(1);
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    let (mut first, mut second) = (one.connect(), other.connect());
    for n in 1..6 {
        assert_eq!(first.value(read), (n - 1).to_string());
        databases
            .shard(0)
            .run(&format!("UPDATE cr_rows SET v = {n}"));
        for key in keys(&redis, "races:*:v:*") {
            redis.run(&["DEL", &key]);
        }
        assert_eq!(second.value(read), n.to_string());
        assert_eq!(first.value(read), n.to_string());
    }
}

#[test]
fn what_a_restarted_redis_holds_is_not_given() {
    let (databases, mut redis, one, _other) = start_two(1);
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    let mut first = one.connect();
    assert_eq!(first.value(read), "0");
    wait_for("it is kept", || !keys(&redis, "races:*:c:*").is_empty());
    redis.run(&["SAVE"]);
    // Told to Redis, and lost with it.
    first.run("UPDATE cr_rows SET v = 1 WHERE id = 1");
    redis.kill();
    redis.revive();
    assert!(
        !keys(&redis, "races:*:c:*").is_empty(),
        "it has the old ones"
    );
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        assert_eq!(first.value(read), "1");
        sleep(Duration::from_millis(50));
    }
    drop(databases);
}

#[test]
fn messages_that_nobody_heard_are_made_up_for() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let channels =
        ", redis_timeout: 1s, invalidate_on: [{channel: rows.changed, table: cr_rows, key: $.id}]";
    let herd = Herd::start(&databases, &options(KEPT, &redis.line(channels)));
    let mut client = fill(&herd);
    let heard = |redis: &Redis| {
        redis
            .run(&["PUBSUB", "NUMSUB", "rows.changed"])
            .contains(":1")
    };
    wait_for("the channel is heard", || heard(&redis));
    sleep(Duration::from_millis(200));
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    assert_eq!(client.value(read), "0");
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    databases.shard(0).run("UPDATE cr_rows SET v = 1");
    redis.run(&["PUBLISH", "rows.changed", r#"{"id": 1}"#]);
    wait_for("what was written is given", || client.value(read) == "1");
    // A message that comes before its commit.
    databases.shard(0).run("UPDATE cr_rows SET v = 1");
    wait_for("the channel is heard again", || heard(&redis));
    sleep(Duration::from_millis(200));
    let mut past = databases.shard(0);
    past.run("BEGIN");
    past.run("UPDATE cr_rows SET v = 2 WHERE id = 1");
    redis.run(&["PUBLISH", "rows.changed", r#"{"id": 1}"#]);
    sleep(Duration::from_millis(100));
    assert_eq!(client.value(read), "1");
    past.run("COMMIT");
    wait_for("what was committed later is given", || {
        client.value(read) == "2"
    });
}

#[test]
fn rights_and_tables_that_change_are_minded_at_once() {
    let (_databases, herd, mut owner) = start(1, "");
    let mut reader = Client::connect(herd.port, "app", &herd.database);
    owner.run("CREATE TABLE cr_kept (id int)");
    let read = "SELECT v FROM cr_private WHERE id = 1";
    assert_eq!(reader.value(read), "0");
    assert_eq!(reader.value(read), "0");
    owner.run("REVOKE SELECT ON cr_private FROM app");
    assert_eq!(reader.fails(read).code, "42501");
    owner.run("GRANT SELECT ON cr_private TO app");
    assert_eq!(reader.value(read), "0");
    owner.run("ALTER TABLE cr_private ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY");
    assert!(reader.rows(read).is_empty());
    owner.run("ALTER TABLE cr_private DISABLE ROW LEVEL SECURITY");
    assert_eq!(reader.value(read), "0");
    owner.run("ALTER TABLE cr_private ALTER v TYPE text USING 'was ' || v");
    assert_eq!(reader.value(read), "was 0");
}

#[test]
fn a_configuration_that_is_read_again_is_minded_at_once() {
    let (databases, herd, mut client) = start(1, "");
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    assert_eq!(client.value(read), "0");
    herd.rewrite(&options("mode: strong", ""));
    herd.console().run("RELOAD");
    databases.shard(0).run("UPDATE cr_rows SET v = 1");
    wait_for("the table is strong", || client.value(read) == "1");
    client.run("UPDATE cr_rows SET v = 2 WHERE id = 1");
    herd.rewrite(&options(KEPT, ""));
    herd.console().run("RELOAD");
    sleep(Duration::from_millis(300));
    let mut fresh = herd.connect();
    assert_eq!(
        (client.value(read), fresh.value(read)),
        ("2".into(), "2".into())
    );
}

#[test]
fn a_tag_of_two_writers_is_marked_until_both_are_done() {
    for shared in [false, true] {
        let (databases, _redis, herd) = start_one(1, shared);
        let mut reader = fill(&herd);
        let sum = "SELECT sum(v) FROM cr_rows";
        assert_eq!(reader.value(sum), "0");
        let mut past = databases.shard(0);
        past.run("BEGIN");
        past.run("SELECT FROM cr_rows WHERE id = 1 FOR UPDATE");
        let mut writer = herd.connect();
        let writing = thread::spawn(move || writer.run("UPDATE cr_rows SET v = 10 WHERE id = 1"));
        wait_locked(&databases, 0);
        let mut second = herd.connect();
        second.run("UPDATE cr_rows SET v = 1 WHERE id = 2");
        for _ in 0..3 {
            assert_eq!(reader.value(sum), "1");
        }
        past.run("COMMIT");
        writing.join().unwrap();
        assert_eq!(reader.value(sum), "11");
        assert!(counted(&herd, "cr_rows", "bypasses") >= 3);
    }
}

#[test]
fn triggers_foreign_keys_and_functions_are_minded_beside_the_statement() {
    let (_databases, herd, mut client) = start(1, "");
    client.run("CREATE FUNCTION cr_set(bigint, int) RETURNS void LANGUAGE sql AS 'UPDATE cr_rows SET v = $2 WHERE id = $1'");
    client.run("CREATE FUNCTION cr_copy() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE cr_rows SET v = NEW.v WHERE id = NEW.id; RETURN NEW; END'");
    client.run(
        "CREATE TRIGGER copy AFTER UPDATE ON cr_private FOR EACH ROW EXECUTE FUNCTION cr_copy()",
    );
    let mut reader = herd.connect();
    let read = "SELECT v FROM cr_rows WHERE id = 1";
    assert_eq!(reader.value(read), "0");
    client.run("UPDATE cr_private SET v = 5 WHERE id = 1");
    assert_eq!(reader.value(read), "5");
    client.run("SELECT cr_set(1, 6)");
    assert_eq!(reader.value(read), "6");
    client.run("ALTER TABLE cr_rows ADD FOREIGN KEY (id) REFERENCES cr_private ON DELETE CASCADE");
    assert_eq!(reader.value(read), "6");
    client.run("DELETE FROM cr_private WHERE id = 1");
    assert!(reader.rows(read).is_empty());
}

#[test]
fn the_end_of_a_block_by_the_extended_protocol_is_minded() {
    for shared in [false, true] {
        let (_databases, _redis, herd) = start_one(2, shared);
        let (mut reader, mut writer) = (fill(&herd), herd.connect());
        let reads = [
            "SELECT v FROM cr_rows WHERE id = 1",
            "SELECT sum(v) FROM cr_rows",
        ];
        for n in 1..4 {
            drop(reads.map(|sql| reader.value(sql)));
            drop(writer.query_with("BEGIN", &[]).unwrap());
            let sql = "UPDATE cr_rows SET v = $1 WHERE id = 1";
            drop(writer.query_with(sql, &[Some(&n.to_string())]).unwrap());
            drop(writer.query_with("COMMIT", &[]).unwrap());
            assert_eq!(
                reads.map(|sql| reader.value(sql)),
                [n.to_string(), n.to_string()]
            );
        }
    }
}

#[test]
fn one_thousand_clients_cause_one_read() {
    // By proxies, with Redis or without.
    for proxies in [1, 2] {
        let databases = Databases::create(1);
        databases.run_everywhere(TABLES);
        let redis = Redis::start();
        let shared = redis.line(", redis_timeout: 10s");
        let mut options = options(
            "mode: bounded, ttl: 8s",
            if proxies > 1 { &shared } else { "" },
        );
        options.set("name: races").set("max_client_conn: 2000");
        let herds: Vec<Herd> = (0..proxies)
            .map(|_| Herd::start(&databases, &options))
            .collect();
        drop(fill(&herds[0]));
        databases
            .shard(0)
            .run("INSERT INTO cr_rows SELECT i, i FROM generate_series(100, 600) i");
        // Long enough that all have asked before it is answered.
        let read =
            "SELECT count(*) FROM cr_rows a JOIN cr_rows b ON b.v >= a.v WHERE a.v <> b.v + 1";
        let mut clients: Vec<Client> = (0..1000).map(|n| herds[n % proxies].connect()).collect();
        let expect = clients[0].value(read);
        // What was kept is too old by then.
        sleep(Duration::from_millis(8500));
        let misses = || {
            herds
                .iter()
                .map(|herd| counted(herd, "cr_rows", "misses"))
                .sum::<u64>()
        };
        let before = misses();
        let bytes = query_message(read);
        for client in &mut clients {
            client.send(&bytes);
        }
        for client in &mut clients {
            assert_eq!(
                client.answer().unwrap().rows[0][0].as_deref(),
                Some(expect.as_str())
            );
        }
        assert_eq!(misses() - before, 1, "{proxies} proxies");
    }
}

#[test]
fn the_auditor_finds_what_is_old_and_drops_it() {
    for shared in [false, true] {
        let databases = Databases::create(1);
        databases.run_everywhere(TABLES);
        let redis = Redis::start();
        let more = if shared {
            redis.line(", redis_timeout: 1s, audit: 1")
        } else {
            "cache: {audit: 1}".to_owned()
        };
        let herd = Herd::start(&databases, &options(KEPT, &more));
        let mut client = fill(&herd);
        let reads = [
            "SELECT v FROM cr_rows WHERE id = 1",
            "SELECT id, v FROM cr_rows",
        ];
        for n in 1..4 {
            drop(reads.map(|sql| client.query(sql).unwrap()));
            drop(reads.map(|sql| client.query(sql).unwrap()));
            client.run(&format!("UPDATE cr_rows SET v = {n} WHERE id = 1"));
            assert_eq!(client.value(reads[0]), n.to_string());
        }
        drop(reads.map(|sql| client.query(sql).unwrap()));
        drop(reads.map(|sql| client.query(sql).unwrap()));
        sleep(Duration::from_millis(1500));
        assert!(counted(&herd, "cr_rows", "audited") >= 2);
        assert_eq!(counted(&herd, "cr_rows", "found_stale"), 0);
        // A write that nobody tells of.
        databases
            .shard(0)
            .run("UPDATE cr_rows SET v = 9 WHERE id = 1");
        // Whoever is audited is given what the primary answers.
        assert_eq!(client.value(reads[0]), "9");
        wait_for("it is found", || {
            counted(&herd, "cr_rows", "found_stale") == 1
        });
        assert!(herd.log().contains("is not what the primary answers"));
        let entries = counted(&herd, "cr_rows", "fills");
        assert_eq!(client.value(reads[0]), "9");
        wait_for("it is kept anew", || {
            counted(&herd, "cr_rows", "fills") > entries
        });
        assert_eq!(
            herd.metric("pgherd_cache_audits_total", "outcome=\"stale\""),
            Some(1.0)
        );
    }
}
