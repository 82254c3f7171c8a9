//! What the planner decides: the plan of a statement, and the route of one execution of it.
//!
//! A [`Script`] is made once for a text (or for its literal-free form) and memoised; a [`Route`]
//! is worked out for each execution from the plan and the values at hand, without allocation on
//! the single-shard path.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Lookup;
use crate::error::Fault;
use crate::merge::Finish;
use crate::placement::rule::{Directory, Listed};
use crate::placement::{ShardId, ShardSet};
use crate::planner::cache::Verdict;
use crate::planner::tally::Tally;
use crate::sql::cursor::Name;
use crate::sql::fill::Fill;
use crate::sql::mask::Literal as Span;
use crate::sql::statement::Arithmetic;
use crate::types::key::{Key, KeyType};
use crate::wire::copy::Format;

/// The plan of one text of the simple protocol, or of one Parse: nothing, one or several statements.
#[derive(Clone, Debug)]
pub struct Script {
    /// Empty for an empty query.
    pub statements: Vec<Statement>,
    /// Whether it serves every text with the same literal-free form, not only its own.
    pub reusable: bool,
    /// Where the numbered literals stand. Only exact for the text it was made from.
    pub literals: Box<[Span]>,
    /// How long it took lately, for whoever runs it.
    pub pace: Pace,
    /// What is counted of its text.
    pub tally: Rc<Tally>,
}

/// How long a statement took the last times, rather the shorter ones: from being sent, or from the end
/// of what was sent before it on its connection, to the end of its answer.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// In µs; 0 before the first.
    micros: Cell<u32>,
}

impl Pace {
    /// Notes one execution.
    pub fn note(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        // What made it slow once is mostly not the statement: it falls faster than it rises.
        let next = match self.micros.get() {
            0 => took,
            before if took < before => before - (before - took) / 2,
            before => before + (took - before) / 16,
        };
        self.micros.set(next.max(1));
    }

    /// What it takes, if it ran before.
    pub fn usual(&self) -> Option<Duration> {
        let micros = self.micros.get();
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }
}

/// The plan of one statement.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Its text within the script, without the semicolon. Only exact for the text it was made from.
    pub span: Range<usize>,
    /// The first word or two of its command tag, upper case, as in `SELECT` or `CREATE TABLE`.
    pub verb: &'static str,
    /// What the session must know of it besides where it runs.
    pub effect: Effect,
    pub access: Access,
    /// Whether it can write: false only where proven free of side effects.
    pub writes: bool,
    /// Whether it may run twice: it reads tables of the catalog, and calls nothing of the user's.
    pub repeatable: bool,
    /// Whether it mentions no table of the database's own (catalog-only and table-less statements
    /// do not bind a block to a shard when `access` is `Anywhere`).
    pub has_tables: bool,
    /// Whether PostgreSQL refuses it inside a transaction block (VACUUM, CREATE DATABASE, CREATE INDEX CONCURRENTLY…).
    pub no_block: bool,
    /// Whether it reads what an earlier statement left on the same server connection (`lastval()`,
    /// `currval()`): outside a block that would be another client's, so it is refused there unless
    /// the client holds its connection. The fault to send is [`crate::planner::refuse::unbound`].
    pub block_only: bool,
    /// For a tenant: what must hold at each execution; `None` for everyone else.
    pub confined: Option<Arc<[Confined]>>,
    /// What the cache may do with it; `None` where it has no part in that.
    pub cache: Option<Arc<Verdict>>,
}

impl Statement {
    /// Whether it may change what the cache keeps.
    pub fn drops(&self) -> bool {
        matches!(self.cache.as_deref(), Some(Verdict::Write(_)))
    }
}

/// The rows of one reference to a sharded table, as far as they are a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Of the column that holds the tenant.
    pub kind: KeyType,
    /// Each of these is the value of that column in all those rows: one must be the tenant.
    pub any: Vec<Operand>,
    /// The table as written, for messages.
    pub table: Arc<str>,
}

