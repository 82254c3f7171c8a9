//! One schema, its rows, and its cases, played through the proxy and on the reference server.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::compare::{Stores, difference};
use super::refusals::{self, Reasons};
use super::rows;
use super::run::{Failure, Reply, run};
use super::schema::Schema;
use super::shrink;
use super::statement::{Case, case};
use super::value::Value;
use super::writer::{Form, Step};
use crate::client::Client;
use crate::herd::Herd;
use crate::random::Random;
use crate::shared::Databases;

/// How many mistakes end a round: one, unless `MISTAKES` says otherwise.
fn mistakes_max() -> usize {
    super::number("MISTAKES").unwrap_or(1)
}

/// What has become of cases, by kind.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answered, failed alike, refused.
    kinds: BTreeMap<&'static str, [usize; 3]>,
    reasons: Reasons,
    /// How often each reason was given.
    often: BTreeMap<String, usize>,
    mistakes: Vec<String>,
}

impl Tally {
    pub(super) fn print(&self) {
        let mut all = [0; 3];
        println!("{:36} answered  failed refused", "kind");
        for (kind, counts) in &self.kinds {
            let [answered, failed, refused] = counts;
            println!("{kind:36} {answered:8} {failed:7} {refused:7}");
            for (sum, count) in all.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        println!("{:36} {:8} {:7} {:7}", "all", all[0], all[1], all[2]);
        for (reason, often) in &self.often {
            println!("{often:5} × {reason}\n        {}", self.reasons[reason]);
        }
    }

    pub(super) fn check(&self) {
        assert!(
            self.mistakes.is_empty(),
            "{} wrong:\n{}",
            self.mistakes.len(),
            self.mistakes.join("\n==========\n")
        );
        let new = refusals::new_ones(&self.reasons);
        assert!(
            new.is_empty(),
            "refusals that tests/golden/refusals.txt does not list (UPDATE_GOLDEN=1 adds them):\n{}",
            new.join("\n")
        );
        let sum = |at: usize| self.kinds.values().map(|counts| counts[at]).sum::<usize>();
        let all = sum(0) + sum(1) + sum(2);
        let few = all >= 200 && std::env::var_os("KIND").is_none();
        assert!(
            !few || sum(0) * 2 >= all,
            "only {} of {all} cases are answered",
            sum(0)
        );
    }
}

/// What came of one case.
enum Outcome {
    Answered,
    Failed,
    Refused(Failure, String),
    Wrong(String),
}

/// Everything that a case is played on.
struct Stage {
    schema: Schema,
    start: Vec<Vec<Vec<Value>>>,
    // Dropped in this order: clients, the proxy, the databases.
    client: Client,
    reference: Client,
    stores: Stores,
    herd: Herd,
    databases: Databases,
}

pub(super) fn play(seed: u64, shards: usize, count: usize, tally: &mut Tally) {
    let mixed = seed.rotate_left(8) ^ u64::try_from(shards).expect("few");
    let random = &mut Random::new(mixed);
    let mut stage = Stage::open(random, shards);
    let mut played = Vec::new();
    let mut mistakes = 0;
    for number in 0..count {
        let case = case(random, &stage.schema);
        if std::env::var_os("TRACE").is_some() {
            println!("case {number}, {}", case.kind);
            case.steps
                .iter()
                .for_each(|step| println!("{}", show(step)));
        }
        let outcome = stage.play(&case);
        let counts = tally.kinds.entry(case.kind).or_default();
        played.push(case);
        match outcome {
            Outcome::Answered => counts[0] += 1,
            Outcome::Failed => counts[1] += 1,
            Outcome::Refused(failure, sql) => {
                counts[2] += 1;
                let reason = refusals::reason(&failure);
                *tally.often.entry(reason.clone()).or_default() += 1;
                tally.reasons.entry(reason).or_insert(sql);
            }
            Outcome::Wrong(why) => {
                let report = stage.report(&why, &played);
                tally
                    .mistakes
                    .push(format!("SEED={seed}, case {number}: {report}"));
                mistakes += 1;
                if mistakes == mistakes_max() {
                    return;
                }
                stage.restart();
                played.clear();
            }
        }
    }
    if let Some(why) = stage.stores.check(&stage.schema) {
        tally.mistakes.push(format!(
            "SEED={seed}, at the end: {why}\n{}",
            stage.schema.show()
        ));
    }
}

impl Stage {
    fn open(random: &mut Random, shards: usize) -> Stage {
        let schema = Schema::random(random, shards);
        let start = rows::all(random, &schema);
        let databases = Databases::create(shards);
        databases.run_everywhere(&schema.ddl());
        let herd = Herd::start(&databases, &schema.options());
        let (client, reference) = (herd.connect(), databases.reference());
        let mut stage = Stage {
            stores: Stores::connect(&databases),
            schema,
            start,
            databases,
            herd,
            client,
            reference,
        };
        stage.restart();
        stage
    }

    /// The rows of the beginning, on fresh connections.
    fn restart(&mut self) {
        self.client = self.herd.connect();
        self.reference = self.databases.reference();
        self.stores.empty(&self.schema);
        rows::load(&self.schema, &self.start, &mut self.client);
        rows::load(&self.schema, &self.start, &mut self.reference);
        let wrong = self.stores.check(&self.schema);
        assert_eq!(wrong, None, "loaded rows differ:\n{}", self.schema.show());
    }

