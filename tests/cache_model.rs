//! The protocol by which the cache is kept right, tried out in every order of its steps.
//!
//! One key, some writers and readers. A writer marks the tag, commits, and gives the tag another value before
//! its client hears of it; a reader gives what is kept under the tag's value, or reads the database and keeps
//! that under the value that the tag had before. What must hold:
//!
//! - *own*: a read sees every write that was acknowledged before it began;
//! - *linear*: and nothing older than what another read that was over had seen;
//! - *quiet*: when nothing is under way, nothing is kept that is older than the database.
//!
//! Variants that leave a step out must be found wrong, or the search would prove nothing.

use std::collections::{HashSet, VecDeque};

const WRITERS: usize = 2;
const READERS: usize = 3;

/// How writes and reads go about it, and what may happen to them.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a step that is taken or not, whatever the others say"
)]
struct Variant {
    /// The tag is marked before the commit.
    marks: bool,
    /// The tag gets another value after the commit, before the client hears of it.
    bumps: bool,
    /// A client may be told without, because the tags could not be reached; the mark was set.
    may_not_bump: bool,
    /// What is kept counts only under the value that the tag had before it was read.
    compares: bool,
    /// Values count up from where they are, instead of being new ones.
    counts: bool,
    /// The tag may be lost.
    loses_tags: bool,
    /// A proxy may die between commit and acknowledgement; its mark ends by itself.
    dies: bool,
    /// Reads may come from a replica that lags behind.
    reads_replica: bool,
}

