//! What planning costs: a statement met before, in both protocols, and one met for the first time.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use pgherd::config::{
    Constraints, Database, Distribution, Host, Ids, KeyType, Place, Shard, Table, TableKind,
    Unlisted,
};
use pgherd::placement::catalog::Catalog;
use pgherd::placement::topology::Topology;
use pgherd::planner::memo::{Memo, Scope};
use pgherd::planner::plan::{Literal, Parameter, Values};
use pgherd::planner::{self, Context};
use pgherd::sql::mask::{Literal as Span, Masked};
use pgherd::sql::scan::Lexing;

const POINT: &str = "SELECT abalance FROM accounts WHERE aid = 12345;";
const PREPARED: &str = "SELECT abalance FROM accounts WHERE aid = $1";
const INSERT: &str = "INSERT INTO accounts (aid, bid, name, note, amount) VALUES (12345, 7, 'somebody', 'a note of some length', 12.50)";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let topology = topology();
    let catalog = Catalog::new(1);
    let path = ["public".to_owned()];
    let context = Context {
        topology: &topology,
        catalog: &catalog,
        search_path: &path,
        lexing: Lexing::default(),
        comment_hints: false,
        tenant: false,
    };
    let scope = Scope {
        database: 1,
        epoch: 1,
        search_path: 1,
        lexing: Lexing::default(),
        comment_hints: false,
        tenant: false,
    };
    let mut memo = Memo::new(1 << 20, 7);
    let mut masked = Masked::default();
    criterion.bench_function("simple, known, point select", |bench| {
        bench.iter(|| {
            let script = memo.simple(black_box(POINT.as_bytes()), scope, context, &mut masked);
            let values = Bound {
                text: POINT.as_bytes(),
                literals: masked.literals(),
            };
            planner::route(&script.statements[0], &topology, &values).is_ok()
        });
    });
    criterion.bench_function("extended, known, point select", |bench| {
        bench.iter(|| {
            let script = memo.extended(black_box(PREPARED.as_bytes()), scope, context);
            let values = Bound {
                text: &[],
                literals: &[],
            };
            planner::route(&script.statements[0], &topology, &values).is_ok()
        });
    });
    let script = planner::script(PREPARED.as_bytes(), context);
    criterion.bench_function("route alone, integer parameter", |bench| {
        let values = Bound {
            text: &[],
            literals: &[],
        };
        bench.iter(|| planner::route(black_box(&script.statements[0]), &topology, &values).is_ok());
    });
    for (name, text) in [("point select", POINT), ("insert", INSERT)] {
        criterion.bench_function(&format!("first seen, {name}"), |bench| {
            bench.iter(|| planner::script(black_box(text.as_bytes()), context));
        });
        let mut group = criterion.benchmark_group("mask");
        group.throughput(Throughput::Bytes(u64::try_from(text.len()).unwrap()));
        group.bench_function(name, |bench| {
            bench.iter(|| {
                masked
                    .read(black_box(text.as_bytes()), Lexing::default())
                    .is_ok()
            });
        });
        group.finish();
    }
    criterion.final_summary();
}

struct Bound<'a> {
    text: &'a [u8],
    literals: &'a [Span],
}

impl Values for Bound<'_> {
    fn parameter(&self, _index: u16) -> Option<Parameter<'_>> {
        Some(Parameter {
            value: Some(b"12345"),
            binary: false,
            oid: 0,
        })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.text),
        })
    }
}

fn topology() -> Topology {
    let names: Vec<String> = (0..4).map(|at| format!("shard_{at}")).collect();
    let host = Host {
        host: "h".into(),
        port: 5432,
        dbname: "d".into(),
        tls: None,
    };
    let shards = names.iter().map(|name| Shard {
        name: name.clone(),
        primary: host.clone(),
        replicas: Vec::new(),
    });
    let distribution = Distribution {
        name: "accounts".into(),
        key: vec![KeyType::Int8],
        place: Place::Jump(names.iter().cloned().map(Place::Shard).collect()),
        pins: Vec::new(),
    };
    Topology::new(&Database {
        name: "d".into(),
        shards: shards.collect(),
        home: "shard_0".into(),
        server_user: None,
        server_password: None,
        control_user: None,
        control_password: None,
        pool_mode: None,
        default_pool_size: None,
        distributions: [("accounts".to_owned(), distribution)].into(),
        tables: vec![Table {
            schema: None,
            name: "accounts".into(),
            kind: TableKind::Sharded {
                distribution: "accounts".into(),
                key: vec!["aid".into()],
            },
            ids: Ids::default(),
            cache: None,
        }],
        unlisted: Unlisted::Single,
        constraints: Constraints::Enforce,
        tenant: None,
    })
    .unwrap()
}
