//! SHOW CACHE: what is kept of each cached table, and what came of the reads of it.

use crate::admin::answer::{Cell, int8, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "cache",
    about: "What is kept of each cached table, and what came of reads of it.",
    columns: &[
        text("database"),
        text("table"),
        int8("entries"),
        int8("bytes"),
        int8("hits"),
        int8("redis_hits"),
        int8("misses"),
        int8("followers"),
        int8("stale"),
        int8("fills"),
        int8("unfilled"),
        int8("bypasses"),
        text("bypassed_by"),
        int8("writes"),
        int8("events"),
        int8("changes"),
        int8("purges"),
        int8("audited"),
        int8("found_stale"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let rows = view.snapshot.cache.iter().map(|row| {
        let reasons = row.bypasses.iter();
        let reasons: Vec<String> = reasons
            .map(|(reason, count)| format!("{reason}={count}"))
            .collect();
        let bypasses: u64 = row.bypasses.iter().map(|(_, count)| *count).sum();
        vec![
            Cell::from(&row.database),
            Cell::from(&row.table),
            Cell::from(row.entries),
            Cell::from(row.bytes),
            Cell::from(row.hits),
            Cell::from(row.redis_hits),
            Cell::from(row.misses),
            Cell::from(row.followers),
            Cell::from(row.stale),
            Cell::from(row.fills),
            Cell::from(row.unfilled),
            Cell::from(bypasses),
            Cell::from(reasons.join(" ")),
            Cell::from(row.writes),
            Cell::from(row.events),
            Cell::from(row.changes),
            Cell::from(row.purges),
            Cell::from(row.audited),
            Cell::from(row.found_stale),
        ]
    });
    rows.collect()
}
