//! What predicates prove of key columns: sets of values, and equalities that carry them on.
//!
//! A node is one key column of one reference to a sharded table, its column of ids that carry the key's
//! bucket, a column of it that has a lookup table, or a column of a derived table that has the values of one. An edge says that the rows of one
//! table that matter have a value some row that matters of the other has; it points the way that
//! values may be carried. *Invariant:* a node's set holds the key of every row that can matter to
//! the answer, or is not known.

use std::sync::Arc;

use crate::config::{Ids, Lookup};
use crate::placement::distribution::Distribution;
use crate::placement::topology::Topology;
use crate::planner::plan::{Bound, Interval, KeyOperands, Looked, LookupColumn, Operand};
use crate::sql::statement::{Expr, Family, Order, Value};
use crate::types::key::KeyType;

/// Key values a statement may list; more are not pruned by.
pub(super) const KEYS_MAX: usize = 100_000;

/// Values that several columns may have together.
const UNITED_MAX: usize = 1_000;

/// Ends of an interval that are looked at on each side.
const BOUNDS_MAX: usize = 8;

/// Index of a key column of a table reference.
pub(super) type Node = usize;

/// An equality of two nodes, and the outer join whose ON says so; `None` for WHERE and inner joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub left: Node,
    pub right: Node,
    pub outer: Option<usize>,
}

/// What a node's values say of where rows are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    /// They are of the key.
    Key,
    /// They are ids that carry the key's bucket.
    Bucket,
    /// They are looked up.
    Looked(Arc<Lookup>),
}

/// The nodes of a reference to a sharded table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    /// The first of its key.
    pub first: Node,
    /// That of ids that carry their bucket, which may be the key itself.
    pub id: Option<Node>,
    /// The first of its columns that have lookup tables.
    pub looked: Node,
}

/// All that was learnt of a statement's keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    types: Vec<KeyType>,
    marks: Vec<Mark>,
    sets: Vec<Option<Vec<Operand>>>,
    edges: Vec<(Node, Node)>,
    /// Nodes whose values are among those of the others together.
    unions: Vec<(Node, Vec<Node>)>,
    /// The key and the id of one reference, which have one bucket.
    carriers: Vec<(Node, Node)>,
    pub links: Vec<Link>,
    /// What the level at hand compares with its subqueries, by their index, as yet unread.
    pub asked: Vec<Asked>,
    /// What conjuncts say of columns that nothing is made of: one value each.
    equals: Vec<(Node, Operand)>,
    /// The edges between such columns.
    plain: Vec<(Node, Node)>,
}

/// A node that has a value of a subquery's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub node: Node,
    pub subquery: usize,
    /// The column of the subquery.
    pub column: usize,
    /// Whether rows of the subquery with other values say nothing.
    pub any: bool,
}

impl Facts {
    /// Makes the nodes of a reference to a table of this distribution. `looked` are its columns with lookup
    /// tables, `by` the one of another table that its key holds values of.
    pub(super) fn reference(
        &mut self,
        topology: &Topology,
        distribution: usize,
        ids: &Ids,
        looked: &[LookupColumn],
        by: Option<&LookupColumn>,
    ) -> Nodes {
        let first = self.types.len();
        let key = topology
            .distribution(distribution)
            .map(Distribution::key)
            .unwrap_or_default();
        if let Some(by) = by {
            self.push(by.kind, Mark::Looked(Arc::clone(&by.lookup)));
        } else if ids.by {
            self.push(KeyType::Int8, Mark::Bucket);
        } else {
            for kind in key {
                self.push(*kind, Mark::Key);
            }
        }
        let mut id = ids.by.then_some(first);
        if ids.carries {
            let own = self.push(KeyType::Int8, Mark::Bucket);
            self.accompany(first, own);
            id = Some(own);
        }
        let after = self.types.len();
        for column in looked {
            let own = self.push(column.kind, Mark::Looked(Arc::clone(&column.lookup)));
            // Of several columns, one alone says nothing.
            if key.len() == 1 && column.lookup.leads {
                self.accompany(first, own);
            } else if key.len() == 1 {
                // Other rows of the same value may be anywhere.
                self.edges.push((own, first));
            }
        }
        Nodes {
            first,
            id,
            looked: after,
        }
    }

    fn push(&mut self, kind: KeyType, mark: Mark) -> Node {
        self.types.push(kind);
        self.marks.push(mark);
        self.sets.push(None);
        self.types.len() - 1
    }

