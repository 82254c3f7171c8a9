//! Ids for new rows: an INSERT that leaves them out is carried out as another that has them.
//!
//! A simple query becomes the same text with the ids in it. A Parse becomes that of a text with parameters
//! of its own behind the client's, and each Bind brings the ids for them. What results is planned and
//! placed as if the client had sent it.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Fault, SqlState};
use crate::execute::Interrupted;
use crate::placement::id_of_bucket;
use crate::planner::plan::{
    Access, Argument, Effect, Generate, Script, Statement, Stream, TextValues, Values,
};
use crate::planner::{self, refuse};
use crate::server::statements::{Fills, Prepared};
use crate::sql::cursor::Cursor;
use crate::sql::mask::{self, Masked};
use crate::sql::quote::quote_ident;
use crate::sql::scan::{Kind, Lexing, scan};
use crate::sql::split::split;
use crate::types::oid;
use crate::wire::frame::{self, Split};
use crate::wire::frontend::{self, Bind};

use super::extended::BindValues;
use super::ids::{Taken, fetch, fetch_ahead};
use super::simple::advances;
use super::{Session, Stop};

/// Numbers, by what they are for.
pub(crate) type Numbered = Vec<(Arc<Stream>, Vec<i64>)>;

/// The ids that a session was given last, as far as `lastval` and `currval` ask.
#[derive(Debug, Default)]
pub(crate) struct LastIds {
    last: Last,
    by_table: Vec<(Arc<Stream>, Last)>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Last {
    /// None was given: servers know.
    #[default]
    Unset,
    Known(i64),
    /// What ran since may have called `nextval`.
    Unclear,
}

/// An answer to `lastval` or `currval`.
#[derive(Debug)]
pub(crate) struct KnownId {
    value: i64,
    column: String,
}

/// Whether a statement is an INSERT of rows that are to be given ids.
pub(crate) fn is_given_ids(statement: &Statement) -> bool {
    matches!(statement.access, Access::Generate(_))
}

/// Whether names mean behind a statement what they meant before.
fn keeps_names(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::None
            | Effect::Begin
            | Effect::Commit { .. }
            | Effect::Rollback { .. }
            | Effect::Savepoint(_)
            | Effect::RollbackTo(_)
            | Effect::Release(_)
    )
}

impl Session {
    /// Runs a Query with INSERTs whose rows are to be given ids.
    pub(crate) fn query_with_ids(
        &mut self,
        text: &[u8],
        script: &Rc<Script>,
        literals: &[mask::Literal],
    ) -> Result<(), Stop> {
        let statements = script.statements.as_slice();
        if let Some(first) = statements.first() {
            self.check_failed(first)?;
        }
        if statements.len() > 1 && !statements.iter().all(|it| keeps_names(&it.effect)) {
            return Err(Stop::Fault(refuse::ids_within()));
        }
        let values = TextValues {
            text,
            literals,
            is_utf8: self.is_utf8(),
        };
        let mut given = Numbered::new();
        let lexing = self.facts().lexing;
        let filled = match self.filled_text(text, statements, lexing, &values, &mut given) {
            Ok(filled) => filled,
            Err(stop) => return self.settle_numbers(Err(stop), given, &[]),
        };
        let last = last_of(&filled.ids);
        let mut bytes = Vec::new();
        frame::write(&mut bytes, b'Q', &[&filled.text, b"\0"]);
        let Ok(Split::Whole(frame, _)) = frame::split(&bytes, u32::MAX) else {
            return Err(Stop::Fault(unfilled()));
        };
        let mut masked = Masked::default();
        let script = self.plan_simple(&filled.text, &mut masked);
        if script.statements.iter().any(is_given_ids) {
            return Err(Stop::Fault(unfilled()));
        }
        let result = self.run_query(frame, &filled.text, &script, masked.literals());
        // The same ids are given when it is looked at again.
        let result = self.asked(result);
        self.settle_numbers(result, given, &last)
    }

