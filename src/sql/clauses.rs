//! Where the clauses of a plain SELECT stand, from its target list to its last one.
//!
//! They are found by the tokens outside of parentheses: each of the words that begin one is reserved, so that
//! it is a name only behind AS or a dot.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use std::ops::Range;

use super::cursor::Cursor;
use super::scan::{Kind, Token};

/// The clauses of one SELECT, each by its tokens, without the words that begin it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clauses {
    /// Of DISTINCT: the expressions behind ON; none for all columns.
    pub distinct: Option<Vec<Range<usize>>>,
    pub items: Vec<Range<usize>>,
    /// From the word FROM to the end of WHERE.
    pub from: Range<usize>,
    pub group: Option<Vec<Range<usize>>>,
    pub having: Option<Range<usize>>,
    pub window: Option<Range<usize>>,
    /// The keys of ORDER BY, with their directions.
    pub order: Vec<Range<usize>>,
    /// LIMIT, OFFSET and FETCH, from the first of their words on.
    pub limit: Range<usize>,
}

/// The words that begin a clause, in the order of the clauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    From,
    Group,
    Having,
    Window,
    Order,
    Limit,
}

impl Clauses {
    /// Finds the clauses of a statement that begins with SELECT. `None` where it is a set operation, locks rows,
    /// has no FROM, or is not understood.
    pub fn find(tokens: &[Token], text: &[u8]) -> Option<Clauses> {
        let mut cursor = Cursor::new(text, tokens);
        if !cursor.take("select") {
            return None;
        }
        let end = end(tokens);
        let at = |cursor: &Cursor<'_>| tokens.len().saturating_sub(cursor.tokens().len());
        let mut clauses = Clauses::default();
        if cursor.take("distinct") {
            let mut on = Vec::new();
            if cursor.take("on") {
                let open = at(&cursor);
                if !cursor.skip_group() {
                    return None;
                }
                on = split(tokens, open.checked_add(1)?..at(&cursor).checked_sub(1)?);
            }
            clauses.distinct = Some(on);
        } else {
            cursor.take("all");
        }
        let stages = stages(tokens, text, at(&cursor)..end)?;
        let (first, from) = stages.first()?;
        if *first != Stage::From {
            return None;
        }
        clauses.items = split(tokens, at(&cursor)..*from);
        let mut next = stages.iter().skip(1).map(|(_, at)| *at).chain([end]);
        for (stage, start) in &stages {
            let to = next.next()?;
            let behind = start.checked_add(1)?;
            match stage {
                Stage::From => clauses.from = *start..to,
                Stage::Group => clauses.group = Some(split(tokens, behind.checked_add(1)?..to)),
                Stage::Having => clauses.having = Some(behind..to),
                Stage::Window => clauses.window = Some(behind..to),
                Stage::Order => clauses.order = split(tokens, behind.checked_add(1)?..to),
                Stage::Limit => clauses.limit = *start..to,
            }
        }
        Some(clauses)
    }
}

/// Where the statement ends: a semicolon is left out.
fn end(tokens: &[Token]) -> usize {
    let mut tokens_left = tokens;
    while let [rest @ .., last] = tokens_left
        && last.kind == Kind::Semicolon
    {
        tokens_left = rest;
    }
    tokens_left.len()
}

