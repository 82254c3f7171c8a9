//! Numbers for ids, fetched ahead for all engines: one lock is held for as long as it takes to count some
//! off, and who finds too few waits for the home shard without it.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::control::ids::BLOCK;
use crate::error::Fault;
use crate::planner::plan::Stream;

use super::engine::Shared;

/// The numbers of one database's tables.
#[derive(Debug, Default)]
pub struct IdBlocks(Mutex<HashMap<Arc<Stream>, Arc<Numbers>>>);

/// The numbers of one table.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    held: Mutex<Held>,
    /// One fetches at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Held {
    blocks: VecDeque<Range<i64>>,
    /// More are being fetched ahead.
    fetching: bool,
}

/// What became of a wish for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    All,
    /// All, and few are left: more should be fetched ahead, by whoever is told so.
    LastOnes,
    /// None: there are too few.
    None,
}

impl IdBlocks {
    /// The numbers of a table.
    pub(crate) fn of(&self, stream: &Arc<Stream>) -> Arc<Numbers> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(numbers) = known.get(stream) {
            return Arc::clone(numbers);
        }
        let numbers = Arc::<Numbers>::default();
        known.insert(Arc::clone(stream), Arc::clone(&numbers));
        numbers
    }
}

impl Numbers {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `count` numbers off, or none.
    pub(crate) fn take(&self, count: usize, into: &mut Vec<i64>) -> Taken {
        let mut held = self.held();
        let left = held.left();
        let Some(left) = left.checked_sub(u64::try_from(count).unwrap_or(u64::MAX)) else {
            return Taken::None;
        };
        let wanted = into.len().saturating_add(count);
        while into.len() < wanted {
            let Some(block) = held.blocks.front_mut() else {
                break;
            };
            match block.next() {
                Some(number) => into.push(number),
                None => {
                    held.blocks.pop_front();
                }
            }
        }
        if left >= u64::from(BLOCK / 2) || held.fetching {
            return Taken::All;
        }
        held.fetching = true;
        Taken::LastOnes
    }

    /// Adds blocks.
    pub(crate) fn add(&self, blocks: Vec<Range<i64>>) {
        self.held().blocks.extend(blocks);
    }
}

impl Held {
    fn left(&self) -> u64 {
        let lengths = self.blocks.iter().map(|block| {
            let length = block.end.saturating_sub(block.start);
            u64::try_from(length).unwrap_or_default()
        });
        lengths.fold(0, u64::saturating_add)
    }
}

/// Fetches numbers until at least `count` are there.
///
/// # Errors
/// Why the home shard did not give them.
///
/// # Cancel safety
/// Safe: a block that was under way is lost.
pub(crate) async fn fetch(
    shared: Arc<Shared>,
    database: String,
    stream: Arc<Stream>,
    count: usize,
) -> Result<(), Fault> {
    let numbers = shared.database(&database).ids.of(&stream);
    let wanted = u64::try_from(count).unwrap_or(u64::MAX);
    let _turn = numbers.turn.lock().await;
    let mut left = numbers.held().left();
    while left < wanted {
        let missing = usize::try_from(wanted.saturating_sub(left)).unwrap_or(usize::MAX);
        let snapshot = shared.snapshot.load_full();
        let blocks = snapshot
            .control
            .id_blocks(&database, &stream, missing)
            .await?;
        numbers.add(blocks);
        let before = std::mem::replace(&mut left, numbers.held().left());
        if left == before {
            break;
        }
    }
    Ok(())
}

/// Fetches a block ahead of need. That it could not be fetched is logged; who needs it hears why.
pub(crate) async fn fetch_ahead(shared: Arc<Shared>, database: String, stream: Arc<Stream>) {
    let numbers = shared.database(&database).ids.of(&stream);
    let count = usize::try_from(BLOCK).unwrap_or(usize::MAX);
    let result = fetch(Arc::clone(&shared), database, Arc::clone(&stream), count).await;
    numbers.held().fetching = false;
    if let Err(fault) = result {
        tracing::warn!(table = %stream.table, error = %fault, "could not fetch numbers for ids ahead");
    }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Taken};

    #[test]
    fn numbers_are_counted_off_once() {
        let numbers = Numbers::default();
        let mut taken = Vec::new();
        assert_eq!(numbers.take(1, &mut taken), Taken::None);
        numbers.add(vec![1..3, 1_001..2_001]);
        assert_eq!(numbers.take(3, &mut taken), Taken::All);
        assert_eq!(taken, [1, 2, 1_001]);
        assert_eq!(numbers.take(700, &mut taken), Taken::LastOnes);
        assert_eq!(numbers.take(1, &mut taken), Taken::All);
        assert_eq!(numbers.take(299, &mut taken), Taken::None);
        assert_eq!(numbers.take(298, &mut taken), Taken::All);
        assert_eq!((taken.len(), taken.last()), (1_002, Some(&2_000)));
        assert_eq!(numbers.take(1, &mut taken), Taken::None);
    }
}
