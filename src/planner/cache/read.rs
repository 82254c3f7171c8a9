//! Whether the answer of a read may be kept, and which tables it depends on.
//!
//! Whatever is not known to answer alike, for the same user, settings and rows, is not kept.

use std::sync::Arc;
use std::time::Duration;

use super::{Reading, Reason, Touched, Verdict, write};
use crate::config::{Mode, Policy};
use crate::placement::code::Volatility;
use crate::planner::calls;
use crate::planner::context::Context;
use crate::planner::functions;
use crate::planner::survey::{Rows, Survey};
use crate::planner::unlike;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::scan::Kind;
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
        strong_columns(policy, cursor)?;
        let (distribution, keys) = match reference.place {
            Rows::Sharded { distribution, .. } => (distribution, survey.keys_of(reference)),
            Rows::Reference | Rows::Single | Rows::System => (0, None),
        };
        let touched = Touched {
            table: rule,
            distribution,
            keys: keys
                .filter(|_| write::is_exact(context, distribution))
                .map(Vec::into_boxed_slice),
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
    })
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
fn strong_columns(policy: &Policy, cursor: &Cursor<'_>) -> Result<(), Reason> {
    let Some(first) = policy.strong_columns.first() else {
        return Ok(());
    };
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let refused = |column: &str| Err(Reason::StrongColumn(column.into()));
    let mut bare: Vec<String> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let behind = tokens.get(at.saturating_add(1));
        let is_word = |token: Option<&crate::sql::scan::Token>, words: &[&str]| {
            let word = token.and_then(|token| word_name(*token, text));
            word.is_some_and(|word| words.contains(&word.as_str()))
        };
        if token.of(text) == b"*" {
            let counts = before.is_some_and(|before| before.kind == Kind::OpenParen)
                && behind.is_some_and(|behind| behind.kind == Kind::CloseParen)
                && is_word(at.checked_sub(2).and_then(|at| tokens.get(at)), &["count"]);
            let multiplies = behind.is_some_and(|behind| {
                matches!(
                    behind.kind,
                    Kind::Integer | Kind::Decimal | Kind::Parameter | Kind::OpenParen
                ) || word_name(*behind, text).is_some() && !is_word(Some(behind), &CLAUSES)
            });
            if !counts && !multiplies {
                return refused(first);
            }
            continue;
        }
        let Some(word) = word_name(*token, text) else {
            continue;
        };
        if let Some(column) = policy.strong_columns.iter().find(|known| **known == word) {
            return refused(column);
        }
        if matches!(word.as_str(), "natural" | "table") {
            return refused(first);
        }
        let leads = behind.is_some_and(|behind| behind.kind == Kind::Dot);
        if !leads && !CLAUSES.contains(&word.as_str()) {
            bare.push(word);
        }
    }
    // A whole row: the name of a source stands elsewhere than where it is made.
    let sources = sources(cursor);
    let count = |words: &[String], word: &String| words.iter().filter(|one| *one == word).count();
    if sources
        .iter()
        .any(|source| count(&bare, source) > count(&sources, source))
    {
        return refused(first);
    }
    Ok(())
}

/// Words behind which, or before which, a name is none of a column.
const CLAUSES: [&str; 24] = [
    "from",
    "where",
    "group",
    "order",
    "limit",
    "offset",
    "union",
    "intersect",
    "except",
    "having",
    "window",
    "fetch",
    "for",
    "into",
    "on",
    "using",
    "join",
    "left",
    "right",
    "inner",
    "full",
    "cross",
    "as",
    "and",
];

/// Every word that may name a source: any that stands behind FROM, JOIN or a comma, or behind such a one.
fn sources(cursor: &Cursor<'_>) -> Vec<String> {
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for token in tokens {
        match word_name(*token, text) {
            Some(word) if matches!(word.as_str(), "from" | "join") => inside = true,
            Some(word) if CLAUSES.contains(&word.as_str()) && word != "as" => inside = false,
            Some(word) if inside && word != "as" => found.push(word),
            Some(_) | None => (),
        }
    }
    found
}
