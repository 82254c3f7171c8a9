//! SHOW ROUTES tells of each statement how often it ran, where, and how long it took.

use std::collections::BTreeMap;
use std::thread::scope;

use crate::client::{Answer, Client, Row};
use crate::fixture::Fixture;
use crate::herd::Herd;
use crate::load::eventually;
use crate::message;

/// What SHOW ROUTES counts, by route and statement.
fn counted(herd: &Herd) -> BTreeMap<(String, String), u64> {
    let answer = herd.console().run("SHOW ROUTES");
    let column = |name| answer.column(name);
    let names = column("route").into_iter().zip(column("statement"));
    let counts = column("count").into_iter();
    names
        .zip(counts)
        .map(|(names, count)| (names, count.parse().expect("a number")))
        .collect()
}

/// The row of a statement's route, or none.
fn row(herd: &Herd, route: &str, statement: &str) -> Option<BTreeMap<&'static str, String>> {
    let answer = herd.console().run("SHOW ROUTES");
    let found = answer
        .column("route")
        .into_iter()
        .zip(answer.column("statement"));
    let at = found
        .into_iter()
        .position(|(way, text)| way == route && text == statement)?;
    let names = ["database", "count", "total_time", "mean_time", "last"];
    Some(
        names
            .into_iter()
            .map(|name| (name, answer.column(name)[at].clone()))
            .collect(),
    )
}

/// Runs something, and checks what it counts of which route and statement, all others left out.
fn counts(herd: &Herd, wanted: &[(&str, &str, u64)], act: impl FnOnce()) {
    let before = counted(herd);
    act();
    let mut found = counted(herd);
    for (key, count) in before {
        *found.get_mut(&key).expect("a row that stays") -= count;
    }
    found.retain(|_, count| *count > 0);
    let row = |(route, statement, count): &(&str, &str, u64)| {
        (((*route).to_owned(), (*statement).to_owned()), *count)
    };
    assert_eq!(found, wanted.iter().map(row).collect());
}

#[test]
fn every_statement_counts_once_by_its_route() {
    let fixture = Fixture::start();
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    let read = "SELECT v FROM by_jump WHERE k = $1";
    counts(herd, &[("single", read, 20)], || {
        for key in 0..20 {
            client.run(&format!(
                "SELECT v  FROM by_jump /* {key} */ WHERE k = {key};"
            ));
        }
    });
    counts(herd, &[("single", read, 20)], || {
        for key in 0..20 {
            client
                .query_with(read, &[Some(&key.to_string())])
                .expect("rows");
        }
    });
    let block = [
        ("local", "BEGIN", 1),
        ("single", "COMMIT", 1),
        ("single", read, 2),
    ];
    counts(herd, &block, || {
        client.run("BEGIN");
        client.run("SELECT v FROM by_jump WHERE k = 1");
        client.query_with(read, &[Some("1")]).expect("rows");
        client.run("COMMIT");
    });
    counts(herd, &[("single", read, 3)], || {
        let one = [
            message::parse("", read, &[]),
            message::bind("", "", &[], &[Some(b"1".to_vec())], &[]),
            message::execute("", 0),
            message::sync(),
        ]
        .concat();
        client.send(&[one.clone(), one.clone(), one].concat());
        for _ in 0..3 {
            client.answer().expect("rows");
        }
    });
    let all = "SELECT v FROM by_jump";
    counts(herd, &[("multi", all, 2)], || {
        client.run(all);
        client.query_with(all, &[]).expect("rows");
    });
    let count = "SELECT n FROM by_jump FOR UPDATE";
    counts(herd, &[("refuse", count, 2)], || {
        client.fails(count);
        client.query_with(count, &[]).expect_err("refused");
    });
    let insert = "INSERT INTO by_jump VALUES ($1, $2, $3), ($4, $5, $6), ($7, $8, $9)";
    counts(herd, &[("split", insert, 1)], || {
        client.run("INSERT INTO by_jump VALUES (1, 1, 'x'), (2, 1, 'x'), (3, 1, 'x')");
    });
    counts(herd, &[("copy", "COPY by_jump FROM STDIN", 1)], || {
        let rows = (10..30).map(|key| format!("{key}\t1\tx\n").into_bytes());
        let rows: Vec<Vec<u8>> = rows.collect();
        client
            .copy_in("COPY by_jump FROM STDIN", &rows)
            .expect("copied");
    });
    let several = "SET application_name = $1; UPDATE by_jump SET v = $2 WHERE k = $3";
    counts(herd, &[("single", several, 1)], || {
        client.run("SET application_name = 'x'; UPDATE by_jump SET v = 'secret' WHERE k = 3");
    });
    counts(herd, &[("multi", "CREATE TABLE fresh (a int)", 1)], || {
        client.run("CREATE TABLE fresh (a int)");
    });
    counts(herd, &[("single", read, 1)], || {
        client.run("SELECT v FROM by_jump WHERE k = 1");
    });
}

