//! COPY FROM through the proxy: rows are split by key, all of them or none.

use std::io::Write as _;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use crate::client::{Client, REPLY, cancel};
use crate::fixture::{Fixture, Table, tables};
use crate::load::eventually;
use crate::message::frame;
use crate::random::Random;
use crate::shared::SHARDS;

/// Pieces that values are made of: what the formats must escape, and what looks like an escape.
const PIECES: &[&str] = &[
    "a",
    "Z",
    "7",
    " ",
    "\t",
    "\n",
    "\r",
    "\\",
    "\"",
    "'",
    ",",
    ";",
    "\\N",
    "\\.",
    "NULL",
    "é",
    "\u{1F418}",
    "",
    "\"\"",
    "\\t",
];

const FORMATS: &[&str] = &[
    "",
    "WITH (FORMAT text, DELIMITER '|', NULL 'nil')",
    "CSV",
    "WITH (FORMAT csv, HEADER, DELIMITER ';', QUOTE '''', NULL 'x')",
    "WITH (FORMAT csv, ESCAPE '\\', FORCE_QUOTE *)",
    "WITH (FORMAT binary)",
];

/// The COPY of the other direction: what only FROM or only TO knows is left out.
fn from_options(options: &str) -> String {
    options.replace(", FORCE_QUOTE *", "")
}

fn random_text(random: &mut Random) -> String {
    (0..random.below(6))
        .map(|_| *random.choose(PIECES))
        .collect()
}

fn random_key(random: &mut Random, table: &Table) -> String {
    match table.kind {
        "text" => random_text(random),
        "smallint" => (random.below(65_536).cast_signed() - 32_768).to_string(),
        _ if random.chance(50) => (random.below(2000).cast_signed() - 500).to_string(),
        "int" => (random.below(1 << 32).cast_signed() - (1 << 31)).to_string(),
        _ => random.next().cast_signed().to_string(),
    }
}

/// Writes random rows to the reference server by INSERT.
fn random_rows(reference: &mut Client, table: &Table, random: &mut Random, count: usize) {
    for n in 0..count {
        let value = (!random.chance(15)).then(|| random_text(random));
        let key = random_key(random, table);
        let n = n.to_string();
        let sql = format!("INSERT INTO {} VALUES ($1, $2, $3)", table.name);
        let inserted = reference.query_with(&sql, &[Some(&key), Some(&n), value.as_deref()]);
        inserted.unwrap_or_else(|error| panic!("{key:?} {value:?}: {error:?}"));
    }
}

