//! What of the cached tables a statement may change: by itself, by the tables above and below those that it
//! names, by foreign keys' actions, and by code that is stored in the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Indexed, Tag, Valued, Verdict, Writing, Written, columns, tags};
use crate::config::Mode;
use crate::placement::catalog::Catalog;
use crate::placement::code::Code;
use crate::placement::topology::{TableRule, Topology};
use crate::planner::calls;
use crate::planner::context::Context;
use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::functions;
use crate::planner::plan::{Effect, KeyOperands};
use crate::planner::survey::{Reference, Rows, Survey};
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::Lexing;
use crate::sql::statement::{Assignment, Block, Body};
use crate::types::key::KeyType;

/// What a data statement may change of cached tables; `None`: nothing.
pub(in crate::planner) fn of_data(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
) -> Option<Verdict> {
    let context = survey.context;
    let mut changed = Changed::new(context);
    for call in &survey.calls {
        match calls::routine(context, &call.name) {
            Some(code) => changed.code(&code),
            None if functions::runs_sql(&call.name.name) => changed.anything(),
            None => (),
        }
    }
    for name in calls::dotted_calls(survey, *cursor) {
        if let Some(code) = calls::routine(context, &name) {
            changed.code(&code);
        }
    }
    for (_, code) in calls::unnamed(survey, *cursor) {
        changed.code(code);
    }
    for (_, view) in &survey.views {
        changed.code(&view.code);
    }
    for reference in survey.references.iter().filter(|found| found.written) {
        if reference.place == Rows::System {
            continue;
        }
        changed.table(&reference.name, known(survey, block, reference));
    }
    changed.verdict()
}

/// What COPY FROM may change.
pub(in crate::planner) fn of_copy(context: Context<'_>, table: &Name) -> Option<Verdict> {
    let mut changed = Changed::new(context);
    changed.table(table, Known::default());
    changed.verdict()
}

/// What a statement may change that is no data statement, where nothing more is known of it than its draft.
pub(in crate::planner) fn of_utility(context: Context<'_>, draft: &Draft) -> Option<Verdict> {
    /// Statements that change no rows, whatever they say.
    const HARMLESS: [&str; 9] = [
        "ANALYZE",
        "CHECKPOINT",
        "CLOSE CURSOR",
        "FETCH",
        "LISTEN",
        "LOCK TABLE",
        "MOVE",
        "NOTIFY",
        "VACUUM",
    ];
    let may = match &draft.effect {
        Effect::Ddl | Effect::TwoPhase => true,
        Effect::Pin(reason) if *reason == effects::TEMPORARY => false,
        Effect::None
        | Effect::Pin(_)
        | Effect::CopyIn { .. }
        | Effect::CopyOut { .. }
        | Effect::ExplainRoute { .. }
        | Effect::Explain(_) => draft.writes && !HARMLESS.contains(&draft.verb),
        // What EXECUTE runs is judged for itself.
        Effect::Execute { .. }
        | Effect::Prepare { .. }
        | Effect::Keep { .. }
        | Effect::Begin
        | Effect::Commit { .. }
        | Effect::Rollback { .. }
        | Effect::Savepoint(_)
        | Effect::RollbackTo(_)
        | Effect::Release(_)
        | Effect::SetTransaction { .. }
        | Effect::SetConstraints { .. }
        | Effect::Set { .. }
        | Effect::Reset { .. }
        | Effect::ResetAll
        | Effect::LastId { .. }
        | Effect::SetConfig { .. }
        | Effect::SetPgherd { .. }
        | Effect::ShowPgherd { .. }
        | Effect::DiscardAll
        | Effect::DiscardOther
        | Effect::Deallocate { .. }
        | Effect::Listen { .. }
        | Effect::Unlisten { .. } => false,
    };
    may.then(|| Verdict::Write(Writing::anything(is_any_strict(context))))
}

