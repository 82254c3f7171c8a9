//! Reads that cross shards where a copy of the schema is easily not the whole of it: columns that no word
//! names, functions behind attributes, sessions' settings, types of the user's own, several statements at once.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message;
use crate::shared::Databases;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('low', 'high');
CREATE TYPE spot AS (x int, y numeric);
CREATE DOMAIN short AS text NOT NULL CHECK (length(VALUE) < 20);
CREATE TABLE people (id int PRIMARY KEY, name short, mood mood, seat spot, since interval, seen timestamptz, day date, fee money,
    raw bytea, rate float8, tags text[], doc jsonb, own name, span int4range, moods mood[]);
CREATE TABLE pets (pet int, kind text, owner int, PRIMARY KEY (pet, kind));
CREATE SCHEMA other;
CREATE TABLE other.pets (pet int, kind text, owner int, PRIMARY KEY (pet, kind));
CREATE TABLE spots (id int PRIMARY KEY, label text);
CREATE FUNCTION worth(people) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1.rate::numeric * 2';
CREATE FUNCTION herd(people) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM pets WHERE owner = $1.id';
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION richer(people, people) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1.fee > $2.fee';
CREATE OPERATOR >>>> (LEFTARG = people, RIGHTARG = people, FUNCTION = richer);
CREATE FUNCTION label(people) RETURNS spot LANGUAGE sql IMMUTABLE AS 'SELECT $1.seat';
CREATE CAST (people AS spot) WITH FUNCTION label(people);
CREATE SEQUENCE counter;
CREATE VIEW worths AS SELECT p.id, worth(p) FROM people p;
CREATE VIEW owners AS SELECT p.id, p.name, count(q.pet) AS pets FROM people p LEFT JOIN pets q ON q.owner = p.id GROUP BY p.id;
";

const ROWS: [(&str, &str); 4] = [
    (
        "people",
        "1\tAnn\tlow\t(1,2.50)\t-1 days +02:00:00\t2020-06-01 00:30:00+00\t2020-02-29\t$1.50\t\\\\x00ff\t0.1\t{a,NULL,\"b c\"}\t{\"a\": [1, null]}\tann\t[1,5)\t{low,high}\n\
         2\tBér\thigh\t(,)\t1 mon -3 days 00:00:00.000001\t2021-12-31 23:59:59.999999+00\t0044-03-15 BC\t-$2.00\t\\\\x\t1e-300\t{}\tnull\tbér\tempty\t{}\n\
         3\tCy\t\\N\t\\N\t\\N\tinfinity\tinfinity\t\\N\t\\N\tNaN\t\\N\t\\N\t\\N\t\\N\t\\N\n\
         4\tD\\\\e\\tf\tlow\t(-7,NaN)\t00:00:00\t2019-01-01 12:00:00+00\t2019-01-01\t$0.00\t\\\\x5c\t-0\t{\"\",\"null\"}\t{}\tx\t(,3]\t{NULL}\n",
    ),
    (
        "pets",
        "1\tcat\t1\n2\tdog\t1\n3\tcat\t2\n4\tcat\t9\n5\tdog\t\\N\n1\tdog\t4\n",
    ),
    ("other.pets", "7\tcat\t1\n8\tcow\t2\n"),
    ("spots", "1\tone\n2\ttwo\n9\tnine\n"),
];

/// The proxy, one PostgreSQL, and what holds them.
struct Corners {
    client: Client,
    reference: Client,
    herd: Herd,
    _databases: Databases,
}

impl Corners {
    fn start() -> Corners {
        let databases = Databases::create(3);
        databases.run_everywhere(SCHEMA);
        let mut options = Options::new("transaction");
        options
            .sharded("people", "id", "int", "{modulo: all}")
            .sharded("pets", "pet", "int", "{jump: all}")
            .on("other.pets", "pets", "pet")
            .table("spots", "reference")
            .twins(2);
        let herd = Herd::start(&databases, &options);
        let mut corners = Corners {
            client: herd.connect(),
            reference: databases.reference(),
            herd,
            _databases: databases,
        };
        for (table, rows) in ROWS {
            for client in [&mut corners.client, &mut corners.reference] {
                let sql = format!("COPY {table} FROM STDIN");
                let done = client.copy_in(&sql, &[rows.as_bytes().to_vec()]);
                done.unwrap_or_else(|error| panic!("{table}: {error:?}"));
            }
        }
        corners
    }

