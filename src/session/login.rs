//! From an accepted socket to a session: startup, authentication, limits, the greeting.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::config::{self, KeepUnnamed, Secret};
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::auth::Credentials;
use crate::server::hidden;
use crate::server::pool::{Budget, Lease, Pool, PoolLimits, Target};
use crate::server::settings::{Settings, quote_literal};
use crate::wire::backend::{self, Status};
use crate::wire::cancel_key::CancelKey;
use crate::wire::frame::{self, Split};

use super::Session;
use super::auth::{self, AuthError, Context, Identity, LookUp, Secrets};
use super::client::Client;
use super::console::{self, Next};
use super::engine::{Database, Engine, GREETINGS_MAX, Greeting, Message, RUNNING, Snapshot};
use super::startup::{self, Startup};

/// Serves one accepted socket to its end.
///
/// # Cancel safety
/// Not safe: a drop closes the client in the middle.
pub async fn serve(engine: Rc<Engine>, stream: Stream) {
    let snapshot = engine.snapshot.borrow().clone();
    let timeout = snapshot.config.limits.client_login_timeout;
    let timeout = if timeout.is_zero() {
        Duration::from_secs(3600)
    } else {
        timeout
    };
    let deadline = Instant::now() + timeout;
    engine
        .logging_in
        .set(engine.logging_in.get().saturating_add(1));
    let opened = Box::pin(open(&engine, &snapshot, stream, deadline)).await;
    engine
        .logging_in
        .set(engine.logging_in.get().saturating_sub(1));
    match opened {
        Some(Opened::Session(session)) => {
            let client = Rc::clone(&session.client);
            session.run().await;
            leave(&engine, &client);
        }
        Some(Opened::Console {
            stream,
            client,
            conversation,
        }) => {
            Box::pin(run_console(stream, &client, conversation)).await;
            leave(&engine, &client);
        }
        None => {}
    }
}

enum Opened {
    Session(Box<Session>),
    Console {
        stream: Stream,
        client: Rc<Client>,
        conversation: Box<dyn console::Conversation>,
    },
}

fn leave(engine: &Rc<Engine>, client: &Rc<Client>) {
    engine.shared.remove_key(client.key.pid());
    engine.clients.borrow_mut().remove(&client.id);
    engine.shared.clients.fetch_sub(1, Ordering::AcqRel);
    engine.count_client(&client.database, false);
}

async fn open(
    engine: &Rc<Engine>,
    snapshot: &Arc<Snapshot>,
    stream: Stream,
    deadline: Instant,
) -> Option<Opened> {
    let mut client = match startup::accept(stream, &snapshot.tls, deadline).await {
        Ok(Startup::Client(client)) => client,
        Ok(Startup::Cancel {
            pid,
            secret,
            stream,
        }) => {
            pass_cancel(engine, pid, &secret).await;
            drop(stream);
            return None;
        }
        Err(error) => {
            tracing::debug!(%error, "connection without a client");
            return None;
        }
    };
    let result = log_in(engine, snapshot, &mut client, deadline).await;
    match result {
        Ok(Some(login)) => login.into_opened(engine, *client),
        Ok(None) => None,
        Err(fault) => {
            engine.count_fault(&fault);
            tracing::info!(user = %client.user, database = %client.database, peer = %client.stream.peer(), error = %fault, "login failed");
            let fault = fault.into_fatal();
            startup::refuse(&mut client.stream, &fault, deadline).await;
            None
        }
    }
}

/// Hands a cancel request to the engine of its client and waits until it has been passed on.
async fn pass_cancel(engine: &Rc<Engine>, pid: i32, secret: &[u8]) {
    let Some((index, client)) = engine.shared.find_key(pid, secret) else {
        tracing::info!("cancel request with an unknown key");
        return;
    };
    let Some(target) = engine
        .shared
        .engines
        .get()
        .and_then(|engines| engines.get(index))
    else {
        return;
    };
    let (done, passed) = tokio::sync::oneshot::channel();
    if target.send(Message::Cancel { client, done }).await.is_ok() {
        // A dropped answer means that the client is gone.
        drop(passed.await);
    }
}

