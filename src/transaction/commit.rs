//! Carries out a commit on several shards, on the connections that the transaction is open on.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::control::gate::Keeper;
use crate::error::{Fault, SqlState};
use crate::server::connection::ServerConnection;
use crate::server::hidden::{self, read_until_ready};
use crate::server::pool::Lease;
use crate::sql::quote::quote_literal;
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::failpoint;
use super::gid::{self, Gid};
use super::machine::{Heard, Machine, Order, Outcome};

/// How long one step may take before its answer counts as lost, unless `query_timeout` is longer: a PREPARE or a
/// COMMIT runs deferred triggers, and may wait for replicas.
const STEP_LIMIT: Duration = Duration::from_mins(1);
/// The same once the decision is made: recovery does what is left.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// One shard's part in a transaction.
#[derive(Debug)]
pub struct Participant {
    pub lease: Lease,
    /// Unless everything that ran there was proven free of side effects.
    pub writes: bool,
    /// Statements of our own that come first.
    pub before: String,
}

/// Whose transaction it is.
#[derive(Clone, Debug)]
pub struct Naming {
    pub deployment: String,
    pub database: String,
    pub query_timeout: Duration,
    /// How long a part waits for consistent reads that begin; zero is no limit.
    pub gate_wait: Duration,
    /// What holds the home shard's gate, where reads are consistent.
    pub keeper: Option<Keeper>,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    Committed,
    /// Nothing of it will ever be seen: a server's ErrorResponse, whole.
    Refused(Vec<u8>),
    /// The same, for this reason.
    Failed(Fault),
    /// It is committed or not: recovery finds out.
    Unknown(Fault),
}

/// What is left of a transaction.
#[derive(Debug)]
pub struct Committed {
    /// The connections, each idle and in sync; others are closed.
    pub leases: Vec<Lease>,
    pub end: End,
    /// Notices of the servers, for the client.
    pub notices: Vec<u8>,
    /// The row that may go away, and its decider.
    pub forget: Option<(String, String)>,
    /// Prepared transactions are left to recovery.
    pub leaves_some: bool,
    /// Two phases were needed.
    pub two_phase: bool,
}

/// What a participant answered.
#[derive(Debug, Default)]
struct Answer {
    tag: String,
    /// The first column of the first row.
    value: String,
    error: Option<Vec<u8>>,
    notices: Vec<u8>,
}

/// Commits a transaction that is open on each of these.
///
/// # Cancel safety
/// Not safe: connections are closed, and what is left is for recovery. Where the client may go away it runs as a
/// task of its own.
pub async fn commit(
    mut parts: Vec<Participant>,
    preferred: Option<usize>,
    naming: &Naming,
) -> Committed {
    let writes: Vec<bool> = parts.iter().map(|part| part.writes).collect();
    let mut machine = Machine::new(&writes, preferred);
    let two_phase = writes.iter().filter(|writes| **writes).count() > 1;
    let decider = machine
        .decider()
        .and_then(|at| parts.get(at))
        .map(|part| part.lease.pool().target.shard_name.clone())
        .unwrap_or_default();
    let prefix = gid::prefix(&naming.deployment, &naming.database, &decider);
    let mut notices = Vec::new();
    let mut causes: Vec<Option<Cause>> = parts.iter().map(|_| None).collect();
    let gid = match Gid::new(&prefix) {
        Ok(gid) => gid,
        Err(fault) => {
            return Committed {
                leases: Vec::new(),
                end: End::Failed(fault),
                notices,
                forget: None,
                leaves_some: false,
                two_phase,
            };
        }
    };
    let hold = match &naming.keeper {
        // On the home shard it is the decider's own.
        Some(keeper) if two_phase && decider != keeper.home => keeper.hold().await,
        Some(_) | None => None,
    };
    failpoint::pass("held");
    let mut decided = false;
    loop {
        let orders = machine.orders();
        if orders.is_empty() {
            break;
        }
        let heard = carry_out(&mut parts, &orders, &gid, &prefix, naming).await;
        for ((at, order), (heard, answer)) in orders.into_iter().zip(heard) {
            decided |= order == Order::Decide && heard == Heard::Done;
            if let Some(cause) = causes.get_mut(at)
                && cause.is_none()
            {
                *cause = answer.error;
            }
            notices.extend_from_slice(&answer.notices);
            machine.heard(at, heard);
        }
    }
    drop(hold);
    let name = |at: usize| {
        let part = parts.get(at);
        part.map(|part| part.lease.pool().target.shard_name.clone())
            .unwrap_or_default()
    };
    let end = match machine.outcome() {
        Some(Outcome::Committed) => End::Committed,
        Some(Outcome::RolledBack { by }) => match causes.get_mut(by).and_then(Option::take) {
            Some(Cause::Server(error)) => End::Refused(error),
            Some(Cause::Lost(reason)) => End::Failed(lost(&name(by), &reason)),
            None => End::Failed(lost(&name(by), "it did not answer")),
        },
        Some(Outcome::Unknown { by }) => End::Unknown(unknown(&name(by))),
        // The machine has an outcome when it orders nothing more.
        None => End::Unknown(Fault::error(
            SqlState::TRANSACTION_OUTCOME_UNKNOWN,
            "a commit on several shards did not end",
        )),
    };
    for part in &parts {
        if let Some(connection) = part.lease.peek() {
            connection.cancel.prepared.take();
        }
    }
    let leaves_some = machine.leaves_some();
    let forget = (decided && !leaves_some && matches!(end, End::Committed))
        .then(|| (decider, gid.base().to_owned()));
    Committed {
        leases: parts
            .into_iter()
            .map(|part| part.lease)
            .filter(|lease| lease.peek().is_some_and(ServerConnection::is_clean))
            .collect(),
        end,
        notices,
        forget,
        leaves_some,
        two_phase,
    }
}

