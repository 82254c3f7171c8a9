//! Reads that are finished on a twin: in blocks, under limits, canceled, and when servers fail.

use std::thread::{sleep, spawn};
use std::time::Duration;

use crate::client::{Client, cancel};
use crate::herd::{Herd, Options};
use crate::load::eventually;
use crate::message::{self, query};
use crate::postgres::Cluster;
use crate::shared::Databases;

const TABLES: &str = "
CREATE TABLE ga_orders (k int, id int, total numeric(8,2), placed timestamptz DEFAULT now(), PRIMARY KEY (k, id));
CREATE TABLE ga_items (k int, id int, p int, qty int);
CREATE TABLE ga_products (p int PRIMARY KEY, name text, wide text);
CREATE TABLE ga_colours (id int, name text);
CREATE TABLE ga_notes (id int, note text);
CREATE VIEW ga_recent AS SELECT * FROM ga_orders WHERE placed <= now();
";

const ROWS: [&str; 5] = [
    "INSERT INTO ga_orders SELECT g % 7, g, g * 1.5, '2024-01-01'::timestamptz + g * interval '1 day' FROM generate_series(1, 60) g",
    "INSERT INTO ga_items SELECT g % 7, g, g % 11, g % 5 FROM generate_series(1, 60) g",
    "INSERT INTO ga_products SELECT g, 'p' || g, repeat('x', 100) FROM generate_series(0, 10) g",
    "INSERT INTO ga_colours VALUES (1, 'red'), (2, 'blue')",
    "INSERT INTO ga_notes VALUES (1, 'one'), (3, 'three')",
];

fn options(settings: &[&str]) -> Options {
    let mut options = Options::new("transaction");
    options
        .sharded("ga_orders", "k", "int", "{modulo: all}")
        .on("ga_items", "ga_orders", "k")
        .sharded("ga_products", "p", "int", "{jump: all}")
        .table("ga_colours", "reference");
    for setting in settings {
        options.set(setting);
    }
    options
}

/// The rows on their shards, and all of them in the reference.
fn start(shards: usize) -> (Databases, Herd) {
    let databases = Databases::create(shards);
    databases.run_everywhere(TABLES);
    let mut options = options(&[]);
    options.twins(2);
    let herd = Herd::start(&databases, &options);
    fill(&mut databases.reference(), &mut herd.connect());
    (databases, herd)
}

fn fill(reference: &mut Client, client: &mut Client) {
    for rows in ROWS {
        reference.run(rows);
    }
    for table in [
        "ga_orders",
        "ga_items",
        "ga_products",
        "ga_colours",
        "ga_notes",
    ] {
        let rows = reference.copy_out(&format!("COPY {table} TO STDOUT"));
        client
            .copy_in(&format!("COPY {table} FROM STDIN"), &[rows])
            .expect("copied");
    }
}

/// The same statements to both: the same rows, tags, and errors.
fn same(client: &mut Client, reference: &mut Client, statements: &[&str]) {
    for sql in statements {
        match (client.query(sql), reference.query(sql)) {
            (Ok(own), Ok(wanted)) => {
                let sorted = |mut rows: Vec<_>| {
                    rows.sort();
                    rows
                };
                assert_eq!(own.tags, wanted.tags, "{sql}");
                assert_eq!(sorted(own.rows), sorted(wanted.rows), "{sql}");
            }
            (Err(own), Err(wanted)) => assert_eq!(own.code, wanted.code, "{sql}: {own:?}"),
            (own, wanted) => panic!("{sql}: {own:?} instead of {wanted:?}"),
        }
    }
}

const JOIN: &str = "SELECT o.id, p.name, i.qty FROM ga_orders o JOIN ga_items i USING (k, id) \
    JOIN ga_products p USING (p) WHERE o.total > 20 AND i.qty <> 2";

