//! Keys proven through derived tables, WITH queries, subqueries, intervals, arithmetic and MERGE: what is
//! answered is what one PostgreSQL answers.

use crate::client::{Answer, Client, ServerError};
use crate::fixture::Fixture;
use crate::random::Random;

/// Templates: `{t}` and `{u}` are co-located tables, `{r}` is placed by ranges; `{k}` and `{j}` are keys that
/// are often equal, `{n}` a small number.
const READS: &[&str] = &[
    "SELECT d.k, d.n FROM (SELECT * FROM {t}) d WHERE d.k = {k}",
    "SELECT count(*) FROM (SELECT k AS a, n FROM {t}) d WHERE a = {k}",
    "SELECT count(*), min(b) FROM (SELECT k, v FROM {t}) d (a, b) WHERE a = {k}",
    "SELECT count(*) FROM (SELECT n AS k FROM {t}) d WHERE k = {n}",
    "SELECT count(*) FROM (SELECT * FROM {t} ORDER BY k, n LIMIT 7) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT k FROM {t} WHERE k = {k} ORDER BY n LIMIT 2) d JOIN {u} u ON u.k = d.k",
    "SELECT k, c FROM (SELECT k, count(*) AS c FROM {t} GROUP BY k) d WHERE k = {k}",
    "SELECT k, r FROM (SELECT k, row_number() OVER (ORDER BY k, n) AS r FROM {t}) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT t.k, u.w FROM {t} t LEFT JOIN {u} u ON t.k = u.k AND t.n = u.n) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT u.k, t.v FROM {t} t LEFT JOIN {u} u ON t.k = u.k) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT * FROM {t} JOIN {u} USING (k, n)) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT * FROM {t} FULL JOIN {u} USING (k, n)) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT k FROM {t} UNION ALL SELECT k FROM {u}) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT k, n FROM {t} EXCEPT SELECT k, n FROM {u}) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT k, n FROM {t} INTERSECT SELECT n, n FROM {u}) d WHERE k = {k}",
    "SELECT count(*) FROM (SELECT k FROM {t} WHERE k = {k} UNION SELECT {j}) d JOIN {u} u ON u.k = d.k",
    "SELECT count(*) FROM {t} t JOIN (VALUES ({k}, 1), ({j}, 2)) v (a, b) ON t.k = v.a",
    "SELECT count(*) FROM {t} t LEFT JOIN (VALUES ({k})) v (a) ON t.k = v.a WHERE t.k = {j}",
    "SELECT count(*), count(t.k) FROM (VALUES ({k}), ({j})) v (a) LEFT JOIN {t} t ON t.k = v.a",
    "SELECT count(*) FROM {u} u LEFT JOIN (SELECT k, v FROM {t}) d ON u.k = d.k WHERE u.k = {k}",
    "SELECT count(*), count(d.k) FROM {u} u LEFT JOIN (SELECT k FROM {t}) d ON u.k = d.k AND d.k = {k} WHERE u.k = {j}",
    "WITH d AS (SELECT * FROM {t}) SELECT count(*) FROM d WHERE k = {k}",
    "WITH d AS (SELECT * FROM {t}) SELECT count(*) FROM d, d e WHERE d.k = {k} AND e.k = {j}",
    "WITH d AS (SELECT * FROM {t}) SELECT count(*) FROM d WHERE k = {k} UNION ALL SELECT count(*) FROM d WHERE k = {j}",
    "WITH d AS (SELECT * FROM {t}), e AS (SELECT * FROM d) SELECT count(*) FROM e WHERE k = {k}",
    "SELECT count(*) FROM {t} WHERE k = {k} AND k IN (SELECT k FROM {u})",
    "SELECT count(*) FROM {t} WHERE k IN (SELECT k FROM {u} WHERE k = {k})",
    "SELECT count(*) FROM {t} WHERE k NOT IN (SELECT k FROM {u} WHERE k = {k}) AND k = {j}",
    "SELECT count(*) FROM {t} WHERE (n, k) IN (SELECT n, k FROM {u} WHERE k = {k})",
    "SELECT count(*) FROM {t} WHERE k = (SELECT max(k) FROM {u} WHERE k = {k})",
    "SELECT count(*) FROM {t} WHERE k = (SELECT k FROM {u} WHERE k = {k} ORDER BY n LIMIT 1)",
    "SELECT count(*) FROM {t} t WHERE k = {k} AND EXISTS (SELECT FROM {u} u WHERE u.k = t.k AND u.n > t.n)",
    "SELECT count(*) FROM {t} WHERE k = {k} + {j} - {j}",
    "SELECT count(*) FROM {t} WHERE k = 2 * {k} - {k}",
    "SELECT count(*) FROM {t} WHERE k IS NOT DISTINCT FROM {k}",
    "SELECT count(*) FROM {t} t LEFT JOIN {u} u ON t.k = u.k AND t.n = u.n WHERE t.k = {k} AND u.k IS NOT DISTINCT FROM NULL",
    "SELECT count(*) FROM {t} t LEFT JOIN {u} u ON t.k = u.k WHERE u.k IS NOT DISTINCT FROM {k}",
    "SELECT count(*) FROM {t} WHERE k BETWEEN {k} AND {j}",
    "SELECT count(*) FROM {r} WHERE k BETWEEN {k} AND {j}",
    "SELECT count(*) FROM {r} WHERE k < {k}",
    "SELECT count(*) FROM {r} WHERE k > {k} AND k <= {j}",
    "SELECT k, n FROM {r} WHERE k >= {k} AND n = {n}",
    "SELECT count(*) FROM {r} WHERE (k, n) > ({k}, {n}) AND k < 100",
    "SELECT count(*) FROM {r} WHERE k > 2000 OR k = {k}",
    "SELECT count(*) FROM {r} a JOIN {r} b USING (k) WHERE a.k BETWEEN {k} AND 99",
    "SELECT count(*) FROM {r} WHERE NOT k < {k}",
    "SELECT count(*) FROM {r} WHERE k BETWEEN SYMMETRIC {k} AND {j}",
    "SELECT count(*) FROM {t} WHERE k BETWEEN ASYMMETRIC {k} AND {j} AND k = {k}",
    "SELECT count(*) FROM {r} WHERE NOT k NOT BETWEEN SYMMETRIC {j} AND {k}",
    "SELECT count(*) FROM {r} WHERE NOT k BETWEEN SYMMETRIC {j} AND {k} AND k = {k}",
    "SELECT count(*) FROM {t} WHERE NOT (k <> {k})",
    "SELECT count(*) FROM {t} WHERE NOT (k <> {k} OR n > {n})",
    "SELECT count(*) FROM {t} WHERE NOT (NOT (k = {k}) AND n >= {n} AND k <> {j})",
    "SELECT count(*) FROM {t} WHERE NOT NOT k = {k}",
    "SELECT count(*) FROM {t} WHERE NOT (k NOT IN ({k}, {k}))",
    "SELECT count(*) FROM {t} WHERE NOT k IS DISTINCT FROM {k}",
    "SELECT count(*) FROM {t} WHERE (k = {k}) IS TRUE",
    "SELECT count(*) FROM {t} WHERE (k <> {k}) IS FALSE",
    "SELECT count(*) FROM {t} WHERE k = {k} IS NOT FALSE AND k = {j}",
    "SELECT count(*) FROM {t} t LEFT JOIN {u} u ON (t.k = u.k AND u.k = {k}) IS TRUE WHERE t.k = {j}",
    "SELECT count(*) FROM {t} t LEFT JOIN {u} u ON t.k = u.k WHERE t.k = {k} AND (u.k = {j}) IS NOT TRUE",
    "SELECT count(*) FROM {t} WHERE k = {k} OR false",
    "SELECT count(*) FROM {t} WHERE true AND k = {k} OR n = {n} AND NULL",
    "SELECT count(*) FROM {t} WHERE false OR NOT true OR k = {k}",
    "SELECT count(*), min(k) FROM {t} WHERE false",
    "SELECT count(*) FROM {t} WHERE k = {k} AND n IN (SELECT n FROM (TABLE {u}) d WHERE k = {k})",
    "SELECT count(*) FROM (TABLE {t} EXCEPT ALL TABLE {u}) d WHERE k = {k}",
    "SELECT count(*) FROM {x} WHERE k = 'a'\n  'b'",
    "SELECT count(*) FROM {x} WHERE k =U&'a\\0062' OR k = U&'\\+000061b'",
    "SELECT count(t.k), count(u.k) FROM {u} u LEFT JOIN {t} t ON t.k = u.k AND false WHERE u.k = {k}",
];

