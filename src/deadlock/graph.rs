//! The graph of one look, and the deadlocks in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Blocker, LockWait, Name, Unit, View};

/// Clients that wait for each other in a circle, one of which is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// The youngest of them.
    pub victim: Name,
    /// What it waits for, and who waits for it in the end: a line for each step of the circle.
    pub detail: String,
    /// The shards that the circle goes over.
    pub shards: BTreeSet<String>,
}

/// A wait of one node: it ends when one of these goes on.
#[derive(Debug)]
struct Wait {
    any: Vec<usize>,
    shard: String,
    /// A line about it.
    what: String,
}

/// What waits and is waited for.
#[derive(Debug, Default)]
struct Node<'a> {
    /// `None`: a process of nobody here.
    unit: Option<(&'a str, &'a Unit)>,
    waits: Vec<Wait>,
}

/// The deadlocks that no server ends by itself; none where nobody waits in a circle.
pub fn find(view: &View) -> Vec<Deadlock> {
    let nodes = nodes(view);
    let stuck = stuck(&nodes);
    let mut found = Vec::new();
    for circle in circles(&nodes, &stuck) {
        found.extend(end_of(&nodes, &circle));
    }
    found
}

fn nodes(view: &View) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    let mut processes: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    let mut prepared: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut clients: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for (proxy, units) in &view.units {
        for unit in units {
            let at = nodes.len();
            clients.insert((proxy, unit.client), at);
            for held in &unit.held {
                processes.insert((&held.shard, held.pid), at);
                if let Some(gid) = &held.gid {
                    prepared.insert((&held.shard, gid), at);
                }
            }
            nodes.push(Node {
                unit: Some((proxy, unit)),
                waits: Vec::new(),
            });
        }
    }
    let alone = settled_by_servers(&view.locks);
    for wait in &view.locks {
        let shard = wait.shard.as_str();
        let mut node = |pid: i32| {
            *processes.entry((shard, pid)).or_insert_with(|| {
                nodes.push(Node::default());
                nodes.len().saturating_sub(1)
            })
        };
        let at = node(wait.pid);
        let mut blockers = Vec::new();
        for blocker in &wait.blockers {
            match blocker {
                Blocker::Process(pid) => blockers.push((blocker, Some(node(*pid)))),
                Blocker::Prepared(gid) => {
                    blockers.push((blocker, prepared.get(&(shard, gid.as_str())).copied()));
                }
            }
        }
        let Some(waiting) = nodes
            .get_mut(at)
            .filter(|_| !alone.contains(&(shard, wait.pid)))
        else {
            continue;
        };
        for (blocker, by) in blockers {
            waiting.waits.push(Wait {
                // A prepared transaction of nobody here is ended by recovery, or by a person.
                any: by.into_iter().collect(),
                shard: shard.to_owned(),
                what: line(wait, blocker),
            });
        }
        waiting.waits.retain(|wait| !wait.any.is_empty());
    }
    for (proxy, units) in &view.units {
        for unit in units {
            let (Some(pool), Some(at)) = (&unit.pool, clients.get(&(proxy.as_str(), unit.client)))
            else {
                continue;
            };
            for budget in &pool.budgets {
                let holders: Vec<Option<usize>> = budget
                    .iter()
                    .map(|client| clients.get(&(proxy.as_str(), *client)).copied())
                    .collect();
                let Some(any) = holders.into_iter().collect::<Option<Vec<usize>>>() else {
                    // One of them does not wait.
                    continue;
                };
                if let Some(node) = nodes.get_mut(*at).filter(|_| !any.is_empty()) {
                    let first = unit.held.first();
                    let held = first.map(|held| {
                        format!(
                            "The transaction of process {} of shard \"{}\"",
                            held.pid, held.shard
                        )
                    });
                    node.waits.push(Wait {
                        any,
                        shard: pool.shard.clone(),
                        what: format!(
                            "{} waits for a connection to shard \"{}\"; each is held by a transaction that waits.",
                            held.unwrap_or_else(|| "A client".to_owned()),
                            pool.shard
                        ),
                    });
                }
            }
        }
    }
    nodes
}

/// One step, as PostgreSQL words it.
fn line(wait: &LockWait, blocker: &Blocker) -> String {
    let LockWait {
        shard, pid, what, ..
    } = wait;
    let by = match blocker {
        Blocker::Process(pid) => format!("process {pid}"),
        Blocker::Prepared(gid) => format!("prepared transaction \"{gid}\""),
    };
    format!("Process {pid} of shard \"{shard}\" waits for {what}; blocked by {by}.")
}

/// The processes that wait in a circle on one server: it ends that itself.
fn settled_by_servers(locks: &[LockWait]) -> BTreeSet<(&str, i32)> {
    let mut numbers: BTreeMap<(&str, i32), usize> = BTreeMap::new();
    let mut names: Vec<(&str, i32)> = Vec::new();
    let mut edges: Vec<Vec<usize>> = Vec::new();
    for wait in locks {
        let shard = wait.shard.as_str();
        let mut number = |pid: i32| {
            *numbers.entry((shard, pid)).or_insert_with(|| {
                names.push((shard, pid));
                edges.push(Vec::new());
                names.len().saturating_sub(1)
            })
        };
        let at = number(wait.pid);
        let blockers: Vec<usize> = wait
            .blockers
            .iter()
            .filter_map(|blocker| match blocker {
                Blocker::Process(pid) => Some(number(*pid)),
                Blocker::Prepared(_) => None,
            })
            .collect();
        if let Some(known) = edges.get_mut(at) {
            known.extend(blockers);
        }
    }
    let circles = components(&edges);
    let members = circles.into_iter().flatten();
    members.filter_map(|at| names.get(at).copied()).collect()
}

