//! Writes in a statement: the keys of new rows, and keys that must not change.

use std::sync::Arc;

use crate::planner::context::Relation;
use crate::planner::facts;
use crate::planner::outputs::Outputs;
use crate::planner::plan::{KeyOperands, Moves, Operand};
use crate::planner::refuse;
use crate::planner::scope::{Content, Level};
use crate::planner::survey::{Rows, Survey};
use crate::sql::cursor::Name;
use crate::sql::statement::{Assignment, Block, Body, Delete, Expr, Inner, Insert, Merge, Update};
use crate::types::key::KeyType;

impl Survey<'_> {
    pub(super) fn insert(&mut self, insert: &Insert, inner: &Inner) -> Outputs {
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
                self.modifiers
                    .extend(self.context.modifiers(&insert.table, key));
                let known = known.map(|known| {
                    known
                        .insert_columns()
                        .map(|column| column.name.as_str())
                        .collect::<Vec<_>>()
                });
                let rows = insert.source.as_ref().and_then(values);
                let new = self.new_ids(insert, ids, known.as_deref(), rows);
                let filled = ids.column.clone().filter(|_| new.fills());
                let names = known.clone();
                if new.are_keys(ids, key) {
                    self.each_source(insert);
                    self.generate(insert, ids, key, new, distribution, None);
                } else if let Some(positions) = self.positions(insert, key, known, &table) {
                    self.inserted(insert, target, key, &positions, new.checked);
                    let keys = self.references.get(target);
                    let keys = keys.and_then(|reference| reference.rows.clone());
                    let (names, filled) = (names.as_deref(), filled.as_deref());
                    self.new_entries(insert, ids, names, rows, keys.as_deref(), filled);
                    self.generate(insert, ids, key, new, distribution, keys.as_deref());
                }
                self.conflict(&insert.update, key, &table);
                self.tenant_conflict(insert, target);
                self.conflicting_ids(&insert.update, ids, key, &table);
                self.conflicting_entries(&insert.update, ids, &table);
                self.conflicting_uniques(insert, ids);
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
            Relation::Single | Relation::System | Relation::View(_) | Relation::Refused => {
                self.each_source(insert);
            }
        }
        // The row that is in the way may have another key than the one that was to be inserted.
        self.levels.push(Level::default());
        self.bind_opaque(insert.alias.as_ref().unwrap_or(&insert.table.name));
        self.bind_opaque("excluded");
        self.subqueries(inner);
        self.levels.pop();
        if !insert.update.is_empty() {
            return Outputs::default();
        }
        self.levels.push(Level::default());
        self.bind(target, insert.alias.as_deref(), false);
        let outputs = self.projected(&insert.returning, false);
        self.levels.pop();
        outputs
    }

    fn each_source(&mut self, insert: &Insert) {
        if let Some(source) = &insert.source {
            self.block(source);
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
            self.block(source);
            match self.rows(rows, target, positions, id) {
                Ok(rows) => {
                    let first = self.sharded(target).map_or(0, |(first, _)| first);
                    for column in 0..positions.len() {
                        let values = rows.iter().filter_map(|row| row.get(column).cloned());
                        self.facts.confine(first + column, values.collect());
                    }
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
        let outputs = self.block(source);
        let Some((first, _)) = self.sharded(target).filter(|_| outputs.ordered) else {
            return;
        };
        for (column, &at) in positions.iter().enumerate() {
            match outputs.columns.get(at).map(|column| &column.value) {
                // A column of its own modifier may store another value.
                Some(Content::Key(_)) if self.modifiers.iter().any(|(at, _)| *at == column) => (),
                Some(Content::Key(from)) => {
                    self.facts.carry(*from, first + column);
                    self.facts.carry_plain(*from, first + column);
                }
                Some(Content::Constants(values)) => {
                    if let ([value], Some(key)) = (&**values, self.facts.key_type(first + column))
                        && let Some(operand) = facts::operand(value, key)
                    {
                        self.facts.equal(first + column, operand);
                    }
                    self.facts.list(first + column, values);
                }
                Some(Content::Unknown) | None => (),
            }
        }
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

    pub(super) fn update(&mut self, update: &Update, inner: &Inner) -> Outputs {
        let target = self.reference(&update.table, true);
        self.levels.push(Level::default());
        self.bind(target, update.alias.as_deref(), false);
        self.sources(&update.from);
        self.filter(update.filter.as_ref());
        if let Relation::Sharded { ids, .. } = self.context.relation(&update.table) {
            self.updated_ids(update, ids);
        }
        self.assigned(&update.table, &update.sets, target);
        self.moves_rows(update);
        self.tenant_assigned(&update.sets, target);
        if let Some(reference) = self.references.get(target)
            && reference.place == Rows::Reference
            && update.sets.iter().any(|set| set.value == Expr::Default)
        {
            self.refuse(refuse::copies(&update.table.to_string(), "a DEFAULT"));
        }
        self.subqueries(inner);
        let outputs = self.projected(&update.returning, false);
        self.levels.pop();
        outputs
    }

    pub(super) fn delete(&mut self, delete: &Delete, inner: &Inner) -> Outputs {
        let target = self.reference(&delete.table, true);
        self.levels.push(Level::default());
        self.bind(target, delete.alias.as_deref(), false);
        self.sources(&delete.using);
        self.filter(delete.filter.as_ref());
        self.subqueries(inner);
        let outputs = self.projected(&delete.returning, false);
        self.levels.pop();
        outputs
    }

    /// An UPDATE that sets the key moves rows, where nothing but the key says where they belong.
    fn moves_rows(&mut self, update: &Update) {
        let Relation::Sharded {
            distribution,
            key,
            ids,
            ..
        } = self.context.relation(&update.table)
        else {
            return;
        };
        let mut columns = update.sets.iter().flat_map(|set| &set.columns);
        let Some(column) = columns.find(|column| key.contains(column)) else {
            return;
        };
        let otherwise = refuse::key_update(&update.table.to_string(), column);
        let topology = self.context.topology;
        let placed = topology.distribution(distribution);
        let is_listed = placed.is_none_or(|placed| !placed.directories().is_empty());
        let is_bound = ids.carries
            || ids.by
            || ids.looked.is_some()
            || !ids.lookups.is_empty()
            || !ids.uniques.is_empty();
        if self.context.is_one_shard() {
            return;
        }
        if is_listed || is_bound || topology.tenant().is_some() || self.moves.is_some() {
            self.refuse(otherwise);
            return;
        }
        let alias = update.alias.as_ref().unwrap_or(&update.table.name);
        self.moves = Some(Arc::new(Moves {
            distribution,
            table: update.table.clone(),
            alias: alias.clone(),
            key: key.to_vec(),
            returns: !update.returning.is_empty(),
            otherwise,
        }));
    }

    /// Refuses to set a column of the key.
    fn keeps_key(&mut self, table: &Name, sets: &[Assignment]) {
        if let Relation::Sharded { key, .. } = self.context.relation(table) {
            let mut columns = sets.iter().flat_map(|set| &set.columns);
            if let Some(column) = columns.find(|column| key.contains(column)) {
                self.refuse(refuse::key_update(&table.to_string(), column));
            }
        }
    }

    /// Where rows may be inserted, the source's rows are kept, and the target's are looked up by ON, as on the
    /// far side of an outer join.
    pub(super) fn merge(&mut self, merge: &Merge, inner: &Inner) {
        self.levels.push(Level::default());
        self.source(&merge.source);
        let sources = self.bound();
        let target = self.reference(&merge.table, true);
        self.bind(target, merge.alias.as_deref(), false);
        // Without rows to insert, those of the source that match none say nothing.
        let first = if merge.inserts.is_empty() { 0 } else { sources };
        self.learn_on(&merge.on, first);
        if let Relation::Reference(_) = self.context.relation(&merge.table) {
            self.refuse(refuse::kind(
                "MERGE into a reference table",
                "Use INSERT … ON CONFLICT, UPDATE and DELETE.",
            ));
        }
        self.keeps_key(&merge.table, &merge.sets);
        self.merged_entries(merge);
        if let Relation::Sharded { ids, .. } = self.context.relation(&merge.table)
            && let Some(column) = &ids.column
        {
            let mut sets = merge.sets.iter();
            if ids.carries && sets.any(|set| set.columns.contains(column)) {
                self.minds_ids = true;
                self.refuse(refuse::id_update(&merge.table.to_string(), column));
            }
            let is_given = |columns: &[String]| columns.contains(column) && !ids.carries;
            if merge.inserts.iter().any(|(columns, _)| !is_given(columns)) {
                self.minds_ids = true;
                self.refuse(refuse::kind(
                    "MERGE that inserts rows with ids",
                    "Use INSERT … ON CONFLICT, or give the ids if they carry no key.",
                ));
            }
        }
        for (columns, values) in &merge.inserts {
            self.merged_row(merge, columns, values);
        }
        self.subqueries(inner);
        self.levels.pop();
    }

    /// A row that MERGE may insert: a reference of its own, since its key need not be that of ON.
    fn merged_row(&mut self, merge: &Merge, columns: &[String], values: &[Expr]) {
        let Relation::Sharded { key, table, .. } = self.context.relation(&merge.table) else {
            return;
        };
        self.inserts = true;
        self.modifiers
            .extend(self.context.modifiers(&merge.table, key));
        let name = merge.table.to_string();
        let columns: Vec<&str> = if columns.is_empty() {
            let Some(table) = table else {
                self.refuse(refuse::columns(&name));
                return;
            };
            let all = table.insert_columns();
            all.map(|column| column.name.as_str()).collect()
        } else {
            columns.iter().map(String::as_str).collect()
        };
        let row = self.reference(&merge.table, true);
        let Some((first, _)) = self.sharded(row) else {
            return;
        };
        for (at, wanted) in key.iter().enumerate() {
            let position = columns.iter().position(|column| column == wanted);
            let Some(value) = position.and_then(|position| values.get(position)) else {
                self.refuse(refuse::no_key(&name, wanted, "is not among the columns"));
                return;
            };
            match self.content_here(value) {
                Content::Key(_) if self.modifiers.iter().any(|(column, _)| *column == at) => {}
                Content::Key(from) => self.facts.carry(from, first + at),
                Content::Constants(values) => self.facts.list(first + at, &values),
                Content::Unknown => {
                    let why = "is an expression that the server computes";
                    self.refuse(refuse::no_key(&name, wanted, why));
                    return;
                }
            }
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
