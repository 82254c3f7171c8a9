//! Statements with a key go to the shard of the key, and what goes to several shards is exact.

use crate::client::{Client, Row};
use crate::fixture::{Fixture, Table, tables};
use crate::herd::{Herd, Options};
use crate::shared::Databases;

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
fn a_block_goes_on_over_the_shards_of_its_tables() {
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
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'c')");
    assert_eq!(client.rows("SELECT * FROM by_modulo").len(), 3);
    client.run("ROLLBACK TO s");
    assert_eq!(client.rows("SELECT * FROM by_modulo").len(), 2);
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
    client.run("INSERT INTO everywhere VALUES (1, 'in a block')");
    client.run("ROLLBACK");
    // Statements of several shards in one text are one transaction.
    client.fails(
        "INSERT INTO by_modulo VALUES (1, 7, 'x'); INSERT INTO by_modulo VALUES (2, 7, 'x'), (2, 7, 'y')",
    );
    assert_eq!(
        client.rows("SELECT k FROM by_modulo WHERE n = 7"),
        Vec::<Row>::new()
    );
}

/// Within one text, what a name means is decided when its statement runs.
#[test]
fn a_text_that_moves_the_search_path_finds_its_tables() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("CREATE SCHEMA aside");
    client.run("CREATE TABLE aside.by_jump (k bigint, n int, v text)");
    for k in 0..8 {
        client.run(&format!("INSERT INTO by_jump VALUES ({k}, 1, 'public')"));
        client.run(&format!(
            "INSERT INTO aside.by_jump VALUES ({k}, 1, 'aside')"
        ));
    }
    for k in 0..8 {
        let seen = |client: &mut Client, text: &str| client.run(text).rows;
        let is = |value: &str| vec![vec![Some(value.to_owned())]];
        let select = format!("SELECT v FROM by_jump WHERE k = {k}");
        assert_eq!(
            seen(
                &mut client,
                &format!("SET search_path TO aside, public; {select}")
            ),
            is("aside")
        );
        assert_eq!(seen(&mut client, &select), is("aside"));
        assert_eq!(
            seen(&mut client, &format!("RESET search_path; {select}")),
            is("public")
        );
        assert_eq!(seen(&mut client, &select), is("public"));
        assert_eq!(
            seen(
                &mut client,
                &format!("BEGIN; SET LOCAL search_path TO aside; {select}")
            ),
            is("aside")
        );
        let refused = client.fails(&format!("ROLLBACK; {select}"));
        assert_eq!(refused.code, "0A000");
        client.run("ROLLBACK");
        let refused = client.fails(&format!("RESET ALL; {select}"));
        assert_eq!(refused.code, "0A000");
    }
}

#[test]
fn a_long_error_of_a_shard_comes_whole() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for k in 0..20 {
        client.run(&format!(
            "INSERT INTO by_jump VALUES ({k}, 1, repeat('x', 100000))"
        ));
    }
    let error = client.fails("SELECT v::int FROM by_jump");
    assert_eq!(error.code, "22P02", "{}", error.message.len());
    assert!(
        error.message.len() > 100_000 && error.message.ends_with("xxx\""),
        "{} bytes",
        error.message.len()
    );
    assert_eq!(client.value("SELECT 'in step'"), "in step");
}

#[test]
fn a_long_description_comes_once() {
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let columns: Vec<String> = (0..1000).map(|n| format!("k AS a{n:062}")).collect();
    for connection in [&mut client, &mut reference] {
        for k in 0..20 {
            connection.run(&format!("INSERT INTO by_jump VALUES ({k}, 1, 'x')"));
        }
    }
    let sql = format!("SELECT {} FROM by_jump", columns.join(", "));
    Fixture::same(&mut client, &mut reference, &sql);
    assert_eq!(client.value("SELECT 'in step'"), "in step");
}

#[test]
fn a_hinted_insert_goes_where_its_key_says() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("SET pgherd.shard = 'shard_2'");
    client.run("INSERT INTO by_modulo VALUES (2, 1, 'x')");
    for sql in [
        "INSERT INTO by_modulo VALUES (3, 1, 'x')",
        "INSERT INTO by_modulo VALUES (6, 1, 'x'), (7, 1, 'x')",
    ] {
        assert_eq!(client.fails(sql).code, "0A000", "{sql}");
        let error = client.query_with(sql, &[]).expect_err("refused");
        assert_eq!(error.code, "0A000", "{sql}");
    }
    let insert = "INSERT INTO by_modulo VALUES ($1, 1, 'x')";
    client.query_with(insert, &[Some("6")]).expect("its shard");
    let error = client.query_with(insert, &[Some("7")]);
    assert_eq!(error.expect_err("another shard").code, "0A000");
    // What is read is the shard's that was named.
    assert_eq!(client.value("SELECT count(*) FROM by_modulo"), "2");
    client.run("RESET pgherd.shard");
    client.run("INSERT INTO by_modulo VALUES (3, 1, 'x')");
    assert_eq!(client.value("SELECT v FROM by_modulo WHERE k = 3"), "x");
}

#[test]
fn alter_database_is_carried_out_on_every_shard() {
    let databases = Databases::create(4);
    let herd = Herd::start(&databases, &Options::new("transaction"));
    herd.connect().run(&format!(
        "ALTER DATABASE {} SET work_mem = '9MB'",
        databases.name
    ));
    let set: Vec<_> = (0..4)
        .map(|shard| databases.shard(shard).value("SHOW work_mem"))
        .collect();
    assert_eq!(set, ["9MB"; 4]);
}

#[test]
fn a_dropped_temporary_table_hides_no_more() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'kept')");
    let read = "SELECT v FROM by_modulo WHERE k = 1";
    client.run("CREATE TEMP TABLE by_modulo (k int)");
    assert_eq!(client.fails(read).code, "0A000");
    client.run("CREATE TEMP VIEW above AS SELECT k FROM pg_temp.by_modulo");
    assert_eq!(client.fails("DROP TABLE by_modulo").code, "2BP01");
    assert_eq!(client.fails(read).code, "0A000");
    client.run("BEGIN");
    client.run("DROP VIEW above");
    client.run("DROP TABLE by_modulo");
    client.run("ROLLBACK");
    assert_eq!(client.fails(read).code, "0A000");
    client.run("DROP VIEW above");
    client.run("DROP TABLE by_modulo");
    assert_eq!(client.value(read), "kept");
    client.run("CREATE TEMP TABLE by_modulo (k int)");
    assert_eq!(client.fails(read).code, "0A000");
    client
        .query_with("DROP TABLE by_modulo", &[])
        .expect("dropped");
    assert_eq!(client.value(read), "kept");
    client.run("SELECT 1; CREATE TEMP TABLE by_modulo (k int)");
    assert_eq!(client.fails(read).code, "0A000");
    assert_eq!(
        client
            .fails("SELECT 1; SELECT v FROM by_modulo WHERE k = 1")
            .code,
        "0A000"
    );
}
