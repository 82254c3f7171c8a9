//! The snapshots of a block that keeps them: opened on every shard before its first statement, where reads are
//! consistent. Which shards it will use nobody knows then.

use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::execute::{Conversation as _, Interrupted, open_block};
use crate::planner::plan::{Effect, Statement};
use crate::server::connection::ServerConnection;
use crate::server::hidden::read_until_ready;
use crate::server::pool::Lease;
use crate::server::statements::Prepared;
use crate::wire::backend;

use super::{Session, ShardId, Stop};

/// What a transaction tells of itself without taking its snapshot.
const MODES: &str =
    "SHOW transaction_isolation;SHOW transaction_read_only;SHOW transaction_deferrable";

/// Whether PostgreSQL takes a snapshot for it (`PlannedStmtRequiresSnapshot` in `pquery.c`).
pub(super) fn takes_snapshot(statement: &Statement) -> bool {
    let shapes = matches!(
        statement.effect,
        Effect::Begin
            | Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::Savepoint(_)
            | Effect::RollbackTo(_)
            | Effect::Release(_)
            | Effect::SetTransaction { .. }
            | Effect::SetConstraints { .. }
            | Effect::Set { .. }
            | Effect::Reset { .. }
            | Effect::ResetAll
            | Effect::SetPgherd { .. }
            | Effect::ShowPgherd { .. }
            | Effect::Deallocate { .. }
            | Effect::Listen { .. }
            | Effect::Unlisten { .. }
    );
    !shapes && statement.verb != "SHOW"
}

impl Session {
    /// Whether the open block has its snapshots, if it keeps any, before one is taken on this shard.
    ///
    /// # Errors
    /// They are to be opened first.
    pub(crate) fn check_snapshots(&mut self, shard: ShardId) -> Result<(), Stop> {
        let database = &self.database;
        if !database.consistent_reads || database.topology.shards().len() < 2 {
            return Ok(());
        }
        let Some(block) = &self.block else {
            return Ok(());
        };
        // One that is read only later has its snapshot.
        let is_open = block.settled || block.unread || block.failed || block.alone.is_some();
        if is_open {
            return Ok(());
        }
        self.wait_for_replies()?;
        let connection = self.lease.as_ref().and_then(Lease::peek);
        if connection.is_some_and(|connection| connection.unsynced) {
            return Err(Stop::EndGroup);
        }
        Err(Stop::Snapshots(shard))
    }

    /// The same before a server looks at a statement.
    pub(crate) fn check_snapshots_for(
        &mut self,
        shard: ShardId,
        prepared: &Rc<Prepared>,
    ) -> Result<(), Stop> {
        let mut statements = prepared.script.statements.iter();
        if statements.any(takes_snapshot) {
            self.check_snapshots(shard)?;
        }
        Ok(())
    }

    /// Opens the block's snapshots on every shard, if it keeps them.
    ///
    /// # Errors
    /// They cannot be opened in time, or at all; the client left or canceled.
    ///
    /// # Cancel safety
    /// Not safe: connections are closed.
    pub(crate) async fn open_snapshots(&mut self, shard: ShardId) -> Result<(), Interrupted> {
        let Some(bound) = self.block.as_ref().map(|block| block.bound) else {
            return Ok(());
        };
        let is_here = self
            .block
            .as_ref()
            .is_some_and(|block| block.sent && !block.joins);
        if !is_here {
            self.park_current();
        }
        let modes = if let Some(mut lease) = self.lease.take() {
            let modes = self.ask_shows(&mut lease).await;
            self.lease = Some(lease);
            modes
        } else {
            let mut lease = self.take_joined(shard).await?;
            let modes = self.ask_shows(&mut lease).await;
            self.return_joined(lease);
            if let Some(block) = &mut self.block {
                block.bound = bound;
                block.joins = true;
            }
            modes
        };
        let modes = modes?;
        let is = |at: usize, wanted: &str| modes.get(at).is_some_and(|mode| mode == wanted);
        let keeps = is(0, "repeatable read") || is(0, "serializable");
        if keeps && is(0, "serializable") && is(1, "on") && is(2, "on") {
            return Err(Interrupted::Fault(deferrable()));
        }
        if keeps {
            open_block(self).await?;
        }
        if let Some(block) = &mut self.block {
            block.settled = true;
            block.bound |= keeps;
        }
        Ok(())
    }

    async fn ask_shows(&mut self, lease: &mut Lease) -> Result<Vec<String>, Interrupted> {
        let limit = self.database.limits.server_connect_timeout;
        let asked = match lease.connection() {
            Some(connection) => {
                let asking = shows(connection);
                if limit.is_zero() {
                    asking.await
                } else {
                    tokio::time::timeout(limit, asking)
                        .await
                        .unwrap_or_else(|_elapsed| Err(silent()))
                }
            }
            None => Err(silent()),
        };
        asked.map_err(Interrupted::Fault)
    }
}

/// The values of [`MODES`].
async fn shows(connection: &mut ServerConnection) -> Result<Vec<String>, Fault> {
    connection.push_hidden_query(MODES);
    let mut values = Vec::new();
    read_until_ready(connection, |frame| {
        if frame.tag == b'D' {
            let first = backend::row_values(frame.body).into_iter().next().flatten();
            values.push(String::from_utf8_lossy(first.unwrap_or_default()).into_owned());
        }
    })
    .await?;
    Ok(values)
}

fn silent() -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        "the server did not tell in time how the transaction is isolated",
    )
    .hint("Check the shard's health; raise server_connect_timeout if it is slow.")
}

/// Its snapshot waits for others' transactions, which would wait for it.
fn deferrable() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a DEFERRABLE transaction over several shards cannot have one snapshot",
    )
    .detail("consistent_reads is set; on each shard it would wait for transactions that wait for it on another.")
    .hint("Leave DEFERRABLE out, or use REPEATABLE READ.")
}
