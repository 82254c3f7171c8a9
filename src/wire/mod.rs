//! The frontend/backend protocol 3.0 and 3.2, sans-IO: frames, what messages say, how ours are
//! written, and the replies a server connection owes.
//!
//! See <https://www.postgresql.org/docs/current/protocol.html>.

#![warn(clippy::arithmetic_side_effects)]

pub mod backend;
pub mod cancel_key;
pub mod copy;
pub mod frame;
pub mod frontend;
pub mod oids;
pub mod pgoutput;
pub mod pipeline;
pub mod scram;
pub mod startup;
