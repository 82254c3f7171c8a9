//! The elements of one-dimensional arrays, as parameters and literals of `= ANY` carry them.
//!
//! Text follows `array_in`, binary `array_recv` (<https://www.postgresql.org/docs/current/arrays.html>).

use crate::types::key::{Key, KeyError, KeyType};
use crate::types::oid::FIRST_USER;

/// The OID of the element type of the arrays that keys may come in; 0 for others.
fn element_of(array: u32) -> u32 {
    match array {
        1005 => 21,
        1007 => 23,
        1016 => 20,
        1009 => 25,
        1015 => 1043,
        2951 => 2950,
        1182 => 1082,
        1115 => 1114,
        1185 => 1184,
        1231 => 1700,
        _ => 0,
    }
}

/// Calls `each` with every element that is not NULL.
///
/// # Errors
/// `Unprovable` for an array of another shape or type; what `each` returns.
pub(super) fn parameter<E: From<KeyError>>(
    kind: KeyType,
    value: &[u8],
    binary: bool,
    declared: u32,
    each: &mut dyn FnMut(Key<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let element = match declared {
        // An array of the enum itself.
        FIRST_USER.. if kind == KeyType::Enum => declared,
        _ => element_of(declared),
    };
    if declared != 0 && element == 0 {
        return Err(KeyError::Unprovable.into());
    }
    if binary {
        return from_binary(kind, value, each);
    }
    from_text(kind, element, value, each)
}

/// The same for a string literal's value.
pub(super) fn text<E: From<KeyError>>(
    kind: KeyType,
    value: &[u8],
    each: &mut dyn FnMut(Key<'_>) -> Result<(), E>,
) -> Result<(), E> {
    from_text(kind, 0, value, each)
}

fn from_binary<E: From<KeyError>>(
    kind: KeyType,
    value: &[u8],
    each: &mut dyn FnMut(Key<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut rest = value;
    let header: [i32; 3] = [int(&mut rest)?, int(&mut rest)?, int(&mut rest)?];
    let [dimensions, _nulls, element] = header;
    if dimensions == 0 {
        return Ok(());
    }
    if dimensions != 1 {
        return Err(KeyError::Unprovable.into());
    }
    let element = u32::try_from(element).unwrap_or(0);
    let count = int(&mut rest)?;
    int(&mut rest)?;
    for _ in 0..count {
        let length = int(&mut rest)?;
        let Ok(length) = usize::try_from(length) else {
            continue;
        };
        let (bytes, after) = rest.split_at_checked(length).ok_or(KeyError::Unprovable)?;
        rest = after;
        each(Key::from_parameter(kind, Some(bytes), true, element)?)?;
    }
    Ok(())
}

fn int(rest: &mut &[u8]) -> Result<i32, KeyError> {
    let (bytes, after) = rest.split_first_chunk().ok_or(KeyError::Unprovable)?;
    *rest = after;
    Ok(i32::from_be_bytes(*bytes))
}

fn from_text<E: From<KeyError>>(
    kind: KeyType,
    element: u32,
    value: &[u8],
    each: &mut dyn FnMut(Key<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let inner = value
        .trim_ascii()
        .strip_prefix(b"{")
        .and_then(|inner| inner.strip_suffix(b"}"))
        .ok_or(KeyError::Unprovable)?;
    if inner.trim_ascii().is_empty() {
        return Ok(());
    }
    let mut rest = inner;
    let mut scratch = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        let quoted = rest.first() == Some(&b'"');
        rest = item(rest, quoted, &mut scratch)?;
        let is_null = !quoted && scratch.eq_ignore_ascii_case(b"null");
        if !is_null {
            if !quoted && scratch.is_empty() {
                return Err(KeyError::Unprovable.into());
            }
            each(Key::from_parameter(kind, Some(&scratch), false, element)?)?;
        }
        match rest.split_first() {
            None => return Ok(()),
            Some((b',', after)) => rest = after,
            Some(_) => return Err(KeyError::Unprovable.into()),
        }
    }
}

/// Reads one element into `scratch`; what follows it.
fn item<'a>(text: &'a [u8], quoted: bool, scratch: &mut Vec<u8>) -> Result<&'a [u8], KeyError> {
    scratch.clear();
    let mut rest = if quoted {
        text.get(1..).unwrap_or_default()
    } else {
        text
    };
    loop {
        let Some((&byte, after)) = rest.split_first() else {
            if quoted {
                return Err(KeyError::Unprovable);
            }
            break;
        };
        match byte {
            b'"' if quoted => return Ok(after.trim_ascii_start()),
            b',' if !quoted => break,
            // Nested arrays, and escapes outside quotes, are left to the server.
            b'{' | b'}' | b'"' | b'\\' if !quoted => return Err(KeyError::Unprovable),
            b'\\' => {
                let (&escaped, after) = after.split_first().ok_or(KeyError::Unprovable)?;
                scratch.push(escaped);
                rest = after;
            }
            byte => {
                scratch.push(byte);
                rest = after;
            }
        }
    }
    scratch.truncate(scratch.trim_ascii_end().len());
    Ok(rest)
}
