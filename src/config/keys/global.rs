//! The keys outside of `databases`.

use super::database::DATABASE;
use super::{Key, Kind, Section};

const MAX_COUNT: u64 = 1_000_000;
const GB: u64 = 1 << 30;
const ANY_COUNT: Kind = Kind::Count {
    min: 0,
    max: MAX_COUNT,
};
const SOME_COUNT: Kind = Kind::Count {
    min: 1,
    max: MAX_COUNT,
};

pub(in crate::config) const POOL_MODES: &[&str] = &["transaction", "session", "statement"];

/// The whole file.
pub(in crate::config) static ROOT: Section = Section {
    name: "config",
    keys: &[
        Key::new("name", Kind::Text, "herd", "The deployment's name: it marks our prepared transactions and Redis keys.").restart(),
        Key::new("engines", Kind::Auto { min: 1, max: 256 }, "auto", "Data-plane threads; `auto` takes half the cores, at least one: servers or applications often share the machine.").restart(),
        Key::new("log", Kind::Section(&LOG), "null", "What is logged, and how."),
        Key::new("listen", Kind::Texts, "[127.0.0.1:6432]", "Where clients connect: host:port, and /directories for Unix sockets (/directory:port names the port).").restart(),
        Key::new("http", Kind::Text, "null", "The address of /metrics, /health and /ready; none if left out.").restart().example("127.0.0.1:9632"),
        Key::new("tls", Kind::Section(&TLS), "null", "TLS towards clients."),
        Key::new("server_tls", Kind::Section(&SERVER_TLS), "null", "TLS towards servers, where the connection string says nothing."),
        Key::new("auth", Kind::Section(&AUTH), "null", "How clients prove who they are."),
        Key::new("users", Kind::List(&USER), "[]", "Users that are known without asking a server."),
        Key::new("admin_users", Kind::Texts, "[]", "Users that may change things in the console.").example("[postgres]"),
        Key::new("stats_users", Kind::Texts, "[]", "Users that may only SHOW in the console."),
        Key::new("pool_mode", Kind::Word(POOL_MODES), "transaction", "When a server connection goes back to its pool."),
        Key::new("default_pool_size", SOME_COUNT, "20", "Server connections for each user, database and shard."),
        Key::new("min_pool_size", ANY_COUNT, "0", "Server connections kept open for each user, database and shard."),
        Key::new("reserve_pool_size", ANY_COUNT, "0", "Connections beyond the pool's size, for clients that waited too long."),
        Key::new("reserve_pool_timeout", Kind::Duration, "5s", "How long a client waits before it may take one of the reserve."),
        Key::new("max_client_conn", SOME_COUNT, "10000", "Client connections."),
        Key::new("max_db_connections", ANY_COUNT, "0", "Server connections of a database on each shard; 0 sets no limit."),
        Key::new("max_user_connections", ANY_COUNT, "0", "Server connections of a user on each shard; 0 sets no limit."),
        Key::new("max_prepared_statements", ANY_COUNT, "500", "Prepared statements kept on a server connection; 0 turns their tracking off."),
        Key::new("reads_per_connection", SOME_COUNT, "16", "Quick reads of several clients that may be under way on one server connection, one behind the other; 1 for one client at a time."),
        Key::new("shared_read_wait", Kind::Duration, "20ms", "How long a read may wait for others on its connection before it is sent again on another; only reads that take less than a tenth of it together are sent behind each other, so none with 0."),
        Key::new("keep_unnamed_statements", Kind::Word(&["auto", "custom", "off"]), "auto", "Whether an unnamed Parse that comes again stays prepared on the server; `custom` forces custom plans."),
        Key::new("query_wait_timeout", Kind::Duration, "120s", "How long a statement waits for a server connection."),
        Key::new("deadlock_timeout", Kind::Duration, "500ms", "How long a statement of a client that holds connections of several shards waits before it is looked whether it is in a deadlock over them; 0 for never."),
        Key::new("server_lifetime", Kind::Duration, "1h", "The age at which an unused server connection is closed."),
        Key::new("server_idle_timeout", Kind::Duration, "10m", "How long a server connection may stay unused."),
        Key::new("server_connect_timeout", Kind::Duration, "15s", "How long connecting and logging in to a server may take."),
        Key::new("client_idle_timeout", Kind::Duration, "0", "How long a client may stay idle outside a transaction."),
        Key::new("client_login_timeout", Kind::Duration, "60s", "How long a client may take to log in."),
        Key::new("idle_transaction_timeout", Kind::Duration, "0", "How long a client may stay idle inside a transaction."),
        Key::new("query_timeout", Kind::Duration, "0", "How long a statement may run."),
        Key::new("max_message_size", Kind::Size { min: 64 << 10, max: GB }, "1GB", "Bytes of one protocol message."),
        Key::new("max_statement_size", Kind::Size { min: 8 << 10, max: GB }, "16MB", "Bytes of a statement that are held to route it; a longer one must show its key earlier."),
        Key::new("max_multi_bytes", Kind::Size { min: 64 << 10, max: 1 << 40 }, "256MB", "Bytes that one multi-shard statement may hold in the proxy."),
        Key::new("plan_cache_size", Kind::Size { min: 1 << 20, max: 1 << 40 }, "64MB", "Bytes of memoised plans, for each engine. An eighth as much holds what SHOW ROUTES counts."),
        Key::new("max_directory_rows", Kind::Count { min: 0, max: 10_000_000 }, "100000", "Rows of one directory of keys that are kept; the others are asked for each time."),
        Key::new("cache", Kind::Section(&CACHE), "null", "Where answers of cached tables are kept."),
        Key::new("cross_shard_writes", Kind::Word(&["two_phase", "reject"]), "two_phase", "What a transaction that writes on a second shard does."),
        Key::new("recovery", Kind::Section(&RECOVERY), "null", "Recovery of prepared transactions left in doubt."),
        Key::new("consistent_reads", Kind::Bool, "false", "Whether reads over several shards, and blocks of REPEATABLE READ and SERIALIZABLE, see each commit on several shards whole or not at all."),
        Key::new("consistent_reads_timeout", Kind::Duration, "60s", "How long such a read waits for commits on several shards that are under way or in doubt, and such a commit for reads that begin."),
        Key::new("gather", Kind::Section(&GATHER), "null", "Queries that are finished on a gather server."),
        Key::new("databases", Kind::Databases(&DATABASE), "null", "What clients connect to, by name; `\"*\"` is any other name.").required(),
    ],
};