/// A client that has proved who it is.
struct Login {
    shape: Shape,
    key: CancelKey,
    id: u64,
}

enum Shape {
    Session {
        database: Rc<Database>,
        pools: Rc<[Rc<Pool>]>,
        settings: Rc<Settings>,
        application_name: String,
        identity: Identity,
    },
    Console(Box<dyn console::Conversation>),
}

/// Counts the client in; counts it out again unless it stays.
struct Place<'a> {
    engine: &'a Engine,
    kept: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.engine.shared.clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

async fn log_in(
    engine: &Rc<Engine>,
    snapshot: &Arc<Snapshot>,
    client: &mut startup::Client,
    deadline: Instant,
) -> Result<Option<Login>, Fault> {
    let config = &snapshot.config;
    let clients = engine.shared.clients.fetch_add(1, Ordering::AcqRel);
    let mut place = Place {
        engine,
        kept: false,
    };
    let limit = config.limits.max_client_conn;
    let is_console = console::is_console(&client.database);
    if limit > 0 && clients >= limit && !is_console {
        return Err(Fault::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "no more connections allowed (max_client_conn)",
        )
        .hint("Raise max_client_conn, or let clients share connections."));
    }
    if engine.shared.stage.load(Ordering::Acquire) != RUNNING {
        return Err(
            Fault::fatal(SqlState::ADMIN_SHUTDOWN, "pgherd is shutting down")
                .hint("Connect to another proxy, or again later."),
        );
    }
    let identity = prove(engine, snapshot, client, deadline).await?;
    let Some(identity) = identity else {
        return Ok(None);
    };
    let pid = engine.shared.next_pid();
    let key = CancelKey::new(pid, engine.shared.keyring.random()?, client.minor);
    let id = engine.shared.next_id();
    let mut greeting = Vec::new();
    let shape = if is_console {
        let Some(console) = engine.shared.console.get() else {
            return Err(Fault::fatal(
                SqlState::UNKNOWN_DATABASE,
                "the console is not available",
            ));
        };
        let rights = console.rights(&identity.user)?;
        for (name, value) in console.parameters() {
            backend::parameter_status(&mut greeting, name, &value);
        }
        Shape::Console(console.open(&identity.user, rights))
    } else {
        greet(engine, snapshot, client, identity, &mut greeting).await?
    };
    backend::backend_key_data(&mut greeting, key.pid(), key.secret());
    backend::ready_for_query(&mut greeting, Status::Idle);
    let sent = async {
        client.stream.write_all(&greeting).await?;
        client.stream.flush().await
    };
    if sent.await.is_err() {
        return Ok(None);
    }
    place.kept = true;
    Ok(Some(Login { shape, key, id }))
}

async fn prove(
    engine: &Rc<Engine>,
    snapshot: &Arc<Snapshot>,
    client: &mut startup::Client,
    deadline: Instant,
) -> Result<Option<Identity>, Fault> {
    let by_query = ByQuery {
        snapshot: Arc::clone(snapshot),
        engine: Rc::clone(engine),
    };
    let context = Context {
        auth: &snapshot.config.auth,
        users: &snapshot.config.users,
        keyring: &engine.shared.keyring,
        secrets: snapshot
            .config
            .auth
            .query
            .as_ref()
            .map(|_| -> &dyn Secrets { &by_query }),
        deadline,
    };
    match auth::authenticate(client, &context).await {
        Ok(identity) => Ok(Some(identity)),
        Err(AuthError::Refused { fault, reason }) => {
            tracing::info!(user = %client.user, reason, "authentication failed");
            Err(*fault)
        }
        Err(AuthError::Gone(error)) => {
            tracing::debug!(%error, "client left while logging in");
            Ok(None)
        }
    }
}

/// Looks users up by `auth.query`.
struct ByQuery {
    snapshot: Arc<Snapshot>,
    engine: Rc<Engine>,
}

