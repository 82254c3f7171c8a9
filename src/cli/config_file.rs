//! Reads a config from the disk and the environment.

use std::path::{Path, PathBuf};

use crate::config::{self, ConfigFault, Parsed, Sources, glob};
use crate::error::{Fault, SqlState};

/// The checked config at `path`, or everything that is wrong with it.
pub(super) fn load(path: &Path) -> Result<Parsed, Vec<Fault>> {
    let text = read(path).map_err(|error| {
        vec![
            Fault::error(
                SqlState::CONFIG,
                format!("could not read \"{}\"", path.display()),
            )
            .detail(format!("The system says: {error}."))
            .hint("Give the config with -c FILE; `pgherd schema` describes it."),
        ]
    })?;
    let sources = Sources {
        env: &|name| std::env::var(name).ok(),
        read: &read,
        glob: &files,
    };
    config::parse(&text, &path.display().to_string(), &sources)
        .map_err(|faults| faults.iter().map(fault).collect())
}

/// What `run` would refuse to start with, as the shell's user sees it.
pub(super) fn fault(found: &ConfigFault) -> Fault {
    let mut message = format!("{}:{}: ", found.file, found.line);
    if !found.path.is_empty() {
        message.push_str(&found.path);
        message.push_str(": ");
    }
    Fault::error(SqlState::CONFIG, message + &found.message).hint(found.hint.as_str())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The files that a pattern names, in any order.
fn files(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (folder, pattern) = glob::split(pattern);
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| glob::matches(pattern, name))
    };
    Ok(paths.filter(fits).collect())
}
