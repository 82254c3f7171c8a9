//! The demo's proxy: this program's own `run`, on a config in the demo's folder.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use super::failed;
use super::servers::Servers;
use crate::error::Fault;

/// The running proxy; dropping it ends it at once.
#[derive(Debug)]
pub(super) struct Proxy(Child);

/// Starts it on the config `text`.
pub(super) fn start(servers: &Servers, text: &str) -> Result<Proxy, Fault> {
    let file = servers.folder().join("pgherd.yaml");
    std::fs::write(&file, text).map_err(|error| failed("write the config", &error))?;
    let program = std::env::current_exe().map_err(|error| failed("find pgherd", &error))?;
    Command::new(program)
        .args(["run", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map(Proxy)
        .map_err(|error| failed("start the proxy", &error))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its clients are gone; there is nothing to drain.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}
