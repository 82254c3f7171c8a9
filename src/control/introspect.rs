//! Reads the home shard's tables into a [`Catalog`].

use super::Control;
use super::pool::column;
use crate::error::Fault;
use crate::placement::catalog::{Catalog, Column, Table};

/// Tables and views of every schema but the temporary ones, with their columns in order.
///
/// A table is not plain, so that reads of it are never carried out twice, where a read may run code that
/// no name in it calls: a policy, a foreign data wrapper's, or a volatile operator or cast of the users'.
const TABLES: &str = "
    SELECT n.nspname::text, c.relname::text, c.relkind = 'v' OR c.relkind = 'm',
           c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
               AND NOT (c.relhassubclass AND EXISTS (SELECT FROM pg_catalog.pg_foreign_table))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p
                               WHERE p.provolatile = 'v'
                                 AND (p.oid IN (SELECT oprcode FROM pg_catalog.pg_operator)
                                      OR p.oid IN (SELECT castfunc FROM pg_catalog.pg_cast))),
           a.attname::text, a.atttypid, a.attgenerated <> ''
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute a
           ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^pg_(toast|temp)'
    ORDER BY 1, 2, a.attnum";

/// Each table with the tables it is a partition or an inheritance child of.
const PARENTS: &str = "
    SELECT n.nspname::text, c.relname::text, m.nspname::text, p.relname::text
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
    JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f')
    ORDER BY 1, 2, i.inhseqno";

/// The functions that are neither built in nor an extension's.
const FUNCTIONS: &str = "
    SELECT DISTINCT p.proname::text
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
    ORDER BY 1";

impl Control {
    /// A snapshot of the tables of the database's home shard, numbered after the ones before it.
    ///
    /// # Errors
    /// What kept the home shard from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn introspect(&self, database: &str) -> Result<Catalog, Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        // Before the query, so that DDL during it makes a later snapshot.
        let mut catalog = Catalog::new(self.next_epoch());
        let rows = connection.rows(TABLES, &[]).await?;
        let mut at: Option<(&str, &str)> = None;
        let mut table = Table::default();
        for row in &rows {
            let row = Some(row);
            let names: (&str, &str) = (column(row, 0)?, column(row, 1)?);
            if let Some((schema, name)) = at
                && (schema, name) != names
            {
                catalog.insert(schema, name, std::mem::take(&mut table));
            }
            at = Some(names);
            table.view = column(row, 2)?;
            table.plain = column(row, 3)?;
            // A table without columns has one row here, with NULLs.
            if let Some(name) = column::<Option<&str>>(row, 4)? {
                table.columns.push(Column {
                    name: name.to_owned(),
                    oid: column(row, 5)?,
                    generated: column(row, 6)?,
                });
            }
        }
        if let Some((schema, name)) = at {
            catalog.insert(schema, name, table);
        }
        for row in &connection.rows(PARENTS, &[]).await? {
            let row = Some(row);
            let child = (column(row, 0)?, column(row, 1)?);
            catalog.inherit(child, (column(row, 2)?, column(row, 3)?));
        }
        for row in &connection.rows(FUNCTIONS, &[]).await? {
            catalog.insert_function(column(Some(row), 0)?);
        }
        Ok(catalog)
    }
}
