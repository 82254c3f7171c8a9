//! What cannot be answered exactly is refused with a hint, changes nothing, and costs no connection.

use crate::client::Client;
use crate::fixture::{Fixture, tables};
use crate::message::{Message, bind, execute, parse, query, sync};
use crate::shared::SHARDS;

/// Answered differently by several shards than by one PostgreSQL, or not to be placed.
const REFUSED: &[&str] = &[
    // Whole-table answers.
    "SELECT count(*) + 1 FROM by_jump",
    "SELECT sum(n), avg(n) FROM by_jump",
    "SELECT v, count(*) FROM by_jump GROUP BY v",
    "SELECT DISTINCT v FROM by_jump",
    "SELECT * FROM by_jump ORDER BY length(v) LIMIT 1 + 1",
    "SELECT * FROM by_jump ORDER BY k FETCH FIRST 2 ROWS WITH TIES",
    "SELECT * FROM by_jump ORDER BY v COLLATE \"en-x-icu\"",
    "SELECT k, row_number() OVER () FROM by_jump",
    "SELECT max(k) - min(k) FROM by_jump WHERE n > 1",
    "SELECT 1 FROM by_jump HAVING count(*) > 1",
    "SELECT string_agg(v, ',') FROM by_jump",
    "SELECT k FROM by_jump UNION SELECT k FROM beside",
    "SELECT k FROM by_jump EXCEPT SELECT k FROM beside",
    "WITH a AS (SELECT count(*) AS c FROM by_jump) SELECT * FROM a",
    "SELECT * FROM (SELECT * FROM by_jump ORDER BY n LIMIT 1) s",
    "SELECT (SELECT count(*) FROM by_jump)",
    "SELECT EXISTS (SELECT 1 FROM by_jump)",
    "SELECT * FROM at_home WHERE id IN (SELECT n FROM by_jump)",
    // Joins that leave the shard.
    "SELECT * FROM by_jump a JOIN by_modulo b ON a.k = b.k",
    "SELECT * FROM by_jump a, by_jump b WHERE a.n = b.n",
    "SELECT * FROM by_jump a JOIN at_home h ON h.id = a.n",
    "SELECT * FROM by_jump a LEFT JOIN beside b ON a.n = b.n",
    "SELECT * FROM by_jump a JOIN beside b ON a.n = b.n WHERE a.k = 1",
    "SELECT * FROM by_jump a, by_modulo b WHERE a.k = 1 AND b.k = 1",
    // Writes of several shards or of none.
    "WITH w AS (UPDATE by_jump SET k = 5 WHERE k = 1 RETURNING k) SELECT k FROM w",
    "INSERT INTO by_jump VALUES (1, 1, 'x') ON CONFLICT (k, n) DO UPDATE SET k = 5",
    "INSERT INTO by_jump (n, v) VALUES (1, 'no key')",
    "INSERT INTO by_jump SELECT * FROM beside",
    "INSERT INTO by_jump SELECT g, 1, 'x' FROM generate_series(1, 5) g",
    "INSERT INTO by_jump VALUES (1 + random(), 1, 'computed')",
    "INSERT INTO by_jump DEFAULT VALUES",
    "INSERT INTO by_jump VALUES (DEFAULT, 1, 'x')",
    "INSERT INTO at_home SELECT n, v FROM by_jump",
    "WITH gone AS (DELETE FROM by_jump RETURNING *) SELECT * FROM gone",
    "UPDATE by_jump SET v = b.w FROM beside b WHERE by_jump.n = b.n",
    "DELETE FROM by_jump USING at_home h WHERE h.id = by_jump.n AND by_jump.k = 1",
    "INSERT INTO everywhere VALUES (1, random()::text)",
    "MERGE INTO by_jump t USING beside s ON t.n = s.n WHEN MATCHED THEN DELETE",
    "SELECT * FROM by_jump FOR UPDATE",
    "SELECT nextval('some_sequence') FROM by_jump",
    "CREATE TABLE copied AS SELECT * FROM by_jump",
    "SELECT * INTO copied FROM by_jump",
    // Key predicates that do not bind the whole statement.
    "SELECT * FROM by_jump a JOIN by_jump b ON a.n = b.n WHERE a.k = 1",
    "SELECT avg(k) FROM by_jump WHERE k = 1 OR n = 2",
    "SELECT avg(k) FROM by_jump WHERE NOT (k = 1)",
    "SELECT avg(k) FROM by_jump WHERE k + 0 = 1",
];

/// Written where a key is NULL or has no place.
const NO_PLACE: &[&str] = &[
    "INSERT INTO by_jump VALUES (NULL, 1, 'x')",
    "INSERT INTO by_jump (n, k) VALUES (1, NULL)",
];

