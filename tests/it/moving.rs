//! UPDATE of a key moves rows to the shards that they belong to then; what cannot be moved as an UPDATE would
//! change it is refused.

use crate::client::{Client, ServerError};
use crate::fixture::{Fixture, Table, tables};

/// Runs the same through the proxy and on one PostgreSQL, rows in any order.
struct Both {
    herd: Client,
    one: Client,
    /// Its proxy ends once its clients are gone.
    fixture: Fixture,
}

fn brief(error: ServerError) -> (String, String) {
    (error.code, error.message)
}

impl Both {
    fn new(table: &str) -> Both {
        Both::with(Fixture::start(), table)
    }

    fn with(fixture: Fixture, table: &str) -> Both {
        let mut both = Both {
            herd: fixture.connect(),
            one: fixture.databases.reference(),
            fixture,
        };
        for key in 0..12 {
            both.run(&format!(
                "INSERT INTO {table} VALUES ('{key}', 1, 'v{key}')"
            ));
        }
        both
    }

    fn run(&mut self, sql: &str) {
        let (mut found, mut wanted) = (self.herd.query(sql), self.one.query(sql));
        for answer in [&mut found, &mut wanted].into_iter().flatten() {
            answer.rows.sort();
        }
        assert_eq!(found.map_err(brief), wanted.map_err(brief), "{sql}");
        assert_eq!(self.herd.status, self.one.status, "{sql}");
    }

    fn run_with(&mut self, sql: &str, values: &[Option<&str>]) {
        let mut found = self.herd.query_with(sql, values);
        let mut wanted = self.one.query_with(sql, values);
        for answer in [&mut found, &mut wanted].into_iter().flatten() {
            answer.rows.sort();
        }
        assert_eq!(found.map_err(brief), wanted.map_err(brief), "{sql}");
    }

    fn refuses(&mut self, sql: &str, part: &str) {
        let refused = self.herd.fails(sql);
        assert_eq!(refused.code, "0A000", "{sql}: {refused:?}");
        assert!(refused.detail.contains(part), "{sql}: {refused:?}");
    }
}

fn table(name: &str) -> Table {
    let mut all = tables().into_iter();
    all.find(|table| table.name == name).expect("it is there")
}

#[test]
fn rows_go_where_their_new_keys_belong() {
    let mut both = Both::new("by_modulo");
    for sql in [
        "UPDATE by_modulo SET k = k + 201",
        "UPDATE by_modulo SET k = k - 201",
        "UPDATE by_modulo SET k = 40 WHERE k = 1",
        "UPDATE by_modulo SET k = 41, v = v || '!', n = n + 1 WHERE k = 40 RETURNING *",
        "UPDATE by_modulo SET k = k + 100, v = NULL WHERE k IN (2, 3, 4) RETURNING k, v IS NULL AS gone -- all",
        "UPDATE by_modulo AS m SET k = m.k * 2 + 1000 WHERE m.n = 1 RETURNING m.k + 1, m.v;",
        "UPDATE by_modulo SET k = 7 WHERE k = 10000",
        "UPDATE by_modulo SET (k, v) = (k + 1, '\\x ''quoted'', \"too\"') WHERE k = 1206",
        "UPDATE by_modulo SET k = k WHERE k = 41 RETURNING k",
        "/* one */ UPDATE by_modulo SET k = 5 WHERE k = 41 RETURNING 'x' ; -- two",
    ] {
        both.run(sql);
        both.fixture.check_table(&table("by_modulo"));
    }
    both.run("INSERT INTO everywhere VALUES (1, 'one')");
    both.run("UPDATE by_modulo SET k = 2000, v = e.v FROM everywhere e WHERE e.id = by_modulo.k / 5 AND k = 5 RETURNING e.v");
    both.fixture.check_table(&table("by_modulo"));
}

