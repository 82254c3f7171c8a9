//! Expressions that say nothing about keys, read for the calls and subqueries they hold.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's nodes are handed on, and the last of these functions refuses the rest"
)]

use sqlparser::ast::{self, Expr as Node};

use super::{Converter, Result, unknown};
use crate::sql::statement::Features;

impl Converter<'_> {
    /// Expressions that say nothing about keys, read for what they hold.
    pub(super) fn opaque(&mut self, node: Node) -> Result<()> {
        match node {
            Node::Exists { subquery, .. } => self.subquery(*subquery).map(|_index| ()),
            Node::AllOp {
                left,
                compare_op,
                right,
            } => {
                self.operator(&compare_op)?;
                self.each([*left, *right])
            }
            Node::IsDistinctFrom(left, right) => self.each([*left, *right]),
            Node::Like {
                expr,
                pattern,
                escape_char,
                ..
            }
            | Node::ILike {
                expr,
                pattern,
                escape_char,
                ..
            }
            | Node::SimilarTo {
                expr,
                pattern,
                escape_char,
                ..
            } => {
                self.each([*expr, *pattern])?;
                self.each(escape_char.map(|escape| *escape))
            }
            Node::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                self.each(operand.map(|operand| *operand))?;
                for when in conditions {
                    self.each([when.condition, when.result])?;
                }
                self.each(else_result.map(|result| *result))
            }
            Node::CompoundFieldAccess { root, access_chain } => {
                self.expr(*root)?;
                access_chain
                    .into_iter()
                    .try_for_each(|access| self.access(access))
            }
            other => self.special(other),
        }
    }

    fn access(&mut self, access: ast::AccessExpr) -> Result<()> {
        match access {
            ast::AccessExpr::Dot(expr) => self.each([expr]),
            ast::AccessExpr::Subscript(ast::Subscript::Index { index }) => {
                if !matches!(
                    index,
                    Node::Value(_) | Node::Identifier(_) | Node::CompoundIdentifier(_)
                ) {
                    self.feature(Features::TEST);
                }
                self.each([index])
            }
            ast::AccessExpr::Subscript(ast::Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => self.each([lower_bound, upper_bound, stride].into_iter().flatten()),
        }
    }

    /// SQL's functions with a syntax of their own, all of them plain and immutable or stable.
    fn special(&mut self, node: Node) -> Result<()> {
        match node {
            Node::AtTimeZone {
                timestamp,
                time_zone,
            } => self.each([*timestamp, *time_zone]),
            Node::Extract { expr, .. }
            | Node::Ceil { expr, .. }
            | Node::Floor { expr, .. }
            | Node::IsNormalized { expr, .. }
            | Node::IsJson { expr, .. } => self.each([*expr]),
            Node::Position { expr, r#in } => self.each([*expr, *r#in]),
            Node::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                self.expr(*expr)?;
                self.each(
                    [substring_from, substring_for]
                        .into_iter()
                        .flatten()
                        .map(|e| *e),
                )
            }
            Node::Trim {
                trim_what,
                expr,
                trim_characters,
                ..
            } => {
                self.expr(*expr)?;
                self.each(trim_what.map(|what| *what))?;
                self.each(trim_characters.into_iter().flatten())
            }
            Node::Overlay {
                expr,
                overlay_what,
                overlay_from,
                overlay_for,
            } => {
                self.each([*expr, *overlay_what, *overlay_from])?;
                self.each(overlay_for.map(|length| *length))
            }
            Node::Interval(interval) => self.each([*interval.value]),
            Node::GroupingSets(sets) | Node::Cube(sets) | Node::Rollup(sets) => {
                self.feature(Features::GROUP_BY);
                self.each(sets.into_iter().flatten())
            }
            Node::Wildcard(_) | Node::QualifiedWildcard(..) => Ok(()),
            _ => unknown("an expression that is not PostgreSQL's, or not known yet"),
        }
    }
}
