//! SELECT from several tables.

use super::expression::{aggregate, list, scalar};
use super::predicate::{any, confined, filter, of_key};
use super::rows;
use super::schema::{Spread, Table};
use super::select::table;
use super::writer::{Relation, Step, Writer};

/// Two tables whose rows are together, more often than not.
pub(super) fn two<'a>(w: &mut Writer<'a>) -> [&'a Table; 2] {
    let schema = w.schema;
    let first = table(w);
    let is_near = |other: &&&Table| match (first.spread, other.spread) {
        (_, Spread::Reference) | (Spread::Reference, _) => true,
        (one, other) => one == other,
    };
    let near: Vec<&Table> = schema.tables.iter().filter(|it| is_near(&it)).collect();
    if w.random.chance(88) {
        return [first, near[w.random.below(near.len())]];
    }
    [first, table(w)]
}

/// Two relations that name their columns by their tables, and whether their keys are comparable.
pub(super) fn pair<'a>(w: &mut Writer<'a>) -> (Relation<'a>, Relation<'a>, bool) {
    let [one, two] = two(w);
    let (left, right) = (w.source(one).qualified(), w.source(two).qualified());
    (left, right, comparable(one, two))
}

pub(super) fn comparable(one: &Table, two: &Table) -> bool {
    one.key.len() == two.key.len()
        && one.key.iter().zip(&two.key).all(|(&left, &right)| {
            let (left, right) = (one.columns[left].kind, two.columns[right].kind);
            left == right || left.is_int() && right.is_int()
        })
}

/// Equality of all key columns.
pub(super) fn on_key(w: &mut Writer<'_>, left: &Relation<'_>, right: &Relation<'_>) -> String {
    let mut parts = Vec::new();
    for (&one, &two) in left.table.key.iter().zip(&right.table.key) {
        let (one, two) = (w.column(left, one), w.column(right, two));
        parts.push(if w.random.chance(50) {
            format!("{one} = {two}")
        } else {
            format!("{two} = {one}")
        });
    }
    parts.join(" AND ")
}

/// The ON of a join: mostly the key, sometimes more or something else.
fn on(w: &mut Writer<'_>, left: &Relation<'_>, right: &Relation<'_>, comparable: bool) -> String {
    let numbers = format!(
        "{} = {}",
        w.column(left, left.table.number),
        w.column(right, right.table.number)
    );
    if !comparable || w.random.chance(12) {
        return numbers;
    }
    let key = on_key(w, left, right);
    match w.random.below(8) {
        0 => format!("{key} AND {numbers}"),
        1 => format!("{key} AND {}", filter(w, left)),
        2 => format!("{key} AND {}", filter(w, right)),
        3 => {
            let value = rows::key(w.random, right.table);
            format!("{key} AND {}", of_key(w, right, &value))
        }
        4 => {
            let value = rows::key(w.random, left.table);
            format!("{} AND {key}", of_key(w, left, &value))
        }
        _ => key,
    }
}

/// WHERE that names a key of one side or of both.
fn condition(w: &mut Writer<'_>, left: &Relation<'_>, right: &Relation<'_>, same: bool) -> String {
    let key = rows::key(w.random, left.table);
    match w.random.below(10) {
        0..=2 => format!(" WHERE {}", confined(w, left, &key)),
        3 => {
            let key = rows::key(w.random, right.table);
            format!(" WHERE {}", confined(w, right, &key))
        }
        4..=6 if same => {
            let (one, two) = (confined(w, left, &key), of_key(w, right, &key));
            format!(" WHERE {one} AND {two}")
        }
        7 => any(w, left),
        8 => any(w, right),
        _ => format!(" WHERE {}", filter(w, right)),
    }
}

pub(super) fn on_clause(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let on = on(w, &left, &right, same);
    let condition = condition(w, &left, &right, same);
    let kind = *w.random.choose(&[
        "JOIN",
        "JOIN",
        "INNER JOIN",
        "LEFT JOIN",
        "LEFT OUTER JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
    ]);
    let items = if w.random.chance(25) {
        aggregate(w, &left)
    } else {
        list(w, &[&left, &right])
    };
    let sql = format!(
        "SELECT {items} FROM {} {kind} {} ON {on}{condition}",
        left.from, right.from
    );
    vec![w.step(sql, false)]
}

