//! PAUSE, RESUME, RELOAD, RECONNECT and the signals, while clients work.

use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::load::{Load, eventually, waiting};
use crate::message::query;
use crate::shared::{Databases, SHARDS};

#[test]
fn pausing_and_resuming_loses_no_statement() {
    let fixture = Fixture::start();
    let load = Load::on(&fixture, 10);
    let mut console = fixture.herd.console();
    for _ in 0..5 {
        load.wait(100);
        console.run("PAUSE");
        let done = load.done();
        sleep(Duration::from_millis(100));
        assert!(
            load.done() <= done + 20,
            "statements run while all is paused"
        );
        console.run("RESUME");
        load.wait(100);
    }
    console.run(&format!("PAUSE {}", fixture.databases.name));
    console.run(&format!("RESUME {}", fixture.databases.name));
    load.wait(100);
    load.stop().check_flawless();
}

#[test]
fn pause_waits_for_the_open_block() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("BEGIN; INSERT INTO by_jump VALUES (1, 1, 'x')");
    let mut console = fixture.herd.console();
    let thread = spawn(move || {
        console.run("PAUSE");
        console
    });
    sleep(Duration::from_millis(200));
    assert!(!thread.is_finished(), "a block is open");
    client.run("UPDATE by_jump SET v = 'y' WHERE k = 1");
    client.run("COMMIT");
    let mut console = thread.join().expect("paused");
    let waiter = spawn(move || client.value("SELECT v FROM by_jump WHERE k = 1"));
    eventually("the client waits", || waiting(&fixture.herd) == 1);
    console.run("RESUME");
    assert_eq!(waiter.join().expect("served"), "y");
}

#[test]
fn reloading_loses_no_statement() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(&mut options);
    let load = Load::on(&fixture, 10);
    let mut console = fixture.herd.console();
    let size = |console: &mut Client| {
        let config = console.run("SHOW CONFIG");
        let at = config
            .column("key")
            .iter()
            .position(|key| key == "default_pool_size")
            .expect("a key");
        config.column("value")[at].clone()
    };
    for round in 0..6 {
        load.wait(100);
        let wanted = (2 + round).to_string();
        fixture
            .herd
            .rewrite(options.set(&format!("default_pool_size: {wanted}")));
        if round % 2 == 0 {
            console.run("RELOAD");
        } else {
            fixture.herd.signal("HUP");
        }
        eventually("the new size holds", || size(&mut console) == wanted);
    }
    load.wait(100);
    load.stop().check_flawless();
}

#[test]
fn an_invalid_file_is_rejected_whole() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(&mut options);
    let load = Load::on(&fixture, 4);
    let mut console = fixture.herd.console();
    let before = console.run("SHOW CONFIG");
    let faulty = [
        "nonsense: [".to_owned(),
        "unknown_key: 1\ndefault_pool_size: 1\n".to_owned(),
        String::new(),
        "listen: [127.0.0.1:1]\npool_mode: nonsense\ndatabases: {}\n".to_owned(),
    ];
    for text in faulty {
        fixture.herd.rewrite_text(&text);
        let error = console.fails("RELOAD");
        assert!(!error.message.is_empty(), "{error:?}");
        assert_eq!(console.run("SHOW CONFIG"), before, "after {text:?}");
        fixture.herd.signal("HUP");
        load.wait(50);
    }
    fixture.herd.rewrite(options.set("default_pool_size: 4"));
    console.run("RELOAD");
    load.wait(50);
    load.stop().check_flawless();
}

#[test]
fn reload_takes_up_and_drops_users_and_tables() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(&mut options);
    let name = fixture.databases.name.clone();
    fixture
        .databases
        .run_everywhere("CREATE TABLE later (k int PRIMARY KEY, v text)");
    fixture
        .connect()
        .run("INSERT INTO later VALUES (1, 'single')");
    fixture.connect().run("DELETE FROM later");
    let stranger = || {
        Client::try_connect(fixture.herd.port, "app_scram", &name)
            .map(|_| ())
            .map_err(|error| error.code)
    };
    assert!(stranger().is_err(), "a user the config does not know");
    options
        .users
        .push("{name: app_scram, password: scram-secret}".to_owned());
    options.sharded("later", "k", "int", "{modulo: all}");
    fixture.herd.rewrite(&options);
    fixture.herd.console().run("RELOAD");
    assert_eq!(stranger(), Ok(()));
    let mut client = fixture.connect();
    let written = |k| {
        client
            .query(&format!("INSERT INTO later VALUES ({k}, 'x')"))
            .is_ok()
    };
    let mut written = written;
    eventually("the new table's columns are known", || written(0));
    assert!((1..4).all(&mut written));
    for shard in 0..4 {
        assert_eq!(
            fixture.databases.shard(shard).value("SELECT k FROM later"),
            shard.to_string()
        );
    }
}

