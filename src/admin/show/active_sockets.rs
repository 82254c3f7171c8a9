//! SHOW ACTIVE_SOCKETS: of SHOW SOCKETS, those at work.

use crate::admin::answer::Cell;
use crate::admin::show::{Show, View, sockets};
use crate::metrics::view::{ClientState, Detail, ServerState};

pub(super) const SHOW: Show = Show {
    name: "active_sockets",
    about: "Of SHOW SOCKETS, those at work.",
    columns: sockets::SHOW.columns,
    needs: Some(Detail::Connections),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    sockets::list(
        view,
        |client| client.state != ClientState::Idle,
        |server| !matches!(server.state, ServerState::Idle | ServerState::Used),
    )
}
