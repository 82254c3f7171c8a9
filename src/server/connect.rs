//! Opens a connection to a PostgreSQL server, and cancels what runs on one.
//!
//! TLS follows libpq's sslmode: `prefer` falls back to plain text where the server has no TLS, refuses it
//! in pg_hba.conf, or where the handshake fails. Whatever a server sends during login is bounded: each
//! message, all of them together, and the time.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::config::{Host, ServerTlsMode};
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::auth::Login;
use crate::tls::{Connectors, certificate};
use crate::wire::backend;

pub use crate::server::auth::Credentials;

/// Bytes of one message of a server during login, at most.
const MESSAGE_MAX: usize = 64 * 1024;
/// Bytes of all messages of a server during login, at most: many notices are no login.
const LOGIN_MAX: usize = 1024 * 1024;
/// Addresses of one host name that are tried, at most.
const ADDRESSES_MAX: usize = 16;

const VERSION: u32 = 3 << 16;
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
const CANCEL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// A server connection that is logged in, idle and in sync.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    /// The ParameterStatus messages, in their order.
    pub parameters: Vec<(String, String)>,
    /// How to cancel what runs on it. Its `pid` is the server's process.
    pub cancel: CancelToken,
}

/// What it takes to cancel what runs on one server connection.
#[derive(Clone, Debug)]
pub struct CancelToken {
    /// The process that serves the connection, as in `pg_stat_activity.pid`; 0 if it did not say.
    pub pid: i32,
    secret: Vec<u8>,
    address: Address,
    /// Of the host, for its certificate; `None` when the connection was without TLS.
    tls: Option<(ServerTlsMode, String)>,
}

/// Where a connection really went.
#[derive(Clone, Debug)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The server itself said no (too many connections, wrong password, starting up): to be relayed.
    #[error("server refused the connection: {message} ({code})")]
    Refused {
        code: String,
        message: String,
        /// The body of its ErrorResponse.
        body: Vec<u8>,
    },
    /// It could not be reached, or does not speak the protocol. The text names no shard.
    #[error("{0}")]
    Fault(Box<Fault>),
}

impl From<Fault> for ConnectError {
    fn from(fault: Fault) -> ConnectError {
        ConnectError::Fault(Box::new(fault))
    }
}

/// Connects and logs in, until the server is ready for a query. Speaks protocol 3.0.
///
/// `parameters` are further settings for the startup packet. Several addresses of a name are tried in
/// turn, each with its share of the time that is left.
///
/// # Cancel safety
/// Safe: a drop closes the connection.
pub async fn connect(
    host: &Host,
    tls: &Connectors,
    credentials: &Credentials,
    parameters: &[(&str, &str)],
    deadline: Instant,
) -> Result<Connected, ConnectError> {
    let mode = host.tls.unwrap_or(tls.mode);
    let attempt = async {
        let target = Target {
            host,
            credentials,
            parameters,
            deadline,
        };
        match Box::pin(target.open_and_log_in(tls, mode)).await {
            Err(Failure::Tls(_)) if mode == ServerTlsMode::Prefer => {
                Box::pin(target.open_and_log_in(tls, ServerTlsMode::Disable)).await
            }
            other => other,
        }
    };
    match timeout_at(deadline, attempt).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(Failure::Tls(error) | Failure::Other(error))) => Err(error),
        Err(_elapsed) => Err(too_late(host).into()),
    }
}

