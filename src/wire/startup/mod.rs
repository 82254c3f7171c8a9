//! Reads the first packet of a connection: SSLRequest, GSSENCRequest, CancelRequest or StartupMessage.
//!
//! These packets have a length and no tag. The limits and the order of checks are those of
//! PostgreSQL's `ProcessStartupPacket` (`backend_startup.c`). See
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>.

use crate::error::{Fault, SqlState};

/// Bytes of a startup packet without its length, at most: PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
pub const PACKET_MAX: usize = 10_000;
/// The newest minor version of protocol 3 that is spoken.
pub const MINOR_MAX: u16 = 2;
/// The first byte of a TLS handshake record: direct TLS, without SSLRequest.
pub const TLS_RECORD: u8 = 0x16;

// 1234 in the high half, and 5678, 5679 and 5680 in the low one.
const CANCEL_REQUEST: u32 = 0x04d2_162e;
const SSL_REQUEST: u32 = 0x04d2_162f;
const GSSENC_REQUEST: u32 = 0x04d2_1630;
/// Bytes of a cancel key's secret, at most, in protocol 3.2.
const SECRET_MAX: usize = 256;

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    SslRequest,
    GssEncRequest,
    CancelRequest { pid: i32, secret: Vec<u8> },
    Startup(StartupMessage),
}

/// A StartupMessage, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartupMessage {
    /// The minor version to speak: what was asked for, at most [`MINOR_MAX`].
    pub minor: u16,
    /// Whether a NegotiateProtocolVersion must be sent: a newer version or options we do not know.
    pub negotiate: bool,
    /// The `_pq_.` options, of which we know none.
    pub unknown_options: Vec<String>,
    pub user: String,
    /// The user's name when the client names none.
    pub database: String,
    /// Settings in the order in which they take effect: those of `options` first.
    pub parameters: Vec<(String, String)>,
}

/// Why a packet is none. Most of these come from port scanners; PostgreSQL logs them and hangs up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("invalid length of startup packet: {0}")]
    Length(u32),
    #[error("invalid length of cancel request packet: {0}")]
    CancelLength(usize),
    #[error(transparent)]
    Refused(Box<Fault>),
}

impl From<Fault> for PacketError {
    fn from(fault: Fault) -> PacketError {
        PacketError::Refused(Box::new(fault))
    }
}

/// How many bytes follow the length word of a startup packet.
pub fn body_length(word: [u8; 4]) -> Result<usize, PacketError> {
    let length = u32::from_be_bytes(word);
    length
        .checked_sub(4)
        .and_then(|body| usize::try_from(body).ok())
        .filter(|body| (4..=PACKET_MAX).contains(body))
        .ok_or(PacketError::Length(length))
}

/// Reads what follows the length word.
pub fn decode(body: &[u8]) -> Result<Packet, PacketError> {
    let Some((code, rest)) = body.split_first_chunk::<4>() else {
        return Err(PacketError::Length(0));
    };
    match u32::from_be_bytes(*code) {
        SSL_REQUEST => Ok(Packet::SslRequest),
        GSSENC_REQUEST => Ok(Packet::GssEncRequest),
        CANCEL_REQUEST => match rest.split_first_chunk::<4>() {
            Some((pid, secret)) if (1..=SECRET_MAX).contains(&secret.len()) => {
                Ok(Packet::CancelRequest {
                    pid: i32::from_be_bytes(*pid),
                    secret: secret.to_vec(),
                })
            }
            _ => Err(PacketError::CancelLength(body.len())),
        },
        version => startup_message(version, rest).map(Packet::Startup),
    }
}

fn startup_message(version: u32, rest: &[u8]) -> Result<StartupMessage, PacketError> {
    let [major_high, major_low, minor_high, minor_low] = version.to_be_bytes();
    let major = u16::from_be_bytes([major_high, major_low]);
    let minor = u16::from_be_bytes([minor_high, minor_low]);
    if major != 3 {
        return Err(Fault::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{MINOR_MAX}"),
        )
        .hint("Use a client that speaks version 3 of the PostgreSQL protocol.")
        .into());
    }
    let mut message = StartupMessage {
        minor: minor.min(MINOR_MAX),
        negotiate: minor > MINOR_MAX,
        unknown_options: Vec::new(),
        user: String::new(),
        database: String::new(),
        parameters: Vec::new(),
    };
    let mut from_options = Vec::new();
    let mut pairs = rest;
    while pairs != [0] {
        let Some((name, value, after)) = pair(pairs) else {
            return Err(Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                "invalid startup packet layout: expected terminator as last byte",
            )
            .hint("The client sent a malformed startup packet; check that it speaks the PostgreSQL protocol.")
            .into());
        };
        pairs = after;
        take(&mut message, &mut from_options, name, value)?;
    }
    if message.user.is_empty() {
        return Err(Fault::fatal(
            SqlState::INVALID_AUTHORIZATION,
            "no PostgreSQL user name specified in startup packet",
        )
        .hint("Give a user name in the connection string.")
        .into());
    }
    if message.database.is_empty() {
        message.database.clone_from(&message.user);
    }
    from_options.append(&mut message.parameters);
    message.parameters = from_options;
    Ok(message)
}

