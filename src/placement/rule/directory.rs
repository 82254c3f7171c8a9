//! `directory: {table: …}`: key → shard in a table. Read and checked, but not yet served.

use super::{Builder, Rule};
use crate::config::Place;
use crate::error::Fault;

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Result<Box<dyn Rule>, Fault>> {
    let Place::Directory { table } = place else {
        return None;
    };
    Some(Err(builder.fault(
        format!("the directory \"{table}\" cannot be served yet"),
        "Directories come with a later release. Place these keys by list or by pins.",
    )))
}
