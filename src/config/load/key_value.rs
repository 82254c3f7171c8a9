//! Types and values of keys as the file has them: bounds of ranges, values of lists, pinned keys.

use crate::config::value::BadValue;
use crate::types::key::{Key, KeyError, KeyType};

/// What a type is called in the file.
const KEY_TYPES: &[&str] = &[
    "smallint",
    "integer",
    "bigint",
    "text",
    "uuid",
    "date",
    "timestamp",
    "timestamptz",
    "numeric",
    "enum",
];

/// The type a word of the file names, with PostgreSQL's aliases.
pub(super) fn key_type(text: &str) -> Result<KeyType, BadValue> {
    let word = text.to_lowercase();
    let found = match word.as_str() {
        "smallint" | "int2" => KeyType::Int2,
        "integer" | "int" | "int4" => KeyType::Int4,
        "bigint" | "int8" => KeyType::Int8,
        "text" | "varchar" | "character varying" => KeyType::Text,
        "uuid" => KeyType::Uuid,
        "date" => KeyType::Date,
        "timestamp" | "timestamp without time zone" => KeyType::Timestamp,
        "timestamptz" | "timestamp with time zone" => KeyType::TimestampTz,
        "numeric" | "decimal" => KeyType::Numeric,
        "enum" => KeyType::Enum,
        _ => {
            let hint = format!("Possible are {}.", KEY_TYPES.join(", "));
            return Err(BadValue::new("is no type that a key can have", hint));
        }
    };
    Ok(found)
}

/// Reads a value of the type, as placement does when it is built.
pub(super) fn read(text: &str, kind: KeyType) -> Result<Key<'static>, BadValue> {
    match Key::from_text(kind, text.as_bytes()) {
        Ok(key) => Ok(key.into_owned()),
        Err(KeyError::Invalid(fault)) => Err(BadValue::new(
            format!("is no {}: {}", kind.name(), fault.message),
            example(kind),
        )),
        Err(
            KeyError::Null
            | KeyError::Unprovable
            | KeyError::Unasked
            | KeyError::Unlisted(_)
            | KeyError::Uncovered(_),
        ) => Err(BadValue::new(
            format!("is no {}", kind.name()),
            example(kind),
        )),
    }
}

/// A hint that shows a value of the type.
fn example(kind: KeyType) -> &'static str {
    match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => "Write a whole number.",
        KeyType::Text => "Write text without a zero byte.",
        KeyType::Enum => "Write the label.",
        KeyType::Uuid => "Write it as in 7f3c0f52-66c1-4c6e-8b1a-4a0a5b6c7d8e.",
        KeyType::Date => "Write it as in 2025-01-31.",
        KeyType::Timestamp => "Write it as in 2025-01-31 12:00:00.",
        KeyType::TimestampTz => "Write it with its zone, as in 2025-01-31 12:00:00+00.",
        KeyType::Numeric => "Write digits and at most one point, as in 12.50.",
    }
}
