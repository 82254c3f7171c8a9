//! DDL and maintenance: on every shard, but for what belongs to one server.

use std::sync::Arc;

use crate::planner::calls;
use crate::planner::context::Relation;
use crate::planner::draft::Draft;
use crate::planner::effects;
use crate::planner::insert::made;
use crate::planner::plan::{Access, Effect, Gather};
use crate::planner::refuse;
use crate::planner::script::{Text, plan_one};
use crate::planner::utility::{alter, attached, constraints};
use crate::sql::cursor::{Cursor, Name};
use crate::sql::scan::Kind;

const EVERYWHERE: Access = Access::Broadcast { transaction: true };
/// Where PostgreSQL allows no transaction block.
const ONE_BY_ONE: Access = Access::Broadcast { transaction: false };

/// Plans DDL or maintenance; `None` for another kind.
pub(super) fn plan(text: &Text<'_>) -> Option<Draft> {
    let mut cursor = text.cursor;
    let first = cursor.take_any(&[
        "create", "alter", "drop", "truncate", "comment", "grant", "revoke", "security", "reindex",
        "vacuum", "analyze", "analyse", "cluster", "refresh", "import", "lock", "reassign",
    ])?;
    Some(match first {
        // Large objects are made at home.
        "alter" if cursor.at_words(&["large", "object"]) => ddl("ALTER LARGE OBJECT", Access::Home),
        "comment" if cursor.at_words(&["on", "large", "object"]) => ddl("COMMENT", Access::Home),
        "grant" | "revoke" if names_large_object(cursor) => {
            let verb = if first == "grant" { "GRANT" } else { "REVOKE" };
            ddl(verb, Access::Home)
        }
        "create" => create(text, cursor),
        "alter" => alter(text, cursor),
        "drop" => drop_statement(text, cursor),
        "truncate" => {
            cursor.take("table");
            maintenance(text, cursor, "TRUNCATE TABLE", true)
        }
        "lock" => {
            cursor.take("table");
            lock(maintenance(text, cursor, "LOCK TABLE", true), text)
        }
        "analyze" | "analyse" => {
            cursor.take("verbose");
            cursor.skip_group();
            maintenance(text, cursor, "ANALYZE", true)
        }
        "vacuum" => {
            while cursor
                .take_any(&["full", "freeze", "verbose", "analyze", "analyse"])
                .is_some()
            {}
            cursor.skip_group();
            maintenance(text, cursor, "VACUUM", false)
        }
        "cluster" => {
            cursor.take("verbose");
            maintenance(text, cursor, "CLUSTER", cursor.peek().is_some())
        }
        "reindex" => reindex(cursor),
        "refresh" => ddl("REFRESH MATERIALIZED VIEW", EVERYWHERE),
        "comment" => ddl("COMMENT", EVERYWHERE),
        "grant" => ddl("GRANT", EVERYWHERE),
        "revoke" => ddl("REVOKE", EVERYWHERE),
        "security" => ddl("SECURITY LABEL", EVERYWHERE),
        "import" if cursor.mentions("pg_temp") => {
            made_temporary(text, cursor, "IMPORT FOREIGN SCHEMA")
        }
        "import" => ddl("IMPORT FOREIGN SCHEMA", EVERYWHERE),
        _ => ddl("REASSIGN OWNED", EVERYWHERE),
    })
}

/// Whether it is `GRANT … ON LARGE OBJECT …` or the like.
fn names_large_object(mut cursor: Cursor<'_>) -> bool {
    while cursor.peek().is_some() && !cursor.at("on") {
        cursor.advance();
    }
    cursor.at_words(&["on", "large", "object"])
}

fn ddl(verb: &'static str, access: Access) -> Draft {
    let no_block = matches!(access, Access::Broadcast { transaction: false });
    Draft {
        no_block,
        ..Draft::writing(verb, Effect::Ddl, access)
    }
}

