//! Transactions over several shards: what a block sees and does on each of them, how it is committed, and what is
//! refused.

use crate::client::{Client, ServerError};
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message::{bind, execute, parse, sync};

/// Nothing is prepared or decided any more on any shard.
fn is_settled(fixture: &Fixture) -> bool {
    (0..crate::shared::SHARDS).all(|shard| {
        let name = &fixture.databases.name;
        let mut client = Client::connect(fixture.databases.shard_ports[shard], "postgres", name);
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

#[test]
fn writes_without_a_key_are_one_transaction() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("INSERT INTO by_modulo SELECT 1, g, 'x' FROM generate_series(1, 3) g");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'a'), (2, 1, 'c'), (3, 1, 'd'), (4, 7, 'e')");
    both.run("INSERT INTO everywhere VALUES (1, 'x'), (2, 'y')");
    both.run("UPDATE by_modulo SET v = v || '!'");
    both.run("UPDATE by_modulo SET n = n + 10 WHERE n = 1");
    both.run("UPDATE by_modulo m SET v = e.v FROM everywhere e WHERE e.id = m.n - 10");
    both.run("SELECT count(*) FROM by_modulo WHERE v = 'x'");
    both.run("DELETE FROM by_modulo WHERE k IN (0, 1) AND n > 2");
    both.run("UPDATE by_modulo SET v = 'z' WHERE k IN (2, 3, 4) RETURNING 1");
    both.run("UPDATE by_modulo SET n = n / (k - 3)");
    both.run("SELECT k, n FROM by_modulo ORDER BY k, n");
    both.run("BEGIN");
    both.run("DELETE FROM by_modulo");
    both.run("SELECT count(*) FROM by_modulo");
    both.run("ROLLBACK");
    both.run("SELECT count(*) FROM by_modulo");
    let update = fixture
        .connect()
        .query_with(
            "UPDATE by_modulo SET v = $1 WHERE n > $2",
            &[Some("p"), Some("0")],
        )
        .expect("updated");
    assert_eq!(update.tags, ["UPDATE 4"]);
    settles(&fixture);
}

#[test]
fn a_gathered_read_sees_what_its_block_wrote_on_each_shard() {
    let mut options = Fixture::options("transaction");
    options.twins(1);
    let fixture = Fixture::with(&mut options);
    let mut both = Both::new(&fixture);
    for level in ["READ COMMITTED", "REPEATABLE READ"] {
        both.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        both.run("INSERT INTO by_modulo VALUES (0, 1, 'a')");
        both.run("INSERT INTO by_modulo VALUES (1, 1, 'b')");
        both.run("INSERT INTO by_modulo VALUES (2, 1, 'b')");
        let read = "SELECT v, count(*) FROM by_modulo a JOIN (SELECT DISTINCT n FROM by_modulo) b USING (n) GROUP BY v ORDER BY v";
        both.run(read);
        both.run("SAVEPOINT a");
        both.run("UPDATE by_modulo SET v = 'c' WHERE k = 2");
        both.run(read);
        both.run("ROLLBACK TO a");
        both.run(read);
        both.run("INSERT INTO by_modulo VALUES (3, 1, 'd')");
        both.run(read);
        both.run("ROLLBACK");
        both.run(read);
    }
    settles(&fixture);
}

#[test]
fn what_cannot_be_prepared_decides_or_is_refused() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    // Temporary tables and NOTIFY are on the home shard, which then is not prepared.
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    client.run("INSERT INTO by_modulo VALUES (2, 1, 'x')");
    client.run("CREATE TEMP TABLE passing (id int)");
    client.run("INSERT INTO passing VALUES (1)");
    client.run("NOTIFY somebody");
    client.run("COMMIT");
    assert_eq!(fixture.count_of(1), "1");
    // A cursor that outlives its transaction is where its rows are.
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (3, 1, 'x')");
    client.run("DECLARE c CURSOR WITH HOLD FOR SELECT v FROM by_modulo WHERE k = 1");
    let refused =
        client.fails("DECLARE d CURSOR WITH HOLD FOR SELECT v FROM by_modulo WHERE k = 2");
    assert_eq!(refused.code, "0A000");
    assert!(refused.detail.contains("shard_1"), "{refused:?}");
    assert_eq!(client.status, 'T');
    client.run("COMMIT");
    settles(&fixture);
}

