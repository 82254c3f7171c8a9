//! Which rows live where: key → bucket → shard.

/// A shard, by its place in the database's list of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// A set of shards of one database, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ShardSet {
    words: Vec<u64>,
}

impl ShardSet {
    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        let word = usize::from(shard.0 / 64);
        if self.words.len() <= word {
            self.words.resize(word.saturating_add(1), 0);
        }
        if let Some(bits) = self.words.get_mut(word) {
            *bits |= 1 << (shard.0 % 64);
        }
    }
}
