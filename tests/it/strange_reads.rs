//! Reads over several shards where more than rows and columns decides the answer: the session's styles and encoding,
//! calls that look like columns, numbers of objects, bounds of partitions, keys that are equal and differ.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::shared::Databases;

const SCHEMA: &str = "
CREATE TYPE sr_mood AS ENUM ('low', 'high');
CREATE TABLE sr_cats (k bigint PRIMARY KEY, owner int, name text, mood sr_mood, born date, nap interval, weight float8, kin regclass);
CREATE TABLE sr_fish (k bigint, count int, x int);
CREATE TABLE sr_days (k bigint, day date, n int) PARTITION BY RANGE (day);
CREATE TABLE sr_days_2020 PARTITION OF sr_days FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE sr_days_rest PARTITION OF sr_days DEFAULT;
CREATE FUNCTION sr_least(x int, y int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT least(x, y)';
CREATE FUNCTION sr_add(bigint, sr_cats) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1 + 1';
CREATE AGGREGATE sr_rows (sr_cats) (sfunc = sr_add, stype = bigint, initcond = '0');
";

const ROWS: [&str; 3] = [
    "INSERT INTO sr_cats VALUES
        (1, 1, 'Ann', 'low', '2020-05-31', '-1 day -2 hours', 1.1, 'sr_cats'),
        (2, 1, 'bob', 'high', '2020-06-01', '-1 day +2 hours', 0.1, 'sr_fish'),
        (3, 2, 'Cy\u{20ac} \u{6f22}', 'low', '2019-01-31', '1 mon', 0.3, NULL),
        (4, 2, NULL, NULL, NULL, '1 mon -1 day', 1e10, 'pg_class'),
        (5, 3, 'Ann', 'low', 'infinity', '0', 0.30000000000000004, 'sr_cats')",
    "INSERT INTO sr_fish VALUES (1, 7, 1), (2, 8, 2), (3, 9, 1), (4, NULL, 30)",
    "INSERT INTO sr_days VALUES (1, '2020-05-05', 1), (2, '2020-06-06', 2), (3, '2022-01-01', 3), (4, NULL, 4)",
];

/// The proxy over three shards beside one PostgreSQL.
struct Sides {
    client: Client,
    reference: Client,
    herd: Herd,
    _databases: Databases,
}

impl Sides {
    fn start() -> Sides {
        let mut options = Options::new("transaction");
        options
            .sharded("sr_cats", "k", "bigint", "{modulo: all}")
            .on("sr_days", "sr_cats", "k")
            .sharded("sr_fish", "k", "bigint", "{jump: all}")
            .twins(2);
        Sides::over(&options, SCHEMA, &ROWS)
    }

    fn over(options: &Options, schema: &str, all: &[&str]) -> Sides {
        let databases = Databases::create(3);
        databases.run_everywhere(schema);
        let herd = Herd::start(&databases, options);
        let mut sides = Sides {
            client: herd.connect(),
            reference: databases.reference(),
            herd,
            _databases: databases,
        };
        for rows in all {
            sides.both(rows);
        }
        sides
    }

    fn both(&mut self, sql: &str) {
        self.client.run(sql);
        self.reference.run(sql);
    }

    /// The same rows, in any order, or the same error.
    fn same(&mut self, statements: &[&str]) {
        for sql in statements {
            let (mut found, mut wanted) = (self.client.query(sql), self.reference.query(sql));
            for answer in [&mut found, &mut wanted].into_iter().flatten() {
                answer.rows.sort();
            }
            match (found, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{sql}"),
                (Err(found), Err(wanted)) => assert_eq!(
                    (found.code, found.message),
                    (wanted.code, wanted.message),
                    "{sql}"
                ),
                (found, wanted) => panic!("{sql}: {found:?} instead of {wanted:?}"),
            }
        }
    }
}

/// A column of an enum goes as text, which is written in a style of its own.
#[test]
fn what_is_sent_as_text_is_compared_in_the_clients_style() {
    let mut sides = Sides::start();
    let statements = [
        "SELECT c.mood, f.x FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.born::text LIKE '31/%'",
        "SELECT c.mood, f.x FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.born = '01/06/2020'",
        "SELECT c.mood, f.x FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.weight::text = '0.3'",
        "SELECT c.mood, f.x FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.nap = interval '-1 2:00:00'",
        "SELECT c.mood, f.x FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.nap::text LIKE '%days%'",
        "SELECT mood, born::text, count(*) FROM sr_cats GROUP BY 1, 2",
        "SELECT mood, weight::text, count(*) FROM sr_cats GROUP BY 1, 2",
        "SELECT mood, nap::text, count(*) FROM sr_cats GROUP BY 1, 2",
        "SELECT mood, count(*) FROM sr_cats WHERE nap = '-1 2:00:00' GROUP BY 1",
        "SELECT max(mood), max(concat(born)), min(nap::text) FROM sr_cats",
    ];
    for setting in [
        "SET DateStyle = 'SQL, DMY'",
        "SET DateStyle = 'German'",
        "SET extra_float_digits = 0",
        "SET IntervalStyle = 'sql_standard'",
        "SET IntervalStyle = 'postgres_verbose'",
        "SET IntervalStyle = 'iso_8601'",
    ] {
        sides.both("RESET ALL");
        sides.both(setting);
        sides.same(&statements);
        for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
            sides.both(begin);
            sides.both("SELECT 1 FROM sr_cats WHERE k = 1");
            let left: Vec<&str> = statements
                .iter()
                .copied()
                .filter(|sql| !sql.contains("'01/06/2020'"))
                .collect();
            sides.same(&left);
            sides.same(&[
                "SHOW DateStyle",
                "SHOW IntervalStyle",
                "SHOW extra_float_digits",
            ]);
            sides.both("COMMIT");
        }
    }
}

