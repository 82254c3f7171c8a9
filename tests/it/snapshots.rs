//! Reads over several shards that see each commit on several shards whole or not at all (`consistent_reads`).
//!
//! A commit stands still in the middle: its decider has committed, the other shard has only prepared its part.

use crate::client::{Answer, Client, ServerError, cancel};
use crate::herd::{Herd, Options};
use crate::message::{bind, execute, parse, sync};
use crate::postgres::PATIENCE;
use crate::shared::{Databases, SHARDS};

/// Accounts 0 to 11, each with 100, on four shards, and a shard that has only a table of its own.
struct Bank {
    herd: Herd,
    databases: Databases,
}

fn options(settings: &[&str]) -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("account", "id", "bigint", "{modulo: all}")
        .sharded(
            "outer_account",
            "id",
            "bigint",
            "{modulo: [shard_2, shard_3]}",
        )
        .table("everywhere", "reference")
        .set("consistent_reads: true")
        .set("recovery: {every: 1h, age: 1h}");
    for setting in settings {
        options.set(setting);
    }
    options
}

impl Bank {
    fn start(settings: &[&str]) -> Bank {
        Bank::with(&mut options(settings))
    }

    fn with(options: &mut Options) -> Bank {
        let databases = Databases::create(SHARDS);
        for shard in 0..SHARDS {
            databases.shard(shard).run(&format!(
                "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL, name text);
                 CREATE TABLE outer_account (LIKE account INCLUDING ALL);
                 CREATE TABLE everywhere (id int PRIMARY KEY, v text);
                 INSERT INTO account SELECT g, 100, 'n' || g FROM generate_series(0, 11) g WHERE g % 4 = {shard};
                 INSERT INTO outer_account SELECT g, 100, 'n' || g FROM generate_series(0, 11) g
                     WHERE g % 2 + 2 = {shard}"
            ));
        }
        let control = "control_user: postgres".to_owned();
        if !options.database.contains(&control) {
            options.database.push(control);
        }
        let herd = Herd::start(&databases, options);
        let bank = Bank { herd, databases };
        // What commits in two phases need is made with the first of them.
        let mut client = bank.herd.connect();
        client.run("UPDATE account SET balance = balance");
        bank
    }

    /// A transfer of 50 from account 0 to account 1 that shard 0 has committed and shard 1 has prepared.
    fn leave_half(&self) -> Half {
        self.leave_half_of("account", (0, 0), (1, 1))
    }

    fn leave_half_of(&self, table: &str, from: (usize, i64), to: (usize, i64)) -> Half {
        let prefix = format!("pgherd:herd:{}:shard_{}:", self.databases.name, from.0);
        let mut decider = self.databases.shard(from.0);
        decider.run("BEGIN");
        decider.run(&format!(
            "UPDATE {table} SET balance = balance - 50 WHERE id = {}",
            from.1
        ));
        decider.run(&format!("SELECT pgherd.decide('{prefix}', 'secret', 0)"));
        let digits = decider.value("SELECT left(encode(sha256('secret'), 'hex'), 32)");
        let gid = format!("{prefix}{digits}:1");
        let mut other = self.databases.shard(to.0);
        other.run("BEGIN");
        other.run(&format!(
            "UPDATE {table} SET balance = balance + 50 WHERE id = {}",
            to.1
        ));
        other.run("SELECT pgherd.enter(0)");
        other.run(&format!("PREPARE TRANSACTION '{gid}'"));
        decider.run("COMMIT");
        Half { other, gid }
    }
}

struct Half {
    other: Client,
    gid: String,
}

impl Half {
    fn finish(mut self) {
        self.other.run(&format!("COMMIT PREPARED '{}'", self.gid));
    }
}

fn number(answer: Result<Answer, ServerError>) -> i64 {
    let answer = answer.expect("it is answered");
    let value = answer.rows[0][0].clone().expect("not null");
    value.parse().expect("a number")
}

#[test]
fn without_it_half_of_a_commit_is_seen() {
    let bank = Bank::start(&["consistent_reads: false"]);
    let half = bank.leave_half();
    let mut client = bank.herd.connect();
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1150
    );
    half.finish();
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
}

/// Reads of all kinds: what they are, and what they answer once the transfer is whole.
const READS: [(&str, &str); 8] = [
    ("SELECT sum(balance) FROM account", "1200"),
    (
        "SELECT balance FROM account WHERE id < 2 ORDER BY balance",
        "50 150",
    ),
    (
        "SELECT balance FROM account WHERE id IN (0, 1) ORDER BY id",
        "50 150",
    ),
    ("SELECT max(balance) - min(balance) FROM account", "100"),
    ("SELECT avg(balance)::int FROM account WHERE id < 2", "100"),
    (
        "SELECT count(*) FROM account a, account b WHERE a.balance + 100 = b.balance",
        "1",
    ),
    (
        "SELECT string_agg(balance::text, ',' ORDER BY id) FROM account WHERE id < 3",
        "50,150,100",
    ),
    (
        "SELECT balance FROM account WHERE balance <> 100 AND id < 2 LIMIT 2",
        "50 150",
    ),
];

