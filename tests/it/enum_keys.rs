//! Enums as keys: rows lie where the hash of the label says, whatever the type's oid is.

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::message;
use crate::placement::{Rule, check_shard};
use crate::shared::Databases;

const SHARDS: usize = 3;

const SCHEMA: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s', 'happy', 'Sad', 'a b', '5', 'grün');
CREATE TYPE other AS ENUM ('sad', 'ok');
CREATE DOMAIN temper AS mood;
CREATE TABLE moods (m mood, n int, PRIMARY KEY (m, n));
CREATE TABLE beside (m mood, w text);
CREATE TABLE listed (m mood, n int);
CREATE TABLE pairs (k bigint, m mood, n int);
";

const LABELS: [&str; 8] = ["sad", "ok", "it's", "happy", "Sad", "a b", "5", "grün"];

fn start() -> (Databases, Herd) {
    let databases = Databases::create(SHARDS);
    for shard in 0..SHARDS {
        let mut client = databases.shard(shard);
        for _ in 0..=shard * 5 {
            client.run("CREATE TYPE burnt AS ENUM ('a'); DROP TYPE burnt");
        }
    }
    databases.run_everywhere(SCHEMA);
    let mut options = Options::new("transaction");
    options
        .sharded("moods", "m", "enum", "{jump: all}")
        .on("beside", "moods", "m")
        .sharded(
            "listed",
            "m",
            "enum",
            "{list: {sad: shard_2, ok: shard_1, else: {jump: [shard_0, shard_1]}}}, pins: {\"5\": shard_2}",
        )
        .distribution("pairs", "{key: [bigint, enum], place: {jump: all}}");
    options.on("pairs", "pairs", "[k, m]");
    let herd = Herd::start(&databases, &options);
    (databases, herd)
}

fn check_rows(databases: &Databases, rows: usize) {
    let jump = Rule::Jump(vec![0, 1, 2]);
    let listed = Rule::List(
        vec![("sad", 2), ("ok", 1), ("5", 2)],
        Box::new(Rule::Jump(vec![0, 1])),
    );
    for (table, rule) in [("moods", &jump), ("beside", &jump), ("listed", &listed)] {
        let counts = (0..SHARDS).map(|shard| {
            check_shard(
                &mut databases.shard(shard),
                shard,
                table,
                "m::text",
                true,
                rule,
            )
        });
        assert_eq!(counts.sum::<usize>(), rows, "{table}");
    }
}

fn same(client: &mut Client, reference: &mut Client, sql: &str) {
    Fixture::same(client, reference, sql);
}

fn fill(client: &mut Client, reference: &mut Client) {
    for (number, label) in LABELS.iter().enumerate() {
        let label = label.replace('\'', "''");
        for sql in [
            format!("INSERT INTO moods VALUES ('{label}', {number})"),
            format!("INSERT INTO beside (w, m) VALUES ('w{number}', '{label}'::mood)"),
            format!("INSERT INTO listed VALUES ('{label}', {number})"),
            format!("INSERT INTO pairs VALUES ({number}, '{label}', {number})"),
        ] {
            same(client, reference, &sql);
        }
    }
}

/// Which shards a statement went to.
fn route(client: &mut Client, sql: &str) -> String {
    client.query(sql).expect("an answer");
    client.value("SHOW pgherd.route")
}

#[test]
fn rows_lie_where_their_labels_say() {
    let (databases, herd) = start();
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    fill(&mut client, &mut reference);
    check_rows(&databases, LABELS.len());
    for sql in [
        "INSERT INTO moods VALUES ('sad', 11), ('ok', 12), ('happy', 13) RETURNING m, n",
        "UPDATE moods SET n = n + 100 WHERE m = 'ok'",
        "DELETE FROM moods WHERE m IN ('sad'::mood, 'ok')",
        "SELECT m, n FROM moods",
        "INSERT INTO moods VALUES ('nobody', 1)",
        "SELECT * FROM moods WHERE m = 'nobody'",
        "SELECT * FROM moods WHERE m = 'sad'::text",
        "SELECT * FROM moods WHERE m = 'sad'::other",
        "SELECT * FROM moods WHERE m = 'sad'::temper",
        "SELECT * FROM moods WHERE m < 'happy'",
        "SELECT * FROM moods WHERE m BETWEEN 'ok' AND 'a b'",
        "SELECT * FROM moods WHERE m = ANY('{sad,happy,\"a b\"}')",
        "SELECT * FROM moods WHERE m = ANY('{happy,grün}'::mood[])",
        "SELECT * FROM moods WHERE m = ANY(ARRAY['happy', 'it''s']::mood[])",
        "SELECT * FROM moods WHERE m = ANY('{sad}'::text[])",
        "SELECT * FROM moods WHERE m = E'it\\'s'",
        "SELECT * FROM moods WHERE m = NULL",
        "SELECT n, w FROM moods JOIN beside USING (m) WHERE m = 'happy'",
        "SELECT n, w FROM moods a, beside b WHERE a.m = b.m AND b.m = 'grün'",
        "SELECT n FROM listed WHERE m = '5'",
        "SELECT n FROM listed WHERE m = 5",
        "SELECT n FROM pairs WHERE k = 3 AND m = 'happy'",
        "SELECT n FROM pairs WHERE (k, m) = (3, 'happy'::mood)",
    ] {
        same(&mut client, &mut reference, sql);
    }
}

