//! Directories: tables of the user's on the home shard that say which shard a key is on. The columns of the
//! primary key, in order, are the key; `shard` names the shard.
//!
//! They are read whole, up to `max_directory_rows`, and again at each look at the catalogs: large ones only
//! when the server has counted writes of them. A key that is not known then is asked for by itself.

use std::collections::HashMap;

use super::finding::Finding;
use super::pool::{Connection, column};
use super::setup::from_fault;
use super::{Control, lookups};
use crate::config::{KeyType, split_name};
use crate::error::{Fault, SqlState};
use crate::placement::rule::{Directory, Listed, Unlisted};
use crate::placement::topology::Topology;
use crate::sql::quote::quote_ident;
use crate::types::key::Key;
use crate::types::oid;

/// The tables that may be meant: the primary key's columns and types, the type of `shard`, and a mark that
/// changes with the rows, or is empty where nothing counts them.
const SHAPE: &str = "
    SELECT format('%I.%I', n.nspname, c.relname),
        ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, at)
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE k.at <= x.indnkeyatts ORDER BY k.at),
        ARRAY(SELECT a.atttypid FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (attnum, at)
              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
              WHERE k.at <= x.indnkeyatts ORDER BY k.at),
        (SELECT a.atttypid FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attname = 'shard' AND NOT a.attisdropped),
        CASE WHEN c.relkind = 'r' AND current_setting('track_counts')::bool
             THEN concat_ws('/', c.oid, c.relfilenode, pg_stat_get_tuples_inserted(c.oid),
                            pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid))
             ELSE '' END
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisprimary
    WHERE c.relname = $2 AND n.nspname = COALESCE($1::text, n.nspname)
      AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// Rows that are read again at each look, whatever the server has counted.
const SMALL: usize = 10_000;

/// A directory's table.
struct Shape {
    /// With its schema, quoted.
    name: String,
    /// The columns of the key, quoted.
    columns: Vec<String>,
    mark: String,
}

impl Control {
    /// Reads a directory whole, if it may have changed since it was last read.
    ///
    /// # Errors
    /// The home shard does not answer, or the table is not as a directory must be.
    ///
    /// # Cancel safety
    /// Safe: what was known stays.
    pub async fn read_directory(&self, database: &str, directory: &Directory) -> Result<(), Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let shape = shape(&mut connection, directory).await?;
        // Servers count late.
        let is_small = directory.len() <= SMALL;
        if !is_small && !shape.mark.is_empty() && directory.is_marked(&shape.mark) {
            return Ok(());
        }
        let limit = self.config.limits.max_directory_rows;
        let rows = rows(&mut connection, directory, &shape, limit).await?;
        directory.replace(rows, shape.mark);
        Ok(())
    }

    /// Reads all directories of a database, as [`Control::read_directory`] does.
    ///
    /// # Errors
    /// What is wrong with the first that could not be read; the others are read.
    ///
    /// # Cancel safety
    /// Safe: what was known stays.
    pub async fn read_directories(&self, topology: &Topology) -> Result<(), Fault> {
        let mut result = Ok(());
        for distribution in topology.distributions() {
            for directory in distribution.directories() {
                let read = self.read_directory(topology.database(), directory).await;
                result = result.and(read);
            }
        }
        result
    }

    /// What a directory lists for a key that is not known.
    ///
    /// # Errors
    /// The home shard does not answer, or the table is not as a directory must be.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn ask_directory(
        &self,
        database: &str,
        unlisted: &Unlisted,
    ) -> Result<Listed, Fault> {
        let Unlisted { directory, key } = unlisted;
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let shape = shape(&mut connection, directory).await?;
        let kinds = directory.key.iter().zip(&shape.columns).zip(1..);
        let conditions: Vec<String> = kinds
            .map(|((kind, column), at)| format!("{column} = {}", value(*kind, at)))
            .collect();
        let sql = format!(
            "SELECT shard::text FROM {} WHERE {}",
            shape.name,
            conditions.join(" AND ")
        );
        let texts: Vec<String> = key.iter().map(text_of).collect();
        let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = texts
            .iter()
            .map(|text| -> &(dyn tokio_postgres::types::ToSql + Sync) { text })
            .collect();
        let found = connection.rows(&sql, &parameters).await?;
        let listed = match found.first() {
            None => Listed::Nowhere,
            Some(row) => {
                let shard: Option<&str> = column(Some(row), 0)?;
                directory.listed(shard.unwrap_or_default())
            }
        };
        let limit = self.config.limits.max_directory_rows;
        directory.add(key.clone(), listed.clone(), limit);
        Ok(listed)
    }

    /// Whether the directories are as they must be, and name shards that exist.
    pub(super) async fn check_directories(&self, topology: &Topology, findings: &mut Vec<Finding>) {
        for distribution in topology.distributions() {
            for directory in distribution.directories() {
                match self.unknown_shards(topology.database(), directory).await {
                    Ok(unknown) => findings.extend(unknown),
                    Err(fault) => findings.push(from_fault(&fault)),
                }
            }
        }
    }

    async fn unknown_shards(
        &self,
        database: &str,
        directory: &Directory,
    ) -> Result<Vec<Finding>, Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let shape = shape(&mut connection, directory).await?;
        let limit = self.config.limits.max_directory_rows;
        let rows = rows(&mut connection, directory, &shape, limit).await?;
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut findings = Vec::new();
        for (key, listed) in rows {
            if let Listed::Unknown(shard) = listed {
                let words: Vec<String> = key.iter().map(ToString::to_string).collect();
                let what = format!(
                    "directory \"{}\": the row of key \"{}\" names shard \"{shard}\", which does not exist",
                    directory.table,
                    words.join(", ")
                );
                findings
                    .push(Finding::error(what).hint("Name a shard of the database in the row."));
            }
        }
        Ok(findings)
    }
}

