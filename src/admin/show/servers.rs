//! SHOW SERVERS: one row a server connection, with its shard.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View, sockets};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "servers",
    about: "The server connections and what they do.",
    columns: &[
        text("type"),
        text("user"),
        text("database"),
        text("replication"),
        text("state"),
        text("addr"),
        int4("port"),
        text("local_addr"),
        int4("local_port"),
        text("connect_time"),
        text("request_time"),
        int4("wait"),
        int4("wait_us"),
        int4("close_needed"),
        text("ptr"),
        text("link"),
        int4("remote_pid"),
        text("tls"),
        text("application_name"),
        int4("prepared_statements"),
        int4("id"),
        text("shard"),
        text("role"),
        int4("engine"),
    ],
    needs: Some(Detail::Connections),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.servers.iter().map(|server| {
        let mut row = sockets::server_head(server, server.state.as_str());
        row.push(Cell::from(&server.shard));
        row.push(Cell::from(server.role.as_str()));
        row.push(Cell::from(server.engine));
        row
    });
    row.collect()
}
