//! Makes a client prove who it is, by the method the configuration or its pg_hba.conf asks for.
//!
//! An unknown user and a wrong password look the same from outside: the same requests, the same words.
//! What really was the matter is in [`AuthError::Refused`]'s `reason`, for the log.

mod keyring;
mod methods;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout_at};

use crate::config::hba::{ConnectionFacts, HbaMethod};
use crate::config::{Auth, AuthMethod, Secret, User};
use crate::error::{Fault, SqlState};
use crate::session::startup::Client;
use crate::wire::backend::{self, Authentication};
use methods::{check_certificate, md5, plain, scram};

pub use self::keyring::{Keyring, hash_password};

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
    pub auth: &'a Auth,
    /// The configuration's users, by name. None at all: every name is a user.
    pub users: &'a BTreeMap<String, User>,
    pub keyring: &'a Keyring,
    /// Of `auth.query`, if the configuration has one.
    pub secrets: Option<&'a dyn Secrets>,
    pub deadline: Instant,
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
    if let Some(user) = context.users.get(&client.user) {
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
    if context.users.is_empty() {
        return Ok(Found::User(None));
    }
    Ok(Found::Unknown)
}

fn rule(client: &Client, context: &Context<'_>) -> Result<HbaMethod, AuthError> {
    match context.auth.method {
        AuthMethod::Scram => Ok(HbaMethod::Scram),
        AuthMethod::Md5 => Ok(HbaMethod::Md5),
        AuthMethod::Plain => Ok(HbaMethod::Password),
        AuthMethod::Trust => Ok(HbaMethod::Trust),
        AuthMethod::Cert => Ok(HbaMethod::Cert),
        AuthMethod::Hba => {
            let address = client.stream.peer_address().map(|address| address.ip());
            let facts = ConnectionFacts {
                local: client.stream.is_local(),
                tls: client.stream.is_tls(),
                address: address.map(|address| address.to_canonical()),
                database: &client.database,
                user: &client.user,
            };
            match context.auth.rules.decide(&facts) {
                Some(HbaMethod::Reject) => Err(rejected(&facts, "rejects connection")),
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
    rule: HbaMethod,
    found: &Found,
) -> Result<Option<Secret>, AuthError> {
    let secret = match found {
        Found::Unknown => None,
        Found::User(secret) => secret.as_ref(),
    };
    match rule {
        HbaMethod::Trust | HbaMethod::Cert if matches!(found, Found::Unknown) => {
            return Err(wrong_password(client, "there is no such user"));
        }
        HbaMethod::Trust => (),
        HbaMethod::Cert => check_certificate(client)?,
        HbaMethod::Password => return plain(client, secret).await.map(Some),
        HbaMethod::Md5 if !matches!(secret, Some(Secret::Scram(_))) => {
            md5(client, context, secret).await?;
        }
        HbaMethod::Md5 | HbaMethod::Scram => scram(client, context, secret).await?,
        HbaMethod::Reject => return Err(wrong_password(client, "pg_hba.conf rejects connection")),
    }
    Ok(secret.cloned())
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