#[test]
fn a_label_names_one_shard() {
    let (databases, herd) = start();
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    fill(&mut client, &mut reference);
    for sql in [
        "SELECT n FROM moods WHERE m = 'happy'",
        "SELECT n FROM moods WHERE m = 'happy'::mood",
        "SELECT n FROM moods WHERE m = 'happy'::public.mood",
        "SELECT n FROM moods WHERE m = CAST('happy' AS mood)",
        "SELECT n, w FROM moods JOIN beside USING (m) WHERE m = 'happy'",
        "SELECT n FROM moods WHERE m = ANY('{happy}')",
        "SELECT n FROM moods WHERE m IN ('happy', 'happy'::mood)",
        "SELECT n FROM pairs WHERE k = 3 AND m = 'happy'",
    ] {
        assert!(route(&mut client, sql).starts_with("single"), "{sql}");
    }
    assert_eq!(
        route(&mut client, "SELECT n FROM listed WHERE m = 'sad'"),
        "single: shard_2"
    );
    assert_eq!(
        route(&mut client, "SELECT n FROM listed WHERE m = '5'"),
        "single: shard_2"
    );
}

#[test]
fn parameters_of_every_kind_are_labels() {
    let (databases, herd) = start();
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    fill(&mut client, &mut reference);
    let oid = |client: &mut Client, name: &str| -> u32 {
        let oid = client.value(&format!("SELECT '{name}'::regtype::oid"));
        oid.parse().expect("a number")
    };
    for (number, label) in LABELS.iter().enumerate() {
        for (sql, types) in [
            ("SELECT n FROM moods WHERE m = $1", ["", "mood"].as_slice()),
            (
                "SELECT n FROM moods WHERE m = $1::mood",
                &["", "mood", "text", "varchar"],
            ),
            ("SELECT n FROM listed WHERE m = $1", &["", "mood"]),
        ] {
            for kind in types {
                for format in [0, 1] {
                    let types: Vec<u32> = match *kind {
                        "" => Vec::new(),
                        kind => vec![oid(&mut client, kind)],
                    };
                    let value = [Some(label.as_bytes().to_vec())];
                    let answer = client.query_values(sql, &types, &[format], &value);
                    let answer = answer.unwrap_or_else(|error| panic!("{sql} {kind}: {error:?}"));
                    assert_eq!(
                        answer.rows,
                        [[Some(number.to_string())]],
                        "{sql} {kind} {label}"
                    );
                    assert!(
                        client.value("SHOW pgherd.route").starts_with("single"),
                        "{sql} {kind}"
                    );
                }
            }
        }
    }
    let binary = |client: &mut Client, text: &str| {
        let messages = [
            message::parse("", &format!("SELECT '{text}'::mood[]"), &[]),
            message::bind("", "", &[], &[], &[1]),
            message::execute("", 0),
            message::sync(),
        ];
        client.send(&messages.concat());
        let answer = client.until_ready().expect("an answer");
        let row = answer
            .iter()
            .find(|message| message.tag == b'D')
            .expect("a row");
        row.row().remove(0).expect("a value")
    };
    let array = oid(&mut client, "mood[]");
    let sql = "SELECT n FROM moods WHERE m = ANY($1)";
    for text in ["{sad}", "{sad,ok,happy}", "{}", "{\"a b\",NULL}"] {
        let wanted = reference.rows(&format!(
            "SELECT n FROM moods WHERE m = ANY('{text}'::mood[])"
        ));
        let bytes = binary(&mut client, text);
        for (format, value) in [(0, text.as_bytes().to_vec()), (1, bytes)] {
            for types in [vec![], vec![array]] {
                let value = [Some(value.clone())];
                let found = client.query_values(sql, &types, &[format], &value);
                let (mut found, mut wanted) = (found.expect("rows").rows, wanted.clone());
                found.sort();
                wanted.sort();
                assert_eq!(found, wanted, "{text} {format} {types:?}");
            }
        }
    }
    let text = client.query_values(sql, &[1009], &[0], &[Some(b"{sad}".to_vec())]);
    assert_eq!(text.expect_err("an error").code, "42883");
    let text = client.query_values(
        "SELECT n FROM moods WHERE m = $1",
        &[25],
        &[0],
        &[Some(b"sad".to_vec())],
    );
    assert_eq!(text.expect_err("an error").code, "42883");
    for (number, kind) in ["", "mood"].into_iter().enumerate() {
        let types: Vec<u32> = match kind {
            "" => Vec::new(),
            kind => vec![oid(&mut client, kind), 23],
        };
        let values = [
            Some(b"happy".to_vec()),
            Some((number + 50).to_string().into_bytes()),
        ];
        let sql = "INSERT INTO moods VALUES ($1, $2)";
        client
            .query_values(sql, &types, &[0], &values)
            .expect("a row");
    }
    assert_eq!(
        client.value("SELECT count(*) FROM moods WHERE m = 'happy'"),
        "3"
    );
}

