//! DO, CALL and LOAD: code whose effects cannot be seen from here.

use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::plan::{Access, Effect};
use crate::planner::refuse;
use crate::planner::script::Text;
use crate::planner::tables::mentions_spread;

/// Plans one of them; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    let verb = match cursor.take_any(&["do", "call", "load", "checkpoint"])? {
        "do" => "DO",
        "call" => "CALL",
        "checkpoint" => {
            return Some(Draft::server(
                "CHECKPOINT",
                Effect::None,
                Access::Broadcast { transaction: false },
            ));
        }
        _ => {
            return Some(Draft::server(
                "LOAD",
                Effect::Pin(effects::LOADED),
                Access::Home,
            ));
        }
    };
    let body = text.bytes();
    if let Some(table) = mentions_spread(text.context, body) {
        return Some(Draft::refused(
            verb,
            refuse::kind(
                &format!("{verb} of code that names \"{table}\""),
                "Name the shard with SET pgherd.shard, or send its statements one by one.",
            ),
        ));
    }
    // What a procedure does is not in the text that calls it.
    let effect = if verb == "CALL" || effects::may_change_session(body) {
        Effect::Pin(effects::OPAQUE)
    } else {
        Effect::None
    };
    Some(Draft::writing(verb, effect, Access::Home))
}
