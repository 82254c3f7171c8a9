//! What an engine counts as its clients work.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{Fault, SqlState};
use crate::metrics::catalogue::{
    Origin, RouteLabel, SharedOutcome, TransactionKind, TransactionOutcome,
};
use crate::metrics::counters::DatabaseCounters;
use crate::metrics::view::Role;
use crate::placement::ShardId;
use crate::planner::plan::Script;
use crate::planner::tally::Way;
use crate::server::pool::Pool;

use super::Session;
use super::engine::{Database, Engine};

/// What a client did since it was last counted. It is counted when bytes are sent to the client, so that
/// a transaction costs no look-up of its own.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// When the transaction under way began.
    began: Option<Instant>,
    /// Since when the client waits for the server's replies.
    active: Option<Instant>,
    /// What the transaction under way has used: a server, or several.
    used: Option<TransactionKind>,
    failed: bool,
    lost: bool,
    /// How long it waited for connections within the transaction.
    waited: u64,
    committed: u64,
    rolled_back: u64,
    xact_micros: u64,
    query_micros: u64,
    /// Whether a server has answered what was sent.
    answered: bool,
    /// Times that it was given a connection.
    assigned: u64,
    /// Statements answered without a server.
    local: u64,
    /// Whose time the next ReadyForQuery tells, beside those of the direct course.
    under_way: UnderWay,
}

/// What a client awaits the answer of.
#[derive(Debug, Default)]
enum UnderWay {
    #[default]
    Nothing,
    One(Way, Rc<Script>),
    /// No one's time is told.
    Several,
}

impl Account {
    /// A statement begins, and with it a transaction if none is under way.
    pub(crate) fn begin(&mut self, now: Instant) {
        if self.began.is_none() {
            self.began = Some(now);
            self.used = None;
            self.failed = false;
            self.lost = false;
            self.waited = 0;
        }
    }

    /// A statement goes to a server.
    pub(crate) fn send(&mut self, now: Instant) {
        self.begin(now);
        self.active.get_or_insert(now);
        self.used = Some(TransactionKind::Single);
    }

    /// A statement that was counted is under way.
    pub(crate) fn follow(&mut self, way: Way, script: &Rc<Script>) {
        self.under_way = match &self.under_way {
            UnderWay::Nothing => UnderWay::One(way, Rc::clone(script)),
            UnderWay::One(..) | UnderWay::Several => UnderWay::Several,
        };
    }

    /// What was under way is answered, in so many µs.
    fn arrive(&mut self, micros: u64, more: bool) {
        if more {
            self.under_way = UnderWay::Several;
        } else if let UnderWay::One(way, script) = std::mem::take(&mut self.under_way) {
            script.tally.took(way, micros);
        }
    }

    /// A statement over several shards begins to wait for its connections.
    pub(crate) fn begin_waits(&mut self) {
        self.waited = 0;
    }

    /// The client was given a connection.
    pub(crate) fn assign(&mut self) {
        self.assigned = self.assigned.wrapping_add(1);
    }

    /// The transaction under way is on several shards.
    pub(crate) fn spread(&mut self) {
        self.used = Some(TransactionKind::Multi);
    }

    /// The transaction under way has failed.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// The connection was lost on which the transaction under way ran.
    pub(crate) fn lose(&mut self) {
        self.under_way = UnderWay::Nothing;
        self.lost = true;
        self.active = None;
    }

    /// The transaction under way is over, by ReadyForQuery or AND CHAIN. The next begins at once where
    /// more was sent.
    pub(crate) fn end(&mut self, now: Instant, more: bool) {
        let count = if self.failed {
            &mut self.rolled_back
        } else {
            &mut self.committed
        };
        *count = count.wrapping_add(1);
        self.xact_micros = self.xact_micros.wrapping_add(self.lasted(now));
        self.began = None;
        if more {
            self.begin(now);
        }
    }

    /// ReadyForQuery came from a server: in a transaction or not, and with more to come or not.
    pub(crate) fn ready(&mut self, now: Instant, is_open: bool, more: bool) {
        if let Some(since) = self.active.take() {
            let micros = micros(now.saturating_duration_since(since));
            self.query_micros = self.query_micros.wrapping_add(micros);
            self.answered = true;
            self.arrive(micros, more);
        }
        if more {
            self.active = Some(now);
        } else if !is_open {
            self.began = None;
        }
    }

