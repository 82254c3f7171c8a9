//! An INSERT of a query's rows whose shards are not known before the query has run: it runs on a twin, and its rows
//! are written as those of a COPY.
//!
//! The twin runs the client's own INSERT into its empty copy of the table, so that values become those of the
//! table's columns as PostgreSQL makes them; what a row must fulfil besides is for its own shard to say.

use std::sync::Arc;

use crate::error::Fault;
use crate::planner::context::{Context, Relation};
use crate::planner::gather;
use crate::planner::outputs::Outputs;
use crate::planner::plan::{Access, Gather, Holders, Keyed, Target};
use crate::planner::survey::Survey;
use crate::planner::utility::copied;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::quote::quote_ident;
use crate::sql::statement::{Block, Body, Insert};

/// The same access, where rows of several shards are inserted by way of a twin if that is right.
pub(super) fn or_gathered(
    context: Context<'_>,
    block: &Block,
    cursor: Cursor<'_>,
    access: Access,
) -> Access {
    let (otherwise, keyed) = match &access {
        Access::Refuse(fault) => (fault, None),
        Access::Keyed(keyed) if keyed.gather.is_none() && !keyed.splits => {
            (&keyed.otherwise, Some(Arc::clone(keyed)))
        }
        Access::Session
        | Access::Anywhere
        | Access::Bound
        | Access::Home
        | Access::AnyShard
        | Access::Keyed(_)
        | Access::Generate(_)
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Shard(_)
        | Access::Gather(_) => return access,
    };
    let Some(gather) = gathered(context, block, cursor, otherwise) else {
        return access;
    };
    match keyed {
        Some(keyed) => Access::Keyed(Arc::new(Keyed {
            gather: Some(gather),
            ..Keyed::clone(&keyed)
        })),
        None => Access::Gather(gather),
    }
}

fn gathered(
    context: Context<'_>,
    block: &Block,
    cursor: Cursor<'_>,
    otherwise: &Fault,
) -> Option<Arc<Gather>> {
    let Body::Insert(insert) = &block.body else {
        return None;
    };
    let is_plain = block.ctes.is_empty()
        && !insert.has_conflict
        && insert.returning.is_empty()
        && !cursor.mentions("overriding");
    let source = insert.source.as_ref().filter(|_| is_plain)?;
    if context.tenant || context.is_one_shard() || matches!(source.body, Body::Values(_)) {
        return None;
    }
    let (survey, outputs) = Survey::with_outputs(context, source);
    if survey.refusal.is_some() || survey.generates.is_some() {
        return None;
    }
    let columns = columns(context, insert, &outputs)?;
    let holders = match copied(context, &insert.table, columns.clone()) {
        Access::CopySplit(split) => Holders::ByKey(split),
        Access::Broadcast { .. } => Holders::Everywhere,
        Access::Home => Holders::Home,
        Access::Session
        | Access::Anywhere
        | Access::Bound
        | Access::AnyShard
        | Access::Keyed(_)
        | Access::Generate(_)
        | Access::Shard(_)
        | Access::Gather(_)
        | Access::Refuse(_) => return None,
    };
    let why = "INSERT of a query's rows";
    let gather = gather::check(&survey, source, cursor, why, otherwise.clone()).ok()?;
    Some(Arc::new(Gather {
        partial: None,
        target: Some(Arc::new(Target {
            columns: columns.iter().map(|name| quote_ident(name)).collect(),
            table: insert.table.quoted(),
            holders,
            is_new: false,
        })),
        ..gather
    }))
}

/// The table that a query makes at home, from rows of several shards.
pub(super) fn made(table: &Name, gather: &Gather) -> Gather {
    Gather {
        partial: None,
        target: Some(Arc::new(Target {
            columns: Vec::new(),
            table: table.quoted(),
            holders: Holders::Home,
            is_new: true,
        })),
        ..gather.clone()
    }
}

/// The columns that are given.
fn columns(context: Context<'_>, insert: &Insert, outputs: &Outputs) -> Option<Vec<String>> {
    if !insert.columns.is_empty() {
        return Some(insert.columns.clone());
    }
    let table = match context.relation(&insert.table) {
        Relation::Sharded { table, .. } | Relation::Reference(table) => table?,
        Relation::Single => context.table(&insert.table)?,
        Relation::System | Relation::View(_) | Relation::Refused => return None,
    };
    let width = outputs.columns.len();
    let names = table.insert_columns().take(width);
    let names: Vec<String> = names.map(|column| column.name.clone()).collect();
    (outputs.ordered && names.len() == width).then_some(names)
}
