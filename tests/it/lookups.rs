//! Lookup tables: rows are found by columns besides their key, wherever their key has put them.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::client::{Client, Row};
use crate::herd::{Herd, Options};
use crate::message;
use crate::random::Random;
use crate::shared::{Databases, SHARDS};

/// Customers by ranges, and what is theirs with them: an id cannot carry where its row is.
const SHOP: &str = "
CREATE TABLE wc_customers (customer_id bigint PRIMARY KEY, name text);
CREATE TABLE wc_orders (order_id bigint PRIMARY KEY, customer_id bigint NOT NULL, status text, total numeric, number text);
CREATE INDEX ON wc_orders (number);
CREATE TABLE wc_order_items (order_id bigint, product_id bigint, quantity int, price numeric);
";

const BOTH: &str = "lookup: [order_id, number]";

struct Shop {
    databases: Databases,
    herd: Herd,
}

fn options(columns: &str) -> Options {
    let mut options = Options::new("transaction");
    options
        .distribution(
            "customers",
            "{key: bigint, place: {range: [{to: 100, shard: shard_0}, {to: 20001, jump: [shard_1, shard_2]}, {jump: [shard_2, shard_1]}]}}",
        )
        .on("wc_customers", "customers", "customer_id")
        .table(
            "wc_orders",
            &format!("{{distribution: customers, key: customer_id, {columns}}}"),
        )
        .table(
            "wc_order_items",
            "{distribution: customers, key: order_id, by: wc_orders.order_id}",
        )
        .on("wc_numbers", "customers", "customer_id");
    options
}

impl Shop {
    fn start(columns: &str) -> Shop {
        let databases = Databases::create(SHARDS);
        databases.run_everywhere(SHOP);
        Shop {
            herd: Herd::start(&databases, &options(columns)),
            databases,
        }
    }

    fn connect(&self) -> Client {
        self.herd.connect()
    }

    /// How many rows each shard has.
    fn counts(&self, table: &str) -> Vec<usize> {
        let count = |shard| {
            let mut client = self.databases.shard(shard);
            let count = client.value(&format!("SELECT count(*) FROM {table}"));
            count.parse().expect("a number")
        };
        (0..SHARDS).map(count).collect()
    }
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort();
    rows
}

