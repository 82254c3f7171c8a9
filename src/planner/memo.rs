//! Plans already made, of one engine: no lock, and no allocation on a hit.
//!
//! A simple query is looked up by its literal-free form, so that changing constants hit; a Parse by
//! its exact text. What a plan depends on besides is its [`Scope`]. The oldest plans that were not
//! used since they were last passed over go first, when the bytes are spent.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher};
use std::rc::Rc;

use foldhash::fast::FixedState;

use crate::planner::context::Context;
use crate::planner::plan::{Access, Gather, KeyOperands, Looked, Operand, Script};
use crate::planner::script::script;
use crate::planner::tally::{self, Tallies};
use crate::sql::mask::Masked;
use crate::sql::scan::Lexing;

/// What tells one plan of a text from another: the caller numbers databases and search paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub database: u32,
    /// Of the topology and the catalog; a new one makes all older plans unreachable.
    pub epoch: u64,
    pub search_path: u32,
    pub lexing: Lexing,
    pub comment_hints: bool,
    pub tenant: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Template,
    Exact,
}

#[derive(Debug)]
struct Entry {
    scope: Scope,
    form: Form,
    text: Box<[u8]>,
    script: Rc<Script>,
    bytes: usize,
    used: bool,
}

/// The memo.
#[derive(Debug)]
pub struct Memo {
    hasher: FixedState,
    /// By hash; two texts of one hash push each other out.
    entries: HashMap<u64, Entry, FixedState>,
    order: VecDeque<u64>,
    bytes: usize,
    budget: usize,
    hits: u64,
    misses: u64,
    tallies: Tallies,
}

impl Default for Memo {
    fn default() -> Memo {
        Memo::new(64 << 20, 0)
    }
}

impl Memo {
    /// An empty one of this many bytes, about. The seed keeps clients from choosing texts whose
    /// hashes meet.
    pub fn new(budget: usize, seed: u64) -> Memo {
        Memo {
            hasher: FixedState::with_seed(seed),
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: VecDeque::new(),
            bytes: 0,
            budget,
            hits: 0,
            misses: 0,
            tallies: Tallies::new(budget / 8, seed),
        }
    }

    /// The plan of a simple query. `masked` is filled anew; its literals are those that the plan's
    /// operands count.
    pub fn simple(
        &mut self,
        text: &[u8],
        scope: Scope,
        context: Context<'_>,
        masked: &mut Masked,
    ) -> Rc<Script> {
        if masked.read(text, scope.lexing).is_err() {
            return self.make(text, context);
        }
        if masked.is_shared()
            && let Some(found) = self.find(Form::Template, masked.template(), scope)
        {
            return found;
        }
        if let Some(found) = self.find(Form::Exact, text, scope) {
            return found;
        }
        let made = self.make(text, context);
        if masked.is_shared() && made.reusable {
            self.keep(Form::Template, masked.template(), scope, &made);
        } else {
            self.keep(Form::Exact, text, scope, &made);
        }
        made
    }

    /// The plan of a Parse. The literals that its operands count are the script's own.
    pub fn extended(&mut self, text: &[u8], scope: Scope, context: Context<'_>) -> Rc<Script> {
        if let Some(found) = self.find(Form::Exact, text, scope) {
            return found;
        }
        let made = self.make(text, context);
        self.keep(Form::Exact, text, scope, &made);
        made
    }

    /// Forgets all plans; what was counted of them stays.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// Plans held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Look-ups that found a plan, and those that made one.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }

    /// What was counted of the texts, by those who ran them.
    pub fn tallies(&self) -> Vec<tally::Row> {
        self.tallies.rows()
    }

    /// Goes on with the counts of the memo that it replaces.
    pub fn take_over(&mut self, replaced: &mut Memo) {
        self.tallies.take_over(&mut replaced.tallies);
    }

    /// A plan that is not held yet.
    fn make(&mut self, text: &[u8], context: Context<'_>) -> Rc<Script> {
        self.misses += 1;
        let mut made = script(text, context);
        made.tally = self.tallies.of(text, context.lexing);
        Rc::new(made)
    }

