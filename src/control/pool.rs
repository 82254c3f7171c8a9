//! A pool of control connections to one server, and the role they log in as.

use std::error::Error as _;
use std::time::Duration;

use deadpool_postgres::{
    Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::QUERY_TIMEOUT;
use crate::config::{Config, Database, Host, Limits, Secret, ServerTlsMode};
use crate::error::{Fault, SqlState};
use crate::tls::ServerConnector;

/// Connections at most, for each pool.
pub(super) const SIZE: usize = 4;
/// How often a query is sent that meets what is being dropped.
const TRIES: usize = 5;
/// How long connecting may take where `server_connect_timeout` sets no limit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Whom to log in as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) password: Option<String>,
}

impl Role {
    /// `control_user`, else `server_user`, else the first user with a plain password, else the first
    /// without any.
    pub(super) fn control(config: &Config, database: &Database) -> Result<Role, Fault> {
        let (name, password) = match &database.control_user {
            Some(_) => (&database.control_user, &database.control_password),
            None => (&database.server_user, &database.server_password),
        };
        Role::first(config, name.as_ref(), password.as_ref())
    }

    /// The role named, else the first of the users that we can log in as.
    pub(super) fn first(
        config: &Config,
        name: Option<&String>,
        password: Option<&Secret>,
    ) -> Result<Role, Fault> {
        if let Some(name) = name {
            let own = config
                .users
                .get(name)
                .and_then(|user| user.password.as_ref());
            return Role::new(name, password.or(own));
        }
        let plain = config
            .users
            .values()
            .find(|user| matches!(user.password, Some(Secret::Plain(_))));
        let open = || config.users.values().find(|user| user.password.is_none());
        match plain.or_else(open) {
            Some(user) => Role::new(&user.name, user.password.as_ref()),
            None => Err(no_role(
                "no role is known that control connections can log in as",
            )),
        }
    }

    /// `auth.user`, else the control role given.
    pub(super) fn passwords(config: &Config, control: Result<Role, Fault>) -> Result<Role, Fault> {
        let Some(name) = &config.auth.user else {
            return control;
        };
        if let Ok(role) = &control
            && role.name == *name
        {
            return control;
        }
        let user = config.users.get(name);
        Role::new(name, user.and_then(|user| user.password.as_ref()))
    }

    fn new(name: &str, password: Option<&Secret>) -> Result<Role, Fault> {
        let password = match password {
            None => None,
            Some(Secret::Plain(text)) => Some(text.clone()),
            Some(Secret::Scram(_) | Secret::Md5(_)) => {
                let message =
                    format!("the password of role \"{name}\" is only known as a verifier");
                return Err(no_role(&message));
            }
        };
        Ok(Role {
            name: name.to_owned(),
            password,
        })
    }
}

fn is_race(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&tokio_postgres::error::SqlState::INTERNAL_ERROR)
}

fn no_role(message: &str) -> Fault {
    Fault::error(SqlState::INVALID_AUTHORIZATION, message)
        .hint("Set control_user and control_password of the database, the password in plain text.")
}

/// Connections to one server as one role.
#[derive(Debug)]
pub(super) struct Pool {
    /// For messages, as in `shard "a"`.
    name: String,
    pool: Result<deadpool_postgres::Pool, Fault>,
}

impl Pool {
    pub(super) fn new(
        name: String,
        host: &Host,
        role: Result<Role, Fault>,
        connector: &ServerConnector,
        limits: &Limits,
    ) -> Pool {
        let pool = role.and_then(|role| {
            let timeout = match limits.server_connect_timeout {
                Duration::ZERO => CONNECT_TIMEOUT,
                timeout => timeout,
            };
            let manager = manager(host, &role, connector, timeout)?;
            deadpool_postgres::Pool::builder(manager)
                .max_size(SIZE)
                .runtime(Runtime::Tokio1)
                .wait_timeout(Some(QUERY_TIMEOUT))
                .create_timeout(Some(timeout))
                .recycle_timeout(Some(timeout))
                .build()
                .map_err(|error| Fault::error(SqlState::INTERNAL, error.to_string()))
        });
        Pool { name, pool }
    }

    /// A connection, newly opened or an idle one.
    ///
    /// # Cancel safety
    /// Safe: a connection half opened is closed.
    pub(super) async fn connect(&self) -> Result<Connection<'_>, Fault> {
        let pool = self.pool.as_ref().map_err(Fault::clone)?;
        let object = pool.get().await.map_err(|error| self.unreachable(&error))?;
        Ok(Connection {
            pool: self,
            object: Some(object),
        })
    }

    fn unreachable(&self, error: &PoolError) -> Fault {
        let detail = match error {
            PoolError::Timeout(TimeoutType::Wait) => "All control connections are busy.".into(),
            PoolError::Timeout(_) => "It did not answer in time.".into(),
            PoolError::Backend(error) => sentence(error),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                format!("{error}.")
            }
        };
        let is_missing = matches!(error, PoolError::Backend(error)
            if error.code() == Some(&tokio_postgres::error::SqlState::INVALID_CATALOG_NAME));
        let code = if is_missing {
            SqlState::UNKNOWN_DATABASE
        } else {
            SqlState::UNABLE_TO_CONNECT
        };
        Fault::error(code, format!("could not connect to {}", self.name))
        .detail(detail)
        .hint(
            "Check that the server runs, its address, and the control role's password and rights.",
        )
    }
}

