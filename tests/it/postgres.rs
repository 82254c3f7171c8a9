//! PostgreSQL clusters of the tests' own: one initdb a machine, copied for each cluster.
//!
//! A cluster listens on a free port of 127.0.0.1 and on a Unix socket in its folder. Its server
//! dies with the thread that started it and its folder goes when the value is dropped. PostgreSQL
//! does not run as root, so root runs it as the user `postgres`.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::client::Client;

/// How long a server may take to start or to stop.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who owns the servers' files and runs them: `None` is the user that runs the tests.
#[derive(Clone, Copy, Debug)]
struct Owner {
    uid: u32,
    gid: u32,
}

fn owner() -> Option<Owner> {
    static OWNER: OnceLock<Option<Owner>> = OnceLock::new();
    *OWNER.get_or_init(|| {
        (id(&["-u"]) == 0).then(|| Owner {
            uid: id(&["-u", "postgres"]),
            gid: id(&["-g", "postgres"]),
        })
    })
}

fn id(arguments: &[&str]) -> u32 {
    let output = Command::new("id")
        .args(arguments)
        .output()
        .expect("id runs");
    let text = String::from_utf8(output.stdout).expect("id prints text");
    text.trim()
        .parse()
        .unwrap_or_else(|_| panic!("id {arguments:?}: no such user"))
}

/// A command that runs as the servers' owner.
pub(crate) fn as_owner(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(owner) = owner() {
        command.uid(owner.uid).gid(owner.gid);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// A folder that the servers' owner may write.
pub(crate) fn make_folder(path: &Path) {
    fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Some(owner) = owner() {
        std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)).expect("root may chown");
    }
}

/// The folder of PostgreSQL's programs: `PG_BIN`, or the newest of Debian's.
pub(crate) fn programs() -> PathBuf {
    if let Ok(folder) = std::env::var("PG_BIN") {
        return PathBuf::from(folder);
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed; else set PG_BIN")
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let folder = path.join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .collect();
    versions.sort();
    versions.pop().expect("a PostgreSQL server is installed").1
}

/// Where all clusters and locks live.
pub(crate) fn base() -> PathBuf {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("pgherd-it-{}", id(&["-u"])));
        make_folder(&path);
        path
    })
    .clone()
}

/// Opens a lock file.
pub(crate) fn lock_file(name: &str) -> File {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(base().join(name))
        .expect("a lock file can be opened")
}

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 250
shared_buffers = 16MB
fsync = off
full_page_writes = off
autovacuum = off
jit = off
wal_level = logical
max_prepared_transactions = 50
max_wal_size = 256MB
timezone = 'UTC'
log_min_messages = log
";

const HBA: &str = "
local all all trust
host all app_scram 127.0.0.1/32 scram-sha-256
host all app_md5 127.0.0.1/32 md5
host all app_plain 127.0.0.1/32 password
host all all 127.0.0.1/32 trust
";

/// `app` owns the tests' databases; the others log in by password.
const ROLES: &str = "
CREATE ROLE app LOGIN PASSWORD 'app-secret' IN ROLE pg_signal_backend, pg_monitor
CREATE ROLE app_scram LOGIN PASSWORD 'scram-secret'
CREATE ROLE app_plain LOGIN PASSWORD 'plain-secret'
SET password_encryption = md5
CREATE ROLE app_md5 LOGIN PASSWORD 'md5-secret'
";

