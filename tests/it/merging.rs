//! Reads of several shards whose rows the proxy puts together: merged in order, cut off, totalled.

use std::fmt::Write as _;
use std::thread::spawn;

use crate::client::{Client, cancel};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message;
use crate::random::Random;
use crate::shared::Databases;

const TABLES: &str = r#"
CREATE TABLE mg (id int, k bigint, i2 smallint, i4 int, i8 bigint, o oid, b boolean, f4 real, f8 float8,
    n numeric, d date, ts timestamp, tz timestamptz, u uuid, ba bytea, c "char", t text, v varchar(20),
    bp char(6), nm name, e text COLLATE "en-x-icu", j jsonb);
CREATE TABLE mg_none (id int, k bigint, f8 float8);
CREATE TABLE mg_beside (k bigint, id int, w text);
CREATE TABLE mg_colours (id int, name text);
"#;

/// The columns whose order the proxy knows, and values of each beside NULL.
const COLUMNS: [(&str, &[&str]); 18] = [
    ("i2", &["-32768", "-1", "0", "7", "32767"]),
    ("i4", &["-2147483648", "-1", "0", "10", "9", "2147483647"]),
    (
        "i8",
        &[
            "-9223372036854775808",
            "-5",
            "0",
            "10",
            "9",
            "9223372036854775807",
        ],
    ),
    ("o", &["0", "9", "10", "4294967295", "2147483648"]),
    ("b", &["true", "false"]),
    (
        "f4",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "'-0'",
            "1.1",
            "1.1000001",
            "-3e20",
            "1e-30",
        ],
    ),
    (
        "f8",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "'-0'",
            "0.1",
            "0.10000000000000002",
            "-3e200",
            "1e-300",
            "9",
            "10",
        ],
    ),
    (
        "n",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "0",
            "0.00",
            "1.5",
            "1.50",
            "-0.0001",
            "9",
            "10",
            "12345678901234567890.123",
            "-99999999999999999999",
            "1e200",
            "1e-200",
            "1e2000",
        ],
    ),
    (
        "d",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 BC'",
            "'0001-12-31 BC'",
            "'2024-02-29'",
            "'1999-12-31'",
            "'10000-01-01'",
            "'5874897-12-31'",
        ],
    ),
    (
        "ts",
        &[
            "'infinity'",
            "'-infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'2024-01-01 00:00:00'",
            "'2024-01-01 00:00:00.000001'",
            "'2024-01-01 00:00:00.1'",
            "'294276-12-31 23:59:59.999999'",
        ],
    ),
    (
        "tz",
        &[
            "'infinity'",
            "'-infinity'",
            "'4000-01-01 00:00:00+00 BC'",
            "'2024-01-01 00:00:00+00'",
            "'2024-01-01 00:00:00.5+05:30'",
            "'1890-01-01 00:00:00+00'",
            "'294276-12-31 10:00:00+00'",
        ],
    ),
    (
        "u",
        &[
            "'00000000-0000-0000-0000-000000000000'",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'90eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        ],
    ),
    (
        "ba",
        &[
            "'\\x'",
            "'\\x00'",
            "'\\x5c5c'",
            "'\\x61'",
            "'\\x6162'",
            "'\\xff'",
            "'\\x80'",
        ],
    ),
    ("c", &["''", "'a'", "'Z'", "'~'"]),
    (
        "t",
        &[
            "''",
            "'a'",
            "'A'",
            "'a '",
            "'ab'",
            "'é'",
            "'z'",
            "'\u{1F600}'",
            "'\u{ffff}'",
            "'a_b'",
        ],
    ),
    ("v", &["''", "'b'", "'B'", "'a b'", "'é'"]),
    ("bp", &["''", "'a'", "'A'", "'ab'", "'a b'", "'é'"]),
    ("nm", &["'x'", "'X'", "'_y'", "'pg'"]),
];

/// The clients go first, then the proxy, then the servers' databases.
struct Sides {
    client: Client,
    reference: Client,
    herd: Herd,
    databases: Databases,
}

fn start(shards: usize, rows: usize) -> Sides {
    start_with(shards, rows, &[])
}