const OURS: Variant = Variant {
    marks: true,
    bumps: true,
    may_not_bump: false,
    compares: true,
    counts: false,
    loses_tags: false,
    dies: false,
    reads_replica: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Writer {
    Idle,
    Marked,
    Committed(u8),
    Bumped(u8),
    Acknowledged,
    /// Acknowledged, or dead, with the mark still set.
    Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reader {
    Idle,
    /// With what it must not be older than: by acknowledgements, and by all that was seen.
    Started(u8, u8),
    /// The tag's value before, where it may keep what it reads.
    Missed(u8, u8, Option<u8>),
    Read(u8, Option<u8>),
    Done,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    database: u8,
    replica: u8,
    /// 0: there is none.
    tag: u8,
    pending: [bool; WRITERS],
    /// The version that is kept, and the tag's value then.
    entry: Option<(u8, u8)>,
    last_value: u8,
    acknowledged: u8,
    seen: u8,
    writers: [Writer; WRITERS],
    readers: [Reader; READERS],
}

/// What was found not to hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Broken {
    own: bool,
    linear: bool,
    quiet: bool,
}

impl State {
    fn is_pending(&self) -> bool {
        self.pending.contains(&true)
    }

    fn kept(&self, variant: Variant) -> Option<u8> {
        let (version, value) = self.entry?;
        let counts = !variant.compares || (self.tag != 0 || variant.counts) && value == self.tag;
        (counts && !self.is_pending()).then_some(version)
    }

    fn renew(&mut self, variant: Variant) {
        if !variant.compares {
            self.entry = None;
        } else if variant.counts {
            self.tag += 1;
        } else {
            self.last_value += 1;
            self.tag = self.last_value;
        }
    }

    /// Readers are alike, and values matter only by which are equal.
    fn canonical(mut self, variant: Variant) -> State {
        if !variant.counts {
            let mut names: Vec<u8> = Vec::new();
            let mut name = |value: u8| {
                if value == 0 {
                    return 0;
                }
                let at = names.iter().position(|known| *known == value);
                let at = at.unwrap_or_else(|| {
                    names.push(value);
                    names.len() - 1
                });
                u8::try_from(at + 1).unwrap()
            };
            self.tag = name(self.tag);
            self.entry = self.entry.map(|(version, value)| (version, name(value)));
            for reader in &mut self.readers {
                *reader = match *reader {
                    Reader::Missed(a, b, Some(value)) => Reader::Missed(a, b, Some(name(value))),
                    Reader::Read(version, Some(value)) => Reader::Read(version, Some(name(value))),
                    Reader::Idle
                    | Reader::Started(..)
                    | Reader::Missed(..)
                    | Reader::Read(..)
                    | Reader::Done => *reader,
                };
            }
            self.last_value = u8::try_from(names.len()).unwrap();
        }
        self.readers.sort_unstable();
        self
    }
}

/// Takes a step: what it changes of the state.
type Push<'a> = dyn FnMut(&dyn Fn(&mut State)) + 'a;

fn steps(variant: Variant, state: &State, broken: &mut Broken) -> Vec<State> {
    let mut next = Vec::new();
    let mut push = |change: &dyn Fn(&mut State)| {
        let mut state = state.clone();
        change(&mut state);
        next.push(state.canonical(variant));
    };
    write_steps(variant, state, &mut push);
    read_steps(variant, state, broken, &mut push);
    if variant.loses_tags && state.tag != 0 {
        push(&|state| state.tag = 0);
    }
    if variant.reads_replica && state.replica < state.database {
        push(&|state| state.replica += 1);
    }
    next
}

fn write_steps(variant: Variant, state: &State, push: &mut Push<'_>) {
    for at in 0..WRITERS {
        match state.writers[at] {
            Writer::Idle => push(&|state| {
                if variant.marks {
                    state.renew(variant);
                    state.pending[at] = true;
                }
                state.writers[at] = Writer::Marked;
            }),
            Writer::Marked => push(&|state| {
                state.database += 1;
                state.writers[at] = Writer::Committed(state.database);
            }),
            Writer::Committed(version) => {
                let acknowledge = |state: &mut State, then| {
                    state.acknowledged = state.acknowledged.max(version);
                    state.seen = state.seen.max(version);
                    state.writers[at] = then;
                };
                if variant.dies {
                    push(&|state| state.writers[at] = Writer::Left);
                }
                if variant.may_not_bump {
                    push(&|state| acknowledge(state, Writer::Left));
                }
                if variant.bumps {
                    push(&|state| {
                        state.renew(variant);
                        state.pending[at] = false;
                        state.writers[at] = Writer::Bumped(version);
                    });
                } else {
                    push(&|state| acknowledge(state, Writer::Acknowledged));
                }
            }
            Writer::Bumped(version) => push(&|state| {
                state.acknowledged = state.acknowledged.max(version);
                state.seen = state.seen.max(version);
                state.writers[at] = Writer::Acknowledged;
            }),
            Writer::Left if state.pending[at] => push(&|state| {
                state.renew(variant);
                state.pending[at] = false;
            }),
            Writer::Left | Writer::Acknowledged => (),
        }
    }
}

fn read_steps(variant: Variant, state: &State, broken: &mut Broken, push: &mut Push<'_>) {
    for at in 0..READERS {
        match state.readers[at] {
            Reader::Idle => push(&|state| {
                state.readers[at] = Reader::Started(state.acknowledged, state.seen);
            }),
            Reader::Started(own, linear) => {
                if let Some(version) = state.kept(variant) {
                    broken.own |= version < own;
                    broken.linear |= version < linear;
                    push(&|state| {
                        state.seen = state.seen.max(version);
                        state.readers[at] = Reader::Done;
                    });
                } else {
                    push(&|state| {
                        if state.tag == 0 && !variant.counts {
                            state.last_value += 1;
                            state.tag = state.last_value;
                        }
                        let may_keep = !state.is_pending();
                        state.readers[at] =
                            Reader::Missed(own, linear, may_keep.then_some(state.tag));
                    });
                }
            }
            Reader::Missed(_, _, value) => push(&|state| {
                let version = if variant.reads_replica {
                    state.replica
                } else {
                    state.seen = state.seen.max(state.database);
                    state.database
                };
                state.readers[at] = Reader::Read(version, value);
            }),
            Reader::Read(version, value) => push(&|state| {
                let is_same = value == Some(state.tag) && !state.is_pending();
                if !variant.compares {
                    state.entry = Some((version, 0));
                } else if let (true, Some(value)) = (is_same, value) {
                    state.entry = Some((version, value));
                }
                state.readers[at] = Reader::Done;
            }),
            Reader::Done => (),
        }
    }
}

/// Goes through every order of steps.
fn explore(variant: Variant) -> Broken {
    let start = State {
        database: 0,
        replica: 0,
        tag: 1,
        pending: [false; WRITERS],
        entry: Some((0, u8::from(variant.compares))),
        last_value: 1,
        acknowledged: 0,
        seen: 0,
        writers: [Writer::Idle; WRITERS],
        readers: [Reader::Idle; READERS],
    };
    let mut broken = Broken::default();
    let mut seen = HashSet::from([start.clone()]);
    let mut open = VecDeque::from([start]);
    while let Some(state) = open.pop_front() {
        let is_quiet = state
            .writers
            .iter()
            .all(|writer| matches!(writer, Writer::Acknowledged | Writer::Left))
            && state
                .readers
                .iter()
                .all(|reader| matches!(reader, Reader::Idle | Reader::Done))
            && !state.is_pending()
            && (!variant.reads_replica || state.replica == state.database);
        if is_quiet
            && state
                .kept(variant)
                .is_some_and(|version| version < state.database)
        {
            broken.quiet = true;
        }
        for next in steps(variant, &state, &mut broken) {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    broken
}

const RIGHT: Broken = Broken {
    own: false,
    linear: false,
    quiet: false,
};

#[test]
fn what_we_do_is_right() {
    assert_eq!(explore(OURS), RIGHT);
}

#[test]
fn it_is_right_where_tags_are_lost_and_proxies_die() {
    let variant = Variant {
        loses_tags: true,
        dies: true,
        ..OURS
    };
    assert_eq!(explore(variant), RIGHT);
}

#[test]
fn it_is_right_where_the_end_of_a_write_is_not_told() {
    let variant = Variant {
        may_not_bump: true,
        ..OURS
    };
    assert_eq!(explore(variant), RIGHT);
}

#[test]
fn without_a_mark_reads_go_back_in_time() {
    let broken = explore(Variant {
        marks: false,
        ..OURS
    });
    assert!(broken.linear && !broken.own && !broken.quiet, "{broken:?}");
}

#[test]
fn without_comparing_old_answers_stay() {
    let broken = explore(Variant {
        marks: false,
        compares: false,
        ..OURS
    });
    assert!(broken.own && broken.linear && broken.quiet, "{broken:?}");
}

#[test]
fn values_that_count_up_come_again() {
    let broken = explore(Variant {
        marks: false,
        counts: true,
        loses_tags: true,
        ..OURS
    });
    assert!(broken.own && broken.quiet, "{broken:?}");
}

#[test]
fn a_replica_is_not_read_for_others() {
    let broken = explore(Variant {
        reads_replica: true,
        ..OURS
    });
    assert!(broken.linear && broken.quiet, "{broken:?}");
}
