//! Oids of types and tables: clients know the home shard's, each other shard has its own.
//!
//! What a shard says of columns and parameters is put into the home shard's oids before anything else
//! looks at it, and what a client says of them into the shard's. Rows are looked into only where a
//! binary column names types: an array, a composite. An oid that is not known is asked for once:
//! what came waits meanwhile.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::error::{Fault, SqlState};
use crate::execute::{Interrupted, unmapped_fault};
use crate::placement::ShardId;
use crate::planner::plan::Effect;
use crate::server::pool::Lease;
use crate::server::statements::Prepared;
use crate::types::oids::{Mapping, Unmapped, Way};
use crate::wire::frame::{self, Frame, Piece, Split};
use crate::wire::frontend::Bind;
use crate::wire::oids::{self, Naming};

use super::replies::Lost;
use super::{Session, Stop};

/// What a session keeps of answers with other oids.
#[derive(Debug, Default)]
pub(crate) struct Oids {
    /// The columns whose values name types, of the rows that come.
    rows: Option<(Arc<Mapping>, Naming)>,
    /// The beginning of a long message that is needed whole.
    long: Vec<u8>,
    stalled: Option<Stalled>,
    /// What is not known was asked for, and has not been met again.
    asked: bool,
    /// Why the connection is given up.
    fault: Option<Fault>,
    /// The portal whose description comes last before what is sent next.
    described: Option<Box<[u8]>>,
}

/// What came from the server and waits until the types have been read.
#[derive(Debug)]
struct Stalled {
    bytes: Vec<u8>,
    read: oneshot::Receiver<()>,
}

impl Oids {
    /// Whether no row that comes has to be looked into, and nothing waits.
    pub(crate) fn rows_pass(&self) -> bool {
        self.rows.is_none() && self.stalled.is_none()
    }

    /// A group or a Query is answered.
    pub(crate) fn end_answer(&mut self) {
        self.rows = None;
    }

    /// A group or a Query is sent.
    pub(crate) fn end_request(&mut self) {
        self.described = None;
    }

    /// The connection is lost; returns what the client is told instead.
    pub(crate) fn lose(&mut self) -> Option<Fault> {
        std::mem::take(self).fault
    }

    /// Puts the body of a RowDescription.
    pub(crate) fn put_columns(
        &mut self,
        body: &mut [u8],
        mapping: &Arc<Mapping>,
        of_rows: bool,
    ) -> Result<(), Unmapped> {
        let naming = oids::put_row_description(body, mapping)?;
        self.asked = false;
        if of_rows {
            self.rows = (!naming.is_empty()).then(|| (Arc::clone(mapping), naming));
        }
        Ok(())
    }
}

impl Session {
    /// Whether a shard has other oids than clients know.
    pub(crate) fn is_foreign(&self, shard: ShardId) -> bool {
        shard != self.database.topology.home()
    }

    /// The mapping of a shard as it was read last.
    pub(crate) fn mapping(&self, shard: ShardId) -> Option<Arc<Mapping>> {
        let generation = self.database.generation;
        if let Some(twin) = self.database.twin_of(shard) {
            let oids = self.database.shared.oids_of_twins.load();
            return oids.of(&twin.name, generation).map(Arc::clone);
        }
        let name = self.database.name_of(shard);
        let oids = self.database.shared.oids.load();
        oids.of(name, generation).map(Arc::clone)
    }

    /// The mapping of the current connection's shard, where a statement's Parse names types.
    pub(crate) fn mapping_of_current(&self, prepared: &Prepared) -> Option<Arc<Mapping>> {
        if !prepared.names_types {
            return None;
        }
        let shard = self.lease.as_ref().and_then(Lease::peek)?.shard;
        let unread = || {
            let name = self.database.name_of(shard);
            Arc::new(Mapping::new(name, Arc::default(), Arc::default()))
        };
        self.is_foreign(shard)
            .then(|| self.mapping(shard).unwrap_or_else(unread))
    }

    /// Whether the shards call every type alike: then values need no look.
    pub(crate) fn oids_are_alike(&self) -> bool {
        self.database.shared.oids_alike.load(Ordering::Acquire)
    }

