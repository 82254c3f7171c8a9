//! One engine: a thread with its clients, its pools and its plans; and what all engines share.
//!
//! Nothing of an engine crosses a thread. What is shared is small: the snapshot of the configuration,
//! the budgets of connections, the cancel keys, and each database's catalog with its epoch.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use foldhash::fast::FixedState;
use tokio::sync::{mpsc, oneshot};

use crate::cache::Cache;
use crate::cache::key::Key;
use crate::config::{self, Config, Limits, PoolMode, Twin};
use crate::control::Control;
use crate::control::gate::Gate;
use crate::error::Fault;
use crate::metrics::counters::EngineCounters;
use crate::metrics::view::{Detail, Snapshot as View};
use crate::placement::ShardId;
use crate::placement::catalog::Catalog;
use crate::placement::topology::Topology;
use crate::planner::cache::Tag;
use crate::planner::memo::Memo;
use crate::server::pool::Pool;
use crate::server::statements::Statements;
use crate::sql::mask::Masked;
use crate::tls::Tls;
use crate::transaction::decided::Decided;
use crate::transaction::recovery::{self, recover, resolve_one};
use crate::types::oids::Oids;
use crate::wire::cancel_key::CancelKey;

use super::auth::Keyring;
use super::client::Client;
use super::commit::TwoPhase;
use super::console::Console;
use super::deadlocks::{Report, Sentence, Wish};
use super::ids::IdBlocks;
use super::twins::Twins;

/// The configuration in force, made ready: immutable, replaced as a whole by a reload.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Arc<Config>,
    pub tls: Arc<Tls>,
    pub topologies: HashMap<String, Arc<Topology>>,
    pub control: Arc<Control>,
    /// Counts reloads.
    pub generation: u64,
}

/// What all engines know of one database.
#[derive(Debug, Default)]
pub struct SharedDatabase {
    pub catalog: ArcSwap<Catalog>,
    /// What the shards call the users' types.
    pub oids: ArcSwap<Oids>,
    /// Whether a shard calls none otherwise than the home shard: values need no look.
    pub oids_alike: AtomicBool,
    /// Held while they are read.
    reading_oids: tokio::sync::Mutex<()>,
    /// Changes when the schema may have changed.
    pub epoch: AtomicU32,
    pub paused: AtomicBool,
    pub disabled: AtomicBool,
    /// Numbers for ids, fetched ahead.
    pub ids: IdBlocks,
    /// Whether its shards can commit in two phases.
    pub two_phase: TwoPhase,
    /// What its commits in two phases hold while they are under way.
    pub gate: Arc<Gate>,
    /// What commits in two phases have left to be done.
    pub decided: Arc<Decided>,
    /// Whether deadlocks over several shards are to be looked for.
    pub deadlocks: Arc<Wish>,
    /// Where queries over several shards are finished.
    pub twins: Arc<Twins>,
    /// What the twins call the users' types.
    pub oids_of_twins: ArcSwap<Oids>,
    /// Held while those are read.
    pub(super) reading_oids_of_twins: tokio::sync::Mutex<()>,
}

impl SharedDatabase {
    /// Whether the catalog was read since the schema last changed, as far as is known.
    pub fn catalog_is_current(&self) -> bool {
        self.catalog.load().epoch == u64::from(self.epoch.load(Ordering::Acquire))
    }

    /// The schema has changed or may have: plans and prepared statements are made anew, the catalog
    /// is read again.
    pub fn schema_changed(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.twins.ask();
    }

    /// Makes a catalog the one in force that was read when the epoch was `before`.
    fn take(&self, mut catalog: Catalog, before: u32) {
        let last = self.epoch.fetch_add(1, Ordering::AcqRel);
        // It is not of today if the schema changed while it was read.
        let epoch = if last == before {
            last.wrapping_add(1)
        } else {
            before
        };
        catalog.epoch = u64::from(epoch);
        self.catalog.store(Arc::new(catalog));
    }
}

/// How long a shard may take to say what its types are marked with.
const MARK_WAIT: Duration = Duration::from_secs(1);

