//! libpq connection strings and URIs, as far as they say where a server is.
//!
//! Follows `conninfo_parse` and `conninfo_uri_parse` of PostgreSQL's `fe-connect.c`: `key = value`
//! pairs with single quotes and backslashes, or `postgres://host:port/dbname?sslmode=…`. Who logs in
//! is set elsewhere in the configuration, so users and passwords are refused here.

use super::value::{self, BadValue};
use super::{Host, ServerTlsMode};

const HINT: &str =
    "Write it as host=127.0.0.1 port=5432 dbname=shop, or as postgres://127.0.0.1:5432/shop.";
/// The parameters that say where a server is.
const KNOWN: &[&str] = &["host", "port", "dbname", "sslmode"];

/// Reads a connection string; `dbname` is taken where it names no database.
pub(super) fn host(text: &str, dbname: &str) -> Result<Host, BadValue> {
    let text = text.trim();
    let uri = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    let pairs = match uri {
        Some(rest) => uri_pairs(rest)?,
        None => pairs(text)?,
    };
    let mut host = Host {
        host: String::new(),
        port: 5432,
        dbname: dbname.to_owned(),
        tls: None,
    };
    for (key, value) in pairs {
        set(&mut host, &key, value)?;
    }
    if host.host.is_empty() {
        return Err(BadValue::new("names no host", HINT));
    }
    Ok(host)
}

fn set(host: &mut Host, key: &str, value: String) -> Result<(), BadValue> {
    match key {
        "host" if value.contains(',') => {
            let hint = "Write the primary and each of the replicas by itself, or another shard.";
            return Err(BadValue::new("names several hosts", hint));
        }
        "host" => host.host = value,
        "port" => {
            let port = value::count(&value, 1, 65_535).map_err(|bad| {
                BadValue::new(format!("port \"{value}\" {}", bad.message), bad.hint)
            })?;
            host.port = u16::try_from(port).unwrap_or_default();
        }
        "dbname" if value.is_empty() => (),
        "dbname" => host.dbname = value,
        "sslmode" => host.tls = Some(sslmode(&value)?),
        "user" | "password" | "passfile" => {
            let hint = "Set server_user and server_password of the database in its place.";
            return Err(BadValue::new(format!("may not hold \"{key}\""), hint));
        }
        "sslrootcert" => {
            let hint = "Set server_tls.ca in its place.";
            return Err(BadValue::new("may not hold \"sslrootcert\"", hint));
        }
        _ => {
            let hint = value::did_you_mean(
                key,
                KNOWN.iter().copied(),
                format!("Known are {}.", KNOWN.join(", ")),
            );
            return Err(BadValue::new(
                format!("holds the unknown parameter \"{key}\""),
                hint,
            ));
        }
    }
    Ok(())
}

fn sslmode(text: &str) -> Result<ServerTlsMode, BadValue> {
    match text {
        "disable" => Ok(ServerTlsMode::Disable),
        "prefer" => Ok(ServerTlsMode::Prefer),
        "require" => Ok(ServerTlsMode::Require),
        "verify-ca" => Ok(ServerTlsMode::VerifyCa),
        "verify-full" => Ok(ServerTlsMode::VerifyFull),
        _ => Err(BadValue::new(
            format!("sslmode \"{text}\" is not known"),
            "Possible are disable, prefer, require, verify-ca, verify-full.",
        )),
    }
}

/// `key = value` pairs; values in single quotes may hold blanks, a backslash takes what follows.
fn pairs(text: &str) -> Result<Vec<(String, String)>, BadValue> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let Some((key, after)) = rest.split_once('=') else {
            return Err(BadValue::new(
                "is no connection string: a \"=\" is missing",
                HINT,
            ));
        };
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(BadValue::new(
                "is no connection string: a \"=\" is missing",
                HINT,
            ));
        }
        let (value, after) = quoted_value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn quoted_value(text: &str) -> Result<(String, &str), BadValue> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, chars.as_str())),
            c if c.is_whitespace() && !quoted => {
                return Ok((value, text.get(at..).unwrap_or_default()));
            }
            c => value.push(c),
        }
    }
    if quoted {
        return Err(BadValue::new("has a quote that is not closed", HINT));
    }
    Ok((value, ""))
}

