//! What the cache counts, by table: shared by all engines, read by the console and the metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::metrics::view::CacheRow;

/// Reasons that are told apart for one table.
const REASONS_MAX: usize = 32;

/// A count that only grows, or one of what there is now.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn take_away(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted of one table. A statement over several counts at the first that it names.
#[derive(Debug, Default)]
pub struct TableCounts {
    /// Answers in the process.
    pub entries: Count,
    /// Their bytes.
    pub bytes: Count,
    /// Answers given from the process.
    pub hits: Count,
    /// Answers given from Redis.
    pub redis_hits: Count,
    pub misses: Count,
    /// Reads that waited for another client's.
    pub followers: Count,
    /// Answers given that were not fresh any more.
    pub stale: Count,
    pub fills: Count,
    /// Answers that were not kept after all: too large, or overtaken by a write.
    pub unfilled: Count,
    /// Writes by clients of this proxy.
    pub writes: Count,
    /// Changes told of by Redis channels, and purges.
    pub events: Count,
    /// Changes past the proxies that shards told of; those of this proxy's clients come back among them.
    pub changes: Count,
    pub purges: Count,
    /// Answers that were read again on the primary.
    pub audited: Count,
    /// Those that the primary answered otherwise, though nothing they depend on was written.
    pub found_stale: Count,
    bypasses: Mutex<BTreeMap<&'static str, u64>>,
}

impl TableCounts {
    /// A read passed the cache by.
    pub fn bypass(&self, reason: &'static str) {
        let mut bypasses = self.bypasses.lock().unwrap_or_else(PoisonError::into_inner);
        if bypasses.len() < REASONS_MAX || bypasses.contains_key(reason) {
            let count = bypasses.entry(reason).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// How many reads passed the cache by, by reason.
    pub fn bypasses(&self) -> BTreeMap<&'static str, u64> {
        let bypasses = self.bypasses.lock().unwrap_or_else(PoisonError::into_inner);
        bypasses.clone()
    }
}

type Tables = BTreeMap<Arc<str>, Arc<TableCounts>>;

/// The counts of all tables, by database and table.
#[derive(Debug, Default)]
pub struct Counts(RwLock<BTreeMap<String, Tables>>);

impl Counts {
    /// Those of a table; made on first use. Names are those of the configuration.
    pub fn of(&self, database: &str, table: &Arc<str>) -> Arc<TableCounts> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = known.get(database).and_then(|tables| tables.get(table)) {
            return Arc::clone(counts);
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let tables = known.entry(database.to_owned()).or_default();
        Arc::clone(tables.entry(Arc::clone(table)).or_default())
    }

    /// All of them, in the order of databases and tables.
    pub fn rows(&self) -> Vec<CacheRow> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let tables = known.iter().flat_map(|(database, tables)| {
            let row = |(table, counts): (&Arc<str>, &Arc<TableCounts>)| CacheRow {
                database: database.clone(),
                table: table.as_ref().to_owned(),
                entries: counts.entries.get(),
                bytes: counts.bytes.get(),
                hits: counts.hits.get(),
                redis_hits: counts.redis_hits.get(),
                misses: counts.misses.get(),
                followers: counts.followers.get(),
                stale: counts.stale.get(),
                fills: counts.fills.get(),
                unfilled: counts.unfilled.get(),
                bypasses: counts.bypasses().into_iter().collect(),
                writes: counts.writes.get(),
                events: counts.events.get(),
                changes: counts.changes.get(),
                purges: counts.purges.get(),
                audited: counts.audited.get(),
                found_stale: counts.found_stale.get(),
            };
            tables.iter().map(row)
        });
        tables.collect()
    }
}