const WRITES: &[&str] = &[
    "INSERT INTO {t} (n, k, v) SELECT n + 10, k, 'copied' FROM {u} WHERE k = {k} ON CONFLICT DO NOTHING",
    "INSERT INTO {u} SELECT * FROM {t} WHERE k = {k} ON CONFLICT DO NOTHING",
    "INSERT INTO {u} (k, n) SELECT k, n + 20 FROM (SELECT * FROM {t}) d WHERE k = {k} UNION ALL SELECT {k}, 99 ON CONFLICT DO NOTHING",
    "WITH d AS (DELETE FROM {t} WHERE k = {k} AND n = {n} RETURNING *) INSERT INTO {u} SELECT k, n, 'moved' FROM d ON CONFLICT DO NOTHING",
    "WITH d AS (UPDATE {t} SET v = 'w' WHERE k = {k} RETURNING k AS a, n) UPDATE {u} SET w = 'w' FROM d WHERE {u}.k = d.a AND {u}.n = d.n",
    "UPDATE {r} SET v = 'r' WHERE k < {k}",
    "DELETE FROM {r} WHERE k BETWEEN {k} AND {k} + 1 AND n = {n}",
    "INSERT INTO {r} (k, n, v) VALUES ({k} + 1, {n}, 'sum') ON CONFLICT DO NOTHING",
    "MERGE INTO {t} t USING (VALUES ({k}, {n})) v (a, b) ON t.k = v.a AND t.n = v.b WHEN MATCHED THEN UPDATE SET v = 'merged' WHEN NOT MATCHED THEN INSERT (k, n, v) VALUES (v.a, v.b, 'new')",
    "MERGE INTO {t} t USING {u} u ON t.k = u.k AND t.n = u.n AND u.k = {k} WHEN MATCHED THEN DELETE",
    "MERGE INTO {t} t USING (SELECT * FROM {u} WHERE k = {k}) u ON t.k = u.k AND t.n = u.n WHEN MATCHED THEN UPDATE SET v = u.w WHEN NOT MATCHED THEN INSERT VALUES (u.k, u.n, u.w)",
    "MERGE INTO {t} t USING (VALUES ({k})) v (a) ON t.k = v.a WHEN MATCHED AND t.n > {n} THEN DELETE WHEN MATCHED THEN DO NOTHING",
];

