//! Snapshots on several shards that see each commit on several shards whole or not at all.
//!
//! The gate of each shard is passed as reads pass it, the home shard's first; [`crate::control::gate`] argues why that
//! is enough. LOCK takes no snapshot and a SELECT does; what is locked within a savepoint is given up
//! with it, while the snapshot stays the transaction's:
//!
//! ```text
//! BEGIN ISOLATION LEVEL REPEATABLE READ
//! SAVEPOINT pgherd; LOCK TABLE pgherd.gate IN ROW EXCLUSIVE MODE      home, then all others at once
//! SELECT; ROLLBACK TO SAVEPOINT pgherd; RELEASE SAVEPOINT pgherd     on each, once all have it; the statement follows
//! ```
//!
//! A statement outside of a block has a transaction for itself, whose snapshot its reads share. A block that keeps its
//! snapshot has it opened on every shard before its first statement. In a READ COMMITTED block each statement of each
//! shard has a snapshot of its own, and nothing is opened.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::server::hidden;
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::member::{self, Member, close};
use super::{Conversation, Interrupted, Trouble};

/// How long the home shard's gate is waited for at a time: those that commit may have a trigger or a slow disk to wait
/// for, and others queue behind.
const HOME_TURN: Duration = Duration::from_secs(1);
/// The same of the others', where only what is past its decision can be met, or what a dead proxy left.
const TURN: Duration = Duration::from_millis(250);
/// How long others are let through before it is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a server keeps the gate closed for a proxy that does not answer any more.
const ABANDONED: &str = "10s";

const PASS: &str = "SELECT;ROLLBACK TO SAVEPOINT pgherd;RELEASE SAVEPOINT pgherd";
const GIVE_UP: &str = "ROLLBACK TO SAVEPOINT pgherd;RELEASE SAVEPOINT pgherd";

/// Takes a connection of each shard for a read, as [`member::open_parts`] does; where reads are consistent and it is not
/// part of a block, each in a transaction with a snapshot, all of which are one, and which ends with the
/// statement.
///
/// # Errors
/// Those of the shards; 57014 where commits were waited for too long.
pub(super) async fn open_parts<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
    reads: bool,
) -> Result<Vec<Member>, Trouble> {
    if !reads || client.is_in_block() || !applies(client, shards) {
        return member::open_parts(client, shards).await;
    }
    let mut members = open_fresh(client, shards).await?;
    for member in &mut members {
        member.ends = true;
    }
    Ok(members)
}

/// Whether a read of these shards has several snapshots that are to be one.
pub(super) fn applies<C: Conversation>(client: &C, shards: &ShardSet) -> bool {
    client.reads_consistently() && shards.len() > 1
}

/// Connections that are no part of a block, each in a transaction of its own whose snapshot is open.
pub(super) async fn open_fresh<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
) -> Result<Vec<Member>, Trouble> {
    client.check_two_phase().await?;
    let home = client.topology().home();
    let mut wanted = shards.clone();
    wanted.insert(home);
    let mut members = member::open(client, &wanted).await?;
    let opened = begin(client, &mut members).await;
    let (kept, passed): (Vec<Member>, Vec<Member>) = members
        .into_iter()
        .partition(|member| opened.is_ok() && shards.contains(member.shard));
    match opened {
        Ok(()) => {
            // The home shard, where only its gate was needed.
            for mut member in passed {
                member.push_hidden("ROLLBACK")?;
                member.start_sending()?;
                hidden::tidy_later(member.lease);
            }
            Ok(kept)
        }
        Err(trouble) => {
            close(client, passed).await;
            Err(trouble)
        }
    }
}

async fn begin<C: Conversation>(client: &mut C, members: &mut [Member]) -> Result<(), Trouble> {
    for member in members.iter_mut() {
        let connection = member.connection()?;
        let default = connection.settings.get("default_transaction_isolation");
        let is_serializable = default.is_some_and(|level| level.contains("serializable"));
        let level = if is_serializable {
            "SERIALIZABLE, NOT DEFERRABLE"
        } else {
            "REPEATABLE READ"
        };
        member.push_hidden(&format!("BEGIN ISOLATION LEVEL {level}"))?;
    }
    open(client, members).await
}

/// Opens the snapshots of the client's block on every shard.
///
/// # Errors
/// As for [`open_parts`]; the block has failed then.
pub(crate) async fn open_block<C: Conversation>(client: &mut C) -> Result<(), Interrupted> {
    let opened = open_all(client).await;
    opened.map_err(|trouble| match trouble {
        Trouble::Server(error) => {
            let fields = backend::error_fields(error.get(HEADER..).unwrap_or_default());
            let code = SqlState::of_server(fields.code());
            Interrupted::Fault(Fault::error(code, fields.message()))
        }
        Trouble::Fault(fault) | Trouble::Unproven(fault) => Interrupted::Fault(fault),
        Trouble::End(end) => Interrupted::End(end),
    })
}

