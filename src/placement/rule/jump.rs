//! `jump: [a, b, c]`: jump consistent hash of the bucket, so that one more shard at the end takes
//! 1/(n+1) of the buckets and moves nothing between the others.
//!
//! Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", arXiv 1406.2294.

use super::{Builder, Built, Rule, chosen, count};
use crate::config::Place;
use crate::placement::{BUCKETS, ShardId, ShardSet};
use crate::types::key::{Key, KeyError, row_hash};

#[derive(Debug)]
struct Jump(Vec<Box<dyn Rule>>);

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Jump(places) = place else {
        return None;
    };
    let rules = builder.build_all(places);
    Some(rules.map(|rules| -> Box<dyn Rule> { Box::new(Jump(rules)) }))
}

impl Rule for Jump {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let bucket = row_hash(key) % BUCKETS;
        chosen(&self.0, jump(bucket, count(&self.0)), key, "jump")
    }

    fn shards(&self, into: &mut ShardSet) {
        for rule in &self.0 {
            rule.shards(into);
        }
    }

    fn place_bucket(&self, bucket: u64) -> Option<ShardId> {
        let slot = usize::try_from(jump(bucket, count(&self.0))).ok()?;
        self.0.get(slot)?.place_bucket(bucket)
    }
}

/// The slot of `key` among `slots`, which is at most 2^31.
#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the algorithm is defined on double precision; both sides of the quotient are below 2^32, so exact, and the cast back saturates"
)]
fn jump(mut key: u64, slots: u64) -> u64 {
    let mut slot = 0_u64;
    let mut next = 0_u64;
    while next < slots {
        slot = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let scale = (1_u64 << 31) as f64 / ((key >> 33).wrapping_add(1)) as f64;
        next = (slot.wrapping_add(1) as f64 * scale) as u64;
    }
    slot
}

#[cfg(test)]
mod tests {
    use super::jump;

    #[test]
    fn agrees_with_published_vectors() {
        let expect = [
            0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83,
        ];
        for (key, slot) in (0..).zip(expect) {
            assert_eq!(jump(key, 100), slot, "{key}");
        }
        let expect = [0, 1, 2, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 16, 16, 16];
        for (slots, slot) in (1..).zip(expect) {
            assert_eq!(jump(0xdead_beef, slots), slot, "{slots}");
        }
        for (key, slots, slot) in [
            (10_863_919_174_838_991, 11, 6),
            (2_016_238_256_797_177_309, 11, 3),
            (1_673_758_223_894_951_030, 11, 5),
            (2, 100_001, 80_343),
            (2201, 100_001, 22_152),
            (2202, 100_001, 15_018),
            (42, 57, 43),
            (256, 1024, 520),
            (3_735_883_980, 666, 361),
            (16_045_690_984_833_335_023, 255, 237),
        ] {
            assert_eq!(jump(key, slots), slot, "{key} in {slots}");
        }
    }
}
