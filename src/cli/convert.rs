//! `convert`: PgBouncer's files in, a config out.

use std::path::{Path, PathBuf};

use super::one;
use crate::config::convert::pgbouncer;
use crate::error::{Fault, SqlState};

/// The config for the pgbouncer.ini at `path`. Users and passwords come from `userlist`, or else
/// from the file that its `auth_file` names.
pub(super) fn pgbouncer_ini(path: &Path, userlist: Option<PathBuf>) -> Result<String, Vec<Fault>> {
    let text = read(path)?;
    let userlist = userlist.or_else(|| auth_file(&text));
    let users = userlist.map(|path| read(&path)).transpose()?;
    pgbouncer(&text, users.as_deref())
        .map_err(|faults| faults.into_iter().map(Fault::from).collect())
}

/// The last `auth_file` that the text sets; relative to where PgBouncer, and we, were started.
fn auth_file(text: &str) -> Option<PathBuf> {
    let set = text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == "auth_file").then(|| value.trim())
    });
    set.filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> Result<String, Vec<Fault>> {
    std::fs::read_to_string(path).map_err(|error| {
        one(Fault::error(
            SqlState::CONFIG,
            format!("could not read \"{}\"", path.display()),
        )
        .detail(format!("The system says: {error}."))
        .hint(
            "Give the path of a file that this user may read; --userlist names PgBouncer's users.",
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::auth_file;

    #[test]
    fn the_last_auth_file_counts() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(auth_file(text).as_deref(), expect.map(std::path::Path::new));
        };
        check(
            "[pgbouncer]\nauth_file = a\n;auth_file = b\nauth_file=c\n",
            Some("c"),
        );
        check("auth_file =\n", None);
        check("", None);
    }
}