/// What an engine is told.
#[derive(Debug)]
pub enum Message {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// A cancel request with a good key, for this client.
    Cancel {
        client: u64,
        done: oneshot::Sender<()>,
    },
    /// A new snapshot is in force.
    Reload,
    View {
        detail: Detail,
        answer: oneshot::Sender<View>,
    },
    Pause {
        database: Option<String>,
        paused: bool,
    },
    Reconnect {
        database: Option<String>,
    },
    /// Close clients and connections at once.
    Kill {
        database: Option<String>,
        fault: Fault,
    },
    KillClient {
        client: u64,
        answer: oneshot::Sender<bool>,
    },
    /// Close one idle connection of this user on this shard: another engine starves.
    Donate {
        database: String,
        user: String,
        shard: ShardId,
    },
    /// Who holds connections of a database and has waited for longer than `after`.
    Waits {
        database: String,
        after: Duration,
        answer: oneshot::Sender<Report>,
    },
    /// A client is ended, if it still waits as it did: it is in a deadlock.
    Sentence {
        sentence: Box<Sentence>,
        answer: oneshot::Sender<bool>,
    },
    /// The engine ends.
    End,
}

/// How far the end has come.
pub const RUNNING: u8 = 0;
/// New clients are refused.
pub const DRAINING: u8 = 1;
/// Also, clients are closed as they become idle.
pub const STOPPING: u8 = 2;

/// What all engines share.
#[derive(Debug)]
pub struct Shared {
    pub snapshot: ArcSwap<Snapshot>,
    pub keyring: Keyring,
    /// Answers that are kept for others.
    pub cache: Arc<Cache>,
    pub console: OnceLock<Arc<dyn Console>>,
    pub engines: OnceLock<Vec<mpsc::Sender<Message>>>,
    /// Runs what is not the data path.
    pub control_runtime: tokio::runtime::Handle,
    pub stage: AtomicU8,
    /// When it was made.
    pub started: (Instant, SystemTime),
    /// Clients logged in or logging in, in all engines.
    pub clients: AtomicUsize,
    ids: AtomicU64,
    pids: AtomicU32,
    budgets: Mutex<HashMap<String, Arc<AtomicUsize>>>,
    keys: Mutex<HashMap<i32, (CancelKey, usize, u64)>>,
    databases: Mutex<HashMap<String, Arc<SharedDatabase>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// What engines share at the start: running, with nobody connected.
    pub fn new(
        snapshot: Snapshot,
        keyring: Keyring,
        control_runtime: tokio::runtime::Handle,
    ) -> Arc<Shared> {
        let config = &snapshot.config;
        let cache = Cache::new(&config.name, &config.cache, &control_runtime);
        Arc::new(Shared {
            cache: Arc::new(cache),
            snapshot: ArcSwap::from_pointee(snapshot),
            keyring,
            console: OnceLock::new(),
            engines: OnceLock::new(),
            control_runtime,
            stage: AtomicU8::new(RUNNING),
            started: (Instant::now(), SystemTime::now()),
            clients: AtomicUsize::new(0),
            ids: AtomicU64::new(1),
            pids: AtomicU32::new(1),
            budgets: Mutex::default(),
            keys: Mutex::default(),
            databases: Mutex::default(),
        })
    }

    /// All that is kept of a database is dropped: it may mean something else now.
    ///
    /// # Cancel safety
    /// Safe: it is dropped or not.
    pub async fn drop_answers(&self, name: &str) {
        let all = format!("{name}:{}", Tag::All).into_boxed_str();
        if self.cache.touch(Box::from([all])).await.is_err() {
            tracing::debug!(database = %name, "Redis could not be told of a change of the schema");
        }
    }

    /// Ends what of a database was left prepared and is older than `age`; what was read before is not given from
    /// the cache any more.
    ///
    /// # Cancel safety
    /// Safe: what was done stays, and the next look does the rest. What is kept may be old up to its `ttl`.
    pub async fn recover(&self, name: &str, age: Duration) -> recovery::Report {
        let snapshot = self.snapshot.load_full();
        let report = recover(&snapshot.control, &snapshot.config.name, name, age).await;
        if report.recovered > 0 {
            self.drop_answers(name).await;
        }
        report
    }

