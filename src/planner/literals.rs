//! The literals of a text, where planning must look at a value after all.

use crate::sql::cursor::string_value;
use crate::sql::mask::Literal;
use crate::sql::scan::{Kind, Token};
use crate::sql::statement::{Expr, Value};

/// The numbered literals of a text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literals<'a> {
    pub text: &'a [u8],
    pub all: &'a [Literal],
}

impl Literals<'_> {
    /// The value of a constant expression, as text.
    pub(super) fn value(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Value(Value::Literal {
                index,
                negative: false,
                ..
            }) => self.text_of(usize::from(*index)),
            Expr::Value(Value::Text(text)) => Some(text.clone()),
            Expr::Boolean(value) => Some(value.to_string()),
            Expr::Cast(inner, _) => self.value(inner),
            Expr::Value(_)
            | Expr::Column(_)
            | Expr::Row(_)
            | Expr::Array(_)
            | Expr::And(_)
            | Expr::Or(_)
            | Expr::Equal(..)
            | Expr::Same(..)
            | Expr::Compare(..)
            | Expr::Computed(..)
            | Expr::InSubquery(..)
            | Expr::Subquery(_)
            | Expr::In(..)
            | Expr::Any(..)
            | Expr::Default
            | Expr::Call
            | Expr::Other => None,
        }
    }

    fn text_of(&self, index: usize) -> Option<String> {
        let literal = self.all.get(index)?;
        let token = Token {
            kind: Kind::Text,
            start: literal.start,
            end: literal.end,
        };
        match string_value(token, self.text) {
            Some(text) => Some(text),
            None => String::from_utf8(literal.of(self.text).to_vec()).ok(),
        }
    }
}

/// Whether a token is a string that could mean the moment at which it is read.
pub(super) fn may_mean_moment(token: Token, text: &[u8]) -> bool {
    let bytes = token.of(text);
    match token.kind {
        Kind::Text | Kind::TextPieces => pieces(bytes, false).is_none_or(|text| is_moment(&text)),
        Kind::National => {
            pieces(bytes.get(1..).unwrap_or_default(), false).is_none_or(|text| is_moment(&text))
        }
        Kind::Escaped => {
            pieces(bytes.get(1..).unwrap_or_default(), true).is_none_or(|text| is_moment(&text))
        }
        Kind::Dollar => string_value(token, text).is_none_or(|value| is_moment(value.as_bytes())),
        // What is an escape in it, the words behind it say.
        Kind::UnicodeText => true,
        Kind::Word
        | Kind::Quoted
        | Kind::UnicodeName
        | Kind::Bits
        | Kind::Integer
        | Kind::Decimal
        | Kind::Parameter
        | Kind::Operator
        | Kind::OpenParen
        | Kind::CloseParen
        | Kind::OpenBracket
        | Kind::CloseBracket
        | Kind::Comma
        | Kind::Semicolon
        | Kind::Dot
        | Kind::DotDot
        | Kind::Colon
        | Kind::DoubleColon
        | Kind::ColonEquals
        | Kind::Comment
        | Kind::Other => false,
    }
}

/// What a string in one or several pieces says, as far as ASCII goes; `None` where that is not clear.
fn pieces(bytes: &[u8], escaped: bool) -> Option<Vec<u8>> {
    let mut said = Vec::with_capacity(bytes.len());
    let mut inside = false;
    let mut rest = bytes;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'\'' if inside && rest.first() == Some(&b'\'') => {
                said.push(b'\'');
                rest = rest.get(1..)?;
            }
            b'\'' => inside = !inside,
            b'\\' if inside && escaped => {
                let (code, length) = escape(rest)?;
                said.push(code);
                rest = rest.get(length..)?;
            }
            byte if inside => said.push(byte),
            byte if byte.is_ascii_whitespace() => (),
            _ => return None,
        }
    }
    Some(said)
}

/// The byte that an escape stands for and how long it is; any beyond ASCII are alike here.
fn escape(rest: &[u8]) -> Option<(u8, usize)> {
    let first = *rest.first()?;
    let (skipped, most, radix) = match first {
        b'x' => (1, 2, 16),
        b'u' => (1, 4, 16),
        b'U' => (1, 8, 16),
        b'0'..=b'7' => (0, 3, 8),
        _ => {
            return Some((
                if first.is_ascii_alphabetic() {
                    b' '
                } else {
                    first
                },
                1,
            ));
        }
    };
    let digits = rest.get(skipped..)?;
    let length = digits
        .iter()
        .take(most)
        .take_while(|byte| char::from(**byte).is_digit(radix))
        .count();
    if length == 0 {
        return Some((first, 1));
    }
    let digits = std::str::from_utf8(digits.get(..length)?).ok()?;
    let code = u32::from_str_radix(digits, radix).ok()?;
    let byte = u8::try_from(code).ok().filter(u8::is_ascii);
    Some((byte.unwrap_or(0x80), skipped + length))
}

/// Whether a date or time of this text depends on when it is read.
pub(super) fn is_moment(text: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    // Nothing longer is a date with one of the words in it.
    text.len() <= 64
        && text
            .split(|byte| !byte.is_ascii_alphabetic())
            .any(|word| WORDS.iter().any(|moment| word.eq_ignore_ascii_case(moment)))
}
