//! BEGIN to ROLLBACK, savepoints and two-phase commit.

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::sql::cursor::Cursor;

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
        "begin" => Draft::session("BEGIN", Effect::Begin),
        "start" => {
            cursor.take("transaction").then_some(())?;
            Draft::session("START TRANSACTION", Effect::Begin)
        }
        "prepare" => {
            cursor.take("transaction").then_some(())?;
            two_phase("PREPARE TRANSACTION")
        }
        "commit" if cursor.take("prepared") => two_phase("COMMIT PREPARED"),
        "rollback" if cursor.take("prepared") => two_phase("ROLLBACK PREPARED"),
        "commit" | "end" => Draft::session(
            "COMMIT",
            Effect::Commit {
                chain: chain(cursor),
            },
        ),
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
    let chain = chain(cursor);
    if !cursor.take("work") {
        cursor.take("transaction");
    }
    if cursor.take("to") {
        savepoint(&mut cursor);
        return Some(Draft::session(
            "ROLLBACK",
            Effect::RollbackTo(cursor.name()?),
        ));
    }
    Some(Draft::session("ROLLBACK", Effect::Rollback { chain }))
}

/// SAVEPOINT is a noise word here, unless it is the name itself.
fn savepoint(cursor: &mut Cursor<'_>) {
    if cursor.tokens().len() > 1 {
        cursor.take("savepoint");
    }
}

fn chain(mut cursor: Cursor<'_>) -> bool {
    if !cursor.take("work") {
        cursor.take("transaction");
    }
    cursor.take_words(&["and", "chain"])
}
