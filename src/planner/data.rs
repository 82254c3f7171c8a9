//! Where a data statement may run: from all that was found of its tables and keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Fault;
use crate::placement::catalog::Table;
use crate::placement::distribution::Distribution;
use crate::planner::cache::{self, Reason, Verdict};
use crate::planner::calls::{self, Reach};
use crate::planner::concat;
use crate::planner::context::Context;
use crate::planner::effects;
use crate::planner::finish;
use crate::planner::gather;
use crate::planner::ids::Generates;
use crate::planner::insert;
use crate::planner::literals::Literals;
use crate::planner::lookups;
use crate::planner::plan::{Access, Confined, Effect, Entries, KeyOperands, Keyed, Operand};
use crate::planner::refuse;
use crate::planner::survey::{Reference, Rows, Survey};
use crate::planner::tenant;
use crate::planner::unlike;
use crate::planner::writes::has_default;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::rows::Rows as InsertRows;
use crate::sql::scan::{Kind, Lexing, scan};
use crate::sql::statement::{Block, Body, Expr, Features, Into};
use crate::types::key::KeyType;
use crate::types::oid;

/// What was worked out of a data statement.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
#[derive(Debug)]
pub(super) struct Decision {
    pub access: Access,
    pub effect: Effect,
    pub writes: bool,
    pub repeatable: bool,
    pub has_tables: bool,
    /// Whether the values of literals were looked at, so that the plan holds for its text alone.
    pub exact: bool,
    pub block_only: bool,
    pub confined: Option<Arc<[Confined]>>,
    pub cache: Option<Arc<Verdict>>,
}

/// Plans a statement that reads or writes rows.
pub(super) fn decide(
    context: Context<'_>,
    block: &Block,
    literals: &Literals<'_>,
    cursor: &Cursor<'_>,
) -> Decision {
    let survey = Survey::of(context, block);
    let mut effect = effects::of_calls(block, &survey.calls, literals);
    if survey.references.iter().any(|reference| {
        reference.written && reference.place == Rows::System && reference.name.name == "pg_settings"
    }) {
        effect = Effect::Pin(effects::CONFIG);
    }
    let written = survey.references.iter().any(|reference| reference.written);
    let writes = written || has_effects(&survey, block);
    let mut decision = Decision {
        access: Access::Home,
        writes,
        repeatable: !writes && repeats(&survey, block, cursor),
        has_tables: survey
            .references
            .iter()
            .any(|reference| reference.place != Rows::System),
        // The value of set_config is part of the plan.
        exact: matches!(effect, Effect::SetConfig { .. }),
        block_only: effects::reads_sequence_state(&survey.calls),
        effect,
        confined: None,
        cache: cached(&survey, block, cursor, written, writes),
    };
    if context.tenant {
        match tenant::confine(&survey, block, cursor, &decision.effect) {
            Ok(confined) => decision.confined = Some(confined),
            Err(fault) => {
                decision.effect = Effect::None;
                decision.access = refused(fault);
                return decision;
            }
        }
    }
    if decision.effect == Effect::None
        && decision.block_only
        && let Some(effect) = effects::of_last_id(block, &survey.calls, literals)
    {
        decision.exact = true;
        decision.effect = effect;
    }
    decision.access = match &survey.generates {
        None => access(&survey, block, cursor, &mut decision),
        Some(generates) => generated(&survey, generates, block, cursor, &mut decision),
    };
    decision.access = insert::or_gathered(context, block, *cursor, decision.access);
    decision
}

/// What the cache may do with a statement; `None` where no table is cached.
fn cached(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    written: bool,
    writes: bool,
) -> Option<Arc<Verdict>> {
    if !survey.context.topology.caches() {
        return None;
    }
    let verdict = cache::judge_write(survey, block, cursor)
        .or_else(|| {
            let clock = reads_clock(survey, block);
            cache::judge_read(survey, block, cursor, clock).filter(|_| !written)
        })
        .map(|verdict| match verdict {
            Verdict::Read(reading) if writes => {
                let table = reading
                    .tables
                    .first()
                    .map(|touched| Arc::clone(&touched.table));
                Verdict::Bypass(Reason::Effect, table.unwrap_or_else(|| Arc::from("")))
            }
            Verdict::Read(_) | Verdict::Bypass(..) | Verdict::Write(_) => verdict,
        });
    verdict.map(Arc::new)
}

