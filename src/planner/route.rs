//! Where one execution runs: the plan's keys with the values at hand.
//!
//! The single-shard path of an integer key allocates nothing.

use std::sync::Arc;

use crate::config::Lookup;
use crate::error::{Fault, SqlState};
use crate::placement::distribution::Distribution;
use crate::placement::rule::Span;
use crate::placement::topology::Topology;
use crate::placement::{ShardId, ShardSet, bucket_of_id};
use crate::planner::array;
use crate::planner::literals::is_moment;
use crate::planner::lookups::{unknown, unproven};
use crate::planner::plan::{
    Access, Bound, Effect, Entries, Entry, Gather, Generate, Interval, KeyOperands, Keyed, Literal,
    Looked, Operand, Parameter, Route, Share, Statement, Values,
};
use crate::planner::refuse;
use crate::sql::statement::Arithmetic;
use crate::types::key::{Key, KeyError, KeyType, keeps};

/// Works out the route of one execution of a statement.
///
/// # Errors
/// The refusal to send instead: the plan's own, several shards where one is needed, a key that is
/// NULL, invalid, or placed nowhere.
pub fn route(
    statement: &Statement,
    topology: &Topology,
    values: &dyn Values,
) -> Result<Route, Fault> {
    at(statement, &statement.access, topology, values)
}

fn at(
    statement: &Statement,
    access: &Access,
    topology: &Topology,
    values: &dyn Values,
) -> Result<Route, Fault> {
    let one_shard = topology.shards().len() == 1;
    match access {
        Access::Session => Ok(Route::Session),
        Access::Anywhere => Ok(Route::Anywhere),
        // The session looks for a block first; without one, it is home.
        Access::Bound | Access::Home => Ok(Route::Single(topology.home())),
        Access::AnyShard => Ok(Route::AnyShard),
        Access::Keyed(keyed) => keys(keyed, topology, values),
        Access::Generate(generate) => at(statement, &generate.within, topology, values),
        Access::Broadcast { .. } if one_shard => Ok(Route::Single(topology.home())),
        Access::Broadcast { transaction } => {
            check_copies(statement, values)?;
            Ok(Route::Broadcast {
                transaction: *transaction,
            })
        }
        Access::CopySplit(split) => Ok(Route::CopySplit(Arc::clone(split))),
        Access::Shard(shard) => Ok(Route::Single(*shard)),
        Access::Gather(gather) => Ok(gathered(gather)),
        Access::Refuse(fault) => Err(Fault::clone(fault)),
    }
}

/// What a client is told of a value that is no key of a table.
pub fn key_fault(error: &KeyError, table: &str) -> Fault {
    match error {
        KeyError::Null => refuse::null_key(table),
        KeyError::Unprovable => refuse::unprovable(table),
        KeyError::Unasked | KeyError::Unlisted(_) => refuse::unasked(table),
        KeyError::Invalid(fault) | KeyError::Uncovered(fault) => Fault::clone(fault),
    }
}

/// A parameter that means the moment it is read would differ between copies.
fn check_copies(statement: &Statement, values: &dyn Values) -> Result<(), Fault> {
    if statement.effect != Effect::None || statement.no_block {
        return Ok(());
    }
    let mut index = 0;
    while let Some(parameter) = values.parameter(index) {
        if !parameter.binary && parameter.value.is_some_and(is_moment) && parameter.oid != 25 {
            return Err(refuse::copies(
                statement.verb,
                "a parameter that means the moment it is read",
            ));
        }
        index = index.saturating_add(1);
        if index == u16::MAX {
            break;
        }
    }
    Ok(())
}

/// Shards reached so far: one is the rule, more are collected.
enum Reached {
    Nothing,
    One(ShardId),
    Several(ShardSet),
}