    /// The text with ids in it.
    fn filled_text(
        &mut self,
        text: &[u8],
        statements: &[Statement],
        lexing: Lexing,
        values: &dyn Values,
        given: &mut Numbered,
    ) -> Result<Filled, Stop> {
        let tokens = scan(text, lexing).map_err(|_unreadable| unfilled())?;
        let mut filled = Filled::default();
        let mut done = 0;
        // Spans within a plan that is kept are those of another text.
        for (statement, own) in statements.iter().zip(split(&tokens, text)) {
            let Access::Generate(generate) = &statement.access else {
                continue;
            };
            let ids = self.new_ids(generate, values, given)?;
            let span = Cursor::new(text, own).rest();
            let mut next = ids.iter();
            let written = generate.fill.write(own, text, |_, out| {
                let id = next.next().copied().unwrap_or_default();
                out.extend_from_slice(id.to_string().as_bytes());
            });
            let before = text.get(done..span.start).unwrap_or_default();
            filled.text.extend_from_slice(before);
            filled.text.extend(written.ok_or_else(unfilled)?);
            done = span.end;
            filled.ids.push((Arc::clone(&generate.stream), ids));
        }
        filled
            .text
            .extend_from_slice(text.get(done..).unwrap_or_default());
        Ok(filled)
    }

    /// Ids for the rows of an INSERT; the numbers they are made of are noted in `given`.
    fn new_ids(
        &mut self,
        generate: &Generate,
        values: &dyn Values,
        given: &mut Numbered,
    ) -> Result<Vec<i64>, Stop> {
        let topology = Arc::clone(&self.database.topology);
        let buckets = planner::buckets(generate, &topology, values)?;
        let numbers = self.take_numbers(&generate.stream, generate.fill.rows.len())?;
        let ids: Option<Vec<i64>> = if generate.stream.carries {
            let pairs = numbers.iter().zip(&buckets);
            pairs
                .map(|(number, bucket)| id_of_bucket(*number, *bucket))
                .collect()
        } else {
            Some(numbers.clone())
        };
        given.push((Arc::clone(&generate.stream), numbers));
        ids.ok_or_else(|| Stop::Fault(used_up(&generate.table)))
    }

    /// Numbers for so many rows, or the need for them.
    fn take_numbers(&mut self, stream: &Arc<Stream>, count: usize) -> Result<Vec<i64>, Stop> {
        let spare = self.spare_numbers.iter().position(|(of, _)| of == stream);
        let mut numbers = match spare {
            // In the order that they were given in: the same rows have the same again.
            Some(spare) => self.spare_numbers.remove(spare).1,
            None => Vec::with_capacity(count),
        };
        numbers.truncate(count);
        let missing = count.saturating_sub(numbers.len());
        if missing == 0 {
            return Ok(numbers);
        }
        match self
            .database
            .shared
            .ids
            .of(stream)
            .take(missing, &mut numbers)
        {
            Taken::All => {}
            Taken::LastOnes => {
                let shared = Arc::clone(&self.engine.shared);
                let runtime = shared.control_runtime.clone();
                let name = self.database.name.clone();
                drop(runtime.spawn(fetch_ahead(shared, name, Arc::clone(stream))));
            }
            Taken::None => {
                self.spare_numbers.push((Arc::clone(stream), numbers));
                return Err(Stop::Ids(Arc::clone(stream), missing));
            }
        }
        Ok(numbers)
    }

    /// Waits until there are numbers.
    ///
    /// # Cancel safety
    /// Safe: they are fetched all the same.
    pub(crate) async fn fetch_numbers(
        &mut self,
        stream: Arc<Stream>,
        count: usize,
    ) -> Result<(), Interrupted> {
        let shared = Arc::clone(&self.engine.shared);
        let runtime = shared.control_runtime.clone();
        let limit = self.database.limits.server_connect_timeout;
        let name = self.database.name.clone();
        let table = stream.table.clone();
        let task = runtime.spawn(fetch(shared, name, stream, count));
        let fetched = tokio::time::timeout(limit, task);
        self.watched(async {
            match fetched.await {
                Ok(Ok(result)) => result,
                Ok(Err(error)) => {
                    tracing::error!(%error, "fetching numbers for ids failed");
                    Err(late(&table))
                }
                Err(_elapsed) => Err(late(&table)),
            }
        })
        .await
    }

