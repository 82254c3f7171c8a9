//! Writes that go past the proxy: the shards tell of them, and what depends on them is dropped.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::redis::Redis;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE cp_rows (id bigint PRIMARY KEY, v int);
CREATE TABLE cp_keyless (id bigint, v int);
CREATE TABLE cp_parted (id bigint PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE cp_part PARTITION OF cp_parted FOR VALUES FROM (0) TO (1000);
INSERT INTO cp_rows SELECT i, 0 FROM generate_series(1, 20) i WHERE false;
";

fn options() -> Options {
    let mut options = Options::new("transaction");
    let policy = "cache: {mode: cached, ttl: 10m, swr: 1h}";
    options.distribution("cp_ids", "{key: bigint, place: {modulo: all}}");
    for table in ["cp_rows", "cp_keyless", "cp_parted"] {
        options.described(table, &format!("distribution: cp_ids, key: id, {policy}"));
    }
    options.database.push("control_user: postgres".to_owned());
    options
}

fn wait_told(herd: &Herd, shards: usize) {
    // A slot waits for the transactions that are under way on its server.
    let deadline = Instant::now() + Duration::from_mins(1);
    let told = "the cache is told of changes past the proxy";
    while herd.log().matches(told).count() < shards {
        assert!(Instant::now() < deadline, "{}", herd.log());
        sleep(Duration::from_millis(50));
    }
    // Everything is dropped once more behind that.
    sleep(Duration::from_millis(300));
}

fn wait_value(client: &mut Client, sql: &str, expect: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = client.rows(sql);
        let value = rows
            .first()
            .and_then(|row| row[0].clone())
            .unwrap_or_default();
        if value == expect {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {value}, not {expect}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn writes_past_the_proxy_are_heard_of() {
    let databases = Databases::create(2);
    databases.run_everywhere(TABLES);
    let herd = Herd::start(&databases, &options());
    let mut client = herd.connect();
    for id in 1..=8 {
        client.run(&format!("INSERT INTO cp_rows VALUES ({id}, 0)"));
        client.run(&format!("INSERT INTO cp_parted VALUES ({id}, 0)"));
    }
    wait_told(&herd, 2);
    // Those of the rows above come back as well.
    sleep(Duration::from_secs(1));
    let read = |id: usize| format!("SELECT v FROM cp_rows WHERE id = {id}");
    let list = "SELECT sum(v) FROM cp_rows";
    for id in 1..=4 {
        assert_eq!(client.value(&read(id)), "0");
    }
    assert_eq!(client.value(list), "0");
    let shard = |id: usize| databases.shard(id % 2);
    shard(3).run("UPDATE cp_rows SET v = 1 WHERE id = 3");
    wait_value(&mut client, &read(3), "1");
    wait_value(&mut client, list, "1");
    shard(4).run("BEGIN; UPDATE cp_rows SET v = 5 WHERE id = 4; ROLLBACK");
    shard(4).run("DELETE FROM cp_rows WHERE id = 4");
    wait_value(&mut client, &read(4), "");
    shard(4).run("INSERT INTO cp_rows VALUES (4, 7)");
    wait_value(&mut client, &read(4), "7");
    let parted = "SELECT v FROM cp_parted WHERE id = 5";
    assert_eq!(client.value(parted), "0");
    shard(5).run("UPDATE cp_part SET v = 2 WHERE id = 5");
    wait_value(&mut client, parted, "2");
    shard(4).run("TRUNCATE cp_rows");
    wait_value(&mut client, &read(4), "");
    // A table whose changes cannot be told of is still written as before.
    shard(0).run("INSERT INTO cp_keyless VALUES (2, 1)");
    shard(0).run("UPDATE cp_keyless SET v = 2");
    let shown = herd.console().query("SHOW CACHE").unwrap();
    let at = shown
        .column("table")
        .iter()
        .position(|table| table == "cp_rows")
        .unwrap();
    assert!(shown.column("changes")[at].parse::<u64>().unwrap() > 3);
}

#[test]
fn one_of_several_proxies_listens() {
    let databases = Databases::create(1);
    databases.run_everywhere(TABLES);
    let redis = Redis::start();
    let mut options = options();
    options.set(&redis.line("")).set("name: past");
    let one = Herd::start(&databases, &options);
    wait_told(&one, 1);
    let other = Herd::start(&databases, &options);
    let (mut first, mut second) = (one.connect(), other.connect());
    first.run("INSERT INTO cp_rows VALUES (1, 0)");
    let read = "SELECT v FROM cp_rows WHERE id = 1";
    assert_eq!(second.value(read), "0");
    databases.shard(0).run("UPDATE cp_rows SET v = 1");
    wait_value(&mut second, read, "1");
    assert!(!other.log().contains("is told of changes"));
    drop(first);
    drop(one);
    wait_told(&other, 1);
    assert_eq!(second.value(read), "1");
    databases.shard(0).run("UPDATE cp_rows SET v = 2");
    wait_value(&mut second, read, "2");
}
