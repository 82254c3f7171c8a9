//! The client's side of a wide statement: the rest of its group, and the data of its COPY.

use std::future::poll_fn;
use std::task::{Context, Poll};

use crate::error::{Fault, SqlState};
use crate::planner::plan::Route;
use crate::server::connection::poll_flush;
use crate::session::Session;
use crate::session::run::{End, Interrupted, canceled_fault};
use crate::wire::backend;
use crate::wire::frame::{self, Split};
use crate::wire::frontend::{self, Target};

use super::{Trouble, Wide, carry_out, report};

/// What the client sends while it copies.
#[derive(Debug)]
pub(super) enum Copied {
    Data(Vec<u8>),
    Done,
    /// CopyFail, with its message.
    Fail(String),
}

/// Answers the group that a Bind of a wide statement belongs to, up to its Sync.
///
/// The statement is a transaction of its own, so another one in the same group is refused.
pub(super) async fn run_group(session: &mut Session, wide: &Wide) -> Result<(), End> {
    session.answer_parses();
    session.reply(backend::bind_complete);
    let mut describe = false;
    let mut executed = false;
    let mut failed = false;
    loop {
        let (tag, body) = next_message(session).await?;
        let outcome = match tag {
            b'S' => {
                session.reply_ready();
                return Ok(());
            }
            b'X' => return Err(End::Client),
            b'H' | b'd' | b'c' | b'f' => Ok(true),
            _ if failed => Ok(true),
            b'D' if !executed => match frontend::describe(&body) {
                Ok(Target::Portal(_)) => {
                    describe = true;
                    Ok(true)
                }
                Ok(Target::Statement(_)) | Err(_) => {
                    report(session, Err(Trouble::Fault(one_at_a_time())))
                }
            },
            b'E' if !executed => {
                executed = true;
                let result = match frontend::execute(&body) {
                    Ok(execute) if execute.max_rows == 0 => Ok(()),
                    Ok(_)
                        if matches!(wide.route, Route::CopySplit(_) | Route::Broadcast { .. }) =>
                    {
                        Ok(())
                    }
                    Ok(_) => Err(Trouble::Fault(row_limit())),
                    Err(malformed) => Err(Trouble::Fault(malformed.into())),
                };
                let result = match result {
                    Ok(()) => {
                        // DDL and COPY have no rows to describe.
                        if describe && matches!(wide.route, Route::CopySplit(_)) {
                            session.reply(backend::no_data);
                        }
                        carry_out(session, wide, describe).await
                    }
                    Err(trouble) => Err(trouble),
                };
                report(session, result)
            }
            b'C' => {
                session.reply(backend::close_complete);
                Ok(true)
            }
            _ => report(session, Err(Trouble::Fault(one_at_a_time()))),
        };
        failed |= !outcome?;
    }
}

fn one_at_a_time() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a statement over several shards must be followed by Sync",
    )
    .detail("It is a transaction of its own; other statements before the Sync would belong to it.")
    .hint("Send it outside the pipeline, or sync after it.")
}

fn row_limit() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a row limit on a statement over several shards is not supported yet",
    )
    .hint("Fetch all rows, or add the key to the statement so that one shard answers it.")
}

/// The client's next whole message.
async fn next_message(session: &mut Session) -> Result<(u8, Vec<u8>), End> {
    loop {
        let max = session.message_max();
        match frame::split(&session.input, max) {
            Ok(Split::Whole(frame, rest)) => {
                let message = (frame.tag, frame.body.to_vec());
                let used = session.input.len().saturating_sub(rest.len());
                session.input.drain(..used);
                return Ok(message);
            }
            Ok(Split::Part { .. } | Split::Nothing) => {}
            Err(error) => {
                return Err(End::Fault(Box::new(Fault::fatal(
                    SqlState::PROTOCOL_VIOLATION,
                    error.to_string(),
                ))));
            }
        }
        session.flush_all().await?;
        session.read_more().await?;
    }
}

impl Session {
    /// Sends everything to the client.
    ///
    /// # Cancel safety
    /// Safe: what was not sent stays.
    pub(crate) async fn flush_all(&mut self) -> Result<(), End> {
        poll_fn(|cx| poll_flush(&mut self.stream, &mut self.out, cx))
            .await
            .map_err(|_gone| End::Client)
    }

