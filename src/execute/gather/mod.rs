//! A read that is finished on a twin: PostgreSQL plans it there, the rows it needs are fetched from the
//! shards, and the client's own statement runs over them.
//!
//! One transaction on the twin, and one on each shard that sees one snapshot for all of its fragments. The
//! twin's is rolled back in any case, so nobody ever sees what another loaded. All shards send at once, as
//! fast as the twin takes rows; nothing but unfinished messages is held here.

mod block;
mod explain;
mod lane;
mod load;
mod narrow;
mod plan;
mod split;
mod style;

use std::time::{Duration, Instant};

use crate::error::{Fault, SqlState};
use crate::planner::gather::Fragment;
use crate::planner::plan::{Gather, Target};
use crate::planner::refuse;
use crate::server::hidden;
use crate::server::pool::Lease;
use crate::server::statements::Prepared;
use crate::sql::quote::{quote_ident, quote_literal};
use crate::wire::backend;
use crate::wire::frame;

use super::member::{Member, open, targets};
use super::{Conversation, Source, Trouble, Twin, Wide};
use block::Block;
use explain::Explain;
use load::Loaded;
pub(super) use plan::rows;
use plan::{Order, Planned};
use split::{Bound, described};

/// Rows of a table from which on the twin looks at them before it plans.
const ANALYZED: u64 = 1_000;
/// Bytes of rows that were rolled back from which on the twin's tables are emptied before it is used again.
const GARBAGE: u64 = 4 * 1024 * 1024;

/// Answers it; rows go to the client as they come.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    gather: &Gather,
    describe: bool,
) -> Result<(), Trouble> {
    let keeps = declares(wide);
    let mut gathered = Gathered::open(client, wide, gather, keeps).await?;
    match gathered.hand_on(client, wide, describe, 0).await {
        Ok(_) if keeps => gathered.keep(client, wide).await,
        result => gathered.close(client, result.map(drop)).await,
    }
}

/// The rows that an INSERT would insert, as lines of a COPY.
///
/// # Errors
/// Those of the query; 53200 for more bytes than a statement may hold.
pub(super) async fn lines<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    gather: &Gather,
    target: &Target,
) -> Result<Vec<u8>, Trouble> {
    let mut gathered = Gathered::open(client, wide, gather, false).await?;
    let mut lines = Vec::new();
    let result = gathered.insert(client, wide, target, &mut lines).await;
    gathered.close(client, result).await?;
    Ok(lines)
}

/// Whether the rows stay for a cursor.
pub(super) fn declares(wide: &Wide) -> bool {
    wide.verb == "DECLARE CURSOR"
}

/// A read whose rows are on a twin.
pub(super) struct Gathered<T> {
    turn: T,
    run: Run,
    order: Order,
    /// Until when it must have ended.
    deadline: Option<Instant>,
    /// Rows were handed on, and there are more.
    is_under_way: bool,
    /// It may stay with the client's block.
    keeps: bool,
}

impl<T: Twin> Gathered<T> {
    /// Takes a twin and fetches what the statement needs. `keeps`: what is left unread may stay with the client's
    /// block.
    ///
    /// # Errors
    /// Those of the statement and of the shards; what was opened is given back.
    pub(super) async fn open<C: Conversation<Twin = T>>(
        client: &mut C,
        wide: &Wide,
        gather: &Gather,
        keeps: bool,
    ) -> Result<Gathered<T>, Trouble> {
        let limit = client.gather().timeout;
        let deadline = Instant::now().checked_add(limit);
        let deadline = deadline.filter(|_| !limit.is_zero());
        loop {
            let Some(turn) = client.take_twin().await? else {
                return Err(Trouble::Fault(no_twin(gather)));
            };
            let mut run = Run::default();
            let fetched = run.fetch(client, wide, (gather, keeps), &turn);
            let result = in_time(deadline, limit, fetched).await;
            match result {
                Ok(Done::Fetched(order)) => {
                    return Ok(Gathered {
                        turn,
                        run,
                        order,
                        deadline,
                        is_under_way: false,
                        keeps,
                    });
                }
                Ok(taken @ (Done::Busy | Done::Changed)) => {
                    let (lease, _) = run.end(client, Ok(())).await;
                    if let Done::Busy = taken {
                        turn.busy_elsewhere();
                    } else {
                        turn.was_made_again();
                    }
                    if let Some(lease) = lease {
                        hidden::tidy_later(lease);
                    }
                }
                Err(trouble) => {
                    let (lease, result) = run.end(client, Err(trouble)).await;
                    if let Some(lease) = lease {
                        hidden::tidy_with(lease, String::new(), turn);
                    }
                    result?;
                }
            }
        }
    }