fn run(
    client: &mut Client,
    sql: &str,
    values: Option<&[Option<&str>]>,
) -> Result<Answer, (String, String)> {
    let answer: Result<Answer, ServerError> = match values {
        Some(values) => client.query_with(sql, values),
        None => client.query(sql),
    };
    let mut answer = answer.map_err(|error| (error.code, error.message))?;
    answer.rows.sort();
    Ok(answer)
}

#[test]
fn what_is_proven_is_answered_as_by_one_postgres() {
    let mut random = Random::from_environment();
    let seed = random.seed;
    let count: usize = std::env::var("CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1500);
    let fixture = Fixture::start();
    let (mut client, mut reference) = (fixture.connect(), fixture.databases.reference());
    let keys = ["-6", "-5", "1", "2", "3", "99", "100", "1000", "2001"];
    for (table, column) in [("by_jump", "v"), ("beside", "w"), ("by_range", "v")] {
        for (at, key) in keys.iter().enumerate() {
            for n in 0..=at % 4 {
                let sql =
                    format!("INSERT INTO {table} (k, n, {column}) VALUES ({key}, {n}, '{at}')");
                for client in [&mut client, &mut reference] {
                    client.query(&sql).expect(&sql);
                }
            }
        }
    }
    for client in [&mut client, &mut reference] {
        client.run("INSERT INTO by_jump_text VALUES ('ab', 1, ''), ('a', 1, ''), ('b', 1, '')");
    }
    let (mut answered, mut refused) = (0, 0);
    for number in 0..count {
        let template = if random.chance(75) {
            *random.choose(READS)
        } else {
            *random.choose(WRITES)
        };
        let key = *random.choose(&keys);
        let other = if random.chance(60) {
            key
        } else {
            *random.choose(&keys)
        };
        let n = random.below(4).to_string();
        let extended = random.chance(50);
        let mut sql = template
            .replace("{t}", "by_jump")
            .replace("{u}", "beside")
            .replace("{r}", "by_range")
            .replace("{x}", "by_jump_text");
        let mut values: Vec<Option<&str>> = Vec::new();
        for (mark, value) in [("{k}", key), ("{j}", other), ("{n}", n.as_str())] {
            // What VALUES and set operations list has no other type than the one it is given.
            let kind = if mark == "{n}" { "int" } else { "bigint" };
            let text = if extended && sql.contains(mark) {
                values.push(Some(value));
                format!("${}::{kind}", values.len())
            } else {
                value.to_owned()
            };
            sql = sql.replace(mark, &text);
        }
        let values = extended.then_some(values.as_slice());
        let found = run(&mut client, &sql, values);
        if found.as_ref().is_err_and(|(code, _)| code == "0A000") {
            refused += 1;
            continue;
        }
        answered += 1;
        let wanted = run(&mut reference, &sql, values);
        assert_eq!(
            found, wanted,
            "SEED={seed}, case {number}: {sql} {values:?}"
        );
    }
    fixture.check_rows();
    for table in ["by_jump", "beside", "by_range"] {
        let sql = format!("SELECT * FROM {table}");
        let found = run(&mut client, &sql, None);
        assert_eq!(
            found,
            run(&mut reference, &sql, None),
            "SEED={seed}: {table}"
        );
    }
    println!("SEED={seed}: {answered} answered, {refused} refused");
    assert!(
        answered > 2 * refused,
        "{answered} answered, {refused} refused"
    );
}
