//! Where the parts of a plain SELECT stand that say how its rows are put together: the items of its target
//! list, ORDER BY, LIMIT and OFFSET.
//!
//! They are found by the tokens outside of parentheses, so that a text can be sent with other ones in their
//! places and everything else as it was written.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use std::ops::Range;

use super::cursor::{Cursor, Name, string_value, word_name};
use super::scan::{Kind, Token};

/// The parts of one SELECT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The items of the target list, by their tokens.
    pub items: Vec<Range<usize>>,
    /// Where the target list ends in the text.
    pub list_end: usize,
    pub keys: Vec<SortKey>,
    /// LIMIT, or FETCH FIRST.
    pub limit: Option<Clause>,
    pub offset: Option<Clause>,
}

/// One key of ORDER BY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// The expression in the text, without what follows it.
    pub span: Range<usize>,
    pub form: Form,
    pub descending: bool,
    pub nulls_first: bool,
}

/// What a key is, as far as its tokens tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A column of the target list, counted from 1.
    Ordinal(usize),
    /// A name of one or more parts.
    Column(Vec<String>),
    /// Any other expression.
    Other(Collation),
    /// A constant or a parameter.
    Constant,
}

/// What an expression says of its collation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collation {
    /// Nothing.
    Implied,
    /// It ends with COLLATE "C", or with another name of it.
    Bytes,
    /// It has a COLLATE.
    Other,
}

/// LIMIT or OFFSET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The whole clause in the text.
    pub span: Range<usize>,
    pub count: Count,
}

/// How many rows a clause says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// ALL or NULL.
    All,
    Rows(i64),
    /// `$n`, counted from 0; `narrow` where it is cast to an integer of four bytes.
    Parameter {
        index: u16,
        narrow: bool,
    },
    /// A constant that is no integer as it stands: the server says what it is.
    Unread,
}

/// An item of a target list that is one call and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Called {
    pub name: Name,
    /// Its arguments, by their tokens.
    pub arguments: Range<usize>,
    /// Whether a FILTER follows.
    pub filtered: bool,
}

/// The clauses that follow each other at the end of a SELECT, by their first tokens.
#[derive(Default)]
struct Found {
    from: Option<usize>,
    order: Option<usize>,
    limit: Option<usize>,
    offset: Option<usize>,
    fetch: Option<usize>,
    locks: Option<usize>,
    end: usize,
}

/// Words that are values, not columns.
const VALUES: [&str; 14] = [
    "null",
    "true",
    "false",
    "default",
    "user",
    "current_user",
    "session_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_date",
    "current_timestamp",
    "localtime",
    "localtimestamp",
];

impl Tail {
    /// Finds the parts of a statement that begins with SELECT. `None` where one of them is not understood, or
    /// it has no FROM.
    pub fn find(tokens: &[Token], text: &[u8]) -> Option<Tail> {
        let first = Cursor::new(text, tokens);
        let start = 1_usize.checked_add(usize::from(first.at_words(&["select", "all"])))?;
        if !first.at("select") {
            return None;
        }
        let found = Found::of(tokens, text)?;
        let from = found.from?;
        let list = tokens.get(start..from)?;
        let mut tail = Tail {
            items: split(list)
                .into_iter()
                .map(|item| item.start.saturating_add(start)..item.end.saturating_add(start))
                .collect(),
            list_end: tokens.get(from.checked_sub(1)?)?.end,
            ..Tail::default()
        };
        if let Some(at) = found.order {
            let at = at.checked_add(2)?;
            let keys = tokens.get(at..found.after(at))?;
            for key in split(keys) {
                tail.keys.push(sort_key(keys.get(key)?, text)?);
            }
        }
        let clause = |at: usize| {
            let tokens = tokens.get(at..found.after(at.checked_add(1)?))?;
            let (first, last) = (tokens.first()?, tokens.last()?);
            Some((tokens.get(1..)?, first.start..last.end))
        };
        if let Some(at) = found.limit {
            let (tokens, span) = clause(at)?;
            let count = count(tokens, text)?;
            tail.limit = Some(Clause { span, count });
        }
        if let Some(at) = found.offset {
            let (tokens, span) = clause(at)?;
            let count = count(without_rows(tokens, text), text)?;
            tail.offset = Some(Clause { span, count });
        }
        if let Some(at) = found.fetch {
            let (tokens, span) = clause(at)?;
            let count = fetched(tokens, text)?;
            if tail.limit.replace(Clause { span, count }).is_some() {
                return None;
            }
        }
        Some(tail)
    }
}