fn start_with(shards: usize, rows: usize, settings: &[&str]) -> Sides {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    for setting in settings {
        options.set(setting);
    }
    options
        .sharded("mg", "k", "bigint", "{modulo: all}")
        .on("mg_beside", "mg", "k")
        .on("mg_none", "mg", "k")
        .table("mg_colours", "reference");
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

impl Sides {
    fn fill(&mut self, rows: usize) {
        let mut random = Random::from_environment();
        println!("SEED={}", random.seed);
        let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        for id in 0..rows {
            // One shard stays without rows where there are four.
            let key = [0, 1, 2, 4, 5, 6][random.below(6)];
            let mut values = format!("{id}, {key}");
            for (_, some) in COLUMNS {
                let value = if random.chance(15) {
                    "NULL"
                } else {
                    random.choose(some)
                };
                write!(values, ", {value}").expect("to a string");
            }
            let sql = format!(
                "INSERT INTO mg (id, k, {}, e, j) VALUES ({values}, 'x', '1')",
                names.join(", ")
            );
            self.same(&sql);
            if random.chance(50) {
                self.same(&format!(
                    "INSERT INTO mg_beside VALUES ({key}, {id}, 'w{}')",
                    id % 5
                ));
            }
        }
        self.same("INSERT INTO mg_colours VALUES (0, 'red'), (1, 'green'), (2, 'blue')");
    }

    /// A simple query answers the same, message by message.
    fn same(&mut self, sql: &str) {
        let bytes = message::query(sql);
        self.same_bytes(&bytes, sql);
    }

    /// What was sent is answered the same.
    fn same_bytes(&mut self, bytes: &[u8], what: &str) {
        let [found, wanted] = [&mut self.client, &mut self.reference].map(|client| {
            client.send(bytes);
            let messages = client.until_ready().expect("an answer");
            // The proxy answers a Parse and a Bind before the shards have seen them.
            let failed = messages.iter().any(|message| message.tag == b'E');
            let kept = messages
                .iter()
                .filter(|message| !failed || !matches!(message.tag, b'1' | b'2'));
            kept.map(message::Message::line).collect::<Vec<_>>()
        });
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert_eq!(found, wanted, "message {at} of {what}");
        }
        assert_eq!(found.len(), wanted.len(), "{what}");
    }

    /// The same in both protocols; in the extended one in text and in binary format, and in some of each.
    fn same_always(&mut self, sql: &str) {
        self.same(sql);
        self.same_bound(sql, &[], &[], &[]);
        for formats in [&[][..], &[1], &[0]] {
            self.same_bound(sql, &[], &[], formats);
        }
    }

    fn same_bound(&mut self, sql: &str, types: &[u32], values: &[Option<&str>], formats: &[i16]) {
        let values: Vec<_> = values
            .iter()
            .map(|value| value.map(|text| text.as_bytes().to_vec()))
            .collect();
        let bytes = [
            message::parse("", sql, types),
            message::describe(b'S', ""),
            message::bind("", "", &[], &values, formats),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::sync(),
        ];
        // A Describe of the statement stands in a group of its own.
        let describe = [&bytes[0][..], &bytes[1], &bytes[5]].concat();
        self.same_bytes(&describe, sql);
        let run = [&bytes[0][..], &bytes[2], &bytes[3], &bytes[4], &bytes[5]].concat();
        self.same_bytes(&run, &format!("{sql} {values:?} {formats:?}"));
        let bare = [&bytes[0][..], &bytes[2], &bytes[4], &bytes[5]].concat();
        self.same_bytes(&bare, sql);
    }

    fn refused(&mut self, sql: &str) {
        let error = self.client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(!error.hint.is_empty(), "{sql}: {error:?}");
    }

    /// Nothing is left at work, and every connection is in its pool again.
    fn check_idle(&mut self) {
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND datname = current_database()";
        for shard in 0..self.databases.shard_ports.len() {
            let mut client = self.databases.shard(shard);
            eventually("no statement is left on a shard", || {
                client.value(active) == "0"
            });
        }
        self.same("SELECT id FROM mg ORDER BY id LIMIT 3");
        assert_eq!(
            self.herd.metric("pgherd_multi_buffered_bytes", ""),
            Some(0.0)
        );
    }
}

