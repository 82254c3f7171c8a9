//! Reads fields of the text format, as `CopyReadAttributesText` does.

use super::{Field, Fields, last, slot};

/// Reads the fields of `columns` from a line without its newline. Returns where the next field starts:
/// past the end of the line when no delimiter follows.
pub(super) fn read(
    line: &[u8],
    delimiter: u8,
    null: &[u8],
    columns: &[usize],
    fields: &mut Fields,
) -> Result<usize, &'static str> {
    let Some(last) = last(columns) else {
        return Ok(0);
    };
    let mut start = 0_usize;
    for column in 0..=last {
        let rest = line
            .get(start..)
            .ok_or("missing data for a column of the sharding key")?;
        let (length, has_escapes) = field(rest, delimiter);
        if let Some(slot) = slot(columns, column) {
            let end = start.saturating_add(length);
            let raw = line.get(start..end).unwrap_or_default();
            if raw != null {
                let field = if has_escapes {
                    let from = fields.scratch.len();
                    unescape(raw, &mut fields.scratch);
                    Field::Scratch(from..fields.scratch.len())
                } else {
                    Field::Row(start..end)
                };
                fields.set(slot, field);
            }
        }
        // Past the end when no delimiter follows, so that another field is missing.
        start = start.saturating_add(length).saturating_add(1);
    }
    Ok(start)
}

/// The length of the first field, and whether it holds a backslash.
fn field(rest: &[u8], delimiter: u8) -> (usize, bool) {
    let mut at = 0_usize;
    let mut has_escapes = false;
    loop {
        let ahead = rest.get(at..).unwrap_or_default();
        let found = ahead
            .iter()
            .position(|byte| *byte == delimiter || *byte == b'\\');
        let Some(found) = found else {
            return (rest.len(), has_escapes);
        };
        at = at.saturating_add(found);
        if rest.get(at) == Some(&delimiter) {
            return (at, has_escapes);
        }
        has_escapes = true;
        at = at.saturating_add(2);
        if at >= rest.len() {
            return (rest.len(), true);
        }
    }
}

fn unescape(raw: &[u8], into: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            into.push(*byte);
            continue;
        }
        // A backslash at the very end of the data stands for nothing.
        let Some((escape, after)) = rest.split_first() else {
            return;
        };
        rest = after;
        let value = match escape {
            b'0'..=b'7' => digits(&mut rest, u32::from(escape.wrapping_sub(b'0')), 8),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => digits(&mut rest, 0, 16),
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => *other,
        };
        into.push(value);
    }
}

/// Takes up to two more digits of a number; its low eight bits.
fn digits(rest: &mut &[u8], start: u32, radix: u32) -> u8 {
    let mut value = start;
    for _ in 0..2 {
        let Some((byte, after)) = rest.split_first() else {
            break;
        };
        let Some(digit) = char::from(*byte).to_digit(radix) else {
            break;
        };
        value = value.wrapping_mul(radix).wrapping_add(digit);
        *rest = after;
    }
    u8::try_from(value & 0xff).unwrap_or_default()
}
