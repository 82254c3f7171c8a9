//! LISTEN in transaction pooling: one connection to the home shard for each database and user hears
//! for all of them.
//!
//! Delivery is at most once, as PostgreSQL's own: what is sent while the connection is being made
//! anew is lost, and the log says so.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::config::PoolMode;
use crate::error::{Fault, SqlState};
use crate::execute::Interrupted;
use crate::planner::plan::{Effect, Script};
use crate::server::connect;
use crate::server::connection::ServerConnection;
use crate::server::pool::{Permit, Pool};
use crate::sql::quote::quote_ident;
use crate::wire::backend;
use crate::wire::frame::{self, Piece};
use crate::wire::pipeline::Owed;

use super::client::{Activity, Client};
use super::engine::Engine;
use super::replies::Lost;
use super::{Session, Stop};

/// Requests to a hub that may wait.
const REQUESTS_MAX: usize = 1_000;

/// A request to the hub: statements to run, and where to tell the end of it.
#[derive(Debug)]
struct Request {
    sql: String,
    done: oneshot::Sender<Result<(), Fault>>,
}

/// Who hears a channel.
#[derive(Debug, Default)]
struct Channel {
    clients: Vec<Weak<Client>>,
    /// The server has carried out LISTEN: who comes now need not ask again.
    is_heard: bool,
}

/// Who listens to what, for one database and user.
#[derive(Debug)]
pub(crate) struct Hub {
    channels: RefCell<BTreeMap<String, Channel>>,
    requests: mpsc::Sender<Request>,
}

impl Hub {
    /// Starts a hub on the home shard of `pool`.
    fn start(pool: Rc<Pool>) -> Rc<Hub> {
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let hub = Rc::new(Hub {
            channels: RefCell::default(),
            requests,
        });
        tokio::task::spawn_local(serve(Rc::downgrade(&hub), pool, receiver));
        hub
    }

    async fn run(&self, sql: String) -> Result<(), Fault> {
        let (done, answer) = oneshot::channel();
        let gone = || {
            Fault::error(
                SqlState::CONNECTION_FAILURE,
                "the listening connection is gone",
            )
            .hint("LISTEN again.")
        };
        self.requests
            .send(Request { sql, done })
            .await
            .map_err(|_closed| gone())?;
        answer.await.map_err(|_dropped| gone())?
    }

    /// Registers a client; returns whether the server listens to the channel already.
    fn add(&self, channel: &str, client: &Rc<Client>) -> bool {
        let mut channels = self.channels.borrow_mut();
        let channel = channels.entry(channel.to_owned()).or_default();
        let clients = &mut channel.clients;
        clients.retain(|known| known.strong_count() > 0);
        if !clients
            .iter()
            .any(|known| known.as_ptr() == Rc::as_ptr(client))
        {
            clients.push(Rc::downgrade(client));
        }
        channel.is_heard
    }

    /// The server has carried out LISTEN.
    fn is_heard(&self, channel: &str) {
        if let Some(channel) = self.channels.borrow_mut().get_mut(channel) {
            channel.is_heard = true;
        }
    }

    /// The connection is lost: whoever listens next waits for the next one.
    fn hears_nothing(&self) {
        for channel in self.channels.borrow_mut().values_mut() {
            channel.is_heard = false;
        }
    }

    /// Takes a client off one channel or all; returns the channels nobody listens to any more.
    fn remove(&self, channel: Option<&str>, client: &Rc<Client>) -> Vec<String> {
        let mut channels = self.channels.borrow_mut();
        for (name, known) in channels.iter_mut() {
            if channel.is_none_or(|channel| channel == name) {
                known.clients.retain(|known| {
                    known.strong_count() > 0 && known.as_ptr() != Rc::as_ptr(client)
                });
            }
        }
        let silent: Vec<String> = channels
            .iter()
            .filter(|(_, channel)| channel.clients.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for name in &silent {
            channels.remove(name);
        }
        silent
    }

    fn listen_to_all(&self) -> String {
        let channels = self.channels.borrow();
        each("LISTEN", channels.keys())
    }

    fn deliver(&self, body: &[u8], message: &[u8]) {
        let channel = body
            .get(4..)
            .and_then(|rest| rest.split(|byte| *byte == 0).next())
            .unwrap_or_default();
        let Ok(channel) = std::str::from_utf8(channel) else {
            return;
        };
        let channels = self.channels.borrow();
        let channel_clients = channels.get(channel).map(|channel| &channel.clients);
        for client in channel_clients.into_iter().flatten() {
            if let Some(client) = client.upgrade()
                && client.notify(message.to_vec())
            {
                tracing::warn!(
                    client = client.id,
                    channel,
                    "a notification was dropped: the client does not read"
                );
            }
        }
    }
}

/// The same command for each channel.
fn each<'a>(command: &str, channels: impl Iterator<Item = &'a String>) -> String {
    let mut sql = String::new();
    for channel in channels {
        sql.push_str(command);
        sql.push(' ');
        sql.push_str(&quote_ident(channel));
        sql.push(';');
    }
    sql
}

