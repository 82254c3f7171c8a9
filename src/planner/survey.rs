//! Walks a statement: every table reference at every level, and what predicates prove of each.

use std::sync::Arc;

use crate::error::Fault;
use crate::placement::catalog::View;
use crate::planner::calls;
use crate::planner::context::{Context, Relation};
use crate::planner::facts::{Facts, Node};
use crate::planner::ids::Generates;
use crate::planner::outputs::{Known, Outputs};
use crate::planner::plan::{Entries, KeyOperands, LookupColumn, Moves, Operand};
use crate::planner::predicate::Place;
use crate::planner::refuse;
use crate::planner::scope::{Binding, Column, Content, Level};
use crate::planner::tenant;
use crate::sql::cursor::Name;
use crate::sql::statement::{
    Block, Body, Call, Expr, Features, Inner, Join, JoinKind, Select, Source,
};
use crate::sql::with_stack;

/// Views in a statement, those in views counted.
const VIEWS_MAX: usize = 1_000;

/// One reference to a table.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    pub name: Name,
    pub place: Rows,
    pub written: bool,
    /// Whether it stands in FROM of the outermost SELECT.
    pub top: bool,
    /// Whether it stands in a view.
    pub viewed: bool,
    /// The keys of new rows, where they were listed.
    pub rows: Option<Vec<KeyOperands>>,
}

/// Where a reference's rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    Sharded {
        distribution: usize,
        first: Node,
        columns: usize,
        /// The column of ids that carry their bucket, which may be the key itself.
        id: Option<Node>,
        /// The first of its columns that have lookup tables.
        looked: Node,
    },
    Reference,
    Single,
    System,
}

/// The shape of FROM, as far as concatenation asks: references to sharded tables, and joins.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    /// A sharded table, by the index of its reference; `None` for anything else.
    Leaf(Option<usize>),
    Join {
        kind: JoinKind,
        left: Box<Tree>,
        right: Box<Tree>,
        /// Of an outer join; what its ON says is linked by it.
        id: Option<usize>,
    },
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    pub context: Context<'a>,
    pub references: Vec<Reference>,
    pub facts: Facts,
    /// Every call at every level.
    pub calls: Vec<Call>,
    /// What is cast at every level to a type that may read more than the value.
    pub casts: Vec<Expr>,
    /// Of all levels but the outermost.
    pub inner_features: Features,
    /// FROM of the outermost SELECT.
    pub top: Vec<Tree>,
    /// The names of the outermost SELECT.
    pub outermost: Level,
    /// Why the statement cannot run at all, whatever its keys.
    pub refusal: Option<Fault>,
    pub levels: Vec<Level>,
    /// Whether rows are inserted into a sharded table.
    pub inserts: bool,
    /// The UPDATE that sets the key, if it may.
    pub moves: Option<Arc<Moves>>,
    /// The type modifiers of the key's columns that rows are inserted into, by the column.
    pub modifiers: Vec<(usize, i32)>,
    /// The new rows that are to be given ids.
    pub generates: Option<Generates>,
    /// Whether ids that carry their bucket are written, which is minded on one shard as well.
    pub minds_ids: bool,
    /// What lookup tables must hold before rows are inserted.
    pub entries: Vec<Entries>,
    /// Columns with lookup tables that are set, of which reference, and to what.
    pub assigned: Vec<(usize, LookupColumn, Operand)>,
    pub tenant: tenant::Found,
    pub ctes: Vec<Known>,
    /// Every view; what its query runs besides what is in the fields above is in its code.
    pub views: Vec<(Name, &'a View)>,
    pub depth: usize,
    /// Whether columns of a table are given other names in FROM.
    pub renames: bool,
    outer_joins: usize,
}

