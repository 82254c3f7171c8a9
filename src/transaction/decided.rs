//! What engines leave for the control runtime: decisions that may be taken back, and a wish for a look.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Decisions that wait at most; recovery takes back what is dropped.
const WAITING_MAX: usize = 10_000;

/// Of one database.
#[derive(Debug, Default)]
pub struct Decided {
    gids: Mutex<BTreeMap<String, Vec<String>>>,
    wanted: Mutex<bool>,
    notify: Notify,
}

impl Decided {
    /// The transaction of this name is ended on all of its shards.
    pub fn forget(&self, decider: &str, gid: &str) {
        let mut gids = self.gids.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = gids.entry(decider.to_owned()).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push(gid.to_owned());
        }
        drop(gids);
        self.notify.notify_one();
    }

    /// Prepared transactions may have been left.
    pub fn ask(&self) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.notify.notify_one();
    }

    /// Takes the decisions that may be taken back, by decider.
    pub fn take(&self) -> BTreeMap<String, Vec<String>> {
        std::mem::take(&mut *self.gids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a look is wanted; it is not any more.
    pub fn take_wish(&self) -> bool {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for either.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}
