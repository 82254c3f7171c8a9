//! What `check` and `setup` have to say: one line each.

use std::fmt;

/// How bad it is. `check` fails when there is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing to do.
    Note,
    /// Something works less well than it might, or will surprise someone.
    Warning,
    /// Answers would be wrong, or nothing would work.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// One thing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// The shard it was found on; `None` when it concerns all of them.
    pub shard: Option<String>,
    /// Lower case, no full stop.
    pub what: String,
    /// Whole sentences: what to change.
    pub hint: Option<String>,
}

impl Finding {
    pub(super) fn new(level: Level, what: impl Into<String>) -> Finding {
        Finding {
            level,
            shard: None,
            what: what.into(),
            hint: None,
        }
    }

    pub(super) fn error(what: impl Into<String>) -> Finding {
        Finding::new(Level::Error, what)
    }

    pub(super) fn warning(what: impl Into<String>) -> Finding {
        Finding::new(Level::Warning, what)
    }

    pub(super) fn on(mut self, shard: &str) -> Finding {
        self.shard = Some(shard.to_owned());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Finding {
        self.hint = Some(hint.into());
        self
    }
}

/// One line, as `pgherd check` prints it.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.level)?;
        if let Some(shard) = &self.shard {
            write!(f, "shard \"{shard}\": ")?;
        }
        f.write_str(&self.what)?;
        if let Some(hint) = &self.hint {
            write!(f, ". Hint: {hint}")?;
        }
        Ok(())
    }
}
