//! The databases and pools of an engine: made when a client first asks for them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::{self, Secret};
use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::placement::topology::Topology;
use crate::server::auth::Credentials;
use crate::server::pool::{Budget, Pool, PoolLimits, Target};

use super::auth::Identity;
use super::engine::{Database, Engine, Snapshot};

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
            gather: snapshot.config.gather.clone(),
            two_phase: snapshot.config.two_phase,
            consistent_reads: snapshot.config.consistent_reads,
            deployment: snapshot.config.name.as_str().into(),
            twins: snapshot.config.twins(&config),
            config,
            topology,
            shared: self.shared.database(name),
            limits: snapshot.config.limits.clone(),
            generation: snapshot.generation,
            memo: RefCell::new(Database::memo(snapshot.config.limits.plan_cache_size)),
            paths: RefCell::default(),
            statements: RefCell::default(),
            planned_epoch: Cell::default(),
            pools: RefCell::default(),
            greetings: RefCell::default(),
            scope: std::cell::OnceCell::new(),
        });
        let replaced = self
            .databases
            .borrow_mut()
            .insert(name.to_owned(), Rc::clone(&database));
        if let Some(replaced) = replaced {
            let mut memo = database.memo.borrow_mut();
            memo.take_over(&mut replaced.memo.borrow_mut());
            drop(memo);
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
        let shards = database.config.shards.iter();
        let shards = shards.map(|shard| (&shard.name, &shard.primary));
        // Twins stand behind the shards.
        let twins = database.twins.iter().map(|twin| (&twin.name, &twin.host));
        let mut pools = Vec::with_capacity(database.config.shards.len());
        for (index, (name, host)) in shards.chain(twins).enumerate() {
            let id = ShardId(u16::try_from(index).unwrap_or(u16::MAX));
            pools.push(Pool::new(Target {
                database: database.name.clone(),
                user: identity.user.clone(),
                shard: id,
                shard_name: name.clone(),
                host: host.clone(),
                credentials: credentials.clone(),
                tls: Arc::clone(&snapshot.tls),
                limits: self.pool_limits(database, snapshot, &identity.user, name),
            }));
        }
        let pools: Rc<[Rc<Pool>]> = pools.into();
        if database.shared.paused.load(Ordering::Acquire) {
            pools.iter().for_each(|pool| pool.pause(true));
        }
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
) -> Result<(Arc<config::Database>, Arc<Topology>), Fault> {
    let Some(fallback) = &snapshot.config.fallback else {
        return Err(Fault::fatal(
            SqlState::UNKNOWN_DATABASE,
            format!("database \"{name}\" does not exist"),
        )
        .hint("Name it under databases in the configuration, or add a \"*\" entry."));
    };
    let config = fallback_database(fallback, name);
    let topology = Topology::new(&config)?;
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
        tenant: None,
    }
}
