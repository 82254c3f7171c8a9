//! BEGIN to ROLLBACK, savepoints and two-phase commit.

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
    let draft = match first {
        "begin" => {
            noise(&mut cursor);
            are_modes(cursor).then_some(())?;
            Draft::session("BEGIN", Effect::Begin)
        }
        "start" => {
            cursor.take("transaction").then_some(())?;
            are_modes(cursor).then_some(())?;
            Draft::session("START TRANSACTION", Effect::Begin)
        }
        "prepare" => {
            cursor.take("transaction").then_some(())?;
            two_phase("PREPARE TRANSACTION")
        }
        "commit" if cursor.take("prepared") => two_phase("COMMIT PREPARED"),
        "rollback" if cursor.take("prepared") => two_phase("ROLLBACK PREPARED"),
        "commit" | "end" => {
            let chain = chain(cursor)?;
            Draft::session("COMMIT", Effect::Commit { chain })
        }
        "savepoint" => Draft::session("SAVEPOINT", Effect::Savepoint(cursor.name()?)),
        "release" => {
            savepoint(&mut cursor);
            Draft::session("RELEASE", Effect::Release(cursor.name()?))
        }
        _ => rollback(cursor)?,
    };
    Some(draft)
}

fn two_phase(verb: &'static str) -> Draft {
    Draft {
        writes: true,
        no_block: verb != "PREPARE TRANSACTION",
        ..Draft::server(verb, Effect::TwoPhase, Access::Bound)
    }
}

fn rollback(mut cursor: Cursor<'_>) -> Option<Draft> {
    let start = cursor;
    noise(&mut cursor);
    if cursor.take("to") {
        savepoint(&mut cursor);
        return Some(Draft::session(
            "ROLLBACK",
            Effect::RollbackTo(cursor.name()?),
        ));
    }
    let chain = chain(start)?;
    Some(Draft::session("ROLLBACK", Effect::Rollback { chain }))
}

/// SAVEPOINT is a noise word here, unless it is the name itself.
fn savepoint(cursor: &mut Cursor<'_>) {
    if cursor.tokens().len() > 1 {
        cursor.take("savepoint");
    }
}

fn noise(cursor: &mut Cursor<'_>) {
    if !cursor.take("work") {
        cursor.take("transaction");
    }
}

/// Whether the next block follows at once; `None` for what PostgreSQL does not know.
fn chain(mut cursor: Cursor<'_>) -> Option<bool> {
    noise(&mut cursor);
    let chain = cursor.take_words(&["and", "chain"]);
    if !chain {
        cursor.take_words(&["and", "no", "chain"]);
    }
    cursor.is_done().then_some(chain)
}

/// Whether what is left is a list of transaction modes (`transaction_mode_list` of `gram.y`). BEGIN is
/// answered before a server sees it, so that a wrong one must be found here.
fn are_modes(mut cursor: Cursor<'_>) -> bool {
    const MODES: &[&[&str]] = &[
        &["isolation", "level", "serializable"],
        &["isolation", "level", "repeatable", "read"],
        &["isolation", "level", "read", "committed"],
        &["isolation", "level", "read", "uncommitted"],
        &["read", "only"],
        &["read", "write"],
        &["deferrable"],
        &["not", "deferrable"],
    ];
    let mut is_first = true;
    while !cursor.is_done() {
        if !is_first {
            cursor.take_kind(Kind::Comma);
        }
        if !MODES.iter().any(|mode| cursor.take_words(mode)) {
            return false;
        }
        is_first = false;
    }
    true
}
