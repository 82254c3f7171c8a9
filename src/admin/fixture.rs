//! A herd for tests: a fixed config and snapshot, and a record of what it was told to do.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::herd::{Doing, Herd, Purge, Shutdown, Unready};
use crate::config::{
    Auth, AuthMethod, Cache, ClientTls, ClientTlsMode, Config, Constraints, Database, Distribution,
    Fallback, Gather, Host, Ids, KeyType, Limits, Listen, Log, LogFormat, Place, PoolMode,
    RangePart, Secret, ServerTls, ServerTlsMode, Setting, Shard, Table, TableKind, Unlisted, User,
};
use crate::error::{Fault, SqlState};
use crate::metrics::period::{DatabaseStats, Totals};
use crate::metrics::view::{
    Address, ClientRow, ClientState, DatabaseRow, Detail, ErrorRow, HostRow, MemoryRow, PoolRow,
    PreparedRow, Role, RouteRow, ServerRow, ServerState, ShardRow, Snapshot, State, TwinRow,
    TwinState, UserRow,
};
use crate::planner::tally::Way;

/// A herd that does nothing but remember.
#[derive(Debug)]
pub(crate) struct TestHerd {
    pub(crate) config: Arc<Config>,
    pub(crate) snapshot: Snapshot,
    pub(crate) unready: Vec<Unready>,
    /// Whether PAUSE never ends.
    pub(crate) pause_hangs: bool,
    pub(crate) told: Mutex<Vec<String>>,
}

impl TestHerd {
    pub(crate) fn new() -> TestHerd {
        TestHerd {
            config: Arc::new(config()),
            snapshot: snapshot(),
            unready: Vec::new(),
            pause_hangs: false,
            told: Mutex::default(),
        }
    }

    fn told<'a>(&self, what: String) -> Doing<'a, ()> {
        self.told.lock().unwrap().push(what);
        Box::pin(async { Ok(()) })
    }
}

impl Herd for TestHerd {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    fn snapshot(&self, detail: Detail) -> Doing<'_, Snapshot> {
        let mut snapshot = self.snapshot.clone();
        if detail < Detail::Connections {
            snapshot.clients.clear();
            snapshot.servers.clear();
        }
        Box::pin(async { Ok(snapshot) })
    }

    fn pause<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        let done = self.told(format!("pause {database:?}"));
        if self.pause_hangs {
            Box::pin(pending())
        } else {
            done
        }
    }

    fn purge<'a>(&'a self, what: &'a Purge) -> Doing<'a, ()> {
        self.told(format!("purge {what:?}"))
    }

    fn resume<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        self.told(format!("resume {database:?}"))
    }

    fn resolve<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        self.told(format!("resolve {database:?}"))
    }

    fn resolve_one<'a>(&'a self, gid: &'a str, commits: bool) -> Doing<'a, ()> {
        self.told(format!("resolve {gid} {commits}"))
    }

    fn reconnect<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        self.told(format!("reconnect {database:?}"))
    }

    fn reload(&self) -> Doing<'_, Vec<Fault>> {
        Box::pin(async {
            Err(Fault::error(SqlState::CONFIG, "the config is invalid").hint("Mend it."))
        })
    }

    fn kill<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        self.told(format!("kill {database:?}"))
    }

    fn kill_client(&self, id: u64) -> Doing<'_, bool> {
        let is_known = self.snapshot.clients.iter().any(|client| client.id == id);
        Box::pin(async move { Ok(is_known) })
    }

    fn disable<'a>(&'a self, database: &'a str) -> Doing<'a, ()> {
        self.told(format!("disable {database}"))
    }

    fn enable<'a>(&'a self, database: &'a str) -> Doing<'a, ()> {
        self.told(format!("enable {database}"))
    }

    fn wait_close<'a>(&'a self, database: Option<&'a str>) -> Doing<'a, ()> {
        self.told(format!("wait_close {database:?}"))
    }

    fn shutdown(&self, how: Shutdown) -> Doing<'_, ()> {
        self.told(format!("shutdown {how:?}"))
    }

    fn set<'a>(&'a self, key: &'a str, value: &'a str) -> Doing<'a, ()> {
        self.told(format!("set {key} {value}"))
    }

    fn unready(&self) -> Doing<'_, Vec<Unready>> {
        let unready = self.unready.clone();
        Box::pin(async { Ok(unready) })
    }
}

fn host(port: u16) -> Host {
    Host {
        host: "127.0.0.1".into(),
        port,
        dbname: "shop".into(),
        tls: None,
    }
}

fn shard(name: &str, port: u16, replicas: Vec<Host>) -> Shard {
    Shard {
        name: name.into(),
        primary: host(port),
        replicas,
    }
}

