//! The rows of `INSERT … VALUES (…), (…)`: where they stand, and the same statement with only some.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use std::ops::Range;

use super::scan::{Kind, Token};

/// Where the rows of an INSERT stand in its text, parentheses included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows(Vec<Range<usize>>);

impl Rows {
    /// The rows of the outermost VALUES of a statement that begins with INSERT; `None` where it has none,
    /// and where its rows are followed by clauses of a query.
    pub fn find(tokens: &[Token], text: &[u8]) -> Option<Rows> {
        let is = |token: &Token, word: &str| {
            token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word.as_bytes())
        };
        if !tokens.first().is_some_and(|token| is(token, "insert")) {
            return None;
        }
        let mut depth = 0_usize;
        let mut before = None;
        let mut at = 0;
        // An alias may be called `values`.
        loop {
            let token = tokens.get(at)?;
            let found = depth == 0
                && is(token, "values")
                && !before.is_some_and(|before: &Token| is(before, "as"));
            depth = nested(depth, token.kind)?;
            before = Some(token);
            at = at.checked_add(1)?;
            if found {
                break;
            }
        }
        let mut rows = Vec::new();
        loop {
            let start = tokens.get(at).filter(|it| it.kind == Kind::OpenParen)?;
            loop {
                let token = tokens.get(at)?;
                depth = nested(depth, token.kind)?;
                at = at.checked_add(1)?;
                if depth == 0 {
                    rows.push(start.start..token.end);
                    break;
                }
            }
            match tokens.get(at) {
                Some(comma) if comma.kind == Kind::Comma => at = at.checked_add(1)?,
                Some(next)
                    if next.kind != Kind::Semicolon
                        && !is(next, "on")
                        && !is(next, "returning") =>
                {
                    return None;
                }
                _ => return Some(Rows(rows)),
            }
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Where a row stands, counted from 0.
    pub fn range(&self, row: usize) -> Option<Range<usize>> {
        self.0.get(row).cloned()
    }

    /// Whether there are none; a statement has at least one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The statement with these of its rows alone, counted from 0.
    pub fn only(&self, text: &[u8], chosen: impl IntoIterator<Item = usize>) -> Part {
        let mut part = Part::default();
        let start = self.0.first().map_or(0, |row| row.start);
        let end = self.0.last().map_or(0, |row| row.end);
        part.copy(text, 0..start);
        let mut first = true;
        for row in chosen.into_iter().filter_map(|index| self.0.get(index)) {
            if !std::mem::take(&mut first) {
                part.text.extend_from_slice(b", ");
            }
            part.copy(text, row.clone());
        }
        part.copy(text, end..text.len());
        part
    }
}

fn nested(depth: usize, kind: Kind) -> Option<usize> {
    match kind {
        Kind::OpenParen => depth.checked_add(1),
        Kind::CloseParen => depth.checked_sub(1),
        _ => Some(depth),
    }
}

/// A text made of pieces of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub text: Vec<u8>,
    /// Where each piece begins here, and where it stands in the whole.
    pieces: Vec<(usize, Range<usize>)>,
}

impl Part {
    /// Adds what stands nowhere in the other text.
    pub fn add(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
    }

    /// Adds a piece of the other text.
    pub fn copy(&mut self, text: &[u8], range: Range<usize>) {
        self.pieces.push((self.text.len(), range.clone()));
        self.text
            .extend_from_slice(text.get(range).unwrap_or_default());
    }

    /// Where in `whole`, from which it was made, the character stands that is number `position` here;
    /// both counted from 1, as in the position of an error. `None` where that is not known.
    pub fn position_in(&self, whole: &[u8], position: usize) -> Option<usize> {
        let text = std::str::from_utf8(&self.text).ok()?;
        let skipped = position.checked_sub(1)?;
        let at = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .nth(skipped)?;
        let (here, there) = self.pieces.iter().rev().find(|(start, _)| *start <= at)?;
        let at = there.start.checked_add(at.checked_sub(*here)?)?;
        if at > there.end {
            return None;
        }
        let before = std::str::from_utf8(whole.get(..at)?).ok()?;
        before.chars().count().checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;
    use crate::sql::scan::{Lexing, scan};

    fn find(text: &str) -> Option<Rows> {
        let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
        Rows::find(&tokens, text.as_bytes())
    }

    #[test]
    fn rows_are_found_where_they_stand() {
        let check = |text: &str, expect: &[&str]| {
            let found = find(text).map(|rows| rows.0).unwrap_or_default();
            let found: Vec<&str> = found.into_iter().map(|row| &text[row]).collect();
            assert_eq!(found, expect, "{text}");
        };
        check(
            "INSERT INTO t (a, values) VALUES (1, ')'),( f((2)) , $1 ) RETURNING (a)",
            &["(1, ')')", "( f((2)) , $1 )"],
        );
        check("insert into t as values values (1)", &["(1)"]);
        check(
            "INSERT INTO t VALUES (1), (2) ON CONFLICT DO NOTHING;",
            &["(1)", "(2)"],
        );
        check("INSERT INTO t VALUES (1), (2) LIMIT 1", &[]);
        check("INSERT INTO t (VALUES (1), (2))", &[]);
        check("INSERT INTO t SELECT 1", &[]);
        check("INSERT INTO t VALUES (1), (2", &[]);
        check("EXPLAIN INSERT INTO t VALUES (1)", &[]);
    }

    #[test]
    fn a_part_knows_where_it_came_from() {
        let text = "INSERT INTO t VALUES (1, 'ä'), (2, 'öö'), (3, 'x') RETURNING bad";
        let rows = find(text).expect("rows");
        let part = rows.only(text.as_bytes(), [0, 2]);
        let shown = String::from_utf8(part.text.clone()).expect("UTF-8");
        assert_eq!(
            shown,
            "INSERT INTO t VALUES (1, 'ä'), (3, 'x') RETURNING bad"
        );
        for word in ["INSERT", "'ä'", "'x'", "bad"] {
            let position = |text: &str| {
                let at = text.find(word).expect("there");
                text[..at].chars().count() + 1
            };
            assert_eq!(
                part.position_in(text.as_bytes(), position(&shown)),
                Some(position(text)),
                "{word}"
            );
        }
        assert_eq!(part.position_in(text.as_bytes(), 0), None);
        assert_eq!(part.position_in(text.as_bytes(), 1000), None);
    }
}
