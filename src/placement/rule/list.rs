//! `list: {…}`: named values, and `else:` for all others.

use super::{Builder, Built, Rule, uncovered};
use crate::config::Place;
use crate::placement::{ShardId, ShardSet};
use crate::types::key::{Key, KeyError};

#[derive(Debug)]
struct List {
    /// Ascending by value.
    values: Vec<(Key<'static>, Box<dyn Rule>)>,
    other: Option<Box<dyn Rule>>,
}

pub(super) fn build(place: &Place, builder: &Builder<'_>) -> Option<Built> {
    let Place::List(values, other) = place else {
        return None;
    };
    Some(build_list(values, other.as_deref(), builder))
}

fn build_list(values: &[(String, Place)], other: Option<&Place>, builder: &Builder<'_>) -> Built {
    let kind = builder.single_column()?;
    let mut list = List {
        values: Vec::with_capacity(values.len()),
        other: other.map(|place| builder.build(place)).transpose()?,
    };
    for (text, place) in values {
        let value = builder.value(kind, text)?;
        list.values.push((value, builder.build(place)?));
    }
    list.values.sort_by(|(left, _), (right, _)| left.cmp(right));
    for pair in list.values.windows(2) {
        if let [(left, _), (right, _)] = pair
            && left == right
        {
            return Err(builder.fault(
                format!("the value \"{left}\" is listed twice"),
                "Name each value once.",
            ));
        }
    }
    Ok(Box::new(list))
}

impl Rule for List {
    fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        let [value] = key else {
            return Err(KeyError::Unprovable);
        };
        let found = self
            .values
            .binary_search_by(|(listed, _)| listed.cmp(value));
        let rule = match found.ok().and_then(|at| self.values.get(at)) {
            Some((_, rule)) => Some(rule),
            None => self.other.as_ref(),
        };
        rule.ok_or_else(|| uncovered(key, "list"))?.place(key)
    }

    fn shards(&self, into: &mut ShardSet) {
        for (_, rule) in &self.values {
            rule.shards(into);
        }
        if let Some(rule) = &self.other {
            rule.shards(into);
        }
    }
}
