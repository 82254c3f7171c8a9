//! The reasons for which pgherd refuses, in `tests/golden/refusals.txt`: a new one is noticed.
//!
//! `UPDATE_GOLDEN=1` adds what is not there. To take old ones out, remove the file and let a long run
//! (`CASES=20000`) write it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;

use super::run::Failure;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/refusals.txt");

/// Reasons, each with a statement that met it.
pub(super) type Reasons = BTreeMap<String, String>;

/// The SQLSTATE and the message without what belongs to one statement.
pub(crate) fn reason(failure: &Failure) -> String {
    let mut text = String::new();
    for (at, part) in failure.message.split('"').enumerate() {
        text += if at % 2 == 1 { "\"…\"" } else { part };
    }
    let text = match text.split_once("a call of ") {
        Some((start, rest)) => {
            let end = rest.split_once(' ').map_or("", |(_, end)| end);
            format!("{start}a call of … {end}")
        }
        None => text,
    };
    format!("{} {}", failure.code, text.trim_end())
}

/// The reasons that the file does not have; with `UPDATE_GOLDEN` it has them then.
pub(super) fn new_ones(found: &Reasons) -> Vec<String> {
    let folder = Path::new(PATH).parent().expect("it has one");
    let lock = File::open(folder).expect("the folder is there");
    lock.lock().expect("flock works");
    let known = fs::read_to_string(PATH).unwrap_or_default();
    let is_known = |reason: &str| known.lines().any(|line| line == reason);
    let new: Vec<&String> = found.keys().filter(|reason| !is_known(reason)).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        let show = |reason: &String| format!("{reason}\n    {}", found[reason]);
        return new.into_iter().map(show).collect();
    }
    let mut all: Vec<&str> = known
        .lines()
        .chain(new.iter().map(|it| it.as_str()))
        .collect();
    all.sort_unstable();
    let mut text = String::new();
    for line in all {
        writeln!(text, "{line}").expect("a string takes it");
    }
    fs::write(PATH, text).expect("the golden can be written");
    Vec::new()
}
