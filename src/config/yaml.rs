//! YAML text to a tree of nodes that know their line.
//!
//! Scalars stay text: what a value means is decided by the key it belongs to, so that a password
//! `007` stays what it is. Duplicate keys, tags, several documents and keys that are not plain text
//! are faults. JSON is YAML. *Invariant:* depth and weight of the tree are bounded, aliases included.

use std::borrow::Cow;
use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

use super::fault::{At, Faults};

/// How deep a file may nest.
const DEPTH_MAX: usize = 64;
/// How many bytes the tree may weigh once its aliases are followed.
const WEIGHT_MAX: usize = 64 << 20;
/// What a node weighs besides its text.
const NODE_WEIGHT: usize = 64;

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Text, before and after `${…}` was replaced.
#[derive(Clone, Debug)]
pub(super) struct Scalar {
    /// As the file has it: what messages may show.
    pub raw: String,
    /// What it stands for.
    pub text: String,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub at: At,
    pub value: Node,
}

/// Reads one document; `None` when its syntax is broken, which is then among the faults.
pub(super) fn parse(text: &str, file: usize, faults: &Faults) -> Option<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder {
        file,
        faults,
        open: Vec::new(),
        anchors: BTreeMap::new(),
        weight: 0,
        root: None,
    };
    let mut parser = Parser::new_from_str(text);
    builder.run(&mut parser)?;
    Some(builder.root.unwrap_or(Node {
        at: At { file, line: 1 },
        value: Value::Null,
    }))
}

/// A collection that has not ended.
struct Open {
    node: Node,
    anchor: usize,
    /// Of a mapping: the key that waits for its value; `None` inside when the key was unusable.
    key: Option<(Option<String>, At)>,
    /// Of a mapping: the lines of its keys.
    seen: BTreeMap<String, usize>,
}

/// A node that aliases may name, what a copy of it weighs, and how deep it is.
struct Anchored {
    node: Node,
    weight: usize,
    depth: usize,
}

struct Builder<'f> {
    file: usize,
    faults: &'f Faults,
    open: Vec<Open>,
    anchors: BTreeMap<usize, Anchored>,
    weight: usize,
    root: Option<Node>,
}

