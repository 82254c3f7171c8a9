//! PgBouncer's statistics of a database: totals since start, and averages over the last period.
//!
//! The time comes in as an argument. A [`Period`] keeps the totals of its beginning, so that the
//! averages are those of the period before, as in PgBouncer's `stats_period`.

use std::time::Duration;

/// How long a period of the averages is: PgBouncer's default `stats_period`.
pub const STATS_PERIOD: Duration = Duration::from_mins(1);

/// Counts of one database. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Times that a client was given a server connection.
    pub server_assignment_count: u64,
    pub xact_count: u64,
    pub query_count: u64,
    /// Bytes from clients.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Time in transactions, idle or not.
    pub xact_time: u64,
    /// Time that statements ran.
    pub query_time: u64,
    /// Time that clients waited for a server connection.
    pub wait_time: u64,
    /// Parse messages of clients.
    pub client_parse_count: u64,
    /// Parse messages to servers.
    pub server_parse_count: u64,
    pub bind_count: u64,
}

impl Totals {
    /// Adds another's counts.
    pub fn add(&mut self, other: &Totals) {
        *self = self.zip(other, u64::saturating_add);
    }

    /// What was counted since `then`.
    #[must_use]
    pub fn since(&self, then: &Totals) -> Totals {
        self.zip(then, u64::saturating_sub)
    }

    /// The values in the order of SHOW STATS, with the names that STATS_TOTALS uses.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("server_assignment_count", self.server_assignment_count),
            ("xact_count", self.xact_count),
            ("query_count", self.query_count),
            ("bytes_received", self.bytes_received),
            ("bytes_sent", self.bytes_sent),
            ("xact_time", self.xact_time),
            ("query_time", self.query_time),
            ("wait_time", self.wait_time),
            ("client_parse_count", self.client_parse_count),
            ("server_parse_count", self.server_parse_count),
            ("bind_count", self.bind_count),
        ]
    }

    /// Averages of these counts over a span: counts and bytes a second, times each.
    #[must_use]
    pub fn averages(&self, span: Duration) -> Totals {
        let each = |time: u64, count: u64| time.checked_div(count).unwrap_or(0);
        let per_second = |count: u64| {
            let rate = (u128::from(count) * 1_000_000).checked_div(span.as_micros());
            rate.map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
        };
        Totals {
            server_assignment_count: per_second(self.server_assignment_count),
            xact_count: per_second(self.xact_count),
            query_count: per_second(self.query_count),
            bytes_received: per_second(self.bytes_received),
            bytes_sent: per_second(self.bytes_sent),
            xact_time: each(self.xact_time, self.xact_count),
            query_time: each(self.query_time, self.query_count),
            wait_time: each(self.wait_time, self.server_assignment_count),
            client_parse_count: per_second(self.client_parse_count),
            server_parse_count: per_second(self.server_parse_count),
            bind_count: per_second(self.bind_count),
        }
    }

    fn zip(&self, other: &Totals, op: impl Fn(u64, u64) -> u64) -> Totals {
        Totals {
            server_assignment_count: op(
                self.server_assignment_count,
                other.server_assignment_count,
            ),
            xact_count: op(self.xact_count, other.xact_count),
            query_count: op(self.query_count, other.query_count),
            bytes_received: op(self.bytes_received, other.bytes_received),
            bytes_sent: op(self.bytes_sent, other.bytes_sent),
            xact_time: op(self.xact_time, other.xact_time),
            query_time: op(self.query_time, other.query_time),
            wait_time: op(self.wait_time, other.wait_time),
            client_parse_count: op(self.client_parse_count, other.client_parse_count),
            server_parse_count: op(self.server_parse_count, other.server_parse_count),
            bind_count: op(self.bind_count, other.bind_count),
        }
    }
}

/// One row of SHOW STATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatabaseStats {
    pub database: String,
    pub totals: Totals,
    /// Of the last whole period; zero until a [`Period`] fills them.
    pub averages: Totals,
}

