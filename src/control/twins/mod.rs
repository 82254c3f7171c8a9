//! Twins: the databases on gather servers that have the home shard's schema and no rows, where queries
//! over several shards are finished.
//!
//! A twin is made from what `pg_dump` says of the home shard's schema, in one transaction, so that a reader
//! sees the old schema or the new one. It records what the home shard's catalogs were marked with before
//! they were read: while that is their mark, the twin is current. `pgherd setup` creates the databases;
//! the proxy keeps what is in them current.

mod check;
mod dump;
mod home;
mod make;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::pool::{Pool, Role, column};
use super::setup::from_fault;
use super::{Control, Finding, Level};
use crate::config::{Config, Database, Host, Twin};
use crate::error::{Fault, SqlState};
use crate::tls::ServerConnector;
use home::Home;

/// How long the making of one twin may take.
const MAKE_TIMEOUT: Duration = Duration::from_mins(5);

/// A twin's database, and the way to it.
#[derive(Debug)]
pub(super) struct Place {
    twin: Twin,
    pool: Pool,
    /// To a database of its server that is always there: to look for the twin's, and to create it.
    server: Arc<Pool>,
}

/// The places of a database's twins, in their order.
pub(super) fn places(
    config: &Config,
    database: &Database,
    role: &Result<Role, Fault>,
    connector: &ServerConnector,
) -> Vec<Place> {
    let home = database
        .shards
        .iter()
        .find(|shard| shard.name == database.home);
    let near = |host: &Host| Host {
        // The home database is there where its own server is the gather server.
        dbname: home
            .filter(|_| config.gather.servers.is_empty())
            .map_or_else(|| "postgres".to_owned(), |home| home.primary.dbname.clone()),
        ..host.clone()
    };
    let pool =
        |name: String, host: &Host| Pool::new(name, host, role.clone(), connector, &config.limits);
    // One for all twins of a server.
    let mut servers: Vec<(Host, Arc<Pool>)> = Vec::new();
    let twins = config.twins(database).into_iter();
    twins
        .map(|twin| {
            let near = near(&twin.host);
            let known = servers.iter().find(|(host, _)| *host == near);
            let server = if let Some((_, known)) = known {
                Arc::clone(known)
            } else {
                let name = format!("the gather server {}:{}", near.host, near.port);
                let made = Arc::new(pool(name, &near));
                servers.push((near, Arc::clone(&made)));
                made
            };
            Place {
                pool: pool(format!("twin \"{}\"", twin.name), &twin.host),
                server,
                twin,
            }
        })
        .collect()
}

/// What a twin says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// What the home shard's catalogs were marked with when it was made.
    pub mark: String,
    pub made: SystemTime,
    /// With which of pgherd's own commands it was made.
    form: String,
}

/// All that a twin is made from.
#[derive(Debug)]
pub struct Blueprint {
    /// What the home shard's catalogs were marked with before it was read.
    pub mark: String,
    home: Home,
    /// Statements that make the schema.
    schema: String,
    /// A digest of what the twin will be.
    digest: String,
}

const MADE: &str = "SELECT mark, made, form FROM pgherd.twin";
const EXISTS: &str = "SELECT to_regclass('pgherd.twin') IS NOT NULL";

impl Control {
    /// The twins of a database, in their order.
    ///
    /// # Errors
    /// The database is not in the configuration.
    pub fn twins(&self, database: &str) -> Result<Vec<Twin>, Fault> {
        Ok(self.config.twins(self.database(database)?))
    }

    fn places(&self, database: &str) -> &[Place] {
        let herd = self.databases.get(database);
        herd.map_or(&[], |herd| herd.twins.as_slice())
    }

    pub(super) fn twin_pool(&self, database: &str, index: usize) -> Result<&Pool, Fault> {
        self.place(database, index).map(|place| &place.pool)
    }

