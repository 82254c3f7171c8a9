//! The extended query protocol: Parse, Bind, Describe, Execute, Close, Flush, Sync.
//!
//! A Parse waits until something says where it belongs: its Bind (by the parameters), a Describe or
//! a Flush (any shard will do, DDL is the same on all), or Sync. A text that a server has accepted
//! under the same schema and settings is answered without one.
//! See <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>.

use std::rc::Rc;

use crate::config::KeepUnnamed;
use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::planner;
use crate::planner::plan::{Argument, Effect, Explained, Literal, Parameter, Statement, Values};
use crate::server::connection::Note;
use crate::server::pool::Lease;
use crate::server::settings::{self, Detour};
use crate::server::statements::{Prepared, ServerName};
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, Frame};
use crate::wire::frontend::{self, Bind, Target};
use crate::wire::pipeline::{Own, Request};

use super::lease::Place;
use super::simple::{duplicate_statement, statement_key, unknown_statement, write_line};
use super::{Portal, Session, Stop};

/// An unnamed Parse that comes this often stays prepared on the server.
const PROMOTED_AFTER: u32 = 2;

/// The parameters of a Bind, and the literals of its statement's text.
pub(crate) struct BindValues<'a> {
    bind: &'a Bind<'a>,
    prepared: &'a Prepared,
    is_utf8: bool,
}

impl<'a> BindValues<'a> {
    pub(crate) fn new(bind: &'a Bind<'a>, prepared: &'a Prepared, is_utf8: bool) -> BindValues<'a> {
        BindValues {
            bind,
            prepared,
            is_utf8,
        }
    }
}

impl Values for BindValues<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let (binary, value) = self.bind.value(usize::from(index))?;
        Some(Parameter {
            value,
            binary,
            oid: self.prepared.parameter_type(index),
        })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.prepared.script.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.prepared.text()),
        })
    }

    fn is_utf8(&self) -> bool {
        self.is_utf8
    }
}

/// No values: what is needed when only the statement is described.
struct NoValues;

impl Values for NoValues {
    fn parameter(&self, _index: u16) -> Option<Parameter<'_>> {
        None
    }

    fn literal(&self, _index: u16) -> Option<Literal<'_>> {
        None
    }
}

impl Session {
    /// An error in the extended protocol: reported, then everything is skipped until Sync.
    pub(crate) fn fail_group(&mut self, fault: &Fault) {
        self.pending_are_void();
        if let Some(script) = self.refusing.take() {
            self.note_refusal(&script, fault);
        }
        self.reply_fault(fault);
        self.skipping = true;
        // PostgreSQL sends an error at once; what comes before it must come too.
        self.ask_for_replies();
    }

    /// The Parses that wait will get no reply.
    pub(crate) fn pending_are_void(&mut self) {
        for _ in 0..self.pending.len() {
            self.void_parse();
        }
        self.pending.clear();
    }

    /// The oldest Parse without a reply will get none: its name never existed.
    pub(crate) fn void_parse(&mut self) {
        match self.tentative.pop_front() {
            Some(Some(name)) => {
                self.statements.remove(&name);
            }
            // Another may have come since.
            Some(None) if !self.tentative.contains(&None) => self.unnamed = None,
            Some(None) | None => {}
        }
    }

    /// Runs one message of the extended protocol; errors fail the group.
    pub(crate) fn on_extended(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        if self.is_skipping_messages() && frame.tag != b'S' {
            return Ok(());
        }
        self.refusing = None;
        let result = match frame.tag {
            b'P' => self.on_parse(frame.body),
            b'B' => self.on_bind(frame.body),
            b'D' => self.on_describe(frame.body),
            b'E' => {
                let result = self.on_execute(frame.body);
                self.asked(result)
            }
            b'C' => self.on_close(frame.body),
            b'H' => self.on_flush(),
            _ => self.on_sync(),
        };
        match result {
            Err(Stop::Fault(fault)) => self.fail_behind_pending(&fault),
            Err(Stop::Refusal(fault)) if self.is_implied() => self.fail_behind_pending(&fault),
            Err(Stop::Refusal(fault)) => self.refuse_behind_pending(&fault),
            other => other,
        }
    }

