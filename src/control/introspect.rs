//! Reads the home shard's tables, and the code that is stored beside them, into a [`Catalog`].

use super::Control;
use super::pool::{Connection, column};
use crate::error::Fault;
use crate::placement::catalog::{Catalog, Collation, Column, Table};
use crate::placement::code::Volatility;
use crate::planner::stored::{self, Expression, Function, Runner, Stored, ViewText};

/// Tables and views of every schema but the temporary ones, with their columns in order.
///
/// A table is not plain, so that reads of it are never carried out twice, where a read may run code that
/// no name in it calls: a policy, a foreign data wrapper's, or a volatile operator or cast of the users'.
const TABLES: &str = "
    SELECT n.nspname::text, c.relname::text,
           c.relkind IN ('r', 'p') AND NOT c.relrowsecurity
               AND NOT (c.relhassubclass AND EXISTS (SELECT FROM pg_catalog.pg_foreign_table))
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p
                               WHERE p.provolatile = 'v'
                                 AND (p.oid IN (SELECT oprcode FROM pg_catalog.pg_operator)
                                      OR p.oid IN (SELECT castfunc FROM pg_catalog.pg_cast))),
           a.attname::text, a.atttypid, a.attgenerated <> '', a.atttypmod,
           CASE WHEN k.collprovider = 'd' THEN 'd'
                WHEN k.collcollate IN ('C', 'POSIX') THEN 'c'
                ELSE '' END,
           COALESCE(a.attnum = ANY (x.indkey::pg_catalog.int2[]), false), c.relrowsecurity,
           COALESCE(NOT k.collisdeterministic OR t.typname IN ('bpchar', 'citext'), false)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_attribute a
           ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_catalog.pg_index x ON x.indrelid = c.oid AND x.indisprimary
    LEFT JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
    LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND n.nspname !~ '^pg_(toast|temp)'
      AND (n.nspname, c.relname) <> ('pgherd', 'decision')
    ORDER BY 1, 2, a.attnum";

