//! Tests of the COPY splitter: what PostgreSQL reads, and that any chopping reads the same.

use proptest::prelude::{Strategy, any, prop, proptest};
use proptest::prop_assert_eq;

use super::{Format, Piece, Splitter};
use crate::error::Fault;

const ROW_MAX: usize = 1 << 20;

fn text(header: bool) -> Format {
    Format::Text {
        delimiter: b'\t',
        null: b"\\N".to_vec(),
        header,
    }
}

fn csv(escape: u8, header: bool) -> Format {
    Format::Csv {
        delimiter: b',',
        quote: b'"',
        escape,
        null: Vec::new(),
        header,
    }
}

/// A piece that owns its bytes: `H`, `R` or `T`, the bytes, the fields.
type Owned = (char, Vec<u8>, Vec<Option<Vec<u8>>>);

fn split(format: &Format, columns: &[usize], chunks: &[&[u8]]) -> Result<Vec<Owned>, Fault> {
    split_within(ROW_MAX, format, columns, chunks)
}

fn split_within(
    row_max: usize,
    format: &Format,
    columns: &[usize],
    chunks: &[&[u8]],
) -> Result<Vec<Owned>, Fault> {
    let mut pieces: Vec<Owned> = Vec::new();
    let mut splitter = Splitter::new(format.clone(), columns, row_max);
    let mut on = |piece: Piece<'_>| {
        if let Piece::Rest(bytes) = piece {
            let row = pieces.last_mut().filter(|piece| piece.0 == 'R');
            row.expect("a row was begun").1.extend_from_slice(bytes);
            return Ok(());
        }
        pieces.push(match piece {
            Piece::Header(bytes) => ('H', bytes.to_vec(), Vec::new()),
            Piece::Row { bytes, fields } => {
                let fields = fields.iter().map(|field| field.map(<[u8]>::to_vec));
                ('R', bytes.to_vec(), fields.collect())
            }
            Piece::Rest(_) => unreachable!("taken above"),
            Piece::Trailer(bytes) => ('T', bytes.to_vec(), Vec::new()),
        });
        Ok::<(), Fault>(())
    };
    for chunk in chunks {
        splitter.feed(chunk, &mut on)?;
    }
    splitter.finish(&mut on)?;
    Ok(pieces)
}

/// The fields of each row as text (`NULL` for NULL), or the message.
fn check(format: &Format, columns: &[usize], input: &[u8], expect: &[&[&str]]) {
    let pieces = split(format, columns, &[input]).unwrap();
    let rows = pieces.iter().filter(|piece| piece.0 == 'R');
    let shown: Vec<Vec<String>> = rows
        .map(|(_, _, fields)| {
            let show = |field: &Option<Vec<u8>>| match field {
                None => "NULL".into(),
                Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            };
            fields.iter().map(show).collect()
        })
        .collect();
    assert_eq!(shown, expect, "{}", String::from_utf8_lossy(input));
}

fn refuse(format: &Format, columns: &[usize], input: &[u8], message: &str, line: u64) {
    let fault = split(format, columns, &[input]).unwrap_err();
    assert_eq!(fault.message, message);
    let detail = format!("This is in line {line} of the data of COPY.");
    assert_eq!(fault.detail, Some(detail));
}

#[test]
fn text_fields_are_unescaped() {
    check(
        &text(false),
        &[1],
        b"a\tb\tc\nd\t\\N\te\n",
        &[&["b"], &["NULL"]],
    );
    check(&text(false), &[1, 0], b"1\t2\n", &[&["2", "1"]]);
    check(
        &text(false),
        &[0],
        b"\\x41\\101\\t\\\\\\q\\x\\v\n",
        &[&["AA\t\\qx\u{b}"]],
    );
    check(
        &text(false),
        &[0, 1],
        b"a\\\tb\tc\\\nd\n",
        &[&["a\tb", "c\nd"]],
    );
    check(&text(false), &[0], b"\\\\.\n\n", &[&["\\."], &[""]]);
    check(&text(true), &[0], b"id\n7", &[&["7"]]);
    check(&text(false), &[0], b"1\r\n2\r\n", &[&["1"], &["2"]]);
    check(&text(false), &[0], b"1\r2\r", &[&["1"], &["2"]]);
    check(&text(false), &[0], b"1\n\\.\njunk\x00", &[&["1"]]);
    check(&text(false), &[0], b"a\\", &[&["a"]]);
    check(&text(false), &[0], b"a\\\n", &[&["a\n"]]);
    check(&text(false), &[0], b"b\na\\\r\n", &[&["b"], &["a\r"]]);
    check(&text(false), &[], b"a\n", &[&[]]);
}

