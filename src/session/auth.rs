//! Makes a client prove who it is, by the method the configuration or its pg_hba.conf asks for.
//!
//! An unknown user and a wrong password look the same from outside: the same requests, the same words.
//! What really was the matter is in [`AuthError::Refused`]'s `reason`, for the log.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::config::{AuthMethod, Config, Secret};
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::auth::md5_hex;
use crate::session::startup::Client;
use crate::tls::certificate;
use crate::wire::backend::{self, Authentication};
use crate::wire::frontend;
use crate::wire::scram::{
    self, Exchange, ITERATIONS, NONCE, ScramError, Verifier, mechanisms, salt_for,
};

/// Bytes of one message of a client that is not yet in: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH.
const MESSAGE_MAX: usize = 65_535;
/// Verifiers derived from plain passwords that are remembered, at most.
const DERIVED_MAX: usize = 10_000;

/// Who a client has proved to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    /// What we can log in to servers with in the user's name: what the configuration or `auth.query` has,
    /// or the password the client has just sent in clear.
    pub password: Option<Secret>,
}

/// Why a client is not let in.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It went away.
    #[error("client left during authentication: {0}")]
    Gone(#[from] io::Error),
    /// To be sent to the client, which is then closed.
    #[error("{fault}, since {reason}")]
    Refused {
        fault: Box<Fault>,
        /// For the log alone.
        reason: String,
    },
}

impl AuthError {
    fn refused(fault: Fault, reason: impl Into<String>) -> AuthError {
        AuthError::Refused {
            fault: Box::new(fault),
            reason: reason.into(),
        }
    }
}

/// What a rule of pg_hba.conf looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionFacts<'a> {
    /// Whether it came by a Unix socket.
    pub local: bool,
    pub tls: bool,
    /// `None` for a Unix socket.
    pub address: Option<IpAddr>,
    pub database: &'a str,
    pub user: &'a str,
}

/// What the first matching rule of pg_hba.conf says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Trust,
    Reject,
    Scram,
    /// SCRAM for users with a SCRAM verifier.
    Md5,
    Plain,
    Cert,
}

/// A decision by pg_hba.conf; `None` when no rule matches.
pub type Decide<'a> = dyn Fn(&ConnectionFacts<'_>) -> Option<Rule> + 'a;

/// A look-up that may take a while.
pub type LookUp<'a> = Pin<Box<dyn Future<Output = Result<Option<Secret>, Fault>> + 'a>>;

/// Finds the secrets of users that the configuration does not name: `auth.query`.
pub trait Secrets {
    /// The secret of a user; `None` if there is no such user, or none with a password.
    fn look_up<'a>(&'a self, user: &'a str, database: &'a str) -> LookUp<'a>;
}

/// What authentication needs besides the client.
#[expect(
    missing_debug_implementations,
    reason = "the traits it borrows have none, and nobody prints it"
)]
pub struct Context<'a> {
    pub config: &'a Config,
    pub keyring: &'a Keyring,
    /// Of `auth.query`, if the configuration has one.
    pub secrets: Option<&'a dyn Secrets>,
    /// Of the method `hba`.
    pub decide: Option<&'a Decide<'a>>,
    pub deadline: Instant,
}

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

    /// The verifier of a plain password, derived once.
    fn verifier(&self, user: &str, password: &str) -> Verifier {
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

/// Runs the authentication that applies to this client. On success AuthenticationOk is sent.
///
/// A refusal is not sent: see [`crate::session::startup::refuse`].
///
/// # Cancel safety
/// Not safe: messages of the exchange may be lost, so the connection must be closed.
pub async fn authenticate(
    client: &mut Client,
    context: &Context<'_>,
) -> Result<Identity, AuthError> {
    let whole = async {
        let rule = rule(client, context)?;
        let found = find(client, context).await?;
        let password = Box::pin(prove(client, context, rule, &found)).await?;
        let mut bytes = Vec::new();
        backend::authentication(&mut bytes, Authentication::Ok);
        client.stream.write_all(&bytes).await?;
        client.stream.flush().await?;
        Ok(Identity {
            user: client.user.clone(),
            password,
        })
    };
    match timeout_at(context.deadline, whole).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(AuthError::refused(
            Fault::fatal(
                SqlState::QUERY_CANCELED,
                "canceling authentication due to timeout",
            )
            .hint("Log in sooner, or raise client_login_timeout."),
            "client_login_timeout has passed",
        )),
    }
}

/// What is known of a user's name.
enum Found {
    /// There is no such user.
    Unknown,
    /// There is one; perhaps with a secret.
    User(Option<Secret>),
}

async fn find(client: &Client, context: &Context<'_>) -> Result<Found, AuthError> {
    let config = context.config;
    if let Some(user) = config.users.get(&client.user) {
        return Ok(Found::User(user.password.clone()));
    }
    if let Some(secrets) = context.secrets {
        return match secrets.look_up(&client.user, &client.database).await {
            Ok(Some(secret)) => Ok(Found::User(Some(secret))),
            Ok(None) => Ok(Found::Unknown),
            Err(fault) => Err(AuthError::refused(fault.into_fatal(), "auth.query failed")),
        };
    }
    // Without a list of users every name is one: the servers know theirs.
    if config.users.is_empty() {
        return Ok(Found::User(None));
    }
    Ok(Found::Unknown)
}