fn chop(bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = if random.chance(30) { 3 } else { 200 };
        let (piece, after) = rest.split_at((1 + random.below(most)).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

#[test]
fn copied_rows_lie_on_their_shards() {
    let mut random = Random::from_environment();
    let seed = random.seed;
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for table in &tables() {
        for options in FORMATS {
            for columns in ["k, n, v", "v, n, k"] {
                let name = table.name;
                let context = format!("SEED={seed} {name} ({columns}) {options}");
                fixture
                    .databases
                    .run_everywhere(&format!("TRUNCATE {name}"));
                random_rows(&mut reference, table, &mut random, 60);
                let bytes =
                    reference.copy_out(&format!("COPY {name} ({columns}) TO STDOUT {options}"));
                let sql = format!(
                    "COPY {name} ({columns}) FROM STDIN {}",
                    from_options(options)
                );
                let answer = client.copy_in(&sql, &chop(&bytes, &mut random));
                let tags = answer
                    .unwrap_or_else(|error| panic!("{context}: {error:?}"))
                    .tags;
                assert_eq!(tags, ["COPY 60"], "{context}");
                println!("{context}");
                fixture.check_table(table);
            }
        }
    }
}

#[test]
fn a_large_copy_is_split() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let rows: Vec<String> = (0..50_000)
        .map(|k| format!("{}\t{k}\tvalue of {k}\n", k * 7 - 1000))
        .collect();
    let pieces: Vec<Vec<u8>> = rows
        .concat()
        .as_bytes()
        .chunks(8192)
        .map(<[u8]>::to_vec)
        .collect();
    for connection in [&mut client, &mut reference] {
        let tags = connection
            .copy_in("COPY by_jump FROM STDIN", &pieces)
            .expect("copied")
            .tags;
        assert_eq!(tags, ["COPY 50000"]);
    }
    fixture.check_rows();
    for shard in 0..SHARDS {
        let count: usize = fixture
            .databases
            .shard(shard)
            .value("SELECT count(*) FROM by_jump")
            .parse()
            .expect("a count");
        assert!(
            (10_000..15_000).contains(&count),
            "shard {shard} holds {count} of 50000"
        );
    }
}

fn total(fixture: &Fixture, table: &str) -> usize {
    let count = |shard| {
        fixture
            .databases
            .shard(shard)
            .value(&format!("SELECT count(*) FROM {table}"))
    };
    (0..SHARDS)
        .map(|shard| count(shard).parse::<usize>().expect("a count"))
        .sum()
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let good: Vec<String> = (0..2000).map(|k| format!("{k}\t{k}\tx\n")).collect();
    let good = good.concat();
    let cases: &[(&str, String, &str)] = &[
        (
            "COPY by_jump FROM STDIN",
            format!("{good}not a number\t1\tx\n"),
            "22P02",
        ),
        (
            "COPY by_jump FROM STDIN",
            format!("{good}5\tnot a number\tx\n"),
            "22P02",
        ),
        (
            "COPY by_jump FROM STDIN",
            format!("{good}5\t5\tx\n"),
            "23505",
        ),
        (
            "COPY by_jump FROM STDIN",
            format!("{good}5000\t5\n"),
            "22P04",
        ),
        (
            "COPY by_jump FROM STDIN",
            format!("{good}5000\t5\tx\ty\n"),
            "22P04",
        ),
        ("COPY by_jump FROM STDIN", format!("{good}\\N\t5\tx\n"), ""),
        ("COPY by_jump (n, v) FROM STDIN", "1\tx\n".to_owned(), ""),
        (
            "COPY by_jump FROM STDIN CSV",
            "1,2,\"no closing quote\n".to_owned(),
            "22P04",
        ),
        (
            "COPY by_jump FROM STDIN (FORMAT binary)",
            "no binary header here".to_owned(),
            "22P04",
        ),
        ("COPY by_jump (nope) FROM STDIN", good.clone(), ""),
    ];
    for (sql, data, code) in cases {
        let pieces: Vec<Vec<u8>> = data.as_bytes().chunks(1000).map(<[u8]>::to_vec).collect();
        let error = client.copy_in(sql, &pieces).expect_err(sql);
        let end = &data[data.len().saturating_sub(30)..];
        assert!(
            code.is_empty() || error.code == *code,
            "{sql} {end:?}: {error:?}"
        );
        assert!(
            !error.code.is_empty() && error.code != "XX000",
            "{sql}: {error:?}"
        );
        assert_eq!(client.status, 'I', "{sql}");
        assert_eq!(total(&fixture, "by_jump"), 0, "{sql} {end:?}");
    }
    client.send(&crate::message::query("COPY by_jump FROM STDIN"));
    client.send(&frame(b'd', good.as_bytes()));
    client.send(&frame(b'f', b"the client gives up\0"));
    let error = client.answer().expect_err("CopyFail");
    assert_eq!(error.code, "57014", "{error:?}");
    assert_eq!(total(&fixture, "by_jump"), 0);
    // A client that is gone in the middle.
    let mut lost = fixture.connect();
    lost.send(&crate::message::query("COPY by_jump FROM STDIN"));
    lost.send(&frame(b'd', good.as_bytes()));
    lost.hang_up();
    client.run("SELECT 1");
    assert_eq!(
        client
            .copy_in("COPY by_jump FROM STDIN", &[good.into_bytes()])
            .expect("copied")
            .tags,
        ["COPY 2000"]
    );
    assert_eq!(total(&fixture, "by_jump"), 2000);
}

#[test]
fn a_split_copy_is_part_of_a_block() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for (end, count) in [("ROLLBACK", 0), ("COMMIT", 2)] {
        client.run("BEGIN");
        let copied = client
            .copy_in("COPY by_jump FROM STDIN", &[b"1\t1\tx\n2\t2\tx\n".to_vec()])
            .expect("in a block");
        assert_eq!(copied.tags, ["COPY 2"]);
        assert_eq!(client.status, 'T');
        client.run(end);
        assert_eq!(total(&fixture, "by_jump"), count);
    }
    client.run("BEGIN");
    let bad = client.copy_in("COPY by_jump FROM STDIN", &[b"7\t1\tx\n8\tu\tx\n".to_vec()]);
    assert!(bad.is_err(), "{bad:?}");
    assert_eq!(client.status, 'E');
    client.run("ROLLBACK");
    assert_eq!(total(&fixture, "by_jump"), 2);
    client.run("BEGIN");
    let copied = client
        .copy_in("COPY at_home FROM STDIN", &[b"1\tx\n".to_vec()])
        .expect("a single table");
    assert_eq!(copied.tags, ["COPY 1"]);
    client.run("COMMIT");
    assert_eq!(client.value("SELECT count(*) FROM at_home"), "1");
}

