//! From an accepted socket to a session: startup, authentication, limits, the greeting.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::pool::Pool;
use crate::server::settings::Settings;
use crate::wire::backend::{self, Status};
use crate::wire::cancel_key::CancelKey;

use super::Session;
use super::auth::{self, AuthError, Context, Identity, LookUp, Secrets};
use super::client::Client;
use super::console;
use super::console_client;
use super::engine::{Database, Engine, Greeting, Message, RUNNING, Snapshot};
use super::greeting::startup_settings;
use super::startup::{self, Startup};
use super::tenant::at_start;

/// How long a login may take where there is no client_login_timeout.
const NO_TIMEOUT: Duration = Duration::from_hours(1);

/// Serves one accepted socket to its end.
///
/// # Cancel safety
/// Not safe: a drop closes the client in the middle.
pub async fn serve(engine: Rc<Engine>, stream: Stream) {
    let snapshot = engine.snapshot.borrow().clone();
    let timeout = snapshot.config.limits.client_login_timeout;
    let timeout = if timeout.is_zero() {
        NO_TIMEOUT
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
            Box::pin(console_client::run(stream, &client, conversation)).await;
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
            startup::close(stream, deadline).await;
            return None;
        }
        Err(error) => {
            tracing::debug!(%error, "connection without a client");
            return None;
        }
    };
    let result = log_in(engine, snapshot, &mut client, deadline).await;
    match result {
        Ok(Some(login)) => Some(login.into_opened(engine, *client)),
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
        greeting: Rc<Greeting>,
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
    let user = snapshot.config.users.get(&identity.user);
    let tenant = user.and_then(|user| user.tenant.as_deref());
    let settings = at_start(settings, tenant, &database.topology)?;
    let known = engine
        .greeting(&database, &pools, &identity.user, &settings)
        .await?;
    for (name, value) in &known.parameters {
        if name != "application_name" {
            backend::parameter_status(greeting, name, value);
        }
    }
    backend::parameter_status(greeting, "application_name", &application_name);
    let settings = if database.minds_names() {
        known.with_path(&settings)
    } else {
        settings
    };
    Ok(Shape::Session {
        database,
        pools,
        settings,
        application_name,
        identity,
        greeting: known,
    })
}

impl Login {
    fn into_opened(self, engine: &Rc<Engine>, client: startup::Client) -> Opened {
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
            self.key,
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
            Shape::Console(conversation) => Opened::Console {
                stream: client.stream,
                client: shown,
                conversation,
            },
            Shape::Session {
                database,
                pools,
                settings,
                identity,
                greeting,
                ..
            } => {
                let snapshot = engine.snapshot.borrow();
                let user = snapshot.config.users.get(&client.user);
                let pool_mode = database.pool_mode(user);
                Opened::Session(Session::start(
                    Rc::clone(engine),
                    shown,
                    client.stream,
                    database,
                    pools,
                    pool_mode,
                    settings,
                    greeting,
                    identity,
                    user,
                ))
            }
        }
    }
}
