//! What the engines say of themselves when asked: plain rows for the console and HTTP.
//!
//! Every engine makes a [`Snapshot`] of its own; [`Snapshot::fold`] makes one of all of them. The
//! rows carry facts, not texts: how they are shown is the console's business. Connections are listed
//! only when [`Detail::Connections`] was asked for, so that a scrape does not copy 10,000 clients.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use crate::config::PoolMode;
use crate::metrics::period::DatabaseStats;
use crate::planner::tally::Way;

/// How much a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Counts only: pools, databases, shards, statistics.
    Pools,
    /// Also what the shards have prepared: they are asked.
    Prepared,
    /// Also what was counted of each statement.
    Routes,
    /// Also one row a client and one a server connection.
    Connections,
}

/// What the whole process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    #[default]
    Active,
    /// PAUSE of everything.
    Paused,
    /// SHUTDOWN or a signal: no new clients.
    ShuttingDown,
}

/// One moment of one engine, or of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    pub state: State,
    /// How many engines were folded in.
    pub engines: usize,
    pub clients: Vec<ClientRow>,
    pub servers: Vec<ServerRow>,
    pub pools: Vec<PoolRow>,
    pub databases: Vec<DatabaseRow>,
    pub shards: Vec<ShardRow>,
    /// In the order of the configuration; filled by the running proxy, not by its engines.
    pub twins: Vec<TwinRow>,
    /// Only where they were asked for; filled by the running proxy.
    pub prepared: Vec<PreparedRow>,
    /// Filled by the running proxy as well.
    pub cache: Vec<CacheRow>,
    pub users: Vec<UserRow>,
    pub errors: Vec<ErrorRow>,
    pub routes: Vec<RouteRow>,
    pub memory: Vec<MemoryRow>,
    pub hosts: Vec<HostRow>,
    /// Totals since start; the averages are filled by the keeper of a [`crate::metrics::period::Period`].
    pub stats: Vec<DatabaseStats>,
    /// Connections that have not logged in yet.
    pub login_clients: u64,
    /// Plans held by the plan caches.
    pub plans_cached: u64,
    /// Bytes that multi-shard statements hold at the moment.
    pub multi_buffered_bytes: u64,
    /// Replies that came when none was owed. Must stay 0.
    pub out_of_sync: u64,
}

/// A prepared transaction of a shard, or a shard that could not be asked for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreparedRow {
    pub database: String,
    pub shard: String,
    /// Empty where the shard could not be asked.
    pub gid: String,
    pub age: Duration,
    pub owner: String,
    /// The shard that decides; `None` of a stranger's.
    pub decider: Option<String>,
    /// `commit`, `abort`, or not known yet; or why the shard could not be asked.
    pub decision: Option<String>,
}

/// What a client is doing, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Linked to a server connection.
    Active,
    /// Nothing asked.
    Idle,
    /// Asked, and waits for a server connection.
    Waiting,
    ActiveCancelReq,
    WaitingCancelReq,
}

impl ClientState {
    /// The word of SHOW CLIENTS.
    pub const fn as_str(self) -> &'static str {
        match self {
            ClientState::Active => "active",
            ClientState::Idle => "idle",
            ClientState::Waiting => "waiting",
            ClientState::ActiveCancelReq => "active_cancel_req",
            ClientState::WaitingCancelReq => "waiting_cancel_req",
        }
    }
}

/// What a server connection is doing, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Linked to a client.
    Active,
    /// Free.
    Idle,
    /// Free, and to be checked before use.
    Used,
    /// Being reset or checked.
    Tested,
    /// Connecting or logging in.
    New,
    /// Carrying a cancel request.
    ActiveCancel,
    /// Waiting until cancel requests aimed at it are through.
    BeingCanceled,
}

impl ServerState {
    /// The word of SHOW SERVERS.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServerState::Active => "active",
            ServerState::Idle => "idle",
            ServerState::Used => "used",
            ServerState::Tested => "tested",
            ServerState::New => "new",
            ServerState::ActiveCancel => "active_cancel",
            ServerState::BeingCanceled => "being_canceled",
        }
    }
}

/// Which server of a shard a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Primary,
    Replica,
}

impl Role {
    /// The value of the label `role`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// One end of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    Ip(IpAddr, u16),
    /// A Unix socket, with the port in its name.
    Unix(u16),
    #[default]
    Unknown,
}

