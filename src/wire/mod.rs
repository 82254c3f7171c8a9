//! The frontend/backend protocol 3.x, sans-IO: frames, and the replies a server connection owes.
//!
//! See <https://www.postgresql.org/docs/current/protocol.html>.

#![warn(clippy::arithmetic_side_effects)]

pub mod frame;
pub mod pipeline;
