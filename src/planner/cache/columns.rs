//! What statements say of single columns: which a read names, which an UPDATE changes, and which values of
//! indexed columns their rows have.
//!
//! Told only of tables that stand alone: where rows are also those of a parent or a child, or a trigger or rule
//! acts, what a statement says of columns is not all that happens to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Indexed, Valued};
use crate::config::Policy;
use crate::placement::catalog::Table;
use crate::planner::context::{Context, lookup_type};
use crate::planner::facts;
use crate::planner::plan::Operand;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::scan::{Kind, Token};
use crate::sql::statement::{Assignment, Block, Body, Expr, Source};
use crate::types::key::KeyType;

/// Columns that a read depends on one by one; one that names more depends on the table.
const COLUMNS_MAX: usize = 8;
/// Values of an indexed column that a read or a write is told apart by.
const VALUES_MAX: usize = 16;

/// Whether rows of a table are changed by nothing but statements that name it.
pub(super) fn stands_alone(context: Context<'_>, name: &Name, table: &Table) -> bool {
    let Some((schema, _)) = context.find(name) else {
        return false;
    };
    let own = |(parent, child): &(String, String)| parent == schema && *child == name.name;
    table.view.is_none()
        && table.writes.is_none()
        && !table.acts
        && table.parents.is_empty()
        && !context
            .catalog
            .tables()
            .any(|(_, _, other)| other.parents.iter().any(own))
}

/// The columns of a table that answers are told apart by, as far as equal values of them have equal texts.
pub(super) fn indexed(policy: &Policy, table: &Table) -> Vec<(Indexed, i32)> {
    let columns = policy.index.iter().filter_map(|name| {
        let mut columns = table.columns.iter();
        let column = columns.find(|column| column.name == *name)?;
        let kind = lookup_type(column.oid).filter(|_| !column.loose && !column.generated)?;
        let column = Arc::from(name.as_str());
        Some((Indexed { column, kind }, table_modifier(table, name)))
    });
    columns.collect()
}

fn table_modifier(table: &Table, name: &str) -> i32 {
    let mut columns = table.columns.iter();
    let column = columns.find(|column| column.name == name);
    column.map_or(-1, |column| column.modifier)
}

/// The columns of a table that a read may look at, by the words in it; `None`: any, or too many.
pub(super) fn read(table: &Table, words: Option<&BTreeSet<String>>) -> Option<Box<[Arc<str>]>> {
    let words = words?;
    let names = table.columns.iter().map(|column| column.name.as_str());
    let names = names.filter(|name| words.contains(*name));
    let names: Box<[Arc<str>]> = names.map(Arc::from).collect();
    (names.len() <= COLUMNS_MAX).then_some(names)
}

/// The values of an indexed column that all rows have of a table, in FROM of a read, that can matter to its
/// answer: those of a conjunct of WHERE.
pub(super) fn confined(block: &Block, name: &Name, indexed: &Indexed) -> Option<Box<[Operand]>> {
    let Body::Select(select) = &block.body else {
        return None;
    };
    if !block.ctes.is_empty() {
        return None;
    }
    let mut tables = Vec::new();
    let is_all_tables = select
        .from
        .iter()
        .all(|source| tables_of(source, &mut tables));
    let mut own = tables.iter().filter(|(known, ..)| *known == name);
    let (_, alias, renamed) = *own.next()?;
    if own.next().is_some() || renamed {
        return None;
    }
    let bare = is_all_tables && tables.len() == 1;
    values(select.filter.as_ref()?, (bare, alias), indexed)
}

/// The tables of an item of FROM, with their aliases and whether these rename columns. Returns whether there
/// is nothing else in it.
fn tables_of<'a>(source: &'a Source, tables: &mut Vec<(&'a Name, &'a str, bool)>) -> bool {
    match source {
        Source::Table {
            name,
            alias,
            renamed,
        } => {
            let alias = alias.as_deref().unwrap_or(&name.name);
            tables.push((name, alias, *renamed));
            true
        }
        Source::Join(join) => {
            let left = tables_of(&join.left, tables);
            tables_of(&join.right, tables) && left
        }
        Source::Derived { .. } | Source::Function { .. } => false,
    }
}

