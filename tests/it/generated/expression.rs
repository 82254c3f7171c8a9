//! Items of target lists: scalar expressions, aggregates, and total orders.

use super::predicate;
use super::rows;
use super::value::{Kind, Value};
use super::writer::{Relation, Writer};

/// A scalar expression over one column of a relation; it fails on no row.
pub(super) fn scalar(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let at = w.random.below(relation.table.columns.len());
    let kind = relation.table.columns[at].kind;
    let c = w.column(relation, at);
    let forms: &[&str] = match kind {
        Kind::Int2 | Kind::Int4 | Kind::Int8 => &[
            "# + 1",
            "-#",
            "#::bigint * 2",
            "coalesce(#, 0)",
            "#::text",
            "# % 3",
            "abs(#)",
            "CASE WHEN # > 3 THEN 'big' WHEN # IS NULL THEN NULL ELSE 'small' END",
            "#::numeric / 3",
            "#::float8 / 4",
            "nullif(#, 5)",
            "# IS NULL",
            "(# > 5)",
            "to_char(#, '99999')",
            "#::varchar(2)",
            "CAST(# AS char(4))",
            "greatest(#, 3)",
            "ARRAY[#, 1]",
        ],
        Kind::Text => &[
            "upper(#)",
            "length(#)",
            "# || 'x'",
            "substr(#, 1, 2)",
            "# LIKE 'a%'",
            "position('a' in #)",
            "left(#, 1)",
            "md5(#)",
            "#::varchar(2)",
            "coalesce(#, 'none')",
            "trim(both 'a' from #)",
            "substring(# from 2)",
            "quote_literal(#)",
            "# COLLATE \"C\"",
            "concat(#, '-', #)",
            "# ~ 'a'",
            "# SIMILAR TO '_'",
            "overlay(# placing 'Q' from 1)",
        ],
        Kind::Uuid => &["#::text", "# IS NULL", "coalesce(#::varchar, '')"],
        Kind::Date => &[
            "# + 1",
            "extract(year from #)",
            "to_char(#, 'YYYY-MM')",
            "#::timestamp",
            "# - date '2020-01-01'",
            "date_part('month', #)",
            "# + interval '1 month'",
            "(#, #) OVERLAPS (date '2020-01-01', date '2020-02-01')",
        ],
        Kind::Timestamp => &[
            "#::date",
            "extract(hour from #)",
            "# + interval '36 hours'",
            "date_trunc('day', #)",
            "to_char(#, 'HH24:MI')",
            "# AT TIME ZONE 'UTC' AT TIME ZONE 'UTC'",
        ],
        Kind::Numeric => &[
            "round(#, 1)",
            "trunc(#)",
            "# * 2",
            "#::int",
            "# / 3",
            "#::numeric(10,1)",
            "#::text",
            "#::float4",
        ],
        Kind::Bool => &["NOT #", "# IS TRUE", "#::int", "# AND true", "#::text"],
    };
    if w.random.chance(35) {
        return c;
    }
    w.random.choose(forms).replace('#', &c)
}

/// A constant or a parameter with its type.
pub(super) fn constant(w: &mut Writer<'_>) -> String {
    let kind = *w.random.choose(&[
        Kind::Int2,
        Kind::Int4,
        Kind::Int8,
        Kind::Text,
        Kind::Uuid,
        Kind::Date,
        Kind::Timestamp,
        Kind::Numeric,
        Kind::Bool,
    ]);
    let value = if w.random.chance(10) {
        Value::Null
    } else {
        rows::value(w.random, kind)
    };
    w.typed(kind, &value)
}

/// A target list over some relations, with aliases that may hide columns.
pub(super) fn list(w: &mut Writer<'_>, relations: &[&Relation<'_>]) -> String {
    if w.random.chance(12) {
        return "*".to_owned();
    }
    if w.random.chance(8) {
        let relation = *w.random.choose(relations);
        return format!("{}.*", relation.name());
    }
    let count = 1 + w.random.below(4);
    let items: Vec<String> = (0..count)
        .map(|number| {
            let relation = *w.random.choose(relations);
            let item = if w.random.chance(10) {
                constant(w)
            } else {
                scalar(w, relation)
            };
            match w.random.below(6) {
                0 => format!("{item} AS e{number}"),
                // The name of a key.
                1 => format!(
                    "{item} AS \"{}\"",
                    relation.table.columns[relation.table.key[0]].name
                ),
                _ => item,
            }
        })
        .collect();
    items.join(", ")
}

/// An aggregate whose value does not depend on the order of rows.
pub(super) fn aggregate(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let at = w.random.below(relation.table.columns.len());
    let kind = relation.table.columns[at].kind;
    let c = w.column(relation, at);
    let order = order(w, relation);
    let call = match (w.random.below(9), kind) {
        (0, _) => "count(*)".to_owned(),
        (1, _) => format!("count({c})"),
        (2, _) => format!("count(DISTINCT {c})"),
        (3, _) => format!("array_agg({c} ORDER BY {order})"),
        (4, _) => format!("string_agg({c}::text, ',' ORDER BY {order})"),
        (_, Kind::Bool) => format!("bool_and({c})"),
        (_, Kind::Uuid) => format!("min({c}::text)"),
        (5, _) => format!("min({c})"),
        (6, _) => format!("max({c})"),
        (7, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric) => format!("avg({c})"),
        (8, Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric) => format!("sum({c})"),
        (7, _) => format!("percentile_disc(0.5) WITHIN GROUP (ORDER BY {c})"),
        _ => format!("json_agg({c} ORDER BY {order})"),
    };
    if w.random.chance(15) && !call.starts_with("percentile") {
        let filter = predicate::filter(w, relation);
        return format!("{call} FILTER (WHERE {filter})");
    }
    call
}

/// An ORDER BY list that leaves nothing open: the primary key.
pub(super) fn order(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let columns: Vec<usize> = relation
        .table
        .key
        .iter()
        .copied()
        .chain([relation.table.number])
        .collect();
    let items: Vec<String> = columns
        .into_iter()
        .map(|at| {
            let column = w.column(relation, at);
            let end = *w.random.choose(&["", "", " DESC", " ASC", " NULLS FIRST"]);
            format!("{column}{end}")
        })
        .collect();
    items.join(", ")
}
