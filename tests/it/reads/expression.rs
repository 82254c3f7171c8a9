//! Values, conditions and aggregates over what is in scope.

use super::query;
use super::source;
use super::writer::{Column, Kind, Scope, Writer};

/// A column of a kind, mostly of the innermost query; `None` where there is none.
fn column(w: &mut Writer<'_>, columns: &[Column], kind: Kind) -> Option<String> {
    let of = |columns: &[Column]| -> Vec<String> {
        let of_kind = columns.iter().filter(|column| column.kind == kind);
        of_kind.map(|column| column.name.clone()).collect()
    };
    let (own, outer) = (of(columns), of(&w.outer));
    let list = if own.is_empty() || !outer.is_empty() && w.chance(15) {
        outer
    } else {
        own
    };
    (!list.is_empty()).then(|| w.random.choose(&list).clone())
}

/// A column, or a constant.
pub(super) fn leaf(w: &mut Writer<'_>, scope: &Scope, kind: Kind) -> String {
    if w.chance(88)
        && let Some(column) = column(w, &scope.columns, kind)
    {
        return column;
    }
    w.literal(kind)
}

/// A value in which equal values are written alike, as groups and DISTINCT need it to be told which of them
/// is shown.
pub(super) fn uniform(w: &mut Writer<'_>, scope: &Scope, kind: Kind, depth: usize) -> String {
    let value = value(w, scope, kind, depth);
    match kind {
        Kind::Num => format!("round({value}, 2)"),
        Kind::Float => format!("nullif({value}, 0)"),
        Kind::Int | Kind::Text | Kind::Date | Kind::Time | Kind::Bool => value,
    }
}

/// A value of a kind.
pub(super) fn value(w: &mut Writer<'_>, scope: &Scope, kind: Kind, depth: usize) -> String {
    if depth == 0 || w.chance(45) {
        return leaf(w, scope, kind);
    }
    let less = depth - 1;
    match w.random.below(10) {
        0 => {
            let (one, other) = (value(w, scope, kind, less), value(w, scope, kind, less));
            return format!("coalesce({one}, {other})");
        }
        1 => {
            let condition = condition(w, scope, less);
            let (one, other) = (value(w, scope, kind, less), value(w, scope, kind, less));
            return format!("CASE WHEN {condition} THEN {one} ELSE {other} END");
        }
        2 if matches!(kind, Kind::Int | Kind::Text | Kind::Date) => {
            let function = w.choose(&["greatest", "least", "nullif"]);
            let (one, other) = (value(w, scope, kind, less), value(w, scope, kind, less));
            return format!("{function}({one}, {other})");
        }
        3 if less > 0 && w.chance(40) => return scalar(w, scope, kind, less),
        _ => (),
    }
    match kind {
        Kind::Int => integer(w, scope, less),
        Kind::Num => numeric(w, scope, less),
        Kind::Float => {
            let one = leaf(w, scope, Kind::Float);
            let shape = w.choose(&["-(#)", "# * 2", "abs(#)", "# / 3"]);
            shape.replace('#', &one)
        }
        Kind::Text => text(w, scope, less),
        Kind::Date => date(w, scope, less),
        Kind::Time => {
            let one = leaf(w, scope, Kind::Time);
            let shape = w.choose(&[
                "date_trunc('month', #)",
                "# + interval '1 day 02:00'",
                "date_trunc('hour', #) - interval '1 month'",
            ]);
            shape.replace('#', &one)
        }
        Kind::Bool => format!("({})", condition(w, scope, less)),
    }
}

fn integer(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    let shape = w.choose(&[
        "#i::bigint + #i",
        "#i::bigint - #i",
        "#i::bigint * 3",
        "#i % 7",
        "-(#i::bigint)",
        "abs(#i::bigint)",
        "#i / nullif(#i, 0)",
        "length(#t)",
        "strpos(#t, 'e')",
        "extract(year FROM #d)::int",
        "#d - date '2020-01-01'",
        "ascii(#t)",
        "sign(#n)::int",
        "extract(dow FROM #s)::int",
        "#i::smallint::int",
    ]);
    let shape = if shape.contains("smallint") {
        "(#i % 100)::smallint::int"
    } else {
        shape
    };
    filled(w, scope, shape, depth)
}

fn numeric(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    let shape = w.choose(&[
        "#n + #i",
        "#n - #n",
        "#n * 1.1",
        "#n / nullif(#i, 0)",
        "round(#n, 1)",
        "#i::numeric / 3",
        "abs(#n)",
        "trunc(#n / 7, 3)",
        "#n % 7",
        "floor(#n)",
        "(#n)::numeric(40,3)",
        "sign(#n)",
    ]);
    filled(w, scope, shape, depth)
}

