//! The value of one key column, from wherever a statement carries it.
//!
//! A value is read exactly as the server would read it for a column of the key's type, or not at
//! all: what depends on the session or on a cast is [`KeyError::Unprovable`], and the planner then
//! goes to every shard or refuses. Text is compared and hashed by its bytes, in the encoding it
//! came in.

mod decode;
mod modifier;

use std::borrow::Cow;

use super::numeric::Numeric;
use super::{hash, literal, oid, time};
use crate::error::Fault;
pub use modifier::keeps;

use decode::{binary_int, checked_text, from_number, int, invalid_binary, trim, uuid};

/// The type of one column of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    Int2,
    Int4,
    Int8,
    Text,
    Uuid,
    Date,
    Timestamp,
    TimestampTz,
    Numeric,
    /// By its label: PostgreSQL hashes an enum's oid, which differs from server to server.
    Enum,
}

impl KeyType {
    /// PostgreSQL's name for it, as its messages write it.
    pub fn name(self) -> &'static str {
        match self {
            KeyType::Int2 => "smallint",
            KeyType::Int4 => "integer",
            KeyType::Int8 => "bigint",
            KeyType::Text => "text",
            KeyType::Uuid => "uuid",
            KeyType::Date => "date",
            KeyType::Timestamp => "timestamp without time zone",
            KeyType::TimestampTz => "timestamp with time zone",
            KeyType::Numeric => "numeric",
            KeyType::Enum => "enum",
        }
    }

    /// Whether it is an integer of any width.
    pub fn is_int(self) -> bool {
        matches!(self, KeyType::Int2 | KeyType::Int4 | KeyType::Int8)
    }

    /// Whether a parameter declared with this type compares with such a key as its equal does.
    fn accepts(self, declared: u32) -> bool {
        match declared {
            0 | oid::UNKNOWN => true,
            // Its own type, a domain over it or a text that is cast to it: the label in any case. With
            // others the server does not compare it.
            oid::TEXT | oid::VARCHAR | oid::FIRST_USER.. if self == KeyType::Enum => true,
            oid::INT2 | oid::INT4 | oid::INT8 => self.is_int(),
            oid::TEXT | oid::VARCHAR => self == KeyType::Text,
            oid::UUID => self == KeyType::Uuid,
            oid::DATE => self == KeyType::Date,
            oid::TIMESTAMP => self == KeyType::Timestamp,
            oid::TIMESTAMPTZ => self == KeyType::TimestampTz,
            oid::NUMERIC => self == KeyType::Numeric || self.is_int(),
            _ => false,
        }
    }
}

/// Why a value is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// NULL: matches nothing on read, is refused on write.
    #[error("the key is null")]
    Null,
    /// Its value depends on something only the server knows.
    #[error("the value of the key is not known before the server computes it")]
    Unprovable,
    /// The server would refuse it; this is the error it would send.
    #[error("{0}")]
    Invalid(Box<Fault>),
    /// Where it belongs is known to the home shard, which has not been asked.
    #[error("the home shard was not asked where the key belongs")]
    Unasked,
    /// A directory, by its place among those of the distribution, is not known to list the key.
    #[error("it is not known whether a directory lists the key")]
    Unlisted(usize),
    /// A valid value that the distribution places nowhere.
    #[error("{0}")]
    Uncovered(Box<Fault>),
}

/// The value of one key column. Keys of one type are ordered as a `range` places them: text by its
/// bytes, as with COLLATE "C".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key<'a> {
    /// int2, int4 and int8 alike.
    Int(i64),
    /// An enum's label, too.
    Text(Cow<'a, [u8]>),
    Uuid([u8; 16]),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since 2000-01-01, with time zone or without.
    Timestamp(i64),
    Numeric(Numeric),
}

