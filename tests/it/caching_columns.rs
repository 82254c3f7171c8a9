//! Answers are dropped by the values and the columns that writes change, and by no others where that is proven.
//!
//! That an answer was kept is seen by a change made past the proxy, which the cache is not told of.

use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::redis::Redis;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE cc_goods (id bigint PRIMARY KEY, category int, brand text, name text, price numeric,
    views int, stock int, words tsvector);
CREATE TABLE cc_made (id bigint PRIMARY KEY, category int, price numeric,
    priced numeric GENERATED ALWAYS AS (price * 2) STORED);
CREATE TABLE cc_stamped (id bigint PRIMARY KEY, category int, name text, price numeric);
CREATE FUNCTION cc_rename() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.name := NEW.name || ''!''; RETURN NEW; END';
CREATE TRIGGER rename BEFORE UPDATE ON cc_stamped FOR EACH ROW EXECUTE FUNCTION cc_rename();
";

fn options(more: &str) -> Options {
    let mut options = Options::new("transaction");
    options.distribution("cc_ids", "{key: bigint, place: {modulo: all}}");
    let policy = "distribution: cc_ids, key: id, cache: {mode: cached, ttl: 10m, swr: 1h, \
                  index: [category, brand], strong_columns: [stock]}";
    options
        .described("cc_goods", policy)
        .described(
            "cc_made",
            "distribution: cc_ids, key: id, cache: {mode: cached, ttl: 10m, swr: 1h}",
        )
        .described("cc_stamped", policy);
    if !more.is_empty() {
        options.set(more);
    }
    options
}

/// Ids 1 to 24; those of category n and brand 'b<n>' are n + 4, n + 8 and so on.
fn start(shards: usize, more: &str) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let herd = Herd::start(&databases, &options(more));
    let mut client = herd.connect();
    for id in 1..=24 {
        let category = id % 4;
        client.run(&format!(
            "INSERT INTO cc_goods (id, category, brand, name, price, views, stock)
             VALUES ({id}, {category}, 'b{category}', 'good {id}', {id}, 0, 10)"
        ));
        client.run(&format!(
            "INSERT INTO cc_stamped VALUES ({id}, {category}, 'good {id}', {id})"
        ));
    }
    (databases, herd)
}

fn list(category: i32) -> String {
    format!("SELECT id, name, price FROM cc_goods WHERE category = {category} ORDER BY id")
}

fn brand(brand: i32) -> String {
    format!("SELECT g.id, g.price FROM cc_goods g WHERE g.brand = 'b{brand}' ORDER BY g.id")
}

/// Reads them, so that they are kept, and changes all rows past the proxy.
fn keep(databases: &Databases, client: &mut Client, reads: &[String]) -> Vec<String> {
    let read = |client: &mut Client, sql: &String| format!("{:?}", client.query(sql).unwrap().rows);
    let kept: Vec<String> = reads.iter().map(|sql| read(client, sql)).collect();
    databases.run_everywhere("UPDATE cc_goods SET name = name || '.', price = price + 0.001");
    for (sql, kept) in reads.iter().zip(&kept) {
        assert_eq!(&read(client, sql), kept, "{sql} was not kept");
    }
    kept
}

/// Whether a statement has dropped just these of the answers that were kept.
fn check_dropped(
    client: &mut Client,
    sql: &str,
    (reads, kept): (&[String], &[String]),
    dropped: &[bool],
) {
    for (at, read) in reads.iter().enumerate() {
        assert_eq!(
            !is_kept(client, read, &kept[at]),
            dropped[at],
            "{sql}: {read}"
        );
    }
}

fn is_kept(client: &mut Client, sql: &str, kept: &str) -> bool {
    format!("{:?}", client.query(sql).unwrap().rows) == kept
}