fn every_type(shards: usize) {
    let mut sides = start(shards, 150);
    for (column, _) in COLUMNS {
        for direction in ["", "DESC", "NULLS FIRST", "DESC NULLS LAST"] {
            for sql in [
                format!("SELECT id FROM mg ORDER BY {column} {direction}, id"),
                format!("SELECT id, {column} FROM mg ORDER BY 2 {direction}, 1 DESC"),
            ] {
                sides.same_always(&sql);
            }
        }
        sides.same_always(&format!("SELECT * FROM mg ORDER BY {column}, id"));
        sides.same(&format!(
            "SELECT x.{column} AS q, x.id FROM mg x WHERE i4 IS NOT NULL ORDER BY q DESC, x.id"
        ));
    }
    // Several formats in one answer.
    sides.same_bound(
        "SELECT id, n, t FROM mg ORDER BY n, f8, ts, id",
        &[],
        &[],
        &[0, 1, 0],
    );
    sides.same_bound(
        "SELECT id, n, t FROM mg ORDER BY 2, t DESC, id",
        &[],
        &[],
        &[1, 0, 1],
    );
}

#[test]
fn every_type_is_ordered_on_one_shard() {
    every_type(1);
}

#[test]
fn every_type_is_ordered_on_two_shards() {
    every_type(2);
}

#[test]
fn every_type_is_ordered_on_four_shards() {
    every_type(4);
}

#[test]
fn keys_are_what_postgresql_takes_them_for() {
    let mut sides = start(3, 60);
    for sql in [
        "SELECT i4 AS id, id AS i4 FROM mg ORDER BY i4, 1",
        "SELECT -id AS id FROM mg ORDER BY id",
        "SELECT -id AS id FROM mg ORDER BY id + 0",
        "SELECT -id AS other, id FROM mg m ORDER BY m.id DESC",
        "SELECT *, -id AS minus FROM mg ORDER BY minus",
        "SELECT m.*, abs(i4) FROM mg m ORDER BY abs, id",
        "SELECT abs(i4) FROM mg ORDER BY id",
        "SELECT \"id\" FROM mg ORDER BY \"id\" DESC /* so */ NULLS FIRST",
        "SELECT id FROM mg ORDER BY i4 % 7 NULLS FIRST, i8, lower(t) COLLATE \"C\", id -- end",
        "SELECT id FROM mg ORDER BY t COLLATE \"POSIX\" DESC, e COLLATE pg_catalog.\"C\", id",
        "SELECT id, t || 'x' AS y FROM mg ORDER BY t, id;",
        "SELECT id FROM mg ORDER BY (SELECT 1), id",
        "SELECT id FROM mg ORDER BY CASE WHEN i4 > 0 THEN 1 ELSE 2 END, id",
        "SELECT id FROM mg ORDER BY b AND i4 > 0, id",
        "SELECT m.id, w FROM mg m JOIN mg_beside s ON s.k = m.k AND s.id = m.id ORDER BY w DESC, 1",
        "SELECT id, w FROM mg JOIN mg_beside USING (k, id) ORDER BY w, id",
        "SELECT m.id, name FROM mg m JOIN mg_colours c ON c.id = m.k % 3 ORDER BY name, m.id",
        "SELECT id FROM mg ORDER BY nope",
        "SELECT id FROM mg ORDER BY 2",
        "SELECT id FROM mg ORDER BY i4, 2",
        "SELECT id FROM mg ORDER BY i4, 0",
        "SELECT mg.*, id FROM mg ORDER BY 8, t, 24",
        "SELECT id, i4 AS id FROM mg ORDER BY id",
        "SELECT id / 0 FROM mg ORDER BY id",
        "SELECT id FROM mg ORDER BY 1 / (id - 20), id",
        "SELECT id FROM mg_none ORDER BY f8 DESC",
        "SELECT FROM mg ORDER BY id LIMIT 4",
    ] {
        sides.same(sql);
        sides.same_bound(sql, &[], &[], &[]);
    }
    sides.same_bound(
        "SELECT id FROM mg WHERE i4 > $1 ORDER BY i4 + $2, id OFFSET $3",
        &[],
        &[Some("-5"), Some("1"), Some("2")],
        &[],
    );
    for sql in [
        "SELECT id FROM mg ORDER BY e",
        "SELECT id FROM mg ORDER BY t COLLATE \"en-x-icu\"",
        "SELECT id FROM mg ORDER BY lower(t)",
        "SELECT id FROM mg ORDER BY j",
        "SELECT id, t || 'x' AS y FROM mg ORDER BY y",
        "SELECT id FROM mg ORDER BY -f8",
        "SELECT id FROM mg ORDER BY mg",
        "SELECT DISTINCT id FROM mg ORDER BY id",
        "SELECT id FROM mg ORDER BY id FETCH FIRST 2 ROWS WITH TIES",
        "SELECT id FROM mg ORDER BY id LIMIT 1 + 1",
        "COPY (SELECT id FROM mg ORDER BY id) TO STDOUT",
    ] {
        sides.refused(sql);
    }
    // What floating-point numbers look like is a setting; their order is not.
    for setting in [
        "SET extra_float_digits = -10",
        "SET bytea_output = 'escape'",
    ] {
        sides.same(setting);
        sides.same("SELECT id, f8 FROM mg ORDER BY f8, f4, ba, id");
    }
    sides.same("SET DateStyle = 'German'");
    sides.same("SELECT id, ts FROM mg ORDER BY i4, id");
    sides.refused("SELECT id, ts FROM mg ORDER BY ts");
    sides.same("SET DateStyle = 'ISO, DMY'");
    sides.same("SET TimeZone = 'Asia/Kolkata'");
    sides.same("SELECT id, tz FROM mg ORDER BY tz, d DESC, id");
    sides.same("SET client_encoding = 'LATIN1'");
    sides.same("SELECT id FROM mg ORDER BY i4, id");
    sides.refused("SELECT id FROM mg ORDER BY t");
}

