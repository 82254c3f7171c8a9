//! An immutable snapshot of one database: its shards, distributions and tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::distribution::Distribution;
use super::{ShardId, ShardSet};
use crate::config::{self, Constraints, Database, Ids, Mode, Policy, TableKind, Tenancy, Unlisted};
use crate::error::{Fault, SqlState};

/// What the configuration says of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRule {
    /// `None`: any schema.
    pub schema: Option<String>,
    pub name: String,
    pub kind: Kind,
    /// Whether its rows may be answered from the cache.
    pub cache: Option<Arc<Policy>>,
}

impl TableRule {
    /// Whether answers with its rows may be kept.
    pub fn is_cached(&self) -> bool {
        self.cache
            .as_ref()
            .is_some_and(|policy| policy.mode != Mode::Strong)
    }
}

/// How a table's rows are spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the columns of `key`, in the order of the distribution's key.
    Sharded {
        distribution: usize,
        key: Vec<String>,
        ids: Ids,
    },
    /// A full copy on every shard.
    Reference,
    /// All rows on the home shard.
    Single,
}

/// Shards, distributions and tables of one database. Never changes: reload makes a new one.
#[derive(Debug)]
pub struct Topology {
    database: String,
    shards: Vec<String>,
    dbnames: Vec<String>,
    home: ShardId,
    distributions: Vec<Distribution>,
    tables: BTreeMap<String, Vec<TableRule>>,
    caches: bool,
    unlisted: Unlisted,
    constraints: Constraints,
    tenant: Option<Tenancy>,
}

impl Topology {
    /// Makes the snapshot of a checked configuration.
    ///
    /// # Errors
    /// A fault of the configuration (F0000), as for a placement that is not served yet.
    pub fn new(config: &Database) -> Result<Topology, Fault> {
        let shards: Vec<String> = config
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect();
        let fault = |message: String, hint| Err(fault(&config.name, &message, hint));
        if u16::try_from(shards.len()).is_err() {
            return fault(
                "too many shards".into(),
                "A database has at most 65535 shards.",
            );
        }
        let Some(home) = position(&shards, &config.home) else {
            return fault(
                format!("there is no shard \"{}\" to be home", config.home),
                "Name a shard of this database.",
            );
        };
        let mut topology = Topology {
            database: config.name.clone(),
            home,
            distributions: Vec::with_capacity(config.distributions.len()),
            tables: BTreeMap::new(),
            caches: false,
            unlisted: config.unlisted,
            constraints: config.constraints,
            tenant: config.tenant.clone(),
            dbnames: config
                .shards
                .iter()
                .map(|shard| shard.primary.dbname.clone())
                .collect(),
            shards,
        };
        for distribution in config.distributions.values() {
            let made = Distribution::new(distribution, &topology.shards)?;
            topology.distributions.push(made);
        }
        for table in &config.tables {
            let rule = TableRule {
                schema: table.schema.clone(),
                name: table.name.clone(),
                kind: topology.kind(table)?,
                cache: table.cache.clone(),
            };
            topology.caches |= rule.is_cached();
            let rules = topology.tables.entry(table.name.clone());
            rules.or_default().push(rule);
        }
        Ok(topology)
    }

    /// How a table's rows are spread, its distribution looked up.
    fn kind(&self, table: &config::Table) -> Result<Kind, Fault> {
        let (name, key) = match &table.kind {
            TableKind::Reference => return Ok(Kind::Reference),
            TableKind::Single => return Ok(Kind::Single),
            TableKind::Sharded { distribution, key } => (distribution, key),
        };
        let fault = |message: String, hint| Err(fault(&self.database, &message, hint));
        let Some(index) = self.distribution_named(name) else {
            return fault(
                format!("table \"{}\" names no distribution", table.name),
                "Name a distribution of this database.",
            );
        };
        let columns = self.distribution(index).map(|found| found.key().len());
        if columns != Some(key.len()) {
            return fault(
                format!(
                    "the key of table \"{}\" is not its distribution's",
                    table.name
                ),
                "Name one column for each column of the distribution's key.",
            );
        }
        let carried = table.ids.carries || table.ids.by;
        if carried
            && !self
                .distribution(index)
                .is_some_and(Distribution::is_of_bucket)
        {
            return fault(
                format!(
                    "ids of table \"{}\" cannot carry their bucket: distribution \"{name}\" does not place by bucket",
                    table.name
                ),
                "Use a distribution by jump.",
            );
        }
        Ok(Kind::Sharded {
            distribution: index,
            key: key.clone(),
            ids: table.ids.clone(),
        })
    }

    /// The name of the database, as clients know it.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The shards' names; a [`ShardId`] is the index.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// The name that the database has on each shard, in their order.
    pub fn dbnames(&self) -> &[String] {
        &self.dbnames
    }

    pub fn shard(&self, name: &str) -> Option<ShardId> {
        position(&self.shards, name)
    }

    /// The shard's name; empty for an id of another topology.
    pub fn name(&self, shard: ShardId) -> &str {
        self.shards
            .get(usize::from(shard.0))
            .map_or("", String::as_str)
    }

    /// The shard of single tables, catalogs and the topology's version.
    pub fn home(&self) -> ShardId {
        self.home
    }

    /// Every shard.
    pub fn all(&self) -> ShardSet {
        ShardSet::all(u16::try_from(self.shards.len()).unwrap_or(u16::MAX))
    }

    /// In the order of their names.
    pub fn distributions(&self) -> &[Distribution] {
        &self.distributions
    }