impl<'a> Key<'a> {
    /// Reads text format, as a parameter without a declared type or a COPY field has it.
    ///
    /// # Errors
    /// `Invalid` as PostgreSQL's input function would say, `Unprovable` where that depends on more
    /// than the text.
    pub fn from_text(kind: KeyType, text: &'a [u8]) -> Result<Key<'a>, KeyError> {
        match kind {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => int(kind, text).map(Key::Int),
            KeyType::Text | KeyType::Enum => checked_text(Cow::Borrowed(text)),
            KeyType::Uuid => uuid(text).map(Key::Uuid),
            KeyType::Date => time::date(trim(text))
                .map(Key::Date)
                .ok_or(KeyError::Unprovable),
            KeyType::Timestamp | KeyType::TimestampTz => {
                time::timestamp(trim(text), kind == KeyType::TimestampTz)
                    .map(Key::Timestamp)
                    .ok_or(KeyError::Unprovable)
            }
            KeyType::Numeric => Numeric::from_text(trim(text))
                .map(Key::Numeric)
                .ok_or(KeyError::Unprovable),
        }
    }

    /// Reads binary format. An integer may have the width of any integer type.
    ///
    /// # Errors
    /// `Invalid` (22P03) where the length cannot be that of the type.
    pub fn from_binary(kind: KeyType, bytes: &'a [u8]) -> Result<Key<'a>, KeyError> {
        let wrong = || invalid_binary(kind, bytes.len());
        match kind {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
                binary_int(bytes).map(Key::Int).ok_or_else(wrong)
            }
            KeyType::Text | KeyType::Enum => checked_text(Cow::Borrowed(bytes)),
            KeyType::Uuid => <[u8; 16]>::try_from(bytes)
                .map(Key::Uuid)
                .map_err(|_length| wrong()),
            KeyType::Date => <[u8; 4]>::try_from(bytes)
                .map(|bytes| Key::Date(i32::from_be_bytes(bytes)))
                .map_err(|_length| wrong()),
            KeyType::Timestamp | KeyType::TimestampTz => <[u8; 8]>::try_from(bytes)
                .map(|bytes| Key::Timestamp(i64::from_be_bytes(bytes)))
                .map_err(|_length| wrong()),
            KeyType::Numeric => Numeric::from_binary(bytes)
                .map(Key::Numeric)
                .ok_or(KeyError::Unprovable),
        }
    }

    /// Reads a parameter of Bind: its bytes, its format and the type Parse declared (0: none).
    ///
    /// # Errors
    /// As for the two formats; `Null` without a value; `Unprovable` where the declared type makes
    /// the server compare by another type than the key's.
    pub fn from_parameter(
        kind: KeyType,
        value: Option<&'a [u8]>,
        binary: bool,
        declared: u32,
    ) -> Result<Key<'a>, KeyError> {
        let value = value.ok_or(KeyError::Null)?;
        if !kind.accepts(declared) {
            return Err(KeyError::Unprovable);
        }
        if declared == oid::NUMERIC && kind.is_int() {
            let number = if binary {
                Numeric::from_binary(value)
            } else {
                Numeric::from_text(trim(value))
            };
            return number
                .and_then(|number| number.to_int())
                .map(Key::Int)
                .ok_or(KeyError::Unprovable);
        }
        // A declared integer type wins over the width of the column.
        let kind = match declared {
            oid::INT2 => KeyType::Int2,
            oid::INT4 => KeyType::Int4,
            oid::INT8 => KeyType::Int8,
            _ => kind,
        };
        if binary {
            Key::from_binary(kind, value)
        } else {
            Key::from_text(kind, value)
        }
    }

