//! COPY in both of its syntaxes (<https://www.postgresql.org/docs/current/sql-copy.html>).

use std::sync::Arc;

use crate::config::Ids;
use crate::planner::cache;
use crate::planner::calls;
use crate::planner::context::{Context, Relation};
use crate::planner::draft::Draft;
use crate::planner::gather;
use crate::planner::plan::{Access, CopySplit, Effect, Keyed, LookupColumn};
use crate::planner::refuse;
use crate::planner::script::{Text, plan_one};
use crate::planner::tenant;
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::Kind;
use crate::types::oid::FIRST_USER;
use crate::wire::copy::Format;

/// What COPY's options say.
#[derive(Debug, Default)]
struct Options {
    binary: bool,
    csv: bool,
    header: bool,
    delimiter: Option<String>,
    null: Option<String>,
    quote: Option<String>,
    escape: Option<String>,
    /// The columns of FORCE NULL and FORCE NOT NULL: their values are not what stands in the row.
    forced: Vec<String>,
    /// An option that rows cannot be split under.
    unsplit: Option<&'static str>,
}

enum End {
    /// STDIN or STDOUT.
    Client,
    Server,
}

/// Plans COPY; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    cursor.take("copy").then_some(())?;
    if cursor.kind() == Some(Kind::OpenParen) {
        return query(text, cursor);
    }
    let mut options = Options {
        binary: cursor.take("binary"),
        ..Options::default()
    };
    let table = cursor.qualified()?;
    let columns = Some(columns(&mut cursor)?).filter(|columns| !columns.is_empty());
    let input = cursor.take_any(&["from", "to"])? == "from";
    let end = end(&mut cursor)?;
    options.read(cursor);
    Some(match (input, end) {
        (true, End::Client) => Draft {
            cache: text
                .context
                .topology
                .caches()
                .then(|| cache::of_copy(text.context, &table))
                .flatten()
                .map(Arc::new),
            ..copy_in(text.context, &table, columns, &options)
        },
        (false, End::Client) => copy_out(text, &table, &options),
        (_, End::Server) => on_server(text, &table),
    })
}

/// The column list; empty where there is none, `None` where it is no list.
fn columns(cursor: &mut Cursor<'_>) -> Option<Vec<String>> {
    if !cursor.take_kind(Kind::OpenParen) {
        return Some(Vec::new());
    }
    let mut columns = vec![cursor.name()?];
    while cursor.take_kind(Kind::Comma) {
        columns.push(cursor.name()?);
    }
    cursor.take_kind(Kind::CloseParen).then_some(columns)
}

fn end(cursor: &mut Cursor<'_>) -> Option<End> {
    if cursor.take_any(&["stdin", "stdout"]).is_some() {
        return Some(End::Client);
    }
    cursor.take("program");
    cursor.advance().map(|_file| End::Server)
}

/// Where rows of these columns go that are written as by COPY FROM STDIN.
pub(in crate::planner) fn copied(
    context: Context<'_>,
    table: &Name,
    columns: Vec<String>,
) -> Access {
    copy_in(context, table, Some(columns), &Options::default()).access
}

