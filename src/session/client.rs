//! What the rest of the engine sees of a client: who it is, what it waits for, and how to reach it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Instant, SystemTime};

use crate::error::Fault;
use crate::server::connection::CancelTarget;
use crate::wire::cancel_key::CancelKey;

/// What a client is doing, as far as timeouts and SHOW CLIENTS care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Nothing runs, no block is open.
    Idle,
    /// A block is open, nothing runs.
    IdleInTransaction,
    /// Waits for a server connection.
    Waiting,
    /// A statement runs.
    Active,
}

/// Notifications held for one client; beyond this many the oldest are dropped with a warning logged.
pub const NOTIFICATIONS_MAX: usize = 10_000;

/// Where a client's last statement ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LastRoute {
    #[default]
    None,
    /// Answered by the proxy.
    Local,
    Single(crate::placement::ShardId),
    /// By the proxy, with this message.
    Refused(String),
    /// On several shards, as EXPLAIN (ROUTE) names the way.
    Several(crate::planner::tally::Way, crate::placement::ShardSet),
}

/// One client, shared by its session and its engine.
#[derive(Debug)]
pub struct Client {
    pub id: u64,
    pub user: String,
    pub database: String,
    pub peer: String,
    pub tls: bool,
    pub application_name: RefCell<String>,
    pub connected: SystemTime,
    pub key: CancelKey,
    pub activity: Cell<Activity>,
    /// Since when it does that.
    pub since: Cell<Instant>,
    pub pinned: Cell<Option<&'static str>>,
    pub shard: Cell<Option<crate::placement::ShardId>>,
    pub server_id: Cell<Option<u64>>,
    pub prepared: Cell<usize>,
    /// The connections that work for it now.
    pub targets: RefCell<Vec<Rc<CancelTarget>>>,
    /// A cancel request came while it waited.
    pub canceled: Cell<bool>,
    /// What of a statement over several shards is under way that hears of a cancel request itself when its
    /// servers do not take it in time; 0 is nothing.
    pub step: Cell<u64>,
    /// What it is told instead of that a statement was canceled: it was, to end a deadlock.
    pub victim: RefCell<Option<Fault>>,
    /// From then on, until its connections have answered: it is not served meanwhile, so that nothing else is
    /// canceled.
    pub sentenced: Cell<bool>,
    /// Requests to cancel for it that have not been taken.
    pub sentences: Cell<u32>,
    /// It is to be closed with this.
    pub kill: RefCell<Option<Fault>>,
    /// Notifications to be delivered: whole messages.
    pub notifications: RefCell<VecDeque<Vec<u8>>>,
    /// Where its last statement ran, for `SHOW pgherd.route`.
    pub last_route: RefCell<LastRoute>,
    /// Bytes of several shards' rows that are kept for it.
    pub buffered: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Client {
    /// A client that has just logged in and does nothing yet.
    #[expect(
        clippy::too_many_arguments,
        reason = "one plain record, made in one place"
    )]
    pub fn new(
        id: u64,
        user: String,
        database: String,
        peer: String,
        tls: bool,
        application_name: String,
        key: CancelKey,
        now: Instant,
    ) -> Rc<Client> {
        Rc::new(Client {
            id,
            user,
            database,
            peer,
            tls,
            application_name: RefCell::new(application_name),
            connected: SystemTime::now(),
            key,
            activity: Cell::new(Activity::Idle),
            since: Cell::new(now),
            pinned: Cell::new(None),
            shard: Cell::new(None),
            server_id: Cell::new(None),
            prepared: Cell::new(0),
            targets: RefCell::default(),
            canceled: Cell::new(false),
            step: Cell::new(0),
            victim: RefCell::default(),
            sentenced: Cell::new(false),
            sentences: Cell::new(0),
            kill: RefCell::default(),
            notifications: RefCell::default(),
            last_route: RefCell::default(),
            buffered: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    /// Notes what it does; time runs from the first moment of it.
    pub fn set_activity(&self, activity: Activity, now: Instant) {
        if self.activity.get() != activity {
            self.activity.set(activity);
            self.since.set(now);
        }
    }

    /// Remembers how to wake its task.
    pub fn register(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// What wakes its task.
    pub fn waker(&self) -> Option<Waker> {
        self.waker.borrow().clone()
    }

    /// Wakes its task.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Ends it with an error, as soon as its task runs.
    pub fn kill(&self, fault: Fault) {
        *self.kill.borrow_mut() = Some(fault);
        self.wake();
    }

    /// Whether its task has something to look at.
    pub fn is_signaled(&self) -> bool {
        self.kill.borrow().is_some() || self.canceled.get()
    }

    /// Queues a notification. Returns whether one had to be dropped.
    pub fn notify(&self, message: Vec<u8>) -> bool {
        let mut queue = self.notifications.borrow_mut();
        let full = queue.len() >= NOTIFICATIONS_MAX;
        if full {
            queue.pop_front();
        }
        queue.push_back(message);
        drop(queue);
        self.wake();
        full
    }
}
