//! Groups of the extended protocol sent one behind the other: each is a transaction of its own.

use std::thread::sleep;
use std::time::Duration;

use crate::client::{Client, REPLY};
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message;
use crate::shared::Databases;

/// Parse, Bind and Execute.
fn step(name: &str, sql: &str) -> Vec<u8> {
    [
        message::parse(name, sql, &[]),
        message::bind("", name, &[], &[], &[]),
        message::execute("", 0),
    ]
    .concat()
}

fn value_of(client: &mut Client, name: &str, sql: &str) -> Option<String> {
    client.send(&[step(name, sql), message::sync()].concat());
    client.answer().expect(sql).rows[0][0].clone()
}

/// The tags of what comes, up to so many ReadyForQuery.
fn tags(client: &mut Client, mut groups: usize) -> String {
    let mut tags = String::new();
    while groups > 0 {
        let message = client.receive(REPLY).expect("a message");
        tags.push(char::from(message.tag));
        groups -= usize::from(message.tag == b'Z');
    }
    tags
}

#[test]
fn a_refused_part_undoes_its_group() {
    let fixture = Fixture::start();
    let refused = [
        "INSERT INTO by_modulo VALUES (1, 1, 'a') ON CONFLICT (k, n) DO UPDATE SET k = 2",
        "SELECT count(*) FROM by_modulo a, by_jump b",
    ];
    for sql in refused {
        for before in [false, true] {
            let mut client = fixture.connect();
            let mut bytes = Vec::new();
            if before {
                bytes.extend(step("", "SELECT n FROM by_modulo WHERE k = 1"));
                bytes.extend(message::sync());
            }
            bytes.extend(step("", "INSERT INTO by_modulo VALUES (1, 1, 'a')"));
            bytes.extend(step("", sql));
            bytes.extend(message::sync());
            client.send(&bytes);
            let seen = tags(&mut client, 1 + usize::from(before));
            assert!(seen.ends_with("EZ"), "{sql}: {seen}");
            for shard in 0..4 {
                let rows = fixture
                    .databases
                    .shard(shard)
                    .rows("SELECT * FROM by_modulo");
                assert!(rows.is_empty(), "{sql}, a group before: {before}");
            }
        }
    }
}

#[test]
fn a_void_parse_leaves_the_next_group_its_statement() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let begun = [
        step(
            "",
            "SELECT 1 / (g - g) FROM pg_sleep(0.3), generate_series(1, 1) g",
        ),
        step("", "SELECT 3"),
        message::sync(),
        message::parse("", "SELECT 4", &[]),
    ];
    client.send(&begun.concat());
    assert!(tags(&mut client, 1).ends_with("EZ"));
    client.send(
        &[
            message::bind("", "", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat(),
    );
    let answer = client.answer().expect("the statement of the group");
    assert_eq!(answer.rows[0][0].as_deref(), Some("4"));
}

#[test]
fn a_portal_bound_behind_a_commit_stays() {
    let databases = Databases::create(1);
    databases.run_everywhere(
        "CREATE TABLE t (id int);
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END';
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION slow()",
    );
    let herd = Herd::start(&databases, &Options::new("transaction"));
    let mut client = herd.connect();
    client.run("BEGIN");
    client.run("INSERT INTO t VALUES (1)");
    let behind = [
        step("", "COMMIT"),
        message::sync(),
        message::parse("", "SELECT 42", &[]),
        message::bind("p", "", &[], &[], &[]),
    ];
    client.send(&behind.concat());
    sleep(Duration::from_millis(600));
    client.send(&[message::execute("p", 0), message::sync()].concat());
    assert_eq!(tags(&mut client, 2), "12CZ12DCZ");
}

#[test]
fn a_reload_does_not_mix_statements_up() {
    let fixture = Fixture::start();
    let mut single = fixture.connect();
    assert_eq!(
        value_of(&mut single, "s", "SELECT 'old'").as_deref(),
        Some("old")
    );
    fixture.herd.console().run("RELOAD");
    let mut new = fixture.connect();
    for name in ["", "", "", "n"] {
        assert_eq!(
            value_of(&mut new, name, "SELECT 'new'").as_deref(),
            Some("new")
        );
    }
    single.send(
        &[
            message::bind("", "s", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat(),
    );
    assert_eq!(
        single.answer().expect("kept").rows,
        [[Some("old".to_owned())]]
    );
}

#[test]
fn a_parse_answered_behind_a_lost_connection_counts() {
    let databases = Databases::create(1);
    let herd = Herd::start(&databases, &Options::new("transaction"));
    let mut client = herd.connect();
    client.send(
        &[
            message::parse("s1", "SELECT 1", &[]),
            message::parse("zz", "SELECT pg_sleep(9)", &[]),
            message::sync(),
        ]
        .concat(),
    );
    assert_eq!(tags(&mut client, 1), "11Z");
    let sleeps = [
        message::bind("", "zz", &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
    ];
    client.send(&[sleeps.concat(), step("s2", "SELECT 1"), message::sync()].concat());
    let mut server = databases.shard(0);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    crate::load::eventually("it sleeps", || server.value(end) == "1");
    assert_eq!(tags(&mut client, 2), "2EZ12DCZ");
    client.send(&[message::parse("bad", "SELEC", &[]), message::sync()].concat());
    assert_eq!(tags(&mut client, 1), "EZ");
    let again = [
        message::bind("", "s2", &[], &[], &[]),
        message::execute("", 0),
        message::parse("bad", "SELECT 3", &[]),
        message::sync(),
    ];
    client.send(&again.concat());
    assert_eq!(tags(&mut client, 1), "2DC1Z");
}

#[test]
fn a_block_that_cannot_move_has_failed() {
    let mut options = Fixture::options("transaction");
    options
        .set("default_pool_size: 1")
        .set("query_wait_timeout: 1s");
    let fixture = Fixture::with(&mut options);
    let mut holder = fixture.connect();
    holder.run("BEGIN");
    holder.run("INSERT INTO by_modulo VALUES (1, 1, 'held')");
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SAVEPOINT a");
    client.run("SELECT version()");
    assert_eq!(
        client.fails("SELECT * FROM by_modulo WHERE k = 1").code,
        "53300"
    );
    assert_eq!(client.status, 'E');
    client.fails("ROLLBACK TO SAVEPOINT a");
    assert_eq!(
        client
            .fails("INSERT INTO by_modulo VALUES (2, 2, 'x')")
            .code,
        "25P02"
    );
    assert_eq!(client.status, 'E');
    client.run("ROLLBACK");
    assert_eq!(client.status, 'I');
    assert!(
        fixture
            .databases
            .shard(2)
            .rows("SELECT * FROM by_modulo")
            .is_empty()
    );
}