#[test]
fn rows_tell_where_and_how_long() {
    let fixture = Fixture::start();
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    let sleep = "SELECT pg_sleep($1) FROM at_home WHERE id = $2";
    client.run("INSERT INTO at_home VALUES (1, 'x')");
    client.run("SELECT pg_sleep(0.2) FROM at_home WHERE id = 1");
    client.run("BEGIN; SELECT 1 FROM at_home");
    client.run("SELECT pg_sleep(0.2) FROM at_home WHERE id = 1");
    client.run("COMMIT");
    let found = row(herd, "single", sleep).expect("a row");
    assert_eq!((&*found["count"], &*found["last"]), ("2", "shard_0"));
    let mean: u64 = found["mean_time"].parse().expect("a number");
    let total: u64 = found["total_time"].parse().expect("a number");
    assert!((200_000..2_000_000).contains(&mean), "mean {mean}");
    assert!((400_000..4_000_000).contains(&total), "total {total}");
    client.run("SELECT v FROM by_jump");
    let found = row(herd, "multi", "SELECT v FROM by_jump").expect("a row");
    assert_eq!(found["last"], "shard_0, shard_1, shard_2, shard_3");
    assert!(found["mean_time"].parse::<u64>().is_ok_and(|mean| mean > 0));
    client.fails("SELECT n FROM by_jump FOR UPDATE");
    let found = row(herd, "refuse", "SELECT n FROM by_jump FOR UPDATE").expect("a row");
    assert_eq!(
        found["last"],
        "FOR UPDATE or FOR SHARE over several shards is not supported"
    );
}

#[test]
fn what_was_counted_outlives_schemas_and_reloads() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(&mut options);
    let herd = &fixture.herd;
    let mut client = fixture.connect();
    let read = |client: &mut Client| {
        client.run("SELECT v FROM by_jump WHERE k = 1");
    };
    let count = || {
        row(herd, "single", "SELECT v FROM by_jump WHERE k = $1").expect("a row")["count"].clone()
    };
    read(&mut client);
    client.run("ALTER TABLE at_home ADD w int");
    read(&mut client);
    assert_eq!(count(), "2");
    options.set("default_pool_size: 3");
    herd.rewrite(&options);
    herd.console().run("RELOAD");
    eventually("the new pool size is in force", || {
        read(&mut client);
        let config = herd.console().run("SHOW CONFIG");
        let at = config
            .column("key")
            .iter()
            .position(|key| key == "default_pool_size");
        at.is_some_and(|at| config.column("value")[at] == "3")
    });
    let before: u64 = count().parse().expect("a number");
    assert!(before > 2, "{before}");
    read(&mut client);
    assert_eq!(count(), (before + 1).to_string());
}

#[test]
fn many_texts_are_counted_in_bounded_memory() {
    let mut options = Fixture::options("transaction");
    options.set("plan_cache_size: 1MB").set("engines: 2");
    let fixture = Fixture::with(&mut options);
    let herd = &fixture.herd;
    let statements = 3_000;
    scope(|scope| {
        for thread in 0..2 {
            let mut client = fixture.connect();
            scope.spawn(move || {
                for index in 0..statements {
                    client.run(&format!(
                        "SELECT v AS c{index}_{thread} FROM by_jump WHERE k = 1"
                    ));
                }
            });
        }
    });
    let counted = counted(herd);
    let selects = counted.iter().filter(|((route, text), _)| {
        route == "single" && (text.starts_with("SELECT v AS") || text == "(others)")
    });
    assert_eq!(selects.map(|(_, count)| count).sum::<u64>(), 2 * statements);
    assert!(counted.len() <= 1_010, "{} rows", counted.len());
}

