//! Whether the key's columns can be placed, and whether constraints and defaults of sharded tables
//! hold across shards. The home shard speaks for all, since schemas must be equal.

use crate::config::{Constraints, Ids, Unlisted};
use crate::control::finding::{Finding, Level};
use crate::control::schema::{Column, Constraint, Index, Reference, Schema, Source, Table};
use crate::placement::catalog::Catalog;
use crate::placement::distribution::Distribution;
use crate::placement::topology::{Kind, TableRule, Topology};
use crate::planner;
use crate::types::key::KeyType;
use crate::types::oid;

/// Checks every table of the configuration.
pub(super) fn check(
    topology: &Topology,
    constraints: Constraints,
    schema: &Schema,
    findings: &mut Vec<Finding>,
) {
    for rule in topology.tables() {
        let mut tables = schema
            .tables
            .iter()
            .filter(|((schema, name), _)| topology.table(Some(schema), name) == Some(rule));
        let first = tables.next();
        if first.is_none() {
            findings.push(
                Finding::warning(format!("table \"{}\" is not on the home shard", rule.name))
                    .hint("Create it through pgherd, or take it out of tables."),
            );
        }
        for ((schema, name), table) in first.into_iter().chain(tables) {
            let check = Check {
                topology,
                rule,
                name: format!("{schema}.{name}"),
                local: local(constraints),
            };
            check.table(table, findings);
        }
    }
}

/// Checks the triggers, rules, policies and expressions of every table: what they touch must be where the
/// table's rows are.
pub(super) fn code(
    topology: &Topology,
    constraints: Constraints,
    catalog: &Catalog,
    findings: &mut Vec<Finding>,
) {
    for (schema, table, why) in planner::misfits(topology, catalog) {
        let what = format!(
            "table \"{schema}.{table}\" runs code that reaches beyond its rows' shard: {why}"
        );
        findings.push(Finding::new(local(constraints), what).hint(
            "Drop the trigger, rule, policy or expression, or let it touch only what is beside the table's rows.",
        ));
    }
}

/// The level of what holds on each shard only.
fn local(constraints: Constraints) -> Level {
    match constraints {
        Constraints::Enforce => Level::Error,
        Constraints::Allow => Level::Warning,
    }
}

struct Check<'a> {
    topology: &'a Topology,
    rule: &'a TableRule,
    /// With its schema.
    name: String,
    /// The level of a constraint that holds on each shard only.
    local: Level,
}

