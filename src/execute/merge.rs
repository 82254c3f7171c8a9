//! A read on several shards whose rows are put together here: merged in order, cut off, or totalled.
//!
//! All shards work at once and are read at once. What a shard sent ahead of its turn is kept, up to its part of
//! `max_multi_bytes`; then it is left to wait. Where rows are only counted, a shard starts when those before
//! it have given too few.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::error::{Fault, SqlState};
use crate::merge::order::{self, Merge, Sort};
use crate::merge::row::{self, Field, Values};
use crate::merge::totals::{Totals, malformed};
use crate::merge::value::Kind;
use crate::merge::{By, Finish, Hidden, OrderKey};
use crate::placement::ShardSet;
use crate::placement::catalog::Collation;
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::concat::Columns;
use super::member::{CLIENT_BUFFER, Member, SCRATCH, bytes_max, close, flush_client, targets};
use super::pushed::Pushed;
use super::snapshot::open_parts;
use super::{Conversation, Trouble, Wide, complete};

/// Bytes kept of one shard before it is left to wait, where `max_multi_bytes` allows as many.
const AHEAD_MAX: usize = 256 * 1024;

/// Runs it on all of `shards`.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    finish: &Arc<Finish>,
    describe: bool,
) -> Result<(), Trouble> {
    let mut answer = Answer::open(client, wide, shards, finish).await?;
    let result = answer.run(client, wide, describe, 0).await;
    answer.close(client).await;
    result.map(drop)
}

/// What one shard has sent and is not yet used.
#[derive(Debug, Default)]
struct Feed {
    /// DataRows, whole.
    rows: VecDeque<Box<[u8]>>,
    bytes: usize,
    started: bool,
    done: bool,
}

/// How the rows come to be in their order.
#[derive(Debug)]
enum Arranged {
    /// One shard after the other: the one whose turn it is.
    InTurn(usize),
    /// Merged, with where each shard is.
    Merged(Merge, Vec<Place>),
    Totalled(Totals),
}

/// Where a shard is in the merge.
#[derive(Clone, Debug)]
enum Place {
    /// Its next row takes part.
    Ready,
    /// The keys of the row it gave last.
    After(Option<order::Key>),
}

/// What has been decided of the answer from its first RowDescription.
#[derive(Debug)]
struct Layout {
    arranged: Arranged,
    /// The RowDescription for the client.
    description: Vec<u8>,
    /// Columns for the client.
    shown: usize,
}

/// An answer that is being put together. Its connections are given back by [`Answer::close`].
pub(super) struct Answer {
    members: Vec<Member>,
    feeds: Vec<Feed>,
    finish: Arc<Finish>,
    pushed: Pushed,
    columns: Columns,
    layout: Option<Layout>,
    /// Rows still to be passed over.
    skip: u64,
    /// Rows still to be handed on.
    left: Option<u64>,
    ended: bool,
    scratch: Vec<u8>,
}

/// What to do next.
enum Step {
    Read,
    Start(usize),
    Flush,
    Suspended,
    Done,
}

impl Answer {
    /// Starts it on all of `shards`, or on the first of them.
    ///
    /// # Cancel safety
    /// Not safe: connections are closed.
    pub(super) async fn open<C: Conversation>(
        client: &mut C,
        wide: &Wide,
        shards: &ShardSet,
        finish: &Arc<Finish>,
    ) -> Result<Answer, Trouble> {
        let pushed = Pushed::of(client, wide, finish)?;
        let members = open_parts(client, shards, wide.reads).await?;
        let mut answer = Answer {
            feeds: members.iter().map(|_| Feed::default()).collect(),
            members,
            finish: Arc::clone(finish),
            columns: Columns::default(),
            layout: None,
            skip: pushed.skip,
            left: pushed.limit,
            pushed,
            ended: false,
            scratch: vec![0; SCRATCH],
        };
        let started = answer
            .check_hidden()
            .and_then(|()| answer.start_all(client, wide));
        match started {
            Ok(()) => Ok(answer),
            Err(trouble) => {
                answer.close(client).await;
                Err(trouble)
            }
        }
    }