/// A statement of a whole server rather than of a database.
fn at_home(verb: &'static str) -> Draft {
    Draft {
        no_block: true,
        has_tables: false,
        ..Draft::writing(verb, Effect::None, Access::Home)
    }
}

fn create(text: &Text<'_>, mut cursor: Cursor<'_>) -> Draft {
    cursor.take_words(&["or", "replace"]);
    cursor.take_any(&["global", "local"]);
    if cursor.take_any(&["temp", "temporary"]).is_some() {
        let verb = if cursor.at("table") {
            "CREATE TABLE"
        } else {
            "CREATE"
        };
        return made_temporary(text, cursor, verb);
    }
    if names_temporary_schema(cursor) {
        // Nobody else sees it, so that it is in no snapshot.
        let is_code = cursor.at("function") || cursor.at("procedure");
        if let Some(fault) = calls::of_definition(text.context, text.cursor).filter(|_| is_code) {
            return Draft::refused("CREATE", fault);
        }
        return made_temporary(text, cursor, "CREATE");
    }
    if !text.context.is_one_shard() && text.context.makes_temporary() {
        return Draft::refused(
            "CREATE",
            refuse::kind(
                "CREATE under a search_path that begins with pg_temp",
                "Say CREATE TEMPORARY TABLE, or set search_path to the schema you mean.",
            ),
        );
    }
    let first = cursor.take_any(&["unlogged", "unique", "recursive", "constraint", "trusted"]);
    let mut ahead = cursor;
    if first == Some("unique")
        && ahead.take("index")
        && let Some(fault) = constraints::indexed(text.context, ahead)
    {
        return Draft::refused("CREATE INDEX", fault);
    }
    if ahead.take("schema")
        && let Some(fault) = constraints::in_schema(text.context, ahead)
    {
        return Draft::refused("CREATE SCHEMA", fault);
    }
    cursor.take("procedural");
    match cursor.take_any(&[
        "database",
        "tablespace",
        "index",
        "table",
        "materialized",
        "subscription",
        "view",
        "schema",
        "sequence",
        "type",
        "function",
        "extension",
        "role",
        "user",
        "trigger",
        "rule",
        "policy",
    ]) {
        Some(word @ ("trigger" | "rule" | "policy")) => match attached::made(text, word, cursor) {
            Some(fault) => Draft::refused("CREATE", fault),
            None => ddl("CREATE", EVERYWHERE),
        },
        Some("database") => at_home("CREATE DATABASE"),
        Some("tablespace") => ddl("CREATE TABLESPACE", ONE_BY_ONE),
        Some("subscription") => subscription(text, "CREATE SUBSCRIPTION"),
        Some("index") if cursor.take("concurrently") => ddl("CREATE INDEX", ONE_BY_ONE),
        Some("index") => ddl("CREATE INDEX", EVERYWHERE),
        Some("table") => create_table(text, cursor),
        Some("materialized") => {
            cursor.take("view");
            made_from_query(text, cursor, "CREATE MATERIALIZED VIEW")
        }
        Some("view") => ddl("CREATE VIEW", EVERYWHERE),
        Some("schema") => ddl("CREATE SCHEMA", EVERYWHERE),
        Some("sequence") => ddl("CREATE SEQUENCE", EVERYWHERE),
        Some("type") => ddl("CREATE TYPE", EVERYWHERE),
        Some("function") => ddl("CREATE FUNCTION", EVERYWHERE),
        Some("extension") => ddl("CREATE EXTENSION", EVERYWHERE),
        Some("role" | "user") => ddl("CREATE ROLE", EVERYWHERE),
        Some(_) | None => ddl("CREATE", EVERYWHERE),
    }
}

/// Whether anything is called `pg_temp.name`: what is made is temporary then, or made of what is.
fn names_temporary_schema(mut cursor: Cursor<'_>) -> bool {
    while cursor.peek().is_some() {
        let mut name = cursor;
        if name.name().is_some_and(|name| name == "pg_temp") && name.kind() == Some(Kind::Dot) {
            return true;
        }
        cursor.advance();
    }
    false
}