    /// The same for one prepared transaction, as a person says. Returns whether there was one of this name.
    ///
    /// # Errors
    /// Those of [`resolve_one`].
    ///
    /// # Cancel safety
    /// As above.
    pub async fn resolve_one(&self, name: &str, gid: &str, commits: bool) -> Result<bool, Fault> {
        let snapshot = self.snapshot.load_full();
        let (control, deployment) = (&snapshot.control, &snapshot.config.name);
        let was_there = resolve_one(control, deployment, name, gid, commits).await?;
        if was_there {
            self.drop_answers(name).await;
        }
        Ok(was_there)
    }

    /// A number that no other client or connection of this process has.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// A process id for the cancel key of a client; never 0.
    pub fn next_pid(&self) -> i32 {
        let pid = self.pids.fetch_add(1, Ordering::Relaxed) & 0x3fff_ffff;
        i32::try_from(pid).unwrap_or(1).max(1)
    }

    /// The counter of connections with this name.
    pub fn budget(&self, name: &str) -> Arc<AtomicUsize> {
        let mut budgets = locked(&self.budgets);
        if let Some(counter) = budgets.get(name) {
            return Arc::clone(counter);
        }
        let counter = Arc::new(AtomicUsize::new(0));
        budgets.insert(name.to_owned(), Arc::clone(&counter));
        counter
    }

    /// What is known of a database; made on first use.
    pub fn database(&self, name: &str) -> Arc<SharedDatabase> {
        Arc::clone(locked(&self.databases).entry(name.to_owned()).or_default())
    }

    /// Remembers where a client can be found by its cancel key.
    pub fn add_key(&self, key: CancelKey, engine: usize, client: u64) {
        locked(&self.keys).insert(key.pid(), (key, engine, client));
    }

    /// Forgets a cancel key: its client has left.
    pub fn remove_key(&self, pid: i32) {
        locked(&self.keys).remove(&pid);
    }

    /// The engine and the client of a cancel request, if its key is right.
    pub fn find_key(&self, pid: i32, secret: &[u8]) -> Option<(usize, u64)> {
        locked(&self.keys)
            .get(&pid)
            .filter(|(key, ..)| key.matches(pid, secret))
            .map(|(_, engine, client)| (*engine, *client))
    }

