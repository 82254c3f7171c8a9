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
