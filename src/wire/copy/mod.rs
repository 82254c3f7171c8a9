//! Splits the data of COPY … FROM STDIN into rows, and reads the fields that place them. Sans-IO.
//!
//! Rows are passed on byte for byte; only the key's fields are decoded, and only the part of a row
//! up to the last of them is looked at: the rest of a long row passes in pieces. Where a row ends and what a field means follows
//! PostgreSQL's `copyfromparse.c` (`CopyReadLineText`, `CopyReadAttributesText`,
//! `CopyReadAttributesCSV`, `NextCopyFrom`). Bytes are taken as they come, so the client's encoding
//! must be one in which no byte of a longer character looks like ASCII (not SJIS, BIG5, GBK, UHC,
//! JOHAB or GB18030).
//!
//! *Invariant:* the pieces, one after another, are the input up to the end-of-copy marker, however
//! the input was cut into chunks.

#![warn(clippy::arithmetic_side_effects)]

mod binary;
mod csv;
mod lines;
mod text;

use std::ops::Range;

use crate::error::{Fault, SqlState};
use binary::Tuples;
use lines::Lines;

/// The options of COPY that say where a row and its fields end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Text {
        delimiter: u8,
        null: Vec<u8>,
        header: bool,
    },
    Csv {
        delimiter: u8,
        quote: u8,
        escape: u8,
        null: Vec<u8>,
        header: bool,
    },
    Binary,
}

