//! What a read needs of each table, as PostgreSQL's own planner says on the twin.
//!
//! `EXPLAIN (VERBOSE, FORMAT JSON)` of the statement lists every scan with its condition and every column
//! that is passed on. A plan answers as its statement does whatever rows the tables hold; so rows that no scan
//! of a table lets through, and columns that the plan does not mention, change no answer, and need not be
//! fetched. Conditions that PostgreSQL derived (through equal columns, out of ORs) are used as well.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::filter::{ALIAS, Groups, Writing, equated};
use super::reduce::{Grouped, Partner, grouped, partners};
use crate::config::Ids;
use crate::error::{Fault, SqlState};
use crate::placement::ShardSet;
use crate::placement::catalog::{Column, Table};
use crate::planner::context::{Context, Relation};
use crate::planner::plan::{Gather, Route, TextValues};
use crate::planner::refuse;
use crate::planner::route::route;
use crate::planner::script::script;
use crate::sql::cursor::{Name, word_name};
use crate::sql::quote::quote_ident;
use crate::sql::scan::{Kind, Lexing, scan};

/// The rows and columns of one table that a read needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Schema and name, quoted.
    pub table: String,
    pub place: Place,
    /// The query that a shard is asked.
    pub query: String,
    /// The same, without a condition.
    pub all: String,
    /// What each scan of the table lets through; none where all rows are needed.
    pub passing: Vec<Passing>,
    /// By how many lists of values `query` is narrowed.
    pub narrowed: usize,
    /// The table and the columns that the answer is loaded into, quoted.
    pub target: String,
    /// The columns, quoted.
    pub columns: Vec<String>,
    /// For each column whether a cast to text may make another text of it than its type's output function, as of
    /// `character`.
    pub casts_otherwise: Vec<bool>,
    /// Columns, quoted, by which the plan looks rows up again and again: an index serves it once there are many.
    pub lookups: BTreeSet<Vec<String>>,
    /// Whether every column's binary form means the same on every server.
    pub binary: bool,
    /// Whether the query has parameters of the client's.
    pub bound: bool,
}

/// The rows of a table that one scan lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// SQL; empty for all rows.
    condition: String,
    among: Vec<Among>,
}

/// Only rows are needed whose `column` is among the values of a column of another fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Among {
    column: String,
    /// The fragment's table, and its column, quoted.
    pub table: String,
    pub other_column: String,
    /// The type of both in SQL.
    kind: &'static str,
}

impl Fragment {
    /// What could narrow its rows further, once it is there.
    pub fn among(&self) -> impl Iterator<Item = &Among> {
        self.passing.iter().flat_map(|passing| &passing.among)
    }

    /// The query with those of them that `list` knows, as the text of an array; and how many conditions they are.
    pub fn narrowed_by(&self, list: impl Fn(&Among) -> Option<String>) -> (String, usize) {
        let mut count = 0_usize;
        let mut parts = Vec::with_capacity(self.passing.len());
        for passing in &self.passing {
            let own = Some(passing.condition.clone()).filter(|sql| !sql.is_empty());
            let lists = passing.among.iter().filter_map(|among| {
                let Among { column, kind, .. } = among;
                let list = list(among)?;
                Some(format!(
                    "{ALIAS}.{column} = ANY ({list}::pg_catalog.{kind}[])"
                ))
            });
            let own_count = usize::from(own.is_some());
            let all: Vec<String> = own.into_iter().chain(lists).collect();
            if all.is_empty() {
                return (self.all.clone(), 0);
            }
            count = count.saturating_add(all.len().saturating_sub(own_count));
            parts.push(format!("({})", all.join(" AND ")));
        }
        if parts.is_empty() {
            return (self.all.clone(), 0);
        }
        (format!("{} WHERE {}", self.all, parts.join(" OR ")), count)
    }
}

/// Which shards have the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Each of these some of them.
    Several(ShardSet),
    /// Each all of them.
    Any,
    Home,
}

/// What becomes of the conditions of rows that are sent as text. To be read back the same they are written in
/// another style than the client's, under which what a condition makes of a value's text is something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InText {
    /// The client's style is that one: the shards check them.
    Kept,
    /// The shards send all rows, where any are sent as text.
    Lost,
    /// They send all rows in any case.
    AllLost,
}