/// One client connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// What KILL_CLIENT takes: unique over all engines, for the life of the process.
    pub id: u64,
    pub user: String,
    pub database: String,
    pub state: ClientState,
    pub remote: Address,
    pub local: Address,
    pub connected: SystemTime,
    /// When the last request came.
    pub requested: SystemTime,
    /// How long it has waited for a server connection.
    pub wait: Duration,
    /// Whether it will be closed as soon as it is idle.
    pub close_needed: bool,
    /// The server connection it is linked to.
    pub link: Option<u64>,
    /// The process behind a Unix socket.
    pub process: Option<u32>,
    /// Version and cipher, or empty.
    pub tls: String,
    pub application_name: String,
    pub prepared_statements: u64,
    /// The shard of its current transaction.
    pub shard: Option<String>,
    /// Why it keeps its server connection.
    pub pinned: Option<&'static str>,
    pub engine: usize,
}

/// One server connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRow {
    /// Unique over all engines, for the life of the process.
    pub id: u64,
    pub user: String,
    pub database: String,
    pub shard: String,
    pub role: Role,
    pub state: ServerState,
    pub remote: Address,
    pub local: Address,
    pub connected: SystemTime,
    pub requested: SystemTime,
    /// Closed once released: after RECONNECT, or a RELOAD that moved the server.
    pub close_needed: bool,
    /// The client it is linked to.
    pub link: Option<u64>,
    /// The backend's process id, from BackendKeyData.
    pub process: Option<u32>,
    pub tls: String,
    /// The linked client's, or empty.
    pub application_name: String,
    pub prepared_statements: u64,
    pub engine: usize,
}

/// One pool: the connections of a user to one shard of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRow {
    pub database: String,
    pub user: String,
    pub shard: String,
    pub role: Role,
    pub cl_active: u64,
    pub cl_waiting: u64,
    pub cl_active_cancel_req: u64,
    pub cl_waiting_cancel_req: u64,
    pub sv_active: u64,
    pub sv_active_cancel: u64,
    pub sv_being_canceled: u64,
    pub sv_idle: u64,
    pub sv_used: u64,
    pub sv_tested: u64,
    pub sv_login: u64,
    /// How long the first of the queue has waited.
    pub max_wait: Duration,
    pub pool_mode: PoolMode,
    /// Connections closed because replies and requests did not match. Must stay 0.
    pub out_of_sync: u64,
}

impl PoolRow {
    /// A pool without connections.
    pub fn new(
        database: &str,
        user: &str,
        shard: &str,
        role: Role,
        pool_mode: PoolMode,
    ) -> PoolRow {
        PoolRow {
            database: database.to_owned(),
            user: user.to_owned(),
            shard: shard.to_owned(),
            role,
            cl_active: 0,
            cl_waiting: 0,
            cl_active_cancel_req: 0,
            cl_waiting_cancel_req: 0,
            sv_active: 0,
            sv_active_cancel: 0,
            sv_being_canceled: 0,
            sv_idle: 0,
            sv_used: 0,
            sv_tested: 0,
            sv_login: 0,
            max_wait: Duration::ZERO,
            pool_mode,
            out_of_sync: 0,
        }
    }

    /// Its server connections with the state's word, as the gauge `pool_servers` has them.
    pub fn servers(&self) -> [(&'static str, u64); 7] {
        [
            ("active", self.sv_active),
            ("active_cancel", self.sv_active_cancel),
            ("being_canceled", self.sv_being_canceled),
            ("idle", self.sv_idle),
            ("used", self.sv_used),
            ("tested", self.sv_tested),
            ("login", self.sv_login),
        ]
    }

    /// How many server connections it has, those that log in included.
    pub fn server_count(&self) -> u64 {
        self.servers().iter().map(|(_, count)| count).sum()
    }

    /// Whether both are one pool.
    pub(super) fn is_same(&self, other: &PoolRow) -> bool {
        self.database == other.database
            && self.user == other.user
            && self.shard == other.shard
            && self.role == other.role
    }

    /// Adds another engine's part of the same pool.
    pub(super) fn add(&mut self, other: &PoolRow) {
        self.cl_active += other.cl_active;
        self.cl_waiting += other.cl_waiting;
        self.cl_active_cancel_req += other.cl_active_cancel_req;
        self.cl_waiting_cancel_req += other.cl_waiting_cancel_req;
        self.sv_active += other.sv_active;
        self.sv_active_cancel += other.sv_active_cancel;
        self.sv_being_canceled += other.sv_being_canceled;
        self.sv_idle += other.sv_idle;
        self.sv_used += other.sv_used;
        self.sv_tested += other.sv_tested;
        self.sv_login += other.sv_login;
        self.max_wait = self.max_wait.max(other.max_wait);
        self.out_of_sync += other.out_of_sync;
    }
}

/// What one database is at the moment; what it was configured to be is in the config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseRow {
    pub name: String,
    pub paused: bool,
    pub disabled: bool,
    pub clients: u64,
    pub servers: u64,
}

