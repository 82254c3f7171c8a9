//! COPY FROM STDIN into a sharded table, where each row goes to the shard of its key, and into a
//! reference table, where all of it goes to every shard.
//!
//! One transaction a shard. Rows are cut out of the client's data and sent on as they are; only
//! the key's fields are read. What goes everywhere is not even cut.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{Fault, SqlState};
use crate::placement::distribution::Distribution;
use crate::placement::rule::{Listed, Unlisted};
use crate::placement::{ShardId, ShardSet, bucket_of_id};
use crate::planner;
use crate::planner::plan::{CopySplit, Effect, Entry, Holders, LookupColumn, Route, Target};
use crate::planner::tenant;
use crate::sql::quote::quote_literal;
use crate::sql::scan::Encoding;
use crate::types::key::{Key, KeyError, KeyType, keeps};
use crate::types::oids::{Mapping, Way};
use crate::wire::backend;
use crate::wire::copy::{Format, Piece, Splitter};
use crate::wire::frame;
use crate::wire::oids::Naming;

use super::gather::rows as rows_of;
use super::member::{CLIENT_BUFFER, Heard, Member, SCRATCH, close, commit_all, open_parts};
use super::{Conversation, Copied, Source, Trouble, Wide, complete, unmapped_fault};

/// Bytes that wait for one shard before the client is read on.
const SHARD_BUFFER: usize = 256 * 1024;
/// Rows are packed into CopyData messages of about this size.
const PACKED: usize = 16 * 1024;

/// Bytes of rows that wait until the home shard has been asked about them.
const HELD: usize = 256 * 1024;

/// A shard's connection and the rows packed for it.
struct Lane {
    member: Member,
    packed: Vec<u8>,
    /// The row that came last belongs here.
    has_last: bool,
    /// The columns whose values name types, as the shard calls these.
    naming: Option<(Arc<Mapping>, Naming)>,
    answer: Answer,
}

impl Lane {
    /// Packs a row, or the beginning of a long one which holds the columns that name types.
    fn row(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let start = self.packed.len();
        self.packed.extend_from_slice(bytes);
        if let Some((mapping, naming)) = &self.naming {
            let row = self.packed.get_mut(start..).unwrap_or_default();
            naming
                .put_row(row, mapping, Way::ToShard)
                .map_err(|unmapped| unmapped_fault(mapping, &unmapped))?;
        }
        Ok(())
    }
}

/// What a shard has said of its COPY.
#[derive(Default)]
struct Answer {
    /// Its notices are for the client.
    is_shown: bool,
    /// Its CopyInResponse.
    ready: Option<Vec<u8>>,
    /// The rows it took.
    count: u64,
}

impl Answer {
    /// Returns whether more is to come before rows can be sent.
    fn take<C: Conversation>(&mut self, client: &mut C, heard: Heard<'_>) -> bool {
        match heard.tag {
            b'G' => {
                self.ready = Some(heard.bytes.to_vec());
                return false;
            }
            b'N' if self.is_shown => client.out().extend_from_slice(heard.bytes),
            b'C' => {
                self.count = backend::command_count(heard.body);
            }
            _ => {}
        }
        true
    }
}

/// Where the rows go.
enum Rows<'a> {
    ByKey {
        placing: Placing<'a>,
        splitter: Splitter,
        held: Held,
    },
    Everywhere {
        /// In binary, where values name types.
        splitter: Option<Splitter>,
    },
}

/// Pieces that wait until the home shard has been asked about them.
#[derive(Default)]
struct Held {
    pieces: Vec<HeldPiece>,
    bytes: usize,
}

enum HeldPiece {
    Row(Vec<u8>, Vec<Option<Vec<u8>>>),
    Rest(Vec<u8>),
    Trailer(Vec<u8>),
}

impl Held {
    /// Whether the piece waits with those before it.
    fn take(&mut self, piece: &Piece<'_>) -> bool {
        let (held, length) = match piece {
            Piece::Header(_) => return false,
            Piece::Row { bytes, fields } => {
                let own = fields.iter().map(|field| field.map(<[u8]>::to_vec));
                (HeldPiece::Row(bytes.to_vec(), own.collect()), bytes.len())
            }
            Piece::Rest(bytes) => (HeldPiece::Rest(bytes.to_vec()), bytes.len()),
            Piece::Trailer(bytes) => (HeldPiece::Trailer(bytes.to_vec()), bytes.len()),
        };
        self.pieces.push(held);
        self.bytes = self.bytes.saturating_add(length);
        true
    }
}

