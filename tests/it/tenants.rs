//! A tenant's user reads and changes the tenant's rows alone, on one shard and on four.
//!
//! Every row of another tenant holds `SECRET` or a number of at least 777000000, so that it is seen in any
//! answer and in any error.

use crate::client::{Answer, Client, ServerError};
use crate::herd::{Herd, Options};
use crate::message;
use crate::random::Random;
use crate::shared::{Databases, SHARDS};

const ESCAPES: &str = include_str!("tenants/escapes.txt");
const ALLOWED: &str = include_str!("tenants/allowed.txt");
const REFUSED: &str = "42501";

const SCHEMA: &str = "
    CREATE TABLE orders (tenant_id bigint, id int UNIQUE, note text, amount int, flag bool,
                         doc jsonb, at timestamptz DEFAULT '2024-01-01', PRIMARY KEY (tenant_id, id));
    CREATE TABLE items (tenant_id bigint, order_id int, sku text, qty int);
    CREATE TABLE \"Upper\" (tenant_id int, \"Note\" text);
    CREATE TABLE stock (store text, tenant_id bigint, n int, mark text, PRIMARY KEY (store, tenant_id));
    CREATE TABLE bare (id bigint PRIMARY KEY, mark text);
    CREATE TABLE plans (code text PRIMARY KEY, label text);
    CREATE TABLE settings1 (name text, value text);
    CREATE TABLE ev (tenant_id bigint, n int, note text) PARTITION BY RANGE (n);
    CREATE TABLE ev_1 PARTITION OF ev FOR VALUES FROM (0) TO (1000000);
    CREATE TABLE base (tenant_id bigint, note text);
    CREATE TABLE kid () INHERITS (base);
    CREATE SCHEMA other;
    CREATE VIEW v_orders AS SELECT * FROM orders;
    CREATE VIEW v_plans AS SELECT code, label FROM plans;
    CREATE VIEW other.orders AS SELECT * FROM public.orders;
    CREATE VIEW other.hidden AS SELECT note FROM public.orders;
    CREATE MATERIALIZED VIEW m_orders AS SELECT * FROM orders;
    CREATE FUNCTION leak() RETURNS SETOF orders LANGUAGE sql AS 'SELECT * FROM orders';
    CREATE FUNCTION leak_text() RETURNS text LANGUAGE sql AS 'SELECT max(note) FROM orders';
    CREATE FUNCTION evil(orders) RETURNS text LANGUAGE sql AS 'SELECT max(note) FROM orders';
    CREATE FUNCTION lower(orders) RETURNS text LANGUAGE sql AS 'SELECT max(note) FROM orders';
    CREATE PROCEDURE take() LANGUAGE sql AS 'SELECT 1'";

const TABLES: [&str; 7] = ["orders", "items", "\"Upper\"", "stock", "ev", "kid", "bare"];

/// The rows of tenants 40 to 59; 42 is the one that is confined.
fn rows() -> Vec<String> {
    let mut rows = vec![
        "INSERT INTO plans (code, label) VALUES ('a', 'first'), ('b', 'second')".to_owned(),
        "INSERT INTO settings1 (name, value) VALUES ('x', '1'), ('y', '2')".to_owned(),
    ];
    for tenant in 40..60 {
        let own = tenant == 42;
        let mark = |n: usize| {
            if own {
                format!("own {n}")
            } else {
                format!("SECRET {tenant} {n}")
            }
        };
        for n in 1..=4 {
            let id = if own {
                n
            } else {
                (tenant - 42_i32).rem_euclid(20).unsigned_abs() as usize * 100 + n
            };
            let amount = if own { n * 10 } else { 777_000_000 + id };
            let mark = mark(n);
            rows.extend([
                format!("INSERT INTO orders (tenant_id, id, note, amount, flag, doc) VALUES ({tenant}, {id}, '{mark}', {amount}, {}, '{{\"m\": \"{mark}\"}}')", n % 2 == 0),
                format!("INSERT INTO items (tenant_id, order_id, sku, qty) VALUES ({tenant}, {id}, '{mark}', {amount})"),
                format!("INSERT INTO \"Upper\" (tenant_id, \"Note\") VALUES ({tenant}, '{mark}')"),
                format!("INSERT INTO stock (store, tenant_id, n, mark) VALUES ('store {n}', {tenant}, {amount}, '{mark}')"),
                format!("INSERT INTO ev (tenant_id, n, note) VALUES ({tenant}, {id}, '{mark}')"),
                format!("INSERT INTO kid (tenant_id, note) VALUES ({tenant}, '{mark}')"),
            ]);
        }
        rows.push(format!(
            "INSERT INTO bare (id, mark) VALUES ({tenant}, 'SECRET')"
        ));
    }
    rows
}

