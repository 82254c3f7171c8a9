//! Control connections against real servers: introspection, check, setup, the look-up of passwords.

use std::sync::Arc;

use pgherd::config::load::{Sources, parse};
use pgherd::config::{Config, Secret};
use pgherd::control::{Control, Finding, Level};
use pgherd::tls::Tls;

use crate::client::Client;
use crate::postgres::Cluster;

const SHARDS: [&str; 3] = ["a", "b", "c"];

/// A server with a database a shard, and a configuration of them.
struct Herd {
    cluster: Cluster,
    config: String,
}

impl Herd {
    fn start(tables: &str) -> Herd {
        let cluster = Cluster::start("max_prepared_transactions = 10\nmax_connections = 60\n");
        let mut client = cluster.connect("postgres");
        for shard in SHARDS {
            client.run(&format!("CREATE DATABASE {shard}"));
        }
        let port = cluster.port;
        let mut shards = String::new();
        for shard in SHARDS {
            let line = format!("      {shard}: \"host=127.0.0.1 port={port} dbname={shard}\"\n");
            shards.push_str(&line);
        }
        let config = format!(
            "listen: [\"127.0.0.1:6432\"]
default_pool_size: 5
gather: {{twins: 1}}
users:
  - {{name: app, password: app-secret}}
databases:
  shop:
    home: a
    control_user: postgres
    shards:
{shards}    distributions:
      customers: {{key: bigint, place: {{jump: all}}}}
    tables:
{tables}"
        );
        Herd { cluster, config }
    }

    fn everywhere(&self, sql: &str) {
        for shard in SHARDS {
            self.cluster.connect(shard).run(sql);
        }
    }

    fn connect(&self, shard: &str) -> Client {
        self.cluster.connect(shard)
    }

    fn control(&self) -> Control {
        control(&self.config)
    }
}

fn read(text: &str) -> Config {
    let sources = Sources {
        env: &|_| None,
        read: &|_| Err("no file".into()),
        glob: &|_| Ok(Vec::new()),
    };
    let parsed = parse(text, "pgherd.yaml", &sources);
    parsed.expect("a valid configuration").config
}

fn control(text: &str) -> Control {
    let config = Arc::new(read(text));
    let tls = Tls::load(&config.tls, &config.server_tls).expect("no files");
    Control::new(&config, &tls.connector)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(future)
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            let shard = finding.shard.as_deref().unwrap_or("-");
            format!("{} {shard} {}", finding.level, finding.what)
        })
        .collect();
    lines.sort();
    lines
}

/// What is found where setup has not run.
const MISSING: &str =
    "warning - twins are missing, and queries that need them are refused: \"twin_1\"";

const TABLES: &str = "      customers: {distribution: customers, key: id}
      orders: {distribution: customers, key: customer_id}
      countries: reference
";

const SCHEMA: &str = "
CREATE TABLE countries (code text PRIMARY KEY);
CREATE TABLE customers (id bigint PRIMARY KEY, country text REFERENCES countries);
CREATE TABLE orders (customer_id bigint REFERENCES customers, order_id bigint, total numeric,
                     doubled numeric GENERATED ALWAYS AS (total * 2) STORED,
                     PRIMARY KEY (customer_id, order_id));
";