/// One scan of a plan.
struct Scan<'p> {
    table: (String, String),
    alias: &'p str,
    filter: Option<&'p str>,
}

/// All that is read of a plan.
#[derive(Default)]
struct Plan<'p> {
    scans: Vec<Scan<'p>>,
    /// Columns behind the name of their scan; `*` for whole rows.
    columns: BTreeSet<(String, String)>,
    /// Whether something is compared with a subquery's rows, as it does not say what.
    hides: bool,
    whole: Option<&'p Value>,
}

/// What must be fetched, in the order of the tables' names. `plan` is the answer of EXPLAIN, `moment` the gather
/// server's `now()`, `in_text` what the shards may check.
///
/// # Errors
/// 0A000 for a scan of what is no table of the database's own; 40001 for a column that is not known yet.
pub fn fragments(
    context: Context<'_>,
    gather: &Gather,
    plan: &[u8],
    moment: &str,
    in_text: InText,
) -> Result<Vec<Fragment>, Fault> {
    let unread = || {
        Fault::error(
            SqlState::INTERNAL,
            "the gather server's plan was not understood",
        )
        .hint("This is a fault of pgherd; please report it.")
    };
    // What the client's encoding has and UTF-8 has not is in no condition that is pushed.
    let plan = String::from_utf8_lossy(plan);
    let value: Value = serde_json::from_str(&plan).map_err(|_error| unread())?;
    let mut found = Plan::default();
    found.read(&value, 0)?;
    found.whole = Some(&value);
    let mut tables: BTreeMap<&(String, String), Vec<&Scan<'_>>> = BTreeMap::new();
    for scan in &found.scans {
        tables.entry(&scan.table).or_default().push(scan);
    }
    let mut needed = Vec::with_capacity(tables.len());
    for ((schema, name), scans) in tables {
        let full = Name::within(schema, name);
        let table = context.table(&full).ok_or_else(|| refuse::columns(name))?;
        let columns = found.needed(context, table, &scans, gather)?;
        needed.push((full, scans, columns));
    }
    let mut columns = needed.iter().flat_map(|(_, _, columns)| columns);
    let reducing = Reducing {
        context,
        plan: &found,
        moment,
        is_checked: match in_text {
            InText::Kept => true,
            InText::Lost => columns.all(|column| is_alike(column.oid)),
            InText::AllLost => false,
        },
    };
    let mut fragments = Vec::with_capacity(needed.len());
    for (full, scans, columns) in needed {
        let own = condition(&scans, gather, moment);
        let passing = if gather.filters {
            reducing.passing(&scans)
        } else {
            Vec::new()
        };
        let place = match context.relation(&full) {
            Relation::Sharded { distribution, .. } => {
                Place::Several(holders(context, &full, &own, distribution))
            }
            Relation::Reference(_) => Place::Any,
            Relation::Single => Place::Home,
            Relation::System | Relation::View(_) | Relation::Refused => {
                return Err(refuse::mixed(&gather.table, &full.name));
            }
        };
        let lookups = scans
            .iter()
            .filter_map(|scan| equated(scan.filter?, scan.alias));
        let lookups = lookups
            .map(|names| names.iter().map(|name| quote_ident(name)).collect())
            .collect();
        fragments.push(Fragment {
            lookups,
            ..fragment(&full, place, &columns, passing)
        });
    }
    Ok(fragments)
}

