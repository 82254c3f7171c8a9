//! The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, and the verifiers it checks against.
//!
//! An [`Exchange`] takes the client's two messages and returns ours; nonce and salt are arguments.
//! A doomed exchange, for a user who does not exist or has no such secret, runs the same steps and
//! fails at the end, so that a guesser learns nothing. RFC 5802 and 7677; PostgreSQL's `auth-scram.c`.

use std::fmt;
use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};
use subtle::ConstantTimeEq;

use crate::error::{Fault, SqlState};

/// The mechanism without channel binding.
pub const SCRAM: &str = "SCRAM-SHA-256";
/// The mechanism with channel binding.
pub const SCRAM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// PBKDF2 iterations of verifiers we make: PostgreSQL's default.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
/// Bytes of salt in verifiers we make: PostgreSQL's.
pub const SALT: usize = 16;
/// Random bytes of our part of the nonce: PostgreSQL's.
pub const NONCE: usize = 18;

const BINDING_HEADER: &str = "p=tls-server-end-point,,";

/// What is stored of a password: enough to check a client and to prove ourselves to it, not to log in elsewhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: NonZeroU32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, as in pg_authid.
    pub fn parse(text: &str) -> Option<Verifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (head, keys) = rest.split_once('$')?;
        let (iterations, salt) = head.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let key = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
        Some(Verifier {
            iterations: iterations.parse().ok()?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// Works the verifier of a password out. Takes about a millisecond at 4096 iterations.
    pub fn derive(password: &str, salt: &[u8], iterations: NonZeroU32) -> Verifier {
        // As PostgreSQL, a password that SASLprep refuses is taken as it is.
        let prepared = stringprep::saslprep(password);
        let password = prepared.as_deref().unwrap_or(password);
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&hmac_sha256(&salted, &[b"Client Key"])),
            server_key: hmac_sha256(&salted, &[b"Server Key"]),
        }
    }

    /// A verifier that no password has, for a user that cannot log in. It always looks the same for the
    /// same user, as a real one would.
    pub fn mock(user: &str, secret: &[u8]) -> Verifier {
        Verifier {
            iterations: ITERATIONS,
            salt: salt_for(user, secret).to_vec(),
            stored_key: hmac_sha256(secret, &[b"mock key ", user.as_bytes()]),
            server_key: hmac_sha256(secret, &[b"mock server ", user.as_bytes()]),
        }
    }

    /// Whether `password` is the one this verifier was made of.
    pub fn is_of(&self, password: &str) -> bool {
        let other = Verifier::derive(password, &self.salt, self.iterations);
        bool::from(self.stored_key.ct_eq(&other.stored_key))
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key),
            BASE64.encode(self.server_key)
        )
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

/// The salt that a process with this secret gives to a user: the same in a mock exchange and in one with a
/// verifier derived from a plain password.
pub fn salt_for(user: &str, secret: &[u8]) -> [u8; SALT] {
    let mut salt = [0; SALT];
    let whole = hmac_sha256(secret, &[b"salt ", user.as_bytes()]);
    for (to, from) in salt.iter_mut().zip(whole) {
        *to = from;
    }
    salt
}

/// The verifier of a password as text, for a config file or pg_authid.
pub fn hash_password(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    Verifier::derive(password, salt, iterations).to_string()
}

/// Why an exchange failed. All but [`ScramError::WrongProof`] are faults of the client's software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    #[error("client chose an unknown SASL authentication mechanism")]
    Mechanism,
    #[error("malformed SCRAM message ({0})")]
    Malformed(&'static str),
    /// The client can bind but was led to think we cannot: someone stands between.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The client saw another certificate than ours: someone stands between.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    #[error("invalid SCRAM nonce")]
    Nonce,
    /// The password is wrong, or the exchange was doomed.
    #[error("wrong proof")]
    WrongProof,
}

impl ScramError {
    /// What the client is told; for a wrong proof the words every failed password gets are the caller's.
    pub fn fault(self) -> Fault {
        let code = match self {
            ScramError::Mechanism
            | ScramError::Malformed(_)
            | ScramError::BindingType
            | ScramError::Nonce => SqlState::PROTOCOL_VIOLATION,
            ScramError::Downgrade | ScramError::BindingMismatch => SqlState::INVALID_AUTHORIZATION,
            ScramError::AuthorizationIdentity | ScramError::Extension => {
                SqlState::FEATURE_NOT_SUPPORTED
            }
            ScramError::WrongProof => SqlState::INVALID_PASSWORD,
        };
        let hint = match self {
            ScramError::Downgrade | ScramError::BindingMismatch => {
                "Something between client and pgherd may be changing or relaying the connection; check what terminates TLS."
            }
            ScramError::WrongProof => "Check the password.",
            ScramError::Mechanism
            | ScramError::Malformed(_)
            | ScramError::BindingType
            | ScramError::AuthorizationIdentity
            | ScramError::Extension
            | ScramError::Nonce => {
                "Use a driver that speaks SCRAM-SHA-256 as PostgreSQL's libpq does."
            }
        };
        Fault::fatal(code, self.to_string()).hint(hint)
    }
}

/// The mechanisms to offer: with channel binding first, where there is something to bind to.
pub fn mechanisms(has_binding: bool) -> &'static [&'static str] {
    if has_binding {
        &[SCRAM_PLUS, SCRAM]
    } else {
        &[SCRAM]
    }
}

/// One authentication, waiting for the client's first message.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    is_doomed: bool,
    /// The `tls-server-end-point` digest of our certificate; `None` when PLUS was not offered.
    binding: Option<Vec<u8>>,
    nonce: [u8; NONCE],
}

