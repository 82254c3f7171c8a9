//! SHOW VERSION: the proxy's name and version.

use crate::admin::answer::{Cell, text};
use crate::admin::environment;
use crate::admin::show::{Show, View};

pub(super) const SHOW: Show = Show {
    name: "version",
    about: "The proxy's version.",
    columns: &[text("version")],
    needs: None,
    rows,
};

fn rows(_: &View<'_>) -> Vec<Vec<Cell>> {
    vec![vec![Cell::from(environment::VERSION)]]
}
