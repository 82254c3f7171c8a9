//! Transfers between accounts on different shards, while the proxy is killed before, amid and after each message
//! of each phase of their commits: no amount is lost or made, what was acknowledged is there, and what failed
//! is wholly absent.
//!
//! `KILLS` is how often; `SEED` repeats a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::postgres::PATIENCE;
use crate::random::Random;
use crate::shared::Databases;

const SHARDS: usize = 3;
const ACCOUNTS: usize = 30;
const CLIENTS: usize = 4;
/// Transfers of one client before it gives up waiting for the kill.
const TRANSFERS: usize = 60;

/// Where the proxy is killed, and at the how manyth time at most.
const POINTS: [(&str, usize); 21] = [
    ("before_decide", 12),
    ("sent_decide", 12),
    ("after_decide", 12),
    ("before_prepare", 20),
    ("sent_prepare", 20),
    ("after_prepare", 20),
    ("before_commit", 12),
    ("sent_commit", 12),
    ("after_commit", 12),
    ("before_commit_prepared", 20),
    ("sent_commit_prepared", 20),
    ("after_commit_prepared", 20),
    ("before_rollback", 3),
    ("sent_rollback", 3),
    ("after_rollback", 3),
    ("before_rollback_prepared", 3),
    ("sent_rollback_prepared", 3),
    ("after_rollback_prepared", 3),
    ("before_settle", 1),
    ("after_settle", 1),
    ("after_finish", 1),
];

/// What became of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Acknowledged,
    Failed,
    Unknown,
}

fn options() -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("account", "id", "bigint", "{modulo: all}")
        .sharded("entry", "account", "bigint", "{modulo: all}")
        .set("recovery: {every: 100ms, age: 0s}")
        .set("default_pool_size: 10");
    options
}

/// One transfer between accounts of two or three shards. Every few are doomed: a constraint that is checked at
/// the commit fails on the last shard.
fn transfer(client: &mut Client, number: usize, random: &mut Random) -> End {
    let from = random.below(ACCOUNTS);
    let to = (from + 1 + random.below(2)) % ACCOUNTS;
    let by = 1 + random.below(9);
    let doomed = number % 4 == 3;
    let mut statements = vec![
        "BEGIN".to_owned(),
        format!("UPDATE account SET balance = balance - {by} WHERE id = {from}"),
        format!("INSERT INTO entry VALUES ({from}, {number}, -{by})"),
        format!("UPDATE account SET balance = balance + {by} WHERE id = {to}"),
        format!("INSERT INTO entry VALUES ({to}, {number}, {by})"),
    ];
    if random.chance(30) {
        let third = (from + 3 - random.below(2)) % ACCOUNTS;
        statements.push(format!("INSERT INTO entry VALUES ({third}, {number}, 0)"));
    }
    if doomed {
        statements.push(format!("INSERT INTO entry VALUES ({to}, {number}, 0)"));
    }
    for sql in statements {
        if let Err(error) = client.query(&sql) {
            drop(client.query("ROLLBACK"));
            assert!(
                error.code.is_empty() || error.code.starts_with("08") || error.code == "40P01",
                "{sql}: {error:?}"
            );
            return End::Failed;
        }
    }
    match client.query("COMMIT") {
        Ok(answer) if answer.tags == ["COMMIT"] => {
            assert!(!doomed, "a constraint was not checked");
            End::Acknowledged
        }
        Ok(answer) => panic!("COMMIT answered {answer:?}"),
        Err(error) if error.code.is_empty() || error.code == "08007" => End::Unknown,
        Err(_) => End::Failed,
    }
}

/// Runs transfers until the proxy dies, or for a while.
fn run(herd: &Herd, numbers: &AtomicUsize, random: &mut Random) -> Vec<(usize, End)> {
    let seeds: Vec<u64> = (0..CLIENTS).map(|_| random.next()).collect();
    scope(|scope| {
        let started: Vec<_> = seeds
            .into_iter()
            .map(|seed| {
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let mut ends = Vec::new();
                    let Ok(mut client) = Client::try_connect(herd.port, "app", &herd.database)
                    else {
                        return ends;
                    };
                    for _ in 0..TRANSFERS {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let end = transfer(&mut client, number, &mut random);
                        ends.push((number, end));
                        if client.query("SELECT 1").is_err() {
                            break;
                        }
                    }
                    ends
                })
            })
            .collect();
        let ended = started.into_iter().map(|one| one.join().expect("no panic"));
        ended.flatten().collect()
    })
}

