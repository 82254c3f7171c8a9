//! SHOW STATS_AVERAGES: of SHOW STATS, the averages of the last minute.

use crate::admin::answer::{Cell, numeric, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "stats_averages",
    about: "Of SHOW STATS, the averages of the last minute.",
    columns: &[
        text("database"),
        numeric("server_assignment_count"),
        numeric("xact_count"),
        numeric("query_count"),
        numeric("bytes_received"),
        numeric("bytes_sent"),
        numeric("xact_time"),
        numeric("query_time"),
        numeric("wait_time"),
        numeric("client_parse_count"),
        numeric("server_parse_count"),
        numeric("bind_count"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.stats.iter().map(|row| {
        let values = row
            .averages
            .named()
            .into_iter()
            .map(|(_, value)| Cell::from(value));
        std::iter::once(Cell::from(&row.database))
            .chain(values)
            .collect()
    });
    row.collect()
}
