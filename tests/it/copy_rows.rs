//! Rows of COPY are cut and read as COPY FROM reads them.

use std::fmt::Write as _;

use pgherd::error::Fault;
use pgherd::wire::copy::{Format, Piece, Splitter};

use crate::client::Client;
use crate::postgres::Cluster;
use crate::random::Random;

/// The two columns of each row, in hexadecimal.
type Rows = Vec<Vec<Option<String>>>;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

fn split(format: &Format, data: &[u8]) -> Result<Rows, Fault> {
    let mut rows = Vec::new();
    let mut splitter = Splitter::new(format.clone(), &[0, 1], 1 << 20);
    let mut on = |piece: Piece<'_>| {
        if let Piece::Row { fields, .. } = piece {
            rows.push(fields.iter().map(|field| field.map(hex)).collect());
        }
        Ok::<(), Fault>(())
    };
    splitter.feed(data, &mut on)?;
    splitter.finish(&mut on)?;
    Ok(rows)
}

/// What the server stores, or its message.
fn store(client: &mut Client, options: &str, data: &[u8]) -> Result<Rows, String> {
    client.run("TRUNCATE t");
    let sql = format!("COPY t FROM STDIN WITH ({options})");
    client
        .copy_in(&sql, &[data.to_vec()])
        .map_err(|error| error.message)?;
    Ok(client.rows(
        "SELECT encode(convert_to(a, 'UTF8'), 'hex'), encode(convert_to(b, 'UTF8'), 'hex') FROM t ORDER BY ctid",
    ))
}

#[test]
fn rows_are_those_the_server_stores() {
    let cluster = Cluster::start("");
    let mut client = cluster.connect("postgres");
    client.run("CREATE TABLE t (a text, b text)");
    let mut random = Random::from_environment();
    println!("SEED={}", random.seed);
    let text = Format::Text {
        delimiter: b',',
        null: b"\\N".to_vec(),
        header: false,
    };
    let csv = |escape: u8, header: bool| Format::Csv {
        delimiter: b',',
        quote: b'"',
        escape,
        null: Vec::new(),
        header,
    };
    let formats = [
        (text, "DELIMITER ','"),
        (csv(b'"', false), "FORMAT csv"),
        (csv(b'"', true), "FORMAT csv, HEADER"),
        (csv(b'\\', false), "FORMAT csv, ESCAPE '\\'"),
    ];
    let (mut accepted, mut refused) = (0, 0);
    let cases =
        std::env::var("CASES").map_or(400, |cases| cases.parse().expect("CASES is a number"));
    for _ in 0..cases {
        let data = data(&mut random);
        for (format, options) in &formats {
            let ours = split(format, data.as_bytes());
            let theirs = store(&mut client, options, data.as_bytes());
            if compare(&data, ours, theirs) {
                accepted += 1;
            } else {
                refused += 1;
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(
        accepted > 100 && refused > 100,
        "{accepted} accepted, {refused} refused"
    );
}

/// Lines of two columns, now and then broken.
fn data(random: &mut Random) -> String {
    let parts = [
        "a", "b", "x", "1", " ", "é", "\\N", "\\", "\\\\", "\\t", "\\x41", "\\101", "\\x", "\\\n",
        "\"", "\"\"", "\\\"", "\"a,b\"", ".", "\\,",
    ];
    let newline = *random.choose(&["\n", "\n", "\r\n", "\r"]);
    let mut data = String::new();
    for _ in 0..random.below(6) {
        for column in 0..2 {
            for _ in 0..random.below(4) {
                let part: &&str = random.choose(&parts);
                data.push_str(part);
            }
            if column == 0 {
                data.push(',');
            }
        }
        let odd = random.chance(2);
        data.push_str(if odd {
            random.choose::<&str>(&["\n", "\r", ""])
        } else {
            newline
        });
    }
    if random.chance(10) {
        data.push_str("\\.");
        data.push_str(newline);
    }
    data
}

/// Whether both took the data, and for the same rows; else both must have refused it.
fn compare(data: &str, ours: Result<Rows, Fault>, theirs: Result<Rows, String>) -> bool {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs, "{data:?}");
            return true;
        }
        // What a column may hold, and how many there are, is left to the server.
        (Ok(_), Err(_)) => (),
        (Err(fault), Err(message)) => {
            // Either may meet another fault of the data first.
            let other = fault.message.contains("sharding key")
                || fault.message.starts_with("end-of-copy marker")
                || message.starts_with("end-of-copy marker")
                || message.starts_with("missing data")
                || message.starts_with("extra data");
            assert!(
                other || message == fault.message,
                "{data:?}: {fault} but {message}"
            );
        }
        (Err(fault), Ok(_)) => {
            // Before version 18 the server takes what stands before the marker for a row.
            let marker = "end-of-copy marker is not alone on its line";
            assert_eq!(fault.message, marker, "{data:?}");
        }
    }
    false
}
