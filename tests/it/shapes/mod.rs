//! What analytical queries look like, each over one, two, three, four and seven shards: the answer is that
//! of one PostgreSQL holding all rows.

mod list;

use crate::client::Client;
use crate::corpus::{Outcome, Stage, difference};
use crate::generated::{Form, Parameter, Reply, Step, run, show, show_reply};
use list::{READS, REFUSED, Shape, Value, WRITES};

impl Value {
    fn oid(self) -> u32 {
        match self {
            Value::Int2(_) => 21,
            Value::Int4(_) => 23,
            Value::Int8(_) => 20,
            Value::Text(_) => 25,
            Value::Untyped(_) => 0,
            Value::Null(oid) => oid,
            Value::Ints(_) => 1007,
        }
    }

    fn text(self) -> Option<Vec<u8>> {
        let text = match self {
            Value::Int2(value) => value.to_string(),
            Value::Int4(value) => value.to_string(),
            Value::Int8(value) => value.to_string(),
            Value::Text(text) | Value::Untyped(text) => text.to_owned(),
            Value::Null(_) => return None,
            Value::Ints(values) => {
                let values: Vec<String> = values.iter().map(i32::to_string).collect();
                format!("{{{}}}", values.join(","))
            }
        };
        Some(text.into_bytes())
    }

    fn binary(self) -> Option<Vec<u8>> {
        match self {
            Value::Int2(value) => Some(value.to_be_bytes().to_vec()),
            Value::Int4(value) => Some(value.to_be_bytes().to_vec()),
            Value::Int8(value) => Some(value.to_be_bytes().to_vec()),
            Value::Text(text) | Value::Untyped(text) => Some(text.as_bytes().to_vec()),
            Value::Null(_) => None,
            Value::Ints(values) => {
                let count = i32::try_from(values.len()).expect("few");
                // One dimension without NULLs, of int4, from 1 on.
                let mut bytes = [1, 0, 23, count, 1].map(i32::to_be_bytes).concat();
                for value in values {
                    bytes.extend([4, *value].map(i32::to_be_bytes).concat());
                }
                Some(bytes)
            }
        }
    }

    fn parameters(self) -> Vec<Parameter> {
        let parameter = |binary, bytes| Parameter {
            oid: self.oid(),
            binary,
            bytes,
        };
        let text = parameter(false, self.text());
        match self {
            // What has no type has no binary form.
            Value::Untyped(_) => vec![text],
            Value::Int2(_)
            | Value::Int4(_)
            | Value::Int8(_)
            | Value::Text(_)
            | Value::Null(_)
            | Value::Ints(_) => vec![text, parameter(true, self.binary())],
        }
    }
}

/// Every way in which a shape is sent.
fn steps(shape: &Shape) -> Vec<Step> {
    let step = |form| Step {
        sql: shape.sql.to_owned(),
        form,
        ordered: shape.ordered,
    };
    let extended = |parameters: &[Parameter], binary_results, named| {
        step(Form::Extended {
            parameters: parameters.to_vec(),
            binary_results,
            named,
        })
    };
    if shape.values.is_empty() {
        return vec![
            step(Form::Simple),
            extended(&[], false, true),
            extended(&[], true, false),
        ];
    }
    let parameters = shape.values.iter().flat_map(|value| value.parameters());
    parameters
        .flat_map(|one| {
            let one = [one];
            [extended(&one, false, true), extended(&one, true, false)]
        })
        .collect()
}

/// What is wrong with a shape, if anything is.
fn fault(stage: &mut Stage, step: &Step) -> Option<String> {
    match stage.play(step) {
        Outcome::Answered | Outcome::Failed(_) => None,
        Outcome::Loose => Some(format!(
            "PostgreSQL itself may answer otherwise\n{}",
            show(step)
        )),
        Outcome::Refused(reply) => Some(format!(
            "refused\n{}\nthrough pgherd: {}",
            show(step),
            show_reply(&reply)
        )),
        Outcome::Wrong(why) => Some(why),
    }
}

