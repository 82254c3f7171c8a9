//! Whether the rows of several shards are the answer: one after the other, or put together as [`finish`] says.
//!
//! Only what is known to be exact: one SELECT whose every row is worked out from rows of one shard.
//! Everything else is refused with the name of the clause that is in the way.

use std::borrow::Cow;

use crate::merge::Finish;
use crate::planner::calls;
use crate::planner::facts::Node;
use crate::planner::finish;
use crate::planner::sources::Sources;
use crate::planner::survey::{Reference, Rows, Survey, Tree};
use crate::planner::whole;
use crate::sql::cursor::Cursor;
use crate::sql::statement::{Block, Body, Features, JoinKind, Select};

/// How the shards' rows become the answer, and whether the values of literals were looked at for it; else
/// what is in the way.
pub(super) fn check(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
) -> Result<(Finish, bool), Cow<'static, str>> {
    let (block, select) = one_select(block)?;
    let features = block.inner.features;
    let grouped = features.without(&FINISHED).first();
    let joined = Colocated { survey }.joined_all();
    let whole = grouped
        .filter(|_| joined.is_ok() && are_alone(survey).is_ok())
        .and_then(|_| {
            let covers = |nodes: &[Node]| Colocated { survey }.covers(nodes);
            whole::check(survey, block, select, cursor, &covers)
        });
    if let (Some(clause), None) = (grouped, &whole) {
        return Err(clause.into());
    }
    are_alone(survey)?;
    if whole.is_none() {
        let sources = Sources::of(survey.context, select);
        if let Some(name) = calls::strange_by_dot(survey.context, &sources, cursor) {
            return Err(format!("a call of {name}").into());
        }
    }
    let (mut finish, exact) = finish::of(survey, block, select, cursor, whole.is_some())?;
    // A column more may tell rows apart that are one.
    if features.has(Features::DISTINCT) && finish.hidden() > 0 {
        return Err("DISTINCT".into());
    }
    if features.has(Features::AGGREGATE) && finish.totals.is_empty() && whole.is_none() {
        return Err("an aggregate".into());
    }
    joined?;
    finish.whole = whole.is_some();
    Ok((finish, exact || whole.is_some_and(|whole| whole.exact)))
}

/// Clauses that may be finished in the proxy.
const FINISHED: [Features; 3] = [Features::ORDER_BY, Features::LIMIT, Features::AGGREGATE];
/// Clauses that are right where their groups are on one shard each.
const GROUPED: [Features; 4] = [
    Features::GROUP_BY,
    Features::HAVING,
    Features::DISTINCT,
    Features::WINDOW,
];

/// The SELECT that a statement is, with its level; else what it is.
pub(super) fn one_select(block: &Block) -> Result<(&Block, &Select), &'static str> {
    let mut block = block;
    loop {
        let features = block.inner.features;
        let others = match &block.body {
            Body::Select(_) => features.without(&FINISHED).without(&GROUPED),
            Body::Nested(_)
            | Body::Set(_)
            | Body::Values(_)
            | Body::Insert(_)
            | Body::Update(_)
            | Body::Delete(_)
            | Body::Merge(_) => features,
        };
        if let Some(feature) = others.first() {
            return Err(feature);
        }
        if !block.ctes.is_empty() {
            return Err("WITH");
        }
        match &block.body {
            Body::Nested(nested) => block = nested,
            Body::Select(select) if select.into.is_some() => return Err("SELECT INTO"),
            Body::Select(select) => return Ok((block, select)),
            Body::Set(_) => return Err("UNION, INTERSECT or EXCEPT"),
            Body::Values(_) => return Err("VALUES"),
            Body::Insert(_) => return Err("INSERT"),
            Body::Update(_) => return Err("UPDATE"),
            Body::Delete(_) => return Err("DELETE"),
            Body::Merge(_) => return Err("MERGE"),
        }
    }
}