/// What a statement does to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// BEGIN or START TRANSACTION. `read_only` when it says so.
    Begin,
    /// COMMIT or END.
    Commit {
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        chain: bool,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// `SET TRANSACTION`: holds for the block. `modes` is the text after it, verbatim.
    SetTransaction {
        modes: String,
    },
    /// `SET CONSTRAINTS`: holds for the block. `rest` is the text after it, verbatim.
    SetConstraints {
        rest: String,
    },
    /// SET [SESSION|LOCAL] name TO value. `name` is lower case; `value` is the text after TO, verbatim.
    /// `SET TIME ZONE x` has the name `timezone`, SET ROLE `role`, SET SESSION AUTHORIZATION
    /// `session_authorization`, SET NAMES `client_encoding`, SET SESSION CHARACTERISTICS `default_transaction_…`.
    Set {
        name: String,
        value: String,
        local: bool,
    },
    /// SET name TO DEFAULT, RESET name.
    Reset {
        name: String,
        local: bool,
    },
    ResetAll,
    /// SELECT lastval() or currval(sequence) and nothing else: what is known of it is answered so.
    LastId {
        /// The argument of `currval`.
        sequence: Option<Argument>,
        /// The name of the answer's column.
        column: String,
    },
    /// SELECT set_config(name, value, is_local) and nothing else: the arguments.
    SetConfig {
        name: Argument,
        value: Argument,
        local: Argument,
    },
    /// `SET pgherd.…` and its RESET: kept by us, sent nowhere.
    SetPgherd {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// `SHOW pgherd.…`.
    ShowPgherd {
        name: String,
    },
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    DiscardOther,
    /// SQL PREPARE.
    Prepare {
        name: String,
    },
    /// SQL PREPARE of a statement whose keys say where it runs: kept as if a Parse had brought it. `body` is
    /// what would follow the name in that.
    Keep {
        name: String,
        body: Arc<[u8]>,
    },
    /// SQL EXECUTE, also under EXPLAIN. `at` is where the name stands in the text.
    Execute {
        name: String,
        at: Range<usize>,
        arguments: Arc<[Given]>,
    },
    /// DEALLOCATE; `None` is ALL. `at` is where the name stands in the text.
    Deallocate {
        name: Option<String>,
        at: Range<usize>,
    },
    Listen {
        channel: String,
    },
    /// `None` is `*`.
    Unlisten {
        channel: Option<String>,
    },
    /// Session state that cannot be replayed: the client keeps its server connection from here on.
    /// The text says why, as in `temporary table` or `session advisory lock`.
    Pin(&'static str),
    /// DDL: plans, prepared statements and catalogs are stale after it.
    Ddl,
    CopyIn {
        /// In binary: the places of its columns whose types are the users', and these.
        types: Arc<[(usize, u32)]>,
    },
    CopyOut {
        binary: bool,
    },
    /// `EXPLAIN (ROUTE) statement`: answered with the words of [`crate::planner::explain`] for the
    /// route that the statement would take; it is not run. Its span is within the whole text, as is
    /// the numbering of its literals.
    ExplainRoute {
        statement: Arc<Statement>,
    },
    /// EXPLAIN of a statement, in text: its route is told on top of the plan.
    Explain(Arc<Explained>),
}

/// A statement that is explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explained {
    /// As for [`Effect::ExplainRoute`].
    Statement(Statement),
    /// Its route in words, once the values are known.
    Route(String),
}

/// An argument of EXECUTE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The text of a constant; `None` is NULL.
    Constant(Option<String>),
    /// A parameter of Bind, counted from 0.
    Parameter(u16),
    /// Anything that must be computed by the server.
    Unknown,
}

/// An argument that is a literal (its value) or a parameter of Bind (counted from 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Literal(String),
    Parameter(u16),
    /// Anything that must be computed by the server.
    Unknown,
}

/// Where a statement may run, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Answered by the session alone (BEGIN, COMMIT, DEALLOCATE, SET pgherd.…).
    Session,
    /// Table-less and on the list of harmless functions: any server answers alike.
    Anywhere,
    /// Whatever shard the block is bound to, else home: cursors, SET CONSTRAINTS, EXECUTE.
    Bound,
    /// The home shard: single tables, catalogs, table-less statements with any other function.
    Home,
    /// Only reference tables are read: any shard.
    AnyShard,
    /// Reads or writes sharded tables; the keys decide.
    Keyed(Arc<Keyed>),
    /// Every shard: DDL, writes of reference tables. `transaction` is false where PostgreSQL
    /// refuses a transaction block, so that it runs shard by shard.
    Broadcast { transaction: bool },
    /// COPY table FROM STDIN into a sharded table: rows are split by key.
    CopySplit(Arc<CopySplit>),
    /// An INSERT of rows that are given ids first: it then is another statement, with those ids in it.
    Generate(Arc<Generate>),
    /// Hinted to one shard.
    Shard(ShardId),
    /// Reads what no shard has all of: finished on a twin.
    Gather(Arc<Gather>),
    /// Cannot be answered exactly: the error, with its hint.
    Refuse(Arc<Fault>),
}