#[test]
fn a_block_sees_what_it_wrote() {
    for shards in [1, 2, 4] {
        let (databases, herd) = start(shards);
        let (mut client, mut reference) = (herd.connect(), databases.reference());
        same(
            &mut client,
            &mut reference,
            &[
                JOIN,
                "BEGIN",
                JOIN,
                "INSERT INTO ga_orders VALUES (1, 1001, 77.5, '2024-05-05')",
                "INSERT INTO ga_items VALUES (1, 1001, 3, 4)",
                JOIN,
                "SELECT k, count(*), sum(total), avg(total) FROM ga_orders GROUP BY k",
                "SELECT count(*), min(id) FROM ga_orders",
                "SELECT id FROM ga_orders ORDER BY total DESC, id LIMIT 3",
                "SAVEPOINT s",
                "DELETE FROM ga_orders WHERE k = 1",
                JOIN,
                "SELECT 1 / (count(*) - count(*)) FROM ga_orders o, ga_products p",
                JOIN,
                "ROLLBACK TO s",
                JOIN,
                "SELECT count(*) FILTER (WHERE placed < now()), count(DISTINCT now()) FROM ga_orders o JOIN ga_products p ON p.p = o.k",
                "SELECT now() = (SELECT max(now()) FROM ga_orders), now()::date = current_date FROM ga_products GROUP BY 1",
                "SELECT n.note, c.name, count(*) FROM ga_notes n JOIN ga_colours c USING (id) JOIN ga_orders o ON o.k = n.id GROUP BY 1, 2",
                "COMMIT",
                JOIN,
                "SELECT nothing FROM ga_orders o JOIN ga_products p ON p.p = o.k",
                "BEGIN",
                "SELECT nothing FROM ga_orders o JOIN ga_products p ON p.p = o.k",
                "SELECT 1",
                "COMMIT",
                JOIN,
            ],
        );
        // What holds for the client's transactions does not for those that are made for it.
        client.run("SET default_transaction_read_only = on");
        same(&mut client, &mut reference, &[JOIN]);
        client.run("SET default_transaction_isolation = 'serializable'");
        for side in [&mut client, &mut reference] {
            side.run("SET datestyle = 'German'");
            side.run("SET intervalstyle = 'sql_standard'");
            side.run("SET extra_float_digits = -3");
        }
        let dated = "SELECT o.placed, o.placed - '2023-01-01'::timestamptz, o.total::float8 / 7, p.name FROM ga_orders o \
            JOIN ga_products p ON p.p = o.k WHERE o.placed > '05.01.2024' AND o.placed - '2023-01-01'::timestamptz > '-1 2:00'";
        same(
            &mut client,
            &mut reference,
            &[dated, "BEGIN", dated, "COMMIT"],
        );
        for side in [&mut client, &mut reference] {
            side.run("RESET ALL");
        }
        // The moment is that of the block, on whatever server it is asked.
        client.run("BEGIN");
        let moment = client.value("SELECT now() FROM ga_orders WHERE k = 1 LIMIT 1");
        sleep(Duration::from_millis(20));
        let gathered = "SELECT DISTINCT now() FROM ga_orders o JOIN ga_products p ON p.p = o.k";
        assert_eq!(client.value(gathered), moment);
        if shards > 1 {
            let sql = "SELECT count(*) FROM ga_recent r JOIN ga_products p ON p.p = r.k";
            assert_eq!(client.fails(sql).code, "0A000");
        }
        client.run("ROLLBACK");
    }
}

#[test]
fn columns_that_are_compared_as_texts_narrow_nothing() {
    let (databases, herd) = start(3);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    same(
        &mut client,
        &mut reference,
        &[
            "SELECT c.id, p.p, o.id FROM ga_colours c JOIN ga_products p ON c.id::text = substr(p.name, 2) JOIN ga_orders o ON o.id = p.p WHERE c.name <> 'x'",
            "SELECT c.id, p.p, g.i FROM ga_colours c LEFT JOIN generate_series(1, 3) g (i) ON c.id = g.i LEFT JOIN ga_products p ON c.id::text = p.name WHERE c.name <> 'x'",
            "SELECT o.id, i.p FROM ga_orders o JOIN ga_items i ON o.k::text = i.k::text WHERE o.total > 60 AND i.qty > 3",
        ],
    );
}

#[test]
fn portals_hand_on_a_part_of_the_rows() {
    let (databases, herd) = start(3);
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    for sql in [
        "SELECT o.id, p.name FROM ga_orders o JOIN ga_products p ON p.p = o.k ORDER BY o.id",
        "SELECT k, avg(total) FROM ga_orders GROUP BY k ORDER BY k",
        "SELECT id FROM ga_orders ORDER BY lower(id::text), id",
    ] {
        for (step, format) in [(1, 0), (7, 1), (60, 0), (61, 1)] {
            for block in [false, true] {
                let mut bytes = message::parse("", sql, &[]);
                bytes.extend(message::bind("p", "", &[], &[], &[format]));
                for round in 0..62 {
                    if round == 2 {
                        bytes.extend(message::describe(b'P', "p"));
                    }
                    bytes.extend(message::execute("p", step));
                }
                bytes.extend(message::sync());
                // The rest is not asked for.
                let part = [
                    message::parse("", sql, &[]),
                    message::describe(b'S', ""),
                    message::sync(),
                    message::bind("p", "", &[], &[], &[]),
                    message::describe(b'P', "p"),
                    message::execute("p", 1),
                    message::sync(),
                ]
                .concat();
                for bytes in [&bytes, &part] {
                    let mut answers = Vec::new();
                    for side in [&mut client, &mut reference] {
                        if block {
                            side.run("BEGIN");
                        }
                        side.send(bytes);
                        let mut answer = side.until_ready().expect("an answer");
                        if bytes == &part {
                            answer.extend(side.until_ready().expect("another"));
                        }
                        if block {
                            side.run("COMMIT");
                        }
                        answers.push(answer);
                    }
                    let told: Vec<Vec<_>> = answers
                        .iter()
                        .map(|it| it.iter().map(message::Message::line).collect())
                        .collect();
                    assert_eq!(told[0], told[1], "{sql} by {step}, block {block}");
                }
            }
        }
    }
}

