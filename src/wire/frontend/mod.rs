//! Reads the bodies of clients' messages without copying: names, texts, parameters.
//!
//! Each decoder takes the body of one whole message and checks all of it, so that later access cannot
//! fail. Names and texts are bytes: their encoding is the client's affair.
//! Formats: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

use crate::error::{Fault, SqlState};

/// A body that does not have the form of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {problem}")]
pub struct Malformed {
    /// The name of the message, as `Bind`.
    pub message: &'static str,
    pub problem: Problem,
}

/// What is wrong with a body, in the words of PostgreSQL's `pqformat.c` and `postgres.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("insufficient data left in message")]
    TooShort,
    #[error("invalid string in message")]
    OpenString,
    #[error("invalid message format")]
    TooLong,
    #[error("bind message has {formats} parameter formats but {parameters} parameters")]
    Formats { formats: usize, parameters: usize },
    #[error("invalid {message} message subtype {kind}")]
    Subtype { message: &'static str, kind: u8 },
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Fault {
        Fault::error(SqlState::PROTOCOL_VIOLATION, malformed.problem.to_string())
    }
}

/// What a Describe or a Close is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

/// Parse: a statement's name, its text, and the types the client fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub query: &'a [u8],
    /// All that follows the name: what stays when a statement gets another name.
    pub after_name: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// The type OIDs of the first parameters; 0 is "not said".
    pub fn types(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let (types, _) = self.types.as_chunks::<4>();
        types.iter().map(|oid| u32::from_be_bytes(*oid))
    }

    /// The type OIDs as the message holds them: for hashing and comparing.
    pub fn types_bytes(&self) -> &'a [u8] {
        self.types
    }
}

/// Bind: a portal made of a statement and the values of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// All that follows the statement's name.
    pub after_names: &'a [u8],
    formats: &'a [u8],
    count: usize,
    values: &'a [u8],
    result_formats: &'a [u8],
}

impl<'a> Bind<'a> {
    /// The number of parameters.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order, each with whether it is in binary format; `None` is NULL.
    pub fn values(&self) -> impl Iterator<Item = (bool, Option<&'a [u8]>)> + use<'a> {
        let formats = Formats::new(self.formats);
        let mut reader = Reader::new(self.values, "Bind");
        (0..self.count)
            .map_while(move |index| Some((formats.is_binary(index), reader.value().ok()?)))
    }

    /// The value of the parameter `index`, counted from 0: whether it is binary, and its bytes unless NULL.
    ///
    /// `None` when the message has no such parameter. Takes time in proportion to `index`.
    pub fn value(&self, index: usize) -> Option<(bool, Option<&'a [u8]>)> {
        self.values().nth(index)
    }

    /// Where the first value's length stands in what follows the names.
    pub fn values_start(&self) -> usize {
        // Two counts, and the formats between them.
        self.formats.len().saturating_add(4)
    }

    /// Whether a parameter is binary.
    pub fn has_binary(&self) -> bool {
        !Formats::new(self.formats).is_text()
    }

    /// The formats asked for the result's columns: none (all text), one for all, or one each.
    pub fn result_formats(&self) -> Formats<'a> {
        Formats::new(self.result_formats)
    }

    /// The same, two bytes each, as the message holds them.
    pub fn result_format_codes(&self) -> &'a [u8] {
        self.result_formats
    }
}

/// The format codes of parameters or of result columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Formats<'a> {
    codes: &'a [[u8; 2]],
}

impl<'a> Formats<'a> {
    fn new(bytes: &'a [u8]) -> Formats<'a> {
        let (codes, _) = bytes.as_chunks::<2>();
        Formats { codes }
    }

    /// Whether the column or parameter `index` is binary.
    pub fn is_binary(&self, index: usize) -> bool {
        let code = match self.codes {
            [all] => Some(all),
            each => each.get(index),
        };
        code == Some(&[0, 1])
    }

    /// Whether none is binary.
    pub fn is_text(&self) -> bool {
        self.codes.iter().all(|code| *code == [0, 0])
    }
}

/// Execute: a portal, and at most how many rows; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    pub max_rows: u32,
}

/// SASLInitialResponse: the mechanism and its first message, absent when the client sent none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaslInitialResponse<'a> {
    pub mechanism: &'a [u8],
    pub response: Option<&'a [u8]>,
}

/// Reads a Query's text.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body, "Query");
    let text = reader.string()?;
    reader.end()?;
    Ok(text)
}

