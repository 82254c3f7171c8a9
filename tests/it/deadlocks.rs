//! Deadlocks that no server sees: clients that wait for each other on several shards, through several proxies, or for
//! connections of a pool. One of them is ended with 40P01, the others go on; nobody else is.

use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::client::{Answer, Client, ServerError};
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message::{bind, execute, parse, query, sync};
use crate::postgres::PATIENCE;
use crate::random::Random;

/// A statement that runs in a thread of its own, and the client with it.
struct Running(JoinHandle<(Client, Result<Answer, ServerError>)>);

impl Running {
    fn end(self) -> (Client, Result<Answer, ServerError>) {
        self.0.join().expect("the thread ends")
    }

    /// It goes on once the victim is out of its way, and its block ends.
    fn wins(self, end: &str) {
        let (mut client, won) = self.end();
        won.expect("it goes on");
        client.run(end);
    }
}

/// Runs a statement that waits: returns when a server says that one more process does.
fn waits(fixture: &Fixture, mut client: Client, sql: &str) -> Running {
    let before = waiting(fixture);
    let sql = sql.to_owned();
    let running = Running(spawn(move || {
        let answer = client.query(&sql);
        (client, answer)
    }));
    until(|| waiting(fixture) > before);
    running
}

/// Processes that wait for a lock on the shards.
fn waiting(fixture: &Fixture) -> usize {
    let on = |shard: usize| {
        let port = fixture.databases.shard_ports[shard];
        let mut client = Client::connect(port, "postgres", &fixture.databases.name);
        let count = client.value(
            "SELECT count(*) FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND datname = current_database()",
        );
        count.parse::<usize>().expect("a number")
    };
    (0..crate::shared::SHARDS).map(on).sum()
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come to that");
        sleep(Duration::from_millis(20));
    }
}

/// A fixture with a row of `by_modulo` on each shard.
fn start(options: &mut Options) -> Fixture {
    let fixture = Fixture::with(options);
    let mut client = fixture.connect();
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'x'), (1, 1, 'x'), (2, 1, 'x'), (3, 1, 'x')");
    fixture
}

fn plain() -> Fixture {
    start(&mut Fixture::options("transaction"))
}

fn update(key: i64, value: &str) -> String {
    format!("UPDATE by_modulo SET v = '{value}' WHERE k = {key} AND n = 1")
}

/// A client in a block that has written this key.
fn writer(herd: &Herd, key: i64, value: &str) -> Client {
    let mut client = herd.connect();
    client.run("BEGIN");
    client.run(&update(key, value));
    client
}

fn deadlocks(herd: &Herd) -> u64 {
    let count = herd.metric("pgherd_deadlocks_total", "").unwrap_or(0.0);
    count.to_string().parse().expect("a whole number")
}

/// Checks what a victim is told, and that its block is as PostgreSQL would leave it.
fn check_victim(client: &mut Client, error: &ServerError, steps: usize) {
    assert_eq!(error.code, "40P01", "{error:?}");
    assert_eq!(error.message, "deadlock detected");
    let detail = &error.detail;
    assert_eq!(detail.lines().count(), steps, "{detail}");
    for line in detail.lines() {
        assert!(line.starts_with("Process ") || line.starts_with("The transaction of process "));
        assert!(line.contains("shard \"shard_"), "{line}");
        assert!(line.contains(" waits for "), "{line}");
    }
    if client.status == 'E' {
        assert_eq!(client.fails("SELECT 1").code, "25P02");
        assert_eq!(client.run("COMMIT").tags, ["ROLLBACK"]);
    }
    assert_eq!(client.status, 'I');
}

fn values(fixture: &Fixture) -> String {
    let rows = fixture.connect().run("SELECT v FROM by_modulo ORDER BY k");
    rows.column("v").concat()
}

