//! Nothing of one client is ever seen by the next.

use std::fmt::Write as _;

use crate::client::{Client, Row};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message::{bind, execute, frame, parse, query, sync};
use crate::shared::Databases;

/// All of a session's state that SQL can see.
pub(crate) fn fingerprint(client: &mut Client) -> Vec<Vec<Row>> {
    [
        "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'application_name' AND setting IS DISTINCT FROM reset_val ORDER BY name",
        "SELECT current_user = session_user, current_setting('role'), current_schemas(false)::text",
        "SELECT name, statement FROM pg_prepared_statements WHERE from_sql",
        "SELECT name FROM pg_cursors WHERE name <> ''",
        "SELECT pg_listening_channels()",
        "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "SELECT relname FROM pg_class WHERE pg_table_is_visible(oid) AND relpersistence = 't'",
        // PostgreSQL keeps the name of a reset placeholder, empty, to the session's end.
        "SELECT nullif(current_setting('my.own', true), '')",
    ]
    .map(|sql| client.rows(sql))
    .to_vec()
}

/// What a client may leave behind.
const TRACES: &[&str] = &[
    "SET work_mem = '7MB'",
    "SET search_path = pg_catalog",
    "SET ROLE pg_monitor",
    "SET my.own = 'secret'",
    "SET TIME ZONE 'Asia/Tokyo'; SET DateStyle = 'German'; SET client_encoding = 'latin1'",
    "SELECT set_config('my.own', 'secret', false), set_config('work_mem', '8MB', false)",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET default_transaction_read_only = on",
    "SET statement_timeout = 1",
    "BEGIN; SET LOCAL work_mem = '9MB'; SET LOCAL ROLE pg_monitor",
    "BEGIN; SET work_mem = '9MB'; SELECT 1/0",
    "BEGIN; SET work_mem = '9MB'; SAVEPOINT a; SET my.own = 'x'; ROLLBACK TO a; COMMIT",
    "CREATE TEMP TABLE left_over (id int)",
    "CREATE TEMP TABLE t (id int)",
    "SELECT pg_advisory_lock(4711)",
    "SELECT pg_try_advisory_lock(47, 11)",
    "SELECT pg_advisory_lock_shared(4712) FROM generate_series(1, 3)",
    "PREPARE left_over AS SELECT 'secret'",
    "DECLARE left_over CURSOR WITH HOLD FOR SELECT * FROM generate_series(1, 10)",
    "LISTEN left_over",
    "DO $$ BEGIN SET work_mem = '11MB'; PERFORM set_config('my.own', 'by a block', false); END $$",
    "SELECT set_config(name, 'hidden', false) FROM (VALUES ('my.own')) v (name)",
    "BEGIN; LOCK TABLE t; INSERT INTO t VALUES (1, 'x')",
    "SET LOCAL work_mem = '12MB'",
    "SET session_replication_role = DEFAULT; SET enable_seqscan = off",
];

