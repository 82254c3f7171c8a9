//! From a text to its plan: the memo first, the planner when it must.

use std::rc::Rc;

use crate::planner::memo::{Memo, Scope};
use crate::planner::plan::Script;
use crate::planner::{self, Context};
use crate::server::settings::{self, Settings, names_of_list};
use crate::server::statements::{Fills, NewStatement, Prepared, Reading};
use crate::sql::cursor::Cursor;
use crate::sql::mask::Masked;
use crate::sql::scan::{Encoding, Lexing, scan};
use crate::wire::frontend::Parse;

use super::Session;
use super::engine::{Database, Greeting};
use super::tenant::Tenant;

/// What of a session's settings decides how a text is read and what its names mean.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The settings it was read from.
    settings: Rc<Settings>,
    pub(crate) search_path: Vec<String>,
    /// The number of the search path in its database.
    path: u32,
    pub(crate) lexing: Lexing,
    pub(crate) tenant: Option<Tenant>,
}

impl Facts {
    /// Reads the settings of a session that was greeted so.
    ///
    /// `bound` is the tenant of the session's user.
    pub(crate) fn read(
        settings: &Rc<Settings>,
        greeting: &Greeting,
        database: &Database,
        bound: Option<&Rc<str>>,
    ) -> Facts {
        let search_path = match settings.get("search_path") {
            Some(kept) => names_of_path(kept),
            None => names_of_list(&greeting.search_path),
        };
        let user = current_role(settings).unwrap_or_else(|| greeting.role.clone());
        let search_path: Vec<String> = search_path
            .into_iter()
            .map(|name| if name == "$user" { user.clone() } else { name })
            .collect();
        let plain = |name: &str| {
            settings
                .get(name)
                .map(|value| value.trim_matches('\'').to_ascii_lowercase())
        };
        let conforming = plain("standard_conforming_strings")
            .is_none_or(|value| matches!(value.as_str(), "on" | "true" | "yes" | "1"));
        let encoding = plain("client_encoding").map_or(Encoding::Utf8, |name| Encoding::of(&name));
        let path = database.paths.borrow_mut().number(&search_path);
        Facts {
            settings: Rc::clone(settings),
            search_path,
            path,
            lexing: Lexing {
                standard_conforming_strings: conforming,
                encoding,
            },
            tenant: Tenant::of(bound, settings, &database.topology),
        }
    }
}

/// The role that was set, as SET ROLE and SET SESSION AUTHORIZATION take it.
fn current_role(settings: &Settings) -> Option<String> {
    let named = |setting: &str| {
        let value = settings.get(setting)?;
        let is_none = value.eq_ignore_ascii_case("none") || value.eq_ignore_ascii_case("default");
        if is_none {
            return None;
        }
        names(value).into_iter().next()
    };
    named("role").or_else(|| named("session_authorization"))
}

/// The names in a search path as settings keep it.
fn names_of_path(kept: &str) -> Vec<String> {
    settings::whole(kept).map_or_else(|| names(kept), names_of_list)
}

/// Whether what is created under this setting is temporary, whatever the statement says.
pub(crate) fn makes_temporary(setting: &str, kept: &str) -> bool {
    setting == "search_path"
        && names_of_path(kept)
            .first()
            .is_some_and(|first| first == "pg_temp")
}

