//! The columns of a query, as far as they hold the key of a table or listed values, so that what is said of
//! a derived table, a WITH query or a subquery is known of the tables under it, and the other way round.
//!
//! A column that another query sees gets a node of its own: keys of the rows under it are carried up to it
//! always, and down from it only where a row under it that has another value cannot matter (no LIMIT, no
//! grouping, no effects), as PostgreSQL pushes conditions down (`subquery_is_pushdown_safe`).

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::planner::calls;
use crate::planner::facts::{self, Asked};
use crate::planner::predicate::Place;
use crate::planner::scope::{Binding, Column, Content, Level};
use crate::planner::survey::Survey;
use crate::sql::statement::{Block, Expr, Features, Inner, Item};

/// Listed values of a column that are followed.
const LISTED_MAX: usize = 10_000;

/// The columns of a query.
#[derive(Clone, Debug, Default)]
pub(super) struct Outputs {
    pub columns: Vec<Column>,
    /// Whether these are all there are, in order.
    pub ordered: bool,
}

/// A WITH query in sight.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub name: String,
    outputs: Outputs,
    /// For each of its columns, those of the references to it.
    uses: Vec<Vec<facts::Node>>,
}

impl Outputs {
    /// The same, where a row under it with another value may matter.
    pub(super) fn closed(mut self) -> Outputs {
        for column in &mut self.columns {
            column.open = false;
        }
        self
    }

    /// With the names that an alias gives.
    pub(super) fn renamed(mut self, names: &[String]) -> Outputs {
        if names.is_empty() {
            return self;
        }
        if !self.ordered {
            return Outputs::default();
        }
        for (column, name) in self.columns.iter_mut().zip(names) {
            column.name = Some(name.clone());
        }
        self
    }
}

