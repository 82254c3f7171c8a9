//! A transaction block: said by the client, opened on a server when the first statement needs one.
//!
//! `BEGIN` opens nothing. What comes before the first statement with a table (isolation level,
//! SET LOCAL, savepoints, harmless questions) runs in a block on the home shard and is kept, so that
//! it can be replayed when the block turns out to belong to another shard. From then on the block stays
//! where it is, and other shards join it: one connection is the current one, those of the others wait within
//! their transactions. What shapes a transaction is told to each of them, and to one that joins later.
//! Sans-IO.

use std::rc::Rc;
use std::task::{Context, Waker};

use crate::placement::{ShardId, ShardSet};
use crate::server::connection::{Note, ServerConnection};
use crate::server::hidden;
use crate::server::pool::Lease;
use crate::server::settings::{Settings, difference, steps};
use crate::sql::quote::quote_ident;
use crate::wire::backend::Status;
use crate::wire::frame;
use crate::wire::pipeline::Request;

use super::twins::Turn;

/// The settings at a savepoint, and what its transaction had listened to.
#[derive(Clone, Debug)]
pub struct SettingsThen {
    pub session: Rc<Settings>,
    pub local: Option<Rc<Settings>>,
    /// Those that were set on the server connection.
    pub on_server: Rc<Settings>,
    /// How many LISTENs and UNLISTENs wait for the commit.
    pub listened: usize,
    /// How many SET TRANSACTIONs and SET CONSTRAINTS came before.
    pub modes: usize,
}

/// An open transaction block.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of the block that holds or not, whatever the others say"
)]
pub struct Block {
    /// The client's BEGIN, as it came.
    pub begin: Vec<u8>,
    /// Statements that shaped the block so far, as they came, to be replayed on another shard.
    pub preamble: Vec<Vec<u8>>,
    /// BEGIN has been sent to a connection.
    pub sent: bool,
    /// A statement with a table ran: the block belongs to its shard.
    pub bound: bool,
    /// It failed by an error of our own; servers do not know of it.
    pub failed: bool,
    /// The session's settings when it began; a rollback brings them back.
    pub settings: Rc<Settings>,
    /// The settings in force within it, where SET LOCAL makes them differ from the session's.
    pub local: Option<Rc<Settings>>,
    /// Savepoints and the settings when they were made: the session's, and those in force.
    pub savepoints: Vec<(String, SettingsThen)>,
    /// What ran in it may have set `search_path` unseen.
    pub hides_names: bool,
    /// SET TRANSACTIONs and SET CONSTRAINTS in it, in order.
    pub modes: Vec<String>,
    /// Connections of the other shards that joined, each within its transaction.
    pub parts: Parts,
    /// The shard of the connection that was current last.
    pub here: Option<ShardId>,
    /// The connection that becomes current next has no transaction yet.
    pub joins: bool,
    /// Where something ran that was not proven free of side effects.
    pub wrote: ShardSet,
    /// What ran on a shard and keeps a transaction from being prepared there.
    pub unpreparable: Option<(ShardId, &'static str)>,
    /// Why no other shard may join.
    pub alone: Option<&'static str>,
    /// Where cursors were declared, by name.
    pub cursors: Vec<(String, ShardId)>,
    /// Twins among the parts: each has the rows of a cursor or portal.
    pub twins: Vec<KeptTwin>,
    /// Nobody said BEGIN: it ends with the group of messages, or the text, that it began in.
    pub implicit: bool,
    /// BEGIN came in the middle of a text: how the transaction is isolated is the server's to say.
    pub unread: bool,
    /// Its snapshots are open on every shard, or each of its statements has one of its own.
    pub settled: bool,
}

/// A twin that has the rows of a cursor or portal until the block ends, or that is closed.
#[derive(Debug)]
pub struct KeptTwin {
    /// What its connection goes by.
    pub shard: ShardId,
    /// The portal's name; `None` of a cursor.
    pub portal: Option<Vec<u8>>,
    /// How many savepoints it is within.
    pub depth: usize,
    pub turn: Turn,
    /// What empties it.
    pub last: String,
}

/// A connection whose transaction goes, and the settings with it that were made in it.
fn unsure(mut lease: Lease) -> Lease {
    if let Some(connection) = lease.connection() {
        connection.settings_unsure = true;
    }
    lease
}

/// Connections that are rolled back and given back in the background when the block ends.
#[derive(Debug, Default)]
pub struct Parts(pub Vec<Lease>);

impl Drop for Parts {
    fn drop(&mut self) {
        for lease in self.0.drain(..) {
            hidden::tidy_later(unsure(lease));
        }
    }
}

impl Parts {
    /// Takes the connection of a shard out.
    pub fn take(&mut self, shard: ShardId) -> Option<Lease> {
        let index = self
            .0
            .iter()
            .position(|lease| lease.pool().target.shard == shard)?;
        Some(self.0.remove(index))
    }

