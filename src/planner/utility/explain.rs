//! EXPLAIN: where its statement would run, if that is one shard.

use std::sync::Arc;

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect, Explained};
use crate::planner::script::{Text, plan_one};
use crate::planner::utility::{cursors, prepare};
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind;

/// How a statement is explained.
#[derive(Clone, Copy, Debug)]
pub struct Explanation<'a> {
    /// It runs.
    pub analyze: bool,
    /// The answer is lines of text.
    pub is_text: bool,
    /// The statement.
    pub statement: Cursor<'a>,
}

/// What EXPLAIN says before its statement; `None` for another kind.
pub fn explanation(mut cursor: Cursor<'_>) -> Option<Explanation<'_>> {
    cursor.take("explain").then_some(())?;
    let mut analyze = false;
    let mut is_text = true;
    if cursor.kind() == Some(Kind::OpenParen) && has_options(cursor) {
        let mut options = cursor;
        analyze = takes_analyze(&mut options);
        is_text = is_in_text(cursor);
        cursor.skip_group();
    } else {
        analyze |= cursor.take("analyze") || cursor.take("analyse");
        cursor.take("verbose");
    }
    Some(Explanation {
        analyze,
        is_text,
        statement: cursor,
    })
}

/// Plans EXPLAIN; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    cursor.take("explain").then_some(())?;
    if let Some(rest) = takes_route(cursor) {
        let statement = plan_one(&text.from(rest)).into_statement(rest.rest());
        let statement = Arc::new(statement);
        return Some(Draft::session(
            "EXPLAIN",
            Effect::ExplainRoute { statement },
        ));
    }
    let Explanation {
        analyze,
        is_text,
        statement: mut cursor,
    } = explanation(text.cursor)?;
    if cursor.take("execute") {
        return prepare::execute(cursor, "EXPLAIN");
    }
    let mut draft = plan_one(&text.from(cursor));
    let tells_route = is_text && draft.effect == Effect::None && !text.context.is_one_shard();
    let explained = tells_route.then(|| draft.clone().into_statement(cursor.rest()));
    draft.verb = "EXPLAIN";
    draft.exact = true;
    draft.access = match draft.access {
        // Each copy is planned alike; only running it must happen everywhere.
        Access::Broadcast { .. } if !analyze => Access::Home,
        // The plans one after another, or why the statement itself would be refused.
        Access::Keyed(keyed) if is_text && !keyed.splits && !keyed.each => Access::Keyed(keyed),
        Access::Gather(gather) if is_text => Access::Gather(gather),
        access @ (Access::Session
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
        | Access::Refuse(_)) => cursors::single(
            text.context,
            access,
            "EXPLAIN",
            "Compare the key with a constant or a parameter, or ask EXPLAIN (ROUTE) where it would run.",
        ),
    };
    if !analyze {
        draft.writes = false;
        draft.no_block = false;
        draft.block_only = false;
        draft.effect = Effect::None;
    }
    if let Some(explained) = explained {
        draft.effect = Effect::Explain(Arc::new(Explained::Statement(explained)));
    }
    Some(draft)
}

/// What follows `(ROUTE)`, our own option: on unless it says otherwise, and alone.
fn takes_route(mut cursor: Cursor<'_>) -> Option<Cursor<'_>> {
    (cursor.take_kind(Kind::OpenParen) && cursor.take("route")).then_some(())?;
    cursor.take_any(&["on", "true"]);
    (cursor.take_kind(Kind::CloseParen) && !cursor.is_done()).then_some(cursor)
}

/// Whether the parentheses hold options rather than the query itself.
fn has_options(mut cursor: Cursor<'_>) -> bool {
    cursor.advance();
    !(cursor.at("select")
        || cursor.at("with")
        || cursor.at("values")
        || cursor.kind() == Some(Kind::OpenParen))
}

/// Whether no option names another format.
fn is_in_text(mut cursor: Cursor<'_>) -> bool {
    while cursor.advance().is_some() && cursor.kind() != Some(Kind::CloseParen) {
        if cursor.name().as_deref() == Some("format") {
            return cursor.bytes().eq_ignore_ascii_case(b"text");
        }
    }
    true
}

/// Whether ANALYZE is among the options, and on. Its name may stand in quotes.
fn takes_analyze(cursor: &mut Cursor<'_>) -> bool {
    let mut analyze = false;
    while cursor.advance().is_some() && cursor.kind() != Some(Kind::CloseParen) {
        if cursor.kind() == Some(Kind::UnicodeName) {
            return true;
        }
        if matches!(cursor.name().as_deref(), Some("analyze" | "analyse")) {
            let value = cursor.bytes().to_ascii_lowercase();
            analyze = !matches!(
                value.as_slice(),
                b"false" | b"off" | b"0" | b"'off'" | b"'false'" | b"\"off\"" | b"\"false\""
            );
            if cursor.kind() == Some(Kind::CloseParen) {
                break;
            }
        }
    }
    analyze
}
