//! SHOW USERS: the users of the config and of the console, and those met otherwise.

use std::collections::BTreeSet;

use crate::admin::answer::{Cell, int4, text};
use crate::admin::console::Console;
use crate::admin::show::{Show, View, pool_mode};
use crate::metrics::view::Detail;
use crate::session::console::Rights;

pub(super) const SHOW: Show = Show {
    name: "users",
    about: "The users, their limits and what they have open.",
    columns: &[
        text("name"),
        text("pool_size"),
        text("reserve_pool_size"),
        text("pool_mode"),
        int4("max_user_connections"),
        int4("current_connections"),
        int4("max_user_client_connections"),
        int4("current_client_connections"),
        text("tenant"),
        text("console"),
    ],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let config = view.config;
    let listed = config
        .users
        .keys()
        .chain(&config.admin_users)
        .chain(&config.stats_users);
    let names: BTreeSet<&String> = listed
        .chain(view.snapshot.users.iter().map(|user| &user.name))
        .collect();
    names.into_iter().map(|name| row(view, name)).collect()
}

fn row(view: &View<'_>, name: &str) -> Vec<Cell> {
    let user = view.config.users.get(name);
    let now = view
        .snapshot
        .users
        .iter()
        .find(|row| row.name == name)
        .cloned()
        .unwrap_or_default();
    let pool_size = user
        .and_then(|user| user.default_pool_size)
        .map(|size| size.to_string());
    let limit = user.and_then(|user| user.max_user_connections);
    let console = match Console::rights_of(view.config, name) {
        Ok(Rights::Admin) => "admin",
        Ok(Rights::Stats) => "stats",
        Err(_) => "",
    };
    vec![
        Cell::from(name.to_owned()),
        Cell::from(pool_size.unwrap_or_default()),
        Cell::from(""),
        Cell::from(user.and_then(|user| user.pool_mode).map(pool_mode)),
        Cell::from(limit.unwrap_or(view.config.limits.max_user_connections)),
        Cell::from(now.servers),
        Cell::Int(0),
        Cell::from(now.clients),
        Cell::from(user.and_then(|user| user.tenant.as_ref())),
        Cell::from(console),
    ]
}
