//! Prepared statements: one for each text and types, whatever clients call it, and which of them a
//! server connection has.
//!
//! Clients' names are mapped to a [`Prepared`]; on a server connection it is called by its id and
//! the fingerprint of the settings that parsing reads. Sans-IO.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::FixedState;

use crate::planner::plan::{Generate, Script};
use crate::server::settings::Settings;
use crate::sql::scan::Lexing;
use crate::types::oid;
use crate::types::oids::{Mapping, Way};
use crate::wire::backend::ResultColumn;

/// A statement as Parse brought it, shared by all clients of an engine that sent the same.
#[derive(Debug)]
pub struct Prepared {
    /// Never given twice in a process: server connections outlive the configuration they came with.
    pub id: u64,
    /// What follows the name in Parse: the text, a zero byte, the number of types and the types.
    pub body: Box<[u8]>,
    /// Length of the text within `body`.
    pub text_length: usize,
    pub script: Rc<Script>,
    /// The configuration it was planned under.
    pub generation: u64,
    /// The schema epoch it was planned in.
    pub epoch: u32,
    pub reading: Reading,
    /// The settings of the client that brought it: literals in its text mean what they meant then.
    pub parsed_under: Rc<Settings>,
    /// What a server said of its parameters and columns.
    pub described: OnceCell<Description>,
    /// What its text executes: an SQL EXECUTE that calls another by its name on the server.
    pub calls: OnceCell<Rc<Prepared>>,
    /// How often an unnamed Parse brought it.
    pub uses: Cell<u32>,
    /// Whether an unnamed Parse of it may stay prepared on a server.
    pub promotable: bool,
    /// The schema epoch and the parser fingerprint under which a server last accepted it.
    pub accepted: Cell<Option<(u64, u32)>>,
    /// Whether Parse declared types of the users'.
    pub names_types: bool,
    /// What of it the client did not send: ids, as parameters behind its own.
    pub fills: Option<Fills>,
    /// The same with ids, where it leaves them out.
    pub filled: OnceCell<Rc<Prepared>>,
}

/// How a statement with ids came to be.
#[derive(Debug)]
pub struct Fills {
    /// What followed the name in the client's Parse.
    pub body: Box<[u8]>,
    /// Length of the text within `body`.
    pub text_length: usize,
    /// The client's parameters.
    pub parameters: usize,
    pub generate: Arc<Generate>,
}

impl Prepared {
    /// A statement that is new to the engine; `body` is what follows the name in Parse.
    pub fn new(body: &[u8], new: NewStatement, fills: Option<Fills>) -> Prepared {
        let text = body.get(..new.text_length).unwrap_or_default();
        let (types, _) = body
            .get(new.text_length.saturating_add(3)..)
            .unwrap_or_default()
            .as_chunks::<4>();
        Prepared {
            names_types: types
                .iter()
                .any(|kind| u32::from_be_bytes(*kind) >= oid::FIRST_USER),
            id: LAST_ID.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
            promotable: !Prepared::reads_clock_while_parsing(text),
            body: body.into(),
            text_length: new.text_length,
            script: new.script,
            generation: new.generation,
            epoch: new.epoch,
            reading: new.reading,
            parsed_under: new.parsed_under,
            described: OnceCell::new(),
            calls: OnceCell::new(),
            uses: Cell::new(0),
            accepted: Cell::new(None),
            fills,
            filled: OnceCell::new(),
        }
    }

    /// The statement's text, as the client sent it.
    pub fn client_text(&self) -> &[u8] {
        match &self.fills {
            Some(fills) => fills.body.get(..fills.text_length).unwrap_or_default(),
            None => self.text(),
        }
    }

    /// The types of the client's parameters, as a server has settled them.
    pub fn client_parameters(&self) -> Option<&[u32]> {
        let types = &self.described.get()?.parameters;
        let count = self.fills.as_ref().map(|fills| fills.parameters);
        types.get(..count.unwrap_or(types.len()))
    }

    /// The statement's text.
    pub fn text(&self) -> &[u8] {
        self.body
            .split_at_checked(self.text_length)
            .map_or(&[], |(text, _)| text)
    }

    /// The types of Parse, with their number before them, as it brought them.
    pub fn types_declared(&self) -> &[u8] {
        let types = self.text_length.saturating_add(1);
        self.body.get(types..).unwrap_or_default()
    }

    /// The number of parameters whose types Parse declared.
    pub fn parameters_declared(&self) -> usize {
        let start = self.text_length.saturating_add(1);
        self.body
            .get(start..)
            .and_then(|rest| rest.first_chunk::<2>())
            .map_or(0, |count| usize::from(u16::from_be_bytes(*count)))
    }

