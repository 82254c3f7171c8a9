//! A read on several shards whose answer is the answers one after another.
//!
//! All shards work at once; they are read in their order, and a shard whose turn has not come waits
//! with its rows in the socket, so that nothing is held here.

use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::planner::plan::{Effect, Explained};
use crate::wire::backend;

use super::member::{Heard, Member, close};
use super::snapshot::open_parts;
use super::{Conversation, Trouble, Wide, complete, is_explained};

/// What the shards have said so far.
#[derive(Default)]
struct Answer {
    columns: Columns,
    /// COPY's own description, which comes after that of a portal.
    copied: Columns,
    tag: String,
    count: u64,
}

/// Runs it on all of `shards`.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shards: &ShardSet,
    describe: bool,
) -> Result<(), Trouble> {
    let mut members = open_parts(client, shards, wide.reads && !is_explained(wide)).await?;
    let result = read_all(client, wide, describe, &mut members).await;
    close(client, members).await;
    let answer = result?;
    let tag = if answer.tag.is_empty() {
        wide.verb.to_owned()
    } else {
        format!("{} {}", answer.tag, answer.count)
    };
    complete(client, &tag);
    Ok(())
}

async fn read_all<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    describe: bool,
    members: &mut [Member],
) -> Result<Answer, Trouble> {
    for member in members.iter_mut() {
        member.push_statement(client, &wide.source, describe)?;
        member.start_sending()?;
    }
    let mut answer = Answer::default();
    let last = members.len().saturating_sub(1);
    for (index, member) in members.iter_mut().enumerate() {
        let is_last = index == last;
        let mut top = top_of(wide, member, index == 0);
        member
            .hear(client, |client, heard| {
                if heard.tag == b'D' {
                    client.out().append(&mut top);
                }
                take(client, &mut answer, heard, is_last)?;
                Ok(true)
            })
            .await?;
    }
    Ok(answer)
}

/// What stands above a shard's rows: of EXPLAIN, whose plan it is, and first of all the route.
fn top_of(wide: &Wide, member: &Member, is_first: bool) -> Vec<u8> {
    let mut top = Vec::new();
    if let Effect::Explain(explained) = &wide.effect
        && let Explained::Route(route) = &**explained
    {
        let mut line =
            |line: &str| backend::data_row(&mut top, std::iter::once(Some(line.as_bytes())));
        if is_first {
            line(route);
        }
        line(&format!("{}:", member.name()));
    }
    top
}

fn take<C: Conversation>(
    client: &mut C,
    answer: &mut Answer,
    heard: Heard<'_>,
    is_last: bool,
) -> Result<(), Trouble> {
    match heard.tag {
        b'T' | b'n' | b'H' => {
            let columns = match heard.tag {
                b'H' => &mut answer.copied,
                _ => &mut answer.columns,
            };
            if columns.are_new(heard)? {
                client.out().extend_from_slice(heard.bytes);
            }
        }
        b'C' => {
            let tag = backend::command_tag(heard.body);
            if let Some((verb, _)) = tag.rsplit_once(' ') {
                verb.clone_into(&mut answer.tag);
                answer.count = answer
                    .count
                    .saturating_add(backend::command_count(heard.body));
            }
        }
        // The end of COPY data comes once.
        b'c' if !is_last => {}
        _ => client.out().extend_from_slice(heard.bytes),
    }
    Ok(())
}

/// What the first RowDescription or CopyOutResponse says of names and types.
#[derive(Default)]
pub(super) struct Columns(Option<Vec<u8>>);

impl Columns {
    /// Whether this description is the first.
    ///
    /// # Errors
    /// It is another than the first.
    pub(super) fn are_new(&mut self, heard: Heard<'_>) -> Result<bool, Trouble> {
        let signature = signature(heard.tag, heard.body);
        match &self.0 {
            None => {
                self.0 = Some(signature);
                Ok(true)
            }
            Some(first) if *first == signature => Ok(false),
            Some(_) => Err(Trouble::Fault(unlike())),
        }
    }
}

/// What must be the same on all shards: names, types and formats, not the tables' oids.
fn signature(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut signature = vec![tag];
    if tag != b'T' {
        signature.extend_from_slice(body);
        return signature;
    }
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        signature.extend_from_slice(rest.get(..=end).unwrap_or_default());
        // Table oid and column number (6 bytes) differ; type, length, modifier and format do not.
        let fields = rest.get(end.saturating_add(1)..).unwrap_or_default();
        signature.extend_from_slice(fields.get(6..18).unwrap_or_default());
        rest = fields.get(18..).unwrap_or_default();
    }
    signature
}

fn unlike() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "the shards describe the answer's columns differently",
    )
    .detail("Names or types of the columns are not the same on all shards.")
    .hint("Run pgherd check, and bring the shards' schemas and types in line.")
}