    /// Waits for more bytes of the client, or for a reason to end.
    ///
    /// # Cancel safety
    /// Safe: what was read is kept.
    pub(crate) async fn read_more(&mut self) -> Result<(), End> {
        let mut scratch = self.engine.take_scratch();
        let result = poll_fn(|cx| {
            self.client.register(cx.waker());
            if let Some(fault) = self.client.kill.borrow_mut().take() {
                return Poll::Ready(Err(End::Fault(Box::new(fault))));
            }
            crate::session::run::poll_read(&mut self.stream, cx, &mut scratch).map(
                |read| match read {
                    Ok(0) | Err(_) => Err(End::Client),
                    Ok(count) => Ok(count),
                },
            )
        })
        .await;
        if let Ok(count) = &result {
            self.input
                .extend_from_slice(scratch.get(..*count).unwrap_or_default());
        }
        self.engine.give_scratch(scratch);
        result.map(|_count| ())
    }

    /// Whether the client was killed or canceled; its socket is not looked at.
    pub(crate) fn poll_signals(&mut self, cx: &mut Context<'_>) -> Poll<Interrupted> {
        self.client.register(cx.waker());
        if let Some(fault) = self.client.kill.borrow_mut().take() {
            return Poll::Ready(Interrupted::End(End::Fault(Box::new(fault))));
        }
        if self.client.canceled.take() {
            return Poll::Ready(Interrupted::Fault(canceled_fault()));
        }
        Poll::Pending
    }

    /// The next part of the client's COPY data. Long messages come in parts.
    pub(super) async fn next_copy(&mut self) -> Result<Copied, Interrupted> {
        loop {
            if self.client.canceled.take() {
                return Err(Interrupted::Fault(canceled_fault()));
            }
            if let Some(copied) = self.take_copied()? {
                return Ok(copied);
            }
            self.read_more().await.map_err(Interrupted::End)?;
        }
    }

    fn take_copied(&mut self) -> Result<Option<Copied>, Interrupted> {
        if self.copy_left > 0 {
            let count = self.copy_left.min(self.input.len());
            if count == 0 {
                return Ok(None);
            }
            self.copy_left = self.copy_left.saturating_sub(count);
            return Ok(Some(Copied::Data(self.input.drain(..count).collect())));
        }
        let (copied, used) = match frame::split(&self.input, self.message_max()) {
            Ok(Split::Whole(frame, rest)) => {
                let used = self.input.len().saturating_sub(rest.len());
                let copied = match frame.tag {
                    b'd' => Some(Copied::Data(frame.body.to_vec())),
                    b'c' => Some(Copied::Done),
                    b'f' => {
                        let message = frame
                            .body
                            .split(|byte| *byte == 0)
                            .next()
                            .unwrap_or_default();
                        Some(Copied::Fail(String::from_utf8_lossy(message).into_owned()))
                    }
                    // As PostgreSQL does while it reads COPY data.
                    b'H' | b'S' => None,
                    b'X' => return Err(Interrupted::End(End::Client)),
                    tag => {
                        return Err(Interrupted::Fault(Fault::error(
                            SqlState::PROTOCOL_VIOLATION,
                            format!("unexpected message type 0x{tag:02X} during COPY from stdin"),
                        )));
                    }
                };
                (copied, used)
            }
            Ok(Split::Part {
                tag: b'd',
                total,
                body,
            }) if !body.is_empty() => {
                let data = body.to_vec();
                self.copy_left = total
                    .saturating_sub(frame::HEADER)
                    .saturating_sub(data.len());
                let used = self.input.len();
                (Some(Copied::Data(data)), used)
            }
            Ok(Split::Part { .. } | Split::Nothing) => return Ok(None),
            Err(error) => {
                return Err(Interrupted::End(End::Fault(Box::new(Fault::fatal(
                    SqlState::PROTOCOL_VIOLATION,
                    error.to_string(),
                )))));
            }
        };
        self.input.drain(..used);
        match copied {
            Some(copied) => Ok(Some(copied)),
            None => self.take_copied(),
        }
    }
}
