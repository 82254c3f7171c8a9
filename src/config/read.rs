//! Reads one mapping by its section of the key table, and tells what is wrong with it.

use std::time::Duration;

use super::fault::{At, Faults};
use super::keys::{Key, Kind, Section};
use super::value::{self, BadValue};
use super::yaml::{Entry, Node, Scalar, Value};

/// A mapping under a section: unknown, missing and not yet landed keys have been told of.
pub(super) struct Object<'n> {
    pub at: At,
    /// Where it stands in the file, as in `databases.shop`; empty at the top.
    pub path: String,
    section: &'static Section,
    entries: &'n [Entry],
    faults: &'n Faults,
}

impl<'n> Object<'n> {
    pub(super) fn open(
        node: &'n Node,
        section: &'static Section,
        path: String,
        faults: &'n Faults,
    ) -> Object<'n> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            Value::Scalar(_) | Value::List(_) => {
                let names: Vec<&str> = section.keys.iter().map(|key| key.name).take(4).collect();
                let hint = format!(
                    "Write keys and values under it, such as {}.",
                    names.join(", ")
                );
                faults.error(node.at, &path, "must be a mapping", hint);
                return Object {
                    at: node.at,
                    path,
                    section,
                    entries: &[],
                    faults,
                };
            }
        };
        let object = Object {
            at: node.at,
            path,
            section,
            entries,
            faults,
        };
        object.check_names();
        object
    }

    /// Some entries at the top of a file: what else it must have is not looked at.
    pub(super) fn open_part(
        node: &'n Node,
        section: &'static Section,
        faults: &'n Faults,
    ) -> Object<'n> {
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null | Value::Scalar(_) | Value::List(_) => &[],
        };
        Object {
            at: node.at,
            path: String::new(),
            section,
            entries,
            faults,
        }
    }

    fn check_names(&self) {
        for entry in self.entries {
            match self.section.key(&entry.key) {
                None => self.unknown(entry),
                Some(key) if !key.landed && differs(key, &entry.value) => {
                    let hint = if matches!(key.default, "null" | "[]") || is_section(key) {
                        "Leave it out for now.".to_owned()
                    } else {
                        format!("Leave it out for now, or at its default, {}.", key.default)
                    };
                    self.faults.not_yet(entry.at, &self.child(&entry.key), hint);
                }
                Some(_) => (),
            }
        }
        for key in self.section.keys.iter().filter(|key| key.required) {
            if self.node(key.name).is_none() {
                let message = format!("\"{}\" is missing", key.name);
                self.faults
                    .error(self.at, &self.path, message, format!("Add it: {}", key.doc));
            }
        }
    }

    fn unknown(&self, entry: &Entry) {
        let names = || self.section.keys.iter().map(|key| key.name);
        let known = format!("Known here: {}.", names().collect::<Vec<_>>().join(", "));
        let hint = value::did_you_mean(&entry.key, names(), known);
        self.faults.error(
            entry.at,
            &self.path,
            format!("unknown key \"{}\"", entry.key),
            hint,
        );
    }

    /// The path of one of its keys.
    pub(super) fn child(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The value of a key, unless it is left out or null.
    pub(super) fn node(&self, name: &str) -> Option<&'n Node> {
        debug_assert!(
            self.section.key(name).is_some(),
            "{name} is not in the table"
        );
        let entry = self.entries.iter().find(|entry| entry.key == name)?;
        (!matches!(entry.value.value, Value::Null)).then_some(&entry.value)
    }

    /// Whether the key has a value of its own.
    pub(super) fn has(&self, name: &str) -> bool {
        self.node(name).is_some()
    }

    /// A section below this one; empty, so all defaults, when it is left out.
    pub(super) fn section(&self, name: &str) -> Object<'n> {
        let key = self.section.key(name);
        let Some(Key {
            kind: Kind::Section(section),
            ..
        }) = key
        else {
            debug_assert!(false, "{name} is no section");
            return Object {
                entries: &[],
                path: self.child(name),
                ..*self
            };
        };
        let path = self.child(name);
        if let Some(node) = self.node(name) {
            return Object::open(node, section, path, self.faults);
        }
        Object {
            path,
            section,
            entries: &[],
            ..*self
        }
    }

    /// Tells that the value of a key is wrong.
    pub(super) fn bad(&self, name: &str, message: impl Into<String>, hint: impl Into<String>) {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        let at = entry.map_or(self.at, |entry| entry.value.at);
        self.faults.error(at, &self.child(name), message, hint);
    }

    /// Text as it stands, or the default.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.scalar(name) {
            Some(scalar) => Some(scalar.text.clone()),
            None => self.default(name).map(str::to_owned),
        }
    }

    /// Text that must not be empty.
    pub(super) fn name(&self, name: &str) -> Option<String> {
        let text = self.text(name)?;
        if text.is_empty() {
            self.bad(name, "is empty", "Write a name, or leave the key out.");
            return None;
        }
        Some(text)
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        self.duration_or_none(name).unwrap_or_default()
    }

    pub(super) fn duration_or_none(&self, name: &str) -> Option<Duration> {
        self.value(name, value::duration)
    }

    pub(super) fn size(&self, name: &str) -> u64 {
        let Some(Kind::Size { min, max }) = self.kind(name) else {
            debug_assert!(false, "{name} is no size");
            return 0;
        };
        let size = self.value(name, |text| {
            let bytes = value::size(text)?;
            if bytes < min || max < bytes {
                let (min, max) = (value::show_size(min), value::show_size(max));
                let hint = format!("Write a size from {min} to {max}.");
                return Err(BadValue::new("is out of range", hint));
            }
            Ok(bytes)
        });
        size.unwrap_or_default()
    }

    pub(super) fn count(&self, name: &str) -> usize {
        self.count_or_none(name).unwrap_or_default()
    }

    pub(super) fn count_or_none(&self, name: &str) -> Option<usize> {
        let Some(Kind::Count { min, max } | Kind::Auto { min, max }) = self.kind(name) else {
            debug_assert!(false, "{name} is no count");
            return None;
        };
        let count = self.value(name, |text| value::count(text, min, max))?;
        usize::try_from(count).ok()
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        self.value(name, value::boolean).unwrap_or_default()
    }

    /// One of the words the table lists; `values` are what they stand for, in the same order.
    pub(super) fn choice<T: Copy>(&self, name: &str, values: &[T]) -> Option<T> {
        let Some(Kind::Word(words)) = self.kind(name) else {
            debug_assert!(false, "{name} is no word");
            return None;
        };
        debug_assert_eq!(words.len(), values.len(), "{name}");
        self.value(name, |text| word(text, words, values))
    }

    /// A list of text; one text alone counts as a list of one.
    pub(super) fn texts(&self, name: &str) -> Vec<(At, String)> {
        match self.node(name) {
            Some(node) => texts(node, &self.child(name), self.faults),
            None => Vec::new(),
        }
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        self.section.key(name).map(|key| key.kind)
    }

    fn default(&self, name: &str) -> Option<&'static str> {
        self.section
            .key(name)
            .map(|key| key.default)
            .filter(|text| *text != "null")
    }

    /// A value by its reader; the default where it is left out or wrong.
    fn value<T>(&self, name: &str, read: impl Fn(&str) -> Result<T, BadValue>) -> Option<T> {
        if let Some(scalar) = self.scalar(name) {
            match read(&scalar.text) {
                Ok(value) => return Some(value),
                Err(bad) => {
                    self.bad(
                        name,
                        format!("\"{}\" {}", scalar.raw, bad.message),
                        bad.hint,
                    );
                }
            }
        }
        self.default(name).and_then(|text| read(text).ok())
    }

    pub(super) fn scalar(&self, name: &str) -> Option<&'n Scalar> {
        scalar(self.node(name)?, &self.child(name), self.faults)
    }
}