/// An INSERT of rows that are to be given ids.
fn generated(
    survey: &Survey<'_>,
    generates: &Generates,
    block: &Block,
    cursor: &Cursor<'_>,
    decision: &mut Decision,
) -> Access {
    if let Some(fault) = &survey.refusal {
        return refused(fault.clone());
    }
    if !generates.fits(cursor) {
        return refused(refuse::ids_within());
    }
    let within = if survey.context.is_one_shard() {
        Access::Home
    } else if generates.is_key {
        Access::AnyShard
    } else {
        access(survey, block, cursor, decision)
    };
    if let Access::Refuse(_) = within {
        return within;
    }
    generates.access(within)
}

/// An INSERT of rows whose ids carry the bucket of their key, where there is one shard.
fn checked(survey: &Survey<'_>) -> Access {
    if let Some(fault) = &survey.refusal {
        return refused(fault.clone());
    }
    let mut references = survey.references.iter();
    let target = references.find(|reference| reference.written && reference.rows.is_some());
    let Some((Rows::Sharded { distribution, .. }, reference)) =
        target.map(|target| (target.place, target))
    else {
        return Access::Home;
    };
    let table = reference.name.to_string();
    Access::Keyed(Arc::new(Keyed {
        distribution,
        keys: reference.rows.clone(),
        concat: None,
        splits: false,
        each: false,
        moves: None,
        gather: None,
        otherwise: Arc::new(refuse::insert(&table)),
        insert: true,
        modifiers: survey.modifiers.clone().into(),
        looks: false,
        entries: Arc::from([]),
        hinted: None,
        table: table.into(),
    }))
}

fn access(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    decision: &mut Decision,
) -> Access {
    if survey.context.is_one_shard() && survey.minds_ids {
        return checked(survey);
    }
    if survey.context.is_one_shard() {
        match into_kind(block) {
            Some(Into::Temporary) => decision.effect = Effect::Pin(effects::TEMPORARY),
            Some(Into::Table) => decision.effect = effects::of_making(&decision.effect),
            None => (),
        }
        return if is_harmless(survey, block) || matches!(decision.effect, Effect::SetConfig { .. })
        {
            Access::Anywhere
        } else {
            Access::Home
        };
    }
    if let Some(fault) = &survey.refusal {
        return refused(fault.clone());
    }
    let spread = survey
        .references
        .iter()
        .any(|reference| matches!(reference.place, Rows::Sharded { .. }));
    let copied = survey
        .references
        .iter()
        .find(|reference| reference.written && reference.place == Rows::Reference);
    let called = match calls::of_statement(survey, *cursor) {
        Ok(called) => called,
        Err(fault) => return refused(fault),
    };
    if is_into(block) {
        return into(survey, block, decision);
    }
    if let Some(what) = &called.home
        && let Some(table) = survey
            .references
            .iter()
            .find(|reference| match reference.place {
                Rows::Sharded { .. } => true,
                Rows::Reference => reference.written,
                Rows::Single | Rows::System => false,
            })
    {
        return refused(refuse::home_only(what, &table.name.to_string()));
    }
    match copied {
        _ if spread => match loose_key(survey) {
            Some(fault) => refused(fault),
            None => keyed(survey, block, cursor, &mut decision.exact),
        },
        Some(copied) => {
            decision.exact = true;
            broadcast(survey, block, copied, cursor)
        }
        None if matches!(decision.effect, Effect::SetConfig { .. }) => Access::Anywhere,
        None => local(survey, block, cursor, decision.writes, &called),
    }
}

fn refused(fault: Fault) -> Access {
    Access::Refuse(Arc::new(fault))
}

/// Whether any level does more than read.
fn has_effects(survey: &Survey<'_>, block: &Block) -> bool {
    let features = [block.inner.features, survey.inner_features];
    features
        .iter()
        .any(|features| features.has(Features::LOCK) || features.has(Features::OPERATOR))
        || survey
            .calls
            .iter()
            .any(|call| !calls::is_read_only(survey.context, &call.name))
        || is_into(block)
}

