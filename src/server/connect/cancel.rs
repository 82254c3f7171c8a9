//! Cancels what runs on a server connection, by a connection of its own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout_at;

use super::socket::{Address, Failure, encrypt, open, unreachable};
use crate::config::ServerTlsMode;
use crate::error::{Fault, SqlState};
use crate::tls::ServerConnector;

const CANCEL_REQUEST: [u8; 4] = [0x04, 0xd2, 0x16, 0x2e];

/// What it takes to cancel what runs on one server connection.
#[derive(Clone, Debug)]
pub struct CancelToken {
    /// The process that serves the connection, as in `pg_stat_activity.pid`; 0 if it did not say.
    pub pid: u32,
    pub(super) secret: Vec<u8>,
    pub(super) address: Address,
    /// Of the host, for its certificate; `None` when the connection was without TLS.
    pub(super) tls: Option<(ServerTlsMode, String)>,
}

/// Cancels what runs on a server connection, on a connection of its own, and waits until the server has
/// taken the request. Whether anything was cancelled shows only on the first connection.
///
/// `timeout` bounds all of it; zero is no limit.
///
/// # Cancel safety
/// Safe: a drop may leave the request unsent.
pub async fn cancel(
    token: &CancelToken,
    tls: &ServerConnector,
    timeout: Duration,
) -> Result<(), Fault> {
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
    match timeout_at(super::deadline(timeout), Box::pin(send)).await {
        Ok(done) => done,
        Err(_elapsed) => Err(Fault::error(
            SqlState::CONNECTION_FAILURE,
            "server did not take a cancel request in time",
        )
        .hint("The statement may still be running on the server.")),
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
