//! Blocks that fail by an error of the proxy's own, that move to another shard, or end in the middle of a
//! text: they end as PostgreSQL's do.

use std::time::Duration;

use crate::client::{Client, cancel};
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message::{bind, close, execute, parse, query, sync};

/// What the proxy refuses of its own.
const REFUSED: &str = "INSERT INTO by_modulo VALUES (NULL, 1, 'x')";

fn failed_block(fixture: &Fixture, key: i64) -> Client {
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')"));
    client.fails(REFUSED);
    assert_eq!(client.status, 'E');
    client
}

const TIMEOUT: &str = "SELECT current_setting('statement_timeout') FROM by_modulo WHERE k = 1";

#[test]
fn commit_of_a_failed_block_with_others_in_its_text_rolls_back() {
    let fixture = Fixture::start();
    let mut client = failed_block(&fixture, 4);
    let answer = client.query("COMMIT; SELECT 1");
    println!("{answer:?}");
    assert_eq!(
        fixture.count_of(4),
        "0",
        "a part of a failed block was committed"
    );
}

#[test]
fn commit_of_a_failed_block_by_the_extended_protocol_rolls_back() {
    let fixture = Fixture::start();
    let mut client = failed_block(&fixture, 8);
    let answer = client.query_with("COMMIT", &[]);
    println!("{answer:?}");
    assert_eq!(
        fixture.count_of(8),
        "0",
        "a part of a failed block was committed"
    );
}

#[test]
fn commit_in_a_failed_block_behind_prepare_in_time_rolls_back() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&[parse("c", "COMMIT", &[]), sync()].concat());
    client.answer().expect("parsed");
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (12, 1, 'x')");
    client.fails(REFUSED);
    client.send(&[bind("", "c", &[], &[], &[]), execute("", 0), sync()].concat());
    println!("{:?}", client.answer());
    assert_eq!(fixture.count_of(12), "0");
}

#[test]
fn a_block_that_failed_before_its_first_shard_begins_on_no_other() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for first in ["SELECT nothing FROM by_modulo", "SELECT n FROM nothing"] {
        for extended in [false, true] {
            for key in 0..4 {
                client.run("BEGIN");
                client.query_with(first, &[]).expect_err("it fails");
                assert_eq!(client.status, 'E');
                let sql = format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')");
                let insert = if extended {
                    client.query_with(&sql, &[])
                } else {
                    client.query(&sql)
                };
                assert_eq!(insert.expect_err("the block has failed").code, "25P02");
                assert_eq!(client.run("COMMIT").tags, ["ROLLBACK"]);
            }
        }
    }
    let rows = (0..4).map(|key| fixture.count_of(key));
    assert!(rows.into_iter().all(|count| count == "0"));
}

