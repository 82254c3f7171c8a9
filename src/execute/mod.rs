//! Carries out what takes several shards: broadcast, concatenation, COPY split by key.
//!
//! A statement over several shards is part of the client's block, or a transaction of its own: where that
//! writes, it is committed in two phases. Where the shards cannot, commits start only after every
//! shard has carried out its part, and a failure between commits is reported as 08007 with the shards' names.
//! Every connection taken here is given back idle and in sync, or closed.

mod broadcast;
mod claims;
mod concat;
mod copy;
mod each;
mod gather;
mod group;
mod indexes;
mod insert;
mod member;
mod merge;
mod moved;
mod pushed;
mod snapshot;

pub(crate) use snapshot::open_block;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::config::{Limits, Lookup};
use crate::error::{Fault, SqlState};
use crate::metrics::catalogue::RouteLabel;
use crate::placement::ShardId;
use crate::placement::rule::{Listed, Unlisted};
use crate::placement::topology::Topology;
use crate::planner;
use crate::planner::plan::{Effect, Entry, Gather, Route, Target};
use crate::server::connection::CancelTarget;
use crate::server::pool::Lease;
use crate::server::settings::Detour;
use crate::server::statements::{Prepared, ServerName};
use crate::sql::scan::{Encoding, Lexing};
use crate::transaction::commit::Committed;
use crate::types::key::Key;
use crate::types::oids::{Mapping, Unmapped, Way};
use crate::wire::backend;

/// A statement for several shards, taken from the client.
#[derive(Debug)]
pub(crate) struct Wide {
    pub(crate) route: Route,
    pub(crate) source: Source,
    pub(crate) verb: &'static str,
    pub(crate) effect: Effect,
    /// It is proven free of side effects.
    pub(crate) reads: bool,
    /// How its text is read.
    pub(crate) lexing: Lexing,
    /// The tenant it is confined to, for rows that are looked at one by one.
    pub(crate) tenant: Option<Rc<str>>,
    /// Values of columns that are kept unique, with the keys of the rows that are to have them.
    pub(crate) claims: Vec<Entry>,
}

/// What the client sent.
#[derive(Debug)]
pub(crate) enum Source {
    /// The text of a simple query.
    Text(Vec<u8>),
    /// A Bind of the extended protocol; what follows in its group is still to be read.
    Bind {
        portal: Vec<u8>,
        prepared: Rc<Prepared>,
        /// What follows the names in the Bind.
        after_names: Vec<u8>,
    },
}

impl Source {
    /// The statement's text.
    fn sql(&self) -> &[u8] {
        match self {
            Source::Text(text) => text,
            Source::Bind { prepared, .. } => prepared.text(),
        }
    }
}

/// What the home shard says of rows.
#[derive(Debug)]
pub(crate) struct Told {
    /// Values that were looked up, each with its keys.
    pub(crate) keys: HashMap<Key<'static>, Arc<[Vec<Key<'static>>]>>,
    /// What directories list, in order.
    pub(crate) listed: Vec<(Unlisted, Listed)>,
}

/// What the client sends while it copies.
#[derive(Debug)]
pub(crate) enum Copied {
    Data(Vec<u8>),
    Done,
    /// CopyFail, with its message.
    Fail(String),
}

/// A twin that one statement has to itself, until this is dropped.
pub(crate) trait Twin: 'static {
    /// What its connections go by, beside those of the shards.
    fn shard(&self) -> ShardId;

    /// What the twin tells of its schema unless another proxy has made it again.
    fn mark(&self) -> &str;

    /// What the statement is doing with it, and how much has been fetched so far.
    fn note(&self, phase: &'static str, rows: u64, bytes: u64);

    /// Another proxy is at work on it: it is passed over for a while.
    fn busy_elsewhere(self);

    /// Another proxy has made it again: it is looked at first.
    fn was_made_again(self);
}

/// What carrying out a wide statement needs of the client that sent it.
pub(crate) trait Conversation {
    type Twin: Twin;

    /// Waits for a twin; `None` where the database has none.
    ///
    /// # Errors
    /// None came free in time, or the client left or canceled.
    ///
    /// # Cancel safety
    /// Safe: a drop leaves the line.
    async fn take_twin(&mut self) -> Result<Option<Self::Twin>, Interrupted>;

