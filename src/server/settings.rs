//! Session settings: what a client has set, what a server connection has, and the way between them.
//!
//! A value is kept as the text that stood after `TO` in its SET, so that replaying it means what it
//! meant. A list that came as one value is kept behind `VERBATIM`: SET would take it for one name, so
//! it is replayed by `set_config`. Sans-IO.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::{Rc, Weak};

use foldhash::fast::FixedState;

use crate::sql::quote::{quote_ident, quote_literal};

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

/// Settings by which PostgreSQL reads the text and folds the literals of a statement while it parses
/// it. They count as they were at Parse, however they are set when the statement is bound.
const READ_ONCE: &[&str] = &[
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "lc_numeric",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Lists of names, of which SET quotes each (`GUC_LIST_QUOTE` in PostgreSQL).
const LISTS_OF_NAMES: &[&str] = &[
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "temp_tablespaces",
];

/// Stands before a value that only `set_config` takes as it is. No text of a SET begins with it.
const VERBATIM: char = '=';

/// An immutable set of settings that differ from the server's defaults, by lower-case name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    values: BTreeMap<String, String>,
    fingerprint: u64,
    parser_fingerprint: u32,
    literal_fingerprint: u32,
}

impl Settings {
    /// From names and values as SQL text.
    pub fn new(values: BTreeMap<String, String>) -> Rc<Settings> {
        // 0 where none of those that count is set.
        let hash = |include: &dyn Fn(&str) -> bool| {
            let mut hasher = FixedState::default().build_hasher();
            let mut counted = values.iter().filter(|(name, _)| include(name)).peekable();
            if counted.peek().is_none() {
                return 0;
            }
            for (name, value) in counted {
                name.hash(&mut hasher);
                value.hash(&mut hasher);
            }
            hasher.finish()
        };
        let upper = |hash: u64| u32::try_from(hash >> 32).unwrap_or(u32::MAX);
        let fingerprint = hash(&|_| true);
        let parser_fingerprint = upper(hash(&|name| !UNREAD_BY_PARSER.contains(&name)));
        let literal_fingerprint = upper(hash(&|name| READ_ONCE.contains(&name)));
        shared(Settings {
            values,
            fingerprint,
            parser_fingerprint,
            literal_fingerprint,
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

    /// Of the settings that decide what the literals of a text mean when it is parsed.
    pub fn literal_fingerprint(&self) -> u32 {
        self.literal_fingerprint
    }

    /// These settings, with those that decide what literals mean as they are in `parsed_under`.
    #[must_use]
    pub fn reading_literals_as(&self, parsed_under: &Settings) -> Rc<Settings> {
        let mut values = self.values.clone();
        for name in READ_ONCE {
            match parsed_under.get(name) {
                Some(value) => values.insert((*name).to_owned(), value.to_owned()),
                None => values.remove(*name),
            };
        }
        Settings::new(values)
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
        if name == "session_authorization" {
            values.remove("role");
        }
        match startup.get(name) {
            Some(value) => values.insert(name.to_owned(), value.to_owned()),
            None => values.remove(name),
        };
        Settings::new(values)
    }
}

thread_local! {
    /// The settings in use on this thread, by fingerprint: equal ones are one allocation, so that
    /// comparing them is comparing addresses.
    static IN_USE: RefCell<HashMap<u64, Weak<Settings>, FixedState>> = RefCell::default();
}

/// The one allocation of these settings.
fn shared(settings: Settings) -> Rc<Settings> {
    IN_USE.with_borrow_mut(|in_use| {
        let known = in_use.get(&settings.fingerprint).and_then(Weak::upgrade);
        if let Some(known) = known {
            return if known.values == settings.values {
                known
            } else {
                Rc::new(settings)
            };
        }
        if in_use.len() == in_use.capacity() {
            in_use.retain(|_, settings| settings.strong_count() > 0);
        }
        let fingerprint = settings.fingerprint;
        let settings = Rc::new(settings);
        in_use.insert(fingerprint, Rc::downgrade(&settings));
        settings
    })
}

/// The statements that lead from one set of settings to another; empty when they are the same.
///
/// Session authorization and role come first, since they decide what else may be set.
pub fn difference(from: &Settings, to: &Settings) -> String {
    let mut sql = String::new();
    for statement in steps(from, to, "") {
        sql.push_str(&statement);
        sql.push(';');
    }
    sql
}

/// The same, statement by statement; `scope` is `LOCAL ` for changes that end with the transaction.
pub fn steps(from: &Settings, to: &Settings, scope: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let changed = |name: &str| from.get(name) != to.get(name);
    let authorization = changed("session_authorization");
    if authorization {
        let name = "session_authorization";
        steps.push(set_statement(name, to.get(name), scope));
    }
    if changed("role") || (authorization && to.get("role").is_some()) {
        steps.push(set_statement("role", to.get("role"), scope));
    }
    for name in from
        .values
        .keys()
        .chain(to.values.keys().filter(|name| from.get(name).is_none()))
    {
        if changed(name) && name != "session_authorization" && name != "role" {
            steps.push(set_statement(name, to.get(name), scope));
        }
    }
    steps
}

/// Statements that change settings around a Parse and change them back.
#[derive(Debug, Default)]
pub struct Detour {
    pub there: Vec<String>,
    pub back: Vec<String>,
}

fn set_statement(name: &str, value: Option<&str>, scope: &str) -> String {
    if let Some(value) = value.and_then(|value| value.strip_prefix(VERBATIM)) {
        let (name, value) = (quote_literal(name), quote_literal(value));
        let is_local = !scope.is_empty();
        return format!("SELECT pg_catalog.set_config({name}, {value}, {is_local})");
    }
    let (what, to) = match name {
        "session_authorization" => ("SESSION AUTHORIZATION".to_owned(), ""),
        "role" => ("ROLE".to_owned(), ""),
        "timezone" => ("TIME ZONE".to_owned(), ""),
        _ => (quote_name(name), "TO "),
    };
    match value {
        Some(value) => format!("SET {scope}{what} {to}{value}"),
        None if scope.is_empty() => format!("RESET {what}"),
        None => format!("SET {scope}{what} {to}DEFAULT"),
    }
}

/// A setting's name as SQL: each part between dots quoted.
pub fn quote_name(name: &str) -> String {
    name.split('.')
        .map(quote_ident)
        .collect::<Vec<_>>()
        .join(".")
}

/// A whole value as it is kept.
pub fn of_whole(name: &str, value: &str) -> String {
    if LISTS_OF_NAMES.contains(&name) {
        format!("{VERBATIM}{value}")
    } else {
        quote_literal(value)
    }
}

/// A value that is kept as it came whole: a list of names.
pub fn whole(kept: &str) -> Option<&str> {
    kept.strip_prefix(VERBATIM)
}

/// The names in a list that is one value (`SplitIdentifierString` in `varlena.c`); none where it is
/// malformed, which no server accepts.
pub fn names_of_list(list: &str) -> Vec<String> {
    const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];
    let mut names = Vec::new();
    let mut rest = list.trim_matches(SPACE);
    while !rest.is_empty() {
        let name;
        if rest.starts_with('"') {
            let Some((quoted, behind)) = quoted_name(rest) else {
                return Vec::new();
            };
            name = quoted;
            rest = behind;
        } else {
            let end = rest.find(|c| c == ',' || SPACE.contains(&c));
            let (plain, behind) = rest.split_at(end.unwrap_or(rest.len()));
            name = plain.to_ascii_lowercase();
            rest = behind;
        }
        names.push(name);
        rest = rest.trim_start_matches(SPACE);
        match rest.strip_prefix(',') {
            Some(behind) if !behind.is_empty() => rest = behind.trim_start_matches(SPACE),
            _ if rest.is_empty() => {}
            _ => return Vec::new(),
        }
    }
    names
}

/// A name in double quotes at the start of `text`, and what is behind it.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (part, behind) = rest.split_once('"')?;
        name.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Settings, difference, names_of_list, of_whole};
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

