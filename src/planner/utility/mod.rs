//! Statements that are no data statements, by their own words.

mod alter;
mod attached;
mod code;
mod constraints;
mod copy;
pub(super) mod cursors;
mod ddl;
pub(super) mod explain;
mod prepare;
mod setting;
mod transaction;

pub(in crate::planner) use copy::copied;

use crate::planner::draft::Draft;
use crate::planner::plan::{Access, Effect};
use crate::planner::script::Text;

/// Plans a statement by its first word. What PostgreSQL has no statement for goes home, where the
/// server says so.
pub(super) fn plan(text: &Text<'_>) -> Draft {
    let cursor = text.cursor;
    transaction::plan(cursor)
        .or_else(|| setting::plan(cursor))
        .or_else(|| prepare::plan(text))
        .or_else(|| cursors::plan(text))
        .or_else(|| copy::plan(text))
        .or_else(|| explain::plan(text))
        .or_else(|| code::plan(text))
        .or_else(|| ddl::plan(text))
        .unwrap_or_else(|| Draft::writing("", Effect::None, Access::Home))
}
