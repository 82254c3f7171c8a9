//! A text in, the plan of each of its statements out. Never fails: what cannot be planned is
//! planned as its refusal.

use std::rc::Rc;
use std::sync::Arc;

use crate::planner::cache::{self, Reason, Verdict};
use crate::planner::calls::{self, Made};
use crate::planner::context::Context;
use crate::planner::data;
use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::hint;
use crate::planner::literals::Literals;
use crate::planner::plan::{Access, Effect, Explained, Pace, Script};
use crate::planner::refuse;
use crate::planner::stored;
use crate::planner::tables;
use crate::planner::tenant;
use crate::planner::utility;
use crate::sql::Numbering;
use crate::sql::cursor::Cursor;
use crate::sql::hints::Hints;
use crate::sql::mask::Masked;
use crate::sql::parse::{self, Unread};
use crate::sql::scan::{self, Kind, Token, Unreadable};
use crate::sql::split::split;

/// One statement to plan.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub context: Context<'a>,
    pub cursor: Cursor<'a>,
    pub literals: Literals<'a>,
    /// Stands at the cursor's first token.
    pub numbering: Numbering,
}

impl<'a> Text<'a> {
    /// The part of the statement that begins at a later token of it.
    #[must_use]
    pub(super) fn from(&self, cursor: Cursor<'a>) -> Text<'a> {
        let skipped = self.cursor.tokens().len() - cursor.tokens().len();
        let mut text = self.clone();
        text.numbering
            .skip(self.cursor.tokens().get(..skipped).unwrap_or_default());
        text.cursor = cursor;
        text
    }

    /// The same, without its last tokens.
    #[must_use]
    pub(super) fn until(&self, tokens: &'a [Token]) -> Text<'a> {
        Text {
            cursor: Cursor::new(self.cursor.text(), tokens),
            ..self.clone()
        }
    }

    /// The statement's bytes.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.cursor
            .text()
            .get(self.cursor.rest())
            .unwrap_or_default()
    }
}

/// Plans a text of the simple protocol, or of a Parse.
pub fn script(text: &[u8], context: Context<'_>) -> Script {
    let mut masked = Masked::default();
    let scanned = masked
        .read(text, context.lexing)
        .and_then(|()| scan::scan(text, context.lexing));
    let tokens = match scanned {
        Ok(tokens) => tokens,
        Err(reason) => return unreadable(text, context, reason),
    };
    let pieces = split(&tokens, text);
    let hints = context.comment_hints.then(|| Hints::of(text)).flatten();
    let mut statements = Vec::with_capacity(pieces.len());
    let mut reusable = masked.is_shared() && pieces.len() == 1;
    let several = pieces.len() > 1;
    let mut made = Made::default();
    for piece in pieces {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
            continue;
        };
        let literals = masked.literals();
        let mut numbering = Numbering::default();
        let before = tokens.partition_point(|token| token.start < first.start);
        numbering.skip(tokens.get(..before).unwrap_or_default());
        let one = Text {
            context,
            cursor: Cursor::new(text, piece),
            literals: Literals {
                text,
                all: literals,
            },
            numbering,
        };
        let mut draft = plan_one(&one);
        if several && draft.effect == Effect::Ddl {
            made.note(context, one.cursor);
        } else if let Some(fault) = made.refusal(one.cursor) {
            draft = Draft::refused(draft.verb, fault);
        }
        if context.topology.caches() {
            judge_cache(&one, &mut draft, hints.as_ref());
        }
        if context.tenant {
            draft = tenant::admit(draft);
        }
        if !one.cursor.at("insert") && !one.cursor.at("update") && !one.cursor.at("delete") {
            // A write within another statement cannot be sent in parts.
            draft.keep_whole();
        }
        if let Some(hints) = &hints {
            hint::apply(&mut draft.access, hints, context);
            if let Effect::ExplainRoute { statement } = &mut draft.effect {
                hint::apply(&mut Arc::make_mut(statement).access, hints, context);
            }
            if let Effect::Explain(explained) = &mut draft.effect
                && let Explained::Statement(statement) = Arc::make_mut(explained)
            {
                hint::apply(&mut statement.access, hints, context);
            }
        }
        reusable &= !draft.exact;
        statements.push(draft.into_statement(first.start..last.end));
    }
    Script {
        statements,
        reusable,
        literals: masked.literals().into(),
        pace: Pace::default(),
        tally: Rc::default(),
    }
}

/// What the cache may do with a statement: reads are kept as they are, not what is made of one.
fn judge_cache(text: &Text<'_>, draft: &mut Draft, hints: Option<&Hints>) {
    let is_data = verb(text.cursor).is_some();
    let is_plain = is_data && draft.effect == Effect::None;
    let writes = matches!(draft.cache.as_deref(), Some(Verdict::Write(_)));
    if !writes && !is_plain {
        draft.cache = None;
    }
    let is_explained = draft.verb == "EXPLAIN" && !draft.writes;
    let explains = matches!(draft.effect, Effect::ExplainRoute { .. });
    if is_explained || explains {
        draft.cache = None;
    }
    let is_known = is_data || matches!(draft.effect, Effect::CopyIn { .. });
    if draft.cache.is_none() && !is_known && !explains {
        draft.cache = cache::of_utility(text.context, draft).map(Arc::new);
    }
    if draft.effect == Effect::Ddl {
        draft.cache = cache::of_utility(text.context, draft).map(Arc::new);
    }
    if hints.is_some_and(|hints| hints.cache.as_deref() == Some("off"))
        && let Some(Verdict::Read(reading)) = draft.cache.as_deref()
        && let Some(touched) = reading.tables.first()
    {
        let table = Arc::clone(&touched.table);
        draft.cache = Some(Arc::new(Verdict::Bypass(Reason::Hint, table)));
    }
}

