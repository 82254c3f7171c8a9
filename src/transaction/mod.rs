//! Transactions over several shards: how they are committed as one, and what is done about those that were
//! left in the middle.
//!
//! # Commit
//! A transaction that wrote on one shard is committed there, after those it only read on. One that wrote on
//! several is committed in two phases. One of the writers is the *decider*: a row with the transaction's
//! name is inserted into `pgherd.decision` in its transaction, then the others are prepared
//! (`PREPARE TRANSACTION`), then the decider commits. That commit is the commit point: the row is there
//! for everyone to see from then on, or it never will be. `COMMIT PREPARED` on the others follows, the
//! client is told, and the row goes away. [`machine`] is that protocol without I/O, [`commit`] carries it out.
//!
//! # Recovery
//! What a killed proxy or server leaves are prepared transactions, which name the transaction and its
//! decider ([`gid`]). Any proxy of the deployment ends them ([`recovery`]), and nothing but the rows decides:
//!
//! 1. For a prepared transaction past a grace age, recovery inserts the row itself, saying *abort*. The
//!    key is unique: the insertion waits for a decider whose transaction is still open, fails if it has
//!    committed, and succeeds only if its row is not there and can never be: the row was inserted before the
//!    first PREPARE was sent, so the transaction that held it has ended without committing.
//! 2. A row that says commit: `COMMIT PREPARED`. One that says abort: `ROLLBACK PREPARED`.
//! 3. A row goes away when no shard has a prepared transaction of its name left. Rows are listed before
//!    prepared transactions are: all PREPAREs of a row that can be seen had succeeded before, or, of
//!    one that says abort, are never to be committed.
//!
//! A coordinator that is slow, or wakes up after all of this, cannot undo it: its decider's transaction is
//! gone, so it cannot commit; what it prepares then is found and rolled back by a later look, since with
//! no row left the same argument holds again; and what it says to COMMIT or ROLLBACK PREPARED was done
//! already, which the server tells it. Two recoveries at once do the same things in some order. Transactions of
//! another name are never touched. The grace age keeps recovery away from what is about to end by itself;
//! nothing depends on it.
//!
//! `machine`'s tests run every interleaving of a coordinator, its death at any point, deaths of connections,
//! and recoveries.

pub mod commit;
pub mod decided;
pub mod failpoint;
pub mod gid;
pub mod machine;
#[cfg(test)]
mod model;
pub mod recovery;
