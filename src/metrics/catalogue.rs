//! Every metric there is: its name, kind, labels and help, and the closed sets its labels take.
//!
//! A metric's doc line is its help text. Label values are names from the config or come from one of
//! the enums here, so that no client can make a series; the SQLSTATEs of `code` are capped in
//! [`crate::metrics::counters`].

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Makes the enum of metrics and their properties; the doc line becomes the help text.
macro_rules! catalogue {
    ($(#[doc = $help:literal] $metric:ident: $kind:ident $name:literal [$($label:literal),*],)*) => {
        /// One metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $(#[doc = $help] $metric,)*
        }

        impl Metric {
            /// All of them, in the order of this file.
            pub const ALL: &[Metric] = &[$(Metric::$metric,)*];

            /// The name Prometheus sees.
            pub const fn name(self) -> &'static str {
                match self { $(Metric::$metric => $name,)* }
            }

            /// What `# HELP` says.
            pub fn help(self) -> &'static str {
                match self { $(Metric::$metric => $help.trim(),)* }
            }

            /// What `# TYPE` says.
            pub const fn kind(self) -> Kind {
                match self { $(Metric::$metric => Kind::$kind,)* }
            }

            /// The names of its labels, in the order in which values are given.
            pub const fn labels(self) -> &'static [&'static str] {
                match self { $(Metric::$metric => &[$($label),*],)* }
            }
        }
    };
}

catalogue! {
    /// Client connections that logged in.
    ClientConnectionsOpened: Counter "pgherd_client_connections_opened_total" ["database"],
    /// Client connections that ended.
    ClientConnectionsClosed: Counter "pgherd_client_connections_closed_total" ["database"],
    /// Bytes received from clients.
    ClientReceivedBytes: Counter "pgherd_client_received_bytes_total" ["database"],
    /// Bytes sent to clients.
    ClientSentBytes: Counter "pgherd_client_sent_bytes_total" ["database"],
    /// Server connections that logged in.
    ServerConnectionsOpened: Counter "pgherd_server_connections_opened_total" ["shard", "role"],
    /// Server connections that ended.
    ServerConnectionsClosed: Counter "pgherd_server_connections_closed_total" ["shard", "role"],
    /// Server connections of all pools, by what they do.
    PoolServers: Gauge "pgherd_pool_servers" ["shard", "role", "state"],
    /// Clients that wait for a server connection.
    PoolWaiting: Gauge "pgherd_pool_waiting" ["database", "shard"],
    /// How long clients waited for a server connection.
    PoolWaitSeconds: Histogram "pgherd_pool_wait_seconds" ["shard"],
    /// Statements by route and shard; the shard is empty where several or none were involved.
    Statements: Counter "pgherd_statements_total" ["route", "shard"],
    /// Reads sent behind another client's on one server connection, and those turned away from there.
    SharedReads: Counter "pgherd_shared_reads_total" ["shard", "outcome"],
    /// Time from sending statements to their last reply; those sent together count as one.
    StatementSeconds: Histogram "pgherd_statement_seconds" ["route"],
    /// Time from sending statements to one shard to its last reply; those sent together count as one.
    ShardResponseSeconds: Histogram "pgherd_shard_response_seconds" ["shard"],
    /// Errors that a shard raised, and failures to reach it.
    ShardErrors: Counter "pgherd_shard_errors_total" ["shard", "code"],
    /// Server connections to a shard, whatever they do.
    ShardConnections: Gauge "pgherd_shard_connections" ["shard"],
    /// Transactions by kind and outcome.
    Transactions: Counter "pgherd_transactions_total" ["kind", "outcome"],
    /// Prepared transactions of ours on the shards, at the last look.
    TransactionsPrepared: Gauge "pgherd_transactions_prepared" ["database"],
    /// Those of them past the grace age that could not be ended.
    TransactionsInDoubt: Gauge "pgherd_transactions_in_doubt" ["database"],
    /// Prepared transactions that recovery ended.
    TransactionsRecovered: Counter "pgherd_transactions_recovered_total" ["database"],
    /// Clients ended because they waited in a circle over several shards.
    Deadlocks: Counter "pgherd_deadlocks_total" ["database"],
    /// Rows fetched for statements that are finished on a twin.
    GatherRows: Counter "pgherd_gather_rows_total" [],
    /// Bytes fetched for them.
    GatherBytes: Counter "pgherd_gather_bytes_total" [],
    /// Bytes that multi-shard statements hold in the proxy.
    MultiBufferedBytes: Gauge "pgherd_multi_buffered_bytes" [],
    /// Plans held by the plan caches.
    PlansCached: Gauge "pgherd_plans_cached" [],
    /// Look-ups in the plan caches.
    PlanCache: Counter "pgherd_plan_cache_total" ["outcome"],
    /// Reads of cached tables: answered from the process or from Redis, missed, or passed by.
    CacheRequests: Counter "pgherd_cache_requests_total" ["level", "table", "outcome"],
    /// Reads of cached tables that passed the cache by, by reason.
    CacheBypass: Counter "pgherd_cache_bypass_total" ["table", "reason"],
    /// Answers given that were not fresh any more.
    CacheStaleServed: Counter "pgherd_cache_stale_served_total" [],
    /// Answers that were read again on the primary, and those that it answered otherwise (`stale`: must stay 0).
    CacheAudits: Counter "pgherd_cache_audits_total" ["table", "outcome"],
    /// Answers kept, and those that were not after all.
    CacheFills: Counter "pgherd_cache_fills_total" ["table", "outcome"],
    /// What dropped answers: clients' writes, messages of channels, purges.
    CacheInvalidations: Counter "pgherd_cache_invalidations_total" ["source"],
    /// Answers in the process.
    CacheEntries: Gauge "pgherd_cache_entries" ["table"],
    /// Their bytes.
    CacheBytes: Gauge "pgherd_cache_bytes" ["table"],
    /// Errors sent to clients, by SQLSTATE and by who raised them.
    Errors: Counter "pgherd_errors_total" ["code", "origin"],
    /// Server connections closed because replies and requests did not match. Must stay 0.
    OutOfSync: Counter "pgherd_out_of_sync_total" [],
    /// Attempts to reload the configuration.
    Reloads: Counter "pgherd_config_reloads_total" ["outcome"],
    /// Always 1; the version is in the label.
    BuildInfo: Gauge "pgherd_build_info" ["version"],
}