/// The averages of several databases together: rates are added, times are weighted by what took them.
pub fn together(stats: &[DatabaseStats]) -> Totals {
    let mut sum = Totals::default();
    let (mut xact, mut query, mut wait) = (0_u64, 0_u64, 0_u64);
    for row in stats {
        let average = &row.averages;
        sum.add(average);
        xact = xact.saturating_add(average.xact_time.saturating_mul(average.xact_count));
        query = query.saturating_add(average.query_time.saturating_mul(average.query_count));
        wait = wait.saturating_add(
            average
                .wait_time
                .saturating_mul(average.server_assignment_count),
        );
    }
    Totals {
        xact_time: xact.checked_div(sum.xact_count).unwrap_or(0),
        query_time: query.checked_div(sum.query_count).unwrap_or(0),
        wait_time: wait.checked_div(sum.server_assignment_count).unwrap_or(0),
        ..sum
    }
}

/// The averages of the last period, and where the current one began.
#[derive(Clone, Debug, Default)]
pub struct Period {
    began: Duration,
    start: Vec<DatabaseStats>,
}

impl Period {
    /// Ends the period once it has lasted [`STATS_PERIOD`]: works out its averages and begins the next.
    /// `now` is the time since the process started.
    pub fn turn(&mut self, now: Duration, stats: &[DatabaseStats]) {
        let span = now.saturating_sub(self.began);
        if span < STATS_PERIOD {
            return;
        }
        let next = stats.iter().map(|row| {
            let then = self
                .of(&row.database)
                .map(|then| then.totals)
                .unwrap_or_default();
            DatabaseStats {
                averages: row.totals.since(&then).averages(span),
                ..row.clone()
            }
        });
        self.start = next.collect();
        self.began = now;
    }

    /// Sets the averages of the rows: those of the last whole period or, in the first, of the time so far.
    pub fn fill(&self, now: Duration, stats: &mut [DatabaseStats]) {
        let is_first = self.start.is_empty();
        for row in stats {
            row.averages = match self.of(&row.database) {
                Some(known) => known.averages,
                None if is_first => row.totals.averages(now),
                None => row.totals.averages(now.saturating_sub(self.began)),
            };
        }
    }

    fn of(&self, database: &str) -> Option<&DatabaseStats> {
        self.start.iter().find(|row| row.database == database)
    }
}

#[cfg(test)]
mod tests {
    use super::{DatabaseStats, Period, Totals, together};
    use std::time::Duration;

    fn stats(queries: u64, query_time: u64) -> Vec<DatabaseStats> {
        let totals = Totals {
            query_count: queries,
            query_time,
            ..Totals::default()
        };
        vec![DatabaseStats {
            database: "shop".into(),
            totals,
            ..Default::default()
        }]
    }

    #[test]
    fn averages_are_those_of_the_last_whole_period() {
        let second = Duration::from_secs;
        let mut period = Period::default();
        period.turn(second(60), &stats(600, 1_200));
        period.turn(second(120), &stats(1_200, 7_200));
        period.turn(second(121), &stats(9_999, 9_999));
        let mut now = stats(9_999, 9_999);
        period.fill(second(130), &mut now);
        let averages = now.first().unwrap().averages;
        assert_eq!((averages.query_count, averages.query_time), (10, 10));
    }

    #[test]
    fn times_of_several_databases_are_weighted() {
        let average = |query_count, query_time| DatabaseStats {
            averages: Totals {
                query_count,
                query_time,
                ..Totals::default()
            },
            ..Default::default()
        };
        let all = together(&[average(30, 100), average(10, 500)]);
        assert_eq!((all.query_count, all.query_time), (40, 200));
    }

    #[test]
    fn nothing_counted_averages_to_zero() {
        assert_eq!(
            Totals::default().averages(Duration::ZERO),
            Totals::default()
        );
    }
}
