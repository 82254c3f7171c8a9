//! Reference tables, single tables, DDL and catalogs over several shards.

use crate::client::{Answer, Client, Row};
use crate::fixture::Fixture;
use crate::shared::SHARDS;

#[test]
fn a_reference_table_is_written_on_every_shard() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let tag = |answer: Answer| answer.tags;
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
fn what_is_prepared_in_sql_is_prepared_where_its_tables_are() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("INSERT INTO at_home VALUES (1, 'x')");
    for key in 0..4 {
        // The connection that is held may be of any shard.
        client.run(&format!("SELECT v FROM by_modulo WHERE k = {key}"));
        client.run("PREPARE p (int) AS SELECT count(*) FROM at_home WHERE id = $1");
        assert_eq!(client.value("EXECUTE p (1)"), "1", "key {key}");
        client.run("DEALLOCATE p");
    }
}

#[test]
fn an_index_that_failed_on_a_shard_is_resumed() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let create = |unless: &str| {
        format!("CREATE UNIQUE INDEX CONCURRENTLY {unless} modulo_once ON by_modulo (k, v)")
    };
    let valid = || {
        let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('modulo_once')";
        let of = |shard| {
            let mut shard = fixture.databases.shard(shard);
            let rows = shard.rows(valid);
            rows.first().and_then(|row| row[0].clone())
        };
        (0..SHARDS).map(of).collect::<Vec<_>>()
    };
    let (yes, no) = (Some("t".to_owned()), Some("f".to_owned()));
    for ends in ["simple", "extended"] {
        client.run("INSERT INTO by_modulo VALUES (2, 1, 'x'), (2, 2, 'x')");
        let error = client.fails(&create(""));
        assert_eq!(error.code, "08007", "{error:?}");
        assert!(error.message.contains("\"shard_2\""), "{error:?}");
        assert_eq!(valid(), [yes.clone(), yes.clone(), no.clone(), None]);
        // As long as the cause is there it fails again.
        client.fails(&create("IF NOT EXISTS"));
        assert_eq!(valid(), [yes.clone(), yes.clone(), no.clone(), None]);
        client.run("DELETE FROM by_modulo WHERE k = 2");
        if ends == "simple" {
            client.run(&create("IF NOT EXISTS"));
        } else {
            let sql = create("IF NOT EXISTS");
            client.query_with(&sql, &[]).expect("it is built");
        }
        assert_eq!(valid(), vec![yes.clone(); SHARDS]);
        client.run("DROP INDEX CONCURRENTLY modulo_once");
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
