//! A client of raw messages: sends any bytes, reads messages with a deadline, interprets little.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::message::{self, Message, Reader};

/// How long a reply may take before a test calls it a hang.
pub(crate) const REPLY: Duration = Duration::from_secs(20);

/// A row as text.
pub(crate) type Row = Vec<Option<String>>;

/// An ErrorResponse, or the end of the connection (then the code is empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) hint: String,
    pub(crate) severity: String,
}

impl ServerError {
    fn of(message: &Message) -> ServerError {
        ServerError {
            code: message.field('C'),
            message: message.field('M'),
            detail: message.field('D'),
            hint: message.field('H'),
            severity: message.field('V'),
        }
    }

    fn lost(why: Lost) -> ServerError {
        let message = format!("connection lost: {why:?}");
        ServerError {
            code: String::new(),
            message,
            detail: String::new(),
            hint: String::new(),
            severity: String::new(),
        }
    }
}

/// Why no message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Closed,
    TimedOut,
}

/// What one simple query answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) rows: Vec<Row>,
    /// The command tags, in order.
    pub(crate) tags: Vec<String>,
    /// The names in the last RowDescription.
    pub(crate) columns: Vec<String>,
}

impl Answer {
    /// The values of a named column.
    pub(crate) fn column(&self, name: &str) -> Vec<String> {
        let found = self.columns.iter().position(|column| column == name);
        let index = found.unwrap_or_else(|| panic!("no column {name} in {:?}", self.columns));
        self.rows
            .iter()
            .map(|row| row[index].clone().unwrap_or_default())
            .collect()
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    at: usize,
    /// Process id and secret of the cancel key.
    pub(crate) key: (i32, i32),
    /// ParameterStatus of the login and since.
    pub(crate) settings: Vec<(String, String)>,
    /// Of the last ReadyForQuery: `I`, `T` or `E`.
    pub(crate) status: char,
}

impl Client {
    /// Logs in where no password is asked for.
    pub(crate) fn connect(port: u16, user: &str, database: &str) -> Client {
        Client::try_connect(port, user, database)
            .unwrap_or_else(|error| panic!("{user} at {port}/{database}: {error:?}"))
    }

    pub(crate) fn try_connect(
        port: u16,
        user: &str,
        database: &str,
    ) -> Result<Client, ServerError> {
        Client::try_connect_with(port, &[("user", user), ("database", database)])
    }

    pub(crate) fn try_connect_with(
        port: u16,
        parameters: &[(&str, &str)],
    ) -> Result<Client, ServerError> {
        let mut client = Client::open(port)?;
        client.send(&message::startup(parameters));
        client.login()?;
        Ok(client)
    }

    /// A connection on which nothing has been said yet.
    pub(crate) fn open(port: u16) -> Result<Client, ServerError> {
        let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| {
            let message = format!("connect: {error}");
            ServerError {
                message,
                ..ServerError::lost(Lost::Closed)
            }
        })?;
        stream.set_nodelay(true).expect("a TCP socket");
        Ok(Client {
            stream,
            received: Vec::new(),
            at: 0,
            key: (0, 0),
            settings: Vec::new(),
            status: '?',
        })
    }

    /// Reads up to the first ReadyForQuery; only trust authentication passes.
    pub(crate) fn login(&mut self) -> Result<(), ServerError> {
        loop {
            let message = self.receive(REPLY).map_err(ServerError::lost)?;
            let mut body = Reader(&message.body);
            match message.tag {
                b'R' if body.int4() == 0 => (),
                b'K' => self.key = (body.int4(), body.int4()),
                b'S' => self.settings.push((body.string(), body.string())),
                b'N' => (),
                b'Z' => {
                    self.status = char::from(message.body[0]);
                    return Ok(());
                }
                b'E' => return Err(ServerError::of(&message)),
                _ => panic!("at login: {}", message.line()),
            }
        }
    }

