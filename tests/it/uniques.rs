//! Columns that are kept unique over all shards: of rows on different shards one has a value, and the others are told
//! what one PostgreSQL would tell them.

use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::client::{Client, ServerError};
use crate::herd::{Herd, Options};
use crate::message::{bind, execute, parse, sync};
use crate::postgres::PATIENCE;
use crate::shared::{Databases, SHARDS};

const PEOPLE: &str = "CREATE TABLE people (id bigint PRIMARY KEY, email text UNIQUE, v text);
     CREATE TABLE badges (id bigint PRIMARY KEY, number int UNIQUE, token uuid UNIQUE);";

fn options() -> Options {
    let mut options = Options::new("transaction");
    options
        .set("gather: {twins: 0}")
        .set("recovery: {every: 200ms, age: 0s}")
        .distribution("people", "{key: bigint, place: {modulo: all}}")
        .described("people", "distribution: people, key: id, unique: [email]")
        .described(
            "badges",
            "distribution: people, key: id, unique: [number, token]",
        );
    options
}

struct People {
    databases: Databases,
    herd: Herd,
}

impl People {
    fn new() -> People {
        let databases = Databases::create(SHARDS);
        databases.run_everywhere(PEOPLE);
        let herd = Herd::start(&databases, &options());
        set_up(&herd);
        People { databases, herd }
    }

    /// Rows with an email, on the shards themselves.
    fn rows_with(&self, email: &str) -> usize {
        let on = |shard: usize| {
            let sql = format!("SELECT count(*) FROM people WHERE email = '{email}'");
            let count = self.databases.shard(shard).value(&sql);
            count.parse::<usize>().expect("a number")
        };
        (0..SHARDS).map(on).sum()
    }
}

fn set_up(herd: &Herd) {
    let (text, done) = herd.command("setup");
    assert!(done, "{text}");
    assert!(
        text.contains("column \"email\" of table \"people\" is kept unique"),
        "{text}"
    );
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to that");
        sleep(Duration::from_millis(20));
    }
}

/// Runs the same through the proxy and on one PostgreSQL, and compares answers and states.
struct Both {
    herd: Client,
    one: Client,
}

impl Both {
    fn new(people: &People) -> Both {
        Both {
            herd: people.herd.connect(),
            one: people.databases.reference(),
        }
    }

    fn run(&mut self, sql: &str) {
        let brief = |error: ServerError| (error.code, error.message, error.detail);
        let found = self.herd.query(sql).map_err(brief);
        let wanted = self.one.query(sql).map_err(brief);
        assert_eq!(found, wanted, "{sql}");
        assert_eq!(self.herd.status, self.one.status, "{sql}");
    }

    fn run_with(&mut self, sql: &str, values: &[Option<&str>]) {
        let brief = |error: ServerError| (error.code, error.message, error.detail);
        let found = self.herd.query_with(sql, values).map_err(brief);
        let wanted = self.one.query_with(sql, values).map_err(brief);
        assert_eq!(found, wanted, "{sql}");
        assert_eq!(self.herd.status, self.one.status, "{sql}");
    }
}

