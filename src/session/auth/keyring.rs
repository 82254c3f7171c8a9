//! Secrets of the process itself: for salts, for mock exchanges, and verifiers made of plain passwords.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::error::{Fault, SqlState};
use crate::wire::scram::{self, ITERATIONS, Verifier, salt_for};

/// Verifiers derived from plain passwords that are remembered, at most.
const DERIVED_MAX: usize = 10_000;

/// The process's own secret for mock exchanges and salts, and verifiers made of plain passwords.
///
/// One for the process: were it made anew, the salt of an unknown user would change and tell on it.
pub struct Keyring {
    random: SystemRandom,
    secret: [u8; 32],
    /// By user: the password and its verifier. The section under the lock only copies.
    derived: Mutex<HashMap<String, (String, Verifier)>>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// Makes a keyring with a fresh secret. Fails only if the system gives no random numbers.
    pub fn new() -> Result<Keyring, Fault> {
        let random = SystemRandom::new();
        let secret = random_bytes(&random)?;
        Ok(Keyring {
            random,
            secret,
            derived: Mutex::new(HashMap::new()),
        })
    }

    /// Random bytes, good for keys.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], Fault> {
        random_bytes(&self.random)
    }

    /// A verifier that no password has, for a user that cannot log in.
    pub(super) fn mock(&self, user: &str) -> Verifier {
        Verifier::mock(user, &self.secret)
    }

    /// The verifier of a plain password, derived once.
    pub(super) fn verifier(&self, user: &str, password: &str) -> Verifier {
        let lock = || self.derived.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, verifier)) = lock().get(user)
            && bool::from(known.as_bytes().ct_eq(password.as_bytes()))
        {
            return verifier.clone();
        }
        let salt = salt_for(user, &self.secret);
        let verifier = Verifier::derive(password, &salt, ITERATIONS);
        let mut derived = lock();
        if derived.len() >= DERIVED_MAX {
            derived.clear();
        }
        derived.insert(user.to_owned(), (password.to_owned(), verifier.clone()));
        verifier
    }
}

fn random_bytes<const N: usize>(random: &SystemRandom) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    random.fill(&mut bytes).map_err(|_unspecified| {
        Fault::fatal(SqlState::INTERNAL, "could not generate random numbers")
            .hint("Check that the system's random number generator works.")
    })?;
    Ok(bytes)
}

/// The verifier of a password with a random salt, as text: for `users` in the configuration.
pub fn hash_password(password: &str) -> Result<String, Fault> {
    let salt = random_bytes::<{ scram::SALT }>(&SystemRandom::new())?;
    Ok(scram::hash_password(password, &salt, ITERATIONS))
}