    /// Reads the catalog of a database's home shard and makes it the one in force.
    ///
    /// # Errors
    /// Why the home shard could not be asked; the old catalog stays.
    ///
    /// # Cancel safety
    /// Safe: the old catalog stays.
    pub async fn refresh_catalog(self: &Arc<Shared>, name: &str) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        let database = self.database(name);
        let before = database.epoch.load(Ordering::Acquire);
        let catalog = snapshot.control.introspect(name).await?;
        database.take(catalog, before);
        self.refresh_oids(name, None).await
    }

    /// Reads what the shards call the users' types, unless that was done since the reading `seen`.
    ///
    /// # Errors
    /// Why the home shard could not be asked; what was known stays. Of another shard that does not answer,
    /// too.
    ///
    /// # Cancel safety
    /// Safe: what was known stays.
    pub async fn refresh_oids(
        self: &Arc<Shared>,
        name: &str,
        seen: Option<u64>,
    ) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        let (home, others) = snapshot.control.home_and_others(name)?;
        let database = self.database(name);
        if others.is_empty() {
            database.oids_alike.store(true, Ordering::Release);
            return Ok(());
        }
        let _reading = database.reading_oids.lock().await;
        let known = database.oids.load_full();
        if seen.is_some_and(|seen| seen != known.version) {
            return Ok(());
        }
        let read = |shard: &String| {
            let (shard, name) = (shard.clone(), name.to_owned());
            let control = Arc::clone(&snapshot.control);
            self.control_runtime
                .spawn(async move { control.types(&name, &shard).await })
        };
        let under_way: Vec<_> = others.iter().map(read).collect();
        let at_home = snapshot.control.types(name, &home).await;
        let count = others.len();
        let mut found = Vec::with_capacity(count);
        for (shard, reading) in others.into_iter().zip(under_way) {
            let types = match reading.await {
                Ok(Ok(types)) => Some(types),
                Ok(Err(fault)) => {
                    tracing::warn!(database = %name, %shard, error = %fault, "could not read the types");
                    None
                }
                Err(error) => {
                    tracing::error!(database = %name, %shard, %error, "reading the types failed");
                    None
                }
            };
            found.push((shard, types));
        }
        let (at_home, told) = match at_home {
            Ok(types) => (Some(types), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let oids = known.read(snapshot.generation, at_home, found);
        let alike = oids.are_alike(count);
        database.oids.store(Arc::new(oids));
        database
            .oids_alike
            .store(alike && told.is_ok(), Ordering::Release);
        told
    }

    /// What the types of a database's shards are marked with. A shard that does not answer has no mark.
    async fn types_marks(self: &Arc<Shared>, name: &str) -> Result<String, Fault> {
        let snapshot = self.snapshot.load_full();
        let (home, mut shards) = snapshot.control.home_and_others(name)?;
        if shards.is_empty() {
            return Ok(String::new());
        }
        shards.push(home);
        let look = |shard: String| {
            let (control, name) = (Arc::clone(&snapshot.control), name.to_owned());
            self.control_runtime
                .spawn(async move { control.types_mark(&name, &shard).await })
        };
        let under_way: Vec<_> = shards.into_iter().map(look).collect();
        let mut marks = String::new();
        for look in under_way {
            let look = tokio::time::timeout(MARK_WAIT, look).await;
            if let Ok(Ok(Ok(mark))) = look {
                marks.push_str(&mark);
            }
            marks.push('/');
        }
        Ok(marks)
    }

    /// Reads the directories of a database that may have changed.
    ///
    /// # Errors
    /// Why one could not be read; what was known of it stays.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    pub async fn refresh_directories(&self, name: &str) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        match snapshot.topologies.get(name) {
            Some(topology) => snapshot.control.read_directories(topology).await,
            None => Ok(()),
        }
    }

    /// Reads the catalog again if the schema was changed past the proxy: if the home shard's catalogs are
    /// not marked as they were when `seen` was their mark. Returns the mark of now.
    ///
    /// # Errors
    /// Why the home shard could not be asked; the old catalog stays.
    ///
    /// # Cancel safety
    /// Safe: the old catalog stays.
    pub async fn notice_changes(
        self: &Arc<Shared>,
        name: &str,
        seen: Option<&str>,
    ) -> Result<String, Fault> {
        let snapshot = self.snapshot.load_full();
        let mark = snapshot.control.schema_mark(name).await?;
        self.database(name).twins.note_home(&mark);
        if seen == Some(mark.as_str()) {
            return Ok(mark);
        }
        self.compare_catalog(name).await?;
        Ok(mark)
    }

    /// The same for the types of all shards.
    ///
    /// # Errors
    /// Why the home shard could not be asked; what was known stays.
    ///
    /// # Cancel safety
    /// Safe: what was known stays.
    pub async fn notice_types(
        self: &Arc<Shared>,
        name: &str,
        seen: Option<&str>,
    ) -> Result<String, Fault> {
        let marks = self.types_marks(name).await?;
        if seen == Some(marks.as_str()) {
            return Ok(marks);
        }
        self.refresh_oids(name, None).await?;
        if seen.is_some() {
            self.compare_catalog(name).await?;
        }
        Ok(marks)
    }

    /// Reads the catalog, and makes it the one in force if it says something new.
    async fn compare_catalog(self: &Arc<Shared>, name: &str) -> Result<(), Fault> {
        let snapshot = self.snapshot.load_full();
        let database = self.database(name);
        let before = database.epoch.load(Ordering::Acquire);
        let catalog = snapshot.control.introspect(name).await?;
        // Plans and prepared statements stay where nothing changed that they depend on.
        if !database.catalog.load().says(&catalog) {
            tracing::info!(database = %name, "the schema was changed past the proxy");
            database.take(catalog, before);
        }
        Ok(())
    }
}
/// A database as one engine sees it: where it is, and what is memoised for it.
#[derive(Debug)]
pub struct Database {
    pub name: String,
    /// Its place in the engine's counters.
    pub index: usize,
    pub config: Arc<config::Database>,
    pub topology: Arc<Topology>,
    /// Numbered after the shards: twin 0 is the shard after the last.
    pub twins: Vec<Twin>,
    pub shared: Arc<SharedDatabase>,
    pub limits: Limits,
    /// What bounds reads that are finished on a twin.
    pub(crate) gather: config::Gather,
    /// Whether a transaction may write on several shards.
    pub(crate) two_phase: bool,
    /// Whether reads over several shards see each commit on several shards whole or not at all.
    pub(crate) consistent_reads: bool,
    /// Whose prepared transactions are ours.
    pub(crate) deployment: Rc<str>,
    pub generation: u64,
    pub(crate) memo: RefCell<Memo>,
    pub(crate) statements: RefCell<Statements>,
    /// The search paths seen of late; plans name them by their number.
    pub(crate) paths: RefCell<Paths>,
    /// The epoch that memo and statements were made in.
    pub(crate) planned_epoch: Cell<u32>,
    /// By user.
    pub(crate) pools: RefCell<HashMap<String, Pools, FixedState>>,
    /// What a server reports at login.
    pub(crate) greetings: RefCell<HashMap<Greeted, Rc<Greeting>, FixedState>>,
    /// What its answers are told apart by from those under another configuration.
    pub(crate) scope: OnceCell<[u8; 32]>,
}

