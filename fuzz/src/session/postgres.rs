//! A small PostgreSQL: the protocol's states as `postgres.c` has them, over statements it knows by their first words.
//!
//! It is the servers behind the engine, and the oracle of what a client is to be told. It keeps no data.

use std::collections::BTreeMap;

/// One connection's state, logged in.
#[derive(Debug)]
pub(crate) struct Postgres {
    status: u8,
    statements: BTreeMap<Vec<u8>, String>,
    portals: BTreeMap<Vec<u8>, Portal>,
    savepoints: Vec<String>,
    /// An error in the extended protocol: everything is skipped until Sync.
    skipping: bool,
    copy: Option<Copy>,
    /// It has hung up.
    pub(crate) closed: bool,
    /// An error came behind a Parse of the same group. pgherd may then take the Parse back without an
    /// answer, so that the client knows of no statement, and there is none.
    pub(crate) is_unsure: bool,
    parsed: bool,
    input: Vec<u8>,
}

#[derive(Debug)]
struct Portal {
    text: String,
    rows_sent: usize,
    is_done: bool,
}

/// COPY FROM STDIN is being read; the statements behind it when it came in a Query.
#[derive(Debug)]
struct Copy {
    rest: Option<Vec<String>>,
}

/// An ErrorResponse is due.
struct Failed(&'static str);

impl Default for Postgres {
    fn default() -> Postgres {
        Postgres {
            status: b'I',
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            savepoints: Vec::new(),
            skipping: false,
            copy: None,
            closed: false,
            is_unsure: false,
            parsed: false,
            input: Vec::new(),
        }
    }
}

impl Postgres {
    /// Takes bytes of the client; returns the answers, one entry a message.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.input.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut self.input);
        let mut used = 0;
        let mut answers = Vec::new();
        while let Some((tag, body, end)) = message(&input[used..]) {
            if self.closed {
                break;
            }
            let mut out = Vec::new();
            self.on_message(tag, body, &mut out);
            answers.push(out);
            used += end;
        }
        input.drain(..used);
        self.input = input;
        answers
    }

    fn on_message(&mut self, tag: u8, body: &[u8], out: &mut Vec<u8>) {
        if self.copy.is_some() {
            return self.on_copy_message(tag, out);
        }
        if self.skipping && !matches!(tag, b'S' | b'X') {
            return;
        }
        let result = match tag {
            b'Q' => return self.query(body, out),
            b'F' => return self.function_call(out),
            b'P' => self.parse(body, out),
            b'B' => self.bind(body, out),
            b'D' => self.describe(body, out),
            b'E' => self.execute(body, out),
            b'C' => {
                let name = text(&body[1..]).0;
                match body[0] {
                    b'S' => drop(self.statements.remove(name)),
                    _ => drop(self.portals.remove(name)),
                }
                write(out, b'3', &[]);
                Ok(())
            }
            b'S' => {
                self.skipping = false;
                return self.ready(out);
            }
            b'H' | b'd' | b'c' | b'f' => Ok(()),
            b'X' => {
                self.closed = true;
                Ok(())
            }
            _ => {
                error(out, "FATAL", "08P01");
                self.closed = true;
                Ok(())
            }
        };
        if let Err(failed) = result {
            self.is_unsure |= self.parsed;
            self.fail(failed, out);
            self.skipping = true;
        }
    }

    fn on_copy_message(&mut self, tag: u8, out: &mut Vec<u8>) {
        let rest = match (tag, &mut self.copy) {
            (b'd' | b'H' | b'S', _) | (_, None) => return,
            (_, Some(copy)) => copy.rest.take(),
        };
        self.copy = None;
        match (tag, rest) {
            (b'c', Some(rest)) => {
                complete(out, "COPY 1");
                self.run_script(&rest, out);
            }
            (b'c', None) => complete(out, "COPY 1"),
            (b'f', rest) => {
                self.fail(Failed("57014"), out);
                match rest {
                    Some(_) => self.ready(out),
                    None => self.skipping = true,
                }
            }
            _ => {
                error(out, "ERROR", "08P01");
                error(out, "FATAL", "08P01");
                self.closed = true;
            }
        }
    }

    fn fail(&mut self, failed: Failed, out: &mut Vec<u8>) {
        error(out, "ERROR", failed.0);
        if self.status == b'T' {
            self.status = b'E';
        }
    }

    fn ready(&mut self, out: &mut Vec<u8>) {
        if self.status == b'I' {
            self.portals.clear();
        }
        self.parsed = false;
        write(out, b'Z', &[self.status]);
    }

    fn query(&mut self, body: &[u8], out: &mut Vec<u8>) {
        self.statements.remove(&b""[..]);
        self.portals.remove(&b""[..]);
        let statements = split(text(body).0);
        if statements.iter().any(|one| kind(one) == Kind::Wrong) {
            self.fail(Failed("42601"), out);
            return self.ready(out);
        }
        if statements.is_empty() {
            write(out, b'I', &[]);
        }
        self.run_script(&statements, out);
    }

    fn run_script(&mut self, statements: &[String], out: &mut Vec<u8>) {
        for (index, statement) in statements.iter().enumerate() {
            if kind(statement) == Kind::Rows && self.check_failed(statement).is_ok() {
                write(out, b'T', &description());
            }
            match self.run(statement, 0, 0, out) {
                Ok(_) if self.copy.is_some() => {
                    let rest = statements[index + 1..].to_vec();
                    self.copy = Some(Copy { rest: Some(rest) });
                    return;
                }
                Ok(_) => (),
                Err(failed) => {
                    self.fail(failed, out);
                    break;
                }
            }
        }
        self.ready(out);
    }

    fn check_failed(&self, statement: &str) -> Result<(), Failed> {
        let ends = matches!(
            kind(statement),
            Kind::Commit | Kind::Rollback | Kind::RollbackTo
        );
        if self.status == b'E' && !ends {
            return Err(Failed("25P02"));
        }
        Ok(())
    }

    /// Runs one statement; returns how many rows it sent and whether all.
    fn run(
        &mut self,
        statement: &str,
        first_row: usize,
        rows_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(usize, bool), Failed> {
        self.check_failed(statement)?;
        let in_block = self.status != b'I';
        let name = statement.rsplit(' ').next().unwrap_or_default().to_owned();
        match kind(statement) {
            Kind::Rows => return rows(statement, first_row, rows_max, out),
            Kind::Begin => {
                if in_block {
                    notice(out);
                }
                self.status = b'T';
                complete(out, "BEGIN");
            }
            Kind::Commit | Kind::Rollback => {
                if !in_block {
                    notice(out);
                }
                let commits = kind(statement) == Kind::Commit && self.status != b'E';
                self.status = b'I';
                self.savepoints.clear();
                self.portals.clear();
                complete(out, if commits { "COMMIT" } else { "ROLLBACK" });
            }
            Kind::Savepoint | Kind::RollbackTo | Kind::Release if !in_block => {
                return Err(Failed("25P01"));
            }
            Kind::Savepoint => {
                self.savepoints.push(name);
                complete(out, "SAVEPOINT");
            }
            kind @ (Kind::RollbackTo | Kind::Release) => {
                let Some(at) = self.savepoints.iter().rposition(|known| *known == name) else {
                    return Err(Failed("3B001"));
                };
                if kind == Kind::RollbackTo {
                    self.savepoints.truncate(at + 1);
                    self.status = b'T';
                    complete(out, "ROLLBACK");
                } else {
                    self.savepoints.truncate(at);
                    complete(out, "RELEASE");
                }
            }
            Kind::CopyIn => {
                write(out, b'G', &[0, 0, 1, 0, 0]);
                self.copy = Some(Copy { rest: None });
            }
            Kind::CopyOut => {
                write(out, b'H', &[0, 0, 1, 0, 0]);
                write(out, b'd', b"1\n");
                write(out, b'c', &[]);
                complete(out, "COPY 1");
            }
            Kind::Deallocate if name.eq_ignore_ascii_case("all") => {
                self.statements.retain(|name, _| name.is_empty());
                complete(out, "DEALLOCATE ALL");
            }
            Kind::Deallocate => {
                let gone = self.statements.remove(name.as_bytes());
                gone.ok_or(Failed("26000"))?;
                complete(out, "DEALLOCATE");
            }
            Kind::Discard if in_block => return Err(Failed("25001")),
            Kind::Discard => {
                self.statements.clear();
                self.portals.clear();
                complete(out, "DISCARD ALL");
            }
            Kind::Other(tag) => complete(out, tag),
            Kind::Wrong => return Err(Failed("42601")),
        }
        Ok((0, true))
    }

    fn function_call(&mut self, out: &mut Vec<u8>) {
        if self.status == b'E' {
            self.fail(Failed("25P02"), out);
        } else {
            write(out, b'V', &[255; 4]);
        }
        self.ready(out);
    }

    fn parse(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let (name, rest) = text(body);
        if name.is_empty() {
            self.statements.remove(name);
        }
        let mut statements = split(text(rest).0);
        if statements.iter().any(|one| kind(one) == Kind::Wrong) || statements.len() > 1 {
            return Err(Failed("42601"));
        }
        let statement = statements.pop().unwrap_or_default();
        if !statement.is_empty() {
            self.check_failed(&statement)?;
        }
        if self.statements.contains_key(name) {
            return Err(Failed("42P05"));
        }
        self.statements.insert(name.to_vec(), statement);
        self.parsed = true;
        write(out, b'1', &[]);
        Ok(())
    }

    fn bind(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let (portal, rest) = text(body);
        let (name, rest) = text(rest);
        let statement = self.statements.get(name).ok_or(Failed("26000"))?.clone();
        let formats = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let rest = &rest[2 + 2 * formats..];
        let given = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        if given != statement.matches('$').count() {
            return Err(Failed("08P01"));
        }
        if !statement.is_empty() {
            self.check_failed(&statement)?;
        }
        if !portal.is_empty() && self.portals.contains_key(portal) {
            return Err(Failed("42P03"));
        }
        let made = Portal {
            text: statement,
            rows_sent: 0,
            is_done: false,
        };
        self.portals.insert(portal.to_vec(), made);
        write(out, b'2', &[]);
        Ok(())
    }

    fn describe(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let name = text(&body[1..]).0;
        let described = if body[0] == b'S' {
            self.statements.get(name).ok_or(Failed("26000"))?
        } else {
            &self.portals.get(name).ok_or(Failed("34000"))?.text
        };
        let has_rows = kind(described) == Kind::Rows;
        if has_rows {
            self.check_failed(described)?;
        }
        if body[0] == b'S' {
            let count = described.matches('$').count();
            let mut types = u16::try_from(count).expect("few").to_be_bytes().to_vec();
            types.extend((0..count).flat_map(|_| 25_u32.to_be_bytes()));
            write(out, b't', &types);
        }
        if has_rows {
            write(out, b'T', &description());
        } else {
            write(out, b'n', &[]);
        }
        Ok(())
    }

    fn execute(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<(), Failed> {
        let (name, rest) = text(body);
        let rows_max = usize::from(rest[3]);
        let portal = self.portals.get(name).ok_or(Failed("34000"))?;
        let statement = portal.text.clone();
        if statement.is_empty() {
            write(out, b'I', &[]);
            return Ok(());
        }
        self.check_failed(&statement)?;
        if portal.is_done && kind(&statement) != Kind::Rows {
            return Err(Failed("55000"));
        }
        let (sent, is_done) = self.run(&statement, portal.rows_sent, rows_max, out)?;
        // The end of a transaction takes its portals with it.
        if let Some(portal) = self.portals.get_mut(name) {
            portal.rows_sent += sent;
            portal.is_done = is_done;
        }
        Ok(())
    }
}

/// What a statement is, by its first words.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rows,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    RollbackTo,
    Release,
    CopyIn,
    CopyOut,
    Deallocate,
    Discard,
    Other(&'static str),
    Wrong,
}

fn kind(statement: &str) -> Kind {
    let words: Vec<&str> = statement.split_ascii_whitespace().collect();
    let has = |word: &str| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    let first = words.first().unwrap_or(&"").to_ascii_uppercase();
    match first.as_str() {
        "SELECT" | "SHOW" => Kind::Rows,
        "BEGIN" => Kind::Begin,
        "COMMIT" => Kind::Commit,
        "ROLLBACK" if has("to") => Kind::RollbackTo,
        "ROLLBACK" => Kind::Rollback,
        "SAVEPOINT" => Kind::Savepoint,
        "RELEASE" => Kind::Release,
        "COPY" if has("from") => Kind::CopyIn,
        "COPY" => Kind::CopyOut,
        "DEALLOCATE" => Kind::Deallocate,
        "DISCARD" => Kind::Discard,
        "SET" => Kind::Other("SET"),
        "RESET" => Kind::Other("RESET"),
        "INSERT" => Kind::Other("INSERT 0 1"),
        "CREATE" => Kind::Other("CREATE TABLE"),
        "LISTEN" => Kind::Other("LISTEN"),
        "UNLISTEN" => Kind::Other("UNLISTEN"),
        "" => Kind::Other(""),
        _ => Kind::Wrong,
    }
}

/// Sends the rows of a SELECT, from `first` on: one, or three of `many`. `fail` ends in an error.
fn rows(
    statement: &str,
    first: usize,
    rows_max: usize,
    out: &mut Vec<u8>,
) -> Result<(usize, bool), Failed> {
    if statement.contains("fail") {
        return Err(Failed("22012"));
    }
    let total: usize = if statement.contains("many") { 3 } else { 1 };
    let left = total.saturating_sub(first);
    let is_limited = rows_max > 0 && rows_max <= left;
    let count = if is_limited { rows_max } else { left };
    for _ in 0..count {
        let value = statement.as_bytes();
        let mut row = vec![0, 1];
        row.extend(u32::try_from(value.len()).expect("short").to_be_bytes());
        row.extend_from_slice(value);
        write(out, b'D', &row);
    }
    if is_limited {
        write(out, b's', &[]);
    } else {
        complete(out, &format!("SELECT {count}"));
    }
    Ok((count, !is_limited))
}

fn split(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text)
        .split(';')
        .map(|one| one.trim().to_owned())
        .filter(|one| !one.is_empty())
        .collect()
}

/// The first message of `input`: its tag, its body, and where it ends.
pub(crate) fn message(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let ([tag, length @ ..], rest) = input.split_first_chunk::<5>()?;
    let body = usize::try_from(u32::from_be_bytes(*length)).ok()? - 4;
    Some((*tag, rest.get(..body)?, body + 5))
}

/// A string that ends in a zero byte, and what follows.
fn text(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == 0).expect("a string");
    (&bytes[..end], &bytes[end + 1..])
}

/// One message.
pub(crate) fn write(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend(u32::try_from(body.len() + 4).expect("short").to_be_bytes());
    out.extend_from_slice(body);
}

fn complete(out: &mut Vec<u8>, tag: &str) {
    write(out, b'C', &[tag.as_bytes(), b"\0"].concat());
}

fn error(out: &mut Vec<u8>, severity: &str, code: &str) {
    let body = format!("S{severity}\0V{severity}\0C{code}\0Mas told\0\0");
    write(out, b'E', body.as_bytes());
}

fn notice(out: &mut Vec<u8>) {
    write(out, b'N', b"SWARNING\0VWARNING\0C01000\0Mas told\0\0");
}

fn description() -> Vec<u8> {
    [
        b"\0\x01c\0".as_slice(),
        &[0; 6],
        &25_u32.to_be_bytes(),
        &[255; 6],
        &[0; 2],
    ]
    .concat()
}
