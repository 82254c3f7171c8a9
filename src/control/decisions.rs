//! What transactions over several shards need on the shards: the table of decisions, the function that clients'
//! transactions write it with, the gate between commits and consistent reads ([`super::gate`]), and what recovery
//! asks and orders.
//!
//! Clients' roles may only call `pgherd.decide` and `pgherd.enter`, which run as the control role; that role alone
//! takes decisions back, and ends what was left prepared. The gate is a table that never has a row: what they may
//! do with it is to lock it as readers do.

use std::time::Duration;

use super::Control;
use super::pool::{Connection, column};
use super::setup::make_schema;
use crate::error::{Fault, SqlState};
use crate::sql::quote::quote_literal;

const MAX_PREPARED: &str = "SELECT current_setting('max_prepared_transactions')::int";

/// Changes with what is made.
const VERSION: &str = "pgherd: decide 2";

const IS_MADE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'pgherd' AND p.proname = 'decide'
      AND obj_description(p.oid, 'pg_proc') = $1)";

/// `enter` passes the gate as a commit does, until the transaction ends, also as a prepared one; it waits at most so
/// many ms, without end for 0. `decide` does the same, and returns false where the transaction is read-only and wrote nothing: then no decision is needed.
/// A commit that has not reached the disk could be lost while others have carried it out.
const MAKE: &str = "
    CREATE TABLE IF NOT EXISTS pgherd.decision
        (gid text PRIMARY KEY, commits boolean NOT NULL, made timestamptz NOT NULL DEFAULT now());
    REVOKE ALL ON pgherd.decision FROM PUBLIC;
    CREATE TABLE IF NOT EXISTS pgherd.gate (CONSTRAINT gate_has_no_rows CHECK (false));
    REVOKE ALL ON pgherd.gate FROM PUBLIC;
    GRANT INSERT ON pgherd.gate TO PUBLIC;
    CREATE OR REPLACE FUNCTION pgherd.enter(wait integer) RETURNS void
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
        SET lock_timeout = 0 AS $enter$
    BEGIN
        PERFORM set_config('lock_timeout', wait::text, true);
        LOCK TABLE pgherd.gate IN SHARE MODE;
    EXCEPTION WHEN lock_not_available THEN
        RAISE EXCEPTION 'the commit waited too long for reads over several shards that begin'
            USING ERRCODE = '55P03', HINT = 'Repeat the transaction, or raise consistent_reads_timeout.';
    END $enter$;
    CREATE OR REPLACE FUNCTION pgherd.decide(prefix text, secret text, wait integer) RETURNS boolean
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $decide$
    BEGIN
        IF current_setting('transaction_read_only')::boolean THEN
            IF pg_current_xact_id_if_assigned() IS NULL THEN
                RETURN false;
            END IF;
            RAISE EXCEPTION 'a transaction that wrote on several shards was made read-only'
                USING ERRCODE = '25006', HINT = 'Commit it before, or leave it read-write.';
        END IF;
        IF current_setting('synchronous_commit') IN ('off', 'local') THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
        PERFORM pgherd.enter(wait);
        INSERT INTO pgherd.decision (gid, commits)
            VALUES (prefix || left(encode(sha256(convert_to(secret, 'UTF8')), 'hex'), 32), true);
        RETURN true;
    END $decide$;
    GRANT USAGE ON SCHEMA pgherd TO PUBLIC;
    GRANT EXECUTE ON FUNCTION pgherd.enter(integer), pgherd.decide(text, text, integer) TO PUBLIC;
    COMMENT ON FUNCTION pgherd.decide(text, text, integer) IS 'pgherd: decide 2';";

/// One at a time makes it, of all proxies.
const MAKE_LOCK: &str = "SELECT pg_advisory_xact_lock(5139220230127)";

const PREPARED: &str = "
    SELECT gid, extract(epoch FROM now() - prepared)::float8, owner::text, transaction::text
    FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() ORDER BY prepared, gid";

const DECISIONS: &str = "
    SELECT gid, commits, extract(epoch FROM now() - made)::float8 FROM pgherd.decision
    WHERE starts_with(gid, $1) ORDER BY made, gid LIMIT 10000";

/// Waits for a transaction that has inserted the same key.
const ABORT: &str = "INSERT INTO pgherd.decision (gid, commits) VALUES ($1, false)
    ON CONFLICT (gid) DO NOTHING";

const DECISION: &str = "SELECT commits FROM pgherd.decision WHERE gid = $1";

const FORGET: &str = "DELETE FROM pgherd.decision WHERE gid = ANY ($1)";

/// How long recovery waits for a transaction that holds a decision.
const DECISION_WAIT: &str = "SET lock_timeout = '500ms'";

/// How long ending one prepared transaction may take.
const FINISH_WAIT: Duration = Duration::from_secs(10);

/// A prepared transaction of a shard, ours or not.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    pub gid: String,
    pub age: Duration,
    pub owner: String,
    pub xid: String,
}

/// A row of the table of decisions.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub gid: String,
    pub commits: bool,
    pub age: Duration,
}

fn seconds(age: f64) -> Duration {
    Duration::try_from_secs_f64(age.max(0.0)).unwrap_or_default()
}