fn config() -> Config {
    let app = User {
        name: "app".into(),
        password: Some(Secret::read("secret")),
        comment_hints: false,
        tenant: None,
        pool_mode: None,
        default_pool_size: None,
        max_user_connections: None,
    };
    let tenant = User {
        name: "shop42".into(),
        tenant: Some("42".into()),
        pool_mode: Some(PoolMode::Session),
        default_pool_size: Some(5),
        max_user_connections: Some(50),
        ..app.clone()
    };
    Config {
        two_phase: true,
        consistent_reads: false,
        recovery: crate::config::Recovery {
            every: Duration::from_secs(2),
            age: Duration::from_secs(5),
        },
        name: "herd".into(),
        engines: Some(2),
        log: Log {
            format: LogFormat::Text,
            level: "info".into(),
        },
        listen: vec![Listen::Tcp("127.0.0.1:6432".into())],
        http: Some("127.0.0.1:9632".into()),
        tls: ClientTls {
            mode: ClientTlsMode::Prefer,
            certificate: None,
            key: None,
            client_ca: None,
        },
        server_tls: ServerTls {
            mode: ServerTlsMode::Prefer,
            ca: None,
        },
        auth: Auth {
            method: AuthMethod::Scram,
            hba: None,
            rules: crate::config::hba::Hba::default(),
            query: None,
            user: None,
        },
        users: BTreeMap::from([(app.name.clone(), app), (tenant.name.clone(), tenant)]),
        admin_users: vec!["postgres".into()],
        stats_users: vec!["grafana".into()],
        limits: Limits::default(),
        gather: Gather::default(),
        cache: Cache::default(),
        databases: BTreeMap::from([("shop".to_owned(), shop())]),
        fallback: Some(Fallback {
            server: Host {
                dbname: String::new(),
                ..host(5440)
            },
            server_user: None,
            server_password: None,
        }),
        settings: vec![
            setting("listen", "127.0.0.1:6432", "127.0.0.1:6432", false),
            setting("query_timeout", "30s", "0", true),
        ],
    }
}

fn setting(key: &str, value: &str, default: &str, reloadable: bool) -> Setting {
    Setting {
        key: key.into(),
        value: value.into(),
        default: default.into(),
        reloadable,
    }
}

fn shop() -> Database {
    let name = |name: &str| Place::Shard(name.into());
    let part = |to: Option<&str>, place| RangePart {
        to: to.map(str::to_owned),
        place,
    };
    let range = Place::Range(vec![
        part(
            Some("20001"),
            Place::Jump(vec![name("shard_0"), name("shard_1")]),
        ),
        part(None, name("shard_1")),
    ]);
    let rule = |name: &str, key, place, pins| Distribution {
        name: name.into(),
        key,
        place,
        pins,
    };
    let rules = [
        rule(
            "products",
            vec![KeyType::Int8],
            Place::Jump(vec![name("shard_0"), name("shard_1")]),
            Vec::new(),
        ),
        rule(
            "regions",
            vec![KeyType::Text, KeyType::Int8],
            range,
            vec![("9".into(), "shard_0".into())],
        ),
    ];
    let table = |name: &str, kind| Table {
        schema: None,
        name: name.into(),
        kind,
        ids: Ids::default(),
        cache: None,
    };
    let sharded = TableKind::Sharded {
        distribution: "products".into(),
        key: vec!["product_id".into()],
    };
    Database {
        name: "shop".into(),
        shards: vec![
            shard("shard_0", 5440, vec![host(5450)]),
            shard("shard_1", 5441, Vec::new()),
        ],
        home: "shard_0".into(),
        server_user: Some("pooled".into()),
        server_password: None,
        control_user: None,
        control_password: None,
        pool_mode: Some(PoolMode::Session),
        default_pool_size: Some(7),
        distributions: rules
            .into_iter()
            .map(|rule| (rule.name.clone(), rule))
            .collect(),
        tables: vec![
            table("wc_products", sharded),
            Table {
                schema: Some("public".into()),
                ..table("wc_webhooks", TableKind::Reference)
            },
            table("wp_options", TableKind::Single),
        ],
        unlisted: Unlisted::Single,
        constraints: Constraints::Enforce,
        tenant: None,
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_208_255 + seconds)
}