    /// Reads a literal from its source text, quotes included; `negative` when a minus stands before.
    ///
    /// # Errors
    /// As for text format; `Unprovable` for a literal whose type is not the key's, as in `1.0` or
    /// `1e3` for an integer, and for forms of strings that are left to the server.
    pub fn from_literal(
        kind: KeyType,
        source: &'a [u8],
        negative: bool,
    ) -> Result<Key<'a>, KeyError> {
        if source.first().is_some_and(u8::is_ascii_digit) {
            return from_number(kind, source, negative);
        }
        if negative {
            return Err(KeyError::Unprovable);
        }
        match literal::string(source).ok_or(KeyError::Unprovable)? {
            Cow::Borrowed(text) => Key::from_text(kind, text),
            Cow::Owned(text) if matches!(kind, KeyType::Text | KeyType::Enum) => {
                checked_text(Cow::Owned(text))
            }
            Cow::Owned(text) => Key::from_text(kind, &text).map(Key::into_owned),
        }
    }

    /// The same value, with its text owned.
    pub fn into_owned(self) -> Key<'static> {
        match self {
            Key::Text(text) => Key::Text(Cow::Owned(text.into_owned())),
            Key::Int(value) => Key::Int(value),
            Key::Uuid(value) => Key::Uuid(value),
            Key::Date(value) => Key::Date(value),
            Key::Timestamp(value) => Key::Timestamp(value),
            Key::Numeric(value) => Key::Numeric(value),
        }
    }

    /// The hash of this column, with PostgreSQL's partition seed.
    pub fn hash(&self) -> u64 {
        let seed = hash::PARTITION_SEED;
        match self {
            Key::Int(value) | Key::Timestamp(value) => hash::int(*value, seed),
            Key::Text(text) => hash::bytes(text, seed),
            Key::Uuid(bytes) => hash::bytes(bytes, seed),
            Key::Date(days) => hash::int(i64::from(*days), seed),
            Key::Numeric(value) => value.hash(seed),
        }
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Int(value) => write!(f, "{value}"),
            Key::Text(text) => f.write_str(&String::from_utf8_lossy(text)),
            Key::Uuid(bytes) => write!(f, "{:032x}", u128::from_be_bytes(*bytes)),
            Key::Date(days) => write!(f, "date {days} days after 2000-01-01"),
            Key::Timestamp(micros) => write!(f, "timestamp {micros} µs after 2000-01-01"),
            Key::Numeric(value) => write!(f, "{value:?}"),
        }
    }
}

