//! What befalls a pool with time and by command: expiry, deadlines of waiting, PAUSE, RECONNECT.

use std::rc::Rc;
use std::time::Instant;

use crate::error::{Fault, SqlState};

use super::{Permit, Pool};

impl Pool {
    /// Closes what is too old or too long idle, fails who waited too long, opens reserve and
    /// minimum connections. Called a few times a second.
    pub fn sweep(self: &Rc<Pool>, now: Instant) {
        let limits = &self.target.limits;
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        for mut connection in idle {
            let too_old = self.is_expired(&connection, now);
            let too_long_idle = !limits.idle_timeout.is_zero()
                && self.open.get() > limits.min_size
                && now.saturating_duration_since(connection.used) > limits.idle_timeout;
            if too_old || too_long_idle || connection.is_stale() {
                connection.terminate();
                self.closed(connection);
            } else {
                self.idle.borrow_mut().push_back(connection);
            }
        }
        if !limits.wait_timeout.is_zero() {
            self.fail_late(now);
        }
        let waited = self
            .waiters
            .borrow()
            .front()
            .map(|waiter| now.saturating_duration_since(waiter.since));
        if waited.is_some() {
            self.grow();
        }
        if waited.is_some_and(|waited| waited > limits.reserve_timeout)
            && limits.reserve.limit > 0
            && !self.paused.get()
            && self.connecting.get() < self.waiters.borrow().len()
            && let Some(permit) = Permit::take(std::slice::from_ref(&limits.reserve))
        {
            self.open_one(permit);
        }
        let wanted = limits
            .min_size
            .saturating_sub(self.open.get().saturating_add(self.connecting.get()));
        if wanted > 0
            && !self.paused.get()
            && !self.retired.get()
            && let Some(permit) = Permit::take(&limits.budgets)
        {
            self.open_one(permit);
        }
    }

    fn fail_late(&self, now: Instant) {
        let timeout = self.target.limits.wait_timeout;
        let mut waiters = self.waiters.borrow_mut();
        waiters.retain(|waiter| !waiter.answer.is_closed());
        while waiters
            .front()
            .is_some_and(|waiter| now.saturating_duration_since(waiter.since) > timeout)
        {
            let Some(waiter) = waiters.pop_front() else {
                return;
            };
            let mut fault = Fault::error(
                SqlState::TOO_MANY_CONNECTIONS,
                format!(
                    "no connection to shard \"{}\" became free in time",
                    self.target.shard_name
                ),
            )
            .detail(format!(
                "The statement waited longer than query_wait_timeout ({timeout:?})."
            ))
            .hint("Raise default_pool_size or query_wait_timeout, or shorten transactions.");
            if let Some(error) = self.last_error.borrow().as_ref() {
                fault.detail = Some(format!(
                    "The last attempt to connect failed: {}.",
                    error.message
                ));
            }
            drop(waiter.answer.send(Err(fault)));
        }
    }

    /// Closes one idle connection so that another engine or pool may open one; the longest unused.
    pub fn close_idle(self: &Rc<Pool>) -> bool {
        let oldest = self.idle.borrow_mut().pop_front();
        match oldest {
            Some(mut connection) => {
                connection.terminate();
                self.closed(connection);
                true
            }
            None => false,
        }
    }

    /// Stops lending and closes what is idle (PAUSE), or lends again (RESUME).
    pub fn pause(self: &Rc<Pool>, paused: bool) {
        self.paused.set(paused);
        if paused {
            self.close_convoys();
            while self.close_idle() {}
        } else {
            self.grow();
        }
    }

    /// Closes idle connections now and the others as they come back (RECONNECT).
    pub fn reconnect(self: &Rc<Pool>, now: Instant) {
        self.reconnect_before.set(Some(now));
        self.close_convoys();
        while self.close_idle() {}
    }

    /// The pool is replaced by another: it serves those in line, and closes what comes back after them.
    pub fn retire(self: &Rc<Pool>) {
        self.retired.set(true);
        self.close_convoys();
        while self.close_idle() {}
    }

    /// Whether a replaced pool has nothing left to do.
    pub fn is_finished(&self) -> bool {
        self.open.get() == 0 && self.connecting.get() == 0 && self.waiters.borrow().is_empty()
    }
}