impl Survey<'_> {
    /// Whether a condition on a column of a level may be asked of the rows under it.
    pub(super) fn is_open(&self, inner: &Inner) -> bool {
        let blocking = [
            Features::GROUP_BY,
            Features::HAVING,
            Features::DISTINCT,
            Features::WINDOW,
            Features::LIMIT,
            Features::LOCK,
            Features::AGGREGATE,
            Features::OPERATOR,
            Features::SAMPLE,
            Features::TYPE,
        ];
        !blocking.iter().any(|feature| inner.features.has(*feature))
            && inner
                .calls
                .iter()
                .all(|call| calls::is_plain(self.context, &call.name))
    }

    /// The same of a query's columns.
    pub(super) fn opens(&self, block: &Block) -> bool {
        !block.recursive && self.is_open(&block.inner)
    }

    /// The columns of a target list, in sight of the level at hand.
    pub(super) fn projected(&self, items: &[Item], is_open: bool) -> Outputs {
        let mut outputs = Outputs {
            columns: Vec::new(),
            ordered: true,
        };
        let Some(level) = self.levels.last() else {
            return Outputs::default();
        };
        for item in items {
            match item {
                Item::Star(None) => all(level, &mut outputs),
                Item::Star(Some(table)) => {
                    match level.bindings.iter().find(|one| one.alias == *table) {
                        Some(binding) => each(binding, &[], &mut outputs),
                        None => outputs.ordered = false,
                    }
                }
                Item::Expr { expr, alias } => {
                    let (value, is_own) = self.content(expr, level);
                    outputs.columns.push(Column {
                        name: alias.clone().or_else(|| name(expr)),
                        value,
                        open: is_own,
                    });
                }
            }
        }
        if is_open { outputs } else { outputs.closed() }
    }

    /// What an expression gives in sight of the level at hand.
    pub(super) fn content_here(&self, expr: &Expr) -> Content {
        match self.levels.last() {
            Some(level) => self.content(expr, level).0,
            None => Content::Unknown,
        }
    }

    /// What an expression gives, and whether that is a column of the level's own.
    fn content(&self, expr: &Expr, level: &Level) -> (Content, bool) {
        let place = Place {
            levels: &self.levels,
            visible: level.all(),
            confines: level.all(),
            outer: None,
        };
        if let Some(node) = place.node(expr, &self.facts) {
            return (Content::Key(node), level.nodes(level.all()).contains(&node));
        }
        let value = match expr {
            Expr::Value(_) | Expr::Cast(..) | Expr::Computed(..) => {
                Content::Constants(Rc::from([expr.clone()]))
            }
            Expr::Column(_) => place
                .listed(expr)
                .map_or(Content::Unknown, Content::Constants),
            Expr::Row(_)
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
            | Expr::Other => Content::Unknown,
        };
        (value, false)
    }

    /// The columns of UNION, INTERSECT or EXCEPT: by position, named by the first branch.
    pub(super) fn combined(&mut self, branches: &[Outputs], is_open: bool) -> Outputs {
        let (Some(first), true) = (branches.first(), branches.iter().all(|one| one.ordered)) else {
            return Outputs::default();
        };
        let mut columns = Vec::with_capacity(first.columns.len());
        for (at, column) in first.columns.iter().enumerate() {
            let parts: Option<Vec<&Column>> = branches
                .iter()
                .map(|branch| branch.columns.get(at))
                .collect();
            columns.push(Column {
                name: column.name.clone(),
                value: parts.map_or(Content::Unknown, |parts| self.merged(&parts, is_open)),
                open: is_open,
            });
        }
        Outputs {
            columns,
            ordered: true,
        }
    }

    fn merged(&mut self, parts: &[&Column], is_open: bool) -> Content {
        let key = parts.iter().find_map(|column| match column.value {
            Content::Key(node) => Some(node),
            Content::Constants(_) | Content::Unknown => None,
        });
        let Some(key) = key else {
            let mut all = Vec::new();
            for part in parts {
                let Content::Constants(values) = &part.value else {
                    return Content::Unknown;
                };
                all.extend(values.iter().cloned());
                if all.len() > LISTED_MAX {
                    return Content::Unknown;
                }
            }
            return Content::Constants(all.into());
        };
        let Some(node) = self.facts.derived(key) else {
            return Content::Unknown;
        };
        let mut nodes = Vec::with_capacity(parts.len());
        for part in parts {
            match &part.value {
                Content::Key(from) => {
                    if is_open && part.open {
                        self.facts.carry(node, *from);
                    }
                    nodes.push(*from);
                }
                Content::Constants(values) => {
                    let Some(listed) = self.facts.derived(key) else {
                        return Content::Unknown;
                    };
                    self.facts.list(listed, values);
                    nodes.push(listed);
                }
                // What it holds is not known, but what is asked of it is of the other branches too.
                Content::Unknown => {
                    let Some(unknown) = self.facts.derived(key) else {
                        return Content::Unknown;
                    };
                    nodes.push(unknown);
                }
            }
        }
        self.facts.unite(node, nodes);
        Content::Key(node)
    }

    /// The columns of VALUES.
    pub(super) fn listed(rows: &[Vec<Expr>]) -> Outputs {
        let width = rows.first().map_or(0, Vec::len);
        let column = |at: usize| {
            let values: Option<Vec<Expr>> = rows.iter().map(|row| row.get(at).cloned()).collect();
            Column {
                name: Some(format!("column{}", at + 1)),
                value: match values {
                    Some(values) if rows.len() <= LISTED_MAX => Content::Constants(values.into()),
                    Some(_) | None => Content::Unknown,
                },
                open: false,
            }
        };
        Outputs {
            columns: (0..width).map(column).collect(),
            ordered: true,
        }
    }

    /// Makes a query in FROM known to the level's names.
    pub(super) fn bind_outputs(
        &mut self,
        alias: &str,
        outputs: &Outputs,
        down: bool,
    ) -> Vec<Option<facts::Node>> {
        let mut seen = Vec::with_capacity(outputs.columns.len());
        let mut columns = Vec::with_capacity(outputs.columns.len());
        for column in &outputs.columns {
            let value = match &column.value {
                Content::Key(from) => match self.facts.derived(*from) {
                    Some(node) => {
                        self.facts.carry(*from, node);
                        if down && column.open {
                            self.facts.carry(node, *from);
                        }
                        Content::Key(node)
                    }
                    None => Content::Unknown,
                },
                Content::Constants(values) => Content::Constants(Rc::clone(values)),
                Content::Unknown => Content::Unknown,
            };
            seen.push(match value {
                Content::Key(node) => Some(node),
                Content::Constants(_) | Content::Unknown => None,
            });
            columns.push(Column {
                name: column.name.clone(),
                value,
                open: true,
            });
        }
        let mut binding = Binding {
            alias: alias.to_owned(),
            table: None,
            key: Vec::new(),
            constants: Vec::new(),
            columns: None,
        };
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for name in columns.iter().filter_map(|column| column.name.as_deref()) {
            *times.entry(name).or_default() += 1;
        }
        for column in &columns {
            // A name that stands twice means neither.
            let Some(name) = column
                .name
                .as_ref()
                .filter(|name| times.get(name.as_str()) == Some(&1))
            else {
                continue;
            };
            match &column.value {
                Content::Key(node) => binding.key.push((name.clone(), *node)),
                Content::Constants(values) => {
                    binding.constants.push((name.clone(), Rc::clone(values)));
                }
                Content::Unknown => (),
            }
        }
        binding.columns = outputs.ordered.then_some(columns);
        if let Some(level) = self.levels.last_mut() {
            level.bindings.push(binding);
        }
        seen
    }

    /// Makes a WITH query known to what follows.
    pub(super) fn know(&mut self, name: &str, outputs: Outputs) {
        self.ctes.push(Known {
            name: name.to_owned(),
            uses: vec![Vec::new(); outputs.columns.len()],
            outputs,
        });
    }

    /// Binds a reference to a WITH query; whether there is one of that name.
    pub(super) fn bind_known(&mut self, name: &str, alias: &str, renamed: bool) -> bool {
        let Some(at) = self.ctes.iter().rposition(|known| known.name == name) else {
            return false;
        };
        let mut outputs = self
            .ctes
            .get(at)
            .map_or_else(Outputs::default, |known| known.outputs.clone());
        if renamed {
            // The nodes are made all the same: another reference must not speak for this one.
            for column in &mut outputs.columns {
                column.name = None;
            }
            outputs.ordered = false;
        }
        let seen = self.bind_outputs(alias, &outputs, false);
        if let Some(known) = self.ctes.get_mut(at) {
            for (uses, node) in known.uses.iter_mut().zip(seen) {
                uses.extend(node);
            }
        }
        true
    }

    /// Forgets the WITH queries beyond the first `count`; what all references to a column ask is asked of the
    /// rows under it.
    pub(super) fn forget(&mut self, count: usize) {
        for known in self.ctes.split_off(count) {
            for (column, uses) in known.outputs.columns.iter().zip(known.uses) {
                if let (Content::Key(node), true, false) =
                    (&column.value, column.open, uses.is_empty())
                {
                    self.facts.unite(*node, uses);
                }
            }
        }
    }

    /// What a level said of a subquery's columns, now that these are known.
    pub(super) fn answer(&mut self, asked: &[Asked], index: usize, outputs: &Outputs) {
        if !outputs.ordered {
            return;
        }
        for question in asked.iter().filter(|question| question.subquery == index) {
            let Some(column) = outputs.columns.get(question.column) else {
                continue;
            };
            match &column.value {
                Content::Key(from) => {
                    self.facts.carry(*from, question.node);
                    if question.any && column.open {
                        self.facts.carry(question.node, *from);
                    }
                }
                Content::Constants(values) => self.facts.list(question.node, values),
                Content::Unknown => (),
            }
        }
    }
}

