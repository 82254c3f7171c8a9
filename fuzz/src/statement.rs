//! Planning and routing of any text: nothing panics, and a plan from the memo routes as one made for the text.

use std::cell::OnceCell;

use pgherd::config::{
    Constraints, Database, Distribution, Host, Ids, KeyType, Place, Shard, Table as Rule,
    TableKind, Unlisted,
};
use pgherd::placement::catalog::{Catalog, Collation, Column, Table};
use pgherd::placement::topology::Topology;
use pgherd::planner::memo::{Memo, Scope};
use pgherd::planner::plan::{Literal, Parameter, Script, Values};
use pgherd::planner::stored::{self, Stored, ViewText};
use pgherd::planner::{self, Context};
use pgherd::sql::mask::{Literal as Span, Masked};
use pgherd::sql::scan::Lexing;

/// The first byte chooses the rules and the parameters; the others are SQL.
pub fn run(data: &[u8]) {
    thread_local! {
        static WORLD: OnceCell<World> = const { OnceCell::new() };
    }
    if let Some((flags, text)) = data.split_first() {
        WORLD.with(|world| world.get_or_init(World::new).check(*flags, text));
    }
}

struct World {
    topology: Topology,
    catalog: Catalog,
    path: Vec<String>,
}

impl World {
    fn check(&self, flags: u8, text: &[u8]) {
        let lexing = Lexing {
            standard_conforming_strings: flags & 1 == 0,
            ..Lexing::default()
        };
        let comment_hints = flags & 2 != 0;
        let tenant = flags & 4 != 0;
        let context = Context {
            topology: &self.topology,
            catalog: &self.catalog,
            search_path: &self.path,
            lexing,
            comment_hints,
            tenant,
        };
        let scope = Scope {
            database: 1,
            epoch: 1,
            search_path: 1,
            lexing,
            comment_hints,
            tenant,
        };
        let mut memo = Memo::new(1 << 20, 1);
        let mut masked = Masked::default();
        let script = planner::script(text, context);
        for statement in &script.statements {
            assert!(text.get(statement.span.clone()).is_some());
        }
        let extended = memo.extended(text, scope, context);
        let exact = self.routes(&script, text, &script.literals, flags);
        assert_eq!(
            exact,
            self.routes(&extended, text, &extended.literals, flags)
        );
        memo.simple(text, scope, context, &mut masked);
        let Some(sibling) = sibling(text, lexing) else {
            return;
        };
        // Most often answered by the plan of the first text.
        let shared = memo.simple(&sibling, scope, context, &mut masked);
        let own = planner::script(&sibling, context);
        let by_memo = self.routes(&shared, &sibling, masked.literals(), flags);
        let by_text = self.routes(&own, &sibling, &own.literals, flags);
        assert_eq!(by_memo, by_text, "{}", sibling.escape_ascii());
    }

    /// What is decided for each statement.
    fn routes(&self, script: &Script, text: &[u8], literals: &[Span], flags: u8) -> Vec<String> {
        let values = Bound {
            text,
            literals,
            kind: flags >> 2 & 3,
        };
        let describe = |statement| {
            let route = match planner::route(statement, &self.topology, &values) {
                Ok(route) => format!("{route:?}"),
                Err(fault) => {
                    // As the server says it.
                    let code = fault.code.as_str();
                    let is_servers = code.starts_with("22P") || code == "22021";
                    assert!(fault.hint.is_some() || is_servers, "no hint: {fault}");
                    fault.code.to_string()
                }
            };
            format!(
                "{} {:?} {} {} {} {route}",
                statement.verb,
                statement.effect,
                statement.writes,
                statement.no_block,
                statement.block_only
            )
        };
        script.statements.iter().map(describe).collect()
    }

