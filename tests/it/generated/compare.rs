//! Two answers, and two sets of tables, side by side.

use std::collections::BTreeMap;

use super::run::{Failure, Part, Reply};
use super::schema::{Schema, Spread, Table};
use crate::client::{Client, Row};
use crate::shared::Databases;

/// What is different about two replies to one statement.
pub(super) fn difference(found: &Reply, wanted: &Reply, ordered: bool) -> Option<String> {
    let code = |failure: &Failure| failure.code.clone();
    // In a failed block a server reads what it will not run, and may find that it cannot be parsed.
    let is =
        |reply: &Reply, wanted: &str| reply.failure.as_ref().is_some_and(|it| it.code == wanted);
    if is(found, "25P02") && is(wanted, "42601") {
        return None;
    }
    if found.failure.as_ref().map(code) != wanted.failure.as_ref().map(code) {
        return Some("the error".to_owned());
    }
    // What came before the error in one text is undone: it need not have been told.
    let fewer = found.failure.is_some() && found.parts.len() < wanted.parts.len();
    // A text over several shards is read statement by statement (docs/transactions.md): what stands before one that
    // cannot be parsed is answered, and undone.
    let unread = is(found, "42601") && is(wanted, "42601") && wanted.parts.is_empty();
    if found.parts.len() != wanted.parts.len() && !fewer && !unread {
        return Some("the number of answers".to_owned());
    }
    for (one, other) in found.parts.iter().zip(&wanted.parts) {
        if one.columns != other.columns {
            return Some("the columns".to_owned());
        }
        if one.tag != other.tag {
            return Some("the command tag".to_owned());
        }
        if rows(one, ordered) != rows(other, ordered) {
            return Some("the rows".to_owned());
        }
        if one.copied(ordered) != other.copied(ordered) {
            return Some("the copied data".to_owned());
        }
    }
    if found.parameters != wanted.parameters {
        return Some("the parameters' types".to_owned());
    }
    (found.status != wanted.status).then(|| "the state of the transaction".to_owned())
}

fn rows(part: &Part, ordered: bool) -> Vec<Vec<Option<Vec<u8>>>> {
    let mut rows = part.rows.clone();
    if !ordered {
        rows.sort();
    }
    rows
}

/// Connections past the proxy, to look at what is stored.
#[derive(Debug)]
pub(super) struct Stores {
    shards: Vec<Client>,
    reference: Client,
}

impl Stores {
    pub(super) fn connect(databases: &Databases) -> Stores {
        Stores {
            shards: (0..databases.shard_ports.len())
                .map(|at| databases.shard(at))
                .collect(),
            reference: databases.reference(),
        }
    }

    /// What differs between the shards together and the one server, by sums over the rows.
    pub(super) fn sums_differ(&mut self, schema: &Schema) -> Option<String> {
        let tables = schema.tables.iter().map(|table| {
            format!(
                "SELECT count(*)::text, coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM {} t",
                table.sql()
            )
        });
        let sql = tables.collect::<Vec<_>>().join(" UNION ALL ");
        let wanted = sums(&mut self.reference, &sql);
        let found: Vec<Vec<[i128; 2]>> = self
            .shards
            .iter_mut()
            .map(|client| sums(client, &sql))
            .collect();
        for (at, table) in schema.tables.iter().enumerate() {
            let each: Vec<[i128; 2]> = found.iter().map(|sums| sums[at]).collect();
            let right = match table.spread {
                Spread::Sharded(_) => {
                    let total = |part: usize| each.iter().map(|sum| sum[part]).sum::<i128>();
                    [total(0), total(1)] == wanted[at]
                }
                Spread::Reference => each.iter().all(|sum| *sum == wanted[at]),
                Spread::Single => {
                    each[0] == wanted[at] && each[1..].iter().all(|sum| *sum == [0, 0])
                }
            };
            if !right {
                return Some(
                    self.contents_differ(schema, table)
                        .unwrap_or_else(|| format!("{}: the sums of the rows differ", table.sql())),
                );
            }
        }
        None
    }

