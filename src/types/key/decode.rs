//! Reads the forms of key values as PostgreSQL's input functions do, with their errors.

use std::borrow::Cow;

use super::{Key, KeyError, KeyType};
use crate::error::{Fault, SqlState};
use crate::types::numeric::Numeric;

pub(super) fn from_number(
    kind: KeyType,
    source: &[u8],
    negative: bool,
) -> Result<Key<'static>, KeyError> {
    let plain = source.iter().all(u8::is_ascii_digit);
    if kind.is_int() && plain {
        // A number's type is the narrowest that holds it, so the column's width does not matter.
        return digits(source, negative)
            .map(Key::Int)
            .ok_or(KeyError::Unprovable);
    }
    if kind == KeyType::Numeric {
        let signed = [if negative { b"-" } else { &b"+"[..] }, source].concat();
        return Numeric::from_text(&signed)
            .map(Key::Numeric)
            .ok_or(KeyError::Unprovable);
    }
    Err(KeyError::Unprovable)
}

pub(super) fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !is_space(byte));
    let end = text.iter().rposition(|byte| !is_space(byte));
    match (start, end) {
        (Some(start), Some(end)) => text.get(start..=end).unwrap_or_default(),
        _ => &[],
    }
}

/// `pg_strtoint64_safe` of PostgreSQL 15. The hexadecimal, octal and binary numbers and the
/// underscores that 16 reads as well are left to the server.
pub(super) fn int(kind: KeyType, text: &[u8]) -> Result<i64, KeyError> {
    let bounds = match kind {
        KeyType::Int2 => i64::from(i16::MIN)..=i64::from(i16::MAX),
        KeyType::Int4 => i64::from(i32::MIN)..=i64::from(i32::MAX),
        KeyType::Int8
        | KeyType::Text
        | KeyType::Uuid
        | KeyType::Date
        | KeyType::Timestamp
        | KeyType::TimestampTz
        | KeyType::Numeric
        | KeyType::Enum => i64::MIN..=i64::MAX,
    };
    if let Some(value) = plain(text).filter(|value| bounds.contains(value)) {
        return Ok(value);
    }
    let trimmed = trim(text);
    let (negative, number) = match trimmed.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, trimmed),
    };
    let count = number
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let (leading, rest) = number.split_at_checked(count).unwrap_or_default();
    let later = number
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
        && (number.contains(&b'_') || number.starts_with(b"0"));
    if leading.is_empty() {
        return Err(invalid_text(kind, text));
    }
    if !rest.is_empty() && later {
        return Err(KeyError::Unprovable);
    }
    // As on the server, a number out of range is said before what follows it.
    let value = digits(leading, negative)
        .filter(|value| bounds.contains(value))
        .ok_or_else(|| {
            let text = String::from_utf8_lossy(text);
            KeyError::Invalid(Box::new(Fault::error(
                SqlState::NUMERIC_OUT_OF_RANGE,
                format!("value \"{text}\" is out of range for type {}", kind.name()),
            )))
        })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(invalid_text(kind, text))
    }
}

/// A number as nearly all come: a few digits and nothing else.
fn plain(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0_i64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| value.wrapping_mul(10).wrapping_add(i64::from(digit)))
    })
}

fn digits(number: &[u8], negative: bool) -> Option<i64> {
    let mut value = 0_i64;
    for byte in number {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some(value)
}

pub(super) fn binary_int(bytes: &[u8]) -> Option<i64> {
    if let Ok(bytes) = <[u8; 8]>::try_from(bytes) {
        return Some(i64::from_be_bytes(bytes));
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(i64::from(i32::from_be_bytes(bytes)));
    }
    let bytes = <[u8; 2]>::try_from(bytes).ok()?;
    Some(i64::from(i16::from_be_bytes(bytes)))
}

/// `string_to_uuid`: 32 hexadecimal digits, a hyphen allowed after each four, braces around.
pub(super) fn uuid(text: &[u8]) -> Result<[u8; 16], KeyError> {
    let read = || {
        let inner = match text.strip_prefix(b"{") {
            Some(rest) => rest.strip_suffix(b"}")?,
            None => text,
        };
        let mut value = [0_u8; 16];
        let mut rest = inner;
        for (at, byte) in value.iter_mut().enumerate() {
            let ([high, low], after) = rest.split_first_chunk::<2>()?;
            let (high, low) = (
                char::from(*high).to_digit(16)?,
                char::from(*low).to_digit(16)?,
            );
            *byte = u8::try_from(high << 4 | low).ok()?;
            rest = match after.strip_prefix(b"-") {
                Some(after) if at % 2 == 1 && at < 15 => after,
                _ => after,
            };
        }
        rest.is_empty().then_some(value)
    };
    read().ok_or_else(|| invalid_text(KeyType::Uuid, text))
}

pub(super) fn checked_text(text: Cow<'_, [u8]>) -> Result<Key<'_>, KeyError> {
    if text.contains(&0) {
        return Err(KeyError::Invalid(Box::new(Fault::error(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding: 0x00",
        ))));
    }
    Ok(Key::Text(text))
}

fn invalid_text(kind: KeyType, text: &[u8]) -> KeyError {
    let text = String::from_utf8_lossy(text);
    KeyError::Invalid(Box::new(Fault::error(
        SqlState::INVALID_TEXT,
        format!("invalid input syntax for type {}: \"{text}\"", kind.name()),
    )))
}

pub(super) fn invalid_binary(kind: KeyType, length: usize) -> KeyError {
    KeyError::Invalid(Box::new(
        Fault::error(
            SqlState::INVALID_BINARY,
            "incorrect binary data format in sharding key",
        )
        .detail(format!("{length} bytes are no {}.", kind.name())),
    ))
}