fn rule(client: &Client, context: &Context<'_>) -> Result<Rule, AuthError> {
    match context.config.auth.method {
        AuthMethod::Scram => Ok(Rule::Scram),
        AuthMethod::Md5 => Ok(Rule::Md5),
        AuthMethod::Plain => Ok(Rule::Plain),
        AuthMethod::Trust => Ok(Rule::Trust),
        AuthMethod::Cert => Ok(Rule::Cert),
        AuthMethod::Hba => {
            let address = client.stream.peer_address().map(|address| address.ip());
            let facts = ConnectionFacts {
                local: client.stream.is_local(),
                tls: client.stream.is_tls(),
                address: address.map(|address| address.to_canonical()),
                database: &client.database,
                user: &client.user,
            };
            match context.decide.and_then(|decide| decide(&facts)) {
                Some(Rule::Reject) => Err(rejected(&facts, "rejects connection")),
                Some(rule) => Ok(rule),
                None => Err(rejected(&facts, "has no entry")),
            }
        }
    }
}

fn rejected(facts: &ConnectionFacts<'_>, what: &str) -> AuthError {
    let host = facts
        .address
        .map_or_else(|| "[local]".to_owned(), |address| address.to_string());
    let encryption = if facts.tls {
        "TLS encryption"
    } else {
        "no encryption"
    };
    let (user, database) = (facts.user, facts.database);
    AuthError::refused(
        Fault::fatal(
            SqlState::INVALID_AUTHORIZATION,
            format!("pg_hba.conf {what} for host \"{host}\", user \"{user}\", database \"{database}\", {encryption}"),
        )
        .hint("Change the rules in the file that auth.hba names."),
        format!("pg_hba.conf {what}"),
    )
}

/// Lets the client prove itself; returns what we can log in to servers with.
async fn prove(
    client: &mut Client,
    context: &Context<'_>,
    rule: Rule,
    found: &Found,
) -> Result<Option<Secret>, AuthError> {
    let secret = match found {
        Found::Unknown => None,
        Found::User(secret) => secret.as_ref(),
    };
    match rule {
        Rule::Trust | Rule::Cert if matches!(found, Found::Unknown) => {
            return Err(wrong_password(client, "there is no such user"));
        }
        Rule::Trust => (),
        Rule::Cert => check_certificate(client)?,
        Rule::Plain => return plain(client, secret).await.map(Some),
        Rule::Md5 if !matches!(secret, Some(Secret::Scram(_))) => {
            md5(client, context, secret).await?;
        }
        Rule::Md5 | Rule::Scram => scram(client, context, secret).await?,
        Rule::Reject => return Err(wrong_password(client, "pg_hba.conf rejects connection")),
    }
    Ok(secret.cloned())
}

fn check_certificate(client: &Client) -> Result<(), AuthError> {
    let user = &client.user;
    let refused = |message: String, reason: &str| {
        let fault = Fault::fatal(SqlState::INVALID_AUTHORIZATION, message).hint(
            "Connect with TLS and a client certificate whose common name is the user's name.",
        );
        AuthError::refused(fault, reason)
    };
    match client.stream.peer_certificate() {
        None => Err(refused(
            "connection requires a valid client certificate".to_owned(),
            "the client showed no certificate",
        )),
        Some(shown) if !certificate::is_for_user(shown, user) => Err(refused(
            format!("certificate authentication failed for user \"{user}\""),
            "the certificate is for another user",
        )),
        Some(_) => Ok(()),
    }
}

/// Asks for the password in clear. What proves right is a plain password.
async fn plain(client: &mut Client, secret: Option<&Secret>) -> Result<Secret, AuthError> {
    request(&mut client.stream, Authentication::CleartextPassword).await?;
    let body = read_message(&mut client.stream).await?;
    let given = frontend::password(&body).map_err(malformed)?;
    let Ok(given) = std::str::from_utf8(given) else {
        return Err(wrong_password(client, "the password is not UTF-8"));
    };
    let is_right = match secret {
        None => {
            return Err(wrong_password(
                client,
                "there is no such user with a password",
            ));
        }
        Some(Secret::Plain(password)) => is_same(password, given),
        Some(Secret::Md5(secret)) => {
            let inner = md5_hex(&[given.as_bytes(), client.user.as_bytes()]);
            is_same(&secret.to_ascii_lowercase(), &format!("md5{inner}"))
        }
        Some(Secret::Scram(text)) => {
            Verifier::parse(text).is_some_and(|verifier| verifier.is_of(given))
        }
    };
    // As PostgreSQL, an empty password is none.
    if is_right && !given.is_empty() {
        Ok(Secret::Plain(given.to_owned()))
    } else {
        Err(wrong_password(client, "the password is wrong"))
    }
}