/// Reads a Parse.
pub fn parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut reader = Reader::new(body, "Parse");
    let name = reader.string()?;
    let after_name = reader.rest;
    let query = reader.string()?;
    let types = reader.counted(4)?;
    reader.end()?;
    Ok(Parse {
        name,
        query,
        after_name,
        types,
    })
}

/// Reads a Bind, its parameters included.
pub fn bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut reader = Reader::new(body, "Bind");
    let portal = reader.string()?;
    let statement = reader.string()?;
    let after_names = reader.rest;
    let formats = reader.counted(2)?;
    let count = reader.count()?;
    let values = reader.rest;
    for _ in 0..count {
        reader.value()?;
    }
    let result_formats = reader.counted(2)?;
    reader.end()?;
    let formats_count = formats.len().div_euclid(2);
    if formats_count > 1 && formats_count != count {
        return Err(reader.malformed(Problem::Formats {
            formats: formats_count,
            parameters: count,
        }));
    }
    Ok(Bind {
        portal,
        statement,
        after_names,
        formats,
        count,
        values,
        result_formats,
    })
}

/// Reads a Describe.
pub fn describe(body: &[u8]) -> Result<Target<'_>, Malformed> {
    target(body, "Describe")
}

/// Reads a Close.
pub fn close(body: &[u8]) -> Result<Target<'_>, Malformed> {
    target(body, "Close")
}

/// Reads an Execute. A negative row limit means none, as in PostgreSQL.
pub fn execute(body: &[u8]) -> Result<Execute<'_>, Malformed> {
    let mut reader = Reader::new(body, "Execute");
    let portal = reader.string()?;
    let max_rows = i32::from_be_bytes(reader.chunk()?);
    reader.end()?;
    Ok(Execute {
        portal,
        max_rows: u32::try_from(max_rows).unwrap_or(0),
    })
}

/// Reads a PasswordMessage.
pub fn password(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(body, "PasswordMessage");
    let password = reader.string()?;
    reader.end()?;
    Ok(password)
}

/// Reads a SASLInitialResponse.
pub fn sasl_initial_response(body: &[u8]) -> Result<SaslInitialResponse<'_>, Malformed> {
    let mut reader = Reader::new(body, "SASLInitialResponse");
    let mechanism = reader.string()?;
    let response = reader.value()?;
    reader.end()?;
    Ok(SaslInitialResponse {
        mechanism,
        response,
    })
}

fn target<'a>(body: &'a [u8], message: &'static str) -> Result<Target<'a>, Malformed> {
    let mut reader = Reader::new(body, message);
    let [kind] = reader.chunk()?;
    let name = reader.string()?;
    reader.end()?;
    match kind {
        b'S' => Ok(Target::Statement(name)),
        b'P' => Ok(Target::Portal(name)),
        kind => {
            let message = if message == "Describe" {
                "DESCRIBE"
            } else {
                "CLOSE"
            };
            Err(reader.malformed(Problem::Subtype { message, kind }))
        }
    }
}

/// Cuts a body from the front.
struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Reader<'a> {
    fn new(rest: &'a [u8], message: &'static str) -> Reader<'a> {
        Reader { rest, message }
    }

    fn malformed(&self, problem: Problem) -> Malformed {
        Malformed {
            message: self.message,
            problem,
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (chunk, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.malformed(Problem::TooShort))?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.malformed(Problem::TooShort))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| self.malformed(Problem::OpenString))?;
        let text = self.bytes(end)?;
        self.chunk::<1>()?;
        Ok(text)
    }

    /// A count of 16 bits. PostgreSQL reads it without a sign: up to 65,535 parameters.
    fn count(&mut self) -> Result<usize, Malformed> {
        Ok(usize::from(u16::from_be_bytes(self.chunk()?)))
    }

    /// A count, and that many items of `size` bytes.
    fn counted(&mut self, size: usize) -> Result<&'a [u8], Malformed> {
        let count = self.count()?;
        self.bytes(count.saturating_mul(size))
    }

    /// A length of 32 bits and that many bytes; -1 is NULL.
    fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match i32::from_be_bytes(self.chunk()?) {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length)
                    .map_err(|_negative| self.malformed(Problem::TooShort))?;
                self.bytes(length).map(Some)
            }
        }
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed(Problem::TooLong))
        }
    }
}

#[cfg(test)]
mod tests;
