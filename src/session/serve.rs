//! An engine at work: it takes messages, sweeps deadlines, and answers for its clients and pools.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::config::Limits;
use crate::error::{Fault, SqlState};
use crate::metrics::Metrics;
use crate::net::Stream;
use crate::placement::ShardId;
use crate::server::connection::CancelTarget;
use crate::server::pool::Pool;

use super::client::{Activity, Client};
use super::engine::{Database, Engine, Message, Pools};
use super::login;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(100);
/// How long servers may take to act on a cancel request before a statement over several shards ends without them.
const CANCEL_PATIENCE: Duration = Duration::from_millis(70);
/// How often counters are folded into the metrics: each so many sweeps.
const FOLD_EVERY: u32 = 10;
/// Clients that may be logging in to one engine at once; the others wait in the accept queue.
const LOGGING_IN_MAX: usize = 1_000;

impl Engine {
    /// Runs until the sender of messages is gone.
    ///
    /// # Cancel safety
    /// Not safe: a drop ends every client.
    pub async fn run(
        self: Rc<Engine>,
        mut messages: mpsc::Receiver<Message>,
        metrics: Arc<Metrics>,
    ) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            tokio::select! {
                biased;
                // Safe: nothing is lost by a tick that is not taken.
                _ = tick.tick() => {
                    self.sweep();
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(FOLD_EVERY) {
                        self.counters.borrow_mut().fold(&metrics);
                    }
                }
                // Safe: a message is taken or stays.
                message = messages.recv() => match message {
                    Some(Message::End) | None => break,
                    Some(message) => {
                        if matches!(message, Message::View { .. }) {
                            // Who looks sees everything up to now.
                            self.each_pool(None, |pool| self.count_connections(pool));
                            self.counters.borrow_mut().fold(&metrics);
                        }
                        self.on_message(message);
                    }
                }
            }
        }
        self.counters.borrow_mut().fold(&metrics);
    }

    fn on_message(self: &Rc<Engine>, message: Message) {
        match message {
            Message::Tcp(stream) => {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| tokio::net::TcpStream::from_std(stream))
                    .and_then(Stream::tcp);
                self.on_socket(stream);
            }
            Message::Unix(stream) => {
                let stream = stream
                    .set_nonblocking(true)
                    .and_then(|()| tokio::net::UnixStream::from_std(stream))
                    .map(Stream::unix);
                self.on_socket(stream);
            }
            Message::Cancel { client, done } => {
                let client = self.clients.borrow().get(&client).map(Rc::clone);
                if let Some(client) = client {
                    self.cancel_client(&client);
                }
                // The requester may have left.
                let _ = done.send(());
            }
            Message::Reload => {
                *self.snapshot.borrow_mut() = self.shared.snapshot.load_full();
                self.clients
                    .borrow()
                    .values()
                    .for_each(|client| client.wake());
            }
            Message::View { detail, answer } => drop(answer.send(self.view(detail))),
            Message::Pause { database, paused } => {
                self.each_pool(database.as_deref(), |pool| pool.pause(paused));
            }
            Message::Reconnect { database } => {
                let now = self.now();
                self.each_pool(database.as_deref(), |pool| pool.reconnect(now));
                self.databases
                    .borrow()
                    .values()
                    .filter(|known| database.as_ref().is_none_or(|name| *name == known.name))
                    .for_each(|known| known.greetings.borrow_mut().clear());
            }
            Message::Kill { database, fault } => {
                self.clients
                    .borrow()
                    .values()
                    .filter(|client| {
                        database
                            .as_ref()
                            .is_none_or(|name| *name == client.database)
                    })
                    .for_each(|client| client.kill(fault.clone()));
                self.each_pool(database.as_deref(), |pool| pool.pause(true));
            }
            Message::KillClient { client, answer } => {
                let found = self.clients.borrow().get(&client).map(Rc::clone);
                if let Some(client) = &found {
                    client.kill(killed());
                }
                // The asker may have left.
                let _ = answer.send(found.is_some());
            }
            Message::Donate {
                database,
                user,
                shard,
            } => self.donate(&database, &user, shard),
            Message::Waits {
                database,
                after,
                answer,
            } => drop(answer.send(self.waits(&database, after))),
            Message::Sentence { sentence, answer } => {
                // The asker may have left.
                let _ = answer.send(self.carry_out(*sentence));
            }
            Message::End => {}
        }
    }

    fn on_socket(self: &Rc<Engine>, stream: std::io::Result<Stream>) {
        match stream {
            Ok(stream) if self.logging_in.get() < LOGGING_IN_MAX => {
                tokio::task::spawn_local(login::serve(Rc::clone(self), stream));
            }
            Ok(_) => tracing::warn!("too many clients are logging in at once: one is turned away"),
            Err(error) => tracing::debug!(%error, "an accepted socket could not be used"),
        }
    }

    /// Sends cancel requests to every server connection that works for a client. Those that a client holds
    /// while it waits for another one do not work: then it is told itself.
    fn cancel_client(self: &Rc<Engine>, client: &Rc<Client>) {
        let targets = client.targets.borrow().clone();
        if targets.is_empty() || client.activity.get() == Activity::Waiting {
            client.canceled.set(true);
            client.wake();
            return;
        }
        for target in targets {
            self.cancel_now(&target);
        }
        let step = client.step.get();
        if step == 0 {
            return;
        }
        let client = Rc::clone(client);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(CANCEL_PATIENCE).await;
            if client.step.get() == step {
                client.canceled.set(true);
                client.wake();
            }
        });
    }

    /// Sends a cancel request; the connection goes to nobody else until it has been taken.
    pub(crate) fn cancel_now(self: &Rc<Engine>, target: &Rc<CancelTarget>) {
        let target = Rc::clone(target);
        target.convoy.turn_away();
        target
            .under_way
            .set(target.under_way.get().saturating_add(1));
        let snapshot = self.snapshot.borrow().clone();
        tokio::task::spawn_local(async move {
            let limit = Duration::from_secs(5);
            let result =
                crate::server::connect::cancel(&target.token, &snapshot.tls.connector, limit).await;
            target
                .under_way
                .set(target.under_way.get().saturating_sub(1));
            if let Err(fault) = result {
                tracing::warn!(error = %fault, "could not pass a cancel request on");
            }
        });
    }

    fn each_pool(&self, database: Option<&str>, mut act: impl FnMut(&Rc<Pool>)) {
        let databases: Vec<Rc<Database>> =
            self.databases.borrow().values().map(Rc::clone).collect();
        for known in databases {
            if database.is_none_or(|name| name == known.name) {
                let users: Vec<Pools> = known.pools.borrow().values().map(Rc::clone).collect();
                users
                    .iter()
                    .flat_map(|pools| pools.iter())
                    .for_each(&mut act);
            }
        }
    }

    fn sweep(self: &Rc<Engine>) {
        let now = self.now();
        self.each_pool(None, |pool| {
            pool.sweep(now);
            self.count_connections(pool);
            if pool.starves() {
                self.ask_for_donation(pool);
            }
        });
        self.retired.borrow_mut().retain(|pool| {
            pool.sweep(now);
            self.count_connections(pool);
            !pool.is_finished()
        });
        self.sweep_clients(now);
        self.look_for_waits(now);
    }

    fn sweep_clients(&self, now: Instant) {
        let snapshot = self.snapshot.borrow().clone();
        let limits = &snapshot.config.limits;
        let drains = self.shared.stage.load(Ordering::Acquire) == super::engine::STOPPING;
        self.clients.borrow().values().for_each(|client| {
            let since = now.saturating_duration_since(client.since.get());
            if let Some(fault) = overdue(client.activity.get(), since, limits) {
                client.kill(fault);
            } else if drains
                && client.activity.get() == Activity::Idle
                && !super::console::is_console(&client.database)
            {
                client.kill(
                    Fault::fatal(
                        SqlState::ADMIN_SHUTDOWN,
                        "terminating connection: pgherd is shutting down",
                    )
                    .hint("Connect again."),
                );
            }
        });
    }

    /// Another engine may hold idle connections that count against the same budget; so may other users' pools here.
    fn ask_for_donation(&self, pool: &Rc<Pool>) {
        let target = &pool.target;
        self.donate(&target.database, &target.user, target.shard);
        for (index, engine) in self.shared.engines.get().into_iter().flatten().enumerate() {
            if index != self.index {
                // A full queue means that it will be asked again at the next sweep.
                drop(engine.try_send(Message::Donate {
                    database: target.database.clone(),
                    user: target.user.clone(),
                    shard: target.shard,
                }));
            }
        }
    }

    /// Closes one idle connection of this shard: of the same user where there is one, else of any other.
    fn donate(&self, database: &str, user: &str, shard: ShardId) {
        let mut own = None;
        let mut other = None;
        self.each_pool(Some(database), |pool| {
            if pool.target.shard == shard && pool.idle_count() > 0 && pool.waiting_count() == 0 {
                let slot = if pool.target.user == user {
                    &mut own
                } else {
                    &mut other
                };
                *slot = Some(Rc::clone(pool));
            }
        });
        if let Some(pool) = own.or(other) {
            pool.close_idle();
        }
    }

    /// Reloads so far.
    pub(crate) fn generation(&self) -> u64 {
        self.snapshot.borrow().generation
    }

    /// A reload replaced a database: pools that would be the same stay, the others retire.
    pub(crate) fn hand_over(self: &Rc<Engine>, old: &Rc<Database>, new: &Rc<Database>) {
        let unchanged = old.config == new.config && old.limits == new.limits;
        let mut handed: Vec<(String, Pools)> = old.pools.borrow_mut().drain().collect();
        handed.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (user, pools) in handed {
            let same_tls = pools
                .first()
                .is_some_and(|pool| Arc::ptr_eq(&pool.target.tls, &self.snapshot.borrow().tls));
            if unchanged && same_tls {
                new.pools.borrow_mut().insert(user, pools);
                continue;
            }
            for pool in pools.iter() {
                pool.retire();
                self.retired.borrow_mut().push(Rc::clone(pool));
            }
        }
    }
}

