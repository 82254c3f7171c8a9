//! Reads what stands outside of `databases`: names, addresses and limits.

use std::path::PathBuf;

use super::Loader;
use crate::config::fault::At;
use crate::config::keys::global::INVALIDATE;
use crate::config::read::{Object, items};
use crate::config::{Cache, Invalidate, Url};
use crate::config::{Gather, Host, KeepUnnamed, Limits, Listen, Log, LogFormat, PoolMode, connect};

/// Bytes of the deployment's name: it is part of every prepared transaction's gid.
const NAME_MAX: usize = 32;
/// Gather servers: with their twins they are numbered as shards are.
const GATHER_SERVERS_MAX: usize = 32;
const POOL_MODES: [PoolMode; 3] = [
    PoolMode::Transaction,
    PoolMode::Session,
    PoolMode::Statement,
];

pub(super) fn name(root: &Object<'_>) -> String {
    let name = root.text("name").unwrap_or_default();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(allowed) {
        let hint = format!("Use 1 to {NAME_MAX} of the characters a-z, 0-9, _ and -.");
        root.bad("name", "is no name of a deployment", hint);
    }
    name
}

pub(super) fn engines(root: &Object<'_>) -> Option<usize> {
    if root.text("engines")? == "auto" {
        return None;
    }
    root.count_or_none("engines")
}

pub(super) fn log(log: &Object<'_>) -> Log {
    let levels = ["error", "warn", "info", "debug", "trace"];
    let format = log.choice("format", &[LogFormat::Text, LogFormat::Json]);
    let level = log.choice("level", &levels).unwrap_or("info");
    Log {
        format: format.unwrap_or(LogFormat::Text),
        level: level.to_owned(),
    }
}

pub(super) fn http(root: &Object<'_>) -> Option<String> {
    let http = root.text("http")?;
    if address(&http).is_none() {
        root.bad(
            "http",
            format!("\"{http}\" is no address"),
            "Write host:port, as in 127.0.0.1:9632.",
        );
    }
    Some(http)
}

pub(super) fn limits(root: &Object<'_>) -> Limits {
    let keep = [KeepUnnamed::Auto, KeepUnnamed::Custom, KeepUnnamed::Off];
    let limits = Limits {
        pool_mode: pool_mode(root).unwrap_or(PoolMode::Transaction),
        default_pool_size: root.count("default_pool_size"),
        min_pool_size: root.count("min_pool_size"),
        reserve_pool_size: root.count("reserve_pool_size"),
        reserve_pool_timeout: root.duration("reserve_pool_timeout"),
        max_client_conn: root.count("max_client_conn"),
        max_db_connections: root.count("max_db_connections"),
        max_user_connections: root.count("max_user_connections"),
        max_prepared_statements: root.count("max_prepared_statements"),
        reads_per_connection: root.count("reads_per_connection"),
        shared_read_wait: root.duration("shared_read_wait"),
        deadlock_timeout: root.duration("deadlock_timeout"),
        keep_unnamed_statements: root
            .choice("keep_unnamed_statements", &keep)
            .unwrap_or(KeepUnnamed::Auto),
        query_wait_timeout: root.duration("query_wait_timeout"),
        server_lifetime: root.duration("server_lifetime"),
        server_idle_timeout: root.duration("server_idle_timeout"),
        server_connect_timeout: root.duration("server_connect_timeout"),
        client_idle_timeout: root.duration("client_idle_timeout"),
        idle_transaction_timeout: root.duration("idle_transaction_timeout"),
        query_timeout: root.duration("query_timeout"),
        client_login_timeout: root.duration("client_login_timeout"),
        max_message_size: root.size("max_message_size"),
        max_statement_size: root.size("max_statement_size"),
        max_multi_bytes: root.size("max_multi_bytes"),
        plan_cache_size: root.size("plan_cache_size"),
        max_directory_rows: root.count("max_directory_rows"),
        consistent_reads_timeout: root.duration("consistent_reads_timeout"),
    };
    if limits.min_pool_size > limits.default_pool_size {
        let hint = "Lower it, or raise default_pool_size.";
        root.bad("min_pool_size", "is larger than default_pool_size", hint);
    }
    if limits.max_statement_size > limits.max_message_size {
        let hint = "Lower it, or raise max_message_size.";
        root.bad(
            "max_statement_size",
            "is larger than max_message_size",
            hint,
        );
    }
    limits
}

pub(super) fn pool_mode(object: &Object<'_>) -> Option<PoolMode> {
    object.choice("pool_mode", &POOL_MODES)
}

