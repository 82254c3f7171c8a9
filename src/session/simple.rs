//! The simple query protocol: one Query message, none, one or several statements.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Fault, SqlState};
use crate::execute::{Source, Wide};
use crate::placement::ShardSet;
use crate::planner::plan::{
    Access, Effect, Explained, Holders, Route, Script, Statement, TextValues, Values,
};
use crate::planner::tally::Way;
use crate::planner::{self, RouteReport, refuse};
use crate::server::connection::Note;
use crate::server::pool::Lease;
use crate::server::statements::{Prepared, ServerName};
use crate::sql::mask;
use crate::sql::scan::Lexing;
use crate::wire::frame::{self, Frame};
use crate::wire::pipeline::{Own, Request};
use crate::wire::{backend, frontend};

use super::ask::Asking;
use super::block::Block;
use super::client::{Activity, LastRoute};
use super::commit::Ending;
use super::extended::column_of;
use super::generate::is_given_ids;
use super::lease::Place;
use super::names::Names;
use super::{Session, Stop, Task};

impl Session {
    /// Handles a Query.
    pub(crate) fn on_query(&mut self, frame: Frame<'_>) -> Result<(), Stop> {
        let text = match frontend::query(frame.body) {
            Ok(text) => text,
            Err(malformed) => {
                self.wait_for_replies()?;
                self.reply_fault(&malformed.into());
                self.reply_ready();
                return Ok(());
            }
        };
        self.settle_settings()?;
        let mut masked = self.engine.take_masked();
        let script = self.plan_simple(text, &mut masked);
        self.answers.begin();
        let result = self.run_query(frame, text, &script, masked.literals());
        self.engine.give_masked(masked);
        let result = self.asked(result);
        match result {
            Err(Stop::Fault(fault)) => {
                // The status is known only when what went before is answered.
                self.wait_for_replies()?;
                let fault = self.in_failed_block(fault);
                self.note_refusal(&script, &fault);
                self.reply_fault(&fault);
                self.reply_ready();
                Ok(())
            }
            Err(Stop::Refusal(fault)) => {
                self.wait_for_replies()?;
                self.note_refusal(&script, &fault);
                self.reply_refusal(&fault);
                self.reply_ready();
                Ok(())
            }
            other => other,
        }
    }

    pub(crate) fn run_query(
        &mut self,
        frame: Frame<'_>,
        text: &[u8],
        script: &Rc<Script>,
        literals: &[mask::Literal],
    ) -> Result<(), Stop> {
        self.settle_pending()?;
        self.listen_first(script)?;
        self.renew_executed(script)?;
        if self.minds_cache() {
            match self.before_query(text, script, literals) {
                Ok(true) => return Ok(()),
                Ok(false) => (),
                Err(Stop::Series) => return self.begin_series(text, script),
                Err(stop) => return Err(stop),
            }
        }
        if script.statements.iter().any(is_given_ids) {
            return self.query_with_ids(text, script, literals);
        }
        if let [statement] = script.statements.as_slice()
            && let Some(known) = self.known_id(&statement.effect, None)?
        {
            return self.query_known_id(&known);
        }
        match script.statements.as_slice() {
            [] => {
                self.wait_for_replies()?;
                self.unnamed = None;
                self.reply(backend::empty_query_response);
                self.reply_ready();
                Ok(())
            }
            [statement] => {
                let values = TextValues {
                    text,
                    literals,
                    is_utf8: self.is_utf8(),
                };
                if self.send_directly(frame, script, &values) {
                    return Ok(());
                }
                self.run_one(frame, text, script, statement, &values)
            }
            several => {
                let values = TextValues {
                    text,
                    literals,
                    is_utf8: self.is_utf8(),
                };
                let known = self.temporary.len();
                let result = self.run_several(frame, text, script, several, &values);
                if result.is_err() {
                    self.temporary.truncate(known);
                }
                match result {
                    Err(Stop::Series) => self.begin_series(text, script),
                    other => other,
                }
            }
        }
    }

    fn run_one(
        &mut self,
        frame: Frame<'_>,
        text: &[u8],
        script: &Rc<Script>,
        statement: &Statement,
        values: &dyn Values,
    ) -> Result<(), Stop> {
        self.check_failed(statement)?;
        self.check_effect(&statement.effect)?;
        self.check_bound(statement)?;
        self.check_names(statement)?;
        if let Effect::Keep { name, body } = &statement.effect {
            return self.prepare_in_sql(name, body, script);
        }
        let place = match self.place_temporary(statement, text)? {
            Some(place) => place,
            None => self.place(statement, values)?,
        };
        self.note_route(&place, &statement.effect);
        match place {
            Place::Local => {
                self.wait_for_replies()?;
                self.tally(script, &statement.effect);
                self.settle_synced(&statement.effect)?;
                self.unnamed = None;
                self.run_local(&statement.effect, statement.verb, text, true)?;
                self.reply_ready();
                Ok(())
            }
            Place::Wide(route) => {
                let effect = self.effect_to_run(statement, text, values);
                Err(self.widen(statement, effect, route, text, script))
            }
            Place::Shard { shard, binds } => {
                if let Effect::Execute { name, at, .. } = &statement.effect
                    && self.statements.contains_key(statement_key(name.as_bytes()))
                {
                    self.run_execute(shard, text, script, name, at)?;
                    self.note_advance(statement);
                    return Ok(());
                }
                self.check_copy(shard, &statement.effect)?;
                let shard = self.cursor_shard(statement, text).unwrap_or(shard);
                self.note_use(shard, statement)?;
                self.check_cursors(statement)?;
                self.lease(shard, binds)?;
                self.note_cursor(shard, statement, text);
                self.tally(script, &statement.effect);
                self.note_advance(statement);
                self.note_temporary(&statement.effect, text);
                self.note_effect_before(&statement.effect);
                match self.route_told(statement, text, values) {
                    Some(route) => {
                        let mut rows = Vec::new();
                        write_line(&mut rows, &route);
                        self.send_noted(frame.bytes, Note::Explain(rows.into()));
                    }
                    None => self.send_query(frame.bytes, script, statement.effect == Effect::None),
                }
                Ok(())
            }
        }
    }

