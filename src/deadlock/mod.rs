//! Deadlocks that no server sees: who waits for whom over several shards and the pools.
//!
//! A server knows which of its processes wait for which, and ends the circles among them. It does not know
//! that processes of several servers work for one client, nor that a client waits for a connection that
//! others hold. Put together, these are a graph: its nodes are clients with all the connections that they
//! hold ([`Unit`]), and processes of nobody here. A wait for a lock is a wait for *each* of its holders; a
//! wait for a pool is a wait for *any* connection that counts against a spent budget. What can go on once
//! others do is taken away until nothing more can be; what is left, and lies on a circle, is a deadlock.
//! Circles among processes of one server alone are left to that server ([`find`]).
//!
//! # Why no phantom is ended
//! What the shards and proxies say was looked at one after the other. So two looks are compared, and only
//! what stands in both counts ([`common`]): a wait for a lock is the same if it began at the same moment, a client
//! is the same if it holds the same connections and none of them has said anything meanwhile. Each wait of a circle
//! found in both then lasted from the end of the first look to the beginning of the second, so all of them
//! stood at once, and none of them can end by itself.
//!
//! # Who is ended
//! The youngest of the circle, those last whose commit has begun. Every proxy that looks at the same graph
//! comes to the same, and the one whose client it is ends it.

mod graph;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use graph::{Deadlock, find};

/// A client and what it holds, as its proxy tells it. Only those that have waited for a while: all others
/// can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// The client's number in its proxy.
    pub client: u64,
    /// When it was lent the connection that it has held longest: microseconds since 1970.
    pub began: u64,
    pub held: Vec<Held>,
    pub pool: Option<PoolWait>,
}

/// A connection that a client holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub shard: String,
    /// The process that serves it.
    pub pid: i32,
    /// Changes whenever the server says something on it.
    pub mark: u64,
    /// The transaction that is being prepared on it, or is prepared.
    pub gid: Option<String>,
}

/// A client that waits for a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolWait {
    pub shard: String,
    /// When that began: microseconds since its proxy started.
    pub since: u64,
    /// For each budget that is spent, the clients of the same proxy whose connections count against it.
    pub budgets: Vec<Vec<u64>>,
}

/// A process that waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockWait {
    pub shard: String,
    pub pid: i32,
    /// When that began, in the server's words.
    pub since: String,
    /// What it waits for, in the server's words: `ShareLock on transaction 731`.
    pub what: String,
    pub blockers: Vec<Blocker>,
}

/// What holds a lock, or is before another in the line for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    Process(i32),
    /// A prepared transaction.
    Prepared(String),
}

/// Which client of which proxy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub proxy: String,
    pub client: u64,
}

/// All that is known at one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By proxy.
    pub units: BTreeMap<String, Vec<Unit>>,
    pub locks: Vec<LockWait>,
}

/// What stands in both of two looks, one after the other.
pub fn common(before: &View, now: &View) -> View {
    let mut units = BTreeMap::new();
    for (proxy, known) in &now.units {
        let earlier = before.units.get(proxy).map(Vec::as_slice);
        let earlier: BTreeMap<u64, &Unit> = earlier
            .unwrap_or_default()
            .iter()
            .map(|unit| (unit.client, unit))
            .collect();
        let stays = |unit: &Unit| {
            let was = earlier.get(&unit.client)?;
            (was.held == unit.held).then(|| Unit {
                pool: same_pool(was.pool.as_ref(), unit.pool.as_ref()),
                ..unit.clone()
            })
        };
        let known: Vec<Unit> = known.iter().filter_map(stays).collect();
        units.insert(proxy.clone(), known);
    }
    let earlier: BTreeMap<(&str, i32), &LockWait> = before
        .locks
        .iter()
        .map(|wait| ((wait.shard.as_str(), wait.pid), wait))
        .collect();
    let stays = |wait: &LockWait| {
        let was = earlier.get(&(wait.shard.as_str(), wait.pid))?;
        let is_same = was.since == wait.since && was.what == wait.what && !wait.since.is_empty();
        let blockers = wait.blockers.iter();
        is_same.then(|| LockWait {
            blockers: blockers
                .filter(|blocker| was.blockers.contains(blocker))
                .cloned()
                .collect(),
            ..wait.clone()
        })
    };
    View {
        units,
        locks: now.locks.iter().filter_map(stays).collect(),
    }
}

/// A wait for a pool that goes on: for whoever held a connection at either look.
fn same_pool(was: Option<&PoolWait>, now: Option<&PoolWait>) -> Option<PoolWait> {
    let (was, now) = (was?, now?);
    let is_same =
        was.shard == now.shard && was.since == now.since && was.budgets.len() == now.budgets.len();
    let pairs = was.budgets.iter().zip(&now.budgets);
    is_same.then(|| PoolWait {
        budgets: pairs
            .map(|(was, now)| {
                let mut both = [was.as_slice(), now.as_slice()].concat();
                both.sort_unstable();
                both.dedup();
                both
            })
            .collect(),
        ..now.clone()
    })
}

#[cfg(test)]
mod tests;