/// USING, NATURAL, CROSS and commas.
pub(super) fn merged(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let key = rows::key(w.random, left.table);
    let kind = *w.random.choose(&["", "", "LEFT ", "RIGHT ", "FULL "]);
    let names = |relation: &Relation<'_>| -> Vec<String> {
        let columns = relation.table.key.iter();
        columns
            .map(|&at| relation.table.columns[at].name.clone())
            .collect()
    };
    let shared = names(&left) == names(&right) && same;
    let from = match w.random.below(5) {
        0 | 1 if shared => {
            let names: Vec<String> = names(&left)
                .iter()
                .map(|name| format!("\"{name}\""))
                .collect();
            format!(
                "{} {kind}JOIN {} USING ({})",
                left.from,
                right.from,
                names.join(", ")
            )
        }
        2 => format!("{} JOIN {} USING (n)", left.from, right.from),
        3 => format!("{} NATURAL {kind}JOIN {}", left.from, right.from),
        4 => format!("{} CROSS JOIN {}", left.from, right.from),
        _ => format!("{}, {}", left.from, right.from),
    };
    let mut condition = of_key(w, &left, &key);
    if same && w.random.chance(60) {
        condition = if w.random.chance(50) {
            format!("{condition} AND {}", on_key(w, &left, &right))
        } else {
            format!("{} AND {condition}", of_key(w, &right, &key))
        };
    }
    let items = [scalar(w, &left), scalar(w, &right)].join(", ");
    let sql = if w.random.chance(85) {
        format!("SELECT {items} FROM {from} WHERE {condition}")
    } else {
        format!("SELECT {items} FROM {from}")
    };
    vec![w.step(sql, false)]
}

/// Three tables, nested one way or the other.
pub(super) fn three(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let third = two(w)[1];
    let close = comparable(left.table, third);
    let third = w.source(third).qualified();
    let inner = on(w, &right, &third, close && same);
    let outer = on(w, &left, &right, same);
    let kinds = ["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"];
    let (one, two) = (*w.random.choose(&kinds), *w.random.choose(&kinds));
    let from = if w.random.chance(50) {
        format!(
            "{} {one} {} ON {outer} {two} {} ON {inner}",
            left.from, right.from, third.from
        )
    } else {
        format!(
            "{} {one} ({} {two} {} ON {inner}) ON {outer}",
            left.from, right.from, third.from
        )
    };
    let condition = condition(w, &left, &right, same);
    let items = list(w, &[&left, &right, &third]);
    let sql = format!("SELECT {items} FROM {from}{condition}");
    vec![w.step(sql, false)]
}

pub(super) fn lateral(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let key = rows::key(w.random, left.table);
    let link = if same {
        on_key(w, &left, &right)
    } else {
        of_key(
            w,
            &right,
            &rows::key(&mut crate::random::Random::new(7), right.table),
        )
    };
    let number = w.column(&right, right.table.number);
    let inner = match w.random.below(3) {
        0 => format!("SELECT count(*) AS c FROM {} WHERE {link}", right.from),
        1 => format!("SELECT {number} AS c FROM {} WHERE {link}", right.from),
        _ => format!(
            "SELECT max({number}) AS c FROM {} WHERE {link} AND {}",
            right.from,
            filter(w, &right)
        ),
    };
    let join = *w.random.choose(&["JOIN LATERAL", "LEFT JOIN LATERAL"]);
    let alias = w.alias();
    let condition = confined(w, &left, &key);
    let item = scalar(w, &left);
    let sql = format!(
        "SELECT {item}, {alias}.c FROM {} {join} ({inner}) AS {alias} ON true WHERE {condition}",
        left.from
    );
    vec![w.step(sql, false)]
}
