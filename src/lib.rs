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
pub mod error;

pub mod types;

pub mod wire;

pub mod sql;

pub mod config;

// Floor 1: decisions. Pure: what should happen.
pub mod placement;

pub mod merge;

pub mod planner;

// Floor 2: resources. Sockets and memory with limits.
pub mod metrics;

pub mod tls;

pub mod net;

pub mod control;

pub mod server;

// Floor 3: conversations. Carry decisions out.
pub mod execute;

pub mod session;

// Floor 4: operation. Everything a person runs.
pub mod admin;

pub mod proxy;

pub mod demo;

pub mod cli;
