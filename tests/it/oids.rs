//! Types of the users' have other oids on each server: clients meet those of the home shard only.

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::{self, Message};
use crate::shared::Databases;

const SHARDS: usize = 3;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN temper AS mood;
CREATE TYPE pair AS (m mood, n int);
CREATE TYPE nest AS (p pair, ps pair[], t temper, x text);
CREATE TYPE pairspan AS RANGE (subtype = pair);
CREATE TYPE floatspan AS RANGE (subtype = float8);
CREATE TABLE items (k bigint, m mood, ms mood[], d temper, ds temper[], p pair, ps pair[], n nest,
                    r pairspan, rm pairmultirange_, f floatspan, t text);
CREATE TABLE numbers (k bigint, n int[]);
CREATE TABLE words (LIKE items);
";

const ROW: &str = "'happy', '{sad,NULL,ok}', 'ok', '{{sad},{ok}}', '(sad,1)', \
    '{\"(ok,2)\",\"(,3)\"}', '(\"(happy,4)\",\"{\"\"(sad,5)\"\"}\",ok,abc)', '[\"(sad,1)\",\"(ok,2)\")', \
    '{[\"(sad,1)\",\"(sad,2)\"],[\"(ok,1)\",\"(ok,3)\")}', '[1,2)', 'text'";

/// Numbers that each shard has used up before the schema is made differ.
fn databases() -> Databases {
    let databases = Databases::create(SHARDS);
    let schema = SCHEMA.replace("pairmultirange_", "pairspan_multirange");
    let schema = schema.replace(
        "RANGE (subtype = pair)",
        "RANGE (subtype = pair, multirange_type_name = pairspan_multirange)",
    );
    let mut begun: Vec<i64> = Vec::new();
    for shard in 0..SHARDS {
        let mut client = databases.shard(shard);
        loop {
            client.run("CREATE TYPE burnt AS ENUM ('a')");
            let oid = client.value("SELECT 'burnt'::regtype::oid");
            client.run("DROP TYPE burnt");
            let oid: i64 = oid.parse().expect("a number");
            if begun.iter().all(|other| oid.abs_diff(*other) > 300) {
                begun.push(oid);
                break;
            }
        }
        client.run(&schema);
    }
    let oids: Vec<String> = (0..SHARDS)
        .map(|shard| databases.shard(shard).value("SELECT 'mood'::regtype::oid"))
        .collect();
    assert!(oids[0] != oids[1] && oids[1] != oids[2], "{oids:?}");
    databases
}

fn start() -> (Databases, Herd) {
    let databases = databases();
    let mut options = Options::new("transaction");
    options
        .sharded("items", "k", "bigint", "{modulo: all}")
        .on("numbers", "items", "k")
        .on("later", "items", "k")
        .table("words", "reference");
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    for key in 0..6 {
        client.run(&format!("INSERT INTO items VALUES ({key}, {ROW})"));
        client.run(&format!(
            "INSERT INTO numbers VALUES ({key}, '{{1,{key}}}')"
        ));
    }
    (databases, herd)
}

/// The row of a key moved to the home shard within a transaction, as if all rows were there.
fn at_home(databases: &Databases, key: u32) -> Client {
    let mut home = databases.shard(0);
    home.run("BEGIN");
    if !key.is_multiple_of(3) {
        home.run(&format!("INSERT INTO items VALUES ({key}, {ROW})"));
        home.run(&format!(
            "INSERT INTO numbers VALUES ({key}, '{{1,{key}}}')"
        ));
    }
    home
}

/// Sends messages and reads all answers but ReadyForQuery, whose status differs.
fn exchange(client: &mut Client, messages: &[Vec<u8>]) -> Vec<(char, Vec<u8>)> {
    client.send(&messages.concat());
    let answer = client.until_ready().expect("an answer");
    let shown = |message: Message| (char::from(message.tag), message.body);
    let answer = answer.into_iter().filter(|message| message.tag != b'Z');
    answer.map(shown).collect()
}

fn same(databases: &Databases, client: &mut Client, key: u32, messages: &[Vec<u8>], what: &str) {
    let found = exchange(client, messages);
    let wanted = exchange(&mut at_home(databases, key), messages);
    assert_eq!(found, wanted, "{what} of key {key}");
}

