//! The rules that place a key: one file each, one line each in [`RULES`].
//!
//! A rule holds, instead of shards, other rules: placements nest. A rule that chooses by the row
//! hash or by a remainder must not stand inside one of its own kind, since the inner one would
//! see only keys for which its answer is already decided.

mod directory;
mod jump;
mod list;
mod modulo;
mod postgres;
mod range;
mod shard;

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;

pub use directory::{Directory, Listed, Unlisted};

use super::{ShardId, ShardSet};
use crate::config::Place;
use crate::error::{Fault, SqlState};
use crate::types::key::{Key, KeyError, KeyType};

/// One placement, with the shards or placements it chooses from.
pub trait Rule: Debug + Send + Sync {
    /// The shard of a key, which has the columns and types the rule was built for.
    ///
    /// # Errors
    /// `Uncovered` where the rule places this key nowhere.
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError>;

    /// Adds every shard that some key may be placed on.
    fn shards(&self, into: &mut ShardSet);

    /// The shard of every key of a bucket; `None` where the bucket alone does not say.
    fn place_bucket(&self, _bucket: u64) -> Option<ShardId> {
        None
    }

    /// Adds every shard that some key of one column within these ends may be placed on.
    fn between(&self, _span: &Span<'_>, into: &mut ShardSet) {
        self.shards(into);
    }
}

