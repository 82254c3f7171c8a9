//! The running proxy: threads, listeners, signals, reload and the end.
//!
//! One thread an engine, each with a runtime of its own; one control runtime for what may wait:
//! accepting, HTTP, the console's work, looking at servers. SIGHUP reloads; SIGTERM refuses new
//! clients and ends when those connected have left; SIGINT, or a second SIGTERM, ends each client
//! after its current transaction.

mod catalogs;
mod deadlocks;
mod feed;
mod files;
mod herd;
mod listen;
mod recovery;
mod twins;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::console::Console;
use crate::admin::{http, log};
use crate::config::Config;
use crate::control::Control;
use crate::error::{Fault, SqlState};
use crate::metrics::Metrics;
use crate::metrics::catalogue::Metric;
use crate::placement::moved::moved;
use crate::placement::topology::Topology;
use crate::session::auth::Keyring;
use crate::session::engine::{DRAINING, Engine, Message, RUNNING, STOPPING, Shared, Snapshot};
use crate::tls::Tls;

use catalogs::Catalogs;
pub use files::{load, read, sources_fault};
use herd::Running;
use listen::{accept, listen};

/// Messages to an engine that may wait.
const MESSAGES_MAX: usize = 10_000;
/// How long the first reading of the catalogs may hold up the start.
const FIRST_CATALOGS: Duration = Duration::from_secs(5);
/// Threads of the control runtime.
const CONTROL_THREADS: usize = 2;

/// Runs the proxy until it is told to end.
///
/// # Errors
/// What keeps it from starting: every fault of the configuration, or a socket that cannot be opened.
pub fn run(path: &Path) -> Result<(), Vec<Fault>> {
    let config = load(path)?;
    log::install(&config.log, std::env::var("RUST_LOG").ok().as_deref())
        .map_err(|fault| vec![fault])?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| vec![could_not("start the control runtime", &error)])?;
    let result = runtime.block_on(serve(path.to_path_buf(), config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

fn could_not(what: &str, error: &std::io::Error) -> Fault {
    Fault::fatal(SqlState::CONFIG, format!("could not {what}"))
        .detail(format!("{error}."))
        .hint("Check the system's limits and the configuration.")
}

/// A configuration made ready.
fn ready(config: Config, generation: u64) -> Result<Snapshot, Vec<Fault>> {
    let mut faults = Vec::new();
    let tls = Tls::load(&config.tls, &config.server_tls)
        .map_err(|error| faults.push(Fault::fatal(SqlState::CONFIG, error.to_string())))
        .ok();
    let mut topologies = HashMap::new();
    for (name, database) in &config.databases {
        match Topology::new(database) {
            Ok(topology) => {
                topologies.insert(name.clone(), Arc::new(topology));
            }
            Err(fault) => faults.push(fault),
        }
    }
    let (Some(tls), true) = (tls, faults.is_empty()) else {
        return Err(faults);
    };
    let config = Arc::new(config);
    let control = Arc::new(Control::new(&config, &tls.connector));
    Ok(Snapshot {
        config,
        tls: Arc::new(tls),
        topologies,
        control,
        generation,
    })
}

/// What keeps a configuration from being run, though its text is in order: files, and placements.
pub fn obstacles(config: &Config) -> Vec<Fault> {
    ready(config.clone(), 0).err().unwrap_or_default()
}

async fn serve(path: PathBuf, config: Config) -> Result<(), Vec<Fault>> {
    let snapshot = ready(config, 1)?;
    let config = Arc::clone(&snapshot.config);
    let listeners = listen(&config.listen).await?;
    let keyring = Keyring::new().map_err(|fault| vec![fault])?;
    let shared = Shared::new(snapshot, keyring, tokio::runtime::Handle::current());
    let metrics = Arc::new(Metrics::new());
    metrics.prime(&config);
    let engines = start_engines(&shared, &metrics, config.engines)?;
    let herd = Running::new(Arc::clone(&shared), Arc::clone(&metrics), path);
    if shared
        .console
        .set(Arc::new(Console::new(Arc::<Running>::clone(&herd))))
        .is_err()
    {
        tracing::error!("the console was set twice");
    }
    let mut tasks = JoinSet::new();
    if let Some(address) = &config.http {
        let listener = http::bind(address).await.map_err(|fault| vec![fault])?;
        tasks.spawn(serve_http(
            listener,
            Arc::clone(&herd),
            Arc::clone(&metrics),
        ));
    }
    let mut catalogs = Catalogs::default();
    // A home shard that does not answer in time holds up only its own database's statements.
    let first = tokio::time::timeout(FIRST_CATALOGS, catalogs.read(&shared)).await;
    if first.is_err() {
        tracing::warn!(
            "the catalogs were not read in time; statements may be refused until they are"
        );
    }
    tasks.spawn(catalogs.keep(Arc::clone(&shared)));
    tasks.spawn(twins::keep(Arc::clone(&shared)));
    tasks.spawn(recovery::keep(Arc::clone(&shared), Arc::clone(&metrics)));
    tasks.spawn(deadlocks::keep(Arc::clone(&shared), Arc::clone(&metrics)));
    tasks.spawn(feed::keep(Arc::clone(&shared)));
    tasks.spawn(hear_channels(Arc::clone(&shared)));
    tasks.spawn(herd::keep_periods(Arc::clone(&herd)));
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&shared)));
    }
    tracing::info!(listen = ?config.listen, engines = engines.len(), "pgherd is ready");
    herd.notify_ready();
    wait_for_end(&shared, &herd, &mut accepting).await;
    tasks.shutdown().await;
    end_engines(&shared, engines).await;
    Ok(())
}