    /// The same of a shard's or a twin's.
    fn has_alike_oids(&self, shard: ShardId) -> bool {
        match self.database.twin_of(shard) {
            Some(_) => self.mapping(shard).is_some_and(|mapping| mapping.alike),
            None => self.oids_are_alike(),
        }
    }

    /// Whether a group can be sent on as it came: no value in it, nor in its answer, names a type otherwise
    /// than its description says.
    pub(crate) fn goes_as_it_is(
        &self,
        shard: ShardId,
        bind: &Bind<'_>,
        describes: bool,
        prepared: &Prepared,
    ) -> bool {
        !self.is_foreign(shard)
            || self.has_alike_oids(shard)
            || prepared.described.get().is_some_and(|known| known.is_plain)
            || !bind.has_binary() && (describes || bind.result_formats().is_text())
    }

    /// Whether rows of a portal may name types.
    pub(crate) fn rows_may_name(&self, shard: ShardId, prepared: &Prepared, text: bool) -> bool {
        // What a cursor gives is not its FETCH's to say.
        let fixed = prepared.script.statements.first().is_some_and(|statement| {
            matches!(statement.verb, "SELECT" | "INSERT" | "UPDATE" | "DELETE")
        });
        let plain = fixed && prepared.described.get().is_some_and(|known| known.is_plain);
        self.is_foreign(shard) && !self.has_alike_oids(shard) && !text && !plain
    }

    /// A portal is described by the client's wish.
    pub(crate) fn note_described(&mut self, shard: ShardId, name: &[u8]) {
        if self.is_foreign(shard) {
            self.oids.described = Some(name.into());
        }
    }

    /// Whether a portal must be described to us before it is executed.
    pub(crate) fn needs_description(
        &mut self,
        shard: ShardId,
        name: &[u8],
        may_name: bool,
    ) -> bool {
        if !self.is_foreign(shard) || self.oids.described.as_deref() == Some(name) {
            return false;
        }
        if !may_name && self.oids.described.is_none() {
            return false;
        }
        self.oids.described = Some(name.into());
        true
    }

    /// Whether the types that Parses name are known on a shard: those that wait, and this one.
    ///
    /// # Errors
    /// [`Stop::Types`] until they have been read again; then that one is missing.
    pub(crate) fn check_types(
        &mut self,
        shard: ShardId,
        bound: Option<&Rc<Prepared>>,
    ) -> Result<(), Stop> {
        let named = |prepared: &Prepared| prepared.names_types;
        if !self.is_foreign(shard)
            || !bound.is_some_and(|bound| named(bound))
                && !self.pending.iter().any(|(pending, _)| named(pending))
        {
            return Ok(());
        }
        let result = match self.mapping(shard) {
            None => Err(None),
            Some(mapping) => {
                let pending = self.pending.iter().map(|(pending, _)| pending);
                pending
                    .chain(bound)
                    .flat_map(|prepared| prepared.declared())
                    .try_for_each(|oid| mapping.type_oid(oid, Way::ToShard).map(drop))
                    .map_err(|unmapped| Some((mapping, unmapped)))
            }
        };
        self.settle_types(shard, result)
    }

    /// What follows the names in a Bind, its values put as a shard names types; `None` where they are the
    /// same.
    ///
    /// # Errors
    /// [`Stop::Drain`] until a server has said what the parameters are; as [`Session::check_types`].
    pub(crate) fn put_bind(
        &mut self,
        shard: ShardId,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
    ) -> Result<Option<Vec<u8>>, Stop> {
        if !self.is_foreign(shard) || !bind.has_binary() || self.has_alike_oids(shard) {
            return Ok(None);
        }
        if prepared.described.get().is_some_and(|known| known.is_plain) {
            return Ok(None);
        }
        self.describe_parameters(shard, bind, prepared)?;
        let Some(mapping) = self.mapping(shard) else {
            return self.settle_types(shard, Err(None)).map(|()| None);
        };
        match oids::bind_values(bind, |index| prepared.settled_type(index), &mapping) {
            Ok(put) => {
                self.oids.asked = false;
                Ok(put)
            }
            Err(unmapped) => self
                .settle_types(shard, Err(Some((mapping, unmapped))))
                .map(|()| None),
        }
    }

