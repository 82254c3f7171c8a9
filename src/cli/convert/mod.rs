//! Turns PgBouncer's config into ours: what carries over is written, what does not is a comment.
//!
//! PgBouncer's defaults that differ from ours are written out, so that the herd behaves as the old
//! pooler did. Each of its databases becomes one with a single shard; shards are added by hand.

mod ini;
mod yaml;

use std::path::Path;

use crate::error::{Fault, SqlState};

/// The YAML for the `pgbouncer.ini` at `path`; its `auth_file` is read too.
pub(super) fn file(path: &Path) -> Result<String, Fault> {
    let text = read(path)?;
    let sections = ini::parse(&text).map_err(|error| {
        Fault::error(SqlState::CONFIG, "cannot read this as a pgbouncer.ini")
            .detail(format!(
                "{}, line {}: {}.",
                path.display(),
                error.line,
                error.what
            ))
            .hint("Mend the line, or take it out.")
    })?;
    let userlist = match sections.setting("auth_file") {
        Some(file) => ini::userlist(&read(Path::new(file))?),
        None => Vec::new(),
    };
    Ok(yaml::write(&sections, &userlist))
}

fn read(path: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(path).map_err(|error| {
        Fault::error(
            SqlState::CONFIG,
            format!("could not read \"{}\"", path.display()),
        )
        .detail(format!("The system says: {error}."))
        .hint("Give the path of a file that this user may read.")
    })
}
