//! The console's side of the protocol: frames in, replies out, simple and extended.
//!
//! A [`Talk`] keeps one client's prepared statements, portals and block state as PostgreSQL would
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>): after an error in the extended
//! protocol everything is skipped up to Sync; a failed block takes nothing but its end; portals die
//! with their transaction. Reading and writing sockets is the session's.
//!
//! *Invariant:* each reply is appended whole, so a dropped future leaves no half message.

use std::borrow::Cow;
use std::collections::BTreeMap;

use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{
    BindComplete, CloseComplete, ParseComplete, PortalSuspended,
};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};

use crate::admin::answer::Answer;
use crate::admin::command::{Act, Block, Command, parse};
use crate::admin::console::Console;
use crate::admin::message::{Reader, put, put_columns, put_fault, put_row};
use crate::error::{Fault, Severity, SqlState};
use crate::session::console::{Answering, Conversation, Next, Rights};

/// How many prepared statements, and how many portals, one client may have.
pub const NAMED_MAX: usize = 1_000;

/// A prepared statement: nothing for an empty text.
#[derive(Clone, Debug)]
struct Prepared {
    command: Option<Command>,
    parameters: Vec<u32>,
}

/// A portal: its command, then what is left of its answer.
#[derive(Debug)]
struct Portal {
    command: Option<Command>,
    formats: Vec<bool>,
    answer: Option<(Answer, usize)>,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Talk {
    console: Console,
    user: String,
    rights: Rights,
    status: TransactionStatus,
    statements: BTreeMap<String, Prepared>,
    portals: BTreeMap<String, Portal>,
    /// After an error in the extended protocol, until Sync.
    skipping: bool,
    /// What is being waited for, and whether a simple query asked for it.
    running: Option<(Option<Act>, bool)>,
}

impl Talk {
    /// A conversation with a client that has logged in.
    pub fn new(console: Console, user: &str, rights: Rights) -> Talk {
        Talk {
            console,
            user: user.to_owned(),
            rights,
            status: TransactionStatus::Idle,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            skipping: false,
            running: None,
        }
    }

    async fn take(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<Next, Fault> {
        let done = match tag {
            b'X' => return Ok(Next::Close),
            b'S' => self.sync(out),
            b'Q' => self.simple(body, out).await,
            // Copy data that nobody asked for is dropped, as PostgreSQL does.
            b'd' | b'c' | b'f' | b'H' => Ok(()),
            b'P' | b'B' | b'D' | b'E' | b'C' if self.skipping => Ok(()),
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                let done = self.extended(tag, body, out).await;
                self.skipping = done.is_err();
                done
            }
            b'F' => {
                let fault = Fault::error(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    "the console has no function calls",
                );
                self.fail(
                    &fault.hint("Use SHOW HELP for what the console knows."),
                    out,
                )?;
                return self.ready(out).map(|()| Next::Go);
            }
            _ => Err(Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("unexpected message type {tag}"),
            )
            .hint("Check the client's driver.")),
        };
        if let Err(fault) = done {
            self.fail(&fault, out)?;
            if fault.severity == Severity::Fatal {
                return Ok(Next::Close);
            }
            if tag == b'Q' {
                self.ready(out)?;
            }
        }
        Ok(Next::Go)
    }

    fn sync(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        self.skipping = false;
        self.ready(out)
    }

    fn ready(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.status == TransactionStatus::Idle {
            self.portals.clear();
        }
        put(&ReadyForQuery::new(self.status), out)
    }

    fn fail(&mut self, fault: &Fault, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.status == TransactionStatus::Transaction {
            self.status = TransactionStatus::Error;
        }
        put_fault(fault, out)
    }

    async fn simple(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut reader = Reader::new(body);
        let text = reader.text()?;
        reader.end()?;
        let commands = parse(text, &self.user)?;
        if commands.is_empty() {
            put(&EmptyQueryResponse::new(), out)?;
        }
        for command in &commands {
            let answer = self.run(command, true).await?;
            if !answer.columns.is_empty() {
                put_columns(&answer.columns, &[], out)?;
            }
            for row in &answer.rows {
                put_row(&answer.columns, row, &[], out)?;
            }
            put(&complete(&answer), out)?;
        }
        self.ready(out)
    }

