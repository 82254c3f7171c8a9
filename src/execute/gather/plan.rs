//! Has the twin plan a statement, and reads off what must be fetched.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::error::{Fault, SqlState};
use crate::planner::gather::{Clock, Fragment, InText, clock, fragments as of_plan};
use crate::planner::plan::{Effect, Gather};
use crate::planner::{explanation, refuse};
use crate::sql::cursor::Cursor;
use crate::sql::scan::{Kind, Lexing, scan};
use crate::wire::backend;
use crate::wire::frame;

use crate::execute::member::{self, Member};
use crate::execute::{Conversation, Source, Trouble, Wide};

use super::block::Block;
use super::literals;
use super::split::{Split, split};
use super::style::{self, Style};

/// How a statement is planned: every table is read from one end to the other, so that each condition of a table
/// stands at its scan, and constants are written so that they are read back the same.
const SETTINGS: &str = "SET LOCAL enable_indexscan = off;SET LOCAL enable_indexonlyscan = off;\
    SET LOCAL enable_bitmapscan = off;SET LOCAL enable_tidscan = off;\
    SET LOCAL max_parallel_workers_per_gather = 0;SET LOCAL jit = off;\
    SET LOCAL extra_float_digits = 1;SET LOCAL datestyle = 'ISO'";

const EXPLAIN: &[u8] = b"EXPLAIN (VERBOSE, COSTS OFF, FORMAT JSON) ";

/// Begins the twin's transaction.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";

/// What planning goes back to: behind the lock that holds the twin, which would be given up otherwise.
const SAVEPOINT: &str = "SAVEPOINT pgherd";

/// What the twin is asked before anything else: the moment of the statement, whether another proxy is at work
/// on it, and the client's settings.
const FREE: &str = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', \
    pgherd.hold()";

/// Ends the settings that planning takes.
pub(super) const PLANNED: &str = "ROLLBACK TO SAVEPOINT pgherd";

/// What became of the twin's planning.
pub(super) enum Planned {
    Fragments(Vec<Fragment>, Order, Style),
    /// The shards work it out in part.
    Split(Box<Split>, Style),
    /// Another proxy is at work on it.
    Busy,
    /// Another proxy has made it again.
    Changed,
}

/// What the twin is told to run.
#[derive(Debug)]
pub(super) enum Order {
    /// What the client sent.
    Verbatim,
    /// The same, asking for the moment of its block.
    Rewritten(Vec<u8>),
    /// What combines the shards' parts: with what follows the names in its Parse and Bind.
    Combined {
        text: Vec<u8>,
        parse: Vec<u8>,
        bind: Vec<u8>,
    },
}

/// Opens the twin's transaction, and has the statement planned in it.
///
/// # Errors
/// Those of the statement itself, as PostgreSQL tells them; what cannot be fetched.
pub(super) async fn plan<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    (gather, partial, block): (&Gather, Option<&Arc<[String]>>, Option<&Block>),
    twin: &mut Member,
    mark: &str,
) -> Result<Planned, Trouble> {
    let order = match block.map(|_block| within(wide, gather)).transpose()? {
        None => Order::Verbatim,
        Some(order) => order,
    };
    twin.push_hidden(BEGIN)?;
    if let Some(block) = block {
        twin.push_hidden(&format!("SET LOCAL pgherd.moment = '{}'", block.moment))?;
    }
    let free = format!("{FREE}, {}{}", style::SETTINGS, known_of(&gather.unknown));
    let free = rows(client, twin, free.as_bytes()).await?;
    let mut free = free.into_iter();
    let (moment, held) = (free.next().flatten(), free.next().flatten());
    match held {
        None => return Ok(Planned::Busy),
        Some(held) if held != mark.as_bytes() => return Ok(Planned::Changed),
        Some(_) => (),
    }
    let settings = free.by_ref().take(style::COUNT).flatten();
    let settings: Vec<String> = settings
        .map(|value| String::from_utf8_lossy(&value).into_owned())
        .collect();
    let style = Style::of(<[String; style::COUNT]>::try_from(settings).map_err(|_few| no_plan())?);
    if let Some(Some(function)) = free.next() {
        let function = format!("function \"{}\"", String::from_utf8_lossy(&function));
        return Err(Trouble::Fault(refuse::looks_elsewhere(
            &function,
            &gather.table,
        )));
    }
    let moment = match block {
        Some(block) => block.moment.clone(),
        None => String::from_utf8_lossy(&moment.unwrap_or_default()).into_owned(),
    };
    twin.push_hidden(SAVEPOINT)?;
    if let Some(path) = partial
        && let Some(split) = split(client, wide, path, twin, &style).await?
    {
        return Ok(Planned::Split(Box::new(split), style));
    }
    twin.push_hidden(SETTINGS)?;
    let plan = match explain(client, wide, twin, &order).await {
        Ok(plan) => plan,
        Err(Trouble::Server(error)) => return Err(own_error(client, wide, twin, error).await),
        Err(trouble) => return Err(trouble),
    };
    twin.push_hidden(PLANNED)?;
    let in_text = if style.is_plain() {
        InText::Kept
    } else if block.is_some() {
        // What is of one snapshot there comes in one text.
        InText::AllLost
    } else {
        InText::Lost
    };
    let fragments =
        client.plan_with(|context| of_plan(context, gather, &plan, &moment, in_text))?;
    Ok(Planned::Fragments(fragments, order, style))
}

