//! Quick reads of several clients on one connection, one behind the other.
//!
//! A read whose statement the connection has prepared, and whose settings are those of one under way
//! there, is sent behind it, and its client has the connection when the other's is answered. The
//! server goes from one to the next without sleeping, what several clients send and get travels in
//! one piece, and few backends do the work of many.
//!
//! Nobody is bound to it. A read that waits too long behind another, or whose connection is lost or
//! is to be canceled, is turned away: it is sent again on a connection of its own, and the answer
//! to its first sending is nobody's. So only what may run twice may follow. *Invariants:* of what
//! is sent on the connection, all up to the next ReadyForQuery is its holder's; the holder sends
//! nothing more while others follow.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::server::connection::{Note, ServerConnection};
use crate::server::hidden::tidy_later;
use crate::server::settings::Settings;
use crate::server::statements::ServerStatements;
use crate::wire::pipeline::{Pipeline, Request};

use super::{Lease, Pool};

/// How long what is under way on one connection may take together, as far as is known, where
/// nobody is to wait for others longer than `wait`.
pub fn quick(wait: Duration) -> Duration {
    wait / 10
}

/// What was sent, all at once, and is to be answered up to one ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Query,
    /// Bind, Describe of the portal if so, Execute, Sync.
    Group {
        describes: bool,
        /// Whether a Parse came with it, and was answered.
        parsed: bool,
    },
}

impl Sent {
    /// Puts it in the line of replies owed.
    pub fn note(self, line: &mut Pipeline<Note>, hidden: bool) {
        let describes = match self {
            Sent::Query => {
                line.sent(Request::Query, hidden, Note::None);
                return;
            }
            Sent::Group { describes, .. } => describes,
        };
        line.sent(Request::Bind, hidden, Note::None);
        if describes {
            line.sent(Request::DescribePortal, hidden, Note::None);
        }
        line.sent(Request::Execute, hidden, Note::Execute);
        line.sent(Request::Sync, hidden, Note::Commit);
    }
}

/// One connection's part in it: what is prepared there, and who follows its holder.
#[derive(Debug, Default)]
pub struct Convoy {
    statements: RefCell<ServerStatements>,
    /// What is set on the connection, while others may follow.
    open: RefCell<Option<Rc<Settings>>>,
    followers: RefCell<VecDeque<Rc<Follower>>>,
    /// What followers send.
    unsent: RefCell<Vec<u8>>,
    /// Wakes the holder.
    holder: RefCell<Option<Waker>>,
    /// How many have followed since the connection was lent.
    followed: Cell<usize>,
    /// How long what is under way may take.
    load: Cell<Duration>,
}

impl Convoy {
    /// The statements that the connection has prepared.
    pub fn statements(&self) -> RefMut<'_, ServerStatements> {
        self.statements.borrow_mut()
    }

    /// Whether someone has sent something behind the holder's.
    pub fn is_followed(&self) -> bool {
        !self.followers.borrow().is_empty()
    }

    /// Whether followers want something sent.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.borrow().is_empty()
    }

    /// Nobody else may follow.
    pub fn close(&self) {
        *self.open.borrow_mut() = None;
    }

    /// Takes what followers want sent.
    pub fn take_unsent(&self, out: &mut Vec<u8>) {
        out.append(&mut self.unsent.borrow_mut());
    }

    /// Turns everybody away, and lets nobody follow any more.
    pub fn turn_away(&self) {
        self.close();
        for follower in self.followers.borrow().iter() {
            follower.turn_away();
        }
    }

    fn turn_away_late(&self, now: Instant, wait: Duration) {
        for follower in self.followers.borrow().iter() {
            if now.saturating_duration_since(follower.since) > wait {
                self.close();
                follower.turn_away();
            }
        }
    }
}

#[derive(Debug)]
enum State {
    Waits,
    /// It is the holder now.
    Has(Lease),
    TurnedAway,
    /// Its client has left.
    Gone,
}

#[derive(Debug)]
struct Follower {
    sent: Sent,
    pace: Duration,
    since: Instant,
    waker: Waker,
    client: u64,
    state: RefCell<State>,
}

impl Follower {
    fn turn_away(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Waits) {
            *state = State::TurnedAway;
            self.waker.wake_by_ref();
        }
    }
}

/// A client's place behind others. Dropped, its answer is nobody's.
#[derive(Debug)]
pub struct Following {
    follower: Rc<Follower>,
}

/// What has become of a place.
#[derive(Debug)]
pub enum Turn {
    Waits,
    /// The connection, on which the answer to what was sent comes next.
    Has(Lease),
    /// To be sent again, elsewhere.
    TurnedAway,
}