    /// What becomes of numbers and ids that a statement took: one that is looked at again finds the
    /// numbers, otherwise they are used, whatever came of it.
    fn settle_numbers(
        &mut self,
        result: Result<(), Stop>,
        given: Numbered,
        last: &[(Arc<Stream>, i64)],
    ) -> Result<(), Stop> {
        match &result {
            Ok(()) | Err(Stop::Fault(_) | Stop::Task(_) | Stop::Close) => {
                for (stream, id) in last {
                    self.last_ids.given(stream, *id);
                }
            }
            Err(
                Stop::Lease(_)
                | Stop::Settings(_)
                | Stop::Idle
                | Stop::Drain
                | Stop::Move(_)
                | Stop::EndGroup
                | Stop::LookAtRows
                | Stop::Imply
                | Stop::Modes
                | Stop::Snapshots(_)
                | Stop::TwoPhase
                | Stop::Series
                | Stop::Refusal(_)
                | Stop::Listen(_)
                | Stop::Names
                | Stop::Ask
                | Stop::Ids(..)
                | Stop::Types
                | Stop::Follow(_)
                | Stop::Look(_)
                | Stop::Mark(_)
                | Stop::EndWrite,
            ) => self.spare_numbers.extend(given),
        }
        result
    }

    /// The statement that the servers are given for one that leaves ids out.
    pub(crate) fn with_ids(&mut self, prepared: Rc<Prepared>) -> Rc<Prepared> {
        let [statement] = prepared.script.statements.as_slice() else {
            return prepared;
        };
        let Access::Generate(generate) = &statement.access else {
            return prepared;
        };
        if let Some(filled) = prepared.filled.get() {
            return Rc::clone(filled);
        }
        let Some((body, fills)) = filled_body(&prepared, statement, generate) else {
            return prepared;
        };
        let filled = Rc::new(self.plan_filled(&prepared, &body, fills));
        if filled.script.statements.iter().any(is_given_ids) {
            return prepared;
        }
        Rc::clone(prepared.filled.get_or_init(|| filled))
    }

