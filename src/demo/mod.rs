//! A throwaway herd to look at: PostgreSQL servers of its own, a shop's rows, the proxy in front.
//!
//! Everything the demo makes lies in one temporary folder and dies with this process, however it
//! ends (see `sitter`). The schema is created and the rows are loaded *through the proxy*, so
//! that a demo that comes up has shown DDL, COPY and routing to work.

mod config;
mod load;
mod proxy;
mod rows;
mod servers;
mod shop;
mod sitter;
pub(crate) mod terminal;
mod tour;
mod twins;

use std::future::Future;
use std::net::{TcpListener, ToSocketAddrs};
use std::path::Path;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Fault, SqlState};
use terminal::{say, warn};

/// What `pgherd demo` was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// PostgreSQL servers to start, at least one.
    pub shards: usize,
    /// Rows, as a multiple of the shop's own numbers; above zero.
    pub scale: f64,
    /// `host:port` where clients connect.
    pub listen: String,
    /// Run the tour and end, rather than wait for Ctrl-C.
    pub once: bool,
}

/// The HTTP address of the demo's proxy, unless it is taken.
const HTTP: &str = "127.0.0.1:9632";

/// Runs the demo until Ctrl-C or SIGTERM, or to the end of its tour. Nothing is left behind.
pub fn run(options: &Options) -> Result<(), Fault> {
    let rows = shop::Rows::scaled(options.scale)?;
    is_free(&options.listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start a runtime", &error))?;
    runtime.block_on(until_signal(Box::pin(show(options, rows))))
}

/// The whole demo; dropping it half-way stops what it started.
///
/// # Cancel safety
/// Safe: the folder's sitter stops the servers and removes the folder when it is dropped.
async fn show(options: &Options, rows: shop::Rows) -> Result<(), Fault> {
    let began = Instant::now();
    let servers = servers::start(options.shards).await?;
    let http = free_http();
    let text = config::text(&servers.sockets(), &options.listen, &http);
    let proxy = proxy::start(&servers, &text)?;
    let file = servers.folder().join(proxy::FILE);
    let tour = tour(options, rows, &http, &file, began);
    tokio::select! {
        biased;
        // The proxy cannot listen, or was told to stop by the console.
        fault = proxy.ended() => Err(fault),
        outcome = tour => outcome,
    }
}

/// What the demo does through the proxy.
async fn tour(
    options: &Options,
    rows: shop::Rows,
    http: &str,
    file: &Path,
    began: Instant,
) -> Result<(), Fault> {
    let client = load::connect(&options.listen).await?;
    load::schema(&client).await?;
    twins::set_up(file).await?;
    load::rows(&client, rows).await?;
    say(format!(
        "ready after {:.0} s\n",
        began.elapsed().as_secs_f64()
    ));
    say(tour::directions(&options.listen, http));
    if options.once {
        return tour::run(&client).await;
    }
    tour::list(&client).await?;
    say("Ctrl-C stops the servers and removes everything.");
    std::future::pending().await
}

/// Runs `work` to its end or to the first SIGINT or SIGTERM, which is no failure.
async fn until_signal(work: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    let watch = |kind| signal(kind).map_err(|error| failed("watch for signals", &error));
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let ended = tokio::select! {
        biased;
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        outcome = work => Some(outcome),
    };
    ended.unwrap_or_else(|| {
        warn("\ninterrupted: stopping the servers");
        Ok(())
    })
}

/// Fails early, and in plain words, when something else listens at `address`.
fn is_free(address: &str) -> Result<(), Fault> {
    let outcome = address
        .to_socket_addrs()
        .and_then(|mut all| {
            all.next()
                .ok_or_else(|| std::io::Error::other("no address"))
        })
        .and_then(TcpListener::bind);
    outcome.map(drop).map_err(|error| {
        Fault::error(SqlState::CONFIG, format!("could not listen on {address}"))
            .detail(format!("The system says: {error}."))
            .hint("Give another address with --listen, such as --listen 127.0.0.1:7432.")
    })
}

/// [`HTTP`], or a free port beside it.
fn free_http() -> String {
    if is_free(HTTP).is_ok() {
        return HTTP.to_owned();
    }
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_or_else(|_| HTTP.to_owned(), |address| address.to_string())
}

/// A step of the demo that the system would not do.
fn failed(what: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::error(SqlState::INTERNAL, format!("could not {what}"))
        .detail(format!("The system says: {error}."))
        .hint("Mend what it names and run the demo again; nothing of this one is left behind.")
}
