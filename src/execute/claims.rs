//! Values that are kept unique over all shards: each is claimed on the home shard, in the transaction that writes it.
//!
//! A claim is a row of `pgherd.claimed`: the value, and the key of the row that has it. It stays when its row is
//! deleted, given another value, or was never written: what is found claimed for another key is looked for on that
//! key's shard, and claimed anew where no row has the value. So only writes of a value claim it, and nothing has to
//! be known of what a statement takes away.
//!
//! *Why no two rows have one value.* Rows of one shard are kept apart by its own constraint. Of two on different
//! shards the later one claims behind the earlier: a claim is locked until its transaction ends, and so is, on the
//! row's shard, an advisory lock that everyone takes before it writes the value ([`announce`]), prepared
//! transactions included. Who finds the value claimed takes that lock, alone, on the other shard before it looks:
//! by then the earlier transaction has ended there as well, and its row is seen, or is none.

use crate::control::lookups::text_of;
use crate::error::{Fault, SqlState};
use crate::placement::{ShardId, ShardSet};
use crate::planner::plan::Entry;
use crate::server::settings::quote_literal;
use crate::types::key::{Key, KeyType};
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::member::{Member, open_parts, targets};
use super::{Conversation, Trouble, Wide};

/// Whether the claims of a statement can be kept, before anything is sent.
pub(super) async fn check<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    members: &[Member],
) -> Result<(), Trouble> {
    if wide.claims.is_empty() {
        return Ok(());
    }
    let home = client.topology().home();
    let is_at_home = members.iter().all(|member| member.shard == home);
    if !client.is_in_block() && !is_at_home && !client.can_decide().await? {
        return Err(Trouble::Fault(
            Fault::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "a column cannot be kept unique over shards that do not commit in two phases",
            )
            .hint("Set cross_shard_writes to two_phase, and max_prepared_transactions on every shard."),
        ));
    }
    let mut claims = ordered(&wide.claims);
    claims.dedup_by(|one, other| one.lookup == other.lookup && one.value == other.value);
    if wide.verb == "UPDATE" && claims.len() < ordered(&wide.claims).len() {
        // Whether each of the keys has a row is not known.
        return Err(Trouble::Fault(
            Fault::error(
                SqlState::FEATURE_NOT_SUPPORTED,
                "an UPDATE of a unique column by several keys is not supported",
            )
            .hint("Update the row of one key."),
        ));
    }
    Ok(())
}

/// In order, so that two statements do not wait for each other; each once.
fn ordered(claims: &[Entry]) -> Vec<&Entry> {
    let mut claims: Vec<&Entry> = claims.iter().collect();
    claims.sort_by(|one, other| {
        let rank = |entry: &Entry| (entry.lookup.title(), entry.value.clone(), entry.key.clone());
        rank(one).cmp(&rank(other))
    });
    claims.dedup();
    claims
}

/// A key as it stands in `pgherd.claimed`: a list in JSON.
fn key_of(key: &[Key<'_>]) -> String {
    let texts: Vec<String> = key.iter().map(text_of).collect();
    serde_json::to_string(&texts).unwrap_or_default()
}

/// Queues the lock that says that values are being written on a shard.
pub(super) fn announce(member: &mut Member, claims: &[Entry]) -> Result<(), Trouble> {
    if claims.is_empty() {
        return Ok(());
    }
    let locks: Vec<String> = ordered(claims)
        .into_iter()
        .map(|claim| {
            let name = quote_literal(&format!(
                "{}:{}",
                claim.lookup.title(),
                text_of(&claim.value)
            ));
            format!(
                "pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended({name}, 0))"
            )
        })
        .collect();
    member.push_hidden(&format!("SELECT {}", locks.join(", ")))
}

/// Claims the values that a statement has written. `guards` are connections that only this needs.
///
/// # Errors
/// 23505, in the words of PostgreSQL, where another row has one.
pub(super) async fn hold<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    members: &mut [Member],
    guards: &mut Vec<Member>,
) -> Result<(), Trouble> {
    let claims = ordered(&wide.claims);
    if claims.is_empty() {
        return Ok(());
    }
    let home = client.topology().home();
    let twice = claims.windows(2).find_map(|pair| match pair {
        [one, other] if one.lookup == other.lookup && one.value == other.value => Some(*one),
        _ => None,
    });
    if let Some(claim) = twice {
        let sql = format!("SELECT pgherd.violated({})", arguments(claim));
        ask(client, home, members, guards, &sql).await?;
    }
    for claim in claims {
        let key = quote_literal(&key_of(&claim.key));
        let call = |function: &str, key: &str| {
            format!(
                "SELECT pgherd.{function}({}, {key}::text)",
                arguments(claim)
            )
        };
        let held = ask(client, home, members, guards, &call("claim", &key)).await?;
        let Some(held) = held else {
            continue;
        };
        let shards = shards_of(client, claim, &held);
        let look = call("unheld", &quote_literal(&held));
        for shard in shards.iter() {
            ask(client, shard, members, guards, &look).await?;
        }
        ask(client, home, members, guards, &call("claim_anew", &key)).await?;
    }
    Ok(())
}

