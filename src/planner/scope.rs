//! Which table reference a column's name belongs to, level by level.

use std::ops::Range;
use std::rc::Rc;

use crate::planner::facts::Node;
use crate::sql::cursor::Name;
use crate::sql::statement::Expr;

/// A relation that a level's names may refer to.
#[derive(Clone, Debug)]
pub(super) struct Binding {
    /// The alias, or the table's own name.
    pub alias: String,
    /// The name it was written with, where there is no alias: `schema.table.column` may be used.
    pub table: Option<Name>,
    /// Its key columns, each with its node; empty for what is not sharded or hides its columns.
    pub key: Vec<(String, Node)>,
    /// Its columns that hold listed values.
    pub constants: Vec<(String, Rc<[Expr]>)>,
    /// All its columns in order, where they are known.
    pub columns: Option<Vec<Column>>,
}

/// A column of a query, as far as it is followed.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// `None` where PostgreSQL makes a name up.
    pub name: Option<String>,
    pub value: Content,
    /// Whether rows under it with other values than those asked for cannot matter.
    pub open: bool,
}

/// What a column holds.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// The values of a node.
    Key(Node),
    /// One of these.
    Constants(Rc<[Expr]>),
    Unknown,
}

/// The relations of one query level.
#[derive(Clone, Debug, Default)]
pub(super) struct Level {
    pub bindings: Vec<Binding>,
    /// Columns merged by USING: the node that the bare name means, if one does.
    pub merged: Vec<(String, Option<Node>)>,
    /// NATURAL joins merge columns we do not know.
    pub natural: bool,
    /// Whether a row of it may lack a side of an outer join.
    pub outer: bool,
}

impl Level {
    /// The bindings in sight of a predicate.
    pub(super) fn all(&self) -> Range<usize> {
        0..self.bindings.len()
    }

    /// The nodes of the bindings of a range.
    pub(super) fn nodes(&self, range: Range<usize>) -> Vec<Node> {
        self.bindings
            .get(range)
            .unwrap_or_default()
            .iter()
            .flat_map(|binding| binding.key.iter().map(|(_, node)| *node))
            .collect()
    }

    /// The one node of this column's name among the bindings of a range.
    pub(super) fn only(&self, column: &str, range: Range<usize>) -> Option<Node> {
        let mut found = self
            .bindings
            .get(range)?
            .iter()
            .flat_map(|binding| binding.key.iter())
            .filter(|(name, _)| name == column);
        let (_, node) = found.next()?;
        found.next().is_none().then_some(*node)
    }

    fn bare(&self, column: &str, visible: Range<usize>) -> Option<Node> {
        if let Some((_, node)) = self.merged.iter().rev().find(|(name, _)| name == column) {
            return *node;
        }
        if self.natural && self.bindings.len() > 1 {
            return None;
        }
        self.only(column, visible)
    }
}

/// The node a column's name means, looked up from the innermost level outwards.
///
/// A bare name is taken only for a key of the innermost level, where PostgreSQL would find it first
/// (or call it ambiguous). `visible` are the bindings of the innermost level that the predicate
/// sees; a name of another binding there is not looked for further out.
pub(super) fn resolve(levels: &[Level], parts: &[String], visible: &Range<usize>) -> Option<Node> {
    let (current, outer) = levels.split_last()?;
    let (column, qualifier) = parts.split_last()?;
    let Some((table, schema)) = qualifier.split_last() else {
        return current.bare(column, visible.clone());
    };
    let schema = schema.last();
    if let Some(at) = find(current, table, schema) {
        return visible
            .contains(&at)
            .then(|| node(current, at, column))
            .flatten();
    }
    for level in outer.iter().rev() {
        if let Some(at) = find(level, table, schema) {
            return node(level, at, column);
        }
    }
    None
}

/// The listed values that a column's name means, looked up as [`resolve`] does.
pub(super) fn constants<'l>(
    levels: &'l [Level],
    parts: &[String],
    visible: &Range<usize>,
) -> Option<&'l Rc<[Expr]>> {
    let (current, outer) = levels.split_last()?;
    let (column, qualifier) = parts.split_last()?;
    let of = |level: &'l Level, at: usize| {
        let binding = level.bindings.get(at)?;
        let found = binding.constants.iter().find(|(name, _)| name == column)?;
        Some(&found.1)
    };
    let Some((table, schema)) = qualifier.split_last() else {
        let is_merged = current.natural || current.merged.iter().any(|(name, _)| name == column);
        let mut found = visible.clone().filter_map(|at| of(current, at));
        let first = found.next()?;
        return (!is_merged && found.next().is_none()).then_some(first);
    };
    let schema = schema.last();
    if let Some(at) = find(current, table, schema) {
        return visible.contains(&at).then(|| of(current, at)).flatten();
    }
    for level in outer.iter().rev() {
        if let Some(at) = find(level, table, schema) {
            return of(level, at);
        }
    }
    None
}

fn find(level: &Level, table: &str, schema: Option<&String>) -> Option<usize> {
    level.bindings.iter().position(|binding| {
        let Some(schema) = schema else {
            return binding.alias == table;
        };
        binding.table.as_ref().is_some_and(|name| {
            name.name == table && name.schema.as_ref().is_none_or(|own| own == schema)
        })
    })
}

fn node(level: &Level, at: usize, column: &str) -> Option<Node> {
    let binding = level.bindings.get(at)?;
    let (_, node) = binding.key.iter().find(|(name, _)| name == column)?;
    Some(*node)
}