    pub fn distribution(&self, index: usize) -> Option<&Distribution> {
        self.distributions.get(index)
    }

    /// The index of the distribution of that name.
    pub fn distribution_named(&self, name: &str) -> Option<usize> {
        self.distributions
            .iter()
            .position(|distribution| distribution.name() == name)
    }

    /// The rule of a table, by its names as PostgreSQL folds them: one for exactly this schema
    /// first, then one without a schema. Without a schema given, the table's schema is not known,
    /// so any rule for its name serves: one without a schema first, else the only one there is.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Option<&TableRule> {
        let rules = self.tables.get(name)?;
        let exact = rules
            .iter()
            .find(|rule| rule.schema.as_deref() == schema)
            .or_else(|| rules.iter().find(|rule| rule.schema.is_none()));
        match (exact, rules.as_slice()) {
            (Some(rule), _) => Some(rule),
            (None, [rule]) if schema.is_none() => Some(rule),
            (None, _) => None,
        }
    }

    /// Every table's rule, by name.
    pub fn tables(&self) -> impl Iterator<Item = &TableRule> {
        self.tables.values().flatten()
    }

    /// Whether answers of any table may be kept.
    pub fn caches(&self) -> bool {
        self.caches
    }

    /// Whether what would hold on each shard only is refused.
    pub fn constraints(&self) -> Constraints {
        self.constraints
    }

    /// Whether any table's rows are elsewhere than on the home shard alone.
    pub fn has_spread(&self) -> bool {
        self.shards.len() > 1
            && (self.unlisted != Unlisted::Single
                || self.tables().any(|rule| rule.kind != Kind::Single))
    }

    /// What a table that is not listed is.
    pub fn unlisted(&self) -> Unlisted {
        self.unlisted
    }

    /// How tenants are confined, if the configuration says so.
    pub fn tenant(&self) -> Option<&Tenancy> {
        self.tenant.as_ref()
    }
}

fn position(shards: &[String], name: &str) -> Option<ShardId> {
    let at = shards.iter().position(|shard| shard == name)?;
    u16::try_from(at).ok().map(ShardId)
}

fn fault(database: &str, message: &str, hint: &str) -> Fault {
    Fault::error(
        SqlState::CONFIG,
        format!("database \"{database}\": {message}"),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Kind, Topology};
    use crate::config::{
        Constraints, Database, Distribution, Host, Ids, Place, Shard, Table, TableKind, Unlisted,
    };
    use crate::error::Fault;
    use crate::placement::ShardId;
    use crate::types::key::KeyType;

    fn build(tables: &[(Option<&str>, &str, TableKind)]) -> Result<Topology, Fault> {
        let shard = |name: &str| Shard {
            name: name.into(),
            primary: Host {
                host: "h".into(),
                port: 1,
                dbname: "d".into(),
                tls: None,
            },
            replicas: Vec::new(),
        };
        let table = |(schema, name, kind): &(Option<&str>, &str, TableKind)| Table {
            schema: schema.map(String::from),
            name: String::from(*name),
            kind: kind.clone(),
            ids: Ids::default(),
            cache: None,
        };
        let distribution = Distribution {
            name: "d".into(),
            key: vec![KeyType::Int8],
            place: Place::Shard("b".into()),
            pins: Vec::new(),
        };
        Topology::new(&Database {
            name: "shop".into(),
            shards: vec![shard("a"), shard("b")],
            home: "b".into(),
            server_user: None,
            server_password: None,
            control_user: None,
            control_password: None,
            pool_mode: None,
            default_pool_size: None,
            distributions: BTreeMap::from([("d".into(), distribution)]),
            tables: tables.iter().map(table).collect(),
            unlisted: Unlisted::Single,
            constraints: Constraints::Enforce,
            tenant: None,
        })
    }

    fn sharded(distribution: &str, key: &[&str]) -> TableKind {
        TableKind::Sharded {
            distribution: distribution.into(),
            key: key.iter().copied().map(String::from).collect(),
        }
    }

    #[test]
    fn the_exact_schema_comes_first() {
        let topology = build(&[
            (None, "t", TableKind::Reference),
            (Some("app"), "t", TableKind::Single),
            (Some("app"), "u", sharded("d", &["id"])),
        ])
        .unwrap();
        let kind = |schema, name| topology.table(schema, name).map(|rule| rule.kind.clone());
        assert_eq!(kind(Some("app"), "t"), Some(Kind::Single));
        assert_eq!(kind(Some("public"), "t"), Some(Kind::Reference));
        assert_eq!(kind(None, "t"), Some(Kind::Reference));
        let key = vec!["id".into()];
        let expect = Some(Kind::Sharded {
            distribution: 0,
            key,
            ids: Ids::default(),
        });
        assert_eq!(kind(Some("app"), "u"), expect);
        assert_eq!(kind(None, "u"), expect);
        assert_eq!(kind(Some("public"), "u"), None);
        assert_eq!(kind(None, "v"), None);
        assert_eq!(topology.home(), ShardId(1));
        assert_eq!(topology.name(ShardId(1)), "b");
        assert_eq!(topology.shard("c"), None);
        assert_eq!(topology.all().len(), 2);
    }

    #[test]
    fn tables_that_cannot_be_placed_are_refused() {
        assert!(build(&[(None, "t", sharded("e", &["id"]))]).is_err());
        assert!(build(&[(None, "t", sharded("d", &["id", "other"]))]).is_err());
    }
}