#[test]
fn a_sound_herd_has_no_findings() {
    let herd = Herd::start(TABLES);
    herd.everywhere(SCHEMA);
    herd.connect("a").run("CREATE TABLE options (name text)");
    let control = herd.control();
    block_on(async {
        control.setup("shop").await.expect("a database");
        let findings = control.check("shop").await.expect("a database");
        assert_eq!(lines(&findings), [""; 0]);
        for (shard, version) in control.server_versions("shop").await {
            assert!(version.expect("a version") >= 130_000, "{shard}");
        }
        control.ping("shop", "b").await.expect("an answer");
        assert!(control.ping("shop", "x").await.is_err());
        assert!(control.check("shep").await.is_err());

        let catalog = control.introspect("shop").await.expect("a catalog");
        let path = ["public".to_owned()];
        let (schema, orders) = catalog.resolve(&path, None, "orders").expect("the table");
        let names = |generated: bool| -> Vec<&str> {
            let columns = orders.columns.iter();
            let wanted = columns.filter(|column| generated || !column.generated);
            wanted.map(|column| column.name.as_str()).collect()
        };
        assert_eq!(schema, "public");
        assert_eq!(names(true), ["customer_id", "order_id", "total", "doubled"]);
        assert_eq!(names(false), ["customer_id", "order_id", "total"]);
        assert_eq!(orders.columns[0].oid, pgherd::types::oid::INT8);
        let (schema, _) = catalog
            .resolve(&path, None, "pg_class")
            .expect("a catalog table");
        assert_eq!(schema, "pg_catalog");
        let next = control.introspect("shop").await.expect("a catalog");
        assert!(next.epoch > catalog.epoch);
    });
}

#[test]
fn setup_creates_the_schema_once() {
    let herd = Herd::start(TABLES);
    let control = herd.control();
    block_on(async {
        let first = control.setup("shop").await.expect("a database");
        let mut created = vec!["note - created twin \"twin_1\"".to_owned()];
        created.extend(SHARDS.iter().flat_map(|shard| {
            let made = ["schema \"pgherd\"", "the table of decisions"];
            made.map(|what| format!("note {shard} created {what}"))
        }));
        created.push(format!("note {} created the table of who waits", SHARDS[0]));
        created.sort();
        assert_eq!(lines(&first), created);
        let second = control.setup("shop").await.expect("a database");
        let mut there = vec!["note - nothing to do for twin \"twin_1\"".to_owned()];
        there.extend(SHARDS.iter().flat_map(|shard| {
            let kept = ["schema \"pgherd\"", "the table of decisions"];
            kept.map(|what| format!("note {shard} {what} is there already"))
        }));
        there.push(format!(
            "note {} the table of who waits is there already",
            SHARDS[0]
        ));
        there.sort();
        assert_eq!(lines(&second), there);
    });
}

#[test]
fn what_does_not_hold_across_shards_is_found() {
    let tables = "      customers: {distribution: customers, key: id}
      orders: {distribution: customers, key: customer_id}
      carts: {distribution: customers, key: customer_id}
      padded: {distribution: customers, key: id}
      absent: {distribution: customers, key: id}
";
    let herd = Herd::start(tables);
    herd.everywhere(
        "CREATE TABLE customers (id serial PRIMARY KEY, email text UNIQUE);
         CREATE TABLE orders (order_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                              customer_id bigint, cart bigint);
         CREATE TABLE carts (cart bigint, customer_id numeric);
         CREATE UNIQUE INDEX carts_cart ON carts (cart, lower(customer_id::text));
         ALTER TABLE carts ADD CONSTRAINT own UNIQUE (cart);
         ALTER TABLE orders ADD CONSTRAINT to_cart FOREIGN KEY (cart) REFERENCES carts (cart);
         CREATE DOMAIN small AS bigint CHECK (VALUE < 1000);
         CREATE TABLE padded (id small);",
    );
    herd.connect("b")
        .run("ALTER TABLE carts ADD extra int; DROP TABLE padded");
    herd.connect("c")
        .run("ALTER TABLE customers ALTER email SET NOT NULL; DROP INDEX carts_cart");
    let expected = [
        "error - \"carts_cart\" of table \"public.carts\" does not contain the key (customer_id), so it holds on each shard only",
        "error - \"customers_email_key\" of table \"public.customers\" does not contain the key (id), so it holds on each shard only",
        "error - \"orders_pkey\" of table \"public.orders\" does not contain the key (customer_id), so it holds on each shard only",
        "error - \"own\" of table \"public.carts\" does not contain the key (customer_id), so it holds on each shard only",
        "error - foreign key \"to_cart\" of table \"public.orders\" to \"public.carts\" leaves the shard",
        "error - key \"customer_id\" of table \"public.carts\": its type is numeric, that of the distribution bigint",
        "error - key \"id\" of table \"public.padded\": its type \"public.small\" is a domain, which may change the value",
        "error b table \"public.carts\": its columns are (cart, customer_id, extra), but (cart, customer_id) on the home shard",
        "error b table \"public.padded\" of the home shard is missing",
        "error c table \"public.carts\": the index \"CREATE UNIQUE INDEX carts_cart ON public.carts USING btree (cart, lower((customer_id)::text))\" of the home shard is missing",
        "error c table \"public.customers\": column \"email\" is text NOT NULL, but text on the home shard",
        "warning - column \"id\" of table \"public.customers\" takes its default from a sequence of each shard, so values repeat",
        "warning - column \"order_id\" of table \"public.orders\" takes its default from a sequence of each shard, so values repeat",
        "warning - table \"absent\" is not on the home shard",
        MISSING,
    ];
    let findings = block_on(herd.control().check("shop")).expect("a database");
    assert_eq!(lines(&findings), expected);
    let has_hint = |finding: &Finding| finding.hint.is_some();
    assert!(findings.iter().all(has_hint));

    let allowing = herd
        .config
        .replace("    home: a\n", "    home: a\n    constraints: allow\n");
    let findings = block_on(control(&allowing).check("shop")).expect("a database");
    let local = |finding: &&Finding| {
        finding.what.contains("holds on each") || finding.what.contains("leaves")
    };
    let levels: Vec<Level> = findings
        .iter()
        .filter(local)
        .map(|found| found.level)
        .collect();
    assert_eq!(levels, [Level::Warning; 5]);
}

