//! What the console and HTTP ask of the running proxy, asked of its engines.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admin::herd::{Doing, Herd, Purge, Shutdown, Unready};
use crate::config::{self, Change, Config};
use crate::error::{Fault, Severity, SqlState};
use crate::metrics::Metrics;
use crate::metrics::period::Period;
use crate::metrics::view::{Detail, PreparedRow, Snapshot as View, State};
use crate::session::engine::{DRAINING, Message, RUNNING, STOPPING, Shared};
use crate::transaction::recovery::Survey;

use super::{files, put_in_force, replace};

/// How often a command that waits looks again.
const LOOK: Duration = Duration::from_millis(50);

/// The running proxy, as administration sees it.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    path: PathBuf,
    /// What holds until a restart.
    began_with: Arc<Config>,
    started: Instant,
    period: Mutex<Period>,
    at_once: AtomicBool,
}

impl Running {
    pub(super) fn new(shared: Arc<Shared>, metrics: Arc<Metrics>, path: PathBuf) -> Arc<Running> {
        let began_with = Arc::clone(&shared.snapshot.load().config);
        Arc::new(Running {
            shared,
            metrics,
            path,
            began_with,
            started: Instant::now(),
            period: Mutex::default(),
            at_once: AtomicBool::new(false),
        })
    }

    /// Whether SHUTDOWN asked for the end at once.
    pub(super) fn ends_at_once(&self) -> bool {
        self.at_once.load(Ordering::Acquire)
    }

    /// Says on standard output's log that clients may come.
    pub(super) fn notify_ready(&self) {
        tracing::debug!(config = %self.path.display(), "serving");
    }

    /// Reads the configuration again and puts it in force. Returns a warning for each key that
    /// waits for a restart.
    pub(super) fn reload_now(&self) -> Result<Vec<Fault>, Fault> {
        let result = files::load(&self.path).and_then(|config| {
            let waiting = config::diff(&self.began_with, &config);
            replace(&self.shared, &self.metrics, config)?;
            Ok(waiting.restarts().map(waits).collect::<Vec<Fault>>())
        });
        if let Ok(warnings) = &result {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
        }
        result.map_err(|faults| refused(&faults))
    }

    async fn tell(&self, message: impl Fn() -> Message) {
        for engine in self.shared.engines.get().into_iter().flatten() {
            // An engine that is gone needs no telling.
            drop(engine.send(message()).await);
        }
    }

    async fn view(&self, detail: Detail) -> View {
        let mut whole = View::default();
        for engine in self.shared.engines.get().into_iter().flatten() {
            let (answer, view) = oneshot::channel();
            if engine.send(Message::View { detail, answer }).await.is_ok()
                && let Ok(view) = view.await
            {
                whole.fold(view);
            }
        }
        if self.shared.stage.load(Ordering::Acquire) != RUNNING {
            whole.state = State::ShuttingDown;
        } else if self.all_paused() {
            whole.state = State::Paused;
        }
        let now = Instant::now();
        for name in self.names(None) {
            let twins = &self.shared.database(&name).twins;
            whole.twins.extend(twins.rows(&name, now));
        }
        whole.cache = self.shared.cache.counts.rows();
        whole.sort();
        whole
    }

    /// What the shards of all databases have prepared.
    async fn prepared(&self) -> Vec<PreparedRow> {
        let snapshot = self.shared.snapshot.load_full();
        let mut rows = Vec::new();
        for name in snapshot.config.databases.keys() {
            let survey = Survey::of(&snapshot.control, &snapshot.config.name, name).await;
            for found in &survey.found {
                let decided = found.decided.as_ref();
                let decision = decided.and_then(|(base, decider)| survey.decision(base, decider));
                let word = |commits| if commits { "commit" } else { "abort" };
                rows.push(PreparedRow {
                    database: name.clone(),
                    shard: found.shard.clone(),
                    gid: found.prepared.gid.clone(),
                    age: found.prepared.age,
                    owner: found.prepared.owner.clone(),
                    decider: decided.map(|(_, decider)| decider.clone()),
                    decision: decision.map(|commits| word(commits).to_owned()),
                });
            }
            for (shard, fault) in survey.faults {
                rows.push(PreparedRow {
                    database: name.clone(),
                    shard,
                    decision: Some(fault.to_string()),
                    ..PreparedRow::default()
                });
            }
        }
        rows
    }

    fn all_paused(&self) -> bool {
        let names = self.names(None);
        let is_paused = |name: &String| self.shared.database(name).paused.load(Ordering::Acquire);
        !names.is_empty() && names.iter().all(is_paused)
    }

