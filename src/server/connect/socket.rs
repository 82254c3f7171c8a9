//! Sockets to servers, TLS on them, and what is said when they fail.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::ServerTlsMode;
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::connect::ConnectError;
use crate::tls::ServerConnector;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// Where a connection really went.
#[derive(Clone, Debug)]
pub(super) enum Address {
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

/// A failure, and whether libpq's `prefer` would try again without TLS.
pub(super) enum Failure {
    /// The handshake failed, or pg_hba.conf does not let us in with TLS.
    Tls(ConnectError),
    Other(ConnectError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Other(fault.into())
    }
}

pub(super) async fn open(address: &Address) -> io::Result<Stream> {
    match address {
        Address::Tcp(address) => Stream::tcp(TcpStream::connect(address).await?),
        Address::Unix(path) => Ok(Stream::unix(UnixStream::connect(path).await?)),
    }
}

/// Asks for TLS and shakes hands. With `prefer`, a server without TLS is taken as it is.
pub(super) async fn encrypt(
    mut stream: Stream,
    tls: &ServerConnector,
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

pub(super) async fn send(stream: &mut Stream, bytes: &[u8]) -> Result<(), Fault> {
    let sent = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| lost(&error))
}

pub(super) fn unreachable(address: &Address, error: &io::Error) -> Fault {
    Fault::error(SqlState::UNABLE_TO_CONNECT, "could not connect to server")
        .detail(format!("Connecting to {address} failed: {error}."))
        .hint("Check that the server runs and listens on that address.")
}

pub(super) fn lost(error: &io::Error) -> Fault {
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

pub(super) fn broken(detail: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "server broke the protocol during login",
    )
    .detail(format!("The server does not speak the protocol: {detail}."))
    .hint("Check that the address is that of a PostgreSQL server.")
}
