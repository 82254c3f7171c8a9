//! The tables of a FROM, by the names that they have there.

use crate::placement::catalog::Table;
use crate::planner::context::Context;
use crate::sql::statement::{Select, Source};

/// The tables of a FROM.
pub(super) struct Sources<'a> {
    /// Each behind its alias or its own name.
    pub(super) tables: Vec<(String, &'a Table)>,
    /// Whether there is nothing else in it.
    pub(super) is_whole: bool,
    /// Whether no columns are merged by a join.
    pub(super) is_apart: bool,
}

impl<'a> Sources<'a> {
    pub(super) fn of(context: Context<'a>, select: &Select) -> Sources<'a> {
        let mut sources = Sources {
            tables: Vec::new(),
            is_whole: true,
            is_apart: true,
        };
        for source in &select.from {
            sources.add(context, source);
        }
        sources
    }

    fn add(&mut self, context: Context<'a>, source: &Source) {
        match source {
            Source::Table {
                name,
                alias,
                renamed: false,
            } => match context.table(name) {
                Some(table) => {
                    let alias = alias.clone().unwrap_or_else(|| name.name.clone());
                    self.tables.push((alias, table));
                }
                None => self.is_whole = false,
            },
            Source::Table { .. } | Source::Derived { .. } | Source::Function { .. } => {
                self.is_whole = false;
            }
            Source::Join(join) => {
                self.add(context, &join.left);
                self.add(context, &join.right);
                self.is_apart &= join.using.is_empty() && !join.natural;
            }
        }
    }
}
