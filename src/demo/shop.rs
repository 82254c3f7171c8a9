//! The shop: its schema, and how many rows of each table there are.

use crate::error::{Fault, SqlState};

pub(super) const DATABASE: &str = "shop";
/// The demo's one user, here and on its servers.
pub(super) const USER: &str = "shop";
pub(super) const PASSWORD: &str = "shop";

/// How many rows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) products: u64,
    pub(super) customers: u64,
    pub(super) orders: u64,
}

/// Items an order has.
pub(super) const ITEMS: u64 = 3;
const SCALE_MAX: f64 = 1000.0;

impl Rows {
    /// The shop's own numbers times `scale`, and at least one of each.
    pub(super) fn scaled(scale: f64) -> Result<Rows, Fault> {
        if !(scale > 0.0 && scale <= SCALE_MAX) {
            return Err(Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("scale {scale} is out of range"),
            )
            .hint(format!(
                "Give --scale a number above 0, {SCALE_MAX} at most."
            )));
        }
        // In thousandths, so that no float becomes an integer by a cast.
        let thousandths: u64 = format!("{:.0}", scale * 1000.0).parse().unwrap_or(1000);
        let of = |rows: u64| (rows * thousandths / 1000).max(1);
        Ok(Rows {
            products: of(30_000),
            customers: of(50_000),
            orders: of(100_000),
        })
    }
}

/// The tables, one statement each. Every primary key holds the sharding key, so that it is as unique
/// over all shards as it is on one.
pub(super) const SCHEMA: &[&str] = &[
    "CREATE TABLE wc_products (
        product_id bigint PRIMARY KEY,
        sku text NOT NULL,
        title text NOT NULL,
        category text NOT NULL,
        brand text NOT NULL,
        price numeric(10,2) NOT NULL)",
    "CREATE TABLE wc_inventory (
        product_id bigint PRIMARY KEY,
        stock_quantity integer NOT NULL,
        reserved_quantity integer NOT NULL DEFAULT 0)",
    "CREATE TABLE wc_customers (
        customer_id bigint PRIMARY KEY,
        customer_email text NOT NULL,
        display_name text NOT NULL,
        registered timestamp NOT NULL)",
    "CREATE TABLE wc_orders (
        customer_id bigint NOT NULL,
        order_id bigint NOT NULL,
        status text NOT NULL,
        total numeric(12,2) NOT NULL,
        created timestamp NOT NULL,
        PRIMARY KEY (customer_id, order_id))",
    "CREATE TABLE wc_order_items (
        order_id bigint NOT NULL,
        item integer NOT NULL,
        product_id bigint NOT NULL,
        quantity integer NOT NULL,
        price numeric(10,2) NOT NULL,
        PRIMARY KEY (order_id, item))",
    "CREATE TABLE wc_webhooks (
        webhook_id integer PRIMARY KEY,
        topic text NOT NULL,
        delivery_url text NOT NULL)",
    "CREATE TABLE wp_options (
        option_name text PRIMARY KEY,
        option_value text NOT NULL)",
    "CREATE INDEX wc_products_sku ON wc_products (sku)",
    "INSERT INTO wc_webhooks VALUES
        (1, 'order.created', 'http://127.0.0.1/hooks/order'),
        (2, 'product.updated', 'http://127.0.0.1/hooks/product'),
        (3, 'customer.created', 'http://127.0.0.1/hooks/customer')",
    "INSERT INTO wp_options VALUES ('blogname', 'The Herd'), ('woocommerce_currency', 'EUR')",
];
