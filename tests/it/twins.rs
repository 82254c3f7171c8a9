//! Twins have the home shard's schema without what would refuse rows, and follow it.

use std::path::Path;
use std::sync::Arc;
use std::thread::spawn;
use std::time::Duration;

use pgherd::config::Config;
use pgherd::config::load::{Sources, parse};
use pgherd::control::Control;
use pgherd::placement::topology::Topology;
use pgherd::session::auth::Keyring;
use pgherd::session::engine::{Shared, Snapshot};
use pgherd::tls::Tls;
use pgherd::types::oids::Way;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::postgres::Cluster;
use crate::shared::Databases;

const RICH: &str = r#"
CREATE EXTENSION pg_trgm;
CREATE EXTENSION citext;
CREATE SCHEMA "Odd ""name""; x";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE TYPE pair AS (a int, b mood);
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE customers (
    id bigint PRIMARY KEY, name text COLLATE nocase NOT NULL UNIQUE, email citext NOT NULL,
    mood mood NOT NULL DEFAULT 'ok', n small, p pair, CHECK (id > 0),
    lowered text GENERATED ALWAYS AS (lower(email::text)) STORED NOT NULL);
CREATE INDEX ON customers USING gin (name gin_trgm_ops);
CREATE UNIQUE INDEX ON customers (lower(email::text));
ALTER TABLE customers REPLICA IDENTITY USING INDEX customers_name_key;
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY, customer_id bigint NOT NULL REFERENCES customers,
    at timestamptz NOT NULL DEFAULT now(), number serial NOT NULL,
    total numeric(12, 2) NOT NULL CHECK (total >= 0),
    PRIMARY KEY (customer_id, id) INCLUDE (total), EXCLUDE USING btree (number WITH =));
CREATE VIEW reads_identity AS SELECT last_value FROM orders_id_seq;
CREATE TABLE parted (
    k int NOT NULL, d date NOT NULL, v text NOT NULL DEFAULT 'x',
    g int GENERATED ALWAYS AS (k * 2) STORED, PRIMARY KEY (k, d), CHECK (k > 0)) PARTITION BY RANGE (d);
CREATE TABLE parted_1 PARTITION OF parted (CHECK (k < 10))
    FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY LIST (k);
CREATE TABLE parted_1_1 PARTITION OF parted_1 DEFAULT;
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE UNIQUE INDEX ON parted (d, k, v);
ALTER TABLE parted ADD FOREIGN KEY (k) REFERENCES customers (id);
CREATE TABLE refers (id int PRIMARY KEY, k int, d date, FOREIGN KEY (k, d) REFERENCES parted);
CREATE TABLE grown (id int NOT NULL, twice int GENERATED ALWAYS AS (id * 2) STORED);
CREATE TABLE grown_1 (a int) INHERITS (grown);
CREATE TABLE grown_2 (b int) INHERITS (grown_1);
CREATE TABLE base (id int NOT NULL, c int NOT NULL CHECK (c > 0), other int NOT NULL);
CREATE TABLE child (e int NOT NULL, PRIMARY KEY (id)) INHERITS (base);
CREATE TABLE child_too (c int NOT NULL CHECK (c > 0)) INHERITS (base);
CREATE TABLE "Odd ""name""; x"."Odd Table" ("Odd Column" int PRIMARY KEY, "select" text NOT NULL);
CREATE VIEW spend AS
    SELECT c.*, sum(o.total) AS total FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.id;
CREATE VIEW spend_more AS SELECT id, name FROM spend WHERE total > 10;
CREATE MATERIALIZED VIEW kept AS SELECT id, name, total::numeric(12, 2) AS total FROM spend;
CREATE UNIQUE INDEX ON kept (id);
CREATE VIEW over_kept AS SELECT id FROM kept;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2;
CREATE FUNCTION body(int) RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC
    SELECT CASE WHEN true THEN 1 END; SELECT count(*) FROM customers WHERE id > $1; END;
CREATE FUNCTION plus(pair, pair) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$
BEGIN
    -- CREATE MATERIALIZED VIEW nothing
    RETURN ($1).a + ($2).a; /* ; */
