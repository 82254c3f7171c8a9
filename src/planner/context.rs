//! What planning looks things up in, and what a table's name means there.

use crate::config::Unlisted;
use crate::placement::catalog::{Catalog, Table};
use crate::placement::topology::{Kind, Topology};
use crate::sql::cursor::Name;
use crate::sql::scan::Lexing;

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
}

/// Where a relation's rows are.
#[derive(Clone, Copy, Debug)]
pub enum Relation<'a> {
    Sharded {
        distribution: usize,
        key: &'a [String],
        /// What the catalog knows of it.
        table: Option<&'a Table>,
    },
    Reference(Option<&'a Table>),
    Single,
    /// `pg_catalog` and `information_schema`.
    System,
    /// A view the config does not list.
    View,
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
        self.catalog
            .resolve(self.search_path, name.schema.as_deref(), &name.name)
            .map(|(_, table)| table)
    }

    /// What a name means, by the search path and the config.
    pub fn relation(&self, name: &Name) -> Relation<'a> {
        if name.schema.as_deref().is_some_and(is_temporary_schema) {
            return Relation::Single;
        }
        let found = self
            .catalog
            .resolve(self.search_path, name.schema.as_deref(), &name.name);
        let schema = found.map(|(schema, _)| schema).or(name.schema.as_deref());
        if schema.is_some_and(is_system_schema) {
            return Relation::System;
        }
        let rule = match schema {
            Some(_) => self.topology.table(schema, &name.name),
            None => self
                .search_path
                .iter()
                .find_map(|schema| {
                    let rule = self.topology.table(Some(schema), &name.name)?;
                    rule.schema.is_some().then_some(rule)
                })
                .or_else(|| self.topology.table(None, &name.name)),
        };
        let table = found.map(|(_, table)| table);
        if rule.is_none() && found.is_none() && name.schema.is_none() && is_catalog_name(&name.name)
        {
            return Relation::System;
        }
        match rule.map(|rule| &rule.kind) {
            Some(Kind::Sharded { distribution, key }) => Relation::Sharded {
                distribution: *distribution,
                key,
                table,
            },
            Some(Kind::Reference) => Relation::Reference(table),
            Some(Kind::Single) => Relation::Single,
            None if table.is_some_and(|table| table.view) => Relation::View,
            None => match self.topology.unlisted() {
                Unlisted::Single => Relation::Single,
                Unlisted::Reference => Relation::Reference(table),
                Unlisted::Refuse => Relation::Refused,
            },
        }
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
