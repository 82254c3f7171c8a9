//! Which server connection a statement runs on: taking one, keeping it, giving it back.

use std::rc::Rc;

use crate::config::PoolMode;
use crate::error::{Fault, SqlState};
use crate::placement::ShardId;
use crate::planner::plan::{Access, Effect, Given, Literal, Parameter, Route, Statement, Values};
use crate::planner::{self, refuse};
use crate::server::connection::ServerConnection;
use crate::server::pool::Lease;
use crate::server::settings::Settings;
use crate::server::statements::Prepared;
use crate::wire::backend::Status;

use super::client::Activity;
use super::{Session, Stop, snapshots};

/// The values of a statement that SQL EXECUTE runs.
struct Executed<'a> {
    target: &'a Prepared,
    arguments: &'a [Given],
    /// Of the EXECUTE.
    outer: &'a dyn Values,
}

impl Values for Executed<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let own = self.target.parameter_type(index);
        match self.arguments.get(usize::from(index))? {
            Given::Constant(text) => Some(Parameter {
                value: text.as_deref().map(str::as_bytes),
                binary: false,
                oid: own,
            }),
            // Of another type it is converted first.
            Given::Parameter(index) => self
                .outer
                .parameter(*index)
                .filter(|parameter| parameter.oid == own),
            Given::Unknown => None,
        }
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.target.script.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.target.text()),
        })
    }

    fn is_utf8(&self) -> bool {
        self.outer.is_utf8()
    }
}

/// Where the session wants to run a statement.
#[derive(Debug)]
pub(crate) enum Place {
    /// Answered here.
    Local,
    /// On one shard. `binds`: an open block belongs to it from now on.
    Shard { shard: ShardId, binds: bool },
    /// On several.
    Wide(Route),
}

impl Session {
    /// The shard of the current connection, or home.
    pub(crate) fn here_or_home(&self) -> ShardId {
        let here = self.lease.as_ref().and_then(Lease::peek);
        // On a twin only its cursors are, and what ends a failure there.
        let here = here.filter(|connection| {
            connection.status == Status::Failed || !self.is_twin(connection.shard)
        });
        let here = here.map(|connection| connection.shard);
        here.or_else(|| self.block.as_ref().and_then(|block| block.here))
            .unwrap_or_else(|| self.database.topology.home())
    }

    /// Whether this is not a shard's number but a twin's.
    pub(crate) fn is_twin(&self, shard: ShardId) -> bool {
        usize::from(shard.0) >= self.database.topology.shards().len()
    }

    /// Whether the current connection is a twin's, and owes replies.
    pub(crate) fn waits_for_twin(&self) -> bool {
        let connection = self.lease.as_ref().and_then(Lease::peek);
        connection.is_some_and(|connection| {
            self.is_twin(connection.shard) && !connection.pipeline.is_empty()
        })
    }

    /// Whether an open block has connections beside the current one.
    pub(crate) fn is_spread(&self) -> bool {
        self.block
            .as_ref()
            .is_some_and(|block| !block.parts.0.is_empty())
    }

    /// The settings that a connection is to have before it is used: in a block those of its beginning, so that a
    /// rollback leads back there.
    pub(crate) fn settings_at_begin(&self) -> &Rc<Settings> {
        self.block
            .as_ref()
            .map_or(&self.settings, |block| &block.settings)
    }

    /// Whether something of a transaction, explicit or implicit, is open on the current connection.
    pub(crate) fn transaction_is_open(&self) -> bool {
        let connection = self.lease.as_ref().and_then(Lease::peek);
        connection.is_some_and(|connection| {
            connection.status != Status::Idle || (connection.unsynced && self.executed)
        }) || self.block.as_ref().is_some_and(|block| block.sent)
    }

    /// Decides where a statement runs.
    ///
    /// # Errors
    /// What the planner refuses; 42501 for what is not confined to the session's tenant.
    pub(crate) fn place(&self, statement: &Statement, values: &dyn Values) -> Result<Place, Fault> {
        if statement.confined.is_some() || self.database.topology.tenant().is_some() {
            self.check_tenant(statement, values)?;
        }
        self.place_confined(statement, values)
    }