    /// Whether a shard is among them.
    pub fn contains(&self, shard: ShardId) -> bool {
        self.0
            .iter()
            .any(|lease| lease.pool().target.shard == shard)
    }

    /// Whether a transaction has failed on one of them.
    pub fn have_failed(&self) -> bool {
        self.0
            .iter()
            .filter_map(Lease::peek)
            .any(|connection| connection.status == Status::Failed)
    }

    /// Queues something on each that is in order, and sends what the socket takes.
    pub fn tell(&mut self, mut queue: impl FnMut(&mut ServerConnection)) {
        for lease in &mut self.0 {
            if let Some(connection) = lease.connection() {
                queue(connection);
                let mut cx = Context::from_waker(Waker::noop());
                // That it is lost shows when it is used again.
                drop(connection.poll_flush(&mut cx));
            }
        }
    }

    /// Fails the transaction on each: it gives up what it holds, as one that met the error itself.
    pub fn fail(&mut self) {
        self.tell(|connection| {
            if connection.status == Status::InBlock && !connection.unsynced {
                connection.push_failure();
                connection.push_hidden_sync();
            }
        });
    }
}

impl Block {
    /// A block that was said and is not open anywhere.
    pub fn new(begin: &[u8], settings: &Rc<Settings>) -> Block {
        Block {
            begin: begin.to_vec(),
            preamble: Vec::new(),
            sent: false,
            bound: false,
            failed: false,
            settings: Rc::clone(settings),
            local: None,
            savepoints: Vec::new(),
            hides_names: false,
            modes: Vec::new(),
            parts: Parts::default(),
            here: None,
            joins: false,
            wrote: ShardSet::default(),
            unpreparable: None,
            alone: None,
            cursors: Vec::new(),
            twins: Vec::new(),
            implicit: false,
            unread: false,
            settled: false,
        }
    }

    /// A block that a server opened in the middle of what it was sent.
    pub fn on_server(settings: &Rc<Settings>) -> Block {
        Block {
            sent: true,
            bound: true,
            unread: true,
            ..Block::new(b"BEGIN", settings)
        }
    }

    /// A block of statements that nobody said BEGIN for.
    pub fn implied(settings: &Rc<Settings>) -> Block {
        Block {
            implicit: true,
            ..Block::new(b"BEGIN", settings)
        }
    }

    /// It is nowhere open any more, and can only be rolled back.
    pub fn give_up(&mut self) {
        self.failed = true;
        self.sent = false;
        self.bound = false;
        self.joins = false;
        self.here = None;
        self.preamble.clear();
        for lease in std::mem::take(&mut self.parts.0) {
            if let Some(lease) = self.end_twin(lease) {
                hidden::tidy_later(unsure(lease));
            }
        }
        self.twins.clear();
        self.wrote = ShardSet::default();
    }

    /// The connection to a twin is lost: it can only be rolled back, on connections that the session keeps.
    pub fn lose_twin(&mut self, shard: ShardId) {
        self.failed = true;
        self.twins.retain(|twin| twin.shard != shard);
        self.parts.fail();
    }