#[test]
fn a_block_keeps_its_snapshot_on_every_shard() {
    let (_databases, herd) = start(3);
    let (mut client, mut other) = (herd.connect(), herd.connect());
    let sum = "SELECT sum(o.total), count(*) FROM ga_orders o CROSS JOIN ga_products p";
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        client.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        let before = client.rows(sum);
        for key in 0..6 {
            other.run(&format!(
                "UPDATE ga_orders SET total = total + 1 WHERE k = {key}"
            ));
        }
        assert_eq!(client.rows(sum), before, "{level}");
        client.run("COMMIT");
        assert_ne!(client.rows(sum), before, "{level}");
    }
    // Without one each statement sees what is there.
    client.run("BEGIN");
    let before = client.rows(sum);
    other.run("UPDATE ga_orders SET total = total + 1 WHERE k = 1");
    assert_ne!(client.rows(sum), before);
    client.run("ROLLBACK");
}

#[test]
fn a_statement_sees_one_moment_of_a_shard() {
    let (_databases, herd) = start(3);
    let mut writer = herd.connect();
    let pairs = "SELECT (SELECT sum(qty) FROM ga_items WHERE k = 1) - (SELECT sum(total) FROM ga_orders WHERE k = 1), \
        (SELECT count(*) FROM ga_products)";
    writer.run("UPDATE ga_items SET qty = 0 WHERE k = 1");
    writer.run("UPDATE ga_orders SET total = 0 WHERE k = 1");
    let writing = spawn(move || {
        for _ in 0..300 {
            writer.run("BEGIN");
            writer.run("UPDATE ga_items SET qty = qty + 1 WHERE k = 1");
            writer.run("UPDATE ga_orders SET total = total + 1 WHERE k = 1");
            writer.run("COMMIT");
        }
    });
    let mut client = herd.connect();
    let mut looked = 0;
    while !writing.is_finished() {
        client.run("BEGIN");
        client.run("SELECT 1 FROM ga_orders WHERE k = 1");
        for _ in 0..3 {
            let row = &client.rows(pairs)[0];
            // As many rows of each: what differs was seen at another moment.
            assert_eq!(row[0].as_deref(), Some("0.00"), "after {looked}");
            looked += 1;
        }
        client.run("COMMIT");
    }
    writing.join().expect("written");
    println!("looked {looked} times");
}

#[test]
fn limits_name_their_keys() {
    let databases = Databases::create(2);
    databases.run_everywhere(TABLES);
    let mut options = options(&[]);
    options.twins(1);
    let herd = Herd::start(&databases, &options);
    fill(&mut databases.reference(), &mut herd.connect());
    // Some seconds: it may run before the limit is in force.
    let long = "SELECT count(*) FROM ga_orders o, ga_products p, generate_series(1, 100000) g";
    herd.connect()
        .run("INSERT INTO ga_products VALUES (100, 'wide', repeat('x', 2000000))");
    let wide =
        "SELECT max(length(p.wide)) FROM ga_orders o CROSS JOIN ga_products p WHERE o.id > 0";
    for (limit, sql, code, key) in [
        ("max_rows: 20", wide, "53200", "gather.max_rows"),
        ("max_bytes: 1MB", wide, "53200", "gather.max_bytes"),
        ("timeout: 1s", long, "57014", "gather.timeout"),
    ] {
        let mut limited = self::options(&[]);
        limited.set(&format!("gather: {{twins: 1, {limit}}}"));
        limited.database.push("control_user: postgres".to_owned());
        herd.rewrite(&limited);
        herd.signal("HUP");
        let mut client = herd.connect();
        eventually("the limit counts", || {
            client = herd.connect();
            client
                .query(sql)
                .is_err_and(|error| error.code == code && error.hint.contains(key))
        });
        client.run("SELECT count(*) FROM ga_colours");
        assert_eq!(client.value("SELECT count(*) FROM ga_notes n, ga_colours c, ga_orders o WHERE o.k = 1 AND o.id = 1"), "4");
    }
    in_sync(&herd);
}

