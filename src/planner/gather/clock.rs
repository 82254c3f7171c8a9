//! The clock of a block: `now()` is the moment at which its transaction began, on whatever server it is asked.
//!
//! A twin's transaction begins later. There the words that ask for the moment are replaced by functions of the same
//! names, so that columns keep theirs, in the schema `pgherd`, which answer with the block's.

use crate::planner::literals::may_mean_moment;
use crate::sql::cursor::{Cursor, word_name};
use crate::sql::scan::{Kind, Token};

/// Words that give the moment without parentheses; with a precision in some, they are not replaced.
const WORDS: [&str; 5] = [
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

/// What a text asks of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clock {
    Unasked,
    /// The text, asking the block's.
    Asked(Vec<u8>),
    /// Nothing that could be replaced.
    Hidden,
}

/// What the text of a statement asks.
pub fn clock(cursor: Cursor<'_>) -> Clock {
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let mut own: Vec<u8> = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if may_mean_moment(*token, text) {
            return Clock::Hidden;
        }
        let Some(asked) = asked(tokens, at, text) else {
            at = at.saturating_add(1);
            continue;
        };
        let Some((start, last, name)) = asked else {
            return Clock::Hidden;
        };
        let end = tokens.get(last).map_or(text.len(), |token| token.end);
        own.extend_from_slice(text.get(copied..start).unwrap_or_default());
        own.extend_from_slice(format!("pgherd.\"{name}\"()").as_bytes());
        copied = end;
        at = last.saturating_add(1);
    }
    if copied == 0 {
        return Clock::Unasked;
    }
    own.extend_from_slice(text.get(copied..).unwrap_or_default());
    Clock::Asked(own)
}

/// Whether the token at `at` asks for the moment: where what is replaced begins, its last token, and the
/// function's name; `None` within where it cannot be replaced.
#[expect(
    clippy::option_option,
    reason = "no question, one that is answered, one that is not"
)]
fn asked(tokens: &[Token], at: usize, text: &[u8]) -> Option<Option<(usize, usize, String)>> {
    let token = tokens.get(at)?;
    let word = word_name(*token, text)?;
    let kind = |at: usize| tokens.get(at).map(|token| token.kind);
    let before = at.checked_sub(1).and_then(|at| tokens.get(at));
    let next = at.saturating_add(1);
    let opens = kind(next) == Some(Kind::OpenParen);
    let closes = opens && kind(next.saturating_add(1)) == Some(Kind::CloseParen);
    if matches!(word.as_str(), "now" | "transaction_timestamp") && opens {
        let schema = at.checked_sub(2).and_then(|at| tokens.get(at));
        let is_qualified = before.is_some_and(|before| before.kind == Kind::Dot);
        let start = match schema {
            Some(schema) if is_qualified => {
                if word_name(*schema, text).as_deref() != Some("pg_catalog") {
                    return None;
                }
                // What stands before it was copied: it cannot be taken back.
                return Some(None);
            }
            _ => token.start,
        };
        return Some(closes.then(|| (start, next.saturating_add(1), word)));
    }
    // `age` of one argument counts from today.
    if word == "age" && opens && token.kind == Kind::Word {
        return Some(None);
    }
    if token.kind != Kind::Word || !WORDS.contains(&word.as_str()) {
        return None;
    }
    let is_label = before.is_some_and(|before| {
        before.kind == Kind::Dot || before.of(text).eq_ignore_ascii_case(b"as")
    });
    if is_label {
        return None;
    }
    Some((!opens).then(|| (token.start, at, word)))
}

#[cfg(test)]
mod tests {
    use super::{Clock, clock};
    use crate::sql::cursor::Cursor;
    use crate::sql::scan::{Lexing, scan};

    fn of(text: &str) -> Clock {
        let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
        clock(Cursor::new(text.as_bytes(), &tokens))
    }

    #[test]
    fn the_moment_is_the_blocks() {
        assert_eq!(of("SELECT a FROM t"), Clock::Unasked);
        let asked = |text: &str| Clock::Asked(text.as_bytes().to_vec());
        assert_eq!(
            of("SELECT now(), CURRENT_DATE AS current_date FROM t"),
            asked("SELECT pgherd.\"now\"(), pgherd.\"current_date\"() AS current_date FROM t")
        );
        for hidden in [
            "SELECT current_timestamp(3)",
            "SELECT 'now'::timestamptz",
            "SELECT age(placed) FROM t",
            "SELECT pg_catalog.now()",
        ] {
            assert_eq!(of(hidden), Clock::Hidden, "{hidden}");
        }
    }
}
