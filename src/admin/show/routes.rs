//! SHOW ROUTES: which statements run, and where: the most frequent first.

use std::collections::BTreeMap;

use crate::admin::answer::{Cell, int8, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::{Detail, RouteRow};
use crate::planner::tally::Way;

pub(super) const SHOW: Show = Show {
    name: "routes",
    about: "The statements without their constants, where they ran and how often; times in microseconds.",
    columns: &[
        text("database"),
        text("route"),
        int8("count"),
        int8("total_time"),
        int8("mean_time"),
        text("last"),
        text("statement"),
    ],
    needs: Some(Detail::Routes),
    rows,
};

/// Statements that are shown; the rest of each database and route is one row.
const SHOWN_MAX: usize = 1_000;

/// Stands for all statements that are not shown.
const OTHERS: &str = "(others)";

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let mut routes: Vec<&RouteRow> = view.snapshot.routes.iter().collect();
    routes.sort_by_key(|route| std::cmp::Reverse(route.count));
    let mut shown = Vec::new();
    let mut others: BTreeMap<(&str, Way), RouteRow> = BTreeMap::new();
    for route in routes {
        if route.statement.is_some() && shown.len() < SHOWN_MAX {
            shown.push(row(route));
            continue;
        }
        let known = others.entry((&route.database, route.way));
        let sum = known.or_insert_with(|| RouteRow::others(&route.database, route.way));
        sum.add(route);
    }
    shown.extend(others.values().map(row));
    shown
}

fn row(route: &RouteRow) -> Vec<Cell> {
    let mean = route.micros.checked_div(route.timed);
    let last = match &route.statement {
        Some(_) if !route.last.is_empty() => Cell::from(&route.last),
        Some(_) | None => Cell::Null,
    };
    vec![
        Cell::from(&route.database),
        Cell::from(route.way.as_str()),
        Cell::from(route.count),
        Cell::from(route.micros),
        mean.map_or(Cell::Null, Cell::from),
        last,
        Cell::from(route.statement.clone().unwrap_or_else(|| OTHERS.to_owned())),
    ]
}
