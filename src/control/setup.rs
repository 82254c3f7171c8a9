//! Creates what the proxy keeps on the shards: the schema `pgherd`. Running it again changes nothing.

use super::pool::{Connection, Pool, column};
use super::{Control, Finding, Level};
use crate::error::Fault;
use crate::placement::topology::Topology;
use crate::planner::plan::Stream;

const EXISTS: &str = "SELECT pg_catalog.to_regnamespace('pgherd') IS NOT NULL";
const CREATE: &str = "CREATE SCHEMA IF NOT EXISTS pgherd";
const COMMENT: &str = "COMMENT ON SCHEMA pgherd IS 'What pgherd keeps for itself'";

impl Control {
    /// Creates the schema `pgherd` on every shard that has none, the sequences of ids on the home shard, and
    /// the twins; says what it did on each.
    ///
    /// # Errors
    /// 3D000 for a database that is not in the configuration. A shard that fails is a finding.
    ///
    /// # Cancel safety
    /// Safe: what was done stays, and running it again does the rest.
    pub async fn setup(&self, database: &str) -> Result<Vec<Finding>, Fault> {
        self.database(database)?;
        let mut findings = Vec::new();
        for shard in self.shard_names(database) {
            let finding = match create(self.pool(database, &shard)?).await {
                Ok(true) => Finding::new(Level::Note, "created schema \"pgherd\""),
                Ok(false) => Finding::new(Level::Note, "schema \"pgherd\" is there already"),
                Err(fault) => from_fault(&fault),
            };
            findings.push(finding.on(&shard));
            let finding = match self.make_decisions(database, &shard).await {
                Ok(true) => Finding::new(Level::Note, "created the table of decisions"),
                Ok(false) => Finding::new(Level::Note, "the table of decisions is there already"),
                Err(fault) => from_fault(&fault),
            };
            findings.push(finding.on(&shard));
        }
        let config = self.database(database)?;
        if config.shards.len() > 1 {
            let finding = match self.make_waiting(database).await {
                Ok(true) => Finding::new(Level::Note, "created the table of who waits"),
                Ok(false) => Finding::new(Level::Note, "the table of who waits is there already"),
                Err(fault) => from_fault(&fault),
            };
            findings.push(finding.on(&config.home));
        }
        for table in &config.tables {
            let Some(column) = &table.ids.column else {
                continue;
            };
            let stream = Stream {
                schema: table.schema.clone(),
                table: table.name.clone(),
                column: column.clone(),
                carries: table.ids.carries,
            };
            let name = &table.name;
            let made = match self.make_sequence(database, &stream).await {
                Ok(true) => Ok(None),
                Ok(false) => self.raise_sequence(database, &stream).await.map(Some),
                Err(fault) => Err(fault),
            };
            let finding = match made {
                Ok(None) => format!("created the sequence of ids of table \"{name}\""),
                Ok(Some(true)) => format!(
                    "raised the sequence of ids of table \"{name}\" above those that are there"
                ),
                Ok(Some(false)) => {
                    format!("the sequence of ids of table \"{name}\" is there already")
                }
                Err(fault) => {
                    findings.push(from_fault(&fault));
                    continue;
                }
            };
            findings.push(Finding::new(Level::Note, finding).on(&config.home));
        }
        findings.extend(self.set_up_lookups(database).await?);
        findings.extend(self.set_up_uniques(database).await?);
        findings.extend(self.set_up_twins(database).await);
        Ok(findings)
    }
}

/// Whether the schema had to be created.
impl Control {
    /// Makes and fills the lookup tables, where there are several shards.
    async fn set_up_lookups(&self, database: &str) -> Result<Vec<Finding>, Fault> {
        let config = self.database(database)?;
        let mut findings = Vec::new();
        let topology = Topology::new(config)?;
        let lookups = config.tables.iter().flat_map(|table| &table.ids.lookups);
        for lookup in lookups.filter(|_| config.shards.len() > 1) {
            let index = topology.distribution_named(&lookup.distribution);
            let Some(distribution) = index.and_then(|index| topology.distribution(index)) else {
                continue;
            };
            let of = format!("column \"{}\" of table \"{}\"", lookup.column, lookup.table);
            let finding = match self.make_lookup(database, distribution, lookup).await {
                Ok(true) => format!("filled the lookup table of {of}"),
                Ok(false) => format!("the lookup table of {of} is there already"),
                Err(fault) => {
                    findings.push(from_fault(&fault));
                    continue;
                }
            };
            findings.push(Finding::new(Level::Note, finding).on(&config.home));
        }
        Ok(findings)
    }
}

async fn create(pool: &Pool) -> Result<bool, Fault> {
    make_schema(&mut pool.connect().await?).await
}

/// The same on one connection.
pub(super) async fn make_schema(connection: &mut Connection<'_>) -> Result<bool, Fault> {
    let rows = connection.rows(EXISTS, &[]).await?;
    if column(rows.first(), 0)? {
        return Ok(false);
    }
    if let Err(fault) = connection.rows(CREATE, &[]).await {
        // Another may have made it at the same moment: IF NOT EXISTS does not wait for who is about to.
        let rows = connection.rows(EXISTS, &[]).await?;
        return if column(rows.first(), 0)? {
            Ok(false)
        } else {
            Err(fault)
        };
    }
    connection.rows(COMMENT, &[]).await?;
    Ok(true)
}

/// An error as a line of its own.
pub(super) fn from_fault(fault: &Fault) -> Finding {
    let mut what = fault.message.clone();
    if let Some(detail) = &fault.detail {
        what.push_str(": ");
        what.push_str(detail.trim_end_matches('.'));
    }
    let finding = Finding::error(what);
    match &fault.hint {
        Some(hint) => finding.hint(hint.as_str()),
        None => finding,
    }
}
