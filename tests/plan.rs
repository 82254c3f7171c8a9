//! Golden plans: each statement of `tests/golden/plan/*.txt` with what the planner makes of it.
//!
//! A case is its statement in lines that begin with `> `, perhaps parameters in a line that begins
//! with `$ ` (`|` between them, `NULL`, all in text format), and then the plan of each statement in
//! it. `UPDATE_GOLDEN=1` writes the plans anew; read the difference in review.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgherd::config::KeyType;
use pgherd::config::{
    Constraints, Database, Distribution, Host, Ids, Lookup, Mode, Place, Policy, RangePart, Shard,
    Table as Rule, TableKind, Tenancy, Unlisted,
};
use pgherd::merge::{By, Finish};
use pgherd::placement::ShardSet;
use pgherd::placement::catalog::{Catalog, Collation, Column, Table};
use pgherd::placement::code::Volatility;
use pgherd::placement::topology::Topology;
use pgherd::planner::cache::Verdict;
use pgherd::planner::memo::{Memo, Scope};
use pgherd::planner::plan::{
    Access, Effect, Holders, Literal, Parameter, Route, Statement, Values,
};
use pgherd::planner::stored::{self, Function, Runner, Stored, ViewText};
use pgherd::planner::{self, Context};
use pgherd::sql::mask::{Literal as Span, Masked};
use pgherd::sql::scan::Lexing;
use pgherd::types::key::Key;

