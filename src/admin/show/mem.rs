//! SHOW MEM: what the engines hold of each kind, and its bytes.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "mem",
    about: "What the engines hold of each kind, and its bytes.",
    columns: &[
        text("name"),
        int4("size"),
        int4("used"),
        int4("free"),
        int4("memtotal"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.memory.iter().map(|row| {
        let total = row.used.saturating_add(row.free).saturating_mul(row.size);
        vec![
            Cell::from(&row.name),
            Cell::from(row.size),
            Cell::from(row.used),
            Cell::from(row.free),
            Cell::from(total),
        ]
    });
    row.collect()
}
