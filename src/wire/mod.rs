//! The PostgreSQL protocol 3.0 and 3.2 as bytes: what a message says, and how ours are written.

pub mod backend;
pub mod cancel_key;
pub mod frontend;
pub mod scram;
pub mod startup;
