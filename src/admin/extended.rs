//! The extended protocol of a conversation: Parse, Bind, Describe, Execute and Close.
//!
//! The console takes no parameters, so Bind brings none; results come in text or binary, and in parts
//! where Execute has a row limit.
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>

use std::borrow::Cow;

use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::EmptyQueryResponse;

use crate::admin::command::parse;
use crate::admin::console::Console;
use crate::admin::conversation::{Portal, Prepared, Talk, complete};
use crate::admin::message::{Reader, put, put_columns, put_notices, put_row};
use crate::error::{Fault, SqlState};

/// How many prepared statements, and how many portals, one client may have.
pub const NAMED_MAX: usize = 1_000;

impl Talk {
    /// Takes one frame of the extended protocol.
    pub(super) async fn extended(
        &mut self,
        tag: u8,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut reader = Reader::new(body);
        match tag {
            b'P' => self.parse(reader, out),
            b'B' => self.bind(reader, out),
            b'D' => {
                let (kind, name) = (reader.byte()?, reader.text()?);
                reader.end()?;
                self.describe(kind, name, out)
            }
            b'C' => {
                let (kind, name) = (reader.byte()?, reader.text()?);
                reader.end()?;
                match kind {
                    b'S' => drop(self.statements.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                put(&CloseComplete::new(), out)
            }
            _ => {
                let (name, limit) = (reader.text()?, reader.number()?);
                reader.end()?;
                self.execute(name, limit, out).await
            }
        }
    }

    fn parse(&mut self, mut reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (name, text) = (reader.text()?, reader.text()?);
        let count = reader.count()?;
        let types = (0..count)
            .map(|_| reader.number())
            .collect::<Result<Vec<_>, _>>()?;
        reader.end()?;
        if !name.is_empty() && self.statements.contains_key(name) {
            return Err(Fault::error(
                SqlState::DUPLICATE_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            )
            .hint("Close it first, or use another name."));
        }
        if !types.is_empty() {
            return Err(Fault::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "the console takes no parameters",
            )
            .hint("Write the value into the command."));
        }
        let mut commands = parse(text, &self.user)?;
        if commands.len() > 1 {
            return Err(Fault::error(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            )
            .hint("Send them one by one, or as a simple query."));
        }
        limit(self.statements.len())?;
        let command = commands.pop();
        self.statements.insert(
            name.to_owned(),
            Prepared {
                command,
                parameters: Vec::new(),
            },
        );
        put(&ParseComplete::new(), out)
    }

    fn bind(&mut self, mut reader: Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (portal, name) = (reader.text()?, reader.text()?);
        reader.formats()?;
        let count = reader.count()?;
        for _ in 0..count {
            // -1 is NULL and has no bytes.
            let length = usize::try_from(reader.number()?).unwrap_or(0);
            reader.bytes(length)?;
        }
        let formats = reader.formats()?;
        reader.end()?;
        let prepared = self
            .statements
            .get(name)
            .ok_or_else(|| unknown_statement(name))?;
        let expected = prepared.parameters.len();
        if usize::from(count) != expected {
            return Err(Fault::error(
                SqlState::PROTOCOL_VIOLATION,
                format!("bind message supplies {count} parameters, but prepared statement \"{name}\" requires {expected}"),
            )
            .hint("Write the value into the command."));
        }
        let columns = prepared
            .command
            .as_ref()
            .map_or(0, |command| Console::columns(command).len());
        if formats.len() > 1 && formats.len() != columns {
            return Err(Fault::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message has {} result formats but query has {columns} columns",
                    formats.len()
                ),
            )
            .hint("Give one format for all columns, or one a column."));
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(Fault::error(
                SqlState::DUPLICATE_STATEMENT,
                format!("portal \"{portal}\" already exists"),
            )
            .hint("Close it first, or use another name."));
        }
        limit(self.portals.len())?;
        let command = prepared.command.clone();
        self.portals.insert(
            portal.to_owned(),
            Portal {
                command,
                formats,
                answer: None,
            },
        );
        put(&BindComplete::new(), out)
    }

    fn describe(&self, kind: u8, name: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        let (command, formats) = if kind == b'S' {
            let prepared = self
                .statements
                .get(name)
                .ok_or_else(|| unknown_statement(name))?;
            put(&ParameterDescription::new(prepared.parameters.clone()), out)?;
            (&prepared.command, Cow::Owned(Vec::new()))
        } else {
            let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
            (&portal.command, Cow::Borrowed(&portal.formats))
        };
        let columns = command.as_ref().map(Console::columns).unwrap_or_default();
        if columns.is_empty() {
            put(&NoData::new(), out)
        } else {
            put_columns(&columns, &formats, out)
        }
    }

    /// Runs a portal, or goes on with it, up to `limit` rows (0 or less: all).
    async fn execute(&mut self, name: &str, limit: i32, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut portal = self
            .portals
            .remove(name)
            .ok_or_else(|| unknown_portal(name))?;
        let Some(command) = &portal.command else {
            self.portals.insert(name.to_owned(), portal);
            return put(&EmptyQueryResponse::new(), out);
        };
        let (answer, sent) = if let Some(begun) = portal.answer.take() {
            begun
        } else {
            let answer = self.run(command, false).await?;
            put_notices(&answer.notices, out)?;
            (answer, 0)
        };
        let limit = usize::try_from(limit)
            .ok()
            .filter(|limit| *limit > 0)
            .unwrap_or(usize::MAX);
        let mut rows = answer.rows.iter().skip(sent);
        for row in rows.by_ref().take(limit) {
            put_row(&answer.columns, row, &portal.formats, out)?;
        }
        let left = rows.len();
        let sent = answer.rows.len().saturating_sub(left);
        if left > 0 {
            put(&PortalSuspended::new(), out)?;
        } else {
            put(&complete(&answer), out)?;
        }
        portal.answer = Some((answer, sent));
        self.portals.insert(name.to_owned(), portal);
        Ok(())
    }
}

fn limit(count: usize) -> Result<(), Fault> {
    if count < NAMED_MAX {
        return Ok(());
    }
    Err(Fault::error(
        SqlState::PROGRAM_LIMIT,
        "too many prepared statements or portals",
    )
    .detail(format!(
        "The console keeps {NAMED_MAX} of each for a client."
    ))
    .hint("Close those that are no longer needed."))
}

pub(super) fn unknown_statement(name: &str) -> Fault {
    Fault::error(
        SqlState::UNKNOWN_STATEMENT,
        format!("prepared statement \"{name}\" does not exist"),
    )
    .hint("Parse it on this connection first.")
}

fn unknown_portal(name: &str) -> Fault {
    Fault::error(
        SqlState::UNKNOWN_PORTAL,
        format!("portal \"{name}\" does not exist"),
    )
    .hint("Bind it in this transaction first.")
}
