//! Messages as the protocol lays them out, and every prefix of them.

use super::{
    Target, bind, close, describe, execute, parse, password, query, sasl_initial_response,
};
use bytes::{Bytes, BytesMut};
use pgwire::messages::{Message, extendedquery as pgwire_messages};
use proptest::prelude::proptest;

const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x01x\xff\xff\xff\xff\0\x02\0\0\0\x01";

/// What pgwire writes, without tag and length.
fn body(message: &impl Message) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    message.encode(&mut bytes).unwrap();
    bytes[5..].to_vec()
}

#[test]
fn parse_is_read() {
    let body = b"s\0select $1\0\0\x01\0\0\0\x17";
    let message = parse(body).unwrap();
    assert_eq!(
        (message.name, message.query),
        (b"s".as_slice(), b"select $1".as_slice())
    );
    assert_eq!(message.types().collect::<Vec<_>>(), [23]);
    assert_eq!(message.after_name, &body[2..]);
}

#[test]
fn bind_is_read() {
    let message = bind(BIND).unwrap();
    assert_eq!(
        (message.portal, message.statement),
        (b"p".as_slice(), b"s".as_slice())
    );
    assert_eq!(message.value(0), Some((true, Some(b"x".as_slice()))));
    assert_eq!(message.value(1), Some((true, None)));
    assert_eq!(message.value(2), None);
    assert!(!message.result_formats().is_binary(0));
    assert!(message.result_formats().is_binary(1));
}

#[test]
fn no_prefix_of_a_message_is_one() {
    for end in 0..BIND.len() {
        assert!(bind(&BIND[..end]).is_err(), "{end}");
    }
    assert!(bind(&[BIND, b"x"].concat()).is_err());
}

#[test]
fn small_messages_are_read() {
    assert_eq!(describe(b"Sa\0"), Ok(Target::Statement(b"a")));
    assert_eq!(close(b"P\0"), Ok(Target::Portal(b"")));
    assert!(describe(b"Xa\0").is_err());
    assert_eq!(execute(b"\0\0\0\0\x05").unwrap().max_rows, 5);
    assert_eq!(execute(b"\0\xff\xff\xff\xff").unwrap().max_rows, 0);
    assert_eq!(password(b"pw\0"), Ok(b"pw".as_slice()));
    assert!(password(b"pw").is_err());
    assert_eq!(query(b"\0"), Ok(b"".as_slice()));
    assert!(query(b"a\0b\0").is_err());
    let sasl = sasl_initial_response(b"M\0\0\0\0\x01x").unwrap();
    assert_eq!(sasl.response, Some(b"x".as_slice()));
}

type Value = Option<Vec<u8>>;

proptest! {
    #[test]
    fn pgwires_messages_are_read(
        names: ([char; 3], [char; 5]),
        values: Vec<Value>,
        formats: Vec<bool>,
        types: Vec<u32>,
        rows: i32,
    ) {
        let name = |chars: &[char]| chars.iter().filter(|&&c| c != '\0').collect::<String>();
        let (portal, statement) = (name(&names.0), name(&names.1));
        let codes: Vec<i16> = formats.iter().map(|&format| i16::from(format)).collect();
        let all = if codes.len() == values.len() { codes.clone() } else { vec![1] };
        let bytes = values.iter().map(|value| value.clone().map(Bytes::from)).collect();
        let sent = pgwire_messages::Bind::new(Some(portal.clone()), Some(statement.clone()), all.clone(), bytes, codes);
        let body = body(&sent);
        let read = bind(&body).unwrap();
        assert_eq!((read.portal, read.statement), (portal.as_bytes(), statement.as_bytes()));
        for (index, value) in values.iter().enumerate() {
            let is_binary = *all.get(index).unwrap_or(&1) == 1;
            assert_eq!(read.value(index), Some((is_binary, value.as_deref())));
        }

        let sent = pgwire_messages::Parse::new(Some(statement.clone()), portal.clone(), types.clone());
        let body = self::body(&sent);
        let read = parse(&body).unwrap();
        assert_eq!((read.name, read.query), (statement.as_bytes(), portal.as_bytes()));
        assert_eq!(read.types().collect::<Vec<_>>(), types);

        let sent = pgwire_messages::Execute::new(Some(portal.clone()), rows);
        let body = self::body(&sent);
        let read = execute(&body).unwrap();
        assert_eq!(read.max_rows, u32::try_from(rows).unwrap_or(0));
    }

    #[test]
    fn any_bytes_are_read_without_panic(body: Vec<u8>) {
        let _ = (query(&body), parse(&body), describe(&body), close(&body));
        let _ = (execute(&body), password(&body), sasl_initial_response(&body));
        if let Ok(message) = bind(&body) {
            assert_eq!(message.values().count(), message.len());
        }
    }
}