/// The columns that an UPDATE may change of the rows of a table that stands alone; `None`: rows come or go, or
/// it is another statement.
pub(super) fn changed(block: &Block, name: &Name, table: &Table) -> Option<Box<[Arc<str>]>> {
    let Body::Update(update) = &block.body else {
        return None;
    };
    if update.table != *name || !block.ctes.is_empty() {
        return None;
    }
    let set: Vec<&String> = update.sets.iter().flat_map(|set| &set.columns).collect();
    let is_known = |name: &&String| table.columns.iter().any(|column| column.name == **name);
    if !set.iter().all(is_known) {
        return None;
    }
    // What the server works out of others changes with them.
    let columns = table
        .columns
        .iter()
        .filter(|column| set.contains(&&column.name) || column.generated);
    Some(
        columns
            .map(|column| Arc::from(column.name.as_str()))
            .collect(),
    )
}

/// The values of an indexed column that the rows have which a statement writes, before and after.
pub(super) fn written(
    block: &Block,
    name: &Name,
    table: &Table,
    (indexed, modifier): (&Indexed, i32),
) -> Valued {
    if !block.ctes.is_empty() {
        return Valued::Any;
    }
    let assigns = |sets: &[Assignment]| {
        let mut columns = sets.iter().flat_map(|set| &set.columns);
        columns.any(|column| **column == *indexed.column)
    };
    let known = |values: Option<Box<[Operand]>>, otherwise| values.map_or(otherwise, Valued::Known);
    let binding = |alias: &'_ Option<String>| alias.clone().unwrap_or_else(|| name.name.clone());
    match &block.body {
        Body::Insert(insert) if insert.table == *name && insert.update.is_empty() => {
            // What is stored may be another text than what was said.
            if modifier >= 0 {
                return Valued::Any;
            }
            let rows = match insert.source.as_ref().map(|source| &source.body) {
                Some(Body::Values(rows)) if rows.len() <= VALUES_MAX => rows,
                Some(_) | None => return Valued::Any,
            };
            let at = if insert.columns.is_empty() {
                let mut columns = table.insert_columns();
                columns.position(|column| *column.name == *indexed.column)
            } else {
                let mut columns = insert.columns.iter();
                columns.position(|column| **column == *indexed.column)
            };
            let one = |row: &Vec<Expr>| facts::operand(row.get(at?)?, indexed.kind);
            known(rows.iter().map(one).collect(), Valued::Any)
        }
        Body::Update(update) if update.table == *name && !assigns(&update.sets) => {
            let alias = binding(&update.alias);
            let bare = update.from.is_empty();
            let filter = update.filter.as_ref();
            let found = filter.and_then(|filter| values(filter, (bare, &alias), indexed));
            known(found, Valued::Kept)
        }
        Body::Delete(delete) if delete.table == *name => {
            let alias = binding(&delete.alias);
            let bare = delete.using.is_empty();
            let filter = delete.filter.as_ref();
            let found = filter.and_then(|filter| values(filter, (bare, &alias), indexed));
            known(found, Valued::Any)
        }
        Body::Insert(_)
        | Body::Update(_)
        | Body::Delete(_)
        | Body::Merge(_)
        | Body::Select(_)
        | Body::Set(_)
        | Body::Values(_)
        | Body::Nested(_) => Valued::Any,
    }
}

/// The values that conjuncts of a filter leave a column of the table bound by a name; `bare`: its columns need
/// no name before them.
fn values(filter: &Expr, binding: (bool, &str), indexed: &Indexed) -> Option<Box<[Operand]>> {
    let is_column = |expr: &Expr| {
        let Expr::Column(parts) = expr else {
            return false;
        };
        match parts.as_slice() {
            [column] => binding.0 && **column == *indexed.column,
            [table, column] => table == binding.1 && **column == *indexed.column,
            _ => false,
        }
    };
    let kind = indexed.kind;
    let found = match filter {
        Expr::And(all) => return all.iter().find_map(|one| values(one, binding, indexed)),
        Expr::Equal(left, right) if is_column(left) => vec![facts::operand(right, kind)?],
        Expr::Equal(left, right) if is_column(right) => vec![facts::operand(left, kind)?],
        Expr::In(left, list) if is_column(left) && list.len() <= VALUES_MAX => list
            .iter()
            .map(|one| facts::operand(one, kind))
            .collect::<Option<Vec<_>>>()?,
        Expr::Any(left, right) if is_column(left) => facts::elements(right, kind)?,
        Expr::Column(_)
        | Expr::Value(_)
        | Expr::Cast(..)
        | Expr::Row(_)
        | Expr::Array(_)
        | Expr::Or(_)
        | Expr::Equal(..)
        | Expr::Same(..)
        | Expr::Compare(..)
        | Expr::Computed(..)
        | Expr::In(..)
        | Expr::InSubquery(..)
        | Expr::Subquery(_)
        | Expr::Any(..)
        | Expr::Default
        | Expr::Boolean(_)
        | Expr::Call
        | Expr::Other => return None,
    };
    let is_value = |operand: &Operand| is_told(operand, kind);
    (found.len() <= VALUES_MAX && found.iter().all(is_value)).then(|| found.into())
}

