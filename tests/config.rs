//! The configuration on real files: shipped examples, faults, properties.

use std::path::{Path, PathBuf};

use pgherd::config::{self, ConfigFault, Parsed, Sources, glob};
use pgherd::placement;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest};

/// Parses a file of the tree.
fn parse_file(path: &str) -> Result<Parsed, Vec<ConfigFault>> {
    let text = std::fs::read_to_string(tree(path)).unwrap();
    parse_text(&text, tree(path).to_str().unwrap(), &[])
}

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parse_text(text: &str, file: &str, env: &[(&str, &str)]) -> Result<Parsed, Vec<ConfigFault>> {
    let env = |name: &str| {
        env.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let list = |pattern: &str| -> Result<Vec<PathBuf>, String> {
        let (folder, pattern) = glob::split(pattern);
        let folder = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
        let paths = folder.filter_map(Result::ok).map(|entry| entry.path());
        let fits = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| glob::matches(pattern, name))
        };
        Ok(paths.filter(fits).collect())
    };
    config::parse(
        text,
        file,
        &Sources {
            env: &env,
            read: &read,
            glob: &list,
        },
    )
}

#[test]
fn a_small_file_takes_all_defaults() {
    let text = "users: [{name: app, password: x}]\ndatabases: {shop: {shards: {a: host=db1}}}\n";
    let config = parse_text(text, "pgherd.yaml", &[])
        .unwrap()
        .ready()
        .unwrap();
    assert_eq!(config.limits, config::Limits::default());
    assert_eq!(config.databases["shop"].home, "a");
}

#[test]
fn a_missing_file_is_told() {
    let text = "databases: {shop: {shards: {a: host=db1}, tables_from: [nowhere/*.yaml]}}\n";
    let faults = parse_text(text, "pgherd.yaml", &[]).unwrap_err();
    assert_eq!(faults[0].path, "databases.shop.tables_from");
}

/// Compares with a file of the tree; `UPDATE_GOLDEN=1` writes it.
fn check_golden(path: &str, text: &str) {
    let path = tree(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        text,
        golden,
        "{} differs: UPDATE_GOLDEN=1 rewrites it",
        path.display()
    );
}

#[test]
fn the_reference_holds_every_key_at_its_default() {
    let text = config::reference::text();
    check_golden("conf/reference.yaml", &text);
    let parsed = parse_text(&text, "conf/reference.yaml", &[]).unwrap();
    assert_eq!(parsed.not_yet, []);
    assert_eq!(parsed.config.limits, config::Limits::default());
}

/// Parses an example and builds its placements.
fn check_example(path: &str) -> Parsed {
    let parsed = parse_file(path).unwrap_or_else(|faults| panic!("{path}: {faults:#?}"));
    for database in parsed.config.databases.values() {
        let shards: Vec<String> = database
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect();
        for distribution in database.distributions.values() {
            placement::distribution::Distribution::new(distribution, &shards).unwrap();
        }
    }
    parsed
}

#[test]
fn shipped_examples_are_valid() {
    for path in [
        "conf/minimal.yaml",
        "conf/restaurants.yaml",
        "conf/storefront.yaml",
        "conf/reference.yaml",
    ] {
        assert_eq!(check_example(path).not_yet, [], "{path}");
    }
    let shop = check_example("conf/woocommerce/pgherd.yaml");
    let database = &shop.config.databases["shop"];
    assert_eq!((database.shards.len(), database.tables.len()), (10, 14));
    let told = shop.config.cache.invalidate_on.iter();
    let channels: std::collections::BTreeSet<&str> = told.map(|it| it.channel.as_str()).collect();
    assert_eq!(channels.len(), 11);
    assert_eq!(shop.not_yet, []);
    assert!(shop.ready().is_ok());
}

#[test]
fn all_faults_are_told_at_once_with_their_lines() {
    let text = std::fs::read_to_string(tree("tests/golden/config/bad.yaml")).unwrap();
    let faults = parse_text(&text, "bad.yaml", &[]).unwrap_err();
    let told: String = faults
        .iter()
        .flat_map(|fault| [fault.to_string(), "\n".to_owned()])
        .collect();
    check_golden("tests/golden/config/bad.txt", &told);
    assert!(faults.len() >= 25);
    assert!(faults.is_sorted_by_key(|fault| fault.line));
    assert!(faults.iter().all(|fault| !fault.hint.is_empty()));
}