    /// The same for what the tenant may run.
    pub(super) fn place_confined(
        &self,
        statement: &Statement,
        values: &dyn Values,
    ) -> Result<Place, Fault> {
        let here = |binds| {
            Ok(Place::Shard {
                shard: self.here_or_home(),
                binds,
            })
        };
        match &statement.effect {
            Effect::Begin => {
                if self.is_implied() || (self.block.is_none() && !self.transaction_is_open()) {
                    return Ok(Place::Local);
                }
                return here(false);
            }
            Effect::Commit { .. } | Effect::Rollback { .. } => {
                if self.ends_here() {
                    return Ok(Place::Local);
                }
                return here(false);
            }
            Effect::Deallocate { name, .. } => {
                let ours = name.as_ref().is_some_and(|name| {
                    self.statements
                        .contains_key(super::simple::statement_key(name.as_bytes()))
                });
                if ours || self.sql_prepared.is_empty() {
                    return Ok(Place::Local);
                }
                return here(false);
            }
            Effect::SetPgherd { .. } | Effect::ShowPgherd { .. } | Effect::ExplainRoute { .. } => {
                return Ok(Place::Local);
            }
            Effect::Listen { .. } | Effect::Unlisten { .. }
                if self.pool_mode != PoolMode::Session
                    && self.block.is_none()
                    && !self.transaction_is_open() =>
            {
                return Ok(Place::Local);
            }
            Effect::Savepoint(_)
            | Effect::RollbackTo(_)
            | Effect::Release(_)
            | Effect::SetTransaction { .. }
            | Effect::Set { .. }
            | Effect::Reset { .. }
            | Effect::ResetAll
            | Effect::SetConfig { .. }
            | Effect::DiscardAll
            | Effect::DiscardOther
            | Effect::Listen { .. }
            | Effect::Unlisten { .. } => return here(false),
            // EXECUTE runs where it was prepared: where its tables are.
            Effect::Prepare { .. }
                if !statement.has_tables && !matches!(statement.access, Access::Refuse(_)) =>
            {
                return here(false);
            }
            Effect::Execute {
                name, arguments, ..
            } => {
                return self.place_named(name, arguments, values);
            }
            // Elsewhere it is taken care of before.
            Effect::Keep { .. } => return Err(refuse::sql_prepare()),
            Effect::Prepare { .. }
            | Effect::LastId { .. }
            | Effect::Explain(_)
            | Effect::None
            | Effect::SetConstraints { .. }
            | Effect::TwoPhase
            | Effect::Pin(_)
            | Effect::Ddl
            | Effect::CopyIn { .. }
            | Effect::CopyOut { .. } => {}
        }
        self.place_by_access(statement, values)
    }

    fn place_by_access(&self, statement: &Statement, values: &dyn Values) -> Result<Place, Fault> {
        let here = |binds| {
            Ok(Place::Shard {
                shard: self.here_or_home(),
                binds,
            })
        };
        if let Effect::SetConstraints { .. } = &statement.effect
            && self.is_spread()
        {
            // What is checked at once is to be checked on each.
            return Ok(Place::Wide(Route::Broadcast { transaction: true }));
        }
        if let Access::Bound = statement.access {
            return here(true);
        }
        if let Access::Generate(_) = statement.access {
            // Where they can be, they have been put in before.
            return Err(refuse::ids_within());
        }
        // What reads no table of the database's own reads the same on every shard.
        let reads_catalogs = matches!(statement.access, Access::Home)
            && !statement.has_tables
            && !statement.writes
            && self.block.as_ref().is_some_and(|block| block.bound);
        if reads_catalogs {
            return here(true);
        }
        let route = self.route_of(statement, values)?;
        match route {
            Route::Session | Route::Anywhere => here(false),
            Route::AnyShard => Ok(Place::Shard {
                shard: self.any_shard(),
                binds: true,
            }),
            Route::Single(shard) => Ok(Place::Shard { shard, binds: true }),
            wide @ (Route::Concat(..)
            | Route::Broadcast { .. }
            | Route::CopySplit(_)
            | Route::Gather(_)
            | Route::InsertGathered(..)
            | Route::Each(_)
            | Route::Move(..)
            | Route::InsertSplit(_)) => Ok(Place::Wide(wide)),
        }
    }