    fn lasted(&self, now: Instant) -> u64 {
        let lasted = self
            .began
            .map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        micros(lasted).saturating_sub(self.waited)
    }

    fn count(&mut self, counters: &mut DatabaseCounters, shard: Option<usize>) {
        let single = TransactionKind::Single;
        for (count, outcome) in [
            (&mut self.committed, TransactionOutcome::Commit),
            (&mut self.rolled_back, TransactionOutcome::Rollback),
        ] {
            if *count > 0 {
                counters.transactions(single, outcome, std::mem::take(count));
            }
        }
        counters.transactions_took(std::mem::take(&mut self.xact_micros));
        counters.assigned(std::mem::take(&mut self.assigned));
        if std::mem::take(&mut self.answered) {
            let micros = std::mem::take(&mut self.query_micros);
            counters.timed(RouteLabel::Single, shard, micros);
        }
        if self.local > 0 {
            counters.answered_here(std::mem::take(&mut self.local));
        }
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Session {
    /// A statement was sent to the current connection.
    pub(crate) fn count_sent(&mut self) {
        self.account.send(self.engine.recently());
        self.engine
            .count_query(&self.database, self.client.shard.get());
    }

    /// A statement is answered without a server.
    pub(crate) fn count_local(&mut self) {
        self.account.begin(self.engine.recently());
        self.account.local = self.account.local.wrapping_add(1);
    }

    /// A statement over several shards was carried out, or failed.
    pub(crate) fn count_wide(&mut self, route: RouteLabel, began: Instant, succeeded: bool) {
        let now = self.engine.now();
        let waited = self.account.waited;
        self.account.begin(began);
        self.account.waited = waited;
        self.account.failed |= !succeeded;
        self.account.used = Some(TransactionKind::Multi);
        let micros = self.account.lasted(now);
        self.account.arrive(micros, false);
        self.engine.with_counters(&self.database, |counters| {
            counters.sent(route, None);
            counters.timed(route, None, micros);
        });
    }

    /// The client waited for a connection since `began`, and got one or not.
    pub(crate) fn count_wait(&mut self, shard: ShardId, began: Instant, got_one: bool) {
        let micros = micros(self.engine.now().saturating_duration_since(began));
        self.account.waited = self.account.waited.saturating_add(micros);
        if got_one {
            self.account.assign();
        }
        self.engine.with_counters(&self.database, |counters| {
            counters.waited(usize::from(shard.0), micros);
        });
    }

    /// So many bytes were sent to the client: what was done until now is counted with them.
    pub(crate) fn count_flush(&mut self, sent: usize) {
        let shard = self.client.shard.get().map(|shard| usize::from(shard.0));
        let account = &mut self.account;
        self.engine.with_counters(&self.database, |counters| {
            account.count(counters, shard);
            counters.sent_bytes(sent);
        });
    }

    /// The connection was lost on which this ran.
    pub(crate) fn count_lost(&mut self) {
        self.account.send(self.engine.recently());
        self.account.lose();
    }

    /// ReadyForQuery of our own: the transaction that was under way is over, unless a block is open.
    pub(crate) fn count_end_here(&mut self) {
        if self.account.began.is_none() || self.block.is_some() {
            return;
        }
        self.count_transaction();
    }

    /// A transaction ended that no server says the end of.
    pub(crate) fn count_transaction(&mut self) {
        let account = &mut self.account;
        let outcome = if account.lost {
            TransactionOutcome::Lost
        } else if account.failed {
            TransactionOutcome::Rollback
        } else {
            TransactionOutcome::Commit
        };
        let kind = account.used.take().unwrap_or(TransactionKind::Local);
        let micros = account.lasted(self.engine.now());
        account.began = None;
        account.active = None;
        self.engine.with_counters(&self.database, |counters| {
            counters.transactions(kind, outcome, 1);
            counters.transactions_took(micros);
            account.count(counters, None);
        });
    }
}

impl Engine {
    fn with_counters(&self, database: &Database, count: impl FnOnce(&mut DatabaseCounters)) {
        if let Some(counters) = self.counters.borrow_mut().databases.get_mut(database.index) {
            count(counters);
        }
    }

    pub(crate) fn count_query(&self, database: &Database, shard: Option<ShardId>) {
        let shard = shard.map(|shard| usize::from(shard.0));
        self.with_counters(database, |counters| {
            counters.sent(RouteLabel::Single, shard);
        });
    }

    pub(crate) fn count_parse(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.client_parse_count = counters.totals.client_parse_count.wrapping_add(1);
        });
    }

