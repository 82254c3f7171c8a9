//! INSERT, UPDATE, DELETE and MERGE.

use super::expression::scalar;
use super::join::{comparable, on_key, pair};
use super::predicate::{any, confined, filter, of_key, of_keys};
use super::rows;
use super::schema::Table;
use super::select::table;
use super::value::Value;
use super::writer::{Relation, Step, Writer};

/// A number that hardly any row of the key has.
fn fresh(w: &mut Writer<'_>) -> i64 {
    let end = if w.random.chance(85) { 2_000_000 } else { 30 };
    i64::try_from(w.random.below(end)).expect("small")
}

fn returning(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    match w.random.below(5) {
        0 => " RETURNING *".to_owned(),
        1 => format!(" RETURNING {} AS e", scalar(w, relation)),
        _ => String::new(),
    }
}

/// A target of INSERT: its name, its columns, and the list of them as written.
struct Target<'a> {
    relation: Relation<'a>,
    columns: Vec<usize>,
    list: String,
}

fn target<'a>(w: &mut Writer<'a>, table: &'a Table) -> Target<'a> {
    let mut columns: Vec<usize> = (0..table.columns.len()).collect();
    let alias = w.random.chance(25);
    let mut relation = w.relation(table);
    if !alias || !relation.from.contains(" AS ") {
        // Without AS a name here would be a syntax error.
        while !relation.from.contains(" AS ") && relation.from.contains(' ') {
            relation = w.relation(table);
        }
    }
    if w.random.chance(30) {
        return Target {
            relation,
            columns,
            list: String::new(),
        };
    }
    // Any order, and sometimes not all of them.
    for at in 0..columns.len() {
        let other = w.random.below(columns.len());
        columns.swap(at, other);
    }
    if w.random.chance(30) && table.is_sharded() {
        let payload = table.payload();
        columns.retain(|at| !payload.contains(at) || table.columns[*at].not_null || at % 2 == 0);
    }
    let names: Vec<String> = columns.iter().map(|&at| w.own_column(table, at)).collect();
    Target {
        relation,
        columns,
        list: format!(" ({})", names.join(", ")),
    }
}

/// The values of a row; one of them is wrong if asked for.
fn row(w: &mut Writer<'_>, target: &Target<'_>, wrong: bool) -> String {
    let table = target.relation.table;
    let (key, number) = (rows::key(w.random, table), fresh(w));
    let all = rows::row(w.random, table, &key, number);
    let spoilt = w.random.below(target.columns.len());
    let values: Vec<String> = target
        .columns
        .iter()
        .enumerate()
        .map(|(place, &at)| {
            let kind = table.columns[at].kind;
            if wrong && place == spoilt {
                return (*w
                    .random
                    .choose(&["NULL", "1 / 0", "'bad'", "DEFAULT", "'x y z x y z'"]))
                .to_owned();
            }
            let is_payload = !table.key.contains(&at) && at != table.number;
            match w.random.below(40) {
                0 if is_payload => "DEFAULT".to_owned(),
                1 if is_payload && all[at] != Value::Null => {
                    format!("coalesce(NULL, {})", w.typed(kind, &all[at]))
                }
                2 if table.key.contains(&at) => w.typed(kind, &all[at]),
                _ => w.value(kind, &all[at]),
            }
        })
        .collect();
    format!("({})", values.join(", "))
}

fn conflict(w: &mut Writer<'_>, target: &Target<'_>) -> (String, bool) {
    let table = target.relation.table;
    let columns: Vec<String> = table
        .key
        .iter()
        .chain([&table.number])
        .map(|&at| w.own_column(table, at))
        .collect();
    let payload = *w.random.choose(&table.payload());
    let own = w.own_column(table, payload);
    match w.random.below(8) {
        0 => (" ON CONFLICT DO NOTHING".to_owned(), false),
        1 => (
            format!(" ON CONFLICT ({}) DO NOTHING", columns.join(", ")),
            false,
        ),
        2 => (
            format!(
                " ON CONFLICT ({}) DO UPDATE SET {own} = excluded.{own}",
                columns.join(", ")
            ),
            true,
        ),
        3 => {
            let filter = filter(w, &target.relation.clone().qualified());
            let columns = columns.join(", ");
            (
                format!(
                    " ON CONFLICT ({columns}) DO UPDATE SET {own} = EXCLUDED.{own} WHERE {filter}"
                ),
                false,
            )
        }
        _ => (String::new(), true),
    }
}

