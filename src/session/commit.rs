//! The end of a block that is open on several shards, and what it takes to have one.

use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::control::gate::Keeper;
use crate::error::{Fault, Severity, SqlState};
use crate::execute::{Conversation as _, End, Interrupted, Source, Wide};
use crate::placement::ShardId;
use crate::planner::plan::Effect;
use crate::server::connection::ServerConnection;
use crate::server::hidden::{ask_row, wait_for_ready};
use crate::server::pool::Lease;
use crate::transaction::commit::{self, Committed, Naming, Participant};
use crate::wire::backend::{self, Status};

use super::Session;
use super::block::Block;
use super::client::Activity;

/// How a block is to end.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; no two of them make a state"
)]
pub(crate) struct Ending {
    pub(crate) commits: bool,
    pub(crate) chain: bool,
    /// A statement of the client's ends it: it gets its command tag.
    pub(crate) is_said: bool,
    /// ReadyForQuery follows.
    pub(crate) is_ready: bool,
    /// The CommandComplete of a text's last statement: PostgreSQL sends it behind the commit.
    pub(crate) completion: Vec<u8>,
}

impl Ending {
    /// Of a block that is implied.
    pub(crate) const fn implied() -> Ending {
        Ending {
            commits: true,
            chain: false,
            is_said: false,
            is_ready: true,
            completion: Vec::new(),
        }
    }
}

/// How long a refusal of the shards is remembered.
const REFUSED: Duration = Duration::from_secs(2);

/// Whether the shards of a database can commit in two phases.
#[derive(Debug, Default)]
pub struct TwoPhase(Mutex<Option<Said>>);

/// Under which configuration, and when.
type Said = (u64, Instant, Result<(), Fault>);

impl TwoPhase {
    /// What they said under this configuration; `None` where they are to be asked.
    pub(crate) fn known(&self, generation: u64) -> Option<Result<(), Fault>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (under, at, said) = known.as_ref()?;
        let counts = *under == generation && (said.is_ok() || at.elapsed() < REFUSED);
        counts.then(|| said.clone())
    }

    /// Remembers it.
    pub(crate) fn remember(&self, generation: u64, said: Result<(), Fault>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((generation, Instant::now(), said));
    }
}

/// A write on a second shard where the configuration allows none.
fn rejected() -> Fault {
    Fault::error(
        SqlState::FEATURE_NOT_SUPPORTED,
        "the transaction has written on another shard",
    )
    .detail("cross_shard_writes is reject.")
    .hint("Set cross_shard_writes to two_phase, or commit before writing on another shard.")
}

/// Why a block stays on its shard that has its snapshot there before others could be opened.
const LATE_SNAPSHOT: &str =
    "a snapshot of its first shard alone (consistent_reads is set, and it began without BEGIN)";

/// What an open block asks how it is isolated.
const MODES: &str = "SELECT pg_catalog.current_setting('transaction_isolation'), \
    pg_catalog.current_setting('transaction_read_only'), \
    pg_catalog.current_setting('transaction_deferrable')";

impl Session {
    /// What was executed without Sync on the current connection, all of it answered, is a transaction that
    /// others are to join: BEGIN makes it a block of the server's.
    pub(crate) fn imply_block(&mut self) {
        let before = self.settings_before.take();
        let before = before.unwrap_or_else(|| Rc::clone(&self.settings));
        let Some(connection) = self.connection() else {
            return;
        };
        let shard = connection.shard;
        connection.push_hidden_step("BEGIN");
        connection.push_hidden_sync();
        let mut block = Block::implied(&before);
        block.sent = true;
        block.bound = true;
        block.here = Some(shard);
        block.wrote.insert(shard);
        // If it keeps a snapshot, it has it here already.
        block.unread = self.database.consistent_reads;
        self.block = Some(Box::new(block));
    }

    /// Whether what runs is part of a block that nobody said BEGIN for.
    pub(crate) fn is_implied(&self) -> bool {
        self.block.as_ref().is_some_and(|block| block.implicit)
    }

    /// Runs a statement over several shards; a block that is implied by it ends when its group does.
    pub(super) async fn run_wide(&mut self, wide: Wide) -> Result<(), End> {
        let is_text = matches!(wide.source, Source::Text(_));
        let mode = if let Effect::SetConstraints { rest } = &wide.effect {
            Some(format!("SET CONSTRAINTS {rest}"))
        } else {
            None
        };
        self.answered = false;
        crate::execute::run(self, wide).await?;
        if let Some(mode) = mode
            && self.status() != Status::Failed
            && let Some(block) = &mut self.block
        {
            block.keep_mode(&mode);
        }
        if self.is_implied() && self.series.is_none() && (is_text || self.answered) {
            return self.end_everywhere(Ending::implied()).await;
        }
        Ok(())
    }

