//! Predicates: ones that confine a table to keys, in every shape, and ones that do not.

use super::rows;
use super::value::{Kind, Value};
use super::writer::{Relation, Writer};

/// A key as its column values.
pub(super) type KeyValues = Vec<Value>;

/// A predicate that is true of rows of this key alone.
pub(super) fn of_key(w: &mut Writer<'_>, relation: &Relation<'_>, key: &KeyValues) -> String {
    let columns = relation.table.key.clone();
    if columns.len() == 1 {
        return of_column(w, relation, columns[0], &key[0]);
    }
    if w.random.chance(35) {
        let left: Vec<String> = columns.iter().map(|&at| w.column(relation, at)).collect();
        let right = row(w, relation, key);
        let left = left.join(", ");
        return match w.random.below(3) {
            0 => format!("({left}) = {right}"),
            1 => format!("({left}) IN ({right})"),
            _ => format!("ROW({left}) = ROW{right}"),
        };
    }
    let mut parts: Vec<String> = columns
        .iter()
        .zip(key)
        .map(|(&at, value)| of_column(w, relation, at, value))
        .collect();
    if w.random.chance(40) {
        parts.insert(1, filter(w, relation));
    }
    parts.join(" AND ")
}

fn row(w: &mut Writer<'_>, relation: &Relation<'_>, key: &KeyValues) -> String {
    let columns = relation.table.key.iter().zip(key);
    let values: Vec<String> = columns
        .map(|(&at, value)| w.value(relation.table.columns[at].kind, value))
        .collect();
    format!("({})", values.join(", "))
}

fn of_column(w: &mut Writer<'_>, relation: &Relation<'_>, at: usize, value: &Value) -> String {
    let kind = relation.table.columns[at].kind;
    let column = w.column(relation, at);
    let other = rows::value(w.random, kind);
    match w.random.below(44) {
        40 | 41 => shared(w, relation, &column, kind, value),
        42 if kind.is_int() => {
            let list = [
                w.value(kind, value),
                "70000000000".to_owned(),
                "2.5".to_owned(),
            ];
            format!("{column} IN ({})", list[..2 + w.random.below(2)].join(", "))
        }
        43 if kind == Kind::Date => {
            format!("{column} = {}::timestamp", w.typed(Kind::Date, value))
        }
        12..=15 => format!("{} = {column}", w.value(kind, value)),
        16..=18 => format!("{column} IN ({})", w.value(kind, value)),
        19..=21 => format!(
            "{column} = ANY {}",
            w.array(kind, std::slice::from_ref(value))
        ),
        22 => format!(
            "({column} = {} AND {column} IS NOT NULL)",
            w.value(kind, value)
        ),
        23 => {
            let (one, two) = (w.value(kind, value), w.value(kind, value));
            format!("({column} = {one} OR {column} IN ({two}, NULL))")
        }
        24 | 25 => {
            let (low, high) = (w.value(kind, value), w.value(kind, value));
            format!("{column} BETWEEN {low} AND {high}")
        }
        26 | 27 => format!("{column} IS NOT DISTINCT FROM {}", w.value(kind, value)),
        28 => {
            let (low, high) = (w.value(kind, value), w.value(kind, value));
            format!("({column} >= {low} AND {column} <= {high})")
        }
        29 => format!("NOT ({column} <> {})", w.value(kind, value)),
        30 => format!("({column} = {}) IS TRUE", w.value(kind, value)),
        31 => {
            let typed = w.typed(kind, value);
            format!("{column} = (SELECT {typed})")
        }
        32 => format!(
            "({column} = {} AND {column} <> {})",
            w.value(kind, value),
            w.value(kind, &other)
        ),
        33 => format!("({column}, {}) = ({}, 1)", 1, w.value(kind, value)),
        34 => format!("({column} = {} OR false)", w.value(kind, value)),
        35 => format!("({column} = {} AND true)", w.value(kind, value)),
        36 if kind.is_int() => format!("{column}::bigint = {}", w.value(Kind::Int8, value)),
        37 if kind.is_int() => format!("{column} + 0 = {}", w.value(kind, value)),
        38 if kind == Kind::Text => format!("{column}::text = {}", w.value(kind, value)),
        39 => format!("({column}) = ({})", w.value(kind, value)),
        _ => format!("{column} = {}", w.value(kind, value)),
    }
}