/// The values between two ends, each with whether it is within; `None` for no end.
#[derive(Clone, Debug, Default)]
pub struct Span<'a> {
    pub low: Option<(Key<'a>, bool)>,
    pub high: Option<(Key<'a>, bool)>,
}

impl<'a> Span<'a> {
    /// Moves the lower end up to this one, if it is above.
    pub fn above(&mut self, end: Key<'a>, inclusive: bool) {
        let is_narrower = match &self.low {
            None => true,
            Some((low, within)) => end > *low || (end == *low && *within && !inclusive),
        };
        if is_narrower {
            self.low = Some((end, inclusive));
        }
    }

    /// Moves the upper end down to this one, if it is below.
    pub fn below(&mut self, end: Key<'a>, inclusive: bool) {
        let is_narrower = match &self.high {
            None => true,
            Some((high, within)) => end < *high || (end == *high && *within && !inclusive),
        };
        if is_narrower {
            self.high = Some((end, inclusive));
        }
    }

    /// Whether a value is within.
    pub fn has(&self, key: &Key<'_>) -> bool {
        let above = match &self.low {
            None => true,
            Some((low, inclusive)) => key > low || (*inclusive && key == low),
        };
        above
            && match &self.high {
                None => true,
                Some((high, inclusive)) => key < high || (*inclusive && key == high),
            }
    }

    /// Its values where they are integers and at most `max`.
    pub fn integers(&self, max: u64) -> Option<std::ops::RangeInclusive<i64>> {
        let (Some((Key::Int(low), within)), Some((Key::Int(high), up_to))) =
            (&self.low, &self.high)
        else {
            return None;
        };
        let low = if *within { *low } else { low.checked_add(1)? };
        let high = if *up_to { *high } else { high.checked_sub(1)? };
        (low > high || low.abs_diff(high) < max).then_some(low..=high)
    }
}

/// A rule made from the configuration, or the configuration's fault.
type Built = Result<Box<dyn Rule>, Fault>;

/// How a rule is made from the configuration.
#[derive(Debug)]
pub struct Entry {
    /// As the configuration calls it.
    pub name: &'static str,
    /// `None` when this part of the configuration is another rule's.
    build: fn(&Place, &Builder<'_>) -> Option<Built>,
}

/// Every rule there is.
pub const RULES: &[Entry] = &[
    Entry {
        name: "shard",
        build: shard::build,
    },
    Entry {
        name: "jump",
        build: jump::build,
    },
    Entry {
        name: "modulo",
        build: modulo::build,
    },
    Entry {
        name: "postgres",
        build: postgres::build,
    },
    Entry {
        name: "range",
        build: range::build,
    },
    Entry {
        name: "list",
        build: list::build,
    },
    Entry {
        name: "directory",
        build: directory::build,
    },
];

/// What building a rule needs to know.
#[derive(Clone, Debug)]
pub struct Builder<'a> {
    distribution: &'a str,
    key: &'a [KeyType],
    /// The shards' names, in order.
    shards: &'a [String],
    /// The rules that stand around the one being built.
    around: Vec<&'static str>,
    /// The directories that were built.
    directories: &'a RefCell<Vec<Arc<Directory>>>,
}

impl<'a> Builder<'a> {
    /// Builds the placements of one distribution.
    pub fn new(
        distribution: &'a str,
        key: &'a [KeyType],
        shards: &'a [String],
        directories: &'a RefCell<Vec<Arc<Directory>>>,
    ) -> Builder<'a> {
        Builder {
            distribution,
            key,
            shards,
            around: Vec::new(),
            directories,
        }
    }

    /// Builds the rule of `place`.
    ///
    /// # Errors
    /// A fault of the configuration (F0000) that names the distribution.
    pub fn build(&self, place: &Place) -> Result<Box<dyn Rule>, Fault> {
        for entry in RULES {
            let mut inner = self.clone();
            inner.around.push(entry.name);
            if let Some(built) = (entry.build)(place, &inner) {
                return built;
            }
        }
        Err(self.fault(
            "no rule places this",
            "Use one of the placements of the documentation.",
        ))
    }

    /// Builds rules that keys are spread over by a number, each at least one.
    fn build_all(&self, places: &[Place]) -> Result<Vec<Box<dyn Rule>>, Fault> {
        if let Some((own, outer)) = self.around.split_last()
            && outer.contains(own)
        {
            return Err(self.fault(
                format!("\"{own}\" stands inside another \"{own}\""),
                "The inner one would leave shards empty. Write one list of all the shards.",
            ));
        }
        if places.is_empty() {
            return Err(self.fault("a placement has no shards", "Name at least one shard."));
        }
        places.iter().map(|place| self.build(place)).collect()
    }

    /// The one column of the key, for rules that place by its value.
    fn single_column(&self) -> Result<KeyType, Fault> {
        match self.key {
            [kind] => Ok(*kind),
            _ => Err(self.fault(
                "a placement by value needs a key of one column",
                "Place a key of several columns by jump or postgres.",
            )),
        }
    }

    /// A value of the key's column from the configuration's text.
    fn value(&self, kind: KeyType, text: &str) -> Result<Key<'static>, Fault> {
        Key::from_text(kind, text.as_bytes())
            .map(Key::into_owned)
            .map_err(|error| {
                self.fault(
                    format!("\"{text}\" is no {} the placement can hold", kind.name()),
                    "Write dates and times as 2026-01-31 and 2026-01-31 12:00:00, with an offset where the type has a time zone.",
                )
                .detail(format!("{error}."))
            })
    }

    fn fault(&self, message: impl Into<String>, hint: &str) -> Fault {
        let message: String = message.into();
        Fault::error(
            SqlState::CONFIG,
            format!("distribution \"{}\": {message}", self.distribution),
        )
        .hint(hint)
    }
}

/// The error for a key that a rule places nowhere.
fn uncovered(key: &[Key<'_>], rule: &str) -> KeyError {
    let values: Vec<String> = key.iter().map(ToString::to_string).collect();
    KeyError::Uncovered(Box::new(
        Fault::error(SqlState::INVALID_PARAMETER_VALUE, "no placement covers this key")
            .detail(format!("The key \"{}\" is in no part of the {rule}.", values.join(", ")))
            .hint("Add a placement for it to the distribution, such as a last range without \"to\" or an \"else\"."),
    ))
}

/// The rule at `index`, which is below the length the rule itself divided by.
fn chosen(
    rules: &[Box<dyn Rule>],
    index: u64,
    key: &[Key<'_>],
    rule: &str,
) -> Result<ShardId, KeyError> {
    usize::try_from(index)
        .ok()
        .and_then(|index| rules.get(index))
        .ok_or_else(|| uncovered(key, rule))?
        .place(key)
}

/// The number of rules, for dividing by it.
fn count(rules: &[Box<dyn Rule>]) -> u64 {
    u64::try_from(rules.len()).unwrap_or(u64::MAX).max(1)
}
