//! Answers kept for others: in the process, and in Redis where several proxies share them.
//!
//! An answer is kept with what its tags were before it was read, and is given again only while they are the
//! same. A write marks its tags before it commits and gives them other values before its client hears of it;
//! while a tag is marked, nothing that depends on it is given or kept. So a kept answer is what a read of the
//! primary would give at that moment.
//!
//! Without Redis the tags are in the process, and so are its answers. With it the tags are there alone, and
//! each answer, wherever it is, is held against them before it is given.

pub mod answer;
pub mod counts;
pub mod events;
pub mod key;
pub mod redis;
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
use redis::{Link, Tag, Unreachable};
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
    /// To be read, not to be kept: it is being written, or Redis cannot be asked.
    Pass,
    /// Another client is reading it: to be looked for again when this ends.
    Wait(watch::Receiver<()>),
}

/// An answer to be kept, once it has been read.
#[derive(Debug)]
pub struct Capture {
    wanted: Wanted,
    seen: Box<[u128]>,
    /// When that was, in ms of the clock that ages are told by.
    born: u64,
    /// Those who wait are told when it is dropped.
    flight: Option<Flight>,
}

impl Capture {
    /// What it is kept under.
    pub fn key(&self) -> Key {
        self.wanted.key
    }
}

/// Where tags are.
#[derive(Debug)]
enum Level {
    Process(Tags),
    Redis(Arc<Link>),
    /// The server that the configuration names is none: nothing is kept.
    Nowhere,
}

/// All that is kept by this process.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    level: Level,
    pub counts: Counts,
    /// Bytes of the largest answer that is kept.
    pub max_entry: usize,
    began: Instant,
    /// Tags of writes whose end is not known, and until when they stay marked.
    abandoned: Mutex<Vec<(Instant, Names)>>,
    has_abandoned: AtomicBool,
}

impl Cache {
    /// An empty one, in the process or, where the configuration names one, with a Redis server.
    pub fn new(name: &str, config: &config::Cache, runtime: &tokio::runtime::Handle) -> Cache {
        let level = if let Some(url) = &config.redis {
            Link::open(name, &url.0, config.redis_timeout, runtime).map_or_else(
                |error| {
                    tracing::error!(%error, "cache.redis names no Redis server: nothing is cached");
                    Level::Nowhere
                },
                Level::Redis,
            )
        } else {
            let mut seed = [0; 8];
            if SystemRandom::new().fill(&mut seed).is_err() {
                tracing::warn!(
                    "no random numbers: the cache's tags are placed as those of every other process"
                );
            }
            Level::Process(Tags::new(u64::from_ne_bytes(seed)))
        };
        Cache {
            store: Store::new(config.memory),
            level,
            counts: Counts::default(),
            max_entry: usize::try_from(config.max_entry).unwrap_or(usize::MAX),
            began: Instant::now(),
            abandoned: Mutex::default(),
            has_abandoned: AtomicBool::new(false),
        }
    }

    /// The way to Redis, where there is one: then [`Cache::look_there`] and [`Mark::tell`] are to be used.
    pub fn redis(&self) -> Option<&Arc<Link>> {
        match &self.level {
            Level::Redis(link) => Some(link),
            Level::Process(_) | Level::Nowhere => None,
        }
    }

    /// Looks for an answer in the process. `patient`: whether the caller waits for another client's read.
    pub fn look(&self, wanted: &Wanted, now: Instant, patient: bool) -> Found {
        let Level::Process(tags) = &self.level else {
            return Found::Pass;
        };
        self.end_leases(tags, now);
        let now = now.saturating_duration_since(self.began).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut stale = false;
        if let Some(entry) = self.store.get(&wanted.key)
            && tags.are(&wanted.names, &entry.seen)
        {
            match serve(&entry, wanted, now) {
                Served::Fresh => {
                    wanted.counts.hits.add(1);
                    return Found::Hit(entry);
                }
                Served::Stale => {
                    wanted.counts.hits.add(1);
                    wanted.counts.stale.add(1);
                    return Found::Hit(entry);
                }
                Served::Refresh => stale = true,
                Served::Old => (),
            }
        }
        let Some(seen) = tags.versions(&wanted.names) else {
            wanted.counts.bypass("written");
            return Found::Pass;
        };
        self.miss(wanted, seen, now, patient && !stale)
    }