    async fn extended(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
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
        let (answer, sent) = match portal.answer.take() {
            Some(begun) => begun,
            None => (self.run(command, false).await?, 0),
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

    async fn run(&mut self, command: &Command, is_simple: bool) -> Result<Answer, Fault> {
        if let Command::Block(block) = command {
            return self.block(*block);
        }
        if self.status == TransactionStatus::Error {
            return Err(Fault::error(
                SqlState::FAILED_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .hint("Send ROLLBACK."));
        }
        match command {
            Command::Deallocate(Some(name), _) => {
                self.statements
                    .remove(name)
                    .ok_or_else(|| unknown_statement(name))?;
            }
            Command::Deallocate(None, _) => self.statements.clear(),
            Command::Show(_) | Command::Constant(_) | Command::Block(_) | Command::Act(_) => (),
        }
        let act = match command {
            Command::Act(act) => Some(act.clone()),
            Command::Show(_)
            | Command::Constant(_)
            | Command::Block(_)
            | Command::Deallocate(..) => None,
        };
        self.running = Some((act, is_simple));
        let answer = self.console.run(command, self.rights).await;
        self.running = None;
        answer
    }

    fn block(&mut self, block: Block) -> Result<Answer, Fault> {
        let was = self.status;
        let (status, tag) = match (block, was) {
            (
                Block::Begin | Block::Savepoint("SAVEPOINT" | "RELEASE"),
                TransactionStatus::Error,
            ) => {
                return Err(Fault::error(
                    SqlState::FAILED_TRANSACTION,
                    "current transaction is aborted, commands ignored until end of transaction block",
                )
                .hint("Send ROLLBACK."));
            }
            (Block::Begin, _) => (TransactionStatus::Transaction, "BEGIN"),
            (Block::Commit, TransactionStatus::Error) | (Block::Rollback, _) => {
                (TransactionStatus::Idle, "ROLLBACK")
            }
            (Block::Commit, _) => (TransactionStatus::Idle, "COMMIT"),
            (Block::Savepoint(_), TransactionStatus::Idle) => {
                return Err(Fault::error(
                    SqlState::NO_ACTIVE_TRANSACTION,
                    "savepoints need a transaction block",
                )
                .hint("Send BEGIN first."));
            }
            (Block::Savepoint(tag), _) => (TransactionStatus::Transaction, tag),
        };
        self.status = status;
        Ok(Answer::done(tag))
    }

    async fn stop(&mut self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some((act, is_simple)) = self.running.take() else {
            return Ok(());
        };
        if let Some(Act::Pause(database)) = act {
            self.console.undo_pause(database.as_deref()).await?;
        }
        let fault = Fault::error(
            SqlState::QUERY_CANCELED,
            "canceling statement due to user request",
        );
        self.fail(&fault, out)?;
        self.skipping = !is_simple;
        if is_simple { self.ready(out) } else { Ok(()) }
    }
}

impl Conversation for Talk {
    fn frame<'a>(&'a mut self, tag: u8, body: &'a [u8], out: &'a mut Vec<u8>) -> Answering<'a> {
        Box::pin(async move { close_on_fault(self.take(tag, body, out).await) })
    }

    fn canceled<'a>(&'a mut self, out: &'a mut Vec<u8>) -> Answering<'a> {
        Box::pin(async move { close_on_fault(self.stop(out).await.map(|()| Next::Go)) })
    }
}

/// A fault that could not be sent is ours: it is logged, and the connection ends.
fn close_on_fault(done: Result<Next, Fault>) -> Next {
    done.unwrap_or_else(|fault| {
        tracing::error!(%fault, "console conversation ended");
        Next::Close
    })
}

fn complete(answer: &Answer) -> CommandComplete {
    CommandComplete::new(answer.tag.to_owned())
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

fn unknown_statement(name: &str) -> Fault {
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
