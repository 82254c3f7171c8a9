//! A server connection on loan, and how it comes back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::server::connection::ServerConnection;
use crate::server::hidden::run_hidden;

use super::{Pool, convoy};

/// How long undoing a client's traces may take.
const TIDY_TIMEOUT: Duration = Duration::from_secs(5);

/// A server connection on loan to one client. Dropped without [`Lease::release`] it is closed.
#[derive(Debug)]
pub struct Lease {
    pub(super) connection: Option<Box<ServerConnection>>,
    pub(super) pool: Rc<Pool>,
}

impl Lease {
    /// The pool it came from.
    pub fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    /// The connection. `None` cannot be seen: only `release` and `drop` take it out.
    pub fn connection(&mut self) -> Option<&mut ServerConnection> {
        self.connection.as_deref_mut()
    }

    /// The connection, read only.
    pub fn peek(&self) -> Option<&ServerConnection> {
        self.connection.as_deref()
    }

    /// It is lent to a client.
    pub fn lend(&self, client: u64, now: Instant) {
        if let Some(connection) = self.peek() {
            connection.cancel.lend(client, now);
        }
    }

    /// What is still done on it is nobody's.
    pub fn disown(&self) {
        if let Some(connection) = self.peek() {
            connection.cancel.take_back();
        }
    }

    /// Hands it on to who follows in its convoy. Without one, releases it, but later while a cancel
    /// request is under way to the connection: the request must not hit whoever has it next.
    pub fn give_back(self, now: Instant) {
        if let Some(lease) = convoy::hand_on(self, now) {
            lease.end(now);
        }
    }

    fn end(self, now: Instant) {
        let untidy = self.peek().is_some_and(|connection| connection.untidy);
        if untidy || self.is_being_canceled() {
            self.disown();
            tokio::task::spawn_local(async move {
                if let Some(connection) = self.peek() {
                    connection.cancel.taken().await;
                }
                if let Some(lease) = self.tidied().await {
                    lease.release(Instant::now());
                }
            });
        } else {
            self.release(now);
        }
    }

    /// Undoes what must not be seen by another client; `None` when that fails, and the connection is closed.
    async fn tidied(mut self) -> Option<Lease> {
        let connection = self.connection()?;
        if connection.untidy {
            let undone = run_hidden(connection, "UNLISTEN *");
            tokio::time::timeout(TIDY_TIMEOUT, undone)
                .await
                .ok()?
                .ok()?;
            connection.unnamed = None;
            connection.untidy = false;
        }
        Some(self)
    }

    fn is_being_canceled(&self) -> bool {
        self.peek()
            .is_some_and(|connection| connection.cancel.under_way.get() > 0)
    }

    /// Gives the connection back: to the first in line, to the idle ones, or, when it is not clean,
    /// too old or unwanted, to nobody.
    pub fn release(mut self, now: Instant) {
        if let Some(connection) = self.connection.take() {
            let pool = Rc::clone(&self.pool);
            pool.take_back(connection, now);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.terminate();
            self.pool.end_convoy(&connection);
            self.pool.closed(connection);
        }
    }
}
