//! What a console command answers: typed columns, rows and a command tag. Sans-IO.
//!
//! Values are encoded as PostgreSQL's output functions and send functions would: text, or binary
//! where a Bind asked for it (`int4send`, `int8send`, `numeric_send` in `src/backend/utils/adt`).

use std::borrow::Cow;

use crate::error::Fault;

/// The type of a column, as PgBouncer types the column of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Int4,
    Int8,
    /// A whole number.
    Numeric,
    Void,
}

impl Type {
    /// Its oid in `pg_type`.
    pub const fn oid(self) -> u32 {
        match self {
            Type::Text => 25,
            Type::Int4 => 23,
            Type::Int8 => 20,
            Type::Numeric => 1700,
            Type::Void => 2278,
        }
    }

    /// Its `typlen`.
    pub const fn size(self) -> i16 {
        match self {
            Type::Int4 | Type::Void => 4,
            Type::Int8 => 8,
            Type::Text | Type::Numeric => -1,
        }
    }

    /// Its name in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Type::Text => "text",
            Type::Int4 => "int4",
            Type::Int8 => "int8",
            Type::Numeric => "numeric",
            Type::Void => "void",
        }
    }
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Cow<'static, str>,
    pub kind: Type,
}

/// A column of text.
pub const fn text(name: &'static str) -> Column {
    column(name, Type::Text)
}

/// A column of int4.
pub const fn int4(name: &'static str) -> Column {
    column(name, Type::Int4)
}

/// A column of int8.
pub const fn int8(name: &'static str) -> Column {
    column(name, Type::Int8)
}

/// A column of numeric.
pub const fn numeric(name: &'static str) -> Column {
    column(name, Type::Numeric)
}

const fn column(name: &'static str, kind: Type) -> Column {
    Column {
        name: Cow::Borrowed(name),
        kind,
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    Text(Cow<'static, str>),
    Int(i64),
}

impl From<&'static str> for Cell {
    fn from(text: &'static str) -> Cell {
        Cell::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell::Text(Cow::Owned(text))
    }
}

impl From<&String> for Cell {
    fn from(text: &String) -> Cell {
        Cell::Text(Cow::Owned(text.clone()))
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Cell {
        Cell::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Cell {
    fn from(number: usize) -> Cell {
        Cell::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Cell {
    fn from(number: u32) -> Cell {
        Cell::Int(i64::from(number))
    }
}

impl From<u16> for Cell {
    fn from(number: u16) -> Cell {
        Cell::Int(i64::from(number))
    }
}

impl From<bool> for Cell {
    /// 1 or 0: PgBouncer's columns have no boolean.
    fn from(flag: bool) -> Cell {
        Cell::Int(i64::from(flag))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Cell {
        value.map_or(Cell::Null, T::into)
    }
}

impl Cell {
    /// Appends the value of a DataRow field, its length first; -1 is NULL.
    pub fn encode(&self, kind: Type, binary: bool, out: &mut impl bytes::BufMut) {
        let number = match self {
            Cell::Null => return out.put_i32(-1),
            Cell::Text(text) => return put(text.as_bytes(), out),
            Cell::Int(number) => *number,
        };
        match (kind, binary) {
            (Type::Int4, _) => {
                let saturated = number.clamp(i64::from(i32::MIN), i64::from(i32::MAX));
                let narrow = i32::try_from(saturated).unwrap_or(i32::MAX);
                if binary {
                    put(&narrow.to_be_bytes(), out);
                } else {
                    put(narrow.to_string().as_bytes(), out);
                }
            }
            (Type::Int8, true) => put(&number.to_be_bytes(), out),
            (Type::Numeric, true) => put(&numeric_send(number), out),
            (Type::Int8 | Type::Numeric | Type::Text | Type::Void, _) => {
                put(number.to_string().as_bytes(), out);
            }
        }
    }

    /// As psql prints it, NULL as nothing.
    pub fn show(&self) -> Cow<'_, str> {
        match self {
            Cell::Null => Cow::Borrowed(""),
            Cell::Text(text) => Cow::Borrowed(text),
            Cell::Int(number) => Cow::Owned(number.to_string()),
        }
    }
}

fn put(value: &[u8], out: &mut impl bytes::BufMut) {
    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
    out.put_slice(value);
}

/// A whole number in numeric's binary form: digits to the base 10,000, most significant first.
fn numeric_send(number: i64) -> Vec<u8> {
    let mut digits = Vec::new();
    let mut rest = number.unsigned_abs();
    while rest > 0 {
        digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
        rest /= 10_000;
    }
    let count = u16::try_from(digits.len()).unwrap_or(0);
    let sign = if number < 0 { 0x4000_u16 } else { 0 };
    let head = [count, count.saturating_sub(1), sign, 0];
    let words = head.into_iter().chain(digits.into_iter().rev());
    words.flat_map(u16::to_be_bytes).collect()
}

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Warnings, to be sent before it.
    pub notices: Vec<Fault>,
    /// Empty: the command returns no rows.
    pub columns: Cow<'static, [Column]>,
    pub rows: Vec<Vec<Cell>>,
    /// The CommandComplete tag.
    pub tag: &'static str,
}

impl Answer {
    /// A command that returns no rows.
    pub const fn done(tag: &'static str) -> Answer {
        Answer {
            notices: Vec::new(),
            columns: Cow::Borrowed(&[]),
            rows: Vec::new(),
            tag,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Type};

    fn check(cell: &Cell, kind: Type, binary: bool, expect: &[u8]) {
        let mut out = Vec::new();
        cell.encode(kind, binary, &mut out);
        assert_eq!(out, expect);
    }

    #[test]
    fn values_are_encoded_as_postgresql_does() {
        check(&Cell::Null, Type::Int4, true, &[255, 255, 255, 255]);
        check(&Cell::Int(7), Type::Int4, false, b"\0\0\0\x017");
        check(&Cell::Int(7), Type::Int4, true, &[0, 0, 0, 4, 0, 0, 0, 7]);
        check(
            &Cell::Int(1 << 40),
            Type::Int4,
            true,
            &[0, 0, 0, 4, 127, 255, 255, 255],
        );
        check(
            &Cell::Int(-1),
            Type::Int8,
            true,
            &[0, 0, 0, 8, 255, 255, 255, 255, 255, 255, 255, 255],
        );
        check(
            &Cell::Int(0),
            Type::Numeric,
            true,
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        let digits = [0, 0, 0, 12, 0, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2];
        check(&Cell::Int(10_002), Type::Numeric, true, &digits);
    }
}