#[test]
fn characters_that_the_client_does_not_know_reach_the_twin() {
    let mut sides = Sides::start();
    sides.both("SET client_encoding = 'LATIN1'");
    let statements = [
        "SELECT count(*) FROM sr_cats c JOIN sr_cats d ON c.name = d.name",
        "SELECT c.owner, count(*) FROM sr_cats c JOIN sr_fish f ON f.x = c.owner WHERE c.name > '' GROUP BY 1",
        "SELECT c.owner, count(f.x) FROM sr_cats c LEFT JOIN sr_fish f ON f.x = c.owner WHERE c.name <> 'bob' GROUP BY 1, c.mood",
        "SELECT count(*), count(DISTINCT name) FROM sr_cats",
        "SELECT length(name), count(*) FROM sr_cats GROUP BY name",
        "SELECT k FROM sr_cats ORDER BY name COLLATE \"C\", k LIMIT 3",
        "SELECT c.name FROM sr_cats c JOIN sr_fish f ON f.x = c.owner WHERE c.k = 2",
        "SELECT c.name FROM sr_cats c JOIN sr_fish f ON f.x = c.owner",
        "SHOW client_encoding",
    ];
    sides.same(&statements);
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        for sql in &statements[..6] {
            sides.both(begin);
            sides.both("SELECT 1 FROM sr_cats WHERE k = 1");
            sides.same(&[
                sql,
                "SHOW client_encoding",
                sql,
                "SELECT '\u{fc}'",
                "SELECT name FROM sr_cats WHERE k = 1",
            ]);
            sides.both("COMMIT");
        }
    }
    sides.both("RESET client_encoding");
    sides.same(&statements);
    let by_values = [
        "SELECT length(name), count(*) FROM sr_cats WHERE owner < $1 GROUP BY name",
        "SELECT k FROM sr_cats WHERE owner < $1 ORDER BY name COLLATE \"C\", k LIMIT 3",
        "SELECT c.k FROM sr_cats c JOIN sr_fish f ON f.x = c.owner WHERE c.name > '' AND c.owner < $1",
    ];
    for client in [&mut sides.client, &mut sides.reference] {
        client.run("SET client_encoding = 'LATIN1'");
    }
    for sql in by_values {
        let ask = |client: &mut Client| {
            let mut rows = client.query_with(sql, &[Some("9")]).expect(sql).rows;
            rows.sort();
            rows
        };
        assert_eq!(ask(&mut sides.client), ask(&mut sides.reference), "{sql}");
    }
    let out_of_sync = sides.herd.metric("pgherd_out_of_sync_total", "");
    assert_eq!(out_of_sync, Some(0.0));
}