    /// Every row of every table, and that each is where its key says.
    pub(super) fn check(&mut self, schema: &Schema) -> Option<String> {
        let mut tables = schema.tables.iter();
        tables.find_map(|table| {
            self.contents_differ(schema, table)
                .or_else(|| self.misplaced(schema, table))
        })
    }

    fn contents_differ(&mut self, _schema: &Schema, table: &Table) -> Option<String> {
        let sql = format!("SELECT t::text FROM {} t", table.sql());
        let wanted = counted(self.reference.rows(&sql));
        let each: Vec<BTreeMap<Row, i64>> = self
            .shards
            .iter_mut()
            .map(|client| counted(client.rows(&sql)))
            .collect();
        match table.spread {
            Spread::Sharded(_) => {
                let mut all = BTreeMap::new();
                for (row, count) in each.into_iter().flatten() {
                    *all.entry(row).or_insert(0) += count;
                }
                unlike("all shards", &all, table, &wanted)
            }
            Spread::Reference => {
                let mut shards = each.iter().enumerate();
                shards.find_map(|(at, rows)| unlike(&format!("shard {at}"), rows, table, &wanted))
            }
            Spread::Single => {
                let none = BTreeMap::new();
                let mut shards = each.iter().enumerate();
                shards.find_map(|(at, rows)| {
                    let wanted = if at == 0 { &wanted } else { &none };
                    unlike(&format!("shard {at}"), rows, table, wanted)
                })
            }
        }
    }

    /// A row of a sharded table that is not on the shard of its key.
    fn misplaced(&mut self, schema: &Schema, table: &Table) -> Option<String> {
        let Spread::Sharded(distribution) = table.spread else {
            return None;
        };
        let columns: Vec<String> = table
            .key
            .iter()
            .map(|&at| format!("\"{}\"", table.columns[at].name))
            .collect();
        let sql = format!("SELECT {} FROM {}", columns.join(", "), table.sql());
        for (shard, client) in self.shards.iter_mut().enumerate() {
            for key in client.rows(&sql) {
                let own = schema.distributions[distribution].shard(&key);
                if own != shard {
                    return Some(format!(
                        "{}: a row of key {key:?} is on shard {shard}, not on {own}",
                        table.sql()
                    ));
                }
            }
        }
        None
    }

    /// Empties every table everywhere.
    pub(super) fn empty(&mut self, schema: &Schema) {
        let names: Vec<String> = schema.tables.iter().map(Table::sql).collect();
        let sql = format!("TRUNCATE {}", names.join(", "));
        for client in self.shards.iter_mut().chain([&mut self.reference]) {
            client.run(&sql);
        }
    }
}

fn sums(client: &mut Client, sql: &str) -> Vec<[i128; 2]> {
    let number = |text: &Option<String>| {
        let text = text.as_deref().expect("not NULL");
        text.parse().expect("a number")
    };
    let rows = client.rows(sql);
    rows.iter()
        .map(|row| [number(&row[0]), number(&row[1])])
        .collect()
}

fn counted(rows: Vec<Row>) -> BTreeMap<Row, i64> {
    let mut counted = BTreeMap::new();
    for row in rows {
        *counted.entry(row).or_insert(0) += 1;
    }
    counted
}

fn unlike(
    whose: &str,
    found: &BTreeMap<Row, i64>,
    table: &Table,
    wanted: &BTreeMap<Row, i64>,
) -> Option<String> {
    let more = |left: &BTreeMap<Row, i64>, right: &BTreeMap<Row, i64>| -> Vec<String> {
        left.iter()
            .filter(|(row, count)| right.get(*row).is_none_or(|other| other < count))
            .map(|(row, count)| format!("{count} × {row:?}"))
            .collect()
    };
    let (extra, lost) = (more(found, wanted), more(wanted, found));
    (!extra.is_empty() || !lost.is_empty()).then(|| {
        format!(
            "{} of {whose}:\n  too much: {}\n  wanting: {}",
            table.sql(),
            extra.join(" "),
            lost.join(" ")
        )
    })
}
