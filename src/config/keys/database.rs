//! The keys of one database: shards, distributions and tables.

use super::global::POOL_MODES;
use super::{Key, Kind, Section, Short};

pub(in crate::config) static DATABASE: Section = Section {
    name: "database",
    keys: &[
        Key::new("home", Kind::Text, "null", "The shard of single tables, catalogs and sequences; the first shard if left out.").example("shard_0"),
        Key::new("shards", Kind::Map(&SHARD, Short::Server), "null", "The shards by name; their order is that of placements over `all`.").required()
            .example(
            "shard_0
\
             shard_1: \"host=127.0.0.1 port=5441 dbname=shop\"
\
             shard_2: \"postgres://127.0.0.1:5442/shop\"
\
             shard_3: \"postgres://127.0.0.1:5443/shop\"",
        ),
        Key::new("server_user", Kind::Text, "null", "Who logs in to the servers; the client's user and password if left out."),
        Key::new("server_password", Kind::Secret, "null", "The password of server_user."),
        Key::new("control_user", Kind::Text, "null", "Who sets up, inspects and recovers; server_user if left out."),
        Key::new("control_password", Kind::Secret, "null", "The password of control_user."),
        Key::new("pool_mode", Kind::Word(POOL_MODES), "null", "In place of the general one."),
        Key::new("default_pool_size", Kind::Count { min: 1, max: 1_000_000 }, "null", "In place of the general one."),
        Key::new("replicas", Kind::Section(&REPLICAS), "null", "What replicas are used for."),
        Key::new("distributions", Kind::Map(&DISTRIBUTION, Short::None), "null", "How keys are placed on shards, by name.")
            .example(
            "products
\
             customers: {key: bigint, place: {jump: all}}
\
             users: {key: bigint, place: {modulo: [shard_0, shard_1, shard_2, shard_3]}}
\
             partitions: {key: uuid, place: {postgres: all}}
\
             regions: {key: bigint, place: {range: [{to: 20001, jump: [shard_0, shard_1]}, {to: 50001, shard: shard_2}, {shard: shard_3}]}}
\
             brands: {key: text, place: {list: {acme: shard_0, else: {jump: all}}}}
\
             stores: {key: [text, bigint], place: {jump: all}}",
        ),
        Key::new("tables", Kind::Map(&TABLE, Short::Word(&["reference", "single"])), "null", "What each table is, by name or schema.name as in the catalogs.")
            .example(
            "wc_products
\
             wc_orders: {distribution: customers, key: customer_id}
\
             sales.visits: {distribution: stores, key: [region, store_id]}
\
             wc_webhooks: reference
\
             wp_options: single",
        ),
        Key::new("tables_from", Kind::Texts, "[]", "Files with one table each, as in tables/*.yaml, with the keys of a table and `table`."),
        Key::new("unlisted", Kind::Word(&["single", "reference", "refuse"]), "single", "What a table that is not listed is."),
        Key::new("constraints", Kind::Word(&["enforce", "allow"]), "enforce", "Whether unique constraints without the key and foreign keys that leave the shard are refused."),
        Key::new("tenant", Kind::Section(&TENANT), "null", "How the statements of a tenant's user are confined."),
    ],
};

pub(in crate::config) static FALLBACK: Section = Section {
    name: "fallback",
    keys: &[
        Key::new(
            "server",
            Kind::Server,
            "null",
            "One server; databases keep their names, and are pooled only.",
        )
        .required()
        .example("host=127.0.0.1 port=5440"),
        Key::new(
            "server_user",
            Kind::Text,
            "null",
            "Who logs in to the server; the client's user and password if left out.",
        ),
        Key::new(
            "server_password",
            Kind::Secret,
            "null",
            "The password of server_user.",
        ),
    ],
};

pub(in crate::config) static SHARD: Section = Section {
    name: "shard",
    keys: &[
        Key::new("primary", Kind::Server, "null", "Where its primary is.")
            .example("host=127.0.0.1 port=5440 dbname=shop")
            .required(),
        Key::new("replicas", Kind::Servers, "[]", "Where its replicas are.")
            .example("[host=127.0.0.1 port=5450 dbname=shop]"),
    ],
};

