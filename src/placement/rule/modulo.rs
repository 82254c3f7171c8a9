//! `modulo: [a, b, c, d]`: the remainder of an integer key, as in `user_id % 4`.
//!
//! The remainder is never negative, so that −1 lies beside 3 of 4 and not nowhere.

use super::{Builder, Built, Rule, chosen};
use crate::config::Place;
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError};

#[derive(Debug)]
struct Modulo {
    rules: Vec<Box<dyn Rule>>,
    by: i64,
}

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Modulo(places) = place else {
        return None;
    };
    Some(build_modulo(places, builder))
}

fn build_modulo(places: &[Place], builder: &Builder<'_>) -> Built {
    if !builder.single_column()?.is_int() {
        return Err(builder.fault(
            "modulo needs an integer key",
            "Place other keys by jump, or by postgres for the hash modulo the number of shards.",
        ));
    }
    let rules = builder.build_all(places)?;
    let by = i64::try_from(rules.len()).unwrap_or(i64::MAX);
    Ok(Box::new(Modulo { rules, by }))
}

impl Rule for Modulo {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let [Key::Int(value)] = key else {
            return Err(KeyError::Unprovable);
        };
        let remainder = value.checked_rem_euclid(self.by).unwrap_or_default();
        chosen(&self.rules, remainder.cast_unsigned(), key, "modulo")
    }

    fn shards(&self, into: &mut ShardSet) {
        for rule in &self.rules {
            rule.shards(into);
        }
    }
}
