//! The keys by which clients cancel: ours, never a server's.
//!
//! One client may have statements on several servers, so the key a client holds names the client.
//! Its secret has 4 bytes in protocol 3.0 and 32 in 3.2, as PostgreSQL's.

use subtle::ConstantTimeEq;

/// The length of a secret that is long enough not to be guessed: protocol 3.2.
pub const LONG: usize = 32;
/// The length of a secret of protocol 3.0.
pub const SHORT: usize = 4;

/// What BackendKeyData gives a client, and what its CancelRequest must show.
#[derive(Clone, Copy)]
pub struct CancelKey {
    pid: i32,
    secret: [u8; LONG],
    length: usize,
}

impl CancelKey {
    /// A key for the client `pid`, of random bytes, in the length that its protocol version carries.
    pub fn new(pid: i32, random: [u8; LONG], minor: u16) -> CancelKey {
        CancelKey {
            pid,
            secret: random,
            length: if minor >= 2 { LONG } else { SHORT },
        }
    }

    /// The number that stands for a process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The secret, to be sent once in BackendKeyData.
    pub fn secret(&self) -> &[u8] {
        self.secret.get(..self.length).unwrap_or_default()
    }

    /// Whether a CancelRequest shows this key. The time it takes does not depend on the secret.
    pub fn matches(&self, pid: i32, secret: &[u8]) -> bool {
        self.pid == pid && bool::from(self.secret().ct_eq(secret))
    }
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({})", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::CancelKey;

    #[test]
    fn a_key_matches_itself_alone() {
        let short = CancelKey::new(7, [9; 32], 0);
        assert!(short.matches(7, &[9; 4]));
        assert!(!short.matches(8, &[9; 4]));
        assert!(!short.matches(7, &[9, 9, 9, 8]));
        assert!(!short.matches(7, &[9; 32]));
        assert!(!short.matches(7, &[]));
        let long = CancelKey::new(7, [9; 32], 2);
        assert!(long.matches(7, &[9; 32]));
        assert!(!long.matches(7, &[9; 4]));
    }
}
