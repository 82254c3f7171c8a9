//! Protocol messages as a test writes and reads them: bytes out, bytes in, and a line of text each.
//!
//! Written from <https://www.postgresql.org/docs/current/protocol-message-formats.html> alone, so
//! that it shares no mistake with the proxy's own framing.

use std::fmt::Write as _;

/// A message from the server: its tag and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) tag: u8,
    pub(crate) body: Vec<u8>,
}

/// A frame: tag, length, body.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message is below 4 GB");
    let mut bytes = vec![tag];
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// Strings of a message, each ended by a zero byte.
pub(crate) fn zeroed(strings: &[&str]) -> Vec<u8> {
    strings
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .collect()
}

pub(crate) fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(zeroed(&[name, value]));
    }
    body.push(0);
    let mut bytes = u32::try_from(body.len() + 4)
        .expect("short")
        .to_be_bytes()
        .to_vec();
    bytes.extend(body);
    bytes
}

pub(crate) fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', &zeroed(&[sql]))
}

pub(crate) fn parse(name: &str, sql: &str, types: &[u32]) -> Vec<u8> {
    let mut body = zeroed(&[name, sql]);
    body.extend(count(types.len()));
    body.extend(types.iter().flat_map(|oid| oid.to_be_bytes()));
    frame(b'P', &body)
}

/// The formats are as Bind has them: none for all text, one for all, or one each; 1 is binary.
pub(crate) fn bind(
    portal: &str,
    statement: &str,
    formats: &[i16],
    values: &[Option<Vec<u8>>],
    result_formats: &[i16],
) -> Vec<u8> {
    let mut body = zeroed(&[portal, statement]);
    body.extend(count(formats.len()));
    body.extend(formats.iter().flat_map(|format| format.to_be_bytes()));
    body.extend(values_list(values));
    body.extend(count(result_formats.len()));
    body.extend(
        result_formats
            .iter()
            .flat_map(|format| format.to_be_bytes()),
    );
    frame(b'B', &body)
}

pub(crate) fn values_list(values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut body = count(values.len()).to_vec();
    for value in values {
        let length = value
            .as_ref()
            .map_or(-1, |bytes| i32::try_from(bytes.len()).expect("below 2 GB"));
        body.extend(length.to_be_bytes());
        body.extend(value.iter().flatten());
    }
    body
}

/// `kind` is `S` for a statement, `P` for a portal.
pub(crate) fn describe(kind: u8, name: &str) -> Vec<u8> {
    frame(b'D', &[vec![kind], zeroed(&[name])].concat())
}

pub(crate) fn close(kind: u8, name: &str) -> Vec<u8> {
    frame(b'C', &[vec![kind], zeroed(&[name])].concat())
}

/// `rows` 0 is all of them.
pub(crate) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    frame(
        b'E',
        &[zeroed(&[portal]), rows.to_be_bytes().to_vec()].concat(),
    )
}

pub(crate) fn sync() -> Vec<u8> {
    frame(b'S', &[])
}

fn count(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("at most 65535 items")
        .to_be_bytes()
}

/// Reads a body from front to back; a body that is too short reads as zeros and is shown as such.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        head
    }

    pub(crate) fn int2(&mut self) -> i16 {
        self.take(2).try_into().map_or(0, i16::from_be_bytes)
    }

    pub(crate) fn int4(&mut self) -> i32 {
        self.take(4).try_into().map_or(0, i32::from_be_bytes)
    }

    pub(crate) fn string(&mut self) -> String {
        let end = self
            .0
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(self.take(end)).into_owned();
        self.take(1);
        text
    }

    /// A length and so many bytes; -1 is NULL.
    pub(crate) fn value(&mut self) -> Option<Vec<u8>> {
        let length = self.int4();
        usize::try_from(length)
            .ok()
            .map(|length| self.take(length).to_vec())
    }
}

impl Message {
    /// The values of a DataRow.
    pub(crate) fn row(&self) -> Vec<Option<Vec<u8>>> {
        let mut body = Reader(&self.body);
        (0..body.int2()).map(|_| body.value()).collect()
    }

    /// The names of a RowDescription.
    pub(crate) fn column_names(&self) -> Vec<String> {
        let mut body = Reader(&self.body);
        let mut names = Vec::new();
        for _ in 0..body.int2() {
            names.push(body.string());
            body.take(18);
        }
        names
    }

    /// The fields of an ErrorResponse or a NoticeResponse.
    pub(crate) fn fields(&self) -> Vec<(char, String)> {
        let mut body = Reader(&self.body);
        let mut fields = Vec::new();
        while let [code, rest @ ..] = body.0 {
            if *code == 0 {
                break;
            }
            body = Reader(rest);
            fields.push((char::from(*code), body.string()));
        }
        fields
    }