#[test]
fn copy_by_the_extended_protocol_is_split() {
    use crate::message::{bind, execute, parse, sync};
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let start = [
        parse("", "COPY by_jump FROM STDIN", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
    ];
    client.send(&start.concat());
    client.send(
        &[
            frame(b'd', b"1\t1\ta\n2\t2\tb\n"),
            frame(b'd', b"3\t3\tc\n"),
            frame(b'c', &[]),
            sync(),
        ]
        .concat(),
    );
    assert_eq!(client.answer().expect("copied").tags, ["COPY 3"]);
    assert_eq!(total(&fixture, "by_jump"), 3);
}

#[test]
fn a_copy_that_fails_within_a_message_drops_the_rest_of_it() {
    use crate::message::{bind, execute, parse, query, sync};
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let start = [
        parse("", "COPY by_jump FROM STDIN", &[]),
        bind("", "", &[], &[], &[]),
        execute("", 0),
        sync(),
    ];
    let rows: Vec<String> = (0..30_000).map(|n| format!("{n}\t1\tvvvvvvvv\n")).collect();
    let long = frame(b'd', format!("wrong\t1\tx\n{}", rows.concat()).as_bytes());
    let (first, rest) = long.split_at(5000);
    for extended in [true, false] {
        if extended {
            client.send(&start.concat());
        } else {
            client.send(&query("COPY by_jump FROM STDIN"));
        }
        while client.receive(REPLY).expect("CopyInResponse").tag != b'G' {}
        client.send(first);
        let error = client.receive(REPLY).expect("an error");
        assert_eq!(error.field('C'), "22P02", "{}", error.line());
        client.send(rest);
        client.send(&frame(b'd', rows.concat().as_bytes()));
        client.send(&frame(b'c', &[]));
        if extended {
            client.send(&sync());
        }
        assert_eq!(client.until_ready().expect("in step").len(), 1);
        assert_eq!(client.value("SELECT 'still in step'"), "still in step");
        assert_eq!(total(&fixture, "by_jump"), 0);
    }
}

#[test]
fn any_number_of_flushes_may_come_between_the_rows() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&crate::message::query("COPY by_jump FROM STDIN"));
    assert_eq!(client.receive(REPLY).expect("CopyInResponse").tag, b'G');
    let flushes = frame(b'H', &[]).repeat(13_000);
    client.send(&flushes);
    client.send(&frame(b'd', b"1\t1\ta\n2\t2"));
    client.send(&flushes);
    client.send(&frame(b'd', b"\tb\n"));
    client.send(&frame(b'c', &[]));
    assert_eq!(client.answer().expect("copied").tags, ["COPY 2"]);
    assert_eq!(total(&fixture, "by_jump"), 2);
}

/// A table on every server whose rows come with a notice each.
fn shout(fixture: &Fixture) {
    fixture.databases.run_everywhere(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE NOTICE '%', repeat('n', 1000); RETURN NEW; END $$;
        CREATE TRIGGER shout BEFORE INSERT ON by_jump FOR EACH ROW EXECUTE FUNCTION shout()",
    );
}

/// Begins a COPY and sends `count` rows of 1 KB from another thread; returns how many could be sent.
fn send_rows(client: &mut Client, count: usize) -> JoinHandle<usize> {
    client.send(&crate::message::query("COPY by_jump FROM STDIN"));
    assert_eq!(client.receive(REPLY).expect("CopyInResponse").tag, b'G');
    let mut sender = client.sender();
    let patience = Some(Duration::from_secs(3));
    sender.set_write_timeout(patience).expect("not zero");
    spawn(move || {
        let row = |n: &usize| format!("1\t{n}\t{}\n", "v".repeat(1000));
        let sent = (0..count)
            .take_while(|n| sender.write_all(&frame(b'd', row(n).as_bytes())).is_ok())
            .count();
        if sent == count {
            sender
                .write_all(&frame(b'c', &[]))
                .expect("CopyDone is sent");
        }
        sent
    })
}

