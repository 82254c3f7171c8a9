//! An engine at work: it takes messages, sweeps deadlines, and answers for its clients and pools.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use crate::config::Limits;
use crate::error::{Fault, SqlState};
use crate::metrics::Metrics;
use crate::metrics::counters::DatabaseCounters;
use crate::metrics::view::{
    Address, ClientRow, ClientState, DatabaseRow, Detail, PoolRow, Role, ServerRow, ServerState,
    Snapshot as View,
};
use crate::net::Stream;
use crate::placement::ShardId;
use crate::server::connection::{CancelTarget, ServerConnection};
use crate::server::pool::Pool;

use super::client::{Activity, Client};
use super::engine::{Database, Engine, Message};
use super::login;

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(100);
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
                    Some(message) => self.on_message(message),
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
                drop(done.send(()));
            }
            Message::Reload => {
                *self.snapshot.borrow_mut() = self.shared.snapshot.load_full();
                for client in self.clients.borrow().values() {
                    client.wake();
                }
            }
            Message::View { detail, answer } => drop(answer.send(self.view(detail))),
            Message::Pause { database, paused } => {
                self.each_pool(database.as_deref(), |pool| pool.pause(paused));
            }
            Message::Reconnect { database } => {
                let now = self.now();
                self.each_pool(database.as_deref(), |pool| pool.reconnect(now));
            }
            Message::Kill { database, fault } => {
                for client in self.clients.borrow().values() {
                    if database
                        .as_ref()
                        .is_none_or(|name| *name == client.database)
                    {
                        client.kill(fault.clone());
                    }
                }
                self.each_pool(database.as_deref(), |pool| pool.pause(true));
            }
            Message::KillClient { client, answer } => {
                let found = self.clients.borrow().get(&client).map(Rc::clone);
                if let Some(client) = &found {
                    client.kill(killed());
                }
                drop(answer.send(found.is_some()));
            }
            Message::Donate {
                database,
                user,
                shard,
            } => self.donate(&database, &user, shard),
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

    /// Sends cancel requests to every server connection that works for a client.
    fn cancel_client(self: &Rc<Engine>, client: &Rc<Client>) {
        let targets = client.targets.borrow().clone();
        if targets.is_empty() {
            client.canceled.set(true);
            client.wake();
        }
        for target in targets {
            self.cancel_now(&target);
        }
    }

    /// Sends a cancel request; the connection goes to nobody else until it has been taken.
    pub(crate) fn cancel_now(self: &Rc<Engine>, target: &Rc<CancelTarget>) {
        let target = Rc::clone(target);
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
                let users: Vec<Rc<[Rc<Pool>]>> =
                    known.pools.borrow().values().map(Rc::clone).collect();
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
            if pool.starves() {
                self.ask_for_donation(pool);
            }
        });
        self.retired.borrow_mut().retain(|pool| {
            pool.sweep(now);
            !pool.is_finished()
        });
        self.sweep_clients(now);
    }

    fn sweep_clients(&self, now: Instant) {
        let snapshot = self.snapshot.borrow().clone();
        let limits = &snapshot.config.limits;
        let drains = self.shared.stage.load(Ordering::Acquire) == super::engine::STOPPING;
        for client in self.clients.borrow().values() {
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
        }
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

    /// The place of a database's counters; made when it is new.
    pub(crate) fn counters_index(&self, name: &str, shards: &[String]) -> usize {
        let mut counters = self.counters.borrow_mut();
        let names: Vec<&str> = shards.iter().map(String::as_str).collect();
        let known = counters.databases.iter().position(|database| {
            database.name == name
                && database
                    .shards
                    .iter()
                    .map(|shard| shard.name.as_str())
                    .eq(names.iter().copied())
        });
        known.unwrap_or_else(|| {
            counters.databases.push(DatabaseCounters::new(name, names));
            counters.databases.len().saturating_sub(1)
        })
    }

    pub(crate) fn count_client(&self, database: &str, came: bool) {
        let mut counters = self.counters.borrow_mut();
        if let Some(counters) = counters
            .databases
            .iter_mut()
            .find(|known| known.name == database)
        {
            let count = if came {
                &mut counters.clients_opened
            } else {
                &mut counters.clients_closed
            };
            count.add(1);
        }
    }

    /// Reloads so far.
    pub(crate) fn generation(&self) -> u64 {
        self.snapshot.borrow().generation
    }

    /// A reload replaced a database: pools that would be the same stay, the others retire.
    pub(crate) fn hand_over(self: &Rc<Engine>, old: &Rc<Database>, new: &Rc<Database>) {
        let unchanged = old.config == new.config && old.limits == new.limits;
        for (user, pools) in old.pools.borrow_mut().drain() {
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

    /// What this engine does now.
    fn view(&self, detail: Detail) -> View {
        let now = self.now();
        let mut view = View {
            engines: 1,
            login_clients: u64::try_from(self.logging_in.get()).unwrap_or(0),
            ..View::default()
        };
        for client in self.clients.borrow().values() {
            view.clients.push(self.client_row(client, now));
        }
        let databases = self.databases.borrow();
        let mut names: Vec<&Rc<Database>> = databases.values().collect();
        names.sort_by(|one, other| one.name.cmp(&other.name));
        for database in names {
            self.view_database(database, detail, now, &mut view);
        }
        let counters = self.counters.borrow();
        view.errors = counters.errors();
        view.stats = counters
            .databases
            .iter()
            .map(DatabaseCounters::stats)
            .collect();
        view.out_of_sync = counters.out_of_sync.total();
        view
    }

    fn view_database(
        &self,
        database: &Rc<Database>,
        detail: Detail,
        now: Instant,
        view: &mut View,
    ) {
        let mut row = DatabaseRow {
            name: database.name.clone(),
            paused: database.shared.paused.load(Ordering::Acquire),
            disabled: database.shared.disabled.load(Ordering::Acquire),
            clients: 0,
            servers: 0,
        };
        view.plans_cached = view
            .plans_cached
            .saturating_add(u64::try_from(database.statements.borrow().len()).unwrap_or(0));
        let clients: Vec<Rc<Client>> = self
            .clients
            .borrow()
            .values()
            .filter(|client| client.database == database.name)
            .map(Rc::clone)
            .collect();
        row.clients = u64::try_from(clients.len()).unwrap_or(0);
        for pools in database.pools.borrow().values() {
            for pool in pools.iter() {
                let pool_row = pool_row(database, pool, &clients, now);
                row.servers = row.servers.saturating_add(pool_row.server_count());
                view.pools.push(pool_row);
                if matches!(detail, Detail::Connections) {
                    pool.each_idle(|connection| {
                        view.servers.push(self.server_row(
                            pool,
                            connection,
                            ServerState::Idle,
                            None,
                        ))
                    });
                }
            }
        }
        if matches!(detail, Detail::Connections) {
            for client in &clients {
                view.servers.extend(self.busy_row(database, client));
            }
        }
        view.databases.push(row);
    }

    fn client_row(&self, client: &Rc<Client>, now: Instant) -> ClientRow {
        let activity = client.activity.get();
        let since = now.saturating_duration_since(client.since.get());
        let shard = client.shard.get().and_then(|shard| {
            let databases = self.databases.borrow();
            databases
                .get(&client.database)
                .map(|database| database.topology.name(shard).to_owned())
        });
        ClientRow {
            id: client.id,
            user: client.user.clone(),
            database: client.database.clone(),
            state: match activity {
                Activity::Waiting => ClientState::Waiting,
                Activity::Idle => ClientState::Idle,
                Activity::IdleInTransaction | Activity::Active => ClientState::Active,
            },
            remote: address(&client.peer),
            local: address(""),
            connected: client.connected,
            requested: SystemTime::now()
                .checked_sub(since)
                .unwrap_or(client.connected),
            wait: if activity == Activity::Waiting {
                since
            } else {
                Duration::ZERO
            },
            close_needed: false,
            link: client.server_id.get(),
            process: client
                .server_id
                .get()
                .and_then(|pid| u32::try_from(pid).ok()),
            tls: if client.tls {
                "TLS".to_owned()
            } else {
                String::new()
            },
            application_name: client.application_name.borrow().clone(),
            prepared_statements: u64::try_from(client.prepared.get()).unwrap_or(0),
            shard,
            pinned: client.pinned.get(),
            engine: self.index,
        }
    }

    fn server_row(
        &self,
        pool: &Pool,
        connection: &ServerConnection,
        state: ServerState,
        link: Option<u64>,
    ) -> ServerRow {
        let age = |instant: Instant| {
            SystemTime::now()
                .checked_sub(instant.elapsed())
                .unwrap_or_else(SystemTime::now)
        };
        ServerRow {
            id: connection.id,
            user: pool.target.credentials.user.clone(),
            database: pool.target.database.clone(),
            shard: pool.target.shard_name.clone(),
            role: Role::Primary,
            state,
            remote: address(&connection.stream.peer()),
            local: address(""),
            connected: age(connection.born),
            requested: age(connection.used),
            close_needed: false,
            link,
            process: u32::try_from(connection.id).ok(),
            tls: connection.stream.tls_description().unwrap_or_default(),
            application_name: String::new(),
            prepared_statements: u64::try_from(connection.statements.len()).unwrap_or(0),
            engine: self.index,
        }
    }

    /// The server connection that works for a client, as far as the client's record tells.
    fn busy_row(&self, database: &Database, client: &Client) -> Option<ServerRow> {
        let id = client.server_id.get()?;
        let shard = client.shard.get()?;
        Some(ServerRow {
            id,
            user: client.user.clone(),
            database: database.name.clone(),
            shard: database.topology.name(shard).to_owned(),
            role: Role::Primary,
            state: ServerState::Active,
            remote: address(""),
            local: address(""),
            connected: client.connected,
            requested: client.connected,
            close_needed: false,
            link: Some(client.id),
            process: u32::try_from(id).ok(),
            tls: String::new(),
            application_name: client.application_name.borrow().clone(),
            prepared_statements: 0,
            engine: self.index,
        })
    }
}

fn pool_row(database: &Database, pool: &Pool, clients: &[Rc<Client>], now: Instant) -> PoolRow {
    let target = &pool.target;
    let mode = database.pool_mode(None);
    let mut row = PoolRow::new(
        &database.name,
        &target.user,
        &target.shard_name,
        Role::Primary,
        mode,
    );
    let count = |count: usize| u64::try_from(count).unwrap_or(0);
    row.sv_idle = count(pool.idle_count());
    row.sv_active = count(pool.open_count().saturating_sub(pool.idle_count()));
    row.sv_login = count(pool.connecting_count());
    row.cl_waiting = count(pool.waiting_count());
    row.cl_active = count(
        clients
            .iter()
            .filter(|client| client.user == target.user && client.shard.get() == Some(target.shard))
            .count(),
    );
    row.max_wait = pool.longest_wait(now);
    row.out_of_sync = pool.counters.out_of_sync.get();
    row
}

fn address(text: &str) -> Address {
    match text.parse::<std::net::SocketAddr>() {
        Ok(socket) => Address::Ip(socket.ip(), socket.port()),
        Err(_not_ip) => Address::Unknown,
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
