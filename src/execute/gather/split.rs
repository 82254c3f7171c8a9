//! A gathered read that the shards work out in part: the twin says what types the parts have, takes them in a
//! temporary table, and combines them.
//!
//! It is done so only where PostgreSQL, asked on the twin, gives the combined answer the same columns as the
//! client's own statement: names, types and modifiers. Anything else is gathered row by row.

use std::collections::BTreeSet;

use crate::error::Fault;
use crate::planner::Context;
use crate::planner::gather::{Fragment, Place, is_alike};
use crate::planner::partial::{Asked, Partial, TABLE};
use crate::planner::plan::Effect;
use crate::server::settings::Detour;
use crate::sql::scan::scan;
use crate::wire::backend::{self, ResultColumn};
use crate::wire::frame::{self, HEADER};
use crate::wire::frontend::{self, Bind};

use super::plan::{Order, PLANNED, query_of};
use super::style::Style;
use crate::execute::insert::{parameters, parse, trimmed};
use crate::execute::member::Member;
use crate::execute::{Conversation, Source, Trouble, Wide};

/// A statement in two.
pub(super) struct Split {
    pub(super) fragment: Fragment,
    /// What the shards are sent, where that has values of the client's.
    pub(super) bound: Option<Bound>,
    /// What the twin runs.
    pub(super) order: Order,
    /// The same in words.
    pub(super) combined: String,
    /// The body of the RowDescription of the client's own statement; empty where the answer is another.
    pub(super) description: Vec<u8>,
}

/// What follows the names in Parse and in Bind.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) parse: Vec<u8>,
    pub(super) bind: Vec<u8>,
    pub(super) detour: Detour,
}

/// Takes the statement apart, and makes the table for its parts. `None` where that would not be right.
///
/// # Errors
/// The twin's, where they are not of the statement.
pub(super) async fn split<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    path: &[String],
    twin: &mut Member,
    style: &Style,
) -> Result<Option<Split>, Trouble> {
    if matches!(wide.effect, Effect::CopyOut { .. }) {
        return Ok(None);
    }
    let text = &*query_of(wide, wide.source.sql())?;
    let partial = client.plan_with(|context| {
        let context = Context {
            search_path: path,
            lexing: wide.lexing,
            ..context
        };
        Partial::of(context, text)
    });
    let Some(partial) = partial else {
        return Ok(None);
    };
    let mut values = Values::of(wide)?;
    let text = (text, style);
    match attempt(client, wide, &mut values, twin, text, &partial).await {
        Ok(Some(split)) => Ok(Some(split)),
        Ok(None) => {
            twin.push_hidden(PLANNED)?;
            Ok(None)
        }
        Err(Trouble::Server(error)) if is_of_statement(&error) => {
            twin.push_hidden(PLANNED)?;
            Ok(None)
        }
        Err(trouble) => Err(trouble),
    }
}

/// Whether an error is one of a text or of values: PostgreSQL tells the client's own.
fn is_of_statement(error: &[u8]) -> bool {
    let code = backend::error_fields(error.get(HEADER..).unwrap_or_default()).code();
    ["0A", "22", "42"]
        .iter()
        .any(|class| code.starts_with(class))
}

