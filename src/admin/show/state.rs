//! SHOW STATE: whether the proxy is active, paused or shutting down.

use crate::admin::answer::{Cell, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::{Detail, State};

pub(super) const SHOW: Show = Show {
    name: "state",
    about: "Whether the proxy is active, paused or shutting down.",
    columns: &[text("key"), text("value")],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let is = |state| {
        Cell::from(if view.snapshot.state == state {
            "yes"
        } else {
            "no"
        })
    };
    vec![
        vec![Cell::from("active"), is(State::Active)],
        vec![Cell::from("paused"), is(State::Paused)],
        vec![Cell::from("suspended"), Cell::from("no")],
        vec![Cell::from("shutting_down"), is(State::ShuttingDown)],
    ]
}
