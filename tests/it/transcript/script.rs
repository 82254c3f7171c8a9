//! The text format of a transcript (`tests/pgtest/*.pt`).
//!
//! ```text
//! # What it shows.
//! table: create table t (id int)      on every server, once
//! sharded: t id bigint                a table, its key and the key's type, for the proxy's config
//! reset: truncate t                   on every server, before each run
//! modes: transaction session          the default; `statement` where no block is used
//! shards: 1                           only over one shard, where several would refuse it
//! twins: 3                            over several shards only where there are twins
//! ---
//! @two                                go on with (and open) the connection of this name
//! > Query "select 1"                  send; strings know \n \t \\ \" \xHH, and "ab"*3 repeats
//! > Bind "portal" "statement" ("1" null 0x0001) formats=(1) results=(0 1)
//! until ReadyForQuery 2               read until the second one; `until close` for the end
//! < RowDescription …                  what PostgreSQL answered when the golden was written
//! notified 2                          wait until two notifications have come, in any place
//! ```

use crate::message;

#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) tables: Vec<String>,
    /// Table, column, type.
    pub(crate) sharded: Vec<(String, String, String)>,
    pub(crate) resets: Vec<String>,
    pub(crate) modes: Vec<String>,
    pub(crate) one_shard_only: bool,
    /// Over several shards it needs so many twins.
    pub(crate) twins: usize,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) struct Step {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) action: Action,
    /// The golden's lines.
    pub(crate) expected: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Connection(String),
    Send(Vec<u8>),
    Until(String, usize),
    Notified(usize),
}

impl Script {
    /// Parses one, or panics with the line that is wrong: the author reads it.
    pub(crate) fn parse(name: &str, text: &str) -> Script {
        let mut script = Script {
            name: name.to_owned(),
            ..Script::default()
        };
        let mut in_body = false;
        for (index, line) in text.lines().enumerate() {
            let at = format!("{name}:{}: {line}", index + 1);
            if line.is_empty() || line.starts_with('#') {
            } else if line == "---" {
                in_body = true;
            } else if in_body {
                script.body_line(index + 1, line, &at);
            } else {
                script.head_line(line, &at);
            }
        }
        if script.modes.is_empty() {
            script.modes = vec!["transaction".to_owned(), "session".to_owned()];
        }
        script
    }

    fn head_line(&mut self, line: &str, at: &str) {
        let (key, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("{at}: no key"));
        match key {
            "table" => self.tables.push(value.to_owned()),
            "reset" => self.resets.push(value.to_owned()),
            "shards" => self.one_shard_only = value == "1",
            "twins" => self.twins = value.parse().unwrap_or_else(|_| panic!("{at}: a number")),
            "modes" => self.modes = value.split_whitespace().map(str::to_owned).collect(),
            "sharded" => {
                let words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
                let [table, column, kind] = words
                    .try_into()
                    .unwrap_or_else(|_| panic!("{at}: three words"));
                self.sharded.push((table, column, kind));
            }
            _ => panic!("{at}: unknown key"),
        }
    }

    fn body_line(&mut self, line: usize, text: &str, at: &str) {
        if let Some(expected) = text.strip_prefix("< ") {
            let step = self
                .steps
                .last_mut()
                .unwrap_or_else(|| panic!("{at}: after nothing"));
            step.expected.push(expected.to_owned());
            return;
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let number = |word: &str| {
            word.parse()
                .unwrap_or_else(|_| panic!("{at}: not a number"))
        };
        let action = match words.as_slice() {
            [name] if name.starts_with('@') => Action::Connection(name[1..].to_owned()),
            ["until", name] => Action::Until((*name).to_owned(), 1),
            ["until", name, count] => Action::Until((*name).to_owned(), number(count)),
            ["notified", count] => Action::Notified(number(count)),
            [">", ..] => Action::Send(Tokens::of(&text[1..], at).message()),
            _ => panic!("{at}: unknown directive"),
        };
        self.steps.push(Step {
            line,
            action,
            expected: Vec::new(),
        });
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// In quotes, or `0x…`.
    Bytes(Vec<u8>),
    Word(String),
    Open,
    Close,
}

/// The words of one `>` line.
#[derive(Debug)]
struct Tokens<'a> {
    tokens: std::vec::IntoIter<Token>,
    at: &'a str,
}

impl<'a> Tokens<'a> {
    fn of(text: &str, at: &'a str) -> Tokens<'a> {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let (token, after) = match first {
                '(' => (Token::Open, &rest[1..]),
                ')' => (Token::Close, &rest[1..]),
                '"' => quoted(&rest[1..], at),
                _ => {
                    let end = rest.find([' ', '(', ')']).unwrap_or(rest.len());
                    (word(&rest[..end]), &rest[end..])
                }
            };
            tokens.push(token);
            rest = after.trim_start();
        }
        Tokens {
            tokens: tokens.into_iter(),
            at,
        }
    }