    /// The statement that SQL EXECUTE names, if it was prepared by the protocol or is kept like such.
    fn executed(&self, name: &str) -> Result<Option<Rc<Prepared>>, Fault> {
        let key = super::simple::statement_key(name.as_bytes());
        match self.statements.get(key) {
            Some(prepared) if prepared.fills.is_some() => Err(refuse::ids_within()),
            found => Ok(found.map(Rc::clone)),
        }
    }

    /// Where SQL EXECUTE of a name runs: what SQL alone has prepared is where the session is.
    fn place_named(
        &self,
        name: &str,
        arguments: &[Given],
        values: &dyn Values,
    ) -> Result<Place, Fault> {
        match self.executed(name)? {
            Some(target) => self.place_execute(&target, arguments, values),
            None => Ok(Place::Shard {
                shard: self.here_or_home(),
                binds: true,
            }),
        }
    }

    /// Where SQL EXECUTE of a statement runs.
    ///
    /// # Errors
    /// What is refused of the statement itself, and several shards.
    pub(super) fn place_execute(
        &self,
        target: &Prepared,
        arguments: &[Given],
        outer: &dyn Values,
    ) -> Result<Place, Fault> {
        let here = Place::Shard {
            shard: self.here_or_home(),
            binds: true,
        };
        let [statement] = target.script.statements.as_slice() else {
            return Ok(here);
        };
        // One EXECUTE of another, or of itself: the server says what becomes of it.
        if let Effect::Execute { .. } = statement.effect {
            return Ok(here);
        }
        let values = Executed {
            target,
            arguments,
            outer,
        };
        match self.place(statement, &values)? {
            Place::Local => Ok(here),
            Place::Shard { shard, .. } => Ok(Place::Shard { shard, binds: true }),
            Place::Wide(_) => Err(refuse::kind(
                "EXECUTE",
                "Give the key as a constant, or send the statement itself.",
            )),
        }
    }

    /// The shard that `SET pgherd.shard` names.
    pub(super) fn hinted_shard(&self) -> Option<ShardId> {
        let mut settings = self.own_settings.iter();
        let (_, name) = settings.find(|(name, _)| name == "pgherd.shard")?;
        self.database.topology.shard(name)
    }

    /// `SET pgherd.shard` sends what it can to that shard.
    pub(super) fn hinted(
        &self,
        statement: &Statement,
        values: &dyn Values,
    ) -> Result<Route, Fault> {
        let route = || planner::route(statement, &self.database.topology, values);
        let Some((_, name)) = self
            .own_settings
            .iter()
            .find(|(name, _)| name == "pgherd.shard")
        else {
            return route();
        };
        match (&statement.access, self.database.topology.shard(name)) {
            // Copies would differ, or rows lie where their key does not belong.
            (Access::Session | Access::Broadcast { .. } | Access::CopySplit(_), _) => route(),
            (Access::Refuse(fault), _) if refuse::stands(fault) => route(),
            (Access::Gather(gather), _)
                if gather.target.is_some() && refuse::stands(&gather.otherwise) =>
            {
                route()
            }
            (Access::Keyed(keyed), Some(shard)) => {
                planner::hinted(keyed, shard, &self.database.topology, values)
            }
            (_, Some(shard)) => Ok(Route::Single(shard)),
            (_, None) => Err(Fault::error(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("there is no shard \"{name}\""),
            )
            .hint("Use a name that SHOW SHARDS lists, or RESET pgherd.shard.")),
        }
    }

