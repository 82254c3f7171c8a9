//! Functions, procedures, triggers and what else runs stored code: the answer of one PostgreSQL, or a refusal.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::shared::{Databases, SHARDS};

const TABLES: &str = "
CREATE TABLE spread (k bigint, n int, v text, PRIMARY KEY (k, n));
CREATE TABLE beside (k bigint, n int, w text, PRIMARY KEY (k, n));
CREATE TABLE elsewhere (k bigint, n int);
CREATE TABLE copied (id int PRIMARY KEY, v text);
CREATE TABLE alone (id int, v text);
CREATE SEQUENCE numbers;
";

const FUNCTIONS: &str = "
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$
    BEGIN IF t IS NULL THEN RETURN ''; END IF; RETURN upper(t) || '!'; END $$;
CREATE FUNCTION label(i int) RETURNS text LANGUAGE sql STABLE AS 'SELECT v FROM copied WHERE id = i';
CREATE FUNCTION stamped(int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT $1 || now()::text $$;
CREATE FUNCTION noisy(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE DEBUG '%', $1; RETURN $1; END $$;
CREATE FUNCTION total() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM spread';
CREATE FUNCTION total_plpgsql() RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE c bigint; BEGIN SELECT count(*) INTO c FROM public.Spread; RETURN c; END $$;
CREATE FUNCTION total_atomic() RETURNS bigint STABLE BEGIN ATOMIC SELECT count(*) FROM spread; END;
CREATE FUNCTION total_nested(int DEFAULT 1) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN total() * $1; END $$;
CREATE FUNCTION total_default(b bigint DEFAULT total()) RETURNS bigint LANGUAGE sql AS 'SELECT b';
CREATE FUNCTION made_up(t text) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE c bigint; BEGIN EXECUTE 'SELECT count(*) FROM ' || t INTO c; RETURN c; END $$;
CREATE FUNCTION over(int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint';
CREATE FUNCTION over(text) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM spread WHERE v = $1';
CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT v FROM spread WHERE n = $1';
CREATE FUNCTION at_home(int) RETURNS text LANGUAGE sql STABLE AS 'SELECT v FROM alone WHERE id = $1';
CREATE FUNCTION keep(int, text) RETURNS int LANGUAGE sql AS 'INSERT INTO alone VALUES ($1, $2) RETURNING id';
CREATE FUNCTION copy_it(int) RETURNS void LANGUAGE sql AS $$ INSERT INTO copied VALUES ($1, 'x') $$;
CREATE FUNCTION counted() RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('numbers') $$;
CREATE FUNCTION of_row(spread) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM beside';
CREATE FUNCTION more(bigint, int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) + $2 FROM spread';
CREATE AGGREGATE summed(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE PROCEDURE wipe() LANGUAGE sql AS 'DELETE FROM spread';
CREATE PROCEDURE put(int) LANGUAGE plpgsql AS $$ BEGIN PERFORM keep($1, 'put'); END $$;
CREATE OPERATOR === (FUNCTION = more, LEFTARG = bigint, RIGHTARG = int);
";

fn options() -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("spread", "k", "bigint", "{modulo: all}")
        .on("beside", "spread", "k")
        .sharded("elsewhere", "k", "bigint", "{modulo: all}")
        .table("copied", "reference")
        .table("alone", "single");
    options
}

fn start(shards: usize, options: &Options) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(&format!("{TABLES}{FUNCTIONS}"));
    let herd = Herd::start(&databases, options);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for sql in [
        "INSERT INTO spread SELECT 1, n, 'one' FROM generate_series(1, 3) n",
        "INSERT INTO spread SELECT 2, n, 'two' FROM generate_series(1, 2) n",
        "INSERT INTO spread SELECT 4, n, 'four' FROM generate_series(1, 4) n",
        "INSERT INTO copied VALUES (1, 'first'), (2, 'second'), (3, 'third'), (4, 'fourth')",
        "INSERT INTO alone VALUES (1, 'kept')",
    ] {
        Fixture::same(&mut client, &mut reference, sql);
    }
    (databases, herd)
}

fn refused(client: &mut Client, sql: &str) {
    let error = client.fails(sql);
    assert_eq!(error.code, "0A000", "{sql}: {error:?}");
    assert!(!error.hint.is_empty(), "{sql}: {error:?}");
}

/// What needs no row of another shard.
const ANSWERED: &[&str] = &[
    "SELECT twice(2), shout('a'), label(1), noisy(1), keep(7, 'x'), at_home(1)",
    "SELECT twice(n), shout(v), k FROM spread WHERE k = 4",
    "SELECT k, n, twice(n), public.twice(n) FROM spread",
    "SELECT k, shout(v) FROM spread WHERE shout(v) = 'TWO!'",
    "SELECT k, n, label(n) FROM spread",
    "SELECT k FROM spread WHERE label(n) = 'fourth'",
    "SELECT n FROM spread WHERE k = 4 AND label(n) = 'fourth'",
    "SELECT noisy(n) FROM spread WHERE k = 4",
    "SELECT summed(n) FROM spread WHERE k = 4",
    "SELECT label(id) FROM copied",
    "INSERT INTO spread VALUES (9, twice(4), shout('x'))",
    "INSERT INTO spread VALUES (10, twice(1), label(1)), (11, twice(2), label(2))",
    "INSERT INTO copied VALUES (9, shout('nine'))",
    "UPDATE copied SET v = shout(v) WHERE id = twice(1)",
    "SELECT k, n, v FROM spread",
    "SELECT * FROM copied",
    "SELECT at_home(id), count(*) FROM alone GROUP BY 1",
    "SELECT counted() IS NULL",
    "CALL put(3)",
    "DO $$ BEGIN PERFORM keep(4, 'done'); INSERT INTO alone SELECT id, v FROM copied; END $$",
    "DO LANGUAGE plpgsql 'BEGIN PERFORM twice(1); END'",
    "SELECT * FROM alone",
    "SELECT over.k FROM spread over WHERE k = 1",
];

/// What would find a part of the rows only, or leave copies unlike.
const REFUSED: &[&str] = &[
    "SELECT total()",
    "SELECT total_plpgsql()",
    "SELECT total_atomic()",
    "SELECT total_nested()",
    "SELECT total_default(), 1",
    "SELECT made_up('spread')",
    "SELECT made_up('alone')",
    "SELECT over('one')",
    "SELECT over(1)",
    "SELECT lower(1)",
    "SELECT public.total()",
    "SELECT k FROM spread WHERE k = 1 AND n < total()",
    "SELECT total() FROM spread WHERE k = 1",
    "SELECT k, total() FROM spread",
    "SELECT * FROM copied WHERE id < total()",
    "SELECT * FROM total() t",
    "SELECT v FROM alone WHERE id = total()",
    "SELECT s.of_row FROM spread s WHERE k = 1",
    "SELECT (s).of_row FROM spread s WHERE k = 1",
    "SELECT k === 1 FROM spread WHERE k = 1",
    "SELECT query_to_xml('SELECT * FROM spread', true, false, '')",
    "INSERT INTO alone VALUES (total(), 'x')",
    "INSERT INTO spread VALUES (1, total(), 'x')",
    "INSERT INTO copied VALUES (20, total()::text)",
    "UPDATE spread SET n = n + total() WHERE k = 1",
    "SELECT k, at_home(n) FROM spread WHERE k = 1",
    "SELECT k, keep(n, v) FROM spread WHERE k = 4",
    "SELECT k, counted() FROM spread WHERE k = 4",
    "INSERT INTO copied VALUES (counted(), 'x')",
    "SELECT k, stamped(n) FROM spread",
    "SELECT k, noisy(n) FROM spread",
    "SELECT summed(n) FROM spread",
    "SELECT copy_it(30)",
    "CALL wipe()",
    "CALL put(total()::int)",
    "DO $$ BEGIN DELETE FROM spread; END $$",
    "DO $$ BEGIN PERFORM total(); END $$",
    "DO $$ BEGIN EXECUTE 'DELETE FROM ' || 'spread'; END $$",
    "DO $$ BEGIN DELETE FROM copied; END $$",
    "DO $$ BEGIN CALL wipe(); END $$",
    "CREATE TABLE made AS SELECT total() AS t",
    "COPY (SELECT total()) TO STDOUT",
    "EXPLAIN ANALYZE SELECT total()",
    "PREPARE p AS SELECT total()",
];

#[test]
fn functions_answer_as_on_one_server_or_are_refused() {
    let (databases, herd) = start(SHARDS, &options());
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for sql in ANSWERED {
        Fixture::same(&mut client, &mut reference, sql);
    }
    for sql in REFUSED {
        refused(&mut client, sql);
    }
    for (shard, rows) in (0..SHARDS).map(|shard| {
        let mut shard_client = databases.shard(shard);
        (shard, shard_client.value("SELECT count(*) FROM copied"))
    }) {
        assert_eq!(rows, "5", "copies on shard {shard}");
    }
    // Whoever names the shard knows.
    client.run("SET pgherd.shard = 'shard_1'");
    assert_eq!(client.value("SELECT total()"), "4");
    refused(&mut client, "SELECT copy_it(30)");
}

#[test]
fn on_one_shard_every_function_runs() {
    let (databases, herd) = start(1, &options());
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    let statements = ANSWERED.iter().chain(REFUSED);
    for sql in statements.filter(|sql| {
        !["stamped", "EXPLAIN", "COPY"]
            .iter()
            .any(|word| sql.contains(word))
    }) {
        Fixture::same(&mut client, &mut reference, sql);
    }
}

/// Waits until a statement is refused, while it may not be yet.
fn soon_refused(client: &mut Client, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while client.query(sql).is_ok() {
        assert!(Instant::now() < deadline, "{sql} is never refused");
        sleep(Duration::from_millis(200));
    }
    refused(client, sql);
}

#[test]
fn functions_made_later_are_known() {
    let (databases, herd) = start(SHARDS, &options());
    let mut client = herd.connect();
    client.run("CREATE FUNCTION later() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'");
    assert_eq!(client.value("SELECT later()"), "1");
    client.run("CREATE OR REPLACE FUNCTION later() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM spread'");
    refused(&mut client, "SELECT later()");
    // Another client has the plan of the one before.
    databases.run_everywhere(
        "CREATE FUNCTION behind() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM spread'",
    );
    soon_refused(&mut client, "SELECT behind()");
    databases.run_everywhere(
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT n FROM spread WHERE k = $1'",
    );
    soon_refused(&mut client, "SELECT twice(1)");
    let temporary =
        client.query("CREATE FUNCTION pg_temp.hidden() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM spread'");
    assert!(temporary.is_err(), "{temporary:?}");
}

#[test]
fn a_schema_that_stays_as_it_is_keeps_its_plans() {
    let (databases, herd) = start(SHARDS, &options());
    let mut client = herd.connect();
    client.run("SELECT twice(1)");
    let mut past = databases.shard(0);
    past.run("CREATE TEMP TABLE passing (id int); DROP TABLE passing; ANALYZE spread");
    sleep(Duration::from_secs(5));
    assert!(!herd.log().contains("past the proxy"), "{}", herd.log());
    past.run("ALTER TABLE alone ADD COLUMN extra int");
    let deadline = Instant::now() + Duration::from_secs(15);
    while !herd.log().contains("past the proxy") {
        assert!(Instant::now() < deadline, "the change is not seen");
        sleep(Duration::from_millis(200));
    }
}

const TRIGGERS: &str = "
CREATE FUNCTION polish() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.v := upper(NEW.v) || (SELECT count(*) FROM copied WHERE id = NEW.n); RETURN NEW; END $$;
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO beside VALUES (NEW.k, NEW.n, NEW.v); RETURN NULL; END $$;
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO alone VALUES (1, 'audited'); RETURN NULL; END $$;
CREATE FUNCTION stray() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM elsewhere; RETURN NULL; END $$;
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN UPDATE copied SET v = 'spoilt'; RETURN NULL; END $$;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.v := clock_timestamp()::text; RETURN NEW; END $$;
CREATE FUNCTION anything() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN EXECUTE format('INSERT INTO %I VALUES (1)', TG_ARGV[0]); RETURN NULL; END $$;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_notify('rows', NEW.k::text); RETURN NULL; END $$;
";

#[test]
fn triggers_stay_beside_their_rows() {
    let (databases, herd) = start(SHARDS, &options());
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for client in [&mut client, &mut reference] {
        for sql in TRIGGERS.split_inclusive("$$;") {
            client.run(sql);
        }
    }
    refused(
        &mut client,
        "CREATE TRIGGER a AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION audit()",
    );
    for sql in [
        "CREATE TRIGGER b BEFORE INSERT ON spread FOR EACH ROW EXECUTE FUNCTION polish()",
        "CREATE TRIGGER c AFTER INSERT ON spread FOR EACH ROW EXECUTE PROCEDURE follow()",
        "CREATE TRIGGER d AFTER INSERT ON alone FOR EACH ROW WHEN (NEW.id > 1000) EXECUTE FUNCTION audit()",
        "INSERT INTO spread VALUES (5, 1, 'five'), (6, 2, 'six')",
        "SELECT * FROM spread WHERE k = 5",
        "SELECT * FROM beside",
    ] {
        Fixture::same(&mut client, &mut reference, sql);
    }
    for sql in [
        "CREATE TRIGGER x AFTER INSERT ON spread EXECUTE FUNCTION stray()",
        "CREATE TRIGGER x AFTER INSERT ON spread EXECUTE FUNCTION spoil()",
        "CREATE TRIGGER x AFTER INSERT ON alone EXECUTE FUNCTION spoil()",
        "CREATE TRIGGER x AFTER INSERT ON alone FOR EACH ROW EXECUTE FUNCTION follow()",
        "CREATE TRIGGER x AFTER INSERT ON copied FOR EACH ROW EXECUTE FUNCTION audit()",
        "CREATE TRIGGER x BEFORE INSERT ON copied FOR EACH ROW EXECUTE FUNCTION stamp()",
        "CREATE TRIGGER x AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION anything('alone')",
        "CREATE CONSTRAINT TRIGGER x AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION tell()",
        "CREATE OR REPLACE TRIGGER b BEFORE INSERT ON spread FOR EACH ROW EXECUTE FUNCTION audit()",
        "CREATE RULE x AS ON DELETE TO spread DO ALSO DELETE FROM alone",
        "CREATE POLICY x ON spread USING (n IN (SELECT id FROM alone))",
        "ALTER TABLE alone ADD CHECK (id < total())",
        "ALTER TABLE elsewhere ALTER COLUMN n SET DEFAULT total()",
        "CREATE TABLE other (id int DEFAULT total(), v int)",
    ] {
        refused(&mut client, sql);
    }
}

#[test]
fn triggers_made_past_the_proxy_hold_writes_up() {
    let (databases, herd) = start(SHARDS, &options());
    databases.run_everywhere(TRIGGERS);
    databases.run_everywhere(
        "CREATE TABLE part (k bigint, n int) PARTITION BY LIST (n);
         CREATE TRIGGER x AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION audit();
         ALTER TABLE elsewhere ADD CHECK (n < total())",
    );
    let mut client = herd.connect();
    soon_refused(&mut client, "UPDATE spread SET v = 'x' WHERE k = 77");
    refused(&mut client, "INSERT INTO spread VALUES (5, 1, 'five')");
    refused(&mut client, "INSERT INTO elsewhere VALUES (5, 1)");
    let copied = client.copy_in("COPY spread FROM STDIN", &[b"7\t1\tx\n".to_vec()]);
    assert!(copied.is_err(), "{copied:?}");
    assert_eq!(client.value("SELECT count(*) FROM spread WHERE k = 4"), "4");

    let mut allowing = options();
    allowing.database.push("constraints: allow".to_owned());
    let allowing = Herd::start(&databases, &allowing);
    let mut client = allowing.connect();
    client.run("INSERT INTO spread VALUES (5, 1, 'five')");
    client.run("CREATE TRIGGER y AFTER INSERT ON spread FOR EACH ROW EXECUTE FUNCTION audit()");
}
