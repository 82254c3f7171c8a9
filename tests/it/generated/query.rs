//! Queries within queries: subqueries, WITH, set operations.

use super::expression::{aggregate, order, scalar};
use super::join::{comparable, on_key, pair, two};
use super::predicate::{any, confined, filter, of_key};
use super::rows;
use super::select::{mostly, table};
use super::writer::{Step, Writer};

pub(super) fn subqueries(w: &mut Writer<'_>) -> Vec<Step> {
    let (outer, inner, same) = pair(w);
    let key = rows::key(w.random, outer.table);
    let condition = confined(w, &outer, &key);
    // What confines the inner table.
    let link = match w.random.below(6) {
        0..=2 if same => on_key(w, &outer, &inner),
        3 | 4 if same => of_key(w, &inner, &key),
        _ => {
            let key = rows::key(w.random, inner.table);
            confined(w, &inner, &key)
        }
    };
    let item = scalar(w, &outer);
    let (from, within) = (&outer.from, &inner.from);
    let number = w.column(&outer, outer.table.number);
    let own = w.column(&inner, inner.table.number);
    let sql = match w.random.below(9) {
        0 => format!(
            "SELECT {item} FROM {from} WHERE {condition} AND EXISTS (SELECT 1 FROM {within} WHERE {link})"
        ),
        1 => format!(
            "SELECT {item} FROM {from} WHERE {condition} AND NOT EXISTS (SELECT FROM {within} WHERE {link})"
        ),
        2 => format!(
            "SELECT {item} FROM {from} WHERE {condition} AND {number} IN (SELECT {own} FROM {within} WHERE {link})"
        ),
        3 => format!(
            "SELECT {item} FROM {from} WHERE {number} NOT IN (SELECT {own} FROM {within} WHERE {link}) AND {condition}"
        ),
        4 => {
            let total = aggregate(w, &inner);
            format!(
                "SELECT {item}, (SELECT {total} FROM {within} WHERE {link}) FROM {from} WHERE {condition}"
            )
        }
        5 => format!(
            "SELECT {item} FROM {from} WHERE {condition} AND {number} > ALL (SELECT {own} FROM {within} WHERE {link})"
        ),
        6 => format!(
            "SELECT {item}, ARRAY(SELECT {own} FROM {within} WHERE {link} ORDER BY 1) FROM {from} WHERE {condition}"
        ),
        7 => {
            let filter = filter(w, &outer);
            format!(
                "SELECT {item} FROM {from} WHERE {filter} OR EXISTS (SELECT 1 FROM {within} WHERE {link})"
            )
        }
        _ => {
            let all = any(w, &outer);
            let word = if all.is_empty() { "WHERE" } else { "AND" };
            let all = all.replacen(" WHERE ", " WHERE (", 1);
            let close = if word == "AND" { ")" } else { "" };
            format!(
                "SELECT {item} FROM {from}{all}{close} {word} EXISTS (SELECT 1 FROM {within} WHERE {link})"
            )
        }
    };
    vec![w.step(sql, false)]
}

/// Subqueries in FROM.
pub(super) fn derived(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let columns: Vec<String> = table
        .key
        .iter()
        .map(|&at| w.column(&relation, at))
        .collect();
    let number = w.column(&relation, table.number);
    let names: Vec<String> = (0..columns.len()).map(|at| format!("k{at}")).collect();
    let items: Vec<String> = columns
        .iter()
        .zip(&names)
        .map(|(column, name)| format!("{column} AS {name}"))
        .collect();
    let (items, names) = (items.join(", "), names.join(", "));
    let condition = mostly(w, &relation);
    let from = &relation.from;
    let sql = match w.random.below(4) {
        0 => format!(
            "SELECT {names}, m FROM (SELECT {items}, {number} AS m FROM {from}{condition}) AS d"
        ),
        1 => format!(
            "SELECT {names}, c FROM (SELECT {items}, count(*) AS c FROM {from}{condition} GROUP BY {}) AS d WHERE c > 1",
            columns.join(", ")
        ),
        2 => {
            let order = order(w, &relation);
            format!(
                "SELECT count(*) FROM (SELECT {items} FROM {from}{condition} ORDER BY {order} LIMIT 3) AS d"
            )
        }
        _ => {
            // The condition stands outside.
            let key = rows::key(w.random, table);
            let value = w.value(table.columns[table.key[0]].kind, &key[0]);
            format!(
                "SELECT {names}, m FROM (SELECT {items}, {number} AS m FROM {from}) AS d WHERE k0 = {value}"
            )
        }
    };
    vec![w.step(sql, false)]
}

