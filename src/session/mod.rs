//! One client, from login to the end: its statements, its settings, its transaction block.
//!
//! A session is one task on one engine. Bytes come in, messages are walked in place, and each goes
//! to the server connection that the planner names; replies come back in the order of the requests.
//! What can be answered without a server is. *Invariants:* messages of a client are handled in
//! order; a server connection is lent only while something runs on it, a block is open on it, or
//! state that cannot be replayed lives on it; what an unfinished message needs (a connection, an
//! earlier reply) stops the reading of the client, never the engine.

mod ask;
pub mod auth;
pub mod block;
mod cached;
pub mod client;
mod commit;
pub mod console;
mod console_client;
mod conversation;
mod counting;
mod cursors;
mod databases;
pub mod deadlocks;
mod direct;
pub mod engine;
pub mod extended;
mod follow;
mod generate;
mod greeting;
pub mod ids;
mod joined;
pub mod lease;
pub mod listen;
pub mod login;
pub mod long;
mod names;
mod oids;
pub mod plan;
pub mod replies;
pub mod run;
mod series;
pub mod serve;
pub mod simple;
mod snapshots;
pub mod start;
pub mod startup;
pub mod temporary;
mod tenant;
pub mod twins;
mod view;

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::config::PoolMode;
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::placement::ShardId;
use crate::planner;
use crate::planner::plan::{Effect, Script};
use crate::server::connection::{Note, ServerConnection};
use crate::server::pool::{Lease, Pool};
use crate::server::settings::Settings;
use crate::server::statements::{Prepared, ServerName};
use crate::wire::backend::{self, Status};
use crate::wire::pipeline::{Own, Pipeline};

use block::Block;
use client::Client;
use engine::{Database, Engine, Greeting};

/// Why a message cannot be finished now. It stays unread and is looked at again.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A connection to this shard is needed.
    Lease(ShardId),
    /// This connection has to be brought to our settings first.
    Settings(Lease),
    /// The current connection must have answered everything and be free.
    Idle,
    /// The current connection must have answered everything; a Flush is due.
    Drain,
    /// The block ran only harmless statements so far: it moves to this shard.
    Move(ShardId),
    /// What was sent without Sync must be ended before another shard is used.
    EndGroup,
    /// The same, and it is a transaction that goes on: it becomes a block, which ends with the client's group.
    Imply,
    /// How the open block is isolated must be asked before another shard joins it.
    Modes,
    /// The block's snapshots must be opened before this shard is used, if it keeps them.
    Snapshots(ShardId),
    /// Whether the shards can commit in two phases must be asked.
    TwoPhase,
    /// The statements of a text are to be run one after the other.
    Series,
    /// These channels must be heard first.
    Listen(Vec<String>),
    /// The server is to be asked what `search_path` is.
    Names,
    /// The home shard is to be asked, or told, what has been noted.
    Ask,
    /// So many numbers for ids are to be had first.
    Ids(Arc<planner::plan::Stream>, usize),
    /// What the shards call the users' types is to be read again.
    Types,
    /// Another client's read of the same is to be waited for.
    Follow(tokio::sync::watch::Receiver<()>),
    /// Redis is to be asked for an answer.
    Look(Box<crate::cache::Wanted>),
    /// Redis is to be told of a write before it is sent; whether it fails where that cannot be.
    Mark(bool),
    /// Rows that the open block has written are to be looked at before it is committed.
    LookAtRows,
    /// Redis is to be told that it is over.
    EndWrite,
    /// Something that takes several shards or another connection.
    Task(Box<Task>),
    /// The statement fails with this.
    Fault(Fault),
    /// The same, of a statement that was not begun: an open block goes on without it.
    Refusal(Fault),
    /// The client is to be closed, after what is to be sent.
    Close,
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Work that is done outside the relay, message already taken.
#[derive(Debug)]
pub(crate) enum Task {
    /// A simple query that runs on several shards.
    Wide(Box<crate::execute::Wide>),
    /// The end of a block that is open on several shards.
    End(commit::Ending),
}

/// A portal as the client named it.
#[derive(Clone, Debug)]
pub(crate) enum Portal {
    /// On the server of this shard, with its effect when executed.
    Server {
        shard: ShardId,
        effect: Effect,
        /// Whether its rows may name types by the shard's oids.
        may_name: bool,
    },
    /// Answered by us when executed.
    Local {
        effect: Effect,
        verb: &'static str,
        text: Rc<Prepared>,
        /// It has been executed, and has nothing more to give.
        done: bool,
    },
}

/// Bytes of a long client message that pass by in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) left: usize,
    /// To the current server connection, or nowhere.
    pub(crate) to_server: bool,
}

