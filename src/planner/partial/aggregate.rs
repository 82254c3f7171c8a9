//! Aggregates whose value for all rows is worked out of values for parts of them: what each shard is asked, and
//! what PostgreSQL makes of that on a twin.
//!
//! The casts give what comes out the type that the aggregate has over all rows. States of floating-point
//! numbers are combined as PostgreSQL combines those of its parallel workers (`float8_combine`,
//! `float8_regr_combine`), since differences of sums of squares lose all digits.

use crate::types::oid;

/// How the values of an aggregate are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Sum,
    Avg,
    /// It is its own combination.
    Alike(&'static str),
    /// Of one column's deviations: what makes the value of the state.
    Spread(&'static str),
    /// Of two columns.
    Pairs(&'static str),
    /// Of distinct values, which are a group of the shards' rows.
    Distinct(&'static str, usize),
}

/// One aggregate of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aggregate {
    pub(super) kind: Kind,
    /// As written, without DISTINCT.
    pub(super) argument: String,
    /// As written, with a space before it; or nothing.
    pub(super) filter: String,
}

const INTERVAL: u32 = 1186;
const MONEY: u32 = 790;

impl Kind {
    /// By the name of a built-in function.
    pub(super) fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "count" => Kind::Count,
            "sum" => Kind::Sum,
            "avg" => Kind::Avg,
            "min" => Kind::Alike("min"),
            "max" => Kind::Alike("max"),
            "bool_and" => Kind::Alike("bool_and"),
            "bool_or" => Kind::Alike("bool_or"),
            "every" => Kind::Alike("every"),
            "bit_and" => Kind::Alike("bit_and"),
            "bit_or" => Kind::Alike("bit_or"),
            "bit_xor" => Kind::Alike("bit_xor"),
            "var_pop" => Kind::Spread("var_pop"),
            "var_samp" | "variance" => Kind::Spread("var_samp"),
            "stddev_pop" => Kind::Spread("stddev_pop"),
            "stddev_samp" | "stddev" => Kind::Spread("stddev_samp"),
            "corr" => Kind::Pairs("corr"),
            "covar_pop" => Kind::Pairs("covar_pop"),
            "covar_samp" => Kind::Pairs("covar_samp"),
            "regr_avgx" => Kind::Pairs("regr_avgx"),
            "regr_avgy" => Kind::Pairs("regr_avgy"),
            "regr_count" => Kind::Pairs("regr_count"),
            "regr_intercept" => Kind::Pairs("regr_intercept"),
            "regr_r2" => Kind::Pairs("regr_r2"),
            "regr_slope" => Kind::Pairs("regr_slope"),
            "regr_sxx" => Kind::Pairs("regr_sxx"),
            "regr_sxy" => Kind::Pairs("regr_sxy"),
            "regr_syy" => Kind::Pairs("regr_syy"),
            _ => return None,
        })
    }

    /// The same of distinct values, which are a group.
    pub(super) fn distinct(self, group: usize) -> Option<Kind> {
        Some(match self {
            Kind::Count => Kind::Distinct("count", group),
            Kind::Sum => Kind::Distinct("sum", group),
            Kind::Avg => Kind::Distinct("avg", group),
            Kind::Alike(name @ ("min" | "max")) => Kind::Distinct(name, group),
            Kind::Alike(_) | Kind::Spread(_) | Kind::Pairs(_) | Kind::Distinct(..) => return None,
        })
    }
}