    /// Ends what is on a twin, whose connection this is, or gives the connection back that is another's.
    pub fn end_twin(&mut self, lease: Lease) -> Option<Lease> {
        let shard = lease.pool().target.shard;
        let Some(at) = self.twins.iter().position(|twin| twin.shard == shard) else {
            return Some(lease);
        };
        let KeptTwin { turn, last, .. } = self.twins.swap_remove(at);
        hidden::tidy_with(unsure(lease), last, turn);
        None
    }

    /// The twins whose cursors and portals a rollback to the last savepoint has closed.
    pub fn closed_twins(&self) -> Vec<ShardId> {
        let within = |twin: &&KeptTwin| twin.depth >= self.savepoints.len();
        self.twins
            .iter()
            .filter(within)
            .map(|twin| twin.shard)
            .collect()
    }

    /// Goes back to a savepoint: the settings as they were, and those made after it are gone.
    pub fn roll_back_to(&mut self, name: &str) -> Option<SettingsThen> {
        let index = self
            .savepoints
            .iter()
            .rposition(|(known, _)| known == name)?;
        self.savepoints.truncate(index.saturating_add(1));
        let then = self.savepoints.last().map(|(_, then)| then.clone());
        if let Some(then) = &then {
            self.modes.truncate(then.modes);
        }
        then
    }

    /// Forgets a savepoint and those made after it.
    pub fn release(&mut self, name: &str) {
        if let Some(index) = self.savepoints.iter().rposition(|(known, _)| known == name) {
            self.savepoints.truncate(index);
            for twin in &mut self.twins {
                twin.depth = twin.depth.min(index);
            }
        }
    }

    /// Keeps a SET TRANSACTION or SET CONSTRAINTS. One that was said last is said already.
    pub fn keep_mode(&mut self, text: &str) {
        let floor = self.savepoints.last().map_or(0, |(_, then)| then.modes);
        let said = self.modes.get(floor..).unwrap_or_default();
        if said.last().is_none_or(|last| last != text) {
            self.modes.push(text.to_owned());
        }
    }

    /// Begins it on a connection that has the settings of its beginning: there it is as on those that
    /// have been in it from the first, as far as their statements shape a transaction. `session` are the
    /// session's settings now.
    pub fn begin_on(&self, connection: &mut ServerConnection, session: &Rc<Settings>) {
        push_block_start(connection, &self.begin);
        let mut level = Level {
            session: Rc::clone(&self.settings),
            local: None,
            modes: 0,
        };
        for (name, then) in &self.savepoints {
            level = self.climb(
                connection,
                &level,
                Level {
                    session: Rc::clone(&then.session),
                    local: then.local.clone(),
                    modes: then.modes,
                },
            );
            connection.push_hidden_query(&format!("SAVEPOINT {}", quote_ident(name)));
        }
        let now = Level {
            session: Rc::clone(session),
            local: self.local.clone(),
            modes: self.modes.len(),
        };
        self.climb(connection, &level, now);
        connection.settings = Rc::clone(session);
    }

    /// Queues what leads from one state of a transaction to the next.
    fn climb(&self, connection: &mut ServerConnection, from: &Level, to: Level) -> Level {
        let modes = self.modes.get(from.modes..to.modes).unwrap_or_default();
        for mode in modes {
            connection.push_hidden_query(mode);
        }
        let set = difference(&from.session, &to.session);
        if !set.is_empty() {
            connection.push_hidden_query(&set);
        }
        // SET also puts what SET LOCAL had set.
        let in_force = match &from.local {
            Some(local) if set.is_empty() => local,
            Some(_) | None => &to.session,
        };
        let wanted = to.local.as_ref().unwrap_or(&to.session);
        for step in steps(in_force, wanted, "LOCAL ") {
            connection.push_hidden_query(&step);
        }
        to
    }
}

/// What has been said of a transaction at one point of it.
struct Level {
    session: Rc<Settings>,
    local: Option<Rc<Settings>>,
    modes: usize,
}

/// Queues a deferred BEGIN, its replies hidden.
fn push_block_start(connection: &mut ServerConnection, begin: &[u8]) {
    frame::write(&mut connection.out, b'Q', &[begin, b"\0"]);
    connection.pipeline.sent(Request::Query, true, Note::None);
}