fn copy_in(
    context: Context<'_>,
    table: &Name,
    columns: Option<Vec<String>>,
    options: &Options,
) -> Draft {
    if let Some(fault) = calls::astray(context, table, true) {
        return Draft::refused("COPY", fault);
    }
    let effect = Effect::CopyIn {
        types: types_of(context, table, columns.as_deref(), options),
    };
    let access = match context.relation(table) {
        Relation::System | Relation::Single | Relation::View(_) | Relation::Reference(_)
            if context.tenant =>
        {
            let types = Arc::from([]);
            return single(context, table, Effect::CopyIn { types }, true);
        }
        Relation::Sharded { ids, .. }
            if context.is_one_shard() && ids.column.is_none() && !context.tenant =>
        {
            Access::Home
        }
        Relation::Reference(_)
        | Relation::Single
        | Relation::System
        | Relation::View(_)
        | Relation::Refused
            if context.is_one_shard() && !context.tenant =>
        {
            Access::Home
        }
        Relation::Sharded {
            distribution,
            key,
            ids,
            table: known,
        } => {
            let columns = columns.or_else(|| {
                Some(
                    known?
                        .copy_columns()
                        .map(|column| column.name.clone())
                        .collect(),
                )
            });
            let tenant = match tenant::copied(context, table, key) {
                Ok(tenant) => tenant,
                Err(fault) => return Draft::refused("COPY", fault),
            };
            match split(context, table, columns, (key, ids), options) {
                _ if !context.is_one_shard() && is_unknown(context, table, key, ids) => {
                    Access::Refuse(Arc::new(refuse::unknown_lookup(&table.to_string())))
                }
                Ok(_) if context.is_one_shard() && !ids.carries && tenant.is_none() => Access::Home,
                Ok((key_columns, format)) => {
                    let modifiers = context.modifiers(table, key);
                    let split = CopySplit {
                        modifiers: modifiers.into(),
                        distribution,
                        key_columns,
                        by_id: ids.by,
                        checks_id: ids.carries,
                        format,
                        table: table.to_string(),
                        tenant,
                        looked: context.placed_by(table, key, ids),
                        entries: copied_entries(context, table, key, ids),
                    };
                    let draft = Draft::writing("COPY", effect, Access::CopySplit(Arc::new(split)));
                    return Draft {
                        confined: tenant.map(|_| Arc::from([])),
                        ..draft
                    };
                }
                Err(fault) => Access::Refuse(Arc::new(fault)),
            }
        }
        Relation::Reference(known) => {
            let complete = known.is_some_and(|known| {
                columns.as_ref().is_none_or(|columns| {
                    known
                        .copy_columns()
                        .all(|column| columns.contains(&column.name))
                })
            });
            if complete {
                Access::Broadcast { transaction: true }
            } else {
                Access::Refuse(Arc::new(refuse::copies(
                    &table.to_string(),
                    "columns left to their defaults, or that are not known",
                )))
            }
        }
        Relation::Single | Relation::System => Access::Home,
        Relation::View(view) if context.is_single(view) => Access::Home,
        Relation::View(_) => Access::Refuse(Arc::new(refuse::view(&table.to_string()))),
        Relation::Refused => Access::Refuse(Arc::new(refuse::unlisted(&table.to_string()))),
    };
    Draft::writing("COPY", effect, access)
}

/// Of a COPY in binary, the places of the columns whose types are the users', and these; of all columns
/// where none are named.
fn types_of(
    context: Context<'_>,
    table: &Name,
    columns: Option<&[String]>,
    options: &Options,
) -> Arc<[(usize, u32)]> {
    let (Relation::Sharded {
        table: Some(table), ..
    }
    | Relation::Reference(Some(table))) = context.relation(table)
    else {
        return Arc::from([]);
    };
    let kind = |name: &String| {
        let column = table.columns.iter().find(|column| column.name == *name);
        column.map_or(0, |column| column.oid)
    };
    let kinds: Vec<u32> = match columns {
        Some(columns) => columns.iter().map(kind).collect(),
        None => table.copy_columns().map(|column| column.oid).collect(),
    };
    kinds
        .into_iter()
        .enumerate()
        .filter(|(_, kind)| options.binary && *kind >= FIRST_USER)
        .collect()
}

fn split(
    context: Context<'_>,
    table: &Name,
    columns: Option<Vec<String>>,
    (key, ids): (&[String], &Ids),
    options: &Options,
) -> Result<(Vec<usize>, Format), crate::error::Fault> {
    let columns = columns.ok_or_else(|| refuse::columns(&table.to_string()))?;
    if let Some(option) = options.unsplit {
        return Err(refuse::kind(
            &format!("COPY with {option} into a sharded table"),
            "Leave the option out, or load each shard by itself.",
        ));
    }
    if let Some(unique) = ids.uniques.first().filter(|_| !context.is_one_shard()) {
        let why = "is loaded by COPY";
        return Err(refuse::unknown_unique(
            &table.to_string(),
            &unique.column,
            why,
        ));
    }
    let id = ids.column.as_ref();
    let kept = ids.lookups.iter().filter(|_| !context.is_one_shard());
    let looked = kept.map(|lookup| &lookup.column);
    let mut read = key
        .iter()
        .chain(id.filter(|_| ids.carries))
        .chain(looked.clone());
    if read.any(|column| options.forced.contains(column)) {
        return Err(refuse::kind(
            "COPY with FORCE NULL or FORCE NOT NULL of a key column into a sharded table",
            "Leave the key column out of the option.",
        ));
    }
    let mut positions = Vec::with_capacity(key.len());
    for wanted in key {
        let at = columns.iter().position(|column| column == wanted);
        positions.push(at.ok_or_else(|| refuse::no_key_copied(&table.to_string(), wanted))?);
    }
    if let Some(id) = id {
        let at = columns.iter().position(|column| column == id);
        let at = at.ok_or_else(|| refuse::no_id_copied(&table.to_string(), id))?;
        positions.extend(ids.carries.then_some(at));
    }
    for column in looked {
        let at = columns.iter().position(|named| named == column);
        let table = table.to_string();
        let why = "is not among the columns";
        positions.push(at.ok_or_else(|| refuse::unknown_value(&table, column, why))?);
    }
    let format = options.format().ok_or_else(|| {
        refuse::kind(
            "COPY with a delimiter or quote that is not one byte",
            "Give a delimiter, quote and escape of one ASCII character each.",
        )
    })?;
    Ok((positions, format))
}

