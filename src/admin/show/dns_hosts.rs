//! SHOW DNS_HOSTS: the host names that were looked up.

use crate::admin::answer::{Cell, int8, text};
use crate::admin::show::{Show, View};
use crate::metrics::view::Detail;

pub(super) const SHOW: Show = Show {
    name: "dns_hosts",
    about: "The host names that were looked up.",
    columns: &[text("hostname"), int8("ttl"), text("addrs")],
    needs: Some(Detail::Pools),
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let row = view.snapshot.hosts.iter().map(|host| {
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        vec![
            Cell::from(&host.name),
            Cell::from(host.ttl.as_secs()),
            Cell::from(addresses.join(",")),
        ]
    });
    row.collect()
}
