//! SHOW ERRORS: how often each SQLSTATE was met, and from whom.

use crate::admin::answer::{Cell, int8, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "errors",
    about: "How often each SQLSTATE was met since start, by who raised it.",
    columns: &[text("code"), text("origin"), text("shard"), int8("count")],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.errors.iter().map(|error| {
        let shard = if error.shard.is_empty() {
            Cell::Null
        } else {
            Cell::from(&error.shard)
        };
        vec![
            Cell::from(&error.code),
            Cell::from(error.origin),
            shard,
            Cell::from(error.count),
        ]
    });
    row.collect()
}