#[test]
fn a_checkout_by_order_goes_to_one_shard() {
    let shop = Shop::start("ids: {column: order_id}, lookup: [order_id]");
    let mut client = shop.connect();
    for customer in [7, 20_000, 20_001, 33_333, 5, 19_999] {
        let insert = "INSERT INTO wc_orders (customer_id, total, status) VALUES ($1, $2, 'pending') RETURNING order_id";
        client.run("BEGIN");
        let answer = client.query_with(insert, &[Some(&customer.to_string()), Some("9.5")]);
        let order = answer.expect("inserted").rows[0][0].clone().expect("an id");
        let item = "INSERT INTO wc_order_items (order_id, product_id, quantity, price) VALUES ($1, $2, $3, $4)";
        for product in ["11", "12"] {
            let values = [Some(order.as_str()), Some(product), Some("2"), Some("3.5")];
            client.query_with(item, &values).expect("inserted");
        }
        let update = "UPDATE wc_orders SET status = 'processing' WHERE order_id = $1";
        let answer = client.query_with(update, &[Some(&order)]).expect("updated");
        assert_eq!(answer.tags, ["UPDATE 1"]);
        client.run("COMMIT");
        let select = "SELECT customer_id, status FROM wc_orders WHERE order_id = $1";
        let answer = client.query_with(select, &[Some(&order)]).expect("read");
        let row: Vec<_> = answer.rows[0].iter().flatten().cloned().collect();
        assert_eq!(row, [customer.to_string(), "processing".to_owned()]);
        let route = client.value("SHOW pgherd.route");
        assert!(route.starts_with("single"), "{route}");
        let binary = order
            .parse::<i64>()
            .expect("a number")
            .to_be_bytes()
            .to_vec();
        let answer = client.query_values(select, &[20], &[1], &[Some(binary)]);
        assert_eq!(answer.expect("read").rows.len(), 1);
        let joined = format!(
            "SELECT o.customer_id, i.product_id FROM wc_orders o JOIN wc_order_items i ON i.order_id = o.order_id JOIN wc_customers c ON c.customer_id = o.customer_id WHERE o.order_id = {order}"
        );
        assert!(client.rows(&joined).is_empty());
        client.run(&format!(
            "INSERT INTO wc_customers VALUES ({customer}, 'c')"
        ));
        assert_eq!(client.rows(&joined).len(), 2);
        let explained = client.value(&format!("EXPLAIN (ROUTE) {joined}"));
        assert!(explained.starts_with("single on shard_"), "{explained}");
    }
    let (orders, items) = (shop.counts("wc_orders"), shop.counts("wc_order_items"));
    assert_eq!(orders.iter().sum::<usize>(), 6);
    assert!(
        orders.iter().filter(|count| **count > 0).count() > 1,
        "{orders:?}"
    );
    let doubled: Vec<usize> = orders.iter().map(|count| count * 2).collect();
    assert_eq!(items, doubled);
    // All orders with their items: rows that are joined are on one shard.
    let all =
        "SELECT o.order_id, i.product_id FROM wc_orders o JOIN wc_order_items i USING (order_id)";
    assert_eq!(client.rows(all).len(), 12);
    assert!(
        client
            .rows("SELECT * FROM wc_orders WHERE order_id = 123456")
            .is_empty()
    );
    assert_eq!(
        client
            .run("UPDATE wc_orders SET total = 1 WHERE order_id = 123456")
            .tags,
        ["UPDATE 0"]
    );
    let orphan =
        client.fails("INSERT INTO wc_order_items (order_id, product_id) VALUES (123456, 1)");
    assert_eq!(orphan.code, "22023");
    assert!(orphan.hint.contains("wc_orders"), "{orphan:?}");
}

