//! An INSERT with values put in for one column: `INSERT INTO t (a) VALUES (1)` becomes
//! `INSERT INTO t (a, "id") VALUES (1, 77)`. All else stays as it was written.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use std::ops::Range;

use super::cursor::Cursor;
use super::quote::quote_ident;
use super::rows::Rows;
use super::scan::{Kind, Token};

/// What is put into an INSERT, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The column, as the catalog has its name.
    pub column: String,
    /// Where it stands in each row, counted from 0, with DEFAULT for its value; `None`: the rows end
    /// without it.
    pub at: Option<usize>,
    /// The columns of the rows, which the statement does not name; needed where the column is added.
    pub unnamed: Option<Vec<String>>,
    /// The rows that get a value, counted from 0; ascending.
    pub rows: Vec<usize>,
}

/// Bytes to stand in place of a range of the text.
type Splice = (Range<usize>, Vec<u8>);

impl Fill {
    /// The statement of these tokens, filled: `value` writes that of each of the rows. `None` where the
    /// statement has another form.
    pub fn write(
        &self,
        tokens: &[Token],
        text: &[u8],
        mut value: impl FnMut(usize, &mut Vec<u8>),
    ) -> Option<Vec<u8>> {
        let mut splices = self.splices(tokens, text, &mut value)?;
        splices.sort_by_key(|(range, _)| range.start);
        let mut out = Vec::new();
        let mut done = tokens.first()?.start;
        for (range, bytes) in splices {
            out.extend_from_slice(text.get(done..range.start)?);
            out.extend_from_slice(&bytes);
            done = range.end;
        }
        out.extend_from_slice(text.get(done..tokens.last()?.end)?);
        Some(out)
    }

    fn splices(
        &self,
        tokens: &[Token],
        text: &[u8],
        value: &mut impl FnMut(usize, &mut Vec<u8>),
    ) -> Option<Vec<Splice>> {
        let mut cursor = Cursor::new(text, tokens);
        cursor.take_words(&["insert", "into"]).then_some(())?;
        let mut target = cursor.peek()?;
        cursor.name()?;
        while cursor.take_kind(Kind::Dot) {
            target = cursor.peek()?;
            cursor.name()?;
        }
        if cursor.take("as") {
            target = cursor.peek()?;
            cursor.name()?;
        }
        let mut each = |row: usize| {
            let mut bytes = Vec::new();
            value(row, &mut bytes);
            bytes
        };
        if cursor.at_words(&["default", "values"]) {
            let start = cursor.peek()?.start;
            cursor.advance();
            let end = cursor.peek()?.end;
            let mut bytes = b"(".to_vec();
            bytes.extend_from_slice(quote_ident(&self.column).as_bytes());
            bytes.extend_from_slice(b") VALUES (");
            bytes.extend_from_slice(&each(0));
            bytes.push(b')');
            return (self.rows == [0]).then(|| vec![(start..end, bytes)]);
        }
        let mut splices = Vec::with_capacity(self.rows.len().saturating_add(1));
        match (&self.at, &self.unnamed) {
            (Some(_), _) => (),
            (None, Some(columns)) => {
                let mut bytes = b" (".to_vec();
                for column in columns {
                    bytes.extend_from_slice(quote_ident(column).as_bytes());
                    bytes.extend_from_slice(b", ");
                }
                bytes.extend_from_slice(quote_ident(&self.column).as_bytes());
                bytes.push(b')');
                splices.push((target.end..target.end, bytes));
            }
            (None, None) => {
                let list = cursor.tokens();
                cursor.skip_group().then_some(())?;
                let length = list.len().checked_sub(cursor.tokens().len())?;
                let close = list.get(length.checked_sub(1)?)?;
                let mut bytes = b", ".to_vec();
                bytes.extend_from_slice(quote_ident(&self.column).as_bytes());
                splices.push((close.start..close.start, bytes));
            }
        }
        let rows = Rows::find(tokens, text)?;
        for &row in &self.rows {
            let range = rows.range(row)?;
            splices.push(match self.at {
                None => {
                    let end = range.end.checked_sub(1)?;
                    let bytes = [b", ".as_slice(), &each(row)].concat();
                    (end..end, bytes)
                }
                Some(at) => (default_at(tokens, text, range, at)?, each(row)),
            });
        }
        Some(splices)
    }
}

