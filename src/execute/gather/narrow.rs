//! Narrows fragments by the values of those that are on the twin already.

use std::collections::HashMap;

use super::plan::rows;
use crate::execute::member::Member;
use crate::execute::{Conversation, Trouble};
use crate::planner::gather::{Among, Fragment};
use crate::sql::quote::quote_literal;

/// Rows of a fragment that its values are asked of at most, and so values in a list.
const VALUES_MAX: u64 = 10_000;
/// Bytes of a list at most.
const LIST_MAX: usize = 256 * 1024;

/// The values of columns on the twin, as the literals of arrays; `None` where they are no use.
#[derive(Debug, Default)]
pub(super) struct Lists(HashMap<(String, String), Option<String>>);

/// Up to which fragment they are fetched at once from `start` on: no one waits for what it could be narrowed by.
pub(super) fn together(
    start: usize,
    fragments: &[Fragment],
    expected: &[u64],
    above: u64,
) -> usize {
    let mut end = start.saturating_add(1);
    while let Some(fragment) = fragments.get(end) {
        let among_these = fragments.get(start..end).unwrap_or_default();
        let waits = expected.get(end).is_some_and(|rows| *rows > above)
            && fragment
                .among()
                .any(|among| among_these.iter().any(|it| it.table == among.table));
        if waits {
            break;
        }
        end = end.saturating_add(1);
    }
    end
}

impl Lists {
    /// Narrows the fragment of this index, where those before it are loaded and small enough.
    pub(super) async fn narrow<C: Conversation>(
        &mut self,
        client: &mut C,
        twin: &mut Member,
        (fragments, index): (&mut [Fragment], usize),
        expected: &[u64],
        loaded: &[u64],
    ) -> Result<(), Trouble> {
        let rows = expected.get(index).copied().unwrap_or_default();
        if rows <= client.gather().narrow_above {
            return Ok(());
        }
        let Some((before, [fragment, ..])) = fragments.split_at_mut_checked(index) else {
            return Ok(());
        };
        // A list of as many values as there are rows leaves hardly any out.
        let most = (rows / 2).clamp(1, VALUES_MAX);
        for among in fragment.among() {
            let at = before.iter().position(|it| it.table == among.table);
            let rows = at.and_then(|at| loaded.get(at)).copied();
            let is_small = rows.is_some_and(|rows| rows <= most);
            if is_small && !self.0.contains_key(&named(among)) {
                let list = values(client, twin, among).await?;
                self.0.insert(named(among), list);
            }
        }
        let known = |among: &Among| self.0.get(&named(among)).cloned().flatten();
        (fragment.query, fragment.narrowed) = fragment.narrowed_by(known);
        Ok(())
    }
}

fn named(among: &Among) -> (String, String) {
    (among.table.clone(), among.other_column.clone())
}

/// The values of a column, as the literal of an array.
async fn values<C: Conversation>(
    client: &mut C,
    twin: &mut Member,
    among: &Among,
) -> Result<Option<String>, Trouble> {
    let Among {
        table,
        other_column: column,
        ..
    } = among;
    let text = format!(
        "SELECT pg_catalog.array_agg(v)::pg_catalog.text FROM \
        (SELECT DISTINCT {column} AS v FROM ONLY {table} WHERE {column} IS NOT NULL) AS s"
    );
    let row = rows(client, twin, text.as_bytes()).await?;
    let list = row.into_iter().next().flatten();
    // Nothing there is no partner for anything.
    let list = String::from_utf8(list.unwrap_or_else(|| b"{}".to_vec())).ok();
    let list = list.filter(|list| list.len() <= LIST_MAX);
    Ok(list.map(|list| quote_literal(&list)))
}
