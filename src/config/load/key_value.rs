//! Values of keys as the file has them: bounds of ranges, values of lists, pinned keys.
//!
//! Only what the checks need: whether text is a value of the type, whether two texts are one value,
//! and which of two comes first. Text compares by its bytes.

use std::cmp::Ordering;

use crate::config::KeyType;
use crate::config::value::BadValue;

/// A value that can be compared with others of its type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyValue {
    /// Integers, dates in days, timestamps in microseconds.
    Number(i128),
    Text(String),
    Uuid(u128),
    Decimal(Decimal),
}

/// A number without exponent: its sign, the digits before the point, and those after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let magnitude = |a: &Decimal, b: &Decimal| {
            (a.whole.len(), &a.whole, &a.fraction).cmp(&(b.whole.len(), &b.whole, &b.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Reads a value of the type.
pub(super) fn read(text: &str, key: KeyType) -> Result<KeyValue, BadValue> {
    match key {
        KeyType::Int2 => integer(text, i128::from(i16::MIN), i128::from(i16::MAX)),
        KeyType::Int4 => integer(text, i128::from(i32::MIN), i128::from(i32::MAX)),
        KeyType::Int8 => integer(text, i128::from(i64::MIN), i128::from(i64::MAX)),
        KeyType::Text => Ok(KeyValue::Text(text.to_owned())),
        KeyType::Uuid => uuid(text).map(KeyValue::Uuid).ok_or_else(|| {
            BadValue::new(
                "is no uuid",
                "Write 32 hex digits, as in 7f3c0f52-66c1-4c6e-8b1a-4a0a5b6c7d8e.",
            )
        }),
        KeyType::Date => date(text).map(KeyValue::Number).ok_or_else(|| {
            BadValue::new("is no date", "Write year, month and day, as in 2025-01-31.")
        }),
        KeyType::Timestamp => timestamp(text, false).map(KeyValue::Number).ok_or_else(|| {
            BadValue::new("is no timestamp", "Write it as in \"2025-01-31 12:00:00\".")
        }),
        KeyType::TimestampTz => timestamp(text, true).map(KeyValue::Number).ok_or_else(|| {
            BadValue::new(
                "is no timestamp with time zone",
                "Write it as in \"2025-01-31 12:00:00+00\".",
            )
        }),
        KeyType::Numeric => decimal(text).map(KeyValue::Decimal).ok_or_else(|| {
            BadValue::new(
                "is no number",
                "Write digits and at most one point, as in 12.50.",
            )
        }),
    }
}

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
        _ => {
            let hint = format!("Possible are {}.", crate::config::KEY_TYPES.join(", "));
            return Err(BadValue::new("is no type that a key can have", hint));
        }
    };
    Ok(found)
}

fn integer(text: &str, min: i128, max: i128) -> Result<KeyValue, BadValue> {
    let hint = format!("Write a whole number from {min} to {max}.");
    let number = text
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number));
    number
        .map(KeyValue::Number)
        .ok_or_else(|| BadValue::new("is no value of the key's type", hint))
}

fn uuid(text: &str) -> Option<u128> {
    let text = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let hex = digits.len() == 32 && digits.bytes().all(|c| c.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(&digits, 16).ok())
        .flatten()
}

/// Digits only, so many of them, as a number.
fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<i128> {
    let fits = length.contains(&text.len()) && text.bytes().all(|c| c.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Days since 1970-01-01 of `YYYY-MM-DD`, in the Gregorian calendar.
fn date(text: &str) -> Option<i128> {
    let (year, rest) = text.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (
        digits(year, 4..=6)?,
        digits(month, 2..=2)?,
        digits(day, 2..=2)?,
    );
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year == 0 || !(1..=last).contains(&day) {
        return None;
    }
    // Years that start in March put the leap day last, so that months have fixed offsets.
    let shifted = if month <= 2 { year - 1 } else { year };
    let months = (month + 9) % 12;
    let days = 365 * shifted + shifted / 4 - shifted / 100 + shifted / 400;
    Some(days + (153 * months + 2) / 5 + day - 1 - 719_468)
}

/// Microseconds since 1970 of a date, and a time of day if there is one; in UTC if it has a zone.
fn timestamp(text: &str, with_zone: bool) -> Option<i128> {
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, ""));
    let (time, offset) = if with_zone {
        split_zone(time)?
    } else {
        (time, 0)
    };
    let micros = if time.is_empty() {
        0
    } else {
        time_of_day(time)?
    };
    Some(date(day)? * 86_400_000_000 + micros - offset * 60_000_000)
}

