//! The literal-free form of a text: one template for all texts that differ only in their constants.
//!
//! String and number constants of SELECT, INSERT, UPDATE, DELETE, MERGE, WITH and VALUES become one
//! marker byte for each kind; comments become a space. Two texts with one template have the same
//! tokens but for the values of constants of the same kind. Whether a *plan* may be shared by them
//! is the planner's to say, since it knows which values it looked at.
//!
//! *Invariant:* the markers are bytes that the lexical rules accept nowhere outside quotes, so a
//! template is never the template of a text with other tokens.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use super::scan::{Kind, Lexer, Lexing, Token, Unreadable};

/// Stands for a plain string.
pub const TEXT_MARK: u8 = 1;
/// Stands for digits.
pub const INTEGER_MARK: u8 = 2;
/// Stands for a number with a point or an exponent.
pub const DECIMAL_MARK: u8 = 3;
/// Constants of a text that are numbered; later ones stay in the template as they are.
pub const LITERALS_MAX: usize = 1 << 16;

/// Where a numbered constant stands; quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    pub start: usize,
    pub end: usize,
}

impl Literal {
    /// Its bytes in the text it was read from.
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }
}

/// What is worth keeping of a text: buffers of the caller, filled anew by [`Masked::read`].
#[derive(Clone, Debug, Default)]
pub struct Masked {
    template: Vec<u8>,
    literals: Vec<Literal>,
    shared: bool,
}

impl Masked {
    /// Reads a text. After an error the contents mean nothing.
    pub fn read(&mut self, text: &[u8], lexing: Lexing) -> Result<(), Unreadable> {
        self.template.clear();
        self.literals.clear();
        self.shared = true;
        let mut lexer = Lexer::new(text, lexing);
        let mut copied = 0;
        let mut first = true;
        let mut ended = false;
        while let Some(token) = lexer.next_token()? {
            let mark = match token.kind {
                Kind::Text => TEXT_MARK,
                Kind::Integer => INTEGER_MARK,
                Kind::Decimal => DECIMAL_MARK,
                Kind::Comment if is_hint(token.of(text)) => continue,
                Kind::Comment => {
                    self.put(text, copied, token.start, b' ');
                    copied = token.end;
                    continue;
                }
                Kind::Other => {
                    self.shared = false;
                    continue;
                }
                Kind::Semicolon => {
                    ended = true;
                    continue;
                }
                _ => {
                    self.shared &= !ended && (!first || starts_shared(token, text));
                    first &= token.kind == Kind::OpenParen;
                    continue;
                }
            };
            self.shared &= !ended && !first;
            if self.literals.len() < LITERALS_MAX {
                self.literals.push(Literal {
                    start: token.start,
                    end: token.end,
                });
                self.put(text, copied, token.start, mark);
                copied = token.end;
            }
        }
        self.template
            .extend_from_slice(text.get(copied..).unwrap_or_default());
        self.shared &= !first;
        Ok(())
    }

    fn put(&mut self, text: &[u8], from: usize, to: usize, mark: u8) {
        self.template
            .extend_from_slice(text.get(from..to).unwrap_or_default());
        self.template.push(mark);
    }

    /// The literal-free text.
    pub fn template(&self) -> &[u8] {
        &self.template
    }

    /// The numbered constants, in the order of the text.
    pub fn literals(&self) -> &[Literal] {
        &self.literals
    }

    /// Whether texts with this template have one shape: a single statement of a kind whose constants
    /// are data.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
}

/// A text to be shown and counted by: constants of all kinds are parameters, with the numbers behind
/// the client's own, comments and the space around them one space, and what is longer than `max` bytes is
/// cut off. `None` if it cannot be read.
pub fn literal_free(text: &[u8], lexing: Lexing, max: usize) -> Option<String> {
    let mut lexer = Lexer::new(text, lexing);
    let mut tokens = Vec::new();
    let mut number = 0_u32;
    let mut length = 0_usize;
    while length <= max
        && let Some(token) = lexer.next_token().ok()?
    {
        if token.kind == Kind::Comment {
            continue;
        }
        let is_shown = !is_constant(token.kind);
        length += if is_shown { token.end - token.start } else { 2 };
        if token.kind == Kind::Parameter {
            let digits = token.of(text).get(1..)?;
            let own = std::str::from_utf8(digits).ok()?.parse().ok()?;
            number = number.max(own);
        }
        tokens.push(token);
    }
    let mut shown = Vec::new();
    let mut end = None;
    for token in tokens {
        if end.is_some_and(|end| end < token.start) {
            shown.push(b' ');
        }
        end = Some(token.end);
        if is_constant(token.kind) {
            number = number.saturating_add(1);
            shown.extend_from_slice(format!("${number}").as_bytes());
        } else {
            shown.extend_from_slice(token.of(text));
        }
    }
    let shown = String::from_utf8_lossy(&shown);
    let shown = shown.trim_end_matches([';', ' ']);
    if shown.len() <= max {
        return Some(shown.to_owned());
    }
    let cut = shown.floor_char_boundary(max);
    Some(shown.get(..cut)?.to_owned() + "…")
}

