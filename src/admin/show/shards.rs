//! SHOW SHARDS: where each shard is, whether it answers, and what it does.

use crate::admin::answer::{Cell, int4, int8, text};
use crate::admin::show::{Show, View};
use crate::config::{Database, Shard};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "shards",
    about: "The shards, whether they answer, and what they do.",
    columns: &[
        text("database"),
        text("shard"),
        int4("home"),
        text("state"),
        text("host"),
        int4("port"),
        text("dbname"),
        int4("replicas"),
        int4("sv_active"),
        int4("sv_idle"),
        int4("sv_login"),
        int4("cl_waiting"),
        int8("statements"),
        int8("errors"),
        text("reason"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let databases = view.config.databases.values();
    let shards =
        databases.flat_map(|database| database.shards.iter().map(move |shard| (database, shard)));
    shards
        .map(|(database, shard)| row(view, database, shard))
        .collect()
}

fn row(view: &View<'_>, database: &Database, shard: &Shard) -> Vec<Cell> {
    let is_mine = |name: &str, of: &str| name == shard.name && of == database.name;
    let now = view
        .snapshot
        .shards
        .iter()
        .find(|row| is_mine(&row.shard, &row.database));
    let now = now.cloned().unwrap_or_default();
    let pools = view
        .snapshot
        .pools
        .iter()
        .filter(|pool| is_mine(&pool.shard, &pool.database));
    let counts = pools.fold([0_u64; 4], |[active, idle, login, waiting], pool| {
        [
            active + pool.sv_active,
            idle + pool.sv_idle + pool.sv_used,
            login + pool.sv_login,
            waiting + pool.cl_waiting,
        ]
    });
    let mut row = vec![
        Cell::from(&database.name),
        Cell::from(&shard.name),
        Cell::from(shard.name == database.home),
        Cell::from(if now.down.is_none() { "up" } else { "down" }),
        Cell::from(&shard.primary.host),
        Cell::from(shard.primary.port),
        Cell::from(&shard.primary.dbname),
        Cell::from(shard.replicas.len()),
    ];
    row.extend(counts.map(Cell::from));
    row.extend([
        Cell::from(now.statements),
        Cell::from(now.errors),
        Cell::from(now.down),
    ]);
    row
}
