//! Which rows of a scan no join lets through: those without a partner in another scan.
//!
//! Where a join of the plan equates a column of one scan with a column of another, a row of the first
//! that equals none of the second's is dropped there, if the join's kind says so and nothing below it could
//! have made an answer of the row (a semi-join reduction: Bernstein and Chiu, "Using semi-joins to solve relational
//! queries", 1981). The second scan may be reduced itself in the same way. Where a scan's rows are grouped, those of
//! groups that HAVING drops are not needed.

use serde_json::{Map, Value};

use super::filter::{Equation, column_of, equations};

/// A scan's rows are needed only where `column` equals `other_column` of a row of the scan `other`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partner {
    pub(super) column: String,
    pub(super) other: String,
    pub(super) other_column: String,
    /// One of the two is compared as text.
    pub(super) is_cast: bool,
}

/// A node above a scan, and on which side of it the scan is.
#[derive(Clone, Copy)]
struct Above<'p> {
    node: &'p Map<String, Value>,
    side: Side,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Outer,
    Inner,
    /// Not a side of a join: its rows mean something else above.
    Other,
}

/// A scan's rows are grouped by one column, and nothing else is done with them before.
pub(super) struct Grouped<'p> {
    pub(super) column: String,
    /// What the groups must fulfil.
    pub(super) having: &'p str,
}

/// What the joins above a scan ask of it, from the nearest on.
///
/// `plan` is the answer of EXPLAIN in JSON. The names of scans are unique in it.
pub(super) fn partners(plan: &Value, alias: &str) -> Vec<Partner> {
    let mut found = Vec::new();
    find(plan, alias, &mut Vec::new(), 0, &mut |scan, path| {
        // What it is compared with from outside, as in a correlated subquery. Of several relations that make one, as in
        // UNION ALL or a partitioned table, PostgreSQL writes the first.
        let filter = scan.get("Filter").and_then(Value::as_str);
        note(filter, alias, |other| !is_member(plan, other), &mut found);
        climb(path, alias, &mut found);
    });
    found
}

/// How the rows of a scan are grouped, where HAVING drops some of the groups.
pub(super) fn grouped<'p>(plan: &'p Value, alias: &str) -> Option<Grouped<'p>> {
    let mut found = None;
    find(plan, alias, &mut Vec::new(), 0, &mut |_, path| {
        found = grouped_above(path, alias);
    });
    found
}

fn grouped_above<'p>(path: &[Above<'p>], alias: &str) -> Option<Grouped<'p>> {
    let text = |node: &'p Map<String, Value>, key: &str| node.get(key).and_then(Value::as_str);
    for above in path.iter().rev() {
        let kind = text(above.node, "Node Type").unwrap_or_default();
        if above.side == Side::Outer && matches!(kind, "Sort" | "Incremental Sort") {
            continue;
        }
        let is_whole = text(above.node, "Partial Mode").is_none_or(|mode| mode == "Simple");
        if above.side != Side::Outer || kind != "Aggregate" || !is_whole {
            return None;
        }
        let keys = above.node.get("Group Key").and_then(Value::as_array)?;
        let mut columns = group_keys(above.node)?;
        let ([_], Some((name, column))) = (keys.as_slice(), columns.next()) else {
            return None;
        };
        let having = text(above.node, "Filter")?;
        return (name == alias).then_some(Grouped { column, having });
    }
    None
}

/// Whether a scan gives only a part of the rows of what it is named for.
fn is_member(plan: &Value, alias: &str) -> bool {
    let mut found = true;
    find(plan, alias, &mut Vec::new(), 0, &mut |scan, path| {
        let is_member = |node: &Map<String, Value>| {
            node.get("Parent Relationship").and_then(Value::as_str) == Some("Member")
        };
        found = is_member(scan) || path.iter().any(|above| is_member(above.node));
    });
    found
}

