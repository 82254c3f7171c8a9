//! What the cache may do with a statement: keep its answer, or drop others for it.
//!
//! A [`Verdict`] belongs to a plan; the [`Tag`]s of one execution are worked out of it and of the values.
//! An answer may be given again as long as no tag that it was kept under has been written. *Invariant:* a
//! write that can change the answer of a read has a tag in common with it.

mod read;
mod reason;
mod tags;
mod write;

use std::sync::Arc;
use std::time::Duration;

use crate::planner::plan::KeyOperands;

pub use reason::Reason;
pub use tags::{Tag, means_moment, of_read, of_write};
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
}

/// A statement that may change what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writing {
    /// The cached tables that it may write; `None`: it is not known which.
    pub tables: Option<Box<[Touched]>>,
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

/// Rows of a cached table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// As the configuration lists it.
    pub table: Arc<str>,
    /// The distribution of its keys, by index in the topology.
    pub distribution: usize,
    /// The keys of all those rows; `None`: any rows.
    pub keys: Option<Box<[KeyOperands]>>,
}
