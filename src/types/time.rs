//! Dates and timestamps in ISO notation, the only one that means the same under every DateStyle.
//!
//! Values are PostgreSQL's: days and microseconds since 2000-01-01. Anything that depends on the
//! session (other notations, `now`, a timestamp with time zone that names no offset) is `None`.

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// `YYYY-MM-DD`, `infinity` or `-infinity`, in days.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    match text {
        b"infinity" => Some(i32::MAX),
        b"-infinity" => Some(i32::MIN),
        _ => {
            let (days, rest) = day(text)?;
            rest.is_empty().then_some(days)
        }
    }
}

/// `YYYY-MM-DD HH:MM[:SS[.ffffff]]` (or with `T`), in microseconds; with `zoned`, an offset follows.
pub(super) fn timestamp(text: &[u8], zoned: bool) -> Option<i64> {
    match text {
        b"infinity" => return Some(i64::MAX),
        b"-infinity" => return Some(i64::MIN),
        _ => (),
    }
    let (days, rest) = day(text)?;
    let (seconds, fraction, rest) = match rest.split_first() {
        Some((b' ' | b'T', rest)) => clock(rest)?,
        None if !zoned => (0, 0, rest),
        _ => return None,
    };
    let offset = if zoned {
        offset(rest)?
    } else {
        rest.is_empty().then_some(0)?
    };
    i64::from(days)
        .checked_mul(SECONDS_PER_DAY)?
        .checked_add(seconds)?
        .checked_sub(offset)?
        .checked_mul(MICROS_PER_SECOND)?
        .checked_add(fraction)
}

/// A date as a server sends it in the ISO DateStyle, in days.
pub fn sent_date(text: &[u8]) -> Option<i32> {
    match sent_day(text)? {
        Sent::Special(true) => Some(i32::MAX),
        Sent::Special(false) => Some(i32::MIN),
        Sent::Day(days, []) => Some(days),
        Sent::Day(..) => None,
    }
}

/// A timestamp as a server sends it in the ISO DateStyle, in microseconds; with `zoned`, with an offset.
pub fn sent_timestamp(text: &[u8], zoned: bool) -> Option<i64> {
    let (days, rest) = match sent_day(text)? {
        Sent::Special(true) => return Some(i64::MAX),
        Sent::Special(false) => return Some(i64::MIN),
        Sent::Day(days, rest) => (days, rest),
    };
    let (seconds, fraction, rest) = clock(rest.strip_prefix(b" ")?)?;
    let offset = if zoned {
        offset(rest)?
    } else {
        rest.is_empty().then_some(0)?
    };
    i64::from(days)
        .checked_mul(SECONDS_PER_DAY)?
        .checked_add(seconds)?
        .checked_sub(offset)?
        .checked_mul(MICROS_PER_SECOND)?
        .checked_add(fraction)
}

enum Sent<'a> {
    /// `infinity`, or `-infinity`.
    Special(bool),
    /// Days, and what follows without the era.
    Day(i32, &'a [u8]),
}

fn sent_day(text: &[u8]) -> Option<Sent<'_>> {
    match text {
        b"infinity" => return Some(Sent::Special(true)),
        b"-infinity" => return Some(Sent::Special(false)),
        _ => (),
    }
    let before = text.strip_suffix(b" BC");
    let text = before.unwrap_or(text);
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(4..=7).contains(&length) {
        return None;
    }
    let (year, rest) = digits(text, length)?;
    let year = if before.is_some() {
        1_i64.checked_sub(year)?
    } else {
        year
    };
    let (days, rest) = day_of(year, rest)?;
    Some(Sent::Day(days, rest))
}

/// A year of four digits, a month and a day.
fn day(text: &[u8]) -> Option<(i32, &[u8])> {
    let (year, rest) = digits(text, 4)?;
    if year == 0 {
        return None;
    }
    day_of(year, rest)
}

