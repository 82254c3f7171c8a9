//! SQL's PREPARE and EXECUTE of statements on sharded tables: each EXECUTE runs where its keys say.

use crate::fixture::Fixture;
use crate::message;

#[test]
fn execute_runs_on_the_shard_of_its_key() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for key in 0..20 {
        client.run(&format!("INSERT INTO by_jump VALUES ({key}, 1, 'v{key}')"));
    }
    client.run("PREPARE p (bigint) AS SELECT v FROM by_jump WHERE k = $1");
    client.run("PREPARE w (int, text) AS UPDATE by_jump SET v = $2 WHERE k = $1 AND n = 1");
    client.run("PREPARE c AS SELECT count(*) FROM by_jump WHERE k = $1 AND k = $1");
    for key in 0..20 {
        assert_eq!(
            client.value(&format!("EXECUTE p ({key})")),
            format!("v{key}")
        );
        assert_eq!(
            client.value(&format!("EXECUTE p ('{key}')")),
            format!("v{key}")
        );
        assert_eq!(
            client.run(&format!("EXECUTE w ({key}, 'w{key}')")).tags,
            ["UPDATE 1"]
        );
        assert_eq!(
            client.value(&format!("EXECUTE p({key})")),
            format!("w{key}")
        );
        assert_eq!(client.value(&format!("EXECUTE c({key})")), "1");
        client.run("BEGIN");
        assert_eq!(
            client.value(&format!("EXECUTE p ({key})")),
            format!("w{key}")
        );
        assert_eq!(
            client.value(&format!("SELECT v FROM by_jump WHERE k = {key}")),
            format!("w{key}")
        );
        client.run("COMMIT");
    }
    assert!(client.rows("EXECUTE p (NULL)").is_empty());
    // What a driver binds, and what the protocol prepared.
    let bound = client.query_with("EXECUTE p ('3')", &[]).expect("a row");
    assert_eq!(bound.rows, [[Some("w3".to_owned())]]);
    client.send(
        &[
            message::parse("q", "SELECT v FROM by_jump WHERE k = $1", &[20]),
            message::sync(),
        ]
        .concat(),
    );
    client.answer().expect("prepared");
    for key in 0..20 {
        assert_eq!(
            client.value(&format!("EXECUTE q ({key})")),
            format!("w{key}")
        );
        client.send(
            &[
                message::bind("", "p", &[], &[Some(key.to_string().into_bytes())], &[]),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        );
        assert_eq!(
            client.answer().expect("a row").rows,
            [[Some(format!("w{key}"))]]
        );
    }
    client.run("DEALLOCATE p");
    assert_eq!(client.fails("EXECUTE p (1)").code, "26000");
    client.run("PREPARE p (bigint) AS SELECT count(*) FROM by_jump WHERE k = $1");
    assert_eq!(client.value("EXECUTE p (1)"), "1");
    client.run("DEALLOCATE ALL");
    assert_eq!(client.fails("EXECUTE w (1, 'x')").code, "26000");
}

#[test]
fn what_is_not_proven_at_execute_is_refused() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("PREPARE p (bigint) AS SELECT v FROM by_jump WHERE k = $1");
    for sql in [
        "EXECUTE p (1 + 1)",
        "EXECUTE p (length('x'))",
        "EXECUTE p (1.5)",
        "EXECUTE p",
    ] {
        assert_eq!(client.fails(sql).code, "0A000", "{sql}");
    }
    client.run("PREPARE all_of_it AS SELECT v FROM by_jump");
    assert_eq!(client.fails("EXECUTE all_of_it").code, "0A000");
    // The server judges what is prepared, and the name.
    assert_eq!(
        client
            .fails("PREPARE p (bigint) AS SELECT n FROM by_jump WHERE k = $1")
            .code,
        "42P05"
    );
    assert_eq!(
        client
            .fails("PREPARE bad (bigint) AS SELECT nothing FROM by_jump WHERE k = $1")
            .code,
        "42703"
    );
    assert_eq!(client.fails("EXECUTE bad (1)").code, "26000");
    client.run("PREPARE bad (bigint) AS SELECT n FROM by_jump WHERE k = $1");
    assert!(client.rows("EXECUTE bad (1)").is_empty());
    assert_eq!(client.fails("EXECUTE p ('x')").code, "22P02");
    // In a block it is there before and behind its end, as in PostgreSQL.
    client.run("BEGIN");
    client.run("PREPARE b (bigint) AS SELECT count(*) FROM by_jump WHERE k = $1");
    assert_eq!(client.value("EXECUTE b (1)"), "0");
    client.fails("SELECT 1/0");
    assert_eq!(
        client
            .fails("PREPARE d (bigint) AS SELECT n FROM by_jump WHERE k = $1")
            .code,
        "25P02"
    );
    client.run("ROLLBACK");
    assert_eq!(client.value("EXECUTE b (1)"), "0");
    assert_eq!(client.fails("EXECUTE d (1)").code, "26000");
}

