//! Sends a statement as its form says, and collects all that comes back.

use super::writer::{Form, Step};
use crate::client::{Client, Lost, REPLY};
use crate::message::{self, Message, Reader};

/// The answer to one of the statements of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Name, type, length, modifier and format of each column.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) rows: Vec<Vec<Option<Vec<u8>>>>,
    pub(crate) tag: String,
    data: Vec<Vec<u8>>,
    binary: bool,
}

impl Part {
    /// The rows of COPY TO.
    pub(crate) fn copied(&self, ordered: bool) -> Vec<Vec<u8>> {
        let mut rows = if self.binary {
            tuples(&self.data.concat())
        } else {
            self.data.clone()
        };
        if !ordered {
            rows.sort();
        }
        rows
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) hint: String,
    /// Whether it names no routine of a server: then it is the proxy's.
    pub(crate) own: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) parts: Vec<Part>,
    pub(crate) failure: Option<Failure>,
    /// The types of the parameters, where they were asked for.
    pub(crate) parameters: Option<Vec<i32>>,
    pub(crate) status: char,
}

impl Reply {
    /// What the proxy says when it will not carry a statement out: not what PostgreSQL says of it.
    pub(crate) fn refusal(&self) -> Option<&Failure> {
        let codes = ["0A000", "22023", "54000", "54001", "53200"];
        let failure = self.failure.as_ref()?;
        (failure.own && codes.contains(&failure.code.as_str())).then_some(failure)
    }
}

/// Runs a statement.
pub(crate) fn run(client: &mut Client, step: &Step) -> Reply {
    match &step.form {
        Form::Simple => {
            client.send(&message::query(&step.sql));
            collect(client, None)
        }
        Form::CopyIn(data) => {
            client.send(&message::query(&step.sql));
            collect(client, Some(data))
        }
        Form::Extended {
            parameters,
            binary_results,
            named,
        } => {
            let types: Vec<u32> = parameters.iter().map(|it| it.oid).collect();
            let formats: Vec<i16> = parameters.iter().map(|it| i16::from(it.binary)).collect();
            let values: Vec<Option<Vec<u8>>> =
                parameters.iter().map(|it| it.bytes.clone()).collect();
            let results = [i16::from(*binary_results)];
            let name = if *named { "generated" } else { "" };
            let mut bytes = message::parse(name, &step.sql, &types);
            if *named {
                bytes.extend(message::describe(b'S', name));
            }
            bytes.extend(message::bind("", name, &formats, &values, &results));
            bytes.extend(message::describe(b'P', ""));
            bytes.extend(message::execute("", 0));
            bytes.extend(message::sync());
            client.send(&bytes);
            let reply = collect(client, None);
            if *named {
                client.send(&[message::close(b'S', name), message::sync()].concat());
                drop(client.until_ready());
            }
            reply
        }
    }
}

fn collect(client: &mut Client, copied: Option<&Vec<u8>>) -> Reply {
    let mut reply = Reply::default();
    let mut part = Part::default();
    loop {
        let message = match client.receive(REPLY) {
            Ok(message) => message,
            Err(lost) => return broken(reply, lost),
        };
        match message.tag {
            b'T' => part.columns = Some(columns(&message)),
            b't' => {
                let mut body = Reader(&message.body);
                let count = body.int2();
                reply.parameters = Some((0..count).map(|_| body.int4()).collect());
            }
            b'D' => part.rows.push(message.row()),
            b'H' => part.binary = message.body.first() == Some(&1),
            b'd' => part.data.push(message.body.clone()),
            b'G' => match copied {
                Some(data) => {
                    for piece in data.chunks(40) {
                        client.send(&message::frame(b'd', piece));
                    }
                    client.send(&message::frame(b'c', &[]));
                }
                None => client.send(&message::frame(b'f', &message::zeroed(&["no data"]))),
            },
            b'C' => {
                part.tag = Reader(&message.body).string();
                reply.parts.push(std::mem::take(&mut part));
            }
            b'E' if reply.failure.is_none() => reply.failure = Some(failure(&message)),
            b'Z' => {
                reply.status = message
                    .body
                    .first()
                    .map_or('?', |&status| char::from(status));
                client.status = reply.status;
                return reply;
            }
            _ => (),
        }
    }
}

fn broken(reply: Reply, lost: Lost) -> Reply {
    Reply {
        failure: Some(Failure {
            code: "LOST".to_owned(),
            message: format!("{lost:?}"),
            detail: String::new(),
            hint: String::new(),
            own: true,
        }),
        status: '?',
        ..reply
    }
}

fn failure(message: &Message) -> Failure {
    Failure {
        code: message.field('C'),
        message: message.field('M'),
        detail: message.field('D'),
        hint: message.field('H'),
        own: message.field('R').is_empty(),
    }
}

/// Object ids from 16384 on are of the user's own types, and differ between servers.
fn columns(message: &Message) -> Vec<String> {
    let mut body = Reader(&message.body);
    let count = body.int2();
    (0..count)
        .map(|_| {
            let name = body.string();
            let _table = (body.int4(), body.int2());
            let oid = body.int4();
            let oid = if oid < 16_384 {
                oid.to_string()
            } else {
                "own".to_owned()
            };
            format!(
                "{name} {oid} {} {} {}",
                body.int2(),
                body.int4(),
                body.int2()
            )
        })
        .collect()
}

/// Header, trailer and tuples of the binary format.
fn tuples(data: &[u8]) -> Vec<Vec<u8>> {
    let (header, rest) = data.split_at(data.len().min(19));
    let mut found = vec![header.to_vec()];
    let mut body = Reader(rest);
    while !body.0.is_empty() {
        let start = body.0;
        let count = body.int2();
        for _ in 0..count {
            body.value();
        }
        found.push(start[..start.len() - body.0.len()].to_vec());
    }
    found
}