/// Whether a lookup table's column is not in the catalog.
fn is_unknown(context: Context<'_>, table: &Name, key: &[String], ids: &Ids) -> bool {
    context.looked(table, ids).len() != ids.lookups.len()
        || ids.looked.is_some() && context.placed_by(table, key, ids).is_none()
}

/// The columns that have lookup tables, with their places among those that are read.
fn copied_entries(
    context: Context<'_>,
    table: &Name,
    key: &[String],
    ids: &Ids,
) -> Vec<(usize, LookupColumn)> {
    let first = key.len() + usize::from(ids.carries);
    let columns = context.looked(table, ids).into_iter();
    columns
        .enumerate()
        .map(|(at, column)| (first + at, column))
        .collect()
}

fn copy_out(text: &Text<'_>, table: &Name, options: &Options) -> Draft {
    if let Some(fault) = calls::astray(text.context, table, false) {
        return Draft::refused("COPY", fault);
    }
    if text.context.tenant {
        let binary = options.binary;
        return single(text.context, table, Effect::CopyOut { binary }, false);
    }
    let access = match text.context.relation(table) {
        _ if text.context.is_one_shard() => Access::Home,
        Relation::Sharded { distribution, .. } => Access::Keyed(Arc::new(Keyed {
            distribution,
            keys: None,
            concat: options.concatenates().then(Arc::default),
            splits: false,
            each: false,
            moves: None,
            otherwise: Arc::new(whole_file()),
            gather: Some(Arc::new(gather::whole(table, whole_file()))),
            insert: false,
            modifiers: Arc::from([]),
            looks: false,
            entries: Arc::from([]),
            hinted: None,
            table: table.to_string().into(),
        })),
        // Values of users' types are the home shard's there as they are.
        Relation::Reference(_) if options.binary => Access::Home,
        Relation::Reference(_) => Access::AnyShard,
        Relation::Single | Relation::System => Access::Home,
        Relation::View(view) if text.context.is_single(view) => Access::Home,
        Relation::View(_) => Access::Refuse(Arc::new(refuse::view(&table.to_string()))),
        Relation::Refused => Access::Refuse(Arc::new(refuse::unlisted(&table.to_string()))),
    };
    Draft {
        has_tables: true,
        ..Draft::server(
            "COPY",
            Effect::CopyOut {
                binary: options.binary,
            },
            access,
        )
    }
}

/// COPY by a tenant of a table that is not sharded.
fn single(context: Context<'_>, table: &Name, effect: Effect, written: bool) -> Draft {
    if let Err(fault) = tenant::readable(context, table, written) {
        return Draft::refused("COPY", fault);
    }
    let access = match context.relation(table) {
        Relation::Reference(_) => Access::AnyShard,
        Relation::Refused => Access::Refuse(Arc::new(refuse::unlisted(&table.to_string()))),
        Relation::Single | Relation::System | Relation::View(_) | Relation::Sharded { .. } => {
            Access::Home
        }
    };
    Draft {
        writes: written,
        has_tables: true,
        confined: Some(Arc::from([])),
        ..Draft::server("COPY", effect, access)
    }
}