impl Builder<'_> {
    fn run(&mut self, parser: &mut Parser<'_, StrInput<'_>>) -> Option<()> {
        let mut documents = 0_usize;
        while let Some(next) = parser.next_event() {
            let (event, span) = match next {
                Ok(next) => next,
                Err(error) => {
                    let at = At {
                        file: self.file,
                        line: error.marker().line().max(1),
                    };
                    let hint =
                        "Check indentation, quotes and brackets on this line and the one above.";
                    self.faults
                        .error(at, "", format!("not valid YAML: {}", error.info()), hint);
                    return None;
                }
            };
            let at = At {
                file: self.file,
                line: span.start.line().max(1),
            };
            match event {
                Event::DocumentStart(_) => {
                    documents = documents.saturating_add(1);
                    if documents > 1 {
                        let hint = "Leave one document: remove what follows the second `---`.";
                        self.faults
                            .error(at, "", "more than one YAML document", hint);
                        return None;
                    }
                }
                Event::Alias(anchor) => self.alias(at, anchor)?,
                Event::Scalar(text, style, anchor, tag) => {
                    self.refuse_tag(at, tag.is_some());
                    let node = Node {
                        at,
                        value: scalar(text, style),
                    };
                    self.add(node, anchor)?;
                }
                Event::SequenceStart(anchor, tag) => {
                    self.refuse_tag(at, tag.is_some());
                    self.start(
                        Node {
                            at,
                            value: Value::List(Vec::new()),
                        },
                        anchor,
                    )?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.refuse_tag(at, tag.is_some());
                    self.start(
                        Node {
                            at,
                            value: Value::Map(Vec::new()),
                        },
                        anchor,
                    )?;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(done) = self.open.pop() {
                        self.add(done.node, done.anchor)?;
                    }
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => (),
            }
        }
        Some(())
    }

    fn refuse_tag(&self, at: At, tagged: bool) {
        if tagged {
            self.faults.error(
                at,
                "",
                "a YAML tag has no meaning here",
                "Remove the word that starts with `!`.",
            );
        }
    }

    fn start(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.check_depth(node.at, 1)?;
        self.open.push(Open {
            node,
            anchor,
            key: None,
            seen: BTreeMap::new(),
        });
        Some(())
    }

    fn check_depth(&self, at: At, more: usize) -> Option<()> {
        if self.open.len().saturating_add(more) > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            self.faults.error(at, "", message, "Write it flatter.");
            return None;
        }
        Some(())
    }

    fn alias(&mut self, at: At, anchor: usize) -> Option<()> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            self.faults.error(
                at,
                "",
                "the alias names no anchor before it",
                "Define it with `&name` first.",
            );
            return None;
        };
        let (weight, depth) = (anchored.weight, anchored.depth);
        self.check_depth(at, depth)?;
        self.weigh(at, weight)?;
        if let Some(anchored) = self.anchors.get(&anchor) {
            let node = Node {
                at,
                ..anchored.node.clone()
            };
            self.place(node);
        }
        Some(())
    }

    fn weigh(&mut self, at: At, weight: usize) -> Option<()> {
        self.weight = self.weight.saturating_add(weight);
        if self.weight > WEIGHT_MAX {
            let message = format!("larger than {WEIGHT_MAX} bytes with its aliases");
            self.faults
                .error(at, "", message, "Use fewer aliases, or a smaller file.");
            return None;
        }
        Some(())
    }

    /// A complete node: weighs it, remembers its anchor, and hands it to what is open.
    fn add(&mut self, node: Node, anchor: usize) -> Option<()> {
        self.weigh(node.at, own_weight(&node))?;
        if anchor != 0 {
            let (weight, depth) = measure(&node);
            self.weigh(node.at, weight)?;
            self.anchors.insert(
                anchor,
                Anchored {
                    node: node.clone(),
                    weight,
                    depth,
                },
            );
        }
        self.place(node);
        Some(())
    }

    fn place(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match open.key.take() {
                None => open.key = Some(key_of(node, self.faults)),
                Some((None, _)) => (),
                Some((Some(key), at)) => {
                    if let Some(first) = open.seen.get(&key) {
                        let message = format!("key \"{key}\" is given twice");
                        let hint = format!("It is already on line {first}: remove one of the two.");
                        self.faults.error(at, "", message, hint);
                    } else {
                        open.seen.insert(key.clone(), at.line);
                        entries.push(Entry {
                            key,
                            at,
                            value: node,
                        });
                    }
                }
            },
            Value::Null | Value::Scalar(_) => (),
        }
    }
}

fn key_of(node: Node, faults: &Faults) -> (Option<String>, At) {
    let at = node.at;
    match node.value {
        Value::Scalar(scalar) => (Some(scalar.text), at),
        Value::Null => (Some("null".to_owned()), at),
        Value::List(_) | Value::Map(_) => {
            faults.error(
                at,
                "",
                "a key must be text",
                "Put the key on one line, without brackets.",
            );
            (None, at)
        }
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value {
    let plain = matches!(style, ScalarStyle::Plain);
    if plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    let text = text.into_owned();
    Value::Scalar(Scalar {
        raw: text.clone(),
        text,
    })
}

fn own_weight(node: &Node) -> usize {
    let text = match &node.value {
        Value::Scalar(scalar) => scalar.text.len().saturating_mul(2),
        Value::Map(entries) => entries.iter().map(|entry| entry.key.len()).sum(),
        Value::Null | Value::List(_) => 0,
    };
    NODE_WEIGHT.saturating_add(text)
}

/// The weight and the depth of a node; its recursion is bounded by [`DEPTH_MAX`].
fn measure(node: &Node) -> (usize, usize) {
    let add = |(weight, depth): (usize, usize), inner: &Node| {
        let (more, deeper) = measure(inner);
        (more.saturating_add(weight), depth.max(deeper))
    };
    let (weight, depth) = match &node.value {
        Value::Null | Value::Scalar(_) => return (own_weight(node), 0),
        Value::List(items) => items.iter().fold((0, 0), add),
        Value::Map(entries) => entries.iter().map(|entry| &entry.value).fold((0, 0), add),
    };
    (
        own_weight(node).saturating_add(weight),
        depth.saturating_add(1),
    )
}
