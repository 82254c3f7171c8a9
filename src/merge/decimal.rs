//! Exact sums of numerics, as servers send them.
//!
//! Follows `numeric.c`: a sum has the largest scale of its parts (`accum_sum_add`), NaN and the infinities add
//! up as in `numeric_add`.

use std::cmp::Ordering;

/// Digit groups of the largest numeric (`NUMERIC_WEIGHT_MAX` and `NUMERIC_DSCALE_MAX`), and some more.
const GROUPS_MAX: usize = 40_000;

/// A numeric and its scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decimal {
    NaN,
    Infinity { negative: bool },
    Finite(Finite),
}

/// Groups of four digits, most significant first; the last `behind` of them stand behind the point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finite {
    negative: bool,
    groups: Vec<i16>,
    behind: usize,
    /// The digits behind the point that are shown.
    scale: u16,
}

impl Decimal {
    /// Reads a value; `None` where it is no numeric, or longer than any.
    pub fn read(bytes: &[u8], binary: bool) -> Option<Decimal> {
        if binary {
            from_binary(bytes)
        } else {
            from_text(bytes)
        }
    }

    /// The sum of both; `None` where it is larger than any numeric.
    #[must_use]
    pub fn plus(&self, other: &Decimal) -> Option<Decimal> {
        Some(match (self, other) {
            (Decimal::NaN, _) | (_, Decimal::NaN) => Decimal::NaN,
            (Decimal::Infinity { negative: one }, Decimal::Infinity { negative: two })
                if one != two =>
            {
                Decimal::NaN
            }
            (Decimal::Infinity { negative }, _) | (_, Decimal::Infinity { negative }) => {
                Decimal::Infinity {
                    negative: *negative,
                }
            }
            (Decimal::Finite(one), Decimal::Finite(two)) => Decimal::Finite(one.plus(two)?),
        })
    }

    /// As a server sends it.
    pub fn write(&self, binary: bool) -> Vec<u8> {
        // The scale is read from the header that says what it is (`NUMERIC_DSCALE`).
        let special = |sign: u16| {
            let scale: u16 = (sign & 0x1F80) >> 7;
            [[0; 2], [0; 2], sign.to_be_bytes(), scale.to_be_bytes()].concat()
        };
        match self {
            Decimal::NaN if binary => special(0xC000),
            Decimal::NaN => b"NaN".to_vec(),
            Decimal::Infinity { negative } if binary => {
                special(if *negative { 0xF000 } else { 0xD000 })
            }
            Decimal::Infinity { negative: true } => b"-Infinity".to_vec(),
            Decimal::Infinity { negative: false } => b"Infinity".to_vec(),
            Decimal::Finite(value) if binary => value.to_binary(),
            Decimal::Finite(value) => value.to_text(),
        }
    }
}

impl Finite {
    /// The groups with so many before and behind the point.
    fn padded(&self, before: usize, behind: usize) -> Vec<i16> {
        let own = self.groups.len().saturating_sub(self.behind);
        let mut groups = vec![0; before.saturating_sub(own)];
        groups.extend_from_slice(&self.groups);
        groups.resize(before.saturating_add(behind), 0);
        groups
    }

    fn plus(&self, other: &Finite) -> Option<Finite> {
        let behind = self.behind.max(other.behind);
        let before = |one: &Finite| one.groups.len().saturating_sub(one.behind);
        // One more for what is carried.
        let before = before(self).max(before(other)).checked_add(1)?;
        let (one, two) = (self.padded(before, behind), other.padded(before, behind));
        let (negative, groups) = if self.negative == other.negative {
            (self.negative, added(&one, &two))
        } else {
            match one.cmp(&two) {
                Ordering::Less => (other.negative, subtracted(&two, &one)),
                Ordering::Equal => (false, subtracted(&one, &two)),
                Ordering::Greater => (self.negative, subtracted(&one, &two)),
            }
        };
        let zeros = groups.iter().take_while(|group| **group == 0).count();
        let groups = groups.get(zeros.min(before)..)?.to_vec();
        // The weight of the largest numeric is 32767.
        (groups.len().saturating_sub(behind) <= 32_768).then_some(Finite {
            negative,
            groups,
            behind,
            scale: self.scale.max(other.scale),
        })
    }