/// One client's conversation.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of the protocol that holds or not, whatever the others say"
)]
pub struct Session {
    pub(crate) engine: Rc<Engine>,
    pub(crate) client: Rc<Client>,
    pub(crate) stream: Stream,
    /// To be sent to the client.
    pub(crate) out: Vec<u8>,
    /// The client does not take what it is sent: the server is not read until it does.
    pub(crate) client_is_full: bool,
    /// Read from the client, not handled yet.
    pub(crate) input: Vec<u8>,
    /// Something the bytes handled last need before the next can be.
    pub(crate) held_need: Option<Stop>,
    pub(crate) passing: Option<Passing>,
    /// Bytes still to come of a message that a wide statement reads in parts: CopyData, or nobody's.
    pub(crate) copy_left: usize,
    /// Whether the server message that passes in pieces goes to the client.
    pub(crate) forwarding: bool,
    pub(crate) identity: auth::Identity,
    pub(crate) database: Rc<Database>,
    pub(crate) pools: Rc<[Rc<Pool>]>,
    pub(crate) pool_mode: PoolMode,
    pub(crate) settings: Rc<Settings>,
    pub(crate) startup_settings: Rc<Settings>,
    pub(crate) greeting: Rc<Greeting>,
    /// A statement that changes settings was sent and may not be answered yet.
    pub(crate) settings_change: bool,
    /// What ran may have set `search_path` unseen: the server is to be asked.
    pub(crate) names_unsure: bool,
    /// The settings when the current transaction (of any kind) began.
    pub(crate) settings_before: Option<Rc<Settings>>,
    pub(crate) block: Option<Box<Block>>,
    pub(crate) lease: Option<Lease>,
    /// A connection that the next statement has waited for.
    pub(crate) granted: Option<Lease>,
    /// A read that was sent behind another client's; then there is no lease.
    pub(crate) joined: Option<Box<joined::Joined>>,
    /// The next read was turned away: it needs a connection of its own.
    pub(crate) goes_alone: bool,
    /// DDL ran that may not be committed yet.
    pub(crate) ran_ddl: bool,
    /// What was sent waits for those who may follow at once: until the sockets have been looked at again.
    pub(crate) corked: bool,
    pub(crate) timed: Option<joined::Timed>,
    /// Pinned connections that are not the current one.
    pub(crate) parked: Vec<Lease>,
    /// Steps of statements over several shards that a cancel request could end so far.
    pub(crate) steps: u64,
    pub(crate) statements: HashMap<Box<[u8]>, Rc<Prepared>, FixedState>,
    /// Names made by SQL PREPARE on a pinned connection.
    pub(crate) sql_prepared: Vec<String>,
    /// Prepared EXECUTEs as the client wrote them, by the names that it gave them: they are made anew from these.
    pub(crate) executes: Vec<(Box<[u8]>, Rc<Prepared>)>,
    /// The protocol's statements that a text under way deallocates by SQL, and what servers call them.
    pub(crate) deallocating: Vec<(String, ServerName)>,
    /// What its server's oids are put by.
    pub(crate) oids: oids::Oids,
    /// Its temporary tables, where there are several shards.
    pub(crate) temporary: Vec<String>,
    /// One of them that a statement under way drops, with nothing else under way.
    pub(crate) dropping: Option<String>,
    /// What it listens to by the engine's listening connection.
    pub(crate) channels: listen::Channels,
    pub(crate) unnamed: Option<Rc<Prepared>>,
    pub(crate) portals: Vec<(Box<[u8]>, Portal)>,
    /// Parses that no server has seen and no reply has been given for.
    pub(crate) pending: Vec<(Rc<Prepared>, bool)>,
    /// The names of Parses whose reply has not reached the client, in order; `None` is unnamed.
    pub(crate) tentative: VecDeque<Option<Box<[u8]>>>,
    /// An error of our own was reported: messages are skipped until Sync.
    pub(crate) skipping: bool,
    /// A text of several statements that is under way.
    pub(crate) series: Option<Box<series::Series>>,
    /// The group of a statement over several shards has come to its Sync.
    pub(crate) answered: bool,
    /// Whether something was executed since the last Sync was sent.
    pub(crate) executed: bool,
    /// Whether a text that was sent, its answer perhaps not read yet, has a BEGIN.
    pub(crate) may_open_block: bool,
    /// The block's server connection was lost, and the client has not heard of it.
    pub(crate) lost: Option<Fault>,
    pub(crate) copy_in: bool,
    /// The client has said good-bye and closed its socket; what it asked before is still to be done.
    pub(crate) departed: bool,
    /// The server ended its connection over what the client sent: the client ends as well.
    pub(crate) ends: bool,
    /// The last command tag of a block's end said ROLLBACK.
    pub(crate) rolled_back: bool,
    pub(crate) pinned: Option<&'static str>,
    /// What its settings mean for planning.
    pub(crate) facts: Option<Rc<plan::Facts>>,
    /// Whether hints in comments count for this user.
    pub(crate) identity_hints: bool,
    /// The tenant that the configuration binds the user to.
    pub(crate) tenant: Option<Rc<str>>,
    /// What names mean to a tenant cannot be told any more.
    pub(crate) tenant_unsure: bool,
    /// What it did that is not counted yet.
    pub(crate) account: counting::Account,
    /// What the message at hand would have run, and may not.
    pub(crate) refusing: Option<Rc<Script>>,
    /// The ids that it was given last.
    pub(crate) last_ids: generate::LastIds,
    /// Numbers for ids that a statement took which has to wait for something else.
    pub(crate) spare_numbers: generate::Numbered,
    /// What it has to do with the cache.
    pub(crate) caching: cached::Caching,
    /// What the home shard has answered for the message at hand.
    pub(crate) answers: ask::Answers,
    /// Set by `SET pgherd.…`, by name.
    pub(crate) own_settings: Vec<(String, String)>,
}

