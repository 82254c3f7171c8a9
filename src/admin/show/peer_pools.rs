//! SHOW PEER_POOLS: none, as there are no peers.

use crate::admin::answer::int4;
use crate::admin::show::Show;

pub(super) const SHOW: Show = Show {
    name: "peer_pools",
    about: "None: proxies do not know of each other.",
    columns: &[
        int4("peer_id"),
        int4("cl_active_cancel_req"),
        int4("cl_waiting_cancel_req"),
        int4("sv_active_cancel"),
        int4("sv_login"),
    ],
    needs: None,
    rows: |_| Vec::new(),
};
