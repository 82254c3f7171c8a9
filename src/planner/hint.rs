//! Hints in comments, applied to a plan.
//!
//! A hint says where rows are that the proxy cannot place: it takes the place of keys and refusals,
//! and of home for statements without tables. What runs on every shard stays there, since its
//! copies must not differ, and so do rows of COPY, which are placed one by one.

use std::sync::Arc;

use crate::error::Fault;
use crate::planner::context::Context;
use crate::planner::plan::{Access, Keyed, Operand};
use crate::planner::refuse;
use crate::sql::hints::Hints;

/// Applies a text's hints to where one of its statements may run.
pub(super) fn apply(access: &mut Access, hints: &Hints, context: Context<'_>) {
    let takes = match access {
        Access::Keyed(_) | Access::AnyShard | Access::Home => true,
        Access::Gather(gather) => gather.target.is_none() || !refuse::stands(&gather.otherwise),
        Access::Refuse(fault) => !refuse::stands(fault),
        Access::Session
        | Access::Anywhere
        | Access::Bound
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Generate(_)
        | Access::Shard(_) => false,
    };
    if !takes {
        return;
    }
    if let Access::Keyed(keyed) = access
        && let Some(moves) = &keyed.moves
        && (hints.shard.is_some() || hints.key.is_some())
    {
        // Where its rows will belong, no hint says.
        let otherwise = moves.otherwise.clone();
        *access = Access::Refuse(Arc::new(otherwise));
        return;
    }
    match hinted(access, hints, context) {
        Ok(Some(hinted)) => *access = hinted,
        Ok(None) => (),
        Err(fault) => *access = Access::Refuse(Arc::new(fault)),
    }
}

fn hinted(planned: &Access, hints: &Hints, context: Context<'_>) -> Result<Option<Access>, Fault> {
    let topology = context.topology;
    if let Some(name) = &hints.shard {
        let shard = topology.shard(name);
        let shard = shard.ok_or_else(|| refuse::bad_hint("shard", name))?;
        return Ok(Some(match planned {
            Access::Keyed(keyed)
                if keyed.insert && keyed.keys.is_some() || !keyed.entries.is_empty() =>
            {
                let mut keyed = Keyed::clone(keyed);
                keyed.hinted = Some(shard);
                Access::Keyed(Arc::new(keyed))
            }
            Access::Session
            | Access::Anywhere
            | Access::Bound
            | Access::Home
            | Access::AnyShard
            | Access::Keyed(_)
            | Access::Broadcast { .. }
            | Access::CopySplit(_)
            | Access::Generate(_)
            | Access::Shard(_)
            | Access::Gather(_)
            | Access::Refuse(_) => Access::Shard(shard),
        }));
    }
    let Some(key) = hints.key.as_ref().filter(|_| !context.is_one_shard()) else {
        return Ok(None);
    };
    let (distribution, table) = match (&hints.distribution, planned) {
        (Some(name), _) => {
            let found = topology.distribution_named(name);
            let index = found.ok_or_else(|| refuse::bad_hint("distribution", name))?;
            (index, Arc::from(name.as_str()))
        }
        (None, Access::Keyed(keyed)) => (keyed.distribution, Arc::clone(&keyed.table)),
        (None, _) if topology.distributions().len() == 1 => (0, Arc::from("")),
        (None, _) => return Err(refuse::no_distribution()),
    };
    Ok(Some(Access::Keyed(Arc::new(Keyed {
        distribution,
        keys: Some(vec![vec![Operand::Constant(key.as_str().into())]]),
        concat: None,
        splits: false,
        each: false,
        moves: None,
        otherwise: Arc::new(refuse::unprovable(&table)),
        gather: None,
        insert: true,
        modifiers: Arc::from([]),
        looks: false,
        entries: if let Access::Keyed(keyed) = planned {
            Arc::clone(&keyed.entries)
        } else {
            Arc::from([])
        },
        hinted: None,
        table,
    }))))
}
