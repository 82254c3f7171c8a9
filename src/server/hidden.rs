//! Statements of our own on a server connection, and bringing a connection back to rest.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::{Fault, SqlState};
use crate::server::connect;
use crate::server::connection::{Note, ServerConnection};
use crate::server::pool::Lease;
use crate::server::settings::{Settings, difference};
use crate::wire::backend::{self, Status};
use crate::wire::frame::{self, Frame, FrameError};
use crate::wire::pipeline::Owed;

/// How long a connection may take to come back to rest before it is closed.
const TIDY_LIMIT: Duration = Duration::from_secs(5);

/// Why a connection is of no use any more.
struct Lost(String);

impl From<FrameError> for Lost {
    fn from(error: FrameError) -> Lost {
        Lost(error.to_string())
    }
}

/// The statements that bring a connection to these settings; empty when it has them.
pub(crate) fn settings_sql(connection: &mut ServerConnection, wanted: &Rc<Settings>) -> String {
    let mut sql = String::new();
    if connection.settings_unsure {
        sql.push_str("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;");
        connection.settings = Settings::new(BTreeMap::new());
    }
    sql.push_str(&difference(&connection.settings, wanted));
    sql
}

/// Runs statements of our own on a connection that is in sync, and waits for the end of them.
///
/// # Errors
/// The server's error, or that the connection was lost.
///
/// # Cancel safety
/// Not safe: the connection must be closed.
pub(crate) async fn run_hidden(connection: &mut ServerConnection, sql: &str) -> Result<(), Fault> {
    connection.push_hidden_query(sql);
    wait_for_ready(connection).await
}

/// The same, and keeps `reported` up to date with the ParameterStatus messages that come.
///
/// # Errors
/// The server's error, or that the connection was lost.
///
/// # Cancel safety
/// Not safe: the connection must be closed.
pub(crate) async fn run_reported(
    connection: &mut ServerConnection,
    sql: &str,
    reported: &mut Vec<(String, String)>,
) -> Result<(), Fault> {
    connection.push_hidden_query(sql);
    read_until_ready(connection, |frame| note_parameter(frame, reported)).await
}

fn note_parameter(frame: Frame<'_>, reported: &mut Vec<(String, String)>) {
    if frame.tag != b'S' {
        return;
    }
    let mut parts = frame
        .body
        .split(|byte| *byte == 0)
        .map(String::from_utf8_lossy);
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
        return;
    };
    match reported.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = value.into_owned(),
        None => reported.push((name.into_owned(), value.into_owned())),
    }
}

/// Sends what is queued and reads until everything owed is answered; rows are dropped.
///
/// # Errors
/// The first error of the server, or that the connection was lost.
///
/// # Cancel safety
/// Not safe: the connection must be closed.
pub(crate) async fn wait_for_ready(connection: &mut ServerConnection) -> Result<(), Fault> {
    read_until_ready(connection, |_| ()).await
}

/// Runs a query of one row and answers its fields; text, NULL as empty.
///
/// # Errors
/// As for [`run_hidden`].
///
/// # Cancel safety
/// Not safe: the connection must be closed.
pub(crate) async fn ask_row(
    connection: &mut ServerConnection,
    sql: &str,
) -> Result<Vec<String>, Fault> {
    connection.push_hidden_query(sql);
    let mut row = Vec::new();
    read_until_ready(connection, |frame| {
        if frame.tag == b'D' {
            row = backend::row_values(frame.body)
                .into_iter()
                .map(|value| String::from_utf8_lossy(value.unwrap_or_default()).into_owned())
                .collect();
        }
    })
    .await?;
    Ok(row)
}