impl Following {
    /// Looks; the task is woken when there is something to see.
    pub fn look(&mut self) -> Turn {
        match self.follower.state.replace(State::Gone) {
            State::Has(lease) => Turn::Has(lease),
            State::TurnedAway | State::Gone => Turn::TurnedAway,
            State::Waits => {
                self.follower.state.replace(State::Waits);
                Turn::Waits
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // A lease that was handed on and not looked at is dropped with its state: the connection is closed.
        drop(self.follower.state.replace(State::Gone));
    }
}

/// Reads an answer that is nobody's, then goes on as if its client had given the connection back.
fn pass_over(mut lease: Lease, sent: Sent) {
    if let Some(connection) = lease.connection() {
        sent.note(&mut connection.pipeline, true);
        tidy_later(lease);
    }
}

/// A read that wants to go behind another.
#[derive(Debug)]
pub struct Joining<'a> {
    pub settings: &'a Rc<Settings>,
    /// Reads on one connection at most, the holder's included.
    pub limit: usize,
    /// It is turned away after this.
    pub wait: Duration,
    /// How long it takes, as far as is known.
    pub pace: Duration,
    pub now: Instant,
    pub waker: Waker,
    /// Whose it is.
    pub client: u64,
    pub sent: Sent,
}

impl Pool {
    /// Lets others follow on a connection that was just lent; `holder` wakes who has it.
    /// `pace` is how long its read may take.
    pub fn open_convoy(&self, connection: &ServerConnection, holder: Waker, pace: Duration) {
        let convoy = &connection.convoy;
        *convoy.open.borrow_mut() = Some(Rc::clone(&connection.settings));
        *convoy.holder.borrow_mut() = Some(holder);
        convoy.followed.set(0);
        convoy.load.set(pace);
        let mut convoys = self.convoys.borrow_mut();
        if !convoys.iter().any(|known| Rc::ptr_eq(known, convoy)) {
            convoys.push(Rc::clone(convoy));
        }
    }

    /// Sends what `write` writes behind reads under way, on a connection with these settings that is
    /// `fit`; `None`, and nothing was sent, when there is none.
    pub fn follow(
        self: &Rc<Pool>,
        joining: Joining<'_>,
        fit: impl Fn(&mut ServerStatements) -> bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Option<Following> {
        if self.paused.get() {
            return None;
        }
        // Who is in line for a connection must get it in the end.
        let most = if self.waiters.borrow().is_empty() {
            usize::MAX
        } else {
            joining.limit
        };
        let convoys = self.convoys.borrow();
        let convoy = convoys.iter().find(|convoy| {
            convoy
                .open
                .borrow()
                .as_ref()
                .is_some_and(|settings| settings.same(joining.settings))
                && convoy.followers.borrow().len().saturating_add(1) < joining.limit
                && convoy.followed.get() < most
                && convoy.load.get().saturating_add(joining.pace) <= quick(joining.wait)
                && fit(&mut convoy.statements())
        })?;
        write(&mut convoy.unsent.borrow_mut());
        let follower = Rc::new(Follower {
            sent: joining.sent,
            pace: joining.pace,
            since: joining.now,
            waker: joining.waker,
            client: joining.client,
            state: RefCell::new(State::Waits),
        });
        convoy
            .followers
            .borrow_mut()
            .push_back(Rc::clone(&follower));
        if let Some(holder) = convoy.holder.borrow().as_ref() {
            holder.wake_by_ref();
        }
        convoy.followed.set(convoy.followed.get().saturating_add(1));
        convoy
            .load
            .set(convoy.load.get().saturating_add(joining.pace));
        if !self.watched.replace(true) {
            tokio::task::spawn_local(watch(Rc::clone(self), joining.wait));
        }
        Some(Following { follower })
    }

    /// Nobody follows any more on the connections that are lent now: they are to come back.
    pub(super) fn close_convoys(&self) {
        for convoy in self.convoys.borrow().iter() {
            convoy.close();
        }
    }

    /// The connection is given back, or lost: nobody is in its convoy any more.
    pub(super) fn end_convoy(&self, connection: &ServerConnection) {
        let convoy = &connection.convoy;
        convoy.turn_away();
        convoy.followers.borrow_mut().clear();
        convoy.unsent.take();
        convoy.holder.replace(None);
        let mut convoys = self.convoys.borrow_mut();
        if let Some(index) = convoys.iter().position(|known| Rc::ptr_eq(known, convoy)) {
            convoys.remove(index);
        }
    }
}

/// Turns away who waits too long, as long as anybody waits.
async fn watch(pool: Rc<Pool>, wait: Duration) {
    loop {
        tokio::time::sleep(wait / 2).await;
        let now = Instant::now();
        let convoys = pool.convoys.borrow();
        for convoy in convoys.iter() {
            convoy.turn_away_late(now, wait);
        }
        if !convoys.iter().any(|convoy| convoy.is_followed()) {
            pool.watched.set(false);
            return;
        }
    }
}

/// Hands a connection, whose holder's read is answered, to who follows; returns it when nobody
/// does.
pub(super) fn hand_on(mut lease: Lease, now: Instant) -> Option<Lease> {
    let next = {
        let connection = lease.peek()?;
        let convoy = Rc::clone(&connection.convoy);
        if lease.pool().is_expired(connection, now) {
            convoy.close();
        }
        let mut followers = convoy.followers.borrow_mut();
        convoy.load.set(
            followers
                .iter()
                .fold(Duration::ZERO, |sum, each| sum.saturating_add(each.pace)),
        );
        let next = followers.pop_front();
        convoy
            .holder
            .replace(next.as_ref().map(|next| next.waker.clone()));
        next
    };
    let Some(follower) = next else {
        return Some(lease);
    };
    if let Some(connection) = lease.connection() {
        connection.unnamed = None;
    }
    lease.lend(follower.client, now);
    let mut state = follower.state.borrow_mut();
    if matches!(*state, State::Waits) {
        *state = State::Has(lease);
        follower.waker.wake_by_ref();
    } else {
        pass_over(lease, follower.sent);
    }
    None
}
