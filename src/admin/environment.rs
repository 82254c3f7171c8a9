//! What drivers and tools ask on their way in, answered harmlessly. Sans-IO.
//!
//! Drivers send `SET extra_float_digits`, `SELECT version()`, `SHOW transaction isolation level` and
//! the like before the operator's first command. They are answered from constants; a SET of one of
//! these settings is accepted and changes nothing, as in PgBouncer.

use std::borrow::Cow;

use crate::admin::answer::{Answer, Cell, Column, Type, text};
use crate::admin::lexer::Token;
use crate::error::{Fault, SqlState};

/// The server version that drivers are told: they switch habits on it, and 15's are understood here.
pub const SERVER_VERSION: &str = concat!("15.0 (pgherd ", env!("CARGO_PKG_VERSION"), ")");

/// What SHOW VERSION answers.
pub const VERSION: &str = concat!("pgherd ", env!("CARGO_PKG_VERSION"));

/// Settings that can be shown and set, and their values.
const SETTINGS: &[(&str, &str)] = &[
    ("application_name", ""),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("datestyle", "ISO, MDY"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("intervalstyle", "postgres"),
    ("is_superuser", "off"),
    ("lock_timeout", "0"),
    ("max_identifier_length", "63"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("server_encoding", "UTF8"),
    ("server_version", SERVER_VERSION),
    ("server_version_num", "150000"),
    ("standard_conforming_strings", "on"),
    ("statement_timeout", "0"),
    ("timezone", "GMT"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
];

/// What the console reports as ParameterStatus after login.
pub fn parameters() -> Vec<(&'static str, String)> {
    let reported = [
        "server_version",
        "server_encoding",
        "client_encoding",
        "DateStyle",
        "TimeZone",
        "IntervalStyle",
        "integer_datetimes",
        "standard_conforming_strings",
        "is_superuser",
        "in_hot_standby",
        "default_transaction_read_only",
    ];
    let known = |name| setting(name).map(|value| (name, value.to_owned()));
    reported.into_iter().filter_map(known).collect()
}

/// The value of a setting, by its name in any case.
pub fn setting(name: &str) -> Option<&'static str> {
    SETTINGS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| *value)
}

/// SHOW of a setting: one row under its name.
pub fn show(name: &str) -> Option<Answer> {
    let (name, value) = SETTINGS
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
    Some(row("SHOW", vec![(text(name), Cell::from(*value))]))
}

/// SHOW ALL: every setting there is to show.
pub fn show_all() -> Answer {
    let rows = SETTINGS.iter().map(|(name, value)| {
        vec![
            Cell::from(*name),
            Cell::from(*value),
            Cell::from("Answered by the console; changes nothing."),
        ]
    });
    Answer {
        notices: Vec::new(),
        columns: Cow::Owned(vec![text("name"), text("setting"), text("description")]),
        rows: rows.collect(),
        tag: "SHOW",
    }
}

/// SELECT of constants and of the functions drivers call; anything else is refused.
pub fn select(tokens: &[Token], user: &str) -> Result<Answer, Fault> {
    let items = tokens.split(|token| *token == Token::Mark(','));
    let values: Option<Vec<_>> = items.map(|item| value(item, user)).collect();
    let values = values.ok_or_else(|| {
        Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "the console runs no queries",
        )
        .detail("It answers SELECT of constants and of a few functions that drivers call.")
        .hint("Use SHOW HELP for what the console knows, or connect to one of your databases.")
    })?;
    Ok(row("SELECT 1", values))
}

fn value(item: &[Token], user: &str) -> Option<(Column, Cell)> {
    let (item, alias) = match item {
        [item @ .., keyword, alias] if keyword.is("as") => (item, Some(alias.name()?)),
        _ => (item, None),
    };
    let (name, kind, cell) = constant(item).or_else(|| function(item, user))?;
    let name = alias.map_or(Cow::Borrowed(name), Cow::Owned);
    Some((Column { name, kind }, cell))
}

fn constant(item: &[Token]) -> Option<(&'static str, Type, Cell)> {
    match item {
        [Token::Number(digits)] => {
            let number: i64 = digits.parse().ok()?;
            let kind = if i32::try_from(number).is_ok() {
                Type::Int4
            } else {
                Type::Int8
            };
            Some(("?column?", kind, Cell::Int(number)))
        }
        [Token::Text(value)] => Some(("?column?", Type::Text, Cell::from(value))),
        [word] if word.is("null") => Some(("?column?", Type::Text, Cell::Null)),
        _ => None,
    }
}

/// A call without its schema, `current_user` and the like without parentheses.
fn function(item: &[Token], user: &str) -> Option<(&'static str, Type, Cell)> {
    let item = match item {
        [schema, Token::Mark('.'), call @ ..] if schema.is("pg_catalog") => call,
        _ => item,
    };
    let (name, arguments) = match item {
        [name] => (name.name()?, None),
        [name, Token::Mark('('), arguments @ .., Token::Mark(')')] => {
            (name.name()?, Some(arguments))
        }
        _ => return None,
    };
    let database = "pgherd";
    Some(match (name.as_str(), arguments) {
        ("version", Some([])) => (
            "version",
            Type::Text,
            Cell::from(format!("PostgreSQL {SERVER_VERSION}")),
        ),
        ("current_database" | "current_catalog", _) => {
            ("current_database", Type::Text, Cell::from(database))
        }
        ("current_schema", _) => ("current_schema", Type::Text, Cell::from("public")),
        ("current_user" | "user", None) => {
            ("current_user", Type::Text, Cell::from(user.to_owned()))
        }
        ("session_user", None) => ("session_user", Type::Text, Cell::from(user.to_owned())),
        ("pg_backend_pid", Some([])) => ("pg_backend_pid", Type::Int4, Cell::Int(0)),
        ("pg_advisory_unlock_all", Some([])) => {
            ("pg_advisory_unlock_all", Type::Void, Cell::from(""))
        }
        ("pg_is_in_recovery", Some([])) => ("pg_is_in_recovery", Type::Text, Cell::from("f")),
        ("current_setting", Some([Token::Text(name)])) => {
            ("current_setting", Type::Text, Cell::from(setting(name)?))
        }
        _ => return None,
    })
}

fn row(tag: &'static str, values: Vec<(Column, Cell)>) -> Answer {
    let (columns, cells) = values.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
    Answer {
        notices: Vec::new(),
        columns: Cow::Owned(columns),
        rows: vec![cells],
        tag,
    }
}

#[cfg(test)]
mod tests {
    use super::select;
    use crate::admin::lexer::statements;

    fn check(items: &str, expect: Option<&str>) {
        let tokens = statements(items).unwrap().pop().unwrap_or_default();
        let shown = select(&tokens, "ann").ok().map(|answer| {
            let names = answer.columns.iter().map(|column| column.name.clone());
            let cells = answer
                .rows
                .iter()
                .flatten()
                .map(|cell| cell.show().into_owned());
            names
                .zip(cells)
                .map(|(name, cell)| format!("{name}={cell}"))
                .collect::<Vec<_>>()
                .join(" ")
        });
        assert_eq!(shown.as_deref(), expect, "{items}");
    }

    #[test]
    fn drivers_are_answered_and_queries_are_not() {
        check("1", Some("?column?=1"));
        check("1 AS one, 'x' as \"X\"", Some("one=1 X=x"));
        check("pg_catalog.current_schema()", Some("current_schema=public"));
        check("current_user", Some("current_user=ann"));
        check("current_setting('TimeZone')", Some("current_setting=GMT"));
        check("pg_catalog.set_config('x', 'y', false)", None);
        check("oid FROM pg_type", None);
    }
}
