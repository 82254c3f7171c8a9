//! A snapshot of the tables of a database, as its home shard's catalogs have them.
//!
//! Routing needs the order of columns (INSERT and COPY without a list) and which schema an
//! unqualified name means. The snapshot may be stale after DDL that went around the proxy;
//! `epoch` tells one snapshot from the next, so that plans made from an older one can be dropped.

use std::collections::{BTreeMap, BTreeSet};

use std::sync::Arc;

use super::code::{Code, Routines};
use crate::sql::statement::Block;

/// The schema of what pgherd makes for itself.
const OWN: &str = "pgherd";

/// One column, as INSERT and COPY without a column list see it: generated and dropped ones are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Of `pg_type`; only those of built-in types mean the same on every shard.
    pub oid: u32,
    /// Whether it is GENERATED ALWAYS AS (…): INSERT counts it among the columns, COPY does not.
    pub generated: bool,
    /// `atttypmod`: the length of a `varchar`, the digits of a `numeric` or a timestamp; -1 for none.
    pub modifier: i32,
    /// Whether the primary key is on it.
    pub primary: bool,
    pub collation: Collation,
    /// Whether values that are equal may be of different texts: `character`, `citext`, nondeterministic collations.
    pub loose: bool,
}

/// Whether texts compare by their bytes, as under the collations C and POSIX.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collation {
    /// They do not, or it is not known; the types without collation too.
    #[default]
    Other,
    /// They do.
    Bytes,
    /// They do on the home shard, whose database has such a collation.
    Database,
}

/// One table, partitioned table, view or foreign table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it reads, if it is a view: it has rows of other tables.
    pub view: Option<Arc<View>>,
    /// Whether reading it calls nothing but the server's own: no view, no foreign table, no policy.
    pub plain: bool,
    /// Whether policies decide which of its rows a role sees.
    pub row_security: bool,
    /// In the order of the table, dropped ones left out.
    pub columns: Vec<Column>,
    /// The tables it is a partition or an inheritance child of, as (schema, name).
    pub parents: Vec<(String, String)>,
    /// What PostgreSQL runs when it is read, and when it is written: policies, triggers, rules, checks,
    /// defaults, expressions of indexes. `None`: nothing but the server's own.
    pub reads: Option<Box<Code>>,
    pub writes: Option<Box<Code>>,
    /// Whether triggers or rules act when it is written, those of foreign keys left out; whatever they do.
    pub acts: bool,
    /// The tables whose rows a foreign key changes when rows of this one are changed or go, as (schema, name).
    pub cascades: Vec<(String, String)>,
}

/// A view, or a materialized one.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its query as `pg_get_viewdef` writes it where the search path is empty: every name that is not
    /// PostgreSQL's own has its schema.
    pub definition: String,
    /// Whether it is materialized, so that its rows are where it is.
    pub is_materialized: bool,
    /// The tables and views in the query, as (schema, name).
    pub reads: Vec<(String, String)>,
    /// The query; `None` where it is not understood, or materialized.
    pub block: Option<Block>,
    /// What the query runs besides reading the tables it names.
    pub code: Code,
}

/// What is worked out of the definition is left out.
impl PartialEq for View {
    fn eq(&self, other: &View) -> bool {
        self.definition == other.definition
            && self.is_materialized == other.is_materialized
            && self.reads == other.reads
            && self.code == other.code
    }
}

impl Eq for View {}

impl Table {
    /// The columns of INSERT without a column list.
    pub fn insert_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter()
    }

    /// The columns of COPY without a column list.
    pub fn copy_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated)
    }
}

/// The tables of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Grows with each snapshot.
    pub epoch: u64,
    /// Schema → table → columns.
    schemas: BTreeMap<String, BTreeMap<String, Table>>,
    /// Table → the schemas that have one of this name.
    names: BTreeMap<String, Vec<String>>,
    /// Functions, operators and casts that are not the server's own.
    pub routines: Routines,
    /// Names of functions that are neither built in nor an extension's.
    functions: BTreeSet<String>,
    /// The users' enums by their oids, as (schema, name).
    enums: BTreeMap<u32, (String, String)>,
    /// Whether a function of the users' casts to an enum, or an operator of theirs takes one: what is compared
    /// with an enum, or stored as one, need not be its label then.
    pub odd_enums: bool,
}

