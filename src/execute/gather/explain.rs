//! What EXPLAIN says of a gathered read above the twin's own plan: the route, and each fragment.

use super::load::{Loaded, shares};
use super::plan::{planned_rows, rows};
use crate::execute::member::{Member, targets};
use crate::execute::{Conversation, Trouble, Wide};
use crate::planner::explanation;
use crate::planner::gather::Fragment;
use crate::planner::plan::{Effect, Explained};
use crate::sql::cursor::Cursor;
use crate::sql::scan::scan;

/// A statement that is explained.
pub(super) struct Explain {
    /// It runs.
    pub(super) analyze: bool,
    route: String,
    /// What combines the shards' parts; empty where they are rows.
    combined: String,
}

impl Explain {
    /// `None` where the statement itself is asked for.
    pub(super) fn of(wide: &Wide, combined: String) -> Option<Explain> {
        let Effect::Explain(explained) = &wide.effect else {
            return None;
        };
        let Explained::Route(route) = &**explained else {
            return None;
        };
        let text = wide.source.sql();
        let tokens = scan(text, wide.lexing).ok()?;
        Some(Explain {
            analyze: explanation(Cursor::new(text, &tokens))?.analyze,
            route: route.clone(),
            combined,
        })
    }

    /// The lines above the twin's plan. What was fetched of each fragment is known where it ran.
    pub(super) fn lines(
        &self,
        fragments: &[Fragment],
        loaded: &Loaded,
        estimates: &[Vec<String>],
    ) -> Vec<String> {
        let mut lines = vec![self.route.clone()];
        for (index, fragment) in fragments.iter().enumerate() {
            if fragment.narrowed == 0 {
                lines.push(format!("Fragment: {}", fragment.query));
            } else {
                let (query, lists) = (fragment.narrowed_by(|_| None).0, fragment.narrowed);
                lines.push(format!("Fragment: {query}"));
                lines.push(format!(
                    "  (narrowed by {lists} lists of values of the fragments above)"
                ));
            }
            if let Some(rows) = loaded.rows.get(index).filter(|_| self.analyze) {
                lines.push(format!("  (actual rows={rows})"));
            }
            if let Some(estimates) = estimates.get(index) {
                lines.push(format!("  (estimated rows: {})", estimates.join(", ")));
            }
        }
        if self.analyze {
            lines.push(format!("Fetched: {} bytes", loaded.bytes));
        }
        if !self.combined.is_empty() {
            lines.push(format!("Combined: {}", self.combined));
        }
        lines.push("On the twin:".to_owned());
        lines
    }
}

/// How many rows each shard expects of each fragment, in words.
pub(super) async fn estimates<C: Conversation>(
    client: &mut C,
    loaded: &mut Loaded,
    fragments: &[Fragment],
    own: &mut Option<Member>,
) -> Result<Vec<Vec<String>>, Trouble> {
    let shares = shares(client, fragments);
    loaded.open(client, &shares, None, own).await?;
    client.share_cancels(targets(loaded.lanes.iter().map(|lane| &lane.member)));
    let mut estimates = vec![Vec::new(); fragments.len()];
    for (shard, wanted) in &shares {
        let mut lanes = loaded.lanes.iter_mut();
        let Some(lane) = lanes.find(|lane| lane.member.shard == *shard) else {
            continue;
        };
        for index in wanted {
            let (Some(fragment), Some(told)) = (fragments.get(*index), estimates.get_mut(*index))
            else {
                continue;
            };
            let text = format!("EXPLAIN (FORMAT JSON) {}", fragment.query);
            let row = rows(client, &mut lane.member, text.as_bytes()).await?;
            let plan = row.into_iter().next().flatten().unwrap_or_default();
            let count =
                planned_rows(&plan).map_or_else(|| "unknown".to_owned(), |count| count.to_string());
            told.push(format!("{} {count}", lane.member.name()));
        }
    }
    Ok(estimates)
}