#[test]
fn reconnect_replaces_every_server() {
    let fixture = Fixture::start();
    let load = Load::on(&fixture, 6);
    load.wait(200);
    let started = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend' AND application_name <> 'pgherd' AND pid <> pg_backend_pid() AND backend_start < '{}'";
    let now = fixture.databases.shard(1).value("SELECT clock_timestamp()");
    fixture.herd.console().run("RECONNECT");
    eventually("the old servers are gone", || {
        fixture
            .databases
            .shard(1)
            .value(&started.replace("{}", &now))
            == "0"
    });
    load.wait(200);
    load.stop().check_flawless();
}

#[test]
fn killing_a_database_ends_its_clients() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("SELECT 1");
    let mut console = fixture.herd.console();
    console.run(&format!("KILL {}", fixture.databases.name));
    let error = client.fails("SELECT 1");
    assert!(
        error.code.is_empty() || error.severity == "FATAL",
        "{error:?}"
    );
    console.run(&format!("RESUME {}", fixture.databases.name));
    fixture.connect().run("SELECT * FROM at_home");
}

#[test]
fn a_client_that_does_not_read_rows_of_all_shards_can_be_killed() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for k in 0..40 {
        let row = format!("({k}, 1, repeat('x', 1000000))");
        client.run(&format!("INSERT INTO by_jump VALUES {row}"));
    }
    let answering = || -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT v FROM by_jump' AND state = 'active' AND datname = current_database()";
        let count = |shard| fixture.databases.shard(shard).value(sql);
        let counts = (0..SHARDS).map(|shard| count(shard).parse::<i64>().expect("a count"));
        counts.sum()
    };
    client.send(&query("SELECT v FROM by_jump"));
    eventually("it answers", || answering() > 0);
    let mut console = fixture.herd.console();
    console.run(&format!("KILL {}", fixture.databases.name));
    eventually("no server works for it", || answering() == 0);
    console.run(&format!("RESUME {}", fixture.databases.name));
    fixture.connect().run("SELECT k FROM by_jump");
}