#[test]
fn text_that_the_server_refuses_is_refused() {
    refuse(
        &text(false),
        &[1],
        b"1\t2\n3\n",
        "missing data for a column of the sharding key",
        2,
    );
    refuse(
        &text(false),
        &[0],
        b"1\n2\r\n",
        "literal carriage return found in data",
        2,
    );
    refuse(
        &text(false),
        &[0],
        b"1\r\n2\n",
        "literal newline found in data",
        2,
    );
    refuse(
        &text(false),
        &[0],
        b"1\n2\\.\n",
        "end-of-copy marker is not alone on its line",
        2,
    );
}

#[test]
fn csv_fields_are_unquoted() {
    let format = csv(b'"', false);
    check(
        &format,
        &[0, 1],
        b"1,\n\"\",\"a\"\n",
        &[&["1", "NULL"], &["", "a"]],
    );
    check(
        &format,
        &[1],
        b"\"x\ny\",\"say \"\"hi\"\"\"\n2,b\n",
        &[&["say \"hi\""], &["b"]],
    );
    check(&format, &[1], b"\"a,b\",c\"d,e\"f\n", &[&["cd,ef"]]);
    check(&format, &[0], b"a\\\n\\.x\n\\.\nz", &[&["a\\"], &["\\.x"]]);
    check(&csv(b'"', true), &[0], b"\"a\nb\"\r\n1\r\n", &[&["1"]]);
    let escaped = csv(b'\\', false);
    check(
        &escaped,
        &[0],
        b"\"a\\\"b\\\\\",1\n\"\\c\",2\n",
        &[&["a\"b\\"], &["\\c"]],
    );
}

#[test]
fn csv_that_the_server_refuses_is_refused() {
    let format = csv(b'"', false);
    refuse(
        &format,
        &[0],
        b"1\n\"2\n",
        "unterminated CSV quoted field",
        3,
    );
    refuse(
        &format,
        &[0],
        b"1\n2\r\n",
        "unquoted carriage return found in data",
        2,
    );
    refuse(
        &format,
        &[3],
        b"1,\"a\nb\",2\n",
        "missing data for a column of the sharding key",
        1,
    );
}

fn tuple(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = u16::try_from(fields.len()).unwrap().to_be_bytes().to_vec();
    for field in fields {
        let length = field.map_or(-1, |field| i32::try_from(field.len()).unwrap());
        row.extend(length.to_be_bytes());
        row.extend(field.unwrap_or_default());
    }
    row
}

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x03ext";

#[test]
fn binary_rows_are_counted() {
    let rows = [tuple(&[Some(b"ab"), None]), tuple(&[None, Some(b"")])].concat();
    let input = [HEADER, &rows, &[0xff, 0xff]].concat();
    check(
        &Format::Binary,
        &[0, 1],
        &input,
        &[&["ab", "NULL"], &["NULL", ""]],
    );
    let pieces = split(&Format::Binary, &[0], &[&input]).unwrap();
    let kinds: String = pieces.iter().map(|piece| piece.0).collect();
    assert_eq!(kinds, "HRRT");
    let refuse_rest = |rest: &[u8], message, row| {
        refuse(
            &Format::Binary,
            &[0],
            &[HEADER, rest].concat(),
            message,
            row,
        );
    };
    refuse(
        &Format::Binary,
        &[0],
        b"PGCOPX",
        "COPY file signature not recognized",
        0,
    );
    refuse(
        &Format::Binary,
        &[0],
        b"",
        "COPY file signature not recognized",
        0,
    );
    refuse_rest(&[0, 0], "missing data for a column of the sharding key", 1);
    refuse_rest(&[0, 1, 0], "unexpected EOF in COPY data", 1);
    refuse_rest(&[0, 1, 0xff, 0, 0, 0], "invalid field size", 1);
    refuse_rest(&[0xff, 0xfe], "invalid field count in COPY data", 1);
    refuse_rest(&[0xff, 0xff, 0], "received copy data after EOF marker", 1);
}

