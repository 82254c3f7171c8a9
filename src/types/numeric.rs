//! A numeric value as PostgreSQL stores and hashes it: groups of four decimal digits.
//!
//! Follows `numeric.c`: `set_var_from_str`, `numeric_recv`, `cmp_numerics` and
//! `hash_numeric_extended`. NaN and the infinities are not represented: no placement needs them.

use std::cmp::Ordering;

use super::hash;

/// The most digit groups that are decoded: those of the largest numeric, 131,072 digits before the point
/// and 16,383 behind it.
const GROUPS_MAX: usize = 36_865;

/// A finite numeric without leading or trailing zero groups, so that equal values are equal here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Numeric {
    negative: bool,
    /// The power of 10,000 of the first group; 0 for zero.
    weight: i32,
    /// Groups of four decimal digits, most significant first; empty for zero.
    groups: Vec<i16>,
}

impl Numeric {
    fn new(negative: bool, weight: i32, groups: &[i16]) -> Option<Numeric> {
        let zeros = groups.iter().take_while(|group| **group == 0).count();
        let groups = groups.get(zeros..)?;
        let end = groups.iter().rposition(|group| *group != 0);
        let Some(end) = end else {
            return Some(Numeric {
                negative: false,
                weight: 0,
                groups: Vec::new(),
            });
        };
        Some(Numeric {
            negative,
            weight: weight.checked_sub(i32::try_from(zeros).ok()?)?,
            groups: groups.get(..=end)?.to_vec(),
        })
    }

    /// Decimal digits behind the point, the last of them not 0.
    pub fn fraction_digits(&self) -> u32 {
        let Some(last) = self.groups.last() else {
            return 0;
        };
        let behind = i64::try_from(self.groups.len()).unwrap_or(i64::MAX);
        let behind = behind.saturating_sub(1).saturating_sub(self.weight.into());
        let divides = |unit: &&i16| last.checked_rem(**unit) == Some(0);
        let zeros = [10, 100, 1000].iter().filter(divides);
        let digits = behind.saturating_mul(4);
        let zeros = i64::try_from(zeros.count()).unwrap_or(0);
        u32::try_from(digits.saturating_sub(zeros)).unwrap_or(0)
    }

    /// Reads plain decimal notation, as in `-12.50`: no exponent, no spaces, no special value.
    pub fn from_text(text: &[u8]) -> Option<Numeric> {
        let (negative, digits) = match text.split_first()? {
            (b'-', rest) => (true, rest),
            (b'+', rest) => (false, rest),
            _ => (false, text),
        };
        let point = digits.iter().position(|byte| *byte == b'.');
        let (whole, fraction) = match point {
            Some(at) => (digits.get(..at)?, digits.get(at.checked_add(1)?..)?),
            None => (digits, &[][..]),
        };
        if whole.is_empty() && fraction.is_empty() || text.len().div_ceil(4) > GROUPS_MAX {
            return None;
        }
        let pad = whole.len().wrapping_neg() % 4;
        let mut groups = Vec::with_capacity(text.len().div_ceil(4).saturating_add(1));
        let mut group = 0_i16;
        let mut filled = pad;
        let zeros = fraction.len().wrapping_neg() % 4;
        let padding = std::iter::repeat_n(&b'0', zeros);
        for byte in whole.iter().chain(fraction).chain(padding) {
            if !byte.is_ascii_digit() {
                return None;
            }
            let digit = i16::from(byte.wrapping_sub(b'0'));
            group = group.checked_mul(10)?.checked_add(digit)?;
            filled = filled.saturating_add(1);
            if filled == 4 {
                groups.push(group);
                (group, filled) = (0, 0);
            }
        }
        let weight = i32::try_from(whole.len().div_ceil(4))
            .ok()?
            .checked_sub(1)?;
        Numeric::new(negative, weight, &groups)
    }

