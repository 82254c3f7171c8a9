//! Prepared statements: one for each text and types, whatever clients call it, and which of them a
//! server connection has.
//!
//! Clients' names are mapped to a [`Prepared`]; on a server connection it is called by its id and
//! the fingerprint of the settings that parsing reads. Sans-IO.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::FixedState;

use crate::planner::plan::Script;
use crate::sql::scan::Lexing;

/// A statement as Parse brought it, shared by all clients of an engine that sent the same.
#[derive(Debug)]
pub struct Prepared {
    pub id: u32,
    /// What follows the name in Parse: the text, a zero byte, the number of types and the types.
    pub body: Box<[u8]>,
    /// Length of the text within `body`.
    pub text_length: usize,
    pub script: Rc<Script>,
    /// The schema epoch it was planned in.
    pub epoch: u32,
    /// How often an unnamed Parse brought it.
    pub uses: Cell<u32>,
    /// Whether an unnamed Parse of it may stay prepared on a server.
    pub promotable: bool,
    /// The schema epoch and the parser fingerprint under which a server last accepted it.
    pub accepted: Cell<Option<(u64, u32)>>,
}

impl Prepared {
    /// The statement's text.
    pub fn text(&self) -> &[u8] {
        self.body
            .split_at_checked(self.text_length)
            .map_or(&[], |(text, _)| text)
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
    pub id: u32,
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

/// What a text's plan depends on besides the schema: the number of the search path, whether hints in
/// comments count, and how the text is read.
pub type Reading = (u32, bool, Lexing);

/// A statement, and how its text was read.
type Known = (Reading, Rc<Prepared>);

/// The statements an engine knows for one database, by what Parse brings.
#[derive(Debug, Default)]
pub struct Statements {
    by_body: HashMap<Box<[u8]>, Vec<Known>, FixedState>,
    bytes: usize,
    next: u32,
}

impl Statements {
    /// The one with this body and reading, if known.
    pub fn get(&self, body: &[u8], reading: Reading) -> Option<&Rc<Prepared>> {
        self.by_body
            .get(body)?
            .iter()
            .find(|(known, _)| *known == reading)
            .map(|(_, prepared)| prepared)
    }

    /// Adds one. When the bytes held pass `limit`, those that no client holds are forgotten.
    pub fn insert(
        &mut self,
        body: &[u8],
        reading: Reading,
        text_length: usize,
        script: Rc<Script>,
        epoch: u32,
        limit: u64,
    ) -> Rc<Prepared> {
        if u64::try_from(self.bytes).unwrap_or(u64::MAX) > limit {
            self.by_body.retain(|_, known| {
                known.retain(|(_, prepared)| Rc::strong_count(prepared) > 1);
                !known.is_empty()
            });
            self.bytes = self.by_body.keys().map(|body| cost(body)).sum();
        }
        self.next = self.next.wrapping_add(1);
        let text = body.get(..text_length).unwrap_or_default();
        let prepared = Rc::new(Prepared {
            id: self.next,
            body: body.into(),
            text_length,
            script,
            epoch,
            uses: Cell::new(0),
            promotable: !Prepared::reads_clock_while_parsing(text),
            accepted: Cell::new(None),
        });
        self.bytes = self.bytes.saturating_add(cost(body));
        let known = self.by_body.entry(body.into()).or_default();
        known.push((reading, Rc::clone(&prepared)));
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

    fn name(id: u32) -> ServerName {
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