pub(super) fn with(w: &mut Writer<'_>) -> Vec<Step> {
    let [one, two] = two(w);
    // It may hide a table.
    let name = w.alias();
    let relation = w.source(one);
    let number = w.column(&relation, one.number);
    let key = rows::key(w.random, one);
    let condition = confined(w, &relation, &key);
    let sql = match w.random.below(5) {
        0 => format!(
            "WITH {name} AS (SELECT {number} AS m FROM {} WHERE {condition}) SELECT m FROM {name} WHERE m > 1",
            relation.from
        ),
        1 => format!(
            "WITH {name} (m) AS MATERIALIZED (SELECT {number} FROM {} WHERE {condition}) SELECT count(*), max(m) FROM {name}",
            relation.from
        ),
        2 => {
            let other = w.source(two).qualified();
            let own = w.column(&other, two.number);
            let second = if comparable(one, two) {
                of_key(w, &other, &key)
            } else {
                let key = rows::key(w.random, two);
                of_key(w, &other, &key)
            };
            format!(
                "WITH {name} AS (SELECT {number} AS m FROM {} WHERE {condition}) SELECT {own} FROM {} JOIN {name} ON {name}.m = {own} WHERE {second}",
                relation.from, other.from
            )
        }
        3 => format!(
            "WITH RECURSIVE {name} (m, depth) AS (SELECT {number}, 1 FROM {} WHERE {condition} UNION ALL SELECT m + 1, depth + 1 FROM {name} WHERE depth < 3) SELECT * FROM {name}",
            relation.from
        ),
        _ => {
            let scalar = scalar(w, &relation);
            format!(
                "WITH {name} AS NOT MATERIALIZED (SELECT {scalar} AS m FROM {} WHERE {condition}), again AS (SELECT m FROM {name}) SELECT x.m, y.m FROM {name} x, again y",
                relation.from
            )
        }
    };
    vec![w.step(sql, false)]
}

pub(super) fn sets(w: &mut Writer<'_>) -> Vec<Step> {
    let [one, two] = two(w);
    let key = rows::key(w.random, one);
    let left = w.source(one);
    let left_number = w.column(&left, one.number);
    let first = confined(w, &left, &key);
    // Names of the second branch are its own.
    let right = w.source(two).qualified();
    let right_number = w.column(&right, two.number);
    let second = if comparable(one, two) && w.random.chance(85) {
        confined(w, &right, &key)
    } else {
        let key = rows::key(w.random, two);
        confined(w, &right, &key)
    };
    let word = *w.random.choose(&[
        "UNION",
        "UNION ALL",
        "INTERSECT",
        "EXCEPT",
        "INTERSECT ALL",
        "EXCEPT ALL",
    ]);
    let one = format!("SELECT {left_number} AS m FROM {} WHERE {first}", left.from);
    let two = format!("SELECT {right_number} FROM {} WHERE {second}", right.from);
    let (sql, ordered) = match w.random.below(4) {
        0 => (format!("({one}) {word} ({two}) ORDER BY 1 LIMIT 5"), true),
        1 => (format!("{one} {word} {two} UNION ALL VALUES (1)"), false),
        2 => (
            format!("SELECT count(*) FROM ({one} {word} {two}) AS u"),
            true,
        ),
        _ => (format!("{one} {word} {two}"), false),
    };
    vec![w.step(sql, ordered)]
}
