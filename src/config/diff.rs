//! What a reload changes: the keys that differ, and which of them wait for a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::{Config, Database, Fallback, User};

/// The difference of two configurations. It never holds a value of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// In the order of the key table; users and databases last.
    pub changes: Vec<Change>,
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As SHOW CONFIG names it, or as in `users.app.password` and `databases.shop.shards.shard_1`.
    pub key: String,
    /// The old and the new value of a setting; `None` for users and databases.
    pub values: Option<(String, String)>,
    /// Whether it waits for a restart: the running process keeps its old value.
    pub restart: bool,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The keys whose change is not applied before a restart.
    pub fn restarts(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.restart)
    }
}

/// What differs between the running configuration and a new one.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let mut changes = Vec::new();
    for setting in &new.settings {
        let before = old.settings.iter().find(|before| before.key == setting.key);
        let before = before
            .map(|before| before.value.clone())
            .unwrap_or_default();
        if before != setting.value {
            changes.push(Change {
                key: setting.key.clone(),
                values: Some((before, setting.value.clone())),
                restart: !setting.reloadable,
            });
        }
    }
    let mut changed = |key: String| {
        changes.push(Change {
            key,
            values: None,
            restart: false,
        });
    };
    if old.auth.rules != new.auth.rules && old.auth.hba == new.auth.hba {
        changed("auth_hba_file".to_owned());
    }
    if old.gather.servers != new.gather.servers {
        changed("gather.server".to_owned());
    }
    each(&old.users, &new.users, |name, pair| {
        users(name, pair, &mut changed);
    });
    each(&old.databases, &new.databases, |name, pair| {
        databases(name, pair, &mut changed);
    });
    fallbacks(old.fallback.as_ref(), new.fallback.as_ref(), &mut changed);
    Diff { changes }
}

/// Every name of the two maps with what each holds for it.
fn each<'m, T: PartialEq>(
    old: &'m BTreeMap<String, T>,
    new: &'m BTreeMap<String, T>,
    mut tell: impl FnMut(&str, (Option<&'m T>, Option<&'m T>)),
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let pair = (old.get(name), new.get(name));
        if pair.0 != pair.1 {
            tell(name, pair);
        }
    }
}

fn users(name: &str, pair: (Option<&User>, Option<&User>), changed: &mut impl FnMut(String)) {
    let (Some(old), Some(new)) = pair else {
        return changed(format!("users.{name}"));
    };
    let fields = [
        ("password", old.password != new.password),
        ("comment_hints", old.comment_hints != new.comment_hints),
        ("tenant", old.tenant != new.tenant),
        ("pool_mode", old.pool_mode != new.pool_mode),
        (
            "default_pool_size",
            old.default_pool_size != new.default_pool_size,
        ),
        (
            "max_user_connections",
            old.max_user_connections != new.max_user_connections,
        ),
    ];
    for (field, _) in fields.into_iter().filter(|(_, differs)| *differs) {
        changed(format!("users.{name}.{field}"));
    }
}

fn databases(
    name: &str,
    pair: (Option<&Database>, Option<&Database>),
    changed: &mut impl FnMut(String),
) {
    let (Some(old), Some(new)) = pair else {
        return changed(format!("databases.{name}"));
    };
    let shards = |database: &Database| -> BTreeMap<String, _> {
        let named = database
            .shards
            .iter()
            .map(|shard| (shard.name.clone(), shard.clone()));
        named.collect()
    };
    let (before, after) = (shards(old), shards(new));
    each(&before, &after, |shard, _| {
        changed(format!("databases.{name}.shards.{shard}"));
    });
    let order = |database: &Database| -> Vec<String> {
        database
            .shards
            .iter()
            .map(|shard| shard.name.clone())
            .collect()
    };
    let fields = [
        ("shards", before == after && order(old) != order(new)),
        ("home", old.home != new.home),
        ("server_user", old.server_user != new.server_user),
        (
            "server_password",
            old.server_password != new.server_password,
        ),
        ("control_user", old.control_user != new.control_user),
        (
            "control_password",
            old.control_password != new.control_password,
        ),
        ("pool_mode", old.pool_mode != new.pool_mode),
        (
            "default_pool_size",
            old.default_pool_size != new.default_pool_size,
        ),
        ("tables", old.tables != new.tables),
        ("unlisted", old.unlisted != new.unlisted),
        ("constraints", old.constraints != new.constraints),
        ("tenant", old.tenant != new.tenant),
    ];
    for (field, _) in fields.into_iter().filter(|(_, differs)| *differs) {
        changed(format!("databases.{name}.{field}"));
    }
    each(&old.distributions, &new.distributions, |one, _| {
        changed(format!("databases.{name}.distributions.{one}"));
    });
}

fn fallbacks(old: Option<&Fallback>, new: Option<&Fallback>, changed: &mut impl FnMut(String)) {
    if old != new {
        changed("databases.*".to_owned());
    }
}
