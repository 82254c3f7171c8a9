//! Expressions: conjunctions and equalities are kept, calls and subqueries collected.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's nodes and operators of other kinds are handed on or say nothing of keys"
)]

use sqlparser::ast::{self, BinaryOperator, Expr as Node, UnaryOperator};

use super::names::{family, ident, is_plain_type};
use super::{Converter, Result, unknown, with_stack};
use crate::sql::statement::{Arithmetic, Expr, Family, Features, Order, Value};
use crate::sql::tokens::constant;

impl Converter<'_> {
    /// Reads an expression and all it holds.
    pub(super) fn expr(&mut self, node: Node) -> Result<Expr> {
        with_stack(|| self.expr_here(node))
    }

    fn expr_here(&mut self, node: Node) -> Result<Expr> {
        let mut node = node;
        let mut opaque = false;
        let mut cast: Option<Family> = None;
        // Of the casts to types that are looked up: whether one was passed, and whether its operand is
        // wrapped once more.
        let mut looked_up = false;
        let mut wrapped = false;
        // Wrappers of one expression, peeled in a loop: a chain of them may be long.
        loop {
            wrapped |= looked_up && is_wrapper(&node);
            let is_bare = !opaque && !looked_up && cast.is_none();
            node = match node {
                Node::Nested(inner) => *inner,
                Node::UnaryOp {
                    op: UnaryOperator::Not,
                    expr,
                } if is_bare => return self.expr_negated(*expr),
                Node::IsTrue(inner) if is_bare && !is_stored(&inner) => {
                    self.feature(Features::TEST);
                    return Ok(Expr::Or(vec![self.expr(*inner)?]));
                }
                Node::IsFalse(inner) if is_bare && !is_stored(&inner) => {
                    self.feature(Features::TEST);
                    return Ok(Expr::Or(vec![self.expr_negated(*inner)?]));
                }
                Node::Cast {
                    expr,
                    data_type,
                    format: None,
                    ..
                } => {
                    opaque |= cast.is_some();
                    cast = Some(family(&data_type));
                    self.data_type(&data_type);
                    looked_up |= !is_plain_type(&data_type);
                    *expr
                }
                Node::IsFalse(inner)
                | Node::IsNotFalse(inner)
                | Node::IsTrue(inner)
                | Node::IsNotTrue(inner)
                | Node::IsNull(inner)
                | Node::IsNotNull(inner)
                | Node::IsUnknown(inner)
                | Node::IsNotUnknown(inner) => {
                    if !is_stored(&inner) {
                        self.feature(Features::TEST);
                    }
                    opaque = true;
                    *inner
                }
                Node::Collate { expr, .. } => {
                    opaque = true;
                    *expr
                }
                Node::UnaryOp { op, expr } => match (op, signed(&expr)) {
                    (UnaryOperator::Minus, true) if !opaque && cast.is_none() => {
                        return Ok(negative(self.expr(*expr)?));
                    }
                    (UnaryOperator::Minus, true) if !opaque => {
                        let value = negative(self.expr(*expr)?);
                        return Ok(wrap(value, cast));
                    }
                    (op, _) => {
                        self.unary(op)?;
                        opaque = true;
                        *expr
                    }
                },
                other => {
                    let read = self.node(other)?;
                    if looked_up {
                        let operand = if wrapped { Expr::Other } else { read.clone() };
                        self.inner.casts.push(operand);
                    }
                    return Ok(if opaque {
                        Expr::Other
                    } else {
                        wrap(read, cast)
                    });
                }
            };
        }
    }

    /// Reads what stands under NOT, as what is true in the same rows. The server turns operators round alike
    /// (`negate_clause` in `prepqual.c`).
    fn negated(&mut self, node: Node) -> Result<Expr> {
        let mut node = node;
        while let Node::Nested(inner) = node {
            node = *inner;
        }
        match node {
            Node::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => self.expr(*expr),
            Node::BinaryOp { left, op, right } => match op {
                BinaryOperator::And | BinaryOperator::Or => {
                    let operands = flatten(*left, &op, *right);
                    let operands = operands.into_iter().map(|node| self.expr_negated(node));
                    let operands = operands.collect::<Result<_>>()?;
                    Ok(if op == BinaryOperator::And {
                        Expr::Or(operands)
                    } else {
                        Expr::And(operands)
                    })
                }
                op => {
                    let opposite = opposite(&op);
                    let is_known = opposite.is_some();
                    let read = self.binary(*left, opposite.unwrap_or(op), *right)?;
                    Ok(if is_known { read } else { Expr::Other })
                }
            },
            Node::InList {
                expr,
                list,
                negated: true,
            } => self.node(Node::InList {
                expr,
                list,
                negated: false,
            }),
            Node::Between {
                expr,
                negated: true,
                low,
                high,
            } => self.node(Node::Between {
                expr,
                negated: false,
                low,
                high,
            }),
            Node::IsDistinctFrom(left, right) => self.node(Node::IsNotDistinctFrom(left, right)),
            other => Ok(match self.expr(other)? {
                Expr::Boolean(value) => Expr::Boolean(!value),
                _ => Expr::Other,
            }),
        }
    }

    fn expr_negated(&mut self, node: Node) -> Result<Expr> {
        with_stack(|| self.negated(node))
    }

    fn unary(&mut self, op: UnaryOperator) -> Result<()> {
        match op {
            UnaryOperator::Plus
            | UnaryOperator::Minus
            | UnaryOperator::Not
            | UnaryOperator::BitwiseNot
            | UnaryOperator::PGAbs
            | UnaryOperator::PGCubeRoot
            | UnaryOperator::PGSquareRoot => Ok(()),
            UnaryOperator::AtDashAt
            | UnaryOperator::DoubleAt
            | UnaryOperator::Hash
            | UnaryOperator::PGPostfixFactorial
            | UnaryOperator::PGPrefixFactorial
            | UnaryOperator::QuestionDash
            | UnaryOperator::QuestionPipe => {
                self.feature(Features::OPERATOR);
                Ok(())
            }
            UnaryOperator::BangNot => unknown("the operator !"),
        }
    }

    fn node(&mut self, node: Node) -> Result<Expr> {
        match node {
            Node::Identifier(name) => Ok(identifier(name)),
            Node::CompoundIdentifier(names) => {
                Ok(Expr::Column(names.into_iter().map(ident).collect()))
            }
            Node::Value(value) => self.value(value.value),
            Node::TypedString(typed) => {
                let family = family(&typed.data_type);
                self.data_type(&typed.data_type);
                Ok(wrap(self.value(typed.value.value)?, Some(family)))
            }
            Node::BinaryOp { left, op, right } => self.binary(*left, op, *right),
            Node::InList {
                expr,
                list,
                negated,
            } => {
                let read = self.expr(*expr)?;
                let list = self.exprs(list)?;
                Ok(if negated {
                    Expr::Other
                } else {
                    Expr::In(Box::new(read), list)
                })
            }
            Node::AnyOp {
                left,
                compare_op,
                right,
                ..
            } => {
                self.operator(&compare_op)?;
                let (left, right) = (self.expr(*left)?, self.expr(*right)?);
                Ok(if compare_op == BinaryOperator::Eq {
                    Expr::Any(Box::new(left), Box::new(right))
                } else {
                    Expr::Other
                })
            }
            Node::InSubquery {
                expr,
                subquery,
                negated,
            } => {
                let read = self.expr(*expr)?;
                let index = self.subquery(*subquery)?;
                Ok(if negated {
                    Expr::Other
                } else {
                    Expr::InSubquery(Box::new(read), index)
                })
            }
            Node::Subquery(subquery) => Ok(Expr::Subquery(self.subquery(*subquery)?)),
            Node::IsNotDistinctFrom(left, right) => Ok(Expr::Same(
                Box::new(self.expr(*left)?),
                Box::new(self.expr(*right)?),
            )),
            Node::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let (low, symmetric) = match *low {
                    Node::UnaryOp {
                        op: SYMMETRIC,
                        expr,
                    } => (*expr, true),
                    low => (low, false),
                };
                let (read, low, high) = (self.expr(*expr)?, self.expr(low)?, self.expr(*high)?);
                // What stands twice is kept only where it is small: it may nest.
                let is_small = is_flat(&read) && (!symmetric || is_flat(&low) && is_flat(&high));
                Ok(if negated || !is_small {
                    Expr::Other
                } else if symmetric {
                    let one = between(read.clone(), low.clone(), high.clone());
                    Expr::Or(vec![one, between(read, high, low)])
                } else {
                    between(read, low, high)
                })
            }
            Node::Tuple(items) => Ok(Expr::Row(self.exprs(items)?)),
            Node::Array(array) => Ok(Expr::Array(self.exprs(array.elem)?)),
            Node::Function(function) => self.function(function),
            other => {
                self.opaque(other)?;
                Ok(Expr::Other)
            }
        }
    }

    pub(super) fn exprs(&mut self, nodes: Vec<Node>) -> Result<Vec<Expr>> {
        nodes.into_iter().map(|node| self.expr(node)).collect()
    }

    /// Reads expressions only for what they hold.
    pub(super) fn each(&mut self, nodes: impl IntoIterator<Item = Node>) -> Result<()> {
        for node in nodes {
            self.expr(node)?;
        }
        Ok(())
    }

    fn binary(&mut self, left: Node, op: BinaryOperator, right: Node) -> Result<Expr> {
        match op {
            BinaryOperator::And | BinaryOperator::Or => {
                let operands = self.exprs(flatten(left, &op, right))?;
                Ok(if op == BinaryOperator::And {
                    Expr::And(operands)
                } else {
                    Expr::Or(operands)
                })
            }
            BinaryOperator::Eq if !matches!(left, Node::BinaryOp { .. }) => Ok(Expr::Equal(
                Box::new(self.expr(left)?),
                Box::new(self.expr(right)?),
            )),
            op => {
                if let (Some(order), false) = (order(&op), matches!(left, Node::BinaryOp { .. })) {
                    let (left, right) = (self.expr(left)?, self.expr(right)?);
                    return Ok(Expr::Compare(order, Box::new(left), Box::new(right)));
                }
                if let Some(operator) = arithmetic(&op) {
                    return self.computed(left, operator, right);
                }
                self.operator(&op)?;
                self.expr(right)?;
                self.chain(left)?;
                Ok(Expr::Other)
            }
        }
    }

    /// A chain of additions, subtractions and multiplications, its left side walked in a loop.
    fn computed(&mut self, left: Node, operator: Arithmetic, right: Node) -> Result<Expr> {
        let mut rest = vec![(operator, self.expr(right)?)];
        let mut node = left;
        loop {
            match node {
                Node::BinaryOp { left, op, right } if arithmetic(&op).is_some() => {
                    if let Some(operator) = arithmetic(&op) {
                        rest.push((operator, self.expr(*right)?));
                    }
                    node = *left;
                }
                Node::BinaryOp { .. } => {
                    self.chain(node)?;
                    return Ok(Expr::Other);
                }
                first => {
                    let first = Box::new(self.expr(first)?);
                    rest.reverse();
                    let constant = |expr: &Expr| {
                        matches!(expr, Expr::Value(_) | Expr::Cast(..) | Expr::Computed(..))
                    };
                    let is_constant =
                        constant(&first) && rest.iter().all(|(_, expr)| constant(expr));
                    return Ok(if is_constant {
                        Expr::Computed(first, rest)
                    } else {
                        Expr::Other
                    });
                }
            }
        }
    }

    /// The left side of operators that are no logic.
    fn chain(&mut self, node: Node) -> Result<()> {
        let mut node = node;
        loop {
            match node {
                Node::BinaryOp { left, op, right }
                    if !matches!(op, BinaryOperator::And | BinaryOperator::Or) =>
                {
                    self.operator(&op)?;
                    self.expr(*right)?;
                    node = *left;
                }
                other => {
                    self.expr(other)?;
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn operator(&mut self, op: &BinaryOperator) -> Result<()> {
        match op {
            BinaryOperator::Xor
            | BinaryOperator::DuckIntegerDivide
            | BinaryOperator::MyIntegerDivide
            | BinaryOperator::Match
            | BinaryOperator::Regexp
            | BinaryOperator::Glob
            | BinaryOperator::Assignment
            | BinaryOperator::Spaceship => return unknown("an operator that is not PostgreSQL's"),
            BinaryOperator::Custom(_) | BinaryOperator::PGCustomBinaryOperator(_) => {
                self.feature(Features::OPERATOR);
            }
            _ => (),
        }
        Ok(())
    }

    fn value(&mut self, value: ast::Value) -> Result<Expr> {
        use ast::Value as V;
        Ok(match value {
            V::Number(reference, _) => {
                self.reference(reference.trim_end_matches('.'), reference.ends_with('.'))
            }
            V::SingleQuotedString(reference) => self.reference(&reference, false),
            V::Placeholder(name) => match parameter(&name) {
                Some(index) => Expr::Value(Value::Parameter(index)),
                None => return unknown("a parameter that is not $1 to $65535"),
            },
            V::Null => Expr::Value(Value::Null),
            V::Boolean(value) => Expr::Boolean(value),
            V::HexStringLiteral(_) | V::NationalStringLiteral(_) | V::UnicodeStringLiteral(_) => {
                Expr::Other
            }
            _ => return unknown("a constant that is not PostgreSQL's"),
        })
    }

    fn reference(&self, reference: &str, decimal: bool) -> Expr {
        if let Ok(index) = reference.parse() {
            return Expr::Value(Value::Literal {
                index,
                negative: false,
                decimal,
            });
        }
        match constant(reference, self.text) {
            Some(text) if !decimal => Expr::Value(Value::Text(text)),
            Some(_) | None => Expr::Other,
        }
    }

    /// Reads a subquery; its index among those of the level.
    pub(super) fn subquery(&mut self, query: ast::Query) -> Result<usize> {
        let block = self.query(query)?;
        self.inner.subqueries.push(block);
        Ok(self.inner.subqueries.len() - 1)
    }
}

/// What [`crate::sql::tokens`] puts for SYMMETRIC.
const SYMMETRIC: UnaryOperator = UnaryOperator::Not;

fn between(read: Expr, low: Expr, high: Expr) -> Expr {
    let (from, to) = (Box::new(read.clone()), Box::new(read));
    Expr::And(vec![
        Expr::Compare(Order::GreaterOrEqual, from, Box::new(low)),
        Expr::Compare(Order::LessOrEqual, to, Box::new(high)),
    ])
}

/// The operator that is true where this one is false.
fn opposite(op: &BinaryOperator) -> Option<BinaryOperator> {
    match op {
        BinaryOperator::NotEq => Some(BinaryOperator::Eq),
        BinaryOperator::Lt => Some(BinaryOperator::GtEq),
        BinaryOperator::LtEq => Some(BinaryOperator::Gt),
        BinaryOperator::Gt => Some(BinaryOperator::LtEq),
        BinaryOperator::GtEq => Some(BinaryOperator::Lt),
        _ => None,
    }
}

/// Whether an expression is a column or a constant, or a row of such.
fn is_flat(expr: &Expr) -> bool {
    let is_one = |expr: &Expr| match expr {
        Expr::Cast(inner, _) => matches!(**inner, Expr::Column(_) | Expr::Value(_)),
        _ => matches!(expr, Expr::Column(_) | Expr::Value(_)),
    };
    match expr {
        Expr::Row(items) => items.iter().all(is_one),
        _ => is_one(expr),
    }
}

fn order(op: &BinaryOperator) -> Option<Order> {
    match op {
        BinaryOperator::Lt => Some(Order::Less),
        BinaryOperator::LtEq => Some(Order::LessOrEqual),
        BinaryOperator::Gt => Some(Order::Greater),
        BinaryOperator::GtEq => Some(Order::GreaterOrEqual),
        _ => None,
    }
}

fn arithmetic(op: &BinaryOperator) -> Option<Arithmetic> {
    match op {
        BinaryOperator::Plus => Some(Arithmetic::Add),
        BinaryOperator::Minus => Some(Arithmetic::Subtract),
        BinaryOperator::Multiply => Some(Arithmetic::Multiply),
        _ => None,
    }
}

/// Whether a value is as the row has it, or a member of it, which no row can make fail.
fn is_stored(node: &Node) -> bool {
    let mut node = node;
    loop {
        node = match node {
            Node::Nested(inner) => inner,
            Node::BinaryOp {
                left,
                op:
                    BinaryOperator::Arrow
                    | BinaryOperator::LongArrow
                    | BinaryOperator::HashArrow
                    | BinaryOperator::HashLongArrow,
                right,
            } if matches!(**right, Node::Value(_)) => left,
            other => {
                return matches!(
                    other,
                    Node::Identifier(_) | Node::CompoundIdentifier(_) | Node::Value(_)
                );
            }
        };
    }
}

/// Whether what is within is worked out further here, rather than only put in parentheses.
fn is_wrapper(node: &Node) -> bool {
    matches!(
        node,
        Node::Cast { .. }
            | Node::IsFalse(_)
            | Node::IsNotFalse(_)
            | Node::IsTrue(_)
            | Node::IsNotTrue(_)
            | Node::IsNull(_)
            | Node::IsNotNull(_)
            | Node::IsUnknown(_)
            | Node::IsNotUnknown(_)
            | Node::Collate { .. }
            | Node::UnaryOp { .. }
    )
}

fn identifier(name: ast::Ident) -> Expr {
    if name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default") {
        return Expr::Default;
    }
    Expr::Column(vec![ident(name)])
}

/// The operands of a chain of one operator, its left side walked in a loop.
fn flatten(left: Node, op: &BinaryOperator, right: Node) -> Vec<Node> {
    let mut operands = vec![right];
    let mut node = left;
    loop {
        match node {
            Node::BinaryOp {
                left,
                op: same,
                right,
            } if same == *op => {
                operands.push(*right);
                node = *left;
            }
            other => {
                operands.push(other);
                operands.reverse();
                return operands;
            }
        }
    }
}

/// Whether a minus before it makes a negative constant: a number, or a number with a cast.
fn signed(node: &Node) -> bool {
    let node = match node {
        Node::Cast { expr, .. } => expr,
        other => other,
    };
    matches!(node, Node::Value(value) if matches!(value.value, ast::Value::Number(..)))
}

fn negative(expr: Expr) -> Expr {
    match expr {
        Expr::Value(Value::Literal {
            index,
            negative,
            decimal,
        }) => Expr::Value(Value::Literal {
            index,
            negative: !negative,
            decimal,
        }),
        Expr::Cast(inner, family) => wrap(negative(*inner), Some(family)),
        _ => Expr::Other,
    }
}

fn wrap(expr: Expr, cast: Option<Family>) -> Expr {
    match (cast, expr) {
        (None, expr) => expr,
        (
            Some(family),
            expr @ (Expr::Value(_) | Expr::Column(_) | Expr::Array(_) | Expr::Computed(..)),
        ) => Expr::Cast(Box::new(expr), family),
        (Some(_), _) => Expr::Other,
    }
}

fn parameter(name: &str) -> Option<u16> {
    let number: u16 = name.strip_prefix('$')?.parse().ok()?;
    number.checked_sub(1)
}
