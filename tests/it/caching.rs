//! Answers from the cache are those of the primary: what is kept, for whom, and what drops it.
//!
//! That an answer was kept is seen by a change made past the proxy, which the cache is not told of.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE ca_products (id bigint PRIMARY KEY, category text, name text, price numeric, stock int);
CREATE TABLE ca_notes (id bigint PRIMARY KEY, product_id bigint, note text);
CREATE TABLE ca_lists (id int PRIMARY KEY, name text);
CREATE TABLE ca_orders (id bigint PRIMARY KEY, total numeric);
CREATE TABLE ca_plain (id int PRIMARY KEY, v text);
CREATE TABLE ca_parent (id bigint PRIMARY KEY, v text);
CREATE TABLE ca_child (id bigint, parent bigint REFERENCES ca_parent ON DELETE CASCADE, v text);
CREATE TABLE ca_logged (id bigint PRIMARY KEY, v text);
CREATE FUNCTION ca_log() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN UPDATE ca_logged SET v = NEW.v WHERE id = NEW.id; RETURN NEW; END';
CREATE FUNCTION ca_change(bigint) RETURNS void LANGUAGE sql AS
    'UPDATE ca_logged SET v = v || ''!'' WHERE id = $1';
";

const CACHED: &str = "cache: {mode: cached, ttl: 10m, swr: 1h}";

pub(crate) fn options() -> Options {
    let mut options = Options::new("transaction");
    options.distribution("ca_ids", "{key: bigint, place: {modulo: all}}");
    let sharded = |key: &str, more: &str| format!("distribution: ca_ids, key: {key}, {more}");
    options
        .described(
            "ca_products",
            &sharded(
                "id",
                "cache: {mode: cached, ttl: 10m, swr: 1h, strong_columns: [stock]}",
            ),
        )
        .described("ca_notes", &sharded("product_id", CACHED))
        .described("ca_lists", &format!("kind: reference, {CACHED}"))
        .described("ca_orders", &sharded("id", "cache: {mode: strong}"))
        .described("ca_parent", &format!("kind: single, {CACHED}"))
        .described("ca_child", &format!("kind: single, {CACHED}"))
        .described("ca_logged", &format!("kind: single, {CACHED}"));
    options
}

fn start(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let herd = Herd::start(&databases, &options());
    let mut client = herd.connect();
    for id in 1..=20 {
        let category = if id % 2 == 0 { "even" } else { "odd" };
        client.run(&format!(
            "INSERT INTO ca_products VALUES ({id}, '{category}', 'product {id}', {id}.50, {id})"
        ));
        client.run(&format!(
            "INSERT INTO ca_notes VALUES ({id}, {id}, 'note {id}')"
        ));
    }
    client.run("INSERT INTO ca_lists VALUES (1, 'one'), (2, 'two')");
    client.run("INSERT INTO ca_parent VALUES (1, 'a'), (2, 'b')");
    client.run("INSERT INTO ca_child VALUES (1, 1, 'a'), (2, 2, 'b')");
    client.run("INSERT INTO ca_logged VALUES (1, 'a'), (2, 'b')");
    (databases, herd)
}

/// Runs it on the servers, past the proxy.
fn past(databases: &Databases, sql: &str) {
    databases.run_everywhere(sql);
}

/// Whether a read is answered from the cache: a change past the proxy is not seen.
#[track_caller]
fn is_kept(databases: &Databases, client: &mut Client, sql: &str, change: &str) -> bool {
    let first = client.query(sql);
    past(databases, change);
    let second = client.query(sql);
    first == second
}

const CHANGE: &str = "UPDATE ca_products SET name = name || '.'";