fn within_a_block(stage: &mut Stage, step: &Step) -> Option<String> {
    let around = |stage: &mut Stage, sql| fault(stage, &Step::simple(sql));
    around(stage, "BEGIN")
        .or_else(|| fault(stage, step))
        .or_else(|| around(stage, "ROLLBACK"))
}

fn check(shards: usize, faults: &[String]) {
    let count = faults.len();
    let text = faults.join("\n==========\n");
    assert!(
        faults.is_empty(),
        "{count} wrong over {shards} shards:\n{text}"
    );
}

/// Every shape that reads, in every form.
fn read_over(shards: usize) {
    let mut stage = Stage::open(shards);
    let mut faults = Vec::new();
    for shape in READS {
        for step in steps(shape) {
            let mut found = fault(&mut stage, &step);
            if found.is_none() {
                found = within_a_block(&mut stage, &step).map(|why| format!("in a block: {why}"));
            }
            if let Some(why) = found {
                faults.push(format!("shape {}: {why}", shape.name));
                stage.reconnect();
            }
        }
    }
    check(shards, &faults);
}

#[test]
fn shapes_are_read_from_one_shard() {
    read_over(1);
}

#[test]
fn shapes_are_read_from_two_shards() {
    read_over(2);
}

#[test]
fn shapes_are_read_from_three_shards() {
    read_over(3);
}

#[test]
fn shapes_are_read_from_four_shards() {
    read_over(4);
}

#[test]
fn shapes_are_read_from_seven_shards() {
    read_over(7);
}

/// More clients than twins: each answer is its own statement's.
#[test]
fn shapes_are_read_by_many_at_once() {
    let mut stage = Stage::open(3);
    let steps: Vec<Step> = READS.iter().map(|shape| steps(shape).remove(0)).collect();
    let wanted: Vec<Reply> = steps
        .iter()
        .map(|step| run(&mut stage.reference, step))
        .collect();
    let clients: Vec<Client> = (0..6).map(|_| stage.connect()).collect();
    std::thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            let (steps, wanted) = (&steps, &wanted);
            scope.spawn(move || {
                for at in (0..steps.len()).map(|at| (at * 11 + number * 13) % steps.len()) {
                    let found = run(&mut client, &steps[at]);
                    let what = difference(&found, &wanted[at], steps[at].ordered);
                    assert_eq!(what, None, "{}\n{}", show(&steps[at]), show_reply(&found));
                }
            });
        }
    });
}

#[test]
fn shapes_that_write_leave_the_rows_of_one_postgres() {
    for shards in [1, 2, 4, 7] {
        let mut stage = Stage::open(shards);
        let mut faults = Vec::new();
        for shape in WRITES {
            let step = &steps(shape)[0];
            if let Some(why) = fault(&mut stage, step) {
                faults.push(format!("shape {}: {why}", shape.name));
            }
        }
        check(shards, &faults);
    }
}

#[test]
fn shapes_that_are_not_served_are_refused_and_change_nothing() {
    let mut stage = Stage::open(4);
    for shape in REFUSED {
        let reply = run(&mut stage.client, &Step::simple(shape.sql));
        assert!(
            reply.refusal().is_some(),
            "{}: {}",
            shape.name,
            show_reply(&reply)
        );
    }
    let mut faults = Vec::new();
    for sql in ["SELECT * FROM orders", "SELECT * FROM archive"] {
        let step = Step {
            ordered: false,
            ..Step::simple(sql)
        };
        faults.extend(fault(&mut stage, &step));
    }
    check(4, &faults);
}

#[test]
fn a_block_goes_back_to_its_savepoint() {
    let statements = [
        "BEGIN",
        "UPDATE customers SET tier=9 WHERE c_id=1",
        "SAVEPOINT s",
        "UPDATE customers SET tier=tier/0 WHERE c_id=2",
        "ROLLBACK TO s",
        "COMMIT",
        "SELECT c_id,tier FROM customers ORDER BY c_id",
    ];
    // Both customers lie on one of two shards.
    for shards in [1, 2] {
        let mut stage = Stage::open(shards);
        let play = |sql: &&str| fault(&mut stage, &Step::simple(sql));
        let faults: Vec<String> = statements.iter().filter_map(play).collect();
        check(shards, &faults);
    }
}