#[test]
fn no_fault_hides_another() {
    let text = "
query_timeout: 30
users: [{password: x, pool_mode: wrong_mode}]
databases:
  shop:
    home: nowhere
    shards: {a: host=db1, b: host=db2}
    replicas: {reads: replica}
    unlisted: maybe
    constraints: perhaps
    pool_mode: never
    default_pool_size: many
    distributions:
      jumps: {key: bigint, place: {jump: [c, d]}}
      ranges: {key: bigint, place: {range: [{to: 1, shard: e}, {shard: f}]}}
      lists: {key: bigint, place: {list: {1: g, 2: h, x: a}}}
    tables:
      t: {distribution: none, key: id, lookup: [[]], by: nothing, unique: wrong}
";
    let faults = parse_text(text, "pgherd.yaml", &[]).unwrap_err();
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    for part in [
        "databases.shop.replicas.reads: not yet",
        "query_timeout: \"30\"",
        "\"name\" is missing",
        "wrong_mode",
        "\"nowhere\"",
        "unlisted: \"maybe\"",
        "constraints: \"perhaps\"",
        "pool_mode: \"never\"",
        "default_pool_size: \"many\"",
        "\"c\"",
        "\"d\"",
        "\"e\"",
        "\"f\"",
        "\"g\"",
        "\"h\"",
        "\"x\"",
        "\"none\"",
        "unique: must be a list",
    ] {
        assert!(
            told.iter().any(|fault| fault.contains(part)),
            "{part} is not in {told:#?}"
        );
    }
}

#[test]
fn who_cannot_log_in_is_doubted() {
    let doubts = |text: &str| {
        let parsed = parse_text(&format!("{text}\n{SMALL}"), "pgherd.yaml", &[]).unwrap();
        parsed.config.doubts()
    };
    let users = "users: [{name: app, password: x}]\nadmin_users: [app, ghost]\nstats_users: [spy]";
    let found = doubts(users);
    let messages: Vec<&str> = found.iter().map(|fault| fault.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "admin_users: user \"ghost\" is not among the users",
            "stats_users: user \"spy\" is not among the users"
        ]
    );
    assert_eq!(doubts("admin_users: [ghost]"), []);
    let query =
        "auth: {query: 'SELECT usename, passwd FROM pg_shadow WHERE usename = $1', user: asker}";
    assert_eq!(doubts(&format!("{users}\n{query}")), []);
}

#[test]
fn a_limit_is_changed_as_a_file_would_set_it() {
    let text = format!("query_timeout: 90s\nmin_pool_size: 3\n{SMALL}");
    let config = parse_text(&text, "pgherd.yaml", &[]).unwrap().config;
    for setting in &config.settings {
        let same = config::with_limit(&config, &setting.key, &setting.value).unwrap();
        assert_eq!(same, config, "{}", setting.key);
    }
    let changed = config::with_limit(&config, "query_timeout", "1500ms").unwrap();
    assert_eq!(changed.limits.query_timeout.as_millis(), 1500);
    assert_eq!(changed.limits.min_pool_size, 3);
    let shown = |key: &str| changed.settings.iter().find(|known| known.key == key);
    assert_eq!(shown("query_timeout").unwrap().value, "1500ms");
    for (key, value) in [
        ("query_timeout", "30"),
        ("pool_mode", "transactoin"),
        ("default_pool_size", "2"),
        ("max_message_size", ""),
    ] {
        let faults = config::with_limit(&config, key, value).unwrap_err();
        assert!(!faults[0].hint.is_empty(), "{faults:?}");
    }
    for key in [
        "listen",
        "engines",
        "log.level",
        "consistent_reads",
        "nothing",
    ] {
        assert!(!config::is_limit(key), "{key}");
    }
}

const SMALL: &str = "databases: {shop: {shards: {a: host=db1, b: host=db2}}}\n";

