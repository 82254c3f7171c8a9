//! Reads PgBouncer's two file formats: the ini with its connection strings, and the userlist.
//!
//! See <https://www.pgbouncer.org/config.html>. Includes (`%include`) are refused rather than
//! followed: what they hold may lie on another machine.

/// The three sections of a pgbouncer.ini, each in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Sections {
    pub(super) settings: Vec<Pair>,
    pub(super) databases: Vec<(String, Vec<Pair>)>,
    pub(super) users: Vec<(String, Vec<Pair>)>,
}

/// A name and its value.
pub(super) type Pair = (String, String);

/// Why a line is none of an ini's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) what: &'static str,
}

impl Sections {
    /// The last value of a `[pgbouncer]` setting, unless it is empty.
    pub(super) fn setting(&self, name: &str) -> Option<&str> {
        value(&self.settings, name).filter(|value| !value.is_empty())
    }
}

/// The last value of `name`.
pub(super) fn value<'a>(pairs: &'a [Pair], name: &str) -> Option<&'a str> {
    let found = pairs.iter().rfind(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Splits the text of a pgbouncer.ini.
pub(super) fn parse(text: &str) -> Result<Sections, Malformed> {
    let mut sections = Sections::default();
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let malformed = |what| Malformed {
            line: index + 1,
            what,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if line.starts_with("%include") {
            return Err(malformed("put the included file's lines here"));
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_ascii_lowercase();
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or(malformed("it has no `name = value`"))?;
        let (name, value) = (unquoted(name.trim()), value.trim());
        match section.as_str() {
            "pgbouncer" => sections.settings.push((name, value.to_owned())),
            "databases" | "users" => {
                let pairs =
                    connection_string(value).ok_or(malformed("a quoted value does not end"))?;
                if section == "users" {
                    sections.users.push((name, pairs));
                } else {
                    sections.databases.push((name, pairs));
                }
            }
            // Peers and other later sections: nothing here has a counterpart.
            _ => (),
        }
    }
    Ok(sections)
}

/// A database's name may stand in double quotes, with `""` for one.
fn unquoted(name: &str) -> String {
    match name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(inner) => inner.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// `host=… dbname='…'`: values in single quotes hold `''` for one. `None`: a quote does not end.
fn connection_string(text: &str) -> Option<Vec<Pair>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').unwrap_or((rest, ""));
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('\'') {
            Some(quoted) => single_quoted(quoted)?,
            None => match after.split_once(char::is_whitespace) {
                Some((value, left)) => (value.to_owned(), left),
                None => (after.to_owned(), ""),
            },
        };
        pairs.push((name.trim().to_ascii_lowercase(), value));
        rest = left.trim_start();
    }
    Some(pairs)
}

/// The value up to its closing quote, and what follows.
fn single_quoted(text: &str) -> Option<(String, &str)> {
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

/// The users and passwords (or verifiers) of a userlist.txt: `"name" "password"` a line.
pub(super) fn userlist(text: &str) -> Vec<Pair> {
    text.lines().filter_map(user).collect()
}

fn user(line: &str) -> Option<Pair> {
    let (name, rest) = double_quoted(line.trim_start())?;
    let password = double_quoted(rest.trim_start()).map(|(password, _)| password);
    Some((name, password.unwrap_or_default()))
}

fn double_quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        value.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{connection_string, parse, userlist};

    #[test]
    fn connection_strings_are_split() {
        let check = |text: &str, expect: Option<&[(&str, &str)]>| {
            let expect = expect.map(|pairs| {
                let owned = pairs
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
                owned.collect::<Vec<_>>()
            });
            assert_eq!(connection_string(text), expect, "{text}");
        };
        check("", Some(&[]));
        check("host=a port=1", Some(&[("host", "a"), ("port", "1")]));
        check(
            "password='it''s so' host=b",
            Some(&[("password", "it's so"), ("host", "b")]),
        );
        check("host = c", Some(&[("host", "c")]));
        check("password='open", None);
    }

    #[test]
    fn a_line_without_a_value_is_named() {
        let error = parse("[pgbouncer]\n\nlisten_port 6432\n").expect_err("no equals sign");
        assert_eq!(error.line, 3);
    }

    #[test]
    fn sections_are_kept_apart() {
        let sections = parse(
            "[databases]\n\"my \"\"db\" = host=a\n* = port=1\n[users]\nu = pool_mode=session\n\
             [pgbouncer]\n; a comment\nlisten_port = 1\nlisten_port = 2\nauth_file =\n",
        )
        .expect("well formed");
        assert_eq!(sections.databases[0].0, "my \"db");
        assert_eq!(sections.databases[1].0, "*");
        assert_eq!(sections.users[0].1[0].1, "session");
        assert_eq!(sections.setting("listen_port"), Some("2"));
        assert_eq!(sections.setting("auth_file"), None);
    }

    #[test]
    fn userlists_are_read() {
        let users = userlist("\"a\" \"x\"\"y\"\n;\"no\" \"one\"\n\"b\" \"\"\n");
        assert_eq!(
            users,
            [("a".into(), "x\"y".into()), ("b".into(), String::new())]
        );
    }
}