    /// Gives its connections back.
    ///
    /// # Cancel safety
    /// Not safe: connections are closed.
    pub(super) async fn close<C: Conversation>(self, client: &mut C) {
        client.note_buffered(0);
        close(client, self.members).await;
    }

    /// Texts that the client has not asked for need not be ones that its encoding has: a shard is not asked for
    /// them.
    fn check_hidden(&mut self) -> Result<(), Trouble> {
        let is_text =
            |key: &OrderKey| matches!(key.by, By::Hidden(_)) && key.collation != Collation::Other;
        if !self.finish.order.iter().any(is_text) {
            return Ok(());
        }
        for member in &mut self.members {
            if !member.connection()?.writes_utf8() {
                return Err(self.unproven());
            }
        }
        Ok(())
    }

    fn start_all<C: Conversation>(&mut self, client: &C, wide: &Wide) -> Result<(), Trouble> {
        let counted = self.finish.is_limited && self.finish.order.is_empty();
        let count = if counted && self.finish.totals.is_empty() {
            1
        } else {
            self.members.len()
        };
        (0..count).try_for_each(|at| self.start(client, wide, at))
    }

    fn start<C: Conversation>(
        &mut self,
        client: &C,
        wide: &Wide,
        at: usize,
    ) -> Result<(), Trouble> {
        let (Some(member), Some(feed)) = (self.members.get_mut(at), self.feeds.get_mut(at)) else {
            return Ok(());
        };
        member.need_whole_rows();
        self.pushed.push(client, wide, member)?;
        feed.started = true;
        member.start_sending()
    }

