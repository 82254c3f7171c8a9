//! The protocol's messages as the console reads and writes them. Sans-IO.
//!
//! Reading checks every length itself: a body that is too short, or too long, is a fault, never a
//! panic. Writing goes through pgwire's message types.
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use bytes::BytesMut;
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

use crate::admin::answer::{Cell, Column};
use crate::error::{Fault, SqlState};

/// Reads the fields of a message's body one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Begins at the first byte after the length.
    pub const fn new(body: &'a [u8]) -> Reader<'a> {
        Reader { rest: body }
    }

    /// A string that ends with a zero byte.
    pub fn text(&mut self) -> Result<&'a str, Fault> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(malformed)?;
        let bytes = self.bytes(end)?;
        self.bytes(1)?;
        str::from_utf8(bytes).map_err(|error| {
            Fault::error(SqlState::PROTOCOL_VIOLATION, "text is not UTF-8")
                .detail(format!("It is valid up to byte {}.", error.valid_up_to()))
                .hint("Set the client's encoding to UTF8.")
        })
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit count.
    pub fn count(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn number(&mut self) -> Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A list of format codes, each 0 (text) or 1 (binary).
    pub fn formats(&mut self) -> Result<Vec<bool>, Fault> {
        let count = self.count()?;
        (0..count)
            .map(|_| match self.count()? {
                0 => Ok(false),
                1 => Ok(true),
                code => Err(
                    Fault::error(SqlState::INVALID_PARAMETER_VALUE, "invalid format code")
                        .detail(format!(
                            "The code was {code}; there are 0 for text and 1 for binary."
                        ))
                        .hint("Ask for text or binary."),
                ),
            })
            .collect()
    }

    /// Makes sure that nothing is left.
    pub fn end(self) -> Result<(), Fault> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(malformed())
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(malformed)?;
        self.rest = rest;
        Ok(*array)
    }
}

fn malformed() -> Fault {
    Fault::error(SqlState::PROTOCOL_VIOLATION, "invalid message format")
        .detail("The message's fields do not fit its length.")
        .hint("Check the client's driver.")
}

/// Appends one message.
pub fn put(message: &impl Message, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).map_err(|error| {
        Fault::fatal(SqlState::INTERNAL, "could not encode a reply").detail(format!("{error}."))
    })?;
    out.extend_from_slice(&buffer);
    Ok(())
}

/// Appends an ErrorResponse. A fault is always small enough to encode.
pub fn put_fault(fault: &Fault, out: &mut Vec<u8>) -> Result<(), Fault> {
    put(&ErrorResponse::new(fields(fault)), out)
}

/// Appends a NoticeResponse for each.
pub fn put_notices(notices: &[Fault], out: &mut Vec<u8>) -> Result<(), Fault> {
    for notice in notices {
        put(&NoticeResponse::new(fields(notice)), out)?;
    }
    Ok(())
}

fn fields(fault: &Fault) -> Vec<(u8, String)> {
    let severity = fault.severity.as_str().to_owned();
    let mut fields = vec![
        (b'S', severity.clone()),
        (b'V', severity),
        (b'C', fault.code.as_str().to_owned()),
        (b'M', fault.message.clone()),
    ];
    fields.extend(fault.detail.clone().map(|detail| (b'D', detail)));
    fields.extend(fault.hint.clone().map(|hint| (b'H', hint)));
    fields.extend(fault.position.map(|position| (b'P', position.to_string())));
    fields
}

/// Appends a RowDescription; `formats` are those of Bind.
pub fn put_columns(columns: &[Column], formats: &[bool], out: &mut Vec<u8>) -> Result<(), Fault> {
    let fields = columns.iter().enumerate().map(|(index, column)| {
        let format = i16::from(is_binary(formats, index));
        FieldDescription::new(
            column.name.to_string(),
            0,
            0,
            column.kind.oid(),
            column.kind.size(),
            -1,
            format,
        )
    });
    put(&RowDescription::new(fields.collect()), out)
}

/// Appends a DataRow.
pub fn put_row(
    columns: &[Column],
    cells: &[Cell],
    formats: &[bool],
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut data = BytesMut::new();
    for (index, (column, cell)) in columns.iter().zip(cells).enumerate() {
        cell.encode(column.kind, is_binary(formats, index), &mut data);
    }
    put(
        &DataRow::new(data, i16::try_from(columns.len()).unwrap_or(i16::MAX)),
        out,
    )
}

/// Bind's rule: no code is text, one is for all columns, else one a column.
fn is_binary(formats: &[bool], index: usize) -> bool {
    match formats {
        [] => false,
        [all] => *all,
        each => each.get(index).copied().unwrap_or(false),
    }
}