fn dump(fixture: &Fixture) -> Vec<String> {
    let mut rows = Vec::new();
    for shard in 0..SHARDS {
        let mut client = fixture.databases.shard(shard);
        for table in tables().iter().map(|table| table.name).chain([
            "beside",
            "everywhere",
            "at_home",
            "unlisted",
        ]) {
            let found = client.rows(&format!("SELECT t::text FROM {table} t ORDER BY 1"));
            rows.push(format!("{shard} {table} {found:?}"));
        }
    }
    rows
}

fn fill(client: &mut Client) {
    for key in 0..12 {
        client.run(&format!(
            "INSERT INTO by_jump VALUES ({key}, {key} % 3, 'x')"
        ));
        client.run(&format!(
            "INSERT INTO by_modulo VALUES ({key}, {key} % 3, 'x')"
        ));
        client.run(&format!(
            "INSERT INTO beside VALUES ({key}, {key} % 3, 'x')"
        ));
        client.run(&format!("INSERT INTO at_home VALUES ({key}, 'x')"));
    }
}

#[test]
fn what_is_not_exact_is_refused_with_a_hint() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    fill(&mut client);
    let before = dump(&fixture);
    let mut faults = Vec::new();
    for sql in REFUSED {
        let outcomes = [client.query(sql), client.query_with(sql, &[])];
        for outcome in outcomes {
            match outcome {
                Ok(answer) => faults.push(format!("{sql}\n    answered {answer:?}")),
                Err(error) if error.code != "0A000" || error.hint.is_empty() => {
                    faults.push(format!("{sql}\n    {error:?}"));
                }
                Err(_) => (),
            }
        }
        assert_eq!(client.status, 'I', "{sql}");
    }
    for sql in NO_PLACE {
        match client.query(sql) {
            Ok(answer) => faults.push(format!("{sql}\n    answered {answer:?}")),
            Err(error) if error.hint.is_empty() && error.code != "23502" => {
                faults.push(format!("{sql}\n    {error:?}"));
            }
            Err(_) => (),
        }
    }
    assert_eq!(dump(&fixture), before, "refused statements change nothing");
    assert!(
        faults.is_empty(),
        "{} of {}:\n{}",
        faults.len(),
        2 * REFUSED.len(),
        faults.join("\n")
    );
}

#[test]
fn text_that_is_not_understood_is_not_guessed() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    fill(&mut client);
    let before = dump(&fixture);
    for sql in [
        "UPDATE by_jump SET v[1] = 'x'",
        "DELETE FROM by_jump WHERE CURRENT OF c",
        "SELEC * FROM by_jump",
        "INSERT INTO by_jump VALUES (1, 1, 'x'",
        "SELECT * FROM by_jump WHERE",
        "UPDATE by_jump SET (v, n) = ROW('x', 5) WHERE nonsense syntax here k = 1",
    ] {
        let error = client.fails(sql);
        assert!(
            ["0A000", "42601"].contains(&error.code.as_str()),
            "{sql}: {error:?}"
        );
    }
    assert_eq!(dump(&fixture), before);
}

#[test]
fn a_key_that_no_placement_covers_is_an_error() {
    use crate::herd::{Herd, Options};
    use crate::shared::Databases;
    let databases = Databases::create(2);
    databases.run_everywhere("CREATE TABLE few (k int PRIMARY KEY, v text); CREATE TABLE low (k int PRIMARY KEY, v text)");
    let mut options = Options::new("transaction");
    options.sharded("few", "k", "int", "{list: {1: shard_0, 2: shard_1}}");
    options.sharded(
        "low",
        "k",
        "int",
        "{range: [{to: 10, shard: shard_0}, {to: 20, shard: shard_1}]}",
    );
    let herd = Herd::start(&databases, &options);
    let mut client = herd.connect();
    for sql in [
        "INSERT INTO few VALUES (3, 'x')",
        "SELECT * FROM few WHERE k = 3",
        "UPDATE few SET v = 'y' WHERE k = 3",
        "INSERT INTO low VALUES (20, 'x')",
        "SELECT * FROM low WHERE k = 25",
    ] {
        let error = client.fails(sql);
        assert!(
            !error.hint.is_empty() && error.code != "XX000",
            "{sql}: {error:?}"
        );
    }
    client.run("INSERT INTO few VALUES (2, 'x')");
    client.run("INSERT INTO low VALUES (19, 'x')");
    assert_eq!(
        databases.shard(1).value("SELECT count(*) FROM few, low"),
        "1"
    );
    assert!(
        client
            .copy_in("COPY few FROM STDIN", &[b"1\tok\n9\tnowhere\n".to_vec()])
            .is_err()
    );
    assert_eq!(databases.shard(0).value("SELECT count(*) FROM few"), "0");
}