/// The folder of an initialised cluster that is never started, made once a machine.
pub(crate) fn template() -> PathBuf {
    let programs = programs();
    let version = Command::new(programs.join("postgres"))
        .arg("--version")
        .output();
    let version = String::from_utf8(version.expect("postgres runs").stdout).expect("text");
    let number = version.split_whitespace().nth(2).expect("a version");
    let path = base().join(format!("template-2-{number}"));
    let lock = lock_file("template.lock");
    lock.lock().expect("flock works");
    if path.exists() {
        return path;
    }
    let fresh = base().join(format!("template-new-{}", std::process::id()));
    make_folder(&fresh);
    let initdb = as_owner(programs.join("initdb"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"])
        .args(["--no-sync", "--wal-segsize=1", "-D"])
        .arg(&fresh)
        .output()
        .expect("initdb runs");
    assert!(
        initdb.status.success(),
        "{}",
        String::from_utf8_lossy(&initdb.stderr)
    );
    let append = |name: &str, text: &str, from_empty: bool| {
        let path = fresh.join(name);
        let mut options = File::options();
        let file = options
            .append(!from_empty)
            .write(true)
            .truncate(from_empty)
            .open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("a file of initdb's");
    };
    append("postgresql.conf", SETTINGS, false);
    append("pg_hba.conf", HBA, true);
    let mut single = as_owner(programs.join("postgres"))
        .args(["--single", "-D"])
        .arg(&fresh)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postgres runs");
    single
        .stdin
        .take()
        .expect("piped")
        .write_all(ROLES.trim_start().as_bytes())
        .expect("written");
    assert!(
        single.wait().expect("waited for").success(),
        "the roles were not created"
    );
    fs::rename(&fresh, &path).expect("same file system");
    path
}

/// Copies the template to a folder that does not exist.
pub(crate) fn copy_template(to: &Path) {
    let copied = as_owner("cp")
        .args(["-a", "--reflink=auto"])
        .arg(template())
        .arg(to)
        .status();
    assert!(copied.expect("cp runs").success(), "cp to {}", to.display());
}

/// A port that was free a moment ago. The caller tries again if it is not any more.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Ports of which no two are the same: one that was let go may be given again.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// Whether the server of this data folder, and no other that took the port, answers.
pub(crate) fn is_serving(port: u16, data: &Path) -> bool {
    Client::try_connect(port, "postgres", "postgres")
        .and_then(|mut client| client.query("SHOW data_directory"))
        .is_ok_and(|answer| answer.rows == [vec![data.to_str().map(str::to_owned)]])
}

/// Sends a signal to a process that the tests started.
pub(crate) fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    let status = Command::new("sh")
        .args(["-c", &script])
        .stderr(Stdio::null())
        .status();
    // It may have ended by itself.
    status.expect("sh runs");
}

/// Writes a file that the server's owner alone may read.
fn write_as_owner(path: &Path, text: &str) {
    let mut shell = as_owner("sh")
        .args(["-c", "umask 077; cat >\"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let mut input = shell.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("written");
    drop(input);
    assert!(shell.wait().expect("waited for").success());
}

/// One PostgreSQL server of a test's own, which the test may kill, freeze and restart.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) port: u16,
    folder: PathBuf,
    server: Option<Child>,
}

impl Cluster {
    /// Starts one with the further lines of postgresql.conf.
    pub(crate) fn start(settings: &str) -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_left_over();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = base().join(format!("own-{}-{number}", std::process::id()));
        make_folder(&folder);
        copy_template(&folder.join("data"));
        let mut conf = File::options()
            .append(true)
            .open(folder.join("data/postgresql.conf"));
        let conf = conf.as_mut().expect("postgresql.conf is there");
        conf.write_all(settings.as_bytes()).expect("written");
        for _ in 0..5 {
            let port = free_port();
            let mut cluster = Cluster {
                port,
                folder: folder.clone(),
                server: None,
            };
            cluster.launch();
            if cluster.wait_ready() {
                return cluster;
            }
            cluster.kill();
            std::mem::forget(cluster);
        }
        panic!(
            "PostgreSQL does not start: see {}",
            folder.join("log").display()
        );
    }

    /// Starts one that offers TLS; answers its certificate too, which is for `localhost`.
    pub(crate) fn with_tls() -> (Cluster, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = base().join(format!("own-{}-tls-{number}", std::process::id()));
        make_folder(&folder);
        let names = vec!["localhost".to_owned()];
        let pair = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let certificate = pair.cert.pem();
        write_as_owner(&folder.join("server.crt"), &certificate);
        write_as_owner(
            &folder.join("server.key"),
            &pair.signing_key.serialize_pem(),
        );
        let path = folder.display();
        let cluster = Cluster::start(&format!(
            "ssl = on\nssl_cert_file = '{path}/server.crt'\nssl_key_file = '{path}/server.key'\n"
        ));
        (cluster, certificate)
    }

    fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"));
        let log = log.expect("the log can be written");
        let server = as_owner("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(programs().join("postgres"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(&self.folder)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("setpriv runs");
        self.server = Some(server);
    }

    fn wait_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let server = self.server.as_mut().expect("launched");
            if server.try_wait().expect("a child").is_some() {
                return false;
            }
            if is_serving(self.port, &self.folder.join("data")) {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// Starts the server again on its old port.
    pub(crate) fn restart(&mut self) {
        self.stop("INT");
        for _ in 0..50 {
            self.launch();
            if self.wait_ready() {
                return;
            }
            self.kill();
            sleep(Duration::from_millis(100));
        }
        panic!(
            "PostgreSQL does not restart: see {}",
            self.folder.join("log").display()
        );
    }

    /// Ends every server process at once, as a crash does: SIGQUIT, no checkpoint, no goodbye.
    pub(crate) fn crash(&mut self) {
        self.stop("QUIT");
    }

    /// Ends the server by a signal (TERM smart, INT fast, QUIT immediate) and waits for it.
    pub(crate) fn stop(&mut self, signal_name: &str) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        signal(server.id(), signal_name);
        let deadline = Instant::now() + PATIENCE;
        while server.try_wait().expect("a child").is_none() {
            if Instant::now() > deadline {
                server.kill().expect("a child");
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) {
        self.stop("QUIT");
    }

    /// Sends a signal to the server and to each of its processes: STOP and CONT freeze and thaw it.
    pub(crate) fn signal_all(&self, name: &str) {
        let Some(server) = &self.server else { return };
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.id()));
        signal(server.id(), name);
        for child in children.unwrap_or_default().split_whitespace() {
            signal(child.parse().expect("a pid"), name);
        }
    }

    /// A connection past the proxy, as superuser.
    pub(crate) fn connect(&self, database: &str) -> Client {
        Client::connect(self.port, "postgres", database)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            eprintln!("the end of PostgreSQL's log:\n{}", tail.join("\n"));
        }
        self.signal_all("CONT");
        self.kill();
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Removes the folders of test processes that were killed.
fn remove_left_over() {
    let lock = lock_file("left-over.lock");
    lock.lock().expect("flock works");
    for entry in fs::read_dir(base()).expect("the base folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let pid = name
            .strip_prefix("own-")
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            drop(fs::remove_dir_all(&path));
        }
    }
}
