//! What the cache counts, as counters that only grow.

use super::catalogue::Metric;
use super::view::CacheRow;
use super::{Metrics, lock};

impl Metrics {
    /// Adds what was counted since the last time.
    pub(super) fn observe_cache(&self, rows: &[CacheRow]) {
        let mut known = lock(&self.cache);
        for row in rows {
            let name = (row.database.clone(), row.table.clone());
            let last = known.entry(name).or_default();
            self.add_cache(last, row);
            last.clone_from(row);
        }
    }

    fn add_cache(&self, last: &CacheRow, row: &CacheRow) {
        let table = row.table.as_str();
        let requests = [
            ("process", "hit", last.hits, row.hits),
            ("redis", "hit", last.redis_hits, row.redis_hits),
            ("", "miss", last.misses, row.misses),
            ("", "bypass", bypasses(last), bypasses(row)),
        ];
        for (level, outcome, before, now) in requests {
            let labels = [level, table, outcome];
            self.add(Metric::CacheRequests, &labels, now.saturating_sub(before));
        }
        for (reason, now) in &row.bypasses {
            let mut before = last.bypasses.iter();
            let before = before.find(|(known, _)| known == reason);
            let new = now.saturating_sub(before.map_or(0, |(_, count)| *count));
            self.add(Metric::CacheBypass, &[table, reason], new);
        }
        let fills = [
            ("kept", last.fills, row.fills),
            ("refused", last.unfilled, row.unfilled),
        ];
        for (outcome, before, now) in fills {
            self.add(
                Metric::CacheFills,
                &[table, outcome],
                now.saturating_sub(before),
            );
        }
        let audits = [
            ("checked", last.audited, row.audited),
            ("stale", last.found_stale, row.found_stale),
        ];
        for (outcome, before, now) in audits {
            let labels = [table, outcome];
            self.add(Metric::CacheAudits, &labels, now.saturating_sub(before));
        }
        let sources = [
            ("client", last.writes, row.writes),
            ("channel", last.events, row.events),
            ("feed", last.changes, row.changes),
            ("purge", last.purges, row.purges),
        ];
        for (source, before, now) in sources {
            self.add(
                Metric::CacheInvalidations,
                &[source],
                now.saturating_sub(before),
            );
        }
        self.add(
            Metric::CacheStaleServed,
            &[],
            row.stale.saturating_sub(last.stale),
        );
    }
}

fn bypasses(row: &CacheRow) -> u64 {
    row.bypasses.iter().map(|(_, count)| *count).sum()
}