static LOG: Section = Section {
    name: "log",
    keys: &[
        Key::new(
            "format",
            Kind::Word(&["text", "json"]),
            "text",
            "Lines of text or of JSON.",
        )
        .restart(),
        Key::new(
            "level",
            Kind::Word(&["error", "warn", "info", "debug", "trace"]),
            "info",
            "The least severe level that is logged.",
        ),
    ],
};

static TLS: Section = Section {
    name: "tls",
    keys: &[
        Key::new(
            "mode",
            Kind::Word(&["disable", "allow", "prefer", "require"]),
            "prefer",
            "Whether clients may or must use TLS; without a certificate they cannot.",
        )
        .shown("client_tls_sslmode"),
        Key::new(
            "certificate",
            Kind::Path,
            "null",
            "A PEM file: the certificate and its chain.",
        )
        .shown("client_tls_cert_file"),
        Key::new(
            "key",
            Kind::Path,
            "null",
            "A PEM file: the certificate's private key.",
        )
        .shown("client_tls_key_file"),
        Key::new(
            "client_ca",
            Kind::Path,
            "null",
            "A PEM file: who may sign client certificates; they are verified if it is given.",
        )
        .shown("client_tls_ca_file"),
    ],
};

static SERVER_TLS: Section = Section {
    name: "server_tls",
    keys: &[
        Key::new(
            "mode",
            Kind::Word(&["disable", "prefer", "require", "verify-ca", "verify-full"]),
            "prefer",
            "As libpq's sslmode.",
        )
        .shown("server_tls_sslmode"),
        Key::new(
            "ca",
            Kind::Path,
            "null",
            "A PEM file: who may sign the servers' certificates; the verify modes need it.",
        )
        .shown("server_tls_ca_file"),
    ],
};

