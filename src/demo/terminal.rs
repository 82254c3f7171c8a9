//! Writes to the person or script that started us. A reader that went away is no error.

use std::io::Write as _;

/// A line to standard output.
pub(crate) fn say(line: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    // Written at once, so that a closed pipe ends the line and not the process.
    let _gone = out.write_all(format!("{}\n", line.as_ref()).as_bytes());
    let _gone = out.flush();
}

/// A line to standard error.
pub(crate) fn warn(line: impl AsRef<str>) {
    let _gone = std::io::stderr().write_all(format!("{}\n", line.as_ref()).as_bytes());
}
