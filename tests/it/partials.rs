//! Groups and aggregates over several shards, worked out there in part or whole, answer as one PostgreSQL.

use std::fmt::Write as _;
use std::thread::spawn;

use crate::client::{Client, cancel};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message::{self, Message};
use crate::random::Random;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TYPE pt_mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE pt (id int, k bigint NOT NULL, g int, i2 smallint, i4 int, i8 bigint, n numeric, n2 numeric(12, 2),
    f4 real, f8 float8, iv interval, m money, b boolean, t text, v varchar(10), d date, ts timestamp,
    tz timestamptz, bt bit(4), e pt_mood, a int[], ip inet);
CREATE TABLE pt_none (id int, k bigint NOT NULL, g int, i4 int, n numeric, f8 float8, iv interval, t text);
CREATE TABLE pt_beside (k bigint NOT NULL, id int, w text);
CREATE TABLE pt_two (k bigint NOT NULL, j text NOT NULL, x int);
CREATE TABLE pt_colours (id int, name text);
";

const VALUES: [(&str, &[&str]); 19] = [
    ("g", &["0", "1", "2", "3"]),
    ("i2", &["-32768", "-1", "0", "7", "32767"]),
    ("i4", &["-2147483648", "-1", "0", "10", "2147483647"]),
    (
        "i8",
        &[
            "-9223372036854775808",
            "-5",
            "0",
            "10",
            "9223372036854775807",
        ],
    ),
    (
        "n",
        &[
            "0",
            "0.00",
            "1.5",
            "-0.0001",
            "12345678901234567890.123",
            "-99999999999999999999.5",
            "1e30",
        ],
    ),
    ("n2", &["0", "1.25", "-99.99", "1234567.89"]),
    ("f4", &["0", "1.1", "-3.5", "2.25"]),
    (
        "f8",
        &["0.1", "-3.5", "1e9", "1000000001", "1000000002", "2.5"],
    ),
    (
        "iv",
        &[
            "'1 day'",
            "'2 months -3 days 04:05:06.7'",
            "'-1 hour'",
            "'1 year'",
        ],
    ),
    ("m", &["'1.00'", "'-20.55'", "'1000000'"]),
    ("b", &["true", "false"]),
    ("t", &["''", "'a'", "'A'", "'é'", "'a b'"]),
    ("v", &["'x'", "'y'"]),
    ("d", &["'2024-02-29'", "'1999-12-31'", "'infinity'"]),
    (
        "ts",
        &[
            "'2024-01-01 10:00:00'",
            "'2024-01-01 23:59:59.5'",
            "'2024-03-05 00:00:00'",
        ],
    ),
    (
        "tz",
        &["'2024-01-01 10:00:00+00'", "'2024-06-01 00:30:00+05:30'"],
    ),
    ("bt", &["B'0101'", "B'1100'", "B'1111'"]),
    ("e", &["'sad'", "'ok'", "'happy'"]),
    ("ip", &["'10.0.0.1'", "'10.0.0.2'", "'::1'"]),
];

/// The clients go first, then the proxy, then the servers' databases.
struct Sides {
    client: Client,
    reference: Client,
    herd: Herd,
    databases: Databases,
}

fn start(shards: usize, rows: usize) -> Sides {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    options
        .sharded("pt", "k", "bigint", "{modulo: all}")
        .on("pt_beside", "pt", "k")
        .on("pt_none", "pt", "k")
        .distribution("pairs", "{key: [bigint, text], place: {jump: all}}")
        .table("pt_two", "{distribution: pairs, key: [k, j]}")
        .table("pt_colours", "reference")
        .twins(1);
    let herd = Herd::start(&databases, &options);
    let (client, reference) = (herd.connect(), databases.reference());
    let mut sides = Sides {
        client,
        reference,
        herd,
        databases,
    };
    sides.fill(rows);
    sides
}

/// How answers are compared.
#[derive(Clone, Copy)]
struct Like {
    /// Rows come in any order.
    any_order: bool,
    /// Numbers are the same to nine digits.
    nearly: bool,
}

