//! Statements with a key go to the shard of the key, and what goes to several shards is exact.

use crate::client::{Client, Row};
use crate::fixture::{Fixture, Table, tables};
use crate::shared::SHARDS;

/// The ways to write a key into a statement.
#[derive(Clone, Copy, Debug)]
enum Way {
    Literal,
    Quoted,
    Cast,
    TextParameter,
    /// Binary, its type declared in Parse.
    Declared,
    /// Binary, its type left to the server.
    Inferred,
    /// An integer of a narrower type than the column's.
    Narrow,
}

const WAYS: [Way; 7] = [
    Way::Literal,
    Way::Quoted,
    Way::Cast,
    Way::TextParameter,
    Way::Declared,
    Way::Inferred,
    Way::Narrow,
];

fn keys(table: &Table) -> Vec<String> {
    if table.is_text() {
        let words = [
            "de",
            "fr",
            "A",
            "Ham",
            "H",
            "Q",
            "Zürich",
            "it's",
            "",
            " ",
            "\\",
            "a,b",
            "tab\there",
            "7",
        ];
        return words.map(str::to_owned).to_vec();
    }
    let mut keys: Vec<i64> = vec![
        0, 1, 2, 3, 7, 42, -1, -5, -6, 99, 100, 101, 999, 1000, 12_345, -32_768, 32_767,
    ];
    if table.kind != "smallint" {
        keys.extend([2_147_483_647, -2_147_483_648]);
    }
    if table.kind == "bigint" {
        keys.extend([i64::MAX, i64::MIN, 9_007_199_254_740_993]);
    }
    keys.iter().map(i64::to_string).collect()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The key as SQL, and as a parameter: its type, whether it is binary, its value.
fn written(table: &Table, key: &str, way: Way) -> (String, Option<(u32, i16, Vec<u8>)>) {
    let number = || key.parse::<i64>().expect("an integer key");
    let binary = |width: usize| number().to_be_bytes()[8 - width..].to_vec();
    let (oid, width) = match table.kind {
        "smallint" => (21, 2),
        "int" => (23, 4),
        _ => (20, 8),
    };
    match way {
        Way::Literal if !table.is_text() => (key.to_owned(), None),
        Way::Literal | Way::Quoted => (quote(key), None),
        Way::Cast if table.is_text() => (format!("{}::text", quote(key)), None),
        Way::Cast => (format!("CAST({} AS {})", quote(key), table.kind), None),
        Way::TextParameter => ("$1".to_owned(), Some((0, 0, key.as_bytes().to_vec()))),
        Way::Declared if table.is_text() => {
            ("$1".to_owned(), Some((25, 1, key.as_bytes().to_vec())))
        }
        Way::Declared => ("$1".to_owned(), Some((oid, 1, binary(width)))),
        Way::Inferred if table.is_text() => {
            ("$1".to_owned(), Some((0, 1, key.as_bytes().to_vec())))
        }
        Way::Inferred => ("$1".to_owned(), Some((0, 1, binary(width)))),
        Way::Narrow if table.is_text() => {
            ("$1".to_owned(), Some((1043, 0, key.as_bytes().to_vec())))
        }
        Way::Narrow if i16::try_from(number()).is_ok() => {
            ("$1".to_owned(), Some((21, 1, binary(2))))
        }
        Way::Narrow if i32::try_from(number()).is_ok() && table.kind == "bigint" => {
            ("$1".to_owned(), Some((23, 1, binary(4))))
        }
        Way::Narrow => (key.to_owned(), None),
    }
}

/// Runs a statement in which `{k}` stands for the key, on one client.
fn run(
    client: &mut Client,
    sql: &str,
    table: &Table,
    key: &str,
    way: Way,
) -> (Vec<Row>, Vec<String>) {
    let (text, parameter) = written(table, key, way);
    let sql = sql.replace("{t}", table.name).replace("{k}", &text);
    let answer = match parameter {
        None => client.query(&sql),
        Some((oid, format, value)) => client.query_values(&sql, &[oid], &[format], &[Some(value)]),
    };
    let answer = answer.unwrap_or_else(|error| panic!("{sql}\nkey {key:?} as {way:?}: {error:?}"));
    (answer.rows, answer.tags)
}

#[test]
fn each_statement_with_a_key_runs_on_its_shard() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for table in &tables() {
        for (n, way) in WAYS.into_iter().enumerate() {
            for key in &keys(table) {
                let n2 = n + 100;
                for sql in [
                    format!("INSERT INTO {{t}} VALUES ({{k}}, {n}, 'inserted')"),
                    format!(
                        "INSERT INTO {{t}} (v, n, k) VALUES ('a', {n2}, {{k}}), ('b', {n2} + 100, {{k}})"
                    ),
                    format!(
                        "INSERT INTO {{t}} VALUES ({{k}}, {n}, 'again') ON CONFLICT (k, n) DO UPDATE SET v = excluded.v RETURNING v"
                    ),
                    format!("SELECT v FROM {{t}} WHERE k = {{k}} AND n = {n}"),
                    format!(
                        "SELECT count(*), min(n), max(v) FROM {{t}} WHERE k = {{k}} AND n IN ({n}, {n2})"
                    ),
                    "SELECT n, v FROM {t} AS a WHERE n < 1000 AND a.k = {k} ORDER BY n, v LIMIT 20"
                        .to_owned(),
                    format!(
                        "UPDATE {{t}} SET v = v || '!' WHERE k = {{k}} AND n = {n} RETURNING v"
                    ),
                    format!("DELETE FROM {{t}} WHERE n = {n2} AND k = {{k}}"),
                ] {
                    let found = run(&mut client, &sql, table, key, way);
                    let wanted = run(&mut reference, &sql, table, key, way);
                    assert_eq!(
                        found, wanted,
                        "{}: {sql} with {key:?} as {way:?}",
                        table.name
                    );
                }
            }
        }
    }
    fixture.check_rows();
}

