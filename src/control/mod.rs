//! Control connections: checks, introspection, setup and the look-up of passwords.
//!
//! They are few, pooled by deadpool-postgres per shard, and never carry a client's statement. Each
//! runs with `search_path = pg_catalog`, so that no object of a user can stand in for PostgreSQL's
//! own. Every wait has a limit: connecting takes `server_connect_timeout`, a query [`QUERY_TIMEOUT`].

mod check;
pub mod decisions;
mod directories;
pub mod feed;
mod finding;
pub mod gate;
pub mod ids;
mod introspect;
pub mod locks;
pub mod lookups;
mod pool;
mod schema;
mod setup;
pub mod twins;
mod types;
mod uniques;

pub use finding::{Finding, Level};

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{Config, Database, Secret};
use crate::error::{Fault, SqlState};
use crate::tls::ServerConnector;
use pool::{Pool, Role};

/// How long one query of a control connection may take.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The control connections of one configuration. A reload makes a new one; no connection is opened
/// before it is needed.
#[derive(Debug)]
pub struct Control {
    config: Arc<Config>,
    databases: BTreeMap<String, Herd>,
    /// For passwords of users of databases that are not named in the configuration.
    fallback: Option<Pool>,
    /// The last snapshot's number.
    epoch: AtomicU64,
    /// Lookup tables that have been seen, by database and name.
    lookups: Mutex<HashMap<(String, String), lookups::State>>,
    /// One is made or filled at a time.
    filling: tokio::sync::Mutex<()>,
}

/// The pools of one database.
#[derive(Debug)]
struct Herd {
    /// By the shard's name.
    shards: BTreeMap<String, Pool>,
    /// To the home shard, for commits that hold the gate there.
    gate: Option<Pool>,
    /// Those of the twins, in their order.
    twins: Vec<twins::Place>,
    /// Whom they log in as.
    role: Result<Role, Fault>,
    /// To the home shard as `auth.user`; `None` without `auth.query`.
    passwords: Option<Pool>,
}

impl Control {
    /// Makes the pools. A database without a usable role is no error here: every use of it is.
    pub fn new(config: &Arc<Config>, connector: &ServerConnector) -> Control {
        let databases = config.databases.values().map(|database| {
            let role = Role::control(config, database);
            let pools = database.shards.iter().map(|shard| {
                let pool = Pool::new(
                    format!("shard \"{}\"", shard.name),
                    &shard.primary,
                    role.clone(),
                    connector,
                    &config.limits,
                );
                (shard.name.clone(), pool)
            });
            let home = database
                .shards
                .iter()
                .find(|shard| shard.name == database.home);
            let passwords = home.filter(|_| config.auth.query.is_some()).map(|shard| {
                Pool::new(
                    format!("shard \"{}\"", shard.name),
                    &shard.primary,
                    Role::passwords(config, role.clone()),
                    connector,
                    &config.limits,
                )
            });
            let gate = home.filter(|_| config.consistent_reads).map(|shard| {
                Pool::new(
                    format!("shard \"{}\"", shard.name),
                    &shard.primary,
                    role.clone(),
                    connector,
                    &config.limits,
                )
            });
            let herd = Herd {
                shards: pools.collect(),
                gate,
                twins: twins::places(config, database, &role, connector),
                role,
                passwords,
            };
            (database.name.clone(), herd)
        });
        Control {
            databases: databases.collect(),
            fallback: Control::fallback(config, connector),
            epoch: AtomicU64::new(0),
            lookups: Mutex::default(),
            filling: tokio::sync::Mutex::default(),
            config: Arc::clone(config),
        }
    }

    fn fallback(config: &Config, connector: &ServerConnector) -> Option<Pool> {
        let fallback = config.fallback.as_ref()?;
        config.auth.query.as_ref()?;
        let mut host = fallback.server.clone();
        if host.dbname.is_empty() {
            // Roles and their passwords are the same in every database of a server.
            "postgres".clone_into(&mut host.dbname);
        }
        let role = Role::first(
            config,
            fallback.server_user.as_ref(),
            fallback.server_password.as_ref(),
        );
        Some(Pool::new(
            "the server of database \"*\"".into(),
            &host,
            Role::passwords(config, role),
            connector,
            &config.limits,
        ))
    }

    /// Asks a shard for a sign of life.
    ///
    /// # Errors
    /// 08001 when it cannot be reached in time, 08006 when it does not answer.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn ping(&self, database: &str, shard: &str) -> Result<(), Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        connection.rows("SELECT 1", &[]).await.map(drop)
    }

    /// The number of each shard's version (`150004` is 15.4), or why it is not known, in the order
    /// of the configuration.
    ///
    /// # Cancel safety
    /// Safe: the answers are dropped.
    pub async fn server_versions(&self, database: &str) -> Vec<(String, Result<u32, Fault>)> {
        let mut versions = Vec::new();
        for name in self.shard_names(database) {
            let version = self.server_version(database, &name).await;
            versions.push((name, version));
        }
        versions
    }

    async fn server_version(&self, database: &str, shard: &str) -> Result<u32, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection
            .rows("SELECT current_setting('server_version_num')", &[])
            .await?;
        let text: &str = pool::column(rows.first(), 0)?;
        text.parse()
            .map_err(|_error| Fault::error(SqlState::INTERNAL, "a server's version is no number"))
    }

    /// Runs `auth.query` for `user` on the home shard of `database` (on the server of `"*"` where it
    /// is not in the configuration): the name and the secret that PostgreSQL returns, the secret
    /// `None` where it is NULL. `None` when there is no such user, or no query configured.
    ///
    /// # Errors
    /// What kept the query from running. The client should be told no more than that its password
    /// could not be checked.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn auth_query(
        &self,
        database: &str,
        user: &str,
    ) -> Result<Option<(String, Option<Secret>)>, Fault> {
        let Some(query) = &self.config.auth.query else {
            return Ok(None);
        };
        let pool = match self.databases.get(database) {
            Some(herd) => herd.passwords.as_ref(),
            None => self.fallback.as_ref(),
        };
        let Some(pool) = pool else {
            return Ok(None);
        };
        let mut connection = pool.connect().await?;
        let rows = connection.rows(query, &[&user]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let name: Option<&str> = pool::column(Some(row), 0)?;
        let secret: Option<&str> = pool::column(Some(row), 1)?;
        Ok(name.map(|name| (name.to_owned(), secret.map(Secret::read))))
    }

    fn database(&self, database: &str) -> Result<&Database, Fault> {
        self.config.databases.get(database).ok_or_else(|| {
            Fault::error(
                SqlState::UNKNOWN_DATABASE,
                format!("database \"{database}\" is not in the configuration"),
            )
            .hint("Name a database of the configuration.")
        })
    }

    fn pool(&self, database: &str, shard: &str) -> Result<&Pool, Fault> {
        self.database(database)?;
        let pool = self
            .databases
            .get(database)
            .and_then(|herd| herd.shards.get(shard));
        pool.ok_or_else(|| {
            Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("database \"{database}\" has no shard \"{shard}\""),
            )
            .hint("SHOW SHARDS lists the shards.")
        })
    }

    /// In the order of the configuration; none for a database that is not in it.
    pub fn shard_names(&self, database: &str) -> Vec<String> {
        let database = self.config.databases.get(database);
        let shards = database.map(|database| database.shards.as_slice());
        let names = shards.unwrap_or_default().iter();
        names.map(|shard| shard.name.clone()).collect()
    }

    fn next_epoch(&self) -> u64 {
        self.epoch.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}
