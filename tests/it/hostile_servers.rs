//! Servers that break the protocol: their clients are told, and nobody else is hurt.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::Duration;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::{frame, zeroed};
use crate::random::Random;
use crate::shared::Databases;

/// What a hostile server does with each connection.
type Behaviour = Arc<Mutex<Box<dyn FnMut(&mut TcpStream) + Send>>>;

/// Listens for ever; each connection is handled by the behaviour of the moment.
fn hostile_server() -> (u16, Behaviour) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let behaviour: Behaviour = Arc::new(Mutex::new(Box::new(|_: &mut TcpStream| ())));
    let current = Arc::clone(&behaviour);
    spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            drop(stream.set_read_timeout(Some(Duration::from_millis(200))));
            let mut handle = current.lock().expect("no panic");
            handle(&mut stream);
        }
    });
    (port, behaviour)
}

/// Answers the startup as a trusting server does, up to ReadyForQuery.
fn greet(stream: &mut TcpStream) {
    let mut startup = [0; 4096];
    let count = stream.read(&mut startup).unwrap_or(0);
    if startup[..count].starts_with(&[0, 0, 0, 8, 4, 210, 22, 47]) {
        drop(stream.write_all(b"N"));
        drop(stream.read(&mut startup));
    }
    let mut bytes = frame(b'R', &[0; 4]);
    for (name, value) in [
        ("server_version", "15.0"),
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
    ] {
        bytes.extend(frame(b'S', &zeroed(&[name, value])));
    }
    bytes.extend(frame(b'K', &[0, 0, 0, 1, 0, 0, 0, 2]));
    bytes.extend(frame(b'Z', b"I"));
    drop(stream.write_all(&bytes));
}

/// Random, broken or misplaced replies.
fn random_replies(random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=random.below(8) {
        let length = random.below(20);
        bytes.extend(match random.below(14) {
            0 => frame(
                b'T',
                &[
                    0, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 4, 255, 255, 255, 255, 0, 0,
                ],
            ),
            1 => frame(b'D', &[0, 1, 0, 0, 0, 1, b'1']),
            2 => frame(b'D', &[0, 9, 0, 0, 0, 200, b'1']),
            3 => frame(b'C', b"SELECT 1\0"),
            4 => frame(b'Z', b"I"),
            5 => frame(b'Z', b"?"),
            6 => frame(b'G', &[0, 0, 1, 0, 0]),
            7 => frame(b'E', b"SERROR\0C22012\0Mno\0\0"),
            8 => frame(b'E', b"S"),
            9 => frame(*random.choose(b"123nsItWKRvV\0\xff"), &random.bytes(length)),
            10 => random.bytes(1 + length),
            11 => frame(b'S', b"only a name\0"),
            12 => [vec![b'D'], u32::MAX.to_be_bytes().to_vec()].concat(),
            _ => [vec![b'D'], 2_u32.to_be_bytes().to_vec()].concat(),
        });
    }
    if random.chance(30) {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

#[test]
fn a_hostile_server_hurts_nobody_else() {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (k int, v text); INSERT INTO t VALUES (0, 'good')");
    let (port, behaviour) = hostile_server();
    let mut options = Options::new("transaction");
    options.sharded("t", "k", "int", "{modulo: all}");
    options
        .set("server_connect_timeout: 1s")
        .set("query_wait_timeout: 1s")
        .set("query_timeout: 1s");
    let mut herd = Herd::start_over(&databases.name, &[databases.shard_ports[0], port], &options);
    herd.hostile = true;
    let seed = Random::from_environment().seed;
    let rounds: u64 = std::env::var("CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(60);
    let mut client = herd.connect();
    for round in 0..rounds {
        let mut random = Random::new(seed.wrapping_add(round));
        let context = format!("SEED={} CASES=1", random.seed);
        let mut replies = random.clone();
        *behaviour.lock().expect("no panic") = Box::new(move |stream: &mut TcpStream| {
            if replies.chance(80) {
                greet(stream);
                drop(stream.read(&mut [0; 4096]));
            }
            drop(stream.write_all(&random_replies(&mut replies)));
            if replies.chance(50) {
                drop(stream.read(&mut [0; 4096]));
                drop(stream.write_all(&random_replies(&mut replies)));
            }
        });
        let victim = Client::try_connect(herd.port, "app", &herd.database);
        let mut victim = victim.unwrap_or_else(|error| panic!("{context}: {error:?}"));
        let told = if random.chance(50) {
            victim.query("SELECT v FROM t WHERE k = 1")
        } else {
            victim.query_with("SELECT v FROM t WHERE k = $1", &[Some("1")])
        };
        if let Err(error) = told {
            assert!(!error.message.contains("TimedOut"), "{context}: {error:?}");
        }
        if round % 5 == 0 {
            drop(victim.query("SELECT v FROM t"));
        }
        assert_eq!(
            client.value("SELECT v FROM t WHERE k = 0"),
            "good",
            "{context}"
        );
    }
}