#[test]
fn what_is_not_known_is_refused() {
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    client.run("INSERT INTO wc_orders (order_id, customer_id, number) VALUES (1, 7, 'a'), (2, 20000, 'b'), (3, 30000, NULL)");
    for sql in [
        "INSERT INTO wc_orders (order_id, customer_id) VALUES (4, 7)",
        "INSERT INTO wc_orders (order_id, customer_id, number) VALUES (4, 7, DEFAULT)",
        "INSERT INTO wc_orders (order_id, customer_id, number) VALUES (4, 7, 'a' || 'b')",
        "INSERT INTO wc_orders (order_id, customer_id, number) SELECT 4, 7, 'x'",
        "INSERT INTO wc_orders (order_id, customer_id, number) VALUES (1, 7, 'a') ON CONFLICT (order_id) DO UPDATE SET number = 'z'",
        "UPDATE wc_orders SET number = upper(number) WHERE customer_id = 7",
        "UPDATE wc_orders SET (number, total) = (SELECT 'a', 1) WHERE customer_id = 7",
        "MERGE INTO wc_orders o USING (VALUES (7)) v (c) ON o.customer_id = v.c WHEN MATCHED THEN UPDATE SET number = 'x'",
        "/* pgherd: shard=shard_0 */ UPDATE wc_orders SET number = upper(number) WHERE customer_id = 7",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(!error.hint.is_empty(), "{sql}");
    }
    // What EXECUTE inserts is entered.
    client.run(
        "PREPARE p AS INSERT INTO wc_orders (order_id, customer_id, number) VALUES ($1, $2, $3)",
    );
    client.run("EXECUTE p (5, 30000, 'executed')");
    client.run("EXECUTE p (6, 7, 'beside'); SELECT 1");
    for (number, order) in [("executed", "5"), ("beside", "6")] {
        let select = format!("SELECT order_id FROM wc_orders WHERE number = '{number}'");
        assert_eq!(client.value(&select), order);
    }
    client.send(&message::query(
        "EXPLAIN (ROUTE) SELECT * FROM wc_orders WHERE order_id = 2",
    ));
    let messages = client.until_ready().expect("an answer");
    let described = messages.iter().filter(|message| message.tag == b'T');
    assert_eq!(described.count(), 1, "{messages:?}");
    // One order's value on one shard.
    let taken = client
        .fails("INSERT INTO wc_orders (order_id, customer_id, number) VALUES (1, 20000, 'q')");
    assert_eq!(taken.code, "22023", "{taken:?}");
    // The other column may have a value on several.
    client.run("INSERT INTO wc_orders (order_id, customer_id, number) VALUES (9, 20000, 'a')");
    assert_eq!(
        client
            .rows("SELECT order_id FROM wc_orders WHERE number = 'a'")
            .len(),
        2
    );
    assert_eq!(
        client
            .run("UPDATE wc_orders SET total = 3 WHERE number = 'a'")
            .tags,
        ["UPDATE 2"]
    );
    client.run("UPDATE wc_orders SET number = 'new' WHERE customer_id = 7 AND order_id = 1");
    assert_eq!(
        client.value("SELECT order_id FROM wc_orders WHERE number = 'new'"),
        "1"
    );
    client.run("UPDATE wc_orders SET number = 'newer' WHERE order_id = 1");
    assert_eq!(
        client.value("SELECT order_id FROM wc_orders WHERE number = ANY ('{newer,other}')"),
        "1"
    );
    assert_eq!(
        client
            .rows("SELECT order_id FROM wc_orders WHERE order_id IN (1, 2, 3, 4)")
            .len(),
        3
    );
    let answer = client.query_with(
        "SELECT order_id FROM wc_orders WHERE order_id = ANY ($1)",
        &[Some("{1,3}")],
    );
    assert_eq!(answer.expect("read").rows.len(), 2);
    let same = "SELECT order_id FROM wc_orders WHERE number IS NOT DISTINCT FROM $1";
    let answer = client.query_with(same, &[None]).expect("read");
    assert_eq!(answer.rows, [[Some("3".to_owned())]]);
    assert_eq!(
        client.run("DELETE FROM wc_orders WHERE order_id = 3").tags,
        ["DELETE 1"]
    );
}

#[test]
fn rows_that_were_there_are_entered() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(SHOP);
    let before = {
        let mut plain = Options::new("transaction");
        plain.distribution("customers", "{key: bigint, place: {range: [{to: 100, shard: shard_0}, {to: 20001, jump: [shard_1, shard_2]}, {jump: [shard_2, shard_1]}]}}")
            .on("wc_orders", "customers", "customer_id");
        plain
    };
    {
        let herd = Herd::start(&databases, &before);
        let mut client = herd.connect();
        let rows: Vec<String> = (1..=500)
            .map(|at| format!("({at}, {}, 'n{}')", at * 77, at % 50))
            .collect();
        client.run(&format!(
            "INSERT INTO wc_orders (order_id, customer_id, number) VALUES {}",
            rows.join(", ")
        ));
    }
    let one = Herd::start(&databases, &options(BOTH));
    let other = Herd::start(&databases, &options(BOTH));
    // A transaction that is older than the tables may still write.
    let mut late = databases.shard(0);
    late.run("BEGIN");
    late.run("INSERT INTO wc_orders (order_id, customer_id, number) VALUES (501, 1, 'late')");
    let reads = [one.connect(), other.connect()].map(|mut client| {
        std::thread::spawn(move || {
            client.value("SELECT customer_id FROM wc_orders WHERE order_id = 499")
        })
    });
    sleep(Duration::from_millis(500));
    late.run("COMMIT");
    for read in reads {
        assert_eq!(read.join().expect("read"), (499 * 77).to_string());
    }
    let mut client = other.connect();
    assert_eq!(
        client.value("SELECT order_id FROM wc_orders WHERE number = 'late'"),
        "501"
    );
    assert_eq!(
        client
            .rows("SELECT order_id FROM wc_orders WHERE number = 'n7'")
            .len(),
        10
    );
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(["setup", "-c"])
        .arg(one.config())
        .output()
        .expect("pgherd runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.matches("lookup table").count(), 2, "{text}");
    assert!(text.contains("is there already"), "{text}");
}

