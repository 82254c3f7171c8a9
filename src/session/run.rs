//! The loop of a session: reads, hands bytes to the machine, writes, and does what takes time.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::error::{Fault, SqlState};
use crate::execute::{End, Interrupted};
use crate::net::poll_read;
use crate::placement::ShardId;
use crate::planner;
use crate::planner::plan::Effect;
use crate::server::connection::{ServerConnection, poll_flush};
use crate::server::hidden::{run_hidden, settings_sql};
use crate::server::pool::Lease;
use crate::wire::backend;
use crate::wire::frame::{self, Frame, Split};

use super::Settings;
use super::cached::Looked;
use super::client::Activity;
use super::replies::Lost;
use super::{Passing, Session, Stop, Task};

/// Bytes of a client's messages that are held unread while an earlier one waits.
const AHEAD_MAX: usize = 128 * 1024;
/// Replies that a server may owe before the client's next messages wait.
const OWED_MAX: usize = 16 * 1024;

/// Replies of our own are sent without waiting for the server's from this many bytes on.
const SENT_AT_ONCE: usize = 16 * 1024;

/// The functions of large objects, which drivers call by their numbers: `lo_create`, `lo_open`, `lo_close`,
/// `loread`, `lowrite`, `lo_lseek`, `lo_creat`, `lo_tell`, `lo_unlink`, `lo_truncate`, and those of 64 bits.
/// What they open ends with its transaction.
const LARGE_OBJECTS: [u32; 13] = [
    715, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172,
];

/// How far the input could be handled.
#[derive(Debug)]
enum Progress {
    /// All of it, or up to an unfinished message.
    More,
    /// The next message waits for replies.
    Blocked,
    /// The next message needs this first.
    Need(Stop),
}

impl Session {
    /// Serves the client until it leaves or is made to.
    ///
    /// # Cancel safety
    /// Not safe: a drop closes the client's and the server's connections in the middle.
    pub async fn run(mut self: Box<Session>) {
        let end = loop {
            match self.turn().await {
                Ok(()) => {}
                Err(end) => break end,
            }
        };
        if matches!(end, End::Client) && !self.out.is_empty() {
            // What is ready goes out with the farewell; the client may be gone already.
            let mut cx = Context::from_waker(std::task::Waker::noop());
            drop(self.poll_flush_out(&mut cx));
        }
        if let End::Fault(fault) = end {
            self.engine.count_fault(&fault);
            backend::fault(&mut self.out, &fault);
            let farewell = poll_fn(|cx| self.poll_flush_out(cx));
            let limit = std::time::Duration::from_secs(1);
            // The client may be gone already.
            drop(tokio::time::timeout(limit, farewell).await);
        }
        self.finish();
    }