/// What says where a row goes.
struct Placing<'a> {
    split: &'a CopySplit,
    distribution: &'a Distribution,
    /// Whether the client's data has the encoding of the servers.
    is_utf8: bool,
    /// Which column of the key must be what.
    tenant: Option<(usize, Key<'a>)>,
    /// The keys of values that were looked up for the rows at hand.
    found: HashMap<Key<'static>, Arc<[Vec<Key<'static>>]>>,
    /// What directories list for their keys, in order.
    listed: Vec<(Unlisted, Listed)>,
}

/// Runs the COPY of a sharded table.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    split: &CopySplit,
) -> Result<(), Trouble> {
    let topology = Arc::clone(client.topology());
    let Some(distribution) = topology.distribution(split.distribution) else {
        return Err(Trouble::Fault(gone()));
    };
    let tenant = own_rows(wide, split, distribution)?;
    let rows = by_key(client, wide, split, distribution, tenant);
    let count = carry_out(client, wide, distribution.shards(), rows, None).await?;
    complete(client, &format!("COPY {count}"));
    Ok(())
}

/// Inserts rows that are not the client's but a query's: `lines` are those of a COPY. Returns how many.
pub(super) async fn insert<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    target: &Target,
    lines: Vec<u8>,
) -> Result<u64, Trouble> {
    let topology = Arc::clone(client.topology());
    let copy = copy_into(wide, target);
    let feed = Some((target, lines));
    match &target.holders {
        Holders::ByKey(split) => {
            let Some(distribution) = topology.distribution(split.distribution) else {
                return Err(Trouble::Fault(gone()));
            };
            let rows = by_key(client, &copy, split, distribution, None);
            carry_out(client, &copy, distribution.shards(), rows, feed).await
        }
        Holders::Everywhere => {
            let rows = Rows::Everywhere { splitter: None };
            carry_out(client, &copy, &topology.all(), rows, feed).await
        }
        Holders::Home => {
            let home = std::iter::once(topology.home()).collect();
            let rows = Rows::Everywhere { splitter: None };
            carry_out(client, &copy, &home, rows, feed).await
        }
    }
}

/// The COPY of rows that are a query's.
fn copy_into(wide: &Wide, target: &Target) -> Wide {
    let columns = match target.columns.as_slice() {
        [] => String::new(),
        columns => format!(" ({})", columns.join(", ")),
    };
    Wide {
        route: Route::Session,
        source: Source::Text(format!("COPY {}{columns} FROM STDIN", target.table).into()),
        verb: "COPY",
        effect: Effect::CopyIn {
            types: Arc::from([]),
        },
        reads: false,
        lexing: wide.lexing,
        tenant: None,
        claims: Vec::new(),
    }
}

/// Makes a table on every shard, in one transaction, and gives the home shard's these rows. Returns how many.
pub(super) async fn create<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    target: &Target,
    lines: Vec<u8>,
) -> Result<u64, Trouble> {
    let all = client.topology().all();
    let mut members = open_parts(client, &all).await?;
    let result = create_on(client, wide, target, lines, &mut members).await;
    close(client, members).await;
    result
}

async fn create_on<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    target: &Target,
    lines: Vec<u8>,
    members: &mut Vec<Member>,
) -> Result<u64, Trouble> {
    for member in members.iter_mut() {
        member.begin()?;
        let text = wide.source.sql();
        let text = super::member::without_data(text, wide.lexing);
        member.push_with(client, wide, text, "WITH NO DATA")?;
        member.hear(client, |_, _| Ok(true)).await?;
    }
    let home = client.topology().home();
    let Some(at) = members.iter().position(|member| member.shard == home) else {
        return Err(Trouble::Fault(gone()));
    };
    let mut lanes = [Lane {
        naming: None,
        member: members.remove(at),
        packed: Vec::new(),
        has_last: false,
        answer: Answer::default(),
    }];
    let mut rows = Rows::Everywhere { splitter: None };
    let copied = copy_into(wide, target);
    let result = copy(
        client,
        &copied,
        &mut rows,
        &mut lanes,
        Some((target, lines)),
    )
    .await;
    if result.is_err() {
        abandon(&mut lanes);
    }
    let [lane] = lanes;
    members.insert(at, lane.member);
    let count = result?;
    commit_all(client, members).await?;
    Ok(count)
}

