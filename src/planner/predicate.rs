//! Reads predicates for what they say of keys. AND may choose, OR and IN unite; NOT was turned into what is
//! true in the same rows, or says nothing.

use std::ops::Range;
use std::rc::Rc;

use crate::planner::facts::{self, Asked, Facts, KEYS_MAX, Link, Node};
use crate::planner::plan::Operand;
use crate::planner::scope::{Level, constants, resolve};
use crate::sql::statement::{Expr, Order, Value};
use crate::types::key::KeyType;

/// Where a predicate stands.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    /// Innermost last.
    pub levels: &'a [Level],
    /// The bindings of the innermost level that its names may mean.
    pub visible: Range<usize>,
    /// Those whose rows matter only where it is true.
    pub confines: Range<usize>,
    /// The outer join whose ON it is.
    pub outer: Option<usize>,
}

impl Place<'_> {
    /// The node that an expression has the values of.
    pub(super) fn node(&self, expr: &Expr, facts: &Facts) -> Option<Node> {
        match expr {
            Expr::Column(parts) => resolve(self.levels, parts, &self.visible),
            Expr::Cast(inner, family) => {
                let node = self.node(inner, facts)?;
                facts::matches(*family, facts.key_type(node)?).then_some(node)
            }
            Expr::Value(_)
            | Expr::Row(_)
            | Expr::Array(_)
            | Expr::And(_)
            | Expr::Or(_)
            | Expr::Equal(..)
            | Expr::Same(..)
            | Expr::Compare(..)
            | Expr::Computed(..)
            | Expr::InSubquery(..)
            | Expr::Subquery(_)
            | Expr::In(..)
            | Expr::Any(..)
            | Expr::Default
            | Expr::Boolean(_)
            | Expr::Call
            | Expr::Other => None,
        }
    }

    fn is_own(&self, node: Node) -> bool {
        self.levels
            .last()
            .is_some_and(|level| level.nodes(self.visible.clone()).contains(&node))
    }

    /// Learns from a predicate that must hold.
    pub(super) fn learn(&self, predicate: &Expr, facts: &mut Facts) {
        let Some(level) = self.levels.last() else {
            return;
        };
        let targets = level.nodes(self.confines.clone());
        if !targets.is_empty() {
            self.learn_one(predicate, &targets, facts);
        }
    }

    fn learn_one(&self, predicate: &Expr, targets: &[Node], facts: &mut Facts) {
        match predicate {
            Expr::And(all) => {
                for one in all {
                    self.learn_one(one, targets, facts);
                }
            }
            Expr::Equal(left, right) => self.equal(left, right, targets, facts),
            Expr::Same(left, right) if self.is_equality(left, right, facts) => {
                self.same(left, right, targets, facts);
            }
            Expr::InSubquery(left, subquery) => {
                if let Expr::Row(items) = &**left {
                    for (column, item) in items.iter().enumerate() {
                        self.ask(item, *subquery, column, true, targets, facts);
                    }
                } else {
                    self.ask(left, *subquery, 0, true, targets, facts);
                }
            }
            // PostgreSQL takes a list of one for an equality.
            Expr::In(left, list) if list.len() == 1 => {
                for item in list {
                    self.equal(left, item, targets, facts);
                }
            }
            Expr::Or(_)
            | Expr::In(..)
            | Expr::Any(..)
            | Expr::Compare(..)
            | Expr::Boolean(false)
            | Expr::Value(Value::Null) => {
                for &target in targets {
                    if let Some(values) = self.values(predicate, target, facts) {
                        facts.confine(target, values);
                    }
                }
            }
            Expr::Column(_)
            | Expr::Value(_)
            | Expr::Cast(..)
            | Expr::Row(_)
            | Expr::Array(_)
            | Expr::Same(..)
            | Expr::Computed(..)
            | Expr::Subquery(_)
            | Expr::Default
            | Expr::Boolean(true)
            | Expr::Call
            | Expr::Other => (),
        }
    }

    /// Whether IS NOT DISTINCT FROM says no more than `=`: keys are never NULL, but for rows that an outer
    /// join makes up; columns that have lookup tables may be.
    fn is_equality(&self, left: &Expr, right: &Expr, facts: &Facts) -> bool {
        let may_be_null = |expr: &Expr| {
            let items = if let Expr::Row(items) = expr {
                items.as_slice()
            } else {
                std::slice::from_ref(expr)
            };
            items.iter().any(|item| self.may_be_null(item, facts))
        };
        if may_be_null(left) || may_be_null(right) {
            return facts::is_never_null(left) || facts::is_never_null(right);
        }
        let is_outer = self.levels.iter().any(|level| level.outer) || self.outer.is_some();
        !is_outer || facts::is_never_null(left) || facts::is_never_null(right)
    }

    fn may_be_null(&self, expr: &Expr, facts: &Facts) -> bool {
        let node = self.node(expr, facts);
        node.is_some_and(|node| facts.is_looked(node))
    }

    /// Notes that a column has a value that a subquery gives.
    fn ask(
        &self,
        expr: &Expr,
        subquery: usize,
        column: usize,
        any: bool,
        targets: &[Node],
        facts: &mut Facts,
    ) {
        if let Some(node) = self.node(expr, facts)
            && targets.contains(&node)
        {
            facts.asked.push(Asked {
                node,
                subquery,
                column,
                any,
            });
        }
    }

    fn equal(&self, left: &Expr, right: &Expr, targets: &[Node], facts: &mut Facts) {
        if let (Expr::Row(left), Expr::Row(right)) = (left, right) {
            if left.len() == right.len() {
                for (left, right) in left.iter().zip(right) {
                    self.equal(left, right, targets, facts);
                }
            }
            return;
        }
        match (self.node(left, facts), self.node(right, facts)) {
            (Some(from), Some(to)) => {
                let (columns, left, right) = (is_column(left) && is_column(right), from, to);
                // An equality with an outer row may be left to a hash table of all the rows within.
                let plain = columns && self.is_own(left) && self.is_own(right);
                for (from, to) in [(left, right), (right, left)] {
                    if targets.contains(&to) {
                        facts.carry(from, to);
                        if plain {
                            facts.carry_plain(from, to);
                        }
                    }
                }
                // A link joins tables of this level: one that mentions outer rows only says nothing
                // of where their own level keeps them.
                if self.is_own(left) && self.is_own(right) {
                    facts.links.push(Link {
                        left,
                        right,
                        outer: self.outer,
                    });
                }
            }
            (Some(node), None) => self.confine((node, left), right, targets, facts),
            (None, Some(node)) => self.confine((node, right), left, targets, facts),
            (None, None) => (),
        }
    }

    /// IS NOT DISTINCT FROM, where it says as much as `=`.
    fn same(&self, left: &Expr, right: &Expr, targets: &[Node], facts: &mut Facts) {
        if let (Expr::Row(left), Expr::Row(right)) = (left, right) {
            if left.len() == right.len() {
                for (left, right) in left.iter().zip(right) {
                    self.same(left, right, targets, facts);
                }
            }
            return;
        }
        match (self.node(left, facts), self.node(right, facts)) {
            (Some(left), Some(right)) => {
                for (from, to) in [(left, right), (right, left)] {
                    if targets.contains(&to) {
                        facts.carry(from, to);
                    }
                }
            }
            (Some(node), None) => self.confine_set((node, left), right, targets, facts),
            (None, Some(node)) => self.confine_set((node, right), left, targets, facts),
            (None, None) => (),
        }
    }

    /// The values of a node in the rows for which a predicate is true.
    fn values(&self, predicate: &Expr, node: Node, facts: &Facts) -> Option<Vec<Operand>> {
        let key = facts.key_type(node)?;
        match predicate {
            Expr::And(all) => all
                .iter()
                .filter_map(|one| self.values(one, node, facts))
                .reduce(facts::narrower),
            Expr::Compare(order, left, right) => self.compared(*order, left, right, node, facts),
            Expr::Same(left, right) if self.is_equality(left, right, facts) => {
                self.equal_values(left, right, node, facts)
            }
            Expr::Or(any) => {
                let mut united = Vec::new();
                for one in any {
                    united.extend(self.values(one, node, facts)?);
                    if united.len() > KEYS_MAX {
                        return None;
                    }
                }
                Some(united)
            }
            Expr::Equal(left, right) => self.equal_values(left, right, node, facts),
            Expr::Boolean(false) | Expr::Value(Value::Null) => Some(Vec::new()),
            Expr::In(left, list) => {
                if list.len() > KEYS_MAX {
                    return None;
                }
                list.iter()
                    .map(|item| self.equal_values(left, item, node, facts))
                    .try_fold(Vec::with_capacity(list.len()), |mut all, values| {
                        all.extend(values?);
                        Some(all)
                    })
            }
            Expr::Any(left, right) if self.node(left, facts) == Some(node) => {
                facts::elements(right, key)
            }
            Expr::Any(..)
            | Expr::Same(..)
            | Expr::Computed(..)
            | Expr::InSubquery(..)
            | Expr::Subquery(_)
            | Expr::Column(_)
            | Expr::Value(_)
            | Expr::Cast(..)
            | Expr::Row(_)
            | Expr::Array(_)
            | Expr::Default
            | Expr::Boolean(true)
            | Expr::Call
            | Expr::Other => None,
        }
    }

    fn equal_values(
        &self,
        left: &Expr,
        right: &Expr,
        node: Node,
        facts: &Facts,
    ) -> Option<Vec<Operand>> {
        if let (Expr::Row(left), Expr::Row(right)) = (left, right) {
            if left.len() != right.len() {
                return None;
            }
            return left
                .iter()
                .zip(right)
                .find_map(|(left, right)| self.equal_values(left, right, node, facts));
        }
        let key = facts.key_type(node)?;
        let value = if self.node(left, facts) == Some(node) {
            right
        } else if self.node(right, facts) == Some(node) {
            left
        } else {
            return None;
        };
        self.operands(value, key)
    }

    /// The values of a node that compares so; of rows, their first columns say something.
    fn compared(
        &self,
        order: Order,
        left: &Expr,
        right: &Expr,
        node: Node,
        facts: &Facts,
    ) -> Option<Vec<Operand>> {
        if let (Expr::Row(left), Expr::Row(right)) = (left, right) {
            let order = match order {
                Order::Less | Order::LessOrEqual => Order::LessOrEqual,
                Order::Greater | Order::GreaterOrEqual => Order::GreaterOrEqual,
            };
            return self.compared(order, left.first()?, right.first()?, node, facts);
        }
        let key = facts.key_type(node)?;
        if self.node(left, facts) == Some(node) {
            facts::interval(order, right, key)
        } else if self.node(right, facts) == Some(node) {
            facts::interval(order.flipped(), left, key)
        } else {
            None
        }
    }

    /// The values that an expression may have: its own, or those listed for a column.
    fn operands(&self, expr: &Expr, key: KeyType) -> Option<Vec<Operand>> {
        match self.listed(expr) {
            Some(values) => values
                .iter()
                .map(|value| facts::operand(value, key))
                .collect(),
            None => facts::operand(expr, key).map(|operand| vec![operand]),
        }
    }

    /// The listed values that a column holds.
    pub(super) fn listed(&self, expr: &Expr) -> Option<Rc<[Expr]>> {
        let Expr::Column(parts) = expr else {
            return None;
        };
        constants(self.levels, parts, &self.visible).map(Rc::clone)
    }

    fn confine(
        &self,
        (node, column): (Node, &Expr),
        value: &Expr,
        targets: &[Node],
        facts: &mut Facts,
    ) {
        if let Some(key) = facts.key_type(node)
            && targets.contains(&node)
            && is_column(column)
            && matches!(value, Expr::Value(_) | Expr::Cast(..))
            && let Some(operand) = facts::operand(value, key)
        {
            facts.equal(node, operand);
        }
        self.confine_set((node, column), value, targets, facts);
    }

    /// Learns the values of a column, however it is said that it has them.
    fn confine_set(
        &self,
        (node, column): (Node, &Expr),
        value: &Expr,
        targets: &[Node],
        facts: &mut Facts,
    ) {
        if let Expr::Subquery(subquery) = value {
            self.ask(column, *subquery, 0, false, targets, facts);
        } else if let Some(key) = facts.key_type(node)
            && targets.contains(&node)
            && let Some(operands) = self.operands(value, key)
        {
            facts.confine(node, operands);
        }
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}
