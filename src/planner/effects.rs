//! What the functions a statement calls do to the session.

use crate::planner::functions::{SessionEffect, session_effect};
use crate::planner::literals::Literals;
use crate::planner::plan::{Argument, Effect, Statement};
use crate::sql::cursor::Cursor;
use crate::sql::statement::{Block, Body, Call, Expr, Features, Item, Value};

/// Why a client keeps its connection.
pub(super) const TEMPORARY: &str = "temporary table";
pub(super) const LOCK: &str = "session advisory lock";
pub(super) const HOLD: &str = "cursor with hold";
pub(super) const CONFIG: &str = "set_config within an expression";
pub(super) const OPAQUE: &str = "code that may change the session";

pub(super) const LOADED: &str = "loaded library";
pub(super) const MADE: &str = "relation made by a query that changes the session";
/// A function that was called by its number.
pub const FUNCTION: &str = "function call of the protocol";

/// Whether a client that is pinned for this reason may have settings that only its server knows.
pub fn hides_settings(reason: &str) -> bool {
    [CONFIG, OPAQUE, MADE, FUNCTION].contains(&reason)
}

/// Whether it sets something that its text tells of, and no more than that.
pub fn sets_unseen(reason: &str) -> bool {
    reason == CONFIG
}

/// What it leaves in a transaction that keeps it from being prepared, if anything.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other effect is kept from being prepared"
)]
pub fn unpreparable(statement: &Statement) -> Option<&'static str> {
    match &statement.effect {
        Effect::Pin(TEMPORARY) => Some("a temporary table"),
        Effect::Pin(HOLD) => Some("a cursor WITH HOLD"),
        Effect::Listen { .. } | Effect::Unlisten { .. } => Some("LISTEN or UNLISTEN"),
        _ if statement.verb == "NOTIFY" => Some("NOTIFY"),
        _ => None,
    }
}

/// Whether names may mean something else after what a client is pinned for, or a setting may be another.
pub fn makes_unseen(reason: &str) -> bool {
    ![LOCK, HOLD].contains(&reason)
}

/// Whether a client is pinned for something that is DDL as well.
pub fn makes_relations(reason: &str) -> bool {
    reason == MADE
}

/// The effect of making a relation of what a query with this effect answers.
pub(super) fn of_making(query: &Effect) -> Effect {
    if *query == Effect::None {
        Effect::Ddl
    } else {
        Effect::Pin(MADE)
    }
}

/// The effect of a data statement by its calls.
pub(super) fn of_calls(block: &Block, calls: &[Call], literals: &Literals<'_>) -> Effect {
    let effects = || calls.iter().map(|call| session_effect(&call.name.name));
    if effects().any(|effect| effect == SessionEffect::SessionLock) {
        return Effect::Pin(LOCK);
    }
    if effects().any(|effect| effect == SessionEffect::Dynamic) {
        return Effect::Pin(OPAQUE);
    }
    if !effects().any(|effect| effect == SessionEffect::SetConfig) {
        return Effect::None;
    }
    let (Body::Select(select), [call]) = (&block.body, calls) else {
        return Effect::Pin(CONFIG);
    };
    let plain = is_plain_select(block);
    let alone = matches!(
        select.projection.as_slice(),
        [Item::Expr {
            expr: Expr::Call,
            ..
        }]
    );
    match call.args.as_slice() {
        [name, value, local] if plain && alone => Effect::SetConfig {
            name: argument(name, literals),
            value: argument(value, literals),
            local: argument(local, literals),
        },
        _ => Effect::Pin(CONFIG),
    }
}

/// The effect of SELECT lastval() or currval(sequence) and nothing else.
pub(super) fn of_last_id(block: &Block, calls: &[Call], literals: &Literals<'_>) -> Option<Effect> {
    let (Body::Select(select), [call]) = (&block.body, calls) else {
        return None;
    };
    let [
        Item::Expr {
            expr: Expr::Call,
            alias,
        },
    ] = select.projection.as_slice()
    else {
        return None;
    };
    let plain = is_plain_select(block)
        && call
            .name
            .schema
            .as_ref()
            .is_none_or(|schema| schema == "pg_catalog");
    let sequence = match (call.name.name.as_str(), call.args.as_slice()) {
        ("lastval", []) => None,
        ("currval", [sequence]) => Some(argument(sequence, literals)),
        _ => return None,
    };
    plain.then(|| Effect::LastId {
        sequence,
        column: alias.as_ref().unwrap_or(&call.name.name).clone(),
    })
}

/// Whether it is a SELECT of a list of values.
fn is_plain_select(block: &Block) -> bool {
    let Body::Select(select) = &block.body else {
        return false;
    };
    block.ctes.is_empty()
        && block.inner.subqueries.is_empty()
        && block.inner.features == Features::default()
        && select.from.is_empty()
        && select.filter.is_none()
        && select.into.is_none()
}

fn argument(expr: &Expr, literals: &Literals<'_>) -> Argument {
    match expr {
        Expr::Value(Value::Parameter(index)) => Argument::Parameter(*index),
        Expr::Cast(inner, _) => argument(inner, literals),
        Expr::Value(_)
        | Expr::Column(_)
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
        | Expr::Other => match literals.value(expr) {
            Some(value) => Argument::Literal(value),
            None => Argument::Unknown,
        },
    }
}

/// Whether `lastval` or `currval` is called, with no `nextval` before it.
pub(super) fn reads_sequence_state(calls: &[Call]) -> bool {
    calls
        .iter()
        .take_while(|call| call.name.name != "nextval")
        .any(|call| session_effect(&call.name.name) == SessionEffect::SequenceState)
}

/// The effect of a statement that is known by its tokens only, and whether it reads what `nextval`
/// left behind.
pub(super) fn of_tokens(cursor: Cursor<'_>) -> (Effect, bool) {
    let mut effect = Effect::None;
    let mut sequence = false;
    let mut rest = cursor;
    while rest.peek().is_some() {
        let Some(name) = rest.name() else {
            rest.advance();
            continue;
        };
        match session_effect(&name) {
            SessionEffect::SetConfig => effect = Effect::Pin(CONFIG),
            SessionEffect::SessionLock => effect = Effect::Pin(LOCK),
            SessionEffect::Dynamic => effect = Effect::Pin(OPAQUE),
            SessionEffect::SequenceState => sequence = true,
            SessionEffect::Release | SessionEffect::None => (),
        }
    }
    if cursor.at("select") || cursor.at("with") {
        let mut rest = cursor;
        while rest.advance().is_some() {
            if rest.take("into") && (rest.at("temp") || rest.at("temporary") || rest.at("local")) {
                effect = Effect::Pin(TEMPORARY);
            }
        }
    }
    (effect, sequence)
}

/// Whether the text of code mentions anything that changes a session.
pub(super) fn may_change_session(text: &[u8]) -> bool {
    const WORDS: [&str; 12] = [
        "set",
        "set_config",
        "reset",
        "listen",
        "unlisten",
        "prepare",
        "temp",
        "temporary",
        "lock",
        "pg_advisory_lock",
        "load",
        "execute",
    ];
    text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')
        .any(|word| {
            WORDS
                .iter()
                .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
                || starts_with(word, b"pg_try_advisory")
                || starts_with(word, b"pg_advisory")
        })
}

fn starts_with(word: &[u8], prefix: &[u8]) -> bool {
    word.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
