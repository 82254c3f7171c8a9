//! Where cross-shard queries are finished: the gather servers, and the twins of a database on them.

use std::time::Duration;

use super::{Config, Database, Host, TableKind};
use crate::types::hash;

/// Bytes of an identifier in PostgreSQL: `NAMEDATALEN` less one.
const IDENTIFIER_MAX: usize = 63;

/// What bounds queries that are finished on a gather server, and where those are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Empty: the server of each database's home shard. Their `dbname` is empty.
    pub servers: Vec<Host>,
    /// Twins of each database on each of the servers.
    pub twins: usize,
    /// Rows that one query may fetch.
    pub max_rows: u64,
    /// Bytes that one query may fetch.
    pub max_bytes: u64,
    /// Rows of a table that one query may expect before it fetches only those with a partner in a smaller one.
    pub narrow_above: u64,
    /// How long one query may take; zero is no limit.
    pub timeout: Duration,
}

impl Default for Gather {
    fn default() -> Gather {
        Gather {
            servers: Vec::new(),
            twins: 4,
            max_rows: 10_000_000,
            max_bytes: 1 << 30,
            narrow_above: 500,
            timeout: Duration::from_mins(1),
        }
    }
}

/// An empty copy of a database's schema, where one query at a time runs over rows fetched for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Twin {
    /// `twin_1` and so on: unique in its database.
    pub name: String,
    /// Its server, and its own database there.
    pub host: Host,
}

impl Config {
    /// The twins of a database, in an order that visits each gather server in turn. None where no query
    /// crosses shards: the database has one shard, or no sharded table.
    pub fn twins(&self, database: &Database) -> Vec<Twin> {
        let sharded = |kind: &TableKind| match kind {
            TableKind::Sharded { .. } => true,
            TableKind::Reference | TableKind::Single => false,
        };
        if database.shards.len() < 2 || !database.tables.iter().any(|table| sharded(&table.kind)) {
            return Vec::new();
        }
        let home = database
            .shards
            .iter()
            .filter(|shard| shard.name == database.home)
            .map(|shard| &shard.primary);
        let mut servers: Vec<&Host> = self.gather.servers.iter().collect();
        if servers.is_empty() {
            servers.extend(home);
        }
        let turns = (0..self.gather.twins).flat_map(|_| servers.iter());
        turns
            .enumerate()
            .map(|(index, server)| {
                let name = format!("twin_{}", index.saturating_add(1));
                let host = Host {
                    dbname: dbname(&self.name, &database.name, &name),
                    ..(*server).clone()
                };
                Twin { name, host }
            })
            .collect()
    }
}

/// The database of a twin; a hash stands for the end of a name that is too long.
fn dbname(deployment: &str, database: &str, twin: &str) -> String {
    let whole = format!("pgherd_{deployment}_{database}_{twin}");
    if whole.len() <= IDENTIFIER_MAX {
        return whole;
    }
    let hash = hash::bytes(database.as_bytes(), hash::PARTITION_SEED);
    let end = format!("_{hash:016x}_{twin}");
    let mut begin = format!("pgherd_{deployment}_{database}");
    while begin.len().saturating_add(end.len()) > IDENTIFIER_MAX {
        begin.pop();
    }
    begin + &end
}

#[cfg(test)]
mod tests {
    use super::dbname;

    #[test]
    fn long_names_are_shortened_and_stay_apart() {
        assert_eq!(dbname("herd", "shop", "twin_1"), "pgherd_herd_shop_twin_1");
        let long = "é".repeat(31);
        let (one, other) = (
            dbname("herd", &format!("{long}a"), "twin_12"),
            dbname("herd", &format!("{long}b"), "twin_12"),
        );
        for name in [&one, &other] {
            assert!(name.len() <= 63, "{name}");
            assert!(name.starts_with("pgherd_herd_éé") && name.ends_with("_twin_12"));
        }
        assert_ne!(one, other);
    }
}
