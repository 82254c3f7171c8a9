//! The SHOW commands: one file each, one line in [`SHOWS`].
//!
//! PgBouncer's columns come first, with its names, types and order (1.25's; columns that its 1.18 has
//! too keep their names), ours after. Rows are made from a [`View`] alone, so that each SHOW is
//! tested by its golden in `tests/golden/show/`.

mod active_sockets;
mod cache;
mod clients;
mod config;
mod databases;
mod distributions;
mod dns_hosts;
mod dns_zones;
mod errors;
mod help;
mod lists;
mod mem;
mod peer_pools;
mod peers;
mod pools;
mod prepared_transactions;
mod routes;
mod servers;
mod shards;
mod sockets;
mod state;
mod stats;
mod stats_averages;
mod stats_totals;
mod tables;
mod tenants;
#[cfg(test)]
mod tests;
mod totals;
mod twins;
mod users;
mod version;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::answer::{Cell, Column};
use crate::config::{Config, PoolMode};
use crate::error::{Fault, SqlState};
use crate::metrics::view::{Address, Detail, Snapshot};

/// What rows are made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub config: &'a Config,
    pub snapshot: &'a Snapshot,
}

/// One SHOW command.
#[derive(Debug)]
pub struct Show {
    /// Lower case.
    pub name: &'static str,
    /// A sentence for SHOW HELP.
    pub about: &'static str,
    pub columns: &'static [Column],
    /// How much of the engines it needs; `None` asks them nothing.
    pub needs: Option<Detail>,
    pub rows: fn(&View<'_>) -> Vec<Vec<Cell>>,
}

/// Every SHOW, in the order of SHOW HELP.
pub static SHOWS: &[&Show] = &[
    &help::SHOW,
    &config::SHOW,
    &databases::SHOW,
    &pools::SHOW,
    &clients::SHOW,
    &servers::SHOW,
    &users::SHOW,
    &shards::SHOW,
    &twins::SHOW,
    &prepared_transactions::SHOW,
    &tables::SHOW,
    &cache::SHOW,
    &tenants::SHOW,
    &distributions::SHOW,
    &routes::SHOW,
    &errors::SHOW,
    &stats::SHOW,
    &stats_totals::SHOW,
    &stats_averages::SHOW,
    &totals::SHOW,
    &lists::SHOW,
    &version::SHOW,
    &state::SHOW,
    &mem::SHOW,
    &dns_hosts::SHOW,
    &dns_zones::SHOW,
    &sockets::SHOW,
    &active_sockets::SHOW,
    &peers::SHOW,
    &peer_pools::SHOW,
];

/// Names that later releases will answer.
const NOT_YET: &[&str] = &["buckets", "replicas", "reshard", "transactions"];

/// The SHOW of this name, in any case.
pub fn find(name: &str) -> Option<&'static Show> {
    SHOWS
        .iter()
        .copied()
        .find(|show| show.name.eq_ignore_ascii_case(name))
}

/// Says why a known name is not answered; any other name passes.
pub fn refused(name: &str) -> Result<(), Fault> {
    let upper = name.to_uppercase();
    if name.eq_ignore_ascii_case("fds") {
        return Err(Fault::error(SqlState::FEATURE_NOT_SUPPORTED, "SHOW FDS is not supported")
            .detail("It served PgBouncer's hand-over of sockets to a new process, and shows cancel keys.")
            .hint("Use SHOW SOCKETS."));
    }
    if NOT_YET.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Err(Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("SHOW {upper} is not there yet"),
        )
        .detail("What it would show belongs to a later release.")
        .hint("Use SHOW HELP for what the console knows."));
    }
    Ok(())
}

/// The config's word for a pool mode.
fn pool_mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Transaction => "transaction",
        PoolMode::Session => "session",
        PoolMode::Statement => "statement",
    }
}

/// The columns `addr` and `port` of an end of a socket.
fn address(address: Address) -> (Cell, Cell) {
    match address {
        Address::Ip(ip, port) => (Cell::from(ip.to_string()), Cell::from(port)),
        Address::Unix(port) => (Cell::from("unix"), Cell::from(port)),
        Address::Unknown => (Cell::from(""), Cell::Int(0)),
    }
}

/// The columns `wait` and `wait_us`: seconds, and the microseconds beyond them.
fn wait(time: Duration) -> (Cell, Cell) {
    (Cell::from(time.as_secs()), Cell::from(time.subsec_micros()))
}

/// A time as PgBouncer prints it, in UTC: `2026-11-20 20:57:35 UTC`.
fn timestamp(time: SystemTime) -> Cell {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days from civil, inverted: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    Cell::from(format!(
        "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
    ))
}
