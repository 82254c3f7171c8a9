//! `pgherd check`: whether the shards are what the configuration takes them for.

mod keys;
mod same;
mod server;
mod types;

use super::pool::Connection;
use super::schema::Schema;
use super::setup::from_fault;
use super::{Control, Finding};
use crate::config::Database;
use crate::error::Fault;
use crate::placement::topology::Topology;
use server::Server;

/// What one shard says of itself.
#[derive(Debug)]
struct Shard {
    name: String,
    server: Server,
    schema: Schema,
    types: types::Words,
}

impl Control {
    /// Looks at every shard of a database: that it answers, its version and settings, that encodings
    /// and schemas are equal, and that keys, constraints and defaults of sharded tables hold across
    /// shards. What is in order is not mentioned.
    ///
    /// # Errors
    /// 3D000 for a database that is not in the configuration, F0000 for a placement that cannot be
    /// served. Whatever is wrong with a shard is a finding.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn check(&self, database: &str) -> Result<Vec<Finding>, Fault> {
        let config = self.database(database)?;
        let topology = Topology::new(config)?;
        let mut findings = Vec::new();
        let mut shards = Vec::new();
        for shard in &config.shards {
            match self.look(config, &shard.name).await {
                Ok(found) => shards.push(found),
                Err(fault) => findings.push(from_fault(&fault).on(&shard.name)),
            }
        }
        server::check(&self.config, config, &shards, &mut findings);
        let home = shards.iter().find(|shard| shard.name == config.home);
        if let Some(home) = home {
            for shard in shards.iter().filter(|shard| shard.name != home.name) {
                types::check(home, shard, &mut findings);
                same::check(&topology, home, shard, &mut findings);
            }
            keys::check(&topology, config.constraints, &home.schema, &mut findings);
            match self.introspect(database).await {
                Ok(catalog) => keys::code(&topology, config.constraints, &catalog, &mut findings),
                Err(fault) => findings.push(from_fault(&fault).on(&home.name)),
            }
            self.check_directories(&topology, &mut findings).await;
            self.check_twins(database, &mut findings).await;
        }
        if let Err(fault) = self.auth_query(database, "pgherd").await {
            findings.push(from_fault(&fault).hint(
                "Check auth.query, and that auth.user may run it and has a plain password in users.",
            ));
        }
        Ok(findings)
    }

    async fn look(&self, database: &Database, shard: &str) -> Result<Shard, Fault> {
        let mut connection: Connection<'_> = self.pool(&database.name, shard)?.connect().await?;
        Ok(Shard {
            name: shard.to_owned(),
            server: Server::read(&mut connection).await?,
            schema: Schema::read(&mut connection).await?,
            types: types::read(&mut connection).await?,
        })
    }
}