    /// Hands on the next rows, at most so many; 0 is all. Whether there are more.
    ///
    /// # Errors
    /// The statement's own; 57014 after `gather.timeout`.
    pub(super) async fn hand_on<C: Conversation<Twin = T>>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        describe: bool,
        max: u32,
    ) -> Result<bool, Trouble> {
        let limit = client.gather().timeout;
        let (loaded, top) = (&self.run.loaded, &mut self.run.top);
        let description = &self.run.description;
        self.turn.note("finishing", loaded.total(), loaded.bytes);
        let Some(twin) = &mut self.run.twin else {
            return Err(Trouble::Fault(gone()));
        };
        client.share_cancels(targets([&*twin]));
        if std::mem::replace(&mut self.is_under_way, true) {
            twin.push_more(describe, max)?;
        } else {
            if self.keeps
                && let Source::Bind { portal, .. } = &wide.source
            {
                twin.portal.clone_from(portal);
            }
            self.order.push(client, wide, twin, describe, max)?;
        }
        let mut has_more = false;
        let heard = twin.hear(client, |client, heard| {
            match heard.tag {
                b'D' => client.out().append(top),
                b's' => has_more = true,
                b'T' if !description.is_empty() => {
                    let own = described(heard.body, description);
                    client.out().extend_from_slice(&own);
                    return Ok(true);
                }
                _ => {}
            }
            client.out().extend_from_slice(heard.bytes);
            Ok(true)
        });
        in_time(self.deadline, limit, heard).await?;
        Ok(has_more)
    }

    /// Has the twin insert the rows into its own table, and reads them off.
    async fn insert<C: Conversation<Twin = T>>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        target: &Target,
        lines: &mut Vec<u8>,
    ) -> Result<(), Trouble> {
        let limit = client.gather().timeout;
        let most = usize::try_from(client.limits().max_multi_bytes).unwrap_or(usize::MAX);
        let (loaded, turn) = (&self.run.loaded, &self.turn);
        turn.note("finishing", loaded.total(), loaded.bytes);
        let Some(twin) = &mut self.run.twin else {
            return Err(Trouble::Fault(gone()));
        };
        client.share_cancels(targets([&*twin]));
        if target.is_new {
            // It is made here as well, and goes with the transaction.
            self.order.push(client, wide, twin, false, 0)?;
            twin.hear(client, |_, _| Ok(true)).await?;
            twin.push_text(format!("SELECT * FROM {}", target.table).as_bytes())?;
        } else {
            let returning = format!("RETURNING {}", target.columns.join(", "));
            let order = &self.order;
            twin.push_with(client, wide, order.text(wide), &returning)?;
        }
        let mut row: Vec<u8> = Vec::new();
        let heard = twin.hear(client, |_, heard| {
            if !matches!(heard.tag, b'D' | 0) {
                return Ok(true);
            }
            row.extend_from_slice(heard.bytes);
            if lines.len().saturating_add(row.len()) > most {
                return Err(Trouble::Fault(too_many_rows()));
            }
            if frame::is_whole(&row) {
                write_line(lines, row.get(frame::HEADER..).unwrap_or_default());
                row.clear();
            }
            Ok(true)
        });
        in_time(self.deadline, limit, heard).await
    }

    /// Whether what is left of it can stay with the client's block.
    pub(super) fn can_stay(&self) -> bool {
        self.keeps
    }

    /// Leaves the twin to the client's block, for a cursor that was declared on it or for the rest of a portal.
    ///
    /// # Errors
    /// The twin's connection is gone.
    pub(super) async fn keep<C: Conversation<Twin = T>>(
        mut self,
        client: &mut C,
        wide: &Wide,
    ) -> Result<(), Trouble> {
        let is_idle = |twin: &Member| {
            let connection = twin.lease.peek();
            connection.is_some_and(|connection| connection.pipeline.is_idle())
        };
        let Some(twin) = self.run.twin.take_if(|twin| is_idle(twin)) else {
            return self.close(client, Err(Trouble::Fault(gone()))).await;
        };
        let last = self.emptied();
        let (rows, bytes) = (self.run.loaded.total(), self.run.loaded.bytes);
        self.turn.note("kept", rows, bytes);
        let (_, result) = self.run.end(client, Ok(())).await;
        let portal = match &wide.source {
            Source::Bind { portal, .. } if !declares(wide) => Some(portal.as_slice()),
            Source::Bind { .. } | Source::Text(_) => None,
        };
        client.keep_twin(twin.lease, self.turn, last, portal, wide.source.sql());
        result
    }

    /// What empties the twin's tables, where that is worth it.
    fn emptied(&self) -> String {
        if self.run.loaded.bytes >= GARBAGE {
            truncate(&self.run.tables)
        } else {
            String::new()
        }
    }

    /// Gives up what was opened. The twin's transaction is rolled back after the client has its answer.
    ///
    /// # Errors
    /// That of `result`.
    pub(super) async fn close<C: Conversation<Twin = T>>(
        self,
        client: &mut C,
        result: Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let last = self.emptied();
        let (lease, result) = self.run.end(client, result).await;
        if let Some(lease) = lease {
            hidden::tidy_with(lease, last, self.turn);
        }
        result
    }
}