    /// Sends bytes. That the other side has hung up shows when the reply is read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// The next message, if it comes in time.
    pub(crate) fn receive(&mut self, within: Duration) -> Result<Message, Lost> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(message) = self.next_message() {
                return Ok(message);
            }
            self.fill(deadline)?;
        }
    }

    fn next_message(&mut self) -> Option<Message> {
        let waiting = &self.received[self.at..];
        let length = u32::from_be_bytes(waiting.get(1..5)?.try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        assert!(length >= 4, "a message of length {length}");
        let body = waiting.get(5..length + 1)?.to_vec();
        let tag = waiting[0];
        self.at += length + 1;
        if self.at == self.received.len() {
            self.received.clear();
            self.at = 0;
        }
        Some(Message { tag, body })
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), Lost> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Lost::TimedOut);
        }
        self.stream.set_read_timeout(Some(left)).expect("not zero");
        if self.at > 0 {
            self.received.drain(..self.at);
            self.at = 0;
        }
        let start = self.received.len();
        self.received.resize(start + 65_536, 0);
        let read = self.stream.read(&mut self.received[start..]);
        self.received
            .truncate(start + read.as_ref().map_or(0, |&count| count));
        match read {
            Ok(0) => Err(Lost::Closed),
            Ok(_) => Ok(()),
            // A signal that the process handles interrupts a read with a deadline.
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => {
                let late = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                Err(if late.contains(&error.kind()) {
                    Lost::TimedOut
                } else {
                    Lost::Closed
                })
            }
        }
    }

    /// One raw byte, as the answer to an SSLRequest is.
    pub(crate) fn receive_byte(&mut self) -> Result<u8, Lost> {
        let deadline = Instant::now() + REPLY;
        while self.received.len() == self.at {
            self.fill(deadline)?;
        }
        self.at += 1;
        Ok(self.received[self.at - 1])
    }

    /// Messages up to and with the next ReadyForQuery.
    pub(crate) fn until_ready(&mut self) -> Result<Vec<Message>, Lost> {
        let mut messages = Vec::new();
        loop {
            let message = self.receive(REPLY)?;
            let ready = message.tag == b'Z';
            if ready {
                self.status = char::from(message.body[0]);
            }
            messages.push(message);
            if ready {
                return Ok(messages);
            }
        }
    }

    /// A simple query: all of its rows, or its first error. The connection is in sync after an error.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Answer, ServerError> {
        self.send(&message::query(sql));
        self.answer()
    }

    /// Parse, Bind, Execute and Sync of the unnamed statement with text parameters.
    pub(crate) fn query_with(
        &mut self,
        sql: &str,
        values: &[Option<&str>],
    ) -> Result<Answer, ServerError> {
        let values: Vec<_> = values
            .iter()
            .map(|value| value.map(|text| text.as_bytes().to_vec()))
            .collect();
        self.query_values(sql, &[], &[], &values)
    }

    /// The same with the types and formats that Parse and Bind carry.
    pub(crate) fn query_values(
        &mut self,
        sql: &str,
        types: &[u32],
        formats: &[i16],
        values: &[Option<Vec<u8>>],
    ) -> Result<Answer, ServerError> {
        let messages = [
            message::parse("", sql, types),
            message::bind("", "", formats, values, &[]),
            message::execute("", 0),
            message::sync(),
        ];
        self.send(&messages.concat());
        self.answer()
    }

    /// Reads what a statement answers, up to ReadyForQuery.
    pub(crate) fn answer(&mut self) -> Result<Answer, ServerError> {
        let mut answer = Answer::default();
        let mut failed = None;
        loop {
            let message = match self.receive(REPLY) {
                Ok(message) => message,
                Err(lost) => return Err(failed.unwrap_or_else(|| ServerError::lost(lost))),
            };
            let mut body = Reader(&message.body);
            match message.tag {
                b'T' => answer.columns = message.column_names(),
                b'D' => answer
                    .rows
                    .push(message.row().into_iter().map(text).collect()),
                b'C' => answer.tags.push(body.string()),
                b'E' => failed = failed.or_else(|| Some(ServerError::of(&message))),
                b'S' => self.settings.push((body.string(), body.string())),
                b'Z' => {
                    self.status = char::from(message.body[0]);
                    return failed.map_or(Ok(answer), Err);
                }
                b'G' => self.send(&message::frame(
                    b'f',
                    &message::zeroed(&["not a COPY test"]),
                )),
                _ => (),
            }
        }
    }

    /// A simple query that must succeed.
    pub(crate) fn run(&mut self, sql: &str) -> Answer {
        self.query(sql)
            .unwrap_or_else(|error| panic!("{sql}\n{error:?}"))
    }

    /// The rows of a query that must succeed.
    pub(crate) fn rows(&mut self, sql: &str) -> Vec<Row> {
        self.run(sql).rows
    }

    /// The first value of a query that must return one that is not NULL.
    pub(crate) fn value(&mut self, sql: &str) -> String {
        let rows = self.rows(sql);
        let first = rows.first().and_then(|row| row.first()).cloned().flatten();
        first.unwrap_or_else(|| panic!("{sql}: no value"))
    }

    /// The SQLSTATE of a query that must fail.
    pub(crate) fn fails(&mut self, sql: &str) -> ServerError {
        match self.query(sql) {
            Ok(answer) => panic!("{sql}: did not fail but answered {answer:?}"),
            Err(error) => error,
        }
    }

    /// COPY … FROM STDIN with the pieces as CopyData each.
    pub(crate) fn copy_in(&mut self, sql: &str, pieces: &[Vec<u8>]) -> Result<Answer, ServerError> {
        self.send(&message::query(sql));
        let first = self.receive(REPLY).map_err(ServerError::lost)?;
        if first.tag != b'G' {
            let failed = ServerError::of(&first);
            self.until_ready().map_err(ServerError::lost)?;
            return Err(failed);
        }
        for piece in pieces {
            self.send(&message::frame(b'd', piece));
        }
        self.send(&message::frame(b'c', &[]));
        self.answer()
    }

    /// COPY … TO STDOUT: the bytes.
    pub(crate) fn copy_out(&mut self, sql: &str) -> Vec<u8> {
        self.send(&message::query(sql));
        let messages = self.until_ready().expect("an answer");
        if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
            panic!("{sql}: {}", error.line());
        }
        messages
            .into_iter()
            .filter(|message| message.tag == b'd')
            .flat_map(|message| message.body)
            .collect()
    }

    /// Hangs up without Terminate.
    pub(crate) fn hang_up(self) {
        drop(self);
    }

    /// Sends Terminate and waits until the other side hangs up.
    pub(crate) fn terminate(mut self) -> Result<(), Message> {
        self.send(&message::frame(b'X', &[]));
        match self.receive(REPLY) {
            Err(Lost::Closed) => Ok(()),
            Err(Lost::TimedOut) => panic!("still open after Terminate"),
            Ok(message) => Err(message),
        }
    }

    /// A second handle on the socket, to send from another thread.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("a socket")
    }
}

/// Asks for the cancellation of what the key's owner runs, and waits for the end of the connection.
pub(crate) fn cancel(port: u16, key: (i32, i32)) {
    let mut client = Client::open(port).expect("the server listens");
    let words = [16, 80_877_102, key.0, key.1];
    client.send(
        &words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect::<Vec<u8>>(),
    );
    assert_eq!(
        client.receive(REPLY),
        Err(Lost::Closed),
        "after a CancelRequest"
    );
}

fn text(value: Option<Vec<u8>>) -> Option<String> {
    value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
