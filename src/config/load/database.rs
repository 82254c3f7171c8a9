//! Reads one database: its shards, distributions and tables.

use std::collections::BTreeMap;

use super::Loader;
use super::global::pool_mode;
use super::key_value;
use super::login::{secret, server};
use super::place::Scope;
use crate::config::keys::database::{DATABASE, DISTRIBUTION, FALLBACK, SHARD};
use crate::config::read::{Object, entries, items, join, scalar, texts};
use crate::config::yaml::{Node, Value};
use crate::config::{
    Constraints, Database, Distribution, Fallback, Host, KeyType, Secret, Shard, Tenancy, Unlisted,
    connect,
};

/// Bytes of a shard's name: it is a label of metrics and part of what SHOW prints.
const SHARD_NAME_MAX: usize = 63;
/// Shards of one database.
const SHARDS_MAX: usize = 1024;

impl Loader<'_> {
    pub(super) fn database(&self, name: &str, node: &Node, path: String) -> Option<Database> {
        let object = Object::open(node, &DATABASE, path, &self.faults);
        let shards = self.shards(&object, name);
        // Those whose connection string is wrong as well: that is told once, where it stands.
        let named = object
            .node("shards")
            .map(|node| entries(node, &object.child("shards"), &self.faults));
        let names: Vec<String> = named
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.key.clone())
            .collect();
        let home = match object.scalar("home") {
            Some(home) => {
                let scope = Scope {
                    shards: &names,
                    key: &[],
                };
                let at = object.node("home").map_or(object.at, |node| node.at);
                self.shard_name(at, &object.child("home"), &home.text, scope)
            }
            None => names.first().cloned(),
        };
        let distributions = self.distributions(&object, &names);
        let tables = self.tables(&object, &distributions);
        let (server_user, server_password) = login(&object, "server_user", "server_password");
        let (control_user, control_password) = login(&object, "control_user", "control_password");
        let unlisted = [Unlisted::Single, Unlisted::Reference, Unlisted::Refuse];
        let constraints = [Constraints::Enforce, Constraints::Allow];
        let replicas = object.section("replicas");
        replicas.choice("reads", &[(), (), ()]);
        replicas.duration("max_lag");
        let tenant = tenancy(&object);
        let unlisted = object.choice("unlisted", &unlisted);
        let constraints = object.choice("constraints", &constraints);
        let pool_mode = pool_mode(&object);
        let default_pool_size = object.count_or_none("default_pool_size");
        // All has been read: what is wrong anywhere has been told.
        Some(Database {
            name: name.to_owned(),
            shards,
            home: home?,
            server_user,
            server_password,
            control_user,
            control_password,
            pool_mode,
            default_pool_size,
            distributions,
            tables,
            unlisted: unlisted.unwrap_or(Unlisted::Single),
            constraints: constraints.unwrap_or(Constraints::Enforce),
            tenant,
        })
    }

    pub(super) fn fallback(&self, node: &Node, path: String) -> Option<Fallback> {
        let object = Object::open(node, &FALLBACK, path, &self.faults);
        let (server_user, server_password) = login(&object, "server_user", "server_password");
        let server = server(&object, "server", "")?;
        if !server.dbname.is_empty() {
            let hint = "Remove dbname: the client's database is used. Name the database to map it to another.";
            object.bad("server", "may not name a database", hint);
        }
        Some(Fallback {
            server,
            server_user,
            server_password,
        })
    }

    fn shards(&self, object: &Object<'_>, dbname: &str) -> Vec<Shard> {
        let Some(node) = object.node("shards") else {
            return Vec::new();
        };
        let path = object.child("shards");
        let all = entries(node, &path, &self.faults);
        if all.is_empty() || all.len() > SHARDS_MAX {
            let hint = "Write name: \"host=… port=… dbname=…\" for each.";
            self.fault(
                node.at,
                &path,
                format!("must name 1 to {SHARDS_MAX} shards"),
                hint,
            );
        }
        let mut shards: Vec<Shard> = Vec::new();
        for entry in all {
            let path = join(&path, &entry.key);
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            let name = entry.key.as_str();
            if name.is_empty()
                || name.len() > SHARD_NAME_MAX
                || !name.chars().all(allowed)
                || name == "all"
            {
                let hint = "Use letters, digits, _, - and dots; \"all\" means every shard.";
                self.fault(entry.at, &path, "is no name of a shard", hint);
            }
            let Some(shard) = self.shard(name, &entry.value, &path, dbname) else {
                continue;
            };
            let place = |host: &Host| (host.host.clone(), host.port, host.dbname.clone());
            if let Some(twin) = shards
                .iter()
                .find(|other| place(&other.primary) == place(&shard.primary))
            {
                let message = format!("is the same database as shard \"{}\"", twin.name);
                self.fault(
                    entry.at,
                    &path,
                    message,
                    "Give each shard a database of its own: rows would be found twice.",
                );
            }
            shards.push(shard);
        }
        shards
    }

    fn shard(&self, name: &str, node: &Node, path: &str, dbname: &str) -> Option<Shard> {
        let server = |node: &Node, path: &str| {
            let text = scalar(node, path, &self.faults)?;
            connect::host(&text.text, dbname)
                .map_err(|bad| self.fault(node.at, path, bad.message, bad.hint))
                .ok()
        };
        if matches!(node.value, Value::Scalar(_)) {
            let primary = server(node, path)?;
            return Some(Shard {
                name: name.to_owned(),
                primary,
                replicas: Vec::new(),
            });
        }
        let object = Object::open(node, &SHARD, path.to_owned(), &self.faults);
        let child = object.child("replicas");
        let replicas = match object.node("replicas") {
            Some(node) => items(node, &child, &self.faults)
                .iter()
                .filter_map(|node| server(node, &child))
                .collect(),
            None => Vec::new(),
        };
        let primary = server(object.node("primary")?, &object.child("primary"))?;
        if replicas.contains(&primary) {
            object.bad(
                "replicas",
                "the primary is also a replica",
                "Remove it from the replicas.",
            );
        }
        Some(Shard {
            name: name.to_owned(),
            primary,
            replicas,
        })
    }

    fn distributions(
        &self,
        object: &Object<'_>,
        shards: &[String],
    ) -> BTreeMap<String, Distribution> {
        let mut distributions = BTreeMap::new();
        let Some(node) = object.node("distributions") else {
            return distributions;
        };
        let path = object.child("distributions");
        for entry in entries(node, &path, &self.faults) {
            let path = join(&path, &entry.key);
            let object = Object::open(&entry.value, &DISTRIBUTION, path, &self.faults);
            let key = self.key_types(&object);
            let scope = Scope { shards, key: &key };
            let place = object
                .node("place")
                .and_then(|node| self.place(node, &object.child("place"), scope));
            let pins = match object.node("pins") {
                Some(node) => self.pins(node, &object.child("pins"), scope),
                None => Vec::new(),
            };
            // Without a rule a fault has been told; the name stays known, so that its tables are not
            // told to be wrong as well.
            let place = place.unwrap_or(crate::config::Place::Jump(Vec::new()));
            let name = entry.key.clone();
            distributions.insert(
                name.clone(),
                Distribution {
                    name,
                    key,
                    place,
                    pins,
                },
            );
        }
        distributions
    }

    fn key_types(&self, object: &Object<'_>) -> Vec<KeyType> {
        let Some(node) = object.node("key") else {
            return Vec::new();
        };
        let path = object.child("key");
        let words = texts(node, &path, &self.faults);
        if words.is_empty() {
            self.fault(
                node.at,
                &path,
                "names no type",
                "Write a type, as in bigint, or a list of them.",
            );
        }
        let mut types = Vec::new();
        for (at, word) in words {
            match key_value::key_type(&word) {
                Ok(key) => types.push(key),
                Err(bad) => self.fault(at, &path, format!("\"{word}\" {}", bad.message), bad.hint),
            }
        }
        types
    }
}

