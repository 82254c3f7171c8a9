//! What tables say beyond their key: ids, caching, and each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Loader;
use super::place::is_of_bucket;
use super::table::{Distributions, Draft, split_name};
use crate::config::fault::At;
use crate::config::keys::database::{IDS, TABLE_CACHE};
use crate::config::read::{Object, items, join, texts};
use crate::config::{Ids, Lookup, Mode, Policy, Table, TableKind};
use crate::types::key::KeyType;

impl Loader<'_> {
    pub(super) fn ids(
        &self,
        object: &Object<'_>,
        kind: Option<&TableKind>,
        distributions: &Distributions,
    ) -> Ids {
        let Some(node) = object.node("ids") else {
            return Ids::default();
        };
        let ids = Object::open(node, &IDS, object.child("ids"), &self.faults);
        let column = ids.name("column");
        let carries = ids.name("carries");
        if let (Some(carries), Some(TableKind::Sharded { distribution, key })) = (&carries, kind) {
            if key.as_slice() != [carries.as_str()] {
                ids.bad(
                    "carries",
                    format!("\"{carries}\" is not the table's key"),
                    "Name the column that holds the key.",
                );
            }
            if distributions
                .get(distribution)
                .is_some_and(|found| !is_of_bucket(&found.place))
            {
                let message = format!("distribution \"{distribution}\" does not place by bucket");
                ids.bad(
                    "carries",
                    message,
                    "Use a distribution by jump, or lookup in place of carries.",
                );
            }
        }
        if column.is_some() && column == carries {
            ids.bad(
                "carries",
                "is the column of the ids itself",
                "Leave it out: a row is placed by its id already.",
            );
        }
        Ids {
            carries: column.is_some() && carries.is_some(),
            column,
            ..Ids::default()
        }
    }

    pub(super) fn cache(&self, object: &Object<'_>) -> Option<Policy> {
        let node = object.node("cache")?;
        let cache = Object::open(node, &TABLE_CACHE, object.child("cache"), &self.faults);
        let modes = [Mode::Strong, Mode::Bounded, Mode::Cached];
        let mode = cache.choice("mode", &modes).unwrap_or(Mode::Strong);
        let (ttl, swr) = (cache.duration_or_none("ttl"), cache.duration_or_none("swr"));
        let texts = |name| -> Vec<String> {
            let texts = cache.texts(name).into_iter();
            texts.map(|(_, column)| column).collect()
        };
        let policy = Policy {
            mode,
            ttl: ttl.unwrap_or_default(),
            swr: swr.or(ttl).unwrap_or_default(),
            strict: cache.boolean("strict"),
            strong_columns: texts("strong_columns"),
            index: texts("index"),
        };
        let uses = [
            ("ttl", ttl.is_some()),
            ("swr", swr.is_some()),
            ("strict", policy.strict),
            ("strong_columns", !policy.strong_columns.is_empty()),
            ("index", !policy.index.is_empty()),
        ];
        match (mode, ttl) {
            (Mode::Strong, _) => {
                for (name, _) in uses.into_iter().filter(|(_, used)| *used) {
                    let hint = "Set mode to bounded or cached, or remove it.";
                    cache.bad(name, "has no use with mode strong", hint);
                }
            }
            (Mode::Bounded | Mode::Cached, None) if !cache.has("ttl") => {
                self.fault(
                    cache.at,
                    &cache.path,
                    "\"ttl\" is missing",
                    "Say how long an answer is fresh, as in ttl: 30s.",
                );
            }
            (Mode::Bounded | Mode::Cached, _) => (),
        }
        if swr.zip(ttl).is_some_and(|(swr, ttl)| swr < ttl) {
            cache.bad(
                "swr",
                "is shorter than ttl",
                "It is the age up to which an answer is served: make it the longer.",
            );
        }
        Some(policy)
    }

    /// What tables say of each other: no name twice, and `by` leads to ids that carry.
    pub(super) fn check_references(&self, drafts: &[Draft]) {
        let mut seen = BTreeMap::new();
        for draft in drafts {
            let name = (&draft.table.schema, &draft.table.name);
            if let Some(line) = seen.insert(name, draft.at.line) {
                let message = format!("table \"{}\" is given twice", draft.table.name);
                self.fault(
                    draft.at,
                    &draft.path,
                    message,
                    format!("Remove one of the two; the other is on line {line}."),
                );
            }
            if let Some(by) = &draft.by {
                self.check_by(draft, by, drafts);
            }
        }
    }

    fn check_by(&self, draft: &Draft, by: &str, drafts: &[Draft]) {
        let hint = "Write table.column of a table on the same distribution with ids: {column: …, carries: …} or lookup: [column].";
        let path = join(&draft.path, "by");
        let Some((table, column)) = by.rsplit_once('.') else {
            return self.fault(draft.at, &path, format!("\"{by}\" names no column"), hint);
        };
        let wanted = split_name(table);
        let found = drafts.iter().find(|other| {
            wanted.as_ref().is_some_and(|(schema, name)| {
                other.table.schema == *schema && other.table.name == *name
            })
        });
        let distribution = |table: &Table| match &table.kind {
            TableKind::Sharded { distribution, .. } => Some(distribution.clone()),
            TableKind::Reference | TableKind::Single => None,
        };
        match found {
            None => self.fault(
                draft.at,
                &path,
                format!("no table is named \"{table}\""),
                hint,
            ),
            Some(other) if distribution(&other.table) != distribution(&draft.table) => {
                self.fault(
                    draft.at,
                    &path,
                    format!("table \"{table}\" is on another distribution"),
                    hint,
                );
            }
            Some(other)
                if !carries(&other.table.ids, column) && found_by(other, column).is_none() =>
            {
                self.fault(
                    draft.at,
                    &path,
                    format!("the ids of \"{by}\" do not carry their bucket"),
                    hint,
                );
            }
            Some(other) if draft.table.ids.carries && found_by(other, column).is_some() => self
                .fault(
                    draft.at,
                    &path,
                    "\"by\" and ids that carry their bucket exclude each other",
                    "Leave carries out: rows are with those of the other table.",
                ),
            Some(_) => (),
        }
    }

    /// The lookup tables of a table's columns.
    pub(super) fn lookups(
        &self,
        object: &Object<'_>,
        kind: Option<&TableKind>,
        ids: &Ids,
        distributions: &Distributions,
    ) -> Vec<(At, String)> {
        let path = object.child("lookup");
        let Some(node) = object.node("lookup") else {
            return Vec::new();
        };
        let mut columns: Vec<(At, String)> = Vec::new();
        for group in items(node, &path, &self.faults) {
            match texts(group, &path, &self.faults).as_slice() {
                [(at, column)] if columns.iter().any(|(_, known)| known == column) => {
                    let message = format!("\"{column}\" is given twice");
                    self.fault(*at, &path, message, "Name each column once.");
                }
                [(at, column)] if carries(ids, column) => {
                    let message = format!("the ids of \"{column}\" carry their bucket");
                    self.fault(
                        *at,
                        &path,
                        message,
                        "Leave it out: rows are found by it already.",
                    );
                }
                [(at, column)] => columns.push((*at, column.clone())),
                _ => self.fault(
                    group.at,
                    &path,
                    "a lookup table is of one column",
                    "List each column by itself.",
                ),
            }
        }
        let Some(TableKind::Sharded { distribution, key }) = kind else {
            return columns;
        };
        if let (Some((at, _)), true) = (columns.first(), object.has("by")) {
            let hint = "Leave one of them out: a lookup table holds the key of its own rows.";
            self.fault(*at, &path, "\"lookup\" and \"by\" exclude each other", hint);
        }
        for (at, column) in &columns {
            if key.contains(column) {
                let message = format!("\"{column}\" is a column of the key");
                self.fault(
                    *at,
                    &path,
                    message,
                    "Leave it out: rows are found by it already.",
                );
            }
        }
        let unserved = distributions
            .get(distribution)
            .and_then(|found| found.key.iter().find(|kind| !is_kept(**kind)));
        if let (Some(kind), Some((at, _))) = (unserved, columns.first()) {
            self.fault(
                *at,
                &path,
                format!("a lookup table cannot hold keys of type {}", kind.name()),
                "Use a distribution whose key is of integers, text or uuid.",
            );
        }
        columns
    }

    /// The columns of a table that are kept unique over all shards.
    pub(super) fn uniques(
        &self,
        object: &Object<'_>,
        kind: Option<&TableKind>,
        distributions: &Distributions,
    ) -> Vec<String> {
        let path = object.child("unique");
        let Some(node) = object.node("unique") else {
            return Vec::new();
        };
        let mut columns: Vec<String> = Vec::new();
        for group in items(node, &path, &self.faults) {
            match texts(group, &path, &self.faults).as_slice() {
                [(at, column)] if columns.contains(column) => {
                    let message = format!("\"{column}\" is given twice");
                    self.fault(*at, &path, message, "Name each column once.");
                }
                [(_, column)] => columns.push(column.clone()),
                _ => self.fault(
                    group.at,
                    &path,
                    "several columns are kept unique together only where the key is among them",
                    "List single columns; a UNIQUE constraint that contains the key holds by itself.",
                ),
            }
        }
        if columns.is_empty() {
            return columns;
        }
        if object.has("by") {
            let hint = "Leave one of them out.";
            self.fault(
                node.at,
                &path,
                "\"unique\" and \"by\" exclude each other",
                hint,
            );
        }
        let Some(TableKind::Sharded { distribution, key }) = kind else {
            return columns;
        };
        if let Some(column) = columns.iter().find(|column| key.contains(column)) {
            let message = format!("\"{column}\" is a column of the key");
            let hint = "Leave it out: a UNIQUE constraint that contains the key holds by itself.";
            self.fault(node.at, &path, message, hint);
        }
        let types = distributions.get(distribution);
        let unserved = types.and_then(|found| found.key.iter().find(|kind| !is_kept(**kind)));
        if let Some(kind) = unserved {
            self.fault(
                node.at,
                &path,
                format!("rows with keys of type {} are not kept unique", kind.name()),
                "Use a distribution whose key is of integers, text or uuid.",
            );
        }
        columns
    }
}

