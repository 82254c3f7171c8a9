//! Keeping the catalogs: read at the start, after each reload and DDL, and until each home shard answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::session::engine::Shared;

/// How soon a reload or DDL is followed by a reading, and the longest wait after failures.
const CATALOGS_EVERY: Duration = Duration::from_millis(500);
const CATALOGS_WAIT_MAX: Duration = Duration::from_secs(10);

/// The catalogs of all databases.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    /// By database, the generation of the configuration under which it was read.
    known: HashMap<String, u64>,
}

impl Catalogs {
    /// Reads those that have not been read since the last reload or DDL; whether all could be.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    pub(super) async fn read(&mut self, shared: &Arc<Shared>) -> bool {
        let snapshot = shared.snapshot.load_full();
        let mut complete = true;
        for name in snapshot.config.databases.keys() {
            let known = shared.database(name);
            if known.catalog_is_current() && self.known.get(name) == Some(&snapshot.generation) {
                continue;
            }
            match shared.refresh_catalog(name).await {
                Ok(()) => {
                    self.known.insert(name.clone(), snapshot.generation);
                }
                Err(fault) => {
                    tracing::warn!(database = %name, error = %fault, "could not read the catalog");
                    complete = false;
                }
            }
        }
        complete
    }

    /// Reads them again after each reload, and while one cannot be reached.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    pub(super) async fn keep(mut self, shared: Arc<Shared>) {
        let mut wait = CATALOGS_EVERY;
        loop {
            tokio::time::sleep(wait).await;
            wait = if self.read(&shared).await {
                CATALOGS_EVERY
            } else {
                wait.saturating_mul(2).min(CATALOGS_WAIT_MAX)
            };
        }
    }
}
