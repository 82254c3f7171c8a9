//! One shard's part in a wide statement: its connection, and reading what it answers.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;

use crate::error::{Fault, SqlState};
use crate::placement::{ShardId, ShardSet};
use crate::server::connection::{Note, ServerConnection};
use crate::server::hidden;
use crate::server::pool::Lease;
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, FrameError, Piece};
use crate::wire::pipeline::{Owed, Request};

use super::{Conversation, End, Source, Trouble};

/// A connection that takes part.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) shard: ShardId,
    pub(super) lease: Lease,
}

/// A message, or a part of a long one, that a member answered to what was not hidden.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard<'a> {
    pub(super) tag: u8,
    /// Bytes to pass on: the message, or a piece of it.
    pub(super) bytes: &'a [u8],
    /// The body, where the message is whole.
    pub(super) body: &'a [u8],
}

/// What ended the reading of a member early.
enum Stopped {
    Lost(String),
    Trouble(Trouble),
}

impl From<FrameError> for Stopped {
    fn from(error: FrameError) -> Stopped {
        Stopped::Lost(error.to_string())
    }
}

impl Member {
    pub(super) fn connection(&mut self) -> Result<&mut ServerConnection, Trouble> {
        self.lease.connection().ok_or_else(|| {
            Trouble::Fault(Fault::error(
                SqlState::INTERNAL,
                "the server connection is gone",
            ))
        })
    }

    fn name(&self) -> String {
        self.lease.pool().target.shard_name.clone()
    }

    /// Queues a statement of our own.
    pub(super) fn push_hidden(&mut self, sql: &str) -> Result<(), Trouble> {
        self.connection()?.push_hidden_query(sql);
        Ok(())
    }

    /// Queues the client's statement; `describe` asks for a RowDescription in the extended protocol.
    pub(super) fn push_statement<C: Conversation>(
        &mut self,
        client: &C,
        source: &Source,
        describe: bool,
    ) -> Result<(), Trouble> {
        match source {
            Source::Text(text) => {
                let connection = self.connection()?;
                frame::write(&mut connection.out, b'Q', &[text, b"\0"]);
                connection.pipeline.sent(Request::Query, false, Note::None);
            }
            Source::Bind {
                prepared,
                after_names,
            } => {
                let name = client.server_name(prepared);
                let limit = client.limits().max_prepared_statements;
                let detour = client.detour(prepared);
                let connection = self.connection()?;
                if !connection.statements.touch(name) {
                    connection.push_parse(name, prepared, true, limit, &detour);
                }
                let mut called = Vec::new();
                name.write(&mut called);
                frame::write(&mut connection.out, b'B', &[b"\0", &called, after_names]);
                connection.pipeline.sent(Request::Bind, true, Note::None);
                if describe {
                    frame::write(&mut connection.out, b'D', &[b"P\0"]);
                    connection
                        .pipeline
                        .sent(Request::DescribePortal, false, Note::None);
                }
                frame::write(&mut connection.out, b'E', &[b"\0\0\0\0\0"]);
                connection
                    .pipeline
                    .sent(Request::Execute, false, Note::None);
                frame::write(&mut connection.out, b'S', &[]);
                connection.pipeline.sent(Request::Sync, true, Note::None);
                connection.unsynced = false;
            }
        }
        Ok(())
    }

