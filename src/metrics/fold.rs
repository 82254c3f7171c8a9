//! Makes one snapshot of many: what all engines do, from what each does.
//!
//! *Invariant:* folding is commutative but for the order of the rows, and loses no count.

use std::collections::BTreeMap;

use crate::metrics::period::Totals;
use crate::metrics::view::{ErrorRow, PoolRow, RouteRow, ShardRow, Snapshot};

impl Snapshot {
    /// Takes another engine's snapshot in: lists are joined, counts of the same thing added.
    pub fn fold(&mut self, other: Snapshot) {
        self.state = self.state.max(other.state);
        self.engines += other.engines;
        self.login_clients += other.login_clients;
        self.plans_cached += other.plans_cached;
        self.multi_buffered_bytes += other.multi_buffered_bytes;
        self.out_of_sync += other.out_of_sync;
        self.clients.extend(other.clients);
        self.twins.extend(other.twins);
        self.servers.extend(other.servers);
        join(
            &mut self.pools,
            other.pools,
            PoolRow::is_same,
            |mine, row| mine.add(&row),
        );
        join(
            &mut self.databases,
            other.databases,
            |a, b| a.name == b.name,
            |mine, row| {
                mine.paused |= row.paused;
                mine.disabled |= row.disabled;
                mine.clients += row.clients;
                mine.servers += row.servers;
            },
        );
        join(
            &mut self.users,
            other.users,
            |a, b| a.name == b.name,
            |mine, row| {
                mine.clients += row.clients;
                mine.servers += row.servers;
            },
        );
        self.fold_faults(other.shards, other.errors);
        self.fold_routes(other.routes);
        join(
            &mut self.memory,
            other.memory,
            |a, b| a.name == b.name,
            |mine, row| {
                mine.used += row.used;
                mine.free += row.free;
            },
        );
        join(
            &mut self.hosts,
            other.hosts,
            |a, b| a.name == b.name,
            |mine, row| {
                mine.ttl = mine.ttl.min(row.ttl);
            },
        );
        join(
            &mut self.stats,
            other.stats,
            |a, b| a.database == b.database,
            |mine, row| {
                mine.totals.add(&row.totals);
            },
        );
    }

    /// There may be many: each is looked up.
    fn fold_routes(&mut self, routes: Vec<RouteRow>) {
        let places = self.routes.iter().enumerate();
        let mut known: BTreeMap<_, _> = places.map(|(at, row)| (row.key(), at)).collect();
        for row in routes {
            let end = self.routes.len();
            let at = *known.entry(row.key()).or_insert(end);
            match self.routes.get_mut(at) {
                Some(mine) => mine.add(&row),
                None => self.routes.push(row),
            }
        }
    }

    fn fold_faults(&mut self, shards: Vec<ShardRow>, errors: Vec<ErrorRow>) {
        let same_shard =
            |a: &ShardRow, b: &ShardRow| a.database == b.database && a.shard == b.shard;
        join(&mut self.shards, shards, same_shard, |mine, row| {
            mine.attempted(row.tried, row.down);
            mine.statements += row.statements;
            mine.errors += row.errors;
        });
        let same_error = |a: &ErrorRow, b: &ErrorRow| {
            a.code == b.code && a.origin == b.origin && a.shard == b.shard
        };
        join(&mut self.errors, errors, same_error, |mine, row| {
            mine.count += row.count;
        });
    }

    /// Puts the rows in the order in which they are shown, so that it depends on no engine.
    pub fn sort(&mut self) {
        self.clients.sort_by_key(|row| row.id);
        self.servers.sort_by_key(|row| row.id);
        self.pools.sort_by(|a, b| {
            (&a.database, &a.user, &a.shard, a.role).cmp(&(&b.database, &b.user, &b.shard, b.role))
        });
        self.databases.sort_by(|a, b| a.name.cmp(&b.name));
        self.users.sort_by(|a, b| a.name.cmp(&b.name));
        self.shards
            .sort_by(|a, b| (&a.database, &a.shard).cmp(&(&b.database, &b.shard)));
        self.errors
            .sort_by(|a, b| (&a.code, a.origin, &a.shard).cmp(&(&b.code, b.origin, &b.shard)));
        self.routes.sort_by(|a, b| {
            (b.count, &a.database, &a.statement, a.way).cmp(&(
                a.count,
                &b.database,
                &b.statement,
                b.way,
            ))
        });
        self.memory.sort_by(|a, b| a.name.cmp(&b.name));
        self.hosts.sort_by(|a, b| a.name.cmp(&b.name));
        self.stats.sort_by(|a, b| a.database.cmp(&b.database));
    }

    /// The sum of all databases' totals.
    pub fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for row in &self.stats {
            sum.add(&row.totals);
        }
        sum
    }
}

/// Adds each row to the one that is the same thing, or appends it.
fn join<T>(
    mine: &mut Vec<T>,
    other: Vec<T>,
    same: impl Fn(&T, &T) -> bool,
    add: impl Fn(&mut T, T),
) {
    for row in other {
        match mine.iter_mut().find(|known| same(known, &row)) {
            Some(known) => add(known, row),
            None => mine.push(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::PoolMode;
    use crate::metrics::view::{DatabaseRow, ErrorRow, PoolRow, Role, Snapshot, State};
    use std::time::Duration;

    fn engine(waiting: u64, wait: u64) -> Snapshot {
        let mut pool = PoolRow::new(
            "shop",
            "app",
            "shard_0",
            Role::Primary,
            PoolMode::Transaction,
        );
        pool.cl_waiting = waiting;
        pool.sv_idle = 1;
        pool.max_wait = Duration::from_secs(wait);
        Snapshot {
            engines: 1,
            pools: vec![pool],
            databases: vec![DatabaseRow {
                name: "shop".into(),
                clients: 2,
                ..Default::default()
            }],
            errors: vec![ErrorRow {
                code: "0A000".into(),
                origin: "proxy",
                count: 3,
                ..Default::default()
            }],
            ..Snapshot::default()
        }
    }

    #[test]
    fn same_things_are_added_and_waits_compared() {
        let mut all = engine(2, 1);
        all.fold(Snapshot {
            state: State::Paused,
            ..engine(3, 5)
        });
        let pool = all.pools.first().unwrap();
        assert_eq!(
            (all.pools.len(), pool.cl_waiting, pool.server_count()),
            (1, 5, 2)
        );
        assert_eq!(pool.max_wait, Duration::from_secs(5));
        assert_eq!((all.engines, all.state), (2, State::Paused));
        assert_eq!(all.databases.first().unwrap().clients, 4);
        assert_eq!(all.errors.first().unwrap().count, 6);
    }

    #[test]
    fn order_does_not_depend_on_the_engine() {
        let mut other = engine(1, 1);
        other.pools.first_mut().unwrap().database = "a".into();
        let (mut one, mut two) = (engine(1, 1), other.clone());
        one.fold(other);
        two.fold(engine(1, 1));
        one.sort();
        two.sort();
        assert_eq!(one, two);
    }
}
