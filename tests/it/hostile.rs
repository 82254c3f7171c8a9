//! Clients that break the protocol: the proxy answers, hangs up, and goes on serving.

use std::time::Duration;

use crate::client::{Client, Lost};
use crate::herd::{Herd, Options};
use crate::message::{bind, describe, execute, frame, parse, query, startup, sync, zeroed};
use crate::random::Random;
use crate::shared::Databases;

fn start() -> (Databases, Herd) {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (id int, v text)");
    let mut options = Options::new("transaction");
    options.set("client_login_timeout: 2s");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

/// What a well-behaved client gets.
fn check_serves(herd: &Herd, after: &str) {
    let client = Client::try_connect(herd.port, "app", &herd.database);
    let mut client = client.unwrap_or_else(|error| panic!("{after}: {error:?}"));
    assert_eq!(client.value("SELECT 'well'"), "well", "{after}");
    assert_eq!(
        client
            .query_with("SELECT $1::int + 1", &[Some("1")])
            .expect(after)
            .rows,
        [[Some("2".to_owned())]]
    );
}

#[test]
fn strange_first_packets_are_turned_away() {
    let (_databases, herd) = start();
    let mut random = Random::from_environment();
    let word = |value: u32| value.to_be_bytes().to_vec();
    let mut packets = vec![
        vec![],
        vec![0],
        word(0),
        word(3),
        word(4),
        word(7),
        word(8),
        [word(8), word(0)].concat(),
        [word(8), word(196_608)].concat(),
        [word(9), word(196_608), vec![0]].concat(),
        [word(u32::MAX), word(196_608)].concat(),
        [word(0x7fff_ffff), word(196_608)].concat(),
        [word(10_001), word(196_608)].concat(),
        [word(16), word(80_877_102)].concat(),
        [word(15), word(80_877_102), vec![0; 7]].concat(),
        [word(400), word(80_877_102), vec![0; 392]].concat(),
        [word(8), word(131_072)].concat(),
        [word(8), word(262_144)].concat(),
        [word(9), word(196_610), vec![0]].concat(),
        [word(30), word(196_608), b"user\0app\0database".to_vec()].concat(),
        [word(17), word(196_608), b"user\0app\0".to_vec()].concat(),
        [word(8), word(80_877_103), word(8), word(80_877_103)].concat(),
        [word(8), word(80_877_104), word(8), word(80_877_104)].concat(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        startup(&[("user", "")]),
        startup(&[("database", "x")]),
        startup(&[("user", "app"), ("user", "postgres"), ("database", "nope")]),
        startup(&[("user", &"x".repeat(9000))]),
        startup(&(0..300).map(|_| ("a", "b")).collect::<Vec<_>>()),
    ];
    packets.extend((0..60).map(|_| random.bytes(1 + random.clone().below(200))));
    for packet in packets {
        let what = format!("SEED={} {:?}", random.seed, &packet[..packet.len().min(40)]);
        let mut client = Client::open(herd.port).expect("it listens");
        client.send(&packet);
        drop(client.sender().shutdown(std::net::Shutdown::Write));
        // An answer or none, but an end.
        loop {
            match client.receive_byte() {
                Ok(_) => (),
                Err(Lost::Closed) => break,
                Err(Lost::TimedOut) => panic!("{what}: neither answer nor end"),
            }
        }
    }
    check_serves(&herd, "strange first packets");
}

#[test]
fn a_silent_client_is_ended() {
    let (_databases, herd) = start();
    let mut silent = Client::open(herd.port).expect("it listens");
    let mut half = Client::open(herd.port).expect("it listens");
    half.send(&startup(&[("user", "app")])[..9]);
    assert_eq!(silent.receive_byte(), Err(Lost::Closed));
    while half.receive_byte().is_ok() {}
    check_serves(&herd, "silence");
}

/// A message of random kind with a body that is right, cut, or nonsense.
fn random_message(random: &mut Random) -> Vec<u8> {
    let names = ["", "a", "b", "ü", "no such"];
    let texts = [
        "SELECT 1",
        "SELECT $1::int",
        "",
        "BEGIN",
        "COMMIT",
        "SELECT 1; SELECT 2",
        "selec",
        "COPY t FROM STDIN",
        "COPY t TO STDOUT",
        "INSERT INTO t VALUES (1, 'x')",
        "DEALLOCATE ALL",
        "SET work_mem = '5MB'",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "LISTEN x",
        "ROLLBACK",
        "PREPARE a AS SELECT 1",
        "EXECUTE a",
    ];
    let (name, other, text) = (
        *random.choose(&names),
        *random.choose(&names),
        *random.choose(&texts),
    );
    let mut message = match random.below(16) {
        0 | 1 => query(text),
        2 | 3 => parse(name, text, &[]),
        4 | 5 => bind(
            other,
            name,
            &[],
            &vec![Some(b"1".to_vec()); random.below(2)],
            &[],
        ),
        6 | 7 => execute(other, u32::try_from(random.below(3)).expect("small")),
        8 => describe(*random.choose(b"SPx"), name),
        9 => frame(
            b'C',
            &[vec![*random.choose(b"SPx")], zeroed(&[name])].concat(),
        ),
        10 | 11 => sync(),
        12 => frame(b'H', b""),
        13 => frame(*random.choose(b"dcfFp"), b"1\tx\n\0"),
        14 => {
            let length = random.below(40);
            frame(
                *random.choose(b"QPBEDCSHdcfFpXyZ\0\xff"),
                &random.bytes(length),
            )
        }
        _ => frame(b'd', b"5\tfive\n"),
    };
    match random.below(25) {
        0 => {
            let at = random.below(message.len());
            message[at] ^= 1 << random.below(8);
        }
        1 => message.truncate(1 + random.below(message.len())),
        2 => message.extend(random.bytes(3)),
        _ => (),
    }
    message
}

#[test]
fn random_messages_end_in_an_answer_or_in_the_end() {
    let (databases, herd) = start();
    let seed = Random::from_environment().seed;
    let rounds: u64 = std::env::var("CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(300);
    for round in 0..rounds {
        let mut random = Random::new(seed.wrapping_add(round));
        let mut client = Client::connect(herd.port, "app", &databases.name);
        let mut bytes = Vec::new();
        for _ in 0..=random.below(25) {
            bytes.extend(random_message(&mut random));
        }
        while !bytes.is_empty() {
            let length = 1 + random.below(bytes.len());
            let chunk: Vec<u8> = bytes.drain(..length).collect();
            client.send(&chunk);
        }
        drop(client.sender().shutdown(std::net::Shutdown::Write));
        loop {
            match client.receive(Duration::from_secs(10)) {
                Ok(message) => assert!(
                    message.tag != b'E' || message.field('C') != "XX000",
                    "SEED={} CASES=1: {}",
                    random.seed,
                    message.line()
                ),
                Err(Lost::Closed) => break,
                Err(Lost::TimedOut) => panic!(
                    "SEED={} CASES=1: hangs after the client has ended",
                    random.seed
                ),
            }
        }
        if round % 20 == 0 {
            check_serves(&herd, &format!("SEED={} CASES=1", random.seed));
        }
    }
    let plain = crate::leaks::fingerprint(&mut databases.reference());
    for _ in 0..5 {
        assert_eq!(
            crate::leaks::fingerprint(&mut herd.connect()),
            plain,
            "SEED={seed}"
        );
    }
}

#[test]
fn impossible_lengths_end_the_connection() {
    let (databases, herd) = start();
    for (tag, length) in [
        (b'Q', 0_u32),
        (b'Q', 3),
        (b'Q', u32::MAX),
        (b'Q', 0x8000_0000),
        (b'P', 0x7fff_ffff),
        (b'd', 0x4000_0001),
        (b'S', 0x1000_0000),
        (b'p', 8),
    ] {
        let mut client = Client::connect(herd.port, "app", &databases.name);
        client.send(&[vec![tag], length.to_be_bytes().to_vec(), vec![b'x'; 100]].concat());
        let mut last = None;
        loop {
            match client.receive(Duration::from_secs(10)) {
                Ok(message) => last = Some(message.line()),
                Err(Lost::Closed) => break,
                Err(Lost::TimedOut) => panic!(
                    "{} of length {length}: no end after {last:?}",
                    char::from(tag)
                ),
            }
        }
    }
    check_serves(&herd, "impossible lengths");
}

#[test]
fn a_smuggled_statement_is_not_run() {
    let (databases, herd) = start();
    // A Query inside the body of a longer message, and behind its zero byte.
    let inner = query("INSERT INTO t VALUES (666, 'smuggled')");
    let mut long = query("SELECT 1");
    long.extend(&inner);
    let length = u32::try_from(long.len() - 1).expect("short").to_be_bytes();
    long[1..5].copy_from_slice(&length);
    for bytes in [
        long,
        frame(b'd', &inner),
        parse(
            "x",
            &format!(
                "SELECT '{}'",
                String::from_utf8_lossy(&inner).replace('\0', "")
            ),
            &[],
        ),
    ] {
        let mut client = herd.connect();
        client.send(&[bytes, sync()].concat());
        drop(client.until_ready());
        client.hang_up();
    }
    check_serves(&herd, "smuggling");
    assert_eq!(databases.shard(0).value("SELECT count(*) FROM t"), "0");
}