fn options() -> Options {
    let mut options = Options::new("transaction");
    options.users = vec![
        "{name: app, password: app-secret}".to_owned(),
        "{name: postgres, password: any}".to_owned(),
        "{name: shop42, password: x, tenant: \"42\", comment_hints: true}".to_owned(),
    ];
    options.database.extend([
        "server_user: app".to_owned(),
        "server_password: app-secret".to_owned(),
        "tenant: {column: tenant_id, setting: app.current_tenant}".to_owned(),
    ]);
    options
        .sharded("orders", "tenant_id", "bigint", "{jump: all}")
        .on("items", "orders", "tenant_id")
        .on("\"Upper\"", "orders", "tenant_id")
        .on("ev", "orders", "tenant_id")
        .on("kid", "orders", "tenant_id")
        .on("bare", "orders", "id")
        .sharded(
            "stock",
            "[store, tenant_id]",
            "[text, bigint]",
            "{jump: all}",
        )
        .table("plans", "reference")
        .table("settings1", "single");
    options
}

fn herd(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(SCHEMA);
    let herd = Herd::start(&databases, &options());
    let mut loader = herd.connect();
    let mut reference = Client::connect(databases.reference_port, "app", &databases.name);
    for row in rows() {
        loader.run(&row);
        reference.run(&row);
    }
    databases.run_everywhere("REFRESH MATERIALIZED VIEW m_orders");
    (databases, herd)
}

fn tenant(herd: &Herd) -> Client {
    Client::connect(herd.port, "shop42", &herd.database)
}

/// What the shards hold of other tenants.
fn others(databases: &Databases) -> Vec<String> {
    let mut found = Vec::new();
    for &port in &databases.shard_ports {
        let mut shard = Client::connect(port, "app", &databases.name);
        for table in TABLES {
            let filter = if table == "bare" {
                "true"
            } else {
                "tenant_id <> 42"
            };
            found.push(shard.value(&format!(
                "SELECT count(*) || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {table} t WHERE {filter}"
            )));
        }
        found.push(shard.value("SELECT string_agg(p::text, ',' ORDER BY p::text) FROM plans p"));
        found.push(shard.value("SELECT count(*) FROM pg_class WHERE relname = 'taken'"));
    }
    found
}