/// The hash of a row's key: the columns' hashes folded by `hash_combine64`.
pub fn row_hash(key: &[Key<'_>]) -> u64 {
    key.iter()
        .fold(0, |row, column| hash::combine(row, column.hash()))
}

#[cfg(test)]
mod tests {
    use super::{Key, KeyError, KeyType};
    use crate::types::oid;

    /// The key as text, or what was wrong: an SQLSTATE, `null` or `unprovable`.
    fn show(key: Result<Key<'_>, KeyError>) -> String {
        match key {
            Ok(key) => key.to_string(),
            Err(KeyError::Null) => "null".into(),
            Err(KeyError::Unprovable) => "unprovable".into(),
            Err(KeyError::Unasked | KeyError::Unlisted(_)) => "unasked".into(),
            Err(KeyError::Invalid(fault) | KeyError::Uncovered(fault)) => {
                fault.code.as_str().into()
            }
        }
    }

    #[test]
    fn text_is_read_as_the_server_reads_it() {
        let check = |kind, text: &str, expect: &str| {
            assert_eq!(
                show(Key::from_text(kind, text.as_bytes())),
                expect,
                "{text:?}"
            );
        };
        check(KeyType::Int8, " +42\t\n", "42");
        check(KeyType::Int8, "-0", "0");
        check(KeyType::Int8, "9223372036854775807", "9223372036854775807");
        check(
            KeyType::Int8,
            "-9223372036854775808",
            "-9223372036854775808",
        );
        check(KeyType::Int8, "9223372036854775808", "22003");
        check(KeyType::Int4, "-2147483648", "-2147483648");
        check(KeyType::Int4, "2147483648", "22003");
        check(KeyType::Int2, "32768", "22003");
        for bad in [
            "", " ", "-", "abc", "1e3", "1.0", "1 2", "- 1", "--1", "1_a b",
        ] {
            check(KeyType::Int8, bad, "22P02");
        }
        // PostgreSQL 16 reads these, 15 does not.
        check(KeyType::Int8, "0x1F", "unprovable");
        check(KeyType::Int8, "1_000", "unprovable");
        check(KeyType::Text, " a ", " a ");
        check(KeyType::Text, "a\0b", "22021");
        let plain = "00112233445566778899aabbccddeeff";
        check(KeyType::Uuid, "00112233-4455-6677-8899-AABBCCDDEEFF", plain);
        check(
            KeyType::Uuid,
            "{0011-2233-4455-6677-8899-aabb-ccdd-eeff}",
            plain,
        );
        for bad in [
            "",
            "0011223",
            "001-12233445566778899aabbccddeeff",
            "{00112233445566778899aabbccddeeff",
            "00112233445566778899aabbccddeeff-",
            "00112233445566778899aabbccddeeff ",
        ] {
            check(KeyType::Uuid, bad, "22P02");
        }
        check(KeyType::Date, "2000-01-31", "date 30 days after 2000-01-01");
        check(KeyType::Date, "today", "unprovable");
    }

    #[test]
    fn literals_are_read_from_their_source() {
        let check = |kind, source: &str, negative, expect: &str| {
            let key = Key::from_literal(kind, source.as_bytes(), negative);
            assert_eq!(show(key), expect, "{source}");
        };
        check(KeyType::Int8, "5", false, "5");
        check(
            KeyType::Int8,
            "9223372036854775808",
            true,
            "-9223372036854775808",
        );
        check(KeyType::Int8, "9223372036854775808", false, "unprovable");
        check(KeyType::Int2, "70000", false, "70000");
        check(KeyType::Int8, "'5'", false, "5");
        check(KeyType::Int8, "'5'", true, "unprovable");
        check(KeyType::Int8, "'x'", false, "22P02");
        check(KeyType::Int8, "1e3", false, "unprovable");
        check(KeyType::Int8, "1.0", false, "unprovable");
        check(KeyType::Int8, "E'\\x35'", false, "5");
        check(KeyType::Int8, "$1", false, "unprovable");
        check(KeyType::Text, "'it''s'", false, "it's");
        check(KeyType::Text, "5", false, "unprovable");
        check(KeyType::Text, "U&'a'", false, "unprovable");
        check(KeyType::Text, "", false, "unprovable");
    }

    #[test]
    fn parameters_are_read_by_format_and_declared_type() {
        let check = |kind, value: Option<&[u8]>, binary, declared, expect: &str| {
            let key = Key::from_parameter(kind, value, binary, declared);
            assert_eq!(show(key), expect, "{value:?} {declared}");
        };
        check(KeyType::Int8, None, false, 0, "null");
        check(KeyType::Int8, Some(b"7"), false, 0, "7");
        check(KeyType::Int2, Some(b"70000"), false, oid::INT4, "70000");
        check(KeyType::Int8, Some(&[255, 255]), true, oid::INT2, "-1");
        check(KeyType::Int8, Some(&[0, 0, 0, 9]), true, oid::INT4, "9");
        check(KeyType::Int4, Some(&[0, 0, 0, 0, 0, 0, 0, 9]), true, 0, "9");
        check(KeyType::Int4, Some(&[0, 0, 9]), true, 0, "22P03");
        check(KeyType::Int8, Some(b"7"), false, oid::FLOAT8, "unprovable");
        check(KeyType::Int8, Some(b"7.0"), false, oid::NUMERIC, "7");
        check(
            KeyType::Int8,
            Some(b"7.5"),
            false,
            oid::NUMERIC,
            "unprovable",
        );
        check(
            KeyType::Int8,
            Some(&[0, 1, 0, 0, 0x40, 0, 0, 0, 0, 7]),
            true,
            oid::NUMERIC,
            "-7",
        );
        check(KeyType::Text, Some(b"7"), true, oid::VARCHAR, "7");
        check(KeyType::Text, Some(b"7"), false, oid::BPCHAR, "unprovable");
        check(
            KeyType::Uuid,
            Some(&[0; 16]),
            true,
            oid::UUID,
            &"0".repeat(32),
        );
        check(
            KeyType::Date,
            Some(&[0, 0, 0, 1]),
            true,
            0,
            "date 1 days after 2000-01-01",
        );
    }
}
