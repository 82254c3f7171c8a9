//! Lookup tables: for each value of a column of a sharded table, the keys that rows with it have. One table a
//! column, in schema `pgherd` of the home shard.
//!
//! *Invariant:* for each row of the sharded table that anyone can see there is an entry. It holds without a
//! commit over two servers, since entries are written ahead: an entry is committed here before its row is
//! sent to its shard, so that no moment has the row and not the entry. What is left of a row that was
//! rolled back, deleted or given another value is an entry too many. It costs a look at a shard that
//! answers that it has no such row: the entry says where to look, never what is there. To write both in
//! one transaction would need a prepared transaction on both servers, with twice the round trips, for the
//! sake of entries that do no harm.
//!
//! Rows that were there before the table are entered by whoever first needs it. New rows have entries from
//! the moment that the table is there; then transactions that are older are waited for, on each shard, and
//! what they left is read. The comment on the table says that this was done. Two proxies may do it at
//! once: both enter the same.
//!
//! Where other tables' rows are placed by the column, a value is entered with keys of one shard only. Two
//! sessions that enter one value for two shards at once may both be refused; the entries stay, and one of
//! them is to be deleted by hand.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::Control;
use super::pool::{Connection, column};
use crate::config::Lookup;
use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::placement::distribution::Distribution;
use crate::placement::rule::Unlisted;
use crate::planner::plan::Entry;
use crate::planner::{lookup_type, refuse};
use crate::sql::quote::quote_ident;
use crate::types::key::{Key, KeyError, KeyType};

/// Values that are looked up for one statement, and keys that are found for them.
pub const LOOKED_MAX: usize = 100_000;
/// Entries written, or rows read, in one go.
const BATCH: usize = 10_000;
/// How long transactions are waited for that are older than the table, and how often they are looked at. It
/// is longer than any client waits: one may be that of the client itself.
const OLDER_WAIT: Duration = Duration::from_mins(10);
const OLDER_EVERY: Duration = Duration::from_millis(50);
const FILLED: &str = "filled";

const STATE: &str = "
    SELECT to_regclass($1::text) IS NOT NULL,
        COALESCE(obj_description(to_regclass($1::text), 'pg_class'), '') = 'filled'";

/// The tables that are meant, each with the type of the column.
pub(super) const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname), a.atttypid
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
    WHERE c.relname = $2 AND n.nspname = COALESCE($1::text, n.nspname)
      AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_'";

/// Keys by the value that they were entered with.
type Keys = BTreeMap<Key<'static>, Vec<Vec<Key<'static>>>>;

/// How far a lookup table has come, as far as this process has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Made,
    Filled,
}

/// Whether no transaction before this one is under way any more, but those of other databases.
const OLDER: &str = "
    SELECT NOT EXISTS (
        SELECT FROM pg_snapshot_xip(pg_current_snapshot()) AS x (id)
        WHERE x.id < $1::text::xid8
          AND NOT EXISTS (SELECT FROM pg_stat_activity a
                          WHERE a.datname <> current_database()
                            AND a.backend_xid::text::int8 = (x.id::text::numeric % 4294967296)::int8)
          AND NOT EXISTS (SELECT FROM pg_prepared_xacts p
                          WHERE p.database <> current_database()
                            AND p.transaction::text::int8 = (x.id::text::numeric % 4294967296)::int8))";

