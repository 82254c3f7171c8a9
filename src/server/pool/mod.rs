//! The pool of one user on one shard: idle connections, clients in line, and limits.
//!
//! Pools belong to one engine and need no locks; what several engines share are the budgets, which
//! are atomic counters. Waiting is first come, first served; idle connections are taken last in,
//! first out, one with the wanted settings before others.

mod budget;
pub mod convoy;
mod lease;
mod upkeep;
pub mod waits;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::Host;
use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::server::connect::{self, Credentials};
use crate::server::connection::{CancelTarget, ServerConnection};
use crate::server::settings::Settings;
use crate::tls::Tls;

pub use budget::{Budget, Permit};
pub use lease::Lease;

use convoy::Convoy;

/// Where a pool connects to, as whom, and how many connections it may have.
#[derive(Debug)]
pub struct Target {
    pub database: String,
    pub user: String,
    pub shard: ShardId,
    pub shard_name: String,
    pub host: Host,
    pub credentials: Credentials,
    pub tls: Arc<Tls>,
    pub limits: PoolLimits,
}

/// The limits of a pool. Zero durations are no limit.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// The pool's own size, then those of its database and user.
    pub budgets: Vec<Budget>,
    /// May be used by those who waited longer than `reserve_timeout`.
    pub reserve: Budget,
    pub reserve_timeout: Duration,
    pub min_size: usize,
    pub wait_timeout: Duration,
    pub connect_timeout: Duration,
    pub lifetime: Duration,
    pub idle_timeout: Duration,
}

/// Counters of a pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Connections opened that the engine has not counted yet.
    pub opened: Cell<u64>,
    /// Connections closed that the engine has not counted yet.
    pub closed: Cell<u64>,
    /// Attempts to connect that failed and that the engine has not counted yet.
    pub failed: Cell<u64>,
    /// Connections closed since it was made because they were out of sync.
    pub out_of_sync: Cell<u64>,
}

/// Adds to a counter.
pub fn bump(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get().wrapping_add(by));
}

type Answer = Result<Lease, Fault>;

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Answer>,
    since: Instant,
    /// Who waits; 0 is no client.
    client: u64,
}

/// An open connection, whoever has it.
#[derive(Debug)]
struct Open {
    target: Rc<CancelTarget>,
    /// What it counts against.
    budgets: Vec<usize>,
}

/// The pool of one user on one shard, in one engine.
#[derive(Debug)]
pub struct Pool {
    pub target: Target,
    pub counters: PoolCounters,
    idle: RefCell<VecDeque<Box<ServerConnection>>>,
    waiters: RefCell<VecDeque<Waiter>>,
    /// Open connections: idle, leased, and being reset.
    open: Cell<usize>,
    connecting: Cell<usize>,
    paused: Cell<bool>,
    /// Connections born before this are closed when they come back.
    reconnect_before: Cell<Option<Instant>>,
    /// The pool is replaced: nothing is kept idle.
    retired: Cell<bool>,
    last_error: RefCell<Option<Fault>>,
    /// When the last attempt to connect ended.
    tried: Cell<Option<Instant>>,
    /// Those that may be followed, and those that still are.
    convoys: RefCell<Vec<Rc<Convoy>>>,
    /// Whether somebody looks after those who follow for too long.
    watched: Cell<bool>,
    /// Those open.
    connections: RefCell<Vec<Open>>,
}

impl Pool {
    /// A pool without connections.
    pub fn new(target: Target) -> Rc<Pool> {
        Rc::new(Pool {
            target,
            counters: PoolCounters::default(),
            idle: RefCell::default(),
            waiters: RefCell::default(),
            open: Cell::new(0),
            connecting: Cell::new(0),
            paused: Cell::new(false),
            reconnect_before: Cell::new(None),
            retired: Cell::new(false),
            last_error: RefCell::default(),
            tried: Cell::new(None),
            convoys: RefCell::default(),
            watched: Cell::new(false),
            connections: RefCell::default(),
        })
    }

    /// An idle connection at once, if there is one and nobody is in line: the most recently used
    /// with these settings, else the most recently used.
    pub fn take(self: &Rc<Pool>, settings: &Rc<Settings>) -> Option<Lease> {
        if self.paused.get() || !self.waiters.borrow().is_empty() {
            return None;
        }
        loop {
            let mut connection = {
                let mut idle = self.idle.borrow_mut();
                let matching = idle
                    .iter()
                    .rposition(|connection| connection.settings.same(settings));
                match matching {
                    Some(index) => idle.remove(index)?,
                    None => idle.pop_back()?,
                }
            };
            if connection.is_stale() {
                self.closed(connection);
                continue;
            }
            return Some(Lease {
                connection: Some(connection),
                pool: Rc::clone(self),
            });
        }
    }

    /// Waits for a connection on behalf of a client, opening one where the limits allow.
    ///
    /// # Errors
    /// 53300 after `query_wait_timeout`, or why no connection can be opened.
    ///
    /// # Cancel safety
    /// Safe: a connection handed over to a waiter that is gone goes to the next.
    pub async fn acquire(
        self: &Rc<Pool>,
        settings: &Rc<Settings>,
        now: Instant,
        client: u64,
    ) -> Answer {
        if let Some(lease) = self.take(settings) {
            lease.lend(client, now);
            return Ok(lease);
        }
        let (answer, receiver) = oneshot::channel();
        self.waiters.borrow_mut().push_back(Waiter {
            answer,
            since: now,
            client,
        });
        self.grow();
        receiver.await.unwrap_or_else(|_closed| {
            Err(
                Fault::error(SqlState::ADMIN_SHUTDOWN, "the pool is shutting down")
                    .hint("Connect again."),
            )
        })
    }

