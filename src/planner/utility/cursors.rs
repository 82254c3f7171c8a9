//! DECLARE, FETCH, MOVE and CLOSE.

use std::sync::Arc;

use crate::error::Fault;
use crate::planner::context::Context;
use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::plan::{Access, Effect};
use crate::planner::refuse;
use crate::planner::script::{Text, plan_one};

/// What to do where a cursor cannot be over several shards.
const HINT: &str = "Compare the key with a constant or a parameter in the cursor's query.";

/// A cursor over several shards whose rows no twin takes.
pub fn cursor_over_several() -> Fault {
    refuse::kind("a cursor", HINT)
}

/// Plans one of them; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    match cursor.take_any(&["declare", "fetch", "move", "close"])? {
        "declare" => declare(text),
        "fetch" => Some(bound("FETCH")),
        "move" => Some(bound("MOVE")),
        _ => Some(bound("CLOSE CURSOR")),
    }
}

/// A cursor is where it was declared: on the connection that the block or the client holds.
fn bound(verb: &'static str) -> Draft {
    Draft {
        writes: true,
        has_tables: true,
        ..Draft::server(verb, Effect::None, Access::Bound)
    }
}

fn declare(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    let mut hold = false;
    while !cursor.at("for") {
        hold |= cursor.at_words(&["with", "hold"]);
        cursor.advance()?;
    }
    cursor.take("for");
    let mut draft = plan_one(&text.from(cursor));
    draft.verb = "DECLARE CURSOR";
    draft.exact = true;
    let over_several = matches!(draft.access, Access::Keyed(_) | Access::Gather(_));
    if hold || !over_several {
        draft.access = single(text.context, draft.access, "a cursor", HINT);
    }
    if hold {
        draft.effect = Effect::Pin(effects::HOLD);
    }
    Some(draft)
}

/// The same access, where only one shard may answer.
pub(super) fn single(context: Context<'_>, access: Access, what: &str, hint: &str) -> Access {
    match access {
        Access::Generate(_) => Access::Refuse(Arc::new(refuse::ids_within())),
        Access::Broadcast { .. } | Access::CopySplit(_) if context.is_one_shard() => Access::Home,
        Access::Keyed(keyed) => {
            Access::Keyed(Arc::new(keyed.on_one_shard(refuse::kind(what, hint))))
        }
        Access::Broadcast { .. } | Access::CopySplit(_) | Access::Gather(_) => {
            Access::Refuse(Arc::new(refuse::kind(what, hint)))
        }
        Access::Session => Access::Home,
        Access::Anywhere
        | Access::Bound
        | Access::Home
        | Access::AnyShard
        | Access::Shard(_)
        | Access::Refuse(_) => access,
    }
}
