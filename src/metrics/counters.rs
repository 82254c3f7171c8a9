//! What one engine counts: plain integers, bumped without atomics and folded once a second.
//!
//! An engine owns its [`EngineCounters`] and lays out a [`DatabaseCounters`] for each database with a
//! [`ShardCounters`] for each shard, in the order of the config, so that a bump is an index and an
//! addition. [`EngineCounters::fold`] moves what was counted since the last fold into the process's
//! [`Metrics`]. Totals stay: SHOW STATS reads them from here.
//!
//! *Invariant:* what was counted is folded exactly once, also for a database that a reload drops
//! ([`EngineCounters::fold`] before it goes).

use std::collections::BTreeMap;

use crate::error::SqlState;
use crate::metrics::catalogue::{
    Metric, Origin, PlanOutcome, RoleLabel, RouteLabel, SharedOutcome, TransactionKind,
    TransactionOutcome,
};
use crate::metrics::histogram::Histogram;
use crate::metrics::period::{DatabaseStats, Totals};
use crate::metrics::view::{ErrorRow, Role};
use crate::metrics::{Metrics, view};

/// How many SQLSTATEs are told apart per origin or shard; those beyond are counted as `other`.
pub const CODES_MAX: usize = 100;

/// A counter, and how much of it has been folded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    total: u64,
    folded: u64,
}

impl Count {
    /// Counts `n` more.
    pub fn add(&mut self, n: u64) {
        self.total = self.total.wrapping_add(n);
    }

    /// All that was ever counted.
    pub const fn total(self) -> u64 {
        self.total
    }

    /// What was counted since the last call.
    pub fn take(&mut self) -> u64 {
        let new = self.total.wrapping_sub(self.folded);
        self.folded = self.total;
        new
    }
}

/// Counts by SQLSTATE, of which servers can raise any: at most [`CODES_MAX`] are told apart.
#[derive(Clone, Debug, Default)]
pub struct CodeCounts(BTreeMap<[u8; 5], Count>);

impl CodeCounts {
    const OTHER: [u8; 5] = *b"other";

    /// Counts one error. What is no SQLSTATE counts as `other`.
    pub fn add(&mut self, code: &[u8]) {
        self.add_many(code, 1);
    }

    /// Counts several errors of one code.
    pub fn add_many(&mut self, code: &[u8], count: u64) {
        if count == 0 {
            return;
        }
        let known = <[u8; 5]>::try_from(code)
            .ok()
            .filter(|code| code.iter().all(u8::is_ascii_alphanumeric))
            .filter(|code| self.0.len() < CODES_MAX || self.0.contains_key(code));
        self.0
            .entry(known.unwrap_or(CodeCounts::OTHER))
            .or_default()
            .add(count);
    }

    /// The codes and their totals.
    pub fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        self.0
            .iter()
            .map(|(code, count)| (text(*code), count.total()))
    }

    fn take(&mut self, mut each: impl FnMut(&str, u64)) {
        for (code, count) in &mut self.0 {
            each(&text(*code), count.take());
        }
    }
}

fn text(code: [u8; 5]) -> String {
    code.into_iter().map(char::from).collect()
}

/// What is counted per shard of a database.
#[derive(Clone, Debug, Default)]
pub struct ShardCounters {
    /// As the config names it.
    pub name: String,
    statements: [Count; RouteLabel::COUNT],
    opened: [Count; RoleLabel::COUNT],
    closed: [Count; RoleLabel::COUNT],
    shared: [Count; SharedOutcome::COUNT],
    /// How long clients waited for a connection.
    pub wait: Histogram,
    /// How long the shard took to answer.
    pub response: Histogram,
    /// Errors it raised, and failures to reach it.
    pub errors: CodeCounts,
}

impl ShardCounters {
    /// Nothing counted yet.
    pub fn new(name: &str) -> ShardCounters {
        ShardCounters {
            name: name.to_owned(),
            ..ShardCounters::default()
        }
    }

    /// Counts a statement that ran here.
    pub fn statement(&mut self, route: RouteLabel) {
        bump(&mut self.statements, RouteLabel::ALL, route);
    }

    /// Counts server connections: those that logged in, and those of them that ended.
    pub fn connections(&mut self, role: Role, opened: u64, closed: u64) {
        let Some(at) = place(RoleLabel::ALL, label(role)) else {
            return;
        };
        for (counts, count) in [(&mut self.opened, opened), (&mut self.closed, closed)] {
            if let Some(known) = counts.get_mut(at) {
                known.add(count);
            }
        }
    }

