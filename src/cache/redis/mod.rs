//! Redis, where several proxies keep answers and tags together. Questions of all clients travel together: a
//! few workers gather what waits, and ask it in one go.
//!
//! All keys begin with the deployment's name and the identity of the Redis process: what a restarted or
//! another server holds is nobody's.

mod breaker;
mod scripts;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bb8_redis::RedisConnectionManager;
use bb8_redis::bb8::Pool;
use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{self, Pipeline, RedisError, RedisResult, Value};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{mpsc, oneshot};

use super::key::Key;
use super::store::Stored;
use super::{FOLLOW, LEASE, Names};
use breaker::Breaker;
use scripts::Scripts;

/// Questions that wait for a worker; more are not asked.
const WAITING_MAX: usize = 10_000;
/// Questions that travel together.
const TOGETHER_MAX: usize = 128;
/// Workers, each with a connection.
const WORKERS: usize = 2;
/// How often marks, and writes that Redis was not told of, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How old marks are when they are renewed.
const RENEW_AFTER: Duration = Duration::from_secs(8);
/// How long, in ms, nothing is taken from it after it was away: other proxies that wrote meanwhile notice that
/// it is back within that time, and make up for it.
const QUIET: u64 = 3_000;
/// How many times longer a write waits for Redis than a read: one that Redis does not hear of costs everything
/// that is kept.
const PATIENCE: u32 = 10;
/// The version of what answers look like in Redis.
const FORMAT: u8 = 2;

/// Redis could not be reached in time, or is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

/// What a tag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Missing,
    /// It is being written.
    Pending,
    Value(u128),
}

impl Tag {
    fn read(value: &Value) -> Tag {
        let Value::BulkString(bytes) = value else {
            return Tag::Missing;
        };
        match <[u8; 16]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Tag::Value(u128::from_be_bytes(bytes)),
            Err(_) => Tag::Pending,
        }
    }
}

/// What Redis has at one moment.
#[derive(Debug)]
pub struct Seen {
    /// Its clock, in ms.
    pub now: u64,
    pub tags: Vec<Tag>,
    pub entry: Option<Stored>,
    /// Whoever asked is to read the answer, under this number; others wait for it.
    pub lock: Option<u64>,
}

/// An answer as Redis has it.
fn write_stored(stored: &Stored) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(stored.frames.len().saturating_add(64));
    bytes.push(FORMAT);
    let count = u16::try_from(stored.seen.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&count.to_be_bytes());
    for value in &stored.seen {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    bytes.extend_from_slice(&stored.born.to_be_bytes());
    let cost = u32::try_from(stored.cost.as_millis()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&cost.to_be_bytes());
    bytes.extend_from_slice(&stored.frames);
    bytes
}

fn read_stored(bytes: &[u8]) -> Option<Stored> {
    let (format, rest) = bytes.split_first()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*count)).saturating_mul(16);
    let (values, rest) = rest.split_at_checked(length)?;
    let (values, _) = values.as_chunks::<16>();
    let (born, rest) = rest.split_first_chunk::<8>()?;
    let (cost, frames) = rest.split_first_chunk::<4>()?;
    (*format == FORMAT).then(|| Stored {
        seen: values
            .iter()
            .map(|value| u128::from_be_bytes(*value))
            .collect(),
        born: u64::from_be_bytes(*born),
        cost: Duration::from_millis(u64::from(u32::from_be_bytes(*cost))),
        frames: frames.into(),
    })
}

/// One question.
#[derive(Debug)]
struct Question {
    kind: Kind,
    answer: oneshot::Sender<Result<Vec<Value>, Unreachable>>,
}

#[derive(Debug)]
enum Kind {
    /// The answer, if it is asked for, and the tags.
    Look(Option<Key>, Names),
    /// The tags, and whether whoever asks is the first that wants to read the answer.
    Capture(Option<Key>, u64, Names),
    Release(Key, u64),
    Fill {
        key: Key,
        who: u64,
        names: Names,
        payload: Vec<u8>,
        seen: Box<[u128]>,
        /// In ms.
        keep: u64,
    },
    Mark(u64, Names),
    Bump(u64, Names),
}

