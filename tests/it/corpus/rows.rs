//! The rows of the shop, made by rule: what an order or a limit looks at has no ties where one PostgreSQL
//! would be free to choose, and has them elsewhere.

/// Rows of text; `None` is NULL.
pub(super) type Rows = Vec<Vec<Option<String>>>;

const REGIONS: [Option<&str>; 6] = [
    Some("EU"),
    Some("US"),
    Some("APAC"),
    None,
    Some("eu"),
    Some(""),
];
const NAMES: [&str; 14] = [
    "Zoë",
    "zoe",
    "Émile",
    "emile",
    "北京",
    "Ærø",
    "åben",
    "😀 smile",
    "it's",
    "O\"Neil",
    "tab\there",
    "",
    "x",
    "Ωmega",
];
const BALANCES: [&str; 12] = [
    "0",
    "-0.00",
    "1.10",
    "1.1",
    "-250.5",
    "99999999999999999999.000001",
    "-12345678901234567890",
    "0.000000000001",
    "3",
    "3.000",
    "7e3",
    "42.42",
];
const STATUSES: [Option<&str>; 7] = [
    Some("x"),
    Some("new"),
    Some("paid"),
    Some("x"),
    None,
    Some("ünpaid"),
    Some("paid"),
];
const STARS: [Option<&str>; 11] = [
    Some("0"),
    Some("-0"),
    Some("NaN"),
    Some("Infinity"),
    Some("-Infinity"),
    Some("1e-300"),
    Some("4.5"),
    Some("4.5"),
    Some("0.1"),
    None,
    Some("1e15"),
];

/// Every table with its rows.
pub(super) fn all() -> Vec<(&'static str, Rows)> {
    let (orders, items) = orders();
    vec![
        ("customers", customers()),
        ("orders", orders),
        ("items", items),
        ("products", products()),
        ("reviews", reviews()),
        ("cats", cats()),
        ("settings", settings()),
    ]
}

/// As COPY reads them.
pub(super) fn copy_text(rows: &Rows) -> Vec<u8> {
    let field = |value: &Option<String>| match value {
        None => "\\N".to_owned(),
        Some(text) => text
            .replace('\\', "\\\\")
            .replace('\t', "\\t")
            .replace('\n', "\\n"),
    };
    let line =
        |row: &Vec<Option<String>>| row.iter().map(field).collect::<Vec<_>>().join("\t") + "\n";
    rows.iter().map(line).collect::<String>().into_bytes()
}

#[expect(clippy::unnecessary_wraps, reason = "other values of a row are NULL")]
fn some<T: ToString + ?Sized>(value: &T) -> Option<String> {
    Some(value.to_string())
}

fn pick<'a>(list: &'a [Option<&str>], at: i64) -> Option<&'a str> {
    list[usize::try_from(at.rem_euclid(i64::try_from(list.len()).expect("short")))
        .expect("not negative")]
}

fn customer_ids() -> Vec<i64> {
    (-3..=50).chain([60, 77, 99, 2_147_483_647]).collect()
}

fn customers() -> Rows {
    let row = |(at, id): (usize, i64)| {
        let number = i64::try_from(at).expect("few");
        vec![
            some(&id),
            pick(&REGIONS, number * 7 / 3).map(str::to_owned),
            (at % 13 != 5).then(|| NAMES[at * 5 % NAMES.len()].to_owned()),
            (at % 9 != 8).then(|| (at % 4).to_string()),
            (at % 11 != 10).then(|| BALANCES[at * 7 % BALANCES.len()].to_owned()),
            (at % 10 != 9).then(|| {
                format!(
                    "{}-{:02}-{:02}",
                    2019 + at % 7,
                    1 + at % 12,
                    1 + at * 3 % 28
                )
            }),
        ]
    };
    customer_ids().into_iter().enumerate().map(row).collect()
}

/// How many orders a customer has: none or a few, one has many.
fn orders_of(id: i64) -> i64 {
    match id {
        42 => 30,
        7 | 1 => 12,
        id if id % 5 == 4 => 0,
        id => id.rem_euclid(6) + 1,
    }
}