#[test]
fn rows_are_cut_off_as_postgresql_does() {
    for shards in [1, 2, 4] {
        let mut sides = start(shards, 60);
        for order in ["ORDER BY i4 DESC, id", "ORDER BY 1"] {
            for tail in [
                "LIMIT 10",
                "LIMIT 10 OFFSET 5",
                "OFFSET 5 LIMIT 10",
                "OFFSET 50",
                "OFFSET 1000",
                "LIMIT 0",
                "LIMIT 0 OFFSET 3",
                "LIMIT NULL",
                "LIMIT ALL OFFSET NULL",
                "LIMIT 9223372036854775807",
                "LIMIT 9223372036854775807 OFFSET 9223372036854775807",
                "LIMIT 9223372036854775807 OFFSET 58",
                "LIMIT -1",
                "LIMIT 5 OFFSET -1",
                "LIMIT 99999999999999999999",
                "LIMIT ' 7 ' OFFSET '2'",
                "LIMIT 'x'",
                "FETCH FIRST ROW ONLY",
                "OFFSET 3 ROWS FETCH NEXT 4 ROWS ONLY",
                "LIMIT $1",
            ] {
                sides.same(&format!("SELECT id, i4 FROM mg {order} {tail}"));
            }
        }
        for (limit, offset) in [
            (Some("10"), Some("5")),
            (None, Some("5")),
            (Some("7"), None),
            (None, None),
            (Some("0"), Some("0")),
            (Some("-1"), Some("0")),
            (Some("3"), Some("-3")),
            (Some("9223372036854775807"), Some("2")),
            (Some("x"), Some("2")),
        ] {
            for sql in [
                "SELECT id, i4 FROM mg ORDER BY i4, id LIMIT $1 OFFSET $2",
                "SELECT id, i4 FROM mg WHERE id > $2::bigint ORDER BY n, id LIMIT $1::int OFFSET $2",
            ] {
                sides.same_bound(sql, &[], &[limit, offset], &[1]);
            }
            sides.same_bound(
                "SELECT id FROM mg ORDER BY id LIMIT $1 OFFSET $2",
                &[23, 20],
                &[limit, offset],
                &[],
            );
        }
        let binary = |value: i64| Some(value.to_be_bytes().to_vec());
        let bytes = [
            message::parse(
                "s",
                "SELECT id FROM mg ORDER BY u, id LIMIT $1 OFFSET $2",
                &[],
            ),
            message::sync(),
        ];
        for client in [&mut sides.client, &mut sides.reference] {
            client.send(&bytes.concat());
            client.until_ready().expect("prepared");
        }
        for (limit, offset) in [(5, 0), (3, 10), (0, 1), (-2, 0)] {
            let bytes = [
                message::bind("", "s", &[1], &[binary(limit), binary(offset)], &[1]),
                message::execute("", 0),
                message::sync(),
            ];
            sides.same_bytes(&bytes.concat(), &format!("LIMIT {limit} OFFSET {offset}"));
        }
        if shards > 1 {
            sides.refused("SELECT id FROM mg ORDER BY id LIMIT 2.5");
        }
    }
}

