//! Which table a name means is what `search_path` says on the server, however it was set.

use crate::client::Client;
use crate::fixture::Fixture;
use crate::herd::{Herd, Options};
use crate::shared::Databases;

/// `rs` is sharded in one schema and single in another; rows of key 1 say which.
fn two_schemas() -> Fixture {
    let mut options = Fixture::options("transaction");
    options.on("public.rs", "by_modulo", "k");
    let fixture = Fixture::with(&mut options);
    fixture.databases.run_everywhere(
        "CREATE TABLE public.rs (k bigint, v text); CREATE SCHEMA other; CREATE TABLE other.rs (k bigint, v text)",
    );
    let home = fixture.databases.shard(0);
    let shard = fixture.databases.shard(1);
    for (mut server, schema) in [(home, "other"), (shard, "public")] {
        server.run(&format!("INSERT INTO {schema}.rs VALUES (1, '{schema}')"));
    }
    fixture.herd.console().run("RELOAD");
    crate::load::eventually("the catalog is read", || {
        let mut client = fixture.connect();
        client.run("SET search_path TO other");
        seen(&mut client) == "other"
    });
    fixture
}

fn seen(client: &mut Client) -> String {
    let rows = client.run("SELECT v FROM rs WHERE k = 1").rows;
    rows.first()
        .and_then(|row| row[0].clone())
        .unwrap_or_default()
}

fn as_superuser(fixture: &Fixture, sql: &str) {
    for port in &fixture.databases.shard_ports {
        Client::connect(*port, "postgres", &fixture.databases.name).run(sql);
    }
}

#[test]
fn the_path_of_the_database_counts() {
    let fixture = two_schemas();
    let name = &fixture.databases.name;
    as_superuser(
        &fixture,
        &format!("ALTER DATABASE {name} SET search_path = other, public"),
    );
    fixture.herd.console().run("RELOAD");
    fixture.herd.console().run("RECONNECT");
    let mut client = fixture.connect();
    assert_eq!(seen(&mut client), "other");
    client.run("SET search_path TO public");
    assert_eq!(seen(&mut client), "public");
    client.run("RESET search_path");
    assert_eq!(seen(&mut client), "other");
}

#[test]
fn a_path_of_the_role_counts_for_who_connects_after_reconnect() {
    let databases = Databases::create(4);
    databases.run_everywhere(
        "CREATE TABLE w (k bigint, v text); CREATE SCHEMA other; CREATE TABLE other.w (k bigint, v text)",
    );
    let mut options = Options::new("transaction");
    options
        .sharded("base", "k", "bigint", "{modulo: all}")
        .on("public.w", "base", "k");
    let herd = Herd::start(&databases, &options);
    let mut early = herd.connect();
    early.run("INSERT INTO w VALUES (1, 'early')");
    let name = &databases.name;
    early.run(&format!(
        "ALTER ROLE app IN DATABASE {name} SET search_path = other, public"
    ));
    let mut between = herd.connect();
    herd.console().run("RECONNECT");
    let mut late = herd.connect();
    assert_eq!(late.value("SHOW search_path"), "other, public");
    late.run("INSERT INTO w VALUES (1, 'late')");
    assert_eq!(late.value("SELECT v FROM other.w"), "late");
    assert_eq!(late.value("SELECT v FROM w"), "late");
    // As in PostgreSQL, the path of a session is that of its login.
    early.run("RESET ALL");
    for client in [&mut early, &mut between] {
        assert_eq!(client.value("SELECT v FROM w WHERE k = 1"), "early");
        client.run("INSERT INTO w VALUES (2, 'early')");
    }
    let placed = databases.shard(2).value("SELECT count(*) FROM public.w");
    assert_eq!(placed, "2");
}

#[test]
fn the_role_is_part_of_the_path() {
    let fixture = two_schemas();
    as_superuser(
        &fixture,
        "DO $$ BEGIN CREATE ROLE other; EXCEPTION WHEN OTHERS THEN NULL; END $$;
         GRANT other TO app; GRANT USAGE ON SCHEMA other TO other; GRANT ALL ON other.rs, public.rs TO other",
    );
    let mut client = fixture.connect();
    client.run("SET ROLE other");
    assert_eq!(seen(&mut client), "other");
    client.run("RESET ROLE");
    assert_eq!(seen(&mut client), "public");
    let rows = client
        .run("SET ROLE other; SELECT v FROM rs WHERE k = 1")
        .rows;
    assert_eq!(rows, [[Some("other".to_owned())]]);
    drop(client);
    as_superuser(&fixture, "DROP OWNED BY other CASCADE");
}

#[test]
fn a_path_set_by_an_expression_is_asked_for() {
    let fixture = two_schemas();
    fixture
        .databases
        .shard(0)
        .run("INSERT INTO at_home VALUES (1, 'x')");
    let by_function = "SELECT set_config('search_path', 'other', false), id FROM public.at_home";
    let by_block = "DO $$ BEGIN PERFORM set_config('search_path', 'other', false); END $$";
    for sql in [by_function, by_block] {
        let mut client = fixture.connect();
        client.run(sql);
        assert_eq!(seen(&mut client), "other", "{sql}");
        let behind = client.fails(&format!("{sql}; SELECT v FROM rs WHERE k = 1"));
        assert_eq!(behind.code, "0A000", "{sql}");
        client.run("SET search_path TO public");
        assert_eq!(seen(&mut client), "public", "{sql}");
    }
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SELECT set_config('search_path', 'other', true), id FROM public.at_home");
    assert_eq!(seen(&mut client), "other");
    client.run("COMMIT");
    assert_eq!(seen(&mut client), "public");
}

#[test]
fn chained_blocks_begin_with_the_path_of_the_session() {
    let fixture = two_schemas();
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SET LOCAL search_path TO other");
    assert_eq!(seen(&mut client), "other");
    client.run("COMMIT AND CHAIN");
    // The block is the home shard's by now, and goes on to another.
    assert_eq!(client.value("SELECT v FROM rs WHERE k = 1"), "public");
    client.run("ROLLBACK");
    assert_eq!(seen(&mut client), "public");
}

#[test]
fn a_path_hidden_in_a_chained_block_is_asked_for() {
    let fixture = two_schemas();
    fixture
        .databases
        .shard(0)
        .run("INSERT INTO at_home VALUES (1, 'x')");
    let mut client = fixture.connect();
    client.run("BEGIN");
    client.run("SELECT set_config('search_path', 'other', false), id FROM public.at_home");
    assert_eq!(seen(&mut client), "other");
    client.run("COMMIT AND CHAIN");
    assert_eq!(seen(&mut client), "other");
    client.run("COMMIT");
    assert_eq!(seen(&mut client), "other");
}

#[test]
fn a_path_set_for_a_group_is_not_guessed() {
    let fixture = two_schemas();
    let mut client = fixture.connect();
    let step = |sql: &str| {
        [
            crate::message::parse("", sql, &[]),
            crate::message::bind("", "", &[], &[], &[]),
            crate::message::execute("", 0),
        ]
        .concat()
    };
    let select = step("SELECT v FROM rs WHERE k = 1");
    let sync = crate::message::sync();
    client.send(
        &[
            step("SET LOCAL search_path TO other"),
            select.clone(),
            sync.clone(),
        ]
        .concat(),
    );
    assert_eq!(client.answer().expect_err("refused").code, "0A000");
    client.send(&[select, sync].concat());
    let rows = client.answer().expect("found").rows;
    assert_eq!(rows, [[Some("public".to_owned())]]);
}
