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
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::PoolMode;
use crate::error::{Fault, SqlState};
use crate::planner::plan::{Effect, Script};
use crate::server::connect;
use crate::server::connection::ServerConnection;
use crate::server::pool::{Permit, Pool};
use crate::wire::backend;
use crate::wire::frame::{self, Piece};
use crate::wire::pipeline::Owed;

use super::client::Client;
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

/// Who listens to what, for one database and user.
#[derive(Debug)]
pub(crate) struct Hub {
    channels: RefCell<BTreeMap<String, Vec<Weak<Client>>>>,
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

    /// Registers a client; returns whether the channel is new.
    fn add(&self, channel: &str, client: &Rc<Client>) -> bool {
        let mut channels = self.channels.borrow_mut();
        let is_new = !channels.contains_key(channel);
        let clients = channels.entry(channel.to_owned()).or_default();
        clients.retain(|known| known.strong_count() > 0);
        if !clients
            .iter()
            .any(|known| known.as_ptr() == Rc::as_ptr(client))
        {
            clients.push(Rc::downgrade(client));
        }
        is_new
    }

    /// Takes a client off one channel or all; returns the channels nobody listens to any more.
    fn remove(&self, channel: Option<&str>, client: &Rc<Client>) -> Vec<String> {
        let mut channels = self.channels.borrow_mut();
        for (name, clients) in channels.iter_mut() {
            if channel.is_none_or(|channel| channel == name) {
                clients.retain(|known| {
                    known.strong_count() > 0 && known.as_ptr() != Rc::as_ptr(client)
                });
            }
        }
        let silent: Vec<String> = channels
            .iter()
            .filter(|(_, clients)| clients.is_empty())
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
        for client in self.channels.borrow().get(channel).into_iter().flatten() {
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
        sql.push_str(&quoted(channel));
        sql.push(';');
    }
    sql
}

fn quoted(channel: &str) -> String {
    format!("\"{}\"", channel.replace('"', "\"\""))
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
        let lost = hear(&hub, &mut connection, &mut requests, &mut waiting).await;
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
        std::time::Instant::now(),
    ))
}

/// Hears and takes requests until the connection is lost; `None` when the hub is gone.
async fn hear(
    hub: &Weak<Hub>,
    connection: &mut ServerConnection,
    requests: &mut mpsc::Receiver<Request>,
    waiting: &mut VecDeque<Option<oneshot::Sender<Result<(), Fault>>>>,
) -> Option<Lost> {
    let mut scratch = vec![0; 8192];
    let mut failure = None;
    loop {
        let event = poll_fn(|cx| {
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
                (!self.channels.contains(channel)).then(|| channel.clone())
            })
            .collect();
        if wanted.is_empty() {
            Ok(())
        } else {
            Err(Stop::Listen(wanted))
        }
    }

    /// Makes the listening connection hear channels for this client.
    pub(crate) async fn listen(&mut self, channels: Vec<String>) -> Result<(), Fault> {
        let hub = self.hub();
        for channel in channels {
            if hub.add(&channel, &self.client) {
                let heard = hub.run(format!("LISTEN {}", quoted(&channel))).await;
                if heard.is_err() {
                    hub.remove(Some(&channel), &self.client);
                }
                heard?;
            }
            self.channels.push(channel);
        }
        Ok(())
    }

    /// Stops hearing one channel, or all.
    pub(crate) fn unlisten(&mut self, channel: Option<&str>) {
        self.channels
            .retain(|known| channel.is_some_and(|channel| channel != known));
        self.engine.unlisten(&self.client, channel);
    }

    /// A rollback undoes the LISTENs of its block; what came on their channels was never heard.
    pub(crate) fn forget_channels(&mut self, channels: &[String]) {
        for channel in channels {
            self.unlisten(Some(channel));
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