    /// One field of an error, empty when it has none.
    pub(crate) fn field(&self, code: char) -> String {
        let found = self.fields().into_iter().find(|(found, _)| *found == code);
        found.map(|(_, text)| text).unwrap_or_default()
    }

    /// The message as a line of a transcript. What differs between two runs on the same server (the
    /// source position of an error, process ids, object ids of the user's own) is left out.
    pub(crate) fn line(&self) -> String {
        let name = name(self.tag);
        let mut body = Reader(&self.body);
        match self.tag {
            b'Z' => format!(
                "{name} {}",
                self.body.first().map_or('?', |&state| char::from(state))
            ),
            b'C' => format!("{name} {}", body.string()),
            b'S' => format!("{name} {}={}", body.string(), body.string()),
            b'E' | b'N' => {
                let kept = self
                    .fields()
                    .into_iter()
                    .filter(|(code, _)| !"FLR".contains(*code));
                let fields: Vec<String> = kept
                    .map(|(code, text)| format!("{code}={text:?}"))
                    .collect();
                format!("{name} {}", fields.join(" "))
            }
            b'D' => {
                let values: Vec<String> = self
                    .row()
                    .iter()
                    .map(|value| show(value.as_deref()))
                    .collect();
                format!("{name} {}", values.join(" "))
            }
            b'V' => format!("{name} {}", show(body.value().as_deref())),
            b'd' => format!("{name} {}", show(Some(&self.body))),
            b'T' => format!("{name}{}", columns(body)),
            b't' => {
                let types: Vec<String> = (0..body.int2()).map(|_| oid(body.int4())).collect();
                format!("{name} {}", types.join(" ")).trim_end().to_owned()
            }
            b'G' | b'H' | b'W' => {
                let overall = body.take(1).first().copied().unwrap_or_default();
                let formats: Vec<String> =
                    (0..body.int2()).map(|_| body.int2().to_string()).collect();
                format!("{name} {overall} ({})", formats.join(" "))
            }
            b'A' => {
                body.int4();
                format!("{name} {} {:?}", body.string(), body.string())
            }
            _ if self.body.is_empty() => name.to_owned(),
            _ => format!("{name} {}", show(Some(&self.body))),
        }
    }
}

fn columns(mut body: Reader<'_>) -> String {
    let mut text = String::new();
    for _ in 0..body.int2() {
        let name = body.string();
        let from_table = if body.int4() == 0 { "" } else { "@" };
        let attribute = body.int2();
        let kind = oid(body.int4());
        let (size, modifier, format) = (body.int2(), body.int4(), body.int2());
        write!(
            text,
            " {name}{from_table}{attribute}:{kind}/{size}/{modifier}/{format}"
        )
        .expect("to a string");
    }
    text
}

/// Object ids below 16384 are PostgreSQL's own and equal everywhere.
fn oid(oid: i32) -> String {
    if oid < 16_384 {
        oid.to_string()
    } else {
        "user".to_owned()
    }
}

/// The word of the protocol's documentation for a message from the server.
pub(crate) fn name(tag: u8) -> &'static str {
    match tag {
        b'R' => "Authentication",
        b'K' => "BackendKeyData",
        b'S' => "ParameterStatus",
        b'Z' => "ReadyForQuery",
        b'T' => "RowDescription",
        b'D' => "DataRow",
        b'C' => "CommandComplete",
        b'E' => "ErrorResponse",
        b'N' => "NoticeResponse",
        b'A' => "NotificationResponse",
        b'I' => "EmptyQueryResponse",
        b'1' => "ParseComplete",
        b'2' => "BindComplete",
        b'3' => "CloseComplete",
        b't' => "ParameterDescription",
        b'n' => "NoData",
        b's' => "PortalSuspended",
        b'G' => "CopyInResponse",
        b'H' => "CopyOutResponse",
        b'W' => "CopyBothResponse",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'V' => "FunctionCallResponse",
        b'v' => "NegotiateProtocolVersion",
        _ => "Unknown",
    }
}

/// A value in quotes, what is not printable as `\xHH`; a long one by its length and a checksum.
fn show(value: Option<&[u8]>) -> String {
    let Some(value) = value else {
        return "null".to_owned();
    };
    if value.len() > 300 {
        let sum = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        return format!("<{} bytes, {sum:016x}>", value.len());
    }
    let mut text = String::from("\"");
    for &byte in value {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => write!(text, "\\x{byte:02x}").expect("to a string"),
        }
    }
    text.push('"');
    text
}