#[test]
fn rows_are_copied_with_their_entries() {
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    let rows: Vec<String> = (1..=3_000)
        .map(|at| format!("{at}\t{}\tn{}\n", at * 11, at % 500))
        .collect();
    let rows = rows.concat();
    let pieces: Vec<Vec<u8>> = rows.as_bytes().chunks(1_000).map(<[u8]>::to_vec).collect();
    let sql = "COPY wc_orders (order_id, customer_id, number) FROM STDIN";
    assert_eq!(
        client.copy_in(sql, &pieces).expect("copied").tags,
        ["COPY 3000"]
    );
    let items: Vec<String> = (1..=3_000)
        .map(|at| format!("{at},{},1\n", at % 9))
        .collect();
    let items = items.concat();
    let pieces: Vec<Vec<u8>> = items.as_bytes().chunks(1_000).map(<[u8]>::to_vec).collect();
    let sql = "COPY wc_order_items (order_id, product_id, quantity) FROM STDIN WITH (FORMAT csv)";
    assert_eq!(
        client.copy_in(sql, &pieces).expect("copied").tags,
        ["COPY 3000"]
    );
    assert_eq!(shop.counts("wc_orders"), shop.counts("wc_order_items"));
    for order in [1, 17, 2_999] {
        let sql = format!("SELECT customer_id FROM wc_orders WHERE order_id = {order}");
        assert_eq!(client.value(&sql), (order * 11).to_string());
    }
    assert_eq!(
        client
            .rows("SELECT order_id FROM wc_orders WHERE number = 'n3'")
            .len(),
        6
    );
    let sql = "COPY wc_order_items (order_id, product_id) FROM STDIN";
    let error = client
        .copy_in(sql, &[b"1\t1\n9999\t1\n".to_vec()])
        .expect_err("refused");
    assert_eq!(error.code, "22023");
    let sql = "COPY wc_orders (order_id, customer_id) FROM STDIN";
    assert_eq!(
        client
            .copy_in(sql, &[b"1\t1\n".to_vec()])
            .expect_err("refused")
            .code,
        "0A000"
    );
}

#[test]
fn statements_in_a_pipeline_find_what_came_before() {
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    let text = |value: &str| Some(value.as_bytes().to_vec());
    for order in 1..=20 {
        let (order, customer) = (order.to_string(), (order * 3_001).to_string());
        let insert = "INSERT INTO wc_orders (order_id, customer_id, number) VALUES ($1, $2, $3)";
        let item = "INSERT INTO wc_order_items (order_id, product_id) VALUES ($1, 7)";
        let select = "SELECT customer_id FROM wc_orders WHERE order_id = $1";
        let one = [text(&order)];
        let messages = [
            message::parse("", insert, &[]),
            message::bind(
                "",
                "",
                &[],
                &[text(&order), text(&customer), text("x")],
                &[],
            ),
            message::execute("", 0),
            message::parse("", item, &[]),
            message::bind("", "", &[], &one, &[]),
            message::execute("", 0),
            message::parse("", select, &[]),
            message::bind("", "", &[], &one, &[]),
            message::execute("", 0),
            message::sync(),
            message::parse("", select, &[]),
            message::bind("", "", &[], &one, &[]),
            message::execute("", 0),
            message::sync(),
        ];
        client.send(&messages.concat());
        let answer = client.answer().expect("done");
        assert_eq!(answer.tags, ["INSERT 0 1", "INSERT 0 1", "SELECT 1"]);
        assert_eq!(answer.rows[0][0].as_deref(), Some(customer.as_str()));
        assert_eq!(client.answer().expect("done").rows.len(), 1);
    }
    assert_eq!(shop.counts("wc_orders"), shop.counts("wc_order_items"));
}