END $f$;
CREATE FUNCTION says() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '
CREATE MATERIALIZED VIEW x;
\restrict y
ALTER DEFAULT PRIVILEGES;'::text $$;
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = plus);
CREATE AGGREGATE twofold (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE CAST (pair AS text) WITH INOUT;
CREATE CAST (int4 AS date) WITHOUT FUNCTION;
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
CREATE TRIGGER t BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION noted();
CREATE TRIGGER u AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION noted();
CREATE CONSTRAINT TRIGGER v AFTER INSERT ON orders DEFERRABLE FOR EACH ROW EXECUTE FUNCTION noted();
CREATE RULE r AS ON DELETE TO orders DO INSTEAD NOTHING;
CREATE RULE s AS ON INSERT TO refers DO ALSO (SELECT 1; SELECT 2);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE orders FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON orders USING (total > 0);
GRANT SELECT ON spend TO pg_monitor;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO pg_monitor;
REVOKE EXECUTE ON FUNCTION twice(int) FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE PUBLICATION pub FOR ALL TABLES;
CREATE FUNCTION ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';
CREATE EVENT TRIGGER et ON ddl_command_start WHEN TAG IN ('DROP AGGREGATE') EXECUTE FUNCTION ev();
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE abroad (t text NOT NULL) SERVER files OPTIONS (filename '/etc/hostname');
"#;

/// What must not be left in a twin, each with a query that finds it.
const LEFT: [(&str, &str); 9] = [
    (
        "constraints",
        "SELECT conrelid::regclass, conname FROM pg_constraint
         WHERE contype <> 'p' AND conrelid >= 16384 AND conrelid <> 'pgherd.twin'::regclass",
    ),
    (
        "columns",
        "SELECT c.oid::regclass, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p') AND c.relname <> 'twin' AND a.attnum > 0
           AND (a.attgenerated <> '' OR a.atthasdef OR a.attnotnull AND NOT EXISTS (
                    SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary
                                             AND a.attnum = ANY (x.indkey)))",
    ),
    (
        "indexes",
        "SELECT indexrelid::regclass FROM pg_index JOIN pg_class c ON c.oid = indrelid
         WHERE indrelid >= 16384 AND NOT indisprimary AND c.relkind <> 't'",
    ),
    (
        "tables",
        "SELECT oid::regclass FROM pg_class
         WHERE oid >= 16384 AND (relkind = 'm' OR relrowsecurity OR relforcerowsecurity
               OR relkind = 'r' AND relpersistence <> 'u' AND relname <> 'twin')",
    ),
    ("triggers", "SELECT tgname FROM pg_trigger"),
    (
        "rules",
        "SELECT rulename FROM pg_rewrite WHERE oid >= 16384 AND rulename <> '_RETURN'",
    ),
    ("policies", "SELECT polname FROM pg_policy"),
    ("event triggers", "SELECT evtname FROM pg_event_trigger"),
    ("publications", "SELECT pubname FROM pg_publication"),
];

fn options(twins: usize) -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("customers", "id", "bigint", "{modulo: all}")
        .twins(twins);
    options
}

/// Two shards with a schema, run as a superuser, and their twins.
fn start(twins: usize, sql: &str) -> (Databases, Herd) {
    let databases = Databases::create(2);
    for port in databases.shard_ports.clone() {
        Client::connect(port, "postgres", &databases.name).run(sql);
    }
    let herd = Herd::start(&databases, &options(twins));
    (databases, herd)
}

fn dbname(databases: &Databases, number: usize) -> String {
    format!("pgherd_herd_{}_twin_{number}", databases.name)
}

/// A connection to a twin past the proxy, as a superuser.
fn twin(databases: &Databases, number: usize) -> Client {
    let name = dbname(databases, number);
    Client::connect(databases.shard_ports[0], "postgres", &name)
}

fn home(databases: &Databases) -> Client {
    Client::connect(databases.shard_ports[0], "postgres", &databases.name)
}

const PLAIN: &str = "CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL);
                     ALTER TABLE customers OWNER TO app";