#[test]
fn what_is_written_is_answered_as_by_one_postgres() {
    let people = People::new();
    let mut both = Both::new(&people);
    both.run("INSERT INTO people VALUES (0, 'a', 'x')");
    both.run("INSERT INTO people VALUES (1, 'a', 'y')");
    both.run("INSERT INTO people VALUES (4, 'a', 'y')");
    both.run("INSERT INTO people (id, v, email) VALUES (1, 'y', 'b') RETURNING email, id");
    // NULLs are distinct.
    both.run("INSERT INTO people VALUES (2, NULL, 'n'), (3, NULL, 'n'), (5, NULL, 'n')");
    // Several rows, on several shards.
    both.run("INSERT INTO people VALUES (6, 'c', 'z'), (7, 'd', 'z') RETURNING id");
    both.run("INSERT INTO people VALUES (8, 'e', 'z'), (9, 'b', 'z')");
    both.run("INSERT INTO people VALUES (8, 'f', 'z'), (9, 'f', 'z')");
    both.run("INSERT INTO people VALUES (8, 'f', 'z'), (12, 'f', 'z')");
    both.run("SELECT id, email, v FROM people ORDER BY id");
    // UPDATE.
    both.run("UPDATE people SET email = 'g' WHERE id = 0");
    both.run("UPDATE people SET email = 'b' WHERE id = 0");
    both.run("UPDATE people SET email = 'b' WHERE id = 100");
    both.run("UPDATE people SET email = 'g', v = 'same' WHERE id = 0 RETURNING v");
    both.run("UPDATE people SET v = 'other'");
    both.run("INSERT INTO people VALUES (10, 'a', 'free again')");
    // DELETE.
    both.run("DELETE FROM people WHERE id = 10");
    both.run("INSERT INTO people VALUES (11, 'a', 'free again')");
    both.run("DELETE FROM people WHERE v = 'free again'");
    both.run("INSERT INTO people VALUES (12, 'a', 'and again')");
    both.run("UPDATE people SET email = NULL WHERE id = 12");
    both.run("INSERT INTO people VALUES (13, 'a', 'and again')");
    // ON CONFLICT over the key.
    both.run(
        "INSERT INTO people VALUES (13, 'a', 'u') ON CONFLICT (id) DO UPDATE SET v = excluded.v",
    );
    both.run("INSERT INTO people VALUES (13, 'b', 'u') ON CONFLICT (id) DO NOTHING");
    both.run("INSERT INTO people VALUES (14, 'b', 'u') ON CONFLICT (id) DO NOTHING");
    both.run("INSERT INTO people VALUES (14, 'h', 'u') ON CONFLICT (id) DO NOTHING");
    both.run("TRUNCATE people");
    both.run("INSERT INTO people VALUES (15, 'a', 'u')");
    both.run("SELECT id, email, v FROM people ORDER BY id");
    // Other types.
    both.run("INSERT INTO badges VALUES (0, 7, '11111111-2222-3333-4444-555555555555')");
    both.run("INSERT INTO badges VALUES (1, 7, NULL)");
    both.run("INSERT INTO badges VALUES (1, 8, '11111111222233334444555555555555')");
    both.run("INSERT INTO badges VALUES (1, 8, 'A1111111-2222-3333-4444-555555555555')");
}

#[test]
fn blocks_savepoints_and_parameters_are_as_on_one_postgres() {
    let people = People::new();
    let mut both = Both::new(&people);
    let insert = "INSERT INTO people VALUES ($1::bigint, $2, 'p')";
    both.run_with(insert, &[Some("0"), Some("a")]);
    both.run_with(insert, &[Some("1"), Some("a")]);
    both.run_with(insert, &[Some("2"), None]);
    both.run("BEGIN");
    both.run_with(insert, &[Some("1"), Some("b")]);
    both.run("SAVEPOINT s");
    both.run_with(insert, &[Some("2"), Some("b")]);
    both.run("SELECT 1");
    both.run("ROLLBACK TO s");
    both.run_with(insert, &[Some("3"), Some("c")]);
    both.run("COMMIT");
    both.run("SELECT id, email FROM people ORDER BY id");
    // What is rolled back is free; so is what the block itself has taken away.
    both.run("BEGIN");
    both.run("INSERT INTO people VALUES (5, 'd', 'x')");
    both.run("ROLLBACK");
    both.run("BEGIN");
    both.run("INSERT INTO people VALUES (6, 'd', 'x')");
    both.run("DELETE FROM people WHERE id = 0");
    both.run("INSERT INTO people VALUES (7, 'a', 'moved')");
    both.run("COMMIT");
    both.run("BEGIN");
    both.run("INSERT INTO people VALUES (8, 'e', 'x')");
    both.run("INSERT INTO people VALUES (9, 'e', 'x')");
    both.run("COMMIT");
    // A text, and a group of messages, are one transaction each.
    both.run("INSERT INTO people VALUES (8, 'e', 'x'); INSERT INTO people VALUES (9, 'e', 'x')");
    both.run("INSERT INTO people VALUES (8, 'e', 'x'); INSERT INTO people VALUES (9, 'f', 'x')");
    both.run("SELECT id, email FROM people ORDER BY id");
    let step = |id: &str, email: &str| {
        [
            parse("", insert, &[]),
            bind(
                "",
                "",
                &[],
                &[
                    Some(id.as_bytes().to_vec()),
                    Some(email.as_bytes().to_vec()),
                ],
                &[],
            ),
            execute("", 0),
        ]
        .concat()
    };
    for (first, second) in [(("20", "k"), ("21", "k")), (("20", "k"), ("21", "l"))] {
        let group = [step(first.0, first.1), step(second.0, second.1), sync()].concat();
        let mut codes = Vec::new();
        for client in [&mut both.herd, &mut both.one] {
            client.send(&group);
            let messages = client.until_ready().expect("an answer");
            let errors = messages.iter().filter(|message| message.tag == b'E');
            codes.push(errors.map(|error| error.field('C')).collect::<Vec<_>>());
        }
        assert_eq!(codes[0], codes[1]);
    }
    both.run("SELECT id, email FROM people ORDER BY id");
}