    /// Learns that two nodes of one row are of one place.
    fn accompany(&mut self, key: Node, other: Node) {
        self.carriers.push((key, other));
        self.edges.extend([(key, other), (other, key)]);
    }

    fn mark(&self, node: Node) -> &Mark {
        self.marks.get(node).unwrap_or(&Mark::Key)
    }

    /// Whether equal values of two nodes are placed alike.
    pub(super) fn are_alike(&self, left: Node, right: Node) -> bool {
        self.mark(left) == self.mark(right)
    }

    /// Whether a node holds values of the key itself.
    pub(super) fn is_key(&self, node: Node) -> bool {
        *self.mark(node) == Mark::Key
    }

    /// Whether a node's values are looked up.
    pub(super) fn is_looked(&self, node: Node) -> bool {
        matches!(self.mark(node), Mark::Looked(_))
    }

    /// Whether all rows with one value of a node are on one shard.
    pub(super) fn is_of_one_place(&self, node: Node) -> bool {
        match self.mark(node) {
            Mark::Key | Mark::Bucket => true,
            Mark::Looked(lookup) => lookup.leads,
        }
    }

    /// Nodes of the same bucket as this one, in the same row.
    pub(super) fn of_same_row(&self, node: Node) -> impl Iterator<Item = Node> {
        let pairs = self
            .carriers
            .iter()
            .flat_map(|&(key, id)| [(key, id), (id, key)]);
        pairs
            .filter(move |(from, _)| *from == node)
            .map(|(_, to)| to)
    }

    /// A value of a node, as a plan holds it.
    pub(super) fn valued(&self, node: Node, operand: Operand) -> Operand {
        if !is_value(&operand) {
            return operand;
        }
        match (self.mark(node), self.key_type(node)) {
            (Mark::Bucket, _) => Operand::Id(Box::new(operand)),
            (Mark::Looked(lookup), Some(kind)) => Operand::Looked(Arc::new(Looked {
                lookup: Arc::clone(lookup),
                kind,
                value: operand,
            })),
            (Mark::Key | Mark::Looked(_), _) => operand,
        }
    }

    /// The values of a node, as a plan holds them; `None` where they say nothing of its place.
    fn valued_all(&self, node: Node, values: Vec<Operand>) -> Option<Vec<Operand>> {
        if *self.mark(node) == Mark::Key {
            return Some(values);
        }
        // What is between two others may be anywhere.
        let is_listed = |value: &Operand| !matches!(value, Operand::Between(_));
        let valued = values.iter().all(is_listed).then_some(values)?;
        let valued = valued.into_iter().map(|value| self.valued(node, value));
        Some(valued.collect())
    }

    /// What the values of one node say of another that they are carried to.
    fn carried(&self, from: Node, to: Node, values: Vec<Operand>) -> Option<Vec<Operand>> {
        let (from, to) = (self.mark(from), self.mark(to));
        if from == to || *to == Mark::Key {
            return Some(values);
        }
        let one = |value: Operand| -> Option<Operand> {
            if is_value(&value) {
                let value = Box::new(value);
                return Some(if *to == Mark::Bucket {
                    Operand::Carried(value)
                } else {
                    Operand::Key(value)
                });
            }
            let is_elsewhere = match &value {
                Operand::Between(_) => true,
                // A key that is pinned may be elsewhere than its bucket.
                Operand::Looked(_) | Operand::Key(_) => *to == Mark::Bucket,
                Operand::Id(_) | Operand::Carried(_) => *to != Mark::Bucket,
                Operand::Parameter(_)
                | Operand::Literal { .. }
                | Operand::Constant(_)
                | Operand::Elements(_)
                | Operand::LiteralElements(_)
                | Operand::Computed(_)
                | Operand::Null => false,
            };
            (!is_elsewhere).then_some(value)
        };
        values.into_iter().map(one).collect()
    }

    pub(super) fn key_type(&self, node: Node) -> Option<KeyType> {
        self.types.get(node).copied()
    }

    /// Makes a node for a column that has the values of another.
    pub(super) fn derived(&mut self, from: Node) -> Option<Node> {
        let (kind, mark) = (self.key_type(from)?, self.mark(from).clone());
        Some(self.push(kind, mark))
    }

