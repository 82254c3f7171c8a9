//! SHOW DNS_ZONES: none, since names are looked up by the system's resolver.

use crate::admin::answer::{int4, int8, text};
use crate::admin::show::Show;

pub(super) const SHOW: Show = Show {
    name: "dns_zones",
    about: "None: names are looked up by the system's resolver.",
    columns: &[text("zonename"), int8("serial"), int4("count")],
    needs: None,
    rows: |_| Vec::new(),
};