/// A read that may be finished on a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Every name that a column may be meant by; `None`: all may be meant.
    pub words: Option<Arc<BTreeSet<String>>>,
    /// Whether columns go by their own names everywhere, so that a plan's conditions can be read.
    pub filters: bool,
    /// Whether a view that it reads asks for the moment.
    pub clock_in_views: bool,
    /// Where the shards may work it out in part instead of sending rows: the schemas that its names are looked
    /// up in.
    pub partial: Option<Arc<[String]>>,
    /// Names of functions it calls that nothing is known of: it is refused where PostgreSQL has them.
    pub unknown: Arc<[String]>,
    /// What needs the rows of all shards together, in words.
    pub why: Arc<str>,
    /// What to answer where there is no twin.
    pub otherwise: Arc<Fault>,
    /// The first of its sharded tables as written, for messages.
    pub table: Arc<str>,
    /// Where its rows go, where it is the query of an INSERT.
    pub target: Option<Arc<Target>>,
}

/// The table that a query's rows are inserted into, as those of a COPY are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The columns that are given, each quoted.
    pub columns: Vec<String>,
    /// The table, quoted.
    pub table: String,
    pub holders: Holders,
    /// The statement makes the table, with all the query's columns.
    pub is_new: bool,
}

/// Which shards a table's new rows go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holders {
    ByKey(Arc<CopySplit>),
    /// To each shard's copy.
    Everywhere,
    Home,
}

/// A statement over sharded tables and the keys its predicates prove.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
pub struct Keyed {
    /// The distribution of its tables, by index in the topology.
    pub distribution: usize,
    /// Alternatives, united: the statement touches only rows whose key is one of these.
    /// `None`: nothing was proven, all shards.
    pub keys: Option<Vec<KeyOperands>>,
    /// How the answers of several shards become its own (reads only); `None` where that is not known.
    pub concat: Option<Arc<Finish>>,
    /// Whether each of `keys` is that of one row of an INSERT's VALUES, and the rows may be sent to their
    /// shards each.
    pub splits: bool,
    /// Whether it is an UPDATE or a DELETE that each shard may carry out on its own rows.
    pub each: bool,
    /// It is one that sets the key.
    pub moves: Option<Arc<Moves>>,
    /// What to answer when it would need several shards and may not.
    pub otherwise: Arc<Fault>,
    /// How it may be finished on a twin instead.
    pub gather: Option<Arc<Gather>>,
    /// Whether the keys are those of new rows: NULL is refused, and so is what cannot be placed.
    pub insert: bool,
    /// The type modifiers of the key's columns that new rows are stored in, by the column.
    pub modifiers: Arc<[(usize, i32)]>,
    /// Whether some of `keys` are looked up.
    pub looks: bool,
    /// What lookup tables must hold before it runs.
    pub entries: Arc<[Entries]>,
    /// The shard that a hint names: new rows whose keys are known belong there, or are refused.
    pub hinted: Option<ShardId>,
    /// The first of its sharded tables as written, for messages.
    pub table: Arc<str>,
}

impl Keyed {
    /// The same, where the shards' answers are not put together: one shard or a twin answers, else
    /// `otherwise` is why none does.
    #[must_use]
    pub fn unmerged(&self, otherwise: Fault) -> Keyed {
        let gather = self.gather.as_deref().map(|gather| {
            Arc::new(Gather {
                otherwise: Arc::new(otherwise.clone()),
                ..gather.clone()
            })
        });
        Keyed {
            gather,
            ..self.on_one_shard(otherwise)
        }
    }

    /// The same, where only one shard may answer; else `otherwise`.
    #[must_use]
    pub fn on_one_shard(&self, otherwise: Fault) -> Keyed {
        Keyed {
            concat: None,
            splits: false,
            each: false,
            gather: None,
            otherwise: Arc::new(otherwise),
            ..self.clone()
        }
    }
}

impl Keyed {
    /// Whether the home shard may have to be asked where it runs, or told before it does.
    pub fn asks(&self) -> bool {
        self.looks || !self.entries.is_empty()
    }
}