#[test]
fn keys_of_other_types_move_too() {
    for (name, set) in [
        ("by_jump_text", "k = k || 'x'"),
        ("by_range", "k = k * 100 - 10"),
        (
            "by_list",
            "k = CASE WHEN k > '5' THEN 'de' ELSE 'fr' END, n = length(v) + k::int",
        ),
        ("by_pin", "k = k + 7"),
    ] {
        let mut both = Both::new(name);
        both.run(&format!("UPDATE {name} SET {set} RETURNING k, n"));
        both.fixture.check_table(&table(name));
    }
}

#[test]
fn the_extended_protocol_moves_rows_as_well() {
    let mut both = Both::new("by_modulo");
    both.run_with(
        "UPDATE by_modulo SET k = $1, v = $2 WHERE k = $3 RETURNING k, v",
        &[Some("50"), Some("it's"), Some("1")],
    );
    both.run_with("UPDATE by_modulo SET k = k + $1", &[Some("103")]);
    both.fixture.check_table(&table("by_modulo"));
    let binary = [
        crate::message::parse(
            "",
            "UPDATE by_modulo SET k = k + 1 WHERE k = $1 RETURNING k, v",
            &[],
        ),
        crate::message::bind("", "", &[], &[Some(b"153".to_vec())], &[1, 0]),
        crate::message::frame(b'D', b"P\0"),
        crate::message::execute("", 0),
        crate::message::sync(),
    ];
    both.herd.send(&binary.concat());
    let answer = both.herd.answer().expect("it moves");
    assert_eq!(answer.columns, ["k", "v"]);
    assert_eq!(answer.rows.len(), 1);
    assert_eq!(answer.rows[0][1].as_deref(), Some("it's"));
    assert_eq!(answer.tags, ["UPDATE 1"]);
}

#[test]
fn in_a_block_moved_rows_are_committed_or_not_with_it() {
    let mut both = Both::new("by_modulo");
    both.run("BEGIN");
    both.run("UPDATE by_modulo SET k = k + 101 RETURNING k");
    both.run("SELECT k, n, v FROM by_modulo WHERE k = 105");
    both.run("SAVEPOINT a");
    both.run("UPDATE by_modulo SET k = k + 1001 WHERE k < 106");
    both.run("ROLLBACK TO a");
    both.run("UPDATE by_modulo SET v = 'after' WHERE k = 103");
    both.run("ROLLBACK");
    both.fixture.check_table(&table("by_modulo"));
    both.run("BEGIN ISOLATION LEVEL REPEATABLE READ");
    both.run("UPDATE by_modulo SET k = k + 101");
    both.run("COMMIT");
    both.fixture.check_table(&table("by_modulo"));
}

#[test]
fn an_error_on_any_shard_moves_nothing() {
    let mut both = Both::new("by_modulo");
    both.run("UPDATE by_modulo SET k = 2 WHERE k = 1");
    both.run("UPDATE by_modulo SET k = 1 / (k - 3) WHERE k = 3");
    both.fixture.check_table(&table("by_modulo"));
    let refused = both.herd.fails("UPDATE by_modulo SET k = NULL WHERE k = 1");
    assert!(
        ["22023", "23502"].contains(&refused.code.as_str()),
        "{refused:?}"
    );
    both.fixture.check_table(&table("by_modulo"));
    assert_eq!(both.herd.status, 'I');
}

#[test]
fn whole_rows_are_moved() {
    let fixture = Fixture::start();
    let alter = "ALTER TABLE by_modulo ADD id int GENERATED ALWAYS AS IDENTITY, ADD twice bigint GENERATED ALWAYS AS (k * 2) STORED,
        ADD f float8, ADD at timestamptz, ADD many text[], ADD doc jsonb, ADD \"odd, (name)\" bytea, ADD i interval";
    for shard in 0..4 {
        fixture.databases.shard(shard).run(alter);
    }
    fixture.databases.reference().run(alter);
    let mut both = Both::with(fixture, "by_modulo (k, n, v)");
    both.run("UPDATE by_modulo SET f = 0.1::float8 + 0.2, at = '2024-02-29 12:00:00.123456+05', many = '{a,\"b,c\",NULL,\"\"}',
        doc = '{\"a\": [1, null, \"x\\\\\"]}', \"odd, (name)\" = '\\x00ff5c27', i = '1 mon -2 days 03:04:05.6'");
    let all =
        "SELECT k, n, v, twice, f, at, many, doc, \"odd, (name)\", i FROM by_modulo ORDER BY k";
    both.run("UPDATE by_modulo SET k = k + 101 RETURNING twice, v");
    let found = both.herd.run(&all.replace(" ORDER BY k", "")).rows.len();
    assert_eq!(found, 12);
    for key in 101..113 {
        both.run(&all.replace("ORDER BY k", &format!("WHERE k = {key}")));
    }
    let ids = "SELECT id FROM by_modulo WHERE k = 105";
    let before = both.herd.value(ids);
    both.herd.run("UPDATE by_modulo SET k = 6000 WHERE k = 105");
    assert_eq!(
        both.herd.value(&ids.replace("105", "6000")),
        before,
        "an identity stays"
    );
}

