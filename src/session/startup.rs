//! Brings a client from the first byte to a checked StartupMessage, through TLS where it asks for it.
//!
//! Nothing is read beyond a packet's end, so nothing is left over when the session begins, and bytes that
//! someone put between SSLRequest and the handshake are never taken for the client's
//! (CVE-2021-23214).

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::config::ClientTlsMode;
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::tls::{ALPN, Acceptor, Tls};
use crate::wire::backend;
use crate::wire::startup::{Packet, PacketError, StartupMessage, TLS_RECORD, body_length, decode};

/// What an accepted connection turns out to be.
#[derive(Debug)]
pub enum Startup {
    /// A CancelRequest. Once it is carried out, [`close`] the stream: the client waits for that.
    Cancel {
        pid: i32,
        secret: Vec<u8>,
        stream: Stream,
    },
    Client(Box<Client>),
}

/// A client that has said who it is and has yet to prove it.
#[derive(Debug)]
pub struct Client {
    pub stream: Stream,
    pub user: String,
    pub database: String,
    /// Settings in the order in which they take effect, without `user`, `database` and `options` itself.
    pub parameters: Vec<(String, String)>,
    /// The minor version of protocol 3 that is spoken: 2 has long cancel keys.
    pub minor: u16,
    /// The `tls-server-end-point` digest of the certificate we showed.
    pub end_point: Option<Vec<u8>>,
}

/// Why an accepted connection does not become a client. It is closed already.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The client left, was too slow, or what it sent is no startup packet: a port scanner, a health check.
    #[error("no startup packet: {0}")]
    Gone(#[from] io::Error),
    /// The client was told why not.
    #[error("{0}")]
    Refused(Box<Fault>),
}

/// Reads what the client wants, as PostgreSQL's `ProcessStartupPacket` does, until `deadline`.
///
/// A refusal is sent to the client here, and the connection is closed.
///
/// # Cancel safety
/// Safe: a drop closes the connection.
pub async fn accept(stream: Stream, tls: &Tls, deadline: Instant) -> Result<Startup, StartupError> {
    match timeout_at(deadline, Box::pin(negotiate(stream, tls))).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Sends an error to a client and closes the connection. Never waits past `deadline`.
///
/// # Cancel safety
/// Safe: a drop closes the connection, perhaps before the client has read the error.
pub async fn refuse(stream: &mut Stream, fault: &Fault, deadline: Instant) {
    let mut bytes = Vec::new();
    backend::fault(&mut bytes, fault);
    let farewell = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.shutdown().await
    };
    // Whether the client still listens is its own affair.
    drop(timeout_at(deadline, farewell).await);
}

/// Closes a connection with TLS's farewell, without which libpq takes a cancel request for failed.
/// Never waits past `deadline`.
///
/// # Cancel safety
/// Safe: a drop closes the connection.
pub async fn close(mut stream: Stream, deadline: Instant) {
    // Whether the client still listens is its own affair.
    drop(timeout_at(deadline, stream.shutdown()).await);
}

async fn negotiate(mut stream: Stream, tls: &Tls) -> Result<Startup, StartupError> {
    let acceptor = tls.acceptor.as_ref();
    if let Stream::Tcp(socket) = stream {
        stream = if is_tls_record(&socket).await? {
            direct(socket, acceptor).await?
        } else {
            Stream::Tcp(socket)
        };
    }
    let mut ssl_done = stream.is_tls();
    let mut gss_done = false;
    loop {
        let packet = match read_packet(&mut stream).await? {
            // A second request is no version that exists.
            Ok(Packet::SslRequest) if ssl_done => Err(repeated(5679)),
            Ok(Packet::GssEncRequest) if gss_done => Err(repeated(5680)),
            other => other,
        };
        match packet {
            Ok(Packet::SslRequest) => {
                ssl_done = true;
                stream = match (stream, acceptor) {
                    (Stream::Tcp(socket), Some(acceptor)) => {
                        upgrade(Stream::Tcp(socket), acceptor).await?
                    }
                    (stream, _) => answer_no(stream).await?,
                };
            }
            Ok(Packet::GssEncRequest) => {
                gss_done = true;
                stream = answer_no(stream).await?;
            }
            Ok(Packet::CancelRequest { pid, secret }) => {
                return Ok(Startup::Cancel {
                    pid,
                    secret,
                    stream,
                });
            }
            Ok(Packet::Startup(message)) => return begin(stream, message, tls).await,
            Err(PacketError::Refused(fault)) => return Err(send_away(stream, *fault).await),
            Err(error @ (PacketError::Length(_) | PacketError::CancelLength(_))) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, error).into());
            }
        }
    }
}

