//! What a statement must know of the home shard, or tell it, before it is sent: keys that are looked up, and
//! entries of rows to come.
//!
//! A message whose place depends on it stops ([`Stop::Ask`]) with all that is asked noted here, is answered by
//! the control role, and is looked at again; what was answered holds until the message is done, never longer:
//! the next may ask for what another client has entered meanwhile.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::config::Lookup;
use crate::control::lookups::LOOKED_MAX;
use crate::error::{Fault, SqlState};
use crate::execute::{Interrupted, Told};
use crate::placement::ShardSet;
use crate::placement::rule::{Directory, Listed, Unlisted};
use crate::placement::topology::Topology;
use crate::planner::plan::{
    Access, Effect, Entry, Keyed, Literal, Parameter, Route, Statement, Values,
};
use crate::planner::{self, refuse};
use crate::types::key::Key;

use super::engine::Shared;
use super::{Session, Stop};

type Keys = Arc<[Vec<Key<'static>>]>;
type Found = HashMap<Key<'static>, Keys, FixedState>;

/// What is asked and answered for the message at hand.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    found: Vec<(Arc<Lookup>, Found)>,
    /// Entries that are there.
    entered: HashSet<Entry, FixedState>,
    /// What directories list.
    listed: Vec<(Unlisted, Listed)>,
    open: RefCell<Open>,
    /// Values that are to be claimed by the statement at hand: they are kept unique.
    claims: RefCell<Vec<Entry>>,
}

/// What is not answered.
#[derive(Debug, Default)]
pub(crate) struct Open {
    values: Vec<(Arc<Lookup>, HashSet<Key<'static>, FixedState>)>,
    entries: Vec<Entry>,
    unlisted: Vec<Unlisted>,
    count: usize,
}

impl Open {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.entries.is_empty() && self.unlisted.is_empty()
    }
}

impl Answers {
    /// Whether nothing was asked and answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.entered.is_empty() && self.listed.is_empty()
    }

    /// Whether something is to be asked.
    pub(crate) fn is_open(&self) -> bool {
        !self.open.borrow().is_empty()
    }

    /// Whether the statement at hand writes values that are kept unique.
    pub(crate) fn claims_some(&self) -> bool {
        !self.claims.borrow().is_empty()
    }

    /// These values.
    pub(crate) fn take_claims(&self) -> Vec<Entry> {
        self.claims.take()
    }

    /// Begins to note what is asked.
    pub(crate) fn begin(&self) {
        self.open.take();
    }

    pub(crate) fn clear(&mut self) {
        if !self.is_empty() || self.is_open() {
            *self = Answers::default();
        }
    }

    fn keys_of(&self, lookup: &Arc<Lookup>, value: &Key<'_>) -> Option<Keys> {
        let found = self.found.iter().find(|(known, _)| known == lookup);
        let keys = found.and_then(|(_, found)| found.get(value));
        if let Some(keys) = keys {
            return Some(Arc::clone(keys));
        }
        let mut open = self.open.borrow_mut();
        open.count = open.count.saturating_add(1);
        if open.count > LOOKED_MAX {
            return None;
        }
        let value = value.clone().into_owned();
        let mut values = open.values.iter_mut();
        if let Some((_, values)) = values.find(|(known, _)| known == lookup) {
            values.insert(value);
        } else {
            let values = HashSet::from_iter([value]);
            open.values.push((Arc::clone(lookup), values));
        }
        None
    }

    fn listed(&self, directory: &Arc<Directory>, key: &[Key<'_>]) -> Option<Listed> {
        let asked = Unlisted::new(directory, key);
        if let Ok(at) = self.listed.binary_search_by(|(known, _)| known.cmp(&asked)) {
            return self.listed.get(at).map(|(_, listed)| listed.clone());
        }
        let mut open = self.open.borrow_mut();
        open.count = open.count.saturating_add(1);
        if open.count <= LOOKED_MAX {
            open.unlisted.push(asked);
        }
        None
    }

    /// Notes entries that are not known to be there; whether all are.
    fn has(&self, entries: Vec<Entry>) -> bool {
        let missing = entries
            .into_iter()
            .filter(|entry| !self.entered.contains(entry));
        let mut open = self.open.borrow_mut();
        open.entries.extend(missing);
        open.entries.is_empty()
    }
}

/// Values with what the home shard has answered.
pub(crate) struct Asking<'a> {
    pub(crate) values: &'a dyn Values,
    pub(crate) answers: &'a Answers,
}

