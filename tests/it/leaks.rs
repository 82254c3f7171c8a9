//! Nothing of one client is ever seen by the next.

use crate::client::{Client, Row};

/// All of a session's state that SQL can see.
pub(crate) fn fingerprint(client: &mut Client) -> Vec<Vec<Row>> {
    [
        "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name <> 'application_name' ORDER BY name",
        "SELECT current_user = session_user, current_setting('role'), current_schemas(false)::text",
        "SELECT name, statement FROM pg_prepared_statements WHERE from_sql",
        "SELECT name FROM pg_cursors",
        "SELECT pg_listening_channels()",
        "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        "SELECT relname FROM pg_class WHERE pg_table_is_visible(oid) AND relpersistence = 't'",
    ]
    .map(|sql| client.rows(sql))
    .to_vec()
}
