//! Whether the rows of several shards are the answer: one after the other, or put together as [`finish`] says.
//!
//! Only what is known to be exact: one SELECT whose every row is worked out from rows of one shard.
//! Everything else is refused with the name of the clause that is in the way.

use std::borrow::Cow;

use crate::merge::Finish;
use crate::planner::finish;
use crate::planner::survey::{Reference, Rows, Survey, Tree};
use crate::sql::cursor::Cursor;
use crate::sql::statement::{Block, Body, Features, JoinKind};

/// How the shards' rows become the answer, and whether the values of literals were looked at for it; else
/// what is in the way.
pub(super) fn check(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
) -> Result<(Finish, bool), Cow<'static, str>> {
    let mut block = block;
    let select = loop {
        let features = block.inner.features;
        let finished = match &block.body {
            Body::Select(_) => {
                [Features::ORDER_BY, Features::LIMIT, Features::AGGREGATE].as_slice()
            }
            Body::Nested(_)
            | Body::Set(_)
            | Body::Values(_)
            | Body::Insert(_)
            | Body::Update(_)
            | Body::Delete(_)
            | Body::Merge(_) => &[],
        };
        if let Some(feature) = features.without(finished).first() {
            return Err(feature.into());
        }
        if !block.ctes.is_empty() {
            return Err("WITH".into());
        }
        match &block.body {
            Body::Nested(nested) => block = nested,
            Body::Select(select) if select.into.is_some() => return Err("SELECT INTO".into()),
            Body::Select(select) => break select,
            Body::Set(_) => return Err("UNION, INTERSECT or EXCEPT".into()),
            Body::Values(_) => return Err("VALUES".into()),
            Body::Insert(_) => return Err("INSERT".into()),
            Body::Update(_) => return Err("UPDATE".into()),
            Body::Delete(_) => return Err("DELETE".into()),
            Body::Merge(_) => return Err("MERGE".into()),
        }
    };
    for reference in &survey.references {
        match reference.place {
            Rows::Sharded { .. } if !reference.top => return Err("a subquery".into()),
            Rows::Sharded { .. } | Rows::Reference => (),
            Rows::Single | Rows::System => return Err("a table that is on one shard only".into()),
        }
    }
    // Copies of a reference table need not be read in the same order.
    if survey.inner_features.first().is_some() {
        return Err("a subquery that sorts, groups or limits".into());
    }
    let finish = finish::of(survey, block, select, cursor)?;
    if block.inner.features.has(Features::AGGREGATE) && finish.0.totals.is_empty() {
        return Err("an aggregate".into());
    }
    let colocated = Colocated { survey };
    let mut all = Vec::new();
    for tree in &survey.top {
        let right = colocated.references(tree)?;
        all = colocated.joined(all, right)?;
    }
    Ok(finish)
}

struct Colocated<'s, 'a> {
    survey: &'s Survey<'a>,
}

const APART: &str = "a join that is not on the key";

impl Colocated<'_, '_> {
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

/// The first sharded table, to be named in a refusal.
pub(super) fn named(references: &[Reference]) -> String {
    references
        .iter()
        .find(|reference| matches!(reference.place, Rows::Sharded { .. }))
        .map_or_else(String::new, |reference| reference.name.to_string())
}