    /// To be read, by this client or by another that it waits for.
    fn miss(&self, wanted: &Wanted, seen: Box<[u128]>, born: u64, patient: bool) -> Found {
        let flight = match self.store.fly(wanted.key) {
            Ok(flight) => Some(flight),
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
            born,
            flight,
        }))
    }

    /// Looks for an answer where Redis has the tags.
    ///
    /// # Cancel safety
    /// Safe: nothing is found, and who waits for this client's read is told.
    pub async fn look_there(&self, wanted: &Wanted, patient: bool) -> Found {
        let Level::Redis(link) = &self.level else {
            return Found::Pass;
        };
        let mut here = self.store.get(&wanted.key);
        let asked = here.is_none().then_some(wanted.key);
        let Ok(mut seen) = link.look(asked, &wanted.names).await else {
            wanted.counts.bypass("redis");
            return Found::Pass;
        };
        if here
            .as_ref()
            .is_some_and(|entry| !are(&seen.tags, &entry.seen))
        {
            // Another proxy may have read it since.
            here = None;
            let Ok(now) = link.look(Some(wanted.key), &wanted.names).await else {
                wanted.counts.bypass("redis");
                return Found::Pass;
            };
            seen = now;
        }
        let is_here = here.is_some();
        let stored = seen.entry.take();
        let entry = here.or_else(|| {
            let stored = stored?;
            let counts = Arc::clone(&wanted.counts);
            let entry = Entry::new(stored.frames, stored.seen, stored.born, counts);
            Some(Arc::new(entry))
        });
        let mut stale = false;
        if let Some(entry) = entry
            && are(&seen.tags, &entry.seen)
        {
            let served = serve(&entry, wanted, seen.now);
            if matches!(served, Served::Fresh | Served::Stale) {
                wanted.counts.stale.add(u64::from(served == Served::Stale));
                if is_here {
                    wanted.counts.hits.add(1);
                } else {
                    wanted.counts.redis_hits.add(1);
                    self.store.insert(wanted.key, Arc::clone(&entry));
                }
                return Found::Hit(entry);
            }
            stale = served == Served::Refresh;
        }
        let seen = if seen.tags.iter().all(|tag| matches!(tag, Tag::Value(_))) {
            seen
        } else if let Ok(seen) = link.capture(&wanted.names).await {
            seen
        } else {
            wanted.counts.bypass("redis");
            return Found::Pass;
        };
        let values: Option<Box<[u128]>> = seen
            .tags
            .iter()
            .map(|tag| match tag {
                Tag::Value(value) => Some(*value),
                Tag::Missing | Tag::Pending => None,
            })
            .collect();
        let Some(values) = values else {
            wanted.counts.bypass("written");
            return Found::Pass;
        };
        self.miss(wanted, values, seen.now, patient && !stale)
    }

    /// Keeps an answer, unless a tag of it was written meanwhile. In Redis it is kept a little later.
    pub fn fill(&self, capture: Capture, frames: Box<[u8]>) {
        let Capture {
            wanted,
            seen,
            born,
            flight,
        } = capture;
        let counts = Arc::clone(&wanted.counts);
        match &self.level {
            Level::Process(tags) if !tags.are(&wanted.names, &seen) => {
                counts.unfilled.add(1);
                return;
            }
            Level::Process(_) | Level::Nowhere => (),
            Level::Redis(link) => {
                let link = Arc::clone(link);
                let runtime = link.runtime().clone();
                let (seen, copy) = (seen.clone(), frames.clone());
                let (key, names, keep) = (wanted.key, wanted.names.clone(), wanted.limit);
                drop(runtime.spawn(async move {
                    if link
                        .fill(key, names, seen, born, &copy, keep)
                        .await
                        .is_err()
                    {
                        tracing::debug!("an answer could not be kept in Redis");
                    }
                }));
            }
        }
        counts.fills.add(1);
        let entry = Entry::new(frames, seen, born, counts);
        self.store.insert(wanted.key, Arc::new(entry));
        drop(flight);
    }

    /// A write begins: nothing that depends on these tags is given before it is over.
    pub fn mark(self: &Arc<Cache>, names: Names) -> Mark {
        if let Level::Process(tags) = &self.level {
            tags.mark(&names);
        }
        Mark {
            cache: Arc::clone(self),
            names,
            writers: Vec::new(),
            missed: None,
        }
    }

    /// Something was written that is over.
    ///
    /// # Errors
    /// Redis could not be told.
    ///
    /// # Cancel safety
    /// Safe: it has been told or not.
    pub async fn touch(&self, names: Names) -> Result<(), Unreachable> {
        match &self.level {
            Level::Process(tags) => {
                tags.touch(&names);
                Ok(())
            }
            Level::Redis(link) => link.touch(&names).await,
            Level::Nowhere => Ok(()),
        }
    }

    /// Tags of abandoned writes are given back when their time is up.
    fn end_leases(&self, tags: &Tags, now: Instant) {
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
                tags.bump(names);
            }
            !over
        });
        self.has_abandoned
            .store(!abandoned.is_empty(), Ordering::Release);
    }
}

