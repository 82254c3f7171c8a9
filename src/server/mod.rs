//! Connections to PostgreSQL servers: opening, logging in, cancelling.

pub mod auth;
pub mod connect;