    /// Asks how a block is isolated whose BEGIN came in the middle of a text.
    pub(crate) async fn ask_modes(&mut self) -> Result<(), Interrupted> {
        let Some(mut lease) = self.lease.take() else {
            return Ok(());
        };
        let limit = self.database.limits.server_connect_timeout;
        let asked = async {
            let Some(connection) = lease.connection() else {
                return Ok(Vec::new());
            };
            let asking = tokio::time::timeout(limit, ask_row(connection, MODES)).await;
            asking.unwrap_or_else(|_elapsed| {
                Err(Fault::error(
                    SqlState::CONNECTION_FAILURE,
                    "the server did not tell in time how the transaction is isolated",
                )
                .hint("Check the shard's health; raise server_connect_timeout if it is slow."))
            })
        };
        let asked = asked.await;
        let is_clean = lease
            .peek()
            .is_some_and(|connection| connection.pipeline.is_idle());
        let Some(block) = &mut self.block else {
            return Ok(());
        };
        if is_clean {
            self.lease = Some(lease);
        } else {
            self.client.targets.borrow_mut().clear();
            block.give_up();
        }
        let row = asked.map_err(Interrupted::Fault)?;
        let [isolation, read_only, deferrable] = row.as_slice() else {
            return Ok(());
        };
        let mode = |setting: &str, word: &str| match setting {
            "on" => format!(" {word}"),
            _ => String::new(),
        };
        let begin = format!(
            "BEGIN ISOLATION LEVEL {isolation}{}{}",
            mode(read_only, "READ ONLY"),
            mode(deferrable, "DEFERRABLE")
        );
        block.begin = begin.into_bytes();
        block.unread = false;
        if self.database.consistent_reads && isolation != "read committed" {
            block.alone = Some(LATE_SNAPSHOT);
        }
        Ok(())
    }

    /// Asks whether the shards can commit in two phases, and has what that needs made.
    pub(crate) async fn ask_two_phase(&mut self) -> Result<(), Interrupted> {
        let generation = self.database.generation;
        if !self.database.two_phase {
            let said = Err(rejected());
            self.database.shared.two_phase.remember(generation, said);
            return Ok(());
        }
        let shared = Arc::clone(&self.engine.shared);
        let name = self.database.name.clone();
        let asking = self.engine.shared.control_runtime.spawn(async move {
            let control = Arc::clone(&shared.snapshot.load().control);
            control.two_phase(&name).await
        });
        let said = self
            .watched(async {
                asking.await.map_err(|error| {
                    Fault::error(
                        SqlState::INTERNAL,
                        format!("asking the shards failed: {error}"),
                    )
                })
            })
            .await?;
        self.database.shared.two_phase.remember(generation, said);
        Ok(())
    }

    /// Whose transactions these are.
    pub(crate) fn naming(&self) -> Naming {
        Naming {
            deployment: self.database.deployment.to_string(),
            database: self.database.name.clone(),
            query_timeout: self.database.limits.query_timeout,
            gate_wait: self.database.limits.consistent_reads_timeout,
            keeper: self.keeper(),
        }
    }

    /// What holds the home shard's gate, where reads are consistent.
    fn keeper(&self) -> Option<Keeper> {
        let database = &self.database;
        database.consistent_reads.then(|| Keeper {
            runtime: self.engine.shared.control_runtime.clone(),
            gate: Arc::clone(&database.shared.gate),
            control: Arc::clone(&self.engine.shared.snapshot.load().control),
            database: database.name.clone(),
            home: database.topology.name(database.topology.home()).to_owned(),
            wait: database.limits.consistent_reads_timeout,
        })
    }

    /// Which participant decides rather than others: what keeps a transaction from being prepared is mostly
    /// on the home shard (temporary tables, NOTIFY).
    fn decider(&self, block: &Block, parts: &[Participant]) -> Option<usize> {
        let wanted = block.unpreparable.map(|(shard, _)| shard);
        let wanted = wanted.unwrap_or_else(|| self.database.topology.home());
        parts
            .iter()
            .position(|part| part.lease.pool().target.shard == wanted)
    }

    /// Takes note of what a commit has left to be done.
    fn note_committed(&mut self, committed: &Committed) {
        let decided = &self.database.shared.decided;
        if let Some((decider, gid)) = &committed.forget {
            decided.forget(decider, gid);
        }
        if committed.leaves_some {
            decided.ask();
        }
        if committed.leaves_some || matches!(committed.end, commit::End::Unknown(_)) {
            // What is not seen yet will be.
            self.abandon_write();
        }
    }