async fn md5(
    client: &mut Client,
    context: &Context<'_>,
    secret: Option<&Secret>,
) -> Result<(), AuthError> {
    let salt = context
        .keyring
        .random::<4>()
        .map_err(|fault| AuthError::refused(fault, "no random numbers"))?;
    request(&mut client.stream, Authentication::Md5Password { salt }).await?;
    let body = read_message(&mut client.stream).await?;
    let given = frontend::password(&body).map_err(malformed)?;
    let inner = match secret {
        Some(Secret::Plain(password)) => md5_hex(&[password.as_bytes(), client.user.as_bytes()]),
        Some(Secret::Md5(secret)) => secret.trim_start_matches("md5").to_ascii_lowercase(),
        Some(Secret::Scram(_)) | None => {
            return Err(wrong_password(
                client,
                "there is no such user with an md5 or plain password",
            ));
        }
    };
    let expect = format!("md5{}", md5_hex(&[inner.as_bytes(), &salt]));
    if bool::from(expect.as_bytes().ct_eq(given)) {
        Ok(())
    } else {
        Err(wrong_password(client, "the password is wrong"))
    }
}

async fn scram(
    client: &mut Client,
    context: &Context<'_>,
    secret: Option<&Secret>,
) -> Result<(), AuthError> {
    let keyring = context.keyring;
    let (verifier, doom) = match secret {
        Some(Secret::Plain(password)) => (Some(keyring.verifier(&client.user, password)), ""),
        Some(Secret::Scram(text)) => (
            Verifier::parse(text),
            "the user's SCRAM verifier is malformed",
        ),
        Some(Secret::Md5(_)) => (None, "the user has an md5 secret, which cannot serve SCRAM"),
        None => (None, "there is no such user with a password"),
    };
    let is_doomed = verifier.is_none();
    let verifier = verifier.unwrap_or_else(|| Verifier::mock(&client.user, &keyring.secret));
    let nonce = keyring
        .random::<NONCE>()
        .map_err(|fault| AuthError::refused(fault, "no random numbers"))?;
    let binding = client.end_point.clone();
    let mechanisms = mechanisms(binding.is_some());
    request(&mut client.stream, Authentication::Sasl { mechanisms }).await?;

    let body = read_message(&mut client.stream).await?;
    let first = frontend::sasl_initial_response(&body).map_err(malformed)?;
    let (challenge, reply) = Exchange::new(verifier, is_doomed, binding, nonce)
        .first(first.mechanism, first.response.unwrap_or_default())
        .map_err(scram_failed)?;
    request(
        &mut client.stream,
        Authentication::SaslContinue(reply.as_bytes()),
    )
    .await?;

    let body = read_message(&mut client.stream).await?;
    match challenge.last(&body) {
        Ok(last) => {
            let mut bytes = Vec::new();
            backend::authentication(&mut bytes, Authentication::SaslFinal(last.as_bytes()));
            client.stream.write_all(&bytes).await?;
            Ok(())
        }
        Err(ScramError::WrongProof) if is_doomed => Err(wrong_password(client, doom)),
        Err(ScramError::WrongProof) => Err(wrong_password(client, "the password is wrong")),
        Err(error) => Err(scram_failed(error)),
    }
}

fn scram_failed(error: ScramError) -> AuthError {
    AuthError::refused(error.fault(), error.to_string())
}

fn malformed(error: frontend::Malformed) -> AuthError {
    AuthError::refused(Fault::from(error).into_fatal(), error.to_string())
}

/// The one answer to every failed proof of a password.
fn wrong_password(client: &Client, reason: &str) -> AuthError {
    let fault = Fault::fatal(
        SqlState::INVALID_PASSWORD,
        format!(
            "password authentication failed for user \"{}\"",
            client.user
        ),
    );
    AuthError::refused(fault, reason)
}

fn is_same(left: &str, right: &str) -> bool {
    bool::from(left.as_bytes().ct_eq(right.as_bytes()))
}

async fn request(stream: &mut Stream, request: Authentication<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    backend::authentication(&mut bytes, request);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// The body of the client's next message, which must be an answer to an authentication request.
async fn read_message(stream: &mut Stream) -> Result<Vec<u8>, AuthError> {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await?;
    let [tag, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let body = length.checked_sub(4).filter(|&body| body <= MESSAGE_MAX);
    match (tag, body) {
        (b'p', Some(body)) => {
            let mut bytes = vec![0; body];
            stream.read_exact(&mut bytes).await?;
            Ok(bytes)
        }
        // Terminate: psql without a password asks for one and comes again.
        (b'X', _) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        _ => {
            let fault = Fault::fatal(
                SqlState::PROTOCOL_VIOLATION,
                format!("expected password response, got message type {tag}"),
            )
            .hint("Use a client that answers the authentication request of the server.");
            Err(AuthError::refused(fault, "the client sent another message"))
        }
    }
}

/// The verifier of a password with a random salt, as text: for `users` in the configuration.
pub fn hash_password(password: &str) -> Result<String, Fault> {
    let salt = random_bytes::<{ scram::SALT }>(&SystemRandom::new())?;
    Ok(scram::hash_password(password, &salt, ITERATIONS))
}
