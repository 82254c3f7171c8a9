//! The demo's pgherd.yaml: how a shop's tables are spread over its servers.

use std::fmt::Write as _;

use super::shop::{DATABASE, PASSWORD, USER};

/// The config for servers whose sockets lie in `sockets`, in the order of the shards.
pub(super) fn text(sockets: &[String], listen: &str, http: &str) -> String {
    let mut text = format!(
        "name: demo
listen: [\"{listen}\"]
http: \"{http}\"
log: {{level: error}}
users:
  - {{name: {USER}, password: {PASSWORD}}}
admin_users: [{USER}]
databases:
  {DATABASE}:
    home: shard_0
    shards:
"
    );
    for (index, socket) in sockets.iter().enumerate() {
        // Writing to a String does not fail.
        let _done = writeln!(
            text,
            "      shard_{index}: \"host={socket} port=5432 dbname={DATABASE}\""
        );
    }
    text.push_str(TABLES);
    text
}

const TABLES: &str = "    distributions:
      products: {key: bigint, place: {jump: all}}
      customers: {key: bigint, place: {jump: all}}
      orders: {key: bigint, place: {jump: all}}
    tables:
      wc_products: {distribution: products, key: product_id}
      wc_inventory: {distribution: products, key: product_id}
      wc_customers: {distribution: customers, key: customer_id}
      wc_orders: {distribution: customers, key: customer_id}
      wc_order_items: {distribution: orders, key: order_id}
      wc_webhooks: reference
      wp_options: single
";