    fn names(&self, database: Option<&str>) -> Vec<String> {
        let snapshot = self.shared.snapshot.load();
        match database {
            Some(name) => vec![name.to_owned()],
            None => snapshot.config.databases.keys().cloned().collect(),
        }
    }

    async fn set_paused(&self, database: Option<&str>, paused: bool) {
        for name in self.names(database) {
            self.shared
                .database(&name)
                .paused
                .store(paused, Ordering::Release);
        }
        let database = database.map(str::to_owned);
        self.tell(|| Message::Pause {
            database: database.clone(),
            paused,
        })
        .await;
    }

    async fn wait_until(
        &self,
        database: Option<&str>,
        done: impl Fn(&View, &dyn Fn(&str) -> bool) -> bool,
    ) {
        let meant = |name: &str| database.is_none_or(|database| database == name);
        loop {
            let view = self.view(Detail::Pools).await;
            if done(&view, &meant) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Why a configuration was not put in force.
fn refused(faults: &[Fault]) -> Fault {
    let listed: Vec<String> = faults.iter().map(ToString::to_string).collect();
    Fault::error(
        SqlState::CONFIG,
        "the configuration is not valid; the old one stays in force",
    )
    .detail(listed.join("\n"))
    .hint("Mend the faults and reload again; pgherd check lists them.")
}

/// A key whose change a reload does not apply.
fn waits(change: &Change) -> Fault {
    let mut fault = Fault::error(
        SqlState::CONFIG,
        format!("\"{}\" waits for a restart", change.key),
    );
    fault.severity = Severity::Warning;
    if let Some((old, new)) = &change.values {
        fault = fault.detail(format!(
            "The file says \"{new}\"; \"{old}\" stays in force."
        ));
    }
    fault.hint("Restart pgherd to apply it.")
}

/// Turns the period of SHOW STATS' averages once a second.
pub(super) async fn keep_periods(herd: Arc<Running>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let view = herd.view(Detail::Pools).await;
        let mut period = herd.period.lock().unwrap_or_else(PoisonError::into_inner);
        period.turn(herd.started.elapsed(), &view.stats);
    }
}

impl Herd for Running {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.shared.snapshot.load().config)
    }

    fn purge<'a>(&'a self, what: &'a Purge) -> Doing<'a, ()> {
        Box::pin(async move {
            let tags = what.tags();
            for name in self.names(None) {
                let names: Vec<Box<str>> = tags
                    .iter()
                    .map(|tag| format!("{name}:{tag}").into())
                    .collect();
                let told = self.shared.cache.touch(names.into()).await;
                told.map_err(|_unreachable| {
                    Fault::error(SqlState::CANNOT_CONNECT_NOW, "Redis does not answer")
                        .hint("Purge again once it does; nothing is taken from it meanwhile.")
                })?;
                let table = what.table();
                self.shared.cache.counts.of(&name, &table).purges.add(1);
            }
            Ok(())
        })
    }

