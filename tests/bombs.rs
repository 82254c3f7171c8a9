//! Statements made to break a reader: deep, long, wide, or of random bytes. Each ends in a plan or
//! an error, on a stack of 2 MiB, the size that threads have.

use pgherd::config::{
    Constraints, Database, Distribution, Host, Ids, KeyType, Place, Shard, Table, TableKind,
    Unlisted,
};
use pgherd::placement::catalog::Catalog;
use pgherd::placement::topology::Topology;
use pgherd::planner::plan::Access;
use pgherd::planner::{self, Context};
use pgherd::sql::scan::Lexing;
use proptest::prelude::{any, prop_assert, proptest};

fn topology() -> Topology {
    let shard = |name: &str| Shard {
        name: name.into(),
        primary: Host {
            host: "h".into(),
            port: 1,
            dbname: "d".into(),
            tls: None,
        },
        replicas: Vec::new(),
    };
    Topology::new(&Database {
        name: "d".into(),
        shards: vec![shard("a"), shard("b")],
        home: "a".into(),
        server_user: None,
        server_password: None,
        control_user: None,
        control_password: None,
        pool_mode: None,
        default_pool_size: None,
        distributions: [(
            "users".to_owned(),
            Distribution {
                name: "users".into(),
                key: vec![KeyType::Int8],
                place: Place::Jump(["a", "b"].map(|name| Place::Shard(name.into())).into()),
                pins: Vec::new(),
            },
        )]
        .into(),
        tables: vec![Table {
            schema: None,
            name: "t".into(),
            kind: TableKind::Sharded {
                distribution: "users".into(),
                key: vec!["user_id".into()],
            },
            ids: Ids::default(),
            cache: None,
        }],
        unlisted: Unlisted::Refuse,
        constraints: Constraints::Enforce,
        tenant: None,
    })
    .unwrap()
}

/// The codes of the refusals of a text's statements; empty for those that are not refused.
fn codes(text: &[u8]) -> Vec<&'static str> {
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
    planner::script(text, context)
        .statements
        .iter()
        .map(|statement| {
            if let Access::Refuse(fault) = &statement.access {
                fault.code.as_str()
            } else {
                ""
            }
        })
        .collect()
}

fn check(text: String, expect: &str) {
    let start: String = text.chars().take(60).collect();
    let found = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || codes(text.as_bytes()))
        .unwrap()
        .join()
        .expect("no overflow");
    assert_eq!(found, [expect], "{start}");
}

#[test]
fn depth_is_bounded() {
    let deep = |open: &str, close: &str, depth: usize| {
        format!("SELECT {}1{}", open.repeat(depth), close.repeat(depth))
    };
    check(deep("(", ")", 100), "");
    check(deep("(", ")", 10_000), "54001");
    check(deep("(", ")", 1_000_000), "54000");
    check(deep("ARRAY[", "]", 10_000), "54001");
    check(deep("(SELECT ", ")", 100), "");
    check(deep("(SELECT ", ")", 10_000), "54001");
    check(deep("CASE WHEN true THEN ", " END", 100), "");
    check(deep("CASE WHEN true THEN ", " END", 10_000), "54001");
    check(deep("- ", "", 3_000), "54001");
    check(deep("- ", "", 100_000), "54001");
    check(deep("NOT ", "", 5_000), "54001");
    // What stands once in the text is looked at once.
    let between = "(".repeat(60) + "1" + &" BETWEEN 0 AND 1)".repeat(60);
    check(format!("SELECT * FROM t WHERE {between}"), "");
    let columns = "user_id, ".repeat(60_000);
    check(
        format!("SELECT * FROM (SELECT {columns} user_id FROM t) d WHERE user_id = 1"),
        "",
    );
    let list = "1, ".repeat(60_000);
    check(
        format!("WITH d AS (SELECT * FROM t) SELECT * FROM d WHERE user_id IN ({list} 2)"),
        "",
    );
}

#[test]
fn chains_are_bounded() {
    let chain = |link: &str, length: usize| format!("SELECT 1{}", link.repeat(length));
    for link in [
        " OR 1 = 1",
        " AND 1 = 1",
        " || 'a'",
        " + 1",
        "::int",
        " IS NULL",
        " UNION SELECT 1",
        "[1]",
        " = 1",
    ] {
        let few = if link.contains('=') { 1_900 } else { 3_900 };
        check(chain(link, few), "");
        check(chain(link, 1_000_000), "54000");
    }
}

#[test]
fn size_is_bounded() {
    let list = |count: usize| format!("SELECT 1 WHERE 1 IN ({}1)", "1,".repeat(count));
    check(list(100_000), "");
    check(list(8 << 20), "54000");
    check(format!("SELECT '{}'", "a".repeat(16 << 20)), "");
    check(format!("SELECT {}", "a".repeat(16 << 20)), "");
    let rows = "(1, 'a', NULL),".repeat(40_000);
    check(format!("VALUES {rows} (1, 'a', NULL)"), "");
}

proptest! {
    #[test]
    fn any_bytes_are_planned(text in proptest::collection::vec(any::<u8>(), 0..120)) {
        codes(&text);
    }

    #[test]
    fn any_words_are_planned(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..30)) {
        let found = codes(words.join(" ").as_bytes());
        prop_assert!(found.len() <= words.len() + 1);
    }
}

const WORDS: &[&str] = &[
    "SELECT", "INSERT", "INTO", "UPDATE", "SET", "DELETE", "FROM", "WHERE", "JOIN", "LEFT", "ON",
    "USING", "VALUES", "WITH", "AS", "(", ")", ",", ";", "=", "*", ".", "::", "[", "]", "t",
    "\"T\"", "a", "1", "'x'", "$1", "NULL", "AND", "OR", "NOT", "IN", "ANY", "COPY", "STDIN", "TO",
    "CASE", "END", "BEGIN", "CREATE", "TABLE", "FUNCTION", "ATOMIC", "EXPLAIN", "PREPARE",
    "DECLARE", "CURSOR", "FOR", "UNION", "ORDER", "BY", "LIMIT", "DEFAULT", "CONFLICT", "DO",
    "LOCAL", "TIME", "ZONE", "ROLLBACK", "RESET", "ALL", "-", "--", "/*", "*/", "E'", "$$", "ROW",
    "LATERAL",
];
