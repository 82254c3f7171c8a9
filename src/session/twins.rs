//! The twins of a database as all engines share them: which are current, and whose turn it is.
//!
//! One query at a time uses a twin. Turns are given first come first served, and of the free twins the one
//! that was used longest ago, so that gather servers are used alike. What keeps the twins current asks for
//! none: a twin that is being made again is not offered until it is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, watch};

use crate::config::Twin;
use crate::error::{Fault, SqlState};
use crate::metrics::view::{TwinRow, TwinState};

/// How long a twin that another proxy holds is not offered again.
const ELSEWHERE_WAIT: Duration = Duration::from_millis(200);
/// How long a query waits for the twins to follow where `gather.timeout` sets no limit.
const CURRENT_WAIT: Duration = Duration::from_mins(1);

/// What is known of a twin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It could not be looked at.
    Unknown,
    /// Its database does not exist.
    Missing,
    /// Its schema is not the home shard's, or was not looked at since that changed.
    Behind,
    Current {
        /// What the home shard's catalogs were marked with when it was made.
        mark: String,
        made: SystemTime,
    },
}

/// How long missing twins are taken for missing.
const MISSING_WAIT: Duration = Duration::from_secs(1);

/// The twins of one database.
#[derive(Debug)]
pub struct Twins {
    state: Mutex<State>,
    /// Rises with each change that the twins have to follow.
    asked: AtomicU64,
    /// Wakes who makes them follow.
    wake: Notify,
    /// The last change that was followed, and what came of it.
    done: watch::Sender<(u64, Result<(), Fault>)>,
}

#[derive(Debug, Default)]
struct State {
    seats: Vec<Seat>,
    /// Who waits, in order.
    queue: VecDeque<(u64, Arc<Notify>)>,
    /// What the home shard's catalogs were last seen to be marked with.
    home: Option<String>,
    /// When those that were missing were last looked for by a statement.
    looked: Option<Instant>,
    /// The number of the next seat, ticket or turn.
    next: u64,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next = self.next.saturating_add(1);
        self.next
    }

    fn wake_first(&self) {
        if let Some((_, notify)) = self.queue.front() {
            notify.notify_one();
        }
    }
}

#[derive(Debug)]
struct Seat {
    twin: Twin,
    /// Its own among all seats there were.
    id: u64,
    condition: Condition,
    /// The number of its last turn.
    used: u64,
    not_before: Option<Instant>,
    busy: Option<Busy>,
}

#[derive(Debug)]
struct Busy {
    user: String,
    since: Instant,
    phase: &'static str,
    rows: u64,
    bytes: u64,
}

impl Default for Twins {
    fn default() -> Twins {
        let unread = Fault::error(
            SqlState::NOT_IN_PREREQUISITE_STATE,
            "the twins have not been looked at yet",
        )
        .hint("Repeat the statement.");
        Twins {
            state: Mutex::default(),
            asked: AtomicU64::new(1),
            wake: Notify::new(),
            done: watch::Sender::new((0, Err(unread))),
        }
    }
}

impl Twins {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The schema or the configuration has changed or may have: the twins are looked at.
    pub fn ask(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
    }

    /// The number of the last change: what [`Twins::conclude`] is to be told.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// What the home shard's catalogs are marked with now; another mark than before is a change.
    pub fn note_home(&self, mark: &str) {
        let is_new = {
            let mut state = self.locked();
            let is_new = state.home.as_deref() != Some(mark);
            state.home = Some(mark.to_owned());
            is_new
        };
        if is_new {
            self.ask();
        }
    }

    /// Is done when a change is asked to be followed.
    ///
    /// # Cancel safety
    /// Safe: what was asked is asked still.
    pub async fn wanted(&self) {
        self.wake.notified().await;
    }

    /// Whether every twin is current, made when the home shard's catalogs had this mark.
    pub fn follow(&self, list: &[Twin], home: &str) -> bool {
        let state = self.locked();
        let fits = |(seat, twin): (&Seat, &Twin)| {
            seat.twin == *twin
                && matches!(&seat.condition, Condition::Current { mark, .. } if mark == home)
        };
        state.seats.len() == list.len() && state.seats.iter().zip(list).all(fits)
    }