/// What writes a row in all ways that clients have.
fn writes(client: &mut Client, way: usize, sql: &str, values: &[&str]) {
    let values: Vec<Option<&str>> = values.iter().map(|value| Some(*value)).collect();
    let filled = values
        .iter()
        .enumerate()
        .fold(sql.to_owned(), |sql, (at, value)| {
            sql.replace(&format!("${}", at + 1), &format!("'{}'", value.unwrap()))
        });
    match way {
        0 => drop(client.query(&filled).unwrap()),
        1 => drop(client.query_with(sql, &values).unwrap()),
        2 => {
            client.run("BEGIN");
            client.run(&filled);
            client.run("COMMIT");
        }
        3 => {
            client.run("BEGIN");
            drop(client.query_with(sql, &values).unwrap());
            drop(client.query_with("COMMIT", &[]).unwrap());
        }
        4 => drop(client.query(&format!("BEGIN; {filled}; COMMIT")).unwrap()),
        5 => {
            client.run("BEGIN");
            client.run("SAVEPOINT s");
            client.run(&filled);
            client.run("ROLLBACK TO s");
            client.run(&filled);
            client.run("COMMIT AND CHAIN");
            client.run("COMMIT");
        }
        _ => {
            client.run(&format!("PREPARE w AS {filled}"));
            client.run("EXECUTE w");
            client.run("DEALLOCATE w");
        }
    }
}

const WAYS: usize = 7;

/// Ways in which only what has a row's values is dropped.
const EXACT: [usize; 5] = [0, 1, 2, 3, 5];

#[test]
fn a_list_is_dropped_by_writes_of_its_rows() {
    for (shards, more) in [(1, ""), (3, ""), (2, "redis")] {
        let redis = (more == "redis").then(Redis::start);
        let line = redis
            .as_ref()
            .map(|redis| redis.line(", redis_timeout: 1s"));
        let (databases, herd) = start(shards, line.as_deref().unwrap_or_default());
        let (mut client, mut other) = (herd.connect(), herd.connect());
        for way in 0..WAYS {
            let reads = [list(1), list(2), brand(1), brand(2)];
            let kept = keep(&databases, &mut client, &reads);
            writes(
                &mut other,
                way,
                "UPDATE cc_goods SET price = price + 100 WHERE id = $1",
                &["5"],
            );
            for at in [0, 2] {
                assert!(
                    !is_kept(&mut client, &reads[at], &kept[at]),
                    "{way}: {}",
                    reads[at]
                );
            }
            for at in [1, 3]
                .into_iter()
                .filter(|_| EXACT.contains(&way) && shards > 1)
            {
                assert!(
                    is_kept(&mut client, &reads[at], &kept[at]),
                    "{way}: {}",
                    reads[at]
                );
            }
        }
    }
}

#[test]
fn each_write_has_its_own_constants() {
    for shards in [1, 2] {
        let (databases, herd) = start(shards, "");
        let mut client = herd.connect();
        // Of one plan, and of other lengths.
        for (id, price) in [(1, 9), (12, 1234), (2, 5), (20, 77), (1, 100)] {
            let sql = format!("UPDATE cc_goods SET price = {price} WHERE id = {id}");
            assert_eq!(client.run(&sql).tags, ["UPDATE 1"]);
            assert_eq!(client.run(&format!("  {sql} ;")).tags, ["UPDATE 1"]);
        }
        let error = client.fails("UPDATE cc_goods SET price = 1 / 0.0 + 123456 WHERE id = 1");
        assert_eq!(error.code, "22012");
        for (id, price) in [(1, "100"), (12, "1234"), (2, "5"), (20, "77"), (21, "21")] {
            let read = format!("SELECT price FROM cc_goods WHERE id = {id}");
            assert_eq!(databases.shard(id % shards).value(&read), price);
            assert_eq!(client.value(&read), price);
        }
    }
}

