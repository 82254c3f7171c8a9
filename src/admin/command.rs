//! The console's commands: text in, a [`Command`] or a refusal out. Sans-IO.
//!
//! Commands are PgBouncer's, with their arguments, in any case, with or without a semicolon.

use crate::admin::answer::Answer;
use crate::admin::environment;
use crate::admin::herd::{Purge, Shutdown};
use crate::admin::lexer::{Token, statements};
use crate::admin::show::{self, Show};
use crate::error::{Fault, SqlState};

/// How many statements one text may hold.
pub const STATEMENTS_MAX: usize = 100;

/// One command, understood.
#[derive(Clone, Debug)]
pub enum Command {
    Show(&'static Show),
    /// Answered from constants.
    Constant(Answer),
    Block(Block),
    /// DEALLOCATE of one, or of all (also DISCARD ALL).
    Deallocate(Option<String>, &'static str),
    Act(Act),
}

/// Transaction commands, which change only what ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    Begin,
    Commit,
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO: the tag.
    Savepoint(&'static str),
}

/// What changes something: only for `admin_users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Pause(Option<String>),
    Resume(Option<String>),
    Reconnect(Option<String>),
    Reload,
    Kill(Option<String>),
    KillClient(u64),
    Disable(String),
    Enable(String),
    WaitClose(Option<String>),
    Shutdown(Shutdown),
    Set {
        key: String,
        value: String,
    },
    /// Ends what was left prepared, by what was decided.
    Resolve(Option<String>),
    /// Ends one prepared transaction of ours as a person says.
    ResolveOne {
        gid: String,
        commits: bool,
    },
    Purge(Purge),
}

impl Act {
    /// The command's word, which is its tag as well.
    pub const fn word(&self) -> &'static str {
        match self {
            Act::Pause(_) => "PAUSE",
            Act::Resume(_) => "RESUME",
            Act::Reconnect(_) => "RECONNECT",
            Act::Reload => "RELOAD",
            Act::Kill(_) => "KILL",
            Act::KillClient(_) => "KILL_CLIENT",
            Act::Disable(_) => "DISABLE",
            Act::Enable(_) => "ENABLE",
            Act::WaitClose(_) => "WAIT_CLOSE",
            Act::Shutdown(_) => "SHUTDOWN",
            Act::Purge(_) => "PURGE CACHE",
            Act::Set { .. } => "SET",
            Act::Resolve(_) | Act::ResolveOne { .. } => "RESOLVE",
        }
    }
}

/// The commands of a text, in their order. `user` is who asks, for `SELECT current_user`.
pub fn parse(text: &str, user: &str) -> Result<Vec<Command>, Fault> {
    let statements = statements(text)?;
    if statements.len() > STATEMENTS_MAX {
        return Err(
            Fault::error(SqlState::PROGRAM_LIMIT, "too many statements in one text")
                .detail(format!("The console takes {STATEMENTS_MAX} at once."))
                .hint("Send them in several texts."),
        );
    }
    statements
        .iter()
        .map(|tokens| command(tokens, user))
        .collect()
}

fn command(tokens: &[Token], user: &str) -> Result<Command, Fault> {
    let Some((Token::Word(word), arguments)) = tokens.split_first() else {
        return Err(invalid(tokens));
    };
    let word = word.to_ascii_uppercase();
    let done = |tag| Ok(Command::Constant(Answer::done(tag)));
    match (word.as_str(), arguments) {
        ("SHOW", _) => shown(tokens, arguments),
        ("SELECT", [only]) if find_show(only).is_some() => shown(tokens, arguments),
        ("SELECT", _) => environment::select(arguments, user).map(Command::Constant),
        ("SET", _) => set(tokens, arguments),
        ("RESET", [_, ..]) => done("RESET"),
        ("BEGIN", _) => Ok(Command::Block(Block::Begin)),
        ("START", [next, ..]) if next.is("transaction") => Ok(Command::Block(Block::Begin)),
        ("COMMIT" | "END", _) => Ok(Command::Block(Block::Commit)),
        ("ROLLBACK", [.., to, _] | [.., to, _, _]) if to.is("to") => {
            Ok(Command::Block(Block::Savepoint("ROLLBACK")))
        }
        ("ROLLBACK" | "ABORT", _) => Ok(Command::Block(Block::Rollback)),
        ("SAVEPOINT", [_]) => Ok(Command::Block(Block::Savepoint("SAVEPOINT"))),
        ("RELEASE", [_] | [_, _]) => Ok(Command::Block(Block::Savepoint("RELEASE"))),
        ("DEALLOCATE", [name] | [_, name]) => {
            let name = if name.is("all") { None } else { name.name() };
            let tag = if name.is_some() {
                "DEALLOCATE"
            } else {
                "DEALLOCATE ALL"
            };
            Ok(Command::Deallocate(name, tag))
        }
        ("DISCARD", [what]) if what.is("all") => Ok(Command::Deallocate(None, "DISCARD ALL")),
        ("DISCARD", [_]) => done("DISCARD"),
        ("CLOSE", [what]) if what.is("all") => done("CLOSE CURSOR ALL"),
        ("UNLISTEN", [_]) => done("UNLISTEN"),
        ("SUSPEND", []) => Err(Fault::error(
            SqlState::FEATURE_NOT_SUPPORTED,
            "SUSPEND is not supported",
        )
        .detail("It served PgBouncer's hand-over of sockets to a new process.")
        .hint("Use PAUSE, or SHUTDOWN WAIT_FOR_CLIENTS with a second proxy on the same port.")),
        (word, _) => act(word, arguments)
            .unwrap_or_else(|| Err(invalid(tokens)))
            .map(Command::Act),
    }
}

