//! Large fields pass through without being held: memory stays where it was.
//!
//! `SLOW_TESTS=1` takes 900 MB, as much as PostgreSQL allows; otherwise it is 128 MB.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::client::Client;
use crate::fixture::Fixture;
use crate::message::{frame, query, zeroed};

/// By how much the proxy may grow.
const GROWTH_MAX: u64 = 64 << 20;

fn size() -> usize {
    if std::env::var_os("SLOW_TESTS").is_some() {
        900 << 20
    } else {
        128 << 20
    }
}

/// Runs something while the proxy's memory is watched.
fn watched(fixture: &Fixture, what: &str, run: impl FnOnce()) {
    let before = fixture.herd.resident();
    let pid = fixture.herd.pid();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let watcher = spawn(move || {
        let mut most = 0;
        while !stopped.load(Ordering::Relaxed) {
            most = most.max(crate::herd::resident(pid));
            sleep(Duration::from_millis(5));
        }
        most
    });
    run();
    stop.store(true, Ordering::Relaxed);
    let most = watcher.join().expect("no panic");
    let growth = most.saturating_sub(before);
    println!("{what}: from {} MB to {} MB", before >> 20, most >> 20);
    assert!(
        growth < GROWTH_MAX,
        "{what}: memory grew by {} MB",
        growth >> 20
    );
}

/// Reads messages without keeping them, up to ReadyForQuery: the bytes of DataRows.
fn count_rows(stream: &mut TcpStream) -> usize {
    let mut total = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head).expect("a message");
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
        let mut left = usize::try_from(length).expect("fits") - 4;
        if head[0] == b'D' {
            total += left;
        }
        let kept = left.min(1000);
        stream.read_exact(&mut buffer[..kept]).expect("a body");
        assert_ne!(
            head[0],
            b'E',
            "{}",
            String::from_utf8_lossy(&buffer[..kept])
        );
        left -= kept;
        while left > 0 {
            let part = left.min(buffer.len());
            stream.read_exact(&mut buffer[..part]).expect("a body");
            left -= part;
        }
        if head[0] == b'Z' {
            return total;
        }
    }
}

#[test]
fn large_fields_are_streamed() {
    let fixture = Fixture::start();
    let size = size();
    let mut client = fixture.connect();
    client.run("INSERT INTO by_jump VALUES (1, 1, 'small')");
    select(&fixture, &mut client, size);
    bind_parameter(&fixture, &mut client, size);
    copy(&fixture, &mut client, size, "at_home", b"1\t");
    copy(&fixture, &mut client, size, "by_jump", b"5\t1\t");
    copy_in_one_message(&fixture, &mut client, size);
}

fn select(fixture: &Fixture, client: &mut Client, size: usize) {
    let mut stream = client.sender();
    watched(fixture, "SELECT", || {
        client.send(&query(&format!("SELECT repeat('x', {size})")));
        assert!(count_rows(&mut stream) > size);
    });
}

fn bind_parameter(fixture: &Fixture, client: &mut Client, size: usize) {
    let mut stream = client.sender();
    watched(fixture, "Bind", || {
        client.send(&crate::message::parse("", "SELECT length($1::text)", &[]));
        let head = [
            zeroed(&["", ""]),
            vec![0, 0, 0, 1],
            u32::try_from(size).expect("fits").to_be_bytes().to_vec(),
        ]
        .concat();
        let length = u32::try_from(head.len() + size + 2 + 4)
            .expect("fits")
            .to_be_bytes();
        stream
            .write_all(&[b"B", &length[..], &head].concat())
            .expect("sent");
        write_many(&mut stream, size);
        stream.write_all(&[0, 0]).expect("sent");
        client.send(&[crate::message::execute("", 0), crate::message::sync()].concat());
        let rows = client.answer().expect("an answer").rows;
        assert_eq!(rows, [[Some(size.to_string())]]);
    });
}

fn copy(fixture: &Fixture, client: &mut Client, size: usize, table: &str, start: &[u8]) {
    let mut stream = client.sender();
    watched(fixture, &format!("COPY {table}"), || {
        client.send(&query(&format!("COPY {table} FROM STDIN")));
        assert_eq!(
            client.receive(crate::client::REPLY).expect("an answer").tag,
            b'G'
        );
        client.send(&frame(b'd', start));
        let chunk = frame(b'd', &vec![b'y'; 64 << 10]);
        for _ in 0..size / (64 << 10) {
            stream.write_all(&chunk).expect("sent");
        }
        client.send(&[frame(b'd', b"\n"), frame(b'c', b"")].concat());
        assert_eq!(client.answer().expect("taken").tags, ["COPY 1"]);
    });
    client.run(&format!("TRUNCATE {table}"));
}

/// Whole rows before and after the long one, all in one CopyData message.
fn copy_in_one_message(fixture: &Fixture, client: &mut Client, size: usize) {
    let mut stream = client.sender();
    watched(fixture, "COPY by_jump in one message", || {
        client.send(&query("COPY by_jump FROM STDIN"));
        assert_eq!(
            client.receive(crate::client::REPLY).expect("an answer").tag,
            b'G'
        );
        let (before, after) = (b"1\t1\ta\n2\t1\tb\n3\t1\t", b"\n4\t1\tc\n5\t1\td\n");
        let length = 4 + before.len() + size + after.len();
        let length = u32::try_from(length).expect("fits").to_be_bytes();
        stream
            .write_all(&[b"d", &length[..], before].concat())
            .expect("sent");
        write_many(&mut stream, size);
        stream.write_all(after).expect("sent");
        client.send(&frame(b'c', b""));
        assert_eq!(client.answer().expect("taken").tags, ["COPY 5"]);
    });
    for key in 1..=5 {
        let expected = if key == 3 { size } else { 1 };
        let text = format!("SELECT length(v) FROM by_jump WHERE k = {key}");
        let rows = client.run(&text).rows;
        assert_eq!(rows, [[Some(expected.to_string())]]);
    }
    client.run("TRUNCATE by_jump");
}

#[test]
fn a_row_that_hides_its_key_is_refused() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.send(&query("COPY by_jump (v, k) FROM STDIN"));
    assert_eq!(
        client.receive(crate::client::REPLY).expect("an answer").tag,
        b'G'
    );
    client.send(
        &[
            frame(b'd', &vec![b'y'; 20 << 20]),
            frame(b'd', b"\t1\n"),
            frame(b'c', b""),
        ]
        .concat(),
    );
    let refused = client.answer().expect_err("refused");
    assert_eq!(refused.code, "54000");
    assert!(
        client
            .run("SELECT k FROM by_jump WHERE k = 1")
            .rows
            .is_empty()
    );
}

fn write_many(stream: &mut TcpStream, size: usize) {
    let chunk = vec![b'z'; 1 << 20];
    let mut left = size;
    while left > 0 {
        let part = left.min(chunk.len());
        stream.write_all(&chunk[..part]).expect("sent");
        left -= part;
    }
}