async fn attempt<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    values: &mut Values,
    twin: &mut Member,
    (text, style): (&[u8], &Style),
    partial: &Partial,
) -> Result<Option<Split>, Trouble> {
    let Ok(own) = std::str::from_utf8(text) else {
        return Ok(None);
    };
    let own = own.trim_end_matches([';', ' ', '\n', '\t', '\r']);
    let description = values.describe(client, wide, twin, own).await?;
    let Some(wanted) = backend::result_columns(&description) else {
        return Ok(None);
    };
    let Some(names) = names(&wanted).filter(|names| names.len() == partial.labels()) else {
        return Ok(None);
    };
    let Some((asked, types)) = typed(client, wide, values, twin, partial).await? else {
        return Ok(None);
    };
    let Some(combined) = partial.combined(&asked, &types, &names) else {
        return Ok(None);
    };
    let Asked { query, columns, .. } = asked;
    let make =
        format!("CREATE TEMP TABLE \"pgherd.partial\" ON COMMIT DROP AS {query} WITH NO DATA");
    values.run(client, wide, twin, &make).await?;
    let made = values.describe(client, wide, twin, &combined).await?;
    let is_same = backend::result_columns(&made).is_some_and(|made| made == wanted);
    let binary = types.iter().all(|kind| is_alike(*kind));
    let has_values = !used(wide, query.as_bytes()).is_empty();
    if !is_same || has_values && (!binary || style.is_narrow() || wide.verb == "EXPLAIN") {
        return Ok(None);
    }
    // Parts that go as text are worked out in the style that they are written in.
    if !binary && !style.is_plain() {
        return Ok(None);
    }
    let topology = client.topology();
    let Some(distribution) = topology.distribution(partial.distribution) else {
        return Ok(None);
    };
    let place = Place::Several(distribution.shards().clone());
    let bound = has_values
        .then(|| values.bound(client, wide, &query))
        .flatten();
    let explained = wide.source.sql();
    let prefix = explained.get(..explained.len().saturating_sub(text.len()));
    let whole = [prefix.unwrap_or_default(), combined.as_bytes()].concat();
    let is_explained = wide.verb == "EXPLAIN";
    Ok(Some(Split {
        fragment: Fragment {
            table: TABLE.to_owned(),
            place,
            target: format!("{TABLE} ({})", columns.join(", ")),
            bound: bound.is_some(),
            lookups: BTreeSet::new(),
            all: query.clone(),
            passing: Vec::new(),
            narrowed: 0,
            query,
            casts_otherwise: vec![true; columns.len()],
            columns,
            binary,
        },
        bound,
        order: values.order(wide, whole),
        combined,
        description: if is_explained {
            Vec::new()
        } else {
            description
        },
    }))
}

/// What the shards are asked, once the types of its columns are known.
async fn typed<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    values: &mut Values,
    twin: &mut Member,
    partial: &Partial,
) -> Result<Option<(Asked, Vec<u32>)>, Trouble> {
    let plain = partial.asked();
    let types = values.types(client, wide, twin, &plain).await?;
    let Some(asked) = partial.widened(&plain, &types) else {
        return Ok(None);
    };
    if asked == plain {
        return Ok(Some((asked, types)));
    }
    let types = values.types(client, wide, twin, &asked).await?;
    Ok(Some((asked, types)))
}

fn names(columns: &[ResultColumn]) -> Option<Vec<String>> {
    let name = |column: &ResultColumn| String::from_utf8(column.name.to_vec()).ok();
    columns.iter().map(name).collect()
}

/// What the client bound, and the types that the statement gives it.
struct Values {
    /// The body of the Bind.
    bind: Vec<u8>,
    types: Vec<u32>,
}

impl Values {
    fn of(wide: &Wide) -> Result<Values, Trouble> {
        let bind = match &wide.source {
            Source::Text(_) => b"\0\0\0\0\0\0\0\0".to_vec(),
            Source::Bind { after_names, .. } => [b"\0\0", after_names.as_slice()].concat(),
        };
        frontend::bind(&bind).map_err(Fault::from)?;
        Ok(Values {
            bind,
            types: Vec::new(),
        })
    }