/// A command that changes something; `None` if it is none.
fn act(word: &str, arguments: &[Token]) -> Option<Result<Act, Fault>> {
    let database = || match arguments {
        [] => Some(None),
        [name] => name.name().map(Some),
        _ => None,
    };
    let required = || match database()? {
        Some(name) => Some(Ok(name)),
        None => Some(Err(missing(
            word,
            "a database",
            "Name it, as in SHOW DATABASES.",
        ))),
    };
    Some(match word {
        "PAUSE" => Ok(Act::Pause(database()?)),
        "RESUME" => Ok(Act::Resume(database()?)),
        "RECONNECT" => Ok(Act::Reconnect(database()?)),
        "KILL" => Ok(Act::Kill(database()?)),
        "WAIT_CLOSE" => Ok(Act::WaitClose(database()?)),
        "RESOLVE" => match arguments {
            [Token::Text(gid), how] if how.is("commit") || how.is("rollback") => {
                Ok(Act::ResolveOne {
                    gid: gid.clone(),
                    commits: how.is("commit"),
                })
            }
            _ => Ok(Act::Resolve(database()?)),
        },
        "DISABLE" => required()?.map(Act::Disable),
        "ENABLE" => required()?.map(Act::Enable),
        "RELOAD" if arguments.is_empty() => Ok(Act::Reload),
        "KILL_CLIENT" => {
            let id = match arguments {
                [Token::Number(id) | Token::Text(id)] => id.parse().ok(),
                _ => None,
            };
            id.map(Act::KillClient)
                .ok_or_else(|| missing(word, "a client's id", CLIENT_HINT))
        }
        "PURGE" => {
            let (cache, arguments) = arguments.split_first()?;
            if !cache.is("cache") {
                return None;
            }
            let named = |token: &Token| match token {
                Token::Text(value) => Some(value.clone()),
                Token::Number(digits) => Some(digits.clone()),
                Token::Word(_) | Token::Quoted(_) | Token::Mark(_) => token.name(),
            };
            Ok(Act::Purge(match arguments {
                [] => Purge::Everything,
                [what, name @ ..] if what.is("table") => Purge::Table(match name {
                    [one] => named(one)?,
                    [_, ..] => dotted(name).filter(|(_, rest)| rest.is_empty())?.0,
                    [] => return Some(Err(missing("PURGE CACHE TABLE", "a table", TABLE_HINT))),
                }),
                [what, tag] if what.is("tag") => Purge::Tag(named(tag)?),
                [what, tenant] if what.is("tenant") => Purge::Tenant(named(tenant)?),
                _ => return None,
            }))
        }
        "SHUTDOWN" => Ok(Act::Shutdown(match arguments {
            [] => Shutdown::Immediate,
            [how] if how.is("wait_for_servers") => Shutdown::WaitForServers,
            [how] if how.is("wait_for_clients") => Shutdown::WaitForClients,
            _ => return None,
        })),
        _ => return None,
    })
}

const TABLE_HINT: &str = "Take it from the column \"table\" of SHOW CACHE.";
const CLIENT_HINT: &str = "Take it from the column \"id\" of SHOW CLIENTS.";

fn missing(word: &str, what: &str, hint: &str) -> Fault {
    Fault::error(SqlState::SYNTAX_ERROR, format!("{word} needs {what}")).hint(hint)
}

fn find_show(token: &Token) -> Option<&'static Show> {
    show::find(&token.name()?)
}

fn shown(tokens: &[Token], arguments: &[Token]) -> Result<Command, Fault> {
    match arguments {
        [time, zone] if time.is("time") && zone.is("zone") => {
            constant(environment::show("timezone"), tokens)
        }
        [transaction, .., level] if transaction.is("transaction") && level.is("level") => {
            constant(environment::show("transaction_isolation"), tokens)
        }
        [all] if all.is("all") => Ok(Command::Constant(environment::show_all())),
        [only] => {
            let name = only.name().ok_or_else(|| invalid(tokens))?;
            if let Some(show) = show::find(&name) {
                return Ok(Command::Show(show));
            }
            show::refused(&name)?;
            constant(environment::show(&name), tokens)
        }
        _ => Err(invalid(tokens)),
    }
}