/// The error of a client that has been in a state for too long.
fn overdue(activity: Activity, since: Duration, limits: &Limits) -> Option<Fault> {
    let past = |limit: Duration| !limit.is_zero() && since > limit;
    match activity {
        Activity::Idle if past(limits.client_idle_timeout) => Some(
            Fault::fatal(
                SqlState::IDLE_SESSION_TIMEOUT,
                "terminating connection due to client_idle_timeout",
            )
            .hint("Connect again, or raise client_idle_timeout."),
        ),
        Activity::IdleInTransaction if past(limits.idle_transaction_timeout) => Some(
            Fault::fatal(
                SqlState::IDLE_IN_TRANSACTION_TIMEOUT,
                "terminating connection due to idle_transaction_timeout",
            )
            .hint("Commit sooner, or raise idle_transaction_timeout."),
        ),
        Activity::Active if past(limits.query_timeout) => Some(
            Fault::fatal(
                SqlState::QUERY_CANCELED,
                "terminating connection due to query_timeout",
            )
            .hint("Raise query_timeout if statements may take this long."),
        ),
        Activity::Idle | Activity::IdleInTransaction | Activity::Active | Activity::Waiting => None,
    }
}

fn killed() -> Fault {
    Fault::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection due to administrator command",
    )
}
