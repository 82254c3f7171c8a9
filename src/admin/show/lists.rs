//! SHOW LISTS: how many there are of each thing.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "lists",
    about: "How many there are of each thing.",
    columns: &[text("list"), int4("items")],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let (config, snapshot) = (view.config, view.snapshot);
    let clients: u64 = snapshot.databases.iter().map(|row| row.clients).sum();
    let servers: u64 = snapshot.databases.iter().map(|row| row.servers).sum();
    let shards: usize = config
        .databases
        .values()
        .map(|database| database.shards.len())
        .sum();
    let lists = [
        // The console counts, as in PgBouncer.
        ("databases", Cell::from(config.databases.len() + 1)),
        ("users", Cell::from(config.users.len())),
        ("peers", Cell::Int(0)),
        ("pools", Cell::from(snapshot.pools.len())),
        ("peer_pools", Cell::Int(0)),
        ("free_clients", Cell::Int(0)),
        ("used_clients", Cell::from(clients)),
        ("login_clients", Cell::from(snapshot.login_clients)),
        ("free_servers", Cell::Int(0)),
        ("used_servers", Cell::from(servers)),
        ("dns_names", Cell::from(snapshot.hosts.len())),
        ("dns_zones", Cell::Int(0)),
        ("dns_queries", Cell::Int(0)),
        ("dns_pending", Cell::Int(0)),
        ("engines", Cell::from(snapshot.engines)),
        ("shards", Cell::from(shards)),
        ("plans_cached", Cell::from(snapshot.plans_cached)),
    ];
    lists
        .into_iter()
        .map(|(list, items)| vec![Cell::from(list), items])
        .collect()
}