    /// Learns that a node has one of these values; the smaller of two sets is kept, and of two intervals
    /// what they have in common. Whether anything was learnt.
    pub(super) fn confine(&mut self, node: Node, values: Vec<Operand>) -> bool {
        let Some(values) = self.valued_all(node, values) else {
            return false;
        };
        let Some(set) = self.sets.get_mut(node) else {
            return false;
        };
        let Some(set) = set else {
            *set = Some(values);
            return true;
        };
        let before = weight(set);
        let known = std::mem::take(set);
        *set = narrower(known, values);
        weight(set) < before
    }

    /// Learns that a node's values are among those of others together, which are of its type.
    pub(super) fn unite(&mut self, node: Node, parts: Vec<Node>) {
        let kind = self.key_type(node).map(width);
        if parts
            .iter()
            .all(|part| self.key_type(*part).map(width) == kind && self.are_alike(*part, node))
        {
            self.unions.push((node, parts));
        }
    }

    /// Learns that a node has one of these listed values, if each is known.
    pub(super) fn list(&mut self, node: Node, values: &[Expr]) {
        if let Some(key) = self.key_type(node)
            && let Some(operands) = values.iter().map(|value| operand(value, key)).collect()
        {
            self.confine(node, operands);
        }
    }

    /// Learns that values may be carried from one node to another.
    pub(super) fn carry(&mut self, from: Node, to: Node) {
        if self.key_type(from).map(width) == self.key_type(to).map(width)
            && self.are_alike(from, to)
        {
            self.edges.push((from, to));
        }
    }

    /// Learns that a column itself, not what is made of it, is compared with one value.
    pub(super) fn equal(&mut self, node: Node, value: Operand) {
        self.equals.push((node, value));
    }

    /// Learns of an edge between columns themselves.
    pub(super) fn carry_plain(&mut self, from: Node, to: Node) {
        if self.key_type(from).map(width) == self.key_type(to).map(width) {
            self.plain.push((from, to));
        }
    }

    /// The values that a node is equal to in every row that matters, by conjuncts of columns alone.
    pub(super) fn equals(&self, node: Node) -> Vec<Operand> {
        let mut reached = vec![node];
        let mut next = 0;
        while let Some(&at) = reached.get(next) {
            next += 1;
            for &(from, to) in &self.plain {
                if to == at && !reached.contains(&from) {
                    reached.push(from);
                }
            }
        }
        let known = self.equals.iter().filter(|(at, _)| reached.contains(at));
        known.map(|(_, value)| value.clone()).collect()
    }

    /// Carries sets along the edges until nothing is learnt any more.
    pub(super) fn settle(&mut self) {
        let mut edges = std::mem::take(&mut self.edges);
        edges.sort_unstable();
        edges.dedup();
        let mut news: Vec<Node> = (0..self.sets.len()).collect();
        loop {
            while let Some(from) = news.pop() {
                let first = edges.partition_point(|(node, _)| *node < from);
                let outgoing = edges.get(first..).unwrap_or_default().iter();
                let mut outgoing = outgoing.take_while(|(node, _)| *node == from).peekable();
                if outgoing.peek().is_none() {
                    continue;
                }
                let Some(Some(values)) = self.sets.get(from).cloned() else {
                    continue;
                };
                for &(_, to) in outgoing {
                    if self.is_lighter(&values, to)
                        && let Some(values) = self.carried(from, to, values.clone())
                        && self.confine(to, values)
                    {
                        news.push(to);
                    }
                }
            }
            for (node, parts) in std::mem::take(&mut self.unions) {
                match self.together(&parts) {
                    Some(values) if self.is_lighter(&values, node) => {
                        if self.confine(node, values) {
                            news.push(node);
                        }
                    }
                    Some(_) => (),
                    None => self.unions.push((node, parts)),
                }
            }
            if news.is_empty() {
                return;
            }
        }
    }

    fn is_lighter(&self, values: &[Operand], node: Node) -> bool {
        match self.sets.get(node) {
            Some(Some(set)) => weight(values) < weight(set),
            Some(None) => true,
            None => false,
        }
    }

    fn together(&self, parts: &[Node]) -> Option<Vec<Operand>> {
        let mut united: Vec<Operand> = Vec::new();
        for part in parts {
            for value in self.set(*part)? {
                if !united.contains(value) {
                    united.push(value.clone());
                }
                if united.len() > UNITED_MAX {
                    return None;
                }
            }
        }
        Some(united)
    }

