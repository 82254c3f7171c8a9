//! Writes the messages that pgherd itself sends to clients, and reads the fields of servers' errors.
//!
//! Each writer appends one whole message to a buffer. Message formats:
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use std::borrow::Cow;

use crate::error::{Fault, Severity};

/// The transaction status of ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Idle,
    InBlock,
    Failed,
}

impl Status {
    /// The byte of the message: `I`, `T` or `E`.
    pub const fn byte(self) -> u8 {
        match self {
            Status::Idle => b'I',
            Status::InBlock => b'T',
            Status::Failed => b'E',
        }
    }

    /// Reads the byte of a server's ReadyForQuery.
    pub const fn read(byte: u8) -> Option<Status> {
        match byte {
            b'I' => Some(Status::Idle),
            b'T' => Some(Status::InBlock),
            b'E' => Some(Status::Failed),
            _ => None,
        }
    }
}

/// A column of a RowDescription of our own: text format, no table behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a str,
    /// The OID of its type, as 25 for text and 20 for bigint.
    pub type_oid: u32,
    /// The type's length in `pg_type.typlen`; -1 for variable.
    pub type_length: i16,
}

impl<'a> Column<'a> {
    /// A column of type text.
    pub const fn text(name: &'a str) -> Column<'a> {
        Column {
            name,
            type_oid: 25,
            type_length: -1,
        }
    }

    /// A column of type bigint.
    pub const fn bigint(name: &'a str) -> Column<'a> {
        Column {
            name,
            type_oid: 20,
            type_length: 8,
        }
    }
}

/// Appends one message: the tag, the length worked out afterwards, and the body that `body` writes.
///
/// A body above 2 GB cannot be expressed; callers' bodies are far below it, and the length saturates.
pub fn message(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = i32::try_from(out.len().saturating_sub(start)).unwrap_or(i32::MAX);
    if let Some(place) = out.get_mut(start..start.saturating_add(4)) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends `text` and a zero byte; an inner zero byte would end the string early, so the text stops there.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().take_while(|&byte| byte != 0));
    out.push(0);
}

fn count(out: &mut Vec<u8>, items: usize) {
    out.extend_from_slice(&i16::try_from(items).unwrap_or(i16::MAX).to_be_bytes());
}

/// ErrorResponse, or NoticeResponse when the fault is a warning or a notice.
pub fn fault(out: &mut Vec<u8>, fault: &Fault) {
    let tag = match fault.severity {
        Severity::Error | Severity::Fatal => b'E',
        Severity::Warning | Severity::Notice => b'N',
    };
    let position = fault.position.map(|position| position.to_string());
    let fields = [
        (b'S', Some(fault.severity.as_str())),
        (b'V', Some(fault.severity.as_str())),
        (b'C', Some(fault.code.as_str())),
        (b'M', Some(fault.message.as_str())),
        (b'D', fault.detail.as_deref()),
        (b'H', fault.hint.as_deref()),
        (b'P', position.as_deref()),
    ];
    message(out, tag, |out| {
        for (field, value) in fields {
            if let Some(value) = value {
                out.push(field);
                string(out, value);
            }
        }
        out.push(0);
    });
}

/// ReadyForQuery.
pub fn ready_for_query(out: &mut Vec<u8>, status: Status) {
    message(out, b'Z', |out| out.push(status.byte()));
}

/// CommandComplete with its tag, as in `SELECT 1`.
pub fn command_complete(out: &mut Vec<u8>, tag: &str) {
    message(out, b'C', |out| string(out, tag));
}

/// ParseComplete.
pub fn parse_complete(out: &mut Vec<u8>) {
    message(out, b'1', |_| ());
}

/// BindComplete.
pub fn bind_complete(out: &mut Vec<u8>) {
    message(out, b'2', |_| ());
}

/// CloseComplete.
pub fn close_complete(out: &mut Vec<u8>) {
    message(out, b'3', |_| ());
}

/// NoData: the described statement returns no rows.
pub fn no_data(out: &mut Vec<u8>) {
    message(out, b'n', |_| ());
}

/// EmptyQueryResponse.
pub fn empty_query_response(out: &mut Vec<u8>) {
    message(out, b'I', |_| ());
}

/// PortalSuspended: an Execute stopped at its row limit.
pub fn portal_suspended(out: &mut Vec<u8>) {
    message(out, b's', |_| ());
}

/// ParameterDescription: the types of a statement's parameters.
pub fn parameter_description(out: &mut Vec<u8>, types: &[u32]) {
    message(out, b't', |out| {
        count(out, types.len());
        for oid in types {
            out.extend_from_slice(&oid.to_be_bytes());
        }
    });
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    message(out, b'S', |out| {
        string(out, name);
        string(out, value);
    });
}

/// BackendKeyData. The secret has 4 bytes in protocol 3.0 and up to 256 in 3.2.
pub fn backend_key_data(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    message(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// RowDescription of columns in text format.
pub fn row_description(out: &mut Vec<u8>, columns: &[Column<'_>]) {
    message(out, b'T', |out| {
        count(out, columns.len());
        for column in columns {
            string(out, column.name);
            // No table, and so no column of it.
            out.extend_from_slice(&0_u32.to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
            out.extend_from_slice(&column.type_oid.to_be_bytes());
            out.extend_from_slice(&column.type_length.to_be_bytes());
            // No type modifier; text format.
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            out.extend_from_slice(&0_i16.to_be_bytes());
        }
    });
}

/// The values of a DataRow, `None` for NULL; those after a malformed one are missing.
pub fn row_values(body: &[u8]) -> Vec<Option<&[u8]>> {
    let mut values = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        rest = after;
        // −1 is NULL.
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            values.push(None);
            continue;
        };
        let Some((value, after)) = rest.split_at_checked(length) else {
            break;
        };
        values.push(Some(value));
        rest = after;
    }
    values
}

/// DataRow of values in text format; `None` is NULL.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
    message(out, b'D', |out| {
        count(out, values.len());
        for value in values {
            let Some(value) = value else {
                out.extend_from_slice(&(-1_i32).to_be_bytes());
                continue;
            };
            let length = i32::try_from(value.len()).unwrap_or(i32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
    });
}

/// NotificationResponse.
pub fn notification_response(out: &mut Vec<u8>, pid: i32, channel: &str, payload: &str) {
    message(out, b'A', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        string(out, channel);
        string(out, payload);
    });
}

/// NegotiateProtocolVersion: the version that will be spoken, and the options not understood.
///
/// As PostgreSQL (`SendNegotiateProtocolVersion`), the version is sent whole, as 3 << 16 | minor.
pub fn negotiate_protocol_version(out: &mut Vec<u8>, minor: u16, unknown: &[String]) {
    message(out, b'v', |out| {
        let version = (3_u32 << 16) | u32::from(minor);
        out.extend_from_slice(&version.to_be_bytes());
        let options = i32::try_from(unknown.len()).unwrap_or(i32::MAX);
        out.extend_from_slice(&options.to_be_bytes());
        for option in unknown {
            string(out, option);
        }
    });
}

/// The authentication requests that pgherd makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    CleartextPassword,
    Md5Password { salt: [u8; 4] },
    Sasl { mechanisms: &'a [&'a str] },
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
}

/// AuthenticationOk and its kin.
pub fn authentication(out: &mut Vec<u8>, request: Authentication<'_>) {
    message(out, b'R', |out| match request {
        Authentication::Ok => out.extend_from_slice(&0_u32.to_be_bytes()),
        Authentication::CleartextPassword => out.extend_from_slice(&3_u32.to_be_bytes()),
        Authentication::Md5Password { salt } => {
            out.extend_from_slice(&5_u32.to_be_bytes());
            out.extend_from_slice(&salt);
        }
        Authentication::Sasl { mechanisms } => {
            out.extend_from_slice(&10_u32.to_be_bytes());
            for mechanism in mechanisms {
                string(out, mechanism);
            }
            out.push(0);
        }
        Authentication::SaslContinue(data) => {
            out.extend_from_slice(&11_u32.to_be_bytes());
            out.extend_from_slice(data);
        }
        Authentication::SaslFinal(data) => {
            out.extend_from_slice(&12_u32.to_be_bytes());
            out.extend_from_slice(data);
        }
    });
}

/// The fields of a server's ErrorResponse or NoticeResponse, as its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    body: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// The value of a field by its letter; `None` when it is absent or the body is cut short before it.
    pub fn field(&self, letter: u8) -> Option<&'a [u8]> {
        self.iter()
            .find(|&(found, _)| found == letter)
            .map(|(_, value)| value)
    }

    /// Every field in the order of the message, up to the first that is malformed.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        let mut rest = self.body;
        std::iter::from_fn(move || {
            let (&letter, after) = rest.split_first()?;
            if letter == 0 {
                return None;
            }
            let end = after.iter().position(|&byte| byte == 0)?;
            let (value, after) = after.split_at_checked(end)?;
            rest = after.get(1..)?;
            Some((letter, value))
        })
    }

    /// SQLSTATE (`C`); `XX000` when the server sent none.
    pub fn code(&self) -> &'a str {
        self.text(b'C').unwrap_or("XX000")
    }

    /// The primary message (`M`), empty when absent or not UTF-8.
    pub fn message(&self) -> &'a str {
        self.text(b'M').unwrap_or_default()
    }

    /// The severity in English (`V`, else `S`).
    pub fn severity(&self) -> &'a str {
        self.text(b'V')
            .or_else(|| self.text(b'S'))
            .unwrap_or_default()
    }

    /// Whether a prepared statement is refused because its result has changed
    /// (`RevalidateCachedQuery` in `plancache.c`).
    pub fn is_stale_plan(&self) -> bool {
        self.code() == "0A000" && self.field(b'R') == Some(b"RevalidateCachedQuery")
    }

    fn text(&self, letter: u8) -> Option<&'a str> {
        self.field(letter)
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// A column as RowDescription names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultColumn {
    pub name: Box<[u8]>,
    /// The object id of its type.
    pub kind: u32,
    /// The type's modifier, -1 for none.
    pub modifier: i32,
}

