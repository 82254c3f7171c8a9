//! The gate between commits on several shards and reads that are to see each of these whole.
//!
//! It is the lock of a table without rows, `pgherd.gate`, on each shard. Commits take it in SHARE mode, reads in ROW
//! EXCLUSIVE mode: each mode agrees with itself and excludes the other, and PostgreSQL's queue is fair.
//!
//! # Why no commit is seen in half
//! A commit in two phases takes the lock within each participant's own transaction (`pgherd.decide`,
//! `pgherd.enter`), on all of them before it commits on any, and each keeps it until its part is committed or rolled
//! back: a prepared transaction keeps its locks, whatever becomes of the proxy, the connection and the server. A read
//! takes the lock on all of its shards; from the moment at which it has them all, on each shard by itself, it takes a
//! snapshot and then gives the lock up. At that moment no commit holds the lock on any of these shards. So each commit
//! has ended on all of those it shares with the read, and all snapshots see it; or it has the lock on none of them
//! yet, will get it on each only after the snapshot there was taken, commits nowhere before it has it everywhere, and
//! no snapshot sees it. Nothing of this depends on who runs, on which proxy, or on time. A commit that recovery is
//! to end keeps such reads waiting, and is never seen in half.
//!
//! A transaction that wrote on one shard passes no gate: one snapshot of that shard sees it whole or not. (Two such
//! transactions on different shards, one after the other, may still be seen the later without the
//! earlier, where both commit while the snapshots are taken.)
//!
//! # Why all come through
//! The locks of several shards, taken at once, could be waited for in a circle. So both first pass the home shard's: a
//! read by its own connection there, a commit by that of its decider where that is on the home shard, else by a control
//! connection, which is what this module keeps. Who has it meets on the other shards only commits that
//! are past their decision, which wait for nobody, and those of a proxy that is gone. A read that has to wait gives
//! all of its locks up after a short while and begins again, so that it does not keep commits waiting for what
//! it waits for itself. That a commit has the home shard's lock is for progress alone: where the home shard is
//! out of reach, commits go on without it.
//!
//! One connection holds it for all commits of a proxy that begin within a few milliseconds; the next ones
//! queue behind reads that have come meanwhile.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::runtime::Handle;

use super::Control;
use crate::error::{Fault, SqlState};

/// How long others may join a commit that holds the gate.
const SHARED_FOR: Duration = Duration::from_millis(5);

/// How long giving the gate up may take before its connection is closed instead.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection whose proxy does not answer any more may hold it.
const ABANDONED: &str = "5min";

/// What holds the gate of a database's home shard for the commits of this process.
#[derive(Debug, Default)]
pub struct Gate(tokio::sync::Mutex<Option<Weak<Held>>>);

/// A commit's hold on the gate; given up with the last clone.
#[derive(Clone, Debug)]
pub struct Hold(#[expect(dead_code, reason = "what counts is that it is there")] Arc<Held>);

#[derive(Debug)]
struct Held {
    object: Option<Object>,
    since: Instant,
    runtime: Handle,
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(object) = self.object.take() else {
            return;
        };
        self.runtime.spawn(async move {
            let ended = object.batch_execute("ROLLBACK");
            if !matches!(tokio::time::timeout(RELEASE_LIMIT, ended).await, Ok(Ok(()))) {
                drop(Object::take(object));
            }
        });
    }
}

/// How commits of a database come to hold the gate.
#[derive(Clone, Debug)]
pub struct Keeper {
    pub runtime: Handle,
    pub gate: Arc<Gate>,
    pub control: Arc<Control>,
    pub database: String,
    /// The shard whose gate it is.
    pub home: String,
    /// How long it may take; zero is no limit.
    pub wait: Duration,
}

impl Keeper {
    /// Holds the gate; `None` where it could not be had, which is logged: the commit may go on without it.
    ///
    /// # Cancel safety
    /// Safe: it is given up again.
    pub async fn hold(&self) -> Option<Hold> {
        let keeper = self.clone();
        let held = self.runtime.spawn(async move { keeper.take().await }).await;
        match held {
            Ok(Ok(hold)) => Some(hold),
            Ok(Err(fault)) => {
                tracing::warn!(error = %fault, "a commit goes on without the home shard's gate");
                None
            }
            Err(error) => {
                tracing::error!(%error, "taking the home shard's gate failed");
                None
            }
        }
    }

    async fn take(&self) -> Result<Hold, Fault> {
        // Who comes while it is waited for shares it.
        let mut current = self.gate.0.lock().await;
        let known = current.as_ref().and_then(Weak::upgrade);
        if let Some(held) = known.filter(|held| held.since.elapsed() < SHARED_FOR) {
            return Ok(Hold(held));
        }
        let object = self
            .control
            .hold_gate(&self.database, &self.home, self.wait)
            .await?;
        let held = Arc::new(Held {
            object: Some(object),
            since: Instant::now(),
            runtime: self.runtime.clone(),
        });
        *current = Some(Arc::downgrade(&held));
        Ok(Hold(held))
    }
}

impl Control {
    /// A connection with a transaction that holds the gate of the home shard as commits do.
    async fn hold_gate(&self, database: &str, home: &str, wait: Duration) -> Result<Object, Fault> {
        let herd = self.databases.get(database);
        let pool = match herd.and_then(|herd| herd.gate.as_ref()) {
            Some(pool) => pool,
            None => self.pool(database, home)?,
        };
        let mut connection = pool.connect().await?;
        let sql = format!(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{ABANDONED}'; \
             SET LOCAL lock_timeout = {}; LOCK TABLE pgherd.gate IN SHARE MODE",
            wait.as_millis()
        );
        let limit = if wait.is_zero() {
            Duration::MAX
        } else {
            wait.saturating_mul(2)
        };
        connection.batch(&sql, limit).await?;
        connection
            .into_object()
            .ok_or_else(|| Fault::error(SqlState::INTERNAL, "the gate's connection is gone"))
    }
}
