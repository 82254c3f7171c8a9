//! What comes back from the server: passed on, and read only as far as the session must know.

use std::rc::Rc;

use crate::config::PoolMode;
use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::planner;
use crate::planner::plan::{Argument, Effect};
use crate::server::connection::Note;
use crate::server::pool::{Lease, bump};
use crate::server::settings::{Settings, difference, of_whole, quote_name, steps};
use crate::server::statements::Description;
use crate::sql::quote::quote_ident;
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, Frame, FrameError, Piece, Split};
use crate::wire::pipeline::{Owed, Own, Request};

use super::block::{Block, SettingsThen};
use super::client::Activity;
use super::simple::statement_key;
use super::{Session, Stop};

/// The server's stream cannot be followed: the connection is lost.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Lost {
        Lost(error.to_string())
    }
}

/// Rows and COPY data may be long: they are passed on as they come.
fn passes(tag: u8) -> bool {
    matches!(tag, b'D' | b'd')
}

impl Session {
    /// Takes bytes of the current server connection.
    pub(crate) fn on_server_bytes(&mut self, data: &[u8]) -> Result<(), Lost> {
        let is_marked = self.is_marked();
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        let data = connection.split_ahead(data);
        let passes_plain = connection.reader.is_between_messages()
            && self.oids.rows_pass()
            && !is_marked
            && !self.withholds_completion();
        let data = if passes_plain {
            self.pass_plain(data)
        } else {
            data
        };
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        let mut reader = std::mem::take(&mut connection.reader);
        let result = reader.feed(data, u32::MAX, passes, |piece| self.on_piece(piece));
        if let Some(connection) = self.connection() {
            connection.reader = reader;
        }
        result
    }

    fn on_piece(&mut self, piece: Piece<'_>) -> Result<(), Lost> {
        if self.withhold(piece)? {
            return Ok(());
        }
        match piece {
            Piece::Whole(frame) => self.on_server_frame(frame),
            Piece::More { bytes, .. } => {
                if self.forwarding {
                    self.out.extend_from_slice(bytes);
                }
                Ok(())
            }
            Piece::Start { tag, bytes } => {
                let step = self.step(tag)?;
                self.forwarding = step.forward;
                if step.forward {
                    self.out.extend_from_slice(bytes);
                }
                if step.fails {
                    self.after_error();
                }
                if step.ends {
                    self.after_end();
                }
                Ok(())
            }
        }
    }

