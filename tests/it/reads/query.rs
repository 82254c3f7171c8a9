//! Queries: plain, grouped, distinct, with windows, set operations and WITH around them.

use super::expression::{aggregate, condition, uniform, value};
use super::source::from;
use super::writer::{KINDS, Kind, Scope, Writer};
use crate::generated::{Form, Step};
use crate::random::Random;

/// A statement, with how it is sent.
pub(super) fn statement(random: &mut Random) -> Step {
    let extended = random.chance(50);
    let mut w = Writer::new(random, extended);
    let depth = 1 + w.random.below(3);
    let with = with(&mut w, depth);
    let (body, ordered) = outermost(&mut w, depth);
    let parameters = w.parameters;
    Step {
        sql: with + &body,
        form: if extended {
            Form::Extended {
                parameters,
                binary_results: random.chance(50),
                named: random.chance(50),
            }
        } else {
            Form::Simple
        },
        ordered,
    }
}

/// WITH and its queries, which later ones may name.
fn with(w: &mut Writer<'_>, depth: usize) -> String {
    if !w.chance(25) {
        return String::new();
    }
    let recursive = w.chance(30);
    let mut queries = Vec::new();
    for _ in 0..=w.random.below(2) {
        let name = w.name('c');
        if recursive && w.chance(60) {
            queries.push(format!(
                "{name} (cat_id, level) AS (SELECT cat_id, 1 FROM cats WHERE parent IS NULL {} SELECT k.cat_id, {name}.level + 1 FROM cats k JOIN {name} ON k.parent = {name}.cat_id WHERE {name}.level < 5)",
                w.choose(&["UNION", "UNION ALL"])
            ));
            w.named.push((
                name,
                vec![
                    ("cat_id".to_owned(), Kind::Int),
                    ("level".to_owned(), Kind::Int),
                ],
            ));
            continue;
        }
        let kinds = w.kinds();
        let query = select(w, &kinds, depth - 1);
        let kept = w.choose(&["", "", "MATERIALIZED ", "NOT MATERIALIZED "]);
        queries.push(format!("{name} AS {kept}({query})"));
        let columns = (1..).map(|at| format!("x{at}")).zip(kinds);
        w.named.push((name, columns.collect()));
    }
    let recursive = if recursive { "RECURSIVE " } else { "" };
    format!("WITH {recursive}{} ", queries.join(", "))
}

/// The outermost query, and whether it says where each row stands.
fn outermost(w: &mut Writer<'_>, depth: usize) -> (String, bool) {
    match w.random.below(10) {
        0 => {
            let scope = from(w, depth);
            let condition = where_clause(w, &scope, depth);
            (format!("SELECT * FROM {}{condition}", scope.from), false)
        }
        1..=4 => {
            let kinds = w.kinds();
            (select(w, &kinds, depth), false)
        }
        _ => {
            let kinds = w.kinds();
            let query = select(w, &kinds, depth);
            (limited(w, &query, kinds.len()), true)
        }
    }
}

/// The rows of a query in an order that leaves no choice, some of them.
fn limited(w: &mut Writer<'_>, query: &str, columns: usize) -> String {
    let name = w.name('z');
    let keys: Vec<String> = (0..=w.random.below(2))
        .map(|_| {
            let at = 1 + w.random.below(columns);
            let direction = w.choose(&["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"]);
            format!("{name}.x{at}{direction}")
        })
        .collect();
    let sql = format!(
        "SELECT * FROM ({query}) AS {name} ORDER BY {}, {name}::text",
        keys.join(", ")
    );
    let count = (1 + w.random.below(12)).to_string();
    match w.random.below(5) {
        0 => sql,
        1 => format!("{sql} FETCH FIRST {count} ROWS WITH TIES"),
        2 => format!("{sql} LIMIT {count} OFFSET {}", w.random.below(6)),
        3 if w.extended => format!("{sql} LIMIT {}", w.parameter(Kind::Int, &count)),
        _ => format!("{sql} LIMIT {count}"),
    }
}

/// ` WHERE …`, or nothing.
pub(super) fn where_clause(w: &mut Writer<'_>, scope: &Scope, depth: usize) -> String {
    if w.chance(30) {
        return String::new();
    }
    let conditions: Vec<String> = (0..=w.random.below(2))
        .map(|_| condition(w, scope, depth))
        .collect();
    format!(" WHERE {}", conditions.join(" AND "))
}

