//! Walks the tokens of one statement: keywords, names, strings.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use std::ops::Range;

use super::quote::quote_ident;
use super::scan::{Kind, Token};

/// The longest name PostgreSQL keeps; longer ones are cut (`NAMEDATALEN - 1`).
pub const NAME_BYTES_MAX: usize = 63;

/// A name of one to three parts, folded as PostgreSQL folds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    pub schema: Option<String>,
    pub name: String,
}

impl Name {
    /// A name with its schema, as the catalogs have both.
    pub fn within(schema: &str, name: &str) -> Name {
        Name {
            schema: Some(schema.to_owned()),
            name: name.to_owned(),
        }
    }

    /// From its parts, the catalog's name before the schema's allowed and dropped.
    pub fn of(mut parts: Vec<String>) -> Option<Name> {
        let name = parts.pop()?;
        let schema = parts.pop();
        (parts.len() <= 1).then_some(Name { schema, name })
    }

    /// As SQL: each part in double quotes.
    pub fn quoted(&self) -> String {
        let name = quote_ident(&self.name);
        match &self.schema {
            Some(schema) => format!("{}.{name}", quote_ident(schema)),
            None => name,
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Folds an unquoted name: ASCII to lower case, cut to 63 bytes.
pub fn fold(word: &str) -> String {
    truncate(word.to_ascii_lowercase())
}

/// Cuts a name at a character's edge within 63 bytes, as PostgreSQL's `truncate_identifier`.
pub fn truncate(mut name: String) -> String {
    if name.len() > NAME_BYTES_MAX {
        let mut end = NAME_BYTES_MAX;
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
    }
    name
}

/// A position in the tokens of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8], tokens: &'a [Token]) -> Cursor<'a> {
        Cursor { text, tokens }
    }

    /// The text all offsets refer to.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// What is left.
    pub fn tokens(&self) -> &'a [Token] {
        self.tokens
    }

    pub fn is_done(&self) -> bool {
        self.tokens.is_empty()
    }

    pub fn peek(&self) -> Option<Token> {
        self.tokens.first().copied()
    }

    pub fn kind(&self) -> Option<Kind> {
        self.peek().map(|token| token.kind)
    }

