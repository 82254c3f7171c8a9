//! What is wrong with a configuration: where, what, and what to write instead.

use std::cell::RefCell;
use std::fmt;

use crate::error::{Fault, SqlState};

/// One finding in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file as it was named to the reader.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// The key it is about, as in `databases.shop.home`; empty for faults of the file itself.
    pub path: String,
    /// Lower case, no full stop. Never holds the value of a secret or of a variable.
    pub message: String,
    /// Sentences: what to write instead.
    pub hint: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}. {}", self.message, self.hint)
    }
}

impl std::error::Error for ConfigFault {}

impl From<ConfigFault> for Fault {
    fn from(found: ConfigFault) -> Fault {
        let key = if found.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", found.path)
        };
        Fault::fatal(
            SqlState::CONFIG,
            format!("{}:{}: {key}{}", found.file, found.line, found.message),
        )
        .hint(found.hint)
    }
}

/// A place in one of the files that make up a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct At {
    pub file: usize,
    pub line: usize,
}

/// Collects findings while the files are read, so that all are told at once.
#[derive(Debug, Default)]
pub(super) struct Faults {
    files: RefCell<Vec<String>>,
    errors: RefCell<Vec<(At, ConfigFault)>>,
    not_yet: RefCell<Vec<(At, ConfigFault)>>,
}

impl Faults {
    /// Names one more file; its number goes into every [`At`] of it.
    pub(super) fn open(&self, file: &str) -> usize {
        let mut files = self.files.borrow_mut();
        files.push(file.to_owned());
        files.len().saturating_sub(1)
    }

    /// A fault that makes the configuration invalid.
    pub(super) fn error(
        &self,
        at: At,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let fault = self.fault(at, path, message.into(), hint.into());
        self.errors.borrow_mut().push((at, fault));
    }

    /// A valid setting whose feature this release lacks.
    pub(super) fn not_yet(&self, at: At, path: &str, hint: impl Into<String>) {
        let message = "not yet: this release cannot carry this setting out".to_owned();
        let fault = self.fault(at, path, message, hint.into());
        self.not_yet.borrow_mut().push((at, fault));
    }

    fn fault(&self, at: At, path: &str, message: String, hint: String) -> ConfigFault {
        ConfigFault {
            file: self
                .files
                .borrow()
                .get(at.file)
                .cloned()
                .unwrap_or_default(),
            line: at.line,
            path: path.to_owned(),
            message,
            hint,
        }
    }

    /// The settings that wait for their feature, or everything if there are errors; in the order of
    /// the files.
    pub(super) fn into_result(self) -> Result<Vec<ConfigFault>, Vec<ConfigFault>> {
        let sorted = |mut list: Vec<(At, ConfigFault)>| {
            list.sort_by(|(a, x), (b, y)| {
                (a.file, a.line, &x.path, &x.message).cmp(&(b.file, b.line, &y.path, &y.message))
            });
            // A section that is looked at twice tells its faults twice.
            list.dedup();
            list.into_iter().map(|(_, fault)| fault).collect()
        };
        let (mut all, not_yet) = (self.errors.into_inner(), self.not_yet.into_inner());
        if all.is_empty() {
            return Ok(sorted(not_yet));
        }
        all.extend(not_yet);
        Err(sorted(all))
    }
}