#[test]
fn of_two_at_once_one_has_the_value() {
    let people = People::new();
    let other = Herd::start(&people.databases, &options());
    for (commits, email) in [(true, "a"), (false, "b")] {
        let mut first = people.herd.connect();
        first.run("BEGIN");
        first.run(&format!("INSERT INTO people VALUES (10, '{email}', 'x')"));
        let mut second = other.connect();
        let sql = format!("INSERT INTO people VALUES (11, '{email}', 'y')");
        let waiting = spawn(move || second.query(&sql));
        let mut home = people.databases.shard(0);
        until(|| {
            home.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'",
            ) != "0"
        });
        first.run(if commits { "COMMIT" } else { "ROLLBACK" });
        let answer = waiting.join().expect("the thread ends");
        if commits {
            let error = answer.expect_err("another has it");
            assert_eq!(error.code, "23505");
            assert_eq!(
                error.message,
                "duplicate key value violates unique constraint \"people_email_key\""
            );
            assert_eq!(error.detail, "Key (email)=(a) already exists.");
        } else {
            answer.expect("nobody has it");
        }
        assert_eq!(people.rows_with(email), 1);
        people.herd.connect().run("DELETE FROM people");
    }
}

#[test]
fn of_many_at_once_one_has_the_value() {
    let people = People::new();
    let other = Herd::start(&people.databases, &options());
    let running: Vec<_> = (0..6_u32)
        .map(|number| {
            let port = [people.herd.port, other.port][usize::from(number % 2 == 1)];
            let database = people.databases.name.clone();
            spawn(move || {
                let mut client = Client::connect(port, "app", &database);
                let mut won = Vec::new();
                for round in 0..10 {
                    let id = round * 6 + number;
                    let sql = format!("INSERT INTO people VALUES ({id}, 'r{round}', 'x')");
                    match client.query(&sql) {
                        Ok(_) => won.push(round),
                        Err(error) => assert_eq!(error.code, "23505", "{error:?}"),
                    }
                    // And some of them go again.
                    if number == 0 && round % 2 == 0 {
                        client.run(&format!("DELETE FROM people WHERE id = {id}"));
                    }
                }
                won
            })
        })
        .collect();
    for one in running {
        one.join().expect("only duplicates are refused");
    }
    for round in 0..10 {
        assert!(people.rows_with(&format!("r{round}")) <= 1, "r{round}");
        if round % 2 == 1 {
            assert_eq!(people.rows_with(&format!("r{round}")), 1, "r{round}");
        }
    }
}