    /// A statement for several shards: not in a block, not behind unsynced messages.
    fn widen(
        &mut self,
        statement: &Statement,
        effect: Effect,
        route: Route,
        text: &[u8],
        script: &Rc<Script>,
    ) -> Stop {
        let route = self.within_block(route, statement);
        self.forget_unnamed_portal();
        if let Err(stop) = self.make_room_for(&route, statement) {
            return stop;
        }
        self.tally(script, &statement.effect);
        self.note_unclear_id(statement);
        self.unnamed = None;
        Stop::Task(Box::new(Task::Wide(Box::new(Wide {
            route,
            source: Source::Text(text.to_vec()),
            verb: statement.verb,
            effect,
            reads: !statement.writes,
            lexing: self.facts().lexing,
            tenant: self.tenant_value(),
            claims: self.answers.take_claims(),
        }))))
    }

    /// In a block what would be put together here is finished on a twin where there is one, so that no other shard
    /// has to join.
    pub(crate) fn within_block(&self, route: Route, statement: &Statement) -> Route {
        // A cursor has nowhere else to be.
        let is_there =
            || statement.verb == "DECLARE CURSOR" || !self.database.shared.twins.are_missing();
        if let Route::Concat(_, _, Some(gather)) = &route
            && self.block.is_some()
            && !self.database.twins.is_empty()
            && is_there()
        {
            return Route::Gather(Arc::clone(gather));
        }
        route
    }

    /// A statement for several shards has a transaction of its own, or is part of the block: on the block's own
    /// connections, others of which join; one that is finished on a twin borrows the current one.
    pub(crate) fn make_room_for(
        &mut self,
        route: &Route,
        statement: &Statement,
    ) -> Result<(), Stop> {
        if self.block.is_none() && self.transaction_is_open() {
            self.wait_for_replies()?;
            return Err(Stop::Imply);
        }
        self.wait_for_replies()?;
        if statement.verb == "DECLARE CURSOR" {
            self.check_cursor_over_several(route)?;
        }
        if self.block.is_none() {
            return Ok(());
        }
        if self.status() == backend::Status::Failed {
            return Err(Stop::Fault(Session::failed_block_fault()));
        }
        if let Route::Gather(gather) | Route::InsertGathered(gather, _) = route {
            if self.database.twins.is_empty() {
                return Err(Stop::Fault(Fault::clone(&gather.otherwise)));
            }
            self.check_snapshots(self.here_or_home())?;
            self.lease(self.here_or_home(), false)?;
        }
        if self
            .connection()
            .is_some_and(|connection| connection.unsynced)
        {
            return Err(Stop::EndGroup);
        }
        if let Route::Gather(_) = route {
            return self.wait_for_replies();
        }
        if let Some(block) = &self.block {
            if block.unread {
                return Err(Stop::Modes);
            }
            if let Some(why) = block.alone {
                return Err(Stop::Fault(alone(why)));
            }
        }
        let shards = self.shards_of(route);
        for shard in shards.iter() {
            self.note_use(shard, statement)?;
        }
        if self.answers.claims_some() {
            self.note_write(self.database.topology.home())?;
        }
        if let Some(block) = &mut self.block {
            block.bound = true;
        }
        Ok(())
    }

    /// The shards that a route over several of them is on.
    pub(crate) fn shards_of(&self, route: &Route) -> ShardSet {
        let topology = &self.database.topology;
        match route {
            Route::Concat(shards, ..) | Route::Each(shards) => shards.clone(),
            Route::Move(_, moves) => {
                // Where its rows will belong is not known before.
                let distribution = topology.distribution(moves.distribution);
                let shards = distribution.map(|distribution| distribution.shards().clone());
                shards.unwrap_or_default()
            }
            Route::InsertSplit(shares) => shares.iter().map(|share| share.shard).collect(),
            Route::InsertGathered(_, target) => match &target.holders {
                Holders::ByKey(split) => self.shards_of(&Route::CopySplit(Arc::clone(split))),
                Holders::Everywhere => topology.all(),
                // A new table is made on each.
                Holders::Home if target.is_new => topology.all(),
                Holders::Home => std::iter::once(topology.home()).collect(),
            },
            Route::CopySplit(split) => {
                let distribution = topology.distribution(split.distribution);
                let shards = distribution.map(|distribution| distribution.shards().clone());
                shards.unwrap_or_default()
            }
            Route::Session
            | Route::Anywhere
            | Route::AnyShard
            | Route::Single(_)
            | Route::Gather(_)
            | Route::Broadcast { .. } => topology.all(),
        }
    }

