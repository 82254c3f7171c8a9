//! Fetches fragments from all shards at once, straight into the twin.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::block::{Block, united};
use super::lane::{COPY_HEADER, COPY_TRAILER, Lane, Part, Rows};
use super::narrow::{Lists, together};
use super::plan::{answers, planned_rows};
use super::split::Bound;
use super::style::{self, Style};
use crate::error::{Fault, SqlState};
use crate::execute::member::{Member, SCRATCH, bytes_max, close, open, open_parts, targets};
use crate::execute::{Conversation, Trouble, Twin, snapshot};
use crate::placement::{ShardId, ShardSet};
use crate::planner::gather::{Fragment, Place};
use crate::server::statements::Prepared;
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
        turn: &C::Twin,
        twin: &mut Member,
        (fragments, bound): (&mut [Fragment], Option<(&Prepared, &Bound)>),
        (within, style): (Option<&Block>, &Style),
        own: &mut Option<Member>,
    ) -> Result<(), Trouble> {
        self.rows = vec![0; fragments.len()];
        let shares = shares(client, fragments);
        if shares.is_empty() {
            return Ok(());
        }
        let mut within_block: Vec<ShardId> = own.iter().map(|own| own.shard).collect();
        let parts = client.parts().into_iter().flatten();
        within_block.extend(parts.map(|lease| lease.pool().target.shard));
        let is_united = within.is_some_and(|block| !block.keeps_snapshot())
            && shares
                .iter()
                .any(|(shard, wanted)| within_block.contains(shard) && wanted.len() > 1);
        if is_united {
            // One COPY takes one format.
            for fragment in fragments.iter_mut() {
                fragment.binary = false;
            }
        }
        self.open(client, &shares, within, own).await?;
        let members = self.lanes.iter().map(|lane| &lane.member);
        let cancels = targets(members.chain(std::iter::once(&*twin)));
        client.share_cancels(cancels);
        if !is_united && bound.is_none() && fragments.iter().any(|it| it.among().next().is_some()) {
            return self
                .fetch_in_turn(client, turn, twin, fragments, (within, style))
                .await;
        }
        for (shard, wanted) in &shares {
            let Some(lane) = self
                .lanes
                .iter_mut()
                .find(|lane| lane.member.shard == *shard)
            else {
                continue;
            };
            if let (Some((prepared, bound)), [fragment]) = (bound, wanted.as_slice()) {
                ask(lane, *fragment, (prepared, bound))?;
                lane.member.start_sending()?;
                continue;
            }
            let wanted: Vec<(usize, bool)> = wanted
                .iter()
                .map(|index| (*index, fragments.get(*index).is_some_and(|it| it.binary)))
                .collect();
            let columns =
                |(index, _): &(usize, bool)| fragments.get(*index).map_or(0, |it| it.columns.len());
            lane.rows = if is_united && lane.part.is_block() {
                let columns = wanted.iter().map(columns).collect();
                Rows::united(wanted.clone(), columns)
            } else {
                Rows::new(wanted.clone())
            };
            let turns = Turns {
                is_first: true,
                is_last: true,
                writes_text: wanted.iter().any(|(_, binary)| !binary),
            };
            let text = order(lane, &wanted, fragments, (within, style), turns);
            lane.member.push_text(text.as_bytes())?;
            lane.member.start_sending()?;
        }
        if let Some(widening) = style.widening() {
            twin.push_hidden(&widening)?;
        }
        let mut scratch = vec![0; SCRATCH];
        for (index, fragment) in fragments.iter().enumerate() {
            turn.note("fetching", self.total(), self.bytes);
            self.load(client, twin, index, fragment, &mut scratch)
                .await?;
        }
        if let Some(narrowing) = style.narrowing() {
            twin.push_hidden(&narrowing)?;
        }
        self.finish(client, twin).await
    }

    /// Fetches them from the smallest on, so that each larger one is asked only for rows that can have a partner
    /// among those that are there.
    async fn fetch_in_turn<C: Conversation>(
        &mut self,
        client: &mut C,
        turn: &C::Twin,
        twin: &mut Member,
        fragments: &mut [Fragment],
        within: (Option<&Block>, &Style),
    ) -> Result<(), Trouble> {
        if let Some(widening) = within.1.widening() {
            twin.push_hidden(&widening)?;
        }
        let expected = self.expect(client, fragments, within).await?;
        let mut scratch = vec![0; SCRATCH];
        let mut lists = Lists::default();
        let mut start = 0;
        while start < fragments.len() {
            let above = client.gather().narrow_above;
            let end = together(start, fragments, &expected, above);
            for index in start..end {
                lists
                    .narrow(client, twin, (fragments, index), &expected, &self.rows)
                    .await?;
            }
            let shares = shares(client, fragments);
            for (shard, wanted) in &shares {
                let mut lanes = self.lanes.iter_mut();
                let Some(lane) = lanes.find(|lane| lane.member.shard == *shard) else {
                    continue;
                };
                let is_last = wanted.iter().all(|index| *index < end);
                let of_turn: Vec<(usize, bool)> = wanted
                    .iter()
                    .filter(|index| (start..end).contains(index))
                    .map(|index| (*index, fragments.get(*index).is_some_and(|it| it.binary)))
                    .collect();
                lane.rows = Rows::new(of_turn.clone());
                if of_turn.is_empty() {
                    continue;
                }
                let turns = Turns {
                    is_first: false,
                    is_last,
                    writes_text: write_text(wanted, fragments),
                };
                let text = order(lane, &of_turn, fragments, within, turns);
                lane.member.push_text(text.as_bytes())?;
                lane.member.start_sending()?;
            }
            for index in start..end {
                turn.note("fetching", self.total(), self.bytes);
                if let Some(fragment) = fragments.get(index) {
                    self.load(client, twin, index, fragment, &mut scratch)
                        .await?;
                }
            }
            self.finish(client, twin).await?;
            start = end;
        }
        if let Some(narrowing) = within.1.narrowing() {
            twin.push_hidden(&narrowing)?;
        }
        self.finish(client, twin).await
    }

    /// Opens the shards' transactions, asks how many rows each expects of the fragments, and puts these in
    /// the order of that.
    async fn expect<C: Conversation>(
        &mut self,
        client: &mut C,
        fragments: &mut [Fragment],
        within: (Option<&Block>, &Style),
    ) -> Result<Vec<u64>, Trouble> {
        let shares = shares(client, fragments);
        for (shard, wanted) in &shares {
            let mut lanes = self.lanes.iter_mut();
            let Some(lane) = lanes.find(|lane| lane.member.shard == *shard) else {
                continue;
            };
            let mut parts = opening(lane, within, write_text(wanted, fragments));
            let asked = wanted.iter().filter_map(|index| fragments.get(*index));
            parts.extend(asked.map(|it| format!("EXPLAIN (FORMAT JSON) {}", it.query)));
            lane.member.push_text(parts.join(";").as_bytes())?;
            lane.member.start_sending()?;
        }
        let mut expected = vec![0_u64; fragments.len()];
        for (shard, wanted) in &shares {
            let mut lanes = self.lanes.iter_mut();
            let Some(lane) = lanes.find(|lane| lane.member.shard == *shard) else {
                continue;
            };
            let mut told = answers(client, &mut lane.member).await?.into_iter();
            for index in wanted {
                if let (Some(expected), Some(plan)) = (expected.get_mut(*index), told.next()) {
                    // What is not known may be large.
                    let rows = planned_rows(&plan).unwrap_or(u64::MAX);
                    *expected = expected.saturating_add(rows);
                }
            }
        }
        let mut order: Vec<usize> = (0..fragments.len()).collect();
        order.sort_by_key(|index| expected.get(*index).copied());
        let sorted: Vec<Fragment> = order
            .iter()
            .filter_map(|index| fragments.get(*index).cloned())
            .collect();
        fragments.clone_from_slice(&sorted);
        expected.sort_unstable();
        Ok(expected)
    }

    /// Rows of all fragments.
    pub(super) fn total(&self) -> u64 {
        self.rows.iter().sum()
    }

    /// Gives back what the fragments came on; the connection of the client's block is returned.
    pub(super) async fn give_back<C: Conversation>(&mut self, client: &mut C) -> Option<Member> {
        let mut own = None;
        let mut fresh = Vec::new();
        for mut lane in self.lanes.drain(..) {
            match lane.part {
                Part::Fresh | Part::Opened => fresh.push(lane.member),
                Part::Own => own = Some(lane.member),
                Part::Joined => {
                    lane.member.calm(client).await;
                    let lease = lane.member.lease;
                    client.return_joined(lease);
                }
            }
        }
        close(client, fresh).await;
        own
    }

    /// Takes the connections that the fragments come on, in the order of the shards.
    pub(super) async fn open<C: Conversation>(
        &mut self,
        client: &mut C,
        shares: &[(ShardId, Vec<usize>)],
        within: Option<&Block>,
        own: &mut Option<Member>,
    ) -> Result<(), Trouble> {
        let mut lane = |member, part| {
            self.lanes.push(Lane {
                member,
                part,
                rows: Rows::default(),
            });
        };
        let mut others = ShardSet::new();
        for (shard, _) in shares {
            if own.as_ref().is_some_and(|own| own.shard == *shard) {
                if let Some(member) = own.take() {
                    lane(member, Part::Own);
                }
                continue;
            }
            let has_joined = client.parts().is_some_and(|parts| {
                parts
                    .iter()
                    .any(|lease| lease.pool().target.shard == *shard)
            });
            // A snapshot that is kept is the block's.
            if has_joined || within.is_some_and(Block::keeps_snapshot) {
                for member in open_parts(client, &std::iter::once(*shard).collect()).await? {
                    lane(member, Part::Joined);
                }
            } else {
                others.insert(*shard);
            }
        }
        let (members, part) = if within.is_none() && snapshot::applies(client, &others) {
            (snapshot::open_fresh(client, &others).await?, Part::Opened)
        } else {
            (open(client, &others).await?, Part::Fresh)
        };
        for member in members {
            lane(member, part);
        }
        Ok(())
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
        let copy = format!("COPY {} FROM STDIN{binary}", fragment.target);
        twin.push_text(copy.as_bytes())?;
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
            for Lane { member, rows, .. } in lanes.iter_mut() {
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
pub(super) fn shares<C: Conversation>(
    client: &C,
    fragments: &[Fragment],
) -> Vec<(ShardId, Vec<usize>)> {
    let topology = client.topology();
    let home = topology.home();
    let has = |fragment: &Fragment, shard| match &fragment.place {
        Place::Several(shards) => shards.contains(shard),
        Place::Any | Place::Home => shard == home,
    };
    let share = |shard| {
        let numbered = fragments.iter().enumerate();
        let wanted = numbered.filter(|(_, fragment)| has(fragment, shard));
        (shard, wanted.map(|(index, _)| index).collect::<Vec<_>>())
    };
    let shares = topology.all();
    let shares = shares.iter().map(share);
    shares.filter(|(_, wanted)| !wanted.is_empty()).collect()
}

/// Has a shard answer a query that has values of the client's.
fn ask(
    lane: &mut Lane,
    fragment: usize,
    (prepared, bound): (&Prepared, &Bound),
) -> Result<(), Trouble> {
    lane.rows = Rows::of_query(fragment);
    if lane.part == Part::Fresh {
        lane.member.push_hidden(SNAPSHOT)?;
    }
    let Bound {
        parse,
        bind,
        detour,
    } = bound;
    lane.member
        .push_own_statement(prepared, parse, bind, detour, false)?;
    if !lane.part.is_block() {
        lane.member.push_hidden("COMMIT")?;
    }
    Ok(())
}

/// Opens a transaction whose fragments are of one snapshot.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Whether some of these fragments are written as text.
fn write_text(wanted: &[usize], fragments: &[Fragment]) -> bool {
    let fragment = |index: &usize| fragments.get(*index);
    wanted.iter().filter_map(fragment).any(|it| !it.binary)
}

/// Where in the shards' transactions a text stands.
#[derive(Clone, Copy)]
struct Turns {
    is_first: bool,
    is_last: bool,
    /// Some of the lane's fragments, here or elsewhere, are written as text.
    writes_text: bool,
}

/// What stands before the first fragment of a lane.
fn opening(
    lane: &Lane,
    (within, style): (Option<&Block>, &Style),
    writes_text: bool,
) -> Vec<String> {
    let mut parts = Vec::new();
    if lane.part == Part::Fresh {
        parts.push(SNAPSHOT.to_owned());
    }
    parts.extend(style.widening());
    let own = within.map_or(style, |block| &block.style);
    if writes_text && (!lane.part.is_block() || own.restoring().is_some()) {
        parts.extend(style::PLAIN.map(str::to_owned));
    }
    parts
}

/// The text that has a shard send fragments, all of one snapshot.
fn order(
    lane: &Lane,
    wanted: &[(usize, bool)],
    fragments: &[Fragment],
    (within, style): (Option<&Block>, &Style),
    turns: Turns,
) -> String {
    let mut parts = if turns.is_first {
        opening(lane, (within, style), turns.writes_text)
    } else {
        Vec::new()
    };
    let own = within.map_or(style, |block| &block.style);
    if lane.rows.is_united() {
        let wanted: Vec<usize> = wanted.iter().map(|(index, _)| *index).collect();
        parts.push(format!("COPY ({}) TO STDOUT", united(&wanted, fragments)));
    } else {
        for (index, binary) in wanted {
            let Some(fragment) = fragments.get(*index) else {
                continue;
            };
            let format = if *binary { " (FORMAT binary)" } else { "" };
            parts.push(format!("COPY ({}) TO STDOUT{format}", fragment.query));
        }
    }
    match lane.part {
        _ if !turns.is_last => (),
        Part::Fresh | Part::Opened => parts.push("COMMIT".to_owned()),
        Part::Own | Part::Joined if turns.writes_text => {
            parts.extend(own.restoring().into_iter().chain(own.narrowing()));
        }
        Part::Own | Part::Joined => parts.extend(own.narrowing()),
    }
    parts.join(";")
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
