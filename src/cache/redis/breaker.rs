//! Whether Redis is asked at all: after several failures in a row it is left alone, but for one question a
//! second. Sans-IO.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Failures in a row after which it is left alone.
const FAILURES: u32 = 5;
/// How long it is left alone, in ms.
const PAUSE: u64 = 1_000;

/// The state. Times are in milliseconds of one clock.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    /// When it may be asked again.
    until: AtomicU64,
}

impl Breaker {
    /// Whether it may be asked now. Where it has failed, one caller a second is told so.
    pub(super) fn allows(&self, now: u64) -> bool {
        if self.is_closed() {
            return true;
        }
        let until = self.until.load(Ordering::Relaxed);
        now >= until
            && self
                .until
                .compare_exchange(
                    until,
                    now.saturating_add(PAUSE),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Whether it is asked as usual.
    pub(super) fn is_closed(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES
    }

    /// It has answered. Returns whether it had been left alone.
    pub(super) fn succeeded(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.failures.swap(0, Ordering::Relaxed) >= FAILURES
    }

    /// It has not. Returns whether it is left alone from now on.
    pub(super) fn failed(&self, now: u64) -> bool {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before >= FAILURES {
            // Not so often that the count could wrap.
            self.failures.store(FAILURES, Ordering::Relaxed);
        }
        if before.saturating_add(1) == FAILURES {
            self.until
                .store(now.saturating_add(PAUSE), Ordering::Relaxed);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Breaker, FAILURES, PAUSE};

    #[test]
    fn after_failures_one_in_a_while_is_let_through() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES {
            assert!(!breaker.failed(10));
            assert!(breaker.allows(10));
        }
        assert!(breaker.failed(10));
        assert!(!breaker.allows(10));
        assert!(!breaker.allows(10 + PAUSE - 1));
        assert!(breaker.allows(10 + PAUSE));
        assert!(!breaker.allows(10 + PAUSE));
        assert!(breaker.succeeded());
        assert!(breaker.allows(11 + PAUSE));
        assert!(!breaker.succeeded());
    }
}
