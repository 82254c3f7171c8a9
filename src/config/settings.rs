//! The rows of SHOW CONFIG: every setting outside of users and databases, never a secret.

use super::Setting;
use super::keys::global::ROOT;
use super::keys::{Kind, Section};
use super::read::{join, show};
use super::yaml::{Node, Value};

/// All settings with their effective values, in the order of the key table.
pub(super) fn list(root: &Node) -> Vec<Setting> {
    let mut settings = Vec::new();
    add(&mut settings, &ROOT, Some(root), "");
    settings
}

fn add(settings: &mut Vec<Setting>, section: &Section, node: Option<&Node>, path: &str) {
    for key in section.keys {
        let value = node.and_then(|node| child(node, key.name));
        let path = join(path, key.name);
        if let Kind::Section(inner) = key.kind {
            add(settings, inner, value, &path);
            continue;
        }
        if !key.kind.is_setting() {
            continue;
        }
        let shown = value.and_then(|node| text(node, key.kind));
        let default = default(key.default, key.kind);
        settings.push(Setting {
            key: key.shown.map_or(path, str::to_owned),
            value: shown.unwrap_or_else(|| default.clone()),
            default,
            reloadable: key.reloadable,
        });
    }
}

fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == name)
            .map(|entry| &entry.value),
        Value::Null | Value::Scalar(_) | Value::List(_) => None,
    }
}

fn text(node: &Node, kind: Kind) -> Option<String> {
    match &node.value {
        Value::Null | Value::Map(_) => None,
        Value::Scalar(scalar) => Some(show(kind, &scalar.text)),
        Value::List(items) => {
            let texts: Vec<String> = items.iter().filter_map(|item| text(item, kind)).collect();
            Some(texts.join(", "))
        }
    }
}

/// A default of the table as a value is shown: without brackets, nothing for none.
fn default(text: &str, kind: Kind) -> String {
    let text = if text == "null" { "" } else { text };
    let list = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    list.map_or_else(|| show(kind, text), str::to_owned)
}
