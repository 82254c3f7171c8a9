//! Ends what killed proxies and servers left prepared. Why it may is told in [the module's page](super).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::control::Control;
use crate::control::decisions::{Decision, Prepared};
use crate::error::{Fault, SqlState};

use super::{failpoint, gid};

/// A prepared transaction of a shard.
#[derive(Clone, Debug)]
pub struct Found {
    pub shard: String,
    pub prepared: Prepared,
    /// Of ours, the key of its row and the shard that has it.
    pub decided: Option<(String, String)>,
}

/// What all shards of a database have prepared, and what has been decided.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub found: Vec<Found>,
    /// By the shard that has them.
    pub decisions: BTreeMap<String, Vec<Decision>>,
    /// Shards that could not be asked, and why.
    pub faults: Vec<(String, Fault)>,
}

/// What one look has done.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Prepared transactions of ours that were there.
    pub prepared: u64,
    /// Those of them that were ended.
    pub recovered: u64,
    /// Those past the grace age that could not be.
    pub in_doubt: u64,
}

impl Survey {
    /// Asks every shard. Decisions are asked for before prepared transactions.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn of(control: &Control, deployment: &str, database: &str) -> Survey {
        let shards = control.shard_names(database);
        let mut survey = Survey::default();
        let prefixes: Vec<(String, &String)> = shards
            .iter()
            .map(|shard| (gid::prefix(deployment, database, shard), shard))
            .collect();
        for (prefix, shard) in &prefixes {
            match control.decisions(database, shard, prefix).await {
                Ok(decisions) => {
                    survey.decisions.insert((*shard).clone(), decisions);
                }
                Err(fault) => survey.faults.push(((*shard).clone(), fault)),
            }
        }
        for shard in &shards {
            let prepared = match control.prepared(database, shard).await {
                Ok(prepared) => prepared,
                Err(fault) => {
                    survey.faults.push((shard.clone(), fault));
                    continue;
                }
            };
            for prepared in prepared {
                let decided = prefixes.iter().find_map(|(prefix, decider)| {
                    let base = gid::base(&prepared.gid, prefix)?;
                    Some((base.to_owned(), (*decider).clone()))
                });
                survey.found.push(Found {
                    shard: shard.clone(),
                    prepared,
                    decided,
                });
            }
        }
        survey
    }

    /// What has been decided of a transaction, as far as it is known.
    pub fn decision(&self, base: &str, decider: &str) -> Option<bool> {
        let decisions = self.decisions.get(decider)?;
        let known = decisions.iter().find(|decision| decision.gid == base)?;
        Some(known.commits)
    }
}

/// Ends what is older than `age`, and takes back decisions that nothing depends on any more.
///
/// # Cancel safety
/// Safe: what was done stays, and the next look does the rest.
pub async fn recover(control: &Control, deployment: &str, database: &str, age: Duration) -> Report {
    let survey = Survey::of(control, deployment, database).await;
    let mut report = Report::default();
    let mut settled: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for found in &survey.found {
        let Some((base, decider)) = &found.decided else {
            continue;
        };
        report.prepared = report.prepared.saturating_add(1);
        if found.prepared.age < age {
            continue;
        }
        let decision = if let Some(known) = settled.get(base.as_str()) {
            *known
        } else {
            failpoint::pass("before_settle");
            let decision = control.settle(database, decider, base).await;
            let decision = decision.unwrap_or_else(|fault| {
                tracing::warn!(%database, shard = %decider, error = %fault, "could not find out what was decided");
                None
            });
            failpoint::pass("after_settle");
            settled.insert(base, decision);
            decision
        };
        let gid = &found.prepared.gid;
        let Some(commits) = decision else {
            report.in_doubt = report.in_doubt.saturating_add(1);
            continue;
        };
        match control.finish(database, &found.shard, gid, commits).await {
            Ok(()) => {
                report.recovered = report.recovered.saturating_add(1);
                tracing::info!(%database, shard = %found.shard, %gid, commits, "ended a prepared transaction");
            }
            Err(fault) => {
                report.in_doubt = report.in_doubt.saturating_add(1);
                tracing::warn!(%database, shard = %found.shard, %gid, error = %fault, "could not end a prepared transaction");
            }
        }
        failpoint::pass("after_finish");
    }
    if survey.faults.is_empty() {
        clear(control, database, age, &survey).await;
    }
    report
}

/// Takes back decisions of which no shard has anything prepared.
async fn clear(control: &Control, database: &str, age: Duration, survey: &Survey) {
    for (decider, decisions) in &survey.decisions {
        let is_needed = |decision: &&Decision| {
            survey.found.iter().any(|found| {
                let of = found.decided.as_ref();
                of.is_some_and(|(base, _)| *base == decision.gid)
            })
        };
        let gids: Vec<String> = decisions
            .iter()
            .filter(|decision| decision.age >= age && !is_needed(decision))
            .map(|decision| decision.gid.clone())
            .collect();
        if gids.is_empty() {
            continue;
        }
        if let Err(fault) = control.take_back(database, decider, &gids).await {
            tracing::warn!(%database, shard = %decider, error = %fault, "could not take back decisions");
        }
    }
}

/// Ends one prepared transaction of ours as a person says, whose decider may be lost for good. Returns whether
/// there was one of this name.
///
/// # Errors
/// 22023 where the opposite was decided; why it could not be ended.
///
/// # Cancel safety
/// Safe: it is ended or not.
pub async fn resolve_one(
    control: &Control,
    deployment: &str,
    database: &str,
    gid: &str,
    commits: bool,
) -> Result<bool, Fault> {
    let survey = Survey::of(control, deployment, database).await;
    let found = survey.found.iter().find(|found| found.prepared.gid == gid);
    let Some(Found {
        shard,
        decided: Some((base, decider)),
        ..
    }) = found
    else {
        return Ok(false);
    };
    if survey.decision(base, decider) == Some(!commits) {
        return Err(Fault::error(
            SqlState::INVALID_PARAMETER_VALUE,
            "the opposite was decided of this transaction",
        )
        .detail(format!("Shard \"{decider}\" has the decision."))
        .hint("Use RESOLVE without a name: it does what was decided."));
    }
    tracing::warn!(%database, %shard, %gid, commits, "a prepared transaction is ended by hand");
    control.finish(database, shard, gid, commits).await?;
    Ok(true)
}
