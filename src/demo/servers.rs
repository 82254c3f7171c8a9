//! The demo's PostgreSQL servers: found on this machine, made once, copied, started.
//!
//! They listen on Unix sockets in the demo's folder and on no port, so they meet nothing else on
//! the machine. They do not sync to disk: what they hold is thrown away.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::failed;
use super::shop::{DATABASE, USER};
use super::sitter::Sitter;
use super::terminal::say;
use crate::error::{Fault, SqlState};

/// The number in a socket's name; no port is opened.
const PORT: u16 = 5432;
/// How long a server may take to come up.
const UP_WITHIN: Duration = Duration::from_secs(30);
const SETTINGS: &str = "
listen_addresses = ''
fsync = off
synchronous_commit = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 120
max_prepared_transactions = 50
max_wal_size = 2GB
checkpoint_timeout = 30min
jit = off
";

/// The running servers. Dropping them stops them and removes their data.
#[derive(Debug)]
pub(super) struct Servers {
    sitter: Sitter,
    count: usize,
}

impl Servers {
    /// The folder of each server's socket, in the order of the shards.
    pub(super) fn sockets(&self) -> Vec<String> {
        let folder = self.sitter.folder();
        (0..self.count)
            .map(|index| server(folder, index).display().to_string())
            .collect()
    }

    /// Where the demo may write files of its own.
    pub(super) fn folder(&self) -> &Path {
        self.sitter.folder()
    }
}

/// Starts `count` servers, each with an empty database of the shop.
///
/// # Cancel safety
/// Safe: what was started is stopped when the returned future is dropped.
pub(super) async fn start(count: usize) -> Result<Servers, Fault> {
    let programs = programs()?;
    let account = account()?;
    let sitter = Sitter::start(account)?;
    let folder = sitter.folder().to_owned();
    say(format!(
        "starting {count} PostgreSQL servers in {}",
        folder.display()
    ));
    let host = Host {
        programs,
        account,
        folder,
    };
    tokio::task::spawn_blocking(move || host.start(count))
        .await
        .map_err(|error| failed("start the servers", &error))??;
    Ok(Servers { sitter, count })
}

/// What the servers run as, and where.
struct Host {
    programs: PathBuf,
    account: Option<(u32, u32)>,
    folder: PathBuf,
}

impl Host {
    fn start(&self, count: usize) -> Result<(), Fault> {
        let first = server(&self.folder, 0);
        self.command("initdb")
            .arg("-D")
            .arg(&first)
            .args([
                "-U",
                USER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            ])
            .args(["--wal-segsize=4", "--no-instructions"])
            .output()
            .map_err(|error| failed("run initdb", &error))
            .and_then(|output| succeeded("initdb", &output))?;
        let conf = first.join("postgresql.conf");
        let own = format!("{SETTINGS}unix_socket_directories = '.'\nport = {PORT}\n");
        std::fs::read_to_string(&conf)
            .and_then(|text| std::fs::write(&conf, text + &own))
            .map_err(|error| failed("write postgresql.conf", &error))?;
        for index in 1..count {
            let mut copy = Command::new("cp");
            self.as_account(&mut copy);
            copy.arg("-a").arg(&first).arg(server(&self.folder, index));
            let output = copy.output().map_err(|error| failed("run cp", &error))?;
            succeeded("cp", &output)?;
        }
        for index in 0..count {
            self.spawn(&server(&self.folder, index))?;
        }
        for index in 0..count {
            self.create_database(&server(&self.folder, index))?;
        }
        Ok(())
    }

    /// Starts one server; the folder's sitter stops it.
    fn spawn(&self, data: &Path) -> Result<(), Fault> {
        let log = std::fs::File::create(data.join("server.log"))
            .map_err(|error| failed("write a server's log", &error))?;
        let errors = log
            .try_clone()
            .map_err(|error| failed("write a server's log", &error))?;
        self.command("postgres")
            .arg("-D")
            .arg(data)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map(drop)
            .map_err(|error| failed("start a PostgreSQL server", &error))
    }

    /// Waits for the server, and makes the shop's database on it.
    fn create_database(&self, data: &Path) -> Result<(), Fault> {
        let deadline = Instant::now() + UP_WITHIN;
        loop {
            let output = self
                .command("createdb")
                .arg("-h")
                .arg(data)
                .args(["-p", &PORT.to_string(), "-U", USER, DATABASE])
                .output()
                .map_err(|error| failed("run createdb", &error))?;
            if output.status.success() {
                return Ok(());
            }
            if deadline < Instant::now() || !data.exists() {
                let log = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
                let last = log.lines().last().unwrap_or("It wrote no log.").to_owned();
                return succeeded("createdb", &output)
                    .map_err(|fault| fault.hint(format!("The server's log ends with: {last}")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// One of PostgreSQL's programs, as the servers' account, in the demo's folder.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        self.as_account(&mut command);
        command
    }

    fn as_account(&self, command: &mut Command) {
        command.current_dir(&self.folder).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            // Settings of the caller's own PostgreSQL, such as PGHOST, must not reach ours.
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        if let Some((user, group)) = self.account {
            command.uid(user).gid(group);
        }
    }
}

fn server(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("shard_{index}"))
}

fn succeeded(program: &str, output: &Output) -> Result<(), Fault> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(&format!("run {program}"), &said.trim()))
}

/// The folder that holds initdb and postgres: on the path, or the newest that Debian installed.
fn programs() -> Result<PathBuf, Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let mut installed: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    installed.sort();
    folders.extend(
        installed
            .into_iter()
            .rev()
            .map(|(_, path)| path.join("bin")),
    );
    folders.push(PathBuf::from("/usr/local/pgsql/bin"));
    let complete = |folder: &PathBuf| {
        ["initdb", "postgres", "createdb"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(complete).ok_or_else(|| {
        Fault::error(
            SqlState::CONFIG,
            "there is no PostgreSQL server on this machine",
        )
        .detail("Looked for initdb and postgres on PATH and in /usr/lib/postgresql.")
        .hint("Run `make demo`, which installs it, or `apt-get install postgresql`.")
    })
}

/// Whom the servers run as: `None` for ourselves; another account when we are root, as PostgreSQL
/// refuses to run as root.
fn account() -> Result<Option<(u32, u32)>, Fault> {
    let ours = std::fs::metadata("/proc/self").map_err(|error| failed("read /proc", &error))?;
    if ours.uid() != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")
        .map_err(|error| failed("read /etc/passwd", &error))?;
    let found = ["postgres", "nobody"]
        .iter()
        .find_map(|name| entry(&passwd, name));
    found.map(Some).ok_or_else(|| {
        Fault::error(SqlState::CONFIG, "no account to run PostgreSQL as")
            .detail("PostgreSQL does not run as root, and there is no user postgres or nobody.")
            .hint("Run the demo as another user than root.")
    })
}

/// The uid and gid of `name` in the text of /etc/passwd.
fn entry(passwd: &str, name: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let user = fields.nth(1)?.parse().ok()?;
        Some((user, fields.next()?.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn accounts_are_found_by_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:113:121:,,,:/var/lib:/bin/bash\n";
        assert_eq!(entry(passwd, "postgres"), Some((113, 121)));
        assert_eq!(entry(passwd, "post"), None);
    }
}
