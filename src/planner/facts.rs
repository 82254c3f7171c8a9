//! What predicates prove of key columns: sets of values, and equalities that carry them on.
//!
//! A node is one key column of one reference to a sharded table, or its column of ids that carry the
//! key's bucket. An edge says that the rows of one
//! table that matter have a value some row that matters of the other has; it points the way that
//! values may be carried. *Invariant:* a node's set holds the key of every row that can matter to
//! the answer, or is not known.

use crate::config::Ids;
use crate::placement::distribution::Distribution;
use crate::placement::topology::Topology;
use crate::planner::plan::{KeyOperands, Operand};
use crate::sql::statement::{Expr, Family, Value};
use crate::types::key::KeyType;

/// Key values a statement may list; more are not pruned by.
pub(super) const KEYS_MAX: usize = 100_000;

/// Index of a key column of a table reference.
pub(super) type Node = usize;

/// An equality of two nodes, and the outer join whose ON says so; `None` for WHERE and inner joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub left: Node,
    pub right: Node,
    pub outer: Option<usize>,
}

/// All that was learnt of a statement's keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    types: Vec<KeyType>,
    /// Whether each node is a column of ids that carry their bucket.
    ids: Vec<bool>,
    sets: Vec<Option<Vec<Operand>>>,
    edges: Vec<(Node, Node)>,
    /// The key and the id of one reference, which have one bucket.
    carriers: Vec<(Node, Node)>,
    pub links: Vec<Link>,
}

impl Facts {
    /// Makes the nodes of a reference to a table of this distribution: the first of its key, and that of
    /// ids that carry their bucket.
    pub(super) fn reference(
        &mut self,
        topology: &Topology,
        distribution: usize,
        ids: &Ids,
    ) -> (Node, Option<Node>) {
        let first = self.types.len();
        let key = topology
            .distribution(distribution)
            .map(Distribution::key)
            .unwrap_or_default();
        if ids.by {
            self.types.push(KeyType::Int8);
        } else {
            self.types.extend_from_slice(key);
        }
        self.ids.resize(self.types.len(), ids.by);
        let mut id = ids.by.then_some(first);
        if ids.carries {
            let own = self.types.len();
            self.types.push(KeyType::Int8);
            self.ids.push(true);
            self.carriers.push((first, own));
            self.edges.extend([(first, own), (own, first)]);
            id = Some(own);
        }
        self.sets.resize(self.types.len(), None);
        (first, id)
    }

    /// Whether a node is a column of ids that carry their bucket.
    pub(super) fn is_id(&self, node: Node) -> bool {
        self.ids.get(node).copied().unwrap_or_default()
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
        if self.is_id(node) && is_value(&operand) {
            Operand::Id(Box::new(operand))
        } else {
            operand
        }
    }

    /// What the values of one node say of another that they are carried to.
    fn carried(&self, from: Node, to: Node, values: Vec<Operand>) -> Vec<Operand> {
        if self.is_id(from) || !self.is_id(to) {
            return values;
        }
        let bucket = |value: Operand| {
            if is_value(&value) {
                Operand::Carried(Box::new(value))
            } else {
                value
            }
        };
        values.into_iter().map(bucket).collect()
    }

    pub(super) fn key_type(&self, node: Node) -> Option<KeyType> {
        self.types.get(node).copied()
    }

    /// Learns that a node has one of these values; the smaller of two sets is kept.
    pub(super) fn confine(&mut self, node: Node, values: Vec<Operand>) {
        let values: Vec<Operand> = if self.is_id(node) {
            let values = values.into_iter();
            values.map(|value| self.valued(node, value)).collect()
        } else {
            values
        };
        if let Some(set) = self.sets.get_mut(node)
            && set.as_ref().is_none_or(|set| values.len() < set.len())
        {
            *set = Some(values);
        }
    }

    /// Learns that values may be carried from one node to another.
    pub(super) fn carry(&mut self, from: Node, to: Node) {
        if self.key_type(from).map(width) == self.key_type(to).map(width)
            && self.is_id(from) == self.is_id(to)
        {
            self.edges.push((from, to));
        }
    }

    /// Carries sets along the edges until nothing is learnt any more.
    pub(super) fn settle(&mut self) {
        let mut pending = self.edges.clone();
        loop {
            let before = pending.len();
            pending.retain(|&(from, to)| {
                let known = matches!(self.sets.get(to), Some(Some(_)));
                let Some(Some(values)) = self.sets.get(from) else {
                    return !known;
                };
                if known {
                    return false;
                }
                let values = self.carried(from, to, values.clone());
                self.confine(to, values);
                false
            });
            if pending.len() == before || pending.is_empty() {
                return;
            }
        }
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
            if columns > 1 && values.iter().any(is_array) || keys.len() * values.len() > KEYS_MAX {
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

fn is_array(operand: &Operand) -> bool {
    match operand {
        Operand::Elements(_) | Operand::LiteralElements(_) => true,
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Null
        | Operand::Id(_)
        | Operand::Carried(_) => false,
    }
}

/// Whether an operand is the value of a column itself, and not NULL.
fn is_value(operand: &Operand) -> bool {
    match operand {
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Elements(_)
        | Operand::LiteralElements(_) => true,
        Operand::Id(_) | Operand::Carried(_) | Operand::Null => false,
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
        Expr::Cast(..)
        | Expr::Column(_)
        | Expr::Row(_)
        | Expr::Array(_)
        | Expr::And(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::In(..)
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
        | Expr::In(..)
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
        Family::IntArray | Family::TextArray | Family::UuidArray | Family::Other => false,
    }
}

fn matches_array(family: Family, key: KeyType) -> bool {
    match family {
        Family::IntArray => key.is_int(),
        Family::TextArray => key == KeyType::Text,
        Family::UuidArray => key == KeyType::Uuid,
        Family::Int2
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