#[test]
fn sigterm_serves_the_clients_there_are() {
    let mut fixture = Fixture::start();
    let (mut client, mut idle) = (fixture.connect(), fixture.connect());
    idle.run("SELECT 1");
    client.run("BEGIN; INSERT INTO by_jump VALUES (1, 1, 'drained')");
    fixture.herd.signal("TERM");
    eventually("no new client", || {
        Client::try_connect(fixture.herd.port, "app", &fixture.databases.name).is_err()
    });
    client.run("UPDATE by_jump SET v = 'to the end' WHERE k = 1");
    client.run("COMMIT");
    assert_eq!(
        idle.value("SELECT v FROM by_jump WHERE k = 1"),
        "to the end"
    );
    client.terminate().expect("no more messages");
    assert_eq!(
        fixture.herd.wait(Duration::from_millis(200)),
        None,
        "a client is left"
    );
    idle.hang_up();
    let status = fixture.herd.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn sigint_lets_blocks_finish() {
    let mut fixture = Fixture::start();
    let (mut client, mut idle) = (fixture.connect(), fixture.connect());
    idle.run("SELECT 1");
    client.run("BEGIN; INSERT INTO by_jump VALUES (1, 1, 'drained')");
    fixture.herd.signal("INT");
    assert_eq!(
        idle.answer().expect_err("an idle client is ended").code,
        "57P01"
    );
    client.run("UPDATE by_jump SET v = 'to the end' WHERE k = 1");
    client.run("COMMIT");
    let status = fixture.herd.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let values = |shard| fixture.databases.shard(shard).rows("SELECT v FROM by_jump");
    let left: Vec<_> = (0..4).flat_map(values).flatten().flatten().collect();
    assert_eq!(left, ["to the end"]);
}

#[test]
fn sigint_under_load_loses_nothing() {
    let mut fixture = Fixture::start();
    let load = Load::on(&fixture, 8);
    load.wait(300);
    fixture.herd.signal("INT");
    let status = fixture.herd.wait(Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    let told = load.stop();
    let mut found = Vec::new();
    for shard in 0..4 {
        let rows = fixture.databases.shard(shard).rows("SELECT k FROM by_jump");
        found.extend(rows.iter().map(|row| {
            row[0]
                .as_deref()
                .expect("a key")
                .parse::<i64>()
                .expect("a number")
        }));
    }
    found.sort_unstable();
    told.check_rows(&found);
    assert_eq!(
        found.len(),
        told.acknowledged.len(),
        "what was committed was acknowledged: {:?}",
        told.errors
    );
}

#[test]
fn health_and_metrics_are_served() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    for key in 0..10 {
        client.run(&format!("INSERT INTO by_modulo VALUES ({key}, 1, 'x')"));
    }
    assert_eq!(fixture.herd.get("/health").0, 200);
    eventually("every shard answers", || {
        fixture.herd.get("/ready").0 == 200
    });
    eventually("the statements are counted", || {
        fixture
            .herd
            .metric("pgherd_statements_total", "")
            .unwrap_or_default()
            >= 10.0
    });
    assert_eq!(
        fixture.herd.metric("pgherd_out_of_sync_total", ""),
        Some(0.0)
    );
}

#[test]
fn the_console_shows_what_pgbouncer_shows() {
    let fixture = Fixture::start();
    let mut client = fixture.connect();
    client.run("INSERT INTO by_modulo VALUES (1, 1, 'x')");
    let mut console = fixture.herd.console();
    for what in [
        "HELP",
        "CONFIG",
        "DATABASES",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "STATS",
        "STATS_TOTALS",
        "USERS",
        "LISTS",
        "VERSION",
        "SHARDS",
        "TABLES",
        "DISTRIBUTIONS",
        "STATE",
        "MEM",
    ] {
        let simple = console.run(&format!("SHOW {what}"));
        let extended = console
            .query_with(&format!("show {};", what.to_lowercase()), &[])
            .unwrap_or_else(|error| panic!("SHOW {what}: {error:?}"));
        assert_eq!(extended.rows.len(), simple.rows.len(), "SHOW {what}");
    }
    let clients = console.run("SHOW CLIENTS");
    assert!(
        clients.column("database").contains(&fixture.databases.name),
        "{clients:?}"
    );
    let pools = console.run("SHOW POOLS");
    assert!(
        pools.column("database").contains(&fixture.databases.name),
        "{pools:?}"
    );
    let mut stranger = Client::connect(fixture.herd.port, "app", &fixture.databases.name);
    stranger.run("SELECT 1");
    let refused = Client::try_connect(fixture.herd.port, "app", "pgherd")
        .map(|mut client| client.query("RELOAD"));
    assert!(!matches!(refused, Ok(Ok(_))), "only administrators may act");
}

#[test]
fn a_reload_that_would_lose_rows_is_refused() {
    let databases = Databases::create(2);
    databases.run_everywhere(
        "CREATE TABLE t (k bigint PRIMARY KEY, v text); CREATE TABLE o (id int, v text)",
    );
    let options = |place: &str, key: &str, o: &str| {
        let mut options = Options::new("transaction");
        options.sharded("t", key, "bigint", place).table("o", o);
        options
    };
    let first = options("{modulo: all}", "k", "reference");
    let herd = Herd::start(&databases, &first);
    let mut client = herd.connect();
    client.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')");
    let mut fewer = Options::new("transaction");
    fewer.sharded("t", "k", "bigint", "{modulo: all}");
    for (changed, what) in [
        (options("{jump: all}", "k", "reference"), "distributions.t"),
        (
            options("{modulo: all}, pins: {\"7\": shard_0}", "k", "reference"),
            "distributions.t",
        ),
        (options("{modulo: all}", "v", "reference"), "tables.t"),
        (options("{modulo: all}", "k", "single"), "tables.o"),
        (fewer, "tables.o"),
    ] {
        herd.rewrite(&changed);
        let error = herd.console().fails("RELOAD");
        assert!(format!("{error:?}").contains(what), "{what}: {error:?}");
        assert_eq!(client.value("SELECT v FROM t WHERE k = 1"), "a");
    }
    let mut more = first.clone();
    more.sharded("u", "k", "int", "{jump: all}")
        .on("w", "t", "k")
        .table("p", "reference")
        .set("default_pool_size: 3");
    herd.rewrite(&more);
    herd.console().run("RELOAD");
    client.run("CREATE TABLE w (k bigint)");
    client.run("INSERT INTO w VALUES (1), (2)");
    assert_eq!(databases.shard(1).value("SELECT k FROM w"), "1");
}

#[test]
fn set_changes_a_limit_until_the_next_reload() {
    let fixture = Fixture::start();
    let mut console = fixture.herd.console();
    let value = |console: &mut Client| {
        let config = console.run("SHOW CONFIG");
        let keys = config.column("key");
        let at = keys.iter().position(|key| key == "query_timeout");
        config.column("value")[at.expect("a key")].clone()
    };
    let mut client = fixture.connect();
    client.run("SELECT pg_sleep(0.1)");
    console.run("SET query_timeout = '1s'");
    assert_eq!(value(&mut console), "1s");
    let slow = "SELECT pg_sleep(60)";
    assert_eq!(
        client.fails(slow).message,
        "terminating connection due to query_timeout"
    );
    for (command, code) in [
        ("SET query_timeout = 30", "22023"),
        ("SET default_pool_size = 0", "22023"),
        ("SET listen = '127.0.0.1:1'", "22023"),
        ("SET nothing = 1", "22023"),
        ("SET log.level = debug", "0A000"),
        ("SET no.such.thing = 1", "22023"),
    ] {
        let error = console.fails(command);
        assert_eq!(error.code, code, "{command}: {error:?}");
    }
    assert_eq!(value(&mut console), "1s");
    console.run("RELOAD");
    assert_eq!(value(&mut console), "0");
    fixture.connect().run("SELECT pg_sleep(1.5)");
}

#[test]
fn a_reload_tells_what_waits_for_a_restart() {
    let mut options = Fixture::options("transaction");
    let fixture = Fixture::with(&mut options);
    let mut console = fixture.herd.console();
    let mut warnings = || {
        console.send(&query("RELOAD"));
        let replies = console.until_ready().expect("reloaded");
        let notices = replies.iter().filter(|reply| reply.tag == b'N');
        notices.map(|notice| notice.field('M')).collect::<Vec<_>>()
    };
    assert!(warnings().is_empty());
    fixture.herd.rewrite(options.set("engines: 3"));
    for _ in 0..2 {
        assert_eq!(warnings(), ["\"engines\" waits for a restart"]);
    }
    assert!(
        fixture
            .herd
            .log()
            .contains("\"engines\" waits for a restart")
    );
}

/// What `pgherd check --offline` says of a configuration, and whether it passes.
pub(crate) fn check_offline(path: &std::path::Path) -> (String, bool) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args(["check", "--offline", "-c"])
        .arg(path)
        .output()
        .expect("pgherd runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text, output.status.success())
}

#[test]
fn check_finds_what_run_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pgherd.yaml");
    let check_with = |text: &str, more: &str| {
        let database = format!("databases: {{shop: {{shards: {{a: host=127.0.0.1}}{more}}}}}");
        std::fs::write(&path, format!("{text}\n{database}\n")).expect("written");
        check_offline(&path)
    };
    let check = |text: &str| check_with(text, "");
    assert_eq!(check(""), ("ok: 0 warnings\n".to_owned(), true));
    let (text, passes) = check_with("", ", replicas: {reads: replica}");
    assert!(
        text.starts_with("error: ") && text.contains("not yet") && !passes,
        "{text}"
    );
    let (text, passes) = check("tls: {certificate: none.crt, key: none.key}");
    assert!(text.contains("none.crt") && !passes, "{text}");
    let (text, passes) = check("server_tls: {mode: verify-ca, ca: none.pem}");
    assert!(text.contains("none.pem") && !passes, "{text}");
    let (text, passes) = check("users: [{name: app, password: x}]\nadmin_users: [ghost]");
    assert!(
        text.starts_with("warning: ") && text.contains("ghost") && passes,
        "{text}"
    );
    let tree = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (text, passes) = check_offline(&tree.join("conf/woocommerce/pgherd.yaml"));
    assert!(text.ends_with("ok: 1 warning\n") && passes, "{text}");
}