#[test]
fn triggers_that_reach_beyond_their_shard_are_found() {
    let tables = "      customers: {distribution: customers, key: id}
      orders: {distribution: customers, key: customer_id}
      countries: reference
";
    let herd = Herd::start(tables);
    herd.everywhere(
        "CREATE TABLE customers (id bigint PRIMARY KEY);
         CREATE TABLE orders (customer_id bigint);
         CREATE TABLE countries (code text);
         CREATE TABLE log (what text);
         CREATE FUNCTION beside() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO orders VALUES (NEW.id); RETURN NULL; END $$;
         CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO log VALUES ('x'); RETURN NULL; END $$;
         CREATE FUNCTION opaque() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN EXECUTE TG_ARGV[0]; RETURN NULL; END $$;
         CREATE TRIGGER a AFTER INSERT ON customers FOR EACH ROW EXECUTE FUNCTION beside();
         CREATE TRIGGER b AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION logged();
         CREATE TRIGGER c AFTER INSERT ON countries EXECUTE FUNCTION opaque('');",
    );
    let expected = [
        "error - table \"public.countries\" runs code that reaches beyond its rows' shard: function \"opaque\" runs SQL that it makes up, so that it may touch any table",
        "error - table \"public.orders\" runs code that reaches beyond its rows' shard: it may touch single table \"log\", whose rows are elsewhere",
        MISSING,
    ];
    let findings = block_on(herd.control().check("shop")).expect("a database");
    assert_eq!(lines(&findings), expected);
}

#[test]
fn servers_that_do_not_serve_are_found() {
    let mut herd = Herd::start(TABLES);
    herd.everywhere(SCHEMA);
    let mut client = herd.connect("postgres");
    client.run("DROP DATABASE b");
    client.run("CREATE DATABASE b ENCODING 'SQL_ASCII' TEMPLATE template0");
    client.run("DROP DATABASE c");
    herd.connect("b").run(SCHEMA);
    herd.config = herd
        .config
        .replace("default_pool_size: 5", "default_pool_size: 50");
    let findings = block_on(herd.control().check("shop")).expect("a database");
    assert_eq!(
        lines(&findings),
        [
            "error b the encoding is SQL_ASCII, but UTF8 on shard \"a\"",
            "error c could not connect to shard \"c\": database \"c\" does not exist (3D000)",
            MISSING,
            "warning a the pools may open 108 connections, the server takes 57",
        ]
    );
    herd.cluster.stop("INT");
    let fault = block_on(herd.control().ping("shop", "a")).expect_err("no server");
    assert_eq!(fault.code.as_str(), "08001");
}