    /// Makes these the twins, what is known of each with it, and `home` the mark they are to follow. Turns
    /// on others go on to their end.
    pub fn set(&self, list: Vec<(Twin, Condition)>, home: &str) {
        let mut state = self.locked();
        let mut before = std::mem::take(&mut state.seats);
        for (twin, condition) in list {
            let place = before.iter().position(|seat| seat.twin == twin);
            let seat = match place.map(|at| before.swap_remove(at)) {
                Some(seat) => Seat { condition, ..seat },
                None => Seat {
                    twin,
                    id: state.number(),
                    condition,
                    used: 0,
                    not_before: None,
                    busy: None,
                },
            };
            state.seats.push(seat);
        }
        state.home = Some(home.to_owned());
        state.wake_first();
    }

    /// These twins are made again: they are not offered meanwhile.
    pub fn set_behind(&self, indexes: &[usize]) {
        let mut state = self.locked();
        for index in indexes {
            if let Some(seat) = state.seats.get_mut(*index) {
                seat.condition = Condition::Behind;
            }
        }
    }

    /// The changes up to `asked` have been followed, or why not.
    pub fn conclude(&self, asked: u64, outcome: Result<(), Fault>) {
        drop(self.done.send_replace((asked, outcome)));
    }

    /// Has twins that were missing looked for again, unless that was done a moment ago.
    pub fn look_for_missing(&self) {
        let now = Instant::now();
        let mut state = self.locked();
        let is_new = |looked: Instant| now.saturating_duration_since(looked) < MISSING_WAIT;
        if state.looked.is_some_and(is_new) {
            return;
        }
        state.looked = Some(now);
        drop(state);
        self.ask();
    }

    /// Whether there is none of them at all.
    pub fn are_missing(&self) -> bool {
        let state = self.locked();
        let mut seats = state.seats.iter();
        seats.all(|seat| matches!(seat.condition, Condition::Missing))
    }

    /// At least one twin is current: or why none is.
    ///
    /// # Errors
    /// 55000 where none is.
    pub fn ready(&self) -> Result<(), Fault> {
        let state = self.locked();
        let is = |condition: &Condition| matches!(condition, Condition::Current { .. });
        if state.seats.is_empty() || state.seats.iter().any(|seat| is(&seat.condition)) {
            return Ok(());
        }
        let count = |wanted: &Condition| {
            let found = state
                .seats
                .iter()
                .filter(|seat| seat.condition == *wanted)
                .count();
            found.to_string()
        };
        Err(none_ready(format!(
            "Of its twins {} are missing, {} behind the schema, and {} do not answer.",
            count(&Condition::Missing),
            count(&Condition::Behind),
            count(&Condition::Unknown)
        )))
    }

    /// Waits until the twins have followed the last change that is known, at most `limit`; zero stands for a
    /// minute.
    ///
    /// # Errors
    /// 55000 when none of them has.
    ///
    /// # Cancel safety
    /// Safe: nothing is held.
    pub async fn current(&self, limit: Duration) -> Result<(), Fault> {
        let asked = self.asked();
        let limit = if limit.is_zero() { CURRENT_WAIT } else { limit };
        let mut done = self.done.subscribe();
        let followed = done.wait_for(|(followed, _)| *followed >= asked);
        match tokio::time::timeout(limit, followed).await {
            Ok(Ok(done)) => done.1.clone(),
            Ok(Err(_)) | Err(_) => Err(none_ready(format!(
                "They did not follow the last change of the schema within {limit:?}."
            ))),
        }
    }

