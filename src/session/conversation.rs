//! What a statement over several shards sees of its client.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::config::{self, Limits, Lookup};
use crate::error::{Fault, SqlState};
use crate::execute::{Conversation, Copied, End, Interrupted, Told, Twin};
use crate::metrics::catalogue::RouteLabel;
use crate::net::poll_read;
use crate::placement::ShardId;
use crate::placement::rule::Unlisted;
use crate::placement::topology::Topology;
use crate::planner;
use crate::planner::plan::Entry;
use crate::server::connection::{CancelTarget, ServerConnection};
use crate::server::pool::Lease;
use crate::server::settings::Detour;
use crate::server::statements::{Prepared, ServerName};
use crate::sql::scan::Lexing;
use crate::transaction::commit::Committed;
use crate::types::key::Key;
use crate::types::oids::Mapping;
use crate::wire::frame::{self, Frame, Split};

use super::Session;
use super::long::LONG;
use super::oids::unread_fault;
use super::simple::statement_key;
use super::twins::Turn;

/// A turn on a twin, whose connections stand behind those of the shards.
pub(crate) struct OnTwin {
    turn: Turn,
    shard: ShardId,
}

impl Twin for OnTwin {
    fn shard(&self) -> ShardId {
        self.shard
    }

    fn mark(&self) -> &str {
        self.turn.mark()
    }

    fn note(&self, phase: &'static str, rows: u64, bytes: u64) {
        self.turn.note(phase, rows, bytes);
    }

    fn busy_elsewhere(self) {
        self.turn.busy_elsewhere();
    }

    fn was_made_again(self) {
        self.turn.was_made_again();
    }
}

/// The client's own block waits for what it holds itself.
fn all_kept() -> Fault {
    Fault::error(
        SqlState::TOO_MANY_CONNECTIONS,
        "every twin has the rows of an open cursor or portal of this transaction",
    )
    .hint("Close a cursor, or raise gather.twins and run pgherd setup.")
}

impl Conversation for Session {
    type Twin = OnTwin;

    async fn take_twin(&mut self) -> Result<Option<OnTwin>, Interrupted> {
        if self.database.twins.is_empty() {
            return Ok(None);
        }
        let kept = self.block.as_ref().map_or(0, |block| block.twins.len());
        if kept >= self.database.twins.len() {
            return Err(Interrupted::Fault(all_kept()));
        }
        let twins = Arc::clone(&self.database.shared.twins);
        let user = self.identity.user.clone();
        let (limit, wait) = (
            self.database.gather.timeout,
            self.database.limits.query_wait_timeout,
        );
        let taken = async move {
            let mut current = twins.current(limit).await;
            if twins.are_missing() {
                // They may have been set up just now.
                twins.look_for_missing();
                current = twins.current(limit).await;
            }
            if twins.are_missing() {
                return Ok(None);
            }
            current?;
            twins.take(&user, wait).await.map(Some)
        };
        let mut taken = std::pin::pin!(taken);
        let turn = poll_fn(|cx| match taken.as_mut().poll(cx) {
            Poll::Ready(turn) => Poll::Ready(turn.map_err(Interrupted::Fault)),
            Poll::Pending => self.poll_watch(cx).map(Err),
        })
        .await?;
        let shards = self.database.topology.shards().len();
        Ok(turn.map(|turn| {
            let shard = u16::try_from(shards.saturating_add(turn.index()));
            let shard = ShardId(shard.unwrap_or(u16::MAX));
            OnTwin { turn, shard }
        }))
    }

    fn savepoints(&self) -> Option<Vec<String>> {
        let block = self.block.as_ref().filter(|block| !block.implicit)?;
        let names = block.savepoints.iter().map(|(name, _)| name.clone());
        Some(names.collect())
    }

    fn keep_twin(
        &mut self,
        lease: Lease,
        twin: OnTwin,
        last: String,
        portal: Option<&[u8]>,
        text: &[u8],
    ) {
        Session::keep_twin(self, (lease, twin.turn, last), portal, text);
    }