    /// Has a server say what the parameters are, where a binary one's type is not known.
    pub(crate) fn describe_parameters(
        &mut self,
        shard: ShardId,
        bind: &Bind<'_>,
        prepared: &Rc<Prepared>,
    ) -> Result<(), Stop> {
        let is_known = prepared.described.get().is_some()
            || bind
                .values()
                .enumerate()
                .all(|(index, (binary, _))| !binary || prepared.settled_type(index) != 0);
        if is_known {
            return Ok(());
        }
        self.check_types(shard, Some(prepared))?;
        self.describe_first(prepared, shard)
    }

    /// What a Bind as PREPARE's cannot be told to be cannot be put.
    pub(crate) fn check_unread_bind(&self, shard: ShardId, bind: &Bind<'_>) -> Result<(), Fault> {
        if !self.is_foreign(shard) || !bind.has_binary() || self.has_alike_oids(shard) {
            return Ok(());
        }
        Err(Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "binary parameters of a statement that SQL prepared cannot be sent to this shard",
        )
        .detail("They may name types, which the shard calls otherwise than the home shard.")
        .hint("Prepare it with the extended protocol, or send the parameters as text."))
    }

    /// Asks once for what is not known; then it is an error.
    fn settle_types(
        &mut self,
        shard: ShardId,
        result: Result<(), Option<(Arc<Mapping>, Unmapped)>>,
    ) -> Result<(), Stop> {
        let Err(missing) = result else {
            self.oids.asked = false;
            return Ok(());
        };
        if !std::mem::replace(&mut self.oids.asked, true) {
            return Err(Stop::Types);
        }
        self.oids.asked = false;
        let name = self.database.name_of(shard);
        Err(Stop::Fault(match missing {
            Some((mapping, unmapped)) => unmapped_fault(&mapping, &unmapped),
            None => unread_fault(name),
        }))
    }

    /// Reads the types again, and watches the client meanwhile.
    pub(crate) async fn read_types(&mut self) -> Result<(), Interrupted> {
        let read = self.start_reading_types();
        self.watched(async {
            // What is not known then is an error.
            drop(read.await);
            Ok(())
        })
        .await
    }

    fn start_reading_types(&self) -> oneshot::Receiver<()> {
        let (done, read) = oneshot::channel();
        let shared = Arc::clone(&self.engine.shared);
        let name = self.database.name.clone();
        let seen = self.database.shared.oids.load().version;
        let runtime = shared.control_runtime.clone();
        drop(runtime.spawn(async move {
            for read in [
                shared.refresh_oids(&name, Some(seen)).await,
                shared.refresh_twin_oids(&name).await,
            ] {
                if let Err(fault) = read {
                    tracing::warn!(database = %name, error = %fault, "could not read the types");
                }
            }
            // Who waited may be gone.
            done.send(()).unwrap_or_default();
        }));
        read
    }

    /// Takes a piece of the server's stream that is not passed on as it is. Returns whether it was one.
    pub(crate) fn withhold(&mut self, piece: Piece<'_>) -> Result<bool, Lost> {
        if let Some(stalled) = &mut self.oids.stalled {
            stalled.bytes.extend_from_slice(piece.bytes());
            return Ok(true);
        }
        match piece {
            Piece::Whole(_) => Ok(false),
            Piece::Start { tag, bytes } => {
                let is_needed = match tag {
                    b'D' => self.oids.rows.is_some(),
                    b'T' | b't' => self.comes_from_abroad(),
                    _ => false,
                };
                if is_needed {
                    self.forwarding = false;
                    self.hold(bytes)?;
                }
                Ok(is_needed)
            }
            Piece::More { .. } if self.oids.long.is_empty() => Ok(false),
            Piece::More { bytes, last } => {
                self.hold(bytes)?;
                if last {
                    let long = std::mem::take(&mut self.oids.long);
                    if let Split::Whole(frame, _) = frame::split(&long, u32::MAX)? {
                        self.on_server_frame(frame)?;
                    }
                }
                Ok(true)
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let most = usize::try_from(self.database.limits.max_multi_bytes).unwrap_or(usize::MAX);
        if self.oids.long.len().saturating_add(bytes.len()) > most {
            let fault = Fault::error(
                SqlState::BUDGET_SPENT,
                "a row whose binary values name types takes too much memory",
            )
            .hint("Ask for the row as text, or raise max_multi_bytes.");
            return Err(self.give_up(fault));
        }
        self.oids.long.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the current connection is of another shard than the home shard.
    pub(crate) fn comes_from_abroad(&self) -> bool {
        self.lease
            .as_ref()
            .and_then(Lease::peek)
            .is_some_and(|connection| self.is_foreign(connection.shard))
    }

    /// A message of the server in the home shard's oids. `None`: it waits until the types are read.
    pub(crate) fn put_reply(
        &mut self,
        frame: Frame<'_>,
        of_rows: bool,
    ) -> Result<Option<Vec<u8>>, Lost> {
        let mut bytes = frame.bytes.to_vec();
        let body = bytes.get_mut(frame::HEADER..).unwrap_or_default();
        let missing = if frame.tag == b'D' {
            let put = match &self.oids.rows {
                Some((mapping, naming)) => naming
                    .put_row(body, mapping, Way::ToHome)
                    .map_err(|unmapped| unmapped_fault(mapping, &unmapped)),
                None => Ok(()),
            };
            put.err()
        } else {
            let shard = self
                .lease
                .as_ref()
                .and_then(Lease::peek)
                .map(|connection| connection.shard);
            let shard = shard.unwrap_or_else(|| self.database.topology.home());
            match self.mapping(shard) {
                None => Some(unread_fault(self.database.name_of(shard))),
                Some(mapping) if frame.tag == b'T' => self
                    .oids
                    .put_columns(body, &mapping, of_rows)
                    .err()
                    .map(|unmapped| unmapped_fault(&mapping, &unmapped)),
                Some(mapping) => oids::put_types(body, &mapping, Way::ToHome)
                    .err()
                    .map(|unmapped| unmapped_fault(&mapping, &unmapped)),
            }
        };
        let Some(fault) = missing else {
            self.oids.asked = false;
            return Ok(Some(bytes));
        };
        if std::mem::replace(&mut self.oids.asked, true) {
            return Err(self.give_up(fault));
        }
        let read = self.start_reading_types();
        self.oids.stalled = Some(Stalled {
            bytes: frame.bytes.to_vec(),
            read,
        });
        Ok(None)
    }

    /// COPY in binary between a client and one shard whose values may name types: what its columns are is
    /// not known.
    pub(crate) fn check_copy(&self, shard: ShardId, effect: &Effect) -> Result<(), Fault> {
        let binary = if let Effect::CopyIn { types } = effect {
            !types.is_empty()
        } else {
            *effect == Effect::CopyOut { binary: true }
        };
        if !binary || !self.is_foreign(shard) || self.has_alike_oids(shard) {
            return Ok(());
        }
        Err(Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "COPY in binary format between a client and a shard that is not the home shard",
        )
        .detail("Its values may name types, whose numbers differ from server to server.")
        .hint("Use text or csv format, or a SELECT with binary columns."))
    }

    fn give_up(&mut self, fault: Fault) -> Lost {
        let lost = Lost(fault.message.clone());
        self.oids.fault = Some(fault);
        lost
    }

    /// What waited for the types, once they are read; pending while they are not, or nothing waits.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        let Some(stalled) = &mut self.oids.stalled else {
            return Poll::Pending;
        };
        if std::pin::Pin::new(&mut stalled.read).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut bytes = std::mem::take(&mut stalled.bytes);
        self.oids.stalled = None;
        if let Some((mapping, naming)) = self.oids.rows.take() {
            let shard = self
                .lease
                .as_ref()
                .and_then(Lease::peek)
                .map(|connection| connection.shard);
            let fresh = shard.and_then(|shard| self.mapping(shard));
            self.oids.rows = Some((fresh.unwrap_or(mapping), naming));
        }
        if let Some(connection) = self.connection() {
            let reader = std::mem::take(&mut connection.reader);
            bytes.extend_from_slice(&reader.into_held());
        }
        Poll::Ready(bytes)
    }

    /// Whether something waits for the types.
    pub(crate) fn is_stalled(&self) -> bool {
        self.oids.stalled.is_some()
    }
}

/// The error of a shard whose types could not be read.
pub(crate) fn unread_fault(shard: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        format!("the types of shard \"{shard}\" could not be read"),
    )
    .detail("Their numbers differ from server to server, and clients know those of the home shard.")
    .hint("Repeat the statement when the shard's control connection works: the log says why it does not.")
}
