//! Queries: WITH, set operations, SELECT, VALUES, and what follows them.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's literals and clauses of other databases are refused"
)]

use sqlparser::ast::{self, SetExpr};

use super::names::{ident, name};
use super::source::names_of;
use super::{Converter, Result, unknown, with_stack};
use crate::sql::statement::{Block, Body, Cte, Features, Into, Item, Select};

impl Converter<'_> {
    pub(super) fn query(&mut self, query: ast::Query) -> Result<Block> {
        with_stack(|| self.query_here(query))
    }

    fn query_here(&mut self, query: ast::Query) -> Result<Block> {
        let ast::Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty()
        {
            return unknown("a clause that is not PostgreSQL's");
        }
        let (recursive, ctes) = self.ctes(with)?;
        let mut block = self.block(|converter| {
            let body = converter.body(*body)?;
            converter.order_by(order_by)?;
            converter.limit(limit_clause, fetch)?;
            if !locks.is_empty() {
                converter.feature(Features::LOCK);
            }
            Ok(body)
        })?;
        block.recursive = recursive;
        block.ctes = ctes;
        Ok(block)
    }

    fn ctes(&mut self, with: Option<ast::With>) -> Result<(bool, Vec<Cte>)> {
        let Some(with) = with else {
            return Ok((false, Vec::new()));
        };
        let mut ctes = Vec::with_capacity(with.cte_tables.len());
        for cte in with.cte_tables {
            if cte.from.is_some() {
                return unknown("WITH … FROM");
            }
            ctes.push(Cte {
                columns: names_of(cte.alias.columns),
                name: ident(cte.alias.name),
                block: self.query(*cte.query)?,
            });
        }
        Ok((with.recursive, ctes))
    }

    fn order_by(&mut self, order_by: Option<ast::OrderBy>) -> Result<()> {
        let Some(order_by) = order_by else {
            return Ok(());
        };
        self.feature(Features::ORDER_BY);
        match order_by.kind {
            ast::OrderByKind::Expressions(order) if order_by.interpolate.is_none() => {
                self.order(order)
            }
            ast::OrderByKind::Expressions(_) | ast::OrderByKind::All(_) => {
                unknown("an ORDER BY that is not PostgreSQL's")
            }
        }
    }

    fn limit(&mut self, limit: Option<ast::LimitClause>, fetch: Option<ast::Fetch>) -> Result<()> {
        if let Some(fetch) = fetch {
            self.feature(Features::LIMIT);
            self.each(fetch.quantity)?;
        }
        match limit {
            None => Ok(()),
            Some(ast::LimitClause::LimitOffset {
                limit,
                offset,
                limit_by,
            }) if limit_by.is_empty() => {
                self.feature(Features::LIMIT);
                self.each(limit)?;
                self.each(offset.map(|offset| offset.value))
            }
            Some(
                ast::LimitClause::LimitOffset { .. } | ast::LimitClause::OffsetCommaLimit { .. },
            ) => unknown("a LIMIT that is not PostgreSQL's"),
        }
    }

    fn body(&mut self, body: SetExpr) -> Result<Body> {
        match body {
            SetExpr::Select(select) => self.select(*select),
            SetExpr::Query(query) => Ok(Body::Nested(Box::new(self.query(*query)?))),
            SetExpr::SetOperation { .. } => self.set_operation(body),
            SetExpr::Values(values) => {
                if values.explicit_row || values.value_keyword {
                    return unknown("a VALUES that is not PostgreSQL's");
                }
                let mut rows = Vec::with_capacity(values.rows.len());
                for row in values.rows {
                    rows.push(self.exprs(row.content)?);
                }
                Ok(Body::Values(rows))
            }
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => self.write(statement),
            SetExpr::Table(_) => unknown("TABLE"),
        }
    }

    /// The branches of a chain of set operations, its left side walked in a loop.
    fn set_operation(&mut self, body: SetExpr) -> Result<Body> {
        let mut branches = Vec::new();
        let mut node = body;
        loop {
            match node {
                SetExpr::SetOperation { left, right, .. } => {
                    branches.push(self.block(|converter| converter.body(*right))?);
                    node = *left;
                }
                other => {
                    branches.push(self.block(|converter| converter.body(other))?);
                    branches.reverse();
                    return Ok(Body::Set(branches));
                }
            }
        }
    }

    fn select(&mut self, select: ast::Select) -> Result<Body> {
        if is_foreign(&select) {
            return unknown("a clause of SELECT that is not PostgreSQL's");
        }
        match select.distinct {
            None | Some(ast::Distinct::All) => (),
            Some(ast::Distinct::Distinct) => self.feature(Features::DISTINCT),
            Some(ast::Distinct::On(on)) => {
                self.feature(Features::DISTINCT);
                self.each(on)?;
            }
        }
        let projection = self.projection(select.projection)?;
        let from = self.sources(select.from)?;
        let filter = select
            .selection
            .map(|filter| self.expr(filter))
            .transpose()?;
        match select.group_by {
            ast::GroupByExpr::Expressions(group, modifiers) => {
                if !modifiers.is_empty() {
                    return unknown("a GROUP BY that is not PostgreSQL's");
                }
                if !group.is_empty() {
                    self.feature(Features::GROUP_BY);
                    self.each(group)?;
                }
            }
            ast::GroupByExpr::All(_) => return unknown("GROUP BY ALL"),
        }
        if let Some(having) = select.having {
            self.feature(Features::HAVING);
            self.expr(having)?;
        }
        for window in select.named_window {
            self.feature(Features::WINDOW);
            match window.1 {
                ast::NamedWindowExpr::NamedWindow(_) => return unknown("a window named twice"),
                ast::NamedWindowExpr::WindowSpec(spec) => self.window_spec(spec)?,
            }
        }
        let into = select.into.map(|into| {
            if into.temporary {
                Into::Temporary
            } else {
                Into::Table
            }
        });
        Ok(Body::Select(Box::new(Select {
            projection,
            from,
            filter,
            into,
        })))
    }

    pub(super) fn projection(&mut self, items: Vec<ast::SelectItem>) -> Result<Vec<Item>> {
        let mut projection = Vec::with_capacity(items.len());
        for item in items {
            projection.push(match item {
                ast::SelectItem::UnnamedExpr(expr) => Item::Expr {
                    expr: self.expr(expr)?,
                    alias: None,
                },
                ast::SelectItem::ExprWithAlias { expr, alias } => Item::Expr {
                    expr: self.expr(expr)?,
                    alias: Some(ident(alias)),
                },
                ast::SelectItem::Wildcard(options) if is_plain(&options) => Item::Star(None),
                ast::SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::ObjectName(table),
                    options,
                ) if is_plain(&options) => Item::Star(Some(name(table)?.name)),
                ast::SelectItem::QualifiedWildcard(
                    ast::SelectItemQualifiedWildcardKind::Expr(expr),
                    options,
                ) if is_plain(&options) => {
                    self.expr(expr)?;
                    // Of a value's fields, which have names of their own.
                    Item::Star(Some(String::new()))
                }
                ast::SelectItem::ExprWithAliases { .. }
                | ast::SelectItem::Wildcard(_)
                | ast::SelectItem::QualifiedWildcard(..) => {
                    return unknown("a target that is not PostgreSQL's");
                }
            });
        }
        Ok(projection)
    }
}

fn is_plain(options: &ast::WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

fn is_foreign(select: &ast::Select) -> bool {
    select.select_modifiers.is_some()
        || select.top.is_some()
        || select.exclude.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.qualify.is_some()
        || select.value_table_mode.is_some()
        || !matches!(select.flavor, ast::SelectFlavor::Standard)
}
