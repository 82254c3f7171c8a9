//! Cuts a text into its statements at top-level semicolons.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tokens of other kinds are passed over"
)]

use super::scan::{Kind, Token};

/// The tokens of each statement, semicolons left out, empty ones too.
///
/// Semicolons in parentheses (CREATE RULE) and in a routine's `BEGIN ATOMIC … END` body belong to
/// their statement, as in psql's `psqlscan.l`.
pub fn split<'t>(tokens: &'t [Token], text: &[u8]) -> Vec<&'t [Token]> {
    let mut statements = Vec::new();
    let mut state = State::default();
    for piece in tokens.split(|token| state.ends_at(*token, text)) {
        if !piece.is_empty() {
            statements.push(piece);
        }
    }
    statements
}

#[derive(Default)]
struct State {
    parens: usize,
    /// Open `BEGIN ATOMIC` and `CASE` in a routine's body.
    bodies: usize,
    words: usize,
    routine: bool,
    create: bool,
    begin: bool,
}

impl State {
    fn ends_at(&mut self, token: Token, text: &[u8]) -> bool {
        match token.kind {
            Kind::OpenParen => self.parens += 1,
            Kind::CloseParen => self.parens = self.parens.saturating_sub(1),
            Kind::Word => self.word(token.of(text)),
            Kind::Semicolon if self.parens == 0 && self.bodies == 0 => {
                *self = State::default();
                return true;
            }
            _ => (),
        }
        false
    }

    fn word(&mut self, word: &[u8]) {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        self.words += 1;
        if self.words == 1 {
            self.create = is("create");
        } else if self.create && self.words <= 4 && (is("function") || is("procedure")) {
            self.routine = true;
        }
        if !self.routine {
            return;
        }
        if self.bodies > 0 && is("case") || self.begin && is("atomic") {
            self.bodies += 1;
        } else if is("end") {
            self.bodies = self.bodies.saturating_sub(1);
        }
        self.begin = is("begin");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::scan::{Lexing, scan};

    fn check(text: &str, expect: &[&str]) {
        let tokens = scan(text.as_bytes(), Lexing::default()).unwrap();
        let pieces: Vec<_> = split(&tokens, text.as_bytes())
            .iter()
            .map(|piece| &text[piece.first().unwrap().start..piece.last().unwrap().end])
            .collect();
        assert_eq!(pieces, expect, "{text}");
    }

    #[test]
    fn semicolons_in_bodies_do_not_cut() {
        check(" ;; ", &[]);
        check("a; b;", &["a", "b"]);
        check(
            "select ';' ; /* ; */ select $$;$$",
            &["select ';'", "select $$;$$"],
        );
        check(
            "create rule r as on insert to t do (select 1; select 2); x",
            &[
                "create rule r as on insert to t do (select 1; select 2)",
                "x",
            ],
        );
        let body = "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end";
        check(&format!("{body}; x"), &[body, "x"]);
        check(
            "begin; create table x (a int); end",
            &["begin", "create table x (a int)", "end"],
        );
    }
}