async fn open_all<C: Conversation>(client: &mut C) -> Result<(), Trouble> {
    client.check_two_phase().await?;
    let shards = client.topology().all();
    let mut members = member::open_parts(client, &shards).await?;
    let mut opened = open(client, &mut members).await;
    if opened.is_ok() {
        opened = hear_all(client, &mut members).await;
    }
    close(client, members).await;
    opened
}

async fn hear_all<C: Conversation>(client: &mut C, members: &mut [Member]) -> Result<(), Trouble> {
    for member in members.iter_mut() {
        member.hear(client, |_, _| Ok(true)).await?;
    }
    Ok(())
}

/// Passes the gates of transactions that have no snapshot yet. What takes the snapshots is queued when this returns.
async fn open<C: Conversation>(client: &mut C, members: &mut [Member]) -> Result<(), Trouble> {
    let limit = client.limits().consistent_reads_timeout;
    let deadline = Instant::now().checked_add(limit);
    let deadline = deadline.filter(|_| !limit.is_zero());
    let home = client.topology().home();
    let at = members.iter().position(|member| member.shard == home);
    let mut pause = PAUSE;
    client.share_cancels(member::targets(&*members));
    loop {
        let mut order: Vec<&mut Member> = members.iter_mut().collect();
        if let Some(at) = at {
            order.swap(0, at);
        }
        let Err(busy) = pass(client, &mut order).await? else {
            for member in members.iter_mut() {
                member.push_hidden(PASS)?;
                member.start_sending()?;
            }
            return Ok(());
        };
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Trouble::Fault(too_long(&busy, limit)));
        }
        wait(client, pause).await?;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
}

/// Takes the lock on each, of the first before the others. Otherwise the name of a shard where it was not to be had; all are
/// given up then.
async fn pass<C: Conversation>(
    client: &mut C,
    order: &mut [&mut Member],
) -> Result<Result<(), String>, Trouble> {
    let mut busy = None;
    let mut asked = 0;
    let Some((first, others)) = order.split_first_mut() else {
        return Ok(Ok(()));
    };
    ask(first, HOME_TURN)?;
    if is_busy(client, first).await? {
        busy = Some(first.name());
    } else {
        for member in others.iter_mut() {
            ask(member, TURN)?;
        }
        asked = others.len();
        for member in others.iter_mut() {
            if is_busy(client, member).await? {
                busy.get_or_insert(member.name());
            }
        }
    }
    let Some(busy) = busy else {
        return Ok(Ok(()));
    };
    for member in order.iter_mut().take(asked.saturating_add(1)) {
        member.push_hidden(GIVE_UP)?;
        member.start_sending()?;
    }
    for member in order.iter_mut().take(asked.saturating_add(1)) {
        member.hear(client, |_, _| Ok(true)).await?;
    }
    Ok(Err(busy))
}

fn ask(member: &mut Member, turn: Duration) -> Result<(), Trouble> {
    let turn = turn.as_millis();
    member.push_hidden(&format!(
        "SAVEPOINT pgherd;SET LOCAL lock_timeout = {turn};\
         SET LOCAL idle_in_transaction_session_timeout = '{ABANDONED}';\
         LOCK TABLE pgherd.gate IN ROW EXCLUSIVE MODE"
    ))?;
    member.start_sending()
}

/// Whether its lock was not to be had in time, or only in a circle.
async fn is_busy<C: Conversation>(client: &mut C, member: &mut Member) -> Result<bool, Trouble> {
    match member.hear(client, |_, _| Ok(true)).await {
        Ok(()) => Ok(false),
        Err(Trouble::Server(error)) => {
            let fields = backend::error_fields(error.get(HEADER..).unwrap_or_default());
            if matches!(fields.code(), "55P03" | "40P01") {
                Ok(true)
            } else {
                Err(Trouble::Server(error))
            }
        }
        Err(trouble) => Err(trouble),
    }
}

/// Lets others through for a while; watches the client meanwhile.
async fn wait<C: Conversation>(client: &mut C, pause: Duration) -> Result<(), Trouble> {
    let mut sleep = std::pin::pin!(tokio::time::sleep(pause));
    poll_fn(|cx| match sleep.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => client
            .poll_watch(cx)
            .map(|interrupted| Err(interrupted.into())),
    })
    .await
}

fn too_long(shard: &str, limit: Duration) -> Fault {
    Fault::error(
        SqlState::QUERY_CANCELED,
        "canceling statement: no snapshot of several shards was to be had in time",
    )
    .detail(format!(
        "A commit on several shards is under way or in doubt on shard \"{shard}\"; it was waited for {} ms.",
        limit.as_millis()
    ))
    .hint("Look at SHOW PREPARED_TRANSACTIONS on the console; raise consistent_reads_timeout.")
}
