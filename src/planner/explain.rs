//! A route in words: `pgherd route`, `SHOW pgherd.route`.

use serde::Serialize;

use crate::error::Fault;
use crate::placement::topology::Topology;
use crate::planner::plan::{Access, Route, Statement};

/// What was decided of a statement, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteReport {
    /// `session`, `any`, `single`, `concat`, `broadcast`, `copy` or `refuse`.
    pub route: &'static str,
    /// Names of shards; empty where any may answer, or none.
    pub shards: Vec<String>,
    pub reason: String,
    pub sql: String,
}

/// Puts a route into words.
pub fn explain(
    statement: &Statement,
    sql: &str,
    route: &Result<Route, Fault>,
    topology: &Topology,
) -> RouteReport {
    let all = || topology.shards().to_vec();
    let (name, shards) = match route {
        Ok(Route::Session) => ("session", Vec::new()),
        Ok(Route::Anywhere | Route::AnyShard) => ("any", Vec::new()),
        Ok(Route::Single(shard)) => ("single", vec![topology.name(*shard).to_owned()]),
        Ok(Route::Concat(shards)) => (
            "concat",
            shards
                .iter()
                .map(|shard| topology.name(shard).to_owned())
                .collect(),
        ),
        Ok(Route::Broadcast { .. }) => ("broadcast", all()),
        Ok(Route::CopySplit(_)) => ("copy", all()),
        Err(_) => ("refuse", Vec::new()),
    };
    RouteReport {
        route: name,
        shards,
        reason: match route {
            Ok(route) => reason(statement, route, topology),
            Err(fault) => fault.to_string(),
        },
        sql: sql.to_owned(),
    }
}

fn reason(statement: &Statement, route: &Route, topology: &Topology) -> String {
    let one = topology.shards().len() == 1;
    match &statement.access {
        Access::Session => "the session answers it itself".into(),
        Access::Anywhere => "it names no table, and every server answers alike".into(),
        Access::Bound => "it goes where the transaction is".into(),
        Access::Home if one => "the database has one shard".into(),
        Access::Home => "it needs nothing but the home shard".into(),
        Access::AnyShard => "it reads reference tables only".into(),
        Access::Keyed(keyed) => {
            let proof = match (&keyed.keys, route) {
                (_, Route::Concat(_)) => {
                    "its rows are those of several shards, one after the other"
                }
                (Some(_), _) => "it is confined to keys of one shard",
                (None, _) => "all rows are on one shard",
            };
            let distribution = topology
                .distribution(keyed.distribution)
                .map_or("", |distribution| distribution.name());
            format!(
                "{proof} (table {}, distribution {distribution})",
                keyed.table
            )
        }
        Access::Broadcast { transaction: true } => {
            "every shard must have it, in one transaction each".into()
        }
        Access::Broadcast { transaction: false } => {
            "every shard must have it, one by one, since it cannot run in a transaction".into()
        }
        Access::CopySplit(split) => {
            format!("the rows of {} are placed by their keys", split.table)
        }
        Access::Shard(_) => "a hint says so".into(),
        Access::Refuse(fault) => fault.to_string(),
    }
}
