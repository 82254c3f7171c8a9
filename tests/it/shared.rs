//! The servers that tests share: four shards, a reference server, and a database a test.
//!
//! A shell script keeps them. It outlives the test process, because `cargo nextest` runs every test
//! in a process of its own: each process holds a shared lock on `shared.lock` while it lives, and
//! the keeper stops the servers and removes their files once it has got the lock for itself twice,
//! two seconds apart. The kernel frees a lock with its process, however that ends.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::postgres::{
    PATIENCE, as_owner, base, copy_template, free_ports, is_serving, lock_file, make_folder,
    programs,
};

/// The shards come first, then the server that answers as one PostgreSQL would.
const SERVERS: usize = 5;
pub(crate) const SHARDS: usize = SERVERS - 1;

/// Starts the servers, and stops them when no test process is left. `$1` folder, `$2` programs,
/// `$3` lock file, then the ports.
const KEEPER: &str = r#"
folder=$1; programs=$2; lock=$3; shift 3
pids=; index=0
for port in "$@"; do
    setpriv --pdeathsig QUIT -- "$programs/postgres" -D "$folder/$index" -p "$port" -k "$folder/$index" \
        </dev/null >/dev/null 2>"$folder/log-$index" &
    pids="$pids $!"; index=$((index + 1))
done
echo $$ >"$folder/keeper"
quiet=0
while [ "$quiet" -lt 2 ]; do
    sleep 2
    for pid in $pids; do kill -0 "$pid" 2>/dev/null || quiet=9; done
    if flock -n -x "$lock" true; then quiet=$((quiet + 1)); elif [ "$quiet" -lt 9 ]; then quiet=0; fi
done
exec 9>"$lock"
flock -x 9
kill -QUIT $pids 2>/dev/null
wait
rm -rf "$folder"
"#;

/// The ports of the shared servers; taking them keeps the servers alive as long as this process.
pub(crate) fn ports() -> &'static [u16] {
    static SHARED: OnceLock<(Vec<u16>, File)> = OnceLock::new();
    &SHARED
        .get_or_init(|| {
            (0..10)
                .find_map(|_| join_or_start())
                .expect("the shared servers start")
        })
        .0
}

fn join_or_start() -> Option<(Vec<u16>, File)> {
    let starting = lock_file("shared-start.lock");
    starting.lock().expect("flock works");
    let lease = lock_file("shared.lock");
    lease.lock_shared().expect("flock works");
    if let Some(ports) = running() {
        return Some((ports, lease));
    }
    // Not before the last keeper has ended.
    lease.unlock().expect("flock works");
    lease.lock().expect("flock works");
    let ports = start();
    lease.unlock().expect("flock works");
    lease.lock_shared().expect("flock works");
    ports.map(|ports| (ports, lease))
}

/// The ports in `shared.ready`, if a server answers on each.
fn running() -> Option<Vec<u16>> {
    let text = fs::read_to_string(base().join("shared.ready")).ok()?;
    let (folder, ports) = text.split_once(' ')?;
    let ports: Vec<u16> = ports
        .split_whitespace()
        .filter_map(|port| port.parse().ok())
        .collect();
    (ports.len() == SERVERS && all_serve(Path::new(folder), &ports)).then_some(ports)
}

fn all_serve(folder: &Path, ports: &[u16]) -> bool {
    let mut numbered = ports.iter().enumerate();
    numbered.all(|(index, &port)| is_serving(port, &folder.join(index.to_string())))
}

fn start() -> Option<Vec<u16>> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = base().join(format!("shared-{}-{number}", std::process::id()));
    make_folder(&folder);
    let ports = free_ports::<SERVERS>();
    for index in 0..SERVERS {
        copy_template(&folder.join(index.to_string()));
    }
    let lock = base().join("shared.lock");
    std::os::unix::fs::chown(&lock, Some(fs_owner(&folder)), None).expect("the owner may lock it");
    as_owner("setsid")
        .args(["-f", "sh", "-c", KEEPER, "pgherd-it-keeper"])
        .arg(&folder)
        .arg(programs())
        .arg(&lock)
        .args(ports.iter().map(u16::to_string))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("setsid runs");
    let deadline = Instant::now() + PATIENCE;
    while !all_serve(&folder, &ports) {
        if Instant::now() > deadline {
            return None;
        }
        sleep(Duration::from_millis(50));
    }
    let text: Vec<String> = ports.iter().map(u16::to_string).collect();
    let text = format!("{} {}", folder.display(), text.join(" "));
    fs::write(base().join("shared.ready"), text).expect("the folder is ours");
    Some(ports.to_vec())
}

fn fs_owner(folder: &Path) -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata(folder).expect("just made"))
}

/// What a shard's database is called: that of the herd, but where one server has several shards.
pub(crate) fn shard_database(name: &str, shard: usize) -> String {
    match shard / SHARDS {
        0 => name.to_owned(),
        round => format!("{name}_{round}"),
    }
}

/// A database of one name on each of the shared servers, owned by `app`; dropped with the value.
#[derive(Debug)]
pub(crate) struct Databases {
    pub(crate) name: String,
    pub(crate) shard_ports: Vec<u16>,
    pub(crate) reference_port: u16,
}

impl Databases {
    /// Creates it on the first `shards` shards and on the reference server. Shards beyond the servers are
    /// further databases of theirs.
    pub(crate) fn create(shards: usize) -> Databases {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let ports = ports();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it_{}_{number}", std::process::id());
        let databases = Databases {
            name,
            shard_ports: (0..shards).map(|shard| ports[shard % SHARDS]).collect(),
            reference_port: ports[SHARDS],
        };
        for (port, name) in databases.all() {
            let mut client = Client::connect(port, "postgres", "postgres");
            drop_from(&mut client, &name);
            client.run(&format!("CREATE DATABASE {name} OWNER app"));
        }
        databases
    }

    /// The port and the name of each.
    fn all(&self) -> Vec<(u16, String)> {
        let shards = self.shard_ports.iter().enumerate();
        shards
            .map(|(shard, &port)| (port, shard_database(&self.name, shard)))
            .chain([(self.reference_port, self.name.clone())])
            .collect()
    }

    /// A connection to one shard past the proxy, as `app`.
    pub(crate) fn shard(&self, index: usize) -> Client {
        let name = shard_database(&self.name, index);
        Client::connect(self.shard_ports[index], "app", &name)
    }

    /// A connection to the server that stands for one PostgreSQL, as `app`.
    pub(crate) fn reference(&self) -> Client {
        Client::connect(self.reference_port, "app", &self.name)
    }

    /// Runs a script on every server, past the proxy.
    pub(crate) fn run_everywhere(&self, sql: &str) {
        for (port, name) in self.all() {
            Client::connect(port, "app", &name).run(sql);
        }
    }
}

impl Drop for Databases {
    fn drop(&mut self) {
        for (port, name) in self.all() {
            if let Ok(mut client) = Client::try_connect(port, "postgres", "postgres") {
                drop_from(&mut client, &name);
            }
        }
    }
}

/// Drops a database, and its twins, from a server.
fn drop_from(client: &mut Client, name: &str) {
    let twins = client.query(&format!(
        "SELECT datname FROM pg_database WHERE datname ~ '^pgherd_.*_{name}_twin_[0-9]+$' OR datname = '{name}'"
    ));
    for row in twins.into_iter().flat_map(|answer| answer.rows) {
        for dbname in row.into_iter().flatten() {
            drop(client.query(&format!("DROP DATABASE IF EXISTS {dbname} WITH (FORCE)")));
        }
    }
}