    fn hash(&self, form: Form, text: &[u8], scope: Scope) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        form.hash(&mut hasher);
        scope.hash(&mut hasher);
        hasher.write(text);
        hasher.finish()
    }

    fn find(&mut self, form: Form, text: &[u8], scope: Scope) -> Option<Rc<Script>> {
        let hash = self.hash(form, text, scope);
        let entry = self.entries.get_mut(&hash)?;
        if entry.form != form || entry.scope != scope || *entry.text != *text {
            return None;
        }
        entry.used = true;
        self.hits += 1;
        Some(Rc::clone(&entry.script))
    }

    fn keep(&mut self, form: Form, text: &[u8], scope: Scope, script: &Rc<Script>) {
        let bytes = size(text, script);
        // One text must not push out all others.
        if bytes > self.budget / 8 {
            return;
        }
        let hash = self.hash(form, text, scope);
        let entry = Entry {
            scope,
            form,
            text: text.into(),
            script: Rc::clone(script),
            bytes,
            used: false,
        };
        self.bytes += bytes;
        match self.entries.insert(hash, entry) {
            Some(old) => self.bytes = self.bytes.saturating_sub(old.bytes),
            None => self.order.push_back(hash),
        }
        self.shrink();
    }

    /// Second chance: what was used since it was last passed over goes to the back.
    fn shrink(&mut self) {
        while self.bytes > self.budget {
            let Some(hash) = self.order.pop_front() else {
                return;
            };
            let Some(entry) = self.entries.get_mut(&hash) else {
                continue;
            };
            if std::mem::take(&mut entry.used) {
                self.order.push_back(hash);
            } else if let Some(gone) = self.entries.remove(&hash) {
                self.bytes = self.bytes.saturating_sub(gone.bytes);
            }
        }
    }
}

/// Bytes an operand takes, about.
fn weight(operand: &Operand) -> usize {
    let own = size_of::<Operand>();
    match operand {
        Operand::Computed(computation) => {
            let rest = computation.1.iter().map(|(_, operand)| 8 + weight(operand));
            own + 64 + weight(&computation.0) + rest.sum::<usize>()
        }
        Operand::Between(interval) => {
            let bounds = interval.lows.iter().chain(&interval.highs);
            own + 64
                + bounds
                    .map(|bound| 16 + weight(&bound.operand))
                    .sum::<usize>()
        }
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Elements(_)
        | Operand::LiteralElements(_)
        | Operand::Null => own,
        Operand::Id(inner) | Operand::Carried(inner) | Operand::Key(inner) => own + weight(inner),
        Operand::Looked(looked) => own + size_of::<Looked>() + weight(&looked.value),
    }
}

/// Bytes that is known of a read for a twin takes, about.
fn weight_of(gather: &Gather) -> usize {
    let words = gather.words.iter().flat_map(|words| words.iter());
    512 + words.map(|word| 64 + word.len()).sum::<usize>()
}

/// Bytes a plan takes, about: the text, the entry and the statements with their keys.
fn size(text: &[u8], script: &Script) -> usize {
    let keys: usize = script
        .statements
        .iter()
        .map(|statement| match &statement.access {
            Access::Keyed(keyed) => {
                let of_key = |key: &KeyOperands| 24 + key.iter().map(weight).sum::<usize>();
                let keys = keyed.keys.iter().flatten().map(of_key);
                let entries = keyed.entries.iter().flat_map(|entries| &entries.rows);
                let entries = entries.map(|(value, key)| weight(value) + of_key(key));
                let gather = keyed.gather.as_deref().map_or(0, weight_of);
                keys.chain(entries).sum::<usize>() + gather
            }
            Access::Generate(generate) => 512 + generate.keys.len() * 96,
            Access::Session
            | Access::Anywhere
            | Access::Bound
            | Access::Home
            | Access::AnyShard
            | Access::Broadcast { .. }
            | Access::CopySplit(_)
            | Access::Shard(_)
            | Access::Refuse(_) => 0_usize,
            Access::Gather(gather) => weight_of(gather),
        })
        .sum();
    text.len() + 256 + script.statements.len() * 768 + script.literals.len() * 16 + keys
}