/// Marks in Redis that count, by writer: since when, and of what.
type Live = Mutex<HashMap<u64, (Instant, Names)>>;

/// The way to Redis.
#[derive(Debug)]
pub struct Link {
    questions: mpsc::Sender<Question>,
    breaker: Breaker,
    began: Instant,
    timeout: Duration,
    writers: AtomicU64,
    live: Live,
    /// Names of the tags of everything, of databases that were written while Redis was out of reach.
    missed: Mutex<BTreeSet<Box<str>>>,
    has_missed: AtomicBool,
    /// Until when nothing is taken from it, in ms: others may not have noticed yet that it is back.
    quiet_until: Arc<AtomicU64>,
    runtime: tokio::runtime::Handle,
}

impl Link {
    /// The way to the server of a URL; whether it answers shows later.
    ///
    /// # Errors
    /// The URL is none.
    pub fn open(
        name: &str,
        url: &str,
        timeout: Duration,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Arc<Link>, RedisError> {
        let manager = RedisConnectionManager::new(url)?;
        let (questions, waiting) = mpsc::channel(WAITING_MAX);
        let (began, quiet_until) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut first = [0; 8];
        if SystemRandom::new().fill(&mut first).is_err() {
            tracing::warn!("no random numbers: marks in Redis may be taken for another proxy's");
        }
        let link = Arc::new(Link {
            questions,
            breaker: Breaker::default(),
            began,
            timeout,
            writers: AtomicU64::new(u64::from_ne_bytes(first)),
            live: Live::default(),
            missed: Mutex::default(),
            has_missed: AtomicBool::new(false),
            quiet_until: Arc::clone(&quiet_until),
            runtime: runtime.clone(),
        });
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        let pool = Pool::builder()
            .max_size(u32::try_from(WORKERS).unwrap_or(1))
            .connection_timeout(timeout.max(CONNECT))
            .build_unchecked(manager);
        for _ in 0..WORKERS {
            let worker = Worker {
                pool: pool.clone(),
                waiting: Arc::clone(&waiting),
                timeout: timeout.saturating_mul(PATIENCE),
                name: name.to_owned(),
                values: Values::new(),
                began,
                quiet_until: Arc::clone(&quiet_until),
            };
            drop(runtime.spawn(worker.run()));
        }
        let keeper = Arc::downgrade(&link);
        drop(runtime.spawn(async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(link) = keeper.upgrade() else {
                    return;
                };
                // What was missed is made up for as soon as that can be.
                if link.catch_up().await.is_err() || !link.is_back().await {
                    continue;
                }
                link.renew().await;
            }
        }));
        Ok(link)
    }

    /// Where its work is done.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }

    fn now(&self) -> u64 {
        since(self.began)
    }

    /// Whether it is too early to take anything from it.
    fn is_quiet(&self) -> bool {
        self.now() < self.quiet_until.load(Ordering::Acquire)
    }

    /// Whether it is asked as usual.
    pub fn is_up(&self) -> bool {
        self.breaker.is_closed() && !self.has_missed.load(Ordering::Acquire)
    }

    async fn ask(&self, kind: Kind) -> Result<Vec<Value>, Unreachable> {
        if !self.breaker.allows(self.now()) {
            return Err(Unreachable);
        }
        self.ask_anyway(kind).await
    }

    /// The same however it has failed before.
    async fn ask_anyway(&self, kind: Kind) -> Result<Vec<Value>, Unreachable> {
        let limit = match kind {
            Kind::Look(..) | Kind::Capture(..) | Kind::Release(..) | Kind::Fill { .. } => {
                self.timeout
            }
            Kind::Mark(..) | Kind::Bump(..) => self.timeout.saturating_mul(PATIENCE),
        };
        let (answer, told) = oneshot::channel();
        let result = match self.questions.try_send(Question { kind, answer }) {
            Ok(()) => match tokio::time::timeout(limit, told).await {
                Ok(Ok(told)) => told,
                Ok(Err(_)) | Err(_) => Err(Unreachable),
            },
            Err(_full) => Err(Unreachable),
        };
        match &result {
            Ok(_) => {
                if self.breaker.succeeded() {
                    self.quiet_until
                        .fetch_max(self.now().saturating_add(QUIET), Ordering::AcqRel);
                    tracing::info!("Redis answers again");
                }
            }
            Err(Unreachable) => {
                if self.breaker.failed(self.now()) {
                    tracing::warn!("Redis does not answer: the cache is passed by");
                }
            }
        }
        result
    }

    /// What was written while Redis was out of reach is made up for, before anything is taken from it.
    async fn catch_up(&self) -> Result<(), Unreachable> {
        if !self.has_missed.load(Ordering::Acquire) {
            return Ok(());
        }
        let names: Names = {
            let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
            missed.iter().cloned().collect()
        };
        let writer = self.writers.fetch_add(1, Ordering::Relaxed);
        self.ask_anyway(Kind::Bump(writer, names.clone())).await?;
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            missed.remove(name);
        }
        if missed.is_empty() {
            self.has_missed.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Whether it answers, if it did not before.
    async fn is_back(&self) -> bool {
        self.breaker.is_closed()
            || self
                .ask_anyway(Kind::Look(None, Names::default()))
                .await
                .is_ok()
    }

    /// A database was written and Redis could not be told: `all` is the name of its tag of everything.
    pub fn miss(&self, all: &str) {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        missed.insert(all.into());
        self.has_missed.store(true, Ordering::Release);
    }

    /// What tags are now, and an answer if it is asked for.
    ///
    /// # Errors
    /// Redis did not answer in time.
    pub async fn look(&self, key: Option<Key>, names: &Names) -> Result<Seen, Unreachable> {
        if self.is_quiet() || self.has_missed.load(Ordering::Acquire) {
            return Err(Unreachable);
        }
        let wants = key.is_some();
        let values = self.ask(Kind::Look(key, names.clone())).await?;
        let mut values = values.into_iter();
        let now = time_of(&values.next().ok_or(Unreachable)?)?;
        let mut found = match values.next() {
            Some(Value::Array(found)) => found.into_iter(),
            Some(_) | None => return Err(Unreachable),
        };
        let entry = match found.next().filter(|_| wants) {
            Some(Value::BulkString(bytes)) => read_stored(&bytes),
            Some(_) | None => None,
        };
        let tags: Vec<Tag> = found.map(|value| Tag::read(&value)).collect();
        if tags.len() != names.len() {
            return Err(Unreachable);
        }
        Ok(Seen {
            now,
            tags,
            entry,
            lock: None,
        })
    }

    /// What tags are now, those made that are not there; and whether the caller is to read an answer that depends
    /// on them: none where others wait for the one that does, for a while.
    ///
    /// # Errors
    /// Redis did not answer in time.
    pub async fn capture(&self, key: Option<Key>, names: &Names) -> Result<Seen, Unreachable> {
        let who = self.writers.fetch_add(1, Ordering::Relaxed);
        let values = self.ask(Kind::Capture(key, who, names.clone())).await?;
        let Some(Value::Array(found)) = values.into_iter().next() else {
            return Err(Unreachable);
        };
        let mut found = found.into_iter();
        let now = match found.next() {
            Some(Value::Int(now)) => u64::try_from(now).map_err(|_negative| Unreachable)?,
            Some(_) | None => return Err(Unreachable),
        };
        let leads = matches!(found.next(), Some(Value::Int(1)));
        let tags: Vec<Tag> = found.map(|value| Tag::read(&value)).collect();
        if tags.len() != names.len() {
            return Err(Unreachable);
        }
        Ok(Seen {
            now,
            tags,
            entry: None,
            lock: leads.then_some(who),
        })
    }

    /// An answer is not read any more, or not kept: others need not wait.
    pub async fn release(&self, key: Key, who: u64) {
        // Where that is not told, they wait their time.
        if self.ask(Kind::Release(key, who)).await.is_err() {
            tracing::debug!("Redis was not told that an answer is not read any more");
        }
    }

    /// Keeps an answer, if its tags are what they were. `who`: by whom it was to be read. Returns whether they were.
    ///
    /// # Errors
    /// Redis did not answer in time.
    pub async fn fill(
        &self,
        key: Key,
        names: Names,
        stored: &Stored,
        keep: Duration,
        who: Option<u64>,
    ) -> Result<bool, Unreachable> {
        let payload = write_stored(stored);
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX).max(1);
        let values = self
            .ask(Kind::Fill {
                key,
                who: who.unwrap_or(0),
                names,
                payload,
                seen: stored.seen.clone(),
                keep,
            })
            .await?;
        Ok(matches!(values.first(), Some(Value::Int(1))))
    }

    /// A write begins. Returns its number; it is renewed until [`Link::bump`] or [`Link::forget`].
    ///
    /// # Errors
    /// Redis did not answer in time; whether the tags are marked is not known.
    pub async fn mark(&self, names: &Names) -> Result<u64, Unreachable> {
        let writer = self.writers.fetch_add(1, Ordering::Relaxed);
        self.ask(Kind::Mark(writer, names.clone())).await?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.insert(writer, (Instant::now(), names.clone()));
        Ok(writer)
    }

    /// A write touches these too; `all` is what it touches now.
    ///
    /// # Errors
    /// Redis did not answer in time; whether the tags are marked is not known.
    pub async fn mark_more(
        &self,
        writer: u64,
        names: Names,
        all: &Names,
    ) -> Result<(), Unreachable> {
        self.ask(Kind::Mark(writer, names)).await?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = live.get_mut(&writer) {
            known.clone_from(all);
        }
        Ok(())
    }

    /// A write is over.
    ///
    /// # Errors
    /// Redis did not answer in time: the tags stay marked until their time is up.
    pub async fn bump(&self, writer: u64, names: &Names) -> Result<(), Unreachable> {
        self.forget(writer);
        self.ask(Kind::Bump(writer, names.clone())).await?;
        Ok(())
    }

    /// Something was written that was not marked.
    ///
    /// # Errors
    /// Redis did not answer in time.
    pub async fn touch(&self, names: &Names) -> Result<(), Unreachable> {
        let writer = self.writers.fetch_add(1, Ordering::Relaxed);
        self.ask(Kind::Bump(writer, names.clone())).await?;
        Ok(())
    }

    /// A mark is not renewed any more.
    pub fn forget(&self, writer: u64) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.remove(&writer);
    }

    async fn renew(&self) {
        let due: Vec<(u64, Names)> = {
            let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            let due = live.iter();
            due.filter(|(_, (since, _))| since.elapsed() > RENEW_AFTER)
                .map(|(writer, (_, names))| (*writer, names.clone()))
                .collect()
        };
        for (writer, names) in due {
            if self.ask(Kind::Mark(writer, names)).await.is_ok() {
                let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, _)) = live.get_mut(&writer) {
                    *since = Instant::now();
                }
            }
        }
    }
}