#[test]
fn a_row_that_moves_is_dropped_from_where_it_was_and_is() {
    let (databases, herd) = start(2, "");
    let (mut client, mut other) = (herd.connect(), herd.connect());
    for (way, to) in (0..WAYS).zip([2, 1, 2, 1, 2, 1, 2]) {
        let reads = [list(1), list(2)];
        let kept = keep(&databases, &mut client, &reads);
        let sql = format!("UPDATE cc_goods SET category = {to} WHERE id = $1");
        writes(&mut other, way, &sql, &["9"]);
        for (read, kept) in reads.iter().zip(&kept) {
            assert!(!is_kept(&mut client, read, kept), "{way}: {read}");
        }
    }
    for (sql, dropped) in [
        (
            "INSERT INTO cc_goods (id, category, brand, name) VALUES (101, 1, 'b1', 'new')",
            [true, false],
        ),
        (
            "INSERT INTO cc_goods (id, name) VALUES (102, 'of none')",
            [true, true],
        ),
        (
            "INSERT INTO cc_goods (id, category, brand) VALUES (103, NULL, NULL)",
            [false, false],
        ),
        (
            "UPDATE cc_goods SET price = 7 WHERE category = 2 AND brand = 'b2'",
            [false, true],
        ),
        (
            "UPDATE cc_goods SET price = 7 WHERE category = 2",
            [true, true],
        ),
        (
            "UPDATE cc_goods SET price = 8 WHERE id IN (5, 6)",
            [true, true],
        ),
        (
            "DELETE FROM cc_goods g WHERE g.category = 2 AND 'b2' = g.brand AND id = 10",
            [false, true],
        ),
        ("DELETE FROM cc_goods WHERE id = 13", [true, true]),
        (
            "INSERT INTO cc_goods (id, category, brand) VALUES (101, 2, 'b2') ON CONFLICT (id) DO UPDATE SET category = 2",
            [true, true],
        ),
        (
            "WITH w AS (UPDATE cc_goods SET price = 9 WHERE id = 5 RETURNING id) SELECT id FROM w",
            [true, true],
        ),
        ("TRUNCATE cc_goods", [true, true]),
    ] {
        let reads = [list(1), list(2)];
        let kept = keep(&databases, &mut client, &reads);
        other.run(sql);
        check_dropped(&mut client, sql, (&reads, &kept), &dropped);
    }
}

#[test]
fn a_row_that_is_moved_while_another_writes_it_is_found_where_it_is() {
    let (databases, herd) = start(2, "");
    let (mut reader, mut mover) = (herd.connect(), herd.connect());
    for way in [0, 1, 2] {
        reader.run("UPDATE cc_goods SET category = 1, price = 5 WHERE id = 5");
        mover.run("BEGIN");
        mover.run("UPDATE cc_goods SET category = 2 WHERE id = 5");
        let mut writer = herd.connect();
        let waits = thread::spawn(move || {
            writes(
                &mut writer,
                way,
                "UPDATE cc_goods SET price = 1000 WHERE id = $1",
                &["5"],
            );
        });
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND datname = current_database()";
        while databases.shard(1).value(waiting) == "0" {
            thread::sleep(Duration::from_millis(10));
        }
        mover.run("COMMIT");
        // Perhaps kept before the writer is done.
        for category in [1, 2] {
            reader.run(&list(category));
        }
        waits.join().unwrap();
        let rows = reader.rows(&list(2));
        let row = rows.iter().find(|row| row[0].as_deref() == Some("5"));
        assert_eq!(row.unwrap()[2].as_deref(), Some("1000"), "{way}");
        assert!(
            reader
                .rows(&list(1))
                .iter()
                .all(|row| row[0].as_deref() != Some("5"))
        );
    }
}