#[test]
fn plans_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plan");
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap();
        let (one_shard, tenant) = (stem == "one_shard", stem == "tenant");
        let found = replay(&text, one_shard, tenant, stem == "cache");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, found).unwrap();
        } else if found != text {
            wrong.push(format!(
                "{}:\n{}",
                path.display(),
                difference(&text, &found)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(old: &str, new: &str) -> String {
    old.lines()
        .zip(new.lines())
        .filter(|(old, new)| old != new)
        .take(20)
        .fold(String::new(), |mut text, (old, new)| {
            writeln!(text, "- {old}\n+ {new}").unwrap();
            text
        })
}

/// The same file with the plans as they are now.
fn replay(text: &str, one_shard: bool, tenant: bool, cached: bool) -> String {
    let mut world = World::new(if one_shard { 1 } else { 4 }, cached);
    world.tenant = tenant;
    let mut out = String::new();
    for block in text.split("\n\n") {
        let block = block.trim_end_matches('\n');
        let mut sql = String::new();
        let mut parameters = Vec::new();
        for line in block.lines() {
            if let Some(part) = line.strip_prefix("> ") {
                if !sql.is_empty() {
                    sql.push('\n');
                }
                sql.push_str(part);
            } else if let Some(list) = line.strip_prefix("$ ") {
                parameters = list.split('|').map(|one| one.trim().to_owned()).collect();
            }
        }
        if !out.is_empty() {
            out.push('\n');
        }
        for line in block
            .lines()
            .filter(|line| line.starts_with(['#', '>', '$']))
        {
            writeln!(out, "{line}").unwrap();
        }
        if !sql.is_empty() {
            world.show(&sql, &parameters, &mut out);
        }
    }
    out
}

struct World {
    topology: Topology,
    catalog: Catalog,
    path: Vec<String>,
    /// Whether it is for tenant 5.
    tenant: bool,
}

impl World {
    fn new(shards: usize, cached: bool) -> World {
        let host = Host {
            host: "h".into(),
            port: 5432,
            dbname: "d".into(),
            tls: None,
        };
        let names: Vec<String> = (0..shards).map(|at| format!("shard_{at}")).collect();
        let all = || Place::Modulo(names.iter().cloned().map(Place::Shard).collect());
        let by = |name: &str, key: &[KeyType], place| {
            let distribution = Distribution {
                name: name.into(),
                key: key.to_vec(),
                place,
                pins: Vec::new(),
            };
            (name.to_owned(), distribution)
        };
        let years = |names: &[String]| match names {
            [a, b, c, d] => Place::Range(
                [
                    (Some("100"), a),
                    (Some("200"), b),
                    (Some("300"), c),
                    (None, d),
                ]
                .map(|(to, shard)| RangePart {
                    to: to.map(String::from),
                    place: Place::Shard(shard.clone()),
                })
                .into(),
            ),
            _ => Place::Shard("shard_0".into()),
        };
        let pinned = |(name, mut distribution): (String, Distribution)| {
            let last = names.last().unwrap().clone();
            distribution.pins.push(("4711".into(), last));
            (name, distribution)
        };
        let jump = || Place::Jump(names.iter().cloned().map(Place::Shard).collect());
        let config = Database {
            name: "shop".into(),
            shards: names
                .iter()
                .map(|name| Shard {
                    name: name.clone(),
                    primary: host.clone(),
                    replicas: Vec::new(),
                })
                .collect(),
            home: "shard_0".into(),
            server_user: None,
            server_password: None,
            control_user: None,
            control_password: None,
            pool_mode: None,
            default_pool_size: None,
            distributions: [
                by("users", &[KeyType::Int8], all()),
                by("customers", &[KeyType::Int8], jump()),
                pinned(by("products", &[KeyType::Int8], jump())),
                by("sessions", &[KeyType::Text], jump()),
                by("stores", &[KeyType::Text, KeyType::Int8], jump()),
                by("years", &[KeyType::Int8], years(&names)),
            ]
            .into(),
            tables: if cached { with_cache(rules()) } else { rules() },
            unlisted: Unlisted::Single,
            constraints: Constraints::Enforce,
            tenant: Some(Tenancy {
                column: "user_id".into(),
                setting: None,
            }),
        };
        World {
            topology: Topology::new(&config).unwrap(),
            catalog: catalog(),
            path: vec!["public".into()],
            tenant: false,
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            topology: &self.topology,
            catalog: &self.catalog,
            search_path: &self.path,
            lexing: Lexing::default(),
            comment_hints: !self.tenant,
            tenant: self.tenant,
        }
    }

    fn show(&self, sql: &str, parameters: &[String], out: &mut String) {
        let script = planner::script(sql.as_bytes(), self.context());
        let values = Bound {
            sql,
            literals: &script.literals,
            parameters,
        };
        if script.statements.is_empty() {
            writeln!(out, "= nothing").unwrap();
        }
        for statement in &script.statements {
            let confined = statement.confined.as_deref().unwrap_or_default();
            let route = planner::tenant::check(confined, "5", &values)
                .and_then(|()| planner::route(statement, &self.topology, &values));
            let route = match route {
                Ok(route) => self.route(&route),
                Err(fault) => {
                    let is_servers = fault.code.as_str().starts_with("22P");
                    assert!(fault.hint.is_some() || is_servers, "no hint: {fault}");
                    format!("{} {}", fault.code, fault.message)
                }
            };
            let exact = if script.reusable { "" } else { " exact" };
            writeln!(out, "= {}{exact}\n  {route}", brief(statement)).unwrap();
            if let Some(verdict) = &statement.cache {
                self.show_cache(statement, sql, verdict, &values, out);
            }
            if let Effect::ExplainRoute { statement } = &statement.effect {
                let route = planner::route(statement, &self.topology, &values);
                let report = planner::explain(statement, sql.as_bytes(), &route, &self.topology);
                writeln!(out, "  {}", serde_json::json!(report)).unwrap();
                for line in report.to_string().lines() {
                    writeln!(out, "  {line}").unwrap();
                }
            }
        }
    }

    /// What the cache does with a statement, and the tags of it with these values.
    fn show_cache(
        &self,
        statement: &Statement,
        sql: &str,
        verdict: &Verdict,
        values: &dyn Values,
        out: &mut String,
    ) {
        let (tags, looks) = match verdict {
            Verdict::Read(reading) => {
                let tags = planner::cache::of_read(reading, &self.topology, values);
                (tags, Vec::new())
            }
            Verdict::Write(writing) => planner::cache::of_write(writing, &self.topology, values),
            Verdict::Bypass(..) => (Vec::new(), Vec::new()),
        };
        let route = planner::route(statement, &self.topology, values);
        let report = planner::explain(statement, sql.as_bytes(), &route, &self.topology);
        writeln!(out, "  cache: {}", report.cache.unwrap()).unwrap();
        let tags: Vec<String> = tags.iter().map(ToString::to_string).collect();
        if !tags.is_empty() {
            writeln!(out, "  tags: {}", tags.join(" ")).unwrap();
        }
        for look in looks {
            writeln!(out, "  look: {}", look.query).unwrap();
        }
    }

    fn route(&self, route: &Route) -> String {
        let names = |shards: &ShardSet| {
            let names: Vec<_> = shards
                .iter()
                .map(|shard| self.topology.name(shard))
                .collect();
            names.join(" ")
        };
        match route {
            Route::Session => "session".into(),
            Route::Anywhere => "anywhere".into(),
            Route::AnyShard => "any shard".into(),
            Route::Single(shard) => format!("single {}", self.topology.name(*shard)),
            Route::Concat(shards, finish, _) => {
                format!("concat {}{}", names(shards), finished(finish))
            }
            Route::Gather(gather) => {
                let parts = if gather.partial.is_some() {
                    " of parts"
                } else {
                    ""
                };
                format!("gather{parts}, else {}", gather.otherwise.message)
            }
            Route::InsertGathered(gather, target) => {
                let holders = match &target.holders {
                    Holders::ByKey(split) => format!("by {:?}", split.key_columns),
                    Holders::Everywhere => "everywhere".into(),
                    Holders::Home => "at home".into(),
                };
                let (table, columns) = (&target.table, target.columns.join(" "));
                let otherwise = &gather.otherwise.message;
                format!("gather for {table} ({columns}) {holders}, else {otherwise}")
            }
            Route::Each(shards) => format!("each {}", names(shards)),
            Route::Move(shards, _) => format!("move {}", names(shards)),
            Route::Broadcast { transaction: true } => "broadcast".into(),
            Route::Broadcast { transaction: false } => "broadcast one by one".into(),
            Route::InsertSplit(shares) => shares.iter().fold("rows".into(), |text, share| {
                let shard = self.topology.name(share.shard);
                format!("{text} {shard} {:?}", share.rows)
            }),
            Route::CopySplit(split) => format!("split {:?} {:?}", split.key_columns, split.format),
        }
    }
}

/// How the shards' rows are put together.
fn finished(finish: &Finish) -> String {
    let mut text = String::new();
    for key in &finish.order {
        let by = match &key.by {
            By::Position(at) => format!("column {at}"),
            By::Name(name) => format!("name {name}"),
            By::Hidden(hidden) => format!("{hidden:?}"),
        };
        let descending = if key.descending { " desc" } else { "" };
        let nulls = if key.nulls_first { " nulls first" } else { "" };
        write!(text, ", by {by}{descending}{nulls}").unwrap();
    }
    for total in &finish.totals {
        write!(text, ", {:?}", total.kind).unwrap();
    }
    if finish.whole {
        text.push_str(", groups");
    }
    if finish.is_limited {
        text.push_str(", limited");
    }
    text
}

fn brief(statement: &Statement) -> String {
    let access = match &statement.access {
        Access::Session => "session",
        Access::Anywhere => "anywhere",
        Access::Bound => "bound",
        Access::Home => "home",
        Access::AnyShard => "any shard",
        Access::Keyed(keyed) if keyed.keys.is_some() => "keyed",
        Access::Keyed(_) => "unkeyed",
        Access::Broadcast { .. } => "broadcast",
        Access::CopySplit(_) => "split",
        Access::Generate(_) => "given ids",
        Access::Shard(_) => "hinted",
        Access::Gather(_) => "gathered",
        Access::Refuse(_) => "refused",
    };
    let effect = if let Effect::ExplainRoute { statement } = &statement.effect {
        format!("ExplainRoute of {}", statement.verb)
    } else if let Effect::Explain(_) = &statement.effect {
        "Explain".to_owned()
    } else if let Effect::Keep { name, .. } = &statement.effect {
        format!("Keep {name:?}")
    } else {
        format!("{:?}", statement.effect)
    };
    let mut line = format!("{} {access} {effect}", statement.verb);
    for (flag, name) in [
        (statement.writes, "writes"),
        (statement.repeatable, "repeatable"),
        (statement.has_tables, "tables"),
        (statement.no_block, "no_block"),
        (statement.block_only, "block_only"),
    ] {
        if flag {
            write!(line, " {name}").unwrap();
        }
    }
    line
}

fn rules() -> Vec<Rule> {
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
    vec![
        rule("t", sharded("users", &["user_id"])),
        rule("u", sharded("users", &["user_id"])),
        rule("orders", sharded("users", &["customer_id"])),
        rule("Account", sharded("users", &["userId"])),
        rule("sessions", sharded("sessions", &["session_id"])),
        rule("stock", sharded("stores", &["store", "product_id"])),
        rule("events", sharded("years", &["year"])),
        with_ids(
            rule("wc_customers", sharded("customers", &["customer_id"])),
            Some("customer_id"),
            false,
        ),
        with_ids(
            rule("wc_orders", sharded("customers", &["customer_id"])),
            Some("order_id"),
            true,
        ),
        by_id(with_ids(
            rule("wc_order_items", sharded("customers", &["order_id"])),
            Some("item_id"),
            true,
        )),
        by_id(rule("wc_item_meta", sharded("customers", &["item_id"]))),
        with_ids(
            rule("reviews", sharded("products", &["product_id"])),
            Some("review_id"),
            true,
        ),
        by_id(rule("votes", sharded("products", &["review_id"]))),
        found(
            rule("tickets", sharded("users", &["user_id"])),
            &[("ticket", true), ("code", false)],
        ),
        by_lookup(rule("replies", sharded("users", &["ticket"]))),
        rule("o", TableKind::Reference),
        rule("countries", TableKind::Reference),
        rule("options", TableKind::Single),
    ]
}

fn with_ids(mut rule: Rule, column: Option<&str>, carries: bool) -> Rule {
    rule.ids.column = column.map(String::from);
    rule.ids.carries = carries;
    rule
}

/// Some of the tables with policies.
fn with_cache(rules: Vec<Rule>) -> Vec<Rule> {
    let policy = |mode, strong: &[&str], strict| {
        Arc::new(Policy {
            mode,
            ttl: Duration::from_mins(1),
            swr: Duration::from_mins(10),
            strict,
            strong_columns: strong.iter().map(|column| (*column).to_owned()).collect(),
            index: Vec::new(),
        })
    };
    let with = |mut rule: Rule| {
        rule.cache = match rule.name.as_str() {
            "t" | "countries" | "wc_orders" => Some(policy(Mode::Cached, &[], false)),
            "u" => Some(policy(Mode::Bounded, &["email"], false)),
            "options" => Some(policy(Mode::Cached, &[], true)),
            "events" => Some(policy(Mode::Strong, &[], false)),
            _ => None,
        };
        rule
    };
    rules.into_iter().map(with).collect()
}

/// The key holds ids that carry their bucket.
fn by_id(mut rule: Rule) -> Rule {
    rule.ids.by = true;
    rule
}

/// Rows are found by these columns; others are placed by those that lead.
fn found(mut rule: Rule, columns: &[(&str, bool)]) -> Rule {
    let lookup = |(column, leads): &(&str, bool)| Arc::new(lookup(column, *leads));
    rule.ids.lookups = columns.iter().map(lookup).collect();
    rule
}

/// The key holds tickets.
fn by_lookup(mut rule: Rule) -> Rule {
    rule.ids.looked = Some(Arc::new(lookup("ticket", true)));
    rule
}

fn lookup(column: &str, leads: bool) -> Lookup {
    Lookup {
        schema: None,
        table: "tickets".into(),
        column: column.into(),
        key: vec![("user_id".into(), KeyType::Int8)],
        distribution: "users".into(),
        leads,
        unique: false,
    }
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::new(1);
    let mut add = |name: &str, is_view: bool, columns: &[&str]| {
        let columns = columns
            .iter()
            .map(|column| Column {
                name: (*column).to_owned(),
                oid: 20,
                generated: false,
                modifier: -1,
                primary: false,
                collation: Collation::Other,
                loose: false,
            })
            .collect();
        catalog.insert(
            "public",
            name,
            Table {
                plain: !is_view,
                columns,
                ..Table::default()
            },
        );
    };
    add("t", false, &["id", "user_id", "name", "amount", "country"]);
    add("u", false, &["user_id", "email"]);
    add("events", false, &["year", "what"]);
    add("wc_customers", false, &["name", "customer_id"]);
    add("wc_orders", false, &["customer_id", "status", "order_id"]);
    add(
        "wc_order_items",
        false,
        &["item_id", "order_id", "quantity"],
    );
    add("tickets", false, &["ticket", "user_id", "code", "state"]);
    add("replies", false, &["ticket", "body"]);
    add("o", false, &["id", "label"]);
    add("countries", false, &["code", "name"]);
    add("options", false, &["name", "value"]);
    add("report", true, &["user_id"]);
    add("report_of_report", true, &["who", "email"]);
    add("totals", true, &["user_id", "total"]);
    add("settings", true, &["name"]);
    add("lands", true, &["code"]);
    add("kept", true, &["user_id"]);
    add("kept_settings", true, &["name"]);
    add("unparsed", true, &["x"]);
    add("guessed", true, &["x"]);
    add("t_2024", false, &["id", "amount", "user_id"]);
    add("t_2024_may", false, &["user_id", "id", "amount"]);
    add("o_old", false, &["id", "label"]);
    catalog.inherit(("public", "t_2024"), ("public", "t"));
    catalog.inherit(("public", "t_2024_may"), ("public", "t_2024"));
    catalog.inherit(("public", "o_old"), ("public", "o"));
    stored::settle(&mut catalog, &functions());
    catalog
}

/// Views by what they read.
fn views() -> Vec<ViewText> {
    let view = |name: &str, reads: &[&str], text: &str| ViewText {
        schema: "public".into(),
        name: name.into(),
        text: text.into(),
        reads: reads
            .iter()
            .map(|read| ("public".to_owned(), (*read).to_owned()))
            .collect(),
        ..ViewText::default()
    };
    let kept = |mut view: ViewText| {
        view.is_materialized = true;
        view
    };
    vec![
        view(
            "report",
            &["t"],
            " SELECT t.user_id\n   FROM public.t\n  WHERE (t.amount > (0)::numeric);",
        ),
        view(
            "report_of_report",
            &["report", "u"],
            "SELECT r.user_id AS who, u.email FROM (public.report r LEFT JOIN public.u ON ((u.user_id = r.user_id)));",
        ),
        view(
            "totals",
            &["t"],
            "SELECT t.user_id, sum(t.amount) AS total FROM public.t GROUP BY t.user_id;",
        ),
        view(
            "settings",
            &["options"],
            "SELECT options.name FROM public.options;",
        ),
        view(
            "lands",
            &["countries"],
            "SELECT countries.code FROM public.countries;",
        ),
        kept(view("kept", &["t"], "SELECT t.user_id FROM public.t;")),
        kept(view(
            "kept_settings",
            &["options"],
            "SELECT options.name FROM public.options;",
        )),
        view(
            "unparsed",
            &["options"],
            "SELECT x.x FROM (public.options JOIN LATERAL XMLTABLE(('/r'::text) PASSING (options.value) COLUMNS x integer) x ON (true));",
        ),
        view(
            "guessed",
            &["options"],
            "SELECT public.f_dynamic() AS x FROM public.options;",
        ),
    ]
}

/// Functions by what they touch.
fn functions() -> Stored {
    use Volatility::{Immutable, Stable, Volatile};
    let function = |oid, name: &str, volatility, language: &str, text: &str| Function {
        oid,
        schema: "public".into(),
        name: name.into(),
        volatility,
        language: language.into(),
        text: text.into(),
        ..Function::default()
    };
    let more = Function {
        gathers: true,
        parts: vec![20_001],
        ..function(20_020, "f_sum", Immutable, "internal", "")
    };
    Stored {
        views: views(),
        functions: vec![
            function(20_001, "f_plain", Immutable, "sql", "SELECT $1 + 1"),
            function(
                20_002,
                "f_label",
                Stable,
                "sql",
                "SELECT label FROM o WHERE id = $1",
            ),
            function(20_003, "f_clock", Stable, "sql", "SELECT now()"),
            function(
                20_004,
                "f_loud",
                Volatile,
                "plpgsql",
                "BEGIN RAISE NOTICE 'x'; END",
            ),
            function(20_005, "f_spread", Stable, "sql", "SELECT count(*) FROM t"),
            function(
                20_006,
                "f_nested",
                Volatile,
                "plpgsql",
                "BEGIN RETURN f_spread(); END",
            ),
            function(
                20_007,
                "f_made_up",
                Volatile,
                "plpgsql",
                "BEGIN EXECUTE $1; END",
            ),
            function(20_008, "f_home", Stable, "sql", "SELECT value FROM options"),
            function(
                20_009,
                "f_copies",
                Volatile,
                "sql",
                "DELETE FROM o WHERE id = $1",
            ),
            function(20_010, "f_python", Volatile, "plpython3u", "return 1"),
            function(
                20_011,
                "f_view",
                Stable,
                "sql",
                "SELECT count(*) FROM report",
            ),
            function(20_012, "round", Stable, "sql", "SELECT count(*) FROM u"),
            function(
                20_013,
                "f_child",
                Stable,
                "sql",
                "SELECT count(*) FROM public.t_2024",
            ),
            more,
        ],
        runners: vec![(
            Runner::Operator {
                symbol: "<->".into(),
            },
            20_005,
        )],
        ..Stored::default()
    }
}

struct Bound<'a> {
    sql: &'a str,
    literals: &'a [Span],
    parameters: &'a [String],
}

impl Values for Bound<'_> {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        let text = self.parameters.get(usize::from(index))?;
        Some(Parameter {
            value: (text != "NULL").then_some(text.as_bytes()),
            binary: false,
            oid: 0,
        })
    }

    fn literal(&self, index: u16) -> Option<Literal<'_>> {
        let literal = self.literals.get(usize::from(index))?;
        Some(Literal {
            text: literal.of(self.sql.as_bytes()),
        })
    }

    /// What lookup tables have; of 99 nothing is known.
    fn keys_of(&self, _lookup: &Arc<Lookup>, value: &Key<'_>) -> Option<Arc<[Vec<Key<'static>>]>> {
        let keys: &[i64] = match value {
            Key::Int(1) => &[7],
            Key::Int(2) => &[8],
            Key::Int(3) => &[7, 8],
            Key::Int(99) => return None,
            Key::Int(_)
            | Key::Text(_)
            | Key::Uuid(_)
            | Key::Date(_)
            | Key::Timestamp(_)
            | Key::Numeric(_) => &[],
        };
        Some(keys.iter().map(|key| vec![Key::Int(*key)]).collect())
    }
}

