//! Keeping the cache told of changes that went past the proxies, where the shards can tell of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::control::feed::Changed;
use crate::error::Fault;
use crate::planner::cache;
use crate::session::engine::Shared;

/// How often a shard is asked where nothing changes.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The wait before a shard is asked again that could not tell; it doubles up to the longest.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// How soon a reload is followed.
const RELOADS_EVERY: Duration = Duration::from_millis(500);
/// How often another proxy's place is asked for.
const PLACE_EVERY: Duration = Duration::from_secs(2);

/// Listens to the shards of all databases with cached tables, for as long as it runs.
///
/// # Cancel safety
/// Safe at the end of the process: slots go with their connections.
pub(super) async fn keep(shared: Arc<Shared>) {
    loop {
        let snapshot = shared.snapshot.load_full();
        let mut tasks = JoinSet::new();
        for name in snapshot.config.databases.keys() {
            let Some(topology) = snapshot.topologies.get(name).filter(|found| found.caches())
            else {
                continue;
            };
            for shard in topology.shards() {
                tasks.spawn(follow(
                    Arc::clone(&shared),
                    name.clone(),
                    shard.clone(),
                    snapshot.generation,
                ));
            }
        }
        drop(snapshot);
        // Each ends when the configuration is another.
        let is_idle = tasks.is_empty();
        while tasks.join_next().await.is_some() {}
        if is_idle {
            tokio::time::sleep(RELOADS_EVERY).await;
        }
    }
}

/// Follows one shard until the configuration is another.
async fn follow(shared: Arc<Shared>, database: String, shard: String, generation: u64) {
    let mut retry = RETRY;
    let mut told: Option<String> = None;
    while shared.snapshot.load().generation == generation {
        match listen(&shared, &database, &shard, generation).await {
            Ok(true) => {
                retry = RETRY;
                told = None;
            }
            Ok(false) => tokio::time::sleep(PLACE_EVERY).await,
            Err(fault) => {
                let why = fault.to_string();
                if told.as_ref() != Some(&why) {
                    tracing::info!(%database, %shard, reason = %why,
                        "the cache is not told of changes past the proxy: answers may be as old as their tables' policies say");
                    told = Some(why);
                }
                wait(&shared, generation, retry).await;
                retry = retry.saturating_mul(2).min(RETRY_MAX);
            }
        }
    }
}

/// Waits, unless the configuration becomes another.
async fn wait(shared: &Shared, generation: u64, time: Duration) {
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end && shared.snapshot.load().generation == generation {
        tokio::time::sleep(RELOADS_EVERY.min(time)).await;
    }
}

/// Listens to one shard until the configuration is another. Returns whether it was this proxy's turn.
async fn listen(
    shared: &Arc<Shared>,
    database: &str,
    shard: &str,
    generation: u64,
) -> Result<bool, Fault> {
    let snapshot = shared.snapshot.load_full();
    let Some(topology) = snapshot.topologies.get(database) else {
        return Ok(false);
    };
    let tables: Vec<(String, String)> = topology
        .tables()
        .filter(|rule| rule.is_cached())
        .map(|rule| (rule.schema.clone().unwrap_or_default(), rule.name.clone()))
        .collect();
    let alone = shared.cache.redis().is_some();
    let control = Arc::clone(&snapshot.control);
    let Some(mut feed) = control.feed(database, shard, &tables, alone).await? else {
        return Ok(false);
    };
    tracing::info!(%database, %shard, "the cache is told of changes past the proxy");
    // What went before is not known.
    shared.drop_answers(database).await;
    while shared.snapshot.load().generation == generation {
        match feed.next().await {
            Ok(changes) if changes.is_empty() => tokio::time::sleep(ASK_EVERY).await,
            Ok(changes) => {
                if !drop_changed(shared, database, &changes).await {
                    // Until Redis has been told nothing is taken from it, by anyone who noticed.
                    shared.drop_answers(database).await;
                }
            }
            Err(fault) => {
                feed.close();
                shared.drop_answers(database).await;
                return Err(fault);
            }
        }
    }
    feed.close();
    Ok(true)
}

/// Drops what depends on changed rows. Returns whether that could be told.
async fn drop_changed(shared: &Arc<Shared>, database: &str, changes: &[Changed]) -> bool {
    let snapshot = shared.snapshot.load_full();
    let Some(topology) = snapshot.topologies.get(database) else {
        return true;
    };
    let catalog = shared.database(database).catalog.load_full();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut counted: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for change in changes {
        let rows = change.rows.as_deref();
        let (tags, table) = cache::of_change(
            topology,
            &catalog,
            (&change.schema, &change.table),
            rows,
            &change.keeps,
        );
        if let Some(table) = table {
            *counted.entry(table).or_default() += 1;
        }
        for tag in tags {
            let name = format!("{database}:{tag}").into_boxed_str();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        return true;
    }
    for (table, count) in counted {
        shared.cache.counts.of(database, &table).changes.add(count);
    }
    shared.cache.touch(names.into()).await.is_ok()
}