    /// The savepoints of the block that the client began, in order; `None` outside of one.
    fn savepoints(&self) -> Option<Vec<String>>;

    /// The twin stays with the open block, its connection idle in its transaction: it has the rows of this portal,
    /// or of the cursor that `text` declares. `last` empties it.
    fn keep_twin(
        &mut self,
        lease: Lease,
        twin: Self::Twin,
        last: String,
        portal: Option<&[u8]>,
        text: &[u8],
    );

    /// The connection that the client's open block runs on, in sync; `None` outside of one.
    fn lend_block(&mut self) -> Option<Lease>;

    /// Takes it back. One that is out of sync ends the client.
    fn return_block(&mut self, lease: Lease);

    /// The open block, if there is one, has failed.
    fn fail_block(&mut self);

    /// The open block stays with its shard from here on: it has a snapshot there.
    fn bind_block(&mut self);

    /// The connections of other shards that joined the open block.
    fn parts(&mut self) -> Option<&mut Vec<Lease>>;

    /// Whether a block is open: what runs is part of it.
    fn is_in_block(&self) -> bool;

    /// The block's connection to this shard, taken out of it, or one that joins: its transaction may still
    /// have to be begun by what is queued.
    ///
    /// # Errors
    /// As for [`Conversation::take_part`].
    ///
    /// # Cancel safety
    /// Safe: a drop leaves the line, or closes the connection.
    async fn take_joined(&mut self, shard: ShardId) -> Result<Lease, Interrupted>;

    /// Takes it back. One that is out of sync ends the block.
    fn return_joined(&mut self, lease: Lease);

    /// Whether the shards can commit in two phases.
    ///
    /// # Errors
    /// The client left or canceled.
    ///
    /// # Cancel safety
    /// Safe.
    async fn can_decide(&mut self) -> Result<bool, Interrupted>;

    /// Whether reads over several shards are to see each commit on several shards whole or not at all.
    fn reads_consistently(&self) -> bool;

    /// Has made what commits in two phases, and such reads, need on the shards.
    ///
    /// # Errors
    /// They cannot commit so; the client left or canceled.
    ///
    /// # Cancel safety
    /// Safe.
    async fn check_two_phase(&mut self) -> Result<(), Interrupted>;

    /// Commits what these have carried out for one statement, in two phases.
    ///
    /// # Cancel safety
    /// Safe: it goes on.
    async fn commit(&mut self, leases: Vec<Lease>) -> Committed;

    /// Counts what was fetched for a statement that is finished on a twin.
    fn count_gathered(&self, rows: u64, bytes: u64);

    /// What bounds a statement that is finished on a twin.
    fn gather(&self) -> &crate::config::Gather;

