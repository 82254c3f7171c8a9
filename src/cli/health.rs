//! Asks a running proxy whether it serves: one HTTP request over a plain socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::error::{Fault, SqlState};

/// How long the proxy may take to answer, connecting and reading each.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// An answer longer than this is not ours.
const ANSWER_BYTES_MAX: u64 = 4096;

/// GETs `/health` at `address`; an error unless the answer is 200.
pub(super) fn ask(address: &str) -> Result<(), Fault> {
    let failed = |detail: String| {
        Fault::error(
            SqlState::CONNECTION_FAILURE,
            format!("no healthy proxy at {address}"),
        )
        .detail(detail)
        .hint("Start it with `pgherd run`, and set `http` in its config to this address.")
    };
    let status =
        request(address).map_err(|error| failed(format!("The request failed: {error}.")))?;
    if status == "200" {
        Ok(())
    } else {
        Err(failed(format!("It answered with status {status}.")))
    }
}

/// The status code of the answer.
fn request(address: &str) -> std::io::Result<String> {
    let target = reachable(address)?;
    let mut stream = TcpStream::connect_timeout(&target, ANSWER_WITHIN)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).unwrap_or("none");
    Ok(status.to_owned())
}

/// The address to connect to: one that listens everywhere is asked on loopback.
fn reachable(address: &str) -> std::io::Result<SocketAddr> {
    let mut target = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the name has no address"))?;
    if target.ip().is_unspecified() {
        target.set_ip(match target {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(target)
}
