//! To be filled.

pub mod copy;