/// Keeps one connection and hears on it until the hub is gone.
async fn serve(hub: Weak<Hub>, pool: Rc<Pool>, mut requests: mpsc::Receiver<Request>) {
    let mut first = None;
    loop {
        if first.is_none() {
            first = requests.recv().await;
        }
        let Some(request) = first.take() else { return };
        let connection = match open(&pool).await {
            Ok(connection) => connection,
            Err(fault) => {
                // Those in line would wait for the same.
                while let Ok(next) = requests.try_recv() {
                    drop(next.done.send(Err(fault.clone())));
                }
                drop(request.done.send(Err(fault)));
                continue;
            }
        };
        let Some(listening) = hub.upgrade() else {
            return;
        };
        let mut connection = connection;
        let mut waiting = VecDeque::new();
        let again = listening.listen_to_all();
        if !again.is_empty() {
            connection.push_hidden_query(&again);
            waiting.push_back(None);
        }
        connection.push_hidden_query(&request.sql);
        waiting.push_back(Some(request.done));
        drop(listening);
        let limit = pool.target.limits.connect_timeout;
        let lost = hear(&hub, &mut connection, &mut requests, &mut waiting, limit).await;
        if let Some(hub) = hub.upgrade() {
            hub.hears_nothing();
        }
        for done in waiting.into_iter().flatten() {
            let fault = Fault::error(
                SqlState::CONNECTION_FAILURE,
                "the listening connection was lost",
            )
            .hint("LISTEN again.");
            drop(done.send(Err(fault)));
        }
        let Some(Lost(reason)) = lost else { return };
        tracing::warn!(shard = %pool.target.shard_name, reason, "the listening connection was lost: notifications may be missing");
        first = reopen_request(&hub).await;
    }
}

/// After a loss the hub listens again by itself, a little later.
async fn reopen_request(hub: &Weak<Hub>) -> Option<Request> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let busy = hub
        .upgrade()
        .is_some_and(|hub| !hub.channels.borrow().is_empty());
    let (done, _answer) = oneshot::channel();
    busy.then(|| Request {
        sql: "SELECT 1".to_owned(),
        done,
    })
}

async fn open(pool: &Pool) -> Result<ServerConnection, Fault> {
    let target = &pool.target;
    let connected = connect::connect(
        &target.host,
        &target.tls.connector,
        &target.credentials,
        &[],
        target.limits.connect_timeout,
    )
    .await
    .map_err(|error| error.into_fault(&target.shard_name))?;
    let permit = Permit::take(&[]).unwrap_or_default();
    Ok(ServerConnection::new(
        connected,
        target.shard,
        permit,
        Instant::now(),
    ))
}

/// Hears and takes requests until the connection is lost, or says nothing to a request for as long as
/// `limit`; `None` when the hub is gone.
async fn hear(
    hub: &Weak<Hub>,
    connection: &mut ServerConnection,
    requests: &mut mpsc::Receiver<Request>,
    waiting: &mut VecDeque<Option<oneshot::Sender<Result<(), Fault>>>>,
    limit: Duration,
) -> Option<Lost> {
    let mut scratch = vec![0; 8192];
    let mut failure = None;
    // Since when the first of those who wait is first.
    let mut first_since = Instant::now();
    loop {
        let in_line = waiting.len();
        let deadline = tokio::time::Instant::from_std(first_since) + limit;
        let mut late = std::pin::pin!(tokio::time::sleep_until(deadline));
        let event = poll_fn(|cx| {
            if in_line > 0 && late.as_mut().poll(cx).is_ready() {
                let reason = "the server did not answer in time".to_owned();
                return Poll::Ready(Err(Some(Lost(reason))));
            }
            if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
                return Poll::Ready(Err(Some(Lost(error.to_string()))));
            }
            match connection.poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Some(Lost(
                        "the server closed the connection".to_owned(),
                    ))));
                }
                Poll::Ready(Ok(count)) => return Poll::Ready(Ok(count)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Some(Lost(error.to_string())))),
                Poll::Pending => {}
            }
            match requests.poll_recv(cx) {
                Poll::Ready(None) => Poll::Ready(Err(None)),
                Poll::Ready(Some(request)) => {
                    connection.push_hidden_query(&request.sql);
                    waiting.push_back(Some(request.done));
                    Poll::Ready(Ok(0))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        let count = match event {
            Ok(count) => count,
            Err(lost) => return lost,
        };
        let hub = hub.upgrade()?;
        let mut reader = std::mem::take(&mut connection.reader);
        let data = scratch.get(..count).unwrap_or_default();
        let result = reader.feed(
            data,
            u32::MAX,
            |_| false,
            |piece| {
                if let Piece::Whole(frame) = piece {
                    on_frame(&hub, connection, frame, waiting, &mut failure)?;
                }
                Ok(())
            },
        );
        connection.reader = reader;
        if let Err(lost) = result {
            return Some(lost);
        }
        if in_line == 0 || waiting.len() < in_line {
            first_since = Instant::now();
        }
    }
}

