//! Values as a server sends them, in text or binary format, in the order that PostgreSQL gives them.

use std::cmp::Ordering;

use crate::placement::catalog::Collation;
use crate::types::numeric::Numeric;
use crate::types::{oid, time};

/// The types whose order is known here, as far as they compare alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `smallint`, `integer`, `bigint`.
    Int,
    Oid,
    Bool,
    Float4,
    Float8,
    Numeric,
    Date,
    Timestamp,
    TimestampTz,
    Uuid,
    Bytea,
    /// `"char"`: one byte.
    Char,
    /// Text of every type but `character`, by its bytes.
    Text,
    /// `character(n)`: blanks at its end do not count.
    Blanked,
    /// A floating-point number as `float8send` gives it.
    SentFloat,
}

impl Kind {
    /// The kind of a type; `None` where its order is not known, as that of text under other collations
    /// than C.
    pub fn of(kind: u32, collation: Collation) -> Option<Kind> {
        let by_bytes = collation != Collation::Other;
        Some(match kind {
            oid::INT2 | oid::INT4 | oid::INT8 => Kind::Int,
            oid::OID => Kind::Oid,
            oid::BOOL => Kind::Bool,
            oid::FLOAT4 => Kind::Float4,
            oid::FLOAT8 => Kind::Float8,
            oid::NUMERIC => Kind::Numeric,
            oid::DATE => Kind::Date,
            oid::TIMESTAMP => Kind::Timestamp,
            oid::TIMESTAMPTZ => Kind::TimestampTz,
            oid::UUID => Kind::Uuid,
            oid::BYTEA => Kind::Bytea,
            oid::CHAR => Kind::Char,
            oid::TEXT | oid::VARCHAR | oid::NAME if by_bytes => Kind::Text,
            oid::BPCHAR if by_bytes => Kind::Blanked,
            _ => return None,
        })
    }

    /// Whether its text says how two values compare, whatever the settings.
    pub fn is_exact_in_text(self) -> bool {
        !matches!(self, Kind::Float4 | Kind::Float8)
    }

    /// Whether its text is read in the ISO DateStyle only.
    pub fn is_time(self) -> bool {
        matches!(self, Kind::Date | Kind::Timestamp | Kind::TimestampTz)
    }
}

/// A value that is not NULL. Only values of one kind are compared.
#[derive(Clone, Debug)]
pub enum Value {
    Int(i64),
    /// Ordered as `float8_cmp_internal`: NaN above everything and equal to itself, -0 equal to 0.
    Float(f64),
    Numeric(Amount),
    Bytes(Box<[u8]>),
}

/// A numeric with its special values, in their order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Amount {
    NegativeInfinity,
    Finite(Numeric),
    Infinity,
    NaN,
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Int(one), Value::Int(two)) => one.cmp(two),
            (Value::Float(one), Value::Float(two)) => compare_floats(*one, *two),
            (Value::Numeric(one), Value::Numeric(two)) => one.cmp(two),
            (Value::Bytes(one), Value::Bytes(two)) => one.cmp(two),
            // Values of different kinds never meet; the order of the kinds keeps it total.
            (one, two) => one.rank().cmp(&two.rank()),
        }
    }
}

fn compare_floats(one: f64, two: f64) -> Ordering {
    match one.partial_cmp(&two) {
        Some(order) => order,
        None => one.is_nan().cmp(&two.is_nan()),
    }
}

impl Value {
    fn rank(&self) -> u8 {
        match self {
            Value::Int(_) => 0,
            Value::Float(_) => 1,
            Value::Numeric(_) => 2,
            Value::Bytes(_) => 3,
        }
    }

    /// Reads a value; `None` where it is none of its kind.
    pub fn read(kind: Kind, bytes: &[u8], binary: bool) -> Option<Value> {
        if binary {
            from_binary(kind, bytes)
        } else {
            from_text(kind, bytes)
        }
    }
}

fn from_binary(kind: Kind, bytes: &[u8]) -> Option<Value> {
    let int = |bytes: &[u8]| {
        Some(match bytes.len() {
            2 => i16::from_be_bytes(bytes.try_into().ok()?).into(),
            4 => i32::from_be_bytes(bytes.try_into().ok()?).into(),
            8 => i64::from_be_bytes(bytes.try_into().ok()?),
            _ => return None,
        })
    };
    Some(match kind {
        Kind::Int | Kind::Date | Kind::Timestamp | Kind::TimestampTz => Value::Int(int(bytes)?),
        Kind::Oid => Value::Int(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Bool | Kind::Char => match bytes {
            [byte] => Value::Int((*byte).into()),
            _ => return None,
        },
        Kind::Float4 => Value::Float(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Kind::Float8 | Kind::SentFloat => Value::Float(f64::from_be_bytes(bytes.try_into().ok()?)),
        Kind::Numeric => Value::Numeric(match bytes.get(4..6)? {
            [0xC0, 0] => Amount::NaN,
            [0xD0, 0] => Amount::Infinity,
            [0xF0, 0] => Amount::NegativeInfinity,
            _ => Amount::Finite(Numeric::from_binary(bytes)?),
        }),
        Kind::Uuid | Kind::Bytea | Kind::Text => Value::Bytes(bytes.into()),
        Kind::Blanked => Value::Bytes(without_blanks(bytes).into()),
    })
}

fn from_text(kind: Kind, bytes: &[u8]) -> Option<Value> {
    let text = || std::str::from_utf8(bytes).ok();
    Some(match kind {
        Kind::Int | Kind::Oid => Value::Int(text()?.parse().ok()?),
        Kind::Bool => match bytes {
            b"t" => Value::Int(1),
            b"f" => Value::Int(0),
            _ => return None,
        },
        Kind::Float4 | Kind::Float8 => Value::Float(float(text()?)?),
        Kind::Numeric => Value::Numeric(match bytes {
            b"NaN" => Amount::NaN,
            b"Infinity" => Amount::Infinity,
            b"-Infinity" => Amount::NegativeInfinity,
            digits => Amount::Finite(Numeric::from_text(digits)?),
        }),
        Kind::Date => Value::Int(time::sent_date(bytes)?.into()),
        Kind::Timestamp => Value::Int(time::sent_timestamp(bytes, false)?),
        Kind::TimestampTz => Value::Int(time::sent_timestamp(bytes, true)?),
        // Digits are in the order of their values, and the dashes are in the same places.
        Kind::Uuid | Kind::Text => Value::Bytes(bytes.into()),
        Kind::Bytea => Value::Bytes(bytea(bytes)?.into()),
        Kind::SentFloat => {
            let sent = bytea(bytes)?;
            Value::Float(f64::from_be_bytes(sent.as_slice().try_into().ok()?))
        }
        Kind::Char => Value::Int(match bytes {
            [] => 0,
            [byte] => (*byte).into(),
            [b'\\', digits @ ..] if digits.len() == 3 => octal(digits)?.into(),
            _ => return None,
        }),
        Kind::Blanked => Value::Bytes(without_blanks(bytes).into()),
    })
}

fn without_blanks(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != b' ');
    let length = end.map_or(0, |end| end.saturating_add(1));
    bytes.get(..length).unwrap_or_default()
}

fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        digits if digits.bytes().any(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => None,
    }
}

