//! What an engine tells of its clients, pools and connections, for the console and the metrics.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::metrics::counters::DatabaseCounters;
use crate::metrics::view::{
    Address, ClientRow, ClientState, DatabaseRow, Detail, PoolRow, Role, RouteRow, ServerRow,
    ServerState, Snapshot as View,
};
use crate::planner::tally::{self, Last};
use crate::server::connection::{CancelTarget, ServerConnection};
use crate::server::pool::Pool;

use super::client::{Activity, Client};
use super::engine::{Database, Engine, Pools};

impl Engine {
    /// What this engine does now.
    pub(super) fn view(&self, detail: Detail) -> View {
        let now = self.now();
        let mut view = View {
            engines: 1,
            login_clients: u64::try_from(self.logging_in.get()).unwrap_or(0),
            ..View::default()
        };
        view.clients = self
            .clients
            .borrow()
            .values()
            .map(|client| self.client_row(client, now))
            .collect();
        let counters = self.counters.borrow();
        view.shards = counters
            .databases
            .iter()
            .flat_map(|database| {
                let shards = database.shards.iter();
                shards.map(|shard| shard.row(&database.name))
            })
            .collect();
        let databases = self.databases.borrow();
        let mut names: Vec<&Rc<Database>> = databases.values().collect();
        names.sort_by(|one, other| one.name.cmp(&other.name));
        for database in names {
            self.view_database(database, detail, now, &mut view);
        }
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
        let buffered = clients.iter().map(|client| client.buffered.get());
        let buffered = buffered.fold(0, usize::saturating_add);
        view.multi_buffered_bytes = view
            .multi_buffered_bytes
            .saturating_add(u64::try_from(buffered).unwrap_or(u64::MAX));
        let users: Vec<Pools> = database.pools.borrow().values().map(Rc::clone).collect();
        for pools in &users {
            for pool in pools.iter() {
                let pool_row = pool_row(database, pool, &clients, now);
                row.servers = row.servers.saturating_add(pool_row.server_count());
                view.pools.push(pool_row);
                if let Some((tried, fault)) = pool.last_attempt() {
                    let target = &pool.target;
                    let row = view.shards.iter_mut().find(|row| {
                        row.database == target.database && row.shard == target.shard_name
                    });
                    if let Some(row) = row {
                        row.attempted(Some(tried), fault.map(|fault| fault.to_string()));
                    }
                }
                if matches!(detail, Detail::Connections) {
                    pool.each_idle(|connection| {
                        view.servers.push(self.server_row(
                            pool,
                            connection,
                            ServerState::Idle,
                            None,
                        ));
                    });
                }
            }
        }
        if matches!(detail, Detail::Connections) {
            for client in &clients {
                let targets = client.targets.borrow();
                let rows = targets
                    .iter()
                    .map(|target| self.busy_row(database, client, target, now));
                view.servers.extend(rows);
            }
        }
        if matches!(detail, Detail::Routes) {
            let rows = database.memo.borrow().tallies();
            let rows = rows.into_iter().map(|row| route_row(database, row));
            view.routes.extend(rows);
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
            prepared_statements: u64::try_from(connection.statements().len()).unwrap_or(0),
            engine: self.index,
        }
    }

    /// A server connection that works for a client, which alone has it: what is known of it from outside.
    fn busy_row(
        &self,
        database: &Database,
        client: &Client,
        target: &CancelTarget,
        now: Instant,
    ) -> ServerRow {
        let when = |then: Instant| {
            let age = now.saturating_duration_since(then);
            let then = SystemTime::now().checked_sub(age);
            then.unwrap_or_else(SystemTime::now)
        };
        ServerRow {
            id: u64::from(target.token.pid),
            user: client.user.clone(),
            database: database.name.clone(),
            shard: database.topology.name(target.shard).to_owned(),
            role: Role::Primary,
            state: ServerState::Active,
            remote: address(&target.peer),
            local: address(""),
            connected: when(target.born),
            requested: when(client.since.get()),
            close_needed: false,
            link: Some(client.id),
            process: Some(target.token.pid),
            tls: target.tls.clone(),
            application_name: client.application_name.borrow().clone(),
            prepared_statements: u64::try_from(target.convoy.statements().len()).unwrap_or(0),
            engine: self.index,
        }
    }
}

fn route_row(database: &Database, row: tally::Row) -> RouteRow {
    let last = match row.last {
        Last::None => String::new(),
        Last::Reason(reason) => reason,
        Last::Shards(shards) => {
            let names = shards.iter().map(|shard| database.topology.name(shard));
            names.collect::<Vec<_>>().join(", ")
        }
    };
    RouteRow {
        database: database.name.clone(),
        statement: row.text,
        way: row.way,
        count: row.times,
        timed: row.timed,
        micros: row.micros,
        last,
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
