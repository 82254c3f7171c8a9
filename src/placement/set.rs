//! A set of shards: a few words of bits, so that uniting the keys of a statement is cheap.

use super::ShardId;

/// A set of shards of one database, in ascending order.
#[derive(Clone, Debug, Default)]
pub struct ShardSet {
    /// The first 64 shards, so that nearly every set needs no allocation.
    first: u64,
    rest: Vec<u64>,
}

impl ShardSet {
    /// The empty set.
    pub const fn new() -> ShardSet {
        ShardSet {
            first: 0,
            rest: Vec::new(),
        }
    }

    /// The shards 0 to `count` − 1.
    pub fn all(count: u16) -> ShardSet {
        (0..count).map(ShardId).collect()
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: ShardId) {
        let bit = 1_u64 << (shard.0 % 64);
        match usize::from(shard.0 / 64).checked_sub(1) {
            None => self.first |= bit,
            Some(at) => {
                if self.rest.len() <= at {
                    self.rest.resize(at.saturating_add(1), 0);
                }
                if let Some(word) = self.rest.get_mut(at) {
                    *word |= bit;
                }
            }
        }
    }

    pub fn contains(&self, shard: ShardId) -> bool {
        self.word(usize::from(shard.0 / 64)) & (1 << (shard.0 % 64)) != 0
    }

    pub fn len(&self) -> usize {
        self.words()
            .map(|word| usize::try_from(word.count_ones()).unwrap_or_default())
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.words().all(|word| word == 0)
    }

    /// Adds every shard of `other`.
    pub fn union(&mut self, other: &ShardSet) {
        for shard in other.iter() {
            self.insert(shard);
        }
    }

    /// Keeps only the shards that `other` holds too.
    pub fn intersect(&mut self, other: &ShardSet) {
        self.first &= other.first;
        for (at, word) in self.rest.iter_mut().enumerate() {
            *word &= other.rest.get(at).copied().unwrap_or_default();
        }
    }

    /// The shard, if there is exactly one.
    pub fn single(&self) -> Option<ShardId> {
        let mut shards = self.iter();
        let first = shards.next()?;
        shards.next().is_none().then_some(first)
    }

    /// The shards in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = ShardId> {
        self.words().zip(0_u16..).flat_map(|(word, at)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = u16::try_from(left.trailing_zeros())
                    .ok()
                    .filter(|bit| *bit < 64)?;
                left &= left.wrapping_sub(1);
                Some(ShardId(at.wrapping_mul(64).wrapping_add(bit)))
            })
        })
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        std::iter::once(self.first).chain(self.rest.iter().copied())
    }

    fn word(&self, at: usize) -> u64 {
        match at.checked_sub(1) {
            None => self.first,
            Some(at) => self.rest.get(at).copied().unwrap_or_default(),
        }
    }
}

/// Sets are equal when they hold the same shards, however many words they use.
impl PartialEq for ShardSet {
    fn eq(&self, other: &ShardSet) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ShardSet {}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> ShardSet {
        let mut set = ShardSet::new();
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::ShardSet;
    use crate::placement::ShardId;

    fn set(shards: &[u16]) -> ShardSet {
        shards.iter().copied().map(ShardId).collect()
    }

    fn list(set: &ShardSet) -> Vec<u16> {
        set.iter().map(|shard| shard.0).collect()
    }

    #[test]
    fn holds_what_was_put_in() {
        for shards in [
            &[][..],
            &[0],
            &[63],
            &[64],
            &[0, 1, 63, 64, 65, 200, 65_535],
        ] {
            let set = set(shards);
            assert_eq!(list(&set), shards);
            assert_eq!(set.len(), shards.len());
            assert_eq!(set.is_empty(), shards.is_empty());
            assert!(shards.iter().all(|shard| set.contains(ShardId(*shard))));
            assert!(!set.contains(ShardId(5)));
        }
        assert_eq!(ShardSet::all(70).len(), 70);
    }

    #[test]
    fn unites_and_intersects() {
        let mut united = set(&[1, 70]);
        united.union(&set(&[2, 200]));
        assert_eq!(list(&united), [1, 2, 70, 200]);
        united.intersect(&set(&[2, 70, 3]));
        assert_eq!(list(&united), [2, 70]);
        united.intersect(&set(&[2]));
        assert_eq!(united, set(&[2]));
        assert_eq!(united.single(), Some(ShardId(2)));
        assert_eq!(set(&[]).single(), None);
        assert_eq!(set(&[1, 2]).single(), None);
    }
}
