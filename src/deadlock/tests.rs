//! Graphs of who waits for whom, and who of them is ended.

use std::collections::BTreeMap;

use super::{Blocker, Held, LockWait, PoolWait, Unit, View, common, find};

/// A client that holds these connections, all of them quiet; its number is its age.
fn unit(client: u64, held: &[(&str, i32)]) -> Unit {
    Unit {
        client,
        began: client,
        held: held
            .iter()
            .map(|(shard, pid)| Held {
                shard: (*shard).to_owned(),
                pid: *pid,
                mark: 1,
                gid: None,
            })
            .collect(),
        pool: None,
    }
}

fn waits_for_pool(unit: Unit, shard: &str, budgets: &[&[u64]]) -> Unit {
    Unit {
        pool: Some(PoolWait {
            shard: shard.to_owned(),
            since: 1,
            budgets: budgets.iter().map(|budget| budget.to_vec()).collect(),
        }),
        ..unit
    }
}

fn lock(shard: &str, pid: i32, blockers: &[i32]) -> LockWait {
    LockWait {
        shard: shard.to_owned(),
        pid,
        since: "1".to_owned(),
        what: "ShareLock on transaction 7".to_owned(),
        blockers: blockers.iter().copied().map(Blocker::Process).collect(),
    }
}

fn view(units: &[Unit], locks: &[LockWait]) -> View {
    View {
        units: BTreeMap::from([("p".to_owned(), units.to_vec())]),
        locks: locks.to_vec(),
    }
}

/// The clients that are ended.
fn victims(view: &View) -> Vec<u64> {
    let found = find(view).into_iter();
    found.map(|deadlock| deadlock.victim.client).collect()
}

#[test]
fn two_that_cross_on_two_shards_lose_the_younger() {
    let units = [
        unit(1, &[("a", 11), ("b", 12)]),
        unit(2, &[("a", 21), ("b", 22)]),
    ];
    let locks = [lock("b", 12, &[22]), lock("a", 21, &[11])];
    let found = find(&view(&units, &locks));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].victim.client, 2);
    assert_eq!(
        found[0].detail,
        "Process 21 of shard \"a\" waits for ShareLock on transaction 7; blocked by process 11.\n\
         Process 12 of shard \"b\" waits for ShareLock on transaction 7; blocked by process 22."
    );
    assert_eq!(found[0].shards.iter().collect::<Vec<_>>(), ["a", "b"]);
    // A line is no circle.
    assert_eq!(victims(&view(&units, &locks[..1])), [] as [u64; 0]);
}

#[test]
fn clients_of_other_proxies_and_of_nobody_are_on_circles_too() {
    // 1 waits on b for a process of nobody, which waits there for the other proxy's, which waits on a for 1.
    let mut view = view(
        &[unit(1, &[("a", 11), ("b", 12)])],
        &[
            lock("b", 12, &[99]),
            lock("b", 99, &[22]),
            lock("a", 21, &[11]),
        ],
    );
    view.units
        .insert("q".to_owned(), vec![unit(1, &[("a", 21), ("b", 22)])]);
    let found = find(&view);
    assert_eq!(found.len(), 1);
    // As old as each other: the name decides.
    assert_eq!(found[0].victim.proxy, "q");
    assert_eq!(found[0].detail.lines().count(), 3);
}

#[test]
fn a_circle_on_one_server_is_its_own() {
    let units = [
        unit(1, &[("a", 11), ("b", 12)]),
        unit(2, &[("a", 21), ("b", 22)]),
    ];
    let locks = [lock("a", 11, &[21]), lock("a", 21, &[11])];
    assert_eq!(victims(&view(&units, &locks)), [] as [u64; 0]);
    // Whoever waits for one of these may go on once it is ended.
    let third = unit(3, &[("a", 31), ("b", 32)]);
    let units = [units[0].clone(), units[1].clone(), third];
    let locks = [
        lock("a", 11, &[21]),
        lock("a", 21, &[11]),
        lock("b", 32, &[22]),
        lock("a", 31, &[11]),
    ];
    assert_eq!(victims(&view(&units, &locks)), [] as [u64; 0]);
}

#[test]
fn who_only_waits_for_a_circle_is_not_ended() {
    let units = [
        unit(1, &[("a", 11), ("b", 12)]),
        unit(2, &[("a", 21), ("b", 22)]),
        unit(3, &[("a", 31), ("b", 32)]),
    ];
    let locks = [
        lock("b", 12, &[22]),
        lock("a", 21, &[11]),
        lock("a", 31, &[11, 21]),
    ];
    assert_eq!(victims(&view(&units, &locks)), [2]);
}

#[test]
fn two_circles_lose_one_each_and_one_that_is_joined_loses_one() {
    let units: Vec<Unit> = (1..=4)
        .map(|n| {
            let pid = i32::try_from(n * 10).unwrap();
            unit(n, &[("a", pid + 1), ("b", pid + 2)])
        })
        .collect();
    let mut locks = vec![
        lock("b", 12, &[22]),
        lock("a", 21, &[11]),
        lock("b", 32, &[42]),
        lock("a", 41, &[31]),
    ];
    let mut both = victims(&view(&units, &locks));
    both.sort_unstable();
    assert_eq!(both, [2, 4]);
    // All four together.
    locks[1] = lock("a", 21, &[11, 31]);
    locks[3] = lock("a", 41, &[31, 11]);
    assert_eq!(victims(&view(&units, &locks)), [4]);
}