    fn snapshot(&self, detail: Detail) -> Doing<'_, View> {
        Box::pin(async move {
            let mut view = self.view(detail).await;
            if detail == Detail::Prepared {
                view.prepared = self.prepared().await;
            }
            let period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
            period.fill(self.started.elapsed(), &mut view.stats);
            Ok(view)
        })
    }

    fn pause<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            self.set_paused(database, true).await;
            self.wait_until(database, |view, meant| {
                view.pools
                    .iter()
                    .all(|pool| !meant(&pool.database) || pool.server_count() == 0)
            })
            .await;
            Ok(())
        })
    }

    fn resume<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            self.set_paused(database, false).await;
            Ok(())
        })
    }

    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            let database = database.map(str::to_owned);
            self.tell(|| Message::Reconnect {
                database: database.clone(),
            })
            .await;
            Ok(())
        })
    }

    fn reload(&self) -> Doing<'_, Vec<Fault>> {
        Box::pin(async move { self.reload_now() })
    }

    fn kill<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            for name in self.names(database) {
                self.shared
                    .database(&name)
                    .paused
                    .store(true, Ordering::Release);
            }
            let database = database.map(str::to_owned);
            let fault = Fault::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            )
            .hint("The database was killed in the console; it serves again after RESUME.");
            self.tell(|| Message::Kill {
                database: database.clone(),
                fault: fault.clone(),
            })
            .await;
            Ok(())
        })
    }

    fn kill_client(&self, id: u64) -> Doing<'_, bool> {
        Box::pin(async move {
            for engine in self.shared.engines.get().into_iter().flatten() {
                let (answer, found) = oneshot::channel();
                if engine
                    .send(Message::KillClient { client: id, answer })
                    .await
                    .is_ok()
                    && found.await.unwrap_or(false)
                {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn disable<'a>(&'a self, database: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            self.shared
                .database(database)
                .disabled
                .store(true, Ordering::Release);
            Ok(())
        })
    }

    fn enable<'a>(&'a self, database: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            self.shared
                .database(database)
                .disabled
                .store(false, Ordering::Release);
            Ok(())
        })
    }

    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            self.wait_until(database, |view, meant| {
                view.servers
                    .iter()
                    .all(|server| !meant(&server.database) || !server.close_needed)
            })
            .await;
            Ok(())
        })
    }

    fn shutdown(&self, how: Shutdown) -> Doing<'_, ()> {
        Box::pin(async move {
            let stage = match how {
                Shutdown::Immediate => {
                    self.at_once.store(true, Ordering::Release);
                    STOPPING
                }
                Shutdown::WaitForServers => STOPPING,
                Shutdown::WaitForClients => DRAINING,
            };
            self.shared.stage.store(stage, Ordering::Release);
            Ok(())
        })
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Doing<'a, ()> {
        Box::pin(async move {
            if !config::is_limit(key) {
                return Err(Fault::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("setting \"{key}\" cannot be changed in the console"),
                )
                .detail("SET changes limits and timeouts.")
                .hint("Change it in the configuration file and RELOAD."));
            }
            let now = self.config();
            let changed = config::with_limit(&now, key, value).map_err(|faults| {
                let first = faults.into_iter().next();
                let (message, hint) = first.map_or_else(Default::default, |fault| {
                    (format!("{}: {}", fault.path, fault.message), fault.hint)
                });
                Fault::error(SqlState::INVALID_PARAMETER_VALUE, message).hint(hint)
            })?;
            put_in_force(&self.shared, changed).map_err(|faults| refused(&faults))?;
            tracing::info!(key, value, "a setting was changed until the next reload");
            Ok(())
        })
    }

    fn resolve<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        Box::pin(async move {
            let mut left = 0_u64;
            for name in self.names(database) {
                let report = self.shared.recover(&name, Duration::ZERO).await;
                left = left.saturating_add(report.in_doubt);
            }
            if left == 0 {
                return Ok(());
            }
            Err(Fault::error(
                SqlState::OBJECT_IN_USE,
                format!("{left} prepared transactions are still in doubt"),
            )
            .detail("Their deciders do not answer, or are still about to commit.")
            .hint("SHOW PREPARED_TRANSACTIONS lists them; the log says why."))
        })
    }

    fn resolve_one<'a>(&'a self, gid: &'a str, commits: bool) -> Doing<'a, ()> {
        Box::pin(async move {
            for name in self.names(None) {
                if self.shared.resolve_one(&name, gid, commits).await? {
                    return Ok(());
                }
            }
            Err(Fault::error(
                SqlState::UNDEFINED_OBJECT,
                format!("no shard has a prepared transaction \"{gid}\" of ours"),
            )
            .hint("SHOW PREPARED_TRANSACTIONS lists them; a stranger's is for its owner to end."))
        })
    }

    fn unready(&self) -> Doing<'_, Vec<Unready>> {
        Box::pin(async move {
            let snapshot = self.shared.snapshot.load_full();
            let mut waiting = tokio::task::JoinSet::new();
            for (name, database) in &snapshot.config.databases {
                for shard in &database.shards {
                    let control = Arc::clone(&snapshot.control);
                    let (name, shard) = (name.clone(), shard.name.clone());
                    waiting.spawn(async move {
                        let ping = tokio::time::timeout(
                            Duration::from_secs(2),
                            control.ping(&name, &shard),
                        )
                        .await;
                        let reason = match ping {
                            Ok(Ok(())) => return None,
                            Ok(Err(fault)) => fault.to_string(),
                            Err(_elapsed) => "no answer within 2 s".to_owned(),
                        };
                        Some(Unready {
                            database: name,
                            shard,
                            reason,
                        })
                    });
                }
            }
            let mut unready = Vec::new();
            let mut seen = BTreeSet::new();
            while let Some(result) = waiting.join_next().await {
                if let Ok(Some(found)) = result
                    && seen.insert((found.database.clone(), found.shard.clone()))
                {
                    unready.push(found);
                }
            }
            unready.sort_by(|one, other| {
                (&one.database, &one.shard).cmp(&(&other.database, &other.shard))
            });
            Ok(unready)
        })
    }
}
