//! Opens a connection to a PostgreSQL server, and cancels what runs on one.
//!
//! TLS follows libpq's sslmode: `prefer` falls back to plain text where the server has no TLS, refuses it
//! in pg_hba.conf, or where the handshake fails. Whatever a server sends during login is bounded: each
//! message, all of them together, and the time.

mod cancel;
mod login;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::{Instant, timeout_at};

use crate::config::{Host, ServerTlsMode};
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::auth::Login;
use crate::tls::{ServerConnector, certificate};
use socket::{Address, Failure, encrypt, open, unreachable};

pub use self::cancel::{CancelToken, cancel};
pub use crate::server::auth::Credentials;

/// Addresses of one host name that are tried, at most.
const ADDRESSES_MAX: usize = 16;

/// What "no limit" of time is.
const NO_LIMIT: Duration = Duration::from_hours(24);

/// A server connection that is logged in, idle and in sync.
#[derive(Debug)]
pub struct Connected {
    pub stream: Stream,
    /// The ParameterStatus messages, in their order.
    pub parameters: Vec<(String, String)>,
    /// How to cancel what runs on it. Its `pid` is the server's process.
    pub cancel: CancelToken,
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

impl ConnectError {
    /// The same for a client whose statement needs the shard `shard`. A refusal keeps the server's code
    /// where it is one that servers give at login.
    pub fn into_fault(self, shard: &str) -> Fault {
        match self {
            ConnectError::Fault(fault) => {
                let message = format!("shard \"{shard}\": {}", fault.message);
                Fault { message, ..*fault }
            }
            ConnectError::Refused { code, message, .. } => {
                let code = LOGIN_CODES
                    .iter()
                    .find(|known| known.as_str() == code)
                    .copied()
                    .unwrap_or(SqlState::UNABLE_TO_CONNECT);
                Fault::error(code, format!("shard \"{shard}\": {message}"))
                    .detail(format!("The server of shard \"{shard}\" refused pgherd's login."))
                    .hint(match code {
                        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION => {
                            "Check the user's password, server_user and server_password, and the server's pg_hba.conf."
                        }
                        SqlState::TOO_MANY_CONNECTIONS => {
                            "Lower default_pool_size or max_db_connections, or raise max_connections on the server."
                        }
                        _ => "Try again, or see the server's log.",
                    })
            }
        }
    }
}

/// What PostgreSQL refuses a login with.
const LOGIN_CODES: [SqlState; 7] = [
    SqlState::INVALID_PASSWORD,
    SqlState::INVALID_AUTHORIZATION,
    SqlState::TOO_MANY_CONNECTIONS,
    SqlState::CANNOT_CONNECT_NOW,
    SqlState::ADMIN_SHUTDOWN,
    SqlState::UNKNOWN_DATABASE,
    SqlState::INSUFFICIENT_PRIVILEGE,
];

impl From<Fault> for ConnectError {
    fn from(fault: Fault) -> ConnectError {
        ConnectError::Fault(Box::new(fault))
    }
}

/// Connects and logs in, until the server is ready for a query. Speaks protocol 3.0.
///
/// `parameters` are further settings for the startup packet. Several addresses of a name are tried in
/// turn, each with its share of `timeout`; zero is no limit.
///
/// # Cancel safety
/// Safe: a drop closes the connection.
pub async fn connect(
    host: &Host,
    tls: &ServerConnector,
    credentials: &Credentials,
    parameters: &[(&str, &str)],
    timeout: Duration,
) -> Result<Connected, ConnectError> {
    let deadline = deadline(timeout);
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

/// Without a limit a login still ends one day.
fn deadline(timeout: Duration) -> Instant {
    let timeout = if timeout.is_zero() { NO_LIMIT } else { timeout };
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now)
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
        tls: &ServerConnector,
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
