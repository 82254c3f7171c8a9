//! Which rows live where: key → bucket → shard.
//!
//! A [`topology::Topology`] is an immutable snapshot made from a checked configuration; reload makes
//! a new one. Rules are files of `rule/`, one a placement, listed in [`rule::RULES`].

#![warn(clippy::arithmetic_side_effects)]

pub mod catalog;
pub mod code;
pub mod distribution;
pub mod moved;
pub mod rule;
mod set;
pub mod topology;

pub use set::ShardSet;

/// A shard, by its place in the database's list of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The number of buckets of a hashed distribution: the unit that moves when shards come and go.
pub const BUCKETS: u64 = 16_384;

/// Ids stay below this, so that a double holds each of them.
pub const ID_LIMIT: i64 = 1 << 53;

/// The bucket that an id carries, in its low 14 bits.
pub fn bucket_of_id(id: i64) -> u64 {
    id.cast_unsigned() % BUCKETS
}

/// The id that is number `sequence` of those that carry a bucket; `None` from [`ID_LIMIT`] on.
pub fn id_of_bucket(sequence: i64, bucket: u64) -> Option<i64> {
    let id = sequence
        .checked_mul(i64::try_from(BUCKETS).ok()?)?
        .checked_add(i64::try_from(bucket).ok()?)?;
    (id < ID_LIMIT).then_some(id)
}