/// A subscription is of one server.
fn subscription(text: &Text<'_>, verb: &'static str) -> Draft {
    if text.context.is_one_shard() {
        return Draft::writing(verb, Effect::Ddl, Access::Home);
    }
    Draft::refused(verb, refuse::kind(verb, "Connect to the shard itself."))
}

fn create_table(text: &Text<'_>, mut cursor: Cursor<'_>) -> Draft {
    let refusal =
        alter::created(text.context, cursor).or_else(|| constraints::created(text.context, cursor));
    if let Some(fault) = refusal {
        return Draft::refused("CREATE TABLE", fault);
    }
    let mut ahead = cursor;
    let may_exist = ahead.take_words(&["if", "not", "exists"]);
    let named = ahead.qualified();
    if let Some(name) = &named
        && let Some(fault) = attached::called(text, name)
    {
        return Draft::refused("CREATE TABLE", fault);
    }
    // CREATE TABLE … AS, with the query behind it, at the top level only.
    while cursor.peek().is_some() {
        if cursor.skip_group() {
            continue;
        }
        if cursor.take("as") {
            let name = named.filter(|_| !may_exist);
            return from_query(text, cursor, name, "CREATE TABLE AS");
        }
        cursor.advance();
    }
    ddl("CREATE TABLE", EVERYWHERE)
}

/// A table made by a query, also from rows of several shards: it is a table of the home shard.
fn from_query(
    text: &Text<'_>,
    cursor: Cursor<'_>,
    name: Option<Name>,
    verb: &'static str,
) -> Draft {
    let draft = query(text, cursor, verb);
    let Access::Refuse(otherwise) = &draft.access else {
        return draft;
    };
    let (tokens, has_data) = without_data(cursor);
    let inner = plan_one(&text.from(cursor).until(tokens));
    let gather = match &inner.access {
        Access::Keyed(keyed) => keyed.gather.as_ref(),
        Access::Gather(gather) => Some(gather),
        Access::Session
        | Access::Anywhere
        | Access::Bound
        | Access::Home
        | Access::AnyShard
        | Access::Generate(_)
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Shard(_)
        | Access::Refuse(_) => None,
    };
    let is_plain =
        has_data && inner.effect == Effect::None && !inner.writes && !text.context.tenant;
    match (gather.filter(|_| is_plain), name) {
        (Some(gather), Some(name)) if matches!(text.context.relation(&name), Relation::Single) => {
            let gather = Gather {
                otherwise: Arc::clone(otherwise),
                ..made(&name, gather)
            };
            ddl(verb, Access::Gather(Arc::new(gather)))
        }
        _ => draft,
    }
}

/// A temporary table or view lives on the home shard, on the connection the client keeps.
fn made_temporary(text: &Text<'_>, mut cursor: Cursor<'_>, verb: &'static str) -> Draft {
    let draft = Draft::writing(verb, Effect::Pin(effects::TEMPORARY), Access::Home);
    while cursor.peek().is_some() {
        if !cursor.skip_group() {
            if cursor.take("as") {
                let inner = plan_one(&text.from(cursor));
                return match inner.access {
                    _ if text.context.is_one_shard() => draft,
                    Access::Session
                    | Access::Anywhere
                    | Access::Bound
                    | Access::Home
                    | Access::AnyShard => draft,
                    Access::Refuse(fault) => Draft {
                        access: Access::Refuse(fault),
                        ..draft
                    },
                    Access::Keyed(_)
                    | Access::Broadcast { .. }
                    | Access::CopySplit(_)
                    | Access::Gather(_)
                    | Access::Generate(_)
                    | Access::Shard(_) => {
                        Draft::refused(verb, refuse::made_from("a sharded table"))
                    }
                };
            }
            cursor.advance();
        }
    }
    draft
}

