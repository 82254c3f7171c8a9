//! A shop of eight tables for reads that cross shards: customers, their orders and items by customer;
//! products and reviews by product; categories on each shard, settings on one.
//!
//! Its rows are the same in every run. They have what makes answers differ where a proxy is careless: a
//! shard without rows and one with most, NULLs, ties, equal rows, names of several scripts, large and
//! negative numbers of several scales, -0, NaN and infinities.

mod compare;
mod rows;

pub(crate) use compare::difference;

use crate::client::Client;
use crate::generated::{Reply, Step, run, show, show_reply};
use crate::herd::{Herd, Options};
use crate::random::Random;
use crate::shared::Databases;
use rows::{Rows, copy_text};

const SCHEMA: &str = "
CREATE TABLE customers (c_id int PRIMARY KEY, region text, name text, tier int, balance numeric, created date);
CREATE TABLE orders (o_id bigint, c_id int, status text, total numeric(12,2), placed timestamptz, PRIMARY KEY (c_id, o_id));
CREATE TABLE items (o_id bigint, c_id int, p_id int, qty int, price numeric);
CREATE TABLE products (p_id int PRIMARY KEY, cat_id int, name text, price numeric);
CREATE TABLE reviews (r_id int, p_id int, c_id int, stars float8, PRIMARY KEY (p_id, r_id));
CREATE TABLE cats (cat_id int PRIMARY KEY, name text, parent int);
CREATE TABLE settings (k text, v text);
CREATE TABLE archive (o_id bigint, c_id int, status text, total numeric(12,2), placed timestamptz, PRIMARY KEY (c_id, o_id));
CREATE VIEW large_orders AS SELECT * FROM orders WHERE total > 300;
CREATE VIEW spent AS SELECT c.c_id, c.region, o.o_id, o.total FROM customers c LEFT JOIN orders o USING (c_id);
CREATE VIEW sold AS SELECT p_id, sum(qty) AS qty, count(*) AS times FROM items GROUP BY p_id;
";

/// Where customers and products lie: some shard has none of either, another has most.
fn places(shards: usize) -> [&'static str; 2] {
    match shards {
        1 => ["{jump: all}", "{jump: all}"],
        2 => [
            "{range: [{to: 45, shard: shard_1}, {shard: shard_0}]}",
            "{list: {-1: shard_0, else: shard_1}}",
        ],
        3 => [
            "{range: [{to: -1000, shard: shard_0}, {to: 45, shard: shard_2}, {shard: shard_1}]}",
            "{modulo: [shard_0, shard_1, shard_2]}",
        ],
        4 => [
            "{list: {1: shard_1, 2: shard_2, 3: shard_1, 42: shard_2, 99: shard_1, else: shard_0}}",
            "{jump: [shard_3, shard_1, shard_2]}",
        ],
        _ => [
            "{jump: [shard_0, shard_1, shard_2, shard_3, shard_5, shard_6]}, pins: {\"7\": shard_6}",
            "{range: [{to: 5, shard: shard_6}, {to: 25, jump: [shard_2, shard_4]}, {shard: shard_6}]}",
        ],
    }
}

fn options(shards: usize) -> Options {
    let mut options = Options::new("transaction");
    let [customers, products] = places(shards);
    options
        .sharded("customers", "c_id", "int", customers)
        .on("orders", "customers", "c_id")
        .on("items", "customers", "c_id")
        .on("archive", "customers", "c_id")
        .sharded("products", "p_id", "int", products)
        .on("reviews", "products", "p_id")
        .table("cats", "reference")
        .table("settings", "single");
    options
}

/// What came of one statement.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answered,
    /// With an error, as PostgreSQL; its SQLSTATE.
    Failed(String),
    /// What one PostgreSQL answers depends on where it keeps the rows.
    Loose,
    Refused(Reply),
    Wrong(String),
}

/// The proxy, one PostgreSQL, and another with the rows in another order.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) reference: Client,
    shuffled: Client,
    herd: Herd,
    // Dropped last.
    _databases: [Databases; 2],
}

impl Stage {
    pub(crate) fn open(shards: usize) -> Stage {
        let databases = [Databases::create(shards), Databases::create(0)];
        for each in &databases {
            each.run_everywhere(SCHEMA);
        }
        let mut options = options(shards);
        if shards % 2 == 1 {
            options.narrowing_twins(2);
        } else {
            options.twins(2);
        }
        let herd = Herd::start(&databases[0], &options);
        let mut stage = Stage {
            client: herd.connect(),
            reference: databases[0].reference(),
            shuffled: databases[1].reference(),
            herd,
            _databases: databases,
        };
        stage.load();
        stage
    }

    fn load(&mut self) {
        let mut random = Random::new(1);
        for (table, rows) in rows::all() {
            let copy = |client: &mut Client, rows: &Rows| {
                let data = copy_text(rows);
                let done = client.copy_in(&format!("COPY {table} FROM STDIN"), &[data]);
                done.unwrap_or_else(|error| panic!("{table}: {error:?}"));
            };
            copy(&mut self.client, &rows);
            copy(&mut self.reference, &rows);
            let mut rows = rows;
            for at in 0..rows.len() {
                let other = random.below(rows.len());
                rows.swap(at, other);
            }
            copy(&mut self.shuffled, &rows);
        }
        // Whoever guesses less plans otherwise.
        self.shuffled.run("ANALYZE");
    }

    /// A fresh connection in place of the old; no block is open anywhere.
    pub(crate) fn reconnect(&mut self) {
        self.client = self.connect();
        for client in [&mut self.reference, &mut self.shuffled] {
            client.run("ROLLBACK");
        }
    }

    /// A further client of the proxy.
    pub(crate) fn connect(&self) -> Client {
        self.herd.connect()
    }

    /// Sends it everywhere; every server has run it then.
    pub(crate) fn play(&mut self, step: &Step) -> Outcome {
        let wanted = run(&mut self.reference, step);
        let other = run(&mut self.shuffled, step);
        if difference(&other, &wanted, step.ordered).is_some() || late(&wanted) {
            return Outcome::Loose;
        }
        let found = run(&mut self.client, step);
        if found.refusal().is_some() {
            return Outcome::Refused(found);
        }
        if let Some(what) = difference(&found, &wanted, step.ordered) {
            return Outcome::Wrong(told(&what, step, &found, &wanted));
        }
        match found.failure {
            Some(failure) => Outcome::Failed(failure.code),
            None => Outcome::Answered,
        }
    }

    /// Runs what must succeed on all.
    pub(crate) fn everywhere(&mut self, sql: &str) {
        for client in [&mut self.client, &mut self.reference, &mut self.shuffled] {
            client.run(sql);
        }
    }

    /// Ends what plain servers take long for.
    pub(crate) fn limit_time(&mut self) {
        for client in [&mut self.reference, &mut self.shuffled] {
            client.run("SET statement_timeout = '1s'");
        }
    }
}

fn late(reply: &Reply) -> bool {
    reply.failure.as_ref().is_some_and(|it| it.code == "57014")
}

fn told(what: &str, step: &Step, found: &Reply, wanted: &Reply) -> String {
    format!(
        "{what}\n{}\nthrough pgherd: {}\nby PostgreSQL:  {}",
        show(step),
        show_reply(found),
        show_reply(wanted)
    )
}