/// Cancels what runs on a server connection, on a connection of its own, and waits until the server has
/// taken the request. Whether anything was cancelled shows only on the first connection.
///
/// # Cancel safety
/// Safe: a drop may leave the request unsent.
pub async fn cancel(token: &CancelToken, tls: &Connectors, deadline: Instant) -> Result<(), Fault> {
    let send = async {
        let stream = open(&token.address)
            .await
            .map_err(|error| unreachable(&token.address, &error))?;
        let mut stream = match &token.tls {
            None => stream,
            Some((mode, host)) => match encrypt(stream, tls, *mode, host).await {
                Ok(stream) => stream,
                Err(Failure::Tls(error) | Failure::Other(error)) => {
                    return Err(
                        Fault::error(SqlState::CONNECTION_FAILURE, error.to_string())
                            .hint("The statement may still be running on the server."),
                    );
                }
            },
        };
        let length = token.secret.len().saturating_add(12);
        let mut request = u32::try_from(length)
            .unwrap_or(u32::MAX)
            .to_be_bytes()
            .to_vec();
        request.extend_from_slice(&CANCEL_REQUEST);
        request.extend_from_slice(&token.pid.to_be_bytes());
        request.extend_from_slice(&token.secret);
        let mut end = [0; 1];
        let sent = async {
            stream.write_all(&request).await?;
            stream.flush().await?;
            stream.read(&mut end).await
        };
        match sent.await {
            Ok(_) => Ok(()),
            // Servers close without TLS's farewell, or with a reset.
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(unreachable(&token.address, &error)),
        }
    };
    match timeout_at(deadline, Box::pin(send)).await {
        Ok(done) => done,
        Err(_elapsed) => Err(Fault::error(
            SqlState::CONNECTION_FAILURE,
            "server did not take a cancel request in time",
        )
        .hint("The statement may still be running on the server.")),
    }
}

/// A failure, and whether libpq's `prefer` would try again without TLS.
enum Failure {
    /// The handshake failed, or pg_hba.conf does not let us in with TLS.
    Tls(ConnectError),
    Other(ConnectError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Other(fault.into())
    }
}

#[derive(Clone, Copy)]
struct Target<'a> {
    host: &'a Host,
    credentials: &'a Credentials,
    parameters: &'a [(&'a str, &'a str)],
    deadline: Instant,
}