/// Whether each node can never go on: what waits for something that can, or for nothing, is taken away until
/// nothing changes.
fn stuck(nodes: &[Node<'_>]) -> Vec<bool> {
    let mut stuck: Vec<bool> = nodes.iter().map(|node| !node.waits.is_empty()).collect();
    loop {
        let goes_on = |any: &[usize]| any.iter().any(|at| stuck.get(*at) == Some(&false));
        let freed: Vec<usize> = nodes
            .iter()
            .enumerate()
            .filter(|(at, node)| {
                stuck.get(*at) == Some(&true) && node.waits.iter().all(|wait| goes_on(&wait.any))
            })
            .map(|(at, _)| at)
            .collect();
        if freed.is_empty() {
            return stuck;
        }
        for at in freed {
            if let Some(stuck) = stuck.get_mut(at) {
                *stuck = false;
            }
        }
    }
}

/// The waits of a node that do not end: none of those it waits for goes on.
fn lasting<'n>(node: &'n Node<'_>, stuck: &'n [bool]) -> impl Iterator<Item = &'n Wait> {
    let lasts = |wait: &&Wait| wait.any.iter().all(|at| stuck.get(*at) == Some(&true));
    node.waits.iter().filter(lasts)
}

/// The nodes that lie on circles, each set by itself.
fn circles(nodes: &[Node<'_>], stuck: &[bool]) -> Vec<Vec<usize>> {
    let edges: Vec<Vec<usize>> = nodes
        .iter()
        .zip(stuck)
        .map(|(node, is_stuck)| {
            let waits = lasting(node, stuck).filter(|_| *is_stuck);
            waits.flat_map(|wait| wait.any.iter().copied()).collect()
        })
        .collect();
    components(&edges)
}

/// The strongly connected components that have a circle.
fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let order = finish_order(edges);
    let mut back: Vec<Vec<usize>> = edges.iter().map(|_| Vec::new()).collect();
    for (from, towards) in edges.iter().enumerate() {
        for to in towards {
            if let Some(into) = back.get_mut(*to) {
                into.push(from);
            }
        }
    }
    let mut seen = vec![false; edges.len()];
    let mut found = Vec::new();
    for start in order.into_iter().rev() {
        let mut members = Vec::new();
        let mut open = vec![start];
        while let Some(at) = open.pop() {
            let Some(seen) = seen.get_mut(at).filter(|seen| !**seen) else {
                continue;
            };
            *seen = true;
            members.push(at);
            open.extend(back.get(at).into_iter().flatten());
        }
        let waits_for_itself = |at: &usize| edges.get(*at).is_some_and(|to| to.contains(at));
        if members.len() > 1 || members.iter().any(waits_for_itself) {
            members.sort_unstable();
            found.push(members);
        }
    }
    found
}

/// All nodes, each behind those that it leads to first.
fn finish_order(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for start in 0..edges.len() {
        let mut open = vec![(start, 0_usize)];
        while let Some((at, next)) = open.pop() {
            if next == 0 {
                let Some(seen) = seen.get_mut(at).filter(|seen| !**seen) else {
                    continue;
                };
                *seen = true;
            }
            match edges.get(at).and_then(|towards| towards.get(next)) {
                Some(to) => {
                    open.push((at, next.saturating_add(1)));
                    open.push((*to, 0));
                }
                None => order.push(at),
            }
        }
    }
    order
}

/// Whom to end of those on circles with each other, and why.
fn end_of(nodes: &[Node<'_>], members: &[usize]) -> Option<Deadlock> {
    let units = members.iter().filter_map(|at| {
        let (proxy, unit) = nodes.get(*at)?.unit?;
        let commits = unit.held.iter().any(|held| held.gid.is_some());
        Some(((!commits, unit.began, proxy, unit.client), *at))
    });
    let ((_, _, proxy, client), at) = units.max()?;
    let steps = shortest(nodes, members, at);
    Some(Deadlock {
        victim: Name {
            proxy: proxy.to_owned(),
            client,
        },
        detail: steps
            .iter()
            .map(|wait| wait.what.as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        shards: steps.iter().map(|wait| wait.shard.clone()).collect(),
    })
}

/// The waits of a shortest circle through a node.
fn shortest<'n>(nodes: &'n [Node<'_>], members: &[usize], start: usize) -> Vec<&'n Wait> {
    let mut came: BTreeMap<usize, (usize, &Wait)> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(at) = open.pop_front() {
        let Some(node) = nodes.get(at) else {
            continue;
        };
        for wait in &node.waits {
            for to in wait.any.iter().filter(|to| members.contains(to)) {
                if !came.contains_key(to) {
                    came.insert(*to, (at, wait));
                    open.push_back(*to);
                }
            }
        }
        if came.contains_key(&start) {
            break;
        }
    }
    let mut steps = Vec::new();
    let mut at = start;
    while let Some((from, wait)) = came.get(&at) {
        steps.push(*wait);
        at = *from;
        if at == start || steps.len() > nodes.len() {
            break;
        }
    }
    steps.reverse();
    steps
}