#[test]
fn json_is_accepted() {
    let json = "{\n\t\"pool_mode\": \"session\",\n\t\"databases\": {\"shop\": {\"shards\": {\"a\": \"host=db1\"}}}\n}\n";
    let config = parse_text(json, "pgherd.json", &[]).unwrap().config;
    assert_eq!(config.limits.pool_mode, config::PoolMode::Session);
}

#[test]
fn variables_and_files_come_in_as_text() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), "a: {b}\n").unwrap();
    let file = folder.path().join("pgherd.yaml");
    let text = format!(
        "name: $${{x}}\nusers: [{{name: \"${{WHO}}-${{WHO}}\", password: '${{file:secret}}'}}]\n{SMALL}"
    );
    let env = [("WHO", "x: [")];
    let faults = parse_text(&text, file.to_str().unwrap(), &env).unwrap_err();
    assert_eq!(
        faults
            .iter()
            .map(|fault| fault.path.as_str())
            .collect::<Vec<_>>(),
        ["name"]
    );
    let text = text.replace("name: $${x}\n", "");
    let config = parse_text(&text, file.to_str().unwrap(), &env)
        .unwrap()
        .config;
    let user = &config.users["x: [-x: ["];
    assert_eq!(
        user.password,
        Some(config::Secret::Plain("a: {b}".to_owned()))
    );
}

#[test]
fn twins_visit_each_gather_server_in_turn() {
    let parse = |gather: &str, tables: &str| {
        let text = format!(
            "name: test\nusers: [{{name: app, password: x}}]\n{gather}\ndatabases: {{shop: {{home: b, \
             shards: {{a: host=db1, b: \"host=db2 port=5433 sslmode=require\"}}, \
             distributions: {{d: {{key: bigint, place: {{jump: all}}}}}}, tables: {{{tables}}}}}}}\n"
        );
        parse_text(&text, "pgherd.yaml", &[]).map(|parsed| parsed.ready().unwrap())
    };
    let shown = |gather: &str| -> Vec<String> {
        let config = parse(gather, "t: {distribution: d, key: k}").unwrap();
        let twins = config.twins(&config.databases["shop"]).into_iter();
        twins
            .map(|twin| {
                let host = twin.host;
                format!("{} {}:{}/{}", twin.name, host.host, host.port, host.dbname)
            })
            .collect()
    };
    let home = "gather: {twins: 2}";
    assert_eq!(
        shown(home),
        [
            "twin_1 db2:5433/pgherd_test_shop_twin_1",
            "twin_2 db2:5433/pgherd_test_shop_twin_2",
        ]
    );
    let config = parse(home, "t: {distribution: d, key: k}").unwrap();
    let twins = config.twins(&config.databases["shop"]);
    assert_eq!(twins[0].host.tls, Some(config::ServerTlsMode::Require));
    assert_eq!(
        shown("gather: {server: [host=g1, \"host=g2 port=1\"], twins: 2}"),
        [
            "twin_1 g1:5432/pgherd_test_shop_twin_1",
            "twin_2 g2:1/pgherd_test_shop_twin_2",
            "twin_3 g1:5432/pgherd_test_shop_twin_3",
            "twin_4 g2:1/pgherd_test_shop_twin_4",
        ]
    );
    assert_eq!(shown("gather: {server: postgres://g1, twins: 1}").len(), 1);
    let none = parse(home, "t: reference").unwrap();
    assert!(none.twins(&none.databases["shop"]).is_empty());
    for bad in ["host=g dbname=x", "[host=g, host=g]", "port=1", "{a: b}"] {
        let faults = parse(&format!("gather: {{server: {bad}}}"), "t: reference").unwrap_err();
        assert_eq!(faults[0].path, "gather.server", "{bad}");
    }
    let old = parse(home, "t: reference").unwrap();
    let new = parse("gather: {server: host=g, twins: 3}", "t: reference").unwrap();
    let diff = config::diff(&old, &new);
    let changed: Vec<&str> = diff.changes.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(changed, ["gather.twins", "gather.server"]);
    assert_eq!(diff.restarts().count(), 0);
}