impl<'p> Plan<'p> {
    fn read(&mut self, value: &'p Value, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(refuse::deep_plan());
        }
        match value {
            Value::Array(values) => values
                .iter()
                .try_for_each(|value| self.read(value, depth.saturating_add(1))),
            Value::Object(fields) => {
                self.node(fields);
                fields
                    .values()
                    .try_for_each(|value| self.read(value, depth.saturating_add(1)))
            }
            Value::String(text) => {
                self.expression(text);
                Ok(())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn node(&mut self, fields: &'p serde_json::Map<String, Value>) {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let (Some(kind), Some(name), Some(schema)) =
            (text("Node Type"), text("Relation Name"), text("Schema"))
        else {
            return;
        };
        if kind == "ModifyTable" {
            return;
        }
        self.scans.push(Scan {
            table: (schema.to_owned(), name.to_owned()),
            alias: text("Alias").unwrap_or(name),
            // A sample is taken of all rows.
            filter: text("Filter").filter(|_| kind == "Seq Scan"),
        });
    }

    /// Notes every `name.column` and `name.*`.
    fn expression(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let Ok(tokens) = scan(bytes, Lexing::default()) else {
            return;
        };
        self.hides |= tokens.iter().any(|token| token.of(bytes) == b"SubPlan");
        for three in tokens.windows(3) {
            let [qualifier, dot, column] = *three else {
                continue;
            };
            if dot.kind != Kind::Dot {
                continue;
            }
            let column = match word_name(column, bytes) {
                Some(name) => name,
                None if column.of(bytes).starts_with(b"*") => "*".to_owned(),
                None => continue,
            };
            if let Some(qualifier) = word_name(qualifier, bytes) {
                self.columns.insert((qualifier, column));
            }
        }
    }

    /// The columns of a table that the plan may look at, and those that decide whether the twin takes a row.
    fn needed<'t>(
        &self,
        context: Context<'_>,
        table: &'t Table,
        scans: &[&Scan<'_>],
        gather: &Gather,
    ) -> Result<Vec<&'t Column>, Fault> {
        let mentioned = |alias: &str, column: &str| {
            let pair = (alias.to_owned(), column.to_owned());
            self.columns.contains(&pair)
        };
        let whole = scans.iter().any(|scan| mentioned(scan.alias, "*"))
            || may_be_bounded(context, table, 0);
        // Of a plan with one scan, columns are written without its name.
        let is_alone = self.scans.len() == 1;
        let known = |column: &str| table.columns.iter().any(|known| known.name == column);
        for (alias, column) in &self.columns {
            let is_own = scans.iter().any(|scan| scan.alias == alias);
            if is_own && column != "*" && gather.filters && !known(column) {
                return Err(refuse::stale_catalog());
            }
        }
        let is_needed = |column: &Column| {
            let is_said = gather
                .words
                .as_ref()
                .is_none_or(|words| words.contains(&column.name));
            let is_read = !gather.filters
                || is_alone
                || self.hides
                || scans.iter().any(|scan| mentioned(scan.alias, &column.name));
            column.primary || whole || is_said && is_read
        };
        let mut columns: Vec<&Column> = table.columns.iter().filter(|&it| is_needed(it)).collect();
        if columns.is_empty() {
            // Only how many rows there are is asked.
            columns.extend(table.columns.first());
        }
        Ok(columns)
    }
}

/// Whether a table may be a partition whose bounds are over other columns than its primary key's.
fn may_be_bounded(context: Context<'_>, table: &Table, depth: usize) -> bool {
    table.parents.iter().any(|(schema, name)| {
        let parent = context.table(&Name::within(schema, name));
        parent.is_none_or(|parent| {
            !parent.columns.iter().any(|column| column.primary)
                || depth > DEPTH_MAX
                || may_be_bounded(context, parent, depth.saturating_add(1))
        })
    })
}

/// The condition that rows pass which any of the scans lets through; empty for all rows.
fn condition(scans: &[&Scan<'_>], gather: &Gather, moment: &str) -> String {
    if !gather.filters {
        return String::new();
    }
    let conditions: Option<BTreeSet<String>> = scans
        .iter()
        .map(|scan| writing(scan, ALIAS, moment).pushed(scan.filter?))
        .collect();
    let conditions = conditions.unwrap_or_default().into_iter();
    let conditions: Vec<String> = conditions.map(|one| format!("({one})")).collect();
    conditions.join(" OR ")
}

fn writing<'a>(scan: &Scan<'a>, within: &'a str, moment: &'a str) -> Writing<'a> {
    Writing {
        alias: scan.alias,
        within,
        moment,
        groups: None,
    }
}