#[test]
fn columns_that_a_read_does_not_name_do_not_change_it() {
    let (databases, herd) = start(2, "");
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let names = "SELECT id, name FROM cc_goods WHERE price > 0 ORDER BY id".to_owned();
    let all = "SELECT max(id), count(*), sum(price) FROM cc_goods".to_owned();
    let joined =
        "SELECT a.id, b.name FROM cc_goods a JOIN cc_goods b ON b.id = a.id ORDER BY 1".to_owned();
    for (sql, dropped) in [
        (
            "UPDATE cc_goods SET views = views + 1",
            [false, false, false],
        ),
        (
            "UPDATE cc_goods SET views = 1 WHERE id = 3",
            [false, false, false],
        ),
        (
            "UPDATE cc_goods g SET (views, brand) = (2, 'x') WHERE g.id = 3",
            [false, false, false],
        ),
        (
            "UPDATE cc_goods SET price = price + 1 WHERE id = 3",
            [true, true, false],
        ),
        (
            "UPDATE cc_goods SET name = 'renamed' WHERE id = 3",
            [true, false, true],
        ),
        ("INSERT INTO cc_goods (id) VALUES (201)", [true, true, true]),
        ("DELETE FROM cc_goods WHERE id = 201", [true, true, true]),
        (
            "WITH w AS (UPDATE cc_goods SET price = 0.5 WHERE id = 3) UPDATE cc_goods SET views = 3 WHERE id = 5",
            [true, true, true],
        ),
    ] {
        let reads = [names.clone(), all.clone(), joined.clone()];
        let kept = keep(&databases, &mut client, &reads);
        other.run(sql);
        check_dropped(&mut client, sql, (&reads, &kept), &dropped);
    }
    client.run("INSERT INTO cc_made VALUES (1, 1, 10), (2, 1, 20)");
    let made = "SELECT sum(priced) FROM cc_made";
    assert_eq!(client.value(made), "60");
    client.run("UPDATE cc_made SET price = 11 WHERE id = 1");
    assert_eq!(client.value(made), "62");
    // What may be any column is.
    for (n, whole) in [
        "SELECT * FROM cc_made WHERE price > 15",
        "SELECT m FROM cc_made m WHERE price > 15",
    ]
    .iter()
    .enumerate()
    {
        let before = client.query(whole).unwrap();
        assert_eq!(client.query(whole).unwrap(), before);
        other.run(&format!(
            "UPDATE cc_made SET category = {} WHERE id = 2",
            n + 5
        ));
        assert_ne!(client.query(whole).unwrap(), before, "{whole}");
    }
}

#[test]
fn what_a_trigger_changes_is_dropped() {
    let (_databases, herd) = start(2, "");
    let mut client = herd.connect();
    let name = "SELECT name FROM cc_stamped WHERE category = 3 ORDER BY id LIMIT 1";
    let names = "SELECT max(name) FROM cc_stamped WHERE id < 4";
    for read in [name, names] {
        assert_eq!(client.value(read), "good 3");
    }
    client.run("UPDATE cc_stamped SET price = 1 WHERE id = 3");
    for read in [name, names] {
        assert_eq!(client.value(read), "good 3!");
    }
    client.run("UPDATE cc_stamped SET price = 1 WHERE price > 0");
    for read in [name, names] {
        assert_eq!(client.value(read), "good 3!!");
    }
    // One that is made later counts from then on.
    let kept = "SELECT words::text FROM cc_goods WHERE id > 2 AND id < 4";
    assert!(client.rows(kept)[0][0].is_none());
    client.run(
        "CREATE TRIGGER words BEFORE UPDATE ON cc_goods FOR EACH ROW
         EXECUTE FUNCTION tsvector_update_trigger(words, 'pg_catalog.simple', name)",
    );
    assert!(client.rows(kept)[0][0].is_none());
    client.run("UPDATE cc_goods SET name = 'nice' WHERE id = 3");
    assert_eq!(client.value(kept), "'nice':1");
}

#[test]
fn what_changes_strong_columns_alone_drops_nothing() {
    let (databases, herd) = start(2, "");
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let page = "SELECT name, price FROM cc_goods WHERE id = 5".to_owned();
    let reads = [page, list(1), "SELECT count(name) FROM cc_goods".to_owned()];
    let kept = keep(&databases, &mut client, &reads);
    other.run("UPDATE cc_goods SET stock = stock - 1 WHERE id = 5");
    other.run("BEGIN; UPDATE cc_goods SET stock = stock - 1; COMMIT");
    for (read, kept) in reads.iter().zip(&kept) {
        assert!(is_kept(&mut client, read, kept), "{read}");
    }
    assert_eq!(client.value("SELECT stock FROM cc_goods WHERE id = 5"), "8");
    other.run("UPDATE cc_goods SET stock = stock - 1, price = 77 WHERE id = 5");
    for (read, kept) in reads.iter().zip(&kept).take(2) {
        assert!(!is_kept(&mut client, read, kept), "{read}");
    }
}

