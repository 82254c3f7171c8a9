//! The common course in one step: nothing is open, and one statement for one shard, without effect on
//! the session, goes to an idle connection there. It comes as a Query, or as a group `[Parse] Bind
//! [Describe] Execute Sync`, all arrived, of a statement that the connection has prepared.
//!
//! What a step leaves behind is what `simple` and `extended` leave behind after the same messages.
//! Whatever else may have to happen is left to them, before anything has changed.

use std::rc::Rc;

use crate::placement::ShardId;
use crate::planner::plan::{Effect, Script, Statement, Values};
use crate::server::connection::ServerConnection;
use crate::server::pool::Lease;
use crate::server::pool::convoy::Sent;
use crate::server::statements::{Prepared, ServerName};
use crate::wire::backend;
use crate::wire::frame::{self, Frame, Split};
use crate::wire::frontend::{self, Bind, Parse};

use super::Session;
use super::extended::BindValues;
use super::lease::Place;
use super::simple::statement_key;

/// The messages of a group, in the unnamed portal.
pub(super) struct Group<'a> {
    /// An unnamed one.
    pub(super) parse: Option<Parse<'a>>,
    pub(super) bind: Bind<'a>,
    /// From Bind on, as it arrived.
    messages: &'a [u8],
    pub(super) describes: bool,
    /// The messages after Bind, as they arrived.
    tail: &'a [u8],
    /// What follows the group.
    pub(super) rest: &'a [u8],
}

impl<'a> Group<'a> {
    /// The group at the front of `data`, if it is one and whole.
    pub(super) fn read(data: &'a [u8], max: u32) -> Option<Group<'a>> {
        let whole = |data: &'a [u8]| -> Option<(Frame<'a>, &'a [u8])> {
            match frame::split(data, max) {
                Ok(Split::Whole(frame, rest)) => Some((frame, rest)),
                Ok(Split::Part { .. } | Split::Nothing) | Err(_) => None,
            }
        };
        let mut start = data;
        let (mut frame, mut rest) = whole(data)?;
        let mut parse = None;
        if frame.tag == b'P' {
            parse = Some(frontend::parse(frame.body).ok()?).filter(|parse| parse.name.is_empty());
            parse?;
            start = rest;
            (frame, rest) = whole(rest)?;
        }
        if frame.tag != b'B' {
            return None;
        }
        let bind = frontend::bind(frame.body).ok()?;
        let tail = rest;
        (frame, rest) = whole(rest)?;
        let describes = frame.tag == b'D' && frame.body == b"P\0";
        if describes {
            (frame, rest) = whole(rest)?;
        }
        let executes = frame.tag == b'E' && frame.body.len() == 5 && frame.body.starts_with(b"\0");
        if !executes || !bind.portal.is_empty() {
            return None;
        }
        (frame, rest) = whole(rest)?;
        if frame.tag != b'S' || !frame.body.is_empty() {
            return None;
        }
        let tail = tail.get(..tail.len().checked_sub(rest.len())?)?;
        Some(Group {
            parse,
            bind,
            messages: start.get(..start.len().checked_sub(rest.len())?)?,
            describes,
            tail,
            rest,
        })
    }
}

impl Session {
    /// Sends a Query on at once. Returns whether that was possible; if not, nothing has changed.
    pub(crate) fn send_directly(
        &mut self,
        frame: Frame<'_>,
        script: &Rc<Script>,
        values: &dyn Values,
    ) -> bool {
        if !self.is_at_rest() {
            return false;
        }
        let Some(shard) = self.shard_of(script, values) else {
            return false;
        };
        let pace = self.pace_of(script);
        if let Some(pace) = pace
            && self.join(
                shard,
                Sent::Query,
                pace,
                frame.bytes,
                |_| true,
                |out| out.extend_from_slice(frame.bytes),
            )
        {
            self.unnamed = None;
            self.note_unclear_ids(script);
            self.time(script);
            return true;
        }
        let Some(lease) = self.idle_on(shard, |_| true) else {
            return false;
        };
        self.begin(lease);
        script.tally.single(shard);
        self.send_query(frame.bytes, script, true);
        self.note_unclear_ids(script);
        self.time(script);
        if let Some(pace) = pace {
            self.lead(pace);
        }
        true
    }