fn scope(database: u32) -> Scope {
    Scope {
        database,
        epoch: 1,
        search_path: 1,
        lexing: Lexing::default(),
        comment_hints: false,
        tenant: false,
    }
}

#[test]
fn memo_tells_templates_and_scopes_apart() {
    let world = World::new(4, false);
    let context = world.context();
    let mut memo = Memo::new(1 << 20, 1);
    let mut masked = Masked::default();
    let mut simple = |text: &str, database| {
        let script = memo.simple(text.as_bytes(), scope(database), context, &mut masked);
        let values = Bound {
            sql: text,
            literals: masked.literals(),
            parameters: &[],
        };
        let route = planner::route(&script.statements[0], &world.topology, &values);
        (world.route(&route.unwrap()), memo.counts())
    };
    let single = |shard: &str, hits, misses| (format!("single {shard}"), (hits, misses));
    assert_eq!(
        simple("SELECT 'a' FROM t WHERE user_id = 1", 1),
        single("shard_1", 0, 1)
    );
    assert_eq!(
        simple("SELECT 'bb' FROM t WHERE user_id = 2", 1),
        single("shard_2", 1, 1)
    );
    assert_eq!(
        simple("SELECT '' FROM t WHERE user_id = '3'", 1),
        single("shard_3", 1, 2)
    );
    assert_eq!(
        simple("SELECT 'a' FROM t WHERE user_id = 3", 2),
        single("shard_3", 1, 3)
    );
    assert_eq!(
        simple("SELECT 'a' FROM t /* x */ WHERE user_id = 3", 1),
        single("shard_3", 1, 4)
    );
    assert_eq!(
        simple("SELECT 'a' FROM t /* y */ WHERE user_id = 2", 1),
        single("shard_2", 2, 4)
    );
    let set = "SELECT set_config('a', 'b', false)";
    assert_eq!(simple(set, 1).1, (2, 5));
    assert_eq!(simple(set, 1).1, (3, 5));
    assert_eq!(simple("SELECT set_config('a', 'c', false)", 1).1, (3, 6));
}

