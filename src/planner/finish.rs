//! How the answers of several shards become one: what is merged by which keys, cut off, or totalled.
//!
//! Names are looked up as PostgreSQL does (`findTargetlistEntrySQL92`): in ORDER BY a bare name is a column
//! of the answer first, then one of the tables; in an expression it is one of the tables.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::Fault;
use crate::merge::value::Kind;
use crate::merge::{By, Finish, Hidden, OrderKey, Total, TotalKind};
use crate::placement::catalog::{self, Collation};
use crate::planner::calls;
use crate::planner::context::Context;
use crate::planner::sources::Sources;
use crate::planner::survey::Survey;
use crate::sql::cursor::Cursor;
use crate::sql::quote::quote_ident;
use crate::sql::statement::{Block, Expr, Features, Item, Select};
use crate::sql::tail::{self, Called, Form, SortKey, Tail};
use crate::types::oid;

/// What is in the way.
type Clause = Cow<'static, str>;

/// How a SELECT's answers are put together, whose other clauses need nothing; and whether the values of its
/// literals were looked at. `whole`: each of its groups is on one shard.
pub(super) fn of(
    survey: &Survey<'_>,
    block: &Block,
    select: &Select,
    cursor: &Cursor<'_>,
    whole: bool,
) -> Result<(Finish, bool), Clause> {
    let features = block.inner.features;
    let sorted = features.has(Features::ORDER_BY);
    let is_limited = features.has(Features::LIMIT);
    let strange = survey
        .calls
        .iter()
        .filter(|call| !whole && !calls::is_plain(survey.context, &call.name));
    let strange: Vec<_> = strange.collect();
    let may_total = strange
        .first()
        .is_some_and(|call| TotalKind::named(&call.name.name).is_some());
    if !sorted && !is_limited && !may_total {
        return match strange.first() {
            Some(call) => Err(format!("a call of {}", call.name).into()),
            None => Ok((Finish::default(), false)),
        };
    }
    let scope = Sources::of(survey.context, select);
    let tail = Tail::find(cursor.tokens(), cursor.text());
    if let Some(call) = strange.first() {
        let totals = tail
            .filter(|_| !sorted && may_total)
            .and_then(|tail| totals(survey.context, &scope, &tail, cursor))
            .filter(|totals| totals.len() == strange.len())
            .ok_or_else(|| {
                if features.has(Features::AGGREGATE) {
                    Clause::from("an aggregate")
                } else {
                    format!("a call of {}", call.name).into()
                }
            })?;
        let finish = Finish {
            is_limited,
            totals,
            ..Finish::default()
        };
        return Ok((finish, false));
    }
    let Some(tail) = tail else {
        let clause = if is_limited {
            "LIMIT or OFFSET"
        } else {
            "ORDER BY"
        };
        return Err(clause.into());
    };
    let outputs = Outputs::of(&scope, select);
    if tail.keys.iter().any(|key| outputs.lack(key)) {
        return Ok((unordered(&tail, is_limited), true));
    }
    let order: Option<Vec<OrderKey>> = tail
        .keys
        .iter()
        .map(|key| order_key(&scope, &outputs, key))
        .collect();
    let exact = tail
        .keys
        .iter()
        .any(|key| matches!(key.form, Form::Ordinal(_)));
    let finish = Finish {
        order: order.ok_or("ORDER BY")?,
        is_limited,
        ..Finish::default()
    };
    Ok((finish, exact))
}

/// Of a statement that each shard refuses, as it is: a key is none of its columns.
fn unordered(tail: &Tail, is_limited: bool) -> Finish {
    let key = |key: &SortKey| OrderKey {
        by: By::Position(0),
        descending: key.descending,
        nulls_first: key.nulls_first,
        collation: Collation::Other,
    };
    Finish {
        order: tail.keys.iter().map(key).collect(),
        is_limited,
        ..Finish::default()
    }
}

/// The same with what to answer where it cannot be done after all.
pub(super) fn or_else(finish: Finish, otherwise: impl FnOnce(&str) -> Fault) -> Arc<Finish> {
    let clause = if finish.totals.is_empty() {
        "ORDER BY"
    } else {
        "an aggregate"
    };
    let otherwise = (!finish.is_plain()).then(|| Arc::new(otherwise(clause)));
    Arc::new(Finish {
        otherwise,
        ..finish
    })
}

/// What is known of a column.
#[derive(Clone, Copy, Debug)]
struct Known {
    is_float: bool,
    collation: Collation,
    /// Its values have no order that is known here.
    is_strange: bool,
}

