//! Every fuzz target with its seeds and with mutations of them: what `make fuzz` does for long, without libFuzzer.
//!
//! `CASES` is how many mutations each target gets; a failure prints the input that repeats it, to be
//! kept in `fuzz/seeds`.

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
#[expect(
    unreachable_pub,
    clippy::type_complexity,
    clippy::unnecessary_wraps,
    clippy::struct_excessive_bools,
    clippy::needless_pass_by_value,
    clippy::match_wild_err_arm,
    clippy::match_same_arms,
    reason = "a crate of its own, whose way to report a finding is to panic"
)]
mod targets;

#[path = "it/random.rs"]
#[expect(dead_code, reason = "shared with the tests against servers")]
mod random;

use random::Random;
use targets::{TARGETS, Target};

#[test]
fn every_target_has_seeds() {
    for (name, _) in TARGETS {
        assert!(!seeds(name).is_empty(), "{name}");
    }
}

#[test]
fn copy_holds() {
    check("copy", 20_000);
}

#[test]
fn frame_holds() {
    check("frame", 20_000);
}

#[test]
fn placement_holds() {
    check("placement", 20_000);
}

#[test]
fn scram_holds() {
    check("scram", 5_000);
}

#[test]
fn session_holds() {
    check("session", 400);
}

#[test]
fn startup_holds() {
    check("startup", 20_000);
}

#[test]
fn statement_holds() {
    check("statement", 4_000);
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("it can be read"))
        .collect()
}

/// Runs a target on its seeds and on `cases` mutations: the same ones each time, unless `SEED` is set.
fn check(name: &str, cases: usize) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(known, _)| *known == name)
        .expect("it is listed");
    let given = |key: &str| {
        let value = std::env::var(key).ok()?;
        Some(
            value
                .parse()
                .unwrap_or_else(|_| panic!("{key} is no number")),
        )
    };
    let mut random = Random::new(given("SEED").unwrap_or(1));
    let cases = given("CASES").map_or(cases, |cases| usize::try_from(cases).expect("fits"));
    let seeds = seeds(name);
    for seed in &seeds {
        run(name, target, seed, &random);
    }
    for _ in 0..cases {
        let input = mutated(&seeds, &mut random);
        run(name, target, &input, &random);
    }
}

/// Says which input it was when the target panics.
struct Running<'a> {
    name: &'a str,
    input: &'a [u8],
    seed: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Running { name, input, seed } = self;
            eprintln!("SEED={seed}: {name} fails on b\"{}\"", input.escape_ascii());
        }
    }
}

fn run(name: &str, target: Target, input: &[u8], random: &Random) {
    let running = Running {
        name,
        input,
        seed: random.seed,
    };
    target(running.input);
}

/// A seed with some of its bytes changed, left out, repeated, or taken from another seed.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = random.choose(seeds).clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = (at + random.below(12)).min(input.len());
        match random.below(6) {
            0 if at < input.len() => input[at] ^= 1 << random.below(8),
            1 if at < input.len() => {
                let bytes = random.bytes(1);
                input[at] = *random.choose(&[0, 0xff, b'\'', b'"', b'\\', bytes[0]]);
            }
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            4 => {
                let other = random.choose(seeds);
                let from = random.below(other.len() + 1);
                let to = (from + random.below(24)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let count = random.below(3);
                let bytes = random.bytes(count);
                input.splice(at..at, bytes);
            }
        }
    }
    input
}
