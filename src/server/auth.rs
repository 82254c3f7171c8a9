//! Logs in to a server: answers its authentication requests with the password we hold.
//!
//! SCRAM with channel binding where TLS allows it, SCRAM, md5, and the password in clear. A server that
//! began SCRAM must finish it: an AuthenticationOk before it has proved to know the password is refused.

use md5::{Digest, Md5};
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

use crate::config::Secret;
use crate::error::{Fault, SqlState};
use crate::wire::backend;
use crate::wire::scram::{SCRAM, SCRAM_PLUS};

/// Whom we are to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    /// A plain password serves every method, an md5 secret only md5, a SCRAM verifier none.
    pub password: Option<Secret>,
}

/// One login, from the first authentication request to AuthenticationOk.
pub(super) struct Login<'a> {
    credentials: &'a Credentials,
    is_tls: bool,
    /// The `tls-server-end-point` digest of the server's certificate.
    binding: Option<Vec<u8>>,
    state: State,
}

enum State {
    /// Nothing asked yet, or nothing that binds the server to prove itself.
    Open,
    /// Our first SCRAM message is sent.
    First(Box<ScramSha256>),
    /// Our proof is sent.
    Proof(Box<ScramSha256>),
    /// The server has proved itself.
    Proven,
}

impl<'a> Login<'a> {
    pub(super) fn new(
        credentials: &'a Credentials,
        is_tls: bool,
        binding: Option<Vec<u8>>,
    ) -> Login<'a> {
        Login {
            credentials,
            is_tls,
            binding,
            state: State::Open,
        }
    }

    /// Takes the body of an authentication request; writes our answer to `out`. True when we are in.
    pub(super) fn on(&mut self, body: &[u8], out: &mut Vec<u8>) -> Result<bool, Fault> {
        let Some((code, data)) = body.split_first_chunk::<4>() else {
            return Err(broken("an authentication request is too short"));
        };
        let state = std::mem::replace(&mut self.state, State::Open);
        match (u32::from_be_bytes(*code), state) {
            (0, State::Open | State::Proven) => return Ok(true),
            (3, State::Open) => self.answer_clear(out)?,
            (5, State::Open) => self.answer_md5(data, out)?,
            (10, State::Open) => self.begin_scram(data, out)?,
            (11, State::First(mut scram)) => {
                scram.update(data).map_err(|error| broken_scram(&error))?;
                backend::message(out, b'p', |out| out.extend_from_slice(scram.message()));
                self.state = State::Proof(scram);
            }
            (12, State::Proof(mut scram)) => {
                scram.finish(data).map_err(|error| broken_scram(&error))?;
                self.state = State::Proven;
            }
            (0 | 3 | 5 | 10..=12, _) => {
                return Err(broken(
                    "its authentication requests come in the wrong order",
                ));
            }
            (method, _) => {
                return Err(Fault::error(
                    SqlState::UNABLE_TO_CONNECT,
                    "server asks for an authentication method that is not supported",
                )
                .detail(format!("The server sent authentication request {method}."))
                .hint("Let the server's pg_hba.conf ask for scram-sha-256, md5 or password."));
            }
        }
        Ok(false)
    }

    fn answer_clear(&self, out: &mut Vec<u8>) -> Result<(), Fault> {
        let password = self.plain("a password")?;
        backend::message(out, b'p', |out| backend::string(out, password));
        Ok(())
    }

    fn answer_md5(&self, salt: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let user = self.credentials.user.as_bytes();
        let inner = match &self.credentials.password {
            Some(Secret::Plain(password)) => md5_hex(&[password.as_bytes(), user]),
            Some(Secret::Md5(secret)) => secret.trim_start_matches("md5").to_owned(),
            Some(Secret::Scram(_)) | None => return Err(self.no_password("an md5 password")),
        };
        let answer = format!("md5{}", md5_hex(&[inner.as_bytes(), salt]));
        backend::message(out, b'p', |out| backend::string(out, &answer));
        Ok(())
    }

    fn begin_scram(&mut self, mechanisms: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let offers = |name: &str| {
            mechanisms
                .split(|&byte| byte == 0)
                .any(|offer| offer == name.as_bytes())
        };
        let (mechanism, binding) = match self.binding.take() {
            Some(digest) if offers(SCRAM_PLUS) => {
                (SCRAM_PLUS, ChannelBinding::tls_server_end_point(digest))
            }
            // On TLS we could bind, so the server learns that it was not offered to us.
            Some(_) if offers(SCRAM) => (SCRAM, ChannelBinding::unrequested()),
            None if offers(SCRAM) => (SCRAM, ChannelBinding::unsupported()),
            Some(_) | None => {
                return Err(Fault::error(
                    SqlState::UNABLE_TO_CONNECT,
                    "server offers no SASL mechanism that is supported",
                )
                .detail(if self.is_tls {
                    "On TLS, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS are supported."
                } else {
                    "Without TLS, SCRAM-SHA-256 is supported."
                })
                .hint("Let the server's pg_hba.conf ask for scram-sha-256."));
            }
        };
        let password = self.plain("a SCRAM password")?;
        let scram = ScramSha256::new(password.as_bytes(), binding);
        backend::message(out, b'p', |out| {
            backend::string(out, mechanism);
            let first = scram.message();
            let length = u32::try_from(first.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(first);
        });
        self.state = State::First(Box::new(scram));
        Ok(())
    }

    fn plain(&self, wanted: &str) -> Result<&'a str, Fault> {
        match &self.credentials.password {
            Some(Secret::Plain(password)) => Ok(password),
            Some(Secret::Scram(_) | Secret::Md5(_)) | None => Err(self.no_password(wanted)),
        }
    }

    fn no_password(&self, wanted: &str) -> Fault {
        let user = &self.credentials.user;
        let known = match &self.credentials.password {
            None => "no password is known for it",
            Some(Secret::Scram(_)) => "only a SCRAM verifier is known for it, which cannot log in",
            Some(Secret::Md5(_)) => "only an md5 secret is known for it",
            Some(Secret::Plain(_)) => "its password does not serve",
        };
        Fault::error(
            SqlState::INVALID_AUTHORIZATION,
            format!("could not log in to server as user \"{user}\""),
        )
        .detail(format!("The server asks for {wanted}, and {known}."))
        .hint("Set the user's plain password in \"users\", or server_user and server_password of the database.")
    }
}