/// Whether an operand's value may be told when the statement is carried out.
fn is_told(operand: &Operand, kind: KeyType) -> bool {
    match operand {
        Operand::Parameter(_)
        | Operand::Literal { .. }
        | Operand::Constant(_)
        | Operand::Elements(_)
        | Operand::LiteralElements(_)
        | Operand::Null => true,
        Operand::Computed(_) => kind.is_int(),
        Operand::Between(_)
        | Operand::Id(_)
        | Operand::Carried(_)
        | Operand::Looked(_)
        | Operand::Key(_) => false,
    }
}

/// The names that a statement may read columns by; `None`: it may read all of them, as by `*` or a whole row.
pub(super) fn named(cursor: &Cursor<'_>) -> Option<BTreeSet<String>> {
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let is_word = |token: Option<&Token>, words: &[&str]| {
        let word = token.and_then(|token| word_name(*token, text));
        word.is_some_and(|word| words.contains(&word.as_str()))
    };
    let mut words = BTreeSet::new();
    let mut bare: Vec<String> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let behind = tokens.get(at.saturating_add(1));
        if token.of(text) == b"*" {
            let counts = before.is_some_and(|before| before.kind == Kind::OpenParen)
                && behind.is_some_and(|behind| behind.kind == Kind::CloseParen)
                && is_word(at.checked_sub(2).and_then(|at| tokens.get(at)), &["count"]);
            let multiplies = behind.is_some_and(|behind| {
                matches!(
                    behind.kind,
                    Kind::Integer | Kind::Decimal | Kind::Parameter | Kind::OpenParen
                ) || word_name(*behind, text).is_some() && !is_word(Some(behind), &CLAUSES)
            });
            if !counts && !multiplies {
                return None;
            }
            continue;
        }
        if token.kind == Kind::UnicodeName {
            return None;
        }
        let Some(word) = word_name(*token, text) else {
            continue;
        };
        if matches!(word.as_str(), "natural" | "table") {
            return None;
        }
        let leads = behind.is_some_and(|behind| behind.kind == Kind::Dot);
        if !leads && !CLAUSES.contains(&word.as_str()) {
            bare.push(word.clone());
        }
        words.insert(word);
    }
    // A whole row: the name of a source stands elsewhere than where it is made.
    let sources = sources(cursor);
    let count = |words: &[String], word: &String| words.iter().filter(|one| *one == word).count();
    let is_whole = |source: &String| count(&bare, source) > count(&sources, source);
    (!sources.iter().any(is_whole)).then_some(words)
}

/// Words behind which, or before which, a name is none of a column.
const CLAUSES: [&str; 24] = [
    "from",
    "where",
    "group",
    "order",
    "limit",
    "offset",
    "union",
    "intersect",
    "except",
    "having",
    "window",
    "fetch",
    "for",
    "into",
    "on",
    "using",
    "join",
    "left",
    "right",
    "inner",
    "full",
    "cross",
    "as",
    "and",
];

/// Every word that may name a source: any that stands behind FROM, JOIN or a comma, or behind such a one.
fn sources(cursor: &Cursor<'_>) -> Vec<String> {
    let (text, tokens) = (cursor.text(), cursor.tokens());
    let mut found: Vec<String> = Vec::new();
    let mut inside = false;
    for token in tokens {
        match word_name(*token, text) {
            Some(word) if matches!(word.as_str(), "from" | "join") => inside = true,
            Some(word) if CLAUSES.contains(&word.as_str()) && word != "as" => inside = false,
            Some(word) if inside && word != "as" => found.push(word),
            Some(_) | None => (),
        }
    }
    found
}