    /// Counts a read behind another client's.
    pub fn shared(&mut self, outcome: SharedOutcome) {
        bump(&mut self.shared, SharedOutcome::ALL, outcome);
    }

    /// Its row of SHOW SHARDS; `tried` and `down` are for the caller to know.
    pub fn row(&self, database: &str) -> view::ShardRow {
        view::ShardRow {
            database: database.to_owned(),
            shard: self.name.clone(),
            tried: None,
            down: None,
            statements: self.statements.iter().map(|count| count.total()).sum(),
            errors: self.errors.iter().map(|(_, count)| count).sum(),
        }
    }

    fn fold(&mut self, metrics: &Metrics) {
        let name = self.name.as_str();
        for (count, route) in self.statements.iter_mut().zip(RouteLabel::ALL) {
            metrics.add(Metric::Statements, &[route.as_str(), name], count.take());
        }
        for (count, role) in self.opened.iter_mut().zip(RoleLabel::ALL) {
            metrics.add(
                Metric::ServerConnectionsOpened,
                &[name, role.as_str()],
                count.take(),
            );
        }
        for (count, role) in self.closed.iter_mut().zip(RoleLabel::ALL) {
            metrics.add(
                Metric::ServerConnectionsClosed,
                &[name, role.as_str()],
                count.take(),
            );
        }
        for (count, outcome) in self.shared.iter_mut().zip(SharedOutcome::ALL) {
            metrics.add(Metric::SharedReads, &[name, outcome.as_str()], count.take());
        }
        metrics.record(Metric::PoolWaitSeconds, &[name], &mut self.wait);
        metrics.record(Metric::ShardResponseSeconds, &[name], &mut self.response);
        self.errors
            .take(|code, new| metrics.add(Metric::ShardErrors, &[name, code], new));
    }
}

/// What is counted per database.
#[derive(Clone, Debug, Default)]
pub struct DatabaseCounters {
    pub name: String,
    /// PgBouncer's statistics.
    pub totals: Totals,
    folded: Totals,
    pub clients_opened: Count,
    pub clients_closed: Count,
    /// Statements that ran on several shards or on none.
    statements: [Count; RouteLabel::COUNT],
    seconds: [Histogram; RouteLabel::COUNT],
    transactions: [[Count; TransactionOutcome::COUNT]; TransactionKind::COUNT],
    /// In the order of the config.
    pub shards: Vec<ShardCounters>,
}

