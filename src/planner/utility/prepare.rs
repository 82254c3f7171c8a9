//! SQL's own PREPARE, EXECUTE and DEALLOCATE.

use crate::error::Fault;
use crate::planner::calls;
use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::planner::refuse;
use crate::planner::script::{Text, plan_one};
use crate::planner::stored;
use crate::sql::cursor::Cursor;

/// Plans one of them; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    match cursor.take_any(&["prepare", "execute", "deallocate"])? {
        "prepare" => prepare(text, cursor),
        "execute" => Some(match arguments(text) {
            Some(fault) => Draft::refused("EXECUTE", fault),
            None => execute(cursor, "EXECUTE").unwrap_or_else(Draft::unread),
        }),
        _ => Some(deallocate(cursor).unwrap_or_else(Draft::unread)),
    }
}

/// Why what the arguments call must not run, on whatever shard it is prepared.
fn arguments(text: &Text<'_>) -> Option<Fault> {
    let context = text.context;
    if context.catalog.routines.is_empty() || !context.topology.has_spread() {
        return None;
    }
    let code = stored::of_calls(context.catalog, text.bytes(), context.lexing);
    calls::reach(context, "an argument of EXECUTE", &code).err()
}

fn deallocate(mut cursor: Cursor<'_>) -> Option<Draft> {
    // PREPARE is a noise word, unless it is the name itself.
    if cursor.tokens().len() > 1 {
        cursor.take("prepare");
    }
    let (verb, name, at) = if cursor.take("all") {
        ("DEALLOCATE ALL", None, 0..0)
    } else {
        let at = cursor.peek()?.span();
        ("DEALLOCATE", Some(cursor.name()?), at)
    };
    cursor
        .is_done()
        .then(|| Draft::session(verb, Effect::Deallocate { name, at }))
}

/// EXECUTE, from its name on, if nothing but its arguments follows.
pub(super) fn execute(mut cursor: Cursor<'_>, verb: &'static str) -> Option<Draft> {
    let at = cursor.peek()?.span();
    let name = cursor.name()?;
    cursor.skip_group();
    cursor.is_done().then_some(())?;
    Some(Draft {
        writes: true,
        has_tables: true,
        ..Draft::server(verb, Effect::Execute { name, at }, Access::Bound)
    })
}

fn prepare(text: &Text<'_>, mut cursor: Cursor<'_>) -> Option<Draft> {
    let name = cursor.name()?;
    cursor.skip_group();
    cursor.take("as").then_some(())?;
    let inner = plan_one(&text.from(cursor));
    let access = match inner.access {
        Access::Generate(_) => return Some(Draft::refused("PREPARE", refuse::ids_within())),
        _ if text.context.is_one_shard() => Access::Home,
        Access::Session | Access::Anywhere | Access::Home | Access::AnyShard | Access::Bound => {
            Access::Home
        }
        Access::Shard(shard) => Access::Shard(shard),
        // It makes nothing, so it has no effect.
        Access::Refuse(fault) => return Some(Draft::refused("PREPARE", Fault::clone(&fault))),
        Access::Keyed(_) | Access::Broadcast { .. } | Access::CopySplit(_) => {
            return Some(Draft::refused(
                "PREPARE",
                refuse::kind(
                    "PREPARE of a statement on sharded or reference tables",
                    "Prepare it with the extended protocol, as drivers do, or send it directly.",
                ),
            ));
        }
    };
    Some(Draft {
        has_tables: inner.has_tables,
        ..Draft::server("PREPARE", Effect::Prepare { name }, access)
    })
}
