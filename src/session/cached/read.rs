//! Reads: answered from the cache, or kept for others as they are answered.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::cache::answer::{Progress, Recorder};
use crate::cache::counts::TableCounts;
use crate::cache::key::Key;
use crate::cache::store::Entry;
use crate::cache::{Audit, Found, Wanted};
use crate::execute::Interrupted;
use crate::planner::cache::{self, Reading, Tag, Verdict};
use crate::planner::plan::{Effect, Script, Statement, Values};
use crate::server::settings::Settings;
use crate::server::statements::Prepared;
use crate::sql::mask;
use crate::wire::backend;

use super::{Purpose, Recording};
use crate::session::direct::Group;
use crate::session::extended::BindValues;
use crate::session::lease::Place;
use crate::session::{Session, Stop};

/// How often one message waits for other clients' reads.
const WAITS_MAX: u8 = 2;
/// How long it waits each time.
const WAIT: Duration = Duration::from_secs(2);

/// Settings that no answer depends on.
const INDIFFERENT: [&str; 8] = [
    "application_name",
    "client_min_messages",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "tcp_keepalives_idle",
    "tcp_user_timeout",
];

/// What became of a group of messages.
pub(crate) enum Looked<'a> {
    /// It is answered; this follows it.
    Answered(&'a [u8]),
    /// It has to wait.
    Stop(Stop),
    /// It goes the way of all.
    Pass,
}

impl Session {
    /// Answers a Query from the cache. Returns whether that was possible.
    pub(super) fn query_from_cache(
        &mut self,
        text: &[u8],
        script: &Script,
        literals: &[mask::Literal],
        values: &dyn Values,
    ) -> Result<bool, Stop> {
        let [statement] = script.statements.as_slice() else {
            return Ok(false);
        };
        let Some(reading) = self.reading_of(statement) else {
            return Ok(false);
        };
        let own = literals.iter().map(|literal| literal.of(text));
        if own.into_iter().any(cache::means_moment) {
            self.bypass(reading, "moment");
            return Ok(false);
        }
        let scope = self.cache_scope();
        let key = Key::of(&[b"Q", &scope, text]);
        let Some(entry) = self.look(reading, key, values)? else {
            return Ok(false);
        };
        self.unnamed = None;
        self.give(script, |out| out.extend_from_slice(&entry.frames));
        Ok(true)
    }

