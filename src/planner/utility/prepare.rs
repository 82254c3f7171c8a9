//! SQL's own PREPARE, EXECUTE and DEALLOCATE.

use std::sync::Arc;

use crate::error::Fault;
use crate::planner::calls;
use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect, Given};
use crate::planner::refuse;
use crate::planner::script::{Text, plan_one};
use crate::planner::stored;
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind;
use crate::types::oid;

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
    let arguments = pieces(cursor).map(given).collect();
    cursor.skip_group();
    cursor.is_done().then_some(())?;
    let effect = Effect::Execute {
        name,
        at,
        arguments,
    };
    Some(Draft {
        writes: true,
        has_tables: true,
        ..Draft::server(verb, effect, Access::Bound)
    })
}

/// What commas part in the parentheses that come next, if any.
fn pieces(mut cursor: Cursor<'_>) -> impl Iterator<Item = Cursor<'_>> {
    let opens = cursor.take_kind(Kind::OpenParen);
    let mut more = opens && cursor.kind() != Some(Kind::CloseParen);
    std::iter::from_fn(move || {
        if !more {
            return None;
        }
        let all = cursor;
        while !matches!(cursor.kind(), None | Some(Kind::Comma | Kind::CloseParen)) {
            if !cursor.skip_group() {
                cursor.advance();
            }
        }
        let length = all.tokens().len() - cursor.tokens().len();
        more = cursor.take_kind(Kind::Comma);
        let piece = all.tokens().get(..length).unwrap_or_default();
        Some(Cursor::new(all.text(), piece))
    })
}

/// An argument of EXECUTE. A cast of it would make another value of it before the parameter's type does.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is no constant is worked out by the server"
)]
fn given(mut cursor: Cursor<'_>) -> Given {
    let is_negative = cursor.kind() == Some(Kind::Operator) && cursor.bytes() == b"-";
    if is_negative {
        cursor.advance();
    }
    let [token] = cursor.tokens() else {
        return Given::Unknown;
    };
    let text = cursor.bytes();
    let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    match token.kind {
        Kind::Integer => match number() {
            Some(number) if is_negative => Given::Constant(Some((-number).to_string())),
            Some(number) => Given::Constant(Some(number.to_string())),
            None => Given::Unknown,
        },
        _ if is_negative => Given::Unknown,
        Kind::Word if text.eq_ignore_ascii_case(b"null") => Given::Constant(None),
        Kind::Text | Kind::Escaped | Kind::Dollar => {
            let value = cursor.string();
            value.map_or(Given::Unknown, |value| Given::Constant(Some(value)))
        }
        Kind::Parameter => text
            .get(1..)
            .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok())
            .and_then(|number| number.checked_sub(1))
            .map_or(Given::Unknown, Given::Parameter),
        _ => Given::Unknown,
    }
}

/// What would follow the name in a Parse of the statement from `query` on, if the types of its parameters
/// are known here.
fn parse_body(types: Cursor<'_>, query: &[u8]) -> Option<Arc<[u8]>> {
    let types: Option<Vec<u32>> = pieces(types).map(type_oid).collect();
    let types = types?;
    let mut body = query.to_vec();
    body.push(0);
    body.extend_from_slice(&u16::try_from(types.len()).ok()?.to_be_bytes());
    for oid in types {
        body.extend_from_slice(&oid.to_be_bytes());
    }
    Some(body.into())
}

/// The oid of a built-in type by its name; `None` of any other.
fn type_oid(mut cursor: Cursor<'_>) -> Option<u32> {
    const TYPES: [(&[&str], u32); 23] = [
        (&["bigint"], oid::INT8),
        (&["int8"], oid::INT8),
        (&["int"], oid::INT4),
        (&["integer"], oid::INT4),
        (&["int4"], oid::INT4),
        (&["smallint"], oid::INT2),
        (&["int2"], oid::INT2),
        (&["text"], oid::TEXT),
        (&["varchar"], oid::VARCHAR),
        (&["character", "varying"], oid::VARCHAR),
        (&["uuid"], oid::UUID),
        (&["date"], oid::DATE),
        (&["timestamp"], oid::TIMESTAMP),
        (&["timestamp", "without", "time", "zone"], oid::TIMESTAMP),
        (&["timestamptz"], oid::TIMESTAMPTZ),
        (&["timestamp", "with", "time", "zone"], oid::TIMESTAMPTZ),
        (&["numeric"], oid::NUMERIC),
        (&["boolean"], oid::BOOL),
        (&["bool"], oid::BOOL),
        (&["bytea"], oid::BYTEA),
        (&["real"], oid::FLOAT4),
        (&["float8"], oid::FLOAT8),
        (&["double", "precision"], oid::FLOAT8),
    ];
    let mut words = Vec::new();
    while cursor.kind() == Some(Kind::Word) {
        words.push(cursor.name()?);
    }
    if !cursor.is_done() {
        return None;
    }
    let found = TYPES.iter().find(|(names, _)| words == *names);
    found.map(|(_, oid)| *oid)
}

fn prepare(text: &Text<'_>, mut cursor: Cursor<'_>) -> Option<Draft> {
    let name = cursor.name()?;
    let types = cursor;
    cursor.skip_group();
    cursor.take("as").then_some(())?;
    let inner = plan_one(&text.from(cursor));
    if let Access::Keyed(_) | Access::Gather(_) = inner.access
        && !text.context.is_one_shard()
        && inner.effect == Effect::None
        && !inner.block_only
        && let Some(body) = parse_body(types, text.from(cursor).bytes())
    {
        return Some(Draft::session("PREPARE", Effect::Keep { name, body }));
    }
    let access = match inner.access {
        Access::Generate(_) => return Some(Draft::refused("PREPARE", refuse::ids_within())),
        _ if text.context.is_one_shard() => Access::Home,
        Access::Session | Access::Anywhere | Access::Home | Access::AnyShard | Access::Bound => {
            Access::Home
        }
        Access::Shard(shard) => Access::Shard(shard),
        // It makes nothing, so it has no effect.
        Access::Refuse(fault) => return Some(Draft::refused("PREPARE", Fault::clone(&fault))),
        Access::Keyed(_) | Access::Broadcast { .. } | Access::CopySplit(_) | Access::Gather(_) => {
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