impl Sides {
    fn fill(&mut self, rows: usize) {
        let mut random = Random::from_environment();
        println!("SEED={}", random.seed);
        let names: Vec<&str> = VALUES.iter().map(|(name, _)| *name).collect();
        for id in 0..rows {
            // One shard stays without rows where there are four; one group has no values.
            let key = [0, 1, 2, 4, 5, 6][random.below(6)];
            let is_empty = random.chance(10);
            let mut values = format!("{id}, {key}");
            for (at, (_, some)) in VALUES.iter().enumerate() {
                let value = match at {
                    0 if is_empty => "9",
                    0 => random.choose(some),
                    _ if is_empty || random.chance(20) => "NULL",
                    _ => random.choose(some),
                };
                write!(values, ", {value}").expect("to a string");
            }
            self.both(&format!(
                "INSERT INTO pt (id, k, {}) VALUES ({values})",
                names.join(", ")
            ));
            if random.chance(60) {
                self.both(&format!(
                    "INSERT INTO pt_beside VALUES ({key}, {id}, 'w{}')",
                    id % 5
                ));
            }
            self.both(&format!(
                "INSERT INTO pt_two VALUES ({key}, '{}', {id})",
                random.choose(&["a", "b", "c"])
            ));
        }
        self.both("INSERT INTO pt_colours VALUES (0, 'red'), (1, 'green'), (2, 'blue')");
    }

    fn both(&mut self, sql: &str) {
        self.client.run(sql);
        self.reference.run(sql);
    }

    fn same_bytes(&mut self, bytes: &[u8], what: &str, like: Like) {
        let [found, wanted] = [&mut self.client, &mut self.reference].map(|client| {
            client.send(bytes);
            let messages = client.until_ready().expect("an answer");
            let failed = messages.iter().any(|message| message.tag == b'E');
            let mut kept: Vec<Message> = messages
                .into_iter()
                .filter(|message| !failed || !matches!(message.tag, b'1' | b'2'))
                .collect();
            if like.any_order {
                // Rows stand together.
                kept.sort_by_key(|message| (message.tag == b'D').then(|| message.body.clone()));
            }
            kept
        });
        assert_eq!(found.len(), wanted.len(), "{what}: {:?}", lines(&found));
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            if like.nearly && found.tag == b'D' && wanted.tag == b'D' {
                let pairs = found.row().into_iter().zip(wanted.row());
                for (found, wanted) in pairs {
                    assert!(
                        nearly(found.as_deref(), wanted.as_deref()),
                        "{what}: {found:?} for {wanted:?}"
                    );
                }
                continue;
            }
            assert_eq!(found.line(), wanted.line(), "message {at} of {what}");
        }
    }

    /// The same in both protocols, in text and in binary format.
    fn same(&mut self, sql: &str) {
        let like = Like {
            any_order: !sql.contains("ORDER BY"),
            nearly: false,
        };
        self.same_bytes(&message::query(sql), sql, like);
        for formats in [&[][..], &[1]] {
            self.same_bound(sql, &[], &[], formats);
        }
    }

    fn same_bound(&mut self, sql: &str, types: &[u32], values: &[Option<&str>], formats: &[i16]) {
        let like = Like {
            any_order: !sql.contains("ORDER BY"),
            nearly: false,
        };
        let values: Vec<_> = values
            .iter()
            .map(|value| value.map(|text| text.as_bytes().to_vec()))
            .collect();
        let run = [
            message::parse("", sql, types),
            message::bind("", "", &[], &values, formats),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::sync(),
        ];
        self.same_bytes(
            &run.concat(),
            &format!("{sql} {values:?} {formats:?}"),
            like,
        );
        let described = [&run[0][..], &message::describe(b'S', ""), &run[4]].concat();
        self.same_bytes(&described, sql, like);
    }

    /// How a statement is answered, in the words of EXPLAIN.
    fn explained(&mut self, sql: &str) -> String {
        let rows = self.client.rows(&format!("EXPLAIN {sql}"));
        let lines: Vec<String> = rows.into_iter().flatten().flatten().collect();
        lines.join("\n")
    }

    fn in_parts(&mut self, sql: &str) {
        if self.databases.shard_ports.len() > 1 {
            let words = self.explained(sql);
            assert!(words.contains("Combined: "), "{sql}: {words}");
        }
        self.same(sql);
    }

    fn whole(&mut self, sql: &str) {
        if self.databases.shard_ports.len() > 1 {
            let words = self.explained(sql);
            assert!(
                words.contains("each group is on one shard"),
                "{sql}: {words}"
            );
        }
        self.same(sql);
    }

    fn by_rows(&mut self, sql: &str) {
        if self.databases.shard_ports.len() > 1 {
            let words = self.explained(sql);
            let is_gathered = words.contains("On the twin") && !words.contains("Combined: ");
            assert!(is_gathered, "{sql}: {words}");
        }
        self.same(sql);
    }

    fn nearly(&mut self, sql: &str) {
        if self.databases.shard_ports.len() > 1 {
            let words = self.explained(sql);
            assert!(words.contains("Combined: "), "{sql}: {words}");
        }
        let like = Like {
            any_order: false,
            nearly: true,
        };
        self.same_bytes(&message::query(sql), sql, like);
    }
}