    /// Hands on the next rows, `max` at most; 0 is no limit. Returns whether these were all.
    ///
    /// # Errors
    /// The first error of a shard; what is refused of its answer.
    ///
    /// # Cancel safety
    /// Not safe: rows may be lost.
    pub(super) async fn run<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        describe: bool,
        max: u64,
    ) -> Result<bool, Trouble> {
        client.share_cancels(targets(&self.members));
        let mut count = 0;
        let mut wants_description = describe;
        loop {
            if wants_description && let Some(layout) = &self.layout {
                client.out().extend_from_slice(&layout.description);
                wants_description = false;
            }
            match self.step(client.out(), max, &mut count)? {
                Step::Read => {
                    let read = self.read(client, wide).await;
                    // As from a server, what comes before the error comes first.
                    if let (Err(Trouble::Server(_)), true, Some(layout)) =
                        (&read, wants_description, &self.layout)
                    {
                        client.out().extend_from_slice(&layout.description);
                    }
                    read?;
                }
                Step::Start(at) => self.start(client, wide, at)?,
                Step::Flush => flush_client(client).await?,
                Step::Suspended => {
                    backend::portal_suspended(client.out());
                    return Ok(false);
                }
                Step::Done => {
                    self.ended = true;
                    self.drain(client).await?;
                    complete(client, &format!("SELECT {count}"));
                    return Ok(true);
                }
            }
        }
    }

    /// The RowDescription, once rows are on their way.
    pub(super) fn description(&self) -> Option<&[u8]> {
        let layout = self.layout.as_ref()?;
        Some(&layout.description)
    }

    /// Hands on rows as far as it can without reading.
    fn step(&mut self, out: &mut Vec<u8>, max: u64, count: &mut u64) -> Result<Step, Trouble> {
        if self.ended {
            return Ok(Step::Done);
        }
        let Some(layout) = &mut self.layout else {
            return Ok(Step::Read);
        };
        loop {
            if max > 0 && *count >= max {
                return Ok(Step::Suspended);
            }
            if self.left == Some(0) {
                return Ok(Step::Done);
            }
            if out.len() > CLIENT_BUFFER {
                return Ok(Step::Flush);
            }
            let row = match layout.arranged.next(&mut self.feeds)? {
                Next::Row(row) => row,
                Next::Read => return Ok(Step::Read),
                Next::Start(at) => return Ok(Step::Start(at)),
                Next::Done => return Ok(Step::Done),
            };
            if self.skip > 0 {
                self.skip = self.skip.saturating_sub(1);
                continue;
            }
            self.left = self.left.map(|left| left.saturating_sub(1));
            *count = count.saturating_add(1);
            if self.pushed.hidden == 0 {
                out.extend_from_slice(&row);
            } else if !row::put_row(row.get(HEADER..).unwrap_or_default(), layout.shown, out) {
                return Err(malformed().into());
            }
        }
    }

    /// Reads from one shard that has something and whose turn may come.
    async fn read<C: Conversation>(&mut self, client: &mut C, wide: &Wide) -> Result<(), Trouble> {
        let ahead = AHEAD_MAX.min(bytes_max(client) / self.members.len().max(1).saturating_mul(2));
        let Answer {
            members,
            feeds,
            scratch,
            ..
        } = self;
        let (at, count) = poll_fn(|cx| {
            for (at, (member, feed)) in members.iter_mut().zip(feeds.iter()).enumerate() {
                if !feed.is_wanted(ahead) {
                    continue;
                }
                member.send(cx)?;
                if let Poll::Ready(count) = member.poll_read(cx, scratch) {
                    return Poll::Ready(count.map(|count| (at, count)));
                }
            }
            client
                .poll_watch(cx)
                .map(|interrupted| Err(interrupted.into()))
        })
        .await?;
        let scratch = std::mem::take(scratch);
        let data = scratch.get(..count).unwrap_or_default();
        let result = self.take(client, wide, at, data).await;
        self.scratch = scratch;
        result
    }

    /// Takes what a shard sent.
    async fn take<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        at: usize,
        data: &[u8],
    ) -> Result<(), Trouble> {
        let (Some(member), Some(feed)) = (self.members.get_mut(at), self.feeds.get_mut(at)) else {
            return Ok(());
        };
        let columns = &mut self.columns;
        let mut description = None;
        let taken = member.take_all(client, data, |client, heard| {
            match heard.tag {
                b'D' => feed.push(heard.bytes),
                b'T' => {
                    if columns.are_new(heard)? {
                        description = Some(heard.body.to_vec());
                    }
                }
                b'C' => {}
                _ => client.out().extend_from_slice(heard.bytes),
            }
            Ok(true)
        });
        taken.await?;
        feed.done = member.is_done()?;
        let error = member.take_error();
        if let Some(body) = description {
            self.layout = Some(self.arrange(&body)?);
        }
        if let Some(error) = error {
            return Err(self.pushed.placed(error, wide));
        }
        if self.pushed.fails && self.feeds.iter().any(|feed| !feed.rows.is_empty()) {
            return Err(self.unproven());
        }
        self.check_budget(client)
    }

    /// Bytes that are kept.
    fn bytes(&self) -> usize {
        let kept = self.feeds.iter().map(|feed| feed.bytes);
        let held = self.members.iter().map(Member::held);
        kept.chain(held).fold(0, usize::saturating_add)
    }

    fn check_budget<C: Conversation>(&self, client: &C) -> Result<(), Trouble> {
        let bytes = self.bytes();
        client.note_buffered(bytes);
        if bytes > bytes_max(client) {
            return Err(Trouble::Fault(
                Fault::error(
                    SqlState::BUDGET_SPENT,
                    "the rows of several shards that are put together take too much memory",
                )
                .hint("Select fewer columns, or raise max_multi_bytes."),
            ));
        }
        Ok(())
    }

    fn unproven(&self) -> Trouble {
        let otherwise = self.finish.otherwise.as_deref().cloned();
        Trouble::Unproven(otherwise.unwrap_or_else(malformed))
    }

    /// How the rows of a RowDescription are put together.
    fn arrange(&mut self, body: &[u8]) -> Result<Layout, Trouble> {
        let fields = row::fields(body).ok_or_else(malformed)?;
        let shown = fields
            .len()
            .checked_sub(self.pushed.hidden)
            .ok_or_else(malformed)?;
        let mut description = Vec::new();
        row::put_description(body, &fields, shown, &mut description);
        let arranged = if !self.finish.totals.is_empty() {
            let totals = Totals::new(&self.finish.totals, &fields);
            let totals = totals.ok_or_else(|| self.unproven())?;
            Arranged::Totalled(totals)
        } else if self.finish.order.is_empty() {
            Arranged::InTurn(0)
        } else {
            let sorts = sorts(&self.finish.order, &fields, shown);
            let sorts = sorts.ok_or_else(|| self.unproven())?;
            Arranged::Merged(
                Merge::new(sorts),
                vec![Place::After(None); self.feeds.len()],
            )
        };
        let reads = match &arranged {
            Arranged::InTurn(_) => Reads::default(),
            Arranged::Totalled(totals) => {
                let collations = self.finish.totals.iter().map(|total| total.collation);
                Reads::of(totals.kinds().zip(collations))
            }
            Arranged::Merged(merge, _) => {
                let kinds = merge
                    .sorts()
                    .iter()
                    .map(|sort| (Some(sort.kind), sort.binary));
                let collations = self.finish.order.iter().map(|key| key.collation);
                Reads::of(kinds.zip(collations))
            }
        };
        self.check_settings(&reads)?;
        Ok(Layout {
            arranged,
            description,
            shown,
        })
    }

    /// Whether every shard writes times and compares texts as they are read here.
    fn check_settings(&mut self, reads: &Reads) -> Result<(), Trouble> {
        let mut fits = true;
        for member in &mut self.members {
            let mapping = member.mapping();
            let connection = member.connection()?;
            fits &= !reads.times || connection.writes_iso_times();
            fits &= !reads.texts || connection.writes_utf8();
            fits &= !reads.by_database || mapping.is_none_or(|mapping| mapping.sorts_by_bytes());
        }
        if fits { Ok(()) } else { Err(self.unproven()) }
    }

    /// Takes what is there of the shards' answers that are not needed any more, without waiting: those that are
    /// through with it need not be canceled.
    async fn drain<C: Conversation>(&mut self, client: &mut C) -> Result<(), Trouble> {
        let Answer {
            members,
            feeds,
            scratch,
            ..
        } = self;
        for (member, feed) in members.iter_mut().zip(feeds.iter_mut()) {
            feed.rows.clear();
            feed.bytes = 0;
            let mut budget = AHEAD_MAX;
            while feed.started && !feed.done && budget > 0 {
                let read = poll_fn(|cx| Poll::Ready(member.poll_read(cx, scratch))).await;
                let Poll::Ready(Ok(count)) = read else {
                    break;
                };
                budget = budget.saturating_sub(count);
                let data = scratch.get(..count).unwrap_or_default();
                // Its errors come too late to matter; a connection that is out of step is closed.
                if member.take(client, data, |_, _| Ok(true)).is_err() {
                    break;
                }
                feed.done = member.is_done()?;
            }
        }
        Ok(())
    }
}

