//! What deadlocks over several shards are found by: who waits for a lock on a shard, and what the other
//! proxies tell of their clients that wait.
//!
//! Proxies tell each other by a table on the home shard, each in a row of its own, and only while one of its
//! clients waits that may be in such a deadlock. A row that is not renewed counts for nothing.

use std::collections::BTreeMap;

use super::Control;
use super::pool::{Connection, column};
use super::setup::make_schema;
use crate::deadlock::{Blocker, LockWait};
use crate::error::Fault;

/// Changes with what is made.
const VERSION: &str = "pgherd: waiting 1";

const IS_MADE: &str =
    "SELECT coalesce(obj_description(to_regclass('pgherd.waiting'), 'pg_class') = $1, false)";

/// What is told is of no use after a crash.
const MAKE: &str = "
    CREATE UNLOGGED TABLE IF NOT EXISTS pgherd.waiting
        (owner text PRIMARY KEY, units text NOT NULL, told timestamptz NOT NULL, lapses timestamptz NOT NULL);
    REVOKE ALL ON pgherd.waiting FROM PUBLIC;
    COMMENT ON TABLE pgherd.waiting IS 'pgherd: waiting 1';";

/// One at a time makes it, of all proxies.
const MAKE_LOCK: &str = "SELECT pg_advisory_xact_lock(5139220230127)";

const TELL: &str = "
    INSERT INTO pgherd.waiting (owner, units, told, lapses)
        VALUES ($1, $2, clock_timestamp(), clock_timestamp() + $3::float8 * interval '1 second')
    ON CONFLICT (owner) DO UPDATE
        SET units = excluded.units, told = excluded.told, lapses = excluded.lapses
    RETURNING extract(epoch FROM told)::float8";

const HEAR: &str = "
    SELECT owner, units, extract(epoch FROM told)::float8 FROM pgherd.waiting
    WHERE starts_with(owner, $1) AND owner <> $2 AND lapses > clock_timestamp()
    ORDER BY owner LIMIT 1000";

const WITHDRAW: &str = "DELETE FROM pgherd.waiting
    WHERE owner = $1 OR lapses < clock_timestamp() - interval '1 minute'";

/// Locks are described in the words of PostgreSQL's own report of a deadlock. Before version 14 a server does
/// not say since when one waits.
const WAITS: &str = "
    SELECT w.pid, coalesce(to_jsonb(w) ->> 'waitstart', ''),
        w.mode || ' on ' || CASE w.locktype
            WHEN 'relation' THEN format('relation %s of database %s', w.relation, w.database)
            WHEN 'extend' THEN format('extension of relation %s of database %s', w.relation, w.database)
            WHEN 'page' THEN format('page %s of relation %s of database %s', w.page, w.relation, w.database)
            WHEN 'tuple' THEN format('tuple (%s,%s) of relation %s of database %s',
                w.page, w.tuple, w.relation, w.database)
            WHEN 'transactionid' THEN format('transaction %s', w.transactionid)
            WHEN 'virtualxid' THEN format('virtual transaction %s', w.virtualxid)
            WHEN 'object' THEN format('object %s of class %s of database %s', w.objid, w.classid, w.database)
            WHEN 'advisory' THEN format('advisory lock [%s,%s,%s,%s]',
                w.database, w.classid, w.objid, w.objsubid)
            ELSE w.locktype
        END,
        b.pids
    FROM pg_locks w CROSS JOIN LATERAL (SELECT pg_blocking_pids(w.pid) AS pids) b
    WHERE NOT w.granted AND w.pid IS NOT NULL
    ORDER BY w.pid LIMIT 10000";

/// Prepared transactions that hold what somebody waits for: `pg_blocking_pids` calls each of them 0. Each holds
/// the lock on its own number.
const PREPARED: &str = "
    SELECT w.pid, w.mode, h.mode, p.gid
    FROM pg_locks w
    JOIN pg_locks h ON h.granted AND h.pid IS NULL AND h.locktype = w.locktype
        AND (h.database, h.relation, h.page, h.tuple, h.virtualxid, h.transactionid,
            h.classid, h.objid, h.objsubid)
        IS NOT DISTINCT FROM (w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid,
            w.classid, w.objid, w.objsubid)
    JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid'
        AND x.virtualtransaction = h.virtualtransaction
    JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
    WHERE NOT w.granted AND w.pid IS NOT NULL
    LIMIT 10000";