    fn word(&mut self) -> Option<String> {
        match self.tokens.next() {
            Some(Token::Word(word)) => Some(word),
            None => None,
            other => panic!("{}: {other:?} is no word", self.at),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        match self.tokens.next() {
            Some(Token::Bytes(bytes)) => bytes,
            other => panic!("{}: {other:?} is no string", self.at),
        }
    }

    fn string(&mut self) -> String {
        String::from_utf8(self.bytes()).unwrap_or_else(|_| panic!("{}: not UTF-8", self.at))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        let at = self.at;
        self.word().map(|word| {
            word.parse()
                .unwrap_or_else(|_| panic!("{at}: {word} is no number"))
        })
    }

    fn kind(&mut self) -> u8 {
        self.word()
            .and_then(|word| word.bytes().next())
            .unwrap_or_else(|| panic!("{}: S or P", self.at))
    }

    /// What stands in parentheses.
    fn list(&mut self) -> Vec<Token> {
        assert_eq!(self.tokens.next(), Some(Token::Open), "{}", self.at);
        self.tokens
            .by_ref()
            .take_while(|token| *token != Token::Close)
            .collect()
    }

    fn values(&mut self) -> Vec<Option<Vec<u8>>> {
        let value = |token: Token| match &token {
            Token::Bytes(bytes) => Some(bytes.clone()),
            Token::Word(word) if word == "null" => None,
            Token::Word(_) | Token::Open | Token::Close => panic!("{token:?} is no value"),
        };
        self.list().into_iter().map(value).collect()
    }

    fn numbers(&mut self) -> Vec<i16> {
        let number = |token: Token| match &token {
            Token::Word(word) => word.parse().expect("a number"),
            Token::Bytes(_) | Token::Open | Token::Close => panic!("{token:?} is no number"),
        };
        self.list().into_iter().map(number).collect()
    }

    fn message(mut self) -> Vec<u8> {
        let kind = self
            .word()
            .unwrap_or_else(|| panic!("{}: no message", self.at));
        let bytes = match kind.as_str() {
            "Query" => message::frame(b'Q', &[self.bytes(), vec![0]].concat()),
            "Parse" => {
                let (name, sql) = (self.string(), self.string());
                let types: Vec<u32> = std::iter::from_fn(|| self.number()).collect();
                message::parse(&name, &sql, &types)
            }
            "Bind" => self.bind(),
            "Describe" => message::describe(self.kind(), &self.string()),
            "Close" => message::close(self.kind(), &self.string()),
            "Execute" => message::execute(&self.string(), self.number().unwrap_or(0)),
            "Sync" => message::sync(),
            "Flush" => message::frame(b'H', &[]),
            "Terminate" => message::frame(b'X', &[]),
            "CopyData" => message::frame(b'd', &self.bytes()),
            "CopyDone" => message::frame(b'c', &[]),
            "CopyFail" => message::frame(b'f', &message::zeroed(&[&self.string()])),
            "FunctionCall" => {
                let function: u32 = self.number().expect("the function's oid");
                let arguments = message::values_list(&self.values());
                message::frame(
                    b'F',
                    &[&function.to_be_bytes(), &[0; 2][..], &arguments, &[0; 2]].concat(),
                )
            }
            "Frame" => message::frame(self.kind(), &self.bytes()),
            "Raw" => self.bytes(),
            _ => panic!("{}: unknown message", self.at),
        };
        assert_eq!(
            self.tokens.next(),
            None,
            "{}: more than the message needs",
            self.at
        );
        bytes
    }

    fn bind(&mut self) -> Vec<u8> {
        let (portal, statement) = (self.string(), self.string());
        let values = self.values();
        let (mut formats, mut results) = (Vec::new(), Vec::new());
        while let Some(option) = self.word() {
            match option.as_str() {
                "formats=" => formats = self.numbers(),
                "results=" => results = self.numbers(),
                _ => panic!("{}: {option}?", self.at),
            }
        }
        message::bind(&portal, &statement, &formats, &values, &results)
    }
}

fn word(text: &str) -> Token {
    text.strip_prefix("0x").map_or_else(
        || Token::Word(text.to_owned()),
        |digits| Token::Bytes(hex(digits)),
    )
}

fn hex(digits: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits");
    (0..digits.len()).step_by(2).map(pair).collect()
}

/// A string after its opening quote, and what follows it.
fn quoted<'a>(text: &'a str, at: &str) -> (Token, &'a str) {
    let mut bytes = Vec::new();
    let mut index = 0;
    let all = text.as_bytes();
    loop {
        match all
            .get(index)
            .unwrap_or_else(|| panic!("{at}: no closing quote"))
        {
            b'"' => break,
            b'\\' => {
                index += 1;
                match all[index] {
                    b'n' => bytes.push(b'\n'),
                    b't' => bytes.push(b'\t'),
                    b'r' => bytes.push(b'\r'),
                    b'x' => {
                        bytes.extend(hex(&text[index + 1..index + 3]));
                        index += 2;
                    }
                    other => bytes.push(other),
                }
            }
            &other => bytes.push(other),
        }
        index += 1;
    }
    let rest = &text[index + 1..];
    let Some(repeat) = rest.strip_prefix('*') else {
        return (Token::Bytes(bytes), rest);
    };
    let end = repeat.find([' ', ')']).unwrap_or(repeat.len());
    let count: usize = repeat[..end]
        .parse()
        .unwrap_or_else(|_| panic!("{at}: how often?"));
    (Token::Bytes(bytes.repeat(count)), &repeat[end..])
}
