//! Versions, settings, encodings and rights of the servers.

use std::collections::BTreeMap;

use super::Shard;
use crate::config::{Config, Database, Limits, Mode};
use crate::control::finding::{Finding, Level};
use crate::control::pool::{self, Connection, column};
use crate::error::Fault;

/// The oldest version that is served.
const VERSION_MIN: u32 = 130_000;

/// What one server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Server {
    version: u32,
    /// Those that any role may have.
    max_connections: usize,
    encoding: String,
    /// Collation and character classes.
    locale: String,
    has_schema: bool,
    may_create: bool,
    is_replica: bool,
    wal_level: String,
}

const SERVER: &str = "
    SELECT current_setting('server_version_num')::int8,
           current_setting('max_connections')::int8
             - current_setting('superuser_reserved_connections')::int8,
           pg_encoding_to_char(d.encoding)::text, d.datcollate::text || ' ' || d.datctype::text,
           to_regnamespace('pgherd') IS NOT NULL,
           has_database_privilege(d.oid, 'CREATE'), pg_is_in_recovery(), current_setting('wal_level')
    FROM pg_catalog.pg_database d WHERE d.datname = current_database()";

impl Server {
    /// Asks one.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub(super) async fn read(connection: &mut Connection<'_>) -> Result<Server, Fault> {
        let rows = connection.rows(SERVER, &[]).await?;
        let row = rows.first();
        let number = |index| column::<i64>(row, index);
        Ok(Server {
            version: u32::try_from(number(0)?).unwrap_or_default(),
            max_connections: usize::try_from(number(1)?).unwrap_or_default(),
            encoding: column(row, 2)?,
            locale: column(row, 3)?,
            has_schema: column(row, 4)?,
            may_create: column(row, 5)?,
            is_replica: column(row, 6)?,
            wal_level: column(row, 7)?,
        })
    }
}

/// Checks each shard's server, and that they agree.
pub(super) fn check(
    config: &Config,
    database: &Database,
    shards: &[Shard],
    findings: &mut Vec<Finding>,
) {
    let Some(first) = shards.first() else {
        return;
    };
    for shard in shards {
        let server = &shard.server;
        let mut found = |finding: Finding| findings.push(finding.on(&shard.name));
        if server.version < VERSION_MIN {
            found(
                Finding::error(format!("PostgreSQL {} is too old", major(server.version)))
                    .hint("Use PostgreSQL 13 or later."),
            );
        }
        if server.is_replica {
            found(
                Finding::error("the primary is a standby and takes no writes")
                    .hint("Set primary to the server that takes writes."),
            );
        }
        if !server.has_schema && !server.may_create {
            found(
                Finding::warning(
                    "schema \"pgherd\" is missing and the control role may not create it",
                )
                .hint(
                    "Grant CREATE on the database to the control role, then run \"pgherd setup\".",
                ),
            );
        }
        let caches = database.tables.iter().any(|table| {
            let policy = table.cache.as_ref();
            policy.is_some_and(|policy| policy.mode != Mode::Strong)
        });
        if caches && server.wal_level != "logical" {
            found(
                Finding::warning(format!(
                    "wal_level is {}: the cache is not told of writes that go past pgherd",
                    server.wal_level
                ))
                .hint("Set wal_level = logical, or let all writers come through pgherd."),
            );
        }
        differences(first, shard, findings);
    }
    check_connections(config, database, shards, findings);
}

/// What differs from the first shard's server and must not, or had better not.
fn differences(first: &Shard, shard: &Shard, findings: &mut Vec<Finding>) {
    let server = &shard.server;
    let mut found = |finding: Finding| findings.push(finding.on(&shard.name));
    if server.encoding != first.server.encoding {
        found(
            Finding::error(format!(
                "the encoding is {}, but {} on shard \"{}\"",
                server.encoding, first.server.encoding, first.name
            ))
            .hint("Create the databases of all shards with the same encoding."),
        );
    }
    if server.locale != first.server.locale {
        found(
            Finding::error(format!(
                "the locale is \"{}\", but \"{}\" on shard \"{}\"",
                server.locale, first.server.locale, first.name
            ))
            .hint("Create the databases of all shards with the same LC_COLLATE and LC_CTYPE."),
        );
    }
    if major(server.version) != major(first.server.version) {
        found(Finding::new(
            Level::Warning,
            format!(
                "PostgreSQL {}, but {} on shard \"{}\"",
                major(server.version),
                major(first.server.version),
                first.name
            ),
        ));
    }
}

/// Whether the pools of all shards of a server fit into its `max_connections`.
fn check_connections(
    config: &Config,
    database: &Database,
    shards: &[Shard],
    findings: &mut Vec<Finding>,
) {
    let demand = demand(&config.limits, database, config.users.len());
    let mut servers: BTreeMap<(&str, u16), (usize, &Shard)> = BTreeMap::new();
    for shard in shards {
        let host = database
            .shards
            .iter()
            .find(|found| found.name == shard.name);
        let Some(host) = host else {
            continue;
        };
        let key = (host.primary.host.as_str(), host.primary.port);
        let entry = servers.entry(key).or_insert((0, shard));
        entry.0 = entry.0.saturating_add(demand);
    }
    for (demand, shard) in servers.into_values() {
        let allowed = shard.server.max_connections;
        if demand > allowed {
            findings.push(
                Finding::warning(format!(
                    "the pools may open {demand} connections, the server takes {allowed}"
                ))
                .hint("Lower default_pool_size or set max_db_connections, or raise the server's max_connections.")
                .on(&shard.name),
            );
        }
    }
}

/// The most connections that this proxy opens to one shard.
fn demand(limits: &Limits, database: &Database, users: usize) -> usize {
    let roles = match database.server_user {
        Some(_) => 1,
        None => users.max(1),
    };
    let size = database
        .default_pool_size
        .unwrap_or(limits.default_pool_size);
    let pools = size
        .saturating_add(limits.reserve_pool_size)
        .saturating_mul(roles);
    let capped = match limits.max_db_connections {
        0 => pools,
        most => pools.min(most),
    };
    capped.saturating_add(pool::SIZE)
}

fn major(version: u32) -> u32 {
    version / 10_000
}