#[test]
fn a_twin_is_the_schema_without_what_refuses_rows() {
    let (databases, _herd) = start(2, RICH);
    for number in [1, 2] {
        let mut twin = twin(&databases, number);
        for (what, sql) in LEFT {
            assert_eq!(twin.rows(sql), Vec::<Vec<Option<String>>>::new(), "{what}");
        }
        let mut home = home(&databases);
        let mut same = |sql: &str| assert_eq!(twin.rows(sql), home.rows(sql), "{sql}");
        for sql in [
            "SELECT c.oid::regclass, conname, pg_get_constraintdef(k.oid) FROM pg_constraint k
             JOIN pg_class c ON c.oid = conrelid WHERE contype = 'p' AND c.oid >= 16384 AND c.relnamespace::regnamespace::text <> 'pgherd' ORDER BY c.oid::regclass::text, 2",
            "SELECT c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attcollation::regcollation
             FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0
               AND c.relnamespace <> 'pgherd'::regnamespace AND NOT a.attisdropped
             ORDER BY c.relname, a.attnum",
            "SELECT oid::regclass, pg_get_viewdef(oid), relacl FROM pg_class
             WHERE oid >= 16384 AND relkind = 'v' ORDER BY relname",
            "SELECT pg_get_functiondef(p.oid), proacl, proowner::regrole FROM pg_proc p
             WHERE p.oid >= 16384 AND prokind <> 'a' AND pronamespace <> 'pgherd'::regnamespace
             ORDER BY oid::regprocedure::text COLLATE \"C\"",
            "SELECT oid::regtype, typtype, typowner::regrole FROM pg_type WHERE oid >= 16384 AND typtype IN ('e', 'd')
             ORDER BY typname",
            "SELECT enumlabel FROM pg_enum ORDER BY enumsortorder",
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contypid <> 0 ORDER BY 1",
            "SELECT extname, extversion FROM pg_extension ORDER BY 1",
            "SELECT nspname, nspowner::regrole, nspacl FROM pg_namespace
             WHERE nspname !~ '^pg_' AND nspname <> 'pgherd' ORDER BY 1",
            "SELECT castsource::regtype, casttarget::regtype, castmethod FROM pg_cast WHERE oid >= 16384
             ORDER BY castsource::regtype::text, casttarget::regtype::text",
            "SELECT oprname FROM pg_operator WHERE oid >= 16384 ORDER BY 1",
            "SELECT c.oid::regclass, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c WHERE relispartition AND relkind IN ('r', 'p')
             ORDER BY c.relname",
            "SELECT encoding, datcollate, datctype, datdba::regrole, datconnlimit FROM pg_database
             WHERE datname = current_database()",
            "SELECT twice(4), says(), (ROW (1, 'ok')::pair === ROW (2, 'ok')::pair), twofold(1)",
        ] {
            same(sql);
        }
    }
}

#[test]
fn every_role_fills_and_reads_a_twin() {
    let (databases, _herd) = start(1, RICH);
    let mut twin = twin(&databases, 1);
    // It may use the schema, and has no right on a table of its own.
    twin.run("SET ROLE pg_monitor");
    twin.run("BEGIN");
    twin.run("SELECT pgherd.truncate(ARRAY['customers', 'orders', 'parted', 'kept']::regclass[])");
    let row = |text: &str| vec![text.as_bytes().to_vec()];
    twin.copy_in(
        "COPY customers (id, name) FROM STDIN",
        &row("1\tone\n2\tone\n-3\t\\N\n"),
    )
    .expect("filled");
    twin.copy_in(
        "COPY orders FROM STDIN",
        &row("1\t1\t2024-01-01\t7\t20\n2\t1\t2024-01-01\t7\t-1\n"),
    )
    .expect("filled");
    twin.copy_in(
        "COPY parted (k, d, g) FROM STDIN",
        &row("-1\t2024-02-02\t77\n"),
    )
    .expect("filled");
    twin.copy_in("COPY kept (id) FROM STDIN", &row("5\n"))
        .expect("filled");
    twin.run("SELECT pgherd.analyze('customers'), pgherd.analyze('parted')");
    twin.run("SET TRANSACTION READ ONLY");
    let one = |text: &str| vec![vec![Some(text.to_owned())]];
    assert_eq!(twin.rows("SELECT total FROM spend"), one("19.00"));
    assert_eq!(twin.rows("SELECT g FROM parted"), one("77"));
    assert_eq!(
        twin.rows("SELECT count(*) FROM customers WHERE name = 'ONE'"),
        one("2")
    );
    // Views and functions are whose they are at home.
    assert_eq!(twin.fails("SELECT * FROM over_kept").code, "42501");
    twin.run("ROLLBACK; BEGIN");
    assert_eq!(twin.fails("SELECT twice(1)").code, "42501");
    twin.run("ROLLBACK");
    for refused in ["pgherd.twin", "abroad", "spend", "pg_class"] {
        let error = twin.fails(&format!(
            "SELECT pgherd.truncate(ARRAY['{refused}']::regclass[])"
        ));
        assert!(
            ["42809", "42501"].contains(&error.code.as_str()),
            "{refused}: {error:?}"
        );
    }
    assert_eq!(twin.fails("DELETE FROM pgherd.twin").code, "42501");
    let mut other = self::twin(&databases, 1);
    let mark = twin.value("SELECT mark FROM pgherd.twin");
    twin.run("BEGIN");
    assert_eq!(twin.value("SELECT pgherd.hold()"), mark);
    assert_eq!(
        other.rows("SELECT pgherd.hold()"),
        [[None]],
        "another holds it"
    );
    twin.run("ROLLBACK");
    assert_eq!(other.value("SELECT pgherd.hold()"), mark);
    assert_eq!(twin.rows("SELECT count(*) FROM customers"), one("0"));
}

