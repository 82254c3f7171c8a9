//! Logging in, on both sides: to real servers and hostile ones, and by real clients and hostile ones.

mod certificates;
mod clients;
mod frontend;
mod hostile;
mod raw;
mod servers;
