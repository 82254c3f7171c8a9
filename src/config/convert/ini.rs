//! PgBouncer's files, as `cfparser.c` and `loader.c` of its source read them.

use crate::config::fault::ConfigFault;

/// `key = value` under a section.
#[derive(Debug)]
pub(super) struct Line {
    /// Lower case, without brackets.
    pub section: String,
    pub key: String,
    pub value: String,
    pub number: usize,
}

/// The settings of a `pgbouncer.ini`, in its order.
pub(super) fn lines(text: &str, faults: &mut Vec<ConfigFault>) -> Vec<Line> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (line, text) in (1_usize..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with([';', '#']) {
            continue;
        }
        if let Some(rest) = text.strip_prefix('[') {
            match rest.split_once(']') {
                Some((name, "")) => section = name.trim().to_lowercase(),
                _ => faults.push(fault(
                    "pgbouncer.ini",
                    line,
                    "is no section",
                    "Write it as in [databases].",
                )),
            }
            continue;
        }
        if let Some(include) = text.strip_prefix("%include") {
            let (section, key) = (section.clone(), "%include".to_owned());
            found.push(Line {
                section,
                key,
                value: include.trim().to_owned(),
                number: line,
            });
            continue;
        }
        match key_value(text) {
            Some((key, value)) => found.push(Line {
                section: section.clone(),
                key,
                value,
                number: line,
            }),
            None => faults.push(fault(
                "pgbouncer.ini",
                line,
                "is no setting",
                "Write it as in key = value.",
            )),
        }
    }
    found
}

/// The key may be in double quotes, a doubled one stands for itself.
fn key_value(text: &str) -> Option<(String, String)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (key, value) = text.split_once('=')?;
        return Some((key.trim().to_owned(), value.trim().to_owned()));
    };
    let mut key = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        key.push_str(part);
        let Some(more) = after.strip_prefix('"') else {
            let value = after.trim_start().strip_prefix('=')?;
            return Some((key, value.trim().to_owned()));
        };
        key.push('"');
        rest = more;
    }
}

/// `key=value` pairs of a database or user; values may be in single quotes, doubled inside.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = if let Some(inner) = after.strip_prefix('\'') {
            quoted(inner)?
        } else {
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            let (value, after) = after.split_at_checked(end)?;
            (value.to_owned(), after)
        };
        // As in PgBouncer, the last one counts.
        let key = key.trim().to_lowercase();
        pairs.retain(|(known, _): &(String, String)| *known != key);
        pairs.push((key, value));
        rest = after.trim_start();
    }
    Some(pairs)
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

/// Names and passwords of a `userlist.txt`: `"name" "password"`, quotes doubled inside.
pub(super) fn users(text: &str, faults: &mut Vec<ConfigFault>) -> Vec<(String, String)> {
    let mut users = Vec::new();
    for (line, text) in (1_usize..).zip(text.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with([';', '#']) {
            continue;
        }
        let words = || {
            let (name, rest) = double_quoted(text)?;
            let (password, _) = double_quoted(rest.trim_start())?;
            Some((name, password))
        };
        match words() {
            Some(user) => users.push(user),
            None => faults.push(fault(
                "userlist.txt",
                line,
                "is no user",
                "Write it as in \"name\" \"password\".",
            )),
        }
    }
    users
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut rest = text.strip_prefix('"')?;
    loop {
        let (part, after) = rest.split_once('"')?;
        word.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                word.push('"');
                rest = more;
            }
            None => return Some((word, after)),
        }
    }
}

pub(super) fn fault(file: &str, line: usize, message: &str, hint: &str) -> ConfigFault {
    ConfigFault {
        file: file.to_owned(),
        line,
        path: String::new(),
        message: format!("the line {message}"),
        hint: hint.to_owned(),
    }
}