    fn to_text(&self) -> Vec<u8> {
        let point = self.groups.len().saturating_sub(self.behind);
        let (before, behind) = self.groups.split_at_checked(point).unwrap_or_default();
        let digits = |groups: &[i16]| {
            let digits = groups.iter().map(|group| format!("{group:04}"));
            digits.collect::<Vec<_>>().concat()
        };
        let whole = digits(before);
        let mut fraction = digits(behind);
        let scale = usize::from(self.scale);
        while fraction.len() < scale {
            fraction.push('0');
        }
        fraction.truncate(scale);
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let sign = if self.is_negative() { "-" } else { "" };
        let point = if scale == 0 { "" } else { "." };
        format!("{sign}{whole}{point}{fraction}").into_bytes()
    }

    fn is_negative(&self) -> bool {
        self.negative && self.groups.iter().any(|group| *group != 0)
    }

    fn to_binary(&self) -> Vec<u8> {
        let first = self.groups.iter().position(|group| *group != 0);
        let last = self.groups.iter().rposition(|group| *group != 0);
        let (groups, weight) = match (first, last) {
            (Some(first), Some(last)) => {
                let before = self.groups.len().saturating_sub(self.behind);
                let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
                let weight = number(before)
                    .saturating_sub(number(first))
                    .saturating_sub(1);
                let groups = self.groups.get(first..=last).unwrap_or_default();
                (groups, i16::try_from(weight).unwrap_or(i16::MAX))
            }
            (None, _) | (_, None) => (&[][..], 0),
        };
        let count = u16::try_from(groups.len()).unwrap_or(u16::MAX);
        let sign: u16 = if self.is_negative() { 0x4000 } else { 0 };
        let mut out = Vec::new();
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&self.scale.to_be_bytes());
        for group in groups {
            out.extend_from_slice(&group.to_be_bytes());
        }
        out
    }
}

fn added(one: &[i16], two: &[i16]) -> Vec<i16> {
    let mut carry = 0;
    let pairs = one.iter().zip(two).rev();
    let mut sum: Vec<i16> = pairs
        .map(|(one, two)| {
            let group = one.saturating_add(*two).saturating_add(carry);
            carry = i16::from(group >= 10_000);
            if carry == 1 {
                group.saturating_sub(10_000)
            } else {
                group
            }
        })
        .collect();
    sum.reverse();
    sum
}

/// `two` is not larger.
fn subtracted(one: &[i16], two: &[i16]) -> Vec<i16> {
    let mut borrow = 0;
    let pairs = one.iter().zip(two).rev();
    let mut rest: Vec<i16> = pairs
        .map(|(one, two)| {
            let group = one.saturating_sub(*two).saturating_sub(borrow);
            borrow = i16::from(group < 0);
            if borrow == 1 {
                group.saturating_add(10_000)
            } else {
                group
            }
        })
        .collect();
    rest.reverse();
    rest
}

fn from_text(text: &[u8]) -> Option<Decimal> {
    match text {
        b"NaN" => return Some(Decimal::NaN),
        b"Infinity" => return Some(Decimal::Infinity { negative: false }),
        b"-Infinity" => return Some(Decimal::Infinity { negative: true }),
        _ => (),
    }
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = whole.len().checked_add(fraction.len())?;
    if all == 0 || all.div_ceil(4) > GROUPS_MAX {
        return None;
    }
    let mut padded = "0".repeat(whole.len().wrapping_neg() % 4);
    padded.push_str(whole);
    padded.push_str(fraction);
    padded.push_str(&"0".repeat(fraction.len().wrapping_neg() % 4));
    let (quads, _) = padded.as_bytes().as_chunks::<4>();
    let group = |quad: &[u8; 4]| {
        let is_number = quad.iter().all(u8::is_ascii_digit);
        let digits = std::str::from_utf8(quad).ok().filter(|_| is_number)?;
        digits.parse::<i16>().ok()
    };
    Some(Decimal::Finite(Finite {
        negative,
        groups: quads.iter().map(group).collect::<Option<_>>()?,
        behind: fraction.len().div_ceil(4),
        scale: u16::try_from(fraction.len()).ok()?,
    }))
}