impl Check<'_> {
    fn table(&self, table: &Table, findings: &mut Vec<Finding>) {
        if let Kind::Sharded {
            distribution,
            key,
            ids,
        } = &self.rule.kind
        {
            let types = self.topology.distribution(*distribution);
            let types = types.map(Distribution::key).unwrap_or_default();
            for (name, kind) in key.iter().zip(types) {
                let kind = if ids.by { KeyType::Int8 } else { *kind };
                if ids.looked.is_some() {
                    findings.extend(self.lookup_column(table, name));
                } else {
                    findings.extend(self.key_column(table, name, kind));
                }
            }
            findings.extend(self.tenant(key));
            findings.extend(self.id_column(table, ids));
            for unique in &ids.uniques {
                findings.extend(self.lookup_column(table, &unique.column));
                findings.extend(self.unique_column(table, &unique.column));
            }
            for lookup in &ids.lookups {
                findings.extend(self.lookup_column(table, &lookup.column));
            }
            if let (Some(trigger), false) = (table.triggers.first(), ids.lookups.is_empty()) {
                let what = format!(
                    "trigger \"{trigger}\" of table \"{}\" runs before rows are written, and may give a column with a lookup table another value",
                    self.name
                );
                findings.push(Finding::warning(what).hint(
                    "Make sure that it leaves the columns of lookup as they are, or rows are not found by them.",
                ));
            }
            if let (Some(trigger), false) = (table.triggers.first(), ids.uniques.is_empty()) {
                let what = format!(
                    "trigger \"{trigger}\" of table \"{}\" runs before rows are written, and may give a unique column another value",
                    self.name
                );
                findings.push(Finding::warning(what).hint(
                    "Make sure that it leaves the columns of unique as they are, or two shards may have the same.",
                ));
            }
            self.unique(table, key, ids, findings);
            self.defaults(table, ids, findings);
        }
        for constraint in table.constraints.values() {
            if let Some(reference) = &constraint.references {
                findings.extend(self.foreign_key(constraint, reference));
            }
        }
    }

    fn key_column(&self, table: &Table, name: &str, kind: KeyType) -> Option<Finding> {
        let Some(column) = table.columns.iter().find(|column| column.name == name) else {
            let what = format!("table \"{}\" has no column \"{name}\", its key", self.name);
            return Some(Finding::error(what).hint("Name a column of the table as its key."));
        };
        match fits(column, kind) {
            Fit::Yes => None,
            Fit::No(why) => {
                let what = format!("key \"{name}\" of table \"{}\": {why}", self.name);
                let hint = "Change the column's type, or the key of the distribution.";
                Some(Finding::error(what).hint(hint))
            }
            Fit::Beware(why) => {
                let what = format!("key \"{name}\" of table \"{}\": {why}", self.name);
                Some(Finding::warning(what))
            }
        }
    }

    /// Whether values of a column can be looked up.
    fn lookup_column(&self, table: &Table, name: &str) -> Option<Finding> {
        let finding = |why: &str, hint: &str| {
            let what = format!("lookup column \"{name}\" of table \"{}\": {why}", self.name);
            Some(Finding::error(what).hint(hint))
        };
        let Some(column) = table.columns.iter().find(|column| column.name == name) else {
            return finding("there is no such column", "Name a column of the table.");
        };
        let hint =
            "Look rows up by columns of type smallint, integer, bigint, text, varchar or uuid.";
        let Some(kind) = planner::lookup_type(column.oid) else {
            return finding(&format!("its type is {}", column.type_name), hint);
        };
        match fits(column, kind) {
            Fit::Yes | Fit::Beware(_) => None,
            Fit::No(why) => finding(&why, hint),
        }
    }

    /// Whether the shard keeps a column unique among its own rows.
    fn unique_column(&self, table: &Table, name: &str) -> Option<Finding> {
        let mut indexes = table.indexes.values();
        let is_own = |index: &&Index| index.exclusive && index.columns.len() == 1;
        let found =
            indexes.any(|index| is_own(&index) && index.columns.iter().any(|own| own == name));
        (!found).then(|| {
            let what = format!(
                "column \"{name}\" of table \"{}\" is to be unique, and no constraint on the shard says so",
                self.name
            );
            Finding::error(what).hint("Add UNIQUE on the column to the table on every shard.")
        })
    }

    fn tenant(&self, key: &[String]) -> Option<Finding> {
        let column = &self.topology.tenant()?.column;
        if key.contains(column) {
            return None;
        }
        let what = format!(
            "the key of table \"{}\" does not contain \"{column}\", so tenants are refused it",
            self.name
        );
        Some(Finding::warning(what).hint(
            "Make the tenant's column one of the key's, or let only users without a tenant use the table.",
        ))
    }

    /// Whether the column of the ids can hold them.
    fn id_column(&self, table: &Table, ids: &Ids) -> Option<Finding> {
        let name = ids.column.as_ref()?;
        let finding = |why: &str, hint: &str| {
            let what = format!(
                "column \"{name}\" of table \"{}\", its ids: {why}",
                self.name
            );
            Some(Finding::error(what).hint(hint))
        };
        let Some(column) = table.columns.iter().find(|column| column.name == *name) else {
            return finding("there is no such column", "Name a column of the table.");
        };
        if column.always || column.source == Source::Generated {
            return finding(
                "it is generated always, so that no value can be given to it",
                "Make it GENERATED BY DEFAULT AS IDENTITY, or a plain bigint.",
            );
        }
        let allowed: &[u32] = if ids.carries {
            &[oid::INT8]
        } else {
            &[oid::INT8, oid::INT4, oid::INT2]
        };
        if column.type_kind == "d" || !allowed.contains(&column.oid) {
            return finding(
                &format!("its type is {}", column.type_name),
                "Make it a bigint: ids reach up to 2^53.",
            );
        }
        None
    }

    fn unique(&self, table: &Table, key: &[String], ids: &Ids, findings: &mut Vec<Finding>) {
        for index in table.indexes.values().filter(|index| index.exclusive) {
            let has_id = ids.column.iter().any(|id| index.columns.contains(id));
            // Ids are generated apart, or name the shard.
            // And all rows of one value that other tables are placed by are on one shard.
            let leads = ids.leading().any(|column| index.columns.contains(column));
            let is_kept = ids
                .uniques
                .iter()
                .any(|unique| index.columns.contains(&unique.column));
            if has_id || leads || is_kept || key.iter().all(|column| index.columns.contains(column))
            {
                continue;
            }
            let what = format!(
                "\"{}\" of table \"{}\" does not contain the key ({}), so it holds on each shard only",
                index.name,
                self.name,
                key.join(", ")
            );
            findings.push(Finding::new(self.local, what).hint(
                "Add the key's columns to it, or set constraints: allow if the application keeps the values apart.",
            ));
        }
    }

    fn defaults(&self, table: &Table, ids: &Ids, findings: &mut Vec<Finding>) {
        let columns = table.columns.iter();
        for column in columns.filter(|column| ids.column.as_ref() != Some(&column.name)) {
            let default = column.default.as_deref().unwrap_or_default();
            let from_sequence = match column.source {
                Source::Identity => true,
                Source::Default => default.contains("nextval("),
                Source::Generated => false,
            };
            if from_sequence {
                let what = format!(
                    "column \"{}\" of table \"{}\" takes its default from a sequence of each shard, so values repeat",
                    column.name, self.name
                );
                findings.push(Finding::warning(what).hint(
                    "Give values yourself, or start the sequence of each shard elsewhere with a common INCREMENT.",
                ));
            }
        }
    }

    fn foreign_key(&self, constraint: &Constraint, reference: &Reference) -> Option<Finding> {
        let target = self
            .topology
            .table(Some(&reference.schema), &reference.table);
        let target_kind = match (target, self.topology.unlisted()) {
            (Some(rule), _) => rule.kind.clone(),
            (None, Unlisted::Reference) => Kind::Reference,
            (None, Unlisted::Single | Unlisted::Refuse) => Kind::Single,
        };
        let stays = match (&self.rule.kind, &target_kind) {
            (_, Kind::Reference) | (Kind::Single, Kind::Single) => true,
            (
                Kind::Sharded {
                    distribution,
                    key,
                    ids,
                },
                Kind::Sharded {
                    distribution: other,
                    key: other_key,
                    ids: other_ids,
                },
            ) => {
                let has = |(own, other): (&String, &String)| {
                    let mut pairs = reference.columns.iter();
                    pairs.any(|pair| pair.0 == *own && pair.1 == *other)
                };
                let pairs = reference.columns.iter().cloned();
                let follows = ids.follows(key, other_ids, pairs);
                let mut own_id = ids.carriers(key);
                let other_id = other_ids.carriers(other_key);
                distribution == other
                    && (follows
                        || ids.by == other_ids.by
                            && ids.looked == other_ids.looked
                            && key.iter().zip(other_key).all(has)
                        || own_id.any(|own| other_id.clone().any(|other| has((own, other)))))
            }
            (Kind::Sharded { .. } | Kind::Reference, Kind::Single)
            | (Kind::Single | Kind::Reference, Kind::Sharded { .. }) => false,
        };
        if stays {
            return None;
        }
        let what = format!(
            "foreign key \"{}\" of table \"{}\" to \"{}.{}\" leaves the shard",
            constraint.name, self.name, reference.schema, reference.table
        );
        Some(Finding::new(self.local, what).hint(
            "Place both tables by the same key and let the foreign key contain it, make the other a reference table, or drop the constraint.",
        ))
    }
}