#[test]
fn reads_are_kept_until_they_are_written() {
    for shards in [1, 3] {
        let (databases, herd) = start(shards);
        let (mut client, mut other) = (herd.connect(), herd.connect());
        let reads = [
            "SELECT name, price FROM ca_products WHERE id = 3",
            "SELECT id, name FROM ca_products WHERE category = 'odd' ORDER BY id",
            "SELECT count(name), max(id) FROM ca_products WHERE category = 'odd'",
            "SELECT p.name, n.note FROM ca_products p JOIN ca_notes n ON n.product_id = p.id WHERE p.id = 3",
        ];
        let writes = [
            "UPDATE ca_products SET name = 'new' WHERE id = 3",
            "UPDATE ca_products SET name = name || 'x' WHERE id IN (3, 9)",
            "DELETE FROM ca_products WHERE id = 3",
            "INSERT INTO ca_products VALUES (3, 'odd', 'again', 1, 1)",
            "BEGIN; UPDATE ca_products SET name = 'block' WHERE id = 3; COMMIT",
            "UPDATE ca_products SET name = 'returned' WHERE id = 3 RETURNING id, name",
        ];
        for write in writes {
            for read in reads {
                assert!(is_kept(&databases, &mut client, read, CHANGE), "{read}");
                assert!(is_kept(&databases, &mut client, read, CHANGE), "{read}");
            }
            other.run(write);
            for read in reads {
                let kept = client.query(read).unwrap();
                let direct = if shards == 1 {
                    databases.shard(0).query(read).unwrap()
                } else {
                    // Under another setting it is asked for anew.
                    let mut fresh = herd.connect();
                    fresh.run("SET work_mem = '5MB'");
                    fresh.query(read).unwrap()
                };
                assert_eq!(kept.rows, direct.rows, "{write}: {read}");
            }
        }
    }
}

#[test]
fn a_write_of_one_key_leaves_others_kept() {
    let (databases, herd) = start(2);
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let read = "SELECT name FROM ca_products WHERE id = 4";
    let before = client.value(read);
    past(&databases, CHANGE);
    other.run("UPDATE ca_products SET name = 'six' WHERE id = 6");
    assert_eq!(client.value(read), before);
    other.run("INSERT INTO ca_products VALUES (100, 'even', 'x', 1, 1)");
    assert_eq!(client.value(read), before);
    other.run("UPDATE ca_products SET price = 3 WHERE id = 4");
    assert_ne!(client.value(read), before);
}

#[test]
fn a_row_that_is_not_there_is_found_once_it_is() {
    let (_databases, herd) = start(2);
    let mut client = herd.connect();
    let read = "SELECT name FROM ca_products WHERE id = 77";
    assert!(client.rows(read).is_empty());
    assert!(client.rows(read).is_empty());
    client.run("INSERT INTO ca_products VALUES (77, 'odd', 'seventy-seven', 1, 1)");
    assert_eq!(client.value(read), "seventy-seven");
}

#[test]
fn the_extended_protocol_is_answered_alike() {
    let (databases, herd) = start(2);
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let read = "SELECT name, price FROM ca_products WHERE id = $1";
    let first = client.query_with(read, &[Some("5")]).unwrap();
    assert_eq!(client.query_with(read, &[Some("5")]).unwrap(), first);
    past(&databases, CHANGE);
    assert_eq!(client.query_with(read, &[Some("5")]).unwrap(), first);
    assert_ne!(client.query_with(read, &[Some("6")]).unwrap(), first);
    other
        .query_with(
            "UPDATE ca_products SET name = $1 WHERE id = $2",
            &[Some("changed"), Some("5")],
        )
        .unwrap();
    let after = client.query_with(read, &[Some("5")]).unwrap();
    assert_eq!(after.rows[0][0].as_deref(), Some("changed"));
}

#[test]
fn what_may_answer_otherwise_is_not_kept() {
    let (databases, herd) = start(1);
    let mut client = herd.connect();
    for read in [
        "SELECT name, now() - now() FROM ca_products WHERE id = 1",
        "SELECT name FROM ca_products WHERE id = 1 FOR SHARE",
        "SELECT name, current_user FROM ca_products WHERE id = 1",
        "SELECT name, stock FROM ca_products WHERE id = 1",
        "SELECT * FROM ca_products WHERE id = 1",
        "SELECT p.* FROM ca_products p WHERE id = 1",
        "SELECT p FROM ca_products p WHERE id = 1",
        "SELECT row_to_json(ca_products) FROM ca_products WHERE id = 1",
        "SELECT name FROM ca_products WHERE id = 1 AND 'now'::timestamptz > '2020-01-01'",
        "SELECT name, xmin FROM ca_products WHERE id = 1",
        "SELECT name FROM ca_products, ca_orders WHERE ca_products.id = 1 UNION SELECT name FROM ca_products WHERE id = 1",
        "SELECT name FROM ca_products TABLESAMPLE SYSTEM (100) WHERE id = 1",
        "SELECT name, random() > 2 FROM ca_products WHERE id = 1",
        "SELECT name FROM ca_products WHERE id = 1 AND EXISTS (SELECT FROM pg_class)",
    ] {
        assert!(!is_kept(&databases, &mut client, read, CHANGE), "{read}");
    }
    // In a block the block's own view counts.
    client.run("SELECT name FROM ca_products WHERE id = 1");
    client.run("BEGIN");
    let read = "SELECT name FROM ca_products WHERE id = 1";
    assert!(!is_kept(&databases, &mut client, read, CHANGE));
    client.run("COMMIT");
}