    fn lend_block(&mut self) -> Option<Lease> {
        self.block.as_ref().filter(|block| block.sent)?;
        self.client.targets.borrow_mut().clear();
        self.lease.take()
    }

    fn return_block(&mut self, lease: Lease) {
        let shard = lease.pool().target.shard;
        let is_in_sync = lease
            .peek()
            .is_some_and(|connection| connection.pipeline.is_idle());
        if is_in_sync {
            self.adopt(lease);
        } else {
            self.client.kill(self.kept_was_lost(shard));
        }
    }

    fn fail_block(&mut self) {
        if let Some(block) = &mut self.block {
            block.failed = true;
            block.parts.fail();
        }
    }

    fn bind_block(&mut self) {
        if let Some(block) = &mut self.block {
            block.bound = true;
        }
    }

    fn parts(&mut self) -> Option<&mut Vec<Lease>> {
        self.block.as_mut().map(|block| &mut block.parts.0)
    }

    fn is_in_block(&self) -> bool {
        self.block.is_some()
    }

    async fn take_joined(&mut self, shard: ShardId) -> Result<Lease, Interrupted> {
        Session::take_joined(self, shard).await
    }

    fn return_joined(&mut self, lease: Lease) {
        Session::return_joined(self, lease);
    }

    async fn can_decide(&mut self) -> Result<bool, Interrupted> {
        let generation = self.database.generation;
        if self.database.shared.two_phase.known(generation).is_none() {
            self.ask_two_phase().await?;
        }
        let known = self.database.shared.two_phase.known(generation);
        Ok(matches!(known, Some(Ok(()))))
    }

    fn reads_consistently(&self) -> bool {
        self.database.consistent_reads
    }