impl Reached {
    fn add(&mut self, shard: ShardId) {
        match self {
            Reached::Nothing => *self = Reached::One(shard),
            Reached::One(one) if *one == shard => (),
            Reached::One(one) => {
                let mut several = ShardSet::default();
                several.insert(*one);
                several.insert(shard);
                *self = Reached::Several(several);
            }
            Reached::Several(several) => several.insert(shard),
        }
    }
}

fn keys(keyed: &Keyed, topology: &Topology, values: &dyn Values) -> Result<Route, Fault> {
    let distribution = topology
        .distribution(keyed.distribution)
        .ok_or_else(|| internal("a plan names a distribution that is not there"))?;
    if let Some(shard) = keyed.hinted {
        return hinted(keyed, shard, topology, values);
    }
    if let Some(moves) = &keyed.moves {
        if !keyed.each {
            return Err(moves.otherwise.clone());
        }
        let plain = Keyed {
            moves: None,
            each: true,
            ..keyed.clone()
        };
        let shards = match keys(&plain, topology, values)? {
            Route::Single(shard) => std::iter::once(shard).collect(),
            Route::Each(shards) => shards,
            Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Concat(..)
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::Gather(_)
            | Route::InsertGathered(..)
            | Route::InsertSplit(_)
            | Route::Move(..) => return Err(moves.otherwise.clone()),
        };
        return Ok(Route::Move(shards, Arc::clone(moves)));
    }
    let Some(keys) = &keyed.keys else {
        return everywhere(keyed, distribution, topology);
    };
    let mut reached = Reached::Nothing;
    let mut unasked = false;
    for key in keys {
        match placed(keyed, key, distribution, values, &mut reached) {
            Ok(()) => (),
            // All is asked for at once.
            Err(KeyError::Unasked) => unasked = true,
            Err(KeyError::Null) if !keyed.insert => (),
            Err(KeyError::Unprovable) if !keyed.insert => {
                return everywhere(keyed, distribution, topology);
            }
            // The server may read it as a wider type, or finds the fault itself, on any shard.
            Err(KeyError::Invalid(_)) if !keyed.insert => {
                if may_be_wider(key, values) {
                    return everywhere(keyed, distribution, topology);
                }
            }
            Err(error) => return Err(key_fault(&error, &keyed.table)),
        }
    }
    if unasked {
        return Err(refuse::unasked(&keyed.table));
    }
    match reached {
        Reached::Nothing if keyed.looks => Ok(Route::AnyShard),
        // No row can match: any shard says so.
        Reached::Nothing => Ok(Route::Single(first(distribution, topology))),
        Reached::One(shard) => Ok(Route::Single(shard)),
        Reached::Several(shards) if let Some(finish) = &keyed.concat => Ok(Route::Concat(
            shards,
            Arc::clone(finish),
            keyed.gather.clone(),
        )),
        Reached::Several(shards) if keyed.each => Ok(Route::Each(shards)),
        Reached::Several(_) if keyed.splits => shares(keys, keyed, distribution, values),
        Reached::Several(_) if keyed.insert && matches!(keys.as_slice(), [one] if is_id(one)) => {
            Err(refuse::pinned_id(&keyed.table))
        }
        Reached::Several(_) => wider(keyed),
    }
}

