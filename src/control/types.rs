//! Reads what a shard calls the users' types and tables.

use super::Control;
use super::introspect::SORTS_BY_BYTES;
use super::pool::{Connection, column};
use crate::error::Fault;
use crate::types::oids::{Form, Name, Types};

/// Types of every schema but the temporary ones. The range of a multirange is read past the column's
/// name, which servers before 14 have not.
const TYPES: &str = "
    SELECT t.oid, n.nspname::text, COALESCE(e.typname, t.typname)::text, e.oid IS NOT NULL,
           t.typtype::text, t.typbasetype, COALESCE(r.rngsubtype, m.rngsubtype, 0)
    FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_type e ON e.typarray = t.oid
    LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
    LEFT JOIN pg_catalog.pg_range m
           ON t.typtype = 'm' AND (pg_catalog.to_jsonb(m) ->> 'rngmultitypid')::pg_catalog.oid = t.oid
    WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'";

/// What a column's table may be.
const RELATIONS: &str = "
    SELECT n.nspname::text, c.relname::text, c.oid
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'";

/// Another text after any change of what [`Control::types`] reads: each table has a type.
const MARK: &str = "
    SELECT pg_catalog.concat(count(*), ':', sum(t.xmin::text::int8), ':', max(t.oid::int8))
    FROM pg_catalog.pg_type t
    WHERE t.oid >= 16384 AND t.typnamespace NOT IN (
        SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^(pg_(toast|temp)|pgherd$)')";

impl Control {
    /// What a shard calls the users' types and tables.
    ///
    /// # Errors
    /// What kept the shard from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn types(&self, database: &str, shard: &str) -> Result<Types, Fault> {
        read(&mut self.pool(database, shard)?.connect().await?).await
    }

    /// The same of a twin, by its place in the order of twins.
    ///
    /// # Errors
    /// What kept the twin from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn twin_types(&self, database: &str, index: usize) -> Result<Types, Fault> {
        read(&mut self.twin_pool(database, index)?.connect().await?).await
    }

    /// What the types of a shard are marked with: another text after each change of them.
    ///
    /// # Errors
    /// What kept the shard from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn types_mark(&self, database: &str, shard: &str) -> Result<String, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection.rows(MARK, &[]).await?;
        column(rows.first(), 0)
    }

    /// The home shard of a database, and its other shards.
    ///
    /// # Errors
    /// The database is not in the configuration.
    pub fn home_and_others(&self, database: &str) -> Result<(String, Vec<String>), Fault> {
        let home = self.database(database)?.home.clone();
        let mut others = self.shard_names(database);
        others.retain(|name| *name != home);
        Ok((home, others))
    }
}

/// Reads them.
async fn read(connection: &mut Connection<'_>) -> Result<Types, Fault> {
    let mut types = Types::default();
    let sorting = connection.rows(SORTS_BY_BYTES, &[]).await?;
    let (default, any): (bool, bool) = (column(sorting.first(), 0)?, column(sorting.first(), 1)?);
    types.sorts_by_bytes = default && any;
    for row in &connection.rows(TYPES, &[]).await? {
        let row = Some(row);
        let name = Name {
            schema: column(row, 1)?,
            name: column(row, 2)?,
            array: column(row, 3)?,
        };
        let form = match column(row, 4)? {
            _ if name.array => Form::Array,
            "c" => Form::Composite,
            "d" => Form::Domain(column(row, 5)?),
            "r" => Form::Range(column(row, 6)?),
            "m" => Form::Multirange(column(row, 6)?),
            _ => Form::Plain,
        };
        types.insert(name, column(row, 0)?, form);
    }
    for row in &connection.rows(RELATIONS, &[]).await? {
        let row = Some(row);
        types.insert_relation(column(row, 0)?, column(row, 1)?, column(row, 2)?);
    }
    Ok(types)
}
