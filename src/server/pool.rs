//! The pool of one user on one shard: idle connections, clients in line, and limits.
//!
//! Pools belong to one engine and need no locks; what several engines share are the budgets, which
//! are atomic counters. Waiting is first come, first served; idle connections are taken last in,
//! first out, one with the wanted settings before others.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::Host;
use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::server::connect::{self, Credentials};
use crate::server::connection::ServerConnection;
use crate::server::settings::Settings;
use crate::tls::Tls;

/// How often it is looked whether a cancel request has been taken.
const CANCEL_POLL: Duration = Duration::from_millis(2);

/// A number of connections that may be open at once, counted over all engines. 0 is no limit.
#[derive(Clone, Debug)]
pub struct Budget {
    pub used: Arc<AtomicUsize>,
    pub limit: usize,
}

impl Budget {
    fn try_take(&self) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (self.limit == 0 || used < self.limit).then(|| used.saturating_add(1))
            })
            .is_ok()
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One open connection's share of every budget it counts against; given back on drop.
#[derive(Debug, Default)]
pub struct Permit {
    budgets: Vec<Budget>,
}

impl Permit {
    /// One share of each, or none at all.
    pub fn take(budgets: &[Budget]) -> Option<Permit> {
        let mut permit = Permit {
            budgets: Vec::with_capacity(budgets.len()),
        };
        for budget in budgets {
            if !budget.try_take() {
                return None;
            }
            permit.budgets.push(budget.clone());
        }
        Some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.give_back();
        }
    }
}

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

/// Counters of a pool since it was made.
#[derive(Debug, Default)]
pub struct PoolCounters {
    pub opened: Cell<u64>,
    pub closed: Cell<u64>,
    pub out_of_sync: Cell<u64>,
    pub waits: Cell<u64>,
    pub wait_micros: Cell<u64>,
    pub connect_errors: Cell<u64>,
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
    /// The pool is replaced: everything that comes back is closed.
    retired: Cell<bool>,
    last_error: RefCell<Option<Fault>>,
}

/// A server connection on loan to one client. Dropped without [`Lease::release`] it is closed.
#[derive(Debug)]
pub struct Lease {
    connection: Option<Box<ServerConnection>>,
    pool: Rc<Pool>,
}

impl Lease {
    /// The pool it came from.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The connection. `None` cannot be seen: only `release` and `drop` take it out.
    pub fn connection(&mut self) -> Option<&mut ServerConnection> {
        self.connection.as_deref_mut()
    }

    /// The connection, read only.
    pub fn peek(&self) -> Option<&ServerConnection> {
        self.connection.as_deref()
    }

    /// The same as [`Lease::release`], but later while a cancel request is under way to the
    /// connection: the request must not hit whoever has it next.
    pub fn give_back(self, now: Instant) {
        if self.is_being_canceled() {
            tokio::task::spawn_local(async move {
                while self.is_being_canceled() {
                    tokio::time::sleep(CANCEL_POLL).await;
                }
                self.release(Instant::now());
            });
        } else {
            self.release(now);
        }
    }

    fn is_being_canceled(&self) -> bool {
        self.peek()
            .is_some_and(|connection| connection.cancel.under_way.get() > 0)
    }

    /// Gives the connection back: to the first in line, to the idle ones, or, when it is not clean,
    /// too old or unwanted, to nobody.
    pub fn release(mut self, now: Instant) {
        if let Some(connection) = self.connection.take() {
            let pool = Rc::clone(&self.pool);
            pool.take_back(connection, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.terminate();
            self.pool.closed(connection);
        }
    }
}

impl Pool {
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

