//! Columns that are kept unique over all shards: what that needs on the shards, and filling it from the rows that
//! are there.
//!
//! `pgherd.claimed` on the home shard has a row for each value, with the key of the row that has it; clients'
//! transactions claim values by functions that run as the control role, and only for columns that
//! `pgherd.uniques` names. It is filled while writes of the table are kept out on all shards at once, so that
//! no row is missed; until then nothing can be claimed.

use std::time::Duration;

use super::finding::{Finding, Level};
use super::lookups::{TABLES, text_of};
use super::pool::{Connection, column};
use super::setup::{from_fault, make_schema};
use super::{Control, QUERY_TIMEOUT};
use crate::config::Lookup;
use crate::error::{Fault, SqlState};
use crate::planner::{lookup_type, refuse};
use crate::types::key::{Key, KeyType};

/// `claim` answers the key that has the value, unless it is the same. `unheld` waits for those who are writing the
/// value on this shard, and fails where a row has it.
const MAKE: &str = "
    CREATE TABLE IF NOT EXISTS pgherd.uniques
        (name text PRIMARY KEY, schema text NOT NULL, relation text NOT NULL, col text NOT NULL,
         shown text NOT NULL, probe text NOT NULL, filled boolean NOT NULL DEFAULT false);
    CREATE TABLE IF NOT EXISTS pgherd.claimed
        (name text, value text COLLATE \"C\", key text NOT NULL, PRIMARY KEY (name, value));
    REVOKE ALL ON pgherd.uniques, pgherd.claimed FROM PUBLIC;
    CREATE OR REPLACE FUNCTION pgherd.violated(what text, has text) RETURNS void
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $violated$
    DECLARE
        kept pgherd.uniques;
    BEGIN
        SELECT * INTO STRICT kept FROM pgherd.uniques u WHERE u.name = what;
        RAISE EXCEPTION 'duplicate key value violates unique constraint \"%\"', kept.shown
            USING ERRCODE = '23505', DETAIL = format('Key (%I)=(%s) already exists.', kept.col, has),
                SCHEMA = kept.schema, TABLE = kept.relation, CONSTRAINT = kept.shown;
    END $violated$;
    CREATE OR REPLACE FUNCTION pgherd.claim(what text, has text, whose text) RETURNS text
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $claim$
    DECLARE
        held text;
    BEGIN
        IF NOT EXISTS (SELECT FROM pgherd.uniques u WHERE u.name = what AND u.filled) THEN
            RAISE EXCEPTION 'column % is not kept unique over the shards yet', what
                USING ERRCODE = '55000', HINT = 'Run pgherd setup.';
        END IF;
        INSERT INTO pgherd.claimed AS c (name, value, key) VALUES (what, has, whose)
            ON CONFLICT ON CONSTRAINT claimed_pkey DO UPDATE SET key = c.key
            RETURNING c.key INTO held;
        RETURN nullif(held, whose);
    END $claim$;
    CREATE OR REPLACE FUNCTION pgherd.claim_anew(what text, has text, whose text) RETURNS void
        LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $anew$
        UPDATE pgherd.claimed SET key = whose WHERE name = what AND value = has
    $anew$;
    CREATE OR REPLACE FUNCTION pgherd.unheld(what text, has text, whose text) RETURNS void
        LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $unheld$
    DECLARE
        probe text;
        is_there boolean;
    BEGIN
        SELECT u.probe INTO STRICT probe FROM pgherd.uniques u WHERE u.name = what;
        PERFORM pg_advisory_xact_lock(hashtextextended(what || ':' || has, 0));
        EXECUTE probe INTO is_there USING has, whose;
        IF is_there THEN
            PERFORM pgherd.violated(what, has);
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'could not serialize access: another row had the same value of a unique column'
                USING ERRCODE = '40001', HINT = 'The transaction might succeed if retried, in READ COMMITTED.';
        END IF;
    END $unheld$;
    GRANT USAGE ON SCHEMA pgherd TO PUBLIC;
    GRANT EXECUTE ON FUNCTION pgherd.violated(text, text), pgherd.claim(text, text, text),
        pgherd.claim_anew(text, text, text), pgherd.unheld(text, text, text) TO PUBLIC;";

const MAKE_LOCK: &str = "SELECT pg_advisory_xact_lock(5139220230127)";

/// The constraint, or index, that keeps a column unique on the shard.
const SHOWN: &str = "
    SELECT i.relname::text, n.nspname::text, c.relname::text
    FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_class c ON c.oid = x.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = x.indkey[0]
    WHERE c.oid = to_regclass($1::text) AND a.attname = $2 AND x.indisunique AND x.indisvalid AND x.indimmediate
      AND x.indnkeyatts = 1 AND x.indpred IS NULL ORDER BY i.relname LIMIT 1";

/// The types of columns, in words that need no search path.
const TYPES: &str = "
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), quote_ident(a.attname)
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped";

