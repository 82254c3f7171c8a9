//! Several statements that belong together: blocks, savepoints, cursors, PREPARE, one text of many; and COPY.

use super::expression::{order, scalar};
use super::predicate::confined;
use super::rows;
use super::schema::Table;
use super::select::{mostly, table};
use super::value::Value;
use super::writer::{Form, Step, Writer};
use super::{join, query, select, write};

const WITHIN: [fn(&mut Writer<'_>) -> Vec<Step>; 10] = [
    select::columns,
    select::aggregates,
    select::locks,
    join::on_clause,
    query::subqueries,
    write::insert_one,
    write::insert_one,
    write::update,
    write::delete,
    select::errors,
];

/// A block, with savepoints perhaps.
pub(super) fn block(w: &mut Writer<'_>) -> Vec<Step> {
    let begin = *w.random.choose(&[
        "BEGIN",
        "START TRANSACTION",
        "begin isolation level repeatable read",
    ]);
    let mut steps = vec![Step::simple(begin)];
    let mut open = false;
    for _ in 0..=w.random.below(4) {
        match w.random.below(8) {
            0 if !open => {
                steps.push(Step::simple("SAVEPOINT s"));
                open = true;
            }
            1 if open => steps.push(Step::simple("ROLLBACK TO SAVEPOINT s")),
            2 if open => {
                steps.push(Step::simple("RELEASE s"));
                open = false;
            }
            _ => {
                let one = w.random.choose(&WITHIN);
                steps.extend(one(w));
            }
        }
    }
    if open && w.random.chance(50) {
        steps.push(Step::simple("ROLLBACK TO s"));
    }
    let end = *w.random.choose(&["COMMIT", "COMMIT", "END", "ROLLBACK"]);
    steps.push(Step::simple(end));
    steps
}

/// A block whose statements are all of one key.
pub(super) fn block_of_key(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let key = rows::key(w.random, table);
    let mut steps = vec![Step::simple("BEGIN")];
    for _ in 0..2 + w.random.below(3) {
        if w.random.chance(25) {
            steps.push(Step::simple("SAVEPOINT a"));
        }
        let relation = w.relation(table);
        let number = w.column(&relation, table.number);
        let condition = confined(w, &relation, &key);
        let from = relation.from.clone();
        let (sql, ordered) = match w.random.below(4) {
            0 => (
                format!("DELETE FROM {from} WHERE {condition} AND {number} % 7 = 1"),
                true,
            ),
            1 => (
                format!("SELECT count(*), sum({number}) FROM {from} WHERE {condition}"),
                true,
            ),
            2 => (
                format!("SELECT {number} FROM {from} WHERE {condition} FOR UPDATE"),
                false,
            ),
            _ => {
                let order = order(w, &relation);
                (
                    format!(
                        "SELECT {} FROM {from} WHERE {condition} ORDER BY {order}",
                        scalar(w, &relation)
                    ),
                    true,
                )
            }
        };
        steps.push(w.step(sql, ordered));
        if w.random.chance(15) {
            steps.push(Step::simple("SELECT 1/0"));
            steps.push(Step::simple("ROLLBACK TO a"));
        }
    }
    let end = *w.random.choose(&["COMMIT", "ROLLBACK"]);
    steps.push(Step::simple(end));
    steps
}

pub(super) fn cursor(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    w.literals_only();
    let relation = w.relation(table);
    let (order, plain) = (order(w, &relation), scalar(w, &relation));
    let condition = mostly(w, &relation);
    let declare = format!(
        "DECLARE c {}CURSOR FOR SELECT {plain} FROM {}{condition} ORDER BY {order}",
        *w.random.choose(&["", "SCROLL ", "NO SCROLL ", "BINARY "]),
        relation.from
    );
    let mut steps = vec![Step::simple("BEGIN"), w.step(declare, true)];
    for _ in 0..=w.random.below(3) {
        let move_on = *w.random.choose(&[
            "FETCH 2 FROM c",
            "FETCH c",
            "FETCH ALL IN c",
            "MOVE 1 FROM c",
            "FETCH FORWARD 3 FROM c",
        ]);
        steps.push(Step::simple(move_on));
    }
    if w.random.chance(50) {
        steps.push(Step::simple("CLOSE c"));
    }
    steps.push(Step::simple("COMMIT"));
    steps
}

/// SQL's own PREPARE and EXECUTE.
pub(super) fn prepare(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    w.literals_only();
    let relation = w.relation(table).qualified();
    let key = rows::key(w.random, table);
    let columns: Vec<String> = table
        .key
        .iter()
        .enumerate()
        .map(|(part, &at)| format!("{} = ${}", w.column(&relation, at), part + 1))
        .collect();
    let kinds: Vec<&str> = table
        .key
        .iter()
        .map(|&at| table.columns[at].kind.name())
        .collect();
    let values: Vec<String> = key
        .iter()
        .map(|value| {
            value.text().map_or_else(
                || "NULL".to_owned(),
                |text| format!("'{}'", text.replace('\'', "''")),
            )
        })
        .collect();
    let prepare = format!(
        "PREPARE p ({}) AS SELECT {} FROM {} WHERE {}",
        kinds.join(", "),
        w.column(&relation, table.number),
        relation.from,
        columns.join(" AND ")
    );
    let execute = format!("EXECUTE p ({})", values.join(", "));
    vec![
        w.step(prepare, true),
        Step {
            ordered: false,
            ..Step::simple(&execute)
        },
        Step {
            ordered: false,
            ..Step::simple(&execute)
        },
        Step::simple("DEALLOCATE p"),
    ]
}

/// Several statements in one text, which are one transaction.
pub(super) fn joined(w: &mut Writer<'_>) -> Vec<Step> {
    let mut texts = Vec::new();
    for _ in 0..2 + w.random.below(2) {
        w.literals_only();
        let one = w.random.choose(&WITHIN);
        texts.extend(one(w).into_iter().map(|step| step.sql));
    }
    vec![Step {
        ordered: false,
        ..Step::simple(&texts.join("; "))
    }]
}

pub(super) fn copy_out(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    w.literals_only();
    let relation = w.relation(table);
    let options = *w.random.choose(&[
        "",
        " WITH (FORMAT csv)",
        " (FORMAT csv, HEADER, DELIMITER ';', NULL 'none')",
        " (FORMAT binary)",
        " CSV HEADER QUOTE '|'",
        " WITH (FORCE_QUOTE *, FORMAT csv)",
    ]);
    let sql = if w.random.chance(35) {
        let columns = if w.random.chance(50) {
            format!(" ({})", w.own_column(table, table.number))
        } else {
            String::new()
        };
        format!("COPY {}{columns} TO STDOUT{options}", table.sql())
    } else {
        let items = scalar(w, &relation);
        let condition = mostly(w, &relation);
        format!(
            "COPY (SELECT {items} FROM {}{condition}) TO STDOUT{options}",
            relation.from
        )
    };
    vec![Step {
        ordered: false,
        ..Step::simple(&sql)
    }]
}

pub(super) fn copy_in(w: &mut Writer<'_>) -> Vec<Step> {
    let table = table(w);
    let count = w.random.below(8);
    let rows: Vec<Vec<Value>> = (0..count)
        .map(|_| {
            let key = rows::key(w.random, table);
            let number = i64::try_from(w.random.below(2_000_000)).expect("small");
            rows::row(w.random, table, &key, number)
        })
        .collect();
    // Any order of columns.
    let mut columns: Vec<usize> = (0..table.columns.len()).collect();
    let listed = w.random.chance(50);
    if listed {
        for at in 0..columns.len() {
            let other = w.random.below(columns.len());
            columns.swap(at, other);
        }
    }
    let names: Vec<String> = columns.iter().map(|&at| w.own_column(table, at)).collect();
    let list = if listed {
        format!(" ({})", names.join(", "))
    } else {
        String::new()
    };
    let csv = w.random.chance(40);
    let (options, mut data) = if csv {
        (" WITH (FORMAT csv)", csv_rows(&rows, &columns))
    } else {
        ("", text_rows(&rows, &columns))
    };
    spoil(w, csv, &mut data);
    let mut bytes = data.into_bytes();
    let options = if !csv && w.random.chance(30) {
        bytes = binary_rows(table, &rows, &columns);
        " (FORMAT binary)"
    } else {
        options
    };
    vec![Step {
        sql: format!("COPY {}{list} FROM STDIN{options}", table.sql()),
        form: Form::CopyIn(bytes),
        ordered: true,
    }]
}

/// A row that is there already, or one that is cut off or too long.
fn spoil(w: &mut Writer<'_>, csv: bool, data: &mut String) {
    let delimiter = if csv { ',' } else { '\t' };
    let Some(first) = data.lines().next().map(str::to_owned) else {
        return;
    };
    let line = match w.random.below(25) {
        0 => format!("{first}\n"),
        // The last column holds the key or does not: the error is the same.
        1 => format!("{}\n", first.rsplit_once(delimiter).map_or("", |it| it.0)),
        2 => format!("{first}{delimiter}more\n"),
        3 => "\\.\n".to_owned(),
        _ => String::new(),
    };
    data.push_str(&line);
}

fn text_rows(rows: &[Vec<Value>], columns: &[usize]) -> String {
    let line = |row: &Vec<Value>| {
        let fields: Vec<String> = columns.iter().map(|&at| row[at].copied()).collect();
        fields.join("\t") + "\n"
    };
    rows.iter().map(line).collect()
}

fn csv_rows(rows: &[Vec<Value>], columns: &[usize]) -> String {
    let field = |value: &Value| {
        value.text().map_or_else(String::new, |text| {
            format!("\"{}\"", text.replace('"', "\"\""))
        })
    };
    let line = |row: &Vec<Value>| {
        let fields: Vec<String> = columns.iter().map(|&at| field(&row[at])).collect();
        fields.join(",") + "\n"
    };
    rows.iter().map(line).collect()
}

fn binary_rows(table: &Table, rows: &[Vec<Value>], columns: &[usize]) -> Vec<u8> {
    let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    for row in rows {
        bytes.extend(u16::try_from(columns.len()).expect("few").to_be_bytes());
        for &at in columns {
            match row[at].binary(table.columns[at].kind) {
                None => bytes.extend((-1_i32).to_be_bytes()),
                Some(field) => {
                    bytes.extend(i32::try_from(field.len()).expect("short").to_be_bytes());
                    bytes.extend(field);
                }
            }
        }
    }
    bytes.extend((-1_i16).to_be_bytes());
    bytes
}
