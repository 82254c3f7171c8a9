//! The splitter of COPY data: any chopping gives the same rows, and the rows are the data.

use pgherd::error::Fault;
use pgherd::wire::copy::{Format, Piece, Splitter};

use super::chop;

/// Three bytes say what the format is, how long a row may be and how to chop; the others are data.
pub fn run(data: &[u8]) {
    let Some(([options, length, seed], data)) = data.split_first_chunk::<3>() else {
        return;
    };
    let row_max = if *length == 0 {
        1 << 20
    } else {
        usize::from(*length)
    };
    let key: &[usize] = match options >> 5 & 3 {
        0 => &[0],
        1 => &[1, 0],
        2 => &[2],
        _ => &[],
    };
    let whole = Split::of(format(*options), key, row_max, [data]);
    let chopped = Split::of(format(*options), key, row_max, chop(data, *seed));
    assert_eq!(whole.failed, chopped.failed);
    if whole.failed {
        // A long row may have been begun before it failed.
        let both = whole
            .pieces
            .len()
            .min(chopped.pieces.len())
            .saturating_sub(1);
        assert_eq!(whole.pieces[..both], chopped.pieces[..both]);
    } else {
        assert_eq!(whole.pieces, chopped.pieces);
    }
    assert!(data.starts_with(&whole.bytes));
    if !whole.failed && !whole.ended {
        assert_eq!(whole.bytes, data);
    }
}

fn format(options: u8) -> Format {
    let header = options & 4 != 0;
    let null = if options & 8 == 0 {
        b"\\N".to_vec()
    } else {
        Vec::new()
    };
    match options & 3 {
        0 => Format::Text {
            delimiter: if options & 16 == 0 { b'\t' } else { b'|' },
            null,
            header,
        },
        1 => Format::Csv {
            delimiter: b',',
            quote: b'"',
            escape: b'"',
            null,
            header,
        },
        2 => Format::Csv {
            delimiter: if options & 16 == 0 { b',' } else { b';' },
            quote: b'\'',
            escape: b'\\',
            null,
            header,
        },
        _ => Format::Binary,
    }
}

/// What a splitter made of the data.
#[derive(Default)]
struct Split {
    bytes: Vec<u8>,
    /// The kind of each piece, its bytes and the fields of its key.
    pieces: Vec<(char, Vec<u8>, Vec<Option<Vec<u8>>>)>,
    failed: bool,
    ended: bool,
}

impl Split {
    fn of<'a>(
        format: Format,
        key: &[usize],
        row_max: usize,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Split {
        let mut split = Split::default();
        let mut splitter = Splitter::new(format, key, row_max);
        let mut result = Ok::<(), Fault>(());
        for chunk in chunks {
            result = result.and_then(|()| splitter.feed(chunk, |piece| split.take(piece)));
        }
        result = result.and_then(|()| splitter.finish(|piece| split.take(piece)));
        if let Err(fault) = result {
            assert!(fault.hint.is_some());
            split.failed = true;
        }
        split
    }

    fn take(&mut self, piece: Piece<'_>) -> Result<(), Fault> {
        assert!(!self.ended);
        if let Piece::Rest(bytes) = piece {
            self.bytes.extend_from_slice(bytes);
            let (kind, row, _) = self.pieces.last_mut().expect("a row was begun");
            assert_eq!(*kind, 'r');
            row.extend_from_slice(bytes);
            return Ok(());
        }
        let (kind, bytes, fields) = match piece {
            Piece::Header(bytes) => ('h', bytes, Vec::new()),
            Piece::Row { bytes, fields } => (
                'r',
                bytes,
                fields
                    .iter()
                    .map(|field| field.map(<[u8]>::to_vec))
                    .collect(),
            ),
            Piece::Rest(_) => unreachable!("taken above"),
            Piece::Trailer(bytes) => {
                self.ended = true;
                ('t', bytes, Vec::new())
            }
        };
        self.bytes.extend_from_slice(bytes);
        self.pieces.push((kind, bytes.to_vec(), fields));
        Ok(())
    }
}