/// Where each clause begins, in order; `None` where one comes twice, out of order, or is of another kind.
fn stages(tokens: &[Token], text: &[u8], within: Range<usize>) -> Option<Vec<(Stage, usize)>> {
    let is = |at: Option<usize>, word: &str| {
        let token = at.and_then(|at| tokens.get(at));
        token.is_some_and(|token| {
            token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word.as_bytes())
        })
    };
    let mut stages: Vec<(Stage, usize)> = Vec::new();
    let mut depth = 0_usize;
    for at in within {
        let token = tokens.get(at)?;
        let before = at.checked_sub(1);
        let next = at.checked_add(1);
        match token.kind {
            Kind::OpenParen | Kind::OpenBracket => depth = depth.checked_add(1)?,
            Kind::CloseParen | Kind::CloseBracket => depth = depth.checked_sub(1)?,
            Kind::Semicolon => return None,
            _ => (),
        }
        let after_dot = before
            .and_then(|at| tokens.get(at))
            .is_some_and(|it| it.kind == Kind::Dot);
        if depth > 0 || token.kind != Kind::Word || is(before, "as") || after_dot {
            continue;
        }
        let here = |word| is(Some(at), word);
        let stage = if here("from") {
            // `IS DISTINCT FROM`.
            if is(before, "distinct") {
                continue;
            }
            Stage::From
        } else if here("group") && is(next, "by") {
            Stage::Group
        } else if here("having") {
            Stage::Having
        } else if here("window") {
            Stage::Window
        } else if here("order") && is(next, "by") {
            Stage::Order
        } else if here("limit") || here("offset") || here("fetch") {
            Stage::Limit
        } else if ["for", "into", "union", "intersect", "except"]
            .iter()
            .any(|word| here(word))
        {
            return None;
        } else {
            continue;
        };
        match stages.last() {
            Some((Stage::Limit, _)) if stage == Stage::Limit => (),
            Some((last, _)) if *last >= stage => return None,
            Some(_) | None => stages.push((stage, at)),
        }
    }
    Some(stages)
}

/// The parts between commas outside of parentheses and brackets.
pub fn split(tokens: &[Token], within: Range<usize>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, within.start);
    for at in within.clone() {
        match tokens.get(at).map(|token| token.kind) {
            Some(Kind::OpenParen | Kind::OpenBracket) => depth = depth.saturating_add(1),
            Some(Kind::CloseParen | Kind::CloseBracket) => depth = depth.saturating_sub(1),
            Some(Kind::Comma) if depth == 0 => {
                parts.push(start..at);
                start = at.saturating_add(1);
            }
            _ => (),
        }
    }
    parts.push(start..within.end);
    parts
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::Clauses;
    use crate::sql::scan::{Lexing, scan};

    fn find(text: &str) -> Option<[String; 8]> {
        let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
        let found = Clauses::find(&tokens, text.as_bytes())?;
        let of = |range: &Range<usize>| match tokens.get(range.clone()) {
            Some([first, .., last]) => text[first.start..last.end].to_owned(),
            Some([only]) => text[only.span()].to_owned(),
            _ => String::new(),
        };
        let all = |ranges: &[Range<usize>]| ranges.iter().map(of).collect::<Vec<_>>().join("|");
        Some([
            found.distinct.as_deref().map_or_else(|| "-".into(), all),
            all(&found.items),
            of(&found.from),
            found.group.as_deref().map_or_else(String::new, all),
            found.having.as_ref().map_or_else(String::new, of),
            found.window.as_ref().map_or_else(String::new, of),
            all(&found.order),
            of(&found.limit),
        ])
    }

    #[test]
    fn clauses_are_found() {
        let wanted = [
            "-",
            "a|count(*) FILTER (WHERE b IS DISTINCT FROM c) AS from|x IS DISTINCT FROM y",
            "FROM t JOIN u ON t.a = u.a WHERE b > 1",
            "a|date_trunc('day', at)",
            "count(*) > 1",
            "w AS (PARTITION BY a)",
            "1|a DESC NULLS LAST",
            "OFFSET 2 LIMIT 3",
        ];
        let text = format!(
            "SELECT {} {} GROUP BY a, date_trunc('day', at) HAVING {} WINDOW {} ORDER BY 1, a DESC NULLS LAST {};",
            wanted[1].replace('|', ", "),
            wanted[2],
            wanted[4],
            wanted[5],
            wanted[7]
        );
        assert_eq!(find(&text).expect("found"), wanted);
        let distinct = find("SELECT DISTINCT ON (a, f(b, c)) a FROM t").expect("found");
        assert_eq!(distinct[0], "a|f(b, c)");
        assert_eq!(find("SELECT DISTINCT a FROM t").expect("found")[0], "");
    }

    #[test]
    fn others_are_not() {
        for text in [
            "SELECT 1",
            "SELECT a FROM t UNION SELECT 1",
            "SELECT a FROM t FOR UPDATE",
            "SELECT a INTO b FROM t",
            "VALUES (1)",
            "WITH x AS (SELECT 1) SELECT a FROM x",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