/// The modes of locks, from the weakest, each with those that it conflicts with.
const CONFLICTS: [(&str, &[&str]); 8] = [
    ("AccessShareLock", &["AccessExclusiveLock"]),
    ("RowShareLock", &["ExclusiveLock", "AccessExclusiveLock"]),
    (
        "RowExclusiveLock",
        &[
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    (
        "ShareUpdateExclusiveLock",
        &[
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    (
        "ShareLock",
        &[
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    (
        "ShareRowExclusiveLock",
        &[
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    (
        "ExclusiveLock",
        &[
            "RowShareLock",
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
    (
        "AccessExclusiveLock",
        &[
            "AccessShareLock",
            "RowShareLock",
            "RowExclusiveLock",
            "ShareUpdateExclusiveLock",
            "ShareLock",
            "ShareRowExclusiveLock",
            "ExclusiveLock",
            "AccessExclusiveLock",
        ],
    ),
];

/// Whether two modes of locks on one thing conflict.
fn conflict(one: &str, other: &str) -> bool {
    let mut modes = CONFLICTS.iter();
    let found = modes.find(|(mode, _)| *mode == one);
    found.is_some_and(|(_, with)| with.contains(&other))
}

/// What another proxy tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub owner: String,
    pub units: String,
    /// When, by the home shard's clock: seconds since 1970.
    pub at: f64,
}

impl Control {
    /// Tells the other proxies what this one, `owner`, knows, which lapses after so many seconds; hears what
    /// those tell whose names begin as `prefix`. Returns when that was as well, by the home shard's clock.
    ///
    /// # Errors
    /// Why the home shard could not be asked, or told.
    ///
    /// # Cancel safety
    /// Safe: it is told or not.
    pub async fn exchange_waits(
        &self,
        database: &str,
        (prefix, owner): (&str, &str),
        units: &str,
        lapses: f64,
    ) -> Result<(f64, Vec<Told>), Fault> {
        let home = self.database(database)?.home.clone();
        let mut connection = self.pool(database, &home)?.connect().await?;
        let mut told = connection.rows(TELL, &[&owner, &units, &lapses]).await;
        if told.is_err() && make(&mut connection).await? {
            told = connection.rows(TELL, &[&owner, &units, &lapses]).await;
        }
        let now = column(told?.first(), 0)?;
        let rows = connection.rows(HEAR, &[&prefix, &owner]).await?;
        let read = |row| {
            let row = Some(row);
            Ok(Told {
                owner: column(row, 0)?,
                units: column(row, 1)?,
                at: column(row, 2)?,
            })
        };
        let heard: Result<Vec<Told>, Fault> = rows.iter().map(read).collect();
        Ok((now, heard?))
    }

    /// This proxy has nothing to tell any more.
    ///
    /// # Errors
    /// Why the home shard could not be told: what was told lapses.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn withdraw_waits(&self, database: &str, owner: &str) -> Result<(), Fault> {
        let home = self.database(database)?.home.clone();
        let mut connection = self.pool(database, &home)?.connect().await?;
        connection.rows(WITHDRAW, &[&owner]).await.map(drop)
    }

    /// The table that proxies tell each other by, made unless it is there. Returns whether it was not.
    ///
    /// # Errors
    /// What kept the control role from making it.
    ///
    /// # Cancel safety
    /// Safe: it is made or not.
    pub async fn make_waiting(&self, database: &str) -> Result<bool, Fault> {
        let home = self.database(database)?.home.clone();
        let mut connection = self.pool(database, &home)?.connect().await?;
        make(&mut connection).await
    }

    /// Who waits for a lock on a shard, and for whom.
    ///
    /// # Errors
    /// Why it could not be asked.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn lock_waits(&self, database: &str, shard: &str) -> Result<Vec<LockWait>, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection.rows(WAITS, &[]).await?;
        let mut waits = Vec::with_capacity(rows.len());
        let mut by_prepared = false;
        for row in &rows {
            let row = Some(row);
            let pids: Vec<i32> = column(row, 3)?;
            by_prepared |= pids.contains(&0);
            let mut pids: Vec<i32> = pids.into_iter().filter(|pid| *pid != 0).collect();
            pids.sort_unstable();
            pids.dedup();
            waits.push(LockWait {
                shard: shard.to_owned(),
                pid: column(row, 0)?,
                since: column(row, 1)?,
                what: column(row, 2)?,
                blockers: pids.into_iter().map(Blocker::Process).collect(),
            });
        }
        if !by_prepared {
            return Ok(waits);
        }
        let mut prepared: BTreeMap<i32, Vec<Blocker>> = BTreeMap::new();
        for row in &connection.rows(PREPARED, &[]).await? {
            let row = Some(row);
            let (wanted, holds): (&str, &str) = (column(row, 1)?, column(row, 2)?);
            if conflict(wanted, holds) {
                let blocker = Blocker::Prepared(column(row, 3)?);
                prepared.entry(column(row, 0)?).or_default().push(blocker);
            }
        }
        for wait in &mut waits {
            wait.blockers
                .extend(prepared.remove(&wait.pid).unwrap_or_default());
            wait.blockers.sort();
        }
        Ok(waits)
    }
}

/// Returns whether it had to be made.
async fn make(connection: &mut Connection<'_>) -> Result<bool, Fault> {
    let rows = connection.rows(IS_MADE, &[&VERSION]).await?;
    if column(rows.first(), 0)? {
        return Ok(false);
    }
    make_schema(connection).await?;
    let sql = format!("BEGIN; {MAKE_LOCK}; {MAKE} COMMIT");
    let made = connection.batch(&sql, super::QUERY_TIMEOUT).await;
    made.map(|()| true).map_err(|fault| {
        fault.hint(
            "Let the control role create in schema pgherd, or run pgherd setup with one that may.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{CONFLICTS, conflict};

    #[test]
    fn conflicts_are_mutual_and_those_of_the_documentation() {
        for (one, _) in CONFLICTS {
            for (other, _) in CONFLICTS {
                assert_eq!(conflict(one, other), conflict(other, one), "{one} {other}");
            }
        }
        let pairs: usize = CONFLICTS.iter().map(|(_, with)| with.len()).sum();
        // https://www.postgresql.org/docs/current/explicit-locking.html, table 13.2: its crosses.
        assert_eq!(pairs, 38);
        assert!(conflict("ShareLock", "ExclusiveLock"));
        assert!(!conflict("ShareLock", "ShareLock"));
    }
}