    /// Ends a block that is open on several shards, or nowhere, and tells the client.
    pub(super) async fn end_everywhere(&mut self, ending: Ending) -> Result<(), End> {
        let status = self.status();
        let Some(mut block) = self.block.take() else {
            return Ok(());
        };
        let mut leases = std::mem::take(&mut block.parts.0);
        leases.extend(self.lease.take());
        let mut leases: Vec<Lease> = leases
            .into_iter()
            .filter_map(|lease| block.end_twin(lease))
            .collect();
        self.client.targets.borrow_mut().clear();
        self.client.shard.set(None);
        self.client.server_id.set(None);
        self.account.spread();
        let kept = leases.len();
        let commits = ending.commits && status != Status::Failed;
        let committed = if commits {
            self.look_at_parts(&mut leases).await;
            self.commit_parts(&block, leases).await
        } else {
            Committed {
                leases: commit::roll_back(leases).await,
                end: commit::End::Committed,
                notices: Vec::new(),
                forget: None,
                leaves_some: false,
                two_phase: false,
            }
        };
        let is_lost = committed.leases.len() < kept;
        let done = matches!(committed.end, commit::End::Committed);
        for mut lease in committed.leases {
            if let Some(connection) = lease.connection()
                && !(commits && done)
            {
                connection.settings = Rc::clone(&block.settings);
            }
            self.give_back(lease);
        }
        if is_lost && self.pinned.is_some() {
            self.client.kill(self.kept_was_lost(self.here_or_home()));
        }
        self.rolled_back = !(commits && done);
        self.lost = None;
        self.settle_block(&block);
        self.settings_before = None;
        self.executed = false;
        self.portals.clear();
        self.client.set_activity(Activity::Idle, self.engine.now());
        if std::mem::take(&mut self.ran_ddl) {
            self.forget_dropped();
            if commits && done {
                self.schema_changed().await;
            } else {
                self.database.schema_changed();
            }
        }
        self.hold_answer();
        self.out.extend_from_slice(&committed.notices);
        self.tell_end(&ending, commits, committed.end, &block);
        Ok(())
    }

    /// Commits on all of these; the client may go away meanwhile.
    async fn commit_parts(&mut self, block: &Block, leases: Vec<Lease>) -> Committed {
        let before = self.before_prepare(block);
        let parts: Vec<Participant> = leases
            .into_iter()
            .map(|lease| Participant {
                writes: block.wrote.contains(lease.pool().target.shard),
                before: before.clone(),
                lease,
            })
            .collect();
        let preferred = self.decider(block, &parts);
        self.commit(parts, preferred).await
    }

    /// Commits, whether the client stays or not.
    async fn commit(&mut self, parts: Vec<Participant>, preferred: Option<usize>) -> Committed {
        let naming = self.naming();
        let work = async move { commit::commit(parts, preferred, &naming).await };
        let committed = match tokio::task::spawn_local(work).await {
            Ok(committed) => committed,
            Err(error) => {
                tracing::error!(%error, "a commit failed");
                Committed {
                    leases: Vec::new(),
                    end: commit::End::Unknown(Fault::error(
                        SqlState::TRANSACTION_OUTCOME_UNKNOWN,
                        "the commit ended without an outcome",
                    )),
                    notices: Vec::new(),
                    forget: None,
                    leaves_some: true,
                    two_phase: true,
                }
            }
        };
        self.note_committed(&committed);
        committed
    }

    /// Commits what one statement has done on several shards, in a transaction of its own.
    pub(crate) async fn commit_statement(&mut self, leases: Vec<Lease>) -> Committed {
        let parts: Vec<Participant> = leases
            .into_iter()
            .map(|lease| Participant {
                writes: true,
                before: String::new(),
                lease,
            })
            .collect();
        let home = self.database.topology.home();
        let preferred = parts
            .iter()
            .position(|part| part.lease.pool().target.shard == home);
        self.commit(parts, preferred).await
    }

