//! Fetches fragments from all shards at once, straight into the twin.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::lane::{COPY_HEADER, COPY_TRAILER, Lane, Rows};
use crate::error::{Fault, SqlState};
use crate::execute::member::{Member, SCRATCH, bytes_max, open, targets};
use crate::execute::{Conversation, Trouble};
use crate::placement::{ShardId, ShardSet};
use crate::planner::gather::{Fragment, Place};
use crate::wire::frame;

/// Bytes that wait for the twin before shards are read on.
const TWIN_BUFFER: usize = 256 * 1024;

/// What has been fetched so far, and the connections it comes on.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Of each fragment.
    pub(super) rows: Vec<u64>,
    pub(super) bytes: u64,
    pub(super) lanes: Vec<Lane>,
    /// The twin is in the middle of a COPY.
    pub(super) copies: bool,
}

impl Loaded {
    /// Fetches all of them.
    ///
    /// # Errors
    /// A server's; 53200 where `gather.max_rows` or `gather.max_bytes` is passed.
    ///
    /// # Cancel safety
    /// Not safe: what was opened stays in `lanes`.
    pub(super) async fn fetch<C: Conversation>(
        &mut self,
        client: &mut C,
        twin: &mut Member,
        fragments: &[Fragment],
    ) -> Result<(), Trouble> {
        self.rows = vec![0; fragments.len()];
        let shares = shares(client, fragments);
        let shards: ShardSet = shares.iter().map(|(shard, _)| *shard).collect();
        if shards.is_empty() {
            return Ok(());
        }
        let members = open(client, &shards).await?;
        let mut all = targets(&members);
        all.extend(targets(std::slice::from_ref(twin)));
        client.aim_cancels(all);
        for member in members {
            let wanted = shares
                .iter()
                .find(|(shard, _)| *shard == member.shard)
                .map(|(_, wanted)| wanted.clone())
                .unwrap_or_default();
            self.lanes.push(Lane {
                member,
                rows: Rows::new(wanted),
            });
        }
        for (lane, (_, wanted)) in self.lanes.iter_mut().zip(&shares) {
            lane.member.push_text(&order(wanted, fragments))?;
            lane.member.start_sending()?;
        }
        let mut scratch = vec![0; SCRATCH];
        for (turn, fragment) in fragments.iter().enumerate() {
            self.load(client, twin, turn, fragment, &mut scratch)
                .await?;
        }
        self.finish(client, twin).await
    }

    async fn load<C: Conversation>(
        &mut self,
        client: &mut C,
        twin: &mut Member,
        turn: usize,
        fragment: &Fragment,
        scratch: &mut [u8],
    ) -> Result<(), Trouble> {
        let binary = if fragment.binary {
            " (FORMAT binary)"
        } else {
            ""
        };
        twin.push_text(&format!("COPY {} FROM STDIN{binary}", fragment.target))?;
        self.copies = true;
        if fragment.binary {
            frame::write(&mut twin.connection()?.out, b'd', &[COPY_HEADER]);
        }
        poll_fn(|cx| self.exchange(client, twin, turn, scratch, cx)).await?;
        let out = &mut twin.connection()?.out;
        if fragment.binary {
            frame::write(out, b'd', &[COPY_TRAILER]);
        }
        frame::write(out, b'c', &[]);
        self.copies = false;
        Ok(())
    }

