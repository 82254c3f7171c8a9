//! `directory: {table: …}`: key → shard in a table. Read and checked, but not yet served.

use super::{Builder, Built};
use crate::config::Place;

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Directory { table } = place else {
        return None;
    };
    Some(Err(builder.fault(
        format!("the directory \"{table}\" cannot be served yet"),
        "Directories come with a later release. Place these keys by list or by pins.",
    )))
}
