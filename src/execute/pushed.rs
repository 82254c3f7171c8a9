//! What the shards are sent for a statement whose answers are put together here: columns to merge by behind
//! its own, and a LIMIT that covers its OFFSET.

use std::ops::Range;

use crate::error::{Fault, SqlState};
use crate::merge::{By, Finish, Hidden, OrderKey};
use crate::server::settings::Detour;
use crate::server::statements::Prepared;
use crate::sql::rows::Part;
use crate::sql::scan::scan;
use crate::sql::tail::{Count, SortKey, Tail};
use crate::types::oid;
use crate::wire::frontend::{self, Bind};

use super::insert::{check_count, parameters, parse, trimmed};
use super::member::Member;
use super::{Conversation, Source, Trouble, Wide};

/// A statement for the shards, and what is left to be done with their rows.
pub(super) struct Pushed {
    form: Form,
    /// Columns behind the client's own.
    pub(super) hidden: usize,
    /// Rows to be passed over.
    pub(super) skip: u64,
    /// Rows to be handed on at most.
    pub(super) limit: Option<u64>,
    /// The shards refuse it: it has a count that is none.
    pub(super) fails: bool,
}

enum Form {
    /// The client's own.
    Own,
    Query(Part),
    Group {
        part: Part,
        /// What follows the names in Parse and in Bind.
        parse: Vec<u8>,
        bind: Vec<u8>,
        detour: Detour,
    },
}

impl Pushed {
    /// Of a statement.
    ///
    /// # Errors
    /// Its text is not what its plan says, or the Bind does not fit it.
    pub(super) fn of<C: Conversation>(
        client: &C,
        wide: &Wide,
        finish: &Finish,
    ) -> Result<Pushed, Trouble> {
        let mut pushed = Pushed {
            form: Form::Own,
            hidden: finish.hidden(),
            skip: 0,
            limit: None,
            fails: false,
        };
        if pushed.hidden == 0 && !finish.is_limited {
            return Ok(pushed);
        }
        let text = wide.source.sql();
        let tokens = scan(text, wide.lexing).map_err(|_unreadable| unread())?;
        let tail = Tail::find(&tokens, text).ok_or_else(|| uncounted(finish))?;
        if tail.keys.len() != finish.order.len() {
            return Err(unread().into());
        }
        let counts = Counts::of(&tail, wide)?;
        let mut edits = Vec::new();
        for (number, (key, sort)) in finish.order.iter().zip(&tail.keys).enumerate() {
            if let Some(mut add) = hidden_column(text, key, sort, number) {
                let is_first = tail.is_empty() && edits.is_empty();
                let before = if is_first { " " } else { ", " };
                add.insert(0, Add::New(before.into()));
                edits.push((tail.list_end..tail.list_end, add));
            }
        }
        match counts {
            Counts::Refused => pushed.fails = true,
            Counts::Rows { skip, limit } => {
                pushed.skip = skip;
                pushed.limit = limit;
                if skip > 0 {
                    edits.extend(limits(&tail, skip, limit));
                }
            }
        }
        if edits.is_empty() {
            return Ok(pushed);
        }
        let part = edited(text, edits);
        let Source::Bind {
            prepared,
            after_names,
            ..
        } = &wide.source
        else {
            pushed.form = Form::Query(part);
            return Ok(pushed);
        };
        let body = [b"\0\0", after_names.as_slice()].concat();
        let bind = frontend::bind(&body).map_err(Fault::from)?;
        check_count(&bind, prepared, &parameters(&tokens, text))?;
        let tokens = scan(&part.text, wide.lexing).map_err(|_unreadable| unread())?;
        let used = parameters(&tokens, &part.text);
        let declared = |index| prepared.parameter_type(index);
        pushed.form = Form::Group {
            parse: parse(&part.text, &bind, &used, declared),
            bind: trimmed(&bind, &used, pushed.hidden),
            detour: client.detour(prepared),
            part,
        };
        Ok(pushed)
    }

    /// Queues it for a shard, with a RowDescription.
    pub(super) fn push<C: Conversation>(
        &self,
        client: &C,
        wide: &Wide,
        member: &mut Member,
    ) -> Result<(), Trouble> {
        match (&self.form, &wide.source) {
            (Form::Query(part), _) => {
                let text = Source::Text(part.text.clone());
                member.push_statement(client, &text, true)
            }
            (
                Form::Group {
                    parse,
                    bind,
                    detour,
                    ..
                },
                Source::Bind { prepared, .. },
            ) => member.push_own_statement(prepared, parse, bind, detour, true),
            (Form::Own | Form::Group { .. }, source) => member.push_statement(client, source, true),
        }
    }

    /// An error of a shard, as it stands in the client's own text.
    pub(super) fn placed(&self, trouble: Trouble, wide: &Wide) -> Trouble {
        match &self.form {
            Form::Own => trouble,
            Form::Query(part) | Form::Group { part, .. } => {
                super::insert::placed(trouble, part, wide)
            }
        }
    }
}

/// What LIMIT and OFFSET come to.
enum Counts {
    Rows {
        skip: u64,
        limit: Option<u64>,
    },
    /// One of them is negative, or is not read here.
    Refused,
}

