//! `check` and `setup`: what the config and the servers have to say, a line a finding.

use std::process::ExitCode;
use std::sync::Arc;

use super::{ConfigFile, FAILED, Outcome, on_servers, one};
use crate::config::{Config, Parsed};
use crate::control::{Control, Finding, Level};
use crate::demo::terminal::say;
use crate::error::Fault;
use crate::proxy;

/// Looks at the config, and at the servers unless `offline`. Exit 1 when there is an error.
pub(super) fn check(file: &ConfigFile, offline: bool) -> Outcome {
    let parsed = match proxy::read(&file.config) {
        Ok(parsed) => parsed,
        Err(faults) => {
            for fault in &faults {
                say(line("error", fault));
            }
            return Ok(ExitCode::from(FAILED));
        }
    };
    let Parsed { config, not_yet } = parsed;
    let obstacles = proxy::obstacles(&config);
    let refused: Vec<Fault> = not_yet.into_iter().map(Fault::from).collect();
    for fault in refused.iter().chain(&obstacles) {
        say(line("error", fault));
    }
    let errors = refused.len() + obstacles.len();
    let doubts = config.doubts();
    for fault in &doubts {
        say(line("warning", fault));
    }
    if offline || !obstacles.is_empty() {
        return Ok(conclude(doubts.len(), errors));
    }
    let config = Arc::new(config);
    let (warnings, more) = ask(&config, Question::Check)?;
    Ok(conclude(warnings + doubts.len(), errors + more))
}

/// Creates what pgherd needs on the servers, and says what it did.
pub(super) fn setup(file: &ConfigFile) -> Outcome {
    let config = proxy::read(&file.config)?.config;
    let (warnings, errors) = ask(&Arc::new(config), Question::Setup)?;
    Ok(conclude(warnings, errors))
}

#[derive(Clone, Copy)]
enum Question {
    Check,
    Setup,
}

/// Asks every database's servers and prints the findings; how many warnings and errors there are.
fn ask(config: &Arc<Config>, question: Question) -> Result<(usize, usize), Vec<Fault>> {
    on_servers(config, async |control: Control| {
        let (mut warnings, mut errors) = (0, 0);
        for name in config.databases.keys() {
            let findings = match question {
                Question::Check => control.check(name).await.map_err(one)?,
                Question::Setup => control.setup(name).await.map_err(one)?,
            };
            for finding in &findings {
                say(located(name, finding));
                match finding.level {
                    Level::Note => (),
                    Level::Warning => warnings += 1,
                    Level::Error => errors += 1,
                }
            }
        }
        Ok((warnings, errors))
    })
}

/// A finding with the database it is about.
fn located(database: &str, finding: &Finding) -> String {
    let text = finding.to_string();
    let level = format!("{}: ", finding.level);
    let rest = text.strip_prefix(&level).unwrap_or(&text);
    format!("{level}database \"{database}\": {rest}")
}

fn line(level: &str, fault: &Fault) -> String {
    let mut line = format!("{level}: {}", fault.message);
    if let Some(detail) = &fault.detail {
        line = line + ". " + detail.trim_end_matches('.');
    }
    if let Some(hint) = &fault.hint {
        line = line + ". Hint: " + hint;
    }
    line
}

/// The last line, and the exit code.
fn conclude(warnings: usize, errors: usize) -> ExitCode {
    let plural = |count: usize, noun: &str| match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    };
    if errors == 0 {
        say(format!("ok: {}", plural(warnings, "warning")));
        return ExitCode::SUCCESS;
    }
    say(format!(
        "failed: {}, {}",
        plural(errors, "error"),
        plural(warnings, "warning")
    ));
    ExitCode::from(FAILED)
}
