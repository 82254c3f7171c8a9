//! Conversations that must be the same with PostgreSQL and with the proxy, message by message.
//!
//! Each file of `tests/pgtest` is played on plain PostgreSQL first. Its answers are compared with the
//! golden in the file (`UPDATE_GOLDEN=1` writes it; goldens hold for the version in
//! `tests/pgtest/VERSION`), and then with the answers through the proxy: with one shard and with
//! four, in each pool mode, with the client's bytes whole, one at a time and in random pieces.
//! `PT=name` plays one file only.

mod play;
mod script;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use self::play::{Chop, Replies, play};
use self::script::{Action, Script};
use crate::client::Client;
use crate::herd::{Herd, Options};
use crate::random::Random;
use crate::shared::Databases;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pgtest")
}

fn scripts() -> Vec<Script> {
    let wanted = std::env::var("PT").ok();
    let mut scripts: Vec<Script> = fs::read_dir(folder())
        .expect("tests/pgtest")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pt"))
        .map(|path| {
            let name = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .expect("a name")
                .to_owned();
            Script::parse(&name, &fs::read_to_string(&path).expect("text"))
        })
        .filter(|script| wanted.as_ref().is_none_or(|wanted| *wanted == script.name))
        .collect();
    scripts.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!scripts.is_empty(), "no transcript");
    scripts
}

fn create_tables(scripts: &[Script], databases: &Databases) {
    for script in scripts {
        databases.run_everywhere(&script.tables.join(";\n"));
    }
}

fn reset(script: &Script, databases: &Databases) {
    if !script.resets.is_empty() {
        databases.run_everywhere(&script.resets.join(";\n"));
    }
}

#[test]
fn transcripts_on_postgres_match_their_goldens() {
    let scripts = scripts();
    let databases = Databases::create(0);
    create_tables(&scripts, &databases);
    let version = databases.reference().value("SHOW server_version_num");
    let major = &version[..2];
    let goldens = fs::read_to_string(folder().join("VERSION")).unwrap_or_default();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut faults = String::new();
    for script in &scripts {
        reset(script, &databases);
        let replies = play(
            script,
            databases.reference_port,
            &databases.name,
            Chop::Whole,
        );
        for (step, lines) in script.steps.iter().zip(&replies) {
            if lines.iter().any(|line| line == "(nothing comes)") {
                let wanted = vec![format!("{:?}", step.action)];
                difference(&mut faults, script, step.line, &wanted, lines);
            }
        }
        if update {
            write_golden(script, &replies);
        } else if goldens.trim() == major {
            for (step, lines) in script.steps.iter().zip(&replies) {
                if step.expected != *lines {
                    difference(&mut faults, script, step.line, &step.expected, lines);
                }
            }
        }
    }
    if update {
        fs::write(folder().join("VERSION"), format!("{major}\n")).expect("written");
    }
    assert!(faults.is_empty(), "{faults}");
}

fn write_golden(script: &Script, replies: &Replies) {
    let path = folder().join(format!("{}.pt", script.name));
    let old = fs::read_to_string(&path).expect("text");
    let mut new = String::new();
    for (index, line) in old.lines().enumerate() {
        if line.starts_with("< ") {
            continue;
        }
        writeln!(new, "{line}").expect("to a string");
        let step = script.steps.iter().position(|step| step.line == index + 1);
        for reply in step.into_iter().flat_map(|step| &replies[step]) {
            writeln!(new, "< {reply}").expect("to a string");
        }
    }
    fs::write(&path, new).expect("written");
}

fn difference(
    faults: &mut String,
    script: &Script,
    line: usize,
    expected: &[String],
    found: &[String],
) {
    writeln!(faults, "{}.pt:{line}: expected", script.name).expect("to a string");
    let same = expected
        .iter()
        .zip(found)
        .take_while(|(a, b)| a == b)
        .count();
    for text in expected {
        writeln!(faults, "    {text}").expect("to a string");
    }
    writeln!(faults, "  found, {same} equal lines left out").expect("to a string");
    for text in &found[same..] {
        writeln!(faults, "    {text}").expect("to a string");
    }
}

/// Plays every transcript of a pool mode on PostgreSQL and through a proxy over `shards` shards.
fn compare(shards: usize, mode: &str) {
    let mut scripts = scripts();
    scripts.retain(|script| shards == 1 || script.twins == 0);
    compare_all(scripts, shards, mode, 0);
}

/// The same of those that several shards answer by twins.
fn compare_with_twins(shards: usize, mode: &str) {
    let mut scripts = scripts();
    scripts.retain(|script| script.twins > 0);
    let most = scripts.iter().map(|script| script.twins).max();
    compare_all(scripts, shards, mode, most.unwrap_or(0));
}

