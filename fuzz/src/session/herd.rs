//! One engine with servers behind it and a client in front, all in one thread.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixStream as StdStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use pgherd::config::{Config, Sources, parse};
use pgherd::control::Control;
use pgherd::metrics::Metrics;
use pgherd::metrics::view::{Detail, Snapshot as View};
use pgherd::placement::catalog::{Catalog, Collation, Column, Table};
use pgherd::placement::topology::Topology;
use pgherd::session::auth::Keyring;
use pgherd::session::engine::{Engine, Message, Shared, Snapshot};
use pgherd::tls::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::chop;
use super::hostile::Hostility;
use super::postgres::{Postgres, message, write};

/// The shards of every database.
const SHARDS: u16 = 4;

/// How the servers answer.
#[derive(Debug, Default)]
pub(crate) struct Habits {
    /// Notices and parameter changes come with the answers.
    pub(crate) is_chatty: bool,
    /// Answers are cut anywhere.
    pub(crate) chop: Option<u8>,
    /// What goes wrong, answer by answer.
    pub(crate) hostility: Option<Hostility>,
}

/// What the servers share.
#[derive(Debug)]
struct Servers {
    habits: RefCell<Habits>,
    accepted: Cell<usize>,
    /// Connections made before the current number hang up.
    era: watch::Sender<u32>,
}

/// The engine and its servers.
#[derive(Debug)]
pub(crate) struct Herd {
    servers: Rc<Servers>,
    engine: JoinHandle<()>,
    messages: mpsc::Sender<Message>,
    listeners: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Herd {
    /// Must be called within a local task set.
    pub(crate) fn start(habits: Habits) -> Herd {
        let folder = tempfile::tempdir().expect("a folder");
        let servers = Rc::new(Servers {
            habits: RefCell::new(habits),
            accepted: Cell::new(0),
            era: watch::Sender::new(0),
        });
        let listeners = (1..=SHARDS).map(|port| {
            let path = folder.path().join(format!(".s.PGSQL.{port}"));
            let listener = UnixListener::bind(path).expect("a socket");
            tokio::task::spawn_local(listen(Rc::clone(&servers), listener))
        });
        let listeners = listeners.collect();
        let shared = share(folder.path().to_str().expect("plain"));
        let (messages, inbox) = mpsc::channel(16);
        let set = shared.engines.set(vec![messages.clone()]);
        assert!(set.is_ok());
        let engine = Engine::new(0, shared);
        let metrics = Arc::new(Metrics::new());
        Herd {
            servers,
            engine: tokio::task::spawn_local(engine.run(inbox, metrics)),
            messages,
            listeners,
            _folder: folder,
        }
    }

    /// A new client, not logged in.
    pub(crate) async fn connect(&self) -> UnixStream {
        let (ours, theirs) = StdStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("it may");
        let sent = self.messages.send(Message::Unix(theirs)).await;
        assert!(sent.is_ok(), "the engine is gone");
        UnixStream::from_std(ours).expect("a socket")
    }

    /// Every server connection is cut; new ones are honest.
    pub(crate) fn reform(&self) {
        *self.servers.habits.borrow_mut() = Habits::default();
        self.servers.era.send_modify(|era| *era += 1);
    }

    /// Server connections made so far.
    pub(crate) fn accepted(&self) -> usize {
        self.servers.accepted.get()
    }

    pub(crate) async fn view(&self) -> View {
        let (answer, view) = oneshot::channel();
        let detail = Detail::Connections;
        let sent = self.messages.send(Message::View { detail, answer }).await;
        assert!(sent.is_ok(), "the engine is gone");
        view.await.expect("an answer")
    }

    /// Ends the engine; it must not have panicked.
    pub(crate) async fn end(self) {
        let sent = self.messages.send(Message::End).await;
        assert!(sent.is_ok(), "the engine is gone");
        self.engine.await.expect("no panic");
        for listener in self.listeners {
            listener.abort();
        }
    }
}

fn share(folder: &str) -> Arc<Shared> {
    let config = Arc::new(configuration(folder));
    let tls = Arc::new(Tls::load(&config.tls, &config.server_tls).expect("no files are named"));
    let topologies: HashMap<_, _> = config
        .databases
        .iter()
        .map(|(name, database)| {
            let topology = Topology::new(database).expect("it is valid");
            (name.clone(), Arc::new(topology))
        })
        .collect();
    let snapshot = Snapshot {
        control: Arc::new(Control::new(&config, &tls.connector)),
        config,
        tls,
        topologies,
        generation: 1,
    };
    let keyring = Keyring::new().expect("random numbers");
    let shared = Shared::new(snapshot, keyring, tokio::runtime::Handle::current());
    let mut catalog = Catalog::new(1);
    for (name, columns) in [
        ("t", ["id", "user_id"]),
        ("o", ["id", "label"]),
        ("x", ["a", "b"]),
    ] {
        let columns = columns.iter().map(|name| Column {
            name: (*name).to_owned(),
            oid: 20,
            generated: false,
            modifier: -1,
            primary: false,
            collation: Collation::Other,
            loose: false,
        });
        let table = Table {
            plain: true,
            columns: columns.collect(),
            ..Table::default()
        };
        catalog.insert("public", name, table);
    }
    shared.database("four").catalog.store(Arc::new(catalog));
    shared
}

fn configuration(folder: &str) -> Config {
    let shard = |port| format!("\"host={folder} port={port}\"");
    let (a, b, c, d) = (shard(1), shard(2), shard(3), shard(4));
    let text = format!(
        "auth: {{method: trust}}
users: [{{name: app, password: x}}]
default_pool_size: 2
query_wait_timeout: 2s
server_tls: {{mode: disable}}
gather: {{twins: 0}}
databases:
  one: {{shards: {{a: {a}}}}}
  held: {{shards: {{a: {a}}}, pool_mode: session}}
  four:
    shards: {{a: {a}, b: {b}, c: {c}, d: {d}}}
    distributions: {{users: {{key: bigint, place: {{modulo: all}}}}}}
    tables: {{t: {{distribution: users, key: user_id}}, o: reference}}
"
    );
    let sources = Sources {
        env: &|_| None,
        read: &|_| Err("no file".into()),
        glob: &|_| Ok(Vec::new()),
    };
    let parsed =
        parse(&text, "pgherd.yaml", &sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    parsed.ready().unwrap_or_else(|faults| panic!("{faults:?}"))
}

async fn listen(servers: Rc<Servers>, listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        servers.accepted.set(servers.accepted.get() + 1);
        tokio::task::spawn_local(serve(Rc::clone(&servers), stream));
    }
}

/// Serves one connection until it is cut or the other side leaves.
async fn serve(servers: Rc<Servers>, stream: UnixStream) {
    let mut era = servers.era.subscribe();
    tokio::select! {
        biased;
        _ = era.changed() => (),
        _ = converse(&servers, stream) => (),
    }
}

async fn converse(servers: &Servers, mut stream: UnixStream) -> Option<()> {
    let length = usize::try_from(stream.read_u32().await.ok()?).ok()?;
    let mut packet = vec![0; length - 4];
    stream.read_exact(&mut packet).await.ok()?;
    answer(servers, &mut stream, vec![welcome()]).await?;
    let mut postgres = Postgres::default();
    let mut buffer = vec![0; 8192];
    while !postgres.closed {
        let count = stream.read(&mut buffer).await.ok()?;
        if count == 0 {
            return None;
        }
        let answers = postgres.feed(&buffer[..count]);
        answer(servers, &mut stream, answers).await?;
    }
    Some(())
}

/// Sends answers in the servers' manner; `None` when the connection is over.
async fn answer(servers: &Servers, stream: &mut UnixStream, answers: Vec<Vec<u8>>) -> Option<()> {
    let mut out = Vec::new();
    let mut hangs_up = false;
    let chop_seed = {
        let mut habits = servers.habits.borrow_mut();
        for answer in answers {
            if habits.is_chatty && message(&answer).is_some_and(|(tag, ..)| tag != b'R') {
                write(&mut out, b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0");
                write(&mut out, b'S', b"is_superuser\0off\0");
            }
            match &mut habits.hostility {
                Some(hostility) => hangs_up |= hostility.apply(answer, &mut out).is_break(),
                None => out.extend(answer),
            }
            if hangs_up {
                break;
            }
        }
        habits.chop
    };
    match chop_seed {
        Some(seed) => {
            for chunk in chop(&out, seed) {
                stream.write_all(chunk).await.ok()?;
                tokio::task::yield_now().await;
            }
        }
        None => stream.write_all(&out).await.ok()?,
    }
    (!hangs_up).then_some(())
}

/// What a server says at login.
fn welcome() -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, b'R', &[0; 4]);
    for setting in ["server_version\x0015.0\0", "client_encoding\0UTF8\0"] {
        write(&mut out, b'S', setting.as_bytes());
    }
    write(&mut out, b'K', &[0, 0, 0, 1, 0, 0, 0, 2]);
    write(&mut out, b'Z', b"I");
    out
}

