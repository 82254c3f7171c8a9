//! An INSERT whose rows belong to several shards: each gets its own, in a transaction a shard.
//!
//! Commits start when every one has carried out its part. With RETURNING the rows come back in the
//! order in which they were given, where each row given returns one.

use crate::error::{Fault, SqlState};
use crate::planner::plan::Share;
use crate::server::settings::Detour;
use crate::server::statements::Prepared;
use crate::sql::rows::{Part, Rows};
use crate::sql::scan::{Kind, Token, scan};
use crate::types::oid;
use crate::wire::backend;
use crate::wire::frame;
use crate::wire::frontend::{self, Bind};

use super::concat::Columns;
use super::member::{Member, bytes_max, close, commit_all, open_parts};
use super::{Conversation, Source, Trouble, Wide, claims, complete};

/// What one shard is sent.
struct Order {
    part: Part,
    form: Form,
}

enum Form {
    Query,
    /// What follows the names in Parse and in Bind.
    Group {
        parse: Vec<u8>,
        bind: Vec<u8>,
        detour: Detour,
    },
}

/// What the shards returned.
#[derive(Default)]
pub(super) struct Returned {
    columns: Columns,
    /// The first RowDescription.
    pub(super) description: Vec<u8>,
    /// Of each shard, its DataRows.
    pub(super) rows: Vec<Vec<Vec<u8>>>,
    bytes: usize,
    pub(super) count: u64,
}

/// Sends each of `shares` its rows.
pub(super) async fn run<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shares: &[Share],
    describe: bool,
) -> Result<(), Trouble> {
    let (returned, refused) = attempt(client, wide, shares, describe, true).await?;
    if refused.is_empty() {
        answer(client, shares, returned);
        return Ok(());
    }
    Err(first(client, wide, shares, refused).await?)
}

/// Inserts the rows of `shares`, or tells why shards refuse theirs; commits where `keeps` says so and none does.
async fn attempt<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shares: &[Share],
    describe: bool,
    keeps: bool,
) -> Result<(Returned, Vec<(usize, Trouble)>), Trouble> {
    let orders = orders(client, wide, shares)?;
    let shards = shares.iter().map(|share| share.shard).collect();
    let mut members = open_parts(client, &shards).await?;
    let mut guards = Vec::new();
    let parts = (&mut members, &mut guards);
    let result = insert(client, wide, &orders, describe, keeps, parts).await;
    members.append(&mut guards);
    close(client, members).await;
    result
}

/// Of several shards' refusals that of the first row that fails, as PostgreSQL tells it: of each shard the
/// shortest list of its first rows is looked for that it refuses, in transactions that are rolled back.
async fn first<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    shares: &[Share],
    refused: Vec<(usize, Trouble)>,
) -> Result<Trouble, Trouble> {
    // In a block nothing can be tried again.
    let is_told = client.is_in_block()
        || refused.len() == 1
        || !refused.iter().all(|(_, trouble)| is_of_rows(trouble));
    let mut found: Option<(usize, Trouble)> = None;
    for (at, mut trouble) in refused {
        let Some(share) = shares.get(at).filter(|_| !is_told) else {
            return Ok(trouble);
        };
        let (mut fine, mut fails) = (0_usize, share.rows.len());
        while fails > fine.saturating_add(1) {
            let count = fine.midpoint(fails);
            let mut fewer = share.clone();
            fewer.rows.truncate(count);
            let told = client.out().len();
            let attempt = Box::pin(attempt(client, wide, &[fewer], false, false)).await;
            // What the server notices it has told before.
            client.out().truncate(told);
            match attempt?.1.pop() {
                Some((_, other)) => {
                    trouble = other;
                    fails = count;
                }
                None => fine = count,
            }
        }
        let row = share.rows.get(fine).copied().unwrap_or_default();
        if found.as_ref().is_none_or(|(first, _)| row < *first) {
            found = Some((row, trouble));
        }
    }
    found
        .map(|(_, trouble)| trouble)
        .ok_or_else(|| Trouble::Fault(unread()))
}

