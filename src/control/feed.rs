//! Changes of cached tables that did not come through a proxy, as a shard's logical decoding tells of them.
//!
//! A temporary slot is asked again and again: it is gone with its connection, and holds no WAL back after that.
//! Decoding tells of a commit before it can be seen; changes are handed on once they can.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Control;
use super::pool::{Connection, column};
use crate::error::{Fault, SqlState};
use crate::wire::pgoutput::{self, Relation, Row};

/// The publication that names the tables.
const PUBLICATION: &str = "pgherd_cache";
/// Messages that are asked for at once, and some more to the end of a transaction.
const MESSAGES: i32 = 10_000;
/// How long a commit may take to be seen, and how often it is looked at.
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);
const VISIBLE_EVERY: Duration = Duration::from_millis(5);
/// The number of the lock that one proxy of a deployment holds for it.
const LOCK: i64 = 0x7067_6865_7264_6366;

/// A row that was changed, or a table of which any row was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub schema: String,
    pub table: String,
    /// The columns of the row before and after, as far as they are told, by name; `None`: any row.
    pub rows: Option<Vec<BTreeMap<String, String>>>,
    /// Whether a column that is not told of before is as it is after.
    pub keeps: Vec<String>,
}

/// What tells of a shard's changes.
#[derive(Debug)]
pub struct Feed<'a> {
    connection: Connection<'a>,
    slot: String,
    relations: HashMap<u32, Relation>,
}

impl Control {
    /// Begins to be told of the changes of tables. `alone`: only if no other proxy is. `None`: another is.
    ///
    /// # Errors
    /// Why the shard cannot tell: `wal_level`, or the control role's rights.
    ///
    /// # Cancel safety
    /// Not safe: the slot stays until the connection is closed.
    pub async fn feed(
        &self,
        database: &str,
        shard: &str,
        tables: &[(String, String)],
        alone: bool,
    ) -> Result<Option<Feed<'_>>, Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection
            .rows("SELECT pg_catalog.current_setting('wal_level')", &[])
            .await?;
        let level: &str = column(rows.first(), 0)?;
        if level != "logical" {
            return Err(untold(
                &format!("wal_level is {level}"),
                "Set wal_level = logical on the server.",
            ));
        }
        if alone {
            let lock = "SELECT pg_catalog.pg_try_advisory_lock($1)";
            let rows = connection.rows(lock, &[&LOCK]).await?;
            if !column::<bool>(rows.first(), 0)? {
                return Ok(None);
            }
        }
        match open(connection, tables).await {
            Ok(feed) => Ok(Some(feed)),
            Err((mut connection, fault)) => {
                // The lock, and perhaps a slot, go with it.
                connection.discard();
                Err(fault)
            }
        }
    }
}

async fn open<'a>(
    mut connection: Connection<'a>,
    tables: &[(String, String)],
) -> Result<Feed<'a>, (Connection<'a>, Fault)> {
    if let Err(fault) = publish(&mut connection, tables).await {
        return Err((connection, fault));
    }
    let create = "SELECT slot_name::text FROM pg_catalog.pg_create_logical_replication_slot(
        pg_catalog.concat('pgherd_cache_', pg_catalog.pg_backend_pid()), 'pgoutput', true)";
    let slot = match connection.rows(create, &[]).await {
        Ok(rows) => column::<String>(rows.first(), 0),
        Err(fault) => Err(fault),
    };
    match slot {
        Ok(slot) => Ok(Feed {
            connection,
            slot,
            relations: HashMap::new(),
        }),
        Err(fault) => Err((connection, fault)),
    }
}

/// Makes the publication name these tables, as far as they are there and can be published without making
/// their writes fail.
async fn publish(
    connection: &mut Connection<'_>,
    tables: &[(String, String)],
) -> Result<(), Fault> {
    const FIT: &str = "
        SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ' ORDER BY c.oid)
        FROM unnest($1::text[], $2::text[]) AS t (schema, name)
        JOIN pg_catalog.pg_namespace n ON t.schema IN ('', n.nspname) AND n.nspname !~ '^pg_'
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
          AND (c.relreplident = 'f' OR c.relreplident = 'd' AND EXISTS (
              SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))";
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables
        .iter()
        .map(|(schema, name)| (schema.as_str(), name.as_str()))
        .unzip();
    let rows = connection.rows(FIT, &[&schemas, &names]).await?;
    let Some(list) = column::<Option<String>>(rows.first(), 0)? else {
        return Err(untold(
            "no cached table is there that has a primary key",
            "Give cached tables primary keys.",
        ));
    };
    let known = "SELECT FROM pg_catalog.pg_publication WHERE pubname = $1";
    let sql = if connection.rows(known, &[&PUBLICATION]).await?.is_empty() {
        format!(
            "CREATE PUBLICATION {PUBLICATION} FOR TABLE {list} WITH (publish_via_partition_root = true)"
        )
    } else {
        format!("ALTER PUBLICATION {PUBLICATION} SET TABLE {list}")
    };
    connection.rows(&sql, &[]).await.map(drop)
}

