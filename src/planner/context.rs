//! What planning looks things up in, and what a table's name means there.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Ids, Lookup, Unlisted};
use crate::placement::catalog::{Catalog, Table, View};
use crate::placement::code::Code;
use crate::placement::topology::{Kind, TableRule, Topology};
use crate::planner::plan::LookupColumn;
use crate::sql::cursor::Name;
use crate::sql::scan::Lexing;
use crate::types::key::KeyType;
use crate::types::oid;

/// All that a plan depends on besides the text. The memo's key must tell one from another.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub topology: &'a Topology,
    pub catalog: &'a Catalog,
    /// Schemas in order, `$user` resolved.
    pub search_path: &'a [String],
    pub lexing: Lexing,
    /// Whether hints in comments count for this user.
    pub comment_hints: bool,
    /// Whether it is for a tenant: what is not proven to be confined to it is refused.
    pub tenant: bool,
}

/// Where a relation's rows are.
#[derive(Clone, Copy, Debug)]
pub enum Relation<'a> {
    Sharded {
        distribution: usize,
        key: &'a [String],
        ids: &'a Ids,
        /// What the catalog knows of it.
        table: Option<&'a Table>,
    },
    Reference(Option<&'a Table>),
    Single,
    /// `pg_catalog` and `information_schema`.
    System,
    /// A view the config does not list, whose rows are those of other tables.
    View(&'a View),
    /// Not listed, where that is refused.
    Refused,
}

impl<'a> Context<'a> {
    /// Whether what is created without a schema is temporary.
    pub(super) fn makes_temporary(&self) -> bool {
        self.search_path
            .first()
            .is_some_and(|first| first == "pg_temp")
    }

    /// Whether all rows are on one shard, so that nothing needs proof.
    pub fn is_one_shard(&self) -> bool {
        self.topology.shards().len() == 1
    }

    /// The table of the catalog that a name means.
    pub fn table(&self, name: &Name) -> Option<&'a Table> {
        self.find(name).map(|(_, table)| table)
    }

    /// The type modifiers of a table's key columns that have one, by the column.
    pub(super) fn modifiers(&self, name: &Name, key: &[String]) -> Vec<(usize, i32)> {
        let Some(table) = self.table(name) else {
            return Vec::new();
        };
        let of = |wanted: &String| {
            let mut columns = table.columns.iter();
            columns.find(|column| column.name == *wanted)
        };
        let columns = key.iter().enumerate();
        columns
            .filter_map(|(at, column)| Some((at, of(column)?.modifier)))
            .filter(|(_, modifier)| *modifier >= 0)
            .collect()
    }

    /// A key column of a table whose equal values may be on several shards.
    pub(super) fn loose(&self, name: &Name) -> Option<&'a str> {
        let Relation::Sharded { key, .. } = self.relation(name) else {
            return None;
        };
        if self.is_one_shard() {
            return None;
        }
        let columns = &self.table(name)?.columns;
        let mut loose = columns.iter().filter(|column| column.loose);
        let column = loose.find(|column| key.contains(&column.name))?;
        Some(&column.name)
    }

    /// The columns of a table that have lookup tables, as far as the catalog has them in a type that those
    /// hold.
    pub(super) fn looked(&self, name: &Name, ids: &Ids) -> Vec<LookupColumn> {
        // Where there is one shard, none are kept.
        let lookups = ids.lookups.iter().filter(|_| !self.is_one_shard());
        lookups
            .filter_map(|lookup| self.lookup_column(name, &lookup.column, lookup))
            .collect()
    }

    /// The column of a table whose values a lookup table holds.
    pub(super) fn lookup_column(
        &self,
        name: &Name,
        column: &str,
        lookup: &Arc<Lookup>,
    ) -> Option<LookupColumn> {
        let mut columns = self.table(name)?.columns.iter();
        // What the server computes is not entered.
        let column = columns.find(|known| known.name == column && !known.generated)?;
        if lookup.unique && column.loose {
            // Equal values may be of different texts.
            return None;
        }
        Some(LookupColumn {
            lookup: Arc::clone(lookup),
            kind: lookup_type(column.oid)?,
            modifier: column.modifier,
        })
    }

    /// The lookup table that the rows of a table are placed by, with the type of its own column.
    pub(super) fn placed_by(&self, name: &Name, key: &[String], ids: &Ids) -> Option<LookupColumn> {
        self.lookup_column(name, key.first()?, ids.looked.as_ref()?)
    }

    /// What a name means, by the search path and the config.
    pub fn relation(&self, name: &Name) -> Relation<'a> {
        if name.schema.as_deref().is_some_and(is_temporary_schema) {
            return Relation::Single;
        }
        let found = self.find(name);
        let schema = found.map(|(schema, _)| schema).or(name.schema.as_deref());
        if schema.is_some_and(is_system_schema) {
            return Relation::System;
        }
        let table = found.map(|(_, table)| table);
        let rule = self.rule(schema, &name.name, table);
        if rule.is_none() && found.is_none() && name.schema.is_none() && is_catalog_name(&name.name)
        {
            return Relation::System;
        }
        match rule.map(|rule| &rule.kind) {
            Some(Kind::Sharded {
                distribution,
                key,
                ids,
            }) => Relation::Sharded {
                distribution: *distribution,
                key,
                ids,
                table,
            },
            Some(Kind::Reference) => Relation::Reference(table),
            Some(Kind::Single) => Relation::Single,
            None if let Some(view) = table.and_then(|table| table.view.as_deref()) => {
                // Its rows are where it is, but each shard worked out its own.
                if view.is_materialized && self.is_at_home(view) {
                    Relation::Single
                } else {
                    Relation::View(view)
                }
            }
            None => match self.topology.unlisted() {
                Unlisted::Single => Relation::Single,
                Unlisted::Reference => Relation::Reference(table),
                Unlisted::Refuse => Relation::Refused,
            },
        }
    }

    /// A view that the config does not list.
    fn unlisted_view(&self, schema: &str, name: &str) -> Option<&'a View> {
        let view = self.catalog.table(schema, name)?.view.as_deref()?;
        let is_listed = self.own_kind(&Name::within(schema, name)).is_some();
        (!is_listed).then_some(view)
    }

    /// The same code, views replaced by what they read and run: a view that is written stands for its
    /// tables too. A materialized one stays, beside what it reads.
    pub(super) fn through_views<'c>(&self, code: &'c Code) -> Cow<'c, Code> {
        let mut names = code.tables.keys();
        if !names.any(|(schema, name)| self.unlisted_view(schema, name).is_some()) {
            return Cow::Borrowed(code);
        }
        let mut whole = code.clone();
        let mut left: Vec<((String, String), bool)> =
            std::mem::take(&mut whole.tables).into_iter().collect();
        let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
        while let Some((name, written)) = left.pop() {
            let view = self.unlisted_view(&name.0, &name.1);
            if view.is_none_or(|view| view.is_materialized) {
                *whole.tables.entry(name.clone()).or_default() |= written;
            }
            if let Some(view) = view
                && seen.insert(name)
            {
                let own = Code {
                    tables: BTreeMap::new(),
                    ..view.code.clone()
                };
                whole.reach(&own);
                left.extend(view.code.tables.clone());
                left.extend(view.reads.iter().map(|read| (read.clone(), written)));
            }
        }
        Cow::Owned(whole)
    }

    /// Whether all that a view reads, and what it runs touches, is on the home shard.
    pub(super) fn is_at_home(&self, view: &View) -> bool {
        self.touches_only(view, |relation, written| match relation {
            Relation::Single | Relation::System => true,
            Relation::Reference(_) => !written,
            Relation::Sharded { .. } | Relation::View(_) | Relation::Refused => false,
        })
    }

    /// Whether all that a view reads, and what it runs touches, is on the home shard only.
    pub(super) fn is_single(&self, view: &View) -> bool {
        self.touches_only(view, |relation, _| match relation {
            Relation::Single | Relation::System => true,
            Relation::Reference(_)
            | Relation::Sharded { .. }
            | Relation::View(_)
            | Relation::Refused => false,
        })
    }

    fn touches_only(&self, view: &View, fits: impl Fn(&Relation<'_>, bool) -> bool) -> bool {
        let mut code = view.code.clone();
        for read in &view.reads {
            code.tables.entry(read.clone()).or_default();
        }
        let code = self.through_views(&code);
        let mut tables = code.tables.iter();
        code.opaque.is_none()
            && tables.all(|((schema, name), written)| {
                // What a materialized one reads is there as well.
                self.unlisted_view(schema, name).is_some()
                    || fits(&self.relation(&Name::within(schema, name)), *written)
            })
    }

    /// The table that a name means, with its schema.
    pub(super) fn find(&self, name: &Name) -> Option<(&'a str, &'a Table)> {
        self.catalog
            .resolve(self.search_path, name.schema.as_deref(), &name.name)
    }

    /// How the rows of a table are spread.
    pub(super) fn kind(&self, name: &Name) -> Option<&'a Kind> {
        let found = self.find(name);
        let schema = found.map(|(schema, _)| schema).or(name.schema.as_deref());
        let rule = self.rule(schema, &name.name, found.map(|(_, table)| table));
        rule.map(|rule| &rule.kind).or(self.unlisted_kind())
    }

    /// How those of a table that is not listed are; `None` where that is refused.
    pub(super) fn unlisted_kind(&self) -> Option<&'a Kind> {
        static SINGLE: Kind = Kind::Single;
        static REFERENCE: Kind = Kind::Reference;
        match self.topology.unlisted() {
            Unlisted::Single => Some(&SINGLE),
            Unlisted::Reference => Some(&REFERENCE),
            Unlisted::Refuse => None,
        }
    }

    /// How those of a table are that is listed itself.
    pub(super) fn own_kind(&self, name: &Name) -> Option<&'a Kind> {
        let schema = self.find(name).map(|(schema, _)| schema);
        let schema = schema.or(name.schema.as_deref());
        self.rule(schema, &name.name, None).map(|rule| &rule.kind)
    }

    /// The rule of a table: its own, else that of the nearest listed table that its rows are among.
    pub(super) fn rule(
        &self,
        schema: Option<&str>,
        name: &str,
        table: Option<&Table>,
    ) -> Option<&'a TableRule> {
        let own = match schema {
            Some(_) => self.topology.table(schema, name),
            None => self
                .search_path
                .iter()
                .find_map(|schema| {
                    let rule = self.topology.table(Some(schema), name)?;
                    rule.schema.is_some().then_some(rule)
                })
                .or_else(|| self.topology.table(None, name)),
        };
        let topology = self.topology;
        own.or_else(|| {
            let ancestors = self.catalog.ancestors(table?);
            let mut rules = ancestors
                .into_iter()
                .map(|(schema, name)| topology.table(Some(schema), name));
            rules.find_map(|rule| rule)
        })
    }
}

/// The type that a lookup table has a column's values in.
pub fn lookup_type(oid: u32) -> Option<KeyType> {
    match oid {
        oid::INT2 => Some(KeyType::Int2),
        oid::INT4 => Some(KeyType::Int4),
        oid::INT8 => Some(KeyType::Int8),
        oid::TEXT | oid::VARCHAR => Some(KeyType::Text),
        oid::UUID => Some(KeyType::Uuid),
        _ => None,
    }
}

fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

/// Temporary tables are on the connection the client is pinned to, on the home shard.
fn is_temporary_schema(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_")
}

/// The snapshot holds user tables; every catalog's name begins so, and no user's should.
fn is_catalog_name(name: &str) -> bool {
    name.starts_with("pg_")
}
