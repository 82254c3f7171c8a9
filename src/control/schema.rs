//! What one shard's catalogs say of its tables, in words that can be compared between shards.

use std::collections::BTreeMap;

use super::pool::{Connection, column};
use crate::error::Fault;

/// The tables of one shard, by schema and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Schema {
    pub(super) tables: BTreeMap<(String, String), Table>,
}

/// One ordinary or partitioned table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// In order.
    pub(super) columns: Vec<Column>,
    /// By definition, the schema and name of the table left out.
    pub(super) indexes: BTreeMap<String, Index>,
    /// By definition.
    pub(super) constraints: BTreeMap<String, Constraint>,
    /// Those that see rows before they are written, by name.
    pub(super) triggers: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As `format_type` writes it, as in `character varying(20)`.
    pub(super) type_name: String,
    pub(super) oid: u32,
    /// A domain's is `d`.
    pub(super) type_kind: String,
    pub(super) modifier: i32,
    pub(super) not_null: bool,
    /// Of the default or the generation expression.
    pub(super) default: Option<String>,
    pub(super) source: Source,
    /// Whether it is GENERATED ALWAYS AS IDENTITY.
    pub(super) always: bool,
    /// False for a collation under which different texts can be equal.
    pub(super) deterministic: bool,
}

/// What gives a column its value when a statement does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Source {
    /// Its default, or NULL.
    #[default]
    Default,
    Identity,
    Generated,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) name: String,
    /// UNIQUE, PRIMARY KEY or EXCLUDE.
    pub(super) exclusive: bool,
    /// The columns it is on, expressions left out.
    pub(super) columns: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Constraint {
    pub(super) name: String,
    /// `Some` for a foreign key.
    pub(super) references: Option<Reference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) schema: String,
    pub(super) table: String,
    /// The columns here and there, in pairs.
    pub(super) columns: Vec<(String, String)>,
}

const COLUMNS: &str = "
    SELECT n.nspname::text, c.relname::text, a.attname::text,
           pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid, t.typtype::text, a.atttypmod,
           a.attnotnull, pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '',
           a.attgenerated <> '', COALESCE(l.collisdeterministic, true),
           a.attidentity = 'a'
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute a
           ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd')
    ORDER BY 1, 2, a.attnum";

const INDEXES: &str = "
    SELECT n.nspname::text, c.relname::text, i.relname::text,
           pg_catalog.pg_get_indexdef(x.indexrelid), x.indisunique OR x.indisexclusion,
           ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(x.indkey::pg_catalog.int2[])
                 WITH ORDINALITY k (attnum, at)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
                 WHERE k.at <= x.indnkeyatts ORDER BY k.at)
    FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_class c ON c.oid = x.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd')";

const CONSTRAINTS: &str = "
    SELECT n.nspname::text, c.relname::text, o.conname::text,
           pg_catalog.pg_get_constraintdef(o.oid), fn.nspname::text, f.relname::text,
           ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(o.conkey) WITH ORDINALITY k (attnum, at)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.attnum
                 ORDER BY k.at),
           ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(o.confkey) WITH ORDINALITY k (attnum, at)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.attnum
                 ORDER BY k.at)
    FROM pg_catalog.pg_constraint o
    JOIN pg_catalog.pg_class c ON c.oid = o.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_class f ON f.oid = o.confrelid
    LEFT JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
    WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgherd')
      AND o.contype IN ('c', 'f', 'p', 'u', 'x')";

const TRIGGERS: &str = "
    SELECT n.nspname::text, c.relname::text, t.tgname::text
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT t.tgisinternal AND t.tgtype & 3 = 3 AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'
    ORDER BY 3";

impl Schema {
    /// Reads it from a shard.
    ///
    /// # Cancel safety
    /// Safe: the answers are dropped.
    pub(super) async fn read(connection: &mut Connection<'_>) -> Result<Schema, Fault> {
        let mut schema = Schema::default();
        for row in &connection.rows(COLUMNS, &[]).await? {
            let row = Some(row);
            let table = schema.table(column(row, 0)?, column(row, 1)?);
            let Some(name) = column(row, 2)? else {
                continue;
            };
            table.columns.push(Column {
                name,
                type_name: column(row, 3)?,
                oid: column(row, 4)?,
                type_kind: column(row, 5)?,
                modifier: column(row, 6)?,
                not_null: column(row, 7)?,
                default: column(row, 8)?,
                source: match (column(row, 9)?, column(row, 10)?) {
                    (true, _) => Source::Identity,
                    (false, true) => Source::Generated,
                    (false, false) => Source::Default,
                },
                deterministic: column(row, 11)?,
                always: column(row, 12)?,
            });
        }
        for row in &connection.rows(INDEXES, &[]).await? {
            let row = Some(row);
            let table = schema.table(column(row, 0)?, column(row, 1)?);
            let index = Index {
                name: column(row, 2)?,
                exclusive: column(row, 4)?,
                columns: column(row, 5)?,
            };
            table.indexes.insert(column(row, 3)?, index);
        }
        for row in &connection.rows(CONSTRAINTS, &[]).await? {
            let row = Some(row);
            let table = schema.table(column(row, 0)?, column(row, 1)?);
            let (own, other): (Vec<String>, Vec<String>) = (column(row, 6)?, column(row, 7)?);
            let reference = |(schema, table)| Reference {
                schema,
                table,
                columns: own.into_iter().zip(other).collect(),
            };
            let target: (Option<String>, Option<String>) = (column(row, 4)?, column(row, 5)?);
            let constraint = Constraint {
                name: column(row, 2)?,
                references: target.0.zip(target.1).map(reference),
            };
            table.constraints.insert(column(row, 3)?, constraint);
        }
        for row in &connection.rows(TRIGGERS, &[]).await? {
            let row = Some(row);
            let table = schema.table(column(row, 0)?, column(row, 1)?);
            table.triggers.push(column(row, 2)?);
        }
        Ok(schema)
    }

    fn table(&mut self, schema: &str, name: &str) -> &mut Table {
        self.tables
            .entry((schema.to_owned(), name.to_owned()))
            .or_default()
    }
}
