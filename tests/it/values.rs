//! Keys whose value or type the server works out from what stands beside them: the answer is one PostgreSQL's.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::shared::{Databases, SHARDS};

/// Statements, and the text of their parameters.
const CASES: &[(&str, &[&str])] = &[
    // A parameter has the type of the place where it comes first.
    ("SELECT n FROM big WHERE num = $1 AND k = $1", &["5.0"]),
    ("SELECT n FROM big WHERE num = $1 AND k = $1", &["5e0"]),
    (
        "SELECT k FROM moments WHERE d = $1 AND k = $1",
        &["2020-02-02 12:00:00"],
    ),
    (
        "SELECT k FROM moments WHERE d <= $1 AND k = $1",
        &["2020-02-02 12:00:00"],
    ),
    (
        "SELECT k FROM moments WHERE k = $1",
        &["2020-02-02 00:00:00"],
    ),
    // In a list all have the widest type.
    ("SELECT n FROM big WHERE k IN ($1, 2.5)", &["5.0"]),
    ("SELECT k FROM small WHERE k IN ($1, 70000)", &["80000"]),
    ("SELECT k FROM small WHERE k IN ($1, 70000)", &["7"]),
    (
        "SELECT count(*) FROM small WHERE k IN ('80000', 70000)",
        &[],
    ),
    (
        "SELECT k FROM small WHERE k = ANY (ARRAY['80000', 70000, 7])",
        &[],
    ),
    (
        "SELECT k FROM small WHERE k = ANY ('{80000, 7}'::int[])",
        &[],
    ),
    ("SELECT k FROM small WHERE k = ANY ('{80000, 7}')", &[]),
    ("SELECT count(*) FROM small WHERE k = '80000'::int", &[]),
    ("SELECT count(*) FROM small WHERE k = '80000'", &[]),
    ("SELECT count(*) FROM small WHERE k = 'seven'", &[]),
    ("SELECT count(*) FROM small WHERE k = $1", &["80000"]),
    (
        "SELECT count(*) FROM big WHERE k = $1",
        &["99999999999999999999"],
    ),
    ("DELETE FROM small WHERE k = 'seven'", &[]),
];

#[test]
fn keys_are_read_as_the_server_reads_them() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(
        "CREATE TABLE big (k bigint, n int, num numeric); CREATE TABLE small (k smallint);
         CREATE TABLE moments (k timestamp, d date)",
    );
    let mut options = Options::new("transaction");
    options
        .sharded("big", "k", "bigint", "{jump: all}")
        .sharded("small", "k", "smallint", "{jump: all}")
        .sharded("moments", "k", "timestamp", "{jump: all}");
    let herd = Herd::start(&databases, &options);
    let mut clients = [herd.connect(), databases.reference()];
    for client in &mut clients {
        client.run("INSERT INTO big VALUES (5, 1, 5), (6, 2, 6), (7, 3, 7), (8, 4, 8)");
        client.run("INSERT INTO small VALUES (5), (6), (7), (8)");
        client.run("INSERT INTO moments VALUES ('2020-02-02', '2020-02-02'), ('2020-02-02 12:00', '2020-02-02')");
    }
    for (sql, values) in CASES {
        let values: Vec<Option<&str>> = values.iter().copied().map(Some).collect();
        let run = |client: &mut Client| {
            let mut answer = client
                .query_with(sql, &values)
                .map_err(|error| error.code)?;
            answer.rows.sort();
            Ok::<_, String>(answer)
        };
        let [found, wanted] = clients.each_mut().map(run);
        // Right, or refused.
        if found != Err("0A000".to_owned()) {
            assert_eq!(found, wanted, "{sql} {values:?}");
        }
    }
}

#[test]
fn what_a_column_would_store_otherwise_is_not_placed() {
    let databases = Databases::create(SHARDS);
    let mut options = Options::new("transaction");
    options
        .sharded("short", "k", "text", "{jump: all}")
        .sharded("rounded", "k", "numeric", "{jump: all}")
        .sharded("moments", "k", "timestamp", "{jump: all}");
    databases.run_everywhere(
        "CREATE TABLE short (k varchar(3), n int); CREATE TABLE rounded (k numeric(8, 2), n int);
         CREATE TABLE moments (k timestamp(0), n int)",
    );
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    for (table, good, other, code) in [
        ("short", "abc", "abc   ", "0A000"),
        ("short", "äöü", "abcd", "22001"),
        ("rounded", "1.50", "1.505", "0A000"),
        (
            "moments",
            "2026-01-01 10:00:00",
            "2026-01-01 10:00:00.7",
            "0A000",
        ),
    ] {
        let sql = format!("INSERT INTO {table} (n, k) VALUES (1, $1)");
        client
            .query_with(&sql, &[Some(good)])
            .unwrap_or_else(|error| panic!("{good}: {error:?}"));
        let error = client.query_with(&sql, &[Some(other)]).unwrap_err();
        assert_eq!(error.code, code, "{other}: {error:?}");
        let error = client.fails(&format!("INSERT INTO {table} (n, k) VALUES (1, '{other}')"));
        assert_eq!(error.code, code, "{other}: {error:?}");
        let error = client
            .copy_in(
                &format!("COPY {table} (n, k) FROM STDIN"),
                &[format!("1\t{other}\n").into_bytes()],
            )
            .unwrap_err();
        assert_eq!(error.code, code, "{other}: {error:?}");
        let error = client.fails(&format!(
            "INSERT INTO {table} (n, k) SELECT n, k FROM {table} WHERE k = '{good}'"
        ));
        assert_eq!(error.code, "0A000", "{error:?}");
        let found = client
            .query_with(
                &format!("SELECT n FROM {table} WHERE k = $1"),
                &[Some(good)],
            )
            .expect(table);
        assert_eq!(found.rows.len(), 1);
    }
}