impl Values for Asking<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        self.values.parameter(index)
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        self.values.literal(index)
    }

    fn is_utf8(&self) -> bool {
        self.values.is_utf8()
    }

    fn keys_of(&self, lookup: &Arc<Lookup>, value: &Key<'_>) -> Option<Keys> {
        self.answers.keys_of(lookup, value)
    }

    fn listed(&self, directory: &Arc<Directory>, key: &[Key<'_>]) -> Option<Listed> {
        self.answers.listed(directory, key)
    }
}

impl Session {
    /// Where a statement runs, by what the home shard has answered where it has to be asked.
    ///
    /// # Errors
    /// Why it runs nowhere; or it has not been asked, and what is to be asked has been noted.
    pub(crate) fn route_of(
        &self,
        statement: &Statement,
        values: &dyn Values,
    ) -> Result<Route, Fault> {
        self.answers.claims.take();
        let Access::Keyed(keyed) = &statement.access else {
            return self.hinted(statement, values);
        };
        let topology = &self.database.topology;
        let distribution = topology.distribution(keyed.distribution);
        let is_listed = distribution.is_some_and(|found| !found.directories().is_empty());
        if !keyed.asks() && !is_listed {
            return self.hinted(statement, values);
        }
        let answers = &self.answers;
        answers.begin();
        let values = &Asking { values, answers };
        let route = self.hinted(statement, values)?;
        self.check_entries(keyed, topology, values)?;
        if !answers.claims_some() {
            return Ok(route);
        }
        // What is claimed is part of the same transaction, whose answer waits for it.
        match route {
            _ if statement.effect != Effect::None => Err(refuse::unclaimed(&keyed.table)),
            Route::Single(shard) => Ok(Route::Each(ShardSet::from_iter([shard]))),
            route @ (Route::Each(_) | Route::InsertSplit(_)) => Ok(route),
            Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Concat(..)
            | Route::Gather(_)
            | Route::InsertGathered(..)
            | Route::Move(..)
            | Route::CopySplit(_)
            | Route::Broadcast { .. } => Err(refuse::unclaimed(&keyed.table)),
        }
    }

    /// Whether what must be entered before a statement runs is there.
    ///
    /// # Errors
    /// It is not; what is missing has been noted. Or a value cannot be entered.
    fn check_entries(
        &self,
        keyed: &Keyed,
        topology: &Topology,
        values: &dyn Values,
    ) -> Result<(), Fault> {
        if keyed.entries.is_empty() {
            return Ok(());
        }
        let entries = planner::entries(keyed, topology, values)?;
        let (claims, entries) = entries.into_iter().partition(|entry| entry.lookup.unique);
        *self.answers.claims.borrow_mut() = claims;
        if self.answers.has(entries) {
            Ok(())
        } else {
            Err(refuse::unasked(&keyed.table))
        }
    }

    /// What becomes of a message whose place may depend on answers: without them it waits, and when it is
    /// done they are forgotten.
    pub(crate) fn asked(&mut self, result: Result<(), Stop>) -> Result<(), Stop> {
        match &result {
            Err(Stop::Fault(_)) if self.answers.is_open() => return Err(Stop::Ask),
            Ok(()) | Err(Stop::Fault(_) | Stop::Task(_) | Stop::Close) => self.answers.clear(),
            Err(
                Stop::Lease(_)
                | Stop::Settings(_)
                | Stop::Idle
                | Stop::Drain
                | Stop::Move(_)
                | Stop::EndGroup
                | Stop::LookAtRows
                | Stop::Imply
                | Stop::Modes
                | Stop::Snapshots(_)
                | Stop::TwoPhase
                | Stop::Series
                | Stop::Refusal(_)
                | Stop::Listen(_)
                | Stop::Names
                | Stop::Ask
                | Stop::Ids(..)
                | Stop::Types
                | Stop::Follow(_)
                | Stop::Look(_)
                | Stop::Mark(_)
                | Stop::EndWrite,
            ) => (),
        }
        result
    }

    /// Has all that is asked answered.
    ///
    /// # Cancel safety
    /// Safe: what was to be entered is entered or not, and entered again.
    pub(crate) async fn ask_home(&mut self) -> Result<(), Interrupted> {
        let open = self.answers.open.take();
        let result = self.answer(open).await;
        if result.is_err() {
            self.answers.clear();
        }
        result
    }

