//! Whether a shard's tables are those of the home shard.
//!
//! Only sharded and reference tables must be: single ones live on the home shard alone.

use std::collections::BTreeMap;

use super::Shard;
use crate::config::Unlisted;
use crate::control::finding::Finding;
use crate::control::schema::{Column, Source, Table};
use crate::placement::topology::{Kind, Topology};

/// Compares one shard with the home shard.
pub(super) fn check(topology: &Topology, home: &Shard, shard: &Shard, findings: &mut Vec<Finding>) {
    for ((schema, name), expected) in &home.schema.tables {
        if !is_everywhere(topology, schema, name) {
            continue;
        }
        let Some(table) = shard.schema.tables.get(&(schema.clone(), name.clone())) else {
            let what = format!("table \"{schema}.{name}\" of the home shard is missing");
            findings.push(Finding::error(what).hint(HINT).on(&shard.name));
            continue;
        };
        for what in differences(expected, table) {
            let what = format!("table \"{schema}.{name}\": {what}");
            findings.push(Finding::error(what).hint(HINT).on(&shard.name));
        }
    }
    for (schema, name) in shard.schema.tables.keys() {
        let is_new = !home
            .schema
            .tables
            .contains_key(&(schema.clone(), name.clone()));
        if is_new && is_everywhere(topology, schema, name) {
            let what = format!("table \"{schema}.{name}\" is not on the home shard");
            findings.push(Finding::error(what).hint(HINT).on(&shard.name));
        }
    }
}

const HINT: &str = "Make the schemas equal; DDL sent through pgherd reaches every shard.";

fn is_everywhere(topology: &Topology, schema: &str, name: &str) -> bool {
    if schema == "pgherd" {
        return false;
    }
    match topology.table(Some(schema), name) {
        Some(rule) => rule.kind != Kind::Single,
        None => topology.unlisted() == Unlisted::Reference,
    }
}

/// What is not as in `expected`, a phrase each.
fn differences(expected: &Table, found: &Table) -> Vec<String> {
    let mut phrases = Vec::new();
    let names = |table: &Table| -> Vec<String> {
        let names = table.columns.iter().map(|column| column.name.clone());
        names.collect()
    };
    let (wanted, present) = (names(expected), names(found));
    if wanted != present {
        phrases.push(format!(
            "its columns are ({}), but ({}) on the home shard",
            present.join(", "),
            wanted.join(", ")
        ));
        return phrases;
    }
    for (wanted, present) in expected.columns.iter().zip(&found.columns) {
        let (wanted_words, present_words) = (words(wanted), words(present));
        if wanted_words != present_words {
            phrases.push(format!(
                "column \"{}\" is {present_words}, but {wanted_words} on the home shard",
                wanted.name
            ));
        }
    }
    compare("index", &expected.indexes, &found.indexes, &mut phrases);
    compare(
        "constraint",
        &expected.constraints,
        &found.constraints,
        &mut phrases,
    );
    phrases
}

/// A column as its definition would be written; object ids differ between servers.
fn words(column: &Column) -> String {
    let mut words = column.type_name.clone();
    if !column.deterministic {
        words.push_str(" with a nondeterministic collation");
    }
    if column.not_null {
        words.push_str(" NOT NULL");
    }
    let default = column.default.as_deref();
    match (column.source, default) {
        (Source::Generated, expression) => {
            let expression = expression.unwrap_or_default();
            words.extend([" GENERATED ALWAYS AS (", expression, ")"]);
        }
        (Source::Identity, _) => words.push_str(" GENERATED AS IDENTITY"),
        (Source::Default, Some(default)) => words.extend([" DEFAULT ", default]),
        (Source::Default, None) => (),
    }
    words
}

fn compare<T>(
    noun: &str,
    expected: &BTreeMap<String, T>,
    found: &BTreeMap<String, T>,
    phrases: &mut Vec<String>,
) {
    for definition in expected.keys().filter(|key| !found.contains_key(*key)) {
        phrases.push(format!(
            "the {noun} \"{definition}\" of the home shard is missing"
        ));
    }
    for definition in found.keys().filter(|key| !expected.contains_key(*key)) {
        phrases.push(format!(
            "the {noun} \"{definition}\" is not on the home shard"
        ));
    }
}
