//! The words of a statement as they are compared: a column is the same with and without its table's name, and
//! what calls a function or names a type is no column.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are kept as they are"
)]

use std::ops::Range;

use crate::placement::catalog::Table;
use crate::planner::sources::Sources;
use crate::sql::cursor::{Cursor, word_name};
use crate::sql::scan::{Kind, Token};

/// What one or several tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// A column of a known table, behind the name that the table has in FROM.
    Column(String, String),
    /// Any other word, and whether it is in quotes.
    Name(String, bool),
    /// Any other name of several parts.
    Dotted(Vec<String>),
    /// What stands before the arguments of a call.
    Call(Vec<String>),
    /// The name of a type, or of a field that EXTRACT takes.
    Type(Vec<String>),
    Open,
    Close,
    Comma,
    Other(Vec<u8>),
}

/// A sign, and its tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexeme {
    pub(super) sign: Sign,
    pub(super) tokens: Range<usize>,
}

impl Sources<'_> {
    /// The tables that have a column.
    fn having(&self, column: &str) -> impl Iterator<Item = &str> {
        let has = move |table: &Table| table.columns.iter().any(|own| own.name == column);
        let tables = self.tables.iter().filter(move |(_, table)| has(table));
        tables.map(|(alias, _)| alias.as_str())
    }

    /// Whether a name may be a column of FROM.
    pub(super) fn may_have(&self, column: &str) -> bool {
        !self.is_whole || self.having(column).next().is_some()
    }

    fn sign(&self, parts: &[String]) -> Option<Sign> {
        let sign = |table: &str, column: &str| Sign::Column(table.to_owned(), column.to_owned());
        match parts {
            [column] if self.is_whole && self.is_apart => {
                let mut tables = self.having(column);
                let table = tables.next()?;
                tables.next().is_none().then(|| sign(table, column))
            }
            [table, column] => {
                let mut tables = self.having(column).filter(|own| own == table);
                tables.next()?;
                tables.next().is_none().then(|| sign(table, column))
            }
            _ => None,
        }
    }
}

/// All of a statement's.
pub(super) fn lexemes(tokens: &[Token], text: &[u8], scope: &Sources<'_>) -> Vec<Lexeme> {
    let mut lexemes: Vec<Lexeme> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let sign = match token.kind {
            Kind::OpenParen => Sign::Open,
            Kind::CloseParen => Sign::Close,
            Kind::Comma => Sign::Comma,
            Kind::Word | Kind::Quoted => {
                let (sign, end) = word(tokens, at, text, scope, &lexemes);
                lexemes.push(Lexeme {
                    sign,
                    tokens: at..end,
                });
                at = end;
                continue;
            }
            _ => Sign::Other(token.of(text).to_vec()),
        };
        let end = at.saturating_add(1);
        lexemes.push(Lexeme {
            sign,
            tokens: at..end,
        });
        at = end;
    }
    lexemes
}

/// What begins with a word, and where it ends.
fn word(
    tokens: &[Token],
    at: usize,
    text: &[u8],
    scope: &Sources<'_>,
    before: &[Lexeme],
) -> (Sign, usize) {
    let rest = tokens.get(at..).unwrap_or_default();
    let mut cursor = Cursor::new(text, rest);
    let first = rest.first().copied();
    let unread = || {
        let bytes = first.map(|token| token.of(text).to_vec());
        (Sign::Other(bytes.unwrap_or_default()), at.saturating_add(1))
    };
    let Some(parts) = cursor.parts() else {
        return unread();
    };
    let end = tokens.len().saturating_sub(cursor.tokens().len());
    let is_type = match before.last().map(|lexeme| &lexeme.sign) {
        Some(Sign::Other(bytes)) => bytes == b"::",
        Some(Sign::Name(name, false)) => name == "as" && is_in_cast(before),
        _ => false,
    };
    let is_field = matches!(before, [.., call, open] if open.sign == Sign::Open
        && matches!(&call.sign, Sign::Call(name) if matches!(name.as_slice(), [name] if name == "extract")));
    let behind = cursor.peek().map(|token| token.kind);
    let is_literal = matches!(
        behind,
        Some(Kind::Text | Kind::TextPieces | Kind::Escaped | Kind::UnicodeText | Kind::Dollar)
    );
    if is_type || is_field || is_literal {
        return (Sign::Type(parts), end);
    }
    if behind == Some(Kind::OpenParen) {
        return (Sign::Call(parts), end);
    }
    if let Some(column) = scope.sign(&parts) {
        return (column, end);
    }
    match <[String; 1]>::try_from(parts) {
        Ok([name]) => {
            let quoted = first.is_some_and(|token| token.kind == Kind::Quoted);
            (Sign::Name(name, quoted), end)
        }
        Err(parts) => (Sign::Dotted(parts), end),
    }
}

/// Whether the AS at the end is that of a CAST.
fn is_in_cast(before: &[Lexeme]) -> bool {
    let mut depth = 0_usize;
    for (at, lexeme) in before.iter().enumerate().rev() {
        match lexeme.sign {
            Sign::Close => depth = depth.saturating_add(1),
            Sign::Open if depth > 0 => depth = depth.saturating_sub(1),
            Sign::Open => {
                let call = at.checked_sub(1).and_then(|at| before.get(at));
                return call.is_some_and(|call| {
                    matches!(&call.sign, Sign::Call(name) if matches!(name.as_slice(), [name] if name == "cast"))
                });
            }
            _ => (),
        }
    }
    false
}

/// The name that a single word spells.
pub(super) fn only_word(tokens: &[Token], text: &[u8]) -> Option<String> {
    match tokens {
        [token] => word_name(*token, text),
        _ => None,
    }
}
