//! Partitions and inheritance children of sharded and reference tables are placed as these are.

use std::thread::sleep;
use std::time::Duration;

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE part (id int, customer_id bigint, d date) PARTITION BY RANGE (d);
CREATE TABLE part_a PARTITION OF part FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE part_b (d date, customer_id bigint, id int);
ALTER TABLE part ATTACH PARTITION part_b FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE part_c PARTITION OF part FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')
    PARTITION BY LIST (customer_id);
CREATE TABLE part_c_rest PARTITION OF part_c DEFAULT;
CREATE TABLE countries (code int, name text);
CREATE TABLE small_countries () INHERITS (countries);
CREATE TABLE alone (id int);
CREATE TABLE alone_too () INHERITS (alone);
";

fn start(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    options
        .sharded("part", "customer_id", "bigint", "{modulo: all}")
        .table("countries", "reference");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

fn same(client: &mut Client, reference: &mut Client, statements: &[&str]) {
    for sql in statements {
        Fixture::same(client, reference, sql);
    }
}

fn check(shards: usize) {
    let (databases, herd) = start(shards);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    same(
        &mut client,
        &mut reference,
        &[
            "INSERT INTO part VALUES (1, 1, '2020-05-01'), (2, 2, '2021-05-01'), (3, 3, '2022-05-01')",
            "INSERT INTO part_a VALUES (4, 5, '2020-06-01'), (5, 6, '2020-07-01'), (6, 4, '2020-08-01')",
            "INSERT INTO part_b VALUES ('2021-06-01', 7, 7), ('2021-07-01', 8, 8)",
            "INSERT INTO part_c_rest VALUES (9, 9, '2022-06-01'), (10, 10, '2022-07-01')",
            "SELECT * FROM part",
            "SELECT * FROM part_a",
            "SELECT * FROM part_b",
            "SELECT * FROM part_c_rest",
            "SELECT id FROM part WHERE customer_id = 6",
            "SELECT id FROM part_a WHERE customer_id = 6",
            "UPDATE part_b SET id = 70 WHERE customer_id = 7",
            "DELETE FROM part_c_rest WHERE customer_id = 9",
            "SELECT a.id, b.id FROM part a JOIN part_a b USING (customer_id)",
            "SELECT * FROM part",
            "INSERT INTO small_countries VALUES (1, 'Malta')",
            "SELECT * FROM countries",
            "CREATE TABLE part_d PARTITION OF part FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')",
            "INSERT INTO part_d VALUES (11, 11, '2023-05-01'), (12, 12, '2023-06-01')",
            "SELECT * FROM part_d",
            "SELECT * FROM part WHERE customer_id IN (11, 12)",
            "TRUNCATE part_d",
            "SELECT * FROM part",
            "INSERT INTO alone_too VALUES (1)",
            "SELECT * FROM alone",
        ],
    );
    for client in [&mut client, &mut reference] {
        let rows = b"20\t20\t2020-09-01\n21\t21\t2020-09-02\n".to_vec();
        client
            .copy_in("COPY part_a FROM STDIN", &[rows])
            .expect("copied");
    }
    same(
        &mut client,
        &mut reference,
        &["SELECT * FROM part", "SELECT * FROM ONLY part_a"],
    );
    for shard in 0..shards {
        let mut client = databases.shard(shard);
        let strange = client.value(&format!(
            "SELECT count(*) FROM part WHERE customer_id % {shards} <> {shard}"
        ));
        assert_eq!(strange, "0", "rows on shard {shard} of others");
        assert_eq!(client.value("SELECT count(*) FROM small_countries"), "1");
    }
}

#[test]
fn partitions_are_placed_as_their_table_on_one_shard() {
    check(1);
}

#[test]
fn partitions_are_placed_as_their_table_on_four_shards() {
    check(4);
}

#[test]
fn tables_of_different_kinds_are_not_put_together() {
    let (databases, herd) = start(4);
    let mut client = herd.connect();
    client.run("CREATE TABLE loose (id int, customer_id bigint, d date)");
    client.run("INSERT INTO loose VALUES (1, 1, '2030-01-01')");
    for sql in [
        "ALTER TABLE part ATTACH PARTITION loose FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
        "ALTER TABLE alone_too INHERIT countries",
        "ALTER TABLE part DETACH PARTITION part_a",
        "ALTER TABLE small_countries NO INHERIT countries",
        "CREATE TABLE both () INHERITS (countries, alone)",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(!error.hint.is_empty(), "{sql}");
    }
    // What went around the proxy is seen once it is told so.
    databases.run_everywhere(
        "CREATE TABLE part_e PARTITION OF part FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    );
    herd.console().run("RELOAD");
    sleep(Duration::from_millis(1_500));
    client.run("INSERT INTO part_e VALUES (1, 3, '2025-05-01')");
    assert_eq!(databases.shard(3).value("SELECT id FROM part_e"), "1");
}