    /// Takes the free twin that was used longest ago, in turn with others who wait, at most `wait`; zero is
    /// no limit.
    ///
    /// # Errors
    /// 53300 when none became free in time, 55000 when there is none to wait for.
    ///
    /// # Cancel safety
    /// Safe: the place in the line is given up.
    pub async fn take(self: &Arc<Twins>, user: &str, wait: Duration) -> Result<Turn, Fault> {
        let deadline = Instant::now().checked_add(wait).filter(|_| !wait.is_zero());
        let ticket = Ticket::new(self);
        loop {
            let now = Instant::now();
            let again = match self.pick(&ticket, user, now)? {
                Picked::Turn(turn) => return Ok(turn),
                Picked::Later(again) => again,
            };
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(none_free(wait));
            }
            let until = [again, deadline].into_iter().flatten().min();
            let notified = ticket.notify.notified();
            match until {
                Some(until) => drop(tokio::time::timeout_at(until.into(), notified).await),
                None => notified.await,
            }
        }
    }

    /// A turn for who is first in line, or when to look again.
    fn pick(
        self: &Arc<Twins>,
        ticket: &Ticket<'_>,
        user: &str,
        now: Instant,
    ) -> Result<Picked, Fault> {
        let mut state = self.locked();
        let is_lost =
            |seat: &Seat| matches!(seat.condition, Condition::Missing | Condition::Unknown);
        if state.seats.iter().all(is_lost) {
            return Err(none_ready("None of them exists and answers.".to_owned()));
        }
        if state
            .queue
            .front()
            .is_some_and(|(first, _)| *first != ticket.number)
        {
            return Ok(Picked::Later(None));
        }
        let number = state.number();
        let mut again: Option<Instant> = None;
        let mut best: Option<(usize, &mut Seat)> = None;
        for (index, seat) in state.seats.iter_mut().enumerate() {
            if seat.busy.is_some() || !matches!(seat.condition, Condition::Current { .. }) {
                continue;
            }
            if let Some(later) = seat.not_before.filter(|later| *later > now) {
                again = Some(again.map_or(later, |again| again.min(later)));
                continue;
            }
            if best.as_ref().is_none_or(|(_, best)| seat.used < best.used) {
                best = Some((index, seat));
            }
        }
        let Some((index, seat)) = best else {
            return Ok(Picked::Later(again));
        };
        let Condition::Current { mark, .. } = &seat.condition else {
            return Ok(Picked::Later(again));
        };
        let mark = mark.clone();
        seat.used = number;
        seat.busy = Some(Busy {
            user: user.to_owned(),
            since: now,
            phase: "",
            rows: 0,
            bytes: 0,
        });
        Ok(Picked::Turn(Turn {
            twins: Arc::clone(self),
            seat: seat.id,
            index,
            twin: seat.twin.clone(),
            mark,
        }))
    }

    /// Looks at the seat of a turn, if it is still there.
    fn with_seat(&self, id: u64, look: impl FnOnce(&mut Seat)) {
        let mut state = self.locked();
        if let Some(seat) = state.seats.iter_mut().find(|seat| seat.id == id) {
            look(seat);
        }
    }

    /// The rows of SHOW TWINS.
    pub fn rows(&self, database: &str, now: Instant) -> Vec<TwinRow> {
        let state = self.locked();
        let row = |seat: &Seat| {
            let busy = seat.busy.as_ref();
            let (shown, made) = match (&seat.condition, busy) {
                (Condition::Unknown, _) => (TwinState::Unknown, None),
                (Condition::Missing, _) => (TwinState::Missing, None),
                (Condition::Behind, _) => (TwinState::Behind, None),
                (Condition::Current { made, .. }, Some(_)) => (TwinState::Busy, Some(*made)),
                (Condition::Current { made, .. }, None) => (TwinState::Free, Some(*made)),
            };
            TwinRow {
                database: database.to_owned(),
                twin: seat.twin.name.clone(),
                state: shown,
                user: busy.map(|busy| busy.user.clone()),
                phase: busy.map(|busy| busy.phase),
                rows: busy.map_or(0, |busy| busy.rows),
                bytes: busy.map_or(0, |busy| busy.bytes),
                since: busy.map(|busy| now.saturating_duration_since(busy.since)),
                age: made.map(|made| made.elapsed().unwrap_or_default()),
            }
        };
        state.seats.iter().map(row).collect()
    }
}

