//! The methods by which a client proves who it is.

use std::io;

use subtle::ConstantTimeEq;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{AuthError, Context, wrong_password};
use crate::config::Secret;
use crate::error::{Fault, SqlState};
use crate::net::Stream;
use crate::server::auth::md5_hex;
use crate::session::startup::Client;
use crate::tls::certificate;
use crate::wire::backend::{self, Authentication};
use crate::wire::frontend;
use crate::wire::scram::{Exchange, NONCE, ScramError, Verifier, mechanisms};

/// Bytes of one message of a client that is not yet in: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH.
const MESSAGE_MAX: usize = 65_535;

/// Checks that the client showed a certificate for its user. rustls has verified it in the handshake.
pub(super) fn check_certificate(client: &Client) -> Result<(), AuthError> {
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
pub(super) async fn plain(
    client: &mut Client,
    secret: Option<&Secret>,
) -> Result<Secret, AuthError> {
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

pub(super) async fn md5(
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

pub(super) async fn scram(
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
    let verifier = verifier.unwrap_or_else(|| keyring.mock(&client.user));
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
