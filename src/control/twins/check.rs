//! `pgherd check`: whether the twins are there, current, and on servers that can stand in for the home
//! shard's.

use super::home::Home;
use crate::control::pool::{Pool, column};
use crate::control::setup::from_fault;
use crate::control::{Control, Finding};
use crate::error::{Fault, SqlState};

const PRESENT: &str = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)";
const VERSION: &str = "SELECT current_setting('server_version_num')::int8";
const HINT: &str = "Run pgherd setup.";

/// The roles that a twin's server lacks.
///
/// # Cancel safety
/// Safe: the answer is dropped.
pub(super) async fn lacking_roles(server: &Pool, wanted: &[String]) -> Result<Vec<String>, Fault> {
    let mut connection = server.connect().await?;
    let mut present = Vec::new();
    for row in &connection.rows(PRESENT, &[&wanted]).await? {
        present.push(column::<String>(Some(row), 0)?);
    }
    let lacking = wanted.iter().filter(|role| !present.contains(role));
    Ok(lacking.cloned().collect())
}

pub(super) fn lacking_fault(roles: &[String]) -> Fault {
    let roles: Vec<String> = roles.iter().map(|role| format!("\"{role}\"")).collect();
    Fault::error(
        SqlState::UNDEFINED_OBJECT,
        format!("its server lacks the roles {}", roles.join(", ")),
    )
    .hint("Create them there as they are on the home shard's server.")
}

impl Control {
    /// Checks the twins of a database.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(in crate::control) async fn check_twins(
        &self,
        database: &str,
        findings: &mut Vec<Finding>,
    ) {
        let places = self.places(database);
        if places.is_empty() {
            return;
        }
        if let Err(fault) = self.compare_twins(database, findings).await {
            findings.push(from_fault(&fault));
        }
    }

    async fn compare_twins(
        &self,
        database: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), Fault> {
        let mark = self.schema_mark(database).await?;
        let home = {
            let home = &self.database(database)?.home;
            Home::read(&mut self.pool(database, home)?.connect().await?).await?
        };
        let mut missing = Vec::new();
        let mut behind = Vec::new();
        for (index, place) in self.places(database).iter().enumerate() {
            let name = format!("\"{}\"", place.twin.name);
            match self.twin(database, index).await {
                Ok(Some(made)) if made.mark == mark => (),
                Ok(Some(_) | None) => behind.push(name.clone()),
                Err(fault) if fault.code == SqlState::UNKNOWN_DATABASE => {
                    missing.push(name.clone());
                }
                Err(fault) => {
                    findings.push(from_fault(&fault));
                    continue;
                }
            }
            let lacking = lacking_roles(&place.server, &home.roles).await?;
            if !lacking.is_empty() {
                let fault = lacking_fault(&lacking);
                let what = format!("twin {name}: {}", fault.message);
                findings.push(Finding::error(what).hint(fault.hint.unwrap_or_default()));
            }
            let mut connection = place.server.connect().await?;
            let rows = connection.rows(VERSION, &[]).await?;
            let version = u32::try_from(column::<i64>(rows.first(), 0)?).unwrap_or_default();
            let (own, wanted) = (version / 10_000, home.version / 10_000);
            if own != wanted {
                findings.push(
                    Finding::error(format!(
                        "twin {name} is on PostgreSQL {own}, but the home shard on {wanted}"
                    ))
                    .hint("Use a gather server of the same major version: answers may differ."),
                );
            }
        }
        if !missing.is_empty() {
            let what = format!(
                "twins are missing, and queries that need them are refused: {}",
                missing.join(", ")
            );
            findings.push(Finding::warning(what).hint(HINT));
        }
        if !behind.is_empty() {
            let what = format!(
                "twins are behind the home shard's schema: {}",
                behind.join(", ")
            );
            findings.push(
                Finding::warning(what).hint(
                    "A running pgherd makes them again within seconds; else run pgherd setup.",
                ),
            );
        }
        Ok(())
    }
}
