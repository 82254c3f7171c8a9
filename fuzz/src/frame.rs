//! Framing and the decoders of messages, on any bytes cut anywhere.

use pgherd::wire::backend;
use pgherd::wire::frame::{FrameError, HEADER, Piece, Reader, Split, split};
use pgherd::wire::frontend;

use super::chop;

/// The limit of a message's length here: above what is held, so that long messages pass in pieces.
const MAX: u32 = 100_000;

/// The first byte says how to chop; the others are a stream of messages.
pub fn run(data: &[u8]) {
    let Some((seed, stream)) = data.split_first() else {
        return;
    };
    let whole = Seen::of([stream]);
    let chopped = Seen::of(chop(stream, *seed));
    assert_eq!(whole.error, chopped.error);
    if whole.waits {
        // A header that came just now may be handed on already or with the next byte.
        let (short, long) = if whole.bytes.len() < chopped.bytes.len() {
            (&whole.bytes, &chopped.bytes)
        } else {
            (&chopped.bytes, &whole.bytes)
        };
        assert!(long.starts_with(short) && long.len() <= short.len() + HEADER);
    } else {
        assert_eq!(whole.bytes, chopped.bytes);
        assert_eq!(whole.tags, chopped.tags);
    }
    assert!(stream.starts_with(&whole.bytes));
    decode_all(stream);
}

/// What a reader made of a stream.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    tags: Vec<u8>,
    error: Option<FrameError>,
    waits: bool,
}

impl Seen {
    fn of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Seen {
        let mut seen = Seen::default();
        let mut reader = Reader::default();
        for chunk in chunks {
            let passes = |tag| matches!(tag, b'D' | b'd');
            let fed = reader.feed(chunk, MAX, passes, |piece| {
                seen.take(piece);
                Ok::<(), FrameError>(())
            });
            if let Err(error) = fed {
                seen.error = Some(error);
                return seen;
            }
        }
        seen.waits = !reader.is_between_messages();
        seen
    }

    fn take(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Whole(frame) => {
                assert_eq!(frame.bytes.len(), frame.body.len() + HEADER);
                self.tags.push(frame.tag);
                self.bytes.extend_from_slice(frame.bytes);
            }
            Piece::Start { tag, bytes } => {
                self.tags.push(tag);
                self.bytes.extend_from_slice(bytes);
            }
            Piece::More { bytes, .. } => self.bytes.extend_from_slice(bytes),
        }
    }
}

/// Decodes every whole message as everything it could be.
fn decode_all(mut stream: &[u8]) {
    while let Ok(Split::Whole(frame, rest)) = split(stream, MAX) {
        stream = rest;
        let body = frame.body;
        if let Ok(bind) = frontend::bind(body) {
            assert_eq!(bind.values().count(), bind.len());
            assert!(bind.value(bind.len()).is_none());
            let formats = bind.result_formats();
            assert!(!formats.is_text() || !formats.is_binary(0));
            assert!(body.ends_with(bind.after_names));
        }
        if let Ok(parse) = frontend::parse(body) {
            assert_eq!(parse.types().len() * 4, parse.types_bytes().len());
            assert!(body.ends_with(parse.after_name));
        }
        if let Ok(text) = frontend::query(body) {
            assert_eq!(text.len() + 1, body.len());
        }
        if let (Ok(one), Ok(other)) = (frontend::describe(body), frontend::close(body)) {
            assert_eq!(one, other);
        }
        let _ = (
            frontend::execute(body),
            frontend::password(body),
            frontend::sasl_initial_response(body),
        );
        let fields = backend::error_fields(body);
        let length: usize = fields.iter().map(|(_, value)| value.len() + 2).sum();
        assert!(length <= body.len());
        let _ = (fields.code(), fields.message(), fields.severity());
    }
}