impl Loader<'_> {
    pub(super) fn listen(&self, root: &Object<'_>) -> Vec<Listen> {
        let mut texts = root.texts("listen");
        if texts.is_empty() {
            if root.has("listen") {
                root.bad(
                    "listen",
                    "names no address",
                    "Name one, as in [127.0.0.1:6432].",
                );
            }
            texts.push((At::default(), "127.0.0.1:6432".to_owned()));
        }
        let first_port = texts
            .iter()
            .find_map(|(_, text)| address(text))
            .map_or(6432, |(_, port)| port);
        let mut listen = Vec::new();
        for (at, text) in texts {
            let one = if text.starts_with('/') {
                Some(unix_socket(&text, first_port))
            } else {
                address(&text).map(|_| Listen::Tcp(text.clone()))
            };
            match one {
                None => {
                    let message = format!("\"{text}\" is no address");
                    self.fault(
                        at,
                        "listen",
                        message,
                        "Write host:port, as in 127.0.0.1:6432, or a /directory.",
                    );
                }
                Some(one) if listen.contains(&one) => {
                    self.fault(
                        at,
                        "listen",
                        format!("\"{text}\" is given twice"),
                        "Remove one of the two.",
                    );
                }
                Some(one) => listen.push(one),
            }
        }
        listen
    }

    pub(super) fn gather(&self, gather: &Object<'_>) -> Gather {
        let mut servers: Vec<Host> = Vec::new();
        for (at, text) in gather.texts("server") {
            let path = gather.child("server");
            match connect::host(&text, "") {
                Err(bad) => self.fault(at, &path, bad.message, bad.hint),
                Ok(host) if !host.dbname.is_empty() => {
                    let hint = "Remove dbname: twins are databases of their own.";
                    self.fault(at, &path, "may not name a database", hint);
                }
                Ok(host) if servers.contains(&host) => {
                    let message = format!("\"{text}\" is given twice");
                    self.fault(at, &path, message, "Remove one of the two.");
                }
                Ok(host) => servers.push(host),
            }
        }
        if servers.len() > GATHER_SERVERS_MAX {
            let message = format!("names more than {GATHER_SERVERS_MAX} servers");
            gather.bad("server", message, "Name fewer, and raise gather.twins.");
        }
        Gather {
            servers,
            twins: gather.count("twins"),
            max_rows: u64::try_from(gather.count("max_rows")).unwrap_or(u64::MAX),
            max_bytes: gather.size("max_bytes"),
            narrow_above: u64::try_from(gather.count("narrow_above")).unwrap_or(u64::MAX),
            timeout: gather.duration("timeout"),
        }
    }

    /// Where answers of cached tables are kept.
    pub(super) fn caching(&self, cache: &Object<'_>) -> Cache {
        let path = cache.child("invalidate_on");
        let mut invalidate_on = Vec::new();
        for item in cache
            .node("invalidate_on")
            .map_or(&[][..], |node| items(node, &path, &self.faults))
        {
            let one = Object::open(item, &INVALIDATE, path.clone(), &self.faults);
            let (channel, table, key) = (one.name("channel"), one.name("table"), one.name("key"));
            if key.as_ref().is_some_and(|key| !key.starts_with("$.")) {
                let hint =
                    "Write $. and the names of the fields that lead to it, as in $.product.id.";
                one.bad("key", "is no path into the message", hint);
            }
            if let (Some(channel), Some(table)) = (channel, table) {
                let path = key.as_deref().and_then(|key| key.strip_prefix("$."));
                invalidate_on.push(Invalidate {
                    channel,
                    table,
                    key: path.map(|path| path.split('.').map(str::to_owned).collect()),
                });
            }
        }
        Cache {
            redis: cache.text("redis").map(Url),
            memory: cache.size("memory"),
            max_entry: cache.size("max_entry"),
            redis_timeout: cache.duration("redis_timeout"),
            audit: cache.count("audit"),
            invalidate_on,
        }
    }
}

/// A folder, and the port in the socket's name: its own after a colon, else that of the first address.
fn unix_socket(text: &str, port: u16) -> Listen {
    if let Some((folder, own)) = text.rsplit_once(':')
        && let Ok(own) = own.parse()
    {
        return Listen::Unix {
            folder: PathBuf::from(folder),
            port: own,
        };
    }
    Listen::Unix {
        folder: PathBuf::from(text),
        port,
    }
}

/// Host and port of `host:port` or `[address]:port`.
pub(in crate::config) fn address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let inner = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!inner.is_empty() && !inner.contains(char::is_whitespace)).then_some((inner, port))
}