/// Search paths and their numbers, none of which is given twice.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    known: Vec<(Vec<String>, u32)>,
    next: u32,
}

/// Search paths that a database knows the numbers of, at most; then all are numbered anew.
const PATHS_MAX: usize = 256;

impl Paths {
    /// The number of a path, the same for the same path as long as it is known.
    pub(crate) fn number(&mut self, path: &[String]) -> u32 {
        if let Some((_, number)) = self.known.iter().find(|(known, _)| known == path) {
            return *number;
        }
        if self.known.len() >= PATHS_MAX {
            self.known.clear();
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.known.push((path.to_vec(), number));
        number
    }
}

/// The pools of one user, one a shard.
pub(crate) type Pools = Rc<[Rc<Pool>]>;

/// Who is greeted: the user, the fingerprint of the startup settings, and the epoch of the schema, since
/// DDL may change what roles and databases set.
pub(crate) type Greeted = (String, u64, u32);

/// What a server says at login.
#[derive(Debug)]
pub(crate) struct Greeting {
    /// The ParameterStatus values, by name.
    pub(crate) parameters: Vec<(String, String)>,
    /// `search_path` as it is without a SET, whatever says so on the server.
    pub(crate) search_path: String,
    /// The role that `$user` in it means.
    pub(crate) role: String,
}

/// Greetings kept, at most; then all are asked anew.
pub(crate) const GREETINGS_MAX: usize = 1_000;

impl Database {
    /// What answers of this database under this configuration are told apart by from all others.
    pub(crate) fn cache_scope(&self) -> &[u8; 32] {
        self.scope.get_or_init(|| {
            let config = format!("{:?}", self.config);
            *Key::of(&[self.name.as_bytes(), config.as_bytes()]).bytes()
        })
    }

    /// The number that connections to a twin have among those of the shards.
    pub fn twin_id(&self, index: usize) -> ShardId {
        let number = self.config.shards.len().saturating_add(index);
        ShardId(u16::try_from(number).unwrap_or(u16::MAX))
    }

    /// The twin of such a number; `None` for a shard.
    pub fn twin_of(&self, shard: ShardId) -> Option<&Twin> {
        let index = usize::from(shard.0).checked_sub(self.config.shards.len())?;
        self.twins.get(index)
    }

