//! Sets up logging: text or JSON lines on standard error.
//!
//! The level comes from the config; `RUST_LOG` goes before it, so that one module can be turned up
//! without touching the file. Called once by the command line, never by the library.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{Log, LogFormat};
use crate::error::{Fault, SqlState};

/// The directives in force: those of `RUST_LOG` if it is set, else the config's level.
pub fn directives<'a>(log: &'a Log, rust_log: Option<&'a str>) -> &'a str {
    rust_log
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(&log.level)
}

/// Installs the process's log. `rust_log` is the environment variable, read by the caller. Fails on
/// directives that cannot be read and when a log is installed already.
pub fn install(log: &Log, rust_log: Option<&str>) -> Result<(), Fault> {
    let directives = directives(log, rust_log);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Fault::fatal(SqlState::CONFIG, format!("invalid log level \"{directives}\""))
            .detail(format!("{error}."))
            .hint("Use error, warn, info, debug or trace in log.level, or directives like pgherd=debug in RUST_LOG.")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let installed = match log.format {
        LogFormat::Text => lines
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .finish()
            .try_init(),
        LogFormat::Json => lines.json().flatten_event(true).finish().try_init(),
    };
    installed.map_err(|error| {
        Fault::fatal(SqlState::INTERNAL, "could not install the log").detail(format!("{error}."))
    })
}

#[cfg(test)]
mod tests {
    use super::{directives, install};
    use crate::config::{Log, LogFormat};

    #[test]
    fn the_environment_goes_first_and_nonsense_is_refused() {
        let log = Log {
            format: LogFormat::Json,
            level: "info".into(),
        };
        assert_eq!(directives(&log, None), "info");
        assert_eq!(directives(&log, Some("")), "info");
        assert_eq!(directives(&log, Some("pgherd=debug")), "pgherd=debug");
        assert!(install(&log, Some("pgherd=loud")).is_err());
    }
}