#[test]
fn later_features_are_told_apart_from_faults() {
    let with = |text: &str| parse_text(&format!("{text}\n{SMALL}"), "pgherd.yaml", &[]).unwrap();
    let small = SMALL.replace("}}}", "}, replicas: {reads: replica}}}");
    let parsed = parse_text(&small, "pgherd.yaml", &[]).unwrap();
    let paths: Vec<&str> = parsed
        .not_yet
        .iter()
        .map(|fault| fault.path.as_str())
        .collect();
    assert_eq!(paths, ["databases.shop.replicas.reads"]);
    assert!(parsed.not_yet[0].message.starts_with("not yet"));
    assert!(parsed.ready().is_err());
    for text in [
        "consistent_reads: true",
        "cross_shard_writes: reject",
        "recovery: {every: 5000ms}",
        "cache: {memory: 65536kB, invalidate_on: [], redis: null}",
        "cache: {redis: 'redis://127.0.0.1', invalidate_on: [{channel: a, table: b}]}",
    ] {
        assert!(with(text).ready().is_ok(), "{text}");
    }
}

#[test]
fn no_secret_is_shown() {
    let canary = "c4nary";
    let text = format!(
        "users: [{{name: app, password: {canary}}}]\ncache: {{redis: 'redis://u:{canary}@127.0.0.1'}}\n\
         auth: {{query: 'SELECT $1', user: asker}}\n\
         databases: {{shop: {{shards: {{a: host=db1}}, server_user: s, server_password: {canary}, \
         control_user: c, control_password: {canary}}}, '*': {{server: host=x, server_user: s, server_password: {canary}}}}}\n"
    );
    let parsed = parse_text(&text, "pgherd.yaml", &[]).unwrap();
    let shown = format!("{parsed:?}");
    assert!(!shown.contains(canary), "{shown}");
    let keys: Vec<&str> = parsed
        .config
        .settings
        .iter()
        .map(|setting| setting.key.as_str())
        .collect();
    assert!(keys.contains(&"default_pool_size") && keys.contains(&"client_tls_sslmode"));
    assert!(keys.iter().all(|key| !key.contains("password")));
    let broken = format!("{text}pool_mode: ${{MODE}}\nquery_timeout: ${{MODE}}\n");
    let faults = parse_text(&broken, "pgherd.yaml", &[("MODE", canary)]).unwrap_err();
    assert_eq!(faults.len(), 2);
    assert!(!format!("{faults:?}").contains(canary), "{faults:?}");
}

#[test]
fn reload_tells_what_changed() {
    let parse = |text: &str| parse_text(text, "pgherd.yaml", &[]).unwrap().config;
    let old = parse(&format!(
        "listen: [127.0.0.1:6432]\nquery_timeout: 60s\nusers: [{{name: a, password: b}}]\n{SMALL}"
    ));
    assert!(config::diff(&old, &old).is_empty());
    let new = parse(
        "listen: [127.0.0.1:6433]\nquery_timeout: 2m\nusers: [{name: a, password: c}, {name: d}]\n\
         databases: {shop: {shards: {a: host=db1, b: host=db3}, unlisted: refuse}}\n",
    );
    let diff = config::diff(&old, &new);
    let changes: Vec<(&str, bool)> = diff
        .changes
        .iter()
        .map(|change| (change.key.as_str(), change.restart))
        .collect();
    assert_eq!(
        changes,
        [
            ("listen", true),
            ("query_timeout", false),
            ("users.a.password", false),
            ("users.d", false),
            ("databases.shop.shards.b", false),
            ("databases.shop.unlisted", false),
        ]
    );
    assert_eq!(
        diff.changes[1].values,
        Some(("1m".to_owned(), "2m".to_owned()))
    );
    assert_eq!(diff.restarts().count(), 1);
    // Another spelling of the same value is no change.
    let same = parse(&format!(
        "query_timeout: 1m\nusers: [{{name: a, password: b}}]\n{SMALL}"
    ));
    assert!(config::diff(&old, &same).is_empty());
}

#[test]
fn hba_files_are_read_with_their_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pgherd.yaml");
    let text = format!("auth: {{method: hba, hba: pg_hba.conf}}\n{SMALL}");
    let parse = |rules: &str| {
        std::fs::write(folder.path().join("pg_hba.conf"), rules).unwrap();
        parse_text(&text, file.to_str().unwrap(), &[])
    };
    assert_eq!(
        parse("local all all trust\n")
            .unwrap()
            .config
            .auth
            .rules
            .rules
            .len(),
        1
    );
    let faults = parse("hostssl all all all cert\n").unwrap_err();
    assert_eq!((faults[0].path.as_str(), faults.len()), ("auth.hba", 1));
    let faults = parse("local all all trust\nlocal all all peer\n").unwrap_err();
    assert_eq!(
        (faults[0].line, faults[0].file.ends_with("pg_hba.conf")),
        (2, true)
    );
}

