//! Which tables a text could mean, where nobody parsed it: every name in it.

use crate::placement::topology::{Kind, Topology};
use crate::planner::context::Context;
use crate::sql::cursor::Cursor;
use crate::sql::scan::Kind as Token;

/// A sharded or reference table, or an unlisted view, that a name among the tokens could mean.
pub(super) fn spread(context: Context<'_>, cursor: Cursor<'_>) -> Option<String> {
    let mut rest = cursor;
    while rest.peek().is_some() {
        // A name with Unicode escapes could be any.
        if rest.kind() == Some(Token::UnicodeName) {
            return Some("U&\"…\"".to_owned());
        }
        match rest.name() {
            Some(name) if is_spread(context, &name) => return Some(name),
            Some(_) => (),
            None => {
                rest.advance();
            }
        }
    }
    None
}

/// A table among the words of code that the configuration lists as sharded or reference, and that the
/// catalogs do not have: the code may be what makes it.
pub(super) fn mentions_absent(context: Context<'_>, text: &[u8]) -> Option<String> {
    text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_' && *byte < 0x80)
        .filter_map(|word| std::str::from_utf8(word).ok())
        .find(|word| {
            let folded = word.to_ascii_lowercase();
            [*word, folded.as_str()].into_iter().any(|name| {
                listed_as_spread(context.topology, name)
                    && context.catalog.schemas_of(name).next().is_none()
            })
        })
        .map(str::to_owned)
}

fn is_spread(context: Context<'_>, name: &str) -> bool {
    listed_as_spread(context.topology, name)
        || context.catalog.tables().any(|(schema, table, known)| {
            table == name
                && match context.rule(Some(schema), table, Some(known)) {
                    Some(rule) => rule.kind != Kind::Single,
                    None => known
                        .view
                        .as_ref()
                        .is_some_and(|view| !context.is_single(view)),
                }
        })
}

fn listed_as_spread(topology: &Topology, name: &str) -> bool {
    topology
        .tables()
        .filter(|rule| rule.name == name)
        .any(|rule| match rule.kind {
            Kind::Sharded { .. } | Kind::Reference => true,
            Kind::Single => false,
        })
}
