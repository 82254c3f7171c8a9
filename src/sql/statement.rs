//! Our own view of a data statement: what routing must know, and nothing else.
//!
//! Everything an expression holds is either understood, or [`Expr::Other`] with its calls and
//! subqueries in the block's [`Inner`]; a node that the view has no word for makes reading fail, so
//! nothing is ever passed over.

use super::cursor::Name;

/// One level of a query, or one write, with everything under it.
#[derive(Clone, Debug)]
pub struct Block {
    pub recursive: bool,
    pub ctes: Vec<Cte>,
    pub body: Body,
    pub inner: Inner,
}

/// One WITH query.
#[derive(Clone, Debug)]
pub struct Cte {
    pub name: String,
    /// Its names for the columns, as far as it has any.
    pub columns: Vec<String>,
    pub block: Block,
}

/// What a block does.
#[derive(Clone, Debug)]
pub enum Body {
    Select(Box<Select>),
    /// UNION, INTERSECT, EXCEPT of these, from left to right.
    Set(Vec<Block>),
    /// A query in parentheses.
    Nested(Box<Block>),
    Values(Vec<Vec<Expr>>),
    Insert(Box<Insert>),
    Update(Box<Update>),
    Delete(Box<Delete>),
    Merge(Box<Merge>),
}

/// What the expressions of one level hold, wherever in it they stand.
#[derive(Clone, Debug, Default)]
pub struct Inner {
    pub calls: Vec<Call>,
    /// What is cast to a type of [`Features::TYPE`].
    pub casts: Vec<Expr>,
    /// In the order that [`Expr::Subquery`] counts.
    pub subqueries: Vec<Block>,
    pub features: Features,
}

/// What a level has that matters when rows of several shards are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u16);

impl Features {
    pub const GROUP_BY: Features = Features(1);
    pub const HAVING: Features = Features(2);
    pub const DISTINCT: Features = Features(4);
    pub const ORDER_BY: Features = Features(8);
    pub const LIMIT: Features = Features(16);
    pub const WINDOW: Features = Features(32);
    pub const LOCK: Features = Features(64);
    /// FILTER, WITHIN GROUP, or DISTINCT or ORDER BY among arguments.
    pub const AGGREGATE: Features = Features(128);
    /// An operator that is not built in.
    pub const OPERATOR: Features = Features(256);
    pub const SAMPLE: Features = Features(512);
    /// A cast to a type that is looked up, or whose values are: a `regclass`, a type of the user's.
    /// In no clause's way, so without a name below.
    pub const TYPE: Features = Features(1024);
    /// A cast to a type whose values are numbers of a server's own objects, as `regclass`.
    pub const OBJECT: Features = Features(2048);
    /// `IS NULL` and its like of what is worked out, or a subscript that is: an error of it is seen
    /// however little it costs. In no clause's way either.
    pub const TEST: Features = Features(4096);

    pub fn add(&mut self, other: Features) {
        self.0 |= other.0;
    }

    pub fn has(self, other: Features) -> bool {
        self.0 & other.0 != 0
    }

    /// The others than these.
    #[must_use]
    pub fn without(self, some: &[Features]) -> Features {
        let some = some.iter().fold(0, |all, one| all | one.0);
        Features(self.0 & !some)
    }

    /// The first of them, as a clause's name.
    pub fn first(self) -> Option<&'static str> {
        const NAMES: [(Features, &str); 10] = [
            (Features::GROUP_BY, "GROUP BY"),
            (Features::HAVING, "HAVING"),
            (Features::DISTINCT, "DISTINCT"),
            (Features::WINDOW, "a window function"),
            (Features::AGGREGATE, "an aggregate"),
            (Features::ORDER_BY, "ORDER BY"),
            (Features::LIMIT, "LIMIT or OFFSET"),
            (Features::LOCK, "FOR UPDATE or FOR SHARE"),
            (Features::OPERATOR, "an operator that is not built in"),
            (Features::SAMPLE, "TABLESAMPLE"),
        ];
        NAMES
            .iter()
            .find(|(feature, _)| self.has(*feature))
            .map(|(_, name)| *name)
    }
}

/// A function call.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: Name,
    pub args: Vec<Expr>,
    /// Whether it stands in FROM.
    pub in_from: bool,
}

/// A SELECT without its ORDER BY and LIMIT.
#[derive(Clone, Debug)]
pub struct Select {
    pub projection: Vec<Item>,
    /// Joined by commas.
    pub from: Vec<Source>,
    pub filter: Option<Expr>,
    pub into: Option<Into>,
}

/// SELECT INTO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Into {
    Temporary,
    Table,
}

/// One item of a target list.
#[derive(Clone, Debug)]
pub enum Item {
    /// `*`, or `t.*` with the name before the dot.
    Star(Option<String>),
    Expr {
        expr: Expr,
        alias: Option<String>,
    },
}

