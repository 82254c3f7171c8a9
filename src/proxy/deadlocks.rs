//! Looking for deadlocks over several shards, and ending them: one task a database, which does nothing while nobody waits.
//!
//! A look asks the engines who holds connections and waits, tells the other proxies and hears what they tell,
//! and asks the shards who waits for whom. What two looks have in common is searched ([`deadlock`]); what a
//! proxy has told that is not newer than the first look counts in none. Of each circle the client that is to be
//! ended is the same for all who see it: the proxy that it belongs to ends it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};

use crate::control::locks::Told;
use crate::deadlock::{Deadlock, LockWait, Unit, View, common, find};
use crate::metrics::Metrics;
use crate::metrics::catalogue::Metric;
use crate::session::deadlocks::{Report, Sentence, fault};
use crate::session::engine::{Message, Shared};

/// How soon a database that a reload brought is looked after.
const DATABASES_EVERY: Duration = Duration::from_millis(500);
/// How often one looks while somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How soon one looks again who has seen a circle.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long a shard may take to say who waits.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Seconds after which what a proxy has told lapses.
const LAPSES: f64 = 3.0;
/// Seconds that a look is kept to be compared with.
const KEPT: f64 = 1.0;
/// Clients that one proxy tells the others of, at most: the oldest.
const TOLD_MAX: usize = 1_000;

/// Looks after all databases of the configuration.
///
/// # Cancel safety
/// Safe: who waits in a circle is found by the next look.
pub(super) async fn keep(shared: Arc<Shared>, metrics: Arc<Metrics>) {
    let proxy = own_name();
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
            if database.shards.len() > 1 && !kept.contains_key(name) {
                let keeper = Keeper {
                    shared: Arc::clone(&shared),
                    metrics: Arc::clone(&metrics),
                    database: name.clone(),
                    proxy: proxy.clone(),
                    is_deaf: false,
                };
                kept.insert(name.clone(), tasks.spawn(keeper.keep()));
            }
        }
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "looking for deadlocks failed");
            }
        }
        tokio::time::sleep(DATABASES_EVERY).await;
    }
}

/// A name that no other proxy has.
fn own_name() -> String {
    let mut random = [0; 8];
    if SystemRandom::new().fill(&mut random).is_err() {
        tracing::warn!(
            "the system has no random numbers: this proxy's name is good on one machine only"
        );
    }
    format!("{:016x}-{}", u64::from_be_bytes(random), std::process::id())
}

/// What is known at one look.
struct Look {
    view: View,
    /// What the other proxies told since the look before.
    fresh: BTreeSet<String>,
    /// When it was, by the home shard's clock.
    at: f64,
    /// A circle was seen.
    is_suspect: bool,
}

impl Look {
    /// Whether the next look is to be compared with this one, in place of `now`: not all that have told of
    /// the circle have told again.
    fn is_kept(&self, now: &Look, owner: &str) -> bool {
        let mut others = now.view.units.keys().filter(|proxy| *proxy != owner);
        self.is_suspect
            && now.is_suspect
            && now.at - self.at < KEPT
            && others.any(|proxy| !now.fresh.contains(proxy))
    }
}

struct Keeper {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    database: String,
    proxy: String,
    /// It has been logged that the other proxies cannot be told.
    is_deaf: bool,
}

impl Keeper {
    async fn keep(mut self) {
        let wish = Arc::clone(&self.shared.database(&self.database).deadlocks);
        loop {
            wish.asked().await;
            if !wish.take() {
                continue;
            }
            let mut before: Option<Look> = None;
            loop {
                let now = self.look(before.as_ref()).await;
                if let Some(before) = &before {
                    self.judge(before, &now).await;
                }
                let is_suspect = now.is_suspect;
                let owner = self.owner();
                before = match before {
                    Some(kept) if kept.is_kept(&now, &owner) => Some(kept),
                    Some(_) | None => Some(now),
                };
                tokio::time::sleep(if is_suspect { LOOK_AGAIN } else { LOOK_EVERY }).await;
                // Engines ask less often than one looks who has seen a circle.
                if !wish.take() && !is_suspect {
                    break;
                }
            }
            let control = Arc::clone(&self.shared.snapshot.load().control);
            let owner = self.owner();
            if let Err(fault) = control.withdraw_waits(&self.database, &owner).await {
                tracing::debug!(database = %self.database, error = %fault, "could not withdraw who waits");
            }
        }
    }

    /// The names of the proxies of this deployment begin like this.
    fn prefix(&self) -> String {
        let deployment = self.shared.snapshot.load().config.name.clone();
        format!("{deployment}:{}:", self.database)
    }

    fn owner(&self) -> String {
        format!("{}{}", self.prefix(), self.proxy)
    }

    /// Who waits, here, as the other proxies tell, and on the shards.
    async fn look(&mut self, before: Option<&Look>) -> Look {
        let own = self.own_units().await;
        let (told, at) = self.exchange(&own).await;
        let mut view = View::default();
        let mut fresh = BTreeSet::new();
        for told in told {
            if before.is_none_or(|before| told.at > before.at) {
                fresh.insert(told.owner.clone());
            }
            match serde_json::from_str::<Vec<Unit>>(&told.units) {
                Ok(units) => drop(view.units.insert(told.owner, units)),
                Err(error) => {
                    tracing::debug!(%error, "what another proxy tells of who waits cannot be read");
                }
            }
        }
        view.units.insert(self.owner(), own);
        view.locks = self.locks(&view).await;
        let is_suspect = !find(&view).is_empty();
        Look {
            view,
            fresh,
            at,
            is_suspect,
        }
    }