/// Rows to read: `count` keys in each table and its co-located one, on the shards and the reference.
fn fill(fixture: &Fixture) {
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for table in tables() {
        for (n, key) in keys(&table).into_iter().enumerate() {
            let sql = format!(
                "INSERT INTO {} VALUES ({}, {n}, 'v{}')",
                table.name,
                quote(&key),
                n % 3
            );
            client.run(&sql);
            reference.run(&sql);
        }
    }
    for key in 0..20 {
        let sql = format!("INSERT INTO beside VALUES ({key}, {}, 'w{key}')", key % 4);
        client.run(&sql);
        reference.run(&sql);
    }
    for id in 0..5 {
        let sql = format!("INSERT INTO everywhere VALUES ({id}, 'e{id}')");
        client.run(&sql);
        reference.run(&sql);
        let sql = format!("INSERT INTO at_home VALUES ({id}, 'h{id}')");
        client.run(&sql);
        reference.run(&sql);
    }
}

#[test]
fn reads_of_several_shards_answer_what_one_postgres_answers() {
    let fixture = Fixture::start();
    fill(&fixture);
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    for table in tables() {
        for sql in [
            "SELECT * FROM {t}",
            "SELECT v, n, k FROM {t} WHERE v = 'v1'",
            "SELECT upper(v) AS u, n * 2 FROM {t} WHERE n > 3 AND v LIKE 'v%'",
            "SELECT a.k FROM {t} a WHERE a.n BETWEEN 2 AND 9",
            "SELECT k FROM {t} WHERE false",
            "SELECT CASE WHEN n > 5 THEN 'big' ELSE 'small' END, coalesce(v, '') FROM {t}",
        ] {
            Fixture::same(&mut client, &mut reference, &sql.replace("{t}", table.name));
        }
    }
    for sql in [
        "SELECT * FROM by_jump WHERE k IN (1, 2, 3, 42)",
        "SELECT * FROM by_jump WHERE k = 1 OR k = 42",
        "SELECT * FROM by_modulo WHERE k IN (1, 5, 9)",
        "SELECT * FROM by_jump WHERE k = 1 AND k = 2",
        "SELECT * FROM by_jump WHERE k IS NULL",
        "SELECT * FROM by_jump WHERE k = NULL",
        "SELECT * FROM by_jump_text WHERE k IN ('de', 'A')",
        "SELECT * FROM everywhere ORDER BY id DESC LIMIT 2",
        "SELECT count(*) FROM everywhere",
        "SELECT * FROM at_home ORDER BY id",
        "SELECT h.v, e.v FROM at_home h JOIN everywhere e USING (id) ORDER BY 1",
        "SELECT a.v, b.w FROM by_jump a JOIN beside b ON a.k = b.k WHERE a.k = 3 AND b.k = 3",
    ] {
        Fixture::same(&mut client, &mut reference, sql);
    }
    for (sql, values) in [
        ("SELECT * FROM by_jump WHERE v = $1", vec![Some("v1")]),
        (
            "SELECT * FROM by_jump WHERE k = $1 OR k = $2",
            vec![Some("1"), Some("42")],
        ),
        ("SELECT * FROM by_jump WHERE k = $1", vec![None]),
    ] {
        let mut found = client.query_with(sql, &values).expect(sql).rows;
        let mut wanted = reference.query_with(sql, &values).expect(sql).rows;
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted, "{sql}");
    }
}

