//! One connection to a server: what it was sent, what it owes, and what state it is in.
//!
//! The connection moves bytes and keeps the line of replies; what they mean to a client is decided
//! above. *Invariant:* it may be lent to another client only when [`ServerConnection::is_clean`].

use std::cell::{Cell, RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use crate::net::{self, Stream};
use crate::placement::ShardId;
use crate::planner::plan::{Effect, Script};
use crate::server::connect::{CancelToken, Connected};
use crate::server::pool::Permit;
use crate::server::pool::convoy::Convoy;
use crate::server::settings::{Detour, Settings};
use crate::server::statements::{Prepared, ServerName, ServerStatements};
use crate::sql::scan::Encoding;
use crate::wire::backend::Status;
use crate::wire::frame::{self, Reader};
use crate::wire::pipeline::{Pipeline, Request};

/// What a session wants to remember of a request until it is answered.
#[derive(Debug)]
pub enum Note {
    None,
    /// A Parse, under the server's name. `client`: it answers a client's Parse of this statement.
    Parse {
        name: ServerName,
        prepared: Rc<Prepared>,
        client: bool,
    },
    /// A Describe of a statement of which no server has said what it gives; the parameters' types once they came.
    Describe {
        prepared: Rc<Prepared>,
        parameters: Option<Box<[u32]>>,
    },
    /// A Query: the statements that it runs, and how many of them are done.
    Script {
        script: Rc<Script>,
        done: usize,
    },
    /// A Query with EXPLAIN: rows to be put on top of its answer.
    Explain(Box<[u8]>),
    /// An Execute with an effect on the session.
    Effect(Box<Effect>),
    /// An Execute of a statement without effect.
    Execute,
    /// A Sync behind an Execute: it commits what was executed outside a block.
    Commit,
}

/// Where a request to cancel the statement of a server connection goes.
#[derive(Debug)]
pub struct CancelTarget {
    pub token: CancelToken,
    pub shard: ShardId,
    /// When the connection logged in.
    pub born: Instant,
    /// The server's side of it.
    pub peer: String,
    /// Its TLS version and cipher, or empty.
    pub tls: String,
    /// Requests under way: until they are done the connection goes to nobody else.
    pub under_way: Cell<u32>,
    /// Who is not to be hit by it.
    pub convoy: Rc<Convoy>,
    /// The client that the connection is lent to; 0 is none.
    pub holder: Cell<u64>,
    /// Since when.
    pub lent: Cell<Instant>,
    /// Changes whenever the server says something.
    pub heard: Cell<u64>,
    /// The transaction that is being prepared on it, or is prepared and not ended.
    pub prepared: RefCell<Option<String>>,
}

/// How often it is looked whether a cancel request has been taken.
const CANCEL_POLL: Duration = Duration::from_millis(2);

impl CancelTarget {
    /// Waits until no cancel request is under way, so that none hits what is sent from then on. Each has a
    /// limit of its own.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn taken(&self) {
        while self.under_way.get() > 0 {
            tokio::time::sleep(CANCEL_POLL).await;
        }
    }

    /// The connection is lent to a client.
    pub fn lend(&self, client: u64, now: Instant) {
        self.holder.set(client);
        self.lent.set(now);
    }

    /// It is nobody's: what is done on it is not for a client any more.
    pub fn take_back(&self) {
        self.holder.set(0);
        self.prepared.take();
    }
}

/// A connection to one server, logged in.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says one thing that the protocol or a setting leaves to be done"
)]
pub struct ServerConnection {
    pub stream: Stream,
    pub reader: Reader,
    pub pipeline: Pipeline<Note>,
    pub status: Status,
    /// Messages sent since the last Sync or Query: the server waits for a Sync.
    pub unsynced: bool,
    /// A Flush was sent after the last of them.
    pub flushed: bool,
    /// Bytes to be sent.
    pub out: Vec<u8>,
    /// What was written may still be in our hands: TLS keeps some.
    unflushed: bool,
    /// Received of what is another client's: see [`Convoy`].
    pub ahead: Vec<u8>,
    /// What is prepared on it, and who else has sent something.
    pub convoy: Rc<Convoy>,
    /// What is set on it, as far as we set it.
    pub settings: Rc<Settings>,
    /// Settings may differ from `settings`: they must be reset before the next client.
    pub settings_unsure: bool,
    /// The id of the statement that is its unnamed one.
    pub unnamed: Option<ServerName>,
    /// Whom it is lent to may have called `nextval` on it.
    pub advanced: bool,
    /// It listens to channels: to be undone before another client has it.
    pub untidy: bool,
    /// ParameterStatus values at login, in their order.
    pub parameters: Rc<Vec<(String, String)>>,
    pub shard: ShardId,
    /// Where a request to cancel its statement goes.
    pub cancel: Rc<CancelTarget>,
    pub id: u64,
    pub born: Instant,
    pub used: Instant,
    /// Released with the connection.
    pub permit: Permit,
}