/// One piece of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The header line, or the header of the binary format: for every shard.
    Header(&'a [u8]),
    /// One row, its newline included, or the beginning of a long one; and the fields of the key in the
    /// order asked for, unescaped and unquoted; `None` is NULL.
    Row {
        bytes: &'a [u8],
        fields: &'a [Option<&'a [u8]>],
    },
    /// More of the row that came last.
    Rest(&'a [u8]),
    /// The end-of-copy marker: `\.` or the binary trailer. For every shard in binary; a line of `\.`
    /// need not be sent, since CopyDone says the same. Text after it is dropped, as the server does.
    Trailer(&'a [u8]),
}

/// Bytes of an end-of-copy marker, its newline included.
const MARKER: usize = b"\\.\r\n".len();
/// A row whose end has not arrived after so many bytes passes in pieces, once its key is there.
const LONG: usize = 64 * 1024;

/// Keys of more columns than this cost an allocation a row.
const STACK_FIELDS: usize = 8;

/// Splits one COPY's data, chunk by chunk.
#[derive(Debug)]
pub struct Splitter {
    scanner: Scanner,
    format: Format,
    /// The columns to decode, counted from 0.
    key_columns: Vec<usize>,
    /// The most bytes of a row that are held until its key is there.
    row_max: usize,
    /// The beginning of a row whose end has not arrived.
    tail: Vec<u8>,
    /// Held bytes at which the key of a long row is looked for next.
    look_at: usize,
    /// The beginning of the row at hand has been handed over.
    passing: bool,
    header_seen: bool,
    ended: bool,
    fields: Fields,
}

#[derive(Debug)]
enum Scanner {
    Lines(Lines),
    Tuples(Tuples),
}

/// Where the fields of the key are in the row at hand; reused from row to row.
#[derive(Debug, Default)]
struct Fields {
    at: Vec<Field>,
    /// Unescaped fields.
    scratch: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Field {
    Null,
    Row(Range<usize>),
    Scratch(Range<usize>),
}

impl Fields {
    fn clear(&mut self, count: usize) {
        self.at.clear();
        self.at.resize(count, Field::Null);
        self.scratch.clear();
    }

    fn set(&mut self, slot: usize, field: Field) {
        if let Some(place) = self.at.get_mut(slot) {
            *place = field;
        }
    }

    fn get<'a>(&'a self, field: &Field, row: &'a [u8]) -> Option<&'a [u8]> {
        match field {
            Field::Null => None,
            Field::Row(range) => row.get(range.clone()),
            Field::Scratch(range) => self.scratch.get(range.clone()),
        }
    }
}

impl Splitter {
    /// Starts at the beginning of the data. `key_columns` are counted from 0 among the columns of
    /// the COPY; a row whose key is not within its first `row_max` bytes is an error.
    pub fn new(format: Format, key_columns: &[usize], row_max: usize) -> Splitter {
        let scanner = match &format {
            Format::Text { .. } => Scanner::Lines(Lines::text()),
            Format::Csv { quote, escape, .. } => Scanner::Lines(Lines::csv(*quote, *escape)),
            Format::Binary => Scanner::Tuples(Tuples::new()),
        };
        let header = match &format {
            Format::Text { header, .. } | Format::Csv { header, .. } => *header,
            Format::Binary => true,
        };
        Splitter {
            scanner,
            format,
            key_columns: key_columns.to_vec(),
            row_max,
            tail: Vec::new(),
            look_at: LONG,
            passing: false,
            header_seen: !header,
            ended: false,
            fields: Fields::default(),
        }
    }

    /// Takes the next bytes and hands every piece they complete to `on`.
    ///
    /// # Errors
    /// Data the server would refuse as well (22P04), a row above the limit (54000), or what `on`
    /// returns. Nothing may be fed after an error.
    pub fn feed<E: From<Fault>>(
        &mut self,
        chunk: &[u8],
        mut on: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = chunk;
        while !rest.is_empty() {
            if self.ended {
                return match self.scanner {
                    Scanner::Lines(_) => Ok(()),
                    Scanner::Tuples(_) => {
                        Err(self.fault("received copy data after EOF marker").into())
                    }
                };
            }
            let found = match &mut self.scanner {
                Scanner::Lines(lines) => lines.scan(rest),
                Scanner::Tuples(tuples) => tuples.scan(rest),
            };
            let end = found.map_err(|message| self.fault(message))?;
            let (head, after) = rest
                .split_at_checked(end.unwrap_or(rest.len()))
                .unwrap_or((rest, &[]));
            if self.passing {
                self.passing = end.is_none();
                if end.is_some() {
                    self.check_marker()?;
                }
                on(Piece::Rest(head))?;
            } else if end.is_none() {
                self.hold(head, &mut on)?;
            } else if self.tail.is_empty() {
                self.piece(head, &mut on)?;
            } else {
                let mut record = std::mem::take(&mut self.tail);
                record.extend_from_slice(head);
                self.piece(&record, &mut on)?;
                record.clear();
                self.tail = record;
            }
            rest = after;
        }
        Ok(())
    }

    /// Keeps the beginning of a row; a long one is handed over as soon as its key is there.
    fn hold<E: From<Fault>>(
        &mut self,
        bytes: &[u8],
        on: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.tail.extend_from_slice(bytes);
        let held = self.tail.len();
        // An end-of-copy marker is no row.
        let most = self.row_max.max(MARKER);
        if held >= self.look_at.min(most) && self.header_seen {
            let tail = std::mem::take(&mut self.tail);
            let read = tail.len().min(self.row_max);
            if self.read(&tail).is_ok_and(|next| next <= read) {
                self.look_at = LONG;
                self.passing = true;
                return self.hand_over(&tail, on);
            }
            self.tail = tail;
            self.look_at = held.saturating_mul(2);
        }
        if held > most {
            return Err(self.too_long().into());
        }
        Ok(())
    }

    /// The end of a row that passed in pieces: there must be no end-of-copy marker in it.
    fn check_marker(&mut self) -> Result<(), Fault> {
        match &mut self.scanner {
            Scanner::Lines(lines) => match lines.take_marker(b"") {
                Ok(_) => Ok(()),
                Err(message) => Err(self.fault(message)),
            },
            Scanner::Tuples(_) => Ok(()),
        }
    }

    /// Ends the data: a last row without a newline is handed to `on`.
    ///
    /// # Errors
    /// As for [`Splitter::feed`], and for data that ends in the middle of a row.
    pub fn finish<E: From<Fault>>(
        &mut self,
        mut on: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.ended {
            return Ok(());
        }
        let tail = std::mem::take(&mut self.tail);
        match &mut self.scanner {
            Scanner::Lines(_) if tail.is_empty() && !self.passing => Ok(()),
            Scanner::Lines(lines) if self.passing => match lines.finish(false) {
                Ok(()) => Ok(self.check_marker()?),
                Err(message) => Err(self.fault(message).into()),
            },
            Scanner::Lines(lines) => match lines.finish(!self.header_seen) {
                Ok(()) => self.piece(&tail, &mut on),
                Err(message) => Err(self.fault(message).into()),
            },
            Scanner::Tuples(_) if !self.header_seen => {
                Err(self.fault("COPY file signature not recognized").into())
            }
            Scanner::Tuples(_) if tail.is_empty() && !self.passing => Ok(()),
            Scanner::Tuples(_) => Err(self.fault("unexpected EOF in COPY data").into()),
        }
    }

    /// The line or row of the data that is being read, counted from 1.
    pub fn line(&self) -> u64 {
        match &self.scanner {
            Scanner::Lines(lines) => lines.line(),
            Scanner::Tuples(tuples) => tuples.row(),
        }
    }

    fn piece<E: From<Fault>>(
        &mut self,
        record: &[u8],
        on: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if record.len() > self.row_max && !self.has_its_key(record) {
            return Err(self.too_long().into());
        }
        let is_end = match &mut self.scanner {
            Scanner::Lines(lines) => lines.take_marker(record),
            Scanner::Tuples(tuples) => Ok(tuples.at_end()),
        };
        if !self.header_seen {
            self.header_seen = true;
            return on(Piece::Header(record));
        }
        if is_end.map_err(|message| self.fault(message))? {
            self.ended = true;
            return on(Piece::Trailer(record));
        }
        self.look_at = LONG;
        self.read(self.content(record))
            .map_err(|message| self.fault(message))?;
        self.hand_over(record, on)
    }

    fn content<'r>(&self, record: &'r [u8]) -> &'r [u8] {
        match &self.scanner {
            Scanner::Lines(lines) => lines.content(record),
            Scanner::Tuples(_) => record,
        }
    }

    /// Whether the key of a row stands within the bytes that may be held.
    fn has_its_key(&mut self, record: &[u8]) -> bool {
        let content = self.content(record);
        self.header_seen && self.read(content).is_ok_and(|next| next <= self.row_max)
    }

    /// Reads the key's fields from a row or its beginning; where the field after them starts.
    fn read(&mut self, content: &[u8]) -> Result<usize, &'static str> {
        self.fields.clear(self.key_columns.len());
        let (columns, fields) = (&self.key_columns, &mut self.fields);
        match &self.format {
            Format::Text {
                delimiter, null, ..
            } => text::read(content, *delimiter, null, columns, fields),
            Format::Csv {
                delimiter,
                quote,
                escape,
                null,
                ..
            } => {
                let dialect = csv::Dialect {
                    delimiter: *delimiter,
                    quote: *quote,
                    escape: *escape,
                    null,
                };
                dialect.read(content, columns, fields)
            }
            Format::Binary => binary::read(content, columns, fields),
        }
    }

    /// Hands a row or its beginning to `on`, with the fields that were read from it.
    fn hand_over<E>(
        &self,
        record: &[u8],
        on: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let fields = &self.fields;
        let mut stack = [None; STACK_FIELDS];
        if let Some(slots) = stack.get_mut(..fields.at.len()) {
            for (slot, field) in slots.iter_mut().zip(&fields.at) {
                *slot = fields.get(field, record);
            }
            on(Piece::Row {
                bytes: record,
                fields: slots,
            })
        } else {
            let heap: Vec<_> = fields
                .at
                .iter()
                .map(|field| fields.get(field, record))
                .collect();
            on(Piece::Row {
                bytes: record,
                fields: &heap,
            })
        }
    }

    fn fault(&self, message: &'static str) -> Fault {
        Fault::error(SqlState::BAD_COPY_FORMAT, message)
            .detail(format!("This is in line {} of the data of COPY.", self.line()))
            .hint("Send the data in the format that the statement names; nothing of it has been stored.")
    }

    fn too_long(&self) -> Fault {
        Fault::error(
            SqlState::PROGRAM_LIMIT,
            "a row of COPY is too long to be placed",
        )
        .detail(format!(
            "The key of the row in line {} is not within its first {} bytes.",
            self.line(),
            self.row_max
        ))
        .hint("Name the key's columns first in the COPY, or raise max_statement_size.")
    }
}

/// The column's place in the key, if it is one of the key's.
fn slot(columns: &[usize], column: usize) -> Option<usize> {
    columns.iter().position(|wanted| *wanted == column)
}

/// The last column that is needed; `None` when none is.
fn last(columns: &[usize]) -> Option<usize> {
    columns.iter().copied().max()
}

#[cfg(test)]
mod tests;
