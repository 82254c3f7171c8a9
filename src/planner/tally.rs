//! How often each statement ran, where, and how long it took: what SHOW ROUTES tells.
//!
//! A [`Script`](crate::planner::plan::Script) holds the [`Tally`] of its text, so that counting looks
//! nothing up. Texts that differ only in their constants share one, as do plans of one text that were
//! made under different schemas. The [`Tallies`] of one engine and database hold so many bytes of them;
//! what was counted of others is told in one.
//!
//! *Invariant:* nothing that was counted is forgotten, it only loses its text.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use foldhash::fast::FixedState;

use crate::placement::{ShardId, ShardSet};
use crate::planner::plan::Route;
use crate::sql::mask::literal_free;
use crate::sql::scan::Lexing;

/// The way of one execution, in the words of EXPLAIN (ROUTE).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Answered by the proxy.
    Local,
    /// On one shard.
    Single,
    /// On several, each with the whole statement.
    Multi,
    /// On a twin, over rows fetched from several shards.
    Gather,
    /// An INSERT of which each shard gets its rows.
    Split,
    /// A COPY of which each shard gets its rows.
    Copy,
    /// Refused by the proxy.
    Refuse,
}

impl Way {
    const ALL: [Way; 7] = [
        Way::Local,
        Way::Single,
        Way::Multi,
        Way::Gather,
        Way::Split,
        Way::Copy,
        Way::Refuse,
    ];

    /// The way of a route.
    pub fn of(route: &Route) -> Way {
        match route {
            Route::Session | Route::Anywhere => Way::Local,
            Route::AnyShard | Route::Single(_) => Way::Single,
            Route::Concat(..) | Route::Each(_) | Route::Move(..) | Route::Broadcast { .. } => {
                Way::Multi
            }
            Route::Gather(_) => Way::Gather,
            Route::InsertSplit(_) | Route::InsertGathered(..) => Way::Split,
            Route::CopySplit(_) => Way::Copy,
        }
    }

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Way::Local => "local",
            Way::Single => "single",
            Way::Multi => "multi",
            Way::Gather => "gather",
            Way::Split => "split",
            Way::Copy => "copy",
            Way::Refuse => "refuse",
        }
    }
}

/// Where a statement went last by one way, or why it was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Last {
    #[default]
    None,
    Shards(ShardSet),
    Reason(String),
}

/// What was counted of one way.
#[derive(Debug, Default)]
struct Count {
    times: Cell<u64>,
    timed: Cell<u64>,
    micros: Cell<u64>,
    last: RefCell<Last>,
}

impl Count {
    fn add(&self, times: u64) {
        self.times.set(self.times.get().wrapping_add(times));
    }

    fn took(&self, times: u64, micros: u64) {
        self.timed.set(self.timed.get().wrapping_add(times));
        self.micros.set(self.micros.get().wrapping_add(micros));
    }
}

/// What was counted of one text.
#[derive(Debug, Default)]
pub struct Tally {
    local: Count,
    single: Count,
    /// Of `single`, where it went last.
    shard: Cell<Option<ShardId>>,
    multi: Count,
    gather: Count,
    split: Count,
    copy: Count,
    refuse: Count,
}

impl Tally {
    fn of(&self, way: Way) -> &Count {
        match way {
            Way::Local => &self.local,
            Way::Single => &self.single,
            Way::Multi => &self.multi,
            Way::Gather => &self.gather,
            Way::Split => &self.split,
            Way::Copy => &self.copy,
            Way::Refuse => &self.refuse,
        }
    }

    /// It was answered by the proxy.
    pub fn local(&self) {
        self.local.add(1);
    }

    /// It went to one shard.
    pub fn single(&self, shard: ShardId) {
        self.single.add(1);
        self.shard.set(Some(shard));
    }

    /// It went to several shards.
    pub fn several(&self, way: Way, shards: &ShardSet) {
        let count = self.of(way);
        count.add(1);
        count.last.replace(Last::Shards(shards.clone()));
    }

    /// It was refused, with this message.
    pub fn refuse(&self, message: &str) {
        /// A message holds names of the client's: more of it is not kept.
        const REASON_MAX: usize = 500;
        self.refuse.add(1);
        let kept = message.chars().take(REASON_MAX).collect();
        self.refuse.last.replace(Last::Reason(kept));
    }

    /// One execution that was counted has taken so many µs.
    pub fn took(&self, way: Way, micros: u64) {
        self.of(way).took(1, micros);
    }

    /// Adds what another has counted.
    fn add(&self, other: &Tally) {
        for way in Way::ALL {
            let (mine, theirs) = (self.of(way), other.of(way));
            mine.add(theirs.times.get());
            mine.took(theirs.timed.get(), theirs.micros.get());
        }
    }

    /// Appends a row for each way that the text went.
    fn rows(&self, text: Option<&str>, into: &mut Vec<Row>) {
        for way in Way::ALL {
            let count = self.of(way);
            if count.times.get() == 0 {
                continue;
            }
            let last = match (way, self.shard.get()) {
                _ if text.is_none() => Last::None,
                (Way::Single, Some(shard)) => {
                    let mut shards = ShardSet::new();
                    shards.insert(shard);
                    Last::Shards(shards)
                }
                _ => count.last.borrow().clone(),
            };
            into.push(Row {
                text: text.map(str::to_owned),
                way,
                times: count.times.get(),
                timed: count.timed.get(),
                micros: count.micros.get(),
                last,
            });
        }
    }
}

/// What was counted of one text by one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Without its constants. `None`: of all texts that are not told one by one.
    pub text: Option<String>,
    pub way: Way,
    pub times: u64,
    /// How many of them the time is known of.
    pub timed: u64,
    pub micros: u64,
    pub last: Last,
}

