//! The configuration: text in, a checked [`Config`] out, or every fault at once with its line.
//!
//! Pure: files and the environment are read by the caller and come in as closures. The types here
//! are the *checked* form that the rest of the program uses; they are immutable and shared by `Arc`.

mod cache;
mod connect;
pub mod convert;
mod diff;
mod doubts;
mod expand;
mod fault;
pub mod glob;
pub mod hba;
mod keys;
pub mod load;
mod read;
pub mod reference;
pub mod schema;
mod settings;
mod twin;
mod value;
mod yaml;

pub use cache::{Cache, Invalidate, Mode, Policy, Url};
pub use diff::{Change, Diff, diff};
pub use fault::ConfigFault;
pub use load::limit::{is_limit, with_limit};
pub use load::{Parsed, Sources, parse, split_name};
pub use twin::{Gather, Twin};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use crate::types::key::KeyType;

/// A whole checked configuration. Reload makes a new one; nothing changes in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub name: String,
    /// Data-plane threads; `None` means `auto`.
    pub engines: Option<usize>,
    pub log: Log,
    pub listen: Vec<Listen>,
    pub http: Option<String>,
    pub tls: ClientTls,
    pub server_tls: ServerTls,
    pub auth: Auth,
    /// By name.
    pub users: BTreeMap<String, User>,
    pub admin_users: Vec<String>,
    pub stats_users: Vec<String>,
    pub limits: Limits,
    /// Where and how far queries over several shards are finished.
    pub gather: Gather,
    /// Whether a transaction may write on several shards.
    pub two_phase: bool,
    /// Whether reads over several shards see each commit on several shards whole or not at all.
    pub consistent_reads: bool,
    pub recovery: Recovery,
    /// Where answers of cached tables are kept.
    pub cache: Cache,
    /// Databases by name, without `"*"`.
    pub databases: BTreeMap<String, Database>,
    /// The `"*"` entry: databases not named above, on one server, pooled only.
    pub fallback: Option<Fallback>,
    /// Every key with its effective value and default, in the order of the key table: SHOW CONFIG.
    pub settings: Vec<Setting>,
}

/// Ending what killed proxies and servers left prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// How often it is looked for.
    pub every: Duration,
    /// How old it must be.
    pub age: Duration,
}

/// One row of SHOW CONFIG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub default: String,
    /// Whether RELOAD applies a change of it.
    pub reloadable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub format: LogFormat,
    /// error, warn, info, debug, trace.
    pub level: String,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// `host:port`.
    Tcp(String),
    /// The folder of a Unix socket, and the port in its name `.s.PGSQL.PORT`.
    Unix { folder: PathBuf, port: u16 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientTlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    pub mode: ClientTlsMode,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub client_ca: Option<PathBuf>,
}

/// libpq's sslmode towards servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerTlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    pub mode: ServerTlsMode,
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    Scram,
    Md5,
    Plain,
    Trust,
    Cert,
    Hba,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    pub method: AuthMethod,
    /// A pg_hba.conf, when `method` is `hba`.
    pub hba: Option<PathBuf>,
    /// The rules of that file; none without one.
    pub rules: hba::Hba,
    /// As PgBouncer's auth_query: returns the name and the password or verifier of user `$1`.
    pub query: Option<String>,
    /// The role that runs `query`.
    pub user: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    Transaction,
    Session,
    Statement,
}

/// A password as the file holds it. Never printed: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Plain(String),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in pg_authid.
    Scram(String),
    /// `md5` and 32 hex digits, as in pg_authid.
    Md5(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(…)",
            Secret::Scram(_) => "Scram(…)",
            Secret::Md5(_) => "Md5(…)",
        })
    }
}

