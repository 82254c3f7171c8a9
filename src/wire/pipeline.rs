//! The replies that one server connection still owes, in order.
//!
//! Every request sent to a server is noted here; every message that comes back is held against the
//! first of them. What does not fit means that the connection cannot be trusted any more. Replies
//! that we give ourselves (a Parse answered from memory) stand in the same line, so that the client
//! gets all replies in the order of its requests.
//!
//! *Invariant:* a connection whose pipeline is empty has answered everything it was sent.
//! See <https://www.postgresql.org/docs/current/protocol-flow.html>.

use std::collections::VecDeque;

use crate::wire::backend::{self, Status};

/// What was sent and is still to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Query,
    FunctionCall,
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Sync,
}

/// One entry of the line.
#[derive(Debug)]
pub enum Owed<N> {
    /// The server owes it. `hidden`: the request was ours, its reply is not for the client.
    Server {
        request: Request,
        hidden: bool,
        note: N,
    },
    /// Ours, for the client when its turn comes.
    Local(Own),
}

/// A reply of our own.
#[derive(Debug, PartialEq, Eq)]
pub enum Own {
    /// To a Parse that no server was asked for.
    ParseComplete,
    /// CommandComplete of SQL PREPARE, behind a Parse that we added for it.
    Prepared,
    ReadyForQuery(Status),
    /// Whole messages of other kinds.
    Messages(Vec<u8>),
}

impl Own {
    /// Writes it as the client gets it.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Own::ParseComplete => backend::parse_complete(out),
            Own::Prepared => backend::command_complete(out, "PREPARE"),
            Own::ReadyForQuery(status) => backend::ready_for_query(out, *status),
            Own::Messages(bytes) => out.extend_from_slice(bytes),
        }
    }
}

/// What to do with a message that came from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Pass it to the client.
    pub forward: bool,
    /// The first entry is answered by it: take it with [`Pipeline::pop`].
    pub ends: bool,
    /// It is an error: take what it makes void with [`Pipeline::fail`].
    pub fails: bool,
}

/// A message that answers nothing that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message '{}' answers nothing that was asked", char::from(self.tag))]
pub struct OutOfSync {
    pub tag: u8,
}

/// The line of replies owed.
#[derive(Debug)]
pub struct Pipeline<N> {
    owed: VecDeque<Owed<N>>,
    /// An error came and its Sync has not been sent: the server skips everything until then.
    skipping: bool,
}

impl<N> Default for Pipeline<N> {
    fn default() -> Pipeline<N> {
        Pipeline {
            owed: VecDeque::new(),
            skipping: false,
        }
    }
}

impl<N> Pipeline<N> {
    /// Notes a request that is being sent. After an error, until Sync, the server skips requests:
    /// then nothing is noted and the note comes back.
    pub fn sent(&mut self, request: Request, hidden: bool, note: N) -> Option<N> {
        if self.skipping {
            if request != Request::Sync {
                return Some(note);
            }
            self.skipping = false;
        }
        self.owed.push_back(Owed::Server {
            request,
            hidden,
            note,
        });
        None
    }

    /// Puts a reply of our own in line. Nothing while the server skips.
    pub fn local(&mut self, reply: Own) {
        if !self.skipping {
            self.owed.push_back(Owed::Local(reply));
        }
    }

    /// Takes our own reply if it is its turn.
    pub fn pop_local(&mut self) -> Option<Own> {
        match self.owed.front() {
            Some(Owed::Local(_)) => match self.owed.pop_front() {
                Some(Owed::Local(reply)) => Some(reply),
                Some(Owed::Server { .. }) | None => None,
            },
            Some(Owed::Server { .. }) | None => None,
        }
    }

    /// The request the server is to answer next.
    pub fn front(&self) -> Option<(Request, bool, &N)> {
        match self.owed.front() {
            Some(Owed::Server {
                request,
                hidden,
                note,
            }) => Some((*request, *hidden, note)),
            Some(Owed::Local(_)) | None => None,
        }
    }

    /// The note of the request the server is to answer next.
    pub fn front_note(&mut self) -> Option<&mut N> {
        match self.owed.front_mut() {
            Some(Owed::Server { note, .. }) => Some(note),
            Some(Owed::Local(_)) | None => None,
        }
    }

    /// Takes the first entry once it is answered.
    pub fn pop(&mut self) -> Option<(Request, N)> {
        match self.owed.front() {
            Some(Owed::Server { .. }) => match self.owed.pop_front() {
                Some(Owed::Server { request, note, .. }) => Some((request, note)),
                Some(Owed::Local(_)) | None => None,
            },
            Some(Owed::Local(_)) | None => None,
        }
    }

    /// Holds a message of the server against the first entry.
    pub fn received(&self, tag: u8) -> Result<Step, OutOfSync> {
        let step = |forward, ends| {
            Ok(Step {
                forward,
                ends,
                fails: false,
            })
        };
        let Some((request, hidden, _)) = self.front() else {
            // Nothing owed: only what may come at any time.
            return match tag {
                b'N' | b'A' | b'S' => step(true, false),
                _ => Err(OutOfSync { tag }),
            };
        };
        let shown = !hidden;
        match (tag, request) {
            (b'S' | b'A', _) => step(true, false),
            (b'N', _) => step(shown, false),
            (b'E', _) => Ok(Step {
                forward: shown,
                ends: false,
                fails: true,
            }),
            (b'Z', Request::Query | Request::FunctionCall | Request::Sync)
            | (b'1', Request::Parse)
            | (b'2', Request::Bind)
            | (b'3', Request::Close)
            | (b'T' | b'n', Request::DescribeStatement | Request::DescribePortal)
            | (b'C' | b'I' | b's', Request::Execute) => step(shown, true),
            (b't', Request::DescribeStatement)
            | (b'V', Request::FunctionCall)
            | (b'D' | b'G' | b'H' | b'W' | b'd' | b'c', Request::Execute)
            | (b'T' | b'D' | b'C' | b'I' | b'G' | b'H' | b'W' | b'd' | b'c', Request::Query) => {
                step(shown, false)
            }
            _ => Err(OutOfSync { tag }),
        }
    }