    /// Works out what a twin needs, with what is known of the tables.
    fn plan_with<T>(&self, work: impl FnOnce(planner::Context<'_>) -> T) -> T;

    /// Bytes to be sent to the client.
    fn out(&mut self) -> &mut Vec<u8>;

    /// Queues a reply of our own, in the order of the requests.
    fn reply(&mut self, write: impl FnOnce(&mut Vec<u8>));

    /// Queues what says that the statement is committed: it waits until the cache knows, and the CommandComplete
    /// of a text that is a transaction until that is committed.
    fn put_answer(&mut self, messages: &[u8]);

    /// Nobody can tell whether the statement is committed: what it may have changed is not given to anyone
    /// for a while.
    fn abandon_write(&mut self);

    /// Queues an error of our own; an open block has failed then.
    fn reply_fault(&mut self, fault: &Fault);

    /// Queues a server's error: an open block has failed then.
    fn put_error(&mut self, error: &[u8]);

    /// Queues a ReadyForQuery.
    fn reply_ready(&mut self);

    /// Answers the Parses that wait: the wide statement they belong to judges the text itself.
    fn answer_parses(&mut self);

    /// Closes a prepared statement, which need not exist. Returns whether it could: one that SQL PREPARE
    /// made is a server's.
    fn close_statement(&mut self, name: &[u8]) -> bool;

    /// The unnamed statement is gone, as after every simple query.
    fn forget_unnamed(&mut self);

    /// Sends to the client what its socket takes now.
    ///
    /// # Errors
    /// The client is gone.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), End>;

    /// Sends everything to the client.
    ///
    /// # Errors
    /// The client is gone or was killed.
    ///
    /// # Cancel safety
    /// Safe: what was not sent stays.
    async fn flush_all(&mut self) -> Result<(), End>;

    /// The client's next message: its tag, and the body of those that name something (Describe, Execute,
    /// Close). Of the others only the tag counts: their bodies, which may be long, are
    /// dropped as they come, and CopyData altogether.
    ///
    /// # Errors
    /// The client left, was killed, or does not speak the protocol.
    ///
    /// # Cancel safety
    /// Safe: a message is taken whole or stays.
    async fn next_message(&mut self) -> Result<(u8, Vec<u8>), End>;

    /// Puts back a message that [`Conversation::next_message`] gave with its body.
    fn unread(&mut self, tag: u8, body: &[u8]);

    /// Whether the client has a portal of this name, or a cursor in its block.
    fn has_portal(&self, name: &[u8]) -> bool;

    /// The tag of the client's next message, which stays.
    ///
    /// # Errors
    /// As for [`Conversation::next_message`].
    ///
    /// # Cancel safety
    /// Safe.
    async fn next_tag(&mut self) -> Result<u8, End>;

    /// The next part of the client's COPY data. Long messages come in parts.
    ///
    /// # Errors
    /// The client left, was killed, canceled the COPY, or sent what does not belong into it.
    fn poll_copied(&mut self, cx: &mut Context<'_>) -> Poll<Result<Copied, Interrupted>>;

    /// Whether the client left, was killed, or canceled what it waits for.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Poll<Interrupted>;

    /// The current connection is one among those the client keeps, until the statement is done.
    fn park_current(&mut self);

    /// A connection of this shard, brought to the client's settings: one that the client keeps, else one
    /// of the pool.
    ///
    /// # Errors
    /// None was to be had in time, the settings were refused, or the client left or canceled.
    ///
    /// # Cancel safety
    /// Safe: a drop leaves the line, or closes the connection.
    async fn take_part(&mut self, shard: ShardId) -> Result<Lease, Interrupted>;

    /// Takes back a connection that is idle and in sync.
    fn give_back(&mut self, lease: Lease);

    /// A server's prepared statement is out of date: what is kept of the schema is read anew.
    fn schema_changed_elsewhere(&self);

    /// Whether the client keeps its connections, and state on them.
    fn keeps_connections(&self) -> bool;

    /// A connection that the client keeps is gone: so must the client be.
    fn lose(&mut self, shard: ShardId);

    /// A cancel request of the client reaches no connection any more: it is seen where the client is
    /// watched.
    fn forget_targets(&mut self);

    /// A cancel request of the client is for these connections from here on; one that has not been seen
    /// yet came too late.
    fn aim_cancels(&mut self, targets: Vec<Rc<CancelTarget>>);

    /// The same; what the servers do not take at once is seen where the client is watched.
    fn share_cancels(&mut self, targets: Vec<Rc<CancelTarget>>);

    /// Sends a cancel request to one connection, in the background.
    fn cancel_now(&self, target: &Rc<CancelTarget>);

    /// What a shard calls the users' types; `None` for the home shard, whose oids clients know.
    ///
    /// # Errors
    /// They have not been read.
    fn mapping(&self, shard: ShardId) -> Result<Option<Arc<Mapping>>, Fault>;

    /// Reads again what the shards call the users' types; what could not be read stays as it was.
    ///
    /// # Errors
    /// The client left or canceled.
    ///
    /// # Cancel safety
    /// Safe: they are read all the same.
    async fn read_types(&mut self) -> Result<(), Interrupted>;

    /// The shards, and what lies on them.
    fn topology(&self) -> &Arc<Topology>;

    /// The limits of the client's database.
    fn limits(&self) -> &Limits;

    /// What a server calls a statement under the client's settings and the schema as it is now.
    fn server_name(&self, prepared: &Prepared) -> ServerName;

    /// The settings between which a Parse must stand on a connection that has the client's.
    fn detour(&self, prepared: &Prepared) -> Detour;

    /// DDL is on its way: what is prepared from now on is prepared under another name.
    fn schema_may_change(&self);

    /// DDL was carried out, at least in part: the catalog is read anew before this returns, or, of a block, when
    /// it is committed. That it
    /// could not be read is logged.
    ///
    /// # Cancel safety
    /// Safe: the catalog is read all the same.
    async fn schema_changed(&mut self);

    /// Has the home shard tell the keys of values of a column that has a lookup table, enter rows to come,
    /// and say what directories list.
    ///
    /// # Errors
    /// It does not, or the client left or canceled.
    ///
    /// # Cancel safety
    /// Safe: what was to be entered is entered or not.
    async fn ask_for_rows(
        &mut self,
        lookup: Option<&Arc<Lookup>>,
        values: Vec<Key<'static>>,
        entries: Vec<Entry>,
        unlisted: Vec<Unlisted>,
    ) -> Result<Told, Interrupted>;

    /// The bytes of shards' rows that are kept for the client.
    fn note_buffered(&self, bytes: usize);

    /// The time now.
    fn now(&self) -> Instant;

    /// Counts a statement that began then and is done.
    fn count_wide(&mut self, label: RouteLabel, began: Instant, succeeded: bool);
}

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said goodbye or is gone.
    Client,
    /// It is told why.
    Fault(Box<Fault>),
}

/// Why waiting ended without what was waited for.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// The statement fails with this; the client stays.
    Fault(Fault),
    End(End),
}

/// PostgreSQL's answer to a cancel request.
pub(crate) fn canceled_fault() -> Fault {
    Fault::error(
        SqlState::QUERY_CANCELED,
        "canceling statement due to user request",
    )
}

/// The error of a type that one has and the other has not.
pub(crate) fn unmapped_fault(mapping: &Mapping, unmapped: &Unmapped) -> Fault {
    let shard = mapping.shard();
    let (oid, way) = match unmapped {
        Unmapped::Oid(oid, way) => (*oid, *way),
        Unmapped::TooDeep => {
            return Fault::error(
                SqlState::TOO_COMPLEX,
                "a binary value has too many values within values",
            )
            .hint("Send or ask for it as text.");
        }
    };
    let hint = "Create the type alike on every shard: pgherd check compares them.";
    match (mapping.name_of(oid, way), way) {
        (Some(name), Way::ToHome) => Fault::error(
            SqlState::UNDEFINED_OBJECT,
            format!("type \"{name}\" of shard \"{shard}\" is no such type on the home shard"),
        )
        .hint(hint),
        (Some(name), Way::ToShard) => Fault::error(
            SqlState::UNDEFINED_OBJECT,
            format!("shard \"{shard}\" has no type like \"{name}\" of the home shard"),
        )
        .hint(hint),
        (None, Way::ToHome) => Fault::error(
            SqlState::UNDEFINED_OBJECT,
            format!("the type with OID {oid} of shard \"{shard}\" is not known on the home shard"),
        )
        .detail("It may be a temporary one, or one that was just dropped.")
        .hint(hint),
        (None, Way::ToShard) => Fault::error(
            SqlState::UNDEFINED_OBJECT,
            format!("type with OID {oid} does not exist"),
        )
        .hint("Look the type up again: it may have been dropped."),
    }
}

/// Why a wide statement failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A server's ErrorResponse, whole.
    Server(Vec<u8>),
    Fault(Fault),
    /// The shards' answers cannot be put together here, as their columns show; no row of them went to the
    /// client. The refusal says so.
    Unproven(Fault),
    End(End),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

impl From<Interrupted> for Trouble {
    fn from(interrupted: Interrupted) -> Trouble {
        match interrupted {
            Interrupted::Fault(fault) => Trouble::Fault(fault),
            Interrupted::End(end) => Trouble::End(end),
        }
    }
}

/// Carries out a wide statement and answers the client, ReadyForQuery included.
///
/// # Cancel safety
/// Not safe: connections are closed and transactions rolled back by the servers.
pub(crate) async fn run<C: Conversation>(client: &mut C, wide: Wide) -> Result<(), End> {
    if matches!(wide.source, Source::Text(_)) {
        client.forget_unnamed();
    }
    match &wide.source {
        Source::Text(_) => {
            let result = carry_out(client, &wide, true).await;
            if !report(client, result)? {
                client.fail_block();
            }
            client.reply_ready();
            Ok(())
        }
        Source::Bind { portal, .. } => group::run(client, &wide, portal).await,
    }
}

/// Tells the client of a failure. Returns whether the statement succeeded.
fn report<C: Conversation>(client: &mut C, result: Result<(), Trouble>) -> Result<bool, End> {
    match result {
        Ok(()) => Ok(true),
        Err(Trouble::Server(error)) => {
            let body = error.get(crate::wire::frame::HEADER..).unwrap_or_default();
            if backend::error_fields(body).is_stale_plan() {
                client.schema_changed_elsewhere();
            }
            client.put_error(&error);
            Ok(false)
        }
        Err(Trouble::Fault(fault) | Trouble::Unproven(fault)) => {
            if fault.code == SqlState::TRANSACTION_OUTCOME_UNKNOWN {
                client.abandon_write();
            }
            client.reply_fault(&fault);
            Ok(false)
        }
        Err(Trouble::End(end)) => Err(end),
    }
}

/// Runs the statement; its replies up to CommandComplete go to the client. `describe`: with a
/// RowDescription.
async fn carry_out<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
) -> Result<(), Trouble> {
    let started = client.now();
    let result = match &wide.route {
        Route::Broadcast { .. } if matches!(wide.effect, Effect::CopyIn { .. }) => {
            copy::run_everywhere(client, wide).await
        }
        Route::Broadcast { transaction: true } => broadcast::run(client, wide, describe).await,
        Route::Broadcast { transaction: false } => {
            broadcast::one_by_one(client, wide, describe).await
        }
        Route::Concat(shards, finish, _) if finish.is_plain() || is_explained(wide) => {
            concat::run(client, wide, shards, describe).await
        }
        Route::Concat(shards, finish, other) => {
            let merged = merge::run(client, wide, shards, finish, describe).await;
            match (merged, other) {
                (Err(Trouble::Unproven(_)), Some(gather)) => {
                    return gathered(client, wide, gather, describe).await;
                }
                (merged, _) => merged,
            }
        }
        Route::CopySplit(split) => copy::run(client, wide, split).await,
        Route::InsertSplit(shares) => insert::run(client, wide, shares, describe).await,
        Route::Each(shards) => each::run(client, wide, shards, describe).await,
        Route::Move(shards, moves) => moved::run(client, wide, shards, moves, describe).await,
        Route::Gather(gather) => return gathered(client, wide, gather, describe).await,
        Route::InsertGathered(gather, target) => {
            insert_gathered(client, wide, gather, target).await
        }
        Route::Session | Route::Anywhere | Route::AnyShard | Route::Single(_) => {
            Err(Trouble::Fault(Fault::error(
                SqlState::INTERNAL,
                "a statement for one shard was to run on several",
            )))
        }
    };
    let label = match &wide.route {
        Route::CopySplit(_) => RouteLabel::Copy,
        Route::InsertSplit(_) | Route::InsertGathered(..) => RouteLabel::Split,
        Route::Session
        | Route::Anywhere
        | Route::AnyShard
        | Route::Single(_)
        | Route::Concat(..)
        | Route::Each(_)
        | Route::Move(..)
        | Route::Gather(_)
        | Route::Broadcast { .. } => RouteLabel::Multi,
    };
    client.count_wide(label, started, result.is_ok());
    result
}

