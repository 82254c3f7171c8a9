//! PostgreSQL's types as far as routing needs them: object ids, hashes and key values.

#![warn(clippy::arithmetic_side_effects)]

pub mod hash;
pub mod key;
mod literal;
pub mod numeric;
pub mod oid;
pub mod oids;
pub mod time;
