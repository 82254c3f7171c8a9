//! Connections to PostgreSQL servers and the pools they live in.
//!
//! Engine-local: nothing here crosses a thread but the budgets, which are atomic counters.

pub mod auth;
pub mod connect;
pub mod connection;
pub mod hidden;
pub mod pool;
pub mod settings;
pub mod statements;