    /// Handles a Bind of a statement whose ids are parameters behind the client's.
    pub(crate) fn bind_with_ids(
        &mut self,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
        fills: &Fills,
    ) -> Result<(), Stop> {
        if let Some(statement) = prepared.script.statements.first() {
            self.check_failed(statement)?;
        }
        if bind.len() != fills.parameters {
            return Err(Stop::Fault(Fault::error(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    bind.len(),
                    String::from_utf8_lossy(bind.statement),
                    fills.parameters
                ),
            )));
        }
        let values = BindValues::new(bind, prepared, self.is_utf8());
        let mut given = Numbered::new();
        let ids = match self.new_ids(&fills.generate, &values, &mut given) {
            Ok(ids) => ids,
            Err(stop) => return self.settle_numbers(Err(stop), given, &[]),
        };
        let body = bind_body(bind, bind.values(), &ids);
        let filled = frontend::bind(&body).map_err(Fault::from)?;
        let result = self.bind_prepared(&filled, prepared);
        let result = self.asked(result);
        let last = last_of(&[(Arc::clone(&fills.generate.stream), ids)]);
        self.settle_numbers(result, given, &last)
    }

    /// What a statement is sure to answer that asks for the last id, and for nothing else.
    ///
    /// # Errors
    /// It is not known whether a server has given out a later one.
    pub(crate) fn known_id(
        &self,
        effect: &Effect,
        values: Option<&dyn Values>,
    ) -> Result<Option<KnownId>, Fault> {
        let Effect::LastId { sequence, column } = effect else {
            return Ok(None);
        };
        let last = match sequence {
            None => self.last_ids.last,
            Some(sequence) => {
                let name = match sequence {
                    Argument::Literal(name) => Some(name.clone()),
                    Argument::Parameter(index) => {
                        let parameter = values.and_then(|values| values.parameter(*index));
                        let text = parameter.and_then(|parameter| parameter.value);
                        text.map(|text| String::from_utf8_lossy(text).into_owned())
                    }
                    Argument::Unknown => None,
                };
                let found = name.and_then(|name| self.last_ids.of_sequence(&name));
                found.unwrap_or_default()
            }
        };
        let value = match last {
            Last::Unset => return Ok(None),
            Last::Known(id) => id,
            Last::Unclear => return Err(refuse::unclear_id()),
        };
        let column = column.clone();
        Ok(Some(KnownId { value, column }))
    }

    /// Answers a Query that asks for the last id.
    pub(crate) fn query_known_id(&mut self, known: &KnownId) -> Result<(), Stop> {
        let text = known.text(&known.value.to_string());
        let mut bytes = Vec::new();
        frame::write(&mut bytes, b'Q', &[&text, b"\0"]);
        let Ok(Split::Whole(frame, _)) = frame::split(&bytes, u32::MAX) else {
            return Err(Stop::Fault(unfilled()));
        };
        let mut masked = Masked::default();
        let script = self.plan_simple(&text, &mut masked);
        self.run_query(frame, &text, &script, masked.literals())
    }

    /// The same for a Bind.
    pub(crate) fn bind_known_id(&mut self, bind: &Bind<'_>, known: &KnownId) -> Result<(), Stop> {
        let text = known.text("$1");
        let mut body = text.clone();
        body.extend_from_slice(&[0, 0, 1]);
        body.extend_from_slice(&oid::INT8.to_be_bytes());
        let prepared = self.plan_body(&body, &text);
        let body = bind_body(bind, std::iter::empty(), &[known.value]);
        let bind = frontend::bind(&body).map_err(Fault::from)?;
        self.bind_prepared(&bind, &prepared)
    }

    /// What is sent may call `nextval` on a server.
    pub(crate) fn note_unclear_id(&mut self, statement: &Statement) {
        if matches!(statement.effect, Effect::DiscardAll) {
            self.last_ids = LastIds::default();
        } else if !self.last_ids.by_table.is_empty()
            && (advances(statement) || matches!(statement.effect, Effect::DiscardOther))
        {
            self.last_ids.doubt(statement.verb);
        }
    }

    /// The same for the one statement of a script.
    pub(crate) fn note_unclear_ids(&mut self, script: &Script) {
        if let [statement] = script.statements.as_slice() {
            self.note_unclear_id(statement);
        }
    }
}

/// A text with ids in it.
#[derive(Debug, Default)]
struct Filled {
    text: Vec<u8>,
    /// In the order of the rows.
    ids: Vec<(Arc<Stream>, Vec<i64>)>,
}

fn last_of(ids: &[(Arc<Stream>, Vec<i64>)]) -> Vec<(Arc<Stream>, i64)> {
    let last = |(stream, ids): &(Arc<Stream>, Vec<i64>)| Some((Arc::clone(stream), *ids.last()?));
    ids.iter().filter_map(last).collect()
}

impl LastIds {
    fn given(&mut self, stream: &Arc<Stream>, id: i64) {
        self.last = Last::Known(id);
        match self.by_table.iter_mut().find(|(known, _)| known == stream) {
            Some((_, last)) => *last = Last::Known(id),
            None => self.by_table.push((Arc::clone(stream), Last::Known(id))),
        }
    }

    fn doubt(&mut self, verb: &str) {
        self.last = Last::Unclear;
        // An INSERT advances the sequences of other tables; what else does may name any.
        if verb != "INSERT" {
            for (_, last) in &mut self.by_table {
                *last = Last::Unclear;
            }
        }
    }

    /// What was given last of the sequence that PostgreSQL would have made for a column.
    fn of_sequence(&self, name: &str) -> Option<Last> {
        let tokens = scan(name.as_bytes(), Lexing::default()).ok()?;
        let mut cursor = Cursor::new(name.as_bytes(), &tokens);
        let name = cursor.qualified().filter(|_| cursor.is_done())?;
        let mut found = self.by_table.iter().filter(|(stream, _)| {
            name.name == format!("{}_{}_seq", stream.table, stream.column)
                && (stream.schema.is_none()
                    || name.schema.is_none()
                    || name.schema == stream.schema)
        });
        let (_, last) = found.next()?;
        found.next().is_none().then_some(*last)
    }
}