#[test]
fn setting_up_again_changes_nothing() {
    let (databases, herd) = start(2, PLAIN);
    let made = || -> Vec<String> {
        [1, 2]
            .map(|number| {
                twin(&databases, number).value("SELECT made::text || xmin FROM pgherd.twin")
            })
            .into()
    };
    let before = made();
    let (text, done) = herd.command("setup");
    assert!(done, "{text}");
    assert_eq!(text.matches("nothing to do for twin").count(), 2, "{text}");
    assert_eq!(made(), before);
    assert!(
        herd.command("check")
            .0
            .lines()
            .all(|line| !line.contains("twin"))
    );
    // What changes no schema is no reason to make it again.
    home(&databases).run("TRUNCATE customers");
    let mark = |number| twin(&databases, number).value("SELECT mark FROM pgherd.twin");
    let old = mark(1);
    eventually("the mark is followed", || mark(1) != old && mark(2) != old);
    let time = |number| twin(&databases, number).value("SELECT made FROM pgherd.twin");
    assert!(before[0].starts_with(&time(1)) && before[1].starts_with(&time(2)));
}

#[test]
fn two_set_up_at_once() {
    let (databases, herd) = start(1, PLAIN);
    herd.rewrite(&options(3));
    let config = herd.config();
    let both = [0, 1].map(|_| {
        let config = config.clone();
        spawn(move || crate::herd::command(&config, "setup"))
    });
    for thread in both {
        let (text, done) = thread.join().expect("it ends");
        assert!(done, "{text}");
    }
    for number in 1..=3 {
        assert_eq!(
            twin(&databases, number).value("SELECT count(*) FROM pgherd.twin"),
            "1"
        );
        assert_eq!(
            twin(&databases, number).value("SELECT count(*) FROM customers"),
            "0"
        );
    }
}

