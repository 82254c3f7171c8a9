//! BEGIN to ROLLBACK, savepoints and two-phase commit.
//!
//! Read to the last word: one that PostgreSQL would not accept has no effect here, and goes to the
//! server for its error.

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind;

/// Plans a transaction statement; `None` for another kind.
pub(super) fn plan(mut cursor: Cursor<'_>) -> Option<Draft> {
    let first = cursor.take_any(&[
        "begin",
        "start",
        "commit",
        "end",
        "rollback",
        "abort",
        "savepoint",
        "release",
        "prepare",
    ])?;
    if first == "prepare" {
        // A statement may be prepared under this name.
        cursor.take("transaction").then_some(())?;
        return gid(cursor).then(|| two_phase("PREPARE TRANSACTION"));
    }
    Some(whole(first, cursor).unwrap_or_else(Draft::unread))
}

/// The plan of a statement that begins with this word, if all of it is understood.
fn whole(first: &str, mut cursor: Cursor<'_>) -> Option<Draft> {
    match first {
        "begin" => {
            noise(&mut cursor);
            modes(cursor).then(|| Draft::session("BEGIN", Effect::Begin))
        }
        "start" => (cursor.take("transaction") && modes(cursor))
            .then(|| Draft::session("START TRANSACTION", Effect::Begin)),
        "commit" if cursor.at("prepared") => {
            cursor.advance();
            gid(cursor).then(|| two_phase("COMMIT PREPARED"))
        }
        "rollback" if cursor.at("prepared") => {
            cursor.advance();
            gid(cursor).then(|| two_phase("ROLLBACK PREPARED"))
        }
        "commit" | "end" => {
            noise(&mut cursor);
            let chain = chain(cursor)?;
            Some(Draft::session("COMMIT", Effect::Commit { chain }))
        }
        "savepoint" => Some(Draft::session(
            "SAVEPOINT",
            Effect::Savepoint(last_name(cursor)?),
        )),
        "release" => Some(Draft::session(
            "RELEASE",
            Effect::Release(savepoint(cursor)?),
        )),
        _ => {
            noise(&mut cursor);
            if first == "rollback" && cursor.take("to") {
                let name = savepoint(cursor)?;
                return Some(Draft::session("ROLLBACK", Effect::RollbackTo(name)));
            }
            let chain = chain(cursor)?;
            Some(Draft::session("ROLLBACK", Effect::Rollback { chain }))
        }
    }
}

fn two_phase(verb: &'static str) -> Draft {
    Draft {
        writes: true,
        no_block: verb != "PREPARE TRANSACTION",
        ..Draft::server(verb, Effect::TwoPhase, Access::Bound)
    }
}

/// WORK and TRANSACTION mean nothing.
fn noise(cursor: &mut Cursor<'_>) {
    if !cursor.take("work") {
        cursor.take("transaction");
    }
}

const MODES: [&[&str]; 8] = [
    &["isolation", "level", "serializable"],
    &["isolation", "level", "repeatable", "read"],
    &["isolation", "level", "read", "committed"],
    &["isolation", "level", "read", "uncommitted"],
    &["read", "only"],
    &["read", "write"],
    &["deferrable"],
    &["not", "deferrable"],
];

/// Whether nothing but transaction modes is left, commas between them or not.
pub(super) fn modes(mut cursor: Cursor<'_>) -> bool {
    if cursor.is_done() {
        return true;
    }
    loop {
        if !MODES.iter().any(|mode| cursor.take_words(mode)) {
            return false;
        }
        if cursor.is_done() {
            return true;
        }
        cursor.take_kind(Kind::Comma);
    }
}

/// `AND [NO] CHAIN`, or the end: whether it chains.
fn chain(mut cursor: Cursor<'_>) -> Option<bool> {
    let chain = cursor.take_words(&["and", "chain"]);
    if !chain {
        cursor.take_words(&["and", "no", "chain"]);
    }
    cursor.is_done().then_some(chain)
}

/// A savepoint's name, the last of the statement. SAVEPOINT is a noise word before it, unless it is
/// the name itself.
fn savepoint(mut cursor: Cursor<'_>) -> Option<String> {
    if cursor.tokens().len() > 1 {
        cursor.take("savepoint");
    }
    last_name(cursor)
}

fn last_name(mut cursor: Cursor<'_>) -> Option<String> {
    cursor.name().filter(|_| cursor.is_done())
}

/// Whether a string is left and nothing else.
fn gid(mut cursor: Cursor<'_>) -> bool {
    let string = matches!(
        cursor.kind(),
        Some(Kind::Text | Kind::TextPieces | Kind::Escaped | Kind::Dollar | Kind::UnicodeText)
    );
    cursor.advance();
    string && cursor.is_done()
}