const NOTE: &str = "
    INSERT INTO pgherd.uniques (name, schema, relation, col, shown, probe) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (name) DO UPDATE SET schema = excluded.schema, relation = excluded.relation,
        col = excluded.col, shown = excluded.shown, probe = excluded.probe";

const IS_FILLED: &str = "SELECT EXISTS (SELECT FROM pgherd.uniques WHERE name = $1 AND filled)";

const ENTER: &str = "
    INSERT INTO pgherd.claimed (name, value, key) SELECT $1, * FROM unnest($2::text[], $3::text[])
    ON CONFLICT DO NOTHING";

const DOUBLES: &str = "
    SELECT c.value FROM unnest($2::text[], $3::text[]) AS own (value, key)
    JOIN pgherd.claimed c ON c.name = $1 AND c.value = own.value AND c.key <> own.key ORDER BY 1 LIMIT 5";

/// How long those are waited for who write the table.
const WRITERS_WAIT: &str = "30s";
/// Rows read in one go.
const BATCH: usize = 10_000;

impl Control {
    /// Makes what columns that are unique over the shards need, and fills it, where there are several shards.
    ///
    /// # Errors
    /// 3D000 for a database that is not in the configuration.
    pub(super) async fn set_up_uniques(&self, database: &str) -> Result<Vec<Finding>, Fault> {
        let config = self.database(database)?;
        let mut findings = Vec::new();
        let uniques = config.tables.iter().flat_map(|table| &table.ids.uniques);
        for unique in uniques.filter(|_| config.shards.len() > 1) {
            let of = format!("column \"{}\" of table \"{}\"", unique.column, unique.table);
            let finding = match self.make_unique(database, unique).await {
                Ok(true) => Finding::new(Level::Note, format!("{of} is kept unique from now on")),
                Ok(false) => Finding::new(Level::Note, format!("{of} is kept unique already")),
                Err(fault) => from_fault(&fault),
            };
            findings.push(finding.on(&config.home));
        }
        Ok(findings)
    }

    /// Returns whether there was anything to fill.
    async fn make_unique(&self, database: &str, unique: &Lookup) -> Result<bool, Fault> {
        let mut relation = String::new();
        for shard in self.shard_names(database) {
            let mut connection = self.pool(database, &shard)?.connect().await?;
            make_schema(&mut connection).await?;
            let sql = format!("BEGIN; {MAKE_LOCK}; {MAKE} COMMIT");
            connection.batch(&sql, QUERY_TIMEOUT).await.map_err(|fault| {
                fault.hint("Let the control role create in schema pgherd, or run pgherd setup with one that may.")
            })?;
            relation = note(&mut connection, unique, &shard).await?;
        }
        let home = self.database(database)?.home.clone();
        let mut at_home = self.pool(database, &home)?.connect().await?;
        let title = unique.title();
        let rows = at_home.rows(IS_FILLED, &[&title]).await?;
        if column(rows.first(), 0)? {
            return Ok(false);
        }
        at_home
            .rows("DELETE FROM pgherd.claimed WHERE name = $1", &[&title])
            .await?;
        // Nobody writes the table until all of it has been read.
        let mut readers = Vec::new();
        for shard in self.shard_names(database) {
            let mut connection = self.pool(database, &shard)?.connect().await?;
            let sql = format!(
                "BEGIN; SET LOCAL lock_timeout = '{WRITERS_WAIT}'; LOCK TABLE {relation} IN SHARE MODE"
            );
            let locked =
                connection.batch(&sql, QUERY_TIMEOUT.saturating_add(Duration::from_secs(10)));
            locked.await.map_err(|fault| {
                fault.hint("Run pgherd setup while no long transaction writes the table.")
            })?;
            readers.push(connection);
        }
        let filled = fill(&mut at_home, &mut readers, unique, &relation).await;
        let done = match filled {
            Ok(()) => at_home
                .rows(
                    "UPDATE pgherd.uniques SET filled = true WHERE name = $1",
                    &[&title],
                )
                .await
                .map(|_| true),
            Err(fault) => Err(fault),
        };
        for reader in &mut readers {
            // Its transaction ends with it.
            reader.discard();
        }
        done
    }
}