#[test]
fn notices_of_a_split_copy_reach_the_client_while_it_sends() {
    const ROWS: usize = 30_000;
    let fixture = Fixture::start();
    shout(&fixture);
    let mut client = fixture.connect();
    let sender = send_rows(&mut client, ROWS);
    let messages = client.until_ready().expect("copied");
    assert_eq!(sender.join().expect("it does not panic"), ROWS);
    let count = |tag| messages.iter().filter(|message| message.tag == tag).count();
    assert_eq!((count(b'N'), count(b'C'), count(b'E')), (ROWS, 1, 0));
    assert_eq!(total(&fixture, "by_jump"), ROWS);
}

#[test]
fn a_split_copy_whose_notices_are_not_read_can_be_ended() {
    let fixture = Fixture::start();
    shout(&fixture);
    let copying = || -> bool {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY by_jump%' AND state = 'active' AND datname = current_database()";
        (0..SHARDS).any(|shard| fixture.databases.shard(shard).value(sql) != "0")
    };
    let stuck = || {
        let mut client = fixture.connect();
        let sent = send_rows(&mut client, 100_000).join();
        assert!(sent.expect("it does not panic") < 100_000);
        assert!(copying());
        client
    };
    let mut canceled = stuck();
    cancel(fixture.herd.port, canceled.key);
    eventually("a cancel request ends it", || !copying());
    let messages = canceled.until_ready().expect("in step");
    let error = messages.iter().find(|message| message.tag == b'E');
    assert_eq!(error.expect("an error").field('C'), "57014");
    stuck().hang_up();
    eventually("the end of the client ends it", || !copying());
    let killed = stuck();
    let mut console = fixture.herd.console();
    console.run(&format!("KILL {}", fixture.databases.name));
    eventually("KILL ends it", || !copying());
    drop(killed);
    assert_eq!(total(&fixture, "by_jump"), 0);
}

#[test]
fn an_error_ends_a_split_copy_at_once() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&crate::message::query("COPY by_jump FROM STDIN"));
    assert_eq!(client.receive(REPLY).expect("CopyInResponse").tag, b'G');
    let rows: Vec<String> = (0..10_000).map(|k| format!("{k}\t{k}\tx\n")).collect();
    client.send(&frame(b'd', b"7\tno number\tx\n"));
    client.send(&frame(b'd', rows.concat().as_bytes()));
    let error = client.answer().expect_err("before CopyDone");
    assert_eq!(error.code, "22P02", "{error:?}");
    client.send(&frame(b'd', rows.concat().as_bytes()));
    client.send(&frame(b'c', &[]));
    client.run("SELECT k FROM by_jump");
}

#[test]
fn what_runs_on_every_shard_is_described() {
    use crate::message::{bind, describe, execute, parse, sync};
    let fixture = Fixture::start();
    for mut client in [fixture.databases.reference(), fixture.connect()] {
        let mut tags = |sql: &str, then: &[Vec<u8>]| -> String {
            let start = [
                parse("", sql, &[]),
                bind("", "", &[], &[], &[]),
                describe(b'P', ""),
            ];
            client.send(&[&start, then, &[sync()]].concat().concat());
            let messages = client.until_ready().expect("an answer");
            messages
                .iter()
                .map(|message| char::from(message.tag))
                .collect()
        };
        let copied = [execute("", 0), frame(b'd', b"1\tx\n"), frame(b'c', &[])];
        let executed = [execute("", 0)];
        assert_eq!(tags("COPY everywhere FROM STDIN", &copied), "12nGCZ");
        assert_eq!(tags("COPY everywhere FROM STDIN", &[]), "12nZ");
        let update = "UPDATE everywhere SET v = 'y' RETURNING id";
        assert_eq!(tags(update, &[]), "12TZ");
        assert_eq!(tags(update, &executed), "12TDCZ");
        let ddl = "CREATE INDEX ON everywhere (v)";
        assert_eq!(tags(ddl, &[]), "12nZ");
        assert_eq!(tags(ddl, &executed), "12nCZ");
    }
}