#[test]
fn rows_in_no_order_are_counted() {
    let mut sides = start(4, 60);
    for (tail, count) in [
        ("LIMIT 5", 5),
        ("LIMIT 55 OFFSET 3", 55),
        ("LIMIT 60 OFFSET 59", 1),
        ("LIMIT 100", 60),
        ("OFFSET 40", 20),
        ("LIMIT 0", 0),
        ("WHERE id > 1000 LIMIT 1", 0),
        ("WHERE id = 7 LIMIT 1", 1),
    ] {
        let answer = sides.client.run(&format!("SELECT id, t FROM mg {tail}"));
        assert_eq!(answer.tags, [format!("SELECT {count}")], "{tail}");
        let mut ids = answer.column("id");
        assert_eq!(ids.len(), count, "{tail}");
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count, "each row once: {tail}");
    }
    sides.check_idle();
}

#[test]
fn totals_are_those_of_all_rows() {
    for shards in [1, 2, 3, 4] {
        let mut sides = start(shards, 50);
        for table in ["mg", "mg WHERE id = 3", "mg WHERE id < 0"] {
            for list in [
                "count(*)",
                "count(i4), count(ALL t) AS texts",
                "sum(i2), sum(i2 + 1) AS more",
                "sum(i8)",
                "sum(n) FILTER (WHERE n < 100 AND n > -100)",
                "sum(n)",
                "min(i2), max(i4), min(i8), max(o)",
                "min(n), max(n), min(d), max(d)",
                "min(ts), max(ts), min(tz), max(tz)",
                "min(t), max(t), min(v), max(bp)",
                "bool_and(b), bool_or(b), every(b)",
                "min(f4), max(f4), min(f8), max(f8)",
                "pg_catalog.count(*) FILTER (WHERE b), max(id) biggest",
            ] {
                // Of values that are equal but not alike any may be the largest.
                let condition = if table.contains("WHERE") {
                    "AND"
                } else {
                    "WHERE"
                };
                let strict = "(n IS NULL OR n NOT IN (0, 1.5)) AND (f8 IS NULL OR f8 <> 0) AND (f4 IS NULL OR f4 <> 0)";
                sides.same_always(&format!("SELECT {list} FROM {table} {condition} {strict}"));
            }
        }
        sides.same_always("SELECT sum(id), count(*), max(f8) FROM mg_none");
        sides.same_always("SELECT count(*) FROM mg LIMIT 1");
        sides.same("SELECT count(*) FROM mg OFFSET 1");
        sides.same("SELECT count(*) FROM mg LIMIT 0");
        sides.same("SELECT max(nope) FROM mg");
        sides.same("SELECT count(*) FROM mg m JOIN mg_beside s ON s.k = m.k AND s.id = m.id");
        sides.same_bound(
            "SELECT count(*) FROM mg WHERE i4 > $1",
            &[],
            &[Some("0")],
            &[1],
        );
        if shards == 1 {
            continue;
        }
        for sql in [
            "SELECT avg(i4) FROM mg",
            "SELECT sum(f8) FROM mg",
            "SELECT count(*) + 1 FROM mg",
            "SELECT count(DISTINCT i4) FROM mg",
            "SELECT max(e) FROM mg",
            "SELECT max(lower(t)) FROM mg",
            "SELECT count(*), 1 FROM mg",
            "SELECT count(*) FROM mg HAVING count(*) > 1",
            "SELECT count(*) OVER () FROM mg",
            "SELECT id, count(*) FROM mg GROUP BY id ORDER BY id",
            "COPY (SELECT count(*) FROM mg) TO STDOUT",
        ] {
            sides.refused(sql);
        }
    }
}

