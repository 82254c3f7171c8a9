//! SHOW TENANTS: the users that the configuration binds to a tenant, and where they are connected.

use std::collections::BTreeMap;

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "tenants",
    about: "The tenants of users, and their clients in each database that confines tenants.",
    columns: &[
        text("tenant"),
        text("user"),
        text("database"),
        int4("clients"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let mut clients: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for client in &view.snapshot.clients {
        *clients.entry((&client.user, &client.database)).or_default() += 1;
    }
    let mut rows = Vec::new();
    for user in view.config.users.values() {
        let Some(tenant) = &user.tenant else {
            continue;
        };
        let databases = view.config.databases.values();
        for database in databases.filter(|database| database.tenant.is_some()) {
            let count = clients.get(&(user.name.as_str(), database.name.as_str()));
            rows.push(vec![
                Cell::from(tenant.clone()),
                Cell::from(user.name.clone()),
                Cell::from(database.name.clone()),
                Cell::from(count.copied().unwrap_or(0)),
            ]);
        }
    }
    rows
}
