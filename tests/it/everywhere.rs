//! Statements that run on every shard, together and beside others: all or nothing, and nobody waits for ever.

use std::thread::sleep;
use std::time::Duration;

use crate::client::{Client, ServerError};
use crate::fixture::Fixture;
use crate::message::{frame, query};
use crate::shared::SHARDS;

/// How many new rows each shard has in the reference table.
fn copies(fixture: &Fixture) -> Vec<String> {
    (0..SHARDS)
        .map(|shard| {
            let mut client = fixture.databases.shard(shard);
            client.value("SELECT count(*) FROM everywhere WHERE v = 'new'")
        })
        .collect()
}

#[test]
fn a_block_in_one_text_that_writes_a_reference_table_is_all_or_nothing() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    fixture
        .databases
        .shard(3)
        .run("INSERT INTO everywhere VALUES (1, 'in the way')");
    let answer = client.query("BEGIN; INSERT INTO everywhere VALUES (1, 'new'); COMMIT");
    println!("{answer:?}");
    assert_eq!(copies(&fixture), ["0", "0", "0", "0"]);
}

#[test]
fn a_block_begun_in_one_text_with_a_write_of_a_reference_table_is_open() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let answer = client.query("BEGIN; INSERT INTO everywhere VALUES (1, 'new')");
    println!("{answer:?} {}", client.status);
    if answer.is_ok() {
        assert_eq!(client.status, 'T', "PostgreSQL's block is open");
        drop(client.query("ROLLBACK"));
        assert_eq!(copies(&fixture), ["0", "0", "0", "0"]);
    }
}

#[test]
fn a_setting_beside_a_write_of_a_reference_table_stays_with_its_client() {
    let fixture = Fixture::start();
    let mut one = fixture.connect();
    let mut two = fixture.connect();
    let sql = "SELECT current_setting('statement_timeout') FROM by_modulo WHERE k = 1 UNION ALL SELECT current_setting('statement_timeout')";
    let plain = two.run("SHOW statement_timeout").rows;
    let answer =
        one.query("SET statement_timeout = '1234s'; INSERT INTO everywhere VALUES (1, 'new')");
    println!("{answer:?} {:?}", two.query(sql));
    assert_eq!(two.run("SHOW statement_timeout").rows, plain);
}

#[test]
fn two_copies_into_a_reference_table_in_one_text_do_not_hang() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&query(
        "COPY everywhere FROM STDIN; COPY everywhere FROM STDIN",
    ));
    let data = |row: &str| [frame(b'd', row.as_bytes()), frame(b'c', &[])].concat();
    client.send(&[data("1\tnew\n"), data("2\tnew\n")].concat());
    let answer = client.answer();
    println!("{answer:?}");
    assert!(
        !matches!(&answer, Err(error) if error.code.is_empty()),
        "hangs: {answer:?}"
    );
}

#[test]
fn a_copy_into_a_reference_table_with_others_in_its_text_does_not_hang() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&query(
        "COPY everywhere FROM STDIN; UPDATE everywhere SET v = 'new'",
    ));
    let first = client.receive(Duration::from_secs(5));
    println!("{first:?}");
    assert!(first.is_ok(), "hangs");
}

#[test]
fn writes_of_one_row_of_a_reference_table_do_not_lock_each_other_up() {
    let fixture = Fixture::start();
    fixture
        .connect()
        .run("INSERT INTO everywhere VALUES (1, 'x')");
    let port = fixture.herd.port;
    let name = fixture.databases.name.clone();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(port, "app", &name);
                for _ in 0..50 {
                    let answer = client.query("UPDATE everywhere SET v = v || 'x' WHERE id = 1");
                    answer?;
                }
                Ok::<_, ServerError>(())
            })
        })
        .collect();
    let results: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    println!("{results:?}");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

#[test]
fn settings_of_a_wide_text_that_fails_stay_with_nobody() {
    let fixture = Fixture::start();
    let mut one = fixture.connect();
    one.run("INSERT INTO by_modulo VALUES (0, 1, 'x'), (4, 1, 'x')");
    // The lock is taken on every shard.
    println!(
        "{:?}",
        one.query("SELECT pg_advisory_lock(99) IS NULL; INSERT INTO everywhere VALUES (77, 'x')")
    );
    println!(
        "{:?}",
        one.query("LISTEN c; INSERT INTO everywhere VALUES (78, 'x')")
    );
    drop(one);
    sleep(Duration::from_millis(300));
    let held: Vec<_> = (0..4)
        .map(|shard| {
            fixture
                .databases
                .shard(shard)
                .value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 99")
        })
        .collect();
    assert_eq!(held, ["0", "0", "0", "0"]);
}

#[test]
fn a_copy_in_another_encoding_finds_its_rows_again() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("SET client_encoding = 'LATIN1'");
    let mut rows = Vec::new();
    for number in 0..10 {
        rows.extend_from_slice(format!("{number}").as_bytes());
        rows.extend_from_slice(&[0xc3, 0xa9]);
        rows.extend_from_slice(b"\t1\tx\n");
    }
    let answer = client.copy_in("COPY by_jump_text FROM STDIN", &[rows]);
    println!("{answer:?}");
    let mut other = fixture.connect();
    let all = other.rows("SELECT k FROM by_jump_text");
    let mut lost = 0;
    for row in &all {
        let key = row[0].clone().expect("a key");
        let found = other.rows(&format!("SELECT k FROM by_jump_text WHERE k = '{key}'"));
        lost += usize::from(found.is_empty());
    }
    assert_eq!(lost, 0, "of {} rows that are there", all.len());
}

#[test]
fn what_a_server_noticed_comes_before_its_error() {
    let fixture = Fixture::start();
    let sql = "CREATE TABLE ev_noticed () INHERITS (ev_one, ev_other, ev_text)";
    let tags = |mut client: Client| -> Vec<u8> {
        client.run("CREATE TABLE ev_one (a int)");
        client.run("CREATE TABLE ev_other (a int)");
        client.run("CREATE TABLE ev_text (a text)");
        client.send(&query(sql));
        let messages = client.until_ready().expect("an answer");
        messages.iter().map(|message| message.tag).collect()
    };
    let through = tags(fixture.connect());
    assert_eq!(through, tags(fixture.databases.reference()));
    assert_eq!(through, b"NNEZ");
}
