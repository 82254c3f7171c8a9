//! The schema of a database as statements that make it again: what `pg_dump` writes, less what a twin
//! must not hold.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::config::{Host, ServerTls, ServerTlsMode};
use crate::control::pool::Role;
use crate::error::{Fault, SqlState};
use crate::sql::scan::{Kind, Lexing, Token, scan};
use crate::sql::split::split;

/// How long `pg_dump` may take.
const DUMP_TIMEOUT: Duration = Duration::from_mins(5);
/// Bytes of a schema.
const DUMP_MAX: u64 = 256 << 20;
/// Bytes of what `pg_dump` says went wrong.
const SAID_MAX: u64 = 64 << 10;

const ARGUMENTS: &[&str] = &[
    "--schema-only",
    "--no-comments",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--no-tablespaces",
    "--exclude-schema=pgherd",
    "--encoding=UTF8",
    // It waits for DDL that is under way, and not for ever.
    "--lock-wait-timeout=30000",
    "--no-password",
];

/// Runs `pg_dump` on a database and makes its answer ready for a twin.
///
/// # Errors
/// `pg_dump` is missing, too old or failed; its message is the detail.
///
/// # Cancel safety
/// Safe: `pg_dump` is ended.
pub(super) async fn dump(
    host: &Host,
    role: &Role,
    tls: &ServerTls,
    major: u32,
) -> Result<String, Fault> {
    let program = program(major).ok_or_else(|| missing(major, "pg_dump is not installed"))?;
    let mut command = Command::new(program);
    // What the environment says of other servers is not meant here.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
        .args(ARGUMENTS)
        .env("LC_ALL", "C")
        .env("PGHOST", &host.host)
        .env("PGPORT", host.port.to_string())
        .env("PGDATABASE", &host.dbname)
        .env("PGUSER", &role.name)
        .env("PGAPPNAME", "pgherd")
        .env("PGCONNECT_TIMEOUT", "15")
        .env("PGSSLMODE", sslmode(host.tls.unwrap_or(tls.mode)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(password) = &role.password {
        command.env("PGPASSWORD", password);
    }
    if let Some(ca) = &tls.ca {
        command.env("PGSSLROOTCERT", ca);
    }
    let text = tokio::time::timeout(DUMP_TIMEOUT, run(command, major))
        .await
        .map_err(|_elapsed| failed("It did not end in time."))??;
    prepare(&text)
}

async fn run(mut command: Command, major: u32) -> Result<String, Fault> {
    let broken = |error: std::io::Error| failed(&format!("The system says: {error}."));
    let mut child = command.spawn().map_err(broken)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (text, said) = tokio::join!(read(out, DUMP_MAX), read(err, SAID_MAX));
    let (text, said) = (text.map_err(broken)?, said.map_err(broken)?);
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > DUMP_MAX {
        return Err(failed("The schema is larger than 256 MB."));
    }
    let status = child.wait().await.map_err(broken)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        if said.contains("server version mismatch") {
            return Err(
                missing(major, "pg_dump is too old for the home shard's server")
                    .detail(format!("It says: {said}.")),
            );
        }
        return Err(failed(&format!("It says: {said}.")));
    }
    String::from_utf8(text).map_err(|_error| failed("What it wrote is not UTF-8."))
}

/// All there is, or one byte more than `most`.
async fn read(from: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        let mut limited = from.take(most.saturating_add(1));
        limited.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

fn failed(detail: &str) -> Fault {
    Fault::error(
        SqlState::CONNECTION_FAILURE,
        "pg_dump could not read the home shard's schema",
    )
    .detail(detail)
    .hint("Check that the control role may read every table of the home shard.")
}

fn missing(major: u32, what: &str) -> Fault {
    Fault::error(SqlState::CONFIG, what.to_owned()).hint(format!(
        "Install PostgreSQL's client programs of version {major} or later, as in apt-get install postgresql-client."
    ))
}

/// The `pg_dump` of the server's version where Debian puts it, else that on the path, else the newest.
fn program(major: u32) -> Option<PathBuf> {
    let debian = Path::new("/usr/lib/postgresql");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir(debian)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    installed.sort();
    let folders = std::iter::once(debian.join(major.to_string()).join("bin"))
        .chain(std::env::split_paths(&path))
        .chain(
            installed
                .into_iter()
                .rev()
                .map(|(_, path)| path.join("bin")),
        );
    let mut programs = folders.map(|folder| folder.join("pg_dump"));
    programs.find(|program| program.is_file())
}

fn sslmode(mode: ServerTlsMode) -> &'static str {
    match mode {
        ServerTlsMode::Disable => "disable",
        ServerTlsMode::Prefer => "prefer",
        ServerTlsMode::Require => "require",
        ServerTlsMode::VerifyCa => "verify-ca",
        ServerTlsMode::VerifyFull => "verify-full",
    }
}

/// What becomes of a statement.
enum Fate {
    Stays,
    Goes,
    /// These words stand for its first three.
    Begins(&'static str),
}

/// The statements that a twin is made with: psql's own lines, timeouts and what acts by itself are left
/// out, and materialized views are tables, which rows are fetched into.
fn prepare(dump: &str) -> Result<String, Fault> {
    let text = without_restriction(dump);
    let unread = |_error| failed("What it wrote could not be read.");
    let tokens = scan(text.as_bytes(), Lexing::default()).map_err(unread)?;
    let mut prepared = String::with_capacity(text.len());
    for piece in split(&tokens, text.as_bytes()) {
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else {
            continue;
        };
        let (begin, from) = match fate(piece, text.as_bytes()) {
            Fate::Stays => ("", first.start),
            Fate::Goes => continue,
            Fate::Begins(words) => (words, piece.get(2).map_or(first.start, |token| token.end)),
        };
        prepared.push_str(begin);
        prepared.push_str(text.get(from..last.end).unwrap_or_default());
        prepared.push_str(";\n");
    }
    Ok(prepared)
}

fn fate(piece: &[Token], text: &[u8]) -> Fate {
    let words: Vec<String> = piece
        .iter()
        .take(3)
        .take_while(|token| token.kind == Kind::Word)
        .map(|token| String::from_utf8_lossy(token.of(text)).to_uppercase())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let depends = || {
        piece
            .iter()
            .any(|token| token.of(text).eq_ignore_ascii_case(b"DEPENDS"))
    };
    match words.as_slice() {
        ["SET", name, ..] if name.ends_with("_TIMEOUT") => Fate::Goes,
        ["ALTER", "DEFAULT", "PRIVILEGES"]
        | ["CREATE" | "ALTER", "EVENT", "TRIGGER"]
        | ["CREATE" | "ALTER", "USER", "MAPPING"] => Fate::Goes,
        ["CREATE", "MATERIALIZED", "VIEW"] => Fate::Begins("CREATE UNLOGGED TABLE"),
        ["ALTER", "MATERIALIZED", "VIEW"] if depends() => Fate::Goes,
        ["ALTER", "MATERIALIZED", "VIEW"] => Fate::Begins("ALTER TABLE"),
        [..] => Fate::Stays,
    }
}

/// Without the two lines that keep psql from running commands of its own: `\restrict` and a random word
/// at the head, `\unrestrict` and the same word at the end.
fn without_restriction(dump: &str) -> String {
    let mut head = dump
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("--") || line.starts_with('\\'));
    let Some(word) = head.find_map(|line| line.strip_prefix("\\restrict ")) else {
        return dump.to_owned();
    };
    let (begin, end) = (format!("\\restrict {word}"), format!("\\unrestrict {word}"));
    let lines = dump
        .split_inclusive('\n')
        .filter(|line| ![begin.as_str(), end.as_str()].contains(&line.trim_end_matches('\n')));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::prepare;

    #[test]
    fn statements_are_told_from_texts_that_hold_them() {
        let body = "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT '
\\restrict x
CREATE MATERIALIZED VIEW v;
ALTER DEFAULT PRIVILEGES;' $$";
        let dump = format!(
            "--\n-- a dump\n--\n\n\\restrict abc\n\n-- of 15\n\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\n\
             SET client_encoding = 'UTF8';\n{body};\n--\n-- Name: v\n--\n\nCREATE MATERIALIZED VIEW public.v AS\n SELECT 1 AS a\n  \
             WITH NO DATA;\nALTER MATERIALIZED VIEW public.v OWNER TO x;\n\
             ALTER DEFAULT PRIVILEGES FOR ROLE x GRANT SELECT ON TABLES TO y;\n\
             CREATE EVENT TRIGGER e ON ddl_command_end\n   EXECUTE FUNCTION public.f();\n\
             CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);\n\n\\unrestrict abc\n\n"
        );
        let expect = format!(
            "SET client_encoding = 'UTF8';\n{body};\nCREATE UNLOGGED TABLE public.v AS\n SELECT 1 AS a\n  WITH NO DATA;\n\
             ALTER TABLE public.v OWNER TO x;\nCREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);\n"
        );
        assert_eq!(prepare(&dump).unwrap(), expect);
        assert_eq!(prepare("SELECT 1;").unwrap(), "SELECT 1;\n");
        assert!(prepare("SELECT '").is_err());
    }
}
