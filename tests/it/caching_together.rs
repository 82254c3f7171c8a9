//! Several proxies share what they keep through Redis: none gives what another's client has overwritten,
//! also while Redis is killed, paused, slow, flushed and started again, proxies are killed, and somebody writes past
//! them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::postgres::Cluster;
use crate::random::Random;
use crate::redis::Redis;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE ct_counts (id bigint PRIMARY KEY, v bigint, w text, k int DEFAULT 0);
ALTER TABLE ct_counts REPLICA IDENTITY FULL";
const KEYS: usize = 8;
/// From this one on, keys are written past the proxies as well.
const PAST: usize = 6;

fn options(redis: &Redis, more: &str) -> Options {
    let mut options = Options::new("transaction");
    options
        .distribution("ct_ids", "{key: bigint, place: {modulo: all}}")
        .described(
            "ct_counts",
            "distribution: ct_ids, key: id, cache: {mode: cached, ttl: 10m, swr: 1h, index: [k]}",
        )
        .set(&redis.line(more))
        .set("name: together");
    options
}

fn start(shards: usize, more: &str) -> (Databases, Redis, Herd, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let options = options(&redis, more);
    let one = Herd::start(&databases, &options);
    let other = Herd::start(&databases, &options);
    let mut client = one.connect();
    for id in 0..KEYS {
        client.run(&format!("INSERT INTO ct_counts VALUES ({id}, 0, 'w{id}')"));
    }
    (databases, redis, one, other)
}

#[test]
fn an_answer_of_one_proxy_is_given_by_another_until_it_is_written() {
    let (databases, redis, one, other) = start(2, ", redis_timeout: 1s");
    let (mut first, mut second) = (one.connect(), other.connect());
    let read = "SELECT v, w FROM ct_counts WHERE id = 3";
    let kept = first.query(read).unwrap();
    databases.run_everywhere("UPDATE ct_counts SET w = w || '.'");
    // What is kept in Redis is kept a moment later.
    thread::sleep(Duration::from_millis(200));
    assert_eq!(second.query(read).unwrap(), kept);
    assert_eq!(first.query(read).unwrap(), kept);
    second.run("UPDATE ct_counts SET v = 7 WHERE id = 3");
    assert_eq!(first.value("SELECT v FROM ct_counts WHERE id = 3"), "7");
    assert_ne!(first.query(read).unwrap(), kept);
    second.run("BEGIN");
    second.run("UPDATE ct_counts SET v = 8 WHERE id = 3");
    assert_eq!(first.rows(read)[0][0].as_deref(), Some("7"));
    second.run("COMMIT");
    assert_eq!(first.rows(read)[0][0].as_deref(), Some("8"));
    // Only answers and tags of ours, and answers end by themselves.
    let keys = redis.run(&["KEYS", "*"]);
    for key in keys
        .lines()
        .filter(|line| !line.starts_with(['*', '$', '+']))
    {
        assert!(key.starts_with("together:"), "{key}");
    }
    drop(databases);
}

