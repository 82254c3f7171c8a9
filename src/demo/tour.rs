//! What to try: five statements with the routes they take, and one that is refused.

use std::fmt::Write as _;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::load::{dsn, refused};
use super::shop::DATABASE;
use super::terminal::say;
use crate::error::Fault;

/// Rows of an answer that are shown.
const SHOWN: usize = 5;

/// A statement of the tour.
struct Stop {
    /// What it shows.
    about: &'static str,
    sql: &'static str,
}

const STOPS: &[Stop] = &[
    Stop {
        about: "A product by its key: one shard.",
        sql: "SELECT product_id, title, price FROM wc_products WHERE product_id = 4711",
    },
    Stop {
        about: "A customer with the orders, which lie on the same shard: joined there.",
        sql: "SELECT c.display_name, o.order_id, o.status, o.total FROM wc_customers c \
              JOIN wc_orders o ON o.customer_id = c.customer_id \
              WHERE c.customer_id = 42 AND o.customer_id = 42 ORDER BY o.order_id",
    },
    Stop {
        about: "The items of an order, placed by order_id.",
        sql: "SELECT item, product_id, quantity, price FROM wc_order_items \
              WHERE order_id = 1001 ORDER BY item",
    },
    Stop {
        about: "A reservation that cannot oversell: a write on one shard.",
        sql: "UPDATE wc_inventory SET reserved_quantity = reserved_quantity + 1 \
              WHERE product_id = 4711 AND stock_quantity - reserved_quantity >= 1 \
              RETURNING stock_quantity, reserved_quantity",
    },
    Stop {
        about: "No key: every shard answers, the rows are concatenated.",
        sql: "SELECT product_id, sku, title FROM wc_products WHERE sku IN ('SKU-000007', 'SKU-000008', 'SKU-000009')",
    },
];

/// Refused: concatenating would not be exact.
const REFUSED: &str = "SELECT status, avg(total) FROM wc_orders GROUP BY status";

/// Where to connect.
pub(super) fn directions(listen: &str, http: &str) -> String {
    format!(
        "  shop     psql {}\n  console  psql {} -c 'SHOW POOLS'\n  HTTP     http://{http}/metrics\n",
        dsn(listen, DATABASE),
        dsn(listen, "pgherd"),
    )
}

/// Prints the statements with their routes. The routes are those the proxy took: each statement is
/// run in a block that is rolled back.
///
/// # Cancel safety
/// Safe: an open block ends with the connection.
pub(super) async fn list(client: &Client) -> Result<(), Fault> {
    say("Five statements to try, with their routes:\n");
    for stop in STOPS {
        let undo = !stop.sql.starts_with("SELECT");
        if undo {
            simple(client, "BEGIN").await?;
        }
        simple(client, stop.sql).await?;
        let route = route(client).await?;
        if undo {
            simple(client, "ROLLBACK").await?;
        }
        say(format!("  {};\n    -- {route}\n", stop.sql));
    }
    Ok(())
}

/// Runs the statements one after the other; prints each, its route and its first rows.
///
/// # Cancel safety
/// Not safe: the tour's one update may or may not have been made.
pub(super) async fn run(client: &Client) -> Result<(), Fault> {
    for stop in STOPS {
        say(format!("{}\n  {};", stop.about, stop.sql));
        let answer = simple(client, stop.sql).await?;
        say(format!("  route: {}", route(client).await?));
        say(table(&answer));
    }
    say(format!(
        "Not exact by concatenation, so it is refused, not guessed.\n  {REFUSED};"
    ));
    match client.simple_query(REFUSED).await {
        Ok(answer) => say(table(&answer)),
        Err(error) => match error.as_db_error() {
            Some(said) => {
                say(format!(
                    "  {}: {} ({})",
                    said.severity(),
                    said.message(),
                    said.code().code()
                ));
                if let Some(hint) = said.hint() {
                    say(format!("  HINT: {hint}"));
                }
            }
            None => return Err(refused("run the tour", &error)),
        },
    }
    Ok(())
}

async fn simple(client: &Client, sql: &str) -> Result<Vec<SimpleQueryMessage>, Fault> {
    let outcome = client.simple_query(sql).await;
    outcome.map_err(|error| refused(&format!("run {sql}"), &error))
}

/// The route of the statement before, in the proxy's words.
async fn route(client: &Client) -> Result<String, Fault> {
    let answer = simple(client, "SHOW pgherd.route").await?;
    let route = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
    });
    Ok(route.unwrap_or("unknown").to_owned())
}

/// The first rows, in columns.
fn table(answer: &[SimpleQueryMessage]) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut rows: usize = 0;
    for message in answer {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                lines.push(
                    columns
                        .iter()
                        .map(|column| column.name().to_owned())
                        .collect(),
                );
            }
            SimpleQueryMessage::Row(row) => {
                rows += 1;
                if rows <= SHOWN {
                    let values = (0..row.len()).map(|index| row.get(index).unwrap_or("NULL"));
                    lines.push(values.map(str::to_owned).collect());
                }
            }
            // What a later version may add has no row either.
            SimpleQueryMessage::CommandComplete(_) | _ => (),
        }
    }
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        // Writing to a String does not fail.
        let _done = writeln!(
            text,
            "    {}",
            cells.collect::<Vec<_>>().join("  ").trim_end()
        );
    }
    if SHOWN < rows {
        let _done = writeln!(text, "    … {rows} rows in all");
    }
    text
}