fn made_from_query(text: &Text<'_>, mut cursor: Cursor<'_>, verb: &'static str) -> Draft {
    while cursor.peek().is_some() {
        if !cursor.skip_group() {
            if cursor.take("as") {
                return query(text, cursor, verb);
            }
            cursor.advance();
        }
    }
    ddl(verb, EVERYWHERE)
}

/// The tokens of a query without WITH [NO] DATA behind it, and whether it is to have data.
fn without_data(cursor: Cursor<'_>) -> (&[crate::sql::scan::Token], bool) {
    let tokens = cursor.tokens();
    let ends_with = |words: &[&str]| {
        tokens.len() > words.len()
            && tokens
                .get(tokens.len() - words.len()..)
                .is_some_and(|tail| Cursor::new(cursor.text(), tail).at_words(words))
    };
    for (words, has_data) in [
        (["with", "data"].as_slice(), true),
        (&["with", "no", "data"], false),
    ] {
        if ends_with(words) {
            let rest = tokens.get(..tokens.len() - words.len());
            return (rest.unwrap_or_default(), has_data);
        }
    }
    (tokens, true)
}

/// A table made by a query: everywhere, if the query reads single tables only. Those are empty but
/// at home, so that the new one is too.
fn query(text: &Text<'_>, cursor: Cursor<'_>, verb: &'static str) -> Draft {
    let (tokens, _) = without_data(cursor);
    let inner = plan_one(&text.from(cursor).until(tokens));
    let effect = effects::of_making(&inner.effect);
    match inner.access {
        _ if text.context.is_one_shard() => Draft {
            effect,
            ..ddl(verb, EVERYWHERE)
        },
        _ if effect != Effect::Ddl => Draft::refused(verb, refuse::made_by_effects()),
        Access::Anywhere | Access::Home => ddl(verb, EVERYWHERE),
        Access::Refuse(fault) => Draft {
            access: Access::Refuse(fault),
            ..ddl(verb, EVERYWHERE)
        },
        Access::Session
        | Access::Bound
        | Access::AnyShard
        | Access::Keyed(_)
        | Access::Broadcast { .. }
        | Access::CopySplit(_)
        | Access::Gather(_)
        | Access::Generate(_)
        | Access::Shard(_) => {
            Draft::refused(verb, refuse::made_from("a sharded or reference table"))
        }
    }
}

fn alter(text: &Text<'_>, mut cursor: Cursor<'_>) -> Draft {
    let mut ahead = cursor;
    ahead.take_any(&["foreign", "materialized"]);
    if ahead.take_any(&["table", "view", "index"]).is_some()
        && let Some(fault) = alter::refusal(text.context, ahead)
    {
        return Draft::refused("ALTER TABLE", fault);
    }
    let mut ahead = cursor;
    if ahead.take("type")
        && let Some(fault) = alter::renamed(text.context, ahead)
    {
        return Draft::refused("ALTER TYPE", fault);
    }
    let mut ahead = cursor;
    if ahead.take("table") {
        if let Some(fault) = constraints::altered(text.context, ahead) {
            return Draft::refused("ALTER TABLE", fault);
        }
        ahead.take_words(&["if", "exists"]);
        ahead.take("only");
        if let Some(name) = ahead.qualified()
            && let Some(fault) = attached::called(text, &name)
        {
            return Draft::refused("ALTER TABLE", fault);
        }
    }
    match cursor.take_any(&[
        "database",
        "system",
        "table",
        "role",
        "user",
        "subscription",
    ]) {
        Some("database") => database(text, cursor),
        Some("system") => ddl("ALTER SYSTEM", ONE_BY_ONE),
        Some("table") if cursor.mentions("concurrently") => ddl("ALTER TABLE", ONE_BY_ONE),
        Some("table") => ddl("ALTER TABLE", EVERYWHERE),
        Some("role" | "user") => ddl("ALTER ROLE", EVERYWHERE),
        Some("subscription") => subscription(text, "ALTER SUBSCRIPTION"),
        Some(_) | None => ddl("ALTER", EVERYWHERE),
    }
}

