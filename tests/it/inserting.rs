//! INSERTs whose rows belong to several shards: the answers are those of one PostgreSQL, each row lies on
//! its shard, and what fails on one shard is written on none.

use std::fmt::Write as _;

use crate::client::{Answer, Client};
use crate::fixture::{Fixture, tables};
use crate::herd::{Herd, Options};
use crate::message;
use crate::random::Random;
use crate::shared::Databases;

/// Ends of an INSERT; whether the rows it returns have an order.
const TAILS: [(&str, bool); 6] = [
    ("", true),
    (" RETURNING n, k AS key, v", true),
    (" ON CONFLICT DO NOTHING", true),
    (" ON CONFLICT DO NOTHING RETURNING v", false),
    (
        " ON CONFLICT (k, n) DO UPDATE SET v = excluded.v || 'again' RETURNING *",
        true,
    ),
    (
        " ON CONFLICT (k, n) DO UPDATE SET v = 'x' WHERE EXCLUDED.n > 3 RETURNING k",
        false,
    ),
];

struct Insert {
    sql: String,
    values: Vec<String>,
    ordered: bool,
}

fn random_insert(random: &mut Random, extended: bool) -> Insert {
    let tables = tables();
    let table = random.choose(&tables);
    let (tail, ordered) = *random.choose(&TAILS);
    let mut insert = Insert {
        sql: format!("INSERT INTO {} AS values (v, k, n) VALUES ", table.name),
        values: Vec::new(),
        ordered,
    };
    for row in 0..=random.below(9) {
        let key = if table.is_text() {
            (*random.choose(&["de", "fr", "A", "Ham", "Q", "it's", "x y", ""])).to_owned()
        } else {
            (random.below(60).cast_signed() - 6).to_string()
        };
        let text = *random.choose(&["a", "), (", "it's", "", "ü", "$1"]);
        let n = random.below(12).to_string();
        let mut value = |text: &str, is_number: bool, random: &mut Random| {
            if extended && random.chance(80) {
                insert.values.push(text.to_owned());
                return format!("${}", insert.values.len());
            }
            if is_number {
                text.to_owned()
            } else {
                format!("'{}'", text.replace('\'', "''"))
            }
        };
        let (text, key, n) = (
            value(text, false, random),
            value(&key, !table.is_text(), random),
            value(&n, true, random),
        );
        let comma = if row > 0 { " , " } else { "" };
        write!(insert.sql, "{comma}( {text},{key}, {n})").expect("a string takes it");
    }
    insert.sql += tail;
    insert
}

fn run(insert: &Insert, extended: bool, client: &mut Client) -> Result<Answer, String> {
    let values: Vec<Option<&str>> = insert.values.iter().map(|it| Some(it.as_str())).collect();
    let result = if extended {
        client.query_with(&insert.sql, &values)
    } else {
        client.query(&insert.sql)
    };
    let mut answer = result.map_err(|error| error.code)?;
    if !insert.ordered {
        answer.rows.sort();
    }
    Ok(answer)
}

#[test]
fn random_rows_of_many_keys_are_inserted_as_by_one_postgres() {
    let mut random = Random::from_environment();
    let seed = random.seed;
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for number in 0..800 {
        let extended = random.chance(60);
        let insert = random_insert(&mut random, extended);
        let found = run(&insert, extended, &mut client);
        let wanted = run(&insert, extended, &mut reference);
        assert_eq!(
            found, wanted,
            "SEED={seed}, case {number}: {} {:?}",
            insert.sql, insert.values
        );
        for table in tables() {
            if random.chance(1) {
                let sql = format!("DELETE FROM {}", table.name);
                fixture.databases.run_everywhere(&sql);
            }
        }
    }
    fixture.check_rows();
}

#[test]
fn what_fails_on_one_shard_is_written_on_none() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for client in [&mut client, &mut reference] {
        client.run("INSERT INTO by_modulo VALUES (7, 1, 'is there')");
    }
    for sql in [
        "INSERT INTO by_modulo VALUES (1, 1, 'a'), (2, 1, 'b'), (7, 1, 'twice'), (4, 4, 'd')",
        "INSERT INTO by_modulo VALUES (1, 1, 'a'), (2, 'ü', 'b'), (3, 1, 'c')",
        "INSERT INTO by_modulo VALUES (1, 1, 'ä'), (2, 1, 'b'), (3, 1 / (1 - 1), 'c')",
        "INSERT INTO by_modulo VALUES (1, 1, 'ä'), (2, 1, 'b') RETURNING nothing",
        "INSERT INTO by_modulo VALUES (1, NULL, 'ä'), (2, 1, 'b')",
    ] {
        let [found, wanted] = [&mut client, &mut reference].map(|client| {
            client.send(&message::query(sql));
            let answer = client.until_ready().expect("an answer");
            let error = answer.iter().find(|message| message.tag == b'E');
            // Its SQLSTATE, its message, and its position in the statement.
            ['C', 'M', 'P'].map(|field| error.expect("an error").field(field))
        });
        assert_eq!(found, wanted, "{sql}");
    }
    let rows = client.rows("SELECT v FROM by_modulo");
    assert_eq!(rows, vec![vec![Some("is there".to_owned())]]);
    // Nor is it of a block that is rolled back.
    client.run("BEGIN");
    let sql = "INSERT INTO by_modulo VALUES (1, 1, 'a'), (2, 1, 'b')";
    assert_eq!(client.run(sql).tags, ["INSERT 0 2"]);
    client.run("ROLLBACK");
    assert_eq!(client.run(sql).tags, ["INSERT 0 2"]);
}