fn lines(messages: &[Message]) -> Vec<String> {
    messages.iter().map(Message::line).collect()
}

fn nearly(found: Option<&[u8]>, wanted: Option<&[u8]>) -> bool {
    if found == wanted {
        return true;
    }
    let number =
        |value: Option<&[u8]>| -> Option<f64> { std::str::from_utf8(value?).ok()?.parse().ok() };
    match (number(found), number(wanted)) {
        (Some(found), Some(wanted)) => {
            (found - wanted).abs() <= 1e-9 * found.abs().max(wanted.abs()).max(1e-3)
        }
        _ => false,
    }
}

/// Aggregates that come out the same to the last digit.
const EXACT: [(&str, &[&str]); 10] = [
    ("count", &["i4", "t", "n", "e", "a"]),
    ("sum", &["i2", "i4", "i8", "n", "n2", "iv", "m"]),
    ("avg", &["i2", "i4", "i8", "n", "n2", "iv"]),
    (
        "min",
        &[
            "i2", "i4", "i8", "n", "n2", "f4", "f8", "iv", "m", "t", "v", "d", "ts", "tz", "e",
            "ip",
        ],
    ),
    (
        "max",
        &[
            "i2", "i4", "i8", "n", "n2", "f4", "f8", "iv", "m", "t", "v", "d", "ts", "tz", "e",
            "ip",
        ],
    ),
    ("bool_and", &["b"]),
    ("bool_or", &["b"]),
    ("every", &["b"]),
    ("bit_and", &["i2", "i4", "i8", "bt"]),
    ("bit_or", &["i2", "i4", "i8", "bt"]),
];

fn every_aggregate(shards: usize) {
    let mut sides = start(shards, 160);
    for (aggregate, columns) in EXACT {
        for column in columns {
            // What numerics of one value look like is not said: which of several is kept.
            if matches!((aggregate, *column), ("min" | "max", "n")) {
                continue;
            }
            sides.in_parts(&format!(
                "SELECT g, {aggregate}({column}) FROM pt GROUP BY g ORDER BY g"
            ));
            sides.same(&format!(
                "SELECT {aggregate}({column}) AS x, 1 + 1, g + 1 FROM pt GROUP BY g ORDER BY 3, 1"
            ));
            sides.in_parts(&format!("SELECT {aggregate}({column}), count(*) FILTER (WHERE b) AS c, 'x' FROM pt WHERE id > 10"));
        }
    }
    for column in ["i4", "n", "iv", "f8"] {
        for aggregate in ["sum", "avg", "min", "count"] {
            sides.in_parts(&format!("SELECT {aggregate}({column}), 'x' FROM pt_none"));
            sides.in_parts(&format!(
                "SELECT {aggregate}({column}) FROM pt_none GROUP BY t"
            ));
        }
    }
    for column in ["f4", "f8"] {
        for aggregate in [
            "avg",
            "var_pop",
            "var_samp",
            "variance",
            "stddev",
            "stddev_pop",
            "stddev_samp",
        ] {
            sides.nearly(&format!(
                "SELECT g, {aggregate}({column}), {aggregate}({column}) FILTER (WHERE b) FROM pt GROUP BY g ORDER BY g"
            ));
            sides.nearly(&format!("SELECT {aggregate}({column}), 1 FROM pt"));
        }
    }
    sides.nearly("SELECT g, sum(f8) FROM pt GROUP BY g ORDER BY g");
    for aggregate in [
        "corr",
        "covar_pop",
        "covar_samp",
        "regr_avgx",
        "regr_avgy",
        "regr_intercept",
        "regr_r2",
        "regr_slope",
        "regr_sxx",
        "regr_sxy",
        "regr_syy",
        "regr_count",
    ] {
        sides.nearly(&format!(
            "SELECT t, {aggregate}(f8, id) FROM pt GROUP BY t ORDER BY t COLLATE \"C\""
        ));
        sides.nearly(&format!(
            "SELECT {aggregate}(id, i2), 1 FROM pt WHERE f8 IS NOT NULL"
        ));
    }
}