    /// As `SetSessionAuthorization` does for SET and RESET.
    #[test]
    fn session_authorization_takes_the_role_along() {
        let none = settings(&[]);
        let played = settings(&[("session_authorization", "app"), ("role", "reader")]);
        assert!(played.without("session_authorization", &none).is_empty());
        let other = played.with("session_authorization", "other");
        assert_eq!(other.get("role"), None);
    }

    #[test]
    fn parser_does_not_read_the_application_name() {
        let one = settings(&[("application_name", "'x'")]);
        assert_eq!(one.parser_fingerprint(), settings(&[]).parser_fingerprint());
        assert_ne!(one.fingerprint(), settings(&[]).fingerprint());
    }

    #[test]
    fn what_literals_mean_is_apart_from_the_rest() {
        let parsed = settings(&[("timezone", "'Asia/Tokyo'"), ("search_path", "a")]);
        let now = settings(&[("datestyle", "german"), ("search_path", "b")]);
        let both = now.reading_literals_as(&parsed);
        assert!(both.same(&settings(&[
            ("timezone", "'Asia/Tokyo'"),
            ("search_path", "b")
        ])));
        assert_eq!(both.literal_fingerprint(), parsed.literal_fingerprint());
        assert_ne!(now.literal_fingerprint(), parsed.literal_fingerprint());
        let local = super::steps(&now, &both, "LOCAL ");
        assert_eq!(
            local,
            [
                "SET LOCAL \"datestyle\" TO DEFAULT",
                "SET LOCAL TIME ZONE 'Asia/Tokyo'"
            ]
        );
    }

    #[test]
    fn a_list_that_came_whole_is_sent_whole() {
        let none = settings(&[]);
        let path = none.with(
            "search_path",
            &of_whole("search_path", "public; SET a = 'b'"),
        );
        assert_eq!(
            difference(&none, &path),
            "SELECT pg_catalog.set_config('search_path', 'public; SET a = ''b''', false);"
        );
        let local = super::steps(&none, &path, "LOCAL ");
        assert!(local.iter().all(|step| step.ends_with(", true)")));
        assert_eq!(of_whole("work_mem", "1MB"), "'1MB'");
    }

    #[test]
    fn names_of_a_list_are_split_as_postgres_does() {
        for (list, names) in [
            ("tenant-1", vec!["tenant-1"]),
            (" \"$user\" ,Public", vec!["$user", "public"]),
            ("\"a\"\"b, c\",1", vec!["a\"b, c", "1"]),
            ("a b", vec![]),
            ("a,", vec![]),
            ("\"a", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(names_of_list(list), names, "{list}");
        }
    }
}
