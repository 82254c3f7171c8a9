//! Random schemas: sharded tables on several distributions, reference and single ones, with awkward names.

use std::fmt::Write as _;

use pgherd::config::{self, KeyType, Place, RangePart};
use pgherd::placement::distribution;
use pgherd::types::key::Key;

use super::rows;
use super::value::{Kind, Value};
use crate::herd::Options;
use crate::random::Random;

/// How a set of tables is spread, with the keys that their rows have.
#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) kinds: Vec<Kind>,
    /// What the proxy's configuration says of it.
    yaml: String,
    /// The same, built by the library, to check where rows lie.
    placed: distribution::Distribution,
    /// Keys that rows have; the first ones have the most.
    pub(super) keys: Vec<Vec<Value>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// By the distribution of this index.
    Sharded(usize),
    Reference,
    Single,
}

#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) sql_type: String,
    pub(super) not_null: bool,
    default: Option<&'static str>,
}

/// A table. Its primary key is its key columns and `n`.
#[derive(Debug)]
pub(super) struct Table {
    /// Its name as the catalogs have it.
    pub(super) name: String,
    pub(super) schema: Option<&'static str>,
    pub(super) columns: Vec<Column>,
    /// Of its columns, the key's; those of a table that is not sharded are as good as any.
    pub(super) key: Vec<usize>,
    /// The column `n`.
    pub(super) number: usize,
    pub(super) spread: Spread,
    /// Keys that its rows have.
    pub(super) keys: Vec<Vec<Value>>,
}

#[derive(Debug)]
pub(super) struct Schema {
    pub(super) distributions: Vec<Distribution>,
    pub(super) tables: Vec<Table>,
}

impl Table {
    pub(super) fn is_sharded(&self) -> bool {
        matches!(self.spread, Spread::Sharded(_))
    }

    /// Its name for a statement of the test's own.
    pub(super) fn sql(&self) -> String {
        let schema = self.schema.unwrap_or("public");
        format!("{schema}.\"{}\"", self.name)
    }

    /// The name of its view.
    pub(super) fn view(&self) -> String {
        let schema = self.schema.unwrap_or("public");
        format!("{schema}.\"View of {}\"", self.name)
    }

    /// The columns that are neither of the key nor `n`.
    pub(super) fn payload(&self) -> Vec<usize> {
        let is_payload = |at: &usize| !self.key.contains(at) && *at != self.number;
        (0..self.columns.len()).filter(is_payload).collect()
    }

    fn create(&self) -> String {
        let mut sql = format!("CREATE TABLE {} (", self.sql());
        for column in &self.columns {
            write!(sql, "\"{}\" {}", column.name, column.sql_type).expect("a string takes it");
            if column.not_null {
                sql += " NOT NULL";
            }
            if let Some(default) = column.default {
                write!(sql, " DEFAULT {default}").expect("a string takes it");
            }
            sql += ", ";
        }
        let primary = self.key.iter().chain([&self.number]);
        let names: Vec<String> = primary
            .map(|&at| format!("\"{}\"", self.columns[at].name))
            .collect();
        writeln!(sql, "PRIMARY KEY ({}));", names.join(", ")).expect("a string takes it");
        let (view, table) = (self.view(), self.sql());
        // One that lets conditions through, or one that does not.
        let rest = if self.columns.len().is_multiple_of(2) {
            "WHERE n IS NOT NULL"
        } else {
            "ORDER BY n LIMIT 1000000"
        };
        sql + &format!("CREATE VIEW {view} AS SELECT * FROM {table} {rest};\n")
    }
}

impl Distribution {
    /// The shard of a key.
    pub(super) fn shard(&self, key: &[Option<String>]) -> usize {
        let values: Vec<Key<'_>> = key
            .iter()
            .zip(&self.kinds)
            .map(|(text, kind)| {
                let text = text.as_deref().expect("a key is not NULL");
                Key::from_text(key_type(*kind), text.as_bytes()).expect("a key of its type")
            })
            .collect();
        usize::from(self.placed.place(&values).expect("a key has a shard").0)
    }
}

impl Schema {
    pub(super) fn random(random: &mut Random, shards: usize) -> Schema {
        let kinds = key_kinds(random);
        let mut distributions = vec![distribution(random, &kinds[0], shards)];
        if random.chance(85) {
            distributions.push(distribution(random, &kinds[1], shards));
        }
        let mut spreads = vec![Spread::Sharded(0), Spread::Sharded(0)];
        if distributions.len() > 1 {
            spreads.push(Spread::Sharded(1));
        }
        spreads.push(Spread::Reference);
        if random.chance(80) {
            spreads.push(Spread::Single);
        }
        let mut tables = Vec::new();
        for spread in spreads {
            let table = table(random, spread, &distributions, &tables);
            tables.push(table);
        }
        Schema {
            distributions,
            tables,
        }
    }

    /// The DDL, for every server.
    pub(super) fn ddl(&self) -> String {
        let tables = self.tables.iter().map(Table::create);
        let tables: String = tables.collect();
        format!("CREATE SCHEMA other;\n{tables}")
    }