    /// Waits for something to happen and handles all of it.
    async fn turn(&mut self) -> Result<(), End> {
        let need = poll_fn(|cx| self.poll_turn(cx)).await?;
        match need {
            None => Ok(()),
            Some(stop) => Box::pin(self.satisfy(stop)).await,
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Stop>, End>> {
        self.client.register(cx.waker());
        self.engine.look_at_clock();
        if self.out.capacity() == 0 {
            self.out = self.engine.take_spare();
        }
        let mut scratch = self.engine.take_scratch();
        let result = self.poll_all(cx, &mut scratch);
        self.engine.give_scratch(scratch);
        if self.out.is_empty() && self.out.capacity() > 0 {
            let spare = std::mem::take(&mut self.out);
            self.engine.give_spare(spare);
        }
        result
    }

    fn poll_all(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<Option<Stop>, End>> {
        if let Some(end) = self.look_at_signals() {
            return Poll::Ready(Err(end));
        }
        self.corked = false;
        if self.joined.is_some() && self.poll_joined(cx, scratch)?.is_pending() {
            return Poll::Pending;
        }
        loop {
            self.flush_server(cx)?;
            self.flush_replies(cx)?;
            self.poll_server(cx, scratch)?;
            if self.settle_cache() {
                return Poll::Ready(Ok(Some(Stop::EndWrite)));
            }
            if self.client.sentenced.get() {
                self.look_at_sentence();
            }
            self.deliver_notifications();
            let held = self.input.len();
            let asked = self.connection_id();
            let progress = self.advance();
            if !matches!(progress, Progress::Need(_)) {
                self.release_if_free();
            }
            self.return_granted();
            self.corked &= !matches!(progress, Progress::Need(_));
            self.flush_server(cx)?;
            self.flush_replies(cx)?;
            if let Progress::Need(stop) = progress {
                return Poll::Ready(Ok(Some(stop)));
            }
            let blocked = matches!(progress, Progress::Blocked);
            // A connection that was just taken has not been asked to wake us.
            let advanced = held != self.input.len() || asked != self.connection_id();
            if !self.poll_client(cx, scratch, blocked)? && !advanced {
                if self.corked {
                    // Until others have been read that are ready now.
                    let again = std::pin::pin!(tokio::task::yield_now()).poll(cx);
                    debug_assert!(again.is_pending());
                }
                return Poll::Pending;
            }
        }
    }

    fn connection_id(&self) -> Option<u64> {
        self.lease
            .as_ref()
            .and_then(Lease::peek)
            .map(|connection| connection.id)
    }

    /// Sends what the client is to get, unless more is sure to come with it: replies of our own
    /// travel with the server's that follow.
    fn flush_replies(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let more_comes = self.joined.is_some()
            || self
                .lease
                .as_ref()
                .and_then(Lease::peek)
                .is_some_and(|connection| !connection.pipeline.is_empty());
        if more_comes && self.out.len() < SENT_AT_ONCE && !self.client_is_full {
            return Ok(());
        }
        self.flush_client(cx)
    }

    fn look_at_signals(&mut self) -> Option<End> {
        if !self.client.is_signaled() {
            return None;
        }
        let working = self.lease.is_some() || self.joined.is_some();
        if let Some(fault) = self.client.kill.borrow_mut().take() {
            return Some(End::Fault(Box::new(fault)));
        }
        if self.client.canceled.get() && self.waits_for_twin() {
            self.client.canceled.set(false);
            let lost = Lost("it did not take a cancel request in time".to_owned());
            if self.on_lost(&lost).is_err() {
                return Some(End::Client);
            }
        }
        if !working {
            // Nothing runs: the request came too late.
            self.client.canceled.set(false);
        }
        None
    }

    fn deliver_notifications(&mut self) {
        let is_busy = self
            .lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| !connection.is_clean());
        if self.client.notifications.borrow().is_empty() || is_busy || self.block.is_some() {
            return;
        }
        for message in self.client.notifications.borrow_mut().drain(..) {
            self.out.extend_from_slice(&message);
        }
    }

    /// Reads the server as long as the client takes what it says.
    fn poll_server(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Result<(), End> {
        while !self.client_is_full {
            if self.is_stalled() {
                let Poll::Ready(bytes) = self.poll_stalled(cx) else {
                    return Ok(());
                };
                self.on_read(cx, Ok(&bytes))?;
                continue;
            }
            let Some(connection) = self.connection() else {
                return Ok(());
            };
            let read = match connection.poll_read(cx, scratch) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => Err(Lost("the server closed the connection".to_owned())),
                Poll::Ready(Ok(count)) => Ok(count),
                Poll::Ready(Err(error)) => Err(Lost(error.to_string())),
            };
            self.on_read(
                cx,
                read.map(|count| scratch.get(..count).unwrap_or_default()),
            )?;
        }
        Ok(())
    }

    /// Handles what came from the server.
    pub(crate) fn on_read(
        &mut self,
        cx: &mut Context<'_>,
        read: Result<&[u8], Lost>,
    ) -> Result<(), End> {
        let outcome = read.and_then(|data| self.on_server_bytes(data));
        if let Err(lost) = outcome
            && self.on_lost(&lost).is_err()
        {
            return Err(End::Client);
        }
        if !self.out.is_empty() {
            self.flush_client(cx)?;
        }
        self.flush_server(cx)?;
        self.release_if_free();
        Ok(())
    }

    fn flush_client(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        // TLS may keep what was written.
        if self.out.is_empty() && !self.client_is_full {
            return Ok(());
        }
        self.client_is_full = self.poll_send(cx)?.is_pending();
        Ok(())
    }

    /// Sends to the client what its socket takes; ready when that is everything.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.departed {
            match self.poll_flush_out(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(_gone)) => self.part()?,
            }
        }
        self.out.clear();
        Poll::Ready(Ok(()))
    }

    /// The client's socket is closed. One that has said good-bye, as libpq does without waiting for an
    /// answer, has what it asked before carried out, as PostgreSQL does; any other's work ends with it.
    fn part(&mut self) -> Result<(), End> {
        let mut rest = self.input.as_slice();
        while let Ok(Split::Whole(frame, behind)) = frame::split(rest, u32::MAX) {
            self.departed |= frame.tag == b'X';
            rest = behind;
        }
        if self.departed && self.passing.is_none() {
            Ok(())
        } else {
            Err(End::Client)
        }
    }

    /// Sends what the client's socket takes, and counts it.
    pub(crate) fn poll_flush_out(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.record_sent();
        let withheld = self.split_held();
        let held = self.out.len();
        let flushed = poll_flush(&mut self.stream, &mut self.out, cx);
        self.count_flush(held.saturating_sub(self.out.len()));
        if !withheld.is_empty() {
            self.join_held(&withheld);
        }
        self.keep_place();
        flushed
    }

    fn flush_server(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let corked = self.corked;
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        if connection.is_flushed() || corked {
            return Ok(());
        }
        if let Poll::Ready(Err(error)) = connection.poll_flush(cx)
            && self.on_lost(&Lost(error.to_string())).is_err()
        {
            return Err(End::Client);
        }
        Ok(())
    }

    /// Reads the client unless it is too far ahead. Returns whether anything came.
    pub(crate) fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        blocked: bool,
    ) -> Result<bool, End> {
        let server_is_full = self
            .lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| !connection.out.is_empty());
        let waits = blocked || server_is_full || self.is_full();
        if waits && self.input.len() > AHEAD_MAX {
            return Ok(false);
        }
        if self.departed {
            return Ok(false);
        }
        let count = match poll_read(&mut self.stream, cx, scratch) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0) | Err(_)) => return self.part().map(|()| false),
            Poll::Ready(Ok(count)) => count,
        };
        self.engine.count_received(&self.database, count);
        let data = scratch.get(..count).unwrap_or_default();
        if self.input.is_empty() && !waits {
            // In place: only what is left over is copied.
            self.handle(data)?;
        } else {
            self.input.extend_from_slice(data);
        }
        Ok(true)
    }

    /// Handles bytes that were just read; keeps the rest for later.
    fn handle(&mut self, data: &[u8]) -> Result<(), End> {
        let (used, progress) = self.consume(data)?;
        let rest = data.get(used..).unwrap_or_default();
        if !rest.is_empty() {
            self.input.extend_from_slice(rest);
        }
        if let Progress::Need(stop) = progress {
            self.held_need = Some(stop);
        }
        Ok(())
    }

    /// Whether enough waits for the client or the server, or is owed by the server.
    fn is_full(&self) -> bool {
        let connection = self.lease.as_ref().and_then(Lease::peek);
        self.client_is_full && self.out.len() > AHEAD_MAX
            || connection.is_some_and(|connection| {
                connection.out.len() > AHEAD_MAX || connection.pipeline.len() > OWED_MAX
            })
    }

    /// Handles what is held.
    fn advance(&mut self) -> Progress {
        if let Some(stop) = self.held_need.take() {
            return Progress::Need(stop);
        }
        if let Some(progress) = self.advance_series() {
            return progress;
        }
        if self.input.is_empty() {
            return Progress::More;
        }
        if self.is_full() {
            return Progress::Blocked;
        }
        let input = std::mem::take(&mut self.input);
        match self.consume(&input) {
            Ok((used, progress)) => {
                if used < input.len() {
                    self.input = input;
                    self.input.drain(..used);
                }
                progress
            }
            Err(End::Fault(fault)) => Progress::Need(Stop::Fault(*fault)),
            Err(End::Client) => Progress::Need(Stop::Close),
        }
    }

    /// Goes on with a text of several statements; `None` when there is none.
    fn advance_series(&mut self) -> Option<Progress> {
        while self.series.is_some() {
            match self.continue_series() {
                Ok(()) => {}
                Err(Stop::Idle | Stop::Drain) if self.lease.is_none() => {}
                Err(Stop::Idle) => return Some(Progress::Blocked),
                Err(Stop::Drain) => {
                    self.ask_for_replies();
                    return Some(Progress::Blocked);
                }
                Err(stop) => return Some(Progress::Need(stop)),
            }
        }
        None
    }

    /// Handles whole messages from the front of `data`; returns how many bytes are done with.
    fn consume(&mut self, data: &[u8]) -> Result<(usize, Progress), End> {
        let mut rest = data;
        let done = |rest: &[u8]| data.len().saturating_sub(rest.len());
        loop {
            if rest.is_empty() {
                return Ok((done(rest), Progress::More));
            }
            if let Some(passing) = self.passing {
                rest = self.pass(passing, rest);
                continue;
            }
            if self.awaits_others()
                || self.series.is_some()
                || self.holds_answers()
                || self.awaits_sentence()
            {
                return Ok((done(rest), Progress::Blocked));
            }
            self.stop_sharing();
            if matches!(rest, [b'P' | b'B', ..]) && self.minds_cache() {
                match self.group_from_cache(rest) {
                    Looked::Answered(after) => {
                        self.end_message();
                        rest = after;
                        continue;
                    }
                    Looked::Stop(stop) => return Ok((done(rest), Progress::Need(stop))),
                    Looked::Pass => (),
                }
            }
            if matches!(rest, [b'P' | b'B', ..])
                && let Some(after) = self.send_group(rest)
            {
                rest = after;
                continue;
            }
            let max = self.message_max();
            match frame::split(rest, max) {
                Err(error) => return Err(End::Fault(Box::new(frame_fault(&error)))),
                Ok(Split::Nothing) => return Ok((done(rest), Progress::More)),
                Ok(Split::Whole(frame, after)) => match self.on_client_frame(frame) {
                    Ok(()) => {
                        self.end_message();
                        rest = after;
                    }
                    Err(Stop::Task(task)) => {
                        return Ok((done(after), Progress::Need(Stop::Task(task))));
                    }
                    Err(Stop::Close) => return Err(End::Client),
                    Err(Stop::Idle | Stop::Drain) if self.lease.is_none() => {}
                    Err(Stop::Idle) => return Ok((done(rest), Progress::Blocked)),
                    Err(Stop::Drain) => {
                        self.ask_for_replies();
                        return Ok((done(rest), Progress::Blocked));
                    }
                    Err(Stop::Fault(fault)) => {
                        return Err(End::Fault(Box::new(fault.into_fatal())));
                    }
                    Err(stop) => return Ok((done(rest), Progress::Need(stop))),
                },
                Ok(Split::Part { tag, total, body }) => {
                    let header = rest.get(..frame::HEADER).unwrap_or_default();
                    match self.on_part(tag, total, header, body) {
                        Ok(true) => {
                            self.end_message();
                            rest = &[];
                        }
                        Ok(false) => return Ok((done(rest), Progress::More)),
                        Err(Stop::Idle | Stop::Drain) if self.lease.is_none() => {}
                        Err(Stop::Idle) => return Ok((done(rest), Progress::Blocked)),
                        Err(Stop::Drain) => {
                            self.ask_for_replies();
                            return Ok((done(rest), Progress::Blocked));
                        }
                        Err(Stop::Fault(fault)) => {
                            return Err(End::Fault(Box::new(fault.into_fatal())));
                        }
                        Err(stop) => return Ok((done(rest), Progress::Need(stop))),
                    }
                }
            }
        }
    }

    pub(crate) fn message_max(&self) -> u32 {
        u32::try_from(self.database.limits.max_message_size).unwrap_or(u32::MAX)
    }

    /// Sends a Flush so that what was sent is answered.
    pub(crate) fn ask_for_replies(&mut self) {
        if let Some(connection) = self.connection()
            && !connection.flushed
        {
            frame::write(&mut connection.out, b'H', &[]);
            connection.flushed = true;
        }
    }

    /// More of a long message.
    fn pass<'a>(&mut self, passing: Passing, data: &'a [u8]) -> &'a [u8] {
        let (bytes, rest) = data.split_at_checked(passing.left).unwrap_or((data, &[]));
        if passing.to_server
            && let Some(connection) = self.connection()
        {
            connection.out.extend_from_slice(bytes);
        }
        let left = passing.left.saturating_sub(bytes.len());
        self.passing = (left > 0).then_some(Passing { left, ..passing });
        rest
    }

    fn on_client_frame(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        if !self.deallocating.is_empty() {
            // Which statements there are is known when that is answered.
            self.wait_for_replies()?;
            self.deallocating.clear();
        }
        if self.copy_in && !matches!(frame.tag, b'd' | b'c' | b'f' | b'H' | b'S' | b'X') {
            // Nothing else may come now: the server says so, and ends the connection.
            if let Some(connection) = self.connection() {
                connection.out.extend_from_slice(frame.bytes);
            }
            return Ok(());
        }
        match frame.tag {
            b'Q' => {
                self.settle_looks()?;
                self.settle_group()?;
                if self.is_skipping_messages() {
                    return Ok(());
                }
                self.begin_statement();
                self.drop_portals(true);
                self.on_query(frame)
            }
            b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => {
                self.begin_statement();
                self.on_extended(frame)
            }
            b'd' | b'c' | b'f' => self.on_copy_frame(frame),
            b'F' => self.on_function_call(frame),
            b'X' => {
                // What was asked before is carried out first; a COPY that was begun is given up.
                if !self.copy_in {
                    self.wait_for_synced()?;
                }
                Err(Stop::Close)
            }
            tag => Err(Stop::Fault(Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("invalid frontend message type {tag}"),
            ))),
        }
    }

    /// A Query or a FunctionCall outside a block ends what its group has begun, portals included; a
    /// Query drops the unnamed one in any case.
    fn drop_portals(&mut self, unnamed: bool) {
        if self.block.is_none() {
            self.portals.clear();
        } else if unnamed {
            self.portals.retain(|(name, _)| !name.is_empty());
        }
    }

    /// Whether messages are skipped until Sync: after an error of ours or of the server.
    pub(crate) fn is_skipping_messages(&self) -> bool {
        self.skipping
            || self
                .lease
                .as_ref()
                .and_then(Lease::peek)
                .is_some_and(|connection| connection.pipeline.is_skipping())
    }

    /// At the start of a transaction a new configuration takes effect.
    fn begin_statement(&mut self) {
        if self.block.is_none()
            && self.lease.is_none()
            && self.parked.is_empty()
            && self.database.generation != self.engine.generation()
        {
            self.follow_reload();
        }
    }

    /// COPY data goes to the server that asked for it; what comes late is dropped, as PostgreSQL does.
    /// Whether the server asked for it may not be known yet: then it waits.
    fn on_copy_frame(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        if !self.copy_in {
            return self.wait_for_replies();
        }
        if let Some(connection) = self.connection() {
            connection.out.extend_from_slice(frame.bytes);
        }
        if frame.tag != b'd' {
            self.copy_in = false;
        }
        Ok(())
    }

    /// Waits until everything that was sent with a Sync is answered.
    fn wait_for_synced(&self) -> Result<(), Stop> {
        let connection = self.lease.as_ref().and_then(Lease::peek);
        let waits = connection.is_some_and(|connection| {
            !connection.pipeline.is_empty()
                && !connection.unsynced
                && !connection.pipeline.is_skipping()
        });
        if waits { Err(Stop::Idle) } else { Ok(()) }
    }

    fn on_function_call(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        self.settle_looks()?;
        self.settle_group()?;
        if self.is_skipping_messages() {
            return Ok(());
        }
        self.settle_pending()?;
        self.settle_settings()?;
        if self.is_tenant() {
            let fault = planner::tenant::not_allowed(
                "a function call of the protocol",
                "Call the function in a SELECT.",
            );
            self.wait_for_replies()?;
            self.reply_fault(&fault);
            self.reply_ready();
            return Ok(());
        }
        self.drop_portals(false);
        if self.block.as_ref().is_some_and(|block| block.failed) {
            // Failed by an error of our own, which the server does not know.
            self.wait_for_replies()?;
            self.reply_fault(&Session::failed_block_fault());
            self.reply_ready();
            return Ok(());
        }
        let shard = self.here_or_home();
        self.check_snapshots(shard)?;
        self.note_write(shard)?;
        if self.minds_cache() {
            self.before_anything()?;
        }
        self.lease(shard, true)?;
        let function = frame.body.first_chunk().map(|oid| u32::from_be_bytes(*oid));
        if !function.is_some_and(|oid| LARGE_OBJECTS.contains(&oid)) {
            // It may set or lock anything.
            self.note_effect_before(&Effect::Pin(planner::FUNCTION));
            if let Some(connection) = self.connection() {
                connection.advanced = true;
            }
        }
        if let Some(connection) = self.connection() {
            connection.out.extend_from_slice(frame.bytes);
            connection.pipeline.sent(
                crate::wire::pipeline::Request::FunctionCall,
                false,
                crate::server::connection::Note::None,
            );
            connection.unsynced = false;
        }
        self.oids.end_request();
        self.count_sent();
        Ok(())
    }

    /// A message that has not wholly arrived: passed on in pieces where it may be. Returns whether
    /// it is being passed.
    fn on_part(&mut self, tag: u8, total: usize, header: &[u8], body: &[u8]) -> Result<bool, Stop> {
        if tag == b'd' {
            if !self.copy_in {
                self.wait_for_replies()?;
            }
            let to_server = self.copy_in;
            if to_server && let Some(connection) = self.connection() {
                connection.out.extend_from_slice(header);
                connection.out.extend_from_slice(body);
            }
            self.passing = Some(Passing {
                left: total
                    .saturating_sub(frame::HEADER)
                    .saturating_sub(body.len()),
                to_server,
            });
            return Ok(true);
        }
        self.on_long_part(tag, total, header, body)
    }

    /// Does what a message waits for.
    async fn satisfy(&mut self, stop: Stop) -> Result<(), End> {
        let result = match stop {
            Stop::Lease(shard) => self.wait_for_lease(shard).await,
            Stop::Settings(lease) => self.settle_and_adopt(lease).await,
            Stop::Move(shard) => self.move_block(shard).await,
            Stop::Modes => self.ask_modes().await,
            Stop::Snapshots(shard) => self.open_snapshots(shard).await,
            Stop::TwoPhase => self.ask_two_phase().await,
            Stop::Listen(channels) => self.listen(channels).await,
            Stop::Names => self.ask_names().await,
            Stop::Types => self.read_types().await,
            Stop::Ids(stream, count) => self.fetch_numbers(stream, count).await,
            Stop::Ask => self.ask_home().await,
            Stop::Look(wanted) => self.look_in_redis(*wanted).await,
            Stop::Mark(strict) => self.tell_of_write(strict).await,
            Stop::LookAtRows => {
                self.look_at_rows().await;
                Ok(())
            }
            Stop::EndWrite => self.end_write_in_redis().await,
            Stop::Follow(under_way) => self.follow_read(under_way).await,
            Stop::EndGroup => {
                self.give_up_looks().await;
                self.end_group();
                Ok(())
            }
            Stop::Imply => {
                self.imply_block();
                Ok(())
            }
            Stop::Task(task) => return self.run_task(*task).await,
            Stop::Fault(fault) | Stop::Refusal(fault) => {
                return Err(End::Fault(Box::new(fault)));
            }
            Stop::Close => return Err(End::Client),
            Stop::Idle | Stop::Drain | Stop::Series => Ok(()),
        };
        match result {
            Ok(()) => Ok(()),
            Err(Interrupted::End(end)) => Err(end),
            Err(Interrupted::Fault(fault)) => {
                self.fail_next(&fault);
                Ok(())
            }
        }
    }

    /// The next message cannot be carried out: it is taken and answered with an error.
    pub(crate) fn fail_next(&mut self, fault: &Fault) {
        if self.series.is_some() {
            self.reply_fault(fault);
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let Ok(Split::Whole(frame, rest)) = frame::split(&input, u32::MAX) else {
            self.input = input;
            self.refuse_unfinished(fault);
            return;
        };
        let tag = frame.tag;
        let used = input.len().saturating_sub(rest.len());
        input.drain(..used);
        self.input = input;
        self.end_message();
        match tag {
            b'Q' | b'F' => {
                self.reply_fault(fault);
                self.reply_ready();
            }
            b'S' => {
                for _ in 0..self.pending.len() {
                    self.void_parse();
                }
                self.pending.clear();
                self.reply_fault(fault);
                self.reply_ready();
            }
            _ => {
                for _ in 0..self.pending.len() {
                    self.void_parse();
                }
                self.pending.clear();
                self.reply_fault(fault);
                self.skipping = true;
                // A client may wait for this error before it sends Sync; what comes before it must come too.
                self.ask_for_replies();
            }
        }
    }

    async fn run_task(&mut self, task: Task) -> Result<(), End> {
        self.account.begin_waits();
        self.give_up_looks().await;
        self.client
            .set_activity(Activity::Active, self.engine.now());
        let result = match task {
            Task::Wide(wide) => self.run_wide(*wide).await,
            Task::End(ending) => self.end_everywhere(ending).await,
        };
        // What was not seen came too late, and is not for what follows.
        self.client.canceled.set(false);
        self.outlive_sentence().await;
        if self.client.activity.get() == Activity::Active {
            let rests = match &self.block {
                Some(_) => Activity::IdleInTransaction,
                None => Activity::Idle,
            };
            self.client.set_activity(rests, self.engine.now());
        }
        self.end_message();
        let left = std::mem::take(&mut self.copy_left);
        if left > 0 {
            // A COPY that failed in the middle of a message: the rest of it is nobody's.
            self.passing = Some(Passing {
                left,
                to_server: false,
            });
        }
        result
    }

    /// Waits for a connection of a shard, and watches the client meanwhile.
    async fn wait_for_lease(&mut self, shard: ShardId) -> Result<(), Interrupted> {
        let lease = self.acquire(shard).await?;
        let lease = self.settled(lease).await?;
        if self.is_at_rest() {
            // It may take the common course.
            self.granted = Some(lease);
        } else {
            self.adopt(lease);
        }
        Ok(())
    }

    /// A connection of a shard, with whatever settings it has.
    ///
    /// # Cancel safety
    /// Safe: a drop leaves the line.
    pub(crate) async fn acquire(&mut self, shard: ShardId) -> Result<Lease, Interrupted> {
        let Some(pool) = self.pools.get(usize::from(shard.0)).map(Rc::clone) else {
            return Err(Interrupted::Fault(Fault::error(
                SqlState::INTERNAL,
                "there is no such shard",
            )));
        };
        let before = self.client.activity.get();
        self.client
            .set_activity(Activity::Waiting, self.engine.now());
        let settings = Rc::clone(self.settings_at_begin());
        let now = self.engine.now();
        let lease = self
            .watched(pool.acquire(&settings, now, self.client.id))
            .await;
        self.client.set_activity(before, self.engine.now());
        self.count_wait(shard, now, lease.is_ok());
        // One that came at the same moment is for what is waited for, not for what comes later.
        if self.client.canceled.take() {
            let fault = self.cancel_fault();
            lease?.give_back(self.engine.now());
            return Err(Interrupted::Fault(fault));
        }
        lease
    }

    /// Waits for something on behalf of the client, and watches the client meanwhile.
    ///
    /// # Cancel safety
    /// That of `waiting`, which is dropped as well when the client leaves or cancels.
    pub(crate) async fn watched<T>(
        &mut self,
        waiting: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Interrupted> {
        let mut waiting = Box::pin(waiting);
        poll_fn(|cx| match waiting.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(Interrupted::Fault)),
            Poll::Pending => self.poll_watch(cx).map(Err),
        })
        .await
    }

    /// Whether the client left, was killed, or canceled what it waits for.
    pub(crate) fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Interrupted> {
        self.client.register(cx.waker());
        if let Some(fault) = self.client.kill.borrow_mut().take() {
            return Poll::Ready(Interrupted::End(End::Fault(Box::new(fault))));
        }
        if self.client.canceled.take() {
            return Poll::Ready(Interrupted::Fault(self.cancel_fault()));
        }
        while !self.departed && self.input.len() <= AHEAD_MAX {
            let mut bytes = [0; 4096];
            match poll_read(&mut self.stream, cx, &mut bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    if let Err(end) = self.part() {
                        return Poll::Ready(Interrupted::End(end));
                    }
                }
                Poll::Ready(Ok(count)) => {
                    self.engine.count_received(&self.database, count);
                    self.input
                        .extend_from_slice(bytes.get(..count).unwrap_or_default());
                }
            }
        }
        Poll::Pending
    }

    /// Brings a connection to our settings and makes it the current one.
    async fn settle_and_adopt(&mut self, lease: Lease) -> Result<(), Interrupted> {
        let lease = self.settled(lease).await?;
        self.adopt(lease);
        Ok(())
    }

    /// The connection with our settings. When that fails, what the client holds there stays.
    async fn settled(&mut self, mut lease: Lease) -> Result<Lease, Interrupted> {
        let Err(failure) = self.settle(&mut lease).await else {
            self.engine.look_at_clock();
            return Ok(lease);
        };
        if self.keeps_connections() {
            if lease.peek().is_some_and(ServerConnection::is_clean) {
                self.parked.push(lease);
            } else if self.pinned.is_some() {
                let shard = lease.pool().target.shard;
                self.client.kill(self.kept_was_lost(shard));
            }
        }
        Err(failure)
    }

    /// Brings a connection to our settings.
    ///
    /// # Cancel safety
    /// Not safe: the lease must be dropped, which closes the connection.
    pub(crate) async fn settle(&mut self, lease: &mut Lease) -> Result<(), Interrupted> {
        let wanted = Rc::clone(self.settings_at_begin());
        self.settle_to(wanted, lease).await
    }

    /// Brings a connection to settings.
    ///
    /// # Cancel safety
    /// Not safe: the lease must be dropped, which closes the connection.
    pub(crate) async fn settle_to(
        &mut self,
        wanted: Rc<Settings>,
        lease: &mut Lease,
    ) -> Result<(), Interrupted> {
        let Some(connection) = lease.connection() else {
            return Ok(());
        };
        let sql = settings_sql(connection, &wanted);
        if sql.is_empty() {
            return Ok(());
        }
        let was_unsure = std::mem::replace(&mut connection.settings_unsure, true);
        let deadline = self.database.limits.server_connect_timeout;
        let result = tokio::time::timeout(deadline, run_hidden(connection, &sql)).await;
        match result {
            Ok(Ok(())) => {
                connection.settings = wanted;
                connection.settings_unsure = false;
                Ok(())
            }
            Ok(Err(fault)) => {
                // All of it is undone.
                connection.settings_unsure = was_unsure || !connection.is_clean();
                Err(Interrupted::Fault(fault))
            }
            Err(_elapsed) => Err(Interrupted::Fault(
                Fault::error(
                    SqlState::CONNECTION_FAILURE,
                    "the server did not take the session's settings in time",
                )
                .hint("Check the shard's health; raise server_connect_timeout if it is slow."),
            )),
        }
    }

    /// Moves a block that ran only harmless statements to another shard. When that fails, so has the
    /// block: nothing of it is open any more.
    async fn move_block(&mut self, shard: ShardId) -> Result<(), Interrupted> {
        let moved = self.open_elsewhere(shard).await;
        if moved.is_err() {
            self.client.targets.borrow_mut().clear();
            self.lease = None;
            if let Some(block) = &mut self.block {
                block.give_up();
                block.local = None;
                block.savepoints.clear();
            }
        }
        moved
    }

    async fn open_elsewhere(&mut self, shard: ShardId) -> Result<(), Interrupted> {
        let (begin, preamble) = match &self.block {
            Some(block) => (block.begin.clone(), block.preamble.clone()),
            None => return Ok(()),
        };
        if let Some(mut lease) = self.lease.take() {
            self.run_watched(&mut lease, "ROLLBACK").await?;
            self.lease = Some(lease);
            self.let_go();
        }
        let lease = self.acquire(shard).await?;
        let mut lease = self.settled(lease).await?;
        for statement in std::iter::once(begin).chain(preamble) {
            let sql = String::from_utf8_lossy(&statement).into_owned();
            self.run_watched(&mut lease, &sql).await?;
        }
        if let Some(connection) = lease.connection() {
            connection.settings = Rc::clone(&self.settings);
        }
        self.adopt(lease);
        if let Some(block) = &mut self.block {
            block.sent = true;
            block.here = Some(shard);
        }
        Ok(())
    }

    /// Runs a statement of our own on a connection, as long as the client waits for it and
    /// `server_connect_timeout` allows.
    ///
    /// # Cancel safety
    /// Not safe, nor after an error: the lease must be dropped, which closes the connection.
    async fn run_watched(&mut self, lease: &mut Lease, sql: &str) -> Result<(), Interrupted> {
        let limit = self.database.limits.server_connect_timeout;
        let Some(connection) = lease.connection() else {
            return Ok(());
        };
        let running = tokio::time::timeout(limit, run_hidden(connection, sql));
        self.watched(async {
            running.await.unwrap_or_else(|_elapsed| {
                Err(Fault::error(
                    SqlState::CONNECTION_FAILURE,
                    "the server did not carry out what prepares a transaction in time",
                )
                .hint("Check the shard's health; raise server_connect_timeout if it is slow."))
            })
        })
        .await
    }

    /// The client is gone: what it held is rolled back or closed.
    fn finish(mut self: Box<Session>) {
        self.engine.unlisten_all(&self.client);
        self.count_flush(0);
        self.parked.clear();
        // Parts of a block are rolled back.
        self.block = None;
        self.return_granted();
        let Some(mut lease) = self.lease.take() else {
            return;
        };
        let pinned = self.keeps_connections();
        let engine = Rc::clone(&self.engine);
        let Some(connection) = lease.connection() else {
            return;
        };
        let in_order = connection.pipeline.is_idle()
            && !connection.unsynced
            && connection.is_flushed()
            && !connection.convoy.is_followed()
            && connection.reader.is_between_messages();
        if !in_order {
            engine.cancel_now(&connection.cancel);
            return;
        }
        if pinned {
            return;
        }
        tokio::task::spawn_local(async move {
            let limit = std::time::Duration::from_secs(5);
            let rolled_back = match lease.connection() {
                Some(connection) => {
                    connection.settings_unsure = true;
                    tokio::time::timeout(limit, run_hidden(connection, "ROLLBACK")).await
                }
                None => return,
            };
            if let Ok(Ok(())) = rolled_back {
                let now = engine.now();
                lease.give_back(now);
            }
        });
    }
}

fn frame_fault(error: &frame::FrameError) -> Fault {
    let code = match error {
        frame::FrameError::TooShort { .. } => SqlState::PROTOCOL_VIOLATION,
        frame::FrameError::TooLong { .. } => SqlState::PROGRAM_LIMIT,
    };
    Fault::fatal(code, error.to_string())
        .hint("Send less at once, or raise max_message_size; if the client speaks another protocol, check its port.")
}