    /// Passes on, in one piece, the messages at the front of `data` that ask for nothing else; returns
    /// what follows them.
    fn pass_plain<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let Session {
            lease,
            out,
            copy_in,
            oids,
            database,
            ..
        } = self;
        let Some(connection) = lease.as_mut().and_then(Lease::connection) else {
            return data;
        };
        let is_foreign = connection.shard != database.topology.home();
        let shard = connection.shard;
        let line = &mut connection.pipeline;
        let mut rest = data;
        let mut passed = 0;
        let before = out.len();
        while let Ok(Split::Whole(frame, after)) = frame::split(rest, u32::MAX) {
            let Some((request, false, note)) = line.front() else {
                break;
            };
            match (frame.tag, request, note) {
                (b'T', Request::Query, Note::Explain(_)) => break,
                (b'T', Request::Query | Request::DescribePortal, _) if is_foreign => {
                    let name = database.topology.name(shard);
                    let known = database.shared.oids.load();
                    let Some(mapping) = known.of(name, database.generation) else {
                        break;
                    };
                    let here = data.len().saturating_sub(rest.len());
                    out.extend_from_slice(data.get(passed..here).unwrap_or_default());
                    let start = out.len();
                    out.extend_from_slice(frame.bytes);
                    passed = here;
                    let body = out.get_mut(start.saturating_add(frame::HEADER)..);
                    if oids
                        .put_columns(body.unwrap_or_default(), mapping, true)
                        .is_err()
                    {
                        out.truncate(start);
                        break;
                    }
                    passed = passed.saturating_add(frame.bytes.len());
                    if request == Request::DescribePortal {
                        line.pop();
                    }
                    if !oids.rows_pass() {
                        rest = after;
                        break;
                    }
                }
                (b'D', Request::Execute | Request::Query, _) | (b'T', Request::Query, _) => {}
                // COMMIT and ROLLBACK end a block.
                (b'C', Request::Query, Note::None) if !matches!(frame.body, [b'C' | b'R', ..]) => {
                    *copy_in = false;
                }
                (b'2', Request::Bind, _) | (b'T' | b'n', Request::DescribePortal, _) => {
                    line.pop();
                }
                (b'C' | b's', Request::Execute, Note::Execute) => {
                    line.pop();
                    *copy_in = false;
                }
                _ => break,
            }
            rest = after;
        }
        let end = data.len().saturating_sub(rest.len());
        out.extend_from_slice(data.get(passed..end).unwrap_or_default());
        if out.len() > before {
            self.emit_local();
        }
        rest
    }

    fn step(&mut self, tag: u8) -> Result<crate::wire::pipeline::Step, Lost> {
        let Some(lease) = &mut self.lease else {
            return Err(Lost("a reply came for nobody".to_owned()));
        };
        let Some(connection) = lease.connection() else {
            return Err(Lost("a reply came for nobody".to_owned()));
        };
        connection.pipeline.received(tag).map_err(|error| {
            // An error out of turn is a server that says goodbye.
            if tag != b'E' {
                let pool = lease.pool();
                bump(&pool.counters.out_of_sync, 1);
                self.engine.count_out_of_sync();
                tracing::error!(shard = %pool.target.shard_name, %error, "server connection out of sync");
            }
            Lost(error.to_string())
        })
    }

    pub(crate) fn on_server_frame(&mut self, frame: Frame<'_>) -> Result<(), Lost> {
        if matches!(frame.tag, b'S' | b'A') {
            self.on_asynchronous(frame);
            return Ok(());
        }
        if frame.tag == b'E'
            && self
                .connection()
                .is_some_and(|connection| connection.pipeline.is_empty())
        {
            let fields = backend::error_fields(frame.body);
            return Err(Lost(fields.message().to_owned()));
        }
        let step = self.step(frame.tag)?;
        let names_types = match frame.tag {
            b'D' => !self.oids.rows_pass(),
            b'T' | b't' => self.comes_from_abroad(),
            _ => false,
        };
        let put;
        let frame = if names_types {
            let of_rows = !self.describes_statement();
            let Some(bytes) = self.put_reply(frame, of_rows)? else {
                return Ok(());
            };
            put = bytes;
            let body = put.get(frame::HEADER..).unwrap_or_default();
            Frame {
                tag: frame.tag,
                body,
                bytes: &put,
            }
        } else {
            frame
        };
        match frame.tag {
            b'Z' => return self.on_ready(frame, step.forward),
            b'C' | b'I' => {
                self.hold_acknowledgement();
                self.on_command_complete(frame.body);
            }
            b'G' => self.on_copy_in(),
            b't' | b'T' | b'n' => {
                if frame.tag == b'n' && !self.describes_statement() {
                    self.oids.end_answer();
                }
                if let Some(types) = self.on_description(frame)
                    && step.forward
                {
                    backend::parameter_description(&mut self.out, &types);
                    if step.ends {
                        self.after_end();
                    }
                    return Ok(());
                }
            }
            b'E' => {
                let fields = backend::error_fields(frame.body);
                if let Some(lost) = self.on_fatal(frame, &fields) {
                    return Err(lost);
                }
                let shown = step.forward || self.hides_parse();
                if self.hides_query() {
                    return Err(Lost(fields.message().to_owned()));
                }
                if shown {
                    self.show_error_or_sentence(frame);
                    self.fail_series();
                    if let Some(block) = &mut self.block {
                        block.parts.fail();
                    }
                }
                self.engine.count_server_error(
                    &self.database,
                    self.client.shard.get(),
                    fields.code().as_bytes(),
                );
                if fields.is_stale_plan() {
                    self.schema_changed_elsewhere();
                }
                self.after_error();
                return Ok(());
            }
            _ => {}
        }
        if step.forward {
            let from = self.out.len();
            self.out.extend_from_slice(frame.bytes);
            if frame.tag == b'C' {
                self.withhold_completion(from);
            }
        }
        if frame.tag == b'T' {
            self.put_on_top();
        }
        if step.ends {
            self.after_end();
        }
        Ok(())
    }

    /// The rows that go on top of an answer, behind its RowDescription.
    fn put_on_top(&mut self) {
        let Session { lease, out, .. } = self;
        let connection = lease.as_mut().and_then(Lease::connection);
        if let Some(Note::Explain(rows)) =
            connection.and_then(|connection| connection.pipeline.front_note())
        {
            out.extend_from_slice(rows);
        }
    }

    /// What a server says of a statement is kept, where that was asked for. Returns the types of the
    /// client's parameters, where the statement has others behind them.
    fn on_description(&mut self, frame: Frame<'_>) -> Option<Box<[u32]>> {
        let Some(Note::Describe {
            prepared,
            parameters,
        }) = self
            .connection()
            .and_then(|connection| connection.pipeline.front_note())
        else {
            return None;
        };
        if frame.tag == b't' {
            *parameters = backend::parameter_types(frame.body);
            let own = prepared.fills.as_ref()?.parameters;
            return Some(parameters.as_ref()?.get(..own)?.into());
        }
        let parameters = parameters.take()?;
        let columns = (frame.tag == b'T').then(|| backend::result_columns(frame.body));
        let prepared = Rc::clone(prepared);
        let oids = self.database.shared.oids.load();
        let description =
            Description::new(parameters, columns.flatten(), |oid| oids.may_embed(oid));
        // Whoever was first has said the same.
        drop(prepared.described.set(description));
        None
    }

    /// The schema was changed past the proxy: a statement that is kept on servers has other columns now.
    /// It would fail for ever, because the client's preparing it again finds it there. From here on
    /// everything is prepared anew.
    pub(crate) fn schema_changed_elsewhere(&self) {
        self.database.schema_changed();
        let shared = std::sync::Arc::clone(&self.engine.shared);
        let name = self.database.name.clone();
        let runtime = shared.control_runtime.clone();
        drop(runtime.spawn(async move {
            if let Err(fault) = shared.refresh_catalog(&name).await {
                tracing::warn!(database = %name, error = %fault, "could not read the catalog");
            }
        }));
    }

    /// A FATAL error ends the server connection. When it is about what the client sent, the client ends
    /// with it; otherwise the connection counts as lost.
    fn on_fatal(&mut self, frame: Frame<'_>, fields: &backend::ErrorFields<'_>) -> Option<Lost> {
        if !matches!(fields.severity(), "FATAL" | "PANIC") {
            return None;
        }
        if fields.code() == "08P01" {
            self.out.extend_from_slice(frame.bytes);
            self.ends = true;
        }
        Some(Lost(fields.message().to_owned()))
    }

    /// Whether the description that comes is a statement's: no rows follow it.
    fn describes_statement(&mut self) -> bool {
        let front = self.connection().and_then(|connection| {
            let (request, ..) = connection.pipeline.front()?;
            Some(request)
        });
        front == Some(Request::DescribeStatement)
    }

    /// A Parse that we added for the client's sake, or a Describe: its failure is the client's to know.
    fn hides_parse(&mut self) -> bool {
        let front = self
            .connection()
            .and_then(|connection| connection.pipeline.front());
        matches!(
            front,
            Some((_, _, Note::Parse { .. }) | (Request::DescribePortal, ..))
        )
    }

    /// A statement of our own (BEGIN, settings) that must not fail.
    fn hides_query(&mut self) -> bool {
        let front = self.connection().and_then(|connection| {
            connection
                .pipeline
                .front()
                .map(|(request, hidden, _)| (request, hidden))
        });
        front == Some((Request::Query, true))
    }

    /// Passes an error on, or what the client is told in its place.
    fn show_error_or_sentence(&mut self, frame: Frame<'_>) {
        match self.sentence_for(frame.bytes) {
            Some(bytes) => self.show_error(Frame {
                tag: b'E',
                body: bytes.get(frame::HEADER..).unwrap_or_default(),
                bytes: &bytes,
            }),
            None => self.show_error(frame),
        }
    }

    /// Passes an error on, a statement called as the client calls it.
    fn show_error(&mut self, frame: Frame<'_>) {
        const OURS: &[u8] = b"\"pgherd_";
        if let Some(moved) = self.error_in_series(frame.bytes) {
            self.out.extend_from_slice(&moved);
            return;
        }
        let at = frame
            .body
            .windows(OURS.len())
            .position(|window| window == OURS);
        let renamed = at.and_then(|at| {
            let rest = frame.body.get(at.saturating_add(1)..)?;
            let end = rest.iter().position(|byte| *byte == b'"')?;
            let digits = rest.get(7..end)?.split(|byte| *byte == b'_').next()?;
            let id: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            let name = self
                .statements
                .iter()
                .find(|(_, prepared)| prepared.id == id)
                .map_or(&[][..], |(name, _)| name);
            let mut body = frame.body.get(..=at)?.to_vec();
            body.extend_from_slice(name);
            body.extend_from_slice(rest.get(end..)?);
            Some(body)
        });
        match renamed {
            Some(body) => frame::write(&mut self.out, b'E', &[&body]),
            None => self.out.extend_from_slice(frame.bytes),
        }
    }

    /// ParameterStatus goes to the client unless it echoes a setting of ours; a notification on a
    /// connection of the pool is nobody's.
    fn on_asynchronous(&mut self, frame: Frame<'_>) {
        if frame.tag == b'A' {
            if self.keeps_connections() && !self.channels.hears(frame.bytes) {
                self.out.extend_from_slice(frame.bytes);
            }
            return;
        }
        let hidden = self
            .connection()
            .and_then(|connection| connection.pipeline.front().map(|(_, hidden, _)| hidden))
            .unwrap_or(false);
        if !hidden {
            self.out.extend_from_slice(frame.bytes);
        }
    }

    fn on_copy_in(&mut self) {
        self.copy_in = true;
        if let Some(connection) = self.connection() {
            let by_execute = matches!(connection.pipeline.front(), Some((Request::Execute, ..)));
            if by_execute && connection.pipeline.forget_sync_behind_front() {
                connection.mark_unsynced();
                self.executed = true;
            }
        }
    }

    /// The front request is answered.
    fn after_end(&mut self) {
        let ended = self
            .connection()
            .and_then(|connection| connection.pipeline.pop());
        match ended {
            Some((
                _,
                Note::Parse {
                    name,
                    prepared,
                    client,
                },
            )) => {
                prepared
                    .accepted
                    .set(Some((u64::from(name.epoch), name.fingerprint)));
                if client {
                    self.tentative.pop_front();
                }
            }
            Some((Request::Execute, Note::Effect(effect))) => self.apply(&effect),
            Some((Request::Execute, _)) => self.copy_in = false,
            Some(_) | None => {}
        }
        self.emit_local();
    }

    /// An error came: what it voids will not be answered.
    fn after_error(&mut self) {
        self.dropping = None;
        self.copy_in = false;
        let shown_group = self.connection().map(|connection| {
            let void = connection.pipeline.fail();
            // A Query among what is void ended nothing: the server waits for a Sync.
            connection.unsynced |= connection.pipeline.is_skipping();
            void
        });
        for void in shown_group.into_iter().flatten() {
            match void {
                Owed::Local(Own::ParseComplete | Own::Prepared) => self.void_parse(),
                Owed::Server {
                    note: Note::Parse { name, client, .. },
                    ..
                } => {
                    if let Some(connection) = self.connection() {
                        connection.statements().remove(name);
                        if connection.unnamed == Some(name) {
                            connection.unnamed = None;
                        }
                    }
                    if client {
                        self.void_parse();
                    }
                }
                Owed::Local(_) | Owed::Server { .. } => {}
            }
        }
        if self.is_skipping_messages() {
            // They came behind what failed, in the same group.
            self.pending_are_void();
        }
        if self.block.is_some() {
            // A COMMIT that succeeds says so.
            self.rolled_back = true;
            return;
        }
        self.account.fail();
        self.channels.roll_back_to(0);
        if let Some(before) = self.settings_before.take() {
            self.revert_settings(before);
        }
    }

    /// Settings of a transaction that was rolled back were never made, neither here nor on its server,
    /// which had the same when it began.
    fn revert_settings(&mut self, before: Rc<Settings>) {
        if let Some(connection) = self.connection() {
            connection.settings = Rc::clone(&before);
        }
        self.settings = before;
    }

    /// Remembers the settings as they are before a transaction of its own.
    pub(crate) fn remember_settings(&mut self) {
        if self.block.is_none() && self.settings_before.is_none() {
            self.settings_before = Some(Rc::clone(&self.settings));
        }
    }

    fn on_command_complete(&mut self, tag: &[u8]) {
        let is_rollback = tag.starts_with(b"ROLLBACK\0");
        if is_rollback || tag.starts_with(b"COMMIT\0") {
            self.rolled_back = is_rollback;
        }
        self.copy_in = false;
        let Some(connection) = self.lease.as_mut().and_then(Lease::connection) else {
            return;
        };
        let effect = match connection.pipeline.front_note() {
            Some(Note::Script { script, done }) => {
                let effect = script
                    .statements
                    .get(*done)
                    .filter(|statement| statement.effect != Effect::None)
                    .map(|statement| statement.effect.clone());
                *done = done.saturating_add(1);
                effect
            }
            _ => None,
        };
        if let Some(effect) = effect {
            self.apply(&effect);
        }
    }

    fn on_ready(&mut self, frame: Frame<'_>, shown: bool) -> Result<(), Lost> {
        let status = frame
            .body
            .first()
            .and_then(|byte| Status::read(*byte))
            .ok_or_else(|| Lost("ReadyForQuery without a status".to_owned()))?;
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        connection.status = status;
        let ended = connection.pipeline.pop();
        self.oids.end_answer();
        let Some(connection) = self.connection() else {
            return Ok(());
        };
        let begins_behind = connection.pipeline.holds_hidden(Request::Query);
        let more = !connection.pipeline.is_empty();
        if status == Status::Idle && std::mem::take(&mut self.ran_ddl) {
            // Others see it from here on.
            self.database.schema_changed();
            self.forget_dropped();
        }
        let is_unsent = self
            .block
            .as_ref()
            .is_some_and(|block| !block.sent || begins_behind);
        let is_over = match (&self.block, ended) {
            (Some(_), _) => !is_unsent,
            (None, Some((Request::Query | Request::FunctionCall, _) | (_, Note::Commit))) => true,
            (None, Some(_) | None) => false,
        };
        match (status, self.block.is_some()) {
            // A block that no server knows of yet goes on.
            (Status::Idle, true) if shown && !is_unsent => self.end_block(),
            (Status::InBlock | Status::Failed, false) => {
                self.begin_block();
                if shown {
                    let now = self.engine.now();
                    self.client.set_activity(Activity::IdleInTransaction, now);
                }
            }
            (Status::InBlock | Status::Failed, true) if shown => {
                let now = self.engine.now();
                self.client.set_activity(Activity::IdleInTransaction, now);
            }
            (Status::Idle, false) => {
                self.settings_before = self.settings_behind();
            }
            _ => {}
        }
        if status == Status::Idle && !self.channels.is_empty() {
            self.settle_channels(true);
        }
        if shown {
            let now = self.engine.recently();
            if status == Status::Idle && is_over {
                self.account.end(now, more);
            }
            self.account.ready(now, self.block.is_some(), more);
            if self.is_marked() {
                match status {
                    Status::Idle => self.hold_answer(),
                    Status::InBlock | Status::Failed => self.release_answer(),
                }
            }
            if self.series.is_none() {
                let status = self.status();
                backend::ready_for_query(&mut self.out, status);
            }
        }
        self.emit_local();
        Ok(())
    }

    /// A block was opened on the server, in the middle of a text.
    fn begin_block(&mut self) {
        let before = self
            .settings_before
            .take()
            .unwrap_or_else(|| Rc::clone(&self.settings));
        self.block = Some(Box::new(Block::on_server(&before)));
    }

    /// Whether nothing was sent behind what has been answered.
    pub(crate) fn is_answered(&mut self) -> bool {
        self.connection()
            .is_none_or(|connection| connection.pipeline.is_empty() && !connection.unsynced)
    }

    /// The settings that what was sent behind begins with, if anything was.
    fn settings_behind(&mut self) -> Option<Rc<Settings>> {
        (!self.is_answered()).then(|| Rc::clone(&self.settings))
    }

    /// What the end of a block means for the session.
    pub(crate) fn settle_block(&mut self, block: &Block) {
        let is_rolled_back = std::mem::take(&mut self.rolled_back);
        self.settle_channels(!is_rolled_back);
        if is_rolled_back {
            self.account.fail();
            self.revert_settings(Rc::clone(&block.settings));
        }
        self.names_unsure |= block.hides_names;
    }

    /// The block is over. What follows, of AND CHAIN or in the same text, begins as the server has it.
    fn chain_block(&mut self) {
        let Some(mut block) = self.block.take() else {
            // The statements of a text without a block are a transaction as well.
            let is_rollback = std::mem::take(&mut self.rolled_back);
            self.settle_channels(!is_rollback);
            if let Some(before) = self.settings_before.take().filter(|_| is_rollback) {
                self.revert_settings(before);
            }
            self.remember_settings();
            return;
        };
        self.settle_block(&block);
        block.savepoints.clear();
        block.local = None;
        block.failed = false;
        block.settings = Rc::clone(&self.settings);
        block.wrote = ShardSet::default();
        block.unpreparable = None;
        block.alone = None;
        block.settled = false;
        block
            .modes
            .retain(|mode| mode.starts_with("SET TRANSACTION"));
        block.cursors.clear();
        self.block = Some(block);
        let settings = Rc::clone(&self.settings);
        if let Some(connection) = self.connection()
            && !connection.settings.same(&settings)
        {
            connection.settings_unsure = true;
        }
    }

    /// The server says that the block is over.
    fn end_block(&mut self) {
        let Some(block) = self.block.take() else {
            return;
        };
        self.settle_block(&block);
        self.settings_before = self.settings_behind();
        if self.is_answered() {
            self.portals.clear();
        }
    }

    /// Before it is sent: what holds even if the statement fails.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other effects leave this as it is"
    )]
    pub(crate) fn note_effect_before(&mut self, effect: &Effect) {
        self.settings_change |= self.may_change_settings(effect);
        match effect {
            Effect::Pin(reason) => {
                self.pin(reason);
                self.doubt_names(reason);
                self.doubt_tenant(reason);
                if planner::makes_relations(reason) {
                    self.database.schema_may_change();
                }
            }
            Effect::Prepare { .. } => self.pin("statement prepared by SQL"),
            Effect::Ddl => self.database.schema_may_change(),
            Effect::Listen { .. } if self.pool_mode != PoolMode::Session => {
                if let Some(connection) = self.connection() {
                    connection.untidy = true;
                }
            }
            _ => {}
        }
    }

    /// Whether what follows may be read under other settings.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "no other effect sets anything"
    )]
    pub(crate) fn may_change_settings(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Set { .. }
            | Effect::Reset { .. }
            | Effect::ResetAll
            | Effect::SetConfig { .. }
            | Effect::DiscardAll => true,
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::RollbackTo(_) => self
                .block
                .as_ref()
                .is_some_and(|block| block.local.is_some() || !block.settings.same(&self.settings)),
            _ => false,
        }
    }

    /// A statement was carried out: its effect on the session.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other effects leave this as it is"
    )]
    fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Set {
                name,
                value,
                local: false,
            } => self.set(name, value),
            Effect::Commit { chain } | Effect::Rollback { chain } => {
                self.chain_block();
                if *chain {
                    self.account.end(self.engine.recently(), true);
                }
            }
            // What follows it in the same text may set something for the block.
            Effect::Begin if self.block.is_none() => self.begin_block(),
            Effect::Set {
                name,
                value,
                local: true,
            } => {
                self.doubt_names_of_group(name);
                self.keep_temporary(name, value);
                self.set_local(|settings| settings.with(name, value));
                self.shape_block(effect);
            }
            Effect::Reset { name, local: true } => {
                let startup = Rc::clone(&self.startup_settings);
                self.set_local(|settings| settings.without(name, &startup));
                self.shape_block(effect);
            }
            Effect::SetConfig { name, value, local } => self.set_config(name, value, local),
            Effect::Reset { name, local: false } => {
                let settings = self.settings.without(name, &self.startup_settings);
                let bare = Settings::default();
                self.change_settings(settings, |on_server| on_server.without(name, &bare));
            }
            Effect::ResetAll => {
                let kept = |settings: &Settings| keep_identity(settings);
                let own = Rc::clone(&self.startup_settings);
                let own = with_identity(&own, &self.settings);
                self.change_settings(own, kept);
            }
            Effect::DiscardAll => self.discard_all(),
            Effect::Ddl => {
                self.note_ddl();
                self.shape_block(effect);
            }
            Effect::Pin(reason) if planner::makes_relations(reason) => self.note_ddl(),
            Effect::Prepare { name } => self.sql_prepared.push(name.clone()),
            Effect::Deallocate {
                name: Some(name), ..
            } => {
                self.sql_prepared.retain(|known| known != name);
                if let Some(index) = self
                    .deallocating
                    .iter()
                    .position(|(known, _)| known == name)
                {
                    let (_, on_server) = self.deallocating.swap_remove(index);
                    if let Some(connection) = self.connection() {
                        connection.statements().remove(on_server);
                    }
                }
                self.statements.remove(statement_key(name.as_bytes()));
                self.client.prepared.set(self.statements.len());
            }
            Effect::Deallocate { name: None, .. } => {
                self.sql_prepared.clear();
                self.statements = std::collections::HashMap::default();
                self.client.prepared.set(0);
                if let Some(connection) = self.connection() {
                    connection.statements().clear();
                    connection.unnamed = None;
                }
            }
            Effect::Listen { .. } | Effect::Unlisten { .. } => self.listens_in_transaction(effect),
            _ => self.apply_to_parts(effect),
        }
    }

    /// The effect on an open block of what all of its parts do.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other effects leave this as it is"
    )]
    fn apply_to_parts(&mut self, effect: &Effect) {
        match effect {
            Effect::Savepoint(name) => {
                self.set_savepoint(name);
                self.tell_parts(&format!("SAVEPOINT {}", quote_ident(name)));
                self.shape_block(effect);
            }
            Effect::RollbackTo(name) => {
                self.roll_back_to(name);
                self.tell_parts(&format!("ROLLBACK TO SAVEPOINT {}", quote_ident(name)));
                self.shape_block(effect);
            }
            Effect::Release(name) => {
                if let Some(block) = &mut self.block {
                    block.release(name);
                }
                self.tell_parts(&format!("RELEASE SAVEPOINT {}", quote_ident(name)));
                self.shape_block(effect);
            }
            Effect::SetConstraints { rest } => self.keep_mode(&format!("SET CONSTRAINTS {rest}")),
            Effect::SetTransaction { modes } => {
                self.keep_mode(&format!("SET TRANSACTION {modes}"));
                if let Some(block) = &mut self.block
                    && is_snapshot(modes)
                {
                    block.alone = Some("the snapshot of another");
                }
                self.shape_block(effect);
            }
            _ => {}
        }
    }

    /// DDL was carried out, and may not be committed yet.
    fn note_ddl(&mut self) {
        self.database.schema_changed();
        self.ran_ddl = true;
    }

    fn set_savepoint(&mut self, name: &str) {
        let session = Rc::clone(&self.settings);
        let on_server = self
            .connection()
            .map_or_else(Rc::default, |connection| Rc::clone(&connection.settings));
        if let Some(block) = &mut self.block {
            let then = SettingsThen {
                session,
                local: block.local.clone(),
                on_server,
                listened: self.channels.pending(),
                modes: block.modes.len(),
            };
            block.savepoints.push((name.to_owned(), then));
        }
    }

    /// Has the parts of an open block that wait do the same as the current connection.
    pub(crate) fn tell_parts(&mut self, sql: &str) {
        if let Some(block) = &mut self.block {
            block
                .parts
                .tell(|connection| connection.push_hidden_query(sql));
        }
    }

    /// A SET TRANSACTION or SET CONSTRAINTS was carried out: it holds for all parts of the block.
    pub(crate) fn keep_mode(&mut self, text: &str) {
        let shards = self.database.topology.shards().len();
        if let Some(block) = &mut self.block {
            // A twin has no constraints, and is no part of the transaction.
            block.parts.tell(|connection| {
                if usize::from(connection.shard.0) < shards {
                    connection.push_hidden_query(text);
                }
            });
        }
        if let Some(block) = &mut self.block {
            block.keep_mode(text);
        }
    }

    fn roll_back_to(&mut self, name: &str) {
        let Some(block) = &mut self.block else {
            return;
        };
        block.failed = false;
        let Some(then) = block.roll_back_to(name) else {
            return;
        };
        block.local = then.local;
        self.settings = then.session;
        self.channels.roll_back_to(then.listened);
        if let Some(block) = &mut self.block {
            block.parts.tell(|connection| {
                connection.settings = Rc::clone(&then.on_server);
                // It goes back there, whatever it has not said yet.
                connection.status = Status::InBlock;
            });
        }
        if let Some(connection) = self.connection() {
            connection.settings = then.on_server;
        }
        self.forget_closed();
    }

    /// A block that may still move keeps what shaped it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what cannot be written again binds the block"
    )]
    fn shape_block(&mut self, effect: &Effect) {
        let text = match effect {
            Effect::Savepoint(name) => format!("SAVEPOINT {}", quote_ident(name)),
            Effect::RollbackTo(name) => format!("ROLLBACK TO SAVEPOINT {}", quote_ident(name)),
            Effect::Release(name) => format!("RELEASE SAVEPOINT {}", quote_ident(name)),
            Effect::Set {
                name,
                value,
                local: true,
            } if name == "timezone" => format!("SET LOCAL TIME ZONE {value}"),
            Effect::Set {
                name,
                value,
                local: true,
            } if name == "role" => format!("SET LOCAL ROLE {value}"),
            Effect::Set {
                name,
                value,
                local: true,
            } if name == "session_authorization" => {
                format!("SET LOCAL SESSION AUTHORIZATION {value}")
            }
            Effect::Set {
                name,
                value,
                local: true,
            } => format!("SET LOCAL {} TO {value}", quote_name(name)),
            // A snapshot is one server's.
            Effect::SetTransaction { modes } if !is_snapshot(modes) => {
                format!("SET TRANSACTION {modes}")
            }
            // What cannot be written again binds the block where it is.
            _ => {
                if let Some(block) = &mut self.block {
                    block.bound = true;
                }
                return;
            }
        };
        if let Some(block) = self.block.as_mut().filter(|block| !block.bound) {
            block.preamble.push(text.into_bytes());
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.keep_temporary(name, value);
        let settings = self.settings.with(name, value);
        self.change_settings(settings, |on_server| on_server.with(name, value));
        if name == "application_name" {
            value
                .trim_matches('\'')
                .clone_into(&mut self.client.application_name.borrow_mut());
        }
    }

    fn set_config(&mut self, name: &Argument, value: &Argument, local: &Argument) {
        let (Argument::Literal(name), Argument::Literal(value), Argument::Literal(local)) =
            (name, value, local)
        else {
            self.pin("set_config with computed arguments");
            if let Some(block) = &mut self.block {
                block.alone = Some("settings that are computed");
            }
            return;
        };
        if matches!(
            local.to_ascii_lowercase().as_str(),
            "true" | "t" | "on" | "1" | "yes" | "y"
        ) {
            let name = name.to_ascii_lowercase();
            let value = of_whole(&name, value);
            self.doubt_names_of_group(&name);
            self.keep_temporary(&name, &value);
            self.set_local(|settings| settings.with(&name, &value));
            if let Some(block) = &mut self.block {
                block.bound = true;
            }
            return;
        }
        let name = name.to_ascii_lowercase();
        let value = of_whole(&name, value);
        self.set(&name, &value);
    }

    /// SET LOCAL: in force until the block ends.
    fn set_local(&mut self, change: impl FnOnce(&Settings) -> Rc<Settings>) {
        let before = Rc::clone(self.settings_in_force());
        let settings = change(&before);
        if let Some(block) = &mut self.block {
            let steps = steps(&before, &settings, "LOCAL ");
            block.parts.tell(|connection| {
                for step in &steps {
                    connection.push_hidden_query(step);
                }
            });
            block.local = Some(settings);
        }
    }

    fn change_settings(
        &mut self,
        own: Rc<Settings>,
        on_server: impl Fn(&Settings) -> Rc<Settings>,
    ) {
        if let Some(block) = &mut self.block
            && (!block.bound || !block.parts.0.is_empty())
        {
            let change = difference(&self.settings, &own);
            if !change.is_empty() {
                block.parts.tell(|connection| {
                    connection.push_hidden_query(&change);
                    connection.settings = on_server(&connection.settings);
                });
                if !block.bound {
                    block.preamble.push(change.into_bytes());
                }
            }
        }
        self.settings = own;
        if let Some(block) = &mut self.block
            && let Some(local) = &mut block.local
        {
            *local = on_server(local);
        }
        if let Some(connection) = self.connection() {
            connection.settings = on_server(&connection.settings);
        }
    }

    fn discard_all(&mut self) {
        self.statements = std::collections::HashMap::default();
        self.sql_prepared.clear();
        self.temporary.clear();
        self.own_settings.clear();
        self.client.prepared.set(0);
        self.settings = Rc::clone(&self.startup_settings);
        self.pinned = None;
        self.client.pinned.set(None);
        self.parked.clear();
        if let Some(connection) = self.connection() {
            connection.settings = Settings::new(std::collections::BTreeMap::new());
            connection.statements().clear();
            connection.unnamed = None;
        }
        self.forget_channels();
    }

    /// The server connection is lost: whatever it owes is answered with an error.
    pub(crate) fn on_lost(&mut self, lost: &Lost) -> Result<(), Stop> {
        let Some(mut lease) = self.lease.take() else {
            return Ok(());
        };
        let shard = lease.pool().target.shard_name.clone();
        let twin = Some(lease.pool().target.shard).filter(|shard| self.is_twin(*shard));
        self.client.targets.borrow_mut().clear();
        tracing::info!(shard = %shard, reason = %lost.0, "server connection lost");
        let owed: Vec<Owed<Note>> = match lease.connection() {
            Some(connection) => {
                let cut = connection.reader.is_passing();
                let skipping = connection.pipeline.is_skipping();
                let owed = connection.pipeline.drain().collect();
                if cut && self.forwarding {
                    // Half a row has been passed on: the client cannot be brought back in step.
                    return Err(Stop::Close);
                }
                self.skipping |= skipping;
                owed
            }
            None => Vec::new(),
        };
        drop(lease);
        self.abandon_write();
        self.timed = None;
        let unmapped = self.oids.lose();
        if self.ends {
            return Err(Stop::Close);
        }
        let fault =
            unmapped.unwrap_or_else(|| lost_fault(&shard, lost, owed.iter().any(is_commit)));
        if self.keeps_connections() && twin.is_none() {
            // What lived on the connection is gone with it.
            self.client.kill(fault.into_fatal());
            return Ok(());
        }
        let group_open =
            self.executed || !self.pending.is_empty() || owed.iter().any(|owed| !is_end(owed));
        if self.block.is_none() {
            self.channels.roll_back_to(0);
        }
        let keeps = self.keeps_connections();
        if let Some(block) = self.block.as_mut().filter(|block| block.sent) {
            match twin {
                Some(twin) if keeps => block.lose_twin(twin),
                Some(_) | None => block.give_up(),
            }
            self.account.lose();
            self.lost = owed.is_empty().then(|| fault.clone());
        }
        self.copy_in = false;
        self.answer_owed(owed, &fault, group_open);
        if let Some(before) = self.settings_before.take() {
            self.settings = before;
        }
        Ok(())
    }

    /// Every request that was sent gets its error, once a group, and every group its ReadyForQuery.
    fn answer_owed(&mut self, owed: Vec<Owed<Note>>, fault: &Fault, group_open: bool) {
        let mut failed = false;
        let mut ended_last = true;
        for entry in owed {
            match entry {
                Owed::Server { hidden: true, .. } => {}
                Owed::Local(reply) => {
                    ended_last = matches!(reply, Own::ReadyForQuery(_));
                    match reply {
                        Own::ReadyForQuery(_) => {
                            self.reply_ready();
                            failed = false;
                        }
                        Own::ParseComplete if failed => self.void_parse(),
                        Own::Prepared => {
                            // No server has judged it.
                            self.void_parse();
                            if !std::mem::replace(&mut failed, true) {
                                self.reply_fault(fault);
                            }
                        }
                        Own::Messages(_) if failed => {}
                        Own::ParseComplete => {
                            self.tentative.pop_front();
                            reply.write(&mut self.out);
                        }
                        Own::Messages(_) => reply.write(&mut self.out),
                    }
                }
                Owed::Server { request, note, .. } => {
                    if let Note::Parse { client: true, .. } = note {
                        self.void_parse();
                    }
                    let ends = matches!(
                        request,
                        Request::Query | Request::Sync | Request::FunctionCall
                    );
                    if !failed && (request != Request::Sync || group_open) {
                        self.reply_fault(fault);
                        failed = true;
                    }
                    if ends {
                        if request != Request::Sync || group_open {
                            self.count_lost();
                        }
                        self.reply_ready();
                        failed = false;
                    }
                    ended_last = ends;
                }
            }
        }
        if !ended_last {
            self.skipping = true;
        }
    }
}