#[test]
fn changes_of_the_schema_reach_the_twins() {
    let (databases, herd) = start(2, PLAIN);
    let mut client = herd.connect();
    let reach = |what: &str, query: &str, wanted: &str| {
        eventually(what, || {
            [1, 2].iter().all(|&number| {
                twin(&databases, number)
                    .query(query)
                    .is_ok_and(|answer| answer.rows == [[Some(wanted.to_owned())]])
            })
        });
    };
    let changes = [
        (
            "ALTER TABLE customers ADD COLUMN age int NOT NULL DEFAULT 7",
            "SELECT count(age) FROM customers",
            "0",
        ),
        ("CREATE TYPE mood AS ENUM ('ok')", "SELECT 'ok'::mood", "ok"),
        (
            "ALTER TYPE mood ADD VALUE 'sad'",
            "SELECT 'sad'::mood",
            "sad",
        ),
        (
            "CREATE DOMAIN tiny AS int CHECK (VALUE < 5)",
            "SELECT 4::tiny",
            "4",
        ),
        (
            "ALTER DOMAIN tiny DROP CONSTRAINT tiny_check",
            "SELECT 9::tiny",
            "9",
        ),
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
            "SELECT f()",
            "1",
        ),
        (
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2'",
            "SELECT f()",
            "2",
        ),
        ("CREATE VIEW v AS SELECT 1 AS n", "SELECT n FROM v", "1"),
        (
            "CREATE OR REPLACE VIEW v AS SELECT 2 AS n",
            "SELECT n FROM v",
            "2",
        ),
        (
            "CREATE TABLE gone (a int)",
            "SELECT count(*) FROM gone",
            "0",
        ),
        ("DROP TABLE gone", "SELECT to_regclass('gone') IS NULL", "t"),
    ];
    for (sql, query, wanted) in changes {
        client.run(sql);
        reach(sql, query, wanted);
    }
    for shard in [0, 1] {
        databases
            .shard(shard)
            .run("CREATE VIEW past AS SELECT 5 AS n; DROP VIEW v");
    }
    reach("past the proxy", "SELECT n FROM past", "5");
    reach("past the proxy", "SELECT to_regclass('v') IS NULL", "t");
    home(&databases).run(&format!(
        "ALTER DATABASE {0} SET search_path TO \"Odd, name\", public;
         ALTER DATABASE {0} SET default_transaction_read_only = on;
         ALTER ROLE app IN DATABASE {0} SET work_mem = '5MB'; ALTER DATABASE {0} CONNECTION LIMIT 77",
        databases.name
    ));
    let settings = "SELECT string_agg(c, ';' ORDER BY c) || (
                        SELECT datconnlimit FROM pg_database WHERE datname = current_database())
                    FROM pg_db_role_setting, unnest(setconfig) c
                    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";
    reach(
        "settings",
        settings,
        "default_transaction_read_only=on;search_path=\"Odd, name\", public;work_mem=5MB77",
    );
    home(&databases).run(&format!(
        "BEGIN READ WRITE; ALTER DATABASE {0} RESET ALL; ALTER ROLE app IN DATABASE {0} RESET ALL; COMMIT",
        databases.name
    ));
    reach(
        "no settings",
        &format!("SELECT COALESCE(({settings}), '-')"),
        "-",
    );
}

#[test]
fn a_twin_that_is_gone_or_used_is_told_of() {
    let (databases, herd) = start(2, PLAIN);
    let states = || herd.console().run("SHOW TWINS").column("state");
    eventually("both are free", || states() == ["free", "free"]);
    let shown = herd.console().run("SHOW TWINS");
    assert_eq!(
        shown.column("dbname"),
        [dbname(&databases, 1), dbname(&databases, 2)]
    );
    home(&databases).run(&format!(
        "DROP DATABASE {} WITH (FORCE)",
        dbname(&databases, 2)
    ));
    let (text, done) = herd.command("check");
    assert!(
        done && text.contains("twins are missing") && text.contains(": \"twin_2\""),
        "{text}"
    );
    eventually("it is missing", || states() == ["free", "missing"]);
    // One that is in use is made again when it is free.
    let mut user = twin(&databases, 1);
    user.run("BEGIN; SELECT pgherd.hold(); SELECT * FROM customers");
    herd.connect()
        .run("ALTER TABLE customers ADD COLUMN late int");
    eventually("it is behind", || states() == ["behind", "missing"]);
    assert_eq!(
        user.rows("SELECT count(*) FROM customers WHERE name = ''"),
        [[Some("0".to_owned())]]
    );
    user.run("COMMIT");
    let (text, done) = herd.command("setup");
    assert!(done && text.contains("created twin \"twin_2\""), "{text}");
    eventually("both are free again", || states() == ["free", "free"]);
    for number in [1, 2] {
        twin(&databases, number).run("SELECT late FROM customers");
    }
}

