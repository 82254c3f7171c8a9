//! What the process measures: one registry, rendered as Prometheus text.
//!
//! Engines count in plain integers ([`counters`]) and fold them in once a second; gauges are set from
//! a [`view::Snapshot`] when somebody asks. Counters and gauges live in the `metrics` exporter;
//! histograms have fixed buckets of our own ([`histogram`]), because the exporter keeps every sample
//! until it renders. No recorder is installed globally, so that tests and two proxies in one process
//! do not meet.

mod cache;
pub mod catalogue;
pub mod counters;
mod fold;
pub mod histogram;
pub mod period;
pub mod view;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::metrics::{Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::config::Config;
use crate::metrics::catalogue::{Kind, Metric, PlanOutcome, RoleLabel, RouteLabel, SharedOutcome};
use crate::metrics::histogram::Histogram;
use crate::metrics::view::{CacheRow, Snapshot};

/// A metric and the values of its labels.
type Series = (Metric, Vec<String>);

/// The process's registry. Shared by `Arc`; every method may be called from any thread.
#[derive(Debug)]
pub struct Metrics {
    recorder: PrometheusRecorder,
    histograms: Mutex<BTreeMap<Series, Histogram>>,
    /// The gauges set by the last [`Metrics::observe`], so that what is gone is set to 0.
    gauges: Mutex<BTreeMap<Series, f64>>,
    /// What the cache had counted when it was last looked at.
    cache: Mutex<BTreeMap<(String, String), CacheRow>>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// An empty registry, in which metrics without labels stand at 0.
    pub fn new() -> Metrics {
        let metrics = Metrics {
            recorder: PrometheusBuilder::new().build_recorder(),
            histograms: Mutex::default(),
            gauges: Mutex::default(),
            cache: Mutex::default(),
        };
        for metric in Metric::ALL {
            let (name, help) = (
                KeyName::from_const_str(metric.name()),
                SharedString::from(metric.help()),
            );
            match metric.kind() {
                Kind::Counter => metrics.recorder.describe_counter(name, None, help),
                Kind::Gauge => metrics.recorder.describe_gauge(name, None, help),
                Kind::Histogram => (),
            }
            if metric.labels().is_empty() {
                match metric.kind() {
                    Kind::Counter => metrics.add_at(*metric, &[], 0),
                    Kind::Gauge => metrics.set(*metric, &[], 0.0),
                    Kind::Histogram => metrics.record(*metric, &[], &mut Histogram::default()),
                }
            }
        }
        metrics.set(Metric::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1.0);
        metrics
    }

    /// Makes the series of the config's databases and shards, so that they exist at 0.
    pub fn prime(&self, config: &Config) {
        for database in config.databases.values() {
            self.add_at(Metric::ClientConnectionsOpened, &[&database.name], 0);
            self.add_at(Metric::ClientConnectionsClosed, &[&database.name], 0);
            self.add_at(Metric::Deadlocks, &[&database.name], 0);
            for shard in &database.shards {
                self.add_at(
                    Metric::Statements,
                    &[RouteLabel::Single.as_str(), &shard.name],
                    0,
                );
                self.set(Metric::PoolWaiting, &[&database.name, &shard.name], 0.0);
                self.set(Metric::ShardConnections, &[&shard.name], 0.0);
                for outcome in SharedOutcome::ALL {
                    let labels = [shard.name.as_str(), outcome.as_str()];
                    self.add_at(Metric::SharedReads, &labels, 0);
                }
                for role in RoleLabel::ALL {
                    let labels = [shard.name.as_str(), role.as_str()];
                    self.add_at(Metric::ServerConnectionsOpened, &labels, 0);
                    self.add_at(Metric::ServerConnectionsClosed, &labels, 0);
                }
            }
        }
        for outcome in PlanOutcome::ALL {
            self.add_at(Metric::PlanCache, &[outcome.as_str()], 0);
        }
    }

    /// Adds to a counter; `labels` are the values in the order of [`Metric::labels`]. Adding 0 makes no series.
    pub fn add(&self, metric: Metric, labels: &[&str], n: u64) {
        if n > 0 {
            self.add_at(metric, labels, n);
        }
    }

    /// Sets a gauge; `labels` as for [`Metrics::add`].
    pub fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        self.recorder
            .register_gauge(&key(metric, labels), &metadata())
            .set(value);
    }

    /// Sets a gauge to a count; `labels` as for [`Metrics::add`].
    pub fn set_count(&self, metric: Metric, labels: &[&str], count: u64) {
        self.set(metric, labels, float(count));
    }

    /// Moves an engine's histogram into the registry and empties it; `labels` as for [`Metrics::add`].
    pub fn record(&self, metric: Metric, labels: &[&str], histogram: &mut Histogram) {
        if histogram.count() == 0 && !labels.is_empty() {
            return;
        }
        let series = (
            metric,
            labels.iter().map(|label| (*label).to_owned()).collect(),
        );
        lock(&self.histograms)
            .entry(series)
            .or_default()
            .add(histogram);
        *histogram = Histogram::default();
    }

