//! What stands in FROM: tables, views, subqueries, lists of values, series, and joins of them.

use super::expression::{condition, inner, leaf};
use super::query;
use super::writer::{Column, Kind, Scope, Writer, type_name};

struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
}

use Kind::{Date, Float, Int, Num, Text, Time};

const TABLES: [Table; 10] = [
    Table {
        name: "customers",
        columns: &[
            ("c_id", Int),
            ("region", Text),
            ("name", Text),
            ("tier", Int),
            ("balance", Num),
            ("created", Date),
        ],
    },
    Table {
        name: "orders",
        columns: &[
            ("o_id", Int),
            ("c_id", Int),
            ("status", Text),
            ("total", Num),
            ("placed", Time),
        ],
    },
    Table {
        name: "items",
        columns: &[
            ("o_id", Int),
            ("c_id", Int),
            ("p_id", Int),
            ("qty", Int),
            ("price", Num),
        ],
    },
    Table {
        name: "products",
        columns: &[
            ("p_id", Int),
            ("cat_id", Int),
            ("name", Text),
            ("price", Num),
        ],
    },
    Table {
        name: "reviews",
        columns: &[
            ("r_id", Int),
            ("p_id", Int),
            ("c_id", Int),
            ("stars", Float),
        ],
    },
    Table {
        name: "cats",
        columns: &[("cat_id", Int), ("name", Text), ("parent", Int)],
    },
    Table {
        name: "settings",
        columns: &[("k", Text), ("v", Text)],
    },
    Table {
        name: "large_orders",
        columns: &[
            ("o_id", Int),
            ("c_id", Int),
            ("status", Text),
            ("total", Num),
            ("placed", Time),
        ],
    },
    Table {
        name: "spent",
        columns: &[
            ("c_id", Int),
            ("region", Text),
            ("o_id", Int),
            ("total", Num),
        ],
    },
    Table {
        name: "sold",
        columns: &[("p_id", Int), ("qty", Int), ("times", Int)],
    },
];

/// Two tables and the columns that USING may name.
const USING: [(usize, usize, &str); 8] = [
    (0, 1, "c_id"),
    (1, 2, "c_id, o_id"),
    (0, 2, "c_id"),
    (2, 3, "p_id"),
    (3, 4, "p_id"),
    (3, 5, "cat_id"),
    (2, 4, "p_id, c_id"),
    (1, 4, "c_id"),
];

/// A table or view under a name of its own.
fn table(w: &mut Writer<'_>, at: usize, may_rename: bool) -> Scope {
    let table = &TABLES[at];
    let name = w.name('t');
    let schema = if w.chance(10) { "public." } else { "" };
    if may_rename && w.chance(6) {
        let first = w.name('k');
        let columns = table.columns.iter().enumerate();
        return Scope {
            from: format!("{schema}{} AS {name} ({first})", table.name),
            columns: columns
                .map(|(at, (column, kind))| Column {
                    name: format!("{name}.{}", if at == 0 { first.as_str() } else { column }),
                    kind: *kind,
                })
                .collect(),
            names: vec![name],
        };
    }
    let only = if may_rename && at < 7 && w.chance(5) {
        "ONLY "
    } else {
        ""
    };
    Scope {
        from: format!("{only}{schema}{} {name}", table.name),
        columns: columns_of(
            &name,
            table
                .columns
                .iter()
                .map(|(column, kind)| ((*column).to_owned(), *kind)),
        ),
        names: vec![name],
    }
}

fn columns_of(relation: &str, columns: impl Iterator<Item = (String, Kind)>) -> Vec<Column> {
    columns
        .map(|(column, kind)| Column {
            name: format!("{relation}.{column}"),
            kind,
        })
        .collect()
}

/// A relation that is no join.
fn one(w: &mut Writer<'_>, depth: usize) -> Scope {
    match w.random.below(20) {
        0 if depth > 0 => subquery(w, depth - 1, ""),
        1 if depth > 0 => subquery(w, depth - 1, "LATERAL "),
        2 => values(w),
        18 => stacked(w),
        19 => groups(w),
        3 => {
            let name = w.name('g');
            let (from, to) = (w.random.below(4), w.random.below(9));
            Scope {
                from: format!("generate_series({from}, {to}) AS {name} (i)"),
                columns: columns_of(&name, [("i".to_owned(), Int)].into_iter()),
                names: vec![name],
            }
        }
        4..=7 if !w.named.is_empty() => {
            let named = w.named.clone();
            let (query, columns) = w.random.choose(&named).clone();
            let name = w.name('w');
            Scope {
                from: format!("{query} {name}"),
                columns: columns_of(&name, columns.into_iter()),
                names: vec![name],
            }
        }
        _ => {
            let at = w.random.below(TABLES.len());
            table(w, at, true)
        }
    }
}

/// The values of a column of two tables.
fn stacked(w: &mut Writer<'_>) -> Scope {
    const COLUMNS: [(&str, [usize; 3]); 3] = [
        ("c_id", [0, 1, 4]),
        ("p_id", [2, 3, 4]),
        ("o_id", [1, 2, 2]),
    ];
    let (column, tables) = *w.random.choose(&COLUMNS);
    let operator = w.choose(&["UNION ALL", "UNION ALL", "UNION"]);
    let side = |w: &mut Writer<'_>| {
        let at = *w.random.choose(&tables);
        let scope = table(w, at, false);
        let condition = if w.chance(40) {
            format!(
                " WHERE {}.{column} < {}",
                scope.names[0],
                w.random.below(50)
            )
        } else {
            String::new()
        };
        format!(
            "SELECT {}.{column} FROM {}{condition}",
            scope.names[0], scope.from
        )
    };
    let (one, other) = (side(w), side(w));
    let name = w.name('u');
    Scope {
        from: format!("({one} {operator} {other}) AS {name}"),
        columns: columns_of(&name, std::iter::once((column.to_owned(), Int))),
        names: vec![name],
    }
}