#[test]
fn every_aggregate_on_one_shard() {
    every_aggregate(1);
}

#[test]
fn every_aggregate_on_two_shards() {
    every_aggregate(2);
}

#[test]
fn every_aggregate_on_three_shards() {
    every_aggregate(3);
}

#[test]
fn every_aggregate_on_four_shards() {
    every_aggregate(4);
}

#[test]
fn statements_are_taken_apart_where_that_is_right() {
    let mut sides = start(4, 120);
    for sql in [
        "SELECT g, count(*) FROM pt GROUP BY g",
        "SELECT count(*), g AS other FROM pt GROUP BY other ORDER BY other DESC NULLS FIRST",
        "SELECT p.g, sum(i4) + 1 AS s FROM pt p WHERE p.id % 3 = 0 GROUP BY 1 HAVING sum(i4) IS NOT NULL AND count(*) > 1 ORDER BY s DESC, g LIMIT 2 OFFSET 1",
        "SELECT date_trunc('month', ts) AS month, avg(n2), max(d) FROM pt GROUP BY date_trunc('month', ts) ORDER BY 1",
        "SELECT date_trunc('month', pt.ts), count(*) FROM pt GROUP BY 1 ORDER BY date_trunc('month', ts)",
        "SELECT CASE WHEN g > 1 THEN 'big' ELSE 'small' END AS size, count(*) * 100 / 7.0 AS c FROM pt GROUP BY size ORDER BY size",
        "SELECT coalesce(t, 'none'), round(avg(n2), 2) AS a FROM pt GROUP BY coalesce(t, 'none') ORDER BY coalesce(t, 'none') COLLATE \"C\", a",
        "SELECT n2, v, count(*) FROM pt GROUP BY n2, v ORDER BY n2, v, 3",
        "SELECT e, count(*) FROM pt GROUP BY e ORDER BY e",
        "SELECT g % 2 AS g, count(*) FROM pt GROUP BY g % 2 ORDER BY g",
        "SELECT (g + 1), count(*) FROM pt GROUP BY (g + 1) ORDER BY 1",
        "SELECT g::text, count(*)::int, sum(i8)::numeric(40, 1) FROM pt GROUP BY g ORDER BY 1",
        "SELECT DISTINCT g, b FROM pt ORDER BY g, b",
        "SELECT DISTINCT g FROM pt WHERE i4 IS NOT NULL",
        "SELECT DISTINCT count(*) > 20 AS many FROM pt GROUP BY g ORDER BY many",
        "SELECT DISTINCT ON (b) b, g, count(*) FROM pt GROUP BY b, g ORDER BY b, g",
        "SELECT count(DISTINCT t) FROM pt",
        "SELECT g, count(DISTINCT i4), sum(DISTINCT i4), avg(DISTINCT i4), max(id), count(*) FROM pt GROUP BY g ORDER BY g",
        "SELECT count(DISTINCT i4) FROM pt_none",
        "SELECT pg_catalog.count(*) + 1, pg_catalog.sum(ALL i2) FROM pt",
        "SELECT 1 FROM pt HAVING count(*) > 10",
        "SELECT b FROM pt GROUP BY b",
        "SELECT w, count(*), sum(p.i4) FROM pt p JOIN pt_beside s ON s.k = p.k AND s.id = p.id GROUP BY w ORDER BY w COLLATE \"C\"",
        "SELECT name, count(p.id) FROM pt p JOIN pt_colours c ON c.id = p.g GROUP BY name ORDER BY name COLLATE \"C\"",
        "SELECT w, count(*) FROM pt LEFT JOIN pt_beside USING (k, id) GROUP BY w ORDER BY w COLLATE \"C\"",
        "SELECT g AS \"Odd \"\"name\"\"\", count(*) AS count, count(*) FROM pt GROUP BY 1 ORDER BY 1",
        "SELECT g, count(*) FROM pt WHERE k IN (1, 2, 4) GROUP BY g ORDER BY g",
        "SELECT a, count(*) FROM pt GROUP BY a",
    ] {
        sides.in_parts(sql);
    }
    // By rows, or refused as PostgreSQL does.
    for sql in [
        "SELECT g, sum(f4) FROM pt WHERE id < 3 GROUP BY g ORDER BY g",
        "SELECT g, stddev(i4) FROM pt GROUP BY g ORDER BY g",
        "SELECT g, variance(n2) FROM pt GROUP BY g ORDER BY g",
        "SELECT g, string_agg(v, ',' ORDER BY id) FROM pt GROUP BY g ORDER BY g",
        "SELECT g, array_agg(id ORDER BY id), count(*) FROM pt GROUP BY g ORDER BY g",
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY id) FROM pt",
        "SELECT g, b, count(*) FROM pt GROUP BY ROLLUP (g, b) ORDER BY g, b, 3",
        "SELECT g, count(*) FROM pt GROUP BY GROUPING SETS ((g), ()) ORDER BY g, 2",
        "SELECT count(DISTINCT i4), count(DISTINCT t) FROM pt",
        "SELECT count(DISTINCT i4) FILTER (WHERE b) FROM pt",
        "SELECT count(DISTINCT (g, b)) FROM pt WHERE (SELECT max(id) FROM pt) > 0",
        "SELECT g, rank() OVER (ORDER BY count(*), g) FROM pt GROUP BY g ORDER BY g",
        "SELECT g, (SELECT count(*) FROM pt_colours) FROM pt GROUP BY g ORDER BY g",
        "SELECT g AS b, count(*) FROM pt GROUP BY g, b ORDER BY b, 2",
    ] {
        sides.same(sql);
    }
    sides.by_rows("SELECT g, stddev(i4) FROM pt GROUP BY g ORDER BY g");
    // Of two that begin alike, the one that stands there as a whole.
    sides.in_parts(
        "SELECT i8 - g + id, (g + id) * 2 FROM pt GROUP BY g + id, i8, g, id ORDER BY 1, 2",
    );
    let simple = Like {
        any_order: false,
        nearly: false,
    };
    for sql in [
        "SELECT id, count(*) FROM pt GROUP BY g",
        "SELECT g, count(*) FROM pt GROUP BY 3",
        "SELECT g + 1, count(*) FROM pt GROUP BY g + 2",
        "SELECT nope, count(*) FROM pt GROUP BY g",
        "SELECT g, sum(t) FROM pt GROUP BY g",
        "SELECT 1 / (count(*) - count(*)) FROM pt",
    ] {
        sides.same_bytes(&message::query(sql), sql, simple);
    }
    // A shard meets it before the columns of the answer are told.
    let sql = "SELECT g / 0, count(*) FROM pt GROUP BY 1";
    let [found, wanted] = [sides.client.fails(sql), sides.reference.fails(sql)];
    assert_eq!((found.code, found.message), (wanted.code, wanted.message));
}