#[test]
fn what_cannot_be_known_is_refused() {
    let people = People::new();
    let mut client = people.herd.connect();
    for sql in [
        "INSERT INTO people (id, v) VALUES (1, 'x')",
        "INSERT INTO people VALUES (1, lower('A'), 'x')",
        "INSERT INTO people VALUES (1, DEFAULT, 'x')",
        "INSERT INTO people SELECT 1, 'a', 'x'",
        "INSERT INTO people VALUES (1, 'a', 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO people VALUES (1, 'a', 'x') ON CONFLICT (email) DO NOTHING",
        "INSERT INTO people VALUES (1, 'a', 'x') ON CONFLICT (id) DO UPDATE SET email = excluded.email",
        "UPDATE people SET email = 'a'",
        "UPDATE people SET email = 'a' WHERE id IN (1, 2)",
        "UPDATE people SET email = email || 'x' WHERE id = 1",
        "EXPLAIN ANALYZE INSERT INTO people VALUES (1, 'a', 'x')",
        "COPY people FROM STDIN",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
        assert!(!error.hint.is_empty(), "{sql}");
    }
    // Nor through what stands for the table.
    client.run("CREATE VIEW persons AS SELECT * FROM people");
    client.run(
        "CREATE FUNCTION make(bigint) RETURNS void LANGUAGE sql AS
         $$ INSERT INTO people VALUES ($1, 'f', 'x') $$",
    );
    for sql in [
        "INSERT INTO persons VALUES (1, 'a', 'x')",
        "UPDATE persons SET email = 'a' WHERE id = 1",
        "SELECT make(1)",
        "MERGE INTO people USING (VALUES (1)) s (n) ON id = s.n WHEN NOT MATCHED THEN INSERT VALUES (1, 'm', 'x')",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
    }
    let many: Vec<String> = (0..1_001)
        .map(|id| format!("({id}, 'e{id}', 'x')"))
        .collect();
    let sql = format!("INSERT INTO people VALUES {}", many.join(", "));
    assert_eq!(client.fails(&sql).code, "54000");
    assert_eq!(client.value("SELECT count(*) FROM people"), "0");
}

#[test]
fn what_a_with_query_writes_is_claimed_whatever_is_returned() {
    let people = People::new();
    let mut client = people.herd.connect();
    client.run("INSERT INTO people VALUES (0, 'a', 'x')");
    let with = |id: u32, email: &str| {
        format!(
            "WITH w AS (INSERT INTO people VALUES ({id}, '{email}', 'x') RETURNING id) SELECT id FROM w WHERE false"
        )
    };
    for (id, email, code) in [
        (1, "a", Some("23505")),
        (1, "b", None),
        (2, "b", Some("23505")),
    ] {
        let answer = client.query(&with(id, email));
        let found = answer.as_ref().err().map(|error| error.code.as_str());
        // One that is not understood well enough is refused; it is never carried out without its claim.
        if found != Some("0A000") {
            assert_eq!(found, code, "{answer:?}");
        }
    }
    assert!(people.rows_with("a") == 1 && people.rows_with("b") <= 1);
}

#[test]
fn setup_claims_what_is_there_and_reports_what_is_double() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(PEOPLE);
    let herd = Herd::start(&databases, &options());
    let error = herd
        .connect()
        .fails("INSERT INTO people VALUES (0, 'a', 'x')");
    assert_eq!(error.code, "55000", "{error:?}");
    assert!(error.hint.contains("pgherd setup"), "{error:?}");
    databases
        .shard(1)
        .run("INSERT INTO people VALUES (1, 'a', 'x'), (5, 'b', 'x')");
    databases
        .shard(2)
        .run("INSERT INTO people VALUES (2, 'b', 'x'), (6, NULL, 'x')");
    let (text, done) = herd.command("setup");
    assert!(!done, "{text}");
    assert!(
        text.contains("column \"email\" of table \"people\" is not unique over the shards: Several rows have: b"),
        "{text}"
    );
    let error = herd
        .connect()
        .fails("INSERT INTO people VALUES (0, 'c', 'x')");
    assert_eq!(error.code, "55000");
    databases.shard(2).run("DELETE FROM people WHERE id = 2");
    set_up(&herd);
    set_up(&herd);
    let mut client = herd.connect();
    for email in ["a", "b"] {
        let sql = format!("INSERT INTO people VALUES (0, '{email}', 'x')");
        assert_eq!(client.fails(&sql).code, "23505");
    }
    client.run("INSERT INTO people VALUES (0, 'c', 'x')");
    // A constraint that holds on each shard alone is accepted where unique covers it.
    let (text, done) = herd.command("check");
    assert!(done, "{text}");
    let mut both = client;
    both.run("DROP TABLE badges");
    both.run("CREATE TABLE badges (id bigint PRIMARY KEY, number int UNIQUE, token uuid, UNIQUE (token))");
    assert_eq!(
        both.fails("CREATE UNIQUE INDEX ON people (v)").code,
        "0A000"
    );
}

