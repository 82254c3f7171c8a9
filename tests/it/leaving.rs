//! What becomes of a client's statements when it leaves.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message::{frame, query};
use crate::shared::Databases;

#[test]
fn what_was_sent_before_terminate_is_carried_out_although_the_socket_is_closed() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("SELECT 1");
    client.send(
        &[
            query("INSERT INTO by_modulo SELECT 16, 1, 'x' FROM pg_sleep(0.3)"),
            frame(b'X', &[]),
        ]
        .concat(),
    );
    drop(client);
    sleep(Duration::from_secs(1));
    assert_eq!(fixture.count_of(16), "1", "PostgreSQL carries it out");
}

#[test]
fn a_session_that_breaks_off_ends_what_it_runs() {
    let (databases, herd) = Herd::single("session");
    let mut client = herd.connect();
    client.run("SELECT pg_advisory_lock(5)");
    client.send(&query("SELECT pg_sleep(30)"));
    sleep(Duration::from_millis(300));
    drop(client);
    let mut past = databases.shard(0);
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let held = past.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'");
        if held == "0" {
            return;
        }
        assert!(Instant::now() < end, "the lock outlives its client by 5 s");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn query_timeout_ends_what_a_session_runs() {
    let databases = Databases::create(1);
    let mut options = Options::new("session");
    options.set("query_timeout: 500ms");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    println!("{:?}", client.query("SELECT pg_sleep(20)"));
    sleep(Duration::from_secs(1));
    let running = databases
        .shard(0)
        .value("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(20)' AND state = 'active'");
    assert_eq!(running, "0", "it goes on without a client");
}
