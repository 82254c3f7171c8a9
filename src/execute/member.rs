//! One shard's part in a wide statement: its connection, and reading what it answers.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::error::{Fault, SqlState};
use crate::placement::{ShardId, ShardSet};
use crate::server::connection::{CancelTarget, Note, ServerConnection};
use crate::server::hidden;
use crate::server::pool::Lease;
use crate::server::settings::Detour;
use crate::server::statements::Prepared;
use crate::sql::scan::{Kind, Lexing, scan};
use crate::transaction::commit;
use crate::types::oids::{Mapping, Way};
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, Frame, FrameError, Piece, Split};
use crate::wire::frontend;
use crate::wire::oids::{self, Naming};
use crate::wire::pipeline::{Owed, Request};

use super::{Conversation, End, Interrupted, Source, Trouble, Wide, unmapped_fault};

/// A connection that takes part.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) shard: ShardId,
    pub(super) lease: Lease,
    /// It is part of the client's block.
    pub(super) joined: bool,
    /// Its own transaction has been begun.
    begun: bool,
    /// What the portal of the client's statement is called here.
    pub(super) portal: Vec<u8>,
    /// Its transaction is the statement's own, and ends with it.
    pub(super) ends: bool,
    reading: Reading,
}

/// What is known of the messages that a server is in the middle of.
#[derive(Debug, Default)]
struct Reading {
    /// The beginning of a long message that is needed whole.
    long: Vec<u8>,
    /// Whether the row that passes in pieces is for the client.
    forwarding: bool,
    /// The first error; what is owed after it is read all the same.
    error: Option<Vec<u8>>,
    /// What another shard than the home shard calls the users' types.
    mapping: Option<Arc<Mapping>>,
    /// The columns whose values name types, of the rows that come.
    naming: Naming,
    /// Whether rows are needed whole.
    whole: bool,
    /// What came and waits until the types have been read: one of them is not known.
    stalled: Option<(Vec<u8>, Fault)>,
    /// What ended the statement in the middle of a row: the rest of the row comes first.
    deferred: Option<Fault>,
}

