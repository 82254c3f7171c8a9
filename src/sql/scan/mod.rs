//! PostgreSQL's lexical rules over bytes: tokens with byte offsets, nothing copied.
//!
//! Follows `src/backend/parser/scan.l` (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>),
//! so that the proxy and the server see the same tokens. What the server versions we support read
//! differently (`1_000`, `0x1F`, `1or 2`) is [`Unreadable`], as is all that depends on a setting
//! we were not told of.

mod quoted;

use std::ops::Range;

/// What the lexical rules depend on besides the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lexing {
    /// The client's `standard_conforming_strings`. Off, a backslash in a plain string is unreadable.
    pub standard_conforming_strings: bool,
    pub encoding: Encoding,
}

impl Default for Lexing {
    fn default() -> Lexing {
        Lexing {
            standard_conforming_strings: true,
            encoding: Encoding::Utf8,
        }
    }
}

/// What the client's encoding means for reading SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Utf8,
    /// LATIN1 and friends: each byte below 0x80 is ASCII, names beyond ASCII cannot be compared.
    AsciiSafe,
    /// SJIS, BIG5, GBK, GB18030, UHC, JOHAB: a trail byte may be a backslash or a quote.
    Unsafe,
}

impl Encoding {
    /// Reads PostgreSQL's name of an encoding, as `client_encoding` gives it. Unknown names are unsafe.
    pub fn of(name: &str) -> Encoding {
        let mut folded = name
            .bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|byte| byte.to_ascii_uppercase());
        let name: String = folded.by_ref().map(char::from).collect();
        match name.as_str() {
            "UTF8" | "UNICODE" => Encoding::Utf8,
            "SQLASCII" | "KOI8R" | "KOI8" | "KOI8U" | "EUCJP" | "EUCCN" | "EUCKR" | "EUCTW"
            | "EUCJIS2004" | "ISO88595" | "ISO88596" | "ISO88597" | "ISO88598" | "ABC" | "TCVN"
            | "TCVN5712" | "VSCII" | "ALT" | "WIN" => Encoding::AsciiSafe,
            other if other.starts_with("LATIN") || other.starts_with("WIN") => Encoding::AsciiSafe,
            _ => Encoding::Unsafe,
        }
    }
}

/// Why a text cannot be read with certainty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub &'static str);

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an unquoted name.
    Word,
    /// `"name"`, quotes included.
    Quoted,
    /// `U&"name"`.
    UnicodeName,
    /// `'text'` in one piece, quotes included.
    Text,
    /// `'one' ⏎ 'two'`: a string in several pieces.
    TextPieces,
    /// `E'text'`.
    Escaped,
    /// `U&'text'`.
    UnicodeText,
    /// `B'…'` or `X'…'`.
    Bits,
    /// `N'…'`.
    National,
    /// `$tag$…$tag$`.
    Dollar,
    /// Digits only.
    Integer,
    /// A number with a point or an exponent.
    Decimal,
    /// `$1`.
    Parameter,
    /// Any run of operator characters that PostgreSQL takes for one, single ones included.
    Operator,
    OpenParen,
    CloseParen,
    OpenBracket,
    CloseBracket,
    Comma,
    Semicolon,
    Dot,
    DotDot,
    Colon,
    DoubleColon,
    ColonEquals,
    /// A comment of either form. [`scan`] leaves them out.
    Comment,
    /// A byte no rule covers: PostgreSQL would call it a syntax error.
    Other,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// Its bytes in the text it was read from.
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Where it stands.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

const SPACE: u8 = 1;
const LETTER: u8 = 2;
const DIGIT: u8 = 3;
const OPERATOR: u8 = 4;
const QUOTE: u8 = 5;
const DOUBLE_QUOTE: u8 = 6;
const DOLLAR: u8 = 7;
const DOT: u8 = 8;
const PUNCTUATION: u8 = 9;
const COLON: u8 = 10;

const CLASSES: [u8; 256] = classes();

