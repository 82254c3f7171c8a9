//! Views are placed by what they read: keys are found through them.

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::random::Random;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE vw_orders (id int, customer_id bigint, total numeric);
CREATE TABLE vw_items (order_id int, customer_id bigint, name text);
CREATE TABLE vw_colours (id int, name text);
CREATE TABLE vw_notes (id int, note text);
CREATE FUNCTION vw_sees(int, int) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT count(*) > 9 FROM vw_orders';
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = vw_sees);
CREATE FUNCTION vw_all() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM vw_orders';
";

const VIEWS: [&str; 14] = [
    "CREATE VIEW vw_large AS SELECT * FROM vw_orders WHERE total > 50",
    "CREATE VIEW vw_lines (who, what, amount) AS
        SELECT o.customer_id, i.name, o.total FROM vw_orders o
        LEFT JOIN vw_items i ON i.customer_id = o.customer_id AND i.order_id = o.id",
    "CREATE VIEW vw_sums AS SELECT customer_id, sum(total) AS total, count(*) FROM vw_large GROUP BY 1",
    "CREATE VIEW vw_named AS SELECT o.*, c.name AS colour FROM vw_large o JOIN vw_colours c ON c.id = o.id % 3",
    "CREATE VIEW vw_listed AS SELECT NULL::int AS k, o.* FROM generate_series(1, 3) g LEFT JOIN vw_orders o ON o.id = -1",
    "CREATE VIEW vw_deep AS SELECT * FROM vw_listed",
    "CREATE VIEW vw_numbers AS SELECT tableoid, * FROM vw_orders",
    "CREATE VIEW vw_first AS SELECT * FROM vw_orders ORDER BY total LIMIT 1",
    "CREATE VIEW vw_open AS SELECT id, note FROM vw_notes WHERE note IS NOT NULL",
    "CREATE VIEW vw_counted AS SELECT id, vw_all() AS n FROM vw_notes",
    "CREATE VIEW vw_tints AS SELECT lower(name) AS name FROM vw_colours",
    "CREATE VIEW vw_opped AS SELECT id FROM vw_notes WHERE id === 1",
    "CREATE VIEW vw_over AS SELECT * FROM vw_opped",
    "CREATE MATERIALIZED VIEW vw_kept AS SELECT id FROM vw_notes",
];

fn start(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    options
        .sharded("vw_orders", "customer_id", "bigint", "{modulo: all}")
        .on("vw_items", "vw_orders", "customer_id")
        .table("vw_colours", "reference");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

fn refused(client: &mut Client, sql: &str) {
    let error = client.fails(sql);
    assert_eq!(error.code, "0A000", "{sql}: {error:?}");
    assert!(!error.hint.is_empty(), "{sql}: {error:?}");
}

fn check(shards: usize) {
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let (databases, herd) = start(shards);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    let mut same = |client: &mut Client, sql: &str| Fixture::same(client, &mut reference, sql);
    for sql in VIEWS {
        same(&mut client, sql);
    }
    same(
        &mut client,
        "INSERT INTO vw_colours VALUES (0, 'Red'), (1, 'Green'), (2, 'Blue')",
    );
    same(
        &mut client,
        "INSERT INTO vw_notes VALUES (1, 'a'), (2, NULL)",
    );
    for id in 0..60 {
        let (customer, total) = (random.below(9), random.below(100));
        let values = format!("VALUES ({id}, {customer}, {total})");
        same(&mut client, &format!("INSERT INTO vw_orders {values}"));
        let values = format!("VALUES ({}, {customer}, 'item {id}')", random.below(60));
        same(&mut client, &format!("INSERT INTO vw_items {values}"));
    }
    for _ in 0..6 {
        let key = random.below(9);
        for sql in [
            format!("SELECT * FROM vw_large WHERE customer_id = {key} ORDER BY id"),
            format!("SELECT * FROM public.vw_lines l WHERE l.who = {key} ORDER BY what, amount"),
            format!("SELECT * FROM vw_named WHERE {key} = customer_id ORDER BY id"),
            format!(
                "SELECT s.*, o.id FROM vw_large s JOIN vw_orders o USING (customer_id) WHERE customer_id = {key} ORDER BY 1, 2, 3, 4"
            ),
            format!(
                "SELECT id FROM vw_orders o WHERE customer_id = {key} AND EXISTS (SELECT FROM vw_large l WHERE l.customer_id = o.customer_id AND l.id = o.id) ORDER BY 1"
            ),
            format!("SELECT * FROM vw_large WHERE customer_id = {key} ORDER BY id FOR UPDATE"),
            format!(
                "WITH vw_orders AS (SELECT 1 AS x) SELECT * FROM vw_large WHERE customer_id = {key} ORDER BY id"
            ),
        ] {
            same(&mut client, &sql);
        }
        let by_parameter = "SELECT * FROM vw_large WHERE customer_id = $1 ORDER BY id";
        let key = key.to_string();
        let mut direct = databases.reference();
        assert_eq!(
            client.query_with(by_parameter, &[Some(&key)]),
            direct.query_with(by_parameter, &[Some(&key)]),
        );
    }
    for sql in [
        "SELECT * FROM vw_large",
        "SELECT id, total FROM vw_large WHERE total < 80",
        "SELECT id, total FROM vw_large ORDER BY total DESC, id LIMIT 7",
        "SELECT * FROM vw_open",
        "UPDATE vw_open SET note = 'b' WHERE id = 1",
        "INSERT INTO vw_open VALUES (3, 'c')",
        "DELETE FROM vw_open WHERE id = 3",
        "SELECT * FROM vw_notes",
        "SELECT * FROM vw_tints ORDER BY name",
        "REFRESH MATERIALIZED VIEW vw_kept",
        "SELECT * FROM vw_kept ORDER BY id",
    ] {
        same(&mut client, sql);
    }
    if shards == 1 {
        return;
    }
    for sql in [
        "SELECT avg(total) FROM vw_large",
        "SELECT * FROM vw_deep",
        "SELECT * FROM vw_numbers",
        "SELECT * FROM vw_numbers WHERE customer_id = 1",
        "SELECT * FROM vw_first WHERE customer_id = 1",
        "SELECT * FROM vw_counted",
        "SELECT * FROM vw_opped",
        "SELECT * FROM vw_over",
        "DELETE FROM vw_over WHERE id = 1",
        "UPDATE vw_large SET total = 1 WHERE customer_id = 1",
        "DELETE FROM vw_large WHERE customer_id = 1",
        "INSERT INTO vw_large VALUES (100, 1, 1)",
        "UPDATE vw_tints SET name = 'x'",
    ] {
        refused(&mut client, sql);
    }
    // Another view of the same name.
    for (make, ask) in [
        (
            "CREATE OR REPLACE VIEW vw_open AS SELECT id, note FROM vw_notes",
            "SELECT * FROM vw_open ORDER BY id",
        ),
        ("DROP VIEW vw_open", "SELECT * FROM vw_open"),
        (
            "CREATE VIEW vw_open AS SELECT id, customer_id FROM vw_orders",
            "SELECT * FROM vw_open WHERE customer_id = 4 ORDER BY id",
        ),
    ] {
        same(&mut client, make);
        same(&mut client, ask);
    }
    refused(&mut client, "SELECT avg(id) FROM vw_open");
}

#[test]
fn views_answer_as_one_postgres_on_one_shard() {
    check(1);
}

#[test]
fn views_answer_as_one_postgres_on_three_shards() {
    check(3);
}
