//! Function calls, their arguments and windows.

use sqlparser::ast;

use super::names::name;
use super::{Converter, Result, unknown};
use crate::sql::cursor::Name;
use crate::sql::statement::{Call, Expr, Features};

impl Converter<'_> {
    pub(super) fn function(&mut self, function: ast::Function) -> Result<Expr> {
        let name = name(function.name)?;
        if !matches!(function.parameters, ast::FunctionArguments::None) {
            return unknown("a function with two lists of arguments");
        }
        let args = match function.args {
            ast::FunctionArguments::None => Vec::new(),
            ast::FunctionArguments::Subquery(query) => {
                self.subquery(*query)?;
                Vec::new()
            }
            ast::FunctionArguments::List(list) => {
                if list.duplicate_treatment.is_some() {
                    self.feature(Features::AGGREGATE);
                }
                for clause in list.clauses {
                    self.clause(clause)?;
                }
                self.arguments(list.args)?
            }
        };
        if let Some(filter) = function.filter {
            self.feature(Features::AGGREGATE);
            self.expr(*filter)?;
        }
        if !function.within_group.is_empty() {
            self.feature(Features::AGGREGATE);
            self.order(function.within_group)?;
        }
        if let Some(window) = function.over {
            self.feature(Features::WINDOW);
            self.window(window)?;
        }
        self.call(name, args, false);
        Ok(Expr::Call)
    }

    pub(super) fn call(&mut self, name: Name, args: Vec<Expr>, in_from: bool) {
        self.inner.calls.push(Call {
            name,
            args,
            in_from,
        });
    }

    pub(super) fn arguments(&mut self, args: Vec<ast::FunctionArg>) -> Result<Vec<Expr>> {
        let mut read = Vec::with_capacity(args.len());
        for arg in args {
            let arg = match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ast::Expr::BinaryOp {
                    left,
                    op: ast::BinaryOperator::Assignment,
                    right,
                })) if matches!(*left, ast::Expr::Identifier(_)) => {
                    ast::FunctionArgExpr::Expr(*right)
                }
                ast::FunctionArg::Unnamed(arg)
                | ast::FunctionArg::Named { arg, .. }
                | ast::FunctionArg::ExprNamed {
                    name: ast::Expr::Identifier(_),
                    operator: ast::FunctionArgOperator::RightArrow,
                    arg,
                } => arg,
                ast::FunctionArg::ExprNamed { .. } => return unknown("a computed argument name"),
            };
            read.push(match arg {
                ast::FunctionArgExpr::Expr(expr) => self.expr(expr)?,
                ast::FunctionArgExpr::QualifiedWildcard(_) | ast::FunctionArgExpr::Wildcard => {
                    Expr::Other
                }
                ast::FunctionArgExpr::WildcardWithOptions(_) => return unknown("* with options"),
            });
        }
        Ok(read)
    }

    fn clause(&mut self, clause: ast::FunctionArgumentClause) -> Result<()> {
        match clause {
            ast::FunctionArgumentClause::OrderBy(order) => {
                self.feature(Features::AGGREGATE);
                self.order(order)
            }
            ast::FunctionArgumentClause::IgnoreOrRespectNulls(_)
            | ast::FunctionArgumentClause::Where(_)
            | ast::FunctionArgumentClause::Limit(_)
            | ast::FunctionArgumentClause::OnOverflow(_)
            | ast::FunctionArgumentClause::Having(_)
            | ast::FunctionArgumentClause::Separator(_)
            | ast::FunctionArgumentClause::JsonNullClause(_)
            | ast::FunctionArgumentClause::JsonReturningClause(_) => {
                unknown("a clause among a function's arguments")
            }
        }
    }

    fn window(&mut self, window: ast::WindowType) -> Result<()> {
        match window {
            ast::WindowType::NamedWindow(_) => Ok(()),
            ast::WindowType::WindowSpec(spec) => self.window_spec(spec),
        }
    }

    pub(super) fn window_spec(&mut self, spec: ast::WindowSpec) -> Result<()> {
        self.each(spec.partition_by)?;
        self.order(spec.order_by)?;
        if let Some(frame) = spec.window_frame {
            for bound in [Some(frame.start_bound), frame.end_bound]
                .into_iter()
                .flatten()
            {
                match bound {
                    ast::WindowFrameBound::CurrentRow => (),
                    ast::WindowFrameBound::Preceding(value)
                    | ast::WindowFrameBound::Following(value) => {
                        self.each(value.map(|value| *value))?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn order(&mut self, order: Vec<ast::OrderByExpr>) -> Result<()> {
        for item in order {
            if item.with_fill.is_some() {
                return unknown("WITH FILL");
            }
            self.expr(item.expr)?;
        }
        Ok(())
    }
}
