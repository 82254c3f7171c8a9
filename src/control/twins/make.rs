//! Creates and fills one twin.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use ring::digest::{Context, SHA256};

use super::home::Home;
use super::{Blueprint, MAKE_TIMEOUT, Place};
use crate::control::pool::{Connection, Pool, column};
use crate::error::{Fault, SqlState};
use crate::sql::quote::quote_literal;

const CLEAR: &str = include_str!("clear.sql");
const STRIP: &str = include_str!("strip.sql");
const OWN: &str = include_str!("own.sql");
const RESET: &str = include_str!("reset.sql");

/// Opens the transaction and waits a while for who makes or uses the twin: `pgherd.hold()` takes the same
/// lock.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
    SET LOCAL lock_timeout = '10s';
    SET LOCAL statement_timeout = '300s';
    SET LOCAL idle_in_transaction_session_timeout = '300s';
    SET LOCAL client_min_messages = warning;
    SELECT pg_advisory_xact_lock(8100422616390722388)";
const EXISTS: &str = "SELECT to_regclass('pgherd.twin') IS NOT NULL";
const MADE: &str = "SELECT mark, schema, form, home FROM pgherd.twin";
const REMARK: &str = "UPDATE pgherd.twin SET mark = $1";

const DATABASE_EXISTS: &str =
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)";
/// How often a database that another creates at the same moment is looked for.
const CREATE_TRIES: u32 = 20;
const CREATE_WAIT: std::time::Duration = std::time::Duration::from_millis(250);

/// A text that is another for other texts.
pub(super) fn digest(texts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(text.as_bytes());
        context.update(&[0]);
    }
    BASE64_STANDARD_NO_PAD.encode(context.finish())
}

/// What tells twins apart that were made with other commands than these.
pub(super) fn form() -> String {
    digest(&[CLEAR, STRIP, OWN, RESET])
}

/// Whether a twin's database is there.
///
/// # Cancel safety
/// Safe: the answer is dropped.
pub(super) async fn exists(place: &Place) -> Result<bool, Fault> {
    let mut connection = place.server.connect().await?;
    let dbname = &place.twin.host.dbname;
    let rows = connection.rows(DATABASE_EXISTS, &[dbname]).await?;
    column(rows.first(), 0)
}

/// Creates a twin's database, empty. Returns whether there was none.
///
/// # Errors
/// What kept the server from creating it.
///
/// # Cancel safety
/// Safe: it is there or not.
pub(super) async fn create(place: &Place, home: &Home) -> Result<bool, Fault> {
    let dbname = &place.twin.host.dbname;
    let mut connection = place.server.connect().await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match connection.rows(&home.create(dbname), &[]).await {
            Ok(_) => return Ok(true),
            Err(fault) => {
                // Another creates it, or a database from the same template.
                let rows = connection.rows(DATABASE_EXISTS, &[dbname]).await?;
                if column(rows.first(), 0)? {
                    return Ok(false);
                }
                let is_busy = fault
                    .detail
                    .as_ref()
                    .is_some_and(|detail| detail.contains("(55006)") || detail.contains("(23505)"));
                if !is_busy || tries >= CREATE_TRIES {
                    return Err(
                        fault.hint("Let the control role create databases: ALTER ROLE … CREATEDB.")
                    );
                }
                tokio::time::sleep(CREATE_WAIT).await;
            }
        }
    }
}

/// Fills a twin by its blueprint, unless another has done so meanwhile; `commands` are those for its
/// database. Returns whether its schema was another.
///
/// # Errors
/// What kept it from being made; it stays as it was.
///
/// # Cancel safety
/// Safe: the transaction is rolled back.
pub(super) async fn make(
    pool: &Pool,
    blueprint: &Blueprint,
    commands: &str,
) -> Result<bool, Fault> {
    let mut connection = pool.connect().await?;
    let result = within(&mut connection, blueprint, commands).await;
    // What the schema set for its session is not for the next.
    connection.discard();
    result.map_err(explained)
}

async fn within(
    connection: &mut Connection<'_>,
    blueprint: &Blueprint,
    commands: &str,
) -> Result<bool, Fault> {
    connection.batch(BEGIN, MAKE_TIMEOUT).await?;
    let exists: bool = column(connection.rows(EXISTS, &[]).await?.first(), 0)?;
    let form = form();
    if exists {
        let rows = connection.rows(MADE, &[]).await?;
        if let Some(row) = rows.first() {
            if column::<&str>(Some(row), 3)? != blueprint.home.identity {
                return Err(of_another());
            }
            let (mark, schema): (&str, &str) = (column(Some(row), 0)?, column(Some(row), 1)?);
            let is_same = schema == blueprint.digest && column::<&str>(Some(row), 2)? == form;
            if is_same && mark == blueprint.mark {
                return Ok(false);
            }
            if is_same {
                connection.rows(REMARK, &[&blueprint.mark]).await?;
                connection
                    .batch(&format!("{RESET}{commands}COMMIT"), MAKE_TIMEOUT)
                    .await?;
                return Ok(false);
            }
        }
    }
    connection
        .batch(&filling(blueprint, &form, commands), MAKE_TIMEOUT)
        .await?;
    Ok(true)
}

/// The commands that empty a twin and fill it.
fn filling(blueprint: &Blueprint, form: &str, commands: &str) -> String {
    let public = blueprint.home.public.as_deref();
    let create_public = if public.is_some() {
        "CREATE SCHEMA public;\n"
    } else {
        ""
    };
    let made = format!(
        "INSERT INTO pgherd.twin (mark, home, schema, form) VALUES ({}, {}, {}, {})",
        quote_literal(&blueprint.mark),
        quote_literal(&blueprint.home.identity),
        quote_literal(&blueprint.digest),
        quote_literal(form)
    );
    let mut all = String::new();
    for part in [
        CLEAR,
        create_public,
        &blueprint.schema,
        STRIP,
        public.unwrap_or_default(),
        OWN,
        RESET,
        commands,
        &made,
        ";\nCOMMIT",
    ] {
        all.push_str(part);
        all.push('\n');
    }
    all
}

fn of_another() -> Fault {
    Fault::error(
        SqlState::IN_USE,
        "it is the twin of another home database",
    )
    .detail("Two deployments of one name share a gather server, or the home shard was replaced.")
    .hint("Give each deployment a name of its own; if no other uses the twin, drop its database and run pgherd setup.")
}

/// What failed, and what to do about it.
fn explained(fault: Fault) -> Fault {
    if fault.hint.is_some() && fault.code != SqlState::CONNECTION_FAILURE {
        return fault;
    }
    let detail = fault.detail.clone().unwrap_or_default();
    let hint = if detail.contains("(55P03)") {
        "A query is being finished in it; it is made again soon."
    } else if detail.contains("(42501)") {
        "Let control_user be a superuser, or the owner of all that is in the home shard's database."
    } else if detail.contains("(58P01)") || detail.contains("(0A000)") {
        "Install the home shard's extensions on the gather server too."
    } else {
        "Mend what it names and run pgherd setup."
    };
    Fault {
        code: if fault.code == SqlState::CONNECTION_FAILURE {
            SqlState::NOT_IN_PREREQUISITE_STATE
        } else {
            fault.code
        },
        ..fault
    }
    .hint(hint)
}
