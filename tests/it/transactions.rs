//! Transactions over several shards: what a block sees and does on each of them, how it is committed, and what is
//! refused.

use crate::client::{Client, ServerError};
use crate::fixture::Fixture;
use crate::message::{bind, execute, parse, sync};

/// Nothing is prepared or decided any more on any shard.
fn is_settled(fixture: &Fixture) -> bool {
    (0..crate::shared::SHARDS).all(|shard| {
        let mut client = fixture.databases.shard(shard);
        let prepared = client
            .value("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()");
        let table = client.value("SELECT to_regclass('pgherd.decision') IS NOT NULL");
        let decided = if table == "t" {
            client.value("SELECT count(*) FROM pgherd.decision")
        } else {
            "0".to_owned()
        };
        prepared == "0" && decided == "0"
    })
}

fn settles(fixture: &Fixture) {
    let deadline = std::time::Instant::now() + crate::postgres::PATIENCE;
    while !is_settled(fixture) {
        assert!(
            std::time::Instant::now() < deadline,
            "something is left prepared or decided"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Runs the same on one PostgreSQL and compares answers and states.
struct Both {
    herd: Client,
    one: Client,
}

impl Both {
    fn new(fixture: &Fixture) -> Both {
        Both {
            herd: fixture.connect(),
            one: fixture.databases.reference(),
        }
    }

    fn run(&mut self, sql: &str) {
        let brief = |error: ServerError| (error.code, error.message);
        let found = self.herd.query(sql).map_err(brief);
        let wanted = self.one.query(sql).map_err(brief);
        assert_eq!(found, wanted, "{sql}");
        assert_eq!(self.herd.status, self.one.status, "{sql}");
    }
}

#[test]
fn a_block_over_all_shards_is_committed_and_leaves_nothing() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("BEGIN");
    for key in 0..8 {
        both.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')"));
    }
    both.run("COMMIT");
    fixture.check_table(&crate::fixture::tables()[4]);
    settles(&fixture);
}

#[test]
fn statements_over_all_shards_run_within_a_block() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("BEGIN");
    both.run("INSERT INTO by_modulo SELECT 1, g, 'x' FROM generate_series(1, 3) g");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'a'), (1, 10, 'b'), (2, 1, 'c'), (3, 1, 'd')");
    both.run("SELECT k, n FROM by_modulo ORDER BY k, n");
    both.run("INSERT INTO everywhere VALUES (1, 'one'), (2, 'two')");
    both.run("SELECT v FROM everywhere ORDER BY id");
    both.run("UPDATE everywhere SET v = 'eins' WHERE id = 1 RETURNING v");
    both.run("SAVEPOINT a");
    both.run("DELETE FROM everywhere");
    both.run("INSERT INTO by_modulo VALUES (4, 1, 'e'), (5, 1, 'f')");
    both.run("ROLLBACK TO a");
    both.run("SELECT v FROM everywhere ORDER BY id");
    both.run("SELECT count(*) FROM by_modulo");
    both.run("TRUNCATE by_modulo");
    both.run("SELECT count(*) FROM by_modulo");
    both.run("INSERT INTO by_modulo VALUES (6, 1, 'g'), (7, 1, 'h')");
    both.run("COMMIT");
    both.run("SELECT k, n FROM by_modulo ORDER BY k, n");
    for shard in 0..crate::shared::SHARDS {
        let mut client = fixture.databases.shard(shard);
        assert_eq!(client.value("SELECT count(*) FROM everywhere"), "2");
    }
    settles(&fixture);
}

#[test]
fn an_error_on_one_shard_undoes_all_of_a_block() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("INSERT INTO by_modulo VALUES (2, 1, 'there')");
    both.run("BEGIN");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    both.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    both.run("INSERT INTO by_modulo VALUES (2, 1, 'x')");
    both.run("SELECT 1 FROM by_modulo WHERE k = 3");
    both.run("SELECT count(*) FROM by_modulo");
    both.run("COMMIT");
    both.run("SELECT k FROM by_modulo ORDER BY k");
    // The same of one statement over several shards.
    both.run("BEGIN");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    both.run("INSERT INTO by_modulo VALUES (4, 1, 'x'), (2, 1, 'y'), (1, 1, 'x')");
    both.run("SELECT 1 FROM by_modulo WHERE k = 0");
    both.run("ROLLBACK");
    both.run("INSERT INTO by_modulo VALUES (4, 1, 'x'), (2, 1, 'y'), (1, 1, 'x')");
    both.run("SELECT k FROM by_modulo ORDER BY k");
    settles(&fixture);
}

#[test]
fn a_client_that_leaves_a_block_over_several_shards_leaves_nothing() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN");
    for key in 0..4 {
        client.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')"));
    }
    client.hang_up();
    let mut other = fixture.connect();
    // They wait for the locks of those that are still to be rolled back.
    for key in 0..4 {
        other.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'y')"));
    }
    settles(&fixture);
}

#[test]
fn a_block_that_wrote_on_one_shard_prepares_nothing() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SELECT v FROM by_modulo WHERE k = 0");
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    client.run("SELECT v FROM by_modulo WHERE k = 2");
    client.run("COMMIT");
    for shard in 0..crate::shared::SHARDS {
        let made = fixture
            .databases
            .shard(shard)
            .value("SELECT to_regclass('pgherd.decision') IS NOT NULL");
        assert_eq!(made, "f", "a decision was prepared for");
    }
    assert_eq!(fixture.count_of(1), "1");
}

#[test]
fn a_second_write_is_refused_where_the_configuration_says_so() {
    let mut options = Fixture::options("transaction");
    options.set("cross_shard_writes: reject");
    let fixture = Fixture::with(&mut options);
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    client.run("SELECT v FROM by_modulo WHERE k = 1");
    let refused = client.fails("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    assert_eq!(refused.code, "0A000");
    assert!(refused.hint.contains("cross_shard_writes"), "{refused:?}");
    assert_eq!(client.status, 'T', "the block goes on");
    let extended = client.query_with("INSERT INTO by_modulo VALUES (2, 1, 'x')", &[]);
    assert_eq!(extended.expect_err("the same").code, "0A000");
    assert_eq!(client.status, 'T', "the block goes on");
    client.run("INSERT INTO by_modulo VALUES (4, 1, 'x')");
    assert_eq!(client.run("COMMIT").tags, ["COMMIT"]);
    assert_eq!(
        (fixture.count_of(0), fixture.count_of(1)),
        ("1".into(), "0".into())
    );
}

#[test]
fn a_group_of_messages_over_several_shards_is_one_transaction() {
    let fixture = Fixture::start();
    let insert = |key: i64| {
        let sql = format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')");
        [
            parse("", &sql, &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
        ]
        .concat()
    };
    let mut client = fixture.connect();
    for fails in [true, false] {
        let last = if fails { insert(0) } else { insert(4) };
        let wide = "INSERT INTO by_modulo VALUES (8, 1, 'x'), (9, 1, 'x')";
        let wide = [
            parse("", wide, &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
        ]
        .concat();
        let group = [insert(0), insert(1), wide, insert(2), last, sync()].concat();
        client.send(&group);
        let answer = client.answer();
        assert_eq!(answer.is_err(), fails, "{answer:?}");
        assert_eq!(client.status, 'I');
        let count = if fails { "0" } else { "6" };
        assert_eq!(client.value("SELECT count(*) FROM by_modulo"), count);
    }
    settles(&fixture);
}
