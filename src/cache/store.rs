//! Answers in the process, weighed by their bytes, and the reads under way that others wait for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Weighed;
use tokio::sync::watch;

use super::counts::TableCounts;
use super::key::Key;

/// An answer, wherever it is kept.
#[derive(Clone, Debug)]
pub struct Stored {
    /// What its tags were before it was read.
    pub seen: Box<[u128]>,
    /// When that was, in ms.
    pub born: u64,
    /// How long it took to read it.
    pub cost: Duration,
    /// Its messages, as [`super::answer`] keeps them.
    pub frames: Box<[u8]>,
}

/// A kept answer.
#[derive(Debug)]
pub struct Entry {
    /// Its messages, as [`super::answer`] keeps them.
    pub frames: Box<[u8]>,
    /// What its tags were before it was read.
    pub seen: Box<[u128]>,
    /// When that was, in ms.
    pub born: u64,
    /// How long it took to read it.
    pub cost: Duration,
    /// Its age in ms until which somebody reads it anew.
    refreshing: AtomicU64,
    counts: Arc<TableCounts>,
}

/// How long who refreshes an answer may take before another does.
const REFRESH: Duration = Duration::from_secs(5);

impl Entry {
    /// An answer of the process.
    pub fn new(stored: Stored, counts: Arc<TableCounts>) -> Entry {
        counts.entries.add(1);
        let entry = Entry {
            frames: stored.frames,
            seen: stored.seen,
            born: stored.born,
            cost: stored.cost,
            refreshing: AtomicU64::new(0),
            counts,
        };
        entry.counts.bytes.add(entry.weight());
        entry
    }

    fn weight(&self) -> u64 {
        let bytes = self
            .frames
            .len()
            .saturating_add(self.seen.len().saturating_mul(16));
        u64::try_from(bytes.saturating_add(OVERHEAD)).unwrap_or(u64::MAX)
    }

    /// Whether whoever asks is the one to read it anew: one at a time.
    pub fn refreshes(&self, age: Duration) -> bool {
        let now = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let until = self.refreshing.load(Ordering::Relaxed);
        let limit = now.saturating_add(u64::try_from(REFRESH.as_millis()).unwrap_or(0));
        now >= until
            && self
                .refreshing
                .compare_exchange(until, limit, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.counts.entries.take_away(1);
        self.counts.bytes.take_away(self.weight());
    }
}

/// Bytes of an answer besides its messages, about.
const OVERHEAD: usize = 200;

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Key, Arc<Entry>> for Bytes {
    fn weight(&self, _key: &Key, entry: &Arc<Entry>) -> u64 {
        entry.weight()
    }
}

type Flights = Mutex<HashMap<Key, watch::Receiver<()>, RandomState>>;

/// Answers in the process.
#[derive(Debug)]
pub struct Store {
    entries: Weighed<Key, Arc<Entry>, Bytes, RandomState>,
    flights: Arc<Flights>,
}

/// Bytes that an answer has, about: how many answers there will be.
const USUAL: u64 = 2_000;

impl Store {
    /// For so many bytes.
    pub fn new(memory: u64) -> Store {
        let count = usize::try_from(memory / USUAL)
            .unwrap_or(usize::MAX)
            .max(64);
        Store {
            entries: Weighed::with(
                count,
                memory,
                Bytes,
                RandomState::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            flights: Arc::default(),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub fn insert(&self, key: Key, entry: Arc<Entry>) {
        self.entries.insert(key, entry);
    }

    pub fn remove(&self, key: &Key) {
        self.entries.remove(key);
    }

    pub fn clear(&self) {
        self.entries.clear();
    }

    /// Whoever comes first is to read an answer; the others wait until it has.
    ///
    /// # Errors
    /// Ends when the read under way is over, however it went.
    pub fn fly(&self, key: Key) -> Result<Flight, watch::Receiver<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = flights.get(&key) {
            return Err(under_way.clone());
        }
        let (over, under_way) = watch::channel(());
        flights.insert(key, under_way);
        Ok(Flight {
            key,
            flights: Arc::clone(&self.flights),
            over,
        })
    }
}

/// A read of an answer that others wait for, until this is dropped.
#[derive(Debug)]
pub struct Flight {
    key: Key,
    flights: Arc<Flights>,
    #[expect(dead_code, reason = "its drop tells those who wait")]
    over: watch::Sender<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}
