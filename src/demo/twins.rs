//! The demo's twins, as `pgherd setup` makes them.

use std::path::Path;
use std::sync::Arc;

use super::failed;
use super::shop::DATABASE;
use super::terminal::{say, warn};
use crate::control::{Control, Level};
use crate::error::Fault;
use crate::proxy;
use crate::tls::Tls;

/// Sets up what the config in `file` asks for. What cannot be is said, and the demo goes on without it.
///
/// # Cancel safety
/// Safe: what was made stays.
pub(super) async fn set_up(file: &Path) -> Result<(), Fault> {
    say("making the twins, where queries over several shards are finished");
    let config = proxy::load(file).map_err(|faults| {
        let first = faults.into_iter().next();
        first.unwrap_or_else(|| failed("read the config", &"it is not valid"))
    })?;
    let config = Arc::new(config);
    let tls = Tls::load(&config.tls, &config.server_tls)
        .map_err(|error| failed("load the TLS files", &error))?;
    let control = Control::new(&config, &tls.connector);
    for finding in control.setup(DATABASE).await? {
        if finding.level != Level::Note {
            warn(finding.to_string());
        }
    }
    Ok(())
}
