//! An UPDATE that sets the key of rows: each shard carries it out on its own rows, and what belongs to another shard
//! then is deleted there and inserted where it belongs, all in one transaction.
//!
//! The UPDATE is the client's own, so that values, triggers, constraints and what it returns are PostgreSQL's; it
//! returns where each row is and what its key became besides. All shards have carried it out before a row
//! is moved: none is updated twice. A row goes as text, whole but for generated columns. What an UPDATE would not
//! have done (triggers of INSERT and DELETE, actions of foreign keys, policies) is looked for first, and refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Fault, SqlState};
use crate::merge::row::{self, Values};
use crate::placement::distribution::Distribution;
use crate::placement::{ShardId, ShardSet};
use crate::planner;
use crate::planner::plan::Moves;
use crate::sql::quote::{quote_ident, quote_literal};
use crate::sql::scan::{Encoding, scan};
use crate::types::key::{Key, KeyError, KeyType};
use crate::wire::backend;
use crate::wire::frame::HEADER;
use crate::wire::frontend;

use super::insert::{Returned, listen, trimmed};
use super::member::{Member, bytes_max, close, commit_all, open_parts};
use super::{Conversation, Source, Trouble, Wide, complete};

/// Bytes of rows in one INSERT.
const INSERTED: usize = 256 * 1024;

/// The rows that leave a shard: where they are there.
type Leaving = BTreeMap<ShardId, Vec<String>>;

/// Runs it on each of `shards`; the rows affected are added up, those returned come shard by shard.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    moves: &Moves,
    describe: bool,
) -> Result<(), Trouble> {
    if wide.verb != "UPDATE" {
        // An EXPLAIN would tell, or do, a part of it.
        return Err(Trouble::Fault(moves.otherwise.clone()));
    }
    let topology = Arc::clone(client.topology());
    let Some(distribution) = topology.distribution(moves.distribution) else {
        return Err(Trouble::Fault(gone()));
    };
    // Wherever rows may go: so that connections are taken in the order of the shards.
    let mut members = open_parts(client, distribution.shards()).await?;
    let mut moving = Moving {
        moves,
        distribution,
        is_utf8: wide.lexing.encoding == Encoding::Utf8,
        used: ShardSet::default(),
        bytes: 0,
    };
    let result = moving
        .carry_out(client, wide, shards, describe, &mut members)
        .await;
    close(client, members).await;
    let returned = result?;
    answer(client, wide, moves, describe, returned)
}

struct Moving<'a> {
    moves: &'a Moves,
    distribution: &'a Distribution,
    /// Whether keys come in the encoding of the servers.
    is_utf8: bool,
    /// Where something was done.
    used: ShardSet,
    /// Of rows on their way.
    bytes: usize,
}

/// What the table is on the servers.
struct Table {
    name: String,
    /// Those that are not generated, as a list.
    columns: String,
    /// The same of a row `r`.
    values: String,
}

