//! Constraints and defaults in DDL that would hold on each shard only: UNIQUE, PRIMARY KEY and EXCLUDE without
//! the key, foreign keys that leave the shard, and values from a sequence of each shard.
//!
//! The server still has the last word on the syntax; what is not read here with certainty and names such
//! a constraint is refused.

use crate::config::Constraints;
use crate::error::Fault;
use crate::placement::topology::Kind;
use crate::planner::context::Context;
use crate::planner::refuse;
use crate::planner::utility::alter::actions;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::Kind as Token;

const SERIALS: [&str; 6] = [
    "serial",
    "bigserial",
    "smallserial",
    "serial2",
    "serial4",
    "serial8",
];

/// Whether nothing is to be refused.
fn is_off(context: Context<'_>) -> bool {
    context.topology.constraints() == Constraints::Allow || !context.topology.has_spread()
}

/// Why CREATE TABLE must not run; `cursor` stands behind that word.
pub(super) fn created(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if is_off(context) {
        return None;
    }
    cursor.take_words(&["if", "not", "exists"]);
    let name = cursor.qualified()?;
    let mut parent = None;
    if cursor.take_words(&["partition", "of"]) {
        parent = Some(cursor.qualified()?);
    } else if cursor.take("of") {
        cursor.qualified()?;
    }
    let inherited = parent.and_then(|parent| context.kind(&parent));
    let kind = context
        .own_kind(&name)
        .or(inherited)
        .or(context.unlisted_kind())?;
    let table = Table {
        context,
        name: &name,
        kind,
    };
    let group = group(&mut cursor)?;
    actions(group).find_map(|element| table.element(element))
}

/// Why ALTER TABLE must not run; `cursor` stands behind that word.
pub(super) fn altered(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if is_off(context) {
        return None;
    }
    cursor.take_words(&["if", "exists"]);
    cursor.take("only");
    let name = cursor.qualified()?;
    cursor.take_operator("*");
    let table = Table {
        context,
        name: &name,
        kind: context.kind(&name)?,
    };
    actions(cursor).find_map(|mut action| {
        if action.take("add") {
            if !starts_constraint(action) {
                action.take("column");
                action.take_words(&["if", "not", "exists"]);
            }
            return table.element(action);
        }
        if action.take("alter") {
            action.take("column");
            let column = action.name()?;
            let identity = action.at_words(&["add", "generated"]);
            let default = action.at_words(&["set", "default"]) && action.mentions("nextval");
            return (identity || default).then(|| table.sequence(&column))?;
        }
        None
    })
}

/// Why CREATE UNIQUE INDEX must not run; `cursor` stands behind INDEX.
pub(super) fn indexed(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if is_off(context) {
        return None;
    }
    cursor.take("concurrently");
    cursor.take_words(&["if", "not", "exists"]);
    if !cursor.at("on") {
        cursor.qualified();
    }
    cursor.take("on");
    cursor.take("only");
    let name = cursor.qualified()?;
    if cursor.take("using") {
        cursor.name();
    }
    let table = Table {
        context,
        name: &name,
        kind: context.kind(&name)?,
    };
    let Some(group) = group(&mut cursor) else {
        return table.unread("UNIQUE INDEX");
    };
    let columns: Vec<String> = actions(group).filter_map(plain_column).collect();
    table.unique("UNIQUE INDEX", &columns)
}

/// Why CREATE SCHEMA must not run: for the tables in it.
pub(super) fn in_schema(context: Context<'_>, cursor: Cursor<'_>) -> Option<Fault> {
    if is_off(context) || !cursor.mentions("create") {
        return None;
    }
    [
        "primary",
        "unique",
        "references",
        "exclude",
        "identity",
        "nextval",
    ]
    .iter()
    .chain(&SERIALS)
    .any(|word| cursor.mentions(word))
    .then(|| {
        refuse::kind(
            "CREATE SCHEMA with tables that have constraints",
            "Create the schema and its tables by a statement each.",
        )
    })
}

/// The tokens in the parentheses that are next.
fn group<'a>(cursor: &mut Cursor<'a>) -> Option<Cursor<'a>> {
    let before = cursor.tokens();
    if !cursor.skip_group() {
        return None;
    }
    let length = before.len() - cursor.tokens().len();
    let inner = before.get(1..length.checked_sub(1)?)?;
    Some(Cursor::new(cursor.text(), inner))
}

/// The names in a plain list in parentheses.
fn names(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    let list = group(cursor)?;
    actions(list)
        .map(|mut item| {
            let name = item.name()?;
            item.is_done().then_some(name)
        })
        .collect()
}

/// The column of an item of an index, where it is one.
fn plain_column(mut item: Cursor<'_>) -> Option<String> {
    let name = item.name()?;
    let is_call = matches!(item.kind(), Some(Token::OpenParen | Token::Dot));
    (!is_call).then_some(name)
}

