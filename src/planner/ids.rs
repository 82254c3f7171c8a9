//! Ids of new rows: which rows of an INSERT are to be given one, and that those given carry the bucket of
//! their key.

use std::sync::Arc;

use crate::config::Ids;
use crate::placement::topology::TableRule;
use crate::planner::plan::{Access, Generate, KeyOperands, Stream};
use crate::planner::refuse;
use crate::planner::survey::Survey;
use crate::sql::cursor::Cursor;
use crate::sql::fill::Fill;
use crate::sql::statement::{Assignment, Block, Expr, Insert, Update};

/// Rows of an INSERT that are to be given ids.
#[derive(Clone, Debug)]
pub(super) struct Generates {
    stream: Arc<Stream>,
    fill: Fill,
    keys: Vec<KeyOperands>,
    distribution: usize,
    /// Whether the ids are the keys.
    pub is_key: bool,
    table: String,
}

impl Generates {
    /// Whether ids can be put into the statement of these tokens.
    pub(super) fn fits(&self, cursor: &Cursor<'_>) -> bool {
        let written = self.fill.write(cursor.tokens(), cursor.text(), |_, out| {
            out.push(b'0');
        });
        written.is_some()
    }

    /// The access of the INSERT, which without the ids would be `within`.
    pub(super) fn access(&self, within: Access) -> Access {
        Access::Generate(Arc::new(Generate {
            stream: Arc::clone(&self.stream),
            fill: self.fill.clone(),
            keys: self.keys.clone(),
            distribution: self.distribution,
            within,
            table: self.table.as_str().into(),
        }))
    }
}

/// Where the ids stand in the rows of an INSERT.
#[derive(Clone, Debug, Default)]
pub(super) struct NewIds {
    /// What has to be put in.
    fill: Option<Fill>,
    /// Where in each row an id is given that must carry the bucket of the row's key.
    pub checked: Option<usize>,
}

impl NewIds {
    /// Whether ids have to be put in.
    pub(super) fn fills(&self) -> bool {
        self.fill.is_some()
    }

    /// Whether the rows get their key as an id.
    pub(super) fn are_keys(&self, ids: &Ids, key: &[String]) -> bool {
        self.fill.is_some() && key.iter().map(String::as_str).eq(ids.column.as_deref())
    }
}