fn texts(answer: &Answer) -> String {
    let values = answer.rows.iter().flatten().flatten();
    let mut values: Vec<&str> = values.map(String::as_str).collect();
    values.sort_by_key(|value| value.len());
    values.join(" ")
}

#[test]
fn no_kind_of_read_sees_half_of_a_commit() {
    let mut options = options(&["consistent_reads_timeout: 400ms"]);
    options.twins(2).set("consistent_reads_timeout: 400ms");
    let bank = Bank::with(&mut options);
    let mut client = bank.herd.connect();
    let half = bank.leave_half();
    for (sql, _) in READS {
        for extended in [false, true] {
            let told = if extended {
                client.query_with(sql, &[])
            } else {
                client.query(sql)
            };
            let refused = told.expect_err(sql);
            assert_eq!(refused.code, "57014", "{sql}: {refused:?}");
            assert!(refused.detail.contains("shard_1"), "{refused:?}");
            assert!(
                refused.hint.contains("consistent_reads_timeout"),
                "{refused:?}"
            );
        }
    }
    let copy = "COPY (SELECT balance FROM account WHERE id < 2) TO STDOUT";
    assert_eq!(client.fails(copy).code, "57014");
    // One shard's own snapshot is whole by itself, and costs nothing.
    assert_eq!(
        client.value("SELECT balance FROM account WHERE id = 1"),
        "100"
    );
    assert_eq!(
        client.value("SELECT balance FROM account WHERE id = 0"),
        "50"
    );
    half.finish();
    for (sql, wanted) in READS {
        assert_eq!(texts(&client.run(sql)), wanted, "{sql}");
        let extended = client.query_with(sql, &[]).expect(sql);
        assert_eq!(texts(&extended), wanted, "{sql}");
    }
    let mut copied = client.copy_out(copy);
    copied.sort_unstable();
    assert_eq!(copied, b"\n\n00155");
    assert_eq!(client.status, 'I');
}

#[test]
fn a_read_that_the_home_shard_has_no_part_in_passes_its_gate() {
    let bank = Bank::start(&["consistent_reads_timeout: 400ms"]);
    let mut client = bank.herd.connect();
    let sum = "SELECT sum(balance) FROM outer_account";
    assert_eq!(number(client.query(sum)), 1200);
    let half = bank.leave_half_of("outer_account", (2, 0), (3, 1));
    assert_eq!(client.fails(sum).code, "57014");
    half.finish();
    assert_eq!(number(client.query(sum)), 1200);
    // A commit without the home shard holds its gate from outside.
    client.run("BEGIN");
    client.run("UPDATE outer_account SET balance = balance - 1 WHERE id = 0");
    client.run("UPDATE outer_account SET balance = balance + 1 WHERE id = 1");
    client.run("COMMIT");
    assert_eq!(number(client.query(sum)), 1200);
}

#[test]
fn a_read_waits_until_recovery_has_ended_the_commit() {
    let bank = Bank::start(&["recovery: {every: 200ms, age: 1s}"]);
    let half = bank.leave_half();
    let mut client = bank.herd.connect();
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
    let gid = &half.gid;
    let left = format!("SELECT count(*) FROM pg_prepared_xacts WHERE gid = '{gid}'");
    assert_eq!(bank.databases.shard(1).value(&left), "0");
}

#[test]
fn a_read_that_waits_can_be_canceled() {
    let bank = Bank::start(&[]);
    let half = bank.leave_half();
    let mut client = bank.herd.connect();
    client.send(&crate::message::query("SELECT sum(balance) FROM account"));
    // It has come to the gate of the other shard.
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut past = bank.databases.shard(1);
    let waits =
        "SELECT count(*) FROM pg_locks WHERE relation = 'pgherd.gate'::regclass AND NOT granted";
    while past.value(waits) == "0" {
        assert!(std::time::Instant::now() < deadline, "it does not wait");
    }
    cancel(bank.herd.port, client.key);
    assert_eq!(client.answer().expect_err("canceled").code, "57014");
    half.finish();
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
}