#[test]
fn the_schema_names_the_keys_of_the_reference() {
    let schema = config::schema::json_schema();
    let text = config::reference::text();
    let top = text
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let mut named: Vec<&str> = top
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name)
        .collect();
    named.sort_unstable();
    let mut known: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    known.sort_unstable();
    assert_eq!(known, named);
    assert_eq!(
        schema["$defs"]["user"]["required"],
        serde_json::json!(["name"])
    );
    assert_eq!(schema["properties"]["default_pool_size"]["default"], 20);
}

#[test]
fn the_schema_refers_to_what_it_defines() {
    let schema = config::schema::json_schema();
    let text = schema.to_string();
    let mut references = text.split("\"#/$defs/").skip(1).peekable();
    assert!(references.peek().is_some());
    for reference in references {
        let name = reference.split('"').next().unwrap();
        assert!(schema["$defs"][name].is_object(), "{name}");
    }
}

/// Converts, and parses what comes out.
fn check_convert(ini: &str, userlist: Option<&str>) -> (String, config::Config) {
    let text = config::convert::pgbouncer(ini, userlist)
        .unwrap_or_else(|faults| panic!("{ini}\n{faults:#?}"));
    let parsed = parse_text(&text, "pgherd.yaml", &[]);
    let parsed = parsed.unwrap_or_else(|faults| panic!("{ini}\n{text}\n{faults:#?}"));
    assert_eq!(parsed.not_yet, []);
    (text, parsed.config)
}

#[test]
fn pgbouncers_files_are_converted() {
    let ini = "\
;; a comment
[databases]
harness_hero = host=postgres-primary port=5432 dbname=harness_hero
other = host=a,b user=bob password='it''s' pool_size=7 pool_mode=session connect_query='SELECT 1'
\"odd \"\"name\"\"\" = dbname=x
* = host=fallback
[users]
carl = pool_mode=statement max_user_connections=3
[pgbouncer]
listen_addr = 127.0.0.1, ::1
listen_port = 6543
auth_type = md5
pool_mode = transaction
default_pool_size = 25
reserve_pool_size = 5
max_client_conn = 100
max_db_connections = 50
server_lifetime = 3600
query_wait_timeout = 0.5
server_reset_query = DISCARD ALL
admin_users = postgres, root
made_up = 1
";
    let list = "\"app\" \"s3\"\"cret${X}\"\n\"old\" \"md50123456789abcdef0123456789abcdef\"\n";
    let (text, config) = check_convert(ini, Some(list));
    assert_eq!(config.limits.max_db_connections, 50);
    assert_eq!(config.limits.query_wait_timeout.as_millis(), 500);
    assert_eq!(config.databases.len(), 3);
    assert_eq!(config.databases["other"].default_pool_size, Some(7));
    assert_eq!(
        config.databases["other"].server_password,
        Some(config::Secret::Plain("it's".into()))
    );
    assert!(config.databases.contains_key("odd \"name\""));
    assert_eq!(
        config.users["app"].password,
        Some(config::Secret::Plain("s3\"cret${X}".into()))
    );
    assert_eq!(config.users["carl"].max_user_connections, Some(3));
    for note in [
        "server_reset_query",
        "made_up",
        "connect_query",
        "host of database",
    ] {
        assert!(
            text.lines()
                .any(|line| line.starts_with('#') && line.contains(note)),
            "{note}\n{text}"
        );
    }
}

#[test]
fn pgbouncers_defaults_are_kept() {
    let (_, config) = check_convert("[databases]\na = host=h\n", None);
    assert_eq!(config.limits.pool_mode, config::PoolMode::Session);
    assert_eq!(config.limits.max_client_conn, 100);
    assert_eq!(config.auth.method, config::AuthMethod::Md5);
    let faults =
        config::convert::pgbouncer("x = 1\n[databases\nfoo\n", Some("app x\n")).unwrap_err();
    assert_eq!(
        faults.iter().map(|fault| fault.line).collect::<Vec<_>>(),
        [2, 3, 1, 1]
    );
}