fn from_binary(bytes: &[u8]) -> Option<Decimal> {
    let (words, rest) = bytes.as_chunks::<2>();
    let (head, groups) = words.split_first_chunk::<4>()?;
    let [count, weight, sign, scale] = *head;
    if !rest.is_empty() || usize::from(u16::from_be_bytes(count)) != groups.len() {
        return None;
    }
    let negative = match u16::from_be_bytes(sign) {
        0 => false,
        0x4000 => true,
        0xC000 => return Some(Decimal::NaN),
        0xD000 => return Some(Decimal::Infinity { negative: false }),
        0xF000 => return Some(Decimal::Infinity { negative: true }),
        _ => return None,
    };
    let groups: Vec<i16> = groups
        .iter()
        .map(|word| i16::from_be_bytes(*word))
        .collect();
    if groups.len() > GROUPS_MAX || !groups.iter().all(|group| (0..10_000).contains(group)) {
        return None;
    }
    let before = i32::from(i16::from_be_bytes(weight)).checked_add(1)?;
    // Zeros between the point and the first group, or between the last one and the point.
    let (groups, behind) = match usize::try_from(before) {
        Ok(before) if before >= groups.len() => {
            let mut groups = groups;
            groups.resize(before, 0);
            (groups, 0)
        }
        Ok(before) => {
            let behind = groups.len().saturating_sub(before);
            (groups, behind)
        }
        Err(_) => {
            let zeros = usize::try_from(before.unsigned_abs()).ok()?;
            let mut all = vec![0; zeros];
            all.extend_from_slice(&groups);
            let behind = all.len();
            (all, behind)
        }
    };
    Some(Decimal::Finite(Finite {
        negative,
        groups,
        behind,
        scale: u16::from_be_bytes(scale),
    }))
}

#[cfg(test)]
mod tests {
    use super::Decimal;
    use proptest::prelude::{any, proptest};

    fn sum(one: &str, two: &str) -> String {
        let read = |text: &str| Decimal::read(text.as_bytes(), false).expect(text);
        let (one, two) = (read(one), read(two));
        let sum = one.plus(&two).expect("no overflow");
        let text = String::from_utf8(sum.write(false)).expect("ASCII");
        // By way of the binary format it is the same.
        let again = |value: &Decimal| Decimal::read(&value.write(true), true).expect("binary");
        let binary = again(&one).plus(&again(&two)).expect("no overflow");
        assert_eq!(binary.write(false), text.as_bytes());
        assert_eq!(binary.write(true), sum.write(true));
        text
    }

    #[test]
    fn sums_have_the_larger_scale() {
        for (one, two, expect) in [
            ("1", "2", "3"),
            ("1.50", "2.5", "4.00"),
            ("9999", "1", "10000"),
            ("0.0001", "-0.0001", "0.0000"),
            ("-1", "0.5", "-0.5"),
            ("-0.25", "0.0", "-0.25"),
            ("99999999999999999999", "1", "100000000000000000000"),
            ("100000000", "-0.00000001", "99999999.99999999"),
            ("12345.678", "-12345.6780", "0.0000"),
            ("0.00000000012", "1", "1.00000000012"),
            ("NaN", "Infinity", "NaN"),
            ("-Infinity", "Infinity", "NaN"),
            ("-Infinity", "5", "-Infinity"),
        ] {
            assert_eq!(sum(one, two), expect, "{one} + {two}");
            assert_eq!(sum(two, one), expect, "{two} + {one}");
        }
    }

    proptest! {
        #[test]
        fn integers_add_up(one in any::<i64>(), two in any::<i64>()) {
            let expect = i128::from(one) + i128::from(two);
            assert_eq!(sum(&one.to_string(), &two.to_string()), expect.to_string());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..30), binary: bool) {
            if let Some(value) = Decimal::read(&bytes, binary) {
                value.plus(&value).expect("short").write(binary);
            }
        }
    }
}