    /// The same as [`Session::fail_behind_pending`], for a statement that an open block goes on without.
    fn refuse_behind_pending(&mut self, fault: &Fault) -> Result<(), Stop> {
        match self.settle_pending() {
            Ok(()) => {
                self.wait_for_replies()?;
                if let Some(script) = self.refusing.take() {
                    self.note_refusal(&script, fault);
                }
                self.reply_refusal(fault);
                self.skipping = true;
            }
            Err(Stop::Fault(earlier)) => self.fail_group(&earlier),
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    /// Parses that came before the message that fails are judged and answered before it.
    fn fail_behind_pending(&mut self, fault: &Fault) -> Result<(), Stop> {
        match self.settle_pending() {
            Ok(()) => {
                // What went before may end the block that would fail with this.
                self.wait_for_replies()?;
                let fault = self.in_failed_block(fault.clone());
                self.fail_group(&fault);
            }
            Err(Stop::Fault(earlier)) => self.fail_group(&earlier),
            Err(stop) => return Err(stop),
        }
        Ok(())
    }

    fn on_parse(&mut self, body: &[u8]) -> Result<(), Stop> {
        let parse = frontend::parse(body).map_err(Fault::from)?;
        self.settle_settings()?;
        if (self.block.is_some() || self.may_open_block) && self.begins_group() {
            // Whether the block has failed decides what the answer is.
            self.wait_for_replies()?;
            self.may_open_block = false;
        }
        if self.statements.contains_key(statement_key(parse.name)) {
            self.settle_name(parse.name)?;
        }
        if !parse.name.is_empty()
            && (self.statements.contains_key(statement_key(parse.name))
                || self.is_sql_prepared(parse.name))
        {
            return Err(Stop::Fault(duplicate_statement(parse.name)));
        }
        let written = self.plan_extended(&parse);
        let prepared = self.called_on_server(&written)?;
        if prepared.calls.get().is_some() {
            self.keep_execute(parse.name, written);
        }
        if self.is_being_judged(&prepared) {
            self.wait_for_replies()?;
        }
        if let Some(statement) = prepared.script.statements.first() {
            self.check_failed(statement)?;
            self.check_parse_in_failed(statement)?;
        }
        let unnamed = parse.name.is_empty();
        if unnamed {
            prepared.uses.set(prepared.uses.get().saturating_add(1));
            self.unnamed = Some(Rc::clone(&prepared));
            self.tentative.push_back(None);
        } else {
            self.statements
                .insert(statement_key(parse.name).into(), Rc::clone(&prepared));
            self.client.prepared.set(self.statements.len());
            self.tentative
                .push_back(Some(statement_key(parse.name).into()));
        }
        self.engine.count_parse(&self.database);
        self.pending.push((prepared, unnamed));
        Ok(())
    }

    /// In a failed block only what ends it is parsed, also where a server would not be asked.
    fn check_parse_in_failed(&self, statement: &Statement) -> Result<(), Fault> {
        let is_end = matches!(
            statement.effect,
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::RollbackTo(_)
        );
        if !is_end && self.status() == Status::Failed {
            return Err(Session::failed_block_fault());
        }
        Ok(())
    }

    /// Whether a server has been sent the text and has not said what it thinks of it.
    fn is_being_judged(&self, prepared: &Prepared) -> bool {
        let Some(connection) = self.lease.as_ref().and_then(Lease::peek) else {
            return false;
        };
        let ours = self.server_name(prepared);
        prepared.accepted.get() != Some((u64::from(ours.epoch), ours.fingerprint))
            && connection
                .pipeline
                .notes()
                .any(|note| matches!(note, Note::Parse { name, .. } if *name == ours))
    }

    /// Whether the message at hand is the first behind a Sync.
    fn begins_group(&self) -> bool {
        self.lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| !connection.unsynced)
    }

    /// A name whose Parse has no answer yet may turn out to be none.
    fn settle_name(&self, name: &[u8]) -> Result<(), Stop> {
        // The unnamed one has no name there.
        let is_tentative = |known: &Option<Box<[u8]>>| known.as_deref().unwrap_or_default() == name;
        if self.tentative.iter().any(is_tentative) {
            self.wait_for_replies()?;
        }
        Ok(())
    }

    /// The same for a message that begins a group: within one, an error makes all that follows void.
    pub(crate) fn settle_name_of_group(&self, name: &[u8]) -> Result<(), Stop> {
        if self.begins_group() {
            self.settle_name(name)
        } else {
            Ok(())
        }
    }

    pub(crate) fn is_sql_prepared(&self, name: &[u8]) -> bool {
        self.sql_prepared
            .iter()
            .any(|known| known.as_bytes() == name)
    }

    pub(crate) fn find_statement(&mut self, name: &[u8]) -> Result<Rc<Prepared>, Stop> {
        let found = if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.statements.get(statement_key(name))
        };
        let found = found
            .map(Rc::clone)
            .ok_or_else(|| unknown_statement(name))?;
        self.settle_settings()?;
        let target = found.calls.get();
        if self.is_current(&found) && target.is_none_or(|target| self.is_kept_as_it_is(target)) {
            return Ok(found);
        }
        // The schema, the search path or what it executes has changed since it was planned.
        let written = target.and_then(|_| self.kept_execute(name));
        let renewed = match written {
            Some(written) => {
                let written = self.renew(&written);
                self.called_on_server(&written)?
            }
            None => self.renew(&found),
        };
        let waits = |(pending, _): &&mut (Rc<Prepared>, bool)| Rc::ptr_eq(pending, &found);
        match self.pending.iter_mut().find(waits) {
            Some((pending, _)) => *pending = Rc::clone(&renewed),
            None => self.compare_results(&found, &renewed)?,
        }
        if name.is_empty() {
            self.unnamed = Some(Rc::clone(&renewed));
        } else {
            self.statements
                .insert(statement_key(name).into(), Rc::clone(&renewed));
        }
        Ok(renewed)
    }

    fn keep_execute(&mut self, name: &[u8], written: Rc<Prepared>) {
        let key = statement_key(name);
        let statements = &self.statements;
        self.executes.retain(|(known, _)| {
            **known != *key && (known.is_empty() || statements.contains_key(known))
        });
        self.executes.push((key.into(), written));
    }

    fn kept_execute(&self, name: &[u8]) -> Option<Rc<Prepared>> {
        let key = statement_key(name);
        let kept = self.executes.iter().find(|(known, _)| **known == *key);
        kept.map(|(_, written)| Rc::clone(written))
    }

    /// Whether a statement is among the client's, under the schema and search path of now.
    fn is_kept_as_it_is(&mut self, target: &Rc<Prepared>) -> bool {
        self.is_current(target)
            && self
                .statements
                .values()
                .any(|kept| Rc::ptr_eq(kept, target))
    }