/// One item of FROM.
#[derive(Clone, Debug)]
pub enum Source {
    Table {
        name: Name,
        alias: Option<String>,
        /// Whether the alias renames columns.
        renamed: bool,
    },
    Derived {
        block: Box<Block>,
        alias: Option<String>,
        /// The alias' names for the columns, as far as it has any.
        columns: Vec<String>,
        lateral: bool,
    },
    /// A function; its call is among the block's calls.
    Function {
        alias: Option<String>,
    },
    Join(Box<Join>),
}

/// Two items joined.
#[derive(Clone, Debug)]
pub struct Join {
    pub kind: JoinKind,
    pub left: Source,
    pub right: Source,
    pub on: Option<Expr>,
    pub using: Vec<String>,
    pub natural: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// CROSS JOIN too.
    Inner,
    Left,
    Right,
    Full,
}

/// INSERT.
#[derive(Clone, Debug)]
pub struct Insert {
    pub table: Name,
    pub alias: Option<String>,
    /// Empty: all of the table's, in order.
    pub columns: Vec<String>,
    /// `None`: DEFAULT VALUES.
    pub source: Option<Block>,
    /// ON CONFLICT DO UPDATE SET.
    pub update: Vec<Assignment>,
    pub has_conflict: bool,
    pub returning: Vec<Item>,
    /// The columns that ON CONFLICT names; empty for none and for a constraint.
    pub conflict: Vec<String>,
}

/// `columns = value`.
#[derive(Clone, Debug)]
pub struct Assignment {
    pub columns: Vec<String>,
    pub value: Expr,
}

/// UPDATE.
#[derive(Clone, Debug)]
pub struct Update {
    pub table: Name,
    pub alias: Option<String>,
    pub sets: Vec<Assignment>,
    pub from: Vec<Source>,
    pub filter: Option<Expr>,
    pub returning: Vec<Item>,
}

/// DELETE.
#[derive(Clone, Debug)]
pub struct Delete {
    pub table: Name,
    pub alias: Option<String>,
    pub using: Vec<Source>,
    pub filter: Option<Expr>,
    pub returning: Vec<Item>,
}

/// MERGE.
#[derive(Clone, Debug)]
pub struct Merge {
    pub table: Name,
    pub alias: Option<String>,
    pub source: Source,
    pub on: Expr,
    /// Of all its UPDATEs.
    pub sets: Vec<Assignment>,
    /// Each INSERT: its columns (none: all, in order) and its values.
    pub inserts: Vec<(Vec<String>, Vec<Expr>)>,
}

/// An expression, as far as keys can be read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// `a`, `t.a`, `s.t.a`.
    Column(Vec<String>),
    Value(Value),
    Cast(Box<Expr>, Family),
    Row(Vec<Expr>),
    /// `ARRAY[…]`.
    Array(Vec<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `=`, which is true of no NULL.
    Equal(Box<Expr>, Box<Expr>),
    /// `IS NOT DISTINCT FROM`, which is true of two NULLs.
    Same(Box<Expr>, Box<Expr>),
    /// `<`, `<=`, `>` or `>=`.
    Compare(Order, Box<Expr>, Box<Expr>),
    /// Operands and the operators before them, from left to right.
    Computed(Box<Expr>, Vec<(Arithmetic, Expr)>),
    In(Box<Expr>, Vec<Expr>),
    /// `left IN (subquery)`, the subquery by its index in [`Inner`].
    InSubquery(Box<Expr>, usize),
    /// A subquery that gives a value, by its index in [`Inner`].
    Subquery(usize),
    /// `left = ANY (right)`.
    Any(Box<Expr>, Box<Expr>),
    /// DEFAULT in VALUES or SET.
    Default,
    Boolean(bool),
    /// A function's result, and nothing around it; the call is in [`Inner`].
    Call,
    /// Anything else; what it calls and queries is in [`Inner`].
    Other,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    /// The same, its sides exchanged.
    #[must_use]
    pub fn flipped(self) -> Order {
        match self {
            Order::Less => Order::Greater,
            Order::LessOrEqual => Order::GreaterOrEqual,
            Order::Greater => Order::Less,
            Order::GreaterOrEqual => Order::LessOrEqual,
        }
    }
}

/// What is done with two integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Subtract,
    Multiply,
}

/// A constant or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `$n`, counted from 0.
    Parameter(u16),
    /// The text's numbered literal.
    Literal {
        index: u16,
        negative: bool,
        decimal: bool,
    },
    /// A string or integer that is not numbered: its value.
    Text(String),
    Null,
}

/// What a cast makes of a value, as far as keys go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Int2,
    Int4,
    Int8,
    /// `text`, or `varchar` without a length.
    Text,
    Uuid,
    Date,
    Timestamp,
    TimestampTz,
    Numeric,
    /// One of these in an array.
    IntArray,
    TextArray,
    UuidArray,
    /// A type that the parser does not know, as an enum, and an array of one.
    Named,
    NamedArray,
    Other,
}
