//! Two answers side by side: all to the byte, but floats to nine digits, since their sums depend on the
//! order of rows.

use std::cmp::Ordering;

use crate::generated::{Part, Reply};

/// The relative difference of floats that are taken for equal.
const TOLERANCE: f64 = 1e-9;

/// What is different; the rows of an unordered answer may come in any order.
pub(crate) fn difference(found: &Reply, wanted: &Reply, ordered: bool) -> Option<String> {
    let code = |reply: &Reply| reply.failure.as_ref().map(|failure| failure.code.clone());
    if code(found) != code(wanted) {
        return Some("the error".to_owned());
    }
    if found.failure.is_some() {
        return (found.status != wanted.status).then(|| "the state after the error".to_owned());
    }
    if found.parts.len() != wanted.parts.len() {
        return Some("the number of answers".to_owned());
    }
    for (one, other) in found.parts.iter().zip(&wanted.parts) {
        if one.columns != other.columns {
            return Some("the columns".to_owned());
        }
        if one.tag != other.tag {
            return Some("the command tag".to_owned());
        }
        if !same_rows(one, other, ordered) {
            return Some("the rows".to_owned());
        }
        if one.copied(ordered) != other.copied(ordered) {
            return Some("the copied data".to_owned());
        }
    }
    if found.parameters != wanted.parameters {
        return Some("the parameters' types".to_owned());
    }
    (found.status != wanted.status).then(|| "the state of the transaction".to_owned())
}

/// A value, as it is compared.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Bytes(Vec<u8>),
    Float(f64),
}

impl Cell {
    fn order(&self, other: &Cell) -> Ordering {
        match (self, other) {
            (Cell::Bytes(one), Cell::Bytes(other)) => one.cmp(other),
            (Cell::Float(one), Cell::Float(other)) => one.total_cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Cell::Null => 0,
            Cell::Bytes(_) => 1,
            Cell::Float(_) => 2,
        }
    }

    fn same(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Float(one), Cell::Float(other)) => {
                one.total_cmp(other).is_eq()
                    || one.is_finite()
                        && other.is_finite()
                        && (one - other).abs() <= TOLERANCE * one.abs().max(other.abs())
            }
            _ => self == other,
        }
    }
}

fn same_rows(one: &Part, other: &Part, ordered: bool) -> bool {
    let (one, other) = (cells(one, ordered), cells(other, ordered));
    let same = |(one, other): (&Vec<Cell>, &Vec<Cell>)| {
        one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.same(other))
    };
    one.len() == other.len() && one.iter().zip(&other).all(same)
}

fn cells(part: &Part, ordered: bool) -> Vec<Vec<Cell>> {
    // Name, type, length, modifier and format; a name may have blanks.
    let kinds: Vec<(bool, bool)> = part
        .columns
        .iter()
        .flatten()
        .map(|column| {
            let words: Vec<&str> = column.rsplit(' ').collect();
            (matches!(words[3], "700" | "701"), words[0] == "1")
        })
        .collect();
    let cell = |value: &Option<Vec<u8>>, (is_float, binary): (bool, bool)| match value {
        None => Cell::Null,
        Some(bytes) if is_float => float(bytes, binary),
        Some(bytes) => Cell::Bytes(bytes.clone()),
    };
    let row = |row: &Vec<Option<Vec<u8>>>| {
        let kinds = kinds
            .iter()
            .copied()
            .chain(std::iter::repeat((false, false)));
        row.iter()
            .zip(kinds)
            .map(|(value, kind)| cell(value, kind))
            .collect()
    };
    let mut rows: Vec<Vec<Cell>> = part.rows.iter().map(row).collect();
    if !ordered {
        rows.sort_by(|one, other| by_cells(one, other));
    }
    rows
}

/// Floats come last, so that equal ones of little difference do not part what else is equal.
fn by_cells(one: &[Cell], other: &[Cell]) -> Ordering {
    let first = |of: &dyn Fn(&Cell, &Cell) -> Ordering| {
        let mut orders = one.iter().zip(other).map(|(one, other)| of(one, other));
        orders
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let but_floats = |one: &Cell, other: &Cell| match (one, other) {
        (Cell::Float(_), Cell::Float(_)) => Ordering::Equal,
        _ => one.order(other),
    };
    first(&but_floats).then_with(|| first(&Cell::order))
}

fn float(bytes: &[u8], binary: bool) -> Cell {
    let value = if binary {
        match bytes.len() {
            4 => bytes.try_into().ok().map(f32::from_be_bytes).map(f64::from),
            _ => bytes.try_into().ok().map(f64::from_be_bytes),
        }
    } else {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse().ok())
    };
    match value {
        // PostgreSQL has one NaN.
        Some(value) if value.is_nan() => Cell::Float(f64::NAN),
        Some(value) => Cell::Float(value),
        None => Cell::Bytes(bytes.to_vec()),
    }
}