    /// Sends a group on at once. `None`, and nothing has changed, when it is not one of the common
    /// kind; else what follows it.
    pub(crate) fn send_group<'a>(&mut self, data: &'a [u8]) -> Option<&'a [u8]> {
        if !self.is_at_rest() {
            return None;
        }
        let group = Group::read(data, self.message_max())?;
        let prepared = self.statement_of(&group)?;
        if prepared.fills.is_some() || prepared.script.statements.iter().any(Statement::drops) {
            return None;
        }
        let values = BindValues::new(&group.bind, &prepared, self.is_utf8());
        let shard = self.shard_of(&prepared.script, &values)?;
        if !self.goes_as_it_is(shard, &group.bind, group.describes, &prepared) {
            return None;
        }
        let name = self.server_name(&prepared);
        let sent = Sent::Group {
            describes: group.describes,
            parsed: group.parse.is_some(),
        };
        let pace = self.pace_of(&prepared.script);
        let joins = pace.is_some_and(|pace| {
            self.join(
                shard,
                sent,
                pace,
                group.messages,
                |statements| statements.touch(name),
                |out| write_group(out, &group, name),
            )
        });
        if !joins {
            let lease = self.idle_on(shard, |connection| connection.statements().touch(name))?;
            self.begin(lease);
            prepared.script.tally.single(shard);
            self.account.send(self.engine.recently());
            self.engine
                .count_group(&self.database, shard, group.parse.is_some());
            self.remember_settings();
            if let Some(connection) = self.connection() {
                write_group(&mut connection.out, &group, name);
                sent.note(&mut connection.pipeline, false);
                connection.flushed = false;
            }
            if let Some(pace) = pace {
                self.lead(pace);
            }
        }
        if group.parse.is_some() {
            prepared.uses.set(prepared.uses.get().saturating_add(1));
            backend::parse_complete(&mut self.out);
            self.unnamed = Some(Rc::clone(&prepared));
        }
        self.note_unclear_ids(&prepared.script);
        self.time(&prepared.script);
        Some(group.rest)
    }

    /// Whether no message before has left anything to be minded.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lease.is_none()
            && self.joined.is_none()
            && self.block.is_none()
            && self.pending.is_empty()
            && self.tentative.is_empty()
            && self.portals.is_empty()
            && self.sql_prepared.is_empty()
            && self.temporary.is_empty()
            && self.own_settings.is_empty()
            && self.parked.is_empty()
            && self.answers.is_empty()
            && !self.skipping
            && !self.copy_in
            && !self.settings_change
            && !self.names_unsure
            && !self.keeps_connections()
            && self.database.generation == self.engine.generation()
    }

    /// The statement that the group's Bind names, if it is current and a server keeps it.
    fn statement_of(&mut self, group: &Group<'_>) -> Option<Rc<Prepared>> {
        let found = self.any_statement_of(group)?;
        let is_named = group.parse.is_none() && !group.bind.statement.is_empty();
        (is_named || self.is_kept(&found)).then_some(found)
    }

    /// The statement that the group's Bind names, if it is current.
    pub(super) fn any_statement_of(&mut self, group: &Group<'_>) -> Option<Rc<Prepared>> {
        let Some(parse) = &group.parse else {
            let found = match group.bind.statement {
                [] => self.unnamed.as_ref(),
                name => self.statements.get(statement_key(name)),
            };
            let found = found.map(Rc::clone)?;
            return self.is_current(&found).then_some(found);
        };
        if !group.bind.statement.is_empty() {
            return None;
        }
        let again = self.unnamed.as_ref().filter(|known| {
            *known.body == *parse.after_name && known.parsed_under.same(&self.settings)
        });
        Some(match again.map(Rc::clone) {
            Some(again) if self.is_current(&again) => again,
            Some(_) | None => self.plan_extended(parse),
        })
    }

    /// The one shard that a statement without effect on the session runs on.
    fn shard_of(&self, script: &Script, values: &dyn Values) -> Option<ShardId> {
        let [statement] = script.statements.as_slice() else {
            return None;
        };
        if statement.effect != Effect::None || statement.block_only {
            return None;
        }
        match self.place(statement, values) {
            Ok(Place::Shard { shard, .. }) => Some(shard),
            Ok(Place::Local | Place::Wide(_)) | Err(_) => None,
        }
    }

    /// An idle connection of a shard that has our settings and is `fit`.
    fn idle_on(
        &mut self,
        shard: ShardId,
        fit: impl FnOnce(&mut ServerConnection) -> bool,
    ) -> Option<Lease> {
        if let Some(mut lease) = self.granted.take() {
            let is_ready = lease.connection().is_some_and(|connection| {
                connection.shard == shard && self.has_our_settings(connection) && fit(connection)
            });
            if is_ready {
                return Some(lease);
            }
            self.granted = Some(lease);
            return None;
        }
        let mut lease = self.pools.get(usize::from(shard.0))?.take(&self.settings)?;
        let is_ready = lease
            .connection()
            .is_some_and(|connection| self.has_our_settings(connection) && fit(connection));
        if is_ready {
            self.account.assign();
            return Some(lease);
        }
        lease.give_back(self.engine.recently());
        None
    }

    /// The statement of the common course is under way on this connection.
    pub(super) fn begin(&mut self, lease: Lease) {
        let shard = lease.pool().target.shard;
        self.note_route(&Place::Shard { shard, binds: true }, &Effect::None);
        self.adopt(lease);
    }
}

fn write_group(out: &mut Vec<u8>, group: &Group<'_>, name: ServerName) {
    backend::message(out, b'B', |out| {
        out.push(0);
        name.write(out);
        out.extend_from_slice(group.bind.after_names);
    });
    out.extend_from_slice(group.tail);
}
