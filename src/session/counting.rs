//! What an engine counts as its clients work.

use crate::error::Fault;
use crate::metrics::catalogue::{Origin, RouteLabel, SharedOutcome};
use crate::metrics::counters::DatabaseCounters;
use crate::placement::ShardId;

use super::engine::{Database, Engine};

impl Engine {
    fn with_counters(&self, database: &Database, count: impl FnOnce(&mut DatabaseCounters)) {
        if let Some(counters) = self.counters.borrow_mut().databases.get_mut(database.index) {
            count(counters);
        }
    }

    pub(crate) fn count_query(&self, database: &Database, shard: Option<ShardId>) {
        let shard = shard.map(|shard| usize::from(shard.0));
        self.with_counters(database, |counters| {
            counters.sent(RouteLabel::Single, shard);
        });
    }

    pub(crate) fn count_route(&self, database: &Database, route: RouteLabel, micros: u64) {
        self.with_counters(database, |counters| {
            counters.sent(route, None);
            counters.timed(route, None, micros);
        });
    }

    pub(crate) fn count_parse(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.client_parse_count = counters.totals.client_parse_count.wrapping_add(1);
        });
    }

    pub(crate) fn count_server_parse(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.server_parse_count = counters.totals.server_parse_count.wrapping_add(1);
        });
    }

    pub(crate) fn count_bind(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.bind_count = counters.totals.bind_count.wrapping_add(1);
        });
    }

    /// A Bind and its Execute on one shard, and the Parse before them.
    pub(crate) fn count_group(&self, database: &Database, shard: ShardId, parsed: bool) {
        self.with_counters(database, |counters| {
            counters.sent(RouteLabel::Single, Some(usize::from(shard.0)));
            let totals = &mut counters.totals;
            totals.bind_count = totals.bind_count.wrapping_add(1);
            totals.client_parse_count = totals.client_parse_count.wrapping_add(u64::from(parsed));
        });
    }

    /// A read that went behind another client's, or was turned away from there.
    pub(crate) fn count_shared(&self, database: &Database, shard: ShardId, outcome: SharedOutcome) {
        self.with_counters(database, |counters| {
            if let Some(shard) = counters.shards.get_mut(usize::from(shard.0)) {
                shard.shared(outcome);
            }
        });
    }

    pub(crate) fn count_bytes(&self, database: &Database, received: usize, sent: usize) {
        self.with_counters(database, |counters| {
            let totals = &mut counters.totals;
            totals.bytes_received = totals
                .bytes_received
                .wrapping_add(u64::try_from(received).unwrap_or(0));
            totals.bytes_sent = totals
                .bytes_sent
                .wrapping_add(u64::try_from(sent).unwrap_or(0));
        });
    }

    pub(crate) fn count_fault(&self, fault: &Fault) {
        self.counters.borrow_mut().fault(Origin::Proxy, fault.code);
    }

    pub(crate) fn count_server_error(
        &self,
        database: &Database,
        shard: Option<ShardId>,
        code: &[u8],
    ) {
        self.counters.borrow_mut().error(Origin::Server, code);
        self.with_counters(database, |counters| {
            let shard = shard.map(|shard| usize::from(shard.0));
            if let Some(shard) = shard.and_then(|index| counters.shards.get_mut(index)) {
                shard.errors.add(code);
            }
        });
    }

    pub(crate) fn count_out_of_sync(&self) {
        self.counters.borrow_mut().out_of_sync.add(1);
    }

    /// The place of a database's counters; made when it is new.
    pub(crate) fn counters_index(&self, name: &str, shards: &[String]) -> usize {
        let mut counters = self.counters.borrow_mut();
        let names: Vec<&str> = shards.iter().map(String::as_str).collect();
        let known = counters.databases.iter().position(|database| {
            database.name == name
                && database
                    .shards
                    .iter()
                    .map(|shard| shard.name.as_str())
                    .eq(names.iter().copied())
        });
        known.unwrap_or_else(|| {
            counters.databases.push(DatabaseCounters::new(name, names));
            counters.databases.len().saturating_sub(1)
        })
    }

    pub(crate) fn count_client(&self, database: &str, came: bool) {
        let mut counters = self.counters.borrow_mut();
        if let Some(counters) = counters
            .databases
            .iter_mut()
            .find(|known| known.name == database)
        {
            let count = if came {
                &mut counters.clients_opened
            } else {
                &mut counters.clients_closed
            };
            count.add(1);
        }
    }
}
