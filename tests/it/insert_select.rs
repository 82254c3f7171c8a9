//! INSERT of a query's rows, which are known only once the query has run over the rows of all shards.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TYPE is_mood AS ENUM ('glad', 'sad');
CREATE TABLE is_orders (k int, id int, total numeric(8,2), placed timestamptz, note text, PRIMARY KEY (k, id));
CREATE TABLE is_products (p bigint PRIMARY KEY, name varchar(12), qty smallint DEFAULT 7, at timestamptz DEFAULT '2020-02-02',
    mood is_mood, doubled numeric GENERATED ALWAYS AS (p * 2) STORED, CHECK (qty >= 0));
CREATE TABLE is_colours (id int PRIMARY KEY, name text);
CREATE TABLE is_sums (k int, total numeric, names text[]);
CREATE TABLE is_always (k int, id int GENERATED ALWAYS AS IDENTITY, v text);
CREATE TABLE is_ruled (k int, v text);
CREATE RULE is_rule AS ON INSERT TO is_ruled DO ALSO NOTIFY is_ruled;
";

fn start(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    options
        .sharded("is_orders", "k", "int", "{modulo: all}")
        .sharded("is_products", "p", "bigint", "{jump: all}")
        .on("is_ruled", "is_orders", "k")
        .on("is_always", "is_orders", "k")
        .table("is_colours", "reference");
    options.twins(2);
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

const ALL: [&str; 4] = [
    "SELECT * FROM is_orders",
    "SELECT * FROM is_products",
    "SELECT * FROM is_colours",
    "SELECT * FROM is_sums",
];

/// The same statements to both, and the same rows in the tables behind each.
fn same(client: &mut Client, reference: &mut Client, statements: &[&str]) {
    for sql in statements {
        match (client.query(sql), reference.query(sql)) {
            (Ok(own), Ok(wanted)) => assert_eq!(own.tags, wanted.tags, "{sql}"),
            (Err(own), Err(wanted)) => {
                assert_eq!(own.code, wanted.code, "{sql}: {own:?}, {wanted:?}");
                assert_eq!(own.message, wanted.message, "{sql}");
            }
            (own, wanted) => panic!("{sql}: {own:?} instead of {wanted:?}"),
        }
        if client.status == 'E' {
            continue;
        }
        for all in ALL {
            let [mut own, mut wanted] = [&mut *client, &mut *reference].map(|side| side.rows(all));
            own.sort();
            wanted.sort();
            assert_eq!(own, wanted, "{all} behind {sql}");
        }
    }
}

const STATEMENTS: [&str; 22] = [
    "INSERT INTO is_orders SELECT g % 7, g, g * 1.5, '2024-01-01'::timestamptz + g * interval '1 day', E'a\\tb\\\\c\\n' || g FROM generate_series(1, 40) g",
    "INSERT INTO is_orders (k, id, note) SELECT k + 1, id + 100, 'moved ' || k FROM is_orders WHERE id % 2 = 0;",
    "INSERT INTO is_products (p, name) SELECT id, note FROM is_orders WHERE id < 10 -- and a comment",
    "INSERT INTO is_products (name, p, qty, mood) SELECT 'q' || id, id + 0.4, id / 3.0, CASE WHEN id % 2 = 0 THEN 'glad' ELSE NULL END::is_mood FROM is_orders WHERE id BETWEEN 11 AND 19",
    "INSERT INTO is_products (name, p, mood) SELECT 'r', id + 500, 'sad' FROM is_orders WHERE id BETWEEN 20 AND 25",
    "INSERT INTO is_colours SELECT min(id), 'colour ' || k FROM is_orders WHERE id < 40 GROUP BY k",
    "INSERT INTO is_sums SELECT o.k, sum(o.total), array_agg(p.name ORDER BY p.name) FROM is_orders o JOIN is_products p ON p.p = o.id GROUP BY o.k",
    "INSERT INTO is_sums (total) WITH t AS (SELECT avg(total) a FROM is_orders) SELECT a FROM t",
    "INSERT INTO is_orders SELECT k, id FROM is_orders",
    "INSERT INTO is_orders (id) SELECT id FROM is_orders",
    "INSERT INTO is_orders (k, id) SELECT NULL::int, id FROM is_orders",
    "INSERT INTO is_products (p, qty) SELECT id + 1000, -1 FROM is_orders LIMIT 1",
    "INSERT INTO is_products (p, name) SELECT id + 2000, repeat('x', 20) FROM is_orders WHERE id = 3 OR id = 4",
    "INSERT INTO is_products (p, qty) SELECT id + 1000, 100000 FROM is_orders WHERE id < 10",
    "INSERT INTO is_products (p, qty) SELECT id + 1000, note FROM is_orders WHERE id < 10",
    "INSERT INTO is_products (p, doubled) SELECT id + 1000, 3 FROM is_orders WHERE id < 10",
    "INSERT INTO is_orders SELECT k, id + 3000, 1 / (id - 5) FROM is_orders WHERE id < 10",
    "INSERT INTO is_orders (k, id) SELECT k FROM is_orders",
    "INSERT INTO is_orders SELECT 3, 9000 + count(*) FROM is_products",
    "INSERT INTO is_products SELECT p + 7000, name FROM is_products WHERE p < 10",
    "INSERT INTO is_orders (k, id, placed) SELECT k, id + 5000, now() - now() + '2024-02-02'::timestamptz FROM is_orders WHERE id = 8",
    "INSERT INTO is_colours SELECT id + 10000, name FROM is_colours",
];

#[test]
fn rows_of_a_query_are_inserted_where_they_belong() {
    for shards in [1, 2, 4] {
        let (databases, herd) = start(shards);
        let (mut client, mut reference) = (herd.connect(), databases.reference());
        let statements: Vec<&str> = STATEMENTS
            .into_iter()
            // NULL keys and rows without their key are refused before the server says why they fail.
            .filter(|sql| shards == 1 || !sql.contains("NULL::int") && !sql.contains("(id) SELECT"))
            // So is what names a generated column.
            .filter(|sql| shards == 1 || !sql.contains("doubled"))
            .collect();
        same(&mut client, &mut reference, &statements);
        for (table, holds) in [("is_orders", "k % shards = shard")] {
            for shard in 0..shards {
                let wrong = holds
                    .replace("shards", &shards.to_string())
                    .replace("shard", &shard.to_string());
                let count = databases
                    .shard(shard)
                    .value(&format!("SELECT count(*) FROM {table} WHERE NOT {wrong}"));
                assert_eq!(count, "0", "{table}");
            }
        }
        for side in [&mut client, &mut reference] {
            side.run("TRUNCATE is_orders, is_products, is_colours, is_sums");
        }
        // In blocks, with savepoints and failures.
        let blocks: Vec<&str> = std::iter::once("BEGIN")
            .chain(statements.iter().copied().take(8))
            .chain([
                "SAVEPOINT s",
                "INSERT INTO is_orders SELECT k, id FROM is_orders",
                "ROLLBACK TO s",
                "DELETE FROM is_orders WHERE id = 4",
                "INSERT INTO is_products (p) SELECT id + 9000 FROM is_orders WHERE id < 9",
                "COMMIT",
                "BEGIN",
                "INSERT INTO is_products (p) SELECT id + 9900 FROM is_orders WHERE id < 9",
                "ROLLBACK",
                "BEGIN; INSERT INTO is_products (p) SELECT id + 9900 FROM is_orders WHERE id < 9; DELETE FROM is_orders WHERE id = 6; COMMIT",
                "INSERT INTO is_products (p) SELECT id + 19900 FROM is_orders WHERE id < 9; INSERT INTO is_products (p) SELECT p FROM is_products WHERE p > 19900",
            ])
            .collect();
        same(&mut client, &mut reference, &blocks);
    }
}

#[test]
fn parameters_describe_and_pipelines_work_for_inserted_queries() {
    let (databases, herd) = start(3);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for side in [&mut client, &mut reference] {
        side.run(STATEMENTS[0]);
    }
    let inserts = "INSERT INTO is_products (p, name, qty) SELECT id + $1, $2, $3 FROM is_orders WHERE id < $4";
    let fails = "INSERT INTO is_products (p) SELECT id / (id - $1) FROM is_orders WHERE id < 9";
    let group = |base: &str| {
        [
            message::parse("i", inserts, &[23, 0, 0, 23]),
            message::describe(b'S', "i"),
            message::bind(
                "",
                "i",
                &[],
                &[
                    Some(base.into()),
                    Some("name".into()),
                    Some("5".into()),
                    Some("7".into()),
                ],
                &[1],
            ),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::close(b'S', "i"),
            message::sync(),
        ]
        .concat()
    };
    let pipelined = [
        message::parse(
            "",
            "INSERT INTO is_orders (k, id) SELECT k, id + 700 FROM is_orders WHERE id < 4",
            &[],
        ),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::parse("", "UPDATE is_orders SET note = 'p' WHERE id > 700", &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::parse("", fails, &[23]),
        message::bind("", "", &[], &[Some("3".into())], &[]),
        message::execute("", 0),
        message::sync(),
    ]
    .concat();
    let lasting = [
        message::parse(
            "",
            "INSERT INTO is_orders (k, id) SELECT k, id + 800 FROM is_orders WHERE id < 4",
            &[],
        ),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::parse("", "UPDATE is_orders SET note = 'p' WHERE id > 800", &[]),
        message::bind("", "", &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
    ]
    .concat();
    for bytes in [
        group("100"),
        group("100"),
        group("200"),
        pipelined,
        lasting,
        group("300"),
    ] {
        let told = [&mut client, &mut reference].map(|side| {
            side.send(&bytes);
            let answer = side.until_ready().expect("an answer");
            answer
                .iter()
                .map(message::Message::line)
                .map(|line| line.split(" W=").next().unwrap_or_default().to_owned())
                .map(|line| line.split(" s=").next().unwrap_or_default().to_owned())
                // Of several rows that fail, each shard tells its first.
                .map(|line| line.split(" D=").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        });
        assert_eq!(told[0], told[1]);
    }
    same(&mut client, &mut reference, &["SELECT 1"]);
}

#[test]
fn tables_are_made_from_rows_of_several_shards() {
    let (databases, herd) = start(3);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    same(
        &mut client,
        &mut reference,
        &[
            STATEMENTS[0],
            "CREATE TABLE is_made AS SELECT k, count(*), sum(total) AS total, array_agg(note ORDER BY id) AS notes, 'x' AS x FROM is_orders GROUP BY k",
            "INSERT INTO is_sums SELECT k, total FROM is_made",
            "CREATE TABLE is_made AS SELECT id FROM is_orders",
            "CREATE TABLE is_plain (a, b) AS (SELECT id, note FROM is_orders) WITH DATA; -- all",
            "INSERT INTO is_colours SELECT a + 500, b FROM is_plain WHERE a < 4",
            "CREATE TABLE is_wrong AS SELECT 1 / (id - 7) FROM is_orders",
            "CREATE TABLE is_wrong AS SELECT nothing FROM is_orders",
            "BEGIN",
            "CREATE TABLE is_gone AS SELECT id FROM is_orders WHERE id < 9",
            "INSERT INTO is_sums SELECT id FROM is_gone",
            "ROLLBACK",
            "INSERT INTO is_sums SELECT id FROM is_gone",
            "CREATE TABLE is_gone AS SELECT o.id FROM is_orders o, is_orders u WHERE o.id = u.id + 1",
            "INSERT INTO is_sums SELECT id FROM is_gone",
            "DROP TABLE is_made, is_plain, is_gone",
        ],
    );
    for side in [&mut client, &mut reference] {
        let answer = side.query_with(
            "CREATE TABLE is_bound AS SELECT id, $1::text AS t FROM is_orders WHERE id < $2::int",
            &[Some("a\tb"), Some("4")],
        );
        assert_eq!(answer.expect("made").tags, ["SELECT 3"]);
    }
    let rows =
        [&mut client, &mut reference].map(|side| side.rows("SELECT * FROM is_bound ORDER BY id"));
    assert_eq!(rows[0], rows[1]);
    for sql in [
        "CREATE TEMP TABLE is_temporary AS SELECT id FROM is_orders",
        "CREATE TABLE IF NOT EXISTS is_bound AS SELECT id FROM is_orders",
        "SELECT id INTO is_into FROM is_orders",
        "CREATE MATERIALIZED VIEW is_view AS SELECT id FROM is_orders",
    ] {
        assert_eq!(client.fails(sql).code, "0A000", "{sql}");
    }
}

#[test]
fn what_copy_would_do_otherwise_is_refused() {
    let (databases, herd) = start(2);
    let mut client = herd.connect();
    client.run(STATEMENTS[0]);
    for sql in [
        "INSERT INTO is_always (k, id, v) SELECT k, id, note FROM is_orders",
        "INSERT INTO is_always (k, id, v) OVERRIDING SYSTEM VALUE SELECT k, id, note FROM is_orders",
        "INSERT INTO is_ruled SELECT k, note FROM is_orders",
        "INSERT INTO is_orders SELECT k, id FROM is_orders ON CONFLICT DO NOTHING",
        "INSERT INTO is_orders SELECT k, id + 100 FROM is_orders RETURNING id",
        "EXPLAIN INSERT INTO is_orders SELECT k + 1, id FROM is_orders",
        "WITH n AS (INSERT INTO is_orders SELECT k + 1, id FROM is_orders) SELECT 1",
        "SET extra_float_digits = 0; INSERT INTO is_orders SELECT k + 1, id FROM is_orders",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(!error.hint.is_empty(), "{sql}: {error:?}");
    }
    assert_eq!(client.value("SELECT count(*) FROM is_orders"), "40");
    // A hint would write one copy only.
    client.run("SET pgherd.shard = 'shard_1'");
    client.run("INSERT INTO is_colours SELECT min(id), 'x' FROM is_orders");
    client.run("RESET pgherd.shard");
    for shard in 0..2 {
        let count = databases
            .shard(shard)
            .value("SELECT count(*) FROM is_colours");
        assert_eq!(count, "1");
    }
    drop(databases);
}
