//! Deadlocks over several shards, as an engine sees them: who holds connections and waits, and ending one of them.
//!
//! A client that is ended has what it waits for canceled, and hears 40P01 in place of the cancellation. From
//! the moment that it is chosen nothing else of it is served until the requests have been taken and what
//! was sent is answered, so that none of its later statements is canceled instead.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::deadlock::{Held, PoolWait, Unit};
use crate::error::{Fault, SqlState};
use crate::execute::canceled_fault;
use crate::placement::ShardId;
use crate::server::connection::CancelTarget;
use crate::server::pool::Lease;
use crate::server::pool::waits::Line;
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::Session;
use super::client::{Activity, Client};
use super::engine::{Database, Engine, Pools};

/// How often it is looked whether a request to cancel has been taken.
const POLL: Duration = Duration::from_millis(2);

/// Whether somebody waits who may be in a deadlock over several shards.
#[derive(Debug, Default)]
pub struct Wish {
    wanted: AtomicBool,
    notify: Notify,
}

impl Wish {
    /// Somebody does.
    pub fn ask(&self) {
        self.wanted.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    /// Whether somebody did since this was asked last.
    pub fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Waits until somebody does.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn asked(&self) {
        self.notify.notified().await;
    }
}

/// What one engine knows of a database's connections.
#[derive(Debug, Default)]
pub struct Report {
    /// Clients that hold some and have waited for a while; waits for pools are in `lines`.
    pub units: Vec<Unit>,
    /// Those that wait for a pool: the shard, since when in microseconds of this process, and the line.
    pub lines: Vec<(String, u64, Line)>,
    /// Open connections: a budget that each counts against, and the client that holds it, or 0.
    pub shares: Vec<(usize, u64)>,
}

impl Report {
    /// Adds what another engine knows.
    pub fn add(&mut self, other: Report) {
        self.units.extend(other.units);
        self.lines.extend(other.lines);
        self.shares.extend(other.shares);
    }

