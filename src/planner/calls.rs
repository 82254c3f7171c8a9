//! What the functions do that a statement calls, and the code that its tables run: where it may run, or
//! that it must not.
//!
//! A function of the users' runs on the shard of the statement, on the rows that are there. One that touches no
//! table may run anywhere, one that reads reference tables too; one that touches single tables, catalogs,
//! sequences or listeners belongs to the home shard; one that touches sharded tables would see a part
//! of their rows only.

use crate::config::Constraints;
use crate::error::Fault;
use crate::placement::catalog::Catalog;
use crate::placement::code::{Code, Volatility};
use crate::placement::topology::{Kind, Topology};
use crate::planner::context::{Context, Relation};
use crate::planner::functions;
use crate::planner::refuse;
use crate::planner::sources::Sources;
use crate::planner::stored;
use crate::planner::survey::Survey;
use crate::planner::unlike::is_text;
use crate::sql::cursor::{Cursor, Name, string_value, word_name};
use crate::sql::scan::{Kind as Token, Lexing};

/// Where the code may run that a statement calls.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// What is on the home shard only, as in `function "f"`.
    pub home: Option<String>,
    /// Whether it reads more than its arguments.
    pub reads: bool,
}

/// Where code may run: anywhere, or on the home shard only.
///
/// # Errors
/// The refusal of what no single shard can do right.
pub(super) fn reach(context: Context<'_>, what: &str, code: &Code) -> Result<Reach, Fault> {
    let mut reach = Reach::default();
    if code.is_apart() || !context.topology.has_spread() {
        return Ok(reach);
    }
    let code = &context.through_views(code);
    for ((schema, table), written) in &code.tables {
        let name = Name::within(schema, table);
        match context.relation(&name) {
            Relation::Sharded { .. } => return Err(refuse::reaches(what, "sharded table", table)),
            Relation::View(_) => return Err(refuse::reaches(what, "view", table)),
            Relation::Refused => return Err(refuse::unlisted(table)),
            Relation::Reference(_) if *written => return Err(refuse::copies_called(what, table)),
            Relation::Reference(_) => reach.reads = true,
            Relation::Single | Relation::System => reach.home = Some(what.to_owned()),
        }
    }
    if let Some(why) = &code.opaque {
        return Err(refuse::opaque(what, why));
    }
    if code.catalogs || code.notifies || code.sequences {
        reach.home = Some(what.to_owned());
    }
    reach.reads |= reach.home.is_some();
    Ok(reach)
}

/// Where what a statement calls may run.
///
/// # Errors
/// The first refusal.
pub(super) fn of_statement(survey: &Survey<'_>, cursor: Cursor<'_>) -> Result<Reach, Fault> {
    let context = survey.context;
    let mut all = Reach::default();
    if !context.topology.has_spread() {
        return Ok(all);
    }
    let mut add = |what: String, code: &Code| -> Result<(), Fault> {
        let one = reach(context, &what, code)?;
        all.reads |= one.reads;
        if all.home.is_none() {
            all.home = one.home;
        }
        Ok(())
    };
    for (name, view) in &survey.views {
        add(format!("view \"{name}\""), &view.code)?;
    }
    for call in &survey.calls {
        if let Some(code) = routine(context, &call.name) {
            add(named(&call.name), &code)?;
        } else if functions::runs_sql(&call.name.name) {
            let what = named(&call.name);
            return Err(refuse::opaque(
                &what,
                &format!("{what} runs SQL that it is given"),
            ));
        }
    }
    if !context.catalog.routines.is_empty() {
        for name in dotted(survey, cursor) {
            if let Some(code) = routine(context, &name) {
                add(named(&name), &code)?;
            }
        }
    }
    if !context.catalog.routines.is_plain() {
        for (what, code) in unnamed(survey, cursor) {
            add(what, code)?;
        }
    }
    Ok(all)
}

/// Why the function that a CREATE FUNCTION makes must not be called.
pub(super) fn of_definition(context: Context<'_>, cursor: Cursor<'_>) -> Option<Fault> {
    if !context.topology.has_spread() {
        return None;
    }
    let text = cursor.text();
    let refusal = |code: &Code| reach(context, "the new function", code).err();
    let mut strings = cursor.tokens().iter().filter(|token| is_text(token.kind));
    strings
        .find_map(|token| {
            let Some(body) = string_value(*token, text) else {
                let why = "its body is in a string that is not read here";
                return Some(refuse::opaque("the new function", why));
            };
            let body = body.as_bytes();
            refusal(&stored::of_text(context.catalog, body, Lexing::default()))
        })
        .or_else(|| {
            let whole = text.get(cursor.rest()).unwrap_or_default();
            refusal(&stored::of_text(context.catalog, whole, context.lexing))
        })
}