#[test]
fn a_long_message_that_is_refused_leaves_nothing_behind() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(options.set("max_statement_size: 1MB"));
    let mut client = fixture.connect();
    let insert = "INSERT INTO by_modulo (v, n, k) VALUES ($1, $2, $3)";
    let long = "x".repeat(3_000_000);
    let values = [
        Some(long.as_bytes().to_vec()),
        Some(b"1".to_vec()),
        Some(b"1".to_vec()),
    ];
    let group = |name: &str| {
        [
            parse(name, insert, &[]),
            bind("", name, &[], &values, &[]),
            execute("", 0),
            sync(),
        ]
        .concat()
    };
    let tags = |messages: Vec<Message>| -> String {
        messages
            .iter()
            .map(|message| char::from(message.tag))
            .collect()
    };
    for name in ["", "s"] {
        client.send(&group(name));
        let messages = client.until_ready().expect("in step");
        assert_eq!(messages[1].field('C'), "0A000", "{}", messages[1].line());
        assert_eq!(tags(messages), "1EZ");
        client.send(&query("SELECT 1"));
        assert_eq!(tags(client.until_ready().expect("in step")), "TDCZ");
    }
    // What stands behind an error is skipped, however long it is.
    client.send(&parse("", "SELECT $1", &[]));
    client.send(&bind("", "nope", &[], &[], &[]));
    client.send(&group("t"));
    client.send(&parse("", &format!("SELECT '{long}'"), &[]));
    client.send(&sync());
    assert_eq!(tags(client.until_ready().expect("in step")), "1EZ");
    assert_eq!(tags(client.until_ready().expect("in step")), "EZ");
    // A key that comes before the long parameter is enough.
    let insert = "INSERT INTO by_modulo (k, n, v) VALUES ($1, $2, $3)";
    let inserted = client.query_with(insert, &[Some("1"), Some("1"), Some(&long)]);
    assert_eq!(inserted.expect("inserted").tags, ["INSERT 0 1"]);
}

/// Worked out by each server for itself.
const UNLIKE: &[&str] = &[
    "UPDATE everywhere SET v = xmin::text",
    "UPDATE everywhere SET v = tableoid::text",
    "UPDATE everywhere e SET v = e.tableoid::text",
    "UPDATE everywhere SET v = ctid::text",
    "UPDATE everywhere SET v = 'some_sequence'::regclass::oid::text",
    "UPDATE everywhere SET v = CAST('some_sequence' AS regclass)::oid::text",
    "UPDATE everywhere SET v = regclass 'some_sequence'::oid::text",
    "UPDATE everywhere SET v = ('n' || 'ow')::timestamptz::text",
    "UPDATE everywhere SET v = CAST('n' || 'ow' AS timestamptz)::text",
    "UPDATE everywhere SET v = concat('n', 'ow')::timestamptz::text",
    "UPDATE everywhere SET v = lower('NOW')::timestamptz::text",
    "UPDATE everywhere SET v = lower('NOW')::time::text",
    "UPDATE everywhere SET v = CURRENT_TIMESTAMP::text",
    "UPDATE everywhere SET v = CURRENT_TIMESTAMP(3)::text",
    "UPDATE everywhere SET v = LOCALTIME::text",
    "UPDATE everywhere SET v = now()::text",
    "UPDATE everywhere SET v = 'now'::timestamptz::text",
    "UPDATE everywhere SET v = E'no\\x77'::timestamptz::text",
    "UPDATE everywhere SET v = ' now '::timestamptz::text",
    "UPDATE everywhere SET v = timestamptz 'now'::text",
    "UPDATE everywhere SET v = ('{now}'::timestamptz[])[1]::text",
    "UPDATE everywhere SET v = lower('[now,)'::tstzrange)::text",
    "UPDATE everywhere SET v = gen_random_uuid()::text",
    "UPDATE everywhere SET v = everywhere.xmin::text WHERE id = 1",
    "UPDATE everywhere SET v = 'x' WHERE xmin::text LIKE '%7' OR xmin::text LIKE '%3'",
    "DELETE FROM everywhere WHERE tableoid::int % 2 = 0",
    "INSERT INTO everywhere SELECT 50, xmin::text FROM everywhere WHERE id = 1",
    "UPDATE everywhere SET v = (xmin)::text",
    "UPDATE everywhere SET v = txid_current()::text",
    "UPDATE everywhere SET v = pg_current_xact_id()::text",
    "UPDATE everywhere SET v = inet_server_port()::text",
    "UPDATE everywhere SET v = current_setting('port')",
    "UPDATE everywhere SET v = format('%s', xmin)",
    "UPDATE everywhere SET v = concat(xmin)",
    "UPDATE everywhere SET v = row_to_json(everywhere)::text",
    "UPDATE everywhere SET v = to_jsonb(everywhere.tableoid)::text",
    "INSERT INTO everywhere VALUES (60, 'x') ON CONFLICT (id) DO UPDATE SET v = everywhere.xmin::text",
    "INSERT INTO everywhere VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = everywhere.xmin::text",
    "WITH x AS (UPDATE everywhere SET v = xmin::text RETURNING id) SELECT 1",
    "UPDATE everywhere SET v = date('n' || 'ow')::text",
    "UPDATE everywhere SET v = v::timestamptz::text WHERE id = 4",
    "UPDATE everywhere SET v = ('nowish'::varchar(3))::timestamptz::text",
    "EXPLAIN (\"analyze\") UPDATE everywhere SET v = 'explained'",
    "ALTER TABLE everywhere ADD u uuid DEFAULT gen_random_uuid()",
    "ALTER TABLE everywhere ADD at timestamptz DEFAULT now()",
    "ALTER TABLE everywhere ALTER v TYPE text USING clock_timestamp()::text",
];

