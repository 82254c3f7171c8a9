//! What a column's type modifier makes of a value that is stored: `varchar(n)` cuts spaces off, `numeric(p, s)`
//! and `timestamp(p)` round. The row is placed by the value as it is stored.

use super::{Key, KeyError, KeyType};
use crate::error::{Fault, SqlState};

/// `VARHDRSZ`, which the modifiers of `varchar` and `numeric` begin from.
const HEADER: i32 = 4;

/// Whether a column of this modifier (`pg_attribute.atttypmod`, -1 for none) stores a key as it is given.
///
/// # Errors
/// `Invalid` (22001) for text that is too long, as PostgreSQL says; `Unprovable` where another value would
/// be stored.
pub fn keeps(kind: KeyType, modifier: i32, key: &Key<'_>) -> Result<(), KeyError> {
    let kept = match (kind, key) {
        _ if modifier < 0 => true,
        (KeyType::Text, Key::Text(text)) => return keeps_text(modifier, text),
        (KeyType::Numeric, Key::Numeric(value)) => {
            // Eleven bits with a sign, as `numeric_typmod_scale` reads them.
            let scale = ((modifier.wrapping_sub(HEADER) & 0x7ff) ^ 1024).wrapping_sub(1024);
            u32::try_from(scale).is_ok_and(|scale| value.fraction_digits() <= scale)
        }
        (KeyType::Timestamp | KeyType::TimestampTz, Key::Timestamp(micros)) => {
            let digits = u32::try_from(modifier).unwrap_or(0).min(6);
            let unit = 10_i64.pow(6_u32.saturating_sub(digits));
            micros.checked_rem(unit) == Some(0)
        }
        _ => true,
    };
    if kept {
        Ok(())
    } else {
        Err(KeyError::Unprovable)
    }
}

fn keeps_text(modifier: i32, text: &[u8]) -> Result<(), KeyError> {
    let most = usize::try_from(modifier.saturating_sub(HEADER)).unwrap_or(0);
    if text.len() <= most {
        return Ok(());
    }
    let text = std::str::from_utf8(text).map_err(|_other_encoding| KeyError::Unprovable)?;
    match text.char_indices().nth(most) {
        None => Ok(()),
        Some((end, _)) if text.bytes().skip(end).all(|byte| byte == b' ') => {
            Err(KeyError::Unprovable)
        }
        Some(_) => Err(KeyError::Invalid(Box::new(Fault::error(
            SqlState::STRING_TRUNCATION,
            format!("value too long for type character varying({most})"),
        )))),
    }
}

#[cfg(test)]
mod tests {
    use super::keeps;
    use crate::types::key::{Key, KeyError, KeyType};

    #[test]
    fn what_would_be_stored_otherwise_is_told() {
        let check = |kind, modifier, text: &str, expect: &str| {
            let key = Key::from_text(kind, text.as_bytes()).unwrap();
            let found = match keeps(kind, modifier, &key) {
                Ok(()) => "kept".to_owned(),
                Err(KeyError::Invalid(fault)) => fault.code.as_str().to_owned(),
                Err(_) => "unprovable".to_owned(),
            };
            assert_eq!(found, expect, "{text:?} {modifier}");
        };
        for text in ["abc", "äöü", "ab "] {
            check(KeyType::Text, 7, text, "kept");
        }
        check(KeyType::Text, 7, "abc  ", "unprovable");
        check(KeyType::Text, 7, "abcd", "22001");
        check(KeyType::Text, -1, "abcd", "kept");
        // numeric(10, 2), numeric(10, 0), numeric(3, -2)
        let numeric = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        check(KeyType::Numeric, numeric(10, 2), "1.5", "kept");
        check(KeyType::Numeric, numeric(10, 2), "1.50000", "kept");
        check(KeyType::Numeric, numeric(10, 2), "1.505", "unprovable");
        check(KeyType::Numeric, numeric(10, 0), "10000", "kept");
        check(KeyType::Numeric, numeric(10, 0), "0.1", "unprovable");
        check(KeyType::Numeric, numeric(3, -2), "100", "unprovable");
        check(KeyType::Timestamp, 0, "2026-01-01 10:00:00", "kept");
        check(KeyType::Timestamp, 0, "2026-01-01 10:00:00.5", "unprovable");
        check(KeyType::Timestamp, 1, "2026-01-01 10:00:00.5", "kept");
    }
}
