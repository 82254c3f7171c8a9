//! The temporary folder and the process that clears it away, even when the demo is killed.
//!
//! A small shell waits on a pipe that only we hold. The pipe closes when we drop it or when we die,
//! by whatever signal; then the shell stops every server with a `postmaster.pid` in the folder and
//! removes the folder. It runs in a process group of its own, so that Ctrl-C does not reach it.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::failed;
use crate::error::Fault;

/// Reads until the pipe closes; then stops every server at once, as its data is thrown away; waits
/// until each has removed its postmaster.pid, for five seconds at most; removes the folder, again
/// if a dying process still wrote into it.
const SCRIPT: &str = r#"
trap '' INT TERM HUP QUIT
while read -r _; do :; done
for file in "$1"/*/postmaster.pid; do
    [ -e "$file" ] || continue
    read -r pid <"$file" || continue
    kill -QUIT "$pid" 2>/dev/null
    tries=0
    while [ -e "$file" ] && [ $tries -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
done
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"#;

/// A temporary folder with its sitter. Dropping it stops the folder's servers and removes it.
#[derive(Debug)]
pub(super) struct Sitter {
    folder: PathBuf,
    shell: Child,
}

impl Sitter {
    /// Makes the folder, readable by its owner `owner` (a uid and gid) or by us.
    pub(super) fn start(owner: Option<(u32, u32)>) -> Result<Sitter, Fault> {
        let folder = make_folder(owner).map_err(|error| failed("make a folder", &error))?;
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "pgherd-demo"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| failed("run /bin/sh", &error))?;
        Ok(Sitter { folder, shell })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Sitter {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // It ends by itself; a failure to wait leaves it running to its end.
        let _ended = self.shell.wait();
    }
}

/// `pgherd-demo-PID` in the temporary folder: short, as a socket's path may have 107 bytes.
fn make_folder(owner: Option<(u32, u32)>) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, chown};
    let short = |folder: &PathBuf| folder.as_os_str().len() < 60;
    let parent = Some(std::env::temp_dir()).filter(short);
    let parent = parent.unwrap_or_else(|| PathBuf::from("/tmp"));
    let folder = parent.join(format!("pgherd-demo-{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    if let Some((user, group)) = owner {
        chown(&folder, Some(user), Some(group))?;
    }
    Ok(folder)
}
