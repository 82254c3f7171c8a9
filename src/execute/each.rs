//! An UPDATE or DELETE over several shards: each carries it out on its own rows, all in one transaction.

use crate::placement::ShardSet;

use super::insert::{Returned, listen};
use super::member::{Member, close, commit_all, open_parts};
use super::{Conversation, Trouble, Wide, complete};

/// Runs it on each of `shards`; the rows affected are added up, those returned come shard by shard.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    describe: bool,
) -> Result<(), Trouble> {
    let mut members = open_parts(client, shards).await?;
    let mut returned = Returned::default();
    let result = write(client, wide, describe, &mut members, &mut returned).await;
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
    complete(client, &format!("{} {count}", wide.verb));
    Ok(())
}

async fn write<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
    members: &mut Vec<Member>,
    returned: &mut Returned,
) -> Result<(), Trouble> {
    // One after the other, in the order of the shards, as in `broadcast`: no two wait in a circle.
    for member in members.iter_mut() {
        member.begin()?;
        member.push_statement(client, &wide.source, describe)?;
        listen(client, member, returned).await?;
    }
    commit_all(client, members).await
}