static AUTH: Section = Section {
    name: "auth",
    keys: &[
        Key::new(
            "method",
            Kind::Word(&["scram-sha-256", "md5", "plain", "trust", "cert", "hba"]),
            "scram-sha-256",
            "How a client logs in; `hba` decides by the file's rules.",
        )
        .shown("auth_type"),
        Key::new(
            "hba",
            Kind::Path,
            "null",
            "A pg_hba.conf, for the method `hba`.",
        )
        .shown("auth_hba_file"),
        Key::new(
            "query",
            Kind::Text,
            "null",
            "Returns name and password of user `$1`, as PgBouncer's auth_query.",
        )
        .shown("auth_query"),
        Key::new("user", Kind::Text, "null", "The role that runs the query.").shown("auth_user"),
    ],
};

pub(in crate::config) static USER: Section = Section {
    name: "user",
    keys: &[
        Key::new("name", Kind::Text, "null", "The role's name.").required().example("app"),
        Key::new("password", Kind::Secret, "null", "A password, or a verifier as in pg_authid (SCRAM verifiers need server_user in each database).").example("change-me"),
        Key::new("comment_hints", Kind::Bool, "false", "Whether routing hints in comments are followed."),
        Key::new("tenant", Kind::Text, "null", "The tenant all of the user's statements are confined to."),
        Key::new("pool_mode", Kind::Word(POOL_MODES), "null", "In place of the general one."),
        Key::new("default_pool_size", SOME_COUNT, "null", "In place of the general one."),
        Key::new("max_user_connections", ANY_COUNT, "null", "In place of the general one."),
    ],
};

static CACHE: Section = Section {
    name: "cache",
    keys: &[
        Key::new(
            "redis",
            Kind::Url,
            "null",
            "A Redis server, as in redis://127.0.0.1:6379; without it answers stay in the process.",
        )
        .restart(),
        Key::new(
            "memory",
            Kind::Size {
                min: 0,
                max: 1 << 40,
            },
            "64MB",
            "Bytes of answers kept in the process.",
        )
        .restart(),
        Key::new(
            "max_entry",
            Kind::Size { min: 1, max: GB },
            "1MB",
            "Bytes of the largest answer that is kept.",
        )
        .restart(),
        Key::new(
            "redis_timeout",
            Kind::Duration,
            "50ms",
            "How long Redis may take before it is passed by.",
        )
        .restart(),
        Key::new(
            "audit",
            Kind::Count {
                min: 0,
                max: 1_000_000_000,
            },
            "1000",
            "One of so many answers is read again on the primary, and compared; 0 for none.",
        )
        .restart(),
        Key::new(
            "invalidate_on",
            Kind::List(&INVALIDATE),
            "[]",
            "Redis channels whose messages tell of changes made elsewhere.",
        )
        .restart(),
    ],
};

pub(in crate::config) static INVALIDATE: Section = Section {
    name: "invalidate_on",
    keys: &[
        Key::new("channel", Kind::Text, "null", "The Redis channel.").required(),
        Key::new("table", Kind::Text, "null", "The table that changed.").required(),
        Key::new(
            "key",
            Kind::Text,
            "null",
            "Where the message holds the key, as in $.productId; the whole table if left out.",
        ),
    ],
};

static RECOVERY: Section = Section {
    name: "recovery",
    keys: &[
        Key::new(
            "every",
            Kind::Duration,
            "2s",
            "How often transactions in doubt are looked for.",
        ),
        Key::new("age", Kind::Duration, "5s", "How old they must be."),
    ],
};

static GATHER: Section = Section {
    name: "gather",
    keys: &[
        Key::new(
            "server",
            Kind::SomeServers,
            "null",
            "Where twins live, one server or a list of them; the home shard's server if left out.",
        ),
        Key::new(
            "twins",
            Kind::Count { min: 0, max: 1_000 },
            "4",
            "Queries of a database that may be gathered at once, on each server; with 0 what needs a twin is refused.",
        ),
        Key::new(
            "max_rows",
            Kind::Count {
                min: 1,
                max: 1_000_000_000_000,
            },
            "10000000",
            "Rows one query may fetch.",
        ),
        Key::new(
            "max_bytes",
            Kind::Size {
                min: 1 << 20,
                max: 1 << 50,
            },
            "1GB",
            "Bytes one query may fetch.",
        ),
        Key::new(
            "narrow_above",
            Kind::Count {
                min: 0,
                max: 1_000_000_000_000,
            },
            "500",
            "Rows of a table that a query may expect before only those are fetched that have a partner in a smaller table.",
        ),
        Key::new(
            "timeout",
            Kind::Duration,
            "60s",
            "How long one query may take.",
        ),
    ],
};