async fn insert<C: Conversation>(
    client: &mut C,
    wide: &Wide,
    orders: &[Order],
    describe: bool,
    keeps: bool,
    (members, guards): (&mut Vec<Member>, &mut Vec<Member>),
) -> Result<(Returned, Vec<(usize, Trouble)>), Trouble> {
    claims::check(client, wide, members).await?;
    let mut returned = Returned::default();
    let mut refused = Vec::new();
    // One after the other, in the order of the shards, as in `broadcast`: no two wait in a circle.
    for (at, (member, order)) in members.iter_mut().zip(orders).enumerate() {
        member.begin()?;
        claims::announce(member, &wide.claims)?;
        match &order.form {
            Form::Query => {
                let text = Source::Text(order.part.text.clone());
                member.push_statement(client, &text, describe)?;
            }
            Form::Group {
                parse,
                bind,
                detour,
            } => {
                let Source::Bind { prepared, .. } = &wide.source else {
                    return Err(Trouble::Fault(unread()));
                };
                member.push_own_statement(prepared, parse, bind, detour, describe)?;
            }
        }
        match listen(client, member, &mut returned).await {
            Ok(()) => (),
            // PostgreSQL works constants out before it stores the first row: one that fails is told before
            // what another shard says of its rows.
            Err(Trouble::Server(error)) if !is_of_constants(&error) => {
                let trouble = placed(Trouble::Server(error), &order.part, wide);
                refused.push((at, trouble));
            }
            Err(trouble) => return Err(placed(trouble, &order.part, wide)),
        }
    }
    if refused.is_empty() && keeps {
        claims::hold(client, wide, (members, guards), returned.count).await?;
        members.append(guards);
        commit_all(client, members).await?;
    }
    Ok((returned, refused))
}

/// Reads one shard's answer.
pub(super) async fn listen<C: Conversation>(
    client: &mut C,
    member: &mut Member,
    returned: &mut Returned,
) -> Result<(), Trouble> {
    let limit = bytes_max(client);
    returned.rows.push(Vec::new());
    member
        .hear(client, |client, heard| {
            match heard.tag {
                b'T' | b'n' => {
                    if returned.columns.are_new(heard)? {
                        returned.description = heard.bytes.to_vec();
                    }
                }
                b'C' => {
                    let count = backend::command_count(heard.body);
                    returned.count = returned.count.saturating_add(count);
                }
                // A row, or more of one.
                b'D' | 0 => {
                    returned.bytes = returned.bytes.saturating_add(heard.bytes.len());
                    if returned.bytes > limit {
                        return Err(Trouble::Fault(too_large()));
                    }
                    returned.take_row(heard.tag == b'D', heard.bytes);
                }
                _ => client.out().extend_from_slice(heard.bytes),
            }
            Ok(true)
        })
        .await
}

impl Returned {
    fn take_row(&mut self, is_first: bool, bytes: &[u8]) {
        let Some(rows) = self.rows.last_mut() else {
            return;
        };
        match rows.last_mut() {
            Some(row) if !is_first => row.extend_from_slice(bytes),
            Some(_) | None => rows.push(bytes.to_vec()),
        }
    }
}

/// Hands on what the shards returned, in the order of the rows given.
fn answer<C: Conversation>(client: &mut C, shares: &[Share], returned: Returned) {
    client.out().extend_from_slice(&returned.description);
    let each = returned
        .rows
        .iter()
        .zip(shares)
        .all(|(rows, share)| rows.len() == share.rows.len());
    let mut rows: Vec<(usize, Vec<u8>)> = Vec::new();
    for (found, share) in returned.rows.into_iter().zip(shares) {
        // Rows that were not inserted return nothing: which ones those are is not known.
        let places = share.rows.iter().map(|place| if each { *place } else { 0 });
        rows.extend(places.zip(found));
    }
    rows.sort_by_key(|(place, _)| *place);
    for (_, row) in rows {
        client.out().extend_from_slice(&row);
    }
    complete(client, &format!("INSERT 0 {}", returned.count));
}

/// Whether an error is one of values or of the text, rather than of what rows meet in the table.
fn is_of_constants(error: &[u8]) -> bool {
    let body = error.get(frame::HEADER..).unwrap_or_default();
    let code = backend::error_fields(body).code();
    code.starts_with("22") || code.starts_with("42")
}

/// Whether a row breaks a constraint.
fn is_of_rows(trouble: &Trouble) -> bool {
    let Trouble::Server(error) = trouble else {
        return false;
    };
    let body = error.get(frame::HEADER..).unwrap_or_default();
    backend::error_fields(body).code().starts_with("23")
}

/// An error of a part, with its position in the whole text.
pub(super) fn placed(trouble: Trouble, part: &Part, wide: &Wide) -> Trouble {
    let Trouble::Server(error) = trouble else {
        return trouble;
    };
    let body = error.get(frame::HEADER..).unwrap_or_default();
    let Some(position) = backend::error_fields(body).field(b'P') else {
        return Trouble::Server(error);
    };
    let position = std::str::from_utf8(position)
        .ok()
        .and_then(|position| part.position_in(wide.source.sql(), position.parse().ok()?));
    Trouble::Server(backend::error_at(body, position))
}