impl Secret {
    /// Reads what the file holds: a verifier by its form, else a plain password.
    pub fn read(text: &str) -> Secret {
        if text.starts_with("SCRAM-SHA-256$") {
            Secret::Scram(text.to_owned())
        } else if text.len() == 35
            && text.starts_with("md5")
            && text.bytes().skip(3).all(|byte| byte.is_ascii_hexdigit())
        {
            Secret::Md5(text.to_owned())
        } else {
            Secret::Plain(text.to_owned())
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// `None`: no password; the user can enter only by trust or cert.
    pub password: Option<Secret>,
    pub comment_hints: bool,
    pub tenant: Option<String>,
    pub pool_mode: Option<PoolMode>,
    pub default_pool_size: Option<usize>,
    pub max_user_connections: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepUnnamed {
    Auto,
    Custom,
    Off,
}

/// Pooling, timeouts and sizes, with PgBouncer's names and meanings. A zero duration is "no limit".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub pool_mode: PoolMode,
    pub default_pool_size: usize,
    pub min_pool_size: usize,
    pub reserve_pool_size: usize,
    pub reserve_pool_timeout: Duration,
    pub max_client_conn: usize,
    pub max_db_connections: usize,
    pub max_user_connections: usize,
    pub max_prepared_statements: usize,
    /// Reads of several clients under way on one server connection.
    pub reads_per_connection: usize,
    /// How long a read may wait there for others.
    pub shared_read_wait: Duration,
    /// How long one waits who may be in a deadlock over several shards before that is looked at.
    pub deadlock_timeout: Duration,
    pub keep_unnamed_statements: KeepUnnamed,
    pub query_wait_timeout: Duration,
    pub server_lifetime: Duration,
    pub server_idle_timeout: Duration,
    pub server_connect_timeout: Duration,
    pub client_idle_timeout: Duration,
    pub idle_transaction_timeout: Duration,
    pub query_timeout: Duration,
    /// How long a client may take to log in.
    pub client_login_timeout: Duration,
    /// Bytes of one protocol message, at most 1 GB.
    pub max_message_size: u64,
    /// Bytes of a statement's text or parameters that are held to be analysed; longer ones must
    /// show their key in the first part, or be refused.
    pub max_statement_size: u64,
    /// Bytes that one multi-shard statement may hold in the proxy.
    pub max_multi_bytes: u64,
    /// Bytes of memoised plans, per engine.
    pub plan_cache_size: u64,
    /// Rows of one directory that are kept.
    pub max_directory_rows: usize,
    /// How long a read over several shards waits for commits, and a commit for such reads, where reads are
    /// consistent; zero is no limit.
    pub consistent_reads_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        let s = Duration::from_secs;
        Limits {
            pool_mode: PoolMode::Transaction,
            default_pool_size: 20,
            min_pool_size: 0,
            reserve_pool_size: 0,
            reserve_pool_timeout: s(5),
            max_client_conn: 10_000,
            max_db_connections: 0,
            max_user_connections: 0,
            max_prepared_statements: 500,
            reads_per_connection: 16,
            shared_read_wait: Duration::from_millis(20),
            deadlock_timeout: Duration::from_millis(500),
            keep_unnamed_statements: KeepUnnamed::Auto,
            query_wait_timeout: s(120),
            server_lifetime: s(3600),
            server_idle_timeout: s(600),
            server_connect_timeout: s(15),
            client_idle_timeout: Duration::ZERO,
            idle_transaction_timeout: Duration::ZERO,
            query_timeout: Duration::ZERO,
            client_login_timeout: s(60),
            max_message_size: 1 << 30,
            max_statement_size: 16 << 20,
            max_multi_bytes: 256 << 20,
            plan_cache_size: 64 << 20,
            max_directory_rows: 100_000,
            consistent_reads_timeout: s(60),
        }
    }
}

/// Where one PostgreSQL server is: what a libpq connection string of the config says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// A host name, an address, or a folder (starting with `/`) of a Unix socket.
    pub host: String,
    pub port: u16,
    pub dbname: String,
    /// `sslmode` of the connection string; `None` takes `server_tls.mode`.
    pub tls: Option<ServerTlsMode>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub name: String,
    pub primary: Host,
    pub replicas: Vec<Host>,
}

/// How rows of keys are spread: see `placement`.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    pub name: String,
    pub key: Vec<KeyType>,
    pub place: Place,
    /// Single keys on a shard of their own: the key's text, and the shard's name.
    pub pins: Vec<(String, String)>,
}

/// A placement rule; rules nest. Shards are given by name and are known to exist.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    Shard(String),
    Jump(Vec<Place>),
    Modulo(Vec<Place>),
    Postgres(Vec<Place>),
    /// Ascending; the last may have no bound.
    Range(Vec<RangePart>),
    /// Named values, then `else`.
    List(Vec<(String, Place)>, Option<Box<Place>>),
    Directory {
        table: String,
    },
}

