//! What a session needs of the console: who may enter, and a conversation to feed frames to.
//!
//! The console stands above sessions (`admin`), so the session knows it by these two traits. After
//! the login of a client whose database is one of [`NAMES`], the session asks for its [`Rights`], sends
//! [`Console::parameters`] as ParameterStatus and ReadyForQuery, and from then on hands every whole
//! frame to the [`Conversation`] and writes out what comes back.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;

use crate::error::Fault;

/// The names of the console's database.
pub const NAMES: [&str; 2] = ["pgherd", "pgbouncer"];

/// Whether a client that asks for this database means the console.
pub fn is_console(database: &str) -> bool {
    NAMES.contains(&database)
}

/// What a user may do in the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// SHOW, as `stats_users` may.
    Stats,
    /// Everything, as `admin_users` may.
    Admin,
}

/// Whether the connection goes on after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Write the output and read on.
    Go,
    /// Write the output and close.
    Close,
}

/// What a conversation answers with, some time later.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Next> + Send + 'a>>;

/// The console, shared by all sessions.
pub trait Console: Debug + Send + Sync {
    /// What a user who has logged in may do, or why they may not enter (`FATAL`).
    fn rights(&self, user: &str) -> Result<Rights, Fault>;

    /// What to report as ParameterStatus.
    fn parameters(&self) -> Vec<(&'static str, String)>;

    /// A conversation with one client.
    fn open(&self, user: &str, rights: Rights) -> Box<dyn Conversation>;
}

/// One client's conversation with the console.
pub trait Conversation: Debug + Send {
    /// Takes one whole frame (its tag, and its body without the length) and appends the replies to
    /// `out`. Commands like PAUSE and WAIT_CLOSE may take long: the session should go on watching for
    /// a cancel request and for the client's end, and drop the future if one comes.
    ///
    /// # Cancel safety
    /// The conversation can go on only after [`Conversation::canceled`]; `out` may hold whole replies of
    /// statements before the one that was dropped, and never half a message.
    fn frame<'a>(&'a mut self, tag: u8, body: &'a [u8], out: &'a mut Vec<u8>) -> Answering<'a>;

    /// To be called after a cancel request made the session drop a future of [`Conversation::frame`]: undoes a
    /// PAUSE that was being waited for and appends the error and, where one is due, ReadyForQuery.
    fn canceled<'a>(&'a mut self, out: &'a mut Vec<u8>) -> Answering<'a>;
}
