//! The binary format: a header, rows of counted fields, a trailer.
//!
//! See "Binary Format" of <https://www.postgresql.org/docs/current/sql-copy.html> and
//! `ReceiveCopyBinaryHeader`.

use super::{Field, Fields, last, slot};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Scans for the end of the header and of each row.
#[derive(Debug)]
pub(super) struct Tuples {
    state: State,
    row: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Bytes of the signature seen.
    Signature(usize),
    Flags(Number),
    Extension(Number),
    /// Between the header and the first row, or inside of the header's extension.
    Skip {
        left: usize,
        then: Then,
    },
    Count(Number),
    Length {
        number: Number,
        fields: u16,
    },
    /// The trailer has been seen.
    End,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    /// The record ends.
    Record,
    /// So many more fields.
    Fields(u16),
}

/// A big-endian integer that may arrive in parts.
#[derive(Clone, Copy, Debug)]
struct Number {
    value: u32,
    missing: u8,
}

impl Number {
    const fn of(bytes: u8) -> Number {
        Number {
            value: 0,
            missing: bytes,
        }
    }

    /// Takes a byte; the value once it is whole.
    fn take(&mut self, byte: u8) -> Option<u32> {
        self.value = (self.value << 8) | u32::from(byte);
        self.missing = self.missing.saturating_sub(1);
        (self.missing == 0).then_some(self.value)
    }
}

impl Tuples {
    pub(super) fn new() -> Tuples {
        Tuples {
            state: State::Signature(0),
            row: 0,
        }
    }

    /// The row being read, counted from 1; 0 in the header.
    pub(super) fn row(&self) -> u64 {
        self.row
    }

    /// Whether the record that just ended is the trailer.
    pub(super) fn at_end(&self) -> bool {
        matches!(self.state, State::End)
    }

    /// The length of what of `input` belongs to the header, row or trailer at hand; `None` when its
    /// end has not come yet.
    pub(super) fn scan(&mut self, input: &[u8]) -> Result<Option<usize>, &'static str> {
        let mut rest = input;
        loop {
            if let State::Skip { left, then } = self.state {
                let Some((_, after)) = rest.split_at_checked(left) else {
                    let left = left.saturating_sub(rest.len());
                    self.state = State::Skip { left, then };
                    return Ok(None);
                };
                rest = after;
                match then {
                    Then::Record | Then::Fields(0) => {
                        self.state = State::Count(Number::of(2));
                        return Ok(Some(input.len().saturating_sub(rest.len())));
                    }
                    Then::Fields(fields) => {
                        let number = Number::of(4);
                        self.state = State::Length { number, fields };
                    }
                }
                continue;
            }
            let Some((byte, after)) = rest.split_first() else {
                return Ok(None);
            };
            rest = after;
            self.byte(*byte)?;
            if self.at_end() {
                return Ok(Some(input.len().saturating_sub(rest.len())));
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Result<(), &'static str> {
        match &mut self.state {
            State::Signature(seen) => {
                if SIGNATURE.get(*seen) != Some(&byte) {
                    return Err("COPY file signature not recognized");
                }
                *seen = seen.saturating_add(1);
                if *seen == SIGNATURE.len() {
                    self.state = State::Flags(Number::of(4));
                }
            }
            State::Flags(number) => match number.take(byte) {
                Some(flags) if flags & (1 << 16) != 0 => {
                    return Err("invalid COPY file header (WITH OIDS)");
                }
                Some(flags) if flags >> 16 != 0 => {
                    return Err("unrecognized critical flags in COPY file header");
                }
                Some(_) => self.state = State::Extension(Number::of(4)),
                None => (),
            },
            State::Extension(number) => {
                if let Some(length) = number.take(byte) {
                    let length = i32::try_from(length).ok();
                    let length = length.and_then(|length| usize::try_from(length).ok());
                    let then = Then::Record;
                    let left = length.ok_or("invalid COPY file header (missing length)")?;
                    self.state = State::Skip { left, then };
                }
            }
            State::Count(number) => {
                if number.missing == 2 {
                    self.row = self.row.saturating_add(1);
                }
                if let Some(count) = number.take(byte) {
                    let count = u16::try_from(count).unwrap_or(u16::MAX);
                    self.state = match count.cast_signed() {
                        -1 => State::End,
                        0.. => State::Skip {
                            left: 0,
                            then: Then::Fields(count),
                        },
                        _ => return Err("invalid field count in COPY data"),
                    };
                }
            }
            State::Length { number, fields } => {
                if let Some(length) = number.take(byte) {
                    let then = Then::Fields(fields.saturating_sub(1));
                    let left = match length.cast_signed() {
                        -1 => 0,
                        length => {
                            usize::try_from(length).map_err(|_negative| "invalid field size")?
                        }
                    };
                    self.state = State::Skip { left, then };
                }
            }
            State::Skip { .. } | State::End => (),
        }
        Ok(())
    }
}

/// Reads the fields of `columns` from a row. Returns where the next field starts: past the end of the
/// row when the last one read is not whole.
pub(super) fn read(
    row: &[u8],
    columns: &[usize],
    fields: &mut Fields,
) -> Result<usize, &'static str> {
    const SHORT: &str = "missing data for a column of the sharding key";
    let Some(last) = last(columns) else {
        return Ok(0);
    };
    let mut at = 2_usize;
    for column in 0..=last {
        let length = row.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let length = i32::from_be_bytes(*length.ok_or(SHORT)?);
        at = at.saturating_add(4);
        // −1 is NULL.
        let Ok(length) = usize::try_from(length) else {
            continue;
        };
        let end = at.saturating_add(length);
        if let Some(slot) = slot(columns, column) {
            fields.set(slot, Field::Row(at..end));
        }
        at = end;
    }
    Ok(at)
}