    /// Sends what is queued, as far as the socket takes it now.
    pub(super) fn start_sending(&mut self) -> Result<(), Trouble> {
        let name = self.name();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match self.connection()?.poll_flush(&mut cx) {
            Poll::Ready(Err(error)) => Err(Trouble::Fault(lost(&name, &error.to_string()))),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads answers until nothing is owed, or until `on` says it has enough by returning `false`.
    /// Rows may come in pieces. The client's end and cancel requests are watched for.
    ///
    /// # Errors
    /// The first error the server gave, after which the rest was read all the same. The end of the
    /// client, when half a message has been handed on: it cannot be brought back in step.
    pub(super) async fn hear<C: Conversation>(
        &mut self,
        client: &mut C,
        on: impl FnMut(&mut C, Heard<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let mut forwarding = false;
        let result = self.hear_all(client, on, &mut forwarding).await;
        let is_cut = forwarding && self.connection()?.reader.is_passing();
        match result {
            Err(Trouble::Fault(_) | Trouble::Server(_)) if is_cut => Err(Trouble::End(End::Client)),
            other => other,
        }
    }

    async fn hear_all<C: Conversation>(
        &mut self,
        client: &mut C,
        mut on: impl FnMut(&mut C, Heard<'_>) -> Result<bool, Trouble>,
        forwarding: &mut bool,
    ) -> Result<(), Trouble> {
        let name = self.name();
        let mut scratch = vec![0; 32 * 1024];
        let mut error = None;
        let mut more = true;
        while more && !self.connection()?.pipeline.is_empty() {
            let connection = self.connection()?;
            let count = read(client, connection, &mut scratch, &name).await?;
            let data = scratch.get(..count).unwrap_or_default();
            let mut reader = std::mem::take(&mut connection.reader);
            let result = reader.feed(
                data,
                u32::MAX,
                |tag| matches!(tag, b'D' | b'd'),
                |piece| match heard(connection, piece, &mut error, forwarding)? {
                    Some(heard) => {
                        more &= on(client, heard).map_err(Stopped::Trouble)?;
                        Ok(())
                    }
                    None => Ok(()),
                },
            );
            connection.reader = reader;
            match result {
                Ok(()) => {}
                Err(Stopped::Lost(reason)) => return Err(Trouble::Fault(lost(&name, &reason))),
                Err(Stopped::Trouble(trouble)) => return Err(trouble),
            }
            if client.out().len() > CLIENT_BUFFER {
                flush_client(client).await?;
            }
        }
        error.map_or(Ok(()), |error| Err(Trouble::Server(error)))
    }
}

/// Bytes for the client that may wait while a shard is read.
const CLIENT_BUFFER: usize = 64 * 1024;

fn lost(shard: &str, reason: &str) -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        format!("the connection to shard \"{shard}\" was lost"),
    )
    .detail(format!("It ended with: {}.", reason.trim_end_matches('.')))
    .hint("Repeat the statement; if it wrote, check first what took effect.")
}

/// Sends and reads once; watches the client meanwhile.
async fn read<C: Conversation>(
    client: &mut C,
    connection: &mut ServerConnection,
    scratch: &mut [u8],
    name: &str,
) -> Result<usize, Trouble> {
    poll_fn(|cx| {
        if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
            return Poll::Ready(Err(Trouble::Fault(lost(name, &error.to_string()))));
        }
        match connection.poll_read(cx, scratch) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Trouble::Fault(lost(
                name,
                "the server closed the connection",
            )))),
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Ready(Err(error)) => {
                Poll::Ready(Err(Trouble::Fault(lost(name, &error.to_string()))))
            }
            Poll::Pending => client
                .poll_watch(cx)
                .map(|interrupted| Err(interrupted.into())),
        }
    })
    .await
}

/// Sends everything to the client.
///
/// # Errors
/// The client is gone or was killed.
pub(super) async fn flush_client<C: Conversation>(client: &mut C) -> Result<(), Trouble> {
    client.flush_all().await.map_err(Trouble::End)
}

