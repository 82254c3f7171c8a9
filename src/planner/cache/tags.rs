//! The tags of one execution: what a kept answer depends on, and what a write touches.

use std::fmt;
use std::sync::Arc;

use super::{Indexed, Reading, Valued, Writing, Written};
use crate::placement::topology::Topology;
use crate::planner::literals;
use crate::planner::plan::{KeyOperands, Operand, Values};
use crate::planner::route;
use crate::sql::quote::{quote_ident, quote_literal};
use crate::types::key::{Key, KeyError, KeyType};

/// Keys of a read that it depends on one by one; with more it depends on the table.
const READ_KEYS_MAX: usize = 16;
/// Keys that a write touches one by one; with more it touches the table.
const WRITTEN_KEYS_MAX: usize = 64;
/// Keys whose rows are looked at after a write of them.
const LOOKED_KEYS_MAX: usize = 8;
/// Rows that are looked at after a write of them.
const LOOKED_ROWS_MAX: usize = 64;
/// Bytes of the longest value that answers are told apart by.
const VALUE_MAX: usize = 200;

/// Something that answers depend on and writes touch.
///
/// Every answer depends on `All`, and for each of its tables on one of these:
///
/// | its rows | depends on |
/// |---|---|
/// | have known keys | `Unknown`, each `Key` |
/// | have known values of an indexed column | `Values`, each `Value` |
/// | are looked at by known columns | `Rows`, each `Column` |
/// | | `Any` |
///
/// A write touches `Any`, and `Unknown` or each `Key`, and `Values` or each `Value` of each indexed column before
/// and after, and `Rows` or each `Column` that it changes. So a read and a write that changes its answer have a
/// tag in common, whichever of these the read depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    /// All that is kept for the database: the schema, privileges, and writes of which nothing is known.
    All,
    /// Any row of a table.
    Any(Arc<str>),
    /// Rows of a table whose keys are not known.
    Unknown(Arc<str>),
    /// The rows of a table with one key.
    Key(Arc<str>, Box<str>),
    /// Rows of a table whose values of some indexed column are not known.
    Values(Arc<str>),
    /// The rows of a table with one value of an indexed column.
    Value(Arc<str>, Arc<str>, Box<str>),
    /// Rows of a table that come or go, or change by columns that are not known.
    Rows(Arc<str>),
    /// A column of any rows of a table.
    Column(Arc<str>, Arc<str>),
    /// All that was read for a tenant; nothing but a purge touches it.
    Tenant(Box<str>),
}

/// As Redis has it behind the deployment and the database.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::All => f.write_str("e"),
            Tag::Any(table) => write!(f, "q:{table}"),
            Tag::Unknown(table) => write!(f, "a:{table}"),
            Tag::Key(table, key) => write!(f, "t:{table}:{key}"),
            Tag::Values(table) => write!(f, "x:{table}"),
            Tag::Value(table, column, value) => write!(f, "i:{table}:{column}:{value}"),
            Tag::Rows(table) => write!(f, "r:{table}"),
            Tag::Column(table, column) => write!(f, "c:{table}:{column}"),
            Tag::Tenant(tenant) => write!(f, "n:{tenant}"),
        }
    }
}

/// Written rows whose values of indexed columns are known once they are looked at, in the transaction that has
/// written them and before it is committed: other transactions cannot change them then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// As the configuration lists it.
    table: Arc<str>,
    /// Those of the columns of `query`, in their order.
    columns: Box<[Indexed]>,
    /// What asks for the values. It gives one row more than are told apart, at most.
    pub query: String,
}

impl Look {
    /// What is touched where the rows are not looked at.
    pub fn unseen(&self) -> Tag {
        Tag::Values(Arc::clone(&self.table))
    }

    /// What is touched by rows with these values; `unseen` says all of it where there are too many.
    pub fn seen(&self, rows: &[Vec<Option<String>>]) -> Vec<Tag> {
        if rows.len() > LOOKED_ROWS_MAX {
            return vec![self.unseen()];
        }
        let mut tags = Vec::new();
        for row in rows {
            for (indexed, value) in self.columns.iter().zip(row) {
                // What has no value has none in common with others; what is long is not told apart.
                if let Some(value) = value.as_deref().filter(|value| value.len() <= VALUE_MAX) {
                    let (table, column) = (Arc::clone(&self.table), Arc::clone(&indexed.column));
                    push(&mut tags, Tag::Value(table, column, value.into()));
                }
            }
        }
        tags
    }
}

