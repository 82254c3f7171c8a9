//! What drops answers by the values of an indexed column, tried out in every order of its steps.
//!
//! One row, with a value of two, and a list for each value. A *changer* writes the row by its key and does not
//! name the column: it locks the row, looks at its value in its transaction, marks the list of that value, commits,
//! and gives the tag another value. A *mover* changes the column: it marks what every list depends on. Readers give
//! what is kept, or read the database and keep that.
//!
//! What must hold: nothing is given that is older than what was acknowledged, or seen by a read that was over,
//! before it was asked for; and when nothing is under way nothing is kept that is older than the database.
//! Variants that look at another moment, or leave a mark out, must be found wrong.

use std::collections::{HashSet, VecDeque};

const WRITERS: usize = 2;
const READERS: usize = 2;
/// Commits, at most, and the first state.
const VERSIONS: usize = WRITERS + 1;

/// When a changer looks at the value of the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Under its own lock, before it commits.
    Locked,
    /// Before it writes.
    Before,
    /// After its commit.
    After,
}

#[derive(Clone, Copy, Debug)]
struct Variant {
    look: Look,
    /// A mover marks all lists, and not that of the value that it writes alone.
    moves_all: bool,
    /// The writers, each a mover or a changer.
    movers: [bool; WRITERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Writer {
    Idle,
    /// With the value that it has looked at.
    Looked(Option<u8>),
    /// It has the lock.
    Locked(Option<u8>),
    /// Its tags are marked.
    Marked(Option<u8>),
    /// With the version that it made.
    Committed(Option<u8>, u8),
    Bumped(u8),
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reader {
    Idle,
    /// The list, and what it must not be older than.
    Started(u8, u8),
    /// The values of its tags before, where it may keep what it reads.
    Missed(u8, u8, Option<[u8; 2]>),
    Read(u8, u8, Option<[u8; 2]>),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The value of the row after each commit.
    values: Vec<u8>,
    holder: Option<usize>,
    /// Versions of the tags: of each list, and of what all depend on.
    tags: [u8; 3],
    /// Marks of each writer, by tag.
    pending: [[bool; 3]; WRITERS],
    /// What is kept of each list: the version that was read, and the tags then.
    kept: [Option<(u8, [u8; 2])>; 2],
    seen: u8,
    writers: [Writer; WRITERS],
    readers: [Reader; READERS],
}

const ALL: usize = 2;

impl State {
    fn version(&self) -> u8 {
        u8::try_from(self.values.len() - 1).unwrap()
    }

    fn value(&self) -> u8 {
        *self.values.last().unwrap()
    }

    /// Whether the list of a value changed by the commits after one version and up to another.
    fn changed(&self, list: u8, after: u8, until: u8) -> bool {
        (after..until).any(|version| {
            let at = usize::from(version);
            self.values[at] == list || self.values[at + 1] == list
        })
    }

    fn is_pending(&self, tag: usize) -> bool {
        self.pending.iter().any(|marks| marks[tag])
    }

    fn tags_of(&self, list: u8) -> Option<[u8; 2]> {
        let own = usize::from(list);
        let free = !self.is_pending(own) && !self.is_pending(ALL);
        free.then_some([self.tags[own], self.tags[ALL]])
    }

    fn given(&self, list: u8) -> Option<u8> {
        let (version, tags) = self.kept[usize::from(list)]?;
        (self.tags_of(list) == Some(tags)).then_some(version)
    }

    fn mark(&mut self, writer: usize, tag: usize) {
        self.pending[writer][tag] = true;
        self.tags[tag] += 1;
    }

    fn bump(&mut self, writer: usize) {
        for tag in 0..3 {
            if std::mem::take(&mut self.pending[writer][tag]) {
                self.tags[tag] += 1;
            }
        }
    }
}

/// What was found not to hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Broken {
    linear: bool,
    quiet: bool,
}

fn write_steps(variant: Variant, state: &State, at: usize, push: &mut dyn FnMut(State)) {
    let is_mover = variant.movers[at];
    let mut next = state.clone();
    match state.writers[at] {
        Writer::Idle => {
            let looks = !is_mover && variant.look == Look::Before;
            next.writers[at] = Writer::Looked(looks.then(|| state.value()));
            push(next);
        }
        Writer::Looked(seen) if state.holder.is_none() => {
            next.holder = Some(at);
            next.writers[at] = Writer::Locked(seen);
            push(next);
        }
        Writer::Locked(seen) => {
            let seen = match variant.look {
                Look::Locked if !is_mover => Some(state.value()),
                Look::Locked | Look::Before | Look::After => seen,
            };
            if is_mover {
                let tag = if variant.moves_all {
                    ALL
                } else {
                    usize::from(1 - state.value())
                };
                next.mark(at, tag);
            } else if let Some(value) = seen {
                next.mark(at, usize::from(value));
            }
            next.writers[at] = Writer::Marked(seen);
            push(next);
        }
        Writer::Marked(seen) => {
            let value = state.value();
            next.values.push(if is_mover { 1 - value } else { value });
            next.holder = None;
            next.writers[at] = Writer::Committed(seen, next.version());
            push(next);
        }
        Writer::Committed(_, version) => {
            if !is_mover && variant.look == Look::After {
                let value = usize::from(state.value());
                next.mark(at, value);
            }
            next.bump(at);
            next.writers[at] = Writer::Bumped(version);
            push(next);
        }
        Writer::Bumped(version) => {
            next.seen = next.seen.max(version);
            next.writers[at] = Writer::Done;
            push(next);
        }
        Writer::Looked(_) | Writer::Done => (),
    }
}

fn read_steps(state: &State, at: usize, broken: &mut Broken, push: &mut dyn FnMut(State)) {
    let mut next = state.clone();
    match state.readers[at] {
        Reader::Idle => {
            for list in 0..2 {
                let mut next = state.clone();
                next.readers[at] = Reader::Started(list, state.seen);
                push(next);
            }
        }
        Reader::Started(list, floor) => {
            if let Some(version) = state.given(list) {
                broken.linear |= version < floor && state.changed(list, version, floor);
                // Whoever has seen it has seen the database since the list was so.
                next.seen = next.seen.max(version);
                next.readers[at] = Reader::Done;
            } else {
                next.readers[at] = Reader::Missed(list, floor, state.tags_of(list));
            }
            push(next);
        }
        Reader::Missed(list, _, tags) => {
            next.seen = next.seen.max(state.version());
            next.readers[at] = Reader::Read(list, state.version(), tags);
            push(next);
        }
        Reader::Read(list, version, tags) => {
            if tags.is_some() && state.tags_of(list) == tags {
                next.kept[usize::from(list)] = tags.map(|tags| (version, tags));
            }
            next.readers[at] = Reader::Done;
            push(next);
        }
        Reader::Done => (),
    }
}

/// Goes through every order of steps.
fn explore(variant: Variant) -> Broken {
    let start = State {
        values: vec![0],
        holder: None,
        tags: [0; 3],
        pending: [[false; 3]; WRITERS],
        kept: [Some((0, [0, 0])), None],
        seen: 0,
        writers: [Writer::Idle; WRITERS],
        readers: [Reader::Idle; READERS],
    };
    let mut broken = Broken::default();
    let mut seen = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    while let Some(state) = open.pop_front() {
        assert!(state.values.len() <= VERSIONS);
        let is_quiet = state.writers.iter().all(|writer| *writer == Writer::Done)
            && state
                .readers
                .iter()
                .all(|reader| matches!(reader, Reader::Idle | Reader::Done));
        if is_quiet {
            broken.quiet |= (0..2).any(|list| {
                let given = state.given(list);
                given.is_some_and(|version| state.changed(list, version, state.version()))
            });
        }
        let mut next = Vec::new();
        for at in 0..WRITERS {
            write_steps(variant, &state, at, &mut |state| next.push(state));
        }
        for at in 0..READERS {
            read_steps(&state, at, &mut broken, &mut |state| next.push(state));
        }
        for mut state in next {
            state.readers.sort_unstable();
            if seen.insert(state.clone()) {
                open.push_back(state);
            }
        }
    }
    broken
}

const ALL_WRITERS: [[bool; WRITERS]; 3] = [[false, false], [false, true], [true, true]];

#[test]
fn what_we_do_is_right() {
    for movers in ALL_WRITERS {
        let variant = Variant {
            look: Look::Locked,
            moves_all: true,
            movers,
        };
        assert_eq!(explore(variant), Broken::default(), "{movers:?}");
    }
}

#[test]
fn a_value_that_was_looked_at_before_may_be_another_by_then() {
    let broken = explore(Variant {
        look: Look::Before,
        moves_all: true,
        movers: [false, true],
    });
    assert!(broken.linear && broken.quiet, "{broken:?}");
}

#[test]
fn a_value_that_is_looked_at_after_the_commit_is_marked_too_late() {
    let broken = explore(Variant {
        look: Look::After,
        moves_all: true,
        movers: [false, false],
    });
    assert!(broken.linear, "{broken:?}");
}

#[test]
fn a_row_that_moves_is_missing_where_it_was() {
    let broken = explore(Variant {
        look: Look::Locked,
        moves_all: false,
        movers: [true, true],
    });
    assert!(broken.linear && broken.quiet, "{broken:?}");
}