/// Reads the body of a ParameterDescription: the object ids of the types; `None` when malformed.
pub fn parameter_types(body: &[u8]) -> Option<Box<[u32]>> {
    let (count, rest) = body.split_first_chunk::<2>()?;
    let (types, _) = rest.as_chunks::<4>();
    (types.len() == usize::from(u16::from_be_bytes(*count))).then(|| {
        types
            .iter()
            .map(|bytes| u32::from_be_bytes(*bytes))
            .collect()
    })
}

/// Reads the body of a RowDescription; `None` when malformed.
pub fn result_columns(body: &[u8]) -> Option<Box<[ResultColumn]>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    (0..u16::from_be_bytes(*count))
        .map(|_| {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let (name, after) = rest.split_at_checked(end)?;
            // The name's end, its table (4) and column (2), the type (4), its length (2), the modifier (4), the format (2).
            let (fixed, after) = after.split_first_chunk::<19>()?;
            let kind = fixed.get(7..)?.first_chunk::<4>()?;
            let modifier = fixed.get(13..)?.first_chunk::<4>()?;
            rest = after;
            Some(ResultColumn {
                name: name.into(),
                kind: u32::from_be_bytes(*kind),
                modifier: i32::from_be_bytes(*modifier),
            })
        })
        .collect()
}

