//! Keys are placed where PostgreSQL's hash partitions are, and read as its input functions read them.

use std::fmt::Write as _;

use pgherd::placement::BUCKETS;
use pgherd::types::key::{Key, KeyError, KeyType, row_hash};

use crate::client::Client;
use crate::postgres::Cluster;
use crate::random::Random;

const KINDS: &[(&str, KeyType)] = &[
    ("int2", KeyType::Int2),
    ("int4", KeyType::Int4),
    ("int8", KeyType::Int8),
    ("text", KeyType::Text),
    ("uuid", KeyType::Uuid),
    ("date", KeyType::Date),
    ("timestamp", KeyType::Timestamp),
    ("timestamptz", KeyType::TimestampTz),
    ("numeric", KeyType::Numeric),
];

/// A server with a table `p_TYPE` partitioned by hash for each type, and one for a tuple.
fn start() -> (Cluster, Client) {
    let cluster = Cluster::start("");
    let mut client = cluster.connect("postgres");
    for (name, _) in KINDS {
        client.run(&format!(
            "CREATE TABLE p_{name} (k {name}) PARTITION BY HASH (k)"
        ));
    }
    client.run("CREATE TABLE p_tuple (a text, b int8) PARTITION BY HASH (a, b)");
    (cluster, client)
}

fn bucket(key: &[Key<'_>]) -> u64 {
    row_hash(key) % BUCKETS
}

/// Asks whether every one of the (key, bucket) rows lies in its bucket.
fn check_rows(client: &mut Client, table: &str, columns: &str, rows: &[String]) {
    let sql = format!(
        "SELECT count(*) FROM (VALUES {}) v(bucket, {columns}) WHERE satisfies_hash_partition('{table}'::regclass, {BUCKETS}, bucket, {columns})",
        rows.join(",")
    );
    assert_eq!(client.value(&sql), rows.len().to_string(), "{table}");
}

#[test]
fn random_keys_lie_in_their_partitions() {
    let (_cluster, mut client) = start();
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let mut ints = Vec::new();
    let mut texts = Vec::new();
    let mut uuids = Vec::new();
    let mut tuples = Vec::new();
    for _ in 0..10_000 {
        let number = random.next().cast_signed() >> random.below(64);
        ints.push(format!("({}, {number}::int8)", bucket(&[Key::Int(number)])));
        let length = random.below(40);
        let text: String = (0..length)
            .map(|_| *random.choose(&['a', 'B', '0', ' ', '\'', 'ß', '京', '😀', '-']))
            .collect();
        let key = Key::Text(text.as_bytes().into());
        let quoted = text.replace('\'', "''");
        texts.push(format!("({}, '{quoted}'::text)", bucket(&[key.clone()])));
        let bytes: [u8; 16] = random.bytes(16).try_into().expect("16 bytes");
        let mut hex = String::new();
        for byte in bytes {
            write!(hex, "{byte:02x}").expect("a string takes all");
        }
        uuids.push(format!("({}, '{hex}'::uuid)", bucket(&[Key::Uuid(bytes)])));
        let both = bucket(&[key, Key::Int(number)]);
        tuples.push(format!("({both}, '{quoted}'::text, {number}::int8)"));
    }
    check_rows(&mut client, "p_int8", "k", &ints);
    check_rows(&mut client, "p_text", "k", &texts);
    check_rows(&mut client, "p_uuid", "k", &uuids);
    check_rows(&mut client, "p_tuple", "a, b", &tuples);
}

/// Text that one input function or another reads, or refuses.
const INPUTS: &[&str] = &[
    "0",
    "-0",
    "+7",
    " 42 ",
    "\t1\n",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "",
    " ",
    "-",
    "+-1",
    "1.0",
    "1e3",
    "1 2",
    "0x1F",
    "1_000",
    "abc",
    "12abc",
    "٣",
    "00112233445566778899aabbccddeeff",
    "00112233-4455-6677-8899-AABBCCDDEEFF",
    "{00112233445566778899aabbccddeeff}",
    "{00112233445566778899aabbccddeeff",
    "0011-2233-4455-6677-8899-aabb-ccdd-eeff",
    "001-12233445566778899aabbccddeeff",
    "00112233445566778899aabbccddeeff-",
    " 00112233445566778899aabbccddeeff",
    "2024-02-29",
    "2023-02-29",
    "0001-01-01",
    "9999-12-31",
    "infinity",
    "-infinity",
    "today",
    "2024-1-5",
    "1999-12-31 23:59:59.999999",
    "2024-06-01T12:30",
    "2024-06-01 24:00:00",
    "2024-06-01 12:30:00+02",
    "2024-06-01 12:30:00.5-05:30",
    "2024-06-01 12:30:00Z",
    "-12.500",
    "0.0001",
    "100000000",
    ".5",
    "5.",
    "NaN",
    "1234567890123456789012345.6789",
];

#[test]
fn keys_are_read_as_the_server_reads_them() {
    let (_cluster, mut client) = start();
    let mut proven = 0;
    for (name, kind) in KINDS {
        for text in INPUTS {
            let key = Key::from_text(*kind, text.as_bytes());
            let at = key
                .as_ref()
                .map_or(0, |key| bucket(std::slice::from_ref(key)));
            let sql = format!(
                "SELECT satisfies_hash_partition('p_{name}'::regclass, {BUCKETS}, {at}, $1::{name})"
            );
            let answer = client.query_with(&sql, &[Some(text)]);
            match (key, answer) {
                (Ok(key), Ok(answer)) => {
                    assert_eq!(answer.rows, [[Some("t".into())]], "{name} {text:?}: {key}");
                    proven += 1;
                }
                (Err(KeyError::Invalid(fault)), Err(error)) => {
                    assert_eq!(fault.code.as_str(), error.code, "{name} {text:?}");
                    assert_eq!(fault.message, error.message);
                }
                (Err(KeyError::Unprovable), _) => (),
                (key, answer) => panic!("{name} {text:?}: {key:?} but {answer:?}"),
            }
        }
    }
    assert!(proven > 120, "{proven} keys");
}

#[test]
fn literals_mean_what_the_server_takes_them_for() {
    let (_cluster, mut client) = start();
    let mut proven = 0;
    for (kind, name, literal) in [
        (KeyType::Int8, "int8", "5"),
        (KeyType::Int8, "int8", "007"),
        (KeyType::Int8, "int8", "' 5 '"),
        (KeyType::Int8, "int8", r"E'\x35'"),
        (KeyType::Int8, "int8", "$$5$$"),
        (KeyType::Numeric, "numeric", "12.500"),
        (KeyType::Text, "text", "'it''s'"),
        (KeyType::Text, "text", r"'a\b'"),
        (
            KeyType::Text,
            "text",
            r"E'a\tb\n\\\'''\101\x41\x4A\u00e9\U0001F600\q\7'",
        ),
        (KeyType::Text, "text", "$tag$ a $$ 'b' $tag$"),
        (KeyType::Text, "text", "''"),
        (KeyType::Date, "date", "'2024-02-29'"),
    ] {
        let key = Key::from_literal(kind, literal.as_bytes(), false).expect(literal);
        let at = bucket(&[key]);
        let sql = format!(
            "SELECT satisfies_hash_partition('p_{name}'::regclass, {BUCKETS}, {at}, {literal}::{name})"
        );
        assert_eq!(client.value(&sql), "t", "{literal}");
        proven += 1;
    }
    assert_eq!(proven, 12);
}
