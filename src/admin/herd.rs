//! What the console and HTTP ask of the running proxy.
//!
//! The proxy implements it by messages to its engines. An empty `database` argument is `None` and
//! means all of them. Names are checked by the console before they come here.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::Config;
use crate::error::Fault;
use crate::metrics::view::{Detail, Snapshot};
use crate::planner::cache::{self, Tag};

/// What is answered some time later.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// How SHUTDOWN goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Immediate,
    /// When every server connection has been released (SIGINT).
    WaitForServers,
    /// When every client has gone (SIGTERM).
    WaitForClients,
}

/// What PURGE CACHE drops, in all databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    Everything,
    /// What depends on a table, by the name that the configuration lists it by.
    Table(String),
    /// What depends on a tag, as Redis has it behind the deployment and the database.
    Tag(String),
    /// What was read for a tenant.
    Tenant(String),
}

impl Purge {
    /// The tags that are written by it.
    pub fn tags(&self) -> Vec<String> {
        match self {
            Purge::Everything => vec![Tag::All.to_string()],
            Purge::Table(table) => {
                let table: Arc<str> = table.as_str().into();
                let tags = cache::of_table(&table).into_iter();
                tags.map(|tag| tag.to_string()).collect()
            }
            Purge::Tag(tag) => vec![tag.clone()],
            Purge::Tenant(tenant) => vec![Tag::Tenant(tenant.as_str().into()).to_string()],
        }
    }

    /// The table that it is counted at; empty for none.
    pub fn table(&self) -> Arc<str> {
        match self {
            Purge::Table(table) => table.as_str().into(),
            Purge::Everything | Purge::Tag(_) | Purge::Tenant(_) => Arc::from(""),
        }
    }
}

/// A shard whose primary does not answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Unready {
    pub database: String,
    pub shard: String,
    /// What the last attempt said.
    pub reason: String,
}

/// The running proxy.
///
/// # Cancel safety
/// Every future may be dropped. A command may then have been carried out or not; a PAUSE that was
/// being waited for stays in force until [`Herd::resume`].
pub trait Herd: Debug + Send + Sync {
    /// The config in force.
    fn config(&self) -> Arc<Config>;

    /// What all engines do now, folded, sorted, with averages filled.
    fn snapshot(&self, detail: Detail) -> Doing<'_, Snapshot>;

    /// Stops handing out server connections and is done when all have been released and closed.
    fn pause<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Ends PAUSE and KILL.
    fn resume<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Closes each server connection once it is released; new ones are opened as needed.
    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Reads the config again. An invalid one is rejected whole with F0000 and all its faults in the detail.
    /// What the new one says that waits for a restart is warned of.
    fn reload(&self) -> Doing<'_, Vec<Fault>>;

    /// Drops all clients and server connections at once, and pauses.
    fn kill<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Drops one client by the id of SHOW CLIENTS; false if there is none.
    fn kill_client(&self, id: u64) -> Doing<'_, bool>;

    /// Refuses new clients of a database.
    fn disable<'a>(&'a self, database: &'a str) -> Doing<'a, ()>;

    /// Ends DISABLE.
    fn enable<'a>(&'a self, database: &'a str) -> Doing<'a, ()>;

    /// Is done when no server connection is left that is to be closed.
    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Begins to shut down; does not wait for the end of it.
    fn shutdown(&self, how: Shutdown) -> Doing<'_, ()>;

    /// Drops answers that are kept.
    fn purge<'a>(&'a self, what: &'a Purge) -> Doing<'a, ()>;

    /// Changes a limit or a timeout until the next reload.
    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Doing<'a, ()>;

    /// Ends what was left prepared on the shards, by what was decided, however young it is.
    fn resolve<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()>;

    /// Ends one prepared transaction of ours where nothing was decided, or what is wanted.
    fn resolve_one<'a>(&'a self, gid: &'a str, commits: bool) -> Doing<'a, ()>;

    /// The shards whose primaries do not answer; asked within a second or two, not remembered.
    fn unready(&self) -> Doing<'_, Vec<Unready>>;
}
