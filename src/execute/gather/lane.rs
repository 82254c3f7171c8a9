//! One shard's part: what it sends of each fragment, cut into rows.

use crate::error::{Fault, SqlState};
use crate::execute::member::{Heard, Member};
use crate::wire::backend;
use crate::wire::frame::{self, HEADER};

/// `PGCOPY`, its signature's rest, flags, and the length of what extends the header.
pub(super) const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends rows in binary.
pub(super) const COPY_TRAILER: &[u8; 2] = b"\xff\xff";

/// Whose transaction the fragments of a shard are read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// One for this statement.
    Fresh,
    /// The same; it is open, and its snapshot is taken.
    Opened,
    /// The block's own.
    Own,
    /// The block's own on another shard than the current one.
    Joined,
}

impl Part {
    /// Whether it is the block's.
    pub(super) fn is_block(self) -> bool {
        matches!(self, Part::Own | Part::Joined)
    }
}

/// A shard's connection, and how far its fragments have come.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) member: Member,
    pub(super) part: Part,
    pub(super) rows: Rows,
}

/// What a shard has sent.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// The fragments it is asked for, by their index, and whether in binary.
    wanted: Vec<(usize, bool)>,
    /// They are the rows of a query in binary, which stand in a DataRow as in a CopyData message.
    of_query: bool,
    /// They come in one answer, each row behind the number of its fragment: how many columns each has.
    united: Option<Vec<usize>>,
    /// How many of them have ended.
    ended: usize,
    /// The header of the current one is still to come.
    has_header: bool,
    /// The beginning of a message.
    part: Vec<u8>,
    /// Messages of fragments whose turn has not come.
    ahead: Vec<(usize, Vec<u8>)>,
}

impl Rows {
    pub(super) fn new(wanted: Vec<(usize, bool)>) -> Rows {
        Rows {
            has_header: wanted.first().is_some_and(|(_, binary)| *binary),
            wanted,
            of_query: false,
            united: None,
            ended: 0,
            part: Vec::new(),
            ahead: Vec::new(),
        }
    }

    /// The same, in one answer.
    pub(super) fn united(wanted: Vec<(usize, bool)>, columns: Vec<usize>) -> Rows {
        Rows {
            united: Some(columns),
            ..Rows::new(wanted)
        }
    }

    /// The same, as the answer of a query.
    pub(super) fn of_query(fragment: usize) -> Rows {
        Rows {
            of_query: true,
            ..Rows::new(vec![(fragment, false)])
        }
    }

    /// Whether all come in one answer.
    pub(super) fn is_united(&self) -> bool {
        self.united.is_some()
    }

    /// The fragment that it sends.
    pub(super) fn current(&self) -> Option<usize> {
        self.wanted.get(self.ended).map(|(fragment, _)| *fragment)
    }

    /// Takes what the shard said: `on` is given each row of `turn`, as a CopyData message.
    ///
    /// # Errors
    /// 53200 for a row of more than `most` bytes, and those of `on`.
    pub(super) fn hear(
        &mut self,
        heard: Heard<'_>,
        turn: usize,
        most: usize,
        on: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match heard.tag {
            b'D' if self.of_query => {
                let mut bytes = heard.bytes.to_vec();
                if let Some(tag) = bytes.first_mut() {
                    *tag = b'd';
                }
                let heard = Heard {
                    tag: b'd',
                    bytes: &bytes,
                    body: heard.body,
                };
                self.hear(heard, turn, most, on)
            }
            b'C' if self.of_query => {
                self.ended = self.wanted.len();
                Ok(())
            }
            b'd' if frame::is_whole(heard.bytes) => self.message(heard.bytes, turn, on),
            b'd' | 0 => {
                self.part.extend_from_slice(heard.bytes);
                if self.part.len() > most {
                    return Err(long_row());
                }
                if !frame::is_whole(&self.part) {
                    return Ok(());
                }
                let whole = std::mem::take(&mut self.part);
                self.message(&whole, turn, on)
            }
            b'C' if backend::command_tag(heard.body).starts_with("COPY") => {
                self.ended = if self.united.is_some() {
                    self.wanted.len()
                } else {
                    self.ended.saturating_add(1)
                };
                let next = self.wanted.get(self.ended);
                self.has_header = next.is_some_and(|(_, binary)| *binary);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn message(
        &mut self,
        bytes: &[u8],
        turn: usize,
        on: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if self.united.is_some() {
            return self.united_message(bytes, turn, on);
        }
        let Some((fragment, binary)) = self.wanted.get(self.ended).copied() else {
            return Ok(());
        };
        let payload = bytes.get(HEADER..).unwrap_or_default();
        let without;
        let mut row = bytes;
        let mut rest = payload;
        if std::mem::take(&mut self.has_header) {
            rest = payload.get(COPY_HEADER.len()..).unwrap_or_default();
            let mut own = Vec::with_capacity(rest.len().saturating_add(HEADER));
            frame::write(&mut own, b'd', &[rest]);
            without = own;
            row = &without;
        }
        if binary && (rest.is_empty() || rest == COPY_TRAILER) {
            return Ok(());
        }
        if fragment == turn {
            return on(row);
        }
        self.ahead.push((fragment, row.to_vec()));
        Ok(())
    }

    fn united_message(
        &mut self,
        bytes: &[u8],
        turn: usize,
        on: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Rows {
            wanted,
            united: Some(columns),
            ended,
            ahead,
            ..
        } = self
        else {
            return Ok(());
        };
        let payload = bytes.get(HEADER..).unwrap_or_default();
        let number = payload.split(|byte| *byte == b'\t').next();
        let fragment = number
            .and_then(|number| std::str::from_utf8(number).ok()?.parse::<usize>().ok())
            .ok_or_else(unread)?;
        let at = wanted.iter().position(|(index, _)| *index == fragment);
        let at = at.ok_or_else(unread)?;
        *ended = at;
        let widest = columns.iter().copied().max().unwrap_or_default();
        let own = columns.get(at).copied().unwrap_or_default();
        // `\t\N` each, and the line's end.
        let padding = widest
            .saturating_sub(own)
            .saturating_mul(3)
            .saturating_add(1);
        let start = number.map_or(0, <[u8]>::len).saturating_add(1);
        let end = payload.len().saturating_sub(padding);
        let fields = payload.get(start..end).ok_or_else(unread)?;
        let mut row = Vec::with_capacity(bytes.len());
        frame::write(&mut row, b'd', &[fields, b"\n"]);
        if fragment == turn {
            return on(&row);
        }
        ahead.push((fragment, row));
        Ok(())
    }

    /// Gives `on` what came before its turn.
    ///
    /// # Errors
    /// Those of `on`.
    pub(super) fn catch_up(
        &mut self,
        turn: usize,
        on: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let ahead = std::mem::take(&mut self.ahead);
        for (fragment, row) in ahead {
            if fragment == turn {
                on(&row)?;
            } else {
                self.ahead.push((fragment, row));
            }
        }
        Ok(())
    }
}

fn unread() -> Fault {
    Fault::error(SqlState::INTERNAL, "a row of a shard was not understood")
        .hint("This is a fault of pgherd; please report it.")
}

fn long_row() -> Fault {
    Fault::error(SqlState::BUDGET_SPENT, "a row takes too much memory")
        .hint("Read shorter columns, or raise max_multi_bytes.")
}