/// Asks which of these functions PostgreSQL has.
fn known_of(names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let names = literals(names);
    format!(
        ", (SELECT pg_catalog.min(proname::text) FROM pg_catalog.pg_proc WHERE proname::text = ANY (ARRAY[{names}]))"
    )
}

/// The statement as it runs in a block, whose moment it may ask for.
fn within(wide: &Wide, gather: &Gather) -> Result<Order, Fault> {
    let text = wide.source.sql();
    let tokens = scan(text, wide.lexing).map_err(|_unreadable| no_plan())?;
    if gather.clock_in_views {
        return Err(refuse::moment_in_block());
    }
    match clock(Cursor::new(text, &tokens)) {
        Clock::Unasked => Ok(Order::Verbatim),
        Clock::Asked(text) => Ok(Order::Rewritten(text)),
        Clock::Hidden => Err(refuse::moment_in_block()),
    }
}

impl Order {
    /// Queues the statement for its answer, or for so many rows of it.
    pub(super) fn push<C: Conversation>(
        &self,
        client: &C,
        wide: &Wide,
        twin: &mut Member,
        describe: bool,
        max: u32,
    ) -> Result<(), Trouble> {
        match (self, &wide.source) {
            (Order::Verbatim, source) => twin.push_rows(client, source, describe, max),
            (Order::Combined { parse, bind, .. }, Source::Bind { prepared, .. }) => {
                let detour = client.detour(prepared);
                twin.push_own_rows(prepared, parse, bind, &detour, describe, max)
            }
            (Order::Rewritten(text) | Order::Combined { text, .. }, Source::Text(_)) => {
                twin.push_statement(client, &Source::Text(text.clone()), describe)
            }
            (
                Order::Rewritten(text),
                Source::Bind {
                    prepared,
                    after_names,
                    ..
                },
            ) => {
                let parse = [text.as_slice(), b"\0", prepared.types_declared()].concat();
                let detour = client.detour(prepared);
                twin.push_own_rows(prepared, &parse, after_names, &detour, describe, max)
            }
        }
    }

    pub(super) fn text<'a>(&'a self, wide: &'a Wide) -> &'a [u8] {
        match self {
            Order::Verbatim => wide.source.sql(),
            Order::Rewritten(text) | Order::Combined { text, .. } => text,
        }
    }
}

/// Runs a query of our own; the fields of its last row.
pub(in crate::execute) async fn rows<C: Conversation>(
    client: &mut C,
    twin: &mut Member,
    text: &[u8],
) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
    twin.push_text(text)?;
    last_row(client, twin).await
}

async fn last_row<C: Conversation>(
    client: &mut C,
    twin: &mut Member,
) -> Result<Vec<Option<Vec<u8>>>, Trouble> {
    let mut bytes: Vec<u8> = Vec::new();
    each_row(client, twin, |row| bytes = row).await?;
    let body = bytes.get(frame::HEADER..).unwrap_or_default();
    let values = backend::row_values(body).into_iter();
    Ok(values.map(|value| value.map(<[u8]>::to_vec)).collect())
}

/// The first fields of the rows that several statements of our own answer.
pub(super) async fn answers<C: Conversation>(
    client: &mut C,
    member: &mut Member,
) -> Result<Vec<Vec<u8>>, Trouble> {
    let mut fields = Vec::new();
    each_row(client, member, |row| {
        let body = row.get(frame::HEADER..).unwrap_or_default();
        let first = backend::row_values(body).into_iter().next().flatten();
        fields.push(first.unwrap_or_default().to_vec());
    })
    .await?;
    Ok(fields)
}