/// What an answer depends on.
pub fn of_read(reading: &Reading, topology: &Topology, values: &dyn Values) -> Vec<Tag> {
    let mut tags = vec![Tag::All];
    for touched in &reading.tables {
        let table = || Arc::clone(&touched.table);
        let keys = touched.keys.as_deref();
        if let Some(keys) = keys_of(keys, touched.distribution, topology, values, READ_KEYS_MAX) {
            push(&mut tags, Tag::Unknown(table()));
            for key in keys {
                push(&mut tags, Tag::Key(table(), key));
            }
        } else if let Some((indexed, texts)) = touched.confined.as_ref().and_then(|confined| {
            let texts = texts_of(&confined.1, confined.0.kind, values)?;
            let is_short = texts.iter().all(|text| text.len() <= VALUE_MAX);
            is_short.then_some((&confined.0, texts))
        }) {
            push(&mut tags, Tag::Values(table()));
            for text in texts {
                let column = Arc::clone(&indexed.column);
                push(&mut tags, Tag::Value(table(), column, text));
            }
        } else if let Some(columns) = &touched.columns {
            push(&mut tags, Tag::Rows(table()));
            for column in columns {
                push(&mut tags, Tag::Column(table(), Arc::clone(column)));
            }
        } else {
            push(&mut tags, Tag::Any(table()));
        }
    }
    tags
}

/// What a write touches, besides what rows that are to be looked at have.
pub fn of_write(
    writing: &Writing,
    topology: &Topology,
    values: &dyn Values,
) -> (Vec<Tag>, Vec<Look>) {
    let Some(tables) = &writing.tables else {
        return (vec![Tag::All], Vec::new());
    };
    let (mut tags, mut looks) = (Vec::new(), Vec::new());
    for written in tables {
        let table = || Arc::clone(&written.table);
        push(&mut tags, Tag::Any(table()));
        let keys = written.keys.as_deref();
        let keys = keys_of(
            keys,
            written.distribution,
            topology,
            values,
            WRITTEN_KEYS_MAX,
        );
        match &keys {
            Some(keys) => {
                for key in keys {
                    push(&mut tags, Tag::Key(table(), key.clone()));
                }
            }
            None => push(&mut tags, Tag::Unknown(table())),
        }
        match &written.columns {
            Some(columns) => {
                for column in columns {
                    push(&mut tags, Tag::Column(table(), Arc::clone(column)));
                }
            }
            None => push(&mut tags, Tag::Rows(table())),
        }
        let mut looked = Vec::new();
        let Some(indexed) = &written.indexed else {
            push(&mut tags, Tag::Values(table()));
            continue;
        };
        for (indexed, valued) in indexed {
            let known = match valued {
                Valued::Known(operands) => texts_of(operands, indexed.kind, values),
                Valued::Kept => {
                    looked.push(indexed.clone());
                    continue;
                }
                Valued::Any => None,
            };
            match known {
                Some(texts) => {
                    for text in texts.into_iter().filter(|text| text.len() <= VALUE_MAX) {
                        let column = Arc::clone(&indexed.column);
                        push(&mut tags, Tag::Value(table(), column, text));
                    }
                }
                None => push(&mut tags, Tag::Values(table())),
            }
        }
        // Where all of them are dropped, none needs to be known.
        if looked.is_empty() || tags.contains(&Tag::Values(table())) {
            continue;
        }
        match look_at(written, looked, keys.as_deref(), values) {
            Some(look) if !looks.contains(&look) => looks.push(look),
            Some(_) => (),
            None => push(&mut tags, Tag::Values(table())),
        }
    }
    (tags, looks)
}

/// All that a change of a table of which nothing is known touches.
pub fn of_table(table: &Arc<str>) -> Vec<Tag> {
    let table = || Arc::clone(table);
    vec![
        Tag::Any(table()),
        Tag::Unknown(table()),
        Tag::Values(table()),
        Tag::Rows(table()),
    ]
}