/// Whether it reads plain tables and calls nothing by name. `a.b` is a call where `b` is no column.
fn repeats(survey: &Survey<'_>, block: &Block, cursor: &Cursor<'_>) -> bool {
    let calls = !survey.calls.is_empty()
        || [block.inner.features, survey.inner_features]
            .iter()
            .any(|features| features.has(Features::TYPE));
    let names: Option<Vec<(&Name, &Table)>> = survey
        .references
        .iter()
        .map(|reference| {
            let table = survey.context.table(&reference.name)?;
            table.plain.then_some((&reference.name, table))
        })
        .collect();
    let Some(names) = names.filter(|names| !calls && !names.is_empty() && survey.views.is_empty())
    else {
        return false;
    };
    let text = cursor.text();
    cursor.tokens().windows(2).all(|pair| match *pair {
        [dot, name] if dot.kind == Kind::Dot => {
            let Some(word) = word_name(name, text) else {
                return name.of(text) == b"*";
            };
            names.iter().any(|(reference, table)| {
                reference.name == word || table.columns.iter().any(|column| column.name == word)
            })
        }
        _ => true,
    })
}

/// Whether it is SELECT INTO.
pub(super) fn is_into(block: &Block) -> bool {
    into_kind(block).is_some()
}

fn into_kind(block: &Block) -> Option<Into> {
    match &block.body {
        Body::Select(select) => select.into,
        Body::Set(branches) => branches.iter().find_map(into_kind),
        Body::Nested(nested) => into_kind(nested),
        Body::Values(_) | Body::Insert(_) | Body::Update(_) | Body::Delete(_) | Body::Merge(_) => {
            None
        }
    }
}

fn is_harmless(survey: &Survey<'_>, block: &Block) -> bool {
    survey.references.is_empty()
        && survey.views.is_empty()
        && !is_into(block)
        && [block.inner.features, survey.inner_features]
            .iter()
            .all(|features| !features.has(Features::OPERATOR) && !features.has(Features::TYPE))
        && survey
            .calls
            .iter()
            .all(|call| calls::is_harmless(survey.context, &call.name))
}

/// No sharded table is read or written, and no copy is written.
fn local(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    writes: bool,
    called: &Reach,
) -> Access {
    if is_harmless(survey, block) {
        return Access::Anywhere;
    }
    let copies = !survey.references.is_empty()
        && survey
            .references
            .iter()
            .all(|reference| reference.place == Rows::Reference);
    let plain = survey
        .calls
        .iter()
        .all(|call| calls::is_read_only(survey.context, &call.name));
    let alike = || unlike::numbers(*cursor).is_none();
    if copies && plain && !writes && called.home.is_none() && alike() {
        Access::AnyShard
    } else {
        Access::Home
    }
}

/// SELECT INTO makes a table: a temporary one at home, another one on every shard, where only single
/// tables are read (they are empty but at home).
fn into(survey: &Survey<'_>, block: &Block, decision: &mut Decision) -> Access {
    let spread = survey
        .references
        .iter()
        .find(|reference| matches!(reference.place, Rows::Sharded { .. } | Rows::Reference));
    if into_kind(block) == Some(Into::Temporary) {
        decision.effect = Effect::Pin(effects::TEMPORARY);
        return match spread {
            Some(reference) if reference.place != Rows::Reference => {
                refused(refuse::made_from(&format!("table \"{}\"", reference.name)))
            }
            Some(_) | None => Access::Home,
        };
    }
    let effect = effects::of_making(&decision.effect);
    if effect != Effect::Ddl {
        return refused(refuse::made_by_effects());
    }
    decision.effect = effect;
    match spread {
        Some(reference) => refused(refuse::made_from(&format!("table \"{}\"", reference.name))),
        None => Access::Broadcast { transaction: true },
    }
}

