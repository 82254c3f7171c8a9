//! An answer as it goes to a client, gathered for others. Sans-IO.
//!
//! Kept are RowDescription or NoData, the rows and CommandComplete. What acknowledges Parse and Bind, and
//! ReadyForQuery, are each client's own. An answer with anything else in it, as a notice or an error, is kept
//! for nobody.

use crate::wire::frame::{self, Split};

/// How far the recording of an answer has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// More of it is to come.
    More,
    /// It is whole: these are its messages.
    Whole(Box<[u8]>),
    /// It is not to be kept: too large, failed, or with something in it that is this client's alone.
    Void,
}

/// The messages of one answer, as they pass.
#[derive(Debug)]
pub struct Recorder {
    /// Messages that are not whole yet.
    rest: Vec<u8>,
    kept: Vec<u8>,
    is_complete: bool,
    limit: usize,
}

impl Recorder {
    /// For an answer of at most `limit` bytes.
    pub fn new(limit: usize) -> Recorder {
        Recorder {
            rest: Vec::new(),
            kept: Vec::new(),
            is_complete: false,
            limit,
        }
    }

    /// Takes what goes to the client.
    pub fn take(&mut self, data: &[u8]) -> Progress {
        if self
            .rest
            .len()
            .saturating_add(data.len())
            .saturating_add(self.kept.len())
            > self.limit.saturating_add(SLACK)
        {
            return Progress::Void;
        }
        self.rest.extend_from_slice(data);
        let bytes = std::mem::take(&mut self.rest);
        let mut rest = bytes.as_slice();
        loop {
            match frame::split(rest, u32::MAX) {
                Ok(Split::Whole(message, behind)) => {
                    match message.tag {
                        // ParseComplete, BindComplete.
                        b'1' | b'2' => (),
                        b'T' | b'n' | b'D' if !self.is_complete => {
                            self.kept.extend_from_slice(message.bytes);
                        }
                        b'C' if !self.is_complete => {
                            self.kept.extend_from_slice(message.bytes);
                            self.is_complete = true;
                        }
                        b'Z' if self.is_complete && message.body == b"I" => {
                            return if self.kept.len() > self.limit {
                                Progress::Void
                            } else {
                                Progress::Whole(std::mem::take(&mut self.kept).into())
                            };
                        }
                        _ => return Progress::Void,
                    }
                    rest = behind;
                }
                Ok(Split::Part { .. } | Split::Nothing) => break,
                Err(_) => return Progress::Void,
            }
        }
        self.rest = rest.to_vec();
        Progress::More
    }
}

/// Whether two answers have the same rows, in whichever order.
pub fn are_alike(one: &[u8], other: &[u8]) -> bool {
    one == other || sorted(one).is_some_and(|one| Some(one) == sorted(other))
}

fn sorted(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let Ok(Split::Whole(message, behind)) = frame::split(rest, u32::MAX) else {
            return None;
        };
        messages.push(message.bytes);
        rest = behind;
    }
    messages.sort_unstable();
    Some(messages)
}

/// Bytes of messages that are not kept.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use super::{Progress, Recorder, are_alike};

    #[test]
    fn the_order_of_rows_is_not_compared() {
        let one = b"D\0\0\0\x05aD\0\0\0\x05bC\0\0\0\x0dSELECT 2\0";
        let other = b"D\0\0\0\x05bD\0\0\0\x05aC\0\0\0\x0dSELECT 2\0";
        let third = b"D\0\0\0\x05bD\0\0\0\x05bC\0\0\0\x0dSELECT 2\0";
        assert!(are_alike(one, other) && are_alike(one, one));
        assert!(!are_alike(one, third) && !are_alike(other, third));
    }

    const ANSWER: &[u8] =
        b"1\0\0\0\x042\0\0\0\x04T\0\0\0\x06\0\0D\0\0\0\x06\0\0C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I";

    #[test]
    fn an_answer_is_kept_without_what_is_a_clients_own() {
        for cut in 0..ANSWER.len() {
            let (one, other) = ANSWER.split_at(cut);
            let mut recorder = Recorder::new(100);
            assert_eq!(recorder.take(one), Progress::More);
            let expected: &[u8] = b"T\0\0\0\x06\0\0D\0\0\0\x06\0\0C\0\0\0\x0dSELECT 1\0";
            assert_eq!(
                recorder.take(other),
                Progress::Whole(expected.into()),
                "{cut}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_answer_is_not_kept() {
        let failed = b"E\0\0\0\x05\0Z\0\0\0\x05I";
        assert_eq!(Recorder::new(100).take(failed), Progress::Void);
        let in_block = [&ANSWER[..ANSWER.len() - 1], b"T"].concat();
        assert_eq!(Recorder::new(100).take(&in_block), Progress::Void);
        assert_eq!(Recorder::new(10).take(ANSWER), Progress::Void);
        assert_eq!(Recorder::new(100).take(b"D\0\0\0\x01"), Progress::Void);
        assert_eq!(Recorder::new(100).take(b"Z\0\0\0\x05I"), Progress::Void);
    }
}