/// What a shard can see of the rows that a scan's rows are joined with.
struct Reducing<'a> {
    context: Context<'a>,
    plan: &'a Plan<'a>,
    moment: &'a str,
    /// The shards may check conditions.
    is_checked: bool,
}

impl Reducing<'_> {
    /// What the scans of a table let through; nothing where one of them needs all rows.
    fn passing(&self, scans: &[&Scan<'_>]) -> Vec<Passing> {
        let mut all = Vec::with_capacity(scans.len());
        let has_whole_groups = self.has_whole_groups(scans);
        for scan in scans {
            let own = scan.filter.filter(|_| self.is_checked);
            let own = own.and_then(|it| writing(scan, ALIAS, self.moment).pushed(it));
            let group = self.of_group(scan, ALIAS).filter(|_| has_whole_groups);
            let mut left = CONDITIONS_MAX;
            let further = self.conditions(scan, ALIAS, &mut vec![scan.alias], &mut left);
            let conditions: Vec<String> = own.into_iter().chain(group).chain(further).collect();
            let passing = Passing {
                condition: conditions.join(" AND "),
                among: self.among(scan),
            };
            if passing == Passing::default() {
                return Vec::new();
            }
            if !all.contains(&passing) {
                all.push(passing);
            }
        }
        all
    }

    /// The columns of other tables' rows that a scan's rows must have a partner in.
    fn among(&self, scan: &Scan<'_>) -> Vec<Among> {
        let mut all = Vec::new();
        let Some(plan) = self.plan.whole else {
            return all;
        };
        for partner in partners(plan, scan.alias) {
            let mut scans = self.plan.scans.iter();
            let Some(other) = scans.find(|it| it.alias == partner.other) else {
                continue;
            };
            let kind = self.kind(scan, &partner.column);
            let other_kind = self.kind(other, &partner.other_column);
            let is_apart = other.table != scan.table && self.is_plain(scan, &partner, other);
            let (Some(kind), true) = (kind, kind == other_kind && is_apart) else {
                continue;
            };
            let among = Among {
                column: quote_ident(&partner.column),
                table: Name::within(&other.table.0, &other.table.1).quoted(),
                other_column: quote_ident(&partner.other_column),
                kind,
            };
            if !all.contains(&among) {
                all.push(among);
            }
        }
        all
    }

    /// Whether the columns themselves are compared: a cast to text is none only of texts.
    fn is_plain(&self, scan: &Scan<'_>, partner: &Partner, other: &Scan<'_>) -> bool {
        let is_text = |scan, column: &str| self.kind(scan, column) == Some("text");
        !partner.is_cast || is_text(scan, &partner.column) && is_text(other, &partner.other_column)
    }

    /// The type of a column, if its values mean the same as texts on every server.
    fn kind(&self, scan: &Scan<'_>, column: &str) -> Option<&'static str> {
        let table = self
            .context
            .table(&Name::within(&scan.table.0, &scan.table.1))?;
        let column = table.columns.iter().find(|it| it.name == column)?;
        match column.oid {
            _ if column.loose => None,
            20 => Some("int8"),
            21 => Some("int2"),
            23 => Some("int4"),
            25 | 1043 => Some("text"),
            1700 => Some("numeric"),
            2950 => Some("uuid"),
            _ => None,
        }
    }

    /// Conditions by which a shard leaves out rows that have no partner on it, where it has all partners they
    /// could have and only some rows may be one. `above` are the scans that lead here, and so many more partners
    /// as are `left` are looked at.
    fn conditions<'p>(
        &'p self,
        scan: &Scan<'_>,
        name: &str,
        above: &mut Vec<&'p str>,
        left: &mut usize,
    ) -> Vec<String> {
        let may_ask = self.is_checked && above.len() < PARTNERS_MAX;
        let Some(plan) = self.plan.whole.filter(|_| may_ask) else {
            return Vec::new();
        };
        let mut conditions = Vec::new();
        for partner in partners(plan, scan.alias) {
            let mut scans = self.plan.scans.iter();
            let Some(other) = scans.find(|it| it.alias == partner.other) else {
                continue;
            };
            if above.contains(&other.alias)
                || !self.is_beside(scan, &partner, other)
                || !self.is_plain(scan, &partner, other)
            {
                continue;
            }
            let Some(rest) = left.checked_sub(1) else {
                break;
            };
            *left = rest;
            let other_name = format!("{ALIAS}{}", above.len());
            above.push(other.alias);
            let own = other.filter;
            let own = own.and_then(|it| writing(other, &other_name, self.moment).pushed(it));
            let group = self.of_group(other, &other_name);
            let further = self.conditions(other, &other_name, above, left);
            above.pop();
            let rest: Vec<String> = own.into_iter().chain(group).chain(further).collect();
            if rest.is_empty() {
                continue;
            }
            let table = Name::within(&other.table.0, &other.table.1).quoted();
            let (column, other_column) = (
                quote_ident(&partner.column),
                quote_ident(&partner.other_column),
            );
            let condition = format!(
                "EXISTS (SELECT FROM ONLY {table} {other_name} WHERE {other_name}.{other_column} = {name}.{column} AND {})",
                rest.join(" AND ")
            );
            if !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
        conditions
    }

    /// The condition that a row is of a group which HAVING does not drop, where its shard has all of the group.
    fn of_group(&self, scan: &Scan<'_>, name: &str) -> Option<String> {
        let plan = self.plan.whole.filter(|_| self.is_checked)?;
        let Grouped { column, having } = grouped(plan, scan.alias)?;
        let full = Name::within(&scan.table.0, &scan.table.1);
        let table = self.context.table(&full)?;
        let key = table.columns.iter().find(|it| it.name == column)?;
        let is_whole = match self.context.relation(&full) {
            Relation::Reference(_) | Relation::Single => true,
            Relation::Sharded { key, ids, .. } => {
                matches!(key, [key] if *key == column) && is_placed_by_key(ids)
            }
            Relation::System | Relation::View(_) | Relation::Refused => false,
        };
        if !is_whole || key.loose {
            return None;
        }
        self.kind(scan, &column)?;
        let exact = table.columns.iter().filter(|column| {
            let kind = self.kind(scan, &column.name);
            matches!(kind, Some("int2" | "int4" | "int8" | "numeric"))
        });
        let groups = Groups {
            exact: exact.map(|column| column.name.clone()).collect(),
            by: column,
        };
        let within = format!("{name}g");
        let own = writing(scan, &within, self.moment);
        let filter = match scan.filter {
            Some(filter) => format!(" WHERE {}", own.pushed_whole(filter)?),
            None => String::new(),
        };
        let having = Writing {
            groups: Some(&groups),
            ..own
        }
        .pushed(having)?;
        let column = quote_ident(&groups.by);
        let table = full.quoted();
        let among = format!(
            "{name}.{column} IN (SELECT {within}.{column} FROM ONLY {table} {within}{filter} GROUP BY {within}.{column} HAVING {having})"
        );
        Some(if key.primary {
            among
        } else {
            format!("({among} OR {name}.{column} IS NULL)")
        })
    }

    /// Whether the rows that are fetched of a table make whole groups for each scan whose rows are grouped: a part of one
    /// that HAVING drops might pass.
    fn has_whole_groups(&self, scans: &[&Scan<'_>]) -> bool {
        let Some(plan) = self.plan.whole else {
            return false;
        };
        let columns = scans.iter().filter_map(|scan| grouped(plan, scan.alias));
        let columns: BTreeSet<String> = columns.map(|it| it.column).collect();
        let [column] = columns.iter().collect::<Vec<_>>()[..] else {
            return false;
        };
        let is_by_group = |scan: &&Scan<'_>| {
            let mut asked = partners(plan, scan.alias).into_iter();
            asked.all(|partner| partner.column == *column)
        };
        let is_all = |scan: &&Scan<'_>| scan.filter.is_none();
        scans.iter().all(is_by_group) && (scans.len() == 1 || scans.iter().all(is_all))
    }

    /// Whether the shard of each row has every row that could be its partner.
    fn is_beside(&self, scan: &Scan<'_>, partner: &Partner, other: &Scan<'_>) -> bool {
        let relation = |scan: &Scan<'_>| {
            let name = Name::within(&scan.table.0, &scan.table.1);
            self.context.relation(&name)
        };
        match (relation(scan), relation(other)) {
            // A copy may be read beside rows of any shard, where single tables are empty.
            (_, Relation::Reference(_)) | (Relation::Single, Relation::Single) => true,
            (
                Relation::Sharded {
                    distribution,
                    key: [key],
                    ids,
                    ..
                },
                Relation::Sharded {
                    distribution: other_distribution,
                    key: [other_key],
                    ids: other_ids,
                    ..
                },
            ) => {
                distribution == other_distribution
                    && is_placed_by_key(ids)
                    && is_placed_by_key(other_ids)
                    && *key == partner.column
                    && *other_key == partner.other_column
            }
            _ => false,
        }
    }
}