    /// A role that ends with the transaction prepares it, and could not commit it then: what is deferred
    /// runs under it, and the session's own prepares.
    fn before_prepare(&self, block: &Block) -> String {
        let Some(local) = &block.local else {
            return String::new();
        };
        let names = ["role", "session_authorization"];
        let is_same = |name: &str| local.get(name) == self.settings.get(name);
        if names.into_iter().all(is_same) {
            return String::new();
        }
        let of = |name: &str, otherwise: &'static str| {
            let set = self.settings.get(name);
            set.map_or_else(|| otherwise.to_owned(), str::to_owned)
        };
        format!(
            "SET CONSTRAINTS ALL IMMEDIATE;SET LOCAL SESSION AUTHORIZATION {};SET LOCAL ROLE {};",
            of("session_authorization", "DEFAULT"),
            of("role", "NONE")
        )
    }

    fn tell_end(&mut self, ending: &Ending, commits: bool, end: commit::End, block: &Block) {
        let failed = match end {
            commit::End::Committed => {
                if ending.is_said && block.implicit {
                    let warning = Fault {
                        severity: Severity::Warning,
                        ..Fault::error(
                            SqlState::NO_ACTIVE_TRANSACTION,
                            "there is no transaction in progress",
                        )
                    };
                    backend::fault(&mut self.out, &warning);
                }
                self.out.extend_from_slice(&ending.completion);
                if ending.is_said {
                    let tag = if commits { "COMMIT" } else { "ROLLBACK" };
                    backend::command_complete(&mut self.out, tag);
                }
                if ending.chain {
                    self.count_transaction();
                    self.account.begin(self.engine.recently());
                    let mut next = Block::new(&block.begin, &self.settings);
                    let is_mode = |mode: &&String| mode.starts_with("SET TRANSACTION");
                    next.modes = block.modes.iter().filter(is_mode).cloned().collect();
                    self.block = Some(Box::new(next));
                    let now = self.engine.now();
                    self.client.set_activity(Activity::IdleInTransaction, now);
                }
                false
            }
            commit::End::Refused(error) => {
                let sentence = self.sentence_for(&error);
                self.out
                    .extend_from_slice(sentence.as_deref().unwrap_or(&error));
                true
            }
            commit::End::Failed(fault) | commit::End::Unknown(fault) => {
                self.reply_refusal(&fault);
                true
            }
        };
        if failed {
            self.account.fail();
            self.fail_series();
            self.skipping |= !ending.is_ready;
        }
        if ending.is_ready {
            self.reply_ready();
        }
    }

    /// A connection of a shard for a statement that is part of the open block, whatever else is: the
    /// block's own, or one that joins.
    pub(crate) async fn take_joined(&mut self, shard: ShardId) -> Result<Lease, Interrupted> {
        let joined = self.block.as_mut();
        if let Some(mut lease) = joined.and_then(|block| block.parts.take(shard)) {
            let limit = self.database.limits.server_connect_timeout;
            if let Some(connection) = lease.connection()
                && !connection.pipeline.is_empty()
            {
                // What it was told before: errors of that are not the statement's.
                let told = tokio::time::timeout(limit, wait_for_ready(connection)).await;
                if told.is_err() || !connection.pipeline.is_idle() {
                    if let Some(block) = &mut self.block {
                        block.give_up();
                    }
                    return Err(Interrupted::Fault(Fault {
                        severity: Severity::Error,
                        ..self.kept_was_lost(shard)
                    }));
                }
            }
            return Ok(lease);
        }
        let parked = self.parked.iter().position(|lease| {
            lease
                .peek()
                .is_some_and(|connection| connection.shard == shard)
        });
        let mut lease = match parked {
            Some(index) => self.parked.swap_remove(index),
            None => self.acquire(shard).await?,
        };
        if let Err(interrupted) = self.settle(&mut lease).await {
            if lease.peek().is_some_and(ServerConnection::is_clean) {
                self.give_back(lease);
            } else if parked.is_some() && self.pinned.is_some() {
                self.lose(shard);
            }
            return Err(interrupted);
        }
        let settings = Rc::clone(&self.settings);
        if let (Some(block), Some(connection)) = (&mut self.block, lease.connection()) {
            block.begin_on(connection, &settings);
            block.sent = true;
            block.bound = true;
            block.joins = false;
            block.here.get_or_insert(shard);
        }
        Ok(lease)
    }

    /// Takes back a connection that took part in a statement of the open block.
    pub(crate) fn return_joined(&mut self, lease: Lease) {
        let is_in_sync = lease
            .peek()
            .is_some_and(|connection| connection.pipeline.is_idle() && !connection.unsynced);
        let Some(block) = &mut self.block else {
            return;
        };
        if is_in_sync {
            block.parts.0.push(lease);
            return;
        }
        // What it did cannot be told any more: the block is over, on each shard.
        let shard = lease.pool().target.shard;
        drop(lease);
        block.give_up();
        if self.keeps_connections() {
            self.client.kill(self.kept_was_lost(shard));
        }
    }
}
