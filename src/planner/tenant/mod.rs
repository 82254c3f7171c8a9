//! Confines a tenant's session to the tenant's rows.
//!
//! Of each reference to a sharded table, a conjunct of WHERE or of a join's ON must say that the tenant's
//! column itself is equal to one value, or to such a column of a reference beside it; the session holds that
//! value against the tenant at each execution ([`check`]). Sets of values, OR and what is made of the
//! column prove nothing here: PostgreSQL would look at other tenants' rows with the rest of WHERE before
//! it compares their tenant, and an error could tell of them. A single equality comes before all that
//! costs more, and [`Features::TEST`] is the way around that. *Invariant:* whatever is not listed as
//! harmless is refused: functions, statements, catalogs, and tables that are not known.

mod fault;

use std::sync::Arc;

use crate::error::{Fault, SqlState};
use crate::placement::catalog::Table;
use crate::placement::code::Code;
use crate::placement::topology::Kind;
use crate::planner::context::{Context, Relation};
use crate::planner::data::is_into;
use crate::planner::draft::Draft;
use crate::planner::facts;
use crate::planner::functions;
use crate::planner::plan::{Access, Confined, Effect, Operand, Values};
use crate::planner::route::decode;
use crate::planner::survey::{Reference, Rows, Survey};
use crate::sql::cursor::{Cursor, Name, word_name};
use crate::sql::scan::Kind as Token;
use crate::sql::statement::{Assignment, Block, Expr, Features, Insert};
use crate::types::key::{Key, KeyType};
use crate::types::oid;

pub(super) use fault::unread;
pub use fault::{another, fixed, no_tenancy, not_allowed, unknown_tenant, unsure};
use fault::{
    catalog, conflict, everyones, function, given, no_column, no_key, search_path, tested,
    unconfined, unknown, view,
};

/// Settings that a tenant's session must not change: whom it acts as, and what decides which condition is
/// looked at first.
const SETTINGS: [&str; 3] = ["role", "session_authorization", "cpu_operator_cost"];

/// Columns that every table has.
const SYSTEM_COLUMNS: [&str; 6] = ["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

/// Catalogs that hold no row's values, and nothing of other sessions.
const CATALOGS: [&str; 44] = [
    "columns",
    "constraint_column_usage",
    "key_column_usage",
    "pg_am",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database",
    "pg_depend",
    "pg_description",
    "pg_enum",
    "pg_extension",
    "pg_index",
    "pg_indexes",
    "pg_inherits",
    "pg_language",
    "pg_matviews",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_partitioned_table",
    "pg_proc",
    "pg_range",
    "pg_roles",
    "pg_sequence",
    "pg_settings",
    "pg_tables",
    "pg_tablespace",
    "pg_timezone_abbrevs",
    "pg_timezone_names",
    "pg_trigger",
    "pg_type",
    "pg_user",
    "pg_views",
    "referential_constraints",
    "schemata",
    "sequences",
    "table_constraints",
    "tables",
    "views",
];

/// Functions that read no table, besides those that are free of effects.
const HARMLESS: [&str; 14] = [
    "currval",
    "lastval",
    "nextval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
];

/// Of those that are free of effects, what tells of more than its arguments: an error of these names one
/// before the tenant has been compared, or they measure tables.
const TELLING: [&str; 5] = [
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "pg_relation_size",
    "pg_total_relation_size",
];

/// What a survey found of a statement for a tenant alone.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names that stand before a dot, and the reference that they mean; `None` for a query or function.
    names: Vec<(String, Option<usize>)>,
    /// Values that the tenant's column is set to.
    assigned: Vec<Confined>,
    refusal: Option<Fault>,
}

impl Found {
    /// Notes what a reference is called.
    pub(super) fn call(&mut self, name: &str, reference: Option<usize>) {
        self.names.push((name.to_owned(), reference));
    }

    /// Notes a view, whose tables are references of their own: what else it runs must touch nothing.
    pub(super) fn see(&mut self, name: &Name, code: &Code) {
        if !code.is_apart() {
            self.refusal.get_or_insert_with(|| view(&name.to_string()));
        }
    }
}

