//! A Redis server of a test's own: started on a free port, killed with the value.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::postgres::{PATIENCE, free_port, signal};

#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) port: u16,
    process: Child,
}

/// Where a server of this port writes what it is told to.
fn folder(port: u16) -> std::path::PathBuf {
    let name = format!("pgherd-it-redis-{}-{port}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    folder
}

fn start(port: u16) -> Child {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "redis-server"])
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .current_dir(folder(port))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

impl Redis {
    pub(crate) fn start() -> Redis {
        let port = free_port();
        let redis = Redis {
            port,
            process: start(port),
        };
        redis.wait();
        redis
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self
                .try_run(&["PING"])
                .is_some_and(|answer| answer.contains("PONG"))
            {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("redis-server does not answer");
    }

    /// The line of the configuration that names it.
    pub(crate) fn line(&self, more: &str) -> String {
        format!("cache: {{redis: 'redis://127.0.0.1:{}'{more}}}", self.port)
    }

    fn try_run(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let words: Vec<String> = words
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()))
            .collect();
        let text = format!("*{}\r\n{}*1\r\n$4\r\nQUIT\r\n", words.len(), words.concat());
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Runs a command; its answer as the protocol has it.
    pub(crate) fn run(&self, words: &[&str]) -> String {
        self.try_run(words).expect("Redis answers")
    }

    /// It answers nobody until [`Redis::go_on`].
    pub(crate) fn pause(&self) {
        signal(self.process.id(), "STOP");
    }

    pub(crate) fn go_on(&self) {
        signal(self.process.id(), "CONT");
    }

    /// Kills it, with all that it holds.
    pub(crate) fn kill(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }

    /// Starts it again, on the same port and empty.
    pub(crate) fn revive(&mut self) {
        self.process = start(self.port);
        self.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.go_on();
        self.kill();
        drop(std::fs::remove_dir_all(folder(self.port)));
    }
}