static REPLICAS: Section = Section {
    name: "replicas",
    keys: &[
        Key::new(
            "reads",
            Kind::Word(&["primary", "prefer_replica", "replica"]),
            "primary",
            "Where reads outside of transactions go.",
        )
        .not_yet(),
        Key::new(
            "max_lag",
            Kind::Duration,
            "10s",
            "How far behind a replica may be and still be read.",
        )
        .not_yet(),
    ],
};

pub(in crate::config) static DISTRIBUTION: Section = Section {
    name: "distribution",
    keys: &[
        Key::new(
            "key",
            Kind::KeyTypes,
            "null",
            "The type of the key, or of each of its columns.",
        )
        .example("bigint")
        .required(),
        Key::new(
            "place",
            Kind::Place,
            "null",
            "The rule that maps a key to a shard.",
        )
        .example("{jump: [shard_0, shard_1, shard_2]}")
        .required(),
        Key::new(
            "pins",
            Kind::Pins,
            "null",
            "Single keys and the shard they have to themselves.",
        )
        .example("{\"4711\": shard_3}"),
    ],
};

pub(in crate::config) static TABLE: Section = Section {
    name: "table",
    keys: &[
        Key::new(
            "table",
            Kind::Text,
            "null",
            "Its name or schema.name, only in a file of tables_from.",
        ),
        Key::new(
            "kind",
            Kind::Word(&["sharded", "reference", "single"]),
            "sharded",
            "Rows spread by key, a copy on each shard, or all rows on the home shard.",
        ),
        Key::new(
            "distribution",
            Kind::Text,
            "null",
            "The distribution that places its rows.",
        )
        .example("products"),
        Key::new(
            "key",
            Kind::Columns,
            "null",
            "The column, or the columns, that hold the key.",
        )
        .example("product_id"),
        Key::new(
            "ids",
            Kind::Section(&IDS),
            "null",
            "A column whose values are generated.",
        ),
        Key::new(
            "by",
            Kind::Text,
            "null",
            "The table.column whose values the key holds: ids that carry their bucket, or a column with a lookup table.",
        ),
        Key::new(
            "lookup",
            Kind::ColumnLists,
            "[]",
            "Columns by which rows are found through a lookup table on the home shard.",
        ),
        Key::new(
            "unique",
            Kind::ColumnLists,
            "[]",
            "Columns that are kept unique over all shards, each by itself.",
        ),
        Key::new(
            "cache",
            Kind::Section(&TABLE_CACHE),
            "null",
            "Whether its rows may be answered from the cache.",
        ),
    ],
};

pub(in crate::config) static IDS: Section = Section {
    name: "ids",
    keys: &[
        Key::new(
            "column",
            Kind::Text,
            "null",
            "The column that gets the ids.",
        )
        .required(),
        Key::new(
            "carries",
            Kind::Text,
            "null",
            "The key column whose bucket each id carries.",
        ),
    ],
};

pub(in crate::config) static TABLE_CACHE: Section = Section {
    name: "table_cache",
    keys: &[
        Key::new(
            "mode",
            Kind::Word(&["strong", "bounded", "cached"]),
            "strong",
            "`strong` is never answered from the cache.",
        ),
        Key::new(
            "ttl",
            Kind::Duration,
            "null",
            "How long an answer is fresh.",
        ),
        Key::new(
            "swr",
            Kind::Duration,
            "null",
            "The age up to which an answer may be served while it is refreshed.",
        ),
        Key::new(
            "strict",
            Kind::Bool,
            "false",
            "Whether writes fail while Redis cannot be reached.",
        ),
        Key::new(
            "strong_columns",
            Kind::Texts,
            "[]",
            "Columns that make a statement that names them pass the cache by.",
        ),
        Key::new(
            "index",
            Kind::Texts,
            "[]",
            "Columns whose values entries are invalidated by.",
        ),
    ],
};

static TENANT: Section = Section {
    name: "tenant",
    keys: &[
        Key::new(
            "column",
            Kind::Text,
            "null",
            "The column that holds the tenant: one of the key's of each sharded table.",
        )
        .required(),
        Key::new(
            "setting",
            Kind::Text,
            "null",
            "The setting that names the tenant to row-level security policies; a session that sets it is confined.",
        ),
    ],
};
