//! A shard itself: where every placement ends.

use super::{Builder, Built, Rule};
use crate::config::Place;
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError};

#[derive(Debug)]
struct Shard(ShardId);

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Shard(name) = place else {
        return None;
    };
    let index = builder.shards.iter().position(|shard| shard == name);
    let Some(index) = index.and_then(|index| u16::try_from(index).ok()) else {
        let message = format!("there is no shard \"{name}\"");
        return Some(Err(builder.fault(message, "Name a shard of this database.")));
    };
    Some(Ok(Box::new(Shard(ShardId(index)))))
}

impl Rule for Shard {
    fn place(&self, _key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        Ok(self.0)
    }

    fn shards(&self, into: &mut ShardSet) {
        into.insert(self.0);
    }

    fn place_bucket(&self, _bucket: u64) -> Option<ShardId> {
        Some(self.0)
    }
}