/// The route of a statement for which a hint names the shard: that shard, unless rows with known keys would
/// be written where their keys do not belong.
///
/// # Errors
/// 0A000 for such a row, and what is wrong with its key.
pub fn hinted(
    keyed: &Keyed,
    shard: ShardId,
    topology: &Topology,
    values: &dyn Values,
) -> Result<Route, Fault> {
    if let Some(moves) = &keyed.moves {
        return Err(moves.otherwise.clone());
    }
    let distribution = topology
        .distribution(keyed.distribution)
        .ok_or_else(|| internal("a plan names a distribution that is not there"))?;
    for key in keyed.keys.iter().flatten().filter(|_| keyed.insert) {
        let mut reached = Reached::Nothing;
        match placed(keyed, key, distribution, values, &mut reached) {
            Ok(()) => (),
            // Whoever names the shard knows more.
            Err(KeyError::Unprovable) => continue,
            Err(error) => return Err(key_fault(&error, &keyed.table)),
        }
        match reached {
            Reached::Several(shards) if !shards.contains(shard) => {
                let own = shards.iter().next().unwrap_or(shard);
                let [own, hinted] = [own, shard].map(|shard| topology.name(shard));
                return Err(refuse::misplaced(&keyed.table, own, hinted));
            }
            Reached::One(own) if own != shard => {
                let [own, hinted] = [own, shard].map(|shard| topology.name(shard));
                return Err(refuse::misplaced(&keyed.table, own, hinted));
            }
            Reached::Nothing | Reached::One(_) | Reached::Several(_) => (),
        }
    }
    Ok(Route::Single(shard))
}

/// The rows of an INSERT, each with those of its shard.
fn shares(
    keys: &[KeyOperands],
    keyed: &Keyed,
    distribution: &Distribution,
    values: &dyn Values,
) -> Result<Route, Fault> {
    let mut shares: Vec<Share> = Vec::new();
    for (row, key) in keys.iter().enumerate() {
        let mut reached = Reached::Nothing;
        placed(keyed, key, distribution, values, &mut reached)
            .map_err(|error| key_fault(&error, &keyed.table))?;
        let Reached::One(shard) = reached else {
            return Err(refuse::pinned_id(&keyed.table));
        };
        match shares.iter_mut().find(|share| share.shard == shard) {
            Some(share) => share.rows.push(row),
            None => shares.push(Share {
                shard,
                rows: vec![row],
            }),
        }
    }
    shares.sort_by_key(|share| share.shard);
    Ok(Route::InsertSplit(shares.into()))
}

/// Whether what is no value of the key's type may still equal a key: what stands beside it may have made
/// it a number with a point, and of an array only one element is known to be none.
fn may_be_wider(key: &KeyOperands, values: &dyn Values) -> bool {
    key.iter().any(|operand| match operand {
        Operand::Elements(_)
        | Operand::LiteralElements(_)
        | Operand::Computed(_)
        | Operand::Between(_)
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => true,
        Operand::Parameter(index) if values.parameter(*index).is_some_and(|it| it.binary) => true,
        Operand::Parameter(_) | Operand::Literal { .. } | Operand::Constant(_) => {
            let text = decode(operand, KeyType::Text, values);
            let is_like_number = matches!(&text, Ok(Key::Text(text))
                if matches!(text.trim_ascii_start(), [b'0'..=b'9' | b'+' | b'-' | b'.', ..]));
            // No row has a key beyond the width of its column.
            let is_beyond = match decode(operand, KeyType::Int8, values) {
                Ok(_) => true,
                Err(KeyError::Invalid(fault)) => fault.code == SqlState::NUMERIC_OUT_OF_RANGE,
                Err(_) => false,
            };
            is_like_number && !is_beyond
        }
        Operand::Null => false,
    })
}

fn first(distribution: &Distribution, topology: &Topology) -> ShardId {
    distribution
        .shards()
        .iter()
        .next()
        .unwrap_or_else(|| topology.home())
}

fn everywhere(
    keyed: &Keyed,
    distribution: &Distribution,
    topology: &Topology,
) -> Result<Route, Fault> {
    let shards = distribution.shards();
    if shards.len() <= 1 {
        // An INSERT is refused even so: its keys are not known to be placed at all.
        return Ok(Route::Single(first(distribution, topology)));
    }
    if let Some(finish) = &keyed.concat {
        let gather = keyed.gather.clone();
        return Ok(Route::Concat(shards.clone(), Arc::clone(finish), gather));
    }
    if keyed.each {
        return Ok(Route::Each(shards.clone()));
    }
    wider(keyed)
}