/// The first value of each row.
fn firsts(answer: &Answer) -> Vec<String> {
    let first = |row: &Row| row[0].clone().unwrap_or_default();
    answer.rows.iter().map(first).collect()
}

/// The lines of EXPLAIN, in the simple and the extended protocol, which are the same.
fn explained(client: &mut Client, sql: &str) -> Vec<String> {
    let answer = client.run(sql);
    assert_eq!(answer.tags, ["EXPLAIN"], "{sql}");
    let lines = answer.column("QUERY PLAN");
    let extended = client.query_with(sql, &[]).expect("explained");
    assert_eq!(firsts(&extended), lines, "{sql}");
    lines
}

/// A statement of each route, and how `EXPLAIN (ROUTE)` begins.
const ROUTES: [(&str, &str); 13] = [
    (
        "SELECT v FROM by_list_int WHERE k = 1",
        "single on shard_3: all the keys it names are on this shard (table by_list_int, distribution by_list_int)",
    ),
    (
        "UPDATE by_list_int SET v = 'x' WHERE k = 2",
        "single on shard_2: all the keys it names are on this shard (table by_list_int, distribution by_list_int)",
    ),
    (
        "SELECT v FROM at_home",
        "single on shard_0: all it uses is on the home shard",
    ),
    (
        "SELECT v FROM everywhere",
        "single on shard_0, shard_1, shard_2, shard_3: only reference tables are read: any one of these shards",
    ),
    ("SELECT 1", "local: no table: any server answers alike"),
    (
        "UPDATE everywhere SET v = 'x'",
        "multi on shard_0, shard_1, shard_2, shard_3: every shard, all in one transaction",
    ),
    (
        "SELECT v FROM by_list_int WHERE k IN (1, 2)",
        "multi on shard_2, shard_3: each shard's rows, one after another, are the answer",
    ),
    (
        "SELECT count(*) FROM by_list_int WHERE k IN (1, 2)",
        "multi on shard_2, shard_3: the totals of each shard, taken together, are the answer",
    ),
    (
        "SELECT n AS a FROM by_list_int WHERE k IN (1, 2) ORDER BY a DESC, k NULLS FIRST LIMIT 10 OFFSET 2",
        "multi on shard_2, shard_3: each shard's rows, merged by a desc, k nulls first, are the answer, limit 10, offset 2 pushed",
    ),
    (
        "SELECT n FROM by_list_int WHERE k IN (1, 2) FOR UPDATE",
        "refuse: FOR UPDATE or FOR SHARE over several shards is not supported (0A000)",
    ),
    (
        "INSERT INTO by_list_int VALUES (1, 1, 'x'), (2, 1, 'x')",
        "split on shard_2, shard_3: each row goes to the shard of its key, all in one transaction",
    ),
    (
        "COPY by_list_int FROM STDIN",
        "copy on shard_0, shard_1, shard_2, shard_3: each row of by_list_int goes to the shard of its key",
    ),
    (
        "BEGIN",
        "local: answered by the proxy itself, or where the transaction is",
    ),
];

#[test]
fn explain_route_tells_of_every_kind() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for (sql, wanted) in ROUTES {
        let lines = explained(&mut client, &format!("EXPLAIN (ROUTE) {sql}"));
        assert_eq!(lines[0], wanted, "{sql}");
    }
    client.run("SET pgherd.shard = 'shard_1'");
    let lines = explained(&mut client, "EXPLAIN (ROUTE) SELECT count(*) FROM by_jump");
    assert_eq!(lines, ["single on shard_1: a hint names the shard"]);
    let lines = explained(&mut client, "EXPLAIN SELECT count(*) FROM by_jump");
    assert_eq!(lines[0], "Route: single on shard_1: a hint names the shard");
}

