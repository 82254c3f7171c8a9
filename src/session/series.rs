//! A text of several statements that are not all on one shard: one after the other, in one transaction.

use std::ops::Range;
use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::planner::plan::{Access, Effect, Script, Statement};
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, Frame, HEADER, Split};

use super::block::Block;
use super::commit::Ending;
use super::{Session, Stop, Task};

/// A statement that may be no SQL, behind others.
fn unread() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "a statement that is not understood is not supported in a text over several shards",
    )
    .hint("Send the statements one by one.")
}

/// A text under way. Its statements answer without a ReadyForQuery of their own.
#[derive(Debug)]
pub(crate) struct Series {
    text: Vec<u8>,
    script: Rc<Script>,
    /// How many were begun.
    next: usize,
    /// One has failed: the rest is not run.
    pub(crate) failed: bool,
    /// The last of them runs, or has run.
    is_last: bool,
    /// The CommandComplete of the last, if what is implied has to be committed first.
    completion: Vec<u8>,
}

impl Series {
    /// Where a statement stands in the text. The plan of a text of one statement may have been made from another
    /// text, of other constants.
    fn span(&self, statement: &Statement) -> Range<usize> {
        if self.script.statements.len() == 1 {
            0..self.text.len()
        } else {
            statement.span.clone()
        }
    }
}

impl Session {
    /// Begins it; the message is done with.
    pub(crate) fn begin_series(&mut self, text: &[u8], script: &Rc<Script>) -> Result<(), Stop> {
        self.wait_for_replies()?;
        if self.block.is_none() && self.transaction_is_open() {
            return Err(Stop::Imply);
        }
        for statement in &script.statements {
            if let Access::Refuse(fault) = &statement.access {
                return Err(Stop::Fault(Fault::clone(fault)));
            }
            // PostgreSQL reads all of a text before it runs the first of it.
            if statement.verb.is_empty() {
                return Err(Stop::Fault(unread()));
            }
        }
        self.unnamed = None;
        self.series = Some(Box::new(Series {
            text: text.to_vec(),
            script: Rc::clone(script),
            next: 0,
            failed: false,
            is_last: false,
            completion: Vec::new(),
        }));
        Ok(())
    }

    /// Runs its next statement, or ends it.
    ///
    /// # Errors
    /// What has to happen first.
    pub(crate) fn continue_series(&mut self) -> Result<(), Stop> {
        self.wait_for_replies()?;
        let failed_block = self.block.is_some() && self.status() == Status::Failed;
        let Some(series) = &mut self.series else {
            return Ok(());
        };
        let is_over = series.failed || series.next >= series.script.statements.len();
        if is_over {
            return self.end_series();
        }
        let Some(statement) = series.script.statements.get(series.next) else {
            return self.end_series();
        };
        let needs_block = if let Effect::Savepoint(_) = statement.effect {
            Some("SAVEPOINT")
        } else if let Effect::Release(_) = statement.effect {
            Some("RELEASE SAVEPOINT")
        } else if let Effect::RollbackTo(_) = statement.effect {
            Some("ROLLBACK TO SAVEPOINT")
        } else {
            None
        };
        let own = series.text.get(series.span(statement)).unwrap_or_default();
        series.is_last = series.next.saturating_add(1) == series.script.statements.len();
        let mut message = Vec::with_capacity(own.len().saturating_add(8));
        frame::write(&mut message, b'Q', &[own, b"\0"]);
        if self.block.is_none() {
            self.block = Some(Box::new(Block::implied(&self.settings)));
        }
        if let Some(verb) = needs_block.filter(|_| !failed_block)
            && self.is_implied()
        {
            let fault = Fault::error(
                SqlState::NO_ACTIVE_TRANSACTION,
                format!("{verb} can only be used in transaction blocks"),
            );
            self.reply_fault(&fault);
            self.fail_series();
            return Ok(());
        }
        let frame = Frame {
            tag: b'Q',
            body: message.get(HEADER..).unwrap_or_default(),
            bytes: &message,
        };
        let result = self.on_query(frame);
        // What waits for something is looked at again; a task has been taken.
        if matches!(result, Ok(()) | Err(Stop::Task(_)))
            && let Some(series) = &mut self.series
        {
            series.next = series.next.saturating_add(1);
        }
        result
    }

