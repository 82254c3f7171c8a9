//! SHOW PREPARED_TRANSACTIONS: what the shards have prepared, ours and strangers', and what was decided of it.

use crate::admin::answer::{Cell, int8, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "prepared_transactions",
    about: "What the shards have prepared: ours with what was decided, and strangers'.",
    columns: &[
        text("database"),
        text("shard"),
        text("gid"),
        int8("age"),
        text("owner"),
        text("whose"),
        text("decider"),
        text("decision"),
    ],
    needs: Some(Detail::Prepared),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = |row: &crate::metrics::view::PreparedRow| {
        let whose = match &row.decider {
            _ if row.gid.is_empty() => "unknown",
            Some(_) => "ours",
            None => "stranger",
        };
        vec![
            Cell::from(&row.database),
            Cell::from(&row.shard),
            Cell::from(&row.gid),
            Cell::from(row.age.as_secs()),
            Cell::from(&row.owner),
            Cell::from(whose),
            Cell::from(row.decider.clone()),
            Cell::from(row.decision.clone()),
        ]
    };
    view.snapshot.prepared.iter().map(row).collect()
}