#[test]
fn answers_reach_only_those_who_would_get_the_same() {
    let (databases, herd) = start(1);
    let (mut one, mut other) = (herd.connect(), herd.connect());
    let read = "SELECT name, '2026-01-02'::date FROM ca_products WHERE id = 1";
    let kept = one.query(read).unwrap();
    past(&databases, CHANGE);
    assert_eq!(other.query(read).unwrap(), kept);
    other.run("SET application_name = 'other'");
    assert_eq!(other.query(read).unwrap(), kept);
    other.run("SET datestyle = 'German, DMY'");
    assert_ne!(other.query(read).unwrap(), kept);
    other.run("RESET datestyle");
    assert_eq!(other.query(read).unwrap(), kept);
    let mut postgres = Client::connect(herd.port, "postgres", &herd.database);
    assert_ne!(postgres.query(read).unwrap(), kept);
}

#[test]
fn what_the_database_writes_by_itself_is_dropped() {
    let (_databases, herd) = start(1);
    let mut client = herd.connect();
    let child = "SELECT count(id) FROM ca_child";
    assert_eq!(client.value(child), "2");
    client.run("DELETE FROM ca_parent WHERE id = 1");
    assert_eq!(client.value(child), "1");
    client.run("CREATE TRIGGER t AFTER UPDATE ON ca_plain FOR EACH ROW EXECUTE FUNCTION ca_log()");
    client.run("INSERT INTO ca_plain VALUES (1, 'p')");
    let logged = "SELECT v FROM ca_logged WHERE id = 1";
    assert_eq!(client.value(logged), "a");
    client.run("UPDATE ca_plain SET v = 'by trigger' WHERE id = 1");
    assert_eq!(client.value(logged), "by trigger");
    client.run("SELECT ca_change(1)");
    assert_eq!(client.value(logged), "by trigger!");
    client.run("DO 'BEGIN UPDATE ca_logged SET v = ''done''; END'");
    assert_eq!(client.value(logged), "done");
    client.run("TRUNCATE ca_logged");
    assert!(client.rows(logged).is_empty());
    client
        .copy_in("COPY ca_logged FROM STDIN", &[b"1\tcopied\n".to_vec()])
        .unwrap();
    assert_eq!(client.value(logged), "copied");
    client.run("PREPARE w AS UPDATE ca_logged SET v = $1 WHERE id = 1");
    client.run("EXECUTE w('executed')");
    assert_eq!(client.value(logged), "executed");
    client.run("ALTER TABLE ca_logged ADD COLUMN w int DEFAULT 7");
    assert_eq!(client.rows("SELECT * FROM ca_logged WHERE id = 1").len(), 1);
    client.run("WITH x AS (UPDATE ca_logged SET v = 'with' RETURNING v) SELECT v FROM x");
    assert_eq!(client.value(logged), "with");
    client.run("BEGIN");
    client.run("SAVEPOINT s");
    client.run("UPDATE ca_logged SET v = 'kept'");
    client.run("RELEASE s");
    client.run("COMMIT AND CHAIN");
    client.run("UPDATE ca_logged SET v = 'chained'");
    client.run("COMMIT");
    assert_eq!(client.value(logged), "chained");
    client.run("BEGIN");
    client.run("UPDATE ca_logged SET v = 'gone'");
    client.run("ROLLBACK");
    assert_eq!(client.value(logged), "chained");
    client.run("UPDATE ca_logged SET v = 'one'; UPDATE ca_logged SET v = 'two'");
    assert_eq!(client.value(logged), "two");
    client.run("BEGIN; UPDATE ca_logged SET v = 'three'");
    client.run("COMMIT");
    assert_eq!(client.value(logged), "three");
    client.run("UPDATE ca_logged SET v = 'four'; BEGIN; UPDATE ca_logged SET v = 'five'");
    client.run("UPDATE ca_logged SET v = 'six'");
    client.run("COMMIT");
    assert_eq!(client.value(logged), "six");
}

