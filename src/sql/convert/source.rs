//! FROM: tables, joins, derived tables, functions.

use sqlparser::ast::{self, JoinConstraint, JoinOperator, TableFactor};

use super::names::{column, ident, is_reserved, name};
use super::{Converter, Result, unknown};
use crate::sql::cursor::Name;
use crate::sql::statement::{Features, Join, JoinKind, Source};

impl Converter<'_> {
    pub(super) fn sources(&mut self, items: Vec<ast::TableWithJoins>) -> Result<Vec<Source>> {
        items.into_iter().map(|item| self.joined(item)).collect()
    }

    fn joined(&mut self, item: ast::TableWithJoins) -> Result<Source> {
        let mut left = self.source(item.relation)?;
        for join in item.joins {
            if join.global {
                return unknown("GLOBAL JOIN");
            }
            let right = self.source(join.relation)?;
            left = self.join(left, right, join.join_operator)?;
        }
        Ok(left)
    }

    fn join(&mut self, left: Source, right: Source, operator: JoinOperator) -> Result<Source> {
        let (kind, constraint) = match operator {
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::CrossJoin(constraint) => (JoinKind::Inner, constraint),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (JoinKind::Left, constraint)
            }
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                (JoinKind::Right, constraint)
            }
            JoinOperator::FullOuter(constraint) => (JoinKind::Full, constraint),
            JoinOperator::Semi(_)
            | JoinOperator::LeftSemi(_)
            | JoinOperator::RightSemi(_)
            | JoinOperator::Anti(_)
            | JoinOperator::LeftAnti(_)
            | JoinOperator::RightAnti(_)
            | JoinOperator::CrossApply
            | JoinOperator::OuterApply
            | JoinOperator::AsOf { .. }
            | JoinOperator::StraightJoin(_)
            | JoinOperator::ArrayJoin
            | JoinOperator::LeftArrayJoin
            | JoinOperator::InnerArrayJoin => return unknown("a join that is not PostgreSQL's"),
        };
        let mut join = Join {
            kind,
            left,
            right,
            on: None,
            using: Vec::new(),
            natural: false,
        };
        match constraint {
            JoinConstraint::On(on) => join.on = Some(self.expr(on)?),
            JoinConstraint::Using(columns) => {
                join.using = columns.into_iter().map(column).collect::<Result<_>>()?;
            }
            JoinConstraint::Natural => join.natural = true,
            JoinConstraint::None => (),
        }
        Ok(Source::Join(Box::new(join)))
    }

    pub(super) fn source(&mut self, factor: TableFactor) -> Result<Source> {
        match factor {
            TableFactor::Table { .. } => self.table(factor),
            TableFactor::Derived {
                lateral,
                subquery,
                alias,
                sample: None,
            } => {
                let (alias, columns) = match alias {
                    Some(alias) => {
                        let columns = names_of(alias.columns);
                        (Some(ident(alias.name)), columns)
                    }
                    None => (None, Vec::new()),
                };
                Ok(Source::Derived {
                    block: Box::new(self.query(*subquery)?),
                    alias,
                    columns,
                    lateral,
                })
            }
            TableFactor::Function {
                name: function,
                args,
                alias,
                ..
            } => self.function_source(name(function)?, args, alias),
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset: false,
                ..
            } => {
                let args = self.exprs(array_exprs)?;
                self.call(built_in("unnest"), args, true);
                Ok(Source::Function {
                    alias: alias.map(|alias| ident(alias.name)),
                })
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => self.joined(*table_with_joins),
            TableFactor::NestedJoin { .. } => unknown("an alias on a join in parentheses"),
            TableFactor::Derived { .. }
            | TableFactor::UNNEST { .. }
            | TableFactor::TableFunction { .. }
            | TableFactor::JsonTable { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::XmlTable { .. }
            | TableFactor::SemanticView { .. } => {
                unknown("an item of FROM that is not PostgreSQL's, or not known yet")
            }
        }
    }

    fn table(&mut self, factor: TableFactor) -> Result<Source> {
        let TableFactor::Table {
            name: table,
            alias,
            args,
            with_hints,
            version,
            partitions,
            json_path,
            sample,
            index_hints,
            ..
        } = factor
        else {
            return unknown("an item of FROM");
        };
        if !with_hints.is_empty()
            || version.is_some()
            || !partitions.is_empty()
            || json_path.is_some()
            || !index_hints.is_empty()
        {
            return unknown("a table clause that is not PostgreSQL's");
        }
        if sample.is_some() {
            self.feature(Features::SAMPLE);
        }
        if is_reserved(&table) {
            return unknown("a word of PostgreSQL's where a table should be");
        }
        let table = name(table)?;
        if let Some(args) = args {
            return self.function_source(table, args.args, alias);
        }
        Ok(Source::Table {
            name: table,
            renamed: alias
                .as_ref()
                .is_some_and(|alias| !alias.columns.is_empty()),
            alias: alias.map(|alias| ident(alias.name)),
        })
    }

    fn function_source(
        &mut self,
        name: Name,
        args: Vec<ast::FunctionArg>,
        alias: Option<ast::TableAlias>,
    ) -> Result<Source> {
        let args = self.arguments(args)?;
        let own = name.name.clone();
        self.call(name, args, true);
        Ok(Source::Function {
            alias: Some(alias.map_or(own, |alias| ident(alias.name))),
        })
    }
}

/// The names that an alias gives to columns.
pub(super) fn names_of(columns: Vec<ast::TableAliasColumnDef>) -> Vec<String> {
    columns
        .into_iter()
        .map(|column| ident(column.name))
        .collect()
}

fn built_in(name: &str) -> Name {
    Name {
        schema: None,
        name: name.to_owned(),
    }
}