    /// A statement that a client knows must go on giving the columns that it knows
    /// (`RevalidateCachedQuery` in `plancache.c`). A server is asked where none has told.
    fn compare_results(&mut self, known: &Prepared, renewed: &Rc<Prepared>) -> Result<(), Stop> {
        let Some(known) = known.described.get() else {
            return Ok(());
        };
        if let Some(now) = renewed.described.get() {
            return if now.has_columns_of(known) {
                Ok(())
            } else {
                Err(Stop::Fault(Fault::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "cached plan must not change result type",
                )))
            };
        }
        let shard = self.shard_for_describe(renewed.script.statements.first());
        self.describe_first(renewed, shard)
    }

    /// Has a shard's server say what a statement is before the message at hand is looked at again.
    pub(crate) fn describe_first(
        &mut self,
        prepared: &Rc<Prepared>,
        shard: ShardId,
    ) -> Result<(), Stop> {
        self.wait_for_replies()?;
        self.check_types(shard, Some(prepared))?;
        self.check_snapshots_for(shard, prepared)?;
        self.lease(shard, false)?;
        self.flush_pending(None);
        let name = self.ensure_prepared(prepared, false);
        self.ask_for_description(prepared, &name);
        Err(Stop::Drain)
    }

    /// Asks a server for the columns of a statement it has, unless they are known or asked for.
    fn ask_for_description(&mut self, prepared: &Rc<Prepared>, name: &[u8]) {
        if prepared.described.get().is_some() {
            return;
        }
        let note = Note::Describe {
            prepared: Rc::clone(prepared),
            parameters: None,
        };
        if let Some(connection) = self.connection() {
            frame::write(&mut connection.out, b'D', &[b"S", name]);
            connection
                .pipeline
                .sent(Request::DescribeStatement, true, note);
            connection.mark_unsynced();
        }
    }

    /// A statement that changes settings must be answered before the next is read under them.
    pub(crate) fn settle_settings(&mut self) -> Result<(), Stop> {
        if self.settings_change {
            self.wait_for_replies()?;
            self.settings_change = false;
        }
        if self.names_unsure {
            self.settle_names()?;
        }
        Ok(())
    }

    /// Whether an unnamed Parse of it stays prepared on the server.
    pub(crate) fn is_kept(&self, prepared: &Prepared) -> bool {
        prepared.promotable
            && prepared.uses.get() >= PROMOTED_AFTER
            && self.database.limits.keep_unnamed_statements != KeepUnnamed::Off
    }

    /// Sends the Parses that wait, or answers those that a server has accepted before. `bound` is
    /// the statement that the next message needs on the server.
    pub(crate) fn flush_pending(&mut self, bound: Option<&Rc<Prepared>>) {
        if self.pending.is_empty() {
            return;
        }
        let limit = self.database.limits.max_prepared_statements;
        for (prepared, unnamed) in std::mem::take(&mut self.pending) {
            let name = self.server_name(&prepared);
            let needed = bound.is_some_and(|bound| Rc::ptr_eq(bound, &prepared));
            let as_named = !unnamed || self.is_kept(&prepared);
            let accepted =
                prepared.accepted.get() == Some((u64::from(name.epoch), name.fingerprint));
            let local = is_answered_here(&prepared);
            let mapping = self.mapping_of_current(&prepared);
            let Some(connection) = self.connection() else {
                continue;
            };
            let known = as_named && connection.statements().touch(name);
            if local || known || (accepted && as_named && !needed) {
                connection.pipeline.local(Own::ParseComplete);
            } else if as_named {
                self.push_parse(name, &prepared, false, limit);
                self.engine.count_server_parse(&self.database);
                if !unnamed {
                    let mut called = Vec::with_capacity(24);
                    name.write(&mut called);
                    self.ask_for_description(&prepared, &called);
                }
            } else {
                let body = prepared.body_on(mapping.as_deref());
                frame::write(&mut connection.out, b'P', &[b"\0", &body]);
                let note = Note::Parse {
                    name,
                    prepared: Rc::clone(&prepared),
                    client: true,
                };
                connection.pipeline.sent(Request::Parse, false, note);
                connection.mark_unsynced();
                connection.unnamed = Some(name);
            }
        }
        self.emit_local();
    }

    /// Makes sure the current connection has a statement; returns what to call it there.
    pub(crate) fn ensure_prepared(&mut self, prepared: &Rc<Prepared>, unnamed: bool) -> Vec<u8> {
        if let Some(called) = prepared.calls.get() {
            self.ensure_prepared(called, false);
        }
        let name = self.server_name(prepared);
        let limit = self.database.limits.max_prepared_statements;
        let mut called = Vec::with_capacity(24);
        let kept = self.is_kept(prepared);
        if let Some(connection) = self.connection() {
            if unnamed && !kept && connection.unnamed == Some(name) {
                called.push(0);
                return called;
            }
            if !connection.statements().touch(name) {
                self.push_parse(name, prepared, true, limit);
            }
        }
        name.write(&mut called);
        called
    }

    /// Queues a Parse on the current connection: its literals are read as they were when the client
    /// sent it, whatever was set since.
    pub(crate) fn push_parse(
        &mut self,
        name: ServerName,
        prepared: &Rc<Prepared>,
        hidden: bool,
        limit: usize,
    ) {
        let detour = self.detour(prepared);
        let mapping = self.mapping_of_current(prepared);
        let body = prepared.body_on(mapping.as_deref());
        if let Some(connection) = self.connection() {
            connection.push_parse(name, prepared, &body, hidden, limit, &detour);
        }
    }

    /// The settings between which a Parse on the current connection must stand.
    pub(crate) fn detour(&self, prepared: &Prepared) -> Detour {
        if self.reads_literals_alike(prepared) {
            return Detour::default();
        }
        let scope = if self.block.is_some() { "LOCAL " } else { "" };
        let now = self.settings_in_force();
        let then = now.reading_literals_as(&prepared.parsed_under);
        Detour {
            there: settings::steps(now, &then, scope),
            back: settings::steps(&then, now, scope),
        }
    }

    /// SQL EXECUTE of a statement that was prepared by the protocol calls it as the server does.
    fn called_on_server(&mut self, prepared: &Rc<Prepared>) -> Result<Rc<Prepared>, Stop> {
        let [statement] = prepared.script.statements.as_slice() else {
            return Ok(Rc::clone(prepared));
        };
        let Effect::Execute { name, at, .. } = &statement.effect else {
            return Ok(Rc::clone(prepared));
        };
        if !self.executes_kept(statement) || self.status() == Status::Failed {
            return Ok(Rc::clone(prepared));
        }
        let target = self.find_statement(name.as_bytes())?;
        let mut called = Vec::new();
        self.server_name(&target).write(&mut called);
        called.pop();
        let text = prepared.text();
        let mut body = text.get(..at.start).unwrap_or_default().to_vec();
        body.extend_from_slice(&called);
        body.extend_from_slice(prepared.body.get(at.end..).unwrap_or_default());
        let length = text
            .len()
            .saturating_sub(at.len())
            .saturating_add(called.len());
        let query = body.get(..length).unwrap_or_default().to_vec();
        let renamed = self.plan_body(&body, &query);
        // The name in its text is that of this one alone.
        renamed.calls.get_or_init(|| target);
        Ok(renamed)
    }

    /// Before a Query: Parses without Sync are settled first.
    pub(crate) fn settle_pending(&mut self) -> Result<(), Stop> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.lease.is_none()
            && self
                .pending
                .iter()
                .all(|(prepared, unnamed)| self.is_known_good(prepared, *unnamed))
        {
            self.answer_pending();
            return Ok(());
        }
        let shard = self.shard_of_pending();
        self.check_types(shard, None)?;
        if let Some((prepared, _)) = self.pending.first() {
            let prepared = Rc::clone(prepared);
            self.check_snapshots_for(shard, &prepared)?;
        }
        self.lease(shard, false)?;
        self.flush_pending(None);
        Ok(())
    }

    /// Whether a Parse can be answered without a server.
    fn is_known_good(&self, prepared: &Prepared, unnamed: bool) -> bool {
        let name = self.server_name(prepared);
        is_answered_here(prepared)
            || ((!unnamed || self.is_kept(prepared))
                && prepared.accepted.get() == Some((u64::from(name.epoch), name.fingerprint)))
    }

    fn answer_pending(&mut self) {
        for _ in std::mem::take(&mut self.pending) {
            self.reply(backend::parse_complete);
            if self.lease.is_none() {
                self.tentative.pop_front();
            }
        }
        self.emit_local();
    }

    /// Any shard can judge a text; one that belongs to a single shard is judged there.
    fn shard_of_pending(&self) -> ShardId {
        if self.lease.is_some() {
            return self.here_or_home();
        }
        let statement = self
            .pending
            .first()
            .and_then(|(prepared, _)| prepared.script.statements.first());
        self.shard_for_describe(statement)
    }

    pub(crate) fn shard_for_describe(&self, statement: Option<&Statement>) -> ShardId {
        if self.lease.is_some() {
            return self.here_or_home();
        }
        match statement.map(|statement| self.place(statement, &NoValues)) {
            Some(Ok(Place::Shard { shard, .. })) => shard,
            _ => self.here_or_home(),
        }
    }

    fn on_bind(&mut self, body: &[u8]) -> Result<(), Stop> {
        self.answers.begin();
        let result = self.on_bind_asked(body);
        self.asked(result)
    }

    fn on_bind_asked(&mut self, body: &[u8]) -> Result<(), Stop> {
        let bind = frontend::bind(body).map_err(Fault::from)?;
        if self.is_sql_prepared(bind.statement)
            && !self.statements.contains_key(statement_key(bind.statement))
        {
            return self.bind_as_is(body, &bind);
        }
        self.settle_name_of_group(bind.statement)?;
        let prepared = self.find_statement(bind.statement)?;
        if let Some(fills) = &prepared.fills {
            return self.bind_with_ids(&bind, &prepared, fills);
        }
        if let [statement] = prepared.script.statements.as_slice()
            && let Effect::LastId { .. } = statement.effect
        {
            let values = BindValues::new(&bind, &prepared, self.is_utf8());
            if let Some(known) = self.known_id(&statement.effect, Some(&values))? {
                return self.bind_known_id(&bind, &known);
            }
        }
        self.bind_prepared(&bind, &prepared)
    }

    /// Handles a Bind of a statement.
    pub(crate) fn bind_prepared(
        &mut self,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
    ) -> Result<(), Stop> {
        self.listen_first(&prepared.script)?;
        let Some(statement) = prepared.script.statements.first() else {
            return self.bind_on(self.here_or_home(), true, bind, prepared, Effect::None);
        };
        if prepared.script.statements.len() > 1 {
            // The server says what is wrong with it.
            return self.bind_on(self.here_or_home(), false, bind, prepared, Effect::None);
        }
        self.check_failed(statement)?;
        if let Err(Stop::Fault(fault)) = self.check_effect(&statement.effect) {
            return Err(Stop::Fault(fault));
        }
        self.check_bound(statement)?;
        self.check_names(statement)?;
        let values = BindValues::new(bind, prepared, self.is_utf8());
        if self.minds_cache() {
            self.before_bind(prepared, &values)?;
        }
        let place = match self.place_temporary(statement, prepared.text())? {
            Some(place) => place,
            None => match self.place_bound(statement, prepared, &values) {
                Ok(place) => place,
                Err(fault) => {
                    self.refusing = Some(Rc::clone(&prepared.script));
                    return Err(Stop::Fault(fault));
                }
            },
        };
        self.note_route(&place, &statement.effect);
        match place {
            Place::Local => self.bind_local(bind, statement, prepared),
            Place::Wide(route) => {
                let effect = self.effect_to_run(statement, prepared.text(), &values);
                Err(self.widen_extended(statement, effect, route, bind, prepared))
            }
            Place::Shard { shard, binds } => {
                self.check_copy(shard, &statement.effect)?;
                let shard = self
                    .cursor_shard(statement, prepared.text())
                    .unwrap_or(shard);
                self.note_use(shard, statement)?;
                self.check_cursors(statement)?;
                self.note_temporary(&statement.effect, prepared.text());
                let effect = self.effect_to_run(statement, prepared.text(), &values);
                let effect = resolved(&effect, &values);
                self.bind_on(shard, binds, bind, prepared, effect)?;
                self.note_cursor(shard, statement, prepared.text());
                self.tally(&prepared.script, &statement.effect);
                self.note_advance(statement);
                Ok(())
            }
        }
    }

    /// Where a statement runs; SQL EXECUTE, where what it executes does.
    fn place_bound(
        &self,
        statement: &Statement,
        prepared: &Prepared,
        values: &dyn Values,
    ) -> Result<Place, Fault> {
        match (&statement.effect, prepared.calls.get()) {
            (Effect::Execute { arguments, .. }, Some(target)) => {
                self.place_execute(target, arguments, values)
            }
            _ => self.place(statement, values),
        }
    }

    /// A statement for several shards: taken out of the relay, with the rest of its group.
    fn widen_extended(
        &mut self,
        statement: &Statement,
        effect: Effect,
        route: planner::plan::Route,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
    ) -> Stop {
        if bind.has_binary() && !self.oids_are_alike() {
            let home = self.database.topology.home();
            if let Err(stop) = self.describe_parameters(home, bind, prepared) {
                return stop;
            }
        }
        let route = self.within_block(route, statement);
        if bind.portal.is_empty() {
            self.forget_unnamed_portal();
        }
        if let Err(stop) = self.make_room_for(&route, statement) {
            if let Stop::Fault(_) | Stop::Refusal(_) = stop {
                self.refusing = Some(Rc::clone(&prepared.script));
            }
            return stop;
        }
        if self
            .lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| connection.unsynced)
        {
            return Stop::EndGroup;
        }
        let can_decide = if self.block.is_none() && may_write(&route, statement) {
            let generation = self.database.generation;
            match self.database.shared.two_phase.known(generation) {
                None => return Stop::TwoPhase,
                Some(said) => said.is_ok(),
            }
        } else {
            false
        };
        self.tally(&prepared.script, &statement.effect);
        self.note_unclear_id(statement);
        if can_decide {
            // It is committed with the rest of its group.
            let mut block = super::block::Block::implied(&self.settings);
            block.wrote = self.shards_of(&route);
            if self.answers.claims_some() {
                block.wrote.insert(self.database.topology.home());
            }
            self.block = Some(Box::new(block));
        }
        Stop::Task(Box::new(super::Task::Wide(Box::new(
            crate::execute::Wide {
                route,
                source: crate::execute::Source::Bind {
                    portal: bind.portal.to_vec(),
                    prepared: Rc::clone(prepared),
                    after_names: bind.after_names.to_vec(),
                },
                verb: statement.verb,
                effect,
                reads: !statement.writes,
                lexing: prepared.reading.lexing,
                tenant: self.tenant_value(),
                claims: self.answers.take_claims(),
            },
        ))))
    }

    /// Answers the Parses that wait: the wide statement they belong to judges the text itself.
    pub(crate) fn answer_parses(&mut self) {
        for _ in std::mem::take(&mut self.pending) {
            self.reply(backend::parse_complete);
            self.tentative.pop_front();
        }
    }

    fn bind_local(
        &mut self,
        bind: &Bind<'_>,
        statement: &Statement,
        prepared: &Rc<Prepared>,
    ) -> Result<(), Stop> {
        self.settle_pending()?;
        self.check_new_portal(bind.portal)?;
        let (given, wanted) = (bind.len(), prepared.parameters_declared());
        if given != wanted {
            let name = String::from_utf8_lossy(bind.statement);
            return Err(Stop::Fault(Fault::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
                ),
            )));
        }
        let portal = Portal::Local {
            effect: statement.effect.clone(),
            verb: statement.verb,
            text: Rc::clone(prepared),
            done: false,
        };
        self.tally(&prepared.script, &statement.effect);
        self.set_portal(bind.portal, portal);
        self.reply(backend::bind_complete);
        Ok(())
    }

    /// A portal of the server's that has the name is the server's to find.
    fn check_new_portal(&self, name: &[u8]) -> Result<(), Fault> {
        let known = self.portals.iter().find(|(known, _)| **known == *name);
        match known {
            Some((_, Portal::Local { .. })) if !name.is_empty() => Err(Fault::error(
                SqlState::DUPLICATE_CURSOR,
                format!(
                    "cursor \"{}\" already exists",
                    String::from_utf8_lossy(name)
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn set_portal(&mut self, name: &[u8], portal: Portal) {
        match self.portals.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = portal,
            None => self.portals.push((name.into(), portal)),
        }
    }

    fn bind_on(
        &mut self,
        shard: ShardId,
        binds: bool,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
        effect: Effect,
    ) -> Result<(), Stop> {
        self.check_new_portal(bind.portal)?;
        self.check_types(shard, Some(prepared))?;
        let put = self.put_bind(shard, bind, prepared)?;
        let after_names = put.as_deref().unwrap_or(bind.after_names);
        self.lease(shard, binds)?;
        self.flush_pending(Some(prepared));
        let name = self.ensure_prepared(prepared, bind.statement.is_empty());
        let may_name = self.rows_may_name(shard, prepared, bind.result_formats().is_text());
        let portal = Portal::Server {
            shard,
            effect,
            may_name,
        };
        self.set_portal(bind.portal, portal);
        if let Some(connection) = self.connection() {
            frame::write(
                &mut connection.out,
                b'B',
                &[bind.portal, b"\0", &name, after_names],
            );
            connection.pipeline.sent(Request::Bind, false, Note::None);
            connection.mark_unsynced();
        }
        self.engine.count_bind(&self.database);
        Ok(())
    }

    /// A statement that SQL PREPARE made lives on the pinned connection under its own name.
    fn bind_as_is(&mut self, body: &[u8], bind: &Bind<'_>) -> Result<(), Stop> {
        self.settle_settings()?;
        if self.is_tenant() {
            return Err(Stop::Fault(planner::tenant::not_allowed(
                "a statement prepared by SQL",
                "Prepare it with the extended protocol, as drivers do, or send it directly.",
            )));
        }
        let shard = self.here_or_home();
        self.check_unread_bind(shard, bind)?;
        self.check_snapshots(shard)?;
        self.note_write(shard)?;
        if self.minds_cache() {
            self.before_anything()?;
        }
        self.lease(shard, true)?;
        self.flush_pending(None);
        self.set_portal(
            bind.portal,
            Portal::Server {
                shard,
                effect: Effect::None,
                may_name: true,
            },
        );
        if let Some(connection) = self.connection() {
            frame::write(&mut connection.out, b'B', &[body]);
            connection.pipeline.sent(Request::Bind, false, Note::None);
            connection.mark_unsynced();
        }
        Ok(())
    }

    fn on_describe(&mut self, body: &[u8]) -> Result<(), Stop> {
        match frontend::describe(body).map_err(Fault::from)? {
            Target::Statement(name) if self.is_sql_prepared(name) => {
                let shard = self.here_or_home();
                self.forward(shard, b'D', body, Request::DescribeStatement)
            }
            Target::Statement(name) => {
                self.settle_name_of_group(name)?;
                let prepared = match self.find_statement(name) {
                    Err(Stop::Fault(fault)) => {
                        // The parameters are described before the columns are found to be others.
                        let known = self.statements.get(statement_key(name)).map(Rc::clone);
                        if let Some(types) =
                            known.as_ref().and_then(|known| known.client_parameters())
                        {
                            self.reply(|out| backend::parameter_description(out, types));
                        }
                        return Err(Stop::Fault(fault));
                    }
                    other => other?,
                };
                if is_answered_here(&prepared) {
                    self.settle_pending()?;
                    let effect = prepared
                        .script
                        .statements
                        .first()
                        .map(|statement| &statement.effect);
                    let column = effect.and_then(column_of);
                    self.reply(|out| {
                        backend::parameter_description(out, &[]);
                        describe_local(out, column.as_deref());
                    });
                    return Ok(());
                }
                let statement = prepared.script.statements.first();
                let shard = statement
                    .and_then(|statement| self.cursor_shard(statement, prepared.text()))
                    .unwrap_or_else(|| self.shard_for_describe(statement));
                self.check_types(shard, Some(&prepared))?;
                self.check_snapshots_for(shard, &prepared)?;
                self.lease(shard, false)?;
                self.flush_pending(Some(&prepared));
                let mut target = vec![b'S'];
                target.extend_from_slice(&self.ensure_prepared(&prepared, name.is_empty()));
                let note = match prepared.described.get() {
                    Some(_) if prepared.fills.is_none() => Note::None,
                    Some(_) | None => Note::Describe {
                        prepared,
                        parameters: None,
                    },
                };
                self.send(b'D', &target, Request::DescribeStatement, note);
                Ok(())
            }
            Target::Portal(name) => {
                if let Some((_, Portal::Local { effect, .. })) =
                    self.portals.iter().find(|(known, _)| **known == *name)
                {
                    let column = column_of(effect);
                    self.settle_pending()?;
                    self.reply(|out| describe_local(out, column.as_deref()));
                    return Ok(());
                }
                self.check_portal(name)?;
                let shard = self.portal_shard(name);
                self.forward(shard, b'D', body, Request::DescribePortal)?;
                self.note_described(shard, name);
                Ok(())
            }
        }
    }

    /// Portals that we did not make may be cursors of the block.
    fn check_portal(&self, name: &[u8]) -> Result<(), Fault> {
        let known = self.portals.iter().any(|(known, _)| **known == *name);
        if known || self.block.as_ref().is_some_and(|block| block.sent) || self.pinned.is_some() {
            return Ok(());
        }
        Err(Fault::error(
            SqlState::UNKNOWN_PORTAL,
            format!(
                "portal \"{}\" does not exist",
                String::from_utf8_lossy(name)
            ),
        ))
    }

    fn forward(
        &mut self,
        shard: ShardId,
        tag: u8,
        body: &[u8],
        request: Request,
    ) -> Result<(), Stop> {
        self.lease(shard, false)?;
        self.flush_pending(None);
        self.send(tag, body, request, Note::None);
        Ok(())
    }

    fn send(&mut self, tag: u8, body: &[u8], request: Request, note: Note) {
        if let Some(connection) = self.connection() {
            frame::write(&mut connection.out, tag, &[body]);
            connection.pipeline.sent(request, false, note);
            connection.mark_unsynced();
        }
    }

    fn on_execute(&mut self, body: &[u8]) -> Result<(), Stop> {
        let execute = frontend::execute(body).map_err(Fault::from)?;
        self.settle_pending()?;
        let portal = self
            .portals
            .iter()
            .find(|(known, _)| **known == *execute.portal)
            .map(|(_, portal)| portal.clone());
        if let Some(Portal::Server { effect, .. } | Portal::Local { effect, .. }) = &portal
            && matches!(effect, Effect::Commit { .. } | Effect::TwoPhase)
        {
            self.execute_commit();
        }
        let ends = |portal: &Portal| match portal {
            Portal::Server { effect, .. } => {
                matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. })
            }
            Portal::Local { .. } => false,
        };
        if let Some(Portal::Server { effect, .. }) = &portal
            && portal.as_ref().is_some_and(ends)
            && self.ends_here()
        {
            // Others have joined since it was bound.
            self.wait_for_replies()?;
            self.settle_synced(effect)?;
            return self.run_local(effect, "COMMIT", &[], false);
        }
        let (shard, effect, may_name) = match portal {
            Some(Portal::Local { done: true, .. }) => {
                if self.status() == Status::Failed {
                    return Err(Stop::Fault(Session::failed_block_fault()));
                }
                return Err(Stop::Fault(Fault::error(
                    SqlState::NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "portal \"{}\" cannot be run",
                        String::from_utf8_lossy(execute.portal)
                    ),
                )));
            }
            Some(Portal::Local {
                effect, verb, text, ..
            }) => {
                self.wait_for_replies()?;
                self.settle_synced(&effect)?;
                self.listen_first(&text.script)?;
                self.run_local(&effect, verb, text.text(), false)?;
                if matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. }) {
                    self.portals.clear();
                } else {
                    let done = Portal::Local {
                        effect,
                        verb,
                        text,
                        done: true,
                    };
                    self.set_portal(execute.portal, done);
                }
                return Ok(());
            }
            Some(Portal::Server {
                shard,
                effect,
                may_name,
            }) => (shard, effect, may_name),
            None => {
                self.check_portal(execute.portal)?;
                let shard = self.portal_shard(execute.portal);
                (shard, Effect::None, !self.oids_are_alike())
            }
        };
        self.lease(shard, false)?;
        if self.needs_description(shard, execute.portal, may_name)
            && let Some(connection) = self.connection()
        {
            frame::write(&mut connection.out, b'D', &[b"P", execute.portal, b"\0"]);
            connection
                .pipeline
                .sent(Request::DescribePortal, true, Note::None);
        }
        self.remember_settings();
        self.note_effect_before(&effect);
        self.executed = true;
        if let Effect::Explain(explained) = &effect
            && let Explained::Route(route) = &**explained
        {
            self.reply(|out| write_line(out, route));
        }
        let note = if matches!(effect, Effect::None | Effect::Explain(_)) {
            Note::Execute
        } else {
            Note::Effect(Box::new(effect))
        };
        self.send(b'E', body, Request::Execute, note);
        self.count_sent();
        Ok(())
    }

    fn on_close(&mut self, body: &[u8]) -> Result<(), Stop> {
        let target = frontend::close(body).map_err(Fault::from)?;
        self.settle_pending()?;
        match target {
            Target::Statement(name) => {
                if self.is_sql_prepared(name) && !self.statements.contains_key(statement_key(name))
                {
                    self.sql_prepared.retain(|known| known.as_bytes() != name);
                    let shard = self.here_or_home();
                    return self.forward(shard, b'C', body, Request::Close);
                }
                if name.is_empty() {
                    self.unnamed = None;
                } else {
                    self.statements.remove(statement_key(name));
                    self.client.prepared.set(self.statements.len());
                }
            }
            Target::Portal(name) => {
                let shard = self.portal_shard(name);
                let on_server = match self.portals.iter().position(|(known, _)| **known == *name) {
                    Some(index) => {
                        matches!(self.portals.swap_remove(index), (_, Portal::Server { .. }))
                    }
                    None => self.block.as_ref().is_some_and(|block| block.sent),
                };
                if on_server && (self.lease.is_some() || self.is_spread()) {
                    return self.forward(shard, b'C', body, Request::Close);
                }
            }
        }
        self.reply(backend::close_complete);
        Ok(())
    }

    fn on_flush(&mut self) -> Result<(), Stop> {
        self.settle_pending()?;
        if let Some(connection) = self.connection()
            && connection.unsynced
        {
            frame::write(&mut connection.out, b'H', &[]);
        }
        Ok(())
    }

    fn on_sync(&mut self) -> Result<(), Stop> {
        if self.copy_in {
            // PostgreSQL ignores Sync while it reads COPY data.
            if let Some(connection) = self.connection() {
                frame::write(&mut connection.out, b'S', &[]);
            }
            return Ok(());
        }
        self.unbind_commit();
        if self.has_looks() {
            self.imply_looks()?;
        }
        if self.is_implied() {
            return self.sync_implied();
        }
        if self.skipping {
            self.poison_group();
        } else if !self.is_skipping_messages() {
            match self.settle_pending() {
                Err(Stop::Fault(fault)) => self.fail_group(&fault),
                other => other?,
            }
        }
        self.skipping = false;
        if self.block.is_none() {
            self.portals.clear();
        }
        let executed = self.executed;
        match self.connection() {
            Some(connection) if connection.unsynced => {
                let note = if executed { Note::Commit } else { Note::None };
                frame::write(&mut connection.out, b'S', &[]);
                connection.pipeline.sent(Request::Sync, false, note);
                connection.unsynced = false;
                self.oids.end_request();
            }
            Some(_) | None => {
                // The status is known only when what went before is answered.
                self.wait_for_replies()?;
                self.reply_ready();
            }
        }
        self.executed = false;
        Ok(())
    }

    /// The end of a group that is a transaction on several shards.
    fn sync_implied(&mut self) -> Result<(), Stop> {
        if !self.skipping && !self.is_skipping_messages() {
            match self.settle_pending() {
                Err(Stop::Fault(fault)) => self.fail_group(&fault),
                other => other?,
            }
        }
        let unsynced = self
            .connection()
            .is_some_and(|connection| connection.unsynced);
        if unsynced {
            return Err(Stop::EndGroup);
        }
        self.wait_for_replies()?;
        self.skipping = false;
        Err(Stop::Task(Box::new(super::Task::End(
            super::commit::Ending::implied(),
        ))))
    }

    /// Where a portal is: one that we did not make may be a cursor of the block.
    fn portal_shard(&self, name: &[u8]) -> ShardId {
        let known = self.portals.iter().find(|(known, _)| **known == *name);
        if let Some((_, Portal::Server { shard, .. })) = known {
            return *shard;
        }
        let cursors = self.block.iter().flat_map(|block| &block.cursors);
        let mut cursors = cursors.filter(|(known, _)| known.as_bytes() == name);
        let cursor = cursors.next().map(|(_, shard)| *shard);
        cursor.unwrap_or_else(|| self.here_or_home())
    }

    /// We refused something in a group that a server has begun: the part before must not be committed.
    fn poison_group(&mut self) {
        let status = match &self.block {
            None if self.executed => Status::Idle,
            Some(block) if block.failed && block.sent => Status::InBlock,
            None | Some(_) => return,
        };
        if let Some(connection) = self.connection()
            && connection.unsynced
            && connection.status == status
        {
            connection.push_failure();
        }
    }

    /// A block that failed by an error of our own fails on its server as well: what becomes of it from
    /// here on is the server's to say.
    pub(crate) fn fail_block_on_server(&mut self) {
        let is_failed = |block: &super::block::Block| block.failed && block.sent;
        if self.block.as_deref().is_some_and(is_failed)
            && let Some(connection) = self.connection()
            && connection.status == Status::InBlock
            && !connection.unsynced
        {
            connection.push_failure();
            connection.push_hidden_sync();
        }
    }

    /// Hands over our own replies whose turn has come.
    pub(crate) fn emit_local(&mut self) {
        let Session {
            lease,
            out,
            tentative,
            ..
        } = self;
        let Some(connection) = lease.as_mut().and_then(Lease::connection) else {
            return;
        };
        while let Some(reply) = connection.pipeline.pop_local() {
            if matches!(reply, Own::ParseComplete | Own::Prepared) {
                tentative.pop_front();
            }
            reply.write(out);
        }
    }
}