impl Secrets for ByQuery {
    fn look_up<'a>(&'a self, user: &'a str, database: &'a str) -> LookUp<'a> {
        let control = Arc::clone(&self.snapshot.control);
        let (user, database) = (user.to_owned(), database.to_owned());
        let task = self
            .engine
            .shared
            .control_runtime
            .spawn(async move { control.auth_query(&database, &user).await });
        Box::pin(async move {
            let found = task.await.unwrap_or_else(|_panicked| {
                Err(Fault::error(
                    SqlState::INTERNAL,
                    "could not look the user up",
                ))
            })?;
            Ok(found.and_then(|(_, secret)| secret))
        })
    }
}

/// Resolves the database and its pools, and writes what a server of it reports at login.
async fn greet(
    engine: &Rc<Engine>,
    snapshot: &Arc<Snapshot>,
    client: &startup::Client,
    identity: Identity,
    greeting: &mut Vec<u8>,
) -> Result<Shape, Fault> {
    let database = engine.database(snapshot, &client.database)?;
    if database.shared.disabled.load(Ordering::Acquire) {
        return Err(Fault::fatal(
            SqlState::CANNOT_CONNECT_NOW,
            format!("database \"{}\" is disabled", database.name),
        )
        .hint("An administrator can ENABLE it in the console."));
    }
    let pools = engine.pools(&database, snapshot, &identity)?;
    let (settings, application_name) = startup_settings(client, &database);
    let known = engine
        .greeting(&database, &pools, &identity.user, &settings)
        .await?;
    for (name, value) in known.iter() {
        if name != "application_name" {
            backend::parameter_status(greeting, name, value);
        }
    }
    backend::parameter_status(greeting, "application_name", &application_name);
    Ok(Shape::Session {
        database,
        pools,
        settings,
        application_name,
        identity,
    })
}

/// The client's startup parameters as settings, and its application_name.
fn startup_settings(client: &startup::Client, database: &Database) -> (Rc<Settings>, String) {
    let mut values = BTreeMap::new();
    let mut application_name = String::new();
    if database.limits.keep_unnamed_statements == KeepUnnamed::Custom {
        values.insert("plan_cache_mode".to_owned(), "force_custom_plan".to_owned());
    }
    for (name, value) in &client.parameters {
        let name = name.to_ascii_lowercase();
        let value = match name.as_str() {
            // asyncpg puts quotes inside the value.
            "client_encoding" => value.trim_matches('\''),
            _ => value,
        };
        if name == "application_name" {
            value.clone_into(&mut application_name);
        }
        let text = match name.as_str() {
            "search_path" if value.trim().is_empty() => "''".to_owned(),
            "search_path" => value.to_owned(),
            _ => quote_literal(value),
        };
        values.insert(name, text);
    }
    (Settings::new(values), application_name)
}

impl Login {
    fn into_opened(self, engine: &Rc<Engine>, client: startup::Client) -> Option<Opened> {
        let now = engine.now();
        let pid = self.key.pid();
        let application_name = match &self.shape {
            Shape::Session {
                application_name, ..
            } => application_name.clone(),
            Shape::Console(_) => String::new(),
        };
        let shown = Client::new(
            self.id,
            client.user.clone(),
            client.database.clone(),
            client.stream.peer(),
            client.stream.is_tls(),
            application_name,
            self.key.clone(),
            now,
        );
        engine
            .clients
            .borrow_mut()
            .insert(self.id, Rc::clone(&shown));
        engine.shared.add_key(self.key, engine.index, self.id);
        engine.count_client(&client.database, true);
        tracing::debug!(client = self.id, pid, user = %client.user, database = %client.database, "client logged in");
        match self.shape {
            Shape::Console(conversation) => Some(Opened::Console {
                stream: client.stream,
                client: shown,
                conversation,
            }),
            Shape::Session {
                database,
                pools,
                settings,
                identity,
                ..
            } => {
                let snapshot = engine.snapshot.borrow();
                let user = snapshot.config.users.get(&client.user);
                let pool_mode = database.pool_mode(user);
                let hints = user.is_some_and(|user| user.comment_hints);
                Some(Opened::Session(Session::start(
                    Rc::clone(engine),
                    shown,
                    client.stream,
                    database,
                    pools,
                    pool_mode,
                    settings,
                    identity,
                    hints,
                )))
            }
        }
    }
}

