//! What the cache may do with a statement: keep its answer, or drop others for it.
//!
//! A [`Verdict`] belongs to a plan; the [`Tag`]s of one execution are worked out of it and of the values.
//! An answer may be given again as long as no tag that it was kept under has been written. *Invariant:* a
//! write that can change the answer of a read has a tag in common with it.

mod columns;
mod read;
mod reason;
mod tags;
mod write;

use std::sync::Arc;
use std::time::Duration;

use crate::planner::plan::{KeyOperands, Operand};
use crate::sql::cursor::Name;
use crate::types::key::KeyType;

pub use reason::Reason;
pub use tags::{Look, Tag, means_moment, of_read, of_table, of_write};
pub use write::of_change;

pub(super) use read::of_read as judge_read;
pub(super) use write::{of_copy, of_data as judge_write, of_utility};

/// What the cache may do with a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its answer may be kept.
    Read(Reading),
    /// It reads cached tables, of which this is one, and its answer may not be kept.
    Bypass(Reason, Arc<str>),
    /// It may change what is kept.
    Write(Writing),
}

/// A read whose answer may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The tables that it reads; at least one.
    pub tables: Box<[Touched]>,
    /// The shortest `ttl` of its tables.
    pub fresh: Duration,
    /// The age up to which it may be given: the shortest that one of its tables allows.
    pub limit: Duration,
    /// Whether the same rows always give the same answer, but for its order.
    pub is_settled: bool,
}

/// A statement that may change what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// The cached tables that it may write; `None`: it is not known which.
    pub tables: Option<Box<[Written]>>,
    /// Whether it fails while other proxies cannot be told of it.
    pub strict: bool,
}

impl Writing {
    /// A statement of which nothing is known.
    pub fn anything(strict: bool) -> Writing {
        Writing {
            tables: None,
            strict,
        }
    }
}

/// A column whose values answers are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    pub column: Arc<str>,
    /// Its type, of those whose equal values have equal texts.
    pub kind: KeyType,
}

/// Rows of a cached table that a read looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// As the configuration lists it.
    pub table: Arc<str>,
    /// The distribution of its keys, by index in the topology.
    pub distribution: usize,
    /// The keys of all those rows; `None`: any rows.
    pub keys: Option<Box<[KeyOperands]>>,
    /// An indexed column, and the values that all those rows have there.
    pub confined: Option<(Indexed, Box<[Operand]>)>,
    /// The columns that it may look at; `None`: any.
    pub columns: Option<Box<[Arc<str>]>>,
}

/// Rows of a cached table that a statement may write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// As the configuration lists it.
    pub table: Arc<str>,
    /// The distribution of its keys, by index in the topology.
    pub distribution: usize,
    /// The keys of all those rows, before and after; `None`: any rows.
    pub keys: Option<Box<[KeyOperands]>>,
    /// The columns that it may change of rows that stay where they are; `None`: any, and rows may come and go.
    pub columns: Option<Box<[Arc<str>]>>,
    /// What is known of the values of each indexed column; `None`: nothing of any.
    pub indexed: Option<Box<[(Indexed, Valued)]>>,
    /// Where its rows may be looked at by their keys, to know their values: the table as the catalog has it, and
    /// the columns of the key.
    pub place: Option<Arc<(Name, Box<[String]>)>>,
}

/// What is known of the values that written rows have in an indexed column, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Valued {
    /// They are these.
    Known(Box<[Operand]>),
    /// Each row keeps the one that it has.
    Kept,
    Any,
}