fn time_of_day(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let (hours, minutes) = (digits(parts.next()?, 2..=2)?, digits(parts.next()?, 2..=2)?);
    let seconds = parts.next().unwrap_or("00");
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let seconds = digits(seconds, 2..=2)?;
    digits(fraction, 1..=6)?;
    let micros = digits(&format!("{fraction:0<6}"), 6..=6)?;
    let valid = parts.next().is_none() && hours < 24 && minutes < 60 && seconds < 60;
    valid.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// The time without its zone, and the zone's minutes east of UTC. A bound must say its zone: what it
/// means may not depend on a server's setting.
fn split_zone(text: &str) -> Option<(&str, i128)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let (time, zone) = text.split_at_checked(at)?;
    let east = if zone.starts_with('+') { 1 } else { -1 };
    let zone = zone.get(1..)?;
    let (hours, minutes) = zone.split_once(':').unwrap_or((zone, "00"));
    Some((
        time,
        east * (digits(hours, 2..=2)? * 60 + digits(minutes, 2..=2)?),
    ))
}

fn decimal(text: &str) -> Option<Decimal> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0').to_owned();
    let fraction = fraction.trim_end_matches('0').to_owned();
    let negative = negative && !(whole.is_empty() && fraction.is_empty());
    Some(Decimal {
        negative,
        whole,
        fraction,
    })
}

#[cfg(test)]
mod tests {
    use super::{KeyValue, date, read};
    use crate::config::KeyType;

    fn check_ascending(key: KeyType, texts: &[&str]) {
        let values: Vec<KeyValue> = texts
            .iter()
            .map(|text| read(text, key).unwrap_or_else(|bad| panic!("{text}: {}", bad.message)))
            .collect();
        assert!(values.is_sorted_by(|a, b| a < b), "{texts:?}");
    }

    #[test]
    fn values_are_ordered_by_their_type() {
        check_ascending(KeyType::Int8, &["-9223372036854775808", "-5", "7", "10"]);
        check_ascending(KeyType::Text, &["", "A", "H", "Ha", "a", "ä"]);
        check_ascending(
            KeyType::Numeric,
            &[
                "-10.5", "-9", "-0.1", "0", "0.05", "0.5", "9", "10.25", "10.3",
            ],
        );
        check_ascending(
            KeyType::Date,
            &["1969-12-31", "1970-01-01", "2024-02-29", "10000-01-01"],
        );
        check_ascending(
            KeyType::Timestamp,
            &["2024-01-01", "2024-01-01 00:00:00.5", "2024-01-01T00:01"],
        );
        check_ascending(
            KeyType::TimestampTz,
            &[
                "2024-01-01 00:00:00+02",
                "2024-01-01 00:00:00Z",
                "2024-01-01 00:00:00-05:30",
            ],
        );
        check_ascending(
            KeyType::Uuid,
            &[
                "00000000-0000-0000-0000-000000000001",
                "{7f3c0f5266c14c6e8b1a4a0a5b6c7d8e}",
            ],
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (key, bad) in [
            (KeyType::Int2, "32768"),
            (KeyType::Int8, "9223372036854775808"),
            (KeyType::Int4, "x"),
            (KeyType::Int4, ""),
            (KeyType::Uuid, "7f"),
            (KeyType::Date, "2023-02-29"),
            (KeyType::Date, "2023-13-01"),
            (KeyType::Date, "23-1-1"),
            (KeyType::Timestamp, "2023-01-01 25:00"),
            (KeyType::TimestampTz, "2023-01-01 00:00:00"),
            (KeyType::Numeric, "."),
            (KeyType::Numeric, "1e5"),
        ] {
            assert!(read(bad, key).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates_count_from_1970() {
        assert_eq!(date("1970-01-01"), Some(0));
        assert_eq!(date("2000-03-01"), Some(11_017));
    }
}