/// A query whose columns are `x1` and so on, of the given kinds.
pub(super) fn select(w: &mut Writer<'_>, kinds: &[Kind], depth: usize) -> String {
    match w.random.below(12) {
        0 if depth > 0 => return set_operation(w, kinds, depth - 1),
        1 if depth > 0 => {
            let query = select(w, kinds, depth - 1);
            return limited(w, &query, kinds.len());
        }
        2..=4 => return grouped(w, kinds, depth),
        5 => return windowed(w, kinds, depth),
        _ => (),
    }
    let scope = from(w, depth);
    let condition = where_clause(w, &scope, depth);
    let distinct = w.random.below(10);
    if distinct == 0 {
        let key = uniform(w, &scope, Kind::Int, 0);
        let items = items(w, kinds, |w, kind| value(w, &scope, kind, depth.min(2)));
        return format!(
            "SELECT DISTINCT ON ({key}) {items} FROM {}{condition} ORDER BY {key}, {}",
            scope.from,
            scope.row()
        );
    }
    let (distinct, items) = if distinct == 1 {
        (
            "DISTINCT ",
            items(w, kinds, |w, kind| uniform(w, &scope, kind, depth.min(2))),
        )
    } else {
        (
            "",
            items(w, kinds, |w, kind| value(w, &scope, kind, depth.min(2))),
        )
    };
    format!("SELECT {distinct}{items} FROM {}{condition}", scope.from)
}

fn items(
    w: &mut Writer<'_>,
    kinds: &[Kind],
    mut item: impl FnMut(&mut Writer<'_>, Kind) -> String,
) -> String {
    let items = kinds.iter().enumerate();
    let items: Vec<String> = items
        .map(|(at, kind)| {
            let item = item(w, *kind);
            // Kinds of several types come out as one.
            match kind {
                Kind::Int => format!("({item})::bigint AS x{}", at + 1),
                Kind::Num => format!("({item})::numeric AS x{}", at + 1),
                Kind::Float | Kind::Text | Kind::Date | Kind::Time | Kind::Bool => {
                    format!("{item} AS x{}", at + 1)
                }
            }
        })
        .collect();
    items.join(", ")
}

fn set_operation(w: &mut Writer<'_>, kinds: &[Kind], depth: usize) -> String {
    let operator = w.choose(&[
        "UNION",
        "UNION ALL",
        "INTERSECT",
        "EXCEPT",
        "EXCEPT ALL",
        "INTERSECT ALL",
        "UNION ALL",
    ]);
    let side = |w: &mut Writer<'_>| {
        let scope = from(w, depth);
        let condition = where_clause(w, &scope, depth);
        let items = items(w, kinds, |w, kind| uniform(w, &scope, kind, depth.min(1)));
        format!("SELECT {items} FROM {}{condition}", scope.from)
    };
    let (one, other) = (side(w), side(w));
    if w.chance(25) {
        let third = side(w);
        return format!("({one} {operator} {other}) UNION ALL {third}");
    }
    format!("{one} {operator} {other}")
}

