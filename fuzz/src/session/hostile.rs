//! Servers that answer wrongly: each answer is changed as the next byte of a list says.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use super::postgres::write;

/// What is done to the answers to come; after the last of the list they are honest.
#[derive(Debug)]
pub(crate) struct Hostility {
    acts: VecDeque<u8>,
}

impl Hostility {
    pub(crate) fn new(acts: &[u8]) -> Hostility {
        Hostility {
            acts: acts.iter().copied().collect(),
        }
    }

    /// Appends what is sent in place of an answer; a break is the end of the connection.
    pub(crate) fn apply(&mut self, mut answer: Vec<u8>, out: &mut Vec<u8>) -> ControlFlow<()> {
        let act = self.acts.pop_front().unwrap_or(b'=');
        match act {
            b'x' => return ControlFlow::Break(()),
            b'/' => {
                out.extend_from_slice(&answer[..answer.len() / 2]);
                return ControlFlow::Break(());
            }
            b'?' => out.extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            b'-' => (),
            b'+' => {
                out.extend_from_slice(&answer);
                out.extend_from_slice(&answer);
            }
            b'0' => out.extend_from_slice(b"Z\0\0\0\0"),
            b'9' => out.extend_from_slice(b"D\x7f\xff\xff\xffxx"),
            b'N' => {
                write(out, b'N', b"Mhm\0\0");
                out.extend_from_slice(&answer);
            }
            // A whole message out of turn, and then the answer.
            b'1' | b'2' | b'3' | b'n' | b't' | b'T' | b's' | b'I' | b'G' | b'H' | b'W' | b'c'
            | b'd' | b'D' | b'C' | b'E' | b'Z' | b'V' | b'A' | b'S' | b'K' | b'R' | b'v' => {
                let body: &[u8] = if act == b'Z' { b"T" } else { b"\0\0\0" };
                write(out, act, body);
                out.extend_from_slice(&answer);
            }
            b'*' => {
                let at = usize::from(self.acts.pop_front().unwrap_or(0));
                if let Some(byte) = answer.get_mut(at) {
                    *byte ^= self.acts.pop_front().unwrap_or(1);
                }
                out.extend_from_slice(&answer);
            }
            _ => out.extend_from_slice(&answer),
        }
        ControlFlow::Continue(())
    }
}