    /// The type oid that Parse declared for parameter `index`, 0 when it declared none.
    pub fn parameter_type(&self, index: u16) -> u32 {
        let start = self
            .text_length
            .saturating_add(3)
            .saturating_add(usize::from(index).saturating_mul(4));
        self.body
            .get(start..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map_or(0, |oid| u32::from_be_bytes(*oid))
    }

    /// The types that Parse declared.
    pub fn declared(&self) -> impl Iterator<Item = u32> {
        let count = u16::try_from(self.parameters_declared()).unwrap_or(u16::MAX);
        (0..count).map(|index| self.parameter_type(index))
    }

    /// The type of a parameter, as Parse declared it or a server settled it; 0 when it is not known.
    pub fn settled_type(&self, index: usize) -> u32 {
        let declared = u16::try_from(index).map_or(0, |index| self.parameter_type(index));
        let settled = || Some(*self.described.get()?.parameters.get(index)?);
        if declared == 0 {
            settled().unwrap_or(0)
        } else {
            declared
        }
    }

    /// What follows the name in Parse, as a shard calls the types. One that it has not is put as one that
    /// no server has.
    pub fn body_on(&self, mapping: Option<&Mapping>) -> Cow<'_, [u8]> {
        let Some(mapping) = mapping.filter(|_| self.names_types) else {
            return Cow::Borrowed(&self.body);
        };
        let mut body = self.body.to_vec();
        let types = body.get_mut(self.text_length.saturating_add(3)..);
        let (types, _) = types.unwrap_or_default().as_chunks_mut::<4>();
        for kind in types {
            let other = mapping.type_oid(u32::from_be_bytes(*kind), Way::ToShard);
            *kind = other.unwrap_or(u32::MAX).to_be_bytes();
        }
        Cow::Owned(body)
    }

    /// What Parse brings, with the parameters' types as a server has settled them.
    pub fn typed_body(&self) -> Vec<u8> {
        let mut body = self.client_text().to_vec();
        body.push(0);
        let settled = self.client_parameters().unwrap_or_default();
        let types: Vec<u32> = settled
            .iter()
            .zip(0_u16..)
            .map(|(settled, index)| match self.parameter_type(index) {
                0 => *settled,
                declared => declared,
            })
            .collect();
        if types.is_empty() {
            let own = self.fills.as_ref().map_or(&self.body, |fills| &fills.body);
            return own.to_vec();
        }
        let count = u16::try_from(types.len()).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        for kind in types {
            body.extend_from_slice(&kind.to_be_bytes());
        }
        body
    }

    /// Whether the text holds a literal: what it means depends on settings.
    pub fn has_literals(text: &[u8]) -> bool {
        text.iter().any(|byte| *byte == b'\'' || !byte.is_ascii())
            || text
                .windows(2)
                .any(|pair| matches!(pair, [b'$', second] if !second.is_ascii_digit()))
    }

    /// Whether the text holds one of the literals that PostgreSQL folds while it parses: such a
    /// statement must be parsed for each execution.
    pub fn reads_clock_while_parsing(text: &[u8]) -> bool {
        const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
        text.contains(&b'\'')
            && WORDS.iter().any(|word| {
                text.windows(word.len())
                    .any(|window| window.eq_ignore_ascii_case(word))
            })
    }
}

/// What a server connection calls a statement: its id, and under which settings it was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName {
    pub id: u64,
    pub fingerprint: u32,
    pub epoch: u32,
}

impl ServerName {
    /// The name, with its terminating zero byte.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(b"pgherd_");
        out.extend_from_slice(buffer.format(self.id).as_bytes());
        if self.fingerprint != 0 {
            out.push(b'_');
            out.extend_from_slice(buffer.format(self.fingerprint).as_bytes());
        }
        if self.epoch != 0 {
            out.extend_from_slice(b"_e");
            out.extend_from_slice(buffer.format(self.epoch).as_bytes());
        }
        out.push(0);
    }
}

/// The statements one server connection has prepared.
#[derive(Debug, Default)]
pub struct ServerStatements {
    used: HashMap<ServerName, u64, FixedState>,
    tick: u64,
}

impl ServerStatements {
    /// Whether it is there; marks it as used.
    pub fn touch(&mut self, name: ServerName) -> bool {
        self.tick = self.tick.wrapping_add(1);
        match self.used.get_mut(&name) {
            Some(tick) => {
                *tick = self.tick;
                true
            }
            None => false,
        }
    }

    /// Notes one that is being parsed; returns those to be closed so that `limit` holds.
    /// An eighth is evicted at once, so that the search for the oldest is rare.
    pub fn insert(&mut self, name: ServerName, limit: usize) -> Vec<ServerName> {
        self.tick = self.tick.wrapping_add(1);
        self.used.insert(name, self.tick);
        if self.used.len() <= limit.max(1) {
            return Vec::new();
        }
        let mut by_age: Vec<(u64, ServerName)> = self
            .used
            .iter()
            .map(|(name, tick)| (*tick, *name))
            .collect();
        by_age.sort_unstable();
        let surplus = self.used.len().saturating_sub(limit.max(1)).max(limit / 8);
        let evicted: Vec<ServerName> = by_age
            .into_iter()
            .map(|(_, name)| name)
            .filter(|other| *other != name)
            .take(surplus)
            .collect();
        for name in &evicted {
            self.used.remove(name);
        }
        evicted
    }

    /// Forgets one: its Parse failed or it was closed.
    pub fn remove(&mut self, name: ServerName) {
        self.used.remove(&name);
    }

