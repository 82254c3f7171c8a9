//! One shard's part: what it sends of each fragment, cut into rows.

use crate::error::{Fault, SqlState};
use crate::execute::member::{Heard, Member};
use crate::wire::backend;
use crate::wire::frame::{self, HEADER};

/// `PGCOPY`, its signature's rest, flags, and the length of what extends the header.
pub(super) const COPY_HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What ends rows in binary.
pub(super) const COPY_TRAILER: &[u8; 2] = b"\xff\xff";

/// A shard's connection, and how far its fragments have come.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) member: Member,
    pub(super) rows: Rows,
}

/// What a shard has sent.
#[derive(Debug)]
pub(super) struct Rows {
    /// The fragments it is asked for, by their index, and whether in binary.
    wanted: Vec<(usize, bool)>,
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
            ended: 0,
            part: Vec::new(),
            ahead: Vec::new(),
        }
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
                self.ended = self.ended.saturating_add(1);
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

fn long_row() -> Fault {
    Fault::error(SqlState::BUDGET_SPENT, "a row takes too much memory")
        .hint("Read shorter columns, or raise max_multi_bytes.")
}