#[test]
fn two_that_cross_on_two_shards_end_with_one() {
    let fixture = plain();
    let first = writer(&fixture.herd, 0, "a");
    let second = writer(&fixture.herd, 1, "b");
    let first = waits(&fixture, first, &update(1, "a"));
    let second = waits(&fixture, second, &update(0, "b"));
    let (mut second, lost) = second.end();
    let (mut first, won) = first.end();
    // The younger one.
    check_victim(&mut second, &lost.expect_err("it is ended"), 2);
    won.expect("it goes on");
    first.run("COMMIT");
    assert_eq!(values(&fixture), "aaxx");
    assert_eq!(deadlocks(&fixture.herd), 1);
    // Both serve on.
    second.run(&update(0, "c"));
    first.run(&update(1, "c"));
    assert_eq!(values(&fixture), "ccxx");
}

#[test]
fn three_on_three_shards_end_with_one() {
    let fixture = plain();
    let clients: Vec<Client> = (0..3)
        .map(|key| writer(&fixture.herd, key, &key.to_string()))
        .collect();
    let mut running: Vec<Running> = clients
        .into_iter()
        .zip(0..)
        .map(|(client, key)| waits(&fixture, client, &update((key + 1) % 3, &key.to_string())))
        .collect();
    let (mut last, lost) = running.pop().expect("three").end();
    check_victim(&mut last, &lost.expect_err("it is ended"), 3);
    // The second goes on, and when it is committed the first.
    running.pop().expect("two").wins("COMMIT");
    running.pop().expect("one").wins("COMMIT");
    assert_eq!(values(&fixture), "001x");
    assert_eq!(deadlocks(&fixture.herd), 1);
}

#[test]
fn clients_of_two_proxies_end_with_one() {
    let fixture = plain();
    let other = Herd::start(&fixture.databases, &Fixture::options("transaction"));
    for (older, younger) in [(&fixture.herd, &other), (&other, &fixture.herd)] {
        let before = deadlocks(younger);
        let first = writer(older, 2, "a");
        let second = writer(younger, 3, "b");
        let first = waits(&fixture, first, &update(3, "a"));
        let second = waits(&fixture, second, &update(2, "b"));
        let (mut second, lost) = second.end();
        check_victim(&mut second, &lost.expect_err("it is ended"), 2);
        first.wins("COMMIT");
        assert_eq!(values(&fixture), "xxaa");
        assert_eq!(deadlocks(younger), before + 1);
    }
    assert_eq!(deadlocks(&fixture.herd) + deadlocks(&other), 2);
    // Nothing is told any more.
    let mut home = fixture.databases.shard(0);
    until(|| home.value("SELECT count(*) FROM pgherd.waiting") == "0");
}

#[test]
fn a_process_past_the_proxy_is_part_of_a_circle() {
    let fixture = plain();
    // The first waits on shard_1 for one past the proxy, which waits there for the second.
    let first = writer(&fixture.herd, 0, "a");
    let mut second = writer(&fixture.herd, 1, "b");
    let mut past = fixture.databases.shard(1);
    past.run("INSERT INTO by_modulo VALUES (5, 1, 'x')");
    past.run("BEGIN");
    past.run(&update(5, "p"));
    second.run("SELECT 1");
    let past = waits(&fixture, past, &update(1, "p"));
    let first = waits(&fixture, first, &update(5, "a"));
    let second = waits(&fixture, second, &update(0, "b"));
    let (mut second, lost) = second.end();
    check_victim(&mut second, &lost.expect_err("it is ended"), 3);
    past.wins("COMMIT");
    first.wins("COMMIT");
    assert_eq!(values(&fixture), "apxxa");
}

#[test]
fn a_victim_of_the_extended_protocol_skips_to_its_sync() {
    let fixture = plain();
    let first = writer(&fixture.herd, 0, "a");
    let mut second = writer(&fixture.herd, 1, "b");
    let first = waits(&fixture, first, &update(1, "a"));
    // Three groups in one piece: the second of the first group waits, and what is behind it never runs.
    let step = |key: &str| {
        [
            parse("", "UPDATE by_modulo SET v = 'b' WHERE k = $1", &[20]),
            bind("", "", &[], &[Some(key.as_bytes().to_vec())], &[]),
            execute("", 0),
        ]
        .concat()
    };
    let groups = [
        step("1"),
        step("0"),
        step("1"),
        sync(),
        step("1"),
        sync(),
        query("SELECT 1"),
    ];
    second.send(&groups.concat());
    let group = second.until_ready().expect("an answer");
    let tags: String = group
        .iter()
        .map(|message| char::from(message.tag))
        .collect();
    assert_eq!(tags, "12C12EZ");
    let error = &group[group.len() - 2];
    assert_eq!(error.field('C'), "40P01");
    assert_eq!(error.field('M'), "deadlock detected");
    for _ in 0..2 {
        let group = second.until_ready().expect("an answer");
        assert_eq!(group[0].field('C'), "25P02");
        assert_eq!(second.status, 'E');
    }
    assert_eq!(second.run("ROLLBACK").tags, ["ROLLBACK"]);
    first.wins("COMMIT");
    assert_eq!(values(&fixture), "aaxx");
}

