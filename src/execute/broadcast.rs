//! One statement on every shard: DDL, and writes of reference tables.

use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::planner::plan::Effect;
use crate::wire::frame::{self, Split};

use super::indexes::Resumed;
use super::member::{Member, bytes_max, close, commit_all, open_parts};
use super::{Conversation, Trouble, Wide};

/// In one transaction a shard; commits start when all have succeeded.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
) -> Result<(), Trouble> {
    client.park_current();
    let shards = match (&wide.effect, client.parts()) {
        // Of a block: those that have joined.
        (Effect::SetConstraints { .. }, Some(parts)) => {
            let joined = parts.iter().map(|lease| lease.pool().target.shard);
            let joined: Vec<ShardId> = joined.collect();
            let all = client.topology().all();
            all.iter().filter(|it| joined.contains(it)).collect()
        }
        _ => client.topology().all(),
    };
    if wide.effect == Effect::Ddl {
        client.schema_may_change();
    }
    let mut members = open_parts(client, &shards).await?;
    let mut answer = Vec::new();
    let result = in_transactions(client, wide, describe, &mut members, &mut answer).await;
    close(client, members).await;
    if result.is_err() {
        notices(&answer, client.out());
    }
    result?;
    after_ddl(client, wide).await;
    client.put_answer(&answer);
    Ok(())
}

async fn in_transactions<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
    members: &mut Vec<Member>,
    answer: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let home = client.topology().home();
    let first = members.first().map(|member| member.shard);
    let has_home = members.iter().any(|member| member.shard == home);
    // One after the other, in the order of the shards: two such statements that lock the same rows wait for
    // each other on the first shard only, and never in a circle, which no server could see.
    for member in members.iter_mut() {
        member.begin()?;
        member.push_statement(client, &wide.source, describe)?;
        let shown = if has_home {
            member.shard == home
        } else {
            Some(member.shard) == first
        };
        listen(client, member, shown, answer).await?;
    }
    commit_all(client, members).await
}

/// What came before an error: the notices of an answer.
fn notices(mut answer: &[u8], out: &mut Vec<u8>) {
    while let Ok(Split::Whole(frame, rest)) = frame::split(answer, u32::MAX) {
        if frame.tag == b'N' {
            out.extend_from_slice(frame.bytes);
        }
        answer = rest;
    }
}

/// Reads one member's answer; keeps it when it is to be shown. Notices of the others are dropped
/// when the shown one gave the same.
async fn listen<C: Conversation>(
    client: &mut C,
    member: &mut Member,
    shown: bool,
    answer: &mut Vec<u8>,
) -> Result<(), Trouble> {
    let limit = bytes_max(client);
    let mut size = 0_usize;
    member
        .hear(client, |_, heard| {
            size = size.saturating_add(heard.bytes.len());
            if size > limit {
                return Err(Trouble::Fault(
                    Fault::error(
                        SqlState::BUDGET_SPENT,
                        "the rows returned by a write on every shard take too much memory",
                    )
                    .hint("Return fewer rows, or raise max_multi_bytes."),
                ));
            }
            if shown {
                answer.extend_from_slice(heard.bytes);
            }
            Ok(true)
        })
        .await
}

/// Shard by shard, for what PostgreSQL refuses in a transaction block. Stops at the first failure and says
/// where it was carried out; what passes over that, as with IF NOT EXISTS, goes on from there.
pub(super) async fn one_by_one<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
) -> Result<(), Trouble> {
    let shards = client.topology().all();
    if wide.effect == Effect::Ddl {
        client.schema_may_change();
    }
    let home = client.topology().home();
    let mut answer = Vec::new();
    let mut done: Vec<String> = Vec::new();
    let resumed = Resumed::of(wide.source.sql(), wide.lexing);
    for shard in shards.iter() {
        let name = client.topology().name(shard).to_owned();
        let mut one = crate::placement::ShardSet::default();
        one.insert(shard);
        // Within a block the server refuses it.
        let mut members = open_parts(client, &one).await?;
        let mut result = Ok(());
        for member in &mut members {
            member.push_statement(client, &wide.source, describe)?;
            result = listen(client, member, shard == home, &mut answer).await;
            if let (Ok(()), Some(resumed)) = (&result, &resumed) {
                result = resumed.finish(client, member).await;
            }
        }
        close(client, members).await;
        if let Err(trouble) = result {
            after_ddl(client, wide).await;
            if done.is_empty() {
                notices(&answer, client.out());
            }
            return Err(partly(wide.verb, trouble, &name, &done));
        }
        done.push(format!("\"{name}\""));
    }
    after_ddl(client, wide).await;
    client.put_answer(&answer);
    Ok(())
}

/// A failure after some shards have carried it out names them.
fn partly(verb: &str, trouble: Trouble, failed: &str, done: &[String]) -> Trouble {
    if done.is_empty() {
        return trouble;
    }
    let reason = match trouble {
        Trouble::Server(error) => {
            let body = error.get(frame::HEADER..).unwrap_or_default();
            crate::wire::backend::error_fields(body)
                .message()
                .to_owned()
        }
        Trouble::Fault(fault) | Trouble::Unproven(fault) => fault.message,
        Trouble::End(end) => return Trouble::End(end),
    };
    Trouble::Fault(
        Fault::error(
            SqlState::TRANSACTION_OUTCOME_UNKNOWN,
            format!("{verb} failed on shard \"{failed}\": {reason}"),
        )
        .detail(format!("It was carried out on {}.", done.join(", ")))
        .hint(
            "Mend the cause and repeat it with IF NOT EXISTS or IF EXISTS: what is done is passed over, and an index left invalid is built anew.",
        ),
    )
}

/// The catalog is read anew before the client may rely on the change.
async fn after_ddl<C: Conversation>(client: &mut C, wide: &Wide) {
    if wide.effect != Effect::Ddl {
        return;
    }
    client.schema_changed().await;
}
