//! Every interleaving of a commit, its death or deafness at any point, and recoveries, step by step.
//!
//! Servers are what PostgreSQL is here: a transaction that is open, prepared or ended, and the row of the
//! decider. A message that was sent may be carried out even after its sender takes it for lost, until the
//! server notices that the connection is gone.
//!
//! A read that is to see the transaction whole passes the gates meanwhile ([`crate::control::gate`]), without that of
//! the home shard, which is for progress alone.

use std::collections::BTreeSet;

use super::machine::{Heard, Machine, Order, Outcome};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Open,
    Prepared,
    Committed,
    RolledBack,
}

/// The row of the decider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Row {
    None,
    /// Inserted by the transaction that is to be committed, and not committed.
    Pending,
    Commits,
    Aborts,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Server {
    fate: Fate,
    /// The coordinator has a connection.
    connected: bool,
    /// What is on its way to it.
    sent: Option<Order>,
    /// Nobody waits for the answer of that.
    orphan: bool,
    answer: Option<Heard>,
    /// The transaction has passed the gate here; it closes it until it ends.
    entered: bool,
}

impl Server {
    /// Whether the gate is closed to reads.
    fn is_closed(&self) -> bool {
        self.entered && matches!(self.fate, Fate::Open | Fate::Prepared)
    }
}

/// How far a read has come on one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Read {
    Waits,
    Passed,
    /// Its snapshot is taken, the gate given up: whether it sees the transaction.
    Sees(bool),
}

/// How far one look of a recovery has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    at: Step,
    /// A row was seen before prepared transactions were listed.
    row: bool,
    found: Vec<bool>,
    decision: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Rows,
    List(usize),
    Settle,
    /// The row is there: whose decision is it?
    Read,
    Finish(usize),
    Clear,
}

