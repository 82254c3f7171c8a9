//! Reads placement rules: nested, over shards that exist, with bounds of the key's type.

use super::Loader;
use super::key_value;
use super::table::split_name;
use crate::config::fault::At;
use crate::config::read::{entries, items, join, scalar};
use crate::config::value;
use crate::config::yaml::{Entry, Node, Value};
use crate::config::{Place, RangePart};
use crate::types::key::{Key, KeyType};

const RULES: &[&str] = &[
    "jump",
    "modulo",
    "postgres",
    "range",
    "list",
    "directory",
    "shard",
];
const RULE_HINT: &str =
    "Write one rule, as in {jump: all} or {range: [{to: 1000, shard: a}, {shard: b}]}.";

/// What a rule may refer to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'s> {
    pub shards: &'s [String],
    pub key: &'s [KeyType],
}

impl Loader<'_> {
    /// A rule, or the name of a shard.
    pub(super) fn place(&self, node: &Node, path: &str, scope: Scope<'_>) -> Option<Place> {
        match &node.value {
            Value::Scalar(name) if name.text == "all" => {
                self.fault(node.at, path, "\"all\" is no rule", "Write {jump: all}.");
                None
            }
            Value::Scalar(name) => self
                .shard_name(node.at, path, &name.text, scope)
                .map(Place::Shard),
            Value::Map(entries) => self.rule(node.at, entries, path, scope),
            Value::Null | Value::List(_) => {
                self.fault(node.at, path, "is no placement rule", RULE_HINT);
                None
            }
        }
    }

    /// The one rule among the entries.
    fn rule(&self, at: At, entries: &[Entry], path: &str, scope: Scope<'_>) -> Option<Place> {
        let mut found: Option<&Entry> = None;
        for entry in entries {
            if !RULES.contains(&entry.key.as_str()) {
                let hint = value::did_you_mean(
                    &entry.key,
                    RULES.iter().copied(),
                    format!("Rules are {}.", RULES.join(", ")),
                );
                self.fault(
                    entry.at,
                    path,
                    format!("unknown rule \"{}\"", entry.key),
                    hint,
                );
                return None;
            }
            if let Some(first) = found {
                let message = format!("both \"{}\" and \"{}\" are given", first.key, entry.key);
                self.fault(
                    entry.at,
                    path,
                    message,
                    "Keep one of the two, or nest one in the other.",
                );
                return None;
            }
            found = Some(entry);
        }
        let Some(entry) = found else {
            self.fault(at, path, "no placement rule is given", RULE_HINT);
            return None;
        };
        let (node, path) = (&entry.value, join(path, &entry.key));
        match entry.key.as_str() {
            "jump" => Some(Place::Jump(self.members(node, &path, scope)?)),
            "postgres" => {
                if scope.key.contains(&KeyType::Enum) {
                    let hint = "Use jump, which hashes the label: PostgreSQL hashes the number that an enum's label has on its server.";
                    self.fault(
                        entry.at,
                        &path,
                        "cannot place an enum as PostgreSQL does",
                        hint,
                    );
                }
                Some(Place::Postgres(self.members(node, &path, scope)?))
            }
            "modulo" => {
                if !matches!(scope.key, [KeyType::Int2 | KeyType::Int4 | KeyType::Int8]) {
                    let hint = "Use jump or postgres, which hash any key.";
                    self.fault(
                        entry.at,
                        &path,
                        "modulo needs a key of one integer column",
                        hint,
                    );
                }
                Some(Place::Modulo(self.members(node, &path, scope)?))
            }
            "range" => self.range(node, &path, scope),
            "list" => self.list(node, &path, scope),
            "directory" => self.directory(node, &path),
            _ => self
                .place(node, &path, scope)
                .filter(|place| matches!(place, Place::Shard(_))),
        }
    }

    /// `all`, or a list of shards and rules.
    fn members(&self, node: &Node, path: &str, scope: Scope<'_>) -> Option<Vec<Place>> {
        if let Value::Scalar(word) = &node.value {
            if word.text == "all" {
                return Some(scope.shards.iter().cloned().map(Place::Shard).collect());
            }
            self.fault(
                node.at,
                path,
                "must be a list of shards or all",
                "Write it in brackets, as in [a, b].",
            );
            return None;
        }
        let nodes = items(node, path, &self.faults);
        if nodes.is_empty() {
            self.fault(
                node.at,
                path,
                "names no shard",
                "Write all, or a list of shards as in [a, b].",
            );
            return None;
        }
        // Each is read, whatever is wrong with those before.
        let places: Vec<Option<Place>> = nodes
            .iter()
            .map(|node| self.place(node, path, scope))
            .collect();
        places.into_iter().collect()
    }

    fn range(&self, node: &Node, path: &str, scope: Scope<'_>) -> Option<Place> {
        let key = self.one_column(node.at, path, scope)?;
        if key == KeyType::Enum {
            let hint = "An enum is ordered as its labels were declared: name them in a list.";
            self.fault(node.at, path, "needs a key of another type than enum", hint);
            return None;
        }
        let nodes = items(node, path, &self.faults);
        if nodes.is_empty() {
            self.fault(node.at, path, "has no part", RULE_HINT);
            return None;
        }
        let mut parts = Vec::new();
        let mut below: Option<Key<'static>> = None;
        let last = nodes.len().saturating_sub(1);
        for (number, node) in nodes.iter().enumerate() {
            let all = entries(node, path, &self.faults);
            let (bounds, rules): (Vec<&Entry>, Vec<&Entry>) =
                all.iter().partition(|entry| entry.key == "to");
            let bound = bounds
                .first()
                .filter(|entry| !matches!(entry.value.value, Value::Null));
            if bound.is_none() && number < last {
                let hint =
                    "Only the last part may go without: give the first key that is beyond it.";
                self.fault(node.at, path, "a part has no \"to\"", hint);
            }
            let to = bound.and_then(|entry| self.bound(&entry.value, path, key, &mut below));
            let rules: Vec<Entry> = rules.into_iter().cloned().collect();
            let place = self.rule(node.at, &rules, path, scope);
            parts.push(place.map(|place| RangePart { to, place }));
        }
        let parts: Option<Vec<RangePart>> = parts.into_iter().collect();
        parts.map(Place::Range)
    }

    /// A bound above the one before it.
    fn bound(
        &self,
        node: &Node,
        path: &str,
        key: KeyType,
        below: &mut Option<Key<'static>>,
    ) -> Option<String> {
        let (value, text) = self.key_value(node, path, key)?;
        if below.as_ref().is_some_and(|below| value <= *below) {
            let hint = "Put the parts in ascending order; \"to\" is the first key beyond the part.";
            self.fault(
                node.at,
                path,
                format!("bound \"{text}\" is not above the one before it"),
                hint,
            );
        }
        *below = Some(value);
        Some(text)
    }

    fn list(&self, node: &Node, path: &str, scope: Scope<'_>) -> Option<Place> {
        let key = self.one_column(node.at, path, scope)?;
        let mut values: Vec<(String, Place)> = Vec::new();
        let mut seen: Vec<Key<'static>> = Vec::new();
        let mut otherwise = None;
        let mut is_whole = true;
        let all = entries(node, path, &self.faults);
        if all.is_empty() {
            self.fault(
                node.at,
                path,
                "names no value",
                "Write values and shards, as in {a: shard_0, else: shard_1}.",
            );
            return None;
        }
        for entry in all {
            let path = join(path, &entry.key);
            let place = self.place(&entry.value, &path, scope);
            is_whole &= place.is_some();
            if entry.key == "else" {
                otherwise = place.map(Box::new);
                continue;
            }
            match key_value::read(&entry.key, key) {
                Err(bad) => {
                    self.fault(
                        entry.at,
                        &path,
                        format!("\"{}\" {}", entry.key, bad.message),
                        bad.hint,
                    );
                }
                Ok(value) if seen.contains(&value) => {
                    self.fault(
                        entry.at,
                        &path,
                        "is the same value as another",
                        "Remove one of the two.",
                    );
                }
                Ok(value) => {
                    seen.push(value);
                    values.extend(place.map(|place| (entry.key.clone(), place)));
                }
            }
        }
        is_whole.then_some(Place::List(values, otherwise))
    }

    fn directory(&self, node: &Node, path: &str) -> Option<Place> {
        let all = entries(node, path, &self.faults);
        let table = all.iter().find(|entry| entry.key == "table");
        let (Some(table), 1) = (table, all.len()) else {
            self.fault(
                node.at,
                path,
                "needs its table and nothing else",
                "Write {directory: {table: NAME}}.",
            );
            return None;
        };
        let table = scalar(&table.value, path, &self.faults)?.text.clone();
        if split_name(&table).is_none() {
            let hint = "Write name or schema.name as in the catalogs; put a part with a dot in double quotes.";
            self.fault(
                node.at,
                path,
                format!("\"{table}\" is no name of a table"),
                hint,
            );
        }
        Some(Place::Directory { table })
    }

    /// Keys that have a shard to themselves.
    pub(super) fn pins(&self, node: &Node, path: &str, scope: Scope<'_>) -> Vec<(String, String)> {
        let Some(key) = self.one_column(node.at, path, scope) else {
            return Vec::new();
        };
        let mut pins = Vec::new();
        for entry in entries(node, path, &self.faults) {
            let path = join(path, &entry.key);
            if let Err(bad) = key_value::read(&entry.key, key) {
                self.fault(
                    entry.at,
                    &path,
                    format!("\"{}\" {}", entry.key, bad.message),
                    bad.hint,
                );
            }
            let shard = scalar(&entry.value, &path, &self.faults)
                .and_then(|name| self.shard_name(entry.value.at, &path, &name.text, scope));
            if let Some(shard) = shard {
                pins.push((entry.key.clone(), shard));
            }
        }
        pins
    }

    fn one_column(&self, at: At, path: &str, scope: Scope<'_>) -> Option<KeyType> {
        let [key] = scope.key else {
            let hint = "Use jump or postgres, which hash keys of several columns.";
            self.fault(at, path, "needs a key of one column", hint);
            return None;
        };
        Some(*key)
    }

    fn key_value(&self, node: &Node, path: &str, key: KeyType) -> Option<(Key<'static>, String)> {
        let scalar = scalar(node, path, &self.faults)?;
        match key_value::read(&scalar.text, key) {
            Ok(value) => Some((value, scalar.text.clone())),
            Err(bad) => {
                self.fault(
                    node.at,
                    path,
                    format!("\"{}\" {}", scalar.raw, bad.message),
                    bad.hint,
                );
                None
            }
        }
    }

    /// The name of a shard that exists.
    pub(super) fn shard_name(
        &self,
        at: At,
        path: &str,
        name: &str,
        scope: Scope<'_>,
    ) -> Option<String> {
        if scope.shards.iter().any(|shard| shard == name) {
            return Some(name.to_owned());
        }
        let hint = value::did_you_mean(
            name,
            scope.shards.iter().map(String::as_str),
            format!("Shards are {}.", scope.shards.join(", ")),
        );
        self.fault(at, path, format!("no shard is named \"{name}\""), hint);
        None
    }
}

/// Whether the rule places by bucket alone, so that an id can carry where its row is.
pub(super) fn is_of_bucket(place: &Place) -> bool {
    match place {
        Place::Jump(members) => members
            .iter()
            .all(|member| matches!(member, Place::Shard(_)) || is_of_bucket(member)),
        Place::Shard(_) => true,
        Place::Modulo(_)
        | Place::Postgres(_)
        | Place::Range(_)
        | Place::List(..)
        | Place::Directory { .. } => false,
    }
}
