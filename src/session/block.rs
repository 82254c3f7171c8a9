//! A transaction block: said by the client, opened on a server when the first statement needs one.
//!
//! `BEGIN` opens nothing. What comes before the first statement with a table (isolation level,
//! SET LOCAL, savepoints, harmless questions) runs in a block on the home shard and is kept, so that
//! it can be replayed when the block turns out to belong to another shard. Sans-IO.

use std::rc::Rc;

use crate::server::hidden;
use crate::server::pool::Lease;
use crate::server::settings::Settings;

/// The settings at a savepoint, and what its transaction had listened to.
#[derive(Clone, Debug)]
pub struct SettingsThen {
    pub session: Rc<Settings>,
    pub local: Option<Rc<Settings>>,
    /// Those that were set on the server connection.
    pub on_server: Rc<Settings>,
    /// How many LISTENs and UNLISTENs wait for the commit.
    pub listened: usize,
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
    /// BEGIN has been sent to the current connection.
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
    /// Connections of other shards, each in a transaction of its own with the block's snapshot there.
    pub readers: Readers,
}

/// Connections that are rolled back and given back in the background when the block ends.
#[derive(Debug, Default)]
pub struct Readers(pub Vec<Lease>);

impl Drop for Readers {
    fn drop(&mut self) {
        for lease in self.0.drain(..) {
            hidden::tidy_later(lease);
        }
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
            readers: Readers::default(),
        }
    }

    /// A block that a server opened in the middle of what it was sent.
    pub fn on_server(settings: &Rc<Settings>) -> Block {
        Block {
            sent: true,
            bound: true,
            ..Block::new(b"BEGIN", settings)
        }
    }

    /// Goes back to a savepoint: the settings as they were, and those made after it are gone.
    pub fn roll_back_to(&mut self, name: &str) -> Option<SettingsThen> {
        let index = self
            .savepoints
            .iter()
            .rposition(|(known, _)| known == name)?;
        self.savepoints.truncate(index.saturating_add(1));
        self.savepoints.last().map(|(_, then)| then.clone())
    }

    /// Forgets a savepoint and those made after it.
    pub fn release(&mut self, name: &str) {
        if let Some(index) = self.savepoints.iter().rposition(|(known, _)| known == name) {
            self.savepoints.truncate(index);
        }
    }
}