impl Look {
    fn new(servers: usize) -> Look {
        Look {
            at: Step::Rows,
            row: false,
            found: vec![false; servers],
            decision: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    /// `None` once the coordinator is dead.
    machine: Option<Machine>,
    told: Option<Outcome>,
    forgotten: bool,
    row: Row,
    servers: Vec<Server>,
    looks: Vec<Look>,
    /// A read's part on each server, if there is one.
    read: Vec<Read>,
}

impl World {
    fn new(servers: usize, looks: usize, reads: bool) -> World {
        World {
            read: vec![Read::Waits; if reads { servers } else { 0 }],
            machine: Some(Machine::new(&vec![true; servers], None)),
            told: None,
            forgotten: false,
            row: Row::None,
            servers: vec![
                Server {
                    fate: Fate::Open,
                    connected: true,
                    sent: None,
                    orphan: false,
                    answer: None,
                    entered: false,
                };
                servers
            ],
            looks: vec![Look::new(servers); looks],
        }
    }

    /// All worlds that may be next.
    fn next(&self) -> Vec<World> {
        let mut worlds = Vec::new();
        let mut step = |change: &dyn Fn(&mut World) -> bool| {
            let mut world = self.clone();
            if change(&mut world) && world != *self {
                worlds.push(world);
            }
        };
        step(&World::coordinate);
        step(&World::forget);
        step(&|world| world.machine.take().is_some() && world.cut_all());
        for at in 0..self.servers.len() {
            step(&|world| world.carry_out(at));
            step(&|world| world.hear(at));
            step(&|world| world.lose(at));
            step(&|world| world.notice(at));
            step(&|world| world.turn_away(at));
            step(&|world| world.pass(at));
            step(&|world| world.take_snapshot(at));
        }
        step(&World::give_up);
        for look in 0..self.looks.len() {
            step(&|world| world.look(look));
        }
        worlds
    }

    /// The coordinator gives the orders that are due.
    fn coordinate(&mut self) -> bool {
        let Some(machine) = &mut self.machine else {
            return false;
        };
        for (at, order) in machine.orders() {
            let server = &mut self.servers[at];
            if server.connected {
                server.sent = Some(order);
            } else {
                server.answer = Some(Heard::Lost);
            }
        }
        self.told = machine.outcome();
        true
    }

    /// The last word of a coordinator that has seen everything through.
    fn forget(&mut self) -> bool {
        let done = self.told == Some(Outcome::Committed)
            && self
                .machine
                .as_ref()
                .is_some_and(|machine| !machine.leaves_some());
        if done && !self.forgotten {
            self.row = Row::None;
            self.forgotten = true;
            return true;
        }
        false
    }

    /// Whether a read keeps the gate of a server from what it was sent.
    fn is_kept_out(&self, at: usize) -> bool {
        self.read.get(at) == Some(&Read::Passed)
            && matches!(self.servers[at].sent, Some(Order::Decide | Order::Prepare))
    }

    /// What waits at a gate has waited too long.
    fn turn_away(&mut self, at: usize) -> bool {
        if !self.is_kept_out(at) {
            return false;
        }
        let server = &mut self.servers[at];
        server.sent = None;
        server.fate = Fate::RolledBack;
        if server.orphan {
            server.orphan = false;
        } else {
            server.answer = Some(Heard::Refused);
        }
        true
    }

    /// The read passes a gate.
    fn pass(&mut self, at: usize) -> bool {
        if self.read.get(at) != Some(&Read::Waits) || self.servers[at].is_closed() {
            return false;
        }
        self.read[at] = Read::Passed;
        true
    }

    /// Once it has passed all, it takes its snapshots, each by itself.
    fn take_snapshot(&mut self, at: usize) -> bool {
        if self.read.get(at) != Some(&Read::Passed) || self.read.contains(&Read::Waits) {
            return false;
        }
        self.read[at] = Read::Sees(self.servers[at].fate == Fate::Committed);
        true
    }

    /// It ends, has waited too long, or its proxy dies; the next one begins.
    fn give_up(&mut self) -> bool {
        self.read.fill(Read::Waits);
        true
    }

    /// A server does what it was sent.
    fn carry_out(&mut self, at: usize) -> bool {
        if self.is_kept_out(at) {
            return false;
        }
        let Some(order) = self.servers[at].sent.take() else {
            return false;
        };
        let fate = self.servers[at].fate;
        let decides = at == 0;
        let (fate, heard) = match (order, fate) {
            (Order::Decide, Fate::Open) if self.row == Row::None => {
                self.row = Row::Pending;
                (fate, Heard::Done)
            }
            (Order::Decide, _) => (Fate::RolledBack, Heard::Refused),
            (Order::Prepare, Fate::Open) => (Fate::Prepared, Heard::Done),
            (Order::Commit, Fate::Open) => {
                if decides {
                    assert_eq!(self.row, Row::Pending);
                    self.row = Row::Commits;
                }
                (Fate::Committed, Heard::Done)
            }
            (Order::Prepare | Order::Commit, _) => (fate, Heard::Refused),
            (Order::CommitPrepared, Fate::Prepared) => (Fate::Committed, Heard::Done),
            (Order::RollbackPrepared, Fate::Prepared) => (Fate::RolledBack, Heard::Done),
            (Order::Rollback, Fate::Open) => {
                if decides && self.row == Row::Pending {
                    self.row = Row::None;
                }
                (Fate::RolledBack, Heard::Done)
            }
            (Order::CommitPrepared | Order::RollbackPrepared | Order::Rollback, _) => {
                (fate, Heard::Done)
            }
        };
        let server = &mut self.servers[at];
        server.fate = fate;
        server.entered |= matches!(order, Order::Decide | Order::Prepare) && heard == Heard::Done;
        if server.orphan {
            server.orphan = false;
        } else {
            server.answer = Some(heard);
        }
        true
    }

    fn hear(&mut self, at: usize) -> bool {
        let (Some(machine), Some(heard)) = (&mut self.machine, self.servers[at].answer.take())
        else {
            return false;
        };
        machine.heard(at, heard);
        true
    }

    /// The coordinator takes a connection for lost.
    fn lose(&mut self, at: usize) -> bool {
        if self.machine.is_none() || !self.servers[at].connected {
            return false;
        }
        self.cut(at);
        true
    }

    fn cut(&mut self, at: usize) {
        let server = &mut self.servers[at];
        server.connected = false;
        if server.sent.is_some() && !server.orphan {
            server.orphan = true;
            server.answer = Some(Heard::Lost);
        } else if server.answer.is_some() {
            server.answer = Some(Heard::Lost);
        }
    }

    fn cut_all(&mut self) -> bool {
        for at in 0..self.servers.len() {
            self.cut(at);
            self.servers[at].answer = None;
        }
        true
    }

    /// A server notices that a connection is gone.
    fn notice(&mut self, at: usize) -> bool {
        let server = &mut self.servers[at];
        if server.connected || (server.fate != Fate::Open && server.sent.is_none()) {
            return false;
        }
        server.sent = None;
        server.orphan = false;
        if server.fate == Fate::Open {
            server.fate = Fate::RolledBack;
            if at == 0 && self.row == Row::Pending {
                self.row = Row::None;
            }
        }
        true
    }

    /// A recovery takes its next step.
    fn look(&mut self, which: usize) -> bool {
        let servers = self.servers.len();
        let mut look = self.looks[which].clone();
        match look.at {
            Step::Rows => {
                look = Look::new(servers);
                look.row = matches!(self.row, Row::Commits | Row::Aborts);
                look.at = Step::List(1);
            }
            Step::List(at) => {
                look.found[at] = self.servers[at].fate == Fate::Prepared;
                look.at = if at + 1 < servers {
                    Step::List(at + 1)
                } else if look.found.contains(&true) {
                    Step::Settle
                } else if look.row {
                    Step::Clear
                } else {
                    Step::Rows
                };
            }
            Step::Settle => match self.row {
                Row::Pending => return false,
                Row::None => {
                    self.row = Row::Aborts;
                    look.at = Step::Read;
                }
                Row::Commits | Row::Aborts => look.at = Step::Read,
            },
            Step::Read => match self.row {
                // It was taken back meanwhile: another look.
                Row::None | Row::Pending => look = Look::new(servers),
                row @ (Row::Commits | Row::Aborts) => {
                    look.decision = Some(row == Row::Commits);
                    look.at = Step::Finish(1);
                }
            },
            Step::Finish(at) => {
                let server = &mut self.servers[at];
                if look.found[at] && server.fate == Fate::Prepared {
                    server.fate = if look.decision == Some(true) {
                        Fate::Committed
                    } else {
                        Fate::RolledBack
                    };
                }
                if at + 1 < servers {
                    look.at = Step::Finish(at + 1);
                } else {
                    look = Look::new(servers);
                }
            }
            Step::Clear => {
                if self.row != Row::Pending {
                    self.row = Row::None;
                }
                look = Look::new(servers);
            }
        }
        self.looks[which] = look;
        true
    }

    fn check(&self) {
        let is = |fate: Fate| self.servers.iter().any(|server| server.fate == fate);
        assert!(
            !(is(Fate::Committed) && is(Fate::RolledBack)),
            "half of it is committed: {self:?}"
        );
        let sees = |wanted| self.read.contains(&Read::Sees(wanted));
        assert!(!(sees(true) && sees(false)), "half of it is seen: {self:?}");
        match self.told {
            Some(Outcome::Committed) => assert!(!is(Fate::RolledBack), "{self:?}"),
            Some(Outcome::RolledBack { .. }) => assert!(!is(Fate::Committed), "{self:?}"),
            Some(Outcome::Unknown { .. }) | None => {}
        }
    }

    /// Once nobody but a recovery does anything, it leaves nothing.
    fn settles(mut self) {
        self.machine = None;
        self.cut_all();
        for at in 0..self.servers.len() {
            self.notice(at);
        }
        for which in 0..self.looks.len() {
            for _ in 0..6 * (self.servers.len() + 2) {
                self.look(which);
                self.check();
            }
        }
        let left = self
            .servers
            .iter()
            .any(|server| server.fate == Fate::Prepared);
        assert!(
            !left && self.row == Row::None,
            "something is left: {self:?}"
        );
    }
}

/// Walks all worlds; returns how many there are.
fn explore(first: World) -> usize {
    let mut seen = BTreeSet::new();
    let mut waiting = vec![first];
    while let Some(world) = waiting.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        world.check();
        world.clone().settles();
        waiting.extend(world.next());
    }
    seen.len()
}

#[test]
fn two_shards_and_two_recoveries_are_never_apart() {
    assert!(explore(World::new(2, 2, false)) > 1_000);
}

#[test]
fn three_shards_and_a_recovery_are_never_apart() {
    assert!(explore(World::new(3, 1, false)) > 10_000);
}

#[test]
fn a_read_never_sees_half_of_it() {
    assert!(explore(World::new(2, 1, true)) > 1_000);
}
