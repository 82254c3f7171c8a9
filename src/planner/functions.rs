//! Built-in functions by what may be assumed of them. What is not listed may do anything.

use crate::sql::cursor::Name;

/// Scalar functions whose answer depends on nothing but their arguments and the settings that are
/// replayed on every server. None is an aggregate, none has an effect.
const PLAIN: &[&str] = &[
    "abs",
    "bool",
    "date",
    "float4",
    "float8",
    "int2",
    "int4",
    "int8",
    "numeric",
    "text",
    "varchar",
    "array_append",
    "array_cat",
    "array_dims",
    "array_length",
    "array_lower",
    "array_ndims",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_json",
    "array_to_string",
    "array_upper",
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "cbrt",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "coalesce",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "decode",
    "degrees",
    "div",
    "encode",
    "exp",
    "factorial",
    "floor",
    "format",
    "gcd",
    "greatest",
    "hashint4",
    "hashint8",
    "hashtext",
    "initcap",
    "isfinite",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_extract_path",
    "json_extract_path_text",
    "json_typeof",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_pretty",
    "jsonb_set",
    "jsonb_strip_nulls",
    "jsonb_typeof",
    "jsonb_path_exists",
    "jsonb_path_match",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "lcm",
    "least",
    "left",
    "length",
    "ln",
    "log",
    "log10",
    "lower",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "md5",
    "mod",
    "nullif",
    "num_nonnulls",
    "num_nulls",
    "octet_length",
    "overlay",
    "pi",
    "position",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "radians",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_substr",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row",
    "row_to_json",
    "rpad",
    "rtrim",
    "scale",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sign",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "atan2",
    "split_part",
    "sqrt",
    "starts_with",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "timezone",
    "to_char",
    "to_date",
    "to_hex",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "plainto_tsquery",
    "phraseto_tsquery",
    "websearch_to_tsquery",
    "ts_rank",
    "translate",
    "trim",
    "trim_array",
    "trim_scale",
    "trunc",
    "upper",
    "width_bucket",
    "array",
];

/// Set-returning functions as plain as these.
const PLAIN_SETS: &[&str] = &[
    "generate_series",
    "generate_subscripts",
    "unnest",
    "regexp_split_to_table",
    "string_to_table",
    "json_array_elements",
    "json_array_elements_text",
    "json_each",
    "json_each_text",
    "json_object_keys",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_object_keys",
];

/// Read the session or the database, alike on every server once settings are replayed.
const HARMLESS: &[&str] = &[
    "version",
    "current_schema",
    "current_schemas",
    "current_database",
    "current_catalog",
    "current_user",
    "current_role",
    "session_user",
    "user",
    "current_setting",
    "pg_typeof",
    "pg_client_encoding",
    "pg_encoding_to_char",
    "pg_char_to_encoding",
];

/// Free of effects, but not alike on every server or not scalar.
const READ_ONLY: &[&str] = &[
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "clock_timestamp",
    "col_description",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "current_date",
    "current_time",
    "current_timestamp",
    "dense_rank",
    "every",
    "first_value",
    "format_type",
    "gen_random_uuid",
    "grouping",
    "has_database_privilege",
    "has_schema_privilege",
    "has_table_privilege",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "lag",
    "last_value",
    "lead",
    "localtime",
    "localtimestamp",
    "max",
    "min",
    "mode",
    "now",
    "nth_value",
    "ntile",
    "obj_description",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pg_backend_pid",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_indexdef",
    "pg_get_serial_sequence",
    "pg_get_userbyid",
    "pg_get_viewdef",
    "pg_is_in_recovery",
    "pg_relation_size",
    "pg_table_is_visible",
    "pg_total_relation_size",
    "pg_type_is_visible",
    "random",
    "rank",
    "regr_slope",
    "row_number",
    "shobj_description",
    "statement_timestamp",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "sum",
    "timeofday",
    "to_regclass",
    "to_regtype",
    "transaction_timestamp",
    "var_pop",
    "var_samp",
    "variance",
    "age",
    "xmlagg",
];

/// Aggregates and window functions that answer alike wherever the rows are the same.
const AGGREGATES: &[&str] = &[
    "array_agg",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "every",
    "json_agg",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_object_agg",
    "max",
    "min",
    "string_agg",
    "sum",
];

/// What is immutable and in no other list, and gives several values or takes several rows.
const NO_SCALARS: &[&str] = &[
    "jsonb_path_query",
    "pg_snapshot_xip",
    "range_agg",
    "range_intersect_agg",
    "regexp_matches",
    "txid_snapshot_xip",
    "xmlagg",
];

/// The other aggregates and window functions whose answers depend on nothing but their rows.
const GROUPING: &[&str] = &[
    "bit_xor",
    "corr",
    "covar_pop",
    "covar_samp",
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "mode",
    "nth_value",
    "ntile",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "rank",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "row_number",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "var_pop",
    "var_samp",
    "variance",
];

/// Answer by the clock, by chance, or by the server and its connection.
const OF_SERVER: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "now",
    "pg_backend_pid",
    "pg_current_wal_lsn",
    "pg_current_xact_id",
    "pg_postmaster_start_time",
    "random",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "txid_current",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
];

/// Run SQL that they are given, or read tables that they are given the names of.
const RUN_SQL: &[&str] = &[
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstabn",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_stat",
    "xpath_table",
];

/// What a call does to the session, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEffect {
    None,
    SetConfig,
    /// Takes a lock that outlives the transaction.
    SessionLock,
    /// Reads what `nextval` left in the session.
    SequenceState,
    /// Lets go of what the session holds: of no effect where it holds nothing.
    Release,
    /// Runs SQL we cannot see.
    Dynamic,
}