/// The lookup tables of a table, or its unique columns.
type Kept = Vec<Arc<Lookup>>;

/// Makes the lookup tables of all tables, and leads `by` to them.
pub(super) fn link_lookups(drafts: &mut [Draft], distributions: &Distributions) {
    let leads = |drafts: &[Draft], draft: &Draft, column: &str| {
        drafts.iter().any(|other| {
            let Some((table, found)) = other.by.as_deref().and_then(|by| by.rsplit_once('.'))
            else {
                return false;
            };
            found == column
                && split_name(table).is_some_and(|(schema, name)| {
                    draft.table.schema == schema && draft.table.name == name
                })
        })
    };
    let made: Vec<(Kept, Kept)> = drafts
        .iter()
        .map(|draft| {
            let TableKind::Sharded { distribution, key } = &draft.table.kind else {
                return (Vec::new(), Vec::new());
            };
            let kinds = distributions
                .get(distribution)
                .map(|found| found.key.iter());
            let key: Vec<_> = key
                .iter()
                .cloned()
                .zip(kinds.into_iter().flatten().copied())
                .collect();
            let make = |column: &String, unique: bool| {
                Arc::new(Lookup {
                    schema: draft.table.schema.clone(),
                    table: draft.table.name.clone(),
                    column: column.clone(),
                    key: key.clone(),
                    distribution: distribution.clone(),
                    leads: !unique && leads(drafts, draft, column),
                    unique,
                })
            };
            let lookups = draft.lookup.iter().map(|column| make(column, false));
            let uniques = draft.unique.iter().map(|column| make(column, true));
            (lookups.collect(), uniques.collect())
        })
        .collect();
    for (draft, (lookups, uniques)) in drafts.iter_mut().zip(&made) {
        draft.table.ids.lookups.clone_from(lookups);
        draft.table.ids.uniques.clone_from(uniques);
    }
    for draft in drafts.iter_mut() {
        let Some((table, column)) = draft.by.as_deref().and_then(|by| by.rsplit_once('.')) else {
            continue;
        };
        let Some((schema, name)) = split_name(table) else {
            continue;
        };
        let found = made.iter().flat_map(|(lookups, _)| lookups).find(|lookup| {
            lookup.schema == schema && lookup.table == name && lookup.column == column
        });
        draft.table.ids.looked = found.cloned();
        draft.table.ids.by = found.is_none();
    }
}

/// Whether lookup tables hold values of this type.
pub(super) fn is_kept(kind: KeyType) -> bool {
    kind.is_int() || matches!(kind, KeyType::Text | KeyType::Uuid)
}

fn found_by<'a>(draft: &'a Draft, column: &str) -> Option<&'a String> {
    draft.lookup.iter().find(|own| *own == column)
}

/// Whether a column has ids that carry their bucket.
fn carries(ids: &Ids, column: &str) -> bool {
    ids.carries && ids.column.as_deref() == Some(column)
}
