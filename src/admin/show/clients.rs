//! SHOW CLIENTS: one row a client, with the shard it is on and why it keeps it.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View, sockets};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "clients",
    about: "The clients, what they do, and why one is pinned to its server connection.",
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
        text("pinned"),
        int4("engine"),
    ],
    needs: Some(Detail::Connections),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.clients.iter().map(|client| {
        let mut row = sockets::client_head(client, client.state.as_str());
        row.push(Cell::from(client.shard.as_ref()));
        row.push(Cell::from(client.pinned));
        row.push(Cell::from(client.engine));
        row
    });
    row.collect()
}