/// The functions that earlier statements of a text make, and that no snapshot knows yet.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<(String, Fault)>);

impl Made {
    /// Notes what a statement makes.
    pub(super) fn note(&mut self, context: Context<'_>, cursor: Cursor<'_>) {
        let mut ahead = cursor;
        if !ahead.take("create") {
            return;
        }
        ahead.take_words(&["or", "replace"]);
        if ahead.take_any(&["function", "procedure"]).is_some()
            && let Some(name) = ahead.qualified()
            && let Some(fault) = of_definition(context, cursor)
        {
            self.0.push((name.name, fault));
        }
    }

    /// Why a statement behind them must not run.
    pub(super) fn refusal(&self, cursor: Cursor<'_>) -> Option<Fault> {
        if self.0.is_empty() {
            return None;
        }
        cursor.tokens().iter().find_map(|token| {
            let word = word_name(*token, cursor.text())?;
            let made = self.0.iter().find(|(name, _)| *name == word);
            made.map(|(_, fault)| fault.clone())
        })
    }
}

/// Whether it calls functions of the users' own by their names.
pub(super) fn of_users(survey: &Survey<'_>) -> bool {
    let mut calls = survey.calls.iter();
    calls.any(|call| routine(survey.context, &call.name).is_some())
}

/// Whether PostgreSQL may write out code of the users' own in the statement's place, with columns of a whole
/// row that no word of the statement names: functions in SQL, also those behind operators and casts.
pub(super) fn unfolds(survey: &Survey<'_>, cursor: Cursor<'_>) -> bool {
    let context = survey.context;
    let routines = &context.catalog.routines;
    if routines.is_empty() {
        return false;
    }
    if of_users(survey) {
        return true;
    }
    let (text, tokens) = (cursor.text(), cursor.tokens());
    tokens.iter().enumerate().any(|(at, token)| {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let may_be_row = || {
            let further = at.checked_sub(2).and_then(|at| tokens.get(at));
            before.is_some_and(|before| {
                before.kind == Token::CloseParen || word_name(*before, text).is_some()
            }) && further.is_none_or(|further| further.kind != Token::Dot)
        };
        if token.kind == Token::Operator {
            return !OPERATORS.contains(&token.of(text));
        }
        if token.kind == Token::DoubleColon {
            return may_be_row();
        }
        word_name(*token, text).is_some_and(|word| {
            word == "cast"
                || before.is_some_and(|before| before.kind == Token::Dot)
                    && routines.has_function(&word)
        })
    })
}

/// Operators that nobody makes anew for rows of a table.
const OPERATORS: [&[u8]; 29] = [
    b"*", b"+", b"-", b"/", b"%", b"^", b"<", b">", b"=", b"<>", b"!=", b"<=", b">=", b"||", b"~",
    b"~*", b"!~", b"!~*", b"~~", b"->", b"->>", b"#>", b"#>>", b"@>", b"<@", b"&&", b"&", b"|",
    b"@@",
];

/// What a statement calls, as far as a twin must not run it, or may not.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// What may look at more than its arguments, the settings and the clock.
    pub(super) known: Option<String>,
    /// Names of functions that nothing is known of: if they exist, they are PostgreSQL's own.
    pub(super) unknown: Vec<String>,
}

/// What a statement calls besides what looks at its arguments, the settings and the clock alone.
pub(super) fn beyond_arguments(survey: &Survey<'_>, cursor: Cursor<'_>) -> Beyond {
    let context = survey.context;
    let mut beyond = Beyond::default();
    let of_names = survey.calls.iter().map(|call| call.name.clone());
    for name in of_names.chain(dotted(survey, cursor)) {
        if functions::is_table_free(&name) && routine(context, &name).is_none() {
            continue;
        }
        match routine(context, &name) {
            None if functions::is_read_only(&name) || functions::runs_sql(&name.name) => {
                beyond.known.get_or_insert_with(|| named(&name));
            }
            None => beyond.unknown.push(name.name),
            Some(code) => {
                let shared = context.catalog.routines.is_shared(&name.name);
                let is_free = code.is_apart() && !code.unlike;
                if !is_free || shared && !functions::is_table_free(&name) {
                    beyond.known.get_or_insert_with(|| named(&name));
                }
            }
        }
    }
    for (what, code) in unnamed(survey, cursor) {
        if !code.is_apart() || code.unlike {
            beyond.known.get_or_insert(what);
        }
    }
    beyond
}

fn named(name: &Name) -> String {
    format!("function \"{name}\"")
}