/// Whether the texts of a database compare by their bytes, as clients see these in UTF-8.
pub(super) const SORTS_BY_BYTES: &str = "
    SELECT d.datcollate IN ('C', 'POSIX')
           AND COALESCE(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c',
           pg_catalog.getdatabaseencoding() IN ('UTF8', 'SQL_ASCII', 'LATIN1')
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

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

/// Each table with those whose rows a foreign key changes when its own are changed or go.
const CASCADES: &str = "
    SELECT m.nspname::text, p.relname::text, n.nspname::text, c.relname::text
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
    JOIN pg_catalog.pg_namespace m ON m.oid = p.relnamespace
    WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4";

/// Functions, procedures and aggregates that are not the server's own. Where the body is kept parsed, it
/// is written out again.
const FUNCTIONS: &str = "
    SELECT p.oid, n.nspname::text, p.proname::text, p.provolatile::text,
           p.prokind IN ('a', 'w'), l.lanname::text,
           EXISTS (SELECT FROM pg_catalog.pg_depend d
                   WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                     AND d.objid = p.oid AND d.deptype = 'e'),
           EXISTS (SELECT FROM pg_catalog.pg_proc b
                   WHERE b.proname = p.proname AND b.oid < 16384
                     AND b.pronamespace = 'pg_catalog'::pg_catalog.regnamespace),
           CASE WHEN p.prokind = 'a' OR l.lanname NOT IN ('sql', 'plpgsql') THEN ''
                WHEN p.prosrc = '' THEN COALESCE(pg_catalog.pg_get_functiondef(p.oid), '')
                WHEN p.pronargdefaults = 0 THEN p.prosrc
                ELSE COALESCE(pg_catalog.pg_get_function_arguments(p.oid), '') || E'\n' || p.prosrc END,
           CASE WHEN a.aggfnoid IS NULL THEN '{}'
                ELSE ARRAY[a.aggtransfn::oid, a.aggfinalfn::oid, a.aggcombinefn::oid,
                           a.aggmtransfn::oid, a.aggminvtransfn::oid, a.aggmfinalfn::oid] END
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    LEFT JOIN pg_catalog.pg_aggregate a ON a.aggfnoid = p.oid
    WHERE p.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
      AND (n.nspname, p.proname) <> ('pgherd', 'decide')
    ORDER BY 2, 3, 1";

/// Operators and casts of the users', with the functions behind them.
const RUNNERS: &str = "
    SELECT o.oprname::text, NULL::text, NULL::text, 0::oid, 0::oid, false, o.oprcode::oid
    FROM pg_catalog.pg_operator o WHERE o.oid >= 16384
    UNION ALL
    SELECT NULL, s.typname::text, t.typname::text, s.oid, t.oid, c.castcontext <> 'e', c.castfunc
    FROM pg_catalog.pg_cast c
    JOIN pg_catalog.pg_type s ON s.oid = c.castsource
    JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
    WHERE c.oid >= 16384
    ORDER BY 1, 2, 3, 7";

/// The checks of domains.
const DOMAINS: &str = "
    SELECT t.typname::text, t.oid, COALESCE(pg_catalog.pg_get_constraintdef(c.oid), '')
    FROM pg_catalog.pg_constraint c
    JOIN pg_catalog.pg_type t ON t.oid = c.contypid
    WHERE c.oid >= 16384
    ORDER BY 1, 2, 3";

/// What tables run by themselves: triggers and rules, then what is worked out for a row.
const EXPRESSIONS: &str = "
    SELECT n.nspname::text, c.relname::text, e.written, e.acts, COALESCE(e.text, '')
    FROM (
        SELECT t.tgrelid, true, true, pg_catalog.pg_get_triggerdef(t.oid)
        FROM pg_catalog.pg_trigger t
        WHERE (NOT t.tgisinternal OR t.tgparentid <> 0) AND t.tgenabled IN ('O', 'A')
          AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                          WHERE k.oid = t.tgconstraint AND k.contype <> 't')
        UNION ALL
        SELECT r.ev_class, true, true, pg_catalog.pg_get_ruledef(r.oid)
        FROM pg_catalog.pg_rewrite r WHERE r.ev_type <> '1' AND r.oid >= 16384
        UNION ALL
        SELECT p.polrelid, false, false,
               pg_catalog.concat_ws(' ', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                                    pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
        FROM pg_catalog.pg_policy p
        UNION ALL
        SELECT d.adrelid, true, false, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
        FROM pg_catalog.pg_attrdef d
        UNION ALL
        SELECT k.conrelid, true, false, pg_catalog.pg_get_constraintdef(k.oid)
        FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid <> 0
        UNION ALL
        SELECT a.attrelid, true, false, pg_catalog.pg_get_constraintdef(k.oid)
        FROM pg_catalog.pg_constraint k
        JOIN pg_catalog.pg_attribute a ON a.atttypid = k.contypid AND a.attrelid >= 16384
        WHERE k.contypid <> 0
        UNION ALL
        SELECT x.indrelid, true, false, pg_catalog.pg_get_indexdef(x.indexrelid)
        FROM pg_catalog.pg_index x
        WHERE (x.indexprs IS NOT NULL OR x.indpred IS NOT NULL) AND x.indrelid >= 16384
    ) e (relation, written, acts, text)
    JOIN pg_catalog.pg_class c ON c.oid = e.relation
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
      AND (n.nspname, c.relname) <> ('pgherd', 'decision')
    ORDER BY 1, 2, 3, 4, 5";

/// Views that are not PostgreSQL's own, with the tables and views they read.
const VIEWS: &str = "
    SELECT n.nspname::text, c.relname::text, c.relkind = 'm',
           COALESCE(pg_catalog.pg_get_viewdef(c.oid), ''),
           COALESCE(pg_catalog.array_agg(m.nspname::text) FILTER (WHERE r.oid IS NOT NULL), '{}'),
           COALESCE(pg_catalog.array_agg(r.relname::text) FILTER (WHERE r.oid IS NOT NULL), '{}')
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN (SELECT DISTINCT w.ev_class, d.refobjid
               FROM pg_catalog.pg_rewrite w
               JOIN pg_catalog.pg_depend d ON d.objid = w.oid
                    AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
               WHERE w.rulename = '_RETURN' AND d.refobjid <> w.ev_class) x ON x.ev_class = c.oid
    LEFT JOIN pg_catalog.pg_class r ON r.oid = x.refobjid AND r.relkind IN ('r', 'p', 'f', 'v', 'm')
    LEFT JOIN pg_catalog.pg_namespace m ON m.oid = r.relnamespace
    WHERE c.relkind IN ('v', 'm') AND c.oid >= 16384 AND n.nspname !~ '^pg_(toast|temp)'
    GROUP BY 1, 2, 3, 4, c.oid
    ORDER BY 1, 2";

/// A text that is another after any change of what [`Control::introspect`] reads or twins are made from: how
/// many rows of each catalog there are, and a sum over the transactions that wrote them. Temporary tables, and
/// what is pgherd's own, do not count.
const MARK: &str = "
    WITH own AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'pgherd'),
    c AS MATERIALIZED (
        SELECT oid, xmin FROM pg_catalog.pg_class
        WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'p', 'f', 'v', 'm', 'c', 'S', 'i', 'I')
            AND relnamespace NOT IN (SELECT oid FROM own)
    )
    SELECT pg_catalog.concat_ws(' ',
        (SELECT pg_catalog.concat(count(*), ':', sum(xmin::text::int8)) FROM c),
        (SELECT pg_catalog.concat(count(*), ':', sum(a.xmin::text::int8))
         FROM pg_catalog.pg_attribute a WHERE a.attrelid IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(d.xmin::text::int8))
         FROM pg_catalog.pg_attrdef d WHERE d.adrelid IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(i.xmin::text::int8))
         FROM pg_catalog.pg_inherits i WHERE i.inhrelid IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(t.xmin::text::int8))
         FROM pg_catalog.pg_trigger t WHERE t.tgrelid IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(r.xmin::text::int8))
         FROM pg_catalog.pg_rewrite r WHERE r.ev_class IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(p.xmin::text::int8))
         FROM pg_catalog.pg_policy p WHERE p.polrelid IN (SELECT oid FROM c)),
        (SELECT pg_catalog.concat(count(*), ':', sum(k.xmin::text::int8))
         FROM pg_catalog.pg_constraint k
         WHERE k.oid >= 16384 AND (k.conrelid = 0 OR k.conrelid IN (SELECT oid FROM c))),
        (SELECT pg_catalog.concat(count(*), ':', sum(xmin::text::int8))
         FROM pg_catalog.pg_proc WHERE oid >= 16384 AND pronamespace NOT IN (SELECT oid FROM own)),
        (SELECT pg_catalog.concat(count(*), ':', sum(xmin::text::int8))
         FROM pg_catalog.pg_operator WHERE oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(xmin::text::int8))
         FROM pg_catalog.pg_cast WHERE oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_type x WHERE x.oid >= 16384 AND x.typnamespace NOT IN (
             SELECT oid FROM pg_catalog.pg_namespace WHERE nspname ~ '^(pg_(toast|temp)|pgherd$)')),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_enum x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_collation x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_extension x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_opclass x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_ts_config x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_ts_config_map x WHERE x.mapcfg >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_ts_dict x WHERE x.oid >= 16384),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_db_role_setting x WHERE x.setdatabase = (
             SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())),
        (SELECT pg_catalog.concat(count(*), ':', sum(x.xmin::text::int8))
         FROM pg_catalog.pg_database x WHERE x.datname = pg_catalog.current_database()),
        (SELECT pg_catalog.concat(count(*), ':', sum(xmin::text::int8))
         FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'pgherd'))";

