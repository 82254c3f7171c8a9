//! COPY FROM STDIN into a sharded table, where each row goes to the shard of its key, and into a
//! reference table, where all of it goes to every shard.
//!
//! One transaction a shard. Rows are cut out of the client's data and sent on as they are; only
//! the key's fields are read. What goes everywhere is not even cut.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::error::{Fault, SqlState};
use crate::placement::distribution::Distribution;
use crate::placement::{ShardId, ShardSet};
use crate::planner::plan::CopySplit;
use crate::types::key::{Key, KeyError};
use crate::wire::copy::{Format, Piece, Splitter};
use crate::wire::frame;

use super::member::{Member, close, commit, flush_client, open};
use super::{Conversation, Copied, Source, Trouble, Wide, complete};

/// Bytes that wait for one shard before the client is read on.
const SHARD_BUFFER: usize = 256 * 1024;
/// Rows are packed into CopyData messages of about this size.
const PACKED: usize = 16 * 1024;

/// A shard's connection and the rows packed for it.
struct Lane {
    member: Member,
    packed: Vec<u8>,
    /// The row that came last belongs here.
    has_last: bool,
}

/// Where the rows go.
enum Rows<'a> {
    ByKey {
        split: &'a CopySplit,
        distribution: &'a Distribution,
        splitter: Splitter,
    },
    Everywhere,
}

/// Runs the COPY of a sharded table.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    split: &CopySplit,
) -> Result<(), Trouble> {
    let topology = Arc::clone(client.topology());
    let Some(distribution) = topology.distribution(split.distribution) else {
        return Err(Trouble::Fault(Fault::error(
            SqlState::INTERNAL,
            "the distribution is gone",
        )));
    };
    let row_max = usize::try_from(client.limits().max_statement_size).unwrap_or(usize::MAX);
    let rows = Rows::ByKey {
        split,
        distribution,
        splitter: Splitter::new(split.format.clone(), &split.key_columns, row_max),
    };
    carry_out(client, wide, distribution.shards(), rows).await
}

/// Runs the COPY of a reference table.
pub(super) async fn run_everywhere<C: Conversation>(
    client: &mut C,
    wide: &Wide,
) -> Result<(), Trouble> {
    let shards = client.topology().all();
    carry_out(client, wide, &shards, Rows::Everywhere).await
}

async fn carry_out<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    mut rows: Rows<'_>,
) -> Result<(), Trouble> {
    let members = open(client, shards).await?;
    let mut lanes: Vec<Lane> = members
        .into_iter()
        .map(|member| Lane {
            member,
            packed: Vec::new(),
            has_last: false,
        })
        .collect();
    let result = copy(client, wide, &mut rows, &mut lanes).await;
    if result.is_err() {
        abandon(&mut lanes);
    }
    let mut members: Vec<Member> = lanes.into_iter().map(|lane| lane.member).collect();
    let result = match result {
        Ok(count) => commit(client, &mut members).await.map(|()| count),
        Err(trouble) => Err(trouble),
    };
    close(client, members).await;
    complete(client, &format!("COPY {}", result?));
    Ok(())
}