#[test]
fn two_proxies_answer_as_one_server_does() {
    let shop = Shop::start(BOTH);
    let second = Herd::start(&shop.databases, &options(BOTH));
    let mut clients = [shop.connect(), second.connect()];
    let mut one = shop.databases.reference();
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let mut next = 0;
    let rounds = if std::env::var("SLOW_TESTS").is_ok() {
        5_000
    } else {
        400
    };
    let mut answered = 0;
    for _ in 0..rounds {
        let client = random.below(2);
        let client = &mut clients[client];
        let block = random.chance(40);
        let mut texts = Vec::new();
        for _ in 0..=random.below(3) {
            let order = 1 + random.below(next + 2);
            let number = random.below(30);
            let customer = random.below(40_000);
            let text = match random.below(9) {
                0 | 1 => {
                    next += 1;
                    format!(
                        "INSERT INTO wc_orders (order_id, customer_id, number) VALUES ({next}, {customer}, 'n{number}')"
                    )
                }
                2 => {
                    next += 2;
                    format!(
                        "INSERT INTO wc_orders (order_id, customer_id, number) VALUES ({}, {customer}, 'n{number}'), ({next}, {}, NULL)",
                        next - 1,
                        customer / 3
                    )
                }
                3 => format!("UPDATE wc_orders SET number = 'n{number}' WHERE order_id = {order}"),
                4 => format!("UPDATE wc_orders SET total = {number} WHERE number = 'n{number}'"),
                5 => format!("DELETE FROM wc_orders WHERE order_id = {order}"),
                6 => format!("SELECT * FROM wc_orders WHERE number IN ('n{number}', 'n3')"),
                7 => format!(
                    "SELECT o.order_id, p.order_id FROM wc_orders o JOIN wc_orders p ON o.order_id = p.order_id WHERE o.order_id = ANY ('{{{order},{number}}}')"
                ),
                _ => format!(
                    "SELECT customer_id, number, total FROM wc_orders WHERE order_id = {order}"
                ),
            };
            texts.push(text);
        }
        let rolls_back = random.chance(40);
        if block {
            client.run("BEGIN");
            one.run("BEGIN");
        }
        for text in texts {
            match client.query(&text) {
                Ok(answer) => {
                    let expected = one.run(&text);
                    assert_eq!(sorted(answer.rows), sorted(expected.rows), "{text}");
                    assert_eq!(answer.tags, expected.tags, "{text}");
                    answered += 1;
                }
                Err(error) => {
                    assert_eq!(error.code, "0A000", "{text}: {error:?}");
                    if block {
                        break;
                    }
                }
            }
        }
        if block {
            let end = if rolls_back || client.status == 'E' {
                "ROLLBACK"
            } else {
                "COMMIT"
            };
            client.run(end);
            one.run(end);
        }
    }
    assert!(answered > rounds, "{answered}");
    let all = "SELECT order_id, customer_id, number, total FROM wc_orders";
    assert_eq!(sorted(clients[0].rows(all)), sorted(one.rows(all)));
}

#[test]
fn transactions_of_other_databases_keep_no_lookup_table_from_being_filled() {
    let others: Vec<Client> = crate::shared::ports()
        .iter()
        .map(|port| {
            let mut other = Client::connect(*port, "postgres", "postgres");
            other.run("BEGIN");
            other.run("SELECT pg_current_xact_id()");
            other
        })
        .collect();
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    client.run("INSERT INTO wc_orders (order_id, customer_id, number) VALUES (1, 7, 'a')");
    let select = "SELECT customer_id FROM wc_orders WHERE order_id = 1";
    assert_eq!(client.value(select), "7");
    drop(others);
}

