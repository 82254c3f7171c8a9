//! Startup packets as clients send them, and as nobody should.

use super::{Packet, PacketError, StartupMessage, body_length, decode, options};
use proptest::prelude::proptest;

fn packet(version: u32, pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        body.extend_from_slice(name);
        body.push(0);
        body.extend_from_slice(value);
        body.push(0);
    }
    body.push(0);
    body
}

fn startup(version: u32, pairs: &[(&[u8], &[u8])]) -> StartupMessage {
    match decode(&packet(version, pairs)) {
        Ok(Packet::Startup(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn refusal(body: &[u8]) -> String {
    match decode(body) {
        Err(PacketError::Refused(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lengths_are_those_of_postgresql() {
    let length = |word: u32| body_length(word.to_be_bytes());
    assert_eq!(length(8), Ok(4));
    assert_eq!(length(10_004), Ok(10_000));
    for wrong in [0, 3, 4, 7, 10_005, u32::MAX] {
        assert_eq!(length(wrong), Err(PacketError::Length(wrong)));
    }
}

#[test]
fn requests_are_told_apart() {
    let code = |low: u32| (0x04d2_0000 | low).to_be_bytes();
    assert_eq!(decode(&code(5679)), Ok(Packet::SslRequest));
    assert_eq!(decode(&code(5680)), Ok(Packet::GssEncRequest));
    let mut cancel = code(5678).to_vec();
    cancel.extend_from_slice(&[0, 0, 0, 5]);
    assert_eq!(decode(&cancel), Err(PacketError::CancelLength(8)));
    cancel.extend_from_slice(&[1, 2, 3, 4]);
    let expect = Packet::CancelRequest {
        pid: 5,
        secret: vec![1, 2, 3, 4],
    };
    assert_eq!(decode(&cancel), Ok(expect));
    cancel.extend_from_slice(&[0; 253]);
    assert_eq!(decode(&cancel), Err(PacketError::CancelLength(265)));
}

#[test]
fn versions_are_negotiated() {
    let check = |minor: u32, spoken: u16, negotiate: bool| {
        let message = startup((3 << 16) | minor, &[(b"user", b"u")]);
        assert_eq!(
            (message.minor, message.negotiate),
            (spoken, negotiate),
            "3.{minor}"
        );
    };
    check(0, 0, false);
    check(1, 1, false);
    check(2, 2, false);
    check(9999, 2, true);
    let message = startup(3 << 16, &[(b"user", b"u"), (b"_pq_.compression", b"1")]);
    assert!(message.negotiate);
    assert_eq!(message.unknown_options, ["_pq_.compression"]);
    assert!(refusal(&packet(2 << 16, &[])).starts_with("unsupported frontend protocol 2.0"));
    assert!(refusal(&packet(4 << 16, &[])).starts_with("unsupported frontend protocol 4.0"));
}

#[test]
fn parameters_are_kept_in_the_order_of_effect() {
    let message = startup(
        3 << 16,
        &[
            (b"user", b"ada"),
            (b"client_encoding", b"'utf-8'"),
            (b"application_name", b"caf\xe9"),
            (
                b"options",
                b"-c search_path=a\\ b --work-mem=1MB -cstatement_timeout=5",
            ),
            (b"replication", b"off"),
        ],
    );
    assert_eq!((&*message.user, &*message.database), ("ada", "ada"));
    let parameters: Vec<_> = message
        .parameters
        .iter()
        .map(|(n, v)| (&**n, &**v))
        .collect();
    assert_eq!(
        parameters,
        [
            ("search_path", "a b"),
            ("work_mem", "1MB"),
            ("statement_timeout", "5"),
            ("client_encoding", "'utf-8'"),
            ("application_name", "caf\u{fffd}"),
        ]
    );
}

#[test]
fn what_cannot_be_served_is_refused() {
    let check = |pairs: &[(&[u8], &[u8])], expect: &str| {
        let found = refusal(&packet(3 << 16, pairs));
        assert!(found.starts_with(expect), "{found}");
    };
    check(&[], "no PostgreSQL user name");
    check(&[(b"user", b"")], "no PostgreSQL user name");
    check(&[(b"user", b"\xff")], "invalid byte sequence");
    check(
        &[(b"user", b"u"), (b"replication", b"database")],
        "replication connections",
    );
    check(
        &[(b"user", b"u"), (b"options", b"-d 5")],
        "invalid command-line argument",
    );
    let layout = "invalid startup packet layout";
    assert!(refusal(b"\0\x03\0\0user\0u\0").starts_with(layout));
    assert!(refusal(b"\0\x03\0\0user\0u\0\0x").starts_with(layout));
    assert!(refusal(b"\0\x03\0\0user").starts_with(layout));
    assert!(refusal(b"\0\x03\0\0").starts_with(layout));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(body: Vec<u8>, text: String) {
        drop(decode(&body));
        let mut version_three = vec![0, 3, 0, 0];
        version_three.extend_from_slice(&body);
        drop(decode(&version_three));
        drop(options(&text));
    }
}