impl Control {
    /// The keys that rows with these values may have, by the value.
    ///
    /// # Errors
    /// The home shard does not tell, the table cannot be made or filled, or there are too many keys.
    ///
    /// # Cancel safety
    /// Safe: a table that was being filled is filled again.
    pub async fn lookup_keys(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
        values: &[Key<'static>],
    ) -> Result<Keys, Fault> {
        // Another proxy may be making the table anew.
        for _ in 0..2 {
            self.ready(database, distribution, lookup, State::Filled)
                .await?;
            let found = self.keys(database, lookup, values).await;
            let (is_filled, found) = self.unless_gone(lookup, found)?;
            if is_filled {
                return Ok(found);
            }
            self.forget(lookup);
        }
        Err(Fault::error(
            SqlState::OBJECT_IN_USE,
            format!("the lookup table {} is being made anew", name(lookup)),
        )
        .hint("Repeat the statement."))
    }

    /// Writes entries, where they are not there.
    ///
    /// # Errors
    /// The home shard does not take them; 22023 for a value of several shards, where it may be of one only.
    ///
    /// # Cancel safety
    /// Safe: they are there or not.
    pub async fn enter(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
        entries: &[Entry],
    ) -> Result<(), Fault> {
        // What is there decides whether a value may be entered for a shard.
        let wanted = if lookup.leads {
            State::Filled
        } else {
            State::Made
        };
        self.ready(database, distribution, lookup, wanted).await?;
        for entries in entries.chunks(BATCH) {
            let entered = self
                .enter_batch(database, distribution, lookup, entries)
                .await;
            self.unless_gone(lookup, entered)?;
        }
        Ok(())
    }

    async fn enter_batch(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
        entries: &[Entry],
    ) -> Result<(), Fault> {
        if lookup.leads {
            self.check_places(database, distribution, lookup, entries)
                .await?;
        }
        let home = &self.database(database)?.home;
        write(
            &mut self.pool(database, home)?.connect().await?,
            lookup,
            entries,
        )
        .await?;
        if lookup.leads {
            // Somebody may have entered another shard meanwhile: who comes last sees both.
            self.check_places(database, distribution, lookup, entries)
                .await?;
        }
        Ok(())
    }

    /// Whether each value is entered for one shard, these entries among them.
    async fn check_places(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
        entries: &[Entry],
    ) -> Result<(), Fault> {
        let mut values: Vec<Key<'static>> = entries.iter().map(|it| it.value.clone()).collect();
        values.sort();
        values.dedup();
        let (_, known) = self.keys(database, lookup, &values).await?;
        let mut places: HashMap<&Key<'static>, ShardSet> = HashMap::new();
        let mut pairs: Vec<(&Key<'static>, &Vec<Key<'static>>)> = Vec::new();
        for entry in entries {
            pairs.push((&entry.value, &entry.key));
        }
        for (value, keys) in &known {
            for key in keys {
                pairs.push((value, key));
            }
        }
        for (value, key) in pairs {
            let place = match distribution.place(key) {
                Err(KeyError::Unlisted(at)) => match distribution.directories().get(at) {
                    Some(directory) => {
                        let unlisted = Unlisted::new(directory, key);
                        let listed = self.ask_directory(database, &unlisted).await?;
                        directory.shard(key, &listed)
                    }
                    None => Err(KeyError::Unprovable),
                },
                placed => placed,
            };
            let place = place.map_err(|error| crate::planner::key_fault(&error, &lookup.table))?;
            let places = places.entry(value).or_default();
            places.insert(place);
            if places.len() > 1 {
                return Err(refuse::scattered(
                    &value.to_string(),
                    &lookup.table,
                    &lookup.column,
                ));
            }
        }
        Ok(())
    }

    /// The keys that values are entered with, and whether the table has been filled.
    async fn keys(
        &self,
        database: &str,
        lookup: &Lookup,
        values: &[Key<'static>],
    ) -> Result<(bool, Keys), Fault> {
        let mut found = Keys::new();
        let Some(kind) = values.first().map(type_of) else {
            return Ok((true, found));
        };
        let home = &self.database(database)?.home;
        let keys: Vec<String> = (1..=lookup.key.len())
            .map(|at| format!("key{at}::text"))
            .collect();
        let sql = format!(
            "SELECT value::text, {}, is_filled
             FROM (SELECT COALESCE(obj_description(to_regclass($2::text), 'pg_class'), '') = '{FILLED}') AS state (is_filled)
             LEFT JOIN {} ON value = ANY ($1::text[]::{kind}[]) LIMIT {}",
            keys.join(", "),
            name(lookup),
            LOOKED_MAX.saturating_add(1)
        );
        let texts: Vec<String> = values.iter().map(text_of).collect();
        let mut connection = self.pool(database, home)?.connect().await?;
        let rows = connection.rows(&sql, &[&texts, &name(lookup)]).await?;
        if rows.len() > LOOKED_MAX {
            return Err(refuse::many_lookups(LOOKED_MAX));
        }
        let by_text: HashMap<&str, &Key<'static>> =
            texts.iter().map(String::as_str).zip(values).collect();
        let is_filled = column(rows.first(), lookup.key.len().saturating_add(1))?;
        for row in &rows {
            let value: Option<&str> = column(Some(row), 0)?;
            let Some(value) = value else {
                continue;
            };
            let mut key = Vec::with_capacity(lookup.key.len());
            for (at, (_, kind)) in lookup.key.iter().enumerate() {
                let text: &str = column(Some(row), at.saturating_add(1))?;
                let own =
                    Key::from_text(*kind, text.as_bytes()).map_err(|_unread| unread(lookup))?;
                key.push(own.into_owned());
            }
            let value = by_text.get(value).ok_or_else(|| unread(lookup))?;
            found.entry(Key::clone(value)).or_default().push(key);
        }
        Ok((is_filled, found))
    }

    /// Makes the lookup table where there is none, and fills it if it is to be read. Returns whether there
    /// was anything to do.
    ///
    /// # Errors
    /// What kept the home shard from making it, or a shard from telling its rows.
    ///
    /// # Cancel safety
    /// Safe: what was begun is done again.
    pub async fn make_lookup(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
    ) -> Result<bool, Fault> {
        self.ready(database, distribution, lookup, State::Filled)
            .await
    }

    async fn ready(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
        wanted: State,
    ) -> Result<bool, Fault> {
        let key = (database.to_owned(), name(lookup));
        if self
            .lookups()
            .get(&key)
            .is_some_and(|state| *state >= wanted)
        {
            return Ok(false);
        }
        let _turn = self.filling.lock().await;
        if self
            .lookups()
            .get(&key)
            .is_some_and(|state| *state >= wanted)
        {
            return Ok(false);
        }
        let mut state = self.state(database, lookup).await?;
        let was = state;
        if state.is_none() {
            self.make_table(database, lookup).await?;
            state = Some(State::Made);
        }
        // Rows are entered while it is filled.
        self.lookups().insert(key.clone(), State::Made);
        if wanted == State::Filled && state != Some(State::Filled) {
            self.fill(database, distribution, lookup).await?;
            state = Some(State::Filled);
        }
        if let Some(state) = state {
            self.lookups().insert(key, state);
        }
        Ok(was != state)
    }

    fn lookups(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), State>> {
        self.lookups
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What failed is looked at anew: the table may have been dropped.
    fn unless_gone<T>(&self, lookup: &Lookup, result: Result<T, Fault>) -> Result<T, Fault> {
        if result.is_err() {
            self.forget(lookup);
        }
        result
    }

    fn forget(&self, lookup: &Lookup) {
        let own = name(lookup);
        self.lookups().retain(|(_, known), _| *known != own);
    }

    async fn state(&self, database: &str, lookup: &Lookup) -> Result<Option<State>, Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let rows = connection.rows(STATE, &[&name(lookup)]).await?;
        let (is_made, is_filled): (bool, bool) =
            (column(rows.first(), 0)?, column(rows.first(), 1)?);
        Ok(match (is_made, is_filled) {
            (true, true) => Some(State::Filled),
            (true, false) => Some(State::Made),
            (false, _) => None,
        })
    }

    async fn make_table(&self, database: &str, lookup: &Lookup) -> Result<(), Fault> {
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let found = connection
            .rows(TABLES, &[&lookup.schema, &lookup.table, &lookup.column])
            .await?;
        let oid: Option<u32> = match found.first() {
            Some(row) => Some(column(Some(row), 1)?),
            None => None,
        };
        let Some(kind) = oid.and_then(lookup_type) else {
            return Err(refuse::unknown_lookup(&lookup.table));
        };
        let mut columns = vec![format!("value {} NOT NULL", sql_type(kind))];
        let mut names = vec!["value".to_owned()];
        for (at, (_, kind)) in lookup.key.iter().enumerate() {
            let own = format!("key{}", at.saturating_add(1));
            columns.push(format!("{own} {} NOT NULL", sql_type(*kind)));
            names.push(own);
        }
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))",
            name(lookup),
            columns.join(", "),
            names.join(", ")
        );
        let made = match super::setup::make_schema(&mut connection).await {
            Ok(_) => connection.rows(&sql, &[]).await.map(drop),
            Err(fault) => Err(fault),
        };
        drop(connection);
        match made {
            // Another proxy may have made the schema or it at the same moment.
            Err(fault) if self.state(database, lookup).await?.is_none() => Err(fault.hint(
                "Let the control role create in schema pgherd, or run pgherd setup with one that may.",
            )),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Enters the rows of all shards.
    async fn fill(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
    ) -> Result<(), Fault> {
        for shard in self.shard_names(database) {
            self.wait_for_older(database, &shard).await?;
            let mut connection = self.pool(database, &shard)?.connect().await?;
            let tables = connection
                .rows(TABLES, &[&lookup.schema, &lookup.table, &lookup.column])
                .await?;
            for table in &tables {
                let oid: u32 = column(Some(table), 1)?;
                let kind = lookup_type(oid).ok_or_else(|| refuse::unknown_lookup(&lookup.table))?;
                let table: &str = column(Some(table), 0)?;
                connection.rows("BEGIN READ ONLY", &[]).await?;
                let filled = self
                    .fill_from(database, lookup, &mut connection, table, kind)
                    .await;
                // Without an end it would be somebody else's transaction.
                let ended = connection.rows("ROLLBACK", &[]).await;
                if ended.is_err() {
                    connection.discard();
                }
                filled.map_err(|fault| {
                    fault.hint("Let the control role read the table on every shard, and write in schema pgherd.")
                })?;
            }
        }
        if lookup.leads {
            self.check_filled(database, distribution, lookup).await?;
        }
        let home = &self.database(database)?.home;
        let mut connection = self.pool(database, home)?.connect().await?;
        let sql = format!("COMMENT ON TABLE {} IS '{FILLED}'", name(lookup));
        connection.rows(&sql, &[]).await.map(drop)
    }

    async fn fill_from(
        &self,
        database: &str,
        lookup: &Lookup,
        connection: &mut Connection<'_>,
        table: &str,
        kind: KeyType,
    ) -> Result<(), Fault> {
        let home = &self.database(database)?.home;
        let value = quote_ident(&lookup.column);
        let mut columns = vec![format!("{value}::text")];
        let mut present = vec![format!("{value} IS NOT NULL")];
        for (column, _) in &lookup.key {
            columns.push(format!("{}::text", quote_ident(column)));
            present.push(format!("{} IS NOT NULL", quote_ident(column)));
        }
        let sql = format!(
            "DECLARE pgherd_fill NO SCROLL CURSOR FOR SELECT {} FROM {table} WHERE {}",
            columns.join(", "),
            present.join(" AND ")
        );
        connection.rows(&sql, &[]).await?;
        let fetch = format!("FETCH {BATCH} FROM pgherd_fill");
        loop {
            let rows = connection.rows(&fetch, &[]).await?;
            if rows.is_empty() {
                return Ok(());
            }
            let mut lists: Vec<Vec<String>> = Vec::new();
            for at in 0..columns.len() {
                let list: Result<Vec<String>, Fault> =
                    rows.iter().map(|row| column(Some(row), at)).collect();
                lists.push(list?);
            }
            let mut home = self.pool(database, home)?.connect().await?;
            write_texts(&mut home, lookup, sql_type(kind), &lists).await?;
        }
    }

    /// Waits for transactions that may have written before the lookup table was there.
    async fn wait_for_older(&self, database: &str, shard: &str) -> Result<(), Fault> {
        let mut connection = self.pool(database, shard)?.connect().await?;
        let rows = connection
            .rows("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[])
            .await?;
        let next: String = column(rows.first(), 0)?;
        let mut waited = Duration::ZERO;
        loop {
            let rows = connection.rows(OLDER, &[&next]).await?;
            if column(rows.first(), 0)? {
                return Ok(());
            }
            if waited >= OLDER_WAIT {
                return Err(Fault::error(
                    SqlState::OBJECT_IN_USE,
                    format!(
                        "a transaction on shard \"{shard}\" keeps a lookup table from being filled"
                    ),
                )
                .detail("It began before new rows were entered, and may have written some.")
                .hint("End transactions that are open for long, then repeat the statement."));
            }
            tokio::time::sleep(OLDER_EVERY).await;
            waited = waited.saturating_add(OLDER_EVERY);
        }
    }

    /// Whether all values that were there are on one shard each.
    async fn check_filled(
        &self,
        database: &str,
        distribution: &Distribution,
        lookup: &Lookup,
    ) -> Result<(), Fault> {
        let home = &self.database(database)?.home;
        let sql = format!(
            "SELECT value::text FROM {} GROUP BY value HAVING count(*) > 1 LIMIT {LOOKED_MAX}",
            name(lookup)
        );
        let mut connection = self.pool(database, home)?.connect().await?;
        let rows = connection.rows(&sql, &[]).await?;
        let found = connection
            .rows(TABLES, &[&lookup.schema, &lookup.table, &lookup.column])
            .await?;
        drop(connection);
        let oid: u32 = column(found.first(), 1)?;
        let kind = lookup_type(oid).ok_or_else(|| refuse::unknown_lookup(&lookup.table))?;
        let mut values = Vec::with_capacity(rows.len());
        for row in &rows {
            let text: &str = column(Some(row), 0)?;
            let value = Key::from_text(kind, text.as_bytes()).map_err(|_unread| unread(lookup))?;
            values.push(value.into_owned());
        }
        for values in values.chunks(BATCH) {
            let (_, known) = self.keys(database, lookup, values).await?;
            let lookup = std::sync::Arc::new(lookup.clone());
            let pairs = known.into_iter().flat_map(|(value, keys)| {
                let lookup = std::sync::Arc::clone(&lookup);
                keys.into_iter().map(move |key| Entry {
                    lookup: std::sync::Arc::clone(&lookup),
                    value: value.clone(),
                    key,
                })
            });
            let entries: Vec<Entry> = pairs.collect();
            self.check_places(database, distribution, &lookup, &entries)
                .await?;
        }
        Ok(())
    }
}

async fn write(
    connection: &mut Connection<'_>,
    lookup: &Lookup,
    entries: &[Entry],
) -> Result<(), Fault> {
    let Some(kind) = entries.first().map(|entry| type_of(&entry.value)) else {
        return Ok(());
    };
    let mut lists = vec![
        entries
            .iter()
            .map(|entry| text_of(&entry.value))
            .collect::<Vec<_>>(),
    ];
    for at in 0..lookup.key.len() {
        let keys = entries.iter().filter_map(|entry| entry.key.get(at));
        lists.push(keys.map(text_of).collect());
    }
    write_texts(connection, lookup, kind, &lists).await
}

/// Writes entries in one statement: in order, so that two such do not wait for each other.
async fn write_texts(
    connection: &mut Connection<'_>,
    lookup: &Lookup,
    kind: &str,
    lists: &[Vec<String>],
) -> Result<(), Fault> {
    let kinds = std::iter::once(kind).chain(lookup.key.iter().map(|(_, kind)| sql_type(*kind)));
    let kinds: Vec<&str> = kinds.collect();
    let each = |write: &dyn Fn(usize) -> String| -> String {
        let all: Vec<String> = (1..=lists.len()).map(write).collect();
        all.join(", ")
    };
    let kind = |at: usize| kinds.get(at.saturating_sub(1)).copied().unwrap_or("text");
    let sql = format!(
        "INSERT INTO {} SELECT DISTINCT {} FROM unnest({}) AS entries ({}) ORDER BY {} ON CONFLICT DO NOTHING",
        name(lookup),
        each(&|at| format!("c{at}::{}", kind(at))),
        each(&|at| format!("${at}::text[]")),
        each(&|at| format!("c{at}")),
        each(&|at| at.to_string()),
    );
    let parameters: Vec<&(dyn tokio_postgres::types::ToSql + Sync)> = lists
        .iter()
        .map(|list| -> &(dyn tokio_postgres::types::ToSql + Sync) { list })
        .collect();
    connection.rows(&sql, &parameters).await.map(drop)
}

/// The type that a lookup table has for a column of this type.
fn sql_type(kind: KeyType) -> &'static str {
    match kind {
        KeyType::Int2 | KeyType::Int4 | KeyType::Int8 => "bigint",
        KeyType::Uuid => "uuid",
        KeyType::Text
        | KeyType::Enum
        | KeyType::Date
        | KeyType::Timestamp
        | KeyType::TimestampTz
        | KeyType::Numeric => "text COLLATE \"C\"",
    }
}

fn type_of(value: &Key<'_>) -> &'static str {
    match value {
        Key::Int(_) => "bigint",
        Key::Uuid(_) => "uuid",
        Key::Text(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => "text",
    }
}

/// A value as `::text` prints it.
pub fn text_of(value: &Key<'_>) -> String {
    let text = value.to_string();
    match value {
        Key::Uuid(_) => {
            let mut parts = Vec::new();
            let mut at = 0_usize;
            for length in [8_usize, 4, 4, 4, 12] {
                parts.push(text.get(at..at.saturating_add(length)).unwrap_or_default());
                at = at.saturating_add(length);
            }
            parts.join("-")
        }
        Key::Int(_) | Key::Text(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => text,
    }
}

fn unread(lookup: &Lookup) -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        format!(
            "the lookup table {} has an entry that cannot be read",
            name(lookup)
        ),
    )
    .hint("Drop it: it is made anew.")
}

/// The name of a lookup table, quoted.
pub fn name(lookup: &Lookup) -> String {
    let table = match &lookup.schema {
        Some(schema) => format!("{schema}.{}", lookup.table),
        None => lookup.table.clone(),
    };
    super::ids::own_name(format!("lookup_{table}.{}", lookup.column))
}
