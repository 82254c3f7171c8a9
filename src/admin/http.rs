//! The HTTP side: metrics for Prometheus, health for balancers, and a page for people.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | Prometheus's text format |
//! | `/health` | 200 while the process serves |
//! | `/ready` | 200 when every shard's primary answers, else 503 with JSON naming those that do not |
//! | `/` | a page with live tables |
//! | `/api/NAME.json` | the rows of the SHOW of that name, for those of [`TABLES`] |
//!
//! There is no login: bind it to an address that only operators reach. So it shows counts, and no
//! client's or user's address.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::admin::answer::Cell;
use crate::admin::environment;
use crate::admin::herd::Herd;
use crate::admin::show::{self, Show, View};
use crate::error::{Fault, SqlState};
use crate::metrics::Metrics;
use crate::metrics::view::{Detail, Snapshot};

/// The SHOWs that `/api/` answers.
pub const TABLES: &[&str] = &[
    "databases",
    "distributions",
    "errors",
    "lists",
    "pools",
    "shards",
    "state",
    "stats",
    "tables",
    "version",
];

/// How long a request waits for the engines or the shards before it gives up.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone, Debug)]
struct Shared {
    herd: Arc<dyn Herd>,
    metrics: Arc<Metrics>,
}

/// Binds the address of `config.http`. A fault says why it cannot, and which key to change.
///
/// # Cancel safety
/// Safe: nothing stays bound.
pub async fn bind(address: &str) -> Result<TcpListener, Fault> {
    TcpListener::bind(address).await.map_err(|error| {
        Fault::fatal(SqlState::CONFIG, format!("could not listen for HTTP on \"{address}\""))
            .detail(format!("{error}."))
            .hint("Change http in the config, or omit it for none; see whether another process has the port.")
    })
}

/// Serves until `stop` is done, then lets requests under way finish.
///
/// # Cancel safety
/// A drop cuts requests under way.
pub async fn serve(
    listener: TcpListener,
    herd: Arc<dyn Herd>,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fault> {
    let served = axum::serve(listener, router(herd, metrics))
        .with_graceful_shutdown(stop)
        .await;
    served
        .map_err(|error| Fault::fatal(SqlState::INTERNAL, "HTTP ended").detail(format!("{error}.")))
}

/// The routes, without a socket.
pub fn router(herd: Arc<dyn Herd>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("dashboard.html"))))
        .route("/metrics", get(metrics_text))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/api/{name}", get(table))
        .with_state(Shared { herd, metrics })
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    // Without the engines the counters are still worth having: the gauges keep what they said last.
    if let Ok(Ok(snapshot)) = timeout(ANSWER_WAIT_MAX, shared.herd.snapshot(Detail::Pools)).await {
        shared.metrics.observe(&snapshot);
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, shared.metrics.render()).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    let unready = match timeout(ANSWER_WAIT_MAX, shared.herd.unready()).await {
        Ok(Ok(unready)) => unready,
        Ok(Err(fault)) => return failure(&fault),
        Err(_) => return failure(&slow()),
    };
    let status = if unready.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(json!({"ready": unready.is_empty(), "unready": unready})),
    )
        .into_response()
}

async fn table(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let known = name
        .strip_suffix(".json")
        .filter(|name| TABLES.contains(name));
    let Some(show) = known.and_then(show::find) else {
        return (
            StatusCode::NOT_FOUND,
            Json(json!({"error": "no such table", "tables": TABLES})),
        )
            .into_response();
    };
    match timeout(ANSWER_WAIT_MAX, snapshot(&shared, show)).await {
        Ok(Ok(snapshot)) => {
            let config = shared.herd.config();
            let view = View {
                config: &config,
                snapshot: &snapshot,
            };
            Json(json!({"name": show.name, "version": environment::VERSION, "rows": objects(show, &view)}))
                .into_response()
        }
        Ok(Err(fault)) => failure(&fault),
        Err(_) => failure(&slow()),
    }
}

async fn snapshot(shared: &Shared, show: &Show) -> Result<Snapshot, Fault> {
    match show.needs {
        Some(detail) => shared.herd.snapshot(detail).await,
        None => Ok(Snapshot::default()),
    }
}

/// A SHOW's rows as JSON objects.
fn objects(show: &Show, view: &View<'_>) -> Vec<Value> {
    let rows = (show.rows)(view).into_iter().map(|row| {
        let fields = show.columns.iter().zip(row).map(|(column, cell)| {
            let value = match cell {
                Cell::Null => Value::Null,
                Cell::Text(text) => Value::from(text.into_owned()),
                Cell::Int(number) => Value::from(number),
            };
            (column.name.to_string(), value)
        });
        Value::Object(fields.collect::<Map<_, _>>())
    });
    rows.collect()
}

fn failure(fault: &Fault) -> Response {
    let body = json!({"ready": false, "error": fault.message, "code": fault.code.as_str(), "detail": fault.detail, "hint": fault.hint});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

fn slow() -> Fault {
    Fault::error(SqlState::QUERY_CANCELED, "the proxy did not answer in time")
        .detail(format!("It had {} s.", ANSWER_WAIT_MAX.as_secs()))
        .hint("Look at the log, and try again.")
}
