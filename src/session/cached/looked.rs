//! Rows that a transaction has written and whose values of indexed columns decide which answers it drops: they are
//! looked at in the transaction, before it is committed. Its locks keep others from changing them until then.

use crate::planner::cache::Look;
use crate::server::hidden::read_until_ready;
use crate::server::pool::Lease;
use crate::session::{Session, Stop};
use crate::wire::backend::{self, Status};

/// Rows of one transaction that are looked at; with more it drops what depends on any value.
const LOOKS_MAX: usize = 16;

impl Session {
    /// The open transaction has written rows that are to be looked at before it is committed.
    pub(super) fn look_later(&mut self, looks: Vec<Look>) {
        for look in looks {
            if !self.caching.looks.contains(&look) {
                self.caching.looks.push(look);
            }
        }
    }

    /// Whether rows that were written are to be looked at before a commit.
    pub(crate) fn has_looks(&self) -> bool {
        !self.caching.looks.is_empty()
    }

    /// The group ends, and wrote rows that are to be looked at: it goes on as a block until they are.
    ///
    /// # Errors
    /// What has to happen first.
    pub(crate) fn imply_looks(&mut self) -> Result<(), Stop> {
        let is_open = self
            .connection()
            .is_some_and(|connection| connection.unsynced);
        if self.block.is_some() || !self.executed || self.is_skipping_messages() || !is_open {
            return Ok(());
        }
        self.settle_pending()?;
        self.wait_for_replies()?;
        if self.is_skipping_messages() {
            return Ok(());
        }
        Err(Stop::Imply)
    }

    /// Before COMMIT of the open block.
    ///
    /// # Errors
    /// What has to happen first.
    pub(super) fn look_before_commit(&mut self) -> Result<(), Stop> {
        if self.caching.looks.is_empty() {
            return Ok(());
        }
        let is_alone = self.caching.looks.len() <= LOOKS_MAX
            && self.series.is_none()
            && self
                .block
                .as_ref()
                .is_some_and(|block| block.sent && block.parts.0.is_empty())
            && self.lease.is_some();
        if is_alone && self.status() == Status::InBlock {
            let unsynced = self
                .connection()
                .is_some_and(|connection| connection.unsynced);
            self.wait_for_replies()?;
            if unsynced {
                return Err(Stop::EndGroup);
            }
            return Err(Stop::LookAtRows);
        }
        self.forget_looks();
        Ok(())
    }

    /// Rows that are not looked at may have any values.
    fn forget_looks(&mut self) {
        for look in std::mem::take(&mut self.caching.looks) {
            let tag = look.unseen();
            if !self.caching.touched.contains(&tag) {
                self.caching.touched.push(tag);
            }
        }
    }

    /// A transaction that nobody began may end with what comes: its rows are not looked at any more.
    ///
    /// # Errors
    /// That what they may have is marked first.
    pub(crate) fn settle_looks(&mut self) -> Result<(), Stop> {
        if self.has_looks() && self.block.is_none() {
            return Err(Stop::LookAtRows);
        }
        Ok(())
    }

    /// The same at once.
    ///
    /// # Cancel safety
    /// Not safe: the session ends with it.
    pub(crate) async fn give_up_looks(&mut self) {
        if self.block.is_none() {
            self.look_at_parts(&mut []).await;
        }
    }

    /// Looks at the rows that the open block has written on its one connection.
    ///
    /// # Cancel safety
    /// Not safe: the session ends with it.
    pub(crate) async fn look_at_rows(&mut self) {
        if self.block.is_none() {
            return self.look_at_parts(&mut []).await;
        }
        let Some(mut lease) = self.lease.take() else {
            return self.forget_looks();
        };
        self.look_on(&mut lease).await;
        self.lease = Some(lease);
    }

    /// The same before a commit that is made here: what they have is marked with what was written before.
    ///
    /// # Cancel safety
    /// Not safe: the session ends with it.
    pub(crate) async fn look_at_parts(&mut self, leases: &mut [Lease]) {
        if self.caching.looks.is_empty() {
            return;
        }
        match leases {
            [lease] if self.caching.looks.len() <= LOOKS_MAX => self.look_on(lease).await,
            _ => self.forget_looks(),
        }
        let tags = std::mem::take(&mut self.caching.touched);
        let names = self.tag_names(&tags);
        let all = self.tag_of_all();
        let Some(marked) = &mut self.caching.mark else {
            return;
        };
        if !marked.mark.has(&names) {
            marked.mark.add(&names);
            // Where Redis cannot be told that is made up for; tables that are strict have told it before.
            if marked.mark.tell(&all).await.is_err() {
                tracing::debug!("Redis was not told of the values of written rows");
            }
        }
    }

    async fn look_on(&mut self, lease: &mut Lease) {
        let limit = self.database.limits.server_connect_timeout;
        for look in std::mem::take(&mut self.caching.looks) {
            let rows = match lease.connection() {
                Some(connection) if connection.pipeline.is_idle() => {
                    let asking = ask(connection, &look.query);
                    tokio::time::timeout(limit, asking)
                        .await
                        .unwrap_or_default()
                }
                Some(_) | None => None,
            };
            let tags = match rows {
                Some(rows) => look.seen(&rows),
                None => vec![look.unseen()],
            };
            for tag in tags {
                if !self.caching.touched.contains(&tag) {
                    self.caching.touched.push(tag);
                }
            }
        }
    }
}

/// The rows of a query within a transaction; `None` where it fails, and the transaction goes on without it.
async fn ask(
    connection: &mut crate::server::connection::ServerConnection,
    query: &str,
) -> Option<Vec<Vec<Option<String>>>> {
    connection.push_hidden_query("SAVEPOINT pgherd_look");
    connection.push_hidden_query(query);
    let mut rows = Vec::new();
    let mut is_text = true;
    let asked = read_until_ready(connection, |frame| {
        if frame.tag == b'D' {
            let values = backend::row_values(frame.body).into_iter();
            let row = values.map(|value| match value.map(std::str::from_utf8) {
                Some(Ok(text)) => Some(text.to_owned()),
                Some(Err(_)) => {
                    is_text = false;
                    None
                }
                None => None,
            });
            rows.push(row.collect());
        }
    });
    let asked = asked.await;
    if asked.is_ok() {
        connection.push_hidden_query("RELEASE SAVEPOINT pgherd_look");
        read_until_ready(connection, |_| ()).await.ok()?;
        return is_text.then_some(rows);
    }
    // A role that may write a column need not be one that may read the others.
    connection.push_hidden_query("ROLLBACK TO SAVEPOINT pgherd_look");
    connection.push_hidden_query("RELEASE SAVEPOINT pgherd_look");
    read_until_ready(connection, |_| ()).await.ok()?;
    None
}