/// Every name in `pg_catalog` of PostgreSQL 15 whose functions are all immutable, in order: the scalar ones,
/// the set-returning ones, aggregates and window functions.
const IMMUTABLE: &str = include_str!("functions/immutable.txt");

/// Not immutable, but answered the same by any server that has the settings and the rows, at one moment, or
/// by the clock and by chance.
const TABLE_FREE: &[&str] = &[
    "age",
    "clock_timestamp",
    "current_date",
    "current_role",
    "current_schema",
    "current_schemas",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "date",
    "enum_first",
    "enum_last",
    "enum_range",
    "gen_random_uuid",
    "grouping",
    "in_range",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "json_populate_record",
    "json_populate_recordset",
    "json_to_record",
    "json_to_recordset",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "jsonb_path_exists_tz",
    "jsonb_path_match_tz",
    "jsonb_path_query_array_tz",
    "jsonb_path_query_first_tz",
    "jsonb_path_query_tz",
    "jsonb_populate_record",
    "jsonb_populate_recordset",
    "jsonb_to_record",
    "jsonb_to_recordset",
    "localtime",
    "localtimestamp",
    "make_timestamptz",
    "money",
    "now",
    "pg_client_encoding",
    "pg_typeof",
    "random",
    "row_to_json",
    "session_user",
    "statement_timestamp",
    "timeofday",
    "transaction_timestamp",
    "user",
    "version",
    "xmlagg",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmlparse",
    "xmlexists",
    "json_arrayagg",
    "json_objectagg",
];

/// Not immutable, but its answer depends on nothing but the arguments and the settings.
const BY_SETTINGS: &[&str] = &[
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "convert",
    "convert_from",
    "convert_to",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "generate_series",
    "json_to_tsvector",
    "jsonb_to_tsvector",
    "length",
    "like_escape",
    "not_like_escape",
    "numeric",
    "overlaps",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "similar_escape",
    "similar_to_escape",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "websearch_to_tsquery",
];

fn is_immutable(name: &str) -> bool {
    IMMUTABLE.lines().any(|known| known == name)
}

/// Whether a call of a built-in function may run on a twin: it looks at its arguments, the settings and the
/// clock, and nowhere else.
pub(super) fn is_table_free(name: &Name) -> bool {
    let lists = [PLAIN, PLAIN_SETS, AGGREGATES, TABLE_FREE, BY_SETTINGS];
    listed(name, &lists) || built_in(name).is_some_and(is_immutable)
}

/// Whether a built-in function of this name answers alike on every shard for the same arguments, with one value.
pub(super) fn is_settled(name: &str) -> bool {
    let within = |lists: &[&[&str]]| lists.iter().any(|list| list.contains(&name));
    (within(&[PLAIN, BY_SETTINGS]) || is_immutable(name))
        && !within(&[AGGREGATES, GROUPING, PLAIN_SETS, NO_SCALARS])
}

fn built_in(name: &Name) -> Option<&str> {
    match name.schema.as_deref() {
        None | Some("pg_catalog") => Some(&name.name),
        Some(_) => None,
    }
}

fn listed(name: &Name, lists: &[&[&str]]) -> bool {
    built_in(name).is_some_and(|name| lists.iter().any(|list| list.contains(&name)))
}

/// A scalar function whose answer is the same on every shard.
pub(super) fn is_plain(name: &Name) -> bool {
    listed(name, &[PLAIN])
}

/// A set-returning function whose answer is the same on every shard.
pub(super) fn is_plain_set(name: &Name) -> bool {
    listed(name, &[PLAIN_SETS])
}

/// An aggregate or a window function whose answer is the same on every shard that has the rows.
pub(super) fn is_grouping(name: &Name) -> bool {
    listed(name, &[AGGREGATES, GROUPING])
}

/// Any server answers alike, with no table in sight.
pub(super) fn is_harmless(name: &Name) -> bool {
    listed(name, &[PLAIN, PLAIN_SETS, HARMLESS])
}

/// Free of side effects.
pub(super) fn is_read_only(name: &Name) -> bool {
    listed(name, &[PLAIN, PLAIN_SETS, HARMLESS, READ_ONLY])
}

/// Whether a built-in function of this name answers alike wherever the rows that it is given are the same.
pub(super) fn is_alike(name: &str) -> bool {
    [PLAIN, PLAIN_SETS, HARMLESS, AGGREGATES]
        .iter()
        .any(|list| list.contains(&name))
}

/// Whether a function of this name answers by the clock, by chance, or by its server.
pub(super) fn is_of_server(name: &str) -> bool {
    OF_SERVER.contains(&name)
}

/// Whether a function of this name runs SQL that it is given.
pub(super) fn runs_sql(name: &str) -> bool {
    RUN_SQL.contains(&name)
}

/// What a call of this name does to the session.
pub(super) fn session_effect(name: &str) -> SessionEffect {
    match name {
        "set_config" => SessionEffect::SetConfig,
        "pg_advisory_lock"
        | "pg_advisory_lock_shared"
        | "pg_try_advisory_lock"
        | "pg_try_advisory_lock_shared" => SessionEffect::SessionLock,
        "currval" | "lastval" => SessionEffect::SequenceState,
        "pg_advisory_unlock" | "pg_advisory_unlock_shared" | "pg_advisory_unlock_all" => {
            SessionEffect::Release
        }
        "dblink_connect" | "dblink_connect_u" => SessionEffect::Dynamic,
        _ => SessionEffect::None,
    }
}
