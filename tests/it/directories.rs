//! Directories: a table on the home shard says which shard a key is on.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Row;
use crate::herd::{Herd, Options};
use crate::shared::{Databases, SHARDS};

const SCHEMA: &str = "
CREATE TABLE tenants (tenant text PRIMARY KEY, shard text, plan text);
CREATE TABLE notes (tenant text NOT NULL, note_id int, body text, PRIMARY KEY (tenant, note_id));
CREATE TABLE places (region int, code bigint, shard text, PRIMARY KEY (region, code));
CREATE TABLE visits (region int, code bigint, visitor text);
";

fn options(limit: &str) -> Options {
    let mut options = Options::new("transaction");
    if !limit.is_empty() {
        options.set(limit);
    }
    options
        .distribution(
            "tenants",
            "{key: text, place: {directory: {table: tenants}}, pins: {pinned: shard_0}}",
        )
        .distribution(
            "places",
            "{key: [int, bigint], place: {directory: {table: public.places}}}",
        )
        .on("notes", "tenants", "tenant")
        .table("visits", "{distribution: places, key: [region, code]}");
    options
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

fn command(herd: &Herd, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(&arguments[..1])
        .arg("-c")
        .arg(herd.config())
        .args(&arguments[1..])
        .output()
        .expect("pgherd runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text, output.status.success())
}

#[test]
fn rows_are_where_the_directory_says() {
    for shards in 1..=SHARDS {
        for limit in ["", "max_directory_rows: 2"] {
            if shards < SHARDS && !limit.is_empty() {
                continue;
            }
            let databases = Databases::create(shards);
            databases.run_everywhere(SCHEMA);
            let last = shards - 1;
            let fill = format!(
                "INSERT INTO tenants SELECT 't' || i, 'shard_' || i % {shards} FROM generate_series(0, 9) i;
                 INSERT INTO places SELECT i % 2, i, 'shard_' || i % {shards} FROM generate_series(0, 9) i"
            );
            databases.shard(0).run(&fill);
            let herd = Herd::start(&databases, &options(limit));
            let mut client = herd.connect();
            let mut one = databases.reference();
            let mut both = |sql: &str| {
                let answer = client.run(sql);
                let expected = one.run(sql);
                assert_eq!(sorted(answer.rows), sorted(expected.rows), "{sql}");
                assert_eq!(answer.tags, expected.tags, "{sql}");
            };
            let rows: Vec<String> = (0..10).map(|at| format!("('t{at}', {at}, 'b')")).collect();
            both(&format!("INSERT INTO notes VALUES {}", rows.join(", ")));
            both("INSERT INTO notes VALUES ('pinned', 1, 'p')");
            both("INSERT INTO visits VALUES (1, 3, 'a'), (0, 4, 'b'), (1, 5, 'c')");
            both("SELECT * FROM notes WHERE tenant = 't3'");
            both("SELECT * FROM notes WHERE tenant IN ('t3', 't4', 't9')");
            both("SELECT * FROM notes");
            both("SELECT visitor FROM visits WHERE region = 1 AND code = 5");
            both("UPDATE notes SET body = 'new' WHERE tenant = 't7'");
            both("DELETE FROM notes WHERE tenant = 't8' AND note_id = 8");
            both("BEGIN");
            both("INSERT INTO notes VALUES ('t5', 55, 'in a block')");
            both("SELECT body FROM notes WHERE tenant = 't5'");
            both("COMMIT");
            let lines: Vec<String> = (0..1_000)
                .map(|at| format!("t{}\t{}\tcopied\n", at % 10, 100 + at))
                .collect();
            let lines = lines.concat().into_bytes();
            for to in [&mut client, &mut one] {
                let answer = to.copy_in("COPY notes FROM STDIN", std::slice::from_ref(&lines));
                assert_eq!(answer.expect("copied").tags, ["COPY 1000"]);
            }
            let all = "SELECT * FROM notes";
            assert_eq!(sorted(client.rows(all)), sorted(one.rows(all)));
            if shards == 1 {
                continue;
            }
            let mut shard = databases.shard(last);
            let astray = format!(
                "SELECT count(*) FROM notes WHERE substr(tenant, 2)::int % {shards} <> {last}"
            );
            assert_eq!(shard.value(&astray), "0");
            // Nobody has said where these are.
            for sql in [
                "SELECT * FROM notes WHERE tenant = 'nobody'",
                "INSERT INTO notes VALUES ('nobody', 1, 'x')",
                "SELECT * FROM visits WHERE region = 7 AND code = 7",
            ] {
                let error = client.fails(sql);
                assert_eq!(
                    (error.code.as_str(), error.message.as_str()),
                    ("22023", "no placement covers this key")
                );
            }
            let copied = client.copy_in("COPY notes FROM STDIN", &[b"nobody\t1\tx\n".to_vec()]);
            assert_eq!(copied.expect_err("refused").code, "22023");
            // Who is added is seen at once.
            client.run(&format!(
                "INSERT INTO tenants VALUES ('nobody', 'shard_{last}')"
            ));
            client.run("INSERT INTO notes VALUES ('nobody', 1, 'x')");
            assert_eq!(
                shard.value("SELECT body FROM notes WHERE tenant = 'nobody'"),
                "x"
            );
            let answer = client.query_with(
                "SELECT body FROM notes WHERE tenant = ANY ($1)",
                &[Some("{nobody,t1}")],
            );
            assert!(answer.expect("read").rows.len() > 1);
            let explained =
                client.value("EXPLAIN (ROUTE) SELECT * FROM notes WHERE tenant = 'nobody'");
            assert!(
                explained.starts_with(&format!("single on shard_{last}")),
                "{explained}"
            );
            let (text, done) = command(&herd, &["check"]);
            assert!(done, "{text}");
            let (text, done) =
                command(&herd, &["route", "SELECT * FROM notes WHERE tenant = 't9'"]);
            assert!(
                done == limit.is_empty() && (!done || text.contains("single on shard_")),
                "{text}"
            );
        }
    }
}

#[test]
fn a_changed_row_counts_after_the_next_look() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(SCHEMA);
    databases
        .shard(0)
        .run("INSERT INTO tenants VALUES ('a', 'shard_1'), ('b', 'shard_9')");
    let herd = Herd::start(&databases, &options(""));
    let mut client = herd.connect();
    client.run("INSERT INTO notes VALUES ('a', 1, 'x')");
    let error = client.fails("SELECT * FROM notes WHERE tenant = 'b'");
    assert!(
        error.detail.contains("\"b\"") && error.detail.contains("shard_9"),
        "{error:?}"
    );
    let (text, done) = command(&herd, &["check"]);
    assert!(!done && text.contains("names shard \"shard_9\""), "{text}");
    client.run("UPDATE tenants SET shard = 'shard_2'");
    let began = Instant::now();
    while !client
        .value("EXPLAIN (ROUTE) SELECT * FROM notes WHERE tenant = 'a'")
        .contains("shard_2")
    {
        assert!(began.elapsed() < Duration::from_secs(20), "it is not seen");
        sleep(Duration::from_millis(100));
    }
    assert!(
        client
            .rows("SELECT * FROM notes WHERE tenant = 'b'")
            .is_empty()
    );
    let mut console = herd.console();
    let shown = format!("{:?}", console.rows("SHOW DISTRIBUTIONS"));
    assert!(shown.contains("directory: {table: tenants}"), "{shown}");
    databases.run_everywhere("ALTER TABLE tenants DROP COLUMN shard");
    let (text, done) = command(&herd, &["check"]);
    assert!(!done && text.contains("no column \"shard\""), "{text}");
}

#[test]
fn a_directory_stands_within_a_range() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(
        "CREATE TABLE accounts (id bigint PRIMARY KEY, shard text);
         CREATE TABLE bills (account bigint, amount int)",
    );
    databases
        .shard(0)
        .run("INSERT INTO accounts VALUES (1000, 'shard_3'), (1001, 'shard_2')");
    let mut options = Options::new("transaction");
    options
        .distribution(
            "accounts",
            "{key: bigint, place: {range: [{to: 1000, jump: [shard_0, shard_1]}, {directory: {table: accounts}}]}, pins: {\"1002\": shard_1}}",
        )
        .on("bills", "accounts", "account");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    client.run("INSERT INTO bills VALUES (1, 1), (2, 2), (1000, 3), (1001, 4), (1002, 5)");
    assert_eq!(databases.shard(3).value("SELECT amount FROM bills"), "3");
    assert_eq!(databases.shard(2).value("SELECT amount FROM bills"), "4");
    assert_eq!(
        client
            .rows("SELECT amount FROM bills WHERE account BETWEEN 999 AND 1003")
            .len(),
        3
    );
    assert_eq!(
        client
            .rows("SELECT amount FROM bills WHERE account >= 1000")
            .len(),
        3
    );
    assert_eq!(
        client.fails("INSERT INTO bills VALUES (1003, 6)").code,
        "22023"
    );
    client.run("INSERT INTO accounts VALUES (1003, 'shard_0')");
    client.run("INSERT INTO bills VALUES (1003, 6)");
    assert_eq!(
        databases
            .shard(0)
            .value("SELECT amount FROM bills WHERE account = 1003"),
        "6"
    );
}