pub(super) fn push(tags: &mut Vec<Tag>, tag: Tag) {
    if !tags.contains(&tag) {
        tags.push(tag);
    }
}

/// What asks for the values of rows of these keys; `None` where a key cannot be written down with certainty.
fn look_at(
    written: &Written,
    indexed: Vec<Indexed>,
    keys: Option<&[Box<str>]>,
    values: &dyn Values,
) -> Option<Look> {
    let keys = keys.filter(|keys| keys.len() <= LOOKED_KEYS_MAX)?;
    let (name, columns) = &**written.place.as_ref()?;
    // Of several columns, where one ends and the next begins is not told.
    let [column] = &**columns else {
        return None;
    };
    let is_plain = |kind: KeyType| kind != KeyType::Text || values.is_utf8();
    if !indexed.iter().all(|indexed| is_plain(indexed.kind)) {
        return None;
    }
    let key = quote_ident(column);
    let mut conditions = Vec::new();
    for text in keys {
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        if !is_plain {
            return None;
        }
        conditions.push(format!(
            "{key} OPERATOR(pg_catalog.=) {}",
            quote_literal(text)
        ));
    }
    let outputs: Vec<String> = indexed
        .iter()
        .map(|indexed| format!("{}::pg_catalog.text", quote_ident(&indexed.column)))
        .collect();
    let query = format!(
        "SELECT DISTINCT {} FROM {}.{} WHERE {} LIMIT {}",
        outputs.join(", "),
        quote_ident(name.schema.as_deref()?),
        quote_ident(&name.name),
        conditions.join(" OR "),
        LOOKED_ROWS_MAX.saturating_add(1)
    );
    Some(Look {
        table: Arc::clone(&written.table),
        columns: indexed.into(),
        query,
    })
}

/// The values that operands stand for, as texts that are equal where the values are; NULL, which equals nothing,
/// is left out. `None` where one is not known.
fn texts_of(operands: &[Operand], kind: KeyType, values: &dyn Values) -> Option<Vec<Box<str>>> {
    let mut texts = Vec::new();
    for operand in operands {
        let each = route::each_value(operand, kind, values, &mut |value| {
            texts.push(text_of(&value));
            Ok(())
        });
        match each {
            Ok(()) | Err(KeyError::Null) => (),
            Err(_) => return None,
        }
        if texts.len() > WRITTEN_KEYS_MAX {
            return None;
        }
    }
    Some(texts)
}

/// A value as PostgreSQL writes it.
pub(super) fn text_of(value: &Key<'_>) -> Box<str> {
    match value {
        Key::Uuid(bytes) => {
            let digits = format!("{:032x}", u128::from_be_bytes(*bytes));
            let mut text = String::with_capacity(36);
            for (at, digit) in digits.chars().enumerate() {
                if matches!(at, 8 | 12 | 16 | 20) {
                    text.push('-');
                }
                text.push(digit);
            }
            text.into()
        }
        Key::Int(_) | Key::Text(_) | Key::Date(_) | Key::Timestamp(_) | Key::Numeric(_) => {
            value.to_string().into()
        }
    }
}

/// The keys as texts that are equal where the keys are; `None` where one is not known, or there are more.
fn keys_of(
    keys: Option<&[KeyOperands]>,
    distribution: usize,
    topology: &Topology,
    values: &dyn Values,
    most: usize,
) -> Option<Vec<Box<str>>> {
    let keys = keys?;
    let distribution = topology.distribution(distribution)?;
    let mut texts = Vec::new();
    for key in keys.iter().take(most.saturating_add(1)) {
        route::each_key(key, distribution, values, &mut |key| {
            let parts: Vec<Box<str>> = key.iter().map(text_of).collect();
            texts.push(parts.join(",").into_boxed_str());
        })
        .ok()?;
        if texts.len() > most {
            return None;
        }
    }
    (!texts.is_empty()).then_some(texts)
}

/// Whether a value of an execution may mean the moment it is read, as `'now'` or `'tomorrow'` do: its answer
/// is not kept.
pub fn means_moment(value: &[u8]) -> bool {
    literals::is_moment(value)
}
