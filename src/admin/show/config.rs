//! SHOW CONFIG: every key with its value and default.

use crate::admin::answer::{Cell, text};
use crate::admin::show::{Show, View};

pub(super) const SHOW: Show = Show {
    name: "config",
    about: "The settings, their defaults, and whether a reload applies them.",
    columns: &[
        text("key"),
        text("value"),
        text("default"),
        text("changeable"),
    ],
    needs: None,
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let settings = view.config.settings.iter();
    let row = settings.map(|setting| {
        vec![
            Cell::from(&setting.key),
            Cell::from(&setting.value),
            Cell::from(&setting.default),
            Cell::from(if setting.reloadable { "yes" } else { "no" }),
        ]
    });
    row.collect()
}