/// `t.f` is `f(t)` where `t` has no column `f`.
#[test]
fn a_name_behind_a_dot_may_be_an_aggregate() {
    Sides::start().same(&[
        "SELECT c.count FROM sr_cats c",
        "SELECT sr_cats.count FROM sr_cats",
        "SELECT (c).count FROM sr_cats c",
        "SELECT c.sr_rows FROM sr_cats c",
        "SELECT pg_catalog.count(*) FROM sr_cats c",
        "SELECT 1 FROM sr_cats c ORDER BY c.count",
        "SELECT c.count FROM sr_cats c LIMIT 1",
        "SELECT owner, c.count FROM sr_cats c GROUP BY owner",
        "SELECT k, c.count FROM sr_cats c GROUP BY k",
        "SELECT f.count FROM sr_fish f ORDER BY f.count",
        "SELECT f.count, c.count FROM sr_fish f JOIN sr_cats c ON c.k = f.x GROUP BY f.count",
        "SELECT f.sum FROM sr_fish f",
    ]);
}

/// PostgreSQL writes the columns of relations that its plan has no scan of without their names.
#[test]
fn columns_of_what_is_never_read_are_left_to_the_twin() {
    Sides::start().same(&[
        "SELECT (SELECT min(f.x) FROM sr_fish f WHERE (f.count, c.owner) < (8, 2)) FROM sr_cats c WHERE text 'x' ~~ '%y%'",
        "SELECT (SELECT min(f.x) FROM sr_fish f WHERE (f.count, c.k) < (8, 2)) FROM sr_cats c \
            LEFT JOIN generate_series(3, 7) g (i) ON g.i = c.k WHERE text 'x' ~~ '%y%'",
        "SELECT (SELECT min(f.x) FROM sr_fish f WHERE (f.count, c.k) < (8, 2)) FROM sr_cats c WHERE false",
    ]);
}