#[test]
fn a_cancel_ends_it_in_every_phase() {
    let (databases, herd) = start(3);
    let mut client = herd.connect();
    let key = client.key;
    // While the twin works.
    let long = "SELECT count(*) FROM ga_orders o, ga_products p, generate_series(1, 1000000000) g";
    // While a shard waits.
    let mut holder = databases.shard(1);
    holder.run("BEGIN");
    holder.run("LOCK TABLE ga_products");
    let waits = "SELECT count(*) FROM ga_orders o CROSS JOIN ga_products p";
    for (sql, in_block) in [(long, false), (waits, false), (waits, true)] {
        if sql == long {
            holder.run("COMMIT");
        } else {
            holder.query("COMMIT").ok();
            holder.run("BEGIN");
            holder.run("LOCK TABLE ga_products");
        }
        if in_block {
            client.run("BEGIN");
            client.run("SELECT 1 FROM ga_orders WHERE k = 2");
        }
        client.send(&query(sql));
        sleep(Duration::from_millis(300));
        cancel(herd.port, key);
        assert_eq!(
            client.answer().expect_err("canceled").code,
            "57014",
            "{sql}"
        );
        if in_block {
            assert_eq!(client.fails("SELECT 1").code, "25P02");
            client.run("ROLLBACK");
        }
        holder.query("COMMIT").ok();
        assert_eq!(client.value(waits), "660", "{sql}");
    }
    in_sync(&herd);
}

/// No connection was found out of step.
fn in_sync(herd: &Herd) {
    let lost = herd.metric("pgherd_out_of_sync_total", "");
    assert!(lost.is_none_or(|lost| lost < 0.5), "{lost:?}");
}

/// Two shards and a gather server of its own.
struct Faulty {
    herd: Herd,
    shards: Vec<Cluster>,
    gather: Cluster,
}

fn faulty(settings: &[&str]) -> Faulty {
    faulty_in("transaction", settings)
}

fn faulty_in(mode: &str, settings: &[&str]) -> Faulty {
    let shards: Vec<Cluster> = (0..2).map(|_| Cluster::start("")).collect();
    let gather = Cluster::start("");
    for cluster in &shards {
        cluster
            .connect("postgres")
            .run("CREATE DATABASE faulty OWNER app");
        Client::connect(cluster.port, "app", "faulty").run(TABLES);
    }
    let mut options = options(settings);
    options.set(&format!("pool_mode: {mode}"));
    options.twins(2);
    options.set(&format!(
        "gather: {{twins: 2, timeout: 3s, server: \"host=127.0.0.1 port={}\"}}",
        gather.port
    ));
    let ports: Vec<u16> = shards.iter().map(|cluster| cluster.port).collect();
    let herd = Herd::start_over("faulty", &ports, &options);
    let mut client = herd.connect_to("faulty");
    for rows in ["ga_products", "ga_orders"] {
        let text: String = (0..40)
            .map(|number| match rows {
                "ga_products" => format!("{number}\tp{number}\tx\n"),
                _ => format!("{number}\t{number}\t1.5\t2024-01-01\n"),
            })
            .collect();
        client
            .copy_in(&format!("COPY {rows} FROM STDIN"), &[text.into_bytes()])
            .expect("copied");
    }
    Faulty {
        herd,
        shards,
        gather,
    }
}

const ALL: &str = "SELECT count(*), sum(o.total) FROM ga_orders o CROSS JOIN ga_products p";

/// What befalls a server that is at work for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Crash,
    /// It is stopped, and the client cancels.
    Stop,
    /// The client cancels.
    Cancel,
}

impl Trouble {
    const ALL: [Trouble; 3] = [Trouble::Crash, Trouble::Cancel, Trouble::Stop];

    /// Lets it happen while the client waits, which gets one error.
    fn strikes(self, server: &mut Cluster, client: &mut Client, port: u16) {
        match self {
            Trouble::Crash => server.crash(),
            Trouble::Stop => {
                server.signal_all("STOP");
                cancel(port, client.key);
            }
            Trouble::Cancel => cancel(port, client.key),
        }
        let error = client.answer().expect_err("failed");
        let codes = ["08006", "57P01", "57P02", "57014"];
        assert!(codes.contains(&error.code.as_str()), "{self:?}: {error:?}");
    }

    fn ends(self, server: &mut Cluster) {
        match self {
            Trouble::Crash => server.restart(),
            Trouble::Stop => server.signal_all("CONT"),
            Trouble::Cancel => {}
        }
    }
}

/// It works again, and no twin kept a row.
fn recovers(faulty: &Faulty) {
    eventually("it works again", || {
        let client = Client::try_connect(faulty.herd.port, "app", "faulty");
        client.is_ok_and(|mut client| client.query(ALL).is_ok())
    });
    let mut client = faulty.herd.connect_to("faulty");
    let row = &client.rows(ALL)[0];
    assert_eq!(row[0].as_deref(), Some("1600"));
    for twin in 1..=2 {
        let name = format!("pgherd_herd_faulty_twin_{twin}");
        let mut twin = faulty.gather.connect(&name);
        eventually("the twin is empty", || {
            twin.value(
                "SELECT (SELECT count(*) FROM ga_orders) + (SELECT count(*) FROM ga_products)",
            ) == "0"
        });
    }
    in_sync(&faulty.herd);
}

