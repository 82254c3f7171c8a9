//! Another value for one limit, read as a file's would be: the console's SET.

use super::global;
use crate::config::Config;
use crate::config::fault::{At, ConfigFault, Faults};
use crate::config::keys::global::ROOT;
use crate::config::keys::{Key, Kind};
use crate::config::read::{Object, show};
use crate::config::yaml::{Entry, Node, Scalar, Value};

/// The keys that are limits and timeouts: they stand at the top, and a reload applies them.
fn limits() -> impl Iterator<Item = &'static Key> {
    ROOT.keys.iter().filter(|key| {
        let is_limit = matches!(
            key.kind,
            Kind::Word(_) | Kind::Count { .. } | Kind::Duration | Kind::Size { .. }
        );
        is_limit && key.reloadable && key.landed
    })
}

/// Whether [`with_limit`] can change a setting of SHOW CONFIG.
pub fn is_limit(key: &str) -> bool {
    limits().any(|known| known.name == key)
}

/// The configuration with another value of a limit.
///
/// # Errors
/// What is wrong with the value, alone or beside the others.
pub fn with_limit(config: &Config, key: &str, value: &str) -> Result<Config, Vec<ConfigFault>> {
    let mut config = config.clone();
    let changed = limits().find(|known| known.name == key);
    let setting = config.settings.iter_mut().find(|known| known.key == key);
    let (Some(changed), Some(setting)) = (changed, setting) else {
        return Ok(config);
    };
    value.clone_into(&mut setting.value);
    let entries = config.settings.iter().filter(|known| is_limit(&known.key));
    let root = Node {
        at: At::default(),
        value: Value::Map(
            entries
                .map(|known| entry(&known.key, &known.value))
                .collect(),
        ),
    };
    let faults = Faults::default();
    faults.open("SET");
    config.limits = global::limits(&Object::open_part(&root, &ROOT, &faults));
    faults.into_result()?;
    let shown = show(changed.kind, value);
    if let Some(setting) = config.settings.iter_mut().find(|known| known.key == key) {
        setting.value = shown;
    }
    Ok(config)
}

fn entry(key: &str, value: &str) -> Entry {
    let at = At::default();
    let scalar = Scalar {
        raw: value.to_owned(),
        text: value.to_owned(),
    };
    Entry {
        key: key.to_owned(),
        at,
        value: Node {
            at,
            value: Value::Scalar(scalar),
        },
    }
}