fn gone() -> Fault {
    Fault::error(SqlState::INTERNAL, "the distribution is gone")
}

/// Rows that go to the shards of their keys.
fn by_key<'a, C: Conversation>(
    client: &C,
    wide: &Wide,
    split: &'a CopySplit,
    distribution: &'a Distribution,
    tenant: Option<(usize, Key<'a>)>,
) -> Rows<'a> {
    // What comes in parts must hold the columns that name types in its first.
    let mut read = split.key_columns.clone();
    read.extend(last_named(wide));
    let row_max = usize::try_from(client.limits().max_statement_size).unwrap_or(usize::MAX);
    Rows::ByKey {
        placing: Placing {
            split,
            distribution,
            is_utf8: wide.lexing.encoding == Encoding::Utf8,
            tenant,
            found: HashMap::new(),
            listed: Vec::new(),
        },
        held: Held::default(),
        splitter: Splitter::new(split.format.clone(), &read, row_max),
    }
}

/// What each row's key must hold where the COPY is a tenant's.
fn own_rows<'a>(
    wide: &'a Wide,
    split: &CopySplit,
    distribution: &Distribution,
) -> Result<Option<(usize, Key<'a>)>, Trouble> {
    let Some(at) = split.tenant else {
        return Ok(None);
    };
    let (Some(tenant), Some(kind)) = (wide.tenant.as_deref(), distribution.key().get(at)) else {
        return Err(Trouble::Fault(tenant::another(&split.table)));
    };
    match tenant::own(*kind, tenant) {
        Ok(key) => Ok(Some((at, key))),
        Err(fault) => Err(Trouble::Fault(fault)),
    }
}

/// Runs the COPY of a reference table.
pub(super) async fn run_everywhere<C: Conversation>(
    client: &mut C,
    wide: &Wide,
) -> Result<(), Trouble> {
    let shards = client.topology().all();
    let row_max = usize::try_from(client.limits().max_statement_size).unwrap_or(usize::MAX);
    let splitter = last_named(wide).map(|last| Splitter::new(Format::Binary, &[last], row_max));
    let rows = Rows::Everywhere { splitter };
    let count = carry_out(client, wide, &shards, rows, None).await?;
    complete(client, &format!("COPY {count}"));
    Ok(())
}

/// The columns of a COPY in binary whose types are the users'.
fn named(wide: &Wide) -> &[(usize, u32)] {
    if let Effect::CopyIn { types } = &wide.effect {
        types
    } else {
        &[]
    }
}

/// The last of them.
fn last_named(wide: &Wide) -> Option<usize> {
    named(wide).last().map(|(column, _)| *column)
}

async fn carry_out<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    mut rows: Rows<'_>,
    feed: Option<(&Target, Vec<u8>)>,
) -> Result<u64, Trouble> {
    let members = open_parts(client, shards).await?;
    let mut lanes: Vec<Lane> = members
        .into_iter()
        .enumerate()
        .map(|(index, member)| Lane {
            naming: naming(wide, &member),
            member,
            packed: Vec::new(),
            has_last: false,
            answer: Answer {
                // What goes everywhere gives the same notices everywhere.
                is_shown: index == 0 || matches!(rows, Rows::ByKey { .. }),
                ..Answer::default()
            },
        })
        .collect();
    let mut begun = lanes.iter_mut().map(|lane| lane.member.begin());
    let result = match begun.find(Result::is_err) {
        Some(Err(trouble)) => Err(trouble),
        Some(Ok(())) | None => copy(client, wide, &mut rows, &mut lanes, feed).await,
    };
    if result.is_err() {
        abandon(&mut lanes);
    }
    let mut members: Vec<Member> = lanes.into_iter().map(|lane| lane.member).collect();
    let result = match result {
        Ok(count) => commit_all(client, &mut members).await.map(|()| count),
        Err(trouble) => Err(trouble),
    };
    close(client, members).await;
    result
}

