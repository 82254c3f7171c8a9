//! ALTER TABLE and its like, over several shards: what would leave rows where nobody looks for them, or
//! make copies of reference tables differ, is refused.

use crate::error::Fault;
use crate::placement::catalog::Table;
use crate::placement::topology::Kind;
use crate::planner::context::{Context, Relation};
use crate::planner::refuse;
use crate::planner::unlike;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::Kind as Token;

/// Why ALTER of a table, view or index must not run; `cursor` stands behind that word.
pub(super) fn refusal(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if context.is_one_shard() {
        return None;
    }
    cursor.take_words(&["if", "exists"]);
    cursor.take("only");
    let name = cursor.qualified()?;
    cursor.take_operator("*");
    let altered = Altered { context, name };
    actions(cursor).find_map(|action| altered.refusal(action))
}

/// Why CREATE TABLE must not run: it would have rows among those of a table that lie elsewhere.
pub(super) fn created(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if context.is_one_shard() {
        return None;
    }
    cursor.take_words(&["if", "not", "exists"]);
    let name = cursor.qualified()?;
    let mut parents = Vec::new();
    if cursor.take_words(&["partition", "of"]) {
        parents.extend(cursor.qualified());
    }
    while cursor.peek().is_some() {
        if cursor.take("inherits") && cursor.take_kind(Token::OpenParen) {
            parents.extend(cursor.qualified());
            while cursor.take_kind(Token::Comma) {
                parents.extend(cursor.qualified());
            }
        } else if !cursor.skip_group() {
            cursor.advance();
        }
    }
    // A table that is not listed follows its first parent.
    let first = context.kind(parents.first()?);
    let own = context.own_kind(&name).or(first);
    let other = parents.iter().find(|parent| context.kind(parent) != own)?;
    Some(refuse::apart(&name.to_string(), &other.to_string()))
}

/// Why ALTER TYPE must not run: rows are placed by the label that it renames.
pub(super) fn renamed(context: Context<'_>, mut cursor: Cursor<'_>) -> Option<Fault> {
    if context.is_one_shard() {
        return None;
    }
    let renamed = cursor.qualified()?;
    if !cursor.take_words(&["rename", "value"]) {
        return None;
    }
    let placed = |schema: &str, name: &str, table: &Table| {
        let rule = context.rule(Some(schema), name, Some(table));
        let Some(Kind::Sharded { key, .. }) = rule.map(|rule| &rule.kind) else {
            return false;
        };
        table.columns.iter().any(|column| {
            let kind = context.catalog.enum_name(column.oid);
            key.contains(&column.name)
                && kind.is_some_and(|(schema, name)| {
                    name == renamed.name && renamed.schema.as_deref().is_none_or(|it| it == schema)
                })
        })
    };
    let mut tables = context.catalog.tables();
    let (_, table, _) = tables.find(|(schema, name, table)| placed(schema, name, table))?;
    Some(refuse::kind(
        &format!("ALTER TYPE … RENAME VALUE of a type that is the key of \"{table}\""),
        "Rows are placed by the label: add a value under the new name, and move the rows to it with INSERT and DELETE.",
    ))
}

/// The parts of an ALTER TABLE, or of a list, between commas.
pub(super) fn actions(cursor: Cursor<'_>) -> impl Iterator<Item = Cursor<'_>> {
    let mut depth = 0_usize;
    let mut pieces = cursor.tokens().split(move |token| {
        if matches!(token.kind, Token::OpenParen | Token::OpenBracket) {
            depth += 1;
        } else if matches!(token.kind, Token::CloseParen | Token::CloseBracket) {
            depth = depth.saturating_sub(1);
        }
        depth == 0 && token.kind == Token::Comma
    });
    std::iter::from_fn(move || Some(Cursor::new(cursor.text(), pieces.next()?)))
}

struct Altered<'a> {
    context: Context<'a>,
    name: Name,
}