impl<'a> Survey<'a> {
    /// Walks a statement.
    pub(super) fn of(context: Context<'a>, block: &Block) -> Survey<'a> {
        Survey::with_outputs(context, block).0
    }

    /// The same, and the columns of the statement's rows.
    pub(super) fn with_outputs(context: Context<'a>, block: &Block) -> (Survey<'a>, Outputs) {
        let mut survey = Survey {
            context,
            references: Vec::new(),
            facts: Facts::default(),
            calls: Vec::new(),
            casts: Vec::new(),
            inner_features: Features::default(),
            top: Vec::new(),
            outermost: Level::default(),
            refusal: None,
            levels: Vec::new(),
            inserts: false,
            moves: None,
            modifiers: Vec::new(),
            generates: None,
            minds_ids: false,
            entries: Vec::new(),
            assigned: Vec::new(),
            tenant: tenant::Found::default(),
            ctes: Vec::new(),
            views: Vec::new(),
            depth: 0,
            renames: false,
            outer_joins: 0,
        };
        let outputs = survey.block(block);
        survey.facts.settle();
        (survey, outputs)
    }

    pub(super) fn refuse(&mut self, fault: Fault) {
        self.refusal.get_or_insert(fault);
    }

    /// Walks a level; its columns.
    pub(super) fn block(&mut self, block: &Block) -> Outputs {
        with_stack(|| self.block_here(block))
    }

    fn block_here(&mut self, block: &Block) -> Outputs {
        let known = self.ctes.len();
        let asked = std::mem::take(&mut self.facts.asked);
        if block.recursive {
            for cte in &block.ctes {
                self.know(&cte.name, Outputs::default());
            }
        }
        self.depth += 1;
        for cte in &block.ctes {
            let outputs = self.block(&cte.block).renamed(&cte.columns);
            if !block.recursive {
                self.know(&cte.name, outputs);
            }
        }
        self.depth -= 1;
        if self.depth > 0 {
            self.inner_features.add(block.inner.features);
        }
        self.calls.extend(block.inner.calls.iter().cloned());
        self.casts.extend(block.inner.casts.iter().cloned());
        self.depth += 1;
        let outputs = self.body(block);
        self.depth -= 1;
        self.forget(known);
        self.facts.asked = asked;
        outputs
    }

    fn body(&mut self, block: &Block) -> Outputs {
        match &block.body {
            Body::Select(select) => self.select(select, &block.inner),
            Body::Nested(nested) => {
                let outputs = self.block(nested);
                self.subqueries(&block.inner);
                if self.opens(block) {
                    outputs
                } else {
                    outputs.closed()
                }
            }
            Body::Set(branches) => {
                let branches: Vec<Outputs> =
                    branches.iter().map(|branch| self.block(branch)).collect();
                self.subqueries(&block.inner);
                let is_open = self.opens(block);
                self.combined(&branches, is_open)
            }
            Body::Values(rows) => {
                self.subqueries(&block.inner);
                Survey::listed(rows)
            }
            Body::Insert(write) => self.insert(write, &block.inner),
            Body::Update(write) => self.update(write, &block.inner),
            Body::Delete(write) => self.delete(write, &block.inner),
            Body::Merge(write) => {
                self.merge(write, &block.inner);
                Outputs::default()
            }
        }
    }

    /// Walks the subqueries in a level's expressions, in sight of the levels on the stack.
    pub(super) fn subqueries(&mut self, inner: &Inner) {
        let asked = std::mem::take(&mut self.facts.asked);
        for (index, subquery) in inner.subqueries.iter().enumerate() {
            let outputs = self.block(subquery);
            self.answer(&asked, index, &outputs);
        }
    }

    fn select(&mut self, select: &Select, inner: &Inner) -> Outputs {
        self.levels.push(Level::default());
        let trees = self.sources(&select.from);
        if self.depth == 1 {
            self.top = trees;
        }
        self.filter(select.filter.as_ref());
        self.subqueries(inner);
        let outputs = self.projected(&select.projection, self.is_open(inner));
        if let (Some(level), 1) = (self.levels.pop(), self.depth) {
            self.outermost = level;
        }
        outputs
    }

    /// Learns from WHERE, which confines every table of the level.
    pub(super) fn filter(&mut self, filter: Option<&Expr>) {
        let (Some(filter), Some(level)) = (filter, self.levels.last()) else {
            return;
        };
        let place = Place {
            levels: &self.levels,
            visible: level.all(),
            confines: level.all(),
            outer: None,
        };
        place.learn(filter, &mut self.facts);
    }

    /// Learns from the ON of MERGE, which confines what is bound from `first` on.
    pub(super) fn learn_on(&mut self, on: &Expr, first: usize) {
        let end = self.bound();
        let place = Place {
            levels: &self.levels,
            visible: 0..end,
            confines: first..end,
            outer: Some(self.outer_joins),
        };
        place.learn(on, &mut self.facts);
        self.outer_joins += 1;
    }

    pub(super) fn sources(&mut self, sources: &[Source]) -> Vec<Tree> {
        sources.iter().map(|source| self.source(source)).collect()
    }

    pub(super) fn source(&mut self, source: &Source) -> Tree {
        match source {
            Source::Table {
                name,
                alias,
                renamed,
            } => {
                self.renames |= renamed;
                if name.schema.is_none()
                    && self.bind_known(&name.name, alias.as_ref().unwrap_or(&name.name), *renamed)
                {
                    return Tree::Leaf(None);
                }
                if let Relation::View(view) = self.context.relation(name)
                    && let Some(block) = &view.block
                {
                    let first = self.references.len();
                    self.view(view, block, name, alias.as_deref(), *renamed);
                    return self.pulled_up(block, first);
                }
                let reference = self.reference(name, false);
                self.bind(reference, alias.as_deref(), *renamed);
                Tree::Leaf(self.sharded(reference).map(|_| reference))
            }
            Source::Derived {
                block,
                alias,
                columns,
                lateral,
            } => {
                let joins = self.outer_joins;
                let outputs = if *lateral {
                    self.block(block)
                } else {
                    let level = self.levels.pop();
                    let outputs = self.block(block);
                    self.levels.extend(level);
                    outputs
                };
                let outputs = outputs.renamed(columns);
                self.bind_outputs(alias.as_deref().unwrap_or_default(), &outputs, true);
                if let Some(level) = self.levels.last_mut() {
                    level.outer |= self.outer_joins > joins;
                }
                Tree::Leaf(None)
            }
            Source::Function { alias } => {
                if let Some(alias) = alias {
                    self.bind_opaque(alias);
                }
                Tree::Leaf(None)
            }
            Source::Join(join) => self.join(join),
        }
    }

    /// Walks the query of a view in place of a reference to it: PostgreSQL does the same (`fireRIRrules`).
    fn view(
        &mut self,
        view: &'a View,
        block: &Block,
        name: &Name,
        alias: Option<&str>,
        renamed: bool,
    ) {
        self.views.push((name.clone(), view));
        self.tenant.see(name, &view.code);
        if self.views.len() > VIEWS_MAX {
            self.refuse(refuse::views());
            self.bind_opaque(alias.unwrap_or(&name.name));
            return;
        }
        let columns = self.context.table(name).map(|table| &table.columns);
        let names: Vec<String> = columns
            .into_iter()
            .flatten()
            .map(|column| column.name.clone())
            .collect();
        // It sees nothing of the statement around it.
        let levels = std::mem::take(&mut self.levels);
        let ctes = std::mem::take(&mut self.ctes);
        let path = std::mem::take(&mut self.context.search_path);
        let joins = self.outer_joins;
        let first = self.references.len();
        let mut outputs = self.block(block).renamed(&names);
        for reference in self.references.iter_mut().skip(first) {
            reference.viewed = true;
        }
        self.context.search_path = path;
        self.ctes = ctes;
        self.levels = levels;
        if renamed {
            for column in &mut outputs.columns {
                column.name = None;
            }
            outputs.ordered = false;
        }
        self.bind_outputs(alias.unwrap_or(&name.name), &outputs, true);
        if let Some(level) = self.levels.last_mut() {
            level.outer |= self.outer_joins > joins;
            if let (Some(binding), None) = (level.bindings.last_mut(), alias) {
                binding.table = Some(name.clone());
            }
        }
    }

    /// A view whose rows are some of one sharded table's, each by itself, stands for that table: the only
    /// reference since `first`.
    fn pulled_up(&mut self, block: &Block, first: usize) -> Tree {
        let table = match &block.body {
            Body::Select(select) => match select.from.as_slice() {
                [Source::Table { name, .. }] => Some(name),
                _ => None,
            },
            Body::Nested(_)
            | Body::Set(_)
            | Body::Values(_)
            | Body::Insert(_)
            | Body::Update(_)
            | Body::Delete(_)
            | Body::Merge(_) => None,
        };
        let is_simple = block.ctes.is_empty()
            && block.inner.subqueries.is_empty()
            && self.is_open(&block.inner);
        let top = self.depth == 1;
        match self.references.get_mut(first..) {
            Some([reference])
                if is_simple
                    && table == Some(&reference.name)
                    && matches!(reference.place, Rows::Sharded { .. }) =>
            {
                reference.top = top;
                Tree::Leaf(Some(first))
            }
            Some(_) | None => Tree::Leaf(None),
        }
    }

    fn join(&mut self, join: &Join) -> Tree {
        let start = self.bound();
        let left = Box::new(self.source(&join.left));
        let middle = self.bound();
        let right = Box::new(self.source(&join.right));
        let end = self.bound();
        let (confines, outer) = match join.kind {
            JoinKind::Inner => (start..end, None),
            JoinKind::Left => (middle..end, Some(self.outer_joins)),
            JoinKind::Right => (start..middle, Some(self.outer_joins)),
            JoinKind::Full => (end..end, Some(self.outer_joins)),
        };
        self.outer_joins += usize::from(outer.is_some());
        if let Some(level) = self.levels.last_mut() {
            level.outer |= outer.is_some();
        }
        if let Some(on) = &join.on {
            let place = Place {
                levels: &self.levels,
                visible: start..end,
                confines: confines.clone(),
                outer,
            };
            // A FULL join's ON confines nothing, but may still link what it joins.
            if join.kind == JoinKind::Full {
                let linking = Place {
                    confines: start..end,
                    ..place
                };
                let mut scratch = self.facts.clone();
                linking.learn(on, &mut scratch);
                self.facts.links = scratch.links;
            } else {
                place.learn(on, &mut self.facts);
            }
        }
        for column in &join.using {
            self.using(join.kind, column, [start, middle, end], outer);
        }
        if let Some(level) = self.levels.last_mut() {
            level.natural |= join.natural;
        }
        Tree::Join {
            kind: join.kind,
            left,
            right,
            id: outer,
        }
    }

    /// USING equates the columns of both sides, and its bare name means one of them.
    fn using(
        &mut self,
        kind: JoinKind,
        column: &str,
        [start, middle, end]: [usize; 3],
        outer: Option<usize>,
    ) {
        let Some(level) = self.levels.last_mut() else {
            return;
        };
        // Merged before: the bare name stands for the join so far.
        let merged = level.merged.iter().any(|(name, _)| name == column);
        let left = (!merged)
            .then(|| level.only(column, start..middle))
            .flatten();
        let right = level.only(column, middle..end);
        let bare = match kind {
            JoinKind::Inner if !merged => left.or(right),
            JoinKind::Left if !merged => left,
            JoinKind::Right => right,
            JoinKind::Inner | JoinKind::Left | JoinKind::Full => None,
        };
        level.merged.push((column.to_owned(), bare));
        let (Some(left), Some(right)) = (left, right) else {
            return;
        };
        if matches!(kind, JoinKind::Inner | JoinKind::Left) {
            self.facts.carry(left, right);
            self.facts.carry_plain(left, right);
        }
        if matches!(kind, JoinKind::Inner | JoinKind::Right) {
            self.facts.carry(right, left);
            self.facts.carry_plain(right, left);
        }
        self.facts
            .links
            .push(crate::planner::facts::Link { left, right, outer });
    }

    pub(super) fn bound(&self) -> usize {
        self.levels.last().map_or(0, |level| level.bindings.len())
    }

    /// Notes a reference to a table, found by its name; its index.
    pub(super) fn reference(&mut self, name: &Name, written: bool) -> usize {
        let place = match self.context.relation(name) {
            Relation::Sharded {
                distribution,
                key,
                ids,
                ..
            } => {
                let topology = self.context.topology;
                let looked = self.context.looked(name, ids);
                let by = self.context.placed_by(name, key, ids);
                if ids.looked.is_some() && by.is_none() && !self.context.is_one_shard() {
                    self.refuse(refuse::unknown_lookup(&name.to_string()));
                }
                let facts = &mut self.facts;
                let nodes = facts.reference(topology, distribution, ids, &looked, by.as_ref());
                Rows::Sharded {
                    distribution,
                    first: nodes.first,
                    columns: key.len(),
                    id: nodes.id,
                    looked: nodes.looked,
                }
            }
            Relation::Reference(_) => Rows::Reference,
            Relation::Single => Rows::Single,
            Relation::System => Rows::System,
            Relation::View(view) => {
                let fits = if written {
                    self.context.is_single(view)
                } else {
                    self.context.is_at_home(view)
                };
                if !fits {
                    self.refuse(refuse::view(&name.to_string()));
                }
                self.views.push((name.clone(), view));
                Rows::Single
            }
            Relation::Refused => {
                self.refuse(refuse::unlisted(&name.to_string()));
                Rows::Single
            }
        };
        if let Some(fault) = calls::astray(self.context, name, written) {
            self.refuse(fault);
        }
        // In a view what has no schema is PostgreSQL's own.
        let mut name = name.clone();
        if self.context.search_path.is_empty() && matches!(place, Rows::System) {
            name.schema.get_or_insert_with(|| "pg_catalog".to_owned());
        }
        self.references.push(Reference {
            name,
            place,
            written,
            viewed: false,
            top: self.depth == 1,
            rows: None,
        });
        self.references.len() - 1
    }

    /// The first node and the number of key columns of a reference, if it is sharded.
    pub(super) fn sharded(&self, reference: usize) -> Option<(Node, usize)> {
        match self.references.get(reference)?.place {
            Rows::Sharded { first, columns, .. } => Some((first, columns)),
            Rows::Reference | Rows::Single | Rows::System => None,
        }
    }

    /// Makes a reference known to the level's names.
    pub(super) fn bind(&mut self, reference: usize, alias: Option<&str>, renamed: bool) {
        let Some(found) = self.references.get(reference) else {
            return;
        };
        let name = found.name.clone();
        let mut key: Vec<(String, Node)> = Vec::new();
        if let (
            Rows::Sharded {
                first, id, looked, ..
            },
            Relation::Sharded {
                key: columns, ids, ..
            },
            false,
        ) = (found.place, self.context.relation(&name), renamed)
        {
            key = columns
                .iter()
                .enumerate()
                .map(|(at, column)| (column.clone(), first + at))
                .collect();
            if let (Some(id), true) = (id, ids.carries) {
                key.extend(ids.column.iter().map(|column| (column.clone(), id)));
            }
            let columns = self.context.looked(&name, ids).into_iter().enumerate();
            key.extend(columns.map(|(at, column)| (column.lookup.column.clone(), looked + at)));
        }
        self.tenant
            .call(alias.unwrap_or(&name.name), Some(reference));
        let columns = match self.context.table(&name) {
            Some(table) if !renamed => Some(
                table
                    .columns
                    .iter()
                    .map(|column| Column {
                        name: Some(column.name.clone()),
                        value: match key.iter().find(|(name, _)| *name == column.name) {
                            Some((_, node)) => Content::Key(*node),
                            None => Content::Unknown,
                        },
                        open: true,
                    })
                    .collect(),
            ),
            Some(_) | None => None,
        };
        if let Some(level) = self.levels.last_mut() {
            level.bindings.push(Binding {
                alias: alias.map_or_else(|| name.name.clone(), str::to_owned),
                table: alias.is_none().then_some(name),
                key,
                constants: Vec::new(),
                columns,
            });
        }
    }

    /// Makes a name known that hides outer ones and has no columns we know.
    pub(super) fn bind_opaque(&mut self, alias: &str) {
        if let Some(level) = self.levels.last_mut() {
            level.bindings.push(Binding {
                alias: alias.to_owned(),
                table: None,
                key: Vec::new(),
                constants: Vec::new(),
                columns: None,
            });
        }
    }
}
