//! Keeping the catalogs: read at the start, after each reload and DDL, until each home shard answers, and
//! when a look at it shows that the schema was changed past the proxy.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::session::engine::Shared;

/// How soon a reload or DDL is followed by a reading, and the longest wait after failures.
const CATALOGS_EVERY: Duration = Duration::from_millis(500);
const CATALOGS_WAIT_MAX: Duration = Duration::from_secs(10);
/// How many of these rounds go by between two looks for changes that went past the proxy.
const ROUNDS: u32 = 4;
/// How much longer than a look the wait for the next is, at least.
const COST: u32 = 50;

/// The catalogs of all databases.
#[derive(Debug, Default)]
pub(super) struct Catalogs {
    /// By database, the generation of the configuration under which it was read.
    known: HashMap<String, u64>,
    /// By database, what its home shard's catalogs were marked with when they were last looked at.
    marks: HashMap<String, String>,
    /// The same of the types of all its shards.
    types: HashMap<String, String>,
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
            if let Err(fault) = shared.refresh_directories(name).await {
                // Keys are asked for one by one meanwhile.
                tracing::warn!(database = %name, error = %fault, "could not read a directory");
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

    /// Looks for changes that went past the proxy. A home shard that does not answer is looked at again
    /// next time; what it means for clients they hear from its pool.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    async fn look(&mut self, shared: &Arc<Shared>) {
        let snapshot = shared.snapshot.load_full();
        self.marks
            .retain(|name, _| snapshot.config.databases.contains_key(name));
        for name in snapshot.config.databases.keys() {
            if let Err(fault) = shared.refresh_directories(name).await {
                tracing::debug!(database = %name, error = %fault, "could not read a directory");
            }
            let seen = self.marks.get(name).map(String::as_str);
            match shared.notice_changes(name, seen).await {
                Ok(mark) => {
                    // Rights and policies are no part of the catalog, and decide what answers are.
                    if seen.is_some_and(|seen| seen != mark) {
                        shared.drop_answers(name).await;
                    }
                    self.marks.insert(name.clone(), mark);
                }
                Err(fault) => {
                    tracing::debug!(database = %name, error = %fault, "could not look at the catalogs");
                }
            }
        }
    }

    /// Looks for types that were made or changed past the proxy, on any shard.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    async fn look_at_types(&mut self, shared: &Arc<Shared>) {
        let snapshot = shared.snapshot.load_full();
        self.types
            .retain(|name, _| snapshot.config.databases.contains_key(name));
        for name in snapshot.config.databases.keys() {
            let seen = self.types.get(name).map(String::as_str);
            match shared.notice_types(name, seen).await {
                Ok(marks) => {
                    self.types.insert(name.clone(), marks);
                }
                Err(fault) => {
                    tracing::debug!(database = %name, error = %fault, "could not look at the types");
                }
            }
        }
    }

    /// Reads them again after each reload, while one cannot be reached, and after changes past the proxy.
    ///
    /// # Cancel safety
    /// Safe: those read stay read.
    pub(super) async fn keep(mut self, shared: Arc<Shared>) {
        let mut wait = CATALOGS_EVERY;
        let mut round = 0;
        let mut rounds = ROUNDS;
        let mut round_of_types = 0;
        let mut rounds_of_types = ROUNDS;
        loop {
            tokio::time::sleep(wait).await;
            let complete = self.read(&shared).await;
            round = if complete { round + 1 } else { 0 };
            if round >= rounds {
                round = 0;
                let began = Instant::now();
                self.look(&shared).await;
                rounds = rounds_after(began);
            }
            round_of_types = u32::saturating_add(round_of_types, 1);
            if complete && round_of_types >= rounds_of_types {
                round_of_types = 0;
                let began = Instant::now();
                self.look_at_types(&shared).await;
                rounds_of_types = rounds_after(began);
            }
            wait = if complete {
                CATALOGS_EVERY
            } else {
                wait.saturating_mul(2).min(CATALOGS_WAIT_MAX)
            };
        }
    }
}

/// Rounds until the next look: of large catalogs one takes time, and is taken more seldom.
fn rounds_after(began: Instant) -> u32 {
    let cost = began.elapsed().saturating_mul(COST).as_millis();
    let cost = cost / CATALOGS_EVERY.as_millis().max(1);
    u32::try_from(cost).unwrap_or(u32::MAX).max(ROUNDS)
}