fn constant(answer: Option<Answer>, tokens: &[Token]) -> Result<Command, Fault> {
    answer.map(Command::Constant).ok_or_else(|| invalid(tokens))
}

fn set(tokens: &[Token], arguments: &[Token]) -> Result<Command, Fault> {
    let done = || Ok(Command::Constant(Answer::done("SET")));
    let arguments = match arguments {
        [scope, rest @ ..] if (scope.is("session") || scope.is("local")) && !rest.is_empty() => {
            rest
        }
        _ => arguments,
    };
    match arguments {
        [first, ..]
            if ["transaction", "characteristics", "time", "names", "role"]
                .iter()
                .any(|word| first.is(word)) =>
        {
            done()
        }
        _ => {
            let Some((key, [sign, first, rest @ ..])) = dotted(arguments) else {
                return Err(invalid(tokens));
            };
            if *sign != Token::Mark('=') && !sign.is("to") {
                return Err(invalid(tokens));
            }
            if environment::setting(&key).is_some() {
                return done();
            }
            let value = rest
                .iter()
                .fold(first.value(), |all, next| all + &next.value());
            Ok(Command::Act(Act::Set { key, value }))
        }
    }
}

/// A name, perhaps with dots, and what follows it.
fn dotted(tokens: &[Token]) -> Option<(String, &[Token])> {
    let (first, mut rest) = tokens.split_first()?;
    let mut name = first.name()?;
    while let [Token::Mark('.'), part, after @ ..] = rest {
        name = name + "." + &part.name()?;
        rest = after;
    }
    Some((name, rest))
}

/// What the console does not understand, with what it read of it.
fn invalid(tokens: &[Token]) -> Fault {
    let words: Vec<String> = tokens.iter().take(8).map(Token::value).collect();
    let text: String = words.join(" ").chars().take(100).collect();
    Fault::error(
        SqlState::SYNTAX_ERROR,
        format!("invalid command \"{text}\""),
    )
    .hint("Use SHOW HELP for what the console knows.")
}

#[cfg(test)]
mod tests {
    use super::{Act, Command, parse};
    use crate::admin::herd::Shutdown;

    fn act(text: &str) -> Option<Act> {
        match parse(text, "ann").ok()?.pop()? {
            Command::Act(act) => Some(act),
            Command::Show(_)
            | Command::Constant(_)
            | Command::Block(_)
            | Command::Deallocate(..) => None,
        }
    }

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(act("Pause;"), Some(Act::Pause(None)));
        assert_eq!(act("RESUME Shop"), Some(Act::Resume(Some("shop".into()))));
        assert_eq!(act("kill \"My Db\""), Some(Act::Kill(Some("My Db".into()))));
        assert_eq!(act("kill_client 12"), Some(Act::KillClient(12)));
        assert_eq!(
            act("shutdown wait_for_clients"),
            Some(Act::Shutdown(Shutdown::WaitForClients))
        );
        let set = Act::Set {
            key: "query_timeout".into(),
            value: "500ms".into(),
        };
        assert_eq!(act("set query_timeout = '500ms'"), Some(set.clone()));
        assert_eq!(act("set query_timeout to 500ms"), Some(set));
        let dotted = Act::Set {
            key: "log.level".into(),
            value: "debug".into(),
        };
        assert_eq!(act("set log.level = debug"), Some(dotted));
        assert_eq!(act("resolve shop"), Some(Act::Resolve(Some("shop".into()))));
        let one = Act::ResolveOne {
            gid: "pgherd:x".into(),
            commits: false,
        };
        assert_eq!(act("RESOLVE 'pgherd:x' ROLLBACK"), Some(one));
    }

    #[test]
    fn bad_commands_are_refused_with_a_hint() {
        for text in [
            "disable",
            "kill_client x",
            "kill_client 'ab'",
            "reload all",
            "suspend",
            "show",
            "show fds",
            "show bogus",
            "show replicas",
            "shutdown now",
            "grant x",
            "set x",
            "'a'",
            "select * from t",
            "pause 'shop'",
            "resolve 'x' maybe",
            "set a =",
            "set a. = b",
        ] {
            let fault = parse(text, "ann").unwrap_err();
            assert!(fault.hint.is_some(), "{text}");
        }
    }

    #[test]
    fn what_drivers_send_changes_nothing() {
        for text in [
            "SET extra_float_digits = 3",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
            "set application_name to 'x'",
            "BEGIN",
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            "rollback",
            "ROLLBACK TO SAVEPOINT a",
            "RESET ALL",
            "DISCARD ALL",
            "DEALLOCATE \"s1\"",
            "select version()",
            "SHOW TRANSACTION ISOLATION LEVEL",
            "show server_version",
            "UNLISTEN *",
            "CLOSE ALL",
            "select pools",
        ] {
            assert!(parse(text, "ann").is_ok(), "{text}");
            assert_eq!(act(text), None, "{text}");
        }
    }
}