    /// The name of a shard, or of a twin.
    pub fn name_of(&self, shard: ShardId) -> &str {
        match self.twin_of(shard) {
            Some(twin) => &twin.name,
            None => self.topology.name(shard),
        }
    }

    /// Whether the catalog was read since the schema last changed, as far as is known.
    pub fn catalog_is_current(&self) -> bool {
        self.shared.catalog_is_current()
    }

    /// The epoch of the schema.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// DDL is on its way: what is prepared from now on is prepared under another name.
    pub fn schema_may_change(&self) {
        self.shared.schema_changed();
    }

    /// DDL was carried out.
    pub fn schema_changed(&self) {
        self.shared.schema_changed();
    }

    /// The pool mode of a user here.
    pub fn pool_mode(&self, user: Option<&config::User>) -> PoolMode {
        user.and_then(|user| user.pool_mode)
            .or(self.config.pool_mode)
            .unwrap_or(self.limits.pool_mode)
    }
}

/// One engine.
#[derive(Debug)]
pub struct Engine {
    pub index: usize,
    pub shared: Arc<Shared>,
    pub snapshot: RefCell<Arc<Snapshot>>,
    pub counters: RefCell<EngineCounters>,
    pub(crate) databases: RefCell<HashMap<String, Rc<Database>, FixedState>>,
    /// Pools of databases that a reload replaced: swept until their connections are gone.
    pub(crate) retired: RefCell<Vec<Rc<Pool>>>,
    /// Listening connections, by database and user.
    pub(crate) hubs: RefCell<HashMap<(String, String), Rc<super::listen::Hub>, FixedState>>,
    pub(crate) clients: RefCell<HashMap<u64, Rc<Client>, FixedState>>,
    pub(crate) logging_in: Cell<usize>,
    turned: Cell<Instant>,
    scratch: RefCell<Vec<u8>>,
    spare: RefCell<Vec<u8>>,
    masked: RefCell<Masked>,
}

/// Bytes read from a socket at once.
const SCRATCH: usize = 64 * 1024;

impl Engine {
    /// An engine without clients and pools, under the snapshot in force.
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Engine> {
        let snapshot = shared.snapshot.load_full();
        Rc::new(Engine {
            index,
            shared,
            snapshot: RefCell::new(snapshot),
            counters: RefCell::default(),
            databases: RefCell::default(),
            retired: RefCell::default(),
            hubs: RefCell::default(),
            clients: RefCell::default(),
            logging_in: Cell::new(0),
            turned: Cell::new(Instant::now()),
            scratch: RefCell::new(vec![0; SCRATCH]),
            spare: RefCell::default(),
            masked: RefCell::default(),
        })
    }

    /// The time now.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// A session was woken, or has waited: what it does from here on has this time.
    pub(crate) fn look_at_clock(&self) {
        self.turned.set(self.now());
    }

    /// The time of the last look at the clock: when the session that runs was woken, or later.
    pub(crate) fn recently(&self) -> Instant {
        self.turned.get()
    }

    /// The engine's read buffer; to be given back.
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        let scratch = self.scratch.take();
        if scratch.is_empty() {
            vec![0; SCRATCH]
        } else {
            scratch
        }
    }

    pub(crate) fn give_scratch(&self, scratch: Vec<u8>) {
        *self.scratch.borrow_mut() = scratch;
    }

    /// Buffers for reading a text's literals; to be given back.
    pub(crate) fn take_masked(&self) -> Masked {
        self.masked.take()
    }

    pub(crate) fn give_masked(&self, masked: Masked) {
        *self.masked.borrow_mut() = masked;
    }

    /// An empty buffer with memory, so that an idle client need not hold one.
    pub(crate) fn take_spare(&self) -> Vec<u8> {
        self.spare.take()
    }

    pub(crate) fn give_spare(&self, mut spare: Vec<u8>) {
        if spare.capacity() <= SCRATCH.saturating_mul(2) {
            spare.clear();
            *self.spare.borrow_mut() = spare;
        }
    }
}
