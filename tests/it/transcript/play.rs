//! Plays a transcript against a server and writes down what it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::script::{Action, Script};
use crate::client::{Client, Lost};
use crate::message::{self, Message};
use crate::random::Random;

/// How long each reply may take.
const REPLY: Duration = Duration::from_secs(30);

/// How the bytes between two reads are cut before they are sent.
#[derive(Clone, Debug)]
pub(crate) enum Chop {
    /// One write.
    Whole,
    /// A write a byte.
    Bytes,
    /// Writes of random length.
    Random(Random),
}

/// The replies of each step, as lines; sends have none.
pub(crate) type Replies = Vec<Vec<String>>;

#[derive(Debug)]
struct Connection {
    client: Client,
    pending: Vec<u8>,
    notifications: Vec<String>,
    open: bool,
}

/// Plays all steps with connections of `app`, then sees that nothing more is coming.
pub(crate) fn play(script: &Script, port: u16, database: &str, mut chop: Chop) -> Replies {
    let mut connections: BTreeMap<String, Connection> = BTreeMap::new();
    let mut current = String::from("one");
    let mut replies = Vec::new();
    for step in &script.steps {
        if let Action::Connection(name) = &step.action {
            current.clone_from(name);
            replies.push(Vec::new());
            continue;
        }
        let connection = connections
            .entry(current.clone())
            .or_insert_with(|| Connection {
                client: Client::connect(port, "app", database),
                pending: Vec::new(),
                notifications: Vec::new(),
                open: true,
            });
        replies.push(match &step.action {
            Action::Send(bytes) => {
                connection.pending.extend(bytes);
                Vec::new()
            }
            Action::Until(name, count) => {
                connection.flush(&mut chop);
                connection.until(name, *count)
            }
            Action::Notified(count) => connection.notified(*count),
            Action::Connection(_) => unreachable!("handled above"),
        });
    }
    replies.push(
        connections
            .into_values()
            .flat_map(|connection| connection.finish(&mut chop))
            .collect(),
    );
    replies
}

impl Connection {
    fn flush(&mut self, chop: &mut Chop) {
        let bytes = std::mem::take(&mut self.pending);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let length = match chop {
                Chop::Whole => rest.len(),
                Chop::Bytes if bytes.len() <= 20_000 => 1,
                Chop::Bytes => 997,
                Chop::Random(random) if bytes.len() <= 20_000 => {
                    1 + random.below(1 + random.clone().below(40))
                }
                Chop::Random(random) => 1 + random.below(30_000),
            };
            let (chunk, after) = rest.split_at(length.min(rest.len()));
            self.client.send(chunk);
            rest = after;
        }
    }

    /// The next message that is no notification: those come when they come.
    fn receive(&mut self) -> Result<Message, Lost> {
        loop {
            let message = self.client.receive(REPLY)?;
            if message.tag != b'A' {
                return Ok(message);
            }
            self.notifications.push(message.line());
        }
    }

    fn until(&mut self, name: &str, count: usize) -> Vec<String> {
        if !self.open {
            return vec!["(closed)".to_owned()];
        }
        let mut lines = Vec::new();
        let mut seen = 0;
        while seen < count {
            match self.receive() {
                Ok(message) => {
                    lines.push(message.line());
                    seen += usize::from(message::name(message.tag) == name);
                }
                Err(Lost::Closed) => {
                    self.open = false;
                    lines.push("(closed)".to_owned());
                    break;
                }
                Err(Lost::TimedOut) => {
                    self.open = false;
                    lines.push("(nothing comes)".to_owned());
                    break;
                }
            }
        }
        lines
    }

    fn notified(&mut self, count: usize) -> Vec<String> {
        while self.notifications.len() < count {
            match self.client.receive(REPLY) {
                Ok(message) if message.tag == b'A' => self.notifications.push(message.line()),
                Ok(message) => return vec![message.line()],
                Err(lost) => return vec![format!("({lost:?} after {:?})", self.notifications)],
            }
        }
        let mut lines = std::mem::take(&mut self.notifications);
        lines.sort();
        lines
    }

    /// A last Sync shows a message too many or too few.
    fn finish(mut self, chop: &mut Chop) -> Vec<String> {
        if !self.open {
            return Vec::new();
        }
        if self.pending.is_empty() {
            self.pending = message::sync();
            self.flush(chop);
            self.until("ReadyForQuery", 1)
        } else {
            self.flush(chop);
            self.until("close", 1)
        }
    }
}