#[test]
fn messages_of_channels_drop_what_they_tell_of() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let channels = ", invalidate_on: [{channel: counts.changed, table: ct_counts, key: $.count.id}, \
                    {channel: counts.all, table: ct_counts}]";
    let herd = Herd::start(&databases, &options(&redis, channels));
    let mut client = herd.connect();
    client.run("INSERT INTO ct_counts VALUES (1, 0, 'a'), (2, 0, 'b')");
    let reads = [1, 2].map(|id| format!("SELECT v FROM ct_counts WHERE id = {id}"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !redis
        .run(&["PUBSUB", "NUMSUB", "counts.all"])
        .contains(":1")
    {
        assert!(Instant::now() < deadline, "nobody listens");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(200));
    for (message, dropped) in [
        (
            ["PUBLISH", "counts.changed", r#"{"count": {"id": 1}}"#],
            [true, false],
        ),
        (["PUBLISH", "counts.all", "x"], [true, true]),
    ] {
        let before = reads.each_ref().map(|read| client.value(read));
        databases.run_everywhere("UPDATE ct_counts SET v = v + 1");
        // What was told of the first is told again a little later.
        assert_eq!(client.value(&reads[1]), before[1]);
        redis.run(&message);
        for (at, read) in reads.iter().enumerate().filter(|(at, _)| dropped[*at]) {
            while client.value(read) == before[at] {
                assert!(Instant::now() < deadline, "{message:?}: {read}");
                thread::sleep(Duration::from_millis(20));
            }
        }
        for (at, read) in reads.iter().enumerate().filter(|(at, _)| !dropped[*at]) {
            assert_eq!(client.value(read), before[at]);
        }
    }
}

#[test]
fn without_redis_statements_go_on() {
    let (_databases, mut redis, one, other) = start(2, ", redis_timeout: 1s");
    let (mut first, mut second) = (one.connect(), other.connect());
    let read = "SELECT v FROM ct_counts WHERE id = 1";
    assert_eq!(first.value(read), "0");
    redis.kill();
    for n in 1..20 {
        second.run(&format!("UPDATE ct_counts SET v = {n} WHERE id = 1"));
        assert_eq!(first.value(read), n.to_string());
    }
    redis.revive();
    for n in 20..40 {
        second.run(&format!("UPDATE ct_counts SET v = {n} WHERE id = 1"));
        assert_eq!(first.value(read), n.to_string());
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(first.value(read), "39");
    assert_eq!(second.value(read), "39");
}

#[test]
fn strict_tables_are_not_written_without_redis() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let mut redis = Redis::start();
    let mut options = Options::new("transaction");
    options
        .described(
            "ct_counts",
            "kind: single, cache: {mode: bounded, ttl: 10m, strict: true}",
        )
        .set(&redis.line(""));
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    client.run("INSERT INTO ct_counts VALUES (1, 1, 'a')");
    redis.kill();
    let error = client.fails("UPDATE ct_counts SET v = 2 WHERE id = 1");
    assert_eq!(error.code, "57P03");
    assert_eq!(client.value("SELECT v FROM ct_counts WHERE id = 1"), "1");
    client.run("BEGIN");
    client.run("UPDATE ct_counts SET v = 2 WHERE id = 1");
    assert_eq!(client.fails("COMMIT").code, "57P03");
    drop(client);
    let mut client = herd.connect();
    assert_eq!(client.value("SELECT v FROM ct_counts WHERE id = 1"), "1");
    redis.revive();
    let deadline = Instant::now() + Duration::from_secs(10);
    while client
        .query("UPDATE ct_counts SET v = 3 WHERE id = 1")
        .is_err()
    {
        assert!(
            Instant::now() < deadline,
            "Redis is back, and the write is refused"
        );
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(client.value("SELECT v FROM ct_counts WHERE id = 1"), "3");
}

/// What readers have seen and writers were told, by key: no later read may be older.
#[derive(Debug, Default)]
struct Floors {
    values: [AtomicU64; KEYS],
    /// The same some time ago: what a read may be as old as while Redis is disturbed.
    past: Mutex<Vec<(Instant, [u64; KEYS])>>,
    is_disturbed: AtomicBool,
    /// Until when what was disturbed may be felt.
    calm_from: Mutex<Option<Instant>>,
    reads: AtomicU64,
    writes: AtomicU64,
}

/// How long after a disturbance an answer may be older.
const GRACE: Duration = Duration::from_secs(3);

impl Floors {
    fn now(&self) -> [u64; KEYS] {
        std::array::from_fn(|key| self.values[key].load(Ordering::SeqCst))
    }

    /// What a read that begins now must be at least.
    fn floor(&self) -> [u64; KEYS] {
        let calm = self.calm_from.lock().unwrap();
        let calm = !self.is_disturbed.load(Ordering::SeqCst)
            && calm.is_none_or(|from| from < Instant::now());
        if calm {
            return self.now();
        }
        let past = self.past.lock().unwrap();
        let then = past.iter().rev().find(|(at, _)| at.elapsed() > GRACE * 2);
        then.map_or([0; KEYS], |(_, values)| *values)
    }

    /// What a read of a key may be as old as that is written past the proxies: shards tell of that a moment later.
    fn floor_past(&self) -> [u64; KEYS] {
        let past = self.past.lock().unwrap();
        let then = past.iter().rev().find(|(at, _)| at.elapsed() > GRACE * 2);
        then.map_or([0; KEYS], |(_, values)| *values)
    }

    fn raise(&self, key: usize, value: u64) {
        self.values[key].fetch_max(value, Ordering::SeqCst);
    }

    fn disturb(&self, begins: bool) {
        if begins {
            self.is_disturbed.store(true, Ordering::SeqCst);
        } else {
            *self.calm_from.lock().unwrap() = Some(Instant::now() + GRACE);
            self.is_disturbed.store(false, Ordering::SeqCst);
        }
    }
}

fn write(client: &mut Client, random: &mut Random, floors: &Floors) {
    let key = random.below(KEYS);
    let update = format!("UPDATE ct_counts SET v = v + 1 WHERE id = {key} RETURNING v");
    let value = match random.below(6) {
        // From one list into the other.
        3 => client.value(&format!(
            "UPDATE ct_counts SET v = v + 1, k = 1 - k WHERE id = {key} RETURNING v"
        )),
        4 => {
            drop(client.query_with("BEGIN", &[]).unwrap());
            let value = client.value(&update);
            drop(client.query_with("COMMIT", &[]).unwrap());
            value
        }
        0 => {
            client.run("BEGIN");
            let value = client.value(&update);
            client.run("COMMIT");
            value
        }
        1 => {
            let update = "UPDATE ct_counts SET v = v + 1 WHERE id = $1 RETURNING v";
            let answer = client
                .query_with(update, &[Some(&key.to_string())])
                .unwrap();
            answer.rows[0][0].clone().unwrap()
        }
        2 => {
            client.run("BEGIN");
            client.run(&update);
            client.run("ROLLBACK");
            return;
        }
        _ => client.value(&update),
    };
    floors.raise(key, value.parse().unwrap());
    floors.writes.fetch_add(1, Ordering::Relaxed);
}

fn read(client: &mut Client, random: &mut Random, floors: &Floors) {
    let key = random.below(KEYS);
    let (mut floor, past) = (floors.floor(), floors.floor_past());
    floor[PAST..].copy_from_slice(&past[PAST..]);
    floors.reads.fetch_add(1, Ordering::Relaxed);
    let is_over_all = random.below(4) == 0;
    let is_of_list = !is_over_all && random.below(3) == 0;
    let rows = if is_over_all {
        client.rows("SELECT id, v FROM ct_counts WHERE id >= 0")
    } else if is_of_list {
        let list = random.below(2);
        client.rows(&format!("SELECT id, v FROM ct_counts WHERE k = {list}"))
    } else if random.below(2) == 0 {
        client.rows(&format!("SELECT id, v FROM ct_counts WHERE id = {key}"))
    } else {
        let sql = "SELECT id, v FROM ct_counts WHERE id = $1";
        client
            .query_with(sql, &[Some(&key.to_string())])
            .unwrap()
            .rows
    };
    let rows = rows.iter().map(|row| {
        let number = |at: usize| row[at].as_deref().unwrap().parse::<u64>().unwrap();
        (usize::try_from(number(0)).unwrap(), number(1))
    });
    let rows: Vec<(usize, u64)> = rows.collect();
    if !is_of_list {
        assert_eq!(rows.len(), if is_over_all { KEYS } else { 1 });
    }
    for (key, value) in rows {
        assert!(
            value >= floor[key],
            "key {key}: {value} was given after {} had been",
            floor[key]
        );
        // Several shards' rows are no snapshot, but each is of its time.
        floors.raise(key, value);
    }
}

fn disturb(redis: &mut Redis, link: &Link, round: u64, floors: &Floors) {
    let some = Duration::from_millis(300);
    if round % 5 == 4 {
        // Slow, and no more: what holds goes on to hold.
        link.delay.store(50, Ordering::SeqCst);
        thread::sleep(some * 6);
        link.delay.store(0, Ordering::SeqCst);
        return;
    }
    floors.disturb(true);
    match round % 5 {
        0 => {
            redis.run(&["FLUSHALL"]);
        }
        1 => {
            redis.pause();
            thread::sleep(some);
            redis.go_on();
        }
        2 => {
            redis.kill();
            thread::sleep(some);
            redis.revive();
        }
        _ => {
            redis.pause();
            thread::sleep(some * 4);
            redis.go_on();
        }
    }
    floors.disturb(false);
}

/// What stands between the proxies and Redis, and may keep back what passes.
struct Link {
    port: u16,
    /// For how many ms.
    delay: Arc<AtomicU64>,
}

impl Link {
    fn to(redis: u16) -> Link {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let link = Link {
            port: listener.local_addr().unwrap().port(),
            delay: Arc::default(),
        };
        let delay = Arc::clone(&link.delay);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", redis)) else {
                    continue;
                };
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(client, server, Arc::clone(&delay));
                pass(ends.1, ends.0, Arc::clone(&delay));
            }
        });
        link
    }
}

