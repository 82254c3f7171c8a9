//! Limits of open connections that several pools and engines share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of connections that may be open at once, counted over all engines. 0 is no limit.
#[derive(Clone, Debug)]
pub struct Budget {
    pub used: Arc<AtomicUsize>,
    pub limit: usize,
}

impl Budget {
    fn try_take(&self) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (self.limit == 0 || used < self.limit).then(|| used.saturating_add(1))
            })
            .is_ok()
    }

    /// A number that stands for it in this process.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.used).addr()
    }

    /// Whether no more may be opened; how many are.
    pub fn spent(&self) -> Option<usize> {
        let used = self.used.load(Ordering::Acquire);
        (self.limit > 0 && used >= self.limit).then_some(used)
    }

    fn give_back(&self) {
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One open connection's share of every budget it counts against; given back on drop.
#[derive(Debug, Default)]
pub struct Permit {
    budgets: Vec<Budget>,
}

impl Permit {
    /// One share of each, or none at all.
    pub fn take(budgets: &[Budget]) -> Option<Permit> {
        let mut permit = Permit {
            budgets: Vec::with_capacity(budgets.len()),
        };
        for budget in budgets {
            if !budget.try_take() {
                return None;
            }
            permit.budgets.push(budget.clone());
        }
        Some(permit)
    }

    /// The budgets that it is a share of.
    pub fn budgets(&self) -> Vec<usize> {
        self.budgets.iter().map(Budget::id).collect()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for budget in &self.budgets {
            budget.give_back();
        }
    }
}