fn compare_all(mut scripts: Vec<Script>, shards: usize, mode: &str, twins: usize) {
    scripts.retain(|script| script.modes.iter().any(|allowed| allowed == mode));
    scripts.retain(|script| shards == 1 || !script.one_shard_only);
    if scripts.is_empty() {
        return;
    }
    let databases = Databases::create(shards);
    create_tables(&scripts, &databases);
    let mut options = Options::new(mode);
    for (table, column, kind) in scripts.iter().flat_map(|script| &script.sharded) {
        options.sharded(table, column, kind, "{jump: all}");
    }
    if twins > 0 {
        options.twins(twins);
    }
    let herd = Herd::start(&databases, &options);
    let random = Random::from_environment();
    let mut faults = String::new();
    for script in &scripts {
        reset(script, &databases);
        let expected = play(
            script,
            databases.reference_port,
            &databases.name,
            Chop::Whole,
        );
        for chop in [Chop::Whole, Chop::Bytes, Chop::Random(random.clone())] {
            let how = format!("{shards} shards, {mode}, {chop:?}");
            reset(script, &databases);
            let found = play(script, herd.port, &databases.name, chop);
            compare_replies(&mut faults, script, &how, &expected, &found);
        }
    }
    check_no_left_over(&herd, &databases);
    assert!(faults.is_empty(), "{faults}");
}

fn compare_replies(
    faults: &mut String,
    script: &Script,
    how: &str,
    expected: &Replies,
    found: &Replies,
) {
    let (expected, found) = (essential(expected), essential(found));
    if expected == found {
        return;
    }
    writeln!(faults, "\n== {}: {how}", script.name).expect("to a string");
    let last = script.steps.last().map_or(0, |step| step.line + 1);
    let lines = script.steps.iter().map(|step| step.line).chain([last]);
    for ((line, expected), found) in lines.zip(&expected).zip(&found) {
        if expected != found {
            difference(faults, script, line, expected, found);
        }
    }
}

/// What must be equal: of a protocol violation the SQLSTATE, because the proxy finds it first and in its
/// own words; of an error that names a prepared statement all but the name, because servers know it
/// by another; and no CONTEXT of a parameter that the proxy refused itself.
fn essential(replies: &Replies) -> Replies {
    let line = |line: &String| {
        if !line.starts_with("ErrorResponse ") {
            return line.clone();
        }
        if let Some((start, _)) = line.split_once(" C=\"08P01\"") {
            return format!("{start} C=\"08P01\"");
        }
        let line = line
            .split(" W=\"unnamed portal parameter")
            .next()
            .unwrap_or_default();
        match line.split_once("prepared statement \\\"") {
            Some((start, rest)) => {
                let after = rest.split_once("\\\"").map_or("", |(_, after)| after);
                format!("{start}prepared statement{after}")
            }
            None => line.to_owned(),
        }
    };
    replies
        .iter()
        .map(|lines| lines.iter().map(line).collect())
        .collect()
}

/// After all conversations a new client finds a session that nobody has touched.
fn check_no_left_over(herd: &Herd, databases: &Databases) {
    let plain = crate::leaks::fingerprint(&mut databases.reference());
    for _ in 0..10 {
        let mut client = Client::connect(herd.port, "app", &databases.name);
        assert_eq!(
            crate::leaks::fingerprint(&mut client),
            plain,
            "the session of a new client"
        );
    }
}

#[test]
fn transcripts_through_one_shard_in_transaction_mode() {
    compare(1, "transaction");
}

#[test]
fn transcripts_through_one_shard_in_session_mode() {
    compare(1, "session");
}

#[test]
fn transcripts_through_one_shard_in_statement_mode() {
    compare(1, "statement");
}

#[test]
fn transcripts_through_four_shards_in_transaction_mode() {
    compare(4, "transaction");
}

#[test]
fn transcripts_through_four_shards_in_session_mode() {
    compare(4, "session");
}

#[test]
fn transcripts_through_four_shards_in_statement_mode() {
    compare(4, "statement");
}

#[test]
fn transcripts_through_twins_in_transaction_mode() {
    compare_with_twins(4, "transaction");
}

#[test]
fn transcripts_through_twins_in_session_mode() {
    compare_with_twins(3, "session");
}

#[test]
fn every_step_of_a_transcript_reads_what_it_sends() {
    for script in scripts() {
        let reads = script
            .steps
            .iter()
            .any(|step| matches!(step.action, Action::Until(..)));
        assert!(reads, "{}: reads nothing", script.name);
    }
}