#[test]
fn a_victim_without_begin_loses_its_group_alone() {
    let fixture = plain();
    let first = writer(&fixture.herd, 0, "a");
    let mut second = fixture.connect();
    // A group of messages over two shards is a transaction; so is a text.
    let step = |key: &str| {
        [
            parse("", "UPDATE by_modulo SET v = 'b' WHERE k = $1", &[20]),
            bind("", "", &[], &[Some(key.as_bytes().to_vec())], &[]),
            execute("", 0),
        ]
        .concat()
    };
    second.send(&[step("1"), step("2"), step("0"), sync(), step("3"), sync()].concat());
    until(|| waiting(&fixture) == 1);
    let first = waits(&fixture, first, &update(1, "a"));
    let group = second.until_ready().expect("an answer");
    let tags: String = group
        .iter()
        .map(|message| char::from(message.tag))
        .collect();
    assert_eq!(tags, "12C12C12EZ");
    assert_eq!(group[group.len() - 2].field('C'), "40P01");
    assert_eq!(second.status, 'I');
    // The group behind it is one of its own.
    let group = second.until_ready().expect("an answer");
    let tags: String = group
        .iter()
        .map(|message| char::from(message.tag))
        .collect();
    assert_eq!(tags, "12CZ");
    first.wins("COMMIT");
    assert_eq!(values(&fixture), "aaxb");
}

#[test]
fn a_victim_goes_back_to_its_savepoint() {
    let fixture = plain();
    let first = writer(&fixture.herd, 0, "a");
    let mut second = writer(&fixture.herd, 2, "b");
    second.run("SAVEPOINT s");
    second.run(&update(1, "b"));
    let first = waits(&fixture, first, &update(1, "a"));
    let second = waits(&fixture, second, &update(0, "b"));
    let (mut second, lost) = second.end();
    assert_eq!(lost.expect_err("it is ended").code, "40P01");
    let (mut first, won) = first.end();
    won.expect("it goes on");
    second.run("ROLLBACK TO s");
    second.run(&update(3, "b"));
    first.run("COMMIT");
    second.run("COMMIT");
    assert_eq!(values(&fixture), "aabb");
}

#[test]
fn statements_over_several_shards_are_ended_too() {
    let fixture = plain();
    let wide = [
        (
            "UPDATE by_modulo SET v = 'w'",
            update(1, "a"),
            update(0, "a"),
        ),
        (
            "INSERT INTO by_modulo VALUES (0, 2, 'w'), (1, 2, 'w')",
            "INSERT INTO by_modulo VALUES (1, 2, 'a')".to_owned(),
            "INSERT INTO by_modulo VALUES (0, 2, 'a')".to_owned(),
        ),
        ("TRUNCATE by_modulo", update(1, "a"), update(0, "a")),
    ];
    for (sql, held, wanted) in &wide {
        for in_block in [false, true] {
            // The older one holds what the statement comes to last.
            let mut first = fixture.connect();
            first.run("BEGIN");
            first.run(held);
            let mut second = fixture.connect();
            if in_block {
                second.run("BEGIN");
            }
            let second = waits(&fixture, second, sql);
            let first = waits(&fixture, first, wanted);
            let (mut second, lost) = second.end();
            check_victim(&mut second, &lost.expect_err("it is ended"), 2);
            first.wins("ROLLBACK");
            // It serves on.
            assert_eq!(second.value("SELECT count(*) FROM by_modulo"), "4");
            second.run("BEGIN");
            second.run(sql);
            second.run("ROLLBACK");
        }
    }
    assert_eq!(deadlocks(&fixture.herd), 6);
    assert_eq!(values(&fixture), "xxxx");
}