/// Whether the key alone says where a row is.
fn is_placed_by_key(ids: &Ids) -> bool {
    !ids.by && ids.looked.is_none()
}

/// The shards that may have rows of a table which pass a condition.
fn holders(context: Context<'_>, table: &Name, condition: &str, distribution: usize) -> ShardSet {
    let distribution = context.topology.distribution(distribution);
    let all = distribution.map_or_else(ShardSet::new, |it| it.shards().clone());
    if condition.is_empty() {
        return all;
    }
    let text = format!("SELECT 1 FROM {} {ALIAS} WHERE {condition}", table.quoted());
    let script = script(text.as_bytes(), context);
    let values = TextValues {
        text: text.as_bytes(),
        literals: &script.literals,
        // What the client's encoding makes of other texts is not known here.
        is_utf8: false,
    };
    let [statement] = script.statements.as_slice() else {
        return all;
    };
    match route(statement, context.topology, &values) {
        Ok(Route::Single(shard)) => std::iter::once(shard).collect(),
        Ok(Route::Concat(mut shards, ..)) => {
            shards.intersect(&all);
            shards
        }
        Ok(_) | Err(_) => all,
    }
}

fn fragment(name: &Name, place: Place, columns: &[&Column], passing: Vec<Passing>) -> Fragment {
    let table = name.quoted();
    let list = |prefix: &str| {
        let names = columns
            .iter()
            .map(|column| prefix.to_owned() + &quote_ident(&column.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let all = format!("SELECT {} FROM ONLY {table} {ALIAS}", list("t."));
    let target = if columns.is_empty() {
        table.clone()
    } else {
        format!("{table} ({})", list(""))
    };
    let mut fragment = Fragment {
        place,
        query: String::new(),
        all,
        passing,
        narrowed: 0,
        target,
        columns: columns
            .iter()
            .map(|column| quote_ident(&column.name))
            .collect(),
        casts_otherwise: columns
            .iter()
            .map(|column| column.oid == BPCHAR || !is_alike(column.oid))
            .collect(),
        lookups: BTreeSet::new(),
        binary: columns.iter().all(|column| is_alike(column.oid)),
        bound: false,
        table,
    };
    (fragment.query, _) = fragment.narrowed_by(|_| None);
    fragment
}

const BPCHAR: u32 = 1042;

/// Whether the binary form of a type means the same on every server: it is built in, and no number of an
/// object.
pub fn is_alike(oid: u32) -> bool {
    /// `regproc` and its like, and their arrays; `aclitem` has no binary form.
    const NUMBERS: [u32; 24] = [
        24, 1008, 2202, 2207, 2203, 2208, 2204, 2209, 2205, 2210, 2206, 2211, 3734, 3735, 3769,
        3770, 4089, 4090, 4096, 4097, 4191, 4192, 1033, 1034,
    ];
    oid < FIRST_UNPINNED && !NUMBERS.contains(&oid)
}

/// Types below are PostgreSQL's own (`FirstUnpinnedObjectId`).
const FIRST_UNPINNED: u32 = 12_000;

/// Nodes within nodes, at most.
pub(super) const DEPTH_MAX: usize = 500;

/// Scans that one after another reduce the next, at most.
const PARTNERS_MAX: usize = 5;

/// Partners that are looked at for the conditions of one scan, at most: each of many joined tables may be a
/// partner of each.
const CONDITIONS_MAX: usize = 64;