#[test]
fn a_reference_table_is_written_on_every_shard() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let tag = |answer: crate::client::Answer| answer.tags;
    assert_eq!(
        tag(client.run("INSERT INTO everywhere VALUES (1, 'a'), (2, 'b')")),
        ["INSERT 0 2"]
    );
    assert_eq!(
        tag(client.run("UPDATE everywhere SET v = 'c' WHERE id = 2")),
        ["UPDATE 1"]
    );
    let parameters = client.query_with(
        "INSERT INTO everywhere VALUES ($1, $2)",
        &[Some("3"), Some("p")],
    );
    assert_eq!(parameters.map(tag), Ok(vec!["INSERT 0 1".to_owned()]));
    assert_eq!(
        client
            .fails("INSERT INTO everywhere VALUES (9, 'x'), (1, 'twice')")
            .code,
        "23505"
    );
    assert_eq!(
        tag(client.run("DELETE FROM everywhere WHERE id = 1")),
        ["DELETE 1"]
    );
    let copied = client.copy_in(
        "COPY everywhere FROM STDIN",
        &[b"4\tf".to_vec(), b"our\n5\tfive\n".to_vec()],
    );
    assert_eq!(copied.map(tag), Ok(vec!["COPY 2".to_owned()]));
    for shard in 0..SHARDS {
        let rows = fixture
            .databases
            .shard(shard)
            .rows("SELECT id, v FROM everywhere ORDER BY id");
        let text = |row: &Row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            rows.iter().map(text).collect::<Vec<_>>(),
            ["2 c", "3 p", "4 four", "5 five"],
            "shard {shard}"
        );
    }
}

#[test]
fn a_single_table_lives_on_the_home_shard() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for table in ["at_home", "unlisted"] {
        client.run(&format!(
            "INSERT INTO {table} SELECT g, 'x' FROM generate_series(1, 10) g"
        ));
        client.run(&format!("UPDATE {table} SET v = 'y' WHERE id > 5"));
        assert_eq!(
            client.value(&format!("SELECT count(*) FROM {table} WHERE v = 'y'")),
            "5"
        );
        for shard in 0..SHARDS {
            let count = fixture
                .databases
                .shard(shard)
                .value(&format!("SELECT count(*) FROM {table}"));
            assert_eq!(
                count,
                if shard == 0 { "10" } else { "0" },
                "{table} on shard {shard}"
            );
        }
    }
}

#[test]
fn ddl_reaches_every_shard() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let sees = |sql: &str, wanted: &str| {
        for shard in 0..SHARDS {
            assert_eq!(
                fixture.databases.shard(shard).value(sql),
                wanted,
                "{sql} on shard {shard}"
            );
        }
    };
    client.run("CREATE TABLE made (id int PRIMARY KEY, v text)");
    sees("SELECT count(*) FROM pg_class WHERE relname = 'made'", "1");
    client.run("ALTER TABLE by_jump ADD COLUMN extra int DEFAULT 5");
    sees(
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'by_jump'::regclass AND attname = 'extra'",
        "1",
    );
    client.run("CREATE INDEX by_jump_v ON by_jump (v)");
    sees(
        "SELECT count(*) FROM pg_class WHERE relname = 'by_jump_v'",
        "1",
    );
    client.run("CREATE INDEX CONCURRENTLY by_jump_n ON by_jump (n)");
    sees(
        "SELECT count(*) FROM pg_index WHERE indexrelid = 'by_jump_n'::regclass AND indisvalid",
        "1",
    );
    client.run("CREATE TYPE mood AS ENUM ('sad', 'ok')");
    client.run("CREATE SCHEMA further; CREATE VIEW further.seen AS SELECT 1 AS one");
    sees("SELECT count(*) FROM pg_class WHERE relname = 'seen'", "1");
    client.run("COMMENT ON TABLE by_jump IS 'a comment'");
    sees("SELECT obj_description('by_jump'::regclass)", "a comment");
    client.run("INSERT INTO by_jump VALUES (1, 1, 'x'), (1, 2, 'y')");
    client.run("INSERT INTO by_jump VALUES (2, 1, 'x')");
    client.run("TRUNCATE by_jump");
    sees("SELECT count(*) FROM by_jump", "0");
    assert_eq!(client.fails("CREATE TABLE by_jump (id int)").code, "42P07");
    client.run("DROP TABLE made");
    sees("SELECT count(*) FROM pg_class WHERE relname = 'made'", "0");
    // One shard refuses: none has it.
    fixture
        .databases
        .shard(2)
        .run("CREATE TABLE in_the_way (id int)");
    assert_eq!(
        client.fails("CREATE TABLE in_the_way (id int)").code,
        "42P07"
    );
    for shard in [0, 1, 3] {
        let count = fixture
            .databases
            .shard(shard)
            .value("SELECT count(*) FROM pg_class WHERE relname = 'in_the_way'");
        assert_eq!(count, "0", "shard {shard}");
    }
    client.run("ANALYZE by_jump");
    client.run("VACUUM by_jump");
}

