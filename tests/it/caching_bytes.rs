//! An answer from the cache has the very bytes of one that was read, and of PostgreSQL's own: generated reads,
//! by both protocols, in text and binary, one by one and many at once. `CASES` and `SEED` choose.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::{self, Message};
use crate::random::Random;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TYPE cb_mood AS ENUM ('sad', 'fine');
CREATE TABLE cb_things (
    id bigint PRIMARY KEY, n int, r float8, d numeric(12, 3), t text, v varchar(20), b boolean, at timestamptz,
    day date, j jsonb, a int[], u uuid, m cb_mood, raw bytea);
CREATE TABLE cb_parts (id bigint, k int, note text, PRIMARY KEY (id, k));
INSERT INTO cb_things SELECT i, i % 7, i / 3.0, i * 1.125, repeat('x', i % 40), 'v' || i, i % 3 = 0,
    '2026-01-01 00:00:00+00'::timestamptz + i * interval '1 hour', '2026-01-01'::date + i, jsonb_build_object('k', i),
    ARRAY[i, i + 1], ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid,
    (CASE WHEN i % 2 = 0 THEN 'sad' ELSE 'fine' END)::cb_mood, decode(lpad(to_hex(i), 8, '0'), 'hex')
    FROM generate_series(1, 60) i;
UPDATE cb_things SET t = NULL, j = NULL WHERE id % 11 = 0;
INSERT INTO cb_parts SELECT i % 60 + 1, i, 'note ' || i FROM generate_series(1, 200) i;
";

const COLUMNS: [&str; 14] = [
    "id", "n", "r", "d", "t", "v", "b", "at", "day", "j", "a", "u", "m", "raw",
];

/// One read, with its parameters.
struct Case {
    sql: String,
    values: Vec<String>,
    types: Vec<u32>,
    binary: bool,
}

/// `value`, as a constant or as a parameter.
fn put(random: &mut Random, case: &mut Case, value: usize) -> String {
    if !random.chance(60) {
        return value.to_string();
    }
    case.values.push(value.to_string());
    case.types.push(20);
    format!("${}", case.values.len())
}

fn generate(random: &mut Random) -> Case {
    let mut case = Case {
        sql: String::new(),
        values: Vec::new(),
        types: Vec::new(),
        binary: random.chance(50),
    };
    let key = random.below(70);
    let key = put(random, &mut case, key);
    let columns: Vec<&str> = (0..=random.below(5))
        .map(|_| *random.choose(&COLUMNS))
        .collect();
    let columns = columns.join(", ");
    case.sql = match random.below(9) {
        0 => format!("SELECT {columns} FROM cb_things WHERE id = {key}"),
        1 => "SELECT * FROM cb_things WHERE id = ".to_owned() + &key,
        2 => {
            let limit = random.below(9);
            let limit = put(random, &mut case, limit);
            format!(
                "SELECT {columns} FROM cb_things WHERE n < {key} ORDER BY id DESC LIMIT {limit}"
            )
        }
        3 => format!(
            "SELECT count(*), sum(n), max(d), min(at), bool_or(b) FROM cb_things WHERE id > {key}"
        ),
        4 => format!(
            "SELECT n, count(*) AS c, avg(n) FROM cb_things WHERE id <> {key} GROUP BY n ORDER BY n"
        ),
        5 => format!(
            "SELECT x.t, p.note FROM cb_things x JOIN cb_parts p ON p.id = x.id WHERE x.id = {key} ORDER BY p.k"
        ),
        6 => format!(
            "SELECT x.id, p.k FROM cb_things x LEFT JOIN cb_parts p ON p.id = x.id AND p.k > {key} ORDER BY 1, 2"
        ),
        7 => format!(
            "SELECT upper(t), length(v), coalesce(t, 'none'), round(d), to_char(at, 'YYYY-MM-DD') FROM cb_things WHERE id = {key}"
        ),
        _ => format!(
            "SELECT id FROM cb_things WHERE id IN (SELECT p.id FROM cb_parts p WHERE p.k = {key}) ORDER BY id"
        ),
    };
    case
}