#[test]
fn groups_with_the_key_stay_on_their_shards() {
    let mut sides = start(4, 120);
    for sql in [
        "SELECT k, count(*), string_agg(v, ',' ORDER BY id), stddev(n) FROM pt GROUP BY k ORDER BY k",
        "SELECT k AS key, sum(f4) FROM pt WHERE id < 40 GROUP BY key ORDER BY key",
        "SELECT g, k, avg(f8) FROM pt GROUP BY 2, 1 HAVING count(*) > 2 ORDER BY k, g LIMIT 5 OFFSET 2",
        "SELECT k, count(DISTINCT t), array_agg(id ORDER BY id DESC) FROM pt GROUP BY k ORDER BY count(*) DESC, k LIMIT 3",
        "SELECT DISTINCT k, g FROM pt ORDER BY k, g LIMIT 7",
        "SELECT DISTINCT ON (k) k, id FROM pt ORDER BY k, id DESC",
        "SELECT id, row_number() OVER (PARTITION BY k ORDER BY id), sum(i4) OVER w FROM pt WINDOW w AS (PARTITION BY k, g ORDER BY id) ORDER BY id",
        "SELECT id, lag(id) OVER (PARTITION BY k ORDER BY id) FROM pt ORDER BY id LIMIT 10",
        "SELECT p.k, count(s.id) FROM pt p LEFT JOIN pt_beside s ON s.k = p.k AND s.id = p.id GROUP BY p.k ORDER BY p.k",
        "SELECT s.k, count(*) FROM pt p JOIN pt_beside s ON s.k = p.k AND s.id = p.id GROUP BY s.k ORDER BY s.k",
        "SELECT k, name, count(*) FROM pt JOIN pt_colours c ON c.id = g GROUP BY k, name ORDER BY k, name COLLATE \"C\"",
        "SELECT j, k, sum(x) FROM pt_two GROUP BY k, j ORDER BY k, j COLLATE \"C\"",
        "SELECT k, grouping(k), percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM pt GROUP BY k ORDER BY k",
    ] {
        // `grouping` is not on the list.
        if sql.contains("grouping(") {
            sides.same(sql);
        } else {
            sides.whole(sql);
        }
    }
    for sql in [
        "SELECT s.k, count(*) FROM pt p LEFT JOIN pt_beside s ON s.k = p.k AND s.id = p.id GROUP BY s.k ORDER BY s.k",
        "SELECT k, sum(x) FROM pt_two GROUP BY k ORDER BY k",
        "SELECT k, count(*) FROM pt GROUP BY ROLLUP (k) ORDER BY k",
        "SELECT id, row_number() OVER (ORDER BY id) FROM pt ORDER BY id",
        "SELECT id, row_number() OVER (PARTITION BY g ORDER BY id) FROM pt ORDER BY id",
        "SELECT k + 1 AS k, count(*) FROM pt GROUP BY k ORDER BY k",
        "SELECT g AS k, count(*) FROM pt GROUP BY 1 ORDER BY 1",
        "SELECT DISTINCT f8, k FROM pt ORDER BY f8, k",
        "SELECT count(*) FILTER (WHERE b) FROM pt",
        "SELECT max(count(*)) OVER (PARTITION BY k) FROM pt GROUP BY k ORDER BY 1",
    ] {
        sides.same(sql);
    }
}