/// Milliseconds since then.
fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// How long a connection may take to be made, at least.
const CONNECT: Duration = Duration::from_millis(500);

fn time_of(value: &Value) -> Result<u64, Unreachable> {
    let part = |value: &Value| {
        let Value::BulkString(digits) = value else {
            return None;
        };
        std::str::from_utf8(digits).ok()?.parse::<u64>().ok()
    };
    let Value::Array(parts) = value else {
        return Err(Unreachable);
    };
    let [seconds, micros] = parts.as_slice() else {
        return Err(Unreachable);
    };
    let (seconds, micros) = part(seconds).zip(part(micros)).ok_or(Unreachable)?;
    Ok(seconds.saturating_mul(1_000).saturating_add(micros / 1_000))
}

/// Asks what waits.
struct Worker {
    pool: Pool<RedisConnectionManager>,
    waiting: Arc<tokio::sync::Mutex<mpsc::Receiver<Question>>>,
    timeout: Duration,
    name: String,
    /// `None` where there are no random numbers: then nothing is asked.
    values: Option<Values>,
    began: Instant,
    quiet_until: Arc<AtomicU64>,
}

/// Values that no tag has had: they count from a random number.
#[derive(Debug)]
struct Values(u128);

impl Values {
    fn new() -> Option<Values> {
        let mut first = [0; 16];
        SystemRandom::new().fill(&mut first).ok()?;
        Some(Values(u128::from_be_bytes(first)))
    }

