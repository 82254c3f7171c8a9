//! SHOW TOTALS: SHOW STATS of all databases together, one row a figure.

use crate::admin::answer::{Cell, numeric, text};
use crate::admin::show::{Show, View};
use crate::metrics::period::{Totals, together};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "totals",
    about: "SHOW STATS of all databases together.",
    columns: &[text("name"), numeric("value")],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let averages = together(&view.snapshot.stats);
    let totals = view.snapshot.totals();
    let named = |prefix: &'static str, totals: Totals| {
        totals.named().into_iter().map(move |(name, value)| {
            vec![
                Cell::from(format!("{prefix}_{}", pgbouncer_name(name))),
                Cell::from(value),
            ]
        })
    };
    named("total", totals)
        .chain(named("avg", averages))
        .collect()
}

/// PgBouncer calls bytes differently here.
fn pgbouncer_name(name: &'static str) -> &'static str {
    match name {
        "bytes_received" => "client_bytes",
        "bytes_sent" => "server_bytes",
        _ => name,
    }
}