    /// Sets the gauges from what the engines say of themselves.
    pub fn observe(&self, snapshot: &Snapshot) {
        self.observe_cache(&snapshot.cache);
        let mut gauges = lock(&self.gauges);
        for value in gauges.values_mut() {
            *value = 0.0;
        }
        let mut add = |metric, labels: &[&str], count: u64| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            *gauges.entry((metric, labels)).or_default() += float(count);
        };
        for pool in &snapshot.pools {
            for (state, count) in pool.servers() {
                add(
                    Metric::PoolServers,
                    &[&pool.shard, pool.role.as_str(), state],
                    count,
                );
            }
            add(
                Metric::ShardConnections,
                &[&pool.shard],
                pool.server_count(),
            );
            add(
                Metric::PoolWaiting,
                &[&pool.database, &pool.shard],
                pool.cl_waiting,
            );
        }
        for row in &snapshot.cache {
            add(Metric::CacheEntries, &[&row.table], row.entries);
            add(Metric::CacheBytes, &[&row.table], row.bytes);
        }
        add(Metric::PlansCached, &[], snapshot.plans_cached);
        add(
            Metric::MultiBufferedBytes,
            &[],
            snapshot.multi_buffered_bytes,
        );
        for ((metric, labels), value) in &*gauges {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            self.set(*metric, &labels, *value);
        }
    }

    /// Everything as Prometheus's text format, version 0.0.4.
    pub fn render(&self) -> String {
        let handle = self.recorder.handle();
        handle.run_upkeep();
        let mut text = handle.render();
        let mut last = None;
        for ((metric, values), histogram) in &*lock(&self.histograms) {
            let name = metric.name();
            if last != Some(*metric) {
                for part in [
                    "# HELP ",
                    name,
                    " ",
                    metric.help(),
                    "\n# TYPE ",
                    name,
                    " histogram\n",
                ] {
                    text.push_str(part);
                }
                last = Some(*metric);
            }
            let labels = metric.labels().iter().zip(values).map(|(label, value)| {
                format!(
                    "{label}=\"{}\"",
                    value
                        .replace('\\', "\\\\")
                        .replace('"', "\\\"")
                        .replace('\n', "\\n")
                )
            });
            histogram.render(name, &labels.collect::<Vec<_>>().join(","), &mut text);
        }
        text
    }

    fn add_at(&self, metric: Metric, labels: &[&str], n: u64) {
        self.recorder
            .register_counter(&key(metric, labels), &metadata())
            .increment(n);
    }
}

fn key(metric: Metric, values: &[&str]) -> Key {
    debug_assert_eq!(
        metric.labels().len(),
        values.len(),
        "labels of {}",
        metric.name()
    );
    let labels = metric.labels().iter().zip(values);
    let labels = labels.map(|(name, value)| Label::new(*name, (*value).to_owned()));
    Key::from_parts(metric.name(), labels.collect::<Vec<_>>())
}

fn metadata() -> Metadata<'static> {
    Metadata::new("pgherd", Level::INFO, None)
}

/// A count as a gauge has it: exact to 2^53, enough for connections and bytes.
fn float(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & 0xFFFF_FFFF);
    let part = |half: u64| u32::try_from(half).map_or(f64::MAX, f64::from);
    part(high) * 4_294_967_296.0 + part(low)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::config::PoolMode;
    use crate::metrics::catalogue::Metric;
    use crate::metrics::view::{PoolRow, Role, Snapshot};

    #[test]
    fn alarms_exist_from_the_start_with_their_help() {
        let text = Metrics::new().render();
        assert!(text.contains("\npgherd_out_of_sync_total 0\n"), "{text}");
        assert!(text.contains(&format!(
            "# HELP pgherd_out_of_sync_total {}\n",
            Metric::OutOfSync.help()
        )));
        assert!(text.contains("# TYPE pgherd_out_of_sync_total counter\n"));
    }

    #[test]
    fn what_is_gone_reads_zero() {
        let metrics = Metrics::new();
        let mut pool = PoolRow::new("shop", "app", "shard_0", Role::Primary, PoolMode::Session);
        pool.sv_active = 2;
        pool.cl_waiting = 3;
        metrics.observe(&Snapshot {
            pools: vec![pool],
            ..Snapshot::default()
        });
        let line = |value| {
            format!(
                "pgherd_pool_servers{{shard=\"shard_0\",role=\"primary\",state=\"active\"}} {value}\n"
            )
        };
        assert!(metrics.render().contains(&line(2)));
        assert!(
            metrics
                .render()
                .contains("pgherd_pool_waiting{database=\"shop\",shard=\"shard_0\"} 3\n")
        );
        metrics.observe(&Snapshot::default());
        assert!(metrics.render().contains(&line(0)));
    }
}
