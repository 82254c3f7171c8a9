//! Cuts a stream of bytes into messages, and knows nothing of what they mean.
//!
//! A message is a tag, a length that counts itself but not the tag, and a body. The length comes
//! from a stranger, so it is held against a limit before anything is reserved for it.
//!
//! *Invariant:* input that does not hold a whole message is left as it was.
//! See <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

/// Bytes of a message before its body: the tag and the length.
pub const HEADER: usize = 5;

/// Whether bytes are a message to its end: tag, length, and as many bytes as that says.
pub fn is_whole(bytes: &[u8]) -> bool {
    let length = bytes.get(1..).and_then(|rest| rest.first_chunk::<4>());
    let length = length.and_then(|length| usize::try_from(u32::from_be_bytes(*length)).ok());
    length.is_some_and(|length| length.saturating_add(1) == bytes.len())
}

/// One whole message, borrowed from the buffer it arrived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub tag: u8,
    pub body: &'a [u8],
    /// Tag, length and body, as they arrived.
    pub bytes: &'a [u8],
}

/// What the front of a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A message, and what follows it.
    Whole(Frame<'a>, &'a [u8]),
    /// The header of a message, and the part of its body that has arrived.
    Part {
        tag: u8,
        /// Bytes of the whole message, header included.
        total: usize,
        body: &'a [u8],
    },
    /// Less than a header.
    Nothing,
}

/// Why bytes are no message. What follows them cannot be trusted, so the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("message length {length} is below the minimum of 4")]
    TooShort { length: u32 },
    #[error("message of {length} bytes is above the limit of {max}")]
    TooLong { length: u32, max: u32 },
}

/// Looks at the first message of `input`. `max` limits the length field.
pub fn split(input: &[u8], max: u32) -> Result<Split<'_>, FrameError> {
    let Some(([tag, length @ ..], rest)) = input.split_first_chunk::<HEADER>() else {
        return Ok(Split::Nothing);
    };
    let length = u32::from_be_bytes(*length);
    if max < length {
        return Err(FrameError::TooLong { length, max });
    }
    let body_length = length
        .checked_sub(4)
        .ok_or(FrameError::TooShort { length })?;
    let body_length = usize::try_from(body_length).unwrap_or(usize::MAX);
    let total = body_length.saturating_add(HEADER);
    match (
        rest.split_at_checked(body_length),
        input.split_at_checked(total),
    ) {
        (Some((body, after)), Some((bytes, _))) => Ok(Split::Whole(
            Frame {
                tag: *tag,
                body,
                bytes,
            },
            after,
        )),
        _ => Ok(Split::Part {
            tag: *tag,
            total,
            body: rest,
        }),
    }
}

/// The tag of the first message, and how many bytes it has in all.
fn first(input: &[u8]) -> Option<(u8, usize)> {
    match split(input, u32::MAX) {
        Ok(Split::Whole(frame, _)) => Some((frame.tag, frame.bytes.len())),
        Ok(Split::Part { tag, total, .. }) => Some((tag, total)),
        Ok(Split::Nothing) | Err(_) => None,
    }
}