async fn serve_http(listener: TcpListener, herd: Arc<Running>, metrics: Arc<Metrics>) {
    let served = http::serve(listener, herd, metrics, std::future::pending()).await;
    if let Err(fault) = served {
        tracing::error!(error = %fault, "HTTP ended");
    }
}

/// The threads of the engines. `auto` is half the cores: PostgreSQL or the application often live on
/// the same machine, and one engine serves some ten thousand transactions a second.
fn start_engines(
    shared: &Arc<Shared>,
    metrics: &Arc<Metrics>,
    count: Option<usize>,
) -> Result<Vec<JoinHandle<()>>, Vec<Fault>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = count.unwrap_or_else(|| cores.div_euclid(2)).max(1);
    let mut senders = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        senders.push(sender);
        let shared = Arc::clone(shared);
        let metrics = Arc::clone(metrics);
        let thread = std::thread::Builder::new()
            .name(format!("engine-{index}"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(tokio::runtime::LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(Engine::new(index, shared).run(messages, metrics));
                    }
                    Err(error) => tracing::error!(%error, "an engine could not start"),
                }
            })
            .map_err(|error| vec![could_not("start an engine", &error)])?;
        threads.push(thread);
    }
    if shared.engines.set(senders).is_err() {
        tracing::error!("the engines were set twice");
    }
    Ok(threads)
}

/// Follows signals until the proxy may end.
async fn wait_for_end(shared: &Arc<Shared>, herd: &Arc<Running>, accepting: &mut JoinSet<()>) {
    let (Ok(mut hangup), Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!("signals cannot be received");
        return;
    };
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            biased;
            // All safe: a signal or a tick is taken or stays.
            _ = interrupt.recv() => shared.stage.store(STOPPING, Ordering::Release),
            _ = terminate.recv() => {
                let stage = if shared.stage.load(Ordering::Acquire) == RUNNING { DRAINING } else { STOPPING };
                tracing::info!("draining: new clients are refused");
                shared.stage.store(stage, Ordering::Release);
            }
            _ = hangup.recv() => {
                if let Err(fault) = herd.reload_now() {
                    tracing::error!(error = %fault, "the configuration was not reloaded");
                }
            }
            _ = tick.tick() => {}
        }
        if shared.stage.load(Ordering::Acquire) != RUNNING {
            accepting.abort_all();
            if shared.clients.load(Ordering::Acquire) == 0 || herd.ends_at_once() {
                return;
            }
        }
    }
}

