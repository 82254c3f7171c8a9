//! Writes: what they touch is marked before it can be committed.

use crate::planner::cache::{self, Look, Tag, Verdict};
use crate::planner::plan::{Effect, Literal, Parameter, Script, Statement, Values};
use crate::server::statements::Prepared;
use crate::sql::mask;

use super::Marked;
use crate::session::generate::is_given_ids;
use crate::session::simple::statement_key;
use crate::session::{Session, Stop};

/// Tags that one transaction is remembered by; with more it drops everything.
const TAGS_MAX: usize = 512;

/// No values: what SQL EXECUTE runs is looked at as a whole.
struct NoValues;

impl Values for NoValues {
    fn parameter(&self, _index: u16) -> Option<Parameter<'_>> {
        None
    }

    fn literal(&self, _index: u16) -> Option<Literal<'_>> {
        None
    }
}

impl Session {
    /// Before a Query is carried out: a read may be answered here, and a write is marked. Returns whether it
    /// is answered.
    pub(crate) fn before_query(
        &mut self,
        text: &[u8],
        script: &Script,
        literals: &[mask::Literal],
    ) -> Result<bool, Stop> {
        if script.statements.iter().any(is_given_ids) {
            // It comes again with its ids.
            return Ok(false);
        }
        let values = crate::planner::plan::TextValues {
            text,
            literals,
            is_utf8: self.is_utf8(),
        };
        if self.query_from_cache(text, script, literals, &values)? {
            return Ok(true);
        }
        if self.block.is_none()
            && self.series.is_none()
            && let [statement] = script.statements.as_slice()
            && self.is_to_be_looked_at(statement, &values)
        {
            // It runs in a block of its own.
            return Err(Stop::Series);
        }
        self.before_statements(&script.statements, &values)?;
        Ok(false)
    }

    /// Before a Bind is carried out: a write is marked, or noted for the COMMIT.
    pub(crate) fn before_bind(
        &mut self,
        prepared: &Prepared,
        values: &dyn Values,
    ) -> Result<(), Stop> {
        self.before_statements(&prepared.script.statements, values)?;
        let ends = |statement: &Statement| {
            matches!(statement.effect, Effect::Commit { .. } | Effect::TwoPhase)
        };
        if let Some(marked) = &mut self.caching.mark
            && prepared.script.statements.iter().any(ends)
        {
            marked.is_bound = true;
        }
        Ok(())
    }

    /// Before something of which nothing is known.
    pub(crate) fn before_anything(&mut self) -> Result<(), Stop> {
        if self.is_in_said_block() {
            self.touch(vec![Tag::All]);
            return Ok(());
        }
        self.mark(vec![Tag::All], false, false)
    }

    fn before_statements(
        &mut self,
        statements: &[Statement],
        values: &dyn Values,
    ) -> Result<(), Stop> {
        if self.block.is_none() && self.caching.mark.is_none() {
            self.caching.touched.clear();
            self.caching.looks.clear();
            self.caching.strict = false;
        }
        let (mut tags, mut looks) = (Vec::new(), Vec::new());
        let (mut commits, mut strict) = (false, false);
        for statement in statements {
            strict |= matches!(statement.cache.as_deref(), Some(Verdict::Write(writing)) if writing.strict);
            commits |= matches!(statement.effect, Effect::Commit { .. } | Effect::TwoPhase);
            self.touched_by(statement, values, (&mut tags, &mut looks));
        }
        let is_one = statements.len() == 1;
        if !is_one {
            // What is committed by the text itself is not seen before that.
            tags.extend(looks.drain(..).map(|look| look.unseen()));
        }
        if commits {
            self.look_before_commit()?;
            if self.caching.touched.is_empty() && self.caching.mark.is_none() && tags.is_empty() {
                return Ok(());
            }
            tags.extend(self.caching.touched.iter().cloned());
            return self.mark(tags, true, strict);
        }
        if tags.is_empty() {
            return Ok(());
        }
        self.look_later(looks);
        if self.is_in_said_block() {
            self.touch(tags);
            self.caching.strict |= strict;
            return Ok(());
        }
        self.mark(tags, false, strict)
    }

    /// Whether a COMMIT of the client's ends what runs.
    fn is_in_said_block(&self) -> bool {
        self.block.is_some() && !self.is_implied()
    }

    /// Whether a statement writes rows that are to be looked at before it is committed.
    fn is_to_be_looked_at(&self, statement: &Statement, values: &dyn Values) -> bool {
        match statement.cache.as_deref() {
            Some(Verdict::Write(writing)) if statement.effect == Effect::None => {
                let (_, looks) = cache::of_write(writing, &self.topology(), values);
                !looks.is_empty()
            }
            Some(_) | None => false,
        }
    }

    /// The tags of one statement, and the rows that are to be looked at for more.
    fn touched_by(
        &self,
        statement: &Statement,
        values: &dyn Values,
        (tags, looks): (&mut Vec<Tag>, &mut Vec<Look>),
    ) {
        let topology = self.topology();
        match (&statement.effect, statement.cache.as_deref()) {
            (Effect::Execute { name, .. }, _) => {
                let key = statement_key(name.as_bytes());
                match self.statements.get(key) {
                    Some(target) => {
                        for statement in &target.script.statements {
                            if let Some(Verdict::Write(writing)) = statement.cache.as_deref() {
                                let (touched, unseen) =
                                    cache::of_write(writing, &topology, &NoValues);
                                tags.extend(touched);
                                tags.extend(unseen.iter().map(Look::unseen));
                            }
                        }
                    }
                    None => tags.push(Tag::All),
                }
            }
            (_, Some(Verdict::Write(writing))) => {
                for touched in writing.tables.iter().flatten() {
                    let counts = self.cache().counts.of(&self.database.name, &touched.table);
                    counts.writes.add(1);
                }
                let (touched, unseen) = cache::of_write(writing, &topology, values);
                tags.extend(touched);
                looks.extend(unseen);
            }
            (_, _) => (),
        }
        // What was planned before a reload, or under a schema that has changed since, says nothing of what is
        // cached now.
        if statement.writes && (self.is_outdated() || !self.database.catalog_is_current()) {
            tags.push(Tag::All);
        }
    }

    /// The open block has written.
    fn touch(&mut self, tags: Vec<Tag>) {
        let touched = &mut self.caching.touched;
        for tag in tags {
            if !touched.contains(&tag) {
                touched.push(tag);
            }
        }
        if touched.len() > TAGS_MAX {
            *touched = vec![Tag::All];
        }
    }

    /// Nothing that depends on these tags is given until the write is over.
    fn mark(&mut self, mut tags: Vec<Tag>, is_commit: bool, strict: bool) -> Result<(), Stop> {
        if tags.len() > TAGS_MAX {
            tags = vec![Tag::All];
        }
        let names = self.tag_names(&tags);
        let is_shared = self.cache().redis().is_some();
        let marked = match &mut self.caching.mark {
            Some(marked) => {
                if !marked.mark.has(&names) {
                    marked.mark.add(&names);
                    marked.is_told = false;
                }
                marked
            }
            none => none.insert(Marked {
                mark: self.engine.shared.cache.mark(names),
                is_sent: false,
                is_commit: false,
                is_bound: false,
                is_told: false,
            }),
        };
        marked.is_commit |= is_commit;
        marked.is_sent = false;
        if is_shared && !marked.is_told {
            return Err(Stop::Mark(strict || self.caching.strict));
        }
        Ok(())
    }
}
