//! Random statements of one key, through the proxy and on one PostgreSQL: the answers are equal.

use crate::client::{Answer, Client, ServerError};
use crate::fixture::{Fixture, Table, tables};
use crate::random::Random;

/// One statement, with its parameters when it goes by the extended protocol.
#[derive(Debug)]
struct Case {
    sql: String,
    values: Vec<String>,
    extended: bool,
}

impl Case {
    /// Writes a value as literal or parameter.
    fn value(&mut self, text: &str, is_number: bool) -> String {
        if self.extended {
            self.values.push(text.to_owned());
            return format!("${}", self.values.len());
        }
        if is_number {
            text.to_owned()
        } else {
            format!("'{}'", text.replace('\'', "''"))
        }
    }

    fn run(&self, client: &mut Client) -> Result<Answer, (String, String)> {
        let result: Result<Answer, ServerError> = if self.extended {
            let values: Vec<Option<&str>> = self
                .values
                .iter()
                .map(|value| Some(value.as_str()))
                .collect();
            client.query_with(&self.sql, &values)
        } else {
            client.query(&self.sql)
        };
        result.map_err(|error| (error.code, error.message))
    }
}

fn random_key(random: &mut Random, table: &Table) -> String {
    if table.is_text() {
        return (*random.choose(&["de", "fr", "A", "Ham", "Q", "it's", "x y", ""])).to_owned();
    }
    (random.below(16).cast_signed() - 6).to_string()
}

fn expression(random: &mut Random) -> String {
    (*random.choose(&[
        "k",
        "n",
        "v",
        "n + 1",
        "upper(v)",
        "coalesce(v, 'none')",
        "length(v) * 2",
        "k::text || v",
        "n::numeric / 3",
    ]))
    .to_owned()
}

/// A predicate that does not matter to the route.
fn filter(random: &mut Random, case: &mut Case) -> String {
    let number = random.below(6).to_string();
    match random.below(7) {
        0 => format!("n > {}", case.value(&number, true)),
        1 => format!("n IN ({}, 3)", case.value(&number, true)),
        2 => format!("v LIKE {}", case.value("a%", false)),
        3 => "v IS NOT NULL".to_owned(),
        4 => format!("(n = {} OR v = 'b')", case.value(&number, true)),
        5 => "NOT (n = 2)".to_owned(),
        _ => format!("n BETWEEN 1 AND {}", case.value(&number, true)),
    }
}

/// WHERE with the key somewhere in it.
fn condition(random: &mut Random, case: &mut Case, table: &Table, key: &str) -> String {
    let filters = (0..random.below(3))
        .map(|_| filter(random, case))
        .collect::<Vec<_>>();
    let key = case.value(key, !table.is_text());
    let by_key = match random.below(4) {
        0 => format!("{key} = k"),
        1 => format!("{}.k = {key}", table.name),
        2 => format!("k IN ({key})"),
        _ => format!("k = {key}"),
    };
    let mut parts = filters;
    parts.insert(random.below(parts.len() + 1), by_key);
    parts.join(" AND ")
}

fn random_case(random: &mut Random, table: &Table) -> Case {
    let mut case = Case {
        sql: String::new(),
        values: Vec::new(),
        extended: random.chance(50),
    };
    let key = random_key(random, table);
    let name = table.name;
    let n = random.below(6).to_string();
    let text = *random.choose(&["a", "b", "abc", "it's", "", "ü"]);
    case.sql = match random.below(10) {
        0..=2 => {
            let number = !table.is_text();
            let (key, n, text) = (
                case.value(&key, number),
                case.value(&n, true),
                case.value(text, false),
            );
            let tail = *random.choose(&[
                "",
                " ON CONFLICT DO NOTHING",
                " ON CONFLICT (k, n) DO UPDATE SET v = excluded.v RETURNING *",
                " RETURNING n, v",
            ]);
            format!("INSERT INTO {name} (n, k, v) VALUES ({n}, {key}, {text}){tail}")
        }
        3 => {
            let text = case.value(text, false);
            let condition = condition(random, &mut case, table, &key);
            format!("UPDATE {name} SET v = {text} WHERE {condition} RETURNING n")
        }
        4 => format!(
            "DELETE FROM {name} WHERE {} RETURNING n, v",
            condition(random, &mut case, table, &key)
        ),
        5 => {
            let condition = condition(random, &mut case, table, &key);
            format!(
                "SELECT count(*), sum(n), min(v), array_agg(n ORDER BY n) FROM {name} WHERE {condition}"
            )
        }
        6 => {
            let condition = condition(random, &mut case, table, &key);
            format!(
                "SELECT v, count(*) FROM {name} WHERE {condition} GROUP BY v HAVING count(*) > 0 ORDER BY v"
            )
        }
        7 => {
            let condition = condition(random, &mut case, table, &key);
            format!(
                "SELECT DISTINCT {} AS e FROM {name} WHERE {condition} ORDER BY 1 LIMIT 3",
                expression(random)
            )
        }
        8 => {
            let condition = condition(random, &mut case, table, &key);
            format!(
                "WITH c AS (SELECT * FROM {name} WHERE {condition}) SELECT n, v FROM c ORDER BY n OFFSET 1"
            )
        }
        _ => {
            let condition = condition(random, &mut case, table, &key);
            format!(
                "SELECT {} AS e, n FROM {name} WHERE {condition} ORDER BY n",
                expression(random)
            )
        }
    };
    case
}

#[test]
fn random_statements_of_one_key_answer_as_one_postgres() {
    let mut random = Random::from_environment();
    let seed = random.seed;
    let count: usize = std::env::var("CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(3000);
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let tables = tables();
    let mut refused = Vec::new();
    for number in 0..count {
        let table = random.below(tables.len());
        let case = random_case(&mut random, &tables[table]);
        let found = case.run(&mut client);
        if found.as_ref().is_err_and(|(code, _)| code == "0A000") {
            refused.push(case.sql.clone());
            continue;
        }
        let mut wanted = case.run(&mut reference);
        let mut found = found;
        for answer in [&mut found, &mut wanted].into_iter().flatten() {
            answer.rows.sort();
        }
        assert_eq!(found, wanted, "SEED={seed}, case {number}: {case:?}");
    }
    fixture.check_rows();
    refused.sort();
    refused.dedup();
    assert!(
        refused.is_empty(),
        "SEED={seed}: a key is given, but {} are refused:\n{}",
        refused.len(),
        refused.join("\n")
    );
}