/// Waits until nothing is prepared and nobody holds a transaction open.
fn settle(databases: &Databases) {
    let deadline = Instant::now() + PATIENCE;
    for shard in 0..SHARDS {
        let mut client = databases.shard(shard);
        let left =
            "SELECT (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())
            + (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
               AND state LIKE 'idle in transaction%')";
        while client.value(left) != "0" {
            assert!(Instant::now() < deadline, "something is left prepared");
            sleep(Duration::from_millis(20));
        }
    }
}

/// Compares the books with what the clients know.
fn audit(databases: &Databases, ends: &BTreeMap<usize, End>, what: &str) {
    let mut sum = 0;
    let mut entries: BTreeMap<usize, (i64, usize)> = BTreeMap::new();
    for shard in 0..SHARDS {
        let mut client = databases.shard(shard);
        let balance: i64 = client
            .value("SELECT coalesce(sum(balance), 0) FROM account")
            .parse()
            .expect("a number");
        let entered: i64 = client
            .value("SELECT coalesce(sum(amount), 0) FROM entry")
            .parse()
            .expect("a number");
        let accounts: i64 = client
            .value("SELECT 100 * count(*) FROM account")
            .parse()
            .expect("a number");
        assert_eq!(balance, accounts + entered, "{what}: shard {shard}");
        sum += balance;
        for row in client.rows("SELECT transfer, amount FROM entry WHERE amount <> 0") {
            let [Some(transfer), Some(amount)] = row.as_slice() else {
                panic!("{row:?}");
            };
            let entry = entries
                .entry(transfer.parse().expect("a number"))
                .or_default();
            entry.0 += amount.parse::<i64>().expect("a number");
            entry.1 += 1;
        }
    }
    assert_eq!(sum, 100 * i64::try_from(ACCOUNTS).expect("few"), "{what}");
    for (transfer, (amount, count)) in &entries {
        assert_eq!(
            (*amount, *count),
            (0, 2),
            "{what}: transfer {transfer} is half there"
        );
        assert_ne!(
            ends.get(transfer),
            Some(&End::Failed),
            "{what}: transfer {transfer} failed and is there"
        );
    }
    for (transfer, end) in ends {
        let is_there = entries.contains_key(transfer);
        assert!(
            *end != End::Acknowledged || is_there,
            "{what}: transfer {transfer} was acknowledged and is not there"
        );
    }
}

#[test]
fn transfers_survive_kills_at_each_step_of_their_commit() {
    let kills: usize = std::env::var("KILLS").map_or(30, |kills| kills.parse().expect("a number"));
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let databases = Databases::create(SHARDS);
    for shard in 0..SHARDS {
        databases.shard(shard).run(&format!(
            "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL);
             CREATE TABLE entry (account bigint, transfer bigint, amount bigint,
                                 UNIQUE (account, transfer) DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO account SELECT g, 100 FROM generate_series(0, {}) g WHERE g % {SHARDS} = {shard}",
            ACCOUNTS - 1
        ));
    }
    // It recovers all the while, also what is about to end by itself.
    let healer = Herd::start(&databases, &options());
    let numbers = AtomicUsize::new(0);
    let mut ends = BTreeMap::new();
    let (mut done, mut tries) = (0, 0);
    while done < kills {
        tries += 1;
        assert!(
            tries < 3 * kills + 20,
            "the proxy does not die: {done} of {tries}"
        );
        let (point, most) = POINTS[tries % POINTS.len()];
        let at = format!("{point}:{}", 1 + random.below(most));
        let mut mortal = options();
        mortal.failpoint = Some(at.clone());
        let mut herd = Herd::start(&databases, &mortal);
        ends.extend(run(&herd, &numbers, &mut random));
        if herd.wait(Duration::from_millis(200)).is_some() {
            done += 1;
        }
        drop(herd);
        settle(&databases);
        audit(&databases, &ends, &at);
    }
    drop(healer);
    let acknowledged = ends
        .values()
        .filter(|end| **end == End::Acknowledged)
        .count();
    println!(
        "{done} kills, {} transfers, {acknowledged} acknowledged",
        ends.len()
    );
    assert!(acknowledged > done, "nearly nothing was committed");
}