#[test]
fn a_home_shard_that_cannot_be_asked_is_told_of() {
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    let insert = "INSERT INTO wc_orders (order_id, customer_id, number) VALUES";
    client.run(&format!("{insert} (1, 7, 'a')"));
    let select = "SELECT customer_id FROM wc_orders WHERE order_id = 1";
    assert_eq!(client.value(select), "7");
    let mut home = shop.databases.shard(0);
    let table = "pgherd.\"lookup_wc_orders.order_id\"";
    home.run(&format!("REVOKE ALL ON {table} FROM app"));
    for sql in [select, &format!("{insert} (2, 30000, 'b')")] {
        client.run("BEGIN");
        let error = client.fails(sql);
        assert_eq!(error.code, "08006", "{error:?}");
        assert!(error.detail.contains("permission denied") && !error.hint.is_empty());
        assert_eq!(client.fails("SELECT 1").code, "25P02");
        client.run("ROLLBACK");
    }
    // A known key needs nobody.
    assert_eq!(
        client
            .rows("SELECT * FROM wc_orders WHERE customer_id = 7")
            .len(),
        1
    );
    home.run(&format!("GRANT ALL ON {table} TO app"));
    assert_eq!(client.value(select), "7");
    // One that is dropped is made anew.
    home.run(&format!("DROP TABLE {table}"));
    assert_eq!(client.fails(select).code, "08006");
    assert_eq!(client.value(select), "7");
    // By another proxy as well, which has not filled it yet.
    home.run(&format!(
        "DELETE FROM {table}; COMMENT ON TABLE {table} IS NULL"
    ));
    assert_eq!(client.value(select), "7");
    assert_eq!(shop.counts("wc_orders").iter().sum::<usize>(), 1);
}

#[test]
fn keys_of_several_columns_are_looked_up() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(
        "CREATE TABLE stock (store text, product int, tag uuid, note varchar(5), PRIMARY KEY (store, product))",
    );
    let mut options = Options::new("session");
    options
        .distribution("stores", "{key: [text, int], place: {jump: all}}")
        .table(
            "stock",
            "{distribution: stores, key: [store, product], lookup: [tag, note]}",
        );
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    let uuid = |at: usize| format!("00000000-0000-0000-0000-0000000000{at:02x}");
    for at in 0..40 {
        let (store, product) = (format!("it's {}", at % 7), at.to_string());
        let insert = "INSERT INTO stock (store, product, tag, note) VALUES ($1, $2, $3, $4)";
        let (tag, note) = (uuid(at), format!("n{}", at % 4));
        let values = [&store, &product, &tag, &note].map(|value| Some(value.as_str()));
        client.query_with(insert, &values).expect("inserted");
    }
    for at in 0..40 {
        let sql = format!("SELECT product FROM stock WHERE tag = '{}'", uuid(at));
        assert_eq!(client.value(&sql), at.to_string());
        let route = client.value("SHOW pgherd.route");
        assert!(route.starts_with("single"), "{route}");
    }
    assert_eq!(
        client.rows("SELECT * FROM stock WHERE note = 'n3'").len(),
        10
    );
    let both = "SELECT product FROM stock WHERE note = 'n3' AND tag = $1";
    let answer = client.query_with(both, &[Some(&uuid(7))]);
    assert_eq!(answer.expect("read").rows.len(), 1);
    let known = "SELECT tag FROM stock WHERE store = 'it''s 3' AND product = 3 AND note = 'n3'";
    assert_eq!(client.value(known), uuid(3));
    let long =
        client.fails("UPDATE stock SET note = 'longer' WHERE store = 'it''s 3' AND product = 3");
    assert_eq!(long.code, "22001");
    client.run("UPDATE stock SET note = 'new' WHERE store = 'it''s 3' AND product = 3");
    assert_eq!(
        client.value("SELECT product FROM stock WHERE note = 'new'"),
        "3"
    );
    let update = format!("UPDATE stock SET note = 'newer' WHERE tag = '{}'", uuid(4));
    assert_eq!(client.run(&update).tags, ["UPDATE 1"]);
    assert_eq!(
        client.value("SELECT product FROM stock WHERE note = 'newer'"),
        "4"
    );
}