/// Takes one parameter of the packet into the message.
fn take(
    message: &mut StartupMessage,
    from_options: &mut Vec<(String, String)>,
    name: &[u8],
    value: &[u8],
) -> Result<(), PacketError> {
    let name = text("name of a parameter", name)?;
    match name {
        "user" => text(name, value)?.clone_into(&mut message.user),
        "database" => text(name, value)?.clone_into(&mut message.database),
        "options" => *from_options = options(text(name, value)?)?,
        "replication" => {
            if !is_off(value) {
                return Err(Fault::fatal(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "replication connections are not supported",
                )
                .hint("Connect to the PostgreSQL server itself for replication.")
                .into());
            }
        }
        // As PostgreSQL does with this one: it is for reading only, and old clients put any bytes there.
        "application_name" => {
            let value = String::from_utf8_lossy(value).into_owned();
            message.parameters.push((name.to_owned(), value));
        }
        _ if name.starts_with("_pq_.") => {
            message.negotiate = true;
            message.unknown_options.push(name.to_owned());
        }
        _ => {
            let value = text(name, value)?.to_owned();
            message.parameters.push((name.to_owned(), value));
        }
    }
    Ok(())
}

/// A name, its value, and what follows; `None` unless both end in a zero byte and the name is not empty.
fn pair(input: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = zero_ended(input)?;
    let (value, rest) = zero_ended(rest)?;
    (!name.is_empty()).then_some((name, value, rest))
}

fn zero_ended(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.iter().position(|&byte| byte == 0)?;
    let (text, rest) = input.split_at_checked(end)?;
    Some((text, rest.get(1..)?))
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, PacketError> {
    std::str::from_utf8(value)
        .map_err(|error| {
            Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "invalid byte sequence for encoding \"UTF8\" in startup parameter \"{name}\""
                ),
            )
            .detail(format!(
                "The bytes after position {} are not UTF-8.",
                error.valid_up_to()
            ))
            .hint("Send user, database and settings in UTF-8.")
        })
        .map_err(PacketError::from)
}

/// Whether a boolean parameter is off, in any spelling PostgreSQL's `parse_bool` takes.
fn is_off(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    let is_prefix = |word: &[u8], least: usize| value.len() >= least && word.starts_with(&value);
    is_prefix(b"false", 1) || is_prefix(b"no", 1) || is_prefix(b"off", 2) || value == b"0"
}

/// Reads the command-line options of the `options` parameter: `-c name=value`, `-cname=value` and `--name=value`.
///
/// Words are split at white space that no backslash precedes, as in PostgreSQL's `pg_split_opts`;
/// dashes in the name of a long option stand for underscores, as in `ParseLongOption`.
pub fn options(text: &str) -> Result<Vec<(String, String)>, Fault> {
    let mut settings = Vec::new();
    let mut words = split_options(text).into_iter();
    while let Some(word) = words.next() {
        let assignment = if let Some(long) = word.strip_prefix("--") {
            long.to_owned()
        } else if word == "-c" {
            words.next().unwrap_or_default()
        } else if let Some(short) = word.strip_prefix("-c") {
            short.to_owned()
        } else {
            String::new()
        };
        match assignment.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                settings.push((name.replace('-', "_"), value.to_owned()));
            }
            _ => {
                return Err(Fault::fatal(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid command-line argument for server process: {word}"),
                )
                .hint("In \"options\", write settings as -c name=value."));
            }
        }
    }
    Ok(settings)
}

fn split_options(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character.is_ascii_whitespace() || character == '\u{b}' {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        if character != '\\' {
            word.push(character);
        } else if let Some(escaped) = characters.next() {
            word.push(escaped);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests;
