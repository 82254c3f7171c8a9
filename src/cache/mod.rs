//! Answers kept for others: in the process, and in Redis where several proxies share them.
//!
//! An answer is kept with what its tags were before it was read, and is given again only while they are the
//! same. A write marks its tags before it commits and gives them other values before its client hears of it;
//! while a tag is marked, nothing that depends on it is given or kept. So a kept answer is what a read of the
//! primary would give at that moment.

pub mod answer;
pub mod counts;
pub mod key;
pub mod store;
pub mod tags;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::config;
use counts::{Counts, TableCounts};
use key::Key;
use store::{Entry, Flight, Store};
use tags::Tags;

/// How long the tags of a write stay marked of which nobody can tell whether it came about.
const LEASE: Duration = Duration::from_secs(30);

/// Names of tags: the database, a colon, and the tag.
pub type Names = Box<[Box<str>]>;

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub key: Key,
    pub names: Names,
    /// How long an answer is fresh.
    pub fresh: Duration,
    /// The age up to which it is given.
    pub limit: Duration,
    pub counts: Arc<TableCounts>,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    Hit(Arc<Entry>),
    /// To be read, and kept.
    Miss(Box<Capture>),
    /// To be read, not to be kept: it is being written.
    Pass,
    /// Another client is reading it: to be looked for again when this ends.
    Wait(watch::Receiver<()>),
}

/// An answer to be kept, once it has been read.
#[derive(Debug)]
pub struct Capture {
    wanted: Wanted,
    seen: Box<[u64]>,
    born: Instant,
    /// Those who wait are told when it is dropped.
    flight: Option<Flight>,
}

impl Capture {
    /// What it is kept under.
    pub fn key(&self) -> Key {
        self.wanted.key
    }
}

/// All that is kept by this process.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    tags: Tags,
    pub counts: Counts,
    /// Bytes of the largest answer that is kept.
    pub max_entry: usize,
    /// Tags of writes whose end is not known, and until when they stay marked.
    abandoned: Mutex<Vec<(Instant, Names)>>,
    has_abandoned: AtomicBool,
}

impl Cache {
    /// An empty one.
    pub fn new(config: &config::Cache) -> Cache {
        let mut seed = [0; 8];
        // Without randomness it still works.
        if SystemRandom::new().fill(&mut seed).is_err() {
            tracing::warn!(
                "no random numbers: the cache's tags are placed as those of every other process"
            );
        }
        Cache {
            store: Store::new(config.memory),
            tags: Tags::new(u64::from_ne_bytes(seed)),
            counts: Counts::default(),
            max_entry: usize::try_from(config.max_entry).unwrap_or(usize::MAX),
            abandoned: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
        }
    }

    /// Looks for an answer. `patient`: whether the caller waits for another client's read.
    pub fn look(&self, wanted: &Wanted, now: Instant, patient: bool) -> Found {
        self.end_leases(now);
        let mut stale = false;
        if let Some(entry) = self.store.get(&wanted.key) {
            let age = now.saturating_duration_since(entry.born);
            if age <= wanted.limit && self.tags.are(&wanted.names, &entry.seen) {
                stale = age > wanted.fresh;
                if !stale || !entry.refreshes(age) {
                    wanted.counts.hits.add(1);
                    wanted.counts.stale.add(u64::from(stale));
                    return Found::Hit(entry);
                }
            }
        }
        let Some(seen) = self.tags.versions(&wanted.names) else {
            wanted.counts.bypass("written");
            return Found::Pass;
        };
        // Who refreshes what is given to the others meanwhile keeps nobody waiting.
        let flight = match self.store.fly(wanted.key) {
            Ok(flight) => Some(flight),
            Err(_) if stale => None,
            Err(under_way) if patient => {
                wanted.counts.followers.add(1);
                return Found::Wait(under_way);
            }
            Err(_) => None,
        };
        wanted.counts.misses.add(1);
        Found::Miss(Box::new(Capture {
            wanted: wanted.clone(),
            seen,
            born: now,
            flight,
        }))
    }

    /// Keeps an answer, unless a tag of it was written meanwhile.
    pub fn fill(&self, capture: Capture, frames: Box<[u8]>) {
        let Capture {
            wanted,
            seen,
            born,
            flight,
        } = capture;
        if self.tags.are(&wanted.names, &seen) {
            wanted.counts.fills.add(1);
            let entry = Entry::new(frames, seen, born, Arc::clone(&wanted.counts));
            self.store.insert(wanted.key, Arc::new(entry));
        } else {
            wanted.counts.unfilled.add(1);
        }
        drop(flight);
    }

    /// A write begins: nothing that depends on these tags is given before it is over.
    pub fn mark(self: &Arc<Cache>, names: Names) -> Mark {
        self.tags.mark(&names);
        Mark {
            cache: Arc::clone(self),
            names,
        }
    }

    /// Something was written that is over.
    pub fn touch(&self, names: &[Box<str>]) {
        self.tags.touch(names);
    }

    /// Drops all answers.
    pub fn clear(&self) {
        self.store.clear();
    }

    /// Tags of abandoned writes are given back when their time is up.
    fn end_leases(&self, now: Instant) {
        if !self.has_abandoned.load(Ordering::Acquire) {
            return;
        }
        let mut abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        abandoned.retain(|(until, names)| {
            let over = *until <= now;
            if over {
                self.tags.bump(names);
            }
            !over
        });
        self.has_abandoned
            .store(!abandoned.is_empty(), Ordering::Release);
    }
}

/// A write under way. Dropped without [`Mark::bump`], its end is not known: its tags stay marked for
/// a while.
#[derive(Debug)]
pub struct Mark {
    cache: Arc<Cache>,
    names: Names,
}

impl Mark {
    /// Whether these tags are among those of the write.
    pub fn has(&self, names: &[Box<str>]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }

    /// The write touches these too.
    pub fn add(&mut self, names: &[Box<str>]) {
        let new: Names = names
            .iter()
            .filter(|name| !self.names.contains(name))
            .cloned()
            .collect();
        self.cache.tags.mark(&new);
        self.names = std::mem::take(&mut self.names)
            .into_iter()
            .chain(new)
            .collect();
    }

    /// The write is over: what depended on its tags is gone.
    pub fn bump(mut self) {
        self.cache.tags.bump(&std::mem::take(&mut self.names));
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return;
        }
        let until = Instant::now() + LEASE;
        let mut abandoned = self
            .cache
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        abandoned.push((until, names));
        self.cache.has_abandoned.store(true, Ordering::Release);
    }
}