fn start(pool_mode: &str) -> (Databases, Herd) {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (id int, v text)");
    let mut options = Options::new(pool_mode);
    options.set("default_pool_size: 1").set("engines: 1");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

/// Sees what the next clients of the only server see.
fn check(faults: &mut String, herd: &Herd, plain: &[Vec<Row>], after: &str) {
    for round in 0..2 {
        let found = fingerprint(&mut herd.connect());
        if found != plain {
            writeln!(faults, "{after}: client {round} sees {found:?}").expect("to a string");
        }
    }
}

fn traces(pool_mode: &str) {
    let (databases, herd) = start(pool_mode);
    let plain = fingerprint(&mut databases.reference());
    let mut faults = String::new();
    for trace in TRACES {
        for goodbye in [true, false] {
            let mut client = herd.connect();
            drop(client.query(trace));
            if goodbye {
                client.terminate().expect("no more messages");
            } else {
                client.hang_up();
            }
            check(&mut faults, &herd, &plain, trace);
        }
    }
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("no advisory lock is left", || {
        databases.shard(0).value(locks) == "0"
    });
    assert!(faults.is_empty(), "{pool_mode}:\n{faults}");
    assert_eq!(databases.shard(0).value("SELECT count(*) FROM t"), "0");
}

#[test]
fn clients_leave_no_trace_in_transaction_mode() {
    traces("transaction");
}

#[test]
fn clients_leave_no_trace_in_session_mode() {
    traces("session");
}

#[test]
fn clients_leave_no_trace_in_statement_mode() {
    traces("statement");
}

/// What may be under way when a client is gone.
#[test]
fn clients_that_break_off_leave_no_trace() {
    let (databases, herd) = start("transaction");
    let plain = fingerprint(&mut databases.reference());
    let mut faults = String::new();
    let unfinished: &[(&str, Vec<u8>)] = &[
        ("a long statement", query("SELECT pg_sleep(3)")),
        (
            "COPY IN",
            [query("COPY t FROM STDIN"), frame(b'd', b"1\tx\n2\ty")].concat(),
        ),
        (
            "COPY OUT",
            query("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT"),
        ),
        (
            "many rows",
            query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"),
        ),
        (
            "no Sync",
            [
                parse("", "INSERT INTO t VALUES (1, 'x')", &[]),
                bind("", "", &[], &[], &[]),
                execute("", 0),
                frame(b'H', b""),
            ]
            .concat(),
        ),
        (
            "half a message",
            query("INSERT INTO t VALUES (1, 'x')")[..10].to_vec(),
        ),
        (
            "a block",
            [query("BEGIN"), query("INSERT INTO t VALUES (1, 'x')")].concat(),
        ),
        (
            "a portal",
            [
                query("BEGIN"),
                parse("s", "SELECT generate_series(1, 9)", &[]),
                bind("p", "s", &[], &[], &[]),
                execute("p", 2),
                sync(),
            ]
            .concat(),
        ),
    ];
    for (what, bytes) in unfinished {
        for wait in [true, false] {
            let mut client = herd.connect();
            client.send(bytes);
            if wait {
                drop(client.receive(std::time::Duration::from_millis(300)));
            }
            client.hang_up();
            check(&mut faults, &herd, &plain, what);
        }
    }
    assert!(faults.is_empty(), "{faults}");
    eventually("nothing still runs", || {
        databases.shard(0).value("SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND pid <> pg_backend_pid() AND datname = current_database()") == "0"
    });
    assert_eq!(databases.shard(0).value("SELECT count(*) FROM t"), "0");
}

#[test]
fn settings_follow_the_client_from_server_to_server() {
    let databases = Databases::create(1);
    databases.run_everywhere("CREATE TABLE t (id int, v text)");
    let mut options = Options::new("transaction");
    options.set("default_pool_size: 2");
    let herd = Herd::start(&databases, &options);
    let mut clients: Vec<Client> = (1..=6)
        .map(|number| {
            let parameters = [
                ("user", "app"),
                ("database", databases.name.as_str()),
                ("application_name", "by startup"),
                (
                    "options",
                    &format!("-c work_mem={number}MB -c my.own=o{number}"),
                ),
                ("extra_float_digits", "2"),
                ("DateStyle", "German, DMY"),
            ];
            Client::try_connect_with(herd.port, &parameters).expect("logged in")
        })
        .collect();
    for round in 0..5 {
        for (index, client) in clients.iter_mut().enumerate() {
            let number = index + 1;
            assert_eq!(client.value("SHOW work_mem"), format!("{number}MB"));
            assert_eq!(
                client.value("SELECT current_setting('my.own')"),
                if round == 0 {
                    format!("o{number}")
                } else {
                    format!("s{number}")
                }
            );
            assert_eq!(client.value("SHOW extra_float_digits"), "2");
            assert_eq!(client.value("SELECT date '2026-02-01'"), "01.02.2026");
            assert_eq!(client.value("SHOW application_name"), "by startup");
            client.run(&format!("SET my.own = 's{number}'"));
        }
    }
    for (index, client) in clients.iter_mut().enumerate() {
        client.run("RESET ALL");
        assert_eq!(
            client.value("SHOW work_mem"),
            format!("{}MB", index + 1),
            "RESET goes back to the startup packet"
        );
        assert_eq!(client.value("SHOW datestyle"), "German, DMY");
    }
}

#[test]
fn login_reports_what_postgres_reports() {
    let (databases, herd) = start("transaction");
    let names = |client: &Client| {
        let mut settings = client.settings.clone();
        settings.sort();
        settings
    };
    assert_eq!(names(&herd.connect()), names(&databases.reference()));
    let parameters = [
        ("user", "app"),
        ("database", databases.name.as_str()),
        ("client_encoding", "'utf-8'"),
        ("TimeZone", "Europe/Berlin"),
        ("datestyle", "SQL, DMY"),
        ("application_name", "x"),
    ];
    let through = Client::try_connect_with(herd.port, &parameters).expect("logged in");
    let direct =
        Client::try_connect_with(databases.reference_port, &parameters).expect("logged in");
    assert_eq!(names(&through), names(&direct));
    let unknown = [
        ("user", "app"),
        ("database", databases.name.as_str()),
        ("no_such_setting", "1"),
    ];
    let error = |port| {
        Client::try_connect_with(port, &unknown)
            .map(|_| ())
            .map_err(|error| (error.code, error.message))
    };
    assert_eq!(error(herd.port), error(databases.reference_port));
}

/// Servers keep prepared statements, and a schema may be changed past the proxy.
#[test]
fn a_schema_changed_elsewhere_does_not_break_statements_for_ever() {
    let (databases, herd) = start("transaction");
    databases.run_everywhere("INSERT INTO t VALUES (1, 'x')");
    let select = |client: &mut Client, name: &str| {
        client.send(
            &[
                crate::message::close(b'S', name),
                parse(name, "SELECT * FROM t", &[]),
                bind("", name, &[], &[], &[]),
                execute("", 0),
                sync(),
            ]
            .concat(),
        );
        client.answer().map(|answer| answer.rows[0].len())
    };
    for columns in 2..6 {
        let mut client = herd.connect();
        for name in ["", "s", "", "s", ""] {
            assert_eq!(select(&mut client, name), Ok(columns), "{name:?}");
        }
        databases
            .shard(0)
            .run(&format!("ALTER TABLE t ADD COLUMN c{columns} int"));
        // The first to notice is told as PostgreSQL tells it; to prepare the statement again helps.
        let told: Vec<_> = (0..4).map(|_| select(&mut client, "s")).collect();
        assert_eq!(told.last(), Some(&Ok(columns + 1)), "{told:?}");
        assert!(
            told.iter().filter(|told| told.is_err()).count() <= 1,
            "{told:?}"
        );
    }
}

#[test]
fn a_long_bind_leaves_no_trace() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.set("default_pool_size: 3");
    let herd = Herd::start(&databases, &options);
    let long = || "x".repeat(1_500_000);
    let length = "SELECT coalesce(length(current_setting('app.big', true)), 0)";
    let (mut client, mut other) = (herd.connect(), herd.connect());
    for set in [
        "set_config('app.big', $1, false)",
        "length(set_config('app.big', $1, false))",
    ] {
        let set = format!("SELECT {set}");
        client.query_with(&set, &[Some(&long())]).expect("set");
        assert_eq!(other.value(length), "0", "{set}: another's setting");
        assert_eq!(client.value(length), "1500000", "{set}");
    }
    let mut locker = herd.connect();
    let lock = "SELECT pg_advisory_lock(length($1))";
    locker.query_with(lock, &[Some(&long())]).expect("locked");
    let mine =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    for client in [&mut client, &mut other] {
        assert_eq!(client.value(mine), "0", "a lock of another client");
    }
    assert_eq!(locker.value(mine), "1");
    locker.hang_up();
    let any = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    eventually("it is let go", || other.value(any) == "0");
}

