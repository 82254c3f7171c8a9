//! A running proxy: generated configuration, free ports, its log, and checks at its end.
//!
//! When the value is dropped, `out_of_sync_total` must be 0, the log must show no panic, and SIGTERM
//! must end the process with success.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::postgres::{PATIENCE, free_ports, signal};
use crate::shared::{Databases, shard_database};

/// What a test wants of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Lines at the top, as in `default_pool_size: 2`.
    pub(crate) settings: Vec<String>,
    /// Lines under the database.
    pub(crate) database: Vec<String>,
    /// Lines under `users`.
    pub(crate) users: Vec<String>,
    /// The entry of `"*"`.
    pub(crate) fallback: Option<String>,
    distributions: Vec<String>,
    tables: Vec<String>,
    /// Where the process kills itself, as in `after_prepare:3`.
    pub(crate) failpoint: Option<String>,
    /// Whether twins are made before the proxy starts.
    twins: bool,
}

impl Options {
    pub(crate) fn new(pool_mode: &str) -> Options {
        Options {
            settings: vec![format!("pool_mode: {pool_mode}")],
            database: Vec::new(),
            users: vec![
                "{name: app, password: app-secret}".to_owned(),
                "{name: postgres, password: any}".to_owned(),
            ],
            fallback: None,
            distributions: Vec::new(),
            tables: Vec::new(),
            failpoint: None,
            twins: false,
        }
    }

    /// A top-level line in place of any of the same key.
    pub(crate) fn set(&mut self, line: &str) -> &mut Options {
        let key = line.split(':').next().unwrap_or_default().to_owned() + ":";
        self.settings.retain(|old| !old.starts_with(&key));
        self.settings.push(line.to_owned());
        self
    }

    /// So many twins, made before the proxy starts; the control role is a superuser.
    pub(crate) fn twins(&mut self, count: usize) -> &mut Options {
        self.set(&format!("gather: {{twins: {count}}}"));
        self.database.push("control_user: postgres".to_owned());
        self.twins = true;
        self
    }

    /// Twins, and only rows fetched that have a partner, however few there are.
    pub(crate) fn narrowing_twins(&mut self, count: usize) -> &mut Options {
        self.twins(count);
        self.set(&format!("gather: {{twins: {count}, narrow_above: 0}}"))
    }

    /// A table on a distribution of its own name.
    pub(crate) fn sharded(
        &mut self,
        table: &str,
        column: &str,
        kind: &str,
        place: &str,
    ) -> &mut Options {
        self.distribution(table, &format!("{{key: {kind}, place: {place}}}"))
            .on(table, table, column)
    }

    /// A distribution, with what stands behind its name.
    pub(crate) fn distribution(&mut self, name: &str, rule: &str) -> &mut Options {
        self.distributions.push(format!("{name}: {rule}"));
        self
    }

    /// A table on another's distribution.
    pub(crate) fn on(&mut self, table: &str, distribution: &str, column: &str) -> &mut Options {
        self.tables.push(format!(
            "{table}: {{distribution: {distribution}, key: {column}}}"
        ));
        self
    }

    /// A table with all that stands behind its name.
    pub(crate) fn described(&mut self, table: &str, rule: &str) -> &mut Options {
        self.tables.push(format!("{table}: {{{rule}}}"));
        self
    }

    /// A `reference` or `single` table.
    pub(crate) fn table(&mut self, table: &str, kind: &str) -> &mut Options {
        self.tables.push(format!("{table}: {kind}"));
        self
    }

    fn yaml(&self, port: u16, http: u16, name: &str, shard_ports: &[u16]) -> String {
        let mut text = String::new();
        let mut line = |text_line: &str| writeln!(text, "{text_line}").expect("to a string");
        let starts = |key: &str| self.settings.iter().any(|old| old.starts_with(key));
        line(&format!(
            "listen: [127.0.0.1:{port}]\nhttp: 127.0.0.1:{http}"
        ));
        if !starts("auth:") {
            line("auth: {method: trust}");
        }
        line("admin_users: [postgres]\nusers:");
        self.users
            .iter()
            .for_each(|user| line(&format!("  - {user}")));
        self.settings.iter().for_each(|setting| line(setting));
        line(&format!(
            "databases:\n  {name}:\n    home: shard_0\n    shards:"
        ));
        for (index, shard) in shard_ports.iter().enumerate() {
            line(&format!(
                "      shard_{index}: \"host=127.0.0.1 port={shard} dbname={}\"",
                shard_database(name, index)
            ));
        }
        self.database
            .iter()
            .for_each(|setting| line(&format!("    {setting}")));
        if !self.distributions.is_empty() {
            line("    distributions:");
            self.distributions
                .iter()
                .for_each(|item| line(&format!("      {item}")));
        }
        if !self.tables.is_empty() {
            line("    tables:");
            self.tables
                .iter()
                .for_each(|item| line(&format!("      {item}")));
        }
        if let Some(fallback) = &self.fallback {
            writeln!(text, "  \"*\": {fallback}").expect("to a string");
        }
        text
    }
}

#[derive(Debug)]
pub(crate) struct Herd {
    pub(crate) port: u16,
    pub(crate) http: u16,
    pub(crate) database: String,
    /// Whether the test has a server that breaks the protocol, so that `out_of_sync_total` may rise.
    pub(crate) hostile: bool,
    /// Whether the test has it die.
    pub(crate) mortal: bool,
    folder: PathBuf,
    shard_ports: Vec<u16>,
    process: Child,
}

impl Herd {
    /// A proxy over one shard that has one connection to it.
    pub(crate) fn single(mode: &str) -> (Databases, Herd) {
        let databases = Databases::create(1);
        let mut options = Options::new(mode);
        options.set("default_pool_size: 1");
        let herd = Herd::start(&databases, &options);
        (databases, herd)
    }