    /// The values of one node.
    pub(super) fn set(&self, node: Node) -> Option<&[Operand]> {
        self.sets.get(node)?.as_deref()
    }

    /// The keys of a reference: every combination of its columns' values.
    pub(super) fn keys(&self, first: Node, columns: usize) -> Option<Vec<KeyOperands>> {
        let mut keys: Vec<KeyOperands> = vec![Vec::with_capacity(columns)];
        for node in first..first + columns {
            let values = self.set(node)?;
            if columns > 1 && values.iter().any(is_several) || keys.len() * values.len() > KEYS_MAX
            {
                return None;
            }
            keys = keys
                .iter()
                .flat_map(|key| {
                    values.iter().map(|value| {
                        let mut longer = key.clone();
                        longer.push(value.clone());
                        longer
                    })
                })
                .collect();
        }
        Some(keys)
    }
}

/// Whether an operand stands for several values.
fn is_several(operand: &Operand) -> bool {
    match operand {
        Operand::Elements(_) | Operand::LiteralElements(_) | Operand::Between(_) => true,
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Computed(_)
        | Operand::Null
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => false,
    }
}

/// Whether an operand is the value of a column itself, and not NULL.
fn is_value(operand: &Operand) -> bool {
    match operand {
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Computed(_)
        | Operand::Elements(_)
        | Operand::LiteralElements(_) => true,
        Operand::Between(_)
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_)
        | Operand::Null => false,
    }
}

/// How much a set leaves open: listed values before those to be looked up, these before intervals.
fn weight(values: &[Operand]) -> usize {
    let more = |value: &Operand| {
        if matches!(value, Operand::Between(_)) {
            4 * KEYS_MAX
        } else if matches!(value, Operand::Looked(_)) {
            KEYS_MAX
        } else {
            0
        }
    };
    values.iter().map(|value| more(value) + 1).sum()
}

/// A set that holds all that both sets hold.
pub(super) fn narrower(left: Vec<Operand>, right: Vec<Operand>) -> Vec<Operand> {
    if let ([Operand::Between(one)], [Operand::Between(other)]) = (&*left, &*right) {
        if one == other {
            return left;
        }
        let both = |one: &[Bound], other: &[Bound]| -> Vec<Bound> {
            one.iter().chain(other).take(BOUNDS_MAX).cloned().collect()
        };
        return vec![Operand::Between(Arc::new(Interval {
            lows: both(&one.lows, &other.lows),
            highs: both(&one.highs, &other.highs),
        }))];
    }
    if weight(&right) < weight(&left) {
        right
    } else {
        left
    }
}

/// The interval of the values that compare so with an expression; `None` if it must be computed, or where the
/// order is not that of the server.
pub(super) fn interval(order: Order, expr: &Expr, key: KeyType) -> Option<Vec<Operand>> {
    // A collation may order text in any way, and an enum is ordered as it was declared.
    if matches!(key, KeyType::Text | KeyType::Enum) {
        return None;
    }
    let bound = |inclusive| -> Option<Vec<Bound>> {
        let operand = operand(expr, key)?;
        Some(vec![Bound { operand, inclusive }])
    };
    let interval = match order {
        Order::Less | Order::LessOrEqual => Interval {
            lows: Vec::new(),
            highs: bound(order == Order::LessOrEqual)?,
        },
        Order::Greater | Order::GreaterOrEqual => Interval {
            lows: bound(order == Order::GreaterOrEqual)?,
            highs: Vec::new(),
        },
    };
    Some(vec![Operand::Between(Arc::new(interval))])
}

