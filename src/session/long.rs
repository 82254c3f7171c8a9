//! Messages too long to be held: routed by their beginning, then passed on in pieces.

use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::planner::plan::{Effect, Literal, Parameter, Values};
use crate::server::connection::Note;
use crate::server::statements::Prepared;
use crate::wire::frame;
use crate::wire::pipeline::Request;

use super::lease::Place;
use super::simple::statement_key;
use super::start::too_long;
use super::{Passing, Portal, Session, Stop};

/// From this size on a message is passed on in pieces where that is possible.
pub(super) const LONG: usize = 1 << 20;

/// The part of a Bind that has arrived.
struct BindStart<'a> {
    portal: &'a [u8],
    statement: &'a [u8],
    /// Everything behind the names.
    rest: &'a [u8],
    values: Vec<(bool, Option<&'a [u8]>)>,
    /// Whether a parameter is binary.
    has_binary: bool,
    prepared: Option<Rc<Prepared>>,
    is_utf8: bool,
}

impl Values for BindStart<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let (binary, value) = self.values.get(usize::from(index))?;
        let oid = self
            .prepared
            .as_ref()
            .map_or(0, |prepared| prepared.parameter_type(index));
        Some(Parameter {
            value: *value,
            binary: *binary,
            oid,
        })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let prepared = self.prepared.as_ref()?;
        let literal = prepared.script.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(prepared.text()),
        })
    }

    fn is_utf8(&self) -> bool {
        self.is_utf8
    }
}

/// Takes a string that ends in a zero byte from the front of `rest`.
fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = rest.get(..end)?;
    *rest = rest.get(end.saturating_add(1)..)?;
    Some(text)
}