/// What is neither of one shard nor each shard's own.
fn wider(keyed: &Keyed) -> Result<Route, Fault> {
    match &keyed.gather {
        Some(gather) => Ok(gathered(gather)),
        None => Err(Fault::clone(&keyed.otherwise)),
    }
}

/// A query that is finished on a twin, or whose rows are inserted.
fn gathered(gather: &Arc<Gather>) -> Route {
    match &gather.target {
        Some(target) => Route::InsertGathered(Arc::clone(gather), Arc::clone(target)),
        None => Route::Gather(Arc::clone(gather)),
    }
}

/// Whether a key is an id that carries its bucket.
fn is_id(key: &KeyOperands) -> bool {
    matches!(key.first(), Some(Operand::Id(_) | Operand::Carried(_)))
}

/// Places a key, unless it is a new row's and another value would be stored.
fn placed(
    keyed: &Keyed,
    key: &KeyOperands,
    distribution: &Distribution,
    values: &dyn Values,
    reached: &mut Reached,
) -> Result<(), KeyError> {
    for (column, modifier) in &*keyed.modifiers {
        if let (Some(operand), Some(kind)) = (key.get(*column), distribution.key().get(*column)) {
            keeps(*kind, *modifier, &decode(operand, *kind, values)?)?;
        }
    }
    place(keyed, key, distribution, values, reached)
}

fn place(
    keyed: &Keyed,
    key: &KeyOperands,
    distribution: &Distribution,
    values: &dyn Values,
    reached: &mut Reached,
) -> Result<(), KeyError> {
    match (key.as_slice(), distribution.key()) {
        ([Operand::Looked(looked)], _) => {
            return looked_up(keyed, looked, distribution, values, reached);
        }
        ([operand], [_]) => return place_one(operand, distribution, values, reached),
        ([operand, Operand::Id(id)], [_]) => {
            check_id(operand, id, distribution, values)?;
            return place_one(operand, distribution, values, reached);
        }
        _ => (),
    }
    let mut tuple = Vec::with_capacity(key.len());
    for (operand, kind) in key.iter().zip(distribution.key()) {
        tuple.push(decode(operand, *kind, values)?);
    }
    reached.add(shard_of(distribution, &tuple, values)?);
    Ok(())
}

fn place_one(
    operand: &Operand,
    distribution: &Distribution,
    values: &dyn Values,
    reached: &mut Reached,
) -> Result<(), KeyError> {
    let kind = kind_of(distribution);
    match operand {
        Operand::Id(id) => each_value(id, KeyType::Int8, values, &mut |key| {
            distribution.of_bucket(carried(&key)?, |shard| reached.add(shard))
        }),
        Operand::Carried(key) => each_value(key, kind, values, &mut |key| {
            let bucket = distribution.bucket(&[key]);
            distribution.of_bucket(bucket, |shard| reached.add(shard))
        }),
        Operand::Between(interval) => between(interval, kind, distribution, values, reached),
        Operand::Key(key) => place_one(key, distribution, values, reached),
        // It is placed with its whole key.
        Operand::Looked(_) => Err(KeyError::Unprovable),
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Computed(_)
        | Operand::Null
        | Operand::Elements(_)
        | Operand::LiteralElements(_) => {
            let mut unasked = false;
            each_value(operand, kind, values, &mut |key| {
                match shard_of(distribution, &[key], values) {
                    // All is asked for at once.
                    Err(KeyError::Unasked) => unasked = true,
                    shard => reached.add(shard?),
                }
                Ok(())
            })?;
            if unasked {
                return Err(KeyError::Unasked);
            }
            Ok(())
        }
    }
}