/// Text that is close to a configuration: its own words and marks, in any order.
fn scrambled() -> impl Strategy<Value = String> {
    let text = config::reference::text();
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.trim().starts_with('#'))
        .map(str::to_owned)
        .collect();
    let marks = [
        "{", "}", "[", "]", ":", ",", "- ", "\n", "  ", "\"", "'", "&a", "*a", "!!x", "|", ">",
        "?", "#", "${", "\t", "---", "%", "\u{feff}", "é",
    ];
    let piece = prop_oneof![
        proptest::sample::select(lines).prop_map(|line| format!("{line}\n")),
        proptest::sample::select(marks.to_vec()).prop_map(str::to_owned),
        "[a-z0-9:=./ -]{0,12}",
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![any::<String>(), scrambled()]) {
        let parsed = parse_text(&text, "nowhere/pgherd.yaml", &[]);
        prop_assert!(parsed.is_ok_and(|parsed| !parsed.config.databases.is_empty() || parsed.config.fallback.is_some())
            || parse_text(&text, "nowhere/pgherd.yaml", &[]).is_err_and(|faults| !faults.is_empty()));
    }

    #[test]
    fn no_rules_make_it_panic(text in "([a-z]{3,9}|all|host|local|md5|trust|\"|,|#|\\\\|[0-9./:]{1,9}|[ \n]){0,30}") {
        drop(config::hba::parse(&text, "pg_hba.conf"));
    }

    #[test]
    fn what_is_converted_parses(
        name in "[a-z*\"]{1,3}",
        pairs in proptest::collection::vec(("host|port|user|password|pool_size|pool_mode|dbname|zzz", "[a-z0-9,:'$]{0,4}"), 0..4),
        settings in proptest::collection::vec(("[a-z_]{1,8}|listen_(addr|port)|auth_(type|user|query|hba_file)|min_pool_size|client_tls_(sslmode|cert_file|key_file|ca_file)|server_tls_sslmode|unix_socket_dir|query_timeout",
            "[a-z0-9*,./:]{0,5}|md5|scram-sha-256|hba|any|cert|require|verify-full|/tmp"), 0..8),
        password in ".{0,8}",
    ) {
        let pairs: String = pairs.iter().flat_map(|(key, value)| [key, "=", value, " "]).collect();
        let settings: String = settings.iter().flat_map(|(key, value)| [key, " = ", value, "\n"]).collect();
        let ini = format!("[databases]\n{name} = {pairs}\n[pgbouncer]\n{settings}");
        if let Ok(text) = config::convert::pgbouncer(&ini, Some(&format!("\"app\" \"{password}\"\n"))) {
            let parsed = parse_text(&text, "pgherd.yaml", &[]);
            let missing = |fault: &ConfigFault| fault.message.starts_with("could not read");
            if let Err(faults) = parsed {
                prop_assert!(faults.iter().all(missing), "{ini}\n{text}\n{faults:#?}");
            }
        }
    }
}

#[test]
fn every_key_of_the_first_release_is_read() {
    let path = "tests/golden/config/full.yaml";
    let text = std::fs::read_to_string(tree(path)).unwrap();
    let env = [("APP_PASSWORD", "secret")];
    let parsed = parse_text(&text, tree(path).to_str().unwrap(), &env).unwrap();
    let root = format!("{}/", env!("CARGO_MANIFEST_DIR"));
    let told: String = parsed
        .not_yet
        .iter()
        .flat_map(|fault| [fault.to_string().replace(&root, ""), "\n".to_owned()])
        .collect();
    check_golden("tests/golden/config/full.txt", &told);
    let shop = &parsed.config.databases["shop"];
    assert_eq!(shop.tables.len(), 11);
    assert_eq!(shop.shards[0].replicas.len(), 1);
    assert_eq!(shop.distributions["stores"].key.len(), 2);
    assert_eq!(shop.tables[10].schema.as_deref(), Some("sales"));
    assert!(parsed.config.fallback.is_some());
}