fn ip(port: u16) -> Address {
    Address::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn clients() -> Vec<ClientRow> {
    let client = ClientRow {
        id: 17,
        user: "app".into(),
        database: "shop".into(),
        state: ClientState::Active,
        remote: ip(51_000),
        local: ip(6432),
        connected: at(0),
        requested: at(60),
        wait: Duration::ZERO,
        close_needed: false,
        link: Some(3),
        process: None,
        tls: "TLSv1.3/TLS13_AES_256_GCM_SHA384".into(),
        application_name: "web".into(),
        prepared_statements: 2,
        shard: Some("shard_1".into()),
        pinned: Some("temporary table"),
        engine: 1,
    };
    let waiting = ClientRow {
        id: 18,
        state: ClientState::Waiting,
        remote: Address::Unix(6432),
        local: Address::Unix(6432),
        wait: Duration::from_millis(2_500),
        link: None,
        process: Some(4711),
        tls: String::new(),
        shard: None,
        pinned: None,
        engine: 0,
        ..client.clone()
    };
    let idle = ClientRow {
        id: 19,
        state: ClientState::Idle,
        wait: Duration::ZERO,
        ..waiting.clone()
    };
    vec![client, waiting, idle]
}

fn servers() -> Vec<ServerRow> {
    let server = ServerRow {
        id: 3,
        user: "pooled".into(),
        database: "shop".into(),
        shard: "shard_1".into(),
        role: Role::Primary,
        state: ServerState::Active,
        remote: ip(5441),
        local: ip(40_000),
        connected: at(1),
        requested: at(60),
        close_needed: true,
        link: Some(17),
        process: Some(9001),
        tls: String::new(),
        application_name: "web".into(),
        prepared_statements: 1,
        engine: 1,
    };
    let free = ServerRow {
        id: 4,
        state: ServerState::Idle,
        close_needed: false,
        link: None,
        ..server.clone()
    };
    vec![server, free]
}

fn snapshot() -> Snapshot {
    Snapshot {
        engines: 2,
        clients: clients(),
        servers: servers(),
        login_clients: 1,
        plans_cached: 12,
        ..counts()
    }
}

fn counts() -> Snapshot {
    let mut pool = PoolRow::new("shop", "app", "shard_1", Role::Primary, PoolMode::Session);
    pool.cl_active = 2;
    pool.cl_waiting = 1;
    pool.sv_active = 1;
    pool.sv_idle = 1;
    pool.max_wait = Duration::from_millis(2_500);
    let totals = totals();
    let averages = totals.averages(Duration::from_secs(10));
    let database = |name: &str, clients, servers, paused| DatabaseRow {
        name: name.into(),
        paused,
        disabled: false,
        clients,
        servers,
    };
    let shard = |shard: &str, down: Option<&str>, statements| ShardRow {
        database: "shop".into(),
        shard: shard.into(),
        tried: None,
        down: down.map(str::to_owned),
        statements,
        errors: 0,
    };
    let route = |statement: Option<&str>, way, count, last: &str| RouteRow {
        statement: statement.map(str::to_owned),
        count,
        timed: if way == Way::Refuse { 0 } else { count - 1 },
        micros: if way == Way::Refuse { 0 } else { count * 100 },
        last: last.into(),
        ..RouteRow::others("shop", way)
    };
    let error = |code: &str, origin, shard: &str, count| ErrorRow {
        code: code.into(),
        origin,
        shard: shard.into(),
        count,
    };
    Snapshot {
        state: State::Active,
        pools: vec![pool],
        databases: vec![database("other", 1, 0, false), database("shop", 3, 2, true)],
        shards: vec![
            shard("shard_0", Some("connection refused"), 0),
            shard("shard_1", None, 300),
        ],
        prepared: prepared(),
        twins: vec![TwinRow {
            database: "shop".into(),
            twin: "twin_1".into(),
            state: TwinState::Busy,
            user: Some("app".into()),
            phase: Some("fetch"),
            rows: 1_000,
            bytes: 64_000,
            since: Some(Duration::from_secs(2)),
            age: Some(Duration::from_hours(1)),
        }],
        users: vec![UserRow {
            name: "app".into(),
            clients: 3,
            servers: 0,
        }],
        errors: vec![
            error("0A000", "proxy", "", 3),
            error("23505", "server", "shard_1", 1),
        ],
        routes: vec![
            route(
                Some("SELECT v FROM t WHERE k = $1"),
                Way::Single,
                7,
                "shard_1",
            ),
            route(Some("SELECT v FROM t"), Way::Multi, 9, "shard_0, shard_1"),
            route(
                Some("SELECT count(*) FROM t"),
                Way::Refuse,
                2,
                "a call of count over several shards is not supported",
            ),
            route(None, Way::Single, 70, ""),
        ],
        memory: vec![MemoryRow {
            name: "clients".into(),
            size: 512,
            used: 3,
            free: 1,
        }],
        hosts: vec![HostRow {
            name: "localhost".into(),
            ttl: Duration::from_secs(15),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        }],
        stats: vec![DatabaseStats {
            database: "shop".into(),
            totals,
            averages,
        }],
        ..Snapshot::default()
    }
}

fn totals() -> Totals {
    Totals {
        server_assignment_count: 100,
        xact_count: 90,
        query_count: 300,
        bytes_received: 10_000,
        bytes_sent: 2_000_000,
        xact_time: 180_000,
        query_time: 150_000,
        wait_time: 500,
        client_parse_count: 20,
        server_parse_count: 4,
        bind_count: 250,
    }
}

fn prepared() -> Vec<PreparedRow> {
    vec![
        PreparedRow {
            database: "shop".into(),
            shard: "shard_1".into(),
            gid: "pgherd:herd:shop:shard_0:0123456789abcdef0123456789abcdef:1".into(),
            age: Duration::from_secs(7),
            owner: "app".into(),
            decider: Some("shard_0".into()),
            decision: Some("commit".into()),
        },
        PreparedRow {
            database: "shop".into(),
            shard: "shard_1".into(),
            gid: "mine".into(),
            age: Duration::from_hours(1),
            owner: "ann".into(),
            decider: None,
            decision: None,
        },
    ]
}