#[test]
fn without_prepared_transactions_a_second_write_is_refused_with_the_setting() {
    let clusters: Vec<crate::postgres::Cluster> = (0..2)
        .map(|_| crate::postgres::Cluster::start("max_prepared_transactions = 0"))
        .collect();
    for cluster in &clusters {
        cluster
            .connect("postgres")
            .run("CREATE DATABASE plain OWNER app");
        Client::connect(cluster.port, "app", "plain").run("CREATE TABLE t (k bigint PRIMARY KEY)");
    }
    let mut options = Options::new("transaction");
    options.sharded("t", "k", "bigint", "{modulo: all}");
    let ports: Vec<u16> = clusters.iter().map(|cluster| cluster.port).collect();
    let herd = Herd::start_over("plain", &ports, &options);
    let mut client = herd.connect();
    client.run("BEGIN");
    client.run("INSERT INTO t VALUES (0)");
    let refused = client.fails("INSERT INTO t VALUES (1)");
    assert_eq!(refused.code, "55000");
    assert!(
        refused.hint.contains("max_prepared_transactions"),
        "{refused:?}"
    );
    client.run("INSERT INTO t VALUES (2)");
    assert_eq!(client.run("COMMIT").tags, ["COMMIT"]);
    drop(client);
    drop(herd);
}

#[test]
fn the_console_lists_and_ends_what_is_prepared_and_leaves_strangers_alone() {
    let mut options = Fixture::options("transaction");
    options.set("recovery: {every: 1h, age: 1h}");
    let fixture = Fixture::with(&mut options);
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    client.run("COMMIT");
    let prepare = |shard: usize, key: i64, gid: &str| {
        let mut past = fixture.databases.shard(shard);
        past.run("BEGIN");
        past.run(&format!("INSERT INTO by_modulo VALUES ({key}, 5, 'left')"));
        past.run(&format!("PREPARE TRANSACTION '{gid}'"));
    };
    let name = &fixture.databases.name;
    let digits = "0123456789abcdef0123456789abcdef";
    let ours = |digits: &str, part: usize| format!("pgherd:herd:{name}:shard_0:{digits}:{part}");
    let committed = digits.replace('0', "f");
    prepare(1, 1, &ours(digits, 1));
    prepare(1, 5, &ours(&committed, 1));
    prepare(2, 2, &ours(&committed, 2));
    let stranger = format!("{name} of a stranger");
    prepare(2, 6, &stranger);
    fixture.databases.shard(0).run(&format!(
        "INSERT INTO pgherd.decision (gid, commits) VALUES ('pgherd:herd:{name}:shard_0:{committed}', true)"
    ));
    let mut console = fixture.herd.console();
    let listed = console.run("SHOW PREPARED_TRANSACTIONS");
    let mut decisions: Vec<(String, String)> = listed
        .column("whose")
        .into_iter()
        .zip(listed.column("decision"))
        .collect();
    decisions.sort();
    let pair = |whose: &str, decision: &str| (whose.to_owned(), decision.to_owned());
    assert_eq!(
        decisions,
        [
            pair("ours", ""),
            pair("ours", "commit"),
            pair("ours", "commit"),
            pair("stranger", "")
        ]
    );
    let refused = console.fails(&format!("RESOLVE '{stranger}' COMMIT"));
    assert_eq!(refused.code, "42704");
    let refused = console.fails(&format!("RESOLVE '{}' ROLLBACK", ours(&committed, 2)));
    assert_eq!(refused.code, "22023");
    console.run(&format!("RESOLVE '{}' COMMIT", ours(&committed, 2)));
    console.run("RESOLVE");
    let left = console.run("SHOW PREPARED_TRANSACTIONS");
    assert_eq!(left.column("gid").join(" "), stranger);
    let mut reader = fixture.connect();
    let rows = reader.rows("SELECT k FROM by_modulo WHERE n = 5 ORDER BY k");
    let keys: Vec<String> = rows.into_iter().flatten().flatten().collect();
    assert_eq!(keys, ["2", "5"]);
    fixture
        .databases
        .shard(2)
        .run(&format!("ROLLBACK PREPARED '{stranger}'"));
}

#[test]
fn a_shard_that_joins_behind_a_statement_over_others_is_in_the_block() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("BEGIN");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'x'), (1, 1, 'x')");
    both.run("INSERT INTO by_modulo VALUES (2, 1, 'x')");
    both.run("ROLLBACK");
    both.run("SELECT count(*) FROM by_modulo");
    both.run("BEGIN");
    both.run("INSERT INTO by_modulo VALUES (0, 1, 'x'), (1, 1, 'x')");
    both.run("SELECT n + true FROM by_modulo WHERE k = 3");
    both.run("COMMIT");
    both.run("SELECT count(*) FROM by_modulo");
    settles(&fixture);
}

