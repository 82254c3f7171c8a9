//! pgherd makes a herd of plain PostgreSQL servers look like one.
//!
//! # Floors
//! The order of the modules below is the law: a module uses only the modules above it, and
//! `tests/tidy.rs` holds it. Floors 0 and 1 are pure: no runtime, clock, randomness, files or logging;
//! those come in as arguments. Floor 2 owns sockets and memory, floor 3 speaks with clients and carries
//! decisions out, floor 4 is what a person runs.
//!
//! # Threads
//! A client lives on one *engine*: a thread with a single-threaded runtime, its own pools and its own
//! plans, so that a statement for one shard crosses no thread and takes no lock
//! ([`session::engine`]). What may wait (accepting, HTTP, the console, looking at servers) runs on a
//! small control runtime ([`proxy`], [`control`]).
//!
//! # The path of a statement
//! ```text
//! client bytes ─ wire::frame::split → session::run (one task a client; messages in order)
//!   → planner::memo: by exact text, or by the text without its literals → planner::plan::Script
//!   → planner::route (script + values of this execution) → Route
//!       Single   session::lease → server::pool: the frames go out unread; wire::pipeline notes what is owed
//!                server bytes ─ wire::frame::Reader → session::replies → the client, rows unread
//!       Concat, Broadcast, CopySplit   execute: connections of several shards, one transaction each
//!       Session  answered here (BEGIN that opens nothing, DEALLOCATE, SET pgherd.…)
//! ```
//! What a message needs first (a connection, an earlier reply) stops the reading of its client; the
//! message is looked at again when it is there.
//!
//! # Invariants
//! 1. A row of a single-shard statement is never decoded, nor allocated for.
//! 2. A statement that the planner does not wholly understand is refused, never broadcast or guessed.
//! 3. A server connection is lent to another client only idle and in sync
//!    ([`server::connection::ServerConnection::is_clean`]); any doubt closes it. Where several clients'
//!    reads are under way on one, each has it in turn, up to its own ReadyForQuery
//!    ([`server::pool::convoy`]).
//! 4. Replies reach a client in the order of its requests, those of our own included
//!    ([`wire::pipeline`]).
//! 5. Every queue, buffer and wait has a limit, which is a key of the config or a named constant.
//! 6. A commit on several shards is made in two phases ([`transaction`]); where the shards cannot, it starts only
//!    after each has carried out its part, and a failure between commits is reported as such.
//!
//! # Where one adds things
//! A placement rule: a file in [`placement`]`/rule` and a line in its registry. A SHOW: a file in
//! [`admin`]`/show`, a line in its registry, a golden. A statement kind: [`planner`], and a golden
//! plan. A route over several shards: [`execute`]. A key of the config: `config/keys`.

#![cfg_attr(
    not(test),
    warn(
        clippy::as_conversions,
        clippy::exit,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::string_slice,
        clippy::unwrap_used
    )
)]

// Floor 0: vocabulary. Pure: what things are.
pub mod error;

pub mod types;

pub mod wire;

pub mod sql;

pub mod config;

// Floor 1: decisions. Pure: what should happen.
pub mod placement;

pub mod merge;

pub mod planner;

pub mod deadlock;

// Floor 2: resources. Sockets and memory with limits.
pub mod metrics;

pub mod tls;

pub mod net;

pub mod control;

pub mod cache;

pub mod server;

// Floor 3: conversations. Carry decisions out.
pub mod transaction;

pub mod execute;

pub mod session;

// Floor 4: operation. Everything a person runs.
pub mod admin;

pub mod proxy;

pub mod demo;

pub mod cli;
