//! SHOW STATS, SHOW SHARDS, SHOW STATE and SHOW SERVERS say what clients did and how servers are.

use std::thread::{scope, sleep, spawn};
use std::time::Duration;

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message;
use crate::postgres::Cluster;

/// The totals that are to be exact: assignments, transactions, statements.
fn counted(herd: &Herd) -> [u64; 3] {
    let answer = herd.console().run("SHOW STATS");
    let at = answer
        .column("database")
        .iter()
        .position(|name| *name == herd.database)
        .expect("the database has its row");
    ["server_assignment", "xact", "query"].map(|name| {
        answer.column(&format!("total_{name}_count"))[at]
            .parse()
            .expect("a number")
    })
}

fn total(herd: &Herd, name: &str) -> u64 {
    let answer = herd.console().run("SHOW STATS");
    let values = answer.column(name);
    let numbers = values.iter().map(|value| value.parse::<u64>());
    numbers.map(|number| number.expect("a number")).sum()
}

/// Runs something, and checks how many assignments, transactions and statements it counts.
fn counts(herd: &Herd, what: &str, wanted: [u64; 3], act: impl FnOnce()) {
    let before = counted(herd);
    act();
    let after = counted(herd);
    let found = [0, 1, 2].map(|index| after[index] - before[index]);
    assert_eq!(
        found, wanted,
        "assignments, transactions, statements of {what}"
    );
}

/// A row of a SHOW as `column=value`, of those that have `value` in `column`.
fn of(console: &mut Client, show: &str, column: &str, value: &str, wanted: &str) -> String {
    let answer = console.run(show);
    let at = answer
        .column(column)
        .iter()
        .position(|found| found == value)
        .unwrap_or_else(|| panic!("{show} has no {column} {value}"));
    answer.column(wanted)[at].clone()
}

#[test]
fn every_statement_and_transaction_counts_once() {
    let fixture = Fixture::start();
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    client.run("INSERT INTO by_jump VALUES (1, 1, 'x')");
    counts(herd, "simple statements", [50, 50, 50], || {
        for _ in 0..50 {
            client.run("SELECT v FROM by_jump WHERE k = 1");
        }
    });
    counts(herd, "extended statements", [50, 50, 50], || {
        for _ in 0..50 {
            client
                .query_with("SELECT v FROM by_jump WHERE k = $1::bigint", &[Some("1")])
                .expect("a row");
        }
    });
    counts(herd, "a failing statement", [1, 1, 1], || {
        client.fails("SELECT 1/0 FROM by_jump WHERE k = 1");
    });
    counts(herd, "a refused statement", [0, 0, 0], || {
        client.fails("SELECT n FROM by_jump FOR UPDATE");
    });
    counts(herd, "a block", [1, 1, 4], || {
        client.run("BEGIN");
        client.run("UPDATE by_jump SET v = 'y' WHERE k = 1");
        client.run("SELECT v FROM by_jump WHERE k = 1");
        client.run("COMMIT");
    });
    counts(herd, "a block in one text", [1, 1, 1], || {
        client.run("BEGIN; UPDATE by_jump SET v = 'y' WHERE k = 1; COMMIT");
    });
    counts(herd, "a chain of two", [1, 2, 5], || {
        client.run("BEGIN");
        client.run("UPDATE by_jump SET v = 'y' WHERE k = 1");
        client.run("COMMIT AND CHAIN");
        client.run("UPDATE by_jump SET v = 'y' WHERE k = 1");
        client.run("ROLLBACK");
    });
    counts(herd, "an empty block", [0, 1, 2], || {
        client.run("BEGIN");
        client.run("ROLLBACK");
    });
    counts(herd, "what the proxy answers", [0, 1, 1], || {
        client.run("SHOW pgherd.route");
    });
    counts(herd, "a Parse alone", [1, 0, 0], || {
        let parse = message::parse("p", "SELECT v FROM by_jump WHERE k = $1", &[]);
        let describe = message::describe(b'S', "p");
        client.send(&[parse, describe, message::sync()].concat());
        client.answer().expect("prepared");
    });
    let execute = || {
        let bind = message::bind("", "p", &[], &[Some(b"1".to_vec())], &[]);
        [bind, message::execute("", 0)].concat()
    };
    counts(herd, "three in a group", [1, 1, 3], || {
        let group = [execute(), execute(), execute(), message::sync()];
        client.send(&group.concat());
        client.answer().expect("rows");
    });
    counts(herd, "three without awaiting an answer", [1, 3, 3], || {
        let mut one = execute();
        one.extend(message::sync());
        client.send(&[one.clone(), one.clone(), one].concat());
        for _ in 0..3 {
            client.answer().expect("a row");
        }
    });
}