fn untold(why: &str, hint: &str) -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("the shard does not tell of changes: {why}"),
    )
    .hint(hint)
}

impl Feed<'_> {
    /// What has changed since the last time, and can be seen; empty where nothing has.
    ///
    /// # Errors
    /// The connection is lost, or the server's message: what has changed since is not known.
    ///
    /// # Cancel safety
    /// Not safe: what was read is lost.
    pub async fn next(&mut self) -> Result<Vec<Changed>, Fault> {
        const CHANGES: &str = "
            SELECT xid::text, data FROM pg_catalog.pg_logical_slot_get_binary_changes(
                $1, NULL, $2, 'proto_version', '1', 'publication_names', 'pgherd_cache')";
        let rows = self
            .connection
            .rows(CHANGES, &[&self.slot, &MESSAGES])
            .await?;
        let mut changes = Vec::new();
        let mut transactions: Vec<i64> = Vec::new();
        for row in &rows {
            let row = Some(row);
            let transaction: &str = column(row, 0)?;
            if let Ok(transaction) = transaction.parse()
                && transactions.last() != Some(&transaction)
            {
                transactions.push(transaction);
            }
            let data: &[u8] = column(row, 1)?;
            match pgoutput::read(data) {
                Some(pgoutput::Change::Relation { id, relation }) => {
                    self.relations.insert(id, relation);
                }
                Some(pgoutput::Change::Insert { id, new }) => self.add(&mut changes, id, vec![new]),
                Some(pgoutput::Change::Update { id, old, new }) => {
                    self.add(&mut changes, id, old.into_iter().chain([new]).collect());
                }
                Some(pgoutput::Change::Delete { id, old }) => self.add(&mut changes, id, vec![old]),
                Some(pgoutput::Change::Truncate { ids }) => {
                    for id in ids {
                        if let Some(relation) = self.relations.get(&id) {
                            changes.push(Changed {
                                schema: relation.schema.clone(),
                                table: relation.name.clone(),
                                rows: None,
                                keeps: Vec::new(),
                            });
                        }
                    }
                }
                Some(pgoutput::Change::Other) => (),
                None => {
                    return Err(untold(
                        "a message of pgoutput is not understood",
                        "Report it.",
                    ));
                }
            }
        }
        if !changes.is_empty() {
            self.wait_visible(&transactions).await?;
        }
        Ok(changes)
    }

    fn add(&self, changes: &mut Vec<Changed>, id: u32, rows: Vec<Row>) {
        let Some(relation) = self.relations.get(&id) else {
            return;
        };
        let named = |row: Row| {
            let values = relation.columns.iter().zip(row);
            let values = values.filter_map(|((name, _), value)| Some((name.clone(), value?)));
            values.collect::<BTreeMap<String, String>>()
        };
        let keys = relation.columns.iter().filter(|(_, is_key)| *is_key);
        changes.push(Changed {
            schema: relation.schema.clone(),
            table: relation.name.clone(),
            rows: Some(rows.into_iter().map(named).collect()),
            keeps: keys.map(|(name, _)| name.clone()).collect(),
        });
    }

    /// Waits until the commits of these transactions can be seen.
    async fn wait_visible(&mut self, transactions: &[i64]) -> Result<(), Fault> {
        // Numbers of 32 bits, of the epoch of the newest or the one before.
        const SEEN: &str = "
            SELECT COALESCE(pg_catalog.bool_and(pg_catalog.pg_visible_in_snapshot(
                (CASE WHEN (m & ~4294967295) + x <= m THEN (m & ~4294967295) + x
                      ELSE (m & ~4294967295) + x - 4294967296 END)::text::pg_catalog.xid8, s)), true)
            FROM pg_catalog.unnest($1::int8[]) AS t (x),
                 (SELECT s, pg_catalog.pg_snapshot_xmax(s)::text::int8 AS m
                  FROM pg_catalog.pg_current_snapshot() AS s) AS now";
        let deadline = tokio::time::Instant::now() + VISIBLE_WITHIN;
        loop {
            let rows = self.connection.rows(SEEN, &[&transactions]).await?;
            if column(rows.first(), 0)? {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(untold(
                    "a commit cannot be seen for long",
                    "See whether synchronous_standby_names can be met.",
                ));
            }
            tokio::time::sleep(VISIBLE_EVERY).await;
        }
    }

    /// Ends it: the slot goes with its connection.
    pub fn close(mut self) {
        self.connection.discard();
    }
}