/// The MD5 of the parts, as 32 hex digits.
pub fn md5_hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

fn broken(detail: &str) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "server broke the protocol during login",
    )
    .detail(format!("The server does not speak the protocol: {detail}."))
    .hint("Check that the address is that of a PostgreSQL server.")
}

fn broken_scram(error: &std::io::Error) -> Fault {
    Fault::error(
        SqlState::UNABLE_TO_CONNECT,
        "server failed its side of SCRAM authentication",
    )
    .detail(format!("The exchange ended with: {error}."))
    .hint(
        "Check that the address is that of the right server, and the password of the server user.",
    )
}

#[cfg(test)]
mod tests {
    use super::{Credentials, Login};
    use crate::config::Secret;
    use proptest::prelude::proptest;

    fn check(password: Option<&str>, request: &[u8], expect: Result<&[u8], &str>) {
        let credentials = Credentials {
            user: "u".to_owned(),
            password: password.map(Secret::read),
        };
        let mut out = Vec::new();
        let found = Login::new(&credentials, false, None).on(request, &mut out);
        match (found, expect) {
            (Ok(_), Ok(bytes)) => assert_eq!(
                out.escape_ascii().to_string(),
                bytes.escape_ascii().to_string()
            ),
            (Err(fault), Err(text)) => assert!(fault.to_string().contains(text), "{fault}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[test]
    fn requests_are_answered() {
        check(None, b"\0\0\0\0", Ok(b""));
        check(Some("pw"), b"\0\0\0\x03", Ok(b"p\0\0\0\x07pw\0"));
        let md5 = b"p\0\0\0(md5";
        let mut out = Vec::new();
        for password in ["pw", "md5b15e16dda4f94ad32bb87fd08d8eb05d"] {
            let credentials = Credentials {
                user: "u".to_owned(),
                password: Some(Secret::read(password)),
            };
            let mut answer = Vec::new();
            Login::new(&credentials, false, None)
                .on(b"\0\0\0\x05salt", &mut answer)
                .unwrap();
            assert!(answer.starts_with(md5));
            out.push(answer);
        }
        let inner = super::md5_hex(&[b"pw", b"u"]);
        assert_eq!(
            out[0][8..40],
            *super::md5_hex(&[inner.as_bytes(), b"salt"]).as_bytes()
        );
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        check(None, b"\0\0\0\x03", Err("no password is known"));
        check(
            Some("SCRAM-SHA-256$"),
            b"\0\0\0\x0aSCRAM-SHA-256\0\0",
            Err("cannot log in"),
        );
        check(Some("pw"), b"\0\0\0\x0aX\0\0", Err("no SASL mechanism"));
        check(
            Some("pw"),
            b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0",
            Err("no SASL mechanism"),
        );
        check(Some("pw"), b"\0\0\0\x07", Err("not supported"));
        check(Some("pw"), b"\0\0\0\x0b", Err("wrong order"));
        check(Some("pw"), b"\0", Err("too short"));
    }

    #[test]
    fn a_server_that_skips_its_proof_is_refused() {
        let credentials = Credentials {
            user: "u".to_owned(),
            password: Some(Secret::read("pw")),
        };
        let mut login = Login::new(&credentials, false, None);
        let mut out = Vec::new();
        assert_eq!(
            login.on(b"\0\0\0\x0aSCRAM-SHA-256\0\0", &mut out),
            Ok(false)
        );
        assert!(login.on(b"\0\0\0\0", &mut out).is_err());
    }

    proptest! {
        #[test]
        fn any_requests_are_read_without_panic(requests: Vec<Vec<u8>>, code in 0_u32..16) {
            let credentials = Credentials { user: "u".to_owned(), password: Some(Secret::read("pw")) };
            let mut login = Login::new(&credentials, true, Some(vec![1]));
            let mut out = Vec::new();
            drop(login.on(b"\0\0\0\x0aSCRAM-SHA-256\0\0", &mut out));
            for request in requests {
                drop(login.on(&[&code.to_be_bytes(), request.as_slice()].concat(), &mut out));
            }
        }
    }
}