/// Appends a message: its tag, its length, and the parts of its body.
///
/// Bodies above 2 GiB cannot be expressed by the protocol; they are cut to an empty message, which
/// no caller can reach since everything we write is limited far below.
pub fn write(out: &mut Vec<u8>, tag: u8, parts: &[&[u8]]) {
    let body: usize = parts
        .iter()
        .fold(0, |sum, part| sum.saturating_add(part.len()));
    let Ok(length) = i32::try_from(body.saturating_add(4)) else {
        return;
    };
    out.reserve(body.saturating_add(HEADER));
    out.push(tag);
    out.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A piece of a server's stream, see [`Reader::feed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole message.
    Whole(Frame<'a>),
    /// The start of a message too long to be held: its header and what has arrived of its body.
    Start { tag: u8, bytes: &'a [u8] },
    /// More of that message; `last` when it is complete.
    More { bytes: &'a [u8], last: bool },
}

impl<'a> Piece<'a> {
    /// The bytes, as they arrived.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Piece::Whole(frame) => frame.bytes,
            Piece::Start { bytes, .. } | Piece::More { bytes, .. } => bytes,
        }
    }
}

/// Messages up to this many bytes are held until they are whole; longer ones pass in pieces.
pub const HELD_MAX: usize = 64 * 1024;

/// Reads messages from chunks cut anywhere. Small messages come whole; long ones pass through in
/// pieces, so that what is held never exceeds [`HELD_MAX`].
#[derive(Debug, Default)]
pub struct Reader {
    held: Vec<u8>,
    /// Bytes still to come of the message that passes in pieces.
    passing: usize,
}

impl Reader {
    /// Hands every piece of `data` to `on`, in order. `passes` says which tags may come in pieces
    /// however short they are (rows); any message above [`HELD_MAX`] does.
    ///
    /// An error of `on` ends the reading; the rest of `data` is lost, so the connection must be closed.
    pub fn feed<E: From<FrameError>>(
        &mut self,
        mut data: &[u8],
        max: u32,
        passes: fn(u8) -> bool,
        mut on: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !data.is_empty() {
            if self.passing > 0 {
                let (bytes, rest) = data.split_at_checked(self.passing).unwrap_or((data, &[]));
                self.passing = self.passing.saturating_sub(bytes.len());
                data = rest;
                on(Piece::More {
                    bytes,
                    last: self.passing == 0,
                })?;
                continue;
            }
            if !self.held.is_empty() {
                data = self.feed_held(data, max, passes, &mut on)?;
                continue;
            }
            match split(data, max)? {
                Split::Whole(frame, rest) => {
                    data = rest;
                    on(Piece::Whole(frame))?;
                }
                Split::Part { tag, total, .. } if passes(tag) || total > HELD_MAX => {
                    self.passing = total.saturating_sub(data.len());
                    on(Piece::Start { tag, bytes: data })?;
                    return Ok(());
                }
                Split::Part { .. } | Split::Nothing => {
                    self.held.extend_from_slice(data);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Completes the held message from the front of `data`; returns what is left of it.
    fn feed_held<'a, E: From<FrameError>>(
        &mut self,
        data: &'a [u8],
        max: u32,
        passes: fn(u8) -> bool,
        on: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<&'a [u8], E> {
        let missing = match split(&self.held, max)? {
            Split::Nothing => HEADER.saturating_sub(self.held.len()),
            Split::Part { tag, total, .. } if passes(tag) || total > HELD_MAX => {
                let held = std::mem::take(&mut self.held);
                self.passing = total.saturating_sub(held.len());
                on(Piece::Start { tag, bytes: &held })?;
                return Ok(data);
            }
            Split::Part { total, .. } => total.saturating_sub(self.held.len()),
            Split::Whole(frame, _) => {
                on(Piece::Whole(frame))?;
                self.held = Vec::new();
                return Ok(data);
            }
        };
        let (bytes, rest) = data.split_at_checked(missing).unwrap_or((data, &[]));
        self.held.extend_from_slice(bytes);
        if let Split::Whole(frame, _) = split(&self.held, max)? {
            on(Piece::Whole(frame))?;
            self.held = Vec::new();
        }
        Ok(rest)
    }

    /// How many bytes of `data` end with the first message of this tag; all of them if none does.
    pub fn until(&self, tag: u8, data: &[u8]) -> usize {
        let mut rest = data.get(self.passing..).unwrap_or_default();
        let mut next = if self.held.is_empty() {
            first(rest)
        } else {
            let front: Vec<u8> = self.held.iter().chain(data).take(HEADER).copied().collect();
            first(&front).map(|(found, total)| (found, total.saturating_sub(self.held.len())))
        };
        while let Some((found, length)) = next {
            rest = rest.get(length..).unwrap_or_default();
            if found == tag {
                return data.len().saturating_sub(rest.len());
            }
            next = first(rest);
        }
        data.len()
    }

    /// The part of a message that is held.
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }

    /// Whether a long message has been passed on in part.
    pub fn is_passing(&self) -> bool {
        self.passing > 0
    }

    /// Whether no message is half read.
    pub fn is_between_messages(&self) -> bool {
        self.passing == 0 && self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameError, Piece, Reader, Split, split, write};

    #[test]
    fn any_chopping_gives_the_same_bytes() {
        let mut stream = Vec::new();
        write(&mut stream, b'D', &[&[7; 300]]);
        write(&mut stream, b'C', &[b"SELECT 1\0"]);
        write(&mut stream, b'd', &[&[]]);
        write(&mut stream, b'Z', &[b"I"]);
        for size in 1..40 {
            let mut reader = Reader::default();
            let mut seen = Vec::new();
            for chunk in stream.chunks(size) {
                let passes = |tag| matches!(tag, b'D' | b'd');
                reader
                    .feed(chunk, 1000, passes, |piece| {
                        seen.extend_from_slice(match piece {
                            Piece::Whole(frame) => frame.bytes,
                            Piece::Start { bytes, .. } | Piece::More { bytes, .. } => bytes,
                        });
                        Ok::<(), FrameError>(())
                    })
                    .expect("valid");
            }
            assert!(reader.is_between_messages());
            assert_eq!(seen, stream, "chunks of {size}");
        }
    }

    #[test]
    fn until_finds_the_end_of_a_message_that_came_in_pieces() {
        let mut stream = Vec::new();
        write(&mut stream, b'D', &[&[b'Z'; 20]]);
        write(&mut stream, b'C', &[b"SELECT 1\0"]);
        write(&mut stream, b'Z', &[b"I"]);
        let end = stream.len();
        write(&mut stream, b'Z', &[b"I"]);
        for passes in [(|tag| tag == b'D') as fn(u8) -> bool, |_| false] {
            for cut in 0..end {
                let (before, after) = stream.split_at(cut);
                let mut reader = Reader::default();
                reader
                    .feed(before, 1000, passes, |_| Ok::<(), FrameError>(()))
                    .expect("valid");
                assert_eq!(reader.until(b'Z', after), end - cut, "cut at {cut}");
                assert_eq!(reader.until(b'E', after), after.len(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn whole_message_is_cut_off() {
        let input = b"Z\0\0\0\x05IQ";
        let Ok(Split::Whole(frame, rest)) = split(input, 100) else {
            panic!("not whole");
        };
        assert_eq!(
            (frame.tag, frame.body, rest),
            (b'Z', b"I".as_slice(), b"Q".as_slice())
        );
        assert_eq!(frame.bytes, &input[..6]);
    }

    #[test]
    fn every_prefix_waits() {
        let mut message = Vec::new();
        write(&mut message, b'Q', &[b"select 1", b"\0"]);
        for cut in 0..message.len() {
            match split(&message[..cut], 100).expect("valid") {
                Split::Nothing => assert!(cut < 5),
                Split::Part { tag, total, body } => {
                    assert_eq!((tag, total, body.len()), (b'Q', message.len(), cut - 5));
                }
                Split::Whole(..) => panic!("whole at {cut}"),
            }
        }
    }

    #[test]
    fn length_is_checked_before_the_body_arrives() {
        assert_eq!(
            split(b"Q\0\0\0\x03", 100),
            Err(FrameError::TooShort { length: 3 })
        );
        assert_eq!(
            split(b"Q\0\0\x01\0", 100),
            Err(FrameError::TooLong {
                length: 256,
                max: 100
            })
        );
    }
}