async fn copy<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    rows: &mut Rows<'_>,
    lanes: &mut [Lane],
    feed: Option<(&Target, Vec<u8>)>,
) -> Result<u64, Trouble> {
    start(
        client,
        wide,
        lanes,
        feed.as_ref().map(|(target, _)| *target),
    )
    .await?;
    // A server looks for a cancel request only when it has data: it is seen here.
    client.forget_targets();
    let mut scratch = vec![0; SCRATCH];
    if let Some((_, lines)) = feed {
        for data in lines.chunks(SHARD_BUFFER) {
            rows.take(data, lanes)?;
            rows.settle(client, lanes, HELD).await?;
            room(client, lanes, &mut scratch).await?;
        }
        return finish(client, rows, lanes, &mut scratch).await;
    }
    loop {
        match next(client, lanes, &mut scratch).await? {
            Copied::Data(data) => {
                rows.take(&data, lanes)?;
                rows.settle(client, lanes, HELD).await?;
            }
            Copied::Done => break,
            Copied::Fail(message) => {
                let fault = Fault::error(
                    SqlState::QUERY_CANCELED,
                    format!("COPY from stdin failed: {message}"),
                );
                return Err(Trouble::Fault(fault));
            }
        }
    }
    finish(client, rows, lanes, &mut scratch).await
}

/// Ends the data; how many rows the shards took.
async fn finish<C: Conversation>(
    client: &mut C,
    rows: &mut Rows<'_>,
    lanes: &mut [Lane],
    scratch: &mut [u8],
) -> Result<u64, Trouble> {
    rows.finish(lanes)?;
    rows.settle(client, lanes, 0).await?;
    end(client, lanes, scratch).await?;
    let mut counts = lanes.iter().map(|lane| lane.answer.count);
    Ok(match rows {
        Rows::ByKey { .. } => counts.sum(),
        Rows::Everywhere { .. } => counts.next().unwrap_or_default(),
    })
}

impl Rows<'_> {
    /// Packs the client's data for the shards it belongs to.
    fn take(&mut self, data: &[u8], lanes: &mut [Lane]) -> Result<(), Fault> {
        match self {
            Rows::ByKey {
                placing,
                splitter,
                held,
            } => splitter
                .feed(data, |piece| take(piece, placing, held, lanes))
                .map_err(|fault| with_line(fault, placing.split, splitter.line())),
            Rows::Everywhere {
                splitter: Some(splitter),
            } => splitter.feed(data, |piece| route_everywhere(piece, lanes)),
            Rows::Everywhere { splitter: None } => {
                for lane in lanes.iter_mut() {
                    lane.packed.extend_from_slice(data);
                    if lane.packed.len() >= PACKED {
                        pack(lane);
                    }
                }
                Ok(())
            }
        }
    }

    /// Packs what was held back for want of its end.
    fn finish(&mut self, lanes: &mut [Lane]) -> Result<(), Fault> {
        match self {
            Rows::ByKey {
                placing,
                splitter,
                held,
            } => splitter
                .finish(|piece| take(piece, placing, held, lanes))
                .map_err(|fault| with_line(fault, placing.split, splitter.line())),
            Rows::Everywhere {
                splitter: Some(splitter),
            } => splitter.finish(|piece| route_everywhere(piece, lanes)),
            Rows::Everywhere { splitter: None } => Ok(()),
        }
    }

    /// Packs rows that wait for the home shard, once there are so many bytes of them.
    async fn settle<C: Conversation>(
        &mut self,
        client: &mut C,
        lanes: &mut [Lane],
        enough: usize,
    ) -> Result<(), Trouble> {
        let Rows::ByKey { placing, held, .. } = self else {
            return Ok(());
        };
        if held.pieces.is_empty() || held.bytes < enough {
            return Ok(());
        }
        let held = std::mem::take(held);
        let mut values = Vec::new();
        for piece in &held.pieces {
            if let HeldPiece::Row(_, fields) = piece
                && let Some(column) = &placing.split.looked
            {
                let own = placing.looked(&borrowed(fields), column)?;
                values.push(own.into_owned());
            }
        }
        if let Some(column) = &placing.split.looked {
            values.sort();
            values.dedup();
            let lookup = Some(&column.lookup);
            let told = client.ask_for_rows(lookup, values, Vec::new(), Vec::new());
            placing.found = told.await?.keys;
        }
        if placing.is_listed() {
            // The keys that were looked up may be unlisted as well.
            let mut unlisted = Vec::new();
            for piece in &held.pieces {
                if let HeldPiece::Row(_, fields) = piece {
                    placing.unlisted(&borrowed(fields), &mut unlisted);
                }
            }
            if !unlisted.is_empty() {
                let told = client.ask_for_rows(None, Vec::new(), Vec::new(), unlisted);
                placing.listed = told.await?.listed;
            }
        }
        let mut entries = Vec::new();
        for piece in &held.pieces {
            if let HeldPiece::Row(_, fields) = piece {
                placing.entries(&borrowed(fields), &mut entries)?;
            }
        }
        if !entries.is_empty() {
            let told = client.ask_for_rows(None, Vec::new(), entries, Vec::new());
            told.await?;
        }
        for piece in &held.pieces {
            match piece {
                HeldPiece::Row(bytes, fields) => {
                    let fields = borrowed(fields);
                    let fields = fields.as_slice();
                    route(Piece::Row { bytes, fields }, placing, lanes)?;
                }
                HeldPiece::Rest(bytes) => route(Piece::Rest(bytes), placing, lanes)?,
                HeldPiece::Trailer(bytes) => route(Piece::Trailer(bytes), placing, lanes)?,
            }
        }
        Ok(())
    }
}

