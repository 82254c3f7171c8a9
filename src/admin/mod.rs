//! What operators use: the console, HTTP, and the set-up of logs.
//!
//! Everything here asks the running proxy through [`herd::Herd`] and knows nothing of engines. A
//! new SHOW is one file in `show/`, one line in its registry and one golden.

pub mod answer;
pub mod command;
pub mod console;
pub mod conversation;
pub mod environment;
pub mod extended;
#[cfg(test)]
mod fixture;
pub mod herd;
pub mod http;
pub mod lexer;
pub mod log;
pub mod message;
pub mod show;
#[cfg(test)]
mod tests;