/// One authentication, waiting for the client's proof.
#[derive(Debug)]
pub struct Challenge {
    verifier: Verifier,
    is_doomed: bool,
    /// What the client must send as `c=`.
    channel: String,
    nonce: String,
    /// `client-first-bare,server-first,`: what the signatures are over, up to the last part.
    signed: String,
}

impl Exchange {
    /// Begins an exchange. `binding` is the digest of our certificate on a TLS connection that PLUS was
    /// offered on; `nonce` is random and never used twice.
    pub fn new(
        verifier: Verifier,
        is_doomed: bool,
        binding: Option<Vec<u8>>,
        nonce: [u8; NONCE],
    ) -> Exchange {
        Exchange {
            verifier,
            is_doomed,
            binding,
            nonce,
        }
    }

    /// Takes the client's mechanism and first message; returns the exchange's next state and our first message.
    pub fn first(
        self,
        mechanism: &[u8],
        message: &[u8],
    ) -> Result<(Challenge, String), ScramError> {
        let is_plus = match mechanism {
            b"SCRAM-SHA-256" => false,
            b"SCRAM-SHA-256-PLUS" if self.binding.is_some() => true,
            _ => return Err(ScramError::Mechanism),
        };
        let message = utf8(message)?;
        let (header, bare) = self.split_header(message, is_plus)?;
        let mut attributes = bare.split(',');
        if attributes
            .clone()
            .next()
            .is_some_and(|first| first.starts_with("m="))
        {
            return Err(ScramError::Extension);
        }
        // The user name here is ignored, as in PostgreSQL: the startup packet has it.
        value(attributes.next(), "n=")?;
        let client_nonce = value(attributes.next(), "r=")?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Nonce);
        }
        let nonce = format!("{client_nonce}{}", BASE64.encode(self.nonce));
        let reply = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&self.verifier.salt),
            self.verifier.iterations
        );
        let mut channel = header.as_bytes().to_vec();
        if let Some(digest) = self.binding.filter(|_| is_plus) {
            channel.extend_from_slice(&digest);
        }
        let challenge = Challenge {
            verifier: self.verifier,
            is_doomed: self.is_doomed,
            channel: BASE64.encode(channel),
            signed: format!("{bare},{reply},"),
            nonce,
        };
        Ok((challenge, reply))
    }

    /// Splits the GS2 header from the first message and checks what it says of channel binding.
    fn split_header<'a>(
        &self,
        message: &'a str,
        is_plus: bool,
    ) -> Result<(&'a str, &'a str), ScramError> {
        let mut parts = message.splitn(3, ',');
        let flag = parts.next().unwrap_or_default();
        let identity = parts.next().ok_or(ScramError::Malformed("no header"))?;
        let bare = parts.next().ok_or(ScramError::Malformed("no header"))?;
        match (flag, is_plus) {
            ("n", false) => (),
            ("y", false) if self.binding.is_none() => (),
            ("y", false) => return Err(ScramError::Downgrade),
            ("n" | "y", true) => return Err(ScramError::Malformed("no channel binding data")),
            (flag, true) if flag.starts_with("p=") => {
                if flag != "p=tls-server-end-point" {
                    return Err(ScramError::BindingType);
                }
            }
            (_, false) if flag.starts_with("p=") => {
                return Err(ScramError::Malformed("unexpected channel binding data"));
            }
            _ => return Err(ScramError::Malformed("unknown channel binding flag")),
        }
        if !identity.is_empty() {
            return Err(ScramError::AuthorizationIdentity);
        }
        let header = if is_plus {
            BINDING_HEADER
        } else if flag == "y" {
            "y,,"
        } else {
            "n,,"
        };
        Ok((header, bare))
    }
}

impl Challenge {
    /// Takes the client's proof; returns our last message, which proves that we hold the verifier.
    pub fn last(self, message: &[u8]) -> Result<String, ScramError> {
        let message = utf8(message)?;
        let (without_proof, proof) = message
            .rsplit_once(",p=")
            .ok_or(ScramError::Malformed("no proof"))?;
        let proof = BASE64
            .decode(proof)
            .ok()
            .and_then(|proof| <[u8; 32]>::try_from(proof).ok())
            .ok_or(ScramError::Malformed("proof of a wrong length"))?;
        let mut attributes = without_proof.split(',');
        let channel = value(attributes.next(), "c=")?;
        let nonce = value(attributes.next(), "r=")?;
        if channel != self.channel {
            return Err(ScramError::BindingMismatch);
        }
        if !bool::from(nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(ScramError::Nonce);
        }
        let signed = [self.signed.as_bytes(), without_proof.as_bytes()];
        let mut client_key = hmac_sha256(&self.verifier.stored_key, &signed);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        let is_right = bool::from(sha256(&client_key).ct_eq(&self.verifier.stored_key));
        if !is_right || self.is_doomed {
            return Err(ScramError::WrongProof);
        }
        let signature = hmac_sha256(&self.verifier.server_key, &signed);
        Ok(format!("v={}", BASE64.encode(signature)))
    }
}

fn utf8(message: &[u8]) -> Result<&str, ScramError> {
    match std::str::from_utf8(message) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(ScramError::Malformed("not text")),
    }
}

fn value<'a>(attribute: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    attribute
        .and_then(|attribute| attribute.strip_prefix(name))
        .ok_or(ScramError::Malformed("attribute expected"))
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    fixed(context.sign().as_ref())
}

fn sha256(input: &[u8]) -> [u8; 32] {
    fixed(digest::digest(&digest::SHA256, input).as_ref())
}

/// The 32 bytes of a SHA-256 output, whose length its type does not tell.
fn fixed(output: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(output) {
        *to = *from;
    }
    bytes
}

#[cfg(test)]
mod tests;