    /// What is different about the answers, rows in any order.
    fn fault(&mut self, sql: &str) -> Option<String> {
        let (mut found, mut wanted) = (self.client.query(sql), self.reference.query(sql));
        for answer in [&mut found, &mut wanted].into_iter().flatten() {
            answer.rows.sort();
        }
        let same = match (&found, &wanted) {
            (Ok(found), Ok(wanted)) => found == wanted,
            (Err(found), Err(wanted)) => found.code == wanted.code,
            _ => false,
        };
        (!same).then(|| format!("{sql}\n  through pgherd: {found:?}\n  by PostgreSQL:  {wanted:?}"))
    }

    fn all_same(&mut self, statements: &[&str]) {
        let faults: Vec<String> = statements
            .iter()
            .filter_map(|sql| self.fault(sql))
            .collect();
        assert!(
            faults.is_empty(),
            "{} wrong:\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
}

#[test]
fn columns_that_no_word_names_are_fetched() {
    Corners::start().all_same(&[
        "TABLE people UNION ALL TABLE people",
        "SELECT p.id FROM people p WHERE p.rate NOT IN (SELECT q.owner FROM pets q WHERE q.owner > 0)",
        "SELECT p.id FROM people p WHERE p.rate > ALL (SELECT q.owner FROM pets q WHERE q.owner > 0)",
        "SELECT p.id, p.day IN (SELECT s.label::date FROM spots s WHERE s.id > 100) FROM people p",
        "SELECT p.id, (p.rate, p.name) IN (SELECT q.owner, q.kind FROM pets q) FROM people p",
        "SELECT q.pet FROM pets q JOIN spots s ON s.id = q.pet AND (q.owner, s.label) NOT IN (SELECT p.rate, p.name FROM people p)",
        "SELECT p.id FROM people p JOIN LATERAL (VALUES (p.rate), (p.id::float8)) v (x) ON true JOIN pets q ON q.pet = p.id",
        "SELECT p.id, row_number() OVER (PARTITION BY p.mood ORDER BY p.rate, p.id) FROM people p JOIN spots s ON true WHERE p.mood = 'low'",
        "SELECT p.id, rank() OVER (ORDER BY q.owner NULLS FIRST) FROM people p JOIN pets q ON q.pet = p.id",
        "SELECT * /* all */ FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT * -- all\n FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.* /* all */, q./* all */* FROM people p JOIN pets q ON q.owner = p.id",
        "TABLE pets EXCEPT TABLE other.pets",
        "SELECT q::text FROM (TABLE people) q JOIN spots ON true",
        "WITH q AS (TABLE pets) SELECT q FROM q JOIN q r ON q.pet > r.pet",
        "SELECT 2 IN (SELECT owner FROM (TABLE pets) q)",
        "SELECT p FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT row_to_json(p), q.kind FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT (p).rate, (p).seat.x, (p.seat).y FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT count(p), count(p.*), count(*) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.*, q.* FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT worth(p) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.worth FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT sum(worth(p)) FROM people p",
        "SELECT count(*) FROM people p JOIN people r ON p >>>> r",
        "SELECT (p::spot).x FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT sum(w.worth) FROM worths w JOIN pets q ON q.owner = w.id",
        "SELECT name(p) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT o FROM owners o JOIN spots s ON s.id = o.id",
        "SELECT x.a, x.b FROM pets AS x (a, b) JOIN people p ON p.id = x.owner",
        "SELECT * FROM pets NATURAL JOIN other.pets o",
        "SELECT * FROM people p JOIN pets q ON q.owner = p.id WHERE (p.id, q.kind) = (1, 'cat')",
        "SELECT p.id, (SELECT q FROM pets q WHERE q.owner = p.id ORDER BY pet LIMIT 1) FROM people p",
        "SELECT max(q) FROM (SELECT q.pet, q.kind FROM pets q) q",
        "SELECT p IS NULL, q IS NOT NULL FROM people p FULL JOIN pets q ON q.owner = p.id",
        "SELECT DISTINCT p.seat, p.tags FROM people p LEFT JOIN pets q ON q.owner = p.id",
        "SELECT p.name, count(*) FROM people p JOIN pets q ON q.owner = p.id GROUP BY p.id",
        "SELECT \"p\".\"name\" FROM \"people\" \"p\" JOIN pets q ON q.owner = p.id",
        "SELECT people.name FROM public.people JOIN pets ON pets.owner = people.id",
    ]);
}

#[test]
fn functions_see_all_rows_or_are_refused() {
    let mut corners = Corners::start();
    corners.all_same(&[
        "SELECT twice(p.id) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = twice(p.id)",
        "SELECT current_user, session_user, current_schema FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT now() > p.seen, q.kind FROM people p JOIN pets q ON q.owner = p.id WHERE p.seen < now()",
    ]);
    for sql in [
        "SELECT herd(p) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.herd FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT nextval('counter') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT lastval() FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT pg_backend_pid() FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT pg_relation_size('pets') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT query_to_xml('SELECT 1', true, true, '') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT table_to_xml('pets', true, true, '') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT pg_advisory_lock(1) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT pg_notify('a', 'b') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT set_config('a.b', 'c', false) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT current_database() FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.ctid FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.tableoid FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.xmin FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT 'pets'::regclass::oid FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT txid_current() FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT currval('counter') FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id JOIN pg_class c ON c.relname = q.kind",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id FOR UPDATE",
        "SELECT * INTO copied FROM people p JOIN pets q ON q.owner = p.id",
    ] {
        let answer = corners.client.query(sql);
        assert!(
            answer.as_ref().is_err_and(|error| error.code == "0A000"),
            "{sql}\n{answer:?}"
        );
    }
}

#[test]
fn a_sessions_settings_hold_on_the_twin() {
    let statements = [
        "SELECT p.*, q.* FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.seen, p.day, p.since FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.day > '01/02/2019' AND p.since < '1 day'",
        "SELECT p.id, p.seen::date, extract(hour FROM p.seen), p.seen::timestamp FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.id FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.seen >= '2020-06-01 00:00:00'::timestamp",
        "SELECT p.id FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.seen::date = '2020-05-31'::date OR p.seen::text LIKE '%31%'",
        "SELECT p.id FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.since::text LIKE '%-1%' OR p.since > '-1 2:00:00'::interval",
        "SELECT p.id FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.raw::text > '' AND p.raw < '\\x99'",
        "SELECT p.id FROM people p LEFT JOIN pets q ON q.owner = p.id WHERE p.rate::text LIKE '%1%' OR p.fee > '$1.00' OR p.seat = '(1,2.5)'",
        "SELECT current_setting('TimeZone'), current_setting('DateStyle'), count(*) FROM people p LEFT JOIN pets q ON q.owner = p.id",
    ];
    let mut corners = Corners::start();
    let mut faults = Vec::new();
    for setting in [
        "SET TimeZone = 'Asia/Tokyo'",
        "SET TimeZone = '-03:30'",
        "SET DateStyle = 'SQL, DMY'",
        "SET DateStyle = 'German'",
        "SET DateStyle = 'Postgres, MDY'",
        "SET IntervalStyle = 'sql_standard'",
        "SET IntervalStyle = 'iso_8601'",
        "SET extra_float_digits = 0",
        "SET extra_float_digits = -15",
        "SET bytea_output = 'escape'",
        "SET quote_all_identifiers = on",
        "SET search_path = other, public",
        "SET search_path = pg_catalog",
        "SET plan_cache_mode = force_generic_plan",
        "SET enable_seqscan = off",
        "SET default_transaction_isolation = 'serializable'",
        "SET default_transaction_read_only = on",
        "SET transform_null_equals = on",
    ] {
        for client in [&mut corners.client, &mut corners.reference] {
            client.run("RESET ALL");
            client.run(setting);
        }
        let found = statements.iter().filter_map(|sql| corners.fault(sql));
        faults.extend(found.map(|fault| format!("{setting}: {fault}")));
    }
    assert!(
        faults.is_empty(),
        "{} wrong:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn conditions_over_types_of_the_users_own_are_kept() {
    Corners::start().all_same(&[
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.mood = 'low'",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.mood > 'low' OR p.moods @> '{low}'",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE (p.seat).x > 0",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.doc @> '{\"a\": [1]}'",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.span && '[2,3]' OR p.tags && ARRAY['a']",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.name ~ '^[A-B]' AND p.own <> ''",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.name IN (VALUES ('Ann'), ('Cy'))",
        "SELECT p.mood, count(*), max(p.mood), array_agg(p.mood ORDER BY p.id) FROM people p LEFT JOIN pets q ON q.owner = p.id GROUP BY 1",
        "SELECT p.mood FROM people p UNION SELECT 'high' ORDER BY 1",
        "SELECT 1 / (p.id - p.id) FROM people p JOIN pets q ON q.owner = p.id",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.mood = 'sad'",
        "SELECT p.id FROM people p JOIN pets q ON q.owner = p.id WHERE p.name = 'Ann'::short",
        "SELECT p.id FROM people p, LATERAL unnest(p.tags) WITH ORDINALITY u (tag, n) JOIN pets q ON true WHERE u.n = 1",
        "SELECT p.id, k.* FROM people p CROSS JOIN pets q, jsonb_each(p.doc) k WHERE jsonb_typeof(p.doc) = 'object'",
    ]);
}

#[test]
fn several_statements_at_once_are_answered_in_turn() {
    let mut corners = Corners::start();
    let read = "SELECT count(*), sum(q.owner) FROM people p JOIN pets q ON q.owner = p.id";
    let fails = "SELECT 1 / (p.id - p.id) FROM people p JOIN pets q ON q.owner = p.id";
    let pipeline = |client: &mut Client, texts: &[&str]| {
        let mut bytes = Vec::new();
        for text in texts {
            bytes.extend(message::parse("", text, &[]));
            bytes.extend(message::bind("", "", &[], &[], &[]));
            bytes.extend(message::describe(b'P', ""));
            bytes.extend(message::execute("", 0));
        }
        bytes.extend(message::sync());
        client.send(&bytes);
        let lines = client.until_ready().expect("an answer");
        lines.iter().map(message::Message::line).collect::<Vec<_>>()
    };
    for texts in [
        vec![read],
        vec![fails],
        vec![read, read],
        vec![read, fails, read],
    ] {
        let found = pipeline(&mut corners.client, &texts);
        let wanted = pipeline(&mut corners.reference, &texts);
        assert_eq!(found, wanted, "{texts:?}");
    }
    corners.all_same(&[read, fails, read]);
    // A portal that is left before its rows are out.
    let mut bytes = message::parse("", "SELECT p.id FROM people p CROSS JOIN pets q", &[]);
    bytes.extend(message::bind("", "", &[], &[], &[]));
    bytes.extend(message::execute("", 2));
    bytes.extend(message::sync());
    corners.client.send(&bytes);
    corners.client.until_ready().expect("an answer");
    corners.all_same(&[read]);
    assert!(
        corners
            .herd
            .metric("pgherd_out_of_sync_total", "")
            .is_some_and(|count| count == 0.0)
    );
}

#[test]
fn changes_of_the_schema_reach_the_twin_or_the_read_is_refused() {
    let mut corners = Corners::start();
    let read = "SELECT q.*, s.label FROM pets q JOIN spots s ON s.id = q.owner JOIN people p ON p.id = s.id";
    corners.all_same(&[
        read,
        "ALTER TABLE pets ADD COLUMN age int DEFAULT 7",
        read,
        "SELECT sum(q.age) FROM pets q JOIN people p ON p.id = q.owner",
        "ALTER TABLE pets RENAME COLUMN kind TO species",
        "SELECT q.species FROM pets q JOIN people p ON p.id = q.owner",
        "SELECT q.kind FROM pets q JOIN people p ON p.id = q.owner",
        "ALTER TABLE pets ALTER COLUMN age TYPE text",
        "SELECT max(q.age) FROM pets q JOIN people p ON p.id = q.owner",
        "ALTER TABLE pets DROP COLUMN age",
        read,
    ]);
}
