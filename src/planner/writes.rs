//! Writes in a statement: the keys of new rows, and keys that must not change.

use crate::planner::context::Relation;
use crate::planner::facts;
use crate::planner::plan::{KeyOperands, Operand};
use crate::planner::refuse;
use crate::planner::scope::{Level, resolve};
use crate::planner::survey::{Rows, Survey};
use crate::sql::statement::{
    Assignment, Block, Body, Delete, Expr, Inner, Insert, Item, Merge, Select, Update,
};
use crate::types::key::KeyType;

impl Survey<'_> {
    pub(super) fn insert(&mut self, insert: &Insert, inner: &Inner) {
        let target = self.reference(&insert.table, true);
        let table = insert.table.to_string();
        match self.context.relation(&insert.table) {
            Relation::Sharded {
                key,
                ids,
                table: known,
                distribution,
            } => {
                self.inserts = true;
                let known = known.map(|known| {
                    known
                        .insert_columns()
                        .map(|column| column.name.as_str())
                        .collect::<Vec<_>>()
                });
                let rows = insert.source.as_ref().and_then(values);
                let new = self.new_ids(insert, ids, known.as_deref(), rows);
                if new.are_keys(ids, key) {
                    self.each_source(insert);
                    self.generate(insert, ids, key, new, distribution, None);
                } else if let Some(positions) = self.positions(insert, key, known, &table) {
                    self.inserted(insert, target, key, &positions, new.checked);
                    let keys = self.references.get(target);
                    let keys = keys.and_then(|reference| reference.rows.clone());
                    self.generate(insert, ids, key, new, distribution, keys.as_deref());
                }
                self.conflict(&insert.update, key, &table);
                self.conflicting_ids(&insert.update, ids, key, &table);
            }
            Relation::Reference(known) => {
                let complete = known.is_some_and(|known| {
                    if !insert.columns.is_empty() {
                        return known
                            .copy_columns()
                            .all(|column| insert.columns.contains(&column.name));
                    }
                    let columns = known.insert_columns().count();
                    let rows = insert.source.as_ref().and_then(values);
                    rows.is_some_and(|rows| rows.iter().all(|row| row.len() >= columns))
                });
                if !complete {
                    self.refuse(refuse::copies(
                        &table,
                        "columns left to their defaults, or that are not known",
                    ));
                }
                self.each_source(insert);
            }
            Relation::Single | Relation::System | Relation::View | Relation::Refused => {
                self.each_source(insert);
            }
        }
        // The row that is in the way may have another key than the one that was to be inserted.
        self.levels.push(Level::default());
        self.bind_opaque(insert.alias.as_ref().unwrap_or(&insert.table.name));
        self.bind_opaque("excluded");
        self.subqueries(inner);
        self.levels.pop();
    }

    fn each_source(&mut self, insert: &Insert) {
        if let Some(source) = &insert.source {
            self.block(source, None);
        }
    }

    /// Where in each row the key's columns stand.
    fn positions(
        &mut self,
        insert: &Insert,
        key: &[String],
        known: Option<Vec<&str>>,
        table: &str,
    ) -> Option<Vec<usize>> {
        let columns: Vec<&str> = if !insert.columns.is_empty() {
            insert.columns.iter().map(String::as_str).collect()
        } else if insert.source.is_none() {
            Vec::new()
        } else if let Some(known) = known {
            known
        } else {
            self.refuse(refuse::columns(table));
            return None;
        };
        let mut positions = Vec::with_capacity(key.len());
        for wanted in key {
            let Some(at) = columns.iter().position(|column| column == wanted) else {
                self.refuse(refuse::no_key(table, wanted, "is not among the columns"));
                return None;
            };
            positions.push(at);
        }
        Some(positions)
    }

    /// `id`: where in each row an id stands that must carry the bucket of the row's key.
    fn inserted(
        &mut self,
        insert: &Insert,
        target: usize,
        key: &[String],
        positions: &[usize],
        id: Option<usize>,
    ) {
        let Some(source) = &insert.source else {
            return;
        };
        let table = insert.table.to_string();
        if let Some(rows) = values(source) {
            self.block(source, None);
            match self.rows(rows, target, positions, id) {
                Ok(rows) => {
                    if let Some(reference) = self.references.get_mut(target) {
                        reference.rows = Some(rows);
                    }
                }
                Err((Some(column), why)) => {
                    let column = key.get(column).map_or("", String::as_str);
                    self.refuse(refuse::no_key(&table, column, why));
                }
                Err((None, why)) => self.refuse(refuse::unproven_id(&table, "", why)),
            }
            return;
        }
        // Every combination of the key columns' values: proven by the query, or refused at the end.
        self.block(source, Some((target, positions)));
    }

    /// The keys of listed rows, or the key column that has none (`None`: the id) and why.
    fn rows(
        &self,
        rows: &[Vec<Expr>],
        target: usize,
        positions: &[usize],
        id: Option<usize>,
    ) -> Result<Vec<KeyOperands>, (Option<usize>, &'static str)> {
        const COMPUTED: &str = "is an expression that the server computes";
        let first = self.sharded(target).map_or(0, |(first, _)| first);
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let mut key = Vec::with_capacity(positions.len());
            for (column, &at) in positions.iter().enumerate() {
                let Some(value) = row.get(at) else {
                    return Err((Some(column), "has no value in some row"));
                };
                if *value == Expr::Default {
                    return Err((Some(column), "is left to its default"));
                }
                let operand = self
                    .facts
                    .key_type(first + column)
                    .and_then(|key| facts::operand(value, key))
                    .map(|operand| self.facts.valued(first + column, operand));
                key.push(operand.ok_or((Some(column), COMPUTED))?);
            }
            if let Some(value) = id.and_then(|at| row.get(at))
                && *value != Expr::Default
            {
                let operand = facts::operand(value, KeyType::Int8);
                let operand = operand.ok_or((None, COMPUTED))?;
                key.push(Operand::Id(Box::new(operand)));
            }
            keys.push(key);
        }
        // Rows of one key are the rule; routing should not look at each.
        if keys.len() > 1 && keys.windows(2).all(|pair| pair.first() == pair.last()) {
            keys.truncate(1);
        }
        Ok(keys)
    }

    /// The keys that a SELECT gives to the rows it inserts.
    pub(super) fn selected_keys(&mut self, select: &Select, target: usize, positions: &[usize]) {
        let Some((first, _)) = self.sharded(target) else {
            return;
        };
        for (column, &at) in positions.iter().enumerate() {
            let before = select.projection.get(..=at).unwrap_or_default();
            if before.iter().any(|item| matches!(item, Item::Star)) {
                return;
            }
            let Some(Item::Expr { expr, .. }) = before.last() else {
                return;
            };
            let node = first + column;
            let Some(key) = self.facts.key_type(node) else {
                return;
            };
            if let Some(operand) = facts::operand(expr, key) {
                self.facts.confine(node, vec![operand]);
            } else if let Expr::Column(parts) = expr
                && let Some(level) = self.levels.last()
                && let Some(from) = resolve(&self.levels, parts, &level.all())
            {
                self.facts.carry(from, node);
            }
        }
    }

    /// ON CONFLICT DO UPDATE may set the key only to the one of the row that was to be inserted.
    fn conflict(&mut self, sets: &[Assignment], key: &[String], table: &str) {
        for set in sets {
            for column in set.columns.iter().filter(|column| key.contains(column)) {
                let same = matches!(&set.value, Expr::Column(parts)
                    if matches!(parts.as_slice(), [table, name] if table == "excluded" && name == column));
                if !same {
                    self.refuse(refuse::key_update(table, column));
                }
            }
        }
    }

    pub(super) fn update(&mut self, update: &Update, inner: &Inner) {
        let target = self.reference(&update.table, true);
        self.levels.push(Level::default());
        self.bind(target, update.alias.as_deref(), false);
        self.sources(&update.from);
        self.filter(update.filter.as_ref());
        if let Relation::Sharded { key, ids, .. } = self.context.relation(&update.table) {
            self.updated_ids(update, ids);
            let mut sets = update.sets.iter().flat_map(|set| &set.columns);
            if let Some(column) = sets.find(|column| key.contains(column)) {
                self.refuse(refuse::key_update(&update.table.to_string(), column));
            }
        }
        if let Some(reference) = self.references.get(target)
            && reference.place == Rows::Reference
            && update.sets.iter().any(|set| set.value == Expr::Default)
        {
            self.refuse(refuse::copies(&update.table.to_string(), "a DEFAULT"));
        }
        self.subqueries(inner);
        self.levels.pop();
    }

    pub(super) fn delete(&mut self, delete: &Delete, inner: &Inner) {
        let target = self.reference(&delete.table, true);
        self.levels.push(Level::default());
        self.bind(target, delete.alias.as_deref(), false);
        self.sources(&delete.using);
        self.filter(delete.filter.as_ref());
        self.subqueries(inner);
        self.levels.pop();
    }

    pub(super) fn merge(&mut self, merge: &Merge, inner: &Inner) {
        let first = self.references.len();
        self.reference(&merge.table, true);
        self.levels.push(Level::default());
        self.source(&merge.source);
        self.subqueries(inner);
        self.levels.pop();
        let spread = self
            .references
            .iter()
            .skip(first)
            .any(|reference| match reference.place {
                Rows::Sharded { .. } => true,
                Rows::Reference => reference.written,
                Rows::Single | Rows::System => false,
            });
        if spread {
            self.refuse(refuse::kind(
                "MERGE",
                "Use INSERT … ON CONFLICT, UPDATE and DELETE with the key.",
            ));
        }
    }
}

/// The rows of a plain VALUES.
pub(super) fn values(source: &Block) -> Option<&[Vec<Expr>]> {
    let mut source = source;
    loop {
        match &source.body {
            Body::Values(rows) => return Some(rows),
            Body::Nested(nested) => source = nested,
            Body::Select(_)
            | Body::Set(_)
            | Body::Insert(_)
            | Body::Update(_)
            | Body::Delete(_)
            | Body::Merge(_) => return None,
        }
    }
}

/// Whether an INSERT of these rows leaves a value to a default.
pub(super) fn has_default(block: &Block) -> bool {
    let Body::Insert(insert) = &block.body else {
        return block.ctes.iter().any(|cte| has_default(&cte.block));
    };
    match &insert.source {
        None => true,
        Some(source) => values(source)
            .unwrap_or_default()
            .iter()
            .flatten()
            .any(|value| *value == Expr::Default),
    }
}