#[test]
fn memo_stays_within_its_bytes() {
    let world = World::new(4, false);
    let context = world.context();
    let mut memo = Memo::new(64 << 10, 1);
    for number in 0..2_000 {
        memo.extended(
            format!("SELECT * FROM t{number}").as_bytes(),
            scope(1),
            context,
        );
        memo.extended(b"SELECT * FROM t WHERE user_id = $1", scope(1), context);
        assert!(memo.bytes() <= 64 << 10);
    }
    assert!(memo.len() > 20);
    assert_eq!(memo.counts(), (1_999, 2_001), "what is used stays");
    let long = format!("SELECT '{}'", "a".repeat(64 << 10));
    memo.extended(long.as_bytes(), scope(1), context);
    assert!(memo.len() > 20, "a long text pushes nothing out");
}

/// One binary parameter, of a declared type.
struct Binary(Vec<u8>, u32);

impl Values for Binary {
    fn parameter(&self, index: u16) -> Option<Parameter<'_>> {
        (index == 0).then_some(Parameter {
            value: Some(&self.0),
            binary: true,
            oid: self.1,
        })
    }

    fn literal(&self, _index: u16) -> Option<Literal<'_>> {
        None
    }
}

#[test]
fn binary_parameters_are_keys() {
    let world = World::new(4, false);
    let check = |condition: &str, value: Vec<u8>, oid: u32, expect: &str| {
        let text = format!("SELECT * FROM t WHERE {condition}");
        let script = planner::script(text.as_bytes(), world.context());
        let values = Binary(value, oid);
        let route = planner::route(&script.statements[0], &world.topology, &values).unwrap();
        assert_eq!(world.route(&route), expect, "{condition} {oid}");
    };
    let all = "concat shard_0 shard_1 shard_2 shard_3";
    check(
        "user_id = $1",
        6_i64.to_be_bytes().into(),
        20,
        "single shard_2",
    );
    check(
        "user_id = $1",
        6_i32.to_be_bytes().into(),
        23,
        "single shard_2",
    );
    check(
        "user_id = $1",
        6_i16.to_be_bytes().into(),
        21,
        "single shard_2",
    );
    check(
        "user_id = $1",
        6_i64.to_be_bytes().into(),
        0,
        "single shard_2",
    );
    check("user_id = $1", 6_f64.to_be_bytes().into(), 701, all);
    let array = |dimensions: i32, element: i32, values: &[i64]| {
        let mut bytes = Vec::new();
        for word in [
            dimensions,
            0,
            element,
            i32::try_from(values.len()).unwrap(),
            1,
        ] {
            bytes.extend(word.to_be_bytes());
        }
        for value in values {
            bytes.extend(8_i32.to_be_bytes());
            bytes.extend(value.to_be_bytes());
        }
        bytes
    };
    check(
        "user_id = ANY($1)",
        array(1, 20, &[6]),
        1016,
        "single shard_2",
    );
    check(
        "user_id = ANY($1)",
        array(1, 20, &[6, 10]),
        0,
        "single shard_2",
    );
    check(
        "user_id = ANY($1)",
        array(1, 20, &[6, 7]),
        1016,
        "concat shard_2 shard_3",
    );
    check(
        "user_id = ANY($1)",
        array(0, 20, &[]),
        1016,
        "single shard_0",
    );
    check("user_id = ANY($1)", array(2, 20, &[6]), 1016, all);
    check("user_id = ANY($1)", array(1, 701, &[6]), 1022, all);
    check("user_id = ANY($1)", vec![0; 7], 1016, all);
}
