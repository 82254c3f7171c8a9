//! The configuration's files and environment, read for the pure parser.

use std::path::{Path, PathBuf};

use crate::config::ConfigFault;
use crate::config::load::{Parsed, Sources, parse};
use crate::config::{Config, glob};
use crate::error::{Fault, SqlState};

/// Bytes of one file of the configuration, at most.
const FILE_MAX: u64 = 16 << 20;

/// Reads the configuration to run with.
///
/// # Errors
/// Every fault, and every setting whose feature this release lacks.
pub fn load(path: &Path) -> Result<Config, Vec<Fault>> {
    read(path)?.ready().map_err(faults)
}

/// Reads the configuration, with what this release cannot carry out listed apart.
///
/// # Errors
/// Every fault.
pub fn read(path: &Path) -> Result<Parsed, Vec<Fault>> {
    let text = read_file(path).map_err(|reason| vec![sources_fault(path, &reason)])?;
    let env = |name: &str| std::env::var(name).ok();
    let read = |path: &Path| read_file(path);
    let sources = Sources {
        env: &env,
        read: &read,
        glob: &find,
    };
    parse(&text, &path.display().to_string(), &sources).map_err(faults)
}

fn faults(found: Vec<ConfigFault>) -> Vec<Fault> {
    found.into_iter().map(Fault::from).collect()
}

/// The fault of a file that cannot be read.
pub fn sources_fault(path: &Path, reason: &str) -> Fault {
    Fault::fatal(
        SqlState::CONFIG,
        format!("could not read \"{}\"", path.display()),
    )
    .detail(format!("{reason}."))
    .hint("Name the file with -c, and see that it may be read.")
}

fn read_file(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path)
        .map_err(|error| error.to_string())?
        .len();
    if size > FILE_MAX {
        return Err(format!("it has {size} bytes, more than {FILE_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// The files that a pattern names.
fn find(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let (folder, name) = glob::split(pattern);
    let folder = if folder.is_empty() { "." } else { folder };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|entry| glob::matches(name, entry))
        {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Whether a file of TLS was written after the old configuration was read. Not known, so: whether there is one.
pub(super) fn certificates_changed(new: &Config, _old: &Config) -> bool {
    new.tls.certificate.is_some() || new.server_tls.ca.is_some()
}