impl Engine {
    /// The database a client named, from the configuration or by `"*"`.
    ///
    /// # Errors
    /// 3D000 when there is none.
    pub(crate) fn database(
        self: &Rc<Engine>,
        snapshot: &Arc<Snapshot>,
        name: &str,
    ) -> Result<Rc<Database>, Fault> {
        let known = self.databases.borrow().get(name).map(Rc::clone);
        if let Some(known) = known
            && known.generation == snapshot.generation
        {
            return Ok(known);
        }
        let (config, topology) = match (
            snapshot.config.databases.get(name),
            snapshot.topologies.get(name),
        ) {
            (Some(config), Some(topology)) => (Arc::new(config.clone()), Arc::clone(topology)),
            _ => fallback(snapshot, name)?,
        };
        let database = Rc::new(Database {
            name: name.to_owned(),
            index: self.counters_index(name, topology.shards()),
            config,
            topology,
            shared: self.shared.database(name),
            limits: snapshot.config.limits.clone(),
            generation: snapshot.generation,
            memo: RefCell::new(Database::memo(snapshot.config.limits.plan_cache_size)),
            paths: Default::default(),
            statements: Default::default(),
            planned_epoch: Default::default(),
            pools: Default::default(),
            greetings: Default::default(),
        });
        let replaced = self
            .databases
            .borrow_mut()
            .insert(name.to_owned(), Rc::clone(&database));
        if let Some(replaced) = replaced {
            self.hand_over(&replaced, &database);
        }
        Ok(database)
    }

    /// The pools of a user, one a shard.
    ///
    /// # Errors
    /// 28000 when nothing says with which password to log in to the servers.
    pub(crate) fn pools(
        self: &Rc<Engine>,
        database: &Rc<Database>,
        snapshot: &Arc<Snapshot>,
        identity: &Identity,
    ) -> Result<Rc<[Rc<Pool>]>, Fault> {
        if let Some(pools) = database.pools.borrow().get(&identity.user) {
            return Ok(Rc::clone(pools));
        }
        let credentials = credentials(database, identity)?;
        let mut pools = Vec::with_capacity(database.config.shards.len());
        for (index, shard) in database.config.shards.iter().enumerate() {
            let id = crate::placement::ShardId(u16::try_from(index).unwrap_or(u16::MAX));
            pools.push(Pool::new(Target {
                database: database.name.clone(),
                user: identity.user.clone(),
                shard: id,
                shard_name: shard.name.clone(),
                host: shard.primary.clone(),
                credentials: credentials.clone(),
                tls: Arc::clone(&snapshot.tls),
                limits: self.pool_limits(database, snapshot, &identity.user, &shard.name),
            }));
        }
        let pools: Rc<[Rc<Pool>]> = pools.into();
        database
            .pools
            .borrow_mut()
            .insert(identity.user.clone(), Rc::clone(&pools));
        Ok(pools)
    }

    fn pool_limits(
        &self,
        database: &Database,
        snapshot: &Snapshot,
        user: &str,
        shard: &str,
    ) -> PoolLimits {
        let limits = &database.limits;
        let own = snapshot.config.users.get(user);
        let size = own
            .and_then(|user| user.default_pool_size)
            .or(database.config.default_pool_size)
            .unwrap_or(limits.default_pool_size);
        let of_user = own
            .and_then(|user| user.max_user_connections)
            .unwrap_or(limits.max_user_connections);
        let name = &database.name;
        let budget = |kind: &str, limit| Budget {
            used: self.shared.budget(kind),
            limit,
        };
        PoolLimits {
            budgets: vec![
                budget(&format!("pool/{name}/{shard}/{user}"), size.max(1)),
                budget(
                    &format!("database/{name}/{shard}"),
                    limits.max_db_connections,
                ),
                budget(&format!("user/{user}"), of_user),
            ],
            reserve: budget(
                &format!("reserve/{name}/{shard}/{user}"),
                limits.reserve_pool_size,
            ),
            reserve_timeout: limits.reserve_pool_timeout,
            min_size: limits.min_pool_size,
            wait_timeout: limits.query_wait_timeout,
            connect_timeout: limits.server_connect_timeout,
            lifetime: limits.server_lifetime,
            idle_timeout: limits.server_idle_timeout,
        }
    }