#[test]
fn a_connection_that_was_held_before_a_block_begins_with_it() {
    let fixture = Fixture::with(&mut Fixture::options("session"));
    let mut client = fixture.connect();
    let insert = "INSERT INTO by_modulo VALUES (0, 1, 'x'), (1, 1, 'x'), (2, 1, 'x')";
    for shard in 0..4 {
        client.run(&format!("SELECT v FROM by_modulo WHERE k = {shard}"));
        client.run("BEGIN");
        client.run(insert);
        client.run("ROLLBACK");
        assert_eq!(client.value("SELECT count(*) FROM by_modulo"), "0");
        client.run(&format!("SELECT v FROM by_modulo WHERE k = {shard}"));
        // One row fails on the last shard.
        let fails = insert.replace("(2, 1, 'x')", "(2, NULL, 'x')");
        client.query_with(&fails, &[]).expect_err("n is not null");
        assert_eq!(client.value("SELECT count(*) FROM by_modulo"), "0");
        let text = format!("SELECT v FROM by_modulo WHERE k = {shard}; {fails}");
        client.fails(&text);
        assert_eq!(client.value("SELECT count(*) FROM by_modulo"), "0");
    }
    client.query_with(insert, &[]).expect("inserted");
    assert_eq!(client.value("SELECT count(*) FROM by_modulo"), "3");
    settles(&fixture);
}

#[test]
fn a_block_that_begins_within_a_text_is_the_same_on_each_shard() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    for modes in [
        "ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
        "ISOLATION LEVEL REPEATABLE READ",
        "",
    ] {
        both.run(&format!(
            "BEGIN {modes}; SELECT v FROM by_modulo WHERE k = 0"
        ));
        for key in 1..4 {
            both.run(&format!(
                "SELECT count(*), current_setting('transaction_isolation'), current_setting('transaction_read_only'),
                    current_setting('transaction_deferrable') FROM by_modulo WHERE k = {key}"
            ));
        }
        both.run("COMMIT");
    }
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    assert_eq!(client.fails("PREPARE TRANSACTION 'mine'").code, "0A000");
    client.run("ROLLBACK");
    settles(&fixture);
}

#[test]
fn what_failed_before_a_savepoint_is_gone_back_to_is_not_told_again() {
    let fixture = Fixture::start();
    let mut both = Both::new(&fixture);
    both.run("BEGIN");
    for key in 0..4 {
        both.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')"));
    }
    for _ in 0..3 {
        both.run("SAVEPOINT a");
        both.run("INSERT INTO by_modulo VALUES (3, 1, 'x')");
        both.run("ROLLBACK TO a");
        both.run("UPDATE by_modulo SET v = v || 'y'");
        both.run("SELECT n + true FROM by_modulo WHERE k = 1");
        both.run("ROLLBACK TO a");
        both.run("SELECT k, n FROM by_modulo ORDER BY k");
    }
    both.run("COMMIT");
    both.run("SELECT count(*) FROM by_modulo WHERE v = 'x'");
    settles(&fixture);
}

#[test]
fn nobody_decides_for_another() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'x')");
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    client.run("COMMIT");
    let postgres = |sql: &str| {
        let mut admin = Client::connect(
            fixture.databases.shard_ports[0],
            "postgres",
            &fixture.databases.name,
        );
        admin.run(sql);
    };
    postgres("DROP ROLE IF EXISTS passer_by");
    postgres("CREATE ROLE passer_by LOGIN");
    let mut passer = Client::connect(
        fixture.databases.shard_ports[0],
        "passer_by",
        &fixture.databases.name,
    );
    let gid = "pgherd:herd:x:shard_0:0123456789abcdef0123456789abcdef";
    for sql in [
        format!("INSERT INTO pgherd.decision (gid, commits) VALUES ('{gid}', true)"),
        "DELETE FROM pgherd.decision".to_owned(),
        "SELECT * FROM pgherd.decision".to_owned(),
    ] {
        assert_eq!(passer.fails(&sql).code, "42501", "{sql}");
    }
    // What it may call names what only it knows.
    passer.run(
        "SELECT pgherd.decide('pgherd:herd:x:shard_0:', '0123456789abcdef0123456789abcdef', 0)",
    );
    let mut owner = fixture.databases.shard(0);
    let count = owner.value(&format!(
        "SELECT count(*) FROM pgherd.decision WHERE gid = '{gid}'"
    ));
    assert_eq!(count, "0");
    owner.run("DELETE FROM pgherd.decision");
    drop(passer);
    postgres("DROP ROLE passer_by");
}