/// INSERT … VALUES of up to `rows` rows.
fn insert(w: &mut Writer<'_>, most: usize) -> Vec<Step> {
    let table = table(w);
    let target = target(w, table);
    let count = 1 + w.random.below(most);
    let wrong = if w.random.chance(8) {
        Some(w.random.below(count))
    } else {
        None
    };
    let rows: Vec<String> = (0..count)
        .map(|at| row(w, &target, wrong == Some(at)))
        .collect();
    let (conflict, ordered) = conflict(w, &target);
    let returning = returning(w, &target.relation.clone().qualified());
    let sql = format!(
        "INSERT INTO {}{} VALUES {}{conflict}{returning}",
        target.relation.from,
        target.list,
        rows.join(", ")
    );
    vec![w.step(sql, ordered)]
}

pub(super) fn insert_one(w: &mut Writer<'_>) -> Vec<Step> {
    insert(w, 1)
}

pub(super) fn insert_many(w: &mut Writer<'_>) -> Vec<Step> {
    insert(w, 8)
}

/// INSERT … SELECT, and INSERT of nothing but defaults.
pub(super) fn insert_select(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    if w.random.chance(8) {
        let sql = format!("INSERT INTO {} DEFAULT VALUES", table.sql());
        return vec![w.step(sql, true)];
    }
    let source = w.relation(table).qualified();
    let key = rows::key(w.random, table);
    let mut items = Vec::new();
    let shift = fresh(w);
    for at in 0..table.columns.len() {
        let column = w.column(&source, at);
        items.push(match table.key.iter().position(|key| *key == at) {
            Some(part) if w.random.chance(40) => w.typed(table.columns[at].kind, &key[part]),
            None if at == table.number => format!("{column} + {shift}"),
            _ => column,
        });
    }
    let condition = if w.random.chance(85) {
        format!(" WHERE {}", confined(w, &source, &key))
    } else {
        any(w, &source)
    };
    let sql = format!(
        "INSERT INTO {} SELECT {} FROM {}{condition} ON CONFLICT DO NOTHING",
        table.sql(),
        items.join(", "),
        source.from
    );
    vec![w.step(sql, true)]
}

/// WHERE of a write: of one key mostly.
fn written(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let key = rows::key(w.random, relation.table);
    match w.random.below(10) {
        0..=6 => format!(" WHERE {}", confined(w, relation, &key)),
        7 | 8 => {
            let keys = [key, rows::key(w.random, relation.table)];
            let filter = filter(w, relation);
            format!(" WHERE {} AND {filter}", of_keys(w, relation, &keys))
        }
        _ => any(w, relation),
    }
}

/// `column = value` of a column that is not of the key.
fn assignment(w: &mut Writer<'_>, relation: &Relation<'_>) -> String {
    let table = relation.table;
    let at = *w.random.choose(&table.payload());
    let (name, kind) = (w.own_column(table, at), table.columns[at].kind);
    let column = w.column(relation, at);
    let value = rows::of_column(w.random, table, at);
    match w.random.below(8) {
        0 => format!("{name} = DEFAULT"),
        1 => format!("{name} = NULL"),
        2 => format!("{name} = coalesce({column}, {})", w.typed(kind, &value)),
        3 => format!("({name}) = ROW({})", w.value(kind, &value)),
        4 if kind.is_int() => format!("{name} = ({column} + 1) % 100"),
        _ => format!("{name} = {}", w.value(kind, &value)),
    }
}

pub(super) fn update(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.relation(table);
    let set = assignment(w, &relation);
    let (condition, returning) = (written(w, &relation), returning(w, &relation));
    let sql = format!("UPDATE {} SET {set}{condition}{returning}", relation.from);
    vec![w.step(sql, false)]
}

pub(super) fn update_key(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.relation(table);
    let (old, new) = (rows::key(w.random, table), rows::key(w.random, table));
    let at = table.key[0];
    let name = w.own_column(table, at);
    let kind = table.columns[at].kind;
    let value = if w.random.chance(40) {
        &old[0]
    } else {
        &new[0]
    };
    let value = w.value(kind, value);
    let condition = confined(w, &relation, &old);
    let number = w.own_column(table, table.number);
    let shift = fresh(w);
    let sql = format!(
        "UPDATE {} SET {name} = {value}, {number} = {} WHERE {condition}",
        relation.from,
        if w.random.chance(50) {
            format!("n + {shift}")
        } else {
            number.clone()
        }
    );
    vec![w.step(sql, true)]
}