/// A write of a reference table: on every shard, if every shard works out the same.
fn broadcast(
    survey: &Survey<'_>,
    block: &Block,
    copied: &Reference,
    cursor: &Cursor<'_>,
) -> Access {
    let table = copied.name.to_string();
    if let Some(other) = survey
        .references
        .iter()
        .find(|reference| reference.place != Rows::Reference)
    {
        return refused(refuse::copies_read(&table, &other.name.to_string()));
    }
    let strange = survey
        .calls
        .iter()
        .find(|call| !calls::is_plain(survey.context, &call.name));
    let limits = |features: Features| {
        features.has(Features::LIMIT)
            || features.has(Features::LOCK)
            || features.has(Features::SAMPLE)
            || features.has(Features::DISTINCT)
            || features.has(Features::OPERATOR)
            || features.has(Features::WINDOW)
    };
    let why = if let Some(call) = strange {
        format!("a call of {}", call.name)
    } else if limits(survey.inner_features) || limits(block.inner.features) {
        "a clause that chooses among rows".into()
    } else if has_default(block) {
        "a DEFAULT".into()
    } else if let Some(what) = unlike::of_server(*cursor) {
        what
    } else if let Some((view, _)) = survey.views.iter().find(|(_, view)| view.code.unlike) {
        format!("view \"{view}\"")
    } else if survey.inner_features.has(Features::OBJECT)
        || block.inner.features.has(Features::OBJECT)
    {
        "a cast to a type of object numbers".into()
    } else if reads_clock(survey, block) {
        "a cast of what is worked out to a type that may read the clock".into()
    } else {
        return Access::Broadcast { transaction: true };
    };
    refused(refuse::copies(&table, &why))
}

