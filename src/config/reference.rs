//! The text of `conf/reference.yaml`: every key with its default, its values and its meaning.

use super::keys::database::FALLBACK;
use super::keys::global::ROOT;
use super::keys::{Key, Kind, Section};
use super::value;

/// How wide a comment may be.
const WIDTH: usize = 100;
const HEAD: &str = "\
# Every key of pgherd's configuration with its default. Made from the program's table of keys.
# Where a key is marked \"example\" the value is one, and the default is to have none. Keys marked
# \"restart\" are not changed by a reload. Keys marked \"not yet\" are checked, and refused at start
# when they say something else than their default.
# Durations: 500ms 30s 15m 2h 1d, 0 for no limit. Sizes: 64kB 256MB 1GB, or bytes.
# In values, ${NAME} takes an environment variable and ${file:PATH} a file; $${ is the text itself.
# Paths are relative to the folder of this file.

";

/// The whole file. It is a valid configuration.
pub fn text() -> String {
    let mut lines = Vec::new();
    section(&mut lines, &ROOT, "", true);
    let mut text = HEAD.to_owned();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// The keys of a section, each after its comment.
fn section(lines: &mut Vec<String>, section: &Section, pad: &str, landed: bool) {
    for key in section.keys {
        comment(lines, key, pad, landed);
        let inner = format!("{pad}  ");
        let deeper = format!("{inner}  ");
        let landed = landed && key.landed;
        match key.kind {
            Kind::Section(of) if is_complete(of) => {
                lines.push(format!("{pad}{}:", key.name));
                self::section(lines, of, &inner, landed);
            }
            Kind::Section(of) => {
                lines.push(format!("{pad}{}: null", key.name));
                self::section(lines, of, &format!("{pad}#   "), landed);
            }
            Kind::List(of) if is_complete(of) => {
                lines.push(format!("{pad}{}:", key.name));
                lines.push(format!("{inner}-"));
                self::section(lines, of, &deeper, landed);
            }
            Kind::List(of) => {
                lines.push(format!("{pad}{}: []", key.name));
                lines.push(format!("{pad}# -"));
                self::section(lines, of, &format!("{pad}#   "), landed);
            }
            Kind::Map(of, _) => {
                let (name, more) = key
                    .example
                    .and_then(|text| text.split_once('\n'))
                    .unwrap_or_default();
                lines.push(format!("{pad}{}:", key.name));
                lines.push(format!("{inner}{name}:"));
                self::section(lines, of, &deeper, landed);
                lines.extend(more.lines().map(|line| format!("{inner}{line}")));
            }
            Kind::Databases(of) => {
                lines.push(format!("{pad}{}:", key.name));
                lines.push(format!("{inner}shop:"));
                self::section(lines, of, &deeper, landed);
                lines.push(format!("{inner}\"*\":"));
                self::section(lines, &FALLBACK, &deeper, landed);
            }
            Kind::Text
            | Kind::Secret
            | Kind::Url
            | Kind::Path
            | Kind::Bool
            | Kind::Count { .. }
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
            | Kind::Pins => {
                lines.push(format!(
                    "{pad}{}: {}",
                    key.name,
                    key.example.unwrap_or(key.default)
                ));
            }
        }
    }
}

/// Whether the section can stand in the file as it is: what it requires has examples.
fn is_complete(section: &Section) -> bool {
    section
        .keys
        .iter()
        .all(|key| !key.required || key.example.is_some())
}

/// What a key means and takes, wrapped.
fn comment(lines: &mut Vec<String>, key: &Key, pad: &str, landed: bool) {
    let mut marks = Vec::new();
    match key.kind {
        Kind::Word(words) => marks.push(words.join(" | ")),
        Kind::Count { min, max } | Kind::Auto { min, max } => marks.push(format!("{min} to {max}")),
        Kind::Size { min, max } => {
            marks.push(format!(
                "{} to {}",
                value::show_size(min),
                value::show_size(max)
            ));
        }
        Kind::Bool => marks.push("true | false".to_owned()),
        Kind::Text
        | Kind::Secret
        | Kind::Url
        | Kind::Path
        | Kind::Duration
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
        | Kind::Databases(_) => (),
    }
    let facts = [
        (key.required, "required"),
        (key.example.is_some() && !key.required, "example"),
        (!key.reloadable, "restart"),
        (landed && !key.landed, "not yet"),
    ];
    marks.extend(
        facts
            .into_iter()
            .filter(|(holds, _)| *holds)
            .map(|(_, mark)| mark.to_owned()),
    );
    let marks = marks.join("; ");
    let text = if marks.is_empty() {
        key.doc.to_owned()
    } else {
        format!("{} ({marks})", key.doc)
    };
    let mut line = format!("{pad}#");
    for word in text.split(' ') {
        if line.chars().count().saturating_add(word.chars().count()) >= WIDTH {
            lines.push(std::mem::replace(&mut line, format!("{pad}#")));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
}