    /// Waits for a connection, opening one where the limits allow.
    ///
    /// # Errors
    /// 53300 after `query_wait_timeout`, or why no connection can be opened.
    ///
    /// # Cancel safety
    /// Safe: a connection handed over to a waiter that is gone goes to the next.
    pub async fn acquire(self: &Rc<Pool>, settings: &Rc<Settings>, now: Instant) -> Answer {
        if let Some(lease) = self.take(settings) {
            return Ok(lease);
        }
        let (answer, receiver) = oneshot::channel();
        self.waiters
            .borrow_mut()
            .push_back(Waiter { answer, since: now });
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
        if self.paused.get() || self.retired.get() {
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
                    let connection =
                        ServerConnection::new(connected, pool.target.shard, permit, now);
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
        bump(&self.counters.connect_errors, 1);
        tracing::warn!(shard = %self.target.shard_name, error = %fault, "could not connect");
        if self.open.get() == 0 && self.connecting.get() == 0 {
            for waiter in self.waiters.borrow_mut().drain(..) {
                drop(waiter.answer.send(Err(fault.clone())));
            }
        }
        *self.last_error.borrow_mut() = Some(fault);
    }

    fn take_back(self: &Rc<Pool>, mut connection: Box<ServerConnection>, now: Instant) {
        let limits = &self.target.limits;
        let expired = !limits.lifetime.is_zero()
            && now.saturating_duration_since(connection.born) > limits.lifetime;
        let outdated = self
            .reconnect_before
            .get()
            .is_some_and(|before| connection.born < before);
        let clean = connection.is_clean();
        if !clean || expired || outdated || self.paused.get() || self.retired.get() {
            connection.terminate();
            self.closed(connection);
            return;
        }
        connection.used = now;
        let mut lease = Lease {
            connection: Some(connection),
            pool: Rc::clone(self),
        };
        loop {
            let next = self.waiters.borrow_mut().pop_front();
            let Some(waiter) = next else { break };
            bump(&self.counters.waits, 1);
            let waited = now.saturating_duration_since(waiter.since).as_micros();
            bump(
                &self.counters.wait_micros,
                u64::try_from(waited).unwrap_or(u64::MAX),
            );
            match waiter.answer.send(Ok(lease)) {
                Ok(()) => return,
                // That client is gone: the next one.
                Err(Ok(back)) => lease = back,
                Err(Err(_)) => return,
            }
        }
        if let Some(connection) = lease.connection.take() {
            self.idle.borrow_mut().push_back(connection);
        }
    }

    /// Forgets a connection and lets someone in line have its place.
    fn closed(self: &Rc<Pool>, connection: Box<ServerConnection>) {
        self.open.set(self.open.get().saturating_sub(1));
        bump(&self.counters.closed, 1);
        drop(connection);
        if !self.waiters.borrow().is_empty() {
            self.grow();
        }
    }

    /// Closes what is too old or too long idle, fails who waited too long, opens reserve and
    /// minimum connections. Called a few times a second.
    pub fn sweep(self: &Rc<Pool>, now: Instant) {
        let limits = &self.target.limits;
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        for mut connection in idle {
            let too_old = !limits.lifetime.is_zero()
                && now.saturating_duration_since(connection.born) > limits.lifetime;
            let too_long_idle = !limits.idle_timeout.is_zero()
                && self.open.get() > limits.min_size
                && now.saturating_duration_since(connection.used) > limits.idle_timeout;
            if too_old || too_long_idle || connection.is_stale() {
                connection.terminate();
                self.closed(connection);
            } else {
                self.idle.borrow_mut().push_back(connection);
            }
        }
        if !limits.wait_timeout.is_zero() {
            self.fail_late(now);
        }
        let waited = self
            .waiters
            .borrow()
            .front()
            .map(|waiter| now.saturating_duration_since(waiter.since));
        if waited.is_some() {
            self.grow();
        }
        if waited.is_some_and(|waited| waited > limits.reserve_timeout)
            && limits.reserve.limit > 0
            && !self.paused.get()
            && self.connecting.get() < self.waiters.borrow().len()
            && let Some(permit) = Permit::take(std::slice::from_ref(&limits.reserve))
        {
            self.open_one(permit);
        }
        let wanted = limits
            .min_size
            .saturating_sub(self.open.get().saturating_add(self.connecting.get()));
        if wanted > 0
            && !self.paused.get()
            && !self.retired.get()
            && let Some(permit) = Permit::take(&limits.budgets)
        {
            self.open_one(permit);
        }
    }

    fn fail_late(&self, now: Instant) {
        let timeout = self.target.limits.wait_timeout;
        let mut waiters = self.waiters.borrow_mut();
        waiters.retain(|waiter| !waiter.answer.is_closed());
        while waiters
            .front()
            .is_some_and(|waiter| now.saturating_duration_since(waiter.since) > timeout)
        {
            let Some(waiter) = waiters.pop_front() else {
                return;
            };
            let mut fault = Fault::error(
                SqlState::TOO_MANY_CONNECTIONS,
                format!(
                    "no connection to shard \"{}\" became free in time",
                    self.target.shard_name
                ),
            )
            .detail(format!(
                "The statement waited longer than query_wait_timeout ({timeout:?})."
            ))
            .hint("Raise default_pool_size or query_wait_timeout, or shorten transactions.");
            if let Some(error) = self.last_error.borrow().as_ref() {
                fault.detail = Some(format!(
                    "The last attempt to connect failed: {}.",
                    error.message
                ));
            }
            drop(waiter.answer.send(Err(fault)));
        }
    }

    /// Closes one idle connection so that another engine or pool may open one; the longest unused.
    pub fn close_idle(self: &Rc<Pool>) -> bool {
        let oldest = self.idle.borrow_mut().pop_front();
        match oldest {
            Some(mut connection) => {
                connection.terminate();
                self.closed(connection);
                true
            }
            None => false,
        }
    }

    /// Stops lending and closes what is idle (PAUSE), or lends again (RESUME).
    pub fn pause(self: &Rc<Pool>, paused: bool) {
        self.paused.set(paused);
        if paused {
            while self.close_idle() {}
        } else {
            self.grow();
        }
    }

    /// Closes idle connections now and the others as they come back (RECONNECT).
    pub fn reconnect(self: &Rc<Pool>, now: Instant) {
        self.reconnect_before.set(Some(now));
        while self.close_idle() {}
    }

    /// The pool is replaced by another: closes everything as it comes back; who is in line is told to retry.
    pub fn retire(self: &Rc<Pool>) {
        self.retired.set(true);
        while self.close_idle() {}
        self.waiters.borrow_mut().clear();
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