#[test]
fn a_block_that_keeps_its_snapshot_has_it_on_every_shard_from_its_first_statement() {
    for level in [
        "REPEATABLE READ",
        "SERIALIZABLE",
        "REPEATABLE READ READ ONLY",
    ] {
        let bank = Bank::start(&[]);
        let mut reader = bank.herd.connect();
        let mut writer = bank.herd.connect();
        reader.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(
            reader.value("SELECT balance FROM account WHERE id = 0"),
            "100"
        );
        writer.run("BEGIN");
        writer.run("UPDATE account SET balance = balance - 50 WHERE id = 0");
        writer.run("UPDATE account SET balance = balance + 50 WHERE id = 1");
        writer.run("COMMIT");
        assert_eq!(
            reader.value("SELECT balance FROM account WHERE id = 1"),
            "100",
            "{level}"
        );
        assert_eq!(
            number(reader.query("SELECT sum(balance) FROM account")),
            1200
        );
        assert_eq!(reader.run("COMMIT").tags, ["COMMIT"]);
        assert_eq!(
            reader.value("SELECT balance FROM account WHERE id = 1"),
            "150"
        );
    }
}

#[test]
fn what_shapes_a_block_comes_before_its_snapshot() {
    let bank = Bank::start(&[]);
    let mut reader = bank.herd.connect();
    let mut writer = bank.herd.connect();
    let mut look = |begin: &[&str]| {
        for sql in begin {
            reader.run(sql);
        }
        let before = reader.value("SELECT balance FROM account WHERE id = 4");
        writer.run("UPDATE account SET balance = balance + 1 WHERE id IN (4, 5)");
        let after = reader.value("SELECT balance FROM account WHERE id = 5");
        reader.run("COMMIT");
        before == after
    };
    let set = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
    assert!(look(&["BEGIN", set]));
    assert!(look(&[
        "BEGIN",
        "SET LOCAL work_mem = '1MB'",
        "SHOW work_mem",
        set,
        "SAVEPOINT a"
    ]));
    assert!(look(&[
        "SET default_transaction_isolation = 'repeatable read'",
        "BEGIN"
    ]));
    assert!(look(&["BEGIN", "SELECT version()"]));
    assert!(!look(&["BEGIN ISOLATION LEVEL READ COMMITTED"]));
    assert!(!look(&["RESET default_transaction_isolation", "BEGIN"]));
}

#[test]
fn a_snapshot_survives_savepoints_and_sees_what_the_block_writes() {
    let bank = Bank::start(&[]);
    let mut client = bank.herd.connect();
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    client.run("SAVEPOINT pgherd");
    client.run("UPDATE account SET balance = balance + 1 WHERE id = 0");
    client.run("UPDATE account SET balance = balance + 1 WHERE id = 1");
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1202
    );
    client.run("ROLLBACK TO SAVEPOINT pgherd");
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
    client.run("UPDATE account SET balance = balance + 1 WHERE id = 2");
    client.run("UPDATE account SET balance = balance - 1 WHERE id = 3");
    assert_eq!(client.value("SHOW lock_timeout"), "0");
    assert_eq!(client.run("COMMIT AND CHAIN").tags, ["COMMIT"]);
    assert_eq!(
        client.value("SHOW transaction_isolation"),
        "repeatable read"
    );
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
    assert_eq!(client.run("COMMIT").tags, ["COMMIT"]);
    assert_eq!(
        client.value("SELECT balance FROM account WHERE id = 2"),
        "101"
    );
}

