//! The command line: one subcommand for each thing a person or a script asks of pgherd.
//!
//! It stays thin: it reads files and arguments, calls the library and prints. Exit codes:
//! 0 done, 1 failed (or `check` found an error), 2 wrong usage or a command of a later release.
//! What a command finds goes to standard output, what went wrong to standard error as message,
//! DETAIL and HINT.

mod check;
mod convert;
mod health;
mod password;
mod route;
mod table_file;
mod warm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::config::schema::json_schema;
use crate::control::Control;
use crate::demo;
use crate::demo::terminal::{say, warn};
use crate::error::{Fault, SqlState};
use crate::proxy;
use crate::tls::Tls;

/// What a command ends with: nothing to add, or the faults to print.
type Outcome = Result<ExitCode, Vec<Fault>>;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Makes a herd of plain PostgreSQL servers look like one.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, about, long_about = None, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy. SIGHUP reloads the config, SIGTERM drains, SIGINT stops after the current transactions
    Run(ConfigFile),
    /// Show it: throwaway PostgreSQL servers with a shop's rows, the proxy in front; all gone on Ctrl-C
    Demo(DemoArguments),
    /// Check the config, then the servers: one line a finding, exit 1 if any is an error
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Look at the config alone; connect to no server
        #[arg(long)]
        offline: bool,
    },
    /// Create on the servers what pgherd needs there, and say what was done; safe to repeat
    Setup(ConfigFile),
    /// Say where a statement would run, and why; runs nothing
    Route(RouteArguments),
    /// Print the JSON Schema of the config
    Schema,
    /// Read a password from standard input and print a SCRAM-SHA-256 verifier for `users`
    HashPassword,
    /// Turn a pgbouncer.ini, with its userlist, into a pgherd.yaml on standard output
    Convert {
        /// PgBouncer's config
        file: PathBuf,
        /// Its users, when they are not where its `auth_file` says
        #[arg(long, value_name = "FILE")]
        userlist: Option<PathBuf>,
    },
    /// Ask a running proxy's /health; exit 0 if it serves. For containers without curl
    Health {
        #[command(flatten)]
        config: ConfigFile,
        /// The HTTP address, instead of the config's
        #[arg(long, value_name = "HOST:PORT")]
        http: Option<String>,
    },
    /// What is kept of answers, in a running proxy
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Import one PostgreSQL into a herd (a later release)
    Import(Later),
    /// Move rows between shards while they are in use (a later release)
    Reshard(Later),
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Run the statements of a file through the proxy, so that their answers are kept; exit 1 if one fails
    Warm {
        #[command(flatten)]
        config: ConfigFile,
        /// Whose answers they are: others are given them only by the same user
        #[arg(long)]
        user: String,
        /// The database of the config; may be left out when there is one
        #[arg(long)]
        database: Option<String>,
        /// Statements, a semicolon behind each
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The config file
    #[arg(short, long, value_name = "FILE", default_value = "pgherd.yaml")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// PostgreSQL servers to start
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    shards: u8,
    /// Rows, as a multiple of the shop's 510,000
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Where clients connect
    #[arg(long, default_value = "127.0.0.1:6432", value_name = "HOST:PORT")]
    listen: String,
    /// Run a short tour of statements and exit
    #[arg(long)]
    once: bool,
}

impl DemoArguments {
    fn options(self) -> demo::Options {
        demo::Options {
            shards: self.shards.into(),
            scale: self.scale,
            listen: self.listen,
            once: self.once,
        }
    }
}

#[derive(Debug, Args)]
struct RouteArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The database of the config; may be left out when there is one
    #[arg(long)]
    database: Option<String>,
    /// CREATE TABLE statements to take column names and types from, instead of the servers
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// The statement
    sql: String,
    /// The values of $1, $2, …
    parameters: Vec<String>,
}

#[derive(Debug, Args)]
struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// Parses the arguments, runs the command, prints what failed.
pub fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(faults) => {
            for fault in &faults {
                print_fault(fault);
            }
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Route(arguments) => route::run(&arguments),
        Command::Run(file) => proxy::run(&file.config).map(|()| ExitCode::SUCCESS),
        Command::Schema => {
            say(format!("{:#}", json_schema()));
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config, offline } => check::check(&config, offline),
        Command::Setup(config) => check::setup(&config),
        Command::HashPassword => {
            say(password::hash().map_err(one)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo(arguments) => {
            demo::run(&arguments.options()).map_err(one)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Convert { file, userlist } => {
            say(convert::pgbouncer_ini(&file, userlist)?.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Health { config, http } => health(&config, http),
        Command::Cache(CacheCommand::Warm {
            config,
            user,
            database,
            file,
        }) => {
            let config = proxy::read(&config.config)?.config;
            let code = warm::run(&config, &file, &user, database.as_deref())?;
            Ok(ExitCode::from(code))
        }
        Command::Import(_) => Ok(later("import")),
        Command::Reshard(_) => Ok(later("reshard")),
    }
}

/// Asks the address given, or the config's.
fn health(file: &ConfigFile, http: Option<String>) -> Outcome {
    let address = match http {
        Some(address) => Some(address),
        None => proxy::read(&file.config)?.config.http,
    };
    let address = address.ok_or_else(|| {
        one(
            Fault::error(SqlState::CONFIG, "the config has no HTTP address")
                .hint("Set `http`, or give --http HOST:PORT."),
        )
    })?;
    health::ask(&address).map_err(one)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `work` with control connections to the servers of the config; none is opened before use.
fn on_servers<T>(
    config: &Arc<Config>,
    work: impl AsyncFnOnce(Control) -> Result<T, Vec<Fault>>,
) -> Result<T, Vec<Fault>> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        one(Fault::error(SqlState::CONFIG, format!("could not {what}"))
            .detail(format!("{error}."))
            .hint("Mend it, and run the command again."))
    };
    let tls = Tls::load(&config.tls, &config.server_tls)
        .map_err(|error| failed("load the TLS files", &error))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed("start a runtime", &error))?;
    runtime.block_on(work(Control::new(config, &tls.connector)))
}

/// A command of a later release: said so, exit 2.
fn later(command: &str) -> ExitCode {
    print_fault(
        &Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("{command} is not yet part of pgherd"),
        )
        .hint("It comes with a later release; see CHANGELOG.md."),
    );
    ExitCode::from(USAGE)
}

fn one(fault: Fault) -> Vec<Fault> {
    vec![fault]
}

/// As psql prints an error: what failed, then DETAIL and HINT.
fn print_fault(fault: &Fault) {
    warn(format!("error: {}", fault.message));
    if let Some(detail) = &fault.detail {
        warn(format!("DETAIL: {detail}"));
    }
    if let Some(hint) = &fault.hint {
        warn(format!("HINT: {hint}"));
    }
}