/// What is read here that depends on settings.
#[derive(Default)]
struct Reads {
    /// Times in text format.
    times: bool,
    texts: bool,
    /// Texts of columns that say nothing of their collation.
    by_database: bool,
}

impl Reads {
    /// Of values of these kinds, each with whether it is in binary format and its collation.
    fn of(values: impl Iterator<Item = ((Option<Kind>, bool), Collation)>) -> Reads {
        let mut reads = Reads::default();
        for ((kind, binary), collation) in values {
            let is_text = matches!(kind, Some(Kind::Text | Kind::Blanked));
            reads.times |= !binary && kind.is_some_and(Kind::is_time);
            reads.texts |= is_text;
            reads.by_database |= is_text && collation == Collation::Database;
        }
        reads
    }
}

impl Feed {
    fn push(&mut self, row: &[u8]) {
        self.bytes = self.bytes.saturating_add(row.len());
        self.rows.push_back(row.into());
    }

    fn pop(&mut self) -> Option<Box<[u8]>> {
        let row = self.rows.pop_front()?;
        self.bytes = self.bytes.saturating_sub(row.len());
        Some(row)
    }

    /// Whether it is to be read on.
    fn is_wanted(&self, ahead: usize) -> bool {
        self.started && !self.done && (self.bytes < ahead || self.rows.is_empty())
    }
}

/// The next row, or what is needed for it.
enum Next {
    Row(Box<[u8]>),
    Read,
    Start(usize),
    Done,
}