    /// Withholds the CommandComplete at the end of what was written from here on, where it is that of a text's
    /// last statement and the text is a transaction of its own: the commit may still fail.
    pub(crate) fn withhold_completion(&mut self, from: usize) {
        if !self.withholds_completion() {
            return;
        }
        let Some(series) = &mut self.series else {
            return;
        };
        let mut at = from;
        while let Ok(Split::Whole(frame, rest)) =
            frame::split(self.out.get(at..).unwrap_or_default(), u32::MAX)
        {
            if frame.tag == b'C' && rest.is_empty() {
                series.completion = self.out.split_off(at);
                return;
            }
            at = self.out.len().saturating_sub(rest.len());
        }
    }

    /// Whether the next CommandComplete is that of a text's last statement, and the text a transaction of its own.
    pub(crate) fn withholds_completion(&self) -> bool {
        self.series.as_ref().is_some_and(|series| series.is_last) && self.is_implied()
    }

    /// The statement that runs has failed: those behind it do not run.
    pub(crate) fn fail_series(&mut self) {
        if let Some(series) = &mut self.series {
            series.failed = true;
        }
    }

    /// What was implied is committed or rolled back, and the client is told that all is done.
    fn end_series(&mut self) -> Result<(), Stop> {
        if self.is_implied() {
            if self
                .connection()
                .is_some_and(|connection| connection.unsynced)
            {
                return Err(Stop::EndGroup);
            }
            let series = self.series.take();
            let completion = series.map(|series| series.completion).unwrap_or_default();
            return Err(Stop::Task(Box::new(Task::End(Ending {
                completion,
                ..Ending::implied()
            }))));
        }
        self.series = None;
        self.reply_ready();
        Ok(())
    }

    /// BEGIN: what was implied so far goes on as a block of the client's.
    pub(crate) fn begin_said(&mut self, text: &[u8]) -> Result<(), Stop> {
        match &mut self.block {
            Some(block) if block.implicit && block.sent => {
                let words = String::from_utf8_lossy(text).to_ascii_lowercase();
                let plain = ["begin", "work", "start", "transaction"];
                let is_plain = words
                    .split(|letter: char| !letter.is_alphanumeric())
                    .all(|word| word.is_empty() || plain.contains(&word));
                if !is_plain {
                    return Err(Stop::Fault(
                        Fault::error(
                            SqlState::FEATURE_NOT_SUPPORTED,
                            "BEGIN with modes behind statements on several shards in one text is not supported",
                        )
                        .hint("Send BEGIN first, or in a query of its own."),
                    ));
                }
                block.implicit = false;
            }
            Some(block) if block.implicit => {
                block.implicit = false;
                block.begin = text.to_vec();
            }
            Some(_) | None => {
                self.block = Some(Box::new(Block::new(text, &self.settings)));
            }
        }
        Ok(())
    }

    /// An error of a statement of a series, its position in the whole text.
    pub(crate) fn error_in_series(&self, error: &[u8]) -> Option<Vec<u8>> {
        let series = self.series.as_ref()?;
        let at = series.next.checked_sub(1)?;
        let start = series.span(series.script.statements.get(at)?).start;
        let before = String::from_utf8_lossy(series.text.get(..start)?)
            .chars()
            .count();
        let body = error.get(HEADER..)?;
        let position = backend::error_fields(body).field(b'P')?;
        let position: usize = std::str::from_utf8(position).ok()?.parse().ok()?;
        Some(backend::error_at(
            body,
            Some(position.saturating_add(before)),
        ))
    }
}