/// `*`: columns that USING merged come first, and once.
fn all(level: &Level, outputs: &mut Outputs) {
    outputs.ordered &= level.merged.is_empty() && !level.natural;
    let mut merged: Vec<&str> = Vec::new();
    for (name, _) in &level.merged {
        if merged.contains(&name.as_str()) {
            continue;
        }
        merged.push(name);
        // The last of that name means the whole join.
        let last = level.merged.iter().rev().find(|(other, _)| other == name);
        outputs.columns.push(Column {
            name: Some(name.clone()),
            value: match last {
                Some((_, Some(node))) => Content::Key(*node),
                Some((_, None)) | None => Content::Unknown,
            },
            open: true,
        });
    }
    // A NATURAL join merges columns that are not known: what two tables have is neither's.
    for binding in &level.bindings {
        if level.natural && level.bindings.len() > 1 {
            continue;
        }
        each(binding, &merged, outputs);
    }
}

fn each(binding: &Binding, without: &[&str], outputs: &mut Outputs) {
    let is_without = |name: &str| without.contains(&name);
    if let Some(columns) = &binding.columns {
        let rest = columns
            .iter()
            .filter(|column| column.name.as_deref().is_none_or(|name| !is_without(name)));
        outputs.columns.extend(rest.cloned());
        return;
    }
    outputs.ordered = false;
    for (name, node) in binding.key.iter().filter(|(name, _)| !is_without(name)) {
        outputs.columns.push(Column {
            name: Some(name.clone()),
            value: Content::Key(*node),
            open: true,
        });
    }
    for (name, values) in binding
        .constants
        .iter()
        .filter(|(name, _)| !is_without(name))
    {
        outputs.columns.push(Column {
            name: Some(name.clone()),
            value: Content::Constants(Rc::clone(values)),
            open: false,
        });
    }
}

/// The name PostgreSQL gives to a column (`FigureColname`), where it is one we follow.
fn name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(parts) => parts.last().cloned(),
        Expr::Cast(inner, _) => name(inner),
        Expr::Value(_)
        | Expr::Row(_)
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
        | Expr::Other => None,
    }
}
