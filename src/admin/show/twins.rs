//! SHOW TWINS: the databases where queries over several shards are finished, and what they do.

use crate::admin::answer::{Cell, int4, int8, text};
use crate::admin::show::{Show, View};
use crate::config::{Database, Twin};
use crate::metrics::view::{Detail, TwinRow};

pub(super) const SHOW: Show = Show {
    name: "twins",
    about: "The databases where queries over several shards are finished, and what they do.",
    columns: &[
        text("database"),
        text("twin"),
        text("host"),
        int4("port"),
        text("dbname"),
        text("state"),
        text("user"),
        text("phase"),
        int8("rows"),
        int8("bytes"),
        int8("since"),
        int8("age"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let databases = view.config.databases.values();
    let twins = databases.flat_map(|database| {
        let twins = view.config.twins(database).into_iter();
        twins.map(move |twin| (database, twin))
    });
    twins
        .map(|(database, twin)| row(view, database, &twin))
        .collect()
}

fn row(view: &View<'_>, database: &Database, twin: &Twin) -> Vec<Cell> {
    let is_it = |row: &&TwinRow| row.database == database.name && row.twin == twin.name;
    let now = view.snapshot.twins.iter().find(is_it);
    let now = now.cloned().unwrap_or_default();
    let seconds = |time: Option<std::time::Duration>| {
        time.map_or(Cell::Null, |time| Cell::from(time.as_secs()))
    };
    vec![
        Cell::from(&database.name),
        Cell::from(&twin.name),
        Cell::from(&twin.host.host),
        Cell::from(twin.host.port),
        Cell::from(&twin.host.dbname),
        Cell::from(now.state.as_str()),
        Cell::from(now.user),
        Cell::from(now.phase.map(str::to_owned)),
        Cell::from(now.rows),
        Cell::from(now.bytes),
        seconds(now.since),
        seconds(now.age),
    ]
}