impl KnownId {
    /// The statement that answers it.
    fn text(&self, value: &str) -> Vec<u8> {
        let name = quote_ident(&self.column);
        format!("SELECT CAST({value} AS bigint) AS {name}").into_bytes()
    }
}

/// What follows the name in the Parse of a statement with its ids as parameters.
fn filled_body(
    prepared: &Prepared,
    statement: &Statement,
    generate: &Arc<Generate>,
) -> Option<(Vec<u8>, Fills)> {
    let text = prepared.text();
    let tokens = scan(text, prepared.reading.lexing).ok()?;
    let number = |digits: &[u8]| std::str::from_utf8(digits.get(1..)?).ok()?.parse().ok();
    let mentioned = tokens
        .iter()
        .filter(|token| token.kind == Kind::Parameter)
        .filter_map(|token| number(token.of(text)))
        .max();
    let parameters = prepared
        .parameters_declared()
        .max(mentioned.unwrap_or_default());
    let count = u16::try_from(parameters.checked_add(generate.fill.rows.len())?).ok()?;
    let mut next = parameters;
    let end = tokens.partition_point(|token| token.start < statement.span.end);
    let start = tokens.partition_point(|token| token.start < statement.span.start);
    let filled = generate
        .fill
        .write(tokens.get(start..end)?, text, |_, out| {
            next = next.saturating_add(1);
            out.extend_from_slice(format!("${next}").as_bytes());
        })?;
    let mut body = text.get(..statement.span.start)?.to_vec();
    body.extend_from_slice(&filled);
    body.extend_from_slice(text.get(statement.span.end..)?);
    body.push(0);
    body.extend_from_slice(&count.to_be_bytes());
    for index in 0..count {
        let kind = if usize::from(index) < parameters {
            prepared.parameter_type(index)
        } else {
            oid::INT8
        };
        body.extend_from_slice(&kind.to_be_bytes());
    }
    let fills = Fills {
        body: prepared.body.clone(),
        text_length: prepared.text_length,
        parameters,
        generate: Arc::clone(generate),
    };
    Some((body, fills))
}

/// A Bind with ids behind these parameters.
fn bind_body<'a>(
    bind: &Bind<'_>,
    parameters: impl Iterator<Item = (bool, Option<&'a [u8]>)>,
    ids: &[i64],
) -> Vec<u8> {
    let ids = ids.iter().map(|id| id.to_be_bytes()).collect::<Vec<_>>();
    let mut values: Vec<(bool, Option<&[u8]>)> = parameters.collect();
    values.extend(ids.iter().map(|id| (true, Some(id.as_slice()))));
    let count = u16::try_from(values.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut body = [bind.portal, b"\0", bind.statement, b"\0", &count].concat();
    for (binary, _) in &values {
        body.extend_from_slice(&u16::from(*binary).to_be_bytes());
    }
    body.extend_from_slice(&count);
    for (_, value) in values {
        match value.map(|value| (i32::try_from(value.len()), value)) {
            Some((Ok(length), value)) => {
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value);
            }
            Some((Err(_), _)) | None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    let codes = bind.result_format_codes();
    let count = u16::try_from(codes.len() / 2).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(codes);
    body
}

fn unfilled() -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        "the rows of an INSERT are not where its plan says",
    )
    .hint("This is a fault of pgherd; please report it.")
}

fn used_up(table: &str) -> Fault {
    Fault::error(
        SqlState::SEQUENCE_LIMIT,
        format!("the ids of table \"{table}\" are used up"),
    )
    .detail("Ids stay below 2^53.")
    .hint("Give the rows ids that are free.")
}

fn late(table: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        format!("the home shard gave no numbers for the ids of table \"{table}\" in time"),
    )
    .hint("Check the home shard; raise server_connect_timeout if it is slow.")
}