fn on_frame(
    hub: &Hub,
    connection: &mut ServerConnection,
    frame: frame::Frame<'_>,
    waiting: &mut VecDeque<Option<oneshot::Sender<Result<(), Fault>>>>,
    failure: &mut Option<Fault>,
) -> Result<(), Lost> {
    if frame.tag == b'A' {
        hub.deliver(frame.body, frame.bytes);
        return Ok(());
    }
    let step = connection
        .pipeline
        .received(frame.tag)
        .map_err(|error| Lost(error.to_string()))?;
    if step.fails {
        let fields = backend::error_fields(frame.body);
        *failure = Some(Fault::error(
            SqlState::of_server(fields.code()),
            fields.message(),
        ));
        drop::<Vec<Owed<_>>>(connection.pipeline.fail());
    } else if step.ends {
        connection.pipeline.pop();
        if let Some(Some(done)) = waiting.pop_front() {
            let result = failure.take().map_or(Ok(()), Err);
            // The client may have left.
            drop(done.send(result));
        }
    }
    Ok(())
}

/// What a client listens to.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// As of the last commit.
    committed: Vec<String>,
    /// What the listening connection hears for it: these, and what a LISTEN under way asks for.
    heard: Vec<String>,
    /// What the transaction under way wants, in order (`pendingActions` in `async.c`).
    pending: Vec<Pending>,
}

#[derive(Debug)]
enum Pending {
    Listen(String),
    /// `None` is `*`.
    Unlisten(Option<String>),
}

impl Channels {
    /// Whether anything is heard.
    pub(crate) fn is_empty(&self) -> bool {
        self.heard.is_empty()
    }

    /// Whether the listening connection hears the channel of a NotificationResponse for it.
    pub(crate) fn hears(&self, message: &[u8]) -> bool {
        let channel = channel_of(message).unwrap_or_default();
        self.heard.iter().any(|known| known.as_bytes() == channel)
    }

    /// How much the transaction under way wants so far.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What was wanted since is undone.
    pub(crate) fn roll_back_to(&mut self, pending: usize) {
        self.pending.truncate(pending);
    }

    fn commit(&mut self, pending: Pending) {
        match pending {
            Pending::Listen(channel) if self.committed.contains(&channel) => {}
            Pending::Listen(channel) => self.committed.push(channel),
            Pending::Unlisten(Some(channel)) => self.committed.retain(|known| *known != channel),
            Pending::Unlisten(None) => self.committed.clear(),
        }
    }

    /// Takes out what is heard and not listened to.
    fn take_unwanted(&mut self) -> Vec<String> {
        let Channels {
            committed, heard, ..
        } = self;
        heard
            .extract_if(.., |channel| !committed.contains(channel))
            .collect()
    }
}

fn late_to_listen() -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        "the home shard did not listen in time (query_wait_timeout)",
    )
    .hint("Check the home shard's health.")
}

impl Session {
    /// Before a LISTEN is carried out, the listening connection must hear the channel, so that nothing
    /// sent after its commit is missed. In session pooling the session's own connection listens.
    pub(crate) fn listen_first(&self, script: &Script) -> Result<(), Stop> {
        if self.pool_mode == PoolMode::Session {
            return Ok(());
        }
        let wanted: Vec<String> = script
            .statements
            .iter()
            .filter_map(|statement| {
                let Effect::Listen { channel } = &statement.effect else {
                    return None;
                };
                (!self.channels.heard.contains(channel)).then(|| channel.clone())
            })
            .collect();
        if wanted.is_empty() {
            Ok(())
        } else {
            Err(Stop::Listen(wanted))
        }
    }

    /// Makes the listening connection hear channels for this client, and watches the client meanwhile.
    ///
    /// # Cancel safety
    /// Not safe: the client must be closed.
    pub(crate) async fn listen(&mut self, channels: Vec<String>) -> Result<(), Interrupted> {
        let hub = self.hub();
        for channel in channels {
            if !hub.add(&channel, &self.client) {
                let listened = self.listen_to(&hub, &channel).await;
                if listened.is_err() {
                    self.engine.unlisten(&self.client, Some(&channel));
                }
                listened?;
                hub.is_heard(&channel);
            }
            self.channels.heard.push(channel);
        }
        Ok(())
    }