/// What follows `postgres://`.
fn uri_pairs(text: &str) -> Result<Vec<(String, String)>, BadValue> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    let (authority, dbname) = place.split_once('/').unwrap_or((place, ""));
    if authority.contains('@') {
        let hint = "Set server_user and server_password of the database in its place.";
        return Err(BadValue::new("may not hold a user or a password", hint));
    }
    let bad_port = || BadValue::new("is no connection URI", HINT);
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, after) = inner.split_once(']').ok_or_else(bad_port)?;
            let port = match after {
                "" => "",
                _ => after.strip_prefix(':').ok_or_else(bad_port)?,
            };
            (address, port)
        }
        None => authority.rsplit_once(':').unwrap_or((authority, "")),
    };
    let mut pairs = Vec::new();
    for (key, value) in [("host", host), ("port", port), ("dbname", dbname)] {
        if !value.is_empty() {
            pairs.push((key.to_owned(), percent(value)?));
        }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(bad_port)?;
        pairs.push((percent(key)?, percent(value)?));
    }
    Ok(pairs)
}

/// Replaces `%41` by the byte it stands for.
fn percent(text: &str) -> Result<String, BadValue> {
    let bad = || {
        BadValue::new(
            "has a bad percent escape",
            "Write two hex digits after each %.",
        )
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|c| char::from(c).to_digit(16))
                .ok_or_else(bad)
        };
        let value = digit()? << 4 | digit()?;
        bytes.push(u8::try_from(value).map_err(|_error| bad())?);
    }
    String::from_utf8(bytes).map_err(|_error| bad())
}

#[cfg(test)]
mod tests {
    use super::host;
    use crate::config::ServerTlsMode;

    fn check(text: &str, expect: (&str, u16, &str)) {
        let read = host(text, "shop").unwrap_or_else(|bad| panic!("{text}: {}", bad.message));
        assert_eq!(
            (read.host.as_str(), read.port, read.dbname.as_str()),
            expect,
            "{text}"
        );
    }

    #[test]
    fn strings_are_read_as_libpq_reads_them() {
        check("host=127.0.0.1", ("127.0.0.1", 5432, "shop"));
        check("host = db1  port = 5440 dbname = a", ("db1", 5440, "a"));
        check(r"host='a b\'c' dbname='x\\y'", ("a b'c", 5432, r"x\y"));
        check(r"host=a\ b port=1", ("a b", 1, "shop"));
        check(
            "host=/run/postgresql dbname=''",
            ("/run/postgresql", 5432, "shop"),
        );
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        check("postgres://db1", ("db1", 5432, "shop"));
        check("postgresql://db1:5440/x", ("db1", 5440, "x"));
        check("postgres://[::1]:5440/x%20y", ("::1", 5440, "x y"));
        check("postgres://[::1]", ("::1", 5432, "shop"));
        check("postgres://%2Frun%2Fpg/x", ("/run/pg", 5432, "x"));
        check("postgres:///x?host=/run/pg&port=9", ("/run/pg", 9, "x"));
        let tls = host("postgres://db1/x?sslmode=verify-full", "")
            .unwrap()
            .tls;
        assert_eq!(tls, Some(ServerTlsMode::VerifyFull));
    }

    #[test]
    fn what_says_no_place_is_refused() {
        for bad in [
            "",
            "5432",
            "port=5432",
            "host",
            "host=a b",
            "host='a",
            "host=a port=0",
            "host=a port=x",
            "host=a,b",
            "host=a user=b",
            "host=a sslmode=allow",
            "host=a hots=b",
            "=a",
            "postgres://u:p@h/x",
            "postgres://h:x/",
            "postgres://[::1",
            "postgres://[::1]x",
            "postgres://h/%4",
            "postgres://h/%zz",
            "postgres://h/%ff",
            "postgres://h/x?y",
        ] {
            assert!(host(bad, "shop").is_err(), "{bad}");
        }
    }
}
