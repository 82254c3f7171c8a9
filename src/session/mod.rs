//! One client, from accept to close.

pub mod auth;
pub mod console;
pub mod startup;