    async fn own_units(&self) -> Vec<Unit> {
        let after = self.shared.snapshot.load().config.limits.deadlock_timeout;
        let mut report = Report::default();
        for engine in self.shared.engines.get().into_iter().flatten() {
            let (answer, told) = oneshot::channel();
            let asked = engine.send(Message::Waits {
                database: self.database.clone(),
                after,
                answer,
            });
            // An engine that is gone has no clients.
            if asked.await.is_ok()
                && let Ok(told) = told.await
            {
                report.add(told);
            }
        }
        let mut units = report.into_units();
        units.sort_by_key(|unit| (unit.began, unit.client));
        units
    }

    /// Tells the other proxies, and hears what they tell.
    async fn exchange(&mut self, own: &[Unit]) -> (Vec<Told>, f64) {
        let control = Arc::clone(&self.shared.snapshot.load().control);
        let told = own.get(..TOLD_MAX).unwrap_or(own);
        let told = serde_json::to_string(told).unwrap_or_else(|_| "[]".to_owned());
        let (prefix, owner) = (self.prefix(), self.owner());
        let exchanged = control.exchange_waits(&self.database, (&prefix, &owner), &told, LAPSES);
        let fault = match tokio::time::timeout(ANSWER_WAIT, exchanged).await {
            Ok(Ok((at, told))) => {
                self.is_deaf = false;
                return (told, at);
            }
            Ok(Err(fault)) => fault.to_string(),
            Err(_elapsed) => "the home shard did not answer in time".to_owned(),
        };
        if !std::mem::replace(&mut self.is_deaf, true) {
            tracing::warn!(database = %self.database, error = %fault,
                "the other proxies cannot be told who waits: deadlocks with their clients are not found");
        }
        (Vec::new(), 0.0)
    }

    /// Who waits for locks on the shards that anybody holds a connection of.
    async fn locks(&self, view: &View) -> Vec<LockWait> {
        let units = view.units.values().flatten();
        let held = units.flat_map(|unit| &unit.held);
        let shards: BTreeSet<&String> = held.map(|held| &held.shard).collect();
        let mut asking = JoinSet::new();
        for shard in shards {
            let control = Arc::clone(&self.shared.snapshot.load().control);
            let (database, shard) = (self.database.clone(), shard.clone());
            asking.spawn(async move {
                let asked = control.lock_waits(&database, &shard);
                match tokio::time::timeout(ANSWER_WAIT, asked).await {
                    Ok(Ok(waits)) => waits,
                    Ok(Err(fault)) => {
                        tracing::debug!(%database, %shard, error = %fault, "could not ask who waits");
                        Vec::new()
                    }
                    Err(_elapsed) => Vec::new(),
                }
            });
        }
        let mut locks = Vec::new();
        while let Some(asked) = asking.join_next().await {
            locks.extend(asked.unwrap_or_default());
        }
        locks.sort_by(|one, other| (&one.shard, one.pid).cmp(&(&other.shard, other.pid)));
        locks
    }

    /// Ends the clients of this proxy that are to be, by what two looks have in common.
    async fn judge(&self, before: &Look, now: &Look) {
        let owner = self.owner();
        let mut known = common(&before.view, &now.view);
        known
            .units
            .retain(|proxy, _| *proxy == owner || now.fresh.contains(proxy));
        let waiting: BTreeMap<(&str, i32), &LockWait> = known
            .locks
            .iter()
            .map(|wait| ((wait.shard.as_str(), wait.pid), wait))
            .collect();
        for Deadlock {
            victim,
            detail,
            shards,
        } in find(&known)
        {
            let units = known.units.get(&victim.proxy).map(Vec::as_slice);
            let mut units = units.unwrap_or_default().iter();
            let Some(unit) = units.find(|unit| unit.client == victim.client) else {
                continue;
            };
            if victim.proxy != owner {
                continue;
            }
            let held = unit.held.iter();
            let sentence = Sentence {
                waiting: held
                    .filter(|held| waiting.contains_key(&(held.shard.as_str(), held.pid)))
                    .map(|held| (held.shard.clone(), held.pid))
                    .collect(),
                fault: fault(&detail),
                unit: unit.clone(),
            };
            if self.carry_out(sentence).await {
                self.metrics.add(Metric::Deadlocks, &[&self.database], 1);
                let steps = detail.replace('\n', " ");
                tracing::warn!(database = %self.database, client = victim.client, ?shards, %steps, "deadlock detected");
            }
        }
    }

    /// Returns whether the client still waited as it did.
    async fn carry_out(&self, sentence: Sentence) -> bool {
        for engine in self.shared.engines.get().into_iter().flatten() {
            let (answer, told) = oneshot::channel();
            let sentence = Box::new(Sentence {
                unit: sentence.unit.clone(),
                waiting: sentence.waiting.clone(),
                fault: sentence.fault.clone(),
            });
            let sent = engine.send(Message::Sentence { sentence, answer });
            if sent.await.is_ok() && told.await.unwrap_or(false) {
                return true;
            }
        }
        false
    }
}
