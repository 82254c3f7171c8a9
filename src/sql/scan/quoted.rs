//! Quoted tokens: strings in all their forms, and quoted names.

use super::{DIGIT, Encoding, Kind, LETTER, Lexer, SPACE, Unreadable, class};

impl Lexer<'_> {
    pub(super) fn plain_string(&mut self) -> Result<Kind, Unreadable> {
        let start = self.at;
        let pieces = self.strings(false, Kind::Text)?;
        let content = self.text.get(start..self.at).unwrap_or_default();
        if !self.lexing.standard_conforming_strings && content.contains(&b'\\') {
            return Err(Unreadable(
                "a backslash in a string while standard_conforming_strings is off",
            ));
        }
        Ok(if pieces > 1 {
            Kind::TextPieces
        } else {
            Kind::Text
        })
    }

    /// Reads a string from its opening quote to its end, continued pieces included; their count.
    pub(super) fn strings(&mut self, escapes: bool, kind: Kind) -> Result<usize, Unreadable> {
        let mut pieces = 0;
        loop {
            self.at += 1;
            self.string_body(escapes)?;
            pieces += 1;
            let Some(next) = self.continued() else {
                return Ok(pieces);
            };
            // Unicode escapes may be followed by UESCAPE; pieces of it are nobody's habit.
            if kind == Kind::UnicodeText {
                return Err(Unreadable("a U& string in several pieces"));
            }
            self.at = next;
        }
    }

    fn string_body(&mut self, escapes: bool) -> Result<(), Unreadable> {
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return Err(Unreadable("an unterminated string"));
            };
            self.at += 1;
            match byte {
                b'\'' if self.peek(0) == b'\'' => self.at += 1,
                b'\'' => return Ok(()),
                b'\\' if escapes => self.at += 1,
                0x80.. if self.lexing.encoding == Encoding::Unsafe => {
                    return Err(Unreadable(
                        "a string beyond ASCII in a client_encoding whose bytes can look like quotes",
                    ));
                }
                _ => (),
            }
        }
    }

    /// Where the next piece of a string opens: white space with a newline, `--` comments allowed.
    fn continued(&self) -> Option<usize> {
        let mut ahead = self.clone();
        let mut newline = false;
        loop {
            match ahead.peek(0) {
                b'\n' | b'\r' => {
                    newline = true;
                    ahead.at += 1;
                }
                b'-' if ahead.peek(1) == b'-' => ahead.line_comment(),
                b'\'' if newline => return Some(ahead.at),
                byte if class(byte) == SPACE => ahead.at += 1,
                _ => return None,
            }
        }
    }

    pub(super) fn quoted(&mut self, kind: Kind) -> Result<Kind, Unreadable> {
        let start = self.at;
        self.at += 1;
        let mut high = 0;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return Err(Unreadable("an unterminated quoted name"));
            };
            self.at += 1;
            high |= byte;
            if byte == b'"' {
                if self.peek(0) != b'"' {
                    break;
                }
                self.at += 1;
            }
        }
        if self.at - start <= 2 {
            return Err(Unreadable("an empty quoted name"));
        }
        if high >= 0x80 {
            self.check_name(start)?;
        }
        Ok(kind)
    }

    pub(super) fn dollar(&mut self) -> Result<Kind, Unreadable> {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.digits();
            if class(self.peek(0)) == LETTER {
                return Err(Unreadable("a letter directly after a parameter"));
            }
            return Ok(Kind::Parameter);
        }
        let mut length = 1;
        while matches!(class(self.peek(length)), LETTER | DIGIT) {
            length += 1;
        }
        if self.peek(length) != b'$' {
            return Ok(self.single(Kind::Other));
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (tag, body) = rest.split_at_checked(length + 1).unwrap_or((rest, &[]));
        if self.lexing.encoding == Encoding::Unsafe && !body.is_ascii() {
            return Err(Unreadable(
                "a string beyond ASCII in a client_encoding whose bytes can look like quotes",
            ));
        }
        let close = find(body, tag).ok_or(Unreadable("an unterminated dollar-quoted string"))?;
        self.at += tag.len() * 2 + close;
        Ok(Kind::Dollar)
    }
}

fn find(body: &[u8], tag: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(rest) = body.get(from..) {
        let at = from + rest.iter().position(|&byte| byte == b'$')?;
        if body.get(at..)?.starts_with(tag) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
