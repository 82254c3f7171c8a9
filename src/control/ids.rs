//! Numbers for ids: blocks of a sequence on the home shard, one sequence for each table that has `ids`.
//!
//! The sequence's INCREMENT is the length of a block, so that no two proxies are given the same number,
//! whatever length each of them would choose.

use std::ops::Range;

use super::Control;
use super::pool::{Connection, column};
use crate::error::{Fault, SqlState};
use crate::placement::{BUCKETS, ID_LIMIT};
use crate::planner::plan::Stream;
use crate::sql::cursor::NAME_BYTES_MAX;
use crate::sql::quote::{quote_ident, quote_literal};
use crate::types::hash;

/// Numbers in a block.
pub const BLOCK: u32 = 1_000;

const TAKE: &str = "
    SELECT nextval(s.seqrelid::regclass), s.seqincrement
    FROM pg_catalog.pg_sequence s, generate_series(1, $2::bigint)
    WHERE s.seqrelid = to_regclass($1::text)";

const EXISTS: &str = "SELECT to_regclass($1::text) IS NOT NULL";

/// A query for the greatest id of each table that is meant.
const GREATEST: &str = "
    SELECT format('SELECT max(%I)::bigint FROM %I.%I', a.attname, n.nspname, c.relname)
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
    WHERE c.relname = $2 AND n.nspname = COALESCE($1::text, n.nspname)
      AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'";

impl Control {
    /// Takes numbers for ids, at least `count` of them, in ranges that nobody else is given. The sequence
    /// is made where there is none, its start above the ids that are there.
    ///
    /// # Errors
    /// What kept the home shard from giving them, or a shard from telling its greatest id.
    ///
    /// # Cancel safety
    /// Safe: numbers taken are lost.
    pub async fn id_blocks(
        &self,
        database: &str,
        stream: &Stream,
        count: usize,
    ) -> Result<Vec<Range<i64>>, Fault> {
        let blocks = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        let blocks = blocks.saturating_add(i64::from(BLOCK).saturating_sub(1)) / i64::from(BLOCK);
        let home = &self.database(database)?.home;
        let name = sequence(stream);
        let pool = self.pool(database, home)?;
        // One connection at a time: there are few.
        let taken = take(&mut pool.connect().await?, &name, blocks).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        self.make_sequence(database, stream).await?;
        take(&mut pool.connect().await?, &name, blocks).await
    }

    /// Makes the sequence of a table's ids on the home shard, its start above the ids that are there.
    /// Returns whether there was none.
    ///
    /// # Errors
    /// What kept a shard from telling its greatest id, or the home shard from making it.
    ///
    /// # Cancel safety
    /// Safe: it is there or not.
    pub async fn make_sequence(&self, database: &str, stream: &Stream) -> Result<bool, Fault> {
        let home = &self.database(database)?.home;
        let name = sequence(stream);
        let exists = async || -> Result<bool, Fault> {
            let mut connection = self.pool(database, home)?.connect().await?;
            let rows = connection.rows(EXISTS, &[&name]).await?;
            column(rows.first(), 0)
        };
        if exists().await? {
            return Ok(false);
        }
        let used = self.used(database, stream).await?;
        let buckets = i64::try_from(BUCKETS).unwrap_or(i64::MAX);
        let most = if stream.carries {
            ID_LIMIT / buckets
        } else {
            ID_LIMIT
        };
        let start = used.saturating_add(1).max(1);
        let sql = format!(
            "CREATE SEQUENCE IF NOT EXISTS {name} AS bigint INCREMENT BY {BLOCK} MINVALUE 1 MAXVALUE {} START WITH {start}",
            most.saturating_sub(1)
        );
        match self.make(database, home, &sql).await {
            Ok(()) => Ok(true),
            // Another proxy may have made the schema or it at the same moment.
            Err(fault) => {
                if exists().await? || self.make(database, home, &sql).await.is_ok() {
                    return Ok(false);
                }
                Err(fault.hint(
                    "Let the control role create in schema pgherd, or run pgherd setup with one that may.",
                ))
            }
        }
    }