#[test]
fn copies_and_statements_over_several_shards_count_once() {
    let fixture = Fixture::start();
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    counts(herd, "COPY into several shards", [4, 1, 1], || {
        let rows = (0..100).map(|key| format!("{key}\t1\tx\n").into_bytes());
        let rows: Vec<Vec<u8>> = rows.collect();
        client
            .copy_in("COPY by_jump FROM STDIN", &rows)
            .expect("copied");
    });
    counts(herd, "COPY into one shard", [1, 1, 1], || {
        client
            .copy_in("COPY at_home FROM STDIN", &[b"1\tx\n".to_vec()])
            .expect("copied");
    });
    counts(herd, "COPY into one shard by Execute", [1, 1, 1], || {
        let group = [
            message::parse("", "COPY at_home FROM STDIN", &[]),
            message::bind("", "", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
            message::frame(b'd', b"2\tx\n"),
            message::frame(b'c', b""),
            message::sync(),
        ];
        client.send(&group.concat());
        client.answer().expect("copied");
    });
    counts(herd, "a read of all shards", [4, 1, 1], || {
        assert_eq!(client.rows("SELECT k FROM by_jump").len(), 100);
    });
    counts(herd, "an INSERT into several shards", [4, 1, 1], || {
        let rows: Vec<String> = (200..260).map(|key| format!("({key}, 1, 'x')")).collect();
        client.run(&format!("INSERT INTO by_jump VALUES {}", rows.join(", ")));
    });
    eventually("each has its route", || {
        let of = |route: &str| {
            let labels = format!("route=\"{route}\"");
            herd.metric("pgherd_statements_total", &labels)
        };
        [of("copy"), of("multi"), of("split")] == [Some(1.0); 3]
    });
}

#[test]
fn a_session_is_given_its_connection_once() {
    let fixture = Fixture::with(&mut Fixture::options("session"));
    let mut client = fixture.connect();
    counts(&fixture.herd, "a session", [1, 21, 22], || {
        for _ in 0..20 {
            client.run("SELECT v FROM by_jump WHERE k = 1");
        }
        client.run("BEGIN");
        client.run("COMMIT");
    });
}

#[test]
fn reads_that_share_a_connection_count_each() {
    let mut options = Fixture::options("transaction");
    options.set("engines: 1").set("default_pool_size: 1");
    let fixture = Fixture::with(&mut options);
    let read = |client: &mut Client| {
        for _ in 0..200 {
            client.run("SELECT v FROM by_jump WHERE k = 1");
        }
    };
    let mut clients: Vec<Client> = (0..8).map(|_| fixture.connect()).collect();
    counts(&fixture.herd, "eight clients", [1600; 3], || {
        scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| read(client));
            }
        });
    });
    let shared = fixture.herd.metric("pgherd_shared_reads_total", "joined");
    assert!(shared.unwrap_or_default() > 0.0, "none was shared");
    let statement = "SELECT v FROM by_jump WHERE k = $1";
    let count = of(
        &mut fixture.herd.console(),
        "SHOW ROUTES",
        "statement",
        statement,
        "count",
    );
    assert_eq!(count, "1600");
}

#[test]
fn times_are_those_of_transactions_statements_and_waits() {
    let mut options = Fixture::options("transaction");
    options.set("engines: 1").set("default_pool_size: 1");
    let fixture = Fixture::with(&mut options);
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SELECT pg_sleep(0.3) FROM by_jump WHERE k = 1");
    client.run("UPDATE by_jump SET v = '' WHERE k = 1");
    let mut second = fixture.connect();
    let waiter = spawn(move || second.run("UPDATE by_jump SET v = '' WHERE k = 1"));
    sleep(Duration::from_millis(400));
    client.run("COMMIT");
    waiter.join().expect("served");
    let within = |name: &str, from: u64, to: u64| {
        let micros = total(herd, name);
        assert!((from..to).contains(&micros), "{name} is {micros}");
    };
    within("total_wait_time", 300_000, 5_000_000);
    within("total_xact_time", 400_000, 5_000_000);
    within("total_query_time", 1, 400_000);
    assert!(total(herd, "avg_xact_time") > 0);
    let waits = herd.metric("pgherd_pool_wait_seconds_count", "shard=");
    assert!(waits.unwrap_or_default() >= 1.0, "{waits:?}");
}