impl Moving<'_> {
    async fn carry_out<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        shards: &ShardSet,
        describe: bool,
        members: &mut Vec<Member>,
    ) -> Result<Returned, Trouble> {
        let mut returned = Returned::default();
        let mut table = None;
        let mut sources = Vec::new();
        // One after the other, in the order of the shards, as in `broadcast`: no two wait in a circle.
        for member in members.iter_mut() {
            if !shards.contains(member.shard) {
                continue;
            }
            self.begin(member)?;
            if table.is_none() {
                table = Some(self.check(client, member).await?);
            }
            self.push_update(client, wide, member, describe)?;
            listen(client, member, &mut returned).await?;
            sources.push(member.shard);
        }
        let mut leaving = Leaving::new();
        for (shard, rows) in sources.into_iter().zip(&returned.rows) {
            for row in rows {
                if let Some(place) = self.leaves(shard, row)? {
                    leaving.entry(shard).or_default().push(place);
                }
            }
        }
        if let (Some(table), false) = (&table, leaving.is_empty()) {
            let joined = members.iter().all(|member| member.joined);
            if !joined {
                client.check_two_phase().await?;
            }
            self.move_rows(client, table, &leaving, members).await?;
        }
        let (mut used, idle): (Vec<Member>, Vec<Member>) = std::mem::take(members)
            .into_iter()
            .partition(|member| self.used.contains(member.shard));
        let committed = commit_all(client, &mut used).await;
        members.extend(used);
        members.extend(idle);
        committed.map(|()| returned)
    }

    fn begin(&mut self, member: &mut Member) -> Result<(), Trouble> {
        if !self.used.contains(member.shard) {
            member.begin()?;
            self.used.insert(member.shard);
        }
        Ok(())
    }

    /// Asks what the table is, and whether rows can be moved as an UPDATE would have changed them.
    async fn check<C: Conversation>(
        &self,
        client: &mut C,
        member: &mut Member,
    ) -> Result<Table, Trouble> {
        let moves = self.moves;
        let key: Vec<String> = moves
            .key
            .iter()
            .map(|column| quote_literal(column))
            .collect();
        let sql = CHECK
            .replace("$table", &quote_literal(&moves.table.quoted()))
            .replace("$key", &key.join(","));
        member.push_text(sql.as_bytes())?;
        let rows = texts(client, member).await?;
        let mut found = rows.into_iter().next().unwrap_or_default().into_iter();
        let mut next = || found.next().flatten();
        let (name, why, columns, values) = (next(), next(), next(), next());
        if let Some(why) = why {
            let fault = moves.otherwise.clone();
            return Err(Trouble::Fault(fault.detail(format!(
                "Its rows cannot be moved to another shard as an UPDATE would change them: {why}."
            ))));
        }
        let (Some(name), Some(columns), Some(values)) = (name, columns, values) else {
            return Err(Trouble::Fault(gone()));
        };
        Ok(Table {
            name,
            columns,
            values,
        })
    }

    /// Queues the client's own UPDATE, which returns the place of each row and its key besides.
    fn push_update<C: Conversation>(
        &self,
        client: &C,
        wide: &Wide,
        member: &mut Member,
        describe: bool,
    ) -> Result<(), Trouble> {
        let moves = self.moves;
        let text = wide.source.sql();
        let tokens = scan(text, wide.lexing).map_err(|_unreadable| gone())?;
        let last = tokens.iter().rev().find(|token| token.of(text) != b";");
        let end = last.map_or(text.len(), |token| token.end);
        let alias = quote_ident(&moves.alias);
        let mut hidden = vec![format!("{alias}.ctid::pg_catalog.text")];
        for column in &moves.key {
            hidden.push(format!("{alias}.{}::pg_catalog.text", quote_ident(column)));
        }
        let before = if moves.returns {
            "\n, "
        } else {
            "\nRETURNING "
        };
        let own = text.get(..end).unwrap_or_default();
        let text = [own, before.as_bytes(), hidden.join(", ").as_bytes()].concat();
        match &wide.source {
            Source::Text(_) => member.push_text(&text),
            Source::Bind {
                prepared,
                after_names,
                ..
            } => {
                let parse = [text.as_slice(), b"\0", prepared.types_declared()].concat();
                let body = [b"\0\0", after_names.as_slice()].concat();
                let bind = frontend::bind(&body).map_err(Fault::from)?;
                let all: Vec<usize> = (0..bind.len()).collect();
                let bind = trimmed(&bind, &all, hidden.len());
                let detour = client.detour(prepared);
                let describe = describe && moves.returns;
                member.push_own_statement(prepared, &parse, &bind, &detour, describe)
            }
        }
    }

    /// The columns that the client did not ask for.
    fn hidden(&self) -> usize {
        self.moves.key.len().saturating_add(1)
    }

    /// Where a row that belongs to another shard now is on this one.
    fn leaves(&self, shard: ShardId, row: &[u8]) -> Result<Option<String>, Trouble> {
        let body = row.get(HEADER..).unwrap_or_default();
        let own = columns(row).saturating_sub(self.hidden());
        let mut values = Values::of(body).skip(own);
        let place = values.next().flatten().ok_or_else(gone)?;
        let key: Vec<Option<&[u8]>> = values.collect();
        if self.shard_of(&key)? == shard {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(place).into_owned()))
    }

    /// The shard of a row with this key, as the server writes it.
    fn shard_of(&self, key: &[Option<&[u8]>]) -> Result<ShardId, Trouble> {
        let read = |(kind, value): (&KeyType, Option<&[u8]>)| {
            let value = value.ok_or(KeyError::Null)?;
            if !self.is_utf8 && !value.is_ascii() {
                return Err(KeyError::Unprovable);
            }
            Key::from_text(*kind, value).map(Key::into_owned)
        };
        let kinds = self.distribution.key().iter();
        let placed: Result<Vec<Key<'static>>, KeyError> =
            kinds.zip(key.iter().copied()).map(read).collect();
        let placed = placed.and_then(|key| self.distribution.place(&key));
        placed.map_err(|error| {
            Trouble::Fault(planner::key_fault(&error, &self.moves.table.to_string()))
        })
    }

    /// Deletes rows where they are, and inserts them where they belong.
    async fn move_rows<C: Conversation>(
        &mut self,
        client: &mut C,
        table: &Table,
        leaving: &Leaving,
        members: &mut [Member],
    ) -> Result<(), Trouble> {
        let mut arriving: BTreeMap<ShardId, Vec<String>> = BTreeMap::new();
        for member in members.iter_mut() {
            let Some(places) = leaving.get(&member.shard) else {
                continue;
            };
            let key = self.moves.key.iter();
            let key =
                key.map(|column| format!("pgherd.{}::pg_catalog.text, ", quote_ident(column)));
            let sql = format!(
                "DELETE FROM {} AS pgherd WHERE pgherd.ctid = ANY ('{{\"{}\"}}'::pg_catalog.tid[]) \
                 RETURNING {}(pgherd.*)::pg_catalog.text",
                table.name,
                places.join("\",\""),
                key.collect::<String>()
            );
            member.push_text(sql.as_bytes())?;
            let rows = texts(client, member).await?;
            if rows.len() != places.len() {
                return Err(Trouble::Fault(self.changed()));
            }
            for mut row in rows {
                let whole = row.pop().flatten().ok_or_else(gone)?;
                let key: Vec<Option<&[u8]>> = row
                    .iter()
                    .map(|value| value.as_ref().map(String::as_bytes))
                    .collect();
                let shard = self.shard_of(&key)?;
                self.bytes = self.bytes.saturating_add(whole.len());
                if self.bytes > bytes_max(client) {
                    return Err(Trouble::Fault(too_large()));
                }
                arriving.entry(shard).or_default().push(whole);
            }
        }
        for member in members.iter_mut() {
            if let Some(rows) = arriving.remove(&member.shard) {
                self.begin(member)?;
                insert(client, table, rows, member).await?;
            }
        }
        Ok(())
    }

    /// A trigger has changed a row after the UPDATE had.
    fn changed(&self) -> Fault {
        let fault = self.moves.otherwise.clone();
        fault.detail(
            "A row was changed again by what the UPDATE caused, and is not to be found any more.",
        )
    }
}

