//! Generated statements over random schemas: every answer is the one of one PostgreSQL, or a refusal.
//!
//! One run takes a schema over one to four shards, loads rows through the proxy, and sends each case to
//! the proxy first and then to the reference server, unless it was refused. After every case sums over
//! the rows of all servers are compared, at the end the rows themselves and where they lie.
//!
//! `SEED=n` repeats a run, `CASES=n` says how many cases all four tests have together, `SHARDS=n,…` which
//! of the tests run, `KIND=text` which kinds of statements, `MISTAKES=n` how many mistakes end a round,
//! `TRACE=1` prints the statements.

mod compare;
mod expression;
mod join;
mod predicate;
mod query;
mod refusals;
mod round;
mod rows;
mod run;
mod schema;
mod select;
mod session;
mod shrink;
mod statement;
mod value;
mod write;
mod writer;

pub(crate) use refusals::reason;
pub(crate) use round::{show, show_reply};
pub(crate) use run::{Part, Reply, run};
pub(crate) use writer::{Form, Parameter, Step};

use crate::random::Random;

/// Cases of one schema.
const ROUND: usize = 300;

fn number(name: &str) -> Option<usize> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number"))
}

/// Runs rounds over this many shards.
fn over(shards: usize) {
    if let Ok(chosen) = std::env::var("SHARDS")
        && !chosen
            .split(',')
            .any(|one| one.trim() == shards.to_string())
    {
        return;
    }
    let mut left = number("CASES").unwrap_or(2400).div_ceil(4);
    let mut random = Random::from_environment();
    let mut tally = round::Tally::default();
    while left > 0 {
        let count = left.min(ROUND);
        // A round is repeated by its own seed, alone.
        let seed = random.seed;
        println!("SEED={seed} SHARDS={shards} CASES={}", 4 * count);
        round::play(seed, shards, count, &mut tally);
        left -= count;
        random = Random::new(random.next() >> 1);
    }
    tally.print();
    tally.check();
}

#[test]
fn one_shard_answers_generated_statements_as_one_postgres() {
    over(1);
}

#[test]
fn two_shards_answer_generated_statements_as_one_postgres() {
    over(2);
}

#[test]
fn three_shards_answer_generated_statements_as_one_postgres() {
    over(3);
}

#[test]
fn four_shards_answer_generated_statements_as_one_postgres() {
    over(4);
}
