//! Reads predicates for what they say of keys. AND may choose, OR and IN unite, NOT says nothing.

use std::ops::Range;

use crate::planner::facts::{self, Facts, KEYS_MAX, Link, Node};
use crate::planner::plan::Operand;
use crate::planner::scope::{Level, resolve};
use crate::sql::statement::Expr;

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
    fn node(&self, expr: &Expr, facts: &Facts) -> Option<Node> {
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
            // PostgreSQL takes a list of one for an equality.
            Expr::In(left, list) if list.len() == 1 => {
                for item in list {
                    self.equal(left, item, targets, facts);
                }
            }
            Expr::Or(_) | Expr::In(..) | Expr::Any(..) => {
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
            | Expr::Default
            | Expr::Boolean(_)
            | Expr::Call
            | Expr::Other => (),
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
            (Some(node), None) => confine((node, left), right, targets, facts),
            (None, Some(node)) => confine((node, right), left, targets, facts),
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
                .min_by_key(Vec::len),
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
            | Expr::Column(_)
            | Expr::Value(_)
            | Expr::Cast(..)
            | Expr::Row(_)
            | Expr::Array(_)
            | Expr::Default
            | Expr::Boolean(_)
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
        facts::operand(value, key).map(|operand| vec![operand])
    }
}

fn confine((node, column): (Node, &Expr), value: &Expr, targets: &[Node], facts: &mut Facts) {
    if let Some(key) = facts.key_type(node)
        && targets.contains(&node)
        && let Some(operand) = facts::operand(value, key)
    {
        if is_column(column) {
            facts.equal(node, operand.clone());
        }
        facts.confine(node, vec![operand]);
    }
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}