    /// A shard for a read that any shard can answer: the current one, else one that differs from client to client.
    fn any_shard(&self) -> ShardId {
        if let Some(connection) = self.lease.as_ref().and_then(Lease::peek)
            && !self.is_twin(connection.shard)
        {
            return connection.shard;
        }
        if let Some(shard) = self.block.as_ref().and_then(|block| block.here) {
            return shard;
        }
        let count = u64::try_from(self.database.topology.shards().len())
            .unwrap_or(1)
            .max(1);
        ShardId(u16::try_from(self.client.id % count).unwrap_or(0))
    }

    /// Whether the end of the block is ours to bring about: it is open nowhere, or on several shards.
    pub(crate) fn ends_here(&self) -> bool {
        self.block
            .as_ref()
            .is_some_and(|block| !block.sent || block.implicit || !block.parts.0.is_empty())
    }

    /// Notes what a statement does to the open block on a shard, before it is sent there.
    ///
    /// # Errors
    /// It would have to be committed on several shards, and cannot be. Nothing was sent: the block goes on.
    pub(crate) fn note_use(&mut self, shard: ShardId, statement: &Statement) -> Result<(), Stop> {
        if self.block.is_none() || self.status() == Status::Failed || self.is_twin(shard) {
            return Ok(());
        }
        if snapshots::takes_snapshot(statement) {
            self.check_snapshots(shard)?;
        }
        let limit = planner::unpreparable(statement);
        if statement.writes {
            self.note_write(shard)?;
        }
        let name = |shard| self.database.topology.name(shard).to_owned();
        let names = self.block.as_ref().and_then(|block| block.unpreparable);
        let names = names.map(|(other, what)| (name(other), what));
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        if let Some(what) = limit {
            match (block.unpreparable, names) {
                (Some((other, before)), Some((name, _))) if other != shard => {
                    return Err(Stop::Refusal(unpreparable(what, before, &name)));
                }
                (Some(_) | None, _) => block.unpreparable = Some((shard, what)),
            }
        }
        Ok(())
    }

    /// The open block writes on a shard.
    ///
    /// # Errors
    /// As for [`Session::note_use`].
    pub(crate) fn note_write(&mut self, shard: ShardId) -> Result<(), Stop> {
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        if !block.wrote.is_empty() && !block.wrote.contains(shard) && !block.failed {
            match self
                .database
                .shared
                .two_phase
                .known(self.database.generation)
            {
                None => return Err(Stop::TwoPhase),
                Some(Err(fault)) => return Err(Stop::Refusal(fault)),
                Some(Ok(())) => {}
            }
        }
        block.wrote.insert(shard);
        Ok(())
    }

    /// Makes the connection of a shard the current one, or says what has to happen first.
    pub(crate) fn lease(
        &mut self,
        shard: ShardId,
        binds: bool,
    ) -> Result<&mut ServerConnection, Stop> {
        self.settle_current(shard)?;
        if self.lease.is_none() {
            self.take(shard)?;
        } else {
            self.client
                .set_activity(Activity::Active, self.engine.recently());
        }
        self.open_block(binds);
        let step = if self.is_twin(shard) {
            self.steps = self.steps.saturating_add(1);
            self.steps
        } else {
            0
        };
        self.client.step.set(step);
        self.connection().ok_or_else(|| {
            Stop::Fault(Fault::error(
                SqlState::INTERNAL,
                "the server connection is gone",
            ))
        })
    }

