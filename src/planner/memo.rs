//! Temporary stand-in.

/// Plans by text.
#[derive(Debug, Default)]
pub struct Memo {}