/// Calls `on` for a scan, with the nodes above it.
fn find<'p>(
    value: &'p Value,
    alias: &str,
    path: &mut Vec<Above<'p>>,
    depth: usize,
    on: &mut impl FnMut(&'p Map<String, Value>, &[Above<'p>]),
) {
    if depth > super::fragments::DEPTH_MAX {
        return;
    }
    let deeper = depth.saturating_add(1);
    match value {
        Value::Array(values) => {
            for value in values {
                find(value, alias, path, deeper, on);
            }
        }
        Value::Object(node) => {
            let text = |key: &str| node.get(key).and_then(Value::as_str);
            if text("Node Type") == Some("Seq Scan") && text("Alias") == Some(alias) {
                on(node, path);
                return;
            }
            for (key, value) in node {
                let Value::Array(children) = value else {
                    if key == "Plan" {
                        find(value, alias, path, deeper, on);
                    }
                    continue;
                };
                for child in children {
                    path.push(Above {
                        node,
                        side: side_of(child),
                    });
                    find(child, alias, path, deeper, on);
                    path.pop();
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn side_of(child: &Value) -> Side {
    match child.get("Parent Relationship").and_then(Value::as_str) {
        Some("Outer") => Side::Outer,
        Some("Inner") => Side::Inner,
        _ => Side::Other,
    }
}

/// Goes up from a scan while a row that is dropped below drops only what it is part of. Of rows that are grouped
/// that holds where all of a group are dropped: those of one value of a column that is grouped by.
fn climb(path: &[Above<'_>], alias: &str, found: &mut Vec<Partner>) {
    let mut grouped: Option<Vec<String>> = None;
    for above in path.iter().rev() {
        let text = |key: &str| above.node.get(key).and_then(Value::as_str);
        let kind = text("Node Type").unwrap_or_default();
        if above.side == Side::Other {
            return;
        }
        if matches!(
            kind,
            "Hash" | "Sort" | "Incremental Sort" | "Materialize" | "Memoize"
        ) {
            continue;
        }
        if kind == "Aggregate"
            && let Some(keys) = group_keys(above.node)
        {
            let keys = keys.filter(|(name, _)| name == alias);
            let columns = keys.map(|(_, column)| column);
            grouped = Some(match grouped.take() {
                Some(before) => columns.filter(|it| before.contains(it)).collect(),
                None => columns.collect(),
            });
            continue;
        }
        if !matches!(kind, "Hash Join" | "Merge Join" | "Nested Loop") {
            return;
        }
        let join = text("Join Type").unwrap_or_default();
        if drops(join, above.side) {
            let across = names_across(above);
            let mut here = Vec::new();
            for key in ["Hash Cond", "Merge Cond", "Join Filter"] {
                note(text(key), alias, |other| across.contains(&other), &mut here);
            }
            let is_whole = |partner: &Partner| {
                let columns = grouped.as_ref();
                columns.is_none_or(|columns| columns.contains(&partner.column))
            };
            found.extend(here.into_iter().filter(is_whole));
        }
        if !keeps(join, above.side) {
            return;
        }
    }
}

/// The columns that rows are grouped by, each behind the name of its scan; `None` where these are several sets, or
/// none.
fn group_keys(node: &Map<String, Value>) -> Option<impl Iterator<Item = (String, String)>> {
    let keys = node.get("Group Key").and_then(Value::as_array)?;
    if node.contains_key("Grouping Sets") {
        return None;
    }
    let texts = keys.iter().filter_map(Value::as_str);
    Some(texts.filter_map(column_of))
}

/// Notes the equations of a condition between a scan and others.
fn note(
    condition: Option<&str>,
    alias: &str,
    is_other: impl Fn(&str) -> bool,
    found: &mut Vec<Partner>,
) {
    for Equation { sides, is_cast } in equations(condition.unwrap_or_default()) {
        let [left, right] = sides;
        let (own, other) = if left.0 == alias {
            (left, right)
        } else {
            (right, left)
        };
        if own.0 == alias && other.0 != alias && is_other(&other.0) {
            found.push(Partner {
                column: own.1,
                other: other.0,
                other_column: other.1,
                is_cast,
            });
        }
    }
}

/// Whether a row of this side without a partner adds nothing to what the join gives.
fn drops(join: &str, side: Side) -> bool {
    match join {
        "Inner" | "Semi" => true,
        "Left" | "Anti" => side == Side::Inner,
        "Right" => side == Side::Outer,
        _ => false,
    }
}

/// Whether a row of this side that is missing takes away nothing but what it is part of.
fn keeps(join: &str, side: Side) -> bool {
    match join {
        "Inner" => true,
        "Left" | "Semi" | "Anti" => side == Side::Outer,
        "Right" => side == Side::Inner,
        _ => false,
    }
}

/// The scans on the other side of a join.
fn names_across<'p>(above: &Above<'p>) -> Vec<&'p str> {
    let mut names = Vec::new();
    let children = above.node.get("Plans").and_then(Value::as_array);
    for child in children.into_iter().flatten() {
        let side = side_of(child);
        if side != Side::Other && side != above.side {
            scans(child, &mut names, 0);
        }
    }
    names
}

fn scans<'p>(value: &'p Value, names: &mut Vec<&'p str>, depth: usize) {
    if depth > super::fragments::DEPTH_MAX {
        return;
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    if text("Node Type") == Some("Seq Scan") {
        names.extend(text("Alias"));
    }
    for child in value
        .get("Plans")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if side_of(child) != Side::Other {
            scans(child, names, depth.saturating_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::partners;

    fn scan(alias: &str, side: &str) -> Value {
        json!({"Node Type": "Seq Scan", "Alias": alias, "Parent Relationship": side})
    }

    fn join(kind: &str, condition: &str, side: &str, children: &[Value; 2]) -> Value {
        json!({"Node Type": "Hash Join", "Join Type": kind, "Hash Cond": condition,
            "Parent Relationship": side, "Plans": children})
    }

    fn told(plan: &Value, alias: &str) -> Vec<String> {
        let partners = partners(&json!([{ "Plan": plan }]), alias);
        let lines = partners
            .iter()
            .map(|it| format!("{} = {}.{}", it.column, it.other, it.other_column));
        lines.collect()
    }

    #[test]
    fn a_join_says_whose_rows_it_drops() {
        for (kind, outer, inner) in [
            ("Inner", true, true),
            ("Left", false, true),
            ("Right", true, false),
            ("Semi", true, true),
            ("Anti", false, true),
            ("Full", false, false),
        ] {
            let plan = join(
                kind,
                "(a.x = b.y)",
                "",
                &[scan("a", "Outer"), scan("b", "Inner")],
            );
            assert_eq!(!told(&plan, "a").is_empty(), outer, "{kind}");
            assert_eq!(!told(&plan, "b").is_empty(), inner, "{kind}");
        }
    }

    #[test]
    fn what_a_row_is_missed_for_stops_the_search() {
        for (kind, side, passes) in [
            ("Inner", "Outer", true),
            ("Inner", "Inner", true),
            ("Left", "Outer", true),
            ("Left", "Inner", false),
            ("Right", "Inner", true),
            ("Right", "Outer", false),
            ("Anti", "Inner", false),
            ("Full", "Outer", false),
        ] {
            let other = if side == "Outer" { "Inner" } else { "Outer" };
            let below = join(
                kind,
                "(a.z < c.z)",
                "Outer",
                &[scan("a", side), scan("c", other)],
            );
            let plan = join(
                "Inner",
                "((a.x = b.y) AND (a.z = b.z))",
                "",
                &[below, scan("b", "Inner")],
            );
            let wanted = if passes {
                vec!["x = b.y", "z = b.z"]
            } else {
                vec![]
            };
            assert_eq!(told(&plan, "a"), wanted, "{kind} {side}");
        }
        let mut grouped = json!({"Node Type": "Aggregate", "Parent Relationship": "Outer", "Plans": [scan("a", "Outer")]});
        let plan = join(
            "Inner",
            "(a.x = b.y)",
            "",
            &[grouped.clone(), scan("b", "Inner")],
        );
        assert!(told(&plan, "a").is_empty());
        // What is grouped by a column has only values of the column.
        assert_eq!(told(&plan, "b"), ["y = a.x"]);
        // Groups of one value go as a whole.
        for (keys, wanted) in [
            (json!(["a.x"]), true),
            (json!(["a.x", "a.z"]), true),
            (json!(["(a.x)::text", "a.z"]), false),
            (json!(["a.z"]), false),
        ] {
            grouped["Group Key"] = keys.clone();
            let plan = join(
                "Inner",
                "(a.x = b.y)",
                "",
                &[grouped.clone(), scan("b", "Inner")],
            );
            assert_eq!(!told(&plan, "a").is_empty(), wanted, "{keys}");
        }
        grouped["Grouping Sets"] = json!([]);
        let subplan =
            json!({"Node Type": "Seq Scan", "Alias": "a", "Parent Relationship": "SubPlan"});
        let plan = join("Inner", "(a.x = b.y)", "", &[subplan, scan("b", "Inner")]);
        assert!(told(&plan, "a").is_empty());
        assert!(told(&plan, "b").is_empty());
    }
}
