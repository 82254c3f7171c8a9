//! Generated reads that cross shards: every answer is the one of one PostgreSQL.
//!
//! Join trees, subqueries, WITH, set operations, groups, windows and parameters over the corpus' tables and
//! views. Each is run on two plain servers first, which hold the same rows in different orders: one that they
//! answer differently says nothing of a third.
//!
//! `SEED=n` repeats a run, `CASES=n` says how many cases all tests have together, `SHARDS=n,…` which of the
//! tests run, `MISTAKES=n` how many mistakes end one, `TRACE=1` prints the statements.

mod expression;
mod query;
mod source;
mod writer;

use std::collections::BTreeMap;
use std::env::var;

use crate::corpus::{Outcome, Stage};
use crate::generated::{reason, show};
use crate::random::Random;
use query::statement;

fn number(name: &str) -> Option<usize> {
    Some(var(name).ok()?.parse().expect("a number"))
}

/// Runs its share of the cases over this many shards.
fn over(shards: usize) {
    if let Ok(chosen) = var("SHARDS")
        && !chosen
            .split(',')
            .any(|one| one.trim() == shards.to_string())
    {
        return;
    }
    let seed = Random::from_environment().seed;
    let mixed = seed.rotate_left(8) ^ u64::try_from(shards).expect("few");
    let mut random = Random::new(mixed);
    let count = number("CASES").unwrap_or(360).div_ceil(3);
    println!("SEED={seed} SHARDS={shards} CASES={}", 3 * count);
    let mut stage = Stage::open(shards);
    stage.limit_time();
    let (mut answered, mut failed, mut loose) = (0, 0, 0);
    let mut refused: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut errors: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in 0..count {
        let step = statement(&mut random);
        if var("TRACE").is_ok() {
            println!("case {case}: {}", show(&step));
        }
        let in_block = random.chance(15);
        if in_block {
            stage.everywhere("BEGIN");
        }
        let outcome = stage.play(&step);
        if in_block {
            stage.everywhere("ROLLBACK");
        }
        match outcome {
            Outcome::Answered => answered += 1,
            Outcome::Failed(code) => {
                failed += 1;
                *errors.entry(code).or_default() += 1;
            }
            Outcome::Loose => loose += 1,
            Outcome::Refused(reply) => {
                let failure = reply.refusal().expect("it is one");
                let why = format!("{} {}", reason(failure), failure.detail);
                let one = refused.entry(why).or_insert_with(|| (0, show(&step)));
                one.0 += 1;
            }
            Outcome::Wrong(why) => {
                wrong.push(format!("SEED={seed}, case {case}: {why}"));
                if wrong.len() >= number("MISTAKES").unwrap_or(1) {
                    break;
                }
                stage.reconnect();
            }
        }
    }
    println!("{answered} answered, {failed} failed alike {errors:?}, {loose} not comparable");
    for (why, (often, sql)) in &refused {
        println!("{often:5} × {why}\n        {sql}");
    }
    let text = wrong.join("\n==========\n");
    assert!(wrong.is_empty(), "{} wrong:\n{text}", wrong.len());
    assert!(
        refused.is_empty(),
        "SEED={seed}: some are refused: {refused:#?}"
    );
    assert!(
        answered * 2 >= count,
        "only {answered} of {count} are answered"
    );
}

#[test]
fn generated_reads_of_two_shards_answer_as_one_postgres() {
    over(2);
}

#[test]
fn generated_reads_of_three_shards_answer_as_one_postgres() {
    over(3);
}

#[test]
fn generated_reads_of_four_shards_answer_as_one_postgres() {
    over(4);
}