/// Where the rows are that have a value to be looked up; new rows are placed by it on one shard.
fn looked_up(
    keyed: &Keyed,
    looked: &Looked,
    distribution: &Distribution,
    values: &dyn Values,
    reached: &mut Reached,
) -> Result<(), KeyError> {
    let mut unasked = false;
    each_value(&looked.value, looked.kind, values, &mut |value| {
        let Some(keys) = values.keys_of(&looked.lookup, &value) else {
            unasked = true;
            return Ok(());
        };
        let mut own = ShardSet::new();
        for key in &*keys {
            match shard_of(distribution, key, values) {
                Err(KeyError::Unasked) => unasked = true,
                shard => own.insert(shard?),
            }
        }
        if unasked {
            return Ok(());
        }
        if keyed.insert {
            let shard = single(&own, &keyed.table, &looked.lookup, &value)?;
            reached.add(shard);
            return Ok(());
        }
        for shard in own.iter() {
            reached.add(shard);
        }
        Ok(())
    })?;
    if unasked {
        return Err(KeyError::Unasked);
    }
    Ok(())
}

/// The one shard that new rows belong to by a value that was looked up.
///
/// # Errors
/// 22023: it has none, or several.
pub fn single(
    shards: &ShardSet,
    table: &str,
    lookup: &Lookup,
    value: &Key<'_>,
) -> Result<ShardId, KeyError> {
    if let Some(shard) = shards.single() {
        return Ok(shard);
    }
    let value = value.to_string();
    let fault = if shards.is_empty() {
        refuse::unentered(table, &value, &lookup.table)
    } else {
        refuse::scattered(&value, &lookup.table, &lookup.column)
    };
    Err(KeyError::Invalid(Box::new(fault)))
}

/// What lookup tables must hold before an execution of a statement.
///
/// # Errors
/// A value or key that is not known, or is none.
pub fn entries(
    keyed: &Keyed,
    topology: &Topology,
    values: &dyn Values,
) -> Result<Vec<Entry>, Fault> {
    let mut all = Vec::new();
    let distribution = topology
        .distribution(keyed.distribution)
        .ok_or_else(|| internal("a plan names a distribution that is not there"))?;
    for Entries { column, rows } in &*keyed.entries {
        for (value, key) in rows {
            let value = decode(value, column.kind, values).and_then(|value| {
                keeps(column.kind, column.modifier, &value).map(|()| value.into_owned())
            });
            let value = match value {
                Ok(value) => value,
                Err(KeyError::Null) => continue,
                Err(KeyError::Unprovable) => {
                    let why = "has a value that is not known before the server reads it";
                    return Err(unknown(&column.lookup, &keyed.table, why));
                }
                Err(error) => return Err(key_fault(&error, &keyed.table)),
            };
            let mut note = |key: Vec<Key<'static>>| {
                all.push(Entry {
                    lookup: Arc::clone(&column.lookup),
                    value: value.clone(),
                    key,
                });
            };
            match each_key(key, distribution, values, &mut note) {
                // No row has it.
                Ok(()) | Err(KeyError::Null) => (),
                Err(KeyError::Unprovable) => {
                    return Err(unproven(&column.lookup, &keyed.table));
                }
                Err(error) => return Err(key_fault(&error, &keyed.table)),
            }
        }
    }
    Ok(all)
}

