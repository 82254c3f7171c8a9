//! Reads fields of the CSV format, as `CopyReadAttributesCSV` does.

use super::{Field, Fields, last, slot};

/// The characters of one COPY.
#[derive(Debug)]
pub(super) struct Dialect<'a> {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    pub(super) escape: u8,
    pub(super) null: &'a [u8],
}

impl Dialect<'_> {
    /// Reads the fields of `columns` from a line without its newline. Returns where the next field
    /// starts: past the end of the line when no delimiter follows.
    pub(super) fn read(
        &self,
        line: &[u8],
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
            let slot = slot(columns, column);
            let from = fields.scratch.len();
            let into = slot.is_some().then_some(&mut fields.scratch);
            let (length, quoted) = self.field(rest, into)?;
            if let Some(slot) = slot {
                let end = start.saturating_add(length);
                if quoted {
                    fields.set(slot, Field::Scratch(from..fields.scratch.len()));
                } else if line.get(start..end) != Some(self.null) {
                    fields.set(slot, Field::Row(start..end));
                }
            }
            start = start.saturating_add(length).saturating_add(1);
        }
        Ok(start)
    }

    /// The length of the first field, and whether a quote stands in it; only then its value is
    /// appended to `into`.
    fn field(
        &self,
        rest: &[u8],
        mut into: Option<&mut Vec<u8>>,
    ) -> Result<(usize, bool), &'static str> {
        let plain = rest
            .iter()
            .position(|byte| *byte == self.delimiter || *byte == self.quote)
            .unwrap_or(rest.len());
        if rest.get(plain) != Some(&self.quote) {
            return Ok((plain, false));
        }
        let mut push = |byte: u8| {
            if let Some(into) = into.as_deref_mut() {
                into.push(byte);
            }
        };
        let (before, _) = rest.split_at_checked(plain).unwrap_or_default();
        before.iter().copied().for_each(&mut push);
        let mut in_quotes = false;
        let mut at = plain;
        while let Some(byte) = rest.get(at).copied() {
            at = at.saturating_add(1);
            if !in_quotes {
                if byte == self.delimiter {
                    return Ok((at.saturating_sub(1), true));
                }
                if byte == self.quote {
                    in_quotes = true;
                } else {
                    push(byte);
                }
                continue;
            }
            let next = rest.get(at).copied();
            match next {
                Some(next)
                    if byte == self.escape && (next == self.escape || next == self.quote) =>
                {
                    push(next);
                    at = at.saturating_add(1);
                }
                _ if byte == self.quote => in_quotes = false,
                _ => push(byte),
            }
        }
        if in_quotes {
            return Err("unterminated CSV quoted field");
        }
        Ok((rest.len(), true))
    }
}