fn drop_statement(text: &Text<'_>, mut cursor: Cursor<'_>) -> Draft {
    match cursor.take_any(&[
        "database",
        "tablespace",
        "index",
        "table",
        "view",
        "schema",
        "subscription",
    ]) {
        Some("database") => at_home("DROP DATABASE"),
        Some("tablespace") => ddl("DROP TABLESPACE", ONE_BY_ONE),
        Some("index") if cursor.take("concurrently") => ddl("DROP INDEX", ONE_BY_ONE),
        Some("index") => ddl("DROP INDEX", EVERYWHERE),
        Some("table") => ddl("DROP TABLE", EVERYWHERE),
        Some("view") => ddl("DROP VIEW", EVERYWHERE),
        Some("schema") => ddl("DROP SCHEMA", EVERYWHERE),
        Some("subscription") => subscription(text, "DROP SUBSCRIPTION"),
        Some(_) | None => ddl("DROP", EVERYWHERE),
    }
}

fn reindex(mut cursor: Cursor<'_>) -> Draft {
    cursor.skip_group();
    let whole = cursor.at("database") || cursor.at("system") || cursor.at("schema");
    let access = if whole || cursor.mentions("concurrently") {
        ONE_BY_ONE
    } else {
        EVERYWHERE
    };
    Draft {
        effect: Effect::None,
        ..ddl("REINDEX", access)
    }
}

/// A lock is held up to the end of a block, and a block runs on one shard.
fn lock(draft: Draft, text: &Text<'_>) -> Draft {
    if draft.access == Access::Home || text.context.is_one_shard() {
        return draft;
    }
    Draft::refused(
        draft.verb,
        refuse::kind(
            "LOCK TABLE of sharded and reference tables",
            "Lock rows with SELECT … FOR UPDATE by their key, or name the shard with SET pgherd.shard in a block.",
        ),
    )
}

/// ALTER DATABASE: on every shard, where it names the database that is behind the client's.
fn database(text: &Text<'_>, mut cursor: Cursor<'_>) -> Draft {
    let home = Draft {
        effect: Effect::Ddl,
        no_block: false,
        ..at_home("ALTER DATABASE")
    };
    let topology = text.context.topology;
    let names = topology.dbnames();
    let named = match cursor.name() {
        Some(name) if !text.context.is_one_shard() => name,
        Some(_) | None => return home,
    };
    if names.iter().all(|name| *name == named) {
        let access = if cursor.at_words(&["set", "tablespace"]) {
            ONE_BY_ONE
        } else {
            EVERYWHERE
        };
        return ddl("ALTER DATABASE", access);
    }
    if named == topology.database() || names.contains(&named) {
        return Draft::refused(
            "ALTER DATABASE",
            refuse::kind(
                "ALTER DATABASE where the shards' databases have names of their own",
                "SET pgherd.shard to each shard in turn, and alter its own database there, or connect to the shards themselves.",
            ),
        );
    }
    home
}

/// A statement over a list of tables: home if they are all there, else every shard. Single tables
/// are empty elsewhere, so that it does no harm there.
fn maintenance(
    text: &Text<'_>,
    mut cursor: Cursor<'_>,
    verb: &'static str,
    transaction: bool,
) -> Draft {
    let mut home = cursor.peek().is_some();
    loop {
        cursor.take("only");
        let Some(name) = cursor.qualified() else {
            break;
        };
        home &= match text.context.relation(&name) {
            Relation::Single | Relation::System => true,
            Relation::Sharded { .. }
            | Relation::Reference(_)
            | Relation::View(_)
            | Relation::Refused => false,
        };
        cursor.take_operator("*");
        cursor.skip_group();
        if !cursor.take_kind(Kind::Comma) {
            break;
        }
    }
    let access = if home {
        Access::Home
    } else {
        Access::Broadcast { transaction }
    };
    Draft {
        no_block: !transaction,
        ..Draft::writing(verb, Effect::None, access)
    }
}