#[test]
fn what_each_shard_would_work_out_for_itself_is_not_written_to_copies() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("INSERT INTO everywhere VALUES (1, 'a'), (2, 'b'), (3, 'c')");
    // The shards' oids and transaction ids are not in step.
    for shard in 0..4_usize {
        let mut direct = fixture.databases.shard(shard);
        for _ in 0..=shard * 3 {
            direct.run("CREATE TABLE step (id int); DROP TABLE step");
        }
    }
    let mut faults = Vec::new();
    for extended in [false, true] {
        for sql in UNLIKE {
            let answer = if extended {
                client.query_with(sql, &[])
            } else {
                client.query(sql)
            };
            let copies: Vec<_> = (0..4)
                .map(|shard| {
                    fixture
                        .databases
                        .shard(shard)
                        .rows("SELECT * FROM everywhere ORDER BY id")
                })
                .collect();
            if copies.windows(2).any(|pair| pair[0] != pair[1]) {
                let values: Vec<_> = copies.iter().map(|rows| rows.first().cloned()).collect();
                faults.push(format!("{extended} {sql}: {answer:?} {values:?}"));
                for shard in 0..4 {
                    fixture.databases.shard(shard).run("TRUNCATE everywhere; INSERT INTO everywhere VALUES (1, 'a'), (2, 'b'), (3, 'c')");
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // What is the same everywhere is written.
    for sql in [
        "UPDATE everywhere SET v = '2024-01-01'::date::text",
        "UPDATE everywhere SET v = E'caf\\u00e9'",
        "ALTER TABLE everywhere ADD d date DEFAULT '2024-01-01', ADD n int DEFAULT length('x')",
    ] {
        client.run(sql);
    }
}

#[test]
fn tables_are_not_altered_out_of_their_place() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    fill(&mut client);
    let before = dump(&fixture);
    for sql in [
        "ALTER TABLE by_jump RENAME TO elsewhere",
        "ALTER TABLE by_jump RENAME COLUMN k TO key",
        "ALTER TABLE by_jump DROP COLUMN k",
        "ALTER TABLE by_jump ALTER COLUMN k TYPE text",
        "ALTER TABLE everywhere RENAME TO somewhere",
        "ALTER TABLE at_home RENAME TO by_jump_old, RENAME TO by_jump",
        "LOCK TABLE by_jump",
        "LOCK TABLE everywhere",
        "SELECT pg_notify('c', v) FROM by_jump WHERE k = 1",
        "DELETE FROM everywhere WHERE id NOT IN (SELECT n FROM by_jump)",
    ] {
        let error = client.fails(sql);
        assert!(
            ["0A000", "42601"].contains(&error.code.as_str()),
            "{sql}: {error:?}"
        );
    }
    assert_eq!(client.fails("LOCK TABLE at_home").code, "25P01");
    assert_eq!(dump(&fixture), before);
    client.run("ALTER TABLE at_home RENAME COLUMN v TO w");
    client.run("ALTER TABLE at_home RENAME TO at_home_too");
    client.run("ALTER TABLE at_home_too RENAME TO at_home");
    client.run("ALTER TABLE by_jump RENAME v TO w");
    assert_eq!(client.value("SELECT w FROM by_jump WHERE k = 1"), "x");
}

#[test]
fn an_unknown_parameter_of_ours_is_refused() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for error in [
        client.fails("SHOW pgherd.nope"),
        client
            .query_with("SHOW pgherd.nope", &[])
            .expect_err("unknown"),
    ] {
        assert_eq!(error.code, "42704", "{error:?}");
        assert_eq!(
            error.message,
            "unrecognized configuration parameter \"pgherd.nope\""
        );
    }
    assert_eq!(client.value("SHOW pgherd.shard"), "");
    client.run("SET my.own = 'x'");
    assert_eq!(client.value("SHOW my.own"), "x");
}