/// One value of a key: an operand for each of its columns; or one alone that is looked up.
pub type KeyOperands = Vec<Operand>;

/// Where the value of one key column comes from at execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Parameter of Bind, counted from 0.
    Parameter(u16),
    /// Literal of the text, counted from 0 in the order of the masked literals; `negative` for `-5`.
    Literal { index: u16, negative: bool },
    /// The text of a value that the statement spells in a way that is not numbered, as in `E'…'`.
    Constant(Arc<str>),
    /// Each element of an array parameter, as in `= ANY ($1)`. Only in keys of one column.
    Elements(u16),
    /// Each element of an array literal, as in `= ANY ('{1,2}')`. Only in keys of one column.
    LiteralElements(u16),
    /// What is worked out of integers: the first, and each with the operator before it, from left to right.
    Computed(Arc<(Operand, Vec<(Arithmetic, Operand)>)>),
    /// Every value between these. Only in keys of one column, of statements that insert no listed rows.
    Between(Arc<Interval>),
    /// NULL: matches nothing on read, is refused on write.
    Null,
    /// An id that carries its bucket: what is placed by it is on a shard of that bucket. Behind the key
    /// of a new row: the row's own id, which must carry the key's bucket.
    Id(Box<Operand>),
    /// A key, of which only the bucket counts: what is placed by an id that carries its bucket.
    Carried(Box<Operand>),
    /// A value of a column that has a lookup table: what is placed by it is where the keys are that the
    /// table has for it.
    Looked(Arc<Looked>),
    /// A key, where a value to look up may stand: what has it is placed by it.
    Key(Box<Operand>),
}

/// A value to be looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    pub lookup: Arc<Lookup>,
    /// The type of the column.
    pub kind: KeyType,
    pub value: Operand,
}

/// What a lookup table must hold before rows are written: for each value, the key of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entries {
    pub column: LookupColumn,
    pub rows: Vec<(Operand, KeyOperands)>,
}

/// A column with a lookup table, as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupColumn {
    pub lookup: Arc<Lookup>,
    pub kind: KeyType,
    /// Its type modifier.
    pub modifier: i32,
}

/// One pair of a lookup table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub lookup: Arc<Lookup>,
    pub value: Key<'static>,
    pub key: Vec<Key<'static>>,
}

/// Rows of an INSERT that are to be given ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generate {
    pub stream: Arc<Stream>,
    pub fill: Fill,
    /// Of each row of `fill`, the key whose bucket its id carries; empty for plain ids.
    pub keys: Vec<KeyOperands>,
    pub distribution: usize,
    /// Where it runs, as far as that is known without the ids.
    pub within: Access,
    /// The table as written, for messages.
    pub table: Arc<str>,
}

/// Where the numbers of a table's ids come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stream {
    /// As the configuration names it.
    pub schema: Option<String>,
    pub table: String,
    pub column: String,
    pub carries: bool,
}

impl Operand {
    /// Adds the parameters that it is made of, counted from 0.
    pub fn parameters(&self, into: &mut Vec<u16>) {
        match self {
            Operand::Parameter(index) | Operand::Elements(index) => into.push(*index),
            Operand::Computed(computation) => {
                computation.0.parameters(into);
                for (_, operand) in &computation.1 {
                    operand.parameters(into);
                }
            }
            Operand::Between(interval) => {
                for bound in interval.lows.iter().chain(&interval.highs) {
                    bound.operand.parameters(into);
                }
            }
            Operand::Id(inner) | Operand::Carried(inner) | Operand::Key(inner) => {
                inner.parameters(into);
            }
            Operand::Looked(looked) => looked.value.parameters(into),
            Operand::Literal { .. }
            | Operand::Constant(_)
            | Operand::LiteralElements(_)
            | Operand::Null => (),
        }
    }
}

/// All values that are above each of some and below each of others. One of them at least.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub lows: Vec<Bound>,
    pub highs: Vec<Bound>,
}

/// An end of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub operand: Operand,
    /// Whether the end itself is within.
    pub inclusive: bool,
}