/// A month and a day of a year; 0 is the one before year 1.
fn day_of(year: i64, rest: &[u8]) -> Option<(i32, &[u8])> {
    let (month, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let (day, rest) = digits(rest.strip_prefix(b"-")?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    Some((i32::try_from(days(year, month, day)?).ok()?, rest))
}

/// Days from 2000-01-01, by counting years that begin in March.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let shifted = i64::from(month <= 2);
    let year = year.checked_sub(shifted)?.checked_sub(2000)?;
    let month = month.checked_add(9)?.checked_rem(12)?;
    let leaps = year
        .div_euclid(4)
        .checked_sub(year.div_euclid(100))?
        .checked_add(year.div_euclid(400))?;
    // 2000-03-01 is day 60.
    year.checked_mul(365)?
        .checked_add(leaps)?
        .checked_add(month.checked_mul(153)?.checked_add(2)?.div_euclid(5))?
        .checked_add(day)?
        .checked_add(59)
}

/// Seconds and microseconds of `HH:MM[:SS[.ffffff]]`.
fn clock(text: &[u8]) -> Option<(i64, i64, &[u8])> {
    let (hours, rest) = digits(text, 2)?;
    let (minutes, rest) = digits(rest.strip_prefix(b":")?, 2)?;
    let (seconds, rest) = match rest.strip_prefix(b":") {
        Some(rest) => digits(rest, 2)?,
        None => (0, rest),
    };
    if hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let total = hours
        .checked_mul(3600)?
        .checked_add(minutes.checked_mul(60)?)?
        .checked_add(seconds)?;
    let Some(rest) = rest.strip_prefix(b".") else {
        return Some((total, 0, rest));
    };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=6).contains(&length) {
        return None;
    }
    let (fraction, rest) = digits(rest, length)?;
    let power = u32::try_from(6_usize.checked_sub(length)?).ok()?;
    Some((
        total,
        fraction.checked_mul(10_i64.checked_pow(power)?)?,
        rest,
    ))
}

/// Seconds east of Greenwich of `Z`, `+HH`, `+HH:MM` or `+HH:MM:SS`, to the end of the text.
fn offset(text: &[u8]) -> Option<i64> {
    let (sign, rest) = match text.split_first()? {
        (b'Z', []) => return Some(0),
        (b'+', rest) => (1_i64, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, mut rest) = digits(rest, 2)?;
    let mut total = hours.checked_mul(3600)?;
    for unit in [60, 1] {
        if let Some(more) = rest.strip_prefix(b":") {
            let (value, more) = digits(more, 2)?;
            total = total.checked_add(value.checked_mul(unit)?)?;
            rest = more;
        }
    }
    (rest.is_empty() && hours < 16).then(|| sign.checked_mul(total))?
}

/// The number of exactly `count` digits, and what follows.
fn digits(text: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(count)?;
    let mut value = 0_i64;
    for byte in number {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value
            .checked_mul(10)?
            .checked_add(i64::from(byte.wrapping_sub(b'0')))?;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::{date, timestamp};
    use crate::types::hash::{PARTITION_SEED, int};

    #[test]
    fn hashes_agree_with_postgresql() {
        let golden = include_str!("../../tests/golden/placement/hash.txt");
        let mut count = 0;
        for line in golden.lines() {
            let parts: Vec<&str> = line.split('\t').collect();
            let value = match parts[0] {
                "date" => i64::from(date(parts[1].as_bytes()).unwrap()),
                "timestamp_hash_extended" => timestamp(parts[1].as_bytes(), false).unwrap(),
                _ => continue,
            };
            let expect: i64 = parts[2].parse().unwrap();
            assert_eq!(int(value, PARTITION_SEED).cast_signed(), expect, "{line}");
            count += 1;
        }
        assert!(count > 10, "{count} vectors");
    }

    #[test]
    fn offsets_are_seen() {
        let check = |text: &str, expect: Option<i64>| {
            assert_eq!(timestamp(text.as_bytes(), true), expect, "{text}");
        };
        check("2000-01-01 00:00:00Z", Some(0));
        check("2000-01-01 02:00:00+02", Some(0));
        check("2000-01-01T05:30:00.5+05:30", Some(500_000));
        check("1999-12-31 19:00:00-05", Some(0));
        check("2000-01-01 00:00:00", None);
        check("2000-01-01 00:00:00 UTC", None);
    }

    #[test]
    fn refuses_what_depends_on_the_session_or_is_no_day() {
        for text in [
            "now",
            "01/02/2024",
            "2023-02-29",
            "2024-13-01",
            "2024-1-1",
            "2024-01-01 BC",
            "0000-01-01",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }
}