    /// Lets go of the current connection when it belongs to another shard.
    fn settle_current(&mut self, shard: ShardId) -> Result<(), Stop> {
        let Some(connection) = self.lease.as_ref().and_then(Lease::peek) else {
            return Ok(());
        };
        if connection.shard == shard {
            let quiet =
                connection.is_clean() && self.block.as_ref().is_none_or(|block| !block.sent);
            return match (quiet && !self.has_our_settings(connection))
                .then(|| self.lease.take())
                .flatten()
            {
                Some(lease) => Err(Stop::Settings(lease)),
                None => Ok(()),
            };
        }
        if connection.is_clean() && self.block.as_ref().is_none_or(|block| !block.sent) {
            self.let_go();
            return Ok(());
        }
        if !connection.pipeline.is_empty() && !connection.unsynced {
            return Err(Stop::Idle);
        }
        if let Some(block) = &self.block
            && block.sent
        {
            // One that has failed is moved nowhere: it would begin anew there.
            let failed = connection.status == Status::Failed && !connection.unsynced;
            if block.bound && !failed {
                // An error of what was sent before comes first.
                if !connection.pipeline.is_empty() {
                    return Err(Stop::Drain);
                }
                if connection.unsynced {
                    return Err(Stop::EndGroup);
                }
                // A twin is no shard of the transaction.
                let between = !self.is_twin(shard) && !self.is_twin(connection.shard);
                if block.unread && between {
                    return Err(Stop::Modes);
                }
                if let Some(why) = block.alone.filter(|_| between) {
                    return Err(Stop::Fault(self.second_shard(connection.shard, shard, why)));
                }
                self.park_part();
                return Ok(());
            }
            return Err(if failed {
                Stop::Fault(Session::failed_block_fault())
            } else if connection.pipeline.is_empty() && !connection.unsynced {
                Stop::Move(shard)
            } else if connection.unsynced {
                Stop::EndGroup
            } else {
                Stop::Idle
            });
        }
        if self.executed {
            return Err(if connection.pipeline.is_empty() {
                Stop::Imply
            } else {
                Stop::Drain
            });
        }
        Err(if connection.pipeline.is_empty() {
            Stop::EndGroup
        } else {
            Stop::Drain
        })
    }

