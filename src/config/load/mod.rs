//! Reads a configuration: YAML text in, a checked [`Config`] out, or every fault at once.
//!
//! Two kinds of findings are told apart. *Faults* make a configuration invalid for everyone.
//! *Not yet* are valid settings whose feature this release lacks, set to something else than their
//! default: [`Parsed::ready`] turns them into faults, so `run`, `check` and reload refuse the file and
//! nothing is silently ignored.

mod check;
mod database;
pub(super) mod global;
mod key_value;
pub(super) mod limit;
mod login;
mod place;
mod policy;
mod table;

pub use table::split_name;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::expand::expand;
use super::fault::{At, ConfigFault, Faults};
use super::keys::global::ROOT;
use super::read::{Object, entries, join};
use super::yaml::{self, Node};
use super::{Config, Database, Fallback, Recovery, settings};

/// What lies outside of the text: the environment and the files it names.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The value of an environment variable.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a file, or why it cannot be read.
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// The files that a pattern with `*` and `?` in its last part names, in any order; none is no
    /// error. See [`super::glob`].
    pub glob: &'a dyn Fn(&str) -> Result<Vec<PathBuf>, String>,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// A valid configuration, and what of it this release cannot carry out.
#[derive(Clone, Debug)]
pub struct Parsed {
    pub config: Config,
    /// Settings off their default whose feature has not landed, in the order of the files.
    pub not_yet: Vec<ConfigFault>,
}

impl Parsed {
    /// The configuration to run with.
    ///
    /// # Errors
    /// The settings that would be ignored, each a "not yet".
    pub fn ready(self) -> Result<Config, Vec<ConfigFault>> {
        if self.not_yet.is_empty() {
            Ok(self.config)
        } else {
            Err(self.not_yet)
        }
    }
}

/// Reads the text of `file`; the files it names are relative to the folder of `file`.
///
/// # Errors
/// All faults, in the order of the files and their lines, and what is not yet with them.
pub fn parse(text: &str, file: &str, sources: &Sources<'_>) -> Result<Parsed, Vec<ConfigFault>> {
    let folder = Path::new(file)
        .parent()
        .map(Path::to_path_buf)
        .unwrap_or_default();
    let loader = Loader {
        faults: Faults::default(),
        sources,
        folder,
    };
    let config = loader.tree(text, file).map(|root| loader.config(&root));
    let not_yet = loader.faults.into_result()?;
    match config {
        Some(config) => Ok(Parsed { config, not_yet }),
        None => Err(not_yet),
    }
}

struct Loader<'a> {
    faults: Faults,
    sources: &'a Sources<'a>,
    folder: PathBuf,
}

impl Loader<'_> {
    /// The nodes of a file, variables replaced.
    fn tree(&self, text: &str, file: &str) -> Option<Node> {
        let number = self.faults.open(file);
        let mut root = yaml::parse(text, number, &self.faults)?;
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        expand(&mut root, folder, self.sources, &self.faults);
        Some(root)
    }

    /// The path of a file that the main file names.
    fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn config(&self, node: &Node) -> Config {
        let root = Object::open(node, &ROOT, String::new(), &self.faults);
        let (databases, fallback) = self.databases(&root);
        let config = Config {
            name: global::name(&root),
            engines: global::engines(&root),
            log: global::log(&root.section("log")),
            listen: self.listen(&root),
            http: global::http(&root),
            tls: self.tls(&root.section("tls")),
            server_tls: self.server_tls(&root.section("server_tls")),
            auth: self.auth(&root.section("auth")),
            users: self.users(&root),
            admin_users: root
                .texts("admin_users")
                .into_iter()
                .map(|(_, name)| name)
                .collect(),
            stats_users: root
                .texts("stats_users")
                .into_iter()
                .map(|(_, name)| name)
                .collect(),
            limits: global::limits(&root),
            gather: self.gather(&root.section("gather")),
            two_phase: root
                .choice("cross_shard_writes", &[true, false])
                .unwrap_or(true),
            consistent_reads: root.boolean("consistent_reads"),
            recovery: recovery(&root.section("recovery")),
            cache: self.caching(&root.section("cache")),
            databases,
            fallback,
            settings: settings::list(node),
        };
        check::whole(&root, &config);
        config
    }

    fn databases(&self, root: &Object<'_>) -> (BTreeMap<String, Database>, Option<Fallback>) {
        let mut databases = BTreeMap::new();
        let mut fallback = None;
        let Some(node) = root.node("databases") else {
            return (databases, fallback);
        };
        let all = entries(node, "databases", &self.faults);
        if all.is_empty() {
            self.fault(
                node.at,
                "databases",
                "no database is given",
                "Add one, with its shards.",
            );
        }
        for entry in all {
            let path = join("databases", &entry.key);
            match entry.key.as_str() {
                "*" => fallback = self.fallback(&entry.value, path),
                "pgherd" | "pgbouncer" => {
                    let message = format!("\"{}\" is the name of the console", entry.key);
                    self.fault(entry.at, &path, message, "Give the database another name.");
                }
                "" => self.fault(entry.at, &path, "the name is empty", "Give it a name."),
                name => {
                    if let Some(database) = self.database(name, &entry.value, path) {
                        databases.insert(name.to_owned(), database);
                    }
                }
            }
        }
        (databases, fallback)
    }

    fn fault(&self, at: At, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.error(at, path, message, hint);
    }
}

/// How often transactions in doubt are looked for where that is said to be 0.
const RECOVERY_EVERY: Duration = Duration::from_secs(2);

fn recovery(recovery: &Object<'_>) -> Recovery {
    let every = recovery.duration("every");
    Recovery {
        // It is not turned off: what is left prepared holds locks.
        every: if every.is_zero() {
            RECOVERY_EVERY
        } else {
            every
        },
        age: recovery.duration("age"),
    }
}