#[test]
fn what_an_update_would_not_do_is_refused() {
    let mut both = Both::new("by_modulo");
    let move_all = "UPDATE by_modulo SET k = k + 101";
    let everywhere = |both: &Both, sql: &str| {
        for shard in 0..4 {
            both.fixture.databases.shard(shard).run(sql);
        }
    };
    both.herd.run("SET datestyle = 'SQL, DMY'");
    both.refuses(move_all, "DateStyle");
    both.herd.run("RESET datestyle");
    both.refuses(&format!("EXPLAIN {move_all}"), "key column");
    both.herd.run("SET pgherd.shard = 'shard_1'");
    both.refuses(move_all, "key column");
    both.herd.run("RESET pgherd.shard");
    for (make, drop, why) in [
        (
            "CREATE TABLE child (k bigint, n int, FOREIGN KEY (k, n) REFERENCES by_modulo)",
            "DROP TABLE child",
            "refers to it",
        ),
        (
            "ALTER TABLE by_modulo ADD CONSTRAINT parent FOREIGN KEY (k, n) REFERENCES by_jump NOT VALID",
            "ALTER TABLE by_modulo DROP CONSTRAINT parent",
            "part of a foreign key",
        ),
        (
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
             CREATE TRIGGER gone AFTER DELETE ON by_modulo FOR EACH ROW EXECUTE FUNCTION nothing()",
            "DROP TRIGGER gone ON by_modulo",
            "triggers",
        ),
        (
            "ALTER TABLE by_modulo ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE by_modulo DISABLE ROW LEVEL SECURITY",
            "row security",
        ),
    ] {
        everywhere(&both, make);
        both.refuses(move_all, why);
        everywhere(&both, drop);
    }
    both.run(move_all);
    both.fixture.check_table(&table("by_modulo"));
}

#[test]
fn triggers_of_update_run_as_on_one_server() {
    let mut both = Both::new("by_modulo");
    let make = "CREATE FUNCTION doubles() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || OLD.k; RETURN NEW; END';
        CREATE TRIGGER doubles BEFORE UPDATE ON by_modulo FOR EACH ROW EXECUTE FUNCTION doubles()";
    for shard in 0..4 {
        both.fixture.databases.shard(shard).run(make);
    }
    both.fixture.databases.reference().run(make);
    both.run("UPDATE by_modulo SET k = k + 101 RETURNING k, v");
    both.fixture.check_table(&table("by_modulo"));
}

#[test]
fn without_two_phases_a_row_does_not_leave_its_shard() {
    let mut options = Fixture::options("transaction");
    options.set("cross_shard_writes: reject");
    let mut both = Both::with(Fixture::with(&mut options), "by_modulo");
    both.run("UPDATE by_modulo SET k = 5 WHERE k = 1 AND n = 1 AND v = 'none'");
    both.run("UPDATE by_modulo SET k = 101 WHERE k = 1");
    let refused = both.herd.fails("UPDATE by_modulo SET k = 100 WHERE k = 5");
    assert!(refused.hint.contains("cross_shard_writes"), "{refused:?}");
    both.fixture.check_table(&table("by_modulo"));
}