/// What one user has open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRow {
    pub name: String,
    pub clients: u64,
    pub servers: u64,
}

/// What one shard is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardRow {
    pub database: String,
    pub shard: String,
    /// When the last attempt to connect to its primary ended.
    pub tried: Option<Instant>,
    /// Why that attempt failed; `None` if it did not, or there was none.
    pub down: Option<String>,
    pub statements: u64,
    pub errors: u64,
}

impl ShardRow {
    /// Takes another attempt to connect in: the later one counts.
    pub fn attempted(&mut self, tried: Option<Instant>, down: Option<String>) {
        if tried > self.tried {
            self.tried = tried;
            self.down = down;
        }
    }
}

/// What a twin is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TwinState {
    Free,
    /// A query is finished in it.
    Busy,
    /// Its schema is being made the home shard's.
    Behind,
    /// Its database does not exist.
    Missing,
    /// It could not be looked at.
    #[default]
    Unknown,
}

impl TwinState {
    /// The word of SHOW TWINS.
    pub const fn as_str(self) -> &'static str {
        match self {
            TwinState::Free => "free",
            TwinState::Busy => "busy",
            TwinState::Behind => "behind",
            TwinState::Missing => "missing",
            TwinState::Unknown => "unknown",
        }
    }
}

/// What is kept of one table, and what came of reads of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRow {
    pub database: String,
    pub table: String,
    pub entries: u64,
    pub bytes: u64,
    /// Answers given from the process.
    pub hits: u64,
    /// Answers given from Redis.
    pub redis_hits: u64,
    pub misses: u64,
    /// Reads that waited for another client's.
    pub followers: u64,
    /// Answers given that were not fresh any more.
    pub stale: u64,
    pub fills: u64,
    /// Answers that were not kept after all.
    pub unfilled: u64,
    /// Reads that passed the cache by, by reason.
    pub bypasses: Vec<(&'static str, u64)>,
    /// Changes by clients of this proxy.
    pub writes: u64,
    /// Changes told of by channels.
    pub events: u64,
    /// Changes that shards told of.
    pub changes: u64,
    pub purges: u64,
    /// Answers that were read again on the primary.
    pub audited: u64,
    /// Those that it answered otherwise, though nothing they depend on was written.
    pub found_stale: u64,
}

/// One twin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TwinRow {
    pub database: String,
    pub twin: String,
    pub state: TwinState,
    /// Whose query uses it.
    pub user: Option<String>,
    /// What that is doing.
    pub phase: Option<&'static str>,
    /// Rows and bytes that it has fetched.
    pub rows: u64,
    pub bytes: u64,
    /// How long it has been busy.
    pub since: Option<Duration>,
    /// How long ago it was made.
    pub age: Option<Duration>,
}

/// How often one error was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorRow {
    pub code: String,
    /// `client`, `proxy` or `server`.
    pub origin: &'static str,
    /// Empty when no shard was involved.
    pub shard: String,
    pub count: u64,
}

/// How often a statement went one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRow {
    pub database: String,
    /// Without its constants. `None`: all statements that are not told one by one.
    pub statement: Option<String>,
    pub way: Way,
    pub count: u64,
    /// How many of them the time is known of, and what they took together, in µs.
    pub timed: u64,
    pub micros: u64,
    /// The shards of the last one, or why it was refused.
    pub last: String,
}

impl RouteRow {
    /// Nothing yet of all statements that are not told one by one.
    pub fn others(database: &str, way: Way) -> RouteRow {
        RouteRow {
            database: database.to_owned(),
            statement: None,
            way,
            count: 0,
            timed: 0,
            micros: 0,
            last: String::new(),
        }
    }

    /// What tells it from others.
    pub(super) fn key(&self) -> (String, Option<String>, Way) {
        (self.database.clone(), self.statement.clone(), self.way)
    }

    /// Adds what else was counted of the same.
    pub fn add(&mut self, other: &RouteRow) {
        self.count = self.count.wrapping_add(other.count);
        self.timed = self.timed.wrapping_add(other.timed);
        self.micros = self.micros.wrapping_add(other.micros);
        if self.last.is_empty() {
            self.last.clone_from(&other.last);
        }
    }
}

/// One kind of memory: so many things of so many bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRow {
    pub name: String,
    /// Bytes of one.
    pub size: u64,
    pub used: u64,
    pub free: u64,
}

/// A host name that was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRow {
    pub name: String,
    /// How long the answer still holds.
    pub ttl: Duration,
    pub addresses: Vec<IpAddr>,
}
