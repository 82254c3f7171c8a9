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

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

use crate::config;
use counts::{Counts, TableCounts};
use key::Key;
use redis::{Link, Tag, Unreachable};
use store::{Entry, Flight, Store, Stored};
use tags::Tags;

/// How long the tags of a write stay marked of which nobody can tell whether it came about. In Redis, how long a
/// mark counts unless it is renewed.
const LEASE: Duration = Duration::from_secs(30);

/// How long a read waits for one that another proxy has begun, and how often it looks meanwhile.
const FOLLOW: Duration = Duration::from_secs(2);
const FOLLOW_FIRST: Duration = Duration::from_millis(2);
const FOLLOW_LAST: Duration = Duration::from_millis(50);
/// When an answer that differs from the primary's is held against its tags once more.
const AUDIT_AGAIN: Duration = Duration::from_secs(1);

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
    /// The same by this process's own clock.
    began: Instant,
    /// Whoever waits in other proxies goes on when it is dropped; before those who wait here.
    lock: Option<Lock>,
    /// Those who wait are told when it is dropped.
    flight: Option<Flight>,
}

/// An answer that is given and read again, to be compared.
#[derive(Debug)]
pub struct Audit {
    pub wanted: Wanted,
    pub entry: Arc<Entry>,
}

/// What is in Redis as long as one proxy reads an answer that others want.
#[derive(Debug)]
struct Lock {
    link: Arc<Link>,
    key: Key,
    /// Who has it; `None` once it is given back otherwise.
    who: Option<u64>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(who) = self.who.take() {
            let (link, key) = (Arc::clone(&self.link), self.key);
            let runtime = link.runtime().clone();
            drop(runtime.spawn(async move { link.release(key, who).await }));
        }
    }
}

/// What is found of an answer that Redis has the tags of.
#[derive(Debug)]
enum Sought {
    Hit(Arc<Entry>),
    /// It may be given, and whoever asks is to read it anew.
    Refresh(Arc<Entry>),
    Nothing,
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
    /// One of so many answers that are given is read again; 0: none.
    audit: usize,
    given: AtomicU64,
    chances: AtomicU64,
    runtime: tokio::runtime::Handle,
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
            audit: config.audit,
            given: AtomicU64::new(0),
            chances: AtomicU64::new(0),
            runtime: runtime.clone(),
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

    /// Whether an answer that is about to be given is to be read again instead, so that the two can be compared.
    pub fn audits(&self) -> bool {
        let every = u64::try_from(self.audit).unwrap_or(0);
        let given = self.given.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        every > 0 && given.is_multiple_of(every)
    }