#[test]
fn a_shard_that_fails_costs_one_statement() {
    let mut faulty = faulty(&["server_connect_timeout: 2s", "query_wait_timeout: 3s"]);
    for (fault, in_block) in [("crash", false), ("crash", true), ("stop", false)] {
        let mut client = faulty.herd.connect_to("faulty");
        client.run(ALL);
        let mut holder = faulty.shards[1].connect("faulty");
        holder.run("BEGIN");
        holder.run("LOCK TABLE ga_products");
        if in_block {
            client.run("BEGIN");
            client.run("SELECT 1 FROM ga_orders WHERE k = 0");
        }
        client.send(&query(ALL));
        sleep(Duration::from_millis(300));
        if fault == "crash" {
            faulty.shards[1].crash();
        } else {
            faulty.shards[1].signal_all("STOP");
        }
        let error = client.answer().expect_err("failed");
        assert!(
            matches!(error.code.as_str(), "08006" | "57P01" | "57P02" | "57014"),
            "{fault}: {error:?}"
        );
        if in_block {
            assert_eq!(client.fails("SELECT 1").code, "25P02");
            client.run("ROLLBACK");
        }
        if fault == "crash" {
            faulty.shards[1].restart();
        } else {
            faulty.shards[1].signal_all("CONT");
        }
        drop(holder);
        recovers(&faulty);
    }
}

#[test]
fn a_shard_that_fails_amid_a_merge_or_a_part_costs_one_statement() {
    let mut faulty = faulty(&["server_connect_timeout: 2s", "query_wait_timeout: 3s"]);
    let merged = "SELECT k, id FROM ga_orders ORDER BY total, k LIMIT 30";
    let totalled = "SELECT count(*), min(k) FROM ga_orders";
    let in_part = "SELECT total, count(*) FROM ga_orders GROUP BY total";
    for sql in [merged, totalled, in_part] {
        for trouble in Trouble::ALL {
            let mut client = faulty.herd.connect_to("faulty");
            client.run(sql);
            let mut holder = faulty.shards[1].connect("faulty");
            holder.run("BEGIN");
            holder.run("LOCK TABLE ga_orders");
            client.send(&query(sql));
            sleep(Duration::from_millis(300));
            trouble.strikes(&mut faulty.shards[1], &mut client, faulty.herd.port);
            if trouble == Trouble::Stop {
                // The other shard works on meanwhile.
                let one = client.value("SELECT total FROM ga_orders WHERE k = 0");
                assert_eq!(one, "1.50");
            }
            trouble.ends(&mut faulty.shards[1]);
            drop(holder);
            recovers(&faulty);
            eventually("it answers again", || client.query(sql).is_ok());
        }
    }
}

#[test]
fn a_server_that_fails_amid_the_rows_costs_one_statement() {
    let mut faulty = faulty(&["server_connect_timeout: 2s", "query_wait_timeout: 3s"]);
    for cluster in &faulty.shards {
        let mut shard = cluster.connect("faulty");
        shard.run("CREATE TABLE ga_many (k int, wide text)");
        shard.run("GRANT ALL ON ga_many TO app");
        shard
            .run("INSERT INTO ga_many SELECT g, repeat('x', 500) FROM generate_series(1, 60000) g");
    }
    let mut options = options(&["server_connect_timeout: 2s", "query_wait_timeout: 3s"]);
    options.twins(2);
    options.set(&format!(
        "gather: {{twins: 2, timeout: 20s, server: \"host=127.0.0.1 port={}\"}}",
        faulty.gather.port
    ));
    options.sharded("ga_many", "k", "int", "{modulo: all}");
    faulty.herd.rewrite(&options);
    faulty.herd.signal("HUP");
    let in_turn = "SELECT * FROM ga_many";
    let merged = "SELECT * FROM ga_many ORDER BY k";
    let gathered = "SELECT p.name, repeat('x', 10000) FROM ga_orders o CROSS JOIN ga_products p, generate_series(1, 30) g";
    eventually("the table is known", || {
        let mut client = faulty.herd.connect_to("faulty");
        client
            .query(&format!("{merged} LIMIT 3"))
            .is_ok_and(|answer| answer.rows.len() == 3)
    });
    for sql in [in_turn, merged, gathered] {
        for trouble in Trouble::ALL {
            let mut client = faulty.herd.connect_to("faulty");
            // Nobody takes the rows yet, so the servers are in the middle of them.
            client.send(&query(sql));
            sleep(Duration::from_millis(700));
            let server = if sql == gathered {
                &mut faulty.gather
            } else {
                &mut faulty.shards[1]
            };
            trouble.strikes(server, &mut client, faulty.herd.port);
            trouble.ends(server);
            recovers(&faulty);
            eventually("it answers again", || {
                client
                    .query("SELECT count(*) FROM ga_many")
                    .is_ok_and(|answer| answer.rows[0][0].as_deref() == Some("120000"))
            });
        }
    }
}

#[test]
fn a_gather_server_that_fails_costs_one_statement() {
    for mode in ["transaction", "session"] {
        check_failing_gather_server(mode);
    }
}

