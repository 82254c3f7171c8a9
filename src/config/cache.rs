//! What may be answered from the cache, and where answers are kept.

use std::time::Duration;

/// A URL, which may hold a password. Never printed: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(pub String);

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Url(…)")
    }
}

/// Where answers of cached tables are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// A Redis server that several proxies share; `None`: answers stay in the process.
    pub redis: Option<Url>,
    /// Bytes of answers kept in the process.
    pub memory: u64,
    /// Bytes of the largest answer that is kept.
    pub max_entry: u64,
    /// How long Redis may take before it is passed by.
    pub redis_timeout: Duration,
    /// One of so many answers is read again on the primary; 0: none.
    pub audit: usize,
    /// Redis channels whose messages tell of changes made elsewhere.
    pub invalidate_on: Vec<Invalidate>,
}

impl Default for Cache {
    fn default() -> Cache {
        Cache {
            redis: None,
            memory: 64 << 20,
            max_entry: 1 << 20,
            redis_timeout: Duration::from_millis(50),
            audit: 1_000,
            invalidate_on: Vec::new(),
        }
    }
}

/// A Redis channel whose messages tell of changes made elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidate {
    pub channel: String,
    /// The table that changed, as the configuration lists it.
    pub table: String,
    /// The names of the fields that lead to the key in a message of JSON; `None`: any row changed.
    pub key: Option<Vec<String>>,
}

/// How an answer may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Never from the cache.
    Strong,
    /// As long as it is fresh.
    Bounded,
    /// Up to `swr`, and refreshed once it is not fresh any more.
    Cached,
}

/// What the configuration says of the rows of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub mode: Mode,
    /// How long an answer is fresh.
    pub ttl: Duration,
    /// The age up to which an answer is served; at least `ttl`.
    pub swr: Duration,
    /// Whether writes fail while Redis cannot be reached.
    pub strict: bool,
    /// Columns that make a statement that names them pass the cache by.
    pub strong_columns: Vec<String>,
    /// Columns whose values answers are dropped by.
    pub index: Vec<String>,
}