    /// Starts the proxy over a test's databases and waits until it listens.
    pub(crate) fn start(databases: &Databases, options: &Options) -> Herd {
        Herd::start_over(&databases.name, &databases.shard_ports, options)
    }

    /// The same over any servers.
    pub(crate) fn start_over(database: &str, shard_ports: &[u16], options: &Options) -> Herd {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("pgherd-it-proxy-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        for _ in 0..5 {
            let [port, http] = free_ports();
            fs::write(
                folder.join("pgherd.yaml"),
                options.yaml(port, http, database, shard_ports),
            )
            .expect("written");
            if options.twins {
                let (text, done) = command(&folder.join("pgherd.yaml"), "setup");
                assert!(done, "{text}");
            }
            let log = File::create(folder.join("log")).expect("the log can be written");
            let process = Command::new("setpriv")
                .args([
                    "--pdeathsig",
                    "KILL",
                    "--",
                    env!("CARGO_BIN_EXE_pgherd"),
                    "run",
                    "-c",
                ])
                .arg(folder.join("pgherd.yaml"))
                .envs(options.failpoint.iter().map(|at| ("PGHERD_FAILPOINT", at)))
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a file"))
                .stderr(log)
                .spawn()
                .expect("setpriv runs");
            let mut herd = Herd {
                port,
                http,
                database: database.to_owned(),
                hostile: false,
                mortal: options.failpoint.is_some(),
                folder: folder.clone(),
                shard_ports: shard_ports.to_vec(),
                process,
            };
            if herd.wait_listening() {
                return herd;
            }
            let log = herd.log();
            drop(herd.process.kill());
            drop(herd.process.wait());
            std::mem::forget(herd);
            assert!(log.contains("in use"), "pgherd does not start:\n{log}");
        }
        panic!("pgherd finds no free port");
    }

    fn wait_listening(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.process.try_wait().expect("a child").is_some() {
                return false;
            }
            // A port alone may be another's.
            if self.log().contains("pgherd is ready") {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// A client of the proxy, as `app`.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.port, "app", &self.database)
    }

    /// A client of another database, as `app`.
    pub(crate) fn connect_to(&self, database: &str) -> Client {
        Client::connect(self.port, "app", database)
    }

    /// A client of the console, as its administrator.
    pub(crate) fn console(&self) -> Client {
        Client::connect(self.port, "postgres", "pgherd")
    }

    /// Writes another configuration, to be read at the next reload.
    pub(crate) fn rewrite(&self, options: &Options) {
        let text = options.yaml(self.port, self.http, &self.database, &self.shard_ports);
        self.rewrite_text(&text);
    }

    pub(crate) fn rewrite_text(&self, text: &str) {
        fs::write(self.folder.join("pgherd.yaml"), text).expect("written");
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("pgherd.yaml")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// What `pgherd setup` or `pgherd check` says of its configuration, and whether it succeeds.
    pub(crate) fn command(&self, command: &str) -> (String, bool) {
        self::command(&self.config(), command)
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            let status = self.process.try_wait().expect("a child");
            if status.is_some() || Instant::now() > deadline {
                return status;
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The body of an HTTP answer, and its status.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.http)).expect("the HTTP port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let status = text
            .split_whitespace()
            .nth(1)
            .and_then(|code| code.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        (status.expect("a status line"), body.unwrap_or_default())
    }

    /// The sum of a metric over its labels that contain `labels`; `None` if it is not there.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let mut sum = None;
        for line in text.lines().filter(|line| line.contains(labels)) {
            let Some(rest) = line.strip_prefix(name) else {
                continue;
            };
            if rest.starts_with(['{', ' ']) {
                let value: f64 = rest
                    .rsplit(' ')
                    .next()
                    .and_then(|value| value.parse().ok())
                    .expect("a number");
                sum = Some(sum.unwrap_or(0.0) + value);
            }
        }
        sum
    }

    /// Resident memory of the process in bytes.
    pub(crate) fn resident(&self) -> u64 {
        resident(self.pid())
    }

    /// What must hold of every proxy when its test is over.
    fn check_end(&mut self) -> Result<(), String> {
        if self.process.try_wait().expect("a child").is_none() {
            let out_of_sync = self.metric("pgherd_out_of_sync_total", "");
            self.signal("CONT");
            self.signal("TERM");
            if out_of_sync != Some(0.0) && !self.hostile {
                return Err(format!("out_of_sync_total is {out_of_sync:?}"));
            }
        }
        match self.wait(PATIENCE) {
            None => return Err("does not end on SIGTERM".to_owned()),
            Some(status) if !status.success() && !self.mortal => {
                return Err(format!("ended with {status}"));
            }
            Some(_) => (),
        }
        let log = self.log();
        if log.contains("panicked") || log.contains("XX000") {
            return Err("the log shows a bug".to_owned());
        }
        Ok(())
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        let end = if panicking() {
            Err("the test failed".to_owned())
        } else {
            self.check_end()
        };
        drop(self.process.kill());
        drop(self.process.wait());
        let log = self.log();
        drop(fs::remove_dir_all(&self.folder));
        if let Err(why) = end {
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprintln!("pgherd: {why}; the end of its log:\n{}", tail.join("\n"));
            assert!(panicking(), "pgherd: {why}");
        }
    }
}

/// What a command says of a configuration, and whether it succeeds.
pub(crate) fn command(config: &Path, command: &str) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .args([command, "-c"])
        .arg(config)
        .output()
        .expect("pgherd runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    (text + &errors, output.status.success())
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("Linux");
    let kilobytes: Option<u64> = line
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok());
    kilobytes.expect("kB") * 1024
}
