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
    /// Those of the statement at hand start here.
    pub first: usize,
    /// And end before this one.
    pub end: usize,
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

    /// Whether a literal of the statement means the moment at which it is read.
    pub(super) fn any_moment(&self) -> bool {
        self.all
            .get(self.first..self.end)
            .unwrap_or_default()
            .iter()
            .any(|literal| {
                let text = literal.of(self.text);
                let inner = text
                    .strip_prefix(b"'")
                    .and_then(|text| text.strip_suffix(b"'"));
                inner.is_some_and(is_moment)
            })
    }
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