/// Passes on what comes from one socket to another, until one is closed.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Arc<AtomicU64>) {
    drop(to.set_nodelay(true));
    thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let wait = delay.load(Ordering::SeqCst);
            if wait > 0 {
                thread::sleep(Duration::from_millis(wait));
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        drop(from.shutdown(Shutdown::Both));
        drop(to.shutdown(Shutdown::Both));
    });
}

/// Writes through a proxy that is killed every few seconds, until then.
fn write_through_mortals(
    ports: &[u16],
    options: &Options,
    floors: &Floors,
    end: Instant,
    seed: u64,
) -> u64 {
    let mut random = Random::new(seed);
    let mut killed = 0;
    while Instant::now() < end {
        let mut herd = Herd::start_over("together", ports, options);
        let mut client = herd.connect();
        let until = end.min(Instant::now() + Duration::from_secs(4));
        let mut key = 0;
        while Instant::now() < until {
            key = random.below(2);
            let sql = format!("UPDATE ct_counts SET v = v + 1 WHERE id = {key} RETURNING v");
            let value = client.value(&sql);
            floors.raise(key, value.parse().unwrap());
            thread::sleep(Duration::from_millis(5));
        }
        // In the middle of a write, mostly.
        let sql = format!("UPDATE ct_counts SET v = v + 1 WHERE id = {key}\0");
        let length = u32::try_from(sql.len() + 4).unwrap();
        client.send(&[b"Q", length.to_be_bytes().as_slice(), sql.as_bytes()].concat());
        thread::sleep(Duration::from_micros(
            u64::try_from(random.below(3000)).unwrap(),
        ));
        herd.signal("KILL");
        assert!(herd.wait(GRACE).is_some(), "it was killed");
        killed += 1;
    }
    killed
}