/// Takes a message of the server into account; what is for the client comes back.
fn heard<'a>(
    connection: &mut ServerConnection,
    piece: Piece<'a>,
    error: &mut Option<Vec<u8>>,
    forwarding: &mut bool,
) -> Result<Option<Heard<'a>>, Stopped> {
    let (tag, bytes, body) = match piece {
        Piece::Whole(frame) => (frame.tag, frame.bytes, frame.body),
        Piece::Start { tag, bytes } => (tag, bytes, [].as_slice()),
        Piece::More { bytes, .. } => {
            return Ok(forwarding.then_some(Heard {
                tag: 0,
                bytes,
                body: &[],
            }));
        }
    };
    if tag == b'E' && connection.pipeline.is_empty() {
        return Err(Stopped::Lost(
            backend::error_fields(body).message().to_owned(),
        ));
    }
    let step = connection
        .pipeline
        .received(tag)
        .map_err(|error| Stopped::Lost(error.to_string()))?;
    *forwarding = step.forward;
    if tag == b'Z'
        && let Some(status) = body.first().and_then(|byte| Status::read(*byte))
    {
        connection.status = status;
    }
    if step.fails {
        error.get_or_insert_with(|| bytes.to_vec());
        for void in connection.pipeline.fail() {
            if let Owed::Server {
                note: Note::Parse { name, .. },
                ..
            } = void
            {
                connection.statements.remove(name);
            }
        }
        return Ok(None);
    }
    if step.ends
        && let Some((_, Note::Parse { name, prepared, .. })) = connection.pipeline.pop()
    {
        prepared
            .accepted
            .set(Some((u64::from(name.epoch), name.fingerprint)));
    }
    let shown = step.forward && !matches!(tag, b'Z' | b'S' | b'A');
    Ok(shown.then_some(Heard { tag, bytes, body }))
}

/// Takes a connection of each shard, in their order, brought to the client's settings.
pub(super) async fn open<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
) -> Result<Vec<Member>, Trouble> {
    let mut members = Vec::with_capacity(shards.len());
    client.park_current();
    for shard in shards.iter() {
        match client.take_part(shard).await {
            Ok(lease) => members.push(Member { shard, lease }),
            Err(interrupted) => {
                close(client, members).await;
                return Err(interrupted.into());
            }
        }
    }
    Ok(members)
}

/// Gives the connections back; those that are not idle and in sync are rolled back first, or closed:
/// in the background, unless the client keeps them and the state on them. From here on a cancel request
/// of the client reaches none of them: they may soon work for others.
pub(super) async fn close<C: Conversation>(client: &mut C, members: Vec<Member>) {
    client.forget_targets();
    for Member { shard, lease } in members {
        let Some(connection) = lease.peek() else {
            continue;
        };
        if connection.is_clean() {
            client.give_back(lease);
            continue;
        }
        if !connection.pipeline.is_empty() {
            client.cancel_now(&connection.cancel);
        }
        if !client.keeps_connections() {
            hidden::tidy_later(lease);
            continue;
        }
        match hidden::tidy(lease).await {
            Some(lease) => client.give_back(lease),
            None => client.lose(shard),
        }
    }
}

/// Commits the transaction of every member; all were successful until now.
///
/// # Errors
/// The server's error when no shard committed; 08007 with the names when some did.
pub(super) async fn commit<C: Conversation>(
    client: &mut C,
    members: &mut [Member],
) -> Result<(), Trouble> {
    for member in members.iter_mut() {
        member.push_hidden("COMMIT")?;
        // A lost connection shows when its answer is read.
        drop(member.start_sending());
    }
    let mut done = Vec::new();
    let mut failed: BTreeMap<String, Trouble> = BTreeMap::new();
    for member in members.iter_mut() {
        let name = member.name();
        match member.hear(client, |_, _| Ok(true)).await {
            Ok(()) => done.push(name),
            Err(trouble) => {
                failed.insert(name, trouble);
            }
        }
    }
    let names = |names: &mut dyn Iterator<Item = &String>| {
        names
            .map(|name| format!("\"{name}\""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let not_done = names(&mut failed.keys());
    match failed.into_values().next() {
        None => Ok(()),
        Some(Trouble::Server(error)) if done.is_empty() => Err(Trouble::Server(error)),
        Some(_) => Err(Trouble::Fault(
            Fault::error(
                SqlState::TRANSACTION_OUTCOME_UNKNOWN,
                "the statement was committed on some shards and not, or perhaps not, on others",
            )
            .detail(format!(
                "Committed on {}; failed or unknown on {not_done}.",
                if done.is_empty() {
                    "none for certain".to_owned()
                } else {
                    names(&mut done.iter())
                }
            ))
            .hint("Compare the shards named and repeat or undo the statement there."),
        )),
    }
}