/// Inserts rows as another shard had them.
async fn insert<C: Conversation>(
    client: &mut C,
    table: &Table,
    rows: Vec<String>,
    member: &mut Member,
) -> Result<(), Trouble> {
    let Table {
        name,
        columns,
        values,
    } = table;
    let head = format!(
        "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM (VALUES "
    );
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut values = String::new();
        while values.len() < INSERTED
            && let Some(row) = rows.next()
        {
            let before = if values.is_empty() { "(" } else { ",(" };
            values.push_str(before);
            values.push_str(&quote_literal(&row));
            values.push_str("::");
            values.push_str(name);
            values.push(')');
        }
        let sql = format!("{head}{values}) AS pgherd (r)");
        member.push_text(sql.as_bytes())?;
        member.hear(client, |_, _| Ok(true)).await?;
    }
    Ok(())
}

/// The rows that a statement of our own answers, as texts.
async fn texts<C: Conversation>(
    client: &mut C,
    member: &mut Member,
) -> Result<Vec<Vec<Option<String>>>, Trouble> {
    let most = bytes_max(client);
    let mut rows = Vec::new();
    let mut total = 0_usize;
    member.need_whole_rows();
    member
        .hear(client, |_, heard| {
            if heard.tag == b'D' {
                total = total.saturating_add(heard.bytes.len());
                if total > most {
                    return Err(Trouble::Fault(too_large()));
                }
                let text = |value: Option<&[u8]>| {
                    let text = value.map(|value| std::str::from_utf8(value).map(str::to_owned));
                    text.transpose()
                        .map_err(|_not_utf8| Trouble::Fault(encoded()))
                };
                let row: Result<Vec<_>, Trouble> = Values::of(heard.body).map(text).collect();
                rows.push(row?);
            }
            Ok(true)
        })
        .await?;
    Ok(rows)
}