    /// Forgets all: DISCARD ALL or DEALLOCATE ALL ran on the server.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// Statements prepared on the connection.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// What a text means depends on this, besides the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The number of the search path.
    pub search_path: u32,
    /// Whether hints in comments count.
    pub comment_hints: bool,
    /// Whether it is for a tenant.
    pub tenant: bool,
    pub lexing: Lexing,
    /// Fingerprint of the settings that decide what literals mean; 0 for a text without any.
    pub literals: u32,
}

/// What a server says of a prepared statement: the types of its parameters, and its result's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub parameters: Box<[u32]>,
    /// Name, type and modifier of each column, as PostgreSQL compares them (`equalTupleDescs`); `None` without a result.
    pub columns: Option<Box<[ResultColumn]>>,
    /// Whether no value of these types names a type: none is an array or a composite of users' types.
    pub is_plain: bool,
}

impl Description {
    /// In the home shard's oids; `names` says of a type whether its values may name types.
    pub fn new(
        parameters: Box<[u32]>,
        columns: Option<Box<[ResultColumn]>>,
        names: impl Fn(u32) -> bool,
    ) -> Description {
        let of_columns = columns.iter().flatten().map(|column| column.kind);
        let is_plain = !parameters.iter().copied().chain(of_columns).any(names);
        Description {
            parameters,
            columns,
            is_plain,
        }
    }

    /// Whether the columns are the same.
    pub fn has_columns_of(&self, other: &Description) -> bool {
        let (Some(ours), Some(theirs)) = (&self.columns, &other.columns) else {
            return self.columns.is_none() && other.columns.is_none();
        };
        ours.len() == theirs.len()
            && ours.iter().zip(theirs).all(|(one, two)| {
                one.name == two.name && one.kind == two.kind && one.modifier == two.modifier
            })
    }
}

/// A statement that is new to an engine.
#[derive(Debug)]
pub struct NewStatement {
    pub reading: Reading,
    pub parsed_under: Rc<Settings>,
    pub text_length: usize,
    pub script: Rc<Script>,
    pub generation: u64,
    pub epoch: u32,
}

/// The statements an engine knows for one database, by what Parse brings.
#[derive(Debug, Default)]
pub struct Statements {
    by_body: HashMap<Box<[u8]>, Vec<Rc<Prepared>>, FixedState>,
    bytes: usize,
}

/// The number of the statement that was made last.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

impl Statements {
    /// The one with this body and reading, if known.
    pub fn get(&self, body: &[u8], reading: Reading) -> Option<&Rc<Prepared>> {
        self.by_body
            .get(body)?
            .iter()
            .find(|prepared| prepared.reading == reading)
    }

    /// Adds one. When the bytes held pass `limit`, those that no client holds are forgotten.
    pub fn insert(&mut self, body: &[u8], new: NewStatement, limit: u64) -> Rc<Prepared> {
        if u64::try_from(self.bytes).unwrap_or(u64::MAX) > limit {
            self.by_body.retain(|_, known| {
                known.retain(|prepared| Rc::strong_count(prepared) > 1);
                !known.is_empty()
            });
            self.bytes = self.by_body.keys().map(|body| cost(body)).sum();
        }
        let prepared = Rc::new(Prepared::new(body, new, None));
        self.bytes = self.bytes.saturating_add(cost(body));
        let known = self.by_body.entry(body.into()).or_default();
        known.push(Rc::clone(&prepared));
        prepared
    }

    /// Forgets everything no client holds: plans were made from a schema that is gone.
    pub fn clear(&mut self) {
        self.by_body.clear();
        self.bytes = 0;
    }

    /// Texts known.
    pub fn len(&self) -> usize {
        self.by_body.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_body.is_empty()
    }
}

/// Rough bytes of one entry: its body twice, its plan and the map's own share.
fn cost(body: &[u8]) -> usize {
    body.len().saturating_mul(2).saturating_add(600)
}

#[cfg(test)]
mod tests {
    use super::{Prepared, ServerName, ServerStatements};

    fn name(id: u64) -> ServerName {
        ServerName {
            id,
            fingerprint: 0,
            epoch: 0,
        }
    }

    #[test]
    fn oldest_are_evicted() {
        let mut statements = ServerStatements::default();
        for id in 0..4 {
            assert!(statements.insert(name(id), 4).is_empty());
        }
        assert!(statements.touch(name(0)));
        assert_eq!(statements.insert(name(9), 4), [name(1)]);
        assert!(
            statements.touch(name(0)) && !statements.touch(name(1)) && statements.touch(name(9))
        );
    }

    #[test]
    fn clock_words_are_seen() {
        assert!(Prepared::reads_clock_while_parsing(
            b"select 'Now'::timestamptz"
        ));
        assert!(!Prepared::reads_clock_while_parsing(b"select now()"));
    }

    #[test]
    fn names_are_short() {
        let mut out = Vec::new();
        ServerName {
            id: 7,
            fingerprint: 3,
            epoch: 2,
        }
        .write(&mut out);
        assert_eq!(out, b"pgherd_7_3_e2\0");
    }
}
