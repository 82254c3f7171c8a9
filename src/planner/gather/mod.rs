//! Whether a read of several shards may be finished on a twin: an empty copy of the schema, where the
//! client's own statement runs over rows fetched for it.
//!
//! Nothing is proven of the statement's clauses, since PostgreSQL runs them all. What must hold is that it
//! only reads, that every row it reads is a table's, and that nothing it calls looks elsewhere.

mod clock;
mod filter;
mod fragments;
mod reduce;

pub use clock::{Clock, clock};
pub use fragments::{Among, Fragment, InText, Place, fragments, is_alike};

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::Fault;
use crate::placement::catalog::View;
use crate::planner::calls;
use crate::planner::concat;
use crate::planner::data::is_into;
use crate::planner::partial;
use crate::planner::plan::Gather;
use crate::planner::refuse;
use crate::planner::survey::{Rows, Survey};
use crate::planner::unlike;
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::scan::{Kind, Lexing, Token, scan};
use crate::sql::statement::{Block, Features};

/// What is known of a read for a twin; `otherwise` is why it cannot run without one.
///
/// # Errors
/// What keeps it from running on a twin.
pub(super) fn check(
    survey: &Survey<'_>,
    block: &Block,
    cursor: Cursor<'_>,
    why: &str,
    otherwise: Fault,
) -> Result<Gather, Fault> {
    let table = concat::named(&survey.references);
    let has = |feature| block.inner.features.has(feature) || survey.inner_features.has(feature);
    if survey.references.iter().any(|reference| reference.written) || is_into(block) {
        return Err(otherwise);
    }
    if has(Features::LOCK) {
        return Err(refuse::locks(&table));
    }
    if let Some(reference) = survey
        .references
        .iter()
        .find(|reference| reference.place == Rows::System)
    {
        return Err(refuse::mixed(&table, &reference.name.to_string()));
    }
    let has_policies = |name| survey.context.table(name).is_some_and(|it| it.row_security);
    if let Some(reference) = survey
        .references
        .iter()
        .find(|reference| reference.viewed && has_policies(&reference.name))
    {
        return Err(refuse::policies_of_owner(&reference.name.to_string()));
    }
    if let Some(reference) = survey
        .references
        .iter()
        .find(|it| has_other_policies(survey, &it.name))
    {
        return Err(refuse::policies_of_parent(&reference.name.to_string()));
    }
    let called = calls::beyond_arguments(survey, cursor);
    if let Some(what) = &called.known {
        return Err(refuse::looks_elsewhere(what, &table));
    }
    let unlike = unlike::numbers(cursor).or_else(|| names_database(cursor));
    if let Some(what) = unlike.or_else(|| names_place(cursor)) {
        return Err(refuse::numbers(&what, &table));
    }
    Ok(Gather {
        words: words(survey, cursor).map(Arc::new),
        filters: !survey.renames && !may_collate(survey, cursor),
        clock_in_views: asks_clock_in_views(survey),
        partial: partial::check(survey, block, cursor).map(|_| survey.context.search_path.into()),
        unknown: called.unknown.into(),
        why: why.into(),
        otherwise: Arc::new(otherwise),
        table: table.into(),
        target: None,
    })
}

/// What is known of all of a table, for COPY TO.
pub(super) fn whole(table: &Name, otherwise: Fault) -> Gather {
    Gather {
        words: None,
        filters: false,
        clock_in_views: false,
        partial: None,
        unknown: Arc::from([]),
        why: "COPY as one file".into(),
        otherwise: Arc::new(otherwise),
        table: table.to_string().into(),
        target: None,
    }
}

/// Whether policies decide of rows of a table that has partitions or children: those of the table that is named count, and
/// the rows are asked of the tables that have them.
fn has_other_policies(survey: &Survey<'_>, name: &Name) -> bool {
    let Some((schema, table)) = survey.context.find(name) else {
        return false;
    };
    let heirs = survey.context.catalog.heirs((schema, &name.name));
    !heirs.is_empty() && (table.row_security || heirs.iter().any(|heir| heir.row_security))
}

/// A twin is another database.
fn names_database(cursor: Cursor<'_>) -> Option<String> {
    let mut words = cursor.tokens().iter();
    let is_named = words.any(|token| {
        let word = word_name(*token, cursor.text());
        word.is_some_and(|word| matches!(word.as_str(), "current_catalog" | "current_database"))
    });
    is_named.then(|| "the name of the database".to_owned())
}

