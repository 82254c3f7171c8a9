//! LISTEN in transaction pooling: who hears what, and from when on.

use std::thread::sleep;
use std::time::Duration;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::query;
use crate::shared::Databases;

fn start() -> (Databases, Herd) {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.set("default_pool_size: 5").set("engines: 1");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

/// The channels that were heard, after a notification on `c` and one on `d`.
fn heard(client: &mut Client, sender: &mut Client) -> Vec<String> {
    sender.run("NOTIFY c");
    sender.run("NOTIFY d");
    sleep(Duration::from_millis(300));
    client.send(&query("SELECT 1"));
    let mut messages = client.until_ready().expect("an answer");
    while let Ok(message) = client.receive(Duration::from_millis(100)) {
        messages.push(message);
    }
    let mut lines: Vec<String> = messages
        .iter()
        .filter(|message| message.tag == b'A')
        .map(crate::message::Message::line)
        .collect();
    lines.sort_unstable();
    lines
}

#[test]
fn what_a_transaction_listens_to_counts_from_its_commit() {
    let (databases, herd) = start();
    let mut faults = Vec::new();
    for statements in [
        &["LISTEN c", "BEGIN", "UNLISTEN c", "ROLLBACK"][..],
        &["LISTEN c", "BEGIN", "UNLISTEN *", "ROLLBACK"],
        &["LISTEN c", "BEGIN", "LISTEN c", "ROLLBACK"],
        &["BEGIN", "LISTEN c", "ROLLBACK"],
        &["BEGIN", "LISTEN c", "COMMIT"],
        &["LISTEN c", "BEGIN", "UNLISTEN c", "LISTEN d", "COMMIT"],
        &["BEGIN", "LISTEN c", "UNLISTEN *", "LISTEN d", "COMMIT"],
        &[
            "BEGIN",
            "SAVEPOINT a",
            "LISTEN c",
            "ROLLBACK TO a",
            "COMMIT",
        ],
        &[
            "BEGIN",
            "LISTEN d",
            "SAVEPOINT a",
            "LISTEN c",
            "RELEASE a",
            "COMMIT",
        ],
        &[
            "BEGIN",
            "LISTEN c",
            "SAVEPOINT a",
            "UNLISTEN *",
            "ROLLBACK TO a",
            "LISTEN d",
            "COMMIT",
        ],
        &["BEGIN", "LISTEN c", "SELECT 1/0", "COMMIT"],
        &["LISTEN c; SELECT 1/0"],
        &["LISTEN c; SELECT 1"],
        &["LISTEN c; COMMIT; SELECT 1/0"],
        &["LISTEN c; BEGIN; LISTEN d", "ROLLBACK"],
        &["BEGIN; LISTEN c; COMMIT; BEGIN; UNLISTEN c; ROLLBACK"],
        &[
            "BEGIN",
            "LISTEN c",
            "COMMIT AND CHAIN",
            "LISTEN d",
            "ROLLBACK",
        ],
        &[
            "LISTEN c",
            "BEGIN",
            "LISTEN d",
            "ROLLBACK AND CHAIN",
            "COMMIT",
        ],
        &["LISTEN c", "UNLISTEN c", "LISTEN d"],
        &["LISTEN c", "DISCARD ALL", "LISTEN d"],
        &[
            "SELECT pg_advisory_lock(4711)",
            "BEGIN",
            "LISTEN c",
            "COMMIT",
        ],
    ] {
        let mut client = herd.connect();
        let mut plain = databases.reference();
        for sql in statements {
            drop((client.query(sql), plain.query(sql)));
        }
        let found = heard(&mut client, &mut herd.connect());
        let wanted = heard(&mut plain, &mut databases.reference());
        if found != wanted {
            faults.push(format!("{statements:?}: {found:?}, PostgreSQL {wanted:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_pipeline_around_a_commit_listens() {
    let (_databases, herd) = start();
    let mut client = herd.connect();
    client.run("BEGIN");
    let pipeline = [
        "LISTEN c",
        "COMMIT",
        "LISTEN d",
        "BEGIN",
        "UNLISTEN d",
        "ROLLBACK",
    ];
    client.send(&pipeline.map(query).concat());
    for _ in pipeline {
        client.answer().expect("carried out");
    }
    assert_eq!(heard(&mut client, &mut herd.connect()).len(), 2);
}

#[test]
fn a_second_listener_hears_from_its_answer_on() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.set("engines: 1");
    for _ in 0..5 {
        let herd = Herd::start(&databases, &options);
        let (mut one, mut two) = (herd.connect(), herd.connect());
        let mut sender = databases.shard(0);
        sender.run("SELECT 1");
        one.send(&query("LISTEN c"));
        sleep(Duration::from_millis(1));
        two.run("LISTEN c");
        sender.run("NOTIFY c, 'x'");
        let message = two.receive(Duration::from_secs(5)).expect("a notification");
        assert_eq!(message.tag, b'A');
    }
}
