//! Four shards with a table for each kind of placement and key, behind one proxy.

use std::fmt::Write as _;

use crate::client::{Client, Row};
use crate::herd::{Herd, Options};
use crate::placement::{Rule, check_shard};
use crate::shared::{Databases, SHARDS};

/// A sharded table of the fixture: `key`, `n`, `v`; the primary key is (`key`, `n`).
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The SQL type of its key.
    pub(crate) kind: &'static str,
    place: &'static str,
    pub(crate) rule: Rule,
}

impl Table {
    pub(crate) fn is_text(&self) -> bool {
        self.kind == "text"
    }
}

/// All of them.
pub(crate) fn tables() -> Vec<Table> {
    let all = || Rule::Jump(vec![0, 1, 2, 3]);
    let table = |name, kind, place, rule| Table {
        name,
        kind,
        place,
        rule,
    };
    vec![
        table("by_jump", "bigint", "{jump: all}", all()),
        table("by_jump_int", "int", "{jump: all}", all()),
        table(
            "by_jump_small",
            "smallint",
            "{jump: [shard_2, shard_0]}",
            Rule::Jump(vec![2, 0]),
        ),
        table("by_jump_text", "text", "{jump: all}", all()),
        table("by_modulo", "bigint", "{modulo: all}", Rule::Modulo(4)),
        table(
            "by_modulo_int",
            "int",
            "{modulo: [shard_0, shard_1, shard_2]}",
            Rule::Modulo(3),
        ),
        table(
            "by_range",
            "bigint",
            "{range: [{to: -5, shard: shard_3}, {to: 100, shard: shard_0}, {to: 1000, jump: [shard_1, shard_2]}, {shard: shard_3}]}",
            Rule::Range(
                vec![
                    (-5, Rule::Shard(3)),
                    (100, Rule::Shard(0)),
                    (1000, Rule::Jump(vec![1, 2])),
                ],
                Box::new(Rule::Shard(3)),
            ),
        ),
        table(
            "by_range_text",
            "text",
            "{range: [{to: H, shard: shard_0}, {to: Q, shard: shard_1}, {shard: shard_2}]}",
            Rule::TextRange(
                vec![("H", Rule::Shard(0)), ("Q", Rule::Shard(1))],
                Box::new(Rule::Shard(2)),
            ),
        ),
        table(
            "by_list",
            "text",
            "{list: {de: shard_1, fr: shard_2, else: {jump: [shard_0, shard_3]}}}",
            Rule::List(vec![("de", 1), ("fr", 2)], Box::new(Rule::Jump(vec![0, 3]))),
        ),
        table(
            "by_list_int",
            "int",
            "{list: {1: shard_3, 2: shard_2, else: shard_0}}",
            Rule::List(vec![("1", 3), ("2", 2)], Box::new(Rule::Shard(0))),
        ),
        table(
            "by_pin",
            "bigint",
            "{jump: [shard_0, shard_1]}, pins: {\"7\": shard_3}",
            Rule::List(vec![("7", 3)], Box::new(Rule::Jump(vec![0, 1]))),
        ),
    ]
}

/// The tables that are not sharded by a key of their own.
const OTHERS: &str = "
CREATE TABLE beside (k bigint, n int, w text, PRIMARY KEY (k, n));
CREATE TABLE everywhere (id int PRIMARY KEY, v text);
CREATE TABLE at_home (id int PRIMARY KEY, v text);
CREATE TABLE unlisted (id int PRIMARY KEY, v text);
CREATE SEQUENCE some_sequence;
";

#[derive(Debug)]
pub(crate) struct Fixture {
    pub(crate) herd: Herd,
    pub(crate) databases: Databases,
}

impl Fixture {
    pub(crate) fn start() -> Fixture {
        Fixture::with(&mut Fixture::options("transaction"))
    }

    pub(crate) fn options(pool_mode: &str) -> Options {
        let mut options = Options::new(pool_mode);
        for table in tables() {
            options.sharded(table.name, "k", table.kind, table.place);
        }
        options
            .on("beside", "by_jump", "k")
            .table("everywhere", "reference")
            .table("at_home", "single");
        options
    }

    pub(crate) fn with(options: &mut Options) -> Fixture {
        let databases = Databases::create(SHARDS);
        let mut sql = OTHERS.to_owned();
        for table in tables() {
            writeln!(
                sql,
                "CREATE TABLE {} (k {}, n int, v text, PRIMARY KEY (k, n));",
                table.name, table.kind
            )
            .expect("to a string");
        }
        databases.run_everywhere(&sql);
        Fixture {
            herd: Herd::start(&databases, options),
            databases,
        }
    }

    pub(crate) fn connect(&self) -> Client {
        self.herd.connect()
    }

    /// How many rows of a key `by_modulo` has.
    pub(crate) fn count_of(&self, key: i64) -> String {
        self.connect()
            .value(&format!("SELECT count(*) FROM by_modulo WHERE k = {key}"))
    }

    /// Checks every table as `check_table` does.
    pub(crate) fn check_rows(&self) {
        for table in tables() {
            self.check_table(&table);
        }
    }

    /// Checks every row's shard, and that all shards together hold what the reference holds.
    pub(crate) fn check_table(&self, table: &Table) {
        let sql = format!("SELECT * FROM {}", table.name);
        let mut rows: Vec<Row> = Vec::new();
        for shard in 0..SHARDS {
            let mut client = self.databases.shard(shard);
            check_shard(
                &mut client,
                shard,
                table.name,
                "k",
                table.is_text(),
                &table.rule,
            );
            rows.extend(client.rows(&sql));
        }
        rows.sort();
        let mut wanted = self.databases.reference().rows(&sql);
        wanted.sort();
        assert_eq!(
            rows, wanted,
            "{}: the shards together against one PostgreSQL",
            table.name
        );
    }

    /// Runs one statement through the proxy and on the reference server, and compares the answers,
    /// rows in any order.
    pub(crate) fn same(client: &mut Client, reference: &mut Client, sql: &str) {
        let (mut found, mut wanted) = (client.query(sql), reference.query(sql));
        for answer in [&mut found, &mut wanted].into_iter().flatten() {
            answer.rows.sort();
        }
        let found = found.map_err(|error| (error.code, error.message));
        let wanted = wanted.map_err(|error| (error.code, error.message));
        assert_eq!(found, wanted, "{sql}");
    }
}