fn text(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    let shape = w.choose(&[
        "upper(#t)",
        "lower(#t)",
        "#t || #t",
        "left(#t, 2)",
        "substring(#t from 2 for 3)",
        "replace(#t, 'e', '-')",
        "#i::text",
        "#n::text",
        "to_char(#d, 'YYYY-MM')",
        "concat(#t, #i)",
        "md5(#t)",
        "format('%s/%s', #t, #i)",
        "#t || #i",
        "to_char(#s, 'HH24:MI')",
        "#b::text",
        "reverse(#t)",
        "lpad(#t, 4, '*')",
        "split_part(#t, 'e', 1)",
        "#d::text",
        "initcap(#t)",
        "regexp_replace(#t, '[aeiou]+', '.', 'g')",
    ]);
    filled(w, scope, shape, depth)
}

fn date(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    let shape = w.choose(&[
        "#d + 30",
        "(#d + interval '1 month')::date",
        "(#s AT TIME ZONE 'UTC')::date",
        "date_trunc('year', #d)::date",
    ]);
    filled(w, scope, shape, depth)
}

/// A pattern with values in the places of their kinds.
fn filled(w: &mut Writer<'_>, scope: &Scope, shape: &str, depth: usize) -> String {
    let mut sql = String::new();
    let mut rest = shape;
    while let Some((before, after)) = rest.split_once('#') {
        sql += before;
        let kind = match after.chars().next() {
            Some('i') => Kind::Int,
            Some('n') => Kind::Num,
            Some('t') => Kind::Text,
            Some('d') => Kind::Date,
            Some('s') => Kind::Time,
            _ => Kind::Bool,
        };
        sql.push('(');
        sql += &value(w, scope, kind, depth.min(1));
        sql.push(')');
        rest = &after[1..];
    }
    format!("({sql}{rest})")
}

/// A subquery of one value.
fn scalar(w: &mut Writer<'_>, scope: &Scope, kind: Kind, depth: usize) -> String {
    inner(w, scope, |w| {
        let own = source::from(w, depth.min(1));
        let condition = query::where_clause(w, &own, depth - 1);
        let aggregate = aggregate(w, &own, kind, 0);
        format!("(SELECT {aggregate} FROM {}{condition})", own.from)
    })
}

