//! CancelRequest: with the client's own key it stops the client's statement and nobody else's.

use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::client::{Client, cancel};
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::load::{eventually, waiting};
use crate::message;
use crate::shared::{Databases, SHARDS};

fn start(settings: &[&str]) -> (Databases, Herd) {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (id serial, v text)");
    let mut options = Options::new("transaction");
    for setting in settings {
        options.set(setting);
    }
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

/// Statements that sleep on a shard now.
fn sleeping(databases: &Databases, shard: usize) -> String {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()";
    databases.shard(shard).value(sql)
}

#[test]
fn the_own_key_stops_the_statement() {
    let (databases, herd) = start(&[]);
    let mut client = herd.connect();
    for in_block in [false, true] {
        if in_block {
            client.run("BEGIN; SELECT * FROM t");
        }
        let key = client.key;
        let thread = spawn(move || {
            let error = client.fails("SELECT pg_sleep(60)");
            (client, error)
        });
        eventually("it sleeps", || sleeping(&databases, 0) == "1");
        cancel(herd.port, (key.0, key.1 ^ 1));
        cancel(herd.port, (key.0 ^ 1, key.1));
        cancel(herd.port, (0, 0));
        sleep(Duration::from_millis(200));
        assert_eq!(sleeping(&databases, 0), "1", "a wrong key does nothing");
        cancel(herd.port, key);
        let (back, error) = thread.join().expect("a client does not panic");
        client = back;
        assert_eq!(error.code, "57014", "{error:?}");
        assert_eq!(client.status, if in_block { 'E' } else { 'I' });
    }
    client.run("ROLLBACK");
    client.run("SELECT 1");
}

#[test]
fn an_idle_client_has_nothing_to_cancel() {
    let (databases, herd) = start(&["default_pool_size: 1"]);
    let (mut idle, mut busy) = (herd.connect(), herd.connect());
    idle.run("SELECT * FROM t");
    let key = idle.key;
    let thread = spawn(move || busy.run("SELECT pg_sleep(1.5), 'slept'"));
    eventually("it sleeps", || sleeping(&databases, 0) == "1");
    for _ in 0..5 {
        cancel(herd.port, key);
    }
    thread
        .join()
        .expect("the other's statement on the same server is not touched");
    idle.run("SELECT * FROM t");
}

#[test]
fn a_waiting_client_can_be_cancelled() {
    let (_databases, herd) = start(&["default_pool_size: 1"]);
    let mut holder = herd.connect();
    holder.run("BEGIN; SELECT * FROM t");
    let mut client = herd.connect();
    let key = client.key;
    let thread = spawn(move || client.query("SELECT * FROM t"));
    eventually("it waits", || waiting(&herd) == 1);
    cancel(herd.port, key);
    let error = thread
        .join()
        .expect("a client does not panic")
        .expect_err("cancelled");
    assert_eq!(error.code, "57014", "{error:?}");
    holder.run("COMMIT");
    herd.connect().run("SELECT * FROM t");
}

#[test]
fn a_statement_of_all_shards_is_cancelled_on_all() {
    let fixture = Fixture::start();
    for shard in 0..SHARDS {
        let key = "INSERT INTO by_modulo VALUES ";
        fixture
            .databases
            .shard(shard)
            .run(&format!("{key} ({shard}, 1, 'x')"));
    }
    let mut client = fixture.connect();
    client.run("SELECT * FROM by_modulo");
    let key = client.key;
    let thread = spawn(move || {
        let error = client.fails("SELECT k, pg_sleep(60) FROM by_modulo");
        (client, error)
    });
    let all_sleep = || (0..SHARDS).all(|shard| sleeping(&fixture.databases, shard) == "1");
    let refused = eventually_or_ended(&thread, all_sleep);
    if !refused {
        cancel(fixture.herd.port, key);
    }
    let (mut client, error) = thread.join().expect("a client does not panic");
    let wanted = if refused { "0A000" } else { "57014" };
    assert_eq!(error.code, wanted, "{error:?}");
    let none_sleeps = || (0..SHARDS).all(|shard| sleeping(&fixture.databases, shard) == "0");
    eventually("no shard sleeps", none_sleeps);
    client.run("SELECT * FROM by_modulo");
}

#[test]
fn a_statement_of_all_shards_that_waits_for_one_can_be_cancelled() {
    for mode in ["transaction", "session"] {
        let fixture = Fixture::with(Fixture::options(mode).set("default_pool_size: 1"));
        let (mut client, mut holder) = (fixture.connect(), fixture.connect());
        holder.run("BEGIN; SELECT * FROM by_modulo WHERE k = 2");
        if mode == "session" {
            client.run("SELECT pg_advisory_lock(7), count(*) FROM by_modulo WHERE k = 0");
        }
        client.send(&message::query("SELECT k FROM by_modulo"));
        eventually("it waits", || waiting(&fixture.herd) == 1);
        cancel(fixture.herd.port, client.key);
        let error = client.answer().expect_err("cancelled");
        assert_eq!(error.code, "57014", "{error:?}");
        drop(holder);
        assert!(client.rows("SELECT k FROM by_modulo").is_empty());
        // What the session keeps on the shards it held meanwhile is still there.
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7";
        let held = if mode == "session" { "1" } else { "0" };
        assert_eq!(fixture.databases.shard(0).value(sql), held, "{mode}");
    }
}

/// Whether the thread ended before the condition held.
fn eventually_or_ended<T>(
    thread: &std::thread::JoinHandle<T>,
    mut holds: impl FnMut() -> bool,
) -> bool {
    let mut ended = false;
    eventually("it runs on all shards", || {
        ended = thread.is_finished();
        ended || holds()
    });
    ended
}

#[test]
fn cancels_in_a_storm_hit_only_their_own() {
    let (_databases, herd) = start(&["default_pool_size: 2"]);
    let mut victim = herd.connect();
    let (port, key) = (herd.port, victim.key);
    let storm = spawn(move || (0..150).for_each(|_| cancel(port, key)));
    let others: Vec<_> = (0..4)
        .map(|_| {
            let mut client: Client = herd.connect();
            spawn(move || (0..150).for_each(|_| drop(client.run("SELECT count(*) FROM t"))))
        })
        .collect();
    let mut cancelled = 0;
    while !storm.is_finished() {
        match victim.query("SELECT count(*) FROM t") {
            Ok(_) => (),
            Err(error) if error.code == "57014" => cancelled += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    storm
        .join()
        .expect("every cancel is answered by the end of its connection");
    for other in others {
        other.join().expect("nobody else is cancelled");
    }
    println!("{cancelled} of the victim's statements were cancelled");
    eventually("the victim goes on", || victim.query("SELECT 1").is_ok());
}

#[test]
fn what_is_given_up_cancels_nothing_that_comes_behind() {
    let mut options = Fixture::options("session");
    let fixture = Fixture::with(&mut options);
    let mut client = fixture.connect();
    // The shard of key 1 fails at its first row, the others have many to send.
    client.run("INSERT INTO by_modulo (k, n, v) VALUES (1, 0, 'x')");
    for key in ["2", "3", "4"] {
        let rows: Vec<String> = (0..3_000).map(|n| format!("({key}, {n}, 'v')")).collect();
        let rows = rows.join(", ");
        client.run(&format!("INSERT INTO by_modulo (k, n, v) VALUES {rows}"));
    }
    for _ in 0..60 {
        let error = client.fails("SELECT repeat(v, 500), 1 / (k - 1) FROM by_modulo");
        assert_eq!(error.code, "22012", "{error:?}");
        for key in ["2", "3", "4"] {
            let sql = format!("SELECT pg_sleep(0.003) FROM by_modulo WHERE k = {key} AND n = 0");
            client.run(&sql);
        }
    }
}