fn is_constant(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Text
            | Kind::TextPieces
            | Kind::Escaped
            | Kind::UnicodeText
            | Kind::Bits
            | Kind::National
            | Kind::Dollar
            | Kind::Integer
            | Kind::Decimal
    )
}

/// Whether a comment is addressed to us, so that its text counts.
pub fn is_hint(comment: &[u8]) -> bool {
    comment
        .strip_prefix(b"/*")
        .is_some_and(|body| body.trim_ascii_start().starts_with(b"pgherd:"))
}

fn starts_shared(token: Token, text: &[u8]) -> bool {
    const VERBS: [&[u8]; 8] = [
        b"select", b"insert", b"update", b"delete", b"with", b"values", b"merge", b"table",
    ];
    match token.kind {
        Kind::OpenParen => true,
        Kind::Word => VERBS
            .iter()
            .any(|verb| token.of(text).eq_ignore_ascii_case(verb)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, template: &str, literals: &[&str]) {
        let mut masked = Masked::default();
        masked.read(text.as_bytes(), Lexing::default()).unwrap();
        let shown = String::from_utf8(masked.template().to_vec())
            .unwrap()
            .replace('\u{1}', "«text»")
            .replace('\u{2}', "«int»")
            .replace('\u{3}', "«dec»");
        let shown = if masked.is_shared() {
            shown
        } else {
            "exact".into()
        };
        assert_eq!(shown, template, "{text}");
        let found: Vec<_> = masked
            .literals()
            .iter()
            .map(|literal| std::str::from_utf8(literal.of(text.as_bytes())).unwrap())
            .collect();
        assert_eq!(found, literals, "{text}");
    }

    #[test]
    fn constants_of_data_statements_are_masked() {
        check("select 1", "select «int»", &["1"]);
        check(
            "SELECT a FROM t WHERE b='x''y' AND c=-5.0",
            "SELECT a FROM t WHERE b=«text» AND c=-«dec»",
            &["'x''y'", "5.0"],
        );
        check(
            "SELECT $1, E'a\\'b', $$c$$, X'1F', N'd'",
            "SELECT $1, E'a\\'b', $$c$$, X'1F', N'd'",
            &[],
        );
        check("SELECT 1--2\n;", "SELECT «int» \n;", &["1"]);
        check("/* who: me */ select/**/5", "  select «int»", &["5"]);
        check("(select 1)", "(select «int»)", &["1"]);
        check(
            "SELECT 'a'\n'b', a1, t.\"c'1\"",
            "SELECT 'a'\n'b', a1, t.\"c'1\"",
            &[],
        );
    }

    #[test]
    fn other_texts_are_exact() {
        check("SET a = 5", "exact", &["5"]);
        check("select 1; select 2", "exact", &["1", "2"]);
        check("", "exact", &[]);
        check("select \u{1}", "exact", &[]);
        check("copy t from stdin with (delimiter ',')", "exact", &["','"]);
    }

    #[test]
    fn what_is_shown_has_no_constants() {
        let check = |text: &str, shown: &str| {
            let found = literal_free(text.as_bytes(), Lexing::default(), 40);
            assert_eq!(found.as_deref(), Some(shown), "{text}");
        };
        check("select 1 ; ", "select $1");
        check(
            "SELECT /* who */ a --x\n FROM t WHERE\n b='x' AND c=-5.0",
            "SELECT a FROM t WHERE b=$1 AND c=-$2",
        );
        check(
            "SELECT $2, E'a\\'b', $$c$$, X'1F', 'a'\n'b'",
            "SELECT $2, $3, $4, $5, $6",
        );
        check("SET a TO 'secret'", "SET a TO $1");
        check("", "");
        check(
            "SELECT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "SELECT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…",
        );
        assert_eq!(literal_free(b"select 'a", Lexing::default(), 40), None);
    }

    proptest! {
        #[test]
        fn literals_and_template_make_the_text(text in "[ -~\n]{0,60}") {
            let mut masked = Masked::default();
            let comment = text.contains("--") || text.contains("/*");
            if masked.read(text.as_bytes(), Lexing::default()).is_ok() && !comment {
                let mut literals = masked.literals().iter();
                let mut again = Vec::new();
                for &byte in masked.template() {
                    if byte < 4 {
                        again.extend_from_slice(literals.next().unwrap().of(text.as_bytes()));
                    } else {
                        again.push(byte);
                    }
                }
                prop_assert_eq!(again, text.as_bytes());
            }
        }

        #[test]
        fn any_bytes_are_survived(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut masked = Masked::default();
            let read = masked.read(&text, Lexing::default());
            prop_assert!(read.is_err() || masked.template().len() <= text.len());
        }
    }
}