const UNKNOWN: Known = Known {
    is_float: false,
    collation: Collation::Other,
    is_strange: false,
};

impl Known {
    fn of(column: &catalog::Column) -> Known {
        Known {
            is_float: matches!(column.oid, oid::FLOAT4 | oid::FLOAT8),
            collation: column.collation,
            is_strange: (1..oid::FIRST_USER).contains(&column.oid)
                && Kind::of(column.oid, column.collation).is_none(),
        }
    }

    /// What is known of a column that is one of two.
    fn or(self, other: Known) -> Known {
        let collation = match (self.collation, other.collation) {
            (Collation::Other, _) | (_, Collation::Other) => Collation::Other,
            (Collation::Database, _) | (_, Collation::Database) => Collation::Database,
            (Collation::Bytes, Collation::Bytes) => Collation::Bytes,
        };
        Known {
            is_float: self.is_float || other.is_float,
            collation,
            is_strange: self.is_strange || other.is_strange,
        }
    }
}

impl Sources<'_> {
    /// What is known of a column by its name, `None` where no known table has it.
    fn column(&self, parts: &[String]) -> Option<Known> {
        let (name, table) = match parts {
            [name] => (name, None),
            [.., table, name] => (name, Some(table)),
            [] => return None,
        };
        let tables = self
            .tables
            .iter()
            .filter(|(alias, _)| table.is_none_or(|table| table == alias));
        let columns = tables.flat_map(|(_, table)| &table.columns);
        columns
            .filter(|column| column.name == *name)
            .map(Known::of)
            .reduce(Known::or)
    }

    /// The same of a column that may be one of another source.
    fn known(&self, parts: &[String]) -> Known {
        match self.column(parts) {
            Some(known) if self.is_whole || parts.len() > 1 => known,
            Some(known) => Known {
                collation: Collation::Other,
                ..known
            },
            None => UNKNOWN,
        }
    }
}

/// The columns of the answer.
struct Outputs {
    columns: Vec<Output>,
    /// How many of the first ones are surely in their places.
    settled: usize,
}

struct Output {
    /// `None` where it is not known.
    name: Option<String>,
    /// Its name in the tables, if it is one of their columns.
    parts: Vec<String>,
    known: Known,
}

impl Outputs {
    fn of(scope: &Sources<'_>, select: &Select) -> Outputs {
        let mut columns = Vec::new();
        let mut settled = None;
        for item in &select.projection {
            match item {
                Item::Expr { expr, alias } => {
                    let parts = match expr {
                        Expr::Column(parts) => parts.clone(),
                        Expr::Value(_)
                        | Expr::Cast(..)
                        | Expr::Row(_)
                        | Expr::Array(_)
                        | Expr::And(_)
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
                        | Expr::Other => Vec::new(),
                    };
                    columns.push(Output {
                        name: alias.clone().or_else(|| parts.last().cloned()),
                        known: scope.known(&parts),
                        parts,
                    });
                }
                Item::Star(of) => {
                    let is_table = |of: &String| scope.tables.iter().any(|(alias, _)| alias == of);
                    let is_known =
                        scope.is_whole && scope.is_apart && of.as_ref().is_none_or(is_table);
                    let tables = scope
                        .tables
                        .iter()
                        .filter(|(alias, _)| of.as_ref().is_none_or(|of| of == alias));
                    let before = columns.len();
                    for (alias, table) in tables {
                        columns.extend(table.columns.iter().map(|column| Output {
                            name: Some(column.name.clone()),
                            parts: vec![alias.clone(), column.name.clone()],
                            known: Known::of(column),
                        }));
                    }
                    if !is_known {
                        settled.get_or_insert(before);
                        columns.push(Output {
                            name: None,
                            parts: Vec::new(),
                            known: UNKNOWN,
                        });
                    }
                }
            }
        }
        Outputs {
            settled: settled.unwrap_or(columns.len()),
            columns,
        }
    }

    /// Whether a key is a place behind the last column.
    fn lack(&self, key: &SortKey) -> bool {
        let count = self.columns.len();
        matches!(key.form, Form::Ordinal(place) if place > count || place == 0)
            && self.settled == count
    }

    /// The first column of a name.
    fn named(&self, name: &str) -> Option<&Output> {
        let mut columns = self.columns.iter();
        columns.find(|column| column.name.as_deref() == Some(name))
    }

    /// Whether a column may have a name that is not known here.
    fn may_have_others(&self) -> bool {
        self.columns.iter().any(|column| column.name.is_none())
    }
}

