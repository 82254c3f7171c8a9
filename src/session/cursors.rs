//! Where the cursors of a block are: each on the shard that it was declared on, or, over several shards, on the
//! twin that has its rows.

use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::planner;
use crate::planner::plan::{Route, Statement};
use crate::server::connection::ServerConnection;
use crate::server::pool::Lease;
use crate::sql::cursor::Cursor;
use crate::sql::scan::{Kind, scan};
use crate::wire::backend::Status;

use super::block::KeptTwin;
use super::twins::Turn;
use super::{Portal, Session, Stop};

/// Cursors of one block that are told apart.
const CURSORS_MAX: usize = 1_000;

impl Session {
    /// Before a cursor is declared: it can be told from the others, or no other shard joins any more.
    ///
    /// # Errors
    /// 54000 for too many over several shards.
    pub(crate) fn check_cursors(&mut self, statement: &Statement) -> Result<(), Stop> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        if statement.verb != "DECLARE CURSOR" || block.cursors.len() < CURSORS_MAX {
            return Ok(());
        }
        if block.parts.0.is_empty() {
            block.alone = Some("more than 1,000 cursors");
            return Ok(());
        }
        Err(Stop::Refusal(
            Fault::error(
                SqlState::PROGRAM_LIMIT,
                "a transaction over several shards cannot have more than 1,000 cursors",
            )
            .hint("Close some, or use several transactions."),
        ))
    }

    /// Before a cursor over several shards is declared.
    ///
    /// # Errors
    /// 25P01 outside of a block, 0A000 where no twin takes its rows.
    pub(crate) fn check_cursor_over_several(&self, route: &Route) -> Result<(), Stop> {
        let Some(block) = &self.block else {
            return Err(Stop::Fault(Fault::error(
                SqlState::NO_ACTIVE_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            )));
        };
        if !matches!(route, Route::Gather(_)) || block.cursors.len() >= CURSORS_MAX {
            return Err(Stop::Refusal(planner::cursor_over_several()));
        }
        Ok(())
    }

    /// Notes where a cursor is declared, or that it is closed.
    pub(crate) fn note_cursor(&mut self, shard: ShardId, statement: &Statement, text: &[u8]) {
        if self.block.is_none() {
            return;
        }
        if statement.verb == "DECLARE CURSOR" {
            self.note_declared(shard, text);
        } else if statement.verb == "CLOSE CURSOR" {
            let Some(name) = self.names_in(text).pop() else {
                return;
            };
            // A cursor called "all" is closed by either.
            if name == "all" {
                self.tell_parts("CLOSE ALL");
            }
            if let Some(block) = &mut self.block {
                block
                    .cursors
                    .retain(|(known, _)| *known != name && name != "all");
            }
        }
    }

    fn note_declared(&mut self, shard: ShardId, text: &[u8]) {
        let name = self.names_in(text).into_iter().nth(1);
        if let (Some(name), Some(block)) = (name, &mut self.block) {
            block.cursors.retain(|(known, _)| *known != name);
            if block.cursors.len() < CURSORS_MAX {
                block.cursors.push((name, shard));
            }
        }
    }

    /// The shard of the cursor that a statement is about; `None` where it is not known.
    pub(crate) fn cursor_shard(&mut self, statement: &Statement, text: &[u8]) -> Option<ShardId> {
        let is_about = matches!(statement.verb, "FETCH" | "MOVE" | "CLOSE CURSOR");
        let block = self.block.as_ref().filter(|_| is_about)?;
        if block.cursors.is_empty() {
            return None;
        }
        let name = self.names_in(text).pop()?;
        let block = self.block.as_ref()?;
        let known = block.cursors.iter().find(|(known, _)| *known == name);
        known.map(|(_, shard)| *shard)
    }

    /// A twin stays with the open block: it has the rows of the cursor that `text` declares, or of a portal.
    pub(crate) fn keep_twin(
        &mut self,
        (lease, turn, last): (Lease, Turn, String),
        portal: Option<&[u8]>,
        text: &[u8],
    ) {
        let shard = lease.pool().target.shard;
        let Some(block) = &mut self.block else {
            return;
        };
        block.bound = true;
        block.parts.0.push(lease);
        block.twins.push(KeptTwin {
            shard,
            depth: block.savepoints.len(),
            portal: portal.map(<[u8]>::to_vec),
            turn,
            last,
        });
        match portal {
            Some(name) => {
                let portal = Portal::Server {
                    shard,
                    effect: planner::plan::Effect::None,
                    may_name: true,
                };
                self.set_portal(name, portal);
            }
            None => self.note_declared(shard, text),
        }
    }

    /// The unnamed portal goes, as when a statement over several shards is bound to it.
    pub(crate) fn forget_unnamed_portal(&mut self) {
        if self
            .block
            .as_ref()
            .is_some_and(|block| !block.twins.is_empty())
        {
            self.portals.retain(|(name, _)| !name.is_empty());
            self.release_twins();
        }
    }

    /// A rollback to a savepoint has closed what was opened behind it on twins.
    pub(crate) fn forget_closed(&mut self) {
        let Some(block) = &mut self.block else {
            return;
        };
        let closed = block.closed_twins();
        block.cursors.retain(|(_, shard)| !closed.contains(shard));
        self.portals.retain(
            |(_, portal)| !matches!(portal, Portal::Server { shard, .. } if closed.contains(shard)),
        );
    }

    /// Gives up the twins whose cursor or portal is closed.
    pub(crate) fn release_twins(&mut self) {
        let Some(block) = &mut self.block else {
            return;
        };
        // One that has failed tells so until the block is over.
        let has_failed = |lease: &Lease| {
            let connection = lease.peek();
            connection.is_some_and(|connection| connection.status == Status::Failed)
        };
        if block.twins.is_empty() || self.lease.as_ref().is_some_and(has_failed) {
            return;
        }
        let portals = &self.portals;
        let cursors = &block.cursors;
        let is_over = |twin: &&KeptTwin| match &twin.portal {
            Some(name) => !portals.iter().any(|(known, portal)| {
                **known == **name
                    && matches!(portal, Portal::Server { shard, .. } if *shard == twin.shard)
            }),
            None => !cursors.iter().any(|(_, shard)| *shard == twin.shard),
        };
        let over: Vec<ShardId> = block
            .twins
            .iter()
            .filter(is_over)
            .map(|it| it.shard)
            .collect();
        for shard in over {
            let is_at_rest = |lease: &Lease| {
                let at_rest = |connection: &ServerConnection| {
                    connection.pipeline.is_empty() && !connection.unsynced
                };
                lease.pool().target.shard == shard && lease.peek().is_some_and(at_rest)
            };
            let lease = match self.lease.take_if(|lease| is_at_rest(lease)) {
                Some(lease) => {
                    self.client.targets.borrow_mut().clear();
                    self.client.shard.set(None);
                    self.client.server_id.set(None);
                    Some(lease)
                }
                None => block.parts.take(shard),
            };
            // Given up in any case: its transaction is rolled back, whatever it is at.
            if let Some(lease) = lease {
                drop(block.end_twin(lease));
            }
        }
    }

    /// The words of a text, as names.
    fn names_in(&mut self, text: &[u8]) -> Vec<String> {
        let lexing = self.facts().lexing;
        let Ok(tokens) = scan(text, lexing) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        let mut cursor = Cursor::new(text, &tokens);
        while cursor.kind().is_some_and(|kind| kind != Kind::Semicolon) {
            if let Some(name) = cursor.name() {
                names.push(name);
            } else if cursor.advance().is_none() {
                break;
            }
        }
        names
    }
}
