//! SHOW SOCKETS: clients and server connections in one list, and the head that such lists share.
//!
//! PgBouncer's buffer positions have no meaning here, since an idle connection holds no buffer: they
//! are there for tools that ask for them, and 0.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View, address, timestamp, wait};
use crate::metrics::view::{ClientRow, ClientState, Detail, ServerRow, ServerState};

pub(super) const SHOW: Show = Show {
    name: "sockets",
    about: "Clients and server connections in one list.",
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
        int4("recv_pos"),
        int4("pkt_pos"),
        int4("pkt_remain"),
        int4("send_pos"),
        int4("send_remain"),
        int4("pkt_avail"),
        int4("send_avail"),
    ],
    needs: Some(Detail::Connections),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    list(view, |_| true, |_| true)
}

/// The rows of clients and servers that pass.
pub(super) fn list(
    view: &View<'_>,
    client: impl Fn(&ClientRow) -> bool,
    server: impl Fn(&ServerRow) -> bool,
) -> Vec<Vec<Cell>> {
    let clients = view.snapshot.clients.iter().filter(|row| client(row));
    let clients = clients.map(|row| with_positions(client_head(row, client_word(row.state))));
    let servers = view.snapshot.servers.iter().filter(|row| server(row));
    let servers = servers.map(|row| with_positions(server_head(row, server_word(row.state))));
    clients.chain(servers).collect()
}

/// PgBouncer's columns of a client.
pub(super) fn client_head(row: &ClientRow, state: &'static str) -> Vec<Cell> {
    let ((addr, port), (local_addr, local_port)) = (address(row.remote), address(row.local));
    let (seconds, micros) = wait(row.wait);
    vec![
        Cell::from("C"),
        Cell::from(&row.user),
        Cell::from(&row.database),
        Cell::from("none"),
        Cell::from(state),
        addr,
        port,
        local_addr,
        local_port,
        timestamp(row.connected),
        timestamp(row.requested),
        seconds,
        micros,
        Cell::from(row.close_needed),
        pointer(Some(row.id)),
        pointer(row.link),
        Cell::from(row.process.unwrap_or(0)),
        Cell::from(&row.tls),
        Cell::from(&row.application_name),
        Cell::from(row.prepared_statements),
        Cell::from(row.id),
    ]
}

/// PgBouncer's columns of a server connection.
pub(super) fn server_head(row: &ServerRow, state: &'static str) -> Vec<Cell> {
    let ((addr, port), (local_addr, local_port)) = (address(row.remote), address(row.local));
    vec![
        Cell::from("S"),
        Cell::from(&row.user),
        Cell::from(&row.database),
        Cell::from("none"),
        Cell::from(state),
        addr,
        port,
        local_addr,
        local_port,
        timestamp(row.connected),
        timestamp(row.requested),
        Cell::Int(0),
        Cell::Int(0),
        Cell::from(row.close_needed),
        pointer(Some(row.id)),
        pointer(row.link),
        Cell::from(row.process.unwrap_or(0)),
        Cell::from(&row.tls),
        Cell::from(&row.application_name),
        Cell::from(row.prepared_statements),
        Cell::from(row.id),
    ]
}

fn with_positions(mut head: Vec<Cell>) -> Vec<Cell> {
    head.extend(std::iter::repeat_n(Cell::Int(0), 7));
    head
}

/// `ptr` and `link` are the ids, in the form PgBouncer gives addresses.
fn pointer(id: Option<u64>) -> Cell {
    id.map_or(Cell::from(""), |id| Cell::from(format!("{id:#x}")))
}

fn client_word(state: ClientState) -> &'static str {
    match state {
        ClientState::Active | ClientState::Idle => "cl_active",
        ClientState::Waiting => "cl_waiting",
        ClientState::ActiveCancelReq => "cl_active_cancel_req",
        ClientState::WaitingCancelReq => "cl_waiting_cancel_req",
    }
}

fn server_word(state: ServerState) -> &'static str {
    match state {
        ServerState::Active => "sv_active",
        ServerState::Idle => "sv_idle",
        ServerState::Used => "sv_used",
        ServerState::Tested => "sv_tested",
        ServerState::New => "sv_login",
        ServerState::ActiveCancel => "sv_active_cancel",
        ServerState::BeingCanceled => "sv_being_canceled",
    }
}