    /// Before the end of a block that is ours to bring about, what was sent without Sync is ended.
    pub(crate) fn settle_synced(&mut self, effect: &Effect) -> Result<(), Stop> {
        let ends = matches!(effect, Effect::Commit { .. } | Effect::Rollback { .. });
        let unsynced = self
            .connection()
            .is_some_and(|connection| connection.unsynced);
        if ends && unsynced {
            return Err(Stop::EndGroup);
        }
        Ok(())
    }

    /// Where one statement of several runs, and what temporary tables it makes.
    fn place_beside(
        &mut self,
        names: &Names,
        statement: &Statement,
        text: &[u8],
        values: &dyn Values,
    ) -> Result<Place, Fault> {
        let place = match self.place_temporary(statement, text)? {
            Some(place) => place,
            None => self.place_under(names, statement, text, values)?,
        };
        self.note_temporary(&statement.effect, text);
        Ok(place)
    }

    /// Several statements in one text are one implicit transaction: sent whole to one shard, or to all, or
    /// one after the other.
    fn run_several(
        &mut self,
        frame: Frame<'_>,
        text: &[u8],
        script: &Rc<Script>,
        statements: &[Statement],
        values: &dyn Values,
    ) -> Result<(), Stop> {
        if let Some(first) = statements.first() {
            self.check_failed(first)?;
        }
        if self.is_spread() {
            return Err(Stop::Series);
        }
        let mut shard = None;
        let mut wide = None;
        let mut binds = false;
        let mut names = Names::of(self);
        let mut before: Option<&Statement> = None;
        let mut advanced = false;
        for statement in statements {
            if let Some(before) = before.replace(statement) {
                names.follow(self, &before.effect);
                advanced |= advances(before);
            }
            if !advanced {
                self.check_bound(statement)?;
            }
            self.check_begin_within(statement)?;
            if Session::is_answered_here(statement) {
                return Err(Stop::Fault(mixed_fault(statement)));
            }
            let own = text.get(statement.span.clone()).unwrap_or_default();
            if is_shardless(statement) && !self.executes_kept(statement) {
                if self.database.topology.tenant().is_some() {
                    self.check_tenant(statement, values)?;
                    // Where it runs is for the others to say.
                    self.place_under(&names, statement, own, values)?;
                }
                continue;
            }
            match self.place_beside(&names, statement, own, values)? {
                Place::Local => {}
                Place::Shard {
                    shard: wanted,
                    binds: binding,
                } => {
                    if binding {
                        if shard.is_some_and(|known| known != wanted) || wide.is_some() {
                            return Err(Stop::Series);
                        }
                        shard = Some(wanted);
                        binds = true;
                    }
                }
                Place::Wide(route @ Route::Broadcast { transaction: true })
                    if shard.is_none() && runs_beside_others(statement) =>
                {
                    wide = Some((statement.verb, statement.effect.clone(), route));
                }
                Place::Wide(_) => return Err(Stop::Series),
            }
        }
        if let Some((verb, effect, route)) = wide {
            let is_alone = self.block.is_none() && !self.transaction_is_open();
            if !is_alone || !statements.iter().all(runs_beside_others) {
                return Err(Stop::Series);
            }
            return self.run_beside_others(text, script, verb, effect, route);
        }
        let shard = shard.unwrap_or_else(|| self.here_or_home());
        for statement in statements {
            self.check_copy(shard, &statement.effect)?;
            self.note_use(shard, statement)?;
        }
        self.lease(shard, binds)?;
        self.note_route(&Place::Shard { shard, binds }, &Effect::None);
        self.tally(script, &Effect::None);
        let renamed = self.with_server_names(text, statements);
        for statement in statements {
            self.note_advance(statement);
            self.note_effect_before(&statement.effect);
        }
        if let Some(renamed) = renamed {
            let mut bytes = Vec::with_capacity(renamed.len().saturating_add(8));
            frame::write(&mut bytes, b'Q', &[&renamed, b"\0"]);
            self.send_query(&bytes, script, false);
        } else {
            self.send_query(frame.bytes, script, false);
        }
        Ok(())
    }

    /// Sends a text to every shard.
    fn run_beside_others(
        &mut self,
        text: &[u8],
        script: &Rc<Script>,
        verb: &'static str,
        effect: Effect,
        route: Route,
    ) -> Result<(), Stop> {
        self.wait_for_replies()?;
        let place = Place::Wide(route);
        self.note_route(&place, &effect);
        self.tally(script, &effect);
        let Place::Wide(route) = place else {
            return Ok(());
        };
        Err(Stop::Task(Box::new(Task::Wide(Box::new(Wide {
            route,
            source: Source::Text(text.to_vec()),
            verb,
            effect,
            reads: false,
            lexing: self.facts().lexing,
            tenant: self.tenant_value(),
            claims: Vec::new(),
        })))))
    }

