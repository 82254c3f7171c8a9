//! Everything that is tested against real PostgreSQL servers, in one binary.
//!
//! The clusters, the proxy and the raw client come first; each later module tests one promise. Slow
//! and long runs are chosen by environment variables at run time: `FAULT_SECONDS`, `SLOW_TESTS`,
//! `CASES` and `SEED`. A failure prints the seed that repeats it.

mod client;
mod copying;
mod differential;
mod fixture;
mod herd;
mod leaks;
mod message;
mod placement;
mod postgres;
mod random;
mod refusals;
mod routing;
mod shared;
mod transcript;