/// A `bytea` in either of its notations.
fn bytea(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
    };
    if let Some(digits) = text.strip_prefix(b"\\x") {
        let (pairs, rest) = digits.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let pair = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
        return pairs.iter().map(pair).collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
        } else if let Some(after) = rest.strip_prefix(b"\\") {
            bytes.push(b'\\');
            rest = after;
        } else {
            let (digits, after) = rest.split_at_checked(3)?;
            bytes.push(octal(digits)?);
            rest = after;
        }
    }
    Some(bytes)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::{Kind, Value};

    #[test]
    fn texts_are_ordered_as_their_values() {
        let check = |kind: Kind, ascending: &[&str]| {
            for pair in ascending.windows(2) {
                let read = |text: &str| Value::read(kind, text.as_bytes(), false).expect(text);
                assert!(read(pair[0]) < read(pair[1]), "{kind:?} {pair:?}");
            }
        };
        check(
            Kind::Int,
            &[
                "-9223372036854775808",
                "-2",
                "0",
                "10",
                "9223372036854775807",
            ],
        );
        check(
            Kind::Float8,
            &[
                "-Infinity",
                "-1e+300",
                "-1",
                "0",
                "1e-300",
                "2",
                "Infinity",
                "NaN",
            ],
        );
        check(
            Kind::Numeric,
            &[
                "-Infinity",
                "-1000000000000000000000",
                "-0.5",
                "0.0001",
                "2",
                "10.0",
                "Infinity",
                "NaN",
            ],
        );
        check(
            Kind::Date,
            &[
                "-infinity",
                "4714-11-24 BC",
                "0001-12-31 BC",
                "0001-01-01",
                "2024-02-29",
                "10000-01-01",
                "infinity",
            ],
        );
        check(
            Kind::Timestamp,
            &[
                "-infinity",
                "0044-03-15 12:00:00 BC",
                "2024-01-01 00:00:00",
                "2024-01-01 00:00:00.000001",
                "infinity",
            ],
        );
        check(
            Kind::TimestampTz,
            &[
                "2024-01-01 05:30:00+05:30",
                "2024-01-01 00:00:01+00",
                "2023-12-31 23:00:02-01",
            ],
        );
        check(Kind::Bytea, &["\\x", "\\x00", "\\x7f", "\\x80", "\\xff00"]);
        check(Kind::Bytea, &["", "\\000", "a", "a\\\\", "b\\377"]);
        check(Kind::Char, &["", "a", "\\200"]);
        check(Kind::Text, &["", "A", "a", "a ", "b", "é"]);
        check(Kind::Blanked, &["", "a", "b"]);
        check(Kind::Bool, &["f", "t"]);
    }

    #[test]
    fn what_is_equal_is_equal() {
        let check = |kind: Kind, one: &str, two: &str| {
            let read = |text: &str| Value::read(kind, text.as_bytes(), false).expect(text);
            assert_eq!(read(one), read(two), "{kind:?}");
        };
        check(Kind::Float8, "-0", "0");
        check(Kind::Float8, "NaN", "NaN");
        check(Kind::Numeric, "1.0", "1.000");
        check(Kind::Blanked, "a", "a   ");
        check(Kind::Bytea, "\\x6162", "ab");
        check(
            Kind::TimestampTz,
            "2024-01-01 02:00:00+02",
            "2024-01-01 00:00:00+00",
        );
    }

    #[test]
    fn nonsense_is_no_value() {
        for (kind, text) in [
            (Kind::Int, "x"),
            (Kind::Bool, "true"),
            (Kind::Float8, "inf"),
            (Kind::Date, "01/02/2024"),
            (Kind::Timestamp, "Mon Jan 01 00:00:00 2024"),
            (Kind::Bytea, "\\x0"),
            (Kind::Bytea, "\\9"),
        ] {
            assert_eq!(Value::read(kind, text.as_bytes(), false), None, "{text}");
        }
        for kind in [
            Kind::Int,
            Kind::Oid,
            Kind::Float4,
            Kind::Float8,
            Kind::Numeric,
        ] {
            assert_eq!(Value::read(kind, b"abc", true), None, "{kind:?}");
        }
    }
}
