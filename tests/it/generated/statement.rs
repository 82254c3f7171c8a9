//! Every kind of statement with its generator and how often it is drawn.

use super::schema::Schema;
use super::writer::{Step, Writer};
use super::{join, query, select, session, write};
use crate::random::Random;

/// One generator.
pub(super) struct Kind {
    pub(super) name: &'static str,
    weight: usize,
    write: fn(&mut Writer<'_>) -> Vec<Step>,
}

/// One thing that a client does, from idle to idle.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) kind: &'static str,
    pub(super) steps: Vec<Step>,
}

const fn kind(name: &'static str, weight: usize, write: fn(&mut Writer<'_>) -> Vec<Step>) -> Kind {
    Kind {
        name,
        weight,
        write,
    }
}

pub(super) const KINDS: [Kind; 29] = [
    kind("select", 12, select::columns),
    kind("select, aggregates", 6, select::aggregates),
    kind("select, GROUP BY", 5, select::groups),
    kind("select, windows", 3, select::windows),
    kind("select, ORDER BY, LIMIT, DISTINCT", 6, select::ordered),
    kind("select, FOR UPDATE", 3, select::locks),
    kind("VALUES, TABLE", 3, select::values),
    kind("errors", 3, select::errors),
    kind("join ON", 7, join::on_clause),
    kind("join USING, NATURAL, CROSS", 4, join::merged),
    kind("join of three", 3, join::three),
    kind("join LATERAL", 3, join::lateral),
    kind("subqueries", 7, query::subqueries),
    kind("subqueries in FROM", 3, query::derived),
    kind("WITH", 5, query::with),
    kind("UNION, INTERSECT, EXCEPT", 4, query::sets),
    kind("INSERT of one row", 6, write::insert_one),
    kind("INSERT of many rows", 6, write::insert_many),
    kind("INSERT SELECT", 3, write::insert_select),
    kind("UPDATE", 6, write::update),
    kind("UPDATE of the key", 2, write::update_key),
    kind("DELETE", 4, write::delete),
    kind("UPDATE FROM, DELETE USING", 4, write::write_from),
    kind("WITH that writes", 3, write::with_write),
    kind("MERGE", 1, write::merge),
    kind("COPY TO", 3, session::copy_out),
    kind("COPY FROM", 3, session::copy_in),
    kind("blocks", 4, session::block),
    kind("blocks of one key", 3, session::block_of_key),
];

/// Those that need a session of their own kind.
pub(super) const MORE: [Kind; 3] = [
    kind("cursors", 3, session::cursor),
    kind("PREPARE", 1, session::prepare),
    kind("several in one text", 3, session::joined),
];

/// Draws a kind and writes a case of it. `KIND=…` in the environment keeps to kinds with this in their name.
pub(super) fn case(random: &mut Random, schema: &Schema) -> Case {
    let only = std::env::var("KIND").unwrap_or_default();
    let all = || {
        KINDS
            .iter()
            .chain(&MORE)
            .filter(|kind| kind.name.contains(&only))
    };
    let mut number = random.below(all().map(|kind| kind.weight).sum());
    let kind = all()
        .find(|kind| {
            let found = number < kind.weight;
            number = number.saturating_sub(kind.weight);
            found
        })
        .expect("below the sum");
    Case {
        kind: kind.name,
        steps: (kind.write)(&mut Writer::new(random, schema)),
    }
}