/// Where the DEFAULT stands that is value `at` of a row.
fn default_at(tokens: &[Token], text: &[u8], row: Range<usize>, at: usize) -> Option<Range<usize>> {
    let first = tokens.partition_point(|token| token.start <= row.start);
    let end = tokens.partition_point(|token| token.end < row.end);
    let mut depth = 0_usize;
    let mut items = tokens.get(first..end)?.split(|token| {
        match token.kind {
            Kind::OpenParen | Kind::OpenBracket => depth = depth.saturating_add(1),
            Kind::CloseParen | Kind::CloseBracket => depth = depth.saturating_sub(1),
            _ => (),
        }
        depth == 0 && token.kind == Kind::Comma
    });
    let [token] = items.nth(at)? else {
        return None;
    };
    let is_default = token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(b"default");
    is_default.then_some(token.start..token.end)
}

#[cfg(test)]
mod tests {
    use super::Fill;
    use crate::sql::scan::{Lexing, scan};

    fn check(
        text: &str,
        at: Option<usize>,
        unnamed: Option<&[&str]>,
        rows: &[usize],
        expect: &str,
    ) {
        let tokens = scan(text.as_bytes(), Lexing::default()).expect("readable");
        let own = |names: &[&str]| names.iter().map(|name| String::from(*name)).collect();
        let fill = Fill {
            column: "i\"d".into(),
            at,
            unnamed: unnamed.map(own),
            rows: rows.to_vec(),
        };
        let found = fill.write(&tokens, text.as_bytes(), |row, out| {
            out.extend_from_slice(format!("<{row}>").as_bytes());
        });
        let found = found.map_or_else(|| "none".into(), |text| String::from_utf8(text).unwrap());
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn values_are_put_where_they_are_wanting() {
        check(
            "INSERT INTO s.t AS x (a, b) VALUES (1, ')'),( f((2), 3) , $1 ) ON CONFLICT (a) DO NOTHING RETURNING (a)",
            None,
            None,
            &[0, 1],
            "INSERT INTO s.t AS x (a, b, \"i\"\"d\") VALUES (1, ')', <0>),( f((2), 3) , $1 , <1>) ON CONFLICT (a) DO NOTHING RETURNING (a)",
        );
        check(
            "insert into t values (1, 2)",
            None,
            Some(&["a", "b"]),
            &[0],
            "insert into t (\"a\", \"b\", \"i\"\"d\") values (1, 2, <0>)",
        );
        check(
            "insert into t (a, id) values (f(1, 2), default), (3, 7), (array[1,2], DEFAULT)",
            Some(1),
            None,
            &[0, 2],
            "insert into t (a, id) values (f(1, 2), <0>), (3, 7), (array[1,2], <2>)",
        );
        check(
            "INSERT INTO \"T\" DEFAULT VALUES RETURNING id",
            None,
            None,
            &[0],
            "INSERT INTO \"T\" (\"i\"\"d\") VALUES (<0>) RETURNING id",
        );
    }

    #[test]
    fn other_forms_are_left_alone() {
        check("insert into t (a) select 1", None, None, &[0], "none");
        check(
            "insert into t (a, id) values (1, 2)",
            Some(1),
            None,
            &[0],
            "none",
        );
        check(
            "insert into t (a, id) values (1)",
            Some(1),
            None,
            &[0],
            "none",
        );
        check(
            "with x as (select) insert into t values (1)",
            None,
            None,
            &[0],
            "none",
        );
        check("insert into t (a) values (1)", None, None, &[1], "none");
    }
}