/// What of a shard's rows names types by other oids than the client's.
fn naming(wide: &Wide, member: &Member) -> Option<(Arc<Mapping>, Naming)> {
    let mapping = member.mapping().filter(|mapping| !mapping.alike)?;
    let mut naming = Naming::default();
    for (column, kind) in named(wide) {
        if mapping.embeds(*kind) {
            naming.push(*column, *kind);
        }
    }
    (!naming.is_empty()).then_some((mapping, naming))
}

/// Begins the COPY on each shard; the client is told to send when all are ready.
async fn start<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    lanes: &mut [Lane],
    target: Option<&Target>,
) -> Result<(), Trouble> {
    let source = Source::Text(wide.source.sql().to_vec());
    if let (Some(target), Some(lane)) = (target.filter(|it| !it.is_new), lanes.first_mut()) {
        takes_rows(client, &mut lane.member, target).await?;
    }
    for lane in lanes.iter_mut() {
        lane.member.push_statement(client, &source, false)?;
        lane.member.start_sending()?;
    }
    for lane in lanes.iter_mut() {
        let Lane { member, answer, .. } = lane;
        member
            .hear(client, |client, heard| Ok(answer.take(client, heard)))
            .await?;
    }
    let ready = lanes.iter_mut().find_map(|lane| lane.answer.ready.take());
    if let Some(ready) = ready.filter(|_| target.is_none()) {
        client.out().extend_from_slice(&ready);
    }
    Ok(())
}

/// Sees that COPY does to a table what INSERT would.
async fn takes_rows<C: Conversation>(
    client: &mut C,
    member: &mut Member,
    target: &Target,
) -> Result<(), Trouble> {
    let table = quote_literal(&target.table);
    let columns = target.columns.iter().map(|column| quote_literal(column));
    let columns: Vec<String> = columns.collect();
    let asked = format!(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = {table}::pg_catalog.regclass AND ev_type = '3') \
         OR EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = {table}::pg_catalog.regclass \
             AND attidentity = 'a' AND '\"' || replace(attname, '\"', '\"\"') || '\"' = ANY (ARRAY[{}]::text[]))",
        columns.join(",")
    );
    let told = rows_of(client, member, asked.as_bytes()).await?;
    match told.into_iter().next().flatten().as_deref() {
        Some(b"f") => Ok(()),
        _ => Err(Trouble::Fault(planner::refuse::not_copied(&target.table))),
    }
}

/// Waits until every shard has room for more.
async fn room<C: Conversation>(
    client: &mut C,
    lanes: &mut [Lane],
    scratch: &mut [u8],
) -> Result<(), Trouble> {
    poll_fn(|cx| {
        exchange(client, lanes, scratch, cx)?;
        if client.out().len() <= CLIENT_BUFFER && !lanes.iter().any(is_full) {
            return Poll::Ready(Ok(()));
        }
        client
            .poll_watch(cx)
            .map(|interrupted| Err(interrupted.into()))
    })
    .await
}

fn borrowed(fields: &[Option<Vec<u8>>]) -> Vec<Option<&[u8]>> {
    fields.iter().map(Option::as_deref).collect()
}

/// Packs one piece, or holds it back until the home shard has been asked about it.
fn take(
    piece: Piece<'_>,
    placing: &Placing<'_>,
    held: &mut Held,
    lanes: &mut [Lane],
) -> Result<(), Fault> {
    if placing.asks() && held.take(&piece) {
        return Ok(());
    }
    route(piece, placing, lanes)
}