impl DatabaseCounters {
    /// Nothing counted yet.
    pub fn new<'a>(name: &str, shards: impl IntoIterator<Item = &'a str>) -> DatabaseCounters {
        DatabaseCounters {
            name: name.to_owned(),
            shards: shards.into_iter().map(ShardCounters::new).collect(),
            ..DatabaseCounters::default()
        }
    }

    /// Counts a statement that was sent; `shard` when exactly one runs it. Its time follows by
    /// [`DatabaseCounters::timed`], or never, where it is not measured.
    pub fn sent(&mut self, route: RouteLabel, shard: Option<usize>) {
        match shard.and_then(|shard| self.shards.get_mut(shard)) {
            Some(shard) => shard.statement(route),
            None => bump(&mut self.statements, RouteLabel::ALL, route),
        }
        self.totals.query_count = self.totals.query_count.wrapping_add(1);
    }

    /// Counts the time of a statement that was counted when it was sent.
    pub fn timed(&mut self, route: RouteLabel, shard: Option<usize>, micros: u64) {
        if let Some(shard) = shard.and_then(|shard| self.shards.get_mut(shard)) {
            shard.response.record(micros);
        }
        let seconds = place(RouteLabel::ALL, route).and_then(|at| self.seconds.get_mut(at));
        if let Some(seconds) = seconds {
            seconds.record(micros);
        }
        self.totals.query_time = self.totals.query_time.wrapping_add(micros);
    }

    /// Counts a finished statement and its time: [`DatabaseCounters::sent`] and [`DatabaseCounters::timed`].
    pub fn statement(&mut self, route: RouteLabel, shard: Option<usize>, micros: u64) {
        self.sent(route, shard);
        self.timed(route, shard, micros);
    }

    /// Counts finished transactions; their time is [`DatabaseCounters::transactions_took`].
    pub fn transactions(&mut self, kind: TransactionKind, outcome: TransactionOutcome, count: u64) {
        let row = place(TransactionKind::ALL, kind).and_then(|at| self.transactions.get_mut(at));
        let count_of = row.zip(place(TransactionOutcome::ALL, outcome));
        if let Some(known) = count_of.and_then(|(row, at)| row.get_mut(at)) {
            known.add(count);
        }
        self.totals.xact_count = self.totals.xact_count.wrapping_add(count);
    }

    /// Counts the time of finished transactions.
    pub fn transactions_took(&mut self, micros: u64) {
        self.totals.xact_time = self.totals.xact_time.wrapping_add(micros);
    }

    /// Counts statements that were answered without a server.
    pub fn answered_here(&mut self, count: u64) {
        if let Some(known) =
            place(RouteLabel::ALL, RouteLabel::Local).and_then(|at| self.statements.get_mut(at))
        {
            known.add(count);
        }
        self.totals.query_count = self.totals.query_count.wrapping_add(count);
    }

    /// Counts how often a client was given a connection.
    pub fn assigned(&mut self, count: u64) {
        let known = &mut self.totals.server_assignment_count;
        *known = known.wrapping_add(count);
    }

    /// Counts how long a client waited for a connection to a shard, whether it got one or not.
    pub fn waited(&mut self, shard: usize, micros: u64) {
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.wait.record(micros);
        }
        self.totals.wait_time = self.totals.wait_time.wrapping_add(micros);
    }

    /// Counts bytes to a client.
    pub fn sent_bytes(&mut self, count: usize) {
        let sent = &mut self.totals.bytes_sent;
        *sent = sent.wrapping_add(u64::try_from(count).unwrap_or(0));
    }

    /// Its row of SHOW STATS.
    pub fn stats(&self) -> DatabaseStats {
        DatabaseStats {
            database: self.name.clone(),
            totals: self.totals,
            averages: Totals::default(),
        }
    }

    /// Moves what is new into the metrics. Do so before dropping it.
    pub fn fold(&mut self, metrics: &Metrics) {
        let name = self.name.as_str();
        let new = self.totals.since(&self.folded);
        self.folded = self.totals;
        metrics.add(Metric::ClientReceivedBytes, &[name], new.bytes_received);
        metrics.add(Metric::ClientSentBytes, &[name], new.bytes_sent);
        metrics.add(
            Metric::ClientConnectionsOpened,
            &[name],
            self.clients_opened.take(),
        );
        metrics.add(
            Metric::ClientConnectionsClosed,
            &[name],
            self.clients_closed.take(),
        );
        for (count, route) in self.statements.iter_mut().zip(RouteLabel::ALL) {
            metrics.add(Metric::Statements, &[route.as_str(), ""], count.take());
        }
        for (seconds, route) in self.seconds.iter_mut().zip(RouteLabel::ALL) {
            metrics.record(Metric::StatementSeconds, &[route.as_str()], seconds);
        }
        for (row, kind) in self.transactions.iter_mut().zip(TransactionKind::ALL) {
            for (count, outcome) in row.iter_mut().zip(TransactionOutcome::ALL) {
                metrics.add(
                    Metric::Transactions,
                    &[kind.as_str(), outcome.as_str()],
                    count.take(),
                );
            }
        }
        for shard in &mut self.shards {
            shard.fold(metrics);
        }
    }
}

/// What one engine counts.
#[derive(Clone, Debug, Default)]
pub struct EngineCounters {
    /// In the engine's own order.
    pub databases: Vec<DatabaseCounters>,
    plans: [Count; PlanOutcome::COUNT],
    errors: [CodeCounts; Origin::COUNT],
    /// Connections closed because replies and requests did not match.
    pub out_of_sync: Count,
    /// Rows fetched for statements that are finished on a twin.
    pub gathered_rows: Count,
    /// Bytes fetched for them.
    pub gathered_bytes: Count,
}

impl EngineCounters {
    /// Counts a look-up in the plan cache.
    pub fn plan(&mut self, outcome: PlanOutcome) {
        bump(&mut self.plans, PlanOutcome::ALL, outcome);
    }

    /// Counts an error of ours that a client was sent.
    pub fn fault(&mut self, origin: Origin, code: SqlState) {
        self.error(origin, code.as_str().as_bytes());
    }

    /// Counts an error that a client was sent, by the five bytes of its SQLSTATE.
    pub fn error(&mut self, origin: Origin, code: &[u8]) {
        if let Some(codes) = place(Origin::ALL, origin).and_then(|at| self.errors.get_mut(at)) {
            codes.add(code);
        }
    }

    /// The rows of SHOW ERRORS: by code and origin, then those of each shard.
    pub fn errors(&self) -> Vec<ErrorRow> {
        let mut rows = Vec::new();
        for (codes, origin) in self.errors.iter().zip(Origin::ALL) {
            rows.extend(codes.iter().map(|(code, count)| ErrorRow {
                code,
                origin: origin.as_str(),
                shard: String::new(),
                count,
            }));
        }
        for shard in self.databases.iter().flat_map(|database| &database.shards) {
            rows.extend(shard.errors.iter().map(|(code, count)| ErrorRow {
                code,
                origin: Origin::Server.as_str(),
                shard: shard.name.clone(),
                count,
            }));
        }
        rows
    }

