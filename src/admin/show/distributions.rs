//! SHOW DISTRIBUTIONS: the rules that place keys, in the config's own words.

use crate::admin::answer::{Cell, int4, text};
use crate::admin::show::{Show, View};
use crate::config::{Database, Distribution, KeyType, Place, TableKind};

pub(super) const SHOW: Show = Show {
    name: "distributions",
    about: "The rules that place keys on shards.",
    columns: &[
        text("database"),
        text("distribution"),
        text("key"),
        text("place"),
        int4("pins"),
        int4("tables"),
    ],
    needs: None,
    rows,
};

fn rows(view: &View<'_>) -> Vec<Vec<Cell>> {
    let databases = view.config.databases.values();
    let rules = databases.flat_map(|database| {
        database
            .distributions
            .values()
            .map(move |rule| (database, rule))
    });
    rules.map(|(database, rule)| row(database, rule)).collect()
}

fn row(database: &Database, rule: &Distribution) -> Vec<Cell> {
    let key: Vec<&str> = rule.key.iter().copied().map(key_type).collect();
    let tables = database.tables.iter().filter(|table| match &table.kind {
        TableKind::Sharded { distribution, .. } => *distribution == rule.name,
        TableKind::Reference | TableKind::Single => false,
    });
    vec![
        Cell::from(&database.name),
        Cell::from(&rule.name),
        Cell::from(key.join(", ")),
        Cell::from(place(&rule.place)),
        Cell::from(rule.pins.len()),
        Cell::from(tables.count()),
    ]
}

fn key_type(key: KeyType) -> &'static str {
    match key {
        KeyType::Int2 => "smallint",
        KeyType::Int4 => "int",
        KeyType::Int8 => "bigint",
        KeyType::Text => "text",
        KeyType::Enum => "enum",
        KeyType::Uuid => "uuid",
        KeyType::Date => "date",
        KeyType::Timestamp => "timestamp",
        KeyType::TimestampTz => "timestamptz",
        KeyType::Numeric => "numeric",
    }
}

/// A placement as the config file writes it, on one line.
fn place(rule: &Place) -> String {
    let list = |places: &[Place]| places.iter().map(place).collect::<Vec<_>>().join(", ");
    match rule {
        Place::Shard(name) => name.clone(),
        Place::Jump(places) => format!("jump: [{}]", list(places)),
        Place::Modulo(places) => format!("modulo: [{}]", list(places)),
        Place::Postgres(places) => format!("postgres: [{}]", list(places)),
        Place::Range(parts) => {
            let part = parts.iter().map(|part| match &part.to {
                Some(to) => format!("{{to: {to}, {}}}", place(&part.place)),
                None => format!("{{{}}}", place(&part.place)),
            });
            format!("range: [{}]", part.collect::<Vec<_>>().join(", "))
        }
        Place::List(values, rest) => {
            let named = values
                .iter()
                .map(|(value, rule)| format!("{value}: {}", place(rule)));
            let rest = rest.iter().map(|rule| format!("else: {}", place(rule)));
            format!(
                "list: {{{}}}",
                named.chain(rest).collect::<Vec<_>>().join(", ")
            )
        }
        Place::Directory { table } => format!("directory: {{table: {table}}}"),
    }
}
