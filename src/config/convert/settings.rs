//! What becomes of each setting of PgBouncer's `[pgbouncer]` section.

use std::time::Duration;

use crate::config::value;

/// How a setting is carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carry {
    /// The same name and value.
    Same,
    /// The same name; seconds become a duration.
    Seconds,
    /// A list with commas.
    List,
    /// Read together with others, elsewhere.
    Elsewhere,
    /// Why it is left out.
    Dropped(&'static str),
}

const NO_NEED: Carry = Carry::Dropped("pgherd works without it");
const PROCESS: Carry = Carry::Dropped("left to systemd or the shell that starts pgherd");
const LOGS: Carry = Carry::Dropped("log.level decides what is logged, to standard error");
const SOCKETS: Carry = Carry::Dropped("pgherd chooses its sockets' options itself");
const DNS: Carry = Carry::Dropped("names are looked up when a server connection is made");
const CIPHERS: Carry = Carry::Dropped("rustls offers TLS 1.2 and 1.3 with safe ciphers only");
const TRACKED: Carry = Carry::Dropped("settings are tracked and reset without a query");

pub(super) const SETTINGS: &[(&str, Carry)] = &[
    ("pool_mode", Carry::Same),
    ("default_pool_size", Carry::Same),
    ("min_pool_size", Carry::Same),
    ("reserve_pool_size", Carry::Same),
    ("max_client_conn", Carry::Same),
    ("max_db_connections", Carry::Same),
    ("max_user_connections", Carry::Same),
    ("max_prepared_statements", Carry::Same),
    ("reserve_pool_timeout", Carry::Seconds),
    ("query_wait_timeout", Carry::Seconds),
    ("server_lifetime", Carry::Seconds),
    ("server_idle_timeout", Carry::Seconds),
    ("server_connect_timeout", Carry::Seconds),
    ("client_idle_timeout", Carry::Seconds),
    ("client_login_timeout", Carry::Seconds),
    ("idle_transaction_timeout", Carry::Seconds),
    ("query_timeout", Carry::Seconds),
    ("admin_users", Carry::List),
    ("stats_users", Carry::List),
    ("listen_addr", Carry::Elsewhere),
    ("listen_port", Carry::Elsewhere),
    ("unix_socket_dir", Carry::Elsewhere),
    ("auth_type", Carry::Elsewhere),
    ("auth_query", Carry::Elsewhere),
    ("auth_user", Carry::Elsewhere),
    ("auth_hba_file", Carry::Elsewhere),
    (
        "auth_file",
        Carry::Dropped("its users are in this file; later changes of it are not seen"),
    ),
    (
        "auth_dbname",
        Carry::Dropped("auth.query runs on the database the client asks for"),
    ),
    ("auth_ident_file", Carry::Dropped("name maps are not read")),
    ("client_tls_sslmode", Carry::Elsewhere),
    ("client_tls_key_file", Carry::Elsewhere),
    ("client_tls_cert_file", Carry::Elsewhere),
    ("client_tls_ca_file", Carry::Elsewhere),
    ("server_tls_sslmode", Carry::Elsewhere),
    ("server_tls_ca_file", Carry::Elsewhere),
    (
        "server_tls_key_file",
        Carry::Dropped("server connections use no client certificate"),
    ),
    (
        "server_tls_cert_file",
        Carry::Dropped("server connections use no client certificate"),
    ),
    ("client_tls_protocols", CIPHERS),
    ("client_tls_ciphers", CIPHERS),
    ("client_tls13_ciphers", CIPHERS),
    ("client_tls_ecdhcurve", CIPHERS),
    ("client_tls_dheparams", CIPHERS),
    ("server_tls_protocols", CIPHERS),
    ("server_tls_ciphers", CIPHERS),
    ("server_tls13_ciphers", CIPHERS),
    ("logfile", LOGS),
    ("syslog", LOGS),
    ("syslog_ident", LOGS),
    ("syslog_facility", LOGS),
    ("log_connections", LOGS),
    ("log_disconnections", LOGS),
    ("log_pooler_errors", LOGS),
    ("log_stats", LOGS),
    ("verbose", LOGS),
    (
        "stats_period",
        Carry::Dropped("averages are over one minute"),
    ),
    ("pidfile", PROCESS),
    ("user", PROCESS),
    ("conffile", PROCESS),
    ("service_name", PROCESS),
    ("job_name", PROCESS),
    ("unix_socket_mode", PROCESS),
    ("unix_socket_group", PROCESS),
    (
        "so_reuseport",
        Carry::Dropped("one process uses all cores: see engines"),
    ),
    (
        "peer_id",
        Carry::Dropped("one process uses all cores: see engines"),
    ),
    ("listen_backlog", SOCKETS),
    ("tcp_defer_accept", SOCKETS),
    ("tcp_socket_buffer", SOCKETS),
    ("tcp_keepalive", SOCKETS),
    ("tcp_keepcnt", SOCKETS),
    ("tcp_keepidle", SOCKETS),
    ("tcp_keepintvl", SOCKETS),
    ("tcp_user_timeout", SOCKETS),
    ("pkt_buf", SOCKETS),
    ("sbuf_loopcnt", SOCKETS),
    (
        "max_packet_size",
        Carry::Dropped("max_message_size is at PostgreSQL's own limit"),
    ),
    ("dns_max_ttl", DNS),
    ("dns_nxdomain_ttl", DNS),
    ("dns_zone_check_period", DNS),
    ("resolv_conf", DNS),
    ("server_reset_query", TRACKED),
    ("server_reset_query_always", TRACKED),
    ("track_extra_parameters", TRACKED),
    (
        "ignore_startup_parameters",
        Carry::Dropped("every startup parameter is passed on and tracked"),
    ),
    ("server_check_delay", NO_NEED),
    ("server_check_query", NO_NEED),
    ("server_fast_close", NO_NEED),
    ("server_login_retry", NO_NEED),
    ("server_round_robin", NO_NEED),
    ("autodb_idle_timeout", NO_NEED),
    ("suspend_timeout", NO_NEED),
    ("disable_pqexec", NO_NEED),
    ("application_name_add_host", NO_NEED),
    ("cancel_wait_timeout", NO_NEED),
    ("transaction_timeout", NO_NEED),
    (
        "%include",
        Carry::Dropped("convert the included file by itself"),
    ),
];

/// PgBouncer's seconds, which may have a fraction, as a duration's text.
pub(super) fn seconds(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: u64 = whole.parse().ok()?;
    if !fraction.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    let millis = Duration::from_millis(millis.parse().ok()?);
    let duration = Duration::from_secs(whole).checked_add(millis)?;
    let shown = value::show_duration(duration);
    value::duration(&shown).ok().map(|_| shown)
}
