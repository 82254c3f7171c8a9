//! `postgres: [a, b]`: the row hash modulo the number of shards, where PARTITION BY HASH puts a row.

use super::{Builder, Built, Rule, chosen, count};
use crate::config::Place;
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError, row_hash};

#[derive(Debug)]
struct Postgres(Vec<Box<dyn Rule>>);

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Postgres(places) = place else {
        return None;
    };
    let rules = builder.build_all(places);
    Some(rules.map(|rules| -> Box<dyn Rule> { Box::new(Postgres(rules)) }))
}

impl Rule for Postgres {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let remainder = row_hash(key)
            .checked_rem(count(&self.0))
            .unwrap_or_default();
        chosen(&self.0, remainder, key, "hash")
    }

    fn shards(&self, into: &mut ShardSet) {
        for rule in &self.0 {
            rule.shards(into);
        }
    }
}
