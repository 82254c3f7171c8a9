//! Writes what a pgbouncer.ini says as a pgherd.yaml.

use std::fmt::Write as _;

use super::ini::{Pair, Sections, value};

/// Settings of the same name and form in both.
const SAME: &[&str] = &[
    "default_pool_size",
    "min_pool_size",
    "reserve_pool_size",
    "max_db_connections",
    "max_user_connections",
];
/// Settings of the same name that PgBouncer gives in seconds.
const SECONDS: &[&str] = &[
    "reserve_pool_timeout",
    "query_wait_timeout",
    "server_lifetime",
    "server_idle_timeout",
    "server_connect_timeout",
    "client_login_timeout",
    "client_idle_timeout",
    "idle_transaction_timeout",
    "query_timeout",
];
/// Settings read below, one by one.
const READ: &[&str] = &[
    "listen_addr",
    "listen_port",
    "unix_socket_dir",
    "auth_type",
    "auth_file",
    "auth_hba_file",
    "auth_query",
    "auth_user",
    "admin_users",
    "stats_users",
    "pool_mode",
    "max_client_conn",
    "max_prepared_statements",
    "max_packet_size",
    "client_tls_sslmode",
    "client_tls_key_file",
    "client_tls_cert_file",
    "client_tls_ca_file",
    "server_tls_sslmode",
    "server_tls_ca_file",
];
/// Of a `[databases]` entry, what goes into a shard's connection string.
const CONNECTION: &[&str] = &["host", "port", "dbname"];
const POOLED: &[&str] = &["pool_mode", "pool_size", "user", "password"];
const OF_USER: &[&str] = &["pool_mode", "pool_size", "max_user_connections"];

/// The config text. `userlist` holds names and passwords (or verifiers).
pub(super) fn write(sections: &Sections, userlist: &[Pair]) -> String {
    let mut out = Yaml::default();
    out.line("# Converted from a pgbouncer.ini. Look it over, then run `pgherd check`.");
    listen(&mut out, sections);
    tls(&mut out, sections);
    auth(&mut out, sections);
    users(&mut out, sections, userlist);
    limits(&mut out, sections);
    databases(&mut out, sections);
    let known = |name: &str| {
        [SAME, SECONDS, READ]
            .iter()
            .any(|names| names.contains(&name))
    };
    for (name, value) in sections.settings.iter().filter(|(name, _)| !known(name)) {
        out.left_out(&format!("{name} = {value}"));
    }
    out.finish()
}

/// The lines so far, and the comments for what has no counterpart.
#[derive(Default)]
struct Yaml {
    text: String,
    left_out: Vec<String>,
}

impl Yaml {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn pair(&mut self, name: &str, value: &str) {
        // Writing to a String does not fail.
        let _done = writeln!(self.text, "{name}: {value}");
    }

    fn left_out(&mut self, what: &str) {
        self.left_out.push(what.to_owned());
    }

    fn finish(mut self) -> String {
        if !self.left_out.is_empty() {
            self.line("# Not carried over, for want of a counterpart:");
            for what in std::mem::take(&mut self.left_out) {
                self.line(&format!("#   {what}"));
            }
        }
        self.text
    }
}

/// A YAML double-quoted string: JSON's form is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(", "))
}

fn map(pairs: &[(&str, String)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| format!("{name}: {value}"));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
}

fn listen(out: &mut Yaml, sections: &Sections) {
    let port = sections.setting("listen_port").unwrap_or("6432");
    let addresses = sections.setting("listen_addr").unwrap_or_default();
    let mut all: Vec<String> = names(addresses)
        .map(|address| match address {
            "*" => format!("0.0.0.0:{port}"),
            six if six.contains(':') => format!("[{six}]:{port}"),
            name => format!("{name}:{port}"),
        })
        .collect();
    let folder = value(&sections.settings, "unix_socket_dir").unwrap_or("/tmp");
    if !folder.is_empty() {
        all.push(folder.to_owned());
    }
    out.pair("listen", &list(all.iter().map(|address| quoted(address))));
}