const COLUMNS: [&str; 14] = [
    "m",
    "ms",
    "d",
    "ds",
    "p",
    "ps",
    "n",
    "r",
    "rm",
    "f",
    "items",
    "ROW(m, p)",
    "ARRAY[items]",
    "ARRAY[n, NULL]",
];

#[test]
fn simple_answers_are_those_of_the_home_shard() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    for key in 0..3 {
        for what in COLUMNS.into_iter().chain(["*"]) {
            let sql = format!("SELECT {what} FROM items WHERE k = {key}");
            same(&databases, &mut client, key, &[message::query(&sql)], &sql);
        }
        let sql =
            format!("SELECT m FROM items WHERE k = {key}; SELECT p FROM items WHERE k = {key}");
        let answers = exchange(&mut client, &[message::query(&sql)]);
        assert!(answers.len() >= 3, "{answers:?}");
    }
}

#[test]
fn extended_answers_are_those_of_the_home_shard() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    for round in 0..4 {
        for key in 0..3 {
            for what in COLUMNS {
                for format in [0, 1] {
                    let sql = format!("SELECT {what} FROM items WHERE k = $1");
                    let key_text = [Some(key.to_string().into_bytes())];
                    let bind = message::bind("", "", &[], &key_text, &[format]);
                    let parse = message::parse("", &sql, &[]);
                    let described = [
                        parse.clone(),
                        message::describe(b'S', ""),
                        bind.clone(),
                        message::describe(b'P', ""),
                        message::execute("", 0),
                        message::sync(),
                    ];
                    let plain = [parse, bind, message::execute("", 0), message::sync()];
                    let what = format!("{sql}, format {format}, round {round}");
                    same(&databases, &mut client, key, &plain, &what);
                    same(&databases, &mut client, key, &described, &what);
                }
            }
        }
    }
}

#[test]
fn named_statements_and_portals_are_those_of_the_home_shard() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    for (number, what) in COLUMNS.into_iter().enumerate() {
        let name = format!("s{number}");
        let sql = format!("SELECT {what} FROM items WHERE k = $1");
        let prepare = [
            message::parse(&name, &sql, &[20]),
            message::describe(b'S', &name),
            message::sync(),
        ];
        let found = exchange(&mut client, &prepare);
        assert_eq!(found, exchange(&mut databases.shard(0), &prepare), "{sql}");
        for key in 0..3_u32 {
            let value = [Some(i64::from(key).to_be_bytes().to_vec())];
            let bind = |portal: &str, format| message::bind(portal, &name, &[1], &value, &[format]);
            let run = [bind("", 1), message::execute("", 0), message::sync()];
            let found = exchange(&mut client, &run);
            let mut home = at_home(&databases, key);
            exchange(&mut home, &prepare);
            assert_eq!(found, exchange(&mut home, &run), "{sql}");
            // Two portals, described in another order than they are executed.
            client.run("BEGIN");
            let both = [
                bind("one", 1),
                bind("two", 0),
                message::describe(b'P', "one"),
                message::execute("two", 0),
                message::execute("one", 0),
                message::sync(),
            ];
            let found = exchange(&mut client, &both);
            client.run("ROLLBACK");
            let mut home = at_home(&databases, key);
            exchange(&mut home, &prepare);
            assert_eq!(found, exchange(&mut home, &both), "{sql}");
        }
    }
}

fn oid(client: &mut Client, name: &str) -> u32 {
    client
        .value(&format!("SELECT '{name}'::regtype::oid"))
        .parse()
        .expect("a number")
}

/// What the proxy's home shard gives in binary for a text of a type.
fn binary(client: &mut Client, kind: &str, text: &str) -> Vec<u8> {
    let sql = format!("SELECT '{}'::{kind}", text.replace('\'', "''"));
    let messages = [
        message::parse("", &sql, &[]),
        message::bind("", "", &[], &[], &[1]),
        message::execute("", 0),
        message::sync(),
    ];
    client.send(&messages.concat());
    let answer = client.until_ready().expect("an answer");
    let row = answer.iter().find(|message| message.tag == b'D');
    row.expect("a row").row().remove(0).expect("a value")
}

