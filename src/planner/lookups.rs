//! Columns with lookup tables: what those must hold before rows are written, and keys that are looked up.
//!
//! A row is found by such a column through the keys that the home shard has for its value, so there must be
//! an entry for each row that is there: it is written, and committed, before the row is sent. What the
//! column is to hold must be known for that.

use std::sync::Arc;

use crate::config::{Ids, Lookup};
use crate::error::Fault;
use crate::planner::context::Relation;
use crate::planner::facts;
use crate::planner::plan::{Entries, KeyOperands, Operand};
use crate::planner::refuse;
use crate::planner::survey::{Reference, Rows, Survey};
use crate::sql::cursor::Name;
use crate::sql::statement::{Assignment, Expr, Insert, Merge};

impl Survey<'_> {
    /// The lookup tables that are kept, and the columns that are kept unique: where there is one shard, none are.
    fn kept<'i>(&self, ids: &'i Ids) -> Vec<&'i Arc<Lookup>> {
        if self.context.is_one_shard() {
            return Vec::new();
        }
        ids.lookups.iter().chain(&ids.uniques).collect()
    }

    /// ON CONFLICT that passes over rows which other shards may have, of columns that are kept unique.
    pub(super) fn conflicting_uniques(&mut self, insert: &Insert, ids: &Ids) {
        if !insert.has_conflict || self.context.is_one_shard() {
            return;
        }
        let mut uniques = ids.uniques.iter();
        let is_met = |unique: &&Arc<Lookup>| {
            insert.conflict.is_empty() || insert.conflict.contains(&unique.column)
        };
        if let Some(unique) = uniques.find(is_met) {
            self.refuse(refuse::conflicting_unique(
                &insert.table.to_string(),
                &unique.column,
            ));
        }
    }

    /// Notes what lookup tables must hold for the rows of an INSERT. `keys` are those of each row, or of
    /// all; `filled` is the column that is given ids yet.
    pub(super) fn new_entries(
        &mut self,
        insert: &Insert,
        ids: &Ids,
        known: Option<&[&str]>,
        rows: Option<&[Vec<Expr>]>,
        keys: Option<&[KeyOperands]>,
        filled: Option<&str>,
    ) {
        let table = insert.table.to_string();
        for lookup in self.kept(ids) {
            let name = lookup.column.as_str();
            if filled == Some(name) {
                continue;
            }
            let Some(column) = self.context.lookup_column(&insert.table, name, lookup) else {
                return self.refuse(missing(lookup, &table));
            };
            let Some(rows) = rows else {
                return self.refuse(unknown(lookup, &table, "comes from a query"));
            };
            let named: Vec<&str> = insert.columns.iter().map(String::as_str).collect();
            let columns = if named.is_empty() {
                known.unwrap_or_default()
            } else {
                &named
            };
            let at = columns.iter().position(|column| *column == name);
            let mut entries = Vec::with_capacity(rows.len());
            for (index, row) in rows.iter().enumerate() {
                let value = at.and_then(|at| row.get(at));
                let Some(value) = value.filter(|value| **value != Expr::Default) else {
                    return self.refuse(unknown(lookup, &table, "is left to its default"));
                };
                let Some(operand) = facts::operand(value, column.kind) else {
                    let why = "is an expression that the server computes";
                    return self.refuse(unknown(lookup, &table, why));
                };
                // Without a key the row is refused anyway.
                let key = keys.and_then(|keys| keys.get(index).or(keys.first()));
                if let Some(key) = key
                    && operand != Operand::Null
                {
                    let own = key.iter().take(lookup.key.len()).cloned().collect();
                    entries.push((operand, own));
                }
            }
            if !entries.is_empty() {
                self.entries.push(Entries {
                    column,
                    rows: entries,
                });
            }
        }
    }

    /// Notes columns with lookup tables that an UPDATE sets.
    pub(super) fn assigned(&mut self, table: &Name, sets: &[Assignment], target: usize) {
        let Relation::Sharded { ids, .. } = self.context.relation(table) else {
            return;
        };
        for lookup in self.kept(ids) {
            let name = lookup.column.as_str();
            let own = std::slice::from_ref(&lookup.column);
            for set in sets
                .iter()
                .filter(|set| set.columns.contains(&lookup.column))
            {
                let column = self.context.lookup_column(table, name, lookup);
                let Some(column) = column else {
                    return self.refuse(missing(lookup, &table.to_string()));
                };
                let operand = facts::operand(&set.value, column.kind);
                match operand.filter(|_| set.columns.as_slice() == own) {
                    Some(Operand::Null) => (),
                    Some(operand) => self.assigned.push((target, column, operand)),
                    None => {
                        let why = "is set to what the server computes";
                        self.refuse(unknown(lookup, &table.to_string(), why));
                    }
                }
            }
        }
    }

    /// ON CONFLICT DO UPDATE of a column with a lookup table: the row that is in the way may have another
    /// key.
    pub(super) fn conflicting_entries(&mut self, sets: &[Assignment], ids: &Ids, table: &str) {
        for lookup in self.kept(ids) {
            if sets.iter().any(|set| set.columns.contains(&lookup.column)) {
                let why = "is set by ON CONFLICT DO UPDATE";
                self.refuse(unknown(lookup, table, why));
            }
        }
    }

    /// MERGE into a table whose columns have lookup tables.
    pub(super) fn merged_entries(&mut self, merge: &Merge) {
        let Relation::Sharded { ids, .. } = self.context.relation(&merge.table) else {
            return;
        };
        for lookup in self.kept(ids) {
            let sets = merge.sets.iter();
            if !merge.inserts.is_empty()
                || sets
                    .flat_map(|set| &set.columns)
                    .any(|set| *set == lookup.column)
            {
                let table = merge.table.to_string();
                let why = "is written by MERGE";
                self.refuse(unknown(lookup, &table, why));
            }
        }
    }

    /// What lookup tables must hold before the statement runs; an UPDATE's keys must be proven.
    pub(super) fn all_entries(&self) -> Result<Vec<Entries>, Fault> {
        let mut all = self.entries.clone();
        for (target, column, operand) in &self.assigned {
            let reference = self.references.get(*target);
            let keys = reference.and_then(|reference| self.keys_of(reference));
            let is_known = |key: &KeyOperands| {
                key.iter().all(|operand| match operand {
                    Operand::Between(_)
                    | Operand::Id(_)
                    | Operand::Carried(_)
                    | Operand::Key(_) => false,
                    Operand::Parameter(_)
                    | Operand::Literal { .. }
                    | Operand::Constant(_)
                    | Operand::Elements(_)
                    | Operand::LiteralElements(_)
                    | Operand::Computed(_)
                    | Operand::Looked(_)
                    | Operand::Null => true,
                })
            };
            let Some(keys) = keys.filter(|keys| keys.iter().all(is_known)) else {
                let table = reference.map(|reference| reference.name.to_string());
                return Err(unproven(&column.lookup, &table.unwrap_or_default()));
            };
            all.push(Entries {
                column: column.clone(),
                rows: keys.into_iter().map(|key| (operand.clone(), key)).collect(),
            });
        }
        Ok(all)
    }

    /// The keys of a reference: its own, or those that are looked up.
    pub(super) fn keys_of(&self, reference: &Reference) -> Option<Vec<KeyOperands>> {
        let Rows::Sharded {
            first,
            columns,
            looked,
            ..
        } = reference.place
        else {
            return None;
        };
        if let Some(rows) = &reference.rows {
            return Some(rows.clone());
        }
        let keys = self.facts.keys(first, columns);
        if keys.is_some() || columns == 1 {
            return keys;
        }
        let Relation::Sharded { ids, .. } = self.context.relation(&reference.name) else {
            return None;
        };
        let count = self.context.looked(&reference.name, ids).len();
        let mut sets = (looked..looked + count).filter_map(|node| self.facts.set(node));
        let values = sets.next()?.iter();
        Some(values.map(|value| vec![value.clone()]).collect())
    }
}

/// Why a row cannot be entered, or kept apart from others: the value of the column is not known.
pub(super) fn unknown(lookup: &Lookup, table: &str, why: &str) -> Fault {
    if lookup.unique {
        refuse::unknown_unique(table, &lookup.column, why)
    } else {
        refuse::unknown_value(table, &lookup.column, why)
    }
}

/// The same where the key is not known.
pub(super) fn unproven(lookup: &Lookup, table: &str) -> Fault {
    if lookup.unique {
        let why = "is set in rows whose keys are not known";
        refuse::unknown_unique(table, &lookup.column, why)
    } else {
        refuse::unproven_entry(table, &lookup.column)
    }
}

/// The column is not there, or of a type that is not served.
fn missing(lookup: &Lookup, table: &str) -> Fault {
    if lookup.unique {
        let why = "is not there in a type that can be kept unique";
        refuse::unknown_unique(table, &lookup.column, why)
    } else {
        refuse::unknown_lookup(table)
    }
}

/// Whether some of these keys are looked up.
pub(super) fn looks(keys: Option<&Vec<KeyOperands>>) -> bool {
    let mut operands = keys.into_iter().flatten().flatten();
    operands.any(|operand| matches!(operand, Operand::Looked(_)))
}
