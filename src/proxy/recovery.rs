//! Ending what killed proxies and servers left prepared: one task a database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinSet};

use crate::metrics::Metrics;
use crate::metrics::catalogue::Metric;
use crate::session::engine::Shared;

/// How soon a database that a reload brought is looked after.
const DATABASES_EVERY: Duration = Duration::from_millis(500);
/// How long decisions that may be taken back are collected.
const COLLECTING: Duration = Duration::from_millis(50);

/// Looks after all databases of the configuration.
///
/// # Cancel safety
/// Safe: what was not done is done by the next look, of any proxy.
pub(super) async fn keep(shared: Arc<Shared>, metrics: Arc<Metrics>) {
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
        for (name, database) in &config.databases {
            // On one shard there is nothing to be in doubt about.
            if database.shards.len() > 1 && !kept.contains_key(name) {
                let work = keep_database(Arc::clone(&shared), Arc::clone(&metrics), name.clone());
                kept.insert(name.clone(), tasks.spawn(work));
            }
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "recovery failed");
            }
        }
        tokio::time::sleep(DATABASES_EVERY).await;
    }
}

async fn keep_database(shared: Arc<Shared>, metrics: Arc<Metrics>, name: String) {
    let decided = Arc::clone(&shared.database(&name).decided);
    let mut looked: Option<Instant> = None;
    loop {
        let snapshot = shared.snapshot.load_full();
        let (config, control) = (&snapshot.config, &snapshot.control);
        for (decider, gids) in decided.take() {
            // What is not taken back here is by a later look.
            if let Err(fault) = control.take_back(&name, &decider, &gids).await {
                tracing::debug!(database = %name, shard = %decider, error = %fault, "could not take back decisions");
            }
        }
        let every = config.recovery.every;
        let is_due = looked.is_none_or(|at| at.elapsed() >= every);
        if is_due || decided.take_wish() {
            let report = shared.recover(&name, config.recovery.age).await;
            looked = Some(Instant::now());
            metrics.add(Metric::TransactionsRecovered, &[&name], report.recovered);
            metrics.set_count(Metric::TransactionsPrepared, &[&name], report.prepared);
            metrics.set_count(Metric::TransactionsInDoubt, &[&name], report.in_doubt);
        }
        let left = looked.map_or(Duration::ZERO, |at| every.saturating_sub(at.elapsed()));
        if tokio::time::timeout(left, decided.changed()).await.is_ok() {
            tokio::time::sleep(COLLECTING).await;
        }
    }
}