pub(super) fn delete(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let relation = w.relation(table);
    let (condition, returning) = (written(w, &relation), returning(w, &relation));
    let narrow = filter(w, &relation);
    let number = w.column(&relation, table.number);
    let word = if condition.is_empty() {
        " WHERE"
    } else {
        " AND"
    };
    // Tables should not run empty.
    let open = condition.replacen(" WHERE ", " WHERE (", 1);
    let close = if condition.is_empty() { "" } else { ")" };
    let sql = format!(
        "DELETE FROM {}{open}{close}{word} {number} % 3 = 0 AND {narrow}{returning}",
        relation.from
    );
    vec![w.step(sql, false)]
}

/// UPDATE … FROM and DELETE … USING, with subqueries too.
pub(super) fn write_from(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let key = rows::key(w.random, left.table);
    let mut condition = of_key(w, &left, &key);
    let numbers = [(&left, left.table.number), (&right, right.table.number)]
        .map(|(relation, at)| w.column(relation, at));
    let link = if same && w.random.chance(85) {
        on_key(w, &left, &right)
    } else {
        let key = rows::key(w.random, right.table);
        of_key(w, &right, &key)
    };
    condition = format!("{condition} AND {link}");
    let set = assignment(w, &left);
    let narrow = filter(w, &right);
    let sql = match w.random.below(4) {
        // At most one row of the other table meets each.
        0 => format!(
            "UPDATE {} SET {set} FROM {} WHERE {condition} AND {} = {}",
            left.from, right.from, numbers[0], numbers[1]
        ),
        1 => format!(
            "DELETE FROM {} USING {} WHERE {condition} AND {} = {}",
            left.from, right.from, numbers[0], numbers[1]
        ),
        2 => format!(
            "UPDATE {} SET {set} WHERE {} AND EXISTS (SELECT 1 FROM {} WHERE {link} AND {narrow})",
            left.from,
            of_key(w, &left, &key),
            right.from
        ),
        _ => format!(
            "DELETE FROM {} WHERE {} AND {} IN (SELECT {} FROM {} WHERE {link})",
            left.from,
            of_key(w, &left, &key),
            numbers[0],
            numbers[1],
            right.from
        ),
    };
    vec![w.step(sql, false)]
}

/// Data-modifying WITH.
pub(super) fn with_write(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    let key = rows::key(w.random, left.table);
    let condition = confined(w, &left, &key);
    let (number, own) = (
        w.column(&left, left.table.number),
        w.column(&right, right.table.number),
    );
    let set = assignment(w, &left);
    let other = if same {
        of_key(w, &right, &key)
    } else {
        let key = rows::key(w.random, right.table);
        of_key(w, &right, &key)
    };
    let sql = match w.random.below(3) {
        0 => format!(
            "WITH gone AS (DELETE FROM {} WHERE {condition} AND {number} % 4 = 0 RETURNING {number} AS m) SELECT count(*), max(m) FROM gone",
            left.from
        ),
        1 => format!(
            "WITH changed AS (UPDATE {} SET {set} WHERE {condition} RETURNING {number} AS m) SELECT m FROM changed",
            left.from
        ),
        _ => format!(
            "WITH some AS (SELECT {own} AS m FROM {} WHERE {other}) DELETE FROM {} WHERE {condition} AND {number} IN (SELECT m FROM some WHERE m % 2 = 0)",
            right.from, left.from
        ),
    };
    vec![w.step(sql, false)]
}

pub(super) fn merge(w: &mut Writer<'_>) -> Vec<Step> {
    let (left, right, same) = pair(w);
    if !same || !comparable(left.table, right.table) {
        return update(w);
    }
    let key = rows::key(w.random, left.table);
    let numbers = [(&left, left.table.number), (&right, right.table.number)]
        .map(|(relation, at)| w.column(relation, at));
    let (link, one, two) = (
        on_key(w, &left, &right),
        of_key(w, &left, &key),
        of_key(w, &right, &key),
    );
    let set = assignment(w, &left);
    let sql = format!(
        "MERGE INTO {} USING {} ON {link} AND {} = {} AND {one} AND {two} WHEN MATCHED AND {} % 5 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET {set}",
        left.from, right.from, numbers[0], numbers[1], numbers[0]
    );
    vec![w.step(sql, true)]
}