/// `{to: BOUND, …}`: keys below `to` (excluded) that no earlier part holds.
#[derive(Clone, Debug, PartialEq)]
pub struct RangePart {
    pub to: Option<String>,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// Rows spread by `key` over `distribution`.
    Sharded {
        distribution: String,
        key: Vec<String>,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on the home shard.
    Single,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `None`: any schema on the search path.
    pub schema: Option<String>,
    pub name: String,
    pub kind: TableKind,
    pub ids: Ids,
    /// Whether its rows may be answered from the cache; `None` where nothing is said.
    pub cache: Option<Arc<Policy>>,
}

/// What a sharded table says of columns besides its key: ids, and what rows are found by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// The column whose values are generated where a statement leaves them out.
    pub column: Option<String>,
    /// Whether the ids of `column` carry the bucket of the key, in their low 14 bits.
    pub carries: bool,
    /// Whether the key holds ids of another table, which carry the bucket.
    pub by: bool,
    /// The lookup tables of its columns.
    pub lookups: Vec<Arc<Lookup>>,
    /// Its columns whose values are kept unique over all shards.
    pub uniques: Vec<Arc<Lookup>>,
    /// The key holds values of another table's column, whose lookup table says where rows belong.
    pub looked: Option<Arc<Lookup>>,
}

/// A table on the home shard that says which keys the rows have that hold a value in one column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lookup {
    /// Of the sharded table, as the configuration names it.
    pub schema: Option<String>,
    pub table: String,
    pub column: String,
    /// The columns of its key, and their types.
    pub key: Vec<(String, KeyType)>,
    /// The distribution that places the keys.
    pub distribution: String,
    /// Whether other tables' rows are placed by it, so that all rows of one value are on one shard.
    pub leads: bool,
    /// Whether it is no lookup table, but what keeps the values unique: nothing is found by it.
    pub unique: bool,
}

impl Lookup {
    /// The table and its column: what a unique column goes by on the shards.
    pub fn title(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{schema}.{}.{}", self.table, self.column),
            None => format!("{}.{}", self.table, self.column),
        }
    }
}

impl Ids {
    /// Whether a column is kept unique over all shards.
    pub fn keeps_unique(&self, column: &str) -> bool {
        self.uniques.iter().any(|unique| unique.column == column)
    }

    /// The columns of which all rows with one value are on one shard, whatever their key.
    pub fn leading(&self) -> impl Iterator<Item = &String> {
        let leading = self.lookups.iter().filter(|lookup| lookup.leads);
        leading.map(|lookup| &lookup.column)
    }

    /// Whether a foreign key of these pairs of columns, own and another table's, stays on the shard by the
    /// lookup table that rows are placed by.
    pub fn follows(
        &self,
        key: &[String],
        other: &Ids,
        mut pairs: impl Iterator<Item = (String, String)>,
    ) -> bool {
        let (Some(looked), [own]) = (&self.looked, key) else {
            return false;
        };
        other.lookups.contains(looked)
            && pairs.any(|(column, other)| column == *own && other == looked.column)
    }

    /// The columns of a table with this key whose values carry the bucket of its rows.
    pub fn carriers<'a>(&'a self, key: &'a [String]) -> impl Iterator<Item = &'a String> + Clone {
        let own = self.column.iter().filter(|_| self.carries);
        own.chain(key.iter().filter(|_| self.by))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlisted {
    Single,
    Reference,
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraints {
    Enforce,
    Allow,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Database {
    pub name: String,
    /// In the order of the file; placements refer to them by name.
    pub shards: Vec<Shard>,
    /// The name of the home shard.
    pub home: String,
    pub server_user: Option<String>,
    pub server_password: Option<Secret>,
    pub control_user: Option<String>,
    pub control_password: Option<Secret>,
    pub pool_mode: Option<PoolMode>,
    pub default_pool_size: Option<usize>,
    pub distributions: BTreeMap<String, Distribution>,
    /// In the order of the file.
    pub tables: Vec<Table>,
    pub unlisted: Unlisted,
    pub constraints: Constraints,
    pub tenant: Option<Tenancy>,
}

/// How the statements of a tenant are confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenancy {
    /// The column that holds the tenant.
    pub column: String,
    /// The setting that names it, lower case; a session that sets it is confined.
    pub setting: Option<String>,
}

/// The `"*"` database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// `dbname` is empty: the client's database name is used.
    pub server: Host,
    pub server_user: Option<String>,
    pub server_password: Option<Secret>,
}