impl Target<'_> {
    async fn open_and_log_in(
        &self,
        tls: &Connectors,
        mode: ServerTlsMode,
    ) -> Result<Connected, Failure> {
        let (stream, address) = self.open_any().await?;
        let stream = match address {
            Address::Tcp(_) if mode != ServerTlsMode::Disable => {
                encrypt(stream, tls, mode, &self.host.host).await?
            }
            Address::Tcp(_) | Address::Unix(_) => stream,
        };
        let binding = stream
            .peer_certificate()
            .and_then(|certificate| certificate::end_point_digest(certificate));
        let tls = stream.is_tls().then(|| (mode, self.host.host.clone()));
        let mut login = Login::new(self.credentials, stream.is_tls(), binding);
        let (stream, welcome) = match self.log_in(stream, &mut login).await {
            Ok(done) => done,
            Err(ConnectError::Refused {
                code,
                message,
                body,
            }) if tls.is_some() && code == SqlState::INVALID_AUTHORIZATION.as_str() => {
                return Err(Failure::Tls(ConnectError::Refused {
                    code,
                    message,
                    body,
                }));
            }
            Err(error) => return Err(Failure::Other(error)),
        };
        Ok(Connected {
            stream,
            parameters: welcome.parameters,
            cancel: CancelToken {
                pid: welcome.pid,
                secret: welcome.secret,
                address,
                tls,
            },
        })
    }

    /// Opens a socket to the first address that answers.
    async fn open_any(&self) -> Result<(Stream, Address), Fault> {
        let Host { host, port, .. } = self.host;
        if host.starts_with('/') {
            let address = Address::Unix(PathBuf::from(format!("{host}/.s.PGSQL.{port}")));
            let stream = open(&address)
                .await
                .map_err(|error| unreachable(&address, &error))?;
            return Ok((stream, address));
        }
        let found = lookup_host((host.as_str(), *port)).await.map_err(|error| {
            Fault::error(SqlState::UNABLE_TO_CONNECT, "could not connect to server")
                .detail(format!(
                    "The host name \"{host}\" could not be resolved: {error}."
                ))
                .hint("Check the host name in the configuration, and the name service.")
        })?;
        let addresses: Vec<SocketAddr> = found.take(ADDRESSES_MAX).collect();
        let mut last = Fault::error(SqlState::UNABLE_TO_CONNECT, "could not connect to server")
            .detail(format!("The host name \"{host}\" has no address."))
            .hint("Check the host name in the configuration, and the name service.");
        for (index, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len().saturating_sub(index)).unwrap_or(1);
            let now = Instant::now();
            let share = self
                .deadline
                .saturating_duration_since(now)
                .checked_div(left);
            let address = Address::Tcp(*address);
            let until = now
                .checked_add(share.unwrap_or(Duration::ZERO))
                .unwrap_or(self.deadline);
            match timeout_at(until, open(&address)).await {
                Ok(Ok(stream)) => return Ok((stream, address)),
                Ok(Err(error)) => last = unreachable(&address, &error),
                Err(_elapsed) => last = unreachable(&address, &io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }

    /// Sends the startup packet and answers until ReadyForQuery.
    async fn log_in(
        &self,
        mut stream: Stream,
        login: &mut Login<'_>,
    ) -> Result<(Stream, Welcome), ConnectError> {
        send(&mut stream, &self.startup_packet()).await?;
        let mut inbox = Inbox::default();
        let mut welcome = Welcome::default();
        let mut is_in = false;
        let mut answer = Vec::new();
        loop {
            let (tag, body) = inbox.message(&mut stream).await?;
            match (tag, is_in) {
                (b'R', false) => {
                    is_in = login.on(body, &mut answer)?;
                    if !answer.is_empty() {
                        send(&mut stream, &answer).await?;
                        answer.clear();
                    }
                }
                (b'E', _) => {
                    let fields = backend::error_fields(body);
                    return Err(ConnectError::Refused {
                        code: fields.code().to_owned(),
                        message: fields.message().to_owned(),
                        body: body.to_vec(),
                    });
                }
                // A notice of login says nothing to the client whose statement comes later.
                (b'N', _) => (),
                (b'S', true) => welcome.parameters.push(parameter_status(body)?),
                (b'K', true) => {
                    let (pid, secret) = body
                        .split_first_chunk::<4>()
                        .ok_or_else(|| broken("BackendKeyData is too short"))?;
                    welcome.pid = i32::from_be_bytes(*pid);
                    welcome.secret = secret.to_vec();
                }
                (b'Z', true) if body == b"I" => break,
                _ => return Err(broken("a message comes that has no place in a login").into()),
            }
        }
        if inbox.is_empty() {
            Ok((stream, welcome))
        } else {
            Err(broken("more follows after ReadyForQuery").into())
        }
    }

    fn startup_packet(&self) -> Vec<u8> {
        let mut packet = vec![0; 4];
        packet.extend_from_slice(&VERSION.to_be_bytes());
        let own = [
            ("user", self.credentials.user.as_str()),
            ("database", self.host.dbname.as_str()),
        ];
        for (name, value) in own.iter().chain(self.parameters) {
            backend::string(&mut packet, name);
            backend::string(&mut packet, value);
        }
        packet.push(0);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if let Some(place) = packet.first_chunk_mut::<4>() {
            *place = length.to_be_bytes();
        }
        packet
    }
}

/// What a server says of itself at login.
#[derive(Default)]
struct Welcome {
    parameters: Vec<(String, String)>,
    pid: i32,
    secret: Vec<u8>,
}

/// The bytes of a server that were read and not yet taken, and how many there were in all.
#[derive(Default)]
struct Inbox {
    buffer: Vec<u8>,
    /// Where the next message starts in the buffer.
    start: usize,
    total: usize,
}

impl Inbox {
    /// The next message, its tag and its body.
    async fn message(&mut self, stream: &mut Stream) -> Result<(u8, &[u8]), Fault> {
        let end = loop {
            if let Some(end) = self.whole()? {
                break end;
            }
            self.buffer.drain(..self.start.min(self.buffer.len()));
            self.start = 0;
            let count = stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(|error| lost(&error))?;
            self.total = self.total.saturating_add(count);
            if count == 0 {
                return Err(lost(&io::ErrorKind::UnexpectedEof.into()));
            }
            if self.total > LOGIN_MAX {
                return Err(broken("it sends too much before it is ready"));
            }
        };
        let message = self.buffer.get(self.start..end).unwrap_or_default();
        self.start = end;
        match message.split_first_chunk::<5>() {
            Some(([tag, ..], body)) => Ok((*tag, body)),
            None => Err(broken("a message is too short")),
        }
    }

    /// Where the message at the start ends, once all of it is here.
    fn whole(&self) -> Result<Option<usize>, Fault> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let Some([_tag, length @ ..]) = rest.first_chunk::<5>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(4..=MESSAGE_MAX).contains(&length) {
            return Err(broken(&format!("a message has a length of {length}")));
        }
        let end = length.saturating_add(1);
        Ok((rest.len() >= end).then(|| self.start.saturating_add(end)))
    }

    fn is_empty(&self) -> bool {
        self.start >= self.buffer.len()
    }
}