    /// After an error: takes what will not be answered any more, up to the next Sync: our own bytes
    /// included, and a Query too, since the server skips it like the rest. An error in a Query or at a
    /// Sync voids nothing: its ReadyForQuery still comes.
    pub fn fail(&mut self) -> Vec<Owed<N>> {
        let mut void = Vec::new();
        if let Some((Request::Query | Request::FunctionCall, ..)) = self.front() {
            return void;
        }
        loop {
            match self.owed.front() {
                Some(Owed::Server {
                    request: Request::Sync,
                    ..
                }) => return void,
                Some(_) => void.extend(self.owed.pop_front()),
                None => {
                    self.skipping = true;
                    return void;
                }
            }
        }
    }

    /// COPY FROM STDIN has begun under an Execute: the server ignores the Sync that was sent behind
    /// it, so that one owes no answer. Returns whether there was one.
    pub fn forget_sync_behind_front(&mut self) -> bool {
        let is_sync = matches!(
            self.owed.get(1),
            Some(Owed::Server {
                request: Request::Sync,
                ..
            })
        );
        if is_sync {
            self.owed.remove(1);
        }
        is_sync
    }

    /// Whether a request of our own of this kind is still to be answered.
    pub fn holds_hidden(&self, kind: Request) -> bool {
        self.owed.iter().any(
            |owed| matches!(owed, Owed::Server { request, hidden: true, .. } if *request == kind),
        )
    }

    /// The notes of what servers owe, in order.
    pub fn notes(&self) -> impl Iterator<Item = &N> {
        self.owed.iter().filter_map(|owed| match owed {
            Owed::Server { note, .. } => Some(note),
            Owed::Local(_) => None,
        })
    }

    /// Whether everything was answered and no Sync is missing.
    pub fn is_idle(&self) -> bool {
        self.owed.is_empty() && !self.skipping
    }

    /// Whether nothing is owed (a Sync may be missing).
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether an error came whose Sync has not been sent.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Takes everything, in order: the connection is lost.
    pub fn drain(&mut self) -> impl Iterator<Item = Owed<N>> + '_ {
        self.skipping = false;
        self.owed.drain(..)
    }

    /// How many entries stand in line.
    pub fn len(&self) -> usize {
        self.owed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, Pipeline, Request};

    fn line(requests: &[Request]) -> Pipeline<u8> {
        let mut pipeline = Pipeline::default();
        for &request in requests {
            pipeline.sent(request, false, 0);
        }
        pipeline
    }

    fn feed(pipeline: &mut Pipeline<u8>, tags: &[u8]) {
        for &tag in tags {
            let step = pipeline.received(tag).expect("in sync");
            if step.fails {
                pipeline.fail();
            } else if step.ends {
                pipeline.pop().expect("an entry");
            }
        }
    }

    #[test]
    fn simple_query_ends_at_ready() {
        let mut pipeline = line(&[Request::Query]);
        feed(&mut pipeline, b"TDDCSTDC");
        assert!(!pipeline.is_idle());
        feed(&mut pipeline, b"Z");
        assert!(pipeline.is_idle());
    }

    #[test]
    fn error_voids_up_to_sync() {
        let mut pipeline = line(&[
            Request::Parse,
            Request::Bind,
            Request::Execute,
            Request::Sync,
            Request::Parse,
            Request::Sync,
        ]);
        feed(&mut pipeline, b"1EZ");
        assert_eq!(pipeline.len(), 2);
        feed(&mut pipeline, b"1Z");
        assert!(pipeline.is_idle());
    }

    #[test]
    fn error_before_sync_skips_until_it() {
        let mut pipeline = line(&[Request::Parse]);
        feed(&mut pipeline, b"E");
        assert!(pipeline.is_skipping() && !pipeline.is_idle());
        assert_eq!(pipeline.sent(Request::Bind, false, 7), Some(7));
        pipeline.sent(Request::Sync, false, 0);
        feed(&mut pipeline, b"Z");
        assert!(pipeline.is_idle());
    }

    #[test]
    fn query_behind_an_error_is_skipped() {
        let mut pipeline = line(&[Request::Bind, Request::Query, Request::Sync]);
        feed(&mut pipeline, b"EZ");
        assert!(pipeline.is_idle());
        let mut pipeline = line(&[Request::Query, Request::Query]);
        feed(&mut pipeline, b"EZCZ");
        assert!(pipeline.is_idle());
    }

    #[test]
    fn stray_message_is_out_of_sync() {
        assert!(line(&[]).received(b'D').is_err());
        assert!(line(&[Request::Parse]).received(b'2').is_err());
        assert!(line(&[Request::Bind]).received(b'Z').is_err());
    }

    #[test]
    fn own_replies_wait_for_their_turn() {
        let mut pipeline = line(&[Request::Parse]);
        pipeline.local(Own::ParseComplete);
        assert_eq!(pipeline.pop_local(), None);
        feed(&mut pipeline, b"1");
        assert_eq!(pipeline.pop_local(), Some(Own::ParseComplete));
    }
}
