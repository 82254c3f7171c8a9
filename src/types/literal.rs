//! The value of a string literal from its source text: `'…'`, `E'…'` and `$tag$…$tag$`.
//!
//! Follows PostgreSQL's `scan.l`. Anything else (U&'…', B'…', X'…', N'…', literals continued on
//! another line) is `None`: its value is left to the server. `standard_conforming_strings` is taken
//! to be on, its default.

use std::borrow::Cow;

/// The bytes a string literal stands for; `None` when this is not a literal we can read.
pub(super) fn string(source: &[u8]) -> Option<Cow<'_, [u8]>> {
    match source.split_first()? {
        (b'\'', rest) => quoted(rest),
        (b'e' | b'E', rest) => escaped(rest.strip_prefix(b"'")?).map(Cow::Owned),
        (b'$', rest) => dollar(rest),
        _ => None,
    }
}

fn quoted(rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let body = rest.strip_suffix(b"'")?;
    if !body.contains(&b'\'') {
        return Some(Cow::Borrowed(body));
    }
    let mut value = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((byte, after)) = rest.split_first() {
        value.push(*byte);
        rest = match byte {
            b'\'' => after.strip_prefix(b"'")?,
            _ => after,
        };
    }
    Some(Cow::Owned(value))
}

fn dollar(rest: &[u8]) -> Option<Cow<'_, [u8]>> {
    let end = rest.iter().position(|byte| *byte == b'$')?;
    let (tag, body) = rest.split_at_checked(end.checked_add(1)?)?;
    let body = body.strip_suffix(tag)?.strip_suffix(b"$")?;
    Some(Cow::Borrowed(body))
}

fn escaped(rest: &[u8]) -> Option<Vec<u8>> {
    let mut rest = rest.strip_suffix(b"'")?;
    let mut value = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        match byte {
            b'\'' => {
                value.push(b'\'');
                rest = after.strip_prefix(b"'")?;
            }
            b'\\' => rest = escape(after, &mut value)?,
            _ => {
                value.push(*byte);
                rest = after;
            }
        }
    }
    Some(value)
}

/// Appends what the escape after a backslash stands for; returns what follows it.
fn escape<'a>(text: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (byte, after) = text.split_first()?;
    match byte {
        b'b' => value.push(8),
        b'f' => value.push(12),
        b'n' => value.push(b'\n'),
        b'r' => value.push(b'\r'),
        b't' => value.push(b'\t'),
        b'0'..=b'7' => {
            let (number, rest) = number(text, 8, 3);
            value.push(u8::try_from(number & 0xff).ok()?);
            return Some(rest);
        }
        b'x' if after.first().is_some_and(u8::is_ascii_hexdigit) => {
            let (number, rest) = number(after, 16, 2);
            value.push(u8::try_from(number).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let digits = if *byte == b'u' { 4 } else { 8 };
            let (code, rest) = number(after, 16, digits);
            if rest.len() != after.len().checked_sub(digits)? {
                return None;
            }
            // A surrogate pair is left to the server.
            let character = char::from_u32(code)?;
            value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => value.push(*byte),
    }
    Some(after)
}

/// The number of at most `most` leading digits, and what follows them.
fn number(text: &[u8], radix: u32, most: usize) -> (u32, &[u8]) {
    let mut value = 0_u32;
    let mut rest = text;
    for _ in 0..most {
        let Some((byte, after)) = rest.split_first() else {
            break;
        };
        let Some(digit) = char::from(*byte).to_digit(radix) else {
            break;
        };
        value = value.wrapping_mul(radix).wrapping_add(digit);
        rest = after;
    }
    (value, rest)
}

#[cfg(test)]
mod tests {
    use super::string;

    #[test]
    fn reads_what_postgresql_reads() {
        let check = |source: &str, expect: Option<&str>| {
            let value = string(source.as_bytes());
            assert_eq!(value.as_deref(), expect.map(str::as_bytes), "{source}");
        };
        check("'abc'", Some("abc"));
        check("''", Some(""));
        check("'it''s'", Some("it's"));
        check(r"'a\b'", Some(r"a\b"));
        check(r"E'a\tb\\\'\x41\101\u00e9'", Some("a\tb\\'AAé"));
        check(r"e'\q'", Some("q"));
        check("$$it's$$", Some("it's"));
        check("$a$x$$y$a$", Some("x$$y"));
        check("U&'d\\0061t'", None);
        check("B'01'", None);
        check("'a' 'b'", None);
        check("'a'\n'b'", None);
        check("'", None);
        check("", None);
    }
}