#[test]
fn a_total_that_passes_its_type_is_an_error() {
    let mut sides = start(2, 0);
    sides.same("INSERT INTO mg_none (id, k) SELECT 1, 0");
    sides.databases.run_everywhere(
        "CREATE FUNCTION count(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 7::bigint'",
    );
    sides.same("CREATE TABLE mg_made (id int)");
    // A function of the users' by the name of an aggregate is not taken for it.
    eventually("the function is seen", || {
        sides
            .client
            .query("SELECT count(id::text) FROM mg")
            .is_err()
    });
    sides.refused("SELECT count(id) FROM mg");
    sides.same("SELECT max(id) FROM mg_none");
}

#[test]
fn portals_hand_on_a_part_of_the_rows() {
    let mut sides = start(3, 40);
    for sql in [
        "SELECT id, t FROM mg ORDER BY id",
        "SELECT id FROM mg ORDER BY f8, id LIMIT 20 OFFSET 3",
        "SELECT count(*) FROM mg",
    ] {
        for step in [1, 7, 20, 40, 41] {
            let mut bytes = message::parse("", sql, &[]);
            bytes.extend(message::bind("p", "", &[], &[], &[1]));
            for round in 0..44 {
                if round == 2 {
                    bytes.extend(message::describe(b'P', "p"));
                }
                bytes.extend(message::execute("p", step));
            }
            bytes.extend(message::execute("p", 0));
            bytes.extend(message::sync());
            sides.same_bytes(&bytes, &format!("{sql} by {step}"));
        }
        // The rest is not asked for.
        for end in [message::close(b'P', "p"), Vec::new()] {
            let bytes = [
                message::parse("", sql, &[]),
                message::bind("p", "", &[], &[], &[]),
                message::execute("p", 1),
                end,
                message::sync(),
            ];
            sides.same_bytes(&bytes.concat(), sql);
        }
    }
    let bytes = [
        message::parse("", "SELECT id FROM mg", &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 15),
        message::execute("", 30),
        message::sync(),
    ];
    sides.client.send(&bytes.concat());
    let answer = sides.client.answer().expect("rows");
    assert_eq!(
        (answer.rows.len(), answer.tags),
        (40, vec!["SELECT 25".to_owned()])
    );
    sides.check_idle();
}

#[test]
fn long_rows_and_small_budgets_hold() {
    let mut sides = start_with(3, 30, &["max_multi_bytes: 1MB"]);
    sides.same("UPDATE mg SET t = repeat(t, 1) WHERE k = 0");
    let wide = "SELECT id, repeat('x', 100000 + id) AS y FROM mg ORDER BY id";
    sides.same_always(wide);
    let sql = "SELECT m.id, g FROM mg m, generate_series(1, 3000) g ORDER BY g, m.id";
    sides.same(sql);
    let error = sides
        .client
        .fails("SELECT id, repeat('x', 2000000) AS y FROM mg ORDER BY id");
    assert_eq!(error.code, "53200", "{error:?}");
    sides.check_idle();
}

/// A statement that no shard takes is not thought to be prepared on those whose refusal was not waited for.
#[test]
fn what_could_not_be_prepared_is_not_there() {
    let mut sides = start(4, 10);
    for _ in 0..30 {
        for sql in ["SELECT id FROM mg ORDER BY 2", "SELECT nope FROM mg"] {
            sides.same_bound(sql, &[], &[], &[]);
        }
    }
}

#[test]
fn many_rows_pass_in_little_memory() {
    let mut sides = start(3, 30);
    sides.client.run("SELECT id FROM mg ORDER BY id");
    let before = sides.herd.resident();
    let sql = "SELECT id, g, repeat('x', 200) FROM mg, generate_series(1, 12000) g ORDER BY id";
    sides.client.send(&message::query(sql));
    let mut rows = 0;
    loop {
        let message = sides
            .client
            .receive(crate::client::REPLY)
            .expect("an answer");
        rows += u32::from(message.tag == b'D');
        if message.tag == b'Z' {
            break;
        }
    }
    assert_eq!(rows, 360_000);
    let grown = sides.herd.resident().saturating_sub(before);
    // Some 80 MB have passed.
    assert!(grown < 24 << 20, "{grown} bytes more");
    sides.check_idle();
}

