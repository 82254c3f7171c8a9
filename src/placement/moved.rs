//! What of a new configuration would look for rows where the old one did not put them.

use std::collections::BTreeSet;

use super::topology::{Kind, TableRule, Topology};
use crate::config::{Config, Database, Distribution, Lookup, Unlisted};

/// One database under one configuration.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    config: &'a Database,
    topology: &'a Topology,
}

/// How a table's rows are spread, comparable between configurations.
#[derive(PartialEq)]
enum Spread<'a> {
    /// The column whose ids carry their bucket, and whether the key holds such ids, or
    /// values of another table's column, come last.
    Sharded(
        &'a Distribution,
        &'a [String],
        (Option<&'a str>, bool, Option<&'a Lookup>),
    ),
    Reference,
    Single,
    Refused,
}

impl<'a> View<'a> {
    fn spread(self, rule: Option<&'a TableRule>) -> Spread<'a> {
        match rule.map(|rule| &rule.kind) {
            Some(Kind::Sharded {
                distribution,
                key,
                ids,
            }) => {
                let name = self.topology.distribution(*distribution);
                let found = name.and_then(|one| self.config.distributions.get(one.name()));
                let carrying = ids.column.as_deref().filter(|_| ids.carries);
                found.map_or(Spread::Refused, |found| {
                    Spread::Sharded(found, key, (carrying, ids.by, ids.looked.as_deref()))
                })
            }
            Some(Kind::Reference) => Spread::Reference,
            Some(Kind::Single) => Spread::Single,
            None => match self.topology.unlisted() {
                Unlisted::Single => Spread::Single,
                Unlisted::Reference => Spread::Reference,
                Unlisted::Refuse => Spread::Refused,
            },
        }
    }
}

/// What changes between two configurations so that rows that are there would not be found, in the words
/// of a message; empty where nothing does. `topology` finds a database's, of the old one or the new.
pub fn moved<'a>(
    (old, new): (&'a Config, &'a Config),
    old_topology: impl Fn(&str) -> Option<&'a Topology>,
    new_topology: impl Fn(&str) -> Option<&'a Topology>,
) -> Vec<String> {
    let mut changes = BTreeSet::new();
    for (name, before) in &old.databases {
        let Some(after) = new.databases.get(name) else {
            continue;
        };
        if let (Some(before_topology), Some(after_topology)) =
            (old_topology(name), new_topology(name))
        {
            let before = View {
                config: before,
                topology: before_topology,
            };
            let after = View {
                config: after,
                topology: after_topology,
            };
            let here = format!("databases.{name}");
            changes.extend(
                in_database(before, after)
                    .into_iter()
                    .map(|change| format!("{here}.{change}")),
            );
        }
    }
    changes.into_iter().collect()
}

fn in_database(old: View<'_>, new: View<'_>) -> BTreeSet<String> {
    let mut changes = BTreeSet::new();
    if old.config.home != new.config.home {
        changes.insert("home".to_owned());
    }
    let unlisted = (old.spread(None), new.spread(None));
    if unlisted.0 != unlisted.1
        && !matches!(unlisted.0, Spread::Refused)
        && !matches!(unlisted.1, Spread::Refused)
    {
        changes.insert("unlisted".to_owned());
    }
    for rule in old.topology.tables().chain(new.topology.tables()) {
        let schema = rule.schema.as_deref();
        let Some(before) = old.topology.table(schema, &rule.name) else {
            continue;
        };
        let after = new.topology.table(schema, &rule.name);
        match (old.spread(Some(before)), new.spread(after)) {
            (before, after) if before == after => (),
            (Spread::Sharded(one, key, ids), Spread::Sharded(other, same, also))
                if one.name == other.name && key == same && ids == also =>
            {
                changes.insert(format!("distributions.{}", one.name));
            }
            // A table that is no longer used may be taken out where that is refused.
            (_, Spread::Refused) if after.is_none() => (),
            _ => {
                let name = match schema {
                    Some(schema) => format!("{schema}.{}", rule.name),
                    None => rule.name.clone(),
                };
                changes.insert(format!("tables.{name}"));
            }
        }
    }
    changes
}
