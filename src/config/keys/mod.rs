//! The table of keys: what a configuration may say, with type, default and meaning.
//!
//! The reader, the JSON Schema, `conf/reference.yaml` and SHOW CONFIG all follow this table.
//! *Invariant:* a section's reader asks for keys of its table only, in the type the table gives.

pub(super) mod database;
pub(super) mod global;

/// The keys of one mapping.
#[derive(Debug)]
pub(super) struct Section {
    /// The name of its schema definition.
    pub name: &'static str,
    pub keys: &'static [Key],
}

impl Section {
    /// The key of that name.
    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// In YAML; `null` when leaving it out means "none".
    pub default: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Its name in SHOW CONFIG where PgBouncer has another one than ours.
    pub shown: Option<&'static str>,
    /// Whether a reload applies a change of it.
    pub reloadable: bool,
    /// Whether this release carries it out; if not, only its default is accepted at start.
    pub landed: bool,
    /// What the reference file shows in place of the default.
    pub example: Option<&'static str>,
    pub required: bool,
}

impl Key {
    const fn new(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
        Key {
            name,
            kind,
            default,
            doc,
            shown: None,
            reloadable: true,
            landed: true,
            example: None,
            required: false,
        }
    }

    const fn shown(mut self, name: &'static str) -> Key {
        self.shown = Some(name);
        self
    }

    const fn restart(mut self) -> Key {
        self.reloadable = false;
        self
    }

    const fn not_yet(mut self) -> Key {
        self.landed = false;
        self
    }

    const fn example(mut self, text: &'static str) -> Key {
        self.example = Some(text);
        self
    }

    const fn required(mut self) -> Key {
        self.required = true;
        self
    }
}

/// The type of a key's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    /// Never shown.
    Secret,
    /// A URL whose password is never shown.
    Url,
    /// A file, relative to the file that names it.
    Path,
    Bool,
    Count {
        min: u64,
        max: u64,
    },
    /// `auto` or a number.
    Auto {
        min: u64,
        max: u64,
    },
    Duration,
    Size {
        min: u64,
        max: u64,
    },
    Word(&'static [&'static str]),
    /// A list of text.
    Texts,
    /// One text or a list of text.
    Columns,
    /// A list of columns or of lists of columns.
    ColumnLists,
    /// Types of key columns: one or a list.
    KeyTypes,
    /// A libpq connection string or URI.
    Server,
    /// A list of those.
    Servers,
    /// One of those or a list of them.
    SomeServers,
    /// A placement rule.
    Place,
    /// Text to text.
    Pins,
    Section(&'static Section),
    List(&'static Section),
    /// Names to sections.
    Map(&'static Section, Short),
    /// Names to databases, and `"*"`.
    Databases(&'static Section),
}

impl Kind {
    /// Whether SHOW CONFIG shows it: neither a secret nor a structure.
    pub(super) fn is_setting(self) -> bool {
        !matches!(
            self,
            Kind::Secret
                | Kind::Server
                | Kind::Servers
                | Kind::SomeServers
                | Kind::Place
                | Kind::Pins
                | Kind::Section(_)
                | Kind::List(_)
                | Kind::Map(..)
                | Kind::Databases(_)
        )
    }
}

/// What may stand in place of a section.
#[derive(Clone, Copy, Debug)]
pub(super) enum Short {
    None,
    /// A shard's primary.
    Server,
    Word(&'static [&'static str]),
}