    pub(crate) fn count_server_parse(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.server_parse_count = counters.totals.server_parse_count.wrapping_add(1);
        });
    }

    pub(crate) fn count_bind(&self, database: &Database) {
        self.with_counters(database, |counters| {
            counters.totals.bind_count = counters.totals.bind_count.wrapping_add(1);
        });
    }

    /// A Bind and its Execute on one shard, and the Parse before them.
    pub(crate) fn count_group(&self, database: &Database, shard: ShardId, parsed: bool) {
        self.with_counters(database, |counters| {
            counters.sent(RouteLabel::Single, Some(usize::from(shard.0)));
            let totals = &mut counters.totals;
            totals.bind_count = totals.bind_count.wrapping_add(1);
            totals.client_parse_count = totals.client_parse_count.wrapping_add(u64::from(parsed));
        });
    }

    /// A read that went behind another client's, or was turned away from there.
    pub(crate) fn count_shared(&self, database: &Database, shard: ShardId, outcome: SharedOutcome) {
        self.with_counters(database, |counters| {
            if let Some(shard) = counters.shards.get_mut(usize::from(shard.0)) {
                shard.shared(outcome);
            }
        });
    }

    pub(crate) fn count_received(&self, database: &Database, bytes: usize) {
        self.with_counters(database, |counters| {
            let received = &mut counters.totals.bytes_received;
            *received = received.wrapping_add(u64::try_from(bytes).unwrap_or(0));
        });
    }

    /// The connections that a pool opened, closed and could not open since this was last asked.
    pub(crate) fn count_connections(&self, pool: &Pool) {
        let known = &pool.counters;
        let (opened, closed, failed) = (
            known.opened.take(),
            known.closed.take(),
            known.failed.take(),
        );
        if opened == 0 && closed == 0 && failed == 0 {
            return;
        }
        let mut counters = self.counters.borrow_mut();
        let shard = counters
            .databases
            .iter_mut()
            .filter(|database| database.name == pool.target.database)
            .flat_map(|database| &mut database.shards)
            .find(|shard| shard.name == pool.target.shard_name);
        if let Some(shard) = shard {
            shard.connections(Role::Primary, opened, closed);
            let fault = pool.last_attempt().and_then(|(_, fault)| fault);
            let code = fault.map_or(SqlState::CONNECTION_FAILURE, |fault| fault.code);
            shard.errors.add_many(code.as_str().as_bytes(), failed);
        }
    }

    pub(crate) fn count_fault(&self, fault: &Fault) {
        self.counters.borrow_mut().fault(Origin::Proxy, fault.code);
    }

    pub(crate) fn count_server_error(
        &self,
        database: &Database,
        shard: Option<ShardId>,
        code: &[u8],
    ) {
        self.counters.borrow_mut().error(Origin::Server, code);
        self.with_counters(database, |counters| {
            let shard = shard.map(|shard| usize::from(shard.0));
            if let Some(shard) = shard.and_then(|index| counters.shards.get_mut(index)) {
                shard.errors.add(code);
            }
        });
    }

    pub(crate) fn count_gathered(&self, rows: u64, bytes: u64) {
        let mut counters = self.counters.borrow_mut();
        counters.gathered_rows.add(rows);
        counters.gathered_bytes.add(bytes);
    }

    pub(crate) fn count_out_of_sync(&self) {
        self.counters.borrow_mut().out_of_sync.add(1);
    }

    /// The place of a database's counters; made when it is new.
    pub(crate) fn counters_index(&self, name: &str, shards: &[String]) -> usize {
        let mut counters = self.counters.borrow_mut();
        let names: Vec<&str> = shards.iter().map(String::as_str).collect();
        let known = counters.databases.iter().position(|database| {
            database.name == name
                && database
                    .shards
                    .iter()
                    .map(|shard| shard.name.as_str())
                    .eq(names.iter().copied())
        });
        known.unwrap_or_else(|| {
            counters.databases.push(DatabaseCounters::new(name, names));
            counters.databases.len().saturating_sub(1)
        })
    }

    pub(crate) fn count_client(&self, database: &str, came: bool) {
        let mut counters = self.counters.borrow_mut();
        if let Some(counters) = counters
            .databases
            .iter_mut()
            .find(|known| known.name == database)
        {
            let count = if came {
                &mut counters.clients_opened
            } else {
                &mut counters.clients_closed
            };
            count.add(1);
        }
    }
}