/// Takes the StartupMessage; tells the client of the version that will be spoken if it asked for more.
async fn begin(
    mut stream: Stream,
    message: StartupMessage,
    tls: &Tls,
) -> Result<Startup, StartupError> {
    if tls.mode == ClientTlsMode::Require && !stream.is_tls() && !stream.is_local() {
        let fault = Fault::fatal(SqlState::INVALID_AUTHORIZATION, "connection requires TLS")
            .detail("This proxy takes TCP connections with TLS only.")
            .hint("Connect with sslmode=require.");
        return Err(send_away(stream, fault).await);
    }
    if message.negotiate {
        let mut bytes = Vec::new();
        backend::negotiate_protocol_version(&mut bytes, message.minor, &message.unknown_options);
        stream.write_all(&bytes).await?;
        stream.flush().await?;
    }
    let end_point = match (&tls.acceptor, stream.is_tls()) {
        (Some(acceptor), true) => acceptor.end_point.clone(),
        (Some(_) | None, _) => None,
    };
    Ok(Startup::Client(Box::new(Client {
        stream,
        user: message.user,
        database: message.database,
        parameters: message.parameters,
        minor: message.minor,
        end_point,
    })))
}

/// Whether the first byte is that of a TLS record. Consumes nothing.
async fn is_tls_record(socket: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let count = socket.peek(&mut first).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first == [TLS_RECORD])
}

/// TLS from the first byte on. ALPN must name the protocol, so that no other protocol's client is led here.
async fn direct(socket: TcpStream, acceptor: Option<&Acceptor>) -> io::Result<Stream> {
    let Some(acceptor) = acceptor else {
        let problem = "direct TLS connection, and no TLS is configured";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    };
    let stream = handshake(socket, acceptor).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        let problem = "direct TLS connection without ALPN for postgresql";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Stream::ServerTls(stream))
}

/// TLS after an SSLRequest.
async fn upgrade(mut stream: Stream, acceptor: &Acceptor) -> Result<Stream, StartupError> {
    refuse_waiting_bytes(&mut stream).await?;
    stream.write_all(b"S").await?;
    match stream {
        Stream::Tcp(socket) => Ok(Stream::ServerTls(handshake(socket, acceptor).await?)),
        other @ (Stream::Unix(_) | Stream::ServerTls(_) | Stream::ClientTls(_)) => Ok(other),
    }
}

async fn handshake(
    socket: TcpStream,
    acceptor: &Acceptor,
) -> io::Result<Box<tokio_rustls::server::TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(std::sync::Arc::clone(&acceptor.config));
    acceptor.accept(socket).await.map(Box::new)
}

async fn answer_no(mut stream: Stream) -> Result<Stream, StartupError> {
    refuse_waiting_bytes(&mut stream).await?;
    stream.write_all(b"N").await?;
    stream.flush().await?;
    Ok(stream)
}

/// A client waits for the answer to its request, so bytes that are already here are not its own.
async fn refuse_waiting_bytes(stream: &mut Stream) -> Result<(), StartupError> {
    if !stream.has_waiting_bytes() {
        return Ok(());
    }
    let fault = Fault::fatal(
        SqlState::PROTOCOL_VIOLATION,
        "received unencrypted data after encryption request",
    )
    .detail("Either the client is faulty, or someone stands between and tries to inject data.")
    .hint("Check the client's driver and the network between.");
    tell(stream, &fault).await;
    Err(StartupError::Refused(Box::new(fault)))
}

async fn send_away(mut stream: Stream, fault: Fault) -> StartupError {
    tell(&mut stream, &fault).await;
    StartupError::Refused(Box::new(fault))
}

/// Sends a refusal; the deadline of `accept` bounds it.
async fn tell(stream: &mut Stream, fault: &Fault) {
    let mut bytes = Vec::new();
    backend::fault(&mut bytes, fault);
    // Whether the client still listens is its own affair.
    drop(stream.write_all(&bytes).await);
    drop(stream.flush().await);
    drop(stream.shutdown().await);
}

/// One packet; the outer error is that of the connection.
async fn read_packet(stream: &mut Stream) -> io::Result<Result<Packet, PacketError>> {
    let mut word = [0; 4];
    stream.read_exact(&mut word).await?;
    let length = match body_length(word) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(decode(&body))
}

fn repeated(code: u16) -> PacketError {
    Fault::fatal(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("unsupported frontend protocol 1234.{code}: server supports 3.0 to 3.2"),
    )
    .detail("The client asked for encryption a second time.")
    .hint("Use a client that speaks version 3 of the PostgreSQL protocol.")
    .into()
}