    /// What a server reports at login under these settings; asked once, then remembered.
    async fn greeting(
        self: &Rc<Engine>,
        database: &Rc<Database>,
        pools: &Rc<[Rc<Pool>]>,
        user: &str,
        settings: &Rc<Settings>,
    ) -> Result<Greeting, Fault> {
        let bare = settings.without("application_name", &Settings::default());
        let key = (user.to_owned(), bare.fingerprint());
        if let Some(known) = database.greetings.borrow().get(&key) {
            return Ok(Rc::clone(known));
        }
        let home = usize::from(database.topology.home().0);
        let Some(pool) = pools.get(home) else {
            return Err(Fault::fatal(
                SqlState::INTERNAL,
                "the home shard has no pool",
            ));
        };
        let mut lease = pool.acquire(&bare, self.now()).await?;
        let greeting =
            ask_greeting(&mut lease, &bare, database.limits.server_connect_timeout).await?;
        lease.give_back(self.now());
        let mut greetings = database.greetings.borrow_mut();
        if greetings.len() >= GREETINGS_MAX {
            greetings.clear();
        }
        let greeting = Rc::new(greeting);
        greetings.insert(key, Rc::clone(&greeting));
        Ok(greeting)
    }
}

/// Brings a connection to the settings and reads what it reports now.
async fn ask_greeting(
    lease: &mut Lease,
    settings: &Rc<Settings>,
    limit: Duration,
) -> Result<Vec<(String, String)>, Fault> {
    let Some(connection) = lease.connection() else {
        return Ok(Vec::new());
    };
    let mut reported = connection.parameters.as_ref().clone();
    let sql = hidden::settings_sql(connection, settings);
    if !sql.is_empty() {
        connection.settings_unsure = true;
        let asked = hidden::run_reported(connection, &sql, &mut reported);
        match tokio::time::timeout(limit, asked).await {
            Ok(result) => result?,
            Err(_elapsed) => {
                return Err(Fault::fatal(
                    SqlState::CONNECTION_FAILURE,
                    "the server did not take the session's settings in time",
                )
                .hint("Check the home shard's health."));
            }
        }
        connection.settings = Rc::clone(settings);
        connection.settings_unsure = false;
        connection.parameters = Rc::new(reported.clone());
    }
    Ok(reported)
}

/// With what to log in to the servers.
fn credentials(database: &Database, identity: &Identity) -> Result<Credentials, Fault> {
    if let Some(user) = &database.config.server_user {
        return Ok(Credentials {
            user: user.clone(),
            password: database.config.server_password.clone(),
        });
    }
    match &identity.password {
        Some(Secret::Scram(_) | Secret::Md5(_)) => Err(Fault::fatal(
            SqlState::INVALID_AUTHORIZATION,
            format!("the servers' password of user \"{}\" is not known", identity.user),
        )
        .detail("The configuration holds a verifier, which proves a client but cannot log in to a server.")
        .hint("Set server_user and server_password of the database.")),
        password => Ok(Credentials {
            user: identity.user.clone(),
            password: password.clone(),
        }),
    }
}

/// A database by `"*"`: one shard, pooled only.
fn fallback(
    snapshot: &Snapshot,
    name: &str,
) -> Result<
    (
        Arc<config::Database>,
        Arc<crate::placement::topology::Topology>,
    ),
    Fault,