#[test]
fn a_copy_over_several_shards_is_ended_too() {
    let fixture = plain();
    let mut first = fixture.connect();
    first.run("BEGIN");
    first.run("INSERT INTO by_modulo VALUES (1, 3, 'a')");
    let mut second = fixture.connect();
    let before = waiting(&fixture);
    let copying = spawn(move || {
        let rows = b"0\t3\tb\n1\t3\tb\n".to_vec();
        let answer = second.copy_in("COPY by_modulo FROM STDIN", &[rows]);
        (second, answer)
    });
    until(|| waiting(&fixture) > before);
    let first = waits(&fixture, first, "INSERT INTO by_modulo VALUES (0, 3, 'a')");
    let (mut second, lost) = copying.join().expect("the thread ends");
    check_victim(&mut second, &lost.expect_err("it is ended"), 2);
    first.wins("COMMIT");
    assert_eq!(
        second.value("SELECT count(*) FROM by_modulo WHERE n = 3"),
        "2"
    );
}

#[test]
fn who_waits_for_each_others_connections_ends_with_one() {
    let mut options = Fixture::options("transaction");
    options.set("default_pool_size: 1");
    let fixture = start(&mut options);
    let mut first = writer(&fixture.herd, 0, "a");
    let mut second = writer(&fixture.herd, 1, "b");
    let first = Running(spawn(move || {
        let answer = first.query(&update(1, "a"));
        (first, answer)
    }));
    until(|| {
        let rows = fixture.herd.console().run("SHOW CLIENTS");
        rows.column("state").contains(&"waiting".to_owned())
    });
    let answer = second.query(&update(0, "b"));
    check_victim(&mut second, &answer.expect_err("it is ended"), 2);
    first.wins("COMMIT");
    assert_eq!(values(&fixture), "aaxx");
    assert_eq!(deadlocks(&fixture.herd), 1);
}

#[test]
fn a_wait_for_a_connection_and_one_for_a_lock_make_a_circle() {
    let mut options = Fixture::options("transaction");
    options.set("default_pool_size: 2").set("engines: 2");
    let fixture = start(&mut options);
    let mut first = writer(&fixture.herd, 0, "a");
    let second = writer(&fixture.herd, 1, "b");
    let mut third = fixture.connect();
    third.run("BEGIN");
    third.run("INSERT INTO by_modulo VALUES (5, 1, 'c')");
    // The first wants one of the connections to shard_1: one is with the second, which waits for the first, the
    // other with the third, which may go on.
    let second = waits(&fixture, second, &update(0, "b"));
    let first = Running(spawn(move || {
        let answer = first.query(&update(9, "a"));
        (first, answer)
    }));
    told_often(&mut fixture.databases.shard(0));
    assert_eq!(deadlocks(&fixture.herd), 0);
    // Until it wants one of those to shard_0, which are with the first and the second.
    let answer = third.query(&update(4, "c"));
    check_victim(&mut third, &answer.expect_err("it is ended"), 2);
    first.wins("COMMIT");
    second.wins("COMMIT");
    assert_eq!(values(&fixture), "bbxx");
    assert_eq!(deadlocks(&fixture.herd), 1);
}

/// Waits until the proxy has looked several times.
fn told_often(home: &mut Client) {
    let mut times = std::collections::BTreeSet::new();
    until(|| {
        let there = home.value("SELECT to_regclass('pgherd.waiting') IS NOT NULL") == "t";
        if there {
            let rows = home.rows("SELECT told FROM pgherd.waiting");
            times.extend(rows.into_iter().flatten().flatten());
        }
        times.len() > 4
    });
}

#[test]
fn a_long_wait_is_left_alone() {
    let fixture = plain();
    let mut first = writer(&fixture.herd, 1, "a");
    let mut second = writer(&fixture.herd, 0, "b");
    second.run("SELECT v FROM by_modulo WHERE k = 2");
    let second = waits(&fixture, second, &update(1, "b"));
    let third = writer(&fixture.herd, 3, "c");
    let third = waits(&fixture, third, &update(0, "c"));
    let mut home = fixture.databases.shard(0);
    told_often(&mut home);
    first.run("COMMIT");
    let (mut second, answer) = second.end();
    answer.expect("it goes on");
    second.run("COMMIT");
    let (mut third, answer) = third.end();
    answer.expect("it goes on");
    third.run("COMMIT");
    assert_eq!(values(&fixture), "cbxc");
    assert_eq!(deadlocks(&fixture.herd), 0);
    until(|| home.value("SELECT count(*) FROM pgherd.waiting") == "0");
}