/// Sends what is queued and reads until everything owed is answered; each message is shown to `look`.
///
/// # Errors
/// As for [`wait_for_ready`].
///
/// # Cancel safety
/// Not safe: the connection must be closed.
pub(crate) async fn read_until_ready(
    connection: &mut ServerConnection,
    mut look: impl FnMut(Frame<'_>),
) -> Result<(), Fault> {
    let lost = |reason: String| {
        Fault::error(
            SqlState::CONNECTION_FAILURE,
            "the connection to the shard was lost",
        )
        .detail(format!("It ended with: {reason}."))
        .hint("Repeat the statement.")
    };
    let mut failure = None;
    let mut scratch = vec![0; 4096];
    while !connection.pipeline.is_empty() {
        let ahead = std::mem::take(&mut connection.ahead);
        let data = if ahead.is_empty() {
            let count = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
                    return Poll::Ready(Err(error));
                }
                connection.poll_read(cx, &mut scratch)
            })
            .await
            .map_err(|error| lost(error.to_string()))?;
            if count == 0 {
                return Err(lost("the server closed the connection".to_owned()));
            }
            scratch.get(..count).unwrap_or_default()
        } else {
            &ahead
        };
        let data = connection.split_ahead(data);
        let mut reader = std::mem::take(&mut connection.reader);
        let result = reader.feed(
            data,
            u32::MAX,
            |_| false,
            |piece| {
                let frame::Piece::Whole(frame) = piece else {
                    return Ok(());
                };
                look(frame);
                take_hidden(connection, frame, &mut failure)
            },
        );
        connection.reader = reader;
        result.map_err(|error: Lost| lost(error.0))?;
    }
    failure.map_or(Ok(()), Err)
}

fn take_hidden(
    connection: &mut ServerConnection,
    frame: Frame<'_>,
    failure: &mut Option<Fault>,
) -> Result<(), Lost> {
    let step = connection
        .pipeline
        .received(frame.tag)
        .map_err(|error| Lost(error.to_string()))?;
    if frame.tag == b'Z'
        && let Some(status) = frame.body.first().and_then(|byte| Status::read(*byte))
    {
        connection.status = status;
    }
    if step.fails {
        let fields = backend::error_fields(frame.body);
        failure.get_or_insert_with(|| {
            Fault::error(SqlState::of_server(fields.code()), fields.message())
        });
        for void in connection.pipeline.fail() {
            // What it was to prepare is not there.
            if let Owed::Server {
                note: Note::Parse { name, .. },
                ..
            } = void
            {
                connection.statements().remove(name);
            }
        }
    } else if step.ends {
        connection.pipeline.pop();
    }
    Ok(())
}

/// Reads in the background what a connection still owes, rolls back, and gives it back; it is
/// closed when that fails or takes longer than 5 s.
pub(crate) fn tidy_later(lease: Lease) {
    tidy_with(lease, String::new(), ());
}

/// The same; then runs statements of our own, unless there are none, before the connection is given back
/// and `turn` dropped.
pub(crate) fn tidy_with(lease: Lease, last: String, turn: impl Sized + 'static) {
    lease.disown();
    tokio::task::spawn_local(async move {
        let _turn = turn;
        let pool = Rc::clone(lease.pool());
        let token = lease
            .peek()
            .map(|connection| connection.cancel.token.clone());
        if let Some(mut lease) = tidy(lease).await {
            if let Some(connection) = lease.connection().filter(|_| !last.is_empty()) {
                let run = run_hidden(connection, &last);
                match tokio::time::timeout(TIDY_LIMIT, run).await {
                    Ok(Ok(())) => {}
                    Ok(Err(fault)) => tracing::warn!(error = %fault, "could not clear a twin"),
                    // Half an answer is owed: the connection is closed.
                    Err(_elapsed) => return,
                }
            }
            lease.give_back(Instant::now());
        } else if let Some(token) = token {
            // What runs there must not go on without a connection that counts.
            let sent = connect::cancel(&token, &pool.target.tls.connector, TIDY_LIMIT).await;
            if let Err(fault) = sent {
                tracing::info!(error = %fault, "could not cancel what was given up");
            }
        }
    });
}

/// Reads what is still owed, waits for cancel requests under way, and rolls back; `None` when that fails, and the connection is closed.
///
/// # Cancel safety
/// Safe: a drop closes the connection.
pub(crate) async fn tidy(mut lease: Lease) -> Option<Lease> {
    let connection = lease.connection()?;
    let settled = async {
        // Errors of the statement are expected: only the connection's state counts.
        drop(wait_for_ready(connection).await);
        connection.cancel.taken().await;
        if connection.pipeline.is_idle() && connection.status != Status::Idle {
            drop(run_hidden(connection, "ROLLBACK").await);
        }
    };
    tokio::time::timeout(TIDY_LIMIT, settled).await.ok()?;
    connection.is_clean().then_some(lease)
}