    fn next(&mut self) -> [u8; 16] {
        self.0 = self.0.wrapping_add(1);
        self.0.to_be_bytes()
    }
}

/// A connection that is ready, what keys begin with there, and what the scripts are called.
#[derive(Clone, Debug)]
struct Connected {
    connection: MultiplexedConnection,
    prefix: String,
    scripts: Scripts,
}

impl Worker {
    async fn run(mut self) {
        let mut questions = Vec::with_capacity(TOGETHER_MAX);
        let mut was_connected = false;
        'connect: loop {
            let connected = tokio::time::timeout(CONNECT, self.connect());
            let mut connected = connected.await.unwrap_or_default();
            if std::mem::replace(&mut was_connected, true) {
                let until = since(self.began).saturating_add(QUIET);
                self.quiet_until.fetch_max(until, Ordering::AcqRel);
            }
            loop {
                let taken = {
                    let mut waiting = self.waiting.lock().await;
                    waiting.recv_many(&mut questions, TOGETHER_MAX).await
                };
                if taken == 0 {
                    return;
                }
                questions.retain(|question| !question.answer.is_closed());
                let (Some(connected), Some(values)) = (&mut connected, &mut self.values) else {
                    for question in questions.drain(..) {
                        drop(question.answer.send(Err(Unreachable)));
                    }
                    continue 'connect;
                };
                let asked = connected.ask(values, self.timeout, &mut questions).await;
                if asked.is_err() {
                    continue 'connect;
                }
            }
        }
    }

    /// A connection that is ready.
    async fn connect(&self) -> Option<Connected> {
        let asked = async {
            let mut connection = self.pool.dedicated_connection().await?;
            let scripts = Scripts::load(&mut connection).await?;
            let mut info = redis::cmd("INFO");
            info.arg("server");
            let info: String = info.query_async(&mut connection).await?;
            Ok::<_, RedisError>((connection, scripts, info))
        };
        let (connection, scripts, info) = match asked.await {
            Ok(asked) => asked,
            Err(error) => {
                tracing::debug!(%error, "Redis cannot be asked");
                return None;
            }
        };
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"))?;
        let run: String = run.trim().chars().take(16).collect();
        Some(Connected {
            connection,
            prefix: format!("{}:{run}:", self.name),
            scripts,
        })
    }
}

