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
use crate::placement::ShardId;
use crate::placement::catalog::Catalog;
use crate::placement::topology::Topology;
use crate::planner::plan::{Access, Literal, Parameter, Route, Script, Statement, Values};
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
        None => catalog(&config, &database.name)?,
    };
    let search_path = ["public".to_owned()];
    let context = Context {
        topology: &topology,
        catalog: &catalog,
        search_path: &search_path,
        lexing: Lexing::default(),
        comment_hints: true,
    };
    let script = planner::script(arguments.sql.as_bytes(), context);
    let given = Given {
        text: arguments.sql.as_bytes(),
        script: &script,
        parameters: &arguments.parameters,
    };
    let mut refused = false;
    for statement in &script.statements {
        let answer = answer(statement, &topology, &given);
        refused |= answer.fault.is_some();
        say(if arguments.json {
            answer.json()
        } else {
            answer.text()
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

/// The tables of the home shard. Without them a statement may need a column list to be routed.
fn catalog(config: &Arc<Config>, database: &str) -> Result<Catalog, Vec<Fault>> {
    on_servers(config, async |control: Control| {
        control.introspect(database).await.map_err(|fault| {
            one(fault.hint("Start the home shard's server, or give the tables with --schema FILE."))
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

/// The route of one statement, in words.
struct Answer {
    route: &'static str,
    shards: Vec<String>,
    reason: String,
    sql: String,
    /// When it is refused.
    fault: Option<Fault>,
}

fn answer(statement: &Statement, topology: &Topology, given: &Given<'_>) -> Answer {
    let sql = given.text.get(statement.span.clone()).unwrap_or_default();
    let sql = String::from_utf8_lossy(sql).trim().to_owned();
    let answer = |route, shards: &mut dyn Iterator<Item = ShardId>, reason: &str| Answer {
        route,
        shards: shards
            .map(|shard| topology.name(shard).to_owned())
            .collect(),
        reason: reason.to_owned(),
        sql: sql.clone(),
        fault: None,
    };
    let none = &mut std::iter::empty();
    let all = topology.all();
    let every = &mut all.iter();
    match planner::route(statement, topology, given) {
        Err(fault) => Answer {
            reason: fault.message.clone(),
            fault: Some(fault),
            ..answer("refuse", none, "")
        },
        Ok(Route::Session) => answer("local", none, "answered by the proxy itself"),
        Ok(Route::Anywhere) => answer("local", none, "no table: any server answers alike"),
        Ok(Route::AnyShard) => answer(
            "single",
            every,
            "only reference tables are read: any one of these shards",
        ),
        Ok(Route::Single(shard)) => {
            let reason = single(statement, topology);
            answer("single", &mut std::iter::once(shard), reason)
        }
        Ok(Route::Concat(shards)) => answer(
            "multi",
            &mut shards.iter(),
            "each shard's rows, one after another, are the answer",
        ),
        Ok(Route::Broadcast { transaction: true }) => {
            answer("multi", every, "every shard, in a transaction of its own")
        }
        Ok(Route::Broadcast { transaction: false }) => answer(
            "multi",
            every,
            "every shard, one after another: it cannot run in a transaction block",
        ),
        Ok(Route::CopySplit(_)) => answer("copy", every, "each row goes to the shard of its key"),
    }
}

/// Why one shard is enough.
fn single(statement: &Statement, topology: &Topology) -> &'static str {
    match &statement.access {
        _ if topology.shards().len() == 1 => "the database has one shard",
        Access::Keyed(_) => "the keys of all its sharded tables are on this shard",
        Access::Shard(_) => "a hint names the shard",
        Access::Home
        | Access::Session
        | Access::Anywhere
        | Access::Bound
        | Access::AnyShard
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Refuse(_) => "all it uses is on the home shard",
    }
}

impl Answer {
    fn json(&self) -> String {
        let mut object = json!({
            "route": self.route,
            "shards": self.shards,
            "reason": self.reason,
            "sql": self.sql,
        });
        if let (Some(fault), Some(object)) = (&self.fault, object.as_object_mut()) {
            object.insert("code".to_owned(), json!(fault.code.as_str()));
            object.insert("detail".to_owned(), json!(fault.detail));
            object.insert("hint".to_owned(), json!(fault.hint));
        }
        object.to_string()
    }

    fn text(&self) -> String {
        let mut text = format!("{}: {}", self.route, self.reason);
        if !self.shards.is_empty() {
            text = format!(
                "{} on {}: {}",
                self.route,
                self.shards.join(", "),
                self.reason
            );
        }
        if let Some(fault) = &self.fault {
            text = format!("{text} ({})", fault.code);
            for (name, said) in [("DETAIL", &fault.detail), ("HINT", &fault.hint)] {
                if let Some(said) = said {
                    text = format!("{text}\n{name}: {said}");
                }
            }
        }
        text
    }
}
