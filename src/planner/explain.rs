//! A route in words: `pgherd route`, `EXPLAIN (ROUTE)`.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::error::Fault;
use crate::merge::Finish;
use crate::placement::topology::Topology;
use crate::planner::cache::{Touched, Verdict, Written};
use crate::planner::plan::{Access, Route, Statement};
use crate::planner::tally::Way;
use crate::sql::scan::{Lexing, scan};
use crate::sql::tail::Tail;

/// What was decided of a statement, and why. As JSON it is one object; as text, a line with the
/// route and the reason, and for a refusal one each with its detail and hint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    /// `local`, `single`, `multi`, `gather`, `split`, `copy` or `refuse`.
    pub route: &'static str,
    /// Names of shards; empty where none is needed. For a read of reference tables, those that any
    /// one of may answer.
    pub shards: Vec<String>,
    pub reason: String,
    /// What the cache does with it, where one of its tables is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// The statement.
    pub sql: String,
    /// The refusal's SQLSTATE, detail and hint.
    #[serde(flatten)]
    pub refusal: Option<Refusal>,
}

/// What else is said of a refusal; its message is the report's reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub code: &'static str,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

/// Puts the route of one execution of `statement` into words. `text` is the whole text that it was
/// planned from.
pub fn explain(
    statement: &Statement,
    text: &[u8],
    route: &Result<Route, Fault>,
    topology: &Topology,
) -> RouteReport {
    let all = || topology.shards().to_vec();
    let shards = match route {
        Ok(Route::Session | Route::Anywhere) | Err(_) => Vec::new(),
        Ok(
            Route::AnyShard
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::Gather(_)
            | Route::InsertGathered(..),
        ) => all(),
        Ok(Route::Single(shard)) => vec![topology.name(*shard).to_owned()],
        Ok(Route::Concat(shards, ..) | Route::Each(shards) | Route::Move(shards, _)) => {
            let names = shards.iter().map(|shard| topology.name(shard).to_owned());
            names.collect()
        }
        Ok(Route::InsertSplit(shares)) => {
            let names = shares
                .iter()
                .map(|share| topology.name(share.shard).to_owned());
            names.collect()
        }
    };
    let sql = text.get(statement.span.clone()).unwrap_or_default();
    RouteReport {
        route: route.as_ref().map_or(Way::Refuse, Way::of).as_str(),
        shards,
        reason: match route {
            Ok(route) => reason(statement, route, topology, sql),
            Err(fault) => fault.message.clone(),
        },
        cache: statement.cache.as_deref().map(cached),
        sql: String::from_utf8_lossy(sql).trim().to_owned(),
        refusal: route.as_ref().err().map(|fault| Refusal {
            code: fault.code.as_str(),
            detail: fault.detail.clone(),
            hint: fault.hint.clone(),
        }),
    }
}

/// What the cache does with a statement.
fn cached(verdict: &Verdict) -> String {
    let read = |touched: &Touched| {
        let table = &touched.table;
        match touched {
            Touched { keys: Some(_), .. } => format!("the named keys of {table}"),
            Touched {
                confined: Some((indexed, _)),
                ..
            } => format!(
                "rows of {table} with the named values of {}",
                indexed.column
            ),
            Touched {
                columns: Some(columns),
                ..
            } => match &**columns {
                [] => format!("the number of rows of {table}"),
                columns => format!("columns {} of any row of {table}", columns.join(", ")),
            },
            Touched { .. } => format!("any row of {table}"),
        }
    };
    let written = |written: &Written| {
        let table = &written.table;
        let columns = match &written.columns {
            Some(columns) => format!("columns {} of ", columns.join(", ")),
            None => String::new(),
        };
        match &written.keys {
            Some(_) => format!("{columns}the named keys of {table}"),
            None => format!("{columns}any row of {table}"),
        }
    };
    match verdict {
        Verdict::Read(reading) => {
            let (fresh, limit) = (reading.fresh.as_secs_f64(), reading.limit.as_secs_f64());
            let tables: Vec<String> = reading.tables.iter().map(read).collect();
            let tables = tables.join(", ");
            format!("kept for {limit} s, fresh for {fresh} s, until {tables} may have changed")
        }
        Verdict::Bypass(reason, _) => format!("not kept: {reason}"),
        Verdict::Write(writing) => match &writing.tables {
            Some(tables) => {
                let tables: Vec<String> = tables.iter().map(written).collect();
                format!("drops what depends on {}", tables.join(", "))
            }
            None => "drops everything, because it is not known what it writes".into(),
        },
    }
}

