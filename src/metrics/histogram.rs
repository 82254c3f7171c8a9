//! A histogram with fixed buckets, cheap enough to bump for every statement.
//!
//! The exporter's own histogram takes samples and keeps each until it is rendered; this one counts
//! where it is bumped, and what is folded is one addition a bucket.

/// Upper bounds of the buckets in microseconds; what is above the last falls into one more.
pub const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
];

/// The same bounds in seconds, as the label `le` has them.
const SECONDS: [&str; 16] = [
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1",
    "0.25", "0.5", "1", "2.5", "10", "60",
];

/// How many durations fell into each bucket, and their sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BOUNDS.len()],
    over: u64,
    sum_micros: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, micros: u64) {
        let place = BOUNDS.iter().position(|&bound| micros <= bound);
        let bucket = match place.and_then(|index| self.buckets.get_mut(index)) {
            Some(bucket) => bucket,
            None => &mut self.over,
        };
        *bucket = bucket.wrapping_add(1);
        self.sum_micros = self.sum_micros.wrapping_add(micros);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(self.over, |sum, bucket| sum.wrapping_add(*bucket))
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine = mine.wrapping_add(theirs);
        }
        self.over = self.over.wrapping_add(other.over);
        self.sum_micros = self.sum_micros.wrapping_add(other.sum_micros);
    }

    /// Writes the lines of Prometheus's text format; `labels` is empty or `name="value",…`.
    pub fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut line = |suffix: &str, le: Option<&str>, value: &str| {
            out.push_str(name);
            out.push_str(suffix);
            match le {
                Some(le) => {
                    for part in ["{", labels, comma, "le=\"", le, "\"}"] {
                        out.push_str(part);
                    }
                }
                None if labels.is_empty() => (),
                None => {
                    for part in ["{", labels, "}"] {
                        out.push_str(part);
                    }
                }
            }
            out.push(' ');
            out.push_str(value);
            out.push('\n');
        };
        let mut so_far = 0_u64;
        for (count, seconds) in self.buckets.iter().zip(SECONDS) {
            so_far = so_far.wrapping_add(*count);
            line("_bucket", Some(seconds), &so_far.to_string());
        }
        let count = self.count().to_string();
        line("_bucket", Some("+Inf"), &count);
        let (seconds, micros) = (self.sum_micros / 1_000_000, self.sum_micros % 1_000_000);
        line("_sum", None, &format!("{seconds}.{micros:06}"));
        line("_count", None, &count);
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, Histogram, SECONDS};

    #[test]
    fn bounds_are_the_same_in_both_units() {
        for (micros, seconds) in BOUNDS.iter().zip(SECONDS) {
            let (whole, part) = seconds.split_once('.').unwrap_or((seconds, ""));
            let written: u64 = format!("{whole}{part:0<6}").parse().unwrap();
            assert_eq!(written, *micros);
        }
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::default();
        for micros in [100, 101, 70_000_000] {
            histogram.record(micros);
        }
        let mut text = String::new();
        histogram.render("x", "shard=\"a\"", &mut text);
        assert!(
            text.contains("x_bucket{shard=\"a\",le=\"0.0001\"} 1\n"),
            "{text}"
        );
        assert!(
            text.contains("x_bucket{shard=\"a\",le=\"60\"} 2\n"),
            "{text}"
        );
        assert!(
            text.contains("x_bucket{shard=\"a\",le=\"+Inf\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("x_sum{shard=\"a\"} 70.000201\nx_count{shard=\"a\"} 3\n"),
            "{text}"
        );
    }
}