/// The functions that are neither built in nor an extension's.
const OWN_FUNCTIONS: &str = "
    SELECT DISTINCT p.proname::text
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pgherd')
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        AND d.objid = p.oid AND d.deptype = 'e')
    ORDER BY 1";

/// The users' enums.
const ENUMS: &str = "
    SELECT t.oid, n.nspname::text, t.typname::text
    FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.typtype = 'e' AND t.oid >= 16384";

/// Whether a value that is no enum may become one by a function, or be compared with one.
const ODD_ENUMS: &str = "
    SELECT EXISTS (SELECT FROM pg_catalog.pg_cast c
                   JOIN pg_catalog.pg_type t ON t.oid = c.casttarget
                   WHERE t.typtype = 'e' AND c.castmethod = 'f')
        OR EXISTS (SELECT FROM pg_catalog.pg_operator o
                   JOIN pg_catalog.pg_type t ON t.oid IN (o.oprleft, o.oprright)
                   WHERE t.typtype = 'e')";

impl Control {
    /// What the catalogs of the database's home shard are marked with: another text after each change of
    /// what a snapshot holds.
    ///
    /// # Errors
    /// What kept the home shard from answering.
    ///
    /// # Cancel safety
    /// Safe: the answer is dropped.
    pub async fn schema_mark(&self, database: &str) -> Result<String, Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let rows = connection.rows(MARK, &[]).await?;
        column(rows.first(), 0)
    }

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
        let sorting = connection.rows(SORTS_BY_BYTES, &[]).await?;
        let (default, any): (bool, bool) =
            (column(sorting.first(), 0)?, column(sorting.first(), 1)?);
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
            table.plain = column(row, 2)?;
            table.row_security = column(row, 9)?;
            // A table without columns has one row here, with NULLs.
            if let Some(name) = column::<Option<&str>>(row, 3)? {
                table.columns.push(Column {
                    name: name.to_owned(),
                    oid: column(row, 4)?,
                    generated: column(row, 5)?,
                    modifier: column(row, 6)?,
                    primary: column(row, 8)?,
                    collation: match column(row, 7)? {
                        "c" if any => Collation::Bytes,
                        "d" if any && default => Collation::Database,
                        _ => Collation::Other,
                    },
                    loose: column(row, 10)?,
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
        for row in &connection.rows(CASCADES, &[]).await? {
            let row = Some(row);
            let changed = (column(row, 0)?, column(row, 1)?);
            catalog.cascade(changed, (column(row, 2)?, column(row, 3)?));
        }
        stored::settle(&mut catalog, &stored(&mut connection).await?);
        for row in &connection.rows(ENUMS, &[]).await? {
            let row = Some(row);
            catalog.insert_enum(column(row, 0)?, column(row, 1)?, column(row, 2)?);
        }
        catalog.odd_enums = column(connection.rows(ODD_ENUMS, &[]).await?.first(), 0)?;
        for row in &connection.rows(OWN_FUNCTIONS, &[]).await? {
            catalog.insert_function(column(Some(row), 0)?);
        }
        Ok(catalog)
    }
}

/// The code that is stored in the database.
async fn stored(connection: &mut Connection<'_>) -> Result<Stored, Fault> {
    let mut stored = Stored::default();
    for row in &connection.rows(VIEWS, &[]).await? {
        let row = Some(row);
        let (schemas, names): (Vec<String>, Vec<String>) = (column(row, 4)?, column(row, 5)?);
        stored.views.push(ViewText {
            schema: column(row, 0)?,
            name: column(row, 1)?,
            is_materialized: column(row, 2)?,
            text: column(row, 3)?,
            reads: schemas.into_iter().zip(names).collect(),
        });
    }
    for row in &connection.rows(FUNCTIONS, &[]).await? {
        let row = Some(row);
        stored.functions.push(Function {
            oid: column(row, 0)?,
            schema: column(row, 1)?,
            name: column(row, 2)?,
            volatility: match column(row, 3)? {
                "i" => Volatility::Immutable,
                "s" => Volatility::Stable,
                _ => Volatility::Volatile,
            },
            gathers: column(row, 4)?,
            language: column(row, 5)?,
            extension: column(row, 6)?,
            shared: column(row, 7)?,
            text: column(row, 8)?,
            parts: column(row, 9)?,
        });
    }
    for row in &connection.rows(RUNNERS, &[]).await? {
        let row = Some(row);
        let runner = match column(row, 0)? {
            Some(symbol) => Runner::Operator { symbol },
            None => Runner::Cast {
                types: [column(row, 1)?, column(row, 2)?],
                oids: [column(row, 3)?, column(row, 4)?],
                implicit: column(row, 5)?,
            },
        };
        stored.runners.push((runner, column(row, 6)?));
    }
    for row in &connection.rows(DOMAINS, &[]).await? {
        let row = Some(row);
        let domain = (column(row, 0)?, column(row, 1)?, column(row, 2)?);
        stored.domains.push(domain);
    }
    for row in &connection.rows(EXPRESSIONS, &[]).await? {
        let row = Some(row);
        stored.expressions.push(Expression {
            schema: column(row, 0)?,
            table: column(row, 1)?,
            written: column(row, 2)?,
            acts: column(row, 3)?,
            text: column(row, 4)?,
        });
    }
    Ok(stored)
}