/// COPY … FROM STDIN of a sharded table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySplit {
    /// The type modifiers of the key's columns, by the column.
    pub modifiers: Arc<[(usize, i32)]>,
    pub distribution: usize,
    /// Where in each row the key's columns stand, counted from 0; behind them, where `checks_id`, the id
    /// that must carry the key's bucket.
    pub key_columns: Vec<usize>,
    /// Whether the key is an id that carries the bucket.
    pub by_id: bool,
    pub checks_id: bool,
    pub format: Format,
    /// The table as written, for messages.
    pub table: String,
    /// For a tenant: which of the key's columns must be the tenant in each row.
    pub tenant: Option<usize>,
    /// The lookup table that places each row by its key.
    pub looked: Option<LookupColumn>,
    /// The columns that have lookup tables, each with its place among the fields that are read.
    pub entries: Vec<(usize, LookupColumn)>,
}

/// Where one execution runs.
#[derive(Clone, Debug)]
pub enum Route {
    Session,
    Anywhere,
    AnyShard,
    Single(ShardId),
    /// Each shard answers for itself, and the rows are put together so. At least two shards.
    /// How it may be finished on a twin where that turns out not to be exact, or not to be possible.
    Concat(ShardSet, Arc<Finish>, Option<Arc<Gather>>),
    Broadcast {
        transaction: bool,
    },
    CopySplit(Arc<CopySplit>),
    /// Fragments are fetched from the shards, and the statement runs on a twin.
    Gather(Arc<Gather>),
    /// The same for an INSERT, whose rows are written on their shards.
    InsertGathered(Arc<Gather>, Arc<Target>),
    /// Each shard gets its rows of an INSERT's VALUES. At least two shards.
    InsertSplit(Arc<[Share]>),
    /// A write that each of these shards carries out on its own rows. At least two shards.
    Each(ShardSet),
    /// An UPDATE that sets the key: each of these shards carries it out on its own rows, and those that belong to
    /// others then are moved there.
    Move(ShardSet, Arc<Moves>),
}

/// What an UPDATE that sets the key of rows needs to move them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// Of the table.
    pub distribution: usize,
    pub table: Name,
    /// What its rows go by in the statement.
    pub alias: String,
    /// The columns of its key.
    pub key: Vec<String>,
    /// Whether it returns rows.
    pub returns: bool,
    /// The refusal where rows cannot be moved.
    pub otherwise: Fault,
}

/// One shard's rows of an INSERT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub shard: ShardId,
    /// Counted from 0 in the order of the VALUES; ascending.
    pub rows: Vec<usize>,
}

/// The values of one execution.
pub trait Values {
    /// Parameter `index` of Bind: its bytes (`None` is NULL), and whether they are binary. The outer
    /// `None`: there is no such parameter (yet).
    fn parameter(&self, index: u16) -> Option<Parameter<'_>>;
    /// Masked literal `index` of the text.
    fn literal(&self, index: u16) -> Option<Literal<'_>>;
    /// Whether `client_encoding` is UTF8. Otherwise text keys beyond ASCII cannot be placed, since
    /// the server stores other bytes than the client sends.
    fn is_utf8(&self) -> bool {
        true
    }
    /// The keys that a lookup table has for a value. `None`: it is not known, and to be asked for if it can
    /// be.
    fn keys_of(&self, _lookup: &Arc<Lookup>, _value: &Key<'_>) -> Option<Arc<[Vec<Key<'static>>]>> {
        None
    }
    /// What a directory lists for a key that it is not known to list. `None`: it is to be asked, if it can
    /// be.
    fn listed(&self, _directory: &Arc<Directory>, _key: &[Key<'_>]) -> Option<Listed> {
        None
    }
}

/// A parameter as Bind carries it.
#[derive(Clone, Copy, Debug)]
pub struct Parameter<'a> {
    /// `None` is NULL.
    pub value: Option<&'a [u8]>,
    pub binary: bool,
    /// The type Parse declared for it; 0 when it left that to the server.
    pub oid: u32,
}

/// A literal's text as it stands in the statement, quotes included for strings.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a> {
    pub text: &'a [u8],
}

/// The literals of a text without parameters.
#[derive(Debug)]
pub struct TextValues<'a> {
    pub text: &'a [u8],
    /// Where they stand in it.
    pub literals: &'a [Span],
    /// As [`Values::is_utf8`] says.
    pub is_utf8: bool,
}

impl Values for TextValues<'_> {
    fn parameter(&self, _index: u16) -> Option<Parameter<'_>> {
        None
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.text),
        })
    }

    fn is_utf8(&self) -> bool {
        self.is_utf8
    }
}