#[test]
fn values_of_the_client_go_both_ways() {
    let mut sides = start(3, 100);
    let sql = "SELECT g + $1, count(*) * $2, sum(n2) FROM pt WHERE i4 > $3 OR t = $4 GROUP BY g HAVING count(*) > $5 ORDER BY g LIMIT $6";
    for values in [
        [
            Some("1"),
            Some("3"),
            Some("0"),
            Some("a"),
            Some("2"),
            Some("4"),
        ],
        [None, Some("3"), Some("-1"), Some("é"), Some("0"), None],
    ] {
        for formats in [&[][..], &[1], &[0, 1, 0]] {
            sides.same_bound(sql, &[], &values, formats);
            sides.same_bound(sql, &[23, 20, 0, 25], &values, formats);
        }
    }
    sides.same_bound(
        "SELECT date_trunc($1, ts), count(*) FROM pt GROUP BY 1 ORDER BY 1",
        &[],
        &[Some("month")],
        &[],
    );
    sides.same_bound(
        "SELECT e, count(*) FROM pt WHERE id > $1 GROUP BY e ORDER BY e",
        &[],
        &[Some("5")],
        &[1],
    );
    sides.same_bound(
        "SELECT g, avg(f8 * $1) > $2 FROM pt GROUP BY g ORDER BY g",
        &[],
        &[Some("2"), Some("1")],
        &[],
    );
    sides.same_bound(
        "SELECT g, count(*) FROM pt WHERE id > $1 GROUP BY g",
        &[],
        &[Some("x")],
        &[],
    );
}