/// How many values a DataRow has.
fn columns(row: &[u8]) -> usize {
    let count = row.get(HEADER..).and_then(|body| body.first_chunk::<2>());
    count.map_or(0, |count| usize::from(u16::from_be_bytes(*count)))
}

/// Hands on what the UPDATE returned, without what the client did not ask for.
fn answer<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    moves: &Moves,
    describe: bool,
    returned: Returned,
) -> Result<(), Trouble> {
    let hidden = moves.key.len().saturating_add(1);
    let Returned {
        description,
        rows,
        count,
        ..
    } = returned;
    if moves.returns {
        let body = description.get(HEADER..).unwrap_or_default();
        if description.first() == Some(&b'T') && describe {
            let fields = row::fields(body).ok_or_else(gone)?;
            let own = fields.len().saturating_sub(hidden);
            row::put_description(body, &fields, own, client.out());
        }
        for found in rows.into_iter().flatten() {
            let own = columns(&found).saturating_sub(hidden);
            let body = found.get(HEADER..).unwrap_or_default();
            if !row::put_row(body, own, client.out()) {
                return Err(Trouble::Fault(gone()));
            }
        }
    } else if describe && matches!(wide.source, Source::Bind { .. }) {
        backend::no_data(client.out());
    }
    complete(client, &format!("UPDATE {count}"));
    Ok(())
}

/// The table as any search path names it, why rows of it cannot be moved, and its columns.
const CHECK: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), CASE
    WHEN c.relkind <> 'r' OR EXISTS (SELECT FROM pg_catalog.pg_inherits
        WHERE inhrelid = c.oid OR inhparent = c.oid) THEN 'it has partitions, is one, or inherits'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal
        AND tgenabled <> 'D' AND tgtype & 12 <> 0) THEN 'it has triggers of INSERT or DELETE'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid) THEN 'it has rules'
    WHEN c.relrowsecurity THEN 'it has row security'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = c.oid)
        THEN 'a foreign key refers to it'
    WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid = c.oid AND conkey &&
        (SELECT pg_catalog.array_agg(attnum) FROM pg_catalog.pg_attribute
         WHERE attrelid = c.oid AND attname = ANY (ARRAY[$key]::pg_catalog.text[])))
        THEN 'its key is part of a foreign key'
    WHEN pg_catalog.current_setting('DateStyle') !~ '^ISO' OR pg_catalog.current_setting('IntervalStyle') = 'sql_standard'
        OR pg_catalog.current_setting('extra_float_digits')::int < 1
        THEN 'DateStyle, IntervalStyle or extra_float_digits write values that may be read back as others'
    END, a.columns, a.values
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
        LATERAL (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) AS columns,
                        pg_catalog.string_agg('(r).' || pg_catalog.quote_ident(attname), ', ' ORDER BY attnum) AS values
                 FROM pg_catalog.pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '') a
    WHERE c.oid = $table::pg_catalog.regclass";

fn gone() -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        "an UPDATE of a key is not what its plan says",
    )
    .hint("This is a fault of pgherd; please report it.")
}

fn too_large() -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the rows that an UPDATE of their key moves to other shards take too much memory",
    )
    .hint("Change the keys of fewer rows at once, or raise max_multi_bytes.")
}

fn encoded() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "rows with such texts cannot be moved to another shard under this client_encoding",
    )
    .hint("Set client_encoding to UTF8.")
}