#[test]
fn a_row_above_the_limit_is_refused() {
    let mut splitter = Splitter::new(text(false), &[0], 4);
    let mut feed = |chunk: &[u8]| splitter.feed(chunk, |_| Ok::<(), Fault>(()));
    feed(b"abc\nab").unwrap();
    let fault = feed(b"cde").unwrap_err();
    assert_eq!(fault.code.as_str(), "54000");
}

#[test]
fn a_row_without_its_key_within_the_limit_is_refused() {
    let code = |chunks: &[&[u8]]| {
        let pieces = split_within(8, &text(false), &[1], chunks);
        pieces.map_err(|fault| fault.code.as_str().to_owned())
    };
    let refused = Err("54000".to_owned());
    assert_eq!(code(&[b"abcdefgh\tk\n"]), refused);
    assert_eq!(code(&[b"abcdefgh", b"\tk\n"]), refused);
    assert_eq!(code(&[b"a\tkeykeykey\tb\n"]), refused);
    let row = |bytes: &[u8]| ('R', bytes.to_vec(), vec![Some(b"key".to_vec())]);
    let long = b"a\tkey\tand much more\n";
    assert_eq!(code(&[long]), Ok(vec![row(long)]));
    for cut in 1..long.len() {
        let (head, rest) = long.split_at(cut);
        let both = [long, &b"b\tkey\tc"[..]].concat();
        assert_eq!(code(&[head, rest]), Ok(vec![row(long)]), "cut at {cut}");
        let (head, rest) = both.split_at(cut);
        assert_eq!(code(&[head, rest]), Ok(vec![row(long), row(b"b\tkey\tc")]));
    }
    assert_eq!(
        code(&[b"a\tkey\tand", b" \\.", b" more\n"]),
        Err("22P04".to_owned())
    );
}

/// Data that is now and then well formed.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"ab,\"\\\t\n\r.N1x\n\n,".to_vec());
    prop::collection::vec(byte, 0..80)
}

fn chop<'a>(input: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts
        .iter()
        .map(|cut| cut.index(input.len().saturating_add(1)))
        .collect();
    at.extend([0, input.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &input[pair[0]..pair[1]]).collect()
}

proptest! {
    #[test]
    fn any_chopping_gives_the_same_pieces(
        input in data(),
        binary in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        header in any::<bool>(),
        row_max in prop::sample::select(vec![5, 12, ROW_MAX]),
    ) {
        let rows = binary.iter().map(|field| tuple(&[Some(field), None]));
        let tuples = [HEADER.to_vec(), rows.collect::<Vec<_>>().concat()].concat();
        for (format, input) in [
            (text(header), &input),
            (csv(b'"', header), &input),
            (csv(b'\\', header), &input),
            (Format::Binary, &tuples),
        ] {
            let whole = split_within(row_max, &format, &[0], &[input]);
            let chopped = split_within(row_max, &format, &[0], &chop(input, &cuts));
            if row_max == ROW_MAX {
                prop_assert_eq!(&whole, &chopped);
            } else {
                // Which of two faults of a row is seen first may differ.
                prop_assert_eq!(whole.as_ref().ok(), chopped.as_ref().ok());
            }
            if let Ok(pieces) = whole {
                let joined: Vec<u8> = pieces.iter().flat_map(|piece| piece.1.clone()).collect();
                if pieces.iter().all(|piece| piece.0 != 'T') {
                    prop_assert_eq!(&joined, input);
                } else {
                    prop_assert_eq!(&joined[..], &input[..joined.len()]);
                }
            }
        }
    }
}