/// Orders and their items.
fn orders() -> (Rows, Rows) {
    let (mut orders, mut items) = (Rows::new(), Rows::new());
    let (mut order, mut item) = (0_i64, 0_i64);
    for id in customer_ids() {
        for nth in 0..orders_of(id) {
            order += 1;
            // Ties between customers, none within one; the largest are all different.
            let cents = (nth * 37 + id.rem_euclid(60) * 11) % 50 * 2050 - 10_000;
            let cents = if cents > 60_000 { cents + order } else { cents };
            let total = match order {
                17 => None,
                18 => some("9999999999.99"),
                _ => some(&format!(
                    "{}{}.{:02}",
                    if cents < 0 { "-" } else { "" },
                    cents.abs() / 100,
                    cents.abs() % 100
                )),
            };
            let placed = (order != 23).then(|| {
                let minutes = order * 7919 % 400_000;
                format!(
                    "{}-{:02}-{:02} {:02}:{:02}:00.{:06}+00",
                    2020 + minutes % 5,
                    1 + minutes / 7 % 12,
                    1 + minutes / 91 % 28,
                    minutes / 11 % 24,
                    minutes % 60,
                    order
                )
            });
            orders.push(vec![
                some(&order),
                some(&id),
                pick(&STATUSES, order * 3 + nth).map(str::to_owned),
                total,
                placed,
            ]);
            for part in 0..order % 4 {
                item += 1;
                let product = (item * 13 + part) % 31;
                let row = vec![
                    some(&order),
                    some(&id),
                    (item % 29 != 3).then(|| product.to_string()),
                    (item % 17 != 11).then(|| ((item * 7 + part) % 9 - 1).to_string()),
                    (item % 23 != 7).then(|| {
                        format!(
                            "{}.{:0width$}",
                            item * 3,
                            item % 10,
                            width = 1 + usize::try_from(item % 4).expect("small")
                        )
                    }),
                ];
                // Some rows are there twice.
                if item % 15 == 0 {
                    items.push(row.clone());
                }
                items.push(row);
            }
        }
    }
    // Items of no order and of no customer.
    items.push(vec![
        some(&-1),
        some(&3),
        some(&5),
        some(&2_147_483_647),
        some("99999999999999999999.5"),
    ]);
    items.push(vec![
        None,
        some(&8),
        some(&5),
        some(&-2_147_483_648),
        some("-0.001"),
    ]);
    (orders, items)
}

fn products() -> Rows {
    let row = |id: i64| {
        vec![
            some(&id),
            (id % 8 != 6).then(|| (id % 9 + 1).to_string()),
            pick(&NAMES.map(Some), id * 3).map(str::to_owned),
            (id % 10 != 4).then(|| format!("{}.{}", id * id % 83, id % 7 * 10)),
        ]
    };
    (0..36).map(row).collect()
}

fn reviews() -> Rows {
    let row = |id: i64| {
        vec![
            some(&id),
            some(&(id * 5 % 37)),
            (id % 12 != 6).then(|| (id * 3 % 55).to_string()),
            pick(&STARS, id * 4).map(str::to_owned),
        ]
    };
    (0..90).map(row).collect()
}

fn cats() -> Rows {
    let parents = [
        None,
        Some(1),
        Some(1),
        Some(2),
        Some(3),
        None,
        Some(6),
        Some(7),
        Some(99),
        Some(10),
    ];
    let row = |(at, parent): (usize, Option<i32>)| {
        vec![
            some(&(at + 1)),
            (at != 4).then(|| format!("cat {}", at % 7)),
            parent.map(|parent| parent.to_string()),
        ]
    };
    parents.into_iter().enumerate().map(row).collect()
}

fn settings() -> Rows {
    let rows = [
        (Some("x"), Some("shipped")),
        (Some("paid"), None),
        (Some("paid"), Some("twice")),
        (None, Some("none")),
        (Some("ünpaid"), Some("late")),
        (Some("unused"), Some("")),
    ];
    rows.into_iter()
        .map(|(key, value)| vec![key.map(str::to_owned), value.map(str::to_owned)])
        .collect()
}