/// Finishes a read on a twin.
async fn gathered<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    gather: &Gather,
    describe: bool,
) -> Result<(), Trouble> {
    let started = client.now();
    let result = gather::run(client, wide, gather, describe).await;
    client.count_wide(RouteLabel::Gather, started, result.is_ok());
    result
}

/// Has a twin work out the rows of an INSERT, and writes them where they belong.
async fn insert_gathered<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    gather: &Gather,
    target: &Target,
) -> Result<(), Trouble> {
    if wide.lexing.encoding == Encoding::Unsafe {
        return Err(Trouble::Fault(planner::refuse::rows_in_encoding()));
    }
    let lines = gather::lines(client, wide, gather, target).await?;
    if target.is_new {
        client.schema_may_change();
        let count = copy::create(client, wide, target, lines).await?;
        client.schema_changed().await;
        complete(client, &format!("SELECT {count}"));
        return Ok(());
    }
    let count = copy::insert(client, wide, target, lines).await?;
    complete(client, &format!("INSERT 0 {count}"));
    Ok(())
}

/// Whether its rows are lines that explain it.
fn is_explained(wide: &Wide) -> bool {
    matches!(wide.effect, Effect::Explain(_))
}

/// Appends a CommandComplete.
fn complete<C: Conversation>(client: &mut C, tag: &str) {
    let mut message = Vec::new();
    backend::command_complete(&mut message, tag);
    client.put_answer(&message);
}