fn check_failing_gather_server(mode: &str) {
    let settings = ["server_connect_timeout: 2s", "query_wait_timeout: 3s"];
    let mut faulty = faulty_in(mode, &settings);
    let long = "SELECT count(*) FROM ga_orders o, ga_products p, generate_series(1, 1000000000) g";
    for fault in ["crash", "stop"] {
        let mut client = faulty.herd.connect_to("faulty");
        client.run(ALL);
        client.send(&query(long));
        sleep(Duration::from_millis(500));
        // It holds its twin to the end, so that no other proxy takes it.
        let held = (1..=2).filter(|twin| {
            let name = format!("pgherd_herd_faulty_twin_{twin}");
            let mut twin = faulty.gather.connect(&name);
            twin.value("SELECT pgherd.hold() IS NULL") == "t"
        });
        assert_eq!(held.count(), 1);
        if fault == "crash" {
            faulty.gather.crash();
        } else {
            faulty.gather.signal_all("STOP");
        }
        let error = client.answer().expect_err("failed");
        assert!(
            matches!(error.code.as_str(), "08006" | "57P01" | "57P02" | "57014"),
            "{fault}: {error:?}"
        );
        // What needs no twin goes on.
        assert_eq!(client.value("SELECT count(*) FROM ga_orders"), "40");
        assert_eq!(
            client.value("SELECT total FROM ga_orders WHERE k = 3"),
            "1.50"
        );
        if fault == "crash" {
            faulty.gather.restart();
        } else {
            faulty.gather.signal_all("CONT");
        }
        recovers(&faulty);
    }
}

#[test]
fn a_single_table_behind_a_copy_leaves_no_rows_of_other_shards_out() {
    for shards in [2, 3] {
        let (databases, herd) = start(shards);
        let sql = "SELECT n.note, c.name, o.id FROM ga_notes n LEFT JOIN ga_colours c ON c.id = n.id \
            LEFT JOIN ga_orders o ON o.k = c.id WHERE n.note <> 'x'";
        same(&mut herd.connect(), &mut databases.reference(), &[sql]);
    }
}