fn manager(
    host: &Host,
    role: &Role,
    connector: &ServerConnector,
    timeout: Duration,
) -> Result<Manager, Fault> {
    let mut config = tokio_postgres::Config::new();
    config
        .port(host.port)
        .dbname(&host.dbname)
        .user(&role.name)
        .application_name("pgherd")
        .connect_timeout(timeout)
        .options("-c search_path=pg_catalog -c client_encoding=UTF8");
    if let Some(password) = &role.password {
        config.password(password);
    }
    let is_socket = host.host.starts_with('/');
    if is_socket {
        config.host_path(&host.host);
    } else {
        config.host(&host.host);
    }
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let mode = host.tls.unwrap_or(connector.mode);
    if is_socket || mode == ServerTlsMode::Disable {
        config.ssl_mode(SslMode::Disable);
        return Ok(Manager::from_config(config, NoTls, manager));
    }
    config.ssl_mode(match mode {
        ServerTlsMode::Prefer | ServerTlsMode::Disable => SslMode::Prefer,
        ServerTlsMode::Require | ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull => {
            SslMode::Require
        }
    });
    let connector = connector.connector(mode).ok_or_else(|| {
        Fault::error(
            SqlState::CONFIG,
            "verify-ca and verify-full need a CA to verify servers with",
        )
        .hint("Set server_tls.ca.")
    })?;
    let tls = MakeRustlsConnect::new((*connector).clone());
    Ok(Manager::from_config(config, tls, manager))
}

/// A connection on loan; it goes back when dropped.
#[derive(Debug)]
pub(super) struct Connection<'a> {
    pool: &'a Pool,
    /// `None` once a query ran out of time.
    object: Option<Object>,
}

impl Connection<'_> {
    /// The connection itself, no more on loan to its borrower.
    pub(super) fn into_object(mut self) -> Option<Object> {
        self.object.take()
    }

    /// Closes it: nobody is to be given it again.
    pub(super) fn discard(&mut self) {
        drop(self.object.take().map(Object::take));
    }

    /// Runs several statements.
    ///
    /// # Errors
    /// The server's message at the first that fails, or 08006 when they took longer than `limit`; the
    /// connection is closed then.
    ///
    /// # Cancel safety
    /// None of what they leave behind: the connection is to be discarded.
    pub(super) async fn batch(&mut self, sql: &str, limit: Duration) -> Result<(), Fault> {
        let failed = |detail: String| {
            Fault::error(
                SqlState::CONNECTION_FAILURE,
                format!("a control command failed on {}", self.pool.name),
            )
            .detail(detail)
        };
        let Some(object) = &self.object else {
            return Err(failed("The connection was lost.".into()));
        };
        let result = tokio::time::timeout(limit, object.batch_execute(sql)).await;
        let fault = match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => failed(sentence(&error)),
            Err(_elapsed) => failed("It did not answer in time.".into()),
        };
        self.discard();
        Err(fault)
    }

    /// Runs one query.
    ///
    /// # Errors
    /// The server's message, or 08006 when it did not answer in [`QUERY_TIMEOUT`]; the connection
    /// is closed then.
    ///
    /// # Cancel safety
    /// Safe: the rest of the answer is read and dropped before the connection's next query.
    pub(super) async fn rows(
        &mut self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let failed = |detail: String| {
            Fault::error(
                SqlState::CONNECTION_FAILURE,
                format!("a control query failed on {}", self.pool.name),
            )
            .detail(detail)
            .hint("Check the server's log and the control role's rights.")
        };
        let Some(object) = &self.object else {
            return Err(failed("The connection was lost.".into()));
        };
        let query = async {
            let mut tries = 0;
            loop {
                tries += 1;
                match object.query(sql, parameters).await {
                    // What `pg_get_viewdef` and its like say of what was dropped meanwhile.
                    Err(error) if is_race(&error) && tries < TRIES => (),
                    result => return result,
                }
            }
        };
        match tokio::time::timeout(QUERY_TIMEOUT, query).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => Err(failed(sentence(&error))),
            Err(_elapsed) => {
                let fault = failed("It did not answer in time.".into());
                drop(self.object.take().map(Object::take));
                Err(fault)
            }
        }
    }
}

/// A column of a row, of the type asked for.
pub(super) fn column<'a, T: FromSql<'a>>(row: Option<&'a Row>, index: usize) -> Result<T, Fault> {
    let missing = |detail: String| {
        Fault::error(
            SqlState::INTERNAL,
            "a control query's answer is not as expected",
        )
        .detail(detail)
        .hint("For auth.query: return the name and the password or verifier, both as text.")
    };
    let row = row.ok_or_else(|| missing("It has no row.".into()))?;
    row.try_get(index)
        .map_err(|error| missing(format!("Column {}: {error}.", index.saturating_add(1))))
}

/// The server's own message, or the innermost cause, as a sentence.
fn sentence(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({}).", error.message(), error.code().code());
    }
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    format!("{text}.")
}