impl Tail {
    /// Whether the target list is empty.
    pub fn is_empty(&self) -> bool {
        self.items.iter().all(Range::is_empty)
    }
}

impl Found {
    fn of(tokens: &[Token], text: &[u8]) -> Option<Found> {
        let mut found = Found::default();
        let mut depth = 0_usize;
        found.end = tokens.len();
        for (at, token) in tokens.iter().enumerate() {
            match token.kind {
                Kind::OpenParen | Kind::OpenBracket => depth = depth.checked_add(1)?,
                Kind::CloseParen | Kind::CloseBracket => depth = depth.checked_sub(1)?,
                Kind::Semicolon if depth == 0 => {
                    found.end = at;
                    break;
                }
                Kind::Word if depth == 0 => found.note(at, tokens, text)?,
                _ => (),
            }
        }
        Some(found)
    }

    /// Notes a clause that begins here; `None` where there was one of its kind.
    fn note(&mut self, at: usize, tokens: &[Token], text: &[u8]) -> Option<()> {
        let before = at.checked_sub(1).and_then(|before| tokens.get(before));
        let is = |token: Option<&Token>, word: &str| {
            token.is_some_and(|token| {
                token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word.as_bytes())
            })
        };
        if is(before, "as") || before.is_some_and(|before| before.kind == Kind::Dot) {
            return Some(());
        }
        let here = tokens.get(at);
        let next = at.checked_add(1).and_then(|next| tokens.get(next));
        let place = if is(here, "from") {
            // `IS DISTINCT FROM`.
            if is(before, "distinct") || self.from.is_some() {
                return Some(());
            }
            &mut self.from
        } else if is(here, "order") && is(next, "by") {
            &mut self.order
        } else if is(here, "limit") {
            &mut self.limit
        } else if is(here, "offset") {
            &mut self.offset
        } else if is(here, "fetch") {
            &mut self.fetch
        } else if is(here, "for") {
            self.locks.get_or_insert(at);
            return Some(());
        } else {
            return Some(());
        };
        place.replace(at).is_none().then_some(())
    }

    /// Where the clause ends that has this token.
    fn after(&self, at: usize) -> usize {
        let starts = [self.order, self.limit, self.offset, self.fetch, self.locks];
        let later = starts.into_iter().flatten().filter(|start| *start >= at);
        later.min().unwrap_or(self.end)
    }
}

/// The parts between commas outside of parentheses and brackets.
fn split(tokens: &[Token]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::OpenParen | Kind::OpenBracket => depth = depth.saturating_add(1),
            Kind::CloseParen | Kind::CloseBracket => depth = depth.saturating_sub(1),
            Kind::Comma if depth == 0 => {
                parts.push(start..at);
                start = at.saturating_add(1);
            }
            _ => (),
        }
    }
    parts.push(start..tokens.len());
    parts
}

fn is_word(token: &Token, text: &[u8], word: &str) -> bool {
    token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word.as_bytes())
}

fn sort_key(tokens: &[Token], text: &[u8]) -> Option<SortKey> {
    let mut expr = tokens;
    let mut nulls_first = None;
    if let [rest @ .., nulls, place] = expr
        && !rest.is_empty()
        && is_word(nulls, text, "nulls")
    {
        let first = is_word(place, text, "first");
        if !first && !is_word(place, text, "last") {
            return None;
        }
        nulls_first = Some(first);
        expr = rest;
    }
    let mut descending = false;
    if let [rest @ .., word] = expr
        && !rest.is_empty()
        && (is_word(word, text, "asc") || is_word(word, text, "desc"))
    {
        descending = is_word(word, text, "desc");
        expr = rest;
    }
    if expr.iter().any(|token| is_word(token, text, "using")) {
        return None;
    }
    let (first, last) = (expr.first()?, expr.last()?);
    Some(SortKey {
        span: first.start..last.end,
        form: form(expr, text),
        descending,
        nulls_first: nulls_first.unwrap_or(descending),
    })
}