/// One parameter, or one constant, that is compared with the key and with another column: its type is
/// that of the first.
fn shared(
    w: &mut Writer<'_>,
    relation: &Relation<'_>,
    column: &str,
    kind: Kind,
    value: &Value,
) -> String {
    let table = relation.table;
    let is_like = |at: &usize| {
        let other = table.columns[*at].kind;
        let times = [Kind::Date, Kind::Timestamp];
        let numbers = |kind: Kind| kind.is_int() || kind == Kind::Numeric;
        other == kind
            || numbers(other) && numbers(kind)
            || times.contains(&other) && times.contains(&kind)
    };
    let others: Vec<usize> = table.payload().into_iter().filter(is_like).collect();
    let Some(&at) = others.get(w.random.below(others.len().max(1))) else {
        return format!("{column} = {}", w.value(kind, value));
    };
    let other = w.column(relation, at);
    let value = w.plain_parameter(value);
    if w.random.chance(50) {
        format!("({other} = {value} OR {other} IS NULL OR true) AND {column} = {value}")
    } else {
        format!("{column} = {value} AND ({other} IS NOT NULL OR {other} <> {value} OR true)")
    }
}

/// A predicate that is true of rows of these keys.
pub(super) fn of_keys(w: &mut Writer<'_>, relation: &Relation<'_>, keys: &[KeyValues]) -> String {
    let columns = relation.table.key.clone();
    let choice = w.random.below(4);
    if let ([at], 0..=2) = (columns.as_slice(), choice) {
        let kind = relation.table.columns[*at].kind;
        let column = w.column(relation, *at);
        let mut values: Vec<Value> = keys.iter().map(|key| key[0].clone()).collect();
        if w.random.chance(15) {
            values.push(Value::Null);
        }
        if choice == 0 {
            return format!("{column} = ANY {}", w.array(kind, &values));
        }
        let list: Vec<String> = values.iter().map(|value| w.value(kind, value)).collect();
        return format!("{column} IN ({})", list.join(", "));
    }
    if columns.len() > 1 && choice < 2 {
        let left: Vec<String> = columns.iter().map(|&at| w.column(relation, at)).collect();
        let list: Vec<String> = keys.iter().map(|key| row(w, relation, key)).collect();
        return format!("({}) IN ({})", left.join(", "), list.join(", "));
    }
    let parts: Vec<String> = keys
        .iter()
        .map(|key| {
            let one = of_key(w, relation, key);
            if w.random.chance(30) {
                format!("({one} AND {})", filter(w, relation))
            } else {
                format!("({one})")
            }
        })
        .collect();
    format!("({})", parts.join(" OR "))
}

/// A predicate over other columns that fails on no row.
pub(super) fn filter(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let table = relation.table;
    let mut columns = table.payload();
    columns.push(table.number);
    let at = *w.random.choose(&columns);
    let kind = table.columns[at].kind;
    let column = w.column(relation, at);
    let (one, two) = (rows::value(w.random, kind), rows::value(w.random, kind));
    if kind == Kind::Bool {
        return match w.random.below(5) {
            0 => column,
            1 => format!("NOT {column}"),
            2 => format!("{column} IS NOT TRUE"),
            3 => format!("{column} IS UNKNOWN"),
            _ => format!("{column} = {}", w.value(kind, &one)),
        };
    }
    match w.random.below(14) {
        0 => format!("{column} IS NULL"),
        1 => format!("{column} IS NOT NULL"),
        2 => format!("{column} > {}", w.value(kind, &one)),
        3 => format!("{column} <= {}", w.value(kind, &one)),
        4 => format!("{column} <> {}", w.value(kind, &one)),
        5 => format!(
            "{column} IN ({}, {})",
            w.value(kind, &one),
            w.value(kind, &two)
        ),
        6 => format!(
            "{column} NOT IN ({}, {})",
            w.value(kind, &one),
            w.value(kind, &two)
        ),
        7 => format!(
            "{column} BETWEEN SYMMETRIC {} AND {}",
            w.value(kind, &one),
            w.value(kind, &two)
        ),
        8 => format!("{column} IS DISTINCT FROM {}", w.value(kind, &one)),
        9 => format!("({column} = {} OR {column} IS NULL)", w.value(kind, &one)),
        10 => format!("{column} = ANY {}", w.array(kind, &[one, two, Value::Null])),
        11 => format!("{column} <> ALL {}", w.array(kind, &[one, two])),
        12 if kind == Kind::Text => format!("{column} LIKE '%a%'"),
        13 if kind.is_int() => format!("{column} % 2 = 0"),
        _ => format!("NOT ({column} = {})", w.value(kind, &one)),
    }
}