    fn place(&self, database: &str, index: usize) -> Result<&Place, Fault> {
        self.places(database).get(index).ok_or_else(|| {
            Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("database \"{database}\" has no such twin"),
            )
            .hint("SHOW TWINS lists the twins.")
        })
    }

    /// What a twin says of itself; `None` where its database was created and not filled.
    ///
    /// # Errors
    /// 3D000 where its database does not exist, else what kept it from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn twin(&self, database: &str, index: usize) -> Result<Option<Made>, Fault> {
        let place = self.place(database, index)?;
        // Asked first: a login to what does not exist is an error in the server's log.
        if !make::exists(place).await? {
            return Err(Fault::error(
                SqlState::UNKNOWN_DATABASE,
                format!(
                    "the database of twin \"{}\" does not exist",
                    place.twin.name
                ),
            )
            .hint("Run pgherd setup."));
        }
        let mut connection = place.pool.connect().await?;
        if !column::<bool>(connection.rows(EXISTS, &[]).await?.first(), 0)? {
            return Ok(None);
        }
        let rows = connection.rows(MADE, &[]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        Ok(Some(Made {
            mark: column(Some(row), 0)?,
            made: column(Some(row), 1)?,
            form: column(Some(row), 2)?,
        }))
    }

    /// Reads from the home shard what its twins are to be.
    ///
    /// # Errors
    /// What kept the home shard, or `pg_dump`, from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped, and `pg_dump` is ended.
    pub async fn blueprint(&self, database: &str) -> Result<Blueprint, Fault> {
        // First: what changes meanwhile has another mark, and the twins are made again.
        let mark = self.schema_mark(database).await?;
        let config = self.database(database)?;
        let shard = config
            .shards
            .iter()
            .find(|shard| shard.name == config.home)
            .ok_or_else(|| Fault::error(SqlState::INTERNAL, "a database has no home shard"))?;
        let role = match self.databases.get(database) {
            Some(herd) => herd.role.clone()?,
            None => Role::control(&self.config, config)?,
        };
        let mut connection = self.pool(database, &config.home)?.connect().await?;
        let home = Home::read(&mut connection).await?;
        let tls = &self.config.server_tls;
        let schema = dump::dump(&shard.primary, &role, tls, home.version / 10_000).await?;
        let digest = make::digest(&[&schema, home.public.as_deref().unwrap_or_default()]);
        Ok(Blueprint {
            mark,
            home,
            schema,
            digest,
        })
    }

    /// Makes a twin that exists by its blueprint. Returns whether its schema was another.
    ///
    /// # Errors
    /// 3D000 where its database does not exist; what kept it from being made, as a query in it that did
    /// not end in time. The old schema stays.
    ///
    /// # Cancel safety
    /// Safe: it has the old schema or the new one.
    pub async fn make_twin(
        &self,
        database: &str,
        index: usize,
        blueprint: &Blueprint,
    ) -> Result<bool, Fault> {
        let place = self.place(database, index)?;
        let home = self.database(database)?.home.clone();
        let mut connection = self.pool(database, &home)?.connect().await?;
        let dbname = &place.twin.host.dbname;
        let commands = blueprint.home.database(&mut connection, dbname).await?;
        drop(connection);
        make::make(&place.pool, blueprint, &commands).await
    }

    /// Creates the twins that are missing and makes those that are not current; says what it did.
    ///
    /// # Cancel safety
    /// Safe: what was done stays, and running it again does the rest.
    pub(super) async fn set_up_twins(&self, database: &str) -> Vec<Finding> {
        let places = self.places(database);
        if places.is_empty() {
            return Vec::new();
        }
        let mark = match self.schema_mark(database).await {
            Ok(mark) => mark,
            Err(fault) => return vec![from_fault(&fault)],
        };
        let mut findings = Vec::new();
        let mut blueprint = None;
        for (index, place) in places.iter().enumerate() {
            let made = self
                .set_up_twin(database, index, &mark, &mut blueprint)
                .await;
            let name = &place.twin.name;
            findings.push(match made {
                Ok(what) => Finding::new(Level::Note, format!("{what} \"{name}\"")),
                Err(fault) => {
                    let finding = from_fault(&fault);
                    let may_not = finding.what.contains("(42501)");
                    findings.push(Finding {
                        // A control role that may not is a choice: queries that need twins are refused.
                        level: if may_not {
                            Level::Warning
                        } else {
                            Level::Error
                        },
                        what: format!("twin \"{name}\": {}", finding.what),
                        ..finding
                    });
                    if may_not {
                        break;
                    }
                    continue;
                }
            });
        }
        findings
    }

    async fn set_up_twin(
        &self,
        database: &str,
        index: usize,
        mark: &str,
        blueprint: &mut Option<Blueprint>,
    ) -> Result<&'static str, Fault> {
        let place = self.place(database, index)?;
        let found = self.twin(database, index).await;
        let is_missing = matches!(&found, Err(fault) if fault.code == SqlState::UNKNOWN_DATABASE);
        if !is_missing
            && let Some(made) = found?
            && made.mark == mark
            && made.form == make::form()
        {
            return Ok("nothing to do for twin");
        }
        if blueprint.is_none() {
            *blueprint = Some(self.blueprint(database).await?);
        }
        let Some(blueprint) = blueprint else {
            return Err(Fault::error(SqlState::INTERNAL, "a blueprint is missing"));
        };
        let lacking = check::lacking_roles(&place.server, &blueprint.home.roles).await?;
        if !lacking.is_empty() {
            return Err(check::lacking_fault(&lacking));
        }
        let created = is_missing && make::create(place, &blueprint.home).await?;
        let changed = self.make_twin(database, index, blueprint).await?;
        Ok(match (created, changed) {
            (true, _) => "created twin",
            (false, true) => "made again twin",
            (false, false) => "nothing to do for twin",
        })
    }
}
