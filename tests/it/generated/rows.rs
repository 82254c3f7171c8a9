//! Random keys and rows, skewed and rich in NULLs, and how they are loaded through the proxy.

use super::schema::{Schema, Table};
use super::value::{Kind, Value};
use crate::client::Client;
use crate::random::Random;

const TEXTS: [&str; 16] = [
    "de", "fr", "A", "Ham", "Q", "it's", "x y", "", "ü", "zz", "a\\b", "$1", "--", "NULL", "abc",
    "k = 1",
];

/// Different keys of these types.
pub(super) fn keys(random: &mut Random, kinds: &[Kind], count: usize) -> Vec<Vec<Value>> {
    let mut keys: Vec<Vec<Value>> = Vec::new();
    while keys.len() < count {
        let key: Vec<Value> = kinds.iter().map(|kind| value(random, *kind)).collect();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// A value that is not NULL, small enough for sums.
pub(super) fn value(random: &mut Random, kind: Kind) -> Value {
    let small = |end: usize, random: &mut Random| i64::try_from(random.below(end)).expect("small");
    match kind {
        Kind::Int2 => Value::Int(small(60, random) - 20),
        Kind::Int8 if random.chance(15) => Value::Int(3_000_000_000 + small(50, random)),
        Kind::Int4 | Kind::Int8 => Value::Int(small(120, random) - 20),
        Kind::Text => Value::Text((*random.choose(&TEXTS)).to_owned()),
        Kind::Uuid => {
            let number = u128::from(random.next());
            Value::Uuid(number << 64 | (number ^ 0x5555))
        }
        Kind::Date => Value::Date(i32::try_from(7300 + random.below(60)).expect("small")),
        Kind::Timestamp => Value::Timestamp(630_720_000 + small(40, random) * 43_200),
        Kind::Numeric => Value::Numeric(small(3000, random) - 500),
        Kind::Bool => Value::Bool(random.chance(50)),
    }
}

/// A value for a column, sometimes NULL where it may be.
pub(super) fn of_column(random: &mut Random, table: &Table, column: usize) -> Value {
    let column = &table.columns[column];
    if !column.not_null && random.chance(35) {
        return Value::Null;
    }
    value(random, column.kind)
}

/// One of the table's keys, the first ones more often.
pub(super) fn key(random: &mut Random, table: &Table) -> Vec<Value> {
    let end = 1 + random.below(table.keys.len());
    table.keys[random.below(end)].clone()
}

/// A row with these key columns and number.
pub(super) fn row(random: &mut Random, table: &Table, key: &[Value], number: i64) -> Vec<Value> {
    (0..table.columns.len())
        .map(
            |at| match table.key.iter().position(|column| *column == at) {
                Some(part) => key[part].clone(),
                None if at == table.number => Value::Int(number),
                None => of_column(random, table, at),
            },
        )
        .collect()
}

/// The rows that each table begins with.
pub(super) fn all(random: &mut Random, schema: &Schema) -> Vec<Vec<Vec<Value>>> {
    let mut all = Vec::new();
    for table in &schema.tables {
        let count = 20 + random.below(40);
        let mut rows = Vec::new();
        for number in 0..count {
            let key = key(random, table);
            let number = i64::try_from(number).expect("small");
            rows.push(row(random, table, &key, number));
        }
        all.push(rows);
    }
    all
}

/// Empties every table and loads these rows: the first half by COPY, the rest by INSERT.
pub(super) fn load(schema: &Schema, all: &[Vec<Vec<Value>>], client: &mut Client) {
    for (table, rows) in schema.tables.iter().zip(all) {
        let (copied, inserted) = rows.split_at(rows.len() / 2);
        let lines: String = copied
            .iter()
            .map(|row| {
                let fields: Vec<String> = row.iter().map(Value::copied).collect();
                fields.join("\t") + "\n"
            })
            .collect();
        let sql = format!("COPY {} FROM STDIN", table.sql());
        client
            .copy_in(&sql, &[lines.into_bytes()])
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        for some in inserted.chunks(9) {
            let rows: Vec<String> = some
                .iter()
                .map(|row| {
                    let values = row.iter().map(|value| {
                        let text = value.text().map(|text| text.replace('\'', "''"));
                        text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"))
                    });
                    format!("({})", values.collect::<Vec<_>>().join(", "))
                })
                .collect();
            client.run(&format!(
                "INSERT INTO {} VALUES {}",
                table.sql(),
                rows.join(", ")
            ));
        }
    }
}