#[test]
fn copies_are_placed_by_the_label() {
    let (databases, herd) = start();
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    fill(&mut client, &mut reference);
    let binary =
        reference.copy_out("COPY (SELECT m, n + 100 FROM moods) TO STDOUT (FORMAT binary)");
    let csv = reference.copy_out("COPY (SELECT m, n + 200 FROM moods) TO STDOUT (FORMAT csv)");
    let text = reference.copy_out("COPY (SELECT m, n + 300 FROM moods) TO STDOUT");
    for (format, data) in [("binary", binary), ("csv", csv), ("text", text)] {
        let sql = format!("COPY moods FROM STDIN (FORMAT {format})");
        client.copy_in(&sql, &[data]).expect("a COPY");
    }
    let jump = Rule::Jump(vec![0, 1, 2]);
    let counts = (0..SHARDS).map(|shard| {
        check_shard(
            &mut databases.shard(shard),
            shard,
            "moods",
            "m::text",
            true,
            &jump,
        )
    });
    assert_eq!(counts.sum::<usize>(), LABELS.len() * 4);
}

#[test]
fn labels_of_keys_are_added_and_not_renamed() {
    let (databases, herd) = start();
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    fill(&mut client, &mut reference);
    for sql in [
        "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE public.mood RENAME VALUE 'sad' TO 'blue'",
    ] {
        let error = client.fails(sql);
        assert_eq!(error.code, "0A000", "{error:?}");
        assert!(error.message.contains("RENAME VALUE"), "{error:?}");
    }
    for sql in [
        "ALTER TYPE other RENAME VALUE 'sad' TO 'blue'",
        "ALTER TYPE mood ADD VALUE 'new' BEFORE 'ok'",
        "INSERT INTO moods VALUES ('new', 1)",
        "INSERT INTO listed VALUES ('new', 1)",
        "INSERT INTO beside VALUES ('new', 'x')",
        "SELECT n FROM moods WHERE m = 'new'",
    ] {
        same(&mut client, &mut reference, sql);
    }
    check_rows(&databases, LABELS.len() + 1);
}

#[test]
fn an_enum_with_casts_of_its_own_is_no_key() {
    let (databases, herd) = start();
    let mut client = herd.connect();
    client.run("INSERT INTO moods VALUES ('sad', 1)");
    for shard in 0..SHARDS {
        databases.shard(shard).run(
            "CREATE FUNCTION turned(other) RETURNS mood IMMUTABLE LANGUAGE sql AS \
             $$ SELECT CASE WHEN $1 = 'sad' THEN 'ok'::mood ELSE 'sad' END $$; \
             CREATE CAST (other AS mood) WITH FUNCTION turned(other) AS IMPLICIT",
        );
    }
    let sql = "SELECT n FROM moods WHERE m = 'ok'::other";
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match client.query(sql) {
            Err(error) if error.code == "0A000" => break,
            _ => assert!(std::time::Instant::now() < until, "not noticed"),
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
