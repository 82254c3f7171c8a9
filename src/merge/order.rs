//! The merge of answers that are each in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use super::row::Values;
use super::value::{Kind, Value};

/// How the values of one key are read and compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The column, counted from 0.
    pub column: usize,
    pub kind: Kind,
    pub binary: bool,
    pub descending: bool,
    pub nulls_first: bool,
}

/// The values of one row's keys; `None` is NULL.
pub type Key = Vec<Option<Value>>;

/// Reads the keys of a row; `None` where it has none such.
pub fn key(sorts: &[Sort], body: &[u8]) -> Option<Key> {
    let mut key = Vec::with_capacity(sorts.len());
    for sort in sorts {
        let value = match Values::of(body).nth(sort.column)? {
            Some(bytes) => Some(Value::read(sort.kind, bytes, sort.binary)?),
            None => None,
        };
        key.push(value);
    }
    Some(key)
}

/// Which of two rows comes first.
pub fn compare(sorts: &[Sort], one: &[Option<Value>], two: &[Option<Value>]) -> Ordering {
    let pairs = one.iter().zip(two);
    for (sort, pair) in sorts.iter().zip(pairs) {
        let order = match pair {
            (None, None) => Ordering::Equal,
            (None, Some(_)) if sort.nulls_first => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) if sort.nulls_first => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) if sort.descending => two.cmp(one),
            (Some(one), Some(two)) => one.cmp(two),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The next row of each stream that has one, the first of them on top.
#[derive(Debug)]
pub struct Merge {
    sorts: Rc<[Sort]>,
    heads: BinaryHeap<Head>,
}

#[derive(Debug)]
struct Head {
    sorts: Rc<[Sort]>,
    key: Key,
    stream: usize,
}

impl Merge {
    /// Of rows in the order of these keys.
    pub fn new(sorts: Vec<Sort>) -> Merge {
        Merge {
            sorts: sorts.into(),
            heads: BinaryHeap::new(),
        }
    }

    /// The keys.
    pub fn sorts(&self) -> &[Sort] {
        &self.sorts
    }

    /// Adds the next row of a stream, which has none here. Of equal ones the lower stream's comes first.
    pub fn push(&mut self, stream: usize, key: Key) {
        self.heads.push(Head {
            sorts: Rc::clone(&self.sorts),
            key,
            stream,
        });
    }

    /// Takes the first row: its stream and keys.
    pub fn pop(&mut self) -> Option<(usize, Key)> {
        self.heads.pop().map(|head| (head.stream, head.key))
    }
}

impl Ord for Head {
    /// The row that comes first is the greatest, as a heap has it on top.
    fn cmp(&self, other: &Head) -> Ordering {
        compare(&self.sorts, &other.key, &self.key).then_with(|| other.stream.cmp(&self.stream))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

#[cfg(test)]
mod tests {
    use super::{Merge, Sort, compare, key};
    use crate::merge::value::Kind;
    use crate::wire::backend;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::{Just, any, prop_oneof, proptest};

    fn sort(column: usize, descending: bool, nulls_first: bool) -> Sort {
        Sort {
            column,
            kind: Kind::Int,
            binary: false,
            descending,
            nulls_first,
        }
    }

    fn body(values: &[Option<i64>]) -> Vec<u8> {
        let texts: Vec<_> = values
            .iter()
            .map(|it| it.map(|it| it.to_string()))
            .collect();
        let mut row = Vec::new();
        backend::data_row(
            &mut row,
            texts.iter().map(|it| it.as_ref().map(String::as_bytes)),
        );
        row.split_off(5)
    }

    proptest! {
        /// Streams in order come out in order, each row once, those of one stream as they went in.
        #[test]
        fn merged_streams_are_in_order(
            rows in vec(vec((option::of(-3_i64..3), option::of(-3_i64..3)), 0..20), 1..6),
            flags in vec(any::<bool>(), 4),
            _just in prop_oneof![Just(0), Just(1)],
        ) {
            let sorts = vec![sort(0, flags[0], flags[1]), sort(1, flags[2], flags[3])];
            let mut streams: Vec<Vec<Vec<u8>>> = Vec::new();
            for rows in rows {
                let mut bodies: Vec<_> = rows.iter().map(|&(a, b)| body(&[a, b])).collect();
                bodies.sort_by(|one, two| {
                    compare(&sorts, &key(&sorts, one).unwrap(), &key(&sorts, two).unwrap())
                });
                streams.push(bodies);
            }
            let count: usize = streams.iter().map(Vec::len).sum();
            let mut merge = Merge::new(sorts.clone());
            let mut next = vec![0; streams.len()];
            let push = |merge: &mut Merge, next: &[usize], at: usize| {
                if let Some(body) = streams[at].get(next[at]) {
                    merge.push(at, key(&sorts, body).unwrap());
                }
            };
            for at in 0..streams.len() {
                push(&mut merge, &next, at);
            }
            let mut merged = Vec::new();
            while let Some((at, key)) = merge.pop() {
                merged.push(key);
                next[at] += 1;
                push(&mut merge, &next, at);
            }
            assert_eq!(merged.len(), count);
            for pair in merged.windows(2) {
                assert!(compare(&sorts, &pair[0], &pair[1]).is_le());
            }
        }
    }
}