/// What names a claim in a call.
fn arguments(claim: &Entry) -> String {
    format!(
        "{}::text, {}::text",
        quote_literal(&claim.lookup.title()),
        quote_literal(&text_of(&claim.value))
    )
}

/// Where the row of a key may be that a value is claimed for.
fn shards_of<C: Conversation>(client: &C, claim: &Entry, held: &str) -> ShardSet {
    let topology = client.topology();
    let place = || {
        let texts: Vec<String> = serde_json::from_str(held).ok()?;
        let kinds = claim.lookup.key.iter().map(|(_, kind)| *kind);
        let read = |(text, kind): (&String, KeyType)| {
            let key = Key::from_text(kind, text.as_bytes()).ok()?;
            Some(key.into_owned())
        };
        let key: Option<Vec<Key<'static>>> = texts.iter().zip(kinds).map(read).collect();
        let index = topology.distribution_named(&claim.lookup.distribution)?;
        topology.distribution(index)?.place(&key?).ok()
    };
    // Where it cannot be told, it is looked for everywhere.
    place().map_or_else(|| topology.all(), |shard| ShardSet::from_iter([shard]))
}

/// Runs a query of our own in the statement's transaction on a shard, which joins where it has not: the value
/// that it answers.
async fn ask<C: Conversation>(
    client: &mut C,
    shard: ShardId,
    members: &mut [Member],
    guards: &mut Vec<Member>,
    sql: &str,
) -> Result<Option<String>, Trouble> {
    let is_there = |member: &&mut Member| member.shard == shard;
    if !members
        .iter()
        .chain(&*guards)
        .any(|member| member.shard == shard)
    {
        let opened = open_parts(client, &ShardSet::from_iter([shard])).await?;
        guards.extend(opened);
        client.share_cancels(targets(members.iter().chain(&*guards)));
    }
    let Some(member) = members.iter_mut().chain(guards).find(is_there) else {
        return Err(Trouble::Fault(Fault::error(
            SqlState::INTERNAL,
            "a shard that was to take part does not",
        )));
    };
    member.begin()?;
    member.push_text(sql.as_bytes())?;
    let mut value = None;
    let heard = member
        .hear(client, |_, heard| {
            if heard.tag == b'D' {
                let row = backend::row_values(heard.body);
                let first = row.into_iter().next().flatten();
                value = first.map(|first| String::from_utf8_lossy(first).into_owned());
            }
            Ok(true)
        })
        .await;
    match heard {
        Ok(()) => Ok(value),
        Err(Trouble::Server(error)) => Err(told(&error)),
        Err(trouble) => Err(trouble),
    }
}

/// What our own functions say, as if the server had said it of the statement.
fn told(error: &[u8]) -> Trouble {
    let body = error.get(HEADER..).unwrap_or_default();
    let fields = backend::error_fields(body);
    if matches!(fields.code(), "42883" | "3F000" | "42P01") {
        return Trouble::Fault(
            Fault::error(
                SqlState::NOT_IN_PREREQUISITE_STATE,
                "a column is not kept unique over the shards yet",
            )
            .detail(format!("A shard answers: {}.", fields.message()))
            .hint("Run pgherd setup."),
        );
    }
    Trouble::Server(backend::error_without(body, b"WPpq"))
}