#[test]
fn a_pool_serves_whoever_is_first_to_give_back() {
    // 1 holds a and waits for the pool of b, whose connections 2 and 3 hold; 2 waits on a for 1.
    let locks = [lock("a", 21, &[11])];
    let stuck = |third: Unit| {
        let first = waits_for_pool(unit(1, &[("a", 11)]), "b", &[&[2, 3]]);
        vec![first, unit(2, &[("a", 21), ("b", 22)]), third]
    };
    // 3 is at work: it may end.
    let units = stuck(unit(3, &[("b", 32)]));
    assert_eq!(victims(&view(&units, &locks)), [] as [u64; 0]);
    // It waits for the first as well.
    let units = stuck(unit(3, &[("a", 31), ("b", 32)]));
    let more = [locks[0].clone(), lock("a", 31, &[11])];
    assert_eq!(victims(&view(&units, &more)), [3]);
    // One that no proxy tells of does not wait.
    assert_eq!(victims(&view(&units[..2], &locks)), [] as [u64; 0]);
}

#[test]
fn each_spent_budget_must_have_room() {
    // One budget is held by who waits for the first, the other by who is at work: the first still waits for both.
    let first = waits_for_pool(unit(1, &[("a", 11)]), "b", &[&[2], &[3]]);
    let units = [
        first,
        unit(2, &[("a", 21), ("b", 22)]),
        unit(3, &[("b", 32)]),
    ];
    assert_eq!(victims(&view(&units, &[lock("a", 21, &[11])])), [2]);
}

#[test]
fn two_that_wait_for_each_others_pools_lose_one() {
    let units = [
        waits_for_pool(unit(1, &[("a", 11)]), "b", &[&[2]]),
        waits_for_pool(unit(2, &[("b", 22)]), "a", &[&[1]]),
    ];
    let found = find(&view(&units, &[]));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].victim.client, 2);
    assert!(found[0].detail.starts_with(
        "The transaction of process 22 of shard \"b\" waits for a connection to shard \"a\""
    ));
}

#[test]
fn a_prepared_transaction_waits_as_its_client_does() {
    let mut committing = unit(9, &[("a", 11), ("b", 12)]);
    committing.held[0].gid = Some("g".to_owned());
    let other = unit(2, &[("a", 21), ("b", 22)]);
    let mut on_prepared = lock("a", 21, &[]);
    on_prepared.blockers = vec![Blocker::Prepared("g".to_owned())];
    let locks = [lock("b", 12, &[22]), on_prepared.clone()];
    // The younger one commits already.
    assert_eq!(victims(&view(&[committing, other.clone()], &locks)), [2]);
    // One that nobody tells of is ended by recovery.
    assert_eq!(victims(&view(&[other], &[on_prepared])), [] as [u64; 0]);
}

#[test]
fn who_waits_for_itself_is_ended() {
    let own = unit(1, &[("a", 11), ("a", 12)]);
    assert_eq!(victims(&view(&[own], &[lock("a", 12, &[11])])), [1]);
}

#[test]
fn only_what_stands_in_both_looks_counts() {
    let units = [
        unit(1, &[("a", 11), ("b", 12)]),
        unit(2, &[("a", 21), ("b", 22)]),
    ];
    let locks = [lock("b", 12, &[22]), lock("a", 21, &[11])];
    let before = view(&units, &locks);
    let count = |now: &View| find(&common(&before, now)).len();
    assert_eq!(count(&before), 1);
    // A wait that began anew.
    let mut now = before.clone();
    now.locks[0].since = "2".to_owned();
    assert_eq!(count(&now), 0);
    // One whose server does not say when it began.
    let mut silent = before.clone();
    silent.locks[0].since = String::new();
    assert_eq!(find(&common(&silent, &silent)).len(), 0);
    // One for another.
    let mut now = before.clone();
    now.locks[0].blockers = vec![Blocker::Process(99)];
    assert_eq!(count(&now), 0);
    // A client that has heard something, or is gone.
    let mut now = before.clone();
    now.units.get_mut("p").unwrap()[1].held[0].mark = 2;
    assert_eq!(count(&now), 0);
    now.units.get_mut("p").unwrap().pop();
    assert_eq!(count(&now), 0);
    // A wait for a pool that began anew.
    let pools = [
        waits_for_pool(unit(1, &[("a", 11)]), "b", &[&[2]]),
        waits_for_pool(unit(2, &[("b", 22)]), "a", &[&[1]]),
    ];
    let before = view(&pools, &[]);
    assert_eq!(find(&common(&before, &before)).len(), 1);
    let mut now = before.clone();
    if let Some(pool) = &mut now.units.get_mut("p").unwrap()[0].pool {
        pool.since = 2;
    }
    assert_eq!(find(&common(&before, &now)).len(), 0);
}

#[test]
fn a_long_line_is_no_circle_and_a_long_circle_is_one() {
    const COUNT: i32 = 2_000;
    let units: Vec<Unit> = (0..COUNT)
        .map(|n| unit(u64::try_from(n).unwrap(), &[("a", n), ("b", COUNT + n)]))
        .collect();
    // Each waits on one shard for the next, on a and b in turn.
    let wait = |n: i32, next: i32| match n % 2 {
        0 => lock("a", n, &[next]),
        _ => lock("b", COUNT + n, &[COUNT + next]),
    };
    let mut locks: Vec<LockWait> = (0..COUNT - 1).map(|n| wait(n, n + 1)).collect();
    assert_eq!(victims(&view(&units, &locks)), [] as [u64; 0]);
    locks.push(wait(COUNT - 1, 0));
    assert_eq!(victims(&view(&units, &locks)), [1_999]);
}