/// The path of a key under another.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The scalar a node must be.
pub(super) fn scalar<'n>(node: &'n Node, path: &str, faults: &Faults) -> Option<&'n Scalar> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar),
        Value::Null | Value::List(_) | Value::Map(_) => {
            faults.error(
                node.at,
                path,
                "must be a single value",
                "Write one value, without brackets.",
            );
            None
        }
    }
}

/// The entries of a node that must be a mapping with names of the user's choice.
pub(super) fn entries<'n>(node: &'n Node, path: &str, faults: &Faults) -> &'n [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        Value::Scalar(_) | Value::List(_) => {
            faults.error(
                node.at,
                path,
                "must be a mapping",
                "Write `name: value` lines under it.",
            );
            &[]
        }
    }
}

/// The items of a node that must be a list.
pub(super) fn items<'n>(node: &'n Node, path: &str, faults: &Faults) -> &'n [Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Null => &[],
        Value::Scalar(_) | Value::Map(_) => {
            faults.error(
                node.at,
                path,
                "must be a list",
                "Write it in brackets, as in [a, b].",
            );
            &[]
        }
    }
}

/// The texts of a list, or the one text that stands in its place; none is empty.
pub(super) fn texts(node: &Node, path: &str, faults: &Faults) -> Vec<(At, String)> {
    let one = std::slice::from_ref(node);
    let nodes = match &node.value {
        Value::Scalar(_) => one,
        Value::Null | Value::List(_) | Value::Map(_) => items(node, path, faults),
    };
    let mut texts = Vec::new();
    for node in nodes {
        match scalar(node, path, faults) {
            Some(scalar) if scalar.text.is_empty() => {
                faults.error(node.at, path, "holds an empty text", "Remove it.");
            }
            Some(scalar) => texts.push((node.at, scalar.text.clone())),
            None => (),
        }
    }
    texts
}