impl Catalog {
    /// An empty snapshot: no table is known.
    pub fn new(epoch: u64) -> Catalog {
        Catalog {
            epoch,
            schemas: BTreeMap::new(),
            names: BTreeMap::new(),
            routines: Routines::default(),
            functions: BTreeSet::new(),
            enums: BTreeMap::new(),
            odd_enums: false,
        }
    }

    /// Whether another snapshot says the same, but of what is pgherd's own.
    pub fn says(&self, other: &Catalog) -> bool {
        let users = |catalog: &Catalog| {
            let mut users = (catalog.schemas.clone(), catalog.routines.clone());
            users.0.remove(OWN);
            users.1.forget(OWN);
            users
        };
        users(self) == users(other)
            && self.enums == other.enums
            && self.odd_enums == other.odd_enums
    }

    /// Adds a table, in place of one of the same name.
    pub fn insert(&mut self, schema: &str, name: &str, table: Table) {
        let schemas = self.names.entry(name.to_owned()).or_default();
        if !schemas.iter().any(|known| known == schema) {
            schemas.push(schema.to_owned());
        }
        self.schemas
            .entry(schema.to_owned())
            .or_default()
            .insert(name.to_owned(), table);
    }

    /// Notes what PostgreSQL runs when a table is written (else read), by itself or by those above it:
    /// their statements reach its rows.
    pub fn runs(&mut self, name: (&str, &str), written: bool, code: &Code) {
        self.each_above(name, |table| {
            let runs = if written {
                &mut table.writes
            } else {
                &mut table.reads
            };
            runs.get_or_insert_default().add(code);
        });
    }

    /// Notes that a trigger or a rule acts when a table is written, by itself or by those above it.
    pub fn act(&mut self, name: (&str, &str)) {
        self.each_above(name, |table| table.acts = true);
    }

    /// Changes a table and those above it.
    fn each_above(&mut self, (schema, name): (&str, &str), mut change: impl FnMut(&mut Table)) {
        let Some(table) = self.table(schema, name) else {
            return;
        };
        let mut names: Vec<(String, String)> = self
            .ancestors(table)
            .into_iter()
            .map(|(schema, name)| (schema.to_owned(), name.to_owned()))
            .collect();
        names.push((schema.to_owned(), name.to_owned()));
        for (schema, name) in names {
            let tables = self.schemas.get_mut(&schema);
            if let Some(table) = tables.and_then(|tables| tables.get_mut(&name)) {
                change(table);
            }
        }
    }

    /// Makes a table that is there a view.
    pub fn insert_view(&mut self, schema: &str, name: &str, view: View) {
        let tables = self.schemas.get_mut(schema);
        if let Some(table) = tables.and_then(|tables| tables.get_mut(name)) {
            table.view = Some(Arc::new(view));
        }
    }

    /// Whether there is a schema of this name.
    pub fn has_schema(&self, schema: &str) -> bool {
        self.schemas.contains_key(schema)
    }

    /// The schemas that have a table of this name.
    pub fn schemas_of(&self, table: &str) -> impl Iterator<Item = &str> {
        self.names
            .get(table)
            .into_iter()
            .flatten()
            .map(String::as_str)
    }

    /// Notes an enum of the users'.
    pub fn insert_enum(&mut self, oid: u32, schema: &str, name: &str) {
        let name = (schema.to_owned(), name.to_owned());
        self.enums.insert(oid, name);
    }

    /// The schema and name of an enum.
    pub fn enum_name(&self, oid: u32) -> Option<(&str, &str)> {
        let (schema, name) = self.enums.get(&oid)?;
        Some((schema, name))
    }

    /// Notes a function of the users'.
    pub fn insert_function(&mut self, name: &str) {
        self.functions.insert(name.to_owned());
    }