/// Calls `each` with the keys that operands stand for.
pub(super) fn each_key(
    key: &KeyOperands,
    distribution: &Distribution,
    values: &dyn Values,
    each: &mut dyn FnMut(Vec<Key<'static>>),
) -> Result<(), KeyError> {
    match (key.as_slice(), distribution.key()) {
        ([Operand::Looked(looked)], _) => {
            each_value(&looked.value, looked.kind, values, &mut |value| {
                let keys = values.keys_of(&looked.lookup, &value);
                for key in &*keys.ok_or(KeyError::Unasked)? {
                    each(key.clone());
                }
                Ok(())
            })
        }
        ([operand], [kind]) => each_value(operand, *kind, values, &mut |key| {
            each(vec![key.into_owned()]);
            Ok(())
        }),
        _ => {
            let pairs = key.iter().zip(distribution.key());
            let key: Result<Vec<_>, KeyError> = pairs
                .map(|(operand, kind)| decode(operand, *kind, values).map(Key::into_owned))
                .collect();
            each(key?);
            Ok(())
        }
    }
}

/// The shard of a key, as far as directories say.
fn shard_of(
    distribution: &Distribution,
    key: &[Key<'_>],
    values: &dyn Values,
) -> Result<ShardId, KeyError> {
    let index = match distribution.place(key) {
        Err(KeyError::Unlisted(index)) => index,
        placed => return placed,
    };
    let directory = distribution.directories().get(index);
    let directory = directory.ok_or(KeyError::Unprovable)?;
    match values.listed(directory, key) {
        Some(listed) => directory.shard(key, &listed),
        None => Err(KeyError::Unasked),
    }
}

fn kind_of(distribution: &Distribution) -> KeyType {
    distribution.key().first().copied().unwrap_or(KeyType::Int8)
}

/// The bucket that an id carries.
fn carried(id: &Key<'_>) -> Result<u64, KeyError> {
    match id {
        Key::Int(id) => Ok(bucket_of_id(*id)),
        Key::Text(_) | Key::Uuid(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => {
            Err(KeyError::Unprovable)
        }
    }
}

/// The bucket of the key of a new row.
fn bucket(
    operand: &Operand,
    distribution: &Distribution,
    values: &dyn Values,
) -> Result<u64, KeyError> {
    match operand {
        Operand::Id(id) => carried(&decode(id, KeyType::Int8, values)?),
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Computed(_)
        | Operand::Null
        | Operand::Elements(_)
        | Operand::LiteralElements(_)
        | Operand::Between(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => {
            let key = decode(operand, kind_of(distribution), values)?;
            Ok(distribution.bucket(&[key]))
        }
    }
}

/// Whether the id of a new row carries the bucket of its key.
fn check_id(
    key: &Operand,
    id: &Operand,
    distribution: &Distribution,
    values: &dyn Values,
) -> Result<(), KeyError> {
    let id = match decode(id, KeyType::Int8, values) {
        Err(KeyError::Null) => return Ok(()),
        id => id?,
    };
    let (carried, wanted) = (carried(&id)?, bucket(key, distribution, values)?);
    if carried == wanted {
        return Ok(());
    }
    Err(KeyError::Invalid(Box::new(refuse::wrong_id(
        &id.to_string(),
        carried,
        wanted,
    ))))
}

/// The buckets that the ids of new rows are to carry, in the order of the rows; none for plain ids.
///
/// # Errors
/// What is wrong with a key.
pub fn buckets(
    generate: &Generate,
    topology: &Topology,
    values: &dyn Values,
) -> Result<Vec<u64>, Fault> {
    let distribution = topology
        .distribution(generate.distribution)
        .ok_or_else(|| internal("a plan names a distribution that is not there"))?;
    let of_key = |key: &KeyOperands| {
        let operand = key.first().ok_or(KeyError::Unprovable)?;
        bucket(operand, distribution, values)
    };
    let buckets = generate.keys.iter().map(of_key);
    let buckets: Result<Vec<u64>, KeyError> = buckets.collect();
    buckets.map_err(|error| key_fault(&error, &generate.table))
}

/// Calls `each` with the value of an operand, or with each element of an array.
pub(super) fn each_value(
    operand: &Operand,
    kind: KeyType,
    values: &dyn Values,
    each: &mut dyn FnMut(Key<'_>) -> Result<(), KeyError>,
) -> Result<(), KeyError> {
    match operand {
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Computed(_)
        | Operand::Null => each(decode(operand, kind, values)?),
        Operand::Elements(index) => {
            let Parameter { value, binary, oid } =
                values.parameter(*index).ok_or(KeyError::Unprovable)?;
            let value = value.ok_or(KeyError::Null)?;
            array::parameter(kind, value, binary, oid, each)
        }
        Operand::LiteralElements(index) => {
            let Literal { text } = values.literal(*index).ok_or(KeyError::Unprovable)?;
            match Key::from_literal(KeyType::Text, text, false)? {
                Key::Text(value) => array::text(kind, &value, each),
                Key::Int(_) | Key::Uuid(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => {
                    Err(KeyError::Unprovable)
                }
            }
        }
        Operand::Between(_)
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => Err(KeyError::Unprovable),
    }
}

fn between(
    interval: &Interval,
    kind: KeyType,
    distribution: &Distribution,
    values: &dyn Values,
    reached: &mut Reached,
) -> Result<(), KeyError> {
    let mut span = Span::default();
    for (bounds, is_low) in [(&interval.lows, true), (&interval.highs, false)] {
        for Bound { operand, inclusive } in bounds {
            match decode(operand, kind, values) {
                Ok(end) if is_low => span.above(end, *inclusive),
                Ok(end) => span.below(end, *inclusive),
                // Without this end there may be more, never less.
                Err(KeyError::Unprovable) => (),
                Err(error) => return Err(error),
            }
        }
    }
    if span.low.is_none() && span.high.is_none() {
        return Err(KeyError::Unprovable);
    }
    let mut shards = ShardSet::default();
    distribution.between(&span, &mut shards);
    for shard in shards.iter() {
        reached.add(shard);
    }
    Ok(())
}

/// What integers come to; the server computes it again, with the width that their types have.
fn computed(
    first: &Operand,
    rest: &[(Arithmetic, Operand)],
    values: &dyn Values,
) -> Result<i64, KeyError> {
    let integer = |operand: &Operand| match decode(operand, KeyType::Int8, values)? {
        Key::Int(value) => Ok(value),
        Key::Text(_) | Key::Uuid(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => {
            Err(KeyError::Unprovable)
        }
    };
    let mut value = integer(first)?;
    for (operator, operand) in rest {
        let operand = integer(operand)?;
        let next = match operator {
            Arithmetic::Add => value.checked_add(operand),
            Arithmetic::Subtract => value.checked_sub(operand),
            Arithmetic::Multiply => value.checked_mul(operand),
        };
        value = next.ok_or(KeyError::Unprovable)?;
    }
    Ok(value)
}

/// The value of an operand that is no array.
pub(super) fn decode<'v>(
    operand: &'v Operand,
    kind: KeyType,
    values: &'v dyn Values,
) -> Result<Key<'v>, KeyError> {
    let key = match operand {
        Operand::Parameter(index) => {
            let Parameter { value, binary, oid } =
                values.parameter(*index).ok_or(KeyError::Unprovable)?;
            Key::from_parameter(kind, value, binary, oid)?
        }
        Operand::Literal { index, negative } => {
            let Literal { text } = values.literal(*index).ok_or(KeyError::Unprovable)?;
            Key::from_literal(kind, text, *negative)?
        }
        Operand::Constant(text) => Key::from_text(kind, text.as_bytes())?,
        Operand::Computed(computation) => {
            let (first, rest) = &**computation;
            Key::Int(computed(first, rest, values)?)
        }
        Operand::Null => return Err(KeyError::Null),
        Operand::Elements(_)
        | Operand::LiteralElements(_)
        | Operand::Between(_)
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => return Err(KeyError::Unprovable),
    };
    match &key {
        Key::Text(text) if !values.is_utf8() && !text.is_ascii() => Err(KeyError::Unprovable),
        Key::Text(_)
        | Key::Int(_)
        | Key::Uuid(_)
        | Key::Date(_)
        | Key::Timestamp(_)
        | Key::Numeric(_) => Ok(key),
    }
}

fn internal(message: &str) -> Fault {
    Fault::error(SqlState::INTERNAL, message).hint("This is a fault of pgherd; please report it.")
}