    /// Whether a statement, if it is BEGIN, may be sent with what stands beside it in a text.
    fn check_begin_within(&self, statement: &Statement) -> Result<(), Stop> {
        if statement.effect != Effect::Begin {
            return Ok(());
        }
        self.check_effect(&statement.effect)?;
        if self.database.consistent_reads && self.database.topology.shards().len() > 1 {
            // Snapshots are opened between it and what follows.
            return Err(Stop::Series);
        }
        Ok(())
    }

    /// The text with the names of the protocol's statements as the server calls them, if it has any:
    /// they are made known there.
    fn with_server_names(&mut self, text: &[u8], statements: &[Statement]) -> Option<Vec<u8>> {
        if self.status() == backend::Status::Failed {
            return None;
        }
        let limit = self.database.limits.max_prepared_statements;
        let mut renamed = Vec::new();
        let mut done = 0;
        for statement in statements {
            let (Effect::Execute { name, at, .. }
            | Effect::Deallocate {
                name: Some(name),
                at,
            }) = &statement.effect
            else {
                continue;
            };
            let Some(prepared) = self.statements.get(statement_key(name.as_bytes())) else {
                continue;
            };
            let prepared = Rc::clone(prepared);
            let server_name = self.server_name(&prepared);
            let is_there = self
                .connection()
                .is_some_and(|connection| connection.statements().touch(server_name));
            if !is_there {
                self.push_parse(server_name, &prepared, true, limit);
            }
            if let Effect::Deallocate { .. } = statement.effect {
                self.deallocating.push((name.clone(), server_name));
            }
            renamed.extend_from_slice(text.get(done..at.start).unwrap_or_default());
            server_name.write(&mut renamed);
            renamed.pop();
            done = at.end;
        }
        if done == 0 {
            return None;
        }
        renamed.extend_from_slice(text.get(done..).unwrap_or_default());
        Some(renamed)
    }