    /// Whether the users have a function of this name, in any schema.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains(name)
    }

    /// Notes that a table is a partition or an inheritance child of another.
    pub fn inherit(&mut self, (schema, name): (&str, &str), parent: (&str, &str)) {
        let tables = self.schemas.get_mut(schema);
        if let Some(table) = tables.and_then(|tables| tables.get_mut(name)) {
            table
                .parents
                .push((parent.0.to_owned(), parent.1.to_owned()));
        }
    }

    /// Notes that a foreign key changes rows of one table when rows of another are changed or go.
    pub fn cascade(&mut self, (schema, name): (&str, &str), to: (&str, &str)) {
        let tables = self.schemas.get_mut(schema);
        if let Some(table) = tables.and_then(|tables| tables.get_mut(name)) {
            table.cascades.push((to.0.to_owned(), to.1.to_owned()));
        }
    }

    /// The tables whose rows a table's are among, as (schema, name), the nearest first.
    pub fn ancestors<'a>(&'a self, table: &'a Table) -> Vec<(&'a str, &'a str)> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        let mut level = vec![table];
        while !level.is_empty() {
            let parents = level.iter().flat_map(|table| &table.parents);
            let mut next = Vec::new();
            for (schema, name) in parents {
                let parent = (schema.as_str(), name.as_str());
                if !found.contains(&parent) {
                    found.push(parent);
                    next.extend(self.table(schema, name));
                }
            }
            level = next;
        }
        found
    }

    /// The partitions and inheritance children of a table, and theirs.
    pub fn heirs(&self, (schema, name): (&str, &str)) -> Vec<&Table> {
        let all = self.schemas.values().flat_map(|tables| tables.values());
        all.filter(|table| {
            !table.parents.is_empty() && self.ancestors(table).contains(&(schema, name))
        })
        .collect()
    }

    /// The table of exactly this schema.
    pub fn table(&self, schema: &str, name: &str) -> Option<&Table> {
        self.schemas.get(schema)?.get(name)
    }

    /// The table that a name means: in the schema it is qualified with, else in the first schema of
    /// the search path that has it, `pg_catalog` before all unless the path names it
    /// (`RangeVarGetRelid`). `search_path` holds schema names with `$user` resolved.
    pub fn resolve<'a>(
        &'a self,
        search_path: &[String],
        schema: Option<&str>,
        name: &str,
    ) -> Option<(&'a str, &'a Table)> {
        if let Some(schema) = schema {
            return self.find(schema, name);
        }
        let implicit =
            (!search_path.iter().any(|schema| schema == "pg_catalog")).then_some("pg_catalog");
        implicit
            .into_iter()
            .chain(search_path.iter().map(String::as_str))
            .find_map(|schema| self.find(schema, name))
    }

    /// Every table, as (schema, name, table), in the order of their names.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &str, &Table)> {
        self.schemas.iter().flat_map(|(schema, tables)| {
            tables
                .iter()
                .map(|(name, table)| (schema.as_str(), name.as_str(), table))
        })
    }

    fn find(&self, schema: &str, name: &str) -> Option<(&str, &Table)> {
        let (schema, tables) = self.schemas.get_key_value(schema)?;
        Some((schema.as_str(), tables.get(name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalog, Table};

    #[test]
    fn names_are_found_along_the_search_path() {
        let mut catalog = Catalog::new(1);
        for (schema, name) in [
            ("public", "t"),
            ("app", "t"),
            ("app", "u"),
            ("pg_catalog", "pg_class"),
            ("public", "pg_class"),
        ] {
            let table = Table {
                plain: true,
                ..Table::default()
            };
            catalog.insert(schema, name, table);
        }
        let check = |path: &[&str], schema, name, expect: Option<&str>| {
            let path: Vec<String> = path.iter().copied().map(String::from).collect();
            let found = catalog
                .resolve(&path, schema, name)
                .map(|(schema, _)| schema);
            assert_eq!(found, expect, "{path:?} {schema:?} {name}");
        };
        check(&["public", "app"], None, "t", Some("public"));
        check(&["app", "public"], None, "t", Some("app"));
        check(&["nobody", "public"], None, "u", None);
        check(&[], Some("app"), "u", Some("app"));
        check(&["public"], None, "pg_class", Some("pg_catalog"));
        check(&["public", "pg_catalog"], None, "pg_class", Some("public"));
        check(&[], None, "t", None);
    }

    #[test]
    fn ancestors_are_found_up_to_the_root() {
        let mut catalog = Catalog::new(1);
        for name in ["root", "other", "middle", "leaf"] {
            catalog.insert("s", name, Table::default());
        }
        catalog.inherit(("s", "leaf"), ("s", "middle"));
        catalog.inherit(("s", "leaf"), ("s", "other"));
        catalog.inherit(("s", "middle"), ("s", "root"));
        catalog.inherit(("s", "gone"), ("s", "root"));
        let of = |name| {
            let table = catalog.table("s", name).unwrap();
            let found = catalog.ancestors(table).into_iter();
            found.map(|(_, name)| name).collect::<Vec<_>>()
        };
        assert_eq!(of("leaf"), ["middle", "other", "root"]);
        assert_eq!(of("middle"), ["root"]);
        assert!(of("root").is_empty());
    }
}
