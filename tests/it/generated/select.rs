//! SELECT from one table.

use super::expression::{aggregate, constant, list, order, scalar};
use super::predicate::{any, confined, filter};
use super::rows;
use super::schema::Table;
use super::writer::{Relation, Step, Writer};

/// A table of any sort, sharded more often than not.
pub(super) fn table<'a>(w: &mut Writer<'a>) -> &'a Table {
    let schema = w.schema;
    w.random.choose(&schema.tables)
}

/// WHERE that mostly confines the relation to one key.
pub(super) fn mostly(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    if w.random.chance(82) {
        let key = rows::key(w.random, relation.table);
        return format!(" WHERE {}", confined(w, relation, &key));
    }
    any(w, relation)
}

pub(super) fn columns(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let list = list(w, &[&relation]);
    let condition = any(w, &relation);
    let sql = format!("SELECT {list} FROM {}{condition}", relation.from);
    vec![w.step(sql, false)]
}

pub(super) fn aggregates(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let count = 1 + w.random.below(4);
    let items: Vec<String> = (0..count).map(|_| aggregate(w, &relation)).collect();
    let condition = mostly(w, &relation);
    let sql = format!(
        "SELECT {} FROM {}{condition}",
        items.join(", "),
        relation.from
    );
    vec![w.step(sql, true)]
}

pub(super) fn groups(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let by: Vec<String> = (0..=w.random.below(2))
        .map(|_| scalar(w, &relation))
        .collect();
    let total = aggregate(w, &relation);
    let condition = mostly(w, &relation);
    let numbers: Vec<String> = (1..=by.len()).map(|number| number.to_string()).collect();
    let group = match w.random.below(6) {
        0 => format!("ROLLUP ({})", numbers.join(", ")),
        1 => format!("CUBE ({})", numbers.join(", ")),
        2 => format!("GROUPING SETS (({}), ())", numbers.join(", ")),
        _ => numbers.join(", "),
    };
    // ROLLUP takes expressions, not positions.
    let group = if group.contains('(') {
        let first = group.split('(').next().unwrap_or_default().trim_end();
        match first {
            "GROUPING SETS" => format!("GROUPING SETS (({}), ())", by.join(", ")),
            word => format!("{word} ({})", by.join(", ")),
        }
    } else {
        group
    };
    let having = *w
        .random
        .choose(&["", "", " HAVING count(*) > 1", " HAVING min(n) < 20"]);
    let sql = format!(
        "SELECT {}, {total} FROM {}{condition} GROUP BY {group}{having}",
        by.join(", "),
        relation.from
    );
    vec![w.step(sql, false)]
}

pub(super) fn windows(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let (order, part, plain) = (
        order(w, &relation),
        scalar(w, &relation),
        scalar(w, &relation),
    );
    let call = *w.random.choose(&[
        "row_number()",
        "rank()",
        "count(*)",
        "sum(n)",
        "lag(n)",
        "first_value(n)",
        "ntile(2)",
        "dense_rank()",
    ]);
    let over = match w.random.below(4) {
        0 => format!("(ORDER BY {order})"),
        1 => format!("(PARTITION BY {part} ORDER BY {order})"),
        2 => format!("(ORDER BY {order} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"),
        _ => "w".to_owned(),
    };
    let condition = mostly(w, &relation);
    let window = if over == "w" {
        format!(" WINDOW w AS (ORDER BY {order})")
    } else {
        String::new()
    };
    let sql = format!(
        "SELECT {plain}, {call} OVER {over} FROM {}{condition}{window}",
        relation.from
    );
    vec![w.step(sql, false)]
}

