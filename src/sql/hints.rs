//! Hints in a comment that leads a text: `/* pgherd: shard=shard_1 */`.

use super::mask::is_hint;
use super::scan::{Kind, Lexer, Lexing};

/// What a comment asks for. Unknown words are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    pub shard: Option<String>,
    pub key: Option<String>,
    pub distribution: Option<String>,
    pub role: Option<String>,
    pub cache: Option<String>,
}

impl Hints {
    /// The hints before the first statement of a text; `None` where there are none.
    pub fn of(text: &[u8]) -> Option<Hints> {
        let mut lexer = Lexer::new(text, Lexing::default());
        loop {
            let token = lexer.next_token().ok()??;
            if token.kind != Kind::Comment {
                return None;
            }
            let comment = token.of(text);
            if is_hint(comment) {
                return Hints::read(std::str::from_utf8(comment).ok()?);
            }
        }
    }

    fn read(comment: &str) -> Option<Hints> {
        let body = comment.strip_prefix("/*")?.strip_suffix("*/")?;
        let words = body.trim_start().strip_prefix("pgherd:")?;
        let mut hints = Hints::default();
        for word in words.split([' ', ',', '\t', '\n']) {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let value = Some(value.trim_matches('\'').to_owned());
            match name {
                "shard" => hints.shard = value,
                "key" => hints.key = value,
                "distribution" => hints.distribution = value,
                "role" => hints.role = value,
                "cache" => hints.cache = value,
                _ => (),
            }
        }
        Some(hints)
    }
}

#[cfg(test)]
mod tests {
    use super::Hints;

    #[test]
    fn only_a_leading_comment_counts() {
        let shard = |text: &str| Hints::of(text.as_bytes()).and_then(|hints| hints.shard);
        assert_eq!(
            shard("/* pgherd: shard=a */ select 1").as_deref(),
            Some("a")
        );
        assert_eq!(
            shard("-- x\n /*pgherd: key=5, shard='b'*/ select").as_deref(),
            Some("b")
        );
        assert_eq!(shard("select 1 /* pgherd: shard=a */"), None);
        assert_eq!(shard("/* other */ select '/* pgherd: shard=a */'"), None);
    }
}
