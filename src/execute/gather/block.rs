//! A gathered read that is part of a block: its shard is read on the block's own connection, so that it sees
//! what the block wrote, and the others where the block's isolation says.

use crate::error::{Fault, SqlState};
use crate::execute::Conversation;
use crate::execute::Trouble;
use crate::execute::member::{Member, targets};
use crate::planner::gather::Fragment;
use crate::server::settings::quote_literal;

use super::plan::rows;

/// What the connection of a block tells of it: the moment at which it began, how it is isolated, and how it
/// writes values.
const FACTS: &str = "SELECT pg_catalog.to_char(pg_catalog.now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', \
    pg_catalog.current_setting('transaction_isolation'), pg_catalog.current_setting('datestyle'), \
    pg_catalog.current_setting('intervalstyle'), pg_catalog.current_setting('extra_float_digits')";

/// What is known of a block.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// `now()` in it.
    pub(super) moment: String,
    isolation: String,
    styles: [(&'static str, String); 3],
}

impl Block {
    /// Asks the block's connection.
    pub(super) async fn of<C: Conversation>(
        client: &mut C,
        own: &mut Member,
    ) -> Result<Block, Trouble> {
        client.aim_cancels(targets(std::slice::from_ref(own)));
        let row = rows(client, own, FACTS.as_bytes()).await?;
        let texts: Vec<String> = row
            .into_iter()
            .map(|value| String::from_utf8_lossy(&value.unwrap_or_default()).into_owned())
            .collect();
        let Ok([moment, isolation, dates, intervals, digits]) = <[String; 5]>::try_from(texts)
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
            styles: [
                ("datestyle", dates),
                ("intervalstyle", intervals),
                ("extra_float_digits", digits),
            ],
        })
    }

    /// Whether each statement of it sees the snapshot of the first.
    pub(super) fn keeps_snapshot(&self) -> bool {
        matches!(self.isolation.as_str(), "repeatable read" | "serializable")
    }

    /// Brings the styles that values are written in back to the block's, where they are not read back alike.
    pub(super) fn restoring(&self) -> Option<String> {
        let [(_, dates), (_, intervals), (_, digits)] = &self.styles;
        let is_plain = dates.starts_with("ISO")
            && intervals != "sql_standard"
            && digits.parse::<i32>().is_ok_and(|digits| digits >= 1);
        let set = |(name, value): &(&str, String)| {
            let value = quote_literal(value);
            format!("SELECT pg_catalog.set_config('{name}', {value}, true)")
        };
        (!is_plain).then(|| self.styles.iter().map(set).collect::<Vec<_>>().join(";"))
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
        let columns = fragment.columns.iter();
        let mut values: Vec<String> = columns.map(|it| format!("f{index}.{it}::text")).collect();
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