    /// A Query behind messages without Sync: the server skips it if one of them failed.
    pub(crate) fn settle_group(&self) -> Result<(), Stop> {
        let unsettled = self
            .lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| connection.unsynced && !connection.pipeline.is_empty());
        if unsettled { Err(Stop::Drain) } else { Ok(()) }
    }

    /// Whether only we can answer it, so that it cannot be sent along with others.
    fn is_answered_here(statement: &Statement) -> bool {
        matches!(
            statement.effect,
            Effect::SetPgherd { .. } | Effect::ShowPgherd { .. } | Effect::Keep { .. }
        )
    }

    /// Sends a Query whose replies go to the client.
    pub(crate) fn send_query(&mut self, bytes: &[u8], script: &Rc<Script>, plain: bool) {
        let note = if plain {
            Note::None
        } else {
            self.may_open_block |= script
                .statements
                .iter()
                .any(|statement| statement.effect == Effect::Begin);
            Note::Script {
                script: Rc::clone(script),
                done: 0,
            }
        };
        self.send_noted(bytes, note);
    }

    /// The same, with what is to be made of its replies.
    fn send_noted(&mut self, bytes: &[u8], note: Note) {
        self.unnamed = None;
        self.oids.end_request();
        self.remember_settings();
        if let Some(connection) = self.connection() {
            connection.out.extend_from_slice(bytes);
            connection.pipeline.sent(Request::Query, false, note);
            connection.unsynced = false;
            connection.unnamed = None;
        }
        self.count_sent();
    }

    /// SQL EXECUTE of a statement that was prepared by the protocol: under its name on the server.
    fn run_execute(
        &mut self,
        shard: crate::placement::ShardId,
        text: &[u8],
        script: &Rc<Script>,
        name: &str,
        at: &std::ops::Range<usize>,
    ) -> Result<(), Stop> {
        let Some(prepared) = self
            .statements
            .get(statement_key(name.as_bytes()))
            .map(Rc::clone)
        else {
            return Ok(());
        };
        self.check_types(shard, Some(&prepared))?;
        if let Some(target) = prepared.script.statements.first() {
            self.note_use(shard, target)?;
        }
        self.lease(shard, true)?;
        self.tally(script, &Effect::None);
        let limit = self.database.limits.max_prepared_statements;
        let server_name = self.server_name(&prepared);
        let mut renamed = Vec::with_capacity(text.len().saturating_add(24));
        renamed.extend_from_slice(text.get(..at.start).unwrap_or_default());
        server_name.write(&mut renamed);
        renamed.pop();
        renamed.extend_from_slice(text.get(at.end..).unwrap_or_default());
        let is_there = self
            .connection()
            .is_some_and(|connection| connection.statements().touch(server_name));
        if !is_there {
            self.push_parse(server_name, &prepared, true, limit);
        }
        let mut bytes = Vec::new();
        frame::write(&mut bytes, b'Q', &[&renamed, b"\0"]);
        self.send_query(&bytes, script, false);
        Ok(())
    }

    /// What SQL EXECUTE names is planned anew where the schema or the search path has changed since.
    fn renew_executed(&mut self, script: &Script) -> Result<(), Stop> {
        for statement in &script.statements {
            if let Effect::Execute { name, .. } = &statement.effect
                && self.executes_kept(statement)
                && self.status() != backend::Status::Failed
            {
                self.find_statement(name.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Whether it is an EXECUTE of a statement that has its own place: one that the protocol brought, or
    /// that is kept like such.
    pub(crate) fn executes_kept(&self, statement: &Statement) -> bool {
        matches!(&statement.effect, Effect::Execute { name, .. }
            if self.statements.contains_key(statement_key(name.as_bytes())))
    }

    /// SQL PREPARE of a statement that is kept as if a Parse had brought it: a server judges it, and each
    /// EXECUTE goes where the statement's keys say.
    fn prepare_in_sql(&mut self, name: &str, body: &[u8], script: &Rc<Script>) -> Result<(), Stop> {
        self.wait_for_replies()?;
        if self.status() == backend::Status::Failed {
            return Err(Stop::Fault(Session::failed_block_fault()));
        }
        let mut named = vec![0];
        named.extend_from_slice(body);
        let parse = frontend::parse(&named).map_err(Fault::from)?;
        let prepared = self.plan_extended(&parse);
        if prepared.fills.is_some() {
            return Err(Stop::Fault(refuse::ids_within()));
        }
        let shard = self.shard_for_describe(prepared.script.statements.first());
        self.check_snapshots_for(shard, &prepared)?;
        self.lease(shard, false)?;
        self.note_route(
            &Place::Shard {
                shard,
                binds: false,
            },
            &Effect::None,
        );
        self.tally(script, &Effect::None);
        self.unnamed = None;
        let key: Box<[u8]> = statement_key(name.as_bytes()).into();
        self.statements.insert(key.clone(), Rc::clone(&prepared));
        self.client.prepared.set(self.statements.len());
        let limit = self.database.limits.max_prepared_statements;
        let server_name = self.server_name(&prepared);
        let is_there = self
            .connection()
            .is_some_and(|connection| connection.statements().touch(server_name));
        if is_there {
            self.reply(|out| Own::Prepared.write(out));
            self.reply_ready();
            return Ok(());
        }
        self.tentative.push_back(Some(key));
        self.push_parse(server_name, &prepared, true, limit);
        if let Some(connection) = self.connection() {
            connection.pipeline.local(Own::Prepared);
            frame::write(&mut connection.out, b'S', &[]);
            connection.pipeline.sent(Request::Sync, false, Note::None);
            connection.unsynced = false;
        }
        self.count_sent();
        Ok(())
    }

    /// What a server calls a statement under the current settings and schema.
    pub(crate) fn server_name(&self, prepared: &Prepared) -> ServerName {
        let settings = self.settings_in_force();
        let fingerprint = if self.reads_literals_alike(prepared) {
            settings.parser_fingerprint()
        } else {
            settings
                .reading_literals_as(&prepared.parsed_under)
                .parser_fingerprint()
        };
        ServerName {
            id: prepared.id,
            fingerprint,
            epoch: self.database.epoch(),
        }
    }

    /// Whether literals mean now what they meant when the statement was parsed, or it has none.
    pub(crate) fn reads_literals_alike(&self, prepared: &Prepared) -> bool {
        let now = self.settings_in_force().literal_fingerprint();
        now == prepared.reading.literals
            || now == prepared.parsed_under.literal_fingerprint()
            || !Prepared::has_literals(prepared.text())
    }

    /// In a block that failed by an error of our own, only its end is let through.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a failed block takes nothing but its end"
    )]
    pub(crate) fn check_failed(&mut self, statement: &Statement) -> Result<(), Fault> {
        let failed_here = self.block.as_ref().is_some_and(|block| block.failed);
        let failed = failed_here
            || (self.status() == backend::Status::Failed && is_local_effect(&statement.effect));
        if !failed {
            return Ok(());
        }
        if let Some(lost) = self.lost.take()
            && !matches!(statement.effect, Effect::Rollback { .. })
        {
            return Err(lost);
        }
        match statement.effect {
            Effect::Commit { .. } | Effect::Rollback { .. } | Effect::RollbackTo(_) => Ok(()),
            _ => Err(Session::failed_block_fault()),
        }
    }

    /// What reads the state of a server connection needs one that is held, and on which the client may
    /// have made that state: another client's is not to be seen.
    pub(crate) fn check_bound(&self, statement: &Statement) -> Result<(), Fault> {
        if !statement.block_only {
            return Ok(());
        }
        let in_block = self.block.as_ref().is_some_and(|block| block.sent);
        let shard = if statement.access == Access::Home && !in_block {
            self.database.topology.home()
        } else {
            self.here_or_home()
        };
        let is_own = (in_block || self.keeps_connections())
            && self
                .lease
                .iter()
                .chain(&self.parked)
                .filter_map(Lease::peek)
                .any(|connection| connection.shard == shard && connection.advanced);
        if is_own {
            Ok(())
        } else {
            Err(refuse::unbound())
        }
    }

    /// Notes that a statement is sent which may call `nextval`.
    pub(crate) fn note_advance(&mut self, statement: &Statement) {
        if advances(statement)
            && let Some(connection) = self.connection()
        {
            connection.advanced = true;
        }
        self.note_unclear_id(statement);
    }

    /// Refuses what the pool mode or this release cannot do.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other effects leave this as it is"
    )]
    pub(crate) fn check_effect(&self, effect: &Effect) -> Result<(), Stop> {
        const SHOWN: [&str; 2] = ["pgherd.route", "pgherd.shard"];
        match effect {
            Effect::ShowPgherd { name } if !SHOWN.contains(&name.as_str()) => {
                Err(Stop::Fault(Fault::error(
                    SqlState::UNDEFINED_OBJECT,
                    format!("unrecognized configuration parameter \"{name}\""),
                )))
            }
            Effect::TwoPhase if self.is_spread() => Err(Stop::Fault(
                Fault::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "PREPARE TRANSACTION of a transaction on several shards is not supported",
                )
                .hint("COMMIT it: that is done in two phases."),
            )),
            Effect::Begin if self.pool_mode == crate::config::PoolMode::Statement => {
                Err(Stop::Fault(
                    Fault::error(
                        SqlState::FEATURE_NOT_SUPPORTED,
                        "transaction blocks are not allowed in statement pooling mode",
                    )
                    .hint("Use pool_mode: transaction for this user or database."),
                ))
            }
            Effect::Prepare { name } | Effect::Keep { name, .. }
                if self.statements.contains_key(statement_key(name.as_bytes()))
                    || (matches!(effect, Effect::Keep { .. })
                        && self.is_sql_prepared(name.as_bytes())) =>
            {
                Err(Stop::Fault(duplicate_statement(name.as_bytes())))
            }
            _ => Ok(()),
        }
    }

    /// Before we answer by ourselves, everything sent must be answered.
    pub(crate) fn wait_for_replies(&self) -> Result<(), Stop> {
        match self.lease.as_ref().and_then(Lease::peek) {
            Some(connection) if !connection.pipeline.is_empty() => Err(if connection.unsynced {
                Stop::Drain
            } else {
                Stop::Idle
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Answers a statement that no server is needed for, or the end of a block; without the ReadyForQuery.
    ///
    /// # Errors
    /// What is refused; the task that ends a block on its shards.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others need a server")]
    pub(crate) fn run_local(
        &mut self,
        effect: &Effect,
        verb: &'static str,
        text: &[u8],
        describe: bool,
    ) -> Result<(), Stop> {
        if let Effect::ExplainRoute { statement } = effect {
            let literals = mask_of(text, self.facts().lexing);
            let values = TextValues {
                text,
                literals: &literals,
                is_utf8: self.is_utf8(),
            };
            let report = self.route_report(statement, text, &values)?;
            self.count_local();
            if describe && let Some(column) = column_of(effect) {
                self.reply(|out| backend::row_description(out, &[backend::Column::text(&column)]));
            }
            self.reply_route(&report);
            return Ok(());
        }
        self.count_local();
        if describe && let Some(column) = column_of(effect) {
            self.reply(|out| backend::row_description(out, &[backend::Column::text(&column)]));
        }
        match effect {
            Effect::Begin => {
                self.begin_said(text)?;
                let now = self.engine.now();
                self.client.set_activity(Activity::IdleInTransaction, now);
                self.reply(|out| backend::command_complete(out, verb));
            }
            Effect::Commit { chain } | Effect::Rollback { chain } => {
                if self.block.as_ref().is_some_and(|block| block.sent) {
                    return Err(Stop::Task(Box::new(Task::End(Ending {
                        commits: matches!(effect, Effect::Commit { .. }),
                        chain: *chain,
                        is_said: true,
                        is_ready: describe,
                        completion: Vec::new(),
                    }))));
                }
                self.end_unsent_block(effect, *chain);
            }
            Effect::Deallocate { name, .. } => self.deallocate(name.as_deref())?,
            Effect::Listen { channel } => {
                self.listens(channel);
                self.reply(|out| backend::command_complete(out, "LISTEN"));
            }
            Effect::Unlisten { channel } => {
                self.unlisten(channel.as_deref());
                self.reply(|out| backend::command_complete(out, "UNLISTEN"));
            }
            Effect::SetPgherd { name, value, .. } => self.set_own(name, value.as_deref(), verb)?,
            Effect::ShowPgherd { name } => self.show_own(name),
            _ => {
                return Err(Stop::Fault(Fault::error(
                    SqlState::INTERNAL,
                    format!("a {verb} was to be answered without a server"),
                )));
            }
        }
        Ok(())
    }

    fn end_unsent_block(&mut self, effect: &Effect, chain: bool) {
        let Some(block) = self.block.take() else {
            return;
        };
        let commits = matches!(effect, Effect::Commit { .. }) && !block.failed;
        self.client.set_activity(Activity::Idle, self.engine.now());
        self.lost = None;
        self.settle_channels(commits);
        if !commits {
            self.account.fail();
            self.settings = Rc::clone(&block.settings);
        }
        if chain {
            self.count_transaction();
            self.account.begin(self.engine.recently());
            self.block = Some(Box::new(Block::new(&block.begin, &self.settings)));
        }
        self.reply(|out| {
            backend::command_complete(out, if commits { "COMMIT" } else { "ROLLBACK" });
        });
    }

    fn deallocate(&mut self, name: Option<&str>) -> Result<(), Fault> {
        match name {
            None => {
                self.statements = std::collections::HashMap::default();
                self.reply(|out| backend::command_complete(out, "DEALLOCATE ALL"));
            }
            Some(name) => {
                if self
                    .statements
                    .remove(statement_key(name.as_bytes()))
                    .is_none()
                {
                    return Err(unknown_statement(name.as_bytes()));
                }
                self.reply(|out| backend::command_complete(out, "DEALLOCATE"));
            }
        }
        self.client.prepared.set(self.statements.len());
        Ok(())
    }

    fn set_own(
        &mut self,
        name: &str,
        value: Option<&str>,
        verb: &'static str,
    ) -> Result<(), Fault> {
        const KNOWN: [&str; 1] = ["pgherd.shard"];
        if !KNOWN.contains(&name) {
            return Err(Fault::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("setting \"{name}\" is not supported yet"),
            )
            .hint("This release knows pgherd.shard."));
        }
        if let Some(value) = value
            && self.database.topology.shard(value).is_none()
        {
            return Err(Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("there is no shard \"{value}\""),
            )
            .hint("SHOW SHARDS in the console lists them."));
        }
        self.own_settings.retain(|(known, _)| known != name);
        if let Some(value) = value {
            self.own_settings.push((name.to_owned(), value.to_owned()));
        }
        self.reply(|out| backend::command_complete(out, verb));
        Ok(())
    }

    /// Remembers where a statement runs, for `SHOW pgherd.route`.
    pub(crate) fn note_route(&self, place: &Place, effect: &Effect) {
        let route = match place {
            Place::Local if matches!(effect, Effect::ShowPgherd { .. }) => return,
            Place::Local => LastRoute::Local,
            Place::Shard { shard, .. } => LastRoute::Single(*shard),
            Place::Wide(route) => LastRoute::Several(Way::of(route), self.shards_of(route)),
        };
        let mut last = self.client.last_route.borrow_mut();
        if *last != route {
            *last = route;
        }
    }

    /// What a server says in a failed block of a statement that is refused: it does not look at it.
    pub(crate) fn in_failed_block(&self, fault: Fault) -> Fault {
        let is_refusal = [
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(&fault.code);
        if is_refusal && self.status() == backend::Status::Failed {
            Session::failed_block_fault()
        } else {
            fault
        }
    }

    /// Remembers and counts a statement that is refused.
    pub(crate) fn note_refusal(&self, script: &Script, fault: &Fault) {
        script.tally.refuse(&fault.message);
        *self.client.last_route.borrow_mut() = LastRoute::Refused(fault.message.clone());
    }

    /// Counts a statement that runs where [`Session::note_route`] was last told.
    pub(crate) fn tally(&mut self, script: &Rc<Script>, effect: &Effect) {
        if matches!(effect, Effect::ShowPgherd { .. }) {
            return;
        }
        let way = match &*self.client.last_route.borrow() {
            LastRoute::None | LastRoute::Refused(_) => return,
            LastRoute::Local => {
                script.tally.local();
                return;
            }
            LastRoute::Single(shard) => {
                script.tally.single(*shard);
                Way::Single
            }
            LastRoute::Several(way, shards) => {
                script.tally.several(*way, shards);
                *way
            }
        };
        self.account.follow(way, script);
    }

    fn last_route(&self) -> String {
        let topology = &self.database.topology;
        match &*self.client.last_route.borrow() {
            LastRoute::None => "none: no statement has run".to_owned(),
            LastRoute::Local => "local".to_owned(),
            LastRoute::Refused(reason) => format!("refuse: {reason}"),
            LastRoute::Single(shard) => format!("single: {}", topology.name(*shard)),
            LastRoute::Several(way, shards) => {
                let names: Vec<&str> = shards.iter().map(|shard| topology.name(shard)).collect();
                format!("{}: {}", way.as_str(), names.join(", "))
            }
        }
    }

    /// What EXPLAIN (ROUTE) says: where the statement would run, and why.
    ///
    /// # Errors
    /// The home shard is to be asked first.
    fn route_report(
        &self,
        statement: &Statement,
        text: &[u8],
        values: &dyn Values,
    ) -> Result<RouteReport, Fault> {
        self.answers.begin();
        let report = self.report(statement, text, values);
        if self.answers.is_open() {
            return Err(refuse::unasked(statement.verb));
        }
        Ok(report)
    }

    fn reply_route(&mut self, report: &RouteReport) {
        self.reply(|out| {
            report
                .to_string()
                .lines()
                .for_each(|line| write_line(out, line));
            backend::command_complete(out, "EXPLAIN");
        });
    }

    /// Where a statement would run, and why.
    fn report(&self, statement: &Statement, text: &[u8], values: &dyn Values) -> RouteReport {
        let topology = &self.database.topology;
        let answers = &self.answers;
        let asking = Asking { values, answers };
        let route = self
            .check_tenant(statement, values)
            .and_then(|()| self.hinted(statement, &asking));
        match &route {
            // Not by its keys, if those alone do not say so.
            Ok(Route::Single(shard)) if self.hinted_shard() == Some(*shard) => {
                let hinted = Statement {
                    access: Access::Shard(*shard),
                    ..statement.clone()
                };
                planner::explain(&hinted, text, &route, topology)
            }
            Ok(_) | Err(_) => planner::explain(statement, text, &route, topology),
        }
    }

    /// What EXPLAIN tells on top of the plan.
    fn route_told(
        &self,
        statement: &Statement,
        text: &[u8],
        values: &dyn Values,
    ) -> Option<String> {
        let Effect::Explain(explained) = &statement.effect else {
            return None;
        };
        Some(match &**explained {
            Explained::Statement(statement) => {
                format!("Route: {}", self.report(statement, text, values).headline())
            }
            Explained::Route(route) => route.clone(),
        })
    }

    /// The effect of one execution: of EXPLAIN, with the route in words.
    pub(crate) fn effect_to_run(
        &self,
        statement: &Statement,
        text: &[u8],
        values: &dyn Values,
    ) -> Effect {
        match self.route_told(statement, text, values) {
            Some(route) => Effect::Explain(Arc::new(Explained::Route(route))),
            None => statement.effect.clone(),
        }
    }

    fn show_own(&mut self, name: &str) {
        let value = match name {
            "pgherd.route" => self.last_route(),
            _ => self
                .own_settings
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
                .unwrap_or_default(),
        };
        self.reply(|out| {
            backend::data_row(out, std::iter::once(Some(value.as_bytes())));
            backend::command_complete(out, "SHOW");
        });
    }
}

/// A line of EXPLAIN's answer.
pub(crate) fn write_line(out: &mut Vec<u8>, line: &str) {
    backend::data_row(out, std::iter::once(Some(line.as_bytes())));
}

/// Where the literals of a text stand.
fn mask_of(text: &[u8], lexing: Lexing) -> Vec<mask::Literal> {
    let mut masked = mask::Masked::default();
    match masked.read(text, lexing) {
        Ok(()) => masked.literals().to_vec(),
        Err(_unreadable) => Vec::new(),
    }
}

/// Statements that take their place from the others in the same text.
fn is_shardless(statement: &Statement) -> bool {
    match &statement.access {
        Access::Session | Access::Anywhere | Access::AnyShard | Access::Bound => true,
        Access::Home
        | Access::Keyed(_)
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Generate(_)
        | Access::Shard(_)
        | Access::Gather(_)
        | Access::Refuse(_) => {
            !statement.has_tables
                && matches!(
                    statement.effect,
                    Effect::Set { .. } | Effect::Reset { .. } | Effect::SetTransaction { .. }
                )
        }
    }
}

/// Whether it may be in one text with a statement that runs on every shard, and so run there as well.
fn runs_beside_others(statement: &Statement) -> bool {
    match &statement.access {
        Access::Broadcast { transaction } => {
            *transaction && matches!(statement.effect, Effect::None | Effect::Ddl)
        }
        Access::Anywhere | Access::AnyShard => {
            statement.effect == Effect::None && !statement.writes
        }
        Access::Session
        | Access::Bound
        | Access::Home
        | Access::Keyed(_)
        | Access::CopySplit(_)
        | Access::Generate(_)
        | Access::Shard(_)
        | Access::Gather(_)
        | Access::Refuse(_) => false,
    }
}

/// Effects that we answer ourselves, which a failed block must refuse as the server would.
fn is_local_effect(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Deallocate { .. } | Effect::SetPgherd { .. } | Effect::ShowPgherd { .. }
    )
}

fn alone(why: &str) -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("a transaction with {why} is on one shard only"),
    )
    .hint("Commit before using other shards.")
}

