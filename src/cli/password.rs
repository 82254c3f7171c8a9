//! `hash-password`: a password in, the verifier that a config or pg_authid may hold out.

use std::io::{IsTerminal as _, Read as _};
use std::process::{Command, Stdio};

use crate::demo::terminal::warn;
use crate::error::{Fault, SqlState};
use crate::session::auth;

/// Longer input is no password.
const LENGTH_MAX: u64 = 4096;
/// Reads a line without showing it; the trap shows typing again also after Ctrl-C.
const HIDDEN: &str = "trap 'stty echo' EXIT INT TERM
stty -echo
IFS= read -r line
printf %s \"$line\"";

/// The SCRAM-SHA-256 verifier of the password on standard input.
pub(super) fn hash() -> Result<String, Fault> {
    let password = read().map_err(|error| {
        Fault::error(SqlState::CONFIG, "could not read the password")
            .detail(format!("The system says: {error}."))
            .hint("Type it, or give it on standard input.")
    })?;
    if password.is_empty() {
        return Err(
            Fault::error(SqlState::INVALID_PASSWORD, "the password is empty")
                .hint("PostgreSQL refuses empty passwords; give another."),
        );
    }
    auth::hash_password(&password)
}

fn read() -> std::io::Result<String> {
    let stdin = std::io::stdin();
    let text = if stdin.is_terminal() {
        warn("Password:");
        let output = Command::new("sh")
            .args(["-c", HIDDEN])
            .stdin(Stdio::inherit())
            .stderr(Stdio::inherit())
            .output()?;
        String::from_utf8(output.stdout).map_err(std::io::Error::other)?
    } else {
        let mut text = String::new();
        stdin.lock().take(LENGTH_MAX).read_to_string(&mut text)?;
        text
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