/// Servers of its own: what tells of their changes waits for all that is open on them.
fn servers() -> [Cluster; 2] {
    let clusters = [Cluster::start(""), Cluster::start("")];
    for cluster in &clusters {
        let mut owner = cluster.connect("postgres");
        owner.run("CREATE DATABASE together OWNER app");
        let mut owner = cluster.connect("together");
        owner.run(TABLES);
        owner.run("ALTER TABLE ct_counts OWNER TO app");
    }
    clusters
}

/// Waits until each server tells one of the proxies of its changes.
fn wait_told(herds: [&Herd; 2]) {
    let told = "the cache is told of changes past the proxy";
    let deadline = Instant::now() + Duration::from_mins(1);
    let logs = || herds.map(Herd::log).concat();
    while logs().matches(told).count() < 2 {
        assert!(Instant::now() < deadline, "{}", logs());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Reads, and writes now and then; the first two do nothing but write.
fn be_a_client(mut client: Client, number: u64, floors: &Floors, end: Instant, seed: u64) {
    let mut random = Random::new(seed.wrapping_add(number));
    while Instant::now() < end {
        if number < 2 || random.below(50) == 0 {
            write(&mut client, &mut random, floors);
            if number < 2 {
                let pause = u32::try_from(random.below(3)).unwrap();
                thread::sleep(Duration::from_millis(10) * pause);
            }
        } else {
            read(&mut client, &mut random, floors);
        }
    }
}

/// Writes straight to the servers.
fn write_past(clusters: &[Cluster; 2], floors: &Floors, end: Instant) -> u64 {
    let mut clients = clusters
        .each_ref()
        .map(|cluster| cluster.connect("together"));
    let mut count = 0;
    while Instant::now() < end {
        for key in PAST..KEYS {
            let sql =
                format!("UPDATE ct_counts SET v = v + 1, k = 1 - k WHERE id = {key} RETURNING v");
            let value = clients[key % 2].value(&sql);
            floors.raise(key, value.parse().unwrap());
            count += 1;
        }
        thread::sleep(Duration::from_millis(300));
    }
    count
}

/// What a proxy has counted: answers were given from the cache, and the auditor found none that was old.
fn check_counts(herd: &Herd) {
    let shown = herd.console().query("SHOW CACHE").unwrap();
    let sum = |column: &str| -> u64 {
        let values = shown.column(column);
        let values = values.iter().map(|value| value.parse::<u64>().unwrap());
        values.sum()
    };
    let (hits, audited, stale) = (sum("hits"), sum("audited"), sum("found_stale"));
    println!("{hits} hits, {audited} audited, {stale} found stale");
    assert!(hits > 100, "{hits} hits");
    assert_eq!(stale, 0, "{}", herd.log());
}

/// Nothing is left wrong.
fn check_rest(clusters: &[Cluster; 2], herd: &Herd) {
    let mut client = herd.connect();
    for key in 0..KEYS {
        let read = format!("SELECT v FROM ct_counts WHERE id = {key}");
        let value = clusters[key % 2].connect("together").value(&read);
        assert_eq!(client.value(&read), value);
    }
    for list in 0..2 {
        let read = format!("SELECT id, v FROM ct_counts WHERE k = {list} ORDER BY id");
        let rows = clusters.iter();
        let rows = rows.flat_map(|cluster| cluster.connect("together").rows(&read));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| row[0].clone());
        assert_eq!(client.rows(&read), rows);
    }
}

/// Readers and writers on two proxies, a third that is killed again and again, one who writes past them, and Redis
/// disturbed; `CACHE_SECONDS` makes it longer.
#[test]
fn no_read_is_older_than_one_that_was_over_before() {
    let seconds = std::env::var("CACHE_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(24);
    let seed = Random::from_environment().seed;
    println!("SEED={seed}");
    let clusters = servers();
    let ports = clusters.each_ref().map(|cluster| cluster.port);
    let mut redis = Redis::start();
    let link = Link::to(redis.port);
    let mut options = options(&redis, "");
    options.database.push("control_user: postgres".to_owned());
    // Not slow by itself: what a busy machine delays is none of the disturbances.
    options.set(&format!(
        "cache: {{redis: 'redis://127.0.0.1:{}', redis_timeout: 1s, audit: 20}}",
        link.port
    ));
    let one = Herd::start_over("together", &ports, &options);
    let other = Herd::start_over("together", &ports, &options);
    // As one that a failpoint may end: that it is killed is no failure.
    options.failpoint = Some("never:1".to_owned());
    let mut client = one.connect();
    for id in 0..KEYS {
        client.run(&format!("INSERT INTO ct_counts VALUES ({id}, 0, 'w{id}')"));
    }
    wait_told([&one, &other]);
    let floors = Floors::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut round = 0;
    thread::scope(|scope| {
        for number in 0..8 {
            let herd = if number % 2 == 0 { &one } else { &other };
            let (client, floors) = (herd.connect(), &floors);
            scope.spawn(move || be_a_client(client, number, floors, end, seed));
        }
        let bypass = scope.spawn(|| write_past(&clusters, &floors, end));
        let mortals = scope.spawn(|| write_through_mortals(&ports, &options, &floors, end, seed));
        let mut next = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let now = (Instant::now(), floors.now());
            floors.past.lock().unwrap().push(now);
            thread::sleep(Duration::from_millis(50));
            if Instant::now() > next && end - Instant::now() > Duration::from_secs(2) {
                disturb(&mut redis, &link, round, &floors);
                round += 1;
                next = Instant::now() + Duration::from_secs(5);
            }
        }
        let past = bypass.join().expect("a shard is written");
        let killed = mortals.join().expect("acknowledged writes are seen");
        println!("{past} writes past the proxies, {round} disturbances, {killed} proxies killed");
    });
    let (reads, writes) = (&floors.reads, &floors.writes);
    println!("{reads:?} reads, {writes:?} writes");
    for herd in [&one, &other] {
        check_counts(herd);
    }
    thread::sleep(GRACE);
    for herd in [&one, &other] {
        check_rest(&clusters, herd);
    }
}