/// Plans one statement.
pub(super) fn plan_one(text: &Text<'_>) -> Draft {
    match verb(text.cursor) {
        Some(verb) => data_statement(text, verb),
        None => utility::plan(text),
    }
}

/// The verb of a data statement.
fn verb(cursor: Cursor<'_>) -> Option<&'static str> {
    const VERBS: [(&str, &str); 7] = [
        ("select", "SELECT"),
        ("insert", "INSERT"),
        ("update", "UPDATE"),
        ("delete", "DELETE"),
        ("merge", "MERGE"),
        ("values", "SELECT"),
        ("table", "SELECT"),
    ];
    if cursor.kind() == Some(Kind::OpenParen) {
        return Some("SELECT");
    }
    if cursor.at("with") {
        return Some(verb_after_with(cursor));
    }
    VERBS
        .iter()
        .find(|(word, _)| cursor.at(word))
        .map(|(_, verb)| *verb)
}

/// The verb behind the WITH queries: the first one outside parentheses.
fn verb_after_with(mut cursor: Cursor<'_>) -> &'static str {
    while cursor.peek().is_some() {
        if cursor.skip_group() {
            continue;
        }
        for (word, verb) in [
            ("insert", "INSERT"),
            ("update", "UPDATE"),
            ("delete", "DELETE"),
        ] {
            if cursor.at(word) {
                return verb;
            }
        }
        cursor.advance();
    }
    "SELECT"
}

fn data_statement(text: &Text<'_>, verb: &'static str) -> Draft {
    match parse::parse(text.cursor.tokens(), text.cursor.text(), &text.numbering) {
        Ok(block) => {
            let decision = data::decide(text.context, &block, &text.literals, &text.cursor);
            Draft {
                verb,
                effect: decision.effect,
                access: decision.access,
                writes: decision.writes,
                repeatable: decision.repeatable,
                has_tables: decision.has_tables,
                no_block: false,
                block_only: decision.block_only,
                exact: decision.exact,
                confined: decision.confined,
                cache: decision.cache,
            }
        }
        Err(reason) => by_names(text, verb, &reason),
    }
}

/// A statement nobody parsed: home, if no name in it could mean a table that is elsewhere.
fn by_names(text: &Text<'_>, verb: &'static str, reason: &Unread) -> Draft {
    if text.context.tenant {
        return Draft::refused(verb, tenant::unread(&reason.to_string()));
    }
    let (effect, block_only) = effects::of_tokens(text.cursor);
    let home = match reason {
        // Each name would be looked up; a text of this size is not worth it.
        Unread::TooLarge => text.context.is_one_shard(),
        Unread::TooDeep | Unread::Syntax(_) | Unread::Unknown(_) => {
            text.context.is_one_shard() || is_home(text)
        }
    };
    let called = match reason {
        _ if !home || text.context.is_one_shard() => None,
        Unread::TooLarge => None,
        Unread::TooDeep | Unread::Syntax(_) | Unread::Unknown(_) => {
            let context = text.context;
            let code = stored::of_text(context.catalog, text.bytes(), context.lexing);
            calls::reach(context, "the statement", &code).err()
        }
    };
    let draft = if let Some(fault) = called {
        Draft::refused(verb, fault)
    } else if home {
        Draft::writing(verb, effect, Access::Home)
    } else {
        Draft::refused(verb, refuse::unread(reason))
    };
    let caches = text.context.topology.caches();
    let verdict = caches.then(|| cache::of_utility(text.context, &draft));
    Draft {
        block_only,
        exact: false,
        cache: verdict.flatten().map(Arc::new),
        ..draft
    }
}

/// Whether every table the statement could name is on the home shard.
pub(super) fn is_home(text: &Text<'_>) -> bool {
    use crate::config::Unlisted;
    match text.context.topology.unlisted() {
        Unlisted::Single => tables::spread(text.context, text.cursor).is_none(),
        Unlisted::Reference | Unlisted::Refuse => false,
    }
}

/// The plan of a text that the lexical rules do not settle.
fn unreadable(text: &[u8], context: Context<'_>, reason: Unreadable) -> Script {
    let draft = if context.tenant {
        Draft::refused("", tenant::unread(&reason.to_string()))
    } else if context.is_one_shard() {
        // What it does to the session is not known either.
        Draft::writing("", Effect::Pin(effects::OPAQUE), Access::Home)
    } else {
        Draft::refused("", refuse::unreadable(reason))
    };
    let caches = context.topology.caches();
    let cache = caches.then(|| cache::of_utility(context, &draft)).flatten();
    let draft = Draft {
        cache: cache.map(Arc::new),
        ..draft
    };
    Script {
        statements: vec![draft.into_statement(0..text.len())],
        reusable: false,
        literals: Box::default(),
        pace: Pace::default(),
        tally: Rc::default(),
    }
}