#[test]
fn a_failed_block_takes_no_statement_whatever_its_shards() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let refused = [
        "SELECT v FROM by_list_int WHERE k = 2",
        "SELECT v FROM by_list_int",
        "SELECT count(*) FROM by_list_int",
        "INSERT INTO by_list_int VALUES (1, 1, 'x'), (2, 1, 'x')",
        "UPDATE everywhere SET v = 'x'",
        "SELECT 1; SELECT v FROM by_list_int WHERE k = 1; SELECT v FROM by_list_int WHERE k = 2",
    ];
    for sql in refused {
        client.run("BEGIN");
        client.fails("SELECT 1/0 FROM by_list_int WHERE k = 1 UNION ALL SELECT 1/(n - n) FROM by_list_int WHERE k = 1 UNION ALL SELECT 1/0");
        assert_eq!(client.fails(sql).code, "25P02", "{sql}");
        if !sql.contains(';') {
            assert_eq!(
                client.query_with(sql, &[]).expect_err("refused").code,
                "25P02",
                "{sql}"
            );
        }
        assert_eq!(client.run("ROLLBACK").tags, ["ROLLBACK"]);
    }
    // Prepared before the block.
    client.send(&[message::parse("c", refused[1], &[]), message::sync()].concat());
    client.answer().expect("prepared");
    client.run("BEGIN");
    client.fails("SELECT 1/0");
    client.send(
        &[
            message::bind("", "c", &[], &[], &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat(),
    );
    assert_eq!(client.answer().expect_err("refused").code, "25P02");
    client.run("ROLLBACK");
}

#[test]
fn statements_that_execute_each_other_end_in_an_error() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let parses = [
        ("itself", "EXECUTE itself"),
        ("one", "EXECUTE other"),
        ("other", "EXECUTE one"),
    ]
    .map(|(name, sql)| message::parse(name, sql, &[]))
    .concat();
    client.send(&[parses, message::sync()].concat());
    client.until_ready().expect("an answer");
    for name in ["itself", "one", "other"] {
        client
            .query(&format!("EXECUTE {name}"))
            .expect_err("without end");
    }
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn execute_in_a_text_of_several_goes_where_its_keys_say() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("PREPARE i (bigint, text) AS INSERT INTO by_jump VALUES ($1, 1, $2)");
    client.run("PREPARE p (bigint) AS SELECT v FROM by_jump WHERE k = $1");
    for key in 0..12 {
        client.run(&format!("EXECUTE i ({key}, 'v'); SELECT 1"));
        let one = format!("SELECT count(*) FROM by_jump WHERE k = {key}");
        assert_eq!(client.value(&one), "1", "{key}");
        let answer = client.run(&format!("SELECT 1; EXECUTE p ({key}); EXECUTE p ({key})"));
        assert_eq!(answer.tags, ["SELECT 1"; 3], "{key}");
        client.run(&format!(
            "BEGIN; EXECUTE i ({}, 'block'); COMMIT",
            key + 100
        ));
        let one = format!("SELECT v FROM by_jump WHERE k = {}", key + 100);
        assert_eq!(client.value(&one), "block");
    }
    for key in 1..12 {
        let both = client.run(&format!("EXECUTE p (0); EXECUTE p ({key})"));
        assert_eq!(both.tags, ["SELECT 1"; 2], "{key}");
    }
}

#[test]
fn execute_follows_the_schema_and_the_search_path() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for key in 0..12 {
        client.run(&format!(
            "INSERT INTO by_jump VALUES ({key}, {}, 'v{key}')",
            key + 1
        ));
    }
    client.run("CREATE SCHEMA turned");
    client.run("CREATE VIEW ex_seen AS SELECT k, n, v FROM by_jump");
    client.run("CREATE VIEW turned.ex_seen AS SELECT n::bigint AS k, k::int AS n, v FROM public.by_jump WHERE k = 5");
    client.run("PREPARE p (bigint) AS SELECT v FROM ex_seen WHERE k = $1");
    assert_eq!(client.value("EXECUTE p (6)"), "v6");
    client.run("SET search_path = turned, public");
    assert_eq!(client.value("EXECUTE p (6)"), "v5");
    // What the protocol prepared to execute it, and before.
    let execute = [
        message::bind("", "e", &[], &[], &[]),
        message::execute("", 0),
        message::sync(),
    ]
    .concat();
    client.send(&[message::parse("e", "EXECUTE p (6)", &[]), execute.clone()].concat());
    let rows = client.answer().expect("a row").rows;
    assert_eq!(rows, [[Some("v5".to_owned())]]);
    client.run("RESET search_path");
    client.send(&execute);
    let rows = client.answer().expect("a row").rows;
    assert_eq!(rows, [[Some("v6".to_owned())]]);
    let bound = client.query_with("EXECUTE p (6)", &[]).expect("a row");
    assert_eq!(bound.rows, [[Some("v6".to_owned())]]);
    assert_eq!(client.value("EXECUTE p (7)"), "v7");
    let error = client.fails("SET search_path = turned, public; EXECUTE p (6)");
    assert_eq!(error.code, "0A000");
    assert_eq!(client.value("EXECUTE p (6)"), "v6");
    client.run("DROP VIEW ex_seen");
    client.run("CREATE VIEW ex_seen AS SELECT n::bigint AS k, v FROM by_jump WHERE k = 9");
    assert_eq!(client.value("EXECUTE p (10)"), "v9");
    client.run("DROP VIEW ex_seen, turned.ex_seen");
    client.run("DROP SCHEMA turned");
}