const VALUES: [(&str, &str, &str); 8] = [
    ("m", "mood", "sad"),
    ("ms", "mood[]", "{sad,ok}"),
    ("ds", "temper[]", "{ok}"),
    ("p", "pair", "(happy,9)"),
    ("ps", "pair[]", "{\"(sad,7)\"}"),
    ("n", "nest", "(\"(ok,1)\",\"{\"\"(sad,2)\"\"}\",sad,y)"),
    ("r", "pairspan", "[\"(sad,1)\",\"(ok,9)\")"),
    ("rm", "pairspan_multirange", "{[\"(sad,1)\",\"(ok,9)\")}"),
];

#[test]
fn parameters_have_the_oids_of_the_home_shard() {
    let (_databases, herd) = start();
    let mut client = herd.connect();
    for (column, kind, text) in VALUES {
        let declared = oid(&mut client, kind);
        let bytes = binary(&mut client, kind, text);
        for key in 0..3_u32 {
            for types in [vec![], vec![declared, 20]] {
                for format in [0, 1] {
                    let value = match format {
                        0 => text.as_bytes().to_vec(),
                        _ => bytes.clone(),
                    };
                    let key_value = i64::from(key).to_be_bytes().to_vec();
                    let values = [Some(value), Some(key_value)];
                    let sql = format!("UPDATE items SET {column} = $1 WHERE k = $2");
                    let messages = [
                        message::parse("", &sql, &types),
                        message::describe(b'S', ""),
                        message::bind("", "", &[format, 1], &values, &[]),
                        message::execute("", 0),
                        message::sync(),
                    ];
                    let without: Vec<Vec<u8>> =
                        [0, 2, 3, 4].map(|at| messages[at].clone()).to_vec();
                    for messages in [&without, &messages.to_vec()] {
                        client.send(&messages.concat());
                        let answer = client.until_ready().expect("an answer");
                        let lines: Vec<String> = answer.iter().map(Message::line).collect();
                        assert!(
                            lines.iter().any(|line| line.contains("UPDATE 1")),
                            "{sql} {types:?} {format}: {lines:?}"
                        );
                        if let Some(told) = answer.iter().find(|message| message.tag == b't') {
                            assert_eq!(told.body[2..6], declared.to_be_bytes(), "{sql}");
                        }
                    }
                    let is = client.value(&format!(
                        "SELECT {column} = '{text}'::{kind} FROM items WHERE k = {key}"
                    ));
                    assert_eq!(is, "t", "{sql} {types:?} {format}");
                }
            }
        }
    }
}

#[test]
fn answers_of_several_shards_are_alike() {
    let (_databases, herd) = start();
    let mut client = herd.connect();
    for what in COLUMNS {
        for format in [0, 1] {
            let sql = format!("SELECT {what} FROM items WHERE k IN (0, 1, 2)");
            let messages = [
                message::parse("", &sql, &[]),
                message::bind("", "", &[], &[], &[format]),
                message::execute("", 0),
                message::sync(),
            ];
            let rows: Vec<Vec<u8>> = exchange(&mut client, &messages)
                .into_iter()
                .filter(|(tag, _)| *tag == 'D')
                .map(|(_, body)| body)
                .collect();
            assert_eq!(rows.len(), 3, "{sql}");
            if what != "items" && what != "ARRAY[items]" {
                assert!(
                    rows.iter().all(|row| *row == rows[0]),
                    "{sql} {format}: {rows:?}"
                );
            }
        }
        client.run(&format!("SELECT {what} FROM items"));
    }
    let mood = oid(&mut client, "mood");
    let (ps, array) = (
        binary(&mut client, "pair[]", "{\"(ok,8)\"}"),
        oid(&mut client, "pair[]"),
    );
    for types in [vec![mood, array], vec![]] {
        let sql = "INSERT INTO items (k, m, ps) VALUES (30, $1, $2), (31, $1, $2), (32, $1, $2) RETURNING m, ps";
        let values = [Some(b"ok".to_vec()), Some(ps.clone())];
        let messages = [
            message::parse("", sql, &types),
            message::bind("", "", &[1], &values, &[1]),
            message::describe(b'P', ""),
            message::execute("", 0),
            message::sync(),
        ];
        let answer = exchange(&mut client, &messages);
        let rows: Vec<_> = answer.iter().filter(|(tag, _)| *tag == 'D').collect();
        assert_eq!(rows.len(), 3, "{answer:?}");
        assert!(rows.iter().all(|row| row.1.ends_with(&ps)), "{rows:?}");
    }
}