/// Whether an expression is a constant that is not NULL.
pub(super) fn is_never_null(expr: &Expr) -> bool {
    match expr {
        Expr::Value(Value::Literal { .. } | Value::Text(_)) => true,
        Expr::Cast(inner, _) => is_never_null(inner),
        Expr::Row(items) => items.iter().all(is_never_null),
        Expr::Value(Value::Parameter(_) | Value::Null)
        | Expr::Column(_)
        | Expr::Array(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::Same(..)
        | Expr::Compare(..)
        | Expr::Computed(..)
        | Expr::In(..)
        | Expr::InSubquery(..)
        | Expr::Subquery(_)
        | Expr::Any(..)
        | Expr::Default
        | Expr::Boolean(_)
        | Expr::Call
        | Expr::Other => false,
    }
}

/// Integer types compare alike, whatever their width.
fn width(key: KeyType) -> KeyType {
    if key.is_int() { KeyType::Int8 } else { key }
}

/// The operand an expression is, as a value of a key column; `None` if it must be computed.
pub(super) fn operand(expr: &Expr, key: KeyType) -> Option<Operand> {
    match expr {
        Expr::Value(value) => value_operand(value, key),
        Expr::Cast(inner, family) if matches(*family, key) => operand(inner, key),
        Expr::Computed(first, rest) if key.is_int() => {
            // The server works with the width of the operands, and says so where it is too small.
            let first = operand(first, KeyType::Int8)?;
            let rest = rest
                .iter()
                .map(|(operator, expr)| Some((*operator, operand(expr, KeyType::Int8)?)))
                .collect::<Option<_>>()?;
            Some(Operand::Computed(Arc::new((first, rest))))
        }
        Expr::Computed(..)
        | Expr::Cast(..)
        | Expr::Column(_)
        | Expr::Row(_)
        | Expr::Array(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::Same(..)
        | Expr::Compare(..)
        | Expr::In(..)
        | Expr::InSubquery(..)
        | Expr::Subquery(_)
        | Expr::Any(..)
        | Expr::Default
        | Expr::Boolean(_)
        | Expr::Call
        | Expr::Other => None,
    }
}

fn value_operand(value: &Value, key: KeyType) -> Option<Operand> {
    match value {
        Value::Parameter(index) => Some(Operand::Parameter(*index)),
        Value::Literal { decimal: true, .. } if key != KeyType::Numeric => None,
        Value::Literal {
            index, negative, ..
        } => Some(Operand::Literal {
            index: *index,
            negative: *negative,
        }),
        Value::Text(text) => Some(Operand::Constant(text.as_str().into())),
        Value::Null => Some(Operand::Null),
    }
}

/// The operands of the array on the right of `= ANY`.
pub(super) fn elements(expr: &Expr, key: KeyType) -> Option<Vec<Operand>> {
    match expr {
        Expr::Array(items) => items.iter().map(|item| operand(item, key)).collect(),
        Expr::Value(Value::Parameter(index)) => Some(vec![Operand::Elements(*index)]),
        Expr::Value(Value::Literal {
            index,
            negative: false,
            decimal: false,
        }) => Some(vec![Operand::LiteralElements(*index)]),
        Expr::Value(Value::Null) => Some(Vec::new()),
        Expr::Cast(inner, family) if matches_array(*family, key) => elements(inner, key),
        Expr::Value(_)
        | Expr::Cast(..)
        | Expr::Column(_)
        | Expr::Row(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::Computed(..)
        | Expr::Same(..)
        | Expr::Compare(..)
        | Expr::In(..)
        | Expr::InSubquery(..)
        | Expr::Subquery(_)
        | Expr::Any(..)
        | Expr::Default
        | Expr::Boolean(_)
        | Expr::Call
        | Expr::Other => None,
    }
}

/// Whether a cast leaves a value of a key's type what it is.
pub(super) fn matches(family: Family, key: KeyType) -> bool {
    match family {
        Family::Int2 | Family::Int4 | Family::Int8 => key.is_int(),
        Family::Text => key == KeyType::Text,
        Family::Uuid => key == KeyType::Uuid,
        Family::Date => key == KeyType::Date,
        Family::Timestamp => key == KeyType::Timestamp,
        Family::TimestampTz => key == KeyType::TimestampTz,
        Family::Numeric => key == KeyType::Numeric,
        // A constant that is cast to another type than the enum is not compared with one.
        Family::Named => key == KeyType::Enum,
        Family::IntArray
        | Family::TextArray
        | Family::UuidArray
        | Family::NamedArray
        | Family::Other => false,
    }
}

fn matches_array(family: Family, key: KeyType) -> bool {
    match family {
        Family::IntArray => key.is_int(),
        Family::TextArray => key == KeyType::Text,
        Family::UuidArray => key == KeyType::Uuid,
        Family::NamedArray => key == KeyType::Enum,
        Family::Named
        | Family::Int2
        | Family::Int4
        | Family::Int8
        | Family::Text
        | Family::Uuid
        | Family::Date
        | Family::Timestamp
        | Family::TimestampTz
        | Family::Numeric
        | Family::Other => false,
    }
}