#[test]
fn what_connections_lose_and_servers_close_is_counted() {
    let fixture = Fixture::start();
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    client.run("BEGIN; INSERT INTO at_home VALUES (1, 'x')");
    let mut admin = fixture.databases.shard(0);
    admin.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE state = 'idle in transaction' AND datname = current_database()",
    );
    drop(client.query("SELECT v FROM at_home"));
    drop(client.query("ROLLBACK"));
    eventually("it is counted", || {
        let is = |name, labels| herd.metric(name, labels).unwrap_or_default() > 0.0;
        is("pgherd_server_connections_opened_total", "role=\"primary\"")
            && is("pgherd_server_connections_closed_total", "role=\"primary\"")
            && is("pgherd_transactions_total", "outcome=\"lost\"")
    });
}

#[test]
fn a_shard_whose_server_is_stopped_is_down() {
    let mut cluster = Cluster::start("");
    cluster
        .connect("postgres")
        .run("CREATE DATABASE alone OWNER app");
    let mut options = Options::new("transaction");
    options.set("engines: 2");
    let herd = Herd::start_over("alone", &[cluster.port], &options);
    let mut console = herd.console();
    let mut row = |wanted: &str| of(&mut console, "SHOW SHARDS", "shard", "shard_0", wanted);
    let mut client = herd.connect();
    client.run("CREATE TABLE t (k int)");
    client.run("SELECT 1 FROM t");
    assert_eq!((row("state"), row("reason")), ("up".into(), String::new()));
    assert_eq!(row("statements"), "2");
    cluster.stop("INT");
    let error = client.query("SELECT 1 FROM t").expect_err("it is stopped");
    assert!(error.code.starts_with("08"), "{error:?}");
    drop(client.query("SELECT 1 FROM t"));
    assert_eq!(row("state"), "down");
    assert!(row("reason").contains("shard_0"), "{}", row("reason"));
    assert_ne!(row("errors"), "0");
    cluster.restart();
    client.run("SELECT 1 FROM t");
    assert_eq!((row("state"), row("reason")), ("up".into(), String::new()));
}

#[test]
fn the_state_is_paused_while_everything_is() {
    let fixture = Fixture::start();
    let mut console = fixture.herd.console();
    let state = |console: &mut Client| {
        ["active", "paused"].map(|key| of(console, "SHOW STATE", "key", key, "value"))
    };
    assert_eq!(state(&mut console), ["yes", "no"]);
    console.run("PAUSE");
    assert_eq!(state(&mut console), ["no", "yes"]);
    let error = console.fails("PAUSE");
    assert_eq!(error.code, "57P03", "{error:?}");
    console.run("RESUME");
    assert_eq!(state(&mut console), ["yes", "no"]);
}

#[test]
fn the_servers_of_a_busy_client_are_shown_as_they_are() {
    let fixture = Fixture::start();
    let mut console = fixture.herd.console();
    let mut first = fixture.connect();
    first.run("INSERT INTO at_home VALUES (1, 'x')");
    sleep(Duration::from_millis(1100));
    let mut second = fixture.connect();
    second.run("BEGIN; UPDATE at_home SET v = 'y'");
    let pid = second.value("SELECT pg_backend_pid()");
    let row = |console: &mut Client, wanted: &str| {
        of(console, "SHOW SERVERS", "remote_pid", &pid, wanted)
    };
    assert_eq!(row(&mut console, "state"), "active");
    assert_eq!(row(&mut console, "addr"), "127.0.0.1");
    let port = fixture.databases.shard_ports[0].to_string();
    assert_eq!(row(&mut console, "port"), port);
    let connected = row(&mut console, "connect_time");
    assert!(connected < row(&mut console, "request_time"), "{connected}");
    second.run("ROLLBACK");
    assert_eq!(row(&mut console, "state"), "idle");
    assert_eq!(row(&mut console, "connect_time"), connected);
}