impl Survey<'_> {
    /// ON CONFLICT DO UPDATE writes the row that is in the way, which need not be the tenant's unless the
    /// tenant is among what is unique.
    pub(super) fn tenant_conflict(&mut self, insert: &Insert, target: usize) {
        let alias = insert.alias.as_ref().unwrap_or(&insert.table.name);
        self.tenant.call(alias, Some(target));
        self.tenant.call("excluded", Some(target));
        let Some(column) = self.tenant_column() else {
            return;
        };
        if insert.update.is_empty() {
            return;
        }
        if !insert.conflict.contains(&column) {
            let table = insert.table.to_string();
            self.tenant.refusal.get_or_insert(conflict(&table, &column));
        }
        let others: Vec<Assignment> = insert
            .update
            .iter()
            .filter(|set| {
                let same = matches!(&set.value, Expr::Column(parts)
                    if matches!(parts.as_slice(), [table, name] if table == "excluded" && *name == column));
                !(same && set.columns.len() == 1)
            })
            .cloned()
            .collect();
        self.tenant_assigned(&others, target);
    }

    /// SET of the tenant's column gives rows away, unless to the tenant.
    pub(super) fn tenant_assigned(&mut self, sets: &[Assignment], target: usize) {
        let Some(column) = self.tenant_column() else {
            return;
        };
        let Some(name) = self.references.get(target).map(|found| found.name.clone()) else {
            return;
        };
        let sets = sets.iter().filter(|set| set.columns.contains(&column));
        for set in sets {
            let kind = tenant_node(self, target, &column).and_then(|(_, kind)| kind);
            let value = match (set.columns.as_slice(), kind) {
                ([_], Some(kind)) => facts::operand(&set.value, kind).map(|value| (value, kind)),
                _ => None,
            };
            let table = name.to_string();
            match value {
                Some((value, kind)) => self.tenant.assigned.push(Confined {
                    kind,
                    any: vec![value],
                    table: table.into(),
                }),
                None if matches!(self.context.relation(&name), Relation::Sharded { .. }) => {
                    self.tenant.refusal.get_or_insert(given(&table, &column));
                }
                None => (),
            }
        }
    }

    fn tenant_column(&self) -> Option<String> {
        let tenant = self.context.topology.tenant();
        let tenant = tenant.filter(|_| self.context.tenant);
        tenant.map(|tenant| tenant.column.clone())
    }
}

/// Where a reference's tenant column is: its place in the key, and its type.
fn tenant_node(
    survey: &Survey<'_>,
    reference: usize,
    column: &str,
) -> Option<(usize, Option<KeyType>)> {
    let found = survey.references.get(reference)?;
    let Relation::Sharded { key, .. } = survey.context.relation(&found.name) else {
        return None;
    };
    let at = key.iter().position(|name| name == column)?;
    let (first, _) = survey.sharded(reference)?;
    Some((at, survey.facts.key_type(first + at)))
}

/// What must hold of a data statement of a tenant at each execution.
///
/// # Errors
/// 42501: it cannot be confined whatever its values.
pub(super) fn confine(
    survey: &Survey<'_>,
    block: &Block,
    cursor: &Cursor<'_>,
    effect: &Effect,
) -> Result<Arc<[Confined]>, Fault> {
    let context = survey.context;
    if let Some(fault) = &survey.tenant.refusal {
        return Err(fault.clone());
    }
    let mut path = context.search_path.iter();
    if path.position(|schema| schema == "pg_catalog") > Some(0) {
        return Err(search_path());
    }
    let mut places = survey.references.iter().map(|found| found.place);
    let is_sharded = places.any(|place| matches!(place, Rows::Sharded { .. }));
    for features in [block.inner.features, survey.inner_features] {
        if features.has(Features::SAMPLE) {
            return Err(not_allowed("TABLESAMPLE", "Leave it out."));
        }
        if features.has(Features::TEST) && is_sharded {
            return Err(tested());
        }
    }
    if is_into(block) {
        return Err(not_allowed(
            "SELECT INTO",
            "Make tables as a user without a tenant.",
        ));
    }
    let sets = matches!(effect, Effect::SetConfig { .. });
    let strange = survey.calls.iter().find(|call| {
        let name = &call.name;
        // One of the users' own may have the name and take other types.
        let is_theirs = name.schema.is_none() && context.catalog.has_function(&name.name);
        is_theirs || !(is_harmless(name) || sets && name.name == "set_config")
    });
    if let Some(call) = strange {
        return Err(function(&call.name.to_string()));
    }
    if let Some(name) = field_call(survey, *cursor) {
        return Err(function(&name));
    }
    let mut confined = survey.tenant.assigned.clone();
    for (index, reference) in survey.references.iter().enumerate() {
        of_reference(survey, index, reference, &mut confined)?;
    }
    Ok(confined.into())
}

