//! Temporary tables of a session: they live on the home shard, on the connection the client keeps,
//! and hide tables of the same name.
//!
//! The planner does not know them, so a statement that names one is looked at here: it runs on
//! that connection where all it reads is there, and is refused where it also reads rows of other shards.

use crate::error::{Fault, SqlState};
use crate::planner::plan::{Access, Effect, Statement};
use crate::server::connection::Note;
use crate::server::pool::Lease;
use crate::sql::cursor::{Cursor, word_name};
use crate::sql::scan::{Kind, Lexing, scan};

use super::Session;
use super::lease::Place;
use super::plan::makes_temporary;

/// The effect of a statement that makes a temporary table.
const TEMPORARY: &str = "temporary table";
/// Temporary tables of one session that are told apart; beyond it every statement is taken to name one.
const NAMES_MAX: usize = 1_000;

impl Session {
    /// Notes the table that a statement is about to make.
    pub(crate) fn note_temporary(&mut self, effect: &Effect, text: &[u8]) {
        if *effect == Effect::Pin(TEMPORARY)
            && self.database.topology.shards().len() > 1
            && self.temporary.len() < NAMES_MAX
        {
            self.temporary.extend(made(text));
        }
        self.note_dropped(effect, text);
    }

    /// Notes the table that a statement is about to drop for good: outside a block, and with no other
    /// statement under way whose end could be taken for its own.
    fn note_dropped(&mut self, effect: &Effect, text: &[u8]) {
        self.dropping = None;
        if *effect != Effect::Ddl || self.temporary.is_empty() || self.block.is_some() {
            return;
        }
        let alone = !self.transaction_is_open()
            && !self.ran_ddl
            && self
                .lease
                .as_ref()
                .and_then(Lease::peek)
                .is_none_or(|connection| connection.pipeline.notes().all(is_parse));
        let hides = |schema: &String| schema.starts_with("pg_temp");
        if alone && !self.facts().search_path.iter().any(hides) {
            self.dropping = dropped(text).filter(|name| self.temporary.contains(name));
        }
    }

    /// Forgets the table whose DROP has been carried out.
    pub(crate) fn forget_dropped(&mut self) {
        if let Some(name) = self.dropping.take() {
            self.temporary.retain(|known| *known != name);
        }
    }

    /// What is created under a search path that begins with `pg_temp` lives on the connection.
    pub(crate) fn keep_temporary(&mut self, setting: &str, value: &str) {
        if makes_temporary(setting, value) {
            self.pin(TEMPORARY);
            self.doubt_tenant(TEMPORARY);
        }
    }

    /// Where a statement runs that names a temporary table of the session; `None` when it names none.
    ///
    /// # Errors
    /// 0A000 when it also needs other shards.
    pub(crate) fn place_temporary(
        &self,
        statement: &Statement,
        text: &[u8],
    ) -> Result<Option<Place>, Fault> {
        // A tenant's session that has any is refused as such.
        let is_tenants = statement.confined.is_some()
            || matches!(&statement.access, Access::Refuse(fault) if fault.code == SqlState::INSUFFICIENT_PRIVILEGE);
        if is_tenants || self.temporary.is_empty() || !self.names_temporary(text) {
            return Ok(None);
        }
        let here = Place::Shard {
            shard: self.database.topology.home(),
            binds: true,
        };
        let alone = match &statement.access {
            Access::Home | Access::Bound | Access::Anywhere | Access::AnyShard => true,
            Access::Session => return Ok(None),
            Access::Broadcast { .. } => {
                let are_ours = |names: &Vec<String>| {
                    let mut names = names.iter();
                    names.all(|name| self.temporary.contains(name))
                };
                statement.effect == Effect::Ddl && changed(text).as_ref().is_some_and(are_ours)
            }
            Access::Keyed(_)
            | Access::CopySplit(_)
            | Access::Generate(_)
            | Access::Shard(_)
            | Access::Gather(_)
            | Access::Refuse(_) => false,
        };
        if alone {
            return Ok(Some(here));
        }
        Err(Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "a statement over a temporary table and other shards is not supported",
        )
        .detail("Temporary tables live on the home shard, and hide tables of the same name on all shards.")
        .hint("Name the temporary table differently from sharded and reference tables, and use it in statements of its own."))
    }

    fn names_temporary(&self, text: &[u8]) -> bool {
        let Ok(tokens) = scan(text, Lexing::default()) else {
            return true;
        };
        self.temporary.len() >= NAMES_MAX
            || tokens
                .iter()
                .filter_map(|token| word_name(*token, text))
                .any(|name| self.temporary.contains(&name))
    }
}

