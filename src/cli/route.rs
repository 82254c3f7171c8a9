//! `route`: where a statement would run and why, as text or JSON. Runs nothing.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;

use super::{FAILED, Outcome, RouteArguments, on_servers, one, table_file};
use crate::config::{Config, Database};
use crate::control::Control;
use crate::demo::terminal::say;
use crate::error::{Fault, SqlState};
use crate::placement::catalog::Catalog;
use crate::placement::topology::Topology;
use crate::planner::plan::{Effect, Literal, Parameter, Script, Values};
use crate::planner::{self, Context};
use crate::proxy;
use crate::sql::scan::{self, Kind, Lexing};

/// Prints the route of each statement of the text. Exit 1 when one is refused.
pub(super) fn run(arguments: &RouteArguments) -> Outcome {
    all_given(&arguments.sql, arguments.parameters.len()).map_err(one)?;
    let config = Arc::new(proxy::read(&arguments.config.config)?.config);
    let database = choose(&config, arguments.database.as_deref()).map_err(one)?;
    let topology = Topology::new(database).map_err(one)?;
    let catalog = match &arguments.schema {
        Some(file) => table_file::read(Path::new(file)).map_err(one)?,
        None => catalog(&config, &topology)?,
    };
    let search_path = ["public".to_owned()];
    let context = Context {
        topology: &topology,
        catalog: &catalog,
        search_path: &search_path,
        lexing: Lexing::default(),
        comment_hints: true,
        tenant: false,
    };
    let script = planner::script(arguments.sql.as_bytes(), context);
    let given = Given {
        text: arguments.sql.as_bytes(),
        script: &script,
        parameters: &arguments.parameters,
    };
    let mut refused = false;
    for statement in &script.statements {
        // What is asked of EXPLAIN (ROUTE) is the route of its statement.
        let statement = if let Effect::ExplainRoute { statement } = &statement.effect {
            statement
        } else {
            statement
        };
        let route = planner::route(statement, &topology, &given);
        refused |= route.is_err();
        let report = planner::explain(statement, given.text, &route, &topology);
        say(if arguments.json {
            json!(report).to_string()
        } else {
            report.to_string()
        });
    }
    Ok(if refused {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// Refuses a text with parameters beyond the `given` ones: where it runs would not be known.
fn all_given(sql: &str, given: usize) -> Result<(), Fault> {
    let tokens = scan::scan(sql.as_bytes(), Lexing::default()).unwrap_or_default();
    let parameters = tokens.iter().filter(|token| token.kind == Kind::Parameter);
    let numbers = parameters.filter_map(|token| {
        let text = token.of(sql.as_bytes()).get(1..)?;
        std::str::from_utf8(text).ok()?.parse::<usize>().ok()
    });
    match numbers.max() {
        Some(highest) if given < highest => Err(Fault::error(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the statement has ${highest}, and {given} values were given"),
        )
        .hint("Give the value of each parameter after the statement.")),
        _ => Ok(()),
    }
}

/// The database asked for; the only one when none was.
fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Database, Fault> {
    let names = || {
        let names: Vec<&str> = config.databases.keys().map(String::as_str).collect();
        format!("The config has {}.", names.join(", "))
    };
    let found = match name {
        Some(name) => config.databases.get(name),
        None if config.databases.len() == 1 => config.databases.values().next(),
        None => None,
    };
    found.ok_or_else(|| {
        Fault::error(SqlState::UNKNOWN_DATABASE, "which database is not clear")
            .detail(names())
            .hint("Give one of them with --database.")
    })
}

/// The tables of the home shard; the directories are read as well. Without them a statement may need a column list to be routed.
fn catalog(config: &Arc<Config>, topology: &Topology) -> Result<Catalog, Vec<Fault>> {
    on_servers(config, async |control: Control| {
        control.read_directories(topology).await.map_err(one)?;
        control
            .introspect(topology.database())
            .await
            .map_err(|fault| {
                one(fault
                    .hint("Start the home shard's server, or give the tables with --schema FILE."))
            })
    })
}

/// What is known of the values: the text's literals, and the parameters given.
struct Given<'a> {
    text: &'a [u8],
    script: &'a Script,
    parameters: &'a [String],
}

impl Values for Given<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let text = self.parameters.get(usize::from(index))?;
        Some(Parameter {
            value: Some(text.as_bytes()),
            binary: false,
            oid: 0,
        })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let span = self.script.literals.get(usize::from(index))?;
        Some(Literal {
            text: span.of(self.text),
        })
    }
}