/// Packs one piece for the shards it belongs to.
fn route(piece: Piece<'_>, placing: &Placing<'_>, lanes: &mut [Lane]) -> Result<(), Fault> {
    match piece {
        Piece::Header(bytes) => {
            for lane in lanes.iter_mut() {
                lane.packed.extend_from_slice(bytes);
            }
        }
        Piece::Trailer(bytes) => {
            if placing.split.format == Format::Binary {
                for lane in lanes.iter_mut() {
                    lane.packed.extend_from_slice(bytes);
                }
            }
        }
        Piece::Row { bytes, fields } => {
            let shard = shard_of(fields, placing)?;
            for lane in lanes.iter_mut() {
                lane.has_last = lane.member.shard == shard;
                if lane.has_last {
                    lane.row(bytes)?;
                }
            }
        }
        Piece::Rest(bytes) => {
            for lane in lanes.iter_mut().filter(|lane| lane.has_last) {
                lane.packed.extend_from_slice(bytes);
            }
        }
    }
    for lane in lanes.iter_mut().filter(|lane| lane.packed.len() >= PACKED) {
        pack(lane);
    }
    Ok(())
}

/// Packs one piece for every shard.
fn route_everywhere(piece: Piece<'_>, lanes: &mut [Lane]) -> Result<(), Fault> {
    for lane in lanes {
        match piece {
            Piece::Row { bytes, .. } => lane.row(bytes)?,
            Piece::Header(bytes) | Piece::Trailer(bytes) | Piece::Rest(bytes) => {
                lane.packed.extend_from_slice(bytes);
            }
        }
        if lane.packed.len() >= PACKED {
            pack(lane);
        }
    }
    Ok(())
}

fn pack(lane: &mut Lane) {
    if lane.packed.is_empty() {
        return;
    }
    let packed = std::mem::take(&mut lane.packed);
    if let Some(connection) = lane.member.lease.connection() {
        frame::write(&mut connection.out, b'd', &[&packed]);
    }
    lane.packed = packed;
    lane.packed.clear();
}

impl Placing<'_> {
    fn asks(&self) -> bool {
        self.split.looked.is_some() || !self.split.entries.is_empty() || self.is_listed()
    }

    /// Whether directories say where rows go.
    fn is_listed(&self) -> bool {
        !self.distribution.directories().is_empty()
    }

    /// Places a key.
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let index = match self.distribution.place(key) {
            Err(KeyError::Unlisted(index)) => index,
            placed => return placed,
        };
        let directory = self.distribution.directories().get(index);
        let directory = directory.ok_or(KeyError::Unprovable)?;
        let asked = Unlisted::new(directory, key);
        let listed = self.listed.binary_search_by(|(known, _)| known.cmp(&asked));
        match listed.ok().and_then(|at| self.listed.get(at)) {
            Some((_, listed)) => directory.shard(key, listed),
            None => Err(KeyError::Unasked),
        }
    }

    /// Notes the keys of a row that are to be asked for.
    fn unlisted(&self, fields: &[Option<&[u8]>], into: &mut Vec<Unlisted>) {
        let mut note = |key: &[Key<'_>]| {
            if let Err(KeyError::Unlisted(index)) = self.distribution.place(key)
                && let Some(directory) = self.distribution.directories().get(index)
            {
                into.push(Unlisted::new(directory, key));
            }
        };
        if let Some(column) = &self.split.looked {
            let value = self.looked(fields, column).ok();
            let keys = value.and_then(|value| self.found.get(&value));
            keys.into_iter()
                .flat_map(|keys| keys.iter())
                .for_each(|key| note(key));
            return;
        }
        let columns = 0..self.distribution.key().len();
        let key: Result<Vec<_>, KeyError> = columns.map(|index| self.key(fields, index)).collect();
        // What is wrong with a key is told when its row is placed.
        if let Ok(key) = key {
            note(&key);
        }
    }

    /// The value of a row's key that is looked up.
    fn looked<'b>(
        &self,
        fields: &[Option<&'b [u8]>],
        column: &LookupColumn,
    ) -> Result<Key<'b>, Fault> {
        let value = fields.first().copied().flatten().ok_or(KeyError::Null);
        let value = value.and_then(|value| self.read(column.kind, value));
        value.map_err(|error| key_fault(&error, self.split))
    }

    /// What lookup tables must hold for a row.
    fn entries(&self, fields: &[Option<&[u8]>], into: &mut Vec<Entry>) -> Result<(), Fault> {
        let table = &self.split.table;
        for (at, column) in &self.split.entries {
            let Some(Some(value)) = fields.get(*at) else {
                continue;
            };
            let value = self.read(column.kind, value).and_then(|value| {
                keeps(column.kind, column.modifier, &value).map(|()| value.into_owned())
            });
            let value = value.map_err(|error| {
                if error == KeyError::Unprovable {
                    let why = "has a value that is not known before the server reads it";
                    return planner::refuse::unknown_value(table, &column.lookup.column, why);
                }
                key_fault(&error, self.split)
            })?;
            let columns = 0..self.distribution.key().len();
            let key: Result<Vec<_>, KeyError> = columns
                .map(|index| self.key(fields, index).map(Key::into_owned))
                .collect();
            into.push(Entry {
                lookup: Arc::clone(&column.lookup),
                value,
                key: key.map_err(|error| key_fault(&error, self.split))?,
            });
        }
        Ok(())
    }

    fn read<'b>(&self, kind: KeyType, bytes: &'b [u8]) -> Result<Key<'b>, KeyError> {
        if matches!(kind, KeyType::Text | KeyType::Enum) && !self.is_utf8 && !bytes.is_ascii() {
            // The server stores other bytes than the client sends.
            return Err(KeyError::Unprovable);
        }
        if self.split.format == Format::Binary {
            Key::from_binary(kind, bytes)
        } else {
            Key::from_text(kind, bytes)
        }
    }

    /// The value of a column of the key, as it is stored.
    fn key<'b>(&self, fields: &[Option<&'b [u8]>], index: usize) -> Result<Key<'b>, KeyError> {
        let kinds = self.distribution.key();
        let (Some(kind), Some(Some(bytes))) = (kinds.get(index), fields.get(index)) else {
            return Err(KeyError::Null);
        };
        let key = self.read(*kind, bytes)?;
        let mut modifiers = self.split.modifiers.iter();
        if let Some((_, modifier)) = modifiers.find(|(column, _)| *column == index) {
            keeps(*kind, *modifier, &key)?;
        }
        Ok(key)
    }
}