/// How tenants are confined, if anything says so.
fn tenancy(object: &Object<'_>) -> Option<Tenancy> {
    if !object.has("tenant") {
        return None;
    }
    let tenant = object.section("tenant");
    let setting = tenant
        .name("setting")
        .map(|setting| setting.to_ascii_lowercase());
    if let Some(setting) = &setting
        && (!setting.contains('.') || setting.starts_with("pgherd."))
    {
        tenant.bad(
            "setting",
            format!("\"{setting}\" is no setting of the application"),
            "Give it a prefix of your own, as in app.current_tenant.",
        );
    }
    Some(Tenancy {
        column: tenant.name("column")?,
        setting,
    })
}

/// A role and the password it logs in to servers with.
fn login(object: &Object<'_>, user: &str, password: &str) -> (Option<String>, Option<Secret>) {
    let name = object.name(user);
    let secret = secret(object, password);
    if secret.is_some() && name.is_none() {
        object.bad(
            password,
            format!("has no use without {user}"),
            format!("Set {user}, or remove it."),
        );
    }
    if matches!(secret, Some(Secret::Scram(_))) {
        let hint = "Give the password itself, from a variable or a file: ${NAME} or ${file:PATH}.";
        object.bad(
            password,
            "is a verifier, which cannot log in to a server",
            hint,
        );
    }
    (name, secret)
}
