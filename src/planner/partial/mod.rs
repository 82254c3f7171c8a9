//! A read with groups or aggregates that is worked out in part on the shards, and combined on a twin.
//!
//! Each shard is asked for the groups among its rows, with a part of each aggregate; the twin groups these rows
//! again and runs what is left of the client's statement over them: its aggregates replaced by what combines
//! their parts, its group expressions by the columns that hold them. Both texts are made of pieces of the
//! client's own. What PostgreSQL says of their types decides whether they are used at all: see
//! [`Partial::widened`].

mod aggregate;
mod lexeme;
mod read;

pub(super) use read::check;

use aggregate::Aggregate;

use crate::planner::context::Context;
use crate::planner::survey::Survey;
use crate::sql::Numbering;
use crate::sql::cursor::Cursor;
use crate::sql::parse;
use crate::sql::quote::quote_ident;
use crate::sql::scan::scan;
use crate::sql::split::split;

/// The temporary table that the shards' rows are loaded into, quoted.
pub const TABLE: &str = "pg_temp.\"pgherd.partial\"";

/// A statement in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The distribution of its tables, by index in the topology.
    pub distribution: usize,
    /// What the shards group by: the statement's own groups, then what an aggregate takes distinct values of.
    groups: Vec<String>,
    aggregates: Vec<Aggregate>,
    /// FROM and WHERE.
    from: String,
    pieces: Vec<Piece>,
}

/// A part of the statement for the twin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
    Aggregate(usize),
    /// AS, and the name of a column of the answer.
    Label(usize),
    /// A name that is a column of the answer if one has it; else a group.
    Name {
        name: String,
        written: String,
        group: usize,
    },
    /// FROM the table.
    Table,
}

/// What the shards are asked, with the columns of their answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub query: String,
    /// Quoted.
    pub columns: Vec<String>,
    /// Of each aggregate: whether its argument is widened, and its columns.
    aggregates: Vec<(bool, std::ops::Range<usize>)>,
}

impl Partial {
    /// Of the text of one statement; `None` where that is not known to be right.
    pub fn of(context: Context<'_>, text: &[u8]) -> Option<Partial> {
        let tokens = scan(text, context.lexing).ok()?;
        let statement = split(&tokens, text).into_iter().next()?;
        let block = parse::parse(statement, text, &Numbering::default()).ok()?;
        check(
            &Survey::of(context, &block),
            &block,
            Cursor::new(text, statement),
        )
    }

    /// What the shards are asked as long as nothing is known of types.
    pub fn asked(&self) -> Asked {
        self.asked_with(&vec![false; self.aggregates.len()])
    }

    /// The same, with arguments widened where the types of the columns say so. `None` where the parts do not
    /// make what PostgreSQL answers.
    pub fn widened(&self, asked: &Asked, types: &[u32]) -> Option<Asked> {
        if types.len() != asked.columns.len() {
            return None;
        }
        let each = self.aggregates.iter().zip(&asked.aggregates);
        let widens = each.map(|(aggregate, (_, columns))| {
            aggregate.widens(types.get(columns.clone()).unwrap_or_default())
        });
        Some(self.asked_with(&widens.collect::<Option<Vec<bool>>>()?))
    }

    fn asked_with(&self, widens: &[bool]) -> Asked {
        let mut columns: Vec<String> = Vec::new();
        let mut list: Vec<String> = Vec::new();
        for (number, group) in self.groups.iter().enumerate() {
            columns.push(group_name(number));
            list.push(group.clone());
        }
        let mut aggregates = Vec::new();
        for (aggregate, widens) in self.aggregates.iter().zip(widens) {
            let start = columns.len();
            for part in aggregate.parts(*widens) {
                columns.push(format!("\"pgherd.p{}\"", columns.len()));
                list.push(part);
            }
            aggregates.push((*widens, start..columns.len()));
        }
        let list = list.iter().zip(&columns);
        let list: Vec<String> = list
            .map(|(value, name)| format!("{value} AS {name}"))
            .collect();
        let numbers: Vec<String> = (1..=self.groups.len()).map(|it| it.to_string()).collect();
        let group = if numbers.is_empty() {
            String::new()
        } else {
            format!(" GROUP BY {}", numbers.join(", "))
        };
        Asked {
            query: format!("SELECT {} {}{group}", list.join(", "), self.from),
            columns,
            aggregates,
        }
    }

    /// What the twin runs over the shards' rows: `types` are those of `asked`'s columns, `names` those of the
    /// client's answer. `None` where it cannot be said.
    pub fn combined(&self, asked: &Asked, types: &[u32], names: &[String]) -> Option<String> {
        let groups: Vec<String> = (0..self.groups.len()).map(group_name).collect();
        let mut sql = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => sql.push_str(text),
                Piece::Group(group) => sql.push_str(groups.get(*group)?),
                Piece::Aggregate(number) => {
                    let (_, range) = asked.aggregates.get(*number)?;
                    let columns = asked.columns.get(range.clone())?;
                    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
                    let types = types.get(range.clone())?;
                    let aggregate = self.aggregates.get(*number)?;
                    sql.push_str(&aggregate.combined(&columns, types, &groups)?);
                }
                Piece::Label(column) => {
                    sql.push_str(" AS ");
                    sql.push_str(&quote_ident(names.get(*column)?));
                }
                Piece::Name {
                    name,
                    written,
                    group,
                } => {
                    let is_label = names.iter().any(|own| own == name);
                    sql.push_str(if is_label {
                        written
                    } else {
                        groups.get(*group)?
                    });
                }
                Piece::Table => {
                    sql.push_str(" FROM ");
                    sql.push_str(TABLE);
                    sql.push_str(" AS \"pgherd.rows\"");
                }
            }
        }
        Some(sql)
    }

    /// How many columns the client's answer has, as its text says.
    pub fn labels(&self) -> usize {
        let labels = self.pieces.iter();
        labels
            .filter(|piece| matches!(piece, Piece::Label(_)))
            .count()
    }
}

fn group_name(number: usize) -> String {
    format!("\"pgherd.g{number}\"")
}