/// Whether a function can tell of nothing but its arguments and the session.
fn is_harmless(name: &Name) -> bool {
    let built_in = match name.schema.as_deref() {
        None | Some("pg_catalog") => true,
        Some(_) => false,
    };
    let listed = |names: &[&str]| names.contains(&name.name.as_str());
    built_in && (listed(&HARMLESS) || functions::is_read_only(name)) && !listed(&TELLING)
}

/// What follows a dot and is no column that is known: PostgreSQL takes `t.f` for a call where `t` has no
/// column `f` (`ParseFuncOrColumn` in `parse_func.c`).
fn field_call(survey: &Survey<'_>, cursor: Cursor<'_>) -> Option<String> {
    let text = cursor.text();
    let tokens = cursor.tokens();
    tokens.windows(3).enumerate().find_map(|(at, three)| {
        let [before, dot, after] = three else {
            return None;
        };
        if dot.kind != Token::Dot || after.of(text) == b"*" {
            return None;
        }
        let name = word_name(*after, text);
        let shown = name
            .clone()
            .unwrap_or_else(|| String::from_utf8_lossy(after.of(text)).into_owned());
        let (Some(name), Some(before)) = (name, word_name(*before, text)) else {
            return Some(shown);
        };
        let follows = tokens.get(at.saturating_add(3)).map(|token| token.kind);
        if follows == Some(Token::OpenParen) {
            // A call by its name, which is looked at as such.
            return None;
        }
        let mut meant = survey.tenant.names.iter();
        let known = meant.all(|(called, reference)| {
            let reference = reference.and_then(|at| survey.references.get(at));
            let table = reference.and_then(|found| survey.context.table(&found.name));
            *called != before || table.is_none_or(|table| has_column(table, &name))
        });
        (!known).then_some(shown)
    })
}

fn has_column(table: &Table, name: &str) -> bool {
    SYSTEM_COLUMNS.contains(&name) || table.columns.iter().any(|column| column.name == name)
}

fn of_reference(
    survey: &Survey<'_>,
    index: usize,
    reference: &Reference,
    confined: &mut Vec<Confined>,
) -> Result<(), Fault> {
    let context = survey.context;
    let table = reference.name.to_string();
    let Rows::Sharded { first, .. } = reference.place else {
        return readable(context, &reference.name, reference.written);
    };
    let Some(column) = survey.tenant_column() else {
        return Err(no_tenancy());
    };
    if context.table(&reference.name).is_none() {
        return Err(unknown(&table));
    }
    let Some((at, Some(kind))) = tenant_node(survey, index, &column) else {
        return Err(no_column(&table, &column));
    };
    let one = |any: Vec<Operand>| Confined {
        kind,
        any,
        table: table.as_str().into(),
    };
    if let Some(rows) = &reference.rows {
        for row in rows {
            let value = row.get(at).cloned();
            let value = value.ok_or_else(|| unconfined(&table, &column))?;
            let value = one(vec![value]);
            if confined.last() != Some(&value) {
                confined.push(value);
            }
        }
        return Ok(());
    }
    let any = survey.facts.equals(first.saturating_add(at));
    if any.is_empty() {
        return Err(unconfined(&table, &column));
    }
    confined.push(one(any));
    Ok(())
}

/// Whether a tenant may read a table that is not sharded, or write it.
///
/// # Errors
/// 42501: it is a view, a parent of sharded tables, a catalog that tells of rows, not known, or everyone's.
pub(super) fn readable(context: Context<'_>, name: &Name, written: bool) -> Result<(), Fault> {
    let table = name.to_string();
    match context.relation(name) {
        Relation::System if written || !CATALOGS.contains(&name.name.as_str()) => {
            return Err(catalog(&table));
        }
        Relation::System => return Ok(()),
        Relation::Sharded { .. } => {
            let column = context.topology.tenant().map(|tenant| &tenant.column);
            return Err(unconfined(&table, column.map_or("", String::as_str)));
        }
        Relation::Reference(_) if written => return Err(everyones(&table)),
        Relation::View(_) => return Err(view(&table)),
        Relation::Reference(_) | Relation::Single | Relation::Refused => (),
    }
    let Some((schema, known)) = context.find(name) else {
        return Err(unknown(&table));
    };
    if known.view.is_some() {
        return Err(view(&table));
    }
    // What a parent of a table reads is that table's rows too.
    let is_parent = context.catalog.tables().any(|(own, child, known)| {
        let is_sharded = context
            .rule(Some(own), child, Some(known))
            .is_some_and(|rule| matches!(rule.kind, Kind::Sharded { .. }));
        is_sharded
            && context
                .catalog
                .ancestors(known)
                .contains(&(schema, name.name.as_str()))
    });
    if is_parent { Err(view(&table)) } else { Ok(()) }
}

