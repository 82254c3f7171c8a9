//! Constraints that would hold on each shard only are refused by DDL, and those that hold are kept.

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::shared::{Databases, SHARDS};

fn options() -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("customers", "id", "bigint", "{modulo: all}")
        .on("orders", "customers", "customer_id")
        .on("items", "customers", "customer_id")
        .sharded("visits", "visit", "text", "{jump: all}")
        .table("countries", "reference")
        .table("notes", "single");
    options
}

/// Made as one PostgreSQL makes them.
const MADE: &[&str] = &[
    "CREATE TABLE countries (code text PRIMARY KEY, name text UNIQUE)",
    "CREATE TABLE notes (id serial PRIMARY KEY, country text REFERENCES countries, note text UNIQUE)",
    "CREATE TABLE customers (id bigint PRIMARY KEY, country text REFERENCES countries ON DELETE SET NULL, email text)",
    "CREATE TABLE orders (order_id bigint, customer_id bigint REFERENCES customers ON DELETE CASCADE, parent bigint,
        PRIMARY KEY (customer_id, order_id), FOREIGN KEY (customer_id, parent) REFERENCES orders (customer_id, order_id))",
    "CREATE TABLE items (LIKE orders INCLUDING ALL, n int CHECK (n > 0))",
    "ALTER TABLE items ADD FOREIGN KEY (order_id, customer_id) REFERENCES orders (order_id, customer_id)",
    "CREATE UNIQUE INDEX CONCURRENTLY customers_email ON customers (id, lower(email)) WHERE email <> ''",
    "INSERT INTO countries VALUES ('mt', 'Malta'), ('is', 'Iceland')",
    "INSERT INTO customers VALUES (1, 'mt', 'a'), (2, 'is', 'a'), (3, 'mt', NULL)",
    "INSERT INTO customers VALUES (4, 'xx', 'a')",
    "INSERT INTO orders VALUES (1, 1, NULL), (2, 1, 1), (1, 2, NULL)",
    "INSERT INTO orders VALUES (3, 1, 9)",
    "INSERT INTO orders VALUES (1, 9, NULL)",
    "INSERT INTO items VALUES (1, 1, NULL, 5), (1, 2, NULL, 6)",
    "INSERT INTO items VALUES (7, 2, NULL, 6)",
    "INSERT INTO items VALUES (2, 1, NULL, 0)",
    "DELETE FROM countries WHERE code = 'mt'",
    "SELECT * FROM customers",
    "DELETE FROM customers WHERE id = 3",
    "SELECT * FROM orders",
    "INSERT INTO notes (note) VALUES ('a') RETURNING *",
    "INSERT INTO notes (note) VALUES ('a')",
];

/// Made by one PostgreSQL as well, and refused over several shards.
const REFUSED: &[&str] = &[
    "CREATE TABLE visits (visit text, id bigserial)",
    "CREATE TABLE visits (visit text, id bigint GENERATED ALWAYS AS IDENTITY)",
    "CREATE TABLE visits (visit text, id bigint PRIMARY KEY)",
    "CREATE TABLE visits (visit text PRIMARY KEY, customer bigint REFERENCES customers)",
    "CREATE TABLE visits (visit text PRIMARY KEY, note int REFERENCES notes)",
    "CREATE TABLE visits (LIKE notes INCLUDING ALL, visit text)",
    "ALTER TABLE customers ADD UNIQUE (email)",
    "ALTER TABLE customers ADD COLUMN number serial",
    "ALTER TABLE customers ADD COLUMN nick text UNIQUE",
    "ALTER TABLE customers ADD COLUMN note int REFERENCES notes (id)",
    "ALTER TABLE notes ADD COLUMN customer bigint REFERENCES customers (id)",
    "ALTER TABLE countries ADD COLUMN first bigint REFERENCES customers (id)",
    "CREATE UNIQUE INDEX ON customers (email)",
    "CREATE UNIQUE INDEX CONCURRENTLY other ON customers (lower(email))",
    "ALTER TABLE orders ADD CONSTRAINT x UNIQUE (order_id, parent)",
];

fn constraints(client: &mut Client) -> Vec<Vec<Option<String>>> {
    client.rows(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE conrelid >= 16384 AND conrelid::regclass::text NOT LIKE 'pgherd.%' ORDER BY 1, 2",
    )
}

#[test]
fn only_constraints_that_hold_over_all_shards_are_made() {
    let databases = Databases::create(SHARDS);
    let herd = Herd::start(&databases, &options());
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for sql in MADE {
        Fixture::same(&mut client, &mut reference, sql);
    }
    for sql in REFUSED {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(
            error.hint.contains("constraints: allow"),
            "{sql}: {error:?}"
        );
    }
    let wanted = constraints(&mut reference);
    for shard in 0..SHARDS {
        assert_eq!(
            constraints(&mut databases.shard(shard)),
            wanted,
            "shard {shard}"
        );
    }
}

#[test]
fn constraints_that_are_allowed_are_made_on_each_shard() {
    for shards in [1, SHARDS] {
        let databases = Databases::create(shards);
        let mut options = options();
        if shards > 1 {
            options.database.push("constraints: allow".to_owned());
        }
        let herd = Herd::start(&databases, &options);
        let (mut client, mut reference) = (herd.connect(), databases.reference());
        let mut made = 0;
        for sql in MADE.iter().take(7).chain(REFUSED) {
            let (found, wanted) = (client.query(sql), reference.query(sql));
            let (found, wanted) = (found.map_err(|e| e.code), wanted.map_err(|e| e.code));
            assert_eq!(found, wanted, "{sql}");
            made += usize::from(found.is_ok());
        }
        assert!(made > 15, "{made} were made");
    }
}