/// ORDER BY, DISTINCT, LIMIT, OFFSET, FETCH FIRST.
pub(super) fn ordered(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let item = list(w, &[&relation]);
    let condition = mostly(w, &relation);
    let from = &relation.from;
    let limit = 1 + w.random.below(4);
    let (sql, total) = match w.random.below(5) {
        0 => (
            format!("SELECT DISTINCT {item} FROM {from}{condition}"),
            false,
        ),
        1 => {
            let order = order(w, &relation);
            (
                format!("SELECT {item} FROM {from}{condition} ORDER BY {order}"),
                true,
            )
        }
        2 => {
            let (order, plain) = (order(w, &relation), scalar(w, &relation));
            (
                format!(
                    "SELECT {plain} FROM {from}{condition} ORDER BY {order} LIMIT {limit} OFFSET 1"
                ),
                true,
            )
        }
        3 => {
            let (order, plain) = (order(w, &relation), scalar(w, &relation));
            (
                format!(
                    "SELECT {plain} FROM {from}{condition} ORDER BY {order} OFFSET 1 ROWS FETCH FIRST {limit} ROWS ONLY"
                ),
                true,
            )
        }
        _ => {
            let keys: Vec<String> = table
                .key
                .iter()
                .map(|&at| w.column(&relation, at))
                .collect();
            let number = w.column(&relation, table.number);
            let keys = keys.join(", ");
            (
                format!(
                    "SELECT DISTINCT ON ({keys}) {number}, {keys} FROM {from}{condition} ORDER BY {keys}, {number} DESC"
                ),
                true,
            )
        }
    };
    vec![w.step(sql, total)]
}

pub(super) fn locks(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let (plain, number) = (scalar(w, &relation), w.column(&relation, table.number));
    let condition = mostly(w, &relation);
    let lock = *w.random.choose(&[
        "FOR UPDATE",
        "FOR SHARE",
        "FOR NO KEY UPDATE",
        "FOR KEY SHARE NOWAIT",
        "FOR UPDATE SKIP LOCKED",
    ]);
    let of = if w.random.chance(20) && !relation.name().contains('.') {
        format!("{lock} OF {}", relation.name())
    } else {
        lock.to_owned()
    };
    // OF stands before the words on waiting.
    let of = ["NOWAIT", "SKIP LOCKED"].iter().fold(of, |of, word| {
        match of.split_once(&format!(" {word} OF")) {
            Some((start, end)) => format!("{start} OF{end} {word}"),
            None => of,
        }
    });
    let sql = format!(
        "SELECT {plain}, {number} FROM {}{condition} {of}",
        relation.from
    );
    vec![w.step(sql, false)]
}

/// TABLE and VALUES.
pub(super) fn values(w: &mut Writer<'_>) -> Vec<Step> {
    if w.random.chance(35) {
        let table = table(w);
        let relation = w.source(table);
        let name = relation.from.split(" AS ").next().unwrap_or_default();
        // An alias may not follow TABLE.
        let sql = if relation.from == name && !name.contains(' ') {
            format!("TABLE {name}")
        } else {
            format!("TABLE {}", table.sql())
        };
        return vec![w.step(sql, false)];
    }
    let row: Vec<String> = (0..=w.random.below(3)).map(|_| constant(w)).collect();
    let row = row.join(", ");
    let sql = match w.random.below(4) {
        0 => format!("VALUES ({row})"),
        1 => format!("VALUES ({row}), ({row})"),
        2 => format!("SELECT * FROM (VALUES ({row})) AS v"),
        _ => format!("SELECT {row}"),
    };
    vec![w.step(sql, false)]
}

/// Errors of one shard's or of none's making.
pub(super) fn errors(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.source(table);
    let key = rows::key(w.random, table);
    let condition = confined(w, &relation, &key);
    let from = relation.from.clone();
    let filter = filter(w, &relation);
    let sql = match w.random.below(9) {
        0 => format!("SELECT 1/(n - n) FROM {from} WHERE {condition}"),
        1 => format!("SELECT 'abc'::int FROM {from} WHERE {condition}"),
        2 => format!("SELECT nothing FROM {from} WHERE {condition}"),
        3 => format!("SELECT n + true FROM {from} WHERE {condition}"),
        4 => format!("SELECT no_such(n) FROM {from} WHERE {condition} AND {filter}"),
        5 => format!("SELECT (SELECT n FROM (VALUES (1), (2)) v(n)) FROM {from} WHERE {condition}"),
        6 => format!("SELEC n FROM {from}"),
        7 => format!("SELECT n::smallint * 30000::smallint FROM {from} WHERE {condition}"),
        _ => "SELECT 1/0".to_owned(),
    };
    vec![w.step(sql, false)]
}