#[test]
fn types_made_later_are_known() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    client.run("CREATE TYPE later_mood AS ENUM ('a')");
    client.run("CREATE TABLE later (k bigint, v later_mood, vs later_mood[])");
    client.run("ALTER TYPE later_mood ADD VALUE 'b'");
    for key in 0..3 {
        client.run(&format!("INSERT INTO later VALUES ({key}, 'b', '{{a,b}}')"));
        let sql = format!("SELECT v, vs FROM later WHERE k = {key}");
        let found = exchange(&mut client, &[message::query(&sql)]);
        let mut home = databases.shard(0);
        home.run(&format!(
            "BEGIN; DELETE FROM later; INSERT INTO later VALUES ({key}, 'b', '{{a,b}}')"
        ));
        assert_eq!(found, exchange(&mut home, &[message::query(&sql)]));
    }
    // Past the proxy, and used at once.
    for shard in 0..SHARDS {
        databases.shard(shard).run(
            "CREATE TYPE past AS ENUM ('x', 'y'); ALTER TABLE numbers ADD v past DEFAULT 'y', \
             ADD vs past[] DEFAULT '{x}'",
        );
    }
    let sql = "SELECT v, vs FROM numbers WHERE k = 1";
    let found = exchange(&mut client, &[message::query(sql)]);
    let mut home = databases.shard(0);
    home.run("BEGIN; INSERT INTO numbers (k) VALUES (1)");
    assert_eq!(found, exchange(&mut home, &[message::query(sql)]));
    let found = client.run("SELECT v FROM numbers");
    assert_eq!(found.rows.len(), 6);
    for shard in 0..SHARDS {
        databases
            .shard(shard)
            .run("CREATE TYPE past_too AS ENUM ('x')");
    }
    let declared = oid(&mut client, "past_too");
    let messages = [
        message::parse("", "SELECT $1::text FROM items WHERE k = 2", &[declared]),
        message::bind("", "", &[1], &[Some(b"x".to_vec())], &[]),
        message::execute("", 0),
        message::sync(),
    ];
    let answer = exchange(&mut client, &messages);
    assert!(
        answer.contains(&('D', b"\0\x01\0\0\0\x01x".to_vec())),
        "{answer:?}"
    );
}

#[test]
fn a_type_that_is_missing_is_named() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    databases
        .shard(1)
        .run("CREATE TYPE odd AS ENUM ('o'); ALTER TABLE numbers ADD o odd DEFAULT 'o'");
    databases.shard(0).run("CREATE TYPE even AS ENUM ('e')");
    let error = client.fails("SELECT o FROM numbers WHERE k = 1");
    assert_eq!(error.code, "42704", "{error:?}");
    assert!(
        error.message.contains("\"public.odd\"") && error.message.contains("\"shard_1\""),
        "{error:?}"
    );
    let declared = oid(&mut client, "even");
    for sql in [
        "SELECT $1::text FROM items WHERE k = 1",
        "SELECT $1::text FROM items WHERE k IN (1, 2)",
    ] {
        let messages = [
            message::parse("", sql, &[declared]),
            message::bind("", "", &[0], &[Some(b"e".to_vec())], &[]),
            message::execute("", 0),
            message::sync(),
        ];
        let answer = exchange(&mut client, &messages);
        let error = answer
            .iter()
            .find(|(tag, _)| *tag == 'E')
            .expect("an error");
        let text = String::from_utf8_lossy(&error.1);
        assert!(
            text.contains("public.even") && text.contains("shard_1"),
            "{sql}: {text}"
        );
    }
    client.run("SELECT n FROM numbers WHERE k = 1");
}

