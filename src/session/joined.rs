//! A read that goes behind another client's on one connection: sending it, and what becomes of it.
//! See [`convoy`].

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::execute::End;
use crate::metrics::catalogue::SharedOutcome;
use crate::placement::ShardId;
use crate::planner::plan::Script;
use crate::planner::tally::Way;
use crate::server::pool::Lease;
use crate::server::pool::convoy::{self, Following, Joining, Sent, Turn};
use crate::server::statements::ServerStatements;

use super::Session;
use super::client::Activity;
use super::counting::micros;

/// A read that was sent behind another's.
#[derive(Debug)]
pub(crate) struct Joined {
    following: Following,
    sent: Sent,
    shard: ShardId,
    /// The client's messages, to be handled again if it is turned away.
    again: Vec<u8>,
}

/// Longer messages go alone: followers' are held until their connection's holder sends them.
const SHORT: usize = 16 * 1024;

/// A statement on its way by the direct course, and since when.
#[derive(Debug)]
pub(crate) struct Timed {
    script: Rc<Script>,
    since: Instant,
}

impl Session {
    /// How long a statement takes that may follow another, and be followed. `None` after it was
    /// turned away once.
    pub(crate) fn pace_of(&mut self, script: &Script) -> Option<Duration> {
        if std::mem::take(&mut self.goes_alone) {
            return None;
        }
        let limits = &self.database.limits;
        let may = limits.reads_per_connection > 1
            && script
                .statements
                .iter()
                .all(|statement| statement.repeatable)
            && self.database.catalog_is_current();
        script
            .pace
            .usual()
            .filter(|pace| may && *pace < convoy::quick(limits.shared_read_wait))
    }

    /// Sends what `write` writes behind another client's read on the shard. Returns whether it
    /// could; `again` is what the client sent.
    pub(crate) fn join(
        &mut self,
        shard: ShardId,
        sent: Sent,
        pace: Duration,
        again: &[u8],
        fit: impl Fn(&mut ServerStatements) -> bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        // What is ready for the client must not wait for others.
        if again.len() > SHORT
            || !self.out.is_empty()
            || self.client_is_full
            || self.granted.is_some()
        {
            return false;
        }
        let (Some(pool), Some(waker)) = (self.pools.get(usize::from(shard.0)), self.client.waker())
        else {
            return false;
        };
        let now = self.engine.recently();
        let joining = Joining {
            settings: &self.settings,
            limit: self.database.limits.reads_per_connection,
            wait: self.database.limits.shared_read_wait,
            pace,
            now,
            waker,
            client: self.client.id,
            sent,
        };
        let Some(following) = pool.follow(joining, fit, write) else {
            return false;
        };
        self.engine
            .count_shared(&self.database, shard, SharedOutcome::Joined);
        self.client.set_activity(Activity::Active, now);
        self.client.shard.set(Some(shard));
        self.joined = Some(Box::new(Joined {
            following,
            sent,
            shard,
            again: again.to_vec(),
        }));
        true
    }

    /// Lets others follow the read that was just sent.
    pub(crate) fn lead(&mut self, pace: Duration) {
        if let (Some(lease), Some(waker)) = (&self.lease, self.client.waker())
            && let Some(connection) = lease.peek()
        {
            lease.pool().open_convoy(connection, waker, pace);
            self.corked = true;
        }
    }

    /// Takes the time of a statement until the connection is let go.
    pub(crate) fn time(&mut self, script: &Rc<Script>) {
        self.timed = Some(Timed {
            script: Rc::clone(script),
            since: self.engine.recently(),
        });
    }

    /// The connection is let go: what ran is answered.
    pub(crate) fn note_time(&mut self) {
        if let Some(timed) = self.timed.take() {
            let took = self
                .engine
                .recently()
                .saturating_duration_since(timed.since);
            timed.script.pace.note(took);
            timed.script.tally.took(Way::Single, micros(took));
        }
    }

    /// Whether the next message must wait: others are before or behind what was sent on its connection.
    pub(crate) fn awaits_others(&self) -> bool {
        match self.lease.as_ref().and_then(Lease::peek) {
            Some(connection) => connection.convoy.is_followed(),
            None => self.joined.is_some(),
        }
    }

    /// What is sent next on the current connection is not for others to follow.
    pub(crate) fn stop_sharing(&self) {
        if let Some(connection) = self.lease.as_ref().and_then(Lease::peek) {
            connection.convoy.close();
        }
    }

    /// The read is not behind another any more; its answer there is nobody's.
    fn leave(&mut self) {
        self.joined = None;
        self.timed = None;
        self.client.shard.set(None);
    }

    /// Looks what has become of a read that follows another; ready when that is settled.
    pub(crate) fn poll_joined(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<(), End>> {
        let Some(joined) = &mut self.joined else {
            return Poll::Ready(Ok(()));
        };
        if self.client.canceled.take() {
            self.leave();
            let fault = self.cancel_fault();
            self.reply_fault(&fault);
            self.reply_ready();
            self.client
                .set_activity(Activity::Idle, self.engine.recently());
            return Poll::Ready(Ok(()));
        }
        match joined.following.look() {
            Turn::Waits => loop {
                if !self.poll_client(cx, scratch, true)? {
                    return Poll::Pending;
                }
            },
            Turn::Has(lease) => {
                let (sent, shard) = (joined.sent, joined.shard);
                self.joined = None;
                self.begin(lease);
                self.account.assign();
                self.account.send(self.engine.recently());
                match sent {
                    Sent::Query => self.engine.count_query(&self.database, Some(shard)),
                    Sent::Group { parsed, .. } => {
                        self.engine.count_group(&self.database, shard, parsed);
                    }
                }
                if let Some(timed) = &mut self.timed {
                    timed.since = self.engine.recently();
                    timed.script.tally.single(shard);
                }
                self.remember_settings();
                let Some(connection) = self.connection() else {
                    return Poll::Ready(Ok(()));
                };
                sent.note(&mut connection.pipeline, false);
                connection.flushed = false;
                let ahead = std::mem::take(&mut connection.ahead);
                if !ahead.is_empty() {
                    self.on_read(cx, Ok(&ahead))?;
                }
                Poll::Ready(Ok(()))
            }
            Turn::TurnedAway => {
                let mut input = std::mem::take(&mut joined.again);
                let shard = joined.shard;
                self.engine
                    .count_shared(&self.database, shard, SharedOutcome::TurnedAway);
                self.leave();
                self.goes_alone = true;
                input.append(&mut self.input);
                self.input = input;
                Poll::Ready(Ok(()))
            }
        }
    }
}