#[test]
fn check_tells_what_cannot_be_looked_up() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(
        "CREATE TABLE wc_customers (customer_id bigint PRIMARY KEY, name text);
         CREATE TABLE wc_orders (order_id bigint PRIMARY KEY, customer_id bigint, number numeric);
         CREATE TABLE wc_order_items (order_id bigint REFERENCES wc_orders, product_id bigint);
         CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.number := 1; RETURN NEW; END';
         CREATE TRIGGER renumbers BEFORE INSERT ON wc_orders FOR EACH ROW EXECUTE FUNCTION renumber()",
    );
    let herd = Herd::start(&databases, &options(BOTH));
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(["check", "-c"])
        .arg(herd.config())
        .output()
        .expect("pgherd runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        text.contains(
            "lookup column \"number\" of table \"public.wc_orders\": its type is numeric"
        ),
        "{text}"
    );
    assert!(text.contains("trigger \"renumbers\""), "{text}");
    // An order's value is on one shard: it is unique, and items refer to it where they are.
    assert!(
        !text.contains("wc_orders_pkey") && !text.contains("foreign key"),
        "{text}"
    );
}

#[test]
fn actions_of_foreign_keys_leave_columns_with_lookup_tables() {
    let shop = Shop::start(BOTH);
    let mut client = shop.connect();
    client.run("CREATE TABLE wc_numbers (customer_id bigint, number text, PRIMARY KEY (customer_id, number))");
    let key = "ALTER TABLE wc_orders ADD FOREIGN KEY (customer_id, number) REFERENCES wc_numbers (customer_id, number)";
    for action in [
        "ON UPDATE CASCADE",
        "ON DELETE SET DEFAULT (number)",
        "ON UPDATE SET DEFAULT",
    ] {
        let error = client.fails(&format!("{key} {action}"));
        assert_eq!(error.code, "0A000", "{action}: {error:?}");
    }
    client.run(&format!("{key} ON DELETE SET NULL (number)"));
    client.run("INSERT INTO wc_numbers VALUES (7, 'a')");
    client.run("INSERT INTO wc_orders VALUES (1, 7, 'new', 1, 'a')");
    client.run("DELETE FROM wc_numbers WHERE customer_id = 7");
    assert!(
        client
            .rows("SELECT 1 FROM wc_orders WHERE number = 'a'")
            .is_empty()
    );
    assert_eq!(
        client
            .rows("SELECT 1 FROM wc_orders WHERE order_id = 1")
            .len(),
        1
    );
}

#[test]
fn generated_columns_are_not_looked_up() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(
        "CREATE TABLE made (k bigint, base text, g text GENERATED ALWAYS AS (base || '!') STORED)",
    );
    for shard in 0..SHARDS {
        let insert = format!("INSERT INTO made VALUES ({shard}, 'a')");
        databases.shard(shard).run(&insert);
    }
    let mut options = Options::new("transaction");
    options
        .distribution("made", "{key: bigint, place: {modulo: all}}")
        .table("made", "{distribution: made, key: k, lookup: [g]}");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    let count = |client: &mut Client, value: &str| {
        let rows = client.rows(&format!("SELECT k FROM made WHERE g = '{value}'"));
        rows.len()
    };
    assert_eq!(count(&mut client, "a!"), SHARDS);
    client.run("UPDATE made SET base = 'b' WHERE k = 1");
    assert_eq!(count(&mut client, "b!"), 1);
}
