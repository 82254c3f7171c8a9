//! The commit of a transaction on several shards, without I/O: what each participant is told, and what follows
//! from what it says.

/// What a participant is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// To the decider: insert the row that says commit.
    Decide,
    Prepare,
    Commit,
    CommitPrepared,
    Rollback,
    RollbackPrepared,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Heard {
    Done,
    /// To [`Order::Decide`]: the transaction is read-only on each shard, no row is needed.
    ReadsOnly,
    /// The server says that it did not; but for a prepared transaction, its part is rolled back.
    Refused,
    /// There is no answer: it was carried out or not.
    Lost,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// The decision is durable. Prepared transactions may be left to recovery.
    Committed,
    /// Nothing of it will ever be seen; this participant is why. Prepared transactions may be left to recovery.
    RolledBack { by: usize },
    /// This participant, the decider, was lost in its commit: recovery finds out.
    Unknown { by: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    Deciding,
    /// Those that wrote are prepared, those that only read commit.
    Preparing,
    /// The decider commits.
    Committing,
    /// The prepared ones commit.
    Finishing,
    Aborting,
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State {
    Open,
    Prepared,
    /// It has ended, or its connection has; what is left of it is for recovery.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Part {
    writes: bool,
    state: State,
    asked: Option<Order>,
}

/// The state of one commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine {
    parts: Vec<Part>,
    /// Who commits last, if anyone wrote.
    decider: Option<usize>,
    phase: Phase,
    /// The orders of the phase have been given.
    ordered: bool,
    failed: Option<usize>,
    lost_in_commit: bool,
    left_over: bool,
}

impl Machine {
    /// For participants that wrote or did not. The decider is `preferred` if it wrote, else the first that did.
    pub fn new(writes: &[bool], preferred: Option<usize>) -> Machine {
        let parts: Vec<Part> = writes
            .iter()
            .map(|&writes| Part {
                writes,
                state: State::Open,
                asked: None,
            })
            .collect();
        let wrote = |at: &usize| writes.get(*at).copied().unwrap_or(false);
        let decider = preferred
            .filter(wrote)
            .or_else(|| writes.iter().position(|writes| *writes));
        let several = writes.iter().filter(|writes| **writes).count() > 1;
        Machine {
            parts,
            decider,
            phase: if several {
                Phase::Deciding
            } else {
                Phase::Preparing
            },
            ordered: false,
            failed: None,
            lost_in_commit: false,
            left_over: false,
        }
    }

    /// Who decides, where two phases are needed.
    pub fn decider(&self) -> Option<usize> {
        self.decider
    }

    /// What is to be said now, to whom. Empty while answers are awaited, and at the end.
    pub fn orders(&mut self) -> Vec<(usize, Order)> {
        loop {
            if self.phase == Phase::Over || self.parts.iter().any(|part| part.asked.is_some()) {
                return Vec::new();
            }
            if self.ordered {
                self.ordered = false;
                self.phase = self.next();
                continue;
            }
            self.ordered = true;
            let mut orders = Vec::new();
            for at in 0..self.parts.len() {
                let order = self.order(at);
                if let (Some(order), Some(part)) = (order, self.parts.get_mut(at)) {
                    part.asked = Some(order);
                    orders.push((at, order));
                }
            }
            if !orders.is_empty() {
                return orders;
            }
        }
    }

    /// The phase after this one, all of whose answers are there.
    fn next(&self) -> Phase {
        let failed = self.failed.is_some();
        match self.phase {
            Phase::Deciding | Phase::Preparing | Phase::Committing if failed => {
                if self.lost_in_commit {
                    Phase::Over
                } else {
                    Phase::Aborting
                }
            }
            Phase::Deciding => Phase::Preparing,
            Phase::Preparing => Phase::Committing,
            Phase::Committing => Phase::Finishing,
            Phase::Finishing | Phase::Aborting | Phase::Over => Phase::Over,
        }
    }

    /// What one participant is told in this phase.
    fn order(&self, at: usize) -> Option<Order> {
        let part = self.parts.get(at)?;
        let decides = self.decider == Some(at);
        match (self.phase, part.state) {
            (Phase::Deciding, State::Open) => decides.then_some(Order::Decide),
            (Phase::Preparing, State::Open) if decides => None,
            (Phase::Preparing, State::Open) if part.writes => Some(Order::Prepare),
            (Phase::Preparing | Phase::Committing, State::Open) => Some(Order::Commit),
            (Phase::Finishing, State::Prepared) => Some(Order::CommitPrepared),
            (Phase::Aborting, State::Open) => Some(Order::Rollback),
            (Phase::Aborting, State::Prepared) => Some(Order::RollbackPrepared),
            (
                Phase::Deciding
                | Phase::Preparing
                | Phase::Committing
                | Phase::Finishing
                | Phase::Aborting
                | Phase::Over,
                State::Open | State::Prepared | State::Ended,
            ) => None,
        }
    }

    /// Takes what a participant says to its order.
    pub fn heard(&mut self, at: usize, heard: Heard) {
        let decides = self.decider == Some(at);
        let Some(part) = self.parts.get_mut(at) else {
            return;
        };
        let Some(order) = part.asked.take() else {
            return;
        };
        match (order, heard) {
            (Order::Decide, Heard::Done) => {}
            (Order::Decide, Heard::ReadsOnly) => {
                self.decider = None;
                for part in &mut self.parts {
                    part.writes = false;
                }
            }
            (Order::Decide, Heard::Refused) => {
                self.failed.get_or_insert(at);
            }
            (Order::Prepare, Heard::Done | Heard::ReadsOnly) => part.state = State::Prepared,
            (Order::Commit, Heard::Done | Heard::ReadsOnly) => part.state = State::Ended,
            (Order::Decide | Order::Prepare | Order::Commit, Heard::Refused | Heard::Lost) => {
                part.state = State::Ended;
                self.failed.get_or_insert(at);
                self.left_over |= order == Order::Prepare && heard == Heard::Lost;
                self.lost_in_commit |= order == Order::Commit && decides && heard == Heard::Lost;
            }
            (Order::CommitPrepared | Order::RollbackPrepared | Order::Rollback, heard) => {
                part.state = State::Ended;
                self.left_over |= heard != Heard::Done && order != Order::Rollback;
            }
        }
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<Outcome> {
        if self.phase != Phase::Over {
            return None;
        }
        Some(match self.failed {
            Some(by) if self.lost_in_commit => Outcome::Unknown { by },
            Some(by) => Outcome::RolledBack { by },
            None => Outcome::Committed,
        })
    }

    /// Whether prepared transactions may be left to recovery.
    pub fn leaves_some(&self) -> bool {
        self.left_over || (self.lost_in_commit && self.parts.len() > 1)
    }
}