#[expect(
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, where a fault is a compile error"
)]
const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => SPACE,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => LETTER,
            b'0'..=b'9' => DIGIT,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => OPERATOR,
            b'\'' => QUOTE,
            b'"' => DOUBLE_QUOTE,
            b'$' => DOLLAR,
            b'.' => DOT,
            b',' | b'(' | b')' | b'[' | b']' | b';' => PUNCTUATION,
            b':' => COLON,
            _ => 0,
        };
        byte += 1;
    }
    table
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Reads tokens one by one, comments included. Never panics, always moves forward.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    lexing: Lexing,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8], lexing: Lexing) -> Lexer<'a> {
        Lexer {
            text,
            at: 0,
            lexing,
        }
    }

    /// The next token, `None` at the end.
    #[inline]
    pub fn next_token(&mut self) -> Result<Option<Token>, Unreadable> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let Some(spaces) = rest.iter().position(|byte| class(*byte) != SPACE) else {
            self.at = self.text.len();
            return Ok(None);
        };
        self.at += spaces;
        let start = self.at;
        let byte = self.peek(0);
        let kind = match class(byte) {
            LETTER => self.word(byte)?,
            DIGIT => self.number()?,
            OPERATOR => self.operator()?,
            QUOTE => self.plain_string()?,
            DOUBLE_QUOTE => self.quoted(Kind::Quoted)?,
            DOLLAR => self.dollar()?,
            DOT => self.dot()?,
            PUNCTUATION => self.single(punctuation(byte)),
            COLON => self.colon(),
            _ => self.single(Kind::Other),
        };
        Ok(Some(Token {
            kind,
            start,
            end: self.at,
        }))
    }

    #[inline]
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn single(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    #[inline]
    fn word(&mut self, first: u8) -> Result<Kind, Unreadable> {
        let next = self.peek(1);
        if next == b'\'' || next == b'&' {
            let (prefix, kind) = match (first, next, self.peek(2)) {
                (b'e' | b'E', b'\'', _) => (1, Kind::Escaped),
                (b'b' | b'B' | b'x' | b'X', b'\'', _) => (1, Kind::Bits),
                (b'n' | b'N', b'\'', _) => (1, Kind::National),
                (b'u' | b'U', b'&', b'\'') => (2, Kind::UnicodeText),
                (b'u' | b'U', b'&', b'"') => (2, Kind::UnicodeName),
                _ => (0, Kind::Word),
            };
            if kind == Kind::UnicodeName {
                self.at += prefix;
                return self.quoted(kind);
            }
            if prefix > 0 {
                self.at += prefix;
                self.strings(kind == Kind::Escaped, kind)?;
                return Ok(kind);
            }
        }
        let start = self.at;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = rest
            .iter()
            .position(|byte| !matches!(class(*byte), LETTER | DIGIT | DOLLAR))
            .unwrap_or(rest.len());
        self.at += length;
        if !rest.get(..length).is_some_and(<[u8]>::is_ascii) {
            self.check_name(start)?;
        }
        Ok(Kind::Word)
    }

    /// A name beyond ASCII must be comparable with the names of the config, which are UTF-8.
    fn check_name(&self, start: usize) -> Result<(), Unreadable> {
        let name = self.text.get(start..self.at).unwrap_or_default();
        match self.lexing.encoding {
            Encoding::Utf8 if std::str::from_utf8(name).is_ok() => Ok(()),
            Encoding::Utf8 => Err(Unreadable("a name is not valid UTF-8")),
            Encoding::AsciiSafe | Encoding::Unsafe => Err(Unreadable(
                "a name beyond ASCII in a client_encoding other than UTF8",
            )),
        }
    }

    fn number(&mut self) -> Result<Kind, Unreadable> {
        let mut kind = Kind::Integer;
        self.digits();
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            kind = Kind::Decimal;
            self.at += 1;
            self.digits();
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                kind = Kind::Decimal;
                self.at += 1 + sign;
                self.digits();
            }
        }
        if class(self.peek(0)) == LETTER {
            return Err(Unreadable("a letter directly after a number"));
        }
        Ok(kind)
    }

    fn digits(&mut self) {
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
    }

    fn dot(&mut self) -> Result<Kind, Unreadable> {
        if self.peek(1).is_ascii_digit() {
            self.number()?;
            return Ok(Kind::Decimal);
        }
        if self.peek(1) == b'.' {
            self.at += 2;
            return Ok(Kind::DotDot);
        }
        Ok(self.single(Kind::Dot))
    }

    fn colon(&mut self) -> Kind {
        let (length, kind) = match self.peek(1) {
            b':' => (2, Kind::DoubleColon),
            b'=' => (2, Kind::ColonEquals),
            _ => (1, Kind::Colon),
        };
        self.at += length;
        kind
    }

    fn operator(&mut self) -> Result<Kind, Unreadable> {
        if self.is_comment_start(0) {
            self.comment()?;
            return Ok(Kind::Comment);
        }
        let mut length = 1;
        while class(self.peek(length)) == OPERATOR && !self.is_comment_start(length) {
            length += 1;
        }
        // A multi-character operator ends in + or - only if it holds one of these.
        let run = self.text.get(self.at..self.at + length).unwrap_or_default();
        let may_end_in_sign = |run: &[u8]| {
            run.iter().any(|byte| {
                matches!(
                    byte,
                    b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
                )
            })
        };
        if !may_end_in_sign(run) {
            while length > 1 && matches!(self.peek(length - 1), b'+' | b'-') {
                length -= 1;
            }
        }
        self.at += length;
        Ok(Kind::Operator)
    }

    fn is_comment_start(&self, ahead: usize) -> bool {
        matches!(
            (self.peek(ahead), self.peek(ahead + 1)),
            (b'-', b'-') | (b'/', b'*')
        )
    }

    fn comment(&mut self) -> Result<(), Unreadable> {
        if self.peek(0) == b'-' {
            self.line_comment();
            return Ok(());
        }
        self.at += 2;
        let mut depth = 1_usize;
        while depth > 0 {
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                }
                _ if self.at >= self.text.len() => {
                    return Err(Unreadable("an unterminated comment"));
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn line_comment(&mut self) {
        while let Some(&byte) = self.text.get(self.at)
            && byte != b'\n'
            && byte != b'\r'
        {
            self.at += 1;
        }
    }
}

fn punctuation(byte: u8) -> Kind {
    match byte {
        b'(' => Kind::OpenParen,
        b')' => Kind::CloseParen,
        b'[' => Kind::OpenBracket,
        b']' => Kind::CloseBracket,
        b',' => Kind::Comma,
        _ => Kind::Semicolon,
    }
}

/// All tokens of a text but its comments.
pub fn scan(text: &[u8], lexing: Lexing) -> Result<Vec<Token>, Unreadable> {
    let mut lexer = Lexer::new(text, lexing);
    let mut tokens = Vec::with_capacity(text.len() / 6 + 4);
    while let Some(token) = lexer.next_token()? {
        if token.kind != Kind::Comment {
            tokens.push(token);
        }
    }
    Ok(tokens)
}