/// The shard of a row by the fields of its key.
fn shard_of(fields: &[Option<&[u8]>], placing: &Placing<'_>) -> Result<ShardId, Fault> {
    let Placing {
        split,
        distribution,
        tenant,
        ..
    } = placing;
    let columns = distribution.key().len();
    if let Some((at, own)) = tenant
        && !placing.key(fields, *at).is_ok_and(|key| key == *own)
    {
        return Err(tenant::another(&split.table));
    }
    let placed = if let Some(column) = &split.looked {
        let value = placing.looked(fields, column)?;
        let keys = placing.found.get(&value).map(|keys| keys.iter());
        let mut shards = ShardSet::new();
        keys.into_iter()
            .flatten()
            .try_for_each(|key| placing.place(key).map(|shard| shards.insert(shard)))
            .and_then(|()| planner::single(&shards, &split.table, &column.lookup, &value))
    } else if split.by_id || split.checks_id {
        by_id(fields, placing)
    } else if columns == 1 {
        let key = placing.key(fields, 0);
        key.and_then(|key| placing.place(std::slice::from_ref(&key)))
    } else {
        (0..columns)
            .map(|index| placing.key(fields, index))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|key| placing.place(&key))
    };
    placed.map_err(|error| key_fault(&error, split))
}

/// The shard of a row whose key is an id that carries its bucket, or that has such an id beside its key.
fn by_id(fields: &[Option<&[u8]>], placing: &Placing<'_>) -> Result<ShardId, KeyError> {
    let Placing {
        split,
        distribution,
        ..
    } = placing;
    let key = if split.by_id {
        let id = fields.first().copied().flatten().ok_or(KeyError::Null)?;
        placing.read(KeyType::Int8, id)?
    } else {
        placing.key(fields, 0)?
    };
    let bucket = if let Key::Int(id) = key
        && split.by_id
    {
        bucket_of_id(id)
    } else {
        distribution.bucket(std::slice::from_ref(&key))
    };
    if let Some(Some(id)) = fields.get(1).filter(|_| split.checks_id)
        && let Key::Int(id) = placing.read(KeyType::Int8, id)?
        && bucket_of_id(id) != bucket
    {
        let fault = planner::refuse::wrong_id(&id.to_string(), bucket_of_id(id), bucket);
        return Err(KeyError::Invalid(Box::new(fault)));
    }
    if !split.by_id {
        return distribution.place(std::slice::from_ref(&key));
    }
    let mut shards = ShardSet::new();
    distribution.of_bucket(bucket, |shard| shards.insert(shard))?;
    shards
        .single()
        .ok_or_else(|| KeyError::Invalid(Box::new(planner::refuse::pinned_id(&split.table))))
}