/// A row lies elsewhere on a twin, and was written by another transaction.
fn names_place(cursor: Cursor<'_>) -> Option<String> {
    const COLUMNS: [&str; 5] = ["ctid", "xmin", "xmax", "cmin", "cmax"];
    let mut words = cursor.tokens().iter();
    let named = words.find_map(|token| {
        let word = word_name(*token, cursor.text())?;
        COLUMNS.contains(&word.as_str()).then_some(word)
    });
    named.map(|word| format!("system column \"{word}\""))
}

/// Whether a column may be compared under another collation than its own: EXPLAIN does not show it.
fn may_collate(survey: &Survey<'_>, cursor: Cursor<'_>) -> bool {
    let in_views = || {
        survey.views.iter().any(|(_, view)| {
            let text = view.definition.as_bytes();
            let tokens = scan(text, Lexing::default());
            tokens.map_or(true, |tokens| {
                Cursor::new(text, &tokens).mentions("collate")
            })
        })
    };
    cursor.mentions("collate") || calls::of_users(survey) || in_views()
}

/// Whether a view that it reads asks for the moment.
fn asks_clock_in_views(survey: &Survey<'_>) -> bool {
    survey.views.iter().any(|(_, view)| {
        let text = view.definition.as_bytes();
        scan(text, Lexing::default())
            .is_ok_and(|tokens| clock(Cursor::new(text, &tokens)) != Clock::Unasked)
    })
}

/// Every name that the statement and its views may mean a column by; `None` where they mean all columns of
/// a table without naming them.
fn words(survey: &Survey<'_>, cursor: Cursor<'_>) -> Option<BTreeSet<String>> {
    if survey.renames || calls::unfolds(survey, cursor) {
        return None;
    }
    let mut words = BTreeSet::new();
    if !add_words(cursor, &mut words) {
        return None;
    }
    let views = survey.views.iter().map(|(_, view)| *view);
    for View { definition, .. } in views {
        let text = definition.as_bytes();
        let tokens = scan(text, Lexing::default()).ok()?;
        if !add_words(Cursor::new(text, &tokens), &mut words) {
            return None;
        }
    }
    Some(words)
}

/// Returns whether the words are all that columns are meant by.
fn add_words(cursor: Cursor<'_>, words: &mut BTreeSet<String>) -> bool {
    let (text, tokens) = (cursor.text(), cursor.tokens());
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        if is_star(before, *token, tokens.get(at.saturating_add(1)), text) {
            return false;
        }
        if let Some(word) = word_name(*token, text) {
            if token.kind == Kind::Word && matches!(word.as_str(), "natural" | "table") {
                return false;
            }
            words.insert(word);
        }
    }
    true
}

/// Whether a token is the `*` of a target list, and no product.
fn is_star(before: Option<&Token>, token: Token, after: Option<&Token>, text: &[u8]) -> bool {
    if token.kind != Kind::Operator || token.of(text) != b"*" {
        return false;
    }
    let is = |token: Option<&Token>, kind| token.is_some_and(|token| token.kind == kind);
    if is(before, Kind::Dot) {
        return true;
    }
    if is(before, Kind::OpenParen) && is(after, Kind::CloseParen) {
        // count(*)
        return false;
    }
    let Some(after) = after else {
        return true;
    };
    match after.kind {
        Kind::Word => ENDS.contains(&word_name(*after, text).unwrap_or_default().as_str()),
        Kind::Comma | Kind::CloseParen | Kind::Semicolon | Kind::CloseBracket => true,
        Kind::Quoted
        | Kind::UnicodeName
        | Kind::Text
        | Kind::TextPieces
        | Kind::Escaped
        | Kind::UnicodeText
        | Kind::Bits
        | Kind::National
        | Kind::Dollar
        | Kind::Integer
        | Kind::Decimal
        | Kind::Parameter
        | Kind::Operator
        | Kind::OpenParen
        | Kind::OpenBracket
        | Kind::Dot
        | Kind::DotDot
        | Kind::Colon
        | Kind::DoubleColon
        | Kind::ColonEquals
        | Kind::Comment
        | Kind::Other => false,
    }
}

/// Words behind a target list, none of which begins an operand.
const ENDS: [&str; 14] = [
    "except",
    "fetch",
    "for",
    "from",
    "group",
    "having",
    "intersect",
    "into",
    "limit",
    "offset",
    "order",
    "union",
    "where",
    "window",
];
