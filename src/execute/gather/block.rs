//! A gathered read that is part of a block: its shard is read on the block's own connection, so that it sees
//! what the block wrote, and the others where the block's isolation says.

use crate::error::{Fault, SqlState};
use crate::execute::Conversation;
use crate::execute::Trouble;
use crate::execute::member::{Member, targets};
use crate::planner::gather::Fragment;

use super::plan::rows;
use super::style::{self, Style};

/// What the connection of a block tells of it: the moment at which it began, how it is isolated, and its settings.
const FACTS: &str = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', \
    pg_catalog.current_setting('transaction_isolation')";

/// What is known of a block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// `now()` in it.
    pub(super) moment: String,
    isolation: String,
    pub(super) style: Style,
}

impl Block {
    /// Asks the block's connection.
    pub(super) async fn of<C: Conversation>(
        client: &mut C,
        own: &mut Member,
    ) -> Result<Block, Trouble> {
        client.share_cancels(targets(std::slice::from_ref(own)));
        let facts = format!("{FACTS}, {}", style::SETTINGS);
        let row = rows(client, own, facts.as_bytes()).await?;
        let texts: Vec<String> = row
            .into_iter()
            .map(|value| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
            .collect();
        let Ok([moment, isolation, settings @ ..]) = <[String; 2 + style::COUNT]>::try_from(texts)
        else {
            return Err(Trouble::Fault(
                Fault::error(
                    SqlState::INTERNAL,
                    "the block's shard did not tell its state",
                )
                .hint("This is a fault of pgherd; please report it."),
            ));
        };
        Ok(Block {
            moment,
            isolation,
            style: Style::of(settings),
        })
    }

    /// Whether each statement of it sees the snapshot of the first.
    pub(super) fn keeps_snapshot(&self) -> bool {
        matches!(self.isolation.as_str(), "repeatable read" | "serializable")
    }
}

/// One query for several fragments, which then are of one snapshot: the number of the fragment and its columns as
/// text, those it has not at the end as NULL.
pub(super) fn united(wanted: &[usize], fragments: &[Fragment]) -> String {
    let of = |index: &usize| fragments.get(*index).map(|fragment| (*index, fragment));
    let wanted: Vec<(usize, &Fragment)> = wanted.iter().filter_map(of).collect();
    let widest = wanted.iter().map(|(_, fragment)| fragment.columns.len());
    let widest = widest.max().unwrap_or_default();
    // What is materialized is read by one process, one after the other.
    let named = wanted
        .iter()
        .map(|(index, fragment)| format!("f{index} AS MATERIALIZED ({})", fragment.query));
    let selects = wanted.iter().map(|(index, fragment)| {
        let columns = fragment.columns.iter().zip(&fragment.casts_otherwise);
        let mut values: Vec<String> = columns
            .map(|(column, casts_otherwise)| {
                let value = format!("f{index}.{column}");
                if *casts_otherwise {
                    format!("CASE pg_catalog.num_nulls({value}) WHEN 0 THEN pg_catalog.format('%s', {value}) END")
                } else {
                    format!("{value}::text")
                }
            })
            .collect();
        values.resize(widest, "NULL::text".to_owned());
        values.insert(0, index.to_string());
        format!("SELECT {} FROM f{index}", values.join(", "))
    });
    format!(
        "WITH {} {}",
        named.collect::<Vec<_>>().join(", "),
        selects.collect::<Vec<_>>().join(" UNION ALL ")
    )
}
