//! `directory: {table: …}`: a table on the home shard says for each key which shard it is on.
//!
//! Here is what is known of it. Whoever can read the table fills it in; a key that is not known is to be
//! asked for ([`KeyError::Unlisted`]) before it is said that nothing places it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{Builder, Built, Rule};
use crate::config::Place;
use crate::error::{Fault, SqlState};
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError, KeyType};

/// What a directory says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed {
    Shard(ShardId),
    /// A row names a shard that does not exist.
    Unknown(Arc<str>),
    /// There is no row.
    Nowhere,
}

/// A directory, as far as it is known.
#[derive(Debug)]
pub struct Directory {
    /// The table, as the configuration names it.
    pub table: String,
    pub distribution: String,
    pub key: Vec<KeyType>,
    shards: Vec<String>,
    known: RwLock<HashMap<Vec<Key<'static>>, Listed>>,
    /// What the table was marked with when it was read.
    mark: RwLock<Option<String>>,
}

/// A key that a directory is not known to list, or not to.
#[derive(Clone, Debug)]
pub struct Unlisted {
    pub directory: Arc<Directory>,
    pub key: Vec<Key<'static>>,
}

impl Unlisted {
    pub fn new(directory: &Arc<Directory>, key: &[Key<'_>]) -> Unlisted {
        Unlisted {
            directory: Arc::clone(directory),
            key: key.iter().map(|key| key.clone().into_owned()).collect(),
        }
    }

    fn parts(&self) -> (&str, &str, &[Key<'static>]) {
        let Directory {
            distribution,
            table,
            ..
        } = &*self.directory;
        (distribution, table, &self.key)
    }
}

impl PartialEq for Unlisted {
    fn eq(&self, other: &Unlisted) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Unlisted {}

impl PartialOrd for Unlisted {
    fn partial_cmp(&self, other: &Unlisted) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unlisted {
    fn cmp(&self, other: &Unlisted) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl Directory {
    /// What a row says that names a shard so.
    pub fn listed(&self, shard: &str) -> Listed {
        let at = self.shards.iter().position(|name| name == shard);
        match at.and_then(|at| u16::try_from(at).ok()) {
            Some(at) => Listed::Shard(ShardId(at)),
            None => Listed::Unknown(shard.into()),
        }
    }

    /// Whether it was read when the table was marked so.
    pub fn is_marked(&self, mark: &str) -> bool {
        let own = self.mark.read().unwrap_or_else(PoisonError::into_inner);
        own.as_deref() == Some(mark)
    }

    /// Makes these rows all that is known, read when the table was marked so.
    pub fn replace(&self, rows: HashMap<Vec<Key<'static>>, Listed>, mark: String) {
        *self.mark.write().unwrap_or_else(PoisonError::into_inner) = Some(mark);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// Adds a row, unless so many are known.
    pub fn add(&self, key: Vec<Key<'static>>, listed: Listed, limit: usize) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if listed == Listed::Nowhere {
            known.remove(&key);
        } else if known.len() < limit || known.contains_key(&key) {
            known.insert(key, listed);
        }
    }

    /// How many rows are known.
    pub fn len(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The shard that what is listed for a key means.
    ///
    /// # Errors
    /// `Uncovered`: there is no row for it, or one that names no shard.
    pub fn shard(&self, key: &[Key<'_>], listed: &Listed) -> Result<ShardId, KeyError> {
        let fault = match listed {
            Listed::Shard(shard) => return Ok(*shard),
            Listed::Unknown(shard) => Fault::error(
                SqlState::CONFIG,
                format!("a row of directory \"{}\" names no shard", self.table),
            )
            .detail(format!(
                "For key \"{}\" it names shard \"{shard}\".",
                words(key)
            ))
            .hint(format!(
                "Name one of these in the row: {}.",
                self.shards.join(", ")
            )),
            Listed::Nowhere => Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                "no placement covers this key",
            )
            .detail(format!(
                "Directory \"{}\" has no row for key \"{}\".",
                self.table,
                words(key)
            ))
            .hint("Insert a row that names the key's shard, and commit it."),
        };
        Err(KeyError::Uncovered(Box::new(fault)))
    }
}

fn words(key: &[Key<'_>]) -> String {
    let words: Vec<String> = key.iter().map(ToString::to_string).collect();
    words.join(", ")
}

#[derive(Debug)]
struct ByDirectory {
    directory: Arc<Directory>,
    /// Its place among those of the distribution.
    index: usize,
}

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Directory { table } = place else {
        return None;
    };
    let directory = Arc::new(Directory {
        table: table.clone(),
        distribution: builder.distribution.to_owned(),
        key: builder.key.to_vec(),
        shards: builder.shards.to_vec(),
        known: RwLock::default(),
        mark: RwLock::default(),
    });
    let mut all = builder.directories.borrow_mut();
    let index = all.len();
    all.push(Arc::clone(&directory));
    Some(Ok(Box::new(ByDirectory { directory, index })))
}

impl Rule for ByDirectory {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let known = &self.directory.known;
        let known = known.read().unwrap_or_else(PoisonError::into_inner);
        match known.get(key) {
            Some(listed) => self.directory.shard(key, listed),
            None => Err(KeyError::Unlisted(self.index)),
        }
    }

    fn shards(&self, into: &mut ShardSet) {
        // A row may name any.
        let count = u16::try_from(self.directory.shards.len());
        into.union(&ShardSet::all(count.unwrap_or(u16::MAX)));
    }
}
