//! The configuration's JSON Schema, for editors: names, types, defaults and meanings of all keys.

use serde_json::{Map, Value, json};

use super::keys::database::FALLBACK;
use super::keys::global::ROOT;
use super::keys::{Key, Kind, Section, Short};

/// What stands for a value that comes from the environment or from a file.
const REFERENCE: &str = r"\$\{.+\}";

/// JSON Schema (draft 2020-12) of a whole file.
///
/// It is wider than the reader where a schema cannot say more: names that refer to each other,
/// ascending bounds and settings that need others are only checked by `pgherd check`.
pub fn json_schema() -> Value {
    let mut definitions = Map::new();
    let mut schema = section(&ROOT, &mut definitions);
    definitions.insert("place".to_owned(), place());
    definitions.insert(
        "table_file".to_owned(),
        json!({"$ref": "#/$defs/table", "required": ["table"]}),
    );
    if let Value::Object(root) = &mut schema {
        root.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        root.insert("title".to_owned(), json!("pgherd's configuration"));
        root.insert("$defs".to_owned(), Value::Object(definitions));
    }
    schema
}

fn section(section: &Section, definitions: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for one in section.keys {
        if one.required {
            required.push(one.name);
        }
        properties.insert(one.name.to_owned(), key(one, definitions));
    }
    let mut schema = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if let Value::Object(object) = &mut schema
        && !required.is_empty()
    {
        object.insert("required".to_owned(), json!(required));
    }
    schema
}

/// A reference to a section's definition, which is made when it is first met.
fn reference(to: &'static Section, definitions: &mut Map<String, Value>) -> Value {
    if !definitions.contains_key(to.name) {
        definitions.insert(to.name.to_owned(), Value::Null);
        let made = section(to, definitions);
        definitions.insert(to.name.to_owned(), made);
    }
    json!({"$ref": format!("#/$defs/{}", to.name)})
}

fn key(key: &Key, definitions: &mut Map<String, Value>) -> Value {
    let mut schema = kind(key.kind, definitions);
    if !key.required {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    if let Value::Object(object) = &mut schema {
        let doc = if key.landed {
            key.doc.to_owned()
        } else {
            format!("{} Not yet.", key.doc)
        };
        object.insert("description".to_owned(), json!(doc));
        if let Some(default) = default(key) {
            object.insert("default".to_owned(), default);
        }
    }
    schema
}

fn default(key: &Key) -> Option<Value> {
    let text = key.default;
    if let Some(list) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        let items: Vec<&str> = list.split(", ").filter(|item| !item.is_empty()).collect();
        return Some(json!(items));
    }
    match key.kind {
        _ if text == "null" => None,
        Kind::Bool => Some(json!(text == "true")),
        Kind::Count { .. } => text.parse::<u64>().ok().map(Value::from),
        Kind::Text
        | Kind::Secret
        | Kind::Url
        | Kind::Path
        | Kind::Auto { .. }
        | Kind::Duration
        | Kind::Size { .. }
        | Kind::Word(_)
        | Kind::Texts
        | Kind::Columns
        | Kind::ColumnLists
        | Kind::KeyTypes
        | Kind::Server
        | Kind::Servers
        | Kind::SomeServers
        | Kind::Place
        | Kind::Pins
        | Kind::Section(_)
        | Kind::List(_)
        | Kind::Map(..)
        | Kind::Databases(_) => Some(json!(text)),
    }
}

fn kind(kind: Kind, definitions: &mut Map<String, Value>) -> Value {
    let text = || json!({"type": ["string", "number", "boolean"]});
    let list = |items: Value| json!({"type": "array", "items": items});
    let or_list =
        |item: Value| json!({"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]});
    let pattern = |pattern: &str| json!({"type": "string", "pattern": format!("^({pattern}|.*{REFERENCE}.*)$")});
    let count = |min, max| json!({"anyOf": [{"type": "integer", "minimum": min, "maximum": max}, pattern("[0-9]+")]});
    match kind {
        Kind::Text | Kind::Secret => text(),
        Kind::Url | Kind::Path | Kind::Server => json!({"type": "string", "minLength": 1}),
        Kind::Bool => json!({"anyOf": [{"type": "boolean"}, pattern("true|false")]}),
        Kind::Count { min, max } => count(min, max),
        Kind::Auto { min, max } => json!({"anyOf": [{"const": "auto"}, count(min, max)]}),
        Kind::Duration => json!({"anyOf": [{"const": 0}, pattern("0|[0-9]+(ms|s|m|h|d)")]}),
        Kind::Size { .. } => {
            json!({"anyOf": [{"type": "integer", "minimum": 0}, pattern("[0-9]+(B|kB|MB|GB|TB)?")]})
        }
        Kind::Word(words) => json!({"anyOf": [{"enum": words}, pattern(REFERENCE)]}),
        Kind::Texts => json!({"anyOf": [text(), {"type": "array", "items": text()}]}),
        Kind::Columns | Kind::KeyTypes => or_list(json!({"type": "string"})),
        Kind::ColumnLists => list(or_list(json!({"type": "string"}))),
        Kind::Servers => list(json!({"type": "string", "minLength": 1})),
        Kind::SomeServers => or_list(json!({"type": "string", "minLength": 1})),
        Kind::Place => json!({"$ref": "#/$defs/place"}),
        Kind::Pins => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Kind::Section(section) => reference(section, definitions),
        Kind::List(section) => list(reference(section, definitions)),
        Kind::Map(section, short) => {
            let long = reference(section, definitions);
            let each = match short {
                Short::None => long,
                Short::Server => json!({"anyOf": [{"type": "string"}, long]}),
                Short::Word(words) => json!({"anyOf": [{"enum": words}, long]}),
            };
            json!({"type": "object", "additionalProperties": each})
        }
        Kind::Databases(section) => {
            let (one, all) = (
                reference(section, definitions),
                reference(&FALLBACK, definitions),
            );
            json!({
                "type": "object",
                "minProperties": 1,
                "properties": {"*": all, "pgherd": false, "pgbouncer": false},
                "additionalProperties": one,
            })
        }
    }
}

/// A placement: a shard's name, or one rule.
fn place() -> Value {
    let place = json!({"$ref": "#/$defs/place"});
    let members =
        json!({"anyOf": [{"const": "all"}, {"type": "array", "items": place, "minItems": 1}]});
    let value = json!({"type": ["string", "number"]});
    let rules = json!({
        "jump": members,
        "modulo": members,
        "postgres": members,
        "shard": {"type": "string"},
        "range": {"type": "array", "minItems": 1, "items": {
            "type": "object", "minProperties": 1, "maxProperties": 2,
            "properties": {
                "to": value, "jump": true, "modulo": true, "postgres": true, "shard": true,
                "range": true, "list": true, "directory": true,
            },
            "additionalProperties": false,
        }},
        "list": {"type": "object", "minProperties": 1, "additionalProperties": place},
        "directory": {
            "type": "object", "required": ["table"], "additionalProperties": false,
            "properties": {"table": {"type": "string"}},
        },
    });
    json!({"anyOf": [
        {"type": "string"},
        {
            "type": "object", "minProperties": 1, "maxProperties": 1,
            "properties": rules, "additionalProperties": false,
        },
    ]})
}