/// Whether keys of a distribution are the same where their texts are: so that what is written by one is found
/// by the other.
pub(super) fn is_exact(context: Context<'_>, distribution: usize) -> bool {
    let found = context.topology.distribution(distribution);
    found.is_some_and(|found| {
        found.key().iter().all(|kind| match kind {
            KeyType::Int2 | KeyType::Int4 | KeyType::Int8 | KeyType::Uuid => true,
            // Where there are several shards, texts that differ are not equal, or `check` says so.
            KeyType::Text => !context.is_one_shard(),
            KeyType::Date
            | KeyType::Timestamp
            | KeyType::TimestampTz
            | KeyType::Numeric
            | KeyType::Enum => false,
        })
    })
}

/// The name that the configuration lists a table by.
pub(super) fn listed(rule: &TableRule) -> Arc<str> {
    match &rule.schema {
        Some(schema) => format!("{schema}.{}", rule.name).into(),
        None => rule.name.as_str().into(),
    }
}

/// The keys of all rows that a reference writes, before and after; `None` where they are not proven.
fn known_keys(
    survey: &Survey<'_>,
    block: &Block,
    reference: &Reference,
) -> Option<Vec<KeyOperands>> {
    let Rows::Sharded { distribution, .. } = reference.place else {
        return None;
    };
    let context = survey.context;
    let table = context.table(&reference.name)?;
    // A trigger may write other rows, or change a key.
    let is_apart = table.view.is_none() && table.writes.is_none() && !reference.viewed;
    let is_stored_as_written = survey.modifiers.is_empty() || reference.rows.is_none();
    let keeps_keys = block.ctes.is_empty() && keeps_keys(context, block, reference);
    if !is_apart || !is_stored_as_written || !keeps_keys || !is_exact(context, distribution) {
        return None;
    }
    survey.keys_of(reference)
}

/// What is known of the rows that a reference writes.
fn known(survey: &Survey<'_>, block: &Block, reference: &Reference) -> Known {
    let context = survey.context;
    let keys = known_keys(survey, block, reference);
    let table = context.table(&reference.name);
    let table = table.filter(|table| {
        !reference.viewed && columns::stands_alone(context, &reference.name, table)
    });
    let Some(table) = table else {
        return Known {
            keys,
            ..Known::default()
        };
    };
    let changed = columns::changed(block, &reference.name, table);
    let policy = context
        .find(&reference.name)
        .and_then(|(schema, _)| context.rule(Some(schema), &reference.name.name, Some(table)))
        .and_then(|rule| rule.cache.as_deref());
    let indexed = policy.map(|policy| {
        let indexed = columns::indexed(policy, table).into_iter();
        let valued = indexed.map(|(indexed, modifier)| {
            let valued = columns::written(block, &reference.name, table, (&indexed, modifier));
            (indexed, valued)
        });
        valued.collect()
    });
    Known {
        keys,
        columns: changed,
        indexed,
    }
}

/// Whether the outermost statement, if it is what writes, leaves each row the key that it has.
fn keeps_keys(context: Context<'_>, block: &Block, reference: &Reference) -> bool {
    use crate::placement::topology::Kind;
    let Some(Kind::Sharded { key, .. }) = context.kind(&reference.name) else {
        return false;
    };
    let assigns = |sets: &[Assignment]| {
        let mut columns = sets.iter().flat_map(|set| &set.columns);
        columns.any(|column| key.contains(column))
    };
    match &block.body {
        // The row that is in the way may have another key.
        Body::Insert(insert) => insert.update.is_empty() && insert.table == reference.name,
        Body::Update(update) => update.table == reference.name && !assigns(&update.sets),
        Body::Delete(delete) => delete.table == reference.name,
        Body::Merge(_) | Body::Select(_) | Body::Set(_) | Body::Values(_) | Body::Nested(_) => {
            false
        }
    }
}