/// Lets the engines finish and joins their threads.
async fn end_engines(shared: &Arc<Shared>, engines: Vec<JoinHandle<()>>) {
    let fault = Fault::fatal(
        SqlState::ADMIN_SHUTDOWN,
        "terminating connection: pgherd is shutting down",
    )
    .hint("Connect again.");
    for engine in shared.engines.get().into_iter().flatten() {
        // An engine that is gone has nothing to end.
        drop(
            engine
                .send(Message::Kill {
                    database: None,
                    fault: fault.clone(),
                })
                .await,
        );
        drop(engine.send(Message::End).await);
    }
    let joined = tokio::task::spawn_blocking(move || {
        for engine in engines {
            if engine.join().is_err() {
                tracing::error!("an engine panicked");
            }
        }
    });
    if tokio::time::timeout(Duration::from_secs(5), joined)
        .await
        .is_err()
    {
        tracing::warn!("an engine did not end in time");
    }
}

/// Whether rows that are there are found under a new configuration.
fn stays(old: &Snapshot, new: &Snapshot) -> Result<(), Vec<Fault>> {
    let changes = moved(
        (&old.config, &new.config),
        |name| old.topologies.get(name).map(Arc::as_ref),
        |name| new.topologies.get(name).map(Arc::as_ref),
    );
    if changes.is_empty() {
        return Ok(());
    }
    Err(vec![
        Fault::error(
            SqlState::CONFIG,
            format!(
                "the new configuration places rows elsewhere: {}",
                changes.join(", ")
            ),
        )
        .detail("Rows that were placed by the configuration in force would not be found.")
        .hint("Move the rows first, while traffic is stopped; a restart takes the new file."),
    ])
}

/// Replaces the configuration in force.
///
/// # Errors
/// Every fault of the new one; the old one stays.
fn replace(shared: &Arc<Shared>, metrics: &Metrics, config: Config) -> Result<(), Vec<Fault>> {
    let result = put_in_force(shared, config);
    let outcome = if result.is_ok() { "ok" } else { "failed" };
    metrics.add(Metric::Reloads, &[outcome], 1);
    result?;
    tracing::info!("the configuration was reloaded");
    Ok(())
}

/// Makes a configuration ready and tells the engines of it.
fn put_in_force(shared: &Arc<Shared>, config: Config) -> Result<(), Vec<Fault>> {
    let old = shared.snapshot.load_full();
    let mut snapshot = ready(config, old.generation.wrapping_add(1))?;
    stays(&old, &snapshot)?;
    if snapshot.config.tls == old.config.tls && snapshot.config.server_tls == old.config.server_tls
    {
        // Same files: pools keep their connections. Their certificates may be new all the same.
        if !files::certificates_changed(&snapshot.config, &old.config) {
            snapshot.tls = Arc::clone(&old.tls);
        }
    }
    // What the catalogs say is doubtful until they are read again.
    for name in snapshot.config.databases.keys() {
        shared.database(name).schema_changed();
    }
    shared.snapshot.store(Arc::new(snapshot));
    // Its twins may be others.
    for name in shared.snapshot.load().config.databases.keys() {
        shared.database(name).twins.ask();
    }
    for engine in shared.engines.get().into_iter().flatten() {
        if engine.try_send(Message::Reload).is_err() {
            tracing::warn!("an engine is too busy to be told of the reload at once");
        }
    }
    Ok(())
}

/// Listens to the channels that tell of changes made elsewhere; says at the start where answers are kept.
async fn hear_channels(shared: Arc<Shared>) {
    let config = Arc::clone(&shared.snapshot.load().config);
    let caches = |name: &String| {
        let snapshot = shared.snapshot.load();
        let topology = snapshot.topologies.get(name);
        topology.is_some_and(|topology| topology.caches())
    };
    let databases: Vec<String> = config
        .databases
        .keys()
        .filter(|name| caches(name))
        .cloned()
        .collect();
    if databases.is_empty() {
        return;
    }
    if config.cache.redis.is_none() {
        tracing::warn!(
            "answers of cached tables are kept in this process alone: run one proxy, or set cache.redis"
        );
    }
    crate::cache::events::listen(Arc::clone(&shared.cache), config.cache.clone(), databases).await;
}
