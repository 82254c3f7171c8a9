//! Replaces `${NAME}` by environment variables and `${file:PATH}` by files, in values only.
//!
//! It works on the tree, not on the text, so what comes in can never be taken for YAML. `$${` stands
//! for `${`. Messages never show what came in.

use std::path::Path;

use super::fault::{At, Faults};
use super::load::Sources;
use super::yaml::{Node, Value};

/// Replaces all references of a tree; files are relative to `folder`.
pub(super) fn expand(node: &mut Node, folder: &Path, sources: &Sources<'_>, faults: &Faults) {
    match &mut node.value {
        Value::Null => (),
        Value::Scalar(scalar) => {
            if scalar.text.contains("${") {
                match replace(&scalar.raw, node.at, folder, sources, faults) {
                    Some(text) => scalar.text = text,
                    // It has been told: as if left out, so that nothing is told of it twice.
                    None => node.value = Value::Null,
                }
            }
        }
        Value::List(items) => {
            for item in items {
                expand(item, folder, sources, faults);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                expand(&mut entry.value, folder, sources, faults);
            }
        }
    }
}

fn replace(
    raw: &str,
    at: At,
    folder: &Path,
    sources: &Sources<'_>,
    faults: &Faults,
) -> Option<String> {
    let mut text = String::new();
    let mut rest = raw;
    let mut complete = true;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            text.push_str(escaped);
            text.push_str("${");
            rest = after;
            continue;
        }
        text.push_str(before);
        let Some((reference, after)) = after.split_once('}') else {
            let hint = "Close it, or write `$${` for the two characters.";
            faults.error(at, "", "`${` without `}`", hint);
            return None;
        };
        match value_of(reference, folder, sources) {
            Ok(value) => text.push_str(&value),
            Err((message, hint)) => {
                faults.error(at, "", message, hint);
                complete = false;
            }
        }
        rest = after;
    }
    text.push_str(rest);
    complete.then_some(text)
}

fn value_of(
    reference: &str,
    folder: &Path,
    sources: &Sources<'_>,
) -> Result<String, (String, &'static str)> {
    if let Some(path) = reference.strip_prefix("file:") {
        let text = (sources.read)(&folder.join(path)).map_err(|error| {
            (
                format!("could not read \"{path}\": {error}"),
                "Paths are relative to the file that names them.",
            )
        })?;
        // A file written by hand or by a secret store ends in a line feed that is not part of it.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !is_name(reference) {
        let hint =
            "Write ${NAME} for a variable, ${file:PATH} for a file, or $${ for the characters.";
        return Err((format!("\"${{{reference}}}\" names no variable"), hint));
    }
    (sources.env)(reference).ok_or_else(|| {
        let hint = "Set it where pgherd is started, or write the value here.";
        (
            format!("the environment variable \"{reference}\" is not set"),
            hint,
        )
    })
}