    /// Moves what was counted since the last fold into the metrics. Meant for once a second.
    pub fn fold(&mut self, metrics: &Metrics) {
        for database in &mut self.databases {
            database.fold(metrics);
        }
        for (count, outcome) in self.plans.iter_mut().zip(PlanOutcome::ALL) {
            metrics.add(Metric::PlanCache, &[outcome.as_str()], count.take());
        }
        for (codes, origin) in self.errors.iter_mut().zip(Origin::ALL) {
            codes.take(|code, new| metrics.add(Metric::Errors, &[code, origin.as_str()], new));
        }
        metrics.add(Metric::OutOfSync, &[], self.out_of_sync.take());
        metrics.add(Metric::GatherRows, &[], self.gathered_rows.take());
        metrics.add(Metric::GatherBytes, &[], self.gathered_bytes.take());
    }
}

fn label(role: Role) -> RoleLabel {
    match role {
        Role::Primary => RoleLabel::Primary,
        Role::Replica => RoleLabel::Replica,
    }
}

fn place<T: PartialEq + Copy>(all: &[T], value: T) -> Option<usize> {
    all.iter().position(|known| *known == value)
}

fn bump<T: PartialEq + Copy>(counts: &mut [Count], all: &[T], value: T) {
    if let Some(count) = place(all, value).and_then(|at| counts.get_mut(at)) {
        count.add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{CODES_MAX, CodeCounts, Count, DatabaseCounters, EngineCounters};
    use crate::metrics::Metrics;
    use crate::metrics::catalogue::{
        Origin, PlanOutcome, RouteLabel, TransactionKind, TransactionOutcome,
    };
    use crate::metrics::view::Role;

    #[test]
    fn a_count_is_folded_once() {
        let mut count = Count::default();
        count.add(3);
        assert_eq!((count.take(), count.take(), count.total()), (3, 0, 3));
    }

    #[test]
    fn codes_are_capped() {
        let mut codes = CodeCounts::default();
        for number in 10_000..10_000 + 2 * CODES_MAX {
            codes.add(number.to_string().as_bytes());
        }
        codes.add(b"bad\n");
        assert_eq!(codes.iter().count(), CODES_MAX + 1);
        assert_eq!(
            codes.iter().map(|(_, count)| count).sum::<u64>(),
            2 * CODES_MAX as u64 + 1
        );
    }

    #[test]
    fn fold_reaches_every_series() {
        let metrics = Metrics::new();
        let mut engine = EngineCounters::default();
        engine
            .databases
            .push(DatabaseCounters::new("shop", ["shard_0", "shard_1"]));
        let database = engine.databases.first_mut().unwrap();
        database.statement(RouteLabel::Single, Some(1), 90);
        database.statement(RouteLabel::Multi, None, 300);
        database.answered_here(2);
        database.transactions(TransactionKind::Single, TransactionOutcome::Commit, 3);
        database.waited(1, 5);
        database.totals.bytes_received = 77;
        let shard = database.shards.first_mut().unwrap();
        shard.connections(Role::Primary, 1, 0);
        engine.plan(PlanOutcome::Hit);
        engine.error(Origin::Server, b"23505");
        engine.fold(&metrics);
        engine.fold(&metrics);
        let text = metrics.render();
        for line in [
            "pgherd_statements_total{route=\"single\",shard=\"shard_1\"} 1",
            "pgherd_statements_total{route=\"multi\",shard=\"\"} 1",
            "pgherd_statement_seconds_count{route=\"single\"} 1",
            "pgherd_statements_total{route=\"local\",shard=\"\"} 2",
            "pgherd_shard_response_seconds_sum{shard=\"shard_1\"} 0.000090",
            "pgherd_pool_wait_seconds_bucket{shard=\"shard_1\",le=\"0.0001\"} 1",
            "pgherd_transactions_total{kind=\"single\",outcome=\"commit\"} 3",
            "pgherd_client_received_bytes_total{database=\"shop\"} 77",
            "pgherd_server_connections_opened_total{shard=\"shard_0\",role=\"primary\"} 1",
            "pgherd_plan_cache_total{outcome=\"hit\"} 1",
            "pgherd_errors_total{code=\"23505\",origin=\"server\"} 1",
            "pgherd_out_of_sync_total 0",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }
}