/// Ends what takes longer than a statement may.
async fn in_time<R>(
    deadline: Option<Instant>,
    limit: Duration,
    work: impl Future<Output = Result<R, Trouble>>,
) -> Result<R, Trouble> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    tokio::time::timeout_at(deadline.into(), work)
        .await
        .unwrap_or_else(|_elapsed| Err(Trouble::Fault(too_long(limit))))
}

enum Done {
    Fetched(Order),
    /// Another proxy has the twin.
    Busy,
    /// Another proxy has made it again.
    Changed,
}

/// What one attempt has opened.
#[derive(Default)]
struct Run {
    /// The connection of the client's block.
    own: Option<Member>,
    twin: Option<Member>,
    loaded: Loaded,
    tables: Vec<String>,
    /// Rows of EXPLAIN that stand above the twin's.
    top: Vec<u8>,
    /// The body of the RowDescription of the client's own statement, where the twin runs another.
    description: Vec<u8>,
}

impl Run {
    async fn fetch<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        (gather, keeps): (&Gather, bool),
        turn: &C::Twin,
    ) -> Result<Done, Trouble> {
        let block = self.borrow_block(client).await?;
        let opened = open(client, &std::iter::once(turn.shard()).collect()).await;
        let mut members = opened.map_err(|trouble| {
            let is_missing = matches!(
                &trouble,
                Trouble::Fault(fault) if fault.code == SqlState::UNKNOWN_DATABASE
            );
            if is_missing {
                Trouble::Fault(no_twin(gather))
            } else {
                trouble
            }
        })?;
        self.twin = members.pop();
        let Some(twin) = &mut self.twin else {
            return Err(Trouble::Fault(gone()));
        };
        turn.note("planning", 0, 0);
        // Of what is kept, the rows are described by the statement that runs there: it is the client's own.
        let partial = gather.partial.as_ref().filter(|_| !keeps);
        let how = (gather, partial, block.as_ref());
        let planned = plan::plan(client, wide, how, twin, turn.mark());
        let mut split = None;
        let (mut fragments, order, style) = match planned.await? {
            Planned::Fragments(fragments, order, style) => {
                self.tables = fragments.iter().map(|it| it.table.clone()).collect();
                (fragments, order, style)
            }
            Planned::Split(parts, style) => {
                split = Some((parts.bound, parts.combined, parts.description));
                (vec![parts.fragment], parts.order, style)
            }
            Planned::Busy => return Ok(Done::Busy),
            Planned::Changed => return Ok(Done::Changed),
        };
        if gather.target.is_some() && !style.is_plain() {
            return Err(Trouble::Fault(refuse::rows_in_text()));
        }
        let (bound, combined, description) = split.unwrap_or_default();
        self.description = description;
        let explain = Explain::of(wide, combined);
        if explain.as_ref().is_none_or(|explain| explain.analyze) {
            let fetched = self
                .loaded
                .fetch(
                    client,
                    turn,
                    twin,
                    (&mut fragments, asked(wide, bound.as_ref())),
                    (block.as_ref(), &style),
                    &mut self.own,
                )
                .await;
            fetched.map_err(drifted)?;
        }
        if let Some(explain) = &explain {
            let told = if explain.analyze {
                Vec::new()
            } else {
                explain::estimates(client, &mut self.loaded, &fragments, &mut self.own).await?
            };
            for line in explain.lines(&fragments, &self.loaded, &told) {
                backend::data_row(&mut self.top, std::iter::once(Some(line.as_bytes())));
            }
        }
        self.return_block(client).await;
        if let Some(twin) = &mut self.twin {
            // Of parts there are few.
            let rows = self.loaded.rows.as_slice();
            let rows = if self.tables.is_empty() { &[] } else { rows };
            twin.push_hidden(&last_words(&fragments, rows, gather.target.is_none()))?;
            // It is gone when the block goes back to one of them.
            for name in client.savepoints().filter(|_| keeps).unwrap_or_default() {
                twin.push_hidden(&format!("SAVEPOINT {}", quote_ident(&name)))?;
            }
        }
        Ok(Done::Fetched(order))
    }

    /// Gives back what fragments came on, the block's connection included.
    async fn return_block<C: Conversation>(&mut self, client: &mut C) {
        let own = self.loaded.give_back(client).await.or(self.own.take());
        client.forget_targets();
        if let Some(mut own) = own {
            own.calm(client).await;
            client.return_block(own.lease);
        }
    }

    /// Takes the connection of the client's block, if it has one open, and asks it what it must know.
    async fn borrow_block<C: Conversation>(
        &mut self,
        client: &mut C,
    ) -> Result<Option<Block>, Trouble> {
        let Some(lease) = client.lend_block() else {
            return Ok(None);
        };
        match Member::of(client, lease).await {
            Ok(own) => {
                let own = self.own.insert(own);
                let block = Block::of(client, own).await?;
                if block.keeps_snapshot() {
                    client.bind_block();
                }
                Ok(Some(block))
            }
            Err((lease, trouble)) => {
                client.return_block(lease);
                Err(trouble)
            }
        }
    }

    /// Gives up what was opened; the twin's connection is still to be brought to rest.
    async fn end<C: Conversation>(
        mut self,
        client: &mut C,
        result: Result<(), Trouble>,
    ) -> (Option<Lease>, Result<(), Trouble>) {
        client.count_gathered(self.loaded.total(), self.loaded.bytes);
        self.return_block(client).await;
        let Some(mut twin) = self.twin else {
            return (None, result);
        };
        let result = twin.unless_cut(result);
        if let Some(connection) = twin.lease.connection() {
            if self.loaded.copies {
                frame::write(&mut connection.out, b'f', &[b"given up by pgherd\0"]);
            }
            if !connection.pipeline.is_empty() {
                client.cancel_now(&connection.cancel);
            }
        }
        (Some(twin.lease), result)
    }
}