    async fn answer(&mut self, open: Open) -> Result<(), Interrupted> {
        if open.count > LOOKED_MAX {
            return Err(Interrupted::Fault(refuse::many_lookups(LOOKED_MAX)));
        }
        let shared = Arc::clone(&self.engine.shared);
        let runtime = shared.control_runtime.clone();
        let limit = match self.database.limits.server_connect_timeout {
            Duration::ZERO => ANSWER_MAX,
            limit => limit.saturating_mul(FACTOR),
        };
        let topology = Arc::clone(&self.database.topology);
        let name = self.database.name.clone();
        let task = runtime.spawn(answered(shared, name, topology, open));
        let answered = tokio::time::timeout(limit, task);
        let answered = self
            .watched(async {
                match answered.await {
                    Ok(Ok(result)) => result,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "looking up failed");
                        Err(late())
                    }
                    // It goes on: who asks next may find it done.
                    Err(_elapsed) => Err(late()),
                }
            })
            .await?;
        for (lookup, found) in answered.found {
            match self
                .answers
                .found
                .iter_mut()
                .find(|(known, _)| *known == lookup)
            {
                Some((_, known)) => known.extend(found),
                None => self.answers.found.push((lookup, found)),
            }
        }
        self.answers.entered.extend(answered.entries);
        self.answers.listed.extend(answered.listed);
        self.answers
            .listed
            .sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(())
    }

    /// Has values looked up and entries written for rows that are copied.
    ///
    /// # Errors
    /// As the home shard says.
    pub(crate) async fn ask_for_rows(
        &mut self,
        lookup: Option<&Arc<Lookup>>,
        values: Vec<Key<'static>>,
        entries: Vec<Entry>,
        unlisted: Vec<Unlisted>,
    ) -> Result<Told, Interrupted> {
        let values = lookup.map(|lookup| (Arc::clone(lookup), values.into_iter().collect()));
        let open = Open {
            values: values.into_iter().collect(),
            entries,
            unlisted,
            count: 0,
        };
        let result = self.answer(open).await;
        let answers = std::mem::take(&mut self.answers);
        let keys = answers.found.into_iter().flat_map(|(_, found)| found);
        result.map(|()| Told {
            keys: keys.collect(),
            listed: answers.listed,
        })
    }
}

/// How many times `server_connect_timeout` an answer may take: a lookup table may have to be filled first.
const FACTOR: u32 = 4;
/// How long it may take where that is not limited.
const ANSWER_MAX: Duration = Duration::from_mins(1);

struct Answered {
    found: Vec<(Arc<Lookup>, Found)>,
    entries: Vec<Entry>,
    listed: Vec<(Unlisted, Listed)>,
}

async fn answered(
    shared: Arc<Shared>,
    database: String,
    topology: Arc<Topology>,
    mut open: Open,
) -> Result<Answered, Fault> {
    let control = Arc::clone(&shared.snapshot.load().control);
    let distribution = |lookup: &Lookup| {
        let index = topology.distribution_named(&lookup.distribution);
        let found = index.and_then(|index| topology.distribution(index));
        found.ok_or_else(|| {
            Fault::error(SqlState::INTERNAL, "a lookup table's distribution is gone")
        })
    };
    let mut found = Vec::with_capacity(open.values.len());
    for (lookup, values) in open.values {
        let values: Vec<Key<'static>> = values.into_iter().collect();
        let place = distribution(&lookup)?;
        let mut keys = control
            .lookup_keys(&database, place, &lookup, &values)
            .await?;
        let of = |value: Key<'static>| {
            let keys = keys.remove(&value).unwrap_or_default();
            (value, Keys::from(keys))
        };
        let known: Found = values.into_iter().map(of).collect();
        found.push((lookup, known));
    }
    let mut lookups: Vec<&Arc<Lookup>> = Vec::new();
    for entry in &open.entries {
        if !lookups.contains(&&entry.lookup) {
            lookups.push(&entry.lookup);
        }
    }
    for lookup in lookups {
        let own = open.entries.iter().filter(|entry| entry.lookup == *lookup);
        let own: Vec<Entry> = own.cloned().collect();
        control
            .enter(&database, distribution(lookup)?, lookup, &own)
            .await?;
    }
    open.unlisted.sort();
    open.unlisted.dedup();
    let mut listed = Vec::with_capacity(open.unlisted.len());
    for unlisted in open.unlisted {
        let found = control.ask_directory(&database, &unlisted).await?;
        listed.push((unlisted, found));
    }
    Ok(Answered {
        found,
        entries: open.entries,
        listed,
    })
}

fn late() -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "the home shard did not tell in time where rows are",
    )
    .hint("Check the home shard; a lookup table that is being filled is waited for longer by `pgherd setup`.")
}