impl Altered<'_> {
    fn refusal(&self, mut action: Cursor<'_>) -> Option<Fault> {
        let first = action.take_any(&[
            "rename", "set", "drop", "alter", "add", "attach", "detach", "inherit", "no",
        ])?;
        match first {
            "rename" | "drop" | "alter" if action.at("constraint") => None,
            "rename" if action.take("to") => {
                self.renamed(self.name.schema.as_deref(), &action.name()?)
            }
            "rename" => {
                action.take("column");
                self.of_key(&action.name()?, "RENAME of")
            }
            "set" if action.take("schema") => {
                let schema = action.name()?;
                self.renamed(Some(&schema), &self.name.name)
            }
            "drop" => {
                action.take("column");
                action.take_words(&["if", "exists"]);
                self.of_key(&action.name()?, "DROP of")
            }
            "alter" => {
                action.take("column");
                let column = action.name()?;
                action.take_words(&["set", "data"]);
                if action.take("type") {
                    return self
                        .of_key(&column, "another TYPE of")
                        .or_else(|| self.worked_out(action));
                }
                action
                    .take_words(&["set", "expression"])
                    .then(|| self.worked_out(action))?
            }
            "add" if is_constraint(action) => None,
            "add" => self.worked_out(action),
            "attach" => {
                action.take("partition");
                self.joined(&action.qualified()?, &self.name)
            }
            "inherit" => self.joined(&self.name, &action.qualified()?),
            "detach" => {
                action.take("partition");
                self.parted(&action.qualified()?)
            }
            _ => action
                .take("inherit")
                .then(|| self.parted(&self.name))
                .flatten(),
        }
    }

    /// Under its new name the configuration may mean something else by it.
    fn renamed(&self, schema: Option<&str>, name: &str) -> Option<Fault> {
        let context = self.context;
        let found = context.find(&self.name);
        let schema = schema.or(found.map(|(schema, _)| schema));
        let table = found.map(|(_, table)| table);
        let rule = context.rule(schema, name, table);
        let new = rule.map(|rule| &rule.kind).or(context.unlisted_kind());
        let moves = context.kind(&self.name) != new;
        moves.then(|| refuse::renamed(&self.name.to_string(), name))
    }

    fn of_key(&self, column: &str, what: &str) -> Option<Fault> {
        let Relation::Sharded { key, ids, .. } = self.context.relation(&self.name) else {
            return None;
        };
        let carrying = ids.column.iter().filter(|_| ids.carries);
        let kept = ids.lookups.iter().chain(&ids.uniques);
        let looked = kept.map(|lookup| &lookup.column);
        key.iter()
            .chain(carrying)
            .chain(looked)
            .any(|key| key == column)
            .then(|| refuse::key_altered(what, column, &self.name.to_string()))
    }

    /// Values for the rows that are there: each copy works them out for itself.
    fn worked_out(&self, action: Cursor<'_>) -> Option<Fault> {
        let Relation::Reference(_) = self.context.relation(&self.name) else {
            return None;
        };
        let why = unlike::definition(action)?;
        Some(refuse::copies(&self.name.to_string(), &why))
    }

    fn joined(&self, child: &Name, parent: &Name) -> Option<Fault> {
        let apart = self.context.kind(child) != self.context.kind(parent);
        apart.then(|| refuse::apart(&child.to_string(), &parent.to_string()))
    }

    /// A table that is placed as the one it is taken out of would be placed no more.
    fn parted(&self, child: &Name) -> Option<Fault> {
        let context = self.context;
        let inherits =
            context.own_kind(child).is_none() && context.kind(child) != context.unlisted_kind();
        inherits.then(|| refuse::parted(&child.to_string()))
    }
}

fn is_constraint(cursor: Cursor<'_>) -> bool {
    ["constraint", "primary", "unique", "foreign", "check"]
        .iter()
        .any(|word| cursor.at(word))
}