    async fn listen_to(&mut self, hub: &Hub, channel: &str) -> Result<(), Interrupted> {
        let before = self.client.activity.get();
        self.client
            .set_activity(Activity::Waiting, self.engine.now());
        let sql = format!("LISTEN {}", quote_ident(channel));
        let wait = self.database.limits.query_wait_timeout;
        let listened = self
            .watched(async {
                if wait.is_zero() {
                    return hub.run(sql).await;
                }
                let listening = tokio::time::timeout(wait, hub.run(sql));
                listening
                    .await
                    .unwrap_or_else(|_elapsed| Err(late_to_listen()))
            })
            .await;
        self.client.set_activity(before, self.engine.now());
        listened
    }

    /// A LISTEN was carried out outside a transaction.
    pub(crate) fn listens(&mut self, channel: &str) {
        self.channels.commit(Pending::Listen(channel.to_owned()));
    }

    /// An UNLISTEN was carried out outside a transaction.
    pub(crate) fn unlisten(&mut self, channel: Option<&str>) {
        self.channels
            .commit(Pending::Unlisten(channel.map(str::to_owned)));
        self.channels
            .heard
            .retain(|known| channel.is_some_and(|channel| channel != known));
        self.engine.unlisten(&self.client, channel);
    }

    /// The session listens to nothing any more, whatever its transaction wanted.
    pub(crate) fn forget_channels(&mut self) {
        self.channels.pending.clear();
        self.unlisten(None);
    }

    /// A LISTEN or UNLISTEN was carried out by the server, within a transaction: it counts from its
    /// commit on. In session pooling the server's word is all.
    pub(crate) fn listens_in_transaction(&mut self, effect: &Effect) {
        if self.pool_mode == PoolMode::Session {
            return;
        }
        if let Effect::Listen { channel } = effect {
            self.channels.pending.push(Pending::Listen(channel.clone()));
        } else if let Effect::Unlisten { channel } = effect {
            let pending = Pending::Unlisten(channel.clone());
            self.channels.pending.push(pending);
        }
    }

    /// A transaction is over: what it listened to and what not counts, or never happened.
    pub(crate) fn settle_channels(&mut self, commits: bool) {
        for pending in std::mem::take(&mut self.channels.pending) {
            if commits {
                self.channels.commit(pending);
            }
        }
        // What was sent behind may listen, too.
        if !self.is_answered() {
            return;
        }
        for channel in self.channels.take_unwanted() {
            self.engine.unlisten(&self.client, Some(&channel));
            self.client
                .notifications
                .borrow_mut()
                .retain(|message| channel_of(message) != Some(channel.as_bytes()));
        }
    }

    fn hub(&self) -> Rc<Hub> {
        let key = (self.client.database.clone(), self.client.user.clone());
        let known = self.engine.hubs.borrow().get(&key).map(Rc::clone);
        if let Some(known) = known {
            return known;
        }
        let home = usize::from(self.database.topology.home().0);
        let pool = self
            .pools
            .get(home)
            .or_else(|| self.pools.first())
            .map(Rc::clone);
        let hub = pool.map(Hub::start);
        match hub {
            Some(hub) => {
                self.engine.hubs.borrow_mut().insert(key, Rc::clone(&hub));
                hub
            }
            None => Rc::new(Hub {
                channels: RefCell::default(),
                requests: mpsc::channel(1).0,
            }),
        }
    }
}

impl Engine {
    /// Takes a client off every channel.
    pub(crate) fn unlisten_all(&self, client: &Rc<Client>) {
        self.unlisten(client, None);
    }

    fn unlisten(&self, client: &Rc<Client>, channel: Option<&str>) {
        let key = (client.database.clone(), client.user.clone());
        let Some(hub) = self.hubs.borrow().get(&key).map(Rc::clone) else {
            return;
        };
        let silent = hub.remove(channel, client);
        if silent.is_empty() {
            return;
        }
        let sql = each("UNLISTEN", silent.iter());
        let (done, _answer) = oneshot::channel();
        // A full queue leaves the server listening to a channel nobody hears: harmless.
        drop(hub.requests.try_send(Request { sql, done }));
    }
}

/// The channel of a NotificationResponse, header included: it stands behind the process id.
fn channel_of(message: &[u8]) -> Option<&[u8]> {
    let body = message.get(frame::HEADER..)?;
    body.get(4..)?.split(|byte| *byte == 0).next()
}
