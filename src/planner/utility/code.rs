//! DO, CALL and LOAD: code that runs at home, unless it may touch rows of other shards.

use crate::error::Fault;
use crate::placement::code::Code;
use crate::planner::calls;
use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::plan::{Access, Effect};
use crate::planner::refuse;
use crate::planner::script::Text;
use crate::planner::stored;
use crate::planner::tables::mentions_absent;
use crate::planner::unlike::is_text;
use crate::sql::cursor::{Cursor, string_value, word_name};
use crate::sql::scan::Lexing;

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
    if let Some(fault) = refusal(text, verb, cursor) {
        return Some(Draft::refused(verb, fault));
    }
    // What a procedure does is not in the text that calls it.
    let effect = if verb == "CALL" || effects::may_change_session(body) {
        Effect::Pin(effects::OPAQUE)
    } else {
        Effect::None
    };
    Some(Draft::writing(verb, effect, Access::Home))
}

/// Why the code must not run at home.
fn refusal(text: &Text<'_>, verb: &str, cursor: Cursor<'_>) -> Option<Fault> {
    let context = text.context;
    if !context.topology.has_spread() {
        return None;
    }
    let what = match verb {
        "CALL" => "the procedure",
        _ => "the DO block",
    };
    if let Some(table) = mentions_absent(context, text.bytes()) {
        return Some(refuse::reaches(what, "table", &table));
    }
    let code = if verb == "CALL" {
        stored::of_text(context.catalog, text.bytes(), context.lexing)
    } else {
        block(text, cursor)
    };
    calls::reach(context, what, &code).err()
}

/// What the block of a DO may do.
fn block(text: &Text<'_>, mut cursor: Cursor<'_>) -> Code {
    let mut body = None;
    let mut language = None;
    while let Some(token) = cursor.peek() {
        let value = string_value(token, text.cursor.text());
        if cursor.take("language") {
            let token = cursor.advance();
            language = token.and_then(|token| {
                let bytes = text.cursor.text();
                word_name(token, bytes).or_else(|| string_value(token, bytes))
            });
            continue;
        }
        if value.is_none() && is_text(token.kind) {
            return opaque("is in a string that is not read here");
        }
        body = body.or(value);
        cursor.advance();
    }
    match (body, language.as_deref()) {
        (Some(body), None | Some("plpgsql" | "sql")) => {
            let catalog = text.context.catalog;
            let mut code = stored::of_text(catalog, body.as_bytes(), Lexing::default());
            code.opaque = code.opaque.map(|what| {
                // What it calls says who.
                if what.starts_with("function ") {
                    what
                } else {
                    format!("the block {what}")
                }
            });
            code
        }
        (Some(_), Some(_)) => opaque("is written in a language that is not read here"),
        // No block: the server says so.
        (None, _) => Code::default(),
    }
}

fn opaque(why: &str) -> Code {
    Code {
        opaque: Some(format!("the block {why}")),
        ..Code::default()
    }
}