/// Tells a shard of a column, and how a row with a value is looked for. Returns the table's name, quoted.
async fn note(
    connection: &mut Connection<'_>,
    unique: &Lookup,
    shard: &str,
) -> Result<String, Fault> {
    let found = connection
        .rows(TABLES, &[&unique.schema, &unique.table, &unique.column])
        .await?;
    let unknown = || {
        let why = "is not there in a type that can be kept unique";
        refuse::unknown_unique(&unique.table, &unique.column, why)
    };
    let row = found.first().ok_or_else(unknown)?;
    let relation: String = column(Some(row), 0)?;
    if lookup_type(column(Some(row), 1)?).is_none() {
        return Err(unknown());
    }
    let shown = connection.rows(SHOWN, &[&relation, &unique.column]).await?;
    let Some(row) = shown.first() else {
        return Err(Fault::error(
            SqlState::NOT_IN_PREREQUISITE_STATE,
            format!(
                "column \"{}\" of table \"{}\" is not unique on shard \"{shard}\"",
                unique.column, unique.table
            ),
        )
        .hint("Add UNIQUE on the column alone, not deferrable, to the table on every shard."));
    };
    let (shown, schema, table): (String, String, String) = (
        column(Some(row), 0)?,
        column(Some(row), 1)?,
        column(Some(row), 2)?,
    );
    let types = connection.rows(TYPES, &[&relation]).await?;
    let of = |name: &str| -> Result<(String, String), Fault> {
        for row in &types {
            let known: &str = column(Some(row), 0)?;
            if known == name {
                return Ok((column(Some(row), 1)?, column(Some(row), 2)?));
            }
        }
        Err(unknown())
    };
    let (kind, own) = of(&unique.column)?;
    let mut conditions = vec![format!("{own} = $1::{kind}")];
    for (at, (name, _)) in unique.key.iter().enumerate() {
        let (kind, own) = of(name)?;
        conditions.push(format!("{own} = ($2::json ->> {at})::{kind}"));
    }
    let probe = format!(
        "SELECT true FROM {relation} WHERE {} LIMIT 1 FOR KEY SHARE",
        conditions.join(" AND ")
    );
    let title = unique.title();
    connection
        .rows(
            NOTE,
            &[&title, &schema, &table, &unique.column, &shown, &probe],
        )
        .await?;
    Ok(relation)
}

/// Claims the values of all rows.
async fn fill(
    home: &mut Connection<'_>,
    readers: &mut [Connection<'_>],
    unique: &Lookup,
    relation: &str,
) -> Result<(), Fault> {
    let title = unique.title();
    for reader in readers {
        let types = reader.rows(TYPES, &[&relation]).await?;
        let quoted = |name: &str| -> Result<String, Fault> {
            for row in &types {
                let known: &str = column(Some(row), 0)?;
                if known == name {
                    return column(Some(row), 2);
                }
            }
            Ok(name.to_owned())
        };
        let own = quoted(&unique.column)?;
        let mut columns = vec![format!("{own}::text")];
        for (name, _) in &unique.key {
            columns.push(format!("{}::text", quoted(name)?));
        }
        let sql = format!(
            "DECLARE pgherd_rows CURSOR FOR SELECT {} FROM {relation} WHERE {own} IS NOT NULL",
            columns.join(", ")
        );
        reader.batch(&sql, QUERY_TIMEOUT).await?;
        loop {
            let rows = reader
                .rows(&format!("FETCH {BATCH} FROM pgherd_rows"), &[])
                .await?;
            if rows.is_empty() {
                break;
            }
            let (mut values, mut keys) = (Vec::new(), Vec::new());
            for row in &rows {
                values.push(column::<String>(Some(row), 0)?);
                let mut key = Vec::with_capacity(unique.key.len());
                for (at, (name, kind)) in unique.key.iter().enumerate() {
                    let text: Option<&str> = column(Some(row), at.saturating_add(1))?;
                    key.push(text_as(*kind, text.unwrap_or_default(), name)?);
                }
                keys.push(serde_json::to_string(&key).unwrap_or_default());
            }
            home.rows(ENTER, &[&title, &values, &keys]).await?;
            let doubles = home.rows(DOUBLES, &[&title, &values, &keys]).await?;
            if !doubles.is_empty() {
                let values: Result<Vec<&str>, Fault> =
                    doubles.iter().map(|row| column(Some(row), 0)).collect();
                return Err(Fault::error(
                    SqlState::NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "column \"{}\" of table \"{}\" is not unique over the shards",
                        unique.column, unique.table
                    ),
                )
                .detail(format!("Several rows have: {}.", values?.join(", ")))
                .hint("Change or delete all but one of them, and run pgherd setup again."));
            }
        }
    }
    Ok(())
}

/// A value as those are written that clients' statements give.
fn text_as(kind: KeyType, text: &str, name: &str) -> Result<String, Fault> {
    let key = Key::from_text(kind, text.as_bytes()).map_err(|_unread| {
        Fault::error(
            SqlState::NOT_IN_PREREQUISITE_STATE,
            format!("a row has a key in column \"{name}\" that cannot be read"),
        )
    })?;
    Ok(text_of(&key))
}
