//! Durations, sizes, numbers and words: from the file's text and back to it.

use std::fmt::Write;
use std::time::Duration;

/// The longest duration a setting may hold: ten years.
const DURATION_MAX: Duration = Duration::from_hours(10 * 366 * 24);

/// Why text is no value: the message without the key, and the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadValue {
    pub message: String,
    pub hint: String,
}

impl BadValue {
    pub(super) fn new(message: impl Into<String>, hint: impl Into<String>) -> BadValue {
        BadValue {
            message: message.into(),
            hint: hint.into(),
        }
    }
}

const DURATION_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
/// PostgreSQL's units of memory, in steps of 1024.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("kB", 1 << 10),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
];

/// Reads `500ms`, `30s`, `15m`, `2h`, `1d` or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, BadValue> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let hint = "Write a number and a unit, as in 500ms, 30s, 15m, 2h or 1d, or 0 for no limit.";
    let (number, unit) = split_unit(text);
    let number: u64 = number
        .parse()
        .map_err(|_error| BadValue::new("is no duration", hint))?;
    if unit.is_empty() {
        let hint = format!("Add a unit: {number}s for seconds, {number}ms for milliseconds.");
        return Err(BadValue::new("needs a unit", hint));
    }
    let factor = DURATION_UNITS.iter().find(|(name, _)| *name == unit);
    let (_, factor) = factor.ok_or_else(|| BadValue::new("is no duration", hint))?;
    number
        .checked_mul(*factor)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| BadValue::new("is longer than ten years", "Write 0 for no limit."))
}

/// The shortest text that [`duration`] reads back.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0".to_owned();
    }
    show_unit(millis, DURATION_UNITS)
}

/// Reads `64kB`, `256MB`, `1GB` or plain bytes.
pub(super) fn size(text: &str) -> Result<u64, BadValue> {
    let hint = "Write bytes, or a number and a unit, as in 64kB, 256MB or 1GB.";
    let (number, unit) = split_unit(text);
    let number: u64 = number
        .parse()
        .map_err(|_error| BadValue::new("is no size", hint))?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let factor = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, factor)| *factor);
    let Some(factor) = factor else {
        let meant = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit));
        return Err(match meant {
            Some((name, _)) => BadValue::new(
                format!("has the unknown unit \"{unit}\""),
                format!("Write {number}{name}: units are spelt as PostgreSQL spells them."),
            ),
            None => BadValue::new("is no size", hint),
        });
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| BadValue::new("is too large a size", hint))
}

/// The shortest text that [`size`] reads back.
pub(super) fn show_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    show_unit(bytes, SIZE_UNITS)
}

/// A whole number between the two, both included.
pub(super) fn count(text: &str, min: u64, max: u64) -> Result<u64, BadValue> {
    let hint = format!("Write a whole number from {min} to {max}.");
    let number: u64 = text
        .parse()
        .map_err(|_error| BadValue::new("is no whole number", hint.clone()))?;
    if number < min || max < number {
        return Err(BadValue::new("is out of range", hint));
    }
    Ok(number)
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, BadValue> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(BadValue::new(
            "is neither true nor false",
            "Write true or false, without quotes.",
        )),
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn show_unit(value: u64, units: &[(&str, u64)]) -> String {
    let mut text = String::new();
    let largest = units
        .iter()
        .rev()
        .find(|(_, factor)| value.is_multiple_of(*factor));
    if let Some((unit, factor)) = largest {
        let number = value.checked_div(*factor).unwrap_or(value);
        let unit = if *unit == "B" { "" } else { unit };
        // Writing to a String cannot fail.
        let _ = write!(text, "{number}{unit}");
    }
    text
}

/// A hint for a word that is none of the names: the close one, else `otherwise`.
pub(super) fn did_you_mean<'a>(
    word: &str,
    names: impl Iterator<Item = &'a str>,
    otherwise: impl Into<String>,
) -> String {
    closest(word, names).map_or_else(
        || otherwise.into(),
        |name| format!("Did you mean \"{name}\"?"),
    )
}

/// The name that `word` was probably meant to be: one close by, else one that contains it. Names that
/// differ in a number only are not taken for slips of each other.
pub(super) fn closest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    let word: String = word.trim().to_lowercase().chars().take(LONGEST).collect();
    let word = word.as_str();
    let letters = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let length = |text: &str| text.chars().count();
    let names: Vec<&str> = names
        .filter(|name| letters(name) == **name || letters(name) != letters(word))
        .collect();
    let close = names
        .iter()
        .map(|name| (distance(word, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= 1 + length(name).min(length(word)) / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name);
    let containing = || {
        names
            .iter()
            .find(|name| length(word) > 3 && name.contains(word))
            .copied()
    };
    close.or_else(containing)
}

/// How many characters must be added, removed, replaced or swapped to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i.saturating_add(1)];
        for (j, cb) in b.iter().enumerate() {
            let replaced = cell(&above, j).saturating_add(usize::from(ca != cb));
            let removed = cell(&above, j.saturating_add(1)).saturating_add(1);
            let added = cell(&row, j).saturating_add(1);
            let mut best = replaced.min(removed).min(added);
            let previous =
                |at: usize, of: &[char]| at.checked_sub(1).and_then(|at| of.get(at)).copied();
            if previous(i, &a) == Some(*cb) && previous(j, &b) == Some(*ca) && i > 0 && j > 0 {
                best = best.min(cell(&before, j.saturating_sub(1)).saturating_add(1));
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{closest, count, duration, show_duration, show_size, size};

    #[test]
    fn durations_read_back_as_they_are_shown() {
        for (text, shown) in [
            ("0", "0"),
            ("500ms", "500ms"),
            ("90s", "90s"),
            ("60s", "1m"),
            ("15m", "15m"),
            ("120m", "2h"),
            ("1d", "1d"),
            ("0s", "0"),
        ] {
            assert_eq!(show_duration(duration(text).unwrap()), shown, "{text}");
        }
        for bad in [
            "",
            "s",
            "5",
            "5 s",
            "5w",
            "-1s",
            "1.5s",
            "99999999999999999999s",
            "99999d",
            "é",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(duration("30").unwrap_err().hint.contains("30s"));
    }

    #[test]
    fn sizes_read_back_as_they_are_shown() {
        for (text, bytes, shown) in [
            ("0", 0, "0"),
            ("100", 100, "100"),
            ("64kB", 65_536, "64kB"),
            ("1024kB", 1 << 20, "1MB"),
            ("1GB", 1 << 30, "1GB"),
            ("1TB", 1 << 40, "1TB"),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(show_size(bytes), shown);
        }
        assert!(size("64KB").unwrap_err().hint.contains("64kB"));
        for bad in ["", "kB", "1.5GB", "-1", "99999999999999GB", "5 MB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_have_bounds() {
        assert_eq!(count("5", 1, 9), Ok(5));
        for bad in ["0", "10", "x", "", "1.0", "0x5"] {
            assert!(count(bad, 1, 9).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slip_is_recognised() {
        let names = ["default_pool_size", "pool_mode", "listen", "to"];
        for (word, name) in [
            ("pool_moed", Some("pool_mode")),
            ("defualt_pool_sise", Some("default_pool_size")),
            ("pool_size", Some("default_pool_size")),
            ("Listen", Some("listen")),
            ("zebra", None),
            ("", None),
            ("ot", Some("to")),
        ] {
            assert_eq!(closest(word, names.into_iter()), name, "{word}");
        }
    }
}
