//! The shop's rows as COPY text, the same in every run: each is a function of its number.

use std::fmt::Write as _;

use super::shop::{ITEMS, Rows};

const NOUNS: &[&str] = &[
    "Bell", "Blanket", "Boots", "Crook", "Fence", "Gate", "Lantern", "Saddle",
];
const KINDS: &[&str] = &[
    "Alpine", "Brass", "Copper", "Felt", "Oak", "Royal", "Stone", "Willow",
];
const CATEGORIES: &[&str] = &["barn", "clothing", "field", "kitchen", "tools"];
const BRANDS: &[&str] = &["Acme", "Meadow", "Northfold", "Pasture", "Ridge"];
const STATES: &[&str] = &[
    "completed",
    "completed",
    "completed",
    "pending",
    "processing",
];

/// A table to load: its columns, how many rows, and the text of each by its number from 1.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
    pub(super) count: u64,
    pub(super) write: fn(&Rows, u64, &mut String),
}

/// The tables in the order in which they are loaded.
pub(super) fn tables(rows: Rows) -> [Table; 5] {
    let table = |name, columns, count, write| Table {
        name,
        columns,
        count,
        write,
    };
    [
        table(
            "wc_products",
            "product_id, sku, title, category, brand, price",
            rows.products,
            product,
        ),
        table(
            "wc_inventory",
            "product_id, stock_quantity, reserved_quantity",
            rows.products,
            inventory,
        ),
        table(
            "wc_customers",
            "customer_id, customer_email, display_name, registered",
            rows.customers,
            customer,
        ),
        table(
            "wc_orders",
            "customer_id, order_id, status, total, created",
            rows.orders,
            order,
        ),
        table(
            "wc_order_items",
            "order_id, item, product_id, quantity, price",
            rows.orders * ITEMS,
            item,
        ),
    ]
}

/// A number that looks random, the same each time (the finaliser of SplitMix64).
fn mix(kind: u64, id: u64) -> u64 {
    let mut x = id.wrapping_add(kind.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

fn pick(words: &'static [&'static str], number: u64) -> &'static str {
    let count = u64::try_from(words.len()).unwrap_or(1);
    let index = usize::try_from(number % count).unwrap_or_default();
    words.get(index).copied().unwrap_or_default()
}

/// Appends one line; writing to a String does not fail.
macro_rules! line {
    ($out:expr, $($field:expr),+) => {{
        let fields = [$($field.to_string()),+];
        let _done = writeln!($out, "{}", fields.join("\t"));
    }};
}

fn price_in_cents(product: u64) -> u64 {
    199 + mix(1, product) % 20_000
}

fn money(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

fn day(number: u64) -> String {
    let (month, day, hour) = (1 + number % 12, 1 + number / 12 % 28, number / 336 % 24);
    format!(
        "2026-{month:02}-{day:02} {hour:02}:{:02}:00",
        number / 8064 % 60
    )
}

fn product(_: &Rows, id: u64, out: &mut String) {
    let number = mix(2, id);
    let title = format!(
        "{} {} No. {id}",
        pick(KINDS, number),
        pick(NOUNS, number >> 8)
    );
    let (category, brand) = (pick(CATEGORIES, number >> 16), pick(BRANDS, number >> 24));
    line!(
        out,
        id,
        format!("SKU-{id:06}"),
        title,
        category,
        brand,
        money(price_in_cents(id))
    );
}

fn inventory(_: &Rows, id: u64, out: &mut String) {
    line!(out, id, 20 + mix(3, id) % 200, 0);
}

fn customer(_: &Rows, id: u64, out: &mut String) {
    line!(
        out,
        id,
        format!("customer{id}@example.com"),
        format!("Customer {id}"),
        day(mix(4, id) % 400_000)
    );
}

/// What item `item` (from 0) of an order holds: the product, how many, and its price in cents.
fn held(rows: &Rows, order: u64, item: u64) -> (u64, u64, u64) {
    let number = mix(5, order * ITEMS + item);
    let product = 1 + number % rows.products;
    (product, 1 + (number >> 40) % 3, price_in_cents(product))
}

fn order(rows: &Rows, id: u64, out: &mut String) {
    let number = mix(6, id);
    let total: u64 = (0..ITEMS)
        .map(|item| {
            let (_, quantity, price) = held(rows, id, item);
            quantity * price
        })
        .sum();
    let customer = 1 + number % rows.customers;
    let when = day((number >> 32) % 400_000);
    line!(
        out,
        customer,
        id,
        pick(STATES, number >> 24),
        money(total),
        when
    );
}

fn item(rows: &Rows, number: u64, out: &mut String) {
    let (order, item) = (1 + (number - 1) / ITEMS, (number - 1) % ITEMS);
    let (product, quantity, price) = held(rows, order, item);
    line!(out, order, item + 1, product, quantity, money(price));
}

#[cfg(test)]
mod tests {
    use super::super::shop::Rows;
    use super::{order, tables};

    fn cents(text: &str) -> u64 {
        text.replace('.', "").parse().expect("an amount")
    }

    #[test]
    fn an_orders_total_is_the_sum_of_its_items() {
        let rows = Rows::scaled(0.01).expect("a scale");
        let [.., items] = tables(rows);
        let mut text = String::new();
        order(&rows, 7, &mut text);
        let total = cents(text.split('\t').nth(3).expect("a total"));
        let mut sum = 0;
        for number in 19..=21 {
            let mut text = String::new();
            (items.write)(&rows, number, &mut text);
            let fields: Vec<&str> = text.trim_end().split('\t').collect();
            assert_eq!(fields[0], "7");
            sum += fields[3].parse::<u64>().expect("a quantity") * cents(fields[4]);
        }
        assert_eq!(total, sum);
    }

    #[test]
    fn every_row_has_a_field_for_each_column() {
        let rows = Rows::scaled(0.001).expect("a scale");
        for table in tables(rows) {
            let mut text = String::new();
            (table.write)(&rows, 1, &mut text);
            let fields = text.split('\t').count();
            assert_eq!(fields, table.columns.split(',').count(), "{}", table.name);
            assert!(text.ends_with('\n'));
        }
    }
}