    /// The clients, each with what it waits for in the pools.
    pub fn into_units(mut self) -> Vec<Unit> {
        let mut holders: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
        for (budget, holder) in &self.shares {
            holders.entry(*budget).or_default().push(*holder);
        }
        for (shard, since, line) in self.lines {
            let Some(unit) = self
                .units
                .iter_mut()
                .find(|unit| unit.client == line.client)
            else {
                continue;
            };
            let reserve = line.reserve.and_then(|reserve| holders.get(&reserve));
            let budgets = line.spent.iter().filter_map(|(budget, used)| {
                let own = holders.get(budget).map(Vec::as_slice).unwrap_or_default();
                // Some are being opened or closed.
                if own.len() < *used {
                    return None;
                }
                let mut all = [own, reserve.map(Vec::as_slice).unwrap_or_default()].concat();
                all.sort_unstable();
                all.dedup();
                // One that nobody holds is free, or soon will be.
                (!all.contains(&0)).then_some(all)
            });
            unit.pool = Some(PoolWait {
                shard,
                since,
                budgets: budgets.collect(),
            });
        }
        self.units
    }
}

/// A client that is to be ended, and how it waited when that was decided.
#[derive(Debug)]
pub struct Sentence {
    pub unit: Unit,
    /// Those of its connections on which a server waits for a lock: shard and process.
    pub waiting: Vec<(String, i32)>,
    /// What it is told.
    pub fault: Fault,
}

/// What a client is told that is ended; `detail` is a line for each step of the circle.
pub fn fault(detail: &str) -> Fault {
    Fault::error(SqlState::DEADLOCK, "deadlock detected")
        .detail(detail)
        .hint("See server log for query details.")
}

impl Engine {
    fn micros_since_start(&self, then: Instant) -> u64 {
        let since = then.saturating_duration_since(self.shared.started.0);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Microseconds since 1970.
    fn wall_clock(&self, then: Instant) -> u64 {
        let started = self.shared.started.1;
        let started = started
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let started = u64::try_from(started.as_micros()).unwrap_or(0);
        started.saturating_add(self.micros_since_start(then))
    }

    /// Has deadlocks looked for where a client has waited for a while that holds connections of several shards, or
    /// one and waits for another.
    pub(super) fn look_for_waits(&self, now: Instant) {
        let after = self.snapshot.borrow().config.limits.deadlock_timeout;
        if after.is_zero() {
            return;
        }
        let clients = self.clients.borrow();
        let mut waiting: BTreeMap<&str, Vec<&Rc<Client>>> = BTreeMap::new();
        for client in clients.values().filter(|client| waits(client, now, after)) {
            waiting.entry(&client.database).or_default().push(client);
        }
        for (name, clients) in waiting {
            let Some(database) = self.databases.borrow().get(name).map(Rc::clone) else {
                continue;
            };
            if database.topology.shards().len() < 2 {
                continue;
            }
            let held = held(&database);
            let may_be = |client: &&Rc<Client>| {
                let count = held.get(&client.id).map_or(0, Vec::len);
                count > 1 || (count == 1 && client.activity.get() == Activity::Waiting)
            };
            if clients.iter().any(may_be) {
                database.shared.deadlocks.ask();
            }
        }
    }

    /// Who holds connections of a database and has waited for longer than `after`.
    pub(super) fn waits(&self, name: &str, after: Duration) -> Report {
        let mut report = Report::default();
        let Some(database) = self.databases.borrow().get(name).map(Rc::clone) else {
            return report;
        };
        let now = self.now();
        let held = held(&database);
        let clients = self.clients.borrow();
        for (id, targets) in &held {
            let client = clients.get(id).filter(|client| waits(client, now, after));
            if client.is_some() {
                report.units.push(self.unit(&database, *id, targets));
            }
        }
        each_pool(&database, |pool| {
            pool.each_open(|target, budgets| {
                let holder = target.holder.get();
                report
                    .shares
                    .extend(budgets.iter().map(|budget| (*budget, holder)));
            });
            if !is_shard(&database, pool.target.shard) {
                return;
            }
            for line in pool.line(now, after) {
                let since = self.micros_since_start(line.since);
                let shard = pool.target.shard_name.clone();
                report.lines.push((shard, since, line));
            }
        });
        report
    }

    fn unit(&self, database: &Database, client: u64, targets: &[Rc<CancelTarget>]) -> Unit {
        let first = targets.iter().map(|target| target.lent.get()).min();
        let mut held: Vec<Held> = targets
            .iter()
            .map(|target| Held {
                shard: database.topology.name(target.shard).to_owned(),
                pid: i32::try_from(target.token.pid).unwrap_or(0),
                mark: target.heard.get(),
                gid: target.prepared.borrow().clone(),
            })
            .collect();
        held.sort_by(|one, other| (&one.shard, one.pid).cmp(&(&other.shard, other.pid)));
        Unit {
            client,
            began: first.map_or(0, |first| self.wall_clock(first)),
            held,
            pool: None,
        }
    }

    /// Ends a client that waits as it did when that was decided. Returns whether it does.
    pub(super) fn carry_out(self: &Rc<Engine>, sentence: Sentence) -> bool {
        let id = sentence.unit.client;
        let client = self.clients.borrow().get(&id).map(Rc::clone);
        let Some(client) = client.filter(|client| client.sentences.get() == 0) else {
            return false;
        };
        let database = self.databases.borrow().get(&client.database).map(Rc::clone);
        let Some(database) = database else {
            return false;
        };
        let held = held(&database);
        let targets = held.get(&id).map(Vec::as_slice).unwrap_or_default();
        if self.unit(&database, id, targets).held != sentence.unit.held {
            return false;
        }
        if let Some(pool) = &sentence.unit.pool {
            let mut waits = false;
            each_pool(&database, |known| {
                waits |= known.target.shard_name == pool.shard
                    && known.line(self.now(), Duration::ZERO).iter().any(|line| {
                        line.client == id && self.micros_since_start(line.since) == pool.since
                    });
            });
            if !waits {
                return false;
            }
            *client.victim.borrow_mut() = Some(sentence.fault);
            client.canceled.set(true);
            client.wake();
            return true;
        }
        let is_waiting = |target: &&Rc<CancelTarget>| {
            let shard = database.topology.name(target.shard);
            let pid = i32::try_from(target.token.pid).unwrap_or(0);
            let mut waiting = sentence.waiting.iter();
            waiting.any(|(on, process)| on == shard && *process == pid)
        };
        let aims: Vec<Rc<CancelTarget>> =
            targets.iter().filter(is_waiting).map(Rc::clone).collect();
        if aims.is_empty() {
            return false;
        }
        *client.victim.borrow_mut() = Some(sentence.fault);
        client.sentenced.set(true);
        client
            .sentences
            .set(client.sentences.get().saturating_add(1));
        for aim in &aims {
            self.cancel_now(aim);
        }
        client.wake();
        tokio::task::spawn_local(async move {
            for aim in aims {
                aim.taken().await;
            }
            client
                .sentences
                .set(client.sentences.get().saturating_sub(1));
            client.wake();
        });
        true
    }
}

/// Whether a client has waited for longer than `after`: for a server's answer, or for a connection.
fn waits(client: &Client, now: Instant, after: Duration) -> bool {
    matches!(client.activity.get(), Activity::Active | Activity::Waiting)
        && now.saturating_duration_since(client.since.get()) > after
}

fn is_shard(database: &Database, shard: ShardId) -> bool {
    database.twin_of(shard).is_none()
}

fn each_pool(database: &Database, mut act: impl FnMut(&crate::server::pool::Pool)) {
    let users: Vec<Pools> = database.pools.borrow().values().map(Rc::clone).collect();
    for pool in users.iter().flat_map(|pools| pools.iter()) {
        act(pool);
    }
}

/// The connections to shards that each client holds.
fn held(database: &Database) -> BTreeMap<u64, Vec<Rc<CancelTarget>>> {
    let mut held: BTreeMap<u64, Vec<Rc<CancelTarget>>> = BTreeMap::new();
    each_pool(database, |pool| {
        pool.each_open(|target, _| {
            let holder = target.holder.get();
            if holder != 0 && is_shard(database, target.shard) {
                held.entry(holder).or_default().push(Rc::clone(target));
            }
        });
    });
    held
}

impl Session {
    /// What a client is told that canceled, or was ended by us.
    pub(crate) fn cancel_fault(&self) -> Fault {
        let victim = self.client.victim.borrow_mut().take();
        victim.unwrap_or_else(canceled_fault)
    }

