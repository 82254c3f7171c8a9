//! What clients send or leave unread does not pile up in memory.

use std::io::Write as _;
use std::thread::sleep;
use std::time::Duration;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::{close, parse, query, sync};
use crate::shared::Databases;

/// Writes until the other side takes no more, for a while, or `most` bytes are gone.
fn flood(client: &Client, piece: &[u8], most: usize) -> usize {
    let mut stream = client.sender();
    stream
        .set_write_timeout(Some(Duration::from_secs(2)))
        .expect("not zero");
    let mut sent = 0;
    while sent < most {
        match stream.write(piece) {
            Ok(count) => sent += count,
            Err(_late) => break,
        }
    }
    sent
}

#[test]
fn answers_of_the_proxy_that_nobody_reads_do_not_pile_up() {
    let (_databases, herd) = Herd::single("transaction");
    let client = herd.connect();
    let before = herd.resident();
    let piece: Vec<u8> = std::iter::repeat_n(sync(), 10_000).flatten().collect();
    let sent = flood(&client, &piece, 100 << 20);
    let grown = herd.resident().saturating_sub(before) >> 20;
    println!("sent {} MB, grown by {grown} MB", sent >> 20);
    drop(client);
    assert!(grown < 64, "grown by {grown} MB after {} MB", sent >> 20);
}

#[test]
fn requests_behind_a_slow_one_do_not_pile_up() {
    let (_databases, herd) = Herd::single("transaction");
    let mut client = herd.connect();
    client.send(&query("SELECT pg_sleep(15)"));
    sleep(Duration::from_millis(200));
    let before = herd.resident();
    let piece: Vec<u8> = std::iter::repeat_n(close(b'S', "x"), 10_000)
        .flatten()
        .collect();
    let sent = flood(&client, &piece, 30 << 20);
    let grown = herd.resident().saturating_sub(before) >> 20;
    println!("sent {} MB, grown by {grown} MB", sent >> 20);
    drop(client);
    assert!(grown < 64, "grown by {grown} MB after {} MB", sent >> 20);
}

#[test]
fn parses_that_wait_do_not_pile_up() {
    let (_databases, herd) = Herd::single("transaction");
    let client = herd.connect();
    let before = herd.resident();
    let text = format!("SELECT '{}'", "x".repeat(1000));
    let piece: Vec<u8> = std::iter::repeat_n(parse("", &text, &[]), 100)
        .flatten()
        .collect();
    let sent = flood(&client, &piece, 200 << 20);
    let grown = herd.resident().saturating_sub(before) >> 20;
    println!("sent {} MB, grown by {grown} MB", sent >> 20);
    drop(client);
    assert!(grown < 64, "grown by {grown} MB after {} MB", sent >> 20);
}

#[test]
fn search_paths_do_not_pile_up() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.set("plan_cache_size: 1MB");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    let before = herd.resident();
    for number in 0..4_000 {
        let path: Vec<String> = (0..150)
            .map(|place| format!("s{number}_{place}_{}", "x".repeat(50)))
            .collect();
        client.run(&format!("SET search_path = {}", path.join(", ")));
        client.run("SELECT 1");
    }
    drop(client);
    sleep(Duration::from_millis(500));
    let grown = herd.resident().saturating_sub(before) >> 20;
    println!("grown by {grown} MB");
    assert!(grown < 40, "grown by {grown} MB");
}