/// Hears rows, of which no more than `max_multi_bytes` may come.
async fn each_row<C: Conversation>(
    client: &mut C,
    member: &mut Member,
    mut on: impl FnMut(Vec<u8>),
) -> Result<(), Trouble> {
    let most = usize::try_from(client.limits().max_multi_bytes).unwrap_or(usize::MAX);
    let mut total = 0_usize;
    let mut row: Vec<u8> = Vec::new();
    member
        .hear(client, |_, heard| {
            if !matches!(heard.tag, b'D' | 0) {
                return Ok(true);
            }
            row.extend_from_slice(heard.bytes);
            total = total.saturating_add(heard.bytes.len());
            if total > most {
                return Err(Trouble::Fault(long_plan()));
            }
            if frame::is_whole(&row) {
                on(std::mem::take(&mut row));
            }
            Ok(true)
        })
        .await
}

/// How many rows a plan in JSON expects.
pub(super) fn planned_rows(plan: &[u8]) -> Option<u64> {
    let plan: Value = serde_json::from_slice(plan).ok()?;
    plan.pointer("/0/Plan/Plan Rows").and_then(Value::as_u64)
}

/// The plan of the client's statement, as JSON.
async fn explain<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    twin: &mut Member,
    order: &Order,
) -> Result<Vec<u8>, Trouble> {
    let query = query_of(wide, order.text(wide))?;
    let text = [EXPLAIN, &*query].concat();
    let row = match &wide.source {
        Source::Text(_) => rows(client, twin, &text).await?,
        Source::Bind {
            prepared,
            after_names,
            ..
        } => {
            let bind = member::as_texts(after_names)?;
            let types = prepared.types_declared();
            let parse = [text.as_slice(), b"\0", types].concat();
            let detour = client.detour(prepared);
            twin.push_own_statement(prepared, &parse, &bind, &detour, false)?;
            last_row(client, twin).await?
        }
    };
    row.into_iter()
        .next()
        .flatten()
        .ok_or_else(|| Trouble::Fault(no_plan()))
}

/// What of the client's statement is planned: of COPY and EXPLAIN, their query.
pub(super) fn query_of<'t>(wide: &Wide, text: &'t [u8]) -> Result<Cow<'t, [u8]>, Fault> {
    if matches!(wide.effect, Effect::CopyOut { .. }) {
        return copied(text, wide.lexing).ok_or_else(no_plan);
    }
    if wide.verb == "EXPLAIN" {
        let tokens = scan(text, wide.lexing).map_err(|_unreadable| no_plan())?;
        let explanation = explanation(Cursor::new(text, &tokens)).ok_or_else(no_plan)?;
        let start = explanation.statement.rest().start;
        let query = text.get(start..).ok_or_else(no_plan)?;
        return Ok(Cow::Borrowed(query));
    }
    Ok(Cow::Borrowed(text))
}

/// The query of COPY, or one that reads what its table itself holds.
fn copied(text: &[u8], lexing: Lexing) -> Option<Cow<'_, [u8]>> {
    let tokens = scan(text, lexing).ok()?;
    let mut cursor = Cursor::new(text, &tokens);
    cursor.take("copy").then_some(())?;
    cursor.take("binary");
    let start = cursor.rest().start;
    if cursor.kind() == Some(Kind::OpenParen) {
        let mut inner = cursor;
        inner.advance();
        let start = inner.rest().start;
        cursor.skip_group();
        let behind = tokens.len().checked_sub(cursor.tokens().len())?;
        let close = tokens.get(behind.checked_sub(1)?)?;
        return text.get(start..close.start).map(Cow::Borrowed);
    }
    cursor.qualified()?;
    let name = text.get(start..cursor.rest().start)?;
    Some(Cow::Owned([b"SELECT * FROM ONLY ", name].concat()))
}

/// The error of the client's own text, whose positions are the client's.
async fn own_error<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    twin: &mut Member,
    explained: Vec<u8>,
) -> Trouble {
    let attempt = async {
        twin.push_hidden(PLANNED)?;
        twin.push_statement(client, &wide.source, false)?;
        twin.hear(client, |_, _| Ok(true)).await
    };
    match attempt.await {
        Ok(()) => Trouble::Server(explained),
        Err(trouble) => trouble,
    }
}

fn no_plan() -> Fault {
    Fault::error(SqlState::INTERNAL, "the gather server gave no plan")
        .hint("This is a fault of pgherd; please report it.")
}

fn long_plan() -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the plan of the statement takes too much memory",
    )
    .hint("Make the statement shorter, or raise max_multi_bytes.")
}