fn form(expr: &[Token], text: &[u8]) -> Form {
    if let [token] = expr {
        match token.kind {
            Kind::Integer => {
                let digits = std::str::from_utf8(token.of(text)).unwrap_or_default();
                return digits.parse().map_or(Form::Constant, Form::Ordinal);
            }
            Kind::Word if VALUES.iter().any(|word| is_word(token, text, word)) => {
                return Form::Constant;
            }
            Kind::Word | Kind::Quoted => (),
            _ => return Form::Constant,
        }
    }
    let mut cursor = Cursor::new(text, expr);
    if let Some(parts) = cursor.parts()
        && cursor.is_done()
    {
        return Form::Column(parts);
    }
    Form::Other(collation(expr, text))
}

fn collation(expr: &[Token], text: &[u8]) -> Collation {
    let places: Vec<usize> = expr
        .iter()
        .enumerate()
        .filter(|(_, token)| is_word(token, text, "collate"))
        .map(|(at, _)| at)
        .collect();
    let at = match places.as_slice() {
        [] => return Collation::Implied,
        [at] => *at,
        _ => return Collation::Other,
    };
    let rest = expr.get(at.saturating_add(1)..).unwrap_or_default();
    let mut cursor = Cursor::new(text, rest);
    let name = cursor.qualified();
    let is_bytes = name.is_some_and(|name| {
        name.schema
            .as_deref()
            .is_none_or(|schema| schema == "pg_catalog")
            && matches!(name.name.as_str(), "C" | "POSIX" | "ucs_basic")
    });
    if is_bytes && cursor.is_done() {
        Collation::Bytes
    } else {
        Collation::Other
    }
}

/// The same without ROW or ROWS at its end.
fn without_rows<'a>(tokens: &'a [Token], text: &[u8]) -> &'a [Token] {
    match tokens {
        [rest @ .., last]
            if !rest.is_empty() && (is_word(last, text, "row") || is_word(last, text, "rows")) =>
        {
            rest
        }
        all => all,
    }
}

/// What FETCH says.
fn fetched(tokens: &[Token], text: &[u8]) -> Option<Count> {
    let [first, rest @ .., only] = tokens else {
        return None;
    };
    let begins = is_word(first, text, "first") || is_word(first, text, "next");
    if !begins || !is_word(only, text, "only") {
        return None;
    }
    match rest {
        [rows] if is_word(rows, text, "row") || is_word(rows, text, "rows") => Some(Count::Rows(1)),
        _ => count(without_rows(rest, text), text),
    }
}

fn count(tokens: &[Token], text: &[u8]) -> Option<Count> {
    match tokens {
        [word] if is_word(word, text, "all") || is_word(word, text, "null") => Some(Count::All),
        [number] if number.kind == Kind::Integer => Some(integer(number.of(text))),
        [number] if number.kind == Kind::Decimal => Some(Count::Unread),
        [minus, number] if minus.of(text) == b"-" && number.kind == Kind::Integer => {
            Some(match integer(number.of(text)) {
                Count::Rows(rows) => Count::Rows(rows.saturating_neg()),
                Count::All | Count::Parameter { .. } | Count::Unread => Count::Unread,
            })
        }
        [string] if string.kind == Kind::Text => {
            Some(string_value(*string, text).map_or(Count::Unread, |value| {
                integer(value.trim_ascii().as_bytes())
            }))
        }
        [parameter, cast @ ..] if parameter.kind == Kind::Parameter => {
            let number = std::str::from_utf8(parameter.of(text).get(1..)?).ok()?;
            let index = number.parse::<u16>().ok()?.checked_sub(1)?;
            let narrow = match cast {
                [] => false,
                [colons, kind] if colons.kind == Kind::DoubleColon => {
                    match word_name(*kind, text)?.as_str() {
                        "int" | "integer" | "int4" => true,
                        "bigint" | "int8" => false,
                        _ => return None,
                    }
                }
                _ => return None,
            };
            Some(Count::Parameter { index, narrow })
        }
        _ => None,
    }
}