    /// Opens connections for those in line, as far as the limits allow.
    pub fn grow(self: &Rc<Pool>) {
        if self.paused.get() {
            return;
        }
        let in_line = self.waiters.borrow().len();
        while self.connecting.get() < in_line {
            let Some(permit) = Permit::take(&self.target.limits.budgets) else {
                return;
            };
            self.open_one(permit);
        }
    }

    fn open_one(self: &Rc<Pool>, permit: Permit) {
        self.connecting.set(self.connecting.get().saturating_add(1));
        let pool = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let target = &pool.target;
            let connected = connect::connect(
                &target.host,
                &target.tls.connector,
                &target.credentials,
                &[],
                target.limits.connect_timeout,
            )
            .await;
            pool.connecting.set(pool.connecting.get().saturating_sub(1));
            match connected {
                Ok(connected) => {
                    pool.open.set(pool.open.get().saturating_add(1));
                    bump(&pool.counters.opened, 1);
                    *pool.last_error.borrow_mut() = None;
                    let now = Instant::now();
                    pool.tried.set(Some(now));
                    let budgets = permit.budgets();
                    let connection =
                        ServerConnection::new(connected, pool.target.shard, permit, now);
                    pool.connections.borrow_mut().push(Open {
                        target: Rc::clone(&connection.cancel),
                        budgets,
                    });
                    pool.take_back(Box::new(connection), now);
                }
                Err(error) => {
                    drop(permit);
                    pool.connect_failed(error.into_fault(&pool.target.shard_name));
                }
            }
        });
    }

    /// Nobody can be served while no connection is open: everyone in line hears why. With some
    /// open, those in line wait for one to come back.
    fn connect_failed(self: &Rc<Pool>, fault: Fault) {
        bump(&self.counters.failed, 1);
        self.tried.set(Some(Instant::now()));
        tracing::warn!(shard = %self.target.shard_name, error = %fault, "could not connect");
        if self.open.get() == 0 && self.connecting.get() == 0 {
            for waiter in self.waiters.borrow_mut().drain(..) {
                drop(waiter.answer.send(Err(fault.clone())));
            }
        }
        *self.last_error.borrow_mut() = Some(fault);
    }

    fn take_back(self: &Rc<Pool>, mut connection: Box<ServerConnection>, now: Instant) {
        self.end_convoy(&connection);
        connection.cancel.take_back();
        let expired = self.is_expired(&connection, now);
        let outdated = self
            .reconnect_before
            .get()
            .is_some_and(|before| connection.born < before);
        let clean = connection.is_clean() && connection.ahead.is_empty();
        if !clean || expired || outdated || self.paused.get() {
            connection.terminate();
            self.closed(connection);
            return;
        }
        connection.used = now;
        connection.advanced = false;
        let mut lease = Lease {
            connection: Some(connection),
            pool: Rc::clone(self),
        };
        loop {
            let next = self.waiters.borrow_mut().pop_front();
            let Some(waiter) = next else { break };
            lease.lend(waiter.client, now);
            match waiter.answer.send(Ok(lease)) {
                // That client is gone: the next one.
                Err(Ok(back)) => lease = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        // A lease that is dropped closes its connection.
        if !self.retired.get()
            && let Some(connection) = lease.connection.take()
        {
            connection.cancel.take_back();
            self.idle.borrow_mut().push_back(connection);
        }
    }

    /// Whether it has reached its age.
    fn is_expired(&self, connection: &ServerConnection, now: Instant) -> bool {
        let lifetime = self.target.limits.lifetime;
        !lifetime.is_zero() && now.saturating_duration_since(connection.born) > lifetime
    }

    /// Forgets a connection and lets someone in line have its place.
    fn closed(self: &Rc<Pool>, connection: Box<ServerConnection>) {
        self.open.set(self.open.get().saturating_sub(1));
        bump(&self.counters.closed, 1);
        let target = &connection.cancel;
        self.connections
            .borrow_mut()
            .retain(|open| !Rc::ptr_eq(&open.target, target));
        drop(connection);
        if !self.waiters.borrow().is_empty() {
            self.grow();
        }
    }

    /// Whether clients are in line and no connection can be opened for them.
    pub fn starves(&self) -> bool {
        !self.paused.get() && self.connecting.get() == 0 && self.waiting_count() > 0
    }

    /// Connections that are idle.
    pub fn idle_count(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Connections open, idle or not.
    pub fn open_count(&self) -> usize {
        self.open.get()
    }

    /// Connections being opened.
    pub fn connecting_count(&self) -> usize {
        self.connecting.get()
    }

    /// Clients in line.
    pub fn waiting_count(&self) -> usize {
        self.waiters
            .borrow()
            .iter()
            .filter(|waiter| !waiter.answer.is_closed())
            .count()
    }

    /// How long the first in line has waited.
    pub fn longest_wait(&self, now: Instant) -> Duration {
        self.waiters
            .borrow()
            .front()
            .map_or(Duration::ZERO, |waiter| {
                now.saturating_duration_since(waiter.since)
            })
    }

    /// When the last attempt to connect ended, if there was one, and why it failed, if it did.
    pub fn last_attempt(&self) -> Option<(Instant, Option<Fault>)> {
        let tried = self.tried.get()?;
        Some((tried, self.last_error.borrow().clone()))
    }

    /// Whether PAUSE holds it: nothing is lent.
    pub fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Calls `look` with each idle connection.
    pub fn each_idle(&self, mut look: impl FnMut(&ServerConnection)) {
        for connection in self.idle.borrow().iter() {
            look(connection);
        }
    }
}
