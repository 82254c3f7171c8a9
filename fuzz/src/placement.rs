//! Keys of any bytes: they are placed on a shard of their distribution, whatever format they come in, and within
//! what an interval around them reaches.

use std::cell::OnceCell;

use pgherd::config::{self, KeyType, Place, RangePart};
use pgherd::placement::ShardSet;
use pgherd::placement::distribution::Distribution;
use pgherd::placement::rule::Span;
use pgherd::types::key::{Key, keeps};

/// The first byte chooses the type, the second the placement and how ends count; then three values, each in
/// a line.
pub fn run(data: &[u8]) {
    thread_local! {
        static WORLD: OnceCell<Vec<(KeyType, Vec<Distribution>)>> = const { OnceCell::new() };
    }
    let [kind, flags, rest @ ..] = data else {
        return;
    };
    WORLD.with(|world| {
        let world = world.get_or_init(world_of_all);
        let (kind, distributions) = &world[usize::from(*kind) % world.len()];
        let distribution = &distributions[usize::from(flags >> 2) % distributions.len()];
        let mut lines = rest.splitn(3, |byte| *byte == b'\n');
        let mut line = || lines.next().unwrap_or_default();
        check(*kind, distribution, *flags, [line(), line(), line()]);
    });
}

fn check(kind: KeyType, distribution: &Distribution, flags: u8, values: [&[u8]; 3]) {
    let mut all = ShardSet::new();
    for shard in distribution.shards().iter() {
        all.insert(shard);
    }
    for value in values {
        let declared = u32::from(flags);
        for binary in [false, true] {
            let read = Key::from_parameter(kind, Some(value), binary, declared);
            drop(read.map(|key| distribution.place(&[key])));
        }
        drop(Key::from_literal(kind, value, flags & 1 != 0));
        let Ok(key) = Key::from_text(kind, value) else {
            continue;
        };
        drop(keeps(kind, i32::from(flags), &key));
        let placed = distribution.place(std::slice::from_ref(&key));
        if let Ok(shard) = placed {
            assert!(all.contains(shard), "{key} is outside of its distribution");
        }
        if let Key::Int(value) = key {
            let bytes = value.to_be_bytes();
            let wide = Key::from_binary(KeyType::Int8, &bytes).expect("eight bytes");
            assert_eq!(distribution.place(&[wide]), placed);
        }
        let own = key.clone().into_owned();
        assert_eq!(distribution.place(&[own]), placed);
    }
    if kind == KeyType::Text {
        return;
    }
    let read = |value| Key::from_text(kind, value).ok();
    let [Some(low), Some(high), Some(key)] = values.map(read) else {
        return;
    };
    let mut span = Span::default();
    span.above(low, flags & 1 != 0);
    span.below(high, flags & 2 != 0);
    let mut reached = ShardSet::new();
    distribution.between(&span, &mut reached);
    if let (true, Ok(shard)) = (
        span.has(&key),
        distribution.place(std::slice::from_ref(&key)),
    ) {
        assert!(
            reached.contains(shard),
            "{key} is beyond what {span:?} reaches"
        );
    }
}

fn world_of_all() -> Vec<(KeyType, Vec<Distribution>)> {
    let bounds: [(KeyType, [&str; 3]); 9] = [
        (KeyType::Int2, ["-5", "0", "100"]),
        (KeyType::Int4, ["-5", "0", "100"]),
        (KeyType::Int8, ["-5", "0", "100"]),
        (KeyType::Text, ["A", "Q", "z"]),
        (
            KeyType::Uuid,
            [
                "00000000-0000-0000-0000-000000000001",
                "80000000-0000-0000-0000-000000000000",
                "ffffffff-0000-0000-0000-000000000000",
            ],
        ),
        (KeyType::Date, ["1999-12-31", "2020-02-29", "2026-01-01"]),
        (
            KeyType::Timestamp,
            [
                "1999-12-31 00:00:00",
                "2020-02-29 12:00:00.5",
                "2026-01-01 00:00:00",
            ],
        ),
        (
            KeyType::TimestampTz,
            [
                "1999-12-31 00:00:00+00",
                "2020-02-29 12:00:00+02",
                "2026-01-01 00:00:00+00",
            ],
        ),
        (KeyType::Numeric, ["-1.5", "0", "1000000"]),
    ];
    let all = bounds
        .into_iter()
        .map(|(kind, bounds)| (kind, distributions(kind, bounds)));
    all.collect()
}

fn distributions(kind: KeyType, bounds: [&str; 3]) -> Vec<Distribution> {
    let names: Vec<String> = "abcd".chars().map(String::from).collect();
    let shards = || names.iter().cloned().map(Place::Shard).collect::<Vec<_>>();
    let part = |to: Option<&str>, place| RangePart {
        to: to.map(String::from),
        place,
    };
    let range = |last: bool| {
        let mut parts = vec![
            part(Some(bounds[0]), Place::Shard("d".into())),
            part(Some(bounds[1]), Place::Jump(shards())),
            part(Some(bounds[2]), Place::Shard("a".into())),
        ];
        parts.extend(last.then(|| part(None, Place::Shard("b".into()))));
        Place::Range(parts)
    };
    let list = vec![(bounds[1].to_owned(), Place::Shard("c".into()))];
    let mut places = vec![
        Place::Jump(shards()),
        Place::Postgres(shards()),
        range(true),
        range(false),
        Place::List(list.clone(), Some(Box::new(Place::Jump(shards())))),
        Place::List(list, None),
    ];
    if kind.is_int() {
        places.push(Place::Modulo(shards()));
    }
    let distribution = |place| {
        let config = config::Distribution {
            name: "d".into(),
            key: vec![kind],
            place,
            pins: vec![(bounds[0].into(), "c".into())],
        };
        Distribution::new(&config, &names).expect("it is valid")
    };
    places.into_iter().map(distribution).collect()
}