/// What each shard is sent.
fn orders<C: Conversation>(client: &C, wide: &Wide, shares: &[Share]) -> Result<Vec<Order>, Fault> {
    let text = wide.source.sql();
    let tokens = scan(text, wide.lexing).map_err(|_unreadable| unread())?;
    let rows = Rows::find(&tokens, text).ok_or_else(unread)?;
    if shares
        .iter()
        .any(|share| share.rows.last() >= Some(&rows.len()))
    {
        return Err(unread());
    }
    let parts = shares
        .iter()
        .map(|share| rows.only(text, share.rows.iter().copied()));
    let Source::Bind {
        prepared,
        after_names,
        ..
    } = &wide.source
    else {
        let query = |part| Order {
            part,
            form: Form::Query,
        };
        return Ok(parts.map(query).collect());
    };
    let body = [b"\0\0", after_names.as_slice()].concat();
    let bind = frontend::bind(&body)?;
    check_count(&bind, prepared, &parameters(&tokens, text))?;
    let group = |part: Part| {
        let used = used(&part, wide)?;
        let declared = |index| prepared.parameter_type(index);
        let form = Form::Group {
            parse: parse(&part.text, &bind, &used, declared),
            bind: trimmed(&bind, &used, 0),
            detour: client.detour(prepared),
        };
        Ok(Order { part, form })
    };
    parts.map(group).collect()
}

/// The parameters that a part mentions, counted from 0.
fn used(part: &Part, wide: &Wide) -> Result<Vec<usize>, Fault> {
    let tokens = scan(&part.text, wide.lexing).map_err(|_unreadable| unread())?;
    Ok(parameters(&tokens, &part.text))
}

/// The parameters that a text mentions, counted from 0; ascending.
pub(super) fn parameters(tokens: &[Token], text: &[u8]) -> Vec<usize> {
    let number = |token: &Token| {
        let digits = token.of(text).get(1..)?;
        let number: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        number.checked_sub(1)
    };
    let mut mentioned: Vec<usize> = tokens
        .iter()
        .filter(|token| token.kind == Kind::Parameter)
        .filter_map(number)
        .collect();
    mentioned.sort_unstable();
    mentioned.dedup();
    mentioned
}

/// Whether there is a value for each parameter, and no more: no shard sees them all.
pub(super) fn check_count(
    bind: &Bind<'_>,
    prepared: &Prepared,
    mentioned: &[usize],
) -> Result<(), Fault> {
    let last = mentioned.last().map_or(0, |last| last.saturating_add(1));
    let wanted = last.max(prepared.parameters_declared());
    if bind.len() == wanted {
        return Ok(());
    }
    Err(Fault::error(
        SqlState::PROTOCOL_VIOLATION,
        format!(
            "bind message supplies {} parameters, but the statement requires {wanted}",
            bind.len()
        ),
    ))
}

/// What follows the name in Parse: a parameter that the text does not mention has a type, so that none is
/// wanting.
pub(super) fn parse(
    text: &[u8],
    bind: &Bind<'_>,
    used: &[usize],
    declared: impl Fn(u16) -> u32,
) -> Vec<u8> {
    let mut body = text.to_vec();
    body.push(0);
    let count = u16::try_from(bind.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    for index in 0..count {
        let kind = match declared(index) {
            0 if used.binary_search(&usize::from(index)).is_err() => oid::TEXT,
            declared => declared,
        };
        body.extend_from_slice(&kind.to_be_bytes());
    }
    body
}

/// What follows the names in Bind: parameters that the text does not mention are NULL. Where each column has a
/// format of its own, so many more in binary format follow.
pub(super) fn trimmed(bind: &Bind<'_>, used: &[usize], more: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let count = u16::try_from(bind.len()).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    for (binary, _) in bind.values() {
        body.extend_from_slice(&u16::from(binary).to_be_bytes());
    }
    body.extend_from_slice(&count.to_be_bytes());
    for (index, (_, value)) in bind.values().enumerate() {
        let value = value.filter(|_| used.binary_search(&index).is_ok());
        match value.map(|value| (i32::try_from(value.len()), value)) {
            Some((Ok(length), value)) => {
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(value);
            }
            Some((Err(_), _)) | None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
    }
    let mut codes = bind.result_format_codes().to_vec();
    if codes.len() > 2 {
        codes.extend_from_slice(&[0, 1].repeat(more));
    }
    let count = u16::try_from(codes.len() / 2).unwrap_or(u16::MAX);
    body.extend_from_slice(&count.to_be_bytes());
    body.extend_from_slice(&codes);
    body
}

fn unread() -> Fault {
    Fault::error(
        SqlState::INTERNAL,
        "the rows of an INSERT are not where its plan says",
    )
    .hint("This is a fault of pgherd; please report it.")
}

fn too_large() -> Fault {
    Fault::error(
        SqlState::BUDGET_SPENT,
        "the rows returned by a write on several shards take too much memory",
    )
    .hint("Return fewer columns or write fewer rows at once, or raise max_multi_bytes.")
}