#[test]
fn a_failed_block_executes_no_portal() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.send(
        &[
            parse("", "INSERT INTO by_modulo VALUES (20, 1, 'x')", &[]),
            bind("p", "", &[], &[], &[]),
            sync(),
        ]
        .concat(),
    );
    client.answer().expect("bound");
    client.send(
        &[
            parse("", REFUSED, &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    println!("{:?}", client.answer());
    assert_eq!(client.status, 'E');
    client.send(&[execute("p", 0), sync()].concat());
    let answer = client.answer();
    assert_eq!(answer.expect_err("a failed block").code, "25P02");
}

#[test]
fn a_setting_of_a_block_that_moved_is_rolled_back() {
    let fixture = Fixture::start();
    let mut one = fixture.connect();
    let mut two = fixture.connect();
    one.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    let plain = two.value(TIMEOUT);
    one.run("BEGIN");
    one.run("SET statement_timeout = '1234s'");
    assert_eq!(one.value(TIMEOUT), "1234s");
    one.run("ROLLBACK");
    let own = one.value(TIMEOUT);
    let other = two.value(TIMEOUT);
    assert_eq!((own, other), (plain.clone(), plain));
}

#[test]
fn a_setting_behind_a_savepoint_of_a_block_that_moved_is_rolled_back() {
    let fixture = Fixture::start();
    let mut one = fixture.connect();
    let mut two = fixture.connect();
    one.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    let plain = two.value(TIMEOUT);
    one.run("BEGIN");
    one.run("SAVEPOINT a");
    one.run("SET statement_timeout = '1234s'");
    one.run(TIMEOUT);
    one.run("ROLLBACK TO a");
    let own = one.value(TIMEOUT);
    one.run("COMMIT");
    let other = two.value(TIMEOUT);
    assert_eq!((own, other), (plain.clone(), plain));
}

#[test]
fn a_block_with_a_savepoint_of_a_strange_name_moves() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SAVEPOINT \"a.b\"");
    let answer = client.query("SELECT v FROM by_modulo WHERE k = 1");
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn a_portal_of_commit_that_is_executed_again_is_answered() {
    let (databases, herd) = Herd::single("transaction");
    let run = |port: u16| {
        let mut client = Client::connect(port, "app", &databases.name);
        client.run("BEGIN");
        let bytes = [
            parse("", "COMMIT", &[]),
            bind("", "", &[], &[], &[]),
            execute("", 0),
            execute("", 0),
            sync(),
        ];
        client.send(&bytes.concat());
        let lines: Vec<String> = client
            .until_ready()
            .expect("an answer")
            .iter()
            .map(crate::message::Message::line)
            .collect();
        lines
    };
    assert_eq!(run(herd.port), run(databases.reference_port));
}

#[test]
fn set_behind_which_commit_stands_counts_although_the_rest_fails() {
    let (_databases, herd) = Herd::single("transaction");
    let mut one = herd.connect();
    let mut two = herd.connect();
    let plain = two.value("SHOW statement_timeout");
    one.fails("SET statement_timeout = '1234s'; COMMIT; SELECT 1/0");
    let other = two.value("SHOW statement_timeout");
    let own = one.value("SHOW statement_timeout");
    assert_eq!((own.as_str(), other), ("1234s", plain));
}

#[test]
fn set_behind_which_rollback_stands_does_not_count() {
    let (_databases, herd) = Herd::single("transaction");
    let mut one = herd.connect();
    let mut two = herd.connect();
    let plain = one.value("SHOW statement_timeout");
    one.run("SET statement_timeout = '1234s'; ROLLBACK; SELECT 1");
    two.run("SET work_mem = '5MB'");
    let own = one.value("SHOW statement_timeout");
    assert_eq!(own, plain);
}

#[test]
fn a_block_that_moves_off_a_frozen_shard_can_be_ended() {
    let mut clusters: Vec<crate::postgres::Cluster> = (0..2)
        .map(|_| crate::postgres::Cluster::start(""))
        .collect();
    for cluster in &clusters {
        cluster
            .connect("postgres")
            .run("CREATE DATABASE faulty OWNER app");
        Client::connect(cluster.port, "app", "faulty")
            .run("CREATE TABLE t (k bigint PRIMARY KEY, v text)");
    }
    let mut options = Options::new("transaction");
    options.sharded("t", "k", "bigint", "{modulo: all}");
    options
        .set("query_timeout: 1s")
        .set("query_wait_timeout: 1s")
        .set("server_connect_timeout: 1s");
    let ports: Vec<u16> = clusters.iter().map(|cluster| cluster.port).collect();
    let herd = Herd::start_over("faulty", &ports, &options);
    let mut client = herd.connect();
    client.run("SELECT v FROM t WHERE k = 1");
    client.run("BEGIN");
    client.run("SELECT current_schema()");
    clusters[0].signal_all("STOP");
    client.send(&query("SELECT v FROM t WHERE k = 1"));
    let first = client.receive(Duration::from_secs(10));
    println!("{first:?}");
    cancel(herd.port, client.key);
    let then = client.receive(Duration::from_secs(3));
    clusters[0].signal_all("CONT");
    assert!(first.is_ok() || then.is_ok(), "it waits for ever");
    drop(clusters.pop());
}

#[test]
fn a_statement_deallocated_in_a_pipeline_of_texts_is_not_missed_for_ever() {
    let (_databases, herd) = Herd::single("transaction");
    let mut one = herd.connect();
    let group = |name: &str| {
        [
            parse(name, "SELECT 42", &[]),
            bind("", name, &[], &[], &[]),
            execute("", 0),
            sync(),
        ]
        .concat()
    };
    one.send(&group("s1"));
    one.answer().expect("42");
    one.send(
        &[
            query("DEALLOCATE s1; SELECT 5"),
            query("SELECT 6; SELECT 7"),
        ]
        .concat(),
    );
    one.answer().expect("5");
    one.answer().expect("7");
    drop(one);
    let mut two = herd.connect();
    for _ in 0..3 {
        two.send(&group("mine"));
        let answer = two.answer();
        assert!(answer.is_ok(), "another client, for ever: {answer:?}");
        two.send(&[close(b'S', "mine"), sync()].concat());
        two.answer().expect("closed");
    }
}

#[test]
fn a_statement_deallocated_in_a_pipeline_is_parsed_again_behind_it() {
    let (_databases, herd) = Herd::single("session");
    let mut one = herd.connect();
    one.send(&[parse("s1", "SELECT 43", &[]), sync()].concat());
    one.answer().expect("parsed");
    one.send(
        &[
            query("DEALLOCATE s1; SELECT 5"),
            parse("s1", "SELECT 43", &[]),
            bind("", "s1", &[], &[], &[]),
            execute("", 0),
            sync(),
        ]
        .concat(),
    );
    one.answer().expect("5");
    let answer = one.answer();
    assert!(answer.is_ok(), "{answer:?}");
}