impl Arranged {
    fn next(&mut self, feeds: &mut [Feed]) -> Result<Next, Trouble> {
        match self {
            Arranged::InTurn(turn) => Ok(in_turn(turn, feeds)),
            Arranged::Merged(merge, places) => merged(merge, places, feeds),
            Arranged::Totalled(totals) => totalled(totals, feeds),
        }
    }
}

fn in_turn(turn: &mut usize, feeds: &mut [Feed]) -> Next {
    while let Some(feed) = feeds.get_mut(*turn) {
        if let Some(row) = feed.pop() {
            return Next::Row(row);
        }
        if !feed.started {
            return Next::Start(*turn);
        }
        if !feed.done {
            return Next::Read;
        }
        *turn = turn.saturating_add(1);
    }
    Next::Done
}

fn merged(merge: &mut Merge, places: &mut [Place], feeds: &mut [Feed]) -> Result<Next, Trouble> {
    for (at, (feed, place)) in feeds.iter().zip(places.iter_mut()).enumerate() {
        let Place::After(last) = place else {
            continue;
        };
        match feed.rows.front() {
            Some(row) => {
                let key = read_key(merge, row)?;
                let is_after =
                    |last: &order::Key| order::compare(merge.sorts(), last, &key).is_gt();
                if last.as_ref().is_some_and(is_after) {
                    return Err(Trouble::Fault(unordered()));
                }
                merge.push(at, key);
                *place = Place::Ready;
            }
            None if feed.done => {}
            None => return Ok(Next::Read),
        }
    }
    let Some((at, key)) = merge.pop() else {
        return Ok(Next::Done);
    };
    let row = feeds
        .get_mut(at)
        .and_then(Feed::pop)
        .ok_or_else(malformed)?;
    if let Some(place) = places.get_mut(at) {
        *place = Place::After(Some(key));
    }
    Ok(Next::Row(row))
}

fn read_key(merge: &Merge, row: &[u8]) -> Result<order::Key, Fault> {
    let body = row.get(HEADER..).unwrap_or_default();
    order::key(merge.sorts(), body).ok_or_else(malformed)
}

fn totalled(totals: &mut Totals, feeds: &mut [Feed]) -> Result<Next, Trouble> {
    if !feeds.iter().all(|feed| feed.done) {
        return Ok(Next::Read);
    }
    if feeds.iter().all(|feed| feed.rows.is_empty()) {
        return Ok(Next::Done);
    }
    for feed in feeds {
        while let Some(row) = feed.pop() {
            totals.add(Values::of(row.get(HEADER..).unwrap_or_default()))?;
        }
    }
    let mut row = Vec::new();
    backend::data_row(&mut row, totals.values());
    Ok(Next::Row(row.into()))
}

/// Where the keys' values are and what they are; `None` where one cannot be compared.
fn sorts(keys: &[OrderKey], fields: &[Field], shown: usize) -> Option<Vec<Sort>> {
    let mut next_hidden = shown;
    let visible = fields.get(..shown)?;
    let named = |name: &str| {
        let mut fields = visible.iter();
        fields.position(|field| *field.name == *name.as_bytes())
    };
    let sort = |key: &OrderKey| {
        let (column, is_sent) = match &key.by {
            By::Position(at) => (Some(*at).filter(|at| *at < shown)?, false),
            By::Name(name) => (named(name)?, false),
            By::Hidden(Hidden {
                is_float, unless, ..
            }) => {
                let hidden = next_hidden;
                next_hidden = next_hidden.checked_add(1)?;
                match unless.as_deref().and_then(named) {
                    Some(at) => (at, false),
                    None => (hidden, *is_float),
                }
            }
        };
        let field = fields.get(column)?;
        let kind = if is_sent {
            Kind::SentFloat
        } else {
            Kind::of(field.kind, key.collation)?
        };
        (field.binary || kind.is_exact_in_text()).then_some(Sort {
            column,
            kind,
            binary: field.binary,
            descending: key.descending,
            nulls_first: key.nulls_first,
        })
    };
    keys.iter().map(sort).collect()
}

fn unordered() -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        "a shard's rows are not in the order of the home shard",
    )
    .detail("The collation of a column, or of the database, may be another one there.")
    .hint("Run pgherd check, and bring the shards' schemas in line.")
}