#[test]
fn constants_fail_before_rows() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let mut codes = Vec::new();
    // Whichever shard comes first: one row has no primary key, the other no value.
    for (bad, missing) in [(1, 2), (2, 1), (3, 1), (0, 3)] {
        let sql = format!(
            "INSERT INTO by_modulo (k, n, v) VALUES ({missing}, NULL, 'x'), ({bad}, 3000000049::int8::int4, 'y')"
        );
        let wanted = reference.fails(&sql);
        assert_eq!(client.fails(&sql).code, wanted.code, "{sql}");
        codes.push(wanted.code);
    }
    assert!(codes.iter().all(|code| code == "22003"), "{codes:?}");
    let count = client.value("SELECT n FROM by_modulo WHERE k = 1 UNION ALL SELECT 7");
    assert_eq!(count, "7", "nothing is written");
}

#[test]
fn a_prepared_insert_takes_its_rows_to_their_shards() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let sql =
        "INSERT INTO by_modulo VALUES ($2, $1, $5), ($3, $1, 'two'), ($4, 2, $5) RETURNING k, n, v";
    let binary = |number: i64| Some(number.to_be_bytes().to_vec());
    let row = |key: i64, n: i64, text: &str| {
        [key.to_string(), n.to_string(), text.to_owned()]
            .map(Some)
            .to_vec()
    };
    for client in [&mut client, &mut reference] {
        client.send(&[message::parse("many", sql, &[20]), message::sync()].concat());
        client.answer().expect("prepared");
        for first in [10, 20, 30_i64] {
            let values = [
                binary(first),
                binary(first),
                binary(first + 1),
                binary(first + 2),
                Some(b"text".to_vec()),
            ];
            client.send(
                &[
                    message::bind("", "many", &[1, 1, 1, 1, 0], &values, &[0]),
                    message::describe(b'P', ""),
                    message::execute("", 0),
                    message::sync(),
                ]
                .concat(),
            );
            let answer = client.answer().expect("inserted");
            let wanted = vec![
                row(first, first, "text"),
                row(first + 1, first, "two"),
                row(first + 2, 2, "text"),
            ];
            assert_eq!(answer.rows, wanted);
            assert_eq!(answer.tags, ["INSERT 0 3"]);
        }
    }
    let few = [binary(1), binary(1), binary(2), binary(3)];
    client.send(
        &[
            message::bind("", "many", &[1], &few, &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat(),
    );
    assert_eq!(client.answer().expect_err("one is wanting").code, "08P01");
    assert_eq!(client.rows("SELECT k FROM by_modulo").len(), 9);
    let other = "INSERT INTO by_modulo VALUES (1, 1, 'a'), (2, 1, 'b')";
    for within in [
        format!("EXPLAIN {other}"),
        format!("COPY ({other} RETURNING k) TO STDOUT"),
        format!("WITH a AS ({other} RETURNING k) SELECT * FROM a"),
        "INSERT INTO by_modulo VALUES (1, 1, 'a'), (2, 1)".to_owned(),
    ] {
        assert_eq!(client.fails(&within).code, "0A000", "{within}");
    }
    client.run(&format!("PREPARE p AS {other}"));
    assert_eq!(client.fails("EXECUTE p").code, "0A000");
    fixture.check_rows();
}

#[test]
fn the_first_row_that_fails_is_told() {
    let databases = Databases::create(4);
    databases.run_everywhere("CREATE TABLE telling (k int PRIMARY KEY, v text NOT NULL)");
    let mut options = Options::new("transaction");
    options.sharded("telling", "k", "int", "{modulo: all}");
    let herd = Herd::start(&databases, &options);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for values in [
        "(3, 'there'), (4, 'there'), (5, 'there')",
        "(7, 'new'), (3, 'twice'), (8, NULL)",
        "(8, NULL), (3, 'twice')",
        "(12, 'a'), (16, 'b'), (20, 'c'), (3, 'x'), (24, NULL), (7, 'd')",
        "(9, 'a'), (13, 'b'), (5, 'twice'), (12, 'a'), (4, 'twice'), (11, NULL)",
        "(11, NULL), (9, 'a'), (5, 'twice'), (12, 'a'), (4, 'twice')",
        "(6, 'a'), (9, 'b')",
    ] {
        let sql = format!("INSERT INTO telling VALUES {values}");
        Fixture::same(&mut client, &mut reference, &sql);
        Fixture::same(&mut client, &mut reference, "SELECT * FROM telling");
    }
}
