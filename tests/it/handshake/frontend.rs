//! A listener that takes clients in as the proxy does, and answers every query with who the client is.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgherd::config::{Auth, AuthMethod, Secret, User, hba};
use pgherd::error::Fault;
use pgherd::net::Stream;
use pgherd::session::auth::{AuthError, Context, Keyring, LookUp, Secrets, authenticate};
use pgherd::session::startup::{Client, Startup, StartupError, accept, close, refuse};
use pgherd::tls::Tls;
use pgherd::wire::backend::{self, Column, Status};
use pgherd::wire::cancel_key::CancelKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::Instant;

/// How clients are taken in.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) tls: Tls,
    pub(crate) method: AuthMethod,
    /// Names and passwords or verifiers.
    pub(crate) users: Vec<(&'static str, Option<String>)>,
    /// What `auth.query` would find.
    pub(crate) queried: Option<BTreeMap<&'static str, &'static str>>,
    /// A pg_hba.conf, for the method `hba`.
    pub(crate) rules: &'static str,
    pub(crate) timeout: Duration,
    /// Whether channel binding is checked against another certificate than the one shown.
    pub(crate) wrong_end_point: bool,
}

/// A running listener. It ends with the process.
pub(crate) struct Frontend {
    pub(crate) port: u16,
    /// Of its Unix socket.
    pub(crate) folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<String>>>,
}

impl Frontend {
    pub(crate) fn start(options: Options) -> Frontend {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(format!(".s.PGSQL.{port}"));
        let local = std::os::unix::net::UnixListener::bind(path).expect("a socket");
        local.set_nonblocking(true).expect("a socket");
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&events);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .expect("a runtime");
            runtime.block_on(listen(listener, local, options, told));
        });
        Frontend {
            port,
            folder,
            events,
        }
    }

    /// Waits until an event has this text in it.
    pub(crate) fn wait_for(&self, text: &str) {
        for _ in 0..2_000 {
            let events = self.events.lock().expect("no panic");
            if events.iter().any(|event| event.contains(text)) {
                return;
            }
            drop(events);
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("no {text:?} in {:?}", self.events.lock());
    }
}

async fn listen(
    tcp: std::net::TcpListener,
    unix: std::os::unix::net::UnixListener,
    options: Options,
    events: Arc<Mutex<Vec<String>>>,
) {
    let tcp = TcpListener::from_std(tcp).expect("a listener");
    let unix = UnixListener::from_std(unix).expect("a listener");
    let keyring = Rc::new(Keyring::new().expect("random numbers"));
    let options = Rc::new(options);
    loop {
        let stream = tokio::select! {
            accepted = tcp.accept() => Stream::tcp(accepted.expect("accepted").0).expect("a socket"),
            accepted = unix.accept() => Stream::unix(accepted.expect("accepted").0),
        };
        let (options, keyring) = (Rc::clone(&options), Rc::clone(&keyring));
        let events = Arc::clone(&events);
        tokio::task::spawn_local(async move {
            let event = take_in(stream, &options, &keyring).await;
            events.lock().expect("no panic").push(event);
        });
    }
}

struct Queried(BTreeMap<&'static str, &'static str>);

impl Secrets for Queried {
    fn look_up<'a>(&'a self, user: &'a str, _database: &'a str) -> LookUp<'a> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok::<_, Fault>(self.0.get(user).map(|text| Secret::read(text)))
        })
    }
}

/// Takes one client in and serves it; says what came of it.
async fn take_in(stream: Stream, options: &Options, keyring: &Keyring) -> String {
    let deadline = Instant::now() + options.timeout;
    let mut client = match accept(stream, &options.tls, deadline).await {
        Ok(Startup::Client(client)) => client,
        Ok(Startup::Cancel {
            pid,
            secret,
            stream,
        }) => {
            let event = format!("cancel {pid} {} tls={}", secret.len(), stream.is_tls());
            close(stream, deadline).await;
            return event;
        }
        Err(StartupError::Refused(fault)) => return format!("refused {fault}"),
        Err(StartupError::Gone(error)) => return format!("gone {error}"),
    };
    if options.wrong_end_point {
        client.end_point = Some(vec![0; 32]);
    }
    let users = options.users.iter().map(user).collect();
    let queried = options.queried.clone().map(Queried);
    let auth = Auth {
        method: options.method,
        hba: None,
        rules: hba::parse(options.rules, "pg_hba.conf").expect("good rules"),
        query: None,
        user: None,
    };
    let context = Context {
        auth: &auth,
        users: &users,
        keyring,
        secrets: queried.as_ref().map(|queried| queried as &dyn Secrets),
        deadline,
    };
    let identity = match authenticate(&mut client, &context).await {
        Ok(identity) => identity,
        Err(AuthError::Refused { fault, reason }) => {
            refuse(&mut client.stream, &fault, deadline).await;
            return format!("refused {fault} since {reason}");
        }
        Err(AuthError::Gone(error)) => return format!("gone {error}"),
    };
    let password = match identity.password {
        Some(Secret::Plain(_)) => "plain",
        Some(Secret::Scram(_)) => "scram",
        Some(Secret::Md5(_)) => "md5",
        None => "none",
    };
    let who = format!(
        "{} {} tls={} local={} password={password} {:?}",
        identity.user,
        client.database,
        client.stream.is_tls(),
        client.stream.is_local(),
        client.parameters,
    );
    match serve(&mut client, &who).await {
        Ok(()) => "served".to_owned(),
        Err(error) => format!("lost {error}"),
    }
}

fn user((name, password): &(&'static str, Option<String>)) -> (String, User) {
    let user = User {
        name: (*name).to_owned(),
        password: password.as_deref().map(Secret::read),
        comment_hints: false,
        tenant: None,
        pool_mode: None,
        default_pool_size: None,
        max_user_connections: None,
    };
    (user.name.clone(), user)
}

async fn serve(client: &mut Client, who: &str) -> std::io::Result<()> {
    let key = CancelKey::new(7, [9; 32], client.minor);
    let mut out = Vec::new();
    backend::parameter_status(&mut out, "server_version", "15.0");
    backend::parameter_status(&mut out, "client_encoding", "UTF8");
    backend::backend_key_data(&mut out, key.pid(), key.secret());
    backend::ready_for_query(&mut out, Status::Idle);
    loop {
        client.stream.write_all(&out).await?;
        client.stream.flush().await?;
        out.clear();
        let tag = client.stream.read_u8().await?;
        let length = client.stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).expect("small") - 4];
        client.stream.read_exact(&mut body).await?;
        if tag != b'Q' {
            return Ok(());
        }
        backend::row_description(&mut out, &[Column::text("who")]);
        backend::data_row(&mut out, [Some(who.as_bytes())].into_iter());
        backend::command_complete(&mut out, "SELECT 1");
        backend::ready_for_query(&mut out, Status::Idle);
    }
}