    /// The bytes of the next token.
    pub fn bytes(&self) -> &'a [u8] {
        self.peek().map_or(&[], |token| token.of(self.text))
    }

    pub fn advance(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(*first)
    }

    /// Whether the next token is this keyword.
    pub fn at(&self, word: &str) -> bool {
        self.kind() == Some(Kind::Word) && self.bytes().eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether the next tokens are these keywords.
    pub fn at_words(&self, words: &[&str]) -> bool {
        let mut ahead = *self;
        words.iter().all(|word| ahead.take(word))
    }

    /// Takes the next token if it is this keyword.
    pub fn take(&mut self, word: &str) -> bool {
        let found = self.at(word);
        if found {
            self.advance();
        }
        found
    }

    /// Takes all of these keywords, or nothing.
    pub fn take_words(&mut self, words: &[&str]) -> bool {
        let found = self.at_words(words);
        if found {
            for _ in words {
                self.advance();
            }
        }
        found
    }

    /// Takes one of these keywords, if it is next.
    pub fn take_any(&mut self, words: &[&'static str]) -> Option<&'static str> {
        words.iter().copied().find(|word| self.take(word))
    }

    pub fn take_kind(&mut self, kind: Kind) -> bool {
        let found = self.kind() == Some(kind);
        if found {
            self.advance();
        }
        found
    }

    /// Takes this operator.
    pub fn take_operator(&mut self, operator: &str) -> bool {
        let found = self.kind() == Some(Kind::Operator) && self.bytes() == operator.as_bytes();
        if found {
            self.advance();
        }
        found
    }

    /// Takes a name, folded or unquoted.
    pub fn name(&mut self) -> Option<String> {
        let name = word_name(self.peek()?, self.text)?;
        self.advance();
        Some(name)
    }

    /// Takes the parts of a dotted name.
    pub fn parts(&mut self) -> Option<Vec<String>> {
        let mut parts = vec![self.name()?];
        while self.take_kind(Kind::Dot) {
            parts.push(self.name()?);
        }
        Some(parts)
    }

    /// Takes a name that may carry a schema.
    pub fn qualified(&mut self) -> Option<Name> {
        Name::of(self.parts()?)
    }

    /// Takes a plain, national or escaped string; its value.
    pub fn string(&mut self) -> Option<String> {
        let value = string_value(self.peek()?, self.text)?;
        self.advance();
        Some(value)
    }

    /// Whether any token left is this keyword.
    pub fn mentions(&self, word: &str) -> bool {
        self.tokens.iter().any(|token| {
            token.kind == Kind::Word && token.of(self.text).eq_ignore_ascii_case(word.as_bytes())
        })
    }

    /// Skips a parenthesised group, if one is next.
    pub fn skip_group(&mut self) -> bool {
        if self.kind() != Some(Kind::OpenParen) {
            return false;
        }
        let mut depth = 0_usize;
        while let Some(token) = self.advance() {
            match token.kind {
                Kind::OpenParen => depth += 1,
                Kind::CloseParen => depth = depth.saturating_sub(1),
                _ => (),
            }
            if depth == 0 {
                return true;
            }
        }
        false
    }

    /// The bytes from the next token to the last.
    pub fn rest(&self) -> Range<usize> {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            (None, _) | (_, None) => 0..0,
        }
    }

    /// The text from the next token to the last.
    pub fn rest_text(&self) -> String {
        String::from_utf8_lossy(self.text.get(self.rest()).unwrap_or_default()).into_owned()
    }
}

/// The name a token spells, `None` if it is none (or one with Unicode escapes).
pub fn word_name(token: Token, text: &[u8]) -> Option<String> {
    let bytes = token.of(text);
    match token.kind {
        Kind::Word => std::str::from_utf8(bytes).ok().map(fold),
        Kind::Quoted => {
            let inner = bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
            let inner = std::str::from_utf8(inner).ok()?;
            Some(truncate(inner.replace("\"\"", "\"")))
        }
        _ => None,
    }
}

/// The value of a plain, escaped or dollar-quoted string; `None` for what is none, or has escapes
/// beyond the simple ones.
pub fn string_value(token: Token, text: &[u8]) -> Option<String> {
    let bytes = token.of(text);
    match token.kind {
        Kind::Text => unquote(bytes),
        Kind::National => unquote(bytes.get(1..)?),
        Kind::Escaped => unescape(bytes.get(1..)?),
        Kind::Dollar => {
            let tag = 2 + bytes.get(1..)?.iter().position(|&byte| byte == b'$')?;
            let inner = bytes.get(tag..bytes.len().checked_sub(tag)?)?;
            String::from_utf8(inner.to_vec()).ok()
        }
        _ => None,
    }
}

fn unquote(bytes: &[u8]) -> Option<String> {
    let inner = bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
    Some(std::str::from_utf8(inner).ok()?.replace("''", "'"))
}

/// The same for strings within a statement, also of several pieces and with Unicode escapes: sqlparser
/// reads no UESCAPE behind them.
pub(super) fn constant_value(token: Token, text: &[u8]) -> Option<String> {
    let bytes = token.of(text);
    match token.kind {
        Kind::TextPieces => join_pieces(bytes),
        Kind::UnicodeText => decode_unicode(&unquote(bytes.get(2..)?)?),
        _ => string_value(token, text),
    }
}

/// A string in several pieces, with nothing but space between them.
fn join_pieces(bytes: &[u8]) -> Option<String> {
    let mut value = String::new();
    let mut rest = bytes;
    while let Some(inner) = rest.strip_prefix(b"'") {
        let mut end = 0;
        while inner.get(end) != Some(&b'\'') || inner.get(end + 1) == Some(&b'\'') {
            end += if *inner.get(end)? == b'\'' { 2 } else { 1 };
        }
        value.push_str(&unquote(rest.get(..end + 2)?)?);
        rest = inner.get(end + 1..)?.trim_ascii_start();
    }
    rest.is_empty().then_some(value)
}

/// What `U&'…'` says, without UESCAPE; `None` for halves of a surrogate pair.
fn decode_unicode(text: &str) -> Option<String> {
    let mut value = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        value.push_str(plain);
        if let Some(after) = escape.strip_prefix('\\') {
            value.push('\\');
            rest = after;
            continue;
        }
        let (digits, after) = match escape.strip_prefix('+') {
            Some(long) => long.split_at_checked(6)?,
            None => escape.split_at_checked(4)?,
        };
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = is_hex.then(|| u32::from_str_radix(digits, 16).ok())??;
        value.push(char::from_u32(code).filter(|&letter| letter != '\0')?);
        rest = after;
    }
    value.push_str(rest);
    Some(value)
}

fn unescape(bytes: &[u8]) -> Option<String> {
    let inner = bytes.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let mut value = Vec::with_capacity(inner.len());
    let mut rest = inner.iter().copied();
    while let Some(byte) = rest.next() {
        let plain = match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                byte @ (b'\\' | b'\'' | b'"') => byte,
                _ => return None,
            },
            b'\'' => {
                rest.next();
                b'\''
            }
            // A second piece would stand behind a closing quote.
            byte => byte,
        };
        value.push(plain);
    }
    String::from_utf8(value).ok()
}
