//! Reads tables, from the database's own list and from files with one table each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Loader;
use super::policy::link_lookups;
use crate::config::fault::At;
use crate::config::keys::database::TABLE;
use crate::config::read::{Object, entries, join};
use crate::config::yaml::{Node, Value};
use crate::config::{Distribution, Ids, Table, TableKind, value};

pub(super) type Distributions = BTreeMap<String, Distribution>;

/// A table, where it stands, and what refers to other tables.
pub(super) struct Draft {
    pub table: Table,
    pub at: At,
    pub path: String,
    pub by: Option<String>,
    /// The columns that have lookup tables.
    pub lookup: Vec<String>,
    /// Those that are kept unique over all shards.
    pub unique: Vec<String>,
}

/// What `kind` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Sharded,
    Reference,
    Single,
}

impl Loader<'_> {
    pub(super) fn tables(
        &self,
        database: &Object<'_>,
        distributions: &Distributions,
    ) -> Vec<Table> {
        let mut drafts = Vec::new();
        let path = database.child("tables");
        if let Some(node) = database.node("tables") {
            for entry in entries(node, &path, &self.faults) {
                let child = join(&path, &entry.key);
                drafts.extend(self.listed(
                    &entry.key,
                    entry.at,
                    &entry.value,
                    child,
                    distributions,
                ));
            }
        }
        for (at, pattern) in database.texts("tables_from") {
            self.table_files(
                at,
                &pattern,
                &database.child("tables_from"),
                distributions,
                &mut drafts,
            );
        }
        self.check_references(&drafts);
        link_lookups(&mut drafts, distributions);
        drafts.into_iter().map(|draft| draft.table).collect()
    }

    /// A table of the list: a word, or a section.
    fn listed(
        &self,
        name: &str,
        at: At,
        node: &Node,
        path: String,
        distributions: &Distributions,
    ) -> Option<Draft> {
        let kind = match &node.value {
            Value::Scalar(word) => match word.text.as_str() {
                "reference" => TableKind::Reference,
                "single" => TableKind::Single,
                _ => {
                    let hint = "Write reference, single, or {distribution: …, key: …}.";
                    self.fault(
                        node.at,
                        &path,
                        format!("\"{}\" is no kind of table", word.raw),
                        hint,
                    );
                    return None;
                }
            },
            Value::Null | Value::List(_) | Value::Map(_) => {
                let object = Object::open(node, &TABLE, path, &self.faults);
                if object.has("table") {
                    object.bad(
                        "table",
                        "is only for files of tables_from",
                        "Remove it: the name stands before the colon.",
                    );
                }
                return self.draft(name, at, &object, distributions);
            }
        };
        let table = self.named(name, at, &path, Some(kind))?;
        Some(Draft {
            table,
            at,
            path,
            by: None,
            lookup: Vec::new(),
            unique: Vec::new(),
        })
    }

    fn table_files(
        &self,
        at: At,
        pattern: &str,
        path: &str,
        distributions: &Distributions,
        drafts: &mut Vec<Draft>,
    ) {
        let full = self.resolve(pattern).display().to_string();
        let mut files = match (self.sources.glob)(&full) {
            Ok(files) => files,
            Err(error) => {
                let hint = "Paths are relative to the configuration's folder.";
                return self.fault(
                    at,
                    path,
                    format!("could not list \"{pattern}\": {error}"),
                    hint,
                );
            }
        };
        if files.is_empty() {
            let hint = "Paths are relative to the configuration's folder, as in tables/*.yaml.";
            return self.fault(at, path, format!("\"{pattern}\" names no file"), hint);
        }
        files.sort();
        for file in files {
            let name = file.display().to_string();
            match (self.sources.read)(&file) {
                Err(error) => {
                    let hint = "Let pgherd's user read it.";
                    self.fault(
                        at,
                        path,
                        format!("could not read \"{name}\": {error}"),
                        hint,
                    );
                }
                Ok(text) => {
                    let Some(root) = self.tree(&text, &name) else {
                        continue;
                    };
                    let object = Object::open(&root, &TABLE, String::new(), &self.faults);
                    if !object.has("table") {
                        self.fault(
                            root.at,
                            "",
                            "\"table\" is missing",
                            "Add table: NAME to say which table it is.",
                        );
                        continue;
                    }
                    let at = object.node("table").map_or(root.at, |node| node.at);
                    if let Some(name) = object.name("table") {
                        drafts.extend(self.draft(&name, at, &object, distributions));
                    }
                }
            }
        }
    }

    fn draft(
        &self,
        name: &str,
        at: At,
        object: &Object<'_>,
        distributions: &Distributions,
    ) -> Option<Draft> {
        let words = [Word::Sharded, Word::Reference, Word::Single];
        let word = object.choice("kind", &words).unwrap_or(Word::Sharded);
        let cache = self.cache(object);
        let kind = match word {
            Word::Sharded => self.sharded(object, distributions),
            Word::Reference | Word::Single => {
                for name in ["distribution", "key", "ids", "by", "lookup", "unique"] {
                    if object.has(name) {
                        object.bad(
                            name,
                            "has no use for a table that is not sharded",
                            "Remove it, or kind.",
                        );
                    }
                }
                Some(if word == Word::Single {
                    TableKind::Single
                } else {
                    TableKind::Reference
                })
            }
        };
        let ids = self.ids(object, kind.as_ref(), distributions);
        let by = object.name("by");
        let unique = self.uniques(object, kind.as_ref(), distributions);
        let lookup = self.lookups(object, kind.as_ref(), &ids, distributions);
        let mut table = self.named(name, at, &object.path, kind)?;
        table.ids = ids;
        table.cache = cache.map(Arc::new);
        table.ids.by = by.is_some();
        Some(Draft {
            table,
            at,
            path: object.path.clone(),
            by,
            lookup: lookup.into_iter().map(|(_, column)| column).collect(),
            unique,
        })
    }

    fn sharded(&self, object: &Object<'_>, distributions: &Distributions) -> Option<TableKind> {
        for (name, hint) in [
            (
                "distribution",
                "Name the distribution that places its rows, or write reference or single.",
            ),
            ("key", "Name the column, or the columns, that hold the key."),
        ] {
            if !object.has(name) {
                self.fault(
                    object.at,
                    &object.path,
                    format!("\"{name}\" is missing"),
                    hint,
                );
            }
        }
        let key: Vec<String> = object
            .texts("key")
            .into_iter()
            .map(|(_, column)| column)
            .collect();
        if key.iter().collect::<BTreeSet<_>>().len() != key.len() {
            object.bad("key", "names a column twice", "Name each column once.");
        }
        let distribution = object.name("distribution")?;
        let Some(found) = distributions.get(&distribution) else {
            let hint = match value::closest(&distribution, distributions.keys().map(String::as_str))
            {
                Some(close) => format!("Did you mean \"{close}\"?"),
                None => "Define it under distributions.".to_owned(),
            };
            object.bad(
                "distribution",
                format!("no distribution is named \"{distribution}\""),
                hint,
            );
            return None;
        };
        if !key.is_empty() && !found.key.is_empty() && key.len() != found.key.len() {
            let message = format!(
                "has {} columns, and distribution \"{distribution}\" has {}",
                key.len(),
                found.key.len()
            );
            object.bad(
                "key",
                message,
                "Name as many columns as the distribution's key has types.",
            );
        }
        (!key.is_empty()).then_some(TableKind::Sharded { distribution, key })
    }

    fn named(&self, text: &str, at: At, path: &str, kind: Option<TableKind>) -> Option<Table> {
        let Some((schema, name)) = split_name(text) else {
            let hint = "Write name or schema.name as in the catalogs; put a part with a dot in double quotes.";
            self.fault(at, path, format!("\"{text}\" is no name of a table"), hint);
            return None;
        };
        kind.map(|kind| Table {
            schema,
            name,
            kind,
            ids: Ids::default(),
            cache: None,
        })
    }
}

/// Schema and name of `name`, `schema.name` or `"schema"."na.me"`, verbatim: nothing is folded.
pub fn split_name(text: &str) -> Option<(Option<String>, String)> {
    let (first, rest) = name_part(text)?;
    if rest.is_empty() {
        return Some((None, first));
    }
    let (second, rest) = name_part(rest.strip_prefix('.')?)?;
    rest.is_empty().then_some((Some(first), second))
}

fn name_part(text: &str) -> Option<(String, &str)> {
    let (part, rest) = match text.strip_prefix('"') {
        Some(inner) => inner.split_once('"')?,
        None => text.split_at_checked(text.find('.').unwrap_or(text.len()))?,
    };
    (!part.is_empty()).then(|| (part.to_owned(), rest))
}