enum Picked {
    Turn(Turn),
    /// When a twin may be offered again, where none is given back before.
    Later(Option<Instant>),
}

/// A place in the line.
#[derive(Debug)]
struct Ticket<'a> {
    twins: &'a Twins,
    number: u64,
    notify: Arc<Notify>,
}

impl<'a> Ticket<'a> {
    fn new(twins: &'a Twins) -> Ticket<'a> {
        let notify = Arc::new(Notify::new());
        let mut state = twins.locked();
        let number = state.number();
        state.queue.push_back((number, Arc::clone(&notify)));
        drop(state);
        Ticket {
            twins,
            number,
            notify,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.twins.locked();
        state.queue.retain(|(number, _)| *number != self.number);
        state.wake_first();
    }
}

/// The use of a twin by one query; it is free again when this is dropped.
#[derive(Debug)]
pub struct Turn {
    twins: Arc<Twins>,
    seat: u64,
    index: usize,
    twin: Twin,
    mark: String,
}

impl Turn {
    /// Its position among the twins of the configuration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name and its place.
    pub fn twin(&self) -> &Twin {
        &self.twin
    }

    /// The mark it was made with: what `pgherd.hold()` returns in it unless another proxy has made it again.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// What the query is doing with it, and how much has been fetched so far.
    pub fn note(&self, phase: &'static str, rows: u64, bytes: u64) {
        self.twins.with_seat(self.seat, |seat| {
            if let Some(busy) = &mut seat.busy {
                busy.phase = phase;
                busy.rows = rows;
                busy.bytes = bytes;
            }
        });
    }

    /// Another proxy holds it: gives it back, not to be offered again for a moment.
    pub fn busy_elsewhere(self) {
        let later = Instant::now().checked_add(ELSEWHERE_WAIT);
        self.twins
            .with_seat(self.seat, |seat| seat.not_before = later);
    }

    /// Another proxy has made it again: gives it back, not to be offered before it has been looked at.
    pub fn was_made_again(self) {
        self.twins
            .with_seat(self.seat, |seat| seat.condition = Condition::Behind);
        self.twins.ask();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.twins.with_seat(self.seat, |seat| seat.busy = None);
        self.twins.locked().wake_first();
    }
}

fn none_ready(detail: String) -> Fault {
    Fault::error(
        SqlState::NOT_IN_PREREQUISITE_STATE,
        "no twin is ready to finish the query on",
    )
    .detail(detail)
    .hint("Run pgherd setup; pgherd check says what is wrong with the twins.")
}

fn none_free(wait: Duration) -> Fault {
    Fault::error(
        SqlState::TOO_MANY_CONNECTIONS,
        "no twin became free in time to finish the query on",
    )
    .detail(format!(
        "The statement waited longer than query_wait_timeout ({wait:?})."
    ))
    .hint("Raise gather.twins and run pgherd setup, or raise query_wait_timeout.")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{Condition, Twins};
    use crate::config::{Host, Twin};
    use crate::metrics::view::TwinState;

    const LONG: Duration = Duration::from_hours(1);

    fn twin(number: usize) -> Twin {
        let name = format!("twin_{number}");
        let host = Host {
            host: "h".into(),
            port: 1,
            dbname: name.clone(),
            tls: None,
        };
        Twin { name, host }
    }

    fn current() -> Condition {
        Condition::Current {
            mark: "m".into(),
            made: SystemTime::UNIX_EPOCH,
        }
    }

    fn twins(conditions: Vec<Condition>) -> Arc<Twins> {
        let twins = Arc::new(Twins::default());
        let numbered = conditions.into_iter().enumerate();
        twins.set(
            numbered
                .map(|(index, condition)| (twin(index + 1), condition))
                .collect(),
            "m",
        );
        twins
    }

    #[tokio::test]
    async fn the_twin_used_longest_ago_comes_first() {
        let twins = twins(vec![current(), Condition::Behind, current()]);
        for expect in [0, 2, 0, 2] {
            let turn = twins.take("app", LONG).await.unwrap();
            assert_eq!(turn.index(), expect);
        }
        let (one, other) = (twins.take("a", LONG).await, twins.take("b", LONG).await);
        let full = twins
            .take("c", Duration::from_millis(20))
            .await
            .unwrap_err();
        assert_eq!(full.code.as_str(), "53300");
        assert!(full.hint.unwrap().contains("gather.twins"));
        drop((one, other));
        twins.take("c", LONG).await.unwrap();
    }

    #[tokio::test]
    async fn who_came_first_is_served_first_and_who_left_is_passed_over() {
        let twins = twins(vec![current()]);
        let turn = twins.take("a", LONG).await.unwrap();
        let mut waiting = Vec::new();
        for number in 0..4 {
            let (twins, user) = (Arc::clone(&twins), format!("{number}"));
            waiting.push(tokio::spawn(async move {
                let turn = twins.take(&user, LONG).await.unwrap();
                let rows = twins.rows("d", std::time::Instant::now());
                drop(turn);
                rows.first().unwrap().user.clone().unwrap()
            }));
            tokio::task::yield_now().await;
        }
        waiting.remove(1).abort();
        tokio::task::yield_now().await;
        drop(turn);
        for (task, expect) in waiting.into_iter().zip(["0", "2", "3"]) {
            assert_eq!(task.await.unwrap(), expect);
        }
    }

    #[tokio::test]
    async fn a_twin_that_is_held_elsewhere_is_left_alone_for_a_moment() {
        let twins = twins(vec![current(), current()]);
        let first = twins.take("a", LONG).await.unwrap();
        assert_eq!(first.index(), 0);
        first.busy_elsewhere();
        drop(twins.take("a", LONG).await.unwrap());
        let again = twins.take("a", LONG).await.unwrap();
        assert_eq!(again.index(), 1, "the other is not offered yet");
        again.busy_elsewhere();
        // Both are held: it is looked at them again without being told to.
        assert_eq!(twins.take("a", LONG).await.unwrap().index(), 0);
    }

    #[tokio::test]
    async fn a_change_is_waited_for_and_a_failure_is_told() {
        let twins = twins(vec![Condition::Missing]);
        let fault = twins.take("a", LONG).await.unwrap_err();
        assert!(fault.hint.unwrap().contains("pgherd setup"));
        twins.conclude(twins.asked(), twins.ready());
        assert!(twins.current(LONG).await.is_err());
        twins.set(vec![(twin(1), current())], "m");
        twins.conclude(twins.asked(), twins.ready());
        twins.current(LONG).await.unwrap();
        twins.note_home("m");
        twins.current(LONG).await.unwrap();
        twins.note_home("n");
        let late = twins.current(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(late.code.as_str(), "55000");
        let waiting = tokio::spawn({
            let twins = Arc::clone(&twins);
            async move { twins.current(LONG).await }
        });
        tokio::task::yield_now().await;
        twins.conclude(twins.asked(), Ok(()));
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_turn_outlives_a_reload() {
        let twins = twins(vec![current(), current()]);
        let turn = twins.take("a", LONG).await.unwrap();
        turn.note("fetch", 3, 40);
        let state = || {
            let rows = twins.rows("d", std::time::Instant::now());
            rows.iter()
                .map(|row| (row.twin.clone(), row.state, row.rows, row.bytes))
                .collect::<Vec<_>>()
        };
        twins.set(vec![(twin(2), current()), (twin(1), current())], "m");
        assert_eq!(
            state(),
            [
                ("twin_2".to_owned(), TwinState::Free, 0, 0),
                ("twin_1".to_owned(), TwinState::Busy, 3, 40)
            ]
        );
        twins.set(vec![(twin(2), current())], "m");
        drop(turn);
        twins.set(vec![(twin(1), current())], "m");
        twins.take("a", LONG).await.unwrap().was_made_again();
        assert_eq!(state()[0].1, TwinState::Behind);
    }
}