fn grouped(w: &mut Writer<'_>, kinds: &[Kind], depth: usize) -> String {
    let scope = from(w, depth);
    let condition = where_clause(w, &scope, depth);
    let mut keys: Vec<(Kind, String)> = Vec::new();
    for _ in 0..w.random.below(4) {
        let present: Vec<Kind> = KINDS
            .into_iter()
            .filter(|kind| scope.columns.iter().any(|column| column.kind == *kind))
            .collect();
        let kind = *w.random.choose(&present);
        let of_kind: Vec<&str> = scope
            .columns
            .iter()
            .filter(|column| column.kind == kind)
            .map(|column| column.name.as_str())
            .collect();
        let column = *w.random.choose(&of_kind);
        let key = match kind {
            Kind::Int if w.chance(40) => format!("{column} % 5"),
            Kind::Text if w.chance(40) => format!("upper({column})"),
            Kind::Int | Kind::Bool | Kind::Date | Kind::Text => column.to_owned(),
            Kind::Num => format!("round({column}, 2)"),
            Kind::Float => format!("nullif({column}, 0)"),
            Kind::Time => format!("date_trunc('month', {column})"),
        };
        keys.push((kind, key));
    }
    let sets = !keys.is_empty() && w.chance(30);
    let items = items(w, kinds, |w, kind| {
        let own: Vec<String> = keys
            .iter()
            .filter(|(of, _)| *of == kind)
            .map(|(_, key)| key.clone())
            .collect();
        if sets && kind == Kind::Int && w.chance(30) {
            return format!("grouping({})", w.random.choose(&keys).1);
        }
        if !own.is_empty() && w.chance(65) {
            return w.random.choose(&own).clone();
        }
        aggregate(w, &scope, kind, depth.min(1))
    });
    let list: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
    let all = list.join(", ");
    let group = match (keys.is_empty(), sets) {
        (true, _) => String::new(),
        (false, false) => format!(" GROUP BY {all}"),
        (false, true) => match w.random.below(3) {
            0 => format!(" GROUP BY ROLLUP ({all})"),
            1 => format!(" GROUP BY CUBE ({all})"),
            _ => format!(" GROUP BY GROUPING SETS (({all}), ({}), ())", list[0]),
        },
    };
    let having = if w.chance(20) {
        let kind = w.kind();
        let one = aggregate(w, &scope, kind, 0);
        let other = w.literal(kind);
        format!(
            " HAVING {one} {} {other}",
            w.choose(&["<", ">", "<>", "IS DISTINCT FROM"])
        )
    } else {
        String::new()
    };
    format!(
        "SELECT {items} FROM {}{condition}{group}{having}",
        scope.from
    )
}

fn windowed(w: &mut Writer<'_>, kinds: &[Kind], depth: usize) -> String {
    let scope = from(w, depth);
    let condition = where_clause(w, &scope, depth);
    let items = items(w, kinds, |w, kind| {
        if w.chance(40) {
            return value(w, &scope, kind, depth.min(1));
        }
        window(w, &scope, kind)
    });
    format!("SELECT {items} FROM {}{condition}", scope.from)
}

/// A window function whose answer no tie can change.
fn window(w: &mut Writer<'_>, scope: &Scope, kind: Kind) -> String {
    let partition = if w.chance(60) {
        let kind = w.kind();
        format!("PARTITION BY {} ", uniform(w, scope, kind, 0))
    } else {
        String::new()
    };
    let first = w.kind();
    let key = uniform(w, scope, first, 0);
    let direction = w.choose(&["", " DESC", " NULLS FIRST"]);
    let total = format!("{partition}ORDER BY {key}{direction}, {}", scope.row());
    let peers = format!("{partition}ORDER BY {key}{direction}");
    match (kind, w.random.below(6)) {
        (Kind::Int, 0) => {
            let function = w.choose(&["rank()", "dense_rank()", "count(*)"]);
            return format!("{function} OVER ({peers})");
        }
        (Kind::Int, 1) => {
            let function = w.choose(&["row_number()", "ntile(3)"]);
            return format!("{function} OVER ({total})");
        }
        (Kind::Float, 0) => {
            let function = w.choose(&["percent_rank()", "cume_dist()"]);
            return format!("{function} OVER ({peers})");
        }
        _ => (),
    }
    let one = uniform(w, scope, kind, 0);
    match (kind, w.random.below(6)) {
        (Kind::Num, 0) => format!("sum({one}) OVER ({peers})"),
        (Kind::Num, 1) => {
            format!("avg({one}) OVER ({total} ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)")
        }
        (Kind::Int | Kind::Num | Kind::Text | Kind::Date | Kind::Time, 2) => {
            let frame = w.choose(&[
                "",
                " GROUPS 1 PRECEDING",
                " RANGE UNBOUNDED PRECEDING",
                " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
            ]);
            format!("{}({one}) OVER ({total}{frame})", w.choose(&["min", "max"]))
        }
        (_, 3) => format!("lag({one}) OVER ({total})"),
        (_, 4) => format!("lead({one}, 2) OVER ({total})"),
        _ => format!(
            "{}({one}) OVER ({total})",
            w.choose(&["first_value", "last_value"])
        ),
    }
}