impl Control {
    /// Makes what decisions need on a shard, unless it is there. Returns whether it was not.
    ///
    /// # Errors
    /// What kept the control role from making it.
    ///
    /// # Cancel safety
    /// Safe: it is made or not.
    pub async fn make_decisions(&self, database: &str, shard: &str) -> Result<bool, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        if is_made(&mut connection).await? {
            return Ok(false);
        }
        make_schema(&mut connection).await?;
        let sql = format!("BEGIN; {MAKE_LOCK}; {MAKE} COMMIT");
        let made = connection.batch(&sql, super::QUERY_TIMEOUT).await;
        if made.is_err() {
            // It may be there all the same, by another who is allowed to.
            connection.discard();
            let mut again = self.pool(database, shard)?.connect().await?;
            if is_made(&mut again).await? {
                return Ok(false);
            }
        }
        made.map(|()| true).map_err(|fault| {
            fault.hint("Let the control role create in schema pgherd, or run pgherd setup with one that may.")
        })
    }

    /// Whether every shard of a database can take part in a commit in two phases; makes what it needs.
    ///
    /// # Errors
    /// 55000 with the setting to change, or why a shard could not be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn two_phase(&self, database: &str) -> Result<(), Fault> {
        for shard in self.shard_names(database) {
            let rows = {
                let mut connection = self.pool(database, &shard)?.connect().await?;
                connection.rows(MAX_PREPARED, &[]).await?
            };
            let most: i32 = column(rows.first(), 0)?;
            if most == 0 {
                return Err(no_prepared(&shard));
            }
            self.make_decisions(database, &shard).await?;
        }
        Ok(())
    }

    /// The prepared transactions of a shard, of anyone; the oldest first.
    ///
    /// # Errors
    /// Why it could not be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn prepared(&self, database: &str, shard: &str) -> Result<Vec<Prepared>, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection.rows(PREPARED, &[]).await?;
        let read = |row| {
            let row = Some(row);
            Ok(Prepared {
                gid: column(row, 0)?,
                age: seconds(column(row, 1)?),
                owner: column(row, 2)?,
                xid: column(row, 3)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The decisions that a shard has under names with this beginning; none where there is no table.
    ///
    /// # Errors
    /// Why it could not be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn decisions(
        &self,
        database: &str,
        shard: &str,
        prefix: &str,
    ) -> Result<Vec<Decision>, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        if !is_made(&mut connection).await? {
            return Ok(Vec::new());
        }
        let rows = connection.rows(DECISIONS, &[&prefix]).await?;
        let read = |row| {
            let row = Some(row);
            Ok(Decision {
                gid: column(row, 0)?,
                commits: column(row, 1)?,
                age: seconds(column(row, 2)?),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Whether a transaction has been committed on its decider. From an answer on it stays so: where it had not
    /// been, it never will be. `None`: it may still be on its way.
    ///
    /// # Errors
    /// Why the decider could not be asked.
    ///
    /// # Cancel safety
    /// Safe: it is decided or not.
    pub async fn settle(
        &self,
        database: &str,
        decider: &str,
        gid: &str,
    ) -> Result<Option<bool>, Fault> {
        let mut connection = self.pool(database, decider)?.connect().await?;
        let known = connection.rows(DECISION, &[&gid]).await?;
        if let Some(row) = known.first() {
            return column(Some(row), 0).map(Some);
        }
        connection.rows(DECISION_WAIT, &[]).await?;
        let aborted = connection.rows(ABORT, &[&gid]).await;
        let known = match aborted {
            Ok(_) => connection.rows(DECISION, &[&gid]).await,
            Err(fault) if is_wait(&fault) => Ok(Vec::new()),
            Err(fault) => Err(fault),
        };
        // It had another limit before.
        connection.discard();
        let known = known?;
        known.first().map(|row| column(Some(row), 0)).transpose()
    }

    /// Ends a prepared transaction. One that is not there any more has been ended.
    ///
    /// # Errors
    /// Why it could not be.
    ///
    /// # Cancel safety
    /// Safe: it is ended or not.
    pub async fn finish(
        &self,
        database: &str,
        shard: &str,
        gid: &str,
        commits: bool,
    ) -> Result<(), Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let verb = if commits { "COMMIT" } else { "ROLLBACK" };
        let name = quote_literal(gid);
        let ended = connection
            .batch(&format!("{verb} PREPARED {name}"), FINISH_WAIT)
            .await;
        let Err(fault) = ended else {
            return Ok(());
        };
        let left = self.prepared(database, shard).await?;
        if left.iter().any(|prepared| prepared.gid == gid) {
            Err(fault)
        } else {
            Ok(())
        }
    }

    /// Takes back decisions that nothing depends on any more.
    ///
    /// # Errors
    /// Why they are still there.
    ///
    /// # Cancel safety
    /// Safe: they are gone or not.
    pub async fn take_back(
        &self,
        database: &str,
        decider: &str,
        gids: &[String],
    ) -> Result<(), Fault> {
        let mut connection = self.pool(database, decider)?.connect().await?;
        connection.rows(FORGET, &[&gids]).await.map(drop)
    }
}

async fn is_made(connection: &mut Connection<'_>) -> Result<bool, Fault> {
    let rows = connection.rows(IS_MADE, &[&VERSION]).await?;
    column(rows.first(), 0)
}

/// Whether it is told that waiting for a lock took too long.
fn is_wait(fault: &Fault) -> bool {
    let detail = fault.detail.as_deref();
    detail.is_some_and(|detail| detail.ends_with("(55P03)."))
}

fn no_prepared(shard: &str) -> Fault {
    Fault::error(
        SqlState::NOT_IN_PREREQUISITE_STATE,
        format!("shard \"{shard}\" keeps no prepared transactions"),
    )
    .detail("Its max_prepared_transactions is 0; a transaction that writes on several shards needs them.")
    .hint("Set max_prepared_transactions on every shard to at least its max_connections, and restart them.")
}