    fn read(&self) -> Option<Bind<'_>> {
        frontend::bind(&self.bind).ok()
    }

    /// What follows the name in Parse, as the types are known so far.
    fn parse(&self, wide: &Wide, text: &[u8]) -> Vec<u8> {
        let declared = |index: u16| match &wide.source {
            Source::Bind { prepared, .. } => {
                let known = self.types.get(usize::from(index)).copied();
                known.unwrap_or_else(|| prepared.parameter_type(index))
            }
            Source::Text(_) => 0,
        };
        match self.read() {
            Some(bind) => parse(text, &bind, &used(wide, text), declared),
            None => Vec::new(),
        }
    }

    /// What follows the names in Bind, the columns in the formats of these codes.
    fn bind(&self, used: &[usize], codes: &[u8]) -> Vec<u8> {
        let Some(bind) = self.read() else {
            return Vec::new();
        };
        let own = bind.result_format_codes().len().saturating_add(2);
        let mut body = trimmed(&bind, used, 0);
        body.truncate(body.len().saturating_sub(own));
        let count = u16::try_from(codes.len() / 2).unwrap_or(u16::MAX);
        body.extend_from_slice(&count.to_be_bytes());
        body.extend_from_slice(codes);
        body
    }

    /// The body of the RowDescription of a query.
    async fn describe<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        twin: &mut Member,
        query: &str,
    ) -> Result<Vec<u8>, Trouble> {
        let mut found = Vec::new();
        let mut types = None;
        match &wide.source {
            Source::Text(_) => {
                let probe = format!("SELECT * FROM ({query}\n) AS \"pgherd.it\" LIMIT 0");
                twin.push_text(probe.as_bytes())?;
            }
            Source::Bind { prepared, .. } => {
                let detour = client.detour(prepared);
                let parse = if self.types.is_empty() {
                    // As the client sent it: a parameter that nothing tells the type of is an error.
                    [query.as_bytes(), b"\0", prepared.types_declared()].concat()
                } else {
                    self.parse(wide, query.as_bytes())
                };
                twin.push_own_describe(&parse, &detour)?;
            }
        }
        twin.hear(client, |_, heard| {
            match heard.tag {
                b'T' => found = heard.body.to_vec(),
                b't' => types = backend::parameter_types(heard.body),
                _ => (),
            }
            Ok(true)
        })
        .await?;
        if let Some(types) = types.filter(|_| self.types.is_empty()) {
            // What the client's own statement takes is what its parts are given.
            self.types = types.to_vec();
        }
        Ok(found)
    }

    /// The types of the columns that the shards are asked for.
    async fn types<C: Conversation>(
        &mut self,
        client: &mut C,
        wide: &Wide,
        twin: &mut Member,
        asked: &Asked,
    ) -> Result<Vec<u32>, Trouble> {
        let body = self.describe(client, wide, twin, &asked.query).await?;
        let columns = backend::result_columns(&body).unwrap_or_default();
        Ok(columns.iter().map(|column| column.kind).collect())
    }

    /// Runs a statement of our own.
    async fn run<C: Conversation>(
        &self,
        client: &mut C,
        wide: &Wide,
        twin: &mut Member,
        text: &str,
    ) -> Result<(), Trouble> {
        match &wide.source {
            Source::Text(_) => twin.push_text(text.as_bytes())?,
            Source::Bind { prepared, .. } => {
                let parse = self.parse(wide, text.as_bytes());
                let bind = self.bind(&used(wide, text.as_bytes()), &[]);
                let detour = client.detour(prepared);
                twin.push_own_statement(prepared, &parse, &bind, &detour, false)?;
            }
        }
        twin.hear(client, |_, _| Ok(true)).await
    }

    /// The query for the shards, its answer in binary.
    fn bound<C: Conversation>(&self, client: &C, wide: &Wide, query: &str) -> Option<Bound> {
        let Source::Bind { prepared, .. } = &wide.source else {
            return None;
        };
        let used = used(wide, query.as_bytes());
        Some(Bound {
            parse: self.parse(wide, query.as_bytes()),
            bind: self.bind(&used, &[0, 1]),
            detour: client.detour(prepared),
        })
    }

    /// What the twin is told to run.
    fn order(&self, wide: &Wide, text: Vec<u8>) -> Order {
        match (&wide.source, self.read()) {
            (Source::Bind { .. }, Some(bind)) => Order::Combined {
                parse: self.parse(wide, &text),
                bind: self.bind(&used(wide, &text), bind.result_format_codes()),
                text,
            },
            (Source::Text(_) | Source::Bind { .. }, _) => Order::Rewritten(text),
        }
    }
}

/// The parameters that a text mentions.
fn used(wide: &Wide, text: &[u8]) -> Vec<usize> {
    match (scan(text, wide.lexing), &wide.source) {
        (Ok(tokens), Source::Bind { .. }) => parameters(&tokens, text),
        (Ok(_) | Err(_), _) => Vec::new(),
    }
}

/// A RowDescription with the formats of `made`, whose columns are said to be those of the tables that `own` has.
pub(super) fn described(made: &[u8], own: &[u8]) -> Vec<u8> {
    let mut body = made.to_vec();
    let mut origins = own.get(2..).unwrap_or_default();
    let mut rest = body.get_mut(2..).unwrap_or_default();
    // The name, its end, its table (4) and column (2), and 12 bytes more.
    while let (Some(at), Some(from)) = (end_of_name(rest), end_of_name(origins)) {
        let (Some(here), Some(there)) = (
            rest.get_mut(at..at.saturating_add(6)),
            origins.get(from..from.saturating_add(6)),
        ) else {
            break;
        };
        here.copy_from_slice(there);
        rest = rest.get_mut(at.saturating_add(18)..).unwrap_or_default();
        origins = origins.get(from.saturating_add(18)..).unwrap_or_default();
    }
    let mut message = Vec::with_capacity(body.len().saturating_add(HEADER));
    frame::write(&mut message, b'T', &[&body]);
    message
}

fn end_of_name(description: &[u8]) -> Option<usize> {
    description
        .iter()
        .position(|byte| *byte == 0)?
        .checked_add(1)
}
