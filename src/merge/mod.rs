//! Puts the answers of several shards together where that needs no more than their rows: sorted answers
//! merged, LIMIT and OFFSET counted, one row of totals a shard combined.
//!
//! Only what comes out as one PostgreSQL's answer, byte for byte: values of the types whose order is known
//! here ([`value::Kind`]), and totals whose parts are exact ([`totals`]).

pub mod decimal;
pub mod order;
pub mod row;
pub mod totals;
pub mod value;

use std::sync::Arc;

use crate::error::Fault;
use crate::placement::catalog::Collation;

/// How the answers of several shards become one. Without anything: one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finish {
    /// The keys of ORDER BY.
    pub order: Vec<OrderKey>,
    /// Whether the statement has a LIMIT or an OFFSET; how many rows that is its text and its parameters tell.
    pub is_limited: bool,
    /// Whether the statement has groups, each of which is on one shard.
    pub whole: bool,
    /// What each column totals; empty unless all do.
    pub totals: Vec<Total>,
    /// What to answer where a column turns out to have a type that is not put together here.
    pub otherwise: Option<Arc<Fault>>,
}

impl Finish {
    /// Whether the shards' rows are the answer as they come.
    pub fn is_plain(&self) -> bool {
        self.order.is_empty() && !self.is_limited && self.totals.is_empty()
    }

    /// How many columns the shards give that the client has not asked for, behind those that it has.
    pub fn hidden(&self) -> usize {
        let hidden = self.order.iter();
        hidden.filter(|key| matches!(key.by, By::Hidden(_))).count()
    }
}

/// One key of ORDER BY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderKey {
    pub by: By,
    pub descending: bool,
    pub nulls_first: bool,
    /// How texts compare, if it is one.
    pub collation: Collation,
}

/// Where the values of a key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// A column of the target list, counted from 0.
    Position(usize),
    /// The first column of this name.
    Name(String),
    /// A column that the shards give besides.
    Hidden(Hidden),
}

/// A column that the shards give for a key of ORDER BY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The expression, where it is not the key's own.
    pub text: Option<String>,
    /// Whether it is a floating-point number, which is sent as `float8send` gives it: how many digits its
    /// text has is a setting.
    pub is_float: bool,
    /// If a column of the target list has this name, the key is that one.
    pub unless: Option<String>,
}

/// One total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    pub kind: TotalKind,
    /// How texts compare, if it is the largest or smallest of some.
    pub collation: Collation,
}

/// An aggregate whose value for all rows is known from its values for parts of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TotalKind {
    Count,
    Sum,
    Min,
    Max,
    /// `bool_and`, `every`.
    And,
    /// `bool_or`.
    Or,
}

impl TotalKind {
    /// By the name of PostgreSQL's function.
    pub fn named(name: &str) -> Option<TotalKind> {
        match name {
            "count" => Some(TotalKind::Count),
            "sum" => Some(TotalKind::Sum),
            "min" => Some(TotalKind::Min),
            "max" => Some(TotalKind::Max),
            "bool_and" | "every" => Some(TotalKind::And),
            "bool_or" => Some(TotalKind::Or),
            _ => None,
        }
    }
}