/// What the shards are sent that has values of the client's.
fn asked<'a>(wide: &'a Wide, bound: Option<&'a Bound>) -> Option<(&'a Prepared, &'a Bound)> {
    match &wide.source {
        Source::Bind { prepared, .. } => Some((&**prepared, bound?)),
        Source::Text(_) => None,
    }
}

/// What the twin does before the statement: it looks at what is large, and may only read from then on.
fn last_words(fragments: &[Fragment], rows: &[u64], reads_only: bool) -> String {
    let mut words = Vec::new();
    for (fragment, rows) in fragments.iter().zip(rows) {
        if *rows < ANALYZED {
            continue;
        }
        let table = quote_literal(&fragment.table);
        let indexes = fragment.lookups.iter().map(literals);
        words.extend(indexes.map(|names| format!("SELECT pgherd.index({table}, ARRAY[{names}])")));
        words.push(format!("SELECT pgherd.analyze({table})"));
    }
    if reads_only {
        words.push("SET TRANSACTION READ ONLY".to_owned());
    }
    words.join(";")
}

fn truncate(tables: &[String]) -> String {
    let names = literals(tables);
    format!("SELECT pgherd.truncate(ARRAY[{names}]::pg_catalog.regclass[])")
}

/// Texts as the elements of an SQL array.
fn literals<'t>(texts: impl IntoIterator<Item = &'t String>) -> String {
    let quoted: Vec<String> = texts.into_iter().map(|text| quote_literal(text)).collect();
    quoted.join(",")
}