#[test]
fn under_repeatable_read_an_old_claim_is_to_be_tried_again() {
    let people = People::new();
    let mut client = people.herd.connect();
    client.run("INSERT INTO people VALUES (0, 'a', 'x')");
    client.run("DELETE FROM people WHERE id = 0");
    client.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    let error = client.fails("INSERT INTO people VALUES (1, 'a', 'x')");
    assert_eq!(error.code, "40001", "{error:?}");
    client.run("ROLLBACK");
    client.run("BEGIN ISOLATION LEVEL SERIALIZABLE");
    client.run("INSERT INTO people VALUES (1, 'b', 'x')");
    client.run("COMMIT");
    assert_eq!(
        client.fails("INSERT INTO people VALUES (2, 'b', 'x')").code,
        "23505"
    );
}

#[test]
fn a_herd_that_cannot_commit_in_two_phases_is_refused() {
    let databases = Databases::create(SHARDS);
    databases.run_everywhere(PEOPLE);
    let herd = Herd::start(&databases, options().set("cross_shard_writes: reject"));
    set_up(&herd);
    let mut client = herd.connect();
    assert_eq!(
        client.fails("INSERT INTO people VALUES (1, 'a', 'x')").code,
        "0A000"
    );
    // Where the row is on the home shard nothing else is needed.
    client.run("INSERT INTO people VALUES (0, 'a', 'x')");
    assert_eq!(client.value("SELECT count(*) FROM people"), "1");
}

#[test]
fn a_killed_proxy_leaves_a_value_with_one_row_or_none() {
    for point in [
        "sent_decide:1",
        "after_decide:1",
        "sent_prepare:1",
        "after_prepare:1",
        "sent_commit:1",
        "after_commit:1",
        "sent_commit_prepared:1",
    ] {
        let databases = Databases::create(SHARDS);
        databases.run_everywhere(PEOPLE);
        let mut dying = options();
        dying.failpoint = Some(point.to_owned());
        let first = Herd::start(&databases, &dying);
        let second = Herd::start(&databases, &options());
        set_up(&second);
        let lost = first
            .connect()
            .query("INSERT INTO people VALUES (1, 'a', 'x')");
        assert!(lost.is_err(), "{point}: it was to be killed");
        // It waits for what is left, or recovery has been there.
        let answer = second
            .connect()
            .query("INSERT INTO people VALUES (2, 'a', 'y')");
        if let Err(error) = &answer {
            assert_eq!(error.code, "23505", "{point}: {error:?}");
        }
        let rows = second.connect().value("SELECT count(*) FROM people");
        assert_eq!(rows, "1", "{point}: {answer:?}");
    }
}

#[test]
fn two_that_take_each_others_values_end_with_one() {
    let people = People::new();
    let mut first = people.herd.connect();
    let mut second = people.herd.connect();
    first.run("BEGIN");
    first.run("INSERT INTO people VALUES (1, 'a', 'x')");
    second.run("BEGIN");
    second.run("INSERT INTO people VALUES (2, 'b', 'x')");
    let waiting = spawn(move || {
        let answer = first.query("INSERT INTO people VALUES (5, 'b', 'x')");
        (first, answer)
    });
    let answer = second.query("INSERT INTO people VALUES (6, 'a', 'x')");
    let mut codes = vec![answer.err().map(|error| error.code)];
    second.run("COMMIT");
    let (mut first, answer) = waiting.join().expect("the thread ends");
    codes.push(answer.err().map(|error| error.code));
    first.run("COMMIT");
    // Whoever is ended, the other goes on.
    codes.sort();
    assert_eq!(codes, [None, Some("40P01".to_owned())]);
    assert_eq!(people.rows_with("a") + people.rows_with("b"), 2);
}