/// Panics where an answer or error shows anything of another tenant.
fn check_own(what: &str, answer: &Result<Answer, ServerError>) {
    let is_foreign = |text: &str| {
        text.contains("SECRET")
            || text
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|digits| digits.parse::<u64>().ok())
                .any(|number| (777_000_000..100_000_000_000).contains(&number))
    };
    match answer {
        Ok(answer) => {
            let mut cells = answer.rows.iter().flatten().flatten();
            assert!(!cells.any(|cell| is_foreign(cell)), "{what}\n{answer:?}");
        }
        Err(error) => {
            let told = format!("{} {}", error.message, error.detail);
            assert!(!is_foreign(&told), "{what}\n{error:?}");
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn nobody_escapes(shards: usize) {
    let (databases, herd) = herd(shards);
    let before = others(&databases);
    let mut client = tenant(&herd);
    let mut direct = Client::connect(databases.reference_port, "app", &databases.name);
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in lines(ESCAPES) {
        let sql = line.strip_prefix('!').unwrap_or(line);
        count += 1;
        if sql == line && shards == 1 && !works(&mut direct, sql) {
            wrong.push(format!("does not work on a server by itself: {sql}"));
        }
        let simple = client.query(sql);
        check_own(sql, &simple);
        let extended = client.query_values(sql, &[], &[], &[]);
        check_own(sql, &extended);
        for (way, answer) in [("simple", simple), ("extended", extended)] {
            let several = way == "extended" && sql.contains("; ");
            let code = answer
                .as_ref()
                .map_or_else(|error| error.code.clone(), |answer| format!("{answer:?}"));
            // What PostgreSQL finds wrong comes first where it reads the text first.
            let is_wrong = sql != line && ["42601", "42P01", "42883"].contains(&code.as_str());
            if is_wrong {
                continue;
            }
            if code != REFUSED && !(several && code == "42601") {
                wrong.push(format!("{way}: {sql}\n    {code}"));
            } else if let Err(error) = answer
                && error.hint.is_empty()
                && !several
            {
                wrong.push(format!("no hint: {sql}"));
            }
        }
        if client.status != 'I' {
            client.run("ROLLBACK");
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count >= 150, "{count}");
    assert_eq!(others(&databases), before);
    println!("{count} statements over {shards} shards");
}

/// Whether PostgreSQL runs it, so that its refusal is ours. What it did is undone.
fn works(direct: &mut Client, sql: &str) -> bool {
    direct.run("BEGIN");
    let result = direct.query(sql);
    if direct.status != 'I' {
        direct.run("ROLLBACK");
    }
    direct.run("DISCARD ALL");
    if let Err(error) = &result {
        println!("{sql}: {error:?}");
    }
    result.is_ok()
}

#[test]
fn nobody_escapes_from_one_shard() {
    nobody_escapes(1);
}

#[test]
fn nobody_escapes_from_four_shards() {
    nobody_escapes(SHARDS);
}

/// A statement, its parameter's type, format and value, and whether it is answered.
type Case = (&'static str, u32, i16, Option<Vec<u8>>, bool);

#[test]
fn parameters_of_others_are_refused() {
    let eight = |value: i64| Some(value.to_be_bytes().to_vec());
    let text = |value: &str| Some(value.as_bytes().to_vec());
    for shards in [1, SHARDS] {
        let (databases, herd) = herd(shards);
        let before = others(&databases);
        let mut client = tenant(&herd);
        let one = "SELECT note FROM orders WHERE tenant_id = $1 ORDER BY id";
        let cases: [Case; 20] = [
            (one, 0, 0, text("42"), true),
            (one, 0, 0, text(" 042 "), true),
            (one, 20, 1, eight(42), true),
            (one, 0, 1, eight(42), true),
            (one, 23, 1, Some(42_i32.to_be_bytes().to_vec()), true),
            (one, 21, 1, Some(42_i16.to_be_bytes().to_vec()), true),
            (one, 0, 0, text("43"), false),
            (one, 0, 0, text("-42"), false),
            (one, 0, 0, text("42x"), false),
            (one, 0, 0, None, false),
            (one, 20, 1, eight(43), false),
            (one, 20, 1, eight(i64::MIN), false),
            (one, 1700, 0, text("42"), false),
            (one, 701, 0, text("42"), false),
            (one, 1700, 0, text("42.0"), false),
            (
                "SELECT note FROM orders WHERE tenant_id = ANY ($1)",
                0,
                0,
                text("{42,43}"),
                false,
            ),
            (
                "SELECT note FROM orders WHERE tenant_id = ANY ($1)",
                0,
                0,
                text("{43}"),
                false,
            ),
            (
                "UPDATE orders SET note = 'taken' WHERE tenant_id = $1",
                0,
                0,
                text("43"),
                false,
            ),
            (
                "DELETE FROM orders WHERE tenant_id = $1",
                20,
                1,
                eight(43),
                false,
            ),
            (
                "INSERT INTO orders (tenant_id, id, note) VALUES ($1, 920, 'x')",
                0,
                0,
                text("43"),
                false,
            ),
        ];
        for (sql, oid, format, value, own) in cases {
            // Twice and more, so that what is kept of the first is used.
            for _ in 0..4 {
                let answer =
                    client.query_values(sql, &[oid], &[format], std::slice::from_ref(&value));
                check_own(sql, &answer);
                match answer {
                    Ok(answer) => assert!(own && answer.rows.len() == 4, "{sql} {oid} {value:?}"),
                    Err(error) => assert!(
                        !own && error.code == REFUSED,
                        "{sql} {oid} {value:?} {error:?}"
                    ),
                }
            }
        }
        // A named statement, bound again and again.
        let parse = [message::parse("s", one, &[20]), message::sync()].concat();
        client.send(&parse);
        client.answer().expect("parsed");
        for (value, own) in [(42, true), (43, false), (42, true), (44, false)] {
            client.send(
                &[
                    message::bind("", "s", &[1], &[eight(value)], &[]),
                    message::execute("", 0),
                    message::sync(),
                ]
                .concat(),
            );
            let answer = client.answer();
            check_own(one, &answer);
            assert_eq!(answer.is_ok(), own, "{value} {answer:?}");
        }
        // The function call of the protocol: `lo_creat`.
        let call = [
            957_u32.to_be_bytes().to_vec(),
            vec![0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        client.send(&message::frame(b'F', &call));
        assert_eq!(client.answer().expect_err("refused").code, REFUSED);
        assert_eq!(others(&databases), before);
    }
}

#[test]
fn allowed_statements_answer_as_one_postgresql() {
    for shards in [1, SHARDS] {
        let (databases, herd) = herd(shards);
        let before = others(&databases);
        let mut client = tenant(&herd);
        let mut reference = Client::connect(databases.reference_port, "app", &databases.name);
        let mut count = 0;
        for sql in lines(ALLOWED) {
            count += 1;
            for block in [false, true] {
                if block {
                    client.run("BEGIN");
                }
                reference.run("BEGIN");
                let ours = if block {
                    client.query_values(sql, &[], &[], &[])
                } else {
                    client.query(sql)
                };
                check_own(sql, &ours);
                let theirs = reference.query(sql);
                let sorted = |answer: Result<Answer, ServerError>| {
                    answer.map(|mut answer| {
                        answer.rows.sort();
                        (answer.rows, answer.tags)
                    })
                };
                let (ours, theirs) = (sorted(ours), sorted(theirs));
                assert!(ours.is_ok(), "{shards} shards: {sql}\n{ours:?}");
                assert_eq!(ours, theirs, "{shards} shards: {sql}");
                reference.run(if block { "ROLLBACK" } else { "COMMIT" });
                if block {
                    client.run("ROLLBACK");
                }
            }
        }
        assert!(count >= 40, "{count}");
        assert_eq!(others(&databases), before);
        println!("{count} statements over {shards} shards");
    }
}

#[test]
fn rows_of_a_copy_are_looked_at_each() {
    for shards in [1, SHARDS] {
        let (databases, herd) = herd(shards);
        let before = others(&databases);
        let mut client = tenant(&herd);
        let copied = |client: &mut Client, sql: &str, data: &str| {
            client.copy_in(sql, &[data.as_bytes().to_vec()])
        };
        let sql = "COPY orders (tenant_id, id, note) FROM STDIN";
        for data in [
            "43\t950\tx\n",
            "42\t951\tx\n43\t952\tx\n",
            "\\N\t953\tx\n",
            "42\t954\tx\n 43\t955\tx\n",
        ] {
            let error = copied(&mut client, sql, data).expect_err("another's row");
            assert_eq!(error.code, REFUSED, "{data} {error:?}");
        }
        assert_eq!(others(&databases), before);
        let answer = copied(&mut client, sql, "42\t960\town\n42\t961\town\n").expect("own rows");
        assert_eq!(answer.tags, ["COPY 2"]);
        let sql = "COPY orders (id, note, tenant_id) FROM STDIN WITH (FORMAT csv)";
        assert_eq!(
            copied(&mut client, sql, "962,own,42\n").expect("own").tags,
            ["COPY 1"]
        );
        assert_eq!(
            copied(&mut client, sql, "963,own,\"43\"\n")
                .expect_err("another's")
                .code,
            REFUSED
        );
        assert_eq!(
            client.value("SELECT count(*) FROM orders WHERE tenant_id = 42"),
            "7"
        );
        let rows = client
            .copy_out("COPY (SELECT note FROM orders WHERE tenant_id = 42 AND id < 3) TO STDOUT");
        assert_eq!(rows, b"own 1\nown 2\n");
        assert_eq!(others(&databases), before);
    }
}

#[test]
fn a_session_is_confined_by_what_it_sets() {
    for shards in [1, SHARDS] {
        let (_databases, herd) = herd(shards);
        let mut client = herd.connect();
        let code = |client: &mut Client, sql: &str| {
            client
                .query(sql)
                .map_or_else(|error| error.code, |answer| answer.rows.len().to_string())
        };
        let own = "SELECT note FROM orders WHERE tenant_id = 42";
        let all = "SELECT note FROM orders";
        let another = "SELECT note FROM orders WHERE tenant_id = 43";
        assert_eq!(code(&mut client, all), "80");
        client.run("SET app.current_tenant = '42'");
        assert_eq!(code(&mut client, own), "4");
        assert_eq!(code(&mut client, all), REFUSED);
        assert_eq!(code(&mut client, another), REFUSED);
        assert_eq!(code(&mut client, "SET ROLE app"), REFUSED);
        // Another request, another tenant.
        client.run("SELECT set_config('app.current_tenant', '43', false)");
        assert_eq!(code(&mut client, own), REFUSED);
        assert_eq!(code(&mut client, another), "4");
        client.run("RESET app.current_tenant");
        assert_eq!(code(&mut client, all), "80");
        // For a block.
        client.run("BEGIN");
        client.run("SET LOCAL app.current_tenant = 42");
        assert_eq!(code(&mut client, own), "4");
        assert_eq!(code(&mut client, all), REFUSED);
        client.run("ROLLBACK");
        assert_eq!(code(&mut client, all), "80");
        client.run("BEGIN");
        client.run("SELECT set_config('app.current_tenant', '42', true)");
        assert_eq!(code(&mut client, another), REFUSED);
        client.run("COMMIT");
        // In one text.
        assert_eq!(
            code(
                &mut client,
                &format!("SET app.current_tenant = '42'; {all}")
            ),
            REFUSED
        );
        assert_eq!(
            code(
                &mut client,
                &format!("BEGIN; SET LOCAL app.current_tenant = '42'; {another}; COMMIT")
            ),
            REFUSED
        );
        client.query("ROLLBACK").ok();
        assert_eq!(
            code(
                &mut client,
                &format!("BEGIN; SET LOCAL app.current_tenant = '42'; {own}; COMMIT")
            ),
            "4"
        );
        assert_eq!(code(&mut client, all), "80");
        // What cannot be told.
        for sql in [
            "SELECT set_config('app.current_' || 'tenant', '42', false)",
            "SELECT set_config('app.current_tenant', '4' || '2', false)",
            "SELECT set_config(v, '42', false) FROM (VALUES ('app.current_tenant')) x(v)",
        ] {
            assert_eq!(code(&mut client, sql), REFUSED, "{sql}");
        }
        client.run("SET app.current_tenant = 'no number'");
        assert_eq!(code(&mut client, own), REFUSED);
        assert_eq!(code(&mut client, "SET app.current_tenant = 042"), REFUSED);
        client.run("DISCARD ALL");
        assert_eq!(code(&mut client, all), "80");
        // A statement that was prepared before.
        client.send(&[message::parse("s", all, &[]), message::sync()].concat());
        client.answer().expect("parsed");
        client.run("SET app.current_tenant = '42'");
        client.send(
            &[
                message::bind("", "s", &[], &[], &[]),
                message::execute("", 0),
                message::sync(),
            ]
            .concat(),
        );
        assert_eq!(client.answer().expect_err("confined now").code, REFUSED);
        // Temporary relations may mean anything.
        client.run("RESET app.current_tenant");
        client.run("CREATE TEMP TABLE mine AS SELECT 1 AS one");
        client.run("SET app.current_tenant = '42'");
        assert_eq!(code(&mut client, "SELECT * FROM mine"), REFUSED);
        let told = client.fails(own);
        assert_eq!(told.code, REFUSED, "{told:?}");
    }
}

#[test]
fn a_session_is_confined_from_its_start() {
    for shards in [1, SHARDS] {
        let (_databases, herd) = herd(shards);
        let code = |client: &mut Client, sql: &str| {
            let answer = client.query(sql);
            answer.map_or_else(|error| error.code, |answer| answer.rows.len().to_string())
        };
        let own = "SELECT note FROM orders WHERE tenant_id = 42";
        let all = "SELECT note FROM orders";
        let with = |name: &str, value: &str, user: &str| {
            Client::try_connect_with(
                herd.port,
                &[("user", user), ("database", &herd.database), (name, value)],
            )
        };
        let mut started = with("options", "-c app.current_tenant=42", "app").expect("a session");
        assert_eq!(code(&mut started, own), "4");
        assert_eq!(code(&mut started, all), REFUSED);
        let mut bound = tenant(&herd);
        assert_eq!(bound.value("SHOW app.current_tenant"), "42");
        bound.run("SET app.current_tenant = '42'");
        bound.run("RESET ALL");
        assert_eq!(
            bound.value("SELECT current_setting('app.current_tenant')"),
            "42"
        );
        assert_eq!(
            with("app.current_tenant", "43", "shop42")
                .expect_err("another")
                .code,
            REFUSED
        );
        assert_eq!(
            with("options", "-c role=app", "shop42")
                .expect_err("a role")
                .code,
            REFUSED
        );
        // Where nobody is confined, a tenant has no business.
        assert_eq!(herd.console().run("SHOW TENANTS").rows.len(), 1);
    }
}

/// Statements that fail on some row: on one of the tenant's alone, or not at all.
#[test]
fn errors_tell_of_own_rows() {
    const PEEKS: [&str; 13] = [
        "SELECT id FROM orders WHERE note::int = 1 AND tenant_id = 42",
        "SELECT id FROM orders WHERE note::bool AND tenant_id = 42",
        "SELECT id FROM orders WHERE to_date(note, 'YYYY') = '2024-01-01' AND tenant_id = 42",
        "SELECT id FROM orders WHERE date_trunc(note, at) = at AND tenant_id = 42",
        "SELECT id FROM orders WHERE note::jsonb = '1' AND (tenant_id, id) = (42, 1)",
        "SELECT id FROM orders WHERE CASE WHEN id > 0 THEN note::bool END AND tenant_id = 42",
        "SELECT o.id FROM orders o JOIN items i ON i.sku::bool AND i.tenant_id = o.tenant_id WHERE o.tenant_id = 42",
        "SELECT o.id FROM orders o LEFT JOIN items i ON i.sku::bool AND i.tenant_id = o.tenant_id WHERE o.tenant_id = 42",
        "SELECT o.id FROM orders o JOIN items i USING (tenant_id) WHERE i.sku::bool AND o.note::bool AND o.tenant_id = 42",
        "SELECT o.id FROM orders o WHERE o.tenant_id = 42 AND EXISTS (SELECT 1 FROM items i WHERE i.sku::bool AND i.tenant_id = o.tenant_id AND i.tenant_id = 42)",
        "SELECT o.id FROM orders o WHERE o.tenant_id = 42 AND (o.id < 0 OR EXISTS (SELECT 1 FROM items i WHERE i.sku::bool AND i.tenant_id = o.tenant_id AND i.tenant_id = 42))",
        "SELECT (SELECT max(i.qty) FROM items i WHERE i.sku::bool AND i.tenant_id = o.tenant_id AND i.tenant_id = 42) FROM orders o WHERE o.tenant_id = 42",
        "SELECT s.n FROM orders o, LATERAL (SELECT count(*) AS n FROM items i WHERE i.sku::bool AND i.tenant_id = o.tenant_id AND i.tenant_id = 42 OFFSET 0) s WHERE o.tenant_id = 42",
    ];
    for shards in [1, SHARDS] {
        let (databases, herd) = herd(shards);
        let mut client = tenant(&herd);
        for setting in [
            "enable_indexscan",
            "enable_bitmapscan",
            "enable_hashjoin",
            "enable_mergejoin",
        ] {
            for sql in PEEKS {
                let answer = client.query(sql);
                check_own(sql, &answer);
                let error = answer.expect_err(sql);
                let told = format!("{} {}", error.message, error.detail);
                assert!(told.contains("own"), "{sql}\n{told}");
            }
            client.run(&format!("SET {setting} = off"));
        }
        drop(databases);
    }
}

/// Statements of the list, one thing in them changed or several.
fn mutated(random: &mut Random, all: &[&str]) -> String {
    let mut sql = (*random.choose(all)).to_owned();
    for _ in 0..=random.below(3) {
        let other = *random.choose(all);
        let own = "tenant_id = 42";
        sql = match random.below(16) {
            0 => sql.replacen("42", "43", 1),
            1 => sql.replace("42", "43"),
            2 => sql.replacen(own, "tenant_id = 42 OR true", 1),
            3 => sql.replacen(own, "tenant_id <> 43", 1),
            4 => sql.replacen(own, "true", 1),
            5 => sql.replacen(&format!("{own} AND "), "", 1),
            6 => sql.replacen("WHERE ", "WHERE NOT ", 1),
            7 => sql.replacen("WHERE ", "WHERE true OR ", 1),
            8 => sql.replacen(own, "tenant_id IN (42, 43)", 1),
            9 => sql.replacen(" AND ", " OR ", 1),
            10 => sql.replacen("o.", "i.", 1),
            11 => sql.replacen(
                "JOIN",
                ["LEFT JOIN", "RIGHT JOIN", "FULL JOIN"][random.below(3)],
                1,
            ),
            12 => format!("{sql} UNION ALL {other}"),
            13 => sql.replacen(own, "tenant_id = tenant_id", 1),
            14 => {
                // A word that is left out.
                let words: Vec<&str> = sql.split(' ').collect();
                let gone = random.below(words.len());
                let kept = words.iter().enumerate().filter(|(at, _)| *at != gone);
                kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
            }
            _ => {
                // A word of another statement in place of one.
                let mut words: Vec<&str> = sql.split(' ').collect();
                let others: Vec<&str> = other.split(' ').collect();
                let at = random.below(words.len());
                words[at] = *random.choose(&others);
                words.join(" ")
            }
        };
    }
    sql
}

#[test]
fn mutations_of_allowed_statements_show_nothing() {
    let cases: usize =
        std::env::var("CASES").map_or(2_000, |cases| cases.parse().expect("CASES is a number"));
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let all: Vec<&str> = lines(ALLOWED)
        .filter(|sql| !sql.starts_with("COPY"))
        .collect();
    for shards in [1, SHARDS] {
        let (databases, herd) = herd(shards);
        let before = others(&databases);
        let mut client = tenant(&herd);
        let (mut answered, mut refused) = (0, 0);
        for _ in 0..cases {
            let sql = mutated(&mut random, &all);
            let what = format!("SEED={} {shards} shards: {sql}", random.seed);
            let answer = match random.below(3) {
                0 => client.query(&sql),
                1 => client.query_values(&sql, &[], &[], &[]),
                _ => {
                    let value = *random.choose(&["42", "43", "41"]);
                    let with = sql.replacen("tenant_id = 42", "tenant_id = $1", 1);
                    if with == sql {
                        client.query(&sql)
                    } else {
                        client.query_with(&with, &[Some(value)])
                    }
                }
            };
            check_own(&what, &answer);
            match answer {
                Ok(_) => answered += 1,
                Err(error) => {
                    assert!(
                        !error.code.is_empty() && error.code != "XX000",
                        "{what}\n{error:?}"
                    );
                    refused += usize::from(error.code == REFUSED);
                }
            }
            if client.status != 'I' {
                client.run("ROLLBACK");
            }
        }
        println!("{shards} shards: {answered} answered, {refused} refused for the tenant");
        assert!(cases < 200 || answered > cases / 20 && refused > cases / 5);
        assert_eq!(others(&databases), before, "SEED={}", random.seed);
    }
}