/// The twin is not there: without it the statement is refused.
fn no_twin(gather: &Gather) -> Fault {
    let fault = Fault::clone(&gather.otherwise);
    let hint = fault.hint.clone().unwrap_or_default();
    fault.hint(format!(
        "Run pgherd setup, which makes the twins that such statements are finished on. Or do without: {hint}"
    ))
}

/// What a shard has not got of what the twin has was changed since the twin was made.
fn drifted(trouble: Trouble) -> Trouble {
    let Trouble::Server(error) = &trouble else {
        return trouble;
    };
    let fields = backend::error_fields(error.get(frame::HEADER..).unwrap_or_default());
    if !matches!(fields.code(), "42703" | "42P01") {
        return trouble;
    }
    let told = format!("A shard says: {}.", fields.message());
    Trouble::Fault(refuse::stale_catalog().detail(told))
}

fn gone() -> Fault {
    Fault::error(SqlState::INTERNAL, "the gather server's connection is gone")
}

/// A row as a line of COPY in its text format.
fn write_line(lines: &mut Vec<u8>, row: &[u8]) {
    for (index, value) in backend::row_values(row).into_iter().enumerate() {
        if index > 0 {
            lines.push(b'\t');
        }
        let Some(value) = value else {
            lines.extend_from_slice(b"\\N");
            continue;
        };
        for byte in value {
            match byte {
                b'\\' => lines.extend_from_slice(b"\\\\"),
                b'\t' => lines.extend_from_slice(b"\\t"),
                b'\n' => lines.extend_from_slice(b"\\n"),
                b'\r' => lines.extend_from_slice(b"\\r"),
                byte => lines.push(*byte),
            }
        }
    }
    lines.push(b'\n');
}

fn too_many_rows() -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the rows of the INSERT take too much memory",
    )
    .hint("Insert fewer rows at once, or raise max_multi_bytes.")
}

fn too_long(limit: Duration) -> Fault {
    Fault::error(
        SqlState::QUERY_CANCELED,
        "canceling statement: its rows were not fetched and finished in time",
    )
    .detail(format!("It may take {} ms.", limit.as_millis()))
    .hint("Confine it to fewer rows, or raise gather.timeout.")
}
