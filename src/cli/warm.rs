//! Runs the statements of a file through a running proxy, so that their answers are kept before anybody asks.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::{FAILED, one};
use crate::config::{Config, Listen, Secret};
use crate::demo::terminal::{say, warn};
use crate::error::{Fault, SqlState};
use crate::sql::scan::{Lexing, scan};
use crate::sql::split::split;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one statement may take.
const STATEMENT: Duration = Duration::from_mins(5);

/// Runs each statement of the file as a client of the proxy. Says which fail; returns the exit code.
///
/// # Errors
/// The file cannot be read, or the proxy not be reached.
pub(super) fn run(
    config: &Config,
    file: &Path,
    user: &str,
    database: Option<&str>,
) -> Result<u8, Vec<Fault>> {
    let text = std::fs::read(file)
        .map_err(|error| one(fault(&format!("could not read {}", file.display()), &error)))?;
    let tokens = scan(&text, Lexing::default()).map_err(|_unreadable| {
        one(
            Fault::error(SqlState::SYNTAX_ERROR, "the file is no SQL text")
                .hint("Put a semicolon behind each statement, and close its quotes."),
        )
    })?;
    let statements: Vec<String> = split(&tokens, &text)
        .into_iter()
        .filter_map(|piece| {
            let (first, last) = (piece.first()?, piece.last()?);
            let statement = text.get(first.start..last.end)?;
            Some(String::from_utf8_lossy(statement).into_owned())
        })
        .collect();
    let names: Vec<&String> = config.databases.keys().collect();
    let database = match (database, names.as_slice()) {
        (Some(name), _) => name,
        (None, [name]) => name.as_str(),
        (None, _) => {
            return Err(one(Fault::error(
                SqlState::CONFIG,
                "the config has several databases",
            )
            .hint("Say which with --database.")));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| one(fault("could not start a runtime", &error)))?;
    let failed = runtime
        .block_on(warm(config, user, database, &statements))
        .map_err(one)?;
    say(format!(
        "{} of {} statements were carried out",
        statements.len().saturating_sub(failed),
        statements.len()
    ));
    Ok(if failed == 0 { 0 } else { FAILED })
}

async fn warm(
    config: &Config,
    user: &str,
    database: &str,
    statements: &[String],
) -> Result<usize, Fault> {
    let (client, connection) = connect(config, user, database).await?;
    let serving = tokio::spawn(connection);
    let mut failed = 0;
    for statement in statements {
        let why = match tokio::time::timeout(STATEMENT, client.simple_query(statement)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error
                .as_db_error()
                .map_or_else(|| error.to_string(), |error| error.message().to_owned()),
            Err(_elapsed) => "it takes too long".to_owned(),
        };
        failed += 1;
        warn(format!("{statement}: {why}"));
    }
    drop(client);
    serving.abort();
    Ok(failed)
}

type Connection =
    tokio_postgres::Connection<tokio_postgres::Socket, tokio_postgres::tls::NoTlsStream>;

async fn connect(
    config: &Config,
    user: &str,
    database: &str,
) -> Result<(tokio_postgres::Client, Connection), Fault> {
    let mut client = tokio_postgres::Config::new();
    client
        .user(user)
        .dbname(database)
        .application_name("pgherd cache warm")
        .connect_timeout(CONNECT);
    match config.listen.first() {
        Some(Listen::Tcp(address)) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "6432"));
            let host = match host.trim_matches(['[', ']']) {
                "0.0.0.0" | "*" => "127.0.0.1",
                "::" => "::1",
                host => host,
            };
            client.host(host).port(port.parse().unwrap_or(6432));
        }
        Some(Listen::Unix { folder, port }) => {
            client.host_path(folder).port(*port);
        }
        None => {
            return Err(Fault::error(
                SqlState::CONFIG,
                "the config has no address that clients connect to",
            )
            .hint("Set listen."));
        }
    }
    let secret = config
        .users
        .get(user)
        .and_then(|user| user.password.as_ref());
    match (secret, std::env::var("PGPASSWORD")) {
        (_, Ok(password)) => {
            client.password(password);
        }
        (Some(Secret::Plain(password)), Err(_)) => {
            client.password(password);
        }
        (Some(Secret::Scram(_) | Secret::Md5(_)) | None, Err(_)) => (),
    }
    client
        .connect(NoTls)
        .await
        .map_err(|error| fault("could not connect to the proxy", &error))
}

fn fault(message: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::error(SqlState::UNABLE_TO_CONNECT, message)
        .detail(format!("{error}."))
        .hint("Start it with `pgherd run`; give the password of --user by PGPASSWORD where the config has only a verifier.")
}