/// What the server says to a statement: its rows, or the code of its error.
fn said(client: &mut Client, sql: &str) -> Result<Vec<Row>, String> {
    let answer = client.query(sql);
    answer.map(|answer| answer.rows).map_err(|error| error.code)
}

/// The search path that a client logs in with.
fn path_of_login(port: u16, database: &str, path: &str) -> Result<Vec<Row>, String> {
    let parameters = [
        ("user", "app"),
        ("database", database),
        ("search_path", path),
    ];
    Client::try_connect_with(port, &parameters)
        .map_err(|error| error.code)
        .and_then(|mut client| said(&mut client, "SHOW search_path"))
}

#[test]
fn a_search_path_is_a_value_and_no_sql() {
    let (databases, herd) = start("transaction");
    databases.run_everywhere("CREATE SCHEMA \"tenant-1\"; CREATE TABLE \"tenant-1\".u (id int)");
    let plain = fingerprint(&mut herd.connect());
    let mut faults = String::new();
    let mut client = herd.connect();
    let mut reference = databases.reference();
    for path in [
        "tenant-1",
        "1tenant",
        "user",
        "order, public",
        "a b",
        "public; SET statement_timeout = '1234s'",
    ] {
        let found = path_of_login(herd.port, &herd.database, path);
        let wanted = path_of_login(databases.reference_port, &databases.name, path);
        if found != wanted {
            writeln!(faults, "{path}: {found:?}, PostgreSQL {wanted:?}").expect("to a string");
        }
        check(&mut faults, &herd, &plain, path);
        let value = path.replace('\'', "''");
        let set = format!("SELECT set_config('search_path', '{value}', false)");
        for sql in [set.as_str(), "SHOW search_path"] {
            let (found, wanted) = (said(&mut client, sql), said(&mut reference, sql));
            if found != wanted {
                writeln!(faults, "{sql}: {found:?}, PostgreSQL {wanted:?}").expect("to a string");
            }
            check(&mut faults, &herd, &plain, sql);
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn names_are_found_by_a_search_path_that_came_whole() {
    let databases = Databases::create(4);
    databases.run_everywhere("CREATE SCHEMA \"tenant-1\"; CREATE TABLE \"tenant-1\".u (k bigint)");
    let mut options = Options::new("transaction");
    options
        .sharded("base", "k", "bigint", "{modulo: all}")
        .on("tenant-1.u", "base", "k");
    let herd = Herd::start(&databases, &options);
    let parameters = [
        ("user", "app"),
        ("database", herd.database.as_str()),
        ("search_path", "tenant-1"),
    ];
    let mut client = Client::try_connect_with(herd.port, &parameters).expect("a path");
    client.run("INSERT INTO u VALUES (3)");
    let found = databases
        .shard(3)
        .value("SELECT count(*) FROM \"tenant-1\".u");
    assert_eq!(found, "1");
}

/// A FunctionCall with text arguments and result.
fn call(function: u32, arguments: &[&str]) -> Vec<u8> {
    let mut body = function.to_be_bytes().to_vec();
    body.extend([0, 0]);
    let values: Vec<_> = arguments
        .iter()
        .map(|argument| Some(argument.as_bytes().to_vec()))
        .collect();
    body.extend(crate::message::values_list(&values));
    body.extend([0, 0]);
    frame(b'F', &body)
}

#[test]
fn function_calls_leave_no_setting_and_no_lock() {
    let (databases, herd) = start("transaction");
    let plain = fingerprint(&mut databases.reference());
    let mut client = herd.connect();
    // set_config(text, text, bool), pg_advisory_lock(bigint)
    for call in [
        call(2078, &["statement_timeout", "1234567", "f"]),
        call(2880, &["77"]),
    ] {
        client.send(&call);
        client.answer().expect("called");
    }
    assert_eq!(client.value("SHOW statement_timeout"), "1234567ms");
    let pinned = herd.console().run("SHOW CLIENTS").column("pinned");
    let reason = "function call of the protocol".to_owned();
    assert!(pinned.contains(&reason), "{pinned:?}");
    client.hang_up();
    assert_eq!(fingerprint(&mut herd.connect()), plain);
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
    eventually("no lock is left", || databases.shard(0).value(locks) == "0");
}

/// What a client is kept its connection for, though its statement does not look like it.
#[test]
fn nothing_hidden_in_a_statement_outlives_its_client() {
    let (databases, herd) = start("transaction");
    databases.run_everywhere(
        "CREATE PROCEDURE called() LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('statement_timeout', '1234s', false); END$$",
    );
    let set = "set_config('statement_timeout', '1234s', false)";
    let lock = "pg_advisory_lock(77)";
    let statements = [
        format!("EXPLAIN ANALYZE SELECT {set}"),
        format!("EXPLAIN (ANALYZE) INSERT INTO t SELECT 1, {set}"),
        format!("COPY (SELECT {set}) TO STDOUT"),
        format!("COPY (SELECT {lock}) TO STDOUT"),
        "UPDATE pg_settings SET setting = '1234s' WHERE name = 'statement_timeout'".to_owned(),
        format!("BEGIN; DECLARE c CURSOR FOR SELECT {lock}; FETCH c; COMMIT"),
        format!("VALUES ({set})"),
        format!("SELECT 1 ORDER BY {lock}::text"),
        format!("INSERT INTO t VALUES (1, {set})"),
        format!("CREATE TABLE made AS SELECT {set}"),
        format!("CREATE TABLE made AS SELECT {lock}::text"),
        format!("SELECT {lock}::text AS l INTO made"),
        format!("WITH x AS MATERIALIZED (SELECT {set} AS s) SELECT * FROM x"),
        format!("DELETE FROM t WHERE {lock}::text = '' RETURNING {set}"),
        format!("CREATE MATERIALIZED VIEW made AS SELECT {set}"),
        format!("CREATE MATERIALIZED VIEW made AS SELECT {lock}::text"),
        "CALL called()".to_owned(),
        "CREATE TEMP SEQUENCE kept".to_owned(),
        "CREATE TEMP VIEW kept AS SELECT 1".to_owned(),
        "CREATE VIEW pg_temp.kept AS SELECT 1".to_owned(),
        "CREATE FUNCTION pg_temp.kept() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "CREATE TYPE pg_temp.kept AS ENUM ('a')".to_owned(),
        "CREATE LOCAL TEMPORARY TABLE kept (id int)".to_owned(),
        "CREATE TABLE pg_temp.kept (id int)".to_owned(),
        "SELECT 1 AS a INTO TEMPORARY TABLE kept".to_owned(),
        "SET search_path = pg_temp; CREATE TABLE kept (id int)".to_owned(),
        "SELECT set_config('search_path', 'pg_temp', false); CREATE TABLE kept (id int)".to_owned(),
        "BEGIN; SET LOCAL search_path = pg_temp; CREATE TABLE kept (id int); COMMIT".to_owned(),
    ];
    let plain = fingerprint(&mut databases.reference());
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'kept') + (SELECT count(*) FROM pg_proc WHERE proname = 'kept') + (SELECT count(*) FROM pg_type WHERE typname = 'kept' AND typtype = 'e') + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";
    let mut faults = String::new();
    for extended in [false, true] {
        for sql in &statements {
            if extended && sql.contains(';') {
                continue;
            }
            let mut client = herd.connect();
            let answer = if extended {
                client.query_with(sql, &[])
            } else {
                client.query(sql)
            };
            answer.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            client.hang_up();
            check(&mut faults, &herd, &plain, sql);
            let mut found = String::new();
            for _ in 0..20 {
                found = databases.shard(0).value(left);
                if found == "0" {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            if found != "0" {
                writeln!(faults, "extended {extended}: {sql}: something is left")
                    .expect("to a string");
            }
            drop(databases.shard(0).query("DROP TABLE made"));
            drop(databases.shard(0).query("DROP MATERIALIZED VIEW made"));
            herd.console().run("RECONNECT");
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn lastval_is_never_anothers() {
    let (databases, herd) = start("transaction");
    databases.run_everywhere("CREATE SEQUENCE s START 4711; CREATE TABLE serials (id serial)");
    let mut one = herd.connect();
    let mut two = herd.connect();
    let mut anothers = |two: &mut Client, sql: &str| {
        drop(two.query("ROLLBACK"));
        one.run("SELECT nextval('s')");
        for sql in sql.split('|') {
            let answer = two.query(sql);
            if sql.contains("lastval") || sql.contains("currval") {
                assert_eq!(answer.expect_err("another's").code, "0A000", "{sql}");
            }
        }
    };
    anothers(
        &mut two,
        "BEGIN|SELECT count(*) FROM pg_class|SELECT lastval()",
    );
    anothers(&mut two, "BEGIN|UPDATE t SET v = ''|SELECT currval('s')");
    anothers(&mut two, "SELECT 1; SELECT lastval()");
    anothers(&mut two, "BEGIN; SELECT lastval(); COMMIT");
    two.run("ROLLBACK");
    two.run("BEGIN");
    two.run("INSERT INTO serials DEFAULT VALUES");
    assert_eq!(two.value("SELECT lastval()"), "1");
    two.query_with("SELECT nextval('s')", &[]).expect("a value");
    let own = two.query_with("SELECT currval('s')", &[]).expect("its own");
    assert_eq!(own.rows[0][0].as_deref(), Some("4715"));
    two.run("COMMIT");
    two.run("INSERT INTO serials DEFAULT VALUES; SELECT lastval()");
    two.run("SELECT nextval('s'), currval('s')");
    anothers(&mut two, "SELECT pg_advisory_lock(1)|SELECT lastval()");
    two.run("INSERT INTO serials DEFAULT VALUES");
    assert_eq!(two.value("SELECT lastval()"), "3");
}
