//! Where a row must lie, computed apart from the proxy: PostgreSQL hashes, this file jumps.

use crate::client::Client;

/// Of PostgreSQL's hash partitioning, as a bigint (`HASH_PARTITION_SEED` in `partbounds.c`).
const SEED: i64 = 0x7a5b_2236_7996_dcfd;

/// The low 14 bits of what `hash_combine64` adds to the hash of the only column.
const COMBINE: i64 = 0x49a0_f4dd_15e5_a8e3 & 16_383;

/// Jump consistent hash (Lamping and Veach, <https://arxiv.org/abs/1406.2294>).
pub(crate) fn jump(key: u64, buckets: usize) -> usize {
    let mut key = key;
    let mut last = 0;
    let mut next = 0.0_f64;
    while next < f64::from(u32::try_from(buckets).expect("few shards")) {
        last = next.to_bits();
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        let divisor = f64::from(u32::try_from((key >> 33) + 1).expect("31 bits and one"));
        next = ((f64::from_bits(last) + 1.0) * (2_147_483_648.0 / divisor)).floor();
    }
    // The bucket is a small whole number.
    (0..buckets)
        .find(|&bucket| f64::from(u32::try_from(bucket).expect("few")).to_bits() == last)
        .expect("below the end")
}

/// A placement rule as the tests state it: shards by number.
#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Jump(Vec<usize>),
    Modulo(usize),
    /// Upper bounds, excluded, and what lies below each; the last holds the rest.
    Range(Vec<(i64, Rule)>, Box<Rule>),
    TextRange(Vec<(&'static str, Rule)>, Box<Rule>),
    List(Vec<(&'static str, usize)>, Box<Rule>),
    Shard(usize),
}

impl Rule {
    /// The shard of a key, whose bucket is known.
    pub(crate) fn shard(&self, key: &str, bucket: u64) -> usize {
        let number = || key.parse::<i64>().expect("an integer key");
        match self {
            Rule::Shard(shard) => *shard,
            Rule::Jump(shards) => shards[jump(bucket, shards.len())],
            Rule::Modulo(count) => {
                let count = i64::try_from(*count).expect("few");
                usize::try_from(number().rem_euclid(count)).expect("not negative")
            }
            Rule::Range(parts, rest) => {
                let found = parts.iter().find(|(to, _)| number() < *to);
                found.map_or(&**rest, |(_, rule)| rule).shard(key, bucket)
            }
            Rule::TextRange(parts, rest) => {
                let found = parts.iter().find(|(to, _)| key < *to);
                found.map_or(&**rest, |(_, rule)| rule).shard(key, bucket)
            }
            Rule::List(values, rest) => {
                let found = values.iter().find(|(value, _)| key == *value);
                found.map_or_else(|| rest.shard(key, bucket), |(_, shard)| *shard)
            }
        }
    }
}

/// SQL for the bucket of an expression.
pub(crate) fn bucket_sql(key: &str, is_text: bool) -> String {
    let hash = if is_text {
        format!("hashtextextended({key}, {SEED})")
    } else {
        format!("hashint8extended({key}::bigint, {SEED})")
    };
    format!("(((({hash}) & 16383) + {COMBINE}) & 16383)")
}

/// Checks that each row of a shard's table lies there by the rule, and returns how many there are.
pub(crate) fn check_shard(
    client: &mut Client,
    shard: usize,
    table: &str,
    key: &str,
    is_text: bool,
    rule: &Rule,
) -> usize {
    let rows = client.rows(&format!(
        "SELECT {key}, {} FROM {table}",
        bucket_sql(key, is_text)
    ));
    for row in &rows {
        let key = row[0].as_deref().expect("a key is not NULL");
        let bucket = row[1]
            .as_deref()
            .and_then(|bucket| bucket.parse().ok())
            .expect("a bucket");
        assert_eq!(
            rule.shard(key, bucket),
            shard,
            "{table}: key {key:?}, bucket {bucket}, lies on shard {shard}"
        );
    }
    rows.len()
}

#[test]
fn jump_hash_agrees_with_published_vectors() {
    let wanted = [
        0, 55, 62, 8, 45, 59, 86, 97, 82, 59, 73, 37, 17, 56, 86, 21, 90, 37, 38, 83,
    ];
    for (key, wanted) in wanted.into_iter().enumerate() {
        assert_eq!(
            jump(u64::try_from(key).expect("small"), 100),
            wanted,
            "key {key}"
        );
    }
    assert_eq!(jump(10_863_919_174_838_991, 11), 6);
    assert_eq!(jump(256, 1024), 520);
}