    /// The error that goes to the client in place of a server's, which says that its statement was canceled:
    /// it was because of a deadlock.
    pub(crate) fn sentence_for(&self, error: &[u8]) -> Option<Vec<u8>> {
        let fields = backend::error_fields(error.get(HEADER..).unwrap_or_default());
        if fields.code() != SqlState::QUERY_CANCELED.as_str() {
            return None;
        }
        let fault = self.client.victim.borrow_mut().take()?;
        self.engine.count_fault(&fault);
        let mut bytes = Vec::new();
        backend::fault(&mut bytes, &fault);
        Some(bytes)
    }

    /// Whether the client is to wait, because a request to cancel is under way to its connections.
    pub(crate) fn awaits_sentence(&self) -> bool {
        // COPY data is waited for: it fails with it.
        self.client.sentenced.get() && !(self.copy_in && self.client.sentences.get() == 0)
    }

    /// The requests have been taken and everything is answered: what comes next is not canceled.
    pub(crate) fn look_at_sentence(&mut self) {
        if self.client.sentences.get() > 0 {
            return;
        }
        let owes = self
            .lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| !connection.pipeline.is_empty());
        if owes {
            self.ask_for_replies();
            return;
        }
        self.client.victim.take();
        self.client.sentenced.set(false);
    }

    /// The same behind a statement over several shards.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn outlive_sentence(&mut self) {
        while self.client.sentences.get() > 0 {
            tokio::time::sleep(POLL).await;
        }
        if self.lease.is_none() {
            self.client.victim.take();
            self.client.sentenced.set(false);
        }
    }
}