fn parameter_status(body: &[u8]) -> Result<(String, String), Fault> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts = body.split(|&byte| byte == 0);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(value), Some([]), None) => Ok((text(name), text(value))),
        _ => Err(broken("a ParameterStatus is malformed")),
    }
}

async fn open(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
        Address::Unix(path) => Ok(Stream::unix(UnixStream::connect(path).await?)),
    }
}

/// Asks for TLS and shakes hands. With `prefer`, a server without TLS is taken as it is.
async fn encrypt(
    mut stream: Stream,
    tls: &Connectors,
    mode: ServerTlsMode,
    host: &str,
) -> Result<Stream, Failure> {
    let Some(config) = tls.connector(mode) else {
        return Err(no_tls(
            "No CA is configured to verify the server's certificate.",
            "Set server_tls.ca, or another sslmode.",
        )
        .into());
    };
    send(&mut stream, &SSL_REQUEST).await?;
    // Exactly one byte is read: what a man in the middle might add before TLS then fails the handshake.
    let answer = stream.read_u8().await.map_err(|error| lost(&error))?;
    match answer {
        b'S' => (),
        b'N' if mode == ServerTlsMode::Prefer => return Ok(stream),
        b'N' => {
            return Err(no_tls(
                "The server does not offer TLS.",
                "Set ssl = on on the server, or sslmode=prefer.",
            )
            .into());
        }
        _ => {
            return Err(Failure::Tls(
                broken("its answer to SSLRequest is neither S nor N").into(),
            ));
        }
    }
    let Stream::Tcp(socket) = stream else {
        return Err(broken("TLS is for TCP connections").into());
    };
    let name = match (ServerName::try_from(host.to_owned()), socket.peer_addr()) {
        (Ok(name), _) => name,
        (Err(_), Ok(address)) => ServerName::from(address.ip()),
        (Err(_), Err(error)) => return Err(lost(&error).into()),
    };
    match TlsConnector::from(config).connect(name, socket).await {
        Ok(stream) => Ok(Stream::ClientTls(Box::new(stream))),
        Err(error) => Err(Failure::Tls(
            no_tls(
                &format!("The TLS handshake failed: {error}."),
                "Check the server's certificate, server_tls.ca and sslmode.",
            )
            .into(),
        )),
    }
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), Fault> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| lost(&error))
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn unreachable(address: &Address, error: &io::Error) -> Fault {
    Fault::error(SqlState::UNABLE_TO_CONNECT, "could not connect to server")
        .detail(format!("Connecting to {address} failed: {error}."))
        .hint("Check that the server runs and listens on that address.")
}

fn too_late(host: &Host) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "could not connect to server in time",
    )
    .detail(format!(
        "The server at \"{}\" port {} did not let us in before server_connect_timeout.",
        host.host, host.port
    ))
    .hint("Check that the server is not overloaded, or raise server_connect_timeout.")
}

fn lost(error: &io::Error) -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        "server closed the connection during login",
    )
    .detail(format!("The connection ended with: {error}."))
    .hint("Check the server's log.")
}

fn no_tls(detail: &str, hint: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "could not connect to server with TLS",
    )
    .detail(detail)
    .hint(hint)
}

fn broken(detail: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "server broke the protocol during login",
    )
    .detail(format!("The server does not speak the protocol: {detail}."))
    .hint("Check that the address is that of a PostgreSQL server.")
}