#[test]
fn passwords_are_looked_up() {
    let herd = Herd::start(TABLES);
    herd.connect("a").run("CREATE ROLE nobody LOGIN");
    // The clean search path keeps this from being asked.
    herd.connect("a")
        .run("CREATE VIEW public.pg_shadow AS SELECT 'x'::name usename, 'y' passwd");
    let auth = "auth: {query: \"SELECT usename, passwd FROM pg_shadow WHERE usename = $1\", user: postgres}\n";
    let config = format!(
        "{auth}{}\n  \"*\": {{server: \"host=127.0.0.1 port={}\", server_user: postgres}}\n",
        herd.config, herd.cluster.port
    );
    let control = control(&config);
    block_on(async {
        for database in ["shop", "other"] {
            let found = control
                .auth_query(database, "app_scram")
                .await
                .expect("an answer");
            let (name, secret) = found.expect("a user");
            assert_eq!(name, "app_scram");
            assert!(matches!(secret, Some(Secret::Scram(_))));
            let found = control
                .auth_query(database, "app_md5")
                .await
                .expect("an answer");
            assert!(matches!(found, Some((_, Some(Secret::Md5(_))))));
            let found = control
                .auth_query(database, "nobody")
                .await
                .expect("an answer");
            assert_eq!(found, Some(("nobody".into(), None)));
            let found = control.auth_query(database, "x").await.expect("an answer");
            assert_eq!(found, None);
        }
    });
}

#[test]
fn servers_are_reached_by_every_mode_of_tls() {
    let (cluster, certificate) = Cluster::with_tls();
    let authority = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(authority.path(), certificate).expect("written");
    let reaches = |host: &str, mode: &str, ca: bool| {
        let ca = if ca {
            format!(", ca: {}", authority.path().display())
        } else {
            String::new()
        };
        let text = format!(
            "users: [{{name: app_scram, password: scram-secret}}]
server_tls: {{mode: {mode}{ca}}}
databases:
  shop: {{home: a, shards: {{a: \"host={host} port={} dbname=postgres\"}}}}
",
            cluster.port
        );
        block_on(control(&text).ping("shop", "a"))
    };
    for (host, mode, ca) in [
        ("127.0.0.1", "disable", false),
        ("127.0.0.1", "prefer", false),
        ("127.0.0.1", "require", false),
        ("127.0.0.1", "verify-ca", true),
        ("localhost", "verify-full", true),
    ] {
        reaches(host, mode, ca).unwrap_or_else(|fault| panic!("{mode}: {fault}"));
    }
    let fault = reaches("127.0.0.1", "verify-full", true).expect_err("another name");
    assert_eq!(fault.code.as_str(), "08001");
    drop(cluster);
    let plain = Cluster::start("");
    let text = format!(
        "server_tls: {{mode: require}}
users: [{{name: app_scram, password: scram-secret}}]
databases:
  shop: {{home: a, shards: {{a: \"host=127.0.0.1 port={} dbname=postgres\"}}}}
",
        plain.port
    );
    let fault = block_on(control(&text).ping("shop", "a")).expect_err("no TLS");
    assert!(fault.detail.is_some_and(|detail| detail.contains("TLS")));
}

#[test]
fn types_that_differ_are_found() {
    let herd = Herd::start("");
    herd.connect("a")
        .run("CREATE TYPE mood AS ENUM ('x', 'y'); CREATE TYPE alone AS (n int)");
    herd.connect("b")
        .run("CREATE TYPE mood AS ENUM ('y', 'x'); CREATE DOMAIN odd AS int");
    let findings = block_on(herd.control().check("shop")).expect("a database");
    let text = lines(&findings).join("\n");
    for wanted in [
        "type \"public.mood\" is an enum of 'y', 'x', but an enum of 'x', 'y' on the home shard",
        "type \"public.alone\" of the home shard is missing",
        "type \"public.odd\" is not on the home shard",
    ] {
        assert!(text.contains(wanted), "{text}");
    }
}
