//! INSERT, UPDATE, DELETE, MERGE.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's statements of other kinds are refused"
)]

use sqlparser::ast::{self, Statement, TableFactor};

use super::names::{column, ident, name};
use super::{Converter, Result, unknown};
use crate::sql::cursor::Name;
use crate::sql::statement::{Assignment, Body, Delete, Features, Insert, Merge, Source, Update};

impl Converter<'_> {
    pub(super) fn write(&mut self, statement: Statement) -> Result<Body> {
        match statement {
            Statement::Insert(insert) => self.insert(insert),
            Statement::Update(update) => self.update(update),
            Statement::Delete(delete) => self.delete(delete),
            Statement::Merge(merge) => self.merge(merge),
            _ => unknown("a statement of another kind"),
        }
    }

    fn insert(&mut self, insert: ast::Insert) -> Result<Body> {
        if is_foreign_insert(&insert) {
            return unknown("a clause of INSERT that is not PostgreSQL's");
        }
        let ast::TableObject::TableName(table) = insert.table else {
            return unknown("an INSERT into something else than a table");
        };
        let mut read = Insert {
            table: name(table)?,
            alias: insert.table_alias.map(|alias| ident(alias.alias)),
            columns: insert
                .columns
                .into_iter()
                .map(column)
                .collect::<Result<_>>()?,
            source: insert
                .source
                .map(|source| self.query(*source))
                .transpose()?,
            update: Vec::new(),
            has_conflict: insert.on.is_some(),
            returning: Vec::new(),
            conflict: Vec::new(),
        };
        match insert.on {
            None => (),
            Some(ast::OnInsert::OnConflict(conflict)) => {
                if let Some(ast::ConflictTarget::Columns(columns)) = conflict.conflict_target {
                    read.conflict = columns.into_iter().map(ident).collect();
                }
                match conflict.action {
                    ast::OnConflictAction::DoNothing => (),
                    ast::OnConflictAction::DoUpdate(update) => {
                        read.update = self.assignments(update.assignments)?;
                        self.each(update.selection)?;
                    }
                }
            }
            Some(_) => return unknown("ON DUPLICATE KEY UPDATE"),
        }
        read.returning = self.projection(insert.returning.unwrap_or_default())?;
        Ok(Body::Insert(Box::new(read)))
    }

    fn assignments(&mut self, assignments: Vec<ast::Assignment>) -> Result<Vec<Assignment>> {
        let mut read = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let columns = match assignment.target {
                ast::AssignmentTarget::ColumnName(target) => vec![column(target)?],
                ast::AssignmentTarget::Tuple(targets) => {
                    targets.into_iter().map(column).collect::<Result<_>>()?
                }
            };
            read.push(Assignment {
                columns,
                value: self.expr(assignment.value)?,
            });
        }
        Ok(read)
    }

    fn update(&mut self, update: ast::Update) -> Result<Body> {
        if update.or.is_some()
            || update.output.is_some()
            || !update.order_by.is_empty()
            || update.limit.is_some()
            || !update.table.joins.is_empty()
        {
            return unknown("a clause of UPDATE that is not PostgreSQL's");
        }
        let (table, alias) = self.target(update.table.relation)?;
        let from = match update.from {
            None => Vec::new(),
            Some(ast::UpdateTableFromKind::AfterSet(from)) => self.sources(from)?,
            Some(ast::UpdateTableFromKind::BeforeSet(_)) => return unknown("FROM before SET"),
        };
        let read = Update {
            table,
            alias,
            sets: self.assignments(update.assignments)?,
            from,
            filter: update
                .selection
                .map(|filter| self.expr(filter))
                .transpose()?,
            returning: self.projection(update.returning.unwrap_or_default())?,
        };
        Ok(Body::Update(Box::new(read)))
    }

    fn delete(&mut self, delete: ast::Delete) -> Result<Body> {
        if !delete.tables.is_empty()
            || delete.output.is_some()
            || !delete.order_by.is_empty()
            || delete.limit.is_some()
        {
            return unknown("a clause of DELETE that is not PostgreSQL's");
        }
        let (ast::FromTable::WithFromKeyword(mut tables)
        | ast::FromTable::WithoutKeyword(mut tables)) = delete.from;
        let (Some(target), true) = (tables.pop(), tables.is_empty()) else {
            return unknown("a DELETE from several tables");
        };
        if !target.joins.is_empty() {
            return unknown("a DELETE from a join");
        }
        let (table, alias) = self.target(target.relation)?;
        let read = Delete {
            table,
            alias,
            using: self.sources(delete.using.unwrap_or_default())?,
            filter: delete
                .selection
                .map(|filter| self.expr(filter))
                .transpose()?,
            returning: self.projection(delete.returning.unwrap_or_default())?,
        };
        Ok(Body::Delete(Box::new(read)))
    }

    /// The table written and its alias.
    fn target(&mut self, factor: TableFactor) -> Result<(Name, Option<String>)> {
        match self.source(factor)? {
            Source::Table {
                name,
                alias,
                renamed: false,
            } => Ok((name, alias)),
            Source::Table { .. }
            | Source::Derived { .. }
            | Source::Function { .. }
            | Source::Join(_) => unknown("a write to something else than a table"),
        }
    }

    fn merge(&mut self, merge: ast::Merge) -> Result<Body> {
        if merge.output.is_some() {
            return unknown("a clause of MERGE that is not PostgreSQL's");
        }
        let (table, alias) = self.target(merge.table)?;
        let mut read = Merge {
            table,
            alias,
            source: self.source(merge.source)?,
            on: self.expr(*merge.on)?,
            sets: Vec::new(),
            inserts: Vec::new(),
        };
        for clause in merge.clauses {
            if clause.clause_kind == ast::MergeClauseKind::NotMatchedBySource {
                return unknown("WHEN NOT MATCHED BY SOURCE");
            }
            self.each(clause.predicate)?;
            self.merge_action(clause.action, &mut read)?;
        }
        // What a MERGE may do to several shards' rows is not worked out: it never concatenates.
        self.feature(Features::LOCK);
        Ok(Body::Merge(Box::new(read)))
    }

    fn merge_action(&mut self, action: ast::MergeAction, read: &mut Merge) -> Result<()> {
        match action {
            ast::MergeAction::Delete { .. } | ast::MergeAction::DoNothing { .. } => Ok(()),
            ast::MergeAction::Insert(insert) => {
                if insert.insert_predicate.is_some() {
                    return unknown("a MERGE that is not PostgreSQL's");
                }
                let ast::MergeInsertKind::Values(mut values) = insert.kind else {
                    return unknown("a MERGE that is not PostgreSQL's");
                };
                let (Some(row), true) = (values.rows.pop(), values.rows.is_empty()) else {
                    return unknown("a MERGE that is not PostgreSQL's");
                };
                let columns = insert.columns.into_iter().map(column);
                let columns = columns.collect::<Result<_>>()?;
                read.inserts.push((columns, self.exprs(row.content)?));
                Ok(())
            }
            ast::MergeAction::Update(update) => {
                let ast::MergeUpdateKind::Set(assignments) = update.kind else {
                    return unknown("a MERGE that is not PostgreSQL's");
                };
                if update.update_predicate.is_some() || update.delete_predicate.is_some() {
                    return unknown("a MERGE that is not PostgreSQL's");
                }
                read.sets.extend(self.assignments(assignments)?);
                Ok(())
            }
        }
    }
}

fn is_foreign_insert(insert: &ast::Insert) -> bool {
    insert.or.is_some()
        || insert.ignore
        || insert.overwrite
        || !insert.assignments.is_empty()
        || insert.partitioned.is_some()
        || !insert.after_columns.is_empty()
        || insert.output.is_some()
        || insert.replace_into
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some()
}
