//! Other poolers' configurations as pgherd's.

mod entries;
mod ini;
mod pgbouncer;
mod settings;

pub use pgbouncer::pgbouncer;