    /// Sends and reads what can be sent and read now, until every shard has sent the fragment whose turn it is.
    fn exchange<C: Conversation>(
        &mut self,
        client: &mut C,
        twin: &mut Member,
        turn: usize,
        scratch: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Trouble>> {
        let most = bytes_max(client);
        let limits = (client.gather().max_rows, client.gather().max_bytes);
        let mut total = self.rows.iter().sum::<u64>();
        let mut heard = true;
        while heard {
            heard = false;
            twin.send(cx)?;
            if let Poll::Ready(count) = twin.poll_read(cx, scratch) {
                let count = count?;
                twin.take(client, scratch.get(..count).unwrap_or_default(), |_, _| {
                    Ok(true)
                })?;
                if let Some(error) = twin.take_error() {
                    return Poll::Ready(Err(error));
                }
                heard = true;
            }
            let Loaded {
                rows, bytes, lanes, ..
            } = &mut *self;
            let Some(rows) = rows.get_mut(turn) else {
                return Poll::Ready(Ok(()));
            };
            let out = &mut twin.connection()?.out;
            let mut put = |row: &[u8]| {
                out.extend_from_slice(row);
                *rows = rows.saturating_add(1);
                total = total.saturating_add(1);
                *bytes = bytes.saturating_add(u64::try_from(row.len()).unwrap_or(u64::MAX));
                if total > limits.0 {
                    return Err(many_rows(limits.0));
                }
                if *bytes > limits.1 {
                    return Err(many_bytes(limits.1));
                }
                Ok(())
            };
            for lane in lanes.iter_mut() {
                lane.rows.catch_up(turn, &mut put)?;
            }
            for Lane { member, rows } in lanes.iter_mut() {
                member.send(cx)?;
                // Who is ahead waits for the others.
                if rows.current().is_none_or(|current| current > turn) {
                    continue;
                }
                let Poll::Ready(count) = member.poll_read(cx, scratch) else {
                    continue;
                };
                let count = count?;
                heard = true;
                let data = scratch.get(..count).unwrap_or_default();
                member.take(client, data, |_, heard| {
                    rows.hear(heard, turn, most, &mut put)?;
                    Ok(true)
                })?;
                if let Some(error) = member.take_error() {
                    return Poll::Ready(Err(error));
                }
            }
            if twin.connection()?.out.len() > TWIN_BUFFER {
                twin.send(cx)?;
                if twin.connection()?.out.len() > TWIN_BUFFER {
                    break;
                }
            }
        }
        let waits = |lane: &Lane| lane.rows.current().is_some_and(|current| current <= turn);
        if !self.lanes.iter().any(waits) {
            return Poll::Ready(Ok(()));
        }
        client
            .poll_watch(cx)
            .map(|interrupted| Err(interrupted.into()))
    }

    /// Hears the end of all transactions and COPYs.
    async fn finish<C: Conversation>(
        &mut self,
        client: &mut C,
        twin: &mut Member,
    ) -> Result<(), Trouble> {
        twin.hear(client, |_, _| Ok(true)).await?;
        for lane in &mut self.lanes {
            lane.member.hear(client, |_, _| Ok(true)).await?;
        }
        Ok(())
    }
}

/// What each shard is asked for, in the order of the shards.
fn shares<C: Conversation>(
    client: &C,
    fragments: &[Fragment],
) -> Vec<(ShardId, Vec<(usize, bool)>)> {
    let topology = client.topology();
    let home = topology.home();
    let mut shares: Vec<(ShardId, Vec<(usize, bool)>)> = Vec::new();
    for shard in topology.all().iter() {
        let wanted = fragments
            .iter()
            .enumerate()
            .filter(|(_, fragment)| match fragment.place {
                Place::Every(distribution) => topology
                    .distribution(distribution)
                    .is_some_and(|distribution| distribution.shards().contains(shard)),
                Place::Any | Place::Home => shard == home,
            });
        let wanted: Vec<_> = wanted.map(|(index, it)| (index, it.binary)).collect();
        if !wanted.is_empty() {
            shares.push((shard, wanted));
        }
    }
    shares
}

/// The text that has a shard send its fragments, all of one snapshot.
fn order(wanted: &[(usize, bool)], fragments: &[Fragment]) -> String {
    let mut text = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned();
    if wanted.iter().any(|(_, binary)| !binary) {
        text.push_str(
            ";SET LOCAL datestyle = 'ISO';SET LOCAL intervalstyle = 'postgres';SET LOCAL extra_float_digits = 1",
        );
    }
    for (index, binary) in wanted {
        if let Some(fragment) = fragments.get(*index) {
            text.push_str(";COPY (");
            text.push_str(&fragment.query);
            text.push_str(if *binary {
                ") TO STDOUT (FORMAT binary)"
            } else {
                ") TO STDOUT"
            });
        }
    }
    text.push_str(";COMMIT");
    text
}

fn many_rows(limit: u64) -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the statement needs too many rows of several shards",
    )
    .detail(format!("It may fetch {limit} rows."))
    .hint("Confine it to fewer rows, or raise gather.max_rows.")
}

fn many_bytes(limit: u64) -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the statement needs too many bytes of several shards",
    )
    .detail(format!("It may fetch {limit} bytes."))
    .hint("Confine it to fewer rows or columns, or raise gather.max_bytes.")
}