fn key_fault(error: &KeyError, split: &CopySplit) -> Fault {
    planner::key_fault(error, &split.table)
}

fn with_line(mut fault: Fault, split: &CopySplit, line: u64) -> Fault {
    let at = format!("COPY {}, line {line}.", split.table);
    fault.detail = Some(match fault.detail {
        Some(detail) => format!("{detail} {at}"),
        None => at,
    });
    fault
}

/// The client's next data, once every shard has room for it. The shards are read meanwhile, or they would
/// stop reading us: their notices go to the client, and the first error ends the COPY.
async fn next<C: Conversation>(
    client: &mut C,
    lanes: &mut [Lane],
    scratch: &mut [u8],
) -> Result<Copied, Trouble> {
    poll_fn(|cx| {
        exchange(client, lanes, scratch, cx)?;
        if client.out().len() > CLIENT_BUFFER || lanes.iter().any(is_full) {
            return client
                .poll_watch(cx)
                .map(|interrupted| Err(interrupted.into()));
        }
        client.poll_copied(cx).map_err(Trouble::from)
    })
    .await
}

fn is_full(lane: &Lane) -> bool {
    let connection = lane.member.lease.peek();
    connection.is_some_and(|connection| connection.out.len() > SHARD_BUFFER)
}

/// Sends and reads what can be sent and read now. No shard is read while the client does not take what
/// was read before.
fn exchange<C: Conversation>(
    client: &mut C,
    lanes: &mut [Lane],
    scratch: &mut [u8],
    cx: &mut Context<'_>,
) -> Result<(), Trouble> {
    let mut heard = true;
    while heard {
        heard = false;
        client.flush(cx).map_err(Trouble::End)?;
        for Lane { member, answer, .. } in lanes.iter_mut() {
            member.send(cx).map_err(nothing_stays)?;
            if client.out().len() > CLIENT_BUFFER {
                continue;
            }
            let Poll::Ready(read) = member.poll_read(cx, scratch) else {
                continue;
            };
            let count = read.map_err(nothing_stays)?;
            heard = true;
            let data = scratch.get(..count).unwrap_or_default();
            member.take(client, data, |client, heard| {
                answer.take(client, heard);
                Ok(true)
            })?;
            if let Some(error) = member.take_error() {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A connection is lost before any shard was told to commit.
fn nothing_stays(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Fault(fault) => {
            Trouble::Fault(fault.hint("Repeat the statement: nothing was committed."))
        }
        Trouble::Server(_) | Trouble::Unproven(_) | Trouble::End(_) => trouble,
    }
}

/// Ends the data on every shard, and waits until all have said how many rows they took.
async fn end<C: Conversation>(
    client: &mut C,
    lanes: &mut [Lane],
    scratch: &mut [u8],
) -> Result<(), Trouble> {
    for lane in lanes.iter_mut() {
        pack(lane);
        if let Some(connection) = lane.member.lease.connection() {
            frame::write(&mut connection.out, b'c', &[]);
        }
    }
    poll_fn(|cx| {
        exchange(client, lanes, scratch, cx)?;
        let is_done = |lane: &Lane| {
            let connection = lane.member.lease.peek();
            connection.is_none_or(|connection| connection.pipeline.is_empty())
        };
        if lanes.iter().all(is_done) {
            return Poll::Ready(Ok(()));
        }
        client
            .poll_watch(cx)
            .map(|interrupted| Err(interrupted.into()))
    })
    .await
}

/// Makes every shard fail its COPY, so that nothing of it stays and the connections come free at once.
/// A shard that does not copy (any more) ignores it.
fn abandon(lanes: &mut [Lane]) {
    for lane in lanes.iter_mut() {
        if let Some(connection) = lane.member.lease.connection() {
            frame::write(&mut connection.out, b'f', &[b"refused by pgherd\0"]);
        }
    }
}