    /// Raises the sequence of a table's ids above those that are there, where rows brought their own.
    /// Returns whether it had to.
    ///
    /// # Errors
    /// What kept a shard from telling its greatest id, or the home shard from raising it.
    ///
    /// # Cancel safety
    /// Safe: it is raised or not.
    pub async fn raise_sequence(&self, database: &str, stream: &Stream) -> Result<bool, Fault> {
        let used = self.used(database, stream).await?;
        let name = sequence(stream);
        let sql = format!(
            "SELECT setval({}, $1::bigint + 1, false) FROM {name}
             WHERE CASE WHEN is_called THEN last_value + {BLOCK} ELSE last_value END <= $1::bigint",
            quote_literal(&name)
        );
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let raised = connection.rows(&sql, &[&used]).await?;
        Ok(!raised.is_empty())
    }

    /// The greatest number in the ids that a table has on any shard.
    async fn used(&self, database: &str, stream: &Stream) -> Result<i64, Fault> {
        let greatest = self.greatest(database, stream).await?;
        let buckets = i64::try_from(BUCKETS).unwrap_or(i64::MAX);
        Ok(if stream.carries {
            greatest.div_euclid(buckets)
        } else {
            greatest
        })
    }

    async fn make(&self, database: &str, home: &str, sql: &str) -> Result<(), Fault> {
        let mut connection = self.pool(database, home)?.connect().await?;
        super::setup::make_schema(&mut connection).await?;
        connection.rows(sql, &[]).await.map(drop)
    }

    /// The greatest id that a table has on any shard; 0 without rows.
    async fn greatest(&self, database: &str, stream: &Stream) -> Result<i64, Fault> {
        let mut greatest = 0;
        for shard in self.shard_names(database) {
            let mut connection = self.pool(database, &shard)?.connect().await?;
            let queries = connection
                .rows(GREATEST, &[&stream.schema, &stream.table, &stream.column])
                .await?;
            for query in &queries {
                let query: &str = column(Some(query), 0)?;
                let rows = connection.rows(query, &[]).await.map_err(|fault| {
                    fault.hint("Let the control role read the table, so that new ids are greater than those that are there.")
                })?;
                let found: Option<i64> = column(rows.first(), 0)?;
                greatest = greatest.max(found.unwrap_or_default());
            }
        }
        Ok(greatest)
    }
}

async fn take(
    connection: &mut Connection<'_>,
    name: &str,
    blocks: i64,
) -> Result<Vec<Range<i64>>, Fault> {
    let rows = connection.rows(TAKE, &[&name, &blocks]).await?;
    let block = |row| -> Result<Range<i64>, Fault> {
        let (first, length): (i64, i64) = (column(Some(row), 0)?, column(Some(row), 1)?);
        if length < 1 {
            return Err(
                Fault::error(SqlState::CONFIG, format!("sequence {name} does not ascend"))
                    .hint("Drop it: it is made anew."),
            );
        }
        Ok(first..first.saturating_add(length))
    };
    rows.iter().map(block).collect()
}

/// The name of a table's sequence, quoted.
fn sequence(stream: &Stream) -> String {
    let kind = if stream.carries { "keyed_ids" } else { "ids" };
    let name = match &stream.schema {
        Some(schema) => format!("{kind}_{schema}.{}", stream.table),
        None => format!("{kind}_{}", stream.table),
    };
    own_name(name)
}

/// The name of something of ours, quoted and with its schema.
pub(super) fn own_name(name: String) -> String {
    let name = if name.len() > NAME_BYTES_MAX {
        // What is cut off tells tables apart.
        let hash = hash::bytes(name.as_bytes(), 0);
        let mut start = name;
        start.truncate(start.floor_char_boundary(NAME_BYTES_MAX.saturating_sub(17)));
        format!("{start}_{hash:016x}")
    } else {
        name
    };
    format!("pgherd.{}", quote_ident(&name))
}

#[cfg(test)]
mod tests {
    use super::sequence;
    use crate::planner::plan::Stream;

    #[test]
    fn sequences_are_named_after_their_tables() {
        let check = |schema: Option<&str>, table: &str, carries, expect: &str| {
            let stream = Stream {
                schema: schema.map(String::from),
                table: table.into(),
                column: "id".into(),
                carries,
            };
            assert_eq!(sequence(&stream), expect);
        };
        check(None, "orders", false, "pgherd.\"ids_orders\"");
        check(Some("a\"b"), "t", true, "pgherd.\"keyed_ids_a\"\"b.t\"");
        let [one, other] = ["a", "b"].map(|end| {
            sequence(&Stream {
                schema: None,
                table: "x".repeat(62) + end,
                column: "id".into(),
                carries: true,
            })
        });
        assert!(one != other && one.len() == "pgherd.\"\"".len() + 63);
    }
}
