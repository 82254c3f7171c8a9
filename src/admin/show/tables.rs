//! SHOW TABLES: the tables the config lists, and what those it does not list are.

use crate::admin::answer::{Cell, text};
use crate::admin::show::{Show, View};
use crate::config::{Database, Table, TableKind, Unlisted};

pub(super) const SHOW: Show = Show {
    name: "tables",
    about: "The tables of the config: sharded, reference or single; * is any that is not listed.",
    columns: &[
        text("database"),
        text("schema"),
        text("table"),
        text("kind"),
        text("distribution"),
        text("key"),
    ],
    needs: None,
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for database in view.config.databases.values() {
        rows.extend(database.tables.iter().map(|table| listed(database, table)));
        let kind = match database.unlisted {
            Unlisted::Single => "single",
            Unlisted::Reference => "reference",
            Unlisted::Refuse => "refused",
        };
        let name = Cell::from(&database.name);
        rows.push(vec![
            name,
            Cell::Null,
            Cell::from("*"),
            Cell::from(kind),
            Cell::Null,
            Cell::Null,
        ]);
    }
    rows
}

fn listed(database: &Database, table: &Table) -> Vec<Cell> {
    let (kind, distribution, key) = match &table.kind {
        TableKind::Sharded { distribution, key } => (
            "sharded",
            Cell::from(distribution),
            Cell::from(key.join(", ")),
        ),
        TableKind::Reference => ("reference", Cell::Null, Cell::Null),
        TableKind::Single => ("single", Cell::Null, Cell::Null),
    };
    vec![
        Cell::from(&database.name),
        Cell::from(table.schema.as_ref()),
        Cell::from(&table.name),
        Cell::from(kind),
        distribution,
        key,
    ]
}