/// What a call may run that is not PostgreSQL's own.
pub(super) fn routine(context: Context<'_>, name: &Name) -> Option<Code> {
    let routines = &context.catalog.routines;
    if routines.is_empty() {
        return None;
    }
    routines.function(context.search_path, name.schema.as_deref(), &name.name)
}

/// Whether a call answers alike on every shard for the same arguments, row by row.
pub(super) fn is_plain(context: Context<'_>, name: &Name) -> bool {
    let listed = functions::is_plain(name) || functions::is_plain_set(name);
    is_so(context, name, listed, |code| {
        code.volatility != Volatility::Volatile && !code.unlike && !code.gathers
    })
}

/// Whether a call is free of side effects.
pub(super) fn is_read_only(context: Context<'_>, name: &Name) -> bool {
    let listed = functions::is_read_only(name);
    is_so(context, name, listed, |code| {
        // What is declared stable may still call what is not, and that is not known of every built-in.
        code.volatility != Volatility::Volatile
            && !code.unlike
            && !code.notifies
            && !code.sequences
            && code.opaque.is_none()
    })
}

/// Whether any server answers a call alike, with no table in sight.
pub(super) fn is_harmless(context: Context<'_>, name: &Name) -> bool {
    functions::is_harmless(name) && routine(context, name).is_none()
}

/// Whether what is `listed` of a built-in function, and `holds` of one of the users', is so of a name:
/// which of them is meant only the server knows.
fn is_so(context: Context<'_>, name: &Name, listed: bool, holds: impl Fn(&Code) -> bool) -> bool {
    match routine(context, name) {
        None => listed,
        Some(code) => {
            let shared = context.catalog.routines.is_shared(&name.name);
            holds(&code) && (listed || !shared)
        }
    }
}

/// Names behind a dot that may call a function on what is before it: `t.f` is `f(t)` where `f` is no
/// column of `t`.
fn dotted(survey: &Survey<'_>, cursor: Cursor<'_>) -> Vec<Name> {
    let context = survey.context;
    let text = cursor.text();
    let mut names = Vec::new();
    for pair in cursor.tokens().windows(2) {
        let [dot, token] = *pair else {
            continue;
        };
        let Some(name) = (dot.kind == Token::Dot)
            .then(|| word_name(token, text))
            .flatten()
            .filter(|name| context.catalog.routines.has_function(name))
        else {
            continue;
        };
        let is_known = survey.references.iter().any(|reference| {
            let table = context.table(&reference.name);
            let mut columns = table.into_iter().flat_map(|table| &table.columns);
            reference.name.name == name || columns.any(|column| column.name == name)
        });
        if !is_known {
            names.push(Name { schema: None, name });
        }
    }
    names
}

/// A name behind a dot that may call what is not worked out row by row: `t.count` is `count(t)` where `count` is
/// no column of `t`.
pub(super) fn strange_by_dot(
    context: Context<'_>,
    sources: &Sources<'_>,
    cursor: &Cursor<'_>,
) -> Option<Name> {
    let (tokens, text) = (cursor.tokens(), cursor.text());
    tokens.windows(3).enumerate().find_map(|(at, three)| {
        let [table, dot, token] = *three else {
            return None;
        };
        let name = (dot.kind == Token::Dot).then(|| word_name(token, text))??;
        let next = tokens.get(at.saturating_add(3));
        if next.is_some_and(|next| next.kind == Token::OpenParen) {
            return None;
        }
        let name = Name { schema: None, name };
        let is_strange = functions::is_grouping(&name)
            || routine(context, &name).is_some() && !is_plain(context, &name);
        let alias = word_name(table, text);
        let is_column = || {
            let mut tables = sources.tables.iter();
            tables.any(|(own, table)| {
                let mut columns = table.columns.iter();
                alias.as_ref() == Some(own) && columns.any(|column| column.name == name.name)
            })
        };
        (is_strange && !is_column()).then_some(name)
    })
}

/// Names behind a dot that call a function of the users'.
pub(super) fn dotted_calls(survey: &Survey<'_>, cursor: Cursor<'_>) -> Vec<Name> {
    if survey.context.catalog.routines.is_empty() {
        return Vec::new();
    }
    let mut names = dotted(survey, cursor);
    names.retain(|name| routine(survey.context, name).is_some());
    names
}