#[test]
fn a_deadlock_on_one_shard_is_its_servers_own() {
    let fixture = plain();
    fixture
        .connect()
        .run("INSERT INTO by_modulo VALUES (4, 1, 'x')");
    // Also of blocks that are on several.
    let mut first = writer(&fixture.herd, 1, "a");
    let mut second = writer(&fixture.herd, 2, "b");
    first.run(&update(0, "a"));
    second.run(&update(4, "b"));
    let first = waits(&fixture, first, &update(4, "a"));
    let second = waits(&fixture, second, &update(0, "b"));
    let ends = [first.end(), second.end()];
    let lost: Vec<&ServerError> = ends
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
        .collect();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].code, "40P01");
    assert!(!lost[0].detail.contains("shard"), "{}", lost[0].detail);
    assert_eq!(deadlocks(&fixture.herd), 0);
}

#[test]
fn nothing_is_asked_while_nobody_waits() {
    let fixture = plain();
    let mut client = fixture.connect();
    for _ in 0..20 {
        client.run("BEGIN");
        for key in 0..4 {
            client.run(&update(key, "y"));
        }
        client.run("COMMIT");
    }
    // A client that does nothing in its block is no reason, nor one that waits and holds nothing else.
    let mut idle = writer(&fixture.herd, 0, "z");
    idle.run(&update(1, "z"));
    let alone = waits(&fixture, client, &update(0, "w"));
    sleep(Duration::from_secs(1));
    let mut home = fixture.databases.shard(0);
    assert_eq!(
        home.value("SELECT to_regclass('pgherd.waiting') IS NULL"),
        "t"
    );
    idle.run("COMMIT");
    alone.end().1.expect("it goes on");
}

#[test]
fn with_deadlock_timeout_0_nothing_is_looked_for() {
    let mut options = Fixture::options("transaction");
    options.set("deadlock_timeout: 0");
    let fixture = start(&mut options);
    let mut first = writer(&fixture.herd, 0, "a");
    first.run("SET LOCAL lock_timeout = '2s'");
    let second = writer(&fixture.herd, 1, "b");
    let first = waits(&fixture, first, &update(1, "a"));
    let second = waits(&fixture, second, &update(0, "b"));
    let (_first, answer) = first.end();
    assert_eq!(answer.expect_err("its own limit ends it").code, "55P03");
    second.end().1.expect("it goes on");
    assert_eq!(deadlocks(&fixture.herd), 0);
}

#[test]
fn what_is_prepared_is_part_of_a_circle() {
    let fixture = plain();
    fixture.databases.run_everywhere(
        "CREATE TABLE late (k bigint, n int, UNIQUE (k, n) DEFERRABLE INITIALLY DEFERRED)",
    );
    let mut options = Fixture::options("transaction");
    options.sharded("late", "k", "bigint", "{modulo: all}");
    let herd = Herd::start(&fixture.databases, &options);
    // The commit of the first waits on shard_2 for the second, which waits on shard_1, where the first is prepared.
    let mut second = herd.connect();
    second.run("BEGIN");
    second.run("INSERT INTO late VALUES (2, 1)");
    let mut first = herd.connect();
    first.run("BEGIN");
    for key in 0..2 {
        first.run(&update(key, "a"));
    }
    first.run("INSERT INTO late VALUES (2, 1)");
    let first = waits(&fixture, first, "COMMIT");
    let mut home = fixture.databases.shard(1);
    until(|| {
        home.value("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()")
            == "1"
    });
    let second = waits(&fixture, second, &update(1, "b"));
    let (mut second, lost) = second.end();
    let error = lost.expect_err("it is ended");
    assert!(
        error.detail.contains("blocked by prepared transaction"),
        "{error:?}"
    );
    check_victim(&mut second, &error, 2);
    let (_first, won) = first.end();
    assert_eq!(won.expect("it is committed").tags, ["COMMIT"]);
    assert_eq!(values(&fixture), "aaxx");
}