/// Whether what is run on several shards may write there.
fn may_write(route: &planner::plan::Route, statement: &Statement) -> bool {
    use planner::plan::Route;
    match route {
        Route::Broadcast { transaction } => *transaction,
        Route::CopySplit(_)
        | Route::InsertSplit(_)
        | Route::InsertGathered(..)
        | Route::Each(_)
        | Route::Move(..) => true,
        Route::Concat(..) => statement.writes,
        Route::Session
        | Route::Anywhere
        | Route::AnyShard
        | Route::Single(_)
        | Route::Gather(_) => false,
    }
}

/// Whether a statement never reaches a server, so that its Parse does not either.
fn is_answered_here(prepared: &Prepared) -> bool {
    match prepared.script.statements.as_slice() {
        [statement] => matches!(
            statement.effect,
            Effect::Begin
                | Effect::Commit { .. }
                | Effect::Rollback { .. }
                | Effect::Deallocate { .. }
                | Effect::SetPgherd { .. }
                | Effect::ShowPgherd { .. }
                | Effect::ExplainRoute { .. }
        ),
        _ => false,
    }
}

/// The one column of an answer of our own.
pub(crate) fn column_of(effect: &Effect) -> Option<String> {
    if let Effect::ShowPgherd { name } = effect {
        Some(name.clone())
    } else if let Effect::ExplainRoute { .. } = effect {
        Some("QUERY PLAN".to_owned())
    } else {
        None
    }
}