fn tls(out: &mut Yaml, sections: &Sections) {
    let mode = sections.setting("client_tls_sslmode").unwrap_or("disable");
    // verify-ca and verify-full demand a client certificate: require, with a CA.
    let mode = if mode.starts_with("verify") {
        "require"
    } else {
        mode
    };
    let mut pairs = vec![("mode", quoted(mode))];
    for (ours, theirs) in [
        ("certificate", "client_tls_cert_file"),
        ("key", "client_tls_key_file"),
        ("client_ca", "client_tls_ca_file"),
    ] {
        let file = sections.setting(theirs).filter(|_| mode != "disable");
        pairs.extend(file.map(|file| (ours, quoted(file))));
    }
    out.pair("tls", &map(&pairs));
    let mut pairs = Vec::new();
    if let Some(mode) = sections.setting("server_tls_sslmode") {
        // `allow` tries without TLS first; the nearest that never does less is `prefer`.
        let mode = if mode == "allow" { "prefer" } else { mode };
        pairs.push(("mode", quoted(mode)));
    }
    if let Some(file) = sections.setting("server_tls_ca_file") {
        pairs.push(("ca", quoted(file)));
    }
    if !pairs.is_empty() {
        out.pair("server_tls", &map(&pairs));
    }
}

fn auth(out: &mut Yaml, sections: &Sections) {
    let method = match sections.setting("auth_type").unwrap_or("md5") {
        "any" => {
            out.left_out("auth_type = any (trust, which wants a known user, stands instead)");
            "trust"
        }
        "pam" => {
            out.left_out("auth_type = pam (scram-sha-256 stands instead)");
            "scram-sha-256"
        }
        method => method,
    };
    let mut pairs = vec![("method", quoted(method))];
    for (ours, theirs) in [
        ("hba", "auth_hba_file"),
        ("query", "auth_query"),
        ("user", "auth_user"),
    ] {
        let set = sections.setting(theirs);
        pairs.extend(set.map(|value| (ours, quoted(value))));
    }
    out.pair("auth", &map(&pairs));
    for group in ["admin_users", "stats_users"] {
        let members = sections.setting(group).unwrap_or_default();
        out.pair(group, &list(names(members).map(quoted)));
    }
}

fn users(out: &mut Yaml, sections: &Sections, userlist: &[Pair]) {
    let mut all: Vec<(&str, Option<&str>, &[Pair])> = userlist
        .iter()
        .map(|(name, password)| {
            let own = sections.users.iter().find(|(user, _)| user == name);
            let own = own.map(|(_, pairs)| pairs.as_slice()).unwrap_or_default();
            (name.as_str(), Some(password.as_str()), own)
        })
        .collect();
    for (name, pairs) in &sections.users {
        if !userlist.iter().any(|(user, _)| user == name) {
            all.push((name, None, pairs));
        }
    }
    if all.is_empty() {
        return;
    }
    out.line("users:");
    for (name, password, own) in all {
        let mut pairs = vec![("name", quoted(name))];
        let password = password.filter(|password| !password.is_empty());
        pairs.extend(password.map(|password| ("password", quoted(password))));
        pairs.extend(value(own, "pool_mode").map(|mode| ("pool_mode", quoted(mode))));
        let size = value(own, "pool_size").map(str::to_owned);
        pairs.extend(size.map(|size| ("default_pool_size", size)));
        let most = value(own, "max_user_connections").map(str::to_owned);
        pairs.extend(most.map(|most| ("max_user_connections", most)));
        out.line(&format!("  - {}", map(&pairs)));
        unknown(out, &format!("user {name}"), own, &[OF_USER]);
    }
}

fn limits(out: &mut Yaml, sections: &Sections) {
    // PgBouncer's own defaults where ours differ.
    out.pair(
        "pool_mode",
        sections.setting("pool_mode").unwrap_or("session"),
    );
    out.pair(
        "max_client_conn",
        sections.setting("max_client_conn").unwrap_or("100"),
    );
    let prepared = sections.setting("max_prepared_statements");
    if let Some(prepared) = prepared.filter(|&number| number != "0") {
        out.pair("max_prepared_statements", prepared);
    }
    for name in SAME {
        if let Some(value) = sections.setting(name) {
            out.pair(name, value);
        }
    }
    for name in SECONDS {
        if let Some(value) = sections.setting(name) {
            out.pair(name, &seconds(value));
        }
    }
    if let Some(size) = sections.setting("max_packet_size") {
        let most = 1_u64 << 30;
        let size = size.parse().unwrap_or(most).min(most);
        out.pair("max_message_size", &format!("{}kB", size.div_ceil(1024)));
    }
}

/// PgBouncer's seconds, which may have a fraction, as a duration; 0 stays "no limit".
fn seconds(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number.fract() != 0.0 => format!("{:.0}ms", number * 1000.0),
        Ok(0.0) => "0".to_owned(),
        Ok(number) => format!("{number:.0}s"),
        Err(_) => value.to_owned(),
    }
}

