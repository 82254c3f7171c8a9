//! Clients that work through the proxy while something happens to it, and what they were told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::client::{Client, ServerError};
use crate::fixture::Fixture;
use crate::herd::Herd;

/// What became of each write: acknowledged, refused or unknown. Keys are unique over all clients.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) acknowledged: Vec<i64>,
    /// The reply was lost or an error: the row may be there.
    pub(crate) unknown: Vec<i64>,
    /// How often each SQLSTATE came; the empty one is a lost connection.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers that no PostgreSQL would have given.
    pub(crate) wrong: Vec<String>,
}

/// Clients in threads that insert and read rows of `table` until they are stopped.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Told>>,
}

impl Load {
    /// Each client inserts keys of its own, reads each back, and goes on after any error.
    pub(crate) fn start(port: u16, database: &str, table: &str, clients: i64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let threads = (0..clients)
            .map(|number| {
                let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                let (database, table) = (database.to_owned(), table.to_owned());
                spawn(move || work(port, &database, &table, number, &stop, &done))
            })
            .collect();
        Load {
            stop,
            done,
            threads,
        }
    }

    pub(crate) fn on(fixture: &Fixture, clients: i64) -> Load {
        Load::start(
            fixture.herd.port,
            &fixture.databases.name,
            "by_jump",
            clients,
        )
    }

    /// Statements answered so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more statements have been answered.
    pub(crate) fn wait(&self, count: u64) {
        let goal = self.done() + count;
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.done() < goal {
            assert!(
                Instant::now() < deadline,
                "the load hangs after {} statements",
                self.done()
            );
            sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Told::default();
        for thread in self.threads {
            let told = thread.join().expect("a client does not panic");
            all.acknowledged.extend(told.acknowledged);
            all.unknown.extend(told.unknown);
            all.wrong.extend(told.wrong);
            for (code, count) in told.errors {
                *all.errors.entry(code).or_default() += count;
            }
        }
        all
    }
}

fn work(
    port: u16,
    database: &str,
    table: &str,
    number: i64,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> Told {
    let mut told = Told::default();
    let mut client: Option<Client> = None;
    let mut key = number * 1_000_000;
    while !stop.load(Ordering::Relaxed) {
        let connection = match client.take() {
            Some(connection) => Ok(connection),
            None => Client::try_connect(port, "app", database),
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                *told.errors.entry(error.code).or_default() += 1;
                sleep(Duration::from_millis(20));
                continue;
            }
        };
        key += 1;
        if step(&mut connection, table, key, &mut told) {
            client = Some(connection);
            done.fetch_add(2, Ordering::Relaxed);
        }
    }
    told
}

/// Inserts a row and reads it back; whether the connection is still good.
fn step(client: &mut Client, table: &str, key: i64, told: &mut Told) -> bool {
    let note = |told: &mut Told, error: ServerError| {
        assert!(
            !error.message.contains("TimedOut"),
            "a statement hangs: {error:?}"
        );
        let goes_on = !error.code.is_empty() && error.severity == "ERROR";
        *told.errors.entry(error.code).or_default() += 1;
        goes_on
    };
    let text = key.to_string();
    let insert = if key % 2 == 0 {
        client.query(&format!("INSERT INTO {table} VALUES ({key}, 0, 'v{key}')"))
    } else {
        client.query_with(
            &format!("INSERT INTO {table} VALUES ($1, 0, $2)"),
            &[Some(&text), Some(&format!("v{key}"))],
        )
    };
    match insert {
        Ok(answer) if answer.tags == ["INSERT 0 1"] => told.acknowledged.push(key),
        Ok(answer) => told.wrong.push(format!("insert of {key}: {answer:?}")),
        Err(error) => {
            told.unknown.push(key);
            return note(told, error);
        }
    }
    match client.query(&format!("SELECT v FROM {table} WHERE k = {key}")) {
        Ok(answer) if answer.rows == [vec![Some(format!("v{key}"))]] => true,
        Ok(answer) => {
            told.wrong.push(format!("read of {key}: {answer:?}"));
            true
        }
        Err(error) => note(told, error),
    }
}

impl Told {
    /// Nothing failed at all.
    pub(crate) fn check_flawless(&self) {
        assert_eq!(self.wrong, Vec::<String>::new());
        assert_eq!(
            self.errors,
            BTreeMap::new(),
            "after {} writes",
            self.acknowledged.len()
        );
    }

    /// Every acknowledged row is there, and no row that nobody sent.
    pub(crate) fn check_rows(&self, found: &[i64]) {
        assert_eq!(self.wrong, Vec::<String>::new());
        let lost: Vec<&i64> = self
            .acknowledged
            .iter()
            .filter(|key| found.binary_search(key).is_err())
            .collect();
        assert!(
            lost.is_empty(),
            "{} acknowledged rows are lost: {lost:?}",
            lost.len()
        );
        let mut sent: Vec<i64> = self
            .acknowledged
            .iter()
            .chain(&self.unknown)
            .copied()
            .collect();
        sent.sort_unstable();
        let strange: Vec<&i64> = found
            .iter()
            .filter(|key| sent.binary_search(key).is_err())
            .collect();
        assert!(strange.is_empty(), "rows nobody sent: {strange:?}");
    }
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within 15 s");
        sleep(Duration::from_millis(20));
    }
}

/// How many clients of the herd's database wait for a server connection.
pub(crate) fn waiting(herd: &Herd) -> i64 {
    let pools = herd.console().run("SHOW POOLS");
    pools
        .column("cl_waiting")
        .iter()
        .map(|count| count.parse::<i64>().expect("a count"))
        .sum()
}
