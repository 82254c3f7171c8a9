//! Hands our tokens to sqlparser, so that it parses exactly what PostgreSQL's lexical rules read.
//!
//! A numbered literal travels as its number, any other string as `@start-end`; so the values come
//! back from the tree without a look at positions. BETWEEN SYMMETRIC, which it does not know, travels as
//! BETWEEN NOT.

use sqlparser::tokenizer::{Token as Parsed, TokenWithSpan};

use super::cursor::{constant_value, word_name};
use super::mask::LITERALS_MAX;
use super::scan::{Kind, Lexer, Lexing, Token};

/// Numbers the literals of a text as [`super::mask::Masked`] does.
#[derive(Clone, Debug, Default)]
pub struct Numbering {
    next: usize,
}

impl Numbering {
    /// Numbers none: every value stands in the tree itself.
    pub fn none() -> Numbering {
        Numbering { next: LITERALS_MAX }
    }

    /// The number of this token, if it has one. Must see every token of the text in order.
    pub fn of(&mut self, token: Token) -> Option<u16> {
        if !matches!(token.kind, Kind::Text | Kind::Integer | Kind::Decimal)
            || self.next >= LITERALS_MAX
        {
            return None;
        }
        let number = u16::try_from(self.next).ok();
        self.next += 1;
        number
    }

    /// Counts tokens without looking at them.
    pub fn skip(&mut self, tokens: &[Token]) {
        for token in tokens {
            self.of(*token);
        }
    }
}

/// The tokens as sqlparser has them; `None` for what it has no token for.
pub(super) fn convert(
    tokens: &[Token],
    text: &[u8],
    numbering: &mut Numbering,
) -> Option<Vec<TokenWithSpan>> {
    let mut converted = Vec::with_capacity(tokens.len() + 1);
    let mut follows_between = false;
    for token in tokens {
        let number = numbering.of(*token);
        let is =
            |word: &[u8]| token.kind == Kind::Word && token.of(text).eq_ignore_ascii_case(word);
        if follows_between && is(b"asymmetric") {
            continue;
        }
        // Of sqlparser's syntax this is what the server never takes between the same two.
        let is_symmetric =
            std::mem::replace(&mut follows_between, is(b"between")) && is(b"symmetric");
        converted.push(TokenWithSpan::wrap(if is_symmetric {
            Parsed::make_word("not", None)
        } else {
            convert_one(*token, text, number)?
        }));
    }
    converted.push(TokenWithSpan::new_eof());
    Some(converted)
}

fn convert_one(token: Token, text: &[u8], number: Option<u16>) -> Option<Parsed> {
    let bytes = token.of(text);
    let reference = || match number {
        Some(number) => number.to_string(),
        None => format!("@{}-{}", token.start, token.end),
    };
    Some(match token.kind {
        Kind::Word => Parsed::make_word(std::str::from_utf8(bytes).ok()?, None),
        Kind::Quoted => Parsed::make_word(&word_name(token, text)?, Some('"')),
        Kind::Text | Kind::TextPieces | Kind::Escaped | Kind::Dollar | Kind::UnicodeText => {
            Parsed::SingleQuotedString(reference())
        }
        // The dot keeps apart what has another type than an integer.
        Kind::Decimal => Parsed::Number(format!("{}.", reference()), false),
        Kind::Integer => Parsed::Number(reference(), false),
        Kind::Bits => Parsed::HexStringLiteral(String::new()),
        Kind::National => Parsed::NationalStringLiteral(String::new()),
        Kind::Parameter => Parsed::Placeholder(String::from_utf8_lossy(bytes).into_owned()),
        Kind::Operator => operator(std::str::from_utf8(bytes).ok()?),
        Kind::OpenParen => Parsed::LParen,
        Kind::CloseParen => Parsed::RParen,
        Kind::OpenBracket => Parsed::LBracket,
        Kind::CloseBracket => Parsed::RBracket,
        Kind::Comma => Parsed::Comma,
        Kind::Semicolon => Parsed::SemiColon,
        Kind::Dot => Parsed::Period,
        Kind::Colon => Parsed::Colon,
        Kind::DoubleColon => Parsed::DoubleColon,
        Kind::ColonEquals => Parsed::Assignment,
        Kind::UnicodeName | Kind::DotDot | Kind::Other | Kind::Comment => return None,
    })
}

fn operator(operator: &str) -> Parsed {
    match operator {
        "=" => Parsed::Eq,
        "<>" | "!=" => Parsed::Neq,
        "<" => Parsed::Lt,
        ">" => Parsed::Gt,
        "<=" => Parsed::LtEq,
        ">=" => Parsed::GtEq,
        "=>" => Parsed::RArrow,
        "+" => Parsed::Plus,
        "-" => Parsed::Minus,
        "*" => Parsed::Mul,
        "/" => Parsed::Div,
        "%" => Parsed::Mod,
        "^" => Parsed::Caret,
        "||" => Parsed::StringConcat,
        other => other_operator(other),
    }
}

fn other_operator(operator: &str) -> Parsed {
    match operator {
        "->" => Parsed::Arrow,
        "->>" => Parsed::LongArrow,
        "#>" => Parsed::HashArrow,
        "#>>" => Parsed::HashLongArrow,
        "#-" => Parsed::HashMinus,
        "@>" => Parsed::AtArrow,
        "<@" => Parsed::ArrowAt,
        "@?" => Parsed::AtQuestion,
        "@@" => Parsed::AtAt,
        "?" => Parsed::Question,
        "?&" => Parsed::QuestionAnd,
        "?|" => Parsed::QuestionPipe,
        "~" => Parsed::Tilde,
        "~*" => Parsed::TildeAsterisk,
        "!~" => Parsed::ExclamationMarkTilde,
        "!~*" => Parsed::ExclamationMarkTildeAsterisk,
        "~~" => Parsed::DoubleTilde,
        "~~*" => Parsed::DoubleTildeAsterisk,
        "!~~" => Parsed::ExclamationMarkDoubleTilde,
        "!~~*" => Parsed::ExclamationMarkDoubleTildeAsterisk,
        "<<" => Parsed::ShiftLeft,
        ">>" => Parsed::ShiftRight,
        "&&" => Parsed::Overlap,
        "&" => Parsed::Ampersand,
        "|" => Parsed::Pipe,
        "#" => Parsed::Sharp,
        "@" => Parsed::AtSign,
        "^@" => Parsed::CaretAt,
        "|/" => Parsed::PGSquareRoot,
        "||/" => Parsed::PGCubeRoot,
        "<->" => Parsed::TwoWayArrow,
        custom => Parsed::CustomBinaryOperator(custom.to_owned()),
    }
}

/// The value of a string that travelled as `@start-end`.
pub(super) fn constant(reference: &str, text: &[u8]) -> Option<String> {
    let (start, end) = reference.strip_prefix('@')?.split_once('-')?;
    let source = text.get(start.parse().ok()?..end.parse().ok()?)?;
    let token = Lexer::new(source, Lexing::default()).next_token().ok()??;
    if token.kind == Kind::Integer {
        return String::from_utf8(source.to_vec()).ok();
    }
    constant_value(token, source)
}