fn describe_local(out: &mut Vec<u8>, column: Option<&str>) {
    match column {
        Some(name) => backend::row_description(out, &[backend::Column::text(name)]),
        None => backend::no_data(out),
    }
}

/// The effect with its parameters filled in.
fn resolved(effect: &Effect, values: &BindValues<'_>) -> Effect {
    let argument = |argument: &Argument| match argument {
        Argument::Parameter(index) => match values.parameter(*index) {
            Some(Parameter {
                value: Some(value),
                binary: false,
                ..
            }) => Argument::Literal(String::from_utf8_lossy(value).into_owned()),
            Some(Parameter {
                value: Some(value),
                binary: true,
                oid,
            }) => match (oid, value) {
                (16, [flag]) => {
                    Argument::Literal(if *flag == 0 { "false" } else { "true" }.to_owned())
                }
                (25 | 1043 | 19 | 0, text) => {
                    Argument::Literal(String::from_utf8_lossy(text).into_owned())
                }
                _ => Argument::Unknown,
            },
            Some(_) | None => Argument::Unknown,
        },
        Argument::Literal(_) | Argument::Unknown => argument.clone(),
    };
    let Effect::SetConfig { name, value, local } = effect else {
        return effect.clone();
    };
    Effect::SetConfig {
        name: argument(name),
        value: argument(value),
        local: argument(local),
    }
}