> {
    let Some(fallback) = &snapshot.config.fallback else {
        return Err(Fault::fatal(
            SqlState::UNKNOWN_DATABASE,
            format!("database \"{name}\" does not exist"),
        )
        .hint("Name it under databases in the configuration, or add a \"*\" entry."));
    };
    let config = fallback_database(fallback, name);
    let topology = crate::placement::topology::Topology::new(&config)?;
    Ok((Arc::new(config), Arc::new(topology)))
}

/// The configuration that `"*"` gives a database of this name.
fn fallback_database(fallback: &config::Fallback, name: &str) -> config::Database {
    let mut primary = fallback.server.clone();
    if primary.dbname.is_empty() {
        name.clone_into(&mut primary.dbname);
    }
    let home = "server".to_owned();
    config::Database {
        name: name.to_owned(),
        shards: vec![config::Shard {
            name: home.clone(),
            primary,
            replicas: Vec::new(),
        }],
        home,
        server_user: fallback.server_user.clone(),
        server_password: fallback.server_password.clone(),
        control_user: None,
        control_password: None,
        pool_mode: None,
        default_pool_size: None,
        distributions: BTreeMap::new(),
        tables: Vec::new(),
        unlisted: config::Unlisted::Single,
        constraints: config::Constraints::Allow,
    }
}

/// Feeds the console with whole frames until one side ends it.
async fn run_console(
    mut stream: Stream,
    client: &Rc<Client>,
    mut conversation: Box<dyn console::Conversation>,
) {
    let mut input = Vec::new();
    let mut out = Vec::new();
    loop {
        let taken = match frame::split(&input, CONSOLE_MESSAGE_MAX) {
            Ok(Split::Whole(frame, rest)) => {
                let used = input.len().saturating_sub(rest.len());
                let answering = conversation.frame(frame.tag, frame.body, &mut out);
                let next = match answer(answering, client).await {
                    Some(next) => next,
                    None => conversation.canceled(&mut out).await,
                };
                if stream.write_all(&out).await.is_err()
                    || stream.flush().await.is_err()
                    || next == Next::Close
                {
                    return;
                }
                out.clear();
                used
            }
            Ok(Split::Part { .. } | Split::Nothing) => {
                let kill = client.kill.borrow_mut().take();
                if let Some(fault) = kill {
                    startup::refuse(
                        &mut stream,
                        &fault.into_fatal(),
                        Instant::now() + Duration::from_secs(1),
                    )
                    .await;
                    return;
                }
                if read_or_signal(&mut stream, client, &mut input)
                    .await
                    .is_none()
                {
                    return;
                }
                0
            }
            Err(_malformed) => return,
        };
        input.drain(..taken);
    }
}

/// Bytes of one message to the console.
const CONSOLE_MESSAGE_MAX: u32 = 1 << 20;

/// The conversation's answer; `None` when the client canceled it.
async fn answer(
    mut answering: Pin<Box<dyn Future<Output = Next> + Send + '_>>,
    client: &Rc<Client>,
) -> Option<Next> {
    use std::task::Poll;
    std::future::poll_fn(|cx| {
        client.register(cx.waker());
        if let Poll::Ready(next) = answering.as_mut().poll(cx) {
            return Poll::Ready(Some(next));
        }
        if client.canceled.take() {
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// Reads more, or returns when the client is to be looked at. `None` when it left.
async fn read_or_signal(
    stream: &mut Stream,
    client: &Rc<Client>,
    input: &mut Vec<u8>,
) -> Option<()> {
    let mut bytes = [0; 4096];
    let signal = std::future::poll_fn(|cx| {
        client.register(cx.waker());
        if client.is_signaled() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    let count = tokio::select! {
        biased;
        // Safe: nothing is taken.
        () = signal => {
            client.canceled.set(false);
            return Some(());
        }
        // Safe: a read that is dropped has read nothing.
        read = stream.read(&mut bytes) => read.ok().filter(|count| *count > 0)?,
    };
    input.extend_from_slice(bytes.get(..count)?);
    Some(())
}