/// Why a step failed.
#[derive(Debug)]
enum Cause {
    Server(Vec<u8>),
    Lost(String),
}

/// What became of one order, and what else was said.
struct Said {
    error: Option<Cause>,
    notices: Vec<u8>,
}

/// Gives all of these orders at once and waits for the answers.
async fn carry_out(
    parts: &mut [Participant],
    orders: &[(usize, Order)],
    gid: &Gid,
    prefix: &str,
    naming: &Naming,
) -> Vec<(Heard, Said)> {
    let limit = |order: Order| match order {
        Order::Decide | Order::Prepare | Order::Commit => STEP_LIMIT.max(naming.query_timeout),
        Order::CommitPrepared | Order::Rollback | Order::RollbackPrepared => FINISH_LIMIT,
    };
    let mut running = Vec::with_capacity(orders.len());
    for (at, part) in parts.iter_mut().enumerate() {
        if let Some((_, order)) = orders.iter().find(|(wanted, _)| *wanted == at) {
            let sql = text(*order, at, &part.before, gid, prefix, naming.gate_wait);
            let name = (*order == Order::Prepare).then(|| gid.part(at));
            running.push(Box::pin(say(part, *order, sql, name, limit(*order))));
        }
    }
    let mut answers: Vec<Option<(Heard, Said)>> = running.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut all = true;
        for (one, answer) in running.iter_mut().zip(&mut answers) {
            if answer.is_some() {
                continue;
            }
            match one.as_mut().poll(cx) {
                Poll::Ready(said) => *answer = Some(said),
                Poll::Pending => all = false,
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers
        .into_iter()
        .map(|answer| {
            answer.unwrap_or_else(|| {
                let error = Some(Cause::Lost("it was not asked".to_owned()));
                let notices = Vec::new();
                (Heard::Lost, Said { error, notices })
            })
        })
        .collect()
}

/// What an order is in SQL. Each part passes the gate before any is committed ([`crate::control::gate`]).
fn text(
    order: Order,
    at: usize,
    before: &str,
    gid: &Gid,
    prefix: &str,
    gate_wait: Duration,
) -> String {
    let name = quote_literal(&gid.part(at));
    let wait = i32::try_from(gate_wait.as_millis()).unwrap_or(i32::MAX);
    match order {
        Order::Decide => format!(
            "{before}SELECT pgherd.decide({}, {}, {wait})",
            quote_literal(prefix),
            quote_literal(gid.secret())
        ),
        Order::Prepare => {
            format!("{before}SELECT pgherd.enter({wait});PREPARE TRANSACTION {name}")
        }
        Order::Commit => "COMMIT".to_owned(),
        Order::CommitPrepared => format!("COMMIT PREPARED {name}"),
        Order::Rollback => "ROLLBACK".to_owned(),
        Order::RollbackPrepared => format!("ROLLBACK PREPARED {name}"),
    }
}

const fn point(order: Order) -> &'static str {
    match order {
        Order::Decide => "decide",
        Order::Prepare => "prepare",
        Order::Commit => "commit",
        Order::CommitPrepared => "commit_prepared",
        Order::Rollback => "rollback",
        Order::RollbackPrepared => "rollback_prepared",
    }
}

/// Gives one order and waits for its answer.
///
/// `gid` is what is being prepared by it, if so.
async fn say(
    part: &mut Participant,
    order: Order,
    sql: String,
    gid: Option<String>,
    limit: Duration,
) -> (Heard, Said) {
    let lost = |reason: &str, notices| {
        let error = Some(Cause::Lost(reason.to_owned()));
        (Heard::Lost, Said { error, notices })
    };
    let Some(connection) = part.lease.connection() else {
        return lost("it is gone", Vec::new());
    };
    if connection.unsynced {
        connection.push_hidden_sync();
    }
    failpoint::pass(&format!("before_{}", point(order)));
    // What is owed from before is answered first, and none of it matters here but the state it leaves.
    if !connection.pipeline.is_empty()
        && (tokio::time::timeout(limit, read_until_ready(connection, |_| ())).await).is_err()
    {
        return lost("it did not answer in time", Vec::new());
    }
    if let Some(name) = gid {
        *connection.cancel.prepared.borrow_mut() = Some(name);
    }
    connection.push_hidden_query(&sql);
    let mut cx = Context::from_waker(Waker::noop());
    // What the socket does not take now, or that it is closed, shows when the answer is read.
    drop(connection.poll_flush(&mut cx));
    failpoint::pass(&format!("sent_{}", point(order)));
    let mut answer = Answer::default();
    let read = read_until_ready(connection, |frame| match frame.tag {
        b'C' => answer.tag = text_of(frame.body),
        b'D' if answer.value.is_empty() => {
            let row = backend::row_values(frame.body);
            let first = row.into_iter().next().flatten().unwrap_or_default();
            answer.value = String::from_utf8_lossy(first).into_owned();
        }
        b'E' if answer.error.is_none() => answer.error = Some(frame.bytes.to_vec()),
        b'N' => answer.notices.extend_from_slice(frame.bytes),
        _ => {}
    });
    let read = tokio::time::timeout(limit, read).await;
    let Answer {
        tag,
        value,
        error,
        notices,
    } = answer;
    let in_sync = connection.pipeline.is_idle();
    let Ok(_answered) = read else {
        return lost("it did not answer in time", notices);
    };
    failpoint::pass(&format!("after_{}", point(order)));
    if let Some(error) = error {
        let fields = backend::error_fields(error.get(HEADER..).unwrap_or_default());
        let is_fatal = matches!(fields.severity(), "FATAL" | "PANIC");
        if is_fatal || !in_sync {
            let reason = fields.message().to_owned();
            return lost(&reason, notices);
        }
        let finishes = matches!(order, Order::CommitPrepared | Order::RollbackPrepared);
        if finishes && fields.code() == SqlState::UNDEFINED_OBJECT.as_str() {
            // Recovery was here first.
            let error = None;
            return (Heard::Done, Said { error, notices });
        }
        let error = Some(Cause::Server(error));
        return (Heard::Refused, Said { error, notices });
    }
    if !in_sync {
        return lost("the server closed the connection", notices);
    }
    let expected = match order {
        Order::Decide => "SELECT",
        Order::Prepare => "PREPARE TRANSACTION",
        Order::Commit => "COMMIT",
        Order::CommitPrepared => "COMMIT PREPARED",
        Order::Rollback => "ROLLBACK",
        Order::RollbackPrepared => "ROLLBACK PREPARED",
    };
    let said = |error| Said { error, notices };
    if order == Order::Decide && value == "f" {
        return (Heard::ReadsOnly, said(None));
    }
    if tag.starts_with(expected) {
        (Heard::Done, said(None))
    } else {
        // A transaction that had failed there: it is rolled back.
        let reason = format!("it answered {tag} to {expected}");
        (Heard::Refused, said(Some(Cause::Lost(reason))))
    }
}

fn text_of(body: &[u8]) -> String {
    let text = body.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn lost(shard: &str, reason: &str) -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        format!(
            "the transaction was rolled back: shard \"{shard}\" did not take part in its commit"
        ),
    )
    .detail(format!("It ended with: {}.", reason.trim_end_matches('.')))
    .hint("Repeat the transaction.")
}

fn unknown(shard: &str) -> Fault {
    Fault::error(
        SqlState::TRANSACTION_OUTCOME_UNKNOWN,
        format!("the connection to shard \"{shard}\" was lost while committing"),
    )
    .detail("The transaction is committed on all of its shards or on none.")
    .hint(
        "Check which before repeating it; SHOW PREPARED_TRANSACTIONS lists what is still in doubt.",
    )
}

/// Rolls back on each of these; what does not come to rest in time is closed.
///
/// # Cancel safety
/// Safe: a drop closes the connections.
pub async fn roll_back(leases: Vec<Lease>) -> Vec<Lease> {
    let running: Vec<_> = leases
        .into_iter()
        .map(|lease| tokio::task::spawn_local(hidden::tidy(lease)))
        .collect();
    let mut left = Vec::with_capacity(running.len());
    for one in running {
        if let Ok(Some(lease)) = one.await {
            left.push(lease);
        }
    }
    left
}
