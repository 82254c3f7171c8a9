//! Why the answer of a read is not kept.

use std::fmt;
use std::sync::Arc;

/// Why a read of cached tables passes the cache by, as its plan tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A table of it has no policy, or `strong`.
    Strong(Arc<str>),
    /// It may name a column of `strong_columns`.
    StrongColumn(Arc<str>),
    /// It calls what may answer otherwise another time, or look at more than its arguments.
    Function(Arc<str>),
    /// It locks rows.
    Lock,
    /// It reads catalogs.
    System,
    /// It reads a view, a foreign table, or a table that the catalogs did not have.
    Relation(Arc<str>),
    /// Policies decide which rows of this table a role sees.
    RowSecurity(Arc<str>),
    /// It holds a constant that means the moment it is read, a system column, or a cast that reads the clock.
    Moment(Arc<str>),
    /// TABLESAMPLE.
    Sample,
    /// It does more than read.
    Effect,
    /// A hint says so.
    Hint,
}

impl Reason {
    /// Its name in metrics and SHOW CACHE.
    pub fn label(&self) -> &'static str {
        match self {
            Reason::Strong(_) => "strong",
            Reason::StrongColumn(_) => "strong_column",
            Reason::Function(_) => "function",
            Reason::Lock => "lock",
            Reason::System => "catalog",
            Reason::Relation(_) => "relation",
            Reason::RowSecurity(_) => "row_security",
            Reason::Moment(_) => "moment",
            Reason::Sample => "sample",
            Reason::Effect => "effect",
            Reason::Hint => "hint",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Strong(table) => write!(f, "table {table} is strong"),
            Reason::StrongColumn(column) => write!(f, "it may read strong column {column}"),
            Reason::Function(what) => write!(f, "{what} may answer otherwise another time"),
            Reason::Lock => f.write_str("it locks rows"),
            Reason::System => f.write_str("it reads PostgreSQL's catalogs"),
            Reason::Relation(name) => write!(f, "{name} is no plain table"),
            Reason::RowSecurity(table) => write!(f, "table {table} has row-level security"),
            Reason::Moment(what) => f.write_str(what),
            Reason::Sample => f.write_str("TABLESAMPLE takes other rows each time"),
            Reason::Effect => f.write_str("it does more than read"),
            Reason::Hint => f.write_str("a hint says so"),
        }
    }
}