/// The names of a list as SET search_path takes it.
fn names(value: &str) -> Vec<String> {
    let Ok(tokens) = scan(value.as_bytes(), Lexing::default()) else {
        return Vec::new();
    };
    let mut cursor = Cursor::new(value.as_bytes(), &tokens);
    let mut names = Vec::new();
    while !cursor.is_done() {
        if let Some(name) = cursor.string() {
            names.push(name);
        } else if let Some(name) = cursor.name() {
            names.push(name);
        } else {
            cursor.advance();
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

impl Session {
    /// What the settings of now mean for planning.
    pub(crate) fn facts(&mut self) -> Rc<Facts> {
        let settings = self.settings_in_force();
        if let Some(facts) = &self.facts
            && facts.settings.same(settings)
        {
            return Rc::clone(facts);
        }
        let facts = Rc::new(self.facts_under(settings));
        self.facts = Some(Rc::clone(&facts));
        facts
    }

    fn facts_under(&self, settings: &Rc<Settings>) -> Facts {
        let bound = self.tenant.as_ref();
        Facts::read(settings, &self.greeting, &self.database, bound)
    }

    /// Whether the client sends UTF-8.
    pub(crate) fn is_utf8(&self) -> bool {
        self.facts
            .as_ref()
            .is_none_or(|facts| facts.lexing.encoding == Encoding::Utf8)
    }

    /// The plan of a simple query's text, and where its literals stand.
    pub(crate) fn plan_simple(&mut self, text: &[u8], masked: &mut Masked) -> Rc<Script> {
        let facts = self.facts();
        let database = Rc::clone(&self.database);
        database.forget_outdated();
        let catalog = database.shared.catalog.load();
        let (scope, context) = self.scope(&database, &facts, &catalog);
        database
            .memo
            .borrow_mut()
            .simple(text, scope, context, masked)
    }

    /// The statement that a Parse brings, known or new.
    pub(crate) fn plan_extended(&mut self, parse: &Parse<'_>) -> Rc<Prepared> {
        let prepared = self.plan_body(parse.after_name, parse.query);
        self.with_ids(prepared)
    }

    /// What decides today what the names in a text mean: the configuration, the schema and the search path.
    pub(crate) fn is_current(&mut self, prepared: &Prepared) -> bool {
        prepared.epoch == self.database.epoch()
            && prepared.generation == self.database.generation
            && prepared.reading.search_path == self.facts().path
            && prepared.reading.tenant == self.is_tenant()
    }

    /// The same statement under the schema and search path of now. As PostgreSQL keeps them, the types
    /// of its parameters and the meaning of its literals stay (`RevalidateCachedQuery` in `plancache.c`).
    pub(crate) fn renew(&mut self, prepared: &Prepared) -> Rc<Prepared> {
        let facts = self.facts();
        let facts = Facts {
            settings: Rc::clone(&prepared.parsed_under),
            search_path: facts.search_path.clone(),
            path: facts.path,
            lexing: prepared.reading.lexing,
            tenant: facts.tenant.clone(),
        };
        let renewed = self.plan_under(&prepared.typed_body(), prepared.client_text(), &facts);
        let renewed = self.with_ids(renewed);
        renewed
            .uses
            .set(renewed.uses.get().max(prepared.uses.get()));
        renewed
    }

    /// Whether names mean under these settings what they mean now, to the same tenant.
    pub(crate) fn names_mean_the_same(&mut self, settings: &Rc<Settings>) -> bool {
        let now = self.facts();
        if now.settings.same(settings) {
            return true;
        }
        let then = self.facts_under(settings);
        then.path == now.path && then.tenant == now.tenant
    }

    /// The plan of a text that was read under the settings of now and runs under others; not kept.
    pub(crate) fn plan_under_settings(
        &mut self,
        text: &[u8],
        settings: &Rc<Settings>,
    ) -> (Script, Option<Tenant>) {
        let facts = Facts {
            lexing: self.facts().lexing,
            ..self.facts_under(settings)
        };
        let catalog = self.database.shared.catalog.load();
        let (_, context) = self.scope(&self.database, &facts, &catalog);
        let script = planner::script(text, context);
        (script, facts.tenant)
    }

    pub(crate) fn plan_body(&mut self, body: &[u8], query: &[u8]) -> Rc<Prepared> {
        let facts = self.facts();
        self.plan_under(body, query, &facts)
    }

    fn plan_under(&self, body: &[u8], query: &[u8], facts: &Facts) -> Rc<Prepared> {
        let database = Rc::clone(&self.database);
        database.forget_outdated();
        let literals = facts.settings.literal_fingerprint();
        let reading = Reading {
            search_path: facts.path,
            comment_hints: self.identity_hints,
            tenant: facts.tenant.is_some(),
            lexing: facts.lexing,
            literals: if literals != 0 && Prepared::has_literals(query) {
                literals
            } else {
                0
            },
        };
        let known = database
            .statements
            .borrow()
            .get(body, reading)
            .map(Rc::clone);
        if let Some(known) = known {
            return known;
        }
        let catalog = database.shared.catalog.load();
        let (scope, context) = self.scope(&database, facts, &catalog);
        let script = database.memo.borrow_mut().extended(query, scope, context);
        let limit = database.limits.plan_cache_size;
        let new = NewStatement {
            reading,
            parsed_under: Rc::clone(&facts.settings),
            text_length: query.len(),
            script,
            generation: database.generation,
            epoch: database.planned_epoch.get(),
        };
        let mut statements = database.statements.borrow_mut();
        statements.insert(body, new, limit)
    }

    /// A statement of ours in place of a client's: what follows the name in its Parse, and how it came
    /// to be.
    pub(crate) fn plan_filled(&mut self, like: &Prepared, body: &[u8], fills: Fills) -> Prepared {
        let facts = self.facts();
        let facts = Facts {
            settings: Rc::clone(&like.parsed_under),
            search_path: facts.search_path.clone(),
            path: facts.path,
            lexing: like.reading.lexing,
            tenant: facts.tenant.clone(),
        };
        let text_length = body.iter().position(|byte| *byte == 0);
        let text_length = text_length.unwrap_or(body.len());
        let text = body.get(..text_length).unwrap_or_default();
        let database = Rc::clone(&self.database);
        let catalog = database.shared.catalog.load();
        let (scope, context) = self.scope(&database, &facts, &catalog);
        let script = database.memo.borrow_mut().extended(text, scope, context);
        let new = NewStatement {
            reading: like.reading,
            parsed_under: Rc::clone(&like.parsed_under),
            text_length,
            script,
            generation: like.generation,
            epoch: like.epoch,
        };
        Prepared::new(body, new, Some(fills))
    }

    fn scope<'a>(
        &self,
        database: &'a Database,
        facts: &'a Facts,
        catalog: &'a crate::placement::catalog::Catalog,
    ) -> (Scope, Context<'a>) {
        let tenant = facts.tenant.is_some();
        let scope = Scope {
            database: 0,
            epoch: u64::from(database.planned_epoch.get()),
            search_path: facts.path,
            lexing: facts.lexing,
            comment_hints: self.identity_hints,
            tenant,
        };
        let context = Context {
            topology: &database.topology,
            catalog,
            search_path: &facts.search_path,
            lexing: facts.lexing,
            comment_hints: self.identity_hints && !tenant,
            tenant,
        };
        (scope, context)
    }
}

impl Database {
    /// Plans made under another schema are not used again.
    pub(crate) fn forget_outdated(&self) {
        let epoch = self.epoch();
        if self.planned_epoch.replace(epoch) != epoch {
            self.statements.borrow_mut().clear();
            self.memo.borrow_mut().clear();
        }
    }

    /// Whether it matters what names mean: by its shards or its tenants.
    pub(crate) fn minds_names(&self) -> bool {
        self.topology.shards().len() > 1 || self.topology.tenant().is_some()
    }

    /// A memo for this database's plans.
    pub(crate) fn memo(bytes: u64) -> Memo {
        Memo::new(usize::try_from(bytes).unwrap_or(usize::MAX), 0)
    }
}
