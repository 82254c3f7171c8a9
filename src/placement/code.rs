//! What code that is stored in a database may do when it runs: functions, and what tables call by themselves.
//!
//! Facts only, worked out from the catalogs once a snapshot; what they mean depends on where the
//! configuration places the tables, so that is decided where a statement is planned.

use std::collections::{BTreeMap, BTreeSet};

/// What PostgreSQL is told of a function's answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    #[default]
    Immutable,
    Stable,
    Volatile,
}

/// What running it may do, with all that it calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
pub struct Code {
    /// The loosest of it and what it calls.
    pub volatility: Volatility,
    /// Whether it works on several rows at once: an aggregate, or a window function.
    pub gathers: bool,
    /// The tables and views that it may read, by (schema, name), and whether it may write them.
    pub tables: BTreeMap<(String, String), bool>,
    /// Why it is not known which tables it touches, as in `function "f" runs SQL that it makes up`.
    pub opaque: Option<String>,
    /// Whether it may answer otherwise on another server for the same arguments and rows.
    pub unlike: bool,
    /// Whether it reads PostgreSQL's own catalogs.
    pub catalogs: bool,
    /// Whether it notifies listeners.
    pub notifies: bool,
    /// Whether it reads or moves sequences.
    pub sequences: bool,
}

impl Code {
    /// The same, with what other code does that it runs.
    pub fn add(&mut self, other: &Code) {
        self.volatility = self.volatility.max(other.volatility);
        self.gathers |= other.gathers;
        self.reach(other);
    }

    /// With what other code touches, but not its volatility.
    pub fn reach(&mut self, other: &Code) {
        for (table, written) in &other.tables {
            *self.tables.entry(table.clone()).or_default() |= written;
        }
        if self.opaque.is_none() {
            self.opaque.clone_from(&other.opaque);
        }
        self.unlike |= other.unlike;
        self.catalogs |= other.catalogs;
        self.notifies |= other.notifies;
        self.sequences |= other.sequences;
    }

    /// Whether it touches nothing besides its arguments.
    pub fn is_apart(&self) -> bool {
        self.tables.is_empty()
            && self.opaque.is_none()
            && !self.catalogs
            && !self.notifies
            && !self.sequences
    }
}

/// A cast, or a domain whose values are checked, by code that touches more than the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cast {
    /// Names of the types that it takes and makes; equal for a domain.
    pub types: [String; 2],
    /// Their numbers on the home shard.
    pub oids: [u32; 2],
    /// Whether PostgreSQL casts where nobody says so.
    pub implicit: bool,
    pub code: Code,
}

impl Cast {
    /// Whether a word may be one of its types.
    pub fn is_said(&self, word: &str) -> bool {
        self.types
            .iter()
            .any(|name| spellings(name).any(|spelling| spelling == word))
    }
}

/// The words by which SQL may name a type: its own name, and for built-in ones the standard's.
pub fn spellings(name: &str) -> impl Iterator<Item = &str> {
    let others: &[&str] = match name {
        "bool" => &["boolean"],
        "bpchar" => &["char", "character"],
        "float4" => &["real", "float"],
        "float8" => &["double", "float"],
        "int2" => &["smallint"],
        "int4" => &["int", "integer"],
        "int8" => &["bigint"],
        "numeric" => &["decimal", "dec"],
        "timestamptz" => &["timestamp"],
        "timetz" => &["time"],
        "varbit" => &["bit"],
        "varchar" => &["character", "char"],
        _ => &[],
    };
    std::iter::once(name).chain(others.iter().copied())
}

/// Functions, operators and casts of one database, by what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routines {
    /// By name, then schema: all overloads of a name in one. Built-in ones are not here.
    functions: BTreeMap<String, BTreeMap<String, Code>>,
    /// Names that PostgreSQL has functions of, too.
    shared: BTreeSet<String>,
    /// By symbol; those that touch more than their operands.
    operators: BTreeMap<String, Code>,
    casts: Vec<Cast>,
}

impl Routines {
    /// Takes the functions of a schema away.
    pub fn forget(&mut self, schema: &str) {
        self.functions.retain(|_, schemas| {
            schemas.remove(schema);
            !schemas.is_empty()
        });
    }

    /// Adds a function to those of its name.
    pub fn insert(&mut self, schema: &str, name: &str, code: &Code) {
        let named = self.functions.entry(name.to_owned()).or_default();
        named.entry(schema.to_owned()).or_default().add(code);
    }

    /// Notes that PostgreSQL has functions of a name, too.
    pub fn share(&mut self, name: &str) {
        self.shared.insert(name.to_owned());
    }

    /// Whether PostgreSQL has functions of a name, too.
    pub fn is_shared(&self, name: &str) -> bool {
        self.shared.contains(name)
    }

    /// Whether all functions are PostgreSQL's own.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Adds an operator to those of its symbol, unless it is apart.
    pub fn insert_operator(&mut self, symbol: &str, code: &Code) {
        if !code.is_apart() {
            let entry = self.operators.entry(symbol.to_owned());
            entry.or_default().add(code);
        }
    }

    /// Adds a cast, unless it is apart.
    pub fn insert_cast(&mut self, cast: Cast) {
        if !cast.code.is_apart() {
            self.casts.push(cast);
        }
    }

    /// What a call of this name may run: in the schema it is qualified with, else in any of the search
    /// path. `None` for built-in functions, and those that are not known.
    pub fn function(
        &self,
        search_path: &[String],
        schema: Option<&str>,
        name: &str,
    ) -> Option<Code> {
        let named = self.functions.get(name)?;
        let schemas: Vec<&str> = match schema {
            Some(schema) => vec![schema],
            None => search_path
                .iter()
                .map(String::as_str)
                .chain(["pg_catalog"])
                .collect(),
        };
        let mut found = schemas.into_iter().filter_map(|schema| named.get(schema));
        let mut code = found.next()?.clone();
        found.for_each(|other| code.add(other));
        Some(code)
    }

    /// What any function of this name may run, whatever its schema.
    pub fn any_function(&self, schema: Option<&str>, name: &str) -> Option<Code> {
        let named = self.functions.get(name)?;
        if let Some(code) = schema.and_then(|schema| named.get(schema)) {
            return Some(code.clone());
        }
        let mut found = named.values();
        let mut code = found.next()?.clone();
        found.for_each(|other| code.add(other));
        Some(code)
    }

    /// Whether there is any function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// An operator of this symbol that touches more than its operands.
    pub fn operator(&self, symbol: &str) -> Option<&Code> {
        self.operators.get(symbol)
    }

    /// Casts and domains that touch more than the value.
    pub fn casts(&self) -> &[Cast] {
        &self.casts
    }

    /// Whether no operator and no cast touches more than its operands.
    pub fn is_plain(&self) -> bool {
        self.operators.is_empty() && self.casts.is_empty()
    }
}