fn starts_constraint(cursor: Cursor<'_>) -> bool {
    [
        &["constraint"][..],
        &["primary", "key"],
        &["unique"],
        &["foreign", "key"],
        &["exclude"],
        &["check"],
    ]
    .iter()
    .any(|words| cursor.at_words(words))
}

/// The table that a statement makes or changes.
struct Table<'a> {
    context: Context<'a>,
    name: &'a Name,
    kind: &'a Kind,
}

impl Table<'_> {
    /// A column, a constraint or LIKE.
    fn element(&self, mut cursor: Cursor<'_>) -> Option<Fault> {
        if cursor.take("like") {
            return self.like(cursor);
        }
        if starts_constraint(cursor) {
            if cursor.take("constraint") {
                cursor.name();
            }
            return self.constraint(cursor);
        }
        let column = cursor.name()?;
        self.column(&column, cursor)
    }

    fn constraint(&self, mut cursor: Cursor<'_>) -> Option<Fault> {
        if cursor.take_words(&["foreign", "key"]) {
            let Some(columns) = names(&mut cursor) else {
                return self.unread("FOREIGN KEY");
            };
            if !cursor.take("references") {
                return self.unread("FOREIGN KEY");
            }
            return self.reference(&columns, cursor);
        }
        if cursor.take("exclude") {
            if cursor.take("using") {
                cursor.name();
            }
            let Some(group) = group(&mut cursor) else {
                return self.unread("EXCLUDE");
            };
            // Rows of different shards have different keys: they exclude none of each other where the
            // keys must be equal for that.
            let columns: Vec<String> = actions(group)
                .filter(|item| {
                    let mut rest = *item;
                    while rest.peek().is_some() && !rest.take("with") {
                        rest.advance();
                    }
                    rest.take_operator("=") && rest.is_done()
                })
                .filter_map(plain_column)
                .collect();
            return self.unique("EXCLUDE", &columns);
        }
        let what = if cursor.take_words(&["primary", "key"]) {
            "PRIMARY KEY"
        } else if cursor.take("unique") {
            cursor.take("nulls");
            cursor.take("not");
            cursor.take("distinct");
            "UNIQUE"
        } else {
            // CHECK holds for each row by itself.
            return None;
        };
        match names(&mut cursor) {
            Some(columns) => self.unique(what, &columns),
            None => self.unread(what),
        }
    }

    /// A column's type and what is said of it.
    fn column(&self, column: &str, mut cursor: Cursor<'_>) -> Option<Fault> {
        let is_serial = SERIALS.iter().any(|word| cursor.at(word));
        if is_serial || cursor.mentions("nextval") || cursor.mentions("identity") {
            let fault = self.sequence(column);
            if fault.is_some() {
                return fault;
            }
        }
        let own = [column.to_owned()];
        while cursor.peek().is_some() {
            if cursor.skip_group() {
                continue;
            }
            let fault = if cursor.take_words(&["primary", "key"]) {
                self.unique("PRIMARY KEY", &own)
            } else if cursor.take("unique") {
                self.unique("UNIQUE", &own)
            } else if cursor.take("references") {
                self.reference(&own, cursor)
            } else {
                cursor.advance();
                None
            };
            if fault.is_some() {
                return fault;
            }
        }
        None
    }

    fn unique(&self, what: &str, columns: &[String]) -> Option<Fault> {
        let Kind::Sharded { key, ids, .. } = self.kind else {
            return None;
        };
        // Ids are generated apart, or name the shard.
        if ids.column.iter().any(|id| columns.contains(id)) {
            return None;
        }
        if columns.iter().any(|column| ids.keeps_unique(column)) {
            return None;
        }
        // So are all rows of one value on one shard.
        if ids.leading().any(|column| columns.contains(column)) {
            return None;
        }
        let missing = key.iter().find(|column| !columns.contains(column))?;
        Some(refuse::not_unique(
            what,
            columns,
            &self.name.to_string(),
            missing,
        ))
    }

    /// A constraint whose columns are not read.
    fn unread(&self, what: &str) -> Option<Fault> {
        let is_local = match self.kind {
            Kind::Sharded { .. } => true,
            Kind::Reference | Kind::Single => what == "FOREIGN KEY",
        };
        is_local.then(|| refuse::unread_constraint(what, &self.name.to_string()))
    }

    fn sequence(&self, column: &str) -> Option<Fault> {
        let is_local = match self.kind {
            Kind::Sharded { ids, .. } => ids.column.as_deref() != Some(column),
            Kind::Reference | Kind::Single => false,
        };
        is_local.then(|| refuse::local_sequence(column, &self.name.to_string()))
    }

    /// A foreign key of these columns; `cursor` stands behind REFERENCES.
    fn reference(&self, columns: &[String], mut cursor: Cursor<'_>) -> Option<Fault> {
        let Some(target) = cursor.qualified() else {
            return self.unread("FOREIGN KEY");
        };
        let others = if cursor.kind() == Some(Token::OpenParen) {
            let Some(others) = names(&mut cursor) else {
                return self.unread("FOREIGN KEY");
            };
            Some(others)
        } else {
            None
        };
        let itself = target.name == self.name.name
            && (target.schema == self.name.schema || target.schema.is_none());
        let kind = if itself {
            self.kind
        } else {
            self.context.kind(&target)?
        };
        if let Some(fault) = self.key_changed(columns, kind, cursor) {
            return Some(fault);
        }
        let leaves = || refuse::leaves_shard(&self.name.to_string(), &target.to_string());
        match (self.kind, kind) {
            (_, Kind::Reference) | (Kind::Single, Kind::Single) => None,
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
                if distribution != other {
                    return Some(leaves());
                }
                // Without a list it is the primary key that is meant: of one column it can only be the ids,
                // or the key.
                let others = others.unwrap_or_else(|| match (columns, other_key.as_slice()) {
                    ([_], [only]) => {
                        let looked = ids.looked.as_ref().map(|looked| &looked.column);
                        let meant = other_ids.column.as_ref().or(looked).unwrap_or(only);
                        vec![meant.clone()]
                    }
                    _ => Vec::new(),
                });
                let has = |(own, other): (&String, &String)| {
                    let mut pairs = columns.iter().zip(&others);
                    pairs.any(|pair| pair == (own, other))
                };
                let other_id = other_ids.carriers(other_key);
                let pairs = columns.iter().cloned().zip(others.iter().cloned());
                let stays = ids.follows(key, other_ids, pairs)
                    || ids.by == other_ids.by
                        && ids.looked == other_ids.looked
                        && key.iter().zip(other_key).all(has)
                    || ids
                        .carriers(key)
                        .any(|own| other_id.clone().any(|other| has((own, other))));
                (!stays).then(|| {
                    refuse::loses_key(&self.name.to_string(), &target.to_string(), key, other_key)
                })
            }
            (Kind::Sharded { .. } | Kind::Reference, Kind::Single)
            | (Kind::Single | Kind::Reference, Kind::Sharded { .. }) => Some(leaves()),
        }
    }

    /// A foreign key whose actions would give rows another key, or none, where they lie; `cursor` stands
    /// behind the columns that it references.
    fn key_changed(
        &self,
        columns: &[String],
        target: &Kind,
        mut cursor: Cursor<'_>,
    ) -> Option<Fault> {
        let Kind::Sharded { key, ids, .. } = self.kind else {
            return None;
        };
        while cursor.peek().is_some() {
            if !cursor.take("on") {
                cursor.advance();
                continue;
            }
            let Some(event) = cursor.take_any(&["delete", "update"]) else {
                continue;
            };
            let defaults = cursor.take_words(&["set", "default"]);
            let sets = defaults || cursor.take_words(&["set", "null"]);
            let listed = if sets { names(&mut cursor) } else { None };
            let follows = event == "update" && cursor.at("cascade");
            // The key of a row that is referenced does not change itself where that is sharded as well.
            let cascades = follows && *target == Kind::Reference;
            let changed = listed.as_deref().unwrap_or(columns);
            if (sets || cascades)
                && let Some(column) = key.iter().find(|column| changed.contains(column))
            {
                return Some(refuse::key_cascades(&self.name.to_string(), column));
            }
            let kept = ids.lookups.iter().chain(&ids.uniques);
            let mut looked = kept.map(|lookup| &lookup.column);
            if (defaults || follows)
                && let Some(column) = looked.find(|column| changed.contains(column))
            {
                return Some(refuse::lookup_cascades(&self.name.to_string(), column));
            }
        }
        None
    }

    /// LIKE with what it takes over: all of a table that is placed alike may be.
    fn like(&self, mut cursor: Cursor<'_>) -> Option<Fault> {
        const PARTS: [&str; 3] = ["defaults", "identity", "indexes"];
        let Kind::Sharded { .. } = self.kind else {
            return None;
        };
        let source = cursor.qualified()?;
        let mut taken: Vec<&str> = Vec::new();
        while let Some(word) = cursor.take_any(&["including", "excluding"]) {
            let parts: Vec<&str> =
                match cursor.take_any(&["all", "defaults", "identity", "indexes"]) {
                    Some("all") => PARTS.to_vec(),
                    Some(part) => vec![part],
                    None => {
                        cursor.advance();
                        continue;
                    }
                };
            if word == "including" {
                taken.extend(parts);
            } else {
                taken.retain(|part| !parts.contains(part));
            }
        }
        let alike = self.context.kind(&source) == Some(self.kind);
        (!taken.is_empty() && !alike)
            .then(|| refuse::unread_constraint("LIKE", &self.name.to_string()))
    }
}