/// Which of the columns of a key must be the tenant in each row of a COPY into the table; `None` for
/// everyone but tenants.
///
/// # Errors
/// 42501: rows of the table are no tenant's.
pub(super) fn copied(
    context: Context<'_>,
    name: &Name,
    key: &[String],
) -> Result<Option<usize>, Fault> {
    if !context.tenant {
        return Ok(None);
    }
    let tenant = context.topology.tenant().ok_or_else(no_tenancy)?;
    let table = name.to_string();
    if context.table(name).is_none() {
        return Err(unknown(&table));
    }
    let at = key.iter().position(|column| *column == tenant.column);
    at.map(Some)
        .ok_or_else(|| no_column(&table, &tenant.column))
}

/// A tenant's statement as it was planned, if it is known to be confined; else its refusal.
pub(super) fn admit(draft: Draft) -> Draft {
    if draft.confined.is_some() {
        return draft;
    }
    if let Access::Refuse(fault) = &draft.access
        && fault.code == SqlState::INSUFFICIENT_PRIVILEGE
    {
        return Draft::refused(draft.verb, Fault::clone(fault));
    }
    if is_allowed(&draft) {
        return Draft {
            confined: Some(Arc::from([])),
            ..draft
        };
    }
    let verb = match draft.verb {
        "" => "a statement that is not understood",
        verb => verb,
    };
    let prepares = matches!(
        draft.effect,
        Effect::Prepare { .. } | Effect::Keep { .. } | Effect::Execute { .. }
    );
    let hint = if prepares {
        "Prepare it with the extended protocol, as drivers do, or send it directly."
    } else {
        "Send it as a user without a tenant."
    };
    let fault = not_allowed(verb, hint);
    Draft::refused(draft.verb, fault)
}

/// Statements that touch no row whatever their values.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not listed is refused"
)]
fn is_allowed(draft: &Draft) -> bool {
    match &draft.effect {
        Effect::Begin
        | Effect::Commit { .. }
        | Effect::Rollback { .. }
        | Effect::Savepoint(_)
        | Effect::RollbackTo(_)
        | Effect::Release(_)
        | Effect::SetTransaction { .. }
        | Effect::Reset { .. }
        | Effect::ResetAll
        | Effect::SetPgherd { .. }
        | Effect::ShowPgherd { .. }
        | Effect::DiscardAll
        | Effect::DiscardOther
        | Effect::Deallocate { .. }
        | Effect::Listen { .. }
        | Effect::Unlisten { .. }
        | Effect::ExplainRoute { .. } => true,
        Effect::Set { name, .. } => is_settable(name),
        // SHOW and SET CONSTRAINTS; cursors read what they were declared for.
        Effect::None => matches!(
            draft.verb,
            "SHOW" | "SET" | "NOTIFY" | "FETCH" | "MOVE" | "CLOSE CURSOR"
        ),
        _ => false,
    }
}

/// Whether a tenant's session may set this.
pub fn is_settable(setting: &str) -> bool {
    !SETTINGS.contains(&setting)
}

/// Holds the values at hand against the tenant.
///
/// # Errors
/// 42501: a row of another tenant could be read or written, or it cannot be told.
pub fn check(confined: &[Confined], tenant: &str, values: &dyn Values) -> Result<(), Fault> {
    for one in confined {
        let own = own(one.kind, tenant)?;
        let is_own = |operand: &Operand| {
            !changes_type(one.kind, operand, values)
                && decode(operand, one.kind, values).is_ok_and(|key| key == own)
        };
        if !one.any.iter().any(is_own) {
            return Err(another(&one.table));
        }
    }
    Ok(())
}

/// The tenant as a key.
///
/// # Errors
/// 42501: it is none of this type.
pub fn own(kind: KeyType, tenant: &str) -> Result<Key<'_>, Fault> {
    Key::from_text(kind, tenant.as_bytes()).map_err(|error| no_key(kind, &error.to_string()))
}

/// Whether the column is converted to be compared with a parameter.
fn changes_type(kind: KeyType, operand: &Operand, values: &dyn Values) -> bool {
    let Operand::Parameter(index) = operand else {
        return false;
    };
    let declared = values.parameter(*index).map(|parameter| parameter.oid);
    declared == Some(oid::NUMERIC) && kind != KeyType::Numeric
}
