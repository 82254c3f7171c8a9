//! Bytes to a client's messages: each a letter and what it names, so that seeds can be written by hand.

use super::postgres::write;

/// What the client sends, and how.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Written one after another, with a pause between.
    pub(crate) parts: Vec<Vec<u8>>,
    /// Something in it is no message of the protocol.
    pub(crate) is_wrong: bool,
    /// It ends in a Terminate.
    pub(crate) leaves: bool,
}

const NAMES: [&str; 3] = ["", "a", "b"];

const TEXTS: [&str; 32] = [
    "SELECT 1",
    "SELECT many FROM x",
    "SELECT $1",
    "",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "selec",
    "SELECT fail FROM x",
    "COPY x FROM STDIN",
    "COPY x TO STDOUT",
    "INSERT INTO x VALUES (1)",
    "SET work_mem TO '5MB'",
    "RESET work_mem",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE s",
    "SELECT 1; SELECT 2",
    "BEGIN; SELECT 1",
    "SELECT 1; SELECT fail",
    "DEALLOCATE ALL",
    "DEALLOCATE a",
    "DISCARD ALL",
    "CREATE TABLE z (a int)",
    "CREATE TEMP TABLE y (a int)",
    "SELECT * FROM t WHERE user_id = $1",
    "SELECT * FROM t WHERE user_id = 2",
    "SELECT * FROM t",
    "INSERT INTO t (user_id) VALUES (3)",
    "COPY t (user_id) FROM STDIN",
    "INSERT INTO o VALUES (1)",
    "SET search_path TO a",
];

/// The messages that bring any conversation to its end, and a row that tells.
pub(crate) fn finale() -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, b'f', b"end\0");
    write(&mut out, b'S', &[]);
    write(&mut out, b'Q', b"ROLLBACK\0");
    write(&mut out, b'Q', b"SELECT finale\0");
    out
}

impl Script {
    pub(crate) fn read(bytes: &[u8]) -> Script {
        let mut script = Script::default();
        let mut part = Vec::new();
        let mut bytes = bytes.iter().copied();
        while let Some(letter) = bytes.next() {
            let mut index = |count: usize| usize::from(bytes.next().unwrap_or(b'0')) % count;
            // '0' is the first of 16, 3 and 2 alike.
            let mut name = || zeroed(NAMES[index(3)]);
            match letter {
                b'Q' => write(&mut part, b'Q', &zeroed(text(index(256)))),
                b'P' => {
                    let body = [name(), zeroed(text(index(256))), vec![0, 0]].concat();
                    write(&mut part, b'P', &body);
                }
                b'B' => {
                    let mut body = [name(), name(), vec![0, 0]].concat();
                    let count = index(2);
                    body.extend([0, u8::try_from(count).expect("0 or 1")]);
                    body.extend([0, 0, 0, 1, b'7'].repeat(count));
                    body.extend([0, 0]);
                    write(&mut part, b'B', &body);
                }
                b'D' | b'C' => {
                    let target = [b'S', b'P'][index(2)];
                    let name = zeroed(NAMES[index(3)]);
                    write(&mut part, letter, &[vec![target], name].concat());
                }
                b'E' => {
                    let mut body = name();
                    let rows = u8::try_from(index(3)).expect("small");
                    body.extend([0, 0, 0, rows]);
                    write(&mut part, b'E', &body);
                }
                b'S' | b'H' | b'c' => write(&mut part, letter, &[]),
                b'd' => write(&mut part, b'd', b"1\n"),
                b'l' => write(&mut part, b'd', &b"4\n".repeat(50_000)),
                b'f' => write(&mut part, b'f', b"no\0"),
                b'F' => write(&mut part, b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
                b'|' => script.parts.push(std::mem::take(&mut part)),
                b'X' => {
                    write(&mut part, b'X', &[]);
                    script.leaves = true;
                    break;
                }
                b'!' => {
                    let tag = bytes.next().unwrap_or(b'Q');
                    let body: Vec<u8> = bytes.by_ref().take(4).collect();
                    write(&mut part, tag, &body);
                    script.is_wrong = true;
                }
                _ => (),
            }
        }
        script.parts.push(part);
        script
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.parts.concat()
    }
}

/// `A`, `B`, … in the order of the list; any other byte is one of them too.
fn text(letter: usize) -> &'static str {
    TEXTS[letter.wrapping_sub(usize::from(b'A')) % TEXTS.len()]
}

fn zeroed(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}
