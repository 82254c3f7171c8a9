//! From the startup packet to ReadyForQuery, with a server that may be anything.

use std::io;

use tokio::io::AsyncReadExt;

use super::socket::{broken, lost, send};
use super::{ConnectError, Target};
use crate::error::Fault;
use crate::net::Stream;
use crate::server::auth::Login;
use crate::wire::backend;

/// Bytes of one message of a server during login, at most.
const MESSAGE_MAX: usize = 64 * 1024;
/// Bytes of all messages of a server during login, at most: many notices are no login.
const LOGIN_MAX: usize = 1024 * 1024;

const VERSION: u32 = 3 << 16;

impl Target<'_> {
    /// Sends the startup packet and answers until ReadyForQuery.
    pub(super) async fn log_in(
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
                    welcome.pid = u32::from_be_bytes(*pid);
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
pub(super) struct Welcome {
    pub(super) parameters: Vec<(String, String)>,
    pub(super) pid: u32,
    pub(super) secret: Vec<u8>,
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