    /// Reads the binary format of `numeric_send`: counts, weight, sign, scale, groups.
    pub fn from_binary(bytes: &[u8]) -> Option<Numeric> {
        let (words, rest) = bytes.as_chunks::<2>();
        let (head, groups) = words.split_first_chunk::<4>()?;
        let [count, weight, sign, _scale] = head.map(i16::from_be_bytes);
        let negative = match sign {
            0 => false,
            0x4000 => true,
            _ => return None,
        };
        if !rest.is_empty() || usize::try_from(count).ok()? != groups.len() {
            return None;
        }
        let groups: Vec<i16> = groups
            .iter()
            .map(|word| i16::from_be_bytes(*word))
            .collect();
        if groups.len() > GROUPS_MAX || !groups.iter().all(|group| (0..10_000).contains(group)) {
            return None;
        }
        Numeric::new(negative, i32::from(weight), &groups)
    }

    /// The value if it is an integer of 64 bits.
    pub fn to_int(&self) -> Option<i64> {
        let above = usize::try_from(self.weight.checked_add(1)?).ok()?;
        if self.groups.len() > above {
            return (self.groups.is_empty()).then_some(0);
        }
        let mut value = 0_i64;
        for at in 0..above {
            let group = i64::from(self.groups.get(at).copied().unwrap_or_default());
            let group = if self.negative {
                group.checked_neg()?
            } else {
                group
            };
            value = value.checked_mul(10_000)?.checked_add(group)?;
        }
        Some(value)
    }

    /// `hash_numeric_extended`.
    pub fn hash(&self, seed: u64) -> u64 {
        if self.groups.is_empty() {
            return seed.wrapping_sub(1);
        }
        let bytes: Vec<u8> = self
            .groups
            .iter()
            .flat_map(|group| group.to_le_bytes())
            .collect();
        hash::bytes(&bytes, seed) ^ i64::from(self.weight).cast_unsigned()
    }

    fn cmp_magnitude(&self, other: &Numeric) -> Ordering {
        match (self.groups.is_empty(), other.groups.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self
                .weight
                .cmp(&other.weight)
                .then_with(|| self.groups.cmp(&other.groups)),
        }
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Numeric) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => self.cmp_magnitude(other),
            (true, true) => other.cmp_magnitude(self),
        }
    }
}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Numeric) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Numeric;
    use crate::types::hash::PARTITION_SEED;

    fn read(text: &str) -> Numeric {
        Numeric::from_text(text.as_bytes()).unwrap()
    }

    #[test]
    fn hashes_agree_with_postgresql() {
        let golden = include_str!("../../tests/golden/placement/hash.txt");
        let mut count = 0;
        for line in golden.lines() {
            let Some(rest) = line.strip_prefix("hash_numeric_extended\t") else {
                continue;
            };
            let (value, hash) = rest.split_once('\t').unwrap();
            let expect: i64 = hash.parse().unwrap();
            assert_eq!(
                read(value).hash(PARTITION_SEED).cast_signed(),
                expect,
                "{value}"
            );
            count += 1;
        }
        assert!(count > 10, "{count} vectors");
    }

    #[test]
    fn equal_values_are_equal_and_ordered() {
        assert_eq!(read("1"), read("001.000"));
        assert_eq!(read("-0.0"), read("0"));
        let ascending = [
            "-10000",
            "-9",
            "-0.5",
            "0",
            "0.00001",
            "0.1",
            "1",
            "1.5",
            "99999",
            "1000000000",
        ];
        for pair in ascending.windows(2) {
            assert!(read(pair[0]) < read(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn integers_are_seen() {
        for (text, expect) in [
            ("0", Some(0)),
            ("-70000", Some(-70_000)),
            ("10000", Some(10_000)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("0.5", None),
            ("10000.5", None),
        ] {
            assert_eq!(read(text).to_int(), expect, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_plain_decimal() {
        for text in ["", "-", ".", "1e3", "NaN", "1.2.3", " 1"] {
            assert_eq!(Numeric::from_text(text.as_bytes()), None, "{text:?}");
        }
    }
}
