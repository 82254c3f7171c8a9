//! The tags of one execution: what a kept answer depends on, and what a write touches.

use std::fmt;
use std::sync::Arc;

use super::{Reading, Touched, Writing};
use crate::placement::topology::Topology;
use crate::planner::literals;
use crate::planner::plan::Values;
use crate::planner::route;

/// Keys of a read that it depends on one by one; with more it depends on the table.
const READ_KEYS_MAX: usize = 16;
/// Keys that a write touches one by one; with more it touches the table.
const WRITTEN_KEYS_MAX: usize = 64;

/// Something that answers depend on and writes touch.
///
/// Every answer depends on `All`. One of rows of known keys depends on `Unknown` of its tables and on each
/// `Key`; any other on `Any`. A write of known keys touches `Any` and each `Key`; any other `Any` and
/// `Unknown`. So a read and a write that have a row in common have a tag in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// All that is kept for the database: the schema, privileges, and writes of which nothing is known.
    All,
    /// Any row of a table.
    Any(Arc<str>),
    /// Rows of a table whose keys are not known.
    Unknown(Arc<str>),
    /// The rows of a table with one key.
    Key(Arc<str>, Box<str>),
    /// All that was read for a tenant; nothing but a purge touches it.
    Tenant(Box<str>),
}

/// As Redis has it behind the deployment and the database.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::All => f.write_str("e"),
            Tag::Any(table) => write!(f, "q:{table}"),
            Tag::Unknown(table) => write!(f, "a:{table}"),
            Tag::Key(table, key) => write!(f, "t:{table}:{key}"),
            Tag::Tenant(tenant) => write!(f, "n:{tenant}"),
        }
    }
}

/// What an answer depends on.
pub fn of_read(reading: &Reading, topology: &Topology, values: &dyn Values) -> Vec<Tag> {
    let mut tags = vec![Tag::All];
    for touched in &reading.tables {
        match keys(touched, topology, values, READ_KEYS_MAX) {
            Some(keys) => {
                push(&mut tags, Tag::Unknown(Arc::clone(&touched.table)));
                for key in keys {
                    push(&mut tags, Tag::Key(Arc::clone(&touched.table), key));
                }
            }
            None => push(&mut tags, Tag::Any(Arc::clone(&touched.table))),
        }
    }
    tags
}

/// What a write touches.
pub fn of_write(writing: &Writing, topology: &Topology, values: &dyn Values) -> Vec<Tag> {
    let Some(tables) = &writing.tables else {
        return vec![Tag::All];
    };
    let mut tags = Vec::new();
    for touched in tables {
        push(&mut tags, Tag::Any(Arc::clone(&touched.table)));
        match keys(touched, topology, values, WRITTEN_KEYS_MAX) {
            Some(keys) => {
                for key in keys {
                    push(&mut tags, Tag::Key(Arc::clone(&touched.table), key));
                }
            }
            None => push(&mut tags, Tag::Unknown(Arc::clone(&touched.table))),
        }
    }
    tags
}

fn push(tags: &mut Vec<Tag>, tag: Tag) {
    if !tags.contains(&tag) {
        tags.push(tag);
    }
}

/// The keys as texts that are equal where the keys are; `None` where one is not known, or there are more.
fn keys(
    touched: &Touched,
    topology: &Topology,
    values: &dyn Values,
    most: usize,
) -> Option<Vec<Box<str>>> {
    let keys = touched.keys.as_deref()?;
    let distribution = topology.distribution(touched.distribution)?;
    let mut texts = Vec::new();
    for key in keys.iter().take(most.saturating_add(1)) {
        route::each_key(key, distribution, values, &mut |key| {
            let parts: Vec<String> = key.iter().map(ToString::to_string).collect();
            texts.push(parts.join(",").into_boxed_str());
        })
        .ok()?;
        if texts.len() > most {
            return None;
        }
    }
    (!texts.is_empty()).then_some(texts)
}

/// Whether a value of an execution may mean the moment it is read, as `'now'` or `'tomorrow'` do: its answer
/// is not kept.
pub fn means_moment(value: &[u8]) -> bool {
    literals::is_moment(value)
}
