//! Logging in: passwords towards clients and towards servers, and databases of the fallback.

use tokio_postgres::NoTls;

use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::message::frame;
use crate::shared::Databases;

/// Logs in with tokio-postgres and asks who it is.
fn login(port: u16, user: &str, password: &str, database: &str) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let text = format!(
            "host=127.0.0.1 port={port} user={user} password='{password}' dbname={database}"
        );
        let connected = tokio_postgres::connect(&text, NoTls).await;
        let code = |error: tokio_postgres::Error| {
            error
                .code()
                .map_or_else(|| error.to_string(), |code| code.code().to_owned())
        };
        let (client, connection) = connected.map_err(code)?;
        let driver = tokio::spawn(connection);
        let row = client
            .query_one("SELECT session_user::text", &[])
            .await
            .map_err(code)?;
        drop(client);
        driver.await.expect("no panic").map_err(code)?;
        Ok(row.get(0))
    })
}

const USERS: [(&str, &str); 3] = [
    ("app_scram", "scram-secret"),
    ("app_md5", "md5-secret"),
    ("app_plain", "plain-secret"),
];

#[test]
fn passwords_are_asked_for_on_both_sides() {
    for method in ["scram-sha-256", "md5", "plain"] {
        let databases = Databases::create(1);
        let mut options = Options::new("transaction");
        options.set(&format!("auth: {{method: {method}}}"));
        for (name, password) in USERS {
            options
                .users
                .push(format!("{{name: {name}, password: {password}}}"));
        }
        let herd = Herd::start(&databases, &options);
        for (name, password) in USERS {
            let found = login(herd.port, name, password, &databases.name);
            assert_eq!(found.as_deref(), Ok(name), "{method}");
            let wrong = login(herd.port, name, "wrong", &databases.name);
            assert_eq!(wrong, Err("28P01".to_owned()), "{method}, {name}");
        }
        let unknown = login(herd.port, "nobody", "x", &databases.name);
        assert_eq!(
            unknown,
            Err("28P01".to_owned()),
            "{method}: an unknown user is told no more"
        );
    }
}

#[test]
fn an_unknown_database_is_named() {
    let databases = Databases::create(1);
    let herd = Herd::start(&databases, &Options::new("transaction"));
    let error = Client::try_connect(herd.port, "app", "no_such_database").expect_err("unknown");
    assert_eq!(error.code, "3D000", "{error:?}");
    assert!(error.message.contains("no_such_database"), "{error:?}");
}

#[test]
fn other_databases_go_to_the_fallback() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options.fallback = Some(format!(
        "{{server: \"host=127.0.0.1 port={}\"}}",
        databases.reference_port
    ));
    let herd = Herd::start_over("unused", &databases.shard_ports, &options);
    databases
        .reference()
        .run("CREATE TABLE there (id int); INSERT INTO there VALUES (7)");
    let mut client = Client::connect(herd.port, "app", &databases.name);
    assert_eq!(client.value("SELECT id FROM there"), "7");
    assert_eq!(
        client
            .query_with("SELECT id FROM there WHERE id = $1", &[Some("7")])
            .expect("read")
            .rows
            .len(),
        1
    );
    client.run("BEGIN; INSERT INTO there VALUES (8); ROLLBACK");
    assert_eq!(client.value("SELECT count(*), sum(id) FROM there"), "1");
}

#[test]
fn a_server_password_that_is_wrong_is_reported() {
    let databases = Databases::create(1);
    let mut options = Options::new("transaction");
    options
        .users
        .push("{name: app_scram, password: not-the-servers}".to_owned());
    let herd = Herd::start(&databases, &options);
    let told = Client::try_connect(herd.port, "app_scram", &databases.name)
        .and_then(|mut client| client.query("SELECT 1 FROM pg_class"));
    let error = told.expect_err("the server refuses");
    assert!(
        ["28P01", "28000", "08001"].contains(&error.code.as_str()),
        "{error:?}"
    );
    herd.connect().run("SELECT 1 FROM pg_class");
}

#[test]
fn ssl_and_gss_requests_are_answered_by_one_byte() {
    let databases = Databases::create(1);
    let herd = Herd::start(&databases, &Options::new("transaction"));
    let mut client = Client::open(herd.port).expect("it listens");
    client.send(&[0, 0, 0, 8, 4, 210, 22, 48]);
    assert_eq!(client.receive_byte(), Ok(b'N'), "GSSENCRequest");
    client.send(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(
        client.receive_byte(),
        Ok(b'N'),
        "SSLRequest without a certificate"
    );
    client.send(&crate::message::startup(&[
        ("user", "app"),
        ("database", &databases.name),
    ]));
    client.login().expect("logged in");
    client.run("SELECT 1");
}

#[test]
fn newer_protocols_are_negotiated() {
    let databases = Databases::create(1);
    let herd = Herd::start(&databases, &Options::new("transaction"));
    let mut bytes = crate::message::startup(&[
        ("user", "app"),
        ("database", &databases.name),
        ("_pq_.some_option", "on"),
    ]);
    bytes[7] = 99;
    let mut client = Client::open(herd.port).expect("it listens");
    client.send(&bytes);
    let first = client.receive(crate::client::REPLY).expect("an answer");
    assert_eq!(first.tag, b'v', "{}", first.line());
    assert!(
        String::from_utf8_lossy(&first.body).contains("_pq_.some_option"),
        "{}",
        first.line()
    );
    client.login().expect("logged in");
    client.run("SELECT 1");
    client.send(&frame(b'X', b""));
}