/// Above this many bytes an emptied buffer gives its memory back.
const BUFFER_KEPT: usize = 16 * 1024;

impl ServerConnection {
    /// Whether it writes dates and timestamps in the ISO DateStyle, as far as we set it.
    pub fn writes_iso_times(&self) -> bool {
        let style = self.reported("DateStyle");
        style.is_some_and(|style| style.to_ascii_lowercase().contains("iso"))
    }

    /// Whether it sends texts in UTF-8, as far as we set it.
    pub fn writes_utf8(&self) -> bool {
        let name = self.reported("client_encoding");
        name.is_some_and(|name| Encoding::of(name.trim_matches('\'')) == Encoding::Utf8)
    }

    /// The value of a setting that a server reports, as SQL text.
    fn reported(&self, name: &str) -> Option<&str> {
        let at_login = || {
            let mut parameters = self.parameters.iter();
            let found = parameters.find(|(known, _)| known == name);
            found.map(|(_, value)| value.as_str())
        };
        let set = self.settings.get(&name.to_ascii_lowercase());
        set.or_else(at_login)
    }

    /// A connection that has just logged in.
    pub fn new(
        connected: Connected,
        shard: ShardId,
        permit: Permit,
        now: Instant,
    ) -> ServerConnection {
        let pid = u64::from(connected.cancel.pid);
        let convoy = Rc::<Convoy>::default();
        let peer = connected.stream.peer();
        let tls = connected.stream.tls_description().unwrap_or_default();
        ServerConnection {
            stream: connected.stream,
            reader: Reader::default(),
            pipeline: Pipeline::default(),
            status: Status::Idle,
            unsynced: false,
            flushed: false,
            out: Vec::new(),
            unflushed: false,
            ahead: Vec::new(),
            convoy: Rc::clone(&convoy),
            settings: Settings::new(std::collections::BTreeMap::new()),
            settings_unsure: false,
            unnamed: None,
            advanced: false,
            untidy: false,
            parameters: Rc::new(connected.parameters),
            shard,
            cancel: Rc::new(CancelTarget {
                token: connected.cancel,
                shard,
                born: now,
                peer,
                tls,
                under_way: Cell::new(0),
                convoy,
                holder: Cell::new(0),
                lent: Cell::new(now),
                heard: Cell::new(0),
                prepared: RefCell::default(),
            }),
            id: pid,
            born: now,
            used: now,
            permit,
        }
    }

    /// Whether it is idle, in sync and between messages, or about to be its follower's.
    pub fn is_clean(&self) -> bool {
        self.status == Status::Idle
            && self.pipeline.is_idle()
            && !self.unsynced
            && (self.out.is_empty() || self.convoy.is_followed())
            && self.reader.is_between_messages()
    }