#[test]
fn a_block_stays_on_the_shard_of_its_first_table() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    // Of modulo: 0 and 4 on shard 0, 1 on shard 1.
    client.run("BEGIN");
    client.run("SELECT 1");
    client.run("SELECT current_setting('search_path'), version(), current_schema()");
    client.run("INSERT INTO by_modulo VALUES (0, 1, 'a')");
    client.run("INSERT INTO by_modulo VALUES (4, 1, 'b')");
    assert_eq!(
        client.value("SELECT count(*) FROM by_modulo WHERE k = 4"),
        "1"
    );
    client.run("SAVEPOINT s");
    let refused = client.fails("INSERT INTO by_modulo VALUES (1, 1, 'c')");
    assert_eq!(refused.code, "0A000", "{refused:?}");
    assert!(!refused.hint.is_empty(), "{refused:?}");
    assert_eq!(client.status, 'E');
    client.run("ROLLBACK TO s");
    assert_eq!(client.fails("SELECT * FROM by_modulo").code, "0A000");
    client.run("ROLLBACK TO s");
    client.run("COMMIT");
    assert_eq!(client.value("SELECT v FROM by_modulo WHERE k = 0"), "a");
    assert_eq!(
        client.rows("SELECT v FROM by_modulo WHERE k = 1"),
        Vec::<Row>::new()
    );
    // The next block may go elsewhere.
    client.run("BEGIN; INSERT INTO by_modulo VALUES (1, 1, 'c'); COMMIT");
    client.run("BEGIN");
    client.run("INSERT INTO by_modulo VALUES (2, 1, 'd')");
    client.run("ROLLBACK");
    assert_eq!(
        client.rows("SELECT v FROM by_modulo WHERE k = 2"),
        Vec::<Row>::new()
    );
    client.run("BEGIN");
    let refused = client.fails("INSERT INTO everywhere VALUES (1, 'in a block')");
    assert_eq!(refused.code, "0A000");
    client.run("ROLLBACK");
    // Statements of several shards in one implicit transaction are refused as a whole.
    assert_eq!(
        client
            .fails(
                "INSERT INTO by_modulo VALUES (1, 7, 'x'); INSERT INTO by_modulo VALUES (2, 7, 'x')"
            )
            .code,
        "0A000"
    );
    assert_eq!(
        client.rows("SELECT k FROM by_modulo WHERE n = 7"),
        Vec::<Row>::new()
    );
}

#[test]
fn catalogs_and_databases_are_those_of_the_home_shard() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let mut home = fixture.databases.shard(0);
    for sql in [
        "SELECT oid, relname FROM pg_class WHERE relname LIKE 'by%' ORDER BY oid",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
        "SELECT 'by_jump'::regclass::oid",
        "SELECT datname FROM pg_database WHERE datname = current_database()",
        "SELECT a.attname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid WHERE c.relname = 'by_jump' ORDER BY attnum",
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'by_jump'::regclass",
    ] {
        assert_eq!(client.rows(sql), home.rows(sql), "{sql}");
    }
    let name = format!("{}_shadow", fixture.databases.name);
    let mut admin = Client::connect(fixture.herd.port, "postgres", &fixture.databases.name);
    admin.run(&format!("CREATE DATABASE {name}"));
    assert_eq!(
        home.value(&format!(
            "SELECT count(*) FROM pg_database WHERE datname = '{name}'"
        )),
        "1"
    );
    admin.run(&format!("DROP DATABASE {name}"));
    assert_eq!(
        home.value(&format!(
            "SELECT count(*) FROM pg_database WHERE datname = '{name}'"
        )),
        "0"
    );
}
