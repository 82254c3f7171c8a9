//! An UPDATE or DELETE over several shards: each carries it out on its own rows, all in one transaction. Also a
//! write on one shard that claims values which are kept unique over all.

use crate::placement::ShardSet;

use super::insert::{Returned, listen};
use super::member::{Member, close, commit_all, open_parts};
use super::{Conversation, Trouble, Wide, claims, complete};

/// Runs it on each of `shards`; the rows affected are added up, those returned come shard by shard.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    describe: bool,
) -> Result<(), Trouble> {
    let mut members = open_parts(client, shards).await?;
    let mut guards = Vec::new();
    let mut returned = Returned::default();
    let parts = (&mut members, &mut guards);
    let result = write(client, wide, describe, parts, &mut returned).await;
    members.append(&mut guards);
    close(client, members).await;
    result?;
    let Returned {
        description,
        rows,
        count,
        ..
    } = returned;
    client.out().extend_from_slice(&description);
    for row in rows.into_iter().flatten() {
        client.out().extend_from_slice(&row);
    }
    let tag = match wide.verb {
        "INSERT" => format!("INSERT 0 {count}"),
        verb => format!("{verb} {count}"),
    };
    complete(client, &tag);
    Ok(())
}

async fn write<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
    (members, guards): (&mut Vec<Member>, &mut Vec<Member>),
    returned: &mut Returned,
) -> Result<(), Trouble> {
    claims::check(client, wide, members).await?;
    // One after the other, in the order of the shards, as in `broadcast`: no two wait in a circle.
    for member in members.iter_mut() {
        member.begin()?;
        claims::announce(member, &wide.claims)?;
        member.push_statement(client, &wide.source, describe)?;
        listen(client, member, returned).await?;
    }
    claims::hold(client, wide, (members, guards), returned.count).await?;
    members.append(guards);
    commit_all(client, members).await
}