/// What an answer is good for whose tags are as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Fresh,
    /// It is given while another client reads it anew.
    Stale,
    /// Whoever asks is to read it anew.
    Refresh,
    /// It is not given any more.
    Old,
}

fn serve(entry: &Entry, wanted: &Wanted, now: u64) -> Served {
    let age = Duration::from_millis(now.saturating_sub(entry.born));
    if age <= wanted.fresh && age <= wanted.limit {
        Served::Fresh
    } else if age > wanted.limit {
        Served::Old
    } else if entry.refreshes(age) {
        Served::Refresh
    } else {
        Served::Stale
    }
}

/// Whether tags are what they were.
fn are(tags: &[Tag], seen: &[u128]) -> bool {
    tags.len() == seen.len()
        && tags
            .iter()
            .zip(seen)
            .all(|(tag, value)| *tag == Tag::Value(*value))
}

/// A write under way. Dropped without its end, what became of it is not known: its tags stay marked for a
/// while.
#[derive(Debug)]
pub struct Mark {
    cache: Arc<Cache>,
    names: Names,
    /// The numbers that Redis knows it by.
    writers: Vec<u64>,
    /// Redis could not be told of all of it: the tag of everything that makes up for that.
    missed: Option<Box<str>>,
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
        if let Level::Process(tags) = &self.cache.level {
            tags.mark(&new);
        }
        self.names = std::mem::take(&mut self.names)
            .into_iter()
            .chain(new)
            .collect();
    }

    /// Tells Redis, where there is one. `all` is the tag of everything, which is written once Redis is back.
    ///
    /// # Errors
    /// Redis did not answer in time. The write may go on: what was not told is made up for.
    ///
    /// # Cancel safety
    /// Safe: a mark that is not known to anyone ends by itself.
    pub async fn tell(&mut self, all: &str) -> Result<(), Unreachable> {
        let Level::Redis(link) = &self.cache.level else {
            return Ok(());
        };
        if let Ok(writer) = link.mark(&self.names).await {
            self.writers.push(writer);
            return Ok(());
        }
        link.miss(all);
        self.missed = Some(all.into());
        Err(Unreachable)
    }

    /// The write is over: what depended on its tags is gone.
    pub fn end(mut self) {
        if let Level::Process(tags) = &self.cache.level {
            tags.bump(&std::mem::take(&mut self.names));
        }
    }

    /// The same wherever the tags are.
    ///
    /// # Cancel safety
    /// Not safe: the tags may stay marked for a while.
    pub async fn end_everywhere(self, all: &str) {
        if self.cache.redis().is_some() {
            self.end_there(all).await;
        } else {
            self.end();
        }
    }

    /// The same where Redis has the tags. Where it does not answer, what is missed is made up for before
    /// anything is taken from it again; `all` is the tag of everything.
    ///
    /// # Cancel safety
    /// Not safe: the tags may stay marked for a while.
    async fn end_there(mut self, all: &str) {
        let names = std::mem::take(&mut self.names);
        let Level::Redis(link) = &self.cache.level else {
            return;
        };
        let writers = std::mem::take(&mut self.writers);
        if let Some(missed) = self.missed.take() {
            // What was given and kept since may be older than this write.
            link.miss(&missed);
        }
        let Some((last, earlier)) = writers.split_last() else {
            if link.touch(&names).await.is_err() {
                link.miss(all);
            }
            return;
        };
        for writer in earlier {
            if link.bump(*writer, &names).await.is_err() {
                link.miss(all);
            }
        }
        if link.bump(*last, &names).await.is_err() {
            link.miss(all);
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.names);
        if names.is_empty() {
            return;
        }
        match &self.cache.level {
            Level::Redis(link) => {
                for writer in &self.writers {
                    link.forget(*writer);
                }
            }
            Level::Nowhere => (),
            Level::Process(_) => {
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
    }
}
