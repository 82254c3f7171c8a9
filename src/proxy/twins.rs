//! Keeping the twins current: one task a database, woken by each change of the schema.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use crate::session::engine::Shared;

/// How soon a database that a reload brought is looked after.
const DATABASES_EVERY: Duration = Duration::from_millis(500);
/// How often twins are looked at where nothing is known to have changed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The same where none is ready.
const LOOK_EVERY_MISSING: Duration = Duration::from_secs(2);
/// The wait after a failure; it doubles up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Looks after the twins of all databases of the configuration.
///
/// # Cancel safety
/// Safe: the tasks end with it, and a twin that is being made stays as it was.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    let mut kept: HashMap<String, AbortHandle> = HashMap::new();
    loop {
        let config = Arc::clone(&shared.snapshot.load().config);
        kept.retain(|name, task| {
            let stays = config.databases.contains_key(name);
            if !stays {
                task.abort();
            }
            stays
        });
        for name in config.databases.keys() {
            if !kept.contains_key(name) {
                let task = tasks.spawn(keep_database(Arc::clone(&shared), name.clone()));
                kept.insert(name.clone(), task);
            }
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "keeping twins failed");
            }
        }
        tokio::time::sleep(DATABASES_EVERY).await;
    }
}

async fn keep_database(shared: Arc<Shared>, name: String) {
    let twins = Arc::clone(&shared.database(&name).twins);
    // When, and under which configuration.
    let mut looked: Option<(Instant, u64)> = None;
    let mut retry = RETRY;
    loop {
        let generation = shared.snapshot.load().generation;
        let thoroughly =
            looked.is_none_or(|(at, under)| at.elapsed() >= LOOK_EVERY || under != generation);
        let wait = match shared.follow_twins(&name, thoroughly).await {
            Ok(()) => {
                if thoroughly {
                    looked = Some((Instant::now(), generation));
                }
                retry = RETRY;
                if twins.ready().is_ok() {
                    LOOK_EVERY
                } else {
                    // pgherd setup may be creating them.
                    looked = None;
                    LOOK_EVERY_MISSING
                }
            }
            Err(fault) => {
                tracing::warn!(database = %name, error = %fault, "the twins are not current");
                looked = None;
                let wait = retry;
                retry = retry.saturating_mul(2).min(RETRY_MAX);
                wait
            }
        };
        // Safe: a change that is asked to be followed is asked still.
        drop(tokio::time::timeout(wait, twins.wanted()).await);
    }
}