/// Writes a query within another, whose columns it may name.
pub(super) fn inner<T>(
    w: &mut Writer<'_>,
    scope: &Scope,
    write: impl FnOnce(&mut Writer<'_>) -> T,
) -> T {
    let before = w.outer.len();
    w.outer.extend(scope.columns.iter().cloned());
    let written = write(w);
    w.outer.truncate(before);
    written
}

const COMPARISONS: [&str; 6] = ["=", "<>", "<", ">", "<=", ">="];

/// A condition.
pub(super) fn condition(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    if depth > 0 && w.chance(25) {
        let less = depth - 1;
        let (one, other) = (condition(w, scope, less), condition(w, scope, less));
        return match w.random.below(4) {
            0 => format!("NOT ({one})"),
            1 => format!("({one} OR {other})"),
            2 => format!("(({one}) IS NOT TRUE)"),
            _ => format!("({one} AND {other})"),
        };
    }
    if depth > 0 && w.chance(25) {
        return of_subquery(w, scope, depth - 1);
    }
    let kind = w.kind();
    let form = w.random.below(12);
    if form == 5 {
        let text = leaf(w, scope, Kind::Text);
        let pattern = w.choose(&["'%e%'", "'Z%'", "'_'", "'%ü%'", "''"]);
        let like = w.choose(&["LIKE", "NOT LIKE", "ILIKE", "~~"]);
        return format!("{text} {like} {pattern}");
    }
    if form == 6 {
        let time = leaf(w, scope, Kind::Time);
        let moment = w.choose(&["now()", "current_timestamp", "current_date"]);
        return format!("{time} < {moment}");
    }
    let one = value(w, scope, kind, depth.min(1));
    match form {
        0 => format!("{one} IS NULL"),
        1 => format!("{one} IS NOT NULL"),
        2 => {
            let other = w.literal(kind);
            format!("{one} IS DISTINCT FROM {other}")
        }
        3 if kind != Kind::Bool => {
            let (low, high) = (w.literal(kind), w.literal(kind));
            format!("{one} BETWEEN {low} AND {high}")
        }
        4 => {
            let (a, b, c) = (w.literal(kind), w.literal(kind), w.literal(kind));
            let not = w.choose(&["", "NOT "]);
            format!("{one} {not}IN ({a}, {b}, {c})")
        }
        7 => {
            let (other, more) = (w.literal(kind), w.literal(kind));
            let kind = super::writer::type_name(kind);
            format!("{one} = ANY (ARRAY[{other}, {more}]::{kind}[])")
        }
        8 => {
            let (two, a, b) = (
                leaf(w, scope, Kind::Int),
                w.literal(kind),
                w.literal(Kind::Int),
            );
            format!(
                "({one}, {two}) {} ({a}, {b})",
                if w.chance(50) { "=" } else { "<" }
            )
        }
        _ => {
            let operator = *w.random.choose(&COMPARISONS);
            let other = if w.chance(40) {
                value(w, scope, kind, 0)
            } else {
                w.literal(kind)
            };
            format!("{one} {operator} {other}")
        }
    }
}

fn of_subquery(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    let kind = w.kind();
    let form = w.random.below(6);
    // Before the query, since parameters are numbered as they are written and all must be used.
    let one = if form < 2 {
        String::new()
    } else {
        value(w, scope, kind, 0)
    };
    let operator = *w.random.choose(&COMPARISONS);
    inner(w, scope, |w| {
        if form == 5 {
            let own = source::from(w, depth.min(1));
            let aggregate = aggregate(w, &own, kind, 0);
            let condition = query::where_clause(w, &own, depth);
            return format!(
                "{one} {operator} (SELECT {aggregate} FROM {}{condition})",
                own.from
            );
        }
        let query = query::select(w, &[kind], depth);
        match form {
            0 => format!("EXISTS ({query})"),
            1 => format!("NOT EXISTS ({query})"),
            2 => format!("{one} IN ({query})"),
            3 => format!("{one} NOT IN ({query})"),
            // The proxy's parser takes a parenthesis here for one around all of it.
            _ if query.starts_with('(') => format!("{one} IN ({query})"),
            _ => {
                let any = w.choose(&["ANY", "ALL", "SOME"]);
                format!("{one} {operator} {any} ({query})")
            }
        }
    })
}

/// Aggregates of each kind over values of another; `#` is the value, `@` a constant of its kind.
fn patterns(kind: Kind) -> &'static [(&'static str, Kind)] {
    match kind {
        Kind::Int => &[
            ("count(*)", Kind::Int),
            ("count(#)", Kind::Text),
            ("count(#)", Kind::Num),
            ("count(DISTINCT #)", Kind::Text),
            ("count(DISTINCT #)", Kind::Float),
            ("percentile_disc(0.3) WITHIN GROUP (ORDER BY #)", Kind::Int),
            ("bit_xor((#) % 64)", Kind::Int),
            ("rank(@) WITHIN GROUP (ORDER BY #)", Kind::Int),
            ("sum(((#) % 1000)::int)", Kind::Int),
            ("min(#)", Kind::Int),
            ("max(#)", Kind::Int),
        ],
        Kind::Num => &[
            ("avg(#)", Kind::Num),
            ("avg(#)", Kind::Int),
            ("sum(#)", Kind::Num),
            ("sum(DISTINCT #)", Kind::Num),
            ("stddev(#)", Kind::Num),
            ("variance(#)", Kind::Num),
            ("var_pop(#)", Kind::Num),
            ("min(#)", Kind::Num),
            ("max(#)", Kind::Num),
        ],
        Kind::Float => &[
            (
                "percentile_cont(0.5) WITHIN GROUP (ORDER BY (#)::float8)",
                Kind::Int,
            ),
            (
                "regr_avgx(((#) % 100)::float8, ((#) % 7)::float8)",
                Kind::Int,
            ),
            (
                "covar_pop(((#) % 100)::float8, ((#) % 7)::float8)",
                Kind::Int,
            ),
            ("min(#)", Kind::Float),
            ("max(#)", Kind::Float),
        ],
        Kind::Text => &[
            ("string_agg(#, ',' ORDER BY # DESC)", Kind::Text),
            ("string_agg(DISTINCT #, ';')", Kind::Text),
            ("array_agg(# ORDER BY # NULLS FIRST)::text", Kind::Int),
            ("jsonb_agg(# ORDER BY #)::text", Kind::Date),
            ("mode() WITHIN GROUP (ORDER BY #)", Kind::Text),
            ("min(#)", Kind::Text),
            ("max(#)", Kind::Text),
        ],
        Kind::Date => &[("min(#)", Kind::Date), ("max(#)", Kind::Date)],
        Kind::Time => &[("min(#)", Kind::Time), ("max(#)", Kind::Time)],
        Kind::Bool => &[
            ("bool_and(#)", Kind::Bool),
            ("bool_or(#)", Kind::Bool),
            ("every(#)", Kind::Bool),
        ],
    }
}

/// An aggregate of a kind.
pub(super) fn aggregate(w: &mut Writer<'_>, scope: &Scope, kind: Kind, depth: usize) -> String {
    let (pattern, over) = *w.random.choose(patterns(kind));
    let (call, cast) = match pattern.split_once("::text") {
        Some((call, "")) => (call, "::text"),
        _ => (pattern, ""),
    };
    let mut sql = call.to_owned();
    if sql.contains('@') {
        sql = sql.replace('@', &w.literal(over));
    }
    if sql.contains('#') {
        sql = sql.replace('#', &uniform(w, scope, over, depth));
    }
    if w.chance(12) {
        let condition = condition(w, scope, 0);
        sql = format!("{sql} FILTER (WHERE {condition})");
    }
    if cast.is_empty() {
        sql
    } else {
        format!("({sql}){cast}")
    }
}