fn mixed_fault(statement: &Statement) -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!(
            "{} cannot be combined with other statements in one query",
            statement.verb
        ),
    )
    .hint("Send it in a query of its own.")
}

/// The part of a statement's or portal's name that counts: PostgreSQL cuts names at 63 bytes.
pub(crate) fn statement_key(name: &[u8]) -> &[u8] {
    name.get(..63).unwrap_or(name)
}

/// PostgreSQL's error for a statement name that is taken.
pub(crate) fn duplicate_statement(name: &[u8]) -> Fault {
    let name = String::from_utf8_lossy(name);
    Fault::error(
        SqlState::DUPLICATE_STATEMENT,
        format!("prepared statement \"{name}\" already exists"),
    )
}

/// PostgreSQL's error for a statement name nobody prepared.
pub(crate) fn unknown_statement(name: &[u8]) -> Fault {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!(
            "prepared statement \"{}\" does not exist",
            String::from_utf8_lossy(name)
        )
    };
    Fault::error(SqlState::UNKNOWN_STATEMENT, message)
}

/// Whether a statement may call `nextval`. An UPDATE or a DELETE hardly does, nor what takes a lock.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "no other effect goes with a call"
)]
pub(crate) fn advances(statement: &Statement) -> bool {
    let may_call = match statement.effect {
        Effect::None | Effect::CopyIn { .. } | Effect::Execute { .. } => {
            !matches!(statement.verb, "UPDATE" | "DELETE")
        }
        Effect::Pin(reason) => planner::hides_settings(reason),
        _ => false,
    };
    may_call && statement.writes && !statement.block_only
}