/// Whether a column can be a key of a type.
#[derive(Debug, PartialEq, Eq)]
enum Fit {
    Yes,
    No(String),
    /// It can, but something of it may surprise.
    Beware(String),
}

fn fits(column: &Column, kind: KeyType) -> Fit {
    if column.source == Source::Generated {
        return Fit::No("it is generated, so only the server knows its value".into());
    }
    if column.type_kind == "d" {
        let name = &column.type_name;
        return Fit::No(format!(
            "its type \"{name}\" is a domain, which may change the value"
        ));
    }
    if column.oid == oid::BPCHAR {
        return Fit::No(
            "character(n) ignores blanks at the end, so equal values have many texts".into(),
        );
    }
    if column.type_name.trim_matches('"').ends_with("citext") {
        return Fit::No("citext ignores case, so equal values have many texts".into());
    }
    if !column.deterministic {
        return Fit::No("under its nondeterministic collation equal values have many texts".into());
    }
    if kind == KeyType::Enum {
        return if column.type_kind == "e" {
            Fit::Yes
        } else {
            Fit::No(format!(
                "its type is {}, which is no enum",
                column.type_name
            ))
        };
    }
    let allowed: &[u32] = match kind {
        KeyType::Enum => &[],
        KeyType::Int2 => &[oid::INT2],
        KeyType::Int4 => &[oid::INT2, oid::INT4],
        KeyType::Int8 => &[oid::INT2, oid::INT4, oid::INT8],
        KeyType::Text => &[oid::TEXT, oid::VARCHAR],
        KeyType::Uuid => &[oid::UUID],
        KeyType::Date => &[oid::DATE],
        KeyType::Timestamp => &[oid::TIMESTAMP],
        KeyType::TimestampTz => &[oid::TIMESTAMPTZ],
        KeyType::Numeric => &[oid::NUMERIC],
    };
    if !allowed.contains(&column.oid) {
        return Fit::No(format!(
            "its type is {}, that of the distribution {}",
            column.type_name,
            kind.name()
        ));
    }
    if column.modifier == -1 {
        return Fit::Yes;
    }
    let name = &column.type_name;
    if kind == KeyType::Text {
        Fit::Beware(format!(
            "{name} cuts blanks that are too many, so such a row would be placed by its longer text"
        ))
    } else {
        Fit::No(format!("{name} rounds values when they are stored"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Fit, fits};
    use crate::control::schema::Column;
    use crate::types::key::KeyType;
    use crate::types::oid;

    fn column(type_name: &str, oid: u32, modifier: i32) -> Column {
        Column {
            name: "k".into(),
            type_name: type_name.into(),
            oid,
            type_kind: "b".into(),
            modifier,
            deterministic: true,
            ..Column::default()
        }
    }

    #[test]
    fn only_types_whose_equal_values_hash_alike_are_keys() {
        let check = |type_name, oid, modifier, kind, expect: char| {
            let fit = match fits(&column(type_name, oid, modifier), kind) {
                Fit::Yes => 'y',
                Fit::No(_) => 'n',
                Fit::Beware(_) => 'b',
            };
            assert_eq!(fit, expect, "{type_name}");
        };
        check("bigint", oid::INT8, -1, KeyType::Int8, 'y');
        check("integer", oid::INT4, -1, KeyType::Int8, 'y');
        check("bigint", oid::INT8, -1, KeyType::Int4, 'n');
        check("text", oid::TEXT, -1, KeyType::Text, 'y');
        check("character varying(9)", oid::VARCHAR, 13, KeyType::Text, 'b');
        check("character(9)", oid::BPCHAR, 13, KeyType::Text, 'n');
        check("public.citext", 16_400, -1, KeyType::Text, 'n');
        check("numeric", oid::NUMERIC, -1, KeyType::Numeric, 'y');
        check("numeric(9,2)", oid::NUMERIC, 589_830, KeyType::Numeric, 'n');
        check(
            "timestamp(0) without time zone",
            oid::TIMESTAMP,
            0,
            KeyType::Timestamp,
            'n',
        );
        check("text", oid::TEXT, -1, KeyType::Int8, 'n');
    }
}
