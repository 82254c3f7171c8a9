//! The demo's proxy: `run` in a thread of this process, so that it ends when we do.

use tokio::sync::oneshot;

use super::failed;
use super::servers::Servers;
use crate::error::Fault;
use crate::proxy;

/// The name of its config, in the servers' folder.
pub(super) const FILE: &str = "pgherd.yaml";

/// The running proxy. It ends with the process.
#[derive(Debug)]
pub(super) struct Proxy(oneshot::Receiver<Result<(), Vec<Fault>>>);

/// Starts it on the config `text`.
pub(super) fn start(servers: &Servers, text: &str) -> Result<Proxy, Fault> {
    let file = servers.folder().join(FILE);
    std::fs::write(&file, text).map_err(|error| failed("write the config", &error))?;
    let (end, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("proxy".to_owned())
        // Nobody may be left to hear of it.
        .spawn(move || drop(end.send(proxy::run(&file))))
        .map_err(|error| failed("start the proxy", &error))?;
    Ok(Proxy(ended))
}

impl Proxy {
    /// Waits until it ends by itself, which it does only when it cannot start or is told to stop.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ended(self) -> Fault {
        match self.0.await {
            Ok(Err(faults)) => faults.into_iter().next(),
            Ok(Ok(())) | Err(_) => None,
        }
        .unwrap_or_else(|| failed("go on", &"the proxy has ended"))
    }
}