/// The values of one column of a table, each once, and what is known of its rows.
fn groups(w: &mut Writer<'_>) -> Scope {
    let table = w.random.choose(&TABLES[..5]);
    let ints: Vec<&str> = table
        .columns
        .iter()
        .filter(|(_, kind)| *kind == Int)
        .map(|(column, _)| *column)
        .collect();
    let key = ints[w.random.below(ints.len().min(2))];
    let column = *w.random.choose(&ints);
    let total = w.choose(&["count", "sum", "min", "max"]);
    let operator = w.choose(&["<", ">", "<>", "="]);
    let bound = w.random.below(6);
    let condition = if w.chance(25) {
        format!(" WHERE {column} > {}", w.random.below(4))
    } else {
        String::new()
    };
    let name = w.name('h');
    Scope {
        from: format!(
            "(SELECT {key}, count(*) AS times FROM {}{condition} GROUP BY {key} HAVING {total}({column}) {operator} {bound}) AS {name}",
            table.name
        ),
        columns: columns_of(
            &name,
            [(key, Int), ("times", Int)]
                .map(|(name, kind)| (name.to_owned(), kind))
                .into_iter(),
        ),
        names: vec![name],
    }
}

fn subquery(w: &mut Writer<'_>, depth: usize, lateral: &str) -> Scope {
    let kinds = w.kinds();
    let name = w.name('q');
    let query = query::select(w, &kinds, depth);
    let columns = (1..).map(|at| format!("x{at}")).zip(kinds);
    Scope {
        from: format!("{lateral}({query}) AS {name}"),
        columns: columns_of(&name, columns),
        names: vec![name],
    }
}

fn values(w: &mut Writer<'_>) -> Scope {
    let kinds = w.kinds();
    let count = 1 + w.random.below(4);
    let rows: Vec<String> = (0..count)
        .map(|_| {
            let fields = kinds.iter().map(|kind| {
                if w.chance(10) {
                    format!("NULL::{}", type_name(*kind))
                } else {
                    w.literal(*kind)
                }
            });
            format!("({})", fields.collect::<Vec<_>>().join(", "))
        })
        .collect();
    let name = w.name('v');
    let names: Vec<String> = (1..=kinds.len()).map(|at| format!("y{at}")).collect();
    Scope {
        from: format!(
            "(VALUES {}) AS {name} ({})",
            rows.join(", "),
            names.join(", ")
        ),
        columns: columns_of(&name, names.iter().cloned().zip(kinds)),
        names: vec![name],
    }
}

/// One relation or a join of a few.
pub(super) fn from(w: &mut Writer<'_>, depth: usize) -> Scope {
    if w.chance(12) {
        let (left, right, columns) = *w.random.choose(&USING);
        let (left, right) = (table(w, left, false), table(w, right, false));
        let join = w.choose(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let from = if w.chance(30) {
            format!("{} NATURAL {join} {}", left.from, right.from)
        } else {
            format!("{} {join} {} USING ({columns})", left.from, right.from)
        };
        return joined(left, right, from);
    }
    let mut scope = one(w, depth);
    let more = *w.random.choose(&[0, 0, 0, 1, 1, 1, 1, 2]);
    for _ in 0..more {
        // A lateral relation may name those on its left.
        let right = inner(w, &Scope::default(), |w| one(w, depth));
        scope = join(w, scope, right);
    }
    if depth > 0 && w.chance(8) {
        let right = inner(w, &scope, |w| subquery(w, depth - 1, "LATERAL "));
        let from = if w.chance(50) {
            format!("{} CROSS JOIN {}", scope.from, right.from)
        } else {
            format!("{} LEFT JOIN {} ON true", scope.from, right.from)
        };
        scope = joined(scope, right, from);
    }
    scope
}

fn joined(left: Scope, right: Scope, from: String) -> Scope {
    Scope {
        from,
        columns: [left.columns, right.columns].concat(),
        names: [left.names, right.names].concat(),
    }
}

fn join(w: &mut Writer<'_>, left: Scope, right: Scope) -> Scope {
    let mut pairs = Vec::new();
    for one in &left.columns {
        for other in &right.columns {
            let plain = |name: &str| name.rsplit('.').next().map(str::to_owned);
            if one.kind == other.kind && matches!(one.kind, Int | Text | Date) {
                let weight = if plain(&one.name) == plain(&other.name) {
                    6
                } else {
                    1
                };
                pairs.extend(std::iter::repeat_n(
                    (one.name.clone(), other.name.clone()),
                    weight,
                ));
            }
        }
    }
    if pairs.is_empty() || w.chance(4) {
        let from = format!("{} CROSS JOIN {}", left.from, right.from);
        return joined(left, right, from);
    }
    let (one, other) = w.random.choose(&pairs).clone();
    let join = w.choose(&[
        "JOIN",
        "JOIN",
        "LEFT JOIN",
        "LEFT JOIN",
        "RIGHT JOIN",
        "FULL JOIN",
    ]);
    let mut on = format!("{one} = {other}");
    let from = |on: &str| format!("{} {join} {} ON {on}", left.from, right.from);
    if join != "FULL JOIN" && w.chance(25) {
        let mut both = left.clone();
        both.columns.extend(right.columns.iter().cloned());
        on = format!("{on} AND {}", condition(w, &both, 0));
    } else if w.chance(10) {
        let extra = leaf(w, &left, Int);
        on = format!("{on} AND {extra} IS NOT NULL");
    }
    let from = from(&on);
    joined(left, right, from)
}