fn databases(out: &mut Yaml, sections: &Sections) {
    if sections.databases.is_empty() {
        return;
    }
    out.line("databases:");
    for (name, pairs) in &sections.databases {
        let server = server(name, pairs);
        if name == "*" {
            out.line(&format!("  \"*\": {}", map(&fallback(&server, pairs))));
            unknown(
                out,
                "database *",
                pairs,
                &[CONNECTION, &["user", "password"]],
            );
            continue;
        }
        out.line(&format!("  {}:", quoted(name)));
        out.line("    home: shard_0");
        out.line(&format!("    shards: {{shard_0: {}}}", quoted(&server)));
        for (ours, theirs) in [
            ("server_user", "user"),
            ("server_password", "password"),
            ("pool_mode", "pool_mode"),
        ] {
            if let Some(value) = value(pairs, theirs) {
                out.line(&format!("    {ours}: {}", quoted(value)));
            }
        }
        if let Some(size) = value(pairs, "pool_size") {
            out.line(&format!("    default_pool_size: {size}"));
        }
        unknown(
            out,
            &format!("database {name}"),
            pairs,
            &[CONNECTION, POOLED],
        );
    }
}

fn fallback(server: &str, pairs: &[Pair]) -> Vec<(&'static str, String)> {
    let mut all = vec![("server", quoted(server))];
    for (ours, theirs) in [("server_user", "user"), ("server_password", "password")] {
        all.extend(value(pairs, theirs).map(|value| (ours, quoted(value))));
    }
    all
}

/// The connection string. PgBouncer takes a missing host as the local socket, a missing dbname as
/// the database's own name.
fn server(name: &str, pairs: &[Pair]) -> String {
    let host = value(pairs, "host").filter(|host| !host.is_empty());
    let port = value(pairs, "port").unwrap_or("5432");
    let mut text = format!(
        "host={} port={port}",
        plain(host.unwrap_or("/var/run/postgresql"))
    );
    let dbname = value(pairs, "dbname").or(Some(name).filter(|&name| name != "*"));
    if let Some(dbname) = dbname {
        let _done = write!(text, " dbname={}", plain(dbname));
    }
    text
}

/// A value of a connection string, quoted as libpq wants where it must be.
fn plain(value: &str) -> String {
    if value.is_empty() || value.contains([' ', '\'', '\\']) {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
    } else {
        value.to_owned()
    }
}

fn unknown(out: &mut Yaml, whose: &str, pairs: &[Pair], known: &[&[&str]]) {
    for (name, value) in pairs {
        if !known.iter().any(|names| names.contains(&name.as_str())) {
            out.left_out(&format!("{whose}: {name}={value}"));
        }
    }
}

/// PgBouncer's lists: names with commas between.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::ini::parse;
    use super::write;

    #[test]
    fn settings_databases_and_users_carry_over() {
        let sections = parse(
            "[databases]\nshop = host=10.0.0.1 port=5433 pool_size=7 datestyle=ISO\n* = host=/run/pg\n\
             [users]\nann = pool_mode=session\n\
             [pgbouncer]\nlisten_addr = *\nlisten_port = 7000\nunix_socket_dir =\nauth_type = trust\n\
             admin_users = root, ann\npool_mode = transaction\nserver_idle_timeout = 30\n\
             reserve_pool_timeout = 0.5\nquery_timeout = 0\ntcp_keepalive = 1\n",
        )
        .expect("well formed");
        let text = write(&sections, &[("ann".into(), "pa\"ss".into())]);
        for line in [
            "listen: [\"0.0.0.0:7000\"]",
            "tls: {mode: \"disable\"}",
            "auth: {method: \"trust\"}",
            "admin_users: [\"root\", \"ann\"]",
            "stats_users: []",
            "  - {name: \"ann\", password: \"pa\\\"ss\", pool_mode: \"session\"}",
            "pool_mode: transaction",
            "max_client_conn: 100",
            "server_idle_timeout: 30s",
            "reserve_pool_timeout: 500ms",
            "query_timeout: 0",
            "  \"shop\":",
            "    shards: {shard_0: \"host=10.0.0.1 port=5433 dbname=shop\"}",
            "    default_pool_size: 7",
            "  \"*\": {server: \"host=/run/pg port=5432\"}",
            "#   database shop: datestyle=ISO",
            "#   tcp_keepalive = 1",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line}\nin\n{text}"
            );
        }
    }

    #[test]
    fn an_old_pooler_stays_a_session_pooler() {
        let text = write(&parse("[pgbouncer]\n").expect("well formed"), &[]);
        assert!(text.contains("pool_mode: session\n"), "{text}");
        assert!(text.contains("listen: [\"/tmp\"]"), "{text}");
    }
}