fn whole_file() -> crate::error::Fault {
    refuse::kind(
        "COPY TO in binary format or with a header",
        "Use text or csv format without a header.",
    )
}

fn query(text: &Text<'_>, mut cursor: Cursor<'_>) -> Option<Draft> {
    let start = cursor;
    cursor.skip_group().then_some(())?;
    let length = start.tokens().len() - cursor.tokens().len();
    let inner = start.tokens().get(1..length.checked_sub(1)?)?;
    let mut from = start;
    from.advance();
    cursor.take("to").then_some(())?;
    let end = end(&mut cursor)?;
    let mut options = Options::default();
    options.read(cursor);
    let mut draft = plan_one(&text.from(from).until(inner));
    draft.verb = "COPY";
    draft.exact = true;
    if draft.effect == Effect::None {
        draft.effect = Effect::CopyOut {
            binary: options.binary,
        };
    }
    // A server's file is that of one shard.
    let whole = |keyed: &Keyed, otherwise| match end {
        End::Server => keyed.on_one_shard(otherwise),
        End::Client => keyed.unmerged(otherwise),
    };
    draft.access = match draft.access {
        Access::Generate(_) => Access::Refuse(Arc::new(refuse::ids_within())),
        _ if text.context.is_one_shard() => Access::Home,
        Access::Anywhere | Access::Session => Access::Home,
        Access::AnyShard if options.binary => Access::Home,
        Access::Keyed(keyed) if !options.concatenates() && keyed.concat.is_some() => {
            Access::Keyed(Arc::new(whole(&keyed, whole_file())))
        }
        // A line is not looked into.
        Access::Keyed(keyed) if let Some(clause) = finished(&keyed) => {
            Access::Keyed(Arc::new(whole(
                &keyed,
                refuse::read(&keyed.table, clause, keyed.keys.is_some()),
            )))
        }
        // Its command tag and rows are those of one COPY; copies answer alike.
        Access::Broadcast { .. } => Access::Refuse(Arc::new(refuse::kind(
            "COPY of a write to a reference table",
            "Send the write by itself.",
        ))),
        access @ (Access::Bound
        | Access::Home
        | Access::AnyShard
        | Access::Keyed(_)
        | Access::CopySplit(_)
        | Access::Shard(_)
        | Access::Gather(_)
        | Access::Refuse(_)) => access,
    };
    if matches!(end, End::Server) {
        draft.effect = Effect::None;
        draft.writes = true;
        draft.confined = None;
    }
    Some(draft)
}

/// The clause for which a query's rows would have to be put together.
fn finished(keyed: &Keyed) -> Option<&'static str> {
    let finish = keyed.concat.as_ref()?;
    if !finish.totals.is_empty() {
        Some("an aggregate")
    } else if !finish.order.is_empty() {
        Some("ORDER BY")
    } else {
        finish.is_limited.then_some("LIMIT or OFFSET")
    }
}

/// Files are read and written by the server that runs it: the home shard's.
fn on_server(text: &Text<'_>, table: &Name) -> Draft {
    let home = match text.context.relation(table) {
        Relation::Single | Relation::System => true,
        Relation::Sharded { .. }
        | Relation::Reference(_)
        | Relation::View(_)
        | Relation::Refused => text.context.is_one_shard(),
    };
    if home {
        return Draft::writing("COPY", Effect::None, Access::Home);
    }
    Draft::refused(
        "COPY",
        refuse::kind(
            "COPY from or to a file of a server",
            "Use STDIN or STDOUT, as psql's \\copy does.",
        ),
    )
}

impl Options {
    fn concatenates(&self) -> bool {
        !self.binary && !self.header
    }

