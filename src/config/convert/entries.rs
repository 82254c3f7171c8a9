//! The users and databases of PgBouncer's files.

use std::collections::BTreeMap;

use super::pgbouncer::{Converter, pool_mode, quote};
use crate::config::{Secret, value};

/// Where Debian's PostgreSQL listens, for databases without a host.
const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// `key=value` pairs of one entry.
pub(super) type Pairs = Vec<(String, String)>;

impl Converter {
    pub(super) fn user_section(&mut self, passwords: Vec<(String, String)>, method: &str) {
        let own_login = |pairs: &[(String, String)]| pairs.iter().any(|(key, _)| key == "user");
        let all_own = self.databases.iter().all(|(_, pairs)| own_login(pairs));
        let mut users: BTreeMap<String, (Option<String>, Pairs)> = BTreeMap::new();
        for (name, password) in passwords {
            users.entry(name).or_default().0 =
                Some(password).filter(|password| !password.is_empty());
        }
        for (name, pairs) in std::mem::take(&mut self.users) {
            users.entry(name).or_default().1 = pairs;
        }
        users.remove("");
        if !users.is_empty() {
            self.line(0, "users:");
        }
        for (name, (password, pairs)) in users {
            self.line(1, &format!("- name: {}", quote(&name)));
            let what = format!("the password of user {}", quote(&name));
            match password.as_deref().map(Secret::read) {
                None => (),
                Some(Secret::Scram(_)) if !all_own => {
                    self.note(&what, "its verifier cannot log in to servers: give the password, or server_user in each database");
                }
                Some(Secret::Md5(_)) if method == "scram-sha-256" => {
                    self.note(&what, "an md5 verifier cannot be used with scram-sha-256");
                }
                Some(Secret::Plain(text) | Secret::Scram(text) | Secret::Md5(text)) => {
                    self.line(2, &format!("password: {}", quote(&text)));
                }
            }
            for (key, text) in pairs {
                let written = match key.as_str() {
                    "pool_mode" => pool_mode(&text).map(|mode| ("pool_mode", mode)),
                    "pool_size" => count(&text, 1).map(|count| ("default_pool_size", count)),
                    "max_user_connections" => {
                        count(&text, 0).map(|count| ("max_user_connections", count))
                    }
                    _ => None,
                };
                match written {
                    Some((key, value)) => self.line(2, &format!("{key}: {value}")),
                    None => self.note(
                        &format!("{key} of user {}", quote(&name)),
                        "users have no such setting",
                    ),
                }
            }
        }
    }

    pub(super) fn database_section(&mut self) {
        self.line(0, "databases:");
        for (name, pairs) in std::mem::take(&mut self.databases) {
            self.line(1, &format!("{}:", quote(&name)));
            self.database(&name, &pairs);
        }
    }

    fn database(&mut self, name: &str, pairs: &[(String, String)]) {
        let of = |key: &str| format!("{key} of database {}", quote(name));
        let fallback = name == "*";
        let server = quote(&self.server(pairs, fallback, of));
        if fallback {
            self.line(2, &format!("server: {server}"));
        } else {
            self.line(2, "shards:");
            self.line(3, &format!("main: {server}"));
        }
        self.login(pairs, of);
        for (key, text) in pairs {
            let written = match key.as_str() {
                "host" | "port" | "dbname" | "user" | "password" => continue,
                "pool_size" if !fallback => {
                    count(text, 1).map(|count| ("default_pool_size", count))
                }
                "pool_mode" if !fallback => pool_mode(text).map(|mode| ("pool_mode", mode)),
                _ => None,
            };
            match written {
                Some((key, value)) => self.line(2, &format!("{key}: {value}")),
                None => self.note(&of(key), "databases have no such setting"),
            }
        }
    }

    /// The connection string of a database.
    fn server(
        &mut self,
        pairs: &[(String, String)],
        fallback: bool,
        of: impl Fn(&str) -> String,
    ) -> String {
        let mut hosts = find(pairs, "host")
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        let mut host = hosts.next().unwrap_or_default();
        if host.is_empty() {
            self.note(
                &of("host"),
                "it is not set: Debian's folder of sockets is taken",
            );
            host = SOCKET_FOLDER;
        }
        if hosts.next().is_some() {
            self.note(
                &of("host"),
                "a shard has one primary: the first host is taken",
            );
        }
        let mut words = vec![format!("host={}", conninfo(host))];
        match find(pairs, "port").map(str::parse::<u16>) {
            Some(Ok(port)) if port > 0 => words.push(format!("port={port}")),
            Some(_) => self.note(&of("port"), "it is no port"),
            None => (),
        }
        match find(pairs, "dbname") {
            Some(_) if fallback => self.note(&of("dbname"), "the client's database is used"),
            Some(dbname) => words.push(format!("dbname={}", conninfo(dbname))),
            None => (),
        }
        words.join(" ")
    }

    fn login(&mut self, pairs: &[(String, String)], of: impl Fn(&str) -> String) {
        let password = find(pairs, "password");
        let Some(user) = find(pairs, "user") else {
            if password.is_some() {
                self.note(&of("password"), "it has no user");
            }
            return;
        };
        self.line(2, &format!("server_user: {}", quote(user)));
        match password.map(Secret::read) {
            Some(Secret::Scram(_)) => {
                self.note(&of("password"), "a verifier cannot log in to a server");
            }
            Some(Secret::Plain(text) | Secret::Md5(text)) => {
                self.line(2, &format!("server_password: {}", quote(&text)));
            }
            None => (),
        }
    }
}

/// The last value of a key that is not empty.
fn find<'p>(pairs: &'p [(String, String)], wanted: &str) -> Option<&'p str> {
    let found = pairs
        .iter()
        .rev()
        .find(|(key, value)| key == wanted && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

fn count(text: &str, min: u64) -> Option<String> {
    value::count(text, min, 1_000_000)
        .ok()
        .map(|count| count.to_string())
}

/// A value of a connection string, in quotes where it needs them.
fn conninfo(text: &str) -> String {
    if text
        .chars()
        .any(|c| c.is_whitespace() || matches!(c, '\'' | '\\'))
    {
        return format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    }
    text.to_owned()
}