#[test]
fn an_error_in_the_middle_ends_the_answer() {
    let mut sides = start(3, 30);
    sides.same("INSERT INTO mg (id, k, i4) VALUES (5000, 4, 0)");
    let sql = "SELECT m.id, g, 1 / (m.id * g - 5000 * 2900) FROM mg m, generate_series(1, 3000) g WHERE m.id <> 5000 OR g = 2900 ORDER BY m.id";
    sides.client.send(&message::query(sql));
    let messages = sides.client.until_ready().expect("an answer");
    let error = messages.iter().find(|message| message.tag == b'E');
    assert_eq!(error.expect("an error").field('C'), "22012");
    assert!(messages.iter().all(|message| message.tag != b'C'));
    sides.check_idle();
    // The extended protocol skips what follows, and is in step after the Sync.
    let bytes = [
        message::parse("", sql, &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 10),
        message::execute("", 0),
        message::execute("", 0),
        message::sync(),
    ];
    sides.client.send(&bytes.concat());
    let error = sides.client.answer().expect_err("an error");
    assert_eq!(error.code, "22012", "{error:?}");
    sides.check_idle();
}

#[test]
fn a_cancel_stops_every_shard() {
    let mut sides = start(3, 30);
    for sql in [
        "SELECT m.id, g FROM mg m, generate_series(1, 100000000) g ORDER BY g",
        "SELECT m.id, g FROM mg m, generate_series(1, 100000000) g LIMIT 2000000000",
        "SELECT count(*) FROM mg m, generate_series(1, 10000000000) g",
    ] {
        let key = sides.client.key;
        let mut client = sides.client;
        let thread = spawn(move || {
            let error = client.fails(sql);
            (client, error)
        });
        let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%' AND pid <> pg_backend_pid() AND datname = current_database()";
        let mut shard = sides.databases.shard(0);
        eventually("it runs", || shard.value(active) != "0");
        cancel(sides.herd.port, key);
        let (client, error) = thread.join().expect("a client does not panic");
        sides.client = client;
        assert_eq!(error.code, "57014", "{sql}: {error:?}");
        sides.check_idle();
    }
}

#[test]
fn a_client_that_leaves_frees_every_shard() {
    let mut sides = start(3, 30);
    for sql in [
        "SELECT m.id, repeat('x', 100), g FROM mg m, generate_series(1, 20000) g ORDER BY m.id",
        "SELECT m.id, g, repeat('x', 100) FROM mg m, generate_series(1, 1000000) g LIMIT 1000000000",
    ] {
        let mut client = sides.herd.connect();
        client.send(&message::query(sql));
        client.receive(crate::client::REPLY).expect("the columns");
        client.hang_up();
        sides.check_idle();
    }
}

#[test]
fn a_limit_stops_the_other_shards() {
    let mut sides = start(4, 40);
    for _ in 0..20 {
        for sql in [
            "SELECT m.id, g FROM mg m, generate_series(1, 3000) g ORDER BY m.id, g LIMIT 2000 OFFSET 500",
            "SELECT id FROM mg ORDER BY id LIMIT 5",
            "SELECT id FROM mg ORDER BY id LIMIT 0",
        ] {
            sides.same(sql);
        }
    }
    sides.check_idle();
}

#[test]
fn a_shard_that_goes_is_an_error() {
    let mut sides = start(3, 30);
    for _ in 0..3 {
        let sql = "SELECT m.id, g FROM mg m, generate_series(1, 100000000) g ORDER BY g";
        let mut client = sides.herd.connect();
        let thread = spawn(move || client.fails(sql));
        let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series%' AND pid <> pg_backend_pid() AND datname = current_database()";
        let mut shard = sides.databases.shard(1);
        eventually("it runs and is killed", || shard.value(kill) != "0");
        let error = thread.join().expect("a client does not panic");
        assert_eq!(error.code, "08006", "{error:?}");
        sides.check_idle();
    }
}
