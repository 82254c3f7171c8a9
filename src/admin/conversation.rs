//! The console's side of the protocol: frames in, replies out, simple and extended.
//!
//! A [`Talk`] keeps one client's prepared statements, portals and block state as PostgreSQL would
//! (<https://www.postgresql.org/docs/current/protocol-flow.html>): after an error in the extended
//! protocol everything is skipped up to Sync; a failed block takes nothing but its end; portals die
//! with their transaction. Reading and writing sockets is the session's.
//!
//! *Invariant:* each reply is appended whole, so a dropped future leaves no half message.

use std::collections::BTreeMap;

use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ReadyForQuery, TransactionStatus,
};

use crate::admin::answer::Answer;
use crate::admin::command::{Act, Block, Command, parse};
use crate::admin::console::Console;
use crate::admin::extended::unknown_statement;
use crate::admin::message::{Reader, put, put_columns, put_fault, put_notices, put_row};
use crate::error::{Fault, Severity, SqlState};
use crate::session::console::{Answering, Conversation, Next, Rights};

/// A prepared statement: nothing for an empty text.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) command: Option<Command>,
    pub(super) parameters: Vec<u32>,
}

/// A portal: its command, then what is left of its answer.
#[derive(Debug)]
pub(super) struct Portal {
    pub(super) command: Option<Command>,
    pub(super) formats: Vec<bool>,
    pub(super) answer: Option<(Answer, usize)>,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Talk {
    console: Console,
    pub(super) user: String,
    rights: Rights,
    status: TransactionStatus,
    pub(super) statements: BTreeMap<String, Prepared>,
    pub(super) portals: BTreeMap<String, Portal>,
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
            put_notices(&answer.notices, out)?;
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

    pub(super) async fn run(
        &mut self,
        command: &Command,
        is_simple: bool,
    ) -> Result<Answer, Fault> {
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

pub(super) fn complete(answer: &Answer) -> CommandComplete {
    CommandComplete::new(answer.tag.to_owned())
}