/// Whether every table is in FROM of the one SELECT, or has a copy on each shard.
pub(super) fn are_alone(survey: &Survey<'_>) -> Result<(), &'static str> {
    for reference in &survey.references {
        match reference.place {
            Rows::Sharded { .. } if !reference.top => return Err("a subquery"),
            Rows::Sharded { .. } | Rows::Reference => (),
            Rows::Single | Rows::System => return Err("a table that is on one shard only"),
        }
    }
    // Copies of a reference table need not be read in the same order.
    if survey.inner_features.first().is_some() {
        return Err("a subquery that sorts, groups or limits");
    }
    Ok(())
}

/// Whether the rows that FROM joins are on one shard.
pub(super) fn are_together(survey: &Survey<'_>) -> Result<(), &'static str> {
    Colocated { survey }.joined_all()
}

struct Colocated<'s, 'a> {
    survey: &'s Survey<'a>,
}

const APART: &str = "a join that is not on the key";

impl Colocated<'_, '_> {
    /// Nothing; an error unless rows that are joined are on one shard.
    fn joined_all(&self) -> Result<(), &'static str> {
        let mut all = Vec::new();
        for tree in &self.survey.top {
            let right = self.references(tree)?;
            all = self.joined(all, right)?;
        }
        Ok(())
    }

    /// Whether columns hold all of a key that no row of the join lacks.
    fn covers(&self, nodes: &[Node]) -> bool {
        let mut kept = Vec::new();
        for tree in &self.survey.top {
            never_missing(tree, &mut kept);
        }
        kept.into_iter().any(|reference| {
            let Some((first, columns)) = self.survey.sharded(reference) else {
                return false;
            };
            let mut keys = first..first + columns;
            keys.all(|key| {
                let facts = &self.survey.facts;
                // What carries a bucket may have it in common with a key that is pinned elsewhere.
                let of_key = nodes.iter().filter(|node| facts.is_key(**node));
                let mut of_key = of_key.filter(|_| facts.is_key(key));
                of_key.any(|node| *node == key || self.equals(*node, key))
            })
        })
    }

    /// Whether two key columns are equal in every row, by what WHERE and inner joins say.
    fn equals(&self, from: Node, to: Node) -> bool {
        let facts = &self.survey.facts;
        let mut seen = vec![from];
        let mut next = 0;
        while let Some(&node) = seen.get(next) {
            next += 1;
            let inner = facts.links.iter().filter(|link| link.outer.is_none());
            for link in inner {
                let other = match node {
                    node if node == link.left => link.right,
                    node if node == link.right => link.left,
                    _ => continue,
                };
                if !seen.contains(&other) {
                    seen.push(other);
                }
            }
        }
        seen.contains(&to)
    }

    /// The sharded tables under a tree; an error unless rows that are joined are on one shard.
    fn references(&self, tree: &Tree) -> Result<Vec<usize>, &'static str> {
        match tree {
            Tree::Leaf(reference) => Ok(reference.iter().copied().collect()),
            Tree::Join {
                kind,
                left,
                right,
                id,
            } => {
                let (left, right) = (self.references(left)?, self.references(right)?);
                match kind {
                    JoinKind::Inner => self.joined(left, right),
                    JoinKind::Left => self.preserved(left, right, *id),
                    JoinKind::Right => self.preserved(right, left, *id),
                    JoinKind::Full if left.is_empty() && right.is_empty() => Ok(left),
                    JoinKind::Full => {
                        if left.is_empty() || right.is_empty() {
                            return Err("an outer join of a table that is on every shard");
                        }
                        self.preserved(left, right, *id)
                    }
                }
            }
        }
    }

    /// An outer join: `kept` is the side whose rows appear without a match.
    fn preserved(
        &self,
        mut kept: Vec<usize>,
        other: Vec<usize>,
        id: Option<usize>,
    ) -> Result<Vec<usize>, &'static str> {
        if other.is_empty() {
            return Ok(kept);
        }
        if kept.is_empty() {
            // Each shard would keep the rows that match on another shard only.
            return Err("an outer join of a table that is on every shard");
        }
        let linked = kept
            .iter()
            .any(|&left| other.iter().any(|&right| self.linked(left, right, id)));
        if !linked {
            return Err(APART);
        }
        kept.extend(other);
        Ok(kept)
    }

    fn joined(&self, mut left: Vec<usize>, right: Vec<usize>) -> Result<Vec<usize>, &'static str> {
        // One pair is enough: the rows of each side hang together by themselves.
        let together = left
            .iter()
            .any(|&one| right.iter().any(|&other| self.connected(one, other)));
        if !left.is_empty() && !right.is_empty() && !together {
            return Err(APART);
        }
        left.extend(right);
        Ok(left)
    }

    /// Whether the keys of two references are equal, or in one bucket by ids that carry it, by what WHERE
    /// and inner joins say.
    fn connected(&self, left: usize, right: usize) -> bool {
        let (Some((left, columns)), Some((right, others))) =
            (self.survey.sharded(left), self.survey.sharded(right))
        else {
            return false;
        };
        columns == others && (0..columns).all(|column| self.reaches(left + column, right + column))
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let mut seen = vec![from];
        let mut next = 0;
        while let Some(&node) = seen.get(next) {
            if node == to {
                return true;
            }
            next += 1;
            let facts = &self.survey.facts;
            let equal = facts
                .links
                .iter()
                .filter(|link| link.outer.is_none() && self.are_alike(link.left, link.right))
                .filter_map(|link| match node {
                    node if node == link.left => Some(link.right),
                    node if node == link.right => Some(link.left),
                    _ => None,
                });
            let same = facts
                .of_same_row(node)
                .filter(|other| facts.is_of_one_place(*other));
            for other in equal.chain(same) {
                if !seen.contains(&other) {
                    seen.push(other);
                }
            }
        }
        false
    }

    /// Whether equal values of both are placed alike: an id is not placed as a key of the same number, nor is
    /// what is looked up.
    fn are_alike(&self, left: usize, right: usize) -> bool {
        self.survey.facts.are_alike(left, right)
    }

    /// Whether the ON of an outer join equates the keys of two references.
    fn linked(&self, left: usize, right: usize, id: Option<usize>) -> bool {
        let (Some((left, columns)), Some((right, others))) =
            (self.survey.sharded(left), self.survey.sharded(right))
        else {
            return false;
        };
        let pair = |left: usize, right: usize| {
            self.survey.facts.links.iter().any(|link| {
                link.outer == id
                    && ((link.left, link.right) == (left, right)
                        || (link.left, link.right) == (right, left))
            })
        };
        let keys = |column| {
            self.are_alike(left + column, right + column) && pair(left + column, right + column)
        };
        let facts = &self.survey.facts;
        let same = |key: usize| {
            let same = facts.of_same_row(key);
            same.filter(|node| facts.is_of_one_place(*node))
        };
        let row = |key: usize| [key].into_iter().chain(same(key));
        let by_id = |left| row(right).any(|right| self.are_alike(left, right) && pair(left, right));
        columns == others && (0..columns).all(keys)
            || columns == 1 && others == 1 && row(left).any(by_id)
    }
}

/// The sharded tables under a tree of which every row of it has one.
fn never_missing(tree: &Tree, found: &mut Vec<usize>) {
    match tree {
        Tree::Leaf(reference) => found.extend(reference),
        Tree::Join {
            kind, left, right, ..
        } => {
            if matches!(kind, JoinKind::Inner | JoinKind::Left) {
                never_missing(left, found);
            }
            if matches!(kind, JoinKind::Inner | JoinKind::Right) {
                never_missing(right, found);
            }
        }
    }
}

/// The first sharded table, to be named in a refusal.
pub(super) fn named(references: &[Reference]) -> String {
    references
        .iter()
        .find(|reference| matches!(reference.place, Rows::Sharded { .. }))
        .map_or_else(String::new, |reference| reference.name.to_string())
}
