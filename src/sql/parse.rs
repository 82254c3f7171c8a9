//! One data statement's tokens in, our view of it out, within limits of size and depth.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::{Token as Parsed, TokenWithSpan};

use super::convert::Converter;
use super::scan::{Kind, Token};
use super::statement::Block;
use super::tokens::{self, Numbering};

/// Tokens of a statement that are analysed.
pub const TOKENS_MAX: usize = 400_000;
/// Parentheses, brackets and CASE in one another.
pub const DEPTH_MAX: usize = 120;
/// Operators in one chain, as in `a OR b OR c`: the tree grows one level with each.
pub const CHAIN_MAX: usize = 4_000;
/// Levels of sqlparser's own recursion, which grows its stack as it needs.
const RECURSION_MAX: usize = 600;

/// Why a statement has no view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    #[error("it has more than {TOKENS_MAX} words, constants and signs")]
    TooLarge,
    #[error("it is nested more than {DEPTH_MAX} deep, or chains more than {CHAIN_MAX} operators")]
    TooDeep,
    /// sqlparser does not parse it; PostgreSQL may.
    #[error("it cannot be parsed: {0}")]
    Syntax(String),
    /// It parses, but holds a node that the view has no word for.
    #[error("it holds {0}")]
    Unknown(&'static str),
}

/// Reads a statement that begins with SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or `(`.
/// `numbering` stands at its first token.
pub fn parse(tokens: &[Token], text: &[u8], numbering: &Numbering) -> Result<Block, Unread> {
    check(tokens, text)?;
    let mut converted = tokens::convert(tokens, text, &mut numbering.clone())
        .ok_or_else(|| Unread::Syntax("a sign it has no meaning for".into()))?;
    spell_out_table(&mut converted);
    pass_over(&mut converted);
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect)
        .with_options(ParserOptions::new().with_unescape(false))
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens_with_locations(converted);
    let statement = parser.parse_statement().map_err(|error| match error {
        ParserError::RecursionLimitExceeded => Unread::TooDeep,
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            Unread::Syntax(message)
        }
    })?;
    let rest = parser.peek_token();
    if rest.token != Parsed::EOF {
        return Err(Unread::Syntax("its end is not understood".into()));
    }
    Converter::new(text).statement(statement)
}

/// `TABLE t` is `SELECT * FROM t`; sqlparser loses the quotes of its name.
fn spell_out_table(tokens: &mut Vec<TokenWithSpan>) {
    let keyword = |at: usize| match tokens.get(at).map(|token| &token.token) {
        Some(Parsed::Word(word)) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    let is_set = |at: usize| {
        matches!(
            keyword(at),
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT
        )
    };
    let begins_query = |at: usize| match (at.checked_sub(1), at.checked_sub(2)) {
        (None, _) => true,
        (Some(before), second) => {
            let quantified = matches!(keyword(before), Keyword::ALL | Keyword::DISTINCT);
            matches!(
                tokens.get(before).map(|token| &token.token),
                Some(Parsed::LParen)
            ) || is_set(before)
                || quantified && second.is_some_and(is_set)
        }
    };
    let places: Vec<usize> = (0..tokens.len())
        .filter(|&at| keyword(at) == Keyword::TABLE && begins_query(at))
        .collect();
    if places.is_empty() {
        return;
    }
    let mut places = places.into_iter().peekable();
    let mut spelled = Vec::with_capacity(tokens.len() + 2);
    for (at, token) in std::mem::take(tokens).into_iter().enumerate() {
        if places.next_if_eq(&at).is_none() {
            spelled.push(token);
            continue;
        }
        spelled.extend(
            [
                Parsed::make_word("select", None),
                Parsed::Mul,
                Parsed::make_word("from", None),
            ]
            .map(TokenWithSpan::wrap),
        );
    }
    *tokens = spelled;
}

/// Takes out what sqlparser does not read, and what leaves the view as it is: ONLY before a table,
/// and the strengths of a row lock.
fn pass_over(tokens: &mut Vec<TokenWithSpan>) {
    let word = |at: usize| match tokens.get(at).map(|token| &token.token) {
        Some(Parsed::Word(word)) if word.quote_style.is_none() => word.value.as_str(),
        _ => "",
    };
    let is = |at: usize, wanted: &str| word(at).eq_ignore_ascii_case(wanted);
    let opens_table = |at: usize| {
        let mark = tokens.get(at).map(|token| &token.token);
        matches!(mark, Some(Parsed::Comma | Parsed::LParen))
            || ["from", "join", "update", "using", "into"]
                .iter()
                .any(|wanted| is(at, wanted))
    };
    let mut passed = Vec::new();
    for at in 1..tokens.len() {
        let named = matches!(
            tokens.get(at + 1).map(|token| &token.token),
            Some(Parsed::Word(_))
        );
        if named && is(at, "only") && opens_table(at - 1) {
            passed.push(at);
        } else if is(at, "for") && is(at + 1, "no") && is(at + 2, "key") && is(at + 3, "update") {
            passed.extend([at + 1, at + 2]);
        } else if is(at, "for") && is(at + 1, "key") && is(at + 2, "share") {
            passed.push(at + 1);
        }
    }
    let mut passed = passed.into_iter().peekable();
    let mut at = 0;
    tokens.retain(|_| {
        let goes = passed.next_if_eq(&at).is_some();
        at += 1;
        !goes
    });
}

/// What the depth and size of a tree can be, told from the tokens before there is one.
fn check(tokens: &[Token], text: &[u8]) -> Result<(), Unread> {
    if tokens.len() > TOKENS_MAX {
        return Err(Unread::TooLarge);
    }
    // The chain of each level that is open.
    let mut outer: Vec<usize> = Vec::new();
    let mut chain = 0_usize;
    for token in tokens {
        match token.kind {
            Kind::OpenParen => {
                outer.push(chain);
                chain = 0;
            }
            Kind::OpenBracket => {
                outer.push(chain + 1);
                chain = 0;
            }
            Kind::CloseParen | Kind::CloseBracket => chain = outer.pop().unwrap_or(0),
            Kind::Comma => chain = 0,
            Kind::Operator | Kind::DoubleColon => chain += 1,
            Kind::Word => match word(token.of(text)) {
                Chain::Opens => {
                    outer.push(chain);
                    chain = 0;
                }
                Chain::Closes => chain = outer.pop().unwrap_or(0),
                Chain::Links => chain += 1,
                Chain::Nothing => (),
            },
            _ => (),
        }
        if outer.len() > DEPTH_MAX || chain > CHAIN_MAX {
            return Err(Unread::TooDeep);
        }
    }
    Ok(())
}

enum Chain {
    Opens,
    Closes,
    Links,
    Nothing,
}

fn word(word: &[u8]) -> Chain {
    const LINKS: [&str; 14] = [
        "and",
        "or",
        "not",
        "is",
        "union",
        "intersect",
        "except",
        "collate",
        "at",
        "like",
        "ilike",
        "in",
        "isnull",
        "notnull",
    ];
    if word.len() > 9 {
        return Chain::Nothing;
    }
    let is = |keyword: &&str| word.eq_ignore_ascii_case(keyword.as_bytes());
    match () {
        () if is(&"case") => Chain::Opens,
        () if is(&"end") => Chain::Closes,
        () if LINKS.iter().any(is) => Chain::Links,
        () => Chain::Nothing,
    }
}