/// The value that stands at the place of the word in the list of words.
pub(super) fn word<T: Copy>(text: &str, words: &[&str], values: &[T]) -> Result<T, BadValue> {
    let found = words.iter().zip(values).find(|(word, _)| **word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let choices = words.join(", ");
        let hint = match value::closest(text, words.iter().copied()) {
            Some(close) => format!("Did you mean \"{close}\"? Possible are {choices}."),
            None => format!("Possible are {choices}."),
        };
        BadValue::new("is not one of the words known here", hint)
    })
}

fn is_section(key: &Key) -> bool {
    matches!(key.kind, Kind::Section(_))
}

/// Whether a value says something else than the key's default.
fn differs(key: &Key, node: &Node) -> bool {
    match (&node.value, key.kind) {
        (Value::Null, _) => false,
        (Value::Map(entries), Kind::Section(section)) => entries.iter().any(|entry| {
            section
                .key(&entry.key)
                .is_some_and(|key| differs(key, &entry.value))
        }),
        (Value::List(items), _) => !items.is_empty(),
        (Value::Map(entries), _) => !entries.is_empty(),
        (Value::Scalar(scalar), kind) => show(kind, &scalar.text) != show(kind, key.default),
    }
}

/// A value in its shortest form, so that equal values have equal texts; passwords in URLs are hidden.
pub(super) fn show(kind: Kind, text: &str) -> String {
    if let Kind::Url = kind {
        return hide_password(text);
    }
    let shown = if let Kind::Duration = kind {
        value::duration(text).map(value::show_duration).ok()
    } else if let Kind::Size { .. } = kind {
        value::size(text).map(value::show_size).ok()
    } else if let Kind::Count { .. } | Kind::Auto { .. } = kind {
        text.parse::<u64>().map(|number| number.to_string()).ok()
    } else {
        None
    };
    shown.unwrap_or_else(|| text.to_owned())
}

/// A URL without its user and password.
fn hide_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let Some((_, host)) = rest.rsplit_once('@') else {
        return url.to_owned();
    };
    if scheme.is_empty() {
        host.to_owned()
    } else {
        format!("{scheme}://{host}")
    }
}
