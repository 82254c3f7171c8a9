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
use crate::sql::quote::quote_literal;
use crate::sql::scan::scan;
use crate::types::key::{Key, KeyType};
use crate::wire::backend;
use crate::wire::frame::HEADER;

use super::member::{Member, open_parts, targets};
use super::{Conversation, Trouble, Wide};

/// Values that one statement may claim.
const CLAIMS_MAX: usize = 1_000;

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
    if claims.len() > CLAIMS_MAX {
        return Err(Trouble::Fault(
            Fault::error(
                SqlState::PROGRAM_LIMIT,
                format!("a statement writes more than {CLAIMS_MAX} values of unique columns"),
            )
            .detail("Each takes a lock on its shard until the transaction ends.")
            .hint("Write fewer rows at once."),
        ));
    }
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

/// Whether the rows that it tells of are all that it has written: there is no WITH before it.
fn is_plain(wide: &Wide) -> bool {
    let text = wide.source.sql();
    let tokens = scan(text, wide.lexing).unwrap_or_default();
    let first = tokens.first().map(|token| token.of(text));
    first.is_some_and(|first| {
        first.eq_ignore_ascii_case(b"insert") || first.eq_ignore_ascii_case(b"update")
    })
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

/// Claims the values that a statement has written, which affected so many rows. `guards` are connections that
/// only this needs.
///
/// # Errors
/// 23505, in the words of PostgreSQL, where another row has one.
pub(super) async fn hold<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    (members, guards): (&mut [Member], &mut Vec<Member>),
    affected: u64,
) -> Result<(), Trouble> {
    let claims = ordered(&wide.claims);
    if claims.is_empty() || (affected == 0 && is_plain(wide)) {
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
    let rows: Vec<String> = claims
        .iter()
        .enumerate()
        .map(|(number, claim)| {
            let key = quote_literal(&key_of(&claim.key));
            format!("({number}, {}, {key}::text)", arguments(claim))
        })
        .collect();
    let sql = format!(
        "SELECT v.number, pgherd.claim(v.name, v.value, v.key) FROM (VALUES {}) AS v (number, name, value, key)",
        rows.join(", ")
    );
    for row in ask(client, home, members, guards, &sql).await? {
        let [Some(number), Some(held)] = row.as_slice() else {
            continue;
        };
        let claim = number.parse::<usize>().ok();
        let Some(claim) = claim.and_then(|at| claims.get(at)) else {
            continue;
        };
        let call = |function: &str, key: &str| {
            let key = quote_literal(key);
            format!(
                "SELECT pgherd.{function}({}, {key}::text)",
                arguments(claim)
            )
        };
        let shards = shards_of(client, claim, held);
        for shard in shards.iter() {
            ask(client, shard, members, guards, &call("unheld", held)).await?;
        }
        let anew = call("claim_anew", &key_of(&claim.key));
        ask(client, home, members, guards, &anew).await?;
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

/// Runs a query of our own in the statement's transaction on a shard, which joins where it has not: the rows
/// that it answers.
async fn ask<C: Conversation>(
    client: &mut C,
    shard: ShardId,
    members: &mut [Member],
    guards: &mut Vec<Member>,
    sql: &str,
) -> Result<Vec<Vec<Option<String>>>, Trouble> {
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
    let mut rows = Vec::new();
    let heard = member
        .hear(client, |_, heard| {
            if heard.tag == b'D' {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let row = backend::row_values(heard.body).into_iter();
                rows.push(row.map(|value| value.map(text)).collect());
            }
            Ok(true)
        })
        .await;
    match heard {
        Ok(()) => Ok(rows),
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
