//! SHOW DATABASES: the databases of the config, those in use through `"*"`, and the console's.
//!
//! Host, port and database are those of the home shard.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View, pool_mode};
use crate::config::{Database, Fallback, Listen};
use crate::metrics::view::DatabaseRow;
use crate::session::console::NAMES;

pub(super) const SHOW: Show = Show {
    name: "databases",
    about: "The databases clients can connect to.",
    columns: &[
        text("name"),
        text("host"),
        int4("port"),
        text("database"),
        text("force_user"),
        int4("pool_size"),
        int4("min_pool_size"),
        int4("reserve_pool_size"),
        int4("server_lifetime"),
        text("pool_mode"),
        text("load_balance_hosts"),
        int4("max_connections"),
        int4("current_connections"),
        int4("max_client_connections"),
        int4("current_client_connections"),
        int4("paused"),
        int4("disabled"),
        int4("shards"),
        text("home"),
    ],
    needs: Some(crate::metrics::view::Detail::Pools),
    rows,
};

/// What differs between a database's kinds; the rest comes from the limits.
struct Facts<'a> {
    host: Option<(String, u16, String)>,
    force_user: Option<&'a String>,
    pool_size: Option<usize>,
    pool_mode: Option<&'static str>,
    shards: usize,
    home: Option<&'a String>,
}

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let mut rows = vec![console(view)];
    for database in view.config.databases.values() {
        rows.push(row(view, &database.name, &configured(database)));
    }
    if let Some(fallback) = &view.config.fallback {
        let named = |row: &&DatabaseRow| !view.config.databases.contains_key(&row.name);
        for database in view.snapshot.databases.iter().filter(named) {
            rows.push(row(
                view,
                &database.name,
                &reached(fallback, &database.name),
            ));
        }
    }
    rows
}

fn console(view: &View<'_>) -> Vec<Cell> {
    let port = view.config.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(address) => address.rsplit_once(':')?.1.parse().ok(),
        Listen::Unix { port, .. } => Some(*port),
    });
    let facts = Facts {
        host: None,
        force_user: None,
        pool_size: Some(0),
        pool_mode: Some("statement"),
        shards: 0,
        home: None,
    };
    let [name, _] = NAMES;
    let mut row = row(view, name, &facts);
    let known = [Cell::Null, Cell::from(port.unwrap_or(0)), Cell::from(name)];
    for (cell, value) in row.iter_mut().skip(1).zip(known) {
        *cell = value;
    }
    row
}

fn configured(database: &Database) -> Facts<'_> {
    let home = database
        .shards
        .iter()
        .find(|shard| shard.name == database.home);
    Facts {
        host: home.map(|shard| {
            (
                shard.primary.host.clone(),
                shard.primary.port,
                shard.primary.dbname.clone(),
            )
        }),
        force_user: database.server_user.as_ref(),
        pool_size: database.default_pool_size,
        pool_mode: database.pool_mode.map(pool_mode),
        shards: database.shards.len(),
        home: Some(&database.home),
    }
}

fn reached<'a>(fallback: &'a Fallback, name: &str) -> Facts<'a> {
    let server = &fallback.server;
    let dbname = if server.dbname.is_empty() {
        name
    } else {
        &server.dbname
    };
    Facts {
        host: Some((server.host.clone(), server.port, dbname.to_owned())),
        force_user: fallback.server_user.as_ref(),
        pool_size: None,
        pool_mode: None,
        shards: 1,
        home: None,
    }
}

fn row(view: &View<'_>, name: &str, facts: &Facts<'_>) -> Vec<Cell> {
    let limits = &view.config.limits;
    let now = view
        .snapshot
        .databases
        .iter()
        .find(|row| row.name == name)
        .cloned()
        .unwrap_or_default();
    let (host, port, dbname) = facts
        .host
        .clone()
        .map_or((Cell::Null, Cell::Int(0), Cell::Null), |host| {
            (Cell::from(host.0), Cell::from(host.1), Cell::from(host.2))
        });
    vec![
        Cell::from(name.to_owned()),
        host,
        port,
        dbname,
        Cell::from(facts.force_user),
        Cell::from(facts.pool_size.unwrap_or(limits.default_pool_size)),
        Cell::from(limits.min_pool_size),
        Cell::from(limits.reserve_pool_size),
        Cell::from(limits.server_lifetime.as_secs()),
        Cell::from(facts.pool_mode),
        Cell::Null,
        Cell::from(limits.max_db_connections),
        Cell::from(now.servers),
        Cell::Int(0),
        Cell::from(now.clients),
        Cell::from(now.paused),
        Cell::from(now.disabled),
        Cell::from(facts.shards),
        Cell::from(facts.home),
    ]
}
