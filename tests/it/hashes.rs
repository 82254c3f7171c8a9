//! The hash of a key is PostgreSQL's: each type's values beside `satisfies_hash_partition`.

use pgherd::placement::BUCKETS;
use pgherd::types::key::{Key, KeyType, row_hash};

use crate::client::Client;
use crate::random::Random;
use crate::shared::Databases;

/// How many values of each type.
const VALUES: usize = 10_000;

/// A type of key, PostgreSQL's names for it, what sends it in binary, and values of it: SQL over `g`,
/// a number, and `r`, a random float.
const TYPES: [(KeyType, &str, &str, &str); 10] = [
    (
        KeyType::Int2,
        "int2",
        "int2send",
        "(r * 65535 - 32768)::int2",
    ),
    (
        KeyType::Int4,
        "int4",
        "int4send",
        "(r * 4294967295 - 2147483648)::int4",
    ),
    (
        KeyType::Int8,
        "int8",
        "int8send",
        "CASE g % 3 WHEN 0 THEN g WHEN 1 THEN -g ELSE (r * 18e18 - 9e18)::int8 END",
    ),
    (
        KeyType::Text,
        "text",
        "textsend",
        "substr(md5(r::text) || repeat('é–🐘 ', g % 9), g % 31, g % 40)",
    ),
    (
        KeyType::Text,
        "varchar(60)",
        "varcharsend",
        "left(repeat(md5(r::text), 2), g % 60)",
    ),
    (KeyType::Uuid, "uuid", "uuid_send", "md5(r::text)::uuid"),
    (
        KeyType::Date,
        "date",
        "date_send",
        "date '0001-01-01' + (r * 3652058)::int",
    ),
    (
        KeyType::Timestamp,
        "timestamp",
        "timestamp_send",
        "timestamp '0001-01-01' + r * interval '3652058 days'",
    ),
    (
        KeyType::TimestampTz,
        "timestamptz",
        "timestamptz_send",
        "timestamptz '0001-01-03' + r * interval '3652050 days'",
    ),
    (
        KeyType::Numeric,
        "numeric",
        "numeric_send",
        "((r - 0.5) * (10::numeric ^ (g % 40 - 15)))::numeric(60, 20) / CASE g % 2 WHEN 0 THEN 1 ELSE 1000 END",
    ),
];

/// Asks the server whether `remainder` is that of each row of `keys`, and returns those that are not.
fn strangers(
    server: &mut Client,
    table: &str,
    names: &[&str],
    rows: &[(Vec<String>, u64)],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for rows in rows.chunks(1_000) {
        let values: Vec<String> = rows
            .iter()
            .map(|(key, remainder)| format!("({}, {remainder})", key.join(", ")))
            .collect();
        let columns: Vec<String> = (0..names.len()).map(|at| format!("k{at}")).collect();
        let keys = columns.join(", ");
        let sql = format!(
            "SELECT concat_ws(', ', {keys}, remainder) FROM (VALUES {}) v ({keys}, remainder)
             WHERE NOT satisfies_hash_partition('{table}'::regclass, {BUCKETS}, remainder, {keys})",
            values.join(", ")
        );
        wrong.extend(server.rows(&sql).into_iter().flatten().flatten());
    }
    wrong
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digits).collect()
}

fn literal(value: &str, name: &str) -> String {
    format!("'{}'::{name}", value.replace('\'', "''"))
}

#[test]
fn keys_of_every_type_hash_as_in_partitions() {
    let random = Random::from_environment();
    println!("SEED={}", random.seed);
    let databases = Databases::create(1);
    let mut server = databases.reference();
    let share = f64::from(u32::try_from(random.seed % 1_000_003).expect("small")) / 1_000_003.0;
    server.run(&format!("SELECT setseed({share})"));
    for (at, (kind, name, send, value)) in TYPES.into_iter().enumerate() {
        server.run(&format!(
            "CREATE TABLE h{at} (k {name}) PARTITION BY HASH (k)"
        ));
        let values = server.rows(&format!(
            "SELECT k::text, encode({send}(k), 'hex') FROM
               (SELECT ({value})::{name} AS k FROM
                 (SELECT g, random() AS r FROM generate_series(1, {VALUES}) g) s) v"
        ));
        assert_eq!(values.len(), VALUES);
        let mut keys = Vec::new();
        for row in &values {
            let [Some(text), Some(hex)] = row.as_slice() else {
                panic!("{name}: {row:?}");
            };
            let key = Key::from_text(kind, text.as_bytes())
                .unwrap_or_else(|error| panic!("{name} {text:?}: {error}"));
            let binary = bytes(hex);
            assert_eq!(
                Key::from_binary(kind, &binary).as_ref(),
                Ok(&key),
                "{name} {text:?}"
            );
            let remainder = row_hash(&[key]) % BUCKETS;
            keys.push((vec![literal(text, name)], remainder));
        }
        let wrong = strangers(&mut server, &format!("h{at}"), &[name], &keys);
        assert!(
            wrong.is_empty(),
            "{name}: {} wrong, such as {:?}",
            wrong.len(),
            wrong[0]
        );
        // A test that cannot fail is none: the remainder next to it belongs to another partition.
        keys.truncate(100);
        for (_, remainder) in &mut keys {
            *remainder = (*remainder + 1) % BUCKETS;
        }
        assert_eq!(
            strangers(&mut server, &format!("h{at}"), &[name], &keys).len(),
            100
        );
    }
}

#[test]
fn composite_keys_hash_as_in_partitions() {
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let databases = Databases::create(1);
    let mut server = databases.reference();
    server.run("CREATE TABLE h (a text, b int8, c uuid) PARTITION BY HASH (a, b, c)");
    let names = ["text", "int8", "uuid"];
    let keys: Vec<(Vec<String>, u64)> = (0..VALUES)
        .map(|_| {
            let text = format!("{:x}", random.next() >> random.below(64));
            let number = random.next().cast_signed().to_string();
            let uuid = format!("{:016x}{:016x}", random.next(), random.next());
            let key = [
                Key::from_text(KeyType::Text, text.as_bytes()),
                Key::from_text(KeyType::Int8, number.as_bytes()),
                Key::from_text(KeyType::Uuid, uuid.as_bytes()),
            ]
            .map(|column| column.expect("a key"));
            let remainder = row_hash(&key) % BUCKETS;
            let written = [
                literal(&text, "text"),
                literal(&number, "int8"),
                literal(&uuid, "uuid"),
            ];
            (written.to_vec(), remainder)
        })
        .collect();
    let wrong = strangers(&mut server, "h", &names, &keys);
    assert!(
        wrong.is_empty(),
        "{} wrong, such as {:?}",
        wrong.len(),
        wrong[0]
    );
}
