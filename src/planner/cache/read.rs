//! Whether the answer of a read may be kept, and which tables it depends on.
//!
//! Whatever is not known to answer alike, for the same user, settings and rows, is not kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Reading, Reason, Touched, Verdict, columns, write};
use crate::config::{Mode, Policy};
use crate::placement::code::Volatility;
use crate::planner::calls;
use crate::planner::context::Context;
use crate::planner::functions;
use crate::planner::survey::{Rows, Survey};
use crate::planner::unlike;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::statement::{Block, Features};

/// What is to be done with a read; `None` where no table of it is cached.
pub(in crate::planner) fn of_read(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    reads_clock: bool,
) -> Option<Verdict> {
    let context = survey.context;
    let mut references = survey.references.iter();
    let table = references.find_map(|reference| {
        let (table, policy) = policy(context, &reference.name)?;
        (policy.mode != Mode::Strong).then_some(table)
    })?;
    Some(match judge(survey, block, cursor, reads_clock) {
        Ok(reading) => Verdict::Read(reading),
        Err(reason) => Verdict::Bypass(reason, table),
    })
}

fn judge(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    reads_clock: bool,
) -> Result<Reading, Reason> {
    let context = survey.context;
    let (mut fresh, mut limit) = (Duration::MAX, Duration::MAX);
    let mut tables = Vec::new();
    let words = columns::named(cursor);
    for reference in &survey.references {
        let shown = || Arc::from(reference.name.to_string());
        if reference.place == Rows::System {
            return Err(Reason::System);
        }
        let (rule, policy) =
            policy(context, &reference.name).ok_or_else(|| Reason::Strong(shown()))?;
        match policy.mode {
            Mode::Strong => return Err(Reason::Strong(shown())),
            Mode::Bounded => limit = limit.min(policy.ttl),
            Mode::Cached => limit = limit.min(policy.swr),
        }
        fresh = fresh.min(policy.ttl);
        let Some(table) = context.table(&reference.name) else {
            return Err(Reason::Relation(shown()));
        };
        if table.row_security {
            return Err(Reason::RowSecurity(shown()));
        }
        if !table.plain || table.view.is_some() || table.reads.is_some() || reference.viewed {
            return Err(Reason::Relation(shown()));
        }
        strong_columns(policy, words.as_ref())?;
        let (distribution, keys) = match reference.place {
            Rows::Sharded { distribution, .. } => (distribution, survey.keys_of(reference)),
            Rows::Reference | Rows::Single | Rows::System => (0, None),
        };
        let is_alone = columns::stands_alone(context, &reference.name, table);
        let mut indexed = columns::indexed(policy, table).into_iter();
        let confined = indexed.find_map(|(indexed, _)| {
            let values = columns::confined(block, &reference.name, &indexed)?;
            Some((indexed, values))
        });
        let touched = Touched {
            table: rule,
            distribution,
            keys: keys
                .filter(|_| write::is_exact(context, distribution))
                .map(Vec::into_boxed_slice),
            confined: confined.filter(|_| is_alone && reference.top),
            columns: columns::read(table, words.as_ref()).filter(|_| is_alone),
        };
        if !tables.contains(&touched) {
            tables.push(touched);
        }
    }
    if !survey.views.is_empty() {
        let name = survey.views.first().map(|(name, _)| name.to_string());
        return Err(Reason::Relation(name.unwrap_or_default().into()));
    }
    for features in [block.inner.features, survey.inner_features] {
        if features.has(Features::LOCK) {
            return Err(Reason::Lock);
        }
        if features.has(Features::SAMPLE) {
            return Err(Reason::Sample);
        }
        if features.has(Features::OPERATOR) {
            return Err(Reason::Function("an operator that is not built in".into()));
        }
        if features.has(Features::OBJECT) {
            return Err(Reason::System);
        }
    }
    functions_called(survey, cursor)?;
    if let Some(what) = unlike::of_server(*cursor) {
        return Err(Reason::Moment(what.into()));
    }
    if reads_clock {
        let what = "a cast of what is worked out to a type that may read the clock";
        return Err(Reason::Moment(what.into()));
    }
    Ok(Reading {
        tables: tables.into(),
        fresh,
        limit,
        is_settled: is_settled(survey, cursor),
    })
}

