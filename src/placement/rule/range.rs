//! `range: [{to: 20000, …}, {…}]`: ascending bounds, each excluded; the last part may have none.
//!
//! Numbers, dates, times and uuids are ordered as PostgreSQL orders them, text by its bytes as
//! COLLATE "C" does, so that the order depends on no server's locale.

use super::{Builder, Built, Rule, Span, uncovered};
use crate::config::{Place, RangePart};
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError};

#[derive(Debug)]
struct Range {
    /// Ascending.
    parts: Vec<(Key<'static>, Box<dyn Rule>)>,
    /// Holds what lies at or above the last bound.
    last: Option<Box<dyn Rule>>,
}

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::Range(parts) = place else {
        return None;
    };
    Some(build_range(parts, builder))
}

fn build_range(parts: &[RangePart], builder: &Builder<'_>) -> Built {
    let kind = builder.single_column()?;
    let mut range = Range {
        parts: Vec::new(),
        last: None,
    };
    for part in parts {
        let rule = builder.build(&part.place)?;
        if range.last.is_some() {
            return Err(builder.fault(
                "a range follows one without \"to\"",
                "Only the last range may have no upper bound.",
            ));
        }
        let Some(to) = &part.to else {
            range.last = Some(rule);
            continue;
        };
        let to = builder.value(kind, to)?;
        if let Some((before, _)) = range.parts.last()
            && *before >= to
        {
            return Err(builder.fault(
                format!("the range to \"{to}\" is not above the one before it"),
                "Write ranges in ascending order. Text is ordered by its bytes.",
            ));
        }
        range.parts.push((to, rule));
    }
    Ok(Box::new(range))
}

impl Rule for Range {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let [value] = key else {
            return Err(KeyError::Unprovable);
        };
        let at = self.parts.partition_point(|(to, _)| to <= value);
        let rule = match self.parts.get(at) {
            Some((_, rule)) => Some(rule),
            None => self.last.as_ref(),
        };
        rule.ok_or_else(|| uncovered(key, "ranges"))?.place(key)
    }

    fn shards(&self, into: &mut ShardSet) {
        for (_, rule) in &self.parts {
            rule.shards(into);
        }
        if let Some(rule) = &self.last {
            rule.shards(into);
        }
    }

    fn between(&self, span: &Span<'_>, into: &mut ShardSet) {
        let first = span.low.as_ref().map_or(0, |(low, _)| {
            self.parts.partition_point(|(to, _)| to <= low)
        });
        let end = span
            .high
            .as_ref()
            .map_or(self.parts.len(), |(high, inclusive)| {
                self.parts
                    .partition_point(|(to, _)| if *inclusive { to <= high } else { to < high })
            });
        let rules = self.parts.iter().map(|(_, rule)| rule).chain(&self.last);
        for rule in rules
            .skip(first)
            .take(end.saturating_add(1).saturating_sub(first))
        {
            rule.between(span, into);
        }
    }
}