#[test]
fn a_block_sees_what_it_wrote() {
    let mut sides = start(3, 60);
    let simple = Like {
        any_order: false,
        nearly: false,
    };
    for isolation in ["READ COMMITTED", "REPEATABLE READ"] {
        for sql in [
            &format!("BEGIN ISOLATION LEVEL {isolation}"),
            "INSERT INTO pt (id, k, g, i4) VALUES (1000, 1, 77, 5), (1001, 4, 78, 6)",
            "UPDATE pt SET g = 79 WHERE k = 1 AND id > 1000",
            "SELECT g, count(*), sum(i4), avg(i4) FROM pt GROUP BY g ORDER BY g",
            "SELECT k, count(*) FROM pt GROUP BY k ORDER BY k",
            "SELECT g, count(*) FROM pt WHERE nope GROUP BY g",
            "ROLLBACK",
        ] {
            let keyed = sql.replace("(1001, 4, 78, 6)", "(1001, 1, 78, 6)");
            sides.same_bytes(&message::query(&keyed), &keyed, simple);
        }
        for sql in [
            &format!("BEGIN ISOLATION LEVEL {isolation}"),
            "INSERT INTO pt (id, k, g) VALUES (1, 2, 80)",
        ] {
            sides.same_bytes(&message::query(sql), sql, simple);
        }
        sides.same_bound(
            "SELECT g, count(*) FROM pt WHERE g > $1 GROUP BY g ORDER BY g",
            &[],
            &[Some("0")],
            &[1],
        );
        sides.same_bytes(&message::query("ROLLBACK"), "ROLLBACK", simple);
    }
}

#[test]
fn a_function_of_the_users_is_theirs() {
    let mut sides = start(2, 40);
    let make =
        "CREATE FUNCTION bit_xor(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)'";
    sides.both(make);
    eventually("the twins have it", || {
        sides
            .client
            .query("SELECT bit_xor(t) FROM pt GROUP BY t ORDER BY 1")
            .is_ok()
    });
    sides.same("SELECT bit_xor(t) FROM pt GROUP BY t ORDER BY 1");
    sides.same("SELECT bit_xor(i4) FROM pt");
}

#[test]
fn it_ends_where_it_is_cut_off() {
    let mut sides = start(3, 40);
    let sql =
        "SELECT g, count(*) FROM pt WHERE g + length(repeat('x', 10)) > 0 GROUP BY g ORDER BY g";
    sides.in_parts(sql);
    // A lock on one shard holds the read up.
    let mut holder = sides.databases.shard(1);
    holder.run("BEGIN; LOCK TABLE pt IN ACCESS EXCLUSIVE MODE");
    let mut other = sides.herd.connect();
    let key = other.key;
    let waiting = spawn(move || {
        let result = other.query(sql);
        (other, result)
    });
    let mut watch = sides.databases.shard(1);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pt'::regclass";
    eventually("it waits for the lock", || watch.value(waits) == "1");
    cancel(sides.herd.port, key);
    let (mut other, result) = waiting.join().expect("it ends");
    assert_eq!(result.expect_err("canceled").code, "57014");
    eventually("no shard works on it", || watch.value(waits) == "0");
    // A shard's connection is cut in the middle.
    let waiting = spawn(move || {
        let result = other.query(sql);
        (other, result)
    });
    eventually("it waits again", || watch.value(waits) == "1");
    let port = sides.databases.shard_ports[1];
    let mut owner = Client::connect(port, "postgres", &sides.databases.name);
    owner.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'pt'::regclass");
    let (mut other, result) = waiting.join().expect("it ends");
    assert!(result.is_err());
    holder.run("ROLLBACK");
    assert!(other.query(sql).is_ok());
    sides.in_parts(sql);
}