#[test]
fn the_console_shows_and_purges() {
    let (databases, herd) = start(2);
    let mut client = herd.connect();
    let mut console = herd.console();
    let read = "SELECT name FROM ca_products WHERE id = 4";
    client.run(read);
    client.run(read);
    client.run("SELECT stock FROM ca_products WHERE id = 4");
    let shown = console.query("SHOW CACHE").unwrap();
    let at = shown
        .column("table")
        .iter()
        .position(|table| table == "ca_products")
        .unwrap();
    for (column, value) in [
        ("hits", "1"),
        ("entries", "1"),
        ("bypassed_by", "strong_column=1"),
    ] {
        assert_eq!(shown.column(column)[at], value, "{column}");
    }
    for purge in [
        "PURGE CACHE",
        "PURGE CACHE TABLE ca_products",
        "PURGE CACHE TAG 't:ca_products:4'",
    ] {
        let before = client.value(read);
        past(&databases, CHANGE);
        assert_eq!(client.value(read), before);
        console.run(purge);
        assert_ne!(client.value(read), before, "{purge}");
    }
}

#[test]
fn one_read_for_many() {
    let (_databases, herd) = start(1);
    let read = "SELECT count(a.name) FROM ca_products a, ca_products b, ca_products c, ca_products d WHERE a.category = 'odd'";
    let mut clients: Vec<Client> = (0..100).map(|_| herd.connect()).collect();
    let mut bytes = vec![b'Q'];
    let length = u32::try_from(read.len() + 5).unwrap();
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(read.as_bytes());
    bytes.push(0);
    for client in &mut clients {
        client.send(&bytes);
    }
    for client in &mut clients {
        assert_eq!(client.answer().unwrap().rows.len(), 1);
    }
    let shown = herd.console().query("SHOW CACHE").unwrap();
    let at = shown
        .column("table")
        .iter()
        .position(|table| table == "ca_products")
        .unwrap();
    assert_eq!(shown.column("misses")[at], "1");
    assert_eq!(shown.column("fills")[at], "1");
}

#[test]
fn statements_of_a_file_are_kept_before_anybody_asks() {
    let (databases, herd) = start(2);
    let file = herd.config().with_file_name("queries.sql");
    std::fs::write(
        &file,
        "-- Pages\nSELECT name FROM ca_products WHERE id = 4;\nSELECT nothing FROM ca_products WHERE id = 4;\n",
    )
    .unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(["cache", "warm", "--user", "app", "-c"])
        .args([&herd.config(), &file])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "1 of 2 statements were carried out\n");
    assert_eq!(output.status.code(), Some(1));
    past(&databases, CHANGE);
    let mut client = herd.connect();
    let sql = "SELECT name FROM ca_products WHERE id = 4";
    assert_eq!(client.value(sql), "product 4");
}

#[test]
fn what_a_person_resolves_is_seen() {
    let databases = Databases::create(2);
    databases.run_everywhere(TABLES);
    let mut options = options();
    options.set("recovery: {every: 1h, age: 1h}");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    // Rows of both shards: what decisions need is made.
    client.run("INSERT INTO ca_products (id, name) VALUES (1, 'one'), (2, 'two')");
    let name = &databases.name;
    let ours = |digit: &str| format!("pgherd:herd:{name}:shard_0:{}", digit.repeat(32));
    let sql = "SELECT name FROM ca_products WHERE id = 1";
    let mut console = herd.console();
    let by_hand = format!("RESOLVE '{}:1' COMMIT", ours("a"));
    for (digit, resolve) in [("a", by_hand.as_str()), ("b", "RESOLVE")] {
        let mut past = databases.shard(1);
        past.run("BEGIN");
        past.run(&format!(
            "UPDATE ca_products SET name = '{digit}' WHERE id = 1"
        ));
        past.run(&format!("PREPARE TRANSACTION '{}:1'", ours(digit)));
        databases.shard(0).run(&format!(
            "INSERT INTO pgherd.decision (gid, commits) VALUES ('{}', true)",
            ours(digit)
        ));
        assert_ne!(client.value(sql), digit);
        console.run(resolve);
        assert_eq!(client.value(sql), digit, "{resolve}");
    }
}