/// Operators, casts and domains that a statement may use, where they touch more than their operands.
pub(super) fn unnamed<'a>(survey: &Survey<'a>, cursor: Cursor<'_>) -> Vec<(String, &'a Code)> {
    let routines = &survey.context.catalog.routines;
    let text = cursor.text();
    let mut found = Vec::new();
    for token in cursor.tokens() {
        if token.kind == Token::Operator
            && let Ok(symbol) = std::str::from_utf8(token.of(text))
            && let Some(code) = routines.operator(symbol)
        {
            found.push((format!("operator {symbol}"), code));
        }
    }
    let tables = survey.references.iter();
    let oids: Vec<u32> = tables
        .filter_map(|reference| survey.context.table(&reference.name))
        .flat_map(|table| &table.columns)
        .map(|column| column.oid)
        .collect();
    for cast in routines.casts() {
        let mut tokens = cursor.tokens().iter();
        let said =
            tokens.any(|token| word_name(*token, text).is_some_and(|word| cast.is_said(&word)));
        let implied = cast.implicit && cast.oids.iter().any(|oid| oids.contains(oid));
        if said || implied {
            let [from, to] = &cast.types;
            found.push((format!("the cast of {from} to {to}"), &cast.code));
        }
    }
    found
}

/// Why what a table runs by itself when it is read or written must not run; `None` where it may.
pub(super) fn astray(context: Context<'_>, name: &Name, written: bool) -> Option<Fault> {
    let table = context.table(name)?;
    if table.reads.is_none() && table.writes.is_none()
        || context.topology.constraints() == Constraints::Allow
        || !context.topology.has_spread()
    {
        return None;
    }
    let kind = context.kind(name)?;
    let runs = table.writes.as_deref().filter(|_| written);
    let mut codes = table.reads.as_deref().into_iter().chain(runs);
    let why = codes.find_map(|code| misfit(context, kind, code))?;
    Some(refuse::astray(&name.to_string(), &why))
}

/// Why code must not run beside the rows of a table: what it touches is not where they are.
pub(super) fn misfit(context: Context<'_>, kind: &Kind, code: &Code) -> Option<String> {
    let code = &context.through_views(code);
    for ((schema, table), written) in &code.tables {
        let name = Name::within(schema, table);
        let other = match context.relation(&name) {
            Relation::System => continue,
            Relation::View(_) => {
                return Some(format!(
                    "it may read view \"{table}\", whose rows cannot be placed"
                ));
            }
            Relation::Refused => {
                return Some(format!(
                    "it may touch table \"{table}\", which is not listed"
                ));
            }
            Relation::Sharded { ids, .. } if *written && !ids.uniques.is_empty() => {
                return Some(format!(
                    "it may write table \"{table}\", which has a column that is kept unique over the shards"
                ));
            }
            Relation::Sharded { ids, .. } if *written && !ids.lookups.is_empty() => {
                return Some(format!(
                    "it may write table \"{table}\", whose rows are entered in a lookup table first"
                ));
            }
            Relation::Sharded { distribution, .. } => Some(distribution),
            Relation::Reference(_) if !written => continue,
            Relation::Reference(_) => match kind {
                Kind::Reference => continue,
                Kind::Sharded { .. } | Kind::Single => {
                    return Some(format!(
                        "it may write reference table \"{table}\", whose copies would differ"
                    ));
                }
            },
            Relation::Single => None,
        };
        let beside = match (kind, other) {
            (Kind::Sharded { distribution, .. }, Some(other)) => *distribution == other,
            (Kind::Single, None) => true,
            (Kind::Reference | Kind::Single, Some(_))
            | (Kind::Sharded { .. } | Kind::Reference, None) => false,
        };
        if !beside {
            let other = if other.is_some() { "sharded" } else { "single" };
            return Some(format!(
                "it may touch {other} table \"{table}\", whose rows are elsewhere"
            ));
        }
    }
    if let Some(why) = &code.opaque {
        return Some(format!("{why}, so that it may touch any table"));
    }
    match kind {
        Kind::Sharded { .. } if code.notifies => Some(
            "it notifies on the shard of the row, and listeners hear the home shard only"
                .to_owned(),
        ),
        Kind::Reference if code.unlike => {
            Some("it may work out something else on each shard".to_owned())
        }
        Kind::Sharded { .. } | Kind::Reference | Kind::Single => None,
    }
}

/// Each table whose own code touches what is not where its rows are, and why: (schema, table, why).
pub fn misfits(topology: &Topology, catalog: &Catalog) -> Vec<(String, String, String)> {
    let context = Context {
        topology,
        catalog,
        search_path: &[],
        lexing: Lexing::default(),
        comment_hints: false,
        tenant: false,
    };
    if !topology.has_spread() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (schema, name, table) in catalog.tables() {
        let whole = Name::within(schema, name);
        let Some(kind) = context.kind(&whole) else {
            continue;
        };
        let mut codes = [&table.reads, &table.writes].into_iter().flatten();
        if let Some(why) = codes.find_map(|code| misfit(context, kind, code)) {
            found.push((schema.to_owned(), name.to_owned(), why));
        }
    }
    found
}