    fn format(&self) -> Option<Format> {
        if self.binary {
            return Some(Format::Binary);
        }
        let byte = |option: &Option<String>, default: u8| match option {
            None => Some(default),
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() => Some(*byte),
                _ => None,
            },
        };
        let null = |default: &str| self.null.as_deref().unwrap_or(default).as_bytes().to_vec();
        Some(if self.csv {
            let quote = byte(&self.quote, b'"')?;
            Format::Csv {
                delimiter: byte(&self.delimiter, b',')?,
                quote,
                escape: byte(&self.escape, quote)?,
                null: null(""),
                header: self.header,
            }
        } else {
            Format::Text {
                delimiter: byte(&self.delimiter, b'\t')?,
                null: null("\\N"),
                header: self.header,
            }
        })
    }

    /// Reads `[WITH] (name value, …)` or the words of before PostgreSQL 9.0.
    fn read(&mut self, mut cursor: Cursor<'_>) {
        cursor.take("with");
        if cursor.take_kind(Kind::OpenParen) {
            while cursor.kind().is_some_and(|kind| kind != Kind::CloseParen) {
                self.named(&mut cursor);
                while cursor
                    .kind()
                    .is_some_and(|kind| !matches!(kind, Kind::Comma | Kind::CloseParen))
                {
                    if !cursor.skip_group() {
                        cursor.advance();
                    }
                }
                cursor.take_kind(Kind::Comma);
            }
            return;
        }
        while cursor.peek().is_some() && !cursor.at("where") {
            self.word(&mut cursor);
        }
    }

    fn named(&mut self, cursor: &mut Cursor<'_>) {
        let Some(name) = cursor.name() else {
            cursor.advance();
            return;
        };
        match name.as_str() {
            "format" => {
                let format = cursor.string().or_else(|| cursor.name());
                match format.as_deref().map(str::to_ascii_lowercase).as_deref() {
                    Some("csv") => self.csv = true,
                    Some("binary") => self.binary = true,
                    Some("text") => (),
                    Some(_) | None => self.unsplit = Some("a FORMAT that is not known"),
                }
            }
            "header" => {
                let value = cursor.bytes().to_ascii_lowercase();
                self.header = !matches!(
                    value.as_slice(),
                    b"false" | b"off" | b"0" | b"'false'" | b"'off'"
                );
            }
            "delimiter" => self.delimiter = cursor.string(),
            "null" => self.null = cursor.string(),
            "quote" => self.quote = cursor.string(),
            "escape" => self.escape = cursor.string(),
            "encoding" => self.encoding(cursor),
            "freeze" | "force_quote" => (),
            "force_not_null" | "force_null" => {
                let mut inside = *cursor;
                inside.take_kind(Kind::OpenParen);
                self.forced(&mut inside);
            }
            "default" => self.unsplit = Some("DEFAULT"),
            _ => self.unsplit = Some("an option that is not known"),
        }
    }

    /// A list of columns, or `*`.
    fn forced(&mut self, cursor: &mut Cursor<'_>) {
        if cursor.take_operator("*") {
            self.unsplit = Some("FORCE NULL or FORCE NOT NULL of all columns");
        }
        while let Some(column) = cursor.name() {
            self.forced.push(column);
            if !cursor.take_kind(Kind::Comma) {
                break;
            }
        }
    }

    fn encoding(&mut self, cursor: &mut Cursor<'_>) {
        let name = cursor.string().unwrap_or_default();
        if crate::sql::scan::Encoding::of(&name) != crate::sql::scan::Encoding::Utf8 {
            self.unsplit = Some("an ENCODING other than UTF8");
        }
    }

    fn word(&mut self, cursor: &mut Cursor<'_>) {
        let value = |cursor: &mut Cursor<'_>| {
            cursor.take("as");
            cursor.string()
        };
        match cursor.take_any(&[
            "binary",
            "csv",
            "header",
            "delimiter",
            "delimiters",
            "null",
            "quote",
            "escape",
            "encoding",
            "freeze",
            "force",
        ]) {
            Some("binary") => self.binary = true,
            Some("csv") => self.csv = true,
            Some("header") => self.header = true,
            Some("delimiter" | "delimiters") => self.delimiter = value(cursor),
            Some("null") => self.null = value(cursor),
            Some("quote") => self.quote = value(cursor),
            Some("escape") => self.escape = value(cursor),
            Some("encoding") => self.encoding(cursor),
            Some("force") => {
                // FORCE QUOTE a, b / FORCE NOT NULL a, b: names up to the next option.
                if cursor.take_words(&["not", "null"]) || cursor.take("null") {
                    self.forced(cursor);
                } else {
                    cursor.take("quote");
                    cursor.take_operator("*");
                    while cursor.name().is_some() && cursor.take_kind(Kind::Comma) {}
                }
            }
            Some("freeze") => (),
            Some(_) | None => {
                self.unsplit = Some("an option that is not known");
                cursor.advance();
            }
        }
    }
}