/// A predicate over key columns that proves little or nothing, or less than one may think.
fn deceptive(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let at = *w.random.choose(&relation.table.key);
    let kind = relation.table.columns[at].kind;
    let column = w.column(relation, at);
    let keys = [(); 2].map(|()| rows::key(w.random, relation.table));
    let position = relation
        .table
        .key
        .iter()
        .position(|it| *it == at)
        .expect("its own");
    let [one, two] = keys.map(|key| key[position].clone());
    match w.random.below(15) {
        0 => format!("NOT ({column} = {})", w.value(kind, &one)),
        1 => format!("{column} <> {}", w.value(kind, &one)),
        2 => format!("{column} IS NOT NULL"),
        3 => format!("{column} IS NULL"),
        4 => format!("{column} > {}", w.value(kind, &one)),
        5 => format!("{column} IS DISTINCT FROM {}", w.value(kind, &one)),
        6 => format!(
            "({column} = {} OR {})",
            w.value(kind, &one),
            filter(w, relation)
        ),
        7 => format!(
            "{column} NOT IN ({}, {})",
            w.value(kind, &one),
            w.value(kind, &two)
        ),
        8 => format!(
            "CASE WHEN {column} = {} THEN true ELSE false END",
            w.value(kind, &one)
        ),
        9 => format!("coalesce({column} = {}, true)", w.value(kind, &one)),
        10 => format!("({column} = {}) = false", w.value(kind, &one)),
        11 => format!(
            "{column} = {} AND {column} = {}",
            w.value(kind, &one),
            w.value(kind, &two)
        ),
        12 => format!("{column} = NULL"),
        13 => format!("({column} = {}) IS NOT TRUE", w.value(kind, &one)),
        _ => format!(
            "NOT ({column} = {} AND {})",
            w.value(kind, &one),
            filter(w, relation)
        ),
    }
}

/// A tree of predicates of all sorts.
pub(super) fn tree(w: &mut Writer<'_>, relation: &Relation<'_>, depth: usize) -> String {
    if depth == 0 || w.random.chance(25) {
        return match w.random.below(5) {
            0 | 1 => {
                let key = rows::key(w.random, relation.table);
                of_key(w, relation, &key)
            }
            2 => deceptive(w, relation),
            _ => filter(w, relation),
        };
    }
    let (left, right) = (tree(w, relation, depth - 1), tree(w, relation, depth - 1));
    match w.random.below(6) {
        0..=2 => format!("({left}) AND ({right})"),
        3 | 4 => format!("({left}) OR ({right})"),
        _ => format!("NOT ({left}) AND ({right})"),
    }
}

/// A WHERE clause, without the word, that confines the relation to the key, with more beside it.
pub(super) fn confined(w: &mut Writer<'_>, relation: &Relation<'_>, key: &KeyValues) -> String {
    let mut parts = vec![of_key(w, relation, key)];
    for _ in 0..w.random.below(3) {
        let part = filter(w, relation);
        let at = w.random.below(parts.len() + 1);
        parts.insert(at, part);
    }
    parts.join(" AND ")
}

/// A WHERE clause of any sort, with the word; nothing sometimes.
pub(super) fn any(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let condition = match w.random.below(10) {
        0..=4 => {
            let key = rows::key(w.random, relation.table);
            confined(w, relation, &key)
        }
        5 | 6 => {
            let count = 2 + w.random.below(3);
            let keys: Vec<KeyValues> = (0..count)
                .map(|_| rows::key(w.random, relation.table))
                .collect();
            of_keys(w, relation, &keys)
        }
        7 | 8 => tree(w, relation, 2),
        _ => return String::new(),
    };
    format!(" WHERE {condition}")
}