fn integer(digits: &[u8]) -> Count {
    let text = std::str::from_utf8(digits).unwrap_or_default();
    text.parse().map_or(Count::Unread, Count::Rows)
}

impl Called {
    /// What an item of a target list calls, where it does nothing else: no DISTINCT or ORDER BY among the
    /// arguments, no OVER.
    pub fn find(tokens: &[Token], item: Range<usize>, text: &[u8]) -> Option<Called> {
        let own = tokens.get(item.clone())?;
        let mut cursor = Cursor::new(text, own);
        let name = cursor.qualified()?;
        let at = |cursor: &Cursor<'_>| own.len().saturating_sub(cursor.tokens().len());
        let open = at(&cursor);
        if !cursor.skip_group() {
            return None;
        }
        let close = at(&cursor).checked_sub(1)?;
        let filtered = cursor.take("filter");
        if filtered && !cursor.skip_group() {
            return None;
        }
        cursor.take("as");
        if !cursor.is_done() {
            cursor.name()?;
        }
        if !cursor.is_done() {
            return None;
        }
        let arguments = own.get(open.checked_add(1)?..close)?;
        let orders = arguments
            .iter()
            .any(|token| is_word(token, text, "order") || is_word(token, text, "distinct"));
        (!orders).then(|| Called {
            name,
            arguments: item.start.saturating_add(open).saturating_add(1)
                ..item.start.saturating_add(close),
            filtered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Called, Collation, Count, Form, Tail};
    use crate::sql::scan::{Lexing, scan};

    fn find(text: &str) -> Option<Tail> {
        let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
        Tail::find(&tokens, text.as_bytes())
    }

    #[test]
    fn keys_are_found_where_they_stand() {
        let check = |text: &str, expect: &[(&str, bool, bool)]| {
            let tail = find(text).expect(text);
            let keys = tail.keys.iter();
            let found: Vec<_> = keys
                .map(|key| (&text[key.span.clone()], key.descending, key.nulls_first))
                .collect();
            assert_eq!(found, expect, "{text}");
        };
        check("SELECT a FROM t", &[]);
        check("SELECT a FROM t ORDER BY a", &[("a", false, false)]);
        check(
            "select a is distinct from b, x.from, c as from FROM t order by lower(a, b) desc nulls last, 2 asc nulls first, t.c desc limit 3",
            &[
                ("lower(a, b)", true, false),
                ("2", false, true),
                ("t.c", true, true),
            ],
        );
        check(
            "SELECT a FROM (SELECT b FROM u ORDER BY c LIMIT 3) x ORDER BY a /* it */ + 1 OFFSET 2;",
            &[("a /* it */ + 1", false, false)],
        );
    }

    #[test]
    fn the_target_list_ends_before_from() {
        let check = |text: &str, expect: &str, items: usize| {
            let tail = find(text).expect(text);
            assert_eq!(
                (&text[..tail.list_end], tail.items.len()),
                (expect, items),
                "{text}"
            );
        };
        check("SELECT a, b FROM t", "SELECT a, b", 2);
        check("SELECT * FROM t", "SELECT *", 1);
        check(
            "SELECT ALL f(a, b), ARRAY[1, 2] -- it\n FROM t",
            "SELECT ALL f(a, b), ARRAY[1, 2]",
            2,
        );
        check(
            "SELECT extract(year FROM d), a IS NOT DISTINCT FROM b FROM t",
            "SELECT extract(year FROM d), a IS NOT DISTINCT FROM b",
            2,
        );
    }

    #[test]
    fn counts_are_read() {
        let check = |tail: &str, limit: Option<Count>, offset: Option<Count>| {
            let found = find(&format!("SELECT a FROM t {tail}")).expect(tail);
            assert_eq!(
                (
                    found.limit.map(|clause| clause.count),
                    found.offset.map(|clause| clause.count)
                ),
                (limit, offset),
                "{tail}"
            );
        };
        let rows = |count| Some(Count::Rows(count));
        check("LIMIT 10", rows(10), None);
        check("OFFSET 5 ROWS FETCH FIRST ROW ONLY", rows(1), rows(5));
        check("FETCH NEXT 7 ROWS ONLY OFFSET 2", rows(7), rows(2));
        check("LIMIT ALL OFFSET NULL", Some(Count::All), Some(Count::All));
        check("LIMIT -1", rows(-1), None);
        check("LIMIT ' 12 '", rows(12), None);
        check("LIMIT 1.5", Some(Count::Unread), None);
        check("LIMIT 99999999999999999999", Some(Count::Unread), None);
        let parameter = |index, narrow| Some(Count::Parameter { index, narrow });
        check(
            "LIMIT $2 OFFSET $1::int",
            parameter(1, false),
            parameter(0, true),
        );
    }

    #[test]
    fn what_is_not_understood_is_not_found() {
        for text in [
            "SELECT 1",
            "SELECT a FROM t LIMIT 1 + 1",
            "SELECT a FROM t LIMIT (SELECT 1)",
            "SELECT a FROM t FETCH FIRST 2 ROWS WITH TIES",
            "SELECT a FROM t ORDER BY a USING <",
            "(SELECT a FROM t) ORDER BY a",
            "WITH x AS (SELECT 1) SELECT a FROM t",
            "VALUES (1)",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }

    #[test]
    fn forms_are_told() {
        let check = |key: &str, expect: Form| {
            let tail = find(&format!("SELECT a FROM t ORDER BY {key}")).expect(key);
            assert_eq!(tail.keys[0].form, expect, "{key}");
        };
        let column = |parts: &[&str]| Form::Column(parts.iter().map(|&one| one.into()).collect());
        check("3", Form::Ordinal(3));
        check("A", column(&["a"]));
        check("t.\"B\"", column(&["t", "B"]));
        check("null", Form::Constant);
        check("$1", Form::Constant);
        check("a + 1", Form::Other(Collation::Implied));
        check("a COLLATE \"C\"", Form::Other(Collation::Bytes));
        check(
            "a COLLATE pg_catalog.\"POSIX\"",
            Form::Other(Collation::Bytes),
        );
        check("a COLLATE \"en_US\"", Form::Other(Collation::Other));
        check("lower(a COLLATE \"C\")", Form::Other(Collation::Other));
    }

    #[test]
    fn calls_alone_are_found() {
        let check = |item: &str, expect: Option<(&str, &str, bool)>| {
            let text = format!("SELECT {item} FROM t");
            let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
            let tail = Tail::find(&tokens, text.as_bytes()).expect(item);
            let called = Called::find(&tokens, tail.items[0].clone(), text.as_bytes());
            let found = called.map(|called| {
                let arguments: Vec<&str> = tokens[called.arguments]
                    .iter()
                    .map(|token| &text[token.span()])
                    .collect();
                (called.name.to_string(), arguments.concat(), called.filtered)
            });
            let expect = expect.map(|(name, args, filtered)| (name.into(), args.into(), filtered));
            assert_eq!(found, expect, "{item}");
        };
        check("count(*)", Some(("count", "*", false)));
        check(
            "pg_catalog.sum(a + 1) AS x",
            Some(("pg_catalog.sum", "a+1", false)),
        );
        check(
            "max(a) FILTER (WHERE b > 1) largest",
            Some(("max", "a", true)),
        );
        check("count(DISTINCT a)", None);
        check("count(*) + 1", None);
        check("count(*) OVER ()", None);
        check("a", None);
    }
}