/// Whether a text that is not known here is cast to a date, a time or a type that is looked up.
fn reads_clock(survey: &Survey<'_>, block: &Block) -> bool {
    let from_one_table = block.ctes.is_empty()
        && block.inner.subqueries.is_empty()
        && match &block.body {
            Body::Update(update) => update.from.is_empty(),
            Body::Delete(delete) => delete.using.is_empty(),
            Body::Select(_)
            | Body::Set(_)
            | Body::Nested(_)
            | Body::Values(_)
            | Body::Insert(_)
            | Body::Merge(_) => false,
        };
    let is_text = |column: &str| {
        let tables = survey.references.iter();
        let mut columns = tables
            .filter_map(|reference| survey.context.table(&reference.name))
            .flat_map(|table| &table.columns)
            .filter(|known| known.name == column);
        columns.next().is_none_or(|column| !is_time(column.oid))
    };
    let may = |operand: &Expr| match operand {
        Expr::Value(_) => false,
        Expr::Column(parts) => !from_one_table || parts.last().is_none_or(|column| is_text(column)),
        Expr::Cast(..)
        | Expr::Row(_)
        | Expr::Array(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::Same(..)
        | Expr::Compare(..)
        | Expr::Computed(..)
        | Expr::InSubquery(..)
        | Expr::Subquery(_)
        | Expr::In(..)
        | Expr::Any(..)
        | Expr::Default
        | Expr::Boolean(_)
        | Expr::Call
        | Expr::Other => true,
    };
    let mut dates = survey.calls.iter().filter(|call| call.name.name == "date");
    survey.casts.iter().any(may) || dates.any(|call| call.args.iter().any(may))
}

fn is_time(kind: u32) -> bool {
    matches!(
        kind,
        oid::DATE | oid::TIME | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::TIMETZ
    )
}

/// Numbers of a shard's own objects that a view gives.
fn numbers_in_views(survey: &Survey<'_>) -> Option<String> {
    survey.views.iter().find_map(|(_, view)| {
        let text = view.definition.as_bytes();
        let tokens = scan(text, Lexing::default()).ok()?;
        unlike::numbers(Cursor::new(text, &tokens))
    })
}

/// Why rows are not placed by a key that is compared otherwise than its text.
fn loose_key(survey: &Survey<'_>) -> Option<Fault> {
    survey.references.iter().find_map(|reference| {
        let column = survey.context.loose(&reference.name)?;
        Some(refuse::loose_key(&reference.name.to_string(), column))
    })
}

/// Sharded tables take part: one shard if every reference is confined to its keys.
fn keyed(survey: &Survey<'_>, block: &Block, cursor: &Cursor<'_>, exact: &mut bool) -> Access {
    let mut shared = None;
    let mut first: Option<String> = None;
    for reference in &survey.references {
        let name = reference.name.to_string();
        match reference.place {
            Rows::Sharded { distribution, .. } => {
                if shared.is_some_and(|shared| shared != distribution) {
                    let first = first.as_deref().unwrap_or_default();
                    let otherwise = refuse::mixed(first, &name);
                    return gathered(survey, block, cursor, (first, &name), otherwise);
                }
                shared = Some(distribution);
                first.get_or_insert(name);
            }
            Rows::Reference if reference.written => {
                return refused(refuse::copies_read(
                    &name,
                    &concat::named(&survey.references),
                ));
            }
            Rows::Reference => (),
            Rows::Single | Rows::System => {
                let first = concat::named(&survey.references);
                let otherwise = refuse::mixed(&first, &name);
                return gathered(survey, block, cursor, (&first, &name), otherwise);
            }
        }
    }
    let written = survey.references.iter().find(|reference| reference.written);
    let inserts = survey.inserts;
    let verdict = concat::check(survey, block, cursor);
    *exact |= matches!(verdict, Ok((_, true)));
    let table = concat::named(&survey.references);
    let keys = united(survey).filter(|keys| !are_dates_elsewhere(survey, shared, keys, cursor));
    let keyed = keys.is_some();
    let otherwise = match (written, &verdict) {
        (Some(_), _) if inserts => refuse::insert(&table),
        (Some(write), _) => refuse::write(verb(block), &write.name.to_string(), keyed),
        (None, Err(clause)) => refuse::read(&table, clause, keyed),
        (None, Ok(_)) => refuse::read(&table, "a read", keyed),
    };
    // Listeners are on the home shard, whatever shard the rows are on.
    if survey
        .calls
        .iter()
        .any(|call| call.name.name == "pg_notify")
    {
        return refused(refuse::notify(&table));
    }
    let placed = shared.and_then(|shared| survey.context.topology.distribution(shared));
    let is_enum = |placed: &Distribution| placed.key().contains(&KeyType::Enum);
    if survey.context.catalog.odd_enums && placed.is_some_and(is_enum) {
        return refused(refuse::odd_enums(&table));
    }
    if let Some(what) = unlike::numbers(*cursor).or_else(|| numbers_in_views(survey)) {
        return refused(refuse::numbers(&what, &table));
    }
    let entries = match entries(survey, block) {
        Ok(entries) => entries,
        Err(fault) => return refused(fault),
    };
    let looks = lookups::looks(keys.as_ref())
        || entries.iter().any(|entries| {
            let mut keys = entries.rows.iter().flat_map(|(_, key)| key);
            keys.any(|operand| matches!(operand, Operand::Looked(_)))
        });
    let why = verdict
        .as_ref()
        .err()
        .map_or("a transaction block", |clause| &**clause);
    let (gather, otherwise) = match written {
        Some(_) => (None, otherwise),
        None => match gather::check(survey, block, *cursor, why, otherwise.clone()) {
            Ok(gather) => (Some(gather), otherwise),
            // Why it cannot be gathered is what stands in the way.
            Err(fault) => (None, fault),
        },
    };
    Access::Keyed(Arc::new(Keyed {
        distribution: shared.unwrap_or_default(),
        gather: gather.map(Arc::new),
        splits: inserts
            && keys
                .as_ref()
                .is_some_and(|keys| splits(survey, block, cursor, keys.len())),
        each: entries.is_empty() && is_of_each(survey, block),
        moves: survey.moves.clone(),
        keys,
        concat: verdict
            .ok()
            .filter(|_| written.is_none())
            .map(|(finish, _)| {
                finish::or_else(finish, |clause| refuse::read(&table, clause, keyed))
            }),
        otherwise: Arc::new(otherwise),
        insert: inserts,
        modifiers: survey.modifiers.clone().into(),
        looks,
        entries: entries.into(),
        hinted: None,
        table: table.into(),
    }))
}

/// A read whose rows are on no shard together: finished on a twin, or refused.
fn gathered(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    (first, second): (&str, &str),
    otherwise: Fault,
) -> Access {
    let why = format!("a statement over \"{first}\" and \"{second}\"");
    match gather::check(survey, block, *cursor, &why, otherwise) {
        Ok(gather) => Access::Gather(Arc::new(gather)),
        Err(fault) => refused(fault),
    }
}

/// Whether a key of a timestamp's type is a parameter that stands in another place too: there it may have
/// become a date, so that its time is not read.
fn are_dates_elsewhere(
    survey: &Survey<'_>,
    distribution: Option<usize>,
    keys: &[KeyOperands],
    cursor: &Cursor<'_>,
) -> bool {
    let distribution = distribution.and_then(|index| survey.context.topology.distribution(index));
    let is_time = |kind: &KeyType| matches!(kind, KeyType::Timestamp | KeyType::TimestampTz);
    if !distribution.is_some_and(|distribution| distribution.key().iter().any(is_time)) {
        return false;
    }
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    let tokens = cursor.tokens().iter();
    for token in tokens.filter(|token| token.kind == Kind::Parameter) {
        let name = token.of(cursor.text());
        if !once.insert(name) {
            twice.insert(name);
        }
    }
    let mut parameters = Vec::new();
    for operand in keys.iter().flatten() {
        operand.parameters(&mut parameters);
    }
    parameters.into_iter().any(|index| {
        let name = format!("${}", u32::from(index).saturating_add(1));
        twice.contains(name.as_bytes())
    })
}

/// Whether an INSERT may be sent in parts, one a shard: its rows stand in plain VALUES, one for each of the
/// keys, and nothing else in it reads a sharded table.
fn splits(survey: &Survey<'_>, block: &Block, cursor: &Cursor<'_>, keys: usize) -> bool {
    let Body::Insert(insert) = &block.body else {
        return false;
    };
    let alone = survey
        .references
        .iter()
        .filter(|reference| matches!(reference.place, Rows::Sharded { .. }))
        .count()
        == 1;
    let Some(Block {
        ctes,
        body: Body::Values(rows),
        ..
    }) = &insert.source
    else {
        return false;
    };
    // Rows of unlike length are an error of the whole.
    let alike = rows
        .windows(2)
        .all(|pair| matches!(pair, [one, next] if one.len() == next.len()));
    alone
        && alike
        && block.ctes.is_empty()
        && ctes.is_empty()
        && keys > 1
        && rows.len() == keys
        && InsertRows::find(cursor.tokens(), cursor.text()).is_some_and(|rows| rows.len() == keys)
}

/// What lookup tables must hold before it runs.
///
/// # Errors
/// A value is not known; or rows may move, of which more than their own shards must know.
fn entries(survey: &Survey<'_>, block: &Block) -> Result<Vec<Entries>, Fault> {
    let entries = survey.all_entries()?;
    match &survey.moves {
        Some(moves) if !entries.is_empty() || !is_of_each(survey, block) => {
            Err(moves.otherwise.clone())
        }
        Some(_) | None => Ok(entries),
    }
}

/// Whether it is an UPDATE or a DELETE of one sharded table, whose every row is worked out from itself and from what
/// each shard has a copy of.
fn is_of_each(survey: &Survey<'_>, block: &Block) -> bool {
    let mut write = block;
    while let Body::Nested(nested) = &write.body {
        if !write.ctes.is_empty() {
            return false;
        }
        write = nested;
    }
    let is_write = matches!(&write.body, Body::Update(_) | Body::Delete(_));
    let sharded = survey
        .references
        .iter()
        .filter(|reference| matches!(reference.place, Rows::Sharded { .. }));
    let others = survey.references.iter().all(|reference| {
        matches!(reference.place, Rows::Sharded { .. })
            || (reference.place == Rows::Reference && !reference.written)
    });
    is_write
        && others
        && sharded.count() == 1
        && write.ctes.is_empty()
        && survey.views.is_empty()
        && survey.inner_features.first().is_none()
}

/// The keys of all references together; `None` if one of them is confined to none.
fn united(survey: &Survey<'_>) -> Option<Vec<KeyOperands>> {
    let mut united: Vec<KeyOperands> = Vec::new();
    for reference in &survey.references {
        let Rows::Sharded { .. } = reference.place else {
            continue;
        };
        let keys = survey.keys_of(reference)?;
        if united.is_empty() {
            united = keys;
        } else if united != keys {
            let small = keys.len() <= 64 && united.len() <= 64;
            for key in keys {
                if !small || !united.contains(&key) {
                    united.push(key);
                }
            }
        }
    }
    Some(united)
}

fn verb(block: &Block) -> &'static str {
    match &block.body {
        Body::Insert(_) => "INSERT",
        Body::Update(_) => "UPDATE",
        Body::Delete(_) => "DELETE",
        Body::Merge(_) => "MERGE",
        Body::Nested(nested) => verb(nested),
        Body::Select(_) | Body::Set(_) | Body::Values(_) => "a write",
    }
}
