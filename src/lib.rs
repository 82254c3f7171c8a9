//! pgherd makes a herd of plain PostgreSQL servers look like one.
//!
//! The order of the modules below is the law: a module uses only the modules above it.

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
pub mod config;
pub mod error;
pub mod sql;
pub mod types;
pub mod wire;
// Floor 1: decisions. Pure: what should happen.
pub mod merge;
pub mod placement;
pub mod planner;
// Floor 2: resources. Sockets and memory with limits.
pub mod control;
pub mod metrics;
pub mod net;
pub mod server;
pub mod tls;
// Floor 3: conversations. Carry decisions out.
pub mod execute;
pub mod session;
// Floor 4: operation. Everything a person runs.
pub mod admin;
pub mod cli;
pub mod demo;
pub mod proxy;