impl Session {
    /// Our idea of the transaction status, for a ReadyForQuery of our own.
    pub(crate) fn status(&self) -> Status {
        match &self.block {
            None => Status::Idle,
            Some(block) if block.failed || block.parts.have_failed() => Status::Failed,
            Some(_) => match self.lease.as_ref().and_then(Lease::peek) {
                Some(connection) if connection.status == Status::Failed => Status::Failed,
                Some(_) | None => Status::InBlock,
            },
        }
    }

    /// The current server connection.
    pub(crate) fn connection(&mut self) -> Option<&mut ServerConnection> {
        self.lease.as_mut().and_then(Lease::connection)
    }

    /// The settings that hold for the next statement: the session's, or what SET LOCAL says.
    pub(crate) fn settings_in_force(&self) -> &Rc<Settings> {
        self.block
            .as_ref()
            .and_then(|block| block.local.as_ref())
            .unwrap_or(&self.settings)
    }

    /// Sends messages of our own, in the order of the requests.
    pub(crate) fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(line) = self.line_of_replies() {
            let mut bytes = Vec::new();
            write(&mut bytes);
            line.local(Own::Messages(bytes));
        } else {
            let from = self.out.len();
            write(&mut self.out);
            self.withhold_completion(from);
        }
    }

    /// Sends ReadyForQuery of our own.
    pub(crate) fn reply_ready(&mut self) {
        if self.series.is_some() {
            // It comes behind the last of them.
            return;
        }
        self.fail_block_on_server();
        if self.is_marked() {
            self.hold_answer();
        }
        let status = self.status();
        if let Some(line) = self.line_of_replies() {
            line.local(Own::ReadyForQuery(status));
        } else {
            backend::ready_for_query(&mut self.out, status);
            self.count_end_here();
        }
    }

    /// Where a reply of our own has to wait for others.
    fn line_of_replies(&mut self) -> Option<&mut Pipeline<Note>> {
        self.lease
            .as_mut()
            .and_then(Lease::connection)
            .map(|connection| &mut connection.pipeline)
            .filter(|pipeline| !pipeline.is_empty())
    }

    /// Sends an error of our own; an open block has failed then.
    pub(crate) fn reply_fault(&mut self, fault: &Fault) {
        self.reply_refusal(fault);
        self.fail_series();
        match &mut self.block {
            Some(block) => {
                block.failed = true;
                block.parts.fail();
            }
            None => self.account.fail(),
        }
    }

    /// Sends an error of our own; an open block goes on.
    pub(crate) fn reply_refusal(&mut self, fault: &Fault) {
        self.engine.count_fault(fault);
        self.reply(|out| backend::fault(out, fault));
    }

    /// PostgreSQL's answer to anything but the end of a failed block.
    pub(crate) fn failed_block_fault() -> Fault {
        Fault::error(
            SqlState::FAILED_TRANSACTION,
            "current transaction is aborted, commands ignored until end of transaction block",
        )
    }

    /// Keeps the current server connection for this client from here on.
    pub(crate) fn pin(&mut self, reason: &'static str) {
        if self.pinned.is_none() {
            self.pinned = Some(reason);
            self.client.pinned.set(Some(reason));
        }
    }

    /// Whether connections stay with the client between transactions.
    pub(crate) fn keeps_connections(&self) -> bool {
        self.pinned.is_some() || self.pool_mode == PoolMode::Session
    }
}