#[test]
fn groups_that_having_drops_are_not_fetched() {
    for shards in [2, 3] {
        let (databases, herd) = start(shards);
        let (mut client, mut reference) = (herd.connect(), databases.reference());
        for one in [&mut client, &mut reference] {
            one.run("INSERT INTO ga_notes VALUES (NULL, 'none'), (NULL, 'two'), (1, 'more')");
        }
        let large = "SELECT k FROM ga_items GROUP BY k HAVING sum(qty) > 17";
        let joined = |groups: &str| {
            format!(
                "SELECT o.k, o.id, i.qty FROM ga_orders o JOIN ga_items i ON i.k = o.k AND i.id = o.id \
                JOIN ga_products p ON p.p = i.p WHERE o.k IN ({groups})"
            )
        };
        let statements = [
            joined(large),
            joined("SELECT k FROM ga_items WHERE p > 3 GROUP BY k HAVING count(*) > 4 AND max(qty) = 4"),
            joined("SELECT k FROM ga_items GROUP BY k HAVING avg(id) > 31 AND stddev(id) > 1"),
            joined("SELECT k FROM ga_orders GROUP BY k HAVING sum(total::float8) > 390"),
            // A part of a group passes what the whole does not.
            "SELECT i.k, i.id, g.n FROM ga_items i JOIN (SELECT k, count(*) n FROM ga_items GROUP BY k \
                HAVING count(*) < 9) g ON g.k = i.k JOIN ga_products p ON p.p = i.p WHERE i.qty = 1"
                .to_owned(),
            "SELECT p.name, g.k, g.n FROM ga_products p LEFT JOIN (SELECT k, count(*) n FROM ga_items GROUP BY k \
                HAVING count(*) < 9) g ON g.k = p.p"
                .to_owned(),
            "SELECT p.name FROM ga_products p WHERE p.p NOT IN (SELECT k FROM ga_items GROUP BY k HAVING min(qty) = 0)"
                .to_owned(),
            "SELECT a.k, a.n, b.s FROM (SELECT k, count(*) n FROM ga_items GROUP BY k HAVING count(*) > 8) a \
                FULL JOIN (SELECT k, sum(qty) s FROM ga_items GROUP BY k HAVING sum(qty) > 17) b ON b.k = a.k + 1"
                .to_owned(),
            "SELECT g.id, g.n, o.k FROM (SELECT id, count(*) n FROM ga_notes GROUP BY id HAVING count(*) > 1) g \
                LEFT JOIN ga_orders o ON o.k = g.id"
                .to_owned(),
            "SELECT c.name, o.id FROM ga_colours c JOIN ga_orders o ON o.k = c.id WHERE EXISTS \
                (SELECT FROM ga_items i WHERE i.k = o.k GROUP BY i.k HAVING sum(i.qty) > 17 AND sum(i.qty) > c.id)"
                .to_owned(),
        ];
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        same(&mut client, &mut reference, &statements);
        let fetched = |client: &mut Client, sql: &str| {
            let rows = client.rows(&format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
            let line = rows
                .iter()
                .flatten()
                .flatten()
                .find(|line| line.contains("ga_items") && line.contains("actual rows"))
                .unwrap_or_else(|| panic!("{rows:#?}"))
                .clone();
            let count = line.split("actual rows=").nth(1).expect("a count");
            let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<usize>().expect("a number")
        };
        let passing = reference.value(&format!(
            "SELECT count(*) FROM ga_items WHERE k IN ({large})"
        ));
        assert!(passing.parse::<usize>().expect("a number") < 60);
        let sql = format!(
            "SELECT o.k, i.qty FROM ga_orders o JOIN ga_items i ON i.k = o.k JOIN ga_products p ON p.p = o.id \
                WHERE o.k IN ({large})"
        );
        same(&mut client, &mut reference, &[&sql]);
        assert_eq!(fetched(&mut client, &sql).to_string(), passing);
    }
}

#[test]
fn a_cursor_keeps_its_twin_until_it_is_closed() {
    let (databases, herd) = start(3);
    let states = || herd.console().run("SHOW TWINS").column("state");
    let (mut client, mut reference) = (herd.connect(), databases.reference());
    same(
        &mut client,
        &mut reference,
        &[
            "BEGIN",
            "DECLARE a CURSOR FOR SELECT id, k FROM ga_orders ORDER BY id",
            "FETCH 3 FROM a",
            "DECLARE b CURSOR FOR SELECT p.name, count(*) FROM ga_items i JOIN ga_products p USING (p) GROUP BY 1 ORDER BY 1",
            "FETCH 2 FROM b",
        ],
    );
    assert_eq!(states(), ["busy", "busy"]);
    client.run("SAVEPOINT s");
    let error = client.fails(JOIN);
    assert_eq!(error.code, "53300", "{error:?}");
    assert!(error.message.contains("cursor"), "{error:?}");
    client.run("ROLLBACK TO s");
    reference.run("SAVEPOINT s");
    same(&mut client, &mut reference, &["FETCH 2 FROM a", "CLOSE b"]);
    eventually("the twin is free", || {
        states().iter().filter(|state| *state == "free").count() == 1
    });
    // What is written on several shards is committed in two phases, the cursor's twin not among them.
    same(
        &mut client,
        &mut reference,
        &[
            JOIN,
            "INSERT INTO ga_products VALUES (101, 'x', ''), (102, 'y', ''), (103, 'z', ''), (104, 'z', '')",
            "SET CONSTRAINTS ALL DEFERRED",
            "SET LOCAL TimeZone = 'Asia/Tokyo'",
            "FETCH ALL FROM a",
            "COMMIT",
            "SELECT p, name FROM ga_products WHERE p > 100",
            "FETCH a",
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT placed FROM ga_orders ORDER BY placed",
            "SET LOCAL TimeZone = 'Asia/Tokyo'",
            "FETCH c",
            "SET TimeZone = 'America/Lima'",
            "SELECT placed FROM ga_orders WHERE k = 1 ORDER BY id LIMIT 1",
            "FETCH c",
            "ROLLBACK",
            "SHOW TimeZone",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "DECLARE c CURSOR FOR SELECT count(*) FROM ga_orders WHERE placed < now()",
            "FETCH c",
            "COMMIT AND CHAIN",
            "FETCH c",
            "ROLLBACK",
            // Settings of the block are not left on its twin.
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT placed FROM ga_orders ORDER BY placed",
            "SET TimeZone = 'Asia/Tokyo'",
            "FETCH c",
            "COMMIT",
            "SELECT o.placed FROM ga_orders o JOIN ga_products p ON p.p = o.k WHERE o.id < 5",
            "RESET TimeZone",
            "BEGIN",
            "SET LOCAL TimeZone = 'Asia/Tokyo'",
            "SAVEPOINT s",
            "DECLARE c CURSOR FOR SELECT placed FROM ga_orders ORDER BY placed",
            "FETCH c",
            "ROLLBACK TO s",
            "DECLARE c CURSOR FOR SELECT placed FROM ga_orders ORDER BY placed DESC",
            "ROLLBACK TO s",
            "DECLARE c CURSOR FOR SELECT id FROM ga_orders ORDER BY id DESC",
            "FETCH c",
            "RELEASE s",
            "FETCH c",
            "COMMIT",
            "SELECT o.placed FROM ga_orders o JOIN ga_products p ON p.p = o.k WHERE o.id < 5",
            // A block that no other shard may join has cursors all the same.
            "BEGIN",
            "SELECT set_config('a.b', random()::text, true) IS NULL",
            "DECLARE c CURSOR FOR SELECT id FROM ga_orders ORDER BY id DESC",
            "FETCH c",
            "COMMIT",
        ],
    );
    let refused = client.query("BEGIN; DECLARE h CURSOR WITH HOLD FOR SELECT id FROM ga_orders");
    assert_eq!(refused.expect_err("refused").code, "0A000");
    client.run("ROLLBACK");
    // A client that leaves gives all of it up.
    client.run("BEGIN");
    client.run("DECLARE a CURSOR FOR SELECT id, k FROM ga_orders ORDER BY id");
    client.run("FETCH a");
    drop(client);
    eventually("the twins are free", || states() == ["free", "free"]);
    for twin in 1..=2 {
        let name = format!("pgherd_herd_{}_twin_{twin}", databases.name);
        let mut twin = Client::connect(crate::shared::ports()[0], "postgres", &name);
        assert_eq!(twin.value("SELECT count(*) FROM ga_orders"), "0");
    }
    in_sync(&herd);
}

#[test]
fn a_cursor_whose_server_fails_fails_its_block() {
    for mode in ["transaction", "session"] {
        check_failing_cursors(mode);
    }
}

fn check_failing_cursors(mode: &str) {
    let settings = ["server_connect_timeout: 2s", "query_wait_timeout: 3s"];
    let mut faulty = faulty_in(mode, &settings);
    let declare = "DECLARE c CURSOR FOR SELECT o.id, g FROM ga_orders o, generate_series(1, 100000) g ORDER BY g, o.id DESC";
    for trouble in Trouble::ALL {
        for is_at_work in [true, false] {
            let mut client = faulty.herd.connect_to("faulty");
            client.run("BEGIN");
            client.run("UPDATE ga_orders SET total = 0 WHERE k = 1");
            client.run(declare);
            if is_at_work {
                client.send(&query("FETCH 10 FROM c"));
                sleep(Duration::from_millis(300));
                trouble.strikes(&mut faulty.gather, &mut client, faulty.herd.port);
            } else {
                client.run("FETCH 10 FROM c");
                client.run("SELECT total FROM ga_orders WHERE k = 2");
                if trouble == Trouble::Crash {
                    faulty.gather.crash();
                    faulty.gather.restart();
                    let error = client.fails("FETCH 10 FROM c");
                    assert!(
                        error.code.starts_with("08") || error.code.starts_with("57"),
                        "{error:?}"
                    );
                } else {
                    client.fails("SELECT 1 / 0");
                }
            }
            if let Ok(answer) = client.query("SELECT 1") {
                panic!("the block goes on: {answer:?}");
            }
            client.run("ROLLBACK");
            trouble.ends(&mut faulty.gather);
            let total = client.value("SELECT total FROM ga_orders WHERE k = 1");
            assert_eq!(total, "1.50");
            recovers(&faulty);
        }
    }
}

#[test]
fn many_tables_that_narrow_each_other_ask_a_bounded_question() {
    let (databases, herd) = start(3);
    let mut client = herd.connect();
    let joins: Vec<String> = (1..12)
        .map(|at| format!(" JOIN ga_orders a{at} ON a{at}.k = a0.k AND a{at}.id = a0.id AND a{at}.total > {at}"))
        .collect();
    let sql = format!(
        "SELECT count(*), max(r) FROM (SELECT row_number() OVER (ORDER BY a0.total) r FROM ga_orders a0{}) x",
        joins.concat()
    );
    same(&mut client, &mut databases.reference(), &[&sql]);
    let rows = client.rows(&format!("EXPLAIN {sql}"));
    let longest = rows.iter().flatten().flatten().map(String::len).max();
    assert!(longest.is_some_and(|bytes| bytes < 20_000), "{longest:?}");
}

#[test]
fn explain_tells_the_fragments() {
    let (_databases, herd) = start(3);
    let mut client = herd.connect();
    let lines = |client: &mut Client, sql: &str| -> Vec<String> {
        let rows = client.rows(sql);
        rows.into_iter()
            .map(|row| row[0].clone().expect("a line"))
            .collect()
    };
    let sql = "SELECT count(*) FROM ga_orders o JOIN ga_products p ON p.p = o.k WHERE o.k = 2 AND p.name <> 'x'";
    let plain = lines(&mut client, &format!("EXPLAIN {sql}"));
    assert!(plain[0].starts_with("Route: gather on"), "{plain:#?}");
    // The condition on one side holds for the other: each is asked of one shard.
    let asked: Vec<&String> = plain
        .iter()
        .filter(|line| line.contains("estimated rows"))
        .collect();
    assert_eq!(asked.len(), 2, "{plain:#?}");
    assert!(asked.iter().all(|line| !line.contains(',')), "{plain:#?}");
    let run = lines(&mut client, &format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
    assert!(
        run.iter().any(|line| line.contains("(actual rows=1)")),
        "{run:#?}"
    );
    // Nothing but what it uses is fetched.
    assert!(!run.iter().any(|line| line.contains("wide")), "{run:#?}");
    assert!(
        herd.metric("pgherd_gather_rows_total", "")
            .is_some_and(|rows| rows > 0.0)
    );
}