const MIXED: &str = "
CREATE COLLATION sr_ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE FUNCTION sr_turkish(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 COLLATE \"tr-x-icu\"';
CREATE TABLE sr_a (id int, k bigint, x int, y int, t text, bp bpchar, ts timestamptz);
CREATE TABLE sr_c (id int, x bigint, y int, t text COLLATE sr_ci);
CREATE TABLE sr_r (id int, y int, t text COLLATE sr_ci);
CREATE TABLE sr_p (id int, k bigint, y int) PARTITION BY RANGE (id);
CREATE TABLE sr_p1 PARTITION OF sr_p FOR VALUES FROM (0) TO (10);
CREATE TABLE sr_p2 PARTITION OF sr_p FOR VALUES FROM (10) TO (20);
CREATE TABLE sr_q (id int, k bigint, owner text) PARTITION BY RANGE (id);
CREATE TABLE sr_q1 PARTITION OF sr_q FOR VALUES FROM (0) TO (100);
ALTER TABLE sr_q ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON sr_q USING (owner = current_user);
CREATE VIEW sr_folded AS SELECT id, t COLLATE sr_ci AS t FROM sr_a;
";

const MIXED_ROWS: [&str; 4] = [
    "INSERT INTO sr_a SELECT g, g % 6, g % 5, g % 7, (ARRAY['a', 'A', 'b', 'I', 'o''x'])[g % 5 + 1], 'a  ', \
        '2020-01-01'::timestamptz + g * interval '1 day' FROM generate_series(1, 30) g",
    "INSERT INTO sr_c SELECT g, g % 4, g % 9, (ARRAY['A', 'B', 'c'])[g % 3 + 1] FROM generate_series(1, 20) g",
    "INSERT INTO sr_r VALUES (1, 3, 'A'), (2, 4, 'b'), (3, NULL, NULL)",
    "INSERT INTO sr_p SELECT g, g % 3, g % 7 FROM generate_series(1, 19) g",
];

fn mixed() -> Sides {
    let mut options = Options::new("transaction");
    options
        .sharded("sr_a", "k", "bigint", "{modulo: all}")
        .on("sr_p", "sr_a", "k")
        .on("sr_q", "sr_a", "k")
        .sharded("sr_c", "x", "bigint", "{jump: all}")
        .table("sr_r", "reference")
        .narrowing_twins(2);
    Sides::over(&options, MIXED, &MIXED_ROWS)
}

/// PostgreSQL writes a column of an Append as that of its first relation.
#[test]
fn what_is_asked_of_a_union_is_asked_of_all_its_relations() {
    mixed().same(&[
        "SELECT u.y, l.n FROM (SELECT y FROM sr_r WHERE id = 1 UNION ALL SELECT y FROM sr_c) u, \
            LATERAL (SELECT count(*) n FROM sr_a WHERE sr_a.x = u.y) l",
        "SELECT u.y, (SELECT count(*) FROM sr_a WHERE sr_a.k = u.y) FROM \
            (SELECT y FROM sr_r UNION SELECT y FROM sr_c WHERE t = 'a') u",
        "SELECT u.y, count(*) OVER () FROM (SELECT y FROM sr_p UNION ALL SELECT y FROM sr_c) u \
            WHERE u.y <= (SELECT count(*) FROM sr_a WHERE sr_a.y = u.y)",
        "SELECT p.id, (SELECT max(a.t) FROM sr_a a WHERE a.y = p.y) FROM sr_p p",
        "SELECT p.id FROM sr_p p WHERE p.y <= (SELECT count(*) FROM sr_a a WHERE a.x = p.y)",
    ]);
}

/// What comes from an aggregate outside is written as the aggregate.
#[test]
fn what_is_compared_with_an_aggregate_outside_is_left_to_the_twin() {
    mixed().same(&[
        "SELECT g.n, a.id FROM (SELECT count(*) AS n FROM sr_c) g, LATERAL (SELECT id FROM sr_a WHERE x = g.n OFFSET 0) a",
        "SELECT g.n, (SELECT max(a.id) FROM sr_a a WHERE a.x = g.n) FROM (SELECT y, count(*) AS n FROM sr_c GROUP BY y) g",
        "SELECT g.n, (SELECT max(a.id) FROM sr_a a WHERE a.x < g.n) FROM (SELECT row_number() OVER (ORDER BY id) AS n FROM sr_c) g",
        "SELECT g.n, (SELECT max(a.id) FROM sr_a a WHERE a.x = g.n) FROM (SELECT unnest(ARRAY[1, 2]) AS n FROM sr_c) g",
    ]);
}

/// EXPLAIN does not show under which collation a column is compared.
#[test]
fn collations_that_are_said_are_those_of_one_server() {
    mixed().same(&[
        "SELECT t, count(*) OVER () FROM sr_a WHERE t COLLATE \"en-x-icu\" < 'B'",
        "SELECT t, count(*) OVER () FROM sr_a WHERE t COLLATE \"C\" < 'B'",
        "SELECT t, count(*) OVER () FROM sr_a WHERE lower(t COLLATE \"tr-x-icu\") = 'ı'",
        "SELECT t, count(*) OVER () FROM sr_a WHERE lower(sr_turkish(t)) = 'ı'",
        "SELECT t, count(*) OVER () FROM sr_folded WHERE t = 'A'",
        "SELECT a.id, c.id FROM sr_a a JOIN sr_c c ON a.t COLLATE sr_ci = c.t WHERE c.y = 3",
        "SELECT count(*) OVER (), t FROM sr_a WHERE t IN (SELECT t FROM sr_c WHERE x < 3)",
        "SELECT a.id, c.id FROM sr_a a JOIN sr_r r ON a.t = r.t JOIN sr_c c ON c.y = a.y WHERE r.y < 5",
        "SELECT a.id, c.id FROM sr_a a JOIN sr_c c ON c.t = a.t",
    ]);
}

#[test]
fn conditions_over_constants_without_a_type_of_their_own_stay_on_the_twin() {
    mixed().same(&[
        "SELECT id, count(*) OVER () FROM sr_a WHERE (x, y) = ANY (ARRAY[ROW(1, 2), ROW(3, 4)])",
        "SELECT id, count(*) OVER () FROM sr_a WHERE ts < ('now'::text)::timestamptz",
    ]);
}

#[test]
fn blanks_at_the_end_of_characters_reach_the_twin_in_a_block() {
    let mut sides = mixed();
    sides.both("BEGIN");
    sides.same(&[
        "SELECT a.id, octet_length(a.bp) FROM sr_a a JOIN sr_c c ON a.x = c.y",
        "SELECT bp || '|', count(*), avg(x) FROM sr_a GROUP BY bp",
    ]);
    sides.both("COMMIT");
}

#[test]
fn policies_of_partitioned_tables_are_not_those_of_their_partitions() {
    let mut sides = mixed();
    let error = sides.client.fails("SELECT id, count(*) OVER () FROM sr_q");
    assert_eq!(error.code, "0A000", "{error:?}");
    let joined = "SELECT q.id FROM sr_c c JOIN sr_q q ON q.id = c.id";
    assert_eq!(sides.client.fails(joined).code, "0A000");
    // What the shards answer for themselves goes on, and what names a partition.
    sides.same(&[
        "SELECT count(*) FROM sr_q",
        "SELECT id, count(*) OVER () FROM sr_q1",
    ]);
}

#[test]
fn arguments_may_be_named() {
    Sides::start().same(&[
        "SELECT sr_least(x => owner, y => 2) FROM sr_cats ORDER BY k",
        "SELECT sr_least(y := owner, x => 1), count(*) FROM sr_cats GROUP BY 1",
        "SELECT sr_least(x => c.owner, y => f.x) FROM sr_cats c JOIN sr_fish f ON f.x = c.owner",
        "SELECT make_interval(days => owner), x FROM sr_cats JOIN sr_fish ON x = owner",
        "SELECT sr_least(1, y => x) FROM sr_fish WHERE k = 2",
    ]);
}

#[test]
fn numbers_of_objects_are_those_of_their_server() {
    Sides::start().same(&[
        "SELECT c.k, f.k FROM sr_cats c, sr_fish f WHERE c.kin = 'sr_cats'::regclass",
        "SELECT c.k, f.k FROM sr_cats c, sr_fish f WHERE c.kin IN ('sr_cats', 'sr_fish')",
        "SELECT c.k, f.k FROM sr_cats c, sr_fish f WHERE c.kin <> 'pg_class'::regclass",
        "SELECT kin, count(*) FROM sr_cats WHERE kin = 'sr_cats'::regclass GROUP BY kin, mood",
    ]);
}

#[test]
fn rows_of_partitions_come_with_what_bounds_them() {
    Sides::start().same(&[
        "SELECT a.n, f.k FROM sr_days a JOIN sr_fish f ON f.x < a.n",
        "SELECT a.n, b.n FROM sr_days_2020 a JOIN sr_days_rest b ON a.n < b.n",
        "SELECT count(*) FROM sr_days a, sr_fish f",
    ]);
}

#[test]
fn an_average_fails_where_its_deviations_pass_the_type() {
    let mut sides = Sides::start();
    sides.same(&[
        "SELECT round(avg(weight)::numeric, 3), round(avg(weight::real)::numeric, 3) FROM sr_cats",
        "SELECT owner, avg(weight) FROM sr_cats GROUP BY owner",
        "SELECT avg(weight) FROM sr_cats WHERE k > 100",
    ]);
    sides.both("UPDATE sr_cats SET weight = 1e200 WHERE k = 1");
    sides.both("UPDATE sr_cats SET weight = -1e200 WHERE k = 2");
    sides.same(&[
        "SELECT avg(weight) FROM sr_cats",
        "SELECT owner, avg(weight) FROM sr_cats GROUP BY owner",
        "SELECT sum(weight) FROM sr_cats WHERE k < 3",
    ]);
    sides.both("UPDATE sr_cats SET weight = 'Infinity' WHERE k = 2");
    sides.same(&["SELECT avg(weight), avg(weight) FILTER (WHERE k <> 2) FROM sr_cats WHERE k < 3"]);
}

#[test]
fn keys_that_are_equal_and_differ_as_texts_are_refused() {
    let databases = Databases::create(2);
    databases.run_everywhere(
        "CREATE COLLATION sr_ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE sr_blank (k char(6), a int);
         CREATE TABLE sr_folded (k text COLLATE sr_ci, a int);
         CREATE TABLE sr_plain (k varchar, a int)",
    );
    let mut options = Options::new("transaction");
    options
        .sharded("sr_plain", "k", "text", "{jump: all}")
        .on("sr_blank", "sr_plain", "k")
        .on("sr_folded", "sr_plain", "k");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    client.run("INSERT INTO sr_plain VALUES ('a', 1), ('A', 2), ('b', 3)");
    assert_eq!(client.value("SELECT count(*) FROM sr_plain"), "3");
    for table in ["sr_blank", "sr_folded"] {
        for sql in [
            format!("SELECT * FROM {table} WHERE k = 'a'"),
            format!("SELECT k, count(*) FROM {table} GROUP BY k"),
            format!("SELECT count(*) FROM {table} x JOIN sr_plain y ON x.k = y.k"),
            format!("INSERT INTO {table} VALUES ('a', 1), ('A', 2), ('b', 3)"),
            format!("UPDATE {table} SET a = 1 WHERE k = 'a'"),
        ] {
            let error = client.fails(&sql);
            assert_eq!(error.code, "0A000", "{sql}: {error:?}");
            assert!(error.detail.contains("\"k\""), "{sql}: {error:?}");
        }
    }
}