async fn copy<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    rows: &mut Rows<'_>,
    lanes: &mut [Lane],
) -> Result<u64, Trouble> {
    start(client, wide, lanes).await?;
    flush_client(client).await?;
    loop {
        match client.next_copy().await.map_err(Trouble::from)? {
            Copied::Data(data) => {
                if let Err(fault) = rows.take(&data, lanes) {
                    return Err(Trouble::Fault(fault));
                }
                send(client, lanes, SHARD_BUFFER).await?;
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
    if let Err(fault) = rows.finish(lanes) {
        return Err(Trouble::Fault(fault));
    }
    let counts = end(client, lanes).await?;
    Ok(match rows {
        Rows::ByKey { .. } => counts.iter().sum(),
        Rows::Everywhere => counts.first().copied().unwrap_or_default(),
    })
}

impl Rows<'_> {
    /// Packs the client's data for the shards it belongs to.
    fn take(&mut self, data: &[u8], lanes: &mut [Lane]) -> Result<(), Fault> {
        match self {
            Rows::ByKey {
                split,
                distribution,
                splitter,
            } => splitter
                .feed(data, |piece| route(piece, split, distribution, lanes))
                .map_err(|fault| with_line(fault, split, splitter.line())),
            Rows::Everywhere => {
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
                split,
                distribution,
                splitter,
            } => splitter
                .finish(|piece| route(piece, split, distribution, lanes))
                .map_err(|fault| with_line(fault, split, splitter.line())),
            Rows::Everywhere => Ok(()),
        }
    }
}

/// Begins the COPY on each shard; the client is told to send when all are ready.
async fn start<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    lanes: &mut [Lane],
) -> Result<(), Trouble> {
    let text = match &wide.source {
        Source::Text(text) => text.clone(),
        Source::Bind { prepared, .. } => prepared.text().to_vec(),
    };
    let source = Source::Text(text);
    for lane in lanes.iter_mut() {
        lane.member.push_hidden("BEGIN")?;
        lane.member.push_statement(client, &source, false)?;
        lane.member.start_sending()?;
    }
    let mut ready = None;
    for lane in lanes.iter_mut() {
        lane.member
            .hear(client, |_, heard| {
                if heard.tag == b'G' {
                    ready.get_or_insert_with(|| heard.bytes.to_vec());
                    return Ok(false);
                }
                Ok(true)
            })
            .await?;
    }
    if let Some(ready) = ready {
        client.out().extend_from_slice(&ready);
    }
    Ok(())
}

/// Packs one piece for the shards it belongs to.
fn route(
    piece: Piece<'_>,
    split: &CopySplit,
    distribution: &Distribution,
    lanes: &mut [Lane],
) -> Result<(), Fault> {
    match piece {
        Piece::Header(bytes) => {
            for lane in lanes.iter_mut() {
                lane.packed.extend_from_slice(bytes);
            }
        }
        Piece::Trailer(bytes) => {
            if split.format == Format::Binary {
                for lane in lanes.iter_mut() {
                    lane.packed.extend_from_slice(bytes);
                }
            }
        }
        Piece::Row { bytes, fields } => {
            let shard = shard_of(fields, split, distribution)?;
            for lane in lanes.iter_mut() {
                lane.has_last = lane.member.shard == shard;
                if lane.has_last {
                    lane.packed.extend_from_slice(bytes);
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

/// The shard of a row by the fields of its key.
fn shard_of(
    fields: &[Option<&[u8]>],
    split: &CopySplit,
    distribution: &Distribution,
) -> Result<ShardId, Fault> {
    let binary = split.format == Format::Binary;
    let kinds = distribution.key();
    let read = |index: usize| -> Result<Key<'_>, KeyError> {
        let (Some(kind), Some(Some(bytes))) = (kinds.get(index), fields.get(index)) else {
            return Err(KeyError::Null);
        };
        if binary {
            Key::from_binary(*kind, bytes)
        } else {
            Key::from_text(*kind, bytes)
        }
    };
    let placed = if kinds.len() == 1 {
        read(0).and_then(|key| distribution.place(std::slice::from_ref(&key)))
    } else {
        (0..kinds.len())
            .map(read)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|key| distribution.place(&key))
    };
    placed.map_err(|error| key_fault(&error, split))
}

fn key_fault(error: &KeyError, split: &CopySplit) -> Fault {
    crate::planner::key_fault(error, &split.table)
}

fn with_line(mut fault: Fault, split: &CopySplit, line: u64) -> Fault {
    let at = format!("COPY {}, line {line}.", split.table);
    fault.detail = Some(match fault.detail {
        Some(detail) => format!("{detail} {at}"),
        None => at,
    });
    fault
}

/// Sends until no shard has more than `most` bytes waiting; a shard that speaks up early has failed.
async fn send<C: Conversation>(
    client: &mut C,
    lanes: &mut [Lane],
    most: usize,
) -> Result<(), Trouble> {
    poll_fn(|cx| {
        let mut full = false;
        for lane in lanes.iter_mut() {
            let Some(connection) = lane.member.lease.connection() else {
                continue;
            };
            if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
                return Poll::Ready(Err(Trouble::Fault(
                    Fault::error(
                        SqlState::CONNECTION_FAILURE,
                        "the connection to a shard was lost during COPY",
                    )
                    .detail(format!("It ended with: {error}."))
                    .hint("Repeat the COPY: nothing was committed."),
                )));
            }
            full |= connection.out.len() > most;
        }
        if full {
            return client
                .poll_signals(cx)
                .map(|interrupted| Err(interrupted.into()));
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Ends the data on every shard; how many rows each took.
async fn end<C: Conversation>(client: &mut C, lanes: &mut [Lane]) -> Result<Vec<u64>, Trouble> {
    for lane in lanes.iter_mut() {
        pack(lane);
        if let Some(connection) = lane.member.lease.connection() {
            frame::write(&mut connection.out, b'c', &[]);
        }
    }
    let mut counts = Vec::with_capacity(lanes.len());
    for lane in lanes.iter_mut() {
        lane.member
            .hear(client, |_, heard| {
                if heard.tag == b'C' {
                    let tag = heard
                        .body
                        .split(|byte| *byte == 0)
                        .next()
                        .unwrap_or_default();
                    let count = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                    let count = std::str::from_utf8(count)
                        .ok()
                        .and_then(|count| count.parse().ok());
                    counts.push(count.unwrap_or(0));
                }
                Ok(true)
            })
            .await?;
    }
    Ok(counts)
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
