//! What tables say beyond their key: ids, caching, and each other.

use std::collections::BTreeMap;

use super::Loader;
use super::place::is_of_bucket;
use super::table::{Distributions, Draft, split_name};
use crate::config::keys::database::{IDS, TABLE_CACHE};
use crate::config::read::{Object, join};
use crate::config::{Ids, Table, TableKind};

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
            by: false,
        }
    }

    pub(super) fn cache(&self, object: &Object<'_>) {
        let Some(node) = object.node("cache") else {
            return;
        };
        let cache = Object::open(node, &TABLE_CACHE, object.child("cache"), &self.faults);
        let strong = cache.choice("mode", &[true, false, false]).unwrap_or(true);
        let (ttl, swr) = (cache.duration_or_none("ttl"), cache.duration_or_none("swr"));
        let uses = [
            ("ttl", ttl.is_some()),
            ("swr", swr.is_some()),
            ("strict", cache.boolean("strict")),
            ("strong_columns", !cache.texts("strong_columns").is_empty()),
            ("index", !cache.texts("index").is_empty()),
        ];
        match (strong, ttl) {
            (true, _) => {
                for (name, _) in uses.into_iter().filter(|(_, used)| *used) {
                    let hint = "Set mode to bounded or cached, or remove it.";
                    cache.bad(name, "has no use with mode strong", hint);
                }
            }
            (false, None) if !cache.has("ttl") => {
                self.fault(
                    cache.at,
                    &cache.path,
                    "\"ttl\" is missing",
                    "Say how long an answer is fresh, as in ttl: 30s.",
                );
            }
            (false, _) => (),
        }
        if swr.zip(ttl).is_some_and(|(swr, ttl)| swr < ttl) {
            cache.bad(
                "swr",
                "is shorter than ttl",
                "It is the age up to which an answer is served: make it the longer.",
            );
        }
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
        let hint = "Write table.column of a table on the same distribution with ids: {column: …, carries: …}.";
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
            Some(other) if !carries(&other.table.ids, column) => {
                self.fault(
                    draft.at,
                    &path,
                    format!("the ids of \"{by}\" do not carry their bucket"),
                    hint,
                );
            }
            Some(_) => (),
        }
    }
}

/// Whether a column has ids that carry their bucket.
fn carries(ids: &Ids, column: &str) -> bool {
    ids.carries && ids.column.as_deref() == Some(column)
}
