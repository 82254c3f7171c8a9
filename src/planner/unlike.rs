//! What each shard would work out for itself, so that copies of a reference table would differ.

use crate::planner::functions;
use crate::planner::literals::may_mean_moment;
use crate::sql::OBJECT_TYPES;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::scan::{Kind, Token};

/// Columns that every table has, with values of its own server.
const SYSTEM: [&str; 6] = ["xmin", "xmax", "cmin", "cmax", "ctid", "tableoid"];
/// Words that are calls without parentheses, or make a sequence of each server's own.
const CALLS: [&str; 17] = [
    "current_timestamp",
    "current_date",
    "current_time",
    "localtime",
    "localtimestamp",
    "current_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "session_user",
    "user",
    "serial",
    "bigserial",
    "smallserial",
    "serial2",
    "serial4",
    "serial8",
];
/// Words that a parenthesis follows where nothing is called.
const NO_CALLS: [&str; 25] = [
    "and",
    "any",
    "as",
    "bit",
    "cast",
    "char",
    "character",
    "check",
    "decimal",
    "default",
    "else",
    "exclude",
    "float",
    "in",
    "interval",
    "not",
    "numeric",
    "or",
    "then",
    "time",
    "timestamp",
    "using",
    "varying",
    "when",
    "with",
];
/// Types that read a text by the clock. [`OBJECT_TYPES`] read it by the catalogs.
const CLOCK_READERS: [&str; 11] = [
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "daterange",
    "tsrange",
    "tstzrange",
    "datemultirange",
    "tsmultirange",
    "tstzmultirange",
];

/// Types that take an object's number.
const INTEGERS: [&str; 6] = ["oid", "int", "int4", "integer", "int8", "bigint"];

/// Words that a parenthesis follows in code, where nothing is called.
const CODE_WORDS: [&str; 49] = [
    "all",
    "begin",
    "between",
    "by",
    "case",
    "conflict",
    "distinct",
    "elseif",
    "elsif",
    "end",
    "except",
    "exception",
    "exists",
    "filter",
    "for",
    "from",
    "foreach",
    "group",
    "having",
    "if",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "key",
    "lateral",
    "like",
    "limit",
    "loop",
    "materialized",
    "notice",
    "offset",
    "on",
    "only",
    "order",
    "over",
    "partition",
    "perform",
    "query",
    "return",
    "select",
    "set",
    "some",
    "union",
    "values",
    "varchar",
    "where",
    "while",
];

/// Whether this word is a call without parentheses, or makes a sequence.
pub(super) fn is_call(word: &str) -> bool {
    CALLS.contains(&word) && word != "user"
}

/// Whether a parenthesis behind this word calls nothing.
pub(super) fn is_keyword(word: &str) -> bool {
    NO_CALLS.contains(&word) || CODE_WORDS.contains(&word)
}

/// What in a statement is a server's own, whatever its expressions do with it.
pub(super) fn of_server(cursor: Cursor<'_>) -> Option<String> {
    let text = cursor.text();
    cursor.tokens().iter().find_map(|token| {
        if token.kind == Kind::UnicodeName {
            return Some("a name with Unicode escapes".to_owned());
        }
        if may_mean_moment(*token, text) {
            return Some("a constant that means the moment it is read".to_owned());
        }
        let name = word_name(*token, text)?;
        SYSTEM
            .contains(&name.as_str())
            .then(|| format!("system column {name}"))
    })
}

/// What in a read gives the number that an object has on the server of its rows. Comparing such numbers is no
/// harm, nor are their names.
pub(super) fn numbers(cursor: Cursor<'_>) -> Option<String> {
    let mut rest = cursor;
    let mut before = None;
    while let Some(token) = rest.peek() {
        let word = word_name(token, rest.text());
        if word.as_deref() == Some("cast") {
            let mut group = rest;
            group.advance();
            let inside = group.tokens();
            if group.skip_group() {
                let length = inside.len().saturating_sub(group.tokens().len());
                let mut last = inside.get(..length)?.iter().rev().skip(1);
                let mut ends = |name: &str| {
                    let word = last.next().and_then(|token| word_name(*token, rest.text()));
                    word.as_deref() == Some(name)
                };
                // Of one token it is a constant, a parameter or a column.
                if ends("oid") && ends("as") && length > 5 {
                    return Some("a conversion to oid".to_owned());
                }
            }
        }
        rest.advance();
        if word.as_deref() == Some("tableoid") {
            let mut next = rest;
            let names = next.take_kind(Kind::DoubleColon)
                && next
                    .parts()
                    .and_then(|mut parts| parts.pop())
                    .is_some_and(|to| OBJECT_TYPES.contains(&to.as_str()));
            let compares = matches!(rest.kind(), Some(Kind::Operator))
                || ["in", "is", "not", "between"]
                    .iter()
                    .any(|word| rest.at(word));
            if !names && !compares {
                return Some("system column tableoid".to_owned());
            }
        }
        if token.kind == Kind::DoubleColon {
            let Some(to) = rest.parts().and_then(|mut parts| parts.pop()) else {
                continue;
            };
            let mut next = rest;
            let is_object = OBJECT_TYPES.contains(&to.as_str());
            let number = is_object
                && next.take_kind(Kind::DoubleColon)
                && next
                    .parts()
                    .and_then(|mut parts| parts.pop())
                    .is_some_and(|to| INTEGERS.contains(&to.as_str()));
            if number || to == "oid" && before == Some(Kind::CloseParen) {
                return Some("a conversion to oid".to_owned());
            }
        }
        before = Some(token.kind);
    }
    None
}

/// What in the definition of a column is not known to be the same on every shard.
pub(super) fn definition(cursor: Cursor<'_>) -> Option<String> {
    of_server(cursor).or_else(|| {
        let mut rest = cursor;
        let mut before = None;
        while let Some(token) = rest.peek() {
            if rest.take("references") {
                rest.qualified();
                before = None;
                continue;
            }
            if let Some(what) = called(rest, before) {
                return Some(what);
            }
            before = rest.advance().map(|_| token);
        }
        None
    })
}

/// A call, or a conversion of what was worked out, at the next token.
fn called(mut rest: Cursor<'_>, before: Option<Token>) -> Option<String> {
    let is_word = rest.kind() == Some(Kind::Word);
    let opens = rest.kind() == Some(Kind::DoubleColon);
    if opens || rest.at("as") {
        rest.advance();
        let to = rest.parts()?.pop()?;
        let constant = before.is_some_and(|token| is_text(token.kind));
        let to_is_among = |types: &[&str]| types.contains(&to.as_str());
        let reads = to_is_among(&CLOCK_READERS) || to_is_among(&OBJECT_TYPES);
        return (reads && !constant).then(|| format!("a conversion to {to}"));
    }
    let parts = rest.parts()?;
    let call = rest.kind() == Some(Kind::OpenParen);
    let name = Name::of(parts)?;
    if is_word && name.schema.is_none() {
        if CALLS.contains(&name.name.as_str()) {
            return Some(name.name);
        }
        if name.name == "identity" {
            return Some("an identity".to_owned());
        }
    }
    let is_known = functions::is_plain(&name)
        || (is_word && name.schema.is_none() && NO_CALLS.contains(&name.name.as_str()));
    (call && !is_known).then(|| format!("a call of {name}"))
}

/// Whether a token is a string.
pub(super) fn is_text(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Text
            | Kind::TextPieces
            | Kind::Escaped
            | Kind::UnicodeText
            | Kind::National
            | Kind::Dollar
    )
}