async fn rows(
    connection: &mut Connection<'_>,
    directory: &Directory,
    shape: &Shape,
    limit: usize,
) -> Result<HashMap<Vec<Key<'static>>, Listed>, Fault> {
    let columns: Vec<String> = shape
        .columns
        .iter()
        .map(|column| format!("{column}::text"))
        .collect();
    let sql = format!(
        "SELECT shard::text, {} FROM {} LIMIT {limit}",
        columns.join(", "),
        shape.name
    );
    let mut all = HashMap::new();
    for row in &connection.rows(&sql, &[]).await? {
        let shard: Option<&str> = column(Some(row), 0)?;
        let mut key = Vec::with_capacity(directory.key.len());
        for (at, kind) in directory.key.iter().enumerate() {
            let text: &str = column(Some(row), at.saturating_add(1))?;
            // One that no statement can name, as 'infinity', is asked for in vain.
            if let Ok(value) = Key::from_text(*kind, text.as_bytes()) {
                key.push(value.into_owned());
            }
        }
        if key.len() == directory.key.len() {
            all.insert(key, directory.listed(shard.unwrap_or_default()));
        }
    }
    Ok(all)
}

/// Finds a directory's table.
async fn shape(connection: &mut Connection<'_>, directory: &Directory) -> Result<Shape, Fault> {
    let fault = |what: &str, hint: &str| {
        Err(Fault::error(
            SqlState::CONFIG,
            format!(
                "directory \"{}\" of distribution \"{}\": {what}",
                directory.table, directory.distribution
            ),
        )
        .hint(hint))
    };
    let (schema, table) = split_name(&directory.table).unwrap_or_default();
    let found = connection.rows(SHAPE, &[&schema, &table]).await?;
    let [row] = found.as_slice() else {
        return fault(
            if found.is_empty() {
                "there is no such table on the home shard"
            } else {
                "there are several tables of that name"
            },
            "Create the table on the home shard, and name it with its schema.",
        );
    };
    let columns: Vec<String> = column(Some(row), 1)?;
    let kinds: Vec<u32> = column(Some(row), 2)?;
    let fits = kinds.len() == directory.key.len()
        && kinds
            .iter()
            .zip(&directory.key)
            .all(|(oid, kind)| holds(*oid, *kind));
    if !fits {
        let types: Vec<&str> = directory.key.iter().map(|kind| kind.name()).collect();
        return fault(
            "its primary key is not the key of the distribution",
            &format!(
                "Give it a primary key of these types, in this order: {}.",
                types.join(", ")
            ),
        );
    }
    let shard: Option<u32> = column(Some(row), 3)?;
    if !shard.is_some_and(|oid| matches!(oid, oid::TEXT | oid::VARCHAR)) {
        return fault(
            "it has no column \"shard\" of type text",
            "Add a column \"shard\" that names the shard of each key.",
        );
    }
    Ok(Shape {
        name: column(Some(row), 0)?,
        columns: columns.iter().map(|column| quote_ident(column)).collect(),
        mark: column(Some(row), 4)?,
    })
}

fn holds(oid: u32, kind: KeyType) -> bool {
    match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => {
            matches!(oid, oid::INT2 | oid::INT4 | oid::INT8)
        }
        // An enum by its label.
        KeyType::Text | KeyType::Enum => matches!(oid, oid::TEXT | oid::VARCHAR),
        KeyType::Uuid => oid == oid::UUID,
        KeyType::Date => oid == oid::DATE,
        KeyType::Timestamp => oid == oid::TIMESTAMP,
        KeyType::TimestampTz => oid == oid::TIMESTAMPTZ,
        KeyType::Numeric => false,
    }
}

/// A parameter that is a key's text, as a value of its type.
fn value(kind: KeyType, at: usize) -> String {
    let from =
        |epoch: &str, unit: &str| format!("{epoch} + ${at}::text::bigint * interval '{unit}'");
    match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => format!("${at}::text::bigint"),
        KeyType::Text | KeyType::Enum | KeyType::Numeric => format!("${at}::text"),
        KeyType::Uuid => format!("${at}::text::uuid"),
        KeyType::Date => format!("date '2000-01-01' + ${at}::text::int"),
        KeyType::Timestamp => from("timestamp '2000-01-01'", "1 microsecond"),
        KeyType::TimestampTz => from("timestamptz '2000-01-01 00:00:00+00'", "1 microsecond"),
    }
}

fn text_of(key: &Key<'_>) -> String {
    match key {
        Key::Date(days) => days.to_string(),
        Key::Timestamp(micros) => micros.to_string(),
        Key::Int(_) | Key::Text(_) | Key::Uuid(_) | Key::Numeric(_) => lookups::text_of(key),
    }
}