/// Bytes of a text that are kept; texts that begin with the same are one.
pub const TEXT_MAX: usize = 4_096;

/// The tallies of the texts of one engine and database.
#[derive(Debug)]
pub struct Tallies {
    by_text: HashMap<Rc<str>, Rc<Tally>, FixedState>,
    order: VecDeque<Rc<str>>,
    bytes: usize,
    budget: usize,
    /// Of all other texts.
    others: Rc<Tally>,
}

impl Tallies {
    /// None yet, of so many bytes, about.
    pub fn new(budget: usize, seed: u64) -> Tallies {
        Tallies {
            by_text: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: VecDeque::new(),
            bytes: 0,
            budget,
            others: Rc::default(),
        }
    }

    /// Where the executions of a text are counted.
    pub fn of(&mut self, text: &[u8], lexing: Lexing) -> Rc<Tally> {
        let Some(shown) = literal_free(text, lexing, TEXT_MAX) else {
            return Rc::clone(&self.others);
        };
        if let Some(known) = self.by_text.get(shown.as_str()) {
            return Rc::clone(known);
        }
        let bytes = size(&shown);
        if !self.make_room(bytes) {
            return Rc::clone(&self.others);
        }
        let (text, tally) = (Rc::<str>::from(shown), Rc::<Tally>::default());
        self.bytes += bytes;
        self.order.push_back(Rc::clone(&text));
        self.by_text.insert(text, Rc::clone(&tally));
        tally
    }

    /// Goes on with those of an earlier topology of the same database. What is new there from now on is
    /// counted with the others.
    pub fn take_over(&mut self, replaced: &mut Tallies) {
        let rest = Tallies {
            others: Rc::clone(&replaced.others),
            ..Tallies::new(0, 0)
        };
        let mut earlier = std::mem::replace(replaced, rest);
        earlier.budget = self.budget;
        for text in &self.order {
            let Some(tally) = self.by_text.get(text) else {
                continue;
            };
            match earlier.by_text.get(text) {
                Some(known) => known.add(tally),
                None => earlier.others.add(tally),
            }
        }
        earlier.others.add(&self.others);
        *self = earlier;
    }

    /// What was counted, of each text and way.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for text in &self.order {
            if let Some(tally) = self.by_text.get(text) {
                tally.rows(Some(text), &mut rows);
            }
        }
        self.others.rows(None, &mut rows);
        rows
    }

    /// Whether there is room for so much more. The oldest texts that no plan is held of go, a few at a
    /// time.
    fn make_room(&mut self, bytes: usize) -> bool {
        const STEPS: usize = 16;
        for _ in 0..STEPS {
            if self.bytes.saturating_add(bytes) <= self.budget {
                return true;
            }
            let Some(oldest) = self.order.pop_front() else {
                return false;
            };
            let is_held = |tally: &Rc<Tally>| Rc::strong_count(tally) > 1;
            if self.by_text.get(&oldest).is_some_and(is_held) {
                self.order.push_back(oldest);
            } else if let Some(gone) = self.by_text.remove(&oldest) {
                self.others.add(&gone);
                self.bytes = self.bytes.saturating_sub(size(&oldest));
            }
        }
        false
    }
}

/// Bytes that a text with its tally takes, about.
fn size(text: &str) -> usize {
    text.len() + size_of::<Tally>() + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tallies: &Tallies) -> Vec<String> {
        let row = |row: &Row| {
            let text = row.text.as_deref().unwrap_or("others");
            format!("{text}: {} {}", row.way.as_str(), row.times)
        };
        tallies.rows().iter().map(row).collect()
    }

    fn run(tallies: &mut Tallies, text: &str) -> Rc<Tally> {
        let tally = tallies.of(text.as_bytes(), Lexing::default());
        tally.single(ShardId(1));
        tally
    }

    #[test]
    fn texts_that_differ_in_constants_are_one() {
        let mut tallies = Tallies::new(1 << 20, 0);
        run(&mut tallies, "SELECT 1");
        run(&mut tallies, "SELECT  'x'").refuse("no");
        run(&mut tallies, "SELECT $1");
        assert_eq!(
            told(&tallies),
            ["SELECT $1: single 3", "SELECT $1: refuse 1"]
        );
    }

    #[test]
    fn what_is_forgotten_is_counted_with_the_others() {
        let mut tallies = Tallies::new(2 * size("SELECT a0"), 0);
        let held = run(&mut tallies, "SELECT a0");
        for index in 1..10 {
            run(&mut tallies, &format!("SELECT a{index}"));
        }
        held.single(ShardId(0));
        assert_eq!(
            told(&tallies),
            [
                "SELECT a0: single 2",
                "SELECT a9: single 1",
                "others: single 8"
            ]
        );
        run(&mut tallies, "SELECT 'unended");
        assert_eq!(told(&tallies).last().unwrap(), "others: single 9");
    }

    #[test]
    fn where_all_are_held_the_rest_are_others() {
        let mut tallies = Tallies::new(2 * size("SELECT a0"), 0);
        let held: Vec<_> = (0..5)
            .map(|index| run(&mut tallies, &format!("SELECT a{index}")))
            .collect();
        assert_eq!(held.len(), 5);
        assert_eq!(told(&tallies).last().unwrap(), "others: single 3");
    }

    #[test]
    fn an_earlier_count_is_taken_over() {
        let (mut old, mut new) = (Tallies::new(1 << 20, 0), Tallies::new(1 << 20, 0));
        let held = run(&mut old, "SELECT a");
        run(&mut new, "SELECT a");
        new.take_over(&mut old);
        run(&mut old, "SELECT b");
        held.single(ShardId(0));
        assert_eq!(told(&new), ["SELECT a: single 3", "others: single 1"]);
    }
}
