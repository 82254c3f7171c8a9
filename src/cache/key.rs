//! What an answer is kept under: everything that it may depend on besides the rows. Sans-IO.

use ring::digest;

/// The digest of everything that decides an answer besides the rows that it reads. Two statements with one
/// key give one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The digest of these parts, in their order; where one ends and the next begins counts.
    pub fn of(parts: &[&[u8]]) -> Key {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in parts {
            let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
            context.update(&length.to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        let digest = context.finish();
        key.copy_from_slice(digest.as_ref().get(..32).unwrap_or(&[0; 32]));
        Key(key)
    }

    /// As text, for a key of Redis.
    pub fn text(&self) -> String {
        use std::fmt::Write as _;
        self.0
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap_or_default();
                text
            })
    }

    /// The bytes of the digest.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_ne!(Key::of(&[b"a"]), Key::of(&[b"a", b""]));
        assert_eq!(Key::of(&[b"a", b"b"]), Key::of(&[b"a", b"b"]));
        assert_eq!(Key::of(&[]).text().len(), 64);
    }
}
