//! A connection to a client or a server: TCP or a Unix socket, with or without TLS.
//!
//! A [`Stream`] holds no buffer of its own beyond what TLS needs, so that idle connections are cheap.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// After this much silence the kernel asks whether the other side is still there…
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
/// …again after this long…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// …and gives the connection up after so many questions.
const KEEPALIVE_RETRIES: u32 = 6;

/// One connection. TLS is boxed: it is large, and most connections of a pooler have none.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TLS with a client: we are its server.
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS with a PostgreSQL server: we are its client.
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// Takes a TCP connection: small messages are sent at once, and a dead peer is noticed.
    pub fn tcp(stream: TcpStream) -> io::Result<Stream> {
        stream.set_nodelay(true)?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES);
        socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        Ok(Stream::Tcp(stream))
    }

    /// Takes a Unix socket.
    pub fn unix(stream: UnixStream) -> Stream {
        Stream::Unix(stream)
    }

    /// Whether the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::ServerTls(_) | Stream::ClientTls(_) => true,
        }
    }

    /// Whether it is a Unix socket.
    pub fn is_local(&self) -> bool {
        self.socket().is_none()
    }

    /// The other side's address; `None` for a Unix socket, and for a connection that is already gone.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.socket().and_then(|socket| socket.peer_addr().ok())
    }

    /// The other side as text: `127.0.0.1:52114`, or `unix`.
    pub fn peer(&self) -> String {
        self.peer_address()
            .map_or_else(|| "unix".to_owned(), |address| address.to_string())
    }

    /// The certificate that the other side proved to own in the TLS handshake.
    pub fn peer_certificate(&self) -> Option<&CertificateDer<'static>> {
        let certificates = match self {
            Stream::Tcp(_) | Stream::Unix(_) => None,
            Stream::ServerTls(stream) => stream.get_ref().1.peer_certificates(),
            Stream::ClientTls(stream) => stream.get_ref().1.peer_certificates(),
        };
        certificates.and_then(<[CertificateDer<'static>]>::first)
    }

    /// The TLS version and cipher suite as PgBouncer's SHOW CLIENTS has them:
    /// `TLSv1.3/TLS_AES_256_GCM_SHA384`. `None` without TLS.
    pub fn tls_description(&self) -> Option<String> {
        let (version, suite) = match self {
            Stream::Tcp(_) | Stream::Unix(_) => return None,
            Stream::ServerTls(stream) => {
                let session = stream.get_ref().1;
                (
                    session.protocol_version(),
                    session.negotiated_cipher_suite(),
                )
            }
            Stream::ClientTls(stream) => {
                let session = stream.get_ref().1;
                (
                    session.protocol_version(),
                    session.negotiated_cipher_suite(),
                )
            }
        };
        let version = version?.as_str()?.replace('_', ".");
        let suite = suite?.suite().as_str()?.replace("TLS13_", "TLS_");
        Some(format!("{version}/{suite}"))
    }

    /// Whether bytes from the other side already wait in the kernel, unread. Only tells for sockets without TLS.
    pub fn has_waiting_bytes(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match self {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, || {
                socket2::SockRef::from(stream).peek(&mut byte)
            }),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, || {
                socket2::SockRef::from(stream).peek(&mut byte)
            }),
            Stream::ServerTls(_) | Stream::ClientTls(_) => return false,
        };
        peeked.is_ok_and(|count| count > 0)
    }

    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            Stream::Unix(_) => None,
            Stream::ServerTls(stream) => Some(stream.get_ref().0),
            Stream::ClientTls(stream) => Some(stream.get_ref().0),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::ServerTls(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::ClientTls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::ServerTls(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::ClientTls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::ServerTls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::ClientTls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
            Stream::ServerTls(stream) => Pin::new(stream).poll_flush(context),
            Stream::ClientTls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::ServerTls(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::ClientTls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Reads what has arrived into `buffer`. `Ready(Ok(0))` is the end of the stream.
///
/// # Errors
/// The socket's error.
pub fn poll_read(
    stream: &mut Stream,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    Pin::new(stream)
        .poll_read(context, &mut buffer)
        .map_ok(|()| buffer.filled().len())
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Stream>() <= 48);
    }
}