    fn new() -> World {
        let names: Vec<String> = (0..4).map(|at| format!("shard_{at}")).collect();
        let shards = names.iter().map(|name| Shard {
            name: name.clone(),
            primary: Host {
                host: "h".into(),
                port: 5432,
                dbname: "d".into(),
                tls: None,
            },
            replicas: Vec::new(),
        });
        let places = || names.iter().cloned().map(Place::Shard).collect();
        let by = |name: &str, key: &[KeyType], place| {
            let distribution = Distribution {
                name: name.into(),
                key: key.to_vec(),
                place,
                pins: Vec::new(),
            };
            (name.to_owned(), distribution)
        };
        let rule = |name: &str, kind| Rule {
            schema: None,
            name: name.into(),
            kind,
            ids: Ids::default(),
            cache: None,
        };
        let sharded = |distribution: &str, key: &[&str]| TableKind::Sharded {
            distribution: distribution.into(),
            key: key.iter().map(|column| (*column).to_owned()).collect(),
        };
        let config = Database {
            name: "shop".into(),
            shards: shards.collect(),
            home: "shard_0".into(),
            server_user: None,
            server_password: None,
            control_user: None,
            control_password: None,
            pool_mode: None,
            default_pool_size: None,
            distributions: [
                by("users", &[KeyType::Int8], Place::Modulo(places())),
                by("sessions", &[KeyType::Text], Place::Jump(places())),
                by(
                    "stores",
                    &[KeyType::Text, KeyType::Int8],
                    Place::Jump(places()),
                ),
            ]
            .into(),
            tables: vec![
                rule("t", sharded("users", &["user_id"])),
                rule("orders", sharded("users", &["customer_id"])),
                rule("Account", sharded("users", &["userId"])),
                rule("sessions", sharded("sessions", &["session_id"])),
                rule("stock", sharded("stores", &["store", "product_id"])),
                rule("o", TableKind::Reference),
                rule("options", TableKind::Single),
            ],
            unlisted: Unlisted::Single,
            constraints: Constraints::Enforce,
            tenant: None,
        };
        World {
            topology: Topology::new(&config).expect("it is valid"),
            catalog: catalog(),
            path: vec!["public".into()],
        }
    }
}

/// Three tables and a view.
fn catalog() -> Catalog {
    let mut catalog = Catalog::new(1);
    for (name, columns) in [
        ("t", ["id", "user_id", "name"].as_slice()),
        ("o", &["id", "label"]),
        ("options", &["name", "value"]),
        ("report", &["user_id"]),
    ] {
        let columns = columns.iter().map(|column| Column {
            name: (*column).to_owned(),
            oid: 20,
            generated: false,
            modifier: -1,
            primary: false,
            collation: Collation::Other,
            loose: false,
        });
        let table = Table {
            plain: true,
            columns: columns.collect(),
            ..Table::default()
        };
        catalog.insert("public", name, table);
    }
    let report = ViewText {
        schema: "public".into(),
        name: "report".into(),
        text: "SELECT t.user_id FROM public.t WHERE (t.name IS NOT NULL);".into(),
        reads: vec![("public".into(), "t".into())],
        ..ViewText::default()
    };
    let stored = Stored {
        views: vec![report],
        ..Stored::default()
    };
    stored::settle(&mut catalog, &stored);
    catalog
}

/// The same text with other constants, if it has any.
fn sibling(text: &[u8], lexing: Lexing) -> Option<Vec<u8>> {
    let mut masked = Masked::default();
    masked.read(text, lexing).ok()?;
    let mut other = text.to_vec();
    for literal in masked.literals() {
        for byte in other.get_mut(literal.start..literal.end)? {
            *byte = match *byte {
                b'0'..=b'8' => *byte + 1,
                b'9' => b'1',
                b'f'..=b'y' | b'F'..=b'Y' => *byte + 1,
                same => same,
            };
        }
    }
    (other != text).then_some(other)
}

struct Bound<'a> {
    text: &'a [u8],
    literals: &'a [Span],
    kind: u8,
}

impl Values for Bound<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let (value, binary, oid): (Option<&[u8]>, bool, u32) = match self.kind {
            0 => (Some(b"7"), false, 0),
            1 => (Some(&[0, 0, 0, 0, 0, 0, 0, 6]), true, 20),
            2 => (Some(b"{6,7}"), false, 0),
            _ => (None, false, 25),
        };
        (index < 8).then_some(Parameter { value, binary, oid })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.text),
        })
    }
}