#[test]
fn a_role_that_may_not_read_values_still_writes() {
    let (databases, herd) = start(2, "");
    for port in crate::shared::ports() {
        let role =
            "DO $$BEGIN CREATE ROLE cc_clerk; EXCEPTION WHEN duplicate_object THEN NULL; END$$";
        let mut owner = Client::connect(*port, "postgres", "postgres");
        owner.run(role);
        owner.run("GRANT cc_clerk TO app");
    }
    databases.run_everywhere("GRANT SELECT (id), UPDATE (price) ON cc_goods TO cc_clerk");
    let mut reader = herd.connect();
    let mut clerk = herd.connect();
    clerk.run("SET ROLE cc_clerk");
    for way in 0..4 {
        let reads = [list(1), list(2)];
        keep(&databases, &mut reader, &reads);
        let price = format!("{}", 500 + way);
        writes(
            &mut clerk,
            way,
            "UPDATE cc_goods SET price = $2 WHERE id = $1",
            &["5", &price],
        );
        let rows = reader.rows(&reads[0]);
        let row = rows
            .iter()
            .find(|row| row[0].as_deref() == Some("5"))
            .unwrap();
        assert_eq!(row[2].as_deref(), Some(price.as_str()), "{way}");
    }
}

#[test]
fn groups_that_end_otherwise_are_marked_as_well() {
    let (databases, herd) = start(3, "");
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let update = |id: u8| format!("UPDATE cc_goods SET price = price + 100 WHERE id = {id}");
    let group = |sql: &str| {
        let mut bytes = Vec::new();
        let mut message = |tag: u8, body: &[u8]| {
            bytes.push(tag);
            bytes.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
            bytes.extend_from_slice(body);
        };
        message(b'P', format!("\0{sql}\0\0\0").as_bytes());
        message(b'B', b"\0\0\0\0\0\0\0\0");
        message(b'E', b"\0\0\0\0\0");
        bytes
    };
    let sync = b"S\0\0\0\x04";
    let mut query = b"Q\0\0\0\x0dSELECT 1\0".to_vec();
    let two = [group(&update(5)), group(&update(6)), sync.to_vec()].concat();
    let wide = [
        group(&update(5)),
        group("UPDATE cc_goods SET views = 9 WHERE id IN (1, 2, 3)"),
        sync.to_vec(),
    ]
    .concat();
    let read = [
        group(&update(5)),
        group("SELECT count(*) FROM cc_goods"),
        sync.to_vec(),
    ]
    .concat();
    let mut then = group(&update(5));
    then.append(&mut query);
    for (name, bytes, answers) in [
        ("two", two, 1),
        ("wide", wide, 1),
        ("read", read, 1),
        ("query", then, 1),
    ] {
        let reads = [list(1), list(3)];
        let kept = keep(&databases, &mut client, &reads);
        other.send(&bytes);
        for _ in 0..answers {
            other.answer().unwrap();
        }
        assert!(!is_kept(&mut client, &reads[0], &kept[0]), "{name}");
    }
    // What fails changes nothing, and what follows is as ever.
    let failed = [
        group(&update(5)),
        group("SELECT 1 / (id - id) FROM cc_goods WHERE id = 5"),
        sync.to_vec(),
    ]
    .concat();
    other.send(&failed);
    assert!(other.answer().is_err());
    assert!(
        other
            .query("SELECT 1 / (id - id) FROM cc_goods WHERE id = 5")
            .is_err()
    );
    other.run(&update(7));
    assert_eq!(other.query(&update(7)).unwrap().tags, ["UPDATE 1"]);
}