/// The tags of a row that changed past the proxy, and the table that it counts at. `rows` are its columns
/// before and after as far as they are told, `None`: any row changed. A column of `keeps` that is not told of
/// before is as it is after.
pub fn of_change(
    topology: &Topology,
    catalog: &Catalog,
    (schema, name): (&str, &str),
    rows: Option<&[BTreeMap<String, String>]>,
    keeps: &[String],
) -> (Vec<Tag>, Option<Arc<str>>) {
    use crate::placement::topology::Kind;
    let context = Context {
        topology,
        catalog,
        search_path: &[],
        lexing: Lexing::default(),
        comment_hints: false,
        tenant: false,
    };
    let table = catalog.table(schema, name);
    let Some(rule) = context.rule(Some(schema), name, table) else {
        return (vec![Tag::All], None);
    };
    let listed = listed(rule);
    let mut tags = vec![Tag::Any(Arc::clone(&listed))];
    let keys = match (&rule.kind, rows) {
        (
            Kind::Sharded {
                distribution, key, ..
            },
            Some(rows),
        ) if is_exact(context, *distribution)
            && key.iter().all(|column| keeps.contains(column)) =>
        {
            let keys = rows.iter().map(|row| {
                let parts: Option<Vec<&str>> = key
                    .iter()
                    .map(|column| row.get(column).map(String::as_str))
                    .collect();
                parts.map(|parts| parts.join(","))
            });
            keys.collect::<Option<Vec<String>>>()
        }
        _ => None,
    };
    match keys {
        Some(keys) => {
            let keys = keys.into_iter().map(String::into_boxed_str);
            tags.extend(keys.map(|key| Tag::Key(Arc::clone(&listed), key)));
        }
        None => tags.push(Tag::Unknown(Arc::clone(&listed))),
    }
    tags.push(Tag::Rows(Arc::clone(&listed)));
    let indexed = rule.cache.as_deref().zip(table).map(|(policy, table)| {
        let indexed = columns::indexed(policy, table).into_iter();
        indexed.map(|(indexed, _)| indexed).collect::<Vec<_>>()
    });
    let told = |rows: &[BTreeMap<String, String>]| {
        let mut found = Vec::new();
        for indexed in indexed.as_deref()? {
            // What is told of before, too.
            if !keeps.iter().any(|column| **column == *indexed.column) {
                return None;
            }
            for row in rows {
                let value = row.get(&*indexed.column)?.as_str();
                let (table, column) = (Arc::clone(&listed), Arc::clone(&indexed.column));
                found.push(Tag::Value(table, column, value.into()));
            }
        }
        Some(found)
    };
    match rows.and_then(told) {
        Some(found) => found.into_iter().for_each(|tag| tags::push(&mut tags, tag)),
        None => tags.push(Tag::Values(Arc::clone(&listed))),
    }
    let own = (schema, name);
    let above = table
        .map(|table| catalog.ancestors(table))
        .unwrap_or_default();
    let below = catalog.tables().filter(|(_, _, other)| {
        !other.parents.is_empty() && catalog.ancestors(other).contains(&own)
    });
    let below: Vec<(&str, &str)> = below.map(|(schema, name, _)| (schema, name)).collect();
    for (schema, name) in above.into_iter().chain(below) {
        if let Some(other) = topology.table(Some(schema), name)
            && self::listed(other) != listed
        {
            tags.extend(tags::of_table(&self::listed(other)));
        }
    }
    (tags, Some(listed))
}

fn is_any_strict(context: Context<'_>) -> bool {
    let mut rules = context.topology.tables().filter(|rule| rule.is_cached());
    rules.any(|rule| rule.cache.as_ref().is_some_and(|policy| policy.strict))
}

/// What is known of written rows; by default nothing.
#[derive(Default)]
struct Known {
    /// All their keys, before and after.
    keys: Option<Vec<KeyOperands>>,
    /// The columns that are changed of them, where none come or go.
    columns: Option<Box<[Arc<str>]>>,
    /// Of the indexed columns of the table.
    indexed: Option<Box<[(Indexed, Valued)]>>,
}

impl Known {
    fn is_nothing(&self) -> bool {
        self.keys.is_none() && self.columns.is_none() && self.indexed.is_none()
    }
}

/// What a statement may change.
struct Changed<'a> {
    context: Context<'a>,
    /// `None`: anything.
    tables: Option<Vec<Written>>,
    strict: bool,
    /// Tables that were looked at whole, by (schema, name).
    seen: BTreeSet<(String, String)>,
}

