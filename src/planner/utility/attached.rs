//! DDL that gives a table code of its own: what that touches must be where the table's rows are.

use crate::config::Constraints;
use crate::error::Fault;
use crate::placement::code::Code;
use crate::planner::calls;
use crate::planner::refuse;
use crate::planner::script::Text;
use crate::planner::stored;
use crate::sql::cursor::{Cursor, Name};

/// Why CREATE TRIGGER, RULE or POLICY must not run; `cursor` stands behind that word.
pub(super) fn made(text: &Text<'_>, word: &str, mut cursor: Cursor<'_>) -> Option<Fault> {
    let before_table = if word == "rule" { "to" } else { "on" };
    loop {
        cursor.peek()?;
        if cursor.take(before_table) {
            break;
        }
        cursor.advance();
    }
    let table = cursor.qualified()?;
    let catalog = text.context.catalog;
    let code = stored::of_text(catalog, text.bytes(), text.context.lexing);
    misfit(text, &table, &code)
}

/// Why CREATE TABLE, ALTER TABLE or CREATE INDEX must not run: for what its defaults, checks and
/// expressions call.
pub(super) fn called(text: &Text<'_>, table: &Name) -> Option<Fault> {
    if text.context.catalog.routines.is_empty() {
        return None;
    }
    let code = Code {
        unlike: false,
        sequences: false,
        ..stored::of_calls(text.context.catalog, text.bytes(), text.context.lexing)
    };
    misfit(text, table, &code)
}

fn misfit(text: &Text<'_>, table: &Name, code: &Code) -> Option<Fault> {
    let context = text.context;
    if context.topology.constraints() == Constraints::Allow || !context.topology.has_spread() {
        return None;
    }
    let why = calls::misfit(context, context.kind(table)?, code)?;
    Some(refuse::astray(&table.to_string(), &why))
}