    pub(super) fn options(&self) -> Options {
        let mut options = Options::new("transaction");
        options.twins(1);
        let mut known = vec![None; self.distributions.len()];
        for table in &self.tables {
            let name = table.schema.map_or_else(String::new, |it| format!("{it}."));
            let name = format!("'{name}\"{}\"'", table.name);
            let columns = table.key.iter().map(|&at| &table.columns[at].name);
            let columns: Vec<String> = columns.map(|name| format!("'{name}'")).collect();
            let key = format!("[{}]", columns.join(", "));
            match table.spread {
                Spread::Sharded(index) => {
                    if known[index].is_none() {
                        known[index] = Some(());
                        options.distribution(&format!("d{index}"), &self.distributions[index].yaml);
                    }
                    options.on(&name, &format!("d{index}"), &key);
                }
                Spread::Reference => {
                    options.table(&name, "reference");
                }
                Spread::Single => {
                    options.table(&name, "single");
                }
            }
        }
        options
    }

    /// The schema for a reader: DDL and configuration.
    pub(super) fn show(&self) -> String {
        let mut text = self.ddl();
        for (index, distribution) in self.distributions.iter().enumerate() {
            writeln!(text, "-- d{index}: {}", distribution.yaml).expect("a string takes it");
        }
        for table in &self.tables {
            let key: Vec<&str> = table
                .key
                .iter()
                .map(|&at| table.columns[at].name.as_str())
                .collect();
            writeln!(text, "-- {}: {:?} by {key:?}", table.sql(), table.spread)
                .expect("a string takes it");
        }
        text
    }
}

pub(super) fn key_type(kind: Kind) -> KeyType {
    match kind {
        Kind::Int2 => KeyType::Int2,
        Kind::Int4 => KeyType::Int4,
        Kind::Int8 => KeyType::Int8,
        Kind::Text | Kind::Bool => KeyType::Text,
        Kind::Uuid => KeyType::Uuid,
        Kind::Date => KeyType::Date,
        Kind::Timestamp => KeyType::Timestamp,
        Kind::Numeric => KeyType::Numeric,
    }
}

/// The key types of two distributions.
fn key_kinds(random: &mut Random) -> [Vec<Kind>; 2] {
    [(); 2].map(|()| match random.below(12) {
        0..=2 => vec![Kind::Int8],
        3 => vec![Kind::Int4],
        4 => vec![Kind::Int2],
        5..=6 => vec![Kind::Text],
        7 => vec![Kind::Uuid],
        8 => vec![Kind::Date],
        9 => vec![*random.choose(&[Kind::Numeric, Kind::Timestamp])],
        10 => vec![Kind::Text, Kind::Int8],
        _ => vec![Kind::Int4, *random.choose(&[Kind::Uuid, Kind::Int8])],
    })
}

fn distribution(random: &mut Random, kinds: &[Kind], shards: usize) -> Distribution {
    let keys = rows::keys(random, kinds, 14);
    let names: Vec<String> = (0..shards).map(|at| format!("shard_{at}")).collect();
    let (place, yaml) = place(random, kinds, &keys, &names);
    let mut config = config::Distribution {
        name: "d".into(),
        key: kinds.iter().copied().map(key_type).collect(),
        place,
        pins: Vec::new(),
    };
    let kind_names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let mut yaml = format!("key: [{}], place: {yaml}", kind_names.join(", "));
    if kinds.len() == 1 && random.chance(30) {
        let key = keys[3][0].text().expect("not NULL");
        let shard = random.choose(&names).clone();
        write!(yaml, ", pins: {{'{}': {shard}}}", key.replace('\'', "''")).expect("it grows");
        config.pins.push((key, shard));
    }
    Distribution {
        kinds: kinds.to_vec(),
        yaml: format!("{{{yaml}}}"),
        placed: distribution::Distribution::new(&config, &names).expect("a right one"),
        keys,
    }
}