#[test]
fn two_commits_that_wait_for_each_other_end_with_one() {
    let fixture = plain();
    fixture.databases.run_everywhere(
        "CREATE TABLE late (k bigint, n int, UNIQUE (k, n) DEFERRABLE INITIALLY DEFERRED)",
    );
    let mut options = Fixture::options("transaction");
    options.sharded("late", "k", "bigint", "{modulo: all}");
    let herd = Herd::start(&fixture.databases, &options);
    let mut first = herd.connect();
    let mut second = herd.connect();
    for client in [&mut first, &mut second] {
        client.run("BEGIN");
    }
    // Each has inserted first on one shard.
    first.run("INSERT INTO late VALUES (1, 1)");
    second.run("INSERT INTO late VALUES (2, 1)");
    second.run("INSERT INTO late VALUES (1, 1)");
    first.run("INSERT INTO late VALUES (2, 1)");
    let first = waits(&fixture, first, "COMMIT");
    let second = spawn(move || {
        let answer = second.query("COMMIT");
        (second, answer)
    });
    let ends = [first.end(), second.join().expect("the thread ends")];
    let mut codes: Vec<&str> = ends
        .iter()
        .filter_map(|(_, answer)| Some(answer.as_ref().err()?.code.as_str()))
        .collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        ["40P01"],
        "{:?}",
        ends.iter().map(|(_, answer)| answer).collect::<Vec<_>>()
    );
    assert_eq!(herd.connect().value("SELECT count(*) FROM late"), "2");
}

#[test]
fn transfers_that_cross_lose_nothing_but_deadlocks() {
    let mut options = Fixture::options("transaction");
    options.set("default_pool_size: 6").set("engines: 2");
    let fixture = start(&mut options);
    let other = Herd::start(&fixture.databases, &options);
    for key in 0..4 {
        fixture.connect().run(&format!(
            "INSERT INTO by_modulo SELECT {key}, g, '100' FROM generate_series(10, 11) g"
        ));
    }
    let seed = Random::from_environment().seed;
    println!("SEED={seed}");
    let transfer = |port: u16, number: u64| {
        let database = fixture.databases.name.clone();
        spawn(move || {
            let mut client = Client::connect(port, "app", &database);
            let mut random = Random::new(seed ^ number);
            let (mut done, mut lost) = (0, 0);
            while done < 8 {
                let mut accounts: Vec<(usize, usize)> = (0..3)
                    .map(|_| (random.below(4), 10 + random.below(2)))
                    .collect();
                accounts.dedup();
                let mut run = || -> Result<(), ServerError> {
                    client.query("BEGIN")?;
                    for (index, (key, row)) in accounts.iter().enumerate() {
                        let more = if index == 0 {
                            i64::try_from(accounts.len()).expect("few") - 1
                        } else {
                            -1
                        };
                        let sql = "UPDATE by_modulo SET v = v::int + $3::int WHERE k = $1::int8 AND n = $2::int";
                        client.query_with(
                            sql,
                            &[
                                Some(&key.to_string()),
                                Some(&row.to_string()),
                                Some(&more.to_string()),
                            ],
                        )?;
                    }
                    client.query("COMMIT").map(drop)
                };
                match run() {
                    Ok(()) => done += 1,
                    Err(error) => {
                        assert_eq!(error.code, "40P01", "{error:?}");
                        lost += 1;
                        client.run("ROLLBACK");
                    }
                }
            }
            lost
        })
    };
    let running: Vec<_> = (0..8)
        .map(|number| match number % 2 {
            0 => transfer(fixture.herd.port, number),
            _ => transfer(other.port, number),
        })
        .collect();
    let lost: u64 = running
        .into_iter()
        .map(|one| one.join().expect("only deadlocks"))
        .sum();
    println!("{lost} deadlocks");
    assert_eq!(
        fixture
            .connect()
            .value("SELECT sum(v::int) FROM by_modulo WHERE n >= 10"),
        "800"
    );
}