/// Why it is this route.
fn reason(statement: &Statement, route: &Route, topology: &Topology, text: &[u8]) -> String {
    match route {
        Route::Session => "answered by the proxy itself, or where the transaction is".into(),
        Route::Anywhere => "no table: any server answers alike".into(),
        Route::AnyShard if matches!(statement.access, Access::Generate(_)) => {
            "the one of these on which the id is placed that the row is given".into()
        }
        Route::AnyShard if matches!(statement.access, Access::Keyed(_)) => {
            "no row has the value that is looked up, as any one of these shards will answer".into()
        }
        Route::AnyShard => "only reference tables are read: any one of these shards".into(),
        Route::Single(_) => single(&statement.access, topology),
        Route::Concat(_, finish, _) => finished(finish, text),
        Route::Gather(gather) => {
            let why = &gather.why;
            if gather.partial.is_some() {
                return format!(
                    "{why} needs rows of several shards together: \
                     worked out in part on each, and combined on a twin"
                );
            }
            format!("{why} needs rows of several shards together: fetched, and finished on a twin")
        }
        Route::InsertGathered(_, target) => format!(
            "the query's rows are worked out on a twin, and those of {} written where they belong",
            target.table
        ),
        Route::Broadcast { transaction: true } => "every shard, all in one transaction".into(),
        Route::Broadcast { transaction: false } => {
            "every shard, one after another: it cannot run in a transaction block".into()
        }
        Route::InsertSplit(_) => {
            "each row goes to the shard of its key, all in one transaction".into()
        }
        Route::Each(_) => "each shard writes its own rows, all in one transaction".into(),
        Route::Move(..) => {
            "each shard writes its own rows, and those that belong to others then are moved, all in one transaction".into()
        }
        Route::CopySplit(split) => {
            format!("each row of {} goes to the shard of its key", split.table)
        }
    }
}

/// How the answers of several shards become that of a statement with this text.
fn finished(finish: &Finish, text: &[u8]) -> String {
    let tokens = scan(text, Lexing::default()).unwrap_or_default();
    let tail = Tail::find(&tokens, text).unwrap_or_default();
    let shown = |span: Range<usize>| {
        let text = text.get(span).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    let mut reason = if !finish.totals.is_empty() {
        "the totals of each shard, taken together, are the answer".to_owned()
    } else if finish.order.is_empty() {
        "each shard's rows, one after another, are the answer".to_owned()
    } else {
        let keys = tail.keys.iter().map(|key| {
            let direction = if key.descending { " desc" } else { "" };
            let nulls = match (key.nulls_first, key.descending) {
                (true, false) => " nulls first",
                (false, true) => " nulls last",
                (true, true) | (false, false) => "",
            };
            format!("{}{direction}{nulls}", shown(key.span.clone()))
        });
        let keys: Vec<String> = keys.collect();
        format!(
            "each shard's rows, merged by {}, are the answer",
            keys.join(", ")
        )
    };
    if finish.whole {
        reason.insert_str(0, "each group is on one shard: ");
    }
    if finish.is_limited {
        for clause in [tail.limit, tail.offset].into_iter().flatten() {
            reason.push_str(", ");
            reason.push_str(&shown(clause.span).to_ascii_lowercase());
        }
        if finish.totals.is_empty() {
            reason.push_str(" pushed");
        }
    }
    reason
}

/// Why one shard is enough.
fn single(access: &Access, topology: &Topology) -> String {
    match access {
        _ if topology.shards().len() == 1 => "the database has one shard".into(),
        Access::Generate(generate) => single(&generate.within, topology),
        Access::Keyed(keyed) => {
            let distribution = topology
                .distribution(keyed.distribution)
                .map_or("", |distribution| distribution.name());
            let proof = if keyed.keys.is_some() {
                "all the keys it names are on this shard"
            } else {
                "all its rows are on this shard"
            };
            format!(
                "{proof} (table {}, distribution {distribution})",
                keyed.table
            )
        }
        Access::Shard(_) => "a hint names the shard".into(),
        Access::Bound => "the shard of the transaction, home without one".into(),
        Access::Home
        | Access::Session
        | Access::Anywhere
        | Access::AnyShard
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Gather(_)
        | Access::Refuse(_) => "all it uses is on the home shard".into(),
    }
}

impl RouteReport {
    /// The route and the reason, in one line.
    pub fn headline(&self) -> String {
        let on = if self.shards.is_empty() { "" } else { " on " };
        let (route, shards, reason) = (self.route, self.shards.join(", "), &self.reason);
        format!("{route}{on}{shards}: {reason}")
    }
}

impl fmt::Display for RouteReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline())?;
        if let Some(cache) = &self.cache {
            write!(f, "\nCACHE: {cache}")?;
        }
        let Some(refusal) = &self.refusal else {
            return Ok(());
        };
        write!(f, " ({})", refusal.code)?;
        if let Some(detail) = &refusal.detail {
            write!(f, "\nDETAIL: {detail}")?;
        }
        if let Some(hint) = &refusal.hint {
            write!(f, "\nHINT: {hint}")?;
        }
        Ok(())
    }
}