impl Aggregate {
    /// What each shard is asked. `widens`: its argument is a floating-point number, and taken for a `float8` as
    /// PostgreSQL itself does there.
    pub(super) fn parts(&self, widens: bool) -> Vec<String> {
        let Aggregate {
            argument, filter, ..
        } = self;
        let of = |name: &str| format!("pg_catalog.{name}({argument}){filter}");
        let wide = |name: &str| {
            if widens {
                format!("pg_catalog.{name}(({argument})::pg_catalog.float8){filter}")
            } else {
                of(name)
            }
        };
        match self.kind {
            Kind::Count => vec![of("count")],
            Kind::Sum => vec![of("sum")],
            Kind::Avg if !widens => vec![of("sum"), of("count")],
            Kind::Alike(name) => vec![of(name)],
            // An average of these has the deviations in its state, which may pass what the type holds.
            Kind::Avg | Kind::Spread(_) => vec![
                of("count"),
                wide("sum"),
                format!("{} * {}", wide("var_pop"), of("count")),
            ],
            Kind::Pairs("regr_count") => vec![of("regr_count")],
            Kind::Pairs(_) => {
                let total = |name| format!("{} * {}", of(name), of("regr_count"));
                vec![
                    of("regr_count"),
                    total("regr_avgx"),
                    of("regr_sxx"),
                    total("regr_avgy"),
                    of("regr_syy"),
                    of("regr_sxy"),
                ]
            }
            Kind::Distinct(..) => Vec::new(),
        }
    }

    /// Whether the argument is to be widened, by the types of the parts; `None` where the parts do not make
    /// the value that PostgreSQL gives.
    pub(super) fn widens(&self, types: &[u32]) -> Option<bool> {
        let sum = match (self.kind, types) {
            (Kind::Sum | Kind::Avg, [sum, ..]) | (Kind::Spread(_), [_, sum, _]) => *sum,
            (Kind::Sum | Kind::Avg | Kind::Spread(_), _) => return None,
            (Kind::Count | Kind::Alike(_) | Kind::Pairs(_) | Kind::Distinct(..), _) => {
                return Some(false);
            }
        };
        match (self.kind, sum) {
            (Kind::Avg, oid::FLOAT4 | oid::FLOAT8) | (Kind::Spread(_), oid::FLOAT4) => Some(true),
            (Kind::Spread(_) | Kind::Sum, oid::FLOAT8)
            | (Kind::Sum | Kind::Avg, oid::INT8 | oid::NUMERIC | INTERVAL)
            | (Kind::Sum, MONEY) => Some(false),
            _ => None,
        }
    }

    /// What the twin makes of the parts: `columns` are their names, quoted, `types` their types.
    pub(super) fn combined(
        &self,
        columns: &[&str],
        types: &[u32],
        groups: &[String],
    ) -> Option<String> {
        let total = |column: &str| format!("pg_catalog.sum({column})");
        let state = |columns: &[&str]| {
            let each = columns
                .iter()
                .map(|it| format!("COALESCE({it}, 0)::pg_catalog.float8"));
            format!("ARRAY[{}]", each.collect::<Vec<_>>().join(", "))
        };
        let count = |column: &str| format!("COALESCE({}, 0)::pg_catalog.int8", total(column));
        let made = match (self.kind, columns) {
            (Kind::Count | Kind::Pairs("regr_count"), [one]) => count(one),
            (Kind::Sum, [one]) if types == [oid::INT8] => {
                format!("{}::pg_catalog.int8", total(one))
            }
            (Kind::Sum, [one]) => total(one),
            (Kind::Avg, [sum, number]) => {
                let number = format!("NULLIF({}, 0)", total(number));
                let is_exact = matches!(types, [oid::INT8 | oid::NUMERIC, _]);
                let cast = if is_exact { "" } else { "::pg_catalog.float8" };
                format!("{} OPERATOR(pg_catalog./) {number}{cast}", total(sum))
            }
            (Kind::Alike(name), [one]) => format!("pg_catalog.{name}({one})"),
            (Kind::Avg, columns @ [_, _, _]) => format!("pgherd.avg({})", state(columns)),
            (Kind::Spread(name) | Kind::Pairs(name), columns) => {
                format!("pgherd.{name}({})", state(columns))
            }
            (Kind::Distinct(name, group), []) => {
                format!("pg_catalog.{name}(DISTINCT {})", groups.get(group)?)
            }
            (Kind::Count | Kind::Sum | Kind::Avg | Kind::Alike(_) | Kind::Distinct(..), _) => {
                return None;
            }
        };
        Some(format!("({made})"))
    }
}