fn take_u16(rest: &mut &[u8]) -> Option<usize> {
    let (bytes, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(usize::from(u16::from_be_bytes(*bytes)))
}

impl<'a> BindStart<'a> {
    /// Reads as many parameters as are there; `None` while the names are not.
    fn read(body: &'a [u8]) -> Option<BindStart<'a>> {
        let mut rest = body;
        let portal = take_string(&mut rest)?;
        let statement = take_string(&mut rest)?;
        let after_names = rest;
        let format_count = take_u16(&mut rest)?;
        let mut formats = Vec::with_capacity(format_count);
        for _ in 0..format_count {
            formats.push(take_u16(&mut rest)? == 1);
        }
        let count = take_u16(&mut rest)?;
        let mut values = Vec::new();
        for index in 0..count {
            let Some((length, after)) = rest.split_first_chunk::<4>() else {
                break;
            };
            let binary = match formats.as_slice() {
                [all] => *all,
                each => each.get(index).copied().unwrap_or(false),
            };
            let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
                values.push((binary, None));
                rest = after;
                continue;
            };
            let Some((value, after)) = after.split_at_checked(length) else {
                break;
            };
            values.push((binary, Some(value)));
            rest = after;
        }
        Some(BindStart {
            portal,
            statement,
            rest: after_names,
            values,
            has_binary: formats.contains(&true),
            prepared: None,
            is_utf8: true,
        })
    }
}

impl Session {
    /// A message that has not wholly arrived and is no COPY data. Returns whether it is passed on in pieces
    /// from here; otherwise more of it is waited for.
    pub(crate) fn on_long_part(
        &mut self,
        tag: u8,
        total: usize,
        header: &[u8],
        body: &[u8],
    ) -> Result<bool, Stop> {
        if total <= LONG {
            return Ok(false);
        }
        let held_max =
            usize::try_from(self.database.limits.max_statement_size).unwrap_or(usize::MAX);
        let left = total
            .saturating_sub(frame::HEADER)
            .saturating_sub(body.len());
        if tag == b'Q' {
            self.settle_group()?;
        }
        if matches!(tag, b'B' | b'Q' | b'P') && self.is_skipping_messages() {
            self.passing = Some(Passing {
                left,
                to_server: false,
            });
            return Ok(true);
        }
        let result = match tag {
            b'B' if body.len() >= LONG / 2 => self.pass_bind(body, left, held_max),
            b'Q' if total > held_max => self.pass_query(header, body, left),
            b'P' if total > held_max => Err(too_long("the statement")),
            b'B' | b'Q' | b'P' | b'F' => Ok(false),
            _ => Err(Stop::Close),
        };
        match result {
            Err(Stop::Fault(fault)) => {
                // Parses that came before it are judged and answered before it.
                let first = match self.settle_pending() {
                    Ok(()) => fault,
                    Err(Stop::Fault(earlier)) => earlier,
                    Err(stop) => return Err(stop),
                };
                self.wait_for_replies()?;
                self.refuse_long(tag, left, &first);
                Ok(true)
            }
            other => other,
        }
    }

    /// As a Bind that has come whole, as far as what has arrived of it decides. What needs the rest is
    /// waited for, up to `held_max`.
    fn pass_bind(&mut self, body: &[u8], left: usize, held_max: usize) -> Result<bool, Stop> {
        let wait_for_rest = || {
            if body.len() < held_max {
                Ok(false)
            } else {
                Err(too_long("the parameters of the statement"))
            }
        };
        let Some(mut start) = BindStart::read(body) else {
            return wait_for_rest();
        };
        if !self.statements.contains_key(statement_key(start.statement))
            && self.is_sql_prepared(start.statement)
        {
            return wait_for_rest();
        }
        self.settle_name_of_group(start.statement)?;
        let prepared = self.find_statement(start.statement)?;
        self.listen_first(&prepared.script)?;
        start.prepared = Some(Rc::clone(&prepared));
        start.is_utf8 = self.is_utf8();
        let [statement] = prepared.script.statements.as_slice() else {
            return wait_for_rest();
        };
        if prepared.fills.is_some()
            || matches!(
                statement.effect,
                Effect::SetConfig { .. } | Effect::LastId { .. }
            )
        {
            // Ids follow the parameters, or what is set is among them.
            return wait_for_rest();
        }
        self.check_failed(statement)?;
        self.check_effect(&statement.effect)?;
        self.check_bound(statement)?;
        self.check_names(statement)?;
        let place = match self.place_temporary(statement, prepared.text())? {
            Some(place) => Ok(place),
            None => self.place(statement, &start),
        };
        let (shard, binds) = match place {
            Ok(Place::Shard { shard, binds }) => (shard, binds),
            // The key may stand behind the long parameter.
            Ok(Place::Local | Place::Wide(_)) => return wait_for_rest(),
            Err(_) if body.len() < held_max => return Ok(false),
            Err(_) if self.answers.is_open() => return Err(Stop::Ask),
            Err(fault) => return Err(Stop::Fault(fault)),
        };
        if self.is_foreign(shard) && !self.oids_are_alike() && start.has_binary {
            // Its values may name types, which have other numbers there.
            return wait_for_rest();
        }
        self.check_types(shard, Some(&prepared))?;
        self.note_use(shard, statement)?;
        if self.minds_cache() {
            self.before_bind(&prepared, &start)?;
        }
        self.lease(shard, binds)?;
        self.note_advance(statement);
        self.note_route(&Place::Shard { shard, binds }, &statement.effect);
        self.tally(&prepared.script, &statement.effect);
        self.note_temporary(&statement.effect, prepared.text());
        self.flush_pending(Some(&prepared));
        let name = self.ensure_prepared(&prepared, start.statement.is_empty());
        self.engine.count_bind(&self.database);
        let effect = statement.effect.clone();
        let may_name = self.rows_may_name(shard, &prepared, false);
        let portal = Portal::Server {
            shard,
            effect,
            may_name,
        };
        self.set_portal(start.portal, portal);
        let length = 4_usize
            .saturating_add(start.portal.len())
            .saturating_add(1)
            .saturating_add(name.len())
            .saturating_add(start.rest.len())
            .saturating_add(left);
        let length = i32::try_from(length).map_err(|_too_big| {
            Stop::Fault(Fault::error(
                SqlState::PROGRAM_LIMIT,
                "the message is too long",
            ))
        })?;
        if let Some(connection) = self.connection() {
            let out = &mut connection.out;
            out.push(b'B');
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(start.portal);
            out.push(0);
            out.extend_from_slice(&name);
            out.extend_from_slice(start.rest);
            connection.pipeline.sent(Request::Bind, false, Note::None);
            connection.mark_unsynced();
        }
        self.passing = Some(Passing {
            left,
            to_server: true,
        });
        Ok(true)
    }

    /// A Query too long to be analysed can only go to the one shard there is; what it does to the session is
    /// not known, so the client keeps its connection.
    fn pass_query(&mut self, header: &[u8], body: &[u8], left: usize) -> Result<bool, Stop> {
        self.settle_settings()?;
        if self.database.topology.shards().len() != 1 || self.is_tenant() {
            return Err(too_long("the statement"));
        }
        self.settle_pending()?;
        let home = self.database.topology.home();
        if self.minds_cache() {
            self.before_anything()?;
        }
        self.lease(home, true)?;
        self.pin("statement too long to be analysed");
        if let Some(connection) = self.connection() {
            connection.out.extend_from_slice(header);
            connection.out.extend_from_slice(body);
            connection.pipeline.sent(Request::Query, false, Note::None);
            connection.unsynced = false;
        }
        self.count_sent();
        self.passing = Some(Passing {
            left,
            to_server: true,
        });
        Ok(true)
    }
}