#[test]
fn a_gather_server_of_its_own_needs_the_roles() {
    let databases = Databases::create(2);
    let role = format!("owner_of_{}", databases.name);
    for port in databases.shard_ports.clone() {
        let mut client = Client::connect(port, "postgres", &databases.name);
        client.run(&format!("CREATE ROLE {role}"));
        client.run(&format!("{PLAIN}; GRANT SELECT ON customers TO {role}"));
    }
    let mut options = options(1);
    let port = databases.reference_port;
    options.set(&format!(
        "gather: {{server: \"host=127.0.0.1 port={port}\", twins: 2}}"
    ));
    let mut away = Client::connect(port, "postgres", "postgres");
    let mut near = options.clone();
    near.set("gather: {twins: 1}");
    let herd = Herd::start(&databases, &near);
    herd.rewrite(&options);
    let (text, done) = herd.command("setup");
    assert!(!done, "{text}");
    let lacking = format!("its server lacks the roles \"{role}\"");
    assert_eq!(text.matches(&lacking).count(), 2, "{text}");
    away.run(&format!("CREATE ROLE {role}"));
    let (text, done) = herd.command("setup");
    assert!(done, "{text}");
    herd.console().run("RELOAD");
    eventually("they are there", || {
        herd.console().run("SHOW TWINS").column("state") == ["free", "free"]
    });
    let mut twin = Client::connect(port, "postgres", &dbname(&databases, 2));
    twin.run("SELECT name FROM customers");
    drop(twin);
    let ports: Vec<u16> = databases
        .shard_ports
        .iter()
        .copied()
        .chain([port])
        .collect();
    drop(herd);
    drop(databases);
    for port in ports {
        Client::connect(port, "postgres", "postgres").run(&format!("DROP ROLE {role}"));
    }
}

#[test]
fn two_proxies_follow_together() {
    let (databases, first) = start(2, PLAIN);
    let second = Herd::start(&databases, &options(2));
    for (number, herd) in [&first, &second, &first].into_iter().enumerate() {
        herd.connect().run(&format!(
            "ALTER TABLE customers ADD COLUMN more_{number} int"
        ));
        for twin_number in [1, 2] {
            eventually("it follows", || {
                let sql = format!("SELECT more_{number} FROM customers");
                twin(&databases, twin_number).query(&sql).is_ok()
            });
        }
    }
    for herd in [&first, &second] {
        eventually("both know", || {
            herd.console().run("SHOW TWINS").column("state") == ["free", "free"]
        });
    }
}

#[test]
fn a_gather_server_that_crashes_comes_back() {
    let mut cluster = Cluster::start("");
    let databases = Databases::create(2);
    databases.run_everywhere("CREATE TABLE customers (id bigint PRIMARY KEY)");
    let mut options = options(1);
    options.set(&format!(
        "gather: {{server: \"host=127.0.0.1 port={}\", twins: 1}}",
        cluster.port
    ));
    let herd = Herd::start(&databases, &options);
    let state = || herd.console().run("SHOW TWINS").column("state");
    eventually("it is free", || state() == ["free"]);
    let name = dbname(&databases, 1);
    cluster
        .connect(&name)
        .run("INSERT INTO customers VALUES (1)");
    cluster.crash();
    // A look is due.
    herd.connect().run("CREATE TABLE one (a int)");
    eventually("it is gone", || state() != ["free"]);
    cluster.restart();
    eventually("it is free again", || state() == ["free"]);
    let mut twin = cluster.connect(&name);
    assert_eq!(
        twin.value("SELECT count(*) FROM customers"),
        "0",
        "it kept no row"
    );
    twin.run("SELECT a FROM one");
}

#[test]
fn a_twin_of_another_herd_is_left_alone() {
    let (databases, herd) = start(1, PLAIN);
    let marks = "SELECT mark, made FROM pgherd.twin";
    let before = twin(&databases, 1).rows(marks);
    // The same names, and the other shard as home.
    let text = std::fs::read_to_string(herd.config()).expect("a configuration");
    herd.rewrite_text(&text.replace("home: shard_0", "home: shard_1").replace(
        "gather: {twins: 1}",
        &format!(
            "gather: {{twins: 1, server: \"host=127.0.0.1 port={}\"}}",
            databases.shard_ports[0]
        ),
    ));
    let (text, done) = herd.command("setup");
    assert!(
        !done && text.contains("it is the twin of another home database"),
        "{text}"
    );
    assert_eq!(twin(&databases, 1).rows(marks), before);
}