impl<'a> Changed<'a> {
    fn new(context: Context<'a>) -> Changed<'a> {
        Changed {
            context,
            tables: Some(Vec::new()),
            strict: false,
            seen: BTreeSet::new(),
        }
    }

    fn anything(&mut self) {
        self.tables = None;
        self.strict |= is_any_strict(self.context);
    }

    fn code(&mut self, code: &Code) {
        if code.opaque.is_some() {
            self.anything();
        }
        for ((schema, table), written) in &code.tables {
            if *written {
                self.table(&Name::within(schema, table), Known::default());
            }
        }
    }

    /// A table is written: rows of which this is known.
    fn table(&mut self, name: &Name, known: Known) {
        let context = self.context;
        let Some((schema, table)) = context.find(name) else {
            if let Some(rule) = context.rule(name.schema.as_deref(), &name.name, None) {
                self.rule(rule, Known::default(), None);
            }
            return;
        };
        if table.view.is_some() {
            return self.anything();
        }
        if known.is_nothing() && !self.seen.insert((schema.to_owned(), name.name.clone())) {
            return;
        }
        if let Some(rule) = context.rule(Some(schema), &name.name, Some(table)) {
            self.rule(rule, known, Some(Name::within(schema, &name.name)));
        }
        let own = (schema, name.name.as_str());
        let above = context.catalog.ancestors(table);
        let below = context.catalog.tables().filter(|(_, _, other)| {
            !other.parents.is_empty() && context.catalog.ancestors(other).contains(&own)
        });
        let below: Vec<(&str, &str)> = below.map(|(schema, name, _)| (schema, name)).collect();
        for (schema, name) in above.into_iter().chain(below) {
            let related = context.catalog.table(schema, name);
            if let Some(rule) = context.topology.table(Some(schema), name) {
                self.rule_beside(rule);
            }
            if let Some(code) = related.and_then(|related| related.writes.as_deref()) {
                self.code(code);
            }
        }
        if let Some(code) = table.writes.as_deref() {
            self.code(code);
        }
        for (schema, name) in &table.cascades {
            self.table(&Name::within(schema, name), Known::default());
        }
    }

    /// A table above or below one that is written; its keys need not be the same column.
    fn rule_beside(&mut self, rule: &TableRule) {
        let table = listed(rule);
        let is_known = self.tables.as_ref().is_some_and(|tables| {
            let mut tables = tables.iter();
            tables.any(|touched| touched.table == table)
        });
        if !is_known {
            self.rule(rule, Known::default(), None);
        }
    }

    fn rule(&mut self, rule: &TableRule, known: Known, name: Option<Name>) {
        use crate::placement::topology::Kind;
        let Some(policy) = rule.cache.as_ref() else {
            return;
        };
        if policy.mode == Mode::Strong {
            return;
        }
        let is_strong =
            |column: &Arc<str>| policy.strong_columns.iter().any(|one| **one == **column);
        if known
            .columns
            .as_ref()
            .is_some_and(|columns| columns.iter().all(is_strong))
        {
            // No answer that is kept looks at them.
            return;
        }
        self.strict |= policy.strict;
        let (distribution, key) = match &rule.kind {
            Kind::Sharded {
                distribution, key, ..
            } => (*distribution, key.as_slice()),
            Kind::Reference | Kind::Single => (0, [].as_slice()),
        };
        // A write that must be told of is told of before it runs.
        let place = name.filter(|_| !key.is_empty() && !policy.strict);
        let written = Written {
            table: listed(rule),
            distribution,
            keys: known.keys.map(Vec::into_boxed_slice),
            columns: known.columns,
            // Without indexed columns nothing depends on their values.
            indexed: known
                .indexed
                .or_else(|| policy.index.is_empty().then(Box::default)),
            place: place.map(|name| Arc::new((name, key.into()))),
        };
        if let Some(tables) = &mut self.tables
            && !tables.contains(&written)
        {
            tables.push(written);
        }
    }

    fn verdict(self) -> Option<Verdict> {
        let strict = self.strict;
        let Some(tables) = self.tables else {
            return Some(Verdict::Write(Writing::anything(strict)));
        };
        (!tables.is_empty()).then(|| {
            Verdict::Write(Writing {
                tables: Some(tables.into()),
                strict,
            })
        })
    }
}