    /// Answers a group of messages from the cache, `[Parse] Bind [Describe] Execute Sync`.
    pub(crate) fn group_from_cache<'a>(&mut self, data: &'a [u8]) -> Looked<'a> {
        if !self.is_at_rest() {
            return Looked::Pass;
        }
        let Some(group) = Group::read(data, self.message_max()) else {
            return Looked::Pass;
        };
        let Some(prepared) = self.any_statement_of(&group) else {
            return Looked::Pass;
        };
        let script = Rc::clone(&prepared.script);
        let [statement] = script.statements.as_slice() else {
            return Looked::Pass;
        };
        let Some(reading) = self.reading_of(statement) else {
            return Looked::Pass;
        };
        if prepared.fills.is_some() || prepared.calls.get().is_some() {
            return Looked::Pass;
        }
        let values = BindValues::new(&group.bind, &prepared, self.is_utf8());
        if means_moment(&prepared, &group) {
            self.bypass(reading, "moment");
            return Looked::Pass;
        }
        let key = self.key_of_group(&group, &prepared);
        match self.look(reading, key, &values) {
            Err(stop) => Looked::Stop(stop),
            Ok(None) => Looked::Pass,
            Ok(Some(entry)) => {
                let parses = group.parse.is_some();
                if parses {
                    prepared.uses.set(prepared.uses.get().saturating_add(1));
                    self.engine.count_parse(&self.database);
                    self.unnamed = Some(Rc::clone(&prepared));
                }
                self.engine.count_bind(&self.database);
                self.give(&script, |out| {
                    if parses {
                        backend::parse_complete(out);
                    }
                    backend::bind_complete(out);
                    out.extend_from_slice(&entry.frames);
                });
                Looked::Answered(group.rest)
            }
        }
    }

    fn key_of_group(&mut self, group: &Group<'_>, prepared: &Prepared) -> Key {
        let scope = self.cache_scope();
        let then = self.scope_of(&prepared.parsed_under);
        let kind: &[u8] = if group.describes { b"D" } else { b"E" };
        Key::of(&[kind, &scope, &then, &prepared.body, group.bind.after_names])
    }

    /// How a statement is cached, if it is and nothing is in its way.
    fn reading_of<'s>(&self, statement: &'s Statement) -> Option<&'s Reading> {
        match statement.cache.as_deref()? {
            Verdict::Read(reading) if self.is_at_rest() && self.database.catalog_is_current() => {
                Some(reading)
            }
            Verdict::Read(reading) => {
                let busy = if !self.database.catalog_is_current() {
                    "schema"
                } else if self.block.is_some() {
                    "block"
                } else if self.keeps_connections() {
                    "session"
                } else {
                    "busy"
                };
                self.bypass(reading, busy);
                None
            }
            Verdict::Bypass(reason, table) => {
                let counts = self.cache().counts.of(&self.database.name, table);
                counts.bypass(reason.label());
                None
            }
            Verdict::Write(_) => None,
        }
    }

    fn counts(&self, reading: &Reading) -> Option<Arc<TableCounts>> {
        let first = reading.tables.first()?;
        Some(self.cache().counts.of(&self.database.name, &first.table))
    }

    fn bypass(&self, reading: &Reading, reason: &'static str) {
        if let Some(counts) = self.counts(reading) {
            counts.bypass(reason);
        }
    }

    /// Looks for an answer. `None`: it is to be read, and kept perhaps.
    fn look(
        &mut self,
        reading: &Reading,
        key: Key,
        values: &dyn Values,
    ) -> Result<Option<Arc<Entry>>, Stop> {
        if let Some(recording) = &self.caching.recording
            && recording.purpose.key() == key
        {
            // The message is looked at again.
            return Ok(None);
        }
        self.caching.recording = None;
        let Some(counts) = self.counts(reading) else {
            return Ok(None);
        };
        let mut tags = cache::of_read(reading, &self.topology(), values);
        if let Some(tenant) = self.tenant_value() {
            tags.push(Tag::Tenant(tenant.as_ref().into()));
        }
        let wanted = Wanted {
            key,
            names: self.tag_names(&tags),
            fresh: reading.fresh,
            limit: reading.limit,
            counts,
        };
        let cache = Arc::clone(self.cache());
        let found = match (&mut self.caching.found, cache.redis()) {
            // What Redis has said holds until the message is done; it is not asked twice.
            (Some((known, found)), Some(_)) if *known == key => {
                std::mem::replace(found, Found::Pass)
            }
            (_, Some(_)) => return Err(Stop::Look(Box::new(wanted))),
            (_, None) => {
                let patient = self.caching.waited < WAITS_MAX;
                cache.look(&wanted, self.engine.recently(), patient)
            }
        };
        match found {
            Found::Hit(entry) if reading.is_settled && cache.audits() => {
                self.caching.recording = Some(Box::new(Recording {
                    purpose: Purpose::Compare(Audit { wanted, entry }),
                    recorder: Recorder::new(cache.max_entry),
                    at: self.out.len(),
                }));
                Ok(None)
            }
            Found::Hit(entry) => Ok(Some(entry)),
            Found::Pass => Ok(None),
            Found::Wait(under_way) => {
                self.caching.found = None;
                Err(Stop::Follow(under_way))
            }
            Found::Miss(capture) => {
                self.caching.recording = Some(Box::new(Recording {
                    purpose: Purpose::Keep(*capture),
                    recorder: Recorder::new(cache.max_entry),
                    at: self.out.len(),
                }));
                Ok(None)
            }
        }
    }

    /// Asks Redis for an answer.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn look_in_redis(&mut self, wanted: Wanted) -> Result<(), Interrupted> {
        let cache = Arc::clone(self.cache());
        let Some(link) = cache.redis() else {
            return Ok(());
        };
        let runtime = link.runtime().clone();
        let patient = self.caching.waited < WAITS_MAX;
        let key = wanted.key;
        let asking = Arc::clone(&cache);
        let task = runtime.spawn(async move { asking.look_there(&wanted, patient).await });
        let found = self
            .watched(async { Ok(task.await.unwrap_or(Found::Pass)) })
            .await?;
        self.caching.found = Some((key, found));
        Ok(())
    }

    /// Waits until another client has read what this one wants.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn follow_read(
        &mut self,
        mut under_way: watch::Receiver<()>,
    ) -> Result<(), Interrupted> {
        self.caching.waited = self.caching.waited.saturating_add(1);
        self.watched(async {
            // However it ends, it is looked for again.
            drop(tokio::time::timeout(WAIT, under_way.changed()).await);
            Ok(())
        })
        .await
    }

    /// Gives the client an answer.
    fn give(&mut self, script: &Script, write: impl FnOnce(&mut Vec<u8>)) {
        self.note_route(&Place::Local, &Effect::None);
        script.tally.local();
        self.count_local();
        write(&mut self.out);
        self.reply_ready();
    }

    /// Takes what is to be sent for the answer that is recorded.
    pub(super) fn record(&mut self) {
        let Some(mut recording) = self.caching.recording.take() else {
            return;
        };
        let new = self.out.get(recording.at..).unwrap_or_default();
        if new.is_empty() {
            self.caching.recording = Some(recording);
            return;
        }
        match recording.recorder.take(new) {
            Progress::More => {
                recording.at = self.out.len();
                self.caching.recording = Some(recording);
            }
            Progress::Whole(frames) => match recording.purpose {
                Purpose::Keep(capture) => self.cache().fill(capture, frames),
                Purpose::Compare(audit) => self.cache().audited(audit, &frames),
            },
            Progress::Void => (),
        }
    }

    /// The same before it is sent.
    pub(crate) fn record_sent(&mut self) {
        if self.caching.recording.is_some() {
            self.record();
        }
    }

    /// What has been sent is gone; what is left was taken before.
    pub(crate) fn keep_place(&mut self) {
        if let Some(recording) = &mut self.caching.recording {
            recording.at = self.out.len();
        }
    }

    /// What the answers of this session are told apart by.
    fn cache_scope(&mut self) -> [u8; 32] {
        let settings = Rc::clone(self.settings_in_force());
        if let Some((known, scope)) = &self.caching.scope
            && known.same(&settings)
        {
            return *scope;
        }
        let scope = self.scope_of(&settings);
        self.caching.scope = Some((settings, scope));
        scope
    }

    fn scope_of(&self, settings: &Settings) -> [u8; 32] {
        let database = self.database.cache_scope();
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let mut parts: Vec<&[u8]> = vec![database, self.client.user.as_bytes(), tenant.as_bytes()];
        // What the server reports is told in its own words, however the client asked for it at its start.
        let reported = &self.greeting.parameters;
        for (name, value) in reported {
            if !name.eq_ignore_ascii_case("application_name") {
                parts.extend([name.as_bytes(), value.as_bytes()]);
            }
        }
        for (name, value) in settings.iter() {
            let is_told = self.startup_settings.get(name) == Some(value)
                && reported
                    .iter()
                    .any(|(known, _)| known.eq_ignore_ascii_case(name));
            if !is_told && !INDIFFERENT.contains(&name) {
                parts.extend([name.as_bytes(), value.as_bytes()]);
            }
        }
        *Key::of(&parts).bytes()
    }
}

/// Whether a value of a group means the moment it is read.
fn means_moment(prepared: &Prepared, group: &Group<'_>) -> bool {
    let mut literals = prepared.script.literals.iter();
    literals.any(|literal| cache::means_moment(literal.of(prepared.text())))
        || (0..group.bind.len()).any(|index| {
            matches!(group.bind.value(index), Some((false, Some(value))) if cache::means_moment(value))
        })
}