impl Survey<'_> {
    /// Looks for the ids in the rows of an INSERT. `known` are the columns of the table.
    pub(super) fn new_ids(
        &mut self,
        insert: &Insert,
        ids: &Ids,
        known: Option<&[&str]>,
        rows: Option<&[Vec<Expr>]>,
    ) -> NewIds {
        let (table, column) = (insert.table.to_string(), ids.column.as_deref());
        let Some(column) = column else {
            return NewIds::default();
        };
        let named: Vec<&str> = insert.columns.iter().map(String::as_str).collect();
        let columns = if named.is_empty() {
            known.unwrap_or_default()
        } else {
            &named
        };
        let at = columns.iter().position(|name| *name == column);
        let fill = |at, unnamed, rows| {
            Some(Fill {
                column: column.to_owned(),
                at,
                unnamed,
                rows,
            })
        };
        let checked = at.filter(|_| ids.carries);
        self.minds_ids |= checked.is_some();
        let Some(source) = &insert.source else {
            return NewIds {
                fill: fill(None, None, vec![0]),
                checked: None,
            };
        };
        let Some(rows) = rows else {
            self.queried_ids(source, named.is_empty(), at.is_some(), ids, &table, column);
            return NewIds::default();
        };
        let width = rows.first().map_or(0, Vec::len);
        // Rows of unlike length are for the server to refuse.
        if rows.iter().any(|row| row.len() != width) {
            return NewIds::default();
        }
        let all = || (0..rows.len()).collect();
        let fill = match at {
            Some(at) if at < width => {
                let is_default = |row: &&usize| {
                    let row = rows.get(**row).and_then(|row| row.get(at));
                    row.is_some_and(|value| *value == Expr::Default)
                };
                let all: Vec<usize> = all();
                let wanting: Vec<usize> = all.iter().filter(is_default).copied().collect();
                (!wanting.is_empty())
                    .then(|| fill(Some(at), None, wanting))
                    .flatten()
            }
            Some(_) if named.is_empty() => {
                let columns = columns.iter().take(width);
                let columns = columns.map(|name| String::from(*name)).collect();
                fill(None, Some(columns), all())
            }
            None if !named.is_empty() => fill(None, None, all()),
            Some(_) | None => None,
        };
        NewIds {
            fill,
            checked: checked.filter(|at| *at < width),
        }
    }

    /// Ids that a query gives, or does not.
    fn queried_ids(
        &mut self,
        source: &Block,
        unnamed: bool,
        given: bool,
        ids: &Ids,
        table: &str,
        column: &str,
    ) {
        debug_assert!(super::writes::values(source).is_none(), "it is a query");
        if unnamed || !given {
            self.minds_ids = true;
            self.refuse(refuse::no_id(table, column));
        } else if ids.carries {
            self.refuse(refuse::unproven_id(table, column, "comes from a query"));
        }
    }

    /// Notes the rows that are to be given ids; `keys` are those of all rows.
    pub(super) fn generate(
        &mut self,
        insert: &Insert,
        ids: &Ids,
        key: &[String],
        new: NewIds,
        distribution: usize,
        keys: Option<&[KeyOperands]>,
    ) {
        let is_key = new.are_keys(ids, key);
        let Some(fill) = new.fill else {
            return;
        };
        self.minds_ids = true;
        let rule = self.rule_of(insert);
        if self.depth != 1 || rule.is_none() {
            return self.refuse(refuse::ids_within());
        }
        let keys = match keys {
            Some(keys) if ids.carries => fill
                .rows
                .iter()
                .filter_map(|row| keys.get(*row).or(keys.first()))
                .map(|key| key.iter().take(1).cloned().collect())
                .collect(),
            Some(_) | None => Vec::new(),
        };
        if ids.carries && keys.len() != fill.rows.len() {
            // Why the keys are not known has been said.
            return;
        }
        self.generates = rule.map(|rule| Generates {
            stream: Arc::new(Stream {
                schema: rule.schema.clone(),
                table: rule.name.clone(),
                column: fill.column.clone(),
                carries: ids.carries,
            }),
            fill,
            keys,
            distribution,
            is_key,
            table: insert.table.to_string(),
        });
    }

    fn rule_of(&self, insert: &Insert) -> Option<&TableRule> {
        let context = self.context;
        let found = context.find(&insert.table);
        let schema = found.map(|(schema, _)| schema);
        let schema = schema.or(insert.table.schema.as_deref());
        context.rule(schema, &insert.table.name, found.map(|(_, table)| table))
    }

    /// ON CONFLICT DO UPDATE of an id that carries its bucket, or of the key that it carries.
    pub(super) fn conflicting_ids(
        &mut self,
        sets: &[Assignment],
        ids: &Ids,
        key: &[String],
        table: &str,
    ) {
        let Some(column) = ids.column.as_ref().filter(|_| ids.carries) else {
            return;
        };
        let sets_it = |wanted: &String| sets.iter().any(|set| set.columns.contains(wanted));
        let given = |wanted: &String| {
            sets.iter().any(|set| {
                set.columns.as_slice() == std::slice::from_ref(wanted)
                    && matches!(&set.value, Expr::Column(parts)
                        if matches!(parts.as_slice(), [table, name] if table == "excluded" && name == wanted))
            })
        };
        let touched = sets_it(column) || key.iter().any(sets_it);
        // Both of the row that was to be inserted, or neither.
        if touched && !(given(column) && key.iter().all(given)) {
            self.minds_ids = true;
            self.refuse(refuse::id_update(table, column));
        }
    }

    /// UPDATE of an id that carries its bucket: only to what it is.
    pub(super) fn updated_ids(&mut self, update: &Update, ids: &Ids) {
        let Some(column) = ids.column.as_ref().filter(|_| ids.carries) else {
            return;
        };
        let own = update.alias.as_ref().unwrap_or(&update.table.name);
        let unchanged = |set: &Assignment| {
            matches!(&set.value, Expr::Column(parts) if match parts.as_slice() {
                [name] => name == column && update.from.is_empty(),
                [table, name] => name == column && table == own,
                _ => false,
            }) && set.columns.len() == 1
        };
        let mut sets = update.sets.iter();
        if sets.any(|set| set.columns.contains(column) && !unchanged(set)) {
            self.minds_ids = true;
            self.refuse(refuse::id_update(&update.table.to_string(), column));
        }
    }
}
