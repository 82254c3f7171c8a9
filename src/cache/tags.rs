//! The tags of one process: for each, how often it was written, and how many writes of it are under way.
//! Sans-IO.
//!
//! Tags share a fixed number of places, so that their number has no limit and takes no memory: two that share
//! one are written together, which costs an answer and never makes one wrong. Counts only grow, for as long as
//! the process lives.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use foldhash::fast::FixedState;

/// How many places there are.
const PLACES: u64 = 1 << 16;

/// One place.
#[derive(Debug, Default)]
struct Place {
    version: AtomicU64,
    /// Writes under way.
    pending: AtomicU32,
}

/// All tags.
#[derive(Debug)]
pub struct Tags {
    hasher: FixedState,
    places: Box<[Place]>,
}

impl Tags {
    /// Tags that nothing depends on yet. The seed keeps clients from choosing keys that share a place.
    pub fn new(seed: u64) -> Tags {
        Tags {
            hasher: FixedState::with_seed(seed),
            places: (0..PLACES).map(|_| Place::default()).collect(),
        }
    }

    fn place(&self, name: &str) -> Option<&Place> {
        let hash = self.hasher.hash_one(name) % PLACES;
        self.places.get(usize::try_from(hash).unwrap_or(0))
    }

    /// The versions of tags; `None` where a write of one is under way.
    pub fn versions(&self, names: &[Box<str>]) -> Option<Box<[u128]>> {
        let version = |name: &str| {
            let place = self.place(name)?;
            // Whether it is pending is looked at last: what ends in between has another version.
            let version = place.version.load(Ordering::SeqCst);
            (place.pending.load(Ordering::SeqCst) == 0).then_some(u128::from(version))
        };
        names.iter().map(|name| version(name)).collect()
    }

    /// Whether none was written since it had these versions, and none is being written.
    pub fn are(&self, names: &[Box<str>], versions: &[u128]) -> bool {
        names.len() == versions.len()
            && names.iter().zip(versions).all(|(name, version)| {
                self.place(name).is_some_and(|place| {
                    place.pending.load(Ordering::SeqCst) == 0
                        && u128::from(place.version.load(Ordering::SeqCst)) == *version
                })
            })
    }

    /// A write begins.
    pub fn mark(&self, names: &[Box<str>]) {
        for place in names.iter().filter_map(|name| self.place(name)) {
            place.pending.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A write that was marked is over, whether it came about or not.
    pub fn bump(&self, names: &[Box<str>]) {
        for place in names.iter().filter_map(|name| self.place(name)) {
            place.version.fetch_add(1, Ordering::SeqCst);
            place.pending.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Something was written that was not marked.
    pub fn touch(&self, names: &[Box<str>]) {
        for place in names.iter().filter_map(|name| self.place(name)) {
            place.version.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tags;

    fn names(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn a_write_ends_what_was_seen_before_it() {
        let tags = Tags::new(1);
        let (all, one) = (names(&["a", "b"]), names(&["b"]));
        let seen = tags.versions(&all).unwrap();
        assert!(tags.are(&all, &seen));
        tags.mark(&one);
        assert!(!tags.are(&all, &seen));
        assert_eq!(tags.versions(&all), None);
        tags.bump(&one);
        assert!(!tags.are(&all, &seen));
        let seen = tags.versions(&all).unwrap();
        assert!(tags.are(&all, &seen));
        tags.touch(&one);
        assert!(!tags.are(&all, &seen));
    }

    #[test]
    fn writes_of_one_tag_are_counted() {
        let tags = Tags::new(1);
        let one = names(&["a"]);
        tags.mark(&one);
        tags.mark(&one);
        tags.bump(&one);
        assert_eq!(tags.versions(&one), None);
        tags.bump(&one);
        assert!(tags.versions(&one).is_some());
    }
}