/// The messages of a read by one protocol. Only a text without parameters is for the simple one.
fn messages(case: &Case, way: usize) -> Vec<u8> {
    if case.values.is_empty() && way == 0 {
        return message::query(&case.sql);
    }
    let value = |text: &String| {
        let number: i64 = text.parse().unwrap();
        Some(if case.binary {
            number.to_be_bytes().to_vec()
        } else {
            text.as_bytes().to_vec()
        })
    };
    let values: Vec<_> = case.values.iter().map(value).collect();
    let format = i16::from(case.binary);
    let mut parts = vec![
        message::parse("", &case.sql, &case.types),
        message::bind("", "", &[format], &values, &[format]),
    ];
    if way != 1 {
        parts.push(message::describe(b'P', ""));
    }
    parts.push(message::execute("", 0));
    parts.push(message::sync());
    parts.concat()
}

fn ask(client: &mut Client, bytes: &[u8]) -> Vec<Message> {
    client.send(bytes);
    client.until_ready().expect("an answer")
}

fn hits(herd: &Herd) -> u64 {
    let shown = herd.console().query("SHOW CACHE").unwrap();
    let hits = shown.column("hits");
    hits.iter().map(|hits| hits.parse::<u64>().unwrap()).sum()
}

fn check(shards: usize) {
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let cases = std::env::var("CASES")
        .ok()
        .and_then(|text| text.parse().ok());
    let cases = cases.unwrap_or(500);
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = Options::new("transaction");
    let policy = "cache: {mode: cached, ttl: 10m, swr: 1h}";
    for table in ["cb_things", "cb_parts"] {
        options.described(table, &format!("kind: single, {policy}"));
    }
    let herd = Herd::start(&databases, &options);
    let (mut one, mut other, mut direct) = (herd.connect(), herd.connect(), databases.shard(0));
    for number in 0..cases {
        let case = generate(&mut random);
        let bytes = messages(&case, number % 3);
        let told = format!("{}: {:?} {}", case.sql, case.values, case.binary);
        let read = ask(&mut one, &bytes);
        assert_eq!(read, ask(&mut direct, &bytes), "read: {told}");
        assert_eq!(read, ask(&mut other, &bytes), "kept: {told}");
        assert_eq!(read, ask(&mut one, &bytes), "kept: {told}");
        assert_eq!(read.last().unwrap().body, b"I");
    }
    assert!(hits(&herd) >= 2 * u64::try_from(cases).unwrap());
    // Many at once: some kept, some not, some writes in between.
    for _ in 0..cases / 20 {
        let mut together = Vec::new();
        for number in 0..20 {
            if random.below(10) == 0 {
                let id = random.below(60);
                together.extend(message::query(&format!(
                    "UPDATE cb_things SET n = n + 1 WHERE id = {id}"
                )));
            } else {
                let case = generate(&mut random);
                together.extend(messages(&case, number % 3));
            }
        }
        let before = "BEGIN; SAVEPOINT s";
        let mut single = databases.shard(0);
        ask(&mut single, &message::query(before));
        // What one PostgreSQL says, undone again.
        single.send(&together);
        let mut expected = Vec::new();
        for _ in 0..20 {
            expected.push(single.until_ready().expect("an answer"));
        }
        ask(&mut single, &message::query("ROLLBACK"));
        one.send(&together);
        for expected in expected {
            let found = one.until_ready().expect("an answer");
            let all_but_status = |messages: &[Message]| messages[..messages.len() - 1].to_vec();
            assert_eq!(all_but_status(&found), all_but_status(&expected));
        }
    }
}

#[test]
fn kept_answers_have_the_bytes_of_the_server() {
    check(1);
}
