//! SHOW PEERS: none, since cancel keys need no peering.

use crate::admin::answer::{int4, text};
use crate::admin::show::Show;

pub(super) const SHOW: Show = Show {
    name: "peers",
    about: "None: proxies do not know of each other.",
    columns: &[
        int4("peer_id"),
        text("host"),
        int4("port"),
        int4("pool_size"),
    ],
    needs: None,
    rows: |_| Vec::new(),
};