#[test]
fn a_role_that_may_not_create_them_is_told_so() {
    let databases = Databases::create(2);
    databases.run_everywhere("CREATE TABLE customers (id bigint PRIMARY KEY)");
    let mut options = Options::new("transaction");
    options.sharded("customers", "id", "bigint", "{modulo: all}");
    let herd = Herd::start(&databases, &options);
    let (text, done) = herd.command("setup");
    assert!(done, "{text}");
    assert!(
        text.contains("warning") && text.contains("twin \"twin_1\""),
        "{text}"
    );
    assert!(text.contains("CREATEDB"), "{text}");
    // A schema that it may not read.
    home(&databases).run("CREATE TABLE secret (a int)");
    let (text, done) = herd.command("setup");
    let said = "pg_dump could not read the home shard's schema";
    assert!(!done && text.contains(said), "{text}");
    assert!(
        text.contains("permission denied for table secret"),
        "{text}"
    );
}

fn read(path: &Path) -> Config {
    let text = std::fs::read_to_string(path).expect("a configuration");
    let sources = Sources {
        env: &|_| None,
        read: &|_| Err("no file".into()),
        glob: &|_| Ok(Vec::new()),
    };
    parse(&text, "pgherd.yaml", &sources).expect("valid").config
}

/// What the engines of a proxy share, under a configuration.
fn shared(path: &Path) -> Arc<Shared> {
    let config = Arc::new(read(path));
    let tls = Tls::load(&config.tls, &config.server_tls).expect("no files");
    let databases = config.databases.iter();
    let topologies = databases.map(|(name, database)| {
        let topology = Topology::new(database).expect("a topology");
        (name.clone(), Arc::new(topology))
    });
    let snapshot = Snapshot {
        topologies: topologies.collect(),
        control: Arc::new(Control::new(&config, &tls.connector)),
        tls: Arc::new(tls),
        generation: 1,
        config,
    };
    let keyring = Keyring::new().expect("random numbers");
    Shared::new(snapshot, keyring, tokio::runtime::Handle::current())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_of_types_are_known() {
    let sql = format!("CREATE TYPE first AS ENUM ('a'); {PLAIN}; CREATE TYPE mood AS ENUM ('ok')");
    let (databases, herd) = start(2, &sql);
    let shared = shared(&herd.config());
    let name = databases.name.clone();
    shared
        .follow_twins(&name, true)
        .await
        .expect("they are there");
    shared
        .twins_are_current(&name)
        .await
        .expect("they are current");
    let oid = |client: &mut Client, kind: &str| -> u32 {
        client
            .value(&format!("SELECT '{kind}'::regtype::oid"))
            .parse()
            .expect("a number")
    };
    let check = |kind: &str| {
        let at_home = oid(&mut home(&databases), kind);
        for number in [1, 2] {
            let oids = shared.database(&name).oids_of_twins.load_full();
            let mapping = oids.of(&format!("twin_{number}"), 1).expect("it was read");
            let own = oid(&mut twin(&databases, number), kind);
            assert_eq!(mapping.type_oid(at_home, Way::ToShard), Ok(own));
            assert_eq!(mapping.type_oid(own, Way::ToHome), Ok(at_home));
        }
    };
    check("mood");
    // DDL through this proxy: what comes after it waits for the twins.
    for shard in [0, 1] {
        databases.shard(shard).run("CREATE TYPE later AS (a mood)");
    }
    shared.database(&name).schema_changed();
    let waiting = tokio::spawn({
        let (shared, name) = (Arc::clone(&shared), name.clone());
        async move { shared.twins_are_current(&name).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "they have not followed yet");
    shared
        .follow_twins(&name, false)
        .await
        .expect("they follow");
    waiting.await.expect("it ends").expect("they are current");
    check("mood");
    check("later");
    let twins = Arc::clone(&shared.database(&name).twins);
    let turn = twins
        .take("app", Duration::from_secs(1))
        .await
        .expect("a turn");
    let mut held = twin(&databases, turn.index() + 1);
    assert_eq!(held.value("SELECT pgherd.hold()"), turn.mark());
    drop(held);
    drop(turn);
    for number in [1, 2] {
        home(&databases).run(&format!(
            "DROP DATABASE {} WITH (FORCE)",
            dbname(&databases, number)
        ));
    }
    shared.follow_twins(&name, true).await.expect("it is known");
    let fault = shared
        .twins_are_current(&name)
        .await
        .expect_err("none is there");
    assert_eq!(fault.code.as_str(), "55000");
    assert!(fault.hint.expect("a hint").contains("pgherd setup"));
}