#[test]
fn binary_copies_have_the_oids_of_the_home_shard() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    let columns = "k, m, ms, d, ds, p, ps, n, r, rm, f, t";
    let mut home = at_home(&databases, 1);
    home.run("DELETE FROM items WHERE k <> 1");
    // The home shard's own words for the rows, with other keys.
    let mut rows = Vec::new();
    for key in 41..44 {
        home.run(&format!("UPDATE items SET k = {key}"));
        rows.push(home.copy_out("COPY items TO STDOUT (FORMAT binary)"));
    }
    // A header of 19 bytes, a row, a trailer of 2.
    let mut file = rows[0][..19].to_vec();
    for row in &rows {
        file.extend(&row[19..row.len() - 2]);
    }
    file.extend(b"\xff\xff");
    for (sql, size) in [
        ("COPY items FROM STDIN (FORMAT binary)".to_owned(), 7),
        (
            format!("COPY items ({columns}) FROM STDIN (FORMAT binary)"),
            100_000,
        ),
    ] {
        let pieces: Vec<Vec<u8>> = file.chunks(size).map(<[u8]>::to_vec).collect();
        let answer = client.copy_in(&sql, &pieces).expect("a COPY");
        assert_eq!(answer.tags, ["COPY 3"]);
        for key in 41..44 {
            let is = client.rows(&format!(
                "SELECT m, ms, d, ds, p, ps, n, r, rm, f, t FROM items WHERE k = {key}"
            ));
            let was =
                client.rows("SELECT m, ms, d, ds, p, ps, n, r, rm, f, t FROM items WHERE k = 0");
            assert_eq!(is, was, "{sql}");
        }
        for key in 41..44 {
            client.run(&format!("DELETE FROM items WHERE k = {key}"));
        }
    }
    let pieces = vec![file];
    let answer = client.copy_in(
        "COPY words (k, m, ms, d, ds, p, ps, n, r, rm, f, t) FROM STDIN (FORMAT binary)",
        &pieces,
    );
    assert_eq!(answer.expect("a COPY").tags, ["COPY 3"]);
    let mut texts = Vec::new();
    for shard in 0..SHARDS {
        texts.push(
            databases
                .shard(shard)
                .rows("SELECT * FROM words ORDER BY k"),
        );
    }
    assert!(
        texts
            .iter()
            .all(|rows| *rows == texts[0] && rows.len() == 3),
        "{texts:?}"
    );
    let copied = client.copy_out("COPY words TO STDOUT (FORMAT binary)");
    let again = databases
        .shard(0)
        .copy_out("COPY words TO STDOUT (FORMAT binary)");
    assert_eq!(copied, again);
    let error = client.fails("COPY (SELECT p FROM items WHERE k = 1) TO STDOUT (FORMAT binary)");
    assert_eq!(error.code, "0A000", "{error:?}");
    client.run("SELECT p FROM items WHERE k = 1");
}

#[test]
fn numbers_of_types_and_tables_are_those_of_the_home_shard() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    let mut home = databases.shard(0);
    for sql in [
        "SELECT 'mood'::regtype::oid, 'items'::regclass::oid",
        "SELECT oid, typarray FROM pg_type WHERE typname = 'mood'",
        "SELECT tableoid FROM words LIMIT 0",
        "SELECT count(*), 'words'::regclass::oid FROM words",
    ] {
        let query = [message::query(sql)];
        assert_eq!(
            exchange(&mut client, &query),
            exchange(&mut home, &query),
            "{sql}"
        );
    }
    for sql in [
        "SELECT pg_typeof(m)::oid FROM items WHERE k = 1",
        "SELECT CAST(pg_typeof(m) AS oid) FROM items WHERE k = 1",
        "SELECT 'mood'::regtype::int8 FROM items WHERE k = 1",
        "SELECT 'mood'::regtype::oid FROM items WHERE k = 1",
        "SELECT tableoid::oid FROM items WHERE k = 1",
        "SELECT tableoid FROM items WHERE k = 1",
        "SELECT tableoid, k FROM items",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{sql}: {error:?}");
    }
    client.run("SELECT k::oid FROM items WHERE k = 1 AND 5::oid = CAST('5' AS oid)");
    for key in 0..3 {
        for what in ["tableoid::regclass", "pg_typeof(m)", "k AS oid"] {
            for format in [0, 1] {
                let sql = format!("SELECT {what} FROM items WHERE k = {key}");
                let messages = [
                    message::parse("", &sql, &[]),
                    message::bind("", "", &[], &[], &[format]),
                    message::execute("", 0),
                    message::sync(),
                ];
                same(&databases, &mut client, key, &messages, &sql);
            }
        }
    }
}