/// The tag in the body of a CommandComplete.
pub fn command_tag(body: &[u8]) -> Cow<'_, str> {
    let tag = body.split(|byte| *byte == 0).next();
    String::from_utf8_lossy(tag.unwrap_or_default())
}

/// The rows that the tag of a CommandComplete counts; 0 when it counts none.
pub fn command_count(body: &[u8]) -> u64 {
    command_tag(body)
        .rsplit(' ')
        .next()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// An ErrorResponse like that with this body, with another position; without one for `None`.
pub fn error_at(body: &[u8], position: Option<usize>) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, b'E', |out| {
        for (letter, value) in error_fields(body).iter() {
            let position = position.map(|position| position.to_string());
            let value = match (letter, &position) {
                (b'P', None) => continue,
                (b'P', Some(position)) => position.as_bytes(),
                _ => value,
            };
            out.push(letter);
            out.extend_from_slice(value);
            out.push(0);
        }
        out.push(0);
    });
    out
}

/// An ErrorResponse like that with this body, without the fields of these letters.
pub fn error_without(body: &[u8], letters: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, b'E', |out| {
        for (letter, value) in error_fields(body).iter() {
            if !letters.contains(&letter) {
                out.push(letter);
                out.extend_from_slice(value);
                out.push(0);
            }
        }
        out.push(0);
    });
    out
}

/// Reads the body of an ErrorResponse or NoticeResponse. Never fails: what is malformed is absent.
pub fn error_fields(body: &[u8]) -> ErrorFields<'_> {
    ErrorFields { body }
}

#[cfg(test)]
mod tests;