/// The names of the tables that `CREATE TEMP TABLE …` or `… INTO TEMP …` make.
fn made(text: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(tokens) = scan(text, Lexing::default()) else {
        return names;
    };
    let mut cursor = Cursor::new(text, &tokens);
    while !cursor.is_done() {
        if cursor.take_any(&["temp", "temporary"]).is_some() {
            let words = [
                "table",
                "view",
                "sequence",
                "recursive",
                "if",
                "not",
                "exists",
            ];
            while cursor.take_any(&words).is_some() {}
        } else if !cursor.at("pg_temp") {
            cursor.advance();
            continue;
        }
        match cursor.parts() {
            Some(mut parts) => names.extend(parts.pop()),
            None => drop(cursor.advance()),
        }
    }
    names
}

/// The name of the only table or view that a text drops, where it can be a temporary one.
fn dropped(text: &[u8]) -> Option<String> {
    let tokens = scan(text, Lexing::default()).ok()?;
    let mut cursor = Cursor::new(text, &tokens);
    cursor.take("drop").then_some(())?;
    cursor.take_any(&["table", "view"])?;
    cursor.take_words(&["if", "exists"]);
    let mut parts = cursor.parts()?;
    cursor.take_any(&["cascade", "restrict"]);
    cursor.take_kind(Kind::Semicolon);
    let name = parts.pop()?;
    let can_be = parts.is_empty() || parts == ["pg_temp"];
    (can_be && cursor.is_done()).then_some(name)
}

/// The names of all tables that a single DDL statement changes, where they can be temporary ones.
fn changed(text: &[u8]) -> Option<Vec<String>> {
    let tokens = scan(text, Lexing::default()).ok()?;
    let mut cursor = Cursor::new(text, &tokens);
    let ends = tokens
        .iter()
        .position(|token| token.kind == Kind::Semicolon);
    if ends.is_some_and(|at| at + 1 < tokens.len()) {
        return None;
    }
    let listed = match cursor.take_any(&["create", "alter", "drop", "truncate", "comment"])? {
        "create" => {
            cursor.take("unique");
            cursor.take("index").then_some(())?;
            while !cursor.at("on") {
                cursor.advance()?;
            }
            cursor.advance();
            false
        }
        "comment" => {
            cursor.take_words(&["on", "table"]).then_some(())?;
            false
        }
        verb => {
            let kinds = ["table", "view"];
            (cursor.take_any(&kinds).is_some() || verb == "truncate").then_some(())?;
            cursor.take_words(&["if", "exists"]);
            verb != "alter"
        }
    };
    let mut names = Vec::new();
    loop {
        cursor.take("only");
        let mut parts = cursor.parts()?;
        names.push(parts.pop()?);
        (parts.is_empty() || parts == ["pg_temp"]).then_some(())?;
        cursor.take_operator("*");
        if !(listed && cursor.take_kind(Kind::Comma)) {
            return Some(names);
        }
    }
}

fn is_parse(note: &Note) -> bool {
    matches!(note, Note::Parse { .. })
}

#[cfg(test)]
mod tests {
    use super::{changed, dropped, made};

    #[test]
    fn names_are_found() {
        let check =
            |text: &str, expect: &[&str]| assert_eq!(made(text.as_bytes()), expect, "{text}");
        check("create temp table mine (id int)", &["mine"]);
        check(
            "CREATE TEMPORARY TABLE IF NOT EXISTS \"Mine\" AS SELECT 1",
            &["Mine"],
        );
        check("select 1 into temp t2", &["t2"]);
        check("create table pg_temp.x (a int)", &["x"]);
        check(
            "create temp table one (); create temp view two as select 1; select 2",
            &["one", "two"],
        );
    }

    #[test]
    fn changes_are_found() {
        let check = |text: &str, expect: Option<&[&str]>| {
            let expect =
                expect.map(|names| names.iter().copied().map(String::from).collect::<Vec<_>>());
            assert_eq!(changed(text.as_bytes()), expect, "{text}");
        };
        check("create index on mine (a, b)", Some(&["mine"]));
        check(
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON ONLY mine USING gin (a)",
            Some(&["mine"]),
        );
        check("alter table mine add a int, add b int;", Some(&["mine"]));
        check(
            "drop table mine, \"Yours\" cascade",
            Some(&["mine", "Yours"]),
        );
        check("truncate mine, yours", Some(&["mine", "yours"]));
        check("drop table public.mine", None);
        check("drop table mine; select 1", None);
        check("create table other (like mine)", None);
    }

    #[test]
    fn drops_are_found() {
        let check =
            |text: &str, expect| assert_eq!(dropped(text.as_bytes()).as_deref(), expect, "{text}");
        check("drop table mine", Some("mine"));
        check("DROP TABLE IF EXISTS pg_temp.mine CASCADE;", Some("mine"));
        check("drop table public.mine", None);
        check("drop table mine, other", None);
        check("drop table mine; select 1", None);
    }
}