/// A rule for the library, and in the words of the configuration.
fn place(
    random: &mut Random,
    kinds: &[Kind],
    keys: &[Vec<Value>],
    names: &[String],
) -> (Place, String) {
    let all = || names.iter().cloned().map(Place::Shard).collect::<Vec<_>>();
    let shard = |random: &mut Random| random.choose(names).clone();
    match random.below(6) {
        0 if kinds.len() == 1 && kinds[0].is_int() => (
            Place::Modulo(all()),
            format!("{{modulo: [{}]}}", names.join(", ")),
        ),
        1 => (
            Place::Postgres(all()),
            format!("{{postgres: [{}]}}", names.join(", ")),
        ),
        2 | 3 if kinds.len() == 1 => {
            let mut bounds: Vec<String> =
                keys[1..5].iter().filter_map(|key| key[0].text()).collect();
            sort_bounds(&mut bounds, kinds[0]);
            let mut parts = Vec::new();
            let mut yaml = String::new();
            for bound in bounds {
                let shard = shard(random);
                write!(
                    yaml,
                    "{{to: '{}', shard: {shard}}}, ",
                    bound.replace('\'', "''")
                )
                .expect("it grows");
                parts.push(RangePart {
                    to: Some(bound),
                    place: Place::Shard(shard),
                });
            }
            parts.push(RangePart {
                to: None,
                place: Place::Jump(all()),
            });
            (
                Place::Range(parts),
                format!("{{range: [{yaml}{{jump: all}}]}}"),
            )
        }
        4 if kinds.len() == 1 => {
            let mut values = Vec::new();
            let mut yaml = String::new();
            for key in keys.iter().take(3) {
                let (text, shard) = (key[0].text().expect("not NULL"), shard(random));
                write!(yaml, "'{}': {shard}, ", text.replace('\'', "''")).expect("it grows");
                values.push((text, Place::Shard(shard)));
            }
            let other = Place::Jump(all());
            (
                Place::List(values, Some(Box::new(other))),
                format!("{{list: {{{yaml}else: {{jump: all}}}}}}"),
            )
        }
        _ => (Place::Jump(all()), "{jump: all}".to_owned()),
    }
}

/// Ascending, as the type of the key orders them.
fn sort_bounds(bounds: &mut Vec<String>, kind: Kind) {
    let key = |text: &String| {
        let key = Key::from_text(key_type(kind), text.as_bytes());
        key.expect("a key of its type").into_owned()
    };
    bounds.sort_by_key(key);
    bounds.dedup_by_key(|text| key(text));
}

const NAMES: [&str; 12] = [
    "orders",
    "items",
    "t",
    "Mixed",
    "with space",
    "select",
    "key",
    "log_2",
    "k",
    "user",
    "It's",
    "n",
];
const KEY_NAMES: [&str; 7] = ["k", "id", "Key", "the key", "user", "v", "customer_id"];

fn table(
    random: &mut Random,
    spread: Spread,
    distributions: &[Distribution],
    known: &[Table],
) -> Table {
    let schema = random.chance(25).then_some("other");
    let name = loop {
        let name = *random.choose(&NAMES);
        if name != "It's" && known.iter().all(|table| table.name != name) {
            break name.to_owned();
        }
    };
    let own = [*random.choose(&[Kind::Int4, Kind::Int8, Kind::Text])];
    let (kinds, keys) = match spread {
        Spread::Sharded(index) => {
            let distribution = &distributions[index];
            (distribution.kinds.as_slice(), distribution.keys.clone())
        }
        Spread::Reference | Spread::Single => (own.as_slice(), rows::keys(random, &own, 14)),
    };
    let mut columns = Vec::new();
    for kind in kinds {
        let name = loop {
            let name = *random.choose(&KEY_NAMES);
            if columns.iter().all(|column: &Column| column.name != name) {
                break name;
            }
        };
        columns.push(key_column(random, name, *kind));
    }
    columns.push(plain("n", Kind::Int4, true));
    let key = columns[..kinds.len()].iter().map(|it| it.name.clone());
    let key: Vec<String> = key.collect();
    columns.extend(payload(random));
    // Key columns stand anywhere.
    for at in 0..columns.len() {
        let other = random.below(columns.len());
        columns.swap(at, other);
    }
    let at = |name: &str| columns.iter().position(|column| column.name == name);
    Table {
        name,
        schema,
        key: key.iter().filter_map(|name| at(name)).collect(),
        number: at("n").expect("it has one"),
        columns,
        spread,
        keys,
    }
}

fn key_column(random: &mut Random, name: &str, kind: Kind) -> Column {
    let mut column = plain(name, kind, true);
    // Integers of every width are one key.
    if kind == Kind::Int4 && random.chance(20) {
        column.kind = Kind::Int8;
        "bigint".clone_into(&mut column.sql_type);
    }
    if kind == Kind::Text && random.chance(30) {
        "varchar".clone_into(&mut column.sql_type);
    }
    column
}

fn plain(name: &str, kind: Kind, not_null: bool) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        sql_type: kind.name().to_owned(),
        not_null,
        default: None,
    }
}

fn payload(random: &mut Random) -> Vec<Column> {
    let mut columns = Vec::new();
    for (name, kind, sql_type, default) in [
        ("a", Kind::Int4, "int", Some("7")),
        ("b", Kind::Text, "text", Some("'none'")),
        ("Big", Kind::Int8, "bigint", None),
        ("c", Kind::Numeric, "numeric(12,2)", None),
        ("d", Kind::Date, "date", None),
        ("e f", Kind::Bool, "boolean", Some("true")),
        ("at", Kind::Timestamp, "timestamp", None),
        ("w", Kind::Text, "varchar(8)", None),
        ("s", Kind::Int2, "smallint", None),
    ] {
        if name == "a" || name == "b" || random.chance(45) {
            let mut column = plain(name, kind, random.chance(20));
            sql_type.clone_into(&mut column.sql_type);
            column.default = default.filter(|_| random.chance(40));
            columns.push(column);
        }
    }
    columns
}
