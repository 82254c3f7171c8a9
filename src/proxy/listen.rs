//! Listening: the sockets clients connect to, and handing each client to an engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::config::Listen;
use crate::error::{Fault, SqlState};
use crate::session::engine::{Message, Shared};

/// Connections that wait to be accepted, as far as the system allows.
const BACKLOG: u32 = 4_096;

/// Sockets to accept clients on.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        path: PathBuf,
    },
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix { path, .. } = self {
            // Another process may have replaced it already.
            drop(std::fs::remove_file(path));
        }
    }
}

/// Opens every address.
///
/// # Errors
/// One for each that cannot be opened.
///
/// # Cancel safety
/// Safe: what was opened is closed.
pub(super) async fn listen(addresses: &[Listen]) -> Result<Vec<Listener>, Vec<Fault>> {
    let mut listeners = Vec::new();
    let mut faults = Vec::new();
    for address in addresses {
        match address {
            Listen::Tcp(address) => match listen_tcp(address).await {
                Ok(more) => listeners.extend(more),
                Err(error) => faults.push(cannot_listen(address, &error)),
            },
            Listen::Unix { folder, port } => {
                let path = folder.join(format!(".s.PGSQL.{port}"));
                match listen_unix(&path) {
                    Ok(listener) => listeners.push(Listener::Unix { listener, path }),
                    Err(error) => faults.push(cannot_listen(&path.display().to_string(), &error)),
                }
            }
        }
    }
    if faults.is_empty() {
        Ok(listeners)
    } else {
        Err(faults)
    }
}

fn cannot_listen(address: &str, error: &std::io::Error) -> Fault {
    Fault::fatal(
        SqlState::CONFIG,
        format!("could not listen on \"{address}\""),
    )
    .detail(format!("{error}."))
    .hint("Change listen in the config, or see whether another process has the address.")
}

async fn listen_tcp(address: &str) -> std::io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        listeners.push(Listener::Tcp(socket.listen(BACKLOG)?));
    }
    Ok(listeners)
}

/// A socket file that nobody serves is a dead proxy's: it is replaced.
fn listen_unix(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

/// Accepts clients and hands each to an engine in turn.
///
/// # Cancel safety
/// Safe but for one client, which is closed.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut next = 0_usize;
    loop {
        let message = match &listener {
            Listener::Tcp(listener) => match listener.accept().await {
                Ok((stream, _)) => stream.into_std().map(Message::Tcp),
                Err(error) => Err(error),
            },
            Listener::Unix { listener, .. } => match listener.accept().await {
                Ok((stream, _)) => stream.into_std().map(Message::Unix),
                Err(error) => Err(error),
            },
        };
        match message {
            Ok(message) => {
                let engines = shared.engines.get().map(Vec::as_slice).unwrap_or_default();
                next = next.wrapping_add(1);
                let chosen = next
                    .checked_rem(engines.len())
                    .and_then(|index| engines.get(index));
                if let Some(engine) = chosen
                    && engine.send(message).await.is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a client");
                // Out of file descriptors, most likely: it passes when clients leave.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