    fn second_shard(&self, first: ShardId, second: ShardId, why: &str) -> Fault {
        let topology = &self.database.topology;
        Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("a transaction with {why} is on one shard only"),
        )
        .detail(format!(
            "The transaction runs on shard \"{}\"; this statement belongs to shard \"{}\".",
            topology.name(first),
            topology.name(second)
        ))
        .hint("Commit before using another shard.")
    }

    /// The current connection waits in its transaction while that of another shard is used.
    pub(crate) fn park_part(&mut self) {
        let here = self.lease.as_ref().map(|lease| lease.pool().target.shard);
        let here = here.filter(|shard| !self.is_twin(*shard));
        if let (Some(lease), Some(block)) = (self.lease.take(), &mut self.block) {
            block.here = here.or(block.here);
            block.parts.0.push(lease);
            block.joins = true;
        }
        self.note_time();
        self.client.targets.borrow_mut().clear();
        self.client.shard.set(None);
        self.client.server_id.set(None);
    }

    fn take(&mut self, shard: ShardId) -> Result<(), Stop> {
        if let Some(block) = &mut self.block {
            if let Some(lease) = block.parts.take(shard) {
                block.joins = false;
                self.adopt(lease);
                return Ok(());
            }
            block.joins = block.sent;
        }
        if let Some(lease) = self.granted.take() {
            if lease
                .peek()
                .is_some_and(|connection| connection.shard == shard)
            {
                return self.adopt_or_stop(lease);
            }
            lease.give_back(self.engine.recently());
        }
        if let Some(index) = self.parked.iter().position(|lease| {
            lease
                .peek()
                .is_some_and(|connection| connection.shard == shard)
        }) {
            let mut lease = self.parked.swap_remove(index);
            if lease.connection().is_some_and(ServerConnection::is_stale) {
                let fault = self.kept_was_lost(shard);
                self.client.kill(fault.clone());
                return Err(Stop::Fault(fault));
            }
            return self.adopt_or_stop(lease);
        }
        let Some(pool) = self.pools.get(usize::from(shard.0)) else {
            return Err(Stop::Fault(Fault::error(
                SqlState::INTERNAL,
                "there is no such shard",
            )));
        };
        match pool.take(self.settings_at_begin()) {
            Some(lease) => {
                self.account.assign();
                self.adopt_or_stop(lease)
            }
            None => Err(Stop::Lease(shard)),
        }
    }

    /// What a client is told that kept state on a connection that is gone.
    pub(crate) fn kept_was_lost(&self, shard: ShardId) -> Fault {
        let name = self.database.topology.name(shard);
        Fault::fatal(
            SqlState::CONNECTION_FAILURE,
            format!("the session's connection to shard \"{name}\" was lost"),
        )
        .hint("Connect again: what the session held there is gone.")
    }

    /// Whether a connection is set as the session wants it.
    pub(crate) fn has_our_settings(&self, connection: &ServerConnection) -> bool {
        connection.settings.same(self.settings_at_begin()) && !connection.settings_unsure
    }

    fn adopt_or_stop(&mut self, lease: Lease) -> Result<(), Stop> {
        let is_ready = lease
            .peek()
            .is_some_and(|connection| self.has_our_settings(connection));
        if is_ready {
            self.adopt(lease);
            Ok(())
        } else {
            Err(Stop::Settings(lease))
        }
    }

    /// Takes a connection that has our settings as the current one.
    pub(crate) fn adopt(&mut self, lease: Lease) {
        if let Some(connection) = lease.peek() {
            if connection.cancel.holder.get() != self.client.id {
                lease.lend(self.client.id, self.engine.recently());
            }
            self.client
                .targets
                .borrow_mut()
                .push(Rc::clone(&connection.cancel));
            self.client.shard.set(Some(connection.shard));
            self.client.server_id.set(Some(connection.id));
        }
        self.client
            .set_activity(Activity::Active, self.engine.recently());
        self.lease = Some(lease);
    }

    /// Sends the deferred BEGIN ahead of the first statement.
    fn open_block(&mut self, binds: bool) {
        let shards = self.database.topology.shards().len();
        let Session {
            block,
            lease,
            settings,
            ..
        } = self;
        let (Some(block), Some(connection)) = (block, lease.as_mut().and_then(Lease::connection))
        else {
            return;
        };
        if !block.sent || block.joins {
            block.begin_on(connection, settings);
            block.sent = true;
            block.joins = false;
        }
        if usize::from(connection.shard.0) < shards {
            block.here = Some(connection.shard);
        }
        block.bound |= binds;
    }

    /// Gives the current connection back, or parks it when the client keeps its connections.
    pub(crate) fn let_go(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        self.note_time();
        let now = self.engine.recently();
        self.client.targets.borrow_mut().clear();
        self.client.shard.set(None);
        self.client.server_id.set(None);
        if self.keeps_connections() {
            self.parked.push(lease);
            return;
        }
        lease.give_back(now);
    }

    /// A connection that was waited for and is not wanted any more.
    pub(crate) fn return_granted(&mut self) {
        if let Some(lease) = self.granted.take() {
            lease.give_back(self.engine.recently());
        }
    }

    /// Gives the connection back if nothing holds it.
    pub(crate) fn release_if_free(&mut self) {
        self.release_twins();
        let Some(connection) = self.lease.as_ref().and_then(Lease::peek) else {
            return;
        };
        // COPY data may still be on its way when the server has given up on it: the connection is not
        // free before the message has ended.
        let is_fed = self.passing.is_some_and(|passing| passing.to_server);
        if connection.is_clean() && self.block.is_none() && !self.copy_in && !is_fed {
            let now = self.engine.recently();
            self.client.set_activity(Activity::Idle, now);
            self.executed = false;
            self.settings_before = None;
            if self.keeps_connections() {
                return;
            }
            self.let_go();
        }
    }

    /// Ends a group that was sent without Sync, so that the connection comes free.
    pub(crate) fn end_group(&mut self) {
        if let Some(connection) = self.connection() {
            connection.push_hidden_sync();
        }
    }
}

/// What keeps a transaction from being prepared on a second shard.
fn unpreparable(what: &str, before: &str, shard: &str) -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!("{what} in a transaction that has {before} on another shard"),
    )
    .detail(format!(
        "Shard \"{shard}\" could not be prepared for the commit, nor could this one."
    ))
    .hint("Use two transactions, or one shard.")
}