/// The error of a request whose server connection was lost.
fn lost_fault(shard: &str, lost: &Lost, committing: bool) -> Fault {
    let reason = format!("It ended with: {}.", lost.0.trim_end_matches('.'));
    if committing {
        return Fault::error(
            SqlState::TRANSACTION_OUTCOME_UNKNOWN,
            format!("the connection to shard \"{shard}\" was lost while committing"),
        )
        .detail(reason)
        .hint("The transaction may or may not be committed: check before repeating it.");
    }
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        format!("the connection to shard \"{shard}\" was lost"),
    )
    .detail(reason)
    .hint("Whether the statement took effect is not known; check before repeating a write.")
}

/// Whether a commit was among what is not answered.
fn is_commit(owed: &Owed<Note>) -> bool {
    match owed {
        Owed::Server {
            note: Note::Script { script, .. },
            ..
        } => script
            .statements
            .iter()
            .any(|statement| matches!(statement.effect, Effect::Commit { .. })),
        Owed::Server {
            note: Note::Effect(effect),
            ..
        } => matches!(**effect, Effect::Commit { .. }),
        Owed::Server { .. } | Owed::Local(_) => false,
    }
}

fn is_end(owed: &Owed<Note>) -> bool {
    matches!(
        owed,
        Owed::Server {
            request: Request::Sync,
            note: Note::None,
            ..
        }
    )
}

/// Whether SET TRANSACTION takes over another transaction's snapshot.
fn is_snapshot(modes: &str) -> bool {
    let first = modes.split_whitespace().next().unwrap_or_default();
    first.eq_ignore_ascii_case("snapshot")
}

/// RESET ALL leaves role and session authorization as they are.
fn keep_identity(settings: &Settings) -> Rc<Settings> {
    with_identity(&Settings::default(), settings)
}

fn with_identity(base: &Settings, identity: &Settings) -> Rc<Settings> {
    let mut values: std::collections::BTreeMap<String, String> = base
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for name in ["session_authorization", "role"] {
        match identity.get(name) {
            Some(value) => values.insert(name.to_owned(), value.to_owned()),
            None => values.remove(name),
        };
    }
    Settings::new(values)
}
