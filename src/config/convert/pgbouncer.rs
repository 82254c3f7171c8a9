//! A `pgherd.yaml` from PgBouncer's `pgbouncer.ini` and `userlist.txt`.
//!
//! What PgBouncer does by default and pgherd does not is written out. What cannot be carried over
//! stands as a comment that says why, without its value.

use std::collections::BTreeMap;

use super::entries::Pairs;
use super::ini::{self, Line, fault};
use super::settings::{Carry, SETTINGS, seconds};
use crate::config::fault::ConfigFault;
use crate::config::keys::global::POOL_MODES;
use crate::config::load::global;
use crate::config::value;

/// The query PgBouncer runs where none is set.
const AUTH_QUERY: &str = "SELECT usename, passwd FROM pg_shadow WHERE usename=$1";
/// Converts the text of the two files. The result is a valid configuration, given that the files it
/// names exist.
///
/// # Errors
/// Lines that are none of PgBouncer's, and a file without databases.
pub fn pgbouncer(ini: &str, userlist: Option<&str>) -> Result<String, Vec<ConfigFault>> {
    let mut faults = Vec::new();
    let lines = ini::lines(ini, &mut faults);
    let users = ini::users(userlist.unwrap_or_default(), &mut faults);
    let mut converter = Converter::default();
    for line in &lines {
        match line.section.as_str() {
            "pgbouncer" => {
                converter
                    .settings
                    .insert(line.key.to_lowercase(), line.value.clone());
            }
            "databases" | "users" => converter.check_pairs(line, &mut faults),
            "peers" => converter.note(&format!("peer {}", line.key), "proxies share nothing"),
            _ => faults.push(fault(
                "pgbouncer.ini",
                line.number,
                "stands in no section that is known",
                "Sections are [databases], [users], [peers] and [pgbouncer].",
            )),
        }
    }
    if converter.databases.is_empty() && faults.is_empty() {
        let hint = "Name one under [databases].";
        faults.push(fault(
            "pgbouncer.ini",
            1,
            "is followed by no database",
            hint,
        ));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(converter.convert(users))
}

#[derive(Default)]
pub(super) struct Converter {
    settings: BTreeMap<String, String>,
    pub(super) databases: Vec<(String, Pairs)>,
    pub(super) users: Vec<(String, Pairs)>,
    notes: Vec<String>,
    out: String,
}

impl Converter {
    fn check_pairs(&mut self, line: &Line, faults: &mut Vec<ConfigFault>) {
        let list = if line.section == "users" {
            &mut self.users
        } else {
            &mut self.databases
        };
        match (line.key.as_str(), ini::pairs(&line.value)) {
            ("%include", _) => self.note("%include", "convert the included file by itself"),
            ("pgbouncer" | "pgherd", Some(_)) if line.section == "databases" => {
                self.note(&line.key, "it is the name of the console");
            }
            (name, Some(pairs)) if !name.is_empty() => {
                list.retain(|(name, _)| *name != line.key);
                list.push((line.key.clone(), pairs));
            }
            (_, Some(_) | None) => faults.push(fault(
                "pgbouncer.ini",
                line.number,
                "is no name with a list of key=value pairs",
                "Write it as in host=127.0.0.1 port=5432, with single quotes around blanks.",
            )),
        }
    }

    pub(super) fn note(&mut self, what: &str, why: &str) {
        self.notes
            .push(format!("{}: {why}", what.replace(['\n', '\r'], " ")));
    }

    pub(super) fn line(&mut self, depth: usize, text: &str) {
        self.out.push_str(&"  ".repeat(depth));
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn setting(&self, name: &str) -> Option<String> {
        self.settings
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn convert(mut self, passwords: Vec<(String, String)>) -> String {
        self.same_settings();
        self.listen();
        let method = self.auth();
        self.tls(method);
        self.user_section(passwords, method);
        self.database_section();
        let mut text = "# Converted from PgBouncer's configuration.\n".to_owned();
        if !self.notes.is_empty() {
            text.push_str("# Not carried over:\n");
        }
        for note in &self.notes {
            text.push_str("#   ");
            text.push_str(note);
            text.push('\n');
        }
        text.push_str(&self.out);
        text
    }

    /// Settings that keep their name, with PgBouncer's defaults where pgherd has others.
    fn same_settings(&mut self) {
        for (name, default) in [("pool_mode", "session"), ("max_client_conn", "100")] {
            self.settings
                .entry(name.to_owned())
                .or_insert_with(|| default.to_owned());
        }
        for (name, text) in self.settings.clone() {
            let carry = SETTINGS
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, carry)| *carry);
            let written = match carry {
                None => {
                    self.note(&name, "the setting is not known");
                    continue;
                }
                Some(Carry::Dropped(why)) => {
                    self.note(&name, why);
                    continue;
                }
                Some(Carry::Elsewhere) => continue,
                Some(Carry::Same) if name == "pool_mode" => pool_mode(&text),
                Some(Carry::Same) if name == "min_pool_size" => self.min_pool_size(&text),
                Some(Carry::Same) => {
                    let min = u64::from(matches!(
                        name.as_str(),
                        "default_pool_size" | "max_client_conn"
                    ));
                    value::count(&text, min, 1_000_000)
                        .ok()
                        .map(|count| count.to_string())
                }
                Some(Carry::Seconds) => seconds(&text),
                Some(Carry::List) => Some(list(text.split(','))),
            };
            match written {
                Some(written) => self.line(0, &format!("{name}: {written}")),
                None => self.note(&name, "its value cannot be kept"),
            }
        }
    }

    /// It may not be larger than the pool.
    fn min_pool_size(&self, text: &str) -> Option<String> {
        let most = self
            .setting("default_pool_size")
            .and_then(|text| text.parse().ok());
        value::count(text, 0, most.unwrap_or(20))
            .ok()
            .map(|count| count.to_string())
    }

    fn listen(&mut self) {
        let port = self
            .setting("listen_port")
            .and_then(|port| port.parse::<u16>().ok());
        let port = port.filter(|port| *port > 0).unwrap_or(6432);
        let mut listen = Vec::new();
        let addresses = self.setting("listen_addr").unwrap_or_default();
        for address in addresses
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            let host = match address {
                "*" => "0.0.0.0".to_owned(),
                _ if address.contains(':') => format!("[{address}]"),
                _ => address.to_owned(),
            };
            let address = format!("{host}:{port}");
            if global::address(&address).is_none() || address.starts_with('/') {
                self.note("listen_addr", "one of its addresses cannot be kept");
            } else if !listen.contains(&address) {
                listen.push(address);
            }
        }
        let folder = self.settings.get("unix_socket_dir").cloned();
        match folder.or_else(|| listen.is_empty().then(|| "/tmp".to_owned())) {
            Some(folder) if folder.starts_with('/') => listen.push(format!("{folder}:{port}")),
            Some(folder) if !folder.is_empty() => {
                self.note("unix_socket_dir", "only folders are listened in");
            }
            Some(_) | None => (),
        }
        if listen.is_empty() {
            listen.push(format!("127.0.0.1:{port}"));
        }
        let text = list(listen.iter().map(String::as_str));
        self.line(0, &format!("listen: {text}"));
    }

    /// The method, and what goes with it.
    fn auth(&mut self) -> &'static str {
        let given = self
            .setting("auth_type")
            .unwrap_or_else(|| "md5".to_owned());
        let method = match given.as_str() {
            "md5" => "md5",
            "plain" => "plain",
            "trust" => "trust",
            "cert" if self.verifies_clients() => "cert",
            "hba" if self.setting("auth_hba_file").is_some() => "hba",
            "scram-sha-256" => "scram-sha-256",
            "any" => {
                self.note(
                    "auth_type any",
                    "trust stands in its place: clients keep their user names",
                );
                "trust"
            }
            _ => {
                self.note("auth_type", "scram-sha-256 stands in its place");
                "scram-sha-256"
            }
        };
        self.line(0, "auth:");
        self.line(1, &format!("method: {method}"));
        match self.setting("auth_hba_file") {
            Some(file) if method == "hba" => self.line(1, &format!("hba: {}", quote(&file))),
            Some(_) => self.note("auth_hba_file", "auth_type is not hba"),
            None => (),
        }
        match (self.setting("auth_user"), self.setting("auth_query")) {
            (Some(user), query) => {
                let query = query.unwrap_or_else(|| AUTH_QUERY.to_owned());
                self.line(1, &format!("user: {}", quote(&user)));
                if query.contains("$1") {
                    self.line(1, &format!("query: {}", quote(&query)));
                } else {
                    self.line(1, &format!("query: {}", quote(AUTH_QUERY)));
                    self.note(
                        "auth_query",
                        "it does not ask for $1; PgBouncer's own query stands in its place",
                    );
                }
            }
            (None, Some(_)) => self.note("auth_query", "auth_user is not set"),
            (None, None) => (),
        }
        method
    }

    /// Whether clients must show a certificate.
    fn verifies_clients(&self) -> bool {
        let files = [
            "client_tls_cert_file",
            "client_tls_key_file",
            "client_tls_ca_file",
        ];
        let mode = self.setting("client_tls_sslmode").unwrap_or_default();
        mode.starts_with("verify-") && files.iter().all(|file| self.setting(file).is_some())
    }

    fn tls(&mut self, method: &str) {
        let certificate = self
            .setting("client_tls_cert_file")
            .zip(self.setting("client_tls_key_file"));
        let ca = self.setting("client_tls_ca_file");
        let wanted = self
            .setting("client_tls_sslmode")
            .unwrap_or_else(|| "disable".to_owned());
        let (mode, verify) = match (wanted.as_str(), &certificate) {
            ("allow", Some(_)) => ("allow", false),
            ("prefer", Some(_)) => ("prefer", false),
            ("require", Some(_)) => ("require", false),
            ("verify-ca" | "verify-full", Some(_)) => ("require", true),
            ("disable", _) => ("disable", false),
            _ => {
                self.note(
                    "client_tls_sslmode",
                    "it needs client_tls_cert_file and client_tls_key_file",
                );
                ("disable", false)
            }
        };
        self.line(0, "tls:");
        self.line(1, &format!("mode: {mode}"));
        if let Some((certificate, key)) = certificate {
            self.line(1, &format!("certificate: {}", quote(&certificate)));
            self.line(1, &format!("key: {}", quote(&key)));
            if let Some(ca) = ca.filter(|_| verify || method == "cert") {
                self.line(1, &format!("client_ca: {}", quote(&ca)));
            }
        }
        let ca = self.setting("server_tls_ca_file");
        let wanted = self
            .setting("server_tls_sslmode")
            .unwrap_or_else(|| "prefer".to_owned());
        let mode = match (wanted.as_str(), &ca) {
            ("disable", _) => "disable",
            ("require", _) => "require",
            ("verify-ca", Some(_)) => "verify-ca",
            ("verify-full", Some(_)) => "verify-full",
            ("verify-ca" | "verify-full", None) => {
                self.note(
                    "server_tls_sslmode",
                    "it needs server_tls_ca_file; require stands in its place",
                );
                "require"
            }
            _ => "prefer",
        };
        self.line(0, "server_tls:");
        self.line(1, &format!("mode: {mode}"));
        if let Some(ca) = ca {
            self.line(1, &format!("ca: {}", quote(&ca)));
        }
    }
}

pub(super) fn pool_mode(text: &str) -> Option<String> {
    let word = text.to_lowercase();
    POOL_MODES.contains(&word.as_str()).then_some(word)
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let items = items
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(quote);
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

/// A double-quoted YAML scalar; `${` stays what it is.
pub(super) fn quote(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c if u32::from(c) <= 0xffff => format!("\\u{:04x}", u32::from(c)),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    let inner: String = text.replace("${", "$${").chars().map(escaped).collect();
    format!("\"{inner}\"")
}
