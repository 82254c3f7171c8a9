//! Session settings: what a client has set, what a server connection has, and the way between them.
//!
//! A value is kept as the text that stood after `TO` in its SET, so that replaying it means what it
//! meant. Sans-IO.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use foldhash::fast::FixedState;

/// Settings that neither parsing nor planning reads: a prepared statement is the same under all of them.
const UNREAD_BY_PARSER: &[&str] = &[
    "application_name",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "log_min_duration_statement",
    "statement_timeout",
];

/// An immutable set of settings that differ from the server's defaults, by lower-case name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    fingerprint: u64,
    parser_fingerprint: u32,
}

impl Settings {
    /// From names and values as SQL text.
    pub fn new(values: BTreeMap<String, String>) -> Rc<Settings> {
        let hash = |include: &dyn Fn(&str) -> bool| {
            let mut hasher = FixedState::default().build_hasher();
            for (name, value) in values.iter().filter(|(name, _)| include(name)) {
                name.hash(&mut hasher);
                value.hash(&mut hasher);
            }
            hasher.finish()
        };
        let (fingerprint, parser) = if values.is_empty() {
            (0, 0)
        } else {
            let parser_reads = |name: &str| !UNREAD_BY_PARSER.contains(&name);
            let parser = if values.keys().any(|name| parser_reads(name)) {
                hash(&parser_reads)
            } else {
                0
            };
            (hash(&|_| true), parser)
        };
        Rc::new(Settings {
            values,
            fingerprint,
            parser_fingerprint: u32::try_from(parser >> 32).unwrap_or(u32::MAX),
        })
    }

    /// Equal settings have equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Of the settings that PostgreSQL reads while it parses a statement.
    pub fn parser_fingerprint(&self) -> u32 {
        self.parser_fingerprint
    }

    /// Whether both hold the same values.
    pub fn same(self: &Rc<Settings>, other: &Rc<Settings>) -> bool {
        Rc::ptr_eq(self, other)
            || (self.fingerprint == other.fingerprint && self.values == other.values)
    }

    /// The value of one, as SQL text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether everything has the server's default.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The same with one value set.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Rc<Settings> {
        let mut values = self.values.clone();
        if name == "session_authorization" {
            values.remove("role");
        }
        values.insert(name.to_owned(), value.to_owned());
        Settings::new(values)
    }

    /// The same with one value back at `startup`'s, or at the server's default.
    #[must_use]
    pub fn without(&self, name: &str, startup: &Settings) -> Rc<Settings> {
        let mut values = self.values.clone();
        match startup.get(name) {
            Some(value) => values.insert(name.to_owned(), value.to_owned()),
            None => values.remove(name),
        };
        Settings::new(values)
    }
}

/// The statements that lead from one set of settings to another; empty when they are the same.
///
/// Session authorization and role come first, since they decide what else may be set.
pub fn difference(from: &Settings, to: &Settings) -> String {
    let mut sql = String::new();
    let changed = |name: &str| from.get(name) != to.get(name);
    let authorization = changed("session_authorization");
    if authorization {
        push_set(
            &mut sql,
            "session_authorization",
            to.get("session_authorization"),
        );
    }
    if changed("role") || (authorization && to.get("role").is_some()) {
        push_set(&mut sql, "role", to.get("role"));
    }
    for name in from
        .values
        .keys()
        .chain(to.values.keys().filter(|name| from.get(name).is_none()))
    {
        if changed(name) && name != "session_authorization" && name != "role" {
            push_set(&mut sql, name, to.get(name));
        }
    }
    sql
}

fn push_set(sql: &mut String, name: &str, value: Option<&str>) {
    let (set, reset) = match name {
        "session_authorization" => (
            "SET SESSION AUTHORIZATION ".to_owned(),
            "RESET SESSION AUTHORIZATION".to_owned(),
        ),
        "role" => ("SET ROLE ".to_owned(), "RESET ROLE".to_owned()),
        "timezone" => ("SET TIME ZONE ".to_owned(), "RESET TIME ZONE".to_owned()),
        _ => {
            let name = quote_name(name);
            (format!("SET {name} TO "), format!("RESET {name}"))
        }
    };
    match value {
        Some(value) => {
            sql.push_str(&set);
            sql.push_str(value);
        }
        None => sql.push_str(&reset),
    }
    sql.push(';');
}

/// A setting's name as SQL: each part between dots quoted.
fn quote_name(name: &str) -> String {
    name.split('.')
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect::<Vec<_>>()
        .join(".")
}

/// A value as an SQL string literal that means the same whatever `standard_conforming_strings` says.
pub fn quote_literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, difference, quote_literal};
    use std::collections::BTreeMap;

    fn settings(pairs: &[(&str, &str)]) -> std::rc::Rc<Settings> {
        let values: BTreeMap<String, String> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Settings::new(values)
    }

    #[test]
    fn difference_sets_changes_and_resets_the_rest() {
        let from = settings(&[("search_path", "a"), ("work_mem", "'1MB'")]);
        let to = settings(&[("search_path", "b, c"), ("role", "app")]);
        assert_eq!(
            difference(&from, &to),
            "SET ROLE app;SET \"search_path\" TO b, c;RESET \"work_mem\";"
        );
        assert_eq!(difference(&to, &to), "");
    }

    #[test]
    fn order_of_setting_does_not_matter() {
        let one = settings(&[]).with("a", "1").with("b", "2");
        let two = settings(&[]).with("b", "2").with("a", "1");
        assert!(one.same(&two) && one.fingerprint() == two.fingerprint());
        assert_eq!(one.without("a", &settings(&[])).get("a"), None);
    }

    #[test]
    fn parser_does_not_read_the_application_name() {
        let one = settings(&[("application_name", "'x'")]);
        assert_eq!(one.parser_fingerprint(), settings(&[]).parser_fingerprint());
        assert_ne!(one.fingerprint(), settings(&[]).fingerprint());
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        assert_eq!(quote_literal("o'x"), "'o''x'");
        assert_eq!(quote_literal("a\\'"), "E'a\\\\'''");
    }
}
