//! Carries out what takes several shards: broadcast, concatenation, COPY split by key.
//!
//! A statement over several shards is a transaction of its own: where it writes, one transaction a
//! shard, and commits start only after every shard has carried out its part. A failure between
//! commits is reported as 08007 with the shards' names; nothing is hidden.
//! Every connection taken here is given back idle and in sync, or closed.

mod broadcast;
mod client;
mod concat;
mod copy;
mod member;

use std::rc::Rc;

use crate::error::{Fault, SqlState};
use crate::metrics::catalogue::RouteLabel;
use crate::planner::plan::{Effect, Route};
use crate::server::statements::Prepared;
use crate::session::Session;
use crate::session::run::{End, Interrupted};
use crate::wire::backend;

/// A statement for several shards, taken from the client.
#[derive(Debug)]
pub(crate) struct Wide {
    pub(crate) route: Route,
    pub(crate) source: Source,
    pub(crate) verb: &'static str,
    pub(crate) effect: Effect,
}

/// What the client sent.
#[derive(Debug)]
pub(crate) enum Source {
    /// The text of a simple query.
    Text(Vec<u8>),
    /// A Bind of the extended protocol; what follows in its group is still to be read.
    Bind {
        prepared: Rc<Prepared>,
        /// What follows the names in the Bind.
        after_names: Vec<u8>,
    },
}

/// Why a wide statement failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A server's ErrorResponse, whole.
    Server(Vec<u8>),
    Fault(Fault),
    End(End),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Trouble {
        Trouble::Fault(fault)
    }
}

impl From<Interrupted> for Trouble {
    fn from(interrupted: Interrupted) -> Trouble {
        match interrupted {
            Interrupted::Fault(fault) => Trouble::Fault(fault),
            Interrupted::End(end) => Trouble::End(end),
        }
    }
}

/// Carries out a wide statement and answers the client, ReadyForQuery included.
///
/// # Cancel safety
/// Not safe: connections are closed and transactions rolled back by the servers.
pub(crate) async fn run(session: &mut Session, wide: Wide) -> Result<(), End> {
    if matches!(wide.source, Source::Text(_)) {
        session.unnamed = None;
    }
    match &wide.source {
        Source::Text(_) => {
            let result = carry_out(session, &wide, true).await;
            report(session, result)?;
            session.reply_ready();
            Ok(())
        }
        Source::Bind { .. } => client::run_group(session, &wide).await,
    }
}

/// Tells the client of a failure. Returns whether the statement succeeded.
fn report(session: &mut Session, result: Result<(), Trouble>) -> Result<bool, End> {
    match result {
        Ok(()) => Ok(true),
        Err(Trouble::Server(error)) => {
            session.out.extend_from_slice(&error);
            Ok(false)
        }
        Err(Trouble::Fault(fault)) => {
            session.reply_fault(&fault);
            Ok(false)
        }
        Err(Trouble::End(end)) => Err(end),
    }
}

/// Runs the statement; its replies up to CommandComplete go to the client. `describe`: with a
/// RowDescription.
async fn carry_out(session: &mut Session, wide: &Wide, describe: bool) -> Result<(), Trouble> {
    let started = session.engine.now();
    let result = match &wide.route {
        Route::Broadcast { .. } if wide.effect == Effect::CopyIn => {
            copy::run_everywhere(session, wide).await
        }
        Route::Broadcast { transaction: true } => broadcast::run(session, wide, describe).await,
        Route::Broadcast { transaction: false } => {
            broadcast::one_by_one(session, wide, describe).await
        }
        Route::Concat(shards) => concat::run(session, wide, shards, describe).await,
        Route::CopySplit(split) => copy::run(session, wide, split).await,
        Route::Session | Route::Anywhere | Route::AnyShard | Route::Single(_) => {
            Err(Trouble::Fault(Fault::error(
                SqlState::INTERNAL,
                "a statement for one shard was to run on several",
            )))
        }
    };
    let label = match &wide.route {
        Route::CopySplit(_) => RouteLabel::Copy,
        _ => RouteLabel::Multi,
    };
    let micros = session
        .engine
        .now()
        .saturating_duration_since(started)
        .as_micros();
    session.engine.count_route(
        &session.database,
        label,
        u64::try_from(micros).unwrap_or(u64::MAX),
    );
    session.client.targets.borrow_mut().clear();
    result
}

/// Appends a CommandComplete.
fn complete(session: &mut Session, tag: &str) {
    backend::command_complete(&mut session.out, tag);
}