/// Whether the same rows, in whichever order a table has them, give the same answer but for its order. One that
/// takes the first of some does where these are in the order of a primary key, or what follows from it.
fn is_settled(survey: &Survey<'_>, cursor: &Cursor<'_>) -> bool {
    /// What works on rows in the order they come in.
    const ORDERED: [&str; 13] = [
        "array_agg",
        "string_agg",
        "json_agg",
        "jsonb_agg",
        "json_object_agg",
        "jsonb_object_agg",
        "json_arrayagg",
        "json_objectagg",
        "xmlagg",
        "over",
        "distinct",
        "avg",
        "sum",
    ];
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let words = tokens.iter().map(|token| word_name(*token, text));
    let words: Vec<String> = words.map(Option::unwrap_or_default).collect();
    let has = |word: &str| words.iter().any(|known| known == word);
    if ORDERED.into_iter().any(has) {
        return false;
    }
    if !["limit", "offset", "fetch"].into_iter().any(has) {
        return true;
    }
    let [reference] = survey.references.as_slice() else {
        return false;
    };
    let Some(table) = survey.context.table(&reference.name) else {
        return false;
    };
    let mut primary = table
        .columns
        .iter()
        .filter(|column| column.primary)
        .peekable();
    let orders: Vec<usize> = (0..words.len())
        .filter(|at| words.get(*at).is_some_and(|word| word == "order"))
        .collect();
    let [order] = orders.as_slice() else {
        return false;
    };
    let by = words.get(*order..).unwrap_or_default();
    !has("group") && primary.peek().is_some() && primary.all(|column| by.contains(&column.name))
}

/// What the configuration says of a table, with the name that it lists it, or the nearest table that its
/// rows are among, by.
pub(super) fn policy<'a>(context: Context<'a>, name: &Name) -> Option<(Arc<str>, &'a Policy)> {
    let found = context.find(name);
    let schema = found.map(|(schema, _)| schema).or(name.schema.as_deref());
    let rule = context.rule(schema, &name.name, found.map(|(_, table)| table))?;
    let policy = rule.cache.as_deref()?;
    Some((write::listed(rule), policy))
}

/// Everything that is called must answer alike for the same arguments, settings and rows.
fn functions_called(survey: &Survey<'_>, cursor: &Cursor<'_>) -> Result<(), Reason> {
    let context = survey.context;
    for call in &survey.calls {
        let name = &call.name;
        let is_listed = functions::is_plain(name)
            || functions::is_plain_set(name)
            || functions::is_grouping(name);
        let is_same = match calls::routine(context, name) {
            None => is_listed,
            Some(code) => {
                code.volatility == Volatility::Immutable
                    && code.is_apart()
                    && !code.unlike
                    && (is_listed || !context.catalog.routines.is_shared(&name.name))
            }
        };
        if !is_same {
            return Err(Reason::Function(format!("function {name}").into()));
        }
    }
    if let Some(name) = calls::dotted_calls(survey, *cursor).first() {
        return Err(Reason::Function(format!("function {name}").into()));
    }
    if let Some((what, _)) = calls::unnamed(survey, *cursor).first() {
        return Err(Reason::Function(what.as_str().into()));
    }
    let tokens = cursor.tokens().iter();
    let mut words = tokens.filter_map(|token| word_name(*token, cursor.text()));
    match words.find(|word| unlike::is_call(word) || word == "user") {
        Some(word) => Err(Reason::Function(word.into())),
        None => Ok(()),
    }
}

/// A statement that may read a strong column of a table: one that names a column so, or all of them.
fn strong_columns(policy: &Policy, words: Option<&BTreeSet<String>>) -> Result<(), Reason> {
    let mut strong = policy.strong_columns.iter();
    let found = match words {
        Some(words) => strong.find(|column| words.contains(*column)),
        None => strong.next(),
    };
    match found {
        Some(column) => Err(Reason::StrongColumn(column.as_str().into())),
        None => Ok(()),
    }
}