/// Makes the enum of a closed label: its values in words, and their place in an array of counters.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident { $($value:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $label {
            $($value,)*
        }

        impl $label {
            /// All values.
            pub const ALL: &[$label] = &[$($label::$value,)*];
            /// How many there are.
            pub const COUNT: usize = $label::ALL.len();

            /// The value Prometheus sees.
            pub const fn as_str(self) -> &'static str {
                match self { $($label::$value => $word,)* }
            }
        }
    };
}

label! {
    /// The label `route`: what the planner decided.
    RouteLabel {
        Local = "local",
        Single = "single",
        Multi = "multi",
        Gather = "gather",
        Split = "split",
        Copy = "copy",
    }
}

label! {
    /// The label `kind` of a transaction.
    TransactionKind {
        Local = "local",
        Single = "single",
        Multi = "multi",
    }
}

label! {
    /// The label `outcome` of a transaction.
    TransactionOutcome {
        Commit = "commit",
        Rollback = "rollback",
        Lost = "lost",
    }
}

label! {
    /// The label `outcome` of a look-up in the plan cache.
    PlanOutcome {
        Hit = "hit",
        Miss = "miss",
        Evicted = "evicted",
    }
}

label! {
    /// The label `outcome` of a read behind another client's.
    SharedOutcome {
        Joined = "joined",
        TurnedAway = "turned_away",
    }
}

label! {
    /// The label `origin` of an error.
    Origin {
        Client = "client",
        Proxy = "proxy",
        Server = "server",
    }
}

label! {
    /// The label `role` of a server connection.
    RoleLabel {
        Primary = "primary",
        Replica = "replica",
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Metric};
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_follow_the_convention() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(name.starts_with("pgherd_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.kind() == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.ends_with("_seconds"),
                metric.kind() == Kind::Histogram,
                "{name}"
            );
            assert!(metric.help().ends_with('.'), "{name}");
        }
    }
}
