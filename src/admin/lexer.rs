//! Cuts console text into words. Sans-IO.
//!
//! The grammar is PostgreSQL's as far as the console needs it
//! (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>): words, quoted identifiers, strings
//! with doubled quotes, numbers, marks, and both kinds of comments, the nested one included.

use crate::error::{Fault, SqlState};

/// One word or mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An unquoted word, as written.
    Word(String),
    /// `"quoted"`, unquoted.
    Quoted(String),
    /// `'quoted'`, unquoted.
    Text(String),
    Number(String),
    Mark(char),
}

impl Token {
    /// Whether it is this unquoted word, in any case.
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }

    /// A name: a quoted one as it is, an unquoted one in lower case, as PostgreSQL folds it.
    pub fn name(&self) -> Option<String> {
        match self {
            Token::Word(word) => Some(word.to_lowercase()),
            Token::Quoted(name) => Some(name.clone()),
            Token::Text(_) | Token::Number(_) | Token::Mark(_) => None,
        }
    }

    /// The text of a value, whatever its form.
    pub fn value(&self) -> String {
        match self {
            Token::Word(text) | Token::Quoted(text) | Token::Text(text) | Token::Number(text) => {
                text.clone()
            }
            Token::Mark(mark) => mark.to_string(),
        }
    }
}

/// The statements of a text, each as its tokens; those that are empty are left out.
pub fn statements(text: &str) -> Result<Vec<Vec<Token>>, Fault> {
    let mut statements = Vec::new();
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some((token, after)) = next(rest)? {
        rest = after;
        if token == Token::Mark(';') {
            statements.push(std::mem::take(&mut tokens));
        } else {
            tokens.push(token);
        }
    }
    statements.push(tokens);
    statements.retain(|tokens| !tokens.is_empty());
    Ok(statements)
}

fn next(text: &str) -> Result<Option<(Token, &str)>, Fault> {
    let text = skip(text)?;
    let Some(first) = text.chars().next() else {
        return Ok(None);
    };
    let found = match first {
        '\'' => {
            let (value, rest) = quoted(text, '\'')?;
            (Token::Text(value), rest)
        }
        '"' => {
            let (value, rest) = quoted(text, '"')?;
            (Token::Quoted(value), rest)
        }
        _ if first.is_ascii_digit() => {
            let (word, rest) = take(text, |c| c.is_ascii_alphanumeric() || c == '.');
            (Token::Number(word.to_owned()), rest)
        }
        _ if first.is_alphabetic() || first == '_' => {
            let (word, rest) = take(text, |c| c.is_alphanumeric() || c == '_' || c == '$');
            (Token::Word(word.to_owned()), rest)
        }
        _ => (
            Token::Mark(first),
            text.strip_prefix(first).unwrap_or_default(),
        ),
    };
    Ok(Some(found))
}

/// What follows blanks and comments.
fn skip(text: &str) -> Result<&str, Fault> {
    let mut rest = text.trim_start();
    loop {
        if let Some(comment) = rest.strip_prefix("--") {
            let (_, after) = comment.split_once('\n').unwrap_or((comment, ""));
            rest = after.trim_start();
        } else if rest.starts_with("/*") {
            rest = after_comment(rest)?.trim_start();
        } else {
            return Ok(rest);
        }
    }
}

fn after_comment(text: &str) -> Result<&str, Fault> {
    let mut depth = 0_u32;
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            depth = depth.saturating_add(1);
            rest = inner;
        } else if let Some(outer) = rest.strip_prefix("*/") {
            depth = depth.saturating_sub(1);
            rest = outer;
            if depth == 0 {
                return Ok(rest);
            }
        } else {
            let mut chars = rest.chars();
            if chars.next().is_none() {
                return Err(unterminated("comment"));
            }
            rest = chars.as_str();
        }
    }
}

fn quoted(text: &str, quote: char) -> Result<(String, &str), Fault> {
    let mut value = String::new();
    let mut chars = text.chars();
    chars.next();
    while let Some(c) = chars.next() {
        if c != quote {
            value.push(c);
        } else if let Some(after) = chars.as_str().strip_prefix(quote) {
            value.push(quote);
            chars = after.chars();
        } else {
            return Ok((value, chars.as_str()));
        }
    }
    Err(unterminated(if quote == '"' {
        "quoted identifier"
    } else {
        "quoted string"
    }))
}

fn take(text: &str, part: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn unterminated(what: &str) -> Fault {
    Fault::error(SqlState::SYNTAX_ERROR, format!("unterminated {what}"))
        .hint("Close what was opened.")
}

#[cfg(test)]
mod tests {
    use super::{Token, statements};

    fn check(text: &str, expect: &[&str]) {
        let found = statements(text).unwrap();
        let shown: Vec<String> = found
            .iter()
            .map(|tokens| {
                tokens
                    .iter()
                    .map(Token::value)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        assert_eq!(shown, expect);
    }

    #[test]
    fn text_is_cut_into_statements() {
        check("  show Pools ; ;", &["show Pools"]);
        check("-- hi\nSHOW /* a /* b */ ; */ x -- y", &["SHOW x"]);
        check(
            "set a='it''s;'; pause \"My \"\"db\"",
            &["set a = it's;", "pause My \"db"],
        );
        check("select 1.5, é", &["select 1.5 , é"]);
        check("", &[]);
    }

    #[test]
    fn what_is_open_is_refused() {
        for text in ["'a", "\"a", "/* a /* */"] {
            assert!(statements(text).is_err(), "{text}");
        }
    }
}
