//! Everything that is tested against real PostgreSQL servers, in one binary.
//!
//! The clusters, the proxy and the raw client come first; each later module tests one promise. Slow
//! and long runs are chosen by environment variables at run time: `FAULT_SECONDS`, `SLOW_TESTS`,
//! `CASES` and `SEED`. A failure prints the seed that repeats it.

mod cancelling;
mod client;
mod constraints;
mod control;
mod copy_rows;
mod copying;
mod corners;
mod corpus;
mod differential;
mod directories;
mod enum_keys;
mod everywhere;
mod executing;
mod failed_blocks;
mod faults;
mod fixture;
mod functions;
mod gathering;
mod generated;
mod groups;
mod handshake;
mod hashes;
mod herd;
mod hostile;
mod hostile_servers;
mod ids;
mod inserting;
mod kinds;
mod leaks;
mod leaving;
mod listening;
mod load;
mod logins;
mod lookups;
mod memory;
mod merging;
mod message;
mod oids;
mod operating;
mod partials;
mod partitions;
mod piles;
mod pipelines;
mod placement;
mod pooling;
mod postgres;
mod proofs;
mod random;
mod reads;
mod refusals;
mod routes;
mod routing;
mod search_paths;
mod shapes;
mod shared;
mod sharing;
mod statistics;
mod tenants;
mod transcript;
mod twins;
mod values;
mod views;