    /// A number above 0 and up to 1, by chance.
    fn chance(&self) -> f64 {
        let step = 0x9E37_79B9_7F4A_7C15_u64;
        let mut mixed = self.chances.fetch_add(step, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let number = u32::try_from(mixed >> 32).unwrap_or(0);
        (f64::from(number) + 1.0) / 4_294_967_296.0
    }

    /// Looks for an answer in the process. `patient`: whether the caller waits for another client's read.
    pub fn look(&self, wanted: &Wanted, now: Instant, patient: bool) -> Found {
        let Level::Process(tags) = &self.level else {
            return Found::Pass;
        };
        self.end_leases(tags, now);
        let now = now.saturating_duration_since(self.began).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let mut stale = None;
        if let Some(entry) = self.store.get(&wanted.key)
            && tags.are(&wanted.names, &entry.seen)
        {
            match serve(&entry, wanted, now, self.chance()) {
                served @ (Served::Fresh | Served::Stale) => {
                    wanted.counts.hits.add(1);
                    wanted.counts.stale.add(u64::from(served == Served::Stale));
                    return Found::Hit(entry);
                }
                Served::Refresh => stale = Some(entry),
                Served::Old => (),
            }
        }
        let flight = match (self.store.fly(wanted.key), stale) {
            (Ok(flight), _) => Some(flight),
            (Err(_), Some(entry)) => {
                wanted.counts.hits.add(1);
                wanted.counts.stale.add(1);
                return Found::Hit(entry);
            }
            (Err(under_way), None) if patient => {
                wanted.counts.followers.add(1);
                return Found::Wait(under_way);
            }
            (Err(_), None) => None,
        };
        let Some(seen) = tags.versions(&wanted.names) else {
            wanted.counts.bypass("written");
            return Found::Pass;
        };
        wanted.counts.misses.add(1);
        Found::Miss(Box::new(Capture {
            wanted: wanted.clone(),
            seen,
            born: now,
            began: Instant::now(),
            lock: None,
            flight,
        }))
    }

    /// Looks for an answer where Redis has the tags. Where there is none, one client of one proxy is to read it; for
    /// a while the others wait for that.
    ///
    /// # Cancel safety
    /// Safe: nothing is found, and who waits for this client's read is told.
    pub async fn look_there(&self, wanted: &Wanted, patient: bool) -> Found {
        let Level::Redis(link) = &self.level else {
            return Found::Pass;
        };
        let found = match self.seek(link, wanted).await {
            Ok(Sought::Hit(entry)) => Ok(Found::Hit(entry)),
            Ok(Sought::Refresh(entry)) => self.lead(link, wanted, patient, Some(entry)).await,
            Ok(Sought::Nothing) => self.lead(link, wanted, patient, None).await,
            Err(unreachable) => Err(unreachable),
        };
        found.unwrap_or_else(|Unreachable| {
            wanted.counts.bypass("redis");
            Found::Pass
        })
    }

    /// An answer that is here or in Redis, held against the tags.
    async fn seek(&self, link: &Arc<Link>, wanted: &Wanted) -> Result<Sought, Unreachable> {
        let mut refresh = None;
        if let Some(entry) = self.store.get(&wanted.key) {
            let seen = link.look(None, &wanted.names).await?;
            if are(&seen.tags, &entry.seen) {
                match serve(&entry, wanted, seen.now, self.chance()) {
                    served @ (Served::Fresh | Served::Stale) => {
                        wanted.counts.hits.add(1);
                        wanted.counts.stale.add(u64::from(served == Served::Stale));
                        return Ok(Sought::Hit(entry));
                    }
                    Served::Refresh => refresh = Some(entry),
                    Served::Old => (),
                }
            }
        }
        // Another proxy may have read it since.
        let mut seen = link.look(Some(wanted.key), &wanted.names).await?;
        if let Some(stored) = seen.entry.take() {
            let entry = Arc::new(Entry::new(stored, Arc::clone(&wanted.counts)));
            let is_known = refresh
                .as_ref()
                .is_some_and(|known| known.born >= entry.born);
            if are(&seen.tags, &entry.seen) && !is_known {
                let served = serve(&entry, wanted, seen.now, self.chance());
                if served != Served::Old {
                    self.store.insert(wanted.key, Arc::clone(&entry));
                }
                match served {
                    Served::Fresh | Served::Stale => {
                        wanted.counts.redis_hits.add(1);
                        wanted.counts.stale.add(u64::from(served == Served::Stale));
                        return Ok(Sought::Hit(entry));
                    }
                    Served::Refresh => refresh = Some(entry),
                    Served::Old => (),
                }
            }
        }
        Ok(refresh.map_or(Sought::Nothing, Sought::Refresh))
    }

    /// An answer is to be read: by this client, or by another of this proxy or of another one. `stale`: what may
    /// be given as long as another reads it.
    async fn lead(
        &self,
        link: &Arc<Link>,
        wanted: &Wanted,
        patient: bool,
        stale: Option<Arc<Entry>>,
    ) -> Result<Found, Unreachable> {
        let give = |entry| {
            wanted.counts.hits.add(1);
            wanted.counts.stale.add(1);
            Ok(Found::Hit(entry))
        };
        let flight = match self.store.fly(wanted.key) {
            Ok(flight) => Some(flight),
            Err(under_way) => match stale {
                Some(entry) => return give(entry),
                None if patient => {
                    wanted.counts.followers.add(1);
                    return Ok(Found::Wait(under_way));
                }
                None => None,
            },
        };
        let (began, mut pause) = (Instant::now(), FOLLOW_FIRST);
        let mut has_followed = false;
        loop {
            let seen = link.capture(Some(wanted.key), &wanted.names).await?;
            let lock = seen.lock.map(|who| Lock {
                link: Arc::clone(link),
                key: wanted.key,
                who: Some(who),
            });
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
                return Ok(Found::Pass);
            };
            if lock.is_some()
                && let Sought::Hit(entry) = self.seek(link, wanted).await?
            {
                // It was kept since this client looked last: who had read it had let go by then.
                return Ok(Found::Hit(entry));
            }
            if lock.is_some() || !patient || began.elapsed() > FOLLOW {
                wanted.counts.misses.add(1);
                return Ok(Found::Miss(Box::new(Capture {
                    wanted: wanted.clone(),
                    seen: values,
                    born: seen.now,
                    began: Instant::now(),
                    lock,
                    flight,
                })));
            }
            if let Some(entry) = stale {
                return give(entry);
            }
            if !std::mem::replace(&mut has_followed, true) {
                wanted.counts.followers.add(1);
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(FOLLOW_LAST);
            if let Sought::Hit(entry) = self.seek(link, wanted).await? {
                return Ok(Found::Hit(entry));
            }
        }
    }

    /// Keeps an answer, unless a tag of it was written meanwhile. In Redis it is kept a little later.
    pub fn fill(&self, capture: Capture, frames: Box<[u8]>) {
        let Capture {
            wanted,
            seen,
            born,
            began,
            mut lock,
            flight,
        } = capture;
        let counts = Arc::clone(&wanted.counts);
        let kept = Stored {
            seen,
            born,
            cost: began.elapsed(),
            frames,
        };
        match &self.level {
            Level::Process(tags) if !tags.are(&wanted.names, &kept.seen) => {
                counts.unfilled.add(1);
                return;
            }
            Level::Process(_) | Level::Nowhere => (),
            Level::Redis(link) => {
                let link = Arc::clone(link);
                let runtime = link.runtime().clone();
                let copy = kept.clone();
                let (key, names, keep) = (wanted.key, wanted.names.clone(), wanted.limit);
                drop(runtime.spawn(async move {
                    let who = lock.as_mut().and_then(|lock| lock.who.take());
                    if link.fill(key, names, &copy, keep, who).await.is_err() {
                        tracing::debug!("an answer could not be kept in Redis");
                    }
                }));
            }
        }
        counts.fills.add(1);
        self.store
            .insert(wanted.key, Arc::new(Entry::new(kept, counts)));
        drop(flight);
    }

    /// Compares what was kept with what the primary answers now. A difference counts if it is still there a
    /// little later: what is kept was not written since, so that it should have been the same.
    pub fn audited(self: &Arc<Cache>, audit: Audit, frames: &[u8]) {
        let counts = Arc::clone(&audit.wanted.counts);
        counts.audited.add(1);
        if answer::are_alike(&audit.entry.frames, frames) {
            return;
        }
        let cache = Arc::clone(self);
        drop(self.runtime.spawn(async move {
            // Shards tell of changes past the proxies a moment after they can be seen.
            tokio::time::sleep(AUDIT_AGAIN).await;
            let Audit { wanted, entry } = audit;
            let is_valid = match &cache.level {
                Level::Process(tags) => tags.are(&wanted.names, &entry.seen),
                Level::Redis(link) => {
                    let seen = link.look(None, &wanted.names).await;
                    seen.is_ok_and(|seen| are(&seen.tags, &entry.seen))
                }
                Level::Nowhere => false,
            };
            if !is_valid {
                return;
            }
            counts.found_stale.add(1);
            tracing::error!(
                key = %wanted.key.text(),
                tags = %wanted.names.join(" "),
                "an answer in the cache is not what the primary answers: it is dropped, with all that depends on the same"
            );
            cache.store.remove(&wanted.key);
            // The first is that of everything.
            let names: Names = wanted.names.iter().skip(1).cloned().collect();
            if cache.touch(names).await.is_err() {
                tracing::warn!("Redis was not told that an answer is not what the primary answers");
            }
        }));
    }

    /// A write begins: nothing that depends on these tags is given before it is over.
    pub fn mark(self: &Arc<Cache>, names: Names) -> Mark {
        if let Level::Process(tags) = &self.level {
            tags.mark(&names);
        }
        Mark {
            cache: Arc::clone(self),
            names,
            writer: None,
            told: 0,
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

/// Where nothing is given that is not fresh, whoever asks shortly before the end may be the one to read it anew:
/// the sooner, the longer that took the last time (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic
/// Cache Stampede Prevention). `chance` is above 0 and up to 1.
fn serve(entry: &Entry, wanted: &Wanted, now: u64, chance: f64) -> Served {
    let age = Duration::from_millis(now.saturating_sub(entry.born));
    if age <= wanted.fresh && age <= wanted.limit {
        let early = entry.cost.as_secs_f64() * -chance.ln();
        let early = Duration::try_from_secs_f64(early).unwrap_or_default();
        let is_early = wanted.limit <= wanted.fresh && age.saturating_add(early) > wanted.limit;
        if is_early && entry.refreshes(age) {
            Served::Refresh
        } else {
            Served::Fresh
        }
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
    /// The number that Redis knows it by.
    writer: Option<u64>,
    /// How many of the names Redis was told of.
    told: usize,
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
        let new: Names = self.names.iter().skip(self.told).cloned().collect();
        let told = match self.writer {
            Some(writer) => link.mark_more(writer, new, &self.names).await,
            None => link.mark(&self.names).await.map(|writer| {
                self.writer = Some(writer);
            }),
        };
        if told.is_ok() {
            self.told = self.names.len();
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
        if let Some(missed) = self.missed.take() {
            // What was given and kept since may be older than this write.
            link.miss(&missed);
        }
        let over = match self.writer.take() {
            Some(writer) => link.bump(writer, &names).await,
            None => link.touch(&names).await,
        };
        if over.is_err() {
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
                if let Some(writer) = self.writer {
                    link.forget(writer);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::counts::TableCounts;
    use super::key::Key;
    use super::store::{Entry, Stored};
    use super::{Served, Wanted, serve};

    fn wanted(fresh: u64, limit: u64) -> Wanted {
        Wanted {
            key: Key::of(&[]),
            names: Box::default(),
            fresh: Duration::from_millis(fresh),
            limit: Duration::from_millis(limit),
            counts: Arc::default(),
        }
    }

    fn entry(cost: u64) -> Entry {
        let stored = Stored {
            seen: Box::default(),
            born: 0,
            cost: Duration::from_millis(cost),
            frames: Box::default(),
        };
        Entry::new(stored, Arc::<TableCounts>::default())
    }

    #[test]
    fn what_takes_long_is_read_anew_before_it_ends() {
        let bounded = wanted(1_000, 1_000);
        // One in e asks for a read that took 100 ms 100 ms before its end, or earlier.
        let chance = (-1.0_f64).exp();
        assert_eq!(serve(&entry(100), &bounded, 899, chance), Served::Fresh);
        let slow = entry(100);
        assert_eq!(serve(&slow, &bounded, 901, chance), Served::Refresh);
        // One at a time.
        assert_eq!(serve(&slow, &bounded, 902, chance), Served::Fresh);
        assert_eq!(serve(&entry(100), &bounded, 901, 1.0), Served::Fresh);
        assert_eq!(serve(&entry(0), &bounded, 1_000, chance), Served::Fresh);
        assert_eq!(serve(&entry(0), &bounded, 1_001, chance), Served::Old);
        // What may be given while it is read anew is, from then on.
        let cached = wanted(1_000, 2_000);
        let slow = entry(100);
        assert_eq!(serve(&slow, &cached, 999, chance), Served::Fresh);
        assert_eq!(serve(&slow, &cached, 1_001, chance), Served::Refresh);
        assert_eq!(serve(&slow, &cached, 1_002, chance), Served::Stale);
        assert_eq!(serve(&slow, &cached, 2_001, chance), Served::Old);
    }
}
