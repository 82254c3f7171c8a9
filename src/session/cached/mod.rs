//! A session's dealings with the cache: answers it gives from there, answers it keeps for others, and what it
//! drops by what it writes.
//!
//! Reads are answered only where nothing else is open or under way. A write is marked before it is sent, in a
//! block before its COMMIT; what acknowledges it to the client is held until it is over. *Invariant:* nothing
//! that is held waits for more of the client.

mod looked;
mod read;
mod write;

use std::rc::Rc;
use std::sync::Arc;

use crate::cache::answer::Recorder;
use crate::cache::key::Key;
use crate::cache::{Audit, Cache, Capture, Found, Mark};
use crate::error::{Fault, SqlState};
use crate::execute::Interrupted;
use crate::placement::topology::Topology;
use crate::planner::cache::{Look, Tag};
use crate::server::pool::Lease;
use crate::server::settings::Settings;
use crate::transaction::failpoint;
use crate::wire::pipeline::Request;

use super::Session;

pub(crate) use read::Looked;

/// What a session has to do with the cache.
#[derive(Debug, Default)]
pub(crate) struct Caching {
    /// What the answers of these settings are told apart by.
    scope: Option<(Rc<Settings>, [u8; 32])>,
    recording: Option<Box<Recording>>,
    /// How often the message at hand has waited for another client's read.
    waited: u8,
    /// What the open block has written.
    touched: Vec<Tag>,
    /// Rows that the open transaction has written, to be looked at before it is committed.
    looks: Vec<Look>,
    /// Whether a table of that is strict.
    strict: bool,
    /// What Redis has said of the message at hand.
    found: Option<(Key, Found)>,
    /// A write under way.
    mark: Option<Marked>,
    /// From here on what is to be sent is held until the write is over.
    gate: Option<usize>,
}

/// A write under way.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
struct Marked {
    mark: Mark,
    /// The message that it was made for is done with.
    is_sent: bool,
    /// It is the end of a block.
    is_commit: bool,
    /// That has been bound, and not executed.
    is_bound: bool,
    /// Redis knows of all of it, or has not answered.
    is_told: bool,
}

/// What an answer is recorded for.
#[derive(Debug)]
enum Purpose {
    /// To be kept for others.
    Keep(Capture),
    /// To be compared with what is kept.
    Compare(Audit),
}

impl Purpose {
    fn key(&self) -> Key {
        match self {
            Purpose::Keep(capture) => capture.key(),
            Purpose::Compare(audit) => audit.wanted.key,
        }
    }
}

/// An answer that is recorded as it is sent.
#[derive(Debug)]
struct Recording {
    purpose: Purpose,
    recorder: Recorder,
    /// What is to be sent has been taken up to here.
    at: usize,
}

impl Session {
    /// Whether the cache has anything to do with what this session does.
    pub(crate) fn minds_cache(&self) -> bool {
        self.database.topology.caches() || self.is_outdated()
    }

    /// Whether what is cached may be another than when the session's configuration was read.
    fn is_outdated(&self) -> bool {
        self.database.generation != self.engine.generation()
    }

    fn cache(&self) -> &Arc<Cache> {
        &self.engine.shared.cache
    }

    /// The names of tags in all databases.
    fn tag_names(&self, tags: &[Tag]) -> crate::cache::Names {
        let database = &self.database.name;
        let names = tags.iter().map(|tag| format!("{database}:{tag}").into());
        names.collect()
    }

    fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.database.topology)
    }

    /// Whether a write of cached tables is under way.
    pub(crate) fn is_marked(&self) -> bool {
        self.caching.mark.is_some()
    }

    /// Whether answers wait until a write is over; nothing more is taken of the client meanwhile.
    pub(crate) fn holds_answers(&self) -> bool {
        // What ends a group is taken first: the server may not answer before that.
        let connection = self.lease.as_ref().and_then(Lease::peek);
        let is_unsynced = connection.is_some_and(|connection| connection.unsynced);
        self.caching.gate.is_some() && !self.copy_in && !is_unsynced
    }

    /// The end of a block that was bound is executed.
    pub(crate) fn execute_commit(&mut self) {
        if let Some(marked) = &mut self.caching.mark {
            marked.is_bound = false;
        }
    }

    /// A group ends: what it has bound and not executed ends no block.
    pub(crate) fn unbind_commit(&mut self) {
        if let Some(marked) = &mut self.caching.mark
            && marked.is_bound
        {
            marked.is_bound = false;
            marked.is_commit = false;
        }
    }

    /// What is sent from here on acknowledges a write: it waits until that is over. Within a transaction nothing
    /// does but its end.
    pub(crate) fn hold_answer(&mut self) {
        let is_open = self.block.is_some();
        let marked = self.caching.mark.as_ref();
        if marked.is_some_and(|marked| marked.is_commit || !is_open) {
            let end = self.out.len();
            self.caching.gate.get_or_insert(end);
        }
    }

    /// What was held acknowledges nothing: the transaction goes on.
    pub(crate) fn release_answer(&mut self) {
        let is_commit = self
            .caching
            .mark
            .as_ref()
            .is_some_and(|mark| mark.is_commit);
        if !is_commit {
            self.caching.gate = None;
        }
    }

    /// What may be sent of what is to be sent; the rest is held.
    pub(crate) fn split_held(&mut self) -> Vec<u8> {
        match self.caching.gate {
            Some(gate) => self.out.split_off(gate.min(self.out.len())),
            None => Vec::new(),
        }
    }

    /// What is held follows what has not been sent yet.
    pub(crate) fn join_held(&mut self, held: &[u8]) {
        if let Some(gate) = &mut self.caching.gate {
            *gate = self.out.len();
        }
        self.out.extend_from_slice(held);
        if let Some(recording) = &mut self.caching.recording {
            recording.at = self.out.len();
        }
    }

    /// CommandComplete of a Query says that it is committed, outside of a block.
    pub(crate) fn hold_acknowledgement(&mut self) {
        if !self.is_marked() {
            return;
        }
        let front = self.lease.as_ref().and_then(Lease::peek);
        let front = front.and_then(|connection| connection.pipeline.front());
        if matches!(front, Some((Request::Query, false, _))) {
            self.hold_answer();
        }
    }

    /// A write over several shards is committed, and more of its group is to come: its client may wait for the
    /// answer before that.
    ///
    /// # Cancel safety
    /// Not safe: the session ends with it.
    pub(crate) async fn end_held_write(&mut self) {
        let is_commit = self
            .caching
            .mark
            .as_ref()
            .is_some_and(|mark| mark.is_commit);
        // What ends a block may not have been carried out yet.
        if is_commit || self.caching.gate.take().is_none() {
            return;
        }
        let all = self.tag_of_all();
        if let Some(marked) = self.caching.mark.take() {
            marked.mark.end_everywhere(&all).await;
        }
    }

    /// A message of the client's is done with.
    pub(crate) fn end_message(&mut self) {
        self.caching.waited = 0;
        self.caching.found = None;
        let Some(marked) = &mut self.caching.mark else {
            return;
        };
        if marked.is_bound {
            return;
        }
        marked.is_sent = true;
        if marked.is_commit {
            self.hold_answer();
        }
    }

    /// Nobody can tell what became of a write: its tags stay marked for a while.
    pub(crate) fn abandon_write(&mut self) {
        self.caching.mark = None;
        self.caching.gate = None;
    }

    /// Ends what is over: an answer that has been sent whole is kept, and a write's tags get new values before
    /// its client hears of it. Returns whether Redis has to be told first.
    pub(crate) fn settle_cache(&mut self) -> bool {
        if self.caching.recording.is_some() {
            self.record();
        }
        if self.caching.mark.is_none() || !self.write_is_over() {
            return false;
        }
        if self.cache().redis().is_some() {
            return true;
        }
        if let Some(marked) = self.caching.mark.take() {
            self.forget_touched(marked.is_commit);
            marked.mark.end();
        }
        self.caching.gate = None;
        false
    }

    /// Tells Redis that a write is over.
    ///
    /// # Cancel safety
    /// Not safe: the session ends with it.
    pub(crate) async fn end_write_in_redis(&mut self) -> Result<(), Interrupted> {
        let all = self.tag_of_all();
        failpoint::pass("written");
        if let Some(marked) = self.caching.mark.take() {
            self.forget_touched(marked.is_commit);
            marked.mark.end_everywhere(&all).await;
        }
        self.caching.gate = None;
        Ok(())
    }

    /// What a block has written that has ended is marked no more.
    fn forget_touched(&mut self, is_over: bool) {
        if is_over {
            self.caching.touched.clear();
        }
    }

    /// Tells Redis of a write that is about to be sent.
    ///
    /// # Errors
    /// 57P03: Redis does not answer, and a table of it is `strict`.
    ///
    /// # Cancel safety
    /// Safe: the session goes on, and what is marked is unmarked at the end of the message.
    pub(crate) async fn tell_of_write(&mut self, strict: bool) -> Result<(), Interrupted> {
        let all = self.tag_of_all();
        let Some(marked) = &mut self.caching.mark else {
            return Ok(());
        };
        marked.is_told = true;
        if marked.mark.tell(&all).await.is_err() && strict {
            return Err(Interrupted::Fault(
                Fault::error(
                    SqlState::CANNOT_CONNECT_NOW,
                    "the cache cannot be told of this write",
                )
                .detail("Redis does not answer, and a table that is written is strict.")
                .hint("Try again; see that Redis runs, or take strict off the table's cache."),
            ));
        }
        Ok(())
    }

    fn tag_of_all(&self) -> String {
        format!("{}:{}", self.database.name, Tag::All)
    }

    /// Whether everything sent has been answered, and no transaction is open with it.
    fn write_is_over(&self) -> bool {
        let Some(marked) = &self.caching.mark else {
            return false;
        };
        let connection = self.lease.as_ref().and_then(Lease::peek);
        let is_answered = connection.is_none_or(|connection| connection.pipeline.is_empty());
        let is_synced = connection.is_none_or(|connection| !connection.unsynced);
        marked.is_sent
            && is_answered
            && self.joined.is_none()
            && self.passing.is_none()
            && (marked.is_commit || is_synced && self.block.is_none())
    }
}