impl Counts {
    fn of(tail: &Tail, wide: &Wide) -> Result<Counts, Fault> {
        let Source::Bind {
            prepared,
            after_names,
            ..
        } = &wide.source
        else {
            return Ok(Counts::from(tail, |_, _| None));
        };
        let body = [b"\0\0", after_names.as_slice()].concat();
        let bind = frontend::bind(&body)?;
        Ok(Counts::from(tail, |index, narrow| {
            Some(given(&bind, prepared, index, narrow))
        }))
    }

    fn from(tail: &Tail, parameter: impl Fn(u16, bool) -> Option<Given>) -> Counts {
        let read = |count: Option<Count>| match count {
            None | Some(Count::All) => Some(None),
            Some(Count::Rows(rows)) => u64::try_from(rows).ok().map(Some),
            Some(Count::Unread) => None,
            Some(Count::Parameter { index, narrow }) => match parameter(index, narrow)? {
                Given::Null => Some(None),
                Given::Number(rows) if narrow && i32::try_from(rows).is_err() => None,
                Given::Number(rows) => u64::try_from(rows).ok().map(Some),
                Given::Unread => None,
            },
        };
        let count = |clause: &Option<crate::sql::tail::Clause>| {
            read(clause.as_ref().map(|clause| clause.count))
        };
        match (count(&tail.offset), count(&tail.limit)) {
            (Some(skip), Some(limit)) => Counts::Rows {
                skip: skip.unwrap_or(0),
                limit,
            },
            (None, _) | (_, None) => Counts::Refused,
        }
    }
}

/// The value of a parameter that counts rows.
enum Given {
    Null,
    Number(i64),
    Unread,
}

fn given(bind: &Bind<'_>, prepared: &Prepared, index: u16, narrow: bool) -> Given {
    let Some((binary, value)) = bind.value(index.into()) else {
        return Given::Unread;
    };
    let Some(value) = value else {
        return Given::Null;
    };
    // LIMIT takes a bigint.
    let kind = match prepared.settled_type(index.into()) {
        0 if narrow => oid::INT4,
        0 => oid::INT8,
        kind => kind,
    };
    if !binary {
        let text = std::str::from_utf8(value).map(str::trim_ascii);
        let number = text.ok().and_then(|text| text.parse::<i64>().ok());
        // What its type does not hold, the server refuses.
        let number = number.filter(|number| match kind {
            oid::INT2 => i16::try_from(*number).is_ok(),
            oid::INT4 => i32::try_from(*number).is_ok(),
            kind => kind == oid::INT8,
        });
        return number.map_or(Given::Unread, Given::Number);
    }
    let number = match kind {
        oid::INT2 => value.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        oid::INT4 => value.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        oid::INT8 => value.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    };
    number.map_or(Given::Unread, Given::Number)
}

/// What is put into a text: pieces of it, or what is new.
enum Add {
    Copied(Range<usize>),
    New(Vec<u8>),
}

/// The column that a key is merged by, if it is none of the client's.
fn hidden_column(text: &[u8], key: &OrderKey, sort: &SortKey, number: usize) -> Option<Vec<Add>> {
    let By::Hidden(Hidden {
        text: own,
        is_float,
        ..
    }) = &key.by
    else {
        return None;
    };
    let value = match own {
        Some(own) => Add::New(own.clone().into_bytes()),
        None if text.get(sort.span.clone()).is_some() => Add::Copied(sort.span.clone()),
        None => return None,
    };
    let (before, after) = if *is_float {
        ("pg_catalog.float8send((", ")::pg_catalog.float8)")
    } else {
        ("(", ")")
    };
    Some(vec![
        Add::New(before.as_bytes().to_vec()),
        value,
        Add::New(format!("{after} AS \"pgherd.{number}\"").into_bytes()),
    ])
}

/// LIMIT and OFFSET as the shards get them: all that may be passed over or handed on.
fn limits(tail: &Tail, skip: u64, limit: Option<u64>) -> Vec<(Range<usize>, Vec<Add>)> {
    let all = limit.and_then(|limit| limit.checked_add(skip));
    let all = all.filter(|all| i64::try_from(*all).is_ok());
    let text = all.map_or_else(String::new, |all| format!("LIMIT {all}"));
    let mut edits = Vec::new();
    let mut new = Some(Add::New(text.into_bytes()));
    for clause in [&tail.limit, &tail.offset].into_iter().flatten() {
        edits.push((clause.span.clone(), new.take().into_iter().collect()));
    }
    edits
}

/// A text with other things in places of it.
fn edited(text: &[u8], mut edits: Vec<(Range<usize>, Vec<Add>)>) -> Part {
    edits.sort_by_key(|(range, _)| range.start);
    let mut part = Part::default();
    let mut done = 0;
    for (range, adds) in edits {
        part.copy(text, done..range.start);
        for add in adds {
            match add {
                Add::Copied(piece) => part.copy(text, piece),
                Add::New(new) => part.add(&new),
            }
        }
        done = range.end;
    }
    part.copy(text, done..text.len());
    part
}

fn unread() -> Fault {
    Fault::error(SqlState::INTERNAL, "a statement is not what its plan says")
        .hint("This is a fault of pgherd; please report it.")
}

/// The plan was made from a text with the same clauses, of which this one's cannot be read.
fn uncounted(finish: &Finish) -> Trouble {
    let otherwise = finish.otherwise.as_deref();
    Trouble::Unproven(otherwise.cloned().unwrap_or_else(unread))
}