/// The client's bytes at login.
pub(crate) fn startup(database: &str) -> Vec<u8> {
    let mut body = vec![0, 3, 0, 0];
    for text in ["user", "app", "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("short");
    [length.to_be_bytes().to_vec(), body].concat()
}

/// The longest that anything may take: all is in one thread, so this is a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Tells what a client was answered, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    buffer: VecDeque<u8>,
    /// The tags since login, and the status behind each `Z`; what may come at any time is left out.
    pub(crate) tags: String,
    /// The row of the finale has come.
    pub(crate) finale: bool,
    /// ReadyForQuery behind it has come too.
    pub(crate) done: bool,
}

impl Heard {
    /// Whether the last of it was ReadyForQuery.
    pub(crate) fn is_ready(&self) -> bool {
        let mut last = self.tags.bytes().rev();
        matches!(
            (last.next(), last.next()),
            (Some(b'I' | b'T' | b'E'), Some(b'Z'))
        )
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
        loop {
            let Some((tag, body, end)) = message(self.buffer.make_contiguous()) else {
                return;
            };
            if !matches!(tag, b'N' | b'S' | b'A') {
                self.tags.push(char::from(tag));
            }
            if tag == b'D' && body.ends_with(b"SELECT finale") {
                self.finale = true;
            }
            if tag == b'Z' {
                self.tags.push(char::from(body[0]));
                self.done |= self.finale;
            }
            self.buffer.drain(..end);
        }
    }
}