/// A message, or a part of a long row, that a member answered to what was not hidden.
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
        self.lease.connection().ok_or_else(gone)
    }

    /// What its shard calls the users' types, where that may differ.
    pub(super) fn mapping(&self) -> Option<Arc<Mapping>> {
        self.reading.mapping.clone()
    }

    pub(super) fn name(&self) -> String {
        self.lease.pool().target.shard_name.clone()
    }

    /// Queues a statement of our own.
    pub(super) fn push_hidden(&mut self, sql: &str) -> Result<(), Trouble> {
        self.connection()?.push_hidden_query(sql);
        Ok(())
    }

    /// Begins the statement's own transaction, where it is not part of a block.
    pub(super) fn begin(&mut self) -> Result<(), Trouble> {
        if self.joined || std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.push_hidden("BEGIN")
    }

    /// Queues a text of the simple protocol, whose answer is heard.
    pub(super) fn push_text(&mut self, sql: &[u8]) -> Result<(), Trouble> {
        let connection = self.connection()?;
        frame::write(&mut connection.out, b'Q', &[sql, b"\0"]);
        connection.pipeline.sent(Request::Query, false, Note::None);
        Ok(())
    }

    /// The client's end instead of an error, when half a message has been handed on to it: it cannot be
    /// brought back in step.
    pub(super) fn unless_cut<T>(&self, result: Result<T, Trouble>) -> Result<T, Trouble> {
        match result {
            Err(Trouble::Fault(_) | Trouble::Server(_)) if self.is_cut() => {
                Err(Trouble::End(End::Client))
            }
            other => other,
        }
    }

    /// Whether the client has only a part of a row.
    fn is_cut(&self) -> bool {
        let connection = self.lease.peek();
        self.reading.forwarding
            && connection.is_some_and(|connection| connection.reader.is_passing())
    }

    /// Queues the client's statement; `describe` asks for a RowDescription in the extended protocol.
    pub(super) fn push_statement<C: Conversation>(
        &mut self,
        client: &C,
        source: &Source,
        describe: bool,
    ) -> Result<(), Trouble> {
        self.push_rows(client, source, describe, 0)
    }

    /// The same, for so many rows at first in the extended protocol; 0 is all.
    pub(super) fn push_rows<C: Conversation>(
        &mut self,
        client: &C,
        source: &Source,
        describe: bool,
        max: u32,
    ) -> Result<(), Trouble> {
        match source {
            Source::Text(text) => self.push_text(text)?,
            Source::Bind {
                prepared,
                after_names,
                ..
            } => {
                self.push_bind(client, prepared, after_names)?;
                self.push_execute(describe, max)?;
            }
        }
        self.push_end()
    }

    /// Ends the transaction behind the statement, where it is the statement's own.
    fn push_end(&mut self) -> Result<(), Trouble> {
        if self.ends {
            self.push_hidden("COMMIT")?;
        }
        Ok(())
    }

    /// Queues an Execute for the next rows of the portal, which a transaction keeps.
    pub(super) fn push_more(&mut self, describe: bool, max: u32) -> Result<(), Trouble> {
        let portal = self.portal.clone();
        let connection = self.connection()?;
        if describe {
            push_describe(connection, &portal, false);
        }
        frame::write(
            &mut connection.out,
            b'E',
            &[&portal, b"\0", &max.to_be_bytes()],
        );
        connection
            .pipeline
            .sent(Request::Execute, false, Note::None);
        connection.push_hidden_sync();
        Ok(())
    }

    /// Executes the portal and ends the group. Where rows may name types, they are described in
    /// any case.
    fn push_execute(&mut self, describe: bool, max: u32) -> Result<(), Trouble> {
        let differs = |mapping: &Arc<Mapping>| !mapping.alike;
        let looks = self.reading.mapping.as_ref().is_some_and(differs);
        let portal = self.portal.clone();
        let connection = self.connection()?;
        if describe || looks {
            push_describe(connection, &portal, !describe);
        }
        self.push_more(false, max)
    }

    /// Queues a statement that is made for this shard: what follows the names in its Parse and Bind.
    pub(super) fn push_own_statement(
        &mut self,
        prepared: &Prepared,
        parse: &[u8],
        bind: &[u8],
        detour: &Detour,
        describe: bool,
    ) -> Result<(), Trouble> {
        self.push_own_rows(prepared, parse, bind, detour, describe, 0)
    }

    /// The same, for so many rows at first; 0 is all.
    pub(super) fn push_own_rows(
        &mut self,
        prepared: &Prepared,
        parse: &[u8],
        bind: &[u8],
        detour: &Detour,
        describe: bool,
        max: u32,
    ) -> Result<(), Trouble> {
        let mapping = self.mapping();
        let put = put_bind(mapping.as_deref(), prepared, bind, |index| {
            prepared.settled_type(index)
        })?;
        let bind = put.as_deref().unwrap_or(bind);
        let parse = self.put_parse(parse)?;
        let portal = self.portal.clone();
        let connection = self.connection()?;
        connection.push_unnamed_parse(&parse, detour);
        frame::write(&mut connection.out, b'B', &[&portal, b"\0\0", bind]);
        connection.pipeline.sent(Request::Bind, true, Note::None);
        self.push_execute(describe, max)?;
        self.push_end()
    }

    /// Queues the client's statement in this form, with more behind it; its rows are to be texts.
    pub(super) fn push_with<C: Conversation>(
        &mut self,
        client: &C,
        wide: &Wide,
        text: &[u8],
        more: &str,
    ) -> Result<(), Trouble> {
        // What a comment to the end of the line would swallow stands on the next.
        let text = [without_end(text, wide.lexing), b"\n", more.as_bytes()].concat();
        match &wide.source {
            Source::Text(_) => self.push_text(&text),
            Source::Bind {
                prepared,
                after_names,
                ..
            } => {
                let parse = [text.as_slice(), b"\0", prepared.types_declared()].concat();
                let bind = as_texts(after_names)?;
                let detour = client.detour(prepared);
                self.push_own_rows(prepared, &parse, &bind, &detour, false, 0)
            }
        }
    }

    /// Queues a Parse made for this shard, as [`Member::push_own_statement`], and has it described.
    pub(super) fn push_own_describe(
        &mut self,
        parse: &[u8],
        detour: &Detour,
    ) -> Result<(), Trouble> {
        let parse = self.put_parse(parse)?;
        let connection = self.connection()?;
        connection.push_unnamed_parse(&parse, detour);
        frame::write(&mut connection.out, b'D', &[b"S\0"]);
        connection
            .pipeline
            .sent(Request::DescribeStatement, false, Note::None);
        connection.push_hidden_sync();
        Ok(())
    }

    /// What follows the name in a Parse, as the shard calls the types.
    fn put_parse(&self, parse: &[u8]) -> Result<Vec<u8>, Trouble> {
        let mut parse = parse.to_vec();
        if let (Some(mapping), Some(end)) =
            (self.mapping(), parse.iter().position(|byte| *byte == 0))
        {
            let types = parse.get_mut(end.saturating_add(1)..).unwrap_or_default();
            oids::put_types(types, &mapping, Way::ToShard)
                .map_err(|unmapped| Trouble::Fault(unmapped_fault(&mapping, &unmapped)))?;
        }
        Ok(parse)
    }

    fn push_bind<C: Conversation>(
        &mut self,
        client: &C,
        prepared: &Rc<Prepared>,
        after_names: &[u8],
    ) -> Result<(), Trouble> {
        let name = client.server_name(prepared);
        let limit = client.limits().max_prepared_statements;
        let detour = client.detour(prepared);
        let mapping = self.mapping();
        let put = put_bind(mapping.as_deref(), prepared, after_names, |index| {
            prepared.settled_type(index)
        })?;
        let after_names = put.as_deref().unwrap_or(after_names);
        let body = prepared.body_on(mapping.as_deref());
        let portal = self.portal.clone();
        let connection = self.connection()?;
        if !connection.statements().touch(name) {
            connection.push_parse(name, prepared, &body, true, limit, &detour);
        }
        let mut called = Vec::new();
        name.write(&mut called);
        frame::write(
            &mut connection.out,
            b'B',
            &[&portal, b"\0", &called, after_names],
        );
        connection.pipeline.sent(Request::Bind, true, Note::None);
        Ok(())
    }

    /// Has the client's statement described to the client, and not executed.
    pub(super) async fn describe<C: Conversation>(
        &mut self,
        client: &mut C,
        source: &Source,
    ) -> Result<(), Trouble> {
        let Source::Bind {
            prepared,
            after_names,
            ..
        } = source
        else {
            return Ok(());
        };
        self.push_bind(client, prepared, after_names)?;
        let portal = self.portal.clone();
        let connection = self.connection()?;
        push_describe(connection, &portal, false);
        connection.push_hidden_sync();
        self.hear(client, |client, heard| {
            client.out().extend_from_slice(heard.bytes);
            Ok(true)
        })
        .await
    }

    /// Sends what is queued, as far as the socket takes it now.
    pub(super) fn start_sending(&mut self) -> Result<(), Trouble> {
        self.send(&mut Context::from_waker(Waker::noop()))
    }

    /// The same; the task wakes when the socket takes more.
    pub(super) fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Trouble> {
        match self.connection()?.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(self.lost(&error.to_string())),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Reads what its server said; never nothing.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<Result<usize, Trouble>> {
        match self.connection()?.poll_read(cx, scratch) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(self.lost("the server closed the connection"))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.lost(&error.to_string()))),
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Pending => Poll::Pending,
        }
    }

    fn lost(&self, reason: &str) -> Trouble {
        Trouble::Fault(lost(&self.name(), reason))
    }

    /// The error that its server has given.
    pub(super) fn take_error(&mut self) -> Option<Trouble> {
        let error = self.reading.error.take()?;
        let fields = backend::error_fields(error.get(frame::HEADER..).unwrap_or_default());
        if matches!(fields.severity(), "FATAL" | "PANIC") {
            // The server ends the connection with it, not the client's.
            return Some(self.lost(fields.message()));
        }
        Some(Trouble::Server(error))
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
        let result = self.hear_all(client, on).await;
        self.unless_cut(result)
    }

    async fn hear_all<C: Conversation>(
        &mut self,
        client: &mut C,
        mut on: impl FnMut(&mut C, Heard<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Trouble> {
        let mut scratch = vec![0; SCRATCH];
        let mut more = true;
        while more && !self.connection()?.pipeline.is_empty() {
            let count = read(client, self, &mut scratch).await?;
            let data = scratch.get(..count).unwrap_or_default();
            more = self.take_all(client, data, &mut on).await?;
            if !self.is_cut()
                && let Some(fault) = self.reading.deferred.take()
            {
                return Err(Trouble::Fault(fault));
            }
            if client.out().len() > CLIENT_BUFFER {
                flush_client(client).await?;
            }
        }
        self.take_error().map_or(Ok(()), Err)
    }

    /// The same as [`Member::take`]; reads types anew where one is not known.
    ///
    /// # Cancel safety
    /// Not safe: what its server said may be lost.
    pub(super) async fn take_all<C: Conversation>(
        &mut self,
        client: &mut C,
        data: &[u8],
        mut on: impl FnMut(&mut C, Heard<'_>) -> Result<bool, Trouble>,
    ) -> Result<bool, Trouble> {
        let more = self.take(client, data, &mut on)?;
        let Some((bytes, fault)) = self.reading.stalled.take() else {
            return Ok(more);
        };
        client.read_types().await?;
        self.reading.mapping = client.mapping(self.shard)?;
        let reader = std::mem::take(&mut self.connection()?.reader);
        let bytes = [bytes, reader.into_held()].concat();
        let more = self.take(client, &bytes, &mut on)?;
        if self.reading.stalled.is_some() {
            return Err(Trouble::Fault(fault));
        }
        Ok(more)
    }

    /// Has rows handed on whole, however long they are.
    pub(super) fn need_whole_rows(&mut self) {
        self.reading.whole = true;
    }

    /// The bytes of the message that it is in the middle of.
    pub(super) fn held(&self) -> usize {
        self.reading.long.len()
    }

    /// Whether all that was asked has been answered.
    pub(super) fn is_done(&mut self) -> Result<bool, Trouble> {
        Ok(self.connection()?.pipeline.is_empty())
    }

    /// Takes what its server said: `on` is given what is for the client, and says by `false` that it
    /// has enough. An error is kept for [`Member::take_error`].
    pub(super) fn take<C: Conversation>(
        &mut self,
        client: &mut C,
        data: &[u8],
        mut on: impl FnMut(&mut C, Heard<'_>) -> Result<bool, Trouble>,
    ) -> Result<bool, Trouble> {
        let most = bytes_max(client);
        let mut more = true;
        let Member { lease, reading, .. } = self;
        let connection = lease.connection().ok_or_else(gone)?;
        let mut reader = std::mem::take(&mut connection.reader);
        let result = reader.feed(
            data,
            u32::MAX,
            |_| false,
            |piece| {
                reading.on_piece(connection, piece, most, |heard| {
                    more &= on(client, heard)?;
                    Ok(())
                })
            },
        );
        connection.reader = reader;
        match result {
            Ok(()) => Ok(more),
            Err(Stopped::Lost(reason)) => Err(self.lost(&reason)),
            Err(Stopped::Trouble(trouble)) => Err(trouble),
        }
    }
}

fn gone() -> Trouble {
    Trouble::Fault(Fault::error(
        SqlState::INTERNAL,
        "the server connection is gone",
    ))
}

fn push_describe(connection: &mut ServerConnection, portal: &[u8], hidden: bool) {
    frame::write(&mut connection.out, b'D', &[b"P", portal, b"\0"]);
    connection
        .pipeline
        .sent(Request::DescribePortal, hidden, Note::None);
}

/// A statement that makes a table, without WITH DATA and the semicolon at its end.
pub(super) fn without_data(text: &[u8], lexing: Lexing) -> &[u8] {
    let text = without_end(text, lexing);
    let tokens = scan(text, lexing).unwrap_or_default();
    match tokens.as_slice() {
        [.., with, data]
            if with.of(text).eq_ignore_ascii_case(b"with")
                && data.of(text).eq_ignore_ascii_case(b"data") =>
        {
            text.get(..with.start).unwrap_or(text)
        }
        _ => text,
    }
}

/// A statement without a semicolon at its end.
fn without_end(text: &[u8], lexing: Lexing) -> &[u8] {
    let tokens = scan(text, lexing).unwrap_or_default();
    match tokens.last() {
        Some(token) if token.kind == Kind::Semicolon => text.get(..token.start).unwrap_or(text),
        Some(_) | None => text,
    }
}

/// What follows the names in a Bind, asking for all columns as texts.
pub(super) fn as_texts(after_names: &[u8]) -> Result<Vec<u8>, Trouble> {
    let body = [b"\0\0", after_names].concat();
    let bind = frontend::bind(&body).map_err(Fault::from)?;
    let values_end = after_names
        .len()
        .saturating_sub(bind.result_format_codes().len().saturating_add(2));
    let values = after_names.get(..values_end).unwrap_or_default();
    Ok([values, b"\0\0"].concat())
}

/// What follows the names in a Bind, its values as a shard names types; `None` where they are the same.
pub(super) fn put_bind(
    mapping: Option<&Mapping>,
    prepared: &Prepared,
    after_names: &[u8],
    types: impl Fn(usize) -> u32,
) -> Result<Option<Vec<u8>>, Trouble> {
    let Some(mapping) = mapping else {
        return Ok(None);
    };
    let missing = |unmapped| Trouble::Fault(unmapped_fault(mapping, &unmapped));
    for oid in prepared.declared().filter(|_| prepared.names_types) {
        mapping.type_oid(oid, Way::ToShard).map_err(missing)?;
    }
    if mapping.alike {
        return Ok(None);
    }
    let body = [b"\0\0", after_names].concat();
    let bind = frontend::bind(&body).map_err(Fault::from)?;
    oids::bind_values(&bind, types, mapping).map_err(missing)
}

/// How long a connection may take to come to rest that is part of the client's block.
const CALM_LIMIT: Duration = Duration::from_secs(5);

/// Bytes for the client that may wait while a shard is read.
pub(super) const CLIENT_BUFFER: usize = 64 * 1024;

/// Bytes read from a shard at once.
pub(super) const SCRATCH: usize = 32 * 1024;

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
    member: &mut Member,
    scratch: &mut [u8],
) -> Result<usize, Trouble> {
    poll_fn(|cx| {
        member.send(cx)?;
        match member.poll_read(cx, scratch) {
            Poll::Pending => match client.poll_watch(cx) {
                Poll::Ready(Interrupted::Fault(fault)) if member.is_cut() => {
                    member.reading.deferred = Some(fault);
                    Poll::Pending
                }
                other @ (Poll::Ready(_) | Poll::Pending) => {
                    other.map(|interrupted| Err(interrupted.into()))
                }
            },
            ready @ Poll::Ready(_) => ready,
        }
    })
    .await
}

/// Bytes that one statement may hold.
pub(super) fn bytes_max<C: Conversation>(client: &C) -> usize {
    usize::try_from(client.limits().max_multi_bytes).unwrap_or(usize::MAX)
}

/// Sends everything to the client.
///
/// # Errors
/// The client is gone or was killed.
pub(super) async fn flush_client<C: Conversation>(client: &mut C) -> Result<(), Trouble> {
    client.flush_all().await.map_err(Trouble::End)
}

/// Whether a message is handed on in pieces when it is long; all others are needed whole.
fn is_row(tag: u8) -> bool {
    matches!(tag, b'D' | b'd')
}

impl Reading {
    /// Takes a piece of the server's stream into account; `on` is given what is for the client.
    fn on_piece(
        &mut self,
        connection: &mut ServerConnection,
        piece: Piece<'_>,
        most: usize,
        mut on: impl FnMut(Heard<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Stopped> {
        if let Some((stalled, _)) = &mut self.stalled {
            stalled.extend_from_slice(piece.bytes());
            return Ok(());
        }
        let put;
        let shown = match piece {
            Piece::Whole(frame) => {
                let frame = if self.names_types(frame.tag) {
                    match self.put(connection, frame) {
                        Ok(bytes) => put = bytes,
                        Err(fault) => {
                            self.stalled = Some((frame.bytes.to_vec(), fault));
                            return Ok(());
                        }
                    }
                    let body = put.get(frame::HEADER..).unwrap_or_default();
                    Frame {
                        tag: frame.tag,
                        body,
                        bytes: &put,
                    }
                } else {
                    frame
                };
                let Frame { tag, bytes, body } = frame;
                let heard = Heard { tag, bytes, body };
                self.on_message(connection, heard)?.then_some(heard)
            }
            Piece::Start { tag, bytes } if is_row(tag) && !self.whole && !self.names_types(tag) => {
                let heard = Heard {
                    tag,
                    bytes,
                    body: &[],
                };
                self.on_message(connection, heard)?.then_some(heard)
            }
            Piece::Start { bytes, .. } => {
                self.forwarding = false;
                return self.hold(bytes, most);
            }
            Piece::More { bytes, last } if !self.long.is_empty() => {
                self.hold(bytes, most)?;
                if !last {
                    return Ok(());
                }
                let long = std::mem::take(&mut self.long);
                return match frame::split(&long, u32::MAX)? {
                    Split::Whole(frame, _) => {
                        self.on_piece(connection, Piece::Whole(frame), most, on)
                    }
                    Split::Part { .. } | Split::Nothing => Ok(()),
                };
            }
            Piece::More { bytes, .. } => self.forwarding.then_some(Heard {
                tag: 0,
                bytes,
                body: &[],
            }),
        };
        match shown {
            Some(heard) => on(heard).map_err(Stopped::Trouble),
            None => Ok(()),
        }
    }

    /// Whether a message names types by the shard's oids.
    fn names_types(&self, tag: u8) -> bool {
        match tag {
            b'T' | b't' => self.mapping.is_some(),
            b'D' => !self.naming.is_empty(),
            _ => false,
        }
    }

    /// A message in the home shard's oids.
    fn put(&mut self, connection: &ServerConnection, frame: Frame<'_>) -> Result<Vec<u8>, Fault> {
        let mut bytes = frame.bytes.to_vec();
        let body = bytes.get_mut(frame::HEADER..).unwrap_or_default();
        let Some(mapping) = &self.mapping else {
            return Ok(bytes);
        };
        let of_rows = !matches!(
            connection.pipeline.front(),
            Some((Request::DescribeStatement, ..))
        );
        let put = match frame.tag {
            b'T' => oids::put_row_description(body, mapping).map(|naming| {
                if of_rows {
                    self.naming = naming;
                }
            }),
            b't' => oids::put_types(body, mapping, Way::ToHome),
            _ => self.naming.put_row(body, mapping, Way::ToHome),
        };
        put.map_err(|unmapped| unmapped_fault(mapping, &unmapped))?;
        Ok(bytes)
    }

    fn hold(&mut self, bytes: &[u8], most: usize) -> Result<(), Stopped> {
        if self.long.len().saturating_add(bytes.len()) > most {
            let fault = Fault::error(
                SqlState::BUDGET_SPENT,
                "a message of a shard takes too much memory",
            )
            .hint("Make the error, the notice or the list of columns shorter, or raise max_multi_bytes.");
            return Err(Stopped::Trouble(Trouble::Fault(fault)));
        }
        self.long.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes a message of the server into account. Returns whether it is for the client.
    fn on_message(
        &mut self,
        connection: &mut ServerConnection,
        Heard { tag, bytes, body }: Heard<'_>,
    ) -> Result<bool, Stopped> {
        if tag == b'E' && connection.pipeline.is_empty() {
            return Err(Stopped::Lost(
                backend::error_fields(body).message().to_owned(),
            ));
        }
        let step = connection
            .pipeline
            .received(tag)
            .map_err(|error| Stopped::Lost(error.to_string()))?;
        self.forwarding = step.forward;
        if tag == b'Z'
            && let Some(status) = body.first().and_then(|byte| Status::read(*byte))
        {
            connection.status = status;
        }
        if step.fails {
            self.error.get_or_insert_with(|| bytes.to_vec());
            for void in connection.pipeline.fail() {
                if let Owed::Server {
                    note: Note::Parse { name, .. },
                    ..
                } = void
                {
                    connection.statements().remove(name);
                }
            }
            return Ok(false);
        }
        if step.ends
            && let Some((_, Note::Parse { name, prepared, .. })) = connection.pipeline.pop()
        {
            prepared
                .accepted
                .set(Some((u64::from(name.epoch), name.fingerprint)));
        }
        Ok(step.forward && !matches!(tag, b'Z' | b'S' | b'A'))
    }
}

impl Member {
    /// Cancels what runs, and reads what is owed. What does not come to rest in time stays out of sync.
    pub(super) async fn calm<C: Conversation>(&mut self, client: &C) {
        let Some(connection) = self.lease.connection() else {
            return;
        };
        if connection.pipeline.is_empty() {
            return;
        }
        client.cancel_now(&connection.cancel);
        let settled = async {
            drop(hidden::wait_for_ready(connection).await);
            connection.cancel.taken().await;
        };
        if tokio::time::timeout(CALM_LIMIT, settled).await.is_err() {
            tracing::info!("a shard did not come to rest in time");
        }
    }

    /// Reads what is owed; what does not end in time stays.
    async fn drain(&mut self) {
        if let Some(connection) = self.lease.connection() {
            let drained = hidden::wait_for_ready(connection);
            drop(tokio::time::timeout(CALM_LIMIT, drained).await);
        }
    }

    /// A connection that the client has, in sync.
    pub(super) async fn of<C: Conversation>(
        client: &mut C,
        lease: Lease,
    ) -> Result<Member, (Lease, Trouble)> {
        let shard = lease.pool().target.shard;
        match mapping(client, shard).await {
            Ok(mapping) => Ok(Member {
                shard,
                lease,
                joined: false,
                begun: false,
                portal: Vec::new(),
                ends: false,
                reading: Reading {
                    mapping,
                    ..Reading::default()
                },
            }),
            Err(trouble) => Err((lease, trouble)),
        }
    }
}

async fn mapping<C: Conversation>(
    client: &mut C,
    shard: ShardId,
) -> Result<Option<Arc<Mapping>>, Trouble> {
    match client.mapping(shard) {
        Ok(mapping) => Ok(mapping),
        Err(_not_read) => {
            client.read_types().await?;
            client.mapping(shard).map_err(Trouble::Fault)
        }
    }
}

/// Takes a connection of each shard, in their order: in a block the block's own, else as [`open`] does.
pub(super) async fn open_parts<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
) -> Result<Vec<Member>, Trouble> {
    let joins = client.is_in_block();
    open_as(client, shards, joins).await
}

/// Takes a connection of each shard, in their order, brought to the client's settings; none of a block.
pub(super) async fn open<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
) -> Result<Vec<Member>, Trouble> {
    open_as(client, shards, false).await
}

async fn open_as<C: Conversation>(
    client: &mut C,
    shards: &ShardSet,
    joins: bool,
) -> Result<Vec<Member>, Trouble> {
    let mut members = Vec::with_capacity(shards.len());
    client.park_current();
    // None of them works yet: until all are there, a cancel request is seen where the client is watched.
    client.forget_targets();
    for shard in shards.iter() {
        let taken = if joins {
            client.take_joined(shard).await
        } else {
            client.take_part(shard).await
        };
        match taken {
            Ok(lease) => {
                members.push(Member {
                    shard,
                    lease,
                    joined: joins,
                    begun: false,
                    portal: Vec::new(),
                    ends: false,
                    reading: Reading::default(),
                });
                match (mapping(client, shard).await, members.last_mut()) {
                    (Ok(mapping), Some(member)) => member.reading.mapping = mapping,
                    (Ok(_), None) => {}
                    (Err(trouble), _) => {
                        close(client, members).await;
                        return Err(trouble);
                    }
                }
            }
            Err(interrupted) => {
                close(client, members).await;
                return Err(interrupted.into());
            }
        }
    }
    let seen = poll_fn(|cx| Poll::Ready(client.poll_watch(cx))).await;
    if let Poll::Ready(interrupted) = seen {
        close(client, members).await;
        return Err(interrupted.into());
    }
    client.share_cancels(targets(&members));
    Ok(members)
}

/// Where cancel requests go that are for all of them.
pub(super) fn targets<'m>(members: impl IntoIterator<Item = &'m Member>) -> Vec<Rc<CancelTarget>> {
    members
        .into_iter()
        .filter_map(|member| member.lease.peek())
        .map(|connection| Rc::clone(&connection.cancel))
        .collect()
}

/// Gives the connections back; those that are not idle and in sync are rolled back first, or closed:
/// in the background, unless the client keeps them and the state on them. From here on a cancel request
/// of the client reaches none of them: they may soon work for others.
pub(super) async fn close<C: Conversation>(client: &mut C, members: Vec<Member>) {
    client.forget_targets();
    let failed = members.iter().any(|member| {
        let connection = member.lease.peek();
        connection.is_some_and(|connection| connection.status == Status::Failed)
    });
    for mut member in members {
        if member.joined {
            if !failed {
                // A cancel request would fail the block.
                member.drain().await;
            }
            member.calm(client).await;
            client.return_joined(member.lease);
            continue;
        }
        let Member { shard, lease, .. } = member;
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

/// Commits in two phases.
async fn commit_as_one<C: Conversation>(
    client: &mut C,
    members: &mut Vec<Member>,
) -> Result<(), Trouble> {
    client.forget_targets();
    let mut lost: Vec<ShardId> = members.iter().map(|member| member.shard).collect();
    let leases = members.drain(..).map(|member| member.lease).collect();
    let committed = client.commit(leases).await;
    for lease in committed.leases {
        lost.retain(|shard| *shard != lease.pool().target.shard);
        client.give_back(lease);
    }
    if client.keeps_connections()
        && let Some(shard) = lost.first()
    {
        client.lose(*shard);
    }
    client.out().extend_from_slice(&committed.notices);
    match committed.end {
        commit::End::Committed => Ok(()),
        commit::End::Refused(error) => Err(Trouble::Server(error)),
        commit::End::Failed(fault) | commit::End::Unknown(fault) => Err(Trouble::Fault(fault)),
    }
}

/// Commits the transaction of every member, as one where the shards can; nothing for parts of a block. All
/// were successful until now. A cancel request of the client
/// is for the servers from here on: only they know whether it comes too late.
///
/// # Errors
/// The server's error when every shard refused; 08007 with the names when some did not, or may not have.
pub(super) async fn commit_all<C: Conversation>(
    client: &mut C,
    members: &mut Vec<Member>,
) -> Result<(), Trouble> {
    if members.iter().all(|member| member.joined) {
        return Ok(());
    }
    if members.len() > 1 && client.can_decide().await? {
        return commit_as_one(client, members).await;
    }
    client.aim_cancels(targets(members.iter()));
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
    let is_refused = |trouble: &Trouble| matches!(trouble, Trouble::Server(_));
    let nowhere = done.is_empty() && failed.values().all(is_refused);
    match failed.into_values().next() {
        None => Ok(()),
        Some(error) if nowhere => Err(error),
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
