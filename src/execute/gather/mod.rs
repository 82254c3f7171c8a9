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
mod plan;
mod split;

use std::time::Duration;

use crate::error::{Fault, SqlState};
use crate::planner::gather::Fragment;
use crate::planner::plan::Gather;
use crate::server::hidden;
use crate::server::statements::Prepared;
use crate::wire::backend;
use crate::wire::frame;

use super::member::{Member, open, targets};
use super::{Conversation, Source, Trouble, Twin, Wide};
use block::Block;
use explain::Explain;
use load::Loaded;
use plan::Planned;
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
    let limit = client.gather().timeout;
    let deadline = tokio::time::sleep(limit);
    tokio::pin!(deadline);
    loop {
        let Some(twin) = client.take_twin().await? else {
            return Err(Trouble::Fault(Fault::clone(&gather.otherwise)));
        };
        let mut run = Run::default();
        let result = {
            let whole = run.answer(client, wide, gather, describe, &twin);
            if limit.is_zero() {
                whole.await
            } else {
                tokio::select! {
                    biased;
                    result = whole => result,
                    () = &mut deadline => Err(Trouble::Fault(too_long(limit))),
                }
            }
        };
        let result = run.end(client, twin, result).await;
        match result {
            Ok(Done::Answered) => return Ok(()),
            Ok(Done::Busy | Done::Changed) => (),
            Err(trouble) => return Err(trouble),
        }
    }
}

enum Done {
    Answered,
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
}

impl Run {
    async fn answer<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        gather: &Gather,
        describe: bool,
        turn: &C::Twin,
    ) -> Result<Done, Trouble> {
        let block = self.borrow_block(client).await?;
        let opened = open(client, &std::iter::once(turn.shard()).collect()).await;
        let mut members = opened.map_err(|trouble| match trouble {
            Trouble::Fault(fault) if fault.code == SqlState::UNKNOWN_DATABASE => {
                Trouble::Fault(no_twin(gather))
            }
            other => other,
        })?;
        self.twin = members.pop();
        let Some(twin) = &mut self.twin else {
            return Err(Trouble::Fault(gone()));
        };
        turn.note("planning", 0, 0);
        let planned = plan::plan(client, wide, gather, twin, turn.mark(), block.as_ref());
        let mut split = None;
        let (mut fragments, order) = match planned.await? {
            Planned::Fragments(fragments, order) => {
                self.tables = fragments.iter().map(|it| it.table.clone()).collect();
                (fragments, order)
            }
            Planned::Split(parts) => {
                split = Some((parts.bound, parts.combined, parts.description));
                (vec![parts.fragment], parts.order)
            }
            Planned::Busy => return Ok(Done::Busy),
            Planned::Changed => return Ok(Done::Changed),
        };
        let (bound, combined, description) = split.unwrap_or_default();
        let explain = Explain::of(wide, combined);
        let mut top = Vec::new();
        if explain.as_ref().is_none_or(|explain| explain.analyze) {
            self.loaded
                .fetch(
                    client,
                    turn,
                    twin,
                    (&mut fragments, asked(wide, bound.as_ref())),
                    block.as_ref(),
                    &mut self.own,
                )
                .await?;
        }
        if let Some(explain) = &explain {
            let told = if explain.analyze {
                Vec::new()
            } else {
                explain::estimates(client, &mut self.loaded, &fragments, &mut self.own).await?
            };
            for line in explain.lines(&fragments, &self.loaded, &told) {
                backend::data_row(&mut top, std::iter::once(Some(line.as_bytes())));
            }
        }
        self.own = self.loaded.give_back(client).await.or(self.own.take());
        client.aim_cancels(targets([&*twin]));
        turn.note("finishing", self.loaded.total(), self.loaded.bytes);
        let is_split = self.tables.is_empty();
        let rows = if is_split { &[] } else { self.loaded.rows.as_slice() };
        twin.push_hidden(&last_words(&fragments, rows))?;
        order.push(client, wide, twin, describe)?;
        twin.hear(client, |client, heard| {
            if heard.tag == b'D' {
                client.out().append(&mut top);
            }
            if heard.tag == b'T' && !description.is_empty() {
                let own = described(heard.body, &description);
                client.out().extend_from_slice(&own);
                return Ok(true);
            }
            client.out().extend_from_slice(heard.bytes);
            Ok(true)
        })
        .await?;
        Ok(Done::Answered)
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

    /// Gives up what was opened. The twin's transaction is rolled back after the client has its answer.
    async fn end<C: Conversation>(
        mut self,
        client: &mut C,
        turn: C::Twin,
        result: Result<Done, Trouble>,
    ) -> Result<Done, Trouble> {
        client.count_gathered(self.loaded.total(), self.loaded.bytes);
        let own = self.loaded.give_back(client).await.or(self.own.take());
        client.forget_targets();
        if let Some(mut own) = own {
            own.calm(client).await;
            client.return_block(own.lease);
        }
        let Some(mut twin) = self.twin else {
            return result;
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
        let last = if self.loaded.bytes >= GARBAGE {
            truncate(&self.tables)
        } else {
            String::new()
        };
        match result {
            Ok(Done::Busy) => {
                turn.busy_elsewhere();
                hidden::tidy_later(twin.lease);
            }
            Ok(Done::Changed) => {
                turn.was_made_again();
                hidden::tidy_later(twin.lease);
            }
            Ok(Done::Answered) | Err(_) => hidden::tidy_with(twin.lease, last, turn),
        }
        result
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
fn last_words(fragments: &[Fragment], rows: &[u64]) -> String {
    let mut sql = String::new();
    for (fragment, rows) in fragments.iter().zip(rows) {
        if *rows >= ANALYZED {
            sql.push_str("SELECT pgherd.analyze('");
            sql.push_str(&fragment.table.replace('\'', "''"));
            sql.push_str("');");
        }
    }
    sql.push_str("SET TRANSACTION READ ONLY");
    sql
}

fn truncate(tables: &[String]) -> String {
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("'{}'", table.replace('\'', "''")))
        .collect();
    format!(
        "SELECT pgherd.truncate(ARRAY[{}]::pg_catalog.regclass[])",
        names.join(",")
    )
}

/// The twin is not there: without it the statement is refused.
fn no_twin(gather: &Gather) -> Fault {
    let fault = Fault::clone(&gather.otherwise);
    let hint = fault.hint.clone().unwrap_or_default();
    fault.hint(format!(
        "{hint} Or run pgherd setup, so that the gather server finishes such statements."
    ))
}

fn gone() -> Fault {
    Fault::error(SqlState::INTERNAL, "the gather server's connection is gone")
}

fn too_long(limit: Duration) -> Fault {
    Fault::error(
        SqlState::QUERY_CANCELED,
        "canceling statement: its rows were not fetched and finished in time",
    )
    .detail(format!("It may take {} ms.", limit.as_millis()))
    .hint("Confine it to fewer rows, or raise gather.timeout.")
}
