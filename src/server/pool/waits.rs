//! Who holds a pool's connections, and who waits for one: what deadlocks are told by.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::server::connection::CancelTarget;

use super::Pool;

/// A client in line for a connection that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub client: u64,
    pub since: Instant,
    /// The budgets that are spent, and how many connections count against each.
    pub spent: Vec<(usize, usize)>,
    /// The budget of the reserve, which serves in place of any of them; `None` without a reserve.
    pub reserve: Option<usize>,
}

impl Pool {
    /// Calls `look` with each open connection and the budgets that it counts against.
    pub fn each_open(&self, mut look: impl FnMut(&Rc<CancelTarget>, &[usize])) {
        for open in self.connections.borrow().iter() {
            look(&open.target, &open.budgets);
        }
    }

    /// Those who have waited for longer than `after` and wait until others give back; none while a connection
    /// is being opened, or might be.
    pub fn line(&self, now: Instant, after: Duration) -> Vec<Line> {
        let limits = &self.target.limits;
        let has_room = limits.reserve.limit > 0 && limits.reserve.spent().is_none();
        if self.paused.get() || self.connecting.get() > 0 || has_room {
            return Vec::new();
        }
        let budgets = limits.budgets.iter();
        let spent: Vec<(usize, usize)> = budgets
            .filter_map(|budget| Some((budget.id(), budget.spent()?)))
            .collect();
        if spent.is_empty() {
            return Vec::new();
        }
        let reserve = (limits.reserve.limit > 0).then(|| limits.reserve.id());
        let waiters = self.waiters.borrow();
        let long = waiters.iter().filter(|waiter| {
            waiter.client != 0
                && !waiter.answer.is_closed()
                && now.saturating_duration_since(waiter.since) > after
        });
        long.map(|waiter| Line {
            client: waiter.client,
            since: waiter.since,
            spent: spent.clone(),
            reserve,
        })
        .collect()
    }

    /// Whether a client still waits since then.
    pub fn is_in_line(&self, client: u64, since: Instant) -> bool {
        self.waiters.borrow().iter().any(|waiter| {
            waiter.client == client && waiter.since == since && !waiter.answer.is_closed()
        })
    }
}
