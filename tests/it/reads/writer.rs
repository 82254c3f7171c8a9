//! What writes a statement: its kinds of values, names, and parameters.

use crate::generated::Parameter;
use crate::random::Random;

/// What an expression is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Num,
    Float,
    Text,
    Date,
    Time,
    Bool,
}

pub(super) const KINDS: [Kind; 7] = [
    Kind::Int,
    Kind::Num,
    Kind::Float,
    Kind::Text,
    Kind::Date,
    Kind::Time,
    Kind::Bool,
];

/// A column as it is written where it is in scope.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What stands in FROM, and what it gives.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    pub(super) from: String,
    pub(super) columns: Vec<Column>,
    /// The names of its relations.
    pub(super) names: Vec<String>,
}

impl Scope {
    /// A text that is another for every other row.
    pub(super) fn row(&self) -> String {
        let names: Vec<String> = self
            .names
            .iter()
            .map(|name| format!("{name}::text"))
            .collect();
        format!("concat_ws('|', {})", names.join(", "))
    }
}

/// A query of WITH: its name and its columns.
pub(super) type Named = (String, Vec<(String, Kind)>);

#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub(super) random: &'a mut Random,
    pub(super) extended: bool,
    pub(super) parameters: Vec<Parameter>,
    pub(super) named: Vec<Named>,
    /// Columns of the queries around.
    pub(super) outer: Vec<Column>,
    names: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(random: &'a mut Random, extended: bool) -> Writer<'a> {
        Writer {
            random,
            extended,
            parameters: Vec::new(),
            named: Vec::new(),
            outer: Vec::new(),
            names: 0,
        }
    }

    pub(super) fn name(&mut self, letter: char) -> String {
        self.names += 1;
        let quoted = self.random.chance(5);
        if quoted {
            format!("\"{} {}\"", letter.to_ascii_uppercase(), self.names)
        } else {
            format!("{letter}{}", self.names)
        }
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.random.chance(percent)
    }

    pub(super) fn choose(&mut self, items: &[&'static str]) -> &'static str {
        let at = self.random.below(items.len());
        items[at]
    }

    pub(super) fn kind(&mut self) -> Kind {
        *self.random.choose(&[
            Kind::Int,
            Kind::Int,
            Kind::Int,
            Kind::Text,
            Kind::Text,
            Kind::Num,
            Kind::Num,
            Kind::Float,
            Kind::Date,
            Kind::Time,
            Kind::Bool,
        ])
    }

    pub(super) fn kinds(&mut self) -> Vec<Kind> {
        (0..=self.random.below(4)).map(|_| self.kind()).collect()
    }

    /// A constant, or a parameter with its value.
    pub(super) fn literal(&mut self, kind: Kind) -> String {
        let (text, quoted) = self.constant(kind);
        if self.extended && self.random.chance(60) {
            return self.parameter(kind, &text);
        }
        if quoted {
            format!("{} '{}'", type_name(kind), text.replace('\'', "''"))
        } else {
            text
        }
    }

    fn constant(&mut self, kind: Kind) -> (String, bool) {
        let random = &mut *self.random;
        let text = |items: &[&str], random: &mut Random| ((*random.choose(items)).to_owned(), true);
        match kind {
            Kind::Int => {
                let small = i64::try_from(random.below(60)).expect("small") - 5;
                let text = small.to_string();
                (if small < 0 { format!("({text})") } else { text }, false)
            }
            Kind::Num => text(
                &["0.00", "1.50", "-3.25", "300.00", "99999999999999999999.01"],
                random,
            ),
            Kind::Float => text(&["0.5", "4.5", "NaN", "Infinity", "-1e-10", "1e15"], random),
            Kind::Text => text(
                &["x", "paid", "EU", "Zoë", "it's", "", "ünpaid", "z%", "北"],
                random,
            ),
            Kind::Date => text(&["2020-02-29", "2022-01-01", "2019-12-31"], random),
            Kind::Time => text(
                &[
                    "2021-03-04 05:06:07+00",
                    "2023-01-01 00:00:00+02",
                    "2020-07-01 12:00:00.5+00",
                ],
                random,
            ),
            Kind::Bool => {
                let value = if random.chance(50) { "true" } else { "false" };
                (value.to_owned(), false)
            }
        }
    }

    /// A parameter with a cast that says its type, or with its type in Parse.
    pub(super) fn parameter(&mut self, kind: Kind, text: &str) -> String {
        let text = text.trim_matches(['(', ')']).to_owned();
        let number = self.parameters.len() + 1;
        let declared = self.random.chance(50);
        let is_null = self.random.chance(5);
        let (oid, binary) = match kind {
            Kind::Int => match self.random.below(3) {
                0 => (
                    21,
                    text.parse().map(|it: i16| it.to_be_bytes().to_vec()).ok(),
                ),
                1 => (
                    23,
                    text.parse().map(|it: i32| it.to_be_bytes().to_vec()).ok(),
                ),
                _ => (
                    20,
                    text.parse().map(|it: i64| it.to_be_bytes().to_vec()).ok(),
                ),
            },
            Kind::Num => (1700, None),
            Kind::Float => (
                701,
                text.parse().map(|it: f64| it.to_be_bytes().to_vec()).ok(),
            ),
            Kind::Text => (25, Some(text.clone().into_bytes())),
            Kind::Date => (1082, None),
            Kind::Time => (1184, None),
            Kind::Bool => (16, Some(vec![u8::from(text == "true")])),
        };
        let in_binary = declared && binary.is_some() && self.random.chance(50);
        let bytes = if in_binary {
            binary
        } else {
            Some(text.into_bytes())
        };
        self.parameters.push(Parameter {
            oid: if declared { oid } else { 0 },
            binary: in_binary,
            bytes: if is_null { None } else { bytes },
        });
        if declared {
            format!("${number}")
        } else {
            format!("${number}::{}", type_name(kind))
        }
    }
}

pub(super) fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Num => "numeric",
        Kind::Float => "float8",
        Kind::Text => "text",
        Kind::Date => "date",
        Kind::Time => "timestamptz",
        Kind::Bool => "boolean",
    }
}
