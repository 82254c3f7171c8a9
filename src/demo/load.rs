//! Creates the schema and loads the rows, both through the proxy.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::SinkExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_postgres::{Client, NoTls};

use super::rows::{Table, tables};
use super::shop::{DATABASE, PASSWORD, Rows, SCHEMA, USER};
use super::terminal::say;
use crate::error::{Fault, SqlState};

/// How long the proxy may take until it lets us in.
const UP_WITHIN: Duration = Duration::from_secs(15);
/// Bytes of rows sent at a time.
const CHUNK: usize = 64 * 1024;

/// The connection string of the demo's user, as a URL.
pub(super) fn dsn(listen: &str, database: &str) -> String {
    format!("postgres://{USER}:{PASSWORD}@{listen}/{database}")
}

/// Connects to the proxy, which may still be starting.
///
/// # Cancel safety
/// Safe: the connection closes when it is dropped.
pub(super) async fn connect(listen: &str) -> Result<Client, Fault> {
    let deadline = Instant::now() + UP_WITHIN;
    let dsn = dsn(listen, DATABASE);
    loop {
        match tokio_postgres::connect(&dsn, NoTls).await {
            Ok((client, connection)) => {
                // It ends with the client; its errors are the client's.
                drop(tokio::spawn(connection));
                return Ok(client);
            }
            Err(error) if deadline < Instant::now() => {
                return Err(refused("connect to the proxy", &error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Creates the tables.
///
/// # Cancel safety
/// Not safe: tables created before the drop stay.
pub(super) async fn schema(client: &Client) -> Result<(), Fault> {
    say("creating the shop's tables through the proxy");
    for statement in SCHEMA {
        let outcome = client.batch_execute(statement).await;
        outcome.map_err(|error| refused("create the shop's tables", &error))?;
    }
    Ok(())
}

/// Loads every table by COPY, each split by its key on its way through the proxy.
///
/// # Cancel safety
/// Not safe: tables loaded before the drop stay.
pub(super) async fn rows(client: &Client, rows: Rows) -> Result<(), Fault> {
    let tables = tables(rows);
    let progress = Progress::start(tables.iter().map(|table| table.count).sum());
    for table in &tables {
        progress.table(table.name);
        let began = Instant::now();
        let copied = copy(client, &rows, table, &progress)
            .await
            .map_err(|error| refused(&format!("load {}", table.name), &error))?;
        if copied != table.count {
            return Err(Fault::error(
                SqlState::INTERNAL,
                format!(
                    "{} holds {copied} rows after COPY, not {}",
                    table.name, table.count
                ),
            )
            .hint("This is a defect of pgherd; report it with the options of the demo."));
        }
        progress.loaded(table, began.elapsed());
    }
    progress.end();
    Ok(())
}

async fn copy(
    client: &Client,
    rows: &Rows,
    table: &Table,
    progress: &Progress,
) -> Result<u64, tokio_postgres::Error> {
    let statement = format!("COPY {} ({}) FROM STDIN", table.name, table.columns);
    let mut sink = pin!(client.copy_in::<_, Bytes>(&statement).await?);
    let mut text = String::with_capacity(CHUNK + 1024);
    for number in 1..=table.count {
        (table.write)(rows, number, &mut text);
        if CHUNK <= text.len() {
            sink.send(Bytes::from(std::mem::take(&mut text))).await?;
        }
        progress.row();
    }
    sink.send(Bytes::from(text)).await?;
    sink.as_mut().finish().await
}

/// A bar on a terminal, a line a table elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    fn start(total: u64) -> Progress {
        let plain = !std::io::stderr().is_terminal();
        let bar = if plain {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(total)
        };
        let style = "{msg:16} {wide_bar} {human_pos}/{human_len} rows";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        say(format!(
            "loading {} rows through the proxy by COPY",
            grouped(total)
        ));
        Progress { bar, plain }
    }

    fn table(&self, name: &'static str) {
        self.bar.set_message(Cow::Borrowed(name));
    }

    fn row(&self) {
        self.bar.inc(1);
    }

    fn loaded(&self, table: &Table, took: Duration) {
        if self.plain {
            let count = grouped(table.count);
            say(format!(
                "  {}: {count} rows in {:.1} s",
                table.name,
                took.as_secs_f64()
            ));
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A statement of the demo's own that failed, with what the server said.
pub(super) fn refused(what: &str, error: &tokio_postgres::Error) -> Fault {
    let said = match error.as_db_error() {
        Some(said) => {
            let hint = said
                .hint()
                .map(|hint| format!(" {hint}"))
                .unwrap_or_default();
            format!("{} ({}).{hint}", said.message(), said.code().code())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}."),
            None => format!("{error}."),
        },
    };
    Fault::error(SqlState::INTERNAL, format!("could not {what}"))
        .detail(said)
        .hint("Mend what it names and run the demo again; nothing of this one is left behind.")
}