    async fn check_two_phase(&mut self) -> Result<(), Interrupted> {
        let generation = self.database.generation;
        if self.database.shared.two_phase.known(generation).is_none() {
            self.ask_two_phase().await?;
        }
        match self.database.shared.two_phase.known(generation) {
            Some(Err(fault)) => Err(Interrupted::Fault(fault)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    async fn commit(&mut self, leases: Vec<Lease>) -> Committed {
        self.commit_statement(leases).await
    }

    fn count_gathered(&self, rows: u64, bytes: u64) {
        self.engine.count_gathered(rows, bytes);
    }

    fn gather(&self) -> &config::Gather {
        &self.database.gather
    }

    fn plan_with<T>(&self, work: impl FnOnce(planner::Context<'_>) -> T) -> T {
        let catalog = self.database.shared.catalog.load();
        work(planner::Context {
            topology: &self.database.topology,
            catalog: &catalog,
            search_path: &[],
            lexing: Lexing::default(),
            comment_hints: false,
            tenant: false,
        })
    }

    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        Session::reply(self, write);
    }

    fn put_answer(&mut self, messages: &[u8]) {
        self.hold_answer();
        let from = self.out.len();
        self.out.extend_from_slice(messages);
        self.withhold_completion(from);
    }

    fn abandon_write(&mut self) {
        Session::abandon_write(self);
    }

    fn reply_fault(&mut self, fault: &Fault) {
        Session::reply_fault(self, fault);
    }

    fn put_error(&mut self, error: &[u8]) {
        let sentence = self.sentence_for(error);
        let error = sentence.as_deref().unwrap_or(error);
        match self.error_in_series(error) {
            Some(moved) => self.out.extend_from_slice(&moved),
            None => self.out.extend_from_slice(error),
        }
        self.fail_series();
    }

    fn reply_ready(&mut self) {
        if self.is_implied() {
            // It ends first.
            self.answered = true;
        } else {
            Session::reply_ready(self);
        }
    }

    fn answer_parses(&mut self) {
        Session::answer_parses(self);
    }

    fn close_statement(&mut self, name: &[u8]) -> bool {
        if name.is_empty() {
            self.unnamed = None;
            return true;
        }
        let was_ours = self.statements.remove(statement_key(name)).is_some();
        self.client.prepared.set(self.statements.len());
        was_ours || !self.sql_prepared.iter().any(|it| it.as_bytes() == name)
    }

    fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.poll_send(cx) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    async fn flush_all(&mut self) -> Result<(), End> {
        poll_fn(|cx| {
            if let Some(end) = self.killed(cx) {
                return Poll::Ready(Err(end));
            }
            self.poll_send(cx)
        })
        .await
    }

    async fn next_tag(&mut self) -> Result<u8, End> {
        loop {
            self.drop_unread();
            if let Some(tag) = self.input.first() {
                return Ok(*tag);
            }
            self.flush_all().await?;
            poll_fn(|cx| self.poll_more(cx)).await?;
        }
    }

    fn unread(&mut self, tag: u8, body: &[u8]) {
        let mut input = Vec::new();
        frame::write(&mut input, tag, &[body]);
        input.append(&mut self.input);
        self.input = input;
    }

    fn has_portal(&self, name: &[u8]) -> bool {
        let mut cursors = self.block.iter().flat_map(|block| &block.cursors);
        self.portals.iter().any(|(known, _)| **known == *name)
            || cursors.any(|(known, _)| known.as_bytes() == name)
    }

    async fn next_message(&mut self) -> Result<(u8, Vec<u8>), End> {
        self.end_held_write().await;
        loop {
            self.drop_unread();
            let max = self.message_max();
            match frame::split(&self.input, max) {
                Ok(Split::Whole(frame, rest)) => {
                    let body = if has_names(frame.tag) {
                        frame.body.to_vec()
                    } else {
                        Vec::new()
                    };
                    let message = (frame.tag, body);
                    let used = self.input.len().saturating_sub(rest.len());
                    self.input.drain(..used);
                    return Ok(message);
                }
                Ok(Split::Part { tag, total, .. }) if !has_names(tag) => {
                    self.copy_left = total.saturating_sub(self.input.len());
                    self.input.clear();
                    return Ok((tag, Vec::new()));
                }
                // As outside of such a group.
                Ok(Split::Part { total, .. }) if total > LONG => return Err(End::Client),
                Ok(Split::Part { .. } | Split::Nothing) => {}
                Err(error) => {
                    return Err(End::Fault(Box::new(Fault::fatal(
                        SqlState::PROTOCOL_VIOLATION,
                        error.to_string(),
                    ))));
                }
            }
            self.flush_all().await?;
            poll_fn(|cx| self.poll_more(cx)).await?;
        }
    }

    fn poll_copied(&mut self, cx: &mut Context<'_>) -> Poll<Result<Copied, Interrupted>> {
        loop {
            if self.client.canceled.take() {
                return Poll::Ready(Err(Interrupted::Fault(self.cancel_fault())));
            }
            if let Some(copied) = self.take_copied()? {
                return Poll::Ready(Ok(copied));
            }
            match self.poll_more(cx) {
                Poll::Ready(result) => result.map_err(Interrupted::End)?,
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Interrupted> {
        Session::poll_watch(self, cx)
    }

    fn park_current(&mut self) {
        match &self.block {
            Some(block) if block.sent && !block.joins => {
                if self.lease.is_some() {
                    self.park_part();
                }
            }
            // It was held from before: the block is not open on it.
            Some(_) => self.let_go(),
            None => self.parked.extend(self.lease.take()),
        }
    }

    async fn take_part(&mut self, shard: ShardId) -> Result<Lease, Interrupted> {
        let parked = self.parked.iter().position(|lease| {
            lease
                .peek()
                .is_some_and(|connection| connection.shard == shard)
        });
        let mut lease = match parked {
            Some(index) => self.parked.swap_remove(index),
            None => self.acquire(shard).await?,
        };
        let wanted = Rc::clone(self.settings_in_force());
        if let Err(interrupted) = self.settle_to(wanted, &mut lease).await {
            // What the client holds there stays, unless the connection is lost.
            if lease.peek().is_some_and(ServerConnection::is_clean) {
                self.give_back(lease);
            } else if parked.is_some() && self.pinned.is_some() {
                self.lose(shard);
            }
            return Err(interrupted);
        }
        Ok(lease)
    }

    fn give_back(&mut self, lease: Lease) {
        if self.keeps_connections() {
            self.parked.push(lease);
        } else {
            lease.give_back(self.engine.now());
        }
    }

    fn schema_changed_elsewhere(&self) {
        Session::schema_changed_elsewhere(self);
    }

    fn keeps_connections(&self) -> bool {
        Session::keeps_connections(self)
    }

    fn lose(&mut self, shard: ShardId) {
        self.client.kill(self.kept_was_lost(shard));
    }

    fn forget_targets(&mut self) {
        self.client.targets.borrow_mut().clear();
        self.client.step.set(0);
    }

    fn aim_cancels(&mut self, targets: Vec<Rc<CancelTarget>>) {
        *self.client.targets.borrow_mut() = targets;
        self.client.canceled.set(false);
        self.client.step.set(0);
    }

    fn share_cancels(&mut self, targets: Vec<Rc<CancelTarget>>) {
        self.aim_cancels(targets);
        self.steps = self.steps.saturating_add(1);
        self.client.step.set(self.steps);
    }

    fn cancel_now(&self, target: &Rc<CancelTarget>) {
        self.engine.cancel_now(target);
    }

    async fn ask_for_rows(
        &mut self,
        lookup: Option<&Arc<Lookup>>,
        values: Vec<Key<'static>>,
        entries: Vec<Entry>,
        unlisted: Vec<Unlisted>,
    ) -> Result<Told, Interrupted> {
        Session::ask_for_rows(self, lookup, values, entries, unlisted).await
    }

    fn topology(&self) -> &Arc<Topology> {
        &self.database.topology
    }

    fn limits(&self) -> &Limits {
        &self.database.limits
    }

    fn mapping(&self, shard: ShardId) -> Result<Option<Arc<Mapping>>, Fault> {
        if !self.is_foreign(shard) {
            return Ok(None);
        }
        let unread = || unread_fault(self.database.name_of(shard));
        Session::mapping(self, shard).map(Some).ok_or_else(unread)
    }

    async fn read_types(&mut self) -> Result<(), Interrupted> {
        Session::read_types(self).await
    }

    fn server_name(&self, prepared: &Prepared) -> ServerName {
        Session::server_name(self, prepared)
    }

    fn detour(&self, prepared: &Prepared) -> Detour {
        Session::detour(self, prepared)
    }

    fn schema_may_change(&self) {
        self.database.schema_may_change();
    }

    async fn schema_changed(&mut self) {
        self.database.schema_changed();
        if self.block.is_some() {
            self.ran_ddl = true;
            return;
        }
        let shared = Arc::clone(&self.engine.shared);
        let name = self.database.name.clone();
        let task = self
            .engine
            .shared
            .control_runtime
            .spawn(async move { shared.refresh_catalog(&name).await });
        match task.await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                tracing::warn!(error = %fault, "could not read the catalog after DDL");
            }
            Err(error) => tracing::error!(%error, "reading the catalog failed"),
        }
    }

    fn note_buffered(&self, bytes: usize) {
        self.client.buffered.set(bytes);
    }

    fn now(&self) -> Instant {
        self.engine.now()
    }

    fn count_wide(&mut self, label: RouteLabel, began: Instant, succeeded: bool) {
        Session::count_wide(self, label, began, succeeded);
    }
}

/// Whether a message of the extended protocol is one whose names count: Describe, Execute or Close.
fn has_names(tag: u8) -> bool {
    matches!(tag, b'D' | b'E' | b'C')
}

impl Session {
    /// Drops what nobody reads any more: the rest of a message of which only the tag counted, or within
    /// which a COPY failed, and the CopyData behind it.
    fn drop_unread(&mut self) {
        let mut used = self.copy_left.min(self.input.len());
        self.copy_left = self.copy_left.saturating_sub(used);
        loop {
            let rest = self.input.get(used..).unwrap_or_default();
            match frame::split(rest, self.message_max()) {
                Ok(Split::Whole(frame, _)) if frame.tag == b'd' => {
                    used = used.saturating_add(frame.bytes.len());
                }
                Ok(Split::Part {
                    tag: b'd', total, ..
                }) => {
                    self.copy_left = total.saturating_sub(rest.len());
                    used = self.input.len();
                }
                _ => break,
            }
        }
        self.input.drain(..used);
    }

    /// Why the client is to be ended, if it is; otherwise its task wakes when it is to be.
    fn killed(&mut self, cx: &Context<'_>) -> Option<End> {
        self.client.register(cx.waker());
        let fault = self.client.kill.borrow_mut().take()?;
        Some(End::Fault(Box::new(fault)))
    }

    /// More bytes of the client, or a reason to end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if let Some(end) = self.killed(cx) {
            return Poll::Ready(Err(end));
        }
        let mut scratch = self.engine.take_scratch();
        let read = poll_read(&mut self.stream, cx, &mut scratch);
        if let Poll::Ready(Ok(count)) = &read {
            self.engine.count_received(&self.database, *count);
            self.input
                .extend_from_slice(scratch.get(..*count).unwrap_or_default());
        }
        self.engine.give_scratch(scratch);
        read.map(|read| match read {
            Ok(0) | Err(_) => Err(End::Client),
            Ok(_) => Ok(()),
        })
    }

    /// What has arrived of the COPY data, as one; or else how it ends.
    fn take_copied(&mut self) -> Result<Option<Copied>, Interrupted> {
        let mut data = Vec::new();
        let mut used = 0_usize;
        let end = loop {
            let rest = self.input.get(used..).unwrap_or_default();
            if self.copy_left > 0 {
                let count = self.copy_left.min(rest.len());
                if count == 0 {
                    break Ok(None);
                }
                data.extend_from_slice(rest.get(..count).unwrap_or_default());
                self.copy_left = self.copy_left.saturating_sub(count);
                used = used.saturating_add(count);
                continue;
            }
            match frame::split(rest, self.message_max()) {
                // As PostgreSQL does while it reads COPY data.
                Ok(Split::Whole(frame, _)) if matches!(frame.tag, b'H' | b'S') => {
                    used = used.saturating_add(frame.bytes.len());
                }
                Ok(Split::Whole(frame, _)) if frame.tag == b'd' => {
                    data.extend_from_slice(frame.body);
                    used = used.saturating_add(frame.bytes.len());
                }
                Ok(Split::Part {
                    tag: b'd', total, ..
                }) => {
                    self.copy_left = total.saturating_sub(frame::HEADER);
                    used = used.saturating_add(frame::HEADER);
                }
                // What came before it is handed over first.
                Ok(Split::Whole(..)) | Err(_) if !data.is_empty() => break Ok(None),
                Ok(Split::Whole(frame, _)) => {
                    used = used.saturating_add(frame.bytes.len());
                    break end_of_copy(frame).map(Some);
                }
                Ok(Split::Part { .. } | Split::Nothing) => break Ok(None),
                Err(error) => {
                    break Err(Interrupted::End(End::Fault(Box::new(Fault::fatal(
                        SqlState::PROTOCOL_VIOLATION,
                        error.to_string(),
                    )))));
                }
            }
        };
        self.input.drain(..used);
        if data.is_empty() {
            end
        } else {
            Ok(Some(Copied::Data(data)))
        }
    }
}

/// How COPY data ends: by a message that is neither data nor passed over.
fn end_of_copy(frame: Frame<'_>) -> Result<Copied, Interrupted> {
    match frame.tag {
        b'c' => Ok(Copied::Done),
        b'f' => {
            let message = frame
                .body
                .split(|byte| *byte == 0)
                .next()
                .unwrap_or_default();
            Ok(Copied::Fail(String::from_utf8_lossy(message).into_owned()))
        }
        b'X' => Err(Interrupted::End(End::Client)),
        tag => Err(Interrupted::Fault(Fault::error(
            SqlState::PROTOCOL_VIOLATION,
            format!("unexpected message type 0x{tag:02X} during COPY from stdin"),
        ))),
    }
}