/// `None` where the key's values are not found.
fn order_key(scope: &Sources<'_>, outputs: &Outputs, key: &SortKey) -> Option<OrderKey> {
    let (by, known) = match &key.form {
        Form::Constant | Form::Other(tail::Collation::Other) => return None,
        Form::Ordinal(place) => {
            let at = place.checked_sub(1)?;
            let settled = outputs.columns.get(at).filter(|_| at < outputs.settled);
            of_output(settled, By::Position(at))
        }
        Form::Column(parts) => {
            if let [name] = parts.as_slice() {
                by_name(scope, outputs, name)?
            } else {
                let settled = outputs.columns.iter().take(outputs.settled);
                match settled.enumerate().find(|(_, one)| one.parts == *parts) {
                    Some((at, output)) => of_output(Some(output), By::Position(at)),
                    None => hidden(scope.known(parts), None),
                }
            }
        }
        Form::Other(collation) => {
            let known = Known {
                collation: match collation {
                    tail::Collation::Bytes => Collation::Bytes,
                    tail::Collation::Implied | tail::Collation::Other => Collation::Other,
                },
                ..UNKNOWN
            };
            hidden(known, None)
        }
    };
    (!known.is_strange).then_some(OrderKey {
        by,
        descending: key.descending,
        nulls_first: key.nulls_first,
        collation: known.collation,
    })
}

/// A bare name.
fn by_name(scope: &Sources<'_>, outputs: &Outputs, name: &str) -> Option<(By, Known)> {
    if let Some(output) = outputs.named(name) {
        return Some(of_output(Some(output), By::Name(name.to_owned())));
    }
    let others = outputs.may_have_others();
    let parts = [name.to_owned()];
    match scope.column(&parts) {
        Some(_) => {
            let known = scope.known(&parts);
            let unless = others.then(|| name.to_owned());
            // Of a column that is not known nothing may be said.
            let known = if others {
                Known {
                    collation: Collation::Other,
                    ..known
                }
            } else {
                known
            };
            Some(hidden(known, unless))
        }
        // A column of the answer, or none at all.
        None if scope.is_whole => Some((By::Name(name.to_owned()), UNKNOWN)),
        None if others => None,
        None => Some(hidden(UNKNOWN, None)),
    }
}

/// The key is a column of the answer, unless that is a floating-point number.
fn of_output(output: Option<&Output>, by: By) -> (By, Known) {
    match output {
        Some(output) if output.known.is_float && !output.parts.is_empty() => {
            let text = Some(dotted(&output.parts));
            let is_float = true;
            let hidden = Hidden {
                text,
                is_float,
                unless: None,
            };
            (By::Hidden(hidden), output.known)
        }
        Some(output) => (by, output.known),
        None => (by, UNKNOWN),
    }
}

fn hidden(known: Known, unless: Option<String>) -> (By, Known) {
    let hidden = Hidden {
        text: None,
        is_float: known.is_float,
        unless,
    };
    (By::Hidden(hidden), known)
}

fn dotted(parts: &[String]) -> String {
    let parts: Vec<String> = parts.iter().map(|part| quote_ident(part)).collect();
    parts.join(".")
}

/// What each item of the target list totals; `None` unless all do.
fn totals(
    context: Context<'_>,
    scope: &Sources<'_>,
    tail: &Tail,
    cursor: &Cursor<'_>,
) -> Option<Vec<Total>> {
    let total = |item: &std::ops::Range<usize>| {
        let called = Called::find(cursor.tokens(), item.clone(), cursor.text())?;
        let built_in = called
            .name
            .schema
            .as_deref()
            .is_none_or(|schema| schema == "pg_catalog");
        let kind = TotalKind::named(&called.name.name)?;
        let arguments = cursor.tokens().get(called.arguments)?;
        let mut argument = Cursor::new(cursor.text(), arguments);
        argument.take("all");
        let parts = argument.parts().filter(|_| argument.is_done());
        let known = parts.map_or(UNKNOWN, |parts| scope.known(&parts));
        let is_own = built_in && calls::routine(context, &called.name).is_none();
        let is_known = match kind {
            TotalKind::Min | TotalKind::Max => !known.is_strange,
            TotalKind::Count | TotalKind::Sum | TotalKind::And | TotalKind::Or => true,
        };
        (is_own && is_known).then_some(Total {
            kind,
            collation: known.collation,
        })
    };
    tail.items.iter().map(total).collect()
}