impl Connected {
    /// Asks some questions together, and hands the answers out.
    async fn ask(
        &mut self,
        values: &mut Values,
        timeout: Duration,
        questions: &mut Vec<Question>,
    ) -> Result<(), Unreachable> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        pipeline.cmd("TIME");
        for question in questions.iter() {
            self.add(&mut pipeline, values.next(), &question.kind);
        }
        let asked = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut self.connection);
        let answers = match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(answers)) if answers.len() == questions.len().saturating_add(1) => answers,
            Ok(Ok(_) | Err(_)) | Err(_) => {
                for question in questions.drain(..) {
                    drop(question.answer.send(Err(Unreachable)));
                }
                return Err(Unreachable);
            }
        };
        let mut answers = answers.into_iter();
        let time = answers.next().and_then(Result::ok).unwrap_or(Value::Nil);
        let mut lost = false;
        for (question, answer) in questions.drain(..).zip(answers) {
            let answer = match answer {
                Ok(value) => match question.kind {
                    Kind::Look(..) => Ok(vec![time.clone(), value]),
                    Kind::Capture(..)
                    | Kind::Release(..)
                    | Kind::Fill { .. }
                    | Kind::Mark(..)
                    | Kind::Bump(..) => Ok(vec![value]),
                },
                Err(error) => {
                    tracing::debug!(%error, "Redis refuses");
                    // A script that is gone, or a server that takes no writes.
                    lost = true;
                    Err(Unreachable)
                }
            };
            drop(question.answer.send(answer));
        }
        if lost { Err(Unreachable) } else { Ok(()) }
    }

    fn add(&self, pipeline: &mut Pipeline, fresh: [u8; 16], kind: &Kind) {
        let prefix = &self.prefix;
        let tag = |name: &str| format!("{prefix}v:{name}");
        let call = |pipeline: &mut Pipeline, script: &str, keys: &[String], arguments: &[&[u8]]| {
            let command = pipeline.cmd("EVALSHA").arg(script).arg(keys.len());
            for key in keys {
                command.arg(key);
            }
            for argument in arguments {
                command.arg(*argument);
            }
        };
        let lock = |key: Option<&Key>| match key {
            Some(key) => format!("{prefix}l:{}", key.text()),
            None => format!("{prefix}l:-"),
        };
        let with_writers = |names: &Names| -> Vec<String> {
            let tags = names.iter().map(|name| tag(name));
            let writers = names.iter().map(|name| format!("{prefix}m:{name}"));
            tags.chain(writers).collect()
        };
        match kind {
            Kind::Look(key, names) => {
                let command = pipeline.cmd("MGET");
                let entry = key.map_or_else(|| "-".to_owned(), |key| key.text());
                command.arg(format!("{prefix}c:{entry}"));
                for name in names {
                    command.arg(tag(name));
                }
            }
            Kind::Capture(key, who, names) => {
                let mut keys = vec![lock(key.as_ref())];
                keys.extend(with_writers(names));
                let (who, wait) = (who.to_string(), FOLLOW.as_millis().to_string());
                let arguments = [fresh.as_slice(), who.as_bytes(), wait.as_bytes()];
                call(pipeline, &self.scripts.capture, &keys, &arguments);
            }
            Kind::Release(key, who) => {
                let keys = [lock(Some(key))];
                let who = who.to_string();
                call(pipeline, &self.scripts.release, &keys, &[who.as_bytes()]);
            }
            Kind::Fill {
                key,
                who,
                names,
                payload,
                seen,
                keep,
            } => {
                let mut keys = vec![format!("{prefix}c:{}", key.text()), lock(Some(key))];
                let who = who.to_string();
                keys.extend(names.iter().map(|name| tag(name)));
                let keep = keep.to_string();
                let values: Vec<[u8; 16]> = seen.iter().map(|value| value.to_be_bytes()).collect();
                let mut arguments: Vec<&[u8]> = vec![payload, keep.as_bytes(), who.as_bytes()];
                arguments.extend(values.iter().map(<[u8; 16]>::as_slice));
                call(pipeline, &self.scripts.fill, &keys, &arguments);
            }
            Kind::Mark(writer, names) => {
                let (writer, lease) = (writer.to_string(), LEASE.as_millis().to_string());
                let arguments = [writer.as_bytes(), lease.as_bytes(), &fresh];
                call(
                    pipeline,
                    &self.scripts.mark,
                    &with_writers(names),
                    &arguments,
                );
            }
            Kind::Bump(writer, names) => {
                let writer = writer.to_string();
                let arguments = [writer.as_bytes(), &fresh];
                call(
                    pipeline,
                    &self.scripts.bump,
                    &with_writers(names),
                    &arguments,
                );
            }
        }
    }
}