#[test]
fn a_block_that_cannot_have_its_snapshot_in_time_has_failed_and_can_be_repeated() {
    let bank = Bank::start(&["consistent_reads_timeout: 400ms"]);
    let half = bank.leave_half();
    let mut client = bank.herd.connect();
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    client.run("SAVEPOINT a");
    assert_eq!(
        client
            .fails("SELECT balance FROM account WHERE id = 3")
            .code,
        "57014"
    );
    assert_eq!(client.status, 'E');
    assert_eq!(client.fails("SELECT 1").code, "25P02");
    half.finish();
    client.run("ROLLBACK TO a");
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
    assert_eq!(client.run("COMMIT").tags, ["COMMIT"]);
    let group = [
        parse("", "BEGIN ISOLATION LEVEL REPEATABLE READ", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
        parse("", "SELECT balance FROM account WHERE id = 1", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
        parse("", "SELECT sum(balance) FROM account", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
        parse("", "COMMIT", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
        sync(),
    ];
    client.send(&group.concat());
    let answer = client.answer().expect("all of it");
    assert_eq!(texts(&answer), "150 1200");
    assert_eq!(client.status, 'I');
}

#[test]
fn a_deferrable_snapshot_of_several_shards_is_refused() {
    let bank = Bank::start(&[]);
    let mut client = bank.herd.connect();
    client.run("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE");
    let refused = client.fails("SELECT balance FROM account WHERE id = 0");
    assert_eq!(refused.code, "0A000");
    assert!(refused.hint.contains("DEFERRABLE"), "{refused:?}");
    client.run("ROLLBACK");
}

#[test]
fn a_snapshot_taken_before_others_could_be_keeps_its_block_on_its_shard() {
    let bank = Bank::start(&[]);
    let mut client = bank.herd.connect();
    let read = |key: i64| {
        let sql = format!("SELECT balance FROM account WHERE id = {key}");
        [
            parse("", &sql, &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
        ]
        .concat()
    };
    let group = [read(0), read(1), sync()].concat();
    client.send(&group);
    assert_eq!(
        texts(&client.answer().expect("of two snapshots")),
        "100 100"
    );
    client.run("SET default_transaction_isolation = 'repeatable read'");
    client.send(&group);
    let refused = client.answer().expect_err("of one snapshot");
    assert_eq!(refused.code, "0A000", "{refused:?}");
    assert!(refused.message.contains("consistent_reads"), "{refused:?}");
    assert_eq!(client.status, 'I');
    // With BEGIN it can be known before.
    client.run("BEGIN; SELECT balance FROM account WHERE id = 0");
    let mut writer = bank.herd.connect();
    writer.run("UPDATE account SET balance = 0 WHERE id IN (0, 1)");
    assert_eq!(
        client.value("SELECT balance FROM account WHERE id = 1"),
        "100"
    );
    client.run("COMMIT");
}

#[test]
fn a_commit_waits_for_a_read_that_begins_no_longer_than_is_said() {
    let bank = Bank::start(&["consistent_reads_timeout: 300ms"]);
    let mut past = bank.databases.shard(1);
    past.run("BEGIN");
    past.run("LOCK TABLE pgherd.gate IN ROW EXCLUSIVE MODE");
    let mut client = bank.herd.connect();
    let transfer = |client: &mut Client| {
        client.run("BEGIN");
        client.run("UPDATE account SET balance = balance - 1 WHERE id = 0");
        client.run("UPDATE account SET balance = balance + 1 WHERE id = 1");
        client.query("COMMIT")
    };
    let refused = transfer(&mut client).expect_err("the gate is closed");
    assert_eq!(refused.code, "55P03");
    assert!(
        refused.hint.contains("consistent_reads_timeout"),
        "{refused:?}"
    );
    assert_eq!(client.status, 'I');
    past.run("ROLLBACK");
    assert_eq!(transfer(&mut client).expect("it is open").tags, ["COMMIT"]);
    assert_eq!(
        number(client.query("SELECT sum(balance) FROM account")),
        1200
    );
}

#[test]
fn clients_can_lock_the_gate_only_as_readers_do() {
    let bank = Bank::start(&[]);
    let mut client = bank.databases.shard(0);
    for mode in ["SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"] {
        client.run("BEGIN");
        let refused = client.fails(&format!("LOCK TABLE pgherd.gate IN {mode} MODE"));
        assert_eq!(refused.code, "42501", "{mode}");
        client.run("ROLLBACK");
    }
    assert_eq!(
        client.fails("INSERT INTO pgherd.gate DEFAULT VALUES").code,
        "23514"
    );
    assert_eq!(client.fails("TRUNCATE pgherd.gate").code, "42501");
}

#[test]
fn a_shard_that_cannot_prepare_has_no_consistent_reads() {
    let text = "databases: {shop: {shards: {a: host=127.0.0.1}}}\n";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pgherd.yaml");
    let both = "consistent_reads: true\ncross_shard_writes: reject\n";
    std::fs::write(&path, format!("{both}{text}")).expect("written");
    let (told, passes) = crate::operating::check_offline(&path);
    assert!(!passes && told.contains("two_phase"), "{told}");
}

#[test]
fn a_client_that_keeps_its_connections_keeps_them_with_its_snapshots() {
    for mode in ["session", "transaction"] {
        let bank = Bank::start(&[&format!("pool_mode: {mode}")]);
        let mut client = bank.herd.connect();
        client.run("CREATE TEMP TABLE mine (k int)");
        for level in ["REPEATABLE READ", "READ COMMITTED"] {
            client.run("INSERT INTO mine VALUES (1)");
            client.run(&format!("BEGIN ISOLATION LEVEL {level}"));
            assert_eq!(
                client.value("SELECT balance FROM account WHERE id = 1"),
                "100"
            );
            assert_eq!(
                number(client.query("SELECT sum(balance) FROM account")),
                1200
            );
            client.run("COMMIT");
            assert_eq!(
                number(client.query("SELECT sum(balance) FROM account")),
                1200
            );
        }
        assert_eq!(client.value("SELECT count(*) FROM mine"), "2");
    }
}