    fn play(&mut self, case: &Case) -> Outcome {
        let mut outcome = Outcome::Answered;
        for (at, step) in case.steps.iter().enumerate() {
            let found = run(&mut self.client, step);
            if let Some(refusal) = found.refusal() {
                outcome = Outcome::Refused(refusal.clone(), step.sql.clone());
                // It has not been carried out; a block that it was in has failed.
                let instead = run(&mut self.reference, &Step::simple("SELECT 1/0"));
                if instead.status != found.status {
                    return Outcome::Wrong(wrong(
                        at,
                        step,
                        "the state after a refusal",
                        &found,
                        &instead,
                    ));
                }
                continue;
            }
            let wanted = run(&mut self.reference, step);
            if let Some(what) = difference(&found, &wanted, step.ordered) {
                return Outcome::Wrong(wrong(at, step, &what, &found, &wanted));
            }
            if found.failure.is_some() && matches!(outcome, Outcome::Answered) {
                outcome = Outcome::Failed;
            }
        }
        for client in [&mut self.client, &mut self.reference] {
            if client.status != 'I' {
                run(client, &Step::simple("ROLLBACK"));
            }
        }
        if case.steps.iter().any(|step| writes(&step.sql))
            && let Some(why) = self.stores.sums_differ(&self.schema)
        {
            return Outcome::Wrong(format!("the rows after it differ: {why}"));
        }
        outcome
    }

    /// All that one needs to see what went wrong.
    fn report(&mut self, why: &str, played: &[Case]) -> String {
        let mut fails = |cases: &[Case]| {
            self.restart();
            let (last, before) = cases.split_last().expect("one at least");
            for case in before {
                if matches!(self.play(case), Outcome::Wrong(_)) {
                    return false;
                }
            }
            matches!(self.play(last), Outcome::Wrong(_))
        };
        let needed = shrink::before(played, &mut fails);
        let mut text = format!("{why}\n{}", self.schema.show());
        match &needed {
            None => text += "it does not happen again from the start; the case was:\n",
            Some(cases) => {
                writeln!(text, "it happens with these {} cases:", cases.len()).expect("it grows");
            }
        }
        let last = played.last().map(std::slice::from_ref).unwrap_or_default();
        self.restart();
        for step in needed
            .as_deref()
            .unwrap_or(last)
            .iter()
            .flat_map(|case| &case.steps)
        {
            writeln!(text, "{}\n    {}", show(step), self.route(step)).expect("it grows");
        }
        text
    }

    /// `EXPLAIN (ROUTE)` of a statement, with its values.
    fn route(&mut self, step: &Step) -> String {
        let form = match &step.form {
            Form::CopyIn(_) => Form::Simple,
            form @ (Form::Simple | Form::Extended { .. }) => form.clone(),
        };
        let explain = Step {
            sql: format!("EXPLAIN (ROUTE) {}", step.sql),
            form,
            ordered: true,
        };
        let reply = run(&mut self.herd.connect(), &explain);
        let rows = reply
            .parts
            .iter()
            .flat_map(|part| &part.rows)
            .flatten()
            .flatten();
        let rows: Vec<String> = rows
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        if rows.is_empty() {
            "no route".to_owned()
        } else {
            rows.join(" / ")
        }
    }
}

fn writes(sql: &str) -> bool {
    let sql = sql.to_uppercase();
    ["INSERT", "UPDATE", "DELETE", "MERGE", "COPY"]
        .iter()
        .any(|word| sql.contains(word))
}

fn wrong(at: usize, step: &Step, what: &str, found: &Reply, wanted: &Reply) -> String {
    format!(
        "{what} (step {at})\n{}\nthrough pgherd: {}\nby PostgreSQL:  {}",
        show(step),
        show_reply(found),
        show_reply(wanted)
    )
}

pub(crate) fn show(step: &Step) -> String {
    match &step.form {
        Form::Simple => step.sql.clone(),
        Form::CopyIn(data) => format!("{}\n    {:?}", step.sql, String::from_utf8_lossy(data)),
        Form::Extended {
            parameters,
            binary_results,
            named,
        } => {
            let values: Vec<String> = parameters
                .iter()
                .map(|it| {
                    let value = it.bytes.as_deref().map(|bytes| {
                        if it.binary {
                            format!("{bytes:02x?}")
                        } else {
                            String::from_utf8_lossy(bytes).into_owned()
                        }
                    });
                    format!(
                        "{value:?} of {}{}",
                        it.oid,
                        if it.binary { " binary" } else { "" }
                    )
                })
                .collect();
            format!(
                "{}\n    with {values:?}, binary results {binary_results}, named {named}",
                step.sql
            )
        }
    }
}

pub(crate) fn show_reply(reply: &Reply) -> String {
    let mut text = String::new();
    for part in &reply.parts {
        writeln!(text, "{:?} {:?}", part.tag, part.columns).expect("it grows");
        for row in part.rows.iter().take(12) {
            let values: Vec<String> = row
                .iter()
                .map(|value| {
                    value.as_deref().map_or("NULL".to_owned(), |it| {
                        String::from_utf8_lossy(it).into_owned()
                    })
                })
                .collect();
            writeln!(text, "    {}", values.join(" | ")).expect("it grows");
        }
        if part.rows.len() > 12 {
            writeln!(text, "    … {} rows", part.rows.len()).expect("it grows");
        }
        for data in part.copied(true).iter().take(12) {
            writeln!(text, "    {:?}", String::from_utf8_lossy(data)).expect("it grows");
        }
    }
    if let Some(failure) = &reply.failure {
        let whose = if failure.own {
            "pgherd's own"
        } else {
            "a server's"
        };
        let Failure {
            code,
            message,
            detail,
            hint,
            ..
        } = failure;
        write!(text, "{code} {message} {detail} {hint} ({whose})").expect("it grows");
    }
    write!(text, " [{}] {:?}", reply.status, reply.parameters).expect("it grows");
    text
}
