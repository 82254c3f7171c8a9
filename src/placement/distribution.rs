//! One distribution: a rule that places keys, and the keys pinned to shards of their own.

use std::cell::RefCell;
use std::sync::Arc;

use super::rule::{Builder, Directory, Rule, Span};
use super::{BUCKETS, ShardId, ShardSet};
use crate::config;
use crate::error::{Fault, SqlState};
use crate::types::key::{Key, KeyError, KeyType, row_hash};

/// Integers of a span that are placed one by one.
const SPAN_MAX: u64 = 64;

/// A distribution, ready to place keys.
#[derive(Debug)]
pub struct Distribution {
    name: String,
    key: Vec<KeyType>,
    rule: Box<dyn Rule>,
    /// Ascending by key.
    pins: Vec<(Key<'static>, ShardId)>,
    /// The bucket of each pin, and its shard.
    pin_buckets: Vec<(u64, ShardId)>,
    shards: ShardSet,
    directories: Vec<Arc<Directory>>,
}

impl Distribution {
    /// Makes it from the checked configuration and the names of the database's shards.
    ///
    /// # Errors
    /// A fault of the configuration (F0000), as for a directory, which is not served yet.
    pub fn new(config: &config::Distribution, shards: &[String]) -> Result<Distribution, Fault> {
        let directories = RefCell::default();
        let builder = Builder::new(&config.name, &config.key, shards, &directories);
        let rule = builder.build(&config.place)?;
        let mut reached = ShardSet::new();
        rule.shards(&mut reached);
        let mut pins = Vec::with_capacity(config.pins.len());
        for (text, shard) in &config.pins {
            let pin = pin(config, shards, text, shard)?;
            reached.insert(pin.1);
            pins.push(pin);
        }
        pins.sort();
        let bucket = |(key, shard): &(Key<'static>, ShardId)| {
            (row_hash(std::slice::from_ref(key)) % BUCKETS, *shard)
        };
        Ok(Distribution {
            pin_buckets: pins.iter().map(bucket).collect(),
            name: config.name.clone(),
            key: config.key.clone(),
            rule,
            pins,
            shards: reached,
            directories: directories.into_inner(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directories that place some of its keys.
    pub fn directories(&self) -> &[Arc<Directory>] {
        &self.directories
    }

    /// The types of the key's columns, in order.
    pub fn key(&self) -> &[KeyType] {
        &self.key
    }

    /// The shards that some key is placed on.
    pub fn shards(&self) -> &ShardSet {
        &self.shards
    }

    /// The keys on shards of their own, in ascending order.
    pub fn pins(&self) -> &[(Key<'static>, ShardId)] {
        &self.pins
    }

    /// Adds every shard that some key within a span is placed on; for keys of one column.
    pub fn between(&self, span: &Span<'_>, into: &mut ShardSet) {
        if let Some(values) = span.integers(SPAN_MAX) {
            // What no placement covers has no rows.
            for value in values {
                match self.place(&[Key::Int(value)]) {
                    Ok(shard) => into.insert(shard),
                    Err(KeyError::Unlisted(_)) => self.rule.shards(into),
                    Err(_) => (),
                }
            }
            return;
        }
        for (pinned, shard) in &self.pins {
            if span.has(pinned) {
                into.insert(*shard);
            }
        }
        self.rule.between(span, into);
    }

    /// Whether a bucket alone says where its keys are, so that an id can carry it.
    pub fn is_of_bucket(&self) -> bool {
        self.key.len() == 1 && (0..BUCKETS).all(|bucket| self.rule.place_bucket(bucket).is_some())
    }

    /// The bucket of a key.
    pub fn bucket(&self, key: &[Key<'_>]) -> u64 {
        row_hash(key) % BUCKETS
    }

    /// Calls `each` with every shard that has keys of a bucket: the bucket's own, and those of the pins
    /// of keys in it. A shard may come twice. Allocates nothing.
    ///
    /// # Errors
    /// `Unprovable` where the bucket alone does not say.
    pub fn of_bucket(&self, bucket: u64, mut each: impl FnMut(ShardId)) -> Result<(), KeyError> {
        let own = self.rule.place_bucket(bucket);
        each(own.ok_or(KeyError::Unprovable)?);
        for (pinned, shard) in &self.pin_buckets {
            if *pinned == bucket {
                each(*shard);
            }
        }
        Ok(())
    }

    /// The shard of a key: its pin's, else the rule's. Allocates nothing.
    ///
    /// # Errors
    /// `Uncovered` where no placement covers the key; `Unprovable` for a key of another shape than
    /// the distribution's.
    pub fn place(&self, key: &[Key<'_>]) -> Result<ShardId, KeyError> {
        if key.len() != self.key.len() {
            return Err(KeyError::Unprovable);
        }
        if let [value] = key
            && !self.pins.is_empty()
            && let Ok(at) = self.pins.binary_search_by(|(pinned, _)| pinned.cmp(value))
            && let Some((_, shard)) = self.pins.get(at)
        {
            return Ok(*shard);
        }
        self.rule.place(key)
    }
}

fn pin(
    config: &config::Distribution,
    shards: &[String],
    text: &str,
    shard: &str,
) -> Result<(Key<'static>, ShardId), Fault> {
    let fault = |message: String, hint: &str| {
        Fault::error(
            SqlState::CONFIG,
            format!("distribution \"{}\": {message}", config.name),
        )
        .hint(hint)
    };
    let [kind] = config.key.as_slice() else {
        return Err(fault(
            "pins need a key of one column".into(),
            "Drop the pins, or place by one column.",
        ));
    };
    let key = Key::from_text(*kind, text.as_bytes()).map_err(|error| {
        fault(
            format!("the pin \"{text}\" is no {}", kind.name()),
            "Write the key as the column would print it.",
        )
        .detail(format!("{error}."))
    })?;
    let id = shards.iter().position(|name| name == shard);
    let id = id.and_then(|id| u16::try_from(id).ok()).ok_or_else(|| {
        fault(
            format!("the pin \"{text}\" names shard \"{shard}\", which does not exist"),
            "Name a shard of this database.",
        )
    })?;
    Ok((key.into_owned(), ShardId(id)))
}

#[cfg(test)]
mod tests {
    use super::Distribution;
    use crate::config::{self, Place, RangePart};
    use crate::error::Fault;
    use crate::placement::{ShardId, bucket_of_id, id_of_bucket};
    use crate::types::key::{Key, KeyError, KeyType};

    fn names() -> Vec<String> {
        "abcde".chars().map(String::from).collect()
    }

    fn shards(names: &str) -> Vec<Place> {
        names
            .chars()
            .map(|name| Place::Shard(name.into()))
            .collect()
    }

    fn build(key: &[KeyType], place: Place, pins: &[(&str, &str)]) -> Result<Distribution, Fault> {
        let own = |(key, shard): &(&str, &str)| (String::from(*key), String::from(*shard));
        let config = config::Distribution {
            name: "d".into(),
            key: key.to_vec(),
            place,
            pins: pins.iter().map(own).collect(),
        };
        Distribution::new(&config, &names())
    }

    fn check(distribution: &Distribution, kind: KeyType, pairs: &[(&str, Option<u16>)]) {
        for (text, shard) in pairs {
            let key = Key::from_text(kind, text.as_bytes()).unwrap();
            let placed = distribution.place(&[key]);
            assert_eq!(placed.clone().ok(), shard.map(ShardId), "{text}");
            assert_eq!(
                shard.is_none(),
                matches!(placed, Err(KeyError::Uncovered(_)))
            );
        }
    }

    #[test]
    fn a_fifth_shard_takes_a_fifth_and_moves_nothing_else() {
        let four = build(&[KeyType::Int8], Place::Jump(shards("abcd")), &[]).unwrap();
        let five = build(&[KeyType::Int8], Place::Jump(shards("abcde")), &[]).unwrap();
        let mut moved = 0;
        for value in 0..100_000 {
            let (before, after) = (
                four.place(&[Key::Int(value)]),
                five.place(&[Key::Int(value)]),
            );
            if before != after {
                assert_eq!(after, Ok(ShardId(4)), "{value}");
                moved += 1;
            }
        }
        assert!((19_000..=21_000).contains(&moved), "{moved} of 100000");
    }

    #[test]
    fn an_id_names_the_shard_of_its_key() {
        let rule = build(&[KeyType::Int8], Place::Jump(shards("abcd")), &[("7", "d")]).unwrap();
        assert!(rule.is_of_bucket());
        for value in 0..1_000_i64 {
            let key = [Key::Int(value)];
            let bucket = rule.bucket(&key);
            for sequence in [0, 1, 77, (1 << 39) - 1] {
                let id = id_of_bucket(sequence, bucket).unwrap();
                assert_eq!(bucket_of_id(id), bucket);
                let mut found = Vec::new();
                rule.of_bucket(bucket_of_id(id), |shard| found.push(shard))
                    .unwrap();
                assert!(found.contains(&rule.place(&key).unwrap()), "{value}");
                assert_eq!(
                    found.len() > 1,
                    bucket == rule.bucket(&[Key::Int(7)]),
                    "{value}"
                );
            }
        }
        assert_eq!(id_of_bucket(1 << 39, 0), None);
        assert_eq!(bucket_of_id(-1), 16_383);
        let rule = build(&[KeyType::Int8], Place::Modulo(shards("ab")), &[]).unwrap();
        assert!(!rule.is_of_bucket() && rule.of_bucket(3, |_| ()).is_err());
    }

    #[test]
    fn remainders_are_never_negative() {
        let rule = build(&[KeyType::Int4], Place::Modulo(shards("abcd")), &[]).unwrap();
        check(
            &rule,
            KeyType::Int4,
            &[
                ("0", Some(0)),
                ("7", Some(3)),
                ("-1", Some(3)),
                ("-4", Some(0)),
            ],
        );
        assert_eq!(rule.place(&[Key::Int(i64::MIN)]), Ok(ShardId(0)));
    }

    #[test]
    fn postgres_places_where_partitions_are() {
        let rule = build(&[KeyType::Int8], Place::Postgres(shards("abcd")), &[]).unwrap();
        check(
            &rule,
            KeyType::Int8,
            &[
                ("-1", Some(1)),
                ("0", Some(0)),
                ("2", Some(2)),
                ("1000000", Some(3)),
            ],
        );
    }

    #[test]
    fn ranges_exclude_their_end_and_nest() {
        let part = |to: Option<&str>, place| RangePart {
            to: to.map(String::from),
            place,
        };
        let place = Place::Range(vec![
            part(Some("20"), Place::Shard("b".into())),
            part(Some("50"), Place::Modulo(shards("cd"))),
        ]);
        let rule = build(&[KeyType::Int8], place, &[("33", "e")]).unwrap();
        check(
            &rule,
            KeyType::Int8,
            &[
                ("-5", Some(1)),
                ("19", Some(1)),
                ("20", Some(2)),
                ("21", Some(3)),
                ("33", Some(4)),
                ("50", None),
            ],
        );
        let place = Place::Range(vec![
            part(Some("H"), shards("a").remove(0)),
            part(None, shards("b").remove(0)),
        ]);
        let rule = build(&[KeyType::Text], place, &[]).unwrap();
        check(
            &rule,
            KeyType::Text,
            &[
                ("A", Some(0)),
                ("Gzz", Some(0)),
                ("H", Some(1)),
                ("a", Some(1)),
            ],
        );
    }

    #[test]
    fn lists_name_values_and_may_have_an_else() {
        let values = vec![
            ("de".into(), Place::Shard("a".into())),
            ("at".into(), Place::Shard("b".into())),
        ];
        let other = Some(Box::new(Place::Shard("c".into())));
        let rule = build(&[KeyType::Text], Place::List(values.clone(), other), &[]).unwrap();
        check(
            &rule,
            KeyType::Text,
            &[("de", Some(0)), ("at", Some(1)), ("fr", Some(2))],
        );
        let rule = build(&[KeyType::Text], Place::List(values, None), &[]).unwrap();
        check(&rule, KeyType::Text, &[("de", Some(0)), ("fr", None)]);
    }

    #[test]
    fn what_cannot_place_is_refused() {
        let refuse = |key: &[KeyType], place| {
            let fault = build(key, place, &[]).unwrap_err();
            assert!(fault.hint.is_some() && fault.message.starts_with("distribution \"d\""));
        };
        refuse(&[KeyType::Text], Place::Modulo(shards("ab")));
        refuse(
            &[KeyType::Int8],
            Place::Jump(vec![Place::Jump(shards("ab")), Place::Shard("c".into())]),
        );
        refuse(&[KeyType::Int8], Place::Jump(shards("x")));
        refuse(&[KeyType::Int8; 2], Place::List(Vec::new(), None));
    }
}