    /// The statements that it has prepared.
    pub fn statements(&self) -> RefMut<'_, ServerStatements> {
        self.convoy.statements()
    }

    /// Whether there is nothing to be sent.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.unflushed && !self.convoy.has_unsent()
    }

    /// Keeps what belongs to those who follow; returns what is the holder's.
    pub fn split_ahead<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        if !self.convoy.is_followed() {
            return data;
        }
        let own = if self.pipeline.is_idle() {
            0
        } else {
            self.reader.until(b'Z', data)
        };
        let (own, ahead) = data.split_at_checked(own).unwrap_or((data, &[]));
        self.ahead.extend_from_slice(ahead);
        own
    }

    /// Notes that something was sent which only a Sync or a Flush brings the answer of.
    pub fn mark_unsynced(&mut self) {
        self.unsynced = true;
        self.flushed = false;
    }

    /// Reads what has arrived. `Ready(Ok(0))` is the end of the stream.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = net::poll_read(&mut self.stream, cx, scratch);
        if read.is_ready() {
            let heard = &self.cancel.heard;
            heard.set(heard.get().wrapping_add(1));
        }
        read
    }

    /// Sends what is to be sent. `Ready` when all of it is on its way.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.convoy.take_unsent(&mut self.out);
        let flushed = poll_flush(&mut self.stream, &mut self.out, cx);
        self.unflushed = flushed.is_pending();
        flushed
    }

    /// Whether an idle connection has something to say: it is closing, or out of step.
    pub fn is_stale(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_read(&mut cx, &mut byte).is_ready()
    }

    /// Queues a Query of our own, whose replies are hidden from the client.
    pub fn push_hidden_query(&mut self, sql: &str) {
        frame::write(&mut self.out, b'Q', &[sql.as_bytes(), b"\0"]);
        self.pipeline.sent(Request::Query, true, Note::None);
    }

    /// Queues a statement of our own in the extended protocol: part of the transaction that is open,
    /// and of what the next Sync ends.
    pub fn push_hidden_step(&mut self, sql: &str) {
        const NAME: &[u8] = b"pgherd_step\0";
        frame::write(&mut self.out, b'P', &[NAME, sql.as_bytes(), b"\0\0\0"]);
        frame::write(&mut self.out, b'B', &[NAME, NAME, b"\0\0\0\0\0\0"]);
        frame::write(&mut self.out, b'E', &[NAME, b"\0\0\0\0"]);
        frame::write(&mut self.out, b'C', &[b"P", NAME]);
        frame::write(&mut self.out, b'C', &[b"S", NAME]);
        for request in [
            Request::Parse,
            Request::Bind,
            Request::Execute,
            Request::Close,
            Request::Close,
        ] {
            self.pipeline.sent(request, true, Note::None);
        }
        self.mark_unsynced();
    }

    /// Queues what cannot succeed: the transaction that is open, or that a group began, fails with it.
    pub fn push_failure(&mut self) {
        frame::write(
            &mut self.out,
            b'P',
            &[b"\0", b"refused by pgherd\0", b"\0\0"],
        );
        self.pipeline.sent(Request::Parse, true, Note::None);
        self.unnamed = None;
        self.mark_unsynced();
    }

    /// Ends a group; ReadyForQuery goes no further than here.
    pub fn push_hidden_sync(&mut self) {
        frame::write(&mut self.out, b'S', &[]);
        self.pipeline.sent(Request::Sync, true, Note::None);
        self.unsynced = false;
    }

    /// Queues a Parse of the unnamed statement; `body` is what follows the name. `detour` surrounds it.
    pub fn push_unnamed_parse(&mut self, body: &[u8], detour: &Detour) {
        for step in &detour.there {
            self.push_hidden_step(step);
        }
        frame::write(&mut self.out, b'P', &[b"\0", body]);
        self.pipeline.sent(Request::Parse, true, Note::None);
        for step in &detour.back {
            self.push_hidden_step(step);
        }
        self.unnamed = None;
        self.mark_unsynced();
    }

    /// Queues a Parse of a statement under its server name; `body` is what follows the name, `hidden` when
    /// no client waits for it. `detour` surrounds it.
    pub fn push_parse(
        &mut self,
        name: ServerName,
        prepared: &Rc<Prepared>,
        body: &[u8],
        hidden: bool,
        limit: usize,
        detour: &Detour,
    ) {
        for step in &detour.there {
            self.push_hidden_step(step);
        }
        let evicted = self.statements().insert(name, limit);
        let mut text = Vec::with_capacity(32);
        for old in evicted {
            text.clear();
            text.push(b'S');
            old.write(&mut text);
            frame::write(&mut self.out, b'C', &[&text]);
            self.pipeline.sent(Request::Close, true, Note::None);
        }
        text.clear();
        name.write(&mut text);
        frame::write(&mut self.out, b'P', &[&text, body]);
        let note = Note::Parse {
            name,
            prepared: Rc::clone(prepared),
            client: !hidden,
        };
        if self.pipeline.sent(Request::Parse, hidden, note).is_some() {
            self.statements().remove(name);
        }
        for step in &detour.back {
            self.push_hidden_step(step);
        }
        self.mark_unsynced();
    }

    /// Says goodbye as far as the socket takes it at once.
    pub fn terminate(&mut self) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if self.out.is_empty() {
            self.out.extend_from_slice(b"X\0\0\0\x04");
            // The connection closes whether or not this is taken.
            drop(self.poll_flush(&mut cx));
        }
    }
}

/// Writes `out` to `stream` and empties it.
pub fn poll_flush(
    stream: &mut Stream,
    out: &mut Vec<u8>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut sent = 0;
    let result = loop {
        let Some(rest) = out.get(sent..).filter(|rest| !rest.is_empty()) else {
            break Poll::Ready(Ok(()));
        };
        match Pin::new(&mut *stream).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => sent = sent.saturating_add(count),
            Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
            Poll::Pending => break Poll::Pending,
        }
    };
    if sent > 0 {
        if sent >= out.len() {
            out.clear();
            if out.capacity() > BUFFER_KEPT {
                *out = Vec::new();
            }
        } else {
            out.drain(..sent);
        }
    }
    if matches!(result, Poll::Ready(Ok(()))) && stream.is_tls() {
        return Pin::new(stream).poll_flush(cx);
    }
    result
}