#[test]
fn explain_tells_the_route_on_top_of_the_plans() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for (sql, wanted) in ROUTES {
        let is_planned = ["SELECT", "UPDATE"]
            .iter()
            .any(|verb| sql.starts_with(verb));
        if !is_planned || wanted.starts_with("refuse") {
            continue;
        }
        let lines = explained(&mut client, &format!("EXPLAIN (COSTS off) {sql}"));
        assert_eq!(lines[0], format!("Route: {wanted}"), "{sql}");
        assert!(lines.len() > 1, "{sql}: {lines:?}");
    }
    let several = explained(
        &mut client,
        "EXPLAIN (COSTS off) SELECT v FROM by_list_int WHERE k IN (1, 2)",
    );
    let shards: Vec<&String> = several.iter().filter(|line| line.ends_with(':')).collect();
    assert_eq!(shards, ["shard_2:", "shard_3:"]);
    let scans = several
        .iter()
        .filter(|line| line.contains("Heap Scan on by_list_int"));
    assert_eq!(scans.count(), 2);
    client.run("INSERT INTO by_list_int VALUES (1, 1, 'x'), (2, 1, 'x')");
    let run =
        client.run("EXPLAIN (ANALYZE, FORMAT text) SELECT v FROM by_list_int WHERE k IN (1, 2)");
    assert_eq!(
        run.column("QUERY PLAN")
            .iter()
            .filter(|line| line.contains("Heap Scan") && line.contains("rows=1"))
            .count(),
        2
    );
    // Within a block, with parameters, in a text of its own and beside others.
    client.run("BEGIN");
    let lines = explained(&mut client, "EXPLAIN SELECT v FROM by_list_int WHERE k = 1");
    assert_eq!(lines[0], format!("Route: {}", ROUTES[0].1));
    client.run("COMMIT");
    let with_value = client
        .query_with(
            "EXPLAIN SELECT v FROM by_list_int WHERE k = $1::int",
            &[Some("2")],
        )
        .expect("explained");
    assert!(firsts(&with_value)[0].starts_with("Route: single on shard_2: "));
    let json = client.run("EXPLAIN (FORMAT json) SELECT v FROM by_list_int WHERE k = 1");
    assert!(json.column("QUERY PLAN")[0].starts_with('['));
    let fault = client.fails("EXPLAIN (FORMAT json) SELECT v FROM by_list_int");
    assert_eq!(fault.code, "0A000");
    let fault = client.fails("EXPLAIN SELECT n FROM by_list_int FOR UPDATE");
    assert_eq!(
        fault.message,
        "FOR UPDATE or FOR SHARE over several shards is not supported"
    );
    // Nothing of it is told where the statement fails.
    for sql in [
        "EXPLAIN SELECT nothing FROM by_list_int WHERE k = 1",
        "EXPLAIN SELECT nothing FROM by_list_int",
    ] {
        assert_eq!(client.fails(sql).code, "42703");
        assert_eq!(
            client.query_with(sql, &[]).expect_err("refused").code,
            "42703"
        );
    }
    client.run("SELECT 1");
}

#[test]
fn show_route_tells_of_the_last_statement() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    let mut check = |sql: &str, wanted: &str| {
        drop(client.query(sql));
        assert_eq!(client.value("SHOW pgherd.route"), wanted, "{sql}");
        if !sql.contains("; ") {
            drop(client.query_with(sql, &[]));
            let shown = client.query_with("SHOW pgherd.route", &[]).expect("shown");
            assert_eq!(firsts(&shown), [wanted], "{sql}");
        }
    };
    check("SHOW pgherd.route", "none: no statement has run");
    check("SELECT v FROM by_list_int WHERE k = 1", "single: shard_3");
    check(
        "SELECT v FROM by_list_int WHERE k IN (1, 2)",
        "multi: shard_2, shard_3",
    );
    check(
        "SELECT n FROM by_list_int FOR UPDATE",
        "refuse: FOR UPDATE or FOR SHARE over several shards is not supported",
    );
    check(
        "INSERT INTO by_list_int VALUES (1, 1, 'x'), (2, 1, 'x')",
        "split: shard_2, shard_3",
    );
    check(
        "UPDATE everywhere SET v = 'x'",
        "multi: shard_0, shard_1, shard_2, shard_3",
    );
    check("SET pgherd.shard = 'shard_1'", "local");
    check("RESET pgherd.shard", "local");
    check(
        "SELECT v FROM by_list_int WHERE k = 2; SELECT v FROM by_list_int WHERE k = 2",
        "single: shard_2",
    );
    check("SELECT v FROM at_home", "single: shard_0");
    check(
        "SELECT v FROM by_list_int WHERE k = 1; SELECT v FROM by_list_int WHERE k = 2",
        "single: shard_2",
    );
    check("DEALLOCATE ALL", "local");
}
